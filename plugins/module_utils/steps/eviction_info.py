# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step eviction_info: read Evictions."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    AGENT_MANAGER,
    evictions,
    is_finished,
    validate_name,
)

ARGUMENTS = {
    "argument_spec": {
        **KUBERNETES_ARGS,
        "name": {"type": "str"},
        "hypervisor": {"type": "str"},
        "finished": {"type": "bool"},
        "label_selectors": {"type": "list", "elements": "str", "default": []},
    },
    "mutually_exclusive": [("name", "label_selectors")],
}


def run(params: dict, check_mode: bool) -> dict:
    """Return the Evictions that match, the oldest first; nothing is ever changed.

    :returns: changed (False), evictions; each with a key ``finished`` beside the object's own.
    """
    name, hypervisor = params.get("name"), params.get("hypervisor")
    if name:
        name = validate_name(name)
    if hypervisor:
        hypervisor = validate_name(hypervisor, "hypervisor")
    resource = evictions(params["api_group"])
    with Client.from_params(params, AGENT_MANAGER) as client:
        if name:
            found = client.get(resource, name)
            objects = [found] if found else []
        else:
            # Filtered here: upstream's definition has no selectable fields.
            objects = client.list(resource, label_selector=",".join(params.get("label_selectors") or []))
        warnings = client.warnings
    if hypervisor:
        objects = [item for item in objects if (item.get("spec") or {}).get("hypervisor") == hypervisor]
    objects = [{**item, "finished": is_finished(item)} for item in objects]
    if params.get("finished") is not None:
        objects = [item for item in objects if item["finished"] == params["finished"]]
    objects.sort(key=lambda item: (item["metadata"].get("creationTimestamp") or "", item["metadata"]["name"]))
    result: dict = {"changed": False, "evictions": objects}
    if warnings:
        result["warnings"] = warnings
    return result
