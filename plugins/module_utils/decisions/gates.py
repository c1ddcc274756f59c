# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates that a host has to pass before it is emptied: pure functions over what was read just now.

A gate answers one question about one host. What could not be read is None in the facts; the gate then cannot tell, and
its fail mode decides: ``closed`` refuses (acting could kill guests that run, or make them run twice), ``open`` passes
(acting is harmless if it is wrong, waiting is not). docs/gates.md is this table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    CLUSTER_FACTS,
    FOREIGN_MAINTENANCE,
    HOST_ALIVE,
    NOT_READY,
    READY,
    UNREACHABLE,
    GateFacts,
    NodeFacts,
    Verdict,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits


@dataclass(frozen=True)
class Gate:
    """One line of the table.

    :ivar fail: ``open`` or ``closed``: what holds when the answer is not known.
    :ivar needs: facts without which it cannot tell.
    :ivar passes: its reasons when it passes, beside Unknown.
    :ivar refuses: its reasons when it refuses, beside Unknown.
    :ivar check: asked with all of them there; it answers None when it cannot tell. A gate without one is judged while
        acting (fenced and proven off).
    """

    name: str
    question: str
    fail: str
    why: str
    needs: tuple[str, ...]
    passes: tuple[str, ...]
    refuses: tuple[str, ...]
    check: Callable[[str, GateFacts, Limits], Verdict | None] | None


def judge(host: str, facts: GateFacts, limits: Limits) -> tuple[Verdict, ...]:
    """Ask every gate, in the table's order. The host is let through when all passed (see :func:`refusal`)."""
    return tuple(_ask(gate, host, facts, limits) for gate in GATES if gate.check is not None)


def refusal(verdicts: Collection[Verdict]) -> Verdict | None:
    """The first gate that refuses, None when all passed. No verdicts at all is a refusal, too."""
    if not verdicts:
        return Verdict("gates", False, "NotJudged", "no gate was asked")
    return next((verdict for verdict in verdicts if not verdict.passed), None)


def before_details(verdicts: Collection[Verdict]) -> tuple[Verdict, ...]:
    """Those of the gates that need nothing asked for the single host."""
    general = {gate.name for gate in GATES if not set(gate.needs) - CLUSTER_FACTS}
    return tuple(verdict for verdict in verdicts if verdict.gate in general)


def may_fence(verdicts: Collection[Verdict]) -> bool:
    """Whether the host may be switched off and evacuated: all gates passed, and none because the host lives."""
    return refusal(verdicts) is None and not any(verdict.reason == HOST_ALIVE for verdict in verdicts)


def _ask(gate: Gate, host: str, facts: GateFacts, limits: Limits) -> Verdict:
    missing = [name for name in gate.needs if not facts.known(name, host)]
    verdict = gate.check(host, facts, limits) if gate.check and not missing else None
    if verdict:
        return verdict
    why = "; ".join(facts.troubles.get(name) or f"{name} could not be read" for name in missing) or "it makes no sense"
    consent = "passes all the same" if gate.fail == "open" else "refused until it is"
    return Verdict(gate.name, gate.fail == "open", "Unknown", f"not known, {consent}: {gate.question} ({why})")


# -- the gates ---------------------------------------------------------------------------------------------------------


def _enabled(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    own = (facts.hypervisors or {}).get(host)
    if own is None:
        return Verdict(
            "high_availability", False, "NoHypervisor", f"there is no Hypervisor {host}: create it, or leave it alone"
        )
    if not own.high_availability:
        return Verdict(
            "high_availability", False, "HighAvailabilityOff", "spec.highAvailability is false: left alone as asked for"
        )
    return Verdict("high_availability", True, "Enabled", "spec.highAvailability is true")


def _maintenance(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    own = (facts.hypervisors or {}).get(host)
    if own is None:
        return None
    if own.maintenance in FOREIGN_MAINTENANCE:
        return Verdict(
            "maintenance", False, "InMaintenance", f"spec.maintenance is {own.maintenance}: somebody works on the host"
        )
    if own.maintenance not in ("", "ha"):
        return None
    return Verdict("maintenance", True, "InService", "the host is not in maintenance")


def _node(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    own = (facts.nodes or {}).get(host)
    if own is None:
        return Verdict(
            "node", False, "NodeGone", f"there is no Node {host}: nobody says how the host is, and nothing is done"
        )
    if own.state == READY:
        return Verdict("node", False, "NodeReady", f"the Node {host} is Ready")
    if own.state not in (NOT_READY, UNREACHABLE):
        return None
    return Verdict("node", True, f"Node{own.state}", f"the Node {host} is {own.state}")


def _isolated(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    counted = _counted(host, facts)
    gone = [node for node in counted if node.state != READY]
    back = _back(counted, facts, limits)
    if len(gone) == len(counted):
        return Verdict(
            "isolated", False, "Isolated", f"all {len(counted)} hypervisors are gone: it is this side that is cut off"
        )
    if len(gone) > 1 and len(gone) >= limits.isolated_share * len(counted):
        return Verdict(
            "isolated",
            False,
            "Isolated",
            f"{len(gone)} of {len(counted)} hypervisors are gone: it is this side that is cut off",
        )
    if len(gone) + len(back) == len(counted) and len(back) > 1:
        return Verdict(
            "isolated",
            False,
            "Settling",
            f"all other hypervisors came back within the last {limits.settle_seconds:g} s:"
            " this side was cut off, and the rest gets the same time to come back",
        )
    return Verdict("isolated", True, "Connected", f"{len(counted) - len(gone)} hypervisors are Ready")


def _second_signal(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    services = facts.services or {}
    node, own, service = (facts.nodes or {}).get(host), (facts.hypervisors or {}).get(host), services.get(host)
    if node is None or own is None:
        return None
    if service is None:
        return Verdict(
            "second_signal",
            False,
            "UnknownToNova",
            f"Nova knows no nova-compute on {host}: compare with `openstack compute service list`",
        )
    others = [other for name, other in services.items() if name != host and not other.forced_down]
    down = sum(1 for other in others if not other.up)
    if not others or (down > 0 and down >= limits.isolated_share * len(others)):
        return Verdict(
            "second_signal",
            False,
            "NovaBlind",
            f"{down} of the {len(others)} other nova-compute services are down for Nova:"
            " its word says more about Nova than about the host",
        )
    if service.up:
        if node.state == NOT_READY:
            return Verdict(
                "second_signal",
                True,
                HOST_ALIVE,
                f"nova-compute of {host} is up: its servers can be migrated, and nothing is fenced",
            )
        return Verdict(
            "second_signal",
            False,
            "ServiceUp",
            f"nova-compute of {host} is up for Nova: the host lives, only its kubelet is not heard",
        )
    beat = own.heartbeat
    if (
        beat is not None
        and node.since is not None
        and beat > node.since
        and facts.now - limits.heartbeat_seconds < beat < facts.now + limits.clock_skew_seconds
    ):
        return Verdict(
            "second_signal", False, "AgentAlive", f"the agent of {host} wrote after the Node was lost: the host lives"
        )
    told = "was forced down" if service.forced_down else "is down for Nova"
    return Verdict("second_signal", True, "Confirmed", f"nova-compute of {host} {told}, and its agent is silent")


def _unhealthy_share(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    counted = _counted(host, facts)
    return _share("unhealthy_share", counted, facts, limits, limits.max_unhealthy_share, "hypervisors")


def _unhealthy_zone(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    counted = _counted(host, facts)
    zone = next((node.zone for node in counted if node.name == host), "")
    if not zone:
        return Verdict("unhealthy_zone", True, "NoZone", f"the Node {host} has no zone")
    inside = [node for node in counted if node.zone == zone]
    limit = limits.max_unhealthy_zone_share
    return _share("unhealthy_zone", inside, facts, limits, limit, f"hypervisors of zone {zone}")


def _share(gate: str, counted: list[NodeFacts], facts: GateFacts, limits: Limits, limit: float, what: str) -> Verdict:
    gone = sum(1 for node in counted if node.state != READY)
    told = f"{gone} of {len(counted)} {what} are not Ready"
    # One host is no mass failure, even where it is half of all.
    if gone > 1 and gone > limit * len(counted):
        return Verdict(gate, False, "TooManyUnhealthy", f"{told}, over the limit of {limit:.0%}")
    back = len(_back(counted, facts, limits))
    if back and gone + back > limit * len(counted):
        # A partition ends for one host after the other, and the clocks of the last ones have run out during it.
        return Verdict(
            gate,
            False,
            "Settling",
            f"{told} and {back} came back within the last {limits.settle_seconds:g} s: together over the limit of"
            f" {limit:.0%}, and the rest gets the same time to come back",
        )
    return Verdict(gate, True, "BelowLimit", told)


def _budget(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    evictions = facts.evictions or {}
    own = evictions.get(host)
    mine = (own.created, host) if own and not own.finished else (float("inf"), host)
    others = [other for name, other in evictions.items() if name != host]
    # Those that came first go first: of several that wait for each other one always passes.
    first = [other for other in others if (other.created, other.host) < mine]
    working = sorted(
        {other.host for other in first if other.working} | {o.host for o in others if o.working and o.fenced}
    )
    if len(working) >= limits.max_hosts_at_once:
        return Verdict(
            "budget",
            False,
            "TooManyAtOnce",
            f"{len(working)} hosts are being evacuated ({', '.join(working[:5])}), and the limit is"
            f" {limits.max_hosts_at_once}: this one is next",
        )
    recent = sorted(o.host for o in first if o.for_failure and facts.now - o.created < limits.cooldown_seconds)
    if len(recent) >= limits.max_hosts_per_cycle:
        return Verdict(
            "budget",
            False,
            "CoolingDown",
            f"evacuations of {len(recent)} hosts ({', '.join(recent[:5])}) began within {limits.cooldown_seconds:g} s,"
            f" and the limit is {limits.max_hosts_per_cycle}",
        )
    return Verdict("budget", True, "WithinBudget", f"{len(working)} other hosts are being evacuated")


def _scheduler(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    schedulers = facts.schedulers or ()
    up = sum(1 for service in schedulers if service.up and service.enabled)
    if not up:
        return Verdict(
            "scheduler",
            False,
            "NoScheduler",
            f"none of {len(schedulers)} nova-scheduler services is up and enabled: no server would find a host",
        )
    return Verdict("scheduler", True, "SchedulerUp", f"{up} nova-scheduler services are up")


def _capacity(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    sizes, services = facts.work[host].sizes or (), facts.services or {}
    targets = {name for name, service in services.items() if name != host and service.up and service.enabled}
    if not sizes:
        return Verdict("capacity", True, "NothingToMove", f"Nova has no server on {host}")
    if not targets:
        return Verdict("capacity", False, "NoTarget", "no other hypervisor is up and enabled in Nova")
    if all(room.hosts is None for room in sizes):
        return None
    homeless = [room for room in sizes if room.hosts is not None and not room.hosts & targets]
    told = ", ".join(f"{room.servers} with {room.vcpus} vCPU and {room.ram_mb} MiB" for room in homeless[:5])
    if len(homeless) == len(sizes):
        return Verdict("capacity", False, "NoRoom", f"no other hypervisor has room for any server: {told}")
    if homeless:
        return Verdict("capacity", True, "TightRoom", f"the rest fits, but no hypervisor has room for: {told}")
    return Verdict("capacity", True, "Room", f"each size of server has a hypervisor with room, {len(targets)} are up")


def _in_flight(host: str, facts: GateFacts, limits: Limits) -> Verdict | None:
    migrations, service = facts.work[host].migrations or (), (facts.services or {}).get(host)
    # A host that lives is drained by migrations: those are no reason against it.
    alive = service is not None and service.up
    moving = [
        migration
        for migration in migrations
        if migration.unfinished
        and (migration.kind == "evacuation" or not alive)
        and (migration.changed is None or facts.now - migration.changed < limits.in_flight_seconds)
    ]
    if moving:
        first = moving[0]
        return Verdict(
            "in_flight",
            False,
            "MigrationsInFlight",
            f"{len(moving)} migrations from or to {host} are in flight, such as {first.kind} of {first.server}"
            f" ({first.status})",
        )
    stuck = sum(1 for migration in migrations if migration.unfinished)
    told = f"; {stuck} records are stuck, as a dead host leaves them" if stuck else ""
    return Verdict("in_flight", True, "NothingInFlight", f"Nova moves nothing from or to {host}{told}")


def _back(counted: list[NodeFacts], facts: GateFacts, limits: Limits) -> list[NodeFacts]:
    """Those that were away just now, and not because somebody works on them."""
    return [
        node
        for node in counted
        if node.state == READY
        and node.since is not None
        and facts.now - node.since < limits.settle_seconds
        and (facts.hypervisors or {})[node.name].maintenance not in FOREIGN_MAINTENANCE
    ]


def _counted(host: str, facts: GateFacts) -> list[NodeFacts]:
    """The Nodes by which the health of the whole is measured: hypervisors whose state has no known cause.

    Left out are those that somebody works on, and those that were proven off or emptied for this very fault.
    """
    counted = []
    for name, node in (facts.nodes or {}).items():
        own = (facts.hypervisors or {}).get(name)
        if own is None:
            continue
        eviction = (facts.evictions or {}).get(name)
        explained = eviction is not None and eviction.explained and eviction.answers(node)
        if name == host or node.state == READY or not (explained or own.maintenance in FOREIGN_MAINTENANCE):
            counted.append(node)
    return counted


_HEALTH = ("nodes", "hypervisors", "evictions")

GATES: tuple[Gate, ...] = (
    Gate(
        "high_availability",
        "Is the host to be handled at all?",
        "closed",
        "A host whose owner wants it left alone must not be fenced because the wish could not be read.",
        ("hypervisors",),
        ("Enabled",),
        ("HighAvailabilityOff", "NoHypervisor"),
        _enabled,
    ),
    Gate(
        "maintenance",
        "Is the host in service, not in maintenance by somebody else?",
        "closed",
        "A person may be at the machine: it is expected to go down, and to come back with its guests.",
        ("hypervisors",),
        ("InService",),
        ("InMaintenance",),
        _maintenance,
    ),
    Gate(
        "node",
        "Is its Node still not Ready?",
        "closed",
        "Without the API there is no first signal; a host that came back is not emptied.",
        ("nodes",),
        ("NodeNotReady", "NodeUnreachable"),
        ("NodeReady", "NodeGone"),
        _node,
    ),
    Gate(
        "isolated",
        "Are other hypervisors well, so that it is not this side that is cut off?",
        "closed",
        "Who sees all hosts gone at once is the isolated one; guests on the other side run on.",
        _HEALTH,
        ("Connected",),
        ("Isolated", "Settling"),
        _isolated,
    ),
    Gate(
        "second_signal",
        "Do Nova's service state and the agent's heartbeat say that it is gone, too?",
        "closed",
        "A kubelet that is not heard is one witness; two that do not know of each other are asked before guests are killed.",
        ("nodes", "hypervisors", "services"),
        ("Confirmed", "HostAlive"),
        ("ServiceUp", "AgentAlive", "NovaBlind", "UnknownToNova"),
        _second_signal,
    ),
    Gate(
        "unhealthy_share",
        "Is the share of hypervisors that are not Ready within the limit?",
        "closed",
        "Mass failures are networks and clocks far more often than hosts, and the rest could not carry the load.",
        _HEALTH,
        ("BelowLimit",),
        ("TooManyUnhealthy", "Settling"),
        _unhealthy_share,
    ),
    Gate(
        "unhealthy_zone",
        "Is the share within its zone within the limit?",
        "closed",
        "A zone that goes at once has lost its network or its power, which comes back.",
        _HEALTH,
        ("BelowLimit", "NoZone"),
        ("TooManyUnhealthy", "Settling"),
        _unhealthy_zone,
    ),
    Gate(
        "budget",
        "Are few enough hosts being evacuated at once, and did few enough begin just now?",
        "closed",
        "A storm of evacuations brings Nova down; the pause lets a mass failure show itself as one.",
        ("evictions",),
        ("WithinBudget",),
        ("TooManyAtOnce", "CoolingDown"),
        _budget,
    ),
    Gate(
        "scheduler",
        "Is a nova-scheduler up?",
        "closed",
        "Without one every evacuation ends in ERROR; the same answer of Nova tells of it, so not knowing means no Nova.",
        ("schedulers",),
        ("SchedulerUp",),
        ("NoScheduler",),
        _scheduler,
    ),
    Gate(
        "capacity",
        "Has another hypervisor room for what must move?",
        "open",
        "Nova's scheduler is asked for each server anyway; not knowing is no reason to leave guests dead.",
        ("services", "sizes"),
        ("Room", "TightRoom", "NothingToMove"),
        ("NoRoom", "NoTarget"),
        _capacity,
    ),
    Gate(
        "in_flight",
        "Does Nova move nothing from or to the host already?",
        "closed",
        "Somebody else may evacuate it, and a server on its way would be counted on the wrong host.",
        ("migrations",),
        ("NothingInFlight",),
        ("MigrationsInFlight",),
        _in_flight,
    ),
    Gate(
        "fenced",
        "Is the host proven to be off?",
        "closed",
        "A host that still runs would run its guests twice. Judged by the step evict right before it acts.",
        (),
        (),
        (),
        None,
    ),
)
