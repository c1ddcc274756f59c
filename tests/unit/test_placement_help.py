"""Why no host takes a server, what would help, and whether the others have room at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.placement_help import (
    Group,
    Need,
    Target,
    capacity_short,
    explain,
    no_room_told,
)

NEED = Need("s1", "web", ram_mb=512, vcpus=2)
TWO = (Target("cmp02", ram_mb=4096, vcpus=8), Target("cmp03", ram_mb=4096, vcpus=8))


@pytest.mark.parametrize(
    "failure",
    [
        "No valid host was found. There are not enough hosts available.",
        "Exceeded maximum number of retries. nova.exception_Remote.NoValidHost_Remote: ...",
    ],
)
def test_novas_words_are_known(failure):
    assert no_room_told(failure) and not no_room_told("Live migration failed")


def test_no_other_host():
    targets = [Target("cmp01"), Target("cmp02", False, "down"), Target("cmp03", False, "disabled")]
    told = explain(NEED, "cmp01", targets, ())
    assert "cmp02 is down, cmp03 is disabled" in told and "enable or add one" in told
    assert "there is none" in explain(NEED, "cmp01", [], ())


def test_zone():
    targets = [Target("cmp02", zone="b"), Target("cmp03", zone="b")]
    assert "zone a" in explain(NEED, "cmp01", targets, (), zone="a")
    assert "filter" in explain(NEED, "cmp01", targets, (), zone="b")
    assert "filter" in explain(NEED, "cmp01", [Target("cmp02")], (), zone="a")


def test_anti_affinity_names_who_is_where():
    group = Group("db", "anti-affinity", {"cmp02": ["db-2"], "cmp03": ["db-3"]})
    told = explain(NEED, "cmp01", TWO, [group])
    assert "server group db (anti-affinity)" in told
    assert "cmp02 has db-2" in told and "cmp03 has db-3" in told and "add or enable a hypervisor" in told


def test_anti_affinity_with_two_a_host():
    one = Group("db", "anti-affinity", {"cmp02": ["db-2"], "cmp03": ["db-3"]}, max_per_host=2)
    assert "anti-affinity" not in explain(NEED, "cmp01", TWO, [one])
    full = Group("db", "anti-affinity", {"cmp02": ["a", "b"], "cmp03": ["c", "d"]}, max_per_host=2)
    assert "at most 2 a host" in explain(NEED, "cmp01", TWO, [full])


def test_affinity_holds_it_where_the_others_are():
    told = explain(NEED, "cmp01", TWO, [Group("pair", "affinity", {"cmp01": ["web-2"]})])
    assert "(affinity) holds it to cmp01" in told and "all at once" in told


def test_soft_policies_explain_nothing():
    group = Group("db", "soft-anti-affinity", {"cmp02": ["a"], "cmp03": ["b"]})
    assert "a filter" in explain(NEED, "cmp01", TWO, [group])


def test_capacity_of_those_that_the_groups_leave():
    group = Group("db", "anti-affinity", {"cmp02": ["db-2"]})
    targets = (TWO[0], Target("cmp03", ram_mb=100, vcpus=8))
    told = explain(NEED, "cmp01", targets, [group])
    assert "512 MiB and 2 vCPU" in told and "cmp03 has 100 MiB free" in told and "that its server groups allow" in told
    cpus = explain(NEED, "cmp01", [Target("cmp03", ram_mb=4096, vcpus=1)], ())
    assert "1 vCPU free" in cpus


def test_room_for_all():
    assert capacity_short([NEED] * 4, TWO) == ""
    assert capacity_short([], ()) == ""


def test_sum_is_enough_but_no_hole_is():
    holes = [Target("cmp02", ram_mb=300, vcpus=8), Target("cmp03", ram_mb=300, vcpus=8)]
    told = capacity_short([NEED], holes)
    assert "1 servers need 512 MiB" in told and "600 MiB" in told and "(web)" in told


def test_unusable_targets_have_no_room_and_unknown_ones_may_have():
    assert capacity_short([NEED], [Target("cmp02", False, ram_mb=9999, vcpus=99)])
    assert capacity_short([NEED], [Target("cmp02")]) == ""


NEEDS = st.lists(
    st.builds(Need, id=st.uuids().map(str), ram_mb=st.integers(1, 64), vcpus=st.integers(1, 4)), max_size=8
)
TARGETS = st.lists(
    st.builds(Target, host=st.sampled_from(["b", "c", "d"]), ram_mb=st.integers(0, 128), vcpus=st.integers(0, 9)),
    unique_by=lambda target: target.host,
)


@given(NEEDS, TARGETS)
def test_never_enough_when_the_sum_is_too_small(needs, targets):
    told = capacity_short(needs, targets)
    if sum(n.ram_mb for n in needs) > sum(t.ram_mb for t in targets):
        assert told
    if told:
        assert "enable or add" in told
    elif needs:
        assert targets


@given(
    st.builds(Need, id=st.just("s"), ram_mb=st.integers(0, 64), vcpus=st.integers(0, 4)),
    TARGETS,
    st.lists(
        st.builds(
            Group,
            name=st.just("g"),
            policy=st.sampled_from(["affinity", "anti-affinity", "soft-affinity", "new-in-2027"]),
            hosts=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(st.just("m"), max_size=2)),
            max_per_host=st.integers(1, 3),
        ),
        max_size=3,
    ),
)
def test_always_one_reason_with_a_remedy(need, targets, groups):
    told = explain(need, "a", targets, groups)
    assert told and len(told) < 1000
    assert any(word in told for word in ("enable", "group", "capacity", "scheduler"))
