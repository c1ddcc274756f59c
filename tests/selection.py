"""Which of the integration tests a run takes: all, or what a quarter of an hour allows.

Two rules keep ``make test`` short without leaving anything untested for long:

- The lab's own tests (``test_lab_*.py``) need not run again while nothing they could show has changed: what passed on this machine
  with the same content is told as skipped, with the day.
- Of the cases marked ``thorough`` (the same fault at one instant more) each file runs one in `SHARE`, drawn by the content of
  what is tested, so that a change draws anew and a rerun draws the same. ``make thorough`` runs them all.

``C5C3_HA_THOROUGH=1`` ends both rules.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab.cache import cache_root, digest

ROOT = Path(__file__).parents[1]
SHARE = 4
# What a test of the lab itself can depend on; whatever the machine brings beyond is a matter of a fresh cache.
LAB_INPUTS = (ROOT / "tests" / "lab", ROOT / "tests" / "requirements", ROOT / "tests" / "integration" / "conftest.py")
DRAWN_BY = tuple(ROOT / name for name in ("plugins", "extensions/eda", "roles", "tests/integration", "tests/lab"))


def everything() -> bool:
    """Whether this run takes all."""
    return os.environ.get("C5C3_HA_THOROUGH") == "1"


def draw(cases: Mapping[str, list[str]], seed: str, share: int = SHARE) -> set[str]:
    """Of each file's thorough cases the drawn ones, at least one.

    Args:
        cases: node ids of the thorough cases by file.
        seed: what the draw depends on.
        share: one in how many.
    """
    drawn: set[str] = set()
    for file, names in cases.items():
        drawn.update(random.Random(f"{seed} {file}").sample(sorted(names), math.ceil(len(names) / share)))
    return drawn


def seed() -> str:
    """The content of what is tested."""
    return digest(DRAWN_BY)


class Passed:
    """Files of tests that passed as a whole on this machine, by the content they depend on."""

    def __init__(self, folder: Path | None = None, inputs: Iterable[Path] = LAB_INPUTS) -> None:
        self.folder = folder or cache_root() / "passed"
        self.inputs = tuple(inputs)

    def _record(self, file: Path) -> Path:
        return self.folder / f"{file.stem}-{digest((*self.inputs, file))}.json"

    def when(self, file: Path) -> str | None:
        """The day and time at which the file passed with the same content, or None."""
        try:
            return json.loads(self._record(file).read_text())["at"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def record(self, file: Path) -> None:
        """Keep that the whole file has passed just now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self._record(file)
        aside = record.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps({"at": time.strftime("%Y-%m-%d %H:%M:%S")}))
        aside.replace(record)
