"""What fails when: a pure function of a seed. Nothing is done here.

>>> for each in rounds(7, 2): print("\\n".join(describe(each)))

A round begins with a healthy site whose servers are where :func:`servers` says, and ends with everything healed. Its theme
is the main trouble; what else fails at the same time is drawn. Each block of as many rounds as there are themes has each
theme once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

# Seconds. A dead host is evacuated some 25 to 45 s after its death (tests/chaos/site.py has the settings), so short is
# over before anybody acts, medium ends in the midst of it, long lasts until the servers should run elsewhere.
SHORT, MEDIUM, LONG = (4.0, 14.0), (22.0, 50.0), (80.0, 95.0)
UNTIL_EVACUATED = 75.0
WINDOW = 30.0

# Of a whole host, so that its Node is lost; what "acting" and "standby" are is known only when it happens.
HOST_FAULTS = ("host-power", "host-freeze", "host-cut", "host-unplug")
# Of a host whose guests and nova-compute (or kubelet) live on: it must not be fenced.
HALF_FAULTS = ("host-api-cut", "host-nova-cut")
OPERATORS = ("acting", "standby")
# Nobody who could act reaches the API, or nobody can tell that it is not he who is cut off.
PARTITIONS = ("isolation", "operators-cut")
BMC_FAULTS = ("bmc-silent", "bmc-black-hole", "bmc-stays-on", "bmc-password", "bmc-wrong-system")
CONTROL_PARTS = (
    *("kube-apiserver", "etcd", "kube-controller-manager", "rabbitmq", "mariadb", "nova-api"),
    *("nova-conductor", "nova-scheduler", "keystone", "placement"),
)
HOST_PARTS = ("libvirtd", "nova-compute", "kubelet", "containerd")
# What dies with a message in its hands.
MESSENGERS = ("rabbitmq", "nova-conductor", "nova-scheduler", "nova-compute")
# A process that is killed comes back by itself; frozen or down it stays so until it is healed.
PART_FAULTS = ("kill", "freeze", "down")
# Of a nova-compute, too: up for Nova, deaf until somebody restarts it (docs/evict.md, When nova-compute hangs).
HANG = "hang"

# Moments of a host's Eviction, as it is seen by others: its power switch is about to be asked, it is proven off, the first
# evacuation is about to be asked for, the first guest runs at its target.
MOMENTS = ("fencing", "proven", "asked", "landed")
# What a fault at a moment may hit beside a name: the host and the guest of that first landing.
LANDING = "landing"

THEMES = (
    *("guests", "host", "drain", "operator-host", "fencing", "two-hosts", "partition", "drained-host-dies"),
    *("worst-moment", "one-after-the-other"),
)

# What a server is to be at the end of each round.
RUN, STOPPED, LEFT_ALONE = "run", "stopped", "left alone"


@dataclass(frozen=True, order=True)
class Fault:
    """One fault.

    :ivar at: seconds after the begin of the round, or after the moment `when`.
    :ivar kind: ``guest-kill``, ``host-*``, ``bmc-*``, ``drain``, ``isolation``, ``operators-cut``, HANG, or one of PART_FAULTS.
    :ivar target: server, host, ``acting`` or ``standby`` (the host of that operator), LANDING, or what the lab's verbs take.
    :ivar lasts: seconds until it is healed; 0 for what is over at once.
    :ivar when: one of MOMENTS; empty for a fault that comes at its second whatever is at work.
    """

    at: float
    kind: str
    target: str
    lasts: float = 0.0
    when: str = ""

    @property
    def until(self) -> float:
        """When it is healed."""
        return self.at + self.lasts

    def overlaps(self, other: Fault) -> bool:
        """Whether both are there, or may be there, at one moment."""
        return bool(self.when or other.when) or (self.at <= other.until and other.at <= self.until)


@dataclass(frozen=True)
class Round:
    """The faults of a round in order, and what they make impossible.

    :ivar waits: why a host that is lost need not be evacuated before it is healed; empty when it has to be.
    """

    seed: int
    number: int
    theme: str
    faults: tuple[Fault, ...]
    waits: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """When the last fault is healed."""
        return max((fault.until for fault in self.faults), default=0.0)

    @property
    def must_evacuate(self) -> tuple[Fault, ...]:
        """Faults of hosts whose running servers have to run elsewhere before the fault is healed."""
        return (
            () if self.waits else tuple(f for f in self.faults if f.kind in HOST_FAULTS and f.lasts >= UNTIL_EVACUATED)
        )


def host_names(hosts: int) -> list[str]:
    """As the lab calls them."""
    return [f"cmp{number:02}" for number in range(1, hosts + 1)]


def servers(hosts: int) -> dict[str, tuple[str, str]]:
    """Name to (host, what it is to be) at the begin of each round."""
    names = host_names(hosts)
    listed = {f"vm{number}": (names[number % hosts], RUN) for number in range(2 * hosts)}
    listed.update({f"off{number}": (names[number], STOPPED) for number in range(min(2, hosts))})
    listed["alone"] = (names[-1], LEFT_ALONE)
    return listed


def rounds(seed: int, count: int, hosts: int = 3, first: int = 0) -> Iterator[Round]:
    """The rounds of a seed: any number of them, each independent of how many are asked for."""
    for number in range(first, first + count):
        yield draw(seed, number, hosts)


def draw(seed: int, number: int, hosts: int = 3) -> Round:
    """One round."""
    themes = list(THEMES)
    random.Random(f"{seed}/{number // len(THEMES)}/themes").shuffle(themes)
    theme = themes[number % len(THEMES)]
    faults = tuple(sorted(_Draw(random.Random(f"{seed}/{number}"), hosts).faults(theme)))
    return Round(seed, number, theme, faults, tuple(waits(faults, hosts)))


class _Draw:
    """Draws one round."""

    def __init__(self, rng: random.Random, hosts: int) -> None:
        self.rng = rng
        self.hosts = host_names(hosts)
        self.running = [name for name, (_host, want) in servers(hosts).items() if want == RUN]
        self.places = servers(hosts)

    def faults(self, theme: str) -> list[Fault]:
        """The theme's own faults, guests that die meanwhile, and parts that fail meanwhile."""
        drawn: list[Fault] = getattr(self, f"_{theme.replace('-', '_')}")()
        # Of a site whose hosts are lost, parts of hosts are not drawn: they would be gone anyway, or their loss
        # would make one more host a lost one.
        gone = any(fault.kind in (*HOST_FAULTS, *PARTITIONS) for fault in drawn)
        if theme != "guests":
            drawn += self._deaths(self.rng.randint(0, 2))
        drawn += self._parts(self.rng.randint(1, 3), hosts=not gone)
        return drawn

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _at(self, low: float = 0.0, high: float = WINDOW) -> float:
        return round(self.rng.uniform(low, high), 1)

    def _lasts(self, *ranges: tuple[float, float]) -> float:
        low, high = self.rng.choice(ranges)
        return round(self.rng.uniform(low, high), 1)

    def _deaths(self, count: int) -> list[Fault]:
        """Guests that die: each alone, with others at once, or twice within a minute."""
        drawn: list[Fault] = []
        for _number in range(count):
            at, how = self._at(), self.rng.choice(("one", "one", "twice", "several"))
            if how == "several":
                several = self.rng.sample(self.running, self.rng.randint(2, min(4, len(self.running))))
                drawn += [Fault(at, "guest-kill", name) for name in several]
                continue
            name = self.rng.choice((*self.running, "alone"))
            drawn.append(Fault(at, "guest-kill", name))
            if how == "twice":
                drawn.append(Fault(round(at + self.rng.uniform(0.5, 40.0), 1), "guest-kill", name))
        return drawn

    def _parts(self, count: int, hosts: bool) -> list[Fault]:
        """Parts that fail. A part is hurt once a round: what is down cannot be killed."""
        drawn: dict[str, Fault] = {}
        for _number in range(count):
            what = self.rng.choice(
                ("control", "control", "daemon", "host") if hosts else ("control", "control", "daemon")
            )
            if what == "control":
                target = self.rng.choice(CONTROL_PARTS)
                kind = self.rng.choice(PART_FAULTS)
            elif what == "host":
                target = f"{self.rng.choice(self.hosts)}/{self.rng.choice(HOST_PARTS)}"
                kind = self.rng.choice((*PART_FAULTS, HANG) if target.endswith("/nova-compute") else PART_FAULTS)
            else:
                target = self.rng.choice((f"{self.rng.choice(self.hosts)}/agent", "acting", "standby", "operators"))
                kind = self.rng.choice(("kill", "freeze"))
            lasts = 0.0 if kind == "kill" else self._lasts(SHORT, SHORT, MEDIUM)
            drawn.setdefault(target, Fault(self._at(0.0, WINDOW + 10.0), kind, target, lasts))
        return list(drawn.values())

    def _lost(self, target: str, *ranges: tuple[float, float], kinds: tuple[str, ...] = HOST_FAULTS) -> Fault:
        return Fault(self._at(0.0, 10.0), self.rng.choice(kinds), target, self._lasts(*ranges))

    # -- themes --------------------------------------------------------------------------------------------------------

    def _guests(self) -> list[Fault]:
        return self._deaths(self.rng.randint(3, 5))

    def _host(self) -> list[Fault]:
        return [self._lost(self.rng.choice(self.hosts), SHORT, MEDIUM, LONG, LONG)]

    def _operator_host(self) -> list[Fault]:
        """The host of an operator is lost, half or whole, with all that runs on it."""
        target = self.rng.choice((*OPERATORS, "acting"))
        drawn = [
            self._lost(target, MEDIUM, LONG, kinds=(*HOST_FAULTS, "host-api-cut", "host-api-cut", "host-nova-cut"))
        ]
        if drawn[0].kind in HALF_FAULTS and self.rng.random() < 0.6:
            # It may be at work for another host when it loses the API, and the other operator takes over.
            begin = round(self.rng.uniform(0.0, 12.0), 1)
            drawn = [Fault(begin, "host-power", self.rng.choice(self.hosts), self._lasts(LONG))]
            drawn.append(
                Fault(
                    round(begin + self.rng.uniform(20.0, 45.0), 1), "host-api-cut", target, self._lasts(SHORT, MEDIUM)
                )
            )
        return drawn

    def _fencing(self) -> list[Fault]:
        """A host is lost and its power switch cannot be had, at first or all the time."""
        host = self.rng.choice(self.hosts)
        lost = self._lost(host, LONG, kinds=("host-freeze", "host-cut", "host-power"))
        kind = self.rng.choice(BMC_FAULTS)
        lasts = self._lasts((35.0, 60.0), LONG)
        return [lost, Fault(round(self.rng.uniform(0.0, lost.at), 1), kind, host, lasts)]

    def _two_hosts(self) -> list[Fault]:
        """Two hosts are lost, at once or one after the other."""
        first, second = self.rng.sample(self.hosts, 2)
        one = self._lost(first, MEDIUM, LONG)
        other = Fault(self._at(0.0, 45.0), self.rng.choice(HOST_FAULTS), second, self._lasts(SHORT, MEDIUM))
        return [one, other]

    def _partition(self) -> list[Fault]:
        """The operators are the ones who are cut off."""
        kind = self.rng.choice(PARTITIONS)
        drawn = [Fault(self._at(0.0, 10.0), kind, "acting", self._lasts((40.0, 70.0)))]
        if kind == "operators-cut" and self.rng.random() < 0.6:
            # With a host that is really dead, which must not be evacuated by who cannot see what the others do.
            drawn.append(Fault(self._at(0.0, 15.0), "host-power", self.rng.choice(self.hosts), self._lasts(LONG)))
        return drawn

    def _drain(self) -> list[Fault]:
        return [Fault(self._at(0.0, 8.0), "drain", self.rng.choice(self.hosts))]

    def _worst_moment(self) -> list[Fault]:
        """A host is lost, and in the midst of its evacuation something else fails, or it comes back."""
        host = self.rng.choice(self.hosts)
        when = self.rng.choice(MOMENTS)
        at = round(self.rng.uniform(0.0, 2.0), 1)
        lost = Fault(self._at(0.0, 3.0), self.rng.choice(HOST_FAULTS), host, self._lasts(LONG))
        part = self.rng.choice(("kube-apiserver", "kube-apiserver", "etcd", *MESSENGERS[:3], "mariadb", "nova-api"))
        frozen = self.rng.choice(("freeze", "down"))
        drawn = [
            Fault(at, "kill", part, when=when),
            Fault(at, frozen, part, self._lasts(SHORT, MEDIUM), when),
            Fault(at, "kill", self.rng.choice(("acting", "operators")), when=when),
            Fault(at, "freeze", self.rng.choice(("acting", "operators")), self._lasts(SHORT, MEDIUM), when),
            Fault(at, "host-api-cut", "acting", self._lasts(SHORT, MEDIUM), when),
        ]
        if when in ("asked", "landed"):
            drawn.append(Fault(at + 1.0, "host-heal", host, when=when))
        if when == "landed":
            drawn += [
                Fault(at, "host-power", LANDING, self._lasts((60.0, 80.0)), when),
                Fault(at, "guest-kill", LANDING, when=when),
                Fault(at, "kill", f"{LANDING}/nova-compute", when=when),
            ]
        return [lost, self.rng.choice(drawn)]

    def _one_after_the_other(self) -> list[Fault]:
        """A host is lost for long, and when it has just come back another one is, with what was evacuated to it."""
        first, second = self.rng.sample(self.hosts, 2)
        one = Fault(self._at(0.0, 3.0), self.rng.choice(HOST_FAULTS), first, self._lasts((75.0, 85.0)))
        begin = round(one.until + self.rng.uniform(0.5, 20.0), 1)
        return [one, Fault(begin, self.rng.choice(HOST_FAULTS), second, self._lasts(LONG))]

    def _drained_host_dies(self) -> list[Fault]:
        host = self.rng.choice(self.hosts)
        drain = Fault(self._at(0.0, 4.0), "drain", host)
        kinds = ("host-power", "host-power", "host-cut", "host-freeze")
        lost = Fault(round(drain.at + self.rng.uniform(1.0, 15.0), 1), self.rng.choice(kinds), host, self._lasts(LONG))
        return [drain, lost]


def waits(faults: tuple[Fault, ...], hosts: int) -> list[str]:
    """Why a host that is lost need not be evacuated in time."""
    found = []
    lost = [fault for fault in faults if fault.kind in HOST_FAULTS]
    if any(fault.kind in PARTITIONS for fault in faults):
        found.append("the operators are cut off")
    if any(one is not other and one.overlaps(other) and hosts < 2 * 2 for one in lost for other in lost):
        found.append("two hosts at once are a mass failure")
    for fault in lost:
        for other in faults:
            if other.kind in BMC_FAULTS and other.overlaps(fault):
                found.append(f"the power switch of {other.target} cannot be had")
        if any(
            other.kind in ("freeze", "down", HANG) and other.overlaps(fault) and other.lasts > SHORT[1]
            for other in faults
        ):
            found.append("a part that is needed is away for long")
        if any(other.target.rpartition("/")[2] in MESSENGERS and other.kind in PART_FAULTS for other in faults):
            found.append("a message of Nova may be lost, and is sent again late")
        if any(other.when for other in faults):
            found.append("something fails in the midst of it")
        if any(other.kind in HALF_FAULTS and other.overlaps(fault) for other in faults):
            found.append("another host is half lost")
    return sorted(set(found))


def describe(drawn: Round) -> list[str]:
    """A round for people: a line for each fault."""
    head = f"round {drawn.number} of seed {drawn.seed}: {drawn.theme}"
    lines = [head + (f" (waits: {'; '.join(drawn.waits)})" if drawn.waits else "")]
    lines += [f"  {fault.at:5.1f} s  {say(fault)}" for fault in drawn.faults if not fault.when]
    lines += [f"  {fault.at:+5.1f} s after {fault.when}: {say(fault)}" for fault in drawn.faults if fault.when]
    return lines


_WORDS = {
    "guest-kill": "QEMU of {0} is killed",
    "host-power": "host {0} loses its power",
    "host-freeze": "host {0} stands still",
    "host-cut": "packets from and to host {0} vanish",
    "host-unplug": "the cable of host {0} is pulled",
    "host-api-cut": "host {0} no longer reaches the Kubernetes API",
    "host-heal": "host {0} comes back",
    "host-nova-cut": "host {0} no longer reaches the message broker",
    "isolation": "every host but that of the acting operator is cut off",
    "operators-cut": "no host, and so no operator, reaches the Kubernetes API",
    "bmc-silent": "the power switch of {0} takes connections and never answers",
    "bmc-black-hole": "packets to the power switch of {0} vanish",
    "bmc-stays-on": "the power switch of {0} says yes and does nothing",
    "bmc-password": "the Secret of the power switches has a wrong password",
    "bmc-wrong-system": "Hypervisor {0} names another host's power switch",
    "drain": "an Eviction asks to empty host {0}",
    "kill": "{0} is killed",
    "freeze": "{0} stands still",
    "down": "{0} is down",
    HANG: "{0} hangs, and is up for Nova",
}
_TARGETS = {
    "acting": "the acting operator",
    "standby": "the standby operator",
    "operators": "both operators",
    LANDING: "the first to land",
}


def say(fault: Fault) -> str:
    """One fault in words."""
    target = _TARGETS.get(fault.target, fault.target)
    if fault.target in (*OPERATORS, LANDING) and fault.kind.startswith("host-"):
        target = f"of {target}"
    words = _WORDS[fault.kind].format(target)
    if fault.target == "operators":
        words = words.replace(" is ", " are ").replace(" stands ", " stand ")
    return words + (f" for {fault.lasts:.0f} s" if fault.lasts else "")
