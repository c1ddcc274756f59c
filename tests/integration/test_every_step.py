"""Killed at every step of a drain and of an evacuation: the worker, and each part that it works with.

The step evict runs as the operator runs it, in a process of its own. It is killed at the first kind of exchange at which none was
before, and the next process goes on from what that one left: so every kind of request is once the last thing somebody did, what
writes three times, before it is sent and after it was answered. Or the process stands still at each kind of exchange while a part is
killed: the API server, the broker, Nova's API, its conductor, the computes. Counted by the guests themselves and by Nova's records.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition
from tests import evictor
from tests.lab import Lab, wait_until

# A claim of somebody killed is waited for, each time; and an attempt is one, also when who made it died before it was sent.
OPTIONS = {"claim_ttl": 2.0, "move_attempts": 20, "backoff": 0.5, "fence_timeout": 15.0, "request_timeout": 5.0}
# Who waits for a part keeps its claim. What was lost with a part is sent again after so many seconds; the lab's Nova gives up a
# question of one part to another after 60 s.
PATIENT = {"claim_ttl": 60.0, "evacuate_timeout": 65.0, "attempt_timeout": 45.0}

# What is killed, and which questions reach it; the others are no point of its own.
ASKED = "/diagnostics$"
PARTS = {
    "kube-apiserver": (("kube-apiserver",), ""),
    "rabbitmq": (("rabbitmq",), ASKED),
    "nova-api": (("nova-api",), ""),
    "conductor": (("nova-conductor",), ASKED),
    "source": (("cmp01/nova-compute",), ASKED),
    "targets": (("cmp02/nova-compute", "cmp03/nova-compute"), ASKED),
}


class Site:
    """A host with a running server and one that its user stopped."""

    def __init__(self, lab: Lab, watch: Any, log: Path) -> None:
        self.lab, self.watch, self.log = lab, watch, log
        self.steps: list[subprocess.Popen] = []
        self.servers: dict[str, str] = {}
        self.before: dict[str, tuple[int, int]] = {}

    def boot(self, host: str) -> None:
        """Make them, and see them count."""
        nova = self.lab.nova
        self.servers = {name: nova.boot(f"every-{name}", host=host, timeout=120).id for name in ("running", "stopped")}
        for server in self.servers.values():
            wait_until(lambda server=server: self.lab.oracle.counters(server), 60, "the guest counts", 0.1)
        nova.connection().compute.stop_server(self.servers["stopped"])
        nova.wait_server(self.servers["stopped"], "SHUTOFF")
        self.watch.wait_counting(self.servers["running"], 1)
        self.before = {name: self.counters(server) for name, server in self.servers.items()}

    def counters(self, server: str) -> tuple[int, int]:
        """Boots and data of a guest, from its disk."""
        counters = self.lab.oracle.counters(server)
        return (counters.boots, counters.total) if counters else (0, 0)

    def start(self, host: str, **options: Any) -> subprocess.Popen:
        """Work on the host's Eviction."""
        step = evictor.start(self.lab, host, self.log, **{**OPTIONS, **options})
        self.steps.append(step)
        return step

    def killed_everywhere(self, host: str) -> set[str]:
        """Kill one process after the other, each at a kind of point of its own, until one comes to the end; the points."""
        while code := self.start(host).wait(timeout=120):
            assert code == -signal.SIGKILL, (self.lab.directory / "evacuation.log").read_text()[-3000:]
        points = self.log.read_text().splitlines()
        assert len(points) == len(self.steps) - 1, "each was killed at its point"
        return set(points)

    def parts_killed_everywhere(self, host: str, part: str) -> set[str]:
        """Stop one process at each kind of point, kill the part while it stands there, let it go on; the points.

        Who goes on finds it gone; where it stands next it is waited for until that really works again.
        """
        parts, reads = PARTS[part]
        step = self.start(host, deed=signal.SIGSTOP, times=1, reads=reads, **PATIENT)

        def standing() -> bool:
            return step.poll() is not None or bool(os.waitid(os.P_PID, step.pid, os.WSTOPPED | os.WNOHANG))

        while True:
            wait_until(standing, 200, f"the step on {host} is at its next point, or at its end")
            if step.returncode is not None:
                break
            for each in parts:
                self.lab.wait_answering(each)
            for each in parts:
                self.lab.kill(each)
            step.send_signal(signal.SIGCONT)
        assert step.returncode == 0, (self.lab.directory / "evacuation.log").read_text()[-3000:]
        for each in parts:
            self.lab.wait_answering(each)
        return set(self.log.read_text().splitlines())

    def arrived(self, host: str, route: dict[str, str], tried: bool = False) -> None:
        """Both are elsewhere as they were, moved once; the Eviction tells it.

        :param tried: Nova may have begun more than that and come to nothing.
        """
        lab = self.lab
        eviction = evictor.eviction(lab, host)
        assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
        entries = {item["id"]: (item["route"], item["phase"]) for item in eviction["status"]["instances"]}
        assert entries == {server: (route[name], "Succeeded") for name, server in self.servers.items()}
        rebooted = 1 if route["running"] == "Evacuate" else 0
        for name, server in self.servers.items():
            found = lab.nova.connection().compute.get_server(server)
            assert found.compute_host != host, f"{name} was forgotten"
            records = lab.nova.request("GET", f"/os-migrations?instance_uuid={server}")["migrations"]
            tries = [each for each in records if each["status"] not in ("error", "failed", "cancelled")]
            assert len(records) == 1 or tried, f"{name} was moved more than once: {records}"
            places = {each["dest_compute"] for each in tries if each["dest_compute"]}
            assert places == {found.compute_host}, f"{name} was moved to more than one place: {records}"
            assert not found.is_locked, f"{name} is still locked"
            boots, total = self.counters(server)
            if name == "stopped":
                assert (found.status, lab.oracle.qemu_pid(server)) == ("SHUTOFF", None)
                # To evacuate it Nova boots it for a moment.
                assert rebooted or boots == self.before[name][0], "what its user stopped was booted"
                continue
            assert found.status == "ACTIVE"
            self.watch.wait_counting(server, 1)
            assert boots == self.before[name][0] + rebooted, "booted another number of times"
            assert total >= self.before[name][1], "data was lost"
            assert len(lab.nova.guest_processes(server)) == 1
        assert self.watch.two_writers() == [], "two writers"


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """Nothing of before, and a healthy lab afterwards."""
    evictor.prepare(lab)
    with lab.oracle.watch(interval=0.05) as watch:
        site = Site(lab, watch, tmp_path / "points")
        site.log.touch()
        yield site
    for step in site.steps:
        step.kill()
        step.wait()
    lab.bmc.heal()
    lab.heal()
    for host in lab.hosts:
        lab.kubernetes.wait_node(host, "True", 120)
        evictor.back(lab, host)
    lab.nova.wait_ready(120)
    lab.nova.delete(*site.servers.values())
    lab.kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")


WRITTEN = "PATCH /apis/hypervisor.c5c3.io/v1/evictions/cmp01/status"
ACT = "POST /v2.1/servers/ID/action"
MOVES = ("lock", "migrate", "os-migrateLive", "confirmResize", "unlock")
DOWN = "PUT /v2.1/os-services/ID"


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_drain_whose_operator_is_killed_at_every_exchange(site):
    site.boot("cmp01")
    evictor.make_eviction(site.lab, "cmp01", "Maintenance")
    points = site.killed_everywhere("cmp01")
    site.arrived("cmp01", {"running": "LiveMigrate", "stopped": "ColdMigrate"})
    assert {f"{when} {what}" for when in ("before", "after") for what in (ACT, WRITTEN)} <= points


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_an_evacuation_whose_operator_is_killed_at_every_exchange(site):
    lab = site.lab
    site.boot("cmp01")
    lab.kill("cmp01")
    evictor.wait_unheard(lab, "cmp01")
    evictor.make_eviction(lab, "cmp01")
    points = site.killed_everywhere("cmp01")
    site.arrived("cmp01", dict.fromkeys(site.servers, "Evacuate"))
    assert {f"{when} {what}" for when in ("before", "after") for what in (ACT, DOWN, WRITTEN)} <= points


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", list(PARTS))
def test_a_drain_during_which_a_part_is_killed_at_every_exchange(site, part):
    site.boot("cmp01")
    evictor.make_eviction(site.lab, "cmp01", "Maintenance")
    points = site.parts_killed_everywhere("cmp01", part)
    site.arrived("cmp01", {"running": "LiveMigrate", "stopped": "ColdMigrate"}, tried=True)
    assert {
        f"{when} {what}"
        for when in ("before", "after")
        for what in (*(f"{ACT} {move}" for move in MOVES), WRITTEN, f"{WRITTEN} finished")
    } <= points


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", [part for part in PARTS if part != "source"])
def test_an_evacuation_during_which_a_part_is_killed_at_every_exchange(site, part):
    lab = site.lab
    site.boot("cmp01")
    lab.kill("cmp01")
    evictor.wait_unheard(lab, "cmp01")
    evictor.make_eviction(lab, "cmp01")
    points = site.parts_killed_everywhere("cmp01", part)
    site.arrived("cmp01", dict.fromkeys(site.servers, "Evacuate"), tried=True)
    assert {
        f"{when} {what}"
        for when in ("before", "after")
        for what in (f"{ACT} evacuate", DOWN, WRITTEN, f"{WRITTEN} finished")
    } <= points
