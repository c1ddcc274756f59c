"""Break a service under load, heal it, and count: the schedule of one fault."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tests.setup import system
from tests.stack import hosts
from tests.stack.hosts import SCENARIOS, Host, Scenario
from tests.stack.scenario import playbook, recaps, told
from tests.stack.writing import CERTIFICATES, Load, Service

FAULTS = ("kill", "freeze", "host_kill", "partition", "strayed", "stalled", "all_killed", "wipe", "recover", "drawn")
# faults in which nobody can write until the heal
TOTAL = ("all_killed", "recover")
# how long a fault lasts at least: late damage (a detector that fires after ten seconds) must be seen
LASTS = {
    "kill": 8.0,
    "freeze": 20.0,
    "host_kill": 12.0,
    "partition": 20.0,
    "strayed": 12.0,
    "stalled": 20.0,
    "all_killed": 0.0,
    "wipe": 8.0,
    "recover": 0.0,
}


# seconds for which a second member hangs while the first one dies: longer than any detector of a dead member waits
STALL = 4.0


@dataclass(frozen=True)
class Result:
    """What one fault did, from a client's view. Times in seconds."""

    scenario: str
    distribution: str
    fault: str
    victim: str
    gap: float  # longest time without an acknowledgement, of any writer, until the heal
    heal_gap: float  # the same from the heal to the end: what the return of a member costs
    recovery: float  # from the heal until all is as before
    limit: float | None
    acknowledged: int
    lost: int
    twice: int
    failures: dict[str, int]
    silence: list[str]  # what the writer with the longest gap was told in it; seconds since the fault
    busy: float  # the machine's load of the last minute when the fault came

    def line(self) -> str:
        """Return the result in a line for people."""
        limit = f" (limit {self.limit:g})" if self.limit else ""
        return (
            f"{self.scenario} {self.distribution} {self.fault:10} on {self.victim}: gap {self.gap:.1f} s{limit}, return {self.heal_gap:.1f} s, "
            f"settled after {self.recovery:.1f} s, {self.acknowledged} acknowledged, {self.lost} lost, {self.twice} twice, load {self.busy:.1f}"
        )

    def slow(self) -> str:
        """Return what happened in the gap, when it was longer than its limit, or than any member's loss should cost."""
        return "" if self.gap <= (self.limit or 3.0) else "\n      " + "\n      ".join(self.silence)


def inject(of: Scenario, service: Service, fault: str, victim: Host) -> None:
    """Break it."""
    if fault == "kill":
        hosts.kill_daemon(victim, service.daemon_of(victim))
    elif fault == "freeze":
        hosts.freeze(victim)
    elif fault in ("host_kill", "wipe"):
        hosts.kill_host(victim)
    elif fault == "partition":
        hosts.partition(of, victim)
    elif fault == "strayed":
        hosts.partition(of, service.proxies[0], victim)
    elif fault == "stalled":
        other = next(host for host in service.members if host != victim)
        hosts.kill_host(victim)
        hosts.freeze(other)
        time.sleep(STALL)
        hosts.thaw(other)
    elif fault in TOTAL:
        if fault == "recover":
            service.cripple()
        hosts.each(of.hosts, hosts.kill_host)
    else:
        raise hosts.HostError(f"no fault {fault!r}: choose from {', '.join(FAULTS)}")


def heal(of: Scenario, service: Service, fault: str, victim: Host, converge: Callable[[], None]) -> None:
    """Undo what inject did; a wiped host comes back empty, and the role makes a member of it again."""
    if fault == "freeze":
        hosts.thaw(victim)
    elif fault in ("host_kill", "stalled"):
        hosts.start(victim)
    elif fault == "partition":
        hosts.heal_partition(victim)
    elif fault == "strayed":
        hosts.heal_partition(service.proxies[0])
    elif fault == "all_killed":
        hosts.each(of.hosts, hosts.start)
    elif fault == "wipe":
        hosts.replace(of, victim)
        converge()
    elif fault == "recover":
        survivors = [host for host in of.hosts if host != victim or not service.recovers_without]
        hosts.each(survivors, hosts.start)
        if service.recovers_without:
            hosts.replace(of, victim)
        code, output = playbook(of, f"c5c3.ha.{service.recovery}", service.recovery_variables(victim))
        if code:
            raise hosts.HostError(f"{service.recovery} ended with {code}:\n{told(output)}")
        converge()


@dataclass(frozen=True)
class Times:
    """What was done under load, and when."""

    where: str
    broken: float
    healed: float
    split: bool  # whether clients could write again before the heal, so that the return is measured apart


def counted(
    service: Service,
    load: Load,
    name: str,
    where: str,
    window: tuple[float, float],
    heal_gap: float = 0.0,
    recovery: float = 0.0,
    busy: float = 0.0,
) -> Result:
    """Count what clients that write no more were promised and what is there, and record it.

    ``window``: from when until when the gap is looked for.
    """
    acknowledged = load.acknowledged()
    found = service.found() if service.keeps else Counter(acknowledged)
    result = Result(
        service.scenario.name,
        service.scenario.distribution,
        name,
        where,
        round(load.gap(*window), 2),
        round(heal_gap, 2),
        round(recovery, 1),
        service.limits.get(name),
        len(acknowledged),
        len(acknowledged - set(found)),
        sum(1 for key in found if found[key] > 1),
        dict(load.failures().most_common(5)),
        load.silence(*window),
        round(busy, 1),
    )
    record(result)
    return result


def under_load(
    of: Scenario, service: Service, name: str, do: Callable[[Load], Times], patience: float
) -> tuple[Result, Load, Times]:
    """Do something to a healthy service while clients write, wait until it is whole, and count; the result is recorded.

    Raises HostError when service or clients do not come back.
    """
    settle(of, service, f"what was before {name}", patience)
    service.prepare()
    with Load(service) as load:
        begun = time.monotonic()
        hosts.wait("clients write", lambda: load.flowing(begun, 2.0), 60)
        busy = os.getloadavg()[0]
        times = do(load)
        settle(of, service, f"{name} on {times.where}", patience)
        recovered = time.monotonic()
        wait_for_clients(of, load, f"{name} on {times.where} is over", lambda: load.flowing(recovered, 3.0), patience)
        ended = time.monotonic()
    until = times.healed if times.split else ended
    heal_gap = load.gap(times.healed, ended) if times.split else 0.0
    result = counted(service, load, name, times.where, (times.broken, until), heal_gap, recovered - times.healed, busy)
    return result, load, times


def run(of: Scenario, service: Service, fault: str, converge: Callable[[], None], patience: float = 180) -> Result:
    """Run one fault under load and return what it did; raise HostError when service or clients do not come back."""

    def do(load: Load) -> Times:
        victim = service.victim()
        broken = time.monotonic()
        inject(of, service, fault, victim)
        if fault not in TOTAL:
            again = f"{fault} on {victim.name}"
            wait_for_clients(
                of,
                load,
                again,
                lambda: time.monotonic() - broken > LASTS[fault] and load.flowing(broken, 3.0),
                patience,
            )
        healed = time.monotonic()
        heal(of, service, fault, victim, converge)
        return Times("all" if fault in TOTAL else victim.name, broken, healed, fault not in TOTAL)

    return under_load(of, service, fault, do, patience)[0]


def wait_for_clients(of: Scenario, load: Load, after: str, true: Callable[[], bool], patience: float) -> None:
    """Wait until clients write again; raise HostError with what they were told meanwhile."""
    try:
        hosts.wait(f"clients of {of.name} write again after {after}", true, patience)
    except hosts.HostError as error:
        raise hosts.HostError(f"{error}; failures: {dict(load.failures().most_common(5))}") from None


def settle(of: Scenario, service: Service, after: str, patience: float) -> None:
    """Wait until the service is whole; raise HostError that says what is not."""
    seen = ""

    def settled() -> bool:
        nonlocal seen
        seen = service.unsettled()
        return not seen

    try:
        hosts.wait(f"{of.name} settles after {after}", settled, patience, 0.5)
    except hosts.HostError as error:
        raise hosts.HostError(f"{error}; still: {seen}") from None


def certificates(service: Service) -> dict[str, str]:
    """The fingerprint of the certificate that each member shows at each of its ports, also to who has none to show."""
    shown = {}
    for host in service.members:
        for port in service.tls_ports:
            ask = f"openssl s_client -connect {host.address}:{port} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
            shown[f"{host.name}:{port}"] = hosts.on(host, "sh", "-c", ask)
    return shown


@dataclass(frozen=True)
class Rolled:
    """What a playbook that takes the members down one by one did, from a client's view."""

    result: Result
    interruptions: int  # of the writer that was hit most
    failovers: int | None
    changed: int  # tasks, over all hosts

    def line(self) -> str:
        told = "" if self.failovers is None else f"{self.failovers} failovers, "
        return f"{self.result.line()}; {told}{self.interruptions} interruptions of one writer, {self.changed} tasks changed something"


def roll(of: Scenario, service: Service, name: str, patience: float = 180) -> Rolled:
    """Run a playbook of the collection, or the role while all certificates are to be renewed, under load.

    Raises HostError when it fails, clients do not come back, or a member shows its old certificate.
    """
    book, variables, shown = f"c5c3.ha.{name}", service.rolling_variables(name), {}
    if name == CERTIFICATES:
        book, variables = str(SCENARIOS / of.name / "converge.yml"), {"ca_renew_days": 36500}
        shown = certificates(service)
    before: int | None = None
    changed = 0

    def do(_load: Load) -> Times:
        nonlocal before, changed
        before = service.failovers()
        began = time.monotonic()
        code, output = playbook(of, book, variables)
        if code:
            raise hosts.HostError(f"{name} ended with {code}:\n{told(output)}")
        changed = sum(host["changed"] for host in recaps(output).values())
        return Times("each", began, time.monotonic(), split=False)

    result, load, times = under_load(of, service, name, do, patience)
    now = certificates(service) if shown else {}
    old = [place for place, certificate in shown.items() if now[place] == certificate]
    if old:
        raise hosts.HostError(f"{', '.join(old)} still show the certificate they had before")
    after = service.failovers()
    failovers = None if before is None or after is None else after - before
    return Rolled(result, load.interruptions(times.broken, time.monotonic()), failovers, changed)


def refuse(
    of: Scenario, service: Service, book: str, variables: dict[str, Any], says: str, patience: float = 180
) -> Result:
    """Run a playbook that must end at the first member and say why, under load; raises HostError when it does not."""

    def do(_load: Load) -> Times:
        began = time.monotonic()
        code, output = playbook(of, f"c5c3.ha.{book}", variables)
        if not code:
            raise hosts.HostError(f"{book} ended well, which should have ended at the first member")
        if says not in " ".join(output.split()):
            raise hosts.HostError(f"{book}: nothing says {says!r}:\n{told(output)}")
        return Times("the first", began, time.monotonic(), split=False)

    return under_load(of, service, f"bad {book}", do, patience)[0]


def record(result: Result) -> None:
    """Append a result, as a line of JSON, to what docs/failover.md is made from."""
    path = system.cache() / "stack" / "results.jsonl"
    with path.open("a") as handle:
        handle.write(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **asdict(result)}) + "\n")
