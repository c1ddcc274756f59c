"""A move that Nova's API accepted and whose message died with a conductor or a broker is taken back and made anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Context, Entry
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_plan import decide, needs_running
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.lost_move import needs_records
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServerFacts

ID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
NOW = 2000.0
HERE = {"id": ID, "name": "web", "host": "cmp01"}
RUNS = ServerFacts(**HERE, status="ACTIVE", vm_state="active", running=True)
STOPPED = ServerFacts(**HERE, status="SHUTOFF", vm_state="stopped", running=False)
LIVE = Entry(id=ID, route="LiveMigrate", phase="Migrating", attempts=1, attempted_at=NOW - 40)
COLD = replace(LIVE, route="ColdMigrate", vm_state="stopped")


def context(**values) -> Context:
    return Context(
        **{"source": "cmp01", "cause": "Maintenance", "now": NOW, "whole_host": True, "heard": NOW, **values}
    )


def moving(server: ServerFacts, seconds: float = 31.0, **facts) -> ServerFacts:
    """A server whose move was accepted so long ago, and of which no record is there."""
    task = "resize_prep" if server.vm_state == "stopped" else "migrating"
    return replace(
        server, **{"task_state": task, "status": "MIGRATING", "changed": NOW - seconds, "records": (), **facts}
    )


def record(**values) -> MigrationFacts:
    given = {"id": 5, "server": ID, "status": "accepted", "kind": "live-migration", "uuid": "of-the-record"}
    return MigrationFacts(**{**given, "source": "cmp01", "changed": NOW - 40, **values})


@pytest.mark.parametrize(("entry", "server"), [(LIVE, RUNS), (COLD, STOPPED)])
def test_a_lost_move_is_taken_back(entry, server):
    """Seen on the lab: a conductor that is killed with the message leaves the server in its task for ever."""
    lost = moving(server)
    assert needs_records(entry, lost, context()) and needs_running(entry, lost, context())
    decision = decide(entry, lost, context())
    assert (decision.act, decision.entry.phase, decision.release) == ("ResetState", "Migrating", "")
    assert "was lost" in decision.entry.message
    for left in (decision.entry, replace(decision.entry, phase="Pending")):
        assert decide(left, lost, context()).act == "ResetState", "killed before it was sent, or refused"


def test_a_lost_live_migration_is_made_anew():
    taken_back = decide(LIVE, moving(RUNS), context()).entry
    decision = decide(taken_back, RUNS, context())
    assert (decision.act, decision.entry.attempts) == ("LiveMigrate", 2)


def test_what_was_stopped_is_moved_stopped():
    """Nova calls it active once its task is taken back, and would start it at its target."""
    taken_back = decide(COLD, moving(STOPPED), context()).entry
    as_active = replace(STOPPED, status="ACTIVE", vm_state="active")
    decision = decide(taken_back, as_active, context())
    assert decision.act == "Stop"
    stopping = replace(as_active, task_state="powering-off")
    assert decide(decision.entry, stopping, context()).act is None
    decision = decide(decision.entry, STOPPED, context())
    assert (decision.act, decision.entry.attempts) == ("ColdMigrate", 2)


def test_a_cold_migration_keeps_what_it_was():
    assert decide(Entry(id=ID), STOPPED, context()).entry.vm_state == "stopped"
    dead = replace(STOPPED, vm_state="active")
    assert decide(replace(COLD, phase="Pending", vm_state=""), dead, context()).entry.vm_state == ""


def test_what_its_user_started_meanwhile_is_not_stopped():
    taken_back = decide(COLD, moving(STOPPED), context()).entry
    assert decide(taken_back, RUNS, context()).act == "LiveMigrate"
    assert decide(replace(taken_back, vm_state=""), replace(STOPPED, vm_state="active"), context()).act == "ColdMigrate"


@pytest.mark.parametrize(
    ("facts", "values"),
    [
        pytest.param({"changed": NOW - 29}, {}, id="it may be on its way"),
        pytest.param({"changed": None}, {}, id="Nova does not say when"),
        pytest.param({}, {"heard": NOW - 29}, id="the conductor may be away"),
        pytest.param({}, {"heard": None}, id="nothing was ever heard"),
        pytest.param({}, {"service_up": False}, id="the host is down"),
        pytest.param({}, {"dead": True}, id="the host is dead: evacuation knows what to do"),
        pytest.param({"running": None}, {}, id="its host does not answer"),
        pytest.param({"records": None}, {}, id="nobody asked for the records"),
        pytest.param({"host": "cmp02"}, {}, id="it has arrived"),
        pytest.param({"task_state": "resize_migrating"}, {}, id="its disk is being moved"),
        pytest.param({"records": (record(status="running"),)}, {}, id="it copies"),
        pytest.param({"records": (record(status="preparing", changed=NOW - 9999),)}, {}, id="it can be aborted"),
        pytest.param({"records": (record(),)}, {}, id="a compute may take it up"),
        pytest.param({"records": (record(changed=None),)}, {}, id="a record without a time"),
    ],
)
@pytest.mark.parametrize(("entry", "server"), [(LIVE, RUNS), (COLD, STOPPED)])
def test_what_may_be_under_way_is_left_alone(entry, server, facts, values):
    assert decide(entry, moving(server, **facts), context(**values)).act in (None, "Evacuate")


def test_somebody_elses_move_is_left_to_him():
    assert not needs_records(Entry(id=ID), moving(RUNS), context())
    assert decide(Entry(id=ID), moving(RUNS), context()).act is None


@pytest.mark.parametrize("status", ["completed", "error", "cancelled"])
def test_a_record_of_before_is_no_sign_of_life(status):
    assert decide(LIVE, moving(RUNS, records=(record(status=status),)), context()).act == "ResetState"


def test_a_record_that_nobody_takes_up_is_given_the_time_of_an_attempt_and_gives_back_what_it_holds():
    stale = moving(RUNS, seconds=700.0, records=(record(changed=NOW - 601),))
    decision = decide(replace(LIVE, attempted_at=NOW - 700), stale, context())
    assert (decision.act, decision.release) == ("ResetState", "of-the-record")


ARRIVED = ServerFacts(id=ID, name="web", host="cmp02", status="VERIFY_RESIZE", vm_state="resized")
ASKED = replace(COLD, phase="Confirming", attempted_at=NOW - 31)


def confirming(seconds: float) -> tuple[MigrationFacts, ...]:
    return (
        record(kind="migration", status="confirming", changed=NOW - seconds),
        record(kind="migration", status="error"),
    )


def test_a_confirmation_that_nova_has_is_waited_for():
    """Nova refuses a second one."""
    server = replace(ARRIVED, records=confirming(599))
    assert needs_records(ASKED, server, context())
    for asked in (ASKED, replace(ASKED, phase="Pending")):
        assert decide(asked, server, context()).act is None


@pytest.mark.parametrize("records", [None, (), (record(kind="migration", status="finished"),)])
def test_a_confirmation_of_which_nova_knows_nothing_is_asked_for_again(records):
    assert decide(ASKED, replace(ARRIVED, records=records), context()).act == "Confirm"


def test_a_confirmation_that_is_on_its_way_costs_no_question():
    assert not needs_records(replace(ASKED, attempted_at=NOW - 29), ARRIVED, context())
    assert not needs_records(COLD, ARRIVED, context())


def test_a_lost_confirmation_is_ended_and_what_was_stopped_stays_so():
    """Seen on the lab: nova-compute drops it when the conductor dies under its question."""
    decision = decide(ASKED, replace(ARRIVED, records=confirming(601)), context())
    assert (decision.act, decision.drop, decision.release) == ("ResetState", "of-the-record", "")
    after = replace(ARRIVED, status="ACTIVE", vm_state="active")
    assert needs_running(decision.entry, after, context())
    assert decide(decision.entry, after, context()).act is None, "its host does not answer"
    decision = decide(decision.entry, replace(after, running=False), context())
    assert decision.act == "Stop"
    decision = decide(decision.entry, replace(after, status="SHUTOFF", vm_state="stopped"), context())
    assert (decision.act, decision.entry.phase) == (None, "Succeeded")
    assert f"cmp01 may keep its old disk as {ID}_resize" in decision.entry.message


def test_what_was_started_after_a_lost_confirmation_runs_on():
    entry = decide(ASKED, replace(ARRIVED, records=confirming(601)), context()).entry
    decision = decide(entry, replace(ARRIVED, status="ACTIVE", vm_state="active", running=True), context())
    assert (decision.act, decision.entry.phase) == (None, "Succeeded")
