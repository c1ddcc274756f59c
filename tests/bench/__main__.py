"""python -m tests.bench [--seed N] [-n KILLS] [--keep] [--json FILE].

Every figure is a median with its spread, and stands beside what the bare parts need in the same run: libvirt's own
callback, a bare create on the API server, a bare hard reboot of Nova sent the moment libvirt's callback comes.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import libvirt
from rich.console import Console
from rich.table import Table

from tests.bench import drain
from tests.bench.agent import AgentBench
from tests.deployment import NAMESPACE, Deployment
from tests.lab import Lab, LabError, wait_until
from tests.timeline import Timeline, finished

IDLE_SECONDS = 60


@dataclass
class Figure:
    """One row: values in `unit`, what they are measured against, and the most that is wanted."""

    name: str
    values: list[float]
    unit: str = "s"
    limit: list[float] | None = None
    limit_name: str = ""
    wanted: float | None = None

    def met(self) -> bool | None:
        """Whether the median is within what is wanted; None when nothing is."""
        return None if self.wanted is None or not self.values else statistics.median(self.values) <= self.wanted


def spread(values: list[float] | None) -> str:
    """Median (least - most), n."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f}) n={len(values)}"


class Callbacks:
    """libvirt's own callbacks of all hypervisors: the fastest that anybody can know of a death."""

    def __init__(self, lab: Lab) -> None:
        self.deaths: queue.Queue[tuple[float, str]] = queue.Queue()
        self.storm: deque[tuple[float, str]] = deque(maxlen=10_000)  # every event
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=self._run, daemon=True).start()
        self.connections = [libvirt.openReadOnly(f"qemu+tcp://{host.address}/system") for host in lab.hosts.values()]
        for connection in self.connections:
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._reboot, None)

    @staticmethod
    def _run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    def _reboot(self, _connection, domain, _opaque) -> None:
        self.storm.append((time.time(), domain.UUIDString()))

    def _lifecycle(self, _connection, domain, event, detail, _opaque) -> None:
        self.storm.append((time.time(), domain.UUIDString()))
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED:
            self.deaths.put((time.time(), domain.UUIDString()))

    def wait(self, server: str, timeout: float = 30) -> float:
        """The moment of the next death of a server."""
        deadline = time.monotonic() + timeout
        while True:
            at, uuid = self.deaths.get(timeout=max(0.0, deadline - time.monotonic()))
            if uuid == server:
                return at

    def forget(self) -> None:
        """Drop what was told before."""
        while not self.deaths.empty():
            self.deaths.get_nowait()


class Bench:
    """A lab with agent and operator, and the figures."""

    def __init__(self, seed: int, kills: int) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.kills = kills
        self.figures: list[Figure] = []
        self.lab = Lab(seed=seed)
        self.deployment = Deployment(self.lab)

    def say(self, text: str) -> None:
        """Progress."""
        self.console.print(f"  {text}", markup=False)

    def up(self) -> None:
        """Lab, deployment and one server a host."""
        try:
            attached = Lab.attach(self.lab.seed)
            if not attached.is_up():
                raise LabError("not up")
            self.lab, self.deployment = attached, Deployment(attached)
        except LabError:
            # What is built once is built before the clock runs.
            for part in ("kubernetes", "nova"):
                getattr(self.lab, part).prepare(self.say)
            began = time.monotonic()
            self.lab.up(self.say)
            self.figures.append(Figure("lab up, warm", [time.monotonic() - began], wanted=60))
        self.lab.enter()
        self.deployment.deploy()
        self.deployment.wait_ready()
        self.servers = [self._server(f"bench-{host}", host) for host in self.lab.hosts]
        self.callbacks = Callbacks(self.lab)
        self.say(f"{len(self.servers)} servers run, agent and operator are deployed")

    def _server(self, name: str, host: str) -> str:
        compute = self.lab.nova.connection().compute
        for server in compute.servers(all_projects=True, name=name):
            return server.id
        return self.lab.nova.boot(name, host=host).id

    def idle(self) -> None:
        """Memory and idle CPU of each daemon, with all that it keeps beside itself, and of the whole lab."""
        self.say(f"idle for {IDLE_SECONDS} s")
        daemons = self.deployment.daemons()
        before = {daemon: _cpu(daemon.pid) for daemon in daemons}
        began = time.monotonic()
        time.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - began
        for role in ("agent", "operator"):
            mine = [daemon for daemon in daemons if daemon.role == role]
            memory = [sum(map(_pss, _tree(daemon.pid))) for daemon in mine]
            busy = [100 * (_cpu(daemon.pid) - before[daemon]) / seconds for daemon in mine]
            self.figures.append(Figure(f"{role}: memory", memory, "MB", wanted=170))
            self.figures.append(Figure(f"{role}: idle CPU", busy, "% of a core", wanted=1))
        total = sum(row["rss"] for row in self.lab.status() if row["part"] in ("control", *self.lab.hosts)) / 2**30
        self.figures.append(Figure("whole lab: memory", [total], "GiB", wanted=8))

    def recovery(self) -> None:
        """A guest's QEMU is killed, n times, round robin over the hosts."""
        callbacks = self.callbacks
        event, callback, eviction, create, running, whole = [], [], [], [], [], []
        with self.lab.oracle.watch(interval=0.02) as watch, Timeline(self.lab) as timeline:
            for number in range(self.kills):
                server = self.servers[number % len(self.servers)]
                boots = self._settled(server, watch)
                callbacks.forget()
                killed = time.time()
                self.lab.kill(server)
                boot = watch.wait_boots(server, boots + 1, 60)
                end = timeline.wait(server, lambda seen: finished(seen) and seen.at > killed, 60)
                occurred = _seconds(end.object["spec"]["occurredAt"])
                made = timeline.wait(server, lambda seen: seen.type == "ADDED" and seen.at > killed, 10).at
                event.append(occurred - killed)
                callback.append(callbacks.wait(server) - killed)
                eviction.append(made - occurred)
                create.append(self._bare_create())
                running.append(boot.at - killed)
                whole.append(end.at - killed)
                self.say(f"kill {number + 1} of {self.kills}: runs again after {running[-1]:.2f} s")
            self.deployment_scaled(0)
            bare = []
            for number in range(self.kills):
                server = self.servers[number % len(self.servers)]
                boots = self._settled(server, watch)
                callbacks.forget()
                killed = time.time()
                self.lab.kill(server)
                callbacks.wait(server)
                self.lab.nova.request("POST", f"/servers/{server}/action", {"reboot": {"type": "HARD"}})
                bare.append(watch.wait_boots(server, boots + 1, 60).at - killed)
                self.say(f"bare kill {number + 1} of {self.kills}: runs again after {bare[-1]:.2f} s")
            if watch.two_writers():
                raise LabError(f"two writers were seen: {watch.two_writers()}")
        self.lab.kubernetes.kubectl("delete", "evictions", "--all")
        self.deployment_scaled(1)
        self.figures += [
            Figure("kill to event", event, limit=callback, limit_name="bare libvirt callback"),
            Figure("event to Eviction", eviction, limit=create, limit_name="bare API create", wanted=0.7),
            Figure("kill to running again", running, limit=bare, limit_name="bare Nova hard reboot", wanted=2.5),
            Figure("kill to Eviction Succeeded", whole),
        ]

    def _settled(self, server: str, watch) -> int:
        """Wait until the guest has counted for a while and Nova is at rest; return its boots."""
        self.lab.nova.wait_server(server)
        watch.wait_counting(server, 3)
        return self.lab.oracle.counters(server).boots

    def _bare_create(self) -> float:
        name = "bare-create"
        path = "/apis/hypervisor.c5c3.io/v1/evictions"
        body = {
            "apiVersion": "hypervisor.c5c3.io/v1",
            "kind": "Eviction",
            "metadata": {"name": name},
            # Nobody acts on it: it tells only.
            "spec": {"hypervisor": name, "reason": "bench", "notifyOnly": True, "cause": "Maintenance"},
        }
        began = time.monotonic()
        self.lab.kubernetes.request("POST", path + "?dryRun=All", body)
        return time.monotonic() - began

    def deployment_scaled(self, replicas: int) -> None:
        """Another number of operators."""
        self.lab.kubernetes.kubectl("scale", "deployment", "-n", NAMESPACE, "--all", f"--replicas={replicas}")
        wait_until(lambda: len(self.deployment.daemons("operator")) == replicas, 60, f"{replicas} operators", 0.2)

    def starts(self) -> None:
        """Agent killed to guests watched again, by kubelet's own restart."""
        values = []
        for host in self.lab.hosts:
            killed = time.time()
            old = self.deployment.kill("agent", host)
            wait_until(
                lambda host=host, old=old: self.deployment.connected(host)
                and self.deployment.daemons("agent", host)[0].pid != old.pid,
                90,
                f"the agent of {host} is back",
                0.05,
            )
            values.append(time.time() - killed)
        self.figures.append(Figure("agent killed to watching again", values))

    def drain(self) -> None:
        """A host with 20 running servers is emptied by the step evict, then the same servers in upstream's way."""
        self.deployment_scaled(0)
        ours, upstream = drain.figures(self.lab, 20, self.say)
        self.deployment_scaled(1)
        self.figures += [
            Figure("drain of 20 running servers", [ours], limit=[upstream], limit_name="upstream's serial way"),
            Figure("the same, as share of upstream's", [ours / upstream], "of 1", wanted=1 / drain.WANTED_FACTOR),
        ]

    def report(self) -> int:
        """The table; 0 when every wanted figure is met."""
        table = Table(box=None, pad_edge=False)
        for column in ("figure", "median (least-most)", "wanted", "limit in the same run", "ratio"):
            table.add_column(column)
        for figure in self.figures:
            met = figure.met()
            wanted = "" if met is None else f"at most {figure.wanted:g}" + ("" if met else "  MISSED")
            limit = f"{spread(figure.limit)} {figure.limit_name}" if figure.limit else ""
            ratio = ""
            if figure.limit and figure.values:
                ratio = f"{statistics.median(figure.values) / statistics.median(figure.limit):.1f}"
            table.add_row(
                f"{figure.name} [{figure.unit}]".replace("[", "\\["), spread(figure.values), wanted, limit, ratio
            )
        self.console.print(table)
        return int(any(figure.met() is False for figure in self.figures))


def _tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [int(child) for child in children.read_text().split()]
    except OSError:
        return []
    return [pid, *(each for child in found for each in _tree(child))]


def _pss(pid: int) -> float:
    """Proportional set size in MB: pages that are shared with others count by share."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process and its ended children took."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = stat[stat.rindex(")") + 2 :].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def main() -> int:
    """Run it all; nonzero when a wanted figure is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seed", type=int, default=71)
    parser.add_argument("-n", "--kills", type=int, default=12)
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("--json", type=Path, help="write the values there, too")
    arguments = parser.parse_args()
    bench = Bench(arguments.seed, arguments.kills)
    try:
        bench.up()
        bench.idle()
        bench.recovery()
        bench.figures += AgentBench(bench, bench.callbacks).run(Figure)
        bench.starts()
        bench.drain()
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(figure) for figure in bench.figures], indent=1))
        return bench.report()
    except LabError as error:
        print(f"the bench failed: {error}", file=sys.stderr)
        return 2
    finally:
        if not arguments.keep:
            bench.lab.down()


if __name__ == "__main__":
    sys.exit(main())
