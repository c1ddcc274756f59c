# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What spec.maintenance asks for: every mode, from every state that may be found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.maintenance_rules import (
    Facts,
    ha_enabled,
    made_by_maintenance,
    needs_left,
    needs_service,
    outdated,
    plan,
    settled,
    with_conditions,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import changed_facts

ASKED, LATER, EARLIER = "2026-11-24T10:00:00.000000Z", "2026-11-24T10:05:00.000000Z", "2026-11-24T09:00:00.000000Z"
HA_ON = ("True", "Succeeded", "HA is enabled")
DISABLED = ("True", "Succeeded", "Hypervisor is disabled")
UP = ServiceFacts("id", "cmp01", True, True)
OURS = replace(UP, enabled=False, disabled_reason="c5c3.ha: maintenance=manual")
THEIRS = replace(UP, enabled=False, disabled_reason="broken fan")


def hypervisor(mode="", conditions=(), evicted=None, **spec):
    status = {"conditions": [{"lastTransitionTime": ASKED, **one} for one in conditions]}
    if evicted is not None:
        status["evicted"] = evicted
    return {
        "metadata": {"name": "cmp01", "resourceVersion": "1"},
        "spec": {"maintenance": mode, "highAvailability": True, **spec},
        "status": status,
    }


def cond(kind, status, reason, message="", **more):
    return {"type": kind, "status": status, "reason": reason, "message": message, **more}


RUNNING = cond("Evicting", "True", "Running", "Evicting")
EVICTED = cond("Evicting", "False", "Succeeded", "Evicted")
IS_DISABLED = cond("HypervisorDisabled", *DISABLED)
HAS_HA = cond("HaEnabled", *HA_ON)


def eviction(reason=None, occurred=ASKED, message="", cause="Maintenance", text="spec.maintenance is manual: fans"):
    made = {
        "metadata": {"name": "cmp01", "uid": "u", "resourceVersion": "3"},
        "spec": {"hypervisor": "cmp01", "cause": cause, "reason": text, "occurredAt": occurred},
        "status": {},
    }
    if reason:
        made["status"] = {"conditions": [cond("Evicting", "False", reason, message, lastTransitionTime=LATER)]}
    return made


# --- manual, auto, termination --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["manual", "auto", "termination"])
def test_a_maintenance_disables_says_so_and_asks_for_the_eviction(mode):
    made = plan(Facts(hypervisor(mode, maintenanceReason="fans"), None, UP))
    assert made.service == {"status": "disabled", "disabled_reason": f"c5c3.ha: maintenance={mode}"}
    assert made.conditions == {
        "HypervisorDisabled": DISABLED,
        "Evicting": ("True", "Running", "Evicting"),
        "HaEnabled": HA_ON,
    }
    assert (made.evict.name, made.evict.cause, made.evict.instances) == ("cmp01", "Maintenance", ())
    assert made.evict.reason == f"spec.maintenance is {mode}: fans"
    assert made.begun is None
    assert made_by_maintenance({"spec": made.evict.spec()})


def test_a_reason_of_somebody_else_stays_and_ours_follows_the_mode():
    assert plan(Facts(hypervisor("manual"), None, THEIRS)).service == {}
    assert plan(Facts(hypervisor("auto"), None, OURS)).service == {
        "status": "disabled",
        "disabled_reason": "c5c3.ha: maintenance=auto",
    }


def test_while_it_runs_the_same_eviction_is_asked_for_with_its_own_time():
    made = plan(Facts(hypervisor("manual", [RUNNING, IS_DISABLED, HAS_HA]), None, OURS))
    assert (made.begun, made.conditions, made.service) == (ASKED, {}, {})
    assert plan(Facts(hypervisor("manual", [RUNNING, IS_DISABLED, HAS_HA]), eviction(), OURS)).evict is not None


def test_a_finished_eviction_of_an_earlier_fault_is_no_answer():
    found = hypervisor("manual", [RUNNING, IS_DISABLED, HAS_HA])
    assert plan(Facts(found, eviction("Succeeded", EARLIER), OURS)).evict is not None
    assert not needs_left(Facts(found, eviction("Succeeded", EARLIER), OURS))


def test_succeeded_and_empty_is_evicted():
    facts = Facts(hypervisor("manual", [RUNNING, IS_DISABLED, HAS_HA]), eviction("Succeeded"), OURS)
    assert needs_left(facts)
    made = plan(replace(facts, left=()))
    assert (made.conditions["Evicting"], made.evicted, made.evict) == (("False", "Succeeded", "Evicted"), True, None)
    assert made.conditions["HaEnabled"] == ("False", "Evicted", "HA disabled due to eviction")


def test_succeeded_with_servers_left_is_not_told_as_evicted():
    facts = Facts(hypervisor("manual", [RUNNING]), eviction("Succeeded", message="1 skipped"), OURS, ("web", "db"))
    made = plan(facts)
    assert made.conditions["Evicting"] == ("False", "Failed", "2 servers are still here: web, db. 1 skipped")
    assert not made.evicted


def test_a_failed_eviction_is_never_told_as_evicted():
    facts = Facts(hypervisor("manual", [RUNNING], evicted=True), eviction("Failed", message="1 of 2 failed"), OURS)
    made = plan(facts)
    assert (made.conditions["Evicting"], made.evicted) == (("False", "Failed", "1 of 2 failed"), False)


def test_failed_and_its_eviction_removed_begins_anew():
    found = hypervisor("manual", [cond("Evicting", "False", "Failed", "no host"), IS_DISABLED, HAS_HA])
    assert plan(Facts(found, eviction("Failed"), OURS)).evict is None
    made = plan(Facts(found, None, OURS))
    assert (made.evict is not None, made.begun, made.conditions["Evicting"][0]) == (True, None, "True")


def test_a_cancelled_eviction_is_asked_for_anew_with_a_new_time():
    found = hypervisor("manual", [RUNNING, IS_DISABLED, HAS_HA])
    made = plan(Facts(found, eviction("Cancelled", LATER, cause="NodeUnreachable"), OURS))
    assert (made.evict is not None, made.begun) == (True, None)
    assert made.conditions["Evicting"] == ("True", "Running", "Evicting")  # written again for its time


def test_an_evicted_host_stays_so():
    found = hypervisor("manual", [EVICTED, IS_DISABLED, cond("HaEnabled", "False", "Evicted", "x")], evicted=True)
    made = plan(Facts(found, None, OURS))
    assert (made.evict, made.service, made.evicted) == (None, {}, None)


# --- over -----------------------------------------------------------------------------------------------------------


def test_over_removes_ours_enables_ours_and_the_mark_goes():
    made = plan(Facts(hypervisor("", [EVICTED, IS_DISABLED], evicted=True), eviction("Succeeded"), OURS))
    assert (made.service, made.remove_eviction, made.evicted) == ({"status": "enabled"}, True, False)
    assert made.conditions == {
        "Evicting": None,
        "HypervisorDisabled": ("False", "Succeeded", "Hypervisor is enabled"),
        "HaEnabled": HA_ON,
    }


def test_over_leaves_what_is_not_ours():
    foreign = eviction("Succeeded", cause="Maintenance", text="a drain by hand")
    made = plan(Facts(hypervisor("", [EVICTED, IS_DISABLED], evicted=True), foreign, THEIRS))
    assert (made.service, made.remove_eviction) == ({}, False)
    assert made.conditions["HypervisorDisabled"] == ("True", "Succeeded", "Hypervisor is disabled: broken fan")
    assert "broken fan" in made.message


def test_a_maintenance_taken_back_before_it_was_marked_leaves_nothing_disabled():
    assert plan(Facts(hypervisor(""), None, OURS)).service == {"status": "enabled"}


def test_a_host_that_was_never_in_maintenance_is_left_alone():
    for service in (
        UP,
        THEIRS,
        replace(UP, enabled=False, disabled_reason="c5c3.ha: Eviction cmp01", forced_down=True),
    ):
        made = plan(Facts(hypervisor("", [HAS_HA]), eviction(cause="NodeUnreachable"), service))
        assert (made.service, made.remove_eviction, made.conditions, made.evicted) == ({}, False, {}, None)


def test_a_host_that_a_person_gave_back_is_told_as_enabled():
    """What somebody else had disabled outlasts a maintenance, and ends without one."""
    made = plan(Facts(hypervisor("", [HAS_HA, IS_DISABLED]), None, UP))
    assert (made.service, made.conditions) == (
        {},
        {"HypervisorDisabled": ("False", "Succeeded", "Hypervisor is enabled")},
    )
    assert outdated(Facts(hypervisor("", [IS_DISABLED]), None, UP))
    for service in (THEIRS, replace(UP, forced_down=True), None):
        assert plan(Facts(hypervisor("", [HAS_HA, IS_DISABLED]), None, service)).conditions == {}
    assert not outdated(Facts(hypervisor("", [IS_DISABLED]), None, THEIRS))
    assert not outdated(Facts(hypervisor("", [HAS_HA]), None, UP))


# --- ha, and beside CobaltCore's operator -----------------------------------------------------------------------------


def test_ha_makes_no_eviction_and_leaves_the_service():
    for service in (UP, OURS, THEIRS, replace(UP, forced_down=True)):
        made = plan(Facts(hypervisor("ha"), None, service))
        assert (made.service, made.evict, made.remove_eviction, made.spec) == ({}, None, False, {})
        out = not service.enabled or service.forced_down
        assert made.conditions.get("HypervisorDisabled") == (DISABLED if out else None)


@pytest.mark.parametrize("mode", ["manual", "auto", "termination"])
def test_beside_cobaltcore_its_operator_does_the_other_modes(mode):
    facts = Facts(hypervisor(mode, [cond("Onboarding", "False", "Succeeded")]), None, None, beside=True)
    assert not needs_service(facts)
    assert not needs_left(facts)
    made = plan(facts)
    assert (made.service, made.evict, dict(made.conditions)) == ({}, None, {"HaEnabled": HA_ON})


def test_beside_cobaltcore_a_failed_host_gets_ha_and_loses_it_when_it_has_returned():
    dead = replace(UP, enabled=False, forced_down=True, disabled_reason="c5c3.ha: Eviction cmp01")
    made = plan(Facts(hypervisor(""), eviction(cause="NodeUnreachable"), dead, beside=True))
    assert made.spec == {"maintenance": "ha", "maintenanceReason": "c5c3.ha: NodeUnreachable"}
    assert made.conditions == {"HypervisorDisabled": DISABLED}
    assert plan(Facts(hypervisor(""), eviction(cause="Maintenance"), dead, beside=True)).spec == {}
    back = hypervisor("ha", [IS_DISABLED], maintenanceReason="c5c3.ha: NodeUnreachable")
    assert plan(Facts(back, eviction("Succeeded", cause="NodeUnreachable"), dead, beside=True)).spec == {}
    made = plan(Facts(back, eviction("Succeeded", cause="NodeUnreachable"), UP, beside=True))
    assert made.spec == {"maintenance": "", "maintenanceReason": None}
    assert plan(Facts(back, eviction(cause="NodeUnreachable"), UP, beside=True)).spec == {}  # still in work
    assert plan(Facts(hypervisor("ha", maintenanceReason="by hand"), None, UP, beside=True)).spec == {}


@pytest.mark.parametrize(
    ("conditions", "spec", "beside", "wanted"),
    [
        ([], {}, False, HA_ON),
        ([], {}, True, None),
        ([cond("Onboarding", "True", "Testing")], {}, True, ("False", "Onboarding")),
        ([cond("Onboarding", "True", "Handover")], {}, True, HA_ON),
        ([cond("Onboarding", "False", "Succeeded")], {}, True, HA_ON),
        ([cond("Onboarding", "False", "Aborted")], {}, True, ("False", "Onboarding")),
        ([EVICTED], {}, False, ("False", "Evicted")),
        ([cond("Evicting", "False", "Failed")], {}, False, HA_ON),
        ([], {"highAvailability": False}, True, ("False", "Succeeded")),
    ],
)
def test_ha_enabled_is_as_cobaltcores_operator_waits_for_it(conditions, spec, beside, wanted):
    found = ha_enabled(hypervisor("", conditions, **spec), beside)
    assert (found and found[: len(wanted)]) == wanted


# --- settled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "beside", "done"),
    [
        (hypervisor(""), False, False),  # HaEnabled is missing
        (hypervisor("", [HAS_HA]), False, True),
        (hypervisor("", [HAS_HA, IS_DISABLED]), False, False),  # waits for its return
        (hypervisor("", [HAS_HA, RUNNING]), False, False),
        (hypervisor("", [HAS_HA], evicted=True), False, False),
        (hypervisor("manual", [HAS_HA]), False, False),
        (hypervisor("manual", [HAS_HA, RUNNING]), False, False),
        (hypervisor("manual", [cond("HaEnabled", "False", "Evicted"), EVICTED], evicted=True), False, True),
        (hypervisor("manual", [cond("Onboarding", "False", "Succeeded"), HAS_HA]), True, True),
        (hypervisor("ha", [HAS_HA]), False, False),
        (hypervisor("ha", [HAS_HA, IS_DISABLED]), False, True),
    ],
)
def test_settled(found, beside, done):
    assert settled(found, beside) is done


# --- all together: a machine that carries plans out -------------------------------------------------------------------

MODES = st.sampled_from(["", "manual", "auto", "ha", ""])


@given(
    st.lists(st.tuples(MODES, st.sampled_from(["Succeeded", "Failed", "Cancelled", None]), st.booleans()), max_size=8)
)
def test_whatever_is_asked_for_in_whatever_order_ends_settled_and_gives_back_only_ours(story):
    found, service, there, now = hypervisor(""), UP, None, 0
    for mode, outcome, killed in [*story, ("", None, False)]:
        now += 1
        found = {**found, "spec": {**found["spec"], "maintenance": mode}}
        for step in range(6):
            left = ()
            facts = Facts(found, there, service, left)
            made = plan(facts)
            service = changed_facts(service, made.service)
            if killed and step == 0:
                continue  # died between Nova and Kubernetes
            if made.remove_eviction:
                there = None
            mark = f"2026-11-24T{now:02}:{step:02}:00.000000Z"
            old = {one["type"]: one for one in found["status"]["conditions"]}
            found = with_conditions(found, made.conditions)
            for one in found["status"]["conditions"]:
                before = old.get(one["type"], {})
                same = before.get("status") == one["status"] and not (made.evict and made.begun is None)
                one.setdefault("lastTransitionTime", before.get("lastTransitionTime") if same else mark)
            if made.evicted is not None:
                found["status"]["evicted"] = made.evicted
            if made.evict and there is None:
                there = eviction(occurred=made.begun or mark, text=made.evict.reason)
            elif made.evict and outcome:
                there = eviction(outcome, made.begun or mark, text=made.evict.reason)
    assert (service.enabled, found["status"].get("evicted") or False) == (True, False)
    assert "Evicting" not in {one["type"] for one in found["status"]["conditions"]}
    assert settled(found, False)
    assert plan(Facts(found, there, service, ())).conditions == {}
