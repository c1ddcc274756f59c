# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a Lease for as long as it can, tells when it is gained and lost, and gives it back at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import uuid
import weakref
from collections.abc import Callable

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Conflict, HaError, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.resources import Resource, now_utc
from ansible_collections.c5c3.ha.plugins.module_utils.watching.election import CREATE, WAIT, Election
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Auth, LeaseOptions
from ansible_collections.c5c3.ha.plugins.module_utils.watching.session import Session
from ansible_collections.c5c3.ha.plugins.module_utils.watching.watcher import Complaints

logger = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True)


class LeaseKeeper:
    """Takes part in the election until cancelled.

    :param gained: called with True when nobody else can have held the Lease since we held it last, else False.
    :param lost: called with True when another holds it now, False when we could only not renew it.
    """

    def __init__(
        self,
        session: Session,
        options: LeaseOptions,
        election: Election,
        clock: Callable[[], float],
        gained: Callable[[bool], None],
        lost: Callable[[bool], None],
    ) -> None:
        self._session = session
        self._options = options
        self._election = election
        self._clock = clock
        self._gained = gained
        self._lost = lost
        self._leading = False
        self._interrupted = False  # not renewed in time, and nobody else seen yet
        self._read_first = True
        self._path = LEASES.path(namespace=options.namespace)
        self._label = f"Lease {options.namespace}/{options.name}"
        self._complaints = Complaints(self._label, clock)

    async def run(self) -> None:
        """Try, renew, retry, for ever; on cancellation give the Lease back."""
        try:
            while True:
                await self._round()
        finally:
            await self._release()

    async def _round(self) -> None:
        failed = False
        try:
            # Not wait_for: that of Python 3.11 swallows a cancellation in the moment in which the attempt succeeds.
            async with asyncio.timeout(self._limit()):
                await self._attempt()
            self._complaints.over()
        except Exception as error:
            failed = True
            self._read_first = True
            if isinstance(error, HaError):
                self._complaints.say(str(error))
            elif isinstance(error, TimeoutError):
                self._complaints.say("no answer from Kubernetes in time; still trying")
            else:
                self._complaints.say(f"unexpected {type(error).__name__}: {error}")
                logger.debug("%s", self._label, exc_info=error)
        now = self._clock()
        if self._leading and not self._election.held(now):
            taken = self._election.deadline() is None
            self._election.lost()
            self._leading = False
            logger.warning(
                "%s: lost (%s); no event is told",
                self._label,
                f"held by {self._election.holder()}" if taken else "could not be renewed in time",
            )
            self._lost(taken)
            self._interrupted = not taken
        elif self._interrupted and self._election.holder() not in ("", self._election.identity):
            self._interrupted = False
            self._lost(True)
        wake = self._election.next_attempt(now)
        if failed and self._leading:
            # A renewal that failed at once leaves time for a few more.
            wake = min(wake, now + self._options.timing.retry_period / 2)
        deadline = self._election.deadline()
        if deadline is not None:
            wake = min(wake, deadline)
        pause = max(0.0, wake - now)
        if not self._leading:
            pause += random.uniform(0, 0.1) * self._options.timing.retry_period
        await asyncio.sleep(max(pause, 0.01))

    def _limit(self) -> float:
        """Return the seconds that an attempt may take."""
        timing = self._options.timing
        limit = max(timing.renew_deadline / 3, 0.5)
        deadline = self._election.deadline()
        return limit if deadline is None else max(0.01, min(limit, deadline - self._clock()))

    async def _attempt(self) -> None:
        for _attempt in range(3):
            if self._read_first or not self._leading:
                self._election.observe(await self._read(), self._clock())
                self._read_first = False
            action = self._election.action(self._clock())
            if action == WAIT:
                return
            sent_at = self._clock()
            try:
                same = self._election.wrote(await self._write(action), sent_at, self._clock())
            except (Conflict, NotFound) as error:
                if action == CREATE and isinstance(error, NotFound):
                    raise HaError(f"namespace {self._options.namespace} does not exist: create it") from error
                self._read_first = True  # somebody was quicker
                continue
            if not self._leading and self._election.held(self._clock()):
                self._leading, self._interrupted = True, False
                logger.warning("%s: held by us (%s); events are told", self._label, self._election.identity)
                self._gained(same)
            return

    async def _read(self) -> dict | None:
        try:
            return await self._session.request("GET", f"{self._path}/{self._options.name}", f"read {self._label}")
        except NotFound:
            return None

    async def _write(self, action: str) -> dict:
        body = self._election.body(action, now_utc())
        if action == CREATE:
            body["metadata"] = {"name": self._options.name, "namespace": self._options.namespace}
            return await self._session.request("POST", self._path, f"create {self._label}", body=body)
        return await self._session.request(
            "PUT", f"{self._path}/{self._options.name}", f"renew {self._label}", body=body
        )

    async def _release(self) -> None:
        held, self._leading = self._election.held(self._clock()), False
        self._election.lost()
        if not held or self._election.released(now_utc()) is None:
            return
        self._lost(False)
        try:
            async with asyncio.timeout(2.0):
                try:
                    await self._give_back()
                except Conflict:  # a renewal that was cut off had arrived
                    self._election.observe(await self._read(), self._clock())
                    await self._give_back()
            logger.warning("%s: given back", self._label)
        except Exception as error:
            logger.warning("%s: could not be given back (%s); it runs out by itself", self._label, error)

    async def _give_back(self) -> None:
        body = self._election.released(now_utc())
        if body is not None:
            path = f"{self._path}/{self._options.name}"
            await self._session.request("PUT", path, f"release {self._label}", body=body)


def new_identity() -> str:
    """Return a name that no other daemon has, and that tells a person where this one runs."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:12]}"


class Candidacy:
    """A daemon's part in one election. Its sources gain and lose the Lease together, and one of them keeps it."""

    def __init__(self, options: LeaseOptions) -> None:
        self.options = options
        self.election = Election(new_identity(), options.timing)
        self._turn = asyncio.Lock()
        self._leading = False
        self._members: list[tuple[Callable[[bool], None], Callable[[bool], None]]] = []

    async def run(
        self,
        session: Session,
        clock: Callable[[], float],
        gained: Callable[[bool], None],
        lost: Callable[[bool], None],
    ) -> None:
        """Take part until cancelled. When the source that keeps the Lease ends, the next one does so over its session."""
        member = (gained, lost)
        self._members.append(member)
        try:
            if self._leading:
                gained(False)
            async with self._turn:
                await LeaseKeeper(session, self.options, self.election, clock, self._gained, self._lost).run()
        finally:
            self._members.remove(member)

    def _gained(self, same: bool) -> None:
        self._leading = True
        for gained, _lost in self._members:
            gained(same)

    def _lost(self, taken: bool) -> None:
        self._leading = False
        for _gained, lost in self._members:
            lost(taken)


_OF_THIS_PROCESS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # by event loop


def candidacy(options: LeaseOptions, auth: Auth) -> Candidacy:
    """Return the part that this process takes in an election: the same for all its sources that name the same Lease.

    :raises ArgumentError: another source of this process wants other times for that Lease.
    """
    known = _OF_THIS_PROCESS.setdefault(asyncio.get_running_loop(), {})
    found = known.setdefault((auth, options.namespace, options.name), Candidacy(options))
    if found.options != options:
        raise ArgumentError(
            f"lease {options.namespace}/{options.name} is wrong: another source of this rulebook has other times for it;"
            " give both the same duration, renew_deadline and retry_period"
        )
    return found
