# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step hypervisor: set what is wanted of a hypervisor, and record what is seen of it."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import hypervisor_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, HaError, NotFound, NotServed
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    AGENT_MANAGER,
    OPERATOR_MANAGER,
    Resource,
    hypervisors,
    validate_name,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps.written import written

ARGUMENTS = {
    "argument_spec": {
        **KUBERNETES_ARGS,
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "create": {"type": "bool", "default": True},
        "labels": {"type": "dict"},
        "maintenance": {"type": "str", "choices": list(rules.MAINTENANCE)},
        "maintenance_reason": {"type": "str"},
        "high_availability": {"type": "bool"},
        "fencing": {
            "type": "dict",
            "options": {
                "agent": {"type": "str"},
                "address": {"type": "str"},
                "system_id": {"type": "str"},
                "secret_ref": {
                    "type": "dict",
                    "no_log": False,
                    "options": {"name": {"type": "str", "required": True}, "namespace": {"type": "str"}},
                },
                "parameters": {"type": "dict"},
            },
        },
        "node_state": {"type": "str", "choices": list(rules.NODE_STATES)},
        "agent_heartbeat": {"type": "str"},
        "version": {"type": "str"},
        "libvirt_connected": {"type": "bool"},
        "instances": {
            "type": "list",
            "elements": "dict",
            "options": {
                "id": {"type": "str", "required": True},
                "name": {"type": "str", "required": True},
                "active": {"type": "bool", "required": True},
            },
        },
    },
}

_AGENT_OPTIONS = ("agent_heartbeat", "version", "libvirt_connected", "instances")
TURNS = 10


def run(params: dict, check_mode: bool) -> dict:
    """Bring the Hypervisor to the wanted state; fields that are not given stay as they are.

    :returns: changed, action, hypervisor, diff, msg; skipped when it is not there and must not be created.
    :raises HaError: wrong arguments (before any request), or what the API server said.
    """
    name = validate_name(params["name"])
    resource = hypervisors(params["api_group"])
    spec, status = rules.wanted_spec(params), rules.wanted_status(params)
    labels = rules.checked_labels(params.get("labels"))
    from_agent = any(params.get(option) is not None for option in _AGENT_OPTIONS)
    with Client.from_params(params, AGENT_MANAGER if from_agent else OPERATOR_MANAGER) as client:
        if params["state"] == "absent":
            result = _absent(client, resource, name, check_mode)
        else:
            result = _present(client, resource, name, spec, labels, status, params["create"], check_mode)
        if client.warnings:
            result["warnings"] = client.warnings
    return result


def _present(
    client: Client,
    resource: Resource,
    name: str,
    spec: dict,
    labels: dict,
    status: dict,
    create: bool,
    check_mode: bool,
) -> dict:
    for _turn in range(TURNS):
        existing = client.get(resource, name)
        if existing is None and not create:
            return {
                **_result(False, "skipped", None, None, f"Hypervisor {name} is not there, and create is false"),
                "skipped": True,
            }
        try:
            return _write(client, resource, name, existing, spec, labels, status, check_mode)
        except NotServed:
            raise
        except (Conflict, NotFound):
            continue  # created or deleted between our read and our write
    raise HaError(
        f"Hypervisor {name} was created and deleted by others {TURNS} times meanwhile: find out who does that"
    )


def _write(
    client: Client,
    resource: Resource,
    name: str,
    existing: dict | None,
    spec: dict,
    labels: dict,
    status: dict,
    check_mode: bool,
) -> dict:
    new = existing
    if existing is None:
        body = resource.body(name, spec=rules.merged({}, spec))
        if labels:
            body["metadata"]["labels"] = rules.merged({}, labels)
        new = client.create(resource, body, dry_run=check_mode)
    else:
        patch: dict = {}
        if difference := rules.changes(existing.get("spec"), spec):
            patch["spec"] = difference
        if difference := rules.changes(existing["metadata"].get("labels"), labels):
            patch["metadata"] = {"labels": difference}
        if patch:
            new = client.patch(resource, name, patch, dry_run=check_mode)
    difference = rules.changes(new.get("status"), rules.drop_stale(existing, status))
    if difference:
        if existing is None and check_mode:
            new = {**new, "status": rules.merged(new.get("status"), difference)}
        else:
            answer = client.patch(resource, name, {"status": difference}, subresource="status", dry_run=check_mode)
            # A dry run's answer knows nothing of the dry run before it.
            new = {**new, "status": answer.get("status") or {}} if check_mode else answer
    changed = existing is None or _shown(existing) != _shown(new)
    action = "created" if existing is None else "updated" if changed else "unchanged"
    return _result(changed, action, existing, new, f"Hypervisor {name} is {action}")


def _absent(client: Client, resource: Resource, name: str, check_mode: bool) -> dict:
    for _turn in range(TURNS):
        existing = client.get(resource, name)
        if existing is None:
            return _result(False, "unchanged", None, None, f"Hypervisor {name} is not there")
        try:
            removed = client.delete(resource, name, uid=existing["metadata"]["uid"], dry_run=check_mode)
        except Conflict:
            continue
        return _result(removed, "deleted", existing, None, f"Hypervisor {name} is removed")
    raise HaError(
        f"Hypervisor {name} was deleted and created by others {TURNS} times meanwhile: find out who does that"
    )


def _result(changed: bool, action: str, before: dict | None, after: dict | None, message: str) -> dict:
    return written("hypervisor", changed, action, before, after, message, _shown)


def _shown(hypervisor: dict) -> dict:
    """Return what this step may have changed."""
    status = hypervisor.get("status") or {}
    return {
        "name": hypervisor["metadata"]["name"],
        "labels": hypervisor["metadata"].get("labels") or {},
        "spec": hypervisor.get("spec") or {},
        "status": {key: status[key] for key in ("nodeState", "agent", "instances", "numInstances") if key in status},
    }
