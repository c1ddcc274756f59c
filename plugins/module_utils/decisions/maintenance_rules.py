# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``spec.maintenance`` of a Hypervisor asks for, and what is missing to it. Pure functions over plain data.

The modes are those of CobaltCore's operator: manual, auto and termination empty the host and keep it out of service;
``ha`` says that the HA service has the host in hand. Where that operator runs itself, it does the first three, and ours
are ``ha`` and the condition HaEnabled only.

The condition Evicting of the Hypervisor is the mark that a maintenance was begun: written before the Eviction is made,
its lastTransitionTime is that Eviction's occurredAt, and it is removed last when the maintenance is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_rules import (
    Wanted,
    answered_fault,
    finish_time,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import seconds
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import (
    MAINTENANCE_REASON,
    change,
    changed_facts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, is_finished

EMPTYING = ("manual", "auto", "termination")
HA = "ha"
# How spec.reason of an Eviction begins that a maintenance made, and spec.maintenanceReason of a mode ha that is ours.
EVICTION_MARK = "spec.maintenance is "
HA_MARK = "c5c3.ha: "
COBALTCORE_GROUP = "kvm.cloud.sap"

DISABLED, EVICTING, HA_ENABLED = "HypervisorDisabled", "Evicting", "HaEnabled"
Condition = tuple[str, str, str]  # status, reason, message


@dataclass(frozen=True)
class Facts:
    """One host.

    :ivar hypervisor: the Hypervisor as read.
    :ivar eviction: the Eviction named as the host, None when there is none.
    :ivar service: its nova-compute, None when Nova knows none.
    :ivar left: names of the servers that Nova sees on it; None when that was not asked.
    :ivar beside: CobaltCore's own operator runs here.
    """

    hypervisor: dict
    eviction: dict | None = None
    service: ServiceFacts | None = None
    left: tuple[str, ...] | None = None
    beside: bool = False

    @property
    def name(self) -> str:
        """Name of the host."""
        return self.hypervisor["metadata"]["name"]

    @property
    def mode(self) -> str:
        """``spec.maintenance``, empty for none."""
        return (self.hypervisor.get("spec") or {}).get("maintenance") or ""


@dataclass(frozen=True)
class Plan:
    """What to do, in this order; nothing of it when all is as it should be.

    :ivar service: fields to change on the compute service.
    :ivar remove_eviction: the Eviction goes.
    :ivar spec: fields to set on the Hypervisor's spec, None removes.
    :ivar conditions: conditions to set, None removes; others stay.
    :ivar evicted: ``status.evicted``, None leaves it.
    :ivar begun: when the Eviction was asked for, None for now.
    :ivar evict: the Eviction to ask for, without its time.
    :ivar message: what it comes to, in words.
    """

    service: Mapping[str, str] = field(default_factory=dict)
    remove_eviction: bool = False
    spec: Mapping[str, str | None] = field(default_factory=dict)
    conditions: Mapping[str, Condition | None] = field(default_factory=dict)
    evicted: bool | None = None
    begun: str | None = None
    evict: Wanted | None = None
    message: str = "nothing to do"


def settled(hypervisor: dict, beside: bool) -> bool:
    """Tell whether nothing is left to do for a Hypervisor, as far as it says itself.

    A host that is out of service without a maintenance waits for its return, which is looked at again and again.
    """
    mode = Facts(hypervisor).mode
    conditions = _conditions(hypervisor)
    wanted = ha_enabled(hypervisor, beside)
    if wanted is not None and conditions.get(HA_ENABLED, ())[:2] != wanted[:2]:
        return False
    disabled = conditions.get(DISABLED, ("",))[0] == "True"
    if mode in EMPTYING:
        return beside or conditions.get(EVICTING, ("",))[0] == "False"
    if mode == HA:
        return disabled
    return not disabled and (beside or not _begun(hypervisor))


def needs_service(facts: Facts) -> bool:
    """Whether the compute service decides something: it has to be read."""
    return not (facts.beside and facts.mode in EMPTYING)


def outdated(facts: Facts) -> bool:
    """Whether the Hypervisor says that it is disabled while Nova says the contrary, and nobody vouches for its being down.

    To be asked of a service that was read after the Hypervisor: whoever disables one says so afterwards.
    """
    service = facts.service
    said = _conditions(facts.hypervisor).get(DISABLED, ("",))[0] == "True"
    return said and service is not None and service.enabled and not service.forced_down


def needs_left(facts: Facts) -> bool:
    """Whether it has to be asked which servers are left on the host."""
    return not facts.beside and facts.mode in EMPTYING and _answer(facts) == "Succeeded"


def ha_enabled(hypervisor: dict, beside: bool) -> Condition | None:
    """The condition HaEnabled as it should be (upstream.md 2.4, reasons of its table 1.1); None to leave it alone.

    Where CobaltCore's operator onboards hosts, it waits for HaEnabled in that: nothing is said before it begins.
    """
    conditions = _conditions(hypervisor)
    onboarding = conditions.get("Onboarding")
    if (hypervisor.get("spec") or {}).get("highAvailability") is False:
        return ("False", "Succeeded", "HA disabled per spec")
    if onboarding is None and beside:
        return None
    if onboarding is not None and onboarding[1] in ("Initial", "Testing", "Aborted"):
        return ("False", "Onboarding", "HA disabled before onboarding")
    if conditions.get(EVICTING, ())[:2] == ("False", "Succeeded"):
        return ("False", "Evicted", "HA disabled due to eviction")
    return ("True", "Succeeded", "HA is enabled")


def plan(facts: Facts) -> Plan:
    """Say what is missing to what ``spec.maintenance`` asks for."""
    if facts.mode == HA:
        made = _ha(facts)
    elif facts.beside:
        made = _failed(facts) if facts.mode == "" else Plan(message=f"{facts.mode} is done by CobaltCore's operator")
    elif facts.mode in EMPTYING:
        made = _emptying(facts)
    else:
        made = _over(facts)
    after = with_conditions(facts.hypervisor, made.conditions)
    wanted = ha_enabled(after, facts.beside)
    conditions = {**made.conditions, **({HA_ENABLED: wanted} if wanted is not None else {})}
    has = _conditions(facts.hypervisor)
    anew = made.evict is not None and made.begun is None  # the mark gets a new time, whatever it says now
    missing = {
        kind: value for kind, value in conditions.items() if has.get(kind) != value or (anew and kind == EVICTING)
    }
    evicted = made.evicted if made.evicted != _status(facts.hypervisor).get("evicted", False) else None
    return Plan(made.service, made.remove_eviction, made.spec, missing, evicted, made.begun, made.evict, made.message)


def _emptying(facts: Facts) -> Plan:
    spec = facts.hypervisor["spec"]
    why = spec.get("maintenanceReason") or ""
    service = facts.service
    # Only a reason of ours is replaced: what a person or Nova said stays.
    wanted = f"{MAINTENANCE_REASON}={facts.mode}"
    fields = change(service, "disabled", wanted, None, MAINTENANCE_REASON) if service else {}
    conditions: dict[str, Condition | None] = {}
    if service:
        conditions[DISABLED] = ("True", "Succeeded", "Hypervisor is disabled")
    answer, mark = _answer(facts), _conditions(facts.hypervisor).get(EVICTING)
    if mark and mark[0] == "False" and not (mark[1] == "Failed" and facts.eviction is None):
        return Plan(service=fields, conditions=conditions, message=f"{facts.mode}: {mark[2]}")
    if answer in (None, "Cancelled"):
        eviction = Wanted(
            name=facts.name,
            hypervisor=facts.name,
            reason=f"{EVICTION_MARK}{facts.mode}" + (f": {why}" if why else ""),
            cause="Maintenance",
        )
        conditions[EVICTING] = ("True", "Running", "Evicting")
        begun = _since(facts.hypervisor) if answer is None and mark and mark[0] == "True" else None
        return Plan(
            service=fields, conditions=conditions, evicted=False, begun=begun, evict=eviction, message="Evicting"
        )
    if answer == "Succeeded" and not facts.left:
        conditions[EVICTING] = ("False", "Succeeded", "Evicted")
        return Plan(service=fields, conditions=conditions, evicted=True, message="Evicted")
    if answer == "Succeeded":
        told = f"{len(facts.left)} servers are still here: {', '.join(facts.left[:5])}"
        message = f"{told}. {_said(facts)}"
    else:
        message = _said(facts)
    # A host that still has servers is never told as evicted (upstream.md, surprise 9).
    conditions[EVICTING] = ("False", "Failed", message[:1024])
    return Plan(service=fields, conditions=conditions, evicted=False, message=f"Failed: {message}")


def _over(facts: Facts) -> Plan:
    service = facts.service
    ours = service is not None and service.disabled_reason.startswith(MAINTENANCE_REASON)
    if not ours and not _begun(facts.hypervisor):
        if not outdated(facts):
            return Plan()
        told: dict[str, Condition | None] = {DISABLED: ("False", "Succeeded", "Hypervisor is enabled")}
        return Plan(conditions=told, message="enabled by somebody else")
    fields = change(service, "enabled", None, None, MAINTENANCE_REASON) if service else {}
    conditions: dict[str, Condition | None] = {EVICTING: None}
    message = "in service again"
    if service is not None:
        after = changed_facts(service, fields)
        if after.enabled:
            conditions[DISABLED] = ("False", "Succeeded", "Hypervisor is enabled")
        else:
            message = f"the maintenance is over; disabled by somebody else: {after.disabled_reason or 'no reason'}"
            conditions[DISABLED] = ("True", "Succeeded", f"Hypervisor is disabled: {after.disabled_reason}"[:1024])
    return Plan(
        service=fields,
        remove_eviction=made_by_maintenance(facts.eviction),
        conditions=conditions,
        evicted=False,
        message=message,
    )


def _ha(facts: Facts) -> Plan:
    """The HA service has the host in hand: no Eviction is made for it and its service is left as it is."""
    service = facts.service
    if service is None:
        return Plan(message="Nova knows no nova-compute on it")
    ours = ((facts.hypervisor.get("spec") or {}).get("maintenanceReason") or "").startswith(HA_MARK)
    if not service.enabled or service.forced_down:
        return Plan(
            conditions={DISABLED: ("True", "Succeeded", "Hypervisor is disabled")}, message="out of service by HA"
        )
    if ours and not _in_work(facts.eviction):
        return Plan(spec={"maintenance": "", "maintenanceReason": None}, message="returned: ha is taken back")
    return Plan(message="in the hands of HA, and its compute service is enabled")


def _failed(facts: Facts) -> Plan:
    """Beside CobaltCore's operator: a host that we emptied after a failure says so (upstream.md 2.4)."""
    service, eviction = facts.service, facts.eviction
    cause = ((eviction or {}).get("spec") or {}).get("cause") or ""
    if service is None or service.enabled or not service.forced_down or not cause.startswith("Node"):
        return Plan()
    return Plan(
        spec={"maintenance": HA, "maintenanceReason": f"{HA_MARK}{cause}"},
        conditions={DISABLED: ("True", "Succeeded", "Hypervisor is disabled")},
        message=f"ha: {cause}",
    )


def made_by_maintenance(eviction: dict | None) -> bool:
    """Whether a maintenance of ours made an Eviction."""
    return (((eviction or {}).get("spec") or {}).get("reason") or "").startswith(EVICTION_MARK)


def with_conditions(hypervisor: dict, conditions: Mapping[str, Condition | None]) -> dict:
    """Return a Hypervisor whose conditions say so, for questions about it; times are left out."""
    status = _status(hypervisor)
    kept = [one for one in status.get("conditions") or [] if one.get("type") not in conditions]
    new = [
        {"type": kind, "status": value[0], "reason": value[1], "message": value[2]}
        for kind, value in conditions.items()
        if value is not None
    ]
    return {**hypervisor, "status": {**status, "conditions": kept + new}}


def _status(hypervisor: dict) -> dict:
    return hypervisor.get("status") or {}


def _conditions(hypervisor: dict) -> dict[str, Condition]:
    return {
        one["type"]: (one.get("status") or "", one.get("reason") or "", one.get("message") or "")
        for one in _status(hypervisor).get("conditions") or []
        if one.get("type")
    }


def _begun(hypervisor: dict) -> bool:
    return get_condition(hypervisor, EVICTING) is not None or bool(_status(hypervisor).get("evicted"))


def _since(hypervisor: dict) -> str | None:
    return (get_condition(hypervisor, EVICTING) or {}).get("lastTransitionTime")


def _in_work(eviction: dict | None) -> bool:
    return eviction is not None and not is_finished(eviction)


def _answer(facts: Facts) -> str | None:
    """How the Eviction of this maintenance ended; None while it has not, or another one is there."""
    mark = get_condition(facts.hypervisor, EVICTING)
    if facts.eviction is None or mark is None or mark.get("status") != "True" or not is_finished(facts.eviction):
        return None
    asked = seconds(mark.get("lastTransitionTime"))
    answered = seconds(answered_fault(facts.eviction) or finish_time(facts.eviction))
    if asked is not None and (answered is None or answered < asked):
        return None
    return (get_condition(facts.eviction, EVICTING) or {}).get("reason") or "Failed"


def _said(facts: Facts) -> str:
    return (get_condition(facts.eviction, EVICTING) or {}).get("message") or "its Eviction gives no reason"
