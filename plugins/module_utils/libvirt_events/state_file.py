# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small file that lets a restarted source know which domains ran before. Losing it costs a question to Nova, never a VM."""

from __future__ import annotations

import json
import os
import tempfile

_VERSION = 1


def read(path: str) -> dict[str, dict[str, str]]:
    """What :func:`write` stored: URI to memory of its domains. Empty when there is no file.

    :raises ValueError: the file is not one of ours, or damaged.
    :raises OSError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    connections = (
        content.get("connections") if isinstance(content, dict) and content.get("version") == _VERSION else None
    )
    if not isinstance(connections, dict):
        raise ValueError("it is not a state file of c5c3.ha.libvirt")
    for domains in connections.values():
        if not isinstance(domains, dict):
            raise ValueError("a connection in it has no mapping of domains")
        for state in domains.values():
            if state not in ("active", "stopped", "failed"):
                raise ValueError(f"a domain in it has the unknown state {state!r}")
    return connections


def write(path: str, connections: dict[str, dict[str, str]]) -> None:
    """Replace the file in one step, readable by its owner only.

    :raises OSError: it cannot be written.
    """
    folder = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": _VERSION, "connections": connections}, file, separators=(",", ":"))
            file.flush()
            # a host that loses power is the very case that the file is for
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
