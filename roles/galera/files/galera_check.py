# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells over http whether this Galera member takes writes: 200 yes, 503 no, each with the reason.

systemd holds the port and starts this at the first check. One process with one connection serves all proxies: a process for
each check would cost a third of a core with three proxies. A server that is frozen accepts and says nothing, so every wait has
a limit below the proxies' own.
"""

from __future__ import annotations

import argparse
import http.server
import os
import pwd
import socket
import socketserver
import threading
import time
from collections.abc import Mapping

# seconds that the server gets to answer
PATIENCE = 0.45
# seconds for which an answer serves the next checks too
FRESH = 0.15
# Not held up by wsrep_sync_wait: that would wait for a primary component.
QUIET = "SET SESSION wsrep_sync_wait = 0"
QUESTION = (
    "SHOW GLOBAL STATUS WHERE variable_name IN ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state')",
    "SHOW GLOBAL VARIABLES WHERE variable_name IN ('read_only', 'wsrep_desync')",
)
STATES = {"1": "joining", "2": "donor", "3": "joined", "4": "synced"}


def verdict(values: Mapping[str, str], donor: bool) -> tuple[bool, str]:
    """Return (takes writes, reason) from the server's status and variables.

    :param donor: whether a member that gives its data to another still takes writes.
    """
    if values.get("wsrep_cluster_status") != "Primary":
        return False, f"not in a primary component ({values.get('wsrep_cluster_status', 'unknown')})"
    if values.get("wsrep_ready") != "ON":
        return False, "not ready for queries"
    if values.get("read_only", "OFF") not in ("OFF", "0", "NO"):
        return False, "read only"
    state = STATES.get(values.get("wsrep_local_state", ""), "unknown")
    if state == "synced" or (state == "donor" and donor):
        return True, state
    return False, state


class Member:
    """The server on this host."""

    def __init__(self, path: str, donor: bool) -> None:
        self.path = path
        self.donor = donor
        # the server knows an account by the system user at its socket
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self._lock = threading.Lock()
        self._connection = None
        self._told = (0.0, (False, "not asked yet"))

    def judge(self) -> tuple[bool, str]:
        """Return (takes writes, reason), no older than FRESH."""
        with self._lock:
            when, told = self._told
            if time.monotonic() - when > FRESH:
                told = self._ask()
                self._told = (time.monotonic(), told)
            return told

    def _ask(self) -> tuple[bool, str]:
        # a connection that the server has closed meanwhile says nothing about the server now
        for fresh in (self._connection is None, True):
            try:
                return verdict(self._values(), self.donor)
            except Exception as error:
                self._drop()
                if fresh or isinstance(getattr(error, "__context__", None), TimeoutError):
                    return False, f"does not answer ({type(error).__name__}: {error})"
        return False, "does not answer"

    def _values(self) -> dict[str, str]:
        import pymysql

        if self._connection is None:
            limits = {"connect_timeout": PATIENCE, "read_timeout": PATIENCE, "write_timeout": PATIENCE}
            self._connection = pymysql.connect(unix_socket=self.path, user=self.user, autocommit=True, **limits)
            with self._connection.cursor() as cursor:
                cursor.execute(QUIET)
        values: dict[str, str] = {}
        with self._connection.cursor() as cursor:
            for question in QUESTION:
                cursor.execute(question)
                values.update(cursor.fetchall())
        return values

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # a frozen server does not take a farewell
            connection._force_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers any path alike."""

    timeout = 2.0

    def do_GET(self) -> None:
        """Answer."""
        healthy, reason = self.server.member.judge()
        body = f"{reason}\n".encode()
        self.send_response(200 if healthy else 503)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *_args: object) -> None:
        """Say nothing: there are many checks a second."""


class Server(socketserver.ThreadingTCPServer):
    """Serves the port that systemd holds."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, member: Member) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.member = member
        self.socket.close()
        # the first of those that systemd passes (sd_listen_fds)
        self.socket = socket.socket(fileno=3)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: object, client_address: object) -> None:
        """A proxy that went away is no error of ours."""


def main() -> None:
    """Serve until systemd stops it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", required=True, help="the server's unix socket")
    parser.add_argument("--donor", action="store_true", help="a member that gives its data to another takes writes")
    arguments = parser.parse_args()
    Server(Member(arguments.socket, arguments.donor)).serve_forever()


if __name__ == "__main__":
    main()
