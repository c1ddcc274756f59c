"""Step domain_restart on a real libvirtd with real QEMUs, whose guests count their boots on their own disk.

The step runs in a process of its own, as it does for ansible: libvirt has one event loop for each process, and the
process of the tests may have another one.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, HaError, LibvirtError
from ansible_collections.c5c3.ha.plugins.module_utils.steps import domain_restart
from tests.integration.source_libvirt import PANIC, WATCHDOG, Guest, Hypervisor
from tests.lab.guest import SOURCE, Counters, build, parse_sector
from tests.lab.hosts import LAB_ROOT, Namespace, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.libvirt]
SEED = int(os.environ.get("C5C3_LAB_SEED", "0"))
# libvirt's event says FAILED, its state CRASHED.
DEAD = ("shut off (crashed)", "shut off (failed)")
UNKNOWN = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Hypervisor]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    assert SOURCE.exists()
    directory = LAB_ROOT / f"{SEED}-restart"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    control = Namespace("restart", directory / "control", "10.66.0.254", seed=SEED)
    control.start()
    made = Hypervisor(6, directory, control)
    try:
        made.start()
        yield made
    finally:
        made.host.kill()
        control.kill()
        shutil.rmtree(directory, ignore_errors=True)


class Counting(Guest):
    """A guest whose disk tells how often it booted."""

    def __init__(self, hypervisor: Hypervisor, folder: Path, **xml: object) -> None:
        self.image = folder / "counting.img"
        build(self.image)
        disk = (
            f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='{self.image}'/>"
            "<target dev='hda' bus='ide'/></disk>"
        )
        super().__init__(hypervisor, folder, disk=disk, **xml)

    def counters(self) -> Counters:
        with self.image.open("rb") as image:
            image.seek(512)
            return parse_sector(image.read(512)) or Counters(0, 0, 0)

    @property
    def boots(self) -> int:
        return self.counters().boots

    def wait_boots(self, number: int) -> None:
        wait_until(lambda: self.boots >= number, 30, f"{self.name} booted {number} times", 0.05)
        assert self.boots == number


@pytest.fixture
def guest(hypervisor: Hypervisor, tmp_path: Path) -> Iterator[Counting]:
    made = Counting(hypervisor, tmp_path).start()
    made.wait_boots(1)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def restart() -> Iterator[Callable[..., dict]]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:

        def run(guest: Guest, check_mode: bool = False, **params: object) -> dict:
            given = {"uri": guest.hypervisor.writable, "uuid": guest.uuid, "name": None, "method": "auto"}
            given |= {"timeout": 15.0, "verify_seconds": 0.3}
            return process.submit(domain_restart.run, {**given, **params}, check_mode).result(120)

        yield run


@pytest.mark.parametrize("method", ["auto", "reset"])
def test_a_running_guest_begins_anew_in_the_same_qemu(restart, guest, method):
    pid = guest.pid
    result = restart(guest, method=method)
    assert (result["changed"], result["actions"], result["verified"]) == (True, ["reset"], True)
    assert "REBOOT" in result["events"]
    assert result["domain"]["state"] == "RUNNING"
    assert 0.3 <= result["elapsed"] < 10
    guest.wait_boots(2)
    assert guest.pid == pid


def test_by_name(restart, guest):
    assert restart(guest, uuid=None, name=guest.name)["domain"]["uuid"] == guest.uuid
    guest.wait_boots(2)


def test_a_guest_that_does_not_heed_a_request_to_reboot(restart, guest):
    with pytest.raises(LibvirtError, match=r"did not begin anew within 1 s after reboot.*use method reset"):
        restart(guest, method="reboot", timeout=1.0)
    assert guest.boots == 1


def test_a_guest_that_somebody_paused_is_left_alone_unless_told_otherwise(restart, guest):
    guest.virsh("suspend")
    left = restart(guest)
    assert (left["changed"], left["verified"], left["domain"]["state"]) == (False, False, "PAUSED")
    assert "somebody paused it" in left["msg"]
    resumed = restart(guest, method="start")
    assert resumed["actions"] == ["resume"]
    assert guest.boots == 1
    guest.virsh("suspend")
    result = restart(guest, method="reset")
    assert result["actions"] == ["reset", "resume"]
    assert guest.state() == "running (unpaused)"
    guest.wait_boots(2)


def test_a_guest_whose_qemu_was_killed_is_started(restart, guest):
    pid = guest.pid
    guest.kill()
    wait_until(lambda: guest.state() in DEAD, 10, "libvirt has seen it", 0.05)
    result = restart(guest)
    assert (result["actions"], result["verified"]) == (["create"], True)
    assert result["diff"]["before"]["state"] == "SHUTOFF"
    guest.wait_boots(2)
    assert guest.pid != pid
    assert guest.counters().total > 1, "it kept its disk"


def test_a_guest_that_somebody_switched_off(restart, guest):
    guest.virsh("destroy")
    assert restart(guest)["changed"] is False
    with pytest.raises(ArgumentError, match=r"is SHUTOFF \(DESTROYED\).*use method start"):
        restart(guest, method="reset")
    with pytest.raises(LibvirtError, match=r"SHUTOFF \(DESTROYED\)"):
        restart(guest, method="verify", timeout=0.5)
    assert guest.state() == "shut off (destroyed)"
    assert restart(guest, method="start")["actions"] == ["create"]
    guest.wait_boots(2)
    again = restart(guest, method="start")
    assert (again["changed"], again["verified"]) == (False, True)
    assert guest.boots == 2


def test_verify_touches_nothing(restart, guest):
    result = restart(guest, method="verify")
    assert (result["changed"], result["verified"]) == (False, True)
    assert guest.boots == 1


def test_check_mode_touches_nothing(restart, guest):
    for state, actions in (("running", ["reset"]), ("paused", []), ("dead", ["create"])):
        if state == "paused":
            guest.virsh("suspend")
        elif state == "dead":
            guest.kill()
            wait_until(lambda: guest.state() in DEAD, 10, "libvirt has seen it", 0.05)
        before = guest.state()
        told = restart(guest, check_mode=True)
        assert told["actions"] == actions
        assert told["changed"] is bool(actions)
        assert (told["diff"]["before"] != told["diff"]["after"]) is (state == "dead")
        assert guest.state() == before
    assert guest.boots == 1


def test_a_guest_that_dies_while_it_is_watched(restart, guest):
    def kill_after_its_boot() -> None:
        guest.wait_boots(2)
        guest.kill()

    killer = threading.Thread(target=kill_after_its_boot)
    killer.start()
    start = time.monotonic()
    with pytest.raises(
        LibvirtError, match=r"did not stay so for 20 s: it is SHUTOFF \((CRASHED|FAILED)\) after STOPPED"
    ):
        restart(guest, verify_seconds=20.0)
    assert time.monotonic() - start < 10, "told at once, not at the end of the watch"
    killer.join()


def test_a_watchdog_that_paused_its_guest_and_bites_again(restart, hypervisor, tmp_path):
    guest = Guest(hypervisor, tmp_path, WATCHDOG, watchdog="pause").start()
    try:
        wait_until(lambda: guest.state() == "paused (watchdog)", 60, "the watchdog has bitten", 0.1)
        result = restart(guest, verify_seconds=0.0)
        assert result["actions"] == ["reset", "resume"]
        wait_until(lambda: guest.state() == "paused (watchdog)", 60, "the watchdog has bitten again", 0.1)
        with pytest.raises(LibvirtError, match=r"did not stay so.*PAUSED \(WATCHDOG\)"):
            restart(guest, verify_seconds=60.0)
    finally:
        guest.remove()


def test_a_guest_that_panicked_and_was_kept(restart, hypervisor, tmp_path):
    guest = Guest(hypervisor, tmp_path, PANIC, on_crash="preserve").start()
    try:
        wait_until(lambda: guest.state().startswith("crashed"), 60, "it panicked", 0.1)
        result = restart(guest, verify_seconds=0.0)
        assert result["actions"] == ["destroy", "create"]
        assert result["domain"]["id"] != result["diff"]["before"]["id"]
    finally:
        guest.remove()


def test_a_transient_guest_that_panicked_keeps_its_definition(restart, hypervisor, tmp_path):
    guest = Guest(hypervisor, tmp_path, PANIC, on_crash="preserve")
    hypervisor.virsh("create", guest.definition)
    try:
        wait_until(lambda: guest.state().startswith("crashed"), 60, "it panicked", 0.1)
        left = restart(guest)
        assert (left["changed"], left["verified"]) == (False, False)
        assert "transient" in left["msg"]
    finally:
        guest.virsh("destroy", check=False)


def test_an_unknown_guest(restart, guest):
    with pytest.raises(LibvirtError, match=f"domain {UNKNOWN} at .* is not there: see what is with virsh"):
        restart(guest, uuid=UNKNOWN)
    with pytest.raises(LibvirtError, match="domain 'nobody' at .* is not there"):
        restart(guest, uuid=None, name="nobody")


def test_no_libvirtd(restart, guest, tmp_path):
    with pytest.raises(LibvirtError, match="opening the connection failed"):
        restart(guest, uri=f"qemu+unix:///system?socket={tmp_path}/none")


def test_a_hung_libvirtd_is_given_up_in_time_and_nothing_is_done_later(restart, guest, hypervisor):
    hypervisor.host.freeze("libvirtd")
    start = time.monotonic()
    try:
        with pytest.raises(LibvirtError, match="did not answer within 2.5 s while opening the connection"):
            restart(guest, timeout=1.0, verify_seconds=0.5)
        assert time.monotonic() - start < 3.5
    finally:
        hypervisor.host.thaw("libvirtd")
    hypervisor.wait()
    ticks = guest.counters().ticks
    wait_until(lambda: guest.counters().ticks >= ticks + 2, 20, "the guest goes on", 0.1)
    assert guest.boots == 1


def test_libvirtd_killed_while_a_guest_is_watched(restart, guest, hypervisor):
    """The answer is an error in time; that the guest runs is then for the next look to say."""

    def kill() -> None:
        guest.wait_boots(2)
        hypervisor.host.kill("libvirtd")

    killer = threading.Thread(target=kill)
    killer.start()
    start = time.monotonic()
    try:
        with pytest.raises(HaError, match="failed"):
            restart(guest, verify_seconds=20.0)
        assert time.monotonic() - start < 15
    finally:
        killer.join()
        hypervisor.wait()
    assert restart(guest, method="verify")["verified"] is True
    assert guest.boots == 2
