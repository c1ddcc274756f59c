"""libvirt's job statistics in the words of upstream's Migration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import migration_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

T0, T1 = "2026-11-24T09:00:00.000000Z", "2026-11-24T09:00:01.000000Z"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (999, "999ms"),
        (1000, "1s"),
        (2755, "2.755s"),
        (2700, "2.7s"),
        (60_000, "1m0s"),
        (61_500, "1m1.5s"),
        (3_600_000, "1h0m0s"),
        (90_061_001, "25h1m1.001s"),
        (-1500, "-1.5s"),
    ],
)
def test_durations_as_go_prints_them(milliseconds, text):
    assert rules.go_duration(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10_905_190, "10.4 MiB"),
        (4 << 30, "4.0 GiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1 << 60, "1.0 EiB"),
        ((1 << 64) - 1, "16.0 EiB"),
    ],
)
def test_sizes_with_iec_units(count, text):
    assert rules.iec(count) == text


@given(st.integers(0, (1 << 64) - 1))
def test_sizes_are_short(count):
    number, unit = rules.iec(count).split()
    assert float(number) < 1024
    assert len(number) <= 6
    assert unit.endswith("B")


def test_a_real_job():
    job = {
        "operation": "MIGRATION_OUT",
        "type": 2,
        "time_elapsed": 2755,
        "downtime": 150,
        "data_total": 4 << 30,
        "data_remaining": 0,
        "memory_bps": 17_301_504,
        "memory_dirty_rate": 0,
        "memory_iteration": 3,
        "memory_page_size": 4096,
        "auto_converge_throttle": 20,
        "compression_cache": 1,
    }
    assert rules.status_from_job(job) == {
        "operation": "migration_out",
        "type": "unbounded",
        "timeElapsed": "2.755s",
        "downtime": "150ms",
        "dataTotal": "4.0 GiB",
        "dataRemaining": "0 B",
        "memBps": "16.5 MiB/s",
        "memDirtyRate": "0/s",
        "memIteration": 3,
        "memPageSize": "4.0 KiB",
        "autoConvergeThrottle": "20%",
    }


def test_every_field_it_makes_is_one_of_the_resource():
    job = {key: 1 for table in (rules._DURATIONS, rules._SIZES, rules._RATES, rules._COUNTS) for key in table}
    job |= {"memory_dirty_rate": 1, "auto_converge_throttle": 1, "type": 1, "operation": 5, "errmsg": "e", "success": 1}
    made = rules.status_from_job(job)
    assert set(made) <= rules.FIELDS
    assert len(made) == len(rules.FIELDS) - 3  # origin, destination and started are not libvirt's


def test_success_is_a_type():
    assert rules.status_from_job({"success": True, "type": 3})["type"] == "success"
    assert rules.status_from_job({"success": 0})["type"] == "failed"
    assert rules.status_from_job({"type": 99, "operation": 99}) == {}


@pytest.mark.parametrize("value", ["x", None, [], {}, True, float("inf")])
def test_what_is_no_number(value):
    with pytest.raises(ArgumentError, match="data_total"):
        rules.status_from_job({"data_total": value})


def test_templates_give_numbers_as_text():
    assert rules.status_from_job({"data_total": "1024"}) == {"dataTotal": "1.0 KiB"}


def test_status_is_checked():
    assert rules.checked_status({"type": "completed", "memIteration": "3", "origin": None, "started": T0}) == {
        "type": "completed",
        "memIteration": 3,
        "origin": None,
        "started": T0,
    }
    for wrong, words in (
        ({"bogus": 1}, "no field 'bogus'"),
        ({"type": 1}, "type"),
        ({"memNormal": -1}, "memNormal"),
        ({"started": "now"}, "started"),
    ):
        with pytest.raises(ArgumentError, match=words):
            rules.checked_status(wrong)


def test_the_clock_starts_with_the_first_word_and_goes_on():
    assert rules.next_status(None, {}, T1) == {}
    assert rules.next_status(None, {"type": "unbounded"}, T1) == {"type": "unbounded", "started": T1}
    assert rules.next_status({"started": T0}, {"type": "completed"}, T1) == {"type": "completed"}
    assert rules.next_status(None, {"type": "bounded", "started": T0}, T1)["started"] == T0


@pytest.mark.parametrize("over", rules.FINAL_TYPES)
def test_the_next_migration_begins_clean(over):
    old = {"type": over, "started": T0, "errMsg": "no", "destination": "cmp02", "custom": 1}
    assert rules.next_status(old, {"type": "unbounded", "origin": "cmp02"}, T1) == {
        "type": "unbounded",
        "origin": "cmp02",
        "started": T1,
        "errMsg": None,
        "destination": None,
    }
    assert rules.next_status(old, {"downtime": "1s"}, T1) == {"downtime": "1s"}, "a last word about the former one"
