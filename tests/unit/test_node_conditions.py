# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bookkeeping of the source node_conditions: what is told of Nodes, joined and on time. No I/O, clocks by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import NODES, format_time
from ansible_collections.c5c3.ha.plugins.module_utils.watching import nodes as nodes_module
from ansible_collections.c5c3.ha.plugins.module_utils.watching.nodes import (
    KnownNodes,
    NodeOptions,
    Spacing,
    Tokens,
    node_facts,
    render,
)
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import parse_nodes

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "extensions/eda/schemas/node_event.schema.json").read_text())
EPOCH = 1_795_000_000.0


def stamp(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(EPOCH + seconds, UTC))[:19] + "Z"


def node(name="cmp01", ready="True", at=0.0, version="1", problems=(), uid="", **metadata):
    conditions = [
        {"type": "Ready", "status": ready, "lastTransitionTime": stamp(at), "reason": "Why", "message": "x" * 500},
        *({"type": kind, "status": "True", "lastTransitionTime": stamp(since)} for kind, since in problems),
    ]
    return {
        "kind": "Node",
        "metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": version, **metadata},
        "status": {"conditions": conditions, "images": [{"names": ["long"] * 50}]},
    }


class Bench:
    """A `KnownNodes` with its tokens, clocks by hand (the engine's begins at 1000), as the engine drives it."""

    def __init__(self, resync=30.0, **options):
        self.time = 0.0
        self.known = KnownNodes(NODES, NodeOptions(**{"heartbeat_seconds": 0, **options}), resync, self.wall)
        self.tokens = Tokens()

    def wall(self):
        return EPOCH + self.time

    @property
    def clock(self):
        return 1000 + self.time

    def lists(self, *nodes):
        self._take(self.known.listed([self.known.slim(one) for one in nodes]))

    def sees(self, *nodes, kind="MODIFIED"):
        for one in nodes:
            self._take(self.known.watched(kind, self.known.slim(one)))

    def _take(self, changes):
        for change in changes:
            self.tokens.add(change)

    def tell(self, connected=True, withdraw=False):
        """What is told now."""
        self._take(self.known.due(self.clock, connected))
        told = []
        while self.tokens:
            change = self.tokens.take()
            event = render(change)
            if event is not None:
                jsonschema.validate(event, SCHEMA)
                told.append(event)
                if withdraw:
                    self.tokens.put_back(change)
                    return told
            self.known.delivered(change, self.clock)
        return told

    def until(self, time, connected=True):
        """Let time pass, waking as the engine would; return (time, event) of all that is told."""
        told = []
        for _turn in range(10_000):
            told += [(self.time, event) for event in self.tell(connected)]
            due = self.known.next_due(connected)
            if due is None or due - 1000 > time:
                self.time = time
                return told
            # The engine never naps for less than that.
            self.time = max(self.time + 0.02, due - 1000)
        raise AssertionError("a busy loop")


def short(told):
    return [(round(time, 2), event["type"], *event["names"]) for time, event in told]


@pytest.fixture()
def bench():
    made = Bench()
    made.lists(node("a"), node("b"), node("c", problems=[("DiskPressure", -5)]))
    (event,) = made.tell()
    assert (event["type"], event["count"], event["total"], event["names"]) == ("INIT_DONE", 1, 3, ["c"])
    assert event["nodes"][0]["problems"] == ["DiskPressure"]
    made.until(130)  # Ready for two minutes: nothing waits any more
    assert made.known.next_due() is None
    return made


# --- transitions --------------------------------------------------------------------------------------------------


def test_signs_of_life_are_no_transition(bench):
    changed = node("a", version="2")
    changed["status"]["conditions"][0]["lastHeartbeatTime"] = stamp(100)
    changed["status"]["conditions"][0]["reason"] = "Other"
    bench.sees(changed, node("b", version="3"))
    assert bench.until(200) == []


def test_transitions_within_the_window_are_one_event(bench):
    bench.sees(node("a", "Unknown", at=130))
    assert bench.tell() == []
    bench.time += 0.1
    bench.sees(node("b", "False", at=130), node("c"))
    ((time, event),) = bench.until(131)
    assert time == pytest.approx(130.2)
    assert (event["type"], event["names"]) == ("TRANSITION", ["a", "b", "c"])
    assert (event["total"], event["ready"], event["not_ready"], event["unreachable"]) == (3, 1, 1, 1)
    a, b, c = event["nodes"]
    assert a["state"] == "Unreachable"
    assert a["changed"] == [{"condition": "Ready", "previous": "True", "status": "Unknown", "since": stamp(130)}]
    assert (b["state"], c["problems"]) == ("NotReady", [])
    assert c["changed"] == [{"condition": "DiskPressure", "previous": "True", "status": "False", "since": ""}]


def test_a_storm_of_transitions_slows_down(bench):
    told = []
    for step in range(100):
        bench.sees(node(f"n{step}", "Unknown", at=130, version="7"))
        told += bench.until(130 + step / 10)
    times = [time - 130 for time, _event in told]
    assert times[0] == pytest.approx(0.2, abs=0.03)
    assert len(times) <= 8
    assert sum(event["count"] for _time, event in told if event["type"] == "TRANSITION") >= 80


def test_of_a_node_that_flaps_while_nobody_listens_the_newest_is_told(bench):
    bench.sees(node("a", "Unknown", at=131), node("a", "True", at=140))
    ((_time, event),) = bench.until(142)
    assert event["nodes"][0]["changed"] == [
        {"condition": "Ready", "previous": "True", "status": "True", "since": stamp(140)}
    ]


def test_a_new_a_deleted_and_an_exchanged_node(bench):
    bench.sees(node("new", at=130), kind="ADDED")
    bench.sees(node("a"), kind="DELETED")
    bench.sees(node("b", uid="other", at=130))
    ((_time, event),) = bench.until(131)
    assert [
        (n["name"], n["deleted"], n["uid"], n["changed"][:1] and n["changed"][0]["condition"]) for n in event["nodes"]
    ] == [
        ("new", False, "uid-new", []),
        ("a", True, "uid-a", []),
        ("b", False, "other", "Ready"),
    ]
    assert event["total"] == len(bench.known) == 3
    assert bench.until(135) == []


def test_a_node_that_came_and_went_unheard_is_not_told(bench):
    bench.sees(node("short"), kind="ADDED")
    bench.sees(node("short"), kind="DELETED")
    assert bench.until(131) == []


def test_the_deletion_of_a_predecessor_is_not_the_successors(bench):
    bench.sees(node("a", uid="second", at=130), kind="ADDED")
    bench.sees(node("a"), kind="DELETED")
    ((_time, event),) = bench.until(131)
    assert [(n["name"], n["deleted"]) for n in event["nodes"]] == [("a", False)]


def test_a_node_that_is_being_deleted_is_told(bench):
    bench.sees(node("a", deletionTimestamp=stamp(130)))
    ((_time, event),) = bench.until(131)
    assert event["nodes"][0]["deleting"]


def test_what_a_second_list_shows_is_told_as_transitions(bench):
    bench.lists(node("a", "Unknown", at=100), node("c", problems=[("DiskPressure", -5)]), node("d", at=130))
    ((_time, event),) = bench.until(130.5)
    assert {n["name"]: (n["state"], n["deleted"]) for n in event["nodes"]} == {
        "a": ("Unreachable", False),
        "b": ("Ready", True),
        "d": ("Ready", False),
    }


def test_more_nodes_than_one_event_takes_follow_in_the_next(monkeypatch):
    monkeypatch.setattr(nodes_module, "LIMIT", 3)
    bench = Bench()
    bench.lists(*(node(f"n{number}") for number in range(7)))
    bench.until(130)
    bench.sees(*(node(f"n{number}", "Unknown", at=130) for number in range(7)))
    told = bench.until(189)
    assert [(event["count"], len(event["names"])) for _time, event in told] == [(7, 3), (4, 3), (1, 1)]
    overdue = bench.until(219)
    assert [(event["type"], event["count"], len(event["names"])) for _time, event in overdue] == [("OVERDUE", 7, 3)]


# --- clocks -------------------------------------------------------------------------------------------------------


def test_overdue_is_told_on_time_and_again_as_long_as_it_lasts(bench):
    bench.sees(node("a", "Unknown", at=130), node("b", "False", at=130))
    told = short(bench.until(260))
    assert told == [
        (130.2, "TRANSITION", "a", "b"),
        (190.0, "OVERDUE", "a"),
        (220.0, "OVERDUE", "a"),
        (250.0, "OVERDUE", "a"),
    ]
    bench.sees(node("a", at=262))
    assert short(bench.until(431)) == [
        (260.2, "TRANSITION", "a"),
        (380.0, "RETURNED", "a"),  # we saw it Ready at 260, whatever the other's clock says
        (430.0, "OVERDUE", "b"),
    ]


def test_the_clock_is_the_nodes_own_after_a_restart():
    bench = Bench()
    bench.time = 100
    bench.lists(
        node("old", "Unknown", at=0), node("young", "Unknown", at=70), node("back", at=40), node("long", at=-500)
    )
    told = short(bench.until(165))
    assert told == [
        (100, "INIT_DONE", "old", "young"),
        (100, "OVERDUE", "old"),
        (130.0, "OVERDUE", "old", "young"),
        (160.0, "OVERDUE", "old", "young"),
        (160.0, "RETURNED", "back"),
    ]


def test_a_node_without_a_time_is_counted_from_when_it_was_seen():
    bench = Bench()
    nameless = node("a", "Unknown")
    nameless["status"]["conditions"][0]["lastTransitionTime"] = "yesterday"
    bench.lists(nameless, {"metadata": {"name": "b", "uid": "b", "resourceVersion": "1"}})
    assert short(bench.until(61)) == [(0, "INIT_DONE", "a", "b"), (60.0, "OVERDUE", "a", "b")]


def test_no_clock_is_told_while_the_server_is_away_nor_at_once_when_it_is_back(bench):
    bench.sees(node("a", "Unknown", at=130))
    bench.until(131)
    assert bench.until(195, connected=False) == []
    bench.known.postpone(bench.clock + 2)
    assert bench.until(196) == []
    bench.sees(node("a", at=170))  # what was missed arrives first
    assert short(bench.until(199)) == [(196.2, "TRANSITION", "a")]


def test_clocks_that_run_out_one_after_the_other_are_told_ever_more_together(bench):
    bench.sees(*(node(f"n{number}", "Unknown", at=100 + number) for number in range(40)))
    told = [event for _time, event in bench.until(201) if event["type"] == "OVERDUE"]
    assert len(told) <= 30
    assert told[-1]["count"] == 40


def test_a_recovery_while_the_event_waits_makes_it_void(bench):
    bench.sees(node("a", "Unknown", at=130))
    bench.until(150)
    bench.time = 190.01
    bench._take(bench.known.due(bench.clock))
    assert bench.tokens
    bench.sees(node("a", at=190))
    assert bench.tell() == []
    assert short(bench.until(192)) == [(190.21, "TRANSITION", "a")]


def test_wall_clock_set_back_or_forward_is_noticed(bench):
    bench.sees(node("a", "Unknown", at=130))
    bench.until(150)
    real = bench.known._wall
    bench.known._wall = lambda: real() + 35
    assert short(bench.until(160)) == [(155.0, "OVERDUE", "a")]


# --- Lease, withdrawal, heartbeat -----------------------------------------------------------------------------------


def test_a_new_holder_tells_what_is_not_well_and_what_is_overdue_at_once(bench):
    bench.sees(node("a", "Unknown", at=130), node("b", "False", at=130))
    bench.until(200)
    bench.sees(node("c"))
    bench.tokens.clear()
    bench._take(bench.known.unfinished())
    assert [e[1:] for e in short(bench.until(201))] == [("INIT_DONE", "a", "b"), ("OVERDUE", "a")]


def test_an_event_that_was_withdrawn_is_told_with_what_came_since(bench):
    bench.sees(node("a", "Unknown", at=130))
    bench.time = 130.3
    bench.tell()
    bench.time = 131
    assert [event["names"] for event in bench.tell(withdraw=True)] == [["a"]]
    bench.sees(node("b", "Unknown", at=130))
    assert [event["names"] for event in bench.tell()] == [["a", "b"]]
    assert bench.until(140) == []


def test_heartbeats_say_how_many_and_whether_the_server_answers():
    bench = Bench(heartbeat_seconds=10)
    bench.lists(node("a"), node("b", "Unknown", at=0))
    told = [e for _t, e in bench.until(15)] + [e for _t, e in bench.until(25, connected=False)]
    beats = [event for event in told if event["type"] == "HEARTBEAT"]
    assert [(b["connected"], b["total"], b["ready"], b["unreachable"]) for b in beats] == [
        (True, 2, 1, 1),
        (False, 2, 1, 1),
    ]


# --- pure parts -----------------------------------------------------------------------------------------------------


def test_spacing_begins_anew_after_a_quiet_time():
    spacing = Spacing(0.2)
    assert spacing.at(10) == 10.2
    for now, following in ((10.2, 10.4), (10.4, 10.8), (10.8, 11.6), (11.6, 13.2), (13.2, 15.2), (15.2, 17.2)):
        spacing.told(now)
        assert spacing.at(now) == pytest.approx(following)
    spacing.told(100)
    assert spacing.at(100) == 100.2


def test_little_is_kept_of_a_node():
    slim = KnownNodes(NODES, NodeOptions(), 30).slim(node("a", labels={"topology.kubernetes.io/zone": "z1"}))
    assert slim["facts"].zone == "z1"
    assert len(repr(slim)) < 500


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "status", "Ready"]), inner),
        max_leaves=8,
    )
)
def test_a_status_of_any_shape_is_survived(status):
    facts = node_facts({"metadata": {"labels": status}, "status": {"conditions": status}})
    assert facts.state in ("Ready", "NotReady", "Unreachable")
    assert node_facts({"metadata": {}, "status": status}).ready


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"unreachable_seconds": "soon"}, "unreachable_seconds 'soon' is wrong: give a number of seconds"),
        ({"conditions": ["Ready"]}, "conditions 'Ready' is wrong"),
        ({"conditions": ["a/b"]}, "conditions 'a/b' is wrong"),
        ({"unreachable_second": 5}, "Unknown option 'unreachable_second': did you mean unreachable_seconds?"),
        ({"label_selectors": {"a": "b"}}, "label_selectors {'a': 'b'} is wrong: give a list of strings"),
        ({"lease": {}}, "lease.name is missing"),
        ({"kinds": ["Node"]}, "Unknown option 'kinds'"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(args, says):
    with pytest.raises(ArgumentError) as error:
        parse_nodes(args)
    assert says in str(error.value)


def test_the_default_takes_hypervisors_and_an_empty_list_all():
    (watched,) = parse_nodes({})[0].watched
    assert (watched.resource.path(), watched.label_selector) == (
        "/api/v1/nodes",
        "nova.openstack.cloud.sap/virt-driver",
    )
    assert parse_nodes({"label_selectors": []})[0].watched[0].label_selector == ""
