# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a command with a warm ``ansible-playbook`` first on its PATH.

    python -m ansible_collections.c5c3.ha.plugins.plugin_utils.warm -- ansible-rulebook --rulebook ...

The command replaces this process, so signals and exit codes are its own. Beside it runs the warm server, which dies
with it. Whatever keeps the server from starting costs one line of log and the command runs without it.

This file needs nothing but the standard library; ``python .../plugin_utils/warm -- COMMAND`` works too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).absolute().parent
# a unix socket's name holds 107 bytes
LONGEST_FOLDER = 90
# seconds until the server listens: it imports nothing of ansible before
START_SECONDS = 5.0


class CannotStart(Exception):
    """Why there is no warm server."""


def main(arguments: list[str]) -> int:
    """Start the server and become the command; return an exit code only if there is no command to become."""
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m ansible_collections.c5c3.ha.plugins.plugin_utils.warm -- COMMAND...", file=sys.stderr)
        return 2
    environment = dict(os.environ)
    try:
        environment["PATH"] = f"{start(environment, arguments[0])}{os.pathsep}{environment['PATH']}"
    except (CannotStart, OSError) as error:
        print(f"c5c3.ha warm: {error}; going on with the ordinary ansible-playbook", file=sys.stderr, flush=True)
    try:
        os.execvpe(arguments[0], arguments, environment)
    except OSError as error:
        print(f"c5c3.ha warm: cannot run {arguments[0]}: {error.strerror}", file=sys.stderr)
    return 127


def start(environment: dict[str, str], daemon: str) -> Path:
    """Start a server that lives as long as this process; return the folder to put first on PATH.

    `daemon` is the command's name: its interpreter tells the server what ansible-runner adds to the environment.
    """
    real = shutil.which("ansible-playbook", path=environment.get("PATH", ""))
    if not real:
        raise CannotStart("no ansible-playbook on PATH")
    real = os.path.abspath(real)
    command = interpreter(real)
    try:
        primer = interpreter(shutil.which(daemon, path=environment["PATH"]) or "")[0]
    except (CannotStart, OSError):
        primer = "-"  # no Python script: the first call teaches the environment
    folder = private_folder(environment)
    try:
        install(folder, command[0])
        ready, answer = os.pipe()
        with open(os.devnull, "rb") as nothing:
            server = subprocess.Popen(
                [*command, str(HERE / "server.py"), str(folder), real, str(os.getpid()), primer, str(answer)],
                stdin=nothing,
                stdout=sys.stderr,
                env=environment,
                pass_fds=[answer],
                start_new_session=True,
            )
        os.close(answer)
        with open(ready, "rb") as reader:
            if reader.read() != b"ready\n":
                raise CannotStart(f"its server ended at once (exit code {server.wait(START_SECONDS)})")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def interpreter(script: str) -> list[str]:
    """Return the Python, with its options, that runs `script`."""
    with open(script, "rb") as reader:
        first, second = (reader.readline(4096).decode(errors="replace") for _line in range(2))
    words = first[2:].split() if first.startswith("#!") else []
    if words[:1] == ["/bin/sh"] and second.startswith("'''exec'"):
        # what pip writes where the interpreter's name is too long or has blanks
        words = shlex.split(second.removeprefix("'''exec'"))[:1]
    elif words and os.path.basename(words[0]) == "env":
        words = [shutil.which(words[1]) or "", *words[2:]] if len(words) > 1 else []
    if not words or not os.path.basename(words[0]).startswith("python") or not os.access(words[0], os.X_OK):
        raise CannotStart(f"cannot tell which Python runs {script} (first line {first.strip()!r})")
    return words


def private_folder(environment: dict[str, str]) -> Path:
    """Return a new folder for this user alone; the name is short enough for a socket below it."""
    for place in (environment.get("XDG_RUNTIME_DIR", ""), environment.get("TMPDIR", ""), "/tmp"):  # noqa: S108
        if place and len(os.fsencode(place)) < LONGEST_FOLDER - 20 and os.access(place, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="c5c3-warm-", dir=place))
    raise CannotStart("no folder to write to; set XDG_RUNTIME_DIR")


def install(folder: Path, python: str) -> None:
    """Lay the client into `folder`."""
    client = (HERE / "client.py").read_text(encoding="utf-8")
    # A link, since a first line may neither be long nor hold blanks; not named python, which it would shadow on PATH.
    (folder / "interpreter").symlink_to(python)
    script = folder / "ansible-playbook"
    script.write_text(f"#!{folder}/interpreter -IS\n{client}", encoding="utf-8")
    script.chmod(0o700)
    if not os.access(script, os.X_OK):
        raise CannotStart(f"{folder} is mounted noexec; set XDG_RUNTIME_DIR to a folder that is not")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
