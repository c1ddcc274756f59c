"""The lab's hypervisors: libvirtd, nova-compute, sshd and the shared storage on each host.

Each host has its own /etc/libvirt and /etc/ssh (in its folder), /var/lib/libvirt (its disk), /run/libvirt (emptied by
a power cycle). Services: ``libvirtd``, ``nova-compute``, ``sshd``, ``store``; with storage="shared" also ``store`` in
the control namespace.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .hosts import Host, wait_until

if TYPE_CHECKING:
    from .nova import Nova

INSTANCES = "/var/lib/nova/instances"
LIBVIRT_SOCKET = "/run/libvirt/libvirt-sock"
_NAMESPACE = uuid.UUID("6f1b9a52-6b5e-5d0a-9c58-6f7a3e9d2c11")


def own_disks(host: Host) -> Path:
    """The folder of instances on a host's own disk, as seen from outside."""
    return host.directory / INSTANCES.lstrip("/")


class Hypervisors:
    """The compute side of a lab's OpenStack.

    :param nova: the control plane it belongs to.
    """

    def __init__(self, nova: Nova) -> None:
        self.nova = nova
        self.lab = nova.lab

    @property
    def fake(self) -> bool:
        """Whether guests are files instead of QEMUs."""
        return self.lab.computes == "fake"

    @property
    def _python(self) -> Path:
        return self.nova.venv / "bin/python"

    @property
    def _programs(self) -> Path:
        return Path(__file__).parent / "openstack/programs"

    def prepare(self) -> None:
        """Keys for ssh between the hosts."""
        if not self.fake:
            self._make_keys(self.nova.directory / "ssh")

    def _make_keys(self, ssh: Path) -> None:
        """One key for root between the hosts, one host key for all: cold migration and resize go over ssh."""
        ssh.mkdir(parents=True, exist_ok=True)
        for name in ("key", "host_key"):
            if not (ssh / name).exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "c5c3.ha lab", "-f", ssh / name]
                subprocess.run(command, check=True)
        public = (ssh / "host_key.pub").read_text()
        names = ",".join(n for host in self.lab.hosts.values() for n in (host.name, host.address))
        (ssh / "known_hosts").write_text(f"{names} {public}")

    def define_host(self, host: Host) -> None:
        """Configuration, mounts and services (all but nova-compute) of a host that is off."""
        if self.fake:
            return
        ssh = self.nova.directory / "ssh"
        etc = host.directory / "etc"
        if not (etc / "libvirt").exists():
            shutil.copytree("/etc/libvirt", etc / "libvirt", symlinks=True)
            # its network would need dnsmasq and a bridge of its own
            shutil.rmtree(etc / "libvirt/qemu/networks", ignore_errors=True)
        values = {"address": host.address, "host_uuid": uuid.uuid5(_NAMESPACE, host.name), "ssh": "/etc/ssh"}
        render = self.nova.render
        (etc / "libvirt/libvirtd.conf").write_text(render("libvirtd.conf", **values))
        (etc / "libvirt/qemu.conf").write_text(render("qemu.conf", **values))
        folder = etc / "ssh"
        folder.mkdir(exist_ok=True)
        for name in ("key", "key.pub", "host_key", "host_key.pub", "known_hosts"):
            shutil.copy2(ssh / name, folder / name)
        for name in ("sshd_config", "ssh_config"):
            (folder / name).write_text(render(name, **values))
        lines = [
            f"mount --bind {etc}/libvirt /etc/libvirt; mount --bind {etc}/ssh /etc/ssh",
            f"mkdir -p /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /run/libvirt /run/sshd {INSTANCES}",
        ]
        host.setup.extend(line for line in lines if line not in host.setup)
        host.add_service("store", self._store())
        host.add_service("libvirtd", ["/usr/sbin/libvirtd", "--listen"])
        host.add_service("sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/sshd_config"])

    def _store(self, local: bool = False) -> list[object]:
        """The program that mounts the servers' disks on a host."""
        store = [self._python, self._programs / "store.py"]
        if local:
            return [*store, "local", INSTANCES]
        if self.lab.storage == "shared":
            return [*store, "attach", self._socket, INSTANCES]
        return [*store, "mount", self.nova.store, INSTANCES]

    @contextlib.contextmanager
    def local_disks(self) -> Iterator[None]:
        """While it lasts no host sees another's disks: each has its instances on its own. No server may be there at either end."""
        self._mount(local=True)
        try:
            yield
        finally:
            self._mount(local=False)

    def _mount(self, local: bool) -> None:
        for host in self.lab.hosts.values():
            host.add_service("store", self._store(local))
            kind = "-v" if local else ""  # bindfs is there, or is not
            probe = ["sh", "-c", f"mountpoint -q {INSTANCES} && findmnt -n -o FSTYPE {INSTANCES} | grep -q {kind} fuse"]
            wait_until(
                lambda host=host, probe=probe: host.exec(probe).returncode == 0,
                30,
                f"{host.name} has its instances on {'its own disk' if local else 'the store'}",
                0.1,
            )
            for left in own_disks(host).glob("*"):
                # Without its mount the store would hide it, and the oracle would still see it.
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    @property
    def _socket(self) -> Path:
        return self.nova.directory / "run/store.sock"

    def start(self) -> None:
        """What must run before nova-compute. The hosts' own services start with the hosts."""
        if not self.fake and self.lab.storage == "shared":
            mount = self.nova.directory / "instances"
            program = [self._python, self._programs / "store.py", "serve", self.nova.store, mount, self._socket]
            self.nova.control.add_service("store", program)

    def start_computes(self) -> None:
        """Start nova-compute on every host, which may still be starting. The conductor must be ready."""
        for host in self.lab.hosts.values():
            wait_until(lambda host=host: host.running and (host.directory / "ready").exists(), 60, f"{host.name} is on")
            self.start_compute(host)

    def start_compute(self, host: Host) -> None:
        """Configure and start nova-compute on one host; it also starts at the host's next power-on."""
        driver = "ha_fake.HaFakeDriver" if self.fake else "libvirt.LibvirtDriver"
        path = f"etc/nova/{host.name}.conf"
        config = self.nova.nova_configuration(path, host.name, host.address, driver, INSTANCES)
        program = [self._python, self._programs / "nova_compute.py", "--config-file", config]
        if self.fake:
            state = self.nova.directory / "state" / host.name
            program = [self._python, self._programs / "fake_boot.py", state, *program]
        else:
            # As systemd's After= and RequiresMountsFor= would
            wait = f'until mountpoint -q {INSTANCES} && [ -S {LIBVIRT_SOCKET} ]; do sleep 0.05; done; exec "$@"'
            program = ["sh", "-c", wait, "sh", *program]
        host.add_service("nova-compute", program, env=self.nova.environment)

    def fault(self, host: str, **faults: object) -> None:
        """Order faults of a fake compute (see openstack/virt/ha_fake.py); none ends all.

        :raises ValueError: when the lab's computes are real.
        """
        if not self.fake:
            raise ValueError(f"{host} runs libvirt: only a lab with computes='fake' takes ordered faults")
        path = self.nova.directory / "state" / host / "faults.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(faults))
        new.replace(path)

    def wait_libvirt(self, timeout: float = 30) -> None:
        """Wait until every libvirtd has its socket."""
        for host in self.lab.hosts.values():
            probe = ["test", "-S", LIBVIRT_SOCKET]
            wait_until(
                lambda host=host: host.exec(probe, check=False).returncode == 0, timeout, f"libvirtd of {host.name}"
            )
