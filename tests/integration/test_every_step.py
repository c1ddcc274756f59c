"""Killed at every step: a drain and an evacuation whose worker dies at each kind of exchange, one after the other.

The step evict runs as the operator runs it, in processes of its own. Each is killed at the first kind of exchange at which none was
before, and the next goes on from what that one left: so every kind of request is once the last thing somebody did, what writes
three times, before it is sent and after it was answered. Counted by the guests themselves and by Nova's records.
"""

from __future__ import annotations

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

    def start(self, host: str) -> subprocess.Popen:
        """Work on the host's Eviction."""
        step = evictor.start(self.lab, host, self.log, **OPTIONS)
        self.steps.append(step)
        return step

    def killed_everywhere(self, host: str) -> set[str]:
        """Kill one process after the other, each at a kind of point of its own, until one comes to the end; the points."""
        while code := self.start(host).wait(timeout=120):
            assert code == -signal.SIGKILL, (self.lab.directory / "evacuation.log").read_text()[-3000:]
        points = self.log.read_text().splitlines()
        assert len(points) == len(self.steps) - 1, "each was killed at its point"
        return set(points)

    def arrived(self, host: str, route: dict[str, str]) -> None:
        """Both are elsewhere as they were, moved once; the Eviction tells it."""
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
            assert len(records) == 1, f"{name} was moved more than once: {records}"
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
    lab.nova.delete(*site.servers.values())
    lab.kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")


WRITTEN = "PATCH /apis/hypervisor.c5c3.io/v1/evictions/cmp01/status"


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_drain_whose_operator_is_killed_at_every_exchange(site):
    site.boot("cmp01")
    evictor.make_eviction(site.lab, "cmp01", "Maintenance")
    points = site.killed_everywhere("cmp01")
    site.arrived("cmp01", {"running": "LiveMigrate", "stopped": "ColdMigrate"})
    acts = "POST /v2.1/servers/ID/action"
    assert {f"{when} {what}" for when in ("before", "after") for what in (acts, WRITTEN)} <= points


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
    acts, down = "POST /v2.1/servers/ID/action", "PUT /v2.1/os-services/ID"
    assert {f"{when} {what}" for when in ("before", "after") for what in (acts, down, WRITTEN)} <= points
