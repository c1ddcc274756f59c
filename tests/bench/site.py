"""The lab with agent and operator deployed, and the figures of one guest that dies.

Each stands beside what the bare parts need in the same run: libvirt's own callback, a bare create on the API server, a bare
hard reboot of Nova sent the moment libvirt's callback comes.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque

import libvirt
from rich.console import Console

from tests.bench.figures import Figure, cpu, pss, tree
from tests.deployment import NAMESPACE, Deployment
from tests.lab import Lab, LabError, wait_until
from tests.timeline import Timeline, finished, moment

IDLE_SECONDS = 60


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


class Site:
    """A lab with agent and operator, and the figures."""

    def __init__(self, seed: int, kills: int, console: Console) -> None:
        self.console = console
        self.kills = kills
        self.outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._use(Lab(seed=seed))

    def _use(self, lab: Lab) -> None:
        self.lab = lab
        # The same guests die again and again: no crash loop of their own making.
        rulebook = {"c5c3_ha_resync_seconds": 5, "c5c3_ha_crash_restarts": 100}
        self.deployment = Deployment(lab, settings={"hypervisor_operator_rulebook_vars": rulebook})

    def say(self, text: str) -> None:
        """Progress."""
        self.console.print(f"  {text}", markup=False)

    def up(self) -> list[Figure]:
        """Lab, deployment and one server a host."""
        figures = []
        try:
            attached = Lab.attach(self.lab.seed)
            if not attached.is_up():
                raise LabError("not up")
            self._use(attached)
        except LabError:
            # What is built once is built before the clock runs.
            for part in ("kubernetes", "nova"):
                getattr(self.lab, part).prepare(self.say)
            began = time.monotonic()
            self.lab.up(self.say)
            figures.append(Figure("lab up, warm", [time.monotonic() - began], wanted=60))
        self.lab.enter()
        self.deployment.deploy()
        self.deployment.wait_ready()
        self.servers = [self._server(f"bench-{host}", host) for host in self.lab.hosts]
        self.callbacks = Callbacks(self.lab)
        self.say(f"{len(self.servers)} servers run, agent and operator are deployed")
        return figures

    def down(self) -> None:
        """Leave the lab's network and end the lab."""
        self.lab.leave(self.outside)
        self.lab.down()

    def _server(self, name: str, host: str) -> str:
        compute = self.lab.nova.connection().compute
        for server in compute.servers(all_projects=True, name=name):
            return server.id
        return self.lab.nova.boot(name, host=host).id

    def idle(self) -> list[Figure]:
        """Memory and idle CPU of each daemon, with all that it keeps beside itself, and of the whole lab."""
        self.say(f"idle for {IDLE_SECONDS} s")
        daemons = self.deployment.daemons()
        before = {daemon: cpu(daemon.pid) for daemon in daemons}
        began = time.monotonic()
        time.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - began
        figures = []
        for role in ("agent", "operator"):
            mine = [daemon for daemon in daemons if daemon.role == role]
            memory = [sum(map(pss, tree(daemon.pid))) for daemon in mine]
            busy = [100 * (cpu(daemon.pid) - before[daemon]) / seconds for daemon in mine]
            figures.append(Figure(f"{role}: memory", memory, "MB", wanted=170))
            figures.append(Figure(f"{role}: idle CPU", busy, "% of a core", wanted=1))
        total = sum(row["rss"] for row in self.lab.status() if row["part"] in ("control", *self.lab.hosts)) / 2**30
        return [*figures, Figure("whole lab: memory", [total], "GiB", wanted=8)]

    def recovery(self) -> list[Figure]:
        """A guest's QEMU is killed, n times, round robin over the hosts."""
        callbacks = self.callbacks
        event, callback, eviction, create, running, whole = [], [], [], [], [], []
        with self.lab.oracle.watch(interval=0.02) as watch, Timeline(self.lab) as timeline:
            for number in range(self.kills):
                server = self.servers[number % len(self.servers)]
                boots = self.settled(server, watch)
                callbacks.forget()
                killed = time.time()
                self.lab.kill(server)
                boot = watch.wait_boots(server, boots + 1, 60)
                end = timeline.wait(server, lambda seen: finished(seen) and seen.at > killed, 60)
                occurred = moment(end.object["spec"]["occurredAt"])
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
                boots = self.settled(server, watch)
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
        return [
            Figure("kill to event", event, limit=callback, limit_name="bare libvirt callback"),
            Figure("event to Eviction", eviction, limit=create, limit_name="bare API create", wanted=0.7),
            Figure("kill to running again", running, limit=bare, limit_name="bare Nova hard reboot", wanted=2.5),
            Figure("kill to Eviction Succeeded", whole),
        ]

    def settled(self, server: str, watch) -> int:
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

    def starts(self) -> list[Figure]:
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
        return [Figure("agent killed to watching again", values)]
