# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do about an Eviction that is wanted, given the one that is there. Pure functions over plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fault_history
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    format_time,
    get_condition,
    is_finished,
    is_notify_only,
    is_uuid,
    parse_time,
    shown,
    validate_name,
    validate_uuid,
)

# Faults of a server: without its UUID they would empty the whole host.
INSTANCE_CAUSES = ("InstanceStopped", "RebootFailed", "WatchdogRestartFailed", "DiskIOError")
# Faults of a host: with a list of servers they would leave the others behind.
HOST_CAUSES = ("NodeNotReady", "NodeUnreachable")
CAUSES = (*HOST_CAUSES, *INSTANCE_CAUSES, "Maintenance", "Reboot")

MAX_INSTANCES = 1000
MAX_REASON = 1024

CREATE, UPDATE, REPLACE, KEEP, WAIT, NOTE = "create", "update", "replace", "keep", "wait", "note"


@dataclass(frozen=True)
class Wanted:
    """An Eviction that somebody asks for, checked.

    :ivar instances: server UUIDs; empty means all of the host.
    :ivar occurred_at: when the fault was seen (RFC 3339, UTC, microseconds), or None.
    :ivar notify_only: it only tells of a fault; nothing is to be moved.
    :ivar fault_over: the fault that the Eviction tells of is over: only its reason changes.
    :ivar persist_count: told so often within `persist_window` seconds, more than telling is asked for; 0 is never.
    """

    name: str
    hypervisor: str
    reason: str
    instances: tuple[str, ...] = ()
    cause: str | None = None
    occurred_at: str | None = None
    notify_only: bool = False
    fault_over: bool = False
    persist_count: int = 0
    persist_window: float = 0.0

    def spec(self) -> dict:
        """Return it as ``spec`` of an Eviction; what is not given stays out, so that upstream's schema takes it."""
        spec: dict = {"hypervisor": self.hypervisor, "reason": self.reason}
        if self.cause:
            spec["cause"] = self.cause
        if self.instances:
            spec["instances"] = list(self.instances)
        if self.occurred_at:
            spec["occurredAt"] = self.occurred_at
        if self.notify_only:
            spec["notifyOnly"] = True
        return spec

    def faults(self, existing: dict | None) -> tuple[fault_history.Fault, ...]:
        """The server's faults with this one; empty where it is not about one server or has no time."""
        if len(self.instances) != 1 or not self.occurred_at or not self.cause:
            return ()
        fault = fault_history.Fault(self.occurred_at, self.cause, self.notify_only)
        return fault_history.added(fault_history.read(existing), fault)

    def annotations(self, existing: dict | None) -> dict[str, str]:
        """Annotations of the Eviction that is made, or made anew, given the one that was there."""
        faults = self.faults(existing)
        return {fault_history.ANNOTATION: fault_history.write(faults)} if faults else {}


@dataclass(frozen=True)
class Decision:
    """What to do, and why in words.

    :ivar action: CREATE; UPDATE (patch spec.occurredAt); NOTE (as UPDATE, and the reason and the faults that it knows);
        REPLACE (delete, then create); KEEP (nothing to do); WAIT (something must end first: read again).
    :ivar wanted: what to create or note, where that is not what was asked for.
    """

    action: str
    message: str
    wanted: Wanted | None = None


def wanted_from(params: dict) -> Wanted:
    """Check what was asked for, before any I/O.

    :param params: name, hypervisor, instances, cause, reason, occurred_at as the module eviction takes them.
    :raises ArgumentError: names the value and what to give instead.
    """
    hypervisor = validate_name(params.get("hypervisor") or "", "hypervisor")
    instances = _instances(params.get("instances") or [])
    cause = params.get("cause") or None
    if cause is not None and cause not in CAUSES:
        raise ArgumentError(f"cause {shown(cause)} is not known: use one of {', '.join(CAUSES)}")
    if cause in INSTANCE_CAUSES and not instances:
        raise ArgumentError(
            f"cause {cause} is about servers, and instances is empty, which would mean every server of"
            f" {hypervisor}: name the server's UUID in instances"
        )
    if cause in HOST_CAUSES and instances:
        raise ArgumentError(
            f"cause {cause} is about the whole host {hypervisor}: leave instances empty, or choose another cause"
        )
    if params.get("notify_only") and not instances:
        raise ArgumentError("notify_only is about servers: name them in instances")
    if params.get("fault_over") and not params.get("notify_only"):
        raise ArgumentError("fault_over is about a fault that was only told: set notify_only, too")
    occurred_at = params.get("occurred_at") or None
    return Wanted(
        name=_name(params.get("name") or None, hypervisor, instances),
        hypervisor=hypervisor,
        reason=_reason(params.get("reason")),
        instances=instances,
        cause=cause,
        occurred_at=format_time(parse_time(occurred_at, "occurred_at")) if occurred_at is not None else None,
        notify_only=bool(params.get("notify_only")),
        fault_over=bool(params.get("fault_over")),
        persist_count=_within(params, "persist_count", 0, 64),
        persist_window=_within(params, "persist_window", 0, 86_400),
    )


def _within(params: dict, option: str, least: float, most: float) -> Any:
    value = params.get(option) or 0
    if not least <= value <= most:
        raise ArgumentError(f"{option} {shown(value)} is out of range: give {least:g} to {most:g}")
    return value


def name_from(params: dict) -> str:
    """Return the name of the Eviction that is meant when only its removal is asked for."""
    if params.get("name"):
        return validate_name(params["name"])
    instances = _instances(params.get("instances") or [])
    if not instances and not params.get("hypervisor"):
        raise ArgumentError("name the Eviction to remove: give name, or instances with one UUID, or hypervisor")
    return _name(None, validate_name(params["hypervisor"], "hypervisor") if not instances else "", instances)


def _instances(values: list) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise ArgumentError(f"instances {shown(values)} is not a list of server UUIDs")
    if len(values) > MAX_INSTANCES:
        raise ArgumentError(
            f"instances has {len(values)} entries, and an Eviction takes {MAX_INSTANCES}: make several,"
            " or leave it empty to mean every server of the hypervisor"
        )
    # Order kept, doubles dropped.
    return tuple(dict.fromkeys(validate_uuid(value, "instances:") for value in values))


def _name(name: str | None, hypervisor: str, instances: tuple[str, ...]) -> str:
    if len(instances) > 1:
        if name is None:
            raise ArgumentError(f"an Eviction of {len(instances)} servers has no name of its own: give name")
        if is_uuid(name) or name == hypervisor:
            raise ArgumentError(
                f"name {shown(name)} belongs to the Eviction of one server or of the whole host: give another one"
            )
        return validate_name(name)
    # The name is what makes asking twice be one.
    right = instances[0] if instances else hypervisor
    if name is not None and name != right:
        what = "of one server is named as its UUID" if instances else "of a whole host is named as the hypervisor"
        raise ArgumentError(f"name {shown(name)} does not fit: an Eviction {what}, {right}; leave name out")
    return right


def _reason(reason: str | None) -> str:
    text = str.__str__(reason).strip() if isinstance(reason, str) else ""
    if not text:
        raise ArgumentError("reason is empty: say in a few words for a person why this Eviction is made")
    # Texts of events may be long; a server is not left dead for that.
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


def decide(existing: dict | None, wanted: Wanted) -> Decision:
    """Say what to do.

    A fault that the present Eviction answers already changes nothing. A newer one moves ``spec.occurredAt`` of an
    Eviction in work forward, so that a server dying again is not lost, and begins a finished one anew. The measure is
    the fault that was answered, never the time of the Eviction's end: a server may die in the instant between its
    restart and that end. Beginning anew for nothing is harmless, since a running server is never restarted.

    An Eviction that only tells of a fault (notify_only) gives way to a later one that asks for more, and never disturbs
    one that is in work. Told again it takes note, until the fault has been told so often that it counts as persistent:
    then it gives way to one that asks for a move.

    :param existing: the Eviction of that name, or None.
    :raises ArgumentError: the one there is about other servers.
    """
    if existing is None and wanted.fault_over:
        return Decision(KEEP, f"there is no Eviction {wanted.name} that tells of a fault")
    if existing is None:
        return Decision(CREATE, f"Eviction {wanted.name} is made: {wanted.cause or 'a drain'} on {wanted.hypervisor}")
    metadata, spec = existing.get("metadata") or {}, existing.get("spec") or {}
    if metadata.get("deletionTimestamp"):
        return Decision(WAIT, f"Eviction {wanted.name} is being deleted")
    there = tuple(spec.get("instances") or ())
    if set(there) != set(wanted.instances):
        raise ArgumentError(
            f"Eviction {wanted.name} is there already and is about {_about(there, spec)}, not about"
            f" {_about(wanted.instances, {'hypervisor': wanted.hypervisor})}: wait for its end and remove it, or use another name"
        )
    if wanted.fault_over:
        if (
            is_notify_only(existing)
            and spec.get("occurredAt") == wanted.occurred_at
            and spec["reason"] != wanted.reason
        ):
            return Decision(NOTE, f"Eviction {wanted.name} tells that the fault of {wanted.occurred_at} is over")
        return Decision(KEEP, f"Eviction {wanted.name} tells of another fault, or that this one is over")
    seen = spec.get("occurredAt")
    if is_notify_only(existing) and not wanted.notify_only:
        # Of one server's faults a later one is another one: a dead QEMU has no I/O errors.
        if wanted.occurred_at is None or seen is None or parse_time(wanted.occurred_at) > parse_time(seen):
            return Decision(
                REPLACE, f"Eviction {wanted.name} only told of a fault; one that asks for more takes its place"
            )
        return Decision(KEEP, f"Eviction {wanted.name} tells of a later fault than that of {wanted.occurred_at}")
    if is_notify_only(existing) and wanted.notify_only:
        return _decide_told_again(existing, wanted)
    if is_finished(existing):
        return _decide_finished(existing, wanted)
    if wanted.occurred_at is None or (wanted.notify_only and not is_notify_only(existing)):
        return Decision(KEEP, f"Eviction {wanted.name} is in work already")
    if seen is not None and parse_time(wanted.occurred_at) <= parse_time(seen):
        return Decision(KEEP, f"Eviction {wanted.name} is in work already and knows the fault of {wanted.occurred_at}")
    if spec.get("hypervisor") != wanted.hypervisor:
        # The server came here from there; that Eviction ends as soon as the operator sees it.
        return Decision(WAIT, f"Eviction {wanted.name} is still in work for {shown(spec.get('hypervisor'))}")
    return Decision(UPDATE, f"Eviction {wanted.name} is in work; it is told of the fault of {wanted.occurred_at}")


def _decide_told_again(existing: dict, wanted: Wanted) -> Decision:
    spec = existing["spec"]
    seen = answered_fault(existing)
    if wanted.occurred_at is None or (seen and parse_time(wanted.occurred_at) <= parse_time(seen)):
        return Decision(KEEP, f"Eviction {wanted.name} tells of the fault of {wanted.occurred_at or seen} already")
    if spec.get("hypervisor") != wanted.hypervisor or spec.get("cause") != wanted.cause:
        return Decision(REPLACE, f"Eviction {wanted.name} told of another fault; that of {wanted.occurred_at} is told")
    count = fault_history.told_lately(wanted.faults(existing), wanted.cause or "", wanted.persist_window)
    if wanted.persist_count and count >= wanted.persist_count:
        reason = f"{wanted.reason}; told {count} times within {wanted.persist_window:g} s, so it persists"
        return Decision(
            REPLACE,
            f"Eviction {wanted.name}: the fault was told {count} times and persists; one that asks for a move takes its place",
            replace(wanted, notify_only=False, reason=_reason(reason)),
        )
    return Decision(NOTE, f"Eviction {wanted.name} takes note of the fault of {wanted.occurred_at}")


def _decide_finished(existing: dict, wanted: Wanted) -> Decision:
    finished_at = finish_time(existing)
    if wanted.occurred_at is None:
        return Decision(
            KEEP,
            f"Eviction {wanted.name} is finished ({finished_at or 'time unknown'}): give occurred_at to begin anew, or remove it",
        )
    answered = answered_fault(existing) or finished_at
    if answered is None or parse_time(wanted.occurred_at) > parse_time(answered):
        return Decision(
            REPLACE,
            f"Eviction {wanted.name} is finished; the fault of {wanted.occurred_at} begins a new one",
        )
    return Decision(KEEP, f"Eviction {wanted.name} is finished and answered the fault of {wanted.occurred_at}")


def answered_fault(eviction: dict) -> str | None:
    """Return the time of the latest fault that an Eviction answers, None where its schema has none."""
    told = [(eviction.get("spec") or {}).get("occurredAt"), (eviction.get("status") or {}).get("observedOccurredAt")]
    return max(filter(None, told), key=parse_time, default=None)


def finish_time(eviction: dict) -> str | None:
    """Return when a finished Eviction ended; upstream's controller leaves the condition's time only."""
    own = (eviction.get("status") or {}).get("finishedAt")
    return own or (get_condition(eviction, "Evicting") or {}).get("lastTransitionTime")


def _about(instances: tuple[str, ...], spec: dict) -> str:
    if not instances:
        return f"every server of {shown(spec.get('hypervisor'))}"
    return instances[0] if len(instances) == 1 else f"{len(instances)} servers ({instances[0]}, ...)"
