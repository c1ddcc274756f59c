# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has two members of three go on that lost each other for a moment while the third died.

Galera leaves out who is silent for evs.suspect_timeout. When a member dies and another one stalls for as long, each of the two that are
left is alone, and without a primary component. They find each other again, and stay without one until the dead member returns: Galera
makes one anew only when all of the last one are there (pc::Proto::is_prim).

Of three, two that were both in the last primary component, and have not been restarted since, may go on: the third cannot be in a
primary component, which takes two of these three, and each member of a later one would know of it. A member that left in good order
comes back under another uuid, so it is not taken for one that was there. With more members than three a later component could have been
made without this one, and a human decides (recover_galera).
"""

from __future__ import annotations

import argparse
import os
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass

# seconds between two looks, and for which the same two must have been without a primary component: Galera's own merge comes first
EVERY, PATIENCE = 1.0, 5.0
MEMBERS = 3
# Dirty reads: without a primary component the server answers nothing else.
QUIET = "SET SESSION wsrep_sync_wait = 0, SESSION wsrep_dirty_reads = ON"
STATUS = "SHOW GLOBAL STATUS LIKE 'wsrep_cluster_status'"
COMPONENT = "SELECT uuid FROM information_schema.wsrep_membership"
# MariaDB 11 has a variable for each option of the provider, and refuses the way of those before
VARIABLE = "SHOW GLOBAL VARIABLES LIKE 'wsrep_provider_pc_bootstrap'"
GO_ON = ("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=YES'", "SET GLOBAL wsrep_provider_pc_bootstrap = ON")


@dataclass(frozen=True)
class View:
    """The last primary component that this member was in, as Galera keeps it in gvwstate.dat."""

    me: str
    members: frozenset[str]


def parse(text: str) -> View | None:
    """Return what gvwstate.dat says; None when it is not whole."""
    me = re.search(r"^my_uuid: (\S+)", text, re.M)
    members = re.findall(r"^member: (\S+)", text, re.M)
    return View(me[1], frozenset(members)) if me and members and "#vwend" in text else None


def judge(last: View | None, status: str, component: Collection[str]) -> tuple[bool, str]:
    """Return (make this component the primary one, why or why not).

    :param last: the last primary component this member was in.
    :param status: wsrep_cluster_status.
    :param component: uuids of the members that see each other now, this one included.
    """
    if status != "non-Primary":
        return False, ""
    if last is None or last.me not in component:
        return False, "this member was in no primary component since its start"
    if len(last.members) != MEMBERS:
        return False, f"the last primary component had {len(last.members)} members, not {MEMBERS}: a human decides"
    if not last.members.issuperset(component):
        return False, "a member is here that was not in the last primary component"
    if 2 * len(set(component)) <= MEMBERS:
        return False, f"{len(set(component))} of {MEMBERS} are here"
    if last.me != min(component):
        return False, "the other one of the two has this component go on"
    return (
        True,
        f"{len(set(component))} of the {MEMBERS} members of the last primary component are here, none restarted since",
    )


class Member:
    """The server on this host."""

    def __init__(self, path: str, datadir: str) -> None:
        self.path = path
        self.view = os.path.join(datadir, "gvwstate.dat")
        self._connection = None

    def look(self) -> tuple[View | None, str, list[str]]:
        """Return (last primary component, status, members that see each other); raises when the server does not answer."""
        try:
            status = self._rows(STATUS)[0][1]
            if status != "non-Primary":
                return None, status, []
            component = [uuid for (uuid,) in self._rows(COMPONENT)]
        except Exception:
            self._drop()
            raise
        try:
            with open(self.view, encoding="ascii") as handle:
                return parse(handle.read()), status, component
        except OSError:
            return None, status, component

    def go_on(self) -> None:
        """Make its component the primary one."""
        self._rows(GO_ON[bool(self._rows(VARIABLE))])

    def _rows(self, question: str) -> tuple[tuple[str, ...], ...]:
        import pymysql

        if self._connection is None:
            limits = {"connect_timeout": 3, "read_timeout": 5, "write_timeout": 5}
            self._connection = pymysql.connect(unix_socket=self.path, user="root", autocommit=True, **limits)
            with self._connection.cursor() as cursor:
                cursor.execute(QUIET)
        with self._connection.cursor() as cursor:
            cursor.execute(question)
            return cursor.fetchall()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # a frozen server does not take a farewell
            connection._force_close()


def main() -> None:
    """Watch the member until systemd stops it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", required=True, help="the server's socket")
    parser.add_argument("--datadir", required=True, help="the server's folder of data")
    arguments = parser.parse_args()
    member, never = Member(arguments.socket, arguments.datadir), threading.Event()
    seen, looks, told = None, 0, ""
    while not never.wait(EVERY):
        try:
            look = member.look()
        except Exception:  # down, starting or frozen
            seen, looks = None, 0
            continue
        act, why = judge(*look)
        if why != told:
            print(why or "in a primary component", flush=True)
            told = why
        looks = looks + 1 if act and look == seen else 1
        seen = look
        if act and looks * EVERY >= PATIENCE:
            print("the component goes on as the primary one", flush=True)
            try:
                member.go_on()
            except Exception as error:
                print(f"refused: {error}", flush=True)
            seen, looks = None, 0


if __name__ == "__main__":
    main()
