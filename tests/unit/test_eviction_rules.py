"""When an Eviction is made, told of a later fault, made anew, or left as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import eviction_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fault_history
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import format_time, is_finished, parse_time

UUID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
UUID2 = "11111111-55b9-4f0a-9f5e-0d1f2a3b4c5d"


def at(second: float) -> str:
    return f"2026-11-24T09:00:{second:09.6f}Z"


def params(**given):
    return {
        "name": None,
        "hypervisor": "cmp01",
        "instances": [UUID],
        "cause": "InstanceStopped",
        "reason": "QEMU was killed",
        "occurred_at": at(10),
        **given,
    }


def wanted(**given) -> rules.Wanted:
    return rules.wanted_from(params(**given))


def eviction(want: rules.Wanted | None = None, finished_at: str | None = None, **status) -> dict:
    want = want or wanted()
    metadata = {"name": want.name, "uid": "u", "resourceVersion": "1"}
    obj = {"apiVersion": "hypervisor.c5c3.io/v1", "kind": "Eviction", "metadata": metadata, "spec": want.spec()}
    if finished_at:
        status = {
            "finishedAt": finished_at,
            "conditions": [{"type": "Evicting", "status": "False", "reason": "Succeeded"}],
            **status,
        }
    if status:
        obj["status"] = status
    return obj


# --- arguments ------------------------------------------------------------------------------------------------------


def test_a_servers_eviction_is_named_as_the_server_and_a_hosts_as_the_host():
    assert wanted().name == UUID
    assert wanted(instances=[UUID.upper()]).name == UUID
    assert wanted(instances=[], cause="Maintenance").name == "cmp01"
    assert wanted(instances=None, cause=None).name == "cmp01"


def test_spec_has_only_what_was_given():
    assert wanted(instances=[], cause=None, occurred_at=None).spec() == {
        "hypervisor": "cmp01",
        "reason": "QEMU was killed",
    }
    assert wanted().spec() == {
        "hypervisor": "cmp01",
        "reason": "QEMU was killed",
        "cause": "InstanceStopped",
        "instances": [UUID],
        "occurredAt": at(10),
    }


@pytest.mark.parametrize("cause", rules.INSTANCE_CAUSES)
def test_a_servers_fault_without_its_uuid_would_empty_the_host(cause):
    with pytest.raises(ArgumentError, match="every server of cmp01"):
        wanted(cause=cause, instances=[])


@pytest.mark.parametrize("cause", rules.HOST_CAUSES)
def test_a_hosts_fault_takes_all_servers(cause):
    assert wanted(cause=cause, instances=[]).name == "cmp01"
    with pytest.raises(ArgumentError, match="leave instances empty"):
        wanted(cause=cause)


@pytest.mark.parametrize("cause", ["Maintenance", "Reboot", None, ""])
def test_other_causes_take_both(cause):
    assert wanted(cause=cause).name == UUID
    assert wanted(cause=cause, instances=[]).name == "cmp01"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hypervisor": None}, "hypervisor"),
        ({"hypervisor": "../x"}, "hypervisor '../x'"),
        ({"hypervisor": "CMP01"}, "hypervisor 'CMP01'"),
        ({"hypervisor": "{{ 1 }}"}, "hypervisor"),
        ({"instances": ["x"]}, "instances: 'x' is not a UUID"),
        ({"instances": [UUID, None]}, "instances: None"),
        ({"instances": ["$(reboot)"]}, "reboot"),
        ({"instances": UUID}, "not a list"),
        ({"cause": "Bogus"}, "cause 'Bogus'"),
        ({"reason": None}, "reason is empty"),
        ({"reason": " \n"}, "reason is empty"),
        ({"occurred_at": "yesterday"}, "occurred_at 'yesterday'"),
        ({"occurred_at": "2026-11-24T09:00:10"}, "occurred_at"),
        ({"name": "other"}, "leave name out"),
        ({"name": UUID2}, "leave name out"),
        ({"name": "other", "instances": [], "cause": None}, "named as the hypervisor"),
        ({"instances": [UUID, UUID2]}, "give name"),
        ({"instances": [UUID, UUID2], "name": UUID}, "belongs to"),
        ({"instances": [UUID, UUID2], "name": "cmp01"}, "belongs to"),
        ({"instances": [UUID, UUID2], "name": "A/b"}, "name 'A/b'"),
        ({"instances": [f"{n:08x}{UUID[8:]}" for n in range(1001)], "name": "many"}, "1001 entries"),
        ({"instances": [], "cause": None, "notify_only": True}, "notify_only"),
    ],
)
def test_wrong_arguments_are_named(given, words):
    with pytest.raises(ArgumentError) as caught:
        wanted(**given)
    assert words in str(caught.value)


def test_several_servers_under_a_name_and_doubles_dropped():
    many = wanted(instances=[UUID, UUID2, UUID.upper()], name="rack-7", cause=None)
    assert (many.name, many.instances) == ("rack-7", (UUID, UUID2))
    assert wanted(instances=[UUID, UUID]).name == UUID


def test_a_long_reason_is_cut_since_a_server_must_not_stay_dead_for_it():
    text = wanted(reason="x" * 5000).reason
    assert len(text) == 1024
    assert text.endswith("...")


@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.text(), st.text())
def test_no_input_makes_anything_but_a_good_name_or_an_argument_error(hypervisor, name, instances, reason, time):
    try:
        want = wanted(
            hypervisor=hypervisor, name=name, instances=instances, reason=reason, occurred_at=time, cause=None
        )
    except ArgumentError as error:
        assert "\n" not in str(error)
        return
    assert want.name == (want.instances[0] if len(want.instances) == 1 else want.name)
    assert "/" not in want.name


@pytest.mark.parametrize(
    ("given", "name"),
    [({"name": "rack-7"}, "rack-7"), ({"instances": [UUID]}, UUID), ({"hypervisor": "cmp01"}, "cmp01")],
)
def test_the_name_of_what_is_to_be_removed(given, name):
    assert rules.name_from(given) == name


@pytest.mark.parametrize("given", [{}, {"name": "../x"}, {"instances": [UUID, UUID2]}, {"instances": ["x"]}])
def test_removal_needs_one_name(given):
    with pytest.raises(ArgumentError):
        rules.name_from(given)


# --- decisions ------------------------------------------------------------------------------------------------------


def test_none_is_created():
    assert rules.decide(None, wanted()).action == rules.CREATE


@pytest.mark.parametrize(
    ("seen", "told", "action"),
    [
        (at(10), at(10), rules.KEEP),
        (at(10), at(9), rules.KEEP),
        (at(10), at(10.000001), rules.UPDATE),
        (None, at(10), rules.UPDATE),
        (at(10), None, rules.KEEP),
        (None, None, rules.KEEP),
    ],
)
def test_in_work_only_a_later_fault_counts(seen, told, action):
    assert rules.decide(eviction(wanted(occurred_at=seen)), wanted(occurred_at=told)).action == action


@pytest.mark.parametrize("status", [None, "True", "Unknown"])
def test_in_work_means_evicting_is_not_false(status):
    existing = eviction(conditions=[{"type": "Evicting", "status": status}], finishedAt=at(1))
    assert rules.decide(existing, wanted(occurred_at=at(11))).action == rules.UPDATE


@pytest.mark.parametrize("finished_at", [at(5), at(20), at(40)])
@pytest.mark.parametrize(
    ("told", "action"),
    [
        (at(9), rules.KEEP),
        (at(10), rules.KEEP),
        (at(10.000001), rules.REPLACE),
        (at(30), rules.REPLACE),
        (None, rules.KEEP),
    ],
)
def test_finished_only_a_fault_it_has_not_answered_begins_anew(told, action, finished_at):
    """The end's time does not count: a server may die between its restart and that end, and clocks differ."""
    assert rules.decide(eviction(finished_at=finished_at), wanted(occurred_at=told)).action == action


def test_the_later_of_what_was_asked_and_what_was_observed_is_answered():
    existing = eviction(finished_at=at(40), observedOccurredAt=at(15))
    assert rules.decide(existing, wanted(occurred_at=at(15))).action == rules.KEEP
    assert rules.decide(existing, wanted(occurred_at=at(16))).action == rules.REPLACE


def test_finished_with_no_fault_named_is_measured_by_its_end():
    """As upstream's controller leaves it: the condition's time only."""
    existing = eviction(
        wanted(occurred_at=None),
        conditions=[
            {"type": "Evicting", "status": "False", "reason": "Failed", "lastTransitionTime": "2026-11-24T09:00:20Z"}
        ],
    )
    assert rules.decide(existing, wanted(occurred_at=at(19))).action == rules.KEEP
    assert rules.decide(existing, wanted(occurred_at=at(21))).action == rules.REPLACE


def test_finished_without_any_time_begins_anew():
    existing = eviction(wanted(occurred_at=None), conditions=[{"type": "Evicting", "status": "False"}])
    assert rules.decide(existing, wanted()).action == rules.REPLACE
    assert rules.decide(existing, wanted(occurred_at=None)).action == rules.KEEP


def test_a_server_that_died_on_its_new_host_waits_for_the_end_of_the_former_eviction():
    existing = eviction(wanted(hypervisor="cmp01"))
    assert rules.decide(existing, wanted(hypervisor="cmp02", occurred_at=at(11))).action == rules.WAIT
    assert rules.decide(existing, wanted(hypervisor="cmp02", occurred_at=at(10))).action == rules.KEEP
    done = eviction(wanted(hypervisor="cmp01"), finished_at=at(20))
    assert rules.decide(done, wanted(hypervisor="cmp02", occurred_at=at(21))).action == rules.REPLACE


def test_one_being_deleted_is_waited_for():
    existing = eviction()
    existing["metadata"]["deletionTimestamp"] = at(11)
    assert rules.decide(existing, wanted(occurred_at=at(11))).action == rules.WAIT


@pytest.mark.parametrize("finished_at", [None, at(1)])
@pytest.mark.parametrize(
    ("there", "asked"),
    [
        ({"instances": [], "cause": None}, {"instances": [UUID, UUID2], "name": "rack-7"}),
        ({"instances": [UUID, UUID2], "name": "rack-7"}, {"instances": [UUID], "cause": None}),
    ],
)
def test_one_of_that_name_about_other_servers_is_no_match(there, asked, finished_at):
    with pytest.raises(ArgumentError, match="is about"):
        rules.decide(eviction(wanted(**there), finished_at=finished_at), wanted(**asked))


def test_order_of_servers_does_not_matter():
    there = wanted(instances=[UUID, UUID2], name="rack-7")
    assert rules.decide(eviction(there), wanted(instances=[UUID2, UUID], name="rack-7")).action == rules.KEEP


# --- telling only ---------------------------------------------------------------------------------------------------

IO = {"cause": "DiskIOError"}


@pytest.mark.parametrize("finished_at", [None, at(10.5)])
@pytest.mark.parametrize(
    ("told", "action"), [(at(10.2), rules.REPLACE), (at(11), rules.REPLACE), (None, rules.REPLACE), (at(9), rules.KEEP)]
)
def test_a_death_after_an_io_error_takes_the_place_of_what_only_told(finished_at, told, action):
    there = eviction(wanted(**IO, notify_only=True), finished_at=finished_at)
    assert rules.decide(there, wanted(occurred_at=told)).action == action


def test_telling_does_not_disturb_work():
    assert rules.decide(eviction(), wanted(**IO, notify_only=True, occurred_at=at(11))).action == rules.KEEP


def test_telling_again():
    there = wanted(**IO, notify_only=True)
    again = wanted(**IO, notify_only=True, occurred_at=at(11))
    assert rules.decide(eviction(there), again).action == rules.NOTE
    assert rules.decide(eviction(there, finished_at=at(10.5)), again).action == rules.NOTE
    elsewhere = wanted(**IO, notify_only=True, occurred_at=at(11), hypervisor="cmp02")
    assert rules.decide(eviction(there, finished_at=at(10.5)), elsewhere).action == rules.REPLACE
    assert rules.decide(eviction(again, finished_at=at(11)), again).action == rules.KEEP


def test_telling_after_work_has_ended():
    assert (
        rules.decide(eviction(finished_at=at(20)), wanted(**IO, notify_only=True, occurred_at=at(21))).action
        == rules.REPLACE
    )


def io_told(*seconds: float, count: int = 3, window: float = 20) -> tuple[dict, list[str]]:
    """Tell of I/O errors at these seconds, as the step does it: the last Eviction and the actions."""
    existing, actions = None, []
    for second in seconds:
        want = wanted(**IO, notify_only=True, occurred_at=at(second), persist_count=count, persist_window=window)
        decision = rules.decide(existing, want)
        actions.append(decision.action)
        asked = decision.wanted or want
        if decision.action in (rules.CREATE, rules.REPLACE, rules.NOTE):
            annotations = asked.annotations(existing)
            existing = eviction(asked, finished_at=at(second) if asked.notify_only else None)
            existing["metadata"]["annotations"] = annotations
    return existing, actions


def test_an_error_that_is_told_often_enough_in_time_is_moved():
    existing, actions = io_told(1, 6, 11)
    assert actions == [rules.CREATE, rules.NOTE, rules.REPLACE]
    assert "notifyOnly" not in existing["spec"]
    assert existing["spec"]["reason"].endswith("told 3 times within 20 s, so it persists")


@pytest.mark.parametrize(
    ("seconds", "options"),
    [((1, 6), {}), ((1, 6, 27), {}), ((1, 6, 6, 6), {}), ((1, 2, 3, 4, 5, 6), {"count": 0}), ((1, 30, 59), {})],
)
def test_one_that_heals_is_only_told(seconds, options):
    existing, actions = io_told(*seconds, **options)
    assert existing["spec"]["notifyOnly"] is True
    assert rules.REPLACE not in actions


def test_after_a_move_it_is_counted_anew():
    existing, _actions = io_told(1, 6, 11)
    moved = {**existing, "status": eviction(finished_at=at(15))["status"]}
    again = wanted(**IO, notify_only=True, occurred_at=at(16), persist_count=3, persist_window=20, hypervisor="cmp02")
    decision = rules.decide(moved, again)
    assert decision.action == rules.REPLACE and decision.wanted is None
    assert len(fault_history.read({"metadata": {"annotations": again.annotations(moved)}})) == 4
    assert fault_history.told_lately(again.faults(moved), "DiskIOError", 20) == 1


def test_that_it_is_over_is_told_once_and_only_of_that_fault():
    there = eviction(wanted(**IO, notify_only=True), finished_at=at(10))
    over = {**IO, "notify_only": True, "fault_over": True, "reason": "It runs again"}
    assert rules.decide(there, wanted(**over)).action == rules.NOTE
    assert len(wanted(**over).faults(there)) == 1
    assert rules.decide(eviction(wanted(**over)), wanted(**over)).action == rules.KEEP
    assert rules.decide(there, wanted(**over, occurred_at=at(11))).action == rules.KEEP
    assert rules.decide(eviction(), wanted(**over)).action == rules.KEEP
    assert rules.decide(None, wanted(**over)).action == rules.KEEP
    with pytest.raises(ArgumentError, match="fault_over"):
        wanted(**IO, fault_over=True)


@pytest.mark.parametrize(
    "given", [{"persist_count": -1}, {"persist_count": 65}, {"persist_window": -0.1}, {"persist_window": 1e9}]
)
def test_persistence_has_bounds(given):
    with pytest.raises(ArgumentError, match="persist_"):
        wanted(**given)


# --- a server's faults ----------------------------------------------------------------------------------------------


def annotated(text: object) -> dict:
    return {"metadata": {"annotations": {fault_history.ANNOTATION: text}}}


@given(st.one_of(st.text(), st.none(), st.integers(), st.dictionaries(st.text(), st.text())))
def test_a_hostile_annotation_is_read_as_what_is_good_of_it(text):
    faults = fault_history.read(annotated(text))
    assert fault_history.read(annotated(fault_history.write(faults))) == faults
    assert fault_history.acted_lately(annotated(text), 600) <= len(faults)


def test_the_annotation_is_bounded_and_keeps_the_newest():
    faults: tuple = ()
    for second in range(3000):
        when = f"2026-11-24T{9 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000000Z"
        faults = fault_history.added(faults, fault_history.Fault(when, "DiskIOError", bool(second % 3)))
    assert len(faults) == 2 * fault_history.KEPT
    assert len(fault_history.write(faults)) < 16_384
    assert fault_history.read(annotated(fault_history.write(faults))) == faults
    assert faults[-1].at.endswith("49:59.000000Z")


# --- a server's life ------------------------------------------------------------------------------------------------


def carry_out(existing: dict | None, want: rules.Wanted) -> dict | None:
    """What the step does with the decision."""
    decision = rules.decide(existing, want)
    if decision.action in (rules.CREATE, rules.REPLACE):
        return eviction(want)
    if decision.action == rules.UPDATE:
        return {**existing, "spec": {**existing["spec"], "occurredAt": want.occurred_at}}
    return existing


def finish(existing: dict, now: str) -> dict:
    """What the operator does: it ends only when it has answered the latest occurredAt."""
    status = {"finishedAt": now, "conditions": [{"type": "Evicting", "status": "False", "reason": "Succeeded"}]}
    return {**existing, "status": status}


@given(st.data())
def test_no_death_is_lost_and_none_is_told_twice(data):
    """Deaths, told once and again at any later time, between ends of the operator's work."""
    existing = None
    told: list[str] = []
    for clock in range(data.draw(st.integers(1, 30))):
        now = format_time(parse_time(at(0)).replace(minute=clock + 1))
        step = data.draw(st.sampled_from(["dies", "again", "end"]))
        if step == "end" and existing is not None and not is_finished(existing):
            existing = finish(existing, now)
        elif step == "dies":
            existing = carry_out(existing, wanted(occurred_at=now))
            told.append(now)
            assert not is_finished(existing), "a death that happened now is always in work"
            assert existing["spec"]["occurredAt"] == now
        elif step == "again" and told:
            before = existing
            existing = carry_out(existing, wanted(occurred_at=data.draw(st.sampled_from(told))))
            assert existing is before, "what was told before changes nothing"
