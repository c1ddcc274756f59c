"""``make build``: build the tarball, install it into a scratch tree, and look whether it holds what it must and no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.setup import collection, system

UNWANTED = re.compile(
    r"(^|/)(__pycache__|\.git|\.ci|\.pytest_cache|\.ruff_cache|\.hypothesis|\.ansible|tests/output|build)(/|$)|\.pyc$|\.tar\.gz$"
)
NEEDED = (
    "README.md",
    "COPYING",
    "meta/runtime.yml",
    "plugins/modules",
    "extensions/eda/plugins/event_source",
    "extensions/eda/rulebooks",
    "rulebooks",
    "crds",
)


def main() -> int:
    target = system.ROOT / "build"
    target.mkdir(exist_ok=True)
    for old in target.glob("c5c3-ha-*.tar.gz"):
        old.unlink()
    # built from the copy of what git knows: a stray file in the checkout is not shipped
    source = collection.copied_tree("build") / "ansible_collections" / "c5c3" / "ha"
    subprocess.run(
        ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(target)],
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (tarball,) = target.glob("c5c3-ha-*.tar.gz")
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    problems = [f"holds {name}" for name in names if UNWANTED.search(name)]
    problems += [
        f"lacks {name}" for name in NEEDED if not any(entry == name or entry.startswith(f"{name}/") for entry in names)
    ]
    with tempfile.TemporaryDirectory(prefix="c5c3-ha-build-") as scratch:
        subprocess.run(
            ["ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", scratch, str(tarball)],
            check=True,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": scratch},
            stdout=subprocess.DEVNULL,
        )
        installed = Path(scratch) / "ansible_collections" / "c5c3" / "ha"
        for rulebook in (installed / "extensions" / "eda" / "rulebooks").glob("*.yml"):
            if not (installed / "rulebooks" / rulebook.name).exists():
                problems.append(f"installs {rulebook.name} under extensions/eda/rulebooks but not under rulebooks")
        listed = subprocess.run(
            ["ansible-doc", "-l", "-t", "module", "c5c3.ha", "--json"],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": scratch},
            capture_output=True,
            text=True,
            check=True,
        )
        for module in sorted((system.ROOT / "plugins" / "modules").glob("[a-z]*.py")):
            if f'"c5c3.ha.{module.stem}"' not in listed.stdout:
                problems.append(f"installs no documented module {module.stem}")
    for problem in problems:
        print(f"{tarball.name}: {problem}")
    print(
        f"build: {tarball.relative_to(system.ROOT)}, {len(names)} entries, {tarball.stat().st_size / 1024:.0f} KiB, {len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
