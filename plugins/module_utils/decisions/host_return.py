# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a host that was emptied after a failure gets servers again. Pure.

Two acts, in this order and in runs of their own: force-down is taken back, the compute service is enabled. A host that
comes back too early runs guests that run elsewhere by now: Nova's evacuation records are "done" until its restarted
nova-compute has destroyed them, and "completed" from then on.

A request that was lost leaves a record that is "accepted" for ever, beside that of the request which was sent again. Nova
does not mind it, but the next start of the host's nova-compute destroys that server's guest, wherever the server is by then:
also when it has come back to this host, months later. So it is waited for until no such record is left.

A live migration that was asked for just before the failure may lie in the broker as a message to the host. Its nova-compute
takes it up when it is back, finds no guest, and puts the server into ERROR, which runs elsewhere since its evacuation (seen on
the lab with Nova 34). Such servers are put right before the service is enabled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
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
# What a nova-compute that starts takes up (nova.compute.manager, _destroy_evacuated_instances).
OPEN = frozenset({"accepted", "pre-migrating", "done"})
_EVACUATED = frozenset({"done", "completed"})
# Seconds after the host's health in which its nova-compute may still take up such a message.
LATE_SECONDS = 60.0
# Servers named in a message.
_NAMED = 3


@dataclass(frozen=True)
class Return:
    """What to do: CLEAR force-down, ENABLE the service, or None: wait.

    :ivar due: when waiting ends by itself, seconds since the epoch.
    :ivar overtaken: servers that were evacuated from here and may be in ERROR for a live migration that failed since.
    """

    act: str | None
    reason: str
    message: str
    due: float | None = None
    overtaken: tuple[str, ...] = ()


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
    here: Collection[str] = (),
) -> Return:
    """What to do with a :func:`candidate`.

    :param migrations: Nova's records that touch the host, None when it does not answer.
    :param here: UUIDs of the servers that Nova has on the host; matters only where there are :func:`open_records`.
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
        records = open_records(service.host, migrations)
        if records:
            return Return(None, "EvacuationsOpen", _to_clean_up(node, service, records, here))
        return Return(CLEAR, "EvacuationsCompleted", "force-down is taken back")
    if not service.up:
        return Return(None, "ServiceDown", "its nova-compute does not run")
    moves = _overtaken(service.host, migrations)
    late, due = {move.server for move in moves if move.unfinished}, node.since + ready_seconds + LATE_SECONDS
    if late and now < due:
        message = (
            f"it may still take up the live migration of {_named(late)}, which it was asked for before its failure"
        )
        return Return(None, "MigrationsOpen", message, due)
    failed = tuple(sorted({move.server for move in moves if move.status in ("error", "failed")}))
    return Return(ENABLE, "HostHealthy", "its compute service is enabled again", overtaken=failed)


def _overtaken(host: str, migrations: Iterable[MigrationFacts] | None) -> list[MigrationFacts]:
    """Live migrations from a host, of servers that were evacuated from it."""
    records = [record for record in migrations or () if record.source == host]
    evacuated = {record.server for record in records if record.kind == "evacuation" and record.status in _EVACUATED}
    return [record for record in records if record.kind == "live-migration" and record.server in evacuated]


def righted(servers: Collection[str]) -> str:
    """What was done about the overtaken ones, in words."""
    return (
        f"{_named(servers)}, evacuated before, put into ERROR by a live migration that this host was asked for before its failure:"
        " reset to active"
    )


def open_records(host: str, migrations: Iterable[MigrationFacts] | None) -> list[MigrationFacts]:
    """Records of evacuations from a host that a start of its nova-compute would end, one of each server at a start."""
    return [
        record
        for record in migrations or ()
        if record.kind == "evacuation" and record.source == host and record.status in OPEN
    ]


def _to_clean_up(node: NodeFacts, service: ServiceFacts, records: list[MigrationFacts], here: Collection[str]) -> str:
    """What a person has to do, in words."""
    servers = Counter(record.server for record in records)
    starts = max(servers.values())
    told = (
        f"Nova has {_count(len(records), 'open evacuation record')} of {_named(servers)}, which only a start of nova-compute on"
        f" {service.host} ends, one of each server at a start: "
    )
    if service.reported is None or node.since is None or service.reported < node.since:
        again = f", then restart it {_count(starts - 1, 'time')}" if starts > 1 else ""
        told += f"it has not run since the Node is Ready: start it{again}"
    else:
        told += "restart it" + (f" {starts} times, one after the other" if starts > 1 else "")
    local = sorted(set(servers) & set(here))
    if local:
        told += (
            f"; that stops {_named(local)}, which came back to this host: `openstack server reboot --hard` afterwards"
        )
    return told + " (docs/evacuation.md)"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _named(servers: Collection[str]) -> str:
    listed = sorted(servers)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return f"{'server' if len(listed) == 1 else 'servers'} {', '.join(listed[:_NAMED])}{more}"


def _ours(service: ServiceFacts) -> bool:
    return service.disabled_reason.startswith(EVICTION_REASON)
