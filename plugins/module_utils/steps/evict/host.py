# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of an Eviction: reads what :mod:`decisions.host_plan` asks for, and does what it decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import host_plan
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Entry
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import seconds
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.host_plan import Fence, HostDecision, HostFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import EVICTION_REASON
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, Forbidden, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    NODES,
    get_condition,
    hypervisors,
    now_utc,
    set_condition,
    shown,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.look import View

DISABLED_REASON = EVICTION_REASON

# What the site has agreed to by unfenced_evacuation, told with every Eviction that makes use of it.
_RISK = (
    "evacuated without proof that it is off, as unfenced_evacuation allows: if it still runs, each guest runs twice and"
    " both write to the same disk"
)


class HostWork:
    """What is read of the host itself and done to it, not to its servers.

    :param call_all: runs calls side by side and returns their answers by key, keeping the claim meanwhile.
    :param acts: where what was done is told.
    """

    def __init__(
        self, client: Client, nova: Nova, params: dict, call_all: Callable[[dict], dict], acts: list[dict]
    ) -> None:
        self.client = client
        self.nova = nova
        self.params = params
        self.call_all = call_all
        self.acts = acts
        self.resource = hypervisors(params["api_group"])
        self.limits = Limits.from_params(params)
        self.settings = host_plan.Settings(
            fence_timeout=params["fence_timeout"],
            proof_seconds=params["proof_seconds"],
            backoff=params["backoff"],
            consent=params["unfenced_evacuation"],
        )
        self.fence = Fence()
        self.decisions: list[dict] = []
        """What the gates said, each answer once."""
        self.found = ""
        """What the preflight found, when nothing stands against beginning."""
        self._disabled = False

    def unknown(self, host: str, view: View) -> str | None:
        """Why the Eviction can never be worked on."""
        if view.service is not None:
            return None
        known = "check spec.hypervisor against `openstack compute service list`"
        return f"Nova knows no nova-compute on host {shown(host)}: {known}"

    # -- deciding ------------------------------------------------------------------------------------------------------

    def decide(self, host: str, cause: str, view: View, entries: dict[str, Entry]) -> HostDecision:
        """The next act for the host, on facts read just now."""
        facts = self._facts(host, cause, view, entries)
        decision = host_plan.plan(host, facts, self.settings)
        if decision.act == "Migrate":
            others = sum(1 for other in view.services if other.host != host and other.up and other.enabled)
            self.found = f"nova-compute of {host} is up and disabled; {others} others are up and enabled"
        return decision

    def _facts(self, host: str, cause: str, view: View, entries: dict[str, Entry]) -> HostFacts:
        service = view.service
        facts = HostFacts(
            cause=cause,
            now=time.time(),
            service_up=service.up,
            service_enabled=service.enabled,
            forced_down=service.forced_down,
            target=any(other.host != host and other.up and other.enabled for other in view.services),
            to_begin=any(
                not (entry := entries.get(server.id)) or not (entry.finished or entry.phase == "Evacuating")
                for server in view.on_host
            ),
            fence=self.fence,
        )
        if host_plan.needs_node(facts):
            ready, since = self._node(host)
            facts = replace(facts, node_ready=ready, node_since=since)
        if host_plan.needs_gates(facts):
            refusal, alive, told = self._ask_gates(host)
            facts = replace(facts, refusal=refusal, alive=alive)
            self.found = told
        return facts

    def _node(self, host: str) -> tuple[bool | None, float | None]:
        """Whether its Node is Ready, and since when that is so."""
        try:
            node = self.client.get(NODES, host)
        except Forbidden:
            return None, None
        if node is None:
            return None, None
        ready = get_condition(node, "Ready") or {}
        return ready.get("status") == "True", seconds(ready.get("lastTransitionTime"))

    def _ask_gates(self, host: str) -> tuple[tuple[str, str] | None, bool, str]:
        """The refusing gate's reason and message, whether the host lives, and what the gates found."""
        from ansible_collections.c5c3.ha.plugins.module_utils.decisions import gates
        from ansible_collections.c5c3.ha.plugins.module_utils.steps import gate_facts

        facts = self.call_all({"facts": lambda: gate_facts.collect(self.client, self.nova, self.params, [host])})
        verdicts = gates.judge(host, facts["facts"], self.limits)
        refused = gates.refusal(verdicts)
        self._tell(host, facts["facts"], verdicts)
        if refused:
            return (refused.reason, refused.message), False, ""
        told = "; ".join(verdict.message for verdict in verdicts)
        return None, not gates.may_fence(verdicts), told

    def _tell(self, host: str, facts, verdicts) -> None:
        """Note what the gates said, for the log, when it is another answer than before."""
        from ansible_collections.c5c3.ha.plugins.module_utils.decisions.node_state import gate_line

        line = gate_line(host, facts, verdicts)
        if not self.decisions or any(self.decisions[-1][key] != line[key] for key in ("decision", "reason", "gate")):
            self.decisions.append({"time": now_utc(), **line})

    # -- the power switch ----------------------------------------------------------------------------------------------

    def begin_fencing(self) -> None:
        """Note what is about to be sent; to be written before :meth:`switch_off`."""
        now = time.time()
        if self.fence.proven_at is None:
            told = "asking the host's power switch to prove it off"
            self.fence = replace(self.fence, begun=True, reason=host_plan.FENCING, message=told, attempted_at=now)
        else:
            self.fence = replace(self.fence, attempted_at=now)

    def switch_off(self, host: str) -> None:
        """Switch the host off and prove it; the result is in :attr:`fence`, to be written."""
        from ansible_collections.c5c3.ha.plugins.module_utils import fencing

        hypervisor = self.client.get(self.resource, host)
        if hypervisor is None:
            told = f"there is no Hypervisor {host} that says how it is fenced: create it with spec.fencing"
            result = fencing.FenceResult(False, "NotConfigured", told)
        else:
            result = self.call_all({"fence": lambda: self._call_agent(fencing.fence_hypervisor, hypervisor)})["fence"]
        self._note(host, result)

    def look(self, host: str) -> None:
        """Ask the power switch whether the host is off, and change nothing; the result is in :attr:`fence`."""
        from ansible_collections.c5c3.ha.plugins.module_utils import fencing

        def ask():
            hypervisor = self.client.get(self.resource, host) or {"metadata": {"name": host}}
            try:
                target = fencing.read_target(self.client, hypervisor, self.params["fencing_namespace"])
            except fencing.FencingError as error:
                return fencing.FenceResult(False, error.reason, str(error))
            return fencing.fence_status(target, self.params["fence_timeout"])

        self._note(host, self.call_all({"look": ask})["look"])

    def _call_agent(self, call: Callable, hypervisor: dict):
        return call(self.client, hypervisor, self.params["fence_timeout"], self.params["fencing_namespace"])

    def _note(self, host: str, result) -> None:
        self.acts.append({"act": "Fence", "host": host, "off": result.off, "reason": result.reason})
        now = time.time()
        fence = replace(self.fence, begun=True, attempts=self.fence.attempts + 1, attempted_at=now)
        if result.off:
            # Its reason stays that of the first proof: a later look finds it off already.
            reason = self.fence.reason if self.fence.proven_at is not None else result.reason
            fence = replace(fence, reason=reason, message=result.message, attempts=0, proven_at=now)
        elif result.reason == host_plan.NO_FENCING and self.settings.consent:
            fence = replace(fence, reason=host_plan.BY_CONSENT, message=f"{host} is {_RISK}", proven_at=None)
        else:
            reason = host_plan.POWERED_ON if result.power == "on" and result.reason == "On" else result.reason
            fence = replace(fence, reason=reason, message=result.message, proven_at=None)
        self.fence = fence

    # -- its compute service -------------------------------------------------------------------------------------------

    def force_down(self, view: View) -> None:
        """Tell Nova that the host is down, which it believes at once."""
        self.nova.update_service(view.service.id, forced_down=True)
        self.acts.append({"act": "ForceDown", "host": view.service.host})

    def disable(self, view: View) -> bool:
        """Disable the host's compute service, so that nothing new arrives; return whether Nova was changed."""
        changed = view.service.enabled
        if changed:
            self.nova.update_service(
                view.service.id, status="disabled", disabled_reason=f"{DISABLED_REASON} {self.params['name']}"
            )
            self.acts.append({"act": "DisableService", "host": view.service.host})
        if not self._disabled:
            self._mark_disabled(view.service.host)
            self._disabled = True
        return changed

    def _mark_disabled(self, host: str) -> None:
        try:
            hypervisor = self.client.get(self.resource, host)
            if hypervisor is None or (get_condition(hypervisor, "HypervisorDisabled") or {}).get("status") == "True":
                return
            conditions = set_condition(
                (hypervisor.get("status") or {}).get("conditions"),
                "HypervisorDisabled",
                "True",
                "Succeeded",
                "Hypervisor is disabled",
                now_utc(),
            )
            body = {
                "metadata": {"resourceVersion": hypervisor["metadata"]["resourceVersion"]},
                "status": {"conditions": conditions},
            }
            self.client.patch(self.resource, host, body, subresource="status")
        except (Conflict, NotFound, Forbidden):
            # It says what Nova says anyway; the next step says it again.
            return
