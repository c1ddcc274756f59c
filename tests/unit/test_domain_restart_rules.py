"""How a domain is brought back, for every state that libvirt knows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import domain_restart_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

ALL = [(state, reason) for state in rules.STATES for reason in rules.REASONS.get(state, ["UNKNOWN"])]
ACTING = ("auto", "reset", "reboot", "start")


@pytest.mark.parametrize(
    ("state", "reason", "method", "actions"),
    [
        ("RUNNING", "BOOTED", "auto", ("reset",)),
        ("BLOCKED", "UNKNOWN", "auto", ("reset",)),
        ("RUNNING", "CRASHED", "auto", ("reset",)),
        ("RUNNING", "BOOTED", "reset", ("reset",)),
        ("RUNNING", "BOOTED", "reboot", ("reboot",)),
        ("RUNNING", "BOOTED", "start", ()),
        ("PAUSED", "WATCHDOG", "auto", ("reset", "resume")),
        ("PAUSED", "IOERROR", "auto", ("resume",)),
        ("PAUSED", "API_ERROR", "auto", ("resume",)),
        ("PAUSED", "USER", "auto", ()),
        ("PAUSED", "USER", "reset", ("reset", "resume")),
        ("PAUSED", "USER", "reboot", ("reset", "resume")),
        ("PAUSED", "USER", "start", ("resume",)),
        ("PAUSED", "CRASHED", "auto", ("destroy", "create")),
        ("CRASHED", "PANICKED", "auto", ("destroy", "create")),
        ("SHUTOFF", "FAILED", "auto", ("create",)),
        ("SHUTOFF", "CRASHED", "auto", ("create",)),
        ("SHUTOFF", "DAEMON", "auto", ("create",)),
        ("SHUTOFF", "FAILED", "reset", ("create",)),
        ("SHUTOFF", "SHUTDOWN", "auto", ()),
        ("SHUTOFF", "DESTROYED", "auto", ()),
        ("SHUTOFF", "SAVED", "auto", ()),
        ("SHUTOFF", "UNKNOWN", "auto", ()),
        ("SHUTOFF", "SHUTDOWN", "start", ("create",)),
        ("SHUTOFF", "UNKNOWN", "start", ("create",)),
        ("PMSUSPENDED", "UNKNOWN", "auto", ()),
        ("PMSUSPENDED", "UNKNOWN", "reset", ("destroy", "create")),
    ],
)
def test_what_is_done(state, reason, method, actions):
    plan = rules.plan(state, reason, method)
    assert plan.actions == actions
    assert state in plan.message


@pytest.mark.parametrize(("state", "reason"), ALL)
def test_resume_lets_only_go_on_what_an_io_error_suspended(state, reason):
    plan = rules.plan(state, reason, "resume")
    suspended = state == "PAUSED" and reason in ("IOERROR", "API_ERROR")
    assert plan.actions == (("resume",) if suspended else ())
    assert plan.verify is suspended


@pytest.mark.parametrize(("state", "reason"), ALL)
def test_verify_never_acts(state, reason):
    plan = rules.plan(state, reason, "verify")
    assert plan.actions == ()
    assert plan.verify


@pytest.mark.parametrize(("state", "reason"), ALL)
@pytest.mark.parametrize("persistent", [True, False])
def test_auto_never_fails_and_does_not_vouch_for_what_it_left_alone(state, reason, persistent):
    plan = rules.plan(state, reason, "auto", persistent)
    assert plan.verify == bool(plan.actions)


@pytest.mark.parametrize("method", ACTING)
def test_a_domain_that_was_migrated_away_is_never_started(method):
    try:
        actions = rules.plan("SHUTOFF", "MIGRATED", method).actions
    except ArgumentError as error:
        assert method != "auto"
        assert "another host" in str(error)
    else:
        assert actions == ()


@pytest.mark.parametrize(("state", "reason"), sorted(rules._BUSY))
@pytest.mark.parametrize("method", ["reset", "reboot", "start"])
def test_nothing_is_done_to_a_domain_that_libvirt_is_at_work_on(state, reason, method):
    with pytest.raises(ArgumentError, match="at work"):
        rules.plan(state, reason, method)
    assert rules.plan(state, reason, "auto").actions == ()


@pytest.mark.parametrize(
    ("state", "reason", "method"), [(*pair, method) for pair, method in itertools.product(ALL, ACTING)]
)
def test_a_transient_domain_is_never_destroyed(state, reason, method):
    try:
        actions = rules.plan(state, reason, method, persistent=False).actions
    except ArgumentError:
        return
    assert "destroy" not in actions


def test_a_domain_that_somebody_switched_off_is_not_reset():
    with pytest.raises(ArgumentError, match="use method start"):
        rules.plan("SHUTOFF", "SHUTDOWN", "reset")


def test_an_unknown_method():
    with pytest.raises(ArgumentError, match="method 'x'"):
        rules.plan("RUNNING", "BOOTED", "x")


def test_names_of_states_and_of_those_of_a_newer_libvirt():
    assert rules.state_names(1, 1) == ("RUNNING", "BOOTED")
    assert rules.state_names(3, 6) == ("PAUSED", "WATCHDOG")
    assert rules.state_names(5, 6) == ("SHUTOFF", "FAILED")
    assert rules.state_names(3, 99) == ("PAUSED", "UNKNOWN")
    assert rules.state_names(99, 0) == ("UNKNOWN", "UNKNOWN")
    assert rules.state_names(-1, -1) == ("UNKNOWN", "UNKNOWN")
    with pytest.raises(ArgumentError, match="not known"):
        rules.plan("UNKNOWN", "UNKNOWN", "start")


def test_states_are_numbered_as_libvirt_does():
    libvirt = pytest.importorskip("libvirt")
    for number, name in enumerate(rules.STATES):
        assert getattr(libvirt, f"VIR_DOMAIN_{name}") == number
    for state, reasons in rules.REASONS.items():
        for number, name in enumerate(reasons):
            # An older libvirt lacks the latest ones.
            assert getattr(libvirt, f"VIR_DOMAIN_{state}_{name}", number) == number
    assert rules.REASONS["SHUTOFF"].index("MIGRATED") == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED


def test_what_check_mode_expects():
    before = {"state": "PAUSED", "reason": "USER", "id": 3}
    assert rules.expected((), before) == before
    assert rules.expected(("reset", "resume"), before) == {"state": "RUNNING", "reason": "UNPAUSED", "id": 3}
    assert rules.expected(("destroy", "create"), before)["id"] is None


@pytest.mark.parametrize(
    ("actions", "events", "state", "old", "new", "done"),
    [
        (("reset",), [], "RUNNING", 3, 3, False),
        (("reset",), ["REBOOT"], "RUNNING", 3, 3, True),
        (("reset",), ["REBOOT"], "PAUSED", 3, 3, False),
        (("reset", "resume"), ["REBOOT", "RESUMED"], "RUNNING", 3, 3, True),
        (("reboot",), ["STOPPED", "STARTED"], "RUNNING", 3, 4, True),
        (("create",), ["STARTED"], "RUNNING", -1, 4, True),
        (("create",), [], "SHUTOFF", -1, -1, False),
        (("destroy", "create"), ["STOPPED"], "RUNNING", 3, 3, False),
        (("resume",), [], "RUNNING", 3, 3, True),
        ((), [], "RUNNING", 3, 3, True),
        ((), [], "SHUTOFF", -1, -1, False),
    ],
)
def test_when_it_has_begun_anew(actions, events, state, old, new, done):
    assert rules.restarted(actions, events, state, old, new) is done


@pytest.mark.parametrize(
    ("events", "state", "words"),
    [
        ([], "RUNNING", None),
        (["REBOOT", "RESUMED", "STARTED"], "RUNNING", None),
        (["SUSPENDED", "RESUMED"], "RUNNING", None),
        (["STOPPED"], "SHUTOFF", "SHUTOFF"),
        (["STOPPED", "STARTED"], "RUNNING", "runs again after STOPPED"),
        (["WATCHDOG"], "RUNNING", "WATCHDOG"),
        (["IO_ERROR", "SUSPENDED"], "PAUSED", "PAUSED"),
        (["CRASHED"], "RUNNING", "CRASHED"),
        ([], "PAUSED", "PAUSED"),
    ],
)
def test_what_breaks_the_peace(events, state, words):
    problem = rules.broken(events, state, "UNKNOWN")
    assert problem is None if words is None else words in problem


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "qemu+unix:///system?socket=/run/x", "test:///default", "ch:///system"]
)
def test_uris_that_are_good(uri):
    assert rules.validate_uri(uri) == uri


@pytest.mark.parametrize(
    "uri", ["", "qemu", "/system", "qemu:///a b", "qemu:///\n", "-x://", None, "qemu://" + "x" * 1100]
)
def test_uris_that_are_refused(uri):
    with pytest.raises(ArgumentError, match="uri"):
        rules.validate_uri(uri)


@given(st.text())
def test_names_hold_no_path_and_no_control_characters(name):
    try:
        assert rules.validate_domain_name(name) == name
    except ArgumentError:
        return
    assert "/" not in name
    assert name.isprintable() or any(ord(char) > 126 for char in name)


@pytest.mark.parametrize(
    ("actions", "events", "state", "again"),
    [
        (("resume",), ["RESUMED", "IO_ERROR", "SUSPENDED"], "PAUSED", True),
        (("resume",), ["RESUMED"], "PAUSED", False),
        (("resume",), ["SUSPENDED", "RESUMED"], "PAUSED", False),
        (("resume",), [], "PAUSED", False),
        (("resume",), ["RESUMED", "SUSPENDED"], "RUNNING", False),
        (("reset", "resume"), ["RESUMED", "SUSPENDED"], "PAUSED", False),
    ],
)
def test_a_resumed_domain_that_runs_into_its_error_again_is_not_waited_for(actions, events, state, again):
    assert rules.suspended_again(actions, events, state) is again
