"""How much may be in work at once: no limit is ever passed by what we begin, and nobody waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.limits import (
    BEGIN,
    MOVE,
    Limits,
    Load,
    may_begin,
    waiting_for,
)

NONE = Limits(per_host=0, evacuations=0)


def moves(count, act="LiveMigrate"):
    return [(f"s{number}", act) for number in range(count)]


def test_most_urgent_first_up_to_the_limit():
    assert may_begin(moves(5), Limits(per_host=2), Load()) == {"s0", "s1"}
    assert may_begin(moves(5), Limits(per_host=2), Load(here=1)) == {"s0"}
    assert may_begin(moves(5), Limits(per_host=2), Load(here=7)) == set()
    assert len(may_begin(moves(5), NONE, Load(here=7, cluster=90))) == 5


def test_a_dead_host_has_its_own_limit():
    assert len(may_begin(moves(40, "Evacuate"), Limits(), Load())) == 32
    assert len(may_begin(moves(40, "Evacuate"), Limits(evacuations=3), Load(here=2))) == 1
    exclusive = Limits(per_trait={"X": 1})
    assert len(may_begin(moves(40, "Evacuate"), exclusive, Load(traits=frozenset({"X"})))) == 32


def test_traits_only_lower():
    load = Load(traits=frozenset({"CUSTOM_HANA_EXCLUSIVE_HOST", "OTHER"}))
    assert Limits(per_host=4, per_trait={"CUSTOM_HANA_EXCLUSIVE_HOST": 1, "OTHER": 3}).of_host(load.traits) == 1
    assert Limits(per_host=2, per_trait={"OTHER": 9}).of_host(load.traits) == 2
    assert Limits(per_host=0, per_trait={"OTHER": 9}).of_host(load.traits) == 9
    assert Limits(per_host=0).of_host(load.traits) == 0
    serial = Limits(per_host=4, per_trait={"CUSTOM_HANA_EXCLUSIVE_HOST": 1})
    assert may_begin(moves(3), serial, load) == {"s0"}


def test_cluster_and_targets():
    assert may_begin(moves(5), Limits(per_host=0, per_cluster=3), Load(cluster=1)) == {"s0", "s1"}
    targets = {"cmp02": 2, "cmp03": 1}
    assert may_begin(moves(5), Limits(per_host=0, per_target=2), Load(to_target=targets)) == {"s0"}
    assert may_begin(moves(5), Limits(per_host=0, per_target=2), Load(to_target={"a": 2, "b": 5})) == set()


def test_who_is_on_the_way_without_a_target_takes_a_place_on_some():
    limits = Limits(per_host=0, per_target=2)
    assert may_begin(moves(5), limits, Load(to_target={"b": 1, "c": 1}, cluster=3, unplaced=1)) == {"s0"}
    assert may_begin(moves(5), limits, Load(to_target={"b": 1, "c": 1}, cluster=4, unplaced=2)) == set()


def test_a_restart_needs_no_target_and_passes_those_who_wait_for_one():
    wanting = [("a", "LiveMigrate"), ("b", "Restart")]
    assert may_begin(wanting, Limits(per_cluster=1), Load(cluster=1)) == {"b"}


@pytest.mark.parametrize("act", ["Confirm", "Abort", "ResetState"])
def test_what_ends_work_never_waits(act):
    assert may_begin([("a", act)], Limits(per_host=1), Load(here=9)) == {"a"}
    assert waiting_for(act, Limits(per_host=1), Load(here=9)) == ""


@pytest.mark.parametrize(
    ("act", "limits", "load", "says"),
    [
        ("LiveMigrate", Limits(per_host=2), Load(here=2), "at most 2 servers of this host"),
        ("LiveMigrate", Limits(per_trait={"X": 1}), Load(here=1, traits=frozenset("X")), "by the host's trait X"),
        ("ColdMigrate", Limits(per_cluster=3), Load(cluster=4), "at most 3 servers of the cloud"),
        ("Evacuate", Limits(per_target=1), Load(to_target={"b": 1}), "each target takes at most 1 servers"),
    ],
)
def test_who_waits_is_told_for_what(act, limits, load, says):
    assert says in waiting_for(act, limits, load)


NUMBERS = st.integers(0, 6)
LIMITS = st.builds(
    Limits,
    per_host=NUMBERS,
    evacuations=NUMBERS,
    per_target=NUMBERS,
    per_cluster=NUMBERS,
    per_trait=st.dictionaries(st.sampled_from("XYZ"), NUMBERS, max_size=2),
)
LOADS = st.builds(
    Load,
    here=NUMBERS,
    to_target=st.dictionaries(st.sampled_from(["b", "c", "d"]), NUMBERS),
    cluster=st.integers(0, 12),
    traits=st.frozensets(st.sampled_from("XYZ")),
)
ACTS = st.sampled_from([*sorted(BEGIN), "Confirm", "Abort"])
WANTING = st.lists(ACTS, max_size=8).map(lambda acts: [(f"s{n}", act) for n, act in enumerate(acts)])


@given(WANTING, LIMITS, LOADS)
def test_never_over_any_limit(wanting, limits, load):
    chosen = may_begin(wanting, limits, load)
    begun = [act for server, act in wanting if server in chosen and act in BEGIN]
    moved = [act for act in begun if act in MOVE]
    host, living = limits.of_host(load.traits), [act for act in begun if act != "Evacuate"]
    if host and living:
        assert load.here + len(living) <= host
    if limits.evacuations and "Evacuate" in begun:
        assert load.here + begun.count("Evacuate") <= limits.evacuations
    if limits.per_cluster and moved:
        assert load.cluster + len(moved) <= limits.per_cluster
    if limits.per_target and load.to_target:
        assert len(moved) <= sum(max(0, limits.per_target - n) for n in load.to_target.values())
    assert all(server in chosen for server, act in wanting if act not in BEGIN)


@given(WANTING, LIMITS, LOADS)
def test_a_place_that_is_free_is_taken_by_the_first_that_fits(wanting, limits, load):
    chosen = may_begin(wanting, limits, load)
    first = next(((server, act) for server, act in wanting if act in BEGIN), None)
    if first and not waiting_for(first[1], limits, load):
        assert first[0] in chosen
    for act in sorted(BEGIN):
        same = [(server, other) for server, other in wanting if other == act]
        picked = may_begin(same, limits, load)
        # of one act nobody overtakes
        assert [server for server, _act in same][: len(picked)] == sorted(picked, key=lambda s: int(s[1:]))


@given(
    st.lists(st.tuples(st.sampled_from(sorted(BEGIN)), st.integers(1, 5)), min_size=1, max_size=15),
    LIMITS,
    st.frozensets(st.sampled_from("XYZ")),
    st.integers(1, 3),
)
@settings(max_examples=60)
def test_all_come_through_in_the_end(jobs, limits, traits, targets):
    """Everybody is served, whatever the limits, in a cloud where the others' migrations end: nobody starves."""
    waiting = {f"s{number}": act for number, (act, _length) in enumerate(jobs)}
    length = {f"s{number}": length for number, (_act, length) in enumerate(jobs)}
    running: dict[str, tuple[str, int, str]] = {}
    for _round in range(1000):
        if not waiting and not running:
            break
        to_target = {f"t{number}": 0 for number in range(targets)}
        for act, _left, target in running.values():
            if act in MOVE:
                to_target[target] += 1
        moving = sum(to_target.values())
        load = Load(here=len(running), to_target=to_target, cluster=moving, traits=traits)
        for server in may_begin(waiting.items(), limits, load):
            # as spread as a scheduler that we cannot order: the target with the most room
            target = min(to_target, key=to_target.get)
            to_target[target] += 1
            running[server] = (waiting.pop(server), length[server], target)
        running = {s: (act, left - 1, target) for s, (act, left, target) in running.items() if left > 1}
    assert not waiting and not running
