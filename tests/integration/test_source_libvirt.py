"""The source c5c3.ha.libvirt on a real libvirtd with real QEMUs: each event as it really comes, each fault as it is.

Not shown for real: memory_failure, which needs KVM and a poisoned page of memory. Its translation is tested in
tests/unit/test_libvirt_source.py.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from tests.integration.source_libvirt import (
    PANIC,
    POWER_OFF,
    RESET,
    WATCHDOG,
    Event,
    Guest,
    Hypervisor,
    Source,
    failing_disk,
    qcow2_on_full_disk,
    rss,
    two_hypervisors,
)
from tests.lab.hosts import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.libvirt]

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "extensions/eda/plugins/event_source/libvirt.py"
SCHEMA = json.loads((ROOT / "extensions/eda/schemas/libvirt_event.schema.json").read_text())
STARTED = {"event": "lifecycle", "action": "STARTED"}
STOPPED = {"event": "lifecycle", "action": "STOPPED"}
QUICK = {"heartbeat_seconds": 1, "keepalive_interval": 1, "keepalive_count": 2, "backoff_min": 0.2, "call_timeout": 3}


def source_and_schema() -> tuple[Callable[..., Any], Callable[[Event], None]]:
    return runpy.run_path(str(SOURCE))["main"], jsonschema.Draft202012Validator(SCHEMA).validate


def images(hypervisors: list[Hypervisor]) -> Path:
    """A folder for images: below the lab's folder, which every host sees."""
    folder = hypervisors[0].directory / "images"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def hypervisors() -> Iterator[list[Hypervisor]]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    with two_hypervisors() as both:
        yield both


@pytest.fixture
def hypervisor(hypervisors: list[Hypervisor]) -> Hypervisor:
    return hypervisors[0]


@pytest.fixture
def make_source() -> Iterator[Callable[..., Source]]:
    started: list[Source] = []

    def make(**options: Any) -> Source:
        source = Source(*source_and_schema(), **{**QUICK, **options})
        started.append(source)
        return source.__enter__()

    yield make
    for source in started:
        source.stop()


@pytest.fixture
def source(make_source: Callable[..., Source], hypervisor: Hypervisor) -> Source:
    source = make_source(uri=hypervisor.uri)
    source.connected(hypervisor.uri)
    return source


@pytest.fixture
def folder(hypervisors: list[Hypervisor]) -> Path:
    return images(hypervisors)


@pytest.fixture
def make_guest(hypervisor: Hypervisor, folder: Path) -> Iterator[Callable[..., Guest]]:
    guests: list[Guest] = []

    def make(*arguments: Any, **keywords: Any) -> Guest:
        guests.append(Guest(hypervisor, folder, *arguments, **keywords))
        return guests[-1]

    yield make
    for guest in guests:
        guest.remove()


def actions(events: list[Event]) -> list[tuple[str, str]]:
    return [(event["action"], event["detail"]) for event in events if event["event"] == "lifecycle"]


def test_killed_qemu_is_told_at_once_and_once(source: Source, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest().start()
    source.expect(guest, **STARTED)
    killed = guest.kill()
    event = source.expect(guest, **STOPPED)
    assert (event["detail"], event["synthetic"], event["count"]) == ("FAILED", False, 1)
    assert event["hypervisor"] == "src01"
    delay = datetime.fromisoformat(event["occurred_at"]).timestamp() - killed
    assert -0.01 < delay < 1.0, delay
    source.compared()
    assert len(source.of(guest, **STOPPED)) == 1


def test_intended_ends_are_told_as_such(source: Source, make_guest: Callable[..., Guest], folder: Path) -> None:
    guest = make_guest().start()
    guest.virsh("suspend")
    source.expect(guest, action="SUSPENDED", detail="PAUSED")
    guest.virsh("resume")
    guest.virsh("save", str(folder / f"{guest.name}.saved"))
    source.expect(guest, **STOPPED, detail="SAVED")
    source.expect(guest, event="job_completed", operation="SAVE")
    guest.hypervisor.virsh("restore", str(folder / f"{guest.name}.saved"))
    source.expect(guest, **STARTED, detail="RESTORED")
    guest.virsh("destroy")
    source.expect(guest, **STOPPED, detail="DESTROYED")
    guest.virsh("undefine")
    source.expect(guest, action="UNDEFINED")
    source.quiet(1.5)
    assert not source.of(guest, synthetic=True)


class Told(NamedTuple):
    """What was told of one guest until it had ended or gone on for a while."""

    events: list[Event]

    def of(self, **fields: Any) -> list[Event]:
        return [event for event in self.events if all(event.get(key) == value for key, value in fields.items())]

    def one(self, **fields: Any) -> Event:
        (event,) = self.of(**fields)
        return event


# name of a guest: what it is, and the event after which all has been told
BY_THEMSELVES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "power off": ({"mode": POWER_OFF}, {**STOPPED}),
    "reset by guest": ({"mode": RESET}, {"event": "reboot"}),
    "reset by virsh": ({}, {"event": "reboot"}),
    "panic destroy": ({"mode": PANIC, "on_crash": "destroy"}, {"action": "CRASHED"}),
    "panic preserve": ({"mode": PANIC, "on_crash": "preserve"}, {"action": "CRASHED"}),
    "watchdog pause": ({"mode": WATCHDOG, "watchdog": "pause"}, {"event": "watchdog"}),
    "watchdog reset": ({"mode": WATCHDOG, "watchdog": "reset"}, {"event": "watchdog"}),
    "watchdog poweroff": ({"mode": WATCHDOG, "watchdog": "poweroff"}, {**STOPPED}),
    "watchdog none": ({"mode": WATCHDOG, "watchdog": "none"}, {"event": "watchdog"}),
    "watchdog inject-nmi": ({"mode": WATCHDOG, "watchdog": "inject-nmi"}, {"event": "watchdog"}),
}


@pytest.fixture(scope="module")
def told(hypervisors: list[Hypervisor]) -> Iterator[dict[str, Told]]:
    """The guests that need nobody, side by side: most of their time is waiting."""
    hypervisor = hypervisors[0]
    guests = {
        name: Guest(hypervisor, images(hypervisors), **options) for name, (options, _last) in BY_THEMSELVES.items()
    }
    # Twelve guests boot at once: on a busy machine the events of one reset are further apart than the default's half a second.
    with Source(*source_and_schema(), **QUICK, join_window=2.0, uri=hypervisor.uri) as source:
        source.connected(hypervisor.uri)
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(Guest.start, guests.values()))
            guests["reset by virsh"].virsh("reset")
            for name, (_options, last) in BY_THEMSELVES.items():
                source.expect(guests[name], timeout=30, **last)
            source.compared()
            result = {name: Told(source.of(guest)) for name, guest in guests.items()}
        finally:
            for guest in guests.values():
                guest.remove()
    yield result


def test_power_off_by_the_guest(told: dict[str, Told]) -> None:
    off = told["power off"]
    off.one(action="SHUTDOWN", detail="GUEST")
    off.one(**STOPPED, detail="SHUTDOWN")


@pytest.mark.parametrize("by", ["guest", "virsh"])
def test_one_reset_is_one_reboot(told: dict[str, Told], by: str) -> None:
    # How many REBOOTs it is made of is the firmware's: SeaBIOS asks for a reset in one way after the other until it is
    # reset, and on a busy machine gets further (seven were seen). That they are one event is ours.
    assert told[f"reset by {by}"].one(event="reboot")["count"] >= 1


@pytest.mark.parametrize("on_crash", ["destroy", "preserve"])
def test_panic_is_told_once(told: dict[str, Told], on_crash: str) -> None:
    deaths = [pair for pair in actions(told[f"panic {on_crash}"].events) if pair[0] in ("CRASHED", "STOPPED")]
    assert deaths == [("CRASHED", "PANICKED")]


def test_watchdog_pause_and_its_suspension_are_one(told: dict[str, Told]) -> None:
    bitten = told["watchdog pause"]
    event = bitten.one(event="watchdog")
    assert (event["action"], event["count"]) == ("PAUSE", 2)
    assert not bitten.of(action="SUSPENDED")


def test_watchdog_reset_swallows_its_reboots(told: dict[str, Told]) -> None:
    bitten = told["watchdog reset"]
    assert bitten.of(event="watchdog", action="RESET")[0]["count"] > 1
    assert not bitten.of(event="reboot")


def test_watchdog_poweroff_is_a_death_that_names_it(told: dict[str, Told]) -> None:
    bitten = told["watchdog poweroff"]
    event = bitten.one(**STOPPED)
    assert (event["detail"], event["watchdog"]) == ("FAILED", "POWEROFF")
    assert not bitten.of(event="watchdog")


@pytest.mark.parametrize("action", ["none", "inject-nmi"])
def test_watchdog_that_changes_nothing(told: dict[str, Told], action: str) -> None:
    bitten = told[f"watchdog {action}"]
    assert bitten.of(event="watchdog", action=action.upper().replace("-", ""))
    assert not bitten.of(**STOPPED)


def test_full_disk_is_one_event_with_its_reason(
    source: Source, hypervisor: Hypervisor, make_guest: Callable[..., Guest], folder: Path
) -> None:
    guest = make_guest(disk=qcow2_on_full_disk(hypervisor, folder, "stop")).start()
    event = source.expect(guest, event="io_error")
    assert (event["action"], event["reason"], event["device"]) == ("PAUSE", "enospc", "ide0-0-0")
    assert event["path"] == "/run/small-stop/disk"
    assert (event["errors"], event["count"]) == (1, 3)
    source.compared()
    assert not source.of(guest, action="SUSPENDED"), "told twice"
    hypervisor.host.exec(["mount", "-o", "remount,size=100m", "/run/small-stop"], check=True)
    guest.virsh("resume")
    source.expect(guest, action="RESUMED", after=1)


def test_disk_that_fails_for_ever_is_a_few_events(
    source: Source, hypervisor: Hypervisor, make_guest: Callable[..., Guest], folder: Path
) -> None:
    # virtio: SeaBIOS waits half a minute after an error of an IDE disk
    guest = make_guest(disk=qcow2_on_full_disk(hypervisor, folder, "report", "dev='vda' bus='virtio'")).start()
    source.expect(guest, event="io_error", action="REPORT")
    begin = len(source.of(guest, event="io_error"))
    source.quiet(2)
    events = source.of(guest, event="io_error")[begin:]
    assert 2 <= len(events) <= 5
    assert sum(event["errors"] for event in events) > 10
    assert all(event["count"] == 2 * event["errors"] for event in events)


def test_medium_error_without_path(source: Source, make_guest: Callable[..., Guest], folder: Path) -> None:
    guest = make_guest(**failing_disk(folder)).start()
    event = source.expect(guest, event="io_error", action="PAUSE")
    assert (event["path"], event["reason"]) == ("", "")
    assert guest.state() == "paused (I/O error)"


def test_guest_agent_channel(source: Source, make_guest: Callable[..., Guest]) -> None:
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    guest = make_guest(disk=channel).start()
    event = source.expect(guest, event="agent_lifecycle")
    assert (event["action"], event["detail"]) == ("DISCONNECTED", "DOMAIN_STARTED")


def test_qemu_that_cannot_start(source: Source, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest(arguments=("-device", "no-such-device")).define()
    guest.virsh("start", check=False)
    source.expect(guest, event="control_error")


def test_live_migration_is_no_death(
    make_source: Callable[..., Source], hypervisors: list[Hypervisor], make_guest: Callable[..., Guest]
) -> None:
    here, there = hypervisors
    source = make_source(uris=[here.uri, there.uri], hypervisor={there.uri: "other"})
    source.connected(here.uri)
    source.connected(there.uri)
    guest = make_guest().start()
    moved = Guest.__new__(Guest)
    moved.__dict__.update(guest.__dict__, hypervisor=there)
    try:
        guest.virsh(
            "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--unsafe", "qemu+tcp://10.66.0.2/system"
        )
        source.expect(guest, uri=here.uri, **STOPPED, detail="MIGRATED")
        source.expect(guest, uri=there.uri, event="lifecycle", action="RESUMED")
        source.expect(guest, uri=here.uri, event="migration_iteration")
        job = source.expect(guest, uri=here.uri, event="job_completed", operation="MIGRATION_OUT")
        assert job["data_total"] > 0
        source.compared()
        assert not source.of(guest, synthetic=True)
        # and it is watched at its new place
        moved.kill()
        event = source.expect(guest, uri=there.uri, **STOPPED)
        assert (event["detail"], event["hypervisor"]) == ("FAILED", "other")
        assert "incoming" not in event
    finally:
        moved.remove()


def test_failed_migration_is_no_death_at_its_destination(
    make_source: Callable[..., Source], hypervisors: list[Hypervisor], make_guest: Callable[..., Guest]
) -> None:
    here, there = hypervisors
    source = make_source(uris=[here.uri, there.uri])
    source.connected(here.uri)
    source.connected(there.uri)
    guest = make_guest().start()
    moved = Guest.__new__(Guest)
    moved.__dict__.update(guest.__dict__, hypervisor=there)
    migration = subprocess.Popen(
        [
            *("virsh", "-q", "-c", here.writable, "migrate", guest.name, "qemu+tcp://10.66.0.2/system"),
            *("--live", "--p2p", "--unsafe", "--bandwidth", "1"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        source.expect(guest, uri=there.uri, **STARTED)
        moved.kill()
        migration.wait(30)
    finally:
        migration.kill()
    event = source.expect(guest, uri=there.uri, **STOPPED)
    assert event.get("incoming") is True
    assert guest.state().startswith("running")


def test_death_while_libvirtd_was_away_is_told_once(
    source: Source, hypervisor: Hypervisor, make_guest: Callable[..., Guest]
) -> None:
    dying, living = make_guest().start(), make_guest().start()
    source.expect(living, **STARTED)
    hypervisor.host.kill("libvirtd", stay_down=True)
    source.expect(event="connection", connected=False)
    dying.kill()
    hypervisor.host.heal("libvirtd")
    source.connected(hypervisor.uri, after=1)
    event = source.expect(dying, **STOPPED)
    assert event["detail"] in ("FAILED", "CRASHED", "UNKNOWN")
    source.compared()
    assert len(source.of(dying, **STOPPED)) == 1
    assert not source.of(living, **STOPPED)


def test_frozen_libvirtd(source: Source, hypervisor: Hypervisor, make_guest: Callable[..., Guest]) -> None:
    guest = make_guest().start()
    source.expect(guest, **STARTED)
    before = len(source.of(event="heartbeat"))
    hypervisor.host.freeze("libvirtd")
    try:
        lost = source.expect(event="connection", connected=False)
        assert "keepalive" in lost["reason"]
        guest.kill()
        # the loop goes on: heartbeats come, and say so
        wait_until(lambda: len(source.of(event="heartbeat", connected=False)) > 3, 15, "heartbeats")
        assert len(source.of(event="heartbeat")) > before + 3
    finally:
        hypervisor.host.thaw("libvirtd")
    source.connected(hypervisor.uri, after=1, timeout=20)
    source.expect(guest, **STOPPED)
    source.compared()
    assert len(source.of(guest, **STOPPED)) == 1


def test_death_while_the_source_was_away(
    make_source: Callable[..., Source], hypervisor: Hypervisor, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    guest, stopped = make_guest().start(), make_guest().start()
    stopped.virsh("destroy")
    first = make_source(uri=hypervisor.uri, state_path=str(state))
    first.connected(hypervisor.uri)
    wait_until(lambda: state.exists() and guest.uuid in state.read_text(), 5, "the state is saved")
    first.stop()
    assert state.stat().st_mode & 0o777 == 0o600
    assert guest.name not in state.read_text(), "UUIDs only"
    guest.kill()
    wait_until(lambda: guest.state().startswith("shut off"), 10, "libvirt has seen it")

    second = make_source(uri=hypervisor.uri, state_path=str(state))
    event = second.expect(guest, **STOPPED)
    assert (event["synthetic"], event["detail"]) == (True, "CRASHED")
    second.compared()
    assert len(second.of(guest, **STOPPED)) == 1
    second.stop()

    # still dead: told again by the next one, with the time at which it saw that
    third = make_source(uri=hypervisor.uri, state_path=str(state))
    assert third.expect(guest, **STOPPED)["occurred_at"] > event["occurred_at"]
    guest.virsh("start")
    third.expect(guest, **STARTED)
    third.stop()

    fourth = make_source(uri=hypervisor.uri, state_path=str(state))
    fourth.connected(hypervisor.uri)
    fourth.quiet()
    assert not fourth.of(guest)
    assert not [event for source in (first, second, third, fourth) for event in source.of(stopped)]


def test_host_that_lost_power(
    make_source: Callable[..., Source], hypervisor: Hypervisor, make_guest: Callable[..., Guest], tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    ran, stopped = make_guest().start(), make_guest().start()
    first = make_source(uri=hypervisor.uri, state_path=str(state))
    first.connected(hypervisor.uri)
    stopped.virsh("destroy")
    first.expect(stopped, **STOPPED)
    hypervisor.host.kill()
    first.expect(event="connection", connected=False)
    first.stop()
    hypervisor.start()
    second = make_source(uri=hypervisor.uri, state_path=str(state))
    event = second.expect(ran, **STOPPED)
    assert (event["synthetic"], event["detail"]) == (True, "UNKNOWN")
    second.quiet()
    assert not second.of(stopped)


def test_paused_by_an_error_is_found_at_connect(
    make_source: Callable[..., Source], hypervisor: Hypervisor, make_guest: Callable[..., Guest], folder: Path
) -> None:
    full = make_guest(disk=qcow2_on_full_disk(hypervisor, folder, "enospace")).start()
    hung = make_guest(WATCHDOG, watchdog="pause").start()
    wait_until(lambda: full.state() == "paused (I/O error)", 20, "paused by the full disk")
    wait_until(lambda: hung.state() == "paused (watchdog)", 20, "paused by the watchdog")
    source = make_source(uri=hypervisor.uri)
    event = source.expect(full, event="io_error")
    assert (event["synthetic"], event["action"], event["reason"]) == (True, "PAUSE", "enospc")
    assert source.expect(hung, event="watchdog")["synthetic"] is True
    source.compared()
    assert len(source.of(full)) == len(source.of(hung)) == 1


def test_slow_rulebook_in_a_storm(source: Source, hypervisor: Hypervisor, make_guest: Callable[..., Guest]) -> None:
    """While nobody takes events, hundreds come; the death among them is the first that is told."""
    noisy, dying = make_guest().start(), make_guest().start()
    source.expect(noisy, **STARTED)
    source.expect(dying, **STARTED)
    source.held.set()
    begin = len(source.events)
    hypervisor.virsh(f"suspend {noisy.name}; resume {noisy.name}; " * 40)
    dying.kill()
    noisy.virsh("reset")
    source.quiet(1)
    source.held.clear()
    source.expect(dying, **STOPPED)
    source.expect(noisy, event="reboot")
    source.quiet(0.5)
    events = source.events[begin:]
    about = [event.get("uuid") for event in events]
    assert dying.uuid in about[:4], "the death overtakes what waits (the test, the queue and the sender hold one each)"
    suspended = source.of(noisy, action="SUSPENDED")
    assert sum(event["count"] for event in suspended) == 40
    assert len(suspended) < 5


def test_heartbeat_lists_domains(source: Source, make_guest: Callable[..., Guest]) -> None:
    running, defined = make_guest().start(), make_guest().define()
    event = source.expect(event="heartbeat", connected=True, after=len(source.of(event="heartbeat")) + 1)
    rows = {row["id"]: row for row in event["instances"]}
    assert rows[running.uuid] == {"id": running.uuid, "name": running.name, "active": True}
    assert rows[defined.uuid]["active"] is False


# -- through ansible-rulebook

JAVA = "-Xrs -Xms8m -Xmx64m -Xss256k -XX:+UseSerialGC -XX:TieredStopAtLevel=1"


class Rulebook:
    """ansible-rulebook with the source and a rule that shows each event."""

    def __init__(self, folder: Path, options: str, python_path: str | None = None) -> None:
        program = Path(sys.executable).parent / "ansible-rulebook"
        if not program.exists():
            pytest.skip("ansible-rulebook is not installed beside this Python")
        folder.mkdir()
        book = folder / "book.yml"
        book.write_text(
            "- name: Watch\n  hosts: localhost\n  gather_facts: false\n  sources:\n    - c5c3.ha.libvirt:\n"
            f"        {options}\n  rules:\n    - name: Show\n      condition: event.event is defined\n"
            "      action:\n        print_event:\n"
        )
        self.output = folder / "output"
        collections = next(
            path for path in map(Path, sys.path) if (path / "ansible_collections/c5c3/ha/galaxy.yml").exists()
        )
        environment = {
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "PYTHONPATH": str(collections) if python_path is None else python_path,
            "JAVA_TOOL_OPTIONS": JAVA,
        }
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(
                [str(program), "-r", str(book)], stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=folder
            )

    def wait_for(self, text: str, timeout: float = 60) -> None:
        wait_until(lambda: text in self.output.read_text(), timeout, f"{text}; see {self.output}")


@pytest.fixture(scope="module")
def rulebooks(hypervisors: list[Hypervisor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Rulebook]]:
    """Side by side, since each of them takes its time to start."""
    folder = tmp_path_factory.mktemp("rulebooks")
    made = {
        "good": Rulebook(folder / "good", f'uri: "{hypervisors[0].uri}"'),
        "wrong option": Rulebook(folder / "wrong", "urls: [qemu:///system]"),
        "no path": Rulebook(folder / "path", "uri: qemu:///system", python_path=""),
    }
    yield made
    for rulebook in made.values():
        if rulebook.process.poll() is None:
            rulebook.process.kill()
        rulebook.process.wait()


@pytest.mark.rulebook
@pytest.mark.slow
def test_wrong_options_end_ansible_rulebook_with_a_sentence(rulebooks: dict[str, Rulebook]) -> None:
    rulebook = rulebooks["wrong option"]
    assert rulebook.process.wait(90) != 0
    assert "c5c3.ha.libvirt has no option 'urls': did you mean uris?" in rulebook.output.read_text()


@pytest.mark.rulebook
@pytest.mark.slow
def test_missing_python_path_is_told(rulebooks: dict[str, Rulebook]) -> None:
    rulebook = rulebooks["no path"]
    assert rulebook.process.wait(90) != 0
    assert "put the folder that holds ansible_collections on PYTHONPATH" in rulebook.output.read_text()


@pytest.mark.rulebook
@pytest.mark.slow
def test_in_ansible_rulebook(rulebooks: dict[str, Rulebook], make_guest: Callable[..., Guest]) -> None:
    rulebook = rulebooks["good"]
    rulebook.wait_for("'connected': True", 90)
    guest = make_guest().start()
    rulebook.wait_for("'STARTED'")
    guest.kill()
    rulebook.wait_for("'STOPPED'")
    assert "'FAILED'" in rulebook.output.read_text()
    print(f"ansible-rulebook: {rss(rulebook.process.pid)} MiB resident")
    rulebook.process.send_signal(signal.SIGTERM)
    rulebook.process.wait(30)
