# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes as last seen, and what is to be told of them: transitions, clocks that ran out, signs of life.

Pure bookkeeping for the source c5c3.ha.node_conditions: no I/O, both clocks are handed in. Of a Node only `NodeFacts` is
kept. What the engine queues is a token (a `Change` that says which type); its content is taken when it is rendered, so
everything that happens while the rulebook is busy becomes one event.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import parse_time
from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import DELETED, Change, Known, identify

TRANSITION, OVERDUE, RETURNED, INIT_DONE, HEARTBEAT = "TRANSITION", "OVERDUE", "RETURNED", "INIT_DONE", "HEARTBEAT"
READY, NOT_READY, UNREACHABLE = "Ready", "NotReady", "Unreachable"
PROBLEMS = ("DiskPressure", "MemoryPressure", "PIDPressure", "NetworkUnavailable")

# Of so many Nodes one event tells at most; further transitions follow in the next one.
LIMIT = 1000
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is kept of a Node.

    :ivar ready: status of its condition Ready: True, False or Unknown.
    :ivar since: lastTransitionTime of Ready as written, the Node's creation where it has none.
    :ivar problems: (condition, lastTransitionTime) of each other condition that is True.
    :ivar deleting: it has a deletionTimestamp.
    """

    uid: str
    ready: str
    since: str
    reason: str
    problems: tuple[tuple[str, str], ...] = ()
    deleting: bool = False
    zone: str = ""

    @property
    def state(self) -> str:
        """Ready, NotReady (the kubelet says so) or Unreachable (the kubelet says nothing)."""
        return {"True": READY, "False": NOT_READY}.get(self.ready, UNREACHABLE)

    def same(self, other: NodeFacts) -> bool:
        """Whether nothing that is told differs."""
        return self._told() == other._told()

    def _told(self) -> tuple:
        return (self.uid, self.ready, self.since, self.problems, self.deleting)


def _text(value: object) -> str:
    return sys.intern(str.__str__(value)) if isinstance(value, str) else ""


def node_facts(obj: dict, problems: Iterable[str] = PROBLEMS) -> NodeFacts:
    """Return what is kept of a Node; what has a wrong shape counts as not there."""
    metadata, status = obj.get("metadata") or {}, obj.get("status")
    listed = status.get("conditions") if isinstance(status, dict) else None
    conditions: dict[str, dict] = {}
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and isinstance(item.get("type"), str):
            conditions.setdefault(item["type"], item)
    ready = conditions.get("Ready") or {}
    labels = metadata.get("labels")
    return NodeFacts(
        uid=_text(metadata.get("uid")),
        ready=_text(ready.get("status")) or "Unknown",
        since=_text(ready.get("lastTransitionTime")) or _text(metadata.get("creationTimestamp")),
        reason=_text(ready.get("reason"))[:256],
        problems=tuple(
            (sys.intern(kind), _text(conditions[kind].get("lastTransitionTime")))
            for kind in problems
            if (conditions.get(kind) or {}).get("status") == "True"
        ),
        deleting=bool(metadata.get("deletionTimestamp")),
        zone=_text(labels.get(ZONE))[:63] if isinstance(labels, dict) else "",
    )


@dataclass(frozen=True)
class NodeOptions:
    """What the source tells, and when.

    :ivar not_ready_seconds: a Node that is NotReady for so long is overdue.
    :ivar unreachable_seconds: the same for Unreachable.
    :ivar return_seconds: a Node that is Ready again for so long has returned; 0 never tells that.
    :ivar heartbeat_seconds: 0 for none.
    :ivar join_window: transitions within so many seconds are one event.
    """

    not_ready_seconds: float = 300.0
    unreachable_seconds: float = 60.0
    return_seconds: float = 120.0
    heartbeat_seconds: float = 30.0
    join_window: float = 0.2
    problems: tuple[str, ...] = PROBLEMS

    def seconds(self, facts: NodeFacts) -> float | None:
        """From a Node's lastTransitionTime to what is told of it; None when nothing will be."""
        if facts.state == READY:
            return self.return_seconds or None
        return self.not_ready_seconds if facts.state == NOT_READY else self.unreachable_seconds


class Spacing:
    """When something may be told: `window` after it came up, and while more comes up each time twice as late.

    :param gap: seconds between the first and the second of a row; the most is `longest`.
    """

    def __init__(self, window: float, gap: float = 0.2, longest: float = 2.0) -> None:
        self._window = window
        self._first = self._gap = max(gap, window)
        self._longest = longest
        self._last = float("-inf")

    def at(self, came_up: float) -> float:
        """Return when what came up then may be told."""
        return max(came_up + self._window, self._last + self._gap)

    def told(self, now: float) -> None:
        """Take note that something was told."""
        quiet = now - self._last > 2 * self._longest
        self._gap = self._first if quiet else min(self._gap * 2, self._longest)
        self._last = now


@dataclass(slots=True)
class _Entry:
    """A Node: as it is (None: gone), as it was last told (None: never), and when its clock runs out (time of day)."""

    now: NodeFacts | None
    told: NodeFacts | None
    due: float | None = None


class Tokens:
    """What waits to be told: each type at most once, in order. In place of an `Outbox`."""

    def __init__(self) -> None:
        self._waiting: dict[tuple, Change] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, change: Change) -> None:
        """Append, unless one of its type waits."""
        self._waiting.setdefault((id(change.source), change.type), change)

    def take(self) -> Change:
        """Remove and return the first."""
        return self._waiting.pop(next(iter(self._waiting)))

    def put_back(self, change: Change) -> None:
        """Return one that could not be told to the front."""
        self._waiting = {(id(change.source), change.type): change, **self._waiting}

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()


class KnownNodes(Known):
    """The Nodes as last seen; has the interface of `Known`.

    :param wall: the time of day in seconds since the epoch, with which lastTransitionTime is compared.
    """

    def __init__(
        self, resource, options: NodeOptions, resync_seconds: float, wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__(resource, lambda obj: False, resync_seconds)
        self.options = options
        self.connected = False
        self._wall = wall
        self._nodes: dict[str, _Entry] = {}
        self._pending: dict[str, None] = {}
        self._came_up: float | None = None  # when the first of `_pending` was noticed by `due`
        self._clocks: list[tuple[float, str]] = []  # a heap; one that is not its Node's present `due` is void
        self._late: dict[str, None] = {}  # overdue
        self._late_untold: set[str] = set()
        self._offset = 0.0  # time of day minus the engine's clock
        self._hold_until = float("-inf")
        self._spacing = {TRANSITION: Spacing(options.join_window), OVERDUE: Spacing(0.0), RETURNED: Spacing(0.0)}
        self._queued: set[str] = set()
        self._overdue_again: float | None = None
        self._heartbeat_due: float | None = None
        self._returned: dict[str, None] = {}
        self._content: dict[str, dict[str, NodeFacts | None]] = {}  # of the event that is on its way, by type

    def __len__(self) -> int:
        return sum(entry.now is not None for entry in self._nodes.values())

    # --- what the watcher tells -----------------------------------------------------------------------------------

    def slim(self, obj: dict) -> dict:
        """Return identity and `NodeFacts` of a Node."""
        identity = identify(obj)
        if identity is None:
            return {}
        (namespace, name), uid, version = identity
        metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version}
        return {"metadata": metadata, "facts": node_facts(obj, self.options.problems)}

    def listed(self, items: Iterable[object], only_unfinished: bool = False) -> list[Change]:
        """Take a complete list; of the first one nothing is told but INIT_DONE with what is not well."""
        seen = set()
        for obj in items:
            if identify(obj) is None:
                self.malformed += 1
                continue
            name = obj["metadata"]["name"]
            seen.add(name)
            self._put(name, obj["facts"])
        for name in [name for name, entry in self._nodes.items() if name not in seen and entry.now is not None]:
            self._put(name, None)
        if self.listed_once:
            return []
        self.listed_once = True
        self._level()
        return [self._token(INIT_DONE)]

    def watched(self, kind: str, obj: object) -> list[Change]:
        """Take one event of the watch."""
        if identify(obj) is None or "facts" not in obj:
            self.malformed += 1
            return []
        name, facts = obj["metadata"]["name"], obj["facts"]
        if kind == DELETED:
            known = self._nodes.get(name)
            if known is None or known.now is None or (facts.uid and known.now.uid and facts.uid != known.now.uid):
                return []
        self._put(name, None if kind == DELETED else facts)
        return []

    def postpone(self, until: float) -> None:
        """Tell of no clock before then: after an interruption the changes missed must come first."""
        self._hold_until = until

    def _put(self, name: str, facts: NodeFacts | None) -> None:
        entry = self._nodes.get(name)
        if entry is None:
            if facts is None:
                return
            entry = self._nodes[name] = _Entry(None, None)
        elif facts is not None and entry.now is not None and facts.same(entry.now):
            return
        entry.now = facts
        self._set_clock(name, entry)
        told = entry.told
        if (told is None and facts is None) or (told is not None and facts is not None and told.same(facts)):
            self._pending.pop(name, None)
            if facts is None:
                del self._nodes[name]  # nobody has heard of it
        else:
            self._pending[name] = None
        self.wake()

    def _set_clock(self, name: str, entry: _Entry) -> None:
        self._returned.pop(name, None)
        self._late.pop(name, None)
        self._late_untold.discard(name)
        entry.due = None
        seconds = self.options.seconds(entry.now) if entry.now is not None else None
        if seconds is None:
            return
        seen = self._wall()
        # What we see has happened, whatever the other's clock says.
        entry.due = min(_since(entry.now, seen), seen) + seconds
        if entry.now.state != READY or entry.due > seen:
            heapq.heappush(self._clocks, (entry.due, name))

    def _level(self) -> None:
        """Take everything as told, and every clock as not: INIT_DONE says what is not well."""
        for name in [name for name, entry in self._nodes.items() if entry.now is None]:
            del self._nodes[name]
        for entry in self._nodes.values():
            entry.told = entry.now
        self._pending.clear()
        self._queued.clear()
        self._content.clear()
        self._late_untold = set(self._late)
        self._returned.clear()
        self._came_up = self._overdue_again = None

    # --- what the engine asks -------------------------------------------------------------------------------------

    def unfinished(self) -> list[Change]:
        """What a new holder of the Lease starts with."""
        self._level()
        return [self._token(INIT_DONE)]

    def due(self, now: float, connected: bool = True) -> list[Change]:
        """Return a token for each type of which something is to be told now."""
        self.connected = connected
        self._offset = self._wall() - now
        changes: list[Change] = []
        beat = self.options.heartbeat_seconds
        if beat:
            if self._heartbeat_due is None:
                self._heartbeat_due = now + beat
            elif now >= self._heartbeat_due and HEARTBEAT not in self._queued:
                self._heartbeat_due = now + beat
                changes.append(self._token(HEARTBEAT))
        if not connected or not self.listed_once:
            return changes
        if self._pending and self._came_up is None:
            self._came_up = now
        if self._pending and TRANSITION not in self._queued and now >= self._spacing[TRANSITION].at(self._came_up):
            changes.append(self._token(TRANSITION))
        if now >= self._hold_until:
            changes += self._due_clocks(now)
        return changes

    def _due_clocks(self, now: float) -> list[Change]:
        while self._clocks and self._clocks[0][0] - self._offset <= now:
            due, name = heapq.heappop(self._clocks)
            entry = self._nodes.get(name)
            if entry is None or entry.now is None or entry.due != due:
                continue
            if entry.now.state == READY:
                self._returned[name] = None
            elif name not in self._late:
                self._late[name] = None
                self._late_untold.add(name)
        if not self._late:
            self._overdue_again = None
        new = self._late_untold and now >= self._spacing[OVERDUE].at(now)
        again = self._overdue_again is not None and now >= self._overdue_again
        changes = []
        if (new or again) and OVERDUE not in self._queued:
            changes.append(self._token(OVERDUE))
        if self._returned and RETURNED not in self._queued and now >= self._spacing[RETURNED].at(now):
            changes.append(self._token(RETURNED))
        return changes

    def next_due(self, connected: bool = True) -> float | None:
        """Return the earliest time at which `due` has something, or None."""
        times = []
        if HEARTBEAT not in self._queued and self._heartbeat_due is not None:
            times.append(self._heartbeat_due)
        if connected and self.listed_once:
            if self._pending and TRANSITION not in self._queued:
                times.append(self._spacing[TRANSITION].at(self._came_up) if self._came_up is not None else 0.0)
            times += [max(at, self._hold_until) for at in self._next_clocks()]
        return min(times, default=None)

    def _next_clocks(self) -> list[float]:
        times = [self._clocks[0][0] - self._offset] if self._clocks else []
        if OVERDUE not in self._queued:
            if self._late_untold:
                times.append(self._spacing[OVERDUE].at(float("-inf")))
            if self._overdue_again is not None:
                times.append(self._overdue_again)
        if self._returned and RETURNED not in self._queued:
            times.append(self._spacing[RETURNED].at(float("-inf")))
        return times

    def delivered(self, change: Change, now: float) -> None:
        """Take note that an event was taken, or that there was nothing left to tell."""
        self._queued.discard(change.type)
        content = self._content.pop(change.type, {})
        if content and change.type in self._spacing:
            self._spacing[change.type].told(now)
        if change.type == TRANSITION:
            self._came_up = None
            for name, facts in content.items():
                self._note_told(name, facts)
        elif change.type == OVERDUE:
            self._late_untold -= {name for name, facts in content.items() if self._is(name, facts)}
            self._overdue_again = now + self.resync_seconds if self.resync_seconds and content else None
        elif change.type == RETURNED:
            for name in content:
                self._returned.pop(name, None)
        self.wake()

    def _is(self, name: str, facts: NodeFacts | None) -> bool:
        entry = self._nodes.get(name)
        return entry is not None and entry.now is facts

    def _note_told(self, name: str, facts: NodeFacts | None) -> None:
        entry = self._nodes.get(name)
        if entry is None:
            return
        entry.told = facts
        if entry.now is facts:
            self._pending.pop(name, None)
            if entry.now is None:
                del self._nodes[name]

    def _token(self, kind: str) -> Change:
        if kind != INIT_DONE:
            self._queued.add(kind)
        return Change(kind, self, None)

    # --- events ---------------------------------------------------------------------------------------------------

    def event(self, kind: str) -> dict | None:
        """Return the event of a type as of now; None when nothing is left to tell. docs/events.md describes it."""
        states = {READY: 0, NOT_READY: 0, UNREACHABLE: 0}
        for entry in self._nodes.values():
            if entry.now is not None:
                states[entry.now.state] += 1
        event = {
            "type": kind,
            "kind": "Node",
            "total": sum(states.values()),
            "ready": states[READY],
            "not_ready": states[NOT_READY],
            "unreachable": states[UNREACHABLE],
        }
        if kind == HEARTBEAT:
            return {**event, "connected": self.connected}
        names = self._names(kind)
        if not names and kind != INIT_DONE:
            return None
        told = names[:LIMIT]
        # OVERDUE tells a level, the others differences: what is over the limit there has to follow.
        self._content[kind] = {name: self._nodes[name].now for name in (names if kind == OVERDUE else told)}
        return {
            **event,
            "count": len(names),
            "names": told,
            "nodes": [self._shown(name, kind) for name in told],
        }

    def _names(self, kind: str) -> list[str]:
        if kind == TRANSITION:
            return list(self._pending)
        if kind == RETURNED:
            return list(self._returned)
        if kind == OVERDUE:
            return sorted(self._late, key=lambda name: (self._nodes[name].due, name))
        return [
            name
            for name, entry in self._nodes.items()
            if entry.now is not None and (entry.now.state != READY or entry.now.problems or entry.now.deleting)
        ]

    def _shown(self, name: str, kind: str) -> dict:
        entry = self._nodes[name]
        facts = entry.now or entry.told
        shown = {
            "name": name,
            "uid": facts.uid,
            "zone": facts.zone,
            "state": facts.state,
            "since": facts.since,
            "reason": facts.reason,
            "problems": [problem for problem, _since_ in facts.problems],
            "deleting": facts.deleting,
            "deleted": entry.now is None,
        }
        if kind == TRANSITION:
            shown["changed"] = changed(entry.told, entry.now)
        elif kind in (OVERDUE, RETURNED):
            shown["due"] = round(entry.due, 3)
        return shown


def changed(before: NodeFacts | None, after: NodeFacts | None) -> list[dict]:
    """Return the transitions between two looks at a Node; none for one that came or went.

    A Node that was made anew under its name is compared with its predecessor.
    """
    if before is None or after is None:
        return []
    result = []
    if (before.ready, before.since) != (after.ready, after.since):
        result.append({"condition": "Ready", "previous": before.ready, "status": after.ready, "since": after.since})
    old, new = dict(before.problems), dict(after.problems)
    for kind in [*new, *(kind for kind in old if kind not in new)]:
        if old.get(kind) != new.get(kind):
            was, is_ = kind in old, kind in new
            result.append({"condition": kind, "previous": str(was), "status": str(is_), "since": new.get(kind) or ""})
    return result


def _since(facts: NodeFacts, otherwise: float) -> float:
    try:
        return parse_time(facts.since).timestamp()
    except ArgumentError:
        return otherwise


def render(change: Change) -> dict | None:
    """Return the event of a token, None when there is nothing left to tell."""
    return change.source.event(change.type)
