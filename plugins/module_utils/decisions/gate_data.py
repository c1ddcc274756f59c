# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gates look at and what they answer, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServiceFacts

READY, NOT_READY, UNREACHABLE = "Ready", "NotReady", "Unreachable"
# Of CobaltCore's modes `ha` is the one that this very reaction sets; in the others a person or a machine is at the host.
FOREIGN_MAINTENANCE = frozenset({"manual", "auto", "termination"})
# The reason with which the second signal passes a host that lives: it may be drained by migration, never fenced.
HOST_ALIVE = "HostAlive"


@dataclass(frozen=True)
class NodeFacts:
    """A Node. Times in seconds since the epoch.

    :ivar state: of its condition Ready: READY, NOT_READY or UNREACHABLE.
    :ivar since: lastTransitionTime of that condition, None when unknown.
    :ivar said: its reason and message.
    :ivar pressure: types of the pressure conditions that are True.
    :ivar pressure_known: whether the kubelet is heard, so that no pressure means no pressure.
    """

    name: str
    state: str = READY
    since: float | None = None
    zone: str = ""
    said: str = ""
    pressure: tuple[str, ...] = ()
    pressure_known: bool = True


@dataclass(frozen=True)
class HypervisorFacts:
    """What is needed of a Hypervisor.

    :ivar heartbeat: the agent's last sign of life, seconds since the epoch.
    :ivar conditions: status, reason and message of the operator's own conditions, by type.
    """

    name: str
    maintenance: str = ""
    high_availability: bool = True
    heartbeat: float | None = None
    uid: str = ""
    node_state: str = ""
    conditions: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class HostEviction:
    """An Eviction of a whole host. Times in seconds since the epoch.

    :ivar for_failure: its cause is a failed Node; else it is a drain.
    :ivar finished: its condition Evicting is False.
    :ivar reason: the reason of that condition.
    :ivar held: unfinished, and stopped by a gate or by fencing: it is no load.
    :ivar fenced: its host was proven off.
    :ivar begun: something was done already, or is just being done: it is not to be cancelled.
    :ivar occurred_at: the fault that it answers.
    """

    host: str
    created: float = 0.0
    for_failure: bool = True
    finished: bool = False
    reason: str = ""
    held: bool = False
    fenced: bool = False
    begun: bool = False
    occurred_at: float | None = None

    @property
    def working(self) -> bool:
        """Whether it is (about to be) load on the cluster."""
        return self.for_failure and not self.finished and not self.held

    @property
    def explained(self) -> bool:
        """Whether its host is known to be off, or to be empty."""
        return self.for_failure and (self.fenced or (self.finished and self.reason == "Succeeded"))

    def answers(self, node: NodeFacts) -> bool:
        """Whether it is about the present fault of the Node, not about an earlier one."""
        return self.occurred_at is None or node.since is None or self.occurred_at >= node.since


@dataclass(frozen=True)
class Room:
    """One size of the host's servers, and the other hosts that have room for one; None when that is not known."""

    vcpus: int
    ram_mb: int
    servers: int
    hosts: frozenset[str] | None = None


@dataclass(frozen=True)
class HostWork:
    """What has to be asked for each host: sizes of its servers and the migrations that touch it."""

    sizes: tuple[Room, ...] | None = None
    migrations: tuple[MigrationFacts, ...] | None = None


CLUSTER_FACTS = frozenset({"nodes", "hypervisors", "services", "schedulers", "evictions"})


@dataclass(frozen=True)
class GateFacts:
    """All that the gates look at; None where it could not be read.

    :ivar now: when the reading began, seconds since the epoch.
    :ivar nodes: Nodes by name. A name that is missing is a Node that is not there.
    :ivar hypervisors: Hypervisors by name.
    :ivar services: the nova-compute services by host.
    :ivar schedulers: the nova-scheduler services.
    :ivar evictions: Evictions of whole hosts, by host.
    :ivar work: what was asked for single hosts.
    :ivar troubles: why something could not be read, by the name of the fact.
    """

    now: float
    nodes: Mapping[str, NodeFacts] | None = None
    hypervisors: Mapping[str, HypervisorFacts] | None = None
    services: Mapping[str, ServiceFacts] | None = None
    schedulers: tuple[ServiceFacts, ...] | None = None
    evictions: Mapping[str, HostEviction] | None = None
    work: Mapping[str, HostWork] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)

    def known(self, name: str, host: str) -> bool:
        """Whether the fact `name` (a field, or one of ``work``) could be read."""
        owner = self if name in CLUSTER_FACTS else self.work.get(host, HostWork())
        return getattr(owner, name) is not None

    def with_eviction(self, host: str) -> GateFacts:
        """The facts after an Eviction of `host` was made: what one run lets through counts for the next host."""
        return replace(self, evictions={**(self.evictions or {}), host: HostEviction(host, created=self.now)})


@dataclass(frozen=True)
class Verdict:
    """A gate's answer for one host. ``reason`` is CamelCase, as in a condition; ``message`` holds no running clock."""

    gate: str
    passed: bool
    reason: str
    message: str
