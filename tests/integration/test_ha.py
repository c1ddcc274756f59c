"""The whole thread on the whole lab: a guest dies and lives again, exactly once, whatever else dies meanwhile.

Counted by the guest itself, which stores its boots on its disk, and by an oracle that looks from outside.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.deployment import Deployment
from tests.lab import Lab, LabError, wait_until
from tests.timeline import Timeline, condition, finished

from .selecting import WHOLE

SEED = int(os.environ.get("C5C3_CHAOS_SEED", "20261124"))


class Site:
    """Lab, deployment, one server a host, and what watches them."""

    def __init__(self, lab: Lab, deployment: Deployment, watch, timeline: Timeline) -> None:
        self.lab = lab
        self.deployment = deployment
        self.watch = watch
        self.timeline = timeline
        self.servers: dict[str, str] = {}
        # Boots as the last case left them. A restart too many may come late: the next case that uses the server sees it, or the end.
        self.expected: dict[str, int] = {}

    def boot(self) -> None:
        """One server on each host."""
        for host in self.lab.hosts:
            self.servers[host] = self.lab.nova.boot(f"ha-{host}", host=host).id
        for server in self.servers.values():
            self.settled(server)

    def boots(self, server: str) -> int:
        """How often the guest has booted, from its disk."""
        counters = self.lab.oracle.counters(server)
        return counters.boots if counters else 0

    def settled(self, server: str) -> int:
        """Wait until the guest counts and Nova is at rest; return its boots."""
        self.lab.nova.wait_server(server, timeout=120)
        self.watch.wait_counting(server, 2, timeout=60)
        boots = self.boots(server)
        assert boots == self.expected.setdefault(server, boots), "restarted more than once"
        return boots

    def host_of(self, server: str) -> str:
        """Where Nova says it is."""
        return self.lab.nova.connection().compute.get_server(server).compute_host

    def recovered(self, server: str, boots: int, since: float, timeout: float = 150) -> dict:
        """Wait until the guest runs again and its Eviction is finished; both exactly once. Returns the Eviction."""
        self.watch.wait_boots(server, boots + 1, timeout)
        end = self.timeline.wait(server, lambda seen: finished(seen) and seen.at > since, timeout)
        self.watch.wait_counting(server, 1)
        assert self.boots(server) == boots + 1, "restarted more than once"
        self.expected[server] = boots + 1
        assert len(self.lab.oracle.lab.nova.guest_processes(server)) == 1
        assert self.watch.two_writers() == [], "two writers"
        return end.object

    def evictions(self, server: str, since: float) -> list:
        """What was seen of a server's Evictions since a moment."""
        return self.timeline.changes(server, since)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site]:
    """Agent and operator deployed with the collection's playbook, one server on each host."""
    # One guest dies in nearly every case: no crash loop of its own making.
    settings = {"hypervisor_operator_rulebook_vars": {"c5c3_ha_resync_seconds": 5, "c5c3_ha_crash_restarts": 100}}
    deployment = Deployment(lab, settings=settings)
    first = deployment.deploy()
    assert first["failed"] == 0
    deployment.wait_ready()
    try:
        _enable_all(lab)
        with lab.oracle.watch(interval=0.05) as watch, Timeline(lab) as timeline:
            site = Site(lab, deployment, watch, timeline)
            old = {f"ha-{host}" for host in lab.hosts}
            lab.nova.delete(*(server for server, name in lab.nova.servers().items() if name in old))
            site.boot()
            yield site
            for server in site.servers.values():
                site.settled(server)
    finally:
        (lab.directory / "deployment" / "daemons.log").write_text(deployment.logs())
        # The tests that come after kill guests of the same lab, and want them to stay dead.
        deployment.remove()


@pytest.fixture(autouse=True)
def nothing_left_broken(site: Site, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every case starts from a healthy site, and leaves one."""
    yield
    site.lab.heal()
    for host in site.lab.hosts:
        site.lab.kubernetes.wait_node(host, "True", 120)
        site.lab.nova.wait_service(host, "up", 120)
    _enable_all(site.lab)
    site.deployment.wait_ready()
    if request.node.stash.get(WHOLE, False):
        return
    # What a failed case left at Nova would fail all that come after it, its own second try first.
    for host in site.lab.hosts:
        site.lab.kill(f"{host}/nova-compute")
        site.lab.wait_answering(f"{host}/nova-compute")
        site.lab.nova.wait_service(host, "up", 120)
    site.lab.nova.delete(*site.servers.values())
    site.boot()


def _enable_all(lab: Lab) -> None:
    compute = lab.nova.connection().compute
    for service in compute.services(binary="nova-compute"):
        if service.status != "enabled" and not (service.disabled_reason or "").startswith("AUTO"):
            compute.enable_service(service, service.host, "nova-compute")


# That a second run changes nothing: test_roles.py.
@pytest.mark.thorough
def test_a_planned_second_deployment_changes_nothing(site):
    assert site.deployment.deploy(arguments=("--check", "--diff"))["changed"] == 0


@pytest.mark.parametrize("number", [1, 2, 3])
def test_dead_guest_runs_again_once(site, number):
    host = f"cmp0{number}"
    server = site.servers[host]
    host = site.host_of(server)
    boots = site.settled(server)
    killed = time.time()
    site.lab.kill(server)
    eviction = site.recovered(server, boots, killed)
    assert eviction["spec"]["hypervisor"] == host
    assert eviction["spec"]["cause"] == "InstanceStopped"
    assert condition(eviction)["reason"] == "Succeeded"
    (instance,) = eviction["status"]["instances"]
    assert (instance["route"], instance["phase"], instance["attempts"]) == ("Restart", "Succeeded", 1)
    assert "holder" not in eviction["status"]


@pytest.mark.thorough
def test_guest_that_dies_twice_within_a_minute_is_recovered_twice(site):
    server = site.servers["cmp01"]
    for _ in range(2):
        boots = site.settled(server)
        killed = time.time()
        site.lab.kill(server)
        site.recovered(server, boots, killed)


def test_guests_of_all_hosts_die_at_once(site):
    boots = {server: site.settled(server) for server in site.servers.values()}
    killed = time.time()
    for server in boots:
        site.lab.kill(server)
    for server, before in boots.items():
        site.recovered(server, before, killed)


def test_what_a_user_does_is_left_alone(site):
    compute = site.lab.nova.connection().compute
    server = site.servers["cmp02"]
    boots = site.settled(server)
    since = time.time()
    compute.stop_server(server)
    site.lab.nova.wait_server(server, "SHUTOFF")
    compute.start_server(server)
    site.lab.nova.wait_server(server)
    compute.reboot_server(server, "HARD")
    site.lab.nova.wait_server(server)
    site.watch.wait_boots(server, boots + 2)
    compute.suspend_server(server)
    site.lab.nova.wait_server(server, "SUSPENDED")
    compute.resume_server(server)
    site.lab.nova.wait_server(server)
    compute.live_migrate_server(server, host=None, block_migration="auto")
    site.lab.nova.wait_server(server, timeout=120)
    short = site.lab.nova.boot("ha-short", host="cmp02").id
    site.lab.nova.delete(short)
    site.watch.wait_counting(server, 3)
    assert site.boots(server) == boots + 2, "booted another number of times"
    site.expected[server] = boots + 2
    assert site.evictions(server, since) == [] and site.evictions(short, since) == []


def test_reset_is_verified_and_left_alone(site):
    server = site.servers["cmp03"]
    boots = site.settled(server)
    since = time.time()
    host = site.lab.hosts[site.host_of(server)]
    host.exec(["virsh", "-c", "qemu:///system", "reset", server], check=True, capture_output=True)
    site.watch.wait_boots(server, boots + 1)
    verified = f"c5c3.ha.domain_restart: domain {server}"
    wait_until(lambda: verified in site.deployment.logs(), 60, f"the agent says {verified!r}", 0.5)
    site.watch.wait_counting(server, 2)
    assert site.boots(server) == boots + 1 and site.evictions(server, since) == [], "booted another number of times"
    site.expected[server] = boots + 1


def test_drain_moves_running_and_stopped_and_revives_the_dead(site):
    lab, compute = site.lab, site.lab.nova.connection().compute
    host = "cmp01"
    stopped = lab.nova.boot("ha-stopped", host=host).id
    running = lab.nova.boot("ha-running", host=host).id
    site.watch.wait_counting(stopped)
    compute.stop_server(stopped)
    lab.nova.wait_server(stopped, "SHUTOFF")
    boots = {server: site.boots(server) for server in (stopped, running)}
    site.settled(running)
    began = time.time()
    body = {"hypervisor": host, "reason": "test", "cause": "Maintenance"}
    lab.kubernetes.kubectl("delete", "eviction", host, "--ignore-not-found")
    lab.kubernetes.kubectl("create", "-f", "-", stdin=json.dumps(_eviction(host, body)))
    eviction = site.timeline.wait(host, lambda seen: finished(seen) and seen.at > began, 240).object
    assert condition(eviction)["reason"] == "Succeeded", condition(eviction)
    routes = {item["id"]: item["route"] for item in eviction["status"]["instances"]}
    assert (routes[running], routes[stopped]) == ("LiveMigrate", "ColdMigrate")
    assert not list(compute.servers(all_projects=True, compute_host=host))
    assert site.host_of(running) != host and site.host_of(stopped) != host
    assert (
        site.boots(running) == boots[running] and site.boots(stopped) == boots[stopped]
    ), "booted another number of times"
    assert compute.get_server(stopped).status == "SHUTOFF"
    service = next(s for s in compute.services(binary="nova-compute") if s.host == host)
    assert (service.status, service.disabled_reason) == ("disabled", f"c5c3.ha: Eviction {host}")
    assert site.watch.two_writers() == [], "two writers"
    lab.nova.delete(stopped, running)


def test_unknown_hypervisor_is_told_and_nothing_is_touched(site):
    began = time.time()
    spec = {"hypervisor": "cmp99", "reason": "a typing error"}
    site.lab.kubernetes.kubectl("create", "-f", "-", stdin=json.dumps(_eviction("cmp99", spec)))
    eviction = site.timeline.wait("cmp99", lambda seen: finished(seen) and seen.at > began, 60).object
    assert condition(eviction)["reason"] == "Failed"
    assert "'cmp99'" in condition(eviction)["message"]
    site.lab.kubernetes.kubectl("delete", "eviction", "cmp99")


# What dies while a guest dies, and when (seconds after the guest's QEMU). The instants are drawn anew from C5C3_CHAOS_SEED.
PARTS = [
    "agent",
    "operator",
    "HOST/libvirtd",
    "kube-apiserver",
    "HOST/nova-compute",
    "nova-api",
    "rabbitmq",
    "HOST/kubelet",
]
_random = random.Random(SEED)
CHAOS = [(part, round(_random.uniform(low, high), 2)) for part in PARTS for low, high in ((0.0, 0.4), (0.4, 2.0))]


@pytest.mark.thorough
@pytest.mark.parametrize(("part", "delay"), CHAOS)
def test_guest_dies_while_a_part_is_killed(site, part, delay):
    server = site.servers["cmp02"]
    host = site.host_of(server)
    boots = site.settled(server)
    killed = time.time()
    site.lab.kill(server)
    wait_until(lambda: time.time() >= killed + delay, 5, "the instant")
    if part in ("agent", "operator"):
        site.deployment.kill(part, host if part == "agent" else None)
    else:
        site.lab.kill(part.replace("HOST", host))
    eviction = site.recovered(server, boots, killed)
    assert condition(eviction)["reason"] == "Succeeded", condition(eviction)
    if part == "rabbitmq":
        site.lab.wait_answering(part)


@pytest.mark.thorough
def test_guest_dies_while_libvirtd_is_away(site):
    server = site.servers["cmp03"]
    host = site.host_of(server)
    boots = site.settled(server)
    site.lab.kill(f"{host}/libvirtd", stay_down=True)
    killed = time.time()
    site.lab.kill(server)
    site.lab.heal(f"{host}/libvirtd")
    eviction = site.recovered(server, boots, killed)
    assert "seen at a comparison" in eviction["spec"]["reason"]


@pytest.mark.thorough
def test_guest_dies_while_the_api_server_is_away(site):
    server = site.servers["cmp01"]
    boots = site.settled(server)
    site.lab.kill("kube-apiserver", stay_down=True)
    killed = time.time()
    site.lab.kill(server)
    wait_until(lambda: time.time() > killed + 20, 60, "20 s without an API server")
    assert site.boots(server) == boots, "nobody can have acted"
    site.lab.heal("kube-apiserver")
    site.recovered(server, boots, killed)


def test_host_that_lost_its_power_gets_its_guests_back(site):
    server = site.servers["cmp01"]
    host = site.host_of(server)
    second = site.lab.nova.boot("ha-second", host=host).id
    stopped = site.lab.nova.boot("ha-off", host=host).id
    for each in (second, stopped):
        site.watch.wait_counting(each)
    site.lab.nova.connection().compute.stop_server(stopped)
    site.lab.nova.wait_server(stopped, "SHUTOFF")
    there = [each for each in site.servers.values() if site.host_of(each) == host]
    boots = {each: site.settled(each) for each in (*there, second)}
    off = site.boots(stopped)
    killed = time.time()
    site.lab.kill(host)
    site.lab.heal(host)
    for each, before in boots.items():
        site.recovered(each, before, killed, timeout=240)
    assert site.boots(stopped) == off, "what its user stopped stays stopped"
    site.lab.nova.delete(second, stopped)


# At every exchange: test_every_step.py.
@pytest.mark.thorough
def test_operator_dies_in_the_middle_of_a_drain(site):
    lab = site.lab
    host = "cmp03"
    servers = [lab.nova.boot(f"ha-drain-{number}", host=host).id for number in range(3)]
    boots = {server: site.settled(server) for server in servers}
    began = time.time()
    lab.kubernetes.kubectl("delete", "eviction", host, "--ignore-not-found")
    lab.kubernetes.kubectl(
        "create", "-f", "-", stdin=json.dumps(_eviction(host, {"hypervisor": host, "reason": "t", "cause": "Reboot"}))
    )
    for progress in (1, 2):
        site.timeline.wait(
            host, lambda seen, progress=progress: seen.at > began and _done(seen.object) >= progress - 1, 240
        )
        site.deployment.kill("operator")
        wait_until(lambda: site.deployment.daemons("operator"), 60, "another operator", 0.2)
    eviction = site.timeline.wait(host, lambda seen: finished(seen) and seen.at > began, 300).object
    assert condition(eviction)["reason"] == "Succeeded", condition(eviction)
    for server in servers:
        assert site.host_of(server) != host
        assert site.boots(server) == boots[server], "live-migrated, not restarted"
    assert site.watch.two_writers() == [], "two writers"
    lab.nova.delete(*servers)


def _done(eviction: dict) -> int:
    counts = (eviction.get("status") or {}).get("counts") or {}
    return counts.get("succeeded", 0) if counts else -1


def _eviction(name: str, spec: dict) -> dict:
    return {"apiVersion": "hypervisor.c5c3.io/v1", "kind": "Eviction", "metadata": {"name": name}, "spec": spec}


def test_no_secret_is_in_a_log_or_an_object(site):
    secret = site.lab.nova.connection().config.get_auth_args()["password"]
    if len(secret) < 8:
        pytest.skip("the lab's password is too short to be looked for")
    assert secret not in site.deployment.logs()
    everything = site.lab.kubernetes.kubectl("get", "evictions,hypervisors,configmaps,pods", "-A", "-o", "json")
    assert secret not in everything
    for daemon in site.deployment.daemons():
        with open(f"/proc/{daemon.pid}/cmdline", encoding="utf-8", errors="replace") as file:
            assert secret not in file.read()


def test_lab_error_names_what_is_there(site):
    with pytest.raises(LabError, match="no-such-part"):
        site.lab.kill("no-such-part")
