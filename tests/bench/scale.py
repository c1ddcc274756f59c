"""Many servers on five hypervisors whose guests are files.

Real Nova, real Kubernetes; only the guests are not (tests/lab/openstack/virt/ha_fake.py). One host is emptied by the step
evict while one migration hangs and is aborted, and the requests that the step makes are counted.
"""

from __future__ import annotations

import collections
import copy
import json
import os
import resource as limits
import time
from collections.abc import Callable

from tests.bench.figures import Figure
from tests.crds import install
from tests.lab import Lab, LabError

HOSTS = 5
SERVERS = 200


class Scale:
    """The measurement on one lab."""

    def __init__(self, lab: Lab, count: int, say: Callable[[str], None]) -> None:
        from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
        from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova

        self.lab = lab
        self.count = count
        self.say = say
        self.cloud = {"cloud": "lab", "clouds_file": str(lab.nova.clouds_yaml)}
        self.nova = Nova.from_params({**self.cloud, "api_timeout": 120.0})
        self.client = Client.from_params({"kubeconfig": str(lab.kubernetes.kubeconfig)}, "c5c3-ha-bench")
        self.source = next(iter(lab.hosts))

    def boot(self) -> float:
        """Boot all servers, the same number on each host; seconds until the last is ACTIVE."""
        began = time.monotonic()
        for host in self.lab.hosts:
            self.lab.nova.boot_many("scale", host, self.count // len(self.lab.hosts), timeout=600)
            self.say(f"{host} has its servers after {time.monotonic() - began:.0f} s")
        return time.monotonic() - began

    def drain(self, **options: object) -> tuple[float, dict, collections.Counter]:
        """Empty the first host; seconds, the Eviction and the requests to Nova."""
        from ansible_collections.c5c3.ha.plugins.module_utils import nova
        from ansible_collections.c5c3.ha.plugins.module_utils.resources import evictions
        from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict

        kind = evictions()
        self.client.delete(kind, self.source)
        self.client.create(kind, kind.body(self.source, spec={"hypervisor": self.source, "reason": "bench"}))
        params = {name: copy.deepcopy(v.get("default")) for name, v in evict.ARGUMENTS["argument_spec"].items()}
        params.update(self.cloud, name=self.source, kubeconfig=str(self.lab.kubernetes.kubeconfig), timeout=3000.0)
        params.update(options)
        counted: collections.Counter = collections.Counter()
        original = nova.Nova._request

        def count(self, method, path, *args, **kwargs):
            counted[f"{method} {path.split('/')[1]}{'/*' if path.count('/') > 1 else ''}"] += 1
            return original(self, method, path, *args, **kwargs)

        nova.Nova._request = count  # type: ignore[method-assign]
        began = time.monotonic()
        try:
            done = evict.run(params, False)
        finally:
            nova.Nova._request = original  # type: ignore[method-assign]
        return time.monotonic() - began, done["eviction"], counted


def figures(seed: int, say: Callable[[str], None]) -> list[Figure]:
    """For the table of make bench, on a lab of five hosts with Nova's fake driver.

    :raises LabError: when a server is lost, doubled or left behind.
    """
    lab = Lab(seed=seed, hosts=HOSTS, computes="fake")
    Lab.saved(seed).down()
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        lab.up(say)
        lab.enter()
        install(lab.kubernetes, "hypervisors", "evictions")
        scale = Scale(lab, SERVERS, say)
        booted = scale.boot()
        say(f"{SERVERS} servers are ACTIVE on {HOSTS} hosts after {booted:.1f} s")
        before = len(scale.nova.servers_on(scale.source))
        seconds, eviction, requests = scale.drain(max_parallel=4)
        say(f"{before} servers of {scale.source} moved in {seconds:.1f} s: {eviction['status']['counts']}; {requests}")
        left = scale.nova.servers_on(scale.source)
        where = collections.Counter(guest.server for guest in lab.oracle.guests())
        doubled = [server for server, times in where.items() if times > 1]
        if left or doubled or len(where) != SERVERS:
            raise LabError(
                f"{len(left)} are left behind, {len(doubled)} doubled, {len(where)} of {SERVERS} there: none may be"
            )
        hang(scale, say)
        name = f"drain of {before} of {SERVERS} servers"
        return [
            Figure(name, [seconds]),
            Figure(f"{name}: requests to Nova a server", [sum(requests.values()) / before], ""),
            Figure(f"{name}: size of the Eviction", [len(json.dumps(eviction)) / 1024], "KiB", wanted=256),
            Figure(f"{name}: most memory", [limits.getrusage(limits.RUSAGE_SELF).ru_maxrss / 1024], "MB"),
        ]
    finally:
        lab.leave(outside)
        os.close(outside)
        lab.down()


def hang(scale: Scale, say: Callable[[str], None]) -> None:
    """A live migration that hangs is aborted, tried again, and given up; the others go on."""
    for service in scale.nova.services():
        scale.nova.update_service(service.id, status="enabled")
    stuck, stopped = (scale.lab.nova.boot(f"scale-{name}", host=scale.source).id for name in ("stuck", "stopped"))
    scale.lab.nova.connection().compute.stop_server(stopped)
    scale.lab.nova.wait_server(stopped, "SHUTOFF")
    scale.lab.nova.hypervisors.fault(scale.source, live_migration="hang")
    seconds, eviction, _requests = scale.drain(attempt_timeout=5.0, move_attempts=2, backoff=1.0)
    scale.lab.nova.hypervisors.fault(scale.source)
    told = {item["id"]: item for item in eviction["status"]["instances"]}
    say(f"a hanging migration given up after {seconds:.1f} s: {told[stuck]['phase']}, {told[stuck]['message']}")
    facts = scale.nova.server(stuck)
    good = (
        told[stuck]["phase"] == "Failed"
        and told[stuck]["attempts"] == 2
        and told[stopped]["phase"] == "Succeeded"
        and facts is not None
        and (facts.status, facts.host, facts.locked) == ("ACTIVE", scale.source, False)
    )
    if not good:
        raise LabError(f"after a migration that hangs it is not as it should be: {told}, {facts}")
