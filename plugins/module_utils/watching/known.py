# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the objects of one kind, and what changed. Pure bookkeeping: no I/O, time is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

ADDED, MODIFIED, DELETED, RESYNC, INIT_DONE = "ADDED", "MODIFIED", "DELETED", "RESYNC", "INIT_DONE"

Key = tuple[str, str]  # namespace (empty for cluster scope), name


@dataclass(frozen=True)
class Change:
    """One thing to tell.

    :param type: ADDED, MODIFIED, DELETED, RESYNC or INIT_DONE.
    :param source: the `Known` it comes from, which knows the resource type.
    :param key: namespace and name; None for INIT_DONE.
    :param obj: the object as last seen, an empty dict for INIT_DONE.
    :param initial: seen in a list, or told anew when the Lease was gained.
    :param count: INIT_DONE only: number of objects known then.
    :param changed: with chosen fields, which of them differ from what was told before.
    """

    type: str
    source: Known
    key: Key | None
    obj: dict = field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""
    finished: bool = False
    initial: bool = False
    count: int = 0
    changed: tuple[str, ...] = ()


@dataclass
class _Entry:
    uid: str
    resource_version: str
    finished: bool
    obj: dict
    due: float | None = None  # when to send it again; None while it is on its way or finished


def identify(obj: object) -> tuple[Key, str, str] | None:
    """Return ((namespace, name), uid, resourceVersion) of an object, or None when it has no usable metadata."""
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(metadata, dict):
        return None
    name, version = metadata.get("name"), metadata.get("resourceVersion")
    namespace, uid = metadata.get("namespace") or "", metadata.get("uid") or ""
    texts = (name, version, namespace, uid)
    if not all(isinstance(text, str) for text in texts) or not name or not version:
        return None
    return (namespace, name), uid, version


def _nothing() -> None:
    """Nobody waits."""


_IDENTITY = ("name", "namespace", "uid", "resourceVersion", "generation")


def projected(obj: dict, fields: tuple[str, ...]) -> dict:
    """Return a new object with kind, identity and the parts at the dotted paths `fields` only."""
    metadata = obj.get("metadata")
    result: dict = {key: obj[key] for key in ("apiVersion", "kind") if key in obj}
    if isinstance(metadata, dict):
        result["metadata"] = {key: metadata[key] for key in _IDENTITY if key in metadata}
    for path in fields:
        source, target, keys = obj, result, path.split(".")
        for key in keys[:-1]:
            source = source.get(key) if isinstance(source, dict) else None
        if isinstance(source, dict) and keys[-1] in source:
            for key in keys[:-1]:
                target = target.setdefault(key, {})
            target[keys[-1]] = source[keys[-1]]
    return result


def _at(obj: object, path: str) -> object:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


def _content(obj: dict) -> dict:
    """Return what of a projected object is told as a change: its parts, without version and generation."""
    metadata = obj.get("metadata") or {}
    rest = {key: value for key, value in metadata.items() if key not in ("resourceVersion", "generation")}
    return {**obj, "metadata": rest}


class Known:
    """The objects of one kind as last seen.

    :param resource: what is watched; handed on to whoever renders the changes.
    :param finished: tells whether nothing is left to do for an object; an error in it counts as no.
    :param resync_seconds: an unfinished, unchanged object is told again after that time; 0 never.
    :param fields: dotted paths of the parts that are kept and of which a change is told; None for all.
    """

    def __init__(
        self,
        resource,
        finished: Callable[[dict], bool],
        resync_seconds: float = 0.0,
        fields: tuple[str, ...] | None = None,
    ) -> None:
        self.resource = resource
        self.resync_seconds = resync_seconds
        self.fields = fields
        # Called when something is due sooner than `next_due` said; whoever calls `due` puts it here.
        self.wake: Callable[[], None] = _nothing
        self.listed_once = False
        self.malformed = 0
        self._finished = finished
        self._entries: dict[Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def slim(self, obj: dict) -> dict:
        """Return what is kept of an object: all but metadata.managedFields, or the chosen fields."""
        if isinstance(obj.get("metadata"), dict):
            obj["metadata"].pop("managedFields", None)
        return obj if self.fields is None else projected(obj, self.fields)

    def listed(self, items: Iterable[object], only_unfinished: bool = False) -> list[Change]:
        """Take a complete list and return what changed since, with INIT_DONE at the end of the first one.

        :param only_unfinished: leave finished objects of the first list untold.
        """
        changes: list[Change] = []
        seen = set()
        for obj in items:
            identity = identify(obj)
            if identity is None:
                self.malformed += 1
                continue
            seen.add(identity[0])
            changes += self._upsert(obj, identity, initial=True)
        gone = [key for key in self._entries if key not in seen]
        changes = [self._forget(key) for key in gone] + changes
        if not self.listed_once:
            self.listed_once = True
            if only_unfinished:
                changes = [change for change in changes if not change.finished]
            changes.append(self._init_done())
        return changes

    def watched(self, kind: str, obj: object) -> list[Change]:
        """Take one event of the watch and return what changed."""
        identity = identify(obj)
        if identity is None or kind not in (ADDED, MODIFIED, DELETED):
            self.malformed += 1
            return []
        if kind != DELETED:
            return self._upsert(obj, identity, initial=False)
        key, uid, _version = identity
        entry = self._entries.get(key)
        if entry is None or (uid and entry.uid and uid != entry.uid):
            return []  # told already, or its successor is known
        return [self._forget(key, obj)]

    def unfinished(self) -> list[Change]:
        """Return every unfinished object as ADDED initial, and INIT_DONE: what a new holder of the Lease starts with."""
        changes = []
        for key, entry in self._entries.items():
            entry.due = None
            if not entry.finished:
                changes.append(self._change(ADDED, key, entry, initial=True))
        changes.append(self._init_done())
        return changes

    def delivered(self, change: Change, now: float) -> None:
        """Start the clock of an object's resync: the event about it has been taken."""
        entry = self._entries.get(change.key) if change.key else None
        if entry is None or entry.finished or not self.resync_seconds or change.type == DELETED:
            return
        # A newer state that waits to be told starts the clock itself.
        if entry.uid == change.uid and entry.resource_version == change.resource_version:
            entry.due = now + self.resync_seconds

    def due(self, now: float, connected: bool = True) -> list[Change]:
        """Return a RESYNC for each unfinished object that has not changed for `resync_seconds`; none unless connected."""
        changes: list[Change] = []
        if not connected:
            return changes
        for key, entry in self._entries.items():
            if entry.due is not None and entry.due <= now:
                entry.due = None
                changes.append(self._change(RESYNC, key, entry))
        return changes

    def next_due(self, connected: bool = True) -> float | None:
        """Return the earliest time at which `due` has something, or None."""
        if not connected:
            return None
        return min((entry.due for entry in self._entries.values() if entry.due is not None), default=None)

    def postpone(self, until: float) -> None:
        """Hold every resync back until then: after an interruption the changes missed must come first."""
        for entry in self._entries.values():
            if entry.due is not None:
                entry.due = max(entry.due, until)

    def _upsert(self, obj: dict, identity: tuple[Key, str, str], initial: bool) -> list[Change]:
        key, uid, version = identity
        entry = self._entries.get(key)
        # With chosen fields the version last told stays: the clock of its resync hangs on it.
        same = self.fields is not None and entry is not None and _content(entry.obj) == _content(obj)
        if entry is not None and entry.uid == uid and (same or entry.resource_version == version):
            return []
        changes = []
        if entry is not None and entry.uid != uid:
            changes.append(self._forget(key))  # deleted and made again in between
            entry = None
        new = _Entry(uid, version, self._is_finished(obj), obj)
        self._entries[key] = new
        change = self._change(MODIFIED if entry else ADDED, key, new, initial)
        if entry is not None and self.fields is not None:
            differ = tuple(path for path in self.fields if _at(entry.obj, path) != _at(obj, path))
            change = replace(change, changed=differ)
        changes.append(change)
        return changes

    def _forget(self, key: Key, obj: dict | None = None) -> Change:
        entry = self._entries.pop(key)
        if obj is not None:
            identity = identify(obj)
            entry = _Entry(entry.uid, identity[2], self._is_finished(obj), obj)
        return self._change(DELETED, key, entry)

    def _change(self, kind: str, key: Key, entry: _Entry, initial: bool = False) -> Change:
        return Change(kind, self, key, entry.obj, entry.uid, entry.resource_version, entry.finished, initial)

    def _init_done(self) -> Change:
        return Change(INIT_DONE, self, None, initial=True, count=len(self._entries))

    def _is_finished(self, obj: dict) -> bool:
        try:
            return bool(self._finished(obj))
        except Exception:  # a status of any shape may come from outside
            return False
