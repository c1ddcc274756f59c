# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the source has still to tell the rulebook: bounded, deaths first.

The rulebook's queue holds one event, and a slow action blocks it for seconds. Meanwhile libvirt goes on. What waits here
is therefore kept once per domain, kind and outcome: a second one of the same raises ``count`` and ``occurred_at`` of the
one that waits, so that the number that waits is bounded by the number of domains, whatever a storm brings. Nothing is
dropped. A death overtakes what is no death.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.translate import is_death

Event = dict[str, Any]
# What makes two events one while they wait. An event lacks the keys that its kind has not.
_IDENTITY = (
    "uri",
    "uuid",
    "event",
    "action",
    "detail",
    "path",
    "device",
    "reason",
    "operation",
    "recipient",
    "incoming",
)
# Only the newest says anything.
_REPLACED = frozenset(("heartbeat", "connection"))


class Pending:
    """A queue between libvirt's callbacks and the rulebook. Not safe for threads: use it on the loop."""

    def __init__(self) -> None:
        self._urgent: dict[tuple[Any, ...], Event] = {}
        self._ordinary: dict[tuple[Any, ...], Event] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._ordinary)

    def put(self, event: Event) -> None:
        """Add an event. Never blocks, never fails."""
        names = _IDENTITY[:3] if event["event"] in _REPLACED else _IDENTITY
        key = tuple(event.get(name) for name in names)
        lane = self._urgent if is_death(event) else self._ordinary
        waiting = lane.get(key)
        if waiting is not None and event["event"] not in _REPLACED:
            event = {
                **waiting,
                **event,
                "count": waiting["count"] + event["count"],
                "occurred_at": max(waiting["occurred_at"], event["occurred_at"]),
                "synthetic": waiting["synthetic"] and event["synthetic"],
            }
            if "errors" in event:
                event["errors"] += waiting["errors"]
            if event["event"] == "lifecycle" and lane is self._ordinary:
                # STARTED, STOPPED, STARTED must not be told with the start first. Deaths and all else keep their place,
                # so that a stream of the same never starves.
                del lane[key]
        lane[key] = event
        self._filled.set()

    async def get(self) -> Event:
        """Wait for the next event and take it."""
        while not (self._urgent or self._ordinary):
            self._filled.clear()
            await self._filled.wait()
        lane = self._urgent or self._ordinary
        return lane.pop(next(iter(lane)))
