# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks an IPMI controller who it is, and keeps the password out of everybody's arguments.

fence_ipmilan hands the password to ``ipmitool -P``, where every user of the machine can read it for a moment. It gets
a word that is none instead, and through its option ``ipmitool_path`` a program that replaces it by ``-f FILE``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import FenceTarget, FencingError
from ansible_collections.c5c3.ha.plugins.module_utils.fencing import process

PORT = 623
# In the place of the password, for agents that insist on one.
NOTHING = "read-from-a-file"

_WRAPPER = """#!/bin/sh
# c5c3.ha: ipmitool, reading the password from a file in memory instead of its arguments
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    left=$((left - 1))
    if [ "$argument" = -P ] && [ "$left" -gt 0 ]; then
        shift
        left=$((left - 1))
        set -- "$@" -f {password}
    else
        set -- "$@" "$argument"
    fi
done
exec {ipmitool} "$@"
"""


@contextlib.contextmanager
def password_file(target: FenceTarget) -> Iterator[str]:
    """Yield the path of a file in memory with the password; children of ours can open it."""
    with process.memory_file("ipmi", target.password + "\n") as path:
        yield path


@contextlib.contextmanager
def wrapper(password: str) -> Iterator[str]:
    """Yield the path of a program that is ipmitool with the password of the file `password`. It holds no secret.

    :raises FencingError: AgentMissing without ipmitool.
    """
    ipmitool = process.find("ipmitool")
    with tempfile.TemporaryDirectory(prefix="c5c3-ha-") as folder:  # mode 0700
        path = os.path.join(folder, "ipmitool")
        text = _WRAPPER.format(password=shlex.quote(password), ipmitool=shlex.quote(ipmitool))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w", encoding="utf-8") as file:
            file.write(text)
        yield path


def check_guid(target: FenceTarget, password: str, seconds: float) -> None:
    """Return when the controller's system is the target's.

    :param password: path of the password's file.
    :raises FencingError: WrongSystem, AuthenticationFailed, Unreachable, AgentMissing or AgentFailed.
    """
    options = dict(target.parameters)
    arguments = [process.find("ipmitool"), "-I", "lanplus", "-H", target.address, "-p", str(target.port or PORT)]
    # Only with -v it tells a wrong password from silence.
    arguments += ["-v", "-U", target.username, "-f", password, "-L", options.get("privlvl", "administrator").upper()]
    if "cipher" in options:
        arguments += ["-C", options["cipher"]]
    answer = process.run([*arguments, "mc", "guid"], "", seconds)
    if answer.code is None:
        raise FencingError(rules.UNREACHABLE, f"{target.where} does not answer IPMI within the time allowed")
    guid = rules.mc_guid(answer.stdout) if answer.code == 0 else None
    if guid is None:
        said = rules.words(answer.output, [target.password])
        raise FencingError(
            rules.problem(answer.output), f"{target.where} does not tell its GUID ({said or 'no words'})"
        )
    if not rules.same_guid(rules.last_part(target.system_id), guid):
        raise FencingError(rules.WRONG_SYSTEM, rules.wrong_system(target, [guid]))
