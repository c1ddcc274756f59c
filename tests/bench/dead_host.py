"""A host dies under the deployed operator: when it decides, when the host is proven off, when its servers live elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests import fenced
from tests.bench.evacuation import NAME, all_active
from tests.bench.figures import Figure
from tests.deployment import Deployment
from tests.lab import LabError
from tests.timeline import Timeline, finished, moment

if TYPE_CHECKING:
    from tests.bench.site import Site

SERVERS, ROUNDS = 5, 3


def figures(site: Site) -> list[Figure]:
    """For the table of make bench."""
    lab = site.lab
    deployment = fenced.deployed(lab, operators=1)
    decided, proven, active, back = [], [], [], []
    try:
        fenced.fence_all(lab)
        with lab.oracle.watch(interval=0.2) as watch, Timeline(lab) as timeline:
            for _ in range(ROUNDS):
                # With its operator a site has to wait for the standby first: that is another figure (test_operators).
                host = next(name for name in lab.hosts if name not in _operators(deployment))
                servers = {lab.nova.boot(NAME, host=host).id for _ in range(SERVERS)}
                for server in servers:
                    watch.wait_counting(server, 1)
                killed = time.time()
                lab.kill(host)
                made = timeline.wait(host, lambda seen, since=killed: seen.type == "ADDED" and seen.at > since, 180)
                due = moment(made.object["spec"]["occurredAt"]) + fenced.UNREACHABLE_SECONDS
                off = timeline.wait(host, lambda seen, since=killed: _off(seen) > since, 120)
                end = all_active(lab, servers, host)
                done = timeline.wait(host, lambda seen, since=killed: finished(seen) and seen.at > since, 120)
                decided.append(made.at - due)
                proven.append(_off(off) - made.at)
                active.append(end - _off(off))
                site.say(
                    f"{host}: decided {decided[-1]:.2f} s after its time, off {proven[-1]:.2f} s later,"
                    f" {SERVERS} ACTIVE {active[-1]:.2f} s later"
                )
                for entry in done.object["status"]["instances"]:
                    if entry["attempts"] != 1 or entry["phase"] != "Succeeded":
                        site.say(f"  {entry['phase']} after {entry['attempts']} attempts: {entry.get('message')}")
                if watch.two_writers():
                    raise LabError(f"two writers were seen: {watch.two_writers()}")
                lab.heal(host)
                lab.kubernetes.wait_node(host, "True", 120)
                back.append(fenced.wait_returned(lab, host))
                lab.kubernetes.kubectl("delete", "eviction", host)
                lab.nova.delete(*servers, timeout=120)
    finally:
        lab.heal()
        site.deployment.deploy()
        site.deployment.wait_ready()
    return [
        Figure("dead host: decision after its time was over", decided, wanted=1),
        Figure("dead host: decision to proven off", proven),
        Figure(f"dead host: proven off to the last of {SERVERS} ACTIVE", active),
        Figure("dead host: Node Ready again to host in service", back),
    ]


def _operators(deployment: Deployment) -> set[str]:
    return {daemon.host for daemon in deployment.daemons("operator")}


def _off(seen) -> float:
    """When the host was proven off; 0 when it was not."""
    return moment(((seen.object.get("status") or {}).get("fencing") or {}).get("provenAt"))
