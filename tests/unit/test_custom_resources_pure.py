# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bookkeeping of the watch engine: known objects, outbox, election, lines. No I/O, time is handed in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions, hypervisors, migrations
from ansible_collections.c5c3.ha.plugins.module_utils.watching import custom_resources
from ansible_collections.c5c3.ha.plugins.module_utils.watching.election import (
    CREATE,
    RENEW,
    TAKE,
    WAIT,
    Election,
    Timing,
)
from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import Known, identify
from ansible_collections.c5c3.ha.plugins.module_utils.watching.lines import LineSplitter
from ansible_collections.c5c3.ha.plugins.module_utils.watching.outbox import Outbox
from ansible_collections.c5c3.ha.plugins.module_utils.watching.watcher import Complaints, delay

RUNNING = {"conditions": [{"type": "Evicting", "status": "True", "reason": "Running"}]}
DONE = {"conditions": [{"type": "Evicting", "status": "False", "reason": "Succeeded"}]}


def obj(name, version, uid=None, status=None, **metadata):
    made = {"metadata": {"name": name, "resourceVersion": str(version), "uid": uid or f"uid-{name}", **metadata}}
    if status is not None:
        made["status"] = status
    return made


def known(resync=10.0, resource=None):
    resource = resource or evictions()
    return Known(resource, custom_resources.finished(resource), resync)


def told(changes):
    return [(c.type, c.key[1], c.resource_version) if c.key else (c.type, c.count) for c in changes]


# --- known objects ------------------------------------------------------------------------------------------------


def test_first_list_tells_all_and_then_that_it_is_complete():
    changes = known().listed([obj("a", 1), obj("b", 2, status=DONE)])
    assert told(changes) == [("ADDED", "a", "1"), ("ADDED", "b", "2"), ("INIT_DONE", 2)]
    assert all(change.initial for change in changes)
    assert [change.finished for change in changes] == [False, True, False]


def test_a_list_after_the_first_tells_only_differences_deleted_first():
    objects = known()
    objects.listed([obj("same", 1), obj("changed", 2), obj("gone", 3), obj("anew", 4, uid="old")])
    changes = objects.listed([obj("same", 1), obj("changed", 5), obj("anew", 6, uid="new"), obj("born", 7)])
    assert told(changes) == [
        ("DELETED", "gone", "3"),
        ("MODIFIED", "changed", "5"),
        ("DELETED", "anew", "4"),
        ("ADDED", "anew", "6"),
        ("ADDED", "born", "7"),
    ]
    assert [change.uid for change in changes[2:4]] == ["old", "new"]
    assert len(objects) == 4


def test_with_a_lease_finished_objects_of_the_first_list_stay_untold_but_are_known():
    objects = known()
    changes = objects.listed([obj("a", 1), obj("b", 2, status=DONE)], only_unfinished=True)
    assert told(changes) == [("ADDED", "a", "1"), ("INIT_DONE", 2)]
    assert told(objects.listed([obj("a", 1), obj("b", 3, status=DONE)], only_unfinished=True)) == [
        ("MODIFIED", "b", "3")
    ]


@pytest.mark.parametrize(
    ("kind", "thing", "expected"),
    [
        ("ADDED", obj("a", 1), []),  # the same resourceVersion again
        ("MODIFIED", obj("a", 1), []),
        ("ADDED", obj("a", 2), [("MODIFIED", "a", "2")]),  # known already: a selector's way of saying changed
        ("MODIFIED", obj("n", 2), [("ADDED", "n", "2")]),  # not known: it is new to whoever listens
        ("ADDED", obj("a", 2, uid="other"), [("DELETED", "a", "1"), ("ADDED", "a", "2")]),
        ("DELETED", obj("a", 2), [("DELETED", "a", "2")]),
        ("DELETED", obj("n", 2), []),
        ("DELETED", obj("a", 2, uid="other"), []),  # its predecessor, told long ago
        ("DANCED", obj("a", 2), []),
    ],
)
def test_watch_events(kind, thing, expected):
    objects = known()
    objects.listed([obj("a", 1)])
    assert told(objects.watched(kind, thing)) == expected
    assert told(objects.watched(kind, thing)) == []  # and never twice


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        5,
        "x",
        [],
        {},
        {"metadata": None},
        {"metadata": []},
        {"metadata": {"name": "a"}},
        {"metadata": {"name": "", "resourceVersion": "1"}},
        {"metadata": {"name": ["a"], "resourceVersion": "1"}},
        {"metadata": {"name": "a", "resourceVersion": 1}},
        {"metadata": {"name": "a", "resourceVersion": "1", "namespace": {"x": 1}}},
        {"metadata": {"name": "a", "resourceVersion": "1", "uid": 7}},
    ],
)
def test_objects_without_usable_metadata_are_counted_and_left_out(hostile):
    objects = known()
    assert identify(hostile) is None
    assert told(objects.listed([hostile, obj("good", 1)])) == [("ADDED", "good", "1"), ("INIT_DONE", 1)]
    assert objects.watched("MODIFIED", hostile) == []
    assert objects.malformed == 2


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, False),
        ({}, False),
        (RUNNING, False),
        (DONE, True),
        ({"conditions": [{"type": "Evicting", "status": "False", "reason": "Failed"}]}, True),
        ({"conditions": [{"type": "Evicting", "status": "Unknown"}]}, False),
        ({"conditions": [{"type": "Fenced", "status": "False"}]}, False),
        ("nonsense", False),
        ({"conditions": "nonsense"}, False),
        ({"conditions": [None, 7]}, False),
    ],
)
def test_finished_eviction(status, expected):
    assert known().listed([obj("a", 1, status=status)])[0].finished is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("completed", True),
        ("failed", True),
        ("cancelled", True),
        ("success", True),
        ("unbounded", False),
        (None, False),
    ],
)
def test_finished_migration(kind, expected):
    assert known(resource=migrations()).listed([obj("a", 1, status={"type": kind})])[0].finished is expected


def test_a_hypervisor_is_never_finished():
    assert known(resource=hypervisors()).listed([obj("a", 1, status=DONE)])[0].finished is False


# --- resync -------------------------------------------------------------------------------------------------------


def test_an_unchanged_unfinished_object_is_told_again_each_interval_after_it_was_taken():
    objects = known(resync=10)
    change, _done = objects.listed([obj("a", 1)])
    assert objects.due(1000) == []  # not taken yet: no clock runs
    objects.delivered(change, 100)
    assert objects.next_due() == 110
    assert objects.due(109.9) == []
    (again,) = objects.due(110)
    assert (again.type, again.initial, again.obj) == ("RESYNC", False, change.obj)
    assert objects.due(500) == []  # on its way
    objects.delivered(again, 111)
    assert objects.next_due() == 121


def test_a_change_starts_the_interval_anew():
    objects = known(resync=10)
    first = objects.listed([obj("a", 1)])[0]
    objects.delivered(first, 100)
    (changed,) = objects.watched("MODIFIED", obj("a", 2))
    assert objects.due(200) == []
    objects.delivered(first, 150)  # late news of the old state does not start it
    assert objects.next_due() is None
    objects.delivered(changed, 205)
    assert objects.next_due() == 215


def test_finished_deleted_and_switched_off_are_not_resynced():
    objects = known(resync=10)
    changes = objects.listed([obj("a", 1), obj("b", 2, status=DONE)])
    for change in changes:
        objects.delivered(change, 0)
    (deleted,) = objects.watched("DELETED", obj("a", 3))
    objects.delivered(deleted, 1)
    assert objects.due(1000) == []
    off = known(resync=0)
    off.delivered(off.listed([obj("a", 1)])[0], 0)
    assert off.next_due() is None


def test_after_an_interruption_missed_changes_come_first():
    objects = known(resync=10)
    objects.delivered(objects.listed([obj("a", 1)])[0], 0)
    objects.postpone(302)
    assert objects.due(301) == []
    assert told(objects.due(302)) == [("RESYNC", "a", "1")]


def test_a_new_holder_starts_with_every_unfinished_object():
    objects = known(resync=10)
    for change in objects.listed([obj("a", 1), obj("b", 2, status=DONE)]):
        objects.delivered(change, 0)
    changes = objects.unfinished()
    assert told(changes) == [("ADDED", "a", "1"), ("INIT_DONE", 2)]
    assert changes[0].initial
    assert objects.due(1000) == []  # they are on their way


# --- outbox -------------------------------------------------------------------------------------------------------


def drain(outbox):
    taken = []
    while outbox:
        taken.append(outbox.take())
    return taken


def feed(outbox, objects, *events):
    for kind, thing in events:
        for change in objects.watched(kind, thing):
            outbox.add(change)


def test_only_the_newest_state_waits_and_keeps_its_place():
    outbox, objects = Outbox(), known()
    feed(outbox, objects, ("ADDED", obj("a", 1)), ("ADDED", obj("b", 2)), ("MODIFIED", obj("a", 3)))
    assert len(outbox) == 2
    assert told(drain(outbox)) == [("ADDED", "a", "3"), ("ADDED", "b", "2")]


def test_born_and_gone_while_nobody_looked_is_not_told():
    outbox, objects = Outbox(), known()
    feed(outbox, objects, ("ADDED", obj("a", 1)), ("MODIFIED", obj("a", 2)), ("DELETED", obj("a", 3)))
    assert not outbox


def test_deleted_and_made_again_are_two():
    outbox, objects = Outbox(), known()
    feed(outbox, objects, ("ADDED", obj("a", 1)))
    drain(outbox)
    feed(
        outbox,
        objects,
        ("MODIFIED", obj("a", 2)),
        ("ADDED", obj("a", 3, uid="new")),
        ("MODIFIED", obj("a", 4, uid="new")),
    )
    taken = drain(outbox)
    assert told(taken) == [("DELETED", "a", "2"), ("ADDED", "a", "4")]


def test_a_resync_gives_way_to_news_and_adds_nothing_to_them():
    outbox, objects = Outbox(), known(resync=1)
    feed(outbox, objects, ("ADDED", obj("a", 1)))
    objects.delivered(outbox.take(), 0)
    (resync,) = objects.due(5)
    outbox.add(resync)
    feed(outbox, objects, ("MODIFIED", obj("a", 2)))
    outbox.add(resync)
    assert told(drain(outbox)) == [("MODIFIED", "a", "2")]


def test_what_was_taken_back_is_first_again_and_joined_with_news():
    outbox, objects = Outbox(), known()
    feed(outbox, objects, ("ADDED", obj("a", 1)), ("ADDED", obj("b", 2)))
    taken = outbox.take()
    feed(outbox, objects, ("MODIFIED", obj("a", 3)))
    outbox.put_back(taken)
    assert told(drain(outbox)) == [("ADDED", "a", "3"), ("ADDED", "b", "2")]
    with pytest.raises(IndexError):
        outbox.take()


def test_kinds_with_equal_names_do_not_meet():
    outbox, one, two = Outbox(), known(), known(resource=hypervisors())
    feed(outbox, one, ("ADDED", obj("a", 1)))
    feed(outbox, two, ("ADDED", obj("a", 9)))
    assert told(drain(outbox)) == [("ADDED", "a", "1"), ("ADDED", "a", "9")]


class Listener:
    """Whoever reads the events: checks that they make sense in their order."""

    def __init__(self):
        self.view = {}
        self.versions = set()

    def hear(self, change):
        if change.key is None:
            return
        name = change.key[1]
        if change.type == "ADDED":
            assert name not in self.view
        else:
            assert self.view[name][0] == change.uid
        if change.type == "DELETED":
            del self.view[name]
            return
        if change.type == "RESYNC":
            assert self.view[name] == (change.uid, change.resource_version)
            return
        assert change.resource_version not in self.versions, "the same state was told twice"
        self.versions.add(change.resource_version)
        self.view[name] = (change.uid, change.resource_version)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "delete", "hear", "hear", "withdraw", "miss", "relist", "tick"]),
            st.sampled_from("abc"),
        ),
        max_size=60,
    )
)
def test_any_history_is_told_truly_once_and_in_order(steps):
    """A world of three names; watch events may be missed until the next list; the reader may lag and be interrupted."""
    world, objects, outbox, listener = {}, known(resync=1), Outbox(), Listener()
    version, uid, missing, now = 0, 0, False, 0.0

    def tell(changes):
        for change in changes:
            outbox.add(change)

    def event(kind, thing):
        if not missing:
            tell(objects.watched(kind, thing))

    tell(objects.listed([]))
    for step, name in steps:
        if step in ("write", "delete"):
            version += 1
        if step == "write":
            if name not in world:
                uid += 1
                world[name] = obj(name, version, uid=f"u{uid}")
                event("ADDED", world[name])
            else:
                world[name] = obj(name, version, uid=world[name]["metadata"]["uid"])
                event("MODIFIED", world[name])
        elif step == "delete" and name in world:
            gone = world.pop(name)
            event("DELETED", obj(name, version, uid=gone["metadata"]["uid"]))
        elif step == "hear" and outbox:
            change = outbox.take()
            listener.hear(change)
            objects.delivered(change, now)
        elif step == "withdraw" and outbox:
            outbox.put_back(outbox.take())
        elif step == "miss":
            missing = True
        elif step == "relist":
            missing = False
            tell(objects.listed(list(world.values())))
        elif step == "tick" and not missing:
            now += 5
            tell(objects.due(now))
        assert len(outbox) <= 2 * 3 + 1
    tell(objects.listed(list(world.values())))
    for change in drain(outbox):
        listener.hear(change)
    assert listener.view == {
        name: (thing["metadata"]["uid"], thing["metadata"]["resourceVersion"]) for name, thing in world.items()
    }


# --- election -----------------------------------------------------------------------------------------------------

TIMING = Timing(duration=10, renew_deadline=6.5, retry_period=2)


class Store:
    """A Lease in an API server."""

    def __init__(self):
        self.lease, self.version = None, 0

    def write(self, lease):
        old = (self.lease or {}).get("metadata", {}).get("resourceVersion")
        if lease["metadata"].get("resourceVersion") != old:
            return None
        self.version += 1
        self.lease = {**lease, "metadata": {"uid": "u1", **lease["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


def attempt(election, store, now, took=0.0):
    """One read, decide, write; returns (action, what `wrote` said or None)."""
    election.observe(store.lease, now)
    action = election.action(now)
    if action == WAIT:
        return action, None
    answer = store.write(election.body(action, f"t{now}"))
    return action, None if answer is None else election.wrote(answer, now, now + took)


def test_first_creates_second_waits_until_it_runs_out_by_its_own_clock():
    store, one, two = Store(), Election("one", TIMING), Election("two", TIMING)
    assert attempt(one, store, 0) == (CREATE, False)
    assert one.held(6.4)
    assert not one.held(6.5)
    assert attempt(two, store, 1000) == (WAIT, None)  # another machine's clock
    assert two.next_attempt(1000) == 1002
    assert attempt(two, store, 1009.9) == (WAIT, None)
    assert two.next_attempt(1009.5) == 1010  # exactly when it runs out
    assert attempt(two, store, 1010) == (TAKE, False)
    assert store.lease["spec"]["leaseTransitions"] == 1
    assert store.lease["spec"]["holderIdentity"] == "two"


def test_each_renewal_seen_starts_the_wait_anew():
    store, one, two = Store(), Election("one", TIMING), Election("two", TIMING)
    attempt(one, store, 0)
    attempt(two, store, 0)
    assert attempt(one, store, 2) == (RENEW, True)
    for now in (3, 9, 12.9):
        assert attempt(two, store, now)[0] == WAIT
    assert attempt(two, store, 13)[0] == TAKE


def test_a_holder_that_reads_another_name_has_lost_at_once():
    store, one = Store(), Election("one", TIMING)
    attempt(one, store, 0)
    store.lease["spec"]["holderIdentity"] = "intruder"
    assert attempt(one, store, 1)[0] == WAIT
    assert not one.held(1)
    assert one.deadline() is None


def test_the_deadline_counts_from_the_moment_before_the_request():
    store, one = Store(), Election("one", TIMING)
    attempt(one, store, 0, took=4)
    assert one.deadline() == 6.5


def test_renewed_late_but_nobody_else_held_it_meanwhile():
    store, one = Store(), Election("one", TIMING)
    attempt(one, store, 0)
    assert not one.held(300)
    one.lost()
    assert attempt(one, store, 300) == (RENEW, True)
    assert one.held(301)


def test_regained_after_another_held_it_is_told_apart():
    store, one, two = Store(), Election("one", TIMING), Election("two", TIMING)
    attempt(one, store, 0)
    attempt(two, store, 0)
    attempt(two, store, 20)
    store.write(two.released("now"))
    assert attempt(one, store, 21) == (TAKE, False)


def test_a_deleted_lease_is_created_anew_and_counts_as_interrupted():
    store, one = Store(), Election("one", TIMING)
    attempt(one, store, 0)
    store.lease = None
    one.observe(None, 1)
    assert not one.held(1)
    assert one.action(1) == CREATE
    answer = store.write(one.body(CREATE, "t"))
    assert one.wrote({**answer, "metadata": {**answer["metadata"], "uid": "u2"}}, 1, 1) is False


def test_given_back_it_can_be_taken_at_once():
    store, one, two = Store(), Election("one", TIMING), Election("two", TIMING)
    attempt(one, store, 0)
    attempt(two, store, 0)
    assert two.released("now") is None  # not ours to give
    store.write(one.released("now"))
    assert attempt(two, store, 0.1) == (TAKE, False)


@pytest.mark.parametrize("lease", [{}, {"spec": None}, {"spec": {"leaseDurationSeconds": "x", "holderIdentity": "z"}}])
def test_leases_of_any_shape_are_survived(lease):
    one = Election("one", TIMING)
    one.observe({"metadata": {}, **lease}, 0)
    assert one.action(0) in (TAKE, WAIT)
    assert one.action(100) == TAKE
    assert one.body(TAKE, "t")["spec"]["holderIdentity"] == "one"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # candidate
            st.floats(0.01, 7),  # time that passes before
            st.floats(0, 3),  # time that the write takes to be answered
            st.sampled_from(["ok", "ok", "ok", "read only", "unanswered", "dead"]),
        ),
        max_size=80,
    )
)
def test_never_two_holders(steps):
    store, now = Store(), 0.0
    candidates = [Election(f"c{number}", TIMING) for number in range(3)]
    for number, pause, took, what in steps:
        now += pause
        one = candidates[number]
        one.observe(store.lease, now)
        action = one.action(now)
        if action != WAIT and what in ("ok", "unanswered"):
            answer = store.write(one.body(action, f"t{now}"))
            sent, now = now, now + took
            if answer is not None and what == "ok":
                one.wrote(answer, sent, now)
        assert sum(candidate.held(now) for candidate in candidates) <= 1


# --- lines, delays, complaints ------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line and line), max_size=10), st.integers(1, 9))
def test_lines_come_out_as_they_went_in_whatever_the_chunks(lines, size):
    data = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter()
    got = [line for start in range(0, len(data), size) for line in splitter.feed(data[start : start + size])]
    assert got == lines


def test_a_line_too_long_costs_only_itself():
    splitter = LineSplitter(limit=5)
    got = []
    for chunk in (b"ab\n123", b"456", b"789", b"\ncd\n", b"half"):
        got += splitter.feed(chunk)
    assert got == [b"ab", b"cd"]
    assert splitter.dropped == 1


def test_delays_double_to_a_cap_and_half_of_each_is_chance():
    assert delay(0) == 0
    assert [delay(n, lambda: 1.0) for n in (1, 2, 3, 7, 100)] == [0.1, 0.2, 0.4, 2.0, 2.0]
    assert delay(100, lambda: 0.0) == 1.0


def test_equal_complaints_are_logged_once_a_minute(caplog):
    now = [0.0]
    complaints = Complaints("It", lambda: now[0])
    for second in range(0, 150, 10):
        now[0] = float(second)
        complaints.say("hurts")
    complaints.say("itches")
    complaints.over()
    complaints.over()
    assert [record.getMessage() for record in caplog.records] == [
        "It: hurts",
        "It: hurts",
        "It: hurts",
        "It: itches",
        "It: works again",
    ]


def test_joined_changes_of_chosen_fields_name_all_of_them():
    known = Known(evictions(), lambda obj: False, fields=("spec.a", "spec.b", "status.c.d"))

    def thing(version, a, b):
        metadata = {"name": "x", "uid": "u", "resourceVersion": version, "labels": {"l": version}}
        return known.slim({"metadata": metadata, "spec": {"a": a, "b": b}, "status": {"c": version}})

    box = Outbox()
    (first,) = known.watched("ADDED", thing("1", 1, 1))
    known.delivered(first, 0.0)
    for obj in (thing("2", 2, 1), thing("3", 2, 2), thing("4", 2, 2)):
        for change in known.watched("MODIFIED", obj):
            box.add(change)
    change = box.take()
    assert (change.resource_version, change.changed) == ("3", ("spec.a", "spec.b"))
    assert not box
