# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This step's hold on one Eviction: read it, claim it, write its status, and call Nova under the claim.

Every write carries the resourceVersion that was read, so of two steps on one Eviction only one gets to act.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import eviction_status as status_
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_shape import spec_fault, with_sane_status
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions, is_finished


class Stop(Exception):
    """The Eviction is gone, finished or in other hands: nothing more may be done here."""


class Deleted(Stop):
    """The Eviction is gone: whoever deleted it wants no more of it."""


class Again(Exception):
    """The Eviction changed between reading and writing: begin the pass anew."""


class Claim:
    """One Eviction in this step's hands.

    :param ttl: seconds for which a claim holds without being renewed.
    """

    def __init__(self, client: Client, group: str, name: str, ttl: float, pool: ThreadPoolExecutor) -> None:
        self.client = client
        self.resource = evictions(group)
        self.name = name
        self.ttl = ttl
        self.pool = pool
        pod = os.environ.get("HOSTNAME") or socket.gethostname()
        self.identity = f"{pod[:200]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.eviction: dict = {}
        self.changed = False
        self.claimed = False
        # By the clock that others judge the claim by, and by one that nobody sets.
        self._written = (0.0, 0.0)

    def adopt(self, eviction: dict) -> None:
        """Take over what was read.

        :raises Stop: it was made anew or finished elsewhere.
        """
        if self.eviction and eviction["metadata"].get("uid") != self.eviction["metadata"].get("uid"):
            raise Stop("the Eviction was made anew: run the step again")
        self.eviction = with_sane_status(eviction)
        if is_finished(eviction):
            raise Stop("the Eviction was finished elsewhere")
        fault = spec_fault(eviction)
        if fault:
            raise Stop(f"the Eviction was changed: {fault}")

    def read(self) -> None:
        """Read it anew.

        :raises Stop: as :meth:`adopt`, and when it was deleted.
        """
        eviction = self.client.get(self.resource, self.name)
        if eviction is None:
            raise Deleted("the Eviction was deleted: stopped; what Nova has begun it will finish")
        self.adopt(eviction)

    def proven_off(self, host: str) -> float | None:
        """When a host was last proven off, as its own Eviction tells; seconds since the epoch, None for never."""
        eviction = self.client.get(self.resource, host)
        if eviction is None:
            return None
        fence = status_.read_fence(with_sane_status(eviction))
        return None if fence.by_consent else fence.proven_at

    def wait_for_holder(self) -> bool:
        """Wait until nobody else holds it; return whether it was read anew meanwhile.

        :raises Stop: it was ours and somebody has taken it over.
        """
        waited = False
        seen, since = None, time.monotonic()
        while True:
            other = status_.foreign_holder(self.eviction, self.identity, time.time(), self.ttl)
            if other is None:
                return waited
            if self.claimed:
                raise Stop(f"taken over by {other[0]}")
            holder = self.eviction["status"]["holder"]
            if holder != seen:
                seen, since = holder, time.monotonic()
            elif time.monotonic() - since > self.ttl:
                # Its clock is ahead of ours: whoever has not renewed while we looked on is gone.
                return waited
            time.sleep(min(other[1], 1.0) + 0.01)
            self.read()
            waited = True

    def write(self, status: dict, finished: bool) -> None:
        """Write the status if it changed or the claim needs renewing; the precondition makes it ours alone.

        :raises Again: somebody else wrote in between.
        :raises Stop: it was deleted.
        """
        old = self.eviction.get("status") or {}
        same = all(old.get(key) == value for key, value in status.items() if key != "holder")
        if same and self.claimed and not finished and self._age() < self.ttl / 3:
            return
        self._patch(status)

    def _patch(self, status: dict) -> None:
        body = {"metadata": {"resourceVersion": self.eviction["metadata"]["resourceVersion"]}, "status": status}
        began = time.time(), time.monotonic()
        try:
            self.eviction = self.client.patch(self.resource, self.name, body, subresource="status")
        except NotFound:
            raise Deleted("the Eviction was deleted: stopped") from None
        except Conflict:
            raise Again from None
        self.claimed = self.changed = True
        self._written = began

    def _renew(self) -> None:
        """Renew the claim while a call to Nova takes its time."""
        if not self.claimed or self._age() < self.ttl / 3:
            return
        holder = {"identity": self.identity, "renewedAt": status_.stamp(time.time())}
        try:
            self._patch({"holder": holder})
        except Again:
            # The next write before an act meets the same conflict and deals with it.
            return

    def fresh(self) -> bool:
        """Whether nobody else can have claimed it yet: to be asked right before an act that must not be done twice.

        A step that was frozen after its write (a stopped process, a machine that swaps) finds its claim old, also when
        its clock was set back meanwhile.
        """
        return self.claimed and self._age() < self.ttl * 2 / 3

    def _age(self) -> float:
        return max(time.time() - self._written[0], time.monotonic() - self._written[1])

    def call_all(self, calls: dict) -> dict:
        """Run calls side by side, renewing the claim while they take long. Errors come out as they are, first in order."""
        futures: dict = {key: self.pool.submit(call) for key, call in calls.items()}
        pending: set[Future] = set(futures.values())
        while pending:
            _done, pending = wait(pending, timeout=min(1.0, self.ttl / 4))
            if pending:
                self._renew()
        return {key: future.result() for key, future in futures.items()}
