"""The step evict on a real Nova: who is left alone, who goes first, locks, what cannot move, why no host is found.

The step runs in this process, or in one of its own that is killed: an operator is no more than who calls it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions, get_condition, hypervisors
from ansible_collections.c5c3.ha.plugins.module_utils.steps import compute_service, evict
from tests.crds import install
from tests.lab import Lab, wait_until

HOST = "cmp01"
EVICT = """
import json, sys
from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict
evict.run(json.loads(sys.stdin.read()), False)
"""


class Site:
    """The lab, and Evictions on it worked on by the step itself."""

    def __init__(self, lab: Lab, client: Client, nova: Nova) -> None:
        self.lab = lab
        self.client = client
        self.nova = nova
        self.compute = lab.nova.connection().compute
        self.auth = {"cloud": "lab", "clouds_file": str(lab.nova.clouds_yaml)}
        self.servers: list[str] = []
        self.groups: list[str] = []

    def params(self, step, **given) -> dict:
        """A step's parameters as a module would have them."""
        spec = step.ARGUMENTS["argument_spec"]
        filled = {name: copy.deepcopy(option.get("default")) for name, option in spec.items()}
        if "kubeconfig" in spec:
            filled["kubeconfig"] = str(self.lab.kubernetes.kubeconfig)
        return {**filled, **self.auth, **given}

    def boot(self, name: str, host: str = HOST, **kwargs) -> str:
        """A counting server; deleted at the end."""
        uuid = self.lab.nova.boot(name, host=host, **kwargs).id
        self.servers.append(uuid)
        return uuid

    def ask(self, **spec) -> None:
        """An Eviction of the whole host."""
        resource = evictions()
        body = resource.body(HOST, spec={"hypervisor": HOST, "reason": "test", "cause": "Maintenance", **spec})
        self.client.create(resource, body)

    def drain(self, **options) -> dict:
        """Make an Eviction of the host and work on it; its last state."""
        self.ask()
        return evict.run(self.params(evict, name=HOST, **options), False)["eviction"]

    def host_of(self, server: str) -> str:
        return self.compute.get_server(server).compute_host

    def locked(self, server: str) -> str:
        """The lock's reason; empty when there is no lock."""
        facts = self.nova.server(server)
        return facts.locked_reason or "?" if facts.locked else ""


def item(eviction: dict, server: str) -> dict:
    return next(each for each in eviction["status"]["instances"] if each["id"] == server)


@pytest.fixture(scope="module")
def lab_with_crds(lab: Lab) -> Lab:
    install(lab.kubernetes, "hypervisors", "evictions")
    return lab


@pytest.fixture
def site(lab_with_crds: Lab) -> Iterator[Site]:
    """A site with nothing on it; a healthy one is left."""
    lab = lab_with_crds
    with Client.from_params({"kubeconfig": str(lab.kubernetes.kubeconfig)}, "c5c3-ha-operator") as client:
        nova = Nova.from_params({"cloud": "lab", "clouds_file": str(lab.nova.clouds_yaml), "api_timeout": 30.0})
        site = Site(lab, client, nova)
        lab.nova.delete(*lab.nova.servers())
        client.delete(evictions(), HOST)
        _enable(site)
        yield site
        lab.heal()
        lab.nova.delete(*site.servers)
        for group in site.groups:
            site.compute.delete_server_group(group)
        client.delete(evictions(), HOST)
        client.delete(hypervisors(), HOST)
        _enable(site)


def _enable(site: Site) -> None:
    for host in site.lab.hosts:
        params = site.params(compute_service, host=host, state="enabled", forced_down=False, timeout=120.0)
        compute_service.run(params, False)
        site.lab.nova.wait_service(host, "up", 120)


def test_opted_out_stays_and_the_others_go_by_priority(site):
    lazy = site.boot("lim-lazy", metadata={"c5c3:ha": "skip"})
    servers = [
        site.boot(f"lim-{number}", metadata={"c5c3:ha_priority": str(priority)})
        for number, priority in enumerate((1, 9, 5))
    ]
    eviction = site.drain(max_parallel=1)
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded"
    assert item(eviction, lazy)["phase"] == "Skipped" and "c5c3:ha=skip" in item(eviction, lazy)["message"]
    assert "c5c3:ha=skip" in get_condition(eviction, "Evicting")["message"]
    assert site.host_of(lazy) == HOST and all(site.host_of(server) != HOST for server in servers)
    begun = sorted(servers, key=lambda server: item(eviction, server)["attemptedAt"])
    assert begun == [servers[1], servers[2], servers[0]]


def test_images_wishes_count_and_masakaris_key_does_when_asked_for(site):
    images = site.lab.nova.connection().image
    tick = next(image for image in images.images() if image.name == "tick")
    out = site.boot("lim-ha-enabled", metadata={"HA_Enabled": "False"})
    plain = site.boot("lim-plain")
    images.put(f"/images/{tick.id}/tags/c5c3_ha=skip").raise_for_status()
    try:
        eviction = site.drain(selection_key="HA_Enabled")
    finally:
        images.delete(f"/images/{tick.id}/tags/c5c3_ha=skip").raise_for_status()
    assert "image's tag c5c3_ha=skip" in item(eviction, plain)["message"]
    assert "HA_Enabled=False" in item(eviction, out)["message"], "metadata is nearer than the image"
    assert [item(eviction, server)["phase"] for server in (out, plain)] == ["Skipped", "Skipped"]


def test_passed_through_device_is_skipped_with_what_helps(site):
    flavor = site.compute.create_flavor(name="lim-pci", ram=16, vcpus=1, disk=0)
    site.compute.create_flavor_extra_specs(flavor, {"hw:mem_encryption": "false", "c5c3:ha_priority": "3"})
    site.lab.nova.__dict__.pop("_ids", None)
    try:
        # What a flavor of a real GPU would say, said after the boot: the lab has none to pass through.
        server = site.boot("lim-gpu", flavor="lim-pci")
        facts = site.nova.server(server)
        assert facts.extra_specs == {"hw:mem_encryption": "false", "c5c3:ha_priority": "3"}
    finally:
        site.compute.delete_flavor(flavor)
        site.lab.nova.__dict__.pop("_ids", None)
    site.lab.nova._sql(
        "UPDATE nova.instance_extra SET flavor = REPLACE(flavor, 'hw:mem_encryption', 'pci_passthrough:alias')"
        f" WHERE instance_uuid = '{server}';"
    )
    eviction = site.drain()
    told = item(eviction, server)
    assert told["phase"] == "Skipped" and "PCI" in told["message"] and "openstack server stop" in told["message"]
    assert site.host_of(server) == HOST and not site.nova.migrations(server=server)


def test_lock_is_seen_while_a_server_moves_and_is_gone_after(site):
    server, other = site.boot("lim-lock"), site.boot("lim-locked-by-user")
    site.compute.post(f"/servers/{other}/action", json={"lock": {"locked_reason": "mine"}}).raise_for_status()
    seen: set[str] = set()
    done = threading.Event()

    def watch():
        while not done.is_set():
            seen.add(site.locked(server))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            eviction = site.drain()
        finally:
            done.set()
        watching.result()
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    assert f"c5c3.ha: being moved by Eviction {HOST}" in seen
    assert site.locked(server) == "" and site.locked(other) == "mine"
    assert site.host_of(other) != HOST, "an administrator moves a locked server, and leaves the lock"


@pytest.mark.thorough
@pytest.mark.parametrize("after", ["locked", "moving", "away"])
def test_lock_is_given_back_after_the_operator_was_killed(site, after):
    """kill -9 of who works on the Eviction, at three moments; the next one finds the lock by its reason."""
    server = site.boot("lim-killed")
    site.ask()
    params = json.dumps(site.params(evict, name=HOST, claim_ttl=2.0))
    process = subprocess.Popen([sys.executable, "-c", EVICT], stdin=subprocess.PIPE, text=True, env=os.environ)
    process.stdin.write(params)
    process.stdin.close()

    def reached():
        facts = site.nova.server(server)
        if after == "locked":
            return facts.locked
        return facts.task_state == "migrating" if after == "moving" else facts.host != HOST

    try:
        wait_until(reached, 60, f"the server is {after}", 0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    eviction = evict.run(site.params(evict, name=HOST, claim_ttl=2.0), False)["eviction"]
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    assert site.locked(server) == "" and site.host_of(server) != HOST


def test_anti_affinity_is_explained(site):
    group = site.compute.create_server_group(name="lim-apart", policy="anti-affinity")
    site.groups.append(group.id)
    names = {host: f"lim-apart-{host}" for host in site.lab.hosts}
    # A host that is asked for by name still has to fit the group.
    servers = {host: site.boot(name, host, scheduler_hints={"group": group.id}) for host, name in names.items()}
    eviction = site.drain(move_attempts=1)
    told = item(eviction, servers[HOST])
    assert told["phase"] == "Failed"
    assert "server group lim-apart (anti-affinity)" in told["message"], told
    assert "cmp02 has lim-apart-cmp02" in told["message"] and "add or enable a hypervisor" in told["message"]
    assert "lim-apart" in get_condition(eviction, "Evicting")["message"]
    assert site.locked(servers[HOST]) == "" and site.host_of(servers[HOST]) == HOST


def test_no_valid_host_is_explained_for_a_stopped_one_too(site):
    group = site.compute.create_server_group(name="lim-together", policy="affinity")
    site.groups.append(group.id)
    first = site.boot("lim-one", scheduler_hints={"group": group.id})
    second = site.boot("lim-two", scheduler_hints={"group": group.id})
    site.compute.stop_server(first)
    site.lab.nova.wait_server(first, "SHUTOFF")
    eviction = site.drain(move_attempts=1)
    for server in (first, second):
        told = item(eviction, server)
        assert told["phase"] == "Failed" and "server group lim-together (affinity) holds it to cmp01" in told["message"]
        assert site.locked(server) == ""


def test_host_whose_servers_fit_nowhere_is_not_begun(site):
    room = site.nova.free_room()
    assert set(site.lab.hosts) <= set(room)
    server = site.boot("lim-huge")
    # As if it were huge: no guest of that size is started on one machine.
    huge = max(ram_mb for _vcpus, ram_mb in room.values()) + 1
    site.lab.nova._sql(
        f"UPDATE nova.instance_extra SET flavor = REPLACE(flavor, '\"memory_mb\": 16', '\"memory_mb\": {huge}')"
        f" WHERE instance_uuid = '{server}';"
    )
    assert site.nova.server(server).ram_mb == huge
    eviction = site.drain(timeout=3.0)
    preflight = get_condition(eviction, "PreflightChecksSucceeded")
    assert (preflight["status"], preflight["reason"]) == ("False", "NoCapacity"), preflight
    assert "lim-huge" in preflight["message"] and site.host_of(server) == HOST
    assert site.nova.service(HOST).enabled, "nothing is done before it is known to help"


def test_no_more_than_the_limit_in_the_whole_cloud(site):
    servers = [site.boot(f"lim-cloud-{number}") for number in range(4)]
    most, done = [0], threading.Event()

    def watch():
        while not done.is_set():
            most[0] = max(most[0], len(site.nova.moves_under_way()))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            eviction = site.drain(max_parallel=4, max_per_cluster=2)
        finally:
            done.set()
        watching.result()
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    assert 1 <= most[0] <= 2 and all(site.host_of(server) != HOST for server in servers)


def test_what_is_about_to_arrive_is_moved_on(site):
    """A migration to the host is under way when its Eviction is made: nothing is left on it at the end."""
    server = site.boot("lim-arriving", host="cmp02")
    wait_until(lambda: site.lab.oracle.counters(server), 30, "the guest counts", 0.1)
    site.nova.live_migrate(server, HOST)
    eviction = site.drain()
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    assert site.host_of(server) != HOST and not site.nova.servers_on(HOST)
    site.lab.nova.wait_server(server)


def test_a_nova_compute_that_hangs_is_told_with_what_ends_it(site):
    """It is up for Nova and does nothing, for ever; once somebody has restarted it the guest runs again, once."""
    server = site.boot("lim-hung")
    boots = wait_until(lambda: site.lab.oracle.counters(server), 30, "the guest counts", 0.1).boots
    site.lab.nova.hang(HOST)
    site.lab.kill(server)
    resource = evictions()
    spec = {"hypervisor": HOST, "reason": "test", "cause": "InstanceStopped", "instances": [server]}
    site.client.create(resource, resource.body(server, spec=spec))
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(evict.run, site.params(evict, name=server, timeout=300.0, api_timeout=10.0), False)
        try:

            def told() -> bool:
                status = (site.client.get(resource, server) or {}).get("status") or {}
                (instance,) = status.get("instances") or [{}]
                return "restart it there if it hangs" in instance.get("message", "")

            wait_until(told, 150, "the Eviction says what helps", 0.5)
            assert site.nova.service(HOST).up, "a hang that Nova sees by itself is another test"
        finally:
            site.lab.kill(f"{HOST}/nova-compute")
        eviction = working.result()["eviction"]
    try:
        assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
        site.lab.nova.wait_server(server)
        after = wait_until(
            lambda: (found := site.lab.oracle.counters(server)) and found.boots > boots and found,
            60,
            "it runs again",
            0.1,
        )
        assert after.boots == boots + 1, "booted more than once"
    finally:
        site.client.delete(resource, server)


@contextlib.contextmanager
def slow_migrations(lab: Lab, host: str) -> Iterator[None]:
    """What QEMU sends from a host is policed to nearly nothing; libvirt and Nova talk as before."""
    rules = "chain output { type filter hook output priority -300; tcp dport 49152-49215 limit rate over 20 kbytes/second drop; }"
    lab.hosts[host].network_exec(
        ["nft", "-f", "-"], input=f"table inet c5c3_slow {{ {rules}; }}", text=True, check=True
    )
    try:
        yield
    finally:
        lab.hosts[host].network_exec(["nft", "delete", "table", "inet", "c5c3_slow"], check=True)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_live_migration_that_gets_stuck_is_aborted_tried_again_and_given_up(site):
    """The others go on; the guest that could not move runs on, and moves once the network lets it."""
    stuck, stopped = site.boot("lim-stuck"), site.boot("lim-stopped")
    boots = wait_until(lambda: site.lab.oracle.counters(stuck), 30, "the guest counts", 0.1).boots
    site.compute.stop_server(stopped)
    site.lab.nova.wait_server(stopped, "SHUTOFF")
    with slow_migrations(site.lab, HOST):
        eviction = site.drain(attempt_timeout=20.0, move_attempts=2, backoff=1.0, timeout=300.0)
        site.lab.nova.wait_server(stuck)  # and not in ERROR, where Nova 34 puts what it aborts
    assert get_condition(eviction, "Evicting")["reason"] == "Failed", eviction["status"]
    entry = item(eviction, stuck)
    assert (entry["phase"], entry["attempts"]) == ("Failed", 2)
    assert "move 2 failed: live migration over 20 s: aborted" in entry["message"], entry
    assert item(eviction, stopped)["phase"] == "Succeeded" and site.host_of(stopped) != HOST
    records = list(site.nova.migrations(server=stuck))
    assert len(records) == 2 and {record.status for record in records} <= {"cancelled", "error"}, records
    assert site.host_of(stuck) == HOST and site.locked(stuck) == ""
    site.lab.nova.wait_server(stuck)
    assert site.lab.oracle.counters(stuck).boots == boots and len(site.lab.nova.guest_processes(stuck)) == 1
    site.client.delete(evictions(), HOST)
    eviction = site.drain()
    assert get_condition(eviction, "Evicting")["reason"] == "Succeeded", eviction["status"]
    assert site.host_of(stuck) != HOST and site.lab.oracle.counters(stuck).boots == boots


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_guest_that_was_to_arrive_and_got_stuck_is_left_active_where_it_runs(site):
    """Its own host is none of the Eviction's, so nobody else would take it out of the ERROR that Nova's abort leaves."""
    server = site.boot("lim-stuck-arriving", host="cmp02")
    boots = wait_until(lambda: site.lab.oracle.counters(server), 30, "the guest counts", 0.1).boots
    with slow_migrations(site.lab, "cmp02"):
        site.nova.live_migrate(server, HOST)
        wait_until(
            lambda: [each.status for each in site.nova.migrations(server=server)] == ["running"], 60, "it copies"
        )
        made = site.drain(attempt_timeout=10.0, timeout=120.0)
        assert get_condition(made, "Evicting")["reason"] == "Succeeded", made["status"]
        assert [each.status for each in site.nova.migrations(server=server)] in (["cancelled"], ["error"])
        after = site.nova.server(server)
        assert (after.vm_state, after.host, after.task_state) == ("active", "cmp02", None)
    assert site.lab.oracle.counters(server).boots == boots and len(site.lab.nova.guest_processes(server)) == 1


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_what_is_not_done_at_the_deadline_is_told(site):
    """The migration that is under way then is neither forgotten nor left running behind anybody's back."""
    server = site.boot("lim-late")
    wait_until(lambda: site.lab.oracle.counters(server), 30, "the guest counts", 0.1)
    with slow_migrations(site.lab, HOST):
        eviction = site.drain(deadline=15.0, timeout=120.0)
        assert get_condition(eviction, "Evicting")["reason"] == "Failed", eviction["status"]
        assert "not done within 15 s" in item(eviction, server)["message"], eviction["status"]
        assert site.locked(server) == ""
    site.lab.nova.wait_server(server)
    assert len(site.lab.nova.guest_processes(server)) == 1
