"""Schedules of faults: each can be played again, leaves every host well, and does to a host only what can be done to it."""

from __future__ import annotations

import pytest

from tests.stack import schedule


@pytest.mark.parametrize("seed", range(50))
def test_a_schedule_can_be_played(seed: int) -> None:
    """A well host is broken, a broken one is healed by what heals it, in the end all are well."""
    steps = schedule.draw(seed, 3, schedule.KINDS)
    assert steps == schedule.draw(seed, 3, schedule.KINDS)
    assert len(steps) >= schedule.STEPS
    broken: dict[int, str] = {}
    for step in steps:
        if step.heals:
            assert step.fault == broken.pop(step.host), step
        else:
            assert step.host not in broken, step
            if step.fault != "kill":
                broken[step.host] = step.fault
    assert not broken


def test_schedules_differ_and_overlap() -> None:
    """Other seeds are other schedules; some have two hosts broken at once, some all three."""
    most = set()
    for seed in range(50):
        away = 0
        peak = 0
        for step in schedule.draw(seed, 3, schedule.KINDS):
            away += -1 if step.heals else step.fault != "kill"
            peak = max(peak, away)
        most.add(peak)
    assert {2, 3} <= most
    assert len({tuple(schedule.draw(seed, 3, schedule.KINDS)) for seed in range(50)}) == 50


def test_only_what_the_service_knows_is_drawn() -> None:
    """memcached has no members that a partition could part."""
    steps = schedule.draw(3, 3, ("kill", "freeze"))
    assert {step.fault for step in steps} <= {"kill", "freeze"}
