"""Nothing is broken, clients write, all cores are busy: nobody may change a leader. ``python -m tests.stack soak MINUTES SCENARIO ...``

The scenarios' hosts stand already (``make stack ROLE=galera,rabbitmq FAULTS=none ARGS=--keep``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.stack import clients, faults, hosts
from tests.stack.writing import Load, Service

# Seconds between two looks at who leads.
LOOK = 30.0
# Seconds between two writes of one client: an hour of them has to be read afterwards.
PAUSE = 0.2


@dataclass
class Soaked:
    """One service under load: who led, and how often the service itself counted a failover."""

    service: Service
    load: Load
    leaders: list[str] = field(default_factory=list)
    failovers: int | None = None
    elections: int | None = None

    def look(self) -> None:
        """Note who leads, when it is another one than before."""
        try:
            leader = self.service.victim().name
        except Exception as error:
            leader = f"nobody ({type(error).__name__}: {error})"[:80]
        if self.leaders[-1:] != [leader]:
            self.leaders.append(leader)


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """A process on each core that never rests."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def judge(name: str, soaked: Soaked, begun: float, ended: float) -> list[str]:
    """Record what one service did between begun and ended (monotonic seconds); return what is wrong."""
    service = soaked.service
    leaders = " ".join(soaked.leaders)
    result = faults.counted(service, soaked.load, "soak", leaders, (begun, ended), busy=os.getloadavg()[0])
    after = service.failovers()
    failovers = 0 if soaked.failovers is None or after is None else after - soaked.failovers
    print(f"{result.line()}, {failovers} failovers{result.slow()}", flush=True)
    elections = service.elections()
    if elections is None or soaked.elections is None:
        wrong = [f"{name}: {' then '.join(soaked.leaders)} led"] if len(soaked.leaders) > 1 else []
    else:
        forced = elections - soaked.elections
        wrong = [f"{name}: {forced} elections since the leader was not heard"] if forced else []
    wrong += [f"{name}: {failovers} failovers"] if failovers else []
    return wrong + ([f"{name}: {result.lost} acknowledged writes lost"] if result.lost else [])


def run(minutes: float, names: list[str]) -> list[str]:
    """Let clients of all named scenarios write for some minutes; return what was wrong, in words."""
    soaked: dict[str, Soaked] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            of = hosts.scenario(name)
            service = clients.service(of)
            faults.settle(of, service, "what was before", 180)
            service.prepare()
            load = stack.enter_context(Load(service, pause=PAUSE))
            soaked[name] = Soaked(service, load)
        started = time.monotonic()
        for name, each in soaked.items():
            hosts.wait(f"clients of {name} write", lambda load=each.load: load.flowing(started, 2.0), 60)
            each.look()
            each.failovers, each.elections = each.service.failovers(), each.service.elections()
        stack.enter_context(busy_cores())
        begun = time.monotonic()
        while (now := time.monotonic()) - begun < minutes * 60:
            for each in soaked.values():
                each.look()
            told = (
                f"{name} {len(each.load.acknowledged())} writes, gap {each.load.gap(begun, now):.1f} s, {each.leaders[-1]}"
                for name, each in soaked.items()
            )
            print(f"[{(now - begun) / 60:5.1f} min, load {os.getloadavg()[0]:.0f}] {'; '.join(told)}", flush=True)
            time.sleep(max(0.0, min(LOOK, begun + minutes * 60 - time.monotonic())))
        ended = time.monotonic()
    return [trouble for name, each in soaked.items() for trouble in judge(name, each, begun, ended)]
