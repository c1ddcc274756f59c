# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes' JSON as the facts of the gates. Pure; what others wrote is never trusted to be well formed."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import gates
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import HOST_CAUSES, answered_fault
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, is_finished, parse_time

ZONE_LABEL = "topology.kubernetes.io/zone"
_STATES = {"True": gates.READY, "False": gates.NOT_READY}


def epoch(text: object) -> float | None:
    """RFC 3339 as seconds since the epoch; None for nothing, and for nonsense."""
    try:
        return parse_time(text).timestamp() if isinstance(text, str) else None
    except ArgumentError:
        return None


def node_facts(node: dict) -> gates.NodeFacts:
    """A Node whose condition Ready is missing or Unknown is Unreachable: nobody hears its kubelet."""
    metadata, ready = node["metadata"], get_condition(node, "Ready") or {}
    return gates.NodeFacts(
        name=metadata["name"],
        state=_STATES.get(str(ready.get("status")), gates.UNREACHABLE),
        since=epoch(ready.get("lastTransitionTime")),
        zone=str((metadata.get("labels") or {}).get(ZONE_LABEL) or ""),
    )


def hypervisor_facts(hypervisor: dict) -> gates.HypervisorFacts:
    """A Hypervisor as the gates see it."""
    spec, status = hypervisor.get("spec") or {}, hypervisor.get("status") or {}
    return gates.HypervisorFacts(
        name=hypervisor["metadata"]["name"],
        maintenance=str(spec.get("maintenance") or ""),
        high_availability=spec.get("highAvailability", True) is True,
        heartbeat=epoch((status.get("agent") or {}).get("heartbeatTime")),
    )


def host_eviction(eviction: dict) -> gates.HostEviction | None:
    """An Eviction of a whole host for a failed Node, None for any other."""
    spec = eviction.get("spec") or {}
    if spec.get("instances") or spec.get("cause") not in HOST_CAUSES:
        return None
    evicting, fenced = get_condition(eviction, "Evicting") or {}, get_condition(eviction, "Fenced") or {}
    preflight = get_condition(eviction, "PreflightChecksSucceeded") or {}
    try:
        answered = answered_fault(eviction)
    except ArgumentError:
        answered = None
    finished = is_finished(eviction)
    return gates.HostEviction(
        host=str(spec.get("hypervisor")),
        created=epoch((eviction.get("metadata") or {}).get("creationTimestamp")) or 0.0,
        finished=finished,
        succeeded=finished and evicting.get("reason") == "Succeeded",
        held=not finished and "False" in (preflight.get("status"), fenced.get("status")),
        fenced=fenced.get("status") == "True",
        occurred_at=epoch(answered),
    )
