"""Names, paths, timestamps and conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils import resources as r
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

UUID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
HOSTILE = [
    "",
    "..",
    "a/b",
    "../../secrets",
    "a?b",
    "a#b",
    "a%2fb",
    "A",
    "a b",
    "-a",
    "a-",
    "a..b",
    "a\n",
    "ä",
    "a" * 254,
]


@pytest.mark.parametrize("name", ["a", "cmp01", "cmp01.example.com", UUID, "a" * 253, "1-2"])
def test_names_that_are_good(name):
    assert r.validate_name(name) == name


@pytest.mark.parametrize("name", [*HOSTILE, None, 7])
def test_names_that_are_refused_say_which(name):
    with pytest.raises(ArgumentError) as caught:
        r.validate_name(name, "hypervisor")
    assert "hypervisor" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [*HOSTILE, "a.b", "a" * 64])
def test_namespaces_are_labels(value):
    with pytest.raises(ArgumentError, match="namespace"):
        r.migrations().path(UUID, namespace=value)


@pytest.mark.parametrize("group", [*HOSTILE, "nodots", "a.b/c", "kvm.cloud.sap\n", None])
def test_groups_that_are_refused(group):
    with pytest.raises(ArgumentError, match="api_group"):
        r.evictions(group)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ArgumentError) as caught:
        r.validate_name("X" * 10000)
    assert len(str(caught.value)) < 400


def test_paths():
    assert r.evictions().path(UUID) == f"/apis/hypervisor.c5c3.io/v1/evictions/{UUID}"
    assert r.evictions("kvm.cloud.sap").path() == "/apis/kvm.cloud.sap/v1/evictions"
    assert r.hypervisors().path("cmp01", subresource="status") == (
        "/apis/hypervisor.c5c3.io/v1/hypervisors/cmp01/status"
    )
    assert r.migrations().path(UUID, "ha") == f"/apis/hypervisor.c5c3.io/v1alpha1/namespaces/ha/migrations/{UUID}"
    assert r.migrations().path() == "/apis/hypervisor.c5c3.io/v1alpha1/migrations"
    assert r.NODES.path("cmp01") == "/api/v1/nodes/cmp01"


def test_scope_is_kept():
    with pytest.raises(ArgumentError, match="cluster scope"):
        r.evictions().path("x", namespace="ha")
    with pytest.raises(ArgumentError, match="needs a namespace"):
        r.migrations().path("x")


def test_names_of_the_resource():
    assert r.evictions().api_version == "hypervisor.c5c3.io/v1"
    assert r.evictions().full_name == "evictions.hypervisor.c5c3.io"
    assert r.NODES.api_version == "v1"
    assert r.NODES.full_name == "nodes"


def test_body():
    assert r.migrations().body("m", "ha", spec={}) == {
        "apiVersion": "hypervisor.c5c3.io/v1alpha1",
        "kind": "Migration",
        "metadata": {"name": "m", "namespace": "ha"},
        "spec": {},
    }


def test_uuid_is_made_lower_case():
    assert r.validate_uuid(UUID.upper()) == UUID
    assert not r.is_uuid(UUID.upper())


@pytest.mark.parametrize(
    "value", ["", UUID[:-1], UUID + "0", UUID + "\n", UUID.replace("-", ""), None, 1, "g" + UUID[1:]]
)
def test_uuids_that_are_refused(value):
    with pytest.raises(ArgumentError, match="not a UUID"):
        r.validate_uuid(value)


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24T09:42:01Z", "2026-11-24T09:42:01.000000Z"),
        ("2026-11-24t09:42:01.5z", "2026-11-24T09:42:01.500000Z"),
        ("2026-11-24T09:42:01.123456789Z", "2026-11-24T09:42:01.123456Z"),
        ("2026-11-24T11:42:01.123456+02:00", "2026-11-24T09:42:01.123456Z"),
    ],
)
def test_times_are_normalised(text, expected):
    assert r.format_time(r.parse_time(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-24",
        "2026-11-24T09:42:01",
        "2026-11-24 09:42:01Z",
        "2026-13-24T09:42:01Z",
        "2026-11-24T24:42:01Z",
        "2026-11-24T09:42:61Z",
        "2026-11-24T09:42:01Z\n",
        "٢026-11-24T09:42:01Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-24T09:42:01+99:00",
        None,
        5,
    ],
)
def test_times_that_are_refused(text):
    with pytest.raises(ArgumentError, match="occurred_at"):
        r.parse_time(text, "occurred_at")


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))
def test_times_survive_and_sort_as_text(when):
    text = r.format_time(when)
    assert r.parse_time(text) == when
    later = when + timedelta(microseconds=1) if when < datetime.max.replace(tzinfo=UTC) else when
    assert r.format_time(later) >= text


def test_now_is_utc_with_microseconds():
    assert abs(r.parse_time(r.now_utc()) - datetime.now(UTC)) < timedelta(seconds=5)
    assert len(r.now_utc()) == 27


# --- conditions -----------------------------------------------------------------------------------------------------

T0, T1 = "2026-11-24T09:00:00.000000Z", "2026-11-24T09:00:01.000000Z"
FOREIGN = {"type": "MigratingInstance", "status": "False", "reason": "Failed", "message": "x", "lastTransitionTime": T0}


def test_a_new_condition_is_added_and_others_stay():
    result = r.set_condition([FOREIGN], "Evicting", "True", "Running", "begun", T1)
    assert result[0] is FOREIGN
    assert result[1] == {
        "type": "Evicting",
        "status": "True",
        "reason": "Running",
        "message": "begun",
        "lastTransitionTime": T1,
    }


def test_transition_time_is_kept_while_the_status_is():
    first = r.set_condition(None, "Evicting", "True", "Running", "a", T0)
    second = r.set_condition(first, "Evicting", "True", "Running", "b", T1, observed_generation=3)
    assert second[0]["lastTransitionTime"] == T0
    assert (second[0]["message"], second[0]["observedGeneration"]) == ("b", 3)
    third = r.set_condition(second, "Evicting", "False", "Succeeded", "c", T1)
    assert third[0]["lastTransitionTime"] == T1
    assert first[0]["message"] == "a", "the list given is not changed"


def test_doubles_become_one():
    assert len(r.set_condition([{"type": "A", "status": "True"}] * 2, "A", "False", "R", now=T0)) == 1


def test_a_status_that_kubernetes_does_not_know():
    with pytest.raises(ValueError, match="Maybe"):
        r.set_condition([], "A", "Maybe", "R")


@pytest.mark.parametrize(
    ("status", "finished"), [("True", False), ("Unknown", False), ("False", True), (None, False), (False, False)]
)
def test_finished_is_evicting_false_and_nothing_else(status, finished):
    eviction = {"status": {"finishedAt": T0, "conditions": [FOREIGN, {"type": "Evicting", "status": status}]}}
    assert r.is_finished(eviction) is finished


@pytest.mark.parametrize("eviction", [None, {}, {"status": None}, {"status": {"conditions": None}}])
def test_nothing_is_not_finished(eviction):
    assert r.is_finished(eviction) is False
    assert r.is_notify_only(eviction) is False


def test_notify_only():
    assert r.is_notify_only({"spec": {"notifyOnly": True}})
    assert not r.is_notify_only({"spec": {"notifyOnly": "true"}})
