"""What changes on a Hypervisor, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import hypervisor_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

T0, T1 = "2026-11-24T09:00:00.000000Z", "2026-11-24T09:00:01.000000Z"


def test_nothing_given_wants_nothing():
    assert rules.wanted_spec({}) == {}
    assert rules.wanted_status({}) == {}


def test_maintenance_by_hand_needs_words():
    for reason in (None, "", "  "):
        with pytest.raises(ArgumentError, match="maintenance_reason"):
            rules.wanted_spec({"maintenance": "manual", "maintenance_reason": reason})
    assert rules.wanted_spec({"maintenance": "manual", "maintenance_reason": "why"}) == {
        "maintenance": "manual",
        "maintenanceReason": "why",
    }


def test_the_end_of_maintenance_takes_the_reason_along():
    assert rules.wanted_spec({"maintenance": ""}) == {"maintenance": "", "maintenanceReason": None}
    with pytest.raises(ArgumentError, match="leave the reason out"):
        rules.wanted_spec({"maintenance": "", "maintenance_reason": "why"})


def test_false_is_a_wish():
    assert rules.wanted_spec({"high_availability": False}) == {"highAvailability": False}
    assert rules.wanted_status({"libvirt_connected": False}) == {"agent": {"libvirtConnected": False}}


def test_fencing_is_replaced_whole():
    """A stale address beside a new agent would switch off the wrong host."""
    spec = rules.wanted_spec(
        {"fencing": {"agent": "fence_ipmilan", "address": None, "system_id": None, "secret_ref": None}}
    )
    existing = {"fencing": {"agent": "fence_redfish", "address": "bmc1", "secretRef": {"name": "s", "namespace": "n"}}}
    assert rules.merged(existing, rules.changes(existing, spec)) == {"fencing": {"agent": "fence_ipmilan"}}


def test_a_new_secret_leaves_no_namespace_of_the_old_one():
    spec = rules.wanted_spec({"fencing": {"agent": "f", "secret_ref": {"name": "t", "namespace": None}}})
    existing = {"fencing": {"agent": "f", "secretRef": {"name": "s", "namespace": "n"}}}
    assert rules.merged(existing, rules.changes(existing, spec)) == {
        "fencing": {"agent": "f", "secretRef": {"name": "t"}}
    }


def test_empty_fencing_removes_it():
    assert rules.wanted_spec({"fencing": {}}) == {"fencing": None}
    assert rules.wanted_spec({"fencing": {"agent": None, "address": None}}) == {"fencing": None}


def test_fencing_without_an_agent():
    with pytest.raises(ArgumentError, match="agent"):
        rules.wanted_spec({"fencing": {"address": "bmc1"}})


def test_fencing_parameters_are_replaced_whole():
    spec = rules.wanted_spec({"fencing": {"agent": "f", "parameters": {"power_wait": 2}}})
    existing = {"fencing": {"agent": "f", "parameters": {"cipher": "3"}}}
    merged = rules.merged(existing, rules.changes(existing, spec))
    assert merged == {"fencing": {"agent": "f", "parameters": {"power_wait": "2"}}}
    spec = rules.wanted_spec({"fencing": {"agent": "f"}})
    assert rules.merged(existing, rules.changes(existing, spec)) == {"fencing": {"agent": "f"}}


@pytest.mark.parametrize("parameters", [{"method": "cycle"}, {"cipher": "3 -v"}, {"ssl_insecure": True}, {1: 2}])
def test_fencing_parameters_that_are_refused(parameters):
    with pytest.raises(ArgumentError, match="ssl_insecure"):
        rules.wanted_spec({"fencing": {"agent": "f", "parameters": parameters}})


def test_instances_are_counted_and_sorted():
    instances = [{"id": "b", "name": "n2", "active": False}, {"id": "a", "name": "n1", "active": True}]
    status = rules.wanted_status({"instances": instances})
    assert [item["id"] for item in status["instances"]] == ["a", "b"]
    assert status["numInstances"] == 2
    assert rules.wanted_status({"instances": []}) == {"instances": [], "numInstances": 0}


def test_heartbeat_is_a_time():
    assert rules.wanted_status({"agent_heartbeat": "2026-11-24T09:00:00Z"}) == {"agent": {"heartbeatTime": T0}}
    with pytest.raises(ArgumentError, match="agent_heartbeat"):
        rules.wanted_status({"agent_heartbeat": "soon"})


def test_an_overtaken_word_of_the_agent_is_dropped_and_the_operators_stays():
    status = rules.wanted_status({"agent_heartbeat": T0, "instances": [], "node_state": "Ready"})
    existing = {"status": {"agent": {"heartbeatTime": T1}}}
    assert rules.drop_stale(existing, status) == {"nodeState": "Ready"}
    assert rules.drop_stale({"status": {"agent": {"heartbeatTime": T0}}}, status) == status
    for nothing in (None, {}, {"status": {}}, {"status": {"agent": {"version": "1"}}}):
        assert rules.drop_stale(nothing, status) == status


def test_labels():
    assert rules.checked_labels(None) == {}
    assert rules.checked_labels({"a": "b", "c": None}) == {"a": "b", "c": None}
    with pytest.raises(ArgumentError, match="'a' is not text"):
        rules.checked_labels({"a": 1})


# --- merge patches --------------------------------------------------------------------------------------------------


def test_only_what_differs_is_patched():
    existing = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
    assert rules.changes(existing, {"a": 1, "b": {"c": 2}, "e": [1], "f": None}) == {}
    assert rules.changes(existing, {"b": {"c": 9, "d": None}}) == {"b": {"c": 9, "d": None}}
    assert rules.changes(None, {"a": {"b": None}}) == {"a": {}}
    assert rules.changes({"a": 1}, {"a": None}) == {"a": None}


values = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def without_none(value):
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return value


@given(objects.map(without_none), objects)
def test_a_patch_leads_there_and_is_then_empty(existing, wanted):
    patch = rules.changes(existing, wanted)
    there = rules.merged(existing, patch)
    assert there == rules.merged(existing, wanted)
    assert rules.changes(there, wanted) == {}
