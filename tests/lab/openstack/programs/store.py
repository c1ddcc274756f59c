"""The hypervisors' shared storage: a bindfs mount that libvirt takes for glusterfs, else it refuses to live-migrate.

store.py mount SOURCE TARGET
    Mount and stay. One in each host: QEMU's image locks do not cross between hosts.
store.py local TARGET
    No shared storage: the folder itself, on the host's own disk, as a mount, so that whoever waits for one goes on.
store.py serve SOURCE TARGET SOCKET
    Mount, and hand the mount to whoever connects to SOCKET. One mount for all: locks hold between hosts.
store.py attach SOCKET TARGET
    Take the mount from `serve` into this mount namespace; ends when `serve` ends, to be started again.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MNT_DETACH, AT_FDCWD = 1, 4, 2, -100
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def clear(target: str) -> None:
    """Take away the dead mounts of earlier runs."""
    while libc.umount2(target.encode(), MNT_DETACH) == 0:
        pass
    os.makedirs(target, exist_ok=True)


def bindfs(source: str, target: str) -> list[str]:
    clear(target)
    options = "nonempty,subtype=glusterfs,fsname=store"
    return ["bindfs", "-f", "--multithreaded", "--forward-odirect=4096", "-o", options, source, target]


def local(target: str) -> None:
    clear(target)
    subprocess.run(["mount", "--bind", target, target], check=True)
    signal.pause()


def serve(source: str, target: str, path: str) -> int:
    # A kill -9 of this program must end the mount too.
    daemon = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *bindfs(source, target)])
    end = time.monotonic() + 10
    while not os.path.ismount(target):
        if daemon.poll() is not None or time.monotonic() > end:
            return 1
        time.sleep(0.02)
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    connections = []  # kept open: their end tells the takers that this mount is gone

    def hand_out() -> None:
        while True:
            connection, _ = listener.accept()
            tree = check(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, target.encode(), OPEN_TREE_CLONE))
            socket.send_fds(connection, [b"."], [tree])
            os.close(tree)
            connections.append(connection)

    threading.Thread(target=hand_out, daemon=True).start()
    return daemon.wait()


def attach(path: str, target: str) -> int:
    clear(target)
    connection = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + 30
    while True:
        try:
            connection.connect(path)
            break
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"nobody serves {path}: {error}")
            time.sleep(0.05)
    _data, (tree,), _flags, _address = socket.recv_fds(connection, 1, 1)
    check(libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH))
    os.close(tree)
    connection.recv(1)
    return 1


if __name__ == "__main__":
    match sys.argv[1]:
        case "mount":
            command = bindfs(*sys.argv[2:])
            os.execvp(command[0], command)
        case "local":
            local(*sys.argv[2:])
        case "serve":
            sys.exit(serve(*sys.argv[2:]))
        case "attach":
            sys.exit(attach(*sys.argv[2:]))
