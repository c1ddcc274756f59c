"""Migrations that are about to land on a host that is to be empty."""

from __future__ import annotations

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.incoming import broken_off, incoming, to_abort, told
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts

BEGAN = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def migration(status="running", kind="live-migration", **values):
    base = {"id": 1, "server": "s", "source": "cmp02", "target": "cmp01", "created_at": "2027-01-15T08:00:00.000000"}
    return MigrationFacts(**{**base, "status": status, "kind": kind, **values})


@pytest.mark.parametrize("status", ["queued", "preparing", "running", "post-migrating", "accepted", "new-in-2027"])
def test_what_is_on_its_way_counts(status):
    assert len(incoming([migration(status)], "cmp01")) == 1


@pytest.mark.parametrize("status", ["completed", "error", "cancelled", "failed", "done", "confirmed", "reverted"])
def test_what_is_over_does_not(status):
    assert incoming([migration(status)], "cmp01") == []


def test_outgoing_and_those_that_wait_for_a_confirm_do_not():
    assert incoming([migration(source="cmp01", target="cmp02")], "cmp01") == []
    assert incoming([migration(source="cmp01")], "cmp01") == []
    assert incoming([migration("finished", kind="migration")], "cmp01") == []
    assert len(incoming([migration("accepted", kind="evacuation")], "cmp01")) == 1


@pytest.mark.parametrize(
    ("status", "kind", "age", "aborts"),
    [
        ("queued", "live-migration", 0, True),
        ("preparing", "live-migration", 0, True),
        ("running", "live-migration", 0, False),
        ("running", "live-migration", 601, True),
        ("post-migrating", "live-migration", 9999, False),
        ("running", "migration", 9999, False),
        ("accepted", "evacuation", 9999, False),
    ],
)
def test_aborted_only_before_it_copies_or_when_it_hangs(status, kind, age, aborts):
    assert bool(to_abort([migration(status, kind)], BEGAN + age, 600)) is aborts


@pytest.mark.parametrize("when", [None, "", "yesterday", "2027-01-15"])
def test_age_that_nobody_knows_is_none(when):
    assert to_abort([migration(created_at=when)], BEGAN + 9999, 600) == []


def test_both_of_novas_ways_to_write_a_time():
    for when in ("2027-01-15T08:00:00.000000", "2027-01-15T08:00:00Z", "2027-01-15T08:00:00"):
        assert to_abort([migration(created_at=when)], BEGAN + 601, 600)


@pytest.mark.parametrize("status", ["cancelled", "error", "failed"])
def test_what_was_broken_off_is_looked_after(status):
    assert broken_off([migration(status, changed=BEGAN)], "cmp01", BEGAN)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"status": "completed"}, id="it arrived"),
        pytest.param({"status": "running"}, id="it goes on"),
        pytest.param({"kind": "migration"}, id="a cold one"),
        pytest.param({"source": "cmp01", "target": "cmp02"}, id="one that was to leave"),
        pytest.param({"changed": BEGAN - 1}, id="broken off before"),
        pytest.param({"changed": None}, id="nobody knows when"),
    ],
)
def test_nothing_else_is(values):
    assert not broken_off([migration(**{"status": "error", "changed": BEGAN, **values})], "cmp01", BEGAN)


def test_only_the_last_migration_of_a_server_counts():
    records = [migration("running", id=2), migration("error", id=1, changed=BEGAN)]
    assert not broken_off(records, "cmp01", BEGAN)


def test_it_is_told():
    assert "server s from cmp02 (running)" in told([migration()]) and "and 2 more" in told([migration()] * 5)
