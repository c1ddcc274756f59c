# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All connections of one source, what waits for the rulebook, and the state file."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import event_loop, state_file
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.connection import Connection
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.options import Options
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.pending import Pending
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.states import Domains

log = logging.getLogger("c5c3.ha.libvirt")

_SAVE_EVERY = 0.5  # seconds; a storm of events writes the file twice a second
_WRITE_DEADLINE = 30.0


async def run(queue: Any, options: Options) -> None:
    """Watch all URIs until cancelled.

    :param queue: the rulebook's queue; its ``put`` is awaited.
    """
    event_loop.install()
    source = _Source(queue, options)
    tasks = [asyncio.create_task(_for_ever(source.send, "sending events"))]
    if options.state_path:
        tasks.append(asyncio.create_task(_for_ever(source.save, "saving the state")))
    tasks.extend(asyncio.create_task(_for_ever(each.run, each.uri)) for each in source.connections)
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            # gather has cancelled them with us; a second time would break off the closing of the connections
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _turn in range(4):  # libvirtaio's timers of the closed connections end
            await asyncio.sleep(0)
        source.save_now()


async def _for_ever(work: Any, what: str) -> None:
    """Begin anew what ended by a mistake of ours: a source that raises takes the whole daemon with it."""
    while True:
        try:
            await work()
        except Exception:  # pylint: disable=broad-except
            log.exception("%s ended by an error, begun again; please report it", what)
        await asyncio.sleep(1.0)


class _Source:
    def __init__(self, queue: Any, options: Options) -> None:
        self._queue = queue
        self._path = options.state_path
        self._pending = Pending()
        self._save_failed = False
        remembered = self._remembered()
        self.connections = [
            Connection(uri, name, options, Domains(remembered.get(uri), options.retell_seconds), self._tell)
            for uri, name in zip(options.uris, options.hypervisors, strict=True)
        ]
        self._changed = asyncio.Event()

    def _tell(self, event: dict[str, Any]) -> None:
        self._pending.put(event)
        self._changed.set()

    async def send(self) -> None:
        """Hand one event after the other to the rulebook."""
        while True:
            await self._queue.put(await self._pending.get())

    # -- state file

    def _remembered(self) -> dict[str, dict[str, str]]:
        if not self._path:
            return {}
        try:
            return state_file.read(self._path)
        except (OSError, ValueError) as error:
            log.warning(
                "cannot use %s: %s; begun without it, so domains that are shut off for an unknown reason are told",
                self._path,
                error,
            )
            return {}

    def _snapshot(self) -> dict[str, dict[str, str]] | None:
        """What to write, or None when nothing changed since the last time."""
        if not any(connection.domains.dirty for connection in self.connections):
            return None
        for connection in self.connections:
            connection.domains.dirty = False
        return {connection.uri: connection.domains.memory() for connection in self.connections}

    def _write(self, snapshot: dict[str, dict[str, str]]) -> None:
        try:
            state_file.write(self._path, snapshot)
        except OSError as error:
            if not self._save_failed:
                log.error("cannot write %s: %s; make its folder writable for this user", self._path, error)
            self._save_failed = True
            self.connections[0].domains.dirty = True
        else:
            self._save_failed = False

    async def save(self) -> None:
        """Write the state file soon after each change."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            snapshot = self._snapshot()
            if snapshot is not None:
                await event_loop.call(self._write, snapshot, deadline=_WRITE_DEADLINE)
                await asyncio.sleep(_SAVE_EVERY)

    def save_now(self) -> None:
        """Write what the last half second brought, at the end."""
        snapshot = self._snapshot() if self._path else None
        if snapshot is not None:
            self._write(snapshot)
