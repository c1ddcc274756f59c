"""What the integration tests of the source c5c3.ha.libvirt stand on: two hosts with a real libvirtd, and tiny guests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.lab.hosts import LAB_ROOT, Host, Namespace, signal_process, wait_until
from tests.setup.collection import linked_tree

if not any((Path(entry) / "ansible_collections/c5c3/ha/galaxy.yml").exists() for entry in sys.path):
    sys.path.insert(0, str(linked_tree()))

SEED = int(os.environ.get("C5C3_LAB_SEED", "3"))
GUEST = Path(__file__).with_name("guest.S")
IDLE, PANIC, RESET, POWER_OFF, WATCHDOG, WRITE, FILL, WATCHDOG_ONCE = range(8)
SECTOR = 512
Event = dict[str, Any]


def guest_image(path: Path, mode: int, size: int = 1 << 20) -> None:
    """Write a raw image whose boot sector does ``mode``."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["as", "--32", "-o", "guest.o", GUEST], cwd=folder, check=True)
        link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", "guest.bin", "guest.o"]
        subprocess.run(link, cwd=folder, check=True)
        sector = bytearray((Path(folder) / "guest.bin").read_bytes())
    assert len(sector) == SECTOR
    sector[3] = mode
    path.write_bytes(bytes(sector))
    os.truncate(path, size)


def domain_xml(
    name: str,
    identity: str,
    disk: str,
    *,
    watchdog: str = "none",
    on_crash: str = "destroy",
    arguments: tuple[str, ...] = (),
) -> str:
    """A guest with 16 MiB and no KVM."""
    extra = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
    return f"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
<name>{name}</name><uuid>{identity}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>{on_crash}</on_crash>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disk}
<watchdog model='i6300esb' action='{watchdog}'/><panic model='isa'/><memballoon model='none'/>
<controller type='usb' model='none'/></devices>
<qemu:commandline>{extra}</qemu:commandline></domain>"""


class Hypervisor:
    """A host of the lab with nothing on it but a libvirtd."""

    def __init__(self, number: int, directory: Path, bridge: Namespace) -> None:
        self.name = f"src0{number}"
        self.directory = directory / self.name
        etc = self.directory / "etc/libvirt"
        self.sockets = self.directory / "sockets"
        self.sockets.mkdir(parents=True, exist_ok=True)
        shutil.copytree("/etc/libvirt", etc, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(etc / "qemu/networks", ignore_errors=True)
        address = f"10.66.0.{number}"
        (etc / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{self.sockets}"\nunix_sock_group = "root"\nunix_sock_rw_perms = "0777"\n'
            'auth_unix_rw = "none"\nauth_unix_ro = "none"\nlisten_tls = 0\nlisten_tcp = 1\nauth_tcp = "none"\n'
            f'host_uuid = "{uuid.uuid4()}"\nlog_level = 3\nlog_outputs = "3:stderr"\n'
        )
        (etc / "qemu.conf").write_text(
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\n'
            f'remember_owner = 0\nstdio_handler = "file"\nmigration_host = "{address}"\n'
        )
        self.host = Host(
            self.name,
            self.directory,
            address,
            seed=SEED,
            bridge=bridge,
            # Its own, too: libvirtd asks for it at each start of a guest, and without an answer waits ten seconds.
            names={f"src0{other}": f"10.66.0.{other}" for other in sorted({1, 2, number})},
            setup=[
                f"mount --bind {etc} /etc/libvirt",
                "mkdir -p /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt",
            ],
        )

    def start(self) -> None:
        self.host.start()
        if "libvirtd" not in self.host.services():
            self.host.add_service("libvirtd", ["/usr/sbin/libvirtd", "--listen"])
        self.wait()

    def wait(self) -> None:
        """Until libvirtd answers."""
        wait_until(lambda: self.virsh("version", check=False).returncode == 0, 30, f"libvirtd of {self.name}", 0.05)

    @property
    def uri(self) -> str:
        """Read-only, from outside of the host."""
        return f"qemu+unix:///system?socket={self.sockets}/libvirt-sock-ro"

    @property
    def writable(self) -> str:
        return f"qemu+unix:///system?socket={self.sockets}/libvirt-sock"

    def virsh(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["virsh", "-q", "-c", self.writable, *arguments],
            check=check,
            text=True,
            stdout=subprocess.PIPE,
            stderr=None if check else subprocess.DEVNULL,
            timeout=60,
        )


class Guest:
    """A domain that a test starts and ends."""

    def __init__(
        self, hypervisor: Hypervisor, folder: Path, mode: int = IDLE, disk: str | None = None, **xml: Any
    ) -> None:
        self.hypervisor = hypervisor
        self.uuid = str(uuid.uuid4())
        self.name = f"g-{self.uuid[:8]}"
        self.folder = folder
        if disk is None:
            image = folder / f"{self.name}.img"
            guest_image(image, mode)
            disk = (
                f"<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='{image}'/>"
                "<target dev='hda' bus='ide'/></disk>"
            )
        definition = folder / f"{self.name}.xml"
        definition.write_text(domain_xml(self.name, self.uuid, disk, **xml))
        self.definition = str(definition)

    def virsh(self, verb: str, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.hypervisor.virsh(verb, self.name, *more, check=check)

    def define(self) -> Guest:
        self.hypervisor.virsh("define", self.definition)
        return self

    def start(self) -> Guest:
        self.define()
        self.virsh("start")
        return self

    @property
    def pid(self) -> int:
        """The guest's QEMU, as seen from outside."""
        for process in self.hypervisor.host.processes():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{process}/cmdline").read_bytes()
                if b"qemu-system" in line and self.uuid.encode() in line:
                    return process
        raise AssertionError(f"{self.name} has no QEMU")

    def kill(self) -> float:
        """Kill its QEMU with -9.

        :returns: when, in seconds since the epoch.
        """
        pid = self.pid
        now = time.time()
        assert signal_process(pid, signal.SIGKILL)
        return now

    def state(self) -> str:
        return self.virsh("domstate", "--reason").stdout.strip()

    def remove(self) -> None:
        self.virsh("destroy", check=False)
        self.virsh("undefine", "--managed-save", check=False)


class Source:
    """The source, running on a loop in a thread of its own, as in ansible-rulebook: a queue of one event.

    :ivar events: what it told so far.
    """

    def __init__(self, main: Callable[..., Any], validate: Callable[[Event], None], **options: Any) -> None:
        self.events: list[Event] = []
        self.held = threading.Event()  # set: nobody takes events from the queue
        self._main, self._validate, self._options = main, validate, options
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop = asyncio.new_event_loop()
        self._failure: BaseException | None = None

    def __enter__(self) -> Source:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Cancel it and wait for its end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(15)
            assert not self._thread.is_alive(), "the source does not end when it is cancelled"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._work())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    async def _work(self) -> None:
        queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=1)

        async def take() -> None:
            while True:
                if self.held.is_set():
                    await asyncio.sleep(0.05)
                    continue
                event = await queue.get()
                self._validate(event)
                self.events.append(event)

        taker = asyncio.create_task(take())
        source = asyncio.create_task(self._main(queue, self._options))
        try:
            await asyncio.wait((taker, source), return_when=asyncio.FIRST_COMPLETED)
            for task in (taker, source):
                if task.done():
                    self._failure = task.exception() or AssertionError("the source returned")
        finally:
            for task in (source, taker):
                task.cancel()
            await asyncio.gather(source, taker, return_exceptions=True)

    def of(self, guest: Guest | None = None, **fields: Any) -> list[Event]:
        """Events told so far, of this guest, with these fields."""
        return [
            event
            for event in list(self.events)
            if (guest is None or event.get("uuid") == guest.uuid)
            and all(event.get(key) == value for key, value in fields.items())
        ]

    def expect(self, guest: Guest | None = None, timeout: float = 15, after: int = 0, **fields: Any) -> Event:
        """Wait for an event with these fields; the newest of them.

        :param after: how many of them are old.
        """

        def found() -> list[Event]:
            if self._failure is not None:
                raise self._failure
            return self.of(guest, **fields)[after:]

        events = wait_until(found, timeout, f"{fields}; of this guest came {self.of(guest)}")
        return events[-1]

    def connected(self, uri: str, timeout: float = 15, after: int = 0) -> Event:
        """Wait until it has connected."""
        return self.expect(event="connection", uri=uri, connected=True, timeout=timeout, after=after)

    def quiet(self, seconds: float = 1.0) -> None:
        """Wait for events that should not come: there is no condition for nothing."""
        time.sleep(seconds)

    def compared(self, times: int = 2) -> None:
        """Wait until it has compared all domains so many times more; each heartbeat comes after a comparison."""
        self.expect(
            event="heartbeat", connected=True, after=len(self.of(event="heartbeat", connected=True)) + times - 1
        )


def qcow2_on_full_disk(hypervisor: Hypervisor, folder: Path, policy: str, target: str = "dev='hda' bus='ide'") -> str:
    """A disk on a file system of 640 KiB; its guest writes 1 MiB a second."""
    raw = folder / "writer.img"
    guest_image(raw, WRITE, 64 << 20)
    small = f"/run/small-{policy}"
    hypervisor.host.exec(["mkdir", "-p", small], check=True)
    hypervisor.host.exec(["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", small], check=True)
    hypervisor.host.exec(["qemu-img", "convert", "-q", "-O", "qcow2", str(raw), f"{small}/disk"], check=True)
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2' error_policy='{policy}'/>"
        f"<source file='{small}/disk'/><target {target}/></disk>"
    )


def failing_disk(folder: Path) -> dict[str, Any]:
    """Options of a guest whose disk answers each write with EIO and suspends it; libvirt is not told of the disk's path."""
    image, rules = folder / "broken.img", folder / "blkdebug.conf"
    guest_image(image, WRITE)
    rules.write_text('[inject-error]\nevent = "write_aio"\nerrno = "5"\n')
    drive = f"file=blkdebug:{rules}:{image},format=raw,if=none,id=d0,werror=stop"
    return {"disk": "", "arguments": ("-drive", drive, "-device", "ide-hd,drive=d0,bus=ide.0")}


@contextlib.contextmanager
def two_hypervisors() -> Iterator[list[Hypervisor]]:
    """Two hosts on a bridge of their own; gone afterwards."""
    directory = LAB_ROOT / f"{SEED}-source"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    control = Namespace("source", directory / "control", "10.66.0.254", seed=SEED)
    hypervisors: list[Hypervisor] = []
    try:
        control.start()
        hypervisors.extend(Hypervisor(number, directory, control) for number in (1, 2))
        for hypervisor in hypervisors:
            hypervisor.start()
        yield hypervisors
    finally:
        for hypervisor in hypervisors:
            hypervisor.host.kill()
        control.kill()
        shutil.rmtree(directory, ignore_errors=True)


def rss(pid: int) -> int:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
