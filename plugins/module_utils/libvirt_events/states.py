# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every domain of one connection was last known to be, and what libvirt's own answer reveals. Pure.

A libvirt event is told once, to those who are connected. What happened while nobody was, is found by comparing all domains
at every connect, and again with every heartbeat: edges for speed, levels for truth. One row per domain:

- believed active, found shut off for no benign reason: it died meanwhile. Told once, as lifecycle STOPPED.
- a death that was told, and the domain is still dead: not told again while the connection lasts. Told again, with the time
  at which it was seen dead, at every new connection: it may have been restarted and have died again while nobody looked,
  and the one who should have acted may have been killed. Who acted before sees by the time whether it is news.
- shut off with reason UNKNOWN (libvirtd lost its memory: it restarted, or the host did): a death if it was believed active,
  or is new here and persistent at a connect; not if it was seen stopped before, or is new at a heartbeat: just defined.
- gone altogether: Nova undefines on purpose what it deletes and what it has migrated away. Noted, never told as a death.
- paused by an I/O error, by a watchdog, by a crash: told as that row, by the same rules.
- still paused by an I/O error: told again every now and then, since somebody has to see that it persists, or has healed.

Wrong in doubt on the side of telling: a domain told in vain costs a question to Nova, one not told costs a VM.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.translate import BENIGN_STOPS

Event = dict[str, Any]

# virDomainState
_RUNNING, _PAUSED, _SHUTOFF, _CRASHED = 1, 3, 5, 6
# virDomainShutoffReason
SHUTOFF_REASONS = (
    "UNKNOWN",
    "SHUTDOWN",
    "DESTROYED",
    "CRASHED",
    "MIGRATED",
    "SAVED",
    "FAILED",
    "FROM_SNAPSHOT",
    "DAEMON",
)
# virDomainPausedReason
_PAUSED_IOERROR, _PAUSED_WATCHDOG, _PAUSED_CRASHED = 5, 6, 10

# FAILED is stopped as well, but not on purpose. These words stand in the state file.
ACTIVE, STOPPED, FAILED = "active", "stopped", "failed"
_CHANGES = frozenset(("STARTED", "STOPPED", "SUSPENDED", "RESUMED", "CRASHED"))


class Listed(NamedTuple):
    """One domain in libvirt's own answer."""

    uuid: str
    name: str
    state: int
    reason: int
    persistent: bool


class Fault(NamedTuple):
    """What is wrong with a domain."""

    event: str
    action: str
    detail: str  # empty where the event has none


class _Domain:
    """What is known of one domain."""

    __slots__ = ("fault", "fault_told", "has_run", "incoming", "iteration", "name", "state", "told_by_comparison")

    def __init__(self, name: str, state: str, fault: Fault | None = None) -> None:
        self.name = name
        self.state = state
        self.fault = fault
        # Arrives by migration and has not run here yet. RESUMED says that it runs; it comes before or after STARTED.
        self.incoming = self.has_run = False
        # A comparison told its end; libvirt's own event about it may still be under way.
        self.told_by_comparison = False
        # When the fault was told last (seconds of any clock); None: by an event, the next comparison sets it.
        self.fault_told: float | None = None
        # How far its outgoing migration was; 0 without one.
        self.iteration = 0


class Domains:
    """Memory of one connection's domains.

    :param remembered: what :meth:`memory` gave an earlier process; None when there is no such memory.
    :param retell: seconds after which a guest that an I/O error keeps suspended is told again.
    """

    def __init__(self, remembered: dict[str, str] | None = None, retell: float = float("inf")) -> None:
        self._retell = retell
        self._domains = {uuid: _Domain("", state) for uuid, state in (remembered or {}).items()}
        self._changed_since_listing: set[str] = set()
        # Whose fault the last comparison told, although it was told before.
        self.lasting: set[str] = set()
        self.dirty = False

    # -- what is known

    def memory(self) -> dict[str, str]:
        """State of every domain by UUID: ``active``, ``stopped``, or ``failed`` when it stopped by dying."""
        return {uuid: domain.state for uuid, domain in self._domains.items()}

    def instances(self) -> list[dict[str, Any]]:
        """``id``, ``name`` and ``active`` of every domain, by name."""
        rows = [
            {"id": uuid, "name": domain.name, "active": domain.state == ACTIVE}
            for uuid, domain in self._domains.items()
        ]
        return sorted(rows, key=lambda row: (row["name"], row["id"]))

    # -- edges

    def observe(self, event: Event) -> bool:
        """Learn from one event as libvirt sent it.

        :returns: False when a comparison has told this death already, so that it must not be told again, and for a further
            iteration of a migration that was told of.
        """
        kind, uuid = event["event"], event["uuid"]
        domain = self._domains.get(uuid)
        if kind == "lifecycle":
            return self._observe_lifecycle(event, domain)
        if kind == "migration_iteration" and domain is not None:
            before, domain.iteration = domain.iteration, event["iteration"]
            return not 0 < before < event["iteration"]
        if kind == "job_completed" and domain is not None:
            domain.iteration = 0
        if domain is not None and event.get("action") == "PAUSE":
            if kind == "io_error":
                self._set(uuid, domain, ACTIVE, Fault("io_error", "PAUSE", ""))
            elif kind == "watchdog":
                self._set(uuid, domain, ACTIVE, Fault("watchdog", "PAUSE", ""))
        return True

    def _observe_lifecycle(self, event: Event, domain: _Domain | None) -> bool:
        uuid, action, detail = event["uuid"], event["action"], event["detail"]
        if action == "UNDEFINED":
            # A running domain that is undefined lives on as a transient one, until it stops.
            if domain is not None and domain.state != ACTIVE:
                del self._domains[uuid]
                self.dirty = True
            return True
        if domain is None:
            domain = self._domains[uuid] = _Domain(event["domain"], STOPPED)
            self.dirty = True
        domain.name = event["domain"]
        if action in _CHANGES:
            self._changed_since_listing.add(uuid)
        if action in ("STARTED", "STOPPED", "RESUMED"):
            # SUSPENDED is part of a migration; RESUMED at its source is the end of one that failed
            domain.iteration = 0
        if action == "STARTED":
            domain.incoming = detail == "MIGRATED" and not domain.has_run
            domain.told_by_comparison = False
            self._set(uuid, domain, ACTIVE, None)
        elif action == "RESUMED":
            domain.incoming, domain.has_run = False, True
            self._set(uuid, domain, ACTIVE, None)
        elif action == "CRASHED":
            if domain.told_by_comparison:
                # the comparison was quicker, and has seen the end of the same run
                return False
            self._set(uuid, domain, ACTIVE, Fault("lifecycle", action, detail))
        elif action == "STOPPED":
            return self._observe_stopped(event, domain)
        return True

    def _observe_stopped(self, event: Event, domain: _Domain) -> bool:
        uuid, detail = event["uuid"], event["detail"]
        incoming, domain.incoming, domain.has_run = domain.incoming, False, False
        if detail in BENIGN_STOPS:
            domain.told_by_comparison = False
            self._set(uuid, domain, STOPPED, None)
            return True
        if incoming:
            # A failed incoming migration: the guest never ran here and goes on at its source. Remembered as told, so that
            # the next comparison does not take the reason FAILED for a death.
            event["incoming"] = True
            self._set(uuid, domain, FAILED, Fault("lifecycle", "STOPPED", detail))
            return True
        if domain.told_by_comparison:
            domain.told_by_comparison = False
            self._set(uuid, domain, FAILED, Fault("lifecycle", "STOPPED", detail))
            return False
        self._set(uuid, domain, FAILED, Fault("lifecycle", "STOPPED", detail))
        return True

    def _set(self, uuid: str, domain: _Domain, state: str, fault: Fault | None) -> None:
        if fault != domain.fault:
            domain.fault_told = None
        domain.fault = fault
        if domain.state != state:
            domain.state = state
            self.dirty = True

    # -- levels

    def begin_listing(self) -> None:
        """Call before libvirt is asked: a domain that changes from here on is newer than the answer."""
        self._changed_since_listing.clear()

    def begin_connection(self) -> None:
        """Call before the events of a new connection are subscribed to, instead of :meth:`begin_listing`."""
        self.begin_listing()
        for domain in self._domains.values():
            # what was under way on the old connection is lost, a start among it
            domain.told_by_comparison = domain.incoming = domain.has_run = False
            domain.iteration = 0

    def compare(
        self, listing: Iterable[Listed], occurred_at: str, *, connected: bool = False, now: float = 0.0
    ) -> tuple[list[Event], list[str]]:
        """Learn from libvirt's answer about all domains.

        :param occurred_at: when libvirt was asked, the time of what is found.
        :param connected: the connection is new: events may have been missed.
        :param now: seconds of any clock.
        :returns: synthetic events to tell, and sentences for the log.
        """
        events: list[Event] = []
        notes: list[str] = []
        gone = set(self._domains)
        self.lasting.clear()
        for listed in listing:
            gone.discard(listed.uuid)
            if listed.uuid in self._changed_since_listing:
                continue
            fault = self._compare_one(listed, connected, now)
            if fault is not None:
                events.append(_synthetic(listed, fault, occurred_at))
        for uuid in sorted(gone - self._changed_since_listing):
            domain = self._domains.pop(uuid)
            self.dirty = True
            if domain.state == ACTIVE or (connected and domain.state == FAILED):
                notes.append(
                    f"domain {uuid} {domain.name} was last seen {domain.state} and is gone, undefined or migrated away"
                    " while nobody was connected: not told as a death"
                )
        return events, notes

    def _compare_one(self, listed: Listed, connected: bool, now: float) -> Fault | None:
        """What is to be told about the domain."""
        known = self._domains.get(listed.uuid)
        domain = known or _Domain(listed.name, "")
        self._domains[listed.uuid] = domain
        domain.name = listed.name
        found = _fault_of(listed, domain, known is None, connected)
        if listed.state == _RUNNING:
            domain.incoming, domain.has_run = False, True
        before = domain.fault
        if listed.state != _SHUTOFF:
            state = ACTIVE
        else:
            state = FAILED if found else STOPPED
        self._set(listed.uuid, domain, state, found)
        if found is None or (not connected and before and _same(before, found) and not self._due(domain, now)):
            return None
        if before and _same(before, found):
            self.lasting.add(listed.uuid)
        domain.fault_told = now
        domain.told_by_comparison = found.action == "STOPPED"
        return found

    def _due(self, domain: _Domain, now: float) -> bool:
        """Whether a fault that lasts is to be told again: one that may heal, or turn out to persist."""
        if domain.fault is None or domain.fault.event != "io_error":
            return False
        if domain.fault_told is None:
            domain.fault_told = now
        return now - domain.fault_told >= self._retell


def _same(before: Fault, found: Fault) -> bool:
    """Whether what is found was told before: the same, or the end of a guest whose crash was (on_crash=destroy)."""
    ended = before.action == "CRASHED" and found[:3] == ("lifecycle", "STOPPED", "CRASHED")
    return before[:2] == found[:2] or ended


def _fault_of(listed: Listed, domain: _Domain, is_new: bool, connected: bool) -> Fault | None:
    """What libvirt's answer says is wrong with the domain."""
    if listed.state == _PAUSED:
        if listed.reason == _PAUSED_IOERROR:
            return Fault("io_error", "PAUSE", "")
        if listed.reason == _PAUSED_WATCHDOG:
            return Fault("watchdog", "PAUSE", "")
        if listed.reason == _PAUSED_CRASHED:
            return Fault("lifecycle", "CRASHED", "PANICKED")
        return None
    if listed.state == _CRASHED:
        return Fault("lifecycle", "CRASHED", "PANICKED")
    if listed.state != _SHUTOFF:
        return None
    reason = SHUTOFF_REASONS[listed.reason] if 0 <= listed.reason < len(SHUTOFF_REASONS) else "UNKNOWN"
    if reason in BENIGN_STOPS:
        return None
    # New while the connection lasts: just defined, not started yet, and the event that tells of it still under way.
    if reason == "UNKNOWN" and (domain.state == STOPPED or (is_new and not (connected and listed.persistent))):
        return None
    # DAEMON: libvirtd gave the domain up when it reconnected to its QEMU
    return Fault("lifecycle", "STOPPED", "FAILED" if reason == "DAEMON" else reason)


def _synthetic(listed: Listed, fault: Fault, occurred_at: str) -> Event:
    """The event that tells a fault which no callback told."""
    event = {
        "event": fault.event,
        "uuid": listed.uuid,
        "domain": listed.name,
        "occurred_at": occurred_at,
        "synthetic": True,
        "count": 1,
        "action": fault.action,
    }
    if fault.event == "lifecycle":
        event["detail"] = fault.detail
    elif fault.event == "io_error":
        event.update(path="", device="", reason="", errors=1)
    return event
