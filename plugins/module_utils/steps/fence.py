# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step fence: ask for a host's power, or switch it off and prove it."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils import fencing
from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, HaError
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    OPERATOR_MANAGER,
    hypervisors,
    shown,
    validate_name,
    validate_namespace,
)

ARGUMENTS = {
    "argument_spec": {
        **KUBERNETES_ARGS,
        "name": {"type": "str", "required": True},
        "action": {"type": "str", "choices": ["status", "off"], "default": "status"},
        "deadline": {"type": "float", "default": 60.0},
        "confirm_seconds": {"type": "float", "default": fencing.CONFIRM_SECONDS},
        "fencing_namespace": {"type": "str", "default": ""},
    },
}

_MOST_SECONDS = 3600.0


def run(params: dict, check_mode: bool) -> dict:
    """Do or ask; check mode asks only.

    :returns: changed, off, power, reason, seconds, msg, diff; failed when the host is not proven off though it should
        be, or does not tell its power.
    :raises HaError: wrong arguments, no such Hypervisor, or what the API server said.
    """
    name = validate_name(params["name"])
    namespace = validate_namespace(params["fencing_namespace"]) if params["fencing_namespace"] else ""
    for option, least in (("deadline", 1.0), ("confirm_seconds", 0.0)):
        # Not-a-number is refused, too.
        if not least <= params[option] <= _MOST_SECONDS:
            raise ArgumentError(f"{option} {shown(params[option])}: give {least:g} to {_MOST_SECONDS:g} seconds")
    with Client.from_params(params, OPERATOR_MANAGER) as client:
        hypervisor = client.get(hypervisors(params["api_group"]), name)
        if hypervisor is None:
            raise HaError(f"there is no Hypervisor {name}: see kubectl get hypervisors")
        try:
            target = fencing.read_target(client, hypervisor, namespace)
        except fencing.FencingError as error:
            return _result(fencing.FenceResult(False, error.reason, str(error)), False, check_mode)
    if params["action"] == "status" or check_mode:
        return _result(fencing.fence_status(target, params["deadline"]), params["action"] == "off", check_mode)
    return _result(fencing.fence_off(target, params["deadline"], params["confirm_seconds"]), True, check_mode)


def _result(result: fencing.FenceResult, wanted_off: bool, check_mode: bool) -> dict:
    known = result.reason in (rules.OFF, rules.ALREADY_OFF, rules.ON)
    would = check_mode and wanted_off and result.reason == rules.ON
    before = "on" if result.reason == rules.OFF and wanted_off and not check_mode else result.power
    answer = {
        "changed": would or before != result.power,
        "off": result.off,
        "power": result.power,
        "reason": result.reason,
        "seconds": result.seconds,
        "msg": result.message + (", and would be switched off" if would else ""),
        "diff": {"before": {"power": before}, "after": {"power": "off" if would else result.power}},
    }
    if not known:
        answer["failed"] = True
    return answer
