"""Which member of a Galera cluster may be started, and when a human must decide."""

from __future__ import annotations

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.galera_plan import (
    NO_UUID,
    kind,
    misfit,
    plan,
    recovery,
    turns,
)
from ansible_collections.c5c3.ha.plugins.modules import galera_info

U, V = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
M = ("n1", "n2", "n3")
FRESH: dict = {"running": False, "answers": False, "wsrep": False, "databases": [], "grastate": None}


def primary(uuid=U, size=3, name="openstack", conf_id=7):
    return {
        "running": True, "answers": True, "wsrep": True, "cluster_status": "Primary", "cluster_uuid": uuid, "cluster_size": size,
        "cluster_name": name, "conf_id": conf_id, "addresses": [f"10.0.0.{n}:3306" for n in range(size)], "databases": ["nova"],
    }  # fmt: skip


def waiting():
    return {**primary(), "cluster_status": "non-Primary", "cluster_uuid": ""}


def stopped(uuid=U, seqno=10, safe=False, databases=("nova",)):
    return {
        **FRESH,
        "databases": list(databases),
        "grastate": {"uuid": uuid, "seqno": seqno, "safe_to_bootstrap": safe},
    }


def crashed(seqno, uuid=U):
    return {**stopped(uuid, -1), "recovered": {"uuid": uuid, "seqno": seqno}}


def mute():
    return {**FRESH, "running": True}


def made(*views, acting=M, name="openstack"):
    return plan(M, dict(zip(M, views, strict=True)), name, acting)


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (None, "away"),
        (primary(), "primary"),
        (waiting(), "waiting"),
        (mute(), "mute"),
        (stopped(), "stopped"),
        (FRESH, "fresh"),
        ({**FRESH, "databases": ["shop"]}, "owned"),
        # what a transfer left that broke off
        (stopped(NO_UUID, -1), "fresh"),
        # a standalone server as the package's installation starts it
        ({**FRESH, "running": True, "answers": True}, "fresh"),
        ({**FRESH, "running": True, "answers": True, "databases": ["shop"]}, "owned"),
    ],
)
def test_kind(view, told):
    assert kind(view) == told


@pytest.mark.parametrize("members", [(), ("n1",), ("n1", "n2"), ("n1", "n2", "n3", "n4"), ("n1", "n1", "n2")])
def test_members_that_cannot_keep_quorum_are_refused(members):
    assert misfit(members)
    assert plan(members, {}, "openstack", members).refusal


@pytest.mark.parametrize("members", [M, ("a", "b", "c", "d", "e")])
def test_odd_numbers_are_fine(members):
    assert not misfit(members)


def test_a_new_cluster_starts_on_the_first_and_the_others_join():
    done = made(FRESH, FRESH, FRESH)
    assert (done.refusal, done.seed, done.joiners) == ("", "n1", ("n2", "n3"))


def test_a_running_cluster_needs_nothing():
    done = made(primary(), primary(), primary())
    assert (done.refusal, done.seed, done.joiners, done.primary) == ("", "", (), M)


def test_stopped_and_wiped_members_join_a_running_cluster():
    done = made(stopped(), primary(size=1), FRESH)
    assert (done.refusal, done.seed, done.joiners) == ("", "", ("n1", "n3"))


def test_a_member_that_cannot_be_asked_does_not_hold_up_a_running_cluster():
    done = made(None, primary(), primary())
    assert (done.refusal, done.away) == ("", ("n1",))


@pytest.mark.parametrize(
    ("views", "says"),
    [
        ((None, FRESH, FRESH), "n1 could not be asked"),
        ((None, stopped(), stopped()), "galera_recover_without=n1"),
        ((waiting(), waiting(), mute()), "recover_galera"),
        ((stopped(), stopped(), stopped()), "recover_galera"),
        ((FRESH, FRESH, stopped()), "stopped on n3"),
        (({**FRESH, "databases": ["shop"]}, FRESH, FRESH), "mv /var/lib/mysql /var/lib/mysql.old"),
        ((primary(), primary(), {**FRESH, "databases": ["shop"]}), "n3 has databases of its own"),
        ((primary(), primary(), stopped(V)), "another cluster"),
        ((primary(name="shop", size=2), FRESH, FRESH), "'shop'"),
        ((primary(), primary(V), FRESH), "2 clusters"),
        ((primary(size=4), primary(size=4), primary(size=4)), "4 members"),
        ((primary(size=1, conf_id=3), primary(size=1, conf_id=4), stopped()), "apart from each other"),
    ],
)
def test_what_is_not_safe_is_refused_with_the_remedy(views, says):
    done = made(*views)
    assert says in done.refusal
    assert not done.seed and not done.joiners


def test_with_limit_only_the_named_are_started_and_nothing_is_formed():
    assert made(stopped(), primary(), stopped(), acting=("n3",)).joiners == ("n3",)
    done = made(FRESH, FRESH, FRESH, acting=("n1", "n2"))
    assert "--limit" in done.refusal and not done.seed


def test_the_highest_write_starts_a_crashed_cluster():
    done = recovery(M, {"n1": crashed(10), "n2": crashed(12), "n3": crashed(11)})
    assert (done.refusal, done.seed, done.joiners) == ("", "n2", ("n1", "n3"))


def test_of_equals_the_one_that_stopped_last_starts():
    assert recovery(M, {"n1": stopped(), "n2": stopped(), "n3": stopped(safe=True)}).seed == "n3"
    assert recovery(M, {"n1": crashed(5), "n2": crashed(5), "n3": crashed(5)}).seed == "n1"


def test_a_wiped_member_is_left_to_the_role():
    done = recovery(M, {"n1": FRESH, "n2": crashed(12), "n3": crashed(12)})
    assert (done.seed, done.joiners) == ("n2", ("n3",))


@pytest.mark.parametrize(
    ("views", "says"),
    [
        ({"n1": crashed(1), "n2": crashed(2, V), "n3": FRESH}, "Which is right only a human can say"),
        ({"n1": crashed(1), "n2": crashed(2), "n3": None}, "galera_recover_without=n3"),
        ({"n1": crashed(1), "n2": stopped(seqno=-1), "n3": crashed(1)}, "n2 cannot be read"),
        ({"n1": FRESH, "n2": FRESH, "n3": FRESH}, "nothing to recover"),
    ],
)
def test_a_recovery_that_only_a_human_may_do(views, says):
    done = recovery(M, views)
    assert says in done.refusal
    assert not done.seed


def test_members_lost_for_ever_are_left_out():
    done = recovery(M, {"n1": crashed(1), "n2": crashed(3), "n3": None}, without=("n3",))
    assert (done.refusal, done.seed, done.joiners) == ("", "n2", ("n1",))


def test_a_running_cluster_is_not_recovered():
    done = recovery(M, {"n1": primary(), "n2": crashed(3), "n3": None})
    assert (done.refusal, done.seed, done.primary) == ("", "", ("n1",))


@pytest.mark.parametrize(
    ("before", "now", "order"),
    [
        # who wrote meanwhile, not who wrote most since its start
        ((900, 5, 5), ((900, 4), (5, 4), (25, 2)), ["n2", "n1", "n3"]),
        ((7, 5, 5), ((9, 0), (5, 9), (5, 9)), ["n3", "n2", "n1"]),
        # nobody writes: who has the clients
        ((7, 7, 7), ((7, 0), (7, 3), (7, 0)), ["n3", "n1", "n2"]),
        ((7, 7, 7), ((7, 0), (7, 0), (7, 0)), ["n3", "n2", "n1"]),
        # it was restarted between the looks, or could not be asked
        ((900, 5, None), ((1, 0), (9, 4), None), ["n3", "n1", "n2"]),
    ],
)
def test_the_writer_is_taken_down_last(before, now, order):
    earlier = {name: None if told is None else {"replicated": told} for name, told in zip(M, before, strict=True)}
    later = {
        name: None if told is None else {"replicated": told[0], "clients": told[1]}
        for name, told in zip(M, now, strict=True)
    }
    assert turns(M, earlier, later) == order
    # with --limit
    assert turns(M[1:], earlier, later) == [name for name in order if name != "n1"]


def test_grastate():
    text = f"# GALERA saved state\nversion: 2.1\nuuid:    {U}\nseqno:   -1\nsafe_to_bootstrap: 0\n"
    assert galera_info.grastate(text) == {"uuid": U, "seqno": -1, "safe_to_bootstrap": False}
    assert galera_info.grastate("")["seqno"] == -1


def test_the_server_s_answer():
    text = (
        f"wsrep_cluster_status\tPrimary\nwsrep_cluster_state_uuid\t{U}\nwsrep_cluster_size\t3\nwsrep_cluster_conf_id\t18446744073709551615\n"
        "wsrep_last_committed\t42\nwsrep_incoming_addresses\t10.0.0.1:3306,10.0.0.2:3306\nwsrep_local_state_comment\tSynced\n"
        "wsrep_replicated\t17\nclients\t4\nwsrep_on\tON\nwsrep_cluster_name\topenstack\nversion\t11.8.3\ndatabase\tmysql\ndatabase\tnova\n"
    )
    node = galera_info.answer(text)
    assert node["wsrep"] and node["cluster_size"] == 3 and node["last_committed"] == 42
    assert (node["replicated"], node["clients"]) == (17, 4)
    assert node["addresses"] == ["10.0.0.1:3306", "10.0.0.2:3306"] and node["databases"] == ["nova"]
    alone = galera_info.answer(text.replace("\tPrimary", "\tnon-Primary"))
    assert alone["cluster_uuid"] == ""
