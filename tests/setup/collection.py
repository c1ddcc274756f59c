"""The collection's place in an ansible_collections tree: as a link for running, as a copy for ansible-test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.setup import system


def tree_name(kind: str) -> Path:
    """Return the tree's folder for this checkout: two checkouts never share one."""
    return system.cache() / f"{kind}-{system.digest(str(system.ROOT))}"


def linked_tree() -> Path:
    """Return a collections path in which c5c3.ha is a link to this checkout."""
    tree = tree_name("collections")
    link = tree / "ansible_collections" / "c5c3" / "ha"
    if not link.is_symlink() or Path(os.readlink(link)) != system.ROOT:
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".ha-{os.getpid()}")
        fresh.symlink_to(system.ROOT)
        fresh.replace(link)
    return tree


def files() -> list[str]:
    """Return the checkout's files that git tracks or would: no caches, nothing ignored."""
    argv = ["git", "-C", str(system.ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in listed if name and os.path.lexists(system.ROOT / name)]


def copied_tree(kind: str, without: tuple[str, ...] = ()) -> Path:
    """Return a collections path in which c5c3.ha is a fresh copy: ansible-test refuses a link and wants no clutter.

    Files whose name begins with one of ``without`` are left out.
    """
    tree = tree_name(kind)
    target = tree / "ansible_collections" / "c5c3" / "ha"
    target.mkdir(parents=True, exist_ok=True)
    names = [name for name in files() if not name.startswith(without)]
    # --delete needs whole folders, so what is gone from the checkout is removed by hand
    kept = set(names)
    for path in sorted(target.rglob("*"), reverse=True):
        name = str(path.relative_to(target))
        if name.startswith("tests/output"):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in kept:
            path.unlink()
    subprocess.run(
        ["rsync", "-a", "--checksum", "--from0", "--files-from=-", f"{system.ROOT}/", f"{target}/"],
        input="\0".join(names),
        text=True,
        check=True,
    )
    return tree
