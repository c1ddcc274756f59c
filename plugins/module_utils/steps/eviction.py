# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step eviction: ask for an Eviction, once, or take it back."""

from __future__ import annotations

import time

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import eviction_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, HaError, Invalid, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import AGENT_MANAGER, Resource, evictions
from ansible_collections.c5c3.ha.plugins.module_utils.steps.written import written

ARGUMENTS = {
    "argument_spec": {
        **KUBERNETES_ARGS,
        "name": {"type": "str"},
        "hypervisor": {"type": "str"},
        "instances": {"type": "list", "elements": "str", "default": []},
        "cause": {"type": "str", "choices": list(rules.CAUSES)},
        "reason": {"type": "str"},
        "occurred_at": {"type": "str"},
        "notify_only": {"type": "bool", "default": False},
        "fault_over": {"type": "bool", "default": False},
        "persist_count": {"type": "int", "default": 0},
        "persist_window": {"type": "float", "default": 0.0},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    },
    "required_if": [("state", "present", ("hypervisor", "reason"))],
}

# Each turn means that somebody else changed the object between our read and our write.
TURNS = 10


def run(params: dict, check_mode: bool) -> dict:
    """Bring the Eviction to the wanted state.

    :returns: changed, action, eviction, diff, msg, and warnings when the API server gave any.
    :raises HaError: wrong arguments (before any request), or what the API server said.
    """
    if params["state"] == "absent":
        name, wanted = rules.name_from(params), None
    else:
        wanted = rules.wanted_from(params)
        name = wanted.name
    resource = evictions(params["api_group"])
    with Client.from_params(params, AGENT_MANAGER) as client:
        result = (
            present(client, resource, wanted, check_mode) if wanted else _absent(client, resource, name, check_mode)
        )
        if client.warnings:
            result["warnings"] = client.warnings
    return result


def present(client: Client, resource: Resource, wanted: rules.Wanted, check_mode: bool) -> dict:
    """Ask for the Eviction `wanted`, once; return the step's result."""
    existing = client.get(resource, wanted.name) if wanted.fault_over else None
    for turn in range(TURNS):
        if turn:
            existing = client.get(resource, wanted.name)
        # At first nothing is assumed to be there, the common case: one request instead of two.
        decision = rules.decide(existing, wanted)
        asked = decision.wanted or wanted
        try:
            if decision.action == rules.KEEP:
                return _result(False, "unchanged", existing, existing, decision.message)
            if decision.action == rules.WAIT:
                time.sleep(min(0.05 * 2**turn, 1.0))
                continue
            if decision.action in (rules.UPDATE, rules.NOTE):
                body: dict = {
                    "metadata": {"resourceVersion": existing["metadata"]["resourceVersion"]},
                    "spec": {"occurredAt": wanted.occurred_at},
                }
                if decision.action == rules.NOTE:
                    body["metadata"]["annotations"] = wanted.annotations(existing)
                    body["spec"]["reason"] = wanted.reason
                new = client.patch(resource, wanted.name, body, dry_run=check_mode)
                # Upstream's definition has no occurredAt and drops it.
                changed = new["spec"] != existing["spec"]
                return _result(changed, "updated" if changed else "unchanged", existing, new, decision.message)
            if decision.action == rules.REPLACE:
                _delete(client, resource, existing, check_mode)
                if check_mode:
                    # A dry run cannot create what a dry run only pretended to delete.
                    new = resource.body(asked.name, spec=asked.spec())
                else:
                    new = _create(client, resource, asked, False, existing)
                return _result(True, "replaced", existing, new, decision.message)
            return _result(True, "created", None, _create(client, resource, wanted, check_mode), decision.message)
        except (Conflict, NotFound) as error:
            if isinstance(error, NotFound) and decision.action == rules.CREATE:
                raise
    if decision.action == rules.WAIT:
        raise HaError(f"{decision.message}: run this again")
    raise HaError(
        f"Eviction {wanted.name} was changed by others {TURNS} times between reading and writing it:"
        " find out who writes it (kubectl get --show-managed-fields) and run this again"
    )


def _create(
    client: Client, resource: Resource, wanted: rules.Wanted, dry_run: bool, former: dict | None = None
) -> dict:
    refusal = HaError(
        f"Eviction {wanted.name} is refused: {resource.full_name} as served by {client.config.server} has no"
        f" spec.instances, so it would move every server of {wanted.hypervisor}. Install the definitions of c5c3.ha"
        " (role c5c3.ha.crds), or set api_group to a group that has them"
    )
    try:
        body = resource.body(wanted.name, spec=wanted.spec())
        if annotations := wanted.annotations(former):
            body["metadata"]["annotations"] = annotations
        # Strict: the API server would drop an unknown spec.instances without a word.
        new = client.create(resource, body, dry_run=dry_run, strict=bool(wanted.instances))
    except Invalid as error:
        if wanted.instances and 'unknown field "spec.instances"' in str(error):
            raise refusal from None
        raise
    if wanted.instances and not (new.get("spec") or {}).get("instances"):
        # A server too old for strict validation: nobody must act on this.
        if not dry_run:
            client.delete(resource, wanted.name, uid=new["metadata"]["uid"])
        raise refusal
    return new


def _delete(client: Client, resource: Resource, existing: dict, dry_run: bool) -> bool:
    metadata = existing["metadata"]
    return client.delete(
        resource, metadata["name"], uid=metadata["uid"], resource_version=metadata["resourceVersion"], dry_run=dry_run
    )


def _absent(client: Client, resource: Resource, name: str, check_mode: bool) -> dict:
    for _turn in range(TURNS):
        existing = client.get(resource, name)
        if existing is None:
            return _result(False, "unchanged", None, None, f"Eviction {name} is not there")
        try:
            removed = _delete(client, resource, existing, check_mode)
        except Conflict:
            continue
        return _result(removed, "deleted", existing, None, f"Eviction {name} is removed")
    raise HaError(f"Eviction {name} was changed by others {TURNS} times while it was to be removed: run this again")


def _result(changed: bool, action: str, before: dict | None, after: dict | None, message: str) -> dict:
    return written("eviction", changed, action, before, after, message, _shown)


def _shown(eviction: dict) -> dict:
    return {"name": eviction["metadata"]["name"], "spec": eviction.get("spec") or {}}
