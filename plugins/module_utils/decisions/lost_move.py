# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A move, or its confirmation, that Nova's API accepted and of which nothing came: pure.

The API gives the server its task and sends the conductor a message, whose first deed is a migration record. A conductor or
a broker that dies with the message (seen on the lab) leaves a server in that task for ever: nobody may touch it, and no
part of Nova knows of it.

Every heartbeat of a nova-compute goes through the conductor, too. Once one of a later time has arrived, the message is not
on its way any more; both times are Nova's own.

A confirmation goes to the source's nova-compute, which drops it when its own question to the conductor has no answer. Nova
refuses a second one: the record stays "confirming".
"""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Context, Decision, Entry, wait
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts

# Task of a server between Nova's API, which accepted a move, and the record of a conductor, or of a compute, at work on it.
ASKED = {"LiveMigrate": "migrating", "ColdMigrate": "resize_prep"}
# Status of a record that a conductor wrote and no compute has taken up.
NOT_BEGUN = frozenset({"accepted", "pre-migrating"})
# Seconds that Nova has to carry out a confirm before it is asked again.
CONFIRM_SECONDS = 30.0
LOST_CONFIRM = "its confirmation was lost"
# Between the task and the heartbeat: a conductor that took the message before has written its record by then.
LOST_SECONDS = 30.0


def needs_records(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    """Whether the decision hangs on the server's migration records."""
    return move_overdue(entry, server, context) or _confirm_overdue(entry, server, context)


def move_overdue(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    """Whether a move of ours is so late that its records, and its host, must be asked what became of it.

    Not by the phase: the answer to the move, or to taking it back, may have been lost.
    """
    return bool(
        server
        and not entry.finished
        and not context.dead
        and context.service_up
        and server.host == context.source
        and server.task_state
        and server.task_state == ASKED.get(entry.route)
        and server.changed is not None
        and context.heard is not None
        and context.heard - server.changed > LOST_SECONDS
    )


def lost_move(entry: Entry, server: ServerFacts, context: Context) -> Decision | None:
    """Take a lost move back, so that the server can be moved anew; None while it may be on its way, or has begun."""
    if not move_overdue(entry, server, context) or server.records is None or server.running is None:
        return None
    left = [record for record in server.records if record.unfinished]
    patience = context.settings.attempt_timeout
    for record in left:
        # What was handed to a compute may lie in a queue of its own: it is given the time of a whole attempt.
        if record.status not in NOT_BEGUN or record.changed is None or context.now - record.changed <= patience:
            return None
    told = f"attempt {entry.attempts}: Nova's message was lost: resetting its task, so that it can be moved"
    return Decision(replace(entry, message=told), "ResetState", release=(left[0].uuid or "") if left else "")


def _confirm_overdue(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    if server is None or entry.route != "ColdMigrate" or server.status != "VERIFY_RESIZE" or context.dead:
        return False
    late = context.now - (entry.attempted_at or context.now) > CONFIRM_SECONDS
    return entry.phase == "Pending" or (entry.phase == "Confirming" and late)


def lost_confirm(entry: Entry, server: ServerFacts, context: Context) -> Decision | None:
    """Wait for a confirmation that Nova has accepted, or end its wait for one that was lost; None when there is none."""
    confirming = [record for record in server.records or () if record.status == "confirming"]
    if not confirming or not _confirm_overdue(entry, server, context):
        return None
    record = confirming[0]
    if record.changed is None or context.now - record.changed <= context.settings.attempt_timeout:
        return wait(entry, "waiting for Nova to confirm the cold migration")
    told = f"{LOST_CONFIRM}: {context.source} may keep its old disk as {server.id}_resize"
    return Decision(replace(entry, phase="Confirming", message=told), "ResetState", drop=record.uuid or "")


def to_stop(entry: Entry, server: ServerFacts) -> Decision | None:
    """Stop what was stopped before something lost was taken back: Nova calls it active, and would start it when it moves."""
    if (entry.vm_state, server.vm_state, server.running) != ("stopped", "active", False):
        return None
    told = "stopping it, as it was"
    return Decision(
        replace(entry, message=f"{told}; {entry.message}" if LOST_CONFIRM in entry.message else told), "Stop"
    )
