"""Which RabbitMQ member restarts itself after a hang: the one that is apart from the majority, and never a majority."""

from __future__ import annotations

import importlib.util
import io
import threading
from pathlib import Path

import pytest

A, B, C = "rabbit@a", "rabbit@b", "rabbit@c"


@pytest.fixture(scope="module")
def rejoin():
    path = Path(__file__).parents[2] / "roles" / "rabbitmq" / "files" / "rejoin.py"
    spec = importlib.util.spec_from_file_location("rabbitmq_rejoin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("partitions", "restarted"),
    [
        ({A: [], B: [], C: []}, []),
        # one that hung sees both others apart, each of them sees it apart
        ({B: [A, C], A: [B], C: [B]}, [B]),
        ({A: [B, C], B: [A], C: [A]}, [A]),
        ({A: [B, C], C: []}, [A]),
        # the others do not answer: the first would stay, so that not all restart at once
        ({B: [A, C]}, [B]),
        ({A: [B, C]}, []),
        # all apart from each other: the first stays
        ({A: [B, C], B: [A, C], C: [A, B]}, [B, C]),
        # one link is gone: nobody is apart from a majority
        ({A: [B], B: [A], C: []}, []),
    ],
)
def test_who_is_restarted(rejoin, partitions, restarted):
    assert [name for name in (A, B, C) if rejoin.apart((C, A, B), partitions, name)] == restarted


@pytest.mark.parametrize("hung", [1, 2])
def test_of_five_a_majority_stays(rejoin, hung):
    nodes = [f"rabbit@{letter}" for letter in "abcde"]
    out, others = nodes[:hung], nodes[hung:]
    told = dict.fromkeys(out, others) | dict.fromkeys(others, out)
    assert [name for name in nodes if rejoin.apart(nodes, told, name)] == out


def test_erlang_s_answer_is_read(rejoin):
    text = "{[rabbit@c,'rabbit@b-1',\n  rabbit@a],\n [{rabbit@a,['rabbit@b-1',rabbit@c]},\n  {'rabbit@b-1',[]},{rabbit@c,[rabbit@a]}]}\n"
    members, partitions = rejoin.read(text)
    assert members == [C, "rabbit@b-1", A]
    assert partitions == {A: ["rabbit@b-1", C], "rabbit@b-1": [], C: [A]}
    assert rejoin.read("{[rabbit@a],[]}") == ([A], {})


@pytest.mark.parametrize(
    "text", ["", "Error: unable to perform an operation on node 'rabbit@a'", "{error,{badrpc,nodedown}}"]
)
def test_what_is_no_answer_is_told_from_one(rejoin, text):
    with pytest.raises(ValueError):
        rejoin.read(text)


def test_a_member_that_starts_is_asked_again(rejoin):
    answers = ["Error: unable to perform an operation", "", f"{{[{A},{B},{C}],[{{{B},[{A},{C}]}}]}}"]
    waited = []
    assert rejoin.look(lambda: answers.pop(0), B, waited.append)[0]
    assert waited == [rejoin.DELAY] * 2 and not answers


def test_one_without_an_answer_is_left_alone(rejoin):
    restart, why = rejoin.look(lambda: "Error: nodedown", B, lambda _seconds: None)
    assert not restart and why == "no answer from this member: Error: nodedown"


def test_the_sign_is_read_from_the_log(rejoin):
    seen = threading.Event()
    rejoin.signs(io.StringIO("starting\nall is well\n"), seen)
    assert not seen.is_set()
    line = "Mnesia(rabbit@b): ** ERROR ** mnesia_event got {inconsistent_database, running_partitioned_network, rabbit@a}\n"
    rejoin.signs(io.StringIO(line), seen)
    assert seen.is_set()
