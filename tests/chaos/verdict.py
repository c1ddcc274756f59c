"""What must never happen, looked for in what was seen of one round. Pure: facts in, violations out.

Times are seconds since the epoch. Who gathers the facts is tests/chaos/witness.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.schedule import HOST_FAULTS, LEFT_ALONE, PARTITIONS, RUN, STOPPED

OUR_REASON = "c5c3.ha"
# A QEMU that ends within so many seconds of its host's end has ended with it.
TOGETHER = 3.0
# Nova tells whole seconds.
GRAIN = 1.0
# How long after it a fault of a host explains that somebody switched it off: its Node may not be Ready yet.
AFTERMATH = 60.0
# A step that was at work when its operator was cut off may act for so long: two thirds of its claim (claim_ttl 6 s), and
# the request that was on its way.
CUT_GRACE = 10.0
# An Eviction is finished some time after the facts it tells were read.
TELLING = 8.0

DOUBLED, FORGOTTEN, GIVEN_UP = "doubled", "forgotten", "given up"
UNPROVEN, CUT_OFF, FENCED_ALIVE = "evacuated without proof", "acted while cut off", "fenced though alive"
EXTRA, LOST_DATA, STARTED, TOUCHED = (
    "restarted too often",
    "lost data",
    "started though stopped",
    "touched though opted out",
)
UNFINISHED, UNTRUE, LATE = "Eviction unfinished", "Eviction untrue", "not evacuated in time"
LOCKED, DISABLED, UNQUIET, BROKEN = "left locked", "left out of service", "never quiet", "left in a wrong state"
# In the order of the table; all of them are wanted to be 0.
KINDS = (
    *(DOUBLED, FORGOTTEN, GIVEN_UP, UNPROVEN, CUT_OFF, FENCED_ALIVE, EXTRA, LOST_DATA, STARTED, TOUCHED),
    *(UNFINISHED, UNTRUE, LATE, LOCKED, DISABLED, UNQUIET, BROKEN),
)


@dataclass(frozen=True)
class Violation:
    """One thing that must not be. `what`: a sentence that names what was seen."""

    kind: str
    what: str


@dataclass(frozen=True)
class Span:
    """Something held from `began` to `ended` (None: it still does). `kind` of a fault, host or target."""

    kind: str
    target: str
    began: float
    ended: float | None = None

    def at(self, moment: float, before: float = 0.0, after: float = 0.0) -> bool:
        """Whether it held then, give or take."""
        return self.began - before <= moment and (self.ended is None or moment <= self.ended + after)


@dataclass(frozen=True)
class Life:
    """One QEMU of a server, from its first to its last sight."""

    server: str
    host: str
    pid: int
    began: float
    ended: float | None = None


@dataclass(frozen=True)
class ServerFacts:
    """A server at the end, and its counters at the begin (`0`) and the end (`1`).

    :ivar want: RUN, STOPPED or LEFT_ALONE.
    :ivar counting: its guest's counter goes up.
    """

    id: str
    name: str
    want: str
    status: str
    host: str
    task: str | None
    locked: bool
    counting: bool
    boots0: int
    boots1: int
    total0: int
    total1: int

    @property
    def runs(self) -> bool:
        """As its user sees it."""
        return self.status == "ACTIVE" and self.counting


@dataclass(frozen=True)
class Evacuation:
    """A record of Nova: an evacuation of `server` away from `source` was asked for at `created`."""

    server: str
    source: str
    target: str
    created: float
    status: str


@dataclass(frozen=True)
class Facts:
    """All that was seen of a round.

    :ivar kills: what was killed by the schedule: (when, server, pid).
    :ivar off: a Span for each time at which a host truly was off; `target` is the host.
    :ivar faults: a Span for each fault as it was done; `target` is the host, where it is about one.
    :ivar commands: what reached the power switches: (when, host, command).
    :ivar proofs: what Evictions said of hosts that are proven off, at whatever time: (host, since when).
    :ivar evictions: each end of each Eviction, and the last sight of those that have none, as objects.
    :ivar late: servers that should have been evacuated before their host was healed, as sentences.
    :ivar services: Nova's compute services by host.
    :ivar drained: hosts that a drain asked to empty: they stay disabled, as they should.
    :ivar quiet: what was waited for in vain at the end; empty when all was quiet.
    """

    servers: tuple[ServerFacts, ...] = ()
    lives: tuple[Life, ...] = ()
    kills: tuple[tuple[float, str, int], ...] = ()
    off: tuple[Span, ...] = ()
    faults: tuple[Span, ...] = ()
    commands: tuple[tuple[float, str, str], ...] = ()
    evacuations: tuple[Evacuation, ...] = ()
    proofs: tuple[tuple[str, float], ...] = ()
    evictions: dict[str, dict[str, Any]] = field(default_factory=dict)
    two_writers: tuple[tuple[str, str], ...] = ()
    late: tuple[str, ...] = ()
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()
    quiet: str = ""


def judge(facts: Facts) -> list[Violation]:
    """Everything that must not be, in the order of KINDS."""
    found = dict.fromkeys(violation for look in _LOOKS for violation in look(facts))
    return sorted(found, key=lambda violation: KINDS.index(violation.kind))


def deaths(facts: Facts, server: str) -> list[str]:
    """How the guests of a server have died for reasons that are not ours, each in words.

    A guest that its host took with it has died, whoever switched that off.
    """
    found = [f"killed (QEMU {pid})" for _when, each, pid in facts.kills if each == server]
    killed = {pid for _when, each, pid in facts.kills if each == server}
    for life in facts.lives:
        if life.server != server or life.pid in killed or life.ended is None:
            continue
        if any(off.target == life.host and abs(off.began - life.ended) <= TOGETHER for off in facts.off):
            found.append(f"died with {life.host}")
    return found


# --- servers ----------------------------------------------------------------------------------------------------------


def _doubled(facts: Facts) -> Iterator[Violation]:
    names = {server.id: server.name for server in facts.servers}
    for server, how in facts.two_writers:
        yield Violation(DOUBLED, f"{names.get(server, server)}: {how}")
    for server in facts.servers:
        alive = [life for life in facts.lives if life.server == server.id and life.ended is None]
        if len({life.host for life in alive}) > 1:
            yield Violation(
                DOUBLED, f"{server.name} has a QEMU on {', '.join(sorted(life.host for life in alive))} at the end"
            )


def _ends(facts: Facts) -> Iterator[Violation]:
    for server in facts.servers:
        alive = [life for life in facts.lives if life.server == server.id and life.ended is None]
        state = f"Nova says {server.status} on {server.host}" + (f", task {server.task}" if server.task else "")
        if server.want == RUN and not server.runs:
            told = _told(facts, server)
            seen = f"{server.name} does not run: {state}, {len(alive)} QEMUs, {'counting' if server.counting else 'silent'}"
            died = ", ".join(deaths(facts, server.id)) or "it was never hurt"
            yield Violation(GIVEN_UP if told else FORGOTTEN, f"{seen}; {died}" + (f"; told: {told}" if told else ""))
        if server.want == RUN and server.runs and server.host not in {life.host for life in alive}:
            where = ", ".join(life.host for life in alive) or "nowhere"
            yield Violation(BROKEN, f"{server.name} runs on {where}, {state}")
        if server.want == STOPPED and (alive or server.status != "SHUTOFF"):
            yield Violation(STARTED, f"{server.name} was stopped by its user: {state}, {len(alive)} QEMUs")
        if server.want == LEFT_ALONE and server.boots1 > server.boots0:
            yield Violation(TOUCHED, f"{server.name} booted {server.boots1 - server.boots0} times")
        if server.total1 < server.total0:
            yield Violation(LOST_DATA, f"{server.name} had counted to {server.total0}, now {server.total1}")
        if server.locked:
            yield Violation(LOCKED, f"{server.name} is locked")
        if server.task and server.want != LEFT_ALONE:
            yield Violation(BROKEN, f"{server.name}: {state}")


def _told(facts: Facts, server: ServerFacts) -> str:
    """What a failed Eviction says of a server; empty when none does."""
    for eviction in facts.evictions.values():
        for entry in (eviction.get("status") or {}).get("instances") or []:
            if entry.get("id") == server.id and entry.get("phase") == "Failed":
                return f"{eviction['metadata']['name']}: {entry.get('message', '')}"
    return ""


def _extra(facts: Facts) -> Iterator[Violation]:
    for server in facts.servers:
        boots, died = server.boots1 - server.boots0, deaths(facts, server.id)
        if server.want == RUN and boots > len(died):
            yield Violation(
                EXTRA, f"{server.name} booted {boots} times for {len(died)} deaths ({', '.join(died) or 'none'})"
            )


# --- hosts ------------------------------------------------------------------------------------------------------------


def _unproven(facts: Facts) -> Iterator[Violation]:
    names = {server.id: server.name for server in facts.servers}
    for record in facts.evacuations:
        what = f"{names.get(record.server, record.server)} was evacuated from {record.source}"
        if not any(off.target == record.source and _off_at(off, record.created) for off in facts.off):
            yield Violation(UNPROVEN, f"{what}, which was on")
        elif not any(host == record.source and since <= record.created + GRAIN for host, since in facts.proofs):
            yield Violation(UNPROVEN, f"{what}, and no Eviction says that it was proven off before")


def _off_at(off: Span, created: float) -> bool:
    """Whether the host was off in the second that Nova tells."""
    return off.began <= created + GRAIN and (off.ended is None or created <= off.ended)


def proof(eviction: dict[str, Any]) -> tuple[str, float] | None:
    """(host, since when) when an Eviction of a whole host tells that it is proven off."""
    fenced = condition(eviction, "Fenced")
    since = moment(fenced.get("lastTransitionTime"))
    if fenced.get("status") != "True" or since is None or eviction["spec"].get("instances"):
        return None
    return eviction["spec"]["hypervisor"], since


def _cut_off(facts: Facts) -> Iterator[Violation]:
    names = {server.id: server.name for server in facts.servers}
    for cut in (fault for fault in facts.faults if fault.kind in PARTITIONS):
        for record in facts.evacuations:
            if record.created > cut.began + CUT_GRACE and cut.at(record.created):
                what = f"{names.get(record.server, record.server)} was evacuated from {record.source}"
                yield Violation(CUT_OFF, f"{what} {record.created - cut.began:.0f} s after the begin of {cut.kind}")
        for when, host, command in facts.commands:
            if command == "off" and when > cut.began + CUT_GRACE and cut.at(when):
                yield Violation(
                    CUT_OFF, f"{host} was switched off {when - cut.began:.0f} s after the begin of {cut.kind}"
                )


def _fenced_alive(facts: Facts) -> Iterator[Violation]:
    """Who was never lost, or only half, and who lost us instead of being lost, must not be switched off."""
    for when, host, command in facts.commands:
        near = [fault for fault in facts.faults if fault.target == host and fault.at(when, 0.0, AFTERMATH)]
        if command == "off" and not any(fault.kind in HOST_FAULTS for fault in near):
            told = ", ".join(sorted({fault.kind for fault in near})) or "nothing"
            yield Violation(FENCED_ALIVE, f"{host} was switched off; what had happened to it: {told}")
        elif command != "off":
            yield Violation(FENCED_ALIVE, f"{host} was told {command!r}")


def _services(facts: Facts) -> Iterator[Violation]:
    for host, service in sorted(facts.services.items()):
        if service.get("forced_down"):
            yield Violation(DISABLED, f"{host} is still forced down")
        elif service.get("status") == "disabled" and host not in facts.drained:
            reason = service.get("disabled_reason") or ""
            yield Violation(
                DISABLED if reason.startswith(OUR_REASON) else BROKEN, f"{host} is still disabled: {reason}"
            )


# --- what is told -----------------------------------------------------------------------------------------------------


def _evictions(facts: Facts) -> Iterator[Violation]:
    for eviction in facts.evictions.values():
        name = eviction["metadata"]["name"]
        evicting = condition(eviction, "Evicting")
        if evicting.get("status") != "False":
            if not eviction["metadata"].get("deletionTimestamp"):
                yield Violation(UNFINISHED, f"{name}: {evicting.get('message', 'no condition Evicting')}")
            continue
        ended = moment((eviction.get("status") or {}).get("finishedAt"))
        if ended is None:
            yield Violation(UNTRUE, f"{name} is finished and does not say when")
            continue
        yield from (Violation(UNTRUE, f"{name}: {what}") for what in _untrue(eviction, evicting, ended, facts))


def _untrue(eviction: dict[str, Any], evicting: dict[str, Any], ended: float, facts: Facts) -> Iterator[str]:
    reason = evicting.get("reason")
    entries = (eviction.get("status") or {}).get("instances") or []
    phases = {entry.get("phase") for entry in entries}
    known = {server.id: server for server in facts.servers}
    if reason == "Succeeded" and phases - {"Succeeded", "Skipped", "Notified"}:
        yield f"Succeeded with entries {', '.join(sorted(map(str, phases)))}"
    if reason == "Failed" and entries and phases <= {"Succeeded", "Skipped"}:
        yield "Failed with entries that all are done"
    if reason != "Succeeded":
        return
    whole = not eviction["spec"].get("instances")
    host = eviction["spec"]["hypervisor"]
    for entry in entries:
        server = known.get(entry.get("id"))
        if server is None or entry.get("phase") != "Succeeded":
            continue
        then = [life for life in facts.lives if life.server == server.id and _lived(life, ended)]
        if whole and any(life.host == host for life in then):
            yield f"Succeeded while {server.name} had a QEMU on {host}"
        died = any(ended - TELLING <= when <= ended + TELLING for when, each, _pid in facts.kills if each == server.id)
        fell = any(abs(off.began - ended) <= TELLING or (off.at(ended) and off.target != host) for off in facts.off)
        if server.want == RUN and not then and not died and not fell:
            yield f"Succeeded at a moment when {server.name} had no QEMU anywhere"
        if server.want == STOPPED and then:
            yield f"Succeeded while {server.name}, which was stopped, had a QEMU on {then[0].host}"


def _lived(life: Life, at: float) -> bool:
    """Whether it was there for long enough around a moment: what was told was read some time before."""
    return life.began <= at + 0.5 and (life.ended is None or life.ended >= at)


def _rest(facts: Facts) -> Iterator[Violation]:
    yield from (Violation(LATE, what) for what in facts.late)
    if facts.quiet:
        yield Violation(UNQUIET, facts.quiet)


_LOOKS = (_doubled, _ends, _extra, _unproven, _cut_off, _fenced_alive, _services, _evictions, _rest)


def notes(facts: Facts) -> list[str]:
    """What may be and is worth knowing: evacuations that were asked for twice, Evictions that failed."""
    names = {server.id: server.name for server in facts.servers}
    found = []
    for off in facts.off:
        asked: dict[str, int] = {}
        for record in facts.evacuations:
            if record.source == off.target and off.at(record.created, GRAIN):
                asked[record.server] = asked.get(record.server, 0) + 1
        found += [
            f"{names.get(server, server)}: {count} evacuations from {off.target}, which died once"
            for server, count in asked.items()
            if count > 1
        ]
    for eviction in facts.evictions.values():
        evicting = condition(eviction, "Evicting")
        if evicting.get("reason") in ("Failed", "Cancelled"):
            found.append(f"Eviction {eviction['metadata']['name']} {evicting['reason']}: {evicting.get('message', '')}")
    return found


# --- small things -----------------------------------------------------------------------------------------------------


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    """The condition, or an empty dict."""
    return next((c for c in (resource.get("status") or {}).get("conditions") or [] if c.get("type") == kind), {})


def moment(text: str | None) -> float | None:
    """A time stamp of Kubernetes or Nova (which means UTC and does not say so); None for none."""
    from datetime import UTC, datetime

    if not text:
        return None
    found = datetime.fromisoformat(re.sub(r"Z$", "+00:00", text))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def tally(violations: Iterable[Violation]) -> dict[str, int]:
    """How many of each kind, all kinds told."""
    counted = dict.fromkeys(KINDS, 0)
    for violation in violations:
        counted[violation.kind] += 1
    return counted
