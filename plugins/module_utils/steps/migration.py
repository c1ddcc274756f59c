# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step migration: record the progress of a server's migration."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import migration_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.hypervisor_rules import changes, merged
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, HaError, NotFound, NotServed
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    AGENT_MANAGER,
    Resource,
    migrations,
    now_utc,
    validate_name,
    validate_namespace,
    validate_uuid,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps.written import written

ARGUMENTS = {
    "argument_spec": {
        **KUBERNETES_ARGS,
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "instance": {"type": "str"},
        "source": {"type": "str"},
        "target": {"type": "str"},
        "eviction": {"type": "str"},
        "status": {"type": "dict"},
        "job": {"type": "dict"},
    },
}

TURNS = 10


def run(params: dict, check_mode: bool) -> dict:
    """Bring the Migration to the wanted state.

    :returns: changed, action, migration, diff, msg.
    :raises HaError: wrong arguments (before any request), or what the API server said.
    """
    name, namespace = validate_uuid(params["name"], "name"), validate_namespace(params["namespace"])
    spec = {"instance": validate_uuid(params.get("instance") or name, "instance")}
    for option in ("source", "target", "eviction"):
        if params.get(option):
            spec[option] = validate_name(params[option], option)
    told = rules.status_from_job(params.get("job") or {})
    told.update(rules.checked_status(params.get("status") or {}))
    resource = migrations(params["api_group"])
    with Client.from_params(params, AGENT_MANAGER) as client:
        for _turn in range(TURNS):
            existing = client.get(resource, name, namespace)
            try:
                if params["state"] == "absent":
                    result = _absent(client, resource, name, namespace, existing, check_mode)
                else:
                    result = _present(client, resource, name, namespace, existing, spec, told, check_mode)
                break
            except NotServed:
                raise
            except (Conflict, NotFound) as error:
                if existing is None and isinstance(error, NotFound):
                    raise  # the namespace
        else:
            raise HaError(f"Migration {name} was changed by others {TURNS} times meanwhile: run this again")
        if client.warnings:
            result["warnings"] = client.warnings
    return result


def _present(
    client: Client,
    resource: Resource,
    name: str,
    namespace: str,
    existing: dict | None,
    spec: dict,
    told: dict,
    check_mode: bool,
) -> dict:
    new = existing
    if existing is None:
        new = client.create(resource, resource.body(name, namespace, spec=spec), namespace, dry_run=check_mode)
    elif difference := changes(existing.get("spec"), spec):
        new = client.patch(resource, name, {"spec": difference}, namespace, dry_run=check_mode)
    status = rules.next_status((existing or {}).get("status"), told, now_utc())
    if difference := changes(new.get("status"), status):
        if check_mode:
            new = {**new, "status": merged(new.get("status"), difference)}
        else:
            new = client.patch(resource, name, {"status": difference}, namespace, subresource="status")
    changed = existing is None or _shown(existing) != _shown(new)
    action = "created" if existing is None else "updated" if changed else "unchanged"
    return _result(changed, action, existing, new, f"Migration {name} is {action}")


def _absent(
    client: Client, resource: Resource, name: str, namespace: str, existing: dict | None, check_mode: bool
) -> dict:
    if existing is None:
        return _result(False, "unchanged", None, None, f"Migration {name} is not there")
    removed = client.delete(resource, name, namespace, uid=existing["metadata"]["uid"], dry_run=check_mode)
    return _result(removed, "deleted", existing, None, f"Migration {name} is removed")


def _result(changed: bool, action: str, before: dict | None, after: dict | None, message: str) -> dict:
    return written("migration", changed, action, before, after, message, _shown)


def _shown(migration: dict) -> dict:
    return {
        "name": migration["metadata"]["name"],
        "spec": migration.get("spec") or {},
        "status": migration.get("status") or {},
    }
