"""Hypervisors whose disks are their own: a drain copies them (block migration), a dead host keeps them and that is told.

The oracle reads each copy of a disk where it lies, below the host that has it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition
from tests import evictor
from tests.lab import Lab, wait_until

HOST = "cmp01"


@pytest.fixture
def lab_local(lab: Lab) -> Iterator[Lab]:
    """The lab without shared storage; healthy and as it was afterwards."""
    evictor.prepare(lab)
    lab.nova.delete(*lab.nova.servers())  # what another test left would lose its disk
    with lab.nova.hypervisors.local_disks():
        yield lab
        lab.bmc.heal()
        lab.heal()
        for host in lab.hosts:
            lab.kubernetes.wait_node(host, "True", 120)
            evictor.back(lab, host)
        lab.nova.delete(*lab.nova.servers())
    lab.kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")


def _boot(lab: Lab, name: str) -> str:
    """A server that counts on the disk of its host, and nowhere else."""
    server = lab.nova.boot(f"local-{name}", host=HOST, timeout=120).id
    wait_until(lambda: lab.oracle.counters(server), 60, f"{name} counts", 0.1)
    assert set(lab.oracle.copies(server)) == {HOST}
    return server


def _evict(lab: Lab, **options: object) -> dict:
    """Run the step until the host's Eviction is finished; the Eviction."""
    step = evictor.start(lab, HOST, backoff=0.5, fence_timeout=15.0, **options)
    assert step.wait(timeout=300) == 0, (lab.directory / "evacuation.log").read_text()[-3000:]
    return evictor.eviction(lab, HOST)


@pytest.mark.timeout(600)
def test_a_drain_copies_what_only_its_host_has(lab_local):
    """A running guest arrives running, with its disk; a stopped one stopped. Nothing stays behind."""
    lab = lab_local
    running, stopped = _boot(lab, "running"), _boot(lab, "stopped")
    lab.nova.connection().compute.stop_server(stopped)
    lab.nova.wait_server(stopped, "SHUTOFF")
    with lab.oracle.watch(interval=0.05) as watch:
        watch.wait_counting(running, 3)
        before = {server: lab.oracle.counters(server) for server in (running, stopped)}
        evictor.make_eviction(lab, HOST, "Maintenance")
        eviction = _evict(lab)
        assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
        entries = {item["id"]: (item["route"], item["phase"]) for item in eviction["status"]["instances"]}
        assert entries == {running: ("LiveMigrate", "Succeeded"), stopped: ("ColdMigrate", "Succeeded")}
        for server, status in ((running, "ACTIVE"), (stopped, "SHUTOFF")):
            found = lab.nova.connection().compute.get_server(server)
            assert (found.status, found.compute_host != HOST) == (status, True)
            assert set(lab.oracle.copies(server)) == {found.compute_host}, "it has one disk, where it is"
            after = lab.oracle.counters(server)
            assert after.boots == before[server].boots and after.total >= before[server].total
        watch.wait_counting(running, 3)
        assert lab.oracle.qemu_pid(stopped) is None
        assert watch.two_writers() == []


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_copy_that_fails_is_told_with_what_mends_it(lab_local):
    """Without sshd a stopped server stays where it was, whole; the next Eviction moves it."""
    lab = lab_local
    server = _boot(lab, "no-ssh")
    lab.nova.connection().compute.stop_server(server)
    lab.nova.wait_server(server, "SHUTOFF")
    before = lab.oracle.counters(server)
    for host in ("cmp02", "cmp03"):
        lab.kill(f"{host}/sshd", stay_down=True)
    evictor.make_eviction(lab, HOST, "Maintenance")
    eviction = _evict(lab, move_attempts=1)
    assert get_condition(eviction, "Evicting")["reason"] == "Failed", eviction["status"]
    (entry,) = eviction["status"]["instances"]
    assert "sshd runs" in entry["message"], entry
    assert lab.oracle.copies(server) == {HOST: before}
    # What the message says helps.
    lab.heal()
    lab.kubernetes.kubectl("delete", "evictions", "--all", "--wait")
    evictor.back(lab, HOST)
    evictor.make_eviction(lab, HOST, "Maintenance")
    eviction = _evict(lab)
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    found = lab.nova.connection().compute.get_server(server)
    assert (found.status, set(lab.oracle.copies(server))) == ("SHUTOFF", {found.compute_host})
    assert found.compute_host != HOST


@pytest.mark.timeout(600)
def test_a_dead_host_keeps_what_only_it_has_and_that_is_told(lab_local):
    """Nothing is made anew from an image behind anybody's back; the host comes back and so does the guest, data and all."""
    lab = lab_local
    server = _boot(lab, "kept")
    with lab.oracle.watch(interval=0.05) as watch:
        watch.wait_counting(server, 3)
        lab.kill(HOST)
        before = lab.oracle.counters(server)
        evictor.wait_unheard(lab, HOST)
        evictor.make_eviction(lab, HOST)
        eviction = _evict(lab, move_attempts=2)
        evicting = get_condition(eviction, "Evicting")
        assert evicting["reason"] == "Failed", eviction["status"]
        (entry,) = eviction["status"]["instances"]
        assert entry["phase"] == "Failed"
        for told in ("no other host sees its disk", f"bring {HOST} back", "evacuate_from_image"):
            assert told in entry["message"]
        assert lab.oracle.copies(server) == {HOST: before}, "its data is where it was"
        assert not lab.nova.guest_processes(server)
        # What the message says helps.
        lab.heal(HOST)
        lab.kubernetes.wait_node(HOST, "True", 120)
        evictor.back(lab, HOST)
        lab.nova.connection().compute.reboot_server(server, "HARD")
        watch.wait_boots(server, before.boots + 1)
        watch.wait_counting(server, 2)
        assert set(lab.oracle.copies(server)) == {HOST}
        after = lab.oracle.counters(server)
        assert after.boots == before.boots + 1 and after.total > before.total
        assert watch.two_writers() == []


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_data_that_is_given_up_is_made_anew_from_the_image(lab_local):
    """With evacuate_from_image the guest runs elsewhere, from nothing; its old host, when it is back, does not run it too."""
    lab = lab_local
    server = _boot(lab, "given-up")
    with lab.oracle.watch(interval=0.05) as watch:
        watch.wait_counting(server, 3)
        lab.kill(HOST)
        before = lab.oracle.counters(server)
        evictor.wait_unheard(lab, HOST)
        evictor.make_eviction(lab, HOST)
        eviction = _evict(lab, evacuate_from_image=True)
        assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
        found = lab.nova.connection().compute.get_server(server)
        assert found.status == "ACTIVE" and found.compute_host != HOST
        wait_until(lambda: found.compute_host in lab.oracle.copies(server), 60, "it has a disk there", 0.1)
        assert lab.oracle.copies(server)[found.compute_host].boots == 1 < before.boots + 1
        assert lab.oracle.copies(server)[HOST] == before
        lab.heal(HOST)
        lab.kubernetes.wait_node(HOST, "True", 120)
        evictor.back(lab, HOST)
        wait_until(lambda: set(lab.oracle.copies(server)) == {found.compute_host}, 60, "Nova removed the old disk", 0.1)
        assert len(lab.nova.guest_processes(server)) == 1
        assert lab.oracle.copies(server)[found.compute_host].boots == 1
