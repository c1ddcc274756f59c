# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step maintenance: do what ``spec.maintenance`` of one Hypervisor, or of all, asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS, OPENSTACK_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import maintenance_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import MAINTENANCE_REASON
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, HaError, NotFound, NotServed
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    OPERATOR_MANAGER,
    evictions,
    get_condition,
    hypervisors,
    now_utc,
    set_condition,
    validate_name,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction as eviction_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps.written import contended, note

ARGUMENTS = {
    "argument_spec": {
        "name": {"type": "str"},
        "beside_cobaltcore": {"type": "bool"},
        **KUBERNETES_ARGS,
        **OPENSTACK_ARGS,
    },
}

TURNS = 10


def run(params: dict, check_mode: bool) -> dict:
    """Bring one Hypervisor, or all that are not settled, to what their maintenance asks for.

    :returns: changed, msg, hypervisors (name, mode, message, changed), diff.
    :raises HaError: wrong arguments, Kubernetes or Nova refuses or does not answer.
    """
    if params.get("name"):
        validate_name(params["name"])
    beside = params["beside_cobaltcore"]
    if beside is None:
        beside = params["api_group"] == rules.COBALTCORE_GROUP
    with Client.from_params(params, OPERATOR_MANAGER) as client:
        work = _Work(client, params, beside, check_mode)
        if params.get("name"):
            return work.one(params["name"])
        return work.all()


class _Work:
    def __init__(self, client: Client, params: dict, beside: bool, check_mode: bool) -> None:
        self.client = client
        self.beside = beside
        self.check_mode = check_mode
        self.hypervisors = hypervisors(params["api_group"])
        self.evictions = evictions(params["api_group"])
        self.changed = False
        self.diff: dict[str, dict] = {"before": {}, "after": {}}
        self._params = params
        self._nova: Nova | None = None

    @property
    def nova(self) -> Nova:
        """The session with Nova, opened when first needed."""
        if self._nova is None:
            self._nova = Nova.from_params(self._params)
        return self._nova

    def one(self, name: str) -> dict:
        """Do one Hypervisor."""
        hypervisor = self.client.get(self.hypervisors, name)
        if hypervisor is None:
            return self._result([], f"there is no Hypervisor {name}")
        done = self._do(hypervisor)
        return self._result([done], f"{done['mode'] or 'no maintenance'}: {done['message']}")

    def all(self) -> dict:
        """Do all that are not settled, and those whose service a maintenance of ours that is over left disabled."""
        services = {} if self.beside else {one.host: one for one in self.nova.services()}
        left = {host for host, one in services.items() if one.disabled_reason.startswith(MAINTENANCE_REASON)}

        def open_(hypervisor: dict) -> dict | None:
            done = rules.settled(hypervisor, self.beside) and hypervisor["metadata"]["name"] not in left
            return None if done else hypervisor

        listed = self.client.list(self.hypervisors, project=open_)
        done, refused = [], []
        for hypervisor in filter(None, listed):
            try:
                done.append(self._do(hypervisor, services))
            except HaError as error:
                refused.append(f"{hypervisor['metadata']['name']}: {error}")
        if refused:
            raise HaError(f"{len(refused)} of {len(done) + len(refused)} Hypervisors failed: {'; '.join(refused[:3])}")
        return self._result(done, f"{len(done)} of {len(listed)} Hypervisors looked at")

    def _result(self, done: list[dict], message: str) -> dict:
        return {"changed": self.changed, "hypervisors": done, "msg": message, "diff": self.diff}

    def _do(self, hypervisor: dict, services: Mapping[str, ServiceFacts] | None = None) -> dict:
        name = hypervisor["metadata"]["name"]
        for _turn in range(TURNS):
            facts = self._look(hypervisor, services or {})
            plan = rules.plan(facts)
            try:
                acted = self._act(facts, plan)
            except NotServed:
                raise
            except (Conflict, NotFound):
                hypervisor, services = self.client.get(self.hypervisors, name), None
                if hypervisor is None:
                    return {"name": name, "mode": "", "message": "the Hypervisor is gone", "changed": False}
                continue
            self.changed |= acted
            return {"name": name, "mode": facts.mode, "message": plan.message, "changed": acted}
        raise contended(name, TURNS)

    def _look(self, hypervisor: dict, services: Mapping[str, ServiceFacts]) -> rules.Facts:
        facts = rules.Facts(hypervisor, beside=self.beside)
        facts = replace(facts, eviction=self.client.get(self.evictions, facts.name))
        if rules.needs_service(facts):
            facts = replace(facts, service=services.get(facts.name) or self.nova.service(facts.name))
            if facts.name in services and rules.outdated(facts):
                facts = replace(facts, service=self.nova.service(facts.name))  # it was read before the Hypervisor
        if rules.needs_left(facts):
            facts = replace(facts, left=tuple(one.name or one.id for one in self.nova.servers_on(facts.name)))
        return facts

    def _act(self, facts: rules.Facts, plan: rules.Plan) -> bool:
        """Do it in the plan's order; each part can be done twice. Return whether anything changed."""
        changed = False
        if plan.service and facts.service:
            if not self.check_mode:
                self.nova.update_service(facts.service.id, **plan.service)
            was = {"status": "enabled" if facts.service.enabled else "disabled"}
            if facts.service.disabled_reason:
                was["disabled_reason"] = facts.service.disabled_reason
            if facts.service.forced_down:
                was["forced_down"] = True
            note(self.diff, facts.name, {"service": was}, {"service": plan.service})
            changed = True
        if plan.remove_eviction and facts.eviction:
            metadata = facts.eviction["metadata"]
            if self.client.delete(self.evictions, facts.name, uid=metadata["uid"], dry_run=self.check_mode):
                note(self.diff, facts.name, {"eviction": facts.eviction["spec"]}, {"eviction": None})
                changed = True
        hypervisor, written = self._write(facts, plan)
        changed |= written
        if plan.evict:
            begun = plan.begun or (get_condition(hypervisor, rules.EVICTING) or {}).get("lastTransitionTime")
            wanted = replace(plan.evict, occurred_at=begun or now_utc())
            made = eviction_step.present(self.client, self.evictions, wanted, self.check_mode)
            if made["changed"]:
                shown_ = {key: (value or {}).get("spec") for key, value in made["diff"].items()}
                note(self.diff, facts.name, {"eviction": shown_["before"]}, {"eviction": shown_["after"]})
                changed = True
        return changed

    def _write(self, facts: rules.Facts, plan: rules.Plan) -> tuple[dict, bool]:
        hypervisor = facts.hypervisor
        changed = False
        if plan.spec:
            body = {"metadata": self._precondition(hypervisor), "spec": dict(plan.spec)}
            answer = self.client.patch(self.hypervisors, facts.name, body, dry_run=self.check_mode)
            # A dry run stores nothing: the next write stands on what is there.
            hypervisor = hypervisor if self.check_mode else answer
            note(self.diff, facts.name, {"spec": _of(facts.hypervisor, "spec", plan.spec)}, {"spec": dict(plan.spec)})
            changed = True
        status: dict = {} if plan.evicted is None else {"evicted": plan.evicted}
        if plan.conditions:
            status["conditions"] = self._conditions(hypervisor, plan)
        if status:
            body = {"metadata": self._precondition(hypervisor), "status": status}
            before = {"status": _of(hypervisor, "status", status)}
            hypervisor = self.client.patch(
                self.hypervisors, facts.name, body, subresource="status", dry_run=self.check_mode
            )
            note(self.diff, facts.name, before, {"status": status})
            changed = True
        return hypervisor, changed

    @staticmethod
    def _precondition(hypervisor: dict) -> dict:
        return {"resourceVersion": hypervisor["metadata"]["resourceVersion"]}

    @staticmethod
    def _conditions(hypervisor: dict, plan: rules.Plan) -> list[dict]:
        listed = (hypervisor.get("status") or {}).get("conditions") or []
        now = now_utc()
        if plan.evict and plan.begun is None:
            # Asked for anew: the mark has to have the new time, even if it says True already.
            listed = [one for one in listed if one.get("type") != rules.EVICTING]
        for kind, value in plan.conditions.items():
            if value is None:
                listed = [one for one in listed if one.get("type") != kind]
            else:
                listed = set_condition(listed, kind, value[0], value[1], value[2], now)
        return listed


def _of(obj: dict, part: str, fields: Mapping) -> dict:
    """What a part of an object has in these fields."""
    there = obj.get(part) or {}
    return {key: there[key] for key in fields if key in there}
