"""``make lint``: every static check, two at a time; the output of those that find something, then one line for each.

``python -m tests.setup.lint [NAME ...]`` runs only the checks of those names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.setup import collection, houserules, system


def shell_files() -> list[str]:
    """Return the checkout's shell scripts, by name or by first line."""
    found = []
    for name in collection.files():
        path = system.ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as handle:
            first = handle.readline(80)
        if name.endswith(".sh") or (first.startswith(b"#!") and (b"bash" in first or b"/sh" in first)):
            found.append(name)
    return found


def python_files() -> list[str]:
    """Return the checkout's Python files, scripts without a suffix included."""
    found = []
    for name in collection.files():
        path = system.ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        if name.endswith(".py"):
            found.append(name)
        elif "." not in path.name:
            with path.open("rb") as handle:
                first = handle.readline(80)
            if first.startswith(b"#!") and b"python" in first:
                found.append(name)
    return found


def command(*argv: str, cwd: Path | None = None) -> tuple[bool, str]:
    """Run argv; return (clean, output)."""
    done = subprocess.run(
        argv,
        cwd=cwd or system.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout


def shellcheck() -> tuple[bool, str]:
    files = shell_files()
    return command("shellcheck", "--external-sources", *files) if files else (True, "")


def ansible_lint() -> tuple[bool, str]:
    # it writes .ansible/ into the folder it looks at, and wants a real path: so the copy
    tree = collection.copied_tree("lint")
    clean, output = command(
        "ansible-lint",
        "--offline",
        "--strict",
        "--profile",
        "production",
        "--nocolor",
        cwd=tree / "ansible_collections" / "c5c3" / "ha",
    )
    warned = "warning(s)" in output and " 0 warning(s)" not in output
    return clean and not warned, output


def antsibull_docs() -> tuple[bool, str]:
    # --plugin-docs needs the collection in its tree
    return command(
        "antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "--validate-collection-refs", "self", ".",
        cwd=collection.linked_tree() / "ansible_collections" / "c5c3" / "ha",
    )  # fmt: skip


def changelog() -> tuple[bool, str]:
    fragments = sorted((system.ROOT / "changelogs" / "fragments").glob("*.y*ml"))
    released = system.ROOT / "changelogs" / "changelog.yaml"
    if not fragments and not released.exists():
        return False, "changelogs/fragments is empty and nothing is released: add a fragment (CONTRIBUTING.md)\n"
    return command("antsibull-changelog", "lint")


CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "ansible-lint": ansible_lint,
    "antsibull-docs": antsibull_docs,
    "changelog": changelog,
    "yamllint": lambda: command("yamllint", "--strict", "."),
    "black": lambda: command("black", "--check", *python_files()),
    "ruff": lambda: command("ruff", "check", "--quiet", "--output-format", "concise", *python_files()),
    "shellcheck": shellcheck,
    "house-rules": houserules.check,
}


def timed(name: str) -> tuple[str, bool, str, float]:
    """Run one check; return (name, clean, output, seconds)."""
    began = time.monotonic()
    try:
        clean, output = CHECKS[name]()
    except FileNotFoundError as error:
        clean, output = False, f"{error}\n"
    return name, clean, output, time.monotonic() - began


def main(argv: list[str]) -> int:
    unknown = [name for name in argv if name not in CHECKS]
    if unknown:
        print(f"no check {', '.join(unknown)}: choose from {', '.join(CHECKS)}")
        return 2
    with ThreadPoolExecutor(max_workers=max(2, (os.cpu_count() or 2))) as pool:
        results = list(pool.map(timed, argv or CHECKS))
    width = min(shutil.get_terminal_size().columns, 100)
    for name, clean, output, _seconds in results:
        if not clean:
            print(f"{f' {name} ':-^{width}}\n{output.rstrip()}\n")
    for name, clean, _output, seconds in results:
        print(f"{'ok    ' if clean else 'FAILED'}  {name:16} {seconds:6.1f} s")
    failed = [name for name, clean, _output, _seconds in results if not clean]
    print(
        f"lint: {len(results) - len(failed)} checks clean, {len(failed)} with findings{': ' + ', '.join(failed) if failed else ''}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
