"""Kubernetes' JSON read as facts: right values, and no field that others spoil stops a run for all hosts."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import gate_reading as reading
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import HostEviction

TIME = "2026-11-24T09:42:01Z"
CONDITION = {
    "type": "Ready",
    "status": "Unknown",
    "reason": "NodeStatusUnknown",
    "message": "m",
    "lastTransitionTime": TIME,
}
NODE = {
    "metadata": {"name": "cmp01", "labels": {reading.ZONE_LABEL: "a"}},
    "status": {"conditions": [CONDITION, {**CONDITION, "type": "DiskPressure", "status": "True"}]},
}
HYPERVISOR = {
    "metadata": {"name": "cmp01", "uid": "u"},
    "spec": {"maintenance": "manual", "highAvailability": False},
    "status": {
        "nodeState": "Ready",
        "agent": {"heartbeatTime": TIME},
        "conditions": [{**CONDITION, "type": "NodeReady"}, {**CONDITION, "type": "Foreign"}],
    },
}
EVICTION = {
    "metadata": {"name": "cmp01", "creationTimestamp": TIME},
    "spec": {"hypervisor": "cmp01", "cause": "NodeUnreachable", "reason": "r", "occurredAt": TIME},
    "status": {
        "conditions": [
            {**CONDITION, "type": "Evicting", "status": "True"},
            {**CONDITION, "type": "Fenced", "status": "False"},
            {**CONDITION, "type": "PreflightChecksSucceeded", "status": "True"},
        ],
        "instances": [{"id": "a", "attempts": 0}],
        "observedOccurredAt": TIME,
    },
}
AT = reading.epoch(TIME)
CASES = [(reading.node_facts, NODE), (reading.hypervisor_facts, HYPERVISOR), (reading.host_eviction, EVICTION)]
JUNK = (None, "", "x\x1b[31m" * 200, "2026-13-45T99:99:99Z", -1, 3.5, True, [], ["x"], [None], {}, {"x": None})


def test_right_values():
    node = reading.node_facts(NODE)
    assert (node.state, node.since, node.zone, node.pressure) == ("Unreachable", AT, "a", ("DiskPressure",))
    assert node.said == "NodeStatusUnknown: m"
    own = reading.hypervisor_facts(HYPERVISOR)
    assert (own.maintenance, own.high_availability, own.heartbeat, own.node_state) == ("manual", False, AT, "Ready")
    assert own.conditions == {"NodeReady": ("Unknown", "NodeStatusUnknown", "m")}
    eviction = reading.host_eviction(EVICTION)
    assert eviction == HostEviction("cmp01", AT, True, False, "NodeStatusUnknown", True, False, True, AT)
    assert reading.host_eviction({**EVICTION, "spec": {**EVICTION["spec"], "instances": ["a"]}}) is None


@pytest.mark.parametrize("status", ["False", "True", None])
def test_a_node_without_word_is_unreachable(status):
    conditions = [{**CONDITION, "status": status}] if status else []
    state = reading.node_facts({**NODE, "status": {"conditions": conditions}}).state
    assert state == {"False": "NotReady", "True": "Ready", None: "Unreachable"}[status]


def places(value: object, path: tuple = ()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def spoilt(obj: dict, path: tuple, junk: object) -> dict:
    made = copy.deepcopy(obj)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = junk
    return made


@pytest.mark.parametrize(("read", "obj"), CASES, ids=["node", "hypervisor", "eviction"])
def test_a_spoilt_field_stops_nothing(read, obj):
    # Of metadata the API server sees to name and uid.
    for path in [path for path in places(obj) if path and path not in (("metadata",), ("metadata", "name"))]:
        for junk in JUNK:
            facts = read(spoilt(obj, path, junk))
            assert facts is None or isinstance(facts, type(read(obj))), (path, junk)
            for told in (getattr(facts, "said", ""),):
                assert len(told) <= 300 and told.isprintable()
