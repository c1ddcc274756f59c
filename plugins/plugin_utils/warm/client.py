# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands as ``ansible-playbook`` first on a daemon's PATH and hands the call to the warm server beside it.

The launcher (``__main__.py``) copies this file into its private folder and lays the real interpreter's name on top of
it. It imports built-in modules only: this is the one part of a warm call that starts an interpreter (``-I -S``).

The call runs exactly once. Until the server has offered to take it and heard "go", whatever goes wrong ends in the real
``ansible-playbook`` from further down PATH. After "go" it is never started a second time, whatever happens.

The conversation, over a unix stream socket::

    client -> server  MAGIC, size as 8 hex digits, then the call, see _call()
    server -> client  "A" offers to run it, or "R" and the reason why not
    client -> server  "G" go, with descriptors 0-2 (SCM_RIGHTS); from then on one byte per signal to pass on
    server -> client  "X" and the wait status as 4 bytes, little endian
"""

from __future__ import annotations

import os
import sys

# The C modules below ``signal`` and ``socket``: these two cost 6 ms of imports (enum, selectors) and give nothing here.
from _signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, getsignal, signal
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

MAGIC = b"c5warm1\n"
SOCKET = "socket"
# seconds; a server that does not answer in that time is passed by
HANDSHAKE_SECONDS = 1.0
# what the launcher sets to teach the server the environment of the daemon's calls: such a call is never run
PRIME = b"C5C3_HA_WARM_PRIME"
# the caller's own: 0, 1, 2, 4 ... are ansible-playbook's
EXIT_UNKNOWN = 251
EXIT_MISSING = 127
FORWARDED = (SIGHUP, SIGINT, SIGQUIT, SIGTERM)


def main() -> None:
    """Run the call in the warm server, or become the real ansible-playbook."""
    here = os.path.dirname(os.path.abspath(__file__))
    environment = dict(os.environb)
    path = environment.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    path = [entry for entry in path if entry != os.fsencode(here)]
    environment[b"PATH"] = b":".join(path)
    priming = environment.pop(PRIME, None) is not None
    real = _real(path)

    ignored = {number for number in FORWARDED if getsignal(number) == SIG_IGN}
    if SIGINT not in ignored:
        signal(SIGINT, SIG_DFL)
    if real:
        connection = _offered(os.path.join(here, SOCKET), _call(real, environment, ignored))
        if connection is not None and not priming:
            _leave(_run(connection, ignored))
    if priming:
        os._exit(0)
    signal(SIGPIPE, SIG_DFL)
    if not real:
        os.write(2, b"ansible-playbook: not found on PATH; install ansible-core there\n")
        os._exit(EXIT_MISSING)
    os.execve(real, [real, *map(os.fsencode, sys.argv[1:])], environment)


def _real(path: list[bytes]) -> bytes:
    """Return the real ansible-playbook, or nothing."""
    for entry in path:
        name = os.path.join(entry or b".", b"ansible-playbook")
        if os.path.isfile(name) and os.access(name, os.X_OK):
            return os.path.abspath(name)
    return b""


def _call(real: bytes, environment: dict[bytes, bytes], ignored: set[int]) -> bytes:
    """Return everything a process takes from its parent, save the three descriptors, as NUL-separated fields.

    Nothing where that cannot be told, or where the real one has something to say about its descriptors.
    """
    try:
        folder = os.getcwdb()
        if not all(os.get_blocking(descriptor) for descriptor in (0, 1, 2)):
            return b""
    except OSError:
        return b""
    umask = os.umask(0o077)
    os.umask(umask)
    arguments = [os.fsencode(argument) for argument in sys.argv[1:]]
    fields = [real, folder, b"%o" % umask, b",".join(b"%d" % number for number in sorted(ignored))]
    fields += [b"%d" % len(arguments), *arguments]
    fields += [name + b"=" + value for name, value in environment.items()]
    return b"\0".join(fields)


def _offered(name: str, call: bytes) -> socket | None:
    """Return a connection whose server has offered to run `call`, or None."""
    if not call:
        return None
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(HANDSHAKE_SECONDS)
        connection.connect(name)
        connection.sendall(MAGIC + b"%08x" % len(call) + call)
        if connection.recv(1) == b"A":
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _run(connection: socket, ignored: set[int]) -> int | None:
    """Say "go", pass signals on and return the wait status, or None if nobody can tell it any more."""
    for number in FORWARDED:
        if number not in ignored:
            signal(number, lambda which, frame: _pass_on(connection, which))
    connection.settimeout(None)
    answer = b""
    # Only now: descriptors that wait in a queue keep the caller's pipe open.
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    try:
        connection.sendmsg([b"G"], [(SOL_SOCKET, SCM_RIGHTS, descriptors)])
        while len(answer) < 5:
            part = connection.recv(5 - len(answer))
            if not part:
                return None
            answer += part
    except OSError:
        return None
    return int.from_bytes(answer[1:], "little")


def _pass_on(connection: socket, number: int) -> None:
    try:
        connection.send(bytes([number]))
    except OSError:
        pass


def _leave(status: int | None) -> None:
    """End as the run ended: with its exit code, or by its signal."""
    if status is None:
        os.write(
            2,
            b"ansible-playbook: the warm process died during this run; whether it finished is not known, "
            b"and it is not repeated here. Look at what it should have done, then call it again.\n",
        )
        os._exit(EXIT_UNKNOWN)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number:
        try:
            signal(number, SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL cannot be handled
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
