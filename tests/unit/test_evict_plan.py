"""Decisions of the step evict: each row of the per-server state machine, and properties over random histories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import TERMINAL, Context, Entry, Settings
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_plan import (
    AGAIN,
    decide,
    needs_failure,
    needs_running,
    needs_stop_origin,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    ActionFacts,
    ServerFacts,
    stopped_by_user,
)

ID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"


def server(**facts) -> ServerFacts:
    base = {"id": ID, "name": "web", "host": "cmp01", "status": "ACTIVE", "vm_state": "active", "power_state": 1}
    return ServerFacts(**{**base, **facts})


def context(cause="InstanceStopped", **values) -> Context:
    values.setdefault("whole_host", cause in ("Maintenance", "Reboot"))
    return Context(**{"source": "cmp01", "cause": cause, "now": 1000.0, **values})


def entry(**values) -> Entry:
    return Entry(**{"id": ID, **values})


def test_dead_guest_is_restarted_in_place():
    decision = decide(entry(), server(running=False), context())
    assert (decision.act, decision.entry.route, decision.entry.phase, decision.entry.attempts) == (
        "Restart",
        "Restart",
        "Restarting",
        1,
    )


def test_running_guest_is_never_restarted():
    decision = decide(entry(), server(running=True), context())
    assert decision.act is None
    assert decision.entry.phase == "Succeeded"
    assert "already running" in decision.entry.message


def test_restarted_guest_is_done_only_once_it_runs():
    at_work = entry(route="Restart", phase="Restarting", attempts=1, attempted_at=999.0)
    assert (
        decide(at_work, server(task_state="reboot_started_hard", running=None), context()).entry.phase == "Restarting"
    )
    assert decide(at_work, server(running=True), context()).entry.message == "restarted on cmp01"
    assert decide(at_work, server(running=False), context()).entry.phase != "Succeeded"


def asked(seconds: float, **facts):
    """A restart that Nova's API accepted so long ago, and that nova-compute has not begun."""
    at_work = entry(route="Restart", phase="Restarting", attempts=1, attempted_at=1000.0 - seconds)
    return at_work, server(status="HARD_REBOOT", **{"task_state": "rebooting_hard", "running": False, **facts})


def test_lost_restart_is_asked_for_again_and_costs_no_attempt():
    """The broker died with Nova's message: without this the guest stays dead, in a task that nothing ends."""
    at_work, lost = asked(16.0)
    assert needs_running(at_work, lost, context())
    decision = decide(at_work, lost, context())
    assert decision.act == AGAIN
    assert (decision.entry.attempts, decision.entry.attempted_at, decision.entry.phase) == (1, 1000.0, "Restarting")
    assert "was lost" in decision.entry.message


@pytest.mark.parametrize(
    ("seconds", "facts"),
    [
        (14.0, {}),  # it may be on its way
        (16.0, {"running": None}),  # its host does not answer: it may lie there
        (16.0, {"running": True}),
        (16.0, {"task_state": "reboot_started_hard"}),  # begun
        (16.0, {"task_state": "migrating"}),
    ],
)
def test_restart_that_may_be_under_way_is_not_asked_for_again(seconds, facts):
    at_work, busy = asked(seconds, **facts)
    assert decide(at_work, busy, context()).act is None


def stopping(seconds: float, **facts):
    """A dead guest that Nova itself has been stopping for so long."""
    given = {"task_state": "powering-off", "running": False, "stopped_by_user": False, "changed": 1000.0 - seconds}
    return entry(started_at=900.0), server(**{**given, **facts})


def test_a_lost_stop_of_a_dead_guest_is_ended_and_the_guest_restarted():
    """The broker died with nova-compute's message to itself: without this the guest stays dead for ever."""
    waiting, lost = stopping(16.0)
    assert needs_running(waiting, lost, context()) and needs_stop_origin(waiting, lost, context())
    decision = decide(waiting, lost, context())
    assert decision.act == "ResetState" and "was lost" in decision.entry.message
    after = server(running=False)
    assert decide(decision.entry, after, context()).act == "Restart"


@pytest.mark.parametrize(
    ("seconds", "facts"),
    [
        (14.0, {}),  # it may be on its way
        (16.0, {"running": None}),  # its host does not answer: it may lie there
        (16.0, {"running": True}),
        (16.0, {"stopped_by_user": True}),
        (16.0, {"stopped_by_user": None}),
        (16.0, {"task_state": "powering-on"}),
        (16.0, {"host": "cmp02"}),
    ],
)
def test_a_stop_that_may_be_under_way_or_wanted_is_left_alone(seconds, facts):
    waiting, busy = stopping(seconds, **facts)
    assert decide(waiting, busy, context()).act is None


def test_a_stop_that_began_before_the_eviction_is_given_its_time():
    _waiting, lost = stopping(100.0)
    assert decide(entry(started_at=990.0), lost, context()).act is None
    assert not needs_running(entry(), lost, context())


def test_restart_of_somebody_else_is_left_to_him():
    _at_work, busy = asked(100.0)
    assert not needs_running(entry(), busy, context())
    assert decide(entry(), busy, context()).act is None


def test_unknown_liveness_waits():
    decision = decide(entry(), server(running=None), context())
    assert decision.act is None and not decision.entry.finished


# Each state in which a decision hangs on whether the guest runs, and whose nova-compute is asked.
UNANSWERED = [
    ({"running": None}, {}, "InstanceStopped", "cmp01"),
    ({"running": None}, {}, "Maintenance", "cmp01"),
    ({"running": None, "vm_state": "error"}, {}, "Maintenance", "cmp01"),
    ({"running": None, "task_state": "rebooting_hard"}, {"phase": "Restarting"}, "InstanceStopped", "cmp01"),
    ({"running": None, "host": "cmp02"}, {"route": "ColdMigrate"}, "InstanceStopped", "cmp02"),
    ({"running": None, "host": "cmp02"}, {"vm_state": "stopped"}, "Maintenance", "cmp02"),
]


@pytest.mark.parametrize(("facts", "at", "cause", "host"), UNANSWERED)
def test_a_nova_compute_without_an_answer_is_told_and_after_a_minute_with_what_helps(facts, at, cause, host):
    for seconds, hangs in ((59, False), (61, True)):
        begun = {"started_at": 1000.0 - seconds, "attempted_at": 1000.0 - seconds}
        decision = decide(entry(**begun, **at), server(**facts), context(cause))
        assert decision.act is None and not decision.entry.finished
        told = f"read nova-compute's log on {host}, and restart it there if it hangs" in decision.entry.message
        assert told == hangs, decision.entry.message


def test_a_task_over_its_time_is_told_with_what_helps():
    busy = server(task_state="reboot_started_hard", status="HARD_REBOOT")
    at_work = entry(route="Restart", phase="Restarting", attempts=1, attempted_at=399.0)
    decision = decide(at_work, busy, context())
    assert decision.act is None
    assert "reboot_started_hard for over 600 s: read nova-compute's log on cmp01" in decision.entry.message


def test_down_service_waits_for_it():
    decision = decide(entry(), server(running=None), context(service_up=False))
    assert decision.act is None and "is down" in decision.entry.message and not decision.entry.finished


def test_restarts_back_off_then_move():
    tried = entry(route="Restart", phase="Restarting", attempts=1, attempted_at=999.0)
    assert decide(tried, server(running=False), context()).act is None
    assert decide(tried, server(running=False), context(now=1004.5)).act == "Restart"
    spent = entry(route="Restart", phase="Restarting", attempts=2, attempted_at=900.0)
    decision = decide(spent, server(running=False), context())
    assert (decision.act, decision.entry.route) == ("ColdMigrate", "ColdMigrate")
    failed = decide(spent, server(running=False, vm_state="error", status="ERROR"), context())
    assert (failed.act, failed.entry.route) == ("ResetState", "ColdMigrate")
    assert decide(failed.entry, server(running=False), context()).act == "ColdMigrate"


def test_stopped_by_user_stays_stopped():
    facts = server(vm_state="stopped", status="SHUTOFF", power_state=4, running=False, stopped_by_user=True)
    decision = decide(entry(), facts, context())
    assert (decision.act, decision.entry.phase) == (None, "Skipped")


def test_stopped_by_nova_after_a_crash_is_restarted():
    facts = server(vm_state="stopped", status="SHUTOFF", power_state=4, running=False, stopped_by_user=False)
    assert decide(entry(), facts, context()).act == "Restart"


@pytest.mark.parametrize("state", ["suspended", "shelved", "shelved_offloaded", "building"])
def test_what_has_no_process_is_skipped(state):
    decision = decide(entry(), server(vm_state=state, running=False), context())
    assert (decision.act, decision.entry.phase) == (None, "Skipped")


@pytest.mark.parametrize("state", ["rescued", "resized"])
def test_what_nova_does_not_reboot_fails_loudly(state):
    decision = decide(entry(), server(vm_state=state, running=None), context())
    assert (decision.act, decision.entry.phase) == (None, "Failed")


def test_watchdog_restart_failed_goes_elsewhere():
    cause = "WatchdogRestartFailed"
    assert decide(entry(), server(running=False), context(cause)).act == "ColdMigrate"
    assert decide(entry(), server(running=True), context(cause)).act == "LiveMigrate"


def test_crashed_guest_that_was_moved_must_run_there():
    moved = entry(route="ColdMigrate", phase="Confirming", attempts=1, attempted_at=900.0)
    assert decide(moved, server(host="cmp02", status="VERIFY_RESIZE", vm_state="resized"), context()).act == "Confirm"
    assert decide(moved, server(host="cmp02", running=True), context()).entry.phase == "Succeeded"
    decision = decide(moved, server(host="cmp02", running=False), context())
    assert (decision.act, decision.entry.phase) == ("Restart", "Restarting")


@pytest.mark.parametrize(
    ("facts", "act"),
    [
        ({"running": True}, "LiveMigrate"),
        ({"vm_state": "paused", "status": "PAUSED", "running": False}, "LiveMigrate"),
        ({"vm_state": "stopped", "status": "SHUTOFF", "power_state": 4}, "ColdMigrate"),
        ({"running": False}, "Restart"),
        ({"vm_state": "error", "status": "ERROR", "running": True}, "ResetState"),
        ({"task_state": "migrating", "status": "MIGRATING"}, None),
        ({"task_state": "powering-off"}, None),
        ({"running": None}, None),
    ],
)
def test_routes_of_a_drain(facts, act):
    decision = decide(entry(), server(**facts), context("Maintenance"))
    assert decision.act == act
    assert not decision.entry.finished


@pytest.mark.parametrize("state", ["suspended", "shelved", "rescued", "building", "resized"])
def test_what_nova_does_not_move_fails_loudly(state):
    decision = decide(entry(), server(vm_state=state, running=None), context("Maintenance"))
    assert (decision.act, decision.entry.phase) == (None, "Failed")
    assert "not moved" in decision.entry.message


def test_drain_ends_when_the_server_is_away_or_gone():
    migrating = entry(route="LiveMigrate", phase="Migrating", attempts=1)
    done = decide(migrating, server(host="cmp02"), context("Maintenance")).entry
    assert (done.phase, done.target, done.message) == ("Succeeded", "cmp02", "live-migrated to cmp02")
    assert decide(migrating, None, context("Maintenance")).entry.phase == "Succeeded"
    assert decide(entry(), server(task_state="deleting"), context("Maintenance")).entry.phase == "Skipped"


def test_failed_move_is_tried_again_then_given_up_with_the_reason():
    tried = entry(route="LiveMigrate", phase="Migrating", attempts=1, attempted_at=900.0)
    decision = decide(tried, server(running=True, failure="No valid host was found"), context("Maintenance"))
    assert (decision.act, decision.entry.attempts) == ("LiveMigrate", 2)
    assert "No valid host" in decision.entry.message
    spent = entry(route="LiveMigrate", phase="Migrating", attempts=3, attempted_at=900.0)
    final = decide(spent, server(running=True, failure="No valid host was found"), context("Maintenance")).entry
    assert final.phase == "Failed" and "No valid host" in final.message


def test_stuck_live_migration_is_aborted():
    stuck = entry(route="LiveMigrate", phase="Migrating", attempts=1, attempted_at=100.0)
    facts = server(task_state="migrating", status="MIGRATING", live_migration=7)
    assert decide(stuck, facts, context("Maintenance")).act == "Abort"
    assert decide(stuck, server(task_state="migrating"), context("Maintenance")).act is None


def test_an_aborted_one_says_that_and_nova_may_first_write_the_rest():
    """Nova 34 calls the server active, and 0.4 s later puts it into ERROR: in between Nova would refuse the next move."""
    stuck = entry(route="LiveMigrate", phase="Migrating", attempts=1, attempted_at=100.0)
    facts = server(task_state="migrating", status="MIGRATING", live_migration=7)
    aborted = decide(stuck, facts, context("Maintenance", now=701.0)).entry
    still = decide(aborted, server(task_state="migrating", status="MIGRATING"), context("Maintenance", now=702.0))
    assert still.entry == aborted, "Nova's record of it ends before the server's task does"
    assert decide(aborted, facts, context("Maintenance", now=702.0)).act is None, "aborted once"
    assert decide(aborted, facts, context("Maintenance", now=999.0)).act == "Abort", "or its message was lost"
    hung = decide(aborted, server(task_state="migrating", status="MIGRATING"), context("Maintenance", now=999.0))
    assert "aborting; migrating for over 600 s" in hung.entry.message and "nova-compute" in hung.entry.message
    aborted = hung.entry
    for failure in ("", "a second abort came too late"):
        early = decide(aborted, server(running=True, changed=999.0, failure=failure), context("Maintenance"))
        assert (early.act, early.entry.phase) == (None, "Migrating")
    reset = decide(
        aborted, server(vm_state="error", status="ERROR", running=True, changed=990.0), context("Maintenance")
    )
    assert reset.act == "ResetState" and "move 1 failed: live migration over 600 s: aborted" in reset.entry.message
    again = decide(reset.entry, server(running=True), context("Maintenance", now=1010.0))
    assert (again.act, again.entry.attempts) == ("LiveMigrate", 2) and "over 600 s: aborted" in again.entry.message


def test_a_clock_of_novas_that_is_ahead_delays_no_attempt():
    tried = entry(route="ColdMigrate", phase="Migrating", attempts=1, attempted_at=900.0)
    ahead = decide(tried, server(vm_state="stopped", changed=1030.0), context("Maintenance"))
    assert "move 1 failed" in ahead.entry.message, "it is judged now, not 33 s later"


def test_why_a_move_failed_may_be_written_after_the_server_is_at_rest():
    tried = entry(route="ColdMigrate", phase="Migrating", attempts=3, attempted_at=900.0)
    early = decide(tried, server(vm_state="stopped", changed=998.0), context("Maintenance"))
    assert (early.act, early.entry.phase) == (None, "Migrating")
    told = decide(tried, server(vm_state="stopped", changed=998.0, failure="ssh: refused"), context("Maintenance"))
    assert told.entry.phase == "Failed" and "ssh: refused" in told.entry.message


def test_a_guest_that_runs_is_not_left_in_error_when_it_is_given_up():
    spent = entry(route="LiveMigrate", phase="Migrating", attempts=3, attempted_at=900.0)
    facts = server(vm_state="error", status="ERROR", running=True, failure="aborted")
    reset = decide(spent, facts, context("Maintenance"))
    assert reset.act == "ResetState" and not reset.entry.finished
    final = decide(reset.entry, server(running=True), context("Maintenance")).entry
    assert final.phase == "Failed" and "move 3 failed: aborted" in final.message
    dead = decide(spent, server(vm_state="error", status="ERROR", running=False), context("Maintenance")).entry
    assert dead.phase == "Failed", "what does not run stays in ERROR for all to see"


def test_cold_migration_of_somebody_else_is_not_confirmed():
    facts = server(host="cmp02", status="VERIFY_RESIZE", vm_state="resized")
    decision = decide(entry(), facts, context("Maintenance"))
    assert decision.act is None and not decision.entry.finished


def test_cold_migration_is_confirmed_once_until_nova_had_its_time():
    facts = server(host="cmp02", status="VERIFY_RESIZE", vm_state="resized")
    first = decide(entry(route="ColdMigrate", phase="Migrating", attempts=1), facts, context("Maintenance"))
    assert first.act == "Confirm"
    assert decide(first.entry, facts, context("Maintenance", now=1010.0)).act is None
    assert decide(first.entry, facts, context("Maintenance", now=1031.0)).act == "Confirm"


def test_notification_moves_nothing():
    decision = decide(entry(), server(running=True), context("DiskIOError", notify_only=True))
    assert (decision.act, decision.entry.phase) == (None, "Notified")


def test_history_tells_who_stopped():
    stop, reboot = ActionFacts("stop", user_id="u"), ActionFacts("reboot", user_id="u")
    assert stopped_by_user([stop, reboot])
    assert not stopped_by_user([ActionFacts("stop"), stop])
    assert not stopped_by_user([reboot, stop])
    assert not stopped_by_user([])


FACTS = st.builds(
    ServerFacts,
    id=st.just(ID),
    host=st.sampled_from(["cmp01", "cmp02", None]),
    status=st.sampled_from(["ACTIVE", "SHUTOFF", "ERROR", "VERIFY_RESIZE", "MIGRATING", "PAUSED", "UNKNOWN"]),
    vm_state=st.sampled_from(
        [
            "active",
            "stopped",
            "error",
            "paused",
            "suspended",
            "rescued",
            "resized",
            "shelved",
            "building",
            "new-in-2027",
        ]
    ),
    task_state=st.sampled_from([None, None, "migrating", "deleting", "reboot_started_hard"]),
    running=st.sampled_from([True, False, None]),
    stopped_by_user=st.sampled_from([True, False, None]),
)
ENTRIES = st.builds(
    Entry,
    id=st.just(ID),
    route=st.sampled_from(["None", "Restart", "LiveMigrate", "ColdMigrate"]),
    phase=st.sampled_from(["Pending", "Restarting", "Migrating", "Confirming", *sorted(TERMINAL)]),
    attempts=st.integers(0, 4),
    attempted_at=st.sampled_from([None, 1.0, 999.0]),
)
CAUSES = ["InstanceStopped", "RebootFailed", "WatchdogRestartFailed", "DiskIOError", "Maintenance", "Reboot"]


@given(ENTRIES, st.one_of(st.none(), FACTS), st.sampled_from(CAUSES), st.booleans(), st.booleans())
def test_invariants(old, facts, cause, whole, up):
    """Whatever is known: the rules that keep a VM from running twice or being touched in flight."""
    now = context(cause, whole_host=whole, service_up=up)
    decision = decide(old, facts, now)
    if old.finished:
        assert decision.act is None and decision.entry == old
    if facts is None or facts.task_state == "deleting":
        assert decision.act is None
    if facts and facts.task_state:
        assert decision.act in (None, "Abort"), "a server in work is left alone"
    if decision.act == "Restart":
        assert facts.running is False, "only a guest known to be dead is restarted"
        assert not facts.stopped_by_user or facts.vm_state != "stopped"
    if decision.act in ("LiveMigrate", "ColdMigrate"):
        assert facts.host == "cmp01" and up, "only from the host, and only while its nova-compute is up"
        assert decision.entry.attempts <= Settings().move_attempts
    if decision.act == "LiveMigrate":
        assert facts.running or facts.vm_state == "paused"
    if decision.act == "ColdMigrate" and facts.vm_state == "active":
        assert facts.running is False, "a running guest is not cold-migrated"
    assert not (decision.entry.finished and decision.act)


@given(ENTRIES, FACTS, st.sampled_from(CAUSES), st.booleans())
def test_what_is_asked_for_is_asked_only_at_rest(old, facts, cause, whole):
    now = context(cause, whole_host=whole)
    for need in (needs_running, needs_stop_origin, needs_failure):
        assert not (need(old, facts, now) and (facts.task_state or old.finished))


# --- a guest that keeps dying ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "act"), [(0, "Restart"), (1, "Restart"), (10, "Restart"), (11, "ColdMigrate"), (20, "ColdMigrate")]
)
def test_a_guest_that_keeps_dying_is_moved(faults, act):
    dead = server(running=False)
    assert decide(Entry(id=dead.id), dead, context(faults=faults)).act == act


@pytest.mark.parametrize("cause", ["InstanceStopped", "RebootFailed", "WatchdogRestartFailed"])
def test_and_given_up_at_last_with_the_reason(cause):
    dead = server(running=False)
    decision = decide(Entry(id=dead.id), dead, context(cause, faults=21))
    assert (decision.act, decision.entry.phase) == (None, "Failed")
    assert "needed help 21 times within 600 s" in decision.entry.message


def test_storage_that_fails_everywhere_is_given_up_too():
    alive = server(running=True)
    assert decide(Entry(id=alive.id), alive, context("DiskIOError", faults=20)).act == "LiveMigrate"
    assert decide(Entry(id=alive.id), alive, context("DiskIOError", faults=21)).entry.phase == "Failed"


def test_a_guest_that_runs_after_all_is_not_given_up():
    alive = server(running=True)
    assert decide(Entry(id=alive.id), alive, context(faults=99)).entry.phase == "Succeeded"
    unknown = server(running=None)
    assert decide(Entry(id=unknown.id), unknown, context(faults=99)).entry.phase == "Pending"


def test_a_drain_does_not_count():
    alive = server(running=True)
    assert decide(Entry(id=alive.id), alive, context("Maintenance", faults=99, whole_host=True)).act == "LiveMigrate"


def test_work_that_has_begun_goes_its_way():
    dead = server(running=False)
    begun = Entry(id=dead.id, route="Restart", phase="Pending", attempts=1)
    assert decide(begun, dead, context(faults=99)).act == "Restart"
