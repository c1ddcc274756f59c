"""The power switch behind the lab's management controllers: ``python -m tests.lab.bmc.switch SEED``.

Listens at ``LAB/bmc/switch`` for one line, answers and closes::

    HOST get power boot ...     one line "NAME:VALUE" for each (what ipmi_sim asks of its chassis_control program)
    HOST set power 0 ...        off; power 1 on, reset 1 power cycle
    ping

Commands are taken at once and done beside, as a real switch does. ``LAB/bmc/HOST.stays-on`` makes a host ignore them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path


def ask(folder: Path | str, line: str, timeout: float = 10) -> str:
    """Send one line to the switch and return its answer.

    :raises OSError: when there is none.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect(str(Path(folder) / "switch"))
        client.sendall(f"{line}\n".encode())
        with client.makefile("r") as answer:
            return answer.read().strip()


class Switch:
    """Serves until the lab is gone.

    :param seed: of a lab that is up.
    """

    def __init__(self, seed: int) -> None:
        from tests.lab import Lab

        self.lab = Lab.attach(seed)
        self.folder = self.lab.directory / "bmc"
        self._locks = {name: threading.Lock() for name in self.lab.host_names}
        self._log = threading.Lock()

    def serve(self) -> None:
        """Answer, and look each second whether the lab still is there."""
        path = self.folder / "switch"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(path))
            server.listen(16)
            server.settimeout(1)
            own = path.stat().st_ino
            while self.lab.control.running and path.exists() and path.stat().st_ino == own:
                with contextlib.suppress(TimeoutError):
                    # Another lab of this seed has a switch of its own.
                    client, _address = server.accept()
                    threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            client.settimeout(10)
            with client.makefile("r") as lines:
                words = lines.readline().split()
            answer = self._obey(words[0], words[1], words[2:]) if len(words) > 1 else "pong"
            client.sendall(answer.encode())

    def _obey(self, host: str, verb: str, words: list[str]) -> str:
        if verb == "get":
            power = int(self.lab.hosts[host].running)
            return "".join(f"{word}:{power if word == 'power' else 0}\n" for word in words)
        if verb == "set":
            for name, value in zip(words[::2], words[1::2], strict=False):
                command = {"power0": "off", "power1": "on", "shutdown1": "off", "reset1": "reset"}.get(name + value)
                if command:
                    self._note(host, command)
                    threading.Thread(target=self._do, args=(host, command)).start()
        return "\n"

    def _do(self, host: str, command: str) -> None:
        with self._locks[host]:
            if (self.folder / f"{host}.stays-on").exists():
                return
            if command in ("off", "reset"):
                self.lab.hosts[host].kill()
            if command in ("on", "reset"):
                self.lab.hosts[host].start()

    def _note(self, host: str, command: str) -> None:
        with self._log, open(self.folder / "switch.log", "a", encoding="utf-8") as log:
            log.write(f"{time.time():.6f} {host} {command}\n")


if __name__ == "__main__":
    # A killed host's frozen processes must not be ours.
    os.chdir("/")
    Switch(int(sys.argv[1])).serve()
