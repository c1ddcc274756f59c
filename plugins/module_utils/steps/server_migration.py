# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step ``server_migration``: live-migrate, cold-migrate, confirm, evacuate a server, or abort its live migration."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.args import OPENSTACK_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    MIGRATION_ABORTABLE,
    MigrationFacts,
    ServerFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_move import DONE, refusal, wanted
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, HaError
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, wait_until
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown, validate_uuid

ARGUMENTS = {
    "argument_spec": {
        "server": {"type": "str", "required": True},
        "method": {"type": "str", "choices": ["live", "cold", "evacuate", "confirm", "abort"], "required": True},
        "source": {"type": "str"},
        "target": {"type": "str"},
        "host_is_off": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "timeout": {"type": "float", "default": 600.0},
        **OPENSTACK_ARGS,
    },
}


def run(params: dict, check_mode: bool) -> dict:
    """Do it and wait for it; return ``changed``, ``server`` and ``diff``.

    :raises HaError: bad options, a state that does not allow it, Nova's refusal, or failure with Nova's reason.
    """
    uuid, method = validate_uuid(params["server"], "server"), params["method"]
    if method == "evacuate" and not params["host_is_off"]:
        raise ArgumentError(
            "method=evacuate needs host_is_off=true: prove first that the server's host is off (fence it), or two copies"
            " of the server will write one disk"
        )
    if method in DONE and not (params.get("source") or params.get("target")):
        raise ArgumentError(
            f"method={method} needs source (the host to leave) or target, so that a second run moves nothing"
        )
    if params.get("target") and method in ("confirm", "abort"):
        raise ArgumentError(f"target has no meaning with method={method}: leave it out")
    if params.get("target") and params["target"] == params.get("source"):
        raise ArgumentError(f"source and target are both {shown(params['target'])}: name another target")
    nova = Nova.from_params(params)
    server = nova.server(uuid)
    if server is None:
        raise ArgumentError(f"Nova knows no server {uuid}: check `openstack server list --all-projects`")
    migration = _in_flight(nova, uuid) if method == "abort" else None
    if not wanted(method, server, params.get("source"), params.get("target"), migration is not None):
        return _result(False, server, server)
    service = nova.service(server.host) if server.host else None
    problem = refusal(method, server, service)
    if problem:
        raise HaError(f"server {uuid} is not touched: {problem}")
    if check_mode:
        return _result(True, server, server, params.get("target") or ("another host" if method in DONE else None))
    {
        "live": lambda: nova.live_migrate(uuid, params.get("target")),
        "cold": lambda: nova.cold_migrate(uuid, params.get("target")),
        "evacuate": lambda: nova.evacuate(uuid, params.get("target")),
        "confirm": lambda: nova.confirm_resize(uuid),
        "abort": lambda: nova.abort_live_migration(uuid, migration.id if migration else 0),
    }[method]()
    after = _waited(nova, server, params) if params["wait"] else (nova.server(uuid) or server)
    return _result(True, server, after)


def _in_flight(nova: Nova, server: str) -> MigrationFacts | None:
    for migration in nova.migrations(server=server):
        if migration.kind == "live-migration" and migration.status in MIGRATION_ABORTABLE:
            return migration
    return None


def _waited(nova: Nova, before: ServerFacts, params: dict) -> ServerFacts:
    method = params["method"]

    def at_rest() -> ServerFacts | None:
        now = nova.server(before.id)
        if now is None:
            raise HaError(f"server {before.id} was deleted meanwhile")
        if now.task_state or now.status in ("MIGRATING", "RESIZE", "REBUILD"):
            return None
        if method == "confirm" and now.status == "VERIFY_RESIZE":
            return None  # Nova has no task for it
        if method in DONE and now.host == before.host and now.status not in ("VERIFY_RESIZE", "ERROR"):
            # An evacuated server has no task any more before its host is written (nova.compute.manager, rebuild_instance):
            # only the end of its migration record tells.
            if any(migration.unfinished for migration in nova.migrations(server=before.id)):
                return None
            return nova.server(before.id)
        return now

    after = wait_until(at_rest, params["timeout"])
    if after is None:
        raise HaError(
            f"server {before.id} is not done within {params['timeout']:g} s: look at `openstack server migration list`,"
            " raise timeout, or abort it with method=abort"
        )
    if method in DONE and after.host == before.host and after.status != "VERIFY_RESIZE":
        actions = nova.actions(before.id)
        told = nova.failure_of(before.id, actions[0].request_id) if actions else ""
        raise HaError(f"server {before.id} is still on {before.host}: {told or after.fault or 'Nova does not say why'}")
    if after.vm_state == "error" and before.vm_state != "error":
        raise HaError(f"server {before.id} is in ERROR on {after.host}: {after.fault or 'Nova does not say why'}")
    return after


def _result(changed: bool, before: ServerFacts, after: ServerFacts, host: str | None = None) -> dict:
    shown_after = _shown(after)
    if host:
        shown_after["host"] = host
    return {"changed": changed, "server": shown_after, "diff": {"before": _shown(before), "after": shown_after}}


def _shown(server: ServerFacts) -> dict:
    return {
        "id": server.id,
        "name": server.name,
        "host": server.host,
        "status": server.status,
        "task_state": server.task_state,
    }
