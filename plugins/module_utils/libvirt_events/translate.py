# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw libvirt callbacks to flat events: names instead of numbers, nothing lost, nothing decided.

The tables are libvirt's own enumerations in their numeric order, which libvirt never changes, only appends to. A number
that a newer libvirt sends and this table lacks becomes ``CODE_<number>``. Only the names of the event ids are looked up in
the libvirt module, so that this file needs none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

ACTIONS = ("DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN", "PMSUSPENDED", "CRASHED")
DETAILS = {
    "DEFINED": ("ADDED", "UPDATED", "RENAMED", "FROM_SNAPSHOT"),
    "UNDEFINED": ("REMOVED", "RENAMED"),
    "STARTED": ("BOOTED", "MIGRATED", "RESTORED", "FROM_SNAPSHOT", "WAKEUP"),
    "SUSPENDED": (
        "PAUSED",
        "MIGRATED",
        "IOERROR",
        "WATCHDOG",
        "RESTORED",
        "FROM_SNAPSHOT",
        "API_ERROR",
        "POSTCOPY",
        "POSTCOPY_FAILED",
    ),
    "RESUMED": ("UNPAUSED", "MIGRATED", "FROM_SNAPSHOT", "POSTCOPY", "POSTCOPY_FAILED"),
    "STOPPED": ("SHUTDOWN", "DESTROYED", "CRASHED", "MIGRATED", "SAVED", "FAILED", "FROM_SNAPSHOT"),
    "SHUTDOWN": ("FINISHED", "GUEST", "HOST"),
    "PMSUSPENDED": ("MEMORY", "DISK"),
    "CRASHED": ("PANICKED", "CRASHLOADED"),
}
# Why a domain stopped without anybody having lost it. Everything else is a death.
BENIGN_STOPS = frozenset(("SHUTDOWN", "DESTROYED", "MIGRATED", "SAVED", "FROM_SNAPSHOT"))
WATCHDOG_ACTIONS = ("NONE", "PAUSE", "RESET", "POWEROFF", "SHUTDOWN", "DEBUG", "INJECTNMI")
IO_ERROR_ACTIONS = ("NONE", "PAUSE", "REPORT")
AGENT_STATES = ("UNKNOWN", "CONNECTED", "DISCONNECTED")
AGENT_REASONS = ("UNKNOWN", "DOMAIN_STARTED", "CHANNEL")
MEMORY_RECIPIENTS = ("HYPERVISOR", "GUEST")
MEMORY_ACTIONS = ("IGNORE", "INJECT", "FATAL", "RESET")
OPERATIONS = (
    "UNKNOWN",
    "START",
    "SAVE",
    "RESTORE",
    "MIGRATION_IN",
    "MIGRATION_OUT",
    "SNAPSHOT",
    "SNAPSHOT_REVERT",
    "DUMP",
    "BACKUP",
    "SNAPSHOT_DELETE",
)
# A key that rulebook conditions can name and that none of ours could be overwritten by.
_STATISTIC = re.compile(r"[a-z][a-z0-9_]*\Z")
_OWN_KEYS = frozenset(
    ("event", "hypervisor", "uri", "uuid", "domain", "occurred_at", "synthetic", "count", "operation")
)


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds, as Kubernetes' MicroTime: ``2026-11-24T09:41:19.000123Z``.

    :param seconds: seconds since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def name_of(table: tuple[str, ...], number: int) -> str:
    """The name of one of libvirt's numbers; ``CODE_<number>`` for one newer than the table."""
    return table[number] if 0 <= number < len(table) else f"CODE_{number}"


def lifecycle(action: int, detail: int) -> dict[str, Any]:
    """Fields of a lifecycle event."""
    action_name = name_of(ACTIONS, action)
    return {"action": action_name, "detail": name_of(DETAILS.get(action_name, ()), detail)}


def without_fields() -> dict[str, Any]:
    """Fields of an event that only names its domain: reboot, control_error."""
    return {}


def watchdog(action: int) -> dict[str, Any]:
    """Fields of a watchdog event: what libvirt did about it."""
    return {"action": name_of(WATCHDOG_ACTIONS, action)}


def io_error(path: str | None, device: str | None, action: int) -> dict[str, Any]:
    """Fields of an I/O error as IO_ERROR tells it, without ``reason``: the joiner adds it.

    libvirt leaves path and device empty when it cannot tell the disk.
    """
    return {"action": name_of(IO_ERROR_ACTIONS, action), "path": path or "", "device": device or "", "errors": 1}


def io_error_reason(path: str | None, device: str | None, action: int, reason: str | None) -> dict[str, Any]:
    """Fields of an I/O error as IO_ERROR_REASON tells it: ``reason`` is libvirt's word (``enospc``) or empty."""
    return {**io_error(path, device, action), "reason": reason or ""}


def agent_lifecycle(state: int, reason: int) -> dict[str, Any]:
    """Fields of an event about the guest agent's channel."""
    return {"action": name_of(AGENT_STATES, state), "detail": name_of(AGENT_REASONS, reason)}


def migration_iteration(iteration: int) -> dict[str, Any]:
    """Fields of a progress event of an outgoing live migration."""
    return {"iteration": iteration}


def job_completed(statistics: dict[str, Any]) -> dict[str, Any]:
    """Fields of a completed job: its operation by name, and libvirt's statistics under their own names."""
    fields = {
        key: value
        for key, value in statistics.items()
        if _STATISTIC.match(key) and key not in _OWN_KEYS and isinstance(value, (bool, int, float, str))
    }
    # libvirt sends success as an integer in some releases
    if "success" in fields:
        fields["success"] = bool(fields["success"])
    return {"operation": name_of(OPERATIONS, int(statistics.get("operation", 0))), **fields}


def memory_failure(recipient: int, action: int, flags: int) -> dict[str, Any]:
    """Fields of a hardware memory error that hit the guest's memory."""
    return {
        "recipient": name_of(MEMORY_RECIPIENTS, recipient),
        "action": name_of(MEMORY_ACTIONS, action),
        "action_required": bool(flags & 1),
        "recursive": bool(flags & 2),
    }


class Kind(NamedTuple):
    """One kind of libvirt callback."""

    event: str  # the value of the event's key "event"
    constant: str  # name of libvirt's event id, absent from the module when that libvirt has no such event
    fields: Callable[..., dict[str, Any]]  # libvirt's arguments (after connection and domain) to the event's own fields


KINDS = (
    Kind("lifecycle", "VIR_DOMAIN_EVENT_ID_LIFECYCLE", lifecycle),
    Kind("reboot", "VIR_DOMAIN_EVENT_ID_REBOOT", without_fields),
    Kind("watchdog", "VIR_DOMAIN_EVENT_ID_WATCHDOG", watchdog),
    # Both: not every driver sends the one with the reason. They are joined.
    Kind("io_error", "VIR_DOMAIN_EVENT_ID_IO_ERROR", io_error),
    Kind("io_error", "VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON", io_error_reason),
    Kind("control_error", "VIR_DOMAIN_EVENT_ID_CONTROL_ERROR", without_fields),
    Kind("agent_lifecycle", "VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE", agent_lifecycle),
    Kind("migration_iteration", "VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION", migration_iteration),
    Kind("job_completed", "VIR_DOMAIN_EVENT_ID_JOB_COMPLETED", job_completed),
    Kind("memory_failure", "VIR_DOMAIN_EVENT_ID_MEMORY_FAILURE", memory_failure),
)


def event_of(kind: Kind, uuid: str, domain: str, occurred_at: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The flat event for one callback, still without ``hypervisor`` and ``uri``.

    :param arguments: what libvirt passed after the connection and the domain.
    """
    return {
        "event": kind.event,
        "uuid": uuid,
        "domain": domain,
        "occurred_at": occurred_at,
        "synthetic": False,
        "count": 1,
        **kind.fields(*arguments),
    }


def is_death(event: dict[str, Any]) -> bool:
    """Whether the event says that a domain was lost: it stopped for no benign reason, or its guest crashed.

    An incoming migration that failed (``incoming``) took nothing from anybody: the guest goes on at its source.
    """
    if event["event"] != "lifecycle" or event.get("incoming"):
        return False
    if event["action"] == "STOPPED":
        return event["detail"] not in BENIGN_STOPS
    return event["action"] == "CRASHED"
