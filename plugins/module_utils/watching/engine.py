# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event source's engine: watches kinds, joins changes, and puts events into the rulebook's queue for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from ansible_collections.c5c3.ha.plugins.module_utils.watching.credentials import Credentials
from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import Change, Known
from ansible_collections.c5c3.ha.plugins.module_utils.watching.lease import Candidacy
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Options, Watched
from ansible_collections.c5c3.ha.plugins.module_utils.watching.outbox import Outbox
from ansible_collections.c5c3.ha.plugins.module_utils.watching.session import Session
from ansible_collections.c5c3.ha.plugins.module_utils.watching.watcher import Watcher

logger = logging.getLogger(__name__)

HOLDING, PAUSED, STANDBY = "holding", "paused", "standby"
_LONGEST_NAP = 5.0
# More than the Lease takes to be given back.
_PATIENCE = 3.0


def boot_clock() -> float:
    """Return seconds that never go back and that count while the machine sleeps: a frozen holder must notice."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Engine:
    """Runs until cancelled.

    :param options: checked options.
    :param follow: makes for each watched type what keeps its objects and tells what changed.
    :param render: makes the event (a dict) out of a change; None when nothing is left to tell.
    :param outbox: where changes wait to be told.
    :param part: this daemon's part in the election of `options.lease`; one of this engine's own when left out.
    """

    def __init__(
        self,
        options: Options,
        follow: Callable[[Watched], Known],
        render: Callable[[Change], dict | None],
        credentials: Credentials | None = None,
        clock: Callable[[], float] = boot_clock,
        outbox: Outbox | None = None,
        part: Candidacy | None = None,
    ) -> None:
        self.state = HOLDING if options.lease is None else STANDBY
        self._render = render
        self._clock = clock
        self._outbox = Outbox() if outbox is None else outbox
        self._wake = asyncio.Event()
        self._sooner = asyncio.Event()
        self._putting: asyncio.Task | None = None
        self._session = Session(credentials or Credentials(options.auth), options.auth.request_timeout)
        self._part = None if options.lease is None else part or Candidacy(options.lease)
        self.watchers = [
            Watcher(
                self._session,
                watched,
                follow(watched),
                self._take,
                clock,
                options.watch_timeout,
                only_unfinished=options.lease is not None,
            )
            for watched in options.watched
        ]
        for watcher in self.watchers:
            watcher.known.wake = self._sooner.set

    async def run(self, queue) -> None:
        """Put events into `queue` until cancelled.

        :raises HaError: only before anything runs, when the credentials cannot be used.
        """
        try:
            await self._session.open()
            jobs: list[Callable[[], Awaitable[None]]] = [lambda: self._feed(queue), self._resync]
            jobs += [watcher.run for watcher in self.watchers]
            if self._part is not None:
                part = self._part
                jobs.append(lambda: part.run(self._session, self._clock, self._gained, self._lost))
            tasks = [asyncio.create_task(self._for_ever(job)) for job in jobs]
            try:
                await asyncio.wait(tasks)  # not gather: it would cancel them too
            finally:
                for task in tasks:
                    if not task.cancelling():  # asyncio.run cancels all tasks by itself; twice cuts the Lease's return
                        task.cancel()
                # One whose own deadline passed in that very moment counts as cancelled, and goes on.
                while (await asyncio.wait(tasks, timeout=_PATIENCE))[1]:
                    for task in tasks:
                        task.cancel()
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
        if changes:
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
        self._sooner.set()

    def _lost(self, taken: bool) -> None:
        self.state = STANDBY if taken else PAUSED
        if self._putting is not None:
            self._putting.cancel()
        if taken:
            self._outbox.clear()

    # --- jobs -----------------------------------------------------------------------------------------------------

    def _may_tell(self) -> bool:
        return self.state == HOLDING and (self._part is None or self._part.election.held(self._clock()))

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
            if event is None or await self._put(queue, event):
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
            self._sooner.clear()
            now = self._clock()
            nap = _LONGEST_NAP
            for watcher in self.watchers:
                if self.state == HOLDING:
                    self._take(watcher.known.due(now, watcher.connected))
                    next_due = watcher.known.next_due(watcher.connected)
                    if next_due is not None:
                        nap = min(nap, next_due - now)
            # New objects are due no sooner than one interval from now; short intervals are for tests.
            shortest = min((w.known.resync_seconds for w in self.watchers if w.known.resync_seconds), default=nap)
            alarm = asyncio.get_running_loop().call_later(max(0.02, min(nap, shortest)), self._sooner.set)
            try:
                await self._sooner.wait()
            finally:
                alarm.cancel()
