# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do next with one server of a host that is proven off, or of one whose site takes it for off: pure.

What Nova does (34.0, and the same since 2.14), and what follows:

- Its API accepts an evacuation in every task state, a second one beside the first included, and two can end in two
  guests on one disk. So none is asked for while a record of one is unfinished, nor before an answer that was lost can
  have become a record.
- A server loses its task before its host is written (``_do_rebuild_instance``, then ``finish_evacuation``): only the
  record tells that it is on its way.
- Until the task is ``rebuild_spawning`` Nova's own comparisons keep a late message from doing anything; later a guest
  may run at the record's target although Nova still has the server here. The same holds for a live migration whose
  source died. Nova refuses to build a guest on a host that has it already, so such a server goes to that host or
  nowhere.
- It rebuilds a server from its image when the target does not see its disk, and its data is lost. ``on_shared_storage``
  (microversion below 2.14) makes it refuse instead.
"""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import (
    Context,
    Decision,
    Entry,
    attempt,
    backing_off,
    end,
    mute,
    wait,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServerFacts

ROUTE = "Evacuate"
# A request whose answer was lost (or whose sender was killed) has become a record by then, or never does.
SETTLE_SECONDS = 30.0

# By how much a proof of being off has to be later than Nova's record: they are times of two clocks.
CLOCKS_SECONDS = 10.0

# vm_state: why Nova evacuates no such server (nova.compute.api), and what would help.
NOT_TO_EVACUATE = {
    "suspended": "its memory is saved on the dead host: resume it when that is back, or give the memory up with"
    " `openstack server set --state active` and a new Eviction",
    "rescued": "Nova evacuates no rescued server: give the rescue up with `openstack server set --state active`, then a"
    " new Eviction brings it back from its own disk",
    "resized": "its resize waits for a confirm or revert, which needs the dead host: keep the new size with"
    " `openstack server set --state active` and a new Eviction",
    "shelved": "it is shelved but not offloaded: `openstack server set --state active` and a new Eviction start it elsewhere",
    "building": "it was still being built: its user has to delete it and create it again",
}
# Tasks in which the disk is renamed and copied: what lies there may be half of it (nova.virt.libvirt, migrate_disk_and_power_off).
HALF_COPIED = frozenset(
    {"resize_migrating", "resize_migrated", "resize_finish", "resize_reverting", "resize_confirming"}
)
# Before a guest is built: what comes late fails on Nova's own comparison of the task.
EARLY = frozenset({"rebuilding", "rebuild_block_device_mapping"})
REBUILDING = EARLY | {"rebuild_spawning"}
# nova.exception.InvalidSharedStorage and InstanceExists.
_NOT_SHARED, _EXISTS = "shared storage", "already exists"


def _left_open(server: ServerFacts) -> MigrationFacts | None:
    """The record of what was begun last and has not ended, an evacuation or before it a live migration: at its target a
    guest may have been left."""
    record = server.evacuation
    if record and record.unfinished and record.target and server.task_state not in EARLY:
        return record
    return server.cut_off if server.cut_off and server.cut_off.target else None


def needs_target_off(server: ServerFacts, now: float) -> str:
    """The host of which it matters when it was last proven off; empty while no proof could be late enough."""
    record = _left_open(server)
    late = record is not None and record.changed is not None and now - record.changed > CLOCKS_SECONDS
    return (record.target or "") if record and late else ""


def _ended(server: ServerFacts) -> bool:
    """Whether that target was proven off since: what ran or was being built there is gone, and the message consumed."""
    record = _left_open(server)
    if record is None or record.status == "accepted" or record.changed is None or server.target_off is None:
        return False
    return server.target_off - record.changed > CLOCKS_SECONDS


def decide_evacuation(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    """The next act for one server; ``act`` is None, Evacuate, ResetState, Stop or Restart (at its target)."""
    if server.host != context.source:
        return _arrived(entry, server, context)
    if not entry.vm_state:
        entry = replace(entry, vm_state=server.vm_state)
    in_flight = _in_flight(entry, server, context)
    if in_flight:
        return in_flight
    entry = _told(entry, server)
    never = _never(entry, server, context)
    if never:
        return never
    if context.returned:
        return _stays(entry, server, context)
    if entry.route == ROUTE and entry.attempts >= context.settings.move_attempts:
        return end(entry, "Failed", (entry.message or "no evacuation of it succeeded") + _helps(entry, server), context)
    if entry.route == ROUTE and backing_off(entry, context):
        return Decision(entry)
    if server.vm_state == "paused":
        told = "its memory went with the host: resetting it to active, so that it boots elsewhere"
        return Decision(replace(entry, message=told), "ResetState")
    cut_off = server.cut_off
    left = None if _ended(server) else _left_open(server)
    pin = (left.target or "") if left else ""
    if pin and context.others.get(pin) == "down":
        return wait(
            entry, f"a guest of it may run on {pin}, which is down: bring {pin} back, or fence it and force it down"
        )
    if context.others and "up" not in context.others.values():
        # Nova would refuse at once. A broker that is away takes all of them down for a while: no attempts are spent on it.
        named = ", ".join(f"{host} is {state}" for host, state in sorted(context.others.items())[:5])
        return wait(entry, f"no other hypervisor is up for Nova ({named}): it goes on when one is")
    pin = pin if context.others.get(pin) == "up" else ""
    decision = attempt(entry, ROUTE, "Evacuating", "evacuation" + (f" to {pin}" if pin else ""), context)
    release = (cut_off.uuid or "") if pin and cut_off else ""
    return replace(decision, target=pin, on_disk=not server.volume_backed, release=release)


def _in_flight(entry: Entry, server: ServerFacts, context: Context) -> Decision | None:
    """What to do while Nova is, or may be, at an evacuation of it."""
    record = server.evacuation
    if record and record.unfinished and not _stuck(server, record, context):
        where = f" to {record.target}" if record.target else ""
        attempted = entry.attempted_at if entry.phase == "Evacuating" else context.now
        return Decision(
            replace(
                entry,
                route=ROUTE,
                phase="Evacuating",
                target=record.target or entry.target,
                attempts=max(1, entry.attempts) if entry.route == ROUTE else 1,
                attempted_at=attempted,
                message=f"evacuation{where}, attempt {max(1, entry.attempts)}",
            )
        )
    began = entry.attempted_at if entry.phase == "Evacuating" else None
    seen = bool(record and began is not None and (record.changed is None or record.changed >= began))
    if seen and record.status in ("done", "completed") and context.now - (record.changed or began) < SETTLE_SECONDS:
        return Decision(entry)  # it left between the two readings; else its host came back and ended the record
    if began is not None and not seen and context.now - began < SETTLE_SECONDS:
        return Decision(entry)
    recent = context.now - (entry.started_at or context.now) < SETTLE_SECONDS
    if server.task_state in REBUILDING and not (record and record.unfinished) and recent:
        # Somebody's request of this very moment, or a rebuild in place that died with the host.
        return wait(entry, f"waiting: Nova is at {server.task_state}")
    return None


def _stuck(server: ServerFacts, record: MigrationFacts, context: Context) -> bool:
    """Whether nothing has come of an evacuation for longer than it may take."""
    if record.changed is None:
        return False
    if record is _left_open(server) and _ended(server):
        return True
    # No compute has begun to build it: the message was lost with a conductor or a broker, or waits for a host that is
    # dead too.
    early = record.status == "accepted" or server.task_state in EARLY
    limit = context.settings.evacuate_timeout if early else context.settings.attempt_timeout
    return context.now - record.changed > limit


def _told(entry: Entry, server: ServerFacts) -> Entry:
    """The entry with why its attempt failed."""
    if entry.phase != "Evacuating":
        return entry if entry.route == ROUTE else replace(entry, message="")
    told = server.failure or server.fault or "Nova shows nothing of it"
    return replace(entry, phase="Pending", message=f"evacuation {entry.attempts} failed: {told}")


def _never(entry: Entry, server: ServerFacts, context: Context) -> Decision | None:
    if server.vm_state in NOT_TO_EVACUATE:
        return end(entry, "Failed", f"not evacuated: {NOT_TO_EVACUATE[server.vm_state]}", context)
    if server.task_state in HALF_COPIED:
        told = (
            f"its disk was being moved ({server.task_state}) when the host died: find the whole copy (UUID and UUID_resize"
            " in the instances folder), put it in place, then `openstack server set --state active` and a new Eviction"
        )
        return end(entry, "Failed", f"not evacuated: {told}", context)
    if not server.launched:
        return end(
            entry, "Failed", "not evacuated: it has never run, and has nothing to bring back: delete it", context
        )
    return None


def _stays(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    """Its host came back before it was evacuated: it stays there.

    Whom nobody asked to evacuate is the agent's, which sees a dead guest. Of the others nobody would know: a nova-compute
    that starts undefines the guest of every evacuation that was asked for, whatever became of it.
    """
    told = f"not evacuated: {context.source} came back before"
    if server.evacuation and server.evacuation.unfinished:
        entry = replace(entry, route=ROUTE)
    if entry.route != ROUTE or entry.vm_state == "stopped":
        return end(entry, "Skipped", told, context)
    if server.task_state in EARLY or (server.task_state in REBUILDING and _ended(server)):
        # What comes late of that request fails on Nova's own comparison of the task.
        return Decision(replace(entry, phase="Pending", message=f"{told}; resetting its task"), "ResetState")
    if server.task_state in REBUILDING:
        return end(entry, "Failed", f"{told}, and Nova is at {server.task_state}: look where it runs", context)
    if server.task_state:
        return Decision(entry)  # our restart, or what its user does
    if server.running:
        return end(replace(entry, target=context.source), "Skipped", f"{told}; it runs there", context)
    if server.running is None:
        return mute(entry, context.source, context, f"{told}, and")
    return _put_right(entry, server, context, "Restarting", "Restart", "hard reboot")


def _helps(entry: Entry, server: ServerFacts) -> str:
    """What would help against the last refusal, when Nova's words do not say it."""
    if _NOT_SHARED in entry.message.lower() and not server.volume_backed:
        return (
            ": no other host sees its disk, and an evacuation would make it anew from its image. Repair the storage and make"
            f" a new Eviction, bring {server.host} back, or give the data up with evacuate_from_image"
        )
    if _EXISTS in entry.message.lower():
        return ": a guest of it is there already (`virsh list`); end it there, then make a new Eviction"
    return ""


def _arrived(entry: Entry, server: ServerFacts, context: Context) -> Decision:
    """It is on another host: it has to be there as it was here."""
    entry = replace(entry, target=server.host or "")
    if server.task_state:
        return wait(entry, f"on {server.host}, Nova is at {server.task_state}")
    if entry.vm_state == "stopped":
        if server.vm_state == "stopped":
            return end(entry, "Succeeded", f"evacuated to {server.host}, stopped as it was", context)
        # Nova starts what was in ERROR, as a stopped server is after an evacuation for which there was no host.
        return _put_right(entry, server, context, "Confirming", "Stop", "stopping it, as it was")
    if server.vm_state == "stopped":
        return end(entry, "Succeeded", f"evacuated to {server.host}, and stopped there since", context)
    if server.running:
        return end(entry, "Succeeded", f"evacuated to {server.host}", context)
    if server.running is None and server.vm_state != "error":
        return mute(entry, server.host, context, f"on {server.host}, which")
    return _put_right(entry, server, context, "Restarting", "Restart", "hard reboot")


def _put_right(entry: Entry, server: ServerFacts, context: Context, phase: str, act: str, doing: str) -> Decision:
    """Try to make it at its target what it was, as often as a restart is tried."""
    if entry.phase != phase:
        entry = replace(entry, attempts=0, message="")
    elif entry.attempts >= context.settings.restart_attempts:
        told = server.fault or f"it is {server.vm_state}, and the guest {'runs' if server.running else 'does not run'}"
        return end(entry, "Failed", f"on {server.host} now, but {told}", context)
    elif backing_off(entry, context):
        return Decision(entry)
    return attempt(entry, ROUTE, phase, f"{doing} on {server.host}", context, act=act)
