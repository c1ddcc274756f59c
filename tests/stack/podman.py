"""podman with settings and storage of our own, so that the machine's own containers are never touched."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
from pathlib import Path

from tests.setup.system import cache

# gone at the machine's next start, as podman wants it of what says which containers run
RUN = Path("/run/c5c3-ha/podman")

CONTAINERS = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "{run}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{root}/networks"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{root}/storage"
runroot = "{run}/storage"
"""


class PodmanError(Exception):
    """podman refused; the message is its own."""


@functools.cache
def environment() -> dict[str, str]:
    """Return the environment that makes podman use our files; they are laid when they are not there."""
    root = cache() / "podman"
    # no more than we may give: raising a limit needs a capability that containers lack
    limits = {
        name: min(most, hard) if (hard := resource.getrlimit(which)[1]) != resource.RLIM_INFINITY else most
        for name, which, most in (
            ("files", resource.RLIMIT_NOFILE, 65536),
            ("processes", resource.RLIMIT_NPROC, 32768),
        )
    }
    for folder in (root / "networks", RUN):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("containers.conf", CONTAINERS), ("storage.conf", STORAGE)):
        wanted = text.format(root=root, run=RUN, **limits)
        path = root / name
        if not path.exists() or path.read_text() != wanted:
            fresh = path.with_name(f".{name}.{os.getpid()}")
            fresh.write_text(wanted)
            fresh.replace(path)
    return {
        **os.environ,
        "CONTAINERS_CONF": str(root / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(root / "storage.conf"),
    }


def podman(
    *argv: str, check: bool = True, stdin: str | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run podman; raise PodmanError with its last words when it fails and ``check`` is set."""
    done = subprocess.run(
        ["podman", *argv],
        env=environment(),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if check and done.returncode:
        raise PodmanError(
            f"podman {' '.join(argv[:3])} ... ended with {done.returncode}: {done.stderr.strip()[-600:] or done.stdout.strip()[-600:]}"
        )
    return done
