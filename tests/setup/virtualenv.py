"""Virtual environments from the lock files, one folder for each content of a lock and Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.setup import system
from tests.setup.progress import SetupError, say

# name: Pythons in order of preference, and what it is for
KINDS = {
    "dev": ([(3, 12), (3, 13), (3, 14)], "ansible-core 2.21"),
    "hosts": ([(3, 12), (3, 13), (3, 14)], "ansible-core 2.21 for the test hosts"),
    "oldest": ([(3, 11), (3, 12), (3, 13)], "ansible-core 2.19, the oldest supported,"),
}


def ensure(name: str) -> Path:
    """Return the virtual environment of that name, made from tests/requirements/NAME.txt when it is not there."""
    wanted, purpose = KINDS[name]
    lock_file = system.REQUIREMENTS / f"{name}.txt"
    text = lock_file.read_bytes()
    known = system.cache() / f"venv-{name}-{system.digest(text)}.path"
    # finding a Python costs a process start: remember the answer for this lock
    if known.is_file():
        folder = Path(known.read_text().strip())
        if (folder / ".complete").exists() and os.access(folder / "bin" / "python", os.X_OK):
            return folder
    version, python = system.find_python(wanted, purpose)
    folder = system.cache() / f"venv-{name}-{system.digest(text, python)}"
    with system.lock(f"venv-{name}"):
        if not (folder / ".complete").exists():
            build(folder, python, lock_file, f"{name} on Python {version[0]}.{version[1]}")
        known.write_text(f"{folder}\n")
    return folder


def build(folder: Path, python: str, lock_file: Path, label: str) -> None:
    """Make folder. A virtual environment cannot be moved, so a marker, laid last, says that it is whole."""
    shutil.rmtree(folder, ignore_errors=True)
    say(
        f"making the virtual environment {label}: {sum(1 for line in lock_file.read_text().splitlines() if '==' in line)} packages"
    )
    try:
        system.run([python, "-m", "venv", str(folder)], f"{folder.name}-venv")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        # the whole closure is pinned, so there is nothing to resolve
        system.run(
            [*pip, "install", "-q", "--no-deps", "--no-input", "--no-compile", "-r", str(lock_file)],
            f"{folder.name}-pip",
        )
        # the community collections are thousands of files, of which a handful is ever imported: leave those to the first use
        compile_all = [
            str(folder / "bin" / "python"),
            "-m",
            "compileall",
            "-q",
            "-j",
            "0",
            "-x",
            "ansible_collections",
            str(folder / "lib"),
        ]
        subprocess.run(compile_all, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        check = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False)
        if check.returncode:
            raise SetupError(
                f"tests/requirements/{lock_file.name} does not fit together; run make lock:\n    "
                + check.stdout.strip().replace("\n", "\n    ")
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / ".complete").touch()
    say(f"virtual environment {label} is ready: {folder}")


def relock(name: str) -> None:
    """Write tests/requirements/NAME.txt anew from NAME.in, with the newest versions that fit together."""
    wanted, purpose = KINDS[name]
    _version, python = system.find_python(wanted[:1], purpose)
    folder = system.cache() / f"relock-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    source = system.REQUIREMENTS / f"{name}.in"
    say(f"resolving {source.name}")
    system.run([python, "-m", "venv", str(folder)], f"relock-{name}-venv")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    system.run([*pip, "install", "-q", "--no-input", "-r", str(source)], f"relock-{name}-pip")
    frozen = subprocess.run(
        [*pip, "freeze", "--all", "--exclude", "pip"], capture_output=True, text=True, check=True
    ).stdout
    # a wheel from a local folder freezes as a file URL, which no other machine has
    lines = [line for line in frozen.splitlines() if "==" in line]
    lost = [line for line in frozen.splitlines() if "==" not in line]
    if lost:
        raise SetupError(f"cannot pin {lost}")
    head = f"# Made by `make lock` from {source.name}: every package, pinned. Edit {source.name} instead.\n"
    (system.REQUIREMENTS / f"{name}.txt").write_text(head + "\n".join(lines) + "\n")
    shutil.rmtree(folder)
    say(f"{name}.txt: {len(lines)} packages pinned")
