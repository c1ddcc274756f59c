"""The servers of a dead host live again.

From the proof that the host is off to the last server ACTIVE elsewhere, by the step evict; beside it, in the same run and in
turns, Nova alone: the host forced down by hand and all evacuations sent at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import seconds
from tests import evictor
from tests.bench.figures import Figure
from tests.lab import Lab, LabError, wait_until

if TYPE_CHECKING:
    from tests.bench.site import Site

HOST, NAME = "cmp01", "bench-evacuation"
WANTED_RATIO = 1.3
SERVERS, ROUNDS = 20, 3


def evacuation(lab: Lab, servers: int, rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of each round, ``ours`` and ``nova``. No operator may be at work on Evictions meanwhile."""
    taken: dict[str, list[float]] = {"ours": [], "nova": []}
    evictor.prepare(lab)
    try:
        for number in range(rounds):
            # Not always the same one first: the machine is warmer for the second.
            for kind in ("ours", "nova") if number % 2 == 0 else ("nova", "ours"):
                taken[kind].append(_round(lab, kind, servers))
                say(f"evacuation {number + 1} of {rounds}, {kind}: {servers} ACTIVE after {taken[kind][-1]:.2f} s")
    finally:
        lab.kubernetes.kubectl("delete", "evictions,hypervisors", "--all")
    return taken


def _round(lab: Lab, kind: str, count: int) -> float:
    servers = lab.nova.boot_many(NAME, HOST, count, timeout=180)
    for server in servers:
        wait_until(lambda server=server: lab.oracle.counters(server), 120, "the guest counts", 0.2)
    with lab.oracle.watch(interval=0.2) as watch:
        lab.kill(HOST)
        evictor.wait_unheard(lab, HOST)
        taken = _ours(lab, servers) if kind == "ours" else _bare(lab, servers)
        if watch.two_writers():
            raise LabError(f"two writers were seen: {watch.two_writers()}")
    lab.nova.delete(*servers, timeout=120)
    lab.heal(HOST)
    lab.kubernetes.wait_node(HOST, "True", 120)
    evictor.back(lab, HOST)
    return taken


def _servers(lab: Lab, query: str) -> dict[str, tuple[str, str, str | None]]:
    listed = lab.nova.request("GET", f"/servers/detail?all_tenants=1&{query}")["servers"]
    return {
        each["id"]: (each["status"], each["OS-EXT-SRV-ATTR:host"], each["OS-EXT-STS:task_state"]) for each in listed
    }


def all_active(lab: Lab, servers: set[str], dead: str = HOST) -> float:
    """Wait until all are ACTIVE elsewhere; the moment of it."""

    def moved() -> bool:
        found = _servers(lab, f"name={NAME}")
        return all(found[server][0] == "ACTIVE" and found[server][1] != dead for server in servers)

    # Not more often: each question slows what is measured.
    wait_until(moved, 300, f"{len(servers)} servers are ACTIVE elsewhere", 0.5)
    return time.time()


def _ours(lab: Lab, servers: set[str]) -> float:
    evictor.make_eviction(lab, HOST)
    step = evictor.start(lab, HOST)
    try:
        wait_until(lambda: _proven(lab), 120, f"{HOST} is proven off", 0.1)
        end = all_active(lab, servers)
        step.wait(120)
        # The first proof; a later one would flatter us.
        began = min(_transition(lab), _proven(lab) or end)
    finally:
        step.kill()
        step.wait()
    lab.kubernetes.kubectl("delete", "eviction", HOST)
    return end - began


def _proven(lab: Lab) -> float | None:
    return seconds(((evictor.eviction(lab, HOST).get("status") or {}).get("fencing") or {}).get("provenAt"))


def _transition(lab: Lab) -> float:
    conditions = evictor.eviction(lab, HOST)["status"]["conditions"]
    return next(seconds(each["lastTransitionTime"]) or 0.0 for each in conditions if each["type"] == "Fenced")


def _bare(lab: Lab, servers: set[str]) -> float:
    began = time.time()
    lab.nova.force_down(HOST)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lab.nova.evacuate, servers))
    return all_active(lab, servers) - began


def figures(site: Site) -> list[Figure]:
    """For the table of make bench."""
    site.deployment_scaled(0)
    try:
        taken = evacuation(site.lab, SERVERS, ROUNDS, site.say)
    finally:
        site.deployment_scaled(1)
    name = f"host proven off to the last of {SERVERS} ACTIVE"
    ratio = statistics.median(taken["ours"]) / statistics.median(taken["nova"])
    return [
        Figure(name, taken["ours"], limit=taken["nova"], limit_name="Nova alone"),
        Figure(f"{name}: beside Nova alone", [ratio], "times", wanted=WANTED_RATIO),
    ]
