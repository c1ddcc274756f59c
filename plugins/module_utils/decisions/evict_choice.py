# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the decided acts are carried out now: opted out, cannot move, waits for a place. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Context, Decision, Entry, end
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.limits import (
    BEGIN,
    MOVE,
    Limits,
    Load,
    may_begin,
    waiting_for,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.movable import final_refusal, hindrance
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.selection import Choice, in_order
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServerFacts

WAITING = "waiting for a place"
LOCK_PREFIX = "c5c3.ha: "


def locked_by_us(server: ServerFacts | None) -> bool:
    """Whether a server's lock is one of ours; those of others are never taken away."""
    return bool(server and server.locked and server.locked_reason.startswith(LOCK_PREFIX))


def keep_out(
    decision: Decision,
    server: ServerFacts | None,
    choice: Choice,
    context: Context,
    live_migratable: Collection[str] = (),
) -> Decision:
    """The decision, or the end of the server's entry when it is to be left alone or cannot go that way.

    Looked at only where work would begin: what needs nothing, and what is on its way already, is told as it is.
    """
    if server is None or (decision.act not in BEGIN and decision.act != "ResetState"):
        return decision
    entry = decision.entry
    if choice.skip:
        return Decision(end(entry, "Skipped", choice.skip, context).entry)
    if decision.act in MOVE:
        helps = hindrance(decision.act or "", server.extra_specs, live_migratable)
        if helps:
            return end(replace(entry, route="None", attempts=0), "Skipped", f"not moved: {helps}", context)
        helps = final_refusal(entry.message) if "failed" in entry.message else ""
        if helps:
            told = entry.message[entry.message.find("(") + 1 :].removesuffix(")")
            return end(entry, "Skipped", f"not moved: {told}; {helps}", context)
    if choice.note and choice.note not in entry.message:
        return replace(decision, entry=replace(entry, message=f"{entry.message} ({choice.note})"))
    return decision


def in_turn(
    entries: Mapping[str, Entry], servers: Mapping[str, ServerFacts | None], priorities: Mapping[str, int], room: int
) -> set[str]:
    """The servers that are worth a closer look in this pass: those in work, and the next ones to come.

    Whether a guest runs costs a question to its host for each, so of a hundred that wait only the next are asked about.

    :param room: how many of those that wait; 0 for all.
    """
    chosen = {key for key, entry in entries.items() if entry.phase != "Pending" or not _at_rest(servers.get(key))}
    waiting = in_order({key: priorities.get(key, 0) for key in entries if key not in chosen})
    return chosen | set(waiting[:room] if room else waiting)


def _at_rest(server: ServerFacts | None) -> bool:
    return bool(server and not server.task_state)


def begin_now(
    known: Mapping[str, Entry],
    decided: Mapping[str, Decision],
    priorities: Mapping[str, int],
    limits: Limits,
    load: Load,
) -> tuple[dict[str, Entry], list[Decision]]:
    """The entries to write and the acts to do now, in order.

    Who has to wait keeps its entry as it is known, so that no attempt is counted that was not made.
    """
    acting = [key for key in in_order({key: priorities.get(key, 0) for key in decided}) if decided[key].act]
    chosen = may_begin([(key, decided[key].act or "") for key in acting], limits, load)
    entries = dict(known)
    for key, decision in decided.items():
        if not decision.act or key in chosen:
            entries[key] = decision.entry
            continue
        told = waiting_for(decision.act, limits, replace(load, here=load.here + len(chosen))) or WAITING
        entry = known[key]
        if not entry.message or entry.message.startswith(WAITING):
            entries[key] = replace(entry, name=decision.entry.name, message=told)
    return entries, [decided[key] for key in acting if key in chosen]


def at_work(decided: Mapping[str, Decision], servers: Mapping[str, ServerFacts | None]) -> dict[str, str]:
    """The servers of the Eviction that Nova is at work on now, or waits for our next word on, and their routes."""
    return {
        key: decision.entry.route
        for key, decision in decided.items()
        if not decision.entry.finished
        and (server := servers.get(key)) is not None
        and bool(server.task_state or server.status == "VERIFY_RESIZE")
    }


def load_of(
    working: Mapping[str, str], under_way: Iterable[MigrationFacts], targets: Iterable[str], traits: frozenset[str]
) -> Load:
    """What is in work now.

    :param working: as :func:`at_work`. What we have just begun may be missing in Nova's records, which its conductor
        writes later.
    :param under_way: Nova's records of the whole cloud that are not over.
    :param targets: the hosts that may be one.
    """
    goes_to = {migration.server: migration.target for migration in under_way}
    moving = {server for server, route in working.items() if route in MOVE} | goes_to.keys()
    to_target = dict.fromkeys(targets, 0)
    for target in goes_to.values():
        if target in to_target:
            to_target[target] += 1
    unplaced = sum(not goes_to.get(server) for server in moving)
    return Load(len(working), to_target, len(moving), unplaced, traits)
