"""A real Nova whose database, bus and token cache are on the stack: a server boots while a member of each dies.

The roles deploy Galera with its proxy, RabbitMQ and memcached on hosts; the lab's OpenStack (two hypervisors) is set as the READMEs of
these roles say under "What clients must set". Users write metadata all the time: what Nova has acknowledged is found afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from pymemcache.client.base import Client as Memcache

from tests.lab import Lab, LabError, kept_logs
from tests.lab.nova import KEYSTONE
from tests.lab.outside import Outside
from tests.stack import hosts
from tests.stack.hosts import Host, Scenario
from tests.stack.podman import podman
from tests.stack.scenario import molecule

pytestmark = [pytest.mark.timeout(1500), pytest.mark.scenario("nova")]

SEED = 80
DAEMONS = {"galera": "mariadbd", "rabbitmq": "beam.smp", "memcached": "/usr/bin/memcached"}
# What Nova and its callers may need to be served again, and a server to boot, on two busy cores.
AGAIN, BOOTED = 60.0, 120.0
# Where a boot has got to.
TELLING = ("OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-SRV-ATTR:host", "created", "updated", "fault")


class Site:
    """The hosts of the stack and the lab before them. This process stays outside of the lab's network."""

    def __init__(self, of: Scenario) -> None:
        self.of = of
        self.members = [host for host in of.hosts if "galera" in host.groups]
        self.proxy = next(host for host in of.hosts if "galera_proxy" in host.groups)
        self.ca = of.directory / "ca" / "ca.crt"
        self.lab = Lab(seed=SEED, hosts=2, parts=("nova",))

    def up(self) -> None:
        """Bring up Nova."""
        nova = self.lab.nova
        nova.outside = Outside(
            bridge=podman("network", "inspect", "--format={{.NetworkInterface}}", self.of.network).stdout.strip(),
            address=f"{self.of.subnet}.200/24",
            database=f"openstack:not-a-secret-openstack@{self.proxy.address}:3307",
            message=[f"openstack:not-a-secret-rabbit@{host.address}:5671" for host in self.members],
            memcached=[f"{host.address}:11211" for host in self.members],
            authority=self.ca,
        )
        self.lab.down()
        self.lab.up(print)

    def boot(self, name: str) -> tuple[str, float]:
        """A server that counts; its id and how long it took. Who is refused while a member changes asks again."""
        nova, began = self.lab.nova, time.monotonic()
        while True:
            try:
                server = nova.in_network(lambda: nova.boot(name, wait=False)).id
                break
            except Exception as error:  # openstacksdk has many
                if time.monotonic() - began > AGAIN:
                    raise
                print(f"{time.monotonic() - began:.1f} s: {name} is refused: {error}")
                time.sleep(0.5)
        try:
            hosts.wait(f"{name} is ACTIVE", lambda: self.status(server) == "ACTIVE", BOOTED)
        except hosts.HostError as error:
            raise hosts.HostError(f"{error}; it is {self.told(server)}") from None
        hosts.wait(f"{name} counts", lambda: self.lab.oracle.counters(server), 60)
        return server, time.monotonic() - began

    def status(self, server: str) -> str:
        """Nova's status of a server; an error ends the wait for another."""
        found = self.lab.nova.request("GET", f"/servers/{server}")["server"]
        if found["status"] == "ERROR":
            pytest.fail(f"{found['name']} is in ERROR: {found.get('fault')}")
        return found["status"]

    def told(self, server: str) -> dict[str, Any]:
        """What Nova says of a server that does not come up."""
        found = self.lab.nova.request("GET", f"/servers/{server}")["server"]
        return {name: found.get(name) for name in ("status", *TELLING)}

    def writer(self) -> Host:
        """The member to which the proxy sends all."""
        nova = self.lab.nova
        return self.of.host(nova.outside.sql(nova, "SELECT @@wsrep_node_name;").split()[-1])

    def queues(self) -> dict[str, dict[str, Any]]:
        """RabbitMQ's queues by name: type, leader."""
        for host in self.members:
            words = "timeout 20 rabbitmqctl -q list_queues name type leader --formatter=json"
            text = hosts.on(host, *words.split(), check=False)
            if text.strip().startswith("["):
                return {queue["name"]: queue for queue in json.loads(text)}
        raise hosts.HostError("no member tells of the queues")

    def connected(self) -> float:
        """For how many seconds the newest of RabbitMQ's connections has been there."""
        words = "timeout 20 rabbitmqctl -q list_connections connected_at --formatter=json"
        told = json.loads(hosts.on(self.members[0], *words.split()))
        return time.time() - max(each["connected_at"] for each in told) / 1000

    def victim(self, service: str) -> Host:
        """Whose loss hurts most."""
        if service == "galera":
            return self.writer()
        if service == "rabbitmq":
            return self.of.host(self.queues()["conductor"]["leader"].split("@")[1])
        return self.members[0]

    def whole(self) -> str:
        """What is not yet as it should be."""
        for host in self.members:
            state = "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment')"
            seen = hosts.on(host, "mariadb", "--batch", "--skip-column-names", "--execute", state, check=False).split()
            if {"3", "Synced"} - set(seen):
                return f"Galera on {host.name}: {seen}"
            text = hosts.on(host, *"timeout 20 rabbitmqctl -q cluster_status --formatter=json".split(), check=False)
            if not text.strip().startswith("{") or len(json.loads(text)["running_nodes"]) != 3:
                return f"RabbitMQ on {host.name}"
        return ""

    def cached(self) -> dict[str, int]:
        """What the memcached servers count together."""
        context = ssl.create_default_context(cafile=str(self.ca))
        counted = dict.fromkeys(("cmd_set", "get_hits", "curr_items"), 0)
        for host in self.members:
            client = Memcache((host.address, 11211), connect_timeout=5, timeout=5, tls_context=context)
            stats = client.stats()
            client.close()
            for name in counted:
                counted[name] += int(stats[name.encode()])
        return counted


class Users(threading.Thread):
    """Users who write metadata of a server, a key after the other, and note what was acknowledged."""

    def __init__(self, site: Site, server: str) -> None:
        super().__init__(daemon=True)
        self.site, self.server = site, server
        self.acknowledged: list[tuple[float, str]] = []
        self.refused: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ended.wait(0.1):
            number += 1
            key = f"key-{number}"
            try:
                body = {"meta": {key: str(number)}}
                self.site.lab.nova.request("PUT", f"/servers/{self.server}/metadata/{key}", body)
                self.acknowledged.append((time.monotonic(), key))
            except Exception as error:  # written or not: nobody knows
                self.refused.append(f"{type(error).__name__}: {error}")

    @property
    def gap(self) -> float:
        """The longest time between two acknowledgements, in seconds."""
        times = [when for when, _key in self.acknowledged]
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)

    def lost(self) -> set[str]:
        """Acknowledged keys that are not there."""
        there = self.site.lab.nova.request("GET", f"/servers/{self.server}/metadata")["metadata"]
        return {key for _when, key in self.acknowledged} - set(there)


@contextlib.contextmanager
def users(site: Site, server: str) -> Iterator[Users]:
    """Users who write meanwhile."""
    thread = Users(site, server)
    thread.start()
    try:
        yield thread
    finally:
        thread.ended.set()
        thread.join(90)


@pytest.fixture(scope="module")
def sites(request: pytest.FixtureRequest) -> Iterator[dict[Scenario, Site]]:
    """Labs that are up; down at the end, with their logs kept when a test failed."""
    there: dict[Scenario, Site] = {}
    yield there
    for site in there.values():
        if request.session.testsfailed:
            print(f"the lab's logs are in {kept_logs.keep(site.lab.directory)}")
        site.lab.down()


@pytest.fixture
def site(stack: Scenario, sites: dict[Scenario, Site]) -> Site:
    """Nova on the stack, which is whole."""
    if stack not in sites:
        site = Site(stack)
        if not all(map(hosts.alive, stack.hosts)) or site.whole():
            molecule(stack, "converge")
        site.up()
        sites[stack] = site
    hosts.wait("the stack is whole", lambda: not sites[stack].whole(), 180, 1.0)
    return sites[stack]


def test_nova_keeps_nothing_but_on_the_stack(site: Site) -> None:
    """Queues are replicated, sessions are at the writer, tokens come out of memcached."""
    server, _seconds = site.boot("first")
    assert {"mariadb", "rabbitmq"}.isdisjoint(site.lab.control.services())
    queues = site.queues()
    assert {queue["type"] for queue in queues.values()} <= {"quorum", "stream"}, queues
    assert {"conductor", "scheduler", "compute.cmp01", "compute.cmp02"} <= set(queues)
    # a broker that wants heartbeats sooner than oslo.messaging sends them cuts idle connections, again and again
    hosts.wait("each connection of the bus has stood for 30 s", lambda: site.connected() > 30, 120, 1.0)
    sessions = "SELECT DISTINCT db FROM information_schema.processlist WHERE user = 'openstack'"
    seen = hosts.on(site.writer(), "mariadb", "--batch", "--skip-column-names", "--execute", sessions).split()
    assert {"nova", "nova_api", "placement", "keystone"} <= set(seen), seen

    def validate() -> None:
        token = site.lab.nova._auth_token()
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        with urllib.request.urlopen(urllib.request.Request(f"{KEYSTONE}/auth/tokens", headers=headers)) as answer:
            assert answer.status == 200

    site.lab.nova.in_network(validate)
    before = site.cached()
    for _number in range(3):
        site.lab.nova.in_network(validate)
    after = site.cached()
    assert before["curr_items"] > 0 and after["get_hits"] >= before["get_hits"] + 3, (before, after)
    site.lab.nova.request("DELETE", f"/servers/{server}")


@pytest.mark.parametrize("death", ["kill", "host_kill"])
@pytest.mark.parametrize("service", list(DAEMONS))
def test_a_server_boots_while_a_member_dies(
    site: Site, service: str, death: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked for just after the death boots, what users wrote is there."""
    kept, _seconds = site.boot(f"{service}-{death}-before")
    victim = site.victim(service)
    with users(site, kept) as writing:
        hosts.wait("users write", lambda: len(writing.acknowledged) > 5, 60)
        if death == "kill":
            hosts.kill_daemon(victim, DAEMONS[service])
        else:
            hosts.kill_host(victim)
        try:
            server, seconds = site.boot(f"{service}-{death}")
        finally:
            if death == "host_kill":
                hosts.start(victim)
        hosts.wait("the stack is whole", lambda: not site.whole(), 180, 1.0)
        seen = len(writing.acknowledged)
        hosts.wait("users write still", lambda: len(writing.acknowledged) > seen + 5, 60)
    with capsys.disabled():
        print(
            f"\n    {service} {death} on {victim.name}: a server boots in {seconds:.1f} s, users' longest wait {writing.gap:.1f} s,"
            f" {len(writing.acknowledged)} acknowledged, {len(writing.lost())} lost, {len(writing.refused)} refused",
            flush=True,
        )
    assert not writing.lost()
    for each in (kept, server):
        assert site.status(each) == "ACTIVE"
        with contextlib.suppress(LabError):
            site.lab.nova.request("DELETE", f"/servers/{each}")
