"""The pure parts of the source c5c3.ha.libvirt."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import options, state_file, translate
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.join import Joiner
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.pending import Pending
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.states import Domains, Listed

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "extensions/eda/schemas/libvirt_event.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
UUIDS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
A, B = UUIDS[:2]
NOW = "2026-11-24T09:00:00.000001Z"
KINDS = {kind.constant.removeprefix("VIR_DOMAIN_EVENT_ID_"): kind for kind in translate.KINDS}
Event = dict[str, Any]


def event(constant: str, *arguments: Any, uuid: str = A, at: int = 0) -> Event:
    return translate.event_of(KINDS[constant], uuid, f"vm-{uuid[-1]}", translate.timestamp(1795514400 + at), arguments)


def lifecycle(action: str, detail: str, uuid: str = A, at: int = 0) -> Event:
    return event(
        "LIFECYCLE", translate.ACTIONS.index(action), translate.DETAILS[action].index(detail), uuid=uuid, at=at
    )


def valid(told: Event) -> None:
    VALIDATOR.validate({**told, "hypervisor": "cmp01", "uri": "qemu:///system"})


# -- translation


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        valid({**lifecycle("STOPPED", "FAILED"), "unheard_of": 1})
    with pytest.raises(jsonschema.ValidationError):
        valid({**lifecycle("STOPPED", "FAILED"), "detail": "BROKEN"})


@pytest.mark.parametrize("action", translate.ACTIONS)
def test_every_lifecycle_event_has_its_name(action: str) -> None:
    for detail in translate.DETAILS[action]:
        told = lifecycle(action, detail)
        assert (told["action"], told["detail"]) == (action, detail)
        valid(told)


def test_tables_agree_with_the_libvirt_installed() -> None:
    libvirt = pytest.importorskip("libvirt")
    for action_number, action in enumerate(translate.ACTIONS):
        assert getattr(libvirt, f"VIR_DOMAIN_EVENT_{action}") == action_number
        for number, detail in enumerate(translate.DETAILS[action]):
            value = getattr(libvirt, f"VIR_DOMAIN_EVENT_{action}_{detail}", None)
            assert value == number, f"{action}/{detail}"
    for table, prefix in (
        (translate.WATCHDOG_ACTIONS, "VIR_DOMAIN_EVENT_WATCHDOG_"),
        (translate.IO_ERROR_ACTIONS, "VIR_DOMAIN_EVENT_IO_ERROR_"),
        (translate.AGENT_REASONS, "VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_"),
        (translate.MEMORY_RECIPIENTS, "VIR_DOMAIN_EVENT_MEMORY_FAILURE_RECIPIENT_"),
        (translate.MEMORY_ACTIONS, "VIR_DOMAIN_EVENT_MEMORY_FAILURE_ACTION_"),
        (translate.OPERATIONS, "VIR_DOMAIN_JOB_OPERATION_"),
    ):
        for number, name in enumerate(table):
            assert getattr(libvirt, prefix + name) == number, prefix + name
    assert libvirt.VIR_DOMAIN_MEMORY_FAILURE_ACTION_REQUIRED == 1
    assert libvirt.VIR_DOMAIN_MEMORY_FAILURE_RECURSIVE == 2


def test_numbers_of_a_newer_libvirt_are_kept() -> None:
    told = event("LIFECYCLE", 5, 99)
    assert (told["action"], told["detail"]) == ("STOPPED", "CODE_99")
    assert translate.is_death(told), "in doubt it is one"
    valid(told)
    assert event("LIFECYCLE", 77, 0)["action"] == "CODE_77"


@pytest.mark.parametrize(
    ("constant", "arguments", "fields"),
    [
        ("REBOOT", (), {"event": "reboot"}),
        ("CONTROL_ERROR", (), {"event": "control_error"}),
        ("WATCHDOG", (6,), {"event": "watchdog", "action": "INJECTNMI"}),
        ("AGENT_LIFECYCLE", (2, 1), {"action": "DISCONNECTED", "detail": "DOMAIN_STARTED"}),
        ("MIGRATION_ITERATION", (3,), {"iteration": 3}),
        (
            "MEMORY_FAILURE",
            (1, 2, 3),
            {"recipient": "GUEST", "action": "FATAL", "action_required": True, "recursive": True},
        ),
        (
            "JOB_COMPLETED",
            ({"operation": 5, "success": 1, "data_total": 17, "Bad.Key": 1, "uuid": "x", "count": 9},),
            {"operation": "MIGRATION_OUT", "success": True, "data_total": 17, "uuid": A, "count": 1},
        ),
    ],
)
def test_other_kinds(constant: str, arguments: tuple[Any, ...], fields: Event) -> None:
    told = event(constant, *arguments)
    assert fields.items() <= told.items()
    assert "Bad.Key" not in told
    valid(told)


def test_time_is_utc_with_microseconds() -> None:
    assert translate.timestamp(0.25) == "1970-01-01T00:00:00.250000Z"


# -- joining


def test_death_is_told_at_once_with_what_was_held_before_it() -> None:
    joiner = Joiner(0.5)
    assert joiner.add(event("REBOOT"), 0) == []
    told = joiner.add(lifecycle("STOPPED", "FAILED"), 0.1)
    assert [each["event"] for each in told] == ["reboot", "lifecycle"]
    assert joiner.next_due() is None


def test_reboots_of_one_reset_are_one_and_a_boot_loop_is_told() -> None:
    joiner = Joiner(0.5)
    told: list[Event] = []
    for tenth in range(60):
        now = tenth / 10
        told += joiner.due(now)
        told += joiner.add(event("REBOOT", at=tenth), now)
    assert len(told) in (2, 3), "a report each two seconds"
    told += joiner.flush()
    assert sum(each["count"] for each in told) == 60


def test_resume_between_the_reboots_of_one_reset_does_not_split_them() -> None:
    joiner = Joiner(0.5)
    joiner.add(event("REBOOT"), 0)
    assert [each["action"] for each in joiner.add(lifecycle("RESUMED", "UNPAUSED"), 0.01)] == ["RESUMED"]
    joiner.add(event("REBOOT"), 0.05)
    assert joiner.due(0.5) == []
    assert [each["count"] for each in joiner.due(0.55)] == [2]


IO = ("/disk", "ide0-0-0", 1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (0, 2, 1)])
def test_io_error_in_all_its_forms_is_one_event(order: tuple[int, ...]) -> None:
    parts = [
        event("IO_ERROR", *IO, at=1),
        event("IO_ERROR_REASON", *IO, "enospc", at=2),
        lifecycle("SUSPENDED", "IOERROR", at=3),
    ]
    joiner = Joiner(0.5)
    for number in order:
        assert joiner.add(parts[number], 0) == []
    (told,) = joiner.due(0.5)
    assert (told["event"], told["reason"], told["count"], told["errors"]) == ("io_error", "enospc", 3, 1)
    assert told["occurred_at"].endswith("03.000000Z"), "the newest"
    valid(told)


def test_plain_io_error_without_its_variant() -> None:
    joiner = Joiner(0.5)
    joiner.add(event("IO_ERROR", "", "", 2), 0)
    (told,) = joiner.due(1)
    assert (told["reason"], told["errors"], told["action"]) == ("", 1, "REPORT")
    valid(told)


def test_each_disk_and_each_reason_is_news() -> None:
    joiner = Joiner(0.5)
    for disk in ("vda", "vdb"):
        for reason in ("enospc", "eio"):
            joiner.add(event("IO_ERROR_REASON", "", disk, 2, reason), 0)
    assert sorted((told["device"], told["reason"]) for told in joiner.due(0.5)) == [
        ("vda", "eio"),
        ("vda", "enospc"),
        ("vdb", "eio"),
        ("vdb", "enospc"),
    ]


def test_suspension_without_an_explanation_is_told_by_itself() -> None:
    joiner = Joiner(0.5)
    assert joiner.add(lifecycle("SUSPENDED", "IOERROR"), 0) == []
    assert joiner.next_due() == 0.5
    assert [each["detail"] for each in joiner.due(0.5)] == ["IOERROR"]


def test_watchdog_pause_is_told_when_complete_in_either_order() -> None:
    for order in ((0, 1), (1, 0)):
        joiner, parts = Joiner(0.5), [event("WATCHDOG", 1), lifecycle("SUSPENDED", "WATCHDOG")]
        assert joiner.add(parts[order[0]], 0) == []
        (told,) = joiner.add(parts[order[1]], 0.01)
        assert (told["event"], told["action"], told["count"]) == ("watchdog", "PAUSE", 2)
        assert joiner.next_due() is None


def test_watchdog_reset_swallows_reboots_in_either_order() -> None:
    joiner = Joiner(0.5)
    for part in (event("REBOOT"), event("WATCHDOG", 2), event("REBOOT"), event("REBOOT")):
        assert joiner.add(part, 0) == []
    (told,) = joiner.due(0.5)
    assert (told["action"], told["count"]) == ("RESET", 4)


def test_watchdog_poweroff_becomes_part_of_the_death() -> None:
    joiner = Joiner(0.5)
    assert joiner.add(event("WATCHDOG", 3), 0) == []
    (told,) = joiner.add(lifecycle("STOPPED", "FAILED"), 0.01)
    assert (told["event"], told["detail"], told["watchdog"], told["count"]) == ("lifecycle", "FAILED", "POWEROFF", 2)
    valid(told)


def test_watchdog_before_an_intended_stop_is_not_lost() -> None:
    joiner = Joiner(0.5)
    joiner.add(event("WATCHDOG", 3), 0)
    assert [each["event"] for each in joiner.add(lifecycle("STOPPED", "DESTROYED"), 0.01)] == ["watchdog", "lifecycle"]


@pytest.mark.parametrize("action", [0, 5, 6])
def test_watchdog_that_changes_nothing_is_told_at_once(action: int) -> None:
    assert len(Joiner(0.5).add(event("WATCHDOG", action), 0)) == 1


def test_panic_and_its_stop_are_one_death_however_long_the_dump_takes() -> None:
    joiner = Joiner(0.5)
    assert len(joiner.add(lifecycle("CRASHED", "PANICKED"), 0)) == 1
    assert joiner.add(lifecycle("STOPPED", "CRASHED"), 300) == []
    # but the next run's death is one
    assert len(joiner.add(lifecycle("STARTED", "BOOTED"), 301)) == 1
    assert len(joiner.add(lifecycle("STOPPED", "CRASHED"), 302)) == 1


def test_death_of_another_kind_after_a_panic_is_told() -> None:
    joiner = Joiner(0.5)
    joiner.add(lifecycle("CRASHED", "PANICKED"), 0)
    assert len(joiner.add(lifecycle("STOPPED", "FAILED"), 0.1)) == 1


RAW = st.one_of(
    st.tuples(st.sampled_from(["REBOOT", "CONTROL_ERROR"])),
    st.tuples(st.just("WATCHDOG"), st.integers(0, 6)),
    st.tuples(st.just("IO_ERROR"), st.sampled_from(["", "/d"]), st.just("vda"), st.integers(0, 2)),
    st.tuples(
        st.just("IO_ERROR_REASON"),
        st.sampled_from(["", "/d"]),
        st.just("vda"),
        st.integers(0, 2),
        st.sampled_from(["", "enospc", "eio"]),
    ),
    st.sampled_from(
        [
            ("LIFECYCLE", action, detail)
            for action, name in enumerate(translate.ACTIONS)
            for detail in range(len(translate.DETAILS[name]))
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(RAW, st.sampled_from(UUIDS), st.floats(0, 0.4)), max_size=25), st.sampled_from([0.0, 0.5]))
def test_joining_loses_nothing_and_delays_no_death(history: list[Any], window: float) -> None:
    joiner, now = Joiner(window), 0.0
    told: list[Event] = []
    swallowed = 0
    crashed: set[str] = set()
    for (constant, *arguments), uuid, pause in history:
        now += pause
        told += joiner.due(now)
        raw = event(constant, *arguments, uuid=uuid)
        known = constant == "LIFECYCLE" and (raw["action"], raw["detail"]) == ("STOPPED", "CRASHED") and uuid in crashed
        if constant == "LIFECYCLE":
            if raw["action"] == "CRASHED":
                crashed.add(uuid)
            elif raw["action"] in ("STARTED", "RESUMED", "STOPPED", "UNDEFINED"):
                crashed.discard(uuid)
        swallowed += known
        out = joiner.add(raw, now)
        if translate.is_death(raw) and not known:
            assert out[-1] is raw
        told += out
        due = joiner.next_due()
        assert due is None or now <= due <= now + window
    told += joiner.flush()
    assert sum(each["count"] for each in told) == len(history) - swallowed
    assert len({id(each) for each in told}) == len(told)
    assert joiner.next_due() is None
    for each in told[:2]:
        valid(each)


# -- states

RUNNING, PAUSED, SHUTOFF, CRASHED = 1, 3, 5, 6


def listed(state: int, reason: int, uuid: str = A, persistent: bool = True) -> Listed:
    return Listed(uuid, f"vm-{uuid[-1]}", state, reason, persistent)


def compare(domains: Domains, *rows: Listed, connected: bool = False) -> list[Event]:
    if connected:
        domains.begin_connection()
    else:
        domains.begin_listing()
    events, _notes = domains.compare(rows, NOW, connected=connected)
    for each in events:
        valid(each)
        assert each["synthetic"] is True
    return events


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        (0, "UNKNOWN"),
        (1, None),
        (2, None),
        (3, "CRASHED"),
        (4, None),
        (5, None),
        (6, "FAILED"),
        (7, None),
        (8, "FAILED"),
        (42, "UNKNOWN"),
    ],
)
def test_died_while_nobody_was_connected(reason: int, detail: str | None) -> None:
    domains = Domains()
    assert compare(domains, listed(RUNNING, 1)) == []
    events = compare(domains, listed(SHUTOFF, reason))
    assert [each["detail"] for each in events] == ([detail] if detail else [])
    assert compare(domains, listed(SHUTOFF, reason)) == [], "told once"


@pytest.mark.parametrize(
    ("reason", "persistent", "told"),
    [(3, True, True), (6, False, True), (0, True, True), (0, False, False), (2, True, False)],
)
def test_first_connect_without_memory(reason: int, persistent: bool, told: bool) -> None:
    assert bool(compare(Domains(), listed(SHUTOFF, reason, persistent=persistent), connected=True)) is told


def test_domain_defined_between_two_heartbeats_has_not_died() -> None:
    """Its DEFINED event may be behind the comparison, its STARTED come after it (seen on a real guest)."""
    domains = Domains()
    assert compare(domains, connected=True) == []
    assert compare(domains, listed(SHUTOFF, 0)) == []
    assert compare(domains, listed(RUNNING, 1)) == []
    assert len(compare(domains, listed(SHUTOFF, 0))) == 1, "now it has"


def test_unknown_is_no_death_of_a_domain_seen_stopped() -> None:
    domains = Domains({A: "stopped", B: "active"})
    events = compare(domains, listed(SHUTOFF, 0), listed(SHUTOFF, 0, uuid=B))
    assert [each["uuid"] for each in events] == [B]


def test_started_and_died_while_nobody_was_connected() -> None:
    assert compare(Domains({A: "stopped"}), listed(SHUTOFF, 3))


def test_domain_that_is_gone_is_noted_only() -> None:
    domains = Domains({A: "active"})
    domains.begin_listing()
    events, notes = domains.compare([], NOW)
    assert events == []
    assert len(notes) == 1
    assert A in notes[0]
    assert domains.memory() == {}


def test_domain_that_is_still_dead_is_told_again_at_each_connect_only() -> None:
    """It may have run and died again meanwhile, and who should have acted may have been killed."""
    first = Domains()
    compare(first, listed(RUNNING, 1), connected=True)
    assert first.observe(lifecycle("STOPPED", "FAILED"))
    assert compare(first, listed(SHUTOFF, 3)) == []
    assert len(compare(first, listed(SHUTOFF, 3), connected=True)) == 1
    second = Domains(json.loads(json.dumps(first.memory())))
    (again,) = compare(second, listed(SHUTOFF, 0), connected=True)
    assert (again["detail"], again["occurred_at"]) == ("UNKNOWN", NOW)
    assert compare(second, listed(SHUTOFF, 0)) == []


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        (PAUSED, 5, {"event": "io_error", "action": "PAUSE"}),
        (PAUSED, 6, {"event": "watchdog", "action": "PAUSE"}),
        (PAUSED, 10, {"event": "lifecycle", "action": "CRASHED", "detail": "PANICKED"}),
        (CRASHED, 1, {"event": "lifecycle", "action": "CRASHED", "detail": "PANICKED"}),
        (PAUSED, 1, None),
        (PAUSED, 2, None),
        (7, 0, None),
        (4, 0, None),
    ],
)
def test_paused_by_a_fault_is_told_as_its_row_once(state: int, reason: int, expected: Event | None) -> None:
    domains = Domains()
    events = compare(domains, listed(state, reason))
    assert len(events) == (1 if expected else 0)
    if expected:
        assert expected.items() <= events[0].items()
    assert compare(domains, listed(state, reason)) == []
    assert domains.instances()[0]["active"] is True


def test_pause_that_was_told_by_its_event_is_not_told_by_the_comparison() -> None:
    domains = Domains()
    compare(domains, listed(RUNNING, 1))
    assert domains.observe(event("WATCHDOG", 1))
    assert domains.observe(lifecycle("SUSPENDED", "WATCHDOG"))
    assert compare(domains, listed(PAUSED, 6)) == []
    assert domains.observe(lifecycle("RESUMED", "UNPAUSED"))
    assert len(compare(domains, listed(PAUSED, 6))) == 1


def test_event_that_arrives_while_libvirt_answers_is_newer_than_the_answer() -> None:
    domains = Domains({A: "active"})
    domains.begin_listing()
    assert domains.observe(lifecycle("STOPPED", "SHUTDOWN"))
    assert domains.compare([listed(SHUTOFF, 0)], NOW) == ([], [])
    domains.begin_listing()
    assert domains.observe(lifecycle("STARTED", "BOOTED", uuid=B))
    assert domains.compare([listed(SHUTOFF, 0)], NOW) == ([], []), "B is not missing, it is new"
    assert domains.memory() == {A: "stopped", B: "active"}


def test_event_that_arrives_after_the_comparison_told_it_is_dropped_once() -> None:
    domains = Domains({A: "active"})
    assert len(compare(domains, listed(SHUTOFF, 6))) == 1
    assert domains.observe(lifecycle("STOPPED", "FAILED")) is False
    assert domains.observe(lifecycle("STARTED", "BOOTED"))
    assert domains.observe(lifecycle("STOPPED", "FAILED")) is True


def test_death_after_a_start_that_was_lost_with_the_connection_is_told() -> None:
    domains = Domains({A: "active"})
    assert len(compare(domains, listed(SHUTOFF, 6), connected=True)) == 1
    domains.begin_connection()  # the start between the two is not known
    assert domains.observe(lifecycle("STOPPED", "FAILED")) is True


def test_failed_incoming_migration_is_marked_and_not_told_by_a_comparison() -> None:
    domains = Domains()
    domains.observe(lifecycle("STARTED", "MIGRATED"))
    failed = lifecycle("STOPPED", "FAILED")
    assert domains.observe(failed)
    assert failed["incoming"] is True
    assert not translate.is_death(failed)
    valid(failed)
    assert compare(domains, listed(SHUTOFF, 6)) == []


@pytest.mark.parametrize("order", [("STARTED", "RESUMED"), ("RESUMED", "STARTED")])
def test_domain_that_arrived_and_ran_can_die(order: tuple[str, str]) -> None:
    domains = Domains()
    for action in order:
        domains.observe(lifecycle(action, "MIGRATED"))
    died = lifecycle("STOPPED", "FAILED")
    domains.observe(died)
    assert "incoming" not in died


def test_undefined_and_unseen() -> None:
    domains = Domains()
    domains.observe(lifecycle("DEFINED", "ADDED"))
    assert domains.memory() == {A: "stopped"}
    domains.observe(lifecycle("STARTED", "BOOTED"))
    domains.observe(lifecycle("UNDEFINED", "REMOVED"))
    assert domains.memory() == {A: "active"}, "it runs on as a transient domain"
    domains.observe(lifecycle("STOPPED", "DESTROYED"))
    domains.observe(lifecycle("UNDEFINED", "REMOVED"))
    assert domains.memory() == {}


class World:
    """One domain, a libvirt that tells its events late, and a source that is connected or not."""

    def __init__(self) -> None:
        self.domains = Domains()
        self.state, self.reason = RUNNING, 1
        self.flying: list[Event] = []
        self.runs = [Run()]

    def deliver(self) -> None:
        for each in self.flying:
            run = each.pop("run")
            if self.domains.observe(each) and translate.is_death(each):
                run.told += 1
        self.flying.clear()

    def happen(self, action: str, detail: str, state: int, reason: int) -> None:
        self.state, self.reason = state, reason
        if action == "STARTED":
            self.runs.append(Run())
        self.runs[-1].died = detail == "FAILED"
        self.flying.append({**lifecycle(action, detail), "run": self.runs[-1]})

    def look(self, when: str, connected: bool = False) -> None:
        """Compare; what flies is delivered before libvirt is asked, while it answers, or after."""
        if when == "before":
            self.deliver()
        if connected:
            self.domains.begin_connection()
        else:
            self.domains.begin_listing()
        row = listed(self.state, self.reason)
        if when == "while":
            self.deliver()
        events, _notes = self.domains.compare([row], NOW, connected=connected)
        self.runs[-1].told += len(events)
        self.runs[-1].most += connected and self.runs[-1].died
        # a start that flies clears the mark that this end was told: told once more, the safe way to be wrong
        self.runs[-1].most += self.runs[-1].died and any(each["action"] == "STARTED" for each in self.flying)
        if when == "after":
            self.deliver()

    def reconnect(self) -> None:
        """The connection is lost with what flew on it, and comes back."""
        for each in self.flying:
            each["run"].missed = True
        self.flying.clear()
        self.look("before", connected=True)

    def reconnect_and_die(self, when: str) -> None:
        """As before, and the domain dies after the new connection has subscribed."""
        for each in self.flying:
            each["run"].missed = True
        self.flying.clear()
        self.domains.begin_connection()
        if self.state == RUNNING:
            self.happen("STOPPED", "FAILED", SHUTOFF, 6)
            self.runs[-1].most = 0  # once, as told by the event or the comparison
        if when == "before":
            self.deliver()
        events, _notes = self.domains.compare([listed(self.state, self.reason)], NOW, connected=True)
        self.runs[-1].told += len(events)
        self.runs[-1].most += 1
        self.deliver()


class Run:
    """One run of the domain, from its start to its end."""

    def __init__(self) -> None:
        self.died = self.missed = False
        self.told = 0
        self.most = 1  # once, and once for each time that it was found dead by a new connection


MOVES = ["start", "die", "stop", "leave", "leave-before", "leave-after", "before", "while", "after", "deliver"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(MOVES), max_size=30))
def test_every_death_is_told_however_events_and_comparisons_interleave(moves: list[str]) -> None:
    """Once while the connection lasts; never lost while the domain is still dead; never told of one that did not die."""
    world = World()
    world.look("before", connected=True)
    for move in moves:
        if move == "start" and world.state == SHUTOFF:
            world.happen("STARTED", "BOOTED", RUNNING, 1)
        elif move == "die" and world.state == RUNNING:
            world.happen("STOPPED", "FAILED", SHUTOFF, 6)
        elif move == "stop" and world.state == RUNNING:
            world.happen("STOPPED", "DESTROYED", SHUTOFF, 2)
        elif move == "leave":
            world.reconnect()
        elif move.startswith("leave-"):
            world.reconnect_and_die(move.removeprefix("leave-"))
        elif move == "deliver":
            world.deliver()
        elif move in ("before", "while", "after"):
            world.look(move)
    world.look("before")
    dead = [run for run in world.runs if run.died]
    assert all(run.told == 0 for run in world.runs if not run.died)
    # missed only where the domain was started again before the new connection looked
    least = sum(not run.missed for run in dead)
    assert least <= sum(run.told for run in dead) <= sum(run.most for run in dead)
    if world.runs[-1].died:
        assert world.runs[-1].told >= 1


# -- waiting for the rulebook


async def drain(pending: Pending) -> list[Event]:
    return [await pending.get() for _number in range(len(pending))]


async def test_storm_is_bounded_and_loses_no_count() -> None:
    pending = Pending()
    rng = random.Random(1)
    deaths = 0
    for number in range(5000):
        uuid = rng.choice(UUIDS)
        told = event("REBOOT", uuid=uuid, at=number) if number % 100 else lifecycle("STOPPED", "FAILED", uuid, number)
        deaths += translate.is_death(told)
        pending.put({**told, "uri": "u"})
    assert len(pending) == 8
    events = await drain(pending)
    assert [translate.is_death(each) for each in events] == [True] * 4 + [False] * 4
    assert sum(each["count"] for each in events) == 5000
    assert sum(each["count"] for each in events[:4]) == deaths
    assert max(each["occurred_at"] for each in events) == translate.timestamp(1795514400 + 4999)


async def test_last_word_about_a_domain_is_its_newest() -> None:
    pending = Pending()
    for action, detail in (("STARTED", "BOOTED"), ("STOPPED", "DESTROYED"), ("STARTED", "BOOTED")):
        pending.put(lifecycle(action, detail))
    assert [each["action"] for each in await drain(pending)] == ["STOPPED", "STARTED"]


async def test_only_the_newest_heartbeat_waits() -> None:
    pending = Pending()
    for domains in range(3):
        pending.put({"event": "heartbeat", "uri": "u", "domains": domains, "count": 1, "occurred_at": NOW})
        pending.put({"event": "connection", "uri": "u", "reason": f"reason {domains}", "count": 1, "occurred_at": NOW})
    assert [each.get("domains", each.get("reason")) for each in await drain(pending)] == [2, "reason 2"]


async def test_failed_incoming_migration_is_not_merged_with_a_death() -> None:
    pending = Pending()
    pending.put({**lifecycle("STOPPED", "FAILED"), "incoming": True})
    pending.put(lifecycle("STOPPED", "FAILED"))
    assert ["incoming" in each for each in await drain(pending)] == [False, True]


async def test_get_waits() -> None:
    pending = Pending()
    getter = asyncio.create_task(pending.get())
    await asyncio.sleep(0)
    assert not getter.done()
    pending.put(event("REBOOT"))
    assert (await asyncio.wait_for(getter, 1))["event"] == "reboot"


# -- options


def test_defaults() -> None:
    checked = options.parse({})
    assert checked.uris == ("qemu:///system",)
    assert checked.hypervisors == (None,)


def test_all_options() -> None:
    checked = options.parse(
        {
            "uris": ["qemu+tls://a/system", "test:///default"],
            "hypervisor": {"test:///default": "b"},
            "keepalive_interval": "7",
            "join_window": 0,
            "instances": "no",
            "state_path": "/var/lib/x.json",
            "eda_feedback_queue": object(),
        }
    )
    assert checked.hypervisors == (None, "b")
    assert (checked.keepalive_interval, checked.join_window, checked.instances) == (7, 0, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"urls": 1}, "has no option 'urls': did you mean uris?"),
        ({"zzz": 1}, "the options are uri, uris, hypervisor"),
        ({"uri": "a:///b", "uris": ["a:///b"]}, "uri and uris are both given"),
        ({"uris": []}, r"uris is \[\]: give a list"),
        ({"uris": "qemu:///system"}, "give a list"),
        ({"uri": "localhost"}, "'localhost' is not a libvirt URI: write it like"),
        ({"uri": ["qemu:///system"]}, "is not a libvirt URI"),
        ({"uris": ["a:///b", "a:///b"]}, "uris names a:///b twice"),
        ({"uris": ["a:///b", "a:///c"], "hypervisor": "x"}, "cannot name the hosts of 2 URIs"),
        ({"hypervisor": {"a:///b": "x"}}, "names the URI 'a:///b', which is not among"),
        ({"hypervisor": "a b"}, "'a b' is not a host name"),
        ({"hypervisor": 3}, "hypervisor is 3: give a name"),
        ({"keepalive_interval": 1.5}, "keepalive_interval is 1.5: give a whole number from 1 to 3600"),
        ({"keepalive_count": 0}, "keepalive_count is 0"),
        ({"heartbeat_seconds": "often"}, "heartbeat_seconds is 'often': give a number"),
        ({"call_timeout": True}, "call_timeout is True"),
        ({"join_window": -1}, "join_window is -1"),
        ({"backoff_min": 5, "backoff_max": 2}, "backoff_min 5 is greater than backoff_max 2"),
        ({"instances": "perhaps"}, "instances is 'perhaps': give true or false"),
        ({"state_path": "x.json"}, "state_path is 'x.json': give the absolute path"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        options.parse(arguments)


# -- state file


def test_state_file_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert state_file.read(str(path)) == {}
    content = {"qemu:///system": {A: "active", B: "failed", UUIDS[2]: "stopped"}}
    state_file.write(str(path), content)
    state_file.write(str(path), content)
    assert state_file.read(str(path)) == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version":2,"connections":{}}',
        '{"version":1}',
        '{"version":1,"connections":{"u":[]}}',
        '{"version":1,"connections":{"u":{"x":"dead"}}}',
        '{"version":1,"connections":{"u":{"x":["a","b"]}}}',
    ],
)
def test_damaged_state_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(ValueError):  # json's own message, or ours
        state_file.read(str(path))


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        state_file.write(str(tmp_path / "state.json"), {"u": {"x": object()}})
    assert list(tmp_path.iterdir()) == []


# --- what lasts -----------------------------------------------------------------------------------------------------


def test_a_guest_that_an_io_error_keeps_suspended_is_told_again_in_time():
    domains = Domains(retell=20)
    rows = [listed(PAUSED, 5)]

    def told(now: float) -> int:
        domains.begin_listing()
        events, _notes = domains.compare(rows, NOW, now=now)
        return len(events)

    assert [told(now) for now in (0, 10, 19, 20, 30, 40)] == [1, 0, 0, 1, 0, 1]
    rows[0] = listed(RUNNING, 1)
    assert [told(now) for now in (50, 100)] == [0, 0]


def test_what_an_event_told_is_told_again_only_after_that_time():
    domains = Domains(retell=20)
    compare(domains, listed(RUNNING, 1))
    domains.observe({"event": "io_error", "uuid": A, "domain": "a", "action": "PAUSE"})
    found = []
    for now in (5, 15, 26):
        domains.begin_listing()
        found.append(len(domains.compare([listed(PAUSED, 5)], NOW, now=now)[0]))
    assert found == [0, 0, 1]


@pytest.mark.parametrize("row", [(PAUSED, 6), (CRASHED, 1), (SHUTOFF, 3)])
def test_other_faults_are_told_once(row):
    domains = Domains(retell=1)
    domains.begin_listing()
    assert len(domains.compare([listed(*row)], NOW, now=0)[0]) == 1
    domains.begin_listing()
    assert domains.compare([listed(*row)], NOW, now=1000)[0] == []


def test_a_migration_is_told_once_however_many_passes_it_needs():
    domains = Domains()
    compare(domains, listed(RUNNING, 1))

    def told(*iterations: int) -> list[bool]:
        return [
            domains.observe({"event": "migration_iteration", "uuid": A, "domain": "a", "iteration": iteration})
            for iteration in iterations
        ]

    def lifecycle(action: str, detail: str) -> None:
        domains.observe({"event": "lifecycle", "uuid": A, "domain": "a", "action": action, "detail": detail})

    assert told(1, 2, 3) == [True, False, False]
    lifecycle("RESUMED", "MIGRATED")  # it failed
    assert told(1, 2) == [True, False]
    assert told(1, 2) == [True, False], "its end was not seen"
    domains.observe({"event": "job_completed", "uuid": A, "domain": "a", "operation": "MIGRATION_OUT"})
    assert told(4, 5) == [True, False]
    lifecycle("SUSPENDED", "MIGRATED")
    assert told(6) == [False]
    domains.begin_connection()
    assert told(7) == [True], "what goes on when the connection is new is told"


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_events_in_a_second_are_a_handful_and_none_is_lost(seed: int) -> None:
    """On four guests: resets, errors of a disk, pauses; one of them dies. As many as the rows that they belong to."""
    shuffle = random.Random(seed).shuffle
    guests = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(4)]
    raw = [event("REBOOT", uuid=guest) for guest in guests for _ in range(150)]
    raw += [event("IO_ERROR_REASON", "/disk", "vda", 2, "", uuid=guest) for guest in guests[:3] for _ in range(100)]
    raw += [
        lifecycle(action, detail, uuid=guests[3])
        for action, detail in [("SUSPENDED", "PAUSED"), ("RESUMED", "UNPAUSED")] * 50
    ]
    shuffle(raw)
    raw.insert(500, lifecycle("STOPPED", "FAILED", uuid=guests[0]))
    domains, joiner, told = Domains(), Joiner(0.5), []
    for number, each in enumerate(raw):
        now = number / 1000
        told += joiner.due(now)
        if domains.observe(each):
            told += joiner.add(each, now)
    told += joiner.due(2.5) + joiner.flush()
    assert sum(each["count"] for each in told) == 1001
    assert sum(map(translate.is_death, told)) == 1
    acted_on = {(each["uuid"], each["event"]) for each in told if each["event"] == "io_error"}  # the rule's throttle
    steps = sum(each["event"] == "reboot" for each in told) + len(acted_on) + 1
    assert steps <= 10, [(each["event"], each["count"]) for each in told if each["event"] != "lifecycle"]


@pytest.mark.parametrize("order", ["event first", "comparison first", "comparison between", "only the comparison"])
def test_a_crash_that_destroys_its_guest_is_told_once_whoever_is_quicker(order: str) -> None:
    """libvirtd under load tells CRASHED and STOPPED seconds late; found with a real panicking guest on a busy machine."""
    domains = Domains()
    compare(domains, listed(RUNNING, 1))
    crashed, stopped = lifecycle("CRASHED", "PANICKED"), lifecycle("STOPPED", "CRASHED")
    told = 0
    steps = {
        "event first": [crashed, stopped, None, None],
        "comparison first": [None, crashed, stopped, None, None],
        "comparison between": [crashed, None, stopped, None],
        "only the comparison": [None, None],
    }[order]
    joiner = Joiner(0.5)
    for step in steps:
        if step is None:
            told += len(compare(domains, listed(SHUTOFF, 3)))
        elif domains.observe(step):
            told += sum(map(translate.is_death, joiner.add(step, 0)))
    assert told == 1
    # and the next death is another one
    assert domains.observe(lifecycle("STARTED", "BOOTED"))
    assert domains.observe(lifecycle("STOPPED", "FAILED"))
