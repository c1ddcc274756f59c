# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step ``compute_service``: enable, disable with a reason, force down and release a nova-compute service."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.args import OPENSTACK_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import change, changed_facts
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError, wait_until
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown

ARGUMENTS = {
    "argument_spec": {
        "host": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["enabled", "disabled"]},
        "disabled_reason": {"type": "str"},
        "forced_down": {"type": "bool"},
        "only_if_reason": {"type": "str"},
        "wait": {"type": "bool", "default": True},
        "timeout": {"type": "float", "default": 60.0},
        **OPENSTACK_ARGS,
    },
    "required_one_of": [("state", "forced_down")],
}


def run(params: dict, check_mode: bool) -> dict:
    """Make the service so; return ``changed``, ``service`` and ``diff``.

    :raises HaError: bad options, no such service, or Nova refuses.
    """
    if params.get("disabled_reason") and params.get("state") != "disabled":
        raise ArgumentError("disabled_reason needs state=disabled: Nova keeps no reason for an enabled service")
    if params.get("state") == "disabled" and len(params.get("disabled_reason") or "") > 255:
        raise ArgumentError("disabled_reason is over 255 characters: Nova takes no more")
    nova = Nova.from_params(params)
    service = nova.service(params["host"])
    if service is None:
        raise ArgumentError(
            f"Nova knows no nova-compute on host {shown(params['host'])}: check `openstack compute service list`"
        )
    wanted = change(
        service,
        params.get("state"),
        params.get("disabled_reason"),
        params.get("forced_down"),
        params.get("only_if_reason"),
    )
    after = changed_facts(service, wanted)
    if wanted and not check_mode:
        _apply(nova, service, wanted, params)
        after = nova.service(params["host"]) or after
    return {
        "changed": bool(wanted),
        "service": _shown(after),
        "diff": {"before": _shown(service), "after": _shown(after)},
    }


def _apply(nova: Nova, service: ServiceFacts, wanted: dict, params: dict) -> None:
    # Force-down goes first and alone: disabling an unreachable compute makes Nova wait for it (fence-agents #303).
    parts = [{"forced_down": wanted["forced_down"]}] if "forced_down" in wanted else []
    rest = {key: value for key, value in wanted.items() if key != "forced_down"}
    parts.append(rest)
    for part in filter(None, parts):
        refusals: list[NovaError] = []

        # bound now, since the loop goes on; pylint: disable-next=dangerous-default-value
        def put(part: dict = part, refusals: list[NovaError] = refusals) -> bool:
            try:
                nova.update_service(service.id, **part)
                return True
            except NovaError as error:
                # Nova answers 400 to the release of a forced-down service until its evacuation records are done.
                if error.status != 400 or part.get("forced_down") is not False:
                    raise
                refusals.append(error)
                return False

        if not wait_until(put, params["timeout"] if params["wait"] else 0.0, 2.0):
            raise refusals[-1]


def _shown(service: ServiceFacts) -> dict:
    return {
        "host": service.host,
        "id": service.id,
        "state": "up" if service.up else "down",
        "status": "enabled" if service.enabled else "disabled",
        "disabled_reason": service.disabled_reason,
        "forced_down": service.forced_down,
    }
