"""Images of Debian with systemd and the stack's packages, made without a registry; named by a hash of what they are made from."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.setup import system
from tests.setup.progress import SetupError, say
from tests.stack.podman import environment, podman

BASE = (
    "ca-certificates curl dbus iproute2 iputils-ping nftables openssh-server openssl procps python3 python3-apt socat "
    "sudo systemd systemd-sysv"
).split()
# the stack's packages are in the image, so that a run need not fetch them; what apt would have started stays off
STACK = (
    "galera-4 haproxy mariadb-backup mariadb-client mariadb-server memcached openvswitch-switch ovn-central ovn-host "
    "python3-cryptography python3-pymysql rabbitmq-server valkey-sentinel valkey-server valkey-tools"
).split()
DISTRIBUTIONS = {"trixie": "Debian 13", "bookworm": "Debian 12"}

# bookworm has Valkey in its backports only. The mirror's name is taken from where mmdebstrap found it.
BACKPORTS = 'sed -n "s/ bookworm main/ bookworm-backports main/p" "$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/backports.list"'
# what a package switched on is off again: a role must switch on what it needs, as on a host where apt starts nothing
OFF = (
    "for unit in epmd.service epmd.socket galera.service haproxy.service mariadb.service mariadb.socket memcached.service "
    "openvswitch-switch.service ovn-central.service ovn-host.service ovn-controller.service rabbitmq-server.service "
    "redis-server.service redis-sentinel.service valkey-server.service valkey-sentinel.service; do "
    'chroot "$1" systemctl disable --quiet "$unit" 2>/dev/null || true; done'
)
# a host's identity and the traces of a standalone start are not part of an image
CLEAN = 'rm -f "$1/etc/machine-id"; touch "$1/etc/machine-id"; rm -rf "$1/var/cache/apt/archives/"*.deb "$1/root/.ssh"'
NEEDS_UNITS = 'chroot "$1" systemctl enable --quiet ssh.service'


def argv(distribution: str, target: Path) -> list[str]:
    """Return mmdebstrap's command line."""
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--components=main",
        f"--include={','.join([*BASE, *STACK])}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--aptopt=Acquire::Retries 3",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        *([f"--setup-hook={BACKPORTS}"] if distribution == "bookworm" else []),
        f"--customize-hook={OFF}",
        f"--customize-hook={NEEDS_UNITS}",
        f"--customize-hook={CLEAN}",
        distribution,
        str(target),
    ]


def name(distribution: str) -> str:
    """Return the image's name."""
    if distribution not in DISTRIBUTIONS:
        raise SetupError(f"no distribution {distribution!r}: choose from {', '.join(DISTRIBUTIONS)}")
    return f"localhost/c5c3-ha-{distribution}:{system.digest(*argv(distribution, Path('/image')))}"


def ensure(distribution: str) -> str:
    """Return the image's name; made when it is not there (two to four minutes on two cores)."""
    image = name(distribution)
    if podman("image", "exists", image, check=False).returncode == 0:
        return image
    with system.lock(f"image-{distribution}"):
        if podman("image", "exists", image, check=False).returncode:
            say(f"making the image of {DISTRIBUTIONS[distribution]} with the stack's packages")
            with tempfile.TemporaryDirectory(dir=system.cache(), prefix=".image-") as folder:
                tar = Path(folder) / "image.tar"
                system.run(argv(distribution, tar), f"image-{distribution}")
                done = subprocess.run(
                    ["podman", "import", "--quiet", str(tar), image],
                    env=environment(),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    raise SetupError(f"podman import of {tar} failed: {done.stderr.strip()[-400:]}")
            say(f"image {image} is ready")
    return image
