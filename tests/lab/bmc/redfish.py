"""sushy-tools' Redfish controller, whose power switch is the lab's: ``python redfish.py SETTINGS``.

Runs in an environment of its own, so it imports nothing of ours but ``switch.py`` beside it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import bcrypt
from sushy_tools import error
from sushy_tools.emulator import main
from sushy_tools.emulator.resources.systems import fakedriver
from switch import ask

SETTINGS = json.loads(Path(sys.argv[1]).read_text())
COMMANDS = {
    "On": ["power 1"],
    "ForceOn": ["power 1"],
    "ForceOff": ["power 0"],
    "GracefulShutdown": ["power 0"],
    "ForceRestart": ["reset 1"],
    "GracefulRestart": ["reset 1"],
    "PowerCycle": ["reset 1"],
}


class LabDriver(fakedriver.FakeDriver):
    """Its systems are the lab's hosts."""

    def get_power_state(self, identity: str) -> str:
        """On while the host runs."""
        host = self._get(identity)["name"]
        return "On" if "power:1" in ask(SETTINGS["folder"], f"{host} get power") else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        """Hand the command to the switch."""
        host = self._get(identity)["name"]
        if state not in COMMANDS:
            raise error.NotSupportedError(f"Power state {state} is not supported")
        for command in COMMANDS[state]:
            ask(SETTINGS["folder"], f"{host} set {command}")


def serve() -> None:
    """Serve for ever."""
    folder = Path(SETTINGS["folder"]) / "redfish"
    folder.mkdir(exist_ok=True)
    # The cheapest hash: it is computed for each request.
    hashed = bcrypt.hashpw(SETTINGS["password"].encode(), bcrypt.gensalt(4)).decode()
    password = folder / "htpasswd"
    with open(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{SETTINGS['user']}:{hashed}\n")
    fakedriver.FakeDriver = LabDriver
    systems = [
        {"uuid": system, "name": host, "power_state": "On", "nics": []} for host, system in SETTINGS["systems"].items()
    ]
    main.app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_STATE_DIR": str(folder),
            "SUSHY_EMULATOR_AUTH_FILE": str(password),
            "SUSHY_EMULATOR_FAKE_SYSTEMS": systems,
        }
    )
    certificate, key = SETTINGS["certificate"]
    main.app.run(host=SETTINGS["address"], port=SETTINGS["port"], ssl_context=(certificate, key), threaded=True)


if __name__ == "__main__":
    serve()
