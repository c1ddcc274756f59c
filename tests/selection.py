"""Which of the integration tests a run takes: all, or what a quarter of an hour allows.

Some rules keep ``make test`` short without leaving anything untested for long:

- The lab's own tests (``test_lab_*.py``) need not run again while nothing they could show has changed: what passed on this machine
  with the same content is told as skipped, with the day.
- Of the long stories, each a whole fate of a site or of a host (`STORIES`), one is told.
- Of the cases marked ``thorough`` (the same fault at one instant more) each file runs one in `SHARE`, drawn by the content of
  what is tested, so that a change draws anew and a rerun draws the same. ``make thorough`` runs them all.

What looks at files alone (lint, sanity, unit tests) is left out by ``tests/setup/gate.py`` in the same way as the lab's own tests.

``C5C3_HA_THOROUGH=1`` ends all of them.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.lab.cache import cache_root, digest

ROOT = Path(__file__).parents[1]
SHARE = 5
STORIES = (
    "test_evacuation.py",
    "test_every_step.py",
    "test_evict_limits.py",
    "test_local_disks.py",
    "test_operators.py",
    "test_site.py",
)
# On two labs the longest files begin first, so that none is left alone at the end.
LONGEST = ("test_ha.py", "test_roles.py", *STORIES, "test_node_sync.py", "test_fencing.py", "test_source_libvirt.py")
# What a test of the lab itself can depend on; whatever the machine brings beyond is a matter of a fresh cache.
LAB_INPUTS = (ROOT / "tests" / "lab", ROOT / "tests" / "requirements", ROOT / "tests" / "integration" / "conftest.py")
DRAWN_BY = tuple(ROOT / name for name in ("plugins", "extensions/eda", "roles", "tests/integration", "tests/lab"))


def everything() -> bool:
    """Whether this run takes all."""
    return os.environ.get("C5C3_HA_THOROUGH") == "1"


def draw(cases: Mapping[str, list[str]], seed: str, share: int = SHARE) -> set[str]:
    """Of each file's thorough cases the drawn ones, at least one; of a story's, which are long, no more than one.

    Args:
        cases: node ids of the thorough cases by file.
        seed: what the draw depends on.
        share: one in how many.
    """
    drawn: set[str] = set()
    for file, names in cases.items():
        count = 1 if file in STORIES else math.ceil(len(names) / share)
        drawn.update(random.Random(f"{seed} {file}").sample(sorted(names), count))
    return drawn


def stories_left_out(seed: str) -> set[str]:
    """The files of stories that are not told in this run."""
    return set(STORIES) - draw({"stories": list(STORIES)}, seed, len(STORIES))


def turn(file: str) -> int:
    """When a file of tests has its turn, from 0."""
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def seed() -> str:
    """The content of what is tested."""
    return digest(DRAWN_BY)


def checkout() -> list[Path]:
    """All files of the checkout, those included that git does not know yet and does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return sorted(ROOT / name for name in set(listed.stdout.decode().split("\0")) if name and (ROOT / name).is_file())


class Record:
    """That something passed on this machine, by the content it depends on.

    Args:
        name: what it is.
        inputs: files and folders.
        folder: where records lie; by default in the cache.
    """

    def __init__(self, name: str, *inputs: Path, folder: Path | None = None) -> None:
        named: list[Path | str] = []
        for path in inputs:
            named += [str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name, path]
        self.path = (folder or cache_root() / "passed") / f"{name}-{digest(named)}.json"

    def when(self) -> str | None:
        """The day and time at which it passed, or None."""
        try:
            return json.loads(self.path.read_text())["at"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self) -> None:
        """Keep that it has passed just now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps({"at": time.strftime("%Y-%m-%d %H:%M:%S")}))
        aside.replace(self.path)
