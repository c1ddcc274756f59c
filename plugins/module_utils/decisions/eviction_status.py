# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An Eviction's status read and written as plain data: entries, counts, conditions, the holder. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fault_history
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import TERMINAL, Context, Entry, Settings
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.host_plan import FENCING, Fence, fenced_condition
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    format_time,
    get_condition,
    is_uuid,
    parse_time,
    set_condition,
)

_KEYS = (
    ("id", "id"),
    ("name", "name"),
    ("route", "route"),
    ("phase", "phase"),
    ("attempts", "attempts"),
    ("from", "source"),
    ("to", "target"),
    ("vmState", "vm_state"),
    ("message", "message"),
)
_TIMES = (("startedAt", "started_at"), ("attemptedAt", "attempted_at"), ("finishedAt", "finished_at"))
MESSAGE_LIMIT = 1024
# As the schema has them: what else stands there is nobody's who knows what he does.
PHASES = TERMINAL | {"Pending", "Restarting", "Migrating", "Confirming", "Evacuating"}
ROUTES = frozenset({"Restart", "LiveMigrate", "ColdMigrate", "Evacuate", "None"})


def stamp(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 with microseconds."""
    return None if seconds is None else format_time(datetime.fromtimestamp(seconds, UTC))


def seconds(text: str | None) -> float | None:
    """RFC 3339 as seconds since the epoch; None for nothing, and for what is no time."""
    try:
        return parse_time(text).timestamp() if text else None
    except ArgumentError:
        return None


def read_entries(eviction: dict) -> dict[str, Entry]:
    """``status.instances`` by server UUID; what is malformed there is taken as not yet begun."""
    entries = {}
    for item in (eviction.get("status") or {}).get("instances") or []:
        if not is_uuid(item.get("id")):
            continue
        values = {field: item[key] for key, field in _KEYS if isinstance(item.get(key), str)}
        attempts = item.get("attempts")
        values["attempts"] = attempts if isinstance(attempts, int) and attempts > 0 else 0
        values.update({field: seconds(item.get(key)) for key, field in _TIMES})
        entry = Entry(**values)
        entries[entry.id] = entry if entry.phase in PHASES and entry.route in ROUTES else Entry(entry.id, entry.name)
    return entries


def write_entry(entry: Entry) -> dict:
    """One element of ``status.instances``, without what is empty."""
    item = {key: getattr(entry, field) for key, field in _KEYS if getattr(entry, field) not in ("", None)}
    item["message"] = entry.message[:MESSAGE_LIMIT]
    item.update({key: stamp(getattr(entry, field)) for key, field in _TIMES if getattr(entry, field) is not None})
    return item


def cause_of(eviction: dict) -> str:
    """``spec.cause``. An Eviction of upstream's schema has none: it is a drain."""
    return eviction["spec"].get("cause") or "Maintenance"


def context_of(eviction: dict, now: float, service_up: bool, settings: Settings, **more) -> Context:
    """What holds for all servers of this Eviction; ``more`` are further fields of the Context."""
    spec = eviction["spec"]
    return Context(
        source=spec["hypervisor"],
        cause=cause_of(eviction),
        now=now,
        service_up=service_up,
        notify_only=bool(spec.get("notifyOnly")),
        whole_host=not spec.get("instances"),
        settings=settings,
        faults=fault_history.acted_lately(eviction, settings.crash_window),
        **more,
    )


def read_fence(eviction: dict) -> Fence:
    """What the status says of fencing. The condition alone (upstream's schema keeps no more) tells that it has begun."""
    condition = get_condition(eviction, "Fenced")
    if condition is None:
        return Fence()
    told = (eviction.get("status") or {}).get("fencing") or {}
    proven = condition.get("status") == "True"
    return Fence(
        begun=True,
        reason=condition.get("reason") or FENCING,
        message=condition.get("message") or "",
        attempts=told.get("attempts") or 0,
        attempted_at=seconds(told.get("attemptedAt")),
        # A proof of unknown age is an old one.
        proven_at=(seconds(told.get("provenAt")) or 0.0) if proven else None,
    )


def write_fence(fence: Fence) -> dict:
    """``status.fencing``, without what is empty; ``provenAt`` counts while the condition Fenced is True."""
    times = {"attemptedAt": stamp(fence.attempted_at), "provenAt": stamp(fence.proven_at)}
    return {"attempts": fence.attempts, **{key: value for key, value in times.items() if value}}


def counts(entries: list[Entry]) -> dict[str, int]:
    """``status.counts``."""
    phases = [entry.phase for entry in entries]
    return {
        "total": len(phases),
        "succeeded": phases.count("Succeeded") + phases.count("Notified"),
        "failed": phases.count("Failed"),
        "skipped": phases.count("Skipped"),
    }


def outcome(entries: list[Entry]) -> tuple[str, str]:
    """Reason and message of the finished condition Evicting, once every entry is finished.

    A failure is never told as a success (upstream.md, surprise 9).
    """
    if not entries:
        return "Succeeded", "the hypervisor has no servers"
    failed = [entry for entry in entries if entry.phase == "Failed"]
    if failed:
        told = "; ".join(f"{entry.name or entry.id}: {entry.message}" for entry in failed[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        return "Failed", f"{len(failed)} of {len(entries)} failed: {told}{more}"[:MESSAGE_LIMIT]
    if all(entry.phase == "Notified" for entry in entries):
        return "Notified", entries[0].message[:MESSAGE_LIMIT]
    if len(entries) == 1:
        return "Succeeded", f"{entries[0].name or entries[0].id}: {entries[0].message}"[:MESSAGE_LIMIT]
    tally = counts(entries)
    skipped = [f"{entry.name or entry.id} ({entry.message})" for entry in entries if entry.phase == "Skipped"]
    told = f"; skipped: {', '.join(skipped[:5])}" if skipped else ""
    return "Succeeded", f"{tally['succeeded']} of {tally['total']} servers done{told}"[:MESSAGE_LIMIT]


def progress(entries: list[Entry]) -> str:
    """Message of the condition Evicting while at work."""
    done = sum(entry.finished for entry in entries)
    open_ = [f"{entry.name or entry.id}: {entry.message}" for entry in entries if not entry.finished and entry.message]
    return f"{done} of {len(entries)} done" + (f"; {open_[0]}" if open_ else "")


def write_status(
    eviction: dict,
    entries: dict[str, Entry],
    *,
    holder: str,
    now: float,
    ram_mb: dict[str, int],
    finished: bool,
    blocked: tuple[str, str] | None = None,
    verdict: str | None = None,
    occurred_at: str | None = None,
    preflight: str = "",
    waiting: str = "",
    fence: Fence | None = None,
    cancelled: str | None = None,
    doing: str = "",
) -> dict:
    """The status to write: what was there, with entries, counts, conditions and the holder renewed.

    :param blocked: reason and message when the preflight does not let the work begin.
    :param verdict: why the Eviction as a whole failed.
    :param preflight: what the preflight found, when it found nothing against beginning.
    :param waiting: what else is waited for.
    :param fence: what is known of fencing.
    :param cancelled: why nothing (more) is to be done.
    :param doing: what is done to the host itself next.
    :param occurred_at: the fault that this work answers (``spec.occurredAt`` as it was read).
    """
    old = eviction.get("status") or {}
    listed = list(entries.values())
    now_text = stamp(now)
    generation = (eviction.get("metadata") or {}).get("generation")
    conditions = old.get("conditions") or []
    fenced = fenced_condition(fence) if fence else None
    if fenced:
        conditions = set_condition(conditions, "Fenced", fenced[0], fenced[1], fenced[2][:MESSAGE_LIMIT], now_text)
    if blocked and fence and fence.begun:
        # The preflight let it begin; what is waited for now has its own condition.
        conditions = set_condition(conditions, "Evicting", "True", "Running", f"waiting: {blocked[1]}", now_text)
    elif blocked:
        conditions = set_condition(conditions, "PreflightChecksSucceeded", "False", blocked[0], blocked[1], now_text)
        conditions = set_condition(conditions, "Evicting", "True", "Running", f"waiting: {blocked[1]}", now_text)
    else:
        if not verdict and not cancelled:
            # What was found before a step was killed stays said.
            preflight = preflight or (get_condition(eviction, "PreflightChecksSucceeded") or {}).get("message") or ""
            conditions = set_condition(conditions, "PreflightChecksSucceeded", "True", "Succeeded", preflight, now_text)
        if finished:
            reason, message = outcome(listed)
            if verdict or cancelled:
                reason, message = ("Failed", verdict) if verdict else ("Cancelled", cancelled or "")
            message = message[:MESSAGE_LIMIT]
            conditions = set_condition(conditions, "Evicting", "False", reason, message, now_text)
        else:
            message = "; ".join(filter(None, (doing or progress(listed), waiting)))[:MESSAGE_LIMIT]
            conditions = set_condition(conditions, "Evicting", "True", "Running", message, now_text)
    outstanding = [entry.id for entry in listed if not entry.finished]
    status = {
        "conditions": conditions,
        "instances": [write_entry(entry) for entry in listed],
        "counts": counts(listed),
        "outstandingInstances": outstanding,
        "outstandingRamMb": sum(ram_mb.get(server, 0) for server in outstanding),
        "startedAt": old.get("startedAt") or now_text,
        # A merge patch removes what is null: a finished Eviction is nobody's.
        "holder": None if finished else {"identity": holder, "renewedAt": now_text},
    }
    if fence and fence.begun:
        status["fencing"] = write_fence(fence)
    if generation is not None:
        status["observedGeneration"] = generation
    if occurred_at:
        status["observedOccurredAt"] = occurred_at
    if finished:
        status["finishedAt"] = now_text
    return status


def foreign_holder(eviction: dict, identity: str, now: float, ttl: float) -> tuple[str, float] | None:
    """Another step that is at work on this Eviction: its identity and the seconds until its claim ends."""
    holder = (eviction.get("status") or {}).get("holder") or {}
    if not holder.get("identity") or holder["identity"] == identity:
        return None
    left = (seconds(holder.get("renewedAt")) or 0) + ttl - now
    # A clock that is ahead must not lock the Eviction for longer than a claim lasts.
    return (holder["identity"], min(left, ttl)) if left > 0 else None
