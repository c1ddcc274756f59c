# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event source's engine: watches kinds, joins changes, and puts events into the rulebook's queue for ever."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable

from ansible_collections.c5c3.ha.plugins.module_utils.resources import Resource
from ansible_collections.c5c3.ha.plugins.module_utils.watching.credentials import Credentials
from ansible_collections.c5c3.ha.plugins.module_utils.watching.election import Election
from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import Change, Known
from ansible_collections.c5c3.ha.plugins.module_utils.watching.lease import LeaseKeeper
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Options
from ansible_collections.c5c3.ha.plugins.module_utils.watching.outbox import Outbox
from ansible_collections.c5c3.ha.plugins.module_utils.watching.session import Session
from ansible_collections.c5c3.ha.plugins.module_utils.watching.watcher import Watcher

logger = logging.getLogger(__name__)

HOLDING, PAUSED, STANDBY = "holding", "paused", "standby"
_LONGEST_NAP = 5.0


def boot_clock() -> float:
    """Return seconds that never go back and that count while the machine sleeps: a frozen holder must notice."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def new_identity() -> str:
    """Return a name that no other daemon has, and that tells a person where this one runs."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:12]}"


class Engine:
    """Runs until cancelled.

    :param options: checked options.
    :param finished: for a resource, the function that tells whether an object of it is finished.
    :param render: makes the event (a dict) out of a change.
    """

    def __init__(
        self,
        options: Options,
        finished: Callable[[Resource], Callable[[dict], bool]],
        render: Callable[[Change], dict],
        credentials: Credentials | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.state = HOLDING if options.lease is None else STANDBY
        self._options = options
        self._render = render
        self._clock = clock
        self._outbox = Outbox()
        self._wake = asyncio.Event()
        self._putting: asyncio.Task | None = None
        self._session = Session(credentials or Credentials(options.auth), options.auth.request_timeout)
        self._election = None if options.lease is None else Election(new_identity(), options.lease.timing)
        self.watchers = [
            Watcher(
                self._session,
                watched,
                Known(watched.resource, finished(watched.resource), watched.resync_seconds),
                self._take,
                clock,
                options.watch_timeout,
                only_unfinished=options.lease is not None,
            )
            for watched in options.watched
        ]

    async def run(self, queue) -> None:
        """Put events into `queue` until cancelled.

        :raises HaError: only before anything runs, when the credentials cannot be used.
        """
        try:
            await self._session.open()
            jobs: list[Callable[[], Awaitable[None]]] = [lambda: self._feed(queue), self._resync]
            jobs += [watcher.run for watcher in self.watchers]
            if self._election is not None:
                keeper = LeaseKeeper(
                    self._session, self._options.lease, self._election, self._clock, self._gained, self._lost
                )
                jobs.append(keeper.run)
            tasks = [asyncio.create_task(self._for_ever(job)) for job in jobs]
            try:
                await asyncio.wait(tasks)  # not gather: it would cancel them too
            finally:
                for task in tasks:
                    if not task.cancelling():  # asyncio.run cancels all tasks by itself; twice cuts the Lease's return
                        task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._session.close()

    async def _for_ever(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job that should not end; if it does by a fault of ours, say so and run it again."""
        while True:
            try:
                await job()
            except Exception:
                logger.exception("A part of the source failed; it is started again. Please report this")
            await asyncio.sleep(1.0)

    # --- what the watchers and the Lease tell ---------------------------------------------------------------------

    def _take(self, changes: list[Change]) -> None:
        if self.state == STANDBY:
            return  # whoever becomes the holder tells every unfinished object anew
        for change in changes:
            self._outbox.add(change)
        self._wake.set()

    def _gained(self, same: bool) -> None:
        if not (same and self.state == PAUSED):
            self._outbox.clear()
            for watcher in self.watchers:
                if watcher.known.listed_once:
                    for change in watcher.known.unfinished():
                        self._outbox.add(change)
        self.state = HOLDING
        self._wake.set()

    def _lost(self, taken: bool) -> None:
        self.state = STANDBY if taken else PAUSED
        if self._putting is not None:
            self._putting.cancel()
        if taken:
            self._outbox.clear()

    # --- jobs -----------------------------------------------------------------------------------------------------

    def _may_tell(self) -> bool:
        return self.state == HOLDING and (self._election is None or self._election.held(self._clock()))

    async def _feed(self, queue) -> None:
        while True:
            if not self._outbox or self.state != HOLDING:
                self._wake.clear()
                await self._wake.wait()
                continue
            if not self._may_tell():
                await asyncio.sleep(0.01)  # the keeper is about to notice that the deadline has passed
                continue
            change = self._outbox.take()
            try:
                event = self._render(change)
            except Exception:
                logger.exception("An object could not be made an event; it is left out. Please report this")
                continue
            if await self._put(queue, event):
                change.source.delivered(change, self._clock())
            elif self.state != STANDBY:
                self._outbox.put_back(change)
            await asyncio.sleep(0)  # the queue's reader gets its turn

    async def _put(self, queue, event: dict) -> bool:
        """Put one event; return False when it was withdrawn because the Lease was lost meanwhile."""
        putting = self._putting = asyncio.ensure_future(queue.put(event))
        try:
            await asyncio.wait({putting})
        finally:
            self._putting = None
            if not putting.done():
                putting.cancel()
        if putting.cancelled():
            return False
        if putting.exception() is not None:
            # An event filter of the rulebook raised: it would do so again.
            logger.error("An event was refused by the rulebook's filters: %s", putting.exception())
        return True

    async def _resync(self) -> None:
        while True:
            now = self._clock()
            nap = _LONGEST_NAP
            for watcher in self.watchers:
                if self.state == HOLDING and watcher.connected:
                    self._take(watcher.known.due(now))
                    next_due = watcher.known.next_due()
                    if next_due is not None:
                        nap = min(nap, next_due - now)
            # New objects are due no sooner than one interval from now; short intervals are for tests.
            shortest = min((w.known.resync_seconds for w in self.watchers if w.known.resync_seconds), default=nap)
            await asyncio.sleep(max(0.02, min(nap, shortest)))
