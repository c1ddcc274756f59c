"""Schedules of faults drawn from a seed: the next one comes while the one before is not over. The fault ``drawn``.

A single fault tells how long a client waits; a schedule asks whether anything that was acknowledged is lost when a member dies while
another one is still coming back. ``C5C3_STACK_DRAW`` chooses the seed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.stack import faults, hosts
from tests.stack.hosts import Host, Scenario
from tests.stack.writing import Load, Service

# what is done to a host that is well, and what heals it; a killed daemon is brought back by systemd
BREAKS = {"kill": "", "freeze": "thaw", "host_kill": "start", "partition": "heal"}
# seconds until the next step: at once, within an election, and when the others have settled
PAUSES = ((0.0, 0.3), (0.5, 3.0), (3.0, 8.0), (8.0, 20.0))
# Of three members one is the most that may be away while clients are served; now and then two are, and once in a while all.
MOST = (1, 1, 1, 2, 2, 3)
STEPS = 24


@dataclass(frozen=True)
class Step:
    """Do it to the host of that number, ``pause`` seconds after the step before."""

    pause: float
    what: str
    host: int


def draw(seed: int, members: int, kinds: tuple[str, ...], steps: int = STEPS) -> list[Step]:
    """Return a schedule after which every host is well again; the same for the same arguments.

    :param kinds: those of BREAKS that the service knows.
    """
    chance = random.Random(seed)
    broken: dict[int, str] = {}
    drawn: list[Step] = []

    def step(what: str, host: int) -> None:
        drawn.append(Step(round(chance.uniform(*chance.choice(PAUSES)), 2), what, host))

    while len(drawn) < steps:
        well = [host for host in range(members) if host not in broken]
        if well and len(broken) < chance.choice(MOST):
            host, what = chance.choice(well), chance.choice(kinds)
            step(what, host)
            if BREAKS[what]:
                broken[host] = what
        elif broken:
            host = chance.choice(sorted(broken))
            step(BREAKS[broken.pop(host)], host)
    while broken:
        host = chance.choice(sorted(broken))
        step(BREAKS[broken.pop(host)], host)
    return drawn


def act(of: Scenario, service: Service, what: str, host: Host) -> None:
    """Do one step."""
    if what == "kill":
        try:
            hosts.kill_daemon(host, service.daemon)
        except hosts.HostError:
            pass  # it is still down from the time before: dead is what was wanted
    elif what in BREAKS:
        faults.inject(of, service, what, host)
    else:
        {"thaw": hosts.thaw, "start": hosts.start, "heal": hosts.heal_partition}[what](host)


def told(steps: list[Step], names: list[str]) -> Iterator[str]:
    """Return the schedule for people: when, what, where."""
    at = 0.0
    for step in steps:
        at += step.pause
        yield f"{at:6.1f} s  {step.what} {names[step.host]}"


def run(of: Scenario, service: Service, patience: float = 300) -> faults.Result:
    """Play one schedule under load and return what it did; raise HostError when service or clients do not come back."""
    seed = int(os.environ.get("C5C3_STACK_DRAW") or 1)
    kinds = tuple(kind for kind in BREAKS if kind in service.faults)
    steps = draw(seed, len(service.members), kinds)

    def do(_load: Load) -> faults.Times:
        began = time.monotonic()
        print(f"seed {seed}:", *told(steps, [host.name for host in service.members]), sep="\n", flush=True)
        for step in steps:
            time.sleep(step.pause)  # the schedule's own time: nothing is waited for
            act(of, service, step.what, service.members[step.host])
        return faults.Times(f"seed {seed}", began, time.monotonic(), split=True)

    return faults.under_load(of, service, "drawn", do, patience)[0]
