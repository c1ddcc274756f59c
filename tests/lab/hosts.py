"""Namespaces that stand for machines: the control namespace and the hypervisor hosts of a lab.

Process tree of each: ``unshare`` (outside) > ``tini`` (PID 1, reaps at once) > ``init.sh`` (``sleep``), and beside it one
``runsv`` for each service, so that a killed service is started again as systemd would with ``Restart=always``.
There is no ``runsvdir``: it looks for new services only every 5 s.

Everything a namespace needs lies in its folder::

    init.sh init.log   what PID 1's child runs, and what it printed
    setup              the setup lines
    pid                "PID STARTTIME" of PID 1, seen from outside
    cgroups            its cgroup folders, one a line
    service/NAME/run   runit services; they outlive a power cycle
    log/NAME.log       stdout and stderr of a service
    var/               a host's disk: bound on /var, kept over a power cycle (/run is not)

Needs root, cgroup v1 hierarchies, and Debian's tini, runit, iproute2, nftables, util-linux.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CONTROL_ADDRESS = "10.66.0.254"
NETWORK = "10.66.0.0/24"
PREFIX_LENGTH = 24
BRIDGE = "br0"
BRIDGE_MAC = "02:c5:c3:00:00:01"
LAB_ROOT = Path("/var/lib/c5c3-lab")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NFT_TABLE = "inet c5c3_lab_partition"
_NFT_PARTITION = f"""table {_NFT_TABLE}
delete table {_NFT_TABLE}
table {_NFT_TABLE} {{
    chain input {{ type filter hook input priority -300; iifname "eth0" drop; }}
    chain output {{ type filter hook output priority -300; oifname "eth0" drop; }}
    chain forward {{ type filter hook forward priority -300; iifname "eth0" drop; oifname "eth0" drop; }}
}}
"""


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message says what to do next."""


def wait_until(condition: Callable[[], object], timeout: float, what: str, interval: float = 0.02) -> object:
    """Call ``condition`` until it is true and return its value.

    :param timeout: seconds.
    :param what: the awaited state, for the error ("cmp01 is up").
    :raises LabError: after ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise LabError(f"waited {timeout:g} s in vain for this: {what}")
        time.sleep(interval)


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, None when it is gone or only a zombie is left of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def signal_process(pid: int, number: int) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def set_network(descriptor: int) -> None:
    """Move the calling thread into the network namespace of an open ``/proc/PID/ns/net``."""
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(descriptor, 0)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter_network(pid: int) -> None:
    """Move the calling thread into the network namespace of ``pid``."""
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        set_network(descriptor)
    finally:
        os.close(descriptor)


_CPU_SHARES = 8192


def _cgroup_hierarchies() -> list[tuple[str, str, Path]]:
    """(mount option, folder name, this process's own cgroup folder) of each cgroup v1 hierarchy that is mounted.

    A systemd in a container (tests/stack) mounts further ones for itself, which this process then is in, too.
    """
    result = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if not controllers:
            continue  # the v2 hierarchy
        name = controllers.removeprefix("name=")
        option = f"none,{controllers}" if controllers.startswith("name=") else controllers
        own = Path("/sys/fs/cgroup") / name / path.lstrip("/")
        if own.is_dir():
            result.append((option, name, own))
    if not any(name == "freezer" for _option, name, _path in result):
        raise LabError(
            "the lab needs cgroup v1 hierarchies (freezer, pids, memory, ...) below /sys/fs/cgroup;"
            " boot with systemd.unified_cgroup_hierarchy=0"
        )
    return result


class Namespace:
    """One machine of the lab. This class alone is the control namespace, which holds the bridge.

    :param name: its host name.
    :param directory: its folder; made when missing.
    :param address: its IPv4 address in 10.66.0.0/24.
    :param seed: the lab's seed, for cgroup names.
    :param setup: shell lines that init runs (with ``set -e``) after the mounts and the network, before the services.
        :meth:`add_setup` adds more, any time before :meth:`start`; they also run at each later start.
    :param names: host name to address, for /etc/hosts.
    """

    _unshare = ("--mount", "--uts", "--ipc", "--net", "--pid")
    _hierarchies = ("freezer", "pids")

    def __init__(
        self,
        name: str,
        directory: Path | str,
        address: str,
        *,
        seed: int = 0,
        setup: Iterable[str] = (),
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = Path(directory)
        self.address = address
        self.seed = seed
        self.setup: list[str] = list(setup)
        self.names = dict(names or {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid={self.pid}>"

    def add_setup(self, *lines: str) -> None:
        """Add shell lines to :attr:`setup`; a line that is there already is not added again."""
        self.setup.extend(line for line in lines if line not in self.setup)

    # -- power --------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """PID 1 of the namespace as seen from outside, None while the machine is off."""
        try:
            pid, start = (self.directory / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if process_start(int(pid)) == int(start) else None

    @property
    def running(self) -> bool:
        """Whether the machine is on."""
        return self.pid is not None

    def start(self, timeout: float = 30) -> None:
        """Power on: make the namespaces, run the setup lines, start every service. Nothing to do when it is on.

        :raises LabError: when init fails (with the end of init.log) or takes longer than ``timeout`` seconds.
        """
        if self.running:
            return
        self._remove_cgroups()
        for folder in ("service", "log", "etc"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        for stale in ("ready", "pid", "unshare.pid", "partitioned"):
            (self.directory / stale).unlink(missing_ok=True)
        for service in self.services():
            shutil.rmtree(self._service(service) / "supervise", ignore_errors=True)
        self._write_hosts_file()
        # Whoever attached to a running lab has no setup lines: those of the first start hold.
        setup = self.directory / "setup"
        if self.setup:
            setup.write_text("\n".join(self.setup) + "\n")
        elif setup.exists():
            self.setup = setup.read_text().splitlines()
        script = self.directory / "init.sh"
        script.write_text(self._init_script())
        cgroups = self._make_cgroups()
        join = "".join(f"echo $$ >{shlex.quote(str(c / 'cgroup.procs'))}; " for c in cgroups)
        unshare = ["unshare", *self._unshare, "--fork", "--kill-child", "--mount-proc", "tini", "--", "sh", str(script)]
        unshare_pid = self.directory / "unshare.pid"
        with open(self.directory / "init.log", "wb") as log:
            subprocess.run(
                [
                    *("setsid", "--fork", "sh", "-c"),
                    f'set -e; {join}echo $$ >"$0"; exec "$@"',
                    *(str(unshare_pid), *unshare),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"},
                cwd="/",
                check=True,
            )

        def unshare_started() -> int | None:
            text = self._stat(unshare_pid)
            return int(text) if text else None

        outer = int(wait_until(unshare_started, timeout, f"unshare of {self.name} starts"))
        own = os.readlink("/proc/self/ns/pid")

        def first_process() -> int | None:
            if process_start(outer) is None:
                raise LabError(f"{self.name} does not start: {self._init_log()}")
            with contextlib.suppress(OSError):
                for child in map(int, Path(f"/proc/{outer}/task/{outer}/children").read_text().split()):
                    if os.readlink(f"/proc/{child}/ns/pid") != own:
                        return child
            return None

        pid = int(wait_until(first_process, timeout, f"PID 1 of {self.name}"))
        start = process_start(pid)
        if start is None:
            raise LabError(f"{self.name} does not start: {self._init_log()}")
        pid_file = self.directory / "pid.new"
        pid_file.write_text(f"{pid} {start}\n")
        pid_file.replace(self.directory / "pid")
        self._connect(pid)

        def ready() -> bool:
            if not self.running:
                raise LabError(f"{self.name} does not start: {self._init_log()}")
            return (self.directory / "ready").exists()

        wait_until(ready, timeout, f"{self.name} is set up (see {self.directory}/init.log)")

    def kill(self, service: str | None = None, stay_down: bool = False) -> None:
        """Kill -9. Without ``service``: power off; the machine stays off until :meth:`start` or :meth:`heal`.

        :param service: kill only this service's main process with all below it; it comes back by itself within 1 s.
        :param stay_down: the service stays down until :meth:`heal`.
        """
        if service is not None:
            self._kill_service(service, stay_down)
            return
        pid = self.pid
        if pid is not None:
            if self.frozen:  # a frozen process takes SIGKILL only when thawed: all get theirs before any runs on
                for process in self.processes():
                    signal_process(process, signal.SIGKILL)
            signal_process(pid, signal.SIGKILL)
            if self.frozen:
                self._set_freezer("THAWED")
            wait_until(lambda: process_start(pid) is None, 20, f"{self.name} (PID {pid}) is off")
        self._kill_rest()
        (self.directory / "pid").unlink(missing_ok=True)
        # As after a crash of a machine: left cgroups of containers make the next kubelet 3 s later for each.
        self._remove_cgroups()

    def _kill_rest(self) -> None:
        """End what is left in the cgroups although PID 1 has gone (unshare, a start that was broken off)."""

        def empty() -> bool:
            left = [p for p in self.processes() if process_start(p) is not None]
            for process in left:
                signal_process(process, signal.SIGKILL)
            return not left

        if self._cgroups() and self.processes():
            with contextlib.suppress(OSError):
                self._set_freezer("THAWED")
            wait_until(empty, 20, f"the last processes of {self.name} end")

    # -- faults -------------------------------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether the whole machine is frozen."""
        with contextlib.suppress(OSError, LabError):
            return (self._freezer() / "freezer.state").read_text().strip() != "THAWED"
        return False

    def freeze(self, service: str | None = None) -> None:
        """Stop the whole machine's processes (cgroup freezer; its kernel still answers ping), or one service's with
        SIGSTOP (main process and descendants; QEMUs and containers are no descendants)."""
        if service is None:
            self._require_running()
            self._set_freezer("FROZEN")
            try:
                wait_until(lambda: (self._freezer() / "freezer.state").read_text().strip() == "FROZEN", 30, "frozen")
            except LabError:
                self._set_freezer("THAWED")  # most of its processes stand still already
                raise
        else:
            self._signal_service(service, signal.SIGSTOP)

    def thaw(self, service: str | None = None) -> None:
        """Undo :meth:`freeze`."""
        if service is None:
            self._require_running()
            self._set_freezer("THAWED")
        else:
            self._signal_service(service, signal.SIGCONT)

    def heal(self, service: str | None = None) -> None:
        """Undo every fault: power on, thaw, end the partition, start what was killed with ``stay_down``.

        :param service: heal only this service.
        """
        if service is not None:
            self._require_running()
            self._control(service, "c")
            self._control(service, "u")
            if self.service_pid(service):
                self._signal_service(service, signal.SIGCONT)
            wait_until(lambda: self.service_pid(service), 10, f"{self.name}/{service} runs")
            return
        if not self.running:
            self.start()
            return
        self.thaw()
        for each in self.services():
            self.heal(each)

    # -- commands -----------------------------------------------------------------------------------------------------

    def command(self, argv: Sequence[str], cwd: str | os.PathLike | None = None) -> list[str]:
        """The argv that runs ``argv`` inside all namespaces and cgroups of this machine."""
        pid = self._require_running()
        if self.frozen:
            raise LabError(f"{self.name} is frozen: thaw it first")
        join = "".join(f"echo $$ >{shlex.quote(str(c / 'cgroup.procs'))}; " for c in self._cgroups())
        # nsenter's child ends with nsenter, so that a time-out or a kill of it leaves nothing behind.
        inner = ["nsenter", "--target", str(pid), "--all", "--", "setpriv", "--pdeathsig", "KILL"]
        inner += ["env", "-C", str(cwd or "/"), "--"]
        return ["sh", "-c", f'{join}exec "$@"', "sh", *inner, *map(str, argv)]

    def exec(self, argv: Sequence[str], **kwargs) -> subprocess.CompletedProcess:
        """Run a command inside. Keywords as of ``subprocess.run``; ``cwd`` is a folder inside (default ``/``).

        :raises LabError: when the machine is off or frozen.
        """
        kwargs.setdefault("check", False)
        return subprocess.run(self.command(argv, kwargs.pop("cwd", None)), **kwargs)  # noqa: PLW1510

    def popen(self, argv: Sequence[str], **kwargs) -> subprocess.Popen:
        """As :meth:`exec`, without waiting. Its pid is nsenter's; with -9 to that the command ends too."""
        return subprocess.Popen(self.command(argv, kwargs.pop("cwd", None)), **kwargs)

    def in_network(self, function: Callable[..., T], *args, **kwargs) -> T:
        """Call ``function`` in a thread of its own that is in this machine's network namespace; return its value."""
        pid = self._require_running()

        def call() -> T:
            enter_network(pid)
            return function(*args, **kwargs)

        # A new thread each time: it ends with the call, nobody else inherits its namespace.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(call).result()

    def network_exec(self, argv: Sequence[str], **kwargs) -> subprocess.CompletedProcess:
        """Run a command of the outer machine in this machine's network namespace only (works while it is frozen)."""
        kwargs.setdefault("check", False)
        command = ["nsenter", "--target", str(self._require_running()), "--net", "--", *argv]
        return subprocess.run(command, **kwargs)  # noqa: PLW1510

    # -- services -----------------------------------------------------------------------------------------------------

    def services(self) -> list[str]:
        """Names of the services, sorted."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(p.name for p in (self.directory / "service").iterdir() if not p.name.startswith("."))
        return []

    def add_service(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike | None = None,
    ) -> None:
        """Define a service; it starts at once when the machine is on, else at its start, and is restarted for ever.

        The program must stay in the foreground. Its output goes to ``log/NAME.log``. A service of that name which
        exists already is stopped and replaced.

        :param env: added to a minimal environment (PATH, HOME, LANG).
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            raise LabError(f"service name {name!r}: use lower case letters, digits, dots, dashes")
        if name in self.services():
            self.remove_service(name)
        folder = self.directory / "service" / f".{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (self.directory / "log").mkdir(exist_ok=True)
        variables = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **(env or {})}
        run = [
            "#!/bin/sh",
            f"exec >>{shlex.quote(str(self.log_path(name)))} 2>&1 </dev/null",
            f"cd {shlex.quote(str(cwd or '/'))} || exit 1",
            "exec env -i \\",
            *(f"  {shlex.quote(f'{key}={value}')} \\" for key, value in variables.items()),
            "  chpst -P " + shlex.join(map(str, argv)),  # -P: a session of its own
        ]
        # Not world-readable: the environment may hold a password.
        with open(os.open(folder / "run", os.O_CREAT | os.O_WRONLY, 0o700), "w", encoding="utf-8") as file:
            file.write("\n".join(run) + "\n")
        folder.rename(self._service(name))
        if self.running:
            self._spawn_supervisor(name)
            wait_until((self._service(name) / "supervise" / "stat").exists, 10, f"runsv of {name} runs")

    def remove_service(self, name: str) -> None:
        """Stop a service (TERM, KILL after 5 s), its supervisor too, and forget it."""
        self._require_service(name)
        if self.running and self.service_state(name):
            self._control(name, "d")
            with contextlib.suppress(LabError):
                wait_until(lambda: self.service_pid(name) is None, 5, "stopped")
            self._control(name, "kx")
            wait_until(lambda: not self._control(name, "x"), 10, f"the supervisor of {self.name}/{name} ends")
        shutil.rmtree(self._service(name))

    def stop_service(self, name: str, timeout: float = 10) -> None:
        """End a service with TERM, after ``timeout`` seconds with KILL; it stays down until :meth:`heal`."""
        self._control(name, "d")
        try:
            wait_until(lambda: self.service_pid(name) is None, timeout, "stopped")
        except LabError:
            self._control(name, "k")
            wait_until(lambda: self.service_pid(name) is None, 5, f"{self.name}/{name} ends on SIGKILL")

    def restart_service(self, name: str, timeout: float = 10) -> None:
        """Stop a service with TERM and start it again."""
        self.stop_service(name, timeout)
        self.heal(name)

    def service_pid(self, name: str) -> int | None:
        """The service's main process as seen from outside, None while it is not running."""
        if not self.running:
            return None
        text = self._stat(self._service(name) / "supervise" / "pid")
        return self.outside_pid(int(text)) if text else None

    def service_state(self, name: str) -> str:
        """``run``, ``down``, ``run, want down`` ... as runit's sv shows it; empty when no supervisor runs."""
        return self._stat(self._service(name) / "supervise" / "stat") if self.running else ""

    def log_path(self, name: str) -> Path:
        """The file with the service's output."""
        return self.directory / "log" / f"{name}.log"

    # -- processes ----------------------------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Every process of this machine, containers included, as pids seen from outside."""
        pids: set[int] = set()
        cgroups = self._cgroups()
        for folder in cgroups[:1]:
            for procs in folder.glob("**/cgroup.procs"):
                with contextlib.suppress(OSError):
                    pids.update(map(int, procs.read_text().split()))
        return sorted(pids)

    def outside_pid(self, inside: int) -> int | None:
        """The pid seen from outside of a process that has pid ``inside`` in this machine's PID namespace."""
        pid = self.pid
        if pid is None:
            return None
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
        for process in self.processes():
            with contextlib.suppress(OSError, ValueError):
                if os.readlink(f"/proc/{process}/ns/pid") != namespace:
                    continue
                status = Path(f"/proc/{process}/status").read_text()
                if int(re.search(r"^NSpid:.*\s(\d+)$", status, re.M).group(1)) == inside:
                    return process
        return None

    def descendants(self, pid: int) -> list[int]:
        """``pid`` and all processes below it (pids seen from outside)."""
        result = [pid]
        for each in result:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{each}/task").iterdir():
                    result.extend(map(int, (task / "children").read_text().split()))
        return result

    # -- inner parts --------------------------------------------------------------------------------------------------

    def _service(self, name: str) -> Path:
        return self.directory / "service" / name

    def _require_service(self, name: str) -> None:
        if name not in self.services():
            raise LabError(f"{self.name} has no service {name!r}; it has: {', '.join(self.services()) or 'none'}")

    def _require_running(self) -> int:
        pid = self.pid
        if pid is None:
            raise LabError(f"{self.name} is off: start it (lab heal {self.name}), or bring the lab up (lab up)")
        return pid

    @staticmethod
    def _stat(path: Path) -> str:
        with contextlib.suppress(FileNotFoundError):
            return path.read_text().strip()
        return ""

    def _control(self, service: str, letters: str) -> bool:
        """Write to the supervisor's control pipe; False when no supervisor reads it."""
        self._require_service(service)
        try:
            pipe = os.open(self._service(service) / "supervise" / "control", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        with os.fdopen(pipe, "wb", buffering=0) as file:
            try:
                file.write(letters.encode())
            except BrokenPipeError:
                return False
        return True

    def _spawn_supervisor(self, name: str) -> None:
        # Its parent ends at once, so tini takes it.
        self.exec(
            ["sh", "-c", 'setsid runsv "$0" </dev/null >/dev/null 2>&1 &', str(self._service(name))],
            check=True,
            env={"PATH": PATH},
        )

    def _kill_service(self, name: str, stay_down: bool) -> None:
        self._require_service(name)
        self._require_running()
        if stay_down:
            self._control(name, "o")  # once: not to be started again when it ends
            wait_until(lambda: "want down" in self.service_state(name), 5, f"runsv of {name} takes the order")
        pid = self.service_pid(name)
        if pid is None:
            if stay_down:
                self._control(name, "d")
                return
            raise LabError(f"{self.name}/{name} is not running: lab heal {self.name}/{name} starts it")
        # A worker that outlives its master would go on answering for a second.
        for process in self.descendants(pid):
            signal_process(process, signal.SIGKILL)
        wait_until(lambda: process_start(pid) is None or self.frozen, 10, f"{self.name}/{name} (PID {pid}) ends")
        if stay_down:
            wait_until(lambda: self.service_state(name).startswith("down"), 5, f"{self.name}/{name} is down")

    def _signal_service(self, name: str, number: int) -> None:
        self._require_service(name)
        pid = self.service_pid(name)
        if pid is None:
            raise LabError(f"{self.name}/{name} is not running: lab heal {self.name}/{name} starts it")
        for process in self.descendants(pid):
            signal_process(process, number)

    def _cgroups(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [Path(line) for line in (self.directory / "cgroups").read_text().splitlines()]
        return []

    def _freezer(self) -> Path:
        for folder in self._cgroups():
            if (folder / "freezer.state").exists():
                return folder
        raise LabError(f"{self.name} has no freezer cgroup: it is off")

    def _set_freezer(self, state: str) -> None:
        (self._freezer() / "freezer.state").write_text(state)

    def _make_cgroups(self) -> list[Path]:
        """Below this process's own cgroups, so that whoever ends this session finds the lab's processes there."""
        folders = []
        for _option, name, own in _cgroup_hierarchies():
            if self._hierarchies and name not in self._hierarchies:
                continue
            folder = own / f"c5c3-lab-{self.seed}-{self.name}"
            folder.mkdir(exist_ok=True)
            if name == "cpuset":
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (folder / file).write_text((own / file).read_text())
            if name == "cpu":
                # A whole machine would else weigh as much as one process of the tests outside.
                (folder / "cpu.shares").write_text(str(_CPU_SHARES))
            folders.append(folder)
        folders.sort(key=lambda f: "/freezer/" not in str(f))  # processes() reads the first
        (self.directory / "cgroups").write_text("".join(f"{f}\n" for f in folders))
        return folders

    def _remove_cgroups(self) -> None:
        def gone() -> bool:
            left = False
            for top in self._cgroups():
                for folder, _folders, _files in os.walk(top, topdown=False):
                    try:
                        os.rmdir(folder)
                    except FileNotFoundError:
                        pass
                    except OSError:
                        left = True
            return not left

        wait_until(gone, 10, f"the cgroups of {self.name} are empty")
        (self.directory / "cgroups").unlink(missing_ok=True)

    def _init_log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "init.log").read_text(errors="replace")[-2000:].strip() or "no output"
        return "no init.log"

    def _write_hosts_file(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.names.items())]
        (self.directory / "etc" / "hosts").write_text("\n".join(lines) + "\n")

    def _connect(self, pid: int) -> None:
        """Give the machine its network; init waits for it."""

    def _mount_lines(self) -> Iterator[str]:
        yield "mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p /run/lock"

    def _network_lines(self) -> Iterator[str]:
        # one of its own: it would change with its ports, and the hypervisors lose control for seconds when one of them dies
        yield f"ip link add {BRIDGE} address {BRIDGE_MAC} type bridge"
        yield f"ip addr add {self.address}/{PREFIX_LENGTH} dev {BRIDGE}; ip link set {BRIDGE} up"

    def _init_script(self) -> str:
        directory = shlex.quote(str(self.directory))
        return "\n".join(
            [
                "set -e",
                f"hostname {self.name}",
                *self._mount_lines(),
                f"mount --bind {directory}/etc/hosts /etc/hosts",
                "ip link set lo up",
                *self._network_lines(),
                *self.setup,
                "set +e",
                f"for s in {directory}/service/*/; do [ ! -e $s/run ] || setsid runsv ${{s%/}} </dev/null >/dev/null 2>&1 & done",
                f": >{directory}/ready",
                "exec sleep infinity",
                "",
            ]
        )


class Host(Namespace):
    """A hypervisor host: mount, UTS, IPC, network, PID and cgroup namespaces, a disk on /var, eth0 on the bridge.

    :param bridge: the control namespace; it must be on before the host starts.
    """

    _unshare = (*Namespace._unshare, "--cgroup")
    _hierarchies = ()  # all: a kubelet makes its pods' cgroups below

    def __init__(self, name: str, directory: Path | str, address: str, *, bridge: Namespace, **kwargs) -> None:
        super().__init__(name, directory, address, **kwargs)
        self.bridge = bridge

    @property
    def partitioned(self) -> str:
        """``drop`` or ``link`` while the host is cut off, else empty."""
        return self._stat(self.directory / "partitioned") if self.running else ""

    def partition(self, mode: str = "drop") -> None:
        """Cut the host off from the bridge.

        :param mode: ``drop``: nft drops every packet on eth0, connections hang; ``link``: eth0 goes down.
        """
        if mode == "drop":
            self.network_exec(["nft", "-f", "-"], input=_NFT_PARTITION, text=True, check=True)
        elif mode == "link":
            self.network_exec(["ip", "link", "set", "eth0", "down"], check=True)
        else:
            raise LabError(f"partition mode {mode!r}: use drop or link")
        (self.directory / "partitioned").write_text(mode)

    def heal(self, service: str | None = None) -> None:
        if service is None and self.running:
            if self.partitioned == "drop":
                self.network_exec(["nft", "delete", "table", *_NFT_TABLE.split()], check=True)
            elif self.partitioned == "link":
                self.network_exec(["ip", "link", "set", "eth0", "up"], check=True)
                self.network_exec(["ip", "route", "replace", "default", "via", self.bridge.address], check=True)
            (self.directory / "partitioned").unlink(missing_ok=True)
        super().heal(service)

    def _connect(self, pid: int) -> None:
        link = f"v-{self.name}"
        self.bridge.network_exec(["ip", "link", "del", link], stderr=subprocess.DEVNULL, check=False)
        self.bridge.network_exec(
            ["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid)], check=True
        )
        self.bridge.network_exec(["ip", "link", "set", link, "master", BRIDGE, "up"], check=True)

    def _mount_lines(self) -> Iterator[str]:
        yield "mount --make-rshared /"
        yield "mount -t sysfs sysfs /sys; mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup"
        for option, name, _own in _cgroup_hierarchies():
            yield f"mkdir /sys/fs/cgroup/{name}; mount -t cgroup -o {option} cgroup /sys/fs/cgroup/{name}"
        # The disk hides the machine's /var: show the lab's folder and the cache through it.
        var = self.directory / "var"
        for folder in ("lib", "log", "tmp", "cache", "spool"):
            yield f"mkdir -p {shlex.quote(str(var / folder))}"
        yield f"chmod 1777 {shlex.quote(str(var / 'tmp'))}; ln -sfn /run {shlex.quote(str(var / 'run'))}"
        for path in self._shown_below_var():
            inner = shlex.quote(str(var / path.relative_to("/var")))
            yield f"mkdir -p {inner}; mount --bind {shlex.quote(str(path))} {inner}"
        yield f"mount --rbind {shlex.quote(str(var))} /var; mount --make-rshared /var"
        yield "mount -t tmpfs -o mode=755 tmpfs /run; mount --make-shared /run; mkdir -p /run/lock"

    def _shown_below_var(self) -> list[Path]:
        """Outer folders below /var that the host must see: the lab's own and the cache of built programs."""
        cache = Path(os.environ.get("C5C3_HA_CACHE", "/var/cache/c5c3-ha")).resolve()
        lab = self.directory.resolve().parent
        return [p for p in dict.fromkeys((lab, cache)) if p.exists() and p.is_relative_to("/var")]

    def _network_lines(self) -> Iterator[str]:
        yield "until [ -e /sys/class/net/eth0 ]; do sleep 0.02; done"
        yield f"ip addr add {self.address}/{PREFIX_LENGTH} dev eth0; ip link set eth0 up"
        yield f"ip route add default via {self.bridge.address}"
