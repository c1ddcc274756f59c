"""A client that writes all the time while something breaks: how long it could not, and whether all it was promised is there."""

from __future__ import annotations

import abc
import bisect
import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.stack.hosts import Host, Scenario

# a rolling of its own: the role run again while every certificate is to be renewed
CERTIFICATES = "certificates"


class Session(abc.ABC):
    """One client's connection."""

    @abc.abstractmethod
    def write(self, key: str) -> None:
        """Write key; return once the service has acknowledged it, raise otherwise."""

    def close(self) -> None:
        """Let the connection go; may raise."""


class Service(abc.ABC):
    """A service of the stack as its clients and the faults see it. One object serves one fault."""

    # kill -9 goes to the processes whose command line matches
    daemon: str
    # the three cheapest faults, which CI runs
    cheap: tuple[str, ...] = ("kill", "freeze", "host_kill")
    faults: tuple[str, ...] = ("kill", "freeze", "host_kill", "partition", "all_killed", "wipe")
    # playbooks of the collection that take the members down one by one, and CERTIFICATES
    rolling: tuple[str, ...] = ()
    # ports of each member that speak TLS from the first byte, and so show its certificate
    tls_ports: tuple[int, ...] = ()
    # the playbook that brings the service back when all members were down and one is lost; empty: there is none
    recovery: str = ""
    # whether that one is lost for good, without a write that was acknowledged being lost
    recovers_without: bool = True
    # whether an acknowledged write must be there afterwards; not so in a cache
    keeps: bool = True
    # what a failure says when a client's own limit ended its wait, because nobody told it: no single member's death may come to that
    silence: str = ""
    # seconds a client may see, by fault; told beside the measured figure
    limits: dict[str, float] = {}

    def __init__(self, of: Scenario) -> None:
        self.scenario = of
        self.members = list(of.hosts)
        # what stands between them and clients
        self.proxies: list[Host] = []

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make the empty place to write to."""

    @abc.abstractmethod
    def connect(self) -> Session:
        """Return a new session, as a client with the documented settings makes it."""

    @abc.abstractmethod
    def found(self) -> Counter[str]:
        """Return every key that is there now, and how often."""

    @abc.abstractmethod
    def victim(self) -> Host:
        """Return the host whose loss hurts most: the leader's."""

    def daemon_of(self, host: Host) -> str:
        """Return what the command line of the host's daemon matches."""
        return self.daemon

    def breakable(self) -> list[Host]:
        """Return every host that a schedule of faults may take: the members, and what stands between them and clients."""
        return [*self.members, *self.proxies]

    def rolling_variables(self, name: str) -> dict[str, Any]:
        """Return what an operator tells the playbook ``name`` of `rolling`."""
        return {}

    def bad_upgrade(self) -> tuple[str, dict[str, Any], str] | None:
        """Return a playbook, variables with which its first member does not come up, and what it must say; None: there is none."""
        return None

    def recovery_variables(self, lost: Host) -> dict[str, Any]:
        """Return what an operator tells the recovery playbook when the member ``lost`` is gone for good."""
        return {}

    def cripple(self) -> None:
        """Take from the running members what would bring them back by themselves after all have died."""

    def failovers(self) -> int | None:
        """Return how often the service has changed its leader so far; None where clients have none in common."""
        return None

    def elections(self) -> int | None:
        """Return how many changes of the leader so far began because it was not heard; None where every change does."""
        return None

    @abc.abstractmethod
    def unsettled(self) -> str:
        """Return what is not yet as it was before the fault; an empty string when all is well."""


@dataclass
class Writer:
    """A thread that writes one key after the other, and notes when each was acknowledged."""

    service: Service
    name: str
    pause: float = 0.01
    acknowledged: list[tuple[float, str]] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(60)

    def _run(self) -> None:
        session: Session | None = None
        number = 0
        while not self._stop.is_set():
            # a key that was not acknowledged may or may not be there: it is never used again
            number += 1
            key = f"{self.name}-{number}"
            try:
                session = session or self.service.connect()
                session.write(key)
                self.acknowledged.append((time.monotonic(), key))
                self._stop.wait(self.pause)
            except Exception as error:
                self.failures.append((time.monotonic(), f"{type(error).__name__}: {error}"))
                if session:
                    try:
                        session.close()
                    except Exception:
                        pass
                session = None
                self._stop.wait(0.05)
        if session:
            try:
                session.close()
            except Exception:
                pass

    def last(self) -> float:
        """Return the time of the last acknowledgement, 0 when there was none."""
        return self.acknowledged[-1][0] if self.acknowledged else 0.0

    def gap(self, begin: float, end: float) -> float:
        """Return the longest time between begin and end in which nothing was acknowledged, in seconds."""
        times = [begin, *(when for when, _key in self.acknowledged if begin < when < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def silence(self, begin: float, end: float) -> list[str]:
        """Return what this writer was told in its longest gap between begin and end: when, in seconds since begin, and what."""
        times = [begin, *(when for when, _key in self.acknowledged if begin < when < end), end]
        since, until = max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])
        told = [f"{self.name} {since - begin:+.2f} acknowledged"]
        within = [(when, text[:90]) for when, text in self.failures if since <= when <= until]
        often = Counter(text for _when, text in within)
        for when, text in within:
            # the same again and again is told once, where it came first
            if often[text]:
                told.append(f"{when - begin:+.2f} {text}" + (f" ({often[text]} times)" if often[text] > 1 else ""))
                often[text] = 0
        return [*told[:12], f"{until - begin:+.2f} acknowledged"]

    def interruptions(self, begin: float, end: float) -> int:
        """Return how often failures came between begin and end; those without an acknowledgement between them are one."""
        acknowledged = [when for when, _key in self.acknowledged]
        # the number of acknowledgements before a failure is the same for all of one interruption
        return len({bisect.bisect(acknowledged, when) for when, _text in self.failures if begin < when < end})


@dataclass
class Load:
    """Several writers at once."""

    service: Service
    count: int = 4
    pause: float = 0.01  # seconds between two writes of one writer
    writers: list[Writer] = field(default_factory=list)

    def __enter__(self) -> Load:
        self.writers = [Writer(self.service, f"w{number}", self.pause) for number in range(self.count)]
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for writer in self.writers:
            writer._stop.set()
        for writer in self.writers:
            writer.stop()

    def flowing(self, since: float, seconds: float) -> bool:
        """Tell whether every writer has been acknowledged again and again for the last ``seconds``, all after ``since``."""
        now = time.monotonic()
        begin = max(since, now - seconds)
        return now - since >= seconds and all(writer.gap(begin, now) < max(1.0, seconds / 3) for writer in self.writers)

    def gap(self, begin: float, end: float) -> float:
        return max(writer.gap(begin, end) for writer in self.writers)

    def silence(self, begin: float, end: float) -> list[str]:
        """Return what the writer with the longest gap was told in it."""
        return max(self.writers, key=lambda writer: writer.gap(begin, end)).silence(begin, end)

    def interruptions(self, begin: float, end: float) -> int:
        """Return how often the writer that was hit most lost its connection: failures in a row count as one."""
        return max(writer.interruptions(begin, end) for writer in self.writers)

    def acknowledged(self) -> set[str]:
        return {key for writer in self.writers for _when, key in writer.acknowledged}

    def failures(self) -> Counter[str]:
        return Counter(text[:90] for writer in self.writers for _when, text in writer.failures)
