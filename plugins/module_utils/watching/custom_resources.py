# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events of the source c5c3.ha.custom_resources. No I/O; docs/events.md and the JSON schema describe them."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.c5c3.ha.plugins.module_utils.resources import Resource, is_finished
from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import INIT_DONE, MODIFIED, Change, Known
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Watched

# libvirt's job types that are an end; upstream also writes "success" there.
_ENDED = frozenset({"completed", "failed", "cancelled", "success"})


def _migration_finished(obj: dict) -> bool:
    return ((obj.get("status") or {}).get("type") or "") in _ENDED


def _hypervisor_settled(group: str) -> Callable[[dict], bool]:
    from ansible_collections.c5c3.ha.plugins.module_utils.decisions import maintenance_rules

    return lambda obj: maintenance_rules.settled(obj, group == maintenance_rules.COBALTCORE_GROUP)


def _never(obj: dict) -> bool:
    return False


def finished(resource: Resource) -> Callable[[dict], bool]:
    """Return the function that tells whether nothing is left to do for an object of that type."""
    if resource.kind == "Hypervisor":
        return _hypervisor_settled(resource.group)
    return {"Eviction": is_finished, "Migration": _migration_finished}.get(resource.kind, _never)


def follow(watched: Watched) -> Known:
    """Return what keeps the objects of a watched type."""
    return Known(watched.resource, finished(watched.resource), watched.resync_seconds, watched.fields)


def render(change: Change) -> dict:
    """Return the event of a change."""
    resource: Resource = change.source.resource
    event = {
        "type": change.type,
        "kind": resource.kind,
        "group": resource.group,
        "version": resource.version,
        "initial": change.initial,
    }
    if change.type == INIT_DONE:
        return {**event, "count": change.count}
    generation = change.obj["metadata"].get("generation")
    return {
        **event,
        "name": change.key[1],
        "namespace": change.key[0],
        "uid": change.uid,
        "generation": generation if isinstance(generation, int) else 0,
        "resource_version": change.resource_version,
        "finished": change.finished,
        "resource": change.obj,
        **({"changed": list(change.changed)} if change.type == MODIFIED and change.source.fields is not None else {}),
    }
