# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that wait to be told, joined per object while the consumer is busy. No I/O."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import (
    ADDED,
    DELETED,
    INIT_DONE,
    MODIFIED,
    RESYNC,
    Change,
)


def _slot(change: Change) -> tuple:
    return (id(change.source), change.key)


def join(waiting: list[Change], new: Change) -> list[Change]:
    """Return what has to be told of one object when `new` follows what is `waiting` (in order, at most two).

    Only the newest state stays; a deletion is never told before or without its creation having been told.
    """
    if not waiting:
        return [new]
    last = waiting[-1]
    if new.type == RESYNC:
        return waiting
    if new.type == INIT_DONE or last.type in (INIT_DONE, RESYNC):
        return [*waiting[:-1], new]
    if new.type == DELETED:
        if last.type == ADDED:
            return waiting[:-1]  # nobody has heard of it
        return [*waiting[:-1], new]
    if last.type == DELETED:
        return [*waiting, new]
    if last.type == ADDED:
        return [*waiting[:-1], replace(new, type=ADDED, initial=last.initial, changed=())]
    changed = tuple(dict.fromkeys((*last.changed, *new.changed)))
    return [*waiting[:-1], replace(new, type=MODIFIED, changed=changed)]


class Outbox:
    """First in, first out by object; each object at most twice (its old self deleted, its new self added)."""

    def __init__(self) -> None:
        self._slots: dict[tuple, list[Change]] = {}

    def __bool__(self) -> bool:
        return bool(self._slots)

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._slots.values())

    def add(self, change: Change) -> None:
        """Append a change, joined with what waits for the same object; it keeps its place in the row."""
        slot = _slot(change)
        waiting = join(self._slots.get(slot, []), change)
        if waiting:
            self._slots[slot] = waiting
        else:
            self._slots.pop(slot, None)

    def take(self) -> Change:
        """Remove and return the first change. Raises IndexError when there is none."""
        for slot, waiting in self._slots.items():
            if len(waiting) == 1:
                del self._slots[slot]
            else:
                self._slots[slot] = waiting[1:]
            return waiting[0]
        raise IndexError("outbox is empty")

    def put_back(self, change: Change) -> None:
        """Return a change that was taken and could not be told: to the front, joined with what came since."""
        slot = _slot(change)
        waiting = [change]
        for later in self._slots.pop(slot, []):
            waiting = join(waiting, later)
        if waiting:
            self._slots = {slot: waiting, **self._slots}

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
