"""A host dies and its guests live on elsewhere: proven off first, no guest twice, none forgotten, data kept.

The step evict is run as the operator runs it, in processes of its own that are killed at any instant; the host's power
switch is a real fence agent's and an emulated controller's. Counted by the guests themselves and by the lab's oracle.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition
from tests import evictor
from tests.lab import Lab, LabError, wait_until

SEED = int(os.environ.get("C5C3_CHAOS_SEED", "20261124"))


class Site:
    """The lab with a power switch for each host, and the step's processes."""

    def __init__(self, lab: Lab, watch: Any) -> None:
        self.lab = lab
        self.watch = watch
        self.steps: list[subprocess.Popen] = []
        self.random = random.Random(SEED)

    def step(self, host: str, **options: Any) -> subprocess.Popen:
        """Run the step for a host's Eviction in a process of its own."""
        # What a killed broker lost is sent again soon.
        given = {"fence_timeout": 15.0, "evacuate_timeout": 60.0, "attempt_timeout": 60.0, "request_timeout": 5.0}
        step = evictor.start(self.lab, host, **{**given, **options})
        self.steps.append(step)
        return step

    def kill_step(self) -> None:
        """kill -9 of the last step."""
        self.steps[-1].kill()
        self.steps[-1].wait()

    def end_steps(self) -> None:
        """No step is left."""
        for step in self.steps:
            step.kill()
            step.wait()

    def condition(self, host: str, kind: str) -> tuple[str, str] | None:
        """Status and reason of a condition of the host's Eviction."""
        found = get_condition(evictor.eviction(self.lab, host), kind)
        return (found["status"], found["reason"]) if found else None

    def boot(self, host: str, prefix: str, running: int) -> dict[str, str]:
        """Servers on a host, by what they are: running ones, one that its user stopped, one in ERROR."""
        names = [f"run{number}" for number in range(running)] + ["stopped", "error"]
        nova, compute = self.lab.nova, self.lab.nova.connection().compute
        servers = {name: nova.boot(f"{prefix}-{name}", host=host, timeout=120).id for name in names}
        for server in servers.values():
            wait_until(lambda server=server: self.lab.oracle.counters(server), 60, "the guest counts", 0.1)
        compute.stop_server(servers["stopped"])
        nova.wait_server(servers["stopped"], "SHUTOFF")
        compute.reset_server_state(servers["error"], "error")
        for name in set(names) - {"stopped"}:
            self.watch.wait_counting(servers[name], 1)
        return servers

    def total(self, server: str) -> int:
        """How far the guest has counted in all its lives: its data."""
        counters = self.lab.oracle.counters(server)
        return counters.total if counters else 0

    def boots(self, server: str) -> int:
        """How often it has booted."""
        counters = self.lab.oracle.counters(server)
        return counters.boots if counters else 0

    def finished(self, host: str, timeout: float = 400) -> dict:
        """Wait until the host's Eviction is finished; return it."""

        def done() -> dict | None:
            try:
                eviction = evictor.eviction(self.lab, host)
            except (OSError, LabError):
                return None  # the API server was killed, or has just begun and refuses
            evicting = get_condition(eviction, "Evicting")
            return eviction if evicting and evicting["status"] == "False" else None

        try:
            return wait_until(done, timeout, f"the Eviction of {host} is finished", 0.3)
        except Exception as error:
            raise AssertionError(
                f"{error}: {json.dumps(evictor.eviction(self.lab, host).get('status'), indent=1)}"
            ) from error

    def arrived(self, host: str, servers: dict[str, str], before: dict[str, tuple[int, int]]) -> None:
        """Every guest is elsewhere as it was: booted once, its data kept; the stopped one never started for good."""
        compute = self.lab.nova.connection().compute
        for name, server in servers.items():
            boots, total = before[server]
            found = compute.get_server(server)
            assert found.compute_host != host, f"{name} was forgotten"
            if name == "stopped":
                assert (found.status, self.lab.oracle.qemu_pid(server)) == ("SHUTOFF", None)
                continue
            assert found.status == "ACTIVE", f"{name}: {found.status}"
            self.watch.wait_counting(server, 1)
            assert self.boots(server) == boots + 1, f"{name} booted {self.boots(server) - boots} times"
            assert self.total(server) >= total, f"{name} lost its data"
            assert len(self.lab.nova.guest_processes(server)) == 1
        assert self.watch.two_writers() == [], "two writers"

    def counts(self, servers: dict[str, str]) -> dict[str, tuple[int, int]]:
        """Boots and total of each server."""
        return {server: (self.boots(server), self.total(server)) for server in servers.values()}


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site]:
    evictor.prepare(lab)
    with lab.oracle.watch(interval=0.05) as watch:
        site = Site(lab, watch)
        yield site
    site.end_steps()
    lab.kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")


@pytest.fixture(autouse=True)
def healthy(site: Site) -> Iterator[None]:
    """Every test leaves a healthy lab: hosts on and enabled, nothing of its own left."""
    lab = site.lab
    kept = set(lab.nova.servers())
    yield
    site.end_steps()
    lab.bmc.heal()
    lab.heal()
    for host in lab.hosts:
        lab.kubernetes.wait_node(host, "True", 120)
        evictor.back(lab, host)
    lab.nova.wait_ready(120)
    lab.nova.delete(*(set(lab.nova.servers()) - kept))
    lab.kubernetes.kubectl("delete", "evictions", "--all", "--wait")


def _forced_down(lab: Lab, host: str) -> bool:
    return bool(lab.nova.compute_services()[host].get("forced_down"))


def _evacuations(lab: Lab, host: str) -> list[dict]:
    """Nova's evacuation records of a host, whatever became of them."""
    return lab.nova.request("GET", f"/os-migrations?source_compute={host}&migration_type=evacuation")["migrations"]


def test_a_host_that_is_only_cut_off_keeps_its_guests_until_it_is_proven_off(site):
    """A partitioned host runs on; its controller does not answer: nothing is evacuated, and that is told. Then it does."""
    lab, host = site.lab, "cmp01"
    servers = site.boot(host, "cut", running=2)
    asked, moved = len(lab.bmc.commands(host)), len(_evacuations(lab, host))  # by the tests before
    lab.partition(host)
    lab.bmc.black_hole(host)
    evictor.wait_unheard(lab, host)
    evictor.make_eviction(lab, host)
    site.step(host, fence_timeout=5.0)
    wait_until(
        lambda: (site.condition(host, "Fenced") or ("", ""))[0] == "False", 180, "the failed fencing is told", 0.3
    )
    fenced = get_condition(evictor.eviction(lab, host), "Fenced")
    assert fenced["reason"] in ("Unreachable", "Timeout") and "reachable" in fenced["message"]
    before = site.counts(servers)
    site.watch.wait_counting(servers["run0"], 3)
    assert lab.bmc.commands(host)[asked:] == [] and not _forced_down(lab, host)
    assert len(_evacuations(lab, host)) == moved
    assert site.boots(servers["run0"]) == before[servers["run0"]][0], "it has run all the time"
    # The operator is killed while the switch is asked; then the switch answers.
    site.kill_step()
    lab.bmc.heal()
    before = site.counts(servers)
    site.step(host)
    eviction = site.finished(host)
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    assert site.condition(host, "Fenced") == ("True", "Off")
    assert lab.bmc.commands(host)[asked:] == [f"{host} off"] and not lab.hosts[host].running
    site.arrived(host, servers, before)
    # It comes back: nothing runs twice, and what was evacuated stays where it is.
    lab.heal(host)
    lab.kubernetes.wait_node(host, "True", 120)
    evictor.back(lab, host)
    site.arrived(host, servers, before)


def test_a_host_that_is_ready_again_is_left_alone(site):
    asked = len(site.lab.bmc.commands("cmp02"))  # by the tests before
    evictor.make_eviction(site.lab, "cmp02")
    site.step("cmp02")
    assert get_condition(site.finished("cmp02"), "Evicting")["reason"] == "Cancelled"
    service = site.lab.nova.compute_services()["cmp02"]
    assert (service["status"], service["state"], site.lab.bmc.commands("cmp02")[asked:]) == ("enabled", "up", [])


CHAOS = [("cmp02", ("nova-api", "kube-apiserver")), ("cmp03", ("rabbitmq", "TARGET/nova-compute"))]


@pytest.mark.thorough
@pytest.mark.parametrize(("host", "parts"), CHAOS)
def test_everything_dies_while_a_dead_host_is_evacuated(site, host, parts):
    """The host loses its power, then the operator and two more parts die, each at an instant drawn anew from the seed."""
    lab = site.lab
    servers = site.boot(host, "dead", running=2)
    before = site.counts(servers)
    lab.kill(host)
    evictor.wait_unheard(lab, host)
    evictor.make_eviction(lab, host)
    site.step(host)
    wait_until(lambda: (site.condition(host, "Fenced") or ("", ""))[0] == "True", 180, "it is proven off", 0.05)
    target = "cmp01"
    for part in parts:
        delay, began = site.random.uniform(0.0, 1.5), time.monotonic()
        wait_until(lambda began=began, delay=delay: time.monotonic() - began > delay, 5, "the instant", 0.01)
        site.kill_step()
        lab.kill(part.replace("TARGET", target))
        site.step(host)
    eviction = site.finished(host)
    assert get_condition(eviction, "Fenced")["reason"] == "AlreadyOff"
    entries = {item["id"]: item for item in eviction["status"]["instances"]}
    assert {key: item["route"] for key, item in entries.items()} == dict.fromkeys(servers.values(), "Evacuate")
    failed = {key for key, item in entries.items() if item["phase"] == "Failed"}
    if "TARGET/nova-compute" not in parts:
        assert not failed, entries
    for server in failed:
        # Its compute was killed between building the guest and telling Nova: Nova has no word for that, we have.
        assert "virsh" in entries[server]["message"], entries[server]
        assert len(lab.nova.guest_processes(server)) <= 1
    site.arrived(host, {name: server for name, server in servers.items() if server not in failed}, before)
