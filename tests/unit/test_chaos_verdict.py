# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of ``make chaos``: each thing that must not be is seen, and what is right is not complained of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.chaos import verdict
from tests.chaos.schedule import LEFT_ALONE, RUN, STOPPED
from tests.chaos.verdict import Evacuation, Facts, Life, ServerFacts, Span, judge

T = 1_800_000_000.0
VM, OFF, ALONE = "vm-uuid", "off-uuid", "alone-uuid"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(T + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def server(**more: Any) -> ServerFacts:
    given = {
        "id": VM,
        "name": "vm0",
        "want": RUN,
        "status": "ACTIVE",
        "host": "cmp02",
        "task": None,
        "locked": False,
        "counting": True,
        "boots0": 1,
        "boots1": 2,
        "total0": 10,
        "total1": 90,
    }
    return ServerFacts(**{**given, **more})


def eviction(
    reason: str | None = "Succeeded",
    *,
    name: str = "cmp01",
    instances: list[str] | None = None,
    entries: tuple[tuple[str, str], ...] = ((VM, "Succeeded"),),
    ended: float = 60.0,
    fenced: float | None = 30.0,
) -> dict[str, Any]:
    evicting = {"type": "Evicting", "status": "True" if reason is None else "False", "reason": reason or "Running"}
    conditions = [{**evicting, "message": "told"}]
    if fenced is not None:
        conditions.append({"type": "Fenced", "status": "True", "reason": "Off", "lastTransitionTime": stamp(fenced)})
    spec: dict[str, Any] = {"hypervisor": "cmp01"}
    if instances:
        spec["instances"] = instances
    status = {"conditions": conditions, "instances": [{"id": id_, "phase": phase} for id_, phase in entries]}
    if reason:
        status["finishedAt"] = stamp(ended)
    return {"metadata": {"name": name, "uid": name}, "spec": spec, "status": status}


def dead_host(**more: Any) -> Facts:
    """A host that lost its power at 0, was fenced, evacuated and came back: all as it should be."""
    given: dict[str, Any] = {
        "servers": (server(), server(id=OFF, name="off0", want=STOPPED, status="SHUTOFF", counting=False, boots1=1)),
        "lives": (Life(VM, "cmp01", 11, T - 90, T + 0.2), Life(VM, "cmp02", 12, T + 40)),
        "off": (Span("off", "cmp01", T, T + 80),),
        "faults": (Span("host-power", "cmp01", T, T + 80),),
        "commands": ((T + 29.0, "cmp01", "off"),),
        "evacuations": (Evacuation(VM, "cmp01", "cmp02", T + 35, "completed"),),
        "proofs": (("cmp01", T + 30),),
        "evictions": {"a": eviction()},
        "services": {"cmp01": {"status": "enabled", "forced_down": False}, "cmp02": {"status": "enabled"}},
    }
    return Facts(**{**given, **more})


def kinds(facts: Facts) -> list[str]:
    return [violation.kind for violation in judge(facts)]


def test_a_host_that_died_and_was_evacuated_is_right() -> None:
    assert judge(dead_host()) == []
    assert verdict.notes(dead_host()) == []


def test_a_guest_that_died_and_was_restarted_is_right() -> None:
    facts = Facts(
        servers=(server(host="cmp01"),),
        lives=(Life(VM, "cmp01", 11, T - 90, T + 0.1), Life(VM, "cmp01", 12, T + 2)),
        kills=((T, VM, 11),),
        evictions={"a": eviction(name=VM, instances=[VM], fenced=None, ended=3.0)},
    )
    assert judge(facts) == []


# --- servers ----------------------------------------------------------------------------------------------------------


def test_two_writers_are_doubled() -> None:
    facts = dead_host(two_writers=((VM, "runs at once on cmp01, cmp02"),))
    assert judge(facts) == [verdict.Violation(verdict.DOUBLED, "vm0: runs at once on cmp01, cmp02")]


def test_two_qemus_at_the_end_are_doubled() -> None:
    lives = (*dead_host().lives, Life(VM, "cmp03", 13, T + 90))
    assert verdict.DOUBLED in kinds(dead_host(lives=lives))


def test_who_does_not_run_is_forgotten_or_given_up() -> None:
    facts = dead_host(servers=(server(status="ERROR", counting=False, boots1=1),), lives=dead_host().lives[:1])
    assert verdict.FORGOTTEN in kinds(facts) and verdict.GIVEN_UP not in kinds(facts)
    failed = eviction("Failed", entries=((VM, "Failed"),))
    given_up = replace(facts, evictions={"a": failed})
    assert verdict.GIVEN_UP in kinds(given_up) and verdict.FORGOTTEN not in kinds(given_up)
    # Nova believes that it runs, and its guest does not count.
    assert verdict.FORGOTTEN in kinds(dead_host(servers=(server(counting=False),)))


def test_who_runs_where_nova_does_not_think_is_told() -> None:
    assert kinds(dead_host(servers=(server(host="cmp03"),))) == [verdict.BROKEN]


@pytest.mark.parametrize("more", [{"status": "ACTIVE"}, {"status": "ERROR"}])
def test_what_was_stopped_stays_stopped(more: dict[str, Any]) -> None:
    stopped = server(id=OFF, name="off0", want=STOPPED, counting=False, boots1=1, **more)
    assert kinds(dead_host(servers=(stopped,))) == [verdict.STARTED]


def test_what_was_stopped_has_no_qemu() -> None:
    stopped = server(id=OFF, name="off0", want=STOPPED, status="SHUTOFF", counting=False, boots1=1)
    assert kinds(dead_host(servers=(stopped,), lives=(Life(OFF, "cmp02", 12, T + 70),))) == [verdict.STARTED]


def test_who_opted_out_is_left_alone() -> None:
    alone = server(id=ALONE, name="alone", want=LEFT_ALONE, status="ERROR", counting=False, boots1=1)
    assert kinds(dead_host(servers=(alone,), lives=())) == []
    assert kinds(dead_host(servers=(replace(alone, boots1=2),), lives=())) == [verdict.TOUCHED]


def test_one_boot_for_one_death() -> None:
    facts = dead_host(servers=(server(boots1=3),))
    assert kinds(facts) == [verdict.EXTRA]
    assert "booted 2 times for 1 deaths (died with cmp01)" in judge(facts)[0].what
    # Killed on its new host, too.
    lives = (dead_host().lives[0], Life(VM, "cmp02", 12, T + 40, T + 50), Life(VM, "cmp02", 13, T + 52))
    assert kinds(dead_host(servers=(server(boots1=3),), lives=lives, kills=((T + 50, VM, 12),))) == []


def test_one_qemu_dies_once() -> None:
    """Killed, and its host dies in the same moment."""
    facts = dead_host(kills=((T - 0.1, VM, 11),))
    assert verdict.deaths(facts, VM) == ["killed (QEMU 11)"]
    assert kinds(replace(facts, servers=(server(boots1=3),))) == [verdict.EXTRA]


def test_a_migration_is_no_death() -> None:
    lives = (Life(VM, "cmp01", 11, T - 90, T + 20), Life(VM, "cmp02", 12, T + 18))
    facts = Facts(servers=(server(boots1=1),), lives=lives)
    assert verdict.deaths(facts, VM) == [] and kinds(facts) == []
    assert kinds(replace(facts, servers=(server(boots1=2),))) == [verdict.EXTRA]


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"total1": 5}, verdict.LOST_DATA),
        ({"locked": True}, verdict.LOCKED),
        ({"task": "rebuilding"}, verdict.BROKEN),
    ],
)
def test_what_a_server_must_not_be(more: dict[str, Any], kind: str) -> None:
    assert kinds(dead_host(servers=(server(**more),))) == [kind]


# --- hosts ------------------------------------------------------------------------------------------------------------


def test_an_evacuation_from_a_host_that_is_on_is_without_proof() -> None:
    late = (Evacuation(VM, "cmp01", "cmp02", T + 82, "done"),)
    assert kinds(dead_host(evacuations=late)) == [verdict.UNPROVEN]
    assert "which was on" in judge(dead_host(evacuations=late))[0].what
    early = (Evacuation(VM, "cmp01", "cmp02", T - 2, "done"),)
    assert verdict.UNPROVEN in kinds(dead_host(evacuations=early))


def test_nova_tells_whole_seconds() -> None:
    """Off at 35.4, asked for at 35.9, which Nova writes as 35."""
    off = (Span("off", "cmp01", T + 35.4, T + 80),)
    lives = (Life(VM, "cmp01", 11, T - 90, T + 35.4), Life(VM, "cmp02", 12, T + 40))
    assert kinds(dead_host(off=off, lives=lives, proofs=(("cmp01", T + 35.8),))) == []


@pytest.mark.parametrize("proofs", [(), (("cmp01", T + 40),), (("cmp03", T + 30),)])
def test_an_evacuation_that_no_eviction_proves(proofs: tuple[tuple[str, float], ...]) -> None:
    """The host was off, but nobody had said so of it when it was asked for."""
    facts = dead_host(proofs=proofs)
    assert kinds(facts) == [verdict.UNPROVEN] and "no Eviction says" in judge(facts)[0].what


def test_what_is_a_proof() -> None:
    assert verdict.proof(eviction(fenced=30.0)) == ("cmp01", T + 30.0)
    assert verdict.proof(eviction(fenced=None)) is None
    assert verdict.proof(eviction(instances=[VM])) is None
    refused = eviction()
    refused["status"]["conditions"][1]["status"] = "False"
    assert verdict.proof(refused) is None


def test_nothing_is_evacuated_while_the_operators_are_cut_off() -> None:
    cut = Span("operators-cut", "cmp01", T + 5, T + 60)
    power = dead_host().faults[0]
    facts = dead_host(faults=(power, cut, replace(cut, target="cmp02")))
    assert kinds(facts) == [verdict.CUT_OFF, verdict.CUT_OFF]  # the command and the evacuation, each once
    assert kinds(dead_host(faults=(power, replace(cut, ended=T + 20)))) == []
    # What was on its way when the cut began.
    assert kinds(dead_host(faults=(power, replace(cut, began=T + 28)))) == []


@pytest.mark.parametrize("kind", ["host-api-cut", "host-nova-cut", "isolation", "kill", None])
def test_who_is_alive_is_not_switched_off(kind: str | None) -> None:
    faults = (Span(kind, "cmp01", T + 10, T + 25),) if kind else ()
    facts = dead_host(faults=faults)
    assert verdict.FENCED_ALIVE in kinds(facts)
    assert (kind or "nothing") in next(v.what for v in judge(facts) if v.kind == verdict.FENCED_ALIVE)


def test_who_was_lost_just_now_may_be_switched_off() -> None:
    assert kinds(dead_host(faults=(Span("host-cut", "cmp01", T - 20, T + 5),))) == []
    assert kinds(dead_host(faults=(Span("host-cut", "cmp01", T - 90, T - 60),))) == [verdict.FENCED_ALIVE]


def test_nobody_is_switched_on_or_reset() -> None:
    commands = (*dead_host().commands, (T + 30, "cmp01", "reset"))
    assert kinds(dead_host(commands=commands)) == [verdict.FENCED_ALIVE]


@pytest.mark.parametrize(
    ("service", "drained", "kind"),
    [
        ({"status": "enabled", "forced_down": True}, (), verdict.DISABLED),
        ({"status": "disabled", "disabled_reason": "c5c3.ha: Eviction cmp01"}, (), verdict.DISABLED),
        ({"status": "disabled", "disabled_reason": "c5c3.ha: Eviction cmp01"}, ("cmp01",), None),
        ({"status": "disabled", "forced_down": True}, ("cmp01",), verdict.DISABLED),
        ({"status": "disabled", "disabled_reason": "AUTO: libvirt"}, (), verdict.BROKEN),
    ],
)
def test_a_host_comes_back(service: dict[str, Any], drained: tuple[str, ...], kind: str | None) -> None:
    facts = dead_host(services={"cmp01": service}, drained=frozenset(drained))
    assert kinds(facts) == ([kind] if kind else [])


# --- what is told -----------------------------------------------------------------------------------------------------


def test_an_eviction_ends() -> None:
    assert kinds(dead_host(evictions={"a": eviction(), "b": eviction(None)})) == [verdict.UNFINISHED]
    deleted = eviction(None)
    deleted["metadata"]["deletionTimestamp"] = stamp(3)
    assert kinds(dead_host(evictions={"a": eviction(), "b": deleted})) == []


@pytest.mark.parametrize(
    "one",
    [
        eviction(entries=((VM, "Failed"),)),
        eviction("Failed"),
        eviction(ended=39.0),  # its guest is nowhere then
    ],
)
def test_what_an_eviction_says_is_true(one: dict[str, Any]) -> None:
    lives = (Life(VM, "cmp01", 11, T - 90, T + 0.2), Life(VM, "cmp02", 12, T + 50))
    facts = dead_host(lives=lives, evictions={"a": one}, off=(Span("off", "cmp01", T, T + 20),), evacuations=())
    facts = replace(facts, faults=(Span("host-power", "cmp01", T, T + 20),))
    assert kinds(facts) == [verdict.UNTRUE]


def test_a_host_that_is_told_empty_is_empty() -> None:
    lives = (Life(VM, "cmp01", 11, T - 90, T + 70), Life(VM, "cmp02", 12, T + 70))
    facts = Facts(servers=(server(boots1=1),), lives=lives, evictions={"a": eviction()})
    assert kinds(facts) == [verdict.UNTRUE] and "had a QEMU on cmp01" in judge(facts)[0].what


def test_a_stopped_server_that_is_told_done_is_stopped() -> None:
    stopped = server(id=OFF, name="off0", want=STOPPED, status="SHUTOFF", counting=False, boots1=1)
    facts = Facts(
        servers=(stopped,),
        lives=(Life(OFF, "cmp02", 12, T + 50, T + 64),),
        evictions={"a": eviction(entries=((OFF, "Succeeded"),))},
    )
    assert kinds(facts) == [verdict.UNTRUE]


def test_a_guest_that_dies_as_its_success_is_told_is_no_lie() -> None:
    lives = (
        Life(VM, "cmp01", 11, T - 90, T + 0.2),
        Life(VM, "cmp02", 12, T + 40, T + 57),
        Life(VM, "cmp02", 13, T + 62),
    )
    facts = dead_host(lives=lives, kills=((T + 57, VM, 12),), servers=(server(boots1=3),))
    assert kinds(facts) == []


def test_a_finished_eviction_says_when() -> None:
    one = eviction()
    del one["status"]["finishedAt"]
    assert verdict.UNTRUE in kinds(dead_host(evictions={"a": one, "b": eviction()}))


def test_what_took_too_long_or_never_ended() -> None:
    assert kinds(dead_host(late=("vm0 of cmp01",), quiet="after 300 s: ...")) == [verdict.LATE, verdict.UNQUIET]


def test_every_kind_is_told_in_its_order() -> None:
    counted = verdict.tally(judge(dead_host(quiet="x")))
    assert list(counted) == list(verdict.KINDS) and counted[verdict.UNQUIET] == 1 and sum(counted.values()) == 1


def test_notes() -> None:
    twice = (*dead_host().evacuations, Evacuation(VM, "cmp01", "cmp03", T + 70, "completed"))
    facts = dead_host(evacuations=twice, evictions={"a": eviction(), "b": eviction("Cancelled", name="cmp03")})
    assert verdict.notes(facts) == ["vm0: 2 evacuations from cmp01, which died once", "Eviction cmp03 Cancelled: told"]


def test_moments() -> None:
    assert verdict.moment("2027-01-15T08:00:00Z") == verdict.moment("2027-01-15T08:00:00.000000") == T
    assert verdict.moment(None) is None
