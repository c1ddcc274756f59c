# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One fault, one event: joins what libvirt tells several times. Pure: the caller says what time it is.

Row by row, and why nothing that matters is lost or late:

- A death (STOPPED for no benign reason, CRASHED) is never held, and never dropped for a likeness with another event. The
  one exception: STOPPED/CRASHED after CRASHED of the same run is the same death told before (on_crash=destroy), since a
  domain cannot die twice without a start between; it is dropped however long a core dump took.
- REBOOT: libvirt sends one to three for one reset. Held for the window and counted; the reaction to a reboot is to check
  later that the guest runs, so half a second is harmless. Each further one begins the window anew, so that a storm is one
  event, but not beyond four windows from the first, so that a boot loop cannot push its report away for ever.
- IO_ERROR, IO_ERROR_REASON and SUSPENDED/IOERROR: one io_error, held for the window so that it carries the reason, and so
  that a disk that fails a thousand times a second makes two events a second. Nothing can be done about it faster anyway.
- WATCHDOG and what its action brings: PAUSE waits for SUSPENDED/WATCHDOG (milliseconds), RESET swallows its REBOOTs. With
  a death following (POWEROFF ends in STOPPED/FAILED) the death goes out at once, carries ``watchdog`` with the action, and
  replaces the watchdog event: two rows acting on one guest at once would fight. Actions that change nothing go out at once.
- A SUSPENDED/IOERROR or /WATCHDOG whose partner never comes goes out by itself at the end of the window.
- Everything else goes out at once.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.translate import is_death

Event = dict[str, Any]
# SUSPENDED details that another event explains
_EXPLAINED_BY = {"IOERROR": "io_error", "WATCHDOG": "watchdog"}
_WATCHDOG_CHANGES = frozenset(("PAUSE", "RESET", "POWEROFF", "SHUTDOWN"))
# A stream of reboots is one for so many windows.
_LONGEST = 4
_STARTS = frozenset(("STARTED", "RESUMED", "UNDEFINED"))


class _Held:
    """An event that waits for its duplicates."""

    __slots__ = ("event", "latest", "plain", "reasoned", "until")

    def __init__(self, event: Event, until: float, latest: float = 0.0) -> None:
        self.event = event
        self.until = until
        self.latest = latest  # reboot only: it is held no longer than this
        self.plain = self.reasoned = 0  # io_error only: how many came of either variant

    def count_error(self, has_reason: bool) -> None:
        """Count an I/O error; libvirt tells each one in both variants, so the larger number is the true one."""
        if has_reason:
            self.reasoned += 1
        else:
            self.plain += 1
        self.event["errors"] = max(self.plain, self.reasoned)


class Joiner:
    """Joins duplicates of one fault.

    :param window: seconds that a held event waits for its duplicates; 0 joins only what needs no waiting.
    """

    def __init__(self, window: float) -> None:
        self.window = window
        # (uuid, what) -> held event
        self._held: dict[tuple[str, ...], _Held] = {}
        self._crashed: set[str] = set()

    def add(self, event: Event, now: float) -> list[Event]:
        """Take one event as it came from libvirt; return what is to be told now, in order.

        :param now: seconds of a monotonic clock.
        """
        kind = event["event"]
        if kind == "lifecycle":
            return self._lifecycle(event, now)
        if kind == "reboot":
            return self._reboot(event, now)
        if kind == "io_error":
            return self._io_error(event, now)
        if kind == "watchdog" and event["action"] in _WATCHDOG_CHANGES:
            return self._watchdog(event, now)
        return [event]

    def next_due(self) -> float | None:
        """When ``due`` will have something to tell; None when nothing is held."""
        return min((held.until for held in self._held.values()), default=None)

    def due(self, now: float) -> list[Event]:
        """What has waited long enough."""
        keys = [key for key, held in self._held.items() if held.until <= now]
        return [self._held.pop(key).event for key in keys]

    def flush(self) -> list[Event]:
        """Everything held, when the connection is gone and no duplicate can come."""
        self._crashed.clear()
        return self.due(float("inf"))

    def _hold(self, key: tuple[str, ...], event: Event, now: float) -> list[Event]:
        if self.window <= 0:
            return [event]
        self._held[key] = _Held(event, now + self.window, now + _LONGEST * self.window)
        return []

    def _absorb(self, into: Event, event: Event) -> None:
        into["count"] += event["count"]
        into["occurred_at"] = max(into["occurred_at"], event["occurred_at"])

    def _release(self, uuid: str, *kinds: str) -> list[Event]:
        """Stop holding the domain's events of these kinds (all without kinds), so that order is kept."""
        keys = [key for key in self._held if key[0] == uuid and (not kinds or key[1] in kinds)]
        return [self._held.pop(key).event for key in keys]

    def _lifecycle(self, event: Event, now: float) -> list[Event]:
        uuid, action, detail = event["uuid"], event["action"], event["detail"]
        if action == "SUSPENDED" and detail in _EXPLAINED_BY:
            return self._suspended(event, now)
        if action in _STARTS:
            self._crashed.discard(uuid)
            # not reboot: RESUMED comes between the REBOOTs of one reset
            return [*self._release(uuid, "io_error", "watchdog", "suspended"), event]
        if action in ("STOPPED", "CRASHED"):
            return self._ended(event)
        return [event]

    def _ended(self, event: Event) -> list[Event]:
        uuid = event["uuid"]
        told_before = event["action"] == "STOPPED" and event["detail"] == "CRASHED" and uuid in self._crashed
        if event["action"] == "CRASHED":
            self._crashed.add(uuid)
        else:
            self._crashed.discard(uuid)
        watchdog = self._held.pop((uuid, "watchdog"), None) if is_death(event) else None
        before = self._release(uuid)
        if watchdog and told_before:
            before.append(watchdog.event)
        elif watchdog:
            self._absorb(event, watchdog.event)
            event["watchdog"] = watchdog.event["action"]
        return before if told_before else [*before, event]

    def _suspended(self, event: Event, now: float) -> list[Event]:
        uuid, partner = event["uuid"], _EXPLAINED_BY[event["detail"]]
        for key, held in self._held.items():
            if key[0] == uuid and key[1] == partner:
                self._absorb(held.event, event)
                # a paused guest fires no watchdog again, so the set is complete; I/O errors of requests in flight may follow
                return self._release(uuid, "watchdog") if partner == "watchdog" else []
        key = (uuid, "suspended", event["detail"])
        if key in self._held:
            self._absorb(self._held[key].event, event)
            return []
        return self._hold(key, event, now)

    def _reboot(self, event: Event, now: float) -> list[Event]:
        uuid = event["uuid"]
        watchdog = self._held.get((uuid, "watchdog"))
        if watchdog and watchdog.event["action"] == "RESET":
            self._absorb(watchdog.event, event)
            return []
        held = self._held.get((uuid, "reboot"))
        if held:
            self._absorb(held.event, event)
            held.until = min(now + self.window, held.latest)
            return []
        return self._hold((uuid, "reboot"), event, now)

    def _watchdog(self, event: Event, now: float) -> list[Event]:
        uuid, action = event["uuid"], event["action"]
        held = self._held.get((uuid, "watchdog"))
        if held and held.event["action"] == action:
            self._absorb(held.event, event)
            return []
        before = self._release(uuid, "watchdog")
        if action == "PAUSE" and (suspended := self._held.pop((uuid, "suspended", "WATCHDOG"), None)):
            self._absorb(event, suspended.event)
            return [*before, event]
        if action == "RESET" and (reboot := self._held.pop((uuid, "reboot"), None)):
            self._absorb(event, reboot.event)
        return [*before, *self._hold((uuid, "watchdog"), event, now)]

    def _io_error(self, event: Event, now: float) -> list[Event]:
        uuid, has_reason = event["uuid"], "reason" in event
        reason = event.setdefault("reason", "")
        if self.window <= 0:
            return [event]
        # One event per disk and outcome. The plain variant and the one with the reason name the same disk.
        key = (uuid, "io_error", event["device"], event["path"], event["action"])
        held = self._held.get(key)
        if held and reason and held.event["reason"] not in ("", reason):
            # the same disk fails for another reason now: that is news of its own
            key += (reason,)
            held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(event, now + self.window)
            if suspended := self._held.pop((uuid, "suspended", "IOERROR"), None):
                self._absorb(event, suspended.event)
        else:
            self._absorb(held.event, event)
            held.event["reason"] = held.event["reason"] or reason
        held.count_error(has_reason)
        return []
