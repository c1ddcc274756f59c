# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program that may hang, print secrets or leave children behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import FencingError

# Debian has fence agents in sbin, which is not on everybody's PATH.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_DEATH = 2.0


@dataclass(frozen=True)
class Answer:
    """How a program ended.

    :param code: exit code; None when it was killed because its time was over.
    """

    code: int | None
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams."""
        return f"{self.stdout}\n{self.stderr}"


def find(program: str) -> str:
    """Return the path of a program.

    :raises FencingError: AgentMissing.
    """
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if path is None:
        raise FencingError(rules.AGENT_MISSING, f"{program} is not installed: {rules.remedy(rules.AGENT_MISSING)}")
    return os.path.abspath(path)


def run(arguments: list[str], lines: str, seconds: float, environment: dict[str, str] | None = None) -> Answer:
    """Run a program with `lines` on its standard input, and kill it with all its children after `seconds`.

    It gets an environment of its own: a proxy, a .netrc or a certificate of ours is not for a management controller.

    :raises FencingError: AgentFailed when it cannot be started.
    """
    env = {"PATH": _SYSTEM_PATH, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "HOME": "/nonexistent", **(environment or {})}
    # Should this process be killed, a hanging "off" must not reach the host minutes later, when it serves again.
    guard = shutil.which("timeout", path=_SYSTEM_PATH)
    prefix = [guard, "--signal=KILL", f"{seconds + _DEATH:.3f}"] if guard else []
    try:
        process = subprocess.Popen(  # pylint: disable=consider-using-with,ansible-bad-function # reaped below
            prefix + arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise FencingError(rules.AGENT_FAILED, f"{arguments[0]} cannot be started: {error.strerror}") from None
    out = err = b""
    code: int | None = None
    try:
        out, err = process.communicate(lines.encode("utf-8"), timeout=max(seconds, 0.0))
        code = process.returncode
    except BaseException as error:
        # Not reaped yet, so the number still is its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            out, err = process.communicate(timeout=_DEATH)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    return Answer(code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


@contextlib.contextmanager
def memory_file(name: str, content: str) -> Iterator[str]:
    """Yield the path of a file in memory that children of this user can open by that path while the block lasts.

    A secret in it is neither in arguments, nor in an environment, nor on a disk.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        data = content.encode("utf-8")
        if os.write(descriptor, data) != len(data):
            raise OSError("short write")
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
