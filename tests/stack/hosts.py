"""The hosts of a scenario: their names, addresses and groups; started, broken, healed and removed with podman.

A scenario's ``molecule.yml`` names its hosts (``platforms``). Seed and scenario give network and container names, so that
several scenarios, and several people, stand side by side.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.setup import system
from tests.stack import images
from tests.stack.podman import PodmanError, podman

SCENARIOS = system.ROOT / "extensions" / "molecule"
# each scenario has a /24 of its own for each seed: 10.213.(16 * seed + number).0
NUMBERS = {
    "ca": 1,
    "rabbitmq": 2,
    "valkey": 3,
    "memcached": 4,
    "galera": 5,
    "maxscale": 6,
    "ovn": 7,
    "stack": 8,
    "nova": 9,
}
# not --privileged, which would show the machine's own disks
FLAGS = (
    "--systemd=always --no-hosts --cap-add=SYS_ADMIN,NET_ADMIN,NET_RAW,SYS_NICE,SYS_PTRACE,IPC_LOCK,AUDIT_WRITE "
    "--security-opt=seccomp=unconfined --security-opt=unmask=ALL --device=/dev/net/tun --shm-size=256m"
).split()


class HostError(Exception):
    """A host did not do what it should; the message says which and what was seen."""


@dataclass(frozen=True)
class Host:
    """One test host."""

    name: str
    container: str
    address: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """The hosts of one scenario of one seed."""

    name: str
    distribution: str
    seed: int
    hosts: tuple[Host, ...]

    @property
    def network(self) -> str:
        return f"c5c3-{self.seed}-{self.name}"

    @property
    def subnet(self) -> str:
        return f"10.213.{16 * self.seed + NUMBERS[self.name]}"

    @property
    def directory(self) -> Path:
        """What a run keeps on this machine: the CA's files, generated secrets, results."""
        folder = system.cache() / "stack" / f"{self.seed}-{self.name}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise HostError(
            f"no host {name!r} in scenario {self.name}: choose from {', '.join(h.name for h in self.hosts)}"
        )


def scenario(name: str, distribution: str | None = None, seed: int | None = None) -> Scenario:
    """Return the scenario of that name; distribution and seed default to C5C3_STACK_DISTRO and C5C3_STACK_SEED."""
    distribution = distribution or os.environ.get("C5C3_STACK_DISTRO") or "trixie"
    seed = int(os.environ.get("C5C3_STACK_SEED") or 0) if seed is None else seed
    file = SCENARIOS / name / "molecule.yml"
    if not file.exists() or name not in NUMBERS:
        known = sorted(each for each in NUMBERS if (SCENARIOS / each / "molecule.yml").exists())
        raise HostError(f"no scenario {name!r}: choose from {', '.join(known)} (a new one gets a number in {__file__})")
    if not 0 <= seed < 16:
        raise HostError(f"C5C3_STACK_SEED is {seed}: choose 0 to 15")
    subnet = f"10.213.{16 * seed + NUMBERS[name]}"
    hosts = tuple(
        Host(each["name"], f"c5c3-{seed}-{each['name']}", f"{subnet}.{11 + number}", tuple(each.get("groups", ())))
        for number, each in enumerate(yaml.safe_load(file.read_text())["platforms"])
    )
    return Scenario(name, distribution, seed, hosts)


def key() -> Path:
    """Return the private key for root on all test hosts of this machine, made at first use."""
    path = system.cache() / "stack" / "ssh" / "id_ed25519"
    with system.lock("stack-ssh"):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def inventory(of: Scenario) -> dict[str, object]:
    """Return Ansible's dynamic inventory of a scenario: ssh with pipelining costs a third of the podman connection."""
    groups: dict[str, dict[str, list[str]]] = {}
    for host in of.hosts:
        for group in host.groups:
            groups.setdefault(group, {"hosts": []})["hosts"].append(host.name)
    variables = {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(key()),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        "ansible_pipelining": True,
        "stack_directory": str(of.directory),
        "stack_distribution": of.distribution,
        "ca_directory": str(of.directory / "ca"),
    }
    return {
        "_meta": {"hostvars": {h.name: {"ansible_host": h.address, **variables} for h in of.hosts}},
        "all": {"hosts": [host.name for host in of.hosts]},
        **groups,
    }


def wait(what: str, true: Callable[[], object], seconds: float = 120, every: float = 0.2) -> None:
    """Wait until ``true()`` is; raise HostError after ``seconds``. An exception of it counts as not yet."""
    deadline = time.monotonic() + seconds
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = true()
            if seen:
                return
        except Exception as error:
            seen = error
        time.sleep(every)
    raise HostError(f"{what}: not within {seconds:.0f} s, last seen: {seen!r}")


def on(host: Host, *argv: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
    """Run argv inside a host and return its output."""
    done = podman("exec", *(["-i"] if stdin else []), host.container, *argv, check=check, stdin=stdin, timeout=timeout)
    return done.stdout


def each(hosts: Sequence[Host], do: Callable[[Host], object]) -> list[object]:
    """Do it on all hosts at once."""
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(pool.map(do, hosts))


def running(host: Host) -> bool:
    """Tell whether a host is up: systemd has started everything."""
    return on(host, "systemctl", "is-system-running", check=False).strip() in ("running", "degraded")


def reachable(host: Host) -> bool:
    """Tell whether a role can reach a host; the machine may still look for one of the same address that is gone."""
    with socket.create_connection((host.address, 22), 1):
        return True


def create(of: Scenario, host: Host) -> None:
    """Make and start one host, with a fresh disk."""
    # a name that leads to a machine which is no member: what a role refuses needs one
    lines = "".join(f"{each.address} {each.name}\n" for each in of.hosts) + f"{of.subnet}.1 elsewhere\n"
    public = key().with_suffix(".pub").read_text()
    podman("rm", "--force", "--ignore", "--time=0", host.container)
    podman(
        *("run", "--detach", f"--name={host.container}", f"--hostname={host.name}"),
        *(f"--network={of.network}", f"--ip={host.address}"),
        *FLAGS,
        *(images.ensure(of.distribution), "/sbin/init"),
    )
    on(host, "sh", "-c", "cat > /etc/hosts", stdin=f"127.0.0.1 localhost\n::1 localhost\n{lines}")
    on(host, "sh", "-c", "umask 077; mkdir -p /root/.ssh; cat > /root/.ssh/authorized_keys", stdin=public)
    keep_bridge_address(host.address)
    wait(f"{host.name} up", functools.partial(running, host))
    wait(f"{host.name} reachable by ssh", functools.partial(reachable, host))


def up(of: Scenario) -> None:
    """Start a scenario's network and those of its hosts that are not there."""
    images.ensure(of.distribution)
    if podman("network", "exists", of.network, check=False).returncode:
        forget_bridge(of)
        podman(
            *("network", "create", "--disable-dns", f"--subnet={of.subnet}.0/24", f"--gateway={of.subnet}.1"),
            of.network,
        )
    # a host whose creation was interrupted is made anew
    each([host for host in of.hosts if state(host.container) in ("", "created")], functools.partial(create, of))
    each([host for host in of.hosts if not alive(host)], start)


def bridges(address: str) -> list[str]:
    """Return the bridges of this machine that are the gateway of an address of a scenario."""
    told = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, text=True, check=True).stdout
    gateway = address.rpartition(".")[0] + ".1"
    return [
        link["ifname"]
        for link in json.loads(told)
        if any(each.get("local") == gateway for each in link.get("addr_info", ()))
    ]


def forget_bridge(of: Scenario) -> None:
    """Remove the bridge of a network that is gone: netavark leaves it now and then when its last host was killed."""
    for bridge in bridges(of.hosts[0].address):
        subprocess.run(["ip", "link", "delete", bridge], check=True)


def keep_bridge_address(address: str) -> None:
    """Let the bridge of an address keep the MAC address that it has.

    A bridge takes the lowest of its ports' until it is given one: when just that host dies, what the others send to this machine's clients
    goes to the address before, and is dropped until they ask for the new one (seen: FINs, unheard for ten seconds).
    """
    for bridge in bridges(address):
        mac = Path(f"/sys/class/net/{bridge}/address").read_text().strip()
        subprocess.run(["ip", "link", "set", bridge, "address", mac], check=True)


def down(of: Scenario) -> None:
    """Remove a scenario's hosts and network, and what it kept here; nothing of it being there is fine."""
    names = [host.container for host in of.hosts]
    there = set(podman("ps", "--all", "--format={{.Names}}").stdout.split())
    paused = [name for name in names if name in there and state(name) == "paused"]
    for name in paused:
        podman("unpause", name, check=False)
    podman("rm", "--force", "--ignore", "--time=0", *names)
    podman("network", "rm", "--force", of.network, check=False)
    subprocess.run(["rm", "-rf", str(of.directory)], check=True)


def state(container: str) -> str:
    """Return podman's word for a container: running, paused, exited, or an empty string."""
    return podman("inspect", "--format={{.State.Status}}", container, check=False).stdout.strip()


def alive(host: Host) -> bool:
    """Tell whether a host runs (a paused one does not)."""
    return state(host.container) == "running"


def start(host: Host) -> None:
    """Power a dead host on; returns when it can be reached. A service of it may still wait for other hosts to come."""
    podman("start", host.container)
    keep_bridge_address(host.address)
    wait(f"{host.name} reachable by ssh", functools.partial(reachable, host))


# Faults. Each has its opposite; the client of a test stays connected in all of them but kill_host and freeze.


def kill_daemon(host: Host, pattern: str) -> None:
    """kill -9 of every process of a host whose command line matches; systemd may start it again."""
    done = podman("exec", host.container, "pkill", "-KILL", "-f", pattern, check=False)
    if done.returncode:
        raise HostError(f"no process on {host.name} matches {pattern!r}")


def kill_host(host: Host) -> None:
    """Power off at once: every process of the host dies with its first one. Heal: start."""
    podman("kill", "--signal=KILL", host.container)
    wait(f"{host.name} dead", lambda: not alive(host), 30, 0.05)


def freeze(host: Host) -> None:
    """A hung host: no process of it runs, its kernel still answers ping and keeps connections. Heal: thaw."""
    # the freezer gives up on a group whose processes fork faster than it can stop them
    wait(f"{host.name} frozen", lambda: not podman("pause", host.container, check=False).returncode, 30)


def thaw(host: Host) -> None:
    podman("unpause", host.container)


def partition(of: Scenario, alone: Host, other: Host | None = None) -> None:
    """Cut one host from all others of its scenario, or from one of them, both ways, silently. Heal: heal_partition."""
    others = ", ".join(host.address for host in of.hosts if host != alone and other in (None, host))
    rules = (
        "table inet c5c3_partition {\n"
        f" chain in {{ type filter hook input priority -300; ip saddr {{ {others} }} drop; }}\n"
        f" chain out {{ type filter hook output priority -300; ip daddr {{ {others} }} drop; }}\n}}\n"
    )
    on(alone, "nft", "-f", "-", stdin=rules)


def heal_partition(alone: Host) -> None:
    on(alone, "nft", "delete", "table", "inet", "c5c3_partition")


def replace(of: Scenario, host: Host) -> None:
    """The host's disk is lost: a fresh host of that name and address comes up. Heal: the role."""
    create(of, host)


__all__ = ["Host", "HostError", "PodmanError", "Scenario"]
