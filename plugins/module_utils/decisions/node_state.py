# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Node's state means for its Hypervisor: marks, the clock of an evacuation, cancelling, pressure. Pure.

The clock begins at the Node's own lastTransitionTime, so that a restart of the operator neither forgets a host nor
begins anew. Nothing here remembers: what is on the Hypervisor is compared with what should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import Wanted
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import stamp
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    HOST_ALIVE,
    NOT_READY,
    READY,
    UNREACHABLE,
    GateFacts,
    HostEviction,
    HypervisorFacts,
    NodeFacts,
    Verdict,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_reading import (
    EVACUATION_ALLOWED,
    NODE_MARK,
    NODE_PRESSURE,
    NODE_READY,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gates import (
    refusal,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import PRESSURE_REASON
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown

CAUSES = {NOT_READY: "NodeNotReady", UNREACHABLE: "NodeUnreachable"}
_NODE_READY_STATUS = {READY: "True", NOT_READY: "False", UNREACHABLE: "Unknown"}


@dataclass(frozen=True)
class Timeouts:
    """Seconds.

    :ivar not_ready: from Ready=False to the gates. The kubelet speaks and the guests run, so there is time for a restart
        of the container runtime.
    :ivar unreachable: from Ready=Unknown to the gates. Kubernetes has waited its grace period of 40 to 50 s by then; a
        switch reboots within a minute.
    :ivar ready: for which a Node has to be Ready before its host gets servers again.
    """

    not_ready: float = 300.0
    unreachable: float = 60.0
    ready: float = 120.0

    @classmethod
    def from_params(cls, params: dict) -> Timeouts:
        """Of the options not_ready_seconds, unreachable_seconds and return_seconds.

        :raises ArgumentError: one of them is negative or no number.
        """
        for name in ("not_ready_seconds", "unreachable_seconds", "return_seconds"):
            if not 0 <= params[name] < float("inf"):
                raise ArgumentError(f"{name} {shown(params[name])} must be 0 or more seconds")
        return cls(params["not_ready_seconds"], params["unreachable_seconds"], params["return_seconds"])

    def due(self, node: NodeFacts) -> float | None:
        """When the gates are to be asked for a Node that is not Ready; None when it is, or no clock is known."""
        limit = {NOT_READY: self.not_ready, UNREACHABLE: self.unreachable}.get(node.state)
        return None if limit is None or node.since is None else node.since + limit


@dataclass(frozen=True)
class Told:
    """One decision, as the log, the Event and the condition tell it.

    :ivar decision: what was decided, in a word; see ``DECISIONS``.
    :ivar gate: which gate refused, if one did.
    """

    host: str
    decision: str
    reason: str
    message: str
    gate: str = ""
    since: float | None = None

    @property
    def warning(self) -> bool:
        """Whether a person should look."""
        return self.decision in ("mark", "refuse", "evict", "pressure", "node-gone", "no-hypervisor")

    def line(self) -> dict:
        """The fields of the log line, in this order, always all of them."""
        return {
            "decision": self.decision,
            "host": self.host,
            "reason": self.reason,
            "gate": self.gate,
            "since": stamp(self.since) or "",
            "message": self.message,
        }


DECISIONS = {
    "mark": "the Node is not Ready: its Hypervisor says so, and the clock runs",
    "ready": "the Node is Ready again",
    "refuse": "the time is over and a gate refuses",
    "evict": "the time is over and all gates pass: an Eviction is made",
    "pass": "all gates let evict go on",
    "cancel": "the Node is Ready again before anything was done: the Eviction ends as Cancelled",
    "pressure": "the kubelet reports pressure: no new servers",
    "pressure-over": "the pressure is over: new servers again, if it was ours to say",
    "return": "the host came back: force-down is taken back, or its compute service is enabled",
    "return-wait": "the host came back and something has to happen first",
    "node-gone": "the Node was deleted",
    "no-hypervisor": "a Node with a nova-compute has no Hypervisor",
}


@dataclass(frozen=True)
class Plan:
    """What to write for one host.

    :ivar node_state: of the Hypervisor's status; empty removes it.
    :ivar conditions: status, reason, message and time (None: now) of the operator's conditions that should be there.
    :ivar service: fields to change on the compute service.
    """

    host: str
    node_state: str = ""
    conditions: Mapping[str, tuple[str, str, str, float | None]] = field(default_factory=dict)
    service: Mapping[str, str] = field(default_factory=dict)
    told: tuple[Told, ...] = ()

    def with_evacuation(self, status: str, reason: str, message: str, *told: Told) -> Plan:
        """The plan with the condition EvacuationAllowed."""
        conditions = {**self.conditions, EVACUATION_ALLOWED: (status, reason, message, None)}
        return replace(self, conditions=conditions, told=(*self.told, *told))

    def changes(self, own: HypervisorFacts) -> bool:
        """Whether the Hypervisor says something else now. Messages do not count: some hold clocks and sums of others."""
        # A schema without nodeState drops it; the condition NodeReady says the same.
        return (self.node_state != own.node_state and bool(own.node_state)) or any(
            own.conditions.get(kind, ())[:2] != condition[:2] for kind, condition in self.conditions.items()
        )


def plan(
    own: HypervisorFacts,
    node: NodeFacts | None,
    service: ServiceFacts | None,
    eviction: HostEviction | None,
    timeouts: Timeouts,
    now: float,
) -> Plan:
    """What one host needs, but for what the gates decide (:func:`judged`) and its return (:mod:`host_return`).

    :param node: None when there is no such Node.
    :param service: None when Nova does not know it, or does not answer.
    :param eviction: of the whole host, the latest.
    """
    if node is None:
        return _without_node(own)
    status, said = _NODE_READY_STATUS[node.state], node.said
    conditions = {NODE_READY: (status, node.state, said, node.since)}
    told: list[Told] = []
    before = own.conditions.get(NODE_READY, ("", "", ""))[1]
    if before != node.state and (before or node.state != READY):
        message = f"the Node is {node.state} ({said})" + _outlook(node, own, timeouts)
        told.append(Told(own.name, "ready" if node.state == READY else "mark", node.state, message, since=node.since))
    made = Plan(own.name, node.state, conditions, told=tuple(told))
    due = timeouts.due(node)
    if EVACUATION_ALLOWED in own.conditions and node.state == READY:
        made = made.with_evacuation("False", "NodeReady", "the Node is Ready")
    elif due is not None and now < due and own.high_availability and not (eviction and not eviction.finished):
        made = made.with_evacuation("False", "Waiting", f"the gates are asked from {stamp(due)}, unless it is back")
    return _with_pressure(made, own, node, service, eviction)


def _without_node(own: HypervisorFacts) -> Plan:
    message = f"there is no Node {own.name}: nobody says how the host is, and nothing is done for it"
    conditions = {NODE_READY: ("Unknown", "NodeGone", message, None)}
    if EVACUATION_ALLOWED in own.conditions:
        conditions[EVACUATION_ALLOWED] = ("False", "NodeGone", message, None)
    new = own.conditions.get(NODE_READY, ("", "", ""))[1] != "NodeGone"
    told = (Told(own.name, "node-gone", "NodeGone", message),) if new else ()
    return Plan(own.name, "", conditions, told=told)


def _outlook(node: NodeFacts, own: HypervisorFacts, timeouts: Timeouts) -> str:
    if node.state == READY:
        return ""
    if not own.high_availability:
        return "; spec.highAvailability is false: nothing is done for it"
    due = timeouts.due(node)
    return f"; unless it is back, it is to be emptied from {stamp(due)}" if due else "; since when is not known"


def _with_pressure(
    made: Plan, own: HypervisorFacts, node: NodeFacts, service: ServiceFacts | None, eviction: HostEviction | None
) -> Plan:
    before = own.conditions.get(NODE_PRESSURE)
    if not node.pressure and (not node.pressure_known or node.state != READY):
        # A kubelet that is not heard says nothing of pressure: all stays as it is.
        return made
    conditions, told, change = dict(made.conditions), list(made.told), {}
    in_our_hands = own.high_availability and not own.maintenance and not (eviction and not eviction.finished)
    if node.pressure:
        kinds = ",".join(node.pressure)
        wanted = f"{PRESSURE_REASON} {kinds}"
        if service and in_our_hands and (service.enabled or _ours(service)) and service.disabled_reason != wanted:
            change = {"status": "disabled", "disabled_reason": wanted}
        who = "no new servers are scheduled" if in_our_hands else "its compute service is left as it is"
        who = "Nova does not tell of its compute service" if service is None else who
        conditions[NODE_PRESSURE] = ("True", kinds, f"the kubelet reports {kinds}: {who}", None)
        if before is None or before[:2] != ("True", kinds):
            told.append(Told(own.name, "pressure", kinds, conditions[NODE_PRESSURE][2]))
    else:
        if service and in_our_hands and not service.enabled and _ours(service) and not _drained(eviction):
            change = {"status": "enabled"}
        if before is not None:
            conditions[NODE_PRESSURE] = ("False", "NoPressure", "the kubelet reports no pressure", None)
        if change or (before is not None and before[0] == "True"):
            back = "servers are scheduled again" if change else "its compute service was not disabled for that"
            told.append(Told(own.name, "pressure-over", "NoPressure", f"the kubelet reports no pressure: {back}"))
    return replace(made, conditions=conditions, service=change, told=tuple(told))


def _ours(service: ServiceFacts) -> bool:
    return service.disabled_reason.startswith(PRESSURE_REASON)


def _drained(eviction: HostEviction | None) -> bool:
    """Whether somebody has emptied the host: the pressure's end does not put it back."""
    return eviction is not None and not eviction.for_failure


def overdue(
    own: HypervisorFacts, node: NodeFacts | None, eviction: HostEviction | None, timeouts: Timeouts, now: float
) -> bool:
    """Whether the gates are to be asked now: its time is over, and no Eviction is at it or has answered this fault."""
    if node is None:
        return False
    due = timeouts.due(node)
    if due is None or now < due:
        return False
    if eviction is None:
        return True
    in_work = eviction.for_failure and not eviction.finished
    return not (in_work or (eviction.occurred_at is not None and eviction.answers(node)))


def judged(
    made: Plan, own: HypervisorFacts, node: NodeFacts, verdicts: tuple[Verdict, ...]
) -> tuple[Plan, Wanted | None]:
    """The plan with what the gates said, and the Eviction to make when they let the host through."""
    refused = refusal(verdicts)
    before = own.conditions.get(EVACUATION_ALLOWED)
    if refused:
        message = f"{refused.gate}: {refused.message}"
        told = Told(own.name, "refuse", refused.reason, refused.message, refused.gate, node.since)
        same = before is not None and before[:2] == ("False", refused.reason)
        return made.with_evacuation("False", refused.reason, message, *(() if same else (told,))), None
    alive = next((verdict for verdict in verdicts if verdict.reason == HOST_ALIVE), None)
    notes = [verdict.message for verdict in verdicts if verdict.reason in (HOST_ALIVE, "TightRoom", "Unknown")]
    message = "; ".join(["all gates pass", *notes])
    reason = "GatesPassed" if alive is None else HOST_ALIVE
    told = Told(own.name, "evict", reason, message, since=node.since)
    wanted = Wanted(
        name=own.name,
        hypervisor=own.name,
        reason=f"{NODE_MARK}{node.state} since {stamp(node.since)} ({node.said})",
        cause=CAUSES[node.state],
        occurred_at=stamp(node.since),
    )
    return made.with_evacuation("True", reason, message, told), wanted


def gate_line(host: str, facts: GateFacts, verdicts: tuple[Verdict, ...]) -> dict:
    """The log line of what the gates said to the step that is about to act."""
    refused = refusal(verdicts)
    node = (facts.nodes or {}).get(host)
    since = node.since if node else None
    if refused:
        return Told(host, "refuse", refused.reason, refused.message, refused.gate, since).line()
    alive = any(verdict.reason == HOST_ALIVE for verdict in verdicts)
    return Told(host, "pass", HOST_ALIVE if alive else "GatesPassed", "all gates pass", since=since).line()


def answered(made: Plan, own: HypervisorFacts, node: NodeFacts | None, eviction: HostEviction | None) -> Plan:
    """The plan with what an Eviction of this fault came to, when it ended without emptying the host."""
    if node is None or node.state == READY or eviction is None or not eviction.for_failure or not eviction.finished:
        return made
    if not eviction.answers(node) or eviction.reason == "Succeeded":
        return made
    message = f"the Eviction {own.name} ended as {eviction.reason}: remove it, and it is tried again"
    same = own.conditions.get(EVACUATION_ALLOWED, ("", "", ""))[:2] == ("False", "EvictionEnded")
    told = Told(own.name, "refuse", "EvictionEnded", message, since=node.since)
    return made.with_evacuation("False", "EvictionEnded", message, *(() if same else (told,)))


def to_cancel(node: NodeFacts | None, eviction: HostEviction | None) -> bool:
    """Whether the Eviction is to end because its Node is Ready again and nothing was done yet."""
    return bool(
        node
        and node.state == READY
        and eviction
        and eviction.for_failure
        and not eviction.finished
        and not eviction.begun
        and not (eviction.occurred_at is not None and node.since is not None and eviction.occurred_at > node.since)
    )


def cancelled(own: str, node: NodeFacts) -> Told:
    """What is told of a cancelled Eviction."""
    return Told(
        own,
        "cancel",
        "Cancelled",
        f"the Node is Ready again since {stamp(node.since)}: nothing was done",
        since=node.since,
    )
