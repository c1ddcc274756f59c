"""Schedules of faults drawn from a seed: the next one comes while the one before is not over. The fault ``drawn``.

A single fault tells how long a client waits; a schedule asks whether anything that was acknowledged is lost when a member dies while
another one is still coming back. ``C5C3_STACK_DRAW`` chooses the seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.stack import faults, hosts
from tests.stack.hosts import Scenario
from tests.stack.writing import Load, Service

# faults that one host can have; a killed daemon is brought back by systemd, the others last until they are healed
KINDS = ("kill", "freeze", "host_kill", "partition")
# seconds until the next step: at once, within an election, and when the others have settled
PAUSES = ((0.0, 0.3), (0.5, 3.0), (3.0, 8.0), (8.0, 20.0))
# Of three members one is the most that may be away while clients are served; now and then two are, and once in a while all.
MOST = (1, 1, 1, 2, 2, 3)
STEPS = 24


@dataclass(frozen=True)
class Step:
    """Break the host of that number, or heal it, ``pause`` seconds after the step before."""

    pause: float
    fault: str
    host: int
    heals: bool = False


def draw(seed: int, members: int, kinds: tuple[str, ...], steps: int = STEPS) -> list[Step]:
    """Return a schedule after which every host is well again; the same for the same arguments.

    :param kinds: those of KINDS that the service knows.
    """
    chance = random.Random(seed)
    broken: dict[int, str] = {}
    drawn: list[Step] = []

    def step(fault: str, host: int, heals: bool = False) -> None:
        drawn.append(Step(round(chance.uniform(*chance.choice(PAUSES)), 2), fault, host, heals))

    def heal() -> None:
        host = chance.choice(sorted(broken))
        step(broken.pop(host), host, True)

    while len(drawn) < steps:
        well = [host for host in range(members) if host not in broken]
        if well and len(broken) < chance.choice(MOST):
            host, fault = chance.choice(well), chance.choice(kinds)
            step(fault, host)
            if fault != "kill":
                broken[host] = fault
        elif broken:
            heal()
    while broken:
        heal()
    return drawn


def act(of: Scenario, service: Service, step: Step) -> None:
    """Do one step."""
    host = service.breakable()[step.host]
    if step.heals:
        faults.heal(of, service, step.fault, host, lambda: None)
    elif step.fault == "kill":
        with contextlib.suppress(hosts.HostError):  # still down from the time before: dead is what was wanted
            faults.inject(of, service, step.fault, host)
    else:
        faults.inject(of, service, step.fault, host)


def told(steps: list[Step], names: list[str]) -> Iterator[str]:
    """Return the schedule for people: when, what, where."""
    at = 0.0
    for step in steps:
        at += step.pause
        yield f"{at:6.1f} s  {'heal of ' if step.heals else ''}{step.fault} {names[step.host]}"


def run(of: Scenario, service: Service, patience: float = 300) -> faults.Result:
    """Play one schedule under load and return what it did; raise HostError when service or clients do not come back."""
    given = os.environ.get("C5C3_STACK_DRAW") or "1"
    if not given.isdigit():
        raise hosts.HostError(f"C5C3_STACK_DRAW is {given!r}: name a seed, such as 1")
    seed = int(given)
    kinds = tuple(kind for kind in KINDS if kind in service.faults)
    breakable = service.breakable()
    steps = draw(seed, len(breakable), kinds)

    def do(_load: Load) -> faults.Times:
        began = time.monotonic()
        print(f"seed {seed}:", *told(steps, [host.name for host in breakable]), sep="\n", flush=True)
        for step in steps:
            time.sleep(step.pause)  # the schedule's own time: nothing is waited for
            act(of, service, step)
        return faults.Times(f"seed {seed}", began, time.monotonic(), split=True)

    return faults.under_load(of, service, "drawn", do, patience)[0]
