"""The machine: its cache folder, its Debian packages, its Pythons."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.setup.progress import SetupError, say

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tests" / "requirements"
SUPPORTED = "Debian 12, Debian 13 or Ubuntu 24.04"


def cache() -> Path:
    """Return the cache folder: C5C3_HA_CACHE, else a system folder for root and the user's own for others."""
    named = os.environ.get("C5C3_HA_CACHE")
    if named:
        folder = Path(named).absolute()
    elif os.geteuid() == 0:
        folder = Path("/var/cache/c5c3-ha")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c5c3-ha"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot make the cache folder {folder} ({error.strerror}): set C5C3_HA_CACHE to another one"
        ) from None
    return folder


def digest(*inputs: str | bytes) -> str:
    """Return a short content hash of inputs."""
    sha = hashlib.sha256()
    for item in inputs:
        data = item.encode() if isinstance(item, str) else item
        sha.update(b"%d:" % len(data) + data)
    return sha.hexdigest()[:12]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name: of two set-ups at once, the second waits and finds the work done."""
    path = cache() / f".{name}.lock"
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another set-up that holds {path}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run(argv: list[str], log: str, env: dict[str, str] | None = None) -> None:
    """Run argv with its output in the cache's log of that name; on failure raise with the log's last lines."""
    path = cache() / "logs" / f"{log}.log"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as handle:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, env=env, check=False
        )
    if done.returncode:
        tail = "\n    ".join(path.read_text(errors="replace").strip().splitlines()[-15:])
        raise SetupError(f"{' '.join(argv[:4])} ... ended with {done.returncode} (whole output: {path}):\n    {tail}")


def wanted_packages(sections: list[str]) -> list[list[str]]:
    """Return the alternatives of each package that apt.txt lists under sections."""
    found: list[list[str]] = []
    section = ""
    for raw in (REQUIREMENTS / "apt.txt").read_text().splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line and section in sections:
            found.append([name.strip() for name in line.split("|")])
    return found


def installed_packages() -> set[str]:
    """Return the names of Debian packages that are installed now."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package}\n"], capture_output=True, text=True, check=False
    )
    return {line[3:].strip() for line in done.stdout.splitlines() if line.startswith("ii")}


def require_packages(sections: list[str]) -> None:
    """Install the packages of apt.txt's sections that are missing; elsewhere than on Debian say what is needed."""
    marker = cache() / f"apt-{digest((REQUIREMENTS / 'apt.txt').read_bytes(), *sections)}"
    status = Path("/var/lib/dpkg/status")
    if not status.exists() or not shutil.which("apt-get"):
        tools = ["gcc", "git", "java", "pkg-config", "rsync"]
        tools += ["libvirtd", "qemu-system-x86_64", "mariadbd", "runc"] if "lab" in sections else []
        tools += ["podman", "runc", "mmdebstrap"] if "hosts" in sections else []
        missing = [tool for tool in tools if not shutil.which(tool)]
        if missing:
            raise SetupError(
                f"not on PATH: {', '.join(missing)}. Set-up by itself is for {SUPPORTED}; elsewhere install what tests/requirements/apt.txt names"
            )
        return
    if {"lab", "hosts"}.intersection(sections) and os.geteuid() != 0:
        raise SetupError(
            f"lab and test hosts make namespaces and start daemons, so they need root on {SUPPORTED}: run the same command as root"
        )
    # asking dpkg for everything costs 50 ms: look only when its database has changed
    if marker.exists() and marker.stat().st_mtime >= status.stat().st_mtime:
        return
    have = installed_packages()
    missing = [names for names in wanted_packages(sections) if not have.intersection(names)]
    if missing:
        flat = " ".join(" or ".join(names) for names in missing)
        if os.geteuid() != 0:
            raise SetupError(f"Debian packages are missing and only root can install them: {flat}")
        with lock("apt"):
            install_packages(missing)
    marker.touch()


def install_packages(missing: list[list[str]]) -> None:
    """Install one alternative of each, leaving every daemon they bring stopped (and, under systemd, disabled)."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"]
    say("reading Debian's package lists")
    run([*apt, "update", "-q"], "apt-update", env)
    chosen = []
    for names in missing:
        known = next((name for name in names if has_candidate(name)), None)
        if known is None:
            raise SetupError(
                f"no package {' or '.join(names)} on this distribution: tests/requirements/apt.txt is made for {SUPPORTED}"
            )
        chosen.append(known)
    say(f"installing {len(chosen)} Debian packages: {' '.join(chosen)}")
    systemd = Path("/run/systemd/system").is_dir()
    before = units() if systemd else set()
    with no_daemons():
        run([*apt, "install", "-y", "-q", "--no-install-recommends", *chosen], "apt-install", env)
    new = sorted(units() - before) if systemd else []
    if new:
        subprocess.run(["systemctl", "disable", "--quiet", *new], check=False)
        say(f"installed but neither started nor enabled on this machine, the lab starts its own: {' '.join(new)}")


def has_candidate(name: str) -> bool:
    """Tell whether apt could install that package."""
    done = subprocess.run(["apt-cache", "policy", name], capture_output=True, text=True, check=False)
    return bool(re.search(r"Candidate: (?!\(none\))", done.stdout))


def units() -> set[str]:
    """Return systemd's services and sockets that are enabled."""
    argv = ["systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--type=service,socket"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


@contextlib.contextmanager
def no_daemons() -> Iterator[None]:
    """Keep package scripts from starting daemons, by Debian's own means, unless the machine has a policy already."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\n# laid by c5c3.ha's set-up while it installs packages\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def pythons() -> dict[tuple[int, int], str]:
    """Return the interpreters of this machine by version, pyenv's included, shims excluded."""
    found: dict[tuple[int, int], str] = {}
    for minor in range(11, 15):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            candidate = Path(folder) / f"python3.{minor}"
            # a venv's python would tie our cache to it; a shim answers "not found" for versions that are off
            if "shims" in folder or (Path(folder).parent / "pyvenv.cfg").exists() or not os.access(candidate, os.X_OK):
                continue
            found.setdefault((3, minor), str(candidate))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for candidate in sorted(
        pyenv.glob("3.*/bin/python3.[0-9][0-9]"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])]
    ):
        minor = int(candidate.name.split(".")[1])
        if minor >= 11:
            found[(3, minor)] = str(candidate)
    return found


def find_python(wanted: list[tuple[int, int]], purpose: str) -> tuple[tuple[int, int], str]:
    """Return (version, path) of the first wanted Python that can make virtual environments."""
    have = pythons()
    for version in wanted:
        path = have.get(version)
        if (
            path
            and subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0
        ):
            return version, path
    names = " or ".join(f"{major}.{minor}" for major, minor in wanted)
    seen = ", ".join(f"{major}.{minor}" for major, minor in sorted(have)) or "none of 3.11 to 3.14"
    raise SetupError(
        f"{purpose} needs Python {names} (with ensurepip) on PATH or in ~/.pyenv/versions, and this machine has {seen}: install one and run again"
    )


def prepare_lab(env: dict[str, str]) -> None:
    """Have tests/lab build and cache its own artefacts; it only looks when they are there."""
    done = subprocess.run(
        [f"{env['VIRTUAL_ENV']}/bin/python", "-m", "tests.lab", "prepare"],
        env=env,
        cwd=ROOT,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        raise SetupError(f"python -m tests.lab prepare ended with {done.returncode}; its messages are above")
