"""The lab: Kubernetes with nodes, Nova and libvirt hypervisors, really running, on this one machine.

>>> from tests.lab import Lab
>>> lab = Lab(seed=0, hosts=3, parts=("kubernetes", "nova"))
>>> lab.up(print); lab.kubernetes.kubectl("get", "nodes"); lab.kill("cmp01"); lab.heal("cmp01"); lab.down()

A part is a class with these methods, which :class:`Lab` calls in this order (see :class:`Part`): ``prepare`` (build and
write files; nothing runs yet), ``start`` (the control namespace is on; parts run side by side in threads),
``define_host`` for each host (it is off: add setup lines and services), ``wait`` (hosts are on), ``stop``.
Parts live in ``tests.lab.kubernetes.Kubernetes`` and ``tests.lab.nova.Nova``; each is made as ``Class(lab)``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .daemons import RULEBOOKS, daemons
from .hosts import (
    CONTROL_ADDRESS,
    LAB_ROOT,
    Host,
    LabError,
    Namespace,
    enter_network,
    set_network,
    signal_process,
    wait_until,
)

if TYPE_CHECKING:
    from .bmc import Bmc
    from .kubernetes import Kubernetes
    from .nova import Nova
    from .oracle import Oracle

__all__ = ["Host", "Lab", "LabError", "Namespace", "Part", "wait_until"]

Progress = Callable[[str], None]
PARTS = ("kubernetes", "nova")
_INOTIFY_INSTANCES = 4096


def _quiet(_text: str) -> None:
    """No progress wanted."""


def _allow_watches() -> None:
    """Each kubelet, containerd and systemd of a test host takes some of the machine's 128 inotify instances.

    Without one a kubelet ends with "inotify_init: too many open files", and its Node never becomes Ready.
    """
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    with contextlib.suppress(OSError, ValueError):
        if int(limit.read_text()) < _INOTIFY_INSTANCES:
            limit.write_text(f"{_INOTIFY_INSTANCES}\n")


class Part:
    """What :class:`Lab` expects of a part. Every method may be left out by inheriting it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def prepare(self, progress: Progress) -> None:
        """Build what is cached, write configuration below ``lab.directory``. Nothing runs yet."""

    def start(self, progress: Progress) -> None:
        """Start the part's services in ``lab.control``, which is on. Called in a thread of its own."""

    def define_host(self, host: Host) -> None:
        """Add setup lines and services to a host that is off. Called once for each host, before :meth:`start`."""

    def wait(self, progress: Progress) -> None:
        """Wait until the part works, the hosts' side included. Every host is on."""

    def stop(self) -> None:
        """Called before everything is killed; need not do anything."""


class Lab:
    """One lab. Several with distinct seeds run side by side.

    :param seed: tells labs apart: folder names, cgroup names. Addresses are the same in each lab.
    :param hosts: how many hypervisor hosts, named cmp01, cmp02, ...
    :param parts: which of ``kubernetes`` and ``nova`` run.
    :param storage: ``per-host`` (one store mount in each host) or ``shared`` (one for all); for the part nova.
    :param computes: ``libvirt`` or ``fake``; for the part nova.
    :param kwok_nodes: how many simulated Nodes beside the real ones.
    :param node_grace: seconds without a heartbeat until Kubernetes calls a Node's state unknown.
    """

    def __init__(
        self,
        seed: int = 0,
        hosts: int = 3,
        parts: Sequence[str] = PARTS,
        storage: str = "per-host",
        computes: str = "libvirt",
        kwok_nodes: int = 0,
        node_grace: int = 10,
    ) -> None:
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise LabError(f"unknown part {', '.join(sorted(unknown))}: use {', '.join(PARTS)}")
        if storage not in ("per-host", "shared"):
            raise LabError(f"storage {storage!r}: use per-host or shared")
        if computes not in ("libvirt", "fake"):
            raise LabError(f"computes {computes!r}: use libvirt or fake")
        if not 0 <= hosts <= 99:
            raise LabError(f"hosts {hosts}: use 0 to 99")
        self.seed = int(seed)
        self.parts = tuple(parts)
        self.storage = storage
        self.computes = computes
        self.kwok_nodes = kwok_nodes
        self.node_grace = node_grace
        self.directory = LAB_ROOT / str(self.seed)
        self.host_names = [f"cmp{number:02}" for number in range(1, hosts + 1)]
        addresses = {name: f"10.66.0.{number}" for number, name in enumerate(self.host_names, 1)}
        names = {"control": CONTROL_ADDRESS, **addresses}
        self.control = Namespace("control", self.directory / "control", CONTROL_ADDRESS, seed=self.seed, names=names)
        self.hosts: dict[str, Host] = {
            name: Host(name, self.directory / name, address, bridge=self.control, seed=self.seed, names=names)
            for name, address in addresses.items()
        }

    # -- parts --------------------------------------------------------------------------------------------------------

    @cached_property
    def kubernetes(self) -> Kubernetes:
        """The part Kubernetes."""
        from .kubernetes import Kubernetes

        self._require_part("kubernetes")
        return Kubernetes(self)

    @cached_property
    def nova(self) -> Nova:
        """The part Nova (its control plane, libvirt and nova-compute on the hosts)."""
        from .nova import Nova

        self._require_part("nova")
        return Nova(self)

    @cached_property
    def oracle(self) -> Oracle:
        """What really happens to the guests, read from outside."""
        from .oracle import Oracle

        self._require_part("nova")
        return Oracle(self)

    @cached_property
    def bmc(self) -> Bmc:
        """The hosts' management controllers, whose switches kill and start them. They run only after ``bmc.up()``."""
        from .bmc import Bmc

        return Bmc(self)

    def _require_part(self, name: str) -> None:
        if name not in self.parts:
            raise LabError(f"lab {self.seed} runs without {name}: bring it up with --parts {','.join(PARTS)}")

    def _parts(self) -> list[Part]:
        return [getattr(self, name) for name in self.parts]

    # -- up and down --------------------------------------------------------------------------------------------------

    @classmethod
    def attach(cls, seed: int = 0) -> Lab:
        """The lab with this seed as somebody else brought it up.

        :raises LabError: when it is not up.
        """
        if not (LAB_ROOT / str(seed) / "lab.json").exists():
            raise LabError(f"lab {seed} is not up: tests/lab/lab up --seed {seed}")
        lab = cls.saved(seed)
        if not lab.control.running:
            raise LabError(f"lab {seed} is not up (it died or failed): tests/lab/lab down --seed {seed}, then up")
        return lab

    @classmethod
    def saved(cls, seed: int = 0) -> Lab:
        """The lab with this seed, with the settings it was last brought up with, or the default ones. It may be down."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            return cls(seed=seed, **json.loads((LAB_ROOT / str(seed) / "lab.json").read_text())["settings"])
        return cls(seed=seed)

    def is_up(self) -> bool:
        """Whether :meth:`up` has been completed and the control namespace lives."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.directory / "lab.json").read_text())["up"] and self.control.running
        return False

    def up(self, progress: Progress = _quiet) -> dict[str, float]:
        """Bring everything up; leftovers of a lab of this seed that died are removed first.

        :param progress: called with one line for each step.
        :return: seconds each phase took.
        :raises LabError: when it is up already, or a part does not come up (then all is killed, the logs are kept).
        """
        if os.geteuid() != 0:
            raise LabError("the lab makes namespaces and mounts: run it as root")
        times: dict[str, float] = {}
        with self._lock():
            if self.is_up():
                raise LabError(f"lab {self.seed} is up already: tests/lab/lab down --seed {self.seed}, or attach to it")
            if self.directory.exists():
                progress(f"remove what is left of an earlier lab {self.seed}")
                self._remove()
            self.directory.mkdir(parents=True)
            self._save(up=False)
            _allow_watches()
            try:
                with self._timed(times, "prepare"):
                    for part in self._parts():
                        part.prepare(progress)
                with self._timed(times, "hosts"):
                    self.control.start()
                    for host in self.hosts.values():
                        for part in self._parts():
                            part.define_host(host)
                with self._timed(times, "start"), ThreadPoolExecutor() as pool:
                    starts = [pool.submit(part.start, progress) for part in self._parts()]
                    for host in self.hosts.values():
                        host.start()
                    for start in starts:
                        start.result()
                with self._timed(times, "wait"):
                    for part in self._parts():
                        part.wait(progress)
            except BaseException:
                with contextlib.suppress(LabError):
                    self._kill_all()
                progress(f"failed; logs: {self.directory}/*/log")
                raise
            self._save(up=True)
        return times

    def down(self) -> None:
        """Kill everything and remove every file, mount, cgroup and namespace. Nothing to do when nothing is there."""
        with self._lock():
            if self.control.running:
                for part in self._parts():
                    with contextlib.suppress(LabError, ImportError):
                        part.stop()
            if self.directory.exists():
                self._remove()
        with contextlib.suppress(OSError):
            LAB_ROOT.rmdir()

    def _save(self, up: bool) -> None:
        settings = {
            "hosts": len(self.hosts),
            "parts": list(self.parts),
            "storage": self.storage,
            "computes": self.computes,
            "kwok_nodes": self.kwok_nodes,
            "node_grace": self.node_grace,
        }
        new = self.directory / "lab.json.new"
        new.write_text(json.dumps({"up": up, "settings": settings}, indent=1) + "\n")
        new.replace(self.directory / "lab.json")

    def _kill_all(self) -> None:
        """By what the folders say, not by this object's settings: they may be of another size."""
        machines: list[Namespace] = []
        for folder in sorted(self.directory.glob("*/init.sh")):
            name = folder.parent.name
            machines.append(self.hosts.get(name) or Namespace(name, folder.parent, "", seed=self.seed))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda machine: machine.kill(), [m for m in machines if m.name != "control"]))
        for machine in machines:
            machine.kill()

    def _remove(self) -> None:
        self._kill_all()
        root = str(self.directory)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4].encode().decode("unicode_escape")
            if point == root or point.startswith(root + "/"):
                subprocess.run(["umount", "--lazy", point], check=True)
        shutil.rmtree(self.directory)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time starts or stops a seed."""
        LAB_ROOT.mkdir(parents=True, exist_ok=True)
        path = LAB_ROOT / f".lock-{self.seed}"
        # A holder that was killed may for an instant leave a child that has not yet executed its program.
        patience = time.monotonic() + 1
        while True:
            lock = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                if time.monotonic() < patience:
                    time.sleep(0.05)
                    continue
                raise LabError(f"lab {self.seed} is just being started or stopped by somebody else: wait") from None
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(lock).st_ino:
                    break
            os.close(lock)  # its holder has just removed it
        try:
            yield
        finally:
            path.unlink()
            os.close(lock)

    @staticmethod
    @contextlib.contextmanager
    def _timed(times: dict[str, float], name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        times[name] = round(time.monotonic() - start, 2)

    def enter(self) -> None:
        """Move this process into the control namespace's network, so that it reaches every API of the lab.

        Call it before threads are started: a thread that runs already stays outside.
        """
        enter_network(self.control._require_running())

    @staticmethod
    def leave(descriptor: int) -> None:
        """Undo :meth:`enter`. ``descriptor``: /proc/self/ns/net, opened before it was called."""
        set_network(descriptor)

    # -- faults -------------------------------------------------------------------------------------------------------

    def machine(self, name: str) -> Namespace:
        """The host (or ``control``) with this name."""
        if name == "control":
            return self.control
        if name not in self.hosts:
            raise LabError(f"no host {name!r} in lab {self.seed}: it has {', '.join(self.hosts) or 'none'}")
        return self.hosts[name]

    def _target(self, name: str) -> tuple[Namespace, str | None] | None:
        """(machine, service or None) of a target's name; None when it must be a server."""
        if name.rpartition("/")[2] in RULEBOOKS:
            return None  # a container, no service of the lab
        if "/" in name:
            host, service = name.split("/", 1)
            machine = self.machine(host)
            machine._require_service(service)
            return machine, service
        if name in self.hosts or name == "control":
            return self.machine(name), None
        if name in self.control.services():
            return self.control, name
        return None

    def _server(self, name: str) -> list[int]:
        """The processes of an agent, the operators, or a server's QEMU, as pids seen from outside."""
        host, _, role = name.rpartition("/")
        if role in RULEBOOKS and (not host or host in self.hosts):
            found = daemons([self.hosts[host]] if host else self.hosts.values(), role)
            if not found:
                raise LabError(f"no {role} runs" + (f" on {host}" if host else ""))
            return [daemon.pid for daemon in found]
        known = f"hosts: {', '.join(self.hosts)}; parts: {', '.join(self.control.services())}; or HOST/SERVICE"
        if "nova" not in self.parts:
            raise LabError(f"no target {name!r} in lab {self.seed}. {known}")
        pids = self.nova.guest_processes(name)
        if not pids:
            raise LabError(f"{name!r} is no part, and no server with that name or UUID has a QEMU. {known}")
        return pids

    def kill(self, name: str, stay_down: bool = False) -> None:
        """Kill -9.

        :param name: a host (``cmp01``: power off, stays off until :meth:`heal`), a service of a host
            (``cmp01/libvirtd``) or of the control namespace (``kube-apiserver``), an agent (``cmp01/agent``), the
            operators (``operator``), or a server's name or UUID (its QEMU). Kubelet brings agents and operators back.
        :param stay_down: a service stays down until :meth:`heal`; else it comes back by itself.
        """
        target = self._target(name)
        if target:
            target[0].kill(target[1], stay_down)
            return
        for pid in self._server(name):
            signal_process(pid, signal.SIGKILL)

    def wait_answering(self, name: str, timeout: float = 60) -> None:
        """Wait until a service that was killed works again: a process that is only there cannot take the next fault.

        :param name: ``kube-apiserver``, or a service as of :meth:`tests.lab.nova.Nova.wait_answering`, a host's with its
            name before it (``cmp01/nova-compute``).
        :raises LabError: after `timeout` seconds.
        """
        host, _, service = name.rpartition("/")
        if service == "kube-apiserver":
            self.kubernetes.wait_answering(timeout)
        else:
            self.nova.wait_answering(service, host, timeout)

    def freeze(self, name: str) -> None:
        """Stop the processes of a host, service or server (targets as of :meth:`kill`) without ending them."""
        target = self._target(name)
        if target:
            target[0].freeze(target[1])
            return
        for pid in self._server(name):
            signal_process(pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Undo :meth:`freeze`."""
        target = self._target(name)
        if target:
            target[0].thaw(target[1])
            return
        for pid in self._server(name):
            signal_process(pid, signal.SIGCONT)

    def partition(self, name: str, mode: str = "drop") -> None:
        """Cut a host off from all others. ``mode``: ``drop`` (packets vanish) or ``link`` (eth0 down)."""
        machine = self.machine(name)
        if not isinstance(machine, Host):
            raise LabError("the control namespace cannot be cut off: partition the hosts")
        machine.partition(mode)

    def heal(self, name: str | None = None) -> None:
        """Undo every fault of a target; without ``name`` of all hosts and parts."""
        if name is None:
            for machine in (self.control, *self.hosts.values()):
                machine.heal()
            return
        target = self._target(name)
        if target:
            target[0].heal(target[1])
        else:
            self.thaw(name)

    # -- what runs ----------------------------------------------------------------------------------------------------

    def status(self) -> list[dict[str, Any]]:
        """One row for each machine and each of its services: ``part``, ``pid`` (or None), ``state``, ``rss`` (bytes)."""
        rows = []
        for machine in (self.control, *self.hosts.values()):
            processes = machine.processes() if machine.running else []
            state = "on" if machine.running else "off"
            if machine.running and machine.frozen:
                state = "frozen"
            elif isinstance(machine, Host) and machine.partitioned:
                state = f"partitioned ({machine.partitioned})"
            rows.append({"part": machine.name, "pid": machine.pid, "state": state, "rss": sum(map(_rss, processes))})
            for service in machine.services():
                pid = machine.service_pid(service)
                state = machine.service_state(service) or "off"
                tree = machine.descendants(pid) if pid else []
                if pid and _is_stopped(pid):
                    state = "frozen"
                label = service if machine is self.control else f"{machine.name}/{service}"
                rows.append({"part": label, "pid": pid, "state": state, "rss": sum(map(_rss, tree))})
        return rows

    def log_path(self, name: str) -> Path:
        """The file with the output of a service; for a machine, of its init."""
        target = self._target(name)
        if target is None:
            raise LabError(f"no part {name!r}; parts: {', '.join(r['part'] for r in self.status())}")
        machine, service = target
        return machine.log_path(service) if service else machine.directory / "init.log"


def _rss(pid: int) -> int:
    with contextlib.suppress(OSError, AttributeError):
        return int(re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M).group(1)) * 1024
    return 0


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat[stat.rindex(")") + 2] == "T"
    return False
