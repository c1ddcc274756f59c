"""A host with running servers is emptied, in three ways.

Ours, by the step evict; upstream's (openstack-hypervisor-operator, eviction_controller.go): one server after the other,
looked at every 10 s; and the same looked at every second, so that it is seen what the order costs and what the pauses do.
The same servers go to and fro between two hosts of one lab in one run, and every guest counts on all the while.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.bench.figures import Figure
from tests.crds import install
from tests.lab import Lab, LabError, wait_until

if TYPE_CHECKING:
    from tests.bench.site import Site

# What upstream's controller waits: defaultPollTime after a migration was begun, shortRetryTime after a server is done.
UPSTREAM_POLL, UPSTREAM_RETRY = 10.0, 1.0
WANTED_FACTOR = 2.0
SERVERS = 20


class Drain:
    """The measurement on one lab.

    :param say: called with progress.
    """

    def __init__(self, lab: Lab, count: int, say: Callable[[str], None] = print) -> None:
        from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
        from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova

        self.lab = lab
        self.count = count
        self.say = say
        self.cloud = {"cloud": "lab", "clouds_file": str(lab.nova.clouds_yaml)}
        self.nova = Nova.from_params({**self.cloud, "api_timeout": 60.0})
        self.client = Client.from_params({"kubeconfig": str(lab.kubernetes.kubeconfig)}, "c5c3-ha-bench")
        self.first, self.second = list(lab.hosts)[:2]
        self.servers: list[str] = []

    def run(self) -> dict[str, float]:
        """Seconds of each way: ours, upstream, and serial (upstream's order without its long pauses)."""
        self._prepare()
        ways: list[tuple[str, Callable[[str], None]]] = [
            ("ours", self._ours),
            ("upstream", lambda host: self._serial(host, UPSTREAM_POLL)),
            ("serial", lambda host: self._serial(host, UPSTREAM_RETRY)),
        ]
        seconds = {}
        source, target = self.first, self.second
        try:
            with self.lab.oracle.watch(interval=0.2) as watch:
                for name, way in ways:
                    self._only(target)
                    boots = {server: self.lab.oracle.counters(server).boots for server in self.servers}
                    began = time.monotonic()
                    way(source)
                    seconds[name] = time.monotonic() - began
                    left = self.nova.servers_on(source)
                    if left:
                        raise LabError(f"{name}: {len(left)} servers are still on {source}")
                    for server, before in boots.items():
                        watch.wait_counting(server, 1)
                        if self.lab.oracle.counters(server).boots != before:
                            raise LabError(f"{name}: {server} was restarted")
                    self.say(
                        f"{name}: {source} with {len(self.servers)} running servers emptied in {seconds[name]:.1f} s"
                    )
                    source, target = target, source
                if watch.two_writers():
                    raise LabError(f"two writers were seen: {watch.two_writers()}")
        finally:
            self._clean()
        return seconds

    def _prepare(self) -> None:
        install(self.lab.kubernetes, "hypervisors", "evictions")
        self._only(*self.lab.hosts)
        began = time.monotonic()
        boots = [self.lab.nova.boot(f"drain-{n}", host=self.first, wait=False).id for n in range(self.count)]
        self.servers = boots
        for server in boots:
            self.lab.nova.wait_server(server, timeout=300)
            wait_until(lambda server=server: self.lab.oracle.counters(server), 120, "the guest counts", 0.1)
        self.say(f"{self.count} servers run on {self.first} after {time.monotonic() - began:.1f} s")

    def _clean(self) -> None:
        from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions

        self.lab.nova.delete(*self.servers, timeout=300)
        for host in (self.first, self.second):
            self.client.delete(evictions(), host)
        self._only(*self.lab.hosts)

    def _only(self, *enabled: str) -> None:
        """Enable these hosts and the one that is about to be emptied, disable the rest."""
        for service in self.nova.services():
            status = "enabled" if service.host in enabled or service.host in (self.first, self.second) else "disabled"
            self.nova.update_service(service.id, status=status)

    def _ours(self, host: str) -> None:
        from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions, get_condition
        from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict

        resource = evictions()
        self.client.create(resource, resource.body(host, spec={"hypervisor": host, "reason": "bench"}))
        params = {name: copy.deepcopy(v.get("default")) for name, v in evict.ARGUMENTS["argument_spec"].items()}
        params.update(self.cloud, name=host, kubeconfig=str(self.lab.kubernetes.kubeconfig), timeout=900.0)
        done = evict.run(params, False)
        if (get_condition(done["eviction"], "Evicting") or {}).get("reason") != "Succeeded":
            raise LabError(f"ours: {done['msg']}")

    def _serial(self, host: str, pause: float) -> None:
        service = self.nova.service(host)
        self.nova.update_service(service.id, status="disabled", disabled_reason="bench")
        outstanding = [server.id for server in self.nova.servers_on(host)]
        while outstanding:
            server = self.nova.server(outstanding[-1])
            if server is None or (server.host != host and not server.task_state):
                outstanding.pop()
                time.sleep(UPSTREAM_RETRY)
            elif server.status == "ERROR":
                raise LabError(f"serial: {server.id} is in ERROR: {server.fault}")
            elif server.task_state:
                time.sleep(pause)
            else:
                self.nova.live_migrate(server.id)
                time.sleep(pause)


def figures(site: Site) -> list[Figure]:
    """For the table of make bench."""
    site.deployment_scaled(0)
    try:
        seconds = Drain(site.lab, SERVERS, site.say).run()
    finally:
        site.deployment_scaled(1)
    ours, upstream = seconds["ours"], seconds["upstream"]
    name = f"drain of {SERVERS} running servers"
    return [
        Figure(name, [ours], limit=[upstream], limit_name="upstream's serial way"),
        Figure(f"{name}: share of upstream's", [ours / upstream], "of 1", wanted=1 / WANTED_FACTOR),
        Figure(
            f"{name}: beside its order", [ours], limit=[seconds["serial"]], limit_name="serial, looked at every second"
        ),
    ]
