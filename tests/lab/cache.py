"""Things that are made once and kept: a folder for each, named after a hash of what it is made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def cache_root() -> Path:
    """``C5C3_HA_CACHE``, else /var/cache/c5c3-ha."""
    return Path(os.environ.get("C5C3_HA_CACHE", "/var/cache/c5c3-ha"))


def digest(inputs: Iterable[Path | str | bytes]) -> str:
    """Twelve hex digits over the inputs: files by name and content, folders by all their files, other values as such."""
    total = hashlib.sha256()

    def add(kind: str, data: bytes) -> None:
        total.update(f"{kind} {len(data)}\n".encode())
        total.update(data)

    for each in inputs:
        if isinstance(each, Path):
            files = sorted(p for p in each.rglob("*") if p.is_file()) if each.is_dir() else [each]
            for file in files:
                if "__pycache__" not in file.parts:
                    add(f"file {file.relative_to(each) if each.is_dir() else file.name}", file.read_bytes())
        else:
            add("value", each.encode() if isinstance(each, str) else each)
    return total.hexdigest()[:12]


def cached(name: str, inputs: Iterable[Path | str | bytes], make: Callable[[Path], None]) -> Path:
    """The folder ``NAME-HASH`` of the cache, made by ``make(empty_folder)`` when it is not there yet.

    Safe against a kill at any instant (made aside, then renamed) and against two makers at once (one waits).
    """
    root = cache_root()
    target = root / f"{name}-{digest(inputs)}"
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f".{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        for leftover in root.glob(f".{name}-making-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-making-", dir=root))
        try:
            make(aside)
            aside.chmod(0o755)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return target
