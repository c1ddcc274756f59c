# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a host that was emptied after a failure gets servers again. Pure.

Two acts, in this order and in runs of their own: force-down is taken back, the compute service is enabled. A host that
comes back too early runs guests that run elsewhere by now: Nova's evacuation records are "done" until its restarted
nova-compute has destroyed them, and "completed" from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    FOREIGN_MAINTENANCE,
    READY,
    HostEviction,
    HypervisorFacts,
    NodeFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import EVICTION_REASON

CLEAR, ENABLE = "clear", "enable"


@dataclass(frozen=True)
class Return:
    """What to do: CLEAR force-down, ENABLE the service, or None: wait.

    :ivar due: when waiting ends by itself, seconds since the epoch.
    """

    act: str | None
    reason: str
    message: str
    due: float | None = None


def candidate(
    own: HypervisorFacts, node: NodeFacts | None, service: ServiceFacts | None, eviction: HostEviction | None
) -> bool:
    """Whether the host is out of service for a failure that we dealt with, and its Node is Ready again.

    Not ours: what a person or Nova itself disabled, what was drained on purpose, and what somebody works on.
    """
    if node is None or node.state != READY or service is None or (service.enabled and not service.forced_down):
        return False
    if not own.high_availability or own.maintenance in FOREIGN_MAINTENANCE:
        return False
    failed = eviction is not None and eviction.for_failure
    if service.forced_down:
        # Begun, not proven: who came back after the proof is told as on, and was forced down by us all the same.
        return (failed and eviction.begun) or _ours(service)
    return failed and _ours(service)


def decide(
    node: NodeFacts,
    service: ServiceFacts,
    eviction: HostEviction | None,
    migrations: Iterable[MigrationFacts] | None,
    ready_seconds: float,
    now: float,
) -> Return:
    """What to do with a :func:`candidate`.

    :param migrations: Nova's records that touch the host, None when it does not answer.
    """
    if eviction is not None and not eviction.finished:
        return Return(None, "EvictionUnfinished", "its Eviction is not finished")
    if node.since is None:
        return Return(None, "ReadyTooShort", "its Node does not say since when it is Ready")
    if now - node.since < ready_seconds:
        return Return(
            None, "ReadyTooShort", f"its Node has to be Ready for {ready_seconds:g} s", due=node.since + ready_seconds
        )
    if service.forced_down:
        if migrations is None:
            return Return(None, "NovaUnavailable", "Nova does not tell its evacuation records")
        open_ = [
            record
            for record in migrations
            if record.kind == "evacuation" and record.source == service.host and record.status == "done"
        ]
        if open_:
            return Return(
                None,
                "EvacuationsOpen",
                f"its nova-compute has {len(open_)} evacuated servers to clean up first: start it if it does not run; if it "
                "does, restart it: at each start it completes one record of each server (docs/evacuation.md)",
            )
        return Return(CLEAR, "EvacuationsCompleted", "force-down is taken back")
    if not service.up:
        return Return(None, "ServiceDown", "its nova-compute does not run")
    return Return(ENABLE, "HostHealthy", "its compute service is enabled again")


def _ours(service: ServiceFacts) -> bool:
    return service.disabled_reason.startswith(EVICTION_REASON)
