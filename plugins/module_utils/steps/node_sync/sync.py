# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run: read, decide for each host, ask the gates for those whose time is over, write what changed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import host_return, node_state
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import Wanted
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    NOT_READY,
    READY,
    UNREACHABLE,
    GateFacts,
    NodeFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gates import (
    before_details,
    judge,
    refusal,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.node_state import Plan, Timeouts, Told
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import now_utc
from ansible_collections.c5c3.ha.plugins.module_utils.steps import gate_facts
from ansible_collections.c5c3.ha.plugins.module_utils.steps.node_sync.writing import Writer

# Hosts written side by side.
_WRITERS = 8
# Nodes without a Hypervisor that are told of in one run.
_STRAYS = 20


class Sync:
    """The work of one run of the step."""

    def __init__(
        self, client: Client, nova: Nova, params: dict, timeouts: Timeouts, limits: Limits, check_mode: bool
    ) -> None:
        self.nova = nova
        self.timeouts = timeouts
        self.limits = limits
        self.facts: GateFacts = gate_facts.cluster(client, nova, params)
        for name in ("nodes", "hypervisors", "evictions"):
            if getattr(self.facts, name) is None:
                raise HaError(
                    f"nothing is decided, since it is not known how the Nodes are: {self.facts.troubles[name]}"
                )
        self.nodes, self.hypervisors = self.facts.nodes or {}, self.facts.hypervisors or {}
        self.evictions, self.services = self.facts.evictions or {}, self.facts.services or {}
        self.writer = Writer(client, nova, params["api_group"], check_mode)
        self.due: list[float] = []

    def run(self) -> dict:
        """Return the step's result."""
        plans, wanted = self._decide()
        jobs: list[tuple[str, Callable[[], list[Told]]]] = [
            (host, lambda plan=plan: self.writer.host(plan, self.hypervisors[plan.host], self.services.get(plan.host)))
            for host, plan in plans.items()
            if plan.told or plan.service or plan.changes(self.hypervisors[host])
        ]
        for host, node in self.nodes.items():
            if host in self.hypervisors and node_state.to_cancel(node, self.evictions.get(host)):
                jobs.append((host, lambda node=node: self.writer.cancel(self.hypervisors[node.name], node)))
        jobs += self._returns() + self._strays()
        told = self._all(jobs)
        # Last, and one after the other: by now the Hypervisor says why.
        for want in wanted:
            plan, own = plans[want.name], self.hypervisors[want.name]
            told += self._all([(want.name, lambda want=want, plan=plan, own=own: self.writer.evict(plan, own, want))])
        return self._result(told)

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _decide(self) -> tuple[dict[str, Plan], list[Wanted]]:
        plans, overdue = {}, []
        for host, own in self.hypervisors.items():
            node, eviction = self.nodes.get(host), self.evictions.get(host)
            made = node_state.plan(own, node, self.services.get(host), eviction, self.timeouts, self.facts.now)
            plans[host] = node_state.answered(made, own, node, eviction)
            if node is None or not own.high_availability:
                continue
            due = self.timeouts.due(node)
            if due is not None and due > self.facts.now:
                self.due.append(due)
            if node_state.overdue(own, node, eviction, self.timeouts, self.facts.now):
                overdue.append(node)
        wanted = []
        # Who waits longest goes first; what is let through counts for the next one.
        for node in sorted(overdue, key=lambda node: (node.since or 0.0, node.name)):
            plans[node.name], want = self._judge(plans[node.name], node)
            if want:
                wanted.append(want)
        return plans, wanted

    def _judge(self, plan: Plan, node: NodeFacts) -> tuple[Plan, Wanted | None]:
        host = node.name
        verdicts = before_details(judge(host, self.facts, self.limits))
        if refusal(verdicts) is None:
            # Only now is Nova asked for this host: of a mass failure most are refused before.
            self.facts = gate_facts.with_work(self.facts, self.nova, [host])
            verdicts = judge(host, self.facts, self.limits)
        plan, want = node_state.judged(plan, self.hypervisors[host], node, verdicts)
        if want:
            self.facts = self.facts.with_eviction(host)
        return plan, want

    def _returns(self) -> list:
        jobs = []
        for host, service in self.services.items():
            own, node, eviction = self.hypervisors.get(host), self.nodes.get(host), self.evictions.get(host)
            if own is None or not host_return.candidate(own, node, service, eviction):
                continue
            migrations = self._migrations(host)
            here = self._servers(host) if host_return.open_records(host, migrations) else ()
            decided = host_return.decide(node, service, eviction, migrations, self.timeouts.ready, self.facts.now, here)
            if decided.due:
                self.due.append(decided.due)
            jobs.append((host, lambda o=own, s=service, d=decided: self.writer.give_back(o, s, d)))
        return jobs

    def _migrations(self, host: str):
        try:
            return self.nova.migrations(host=host)
        except NovaError:
            return None

    def _servers(self, host: str) -> list[str]:
        try:
            return [server.id for server in self.nova.servers_on(host)]
        except NovaError:
            return []

    def _strays(self) -> list:
        strays = sorted(set(self.nodes) & set(self.services) - set(self.hypervisors))[:_STRAYS]
        return [(host, lambda host=host: self.writer.stray(host)) for host in strays]

    # -- writing -------------------------------------------------------------------------------------------------------

    def _all(self, jobs: list) -> list[Told]:
        """Do the jobs side by side; one host's trouble does not keep the others from it."""
        told: list[Told] = []
        with ThreadPoolExecutor(max_workers=_WRITERS) as pool:
            futures = [(host, pool.submit(job)) for host, job in jobs]
            for host, future in futures:
                try:
                    told += future.result()
                except HaError as error:
                    self.writer.warnings.append(f"{host}: {error}")
        return told

    def _result(self, told: list[Told]) -> dict:
        states = Counter(self.nodes[host].state for host in self.hypervisors if host in self.nodes)
        counts = {
            "hypervisors": len(self.hypervisors),
            "ready": states[READY],
            "not_ready": states[NOT_READY],
            "unreachable": states[UNREACHABLE],
        }
        now = time.time()
        result = {
            "changed": self.writer.changed,
            "decisions": [{"time": now_utc(), **one.line()} for one in told],
            "nodes": counts,
            "next_check": max(0.0, round(min(self.due) - now, 3)) if self.due else None,
            "diff": self.writer.diff,
            "msg": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
            + f"; {len(told)} decisions",
        }
        if self.writer.warnings:
            result["warnings"] = self.writer.warnings
        return result
