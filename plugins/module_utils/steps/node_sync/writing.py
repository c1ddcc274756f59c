# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_sync writes: a Hypervisor's state and conditions, Events, compute services, Evictions. Thin I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import host_return, node_state
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import Wanted
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import stamp
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    HypervisorFacts,
    NodeFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_reading import HOST_RETURN, host_eviction
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.node_state import Plan, Told
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, Forbidden
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    EVENTS,
    NODES,
    OPERATOR_MANAGER,
    Resource,
    evictions,
    hypervisors,
    now_utc,
    set_condition,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction as eviction_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps.false_error import falsely_in_error
from ansible_collections.c5c3.ha.plugins.module_utils.steps.written import contended, note

# Where Kubernetes keeps Events of resources without a namespace.
EVENT_NAMESPACE = "default"
# Of one run; the log and the conditions tell all.
MAX_EVENTS = 50
TURNS = 10


class Writer:
    """Writes for one host at a time; several threads use it side by side.

    :ivar diff: before and after, by host.
    """

    def __init__(self, client: Client, nova: Nova, group: str, check_mode: bool) -> None:
        self.client = client
        self.nova = nova
        self.check_mode = check_mode
        self.hypervisors: Resource = hypervisors(group)
        self.evictions: Resource = evictions(group)
        self.changed = False
        self.diff: dict[str, dict] = {"before": {}, "after": {}}
        self.warnings: list[str] = []
        self._events = 0

    def host(self, plan: Plan, own: HypervisorFacts, service: ServiceFacts | None) -> list[Told]:
        """Write what the plan says, but for the Eviction; return what was told."""
        # The told evict is said once the Eviction is made.
        told = [one for one in plan.told if one.decision != "evict"]
        for one in told:
            self.event(one, own)
        if plan.changes(own):
            self.status(own.name, plan.node_state, dict(plan.conditions))
        if plan.service and service:
            self.service(service, dict(plan.service))
        return told

    def status(self, host: str, node_state_: str | None, conditions: dict[str, tuple]) -> None:
        """Write nodeState (None leaves it) and conditions of a Hypervisor; those of others stay."""
        for _turn in range(TURNS):
            existing = self.client.get(self.hypervisors, host)
            if existing is None:
                return
            old = existing.get("status") or {}
            listed = old.get("conditions") or []
            for kind, (status, reason, message, since) in conditions.items():
                listed = set_condition(listed, kind, status, reason, message, stamp(since) or now_utc())
            patch: dict = {"conditions": listed} if listed != (old.get("conditions") or []) else {}
            if node_state_ is not None and node_state_ != (old.get("nodeState") or ""):
                patch["nodeState"] = node_state_ or None
            if not patch:
                return
            body = {"metadata": {"resourceVersion": existing["metadata"]["resourceVersion"]}, "status": patch}
            try:
                self.client.patch(self.hypervisors, host, body, subresource="status", dry_run=self.check_mode)
            except Conflict:
                continue
            self._note(host, {key: old.get(key) for key in patch}, patch)
            return
        raise contended(host, TURNS)

    def _note(self, host: str, before: dict, after: dict) -> None:
        """Something was changed."""
        self.changed = True
        note(self.diff, host, before, after)

    def service(self, service: ServiceFacts, changes: dict) -> None:
        """Change a compute service, with a fresh look at whether its reason is still ours to replace."""
        now = self.nova.service(service.host)
        if now is None or (now.enabled, now.disabled_reason) != (service.enabled, service.disabled_reason):
            return  # somebody was faster; the next run sees what is
        if not self.check_mode:
            self.nova.update_service(service.id, **changes)
        before = {"status": "enabled" if service.enabled else "disabled", "disabled_reason": service.disabled_reason}
        self._note(service.host, {"service": before}, {"service": changes})

    def evict(self, plan: Plan, own: HypervisorFacts, wanted: Wanted) -> list[Told]:
        """Make the Eviction; tell it when it is new."""
        told = [one for one in plan.told if one.decision == "evict"]
        for one in told:
            self.event(one, own)
        made = eviction_step.present(self.client, self.evictions, wanted, self.check_mode)
        if not made["changed"]:
            return []
        before, after = ((made["diff"][side] or {}).get("spec") for side in ("before", "after"))
        self._note(own.name, {"eviction": before}, {"eviction": after})
        return told

    def cancel(self, own: HypervisorFacts, node: NodeFacts) -> list[Told]:
        """End the Eviction as Cancelled, if nothing was done for it until now."""
        existing = self.client.get(self.evictions, own.name)
        if existing is None or not node_state.to_cancel(node, host_eviction(existing)):
            return []
        told, now = node_state.cancelled(own.name, node), now_utc()
        old = existing.get("status") or {}
        status = {
            "conditions": set_condition(old.get("conditions"), "Evicting", "False", told.reason, told.message, now),
            "holder": None,
            "finishedAt": now,
            "outstandingInstances": [],
            "observedOccurredAt": existing["spec"].get("occurredAt"),
        }
        body = {"metadata": {"resourceVersion": existing["metadata"]["resourceVersion"]}, "status": status}
        try:
            # Whoever is about to fence writes that first: only one of the two writes succeeds.
            self.client.patch(self.evictions, own.name, body, subresource="status", dry_run=self.check_mode)
        except Conflict:
            return []
        self._note(
            own.name,
            {"eviction": {"conditions": old.get("conditions")}},
            {"eviction": {"conditions": status["conditions"]}},
        )
        self.event(told, own)
        return [told]

    def give_back(self, own: HypervisorFacts, service: ServiceFacts, decided: host_return.Return) -> list[Told]:
        """Do what :mod:`host_return` decided, and tell it; waiting is told once."""
        if decided.act is None:
            return self._return_waits(own, decided.reason, decided.message)
        if decided.act == host_return.CLEAR:
            try:
                if not self.check_mode:
                    self.nova.update_service(service.id, forced_down=False)
                self._note(own.name, {"service": {"forced_down": True}}, {"service": {"forced_down": False}})
            except NovaError as error:
                if error.status != 400:
                    raise
                # Its restarted nova-compute is still at its records; the next run tries again.
                return self._return_waits(own, "EvacuationsOpen", str(error))
        else:
            righted = self._put_right(own.name, decided.overtaken)
            if righted:
                decided = replace(decided, message=f"{decided.message}; {host_return.righted(righted)}")
            self.service(service, {"status": "enabled"})
        enabled = decided.act == host_return.ENABLE
        conditions = {HOST_RETURN: ("True" if enabled else "False", decided.reason, decided.message, None)}
        if enabled:
            conditions["HypervisorDisabled"] = ("False", "Succeeded", "Hypervisor is enabled", None)
        self.status(own.name, None, conditions)
        told = Told(own.name, "return", decided.reason, decided.message)
        self.event(told, own)
        return [told]

    def _put_right(self, host: str, servers: Iterable[str]) -> list[str]:
        """Reset those that run on another host and are in ERROR; who they are."""
        righted = []
        for server in servers:
            if not falsely_in_error(self.nova, server, lambda now: now not in (None, host)):
                continue
            if not self.check_mode:
                self.nova.reset_state(server)
            righted.append(server)
        if righted:
            self._note(
                host, {"servers": dict.fromkeys(righted, "error")}, {"servers": dict.fromkeys(righted, "active")}
            )
        return righted

    def _return_waits(self, own: HypervisorFacts, reason: str, message: str) -> list[Told]:
        before = own.conditions.get(HOST_RETURN, ())
        if before != ("False", reason, message):
            # It says what a person has to do, which changes with each record that is done.
            self.status(own.name, None, {HOST_RETURN: ("False", reason, message, None)})
        return [] if before[:2] == ("False", reason) else [Told(own.name, "return-wait", reason, message)]

    def stray(self, host: str) -> list[Told]:
        """Tell of a Node with a nova-compute and without a Hypervisor, once while its Event is kept."""
        told = Told(
            host, "no-hypervisor", "NoHypervisor", f"there is no Hypervisor {host}: nothing is done when the host fails"
        )
        return [told] if self.event(told, None, of_node=True) else []

    def event(self, told: Told, own: HypervisorFacts | None, of_node: bool = False) -> bool:
        """Write a Kubernetes Event; return whether it is new. The log tells what an Event cannot."""
        if self.check_mode:
            return True
        if self._events >= MAX_EVENTS:
            return False
        resource = NODES if of_node else self.hypervisors
        # Named by what it tells: a run that was killed after it and is made up for does not tell it twice.
        about = f"{told.decision} {told.reason} {told.gate} {told.since if told.since else told.message}"
        name = f"{told.host[:230].rstrip('-.')}.{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        now = now_utc()
        body = EVENTS.body(
            name,
            EVENT_NAMESPACE,
            involvedObject={
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "name": told.host,
                **({"uid": own.uid} if own else {}),
            },
            reason=told.reason[:128],
            message=told.message[:1000],
            type="Warning" if told.warning else "Normal",
            source={"component": OPERATOR_MANAGER},
            reportingComponent=OPERATOR_MANAGER,
            action=told.decision,
            count=1,
            firstTimestamp=now[:19] + "Z",
            lastTimestamp=now[:19] + "Z",
        )
        try:
            self.client.create(EVENTS, body, namespace=EVENT_NAMESPACE)
        except Conflict:
            return False
        except Forbidden as error:
            self.warnings.append(f"Events are not written: {error}")
            self._events = MAX_EVENTS
            return False
        self._events += 1
        return True
