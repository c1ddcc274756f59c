# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do next with each server of an Eviction: a pure function of what is known now.

No memory but the Eviction's own status: whoever reads it and Nova anew comes to the same next act, so a step that was
killed at any instant is simply run again. An act is decided only for a server at rest (no task in Nova); a server that
runs where it should is never restarted, one that is away is never moved again.
"""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evacuation import ROUTE as EVACUATE
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evacuation import decide_evacuation
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import (
    HUNG,
    MUTE_SECONDS,
    Context,
    Decision,
    Entry,
    attempt,
    backing_off,
    end,
    mute,
    over_time,
    wait,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.lost_move import (
    CONFIRM_SECONDS,
    LOST_CONFIRM,
    lost_confirm,
    lost_move,
    move_overdue,
    to_stop,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts

# Causes after which a server is first restarted where it is (design.md, Reactions).
RESTART_FIRST = frozenset({"InstanceStopped", "RebootFailed"})
# Causes that tell of a dead guest which has to run again, here or elsewhere.
DEAD_GUEST = RESTART_FIRST | {"WatchdogRestartFailed"}

# Task of a server between Nova's API, which accepted a hard reboot, and nova-compute, which has not begun it.
REBOOT_ASKED = frozenset({"rebooting", "rebooting_hard"})
# Task of a server that is being stopped, by a user or by Nova itself.
STOPPING = "powering-off"
# Seconds that a message to a living nova-compute may take before one asks whether it was lost.
UNHEARD_SECONDS = 15.0
# Seconds after Nova's last word of a server that a move left where it was: until then Nova may still write why, or, after an abort,
# ERROR (Nova 34 does so 0.4 s after it has called the server active; both seen on the lab). A clock of Nova's that is further ahead
# than that is no reason to wait.
SETTLED_SECONDS = 3.0
ABORTING = "aborting"
# The act that sends a lost restart again; Nova allows it in that task (ALLOW_REBOOT in nova.compute.task_states).
AGAIN = "RestartAgain"

# vm_state and what Nova allows from it (nova.compute.api, check_instance_state of each action).
LIVE_MIGRATABLE = frozenset({"active", "paused"})
COLD_MIGRATABLE = frozenset({"active", "stopped"})
NOT_TO_RESTART = {
    "suspended": "it is suspended and has no process to die: resume it with `openstack server resume`",
    "shelved": "it is shelved: unshelve it with `openstack server unshelve`",
    "shelved_offloaded": "it is shelved and on no host",
    "building": "it is still being built",
    "deleted": "it is deleted",
    "soft-delete": "it is deleted",
}
# Nova's API reboots none of these (ALLOW_HARD_REBOOT in nova.compute.vm_states); the guest stays dead until somebody acts.
STAYS_DEAD = {
    "rescued": "Nova reboots no rescued server: unrescue it with `openstack server unrescue`",
    "resized": "Nova reboots no resized server: confirm or revert the resize",
}
NOT_TO_MOVE = {
    "suspended": "Nova moves no suspended server: resume or shelve it",
    "shelved": "Nova moves no shelved server: let it be offloaded",
    "rescued": "Nova moves no rescued server: unrescue it",
    "building": "it is still being built: wait or delete it",
    "resized": "its resize waits for a confirm or revert by its user",
}


def needs_running(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    """Whether the decision hangs on whether the guest runs, which costs a question to its host."""
    if server is None or entry.finished or not server.host:
        return False
    stays = context.returned and entry.route == EVACUATE  # forced down, and there all the same
    if server.host == context.source and not context.service_up and not stays:
        return False  # nobody is there to be asked
    if server.task_state:
        overdue = _restart_overdue(entry, server, context) or _stop_overdue(entry, server, context)
        return overdue or move_overdue(entry, server, context)
    if context.dead and entry.route == EVACUATE:
        return server.vm_state in ("active", "error")  # it has to run where it is now
    if entry.vm_state == "stopped" and server.vm_state == "active":
        return True
    if server.vm_state == "stopped" or server.host != context.source:
        return _dead_guest(context)
    return server.vm_state in ("active", "error", "paused")


def needs_stop_origin(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    """Whether it must be known who stopped the server."""
    if server is None or entry.finished:
        return False
    if server.task_state:
        return _stop_overdue(entry, server, context)
    return server.vm_state == "stopped" and _dead_guest(context)


def needs_failure(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    """Whether a finished attempt has left the server where it was, so that Nova must be asked why."""
    return bool(
        server
        and not entry.finished
        and not server.task_state
        and entry.phase in ("Migrating", "Restarting", "Confirming", "Evacuating")
        and (server.host == context.source or server.vm_state == "error")
    )


def needs_live_migration(entry: Entry, server: ServerFacts | None, context: Context) -> bool:
    """Whether the attempt is over its time, so that the id of the migration is needed to abort it."""
    return bool(server and server.task_state == "migrating" and over_time(entry, context))


def decide(entry: Entry, server: ServerFacts | None, context: Context) -> Decision:
    """The next act for one server.

    :param entry: what the Eviction's status says of it.
    :param server: what Nova says of it now, None when Nova knows it no more.
    :param context: the Eviction's cause, host and limits.
    """
    if entry.finished:
        return Decision(entry)
    entry = replace(entry, started_at=entry.started_at or context.now, source=entry.source or context.source)
    if server is None:
        return end(entry, "Succeeded", "the server is gone", context)
    entry = replace(entry, name=server.name or entry.name)
    if server.task_state == "deleting" or server.vm_state in ("deleted", "soft-delete"):
        return end(entry, "Skipped", "the server is being deleted", context)
    if context.notify_only:
        return end(entry, "Notified", f"{context.cause} was reported; nothing is moved", context)
    if server.host is None and not server.task_state:
        return end(entry, "Skipped", "the server is on no host", context)
    if context.dead and (server.host == context.source or entry.route == EVACUATE):
        return decide_evacuation(entry, server, context)
    if context.dead and server.status == "VERIFY_RESIZE":
        told = f"on {server.host} already; its migration can be confirmed when {context.source} is back"
        return end(replace(entry, target=server.host or ""), "Succeeded", told, context)
    if server.task_state or server.status in ("MIGRATING", "RESIZE", "REBUILD", "HARD_REBOOT", "REBOOT"):
        return _busy(entry, server, context)
    if server.status == "VERIFY_RESIZE" and entry.route == "ColdMigrate":
        return lost_confirm(entry, server, context) or _confirm(entry, context)
    if server.host != context.source:
        return _away(entry, server, context)
    if _given_up(entry, server, context):
        message = (
            f"needed help {context.faults} times within {context.settings.crash_window:g} s, restarts and moves among it:"
            " left alone until somebody has looked why (openstack console log show, the guest's disk)"
        )
        return end(entry, "Failed", message, context)
    if _restart_wanted(entry, server, context):
        return _restart(entry, server, context)
    return _move(entry, server, context)


def _confirm(entry: Entry, context: Context) -> Decision:
    confirming = entry.phase == "Confirming" and entry.attempted_at is not None
    if confirming and context.now - (entry.attempted_at or 0) < CONFIRM_SECONDS:
        return Decision(entry)  # asked for already; Nova has no task for it
    message = "confirming the cold migration"
    return Decision(replace(entry, phase="Confirming", attempted_at=context.now, message=message), "Confirm")


def _given_up(entry: Entry, server: ServerFacts, context: Context) -> bool:
    """Whether the server fails as soon as it is helped, wherever it is."""
    most = context.settings.crash_restarts + context.settings.crash_moves
    if context.whole_host or entry.route != "None" or context.faults <= most or server.stopped_by_user:
        return False
    return context.cause == "DiskIOError" or (context.cause in DEAD_GUEST and server.running is False)


def _restart_wanted(entry: Entry, server: ServerFacts, context: Context) -> bool:
    if entry.route in ("LiveMigrate", "ColdMigrate"):
        # Once on its way out it is not restarted again, but for a guest of a drained host that died while it waited.
        return (
            context.whole_host
            and entry.route == "LiveMigrate"
            and server.vm_state == "active"
            and (server.running is False)
        )
    if not context.whole_host and context.cause in DEAD_GUEST:
        # One that keeps dying here is tried elsewhere.
        dies_again = context.faults > context.settings.crash_restarts and server.running is False
        return context.cause in RESTART_FIRST and (entry.route == "Restart" or not dies_again)
    # A guest that crashed on a host to be emptied: restarted through Nova first, then moved as a running one.
    return server.vm_state == "active" and server.running is False


def _restart(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    if server.vm_state in NOT_TO_RESTART:
        return end(entry, "Skipped", f"not restarted: {NOT_TO_RESTART[server.vm_state]}", context)
    if server.vm_state in STAYS_DEAD:
        return end(entry, "Failed", f"not restarted: {STAYS_DEAD[server.vm_state]}", context)
    if server.running:
        message = f"{'restarted' if entry.phase == 'Restarting' else 'already running'} on {server.host}"
        return end(replace(entry, route="Restart", target=server.host or ""), "Succeeded", message, context)
    if server.vm_state == "stopped" and server.stopped_by_user:
        return end(entry, "Skipped", "not restarted: its user stopped it", context)
    if not context.service_up:
        return wait(entry, f"nova-compute of {context.source} is down: waiting for it, or for the host to be fenced")
    if server.running is None:
        return mute(entry, context.source, context)
    if entry.phase == "Restarting":
        told = server.failure or server.fault or "the guest does not run after it"
        entry = replace(entry, message=f"restart {entry.attempts} failed: {told}")
    if entry.route == "Restart" and entry.attempts >= context.settings.restart_attempts:
        # The route is set before the first move, so that the next pass does not start to restart again.
        return _move(replace(entry, route="ColdMigrate", attempts=0, phase="Pending"), server, context)
    if backing_off(entry, context):
        return Decision(entry)
    return attempt(entry, "Restart", "Restarting", f"hard reboot on {server.host}", context)


def _move(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    if entry.phase in ("Migrating", "Confirming"):
        # a failed action may be a second abort that came too late
        aborted = ABORTING in entry.message
        if (aborted or not server.failure) and abs(context.now - (server.changed or 0.0)) < SETTLED_SECONDS:
            return Decision(entry)
        told = server.failure or server.fault or "the server is still on its host"
        if aborted:
            told = entry.message.split("; ")[0].replace(ABORTING, "aborted")
        entry = replace(entry, message=f"move {entry.attempts} failed: {told}", phase="Pending")
    if server.vm_state in NOT_TO_MOVE:
        return end(entry, "Failed", f"not moved: {NOT_TO_MOVE[server.vm_state]}", context)
    if server.vm_state == "stopped" and server.stopped_by_user and _dead_guest(context):
        return end(entry, "Skipped", "not moved: its user stopped it", context)
    if not context.service_up:
        return wait(
            entry, f"nova-compute of {context.source} is down: nothing can be migrated from it until it is back"
        )
    stop = to_stop(entry, server)
    if stop:
        return stop
    last = entry.attempts >= context.settings.move_attempts
    if last and not (server.vm_state == "error" and server.running):
        return end(entry, "Failed", entry.message or "no attempt to move it succeeded", context)
    if backing_off(entry, context) and not last:
        return Decision(entry)
    if server.vm_state == "error":
        # A live migration that failed or was aborted leaves a healthy guest in ERROR; a guest whose restart failed is
        # dead. Either way Nova refuses to move it until it is reset.
        if server.running is None:
            return mute(entry, context.source, context, "the server is in ERROR, and its host")
        if last:  # it is not moved, but its user may do with it what a running server allows
            return Decision(entry, "ResetState")
        failed = f"{entry.message}; " if "failed" in entry.message else ""
        message = f"{failed}resetting ERROR to active, so that Nova moves it"
        return Decision(replace(entry, message=message), "ResetState")
    if server.vm_state in LIVE_MIGRATABLE and server.running is None:
        return mute(entry, context.source, context)
    if server.vm_state == "paused" or (server.vm_state == "active" and server.running):
        return attempt(entry, "LiveMigrate", "Migrating", "live migration", context)
    if server.vm_state in COLD_MIGRATABLE:
        entry = replace(entry, vm_state="stopped" if server.vm_state == "stopped" else "")
        return attempt(entry, "ColdMigrate", "Migrating", "cold migration", context)
    return end(entry, "Failed", f"not moved: Nova moves no server in vm_state {server.vm_state!r}", context)


def _away(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    entry = replace(entry, target=server.host or "")
    if server.status == "VERIFY_RESIZE":
        return wait(entry, "it left by a resize of its user, who has to confirm or revert it")
    if entry.route != "None" and _dead_guest(context) and not server.running and server.vm_state != "paused":
        if server.running is None:
            return mute(entry, server.host, context, f"on {server.host}, which")
        if server.vm_state == "stopped" and server.stopped_by_user:
            return end(entry, "Skipped", f"on {server.host}, stopped by its user", context)
        if entry.attempts > context.settings.move_attempts + context.settings.restart_attempts:
            return end(entry, "Failed", f"on {server.host} now, but the guest does not run there", context)
        if backing_off(entry, context):
            return Decision(entry)
        return attempt(entry, entry.route, "Restarting", f"hard reboot on {server.host}", context, act="Restart")
    if server.vm_state == "error":
        return end(
            entry, "Failed", f"on {server.host}, but in ERROR: {server.fault or 'Nova does not say why'}", context
        )
    if entry.vm_state == "stopped" and server.vm_state == "active" and server.running is None:
        return mute(entry, server.host, context, f"on {server.host}, which")
    stop = to_stop(entry, server)
    if stop:
        return stop
    verb = {"LiveMigrate": "live-migrated", "ColdMigrate": "cold-migrated"}.get(entry.route)
    message = f"{verb} to {server.host}" if verb else f"on {server.host} already, moved by somebody else"
    if LOST_CONFIRM in entry.message:
        message += f"; {entry.message}"
    return end(entry, "Succeeded", message, context)


def _busy(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    doing = server.task_state or server.status.lower()
    lost = lost_move(entry, server, context)
    if lost:
        return lost
    if over_time(entry, context):
        limit = f"{context.settings.attempt_timeout:.0f} s"
        aborting = ABORTING in entry.message
        if aborting and not over_time(entry, context, MUTE_SECONDS):
            return Decision(entry)  # heard, or Nova's record has ended before the server's task does
        if server.live_migration is not None:
            return Decision(replace(entry, message=f"live migration over {limit}: {ABORTING}"), "Abort")
        begun = f"{entry.message.split('; ')[0]}; " if aborting else ""
        return wait(entry, f"{begun}{doing} for over {limit}: {HUNG.format(host=server.host)}")
    if _restart_overdue(entry, server, context) and server.running is None:
        return mute(entry, server.host, context, f"attempt {entry.attempts}: nova-compute of {server.host}")
    if _restart_overdue(entry, server, context) and server.running is False:
        message = f"attempt {entry.attempts}: Nova's message to {server.host} was lost: hard reboot asked for again"
        return Decision(replace(entry, attempted_at=context.now, message=message), AGAIN)
    if _stop_overdue(entry, server, context) and server.running is False and server.stopped_by_user is False:
        message = "Nova's own stop of the dead guest was lost: resetting its task, so that it can be restarted"
        return Decision(replace(entry, message=message), "ResetState")
    if entry.phase in ("Restarting", "Migrating", "Confirming"):
        return Decision(entry)
    return wait(entry, f"waiting: Nova is at {doing}")


def _restart_overdue(entry: Entry, server: ServerFacts, context: Context) -> bool:
    """Whether a hard reboot was accepted by Nova's API and has not been begun by nova-compute for suspiciously long.

    A broker that dies loses the message, and the server stays in this task for ever (seen on the lab). nova-compute
    writes another task as soon as it begins; it takes its messages in their order, so once it has answered a question
    that was asked later, the message is not on its way any more.
    """
    return (
        entry.phase == "Restarting"
        and server.task_state in REBOOT_ASKED
        and context.now - (entry.attempted_at or context.now) > UNHEARD_SECONDS
    )


def _stop_overdue(entry: Entry, server: ServerFacts, context: Context) -> bool:
    """Whether Nova has been stopping a server for suspiciously long.

    nova-compute that sees a guest die has it stopped through a message to itself; a broker that dies loses that, and the
    server stays in this task for ever (seen on the lab). Once nova-compute has answered a question that was asked later,
    the message is not on its way any more.
    """
    since = max(server.changed or 0.0, entry.started_at or context.now)
    return (
        not context.dead
        and server.task_state == STOPPING
        and server.host == context.source
        and context.now - since > UNHEARD_SECONDS
    )


def _dead_guest(context: Context) -> bool:
    """Whether the Eviction is about single servers whose guests died and have to run again."""
    return context.cause in DEAD_GUEST and not context.whole_host
