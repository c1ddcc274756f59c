# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an Eviction must look like before it is worked on. Pure.

The API server keeps our schema; somebody else's schema, or an older one, may let more through. A spec that is wrong is
refused by the name of the field; a status that is wrong is taken as not there, since it is the step's own to write.
"""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import CAUSES, MAX_INSTANCES
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    parse_time,
    shown,
    validate_name,
    validate_uuid,
)

REMEDY = "delete the Eviction and make it anew"


def spec_fault(eviction: dict) -> str:
    """What is wrong with the spec, by the name of the field, and what to do; empty when nothing is."""
    spec = eviction.get("spec")
    if not isinstance(spec, dict):
        return f"spec {shown(spec)} is no object: {REMEDY}"
    try:
        validate_name(spec.get("hypervisor"), "spec.hypervisor")
        instances = spec.get("instances") or []
        if not isinstance(instances, list) or len(instances) > MAX_INSTANCES:
            raise ArgumentError(f"spec.instances {shown(instances)} is no list of at most {MAX_INSTANCES} server UUIDs")
        for number, server in enumerate(instances):
            validate_uuid(server, f"spec.instances[{number}]")
        if spec.get("occurredAt") is not None:
            parse_time(spec["occurredAt"], "spec.occurredAt")
    except ArgumentError as error:
        return f"{error}; {REMEDY}"
    cause = spec.get("cause")
    if cause is not None and cause not in CAUSES:
        return f"spec.cause {shown(cause)} is not one of {', '.join(CAUSES)}: {REMEDY}"
    if not isinstance(spec.get("notifyOnly", False), (bool, type(None))):
        return f"spec.notifyOnly {shown(spec['notifyOnly'])} is neither true nor false: {REMEDY}"
    return ""


def with_sane_status(eviction: dict) -> dict:
    """The same Eviction, without what in its status nobody can read."""
    status = eviction.get("status")
    status = dict(status) if isinstance(status, dict) else {}
    for key in ("conditions", "instances"):
        if key in status:
            listed = status[key] if isinstance(status[key], list) else []
            status[key] = [item for item in listed if isinstance(item, dict)]
    for key in ("holder", "counts"):
        if key in status and not isinstance(status[key], dict):
            del status[key]
    holder = status.get("holder") or {}
    if not isinstance(holder.get("identity"), (str, type(None))):
        del status["holder"]
    return {**eviction, "status": status}
