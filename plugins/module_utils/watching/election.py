# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may tell events, decided over a Lease (coordination.k8s.io/v1). Pure: no I/O, time is handed in.

No clock is compared with another machine's. A holder counts from the moment before it sent its last successful
renewal; the others count from the moment at which they first saw that renewal, which is later. So a holder that stops
after `renew_deadline` < `duration` stops before anybody may follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

CREATE, TAKE, RENEW, WAIT = "create", "take", "renew", "wait"


@dataclass(frozen=True)
class Timing:
    """Seconds.

    :param duration: a Lease not renewed for that long may be taken (whole seconds, as Kubernetes stores it).
    :param renew_deadline: a holder that could not renew for that long stops.
    :param retry_period: time between two attempts.
    """

    duration: int = 10
    renew_deadline: float = 6.5
    retry_period: float = 2.0


def _spec(lease: dict) -> dict:
    spec = lease.get("spec")
    return spec if isinstance(spec, dict) else {}


class Election:
    """One candidate's view of the Lease."""

    def __init__(self, identity: str, timing: Timing) -> None:
        self.identity = identity
        self.timing = timing
        self.lease: dict | None = None  # as last read or written
        self._record: tuple | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self._term: tuple | None = None  # leaseTransitions under which we held it last

    def observe(self, lease: dict | None, now: float) -> None:
        """Take the Lease as just read; None when there is none."""
        self.lease = lease
        spec = _spec(lease or {})
        record = (
            (
                (lease.get("metadata") or {}).get("uid"),
                spec.get("holderIdentity") or "",
                spec.get("renewTime"),
                spec.get("leaseTransitions"),
            )
            if lease
            else None
        )
        if record != self._record:
            self._record, self._seen_at = record, now
        if self._renewed_at is not None and self.holder() != self.identity:
            self._renewed_at = None  # somebody took it, by whatever right

    def holder(self) -> str:
        """Return the identity that the Lease names, empty when none does."""
        return _spec(self.lease or {}).get("holderIdentity") or ""

    def action(self, now: float) -> str:
        """Return what to do with the Lease as last observed: CREATE, TAKE, RENEW or WAIT."""
        if self.lease is None:
            return CREATE
        holder = self.holder()
        if holder == self.identity:
            return RENEW
        return TAKE if not holder or now >= self._expiry() else WAIT

    def body(self, action: str, now: str) -> dict:
        """Return the Lease to write for an action.

        :param now: the time of day, RFC 3339 with microseconds. It is told to readers, never compared.
        """
        old = _spec(self.lease or {})
        transitions = old.get("leaseTransitions")
        transitions = transitions if isinstance(transitions, int) else 0
        lease = dict(self.lease or {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}})
        lease["spec"] = {
            **old,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.timing.duration,
            "renewTime": now,
            "acquireTime": (old.get("acquireTime") if action == RENEW else None) or now,
            "leaseTransitions": transitions + 1 if action == TAKE else transitions,
        }
        return lease

    def released(self, now: str) -> dict | None:
        """Return the Lease to write on leaving, so that the next need not wait; None when it is not ours."""
        if self.lease is None or self.holder() != self.identity:
            return None
        lease = dict(self.lease)
        lease["spec"] = {**_spec(lease), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
        return lease

    def wrote(self, lease: dict, sent_at: float, now: float) -> bool:
        """Take the answer to a successful write that was sent at `sent_at`.

        :return: True when nobody else can have held the Lease since we held it last.
        """
        self.observe(lease, now)
        self._renewed_at = sent_at
        term = (_spec(lease).get("leaseTransitions"), (lease.get("metadata") or {}).get("uid"))
        same = term == self._term
        self._term = term
        return same

    def held(self, now: float) -> bool:
        """Tell whether we may act."""
        return self._renewed_at is not None and now < self._renewed_at + self.timing.renew_deadline

    def deadline(self) -> float | None:
        """Return the time at which `held` ends without another renewal, None when we do not hold it."""
        return None if self._renewed_at is None else self._renewed_at + self.timing.renew_deadline

    def lost(self) -> None:
        """Count as not held from now on (the deadline has passed)."""
        self._renewed_at = None

    def next_attempt(self, now: float) -> float:
        """Return when to try again: after `retry_period`, or as soon as another's Lease runs out."""
        retry = now + self.timing.retry_period
        if self.lease is not None and self.holder() not in ("", self.identity):
            return min(retry, max(self._expiry(), now))
        return retry

    def _expiry(self) -> float:
        seconds = _spec(self.lease or {}).get("leaseDurationSeconds")
        return self._seen_at + (seconds if isinstance(seconds, int) and seconds > 0 else self.timing.duration)
