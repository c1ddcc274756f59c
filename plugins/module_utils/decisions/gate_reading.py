# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes' JSON as the facts of the gates and of node_sync. Pure; what others wrote is never trusted to be well formed."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import gate_data
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import (
    HOST_CAUSES,
    answered_fault,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import parse_time

ZONE_LABEL = "topology.kubernetes.io/zone"
PRESSURE = ("DiskPressure", "MemoryPressure", "PIDPressure", "NetworkUnavailable")
# How spec.reason begins of an Eviction for a failed Node: upstream's schema has no spec.cause.
NODE_MARK = "the Node is "
# The operator's conditions on a Hypervisor.
NODE_READY, NODE_PRESSURE, EVACUATION_ALLOWED, HOST_RETURN = (
    "NodeReady",
    "NodePressure",
    "EvacuationAllowed",
    "HostReturn",
)
OWN_CONDITIONS = (NODE_READY, NODE_PRESSURE, EVACUATION_ALLOWED, HOST_RETURN)
_STATES = {"True": gate_data.READY, "False": gate_data.NOT_READY}


def epoch(text: object) -> float | None:
    """RFC 3339 as seconds since the epoch; None for nothing, and for nonsense."""
    try:
        return parse_time(text).timestamp() if isinstance(text, str) else None
    except ArgumentError:
        return None


def node_facts(node: dict) -> gate_data.NodeFacts:
    """A Node whose condition Ready is missing or Unknown is Unreachable: nobody hears its kubelet."""
    metadata, conditions = node["metadata"], _conditions(node)
    ready = conditions.get("Ready", {})
    trouble = {kind: conditions.get(kind, {}).get("status") for kind in PRESSURE}
    return gate_data.NodeFacts(
        name=metadata["name"],
        state=_STATES.get(str(ready.get("status")), gate_data.UNREACHABLE),
        since=epoch(ready.get("lastTransitionTime")),
        zone=str(_dict(metadata.get("labels")).get(ZONE_LABEL) or ""),
        said=line(f"{ready.get('reason') or 'NoCondition'}: {ready.get('message') or ''}"),
        pressure=tuple(kind for kind in PRESSURE if trouble[kind] == "True"),
        pressure_known="Unknown" not in trouble.values(),
    )


def hypervisor_facts(hypervisor: dict) -> gate_data.HypervisorFacts:
    """A Hypervisor with the conditions of the operator."""
    metadata, spec, status = hypervisor["metadata"], _dict(hypervisor.get("spec")), _dict(hypervisor.get("status"))
    return gate_data.HypervisorFacts(
        name=metadata["name"],
        maintenance=str(spec.get("maintenance") or ""),
        high_availability=spec.get("highAvailability", True) is True,
        heartbeat=epoch(_dict(status.get("agent")).get("heartbeatTime")),
        uid=str(metadata.get("uid") or ""),
        node_state=str(status.get("nodeState") or ""),
        conditions={
            kind: (str(one.get("status")), str(one.get("reason")), str(one.get("message")))
            for kind, one in _conditions(hypervisor).items()
            if kind in OWN_CONDITIONS
        },
    )


def host_eviction(eviction: dict) -> gate_data.HostEviction | None:
    """An Eviction of a whole host, None for any other."""
    spec, status, conditions = _dict(eviction.get("spec")), _dict(eviction.get("status")), _conditions(eviction)
    if spec.get("instances"):
        return None
    evicting, fenced = conditions.get("Evicting", {}), conditions.get("Fenced", {})
    preflight = conditions.get("PreflightChecksSucceeded", {})
    finished = evicting.get("status") == "False"
    try:
        # Upstream's schema drops spec.occurredAt; what was finished answers all that was before.
        answered = answered_fault({"spec": spec, "status": status})
    except ArgumentError:
        answered = None
    return gate_data.HostEviction(
        host=str(spec.get("hypervisor")),
        created=epoch(_dict(eviction.get("metadata")).get("creationTimestamp")) or 0.0,
        for_failure=(
            spec["cause"] in HOST_CAUSES if spec.get("cause") else str(spec.get("reason") or "").startswith(NODE_MARK)
        ),
        finished=finished,
        reason=str(evicting.get("reason") or ""),
        held=not finished and "False" in (preflight.get("status"), fenced.get("status")),
        fenced=fenced.get("status") == "True",
        # Once a power switch was asked, evict looks before it ends.
        begun=bool(fenced) or any(_dict(entry).get("attempts") for entry in _list(status.get("instances"))),
        occurred_at=epoch(answered or (finished and (status.get("finishedAt") or evicting.get("lastTransitionTime")))),
    )


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list:
    return value if isinstance(value, list) else []


def _conditions(obj: dict) -> dict[str, dict]:
    listed = [_dict(one) for one in _list(_dict(obj.get("status")).get("conditions"))]
    return {one["type"]: one for one in reversed(listed) if isinstance(one.get("type"), str)}


def line(text: str, limit: int = 300) -> str:
    """A text of others for a message of ours: one line, printable, not long."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."
