# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step ``evict``: works on one Eviction until it is finished.

Reads the Eviction and Nova, lets the decisions decide, writes what it is about to do into the status, then does it, and
begins again. The write carries the resourceVersion that was read, so of two steps on one Eviction only one gets to act;
a step that died leaves nothing but a status from which the next one goes on.

``claim`` holds the Eviction, ``look`` reads Nova, ``choosing`` says who is worked on and how many at once,
``host`` does what is done to the host, ``locks`` keeps users off, ``helping`` explains, ``work`` is the loop.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS, OPENSTACK_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_shape import spec_fault, with_sane_status
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import GATE_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Conflict, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    OPERATOR_MANAGER,
    Resource,
    evictions,
    is_finished,
    now_utc,
    set_condition,
    shown,
    validate_name,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.choosing import CHOOSING_ARGS, check_choosing
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.host import DISABLED_REASON
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.work import Work

__all__ = ["ARGUMENTS", "DISABLED_REASON", "run"]

ARGUMENTS = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "timeout": {"type": "float", "default": 600.0},
        "deadline": {"type": "float", "default": 7200.0},
        "restart_attempts": {"type": "int", "default": 2},
        "move_attempts": {"type": "int", "default": 3},
        "attempt_timeout": {"type": "float", "default": 600.0},
        "backoff": {"type": "float", "default": 5.0},
        "crash_restarts": {"type": "int", "default": 10},
        "crash_moves": {"type": "int", "default": 10},
        "crash_window": {"type": "float", "default": 600.0},
        "claim_ttl": {"type": "float", "default": 6.0},
        **CHOOSING_ARGS,
        "evacuate_timeout": {"type": "float", "default": 180.0},
        "evacuate_from_image": {"type": "bool", "default": False},
        "fence_timeout": {"type": "float", "default": 60.0},
        "fencing_namespace": {"type": "str", "default": ""},
        "proof_seconds": {"type": "float", "default": 30.0},
        "unfenced_evacuation": {"type": "bool", "default": False},
        **GATE_ARGS,
        **KUBERNETES_ARGS,
        **OPENSTACK_ARGS,
    },
}


def run(params: dict, check_mode: bool) -> dict:
    """Work on the Eviction ``params["name"]``; return ``changed``, ``eviction``, ``acts`` and ``diff``.

    In check mode nothing is written or done: ``acts`` says what would be done first.

    :raises HaError: bad options; Kubernetes refuses or does not answer. Nova's troubles go into the status instead.
    """
    _check(params)
    client = Client.from_params(params, OPERATOR_MANAGER)
    resource = evictions(params["api_group"])
    eviction = client.get(resource, params["name"])
    if eviction is None:
        return {"changed": False, "eviction": None, "acts": [], "msg": f"there is no Eviction {params['name']}"}
    if is_finished(eviction):
        return {"changed": False, "eviction": eviction, "acts": [], "msg": "the Eviction is finished"}
    fault = spec_fault(eviction)
    if fault:
        return _refuse(client, resource, eviction, fault, check_mode)
    with ThreadPoolExecutor(max_workers=max(16, 2 * params["max_parallel"])) as pool:
        return Work(client, Nova.from_params(params), pool, params).run(eviction, check_mode)


def _refuse(client: Client, resource: Resource, eviction: dict, fault: str, check_mode: bool) -> dict:
    """End an Eviction that nobody can work on, by the name of the field that is wrong."""
    before = with_sane_status(eviction)["status"]
    now = now_utc()
    status = {"conditions": set_condition(before.get("conditions"), "Evicting", "False", "Failed", fault[:1024], now)}
    status["finishedAt"] = now
    if not check_mode:
        metadata = eviction["metadata"]
        body = {"metadata": {"resourceVersion": metadata.get("resourceVersion")}, "status": status}
        with suppress(Conflict, NotFound):  # it is looked at again
            eviction = client.patch(resource, metadata["name"], body, subresource="status")
    after = {**before, **status}
    return {"changed": True, "eviction": eviction, "acts": [], "diff": {"before": before, "after": after}, "msg": fault}


def _check(params: dict) -> None:
    validate_name(params["name"], "name")
    for option in (
        "timeout",
        "deadline",
        "restart_attempts",
        "move_attempts",
        "attempt_timeout",
        "claim_ttl",
        "evacuate_timeout",
        "fence_timeout",
        "proof_seconds",
    ):
        if not params[option] > 0:
            raise ArgumentError(f"{option} {shown(params[option])} must be more than 0")
    check_choosing(params)
    for option in ("backoff", "crash_restarts", "crash_moves", "crash_window"):
        if not params[option] >= 0:
            raise ArgumentError(f"{option} {shown(params[option])} must not be negative")
