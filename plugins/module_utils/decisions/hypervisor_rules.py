# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to change on a Hypervisor resource. Pure functions over plain data."""

from __future__ import annotations

from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import format_time, parse_time, shown

NODE_STATES = ("Ready", "NotReady", "Unreachable")
MAINTENANCE = ("", "manual", "auto", "ha", "termination")


def wanted_spec(params: dict) -> dict:
    """Return the part of ``spec`` that was asked for; None as a value removes the field.

    :raises ArgumentError: maintenance_reason without maintenance, or missing where a person must give it.
    """
    spec: dict[str, Any] = {}
    maintenance, reason = params.get("maintenance"), params.get("maintenance_reason")
    if maintenance is not None:
        spec["maintenance"] = maintenance
        if maintenance == "manual" and not (reason or "").strip():
            raise ArgumentError("maintenance manual needs maintenance_reason: say why the host is out of service")
        if maintenance == "":
            if reason:
                raise ArgumentError("maintenance_reason is given and maintenance is empty: leave the reason out")
            # A reason left behind would tell of a maintenance that is over.
            spec["maintenanceReason"] = None
    if reason and maintenance != "":
        spec["maintenanceReason"] = reason
    if params.get("high_availability") is not None:
        spec["highAvailability"] = params["high_availability"]
    if params.get("fencing") is not None:
        spec["fencing"] = _fencing(params["fencing"])
    return spec


def _fencing(fencing: dict) -> dict | None:
    secret = fencing.get("secret_ref")
    given = {
        "agent": fencing.get("agent"),
        "address": fencing.get("address"),
        "systemId": fencing.get("system_id"),
        "secretRef": {"name": secret["name"], "namespace": secret.get("namespace")} if secret else None,
        "parameters": _fencing_parameters(fencing.get("parameters") or {}),
    }
    if not any(given.values()):
        return None  # fencing: {} takes it away
    if not given["agent"]:
        raise ArgumentError("fencing has no agent: name the fence agent, such as fence_redfish")
    # Whole, with null for what is left out: a stale address beside a new agent would switch off the wrong host.
    return given


def _fencing_parameters(given: dict) -> dict | None:
    if not given:
        return None
    # Late: agents run this step for each heartbeat.
    from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import PARAMETERS

    values = {name: str(value) for name, value in given.items()}
    for name, value in values.items():
        if name not in PARAMETERS or not PARAMETERS[name].fullmatch(value):
            raise ArgumentError(
                f"fencing.parameters {shown(name)}: {shown(value)} is not possible: use"
                f" {', '.join(f'{key} ({pattern.pattern})' for key, pattern in sorted(PARAMETERS.items()))}"
            )
    return {name: values.get(name) for name in PARAMETERS}


def wanted_status(params: dict) -> dict:
    """Return the part of ``status`` that was asked for.

    :raises ArgumentError: agent_heartbeat is no time.
    """
    status: dict[str, Any] = {}
    if params.get("node_state") is not None:
        status["nodeState"] = params["node_state"]
    agent: dict[str, Any] = {}
    if params.get("agent_heartbeat"):
        agent["heartbeatTime"] = format_time(parse_time(params["agent_heartbeat"], "agent_heartbeat"))
    if params.get("version") is not None:
        agent["version"] = params["version"]
    if params.get("libvirt_connected") is not None:
        agent["libvirtConnected"] = params["libvirt_connected"]
    if agent:
        status["agent"] = agent
    if params.get("instances") is not None:
        # Sorted, so that the order in which libvirt tells them makes no change.
        status["instances"] = sorted(
            ({"id": item["id"], "name": item["name"], "active": item["active"]} for item in params["instances"]),
            key=lambda item: (item["id"], item["name"]),
        )
        status["numInstances"] = len(status["instances"])
    return status


def drop_stale(existing: dict | None, status: dict) -> dict:
    """Leave out what an agent says, when the resource holds a later word of it: messages may overtake each other."""
    said = (status.get("agent") or {}).get("heartbeatTime")
    agent = ((existing or {}).get("status") or {}).get("agent")
    try:
        known = parse_time(agent["heartbeatTime"]) if isinstance(agent, dict) else None
    except (KeyError, ArgumentError):
        known = None  # what is no time was never a later word
    if not said or known is None or parse_time(said) >= known:
        return status
    return {key: value for key, value in status.items() if key not in ("agent", "instances", "numInstances")}


def changes(existing: Any, wanted: dict) -> dict:
    """Return the merge patch that leads from `existing` to `wanted`: only what differs, None for what is to vanish."""
    current = existing if isinstance(existing, dict) else {}
    patch: dict = {}
    for key, value in wanted.items():
        if isinstance(value, dict):
            inner = changes(current.get(key), value)
            if inner or not isinstance(current.get(key), dict):
                patch[key] = inner
        elif value is None:
            if key in current:
                patch[key] = None
        elif key not in current or current[key] != value:
            patch[key] = value
    return patch


def merged(existing: Any, patch: dict) -> dict:
    """Return `existing` with a merge patch (RFC 7386) applied, as the API server would."""
    result = dict(existing) if isinstance(existing, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key), value)
        else:
            result[key] = value
    return result


def checked_labels(labels: dict | None) -> dict:
    """Return labels with text values; None as a value removes a label.

    :raises ArgumentError: a value is neither text nor null.
    """
    result = {}
    for key, value in (labels or {}).items():
        if value is not None and not isinstance(value, str):
            raise ArgumentError(f"labels: the value {shown(value)} of {shown(key)} is not text: put it in quotes")
        result[key] = value
    return result
