# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server has to be moved and whether it may be: pure functions.

Two routes, never mixed (design.md, rule 2): a living host migrates, a host proven off is evacuated.
"""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_plan import COLD_MIGRATABLE, LIVE_MIGRATABLE
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts, ServiceFacts

# Methods that end with the server on another host.
DONE = ("live", "cold", "evacuate")


def wanted(method: str, server: ServerFacts, source: str | None, target: str | None, in_flight: bool) -> bool:
    """Whether there is anything to do.

    With ``source`` a server that has left it is done; with ``target`` one that is there.
    """
    if method == "confirm":
        return server.status == "VERIFY_RESIZE"
    if method == "abort":
        return in_flight
    if target is not None and server.host == target:
        return False
    return source is None or server.host == source


def refusal(method: str, server: ServerFacts, service: ServiceFacts | None) -> str | None:
    """Why it must not be done now, with the remedy; None when it may."""
    if method in ("confirm", "abort"):
        return None
    if server.host is None:
        return "it is on no host"
    if server.task_state:
        return f"Nova is at {server.task_state}: wait for it"
    if service is None:
        return f"Nova knows no nova-compute on its host {server.host}"
    if method == "evacuate":
        if service.up:
            return f"nova-compute of {server.host} is up: fence the host and force the service down, or use method=live"
        return None
    if not service.up:
        return f"nova-compute of {server.host} is down: nothing migrates from there; fence it and use method=evacuate"
    if method == "live" and server.vm_state not in LIVE_MIGRATABLE:
        return f"a server in vm_state {server.vm_state} is not live-migrated: use method=cold for a stopped one"
    if method == "cold" and server.vm_state not in COLD_MIGRATABLE:
        return f"a server in vm_state {server.vm_state} is not cold-migrated: bring it to ACTIVE or SHUTOFF first"
    return None
