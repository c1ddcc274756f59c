# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The warm server: a process that has imported ansible and forks for each call of ``ansible-playbook``.

It starts cold, knowing no environment. The first call it sees (the launcher's primer makes one) teaches it the
environment of the daemon's calls; it then replaces itself by a fresh interpreter with exactly that environment, imports
ansible there and listens. ansible reads its configuration while it is imported, so a call is taken only if its whole
environment is the server's own, save what is read while running (PER_CALL), and if the configuration file and all
loaded code are what they were. Any other call is refused before it starts, and the client runs the real one.

Per connection the server forks a keeper, which reads the call, offers to run it, forks the run itself after the client's
"go", passes signals on and tells how the run ended. The server itself never waits for a client.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

MAGIC = b"c5warm1\n"
SOCKET = "socket"
# A call that is larger, in bytes, is run the ordinary way.
LARGEST_CALL = 1 << 20
# seconds for a client to send its call, and to say "go"
CLIENT_SECONDS = 2.0
# Read while a playbook runs, or set anew in the run: these may differ from call to call. ansible-rulebook sets JAVA_HOME.
PER_CALL = frozenset(
    {b"ANSIBLE_CACHE_PLUGIN_CONNECTION", b"AWX_ISOLATED_DATA_DIR", b"JAVA_HOME", b"OLDPWD", b"PWD", b"SHLVL", b"_"}
)
# A foreign environment asked for so often in a row, and not sooner than so many seconds after the last one, is learnt.
LEARN_AFTER = 2
LEARN_SECONDS = 30.0
# seconds between looks at whether the parent lives; the kernel's signal normally comes first
PARENT_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
# Calls ansible-runner as ansible-rulebook does; the client ends that call, nothing is run.
PRIMER = """
import ansible_runner, os, tempfile
with tempfile.TemporaryDirectory(prefix="c5c3-warm-") as folder:
    os.mkdir(os.path.join(folder, "project"))
    ansible_runner.run(private_data_dir=folder, playbook="prime.yml", quiet=True)
"""
PRIME = "C5C3_HA_WARM_PRIME"

Environment = dict[bytes, bytes]


class Refused(Exception):
    """Why a call is not taken; `learn` is the environment with which it would be."""

    def __init__(self, reason: str, learn: Environment | None = None) -> None:
        super().__init__(reason)
        self.learn = learn


@dataclass(frozen=True)
class Call:
    """What a process takes from its parent."""

    real: str
    folder: bytes
    umask: int
    ignored: frozenset[int]
    arguments: list[str]
    environment: Environment


@dataclass(frozen=True)
class Start:
    """How this server was started; it starts itself anew with the same words."""

    folder: Path
    real: str
    parent: int
    primer: str  # the Python that has ansible-runner, "-" for none; "" once an environment is known
    ready: int  # descriptor that tells the launcher of the start; -1 later

    @classmethod
    def from_words(cls, words: list[str]) -> Start:
        folder, real, parent, primer, ready = words
        return cls(Path(folder), real, int(parent), primer, int(ready))


def log(text: str) -> None:
    """Tell the daemon's log, in one line."""
    print(f"c5c3.ha warm: {text}", file=sys.stderr, flush=True)


def sibling(name: str) -> ModuleType:
    """Return the module beside this file; not through sys.path, which must be that of the real ansible-playbook."""
    spec = importlib.util.spec_from_file_location(f"c5c3_ha_warm_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def die_with_parent(parent: int, number: int) -> None:
    """Ask the kernel for signal `number` when the parent ends; end at once if it has ended already."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


class Server:
    """Takes connections and forks a keeper for each; learns environments."""

    def __init__(self, start: Start, job: ModuleType | None) -> None:
        self.start = start
        self.job = job
        self.address = str(start.folder / SOCKET)
        self.began = time.monotonic()
        self.asked: list[Environment] = []
        self.told = b""
        self.wishes, self.wish = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wishes.setblocking(False)
        self.woken, waker = socket.socketpair()
        for end in (self.woken, waker):
            end.setblocking(False)
        self.waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.listener = self.listen()

    def listen(self) -> socket.socket:
        """Return the listening socket; it appears in the folder when it can be connected to, and for this user only."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        new = f"{self.address}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        before = os.umask(0o177)
        try:
            listener.bind(new)
        finally:
            os.umask(before)
        listener.listen(128)
        listener.setblocking(False)
        os.rename(new, self.address)
        return listener

    def serve(self) -> None:
        """Serve until the parent is gone."""
        poll = select.poll()
        for source in (self.listener, self.wishes, self.woken):
            poll.register(source, select.POLLIN)
        while os.getppid() == self.start.parent:
            self.reap()
            ready = {number for number, event in poll.poll(PARENT_SECONDS * 1000)}
            if self.woken.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self.woken.recv(4096)
            if self.wishes.fileno() in ready:
                self.learn()
            if self.listener.fileno() in ready:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    self.keep(self.listener.accept()[0])

    @staticmethod
    def reap() -> None:
        """Leave no keeper behind as a zombie."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def keep(self, connection: socket.socket) -> None:
        """Fork a keeper for `connection`."""
        try:
            child = os.fork()
        except OSError as error:
            log(f"cannot fork: {error.strerror}; the ordinary ansible-playbook runs")
            connection.close()
            return
        if child:
            connection.close()
            return
        code = 1
        try:
            self.listener.close()
            self.wishes.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            keeper(self, connection)
            code = 0
        except BaseException as error:  # whatever it is, the server's own code must not go on in this process
            log(f"a keeper failed: {type(error).__name__}: {error}")
        os._exit(code)

    def learn(self) -> None:
        """Start anew with the environment of a refused call, if it is asked for often enough; tell why it was refused."""
        try:
            reason, *fields = self.wishes.recv(LARGEST_CALL).split(b"\0")
        except BlockingIOError:
            return
        wanted = dict(field.split(b"=", 1) for field in fields)
        own = dict(os.environb)
        settled = time.monotonic() - self.began >= LEARN_SECONDS
        if self.job is None:
            # an environment in which ansible could not be imported is not tried again
            if wanted and (self.start.primer or (settled and differing(own, wanted))):
                self.renew(wanted)
            return
        if reason != self.told:
            self.told = reason
            log(f"refused a call, so the ordinary ansible-playbook runs: {os.fsdecode(reason)}")
        if wanted:
            self.asked = [*(known for known in self.asked if not differing(known, wanted)), wanted]
            if not differing(own, wanted) or (settled and len(self.asked) >= LEARN_AFTER):
                self.renew(wanted)

    def renew(self, environment: Environment) -> None:
        """Become a fresh server with `environment`. Runs under way go on: their keepers are processes of their own."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.address)
        if self.job is not None:
            self.job.clean()
        start = self.start
        words = [str(start.folder), start.real, str(start.parent), "", "-1"]
        os.execve(sys.executable, [*interpreter_words(), __file__, *words], environment)


def interpreter_words() -> list[str]:
    """Return this interpreter's command line up to the script."""
    return sys.orig_argv[: len(sys.orig_argv) - len(sys.argv)]


def keeper(server: Server, connection: socket.socket) -> None:
    """Take one call over `connection` and see it through."""
    connection.settimeout(CLIENT_SECONDS)
    try:
        same_user(connection)
        call = receive(connection)
        try:
            check(server, call)
        except Refused as refused:
            wanted = [name + b"=" + value for name, value in (refused.learn or {}).items()]
            server.wish.setblocking(False)
            with contextlib.suppress(OSError):
                server.wish.send(b"\0".join([str(refused).encode(), *wanted]))
            raise
        connection.sendall(b"A")
        word, descriptors, _flags, _peer = socket.recv_fds(connection, 1, 3)
        if word != b"G" or len(descriptors) != 3:
            return
    except Refused as refused:
        with contextlib.suppress(OSError):
            connection.sendall(b"R" + str(refused).encode())
        return
    except OSError:
        return  # the client went away before "go": nothing was run
    server.wish.close()
    see_through(server.job, call, descriptors, connection)


def differing(one: Environment, other: Environment) -> list[bytes]:
    """Return the names of the variables that make `other` another environment than `one`."""
    return sorted(name for name in (one.keys() | other.keys()) - PER_CALL if one.get(name) != other.get(name))


def same_user(connection: socket.socket) -> None:
    """Refuse whoever is not the user of this process, root included."""
    uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if uid != os.geteuid():
        log(f"refused user {uid}: only user {os.geteuid()} may call")
        raise Refused("another user")


def receive(connection: socket.socket) -> Call:
    """Read one call."""
    head = connection.recv(len(MAGIC) + 8, socket.MSG_WAITALL)
    try:
        size = int(head[len(MAGIC) :], 16)
    except ValueError:
        size = -1
    if not head.startswith(MAGIC) or len(head) != len(MAGIC) + 8 or size < 0:
        raise Refused("another version")
    if size > LARGEST_CALL:
        raise Refused("too large")
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    try:
        real, folder, umask, ignored, count, *rest = bytes(data).split(b"\0")
        arguments, environment = rest[: int(count)], rest[int(count) :]
        return Call(
            real=os.fsdecode(real),
            folder=folder,
            umask=int(umask, 8),
            ignored=frozenset(int(number) for number in ignored.split(b",") if number),
            arguments=[os.fsdecode(argument) for argument in arguments],
            environment=dict(field.split(b"=", 1) for field in environment),
        )
    except ValueError:
        raise Refused("not a call") from None


def check(server: Server, call: Call) -> None:
    """Refuse a call whose run would differ from the ordinary one; put its folder and environment on otherwise."""
    if call.real != server.start.real:
        raise Refused(f"this serves {server.start.real}")
    own = dict(os.environb)
    if server.job is None:
        raise Refused("cold", learn=call.environment)
    others = differing(own, call.environment)
    if others:
        names = os.fsdecode(b" ".join(others[:8]))  # never the values: they may be secret
        raise Refused(f"another environment ({names})", learn=call.environment)
    try:
        os.chdir(call.folder)
    except OSError:
        raise Refused("its folder cannot be entered") from None
    os.environb.clear()
    os.environb.update(call.environment)
    stale, reason = server.job.differs(call.arguments)
    if stale:
        raise Refused(reason, learn=own)
    if reason:
        raise Refused(reason)


def see_through(job: ModuleType, call: Call, descriptors: list[int], connection: socket.socket) -> None:
    """Run `call`, pass the client's signals on, tell the client how it ended. A client that vanishes ends the run."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    keeper_pid = os.getpid()
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in call.ignored:
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        die_with_parent(keeper_pid, signal.SIGKILL)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in (*descriptors, connection, woken, waker):
            if isinstance(descriptor, socket.socket):
                descriptor.close()
            elif descriptor > 2:
                os.close(descriptor)
        os.umask(call.umask)
        job.run([call.real, *call.arguments])
    for descriptor in descriptors:
        os.close(descriptor)
    # the server's log is its own: this process needs nothing of it, and holds nothing of the caller's
    connection.settimeout(None)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = {number for number, event in poll.poll()}
        if connection.fileno() in ready:
            try:
                wanted = connection.recv(64)
            except OSError:
                wanted = b""
            for number in wanted or [signal.SIGKILL]:
                with contextlib.suppress(OSError, ValueError):
                    os.killpg(child, number)
            if not wanted:
                poll.unregister(connection)
        if woken.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                woken.recv(64)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(OSError):  # the client may be gone
                connection.sendall(b"X" + struct.pack("<i", status))
            return


def warmed(start: Start) -> ModuleType | None:
    """Import ansible as the real ansible-playbook would; return the module that runs a call, or None and say why."""
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(start.real))
    os.chdir(start.folder)
    job = sibling("job")
    problem = ""
    try:
        with silent() as said:
            job.warm()
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == 0:
            raise  # SIGTERM
        problem = f"{type(error).__name__}: {error}"
    # what ansible says at import belongs to every single run
    problem += " ".join(said)
    if not problem:
        return job
    log(f"the ordinary ansible-playbook runs, since ansible said while it was imported: {' '.join(problem.split())}")
    return None


@contextlib.contextmanager
def silent() -> Iterator[list[str]]:
    """Catch what is written to descriptors 1 and 2, and put it into the list when done."""
    said: list[str] = []
    kept = [os.dup(1), os.dup(2)]
    catch = os.memfd_create("c5c3-warm")
    try:
        for number in (1, 2):
            os.dup2(catch, number)
        yield said
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        said.append(os.pread(catch, 4096, 0).decode(errors="replace"))
        os.close(catch)
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def prime(start: Start) -> None:
    """Let ansible-runner call the client once, in the background."""
    environment = {**os.environ, "PATH": f"{start.folder}{os.pathsep}{os.environ.get('PATH', '')}", PRIME: "1"}
    with contextlib.suppress(OSError):
        # never waited for by name: reap() takes every child
        process = subprocess.Popen(
            [start.primer, "-c", PRIMER],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        process.returncode = 0


def main(words: list[str]) -> None:
    """Serve until the parent ends."""
    start = Start.from_words(words)

    def leave(number: int, frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    # a terminal's keys are for the daemon; this ends with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(start.parent, signal.SIGTERM)
    job = None
    try:
        if not start.primer:
            began = time.monotonic()
            job = warmed(start)
            took = time.monotonic() - began
        server = Server(start, job)
        if job is not None:
            log(f"ready after {took:.2f} s for {start.real}")
        if start.ready >= 0:
            os.write(start.ready, b"ready\n")
            os.close(start.ready)
        if start.primer not in ("", "-"):
            prime(start)
        server.serve()
    finally:
        shutil.rmtree(start.folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
