"""The logs of a lab in which a test failed, kept beside the gates' outputs."""

from __future__ import annotations

import contextlib
import tarfile
from pathlib import Path

from tests.setup import system

# archives
KEPT = 3


def keep(lab: Path) -> Path:
    """Write the archive of a lab's logs and return its path; the oldest archives go.

    :param lab: the lab's folder.
    """
    folder = system.cache() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("lab-*.tar.gz"), key=lambda file: file.stat().st_mtime)[: -KEPT + 1]:
        old.unlink(missing_ok=True)
    archive = folder / f"lab-{lab.name}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=3) as tar:
        for log in sorted([*lab.glob("*/log/*.log"), *lab.glob("nova/rabbit/log/*"), *lab.glob("deployment/*.log")]):
            with contextlib.suppress(FileNotFoundError):  # turned over meanwhile
                tar.add(log, str(log.relative_to(lab)))
    return archive
