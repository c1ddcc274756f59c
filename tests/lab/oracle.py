"""What really happens to the guests, seen from outside: no Nova, no libvirt, no QMP is asked.

Two witnesses: the counters that the guest writes into sector 1 of its disk (tests/lab/guest), and the QEMU processes in
/proc. Whether a QEMU's vCPU runs is told by its thread's count of time slices: the guest wakes 18 times a second, and the
vCPU of a paused guest, or of one that waits for an incoming migration, never.

>>> with lab.oracle.watch() as watch:
...     lab.kill("vm1")
...     watch.wait_boots(server, 2, timeout=10)
>>> watch.two_writers(), watch.gaps(server), watch.boots(server)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import guest
from .guest import Counters
from .hosts import LabError, wait_until
from .hypervisors import own_disks

if TYPE_CHECKING:
    from . import Lab

_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_UUID_OPTION = re.compile(rb"\0-uuid\0(" + _UUID + rb")\0")
_NAME = re.compile(_UUID.decode())
# A process is looked at again for so many samples: it may not have become a QEMU yet.
_YOUNG = 40
# So many of the last ten samples with two running vCPUs are two writers. A live migration gives one: the source stops
# before the destination goes on; a starting QEMU may wake its vCPU once or twice more.
_BOTH, _RECENT = 5, 10


@dataclass(frozen=True)
class Process:
    """A QEMU, or in a lab of fake computes the file that stands for it.

    :param server: Nova's UUID of the server.
    :param host: the hypervisor it runs on.
    :param pid: as seen from outside; 0 when it is a file.
    """

    server: str
    host: str
    pid: int


@dataclass(frozen=True)
class Boot:
    """The guest has begun to count its `boots`-th start. `at`: seconds since the epoch."""

    at: float
    boots: int


@dataclass(frozen=True)
class Gap:
    """The guest did not count between `start` and `end` (seconds since the epoch); `end` None: it still does not."""

    start: float
    end: float | None

    @property
    def seconds(self) -> float:
        """Its length, until now when it has no end."""
        return (self.end or time.time()) - self.start


@dataclass(frozen=True)
class TwoWriters:
    """Two QEMUs of one server ran at once. `how`: what was seen."""

    at: float
    server: str
    how: str


@dataclass(frozen=True)
class Report:
    """One server.

    :param hosts: host to "running", "paused" or "frozen" for each QEMU; empty when none exists.
    :param state: "counting", "silent" (a QEMU exists, the counters stand still), "off", or for fake computes "running".
    """

    server: str
    name: str
    hosts: dict[str, str]
    state: str
    boots: int | None
    ticks: int | None
    total: int | None
    two_writers: bool


class Oracle:
    """The lab's witness.

    :param lab: its folder, hosts and part Nova are read.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store = lab.nova.store
        self._processes: dict[int, Process] = {}
        self._ages: dict[int, int] = {}
        self._namespaces: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def fake(self) -> bool:
        """Whether guests are files."""
        return self.lab.computes == "fake"

    # -- one look -----------------------------------------------------------------------------------------------------

    def guests(self) -> list[Process]:
        """Every QEMU on the lab's hosts right now, in whatever state."""
        return self._fake_guests() if self.fake else self._qemus()

    def _fake_guests(self) -> list[Process]:
        found = []
        for host in self.lab.hosts.values():
            if not host.running:
                continue
            for file in (self.lab.nova.directory / "state" / host.name / "vms").glob("[!.]*"):
                with contextlib.suppress(FileNotFoundError):
                    if json.loads(file.read_text())["state"] == 1:
                        found.append(Process(file.name, host.name, 0))
        return found

    def _qemus(self) -> list[Process]:
        with self._lock:
            pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
            for gone in self._ages.keys() - pids:
                del self._ages[gone]
                self._processes.pop(gone, None)
            for pid in pids:
                age = self._ages.get(pid, 0)
                if pid in self._processes or age > _YOUNG:
                    continue
                self._ages[pid] = age + 1
                with contextlib.suppress(OSError):
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        line = file.read()
                    if b"qemu-system" in line[:200] and (match := _UUID_OPTION.search(line)):
                        host = self._host_of(pid)
                        if host:
                            self._processes[pid] = Process(match.group(1).decode(), host, pid)
            return list(self._processes.values())

    def _host_of(self, pid: int) -> str | None:
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
        if namespace not in self._namespaces:
            self._namespaces = {}
            for host in self.lab.hosts.values():
                with contextlib.suppress(OSError):
                    self._namespaces[os.readlink(f"/proc/{host.pid}/ns/pid")] = host.name
        return self._namespaces.get(namespace)

    def qemu_pid(self, server: str, host: str | None = None) -> int | None:
        """The server's QEMU (on `host`) as seen from outside; the oldest of several; None when there is none."""
        pids = [each.pid for each in self.guests() if each.server == server and host in (None, each.host)]
        return min(pids, key=_started, default=None)

    def counters(self, server: str) -> Counters | None:
        """The counters on the server's disk; None when it has no disk, or no guest ever wrote it."""
        return self._sector(server)[1]

    def copies(self, server: str) -> dict[str, Counters | None]:
        """The counters on each copy of its disk, by where it lies: ``store``, or a host whose disks are its own."""
        return {place: sector[1] for place, path in self._places(server).items() if (sector := self._read(path))}

    def _places(self, server: str) -> dict[str, Path]:
        own = {name: own_disks(host) for name, host in self.lab.hosts.items()}
        return {place: folder / server / "disk" for place, folder in {"store": self.store, **own}.items()}

    def _sector(self, server: str) -> tuple[int, Counters | None]:
        """(inode of the disk, its counters). Of two copies, as in a block migration, the one that has come further."""
        found = [sector for path in self._places(server).values() if (sector := self._read(path))]
        return max(found, key=lambda sector: sector[1].total if sector[1] else -1, default=(0, None))

    @staticmethod
    def _read(disk: Path) -> tuple[int, Counters | None] | None:
        try:
            descriptor = os.open(disk, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(descriptor).st_ino, guest.parse_sector(os.pread(descriptor, 512, 512))
        finally:
            os.close(descriptor)

    def servers(self) -> list[str]:
        """UUIDs of every server that has a disk or a QEMU."""
        found = {each.server for each in self.guests()}
        for folder in (self.store, *map(own_disks, self.lab.hosts.values())):
            with contextlib.suppress(FileNotFoundError):
                found.update(name for name in os.listdir(folder) if _NAME.fullmatch(name))
        return sorted(found)

    # -- over time ----------------------------------------------------------------------------------------------------

    def watch(self, interval: float = 0.1, gap: float = 2.5) -> Watch:
        """A sampler in a thread, for use with ``with``.

        :param interval: seconds between two looks.
        :param gap: how long (seconds) a guest may not count before it is a gap; it counts once a second.
        """
        return Watch(self, interval, gap)

    def report(self, seconds: float = 2.5) -> list[Report]:
        """Look for some seconds, then tell every server's state. A guest counts once a second: look longer than that."""
        names = self.lab.nova.servers()
        with self.watch(gap=seconds) as watch:
            begin = {server: self.counters(server) for server in self.servers()}
            time.sleep(seconds)
            hosts = watch.hosts()
            reports = []
            for server in sorted({*begin, *hosts, *names}, key=lambda s: (names.get(s, ""), s)):
                now = self.counters(server)
                running = hosts.get(server, {})
                if not running:
                    state = "off"
                elif self.fake:
                    state = "running"
                else:
                    state = "counting" if now and now != begin.get(server) else "silent"
                two = any(each.server == server for each in watch.two_writers())
                boots, ticks, total = now or (None, None, None)
                reports.append(Report(server, names.get(server, ""), running, state, boots, ticks, total, two))
        return reports


@dataclass
class _Trace:
    """What was seen of one server."""

    boots: list[Boot] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    inode: int = 0
    last: Counters | None = None
    changed: float = 0.0
    both: dict[frozenset[int], deque[int]] = field(default_factory=dict)


class Watch:
    """What the sampler has seen since it was started; see :meth:`Oracle.watch`. Safe to ask while it runs."""

    def __init__(self, oracle: Oracle, interval: float, gap: float) -> None:
        self.oracle = oracle
        self.interval = interval
        self.gap = gap
        self.samples = 0
        self._traces: dict[str, _Trace] = defaultdict(_Trace)
        self._two_writers: list[TwoWriters] = []
        self._slices: dict[int, int] = {}
        self._moved: dict[int, float] = {}
        self._seen: list[Process] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="oracle", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        wait_until(lambda: self.samples or self._error, 10, "the oracle's first look")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error and not any(_error):
            raise LabError(f"the oracle's sampler died: {self._error!r}") from self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                with self._lock:
                    self._sample()
                self.samples += 1
                self._stop.wait(max(0.01, self.interval - (time.monotonic() - began)))
        except BaseException as error:  # pylint: disable=broad-exception-caught
            self._error = error

    def _sample(self) -> None:
        processes = self.oracle.guests()
        moving: dict[str, list[Process]] = defaultdict(list)
        now = time.time()
        for process in processes:
            slices = 0 if self.oracle.fake else _time_slices(process.pid)
            if self.oracle.fake or slices != self._slices.setdefault(process.pid, slices):
                moving[process.server].append(process)
                self._moved[process.pid] = now
            self._slices[process.pid] = slices
        self._seen = processes
        for server, several in moving.items():
            if len(several) > 1:
                self._note_both(server, several, now)
        if not self.oracle.fake:
            for server in self.oracle.servers() if self.samples % 5 == 0 else self._known():
                self._sample_disk(server)

    def _known(self) -> set[str]:
        return {*self._traces, *(each.server for each in self._seen)}

    def _note_both(self, server: str, processes: list[Process], now: float) -> None:
        pair = frozenset(each.pid or hash(each.host) for each in processes)
        trace = self._traces[server]
        recent = trace.both.setdefault(pair, deque(maxlen=_RECENT))
        recent.append(self.samples)
        if sum(self.samples - each < _RECENT for each in recent) >= _BOTH:
            places = ", ".join(f"{each.host} (QEMU {each.pid})" if each.pid else each.host for each in processes)
            self._note_two_writers(server, now, f"runs at once on {places}")
            recent.clear()

    def _note_two_writers(self, server: str, now: float, how: str) -> None:
        self._two_writers.append(TwoWriters(now, server, how))

    def _sample_disk(self, server: str) -> None:
        inode, counters = self.oracle._sector(server)
        now = time.time()
        trace = self._traces[server]
        before, trace.last = trace.last, counters or trace.last
        if counters is None or counters == before:
            return
        if trace.inode != inode:
            before, trace.inode = None, inode  # another disk: rebuilt, resized or evacuated without its data
        if before and (counters.boots, counters.ticks) < (before.boots, before.ticks):
            self._note_two_writers(server, now, f"counters went from {tuple(before)} back to {tuple(counters)}")
        if before is None or counters.boots != before.boots:
            trace.boots.append(Boot(now, counters.boots))
        if trace.changed and now - trace.changed > self.gap:
            trace.gaps.append(Gap(trace.changed, now))
        trace.changed = now

    # -- what was seen ------------------------------------------------------------------------------------------------

    def boots(self, server: str) -> list[Boot]:
        """The starts of the guest, oldest first; the first entry is what was found at the first look."""
        with self._lock:
            return list(self._traces[server].boots)

    def gaps(self, server: str) -> list[Gap]:
        """When the guest did not count for longer than the limit, oldest first; a running gap is the last."""
        with self._lock:
            trace = self._traces[server]
            gaps = list(trace.gaps)
            if trace.changed and time.time() - trace.changed > self.gap:
                gaps.append(Gap(trace.changed, None))
            return gaps

    def two_writers(self) -> list[TwoWriters]:
        """Every moment at which two QEMUs of one server were seen to run, oldest first."""
        with self._lock:
            return list(self._two_writers)

    def guests(self) -> list[Process]:
        """The QEMUs of the last look."""
        return list(self._seen)

    def hosts(self) -> dict[str, dict[str, str]]:
        """For each server with a QEMU: host to "running", "paused" or "frozen"."""
        with self._lock:
            found: dict[str, dict[str, str]] = defaultdict(dict)
            now = time.time()
            for each in self._seen:
                # Ten looks without a time slice: neither a loaded machine nor a halted vCPU explains that.
                lively = now - self._moved.get(each.pid, 0) < max(1.0, 10 * self.interval)
                state = "running" if self.oracle.fake or lively else "paused"
                if not self.oracle.fake and _stopped(each.pid):
                    state = "frozen"
                found[each.server][each.host] = state
            return dict(found)

    def wait_boots(self, server: str, boots: int, timeout: float = 60) -> Boot:
        """Wait until the guest has begun its `boots`-th start.

        :raises LabError: after `timeout` seconds.
        """

        def begun() -> Boot | None:
            if self._error:
                raise LabError(f"the oracle's sampler died: {self._error!r}")
            return next((boot for boot in self.boots(server) if boot.boots >= boots), None)

        return wait_until(begun, timeout, f"guest {server} counts its boot {boots}; it is at {self.boots(server)[-1:]}")

    def wait_counting(self, server: str, ticks: int = 1, timeout: float = 30) -> Counters:
        """Wait until the guest has counted `ticks` more than now; returns the counters.

        :raises LabError: after `timeout` seconds.
        """
        before = self.oracle.counters(server)
        start = before.total if before else 0

        def counted() -> Counters | None:
            now = self.oracle.counters(server)
            return now if now and now.total >= start + ticks else None

        return wait_until(counted, timeout, f"guest {server} counts on from {start}")


def _started(pid: int) -> int:
    """Start time in clock ticks since boot; 0 when gone."""
    with contextlib.suppress(OSError, ValueError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat[stat.rindex(")") + 2 :].split()[19])
    return 0


def _stopped(pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat[stat.rindex(")") + 2] in "tT"
    return False


_THREADS: dict[int, list[str]] = {}


def _time_slices(pid: int) -> int:
    """How often the vCPU threads of a QEMU were given the processor; 0 while it has none, or is gone."""
    try:
        threads = _THREADS.get(pid)
        if not threads:
            threads = []
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
                    # libvirt gives the threads names: "CPU 0/TCG", "CPU 0/KVM", "ALL CPUs/TCG"
                    if re.match(r"(CPU \d|ALL CPUs)", file.read()):
                        threads.append(f"/proc/{pid}/task/{task}/schedstat")
            _THREADS[pid] = threads
        total = 0
        for path in threads:
            with open(path, encoding="utf-8") as file:
                total += int(file.read().split()[2])
        return total
    except OSError:
        _THREADS.pop(pid, None)
        return 0
