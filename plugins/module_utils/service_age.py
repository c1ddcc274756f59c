# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a service of systemd runs with what is on disk: when it was started, and when what it reads was laid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "MainPID",
    "UnitFileState",
    "NeedDaemonReload",
    "ExecMainStartTimestamp",
    "ActiveEnterTimestamp",
    "StateChangeTimestamp",
)
RUNS = ("active", "reloading", "refreshing")
# what systemctl is-enabled calls a success
ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "transient")


def seconds(stamp: str) -> float:
    """Return a time as C(systemctl show --timestamp=us+utc) tells it, in seconds since the epoch; 0 when there is none."""
    if not stamp:
        return 0.0
    _day, date, clock, _zone = stamp.split()
    told = datetime.strptime(f"{date} {clock}", "%Y-%m-%d %H:%M:%S.%f")
    return told.replace(tzinfo=UTC).timestamp()


def parse(text: str) -> list[dict[str, str]]:
    """Return the properties of each unit, in the order in which C(systemctl show) was asked for them."""
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in text.strip().split("\n\n")
        if block.strip()
    ]


def started(told: Mapping[str, str]) -> float:
    """Return when a service was started, in seconds since the epoch; 0 when it never was."""
    # a unit without a main process of its own has no time of it
    return seconds(told.get("ExecMainStartTimestamp", "")) or seconds(told.get("ActiveEnterTimestamp", ""))


def newest(laid: Mapping[str, float], since: float) -> tuple[str, float]:
    """Return the last of the paths that were laid later than ``since``, and by how many seconds; an empty path when none was."""
    later = {path: when - since for path, when in laid.items() if when > since}
    return max(later.items(), key=lambda each: each[1]) if later else ("", 0.0)


def judge(told: Mapping[str, str], restart_for: Mapping[str, float], reload_for: Mapping[str, float]) -> dict[str, Any]:
    """Say what a service needs.

    :arg told: systemd's properties of it.
    :arg restart_for: when each file that it reads at its start was laid, in seconds since the epoch.
    :arg reload_for: the same of those that it reads again at a reload.
    """
    always = {"there": told.get("LoadState") != "not-found", "enabled": told.get("UnitFileState") in ENABLED}
    if not always["there"]:
        return {**always, "needs": "start", "because": "systemd knows no such unit"}
    if told.get("ActiveState") not in RUNS:
        return {**always, "needs": "start", "because": f"it is {told.get('ActiveState')}"}
    start = started(told)
    # the unit's state changes with a start and with a reload
    read = max(start, seconds(told.get("StateChangeTimestamp", "")))
    path, late = newest(restart_for, start)
    if path:
        return {**always, "needs": "restart", "because": f"{path} was laid {late:.1f} s after the start"}
    if told.get("NeedDaemonReload") == "yes":
        return {**always, "needs": "restart", "because": "its unit was changed after systemd read it"}
    path, late = newest(reload_for, read)
    if path:
        return {**always, "needs": "reload", "because": f"{path} was laid {late:.1f} s after it was read"}
    return {**always, "needs": "nothing", "because": ""}


def laid(paths: Sequence[str], time: str = "change") -> dict[str, float]:
    """Return when each of the paths that are there got what it holds, in seconds since the epoch.

    :arg time: ``change`` also sees what was copied with an older modification time, ``modification`` does not see other owners and modes.
    """
    field = {"change": "st_ctime", "modification": "st_mtime"}[time]
    times = {}
    for path in paths:
        try:
            # a link, and where it leads
            times[path] = max(getattr(os.lstat(path), field), getattr(os.stat(path), field))
        except OSError:
            continue
    return times


def show(module: AnsibleModule, names: Sequence[str]) -> list[dict[str, str]]:
    """Return systemd's properties of each unit.

    :raises LookupError: when systemd does not tell, within 20 seconds; the message says what to do.
    """
    asked = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}", "--", *names]
    code, out, err = module.run_command(["timeout", "20", *asked])
    told = parse(out)
    if code or len(told) != len(names):
        raise LookupError(
            f"systemd tells nothing of {', '.join(names)}: {(err or out).strip() or 'no answer'}. "
            "Name units, such as memcached, and see that systemctl show works on the host."
        )
    return told
