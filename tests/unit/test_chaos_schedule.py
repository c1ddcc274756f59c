# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schedule of ``make chaos``: a pure function of its seed that demands nothing impossible."""

from __future__ import annotations

import pytest

from tests.chaos import schedule
from tests.chaos.moments import Moment, reached
from tests.chaos.schedule import Fault, draw, rounds, waits
from tests.chaos.verdict import Life

MANY = [each for seed in range(60) for each in rounds(seed, len(schedule.THEMES))]


def test_a_seed_always_draws_the_same() -> None:
    assert list(rounds(7, 10)) == list(rounds(7, 10))
    assert list(rounds(7, 10))[4:6] == list(rounds(7, 2, first=4)) == [draw(7, 4), draw(7, 5)]
    assert list(rounds(7, 10)) != list(rounds(8, 10))


def test_what_seed_1_draws_is_known() -> None:
    """A seed that was told must mean the same tomorrow: change this only with the way of drawing."""
    assert schedule.describe(draw(1, 1)) == [
        "round 1 of seed 1: host",
        "    1.1 s  host cmp02 loses its power for 90 s",
        "    2.8 s  placement is killed",
        "    6.9 s  both operators stand still for 6 s",
        "   19.8 s  QEMU of vm2 is killed",
        "   22.6 s  QEMU of vm4 is killed",
        "   33.0 s  keystone stands still for 14 s",
    ]


def test_each_block_of_rounds_has_each_theme_once() -> None:
    for block in range(3):
        drawn = rounds(3, len(schedule.THEMES), first=block * len(schedule.THEMES))
        assert sorted(each.theme for each in drawn) == sorted(schedule.THEMES)


def test_every_kind_is_drawn() -> None:
    kinds = {fault.kind for each in MANY for fault in each.faults}
    assert kinds == {
        *(*schedule.HOST_FAULTS, *schedule.HALF_FAULTS, *schedule.PARTITIONS, *schedule.BMC_FAULTS),
        *(*schedule.PART_FAULTS, schedule.HANG, "guest-kill", "drain", "host-heal"),
    }
    assert {fault.when for each in MANY for fault in each.faults} == {"", *schedule.MOMENTS}
    targets = {fault.target for each in MANY for fault in each.faults}
    assert {
        *schedule.CONTROL_PARTS,
        "acting",
        "standby",
        "operators",
        "cmp01/agent",
        "cmp03/libvirtd",
        "alone",
    } <= targets
    assert any(not each.waits and each.must_evacuate for each in MANY)


@pytest.mark.parametrize("hosts", [2, 3, 5])
def test_faults_are_in_order_and_end_in_time(hosts: int) -> None:
    names = {*schedule.host_names(hosts), *schedule.servers(hosts)}
    for each in rounds(5, 40, hosts):
        assert each.faults and list(each.faults) == sorted(each.faults)
        assert each.seconds < 205
        for fault in each.faults:
            assert fault.at >= 0 and fault.lasts >= 0
            assert schedule.say(fault)
            known = {*names, *schedule.CONTROL_PARTS, *schedule.OPERATORS, "operators", schedule.LANDING}
            known |= {f"{schedule.LANDING}/nova-compute"}
            assert fault.target in known or fault.target.partition("/")[0] in names


def test_a_target_is_left() -> None:
    """Unless the round says that it expects waiting, never are all hosts but none lost at a moment."""
    for each in MANY:
        lost = [fault for fault in each.faults if fault.kind in schedule.HOST_FAULTS]
        for fault in lost:
            together = {other.target for other in lost if other.overlaps(fault)}
            assert len(together) < 3
            assert len(together) == 1 or each.waits


def test_a_part_is_hurt_once_a_round() -> None:
    """What is down cannot be killed."""
    for each in MANY:
        parts = [fault.target for fault in each.faults if fault.kind in schedule.PART_FAULTS and not fault.when]
        assert len(parts) == len(set(parts))


LOST = Fault(1.0, "host-power", "cmp01", 90.0)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ((), None),
        ((Fault(40.0, "guest-kill", "vm1"),), None),
        ((Fault(20.0, "host-cut", "cmp02", 5.0),), "mass failure"),
        ((Fault(95.0, "host-cut", "cmp02", 5.0),), None),
        ((Fault(0.0, "bmc-silent", "cmp01", 90.0),), "power switch"),
        ((Fault(5.0, "isolation", "acting", 50.0),), "cut off"),
        ((Fault(30.0, "freeze", "keystone", 20.0),), "for long"),
        ((Fault(30.0, "freeze", "keystone", 5.0),), None),
        ((Fault(30.0, "kill", "rabbitmq"),), "message"),
        ((Fault(30.0, "kill", "cmp02/nova-compute"),), "message"),
        ((Fault(30.0, "host-api-cut", "acting", 20.0),), "half lost"),
    ],
)
def test_what_is_waited_for(others: tuple[Fault, ...], reason: str | None) -> None:
    found = waits((LOST, *others), 3)
    assert (reason in " ".join(found)) if reason else found == []
    drawn = schedule.Round(0, 0, "host", (LOST, *others), tuple(found))
    assert drawn.must_evacuate == (() if reason else (LOST,))


def test_two_of_five_hosts_are_no_mass_failure() -> None:
    assert waits((LOST, Fault(20.0, "host-cut", "cmp02", 5.0)), 5) == []


def test_a_short_loss_need_not_be_evacuated() -> None:
    short = Fault(1.0, "host-power", "cmp01", 30.0)
    assert schedule.Round(0, 0, "host", (short,), ()).must_evacuate == ()


def test_a_fault_at_a_moment_is_told_with_it_and_excuses_waiting() -> None:
    heal = Fault(1.5, "host-heal", "cmp01", when="asked")
    found = waits((LOST, heal), 3)
    assert found == ["something fails in the midst of it"]
    told = schedule.describe(schedule.Round(0, 0, "worst-moment", (LOST, heal), tuple(found)))
    assert told[1:] == [
        "    1.0 s  host cmp01 loses its power for 90 s",
        "   +1.5 s after asked: host cmp01 comes back",
    ]


def eviction(fenced: str = "", *, entries: tuple[str, ...] = (), instances: tuple[str, ...] = ()) -> dict:
    conditions = [{"type": "Fenced", "status": fenced}] if fenced else []
    listed = [{"id": server, "route": "Evacuate"} for server in entries]
    status = {"conditions": conditions, "instances": listed}
    return {"spec": {"hypervisor": "cmp01", "instances": list(instances)}, "status": status}


@pytest.mark.parametrize(
    ("when", "before", "after"),
    [
        ("fencing", eviction(), eviction("Unknown")),
        ("proven", eviction("Unknown"), eviction("True")),
        ("asked", eviction("True"), eviction("True", entries=("a",))),
    ],
)
def test_a_moment_is_seen_when_it_comes(when: str, before: dict, after: dict) -> None:
    assert reached(when, [before], [], 0.0) is None
    assert reached(when, [before, after], [], 0.0) == Moment()
    assert reached(when, [{**after, "spec": {"hypervisor": "cmp01", "instances": ["a"]}}], [], 0.0) is None


def test_the_first_landing_is_a_new_guest_of_an_evacuated_server_elsewhere() -> None:
    seen = [eviction("True", entries=("a",))]
    lives = [Life("a", "cmp01", 1, 20.0), Life("b", "cmp02", 2, 20.0), Life("a", "cmp02", 3, 5.0)]
    assert reached("landed", seen, lives, 10.0) is None
    assert reached("landed", seen, [*lives, Life("a", "cmp03", 4, 30.0)], 10.0) == Moment("cmp03", "a")
