"""Management controllers of the lab's hosts: OpenIPMI's ipmi_sim for each host, and sushy-tools' Redfish for all of them.

Their power switch is the host's: off kills it, on starts it. They stand in the control namespace, so a dead host's still
answers, from the hosts and from inside ``lab.enter()``::

    bmc = lab.bmc
    bmc.up()
    bmc.redfish("cmp01")  # spec.fencing for its Hypervisor; bmc.ipmi("cmp01") likewise
    bmc.write_secret("c5c3-ha")  # the Secret both name
    bmc.stays_on("cmp01")  # takes every command and does nothing
    lab.freeze("bmc-redfish")  # accepts connections and never answers (bmc-ipmi-cmp01 likewise)
    bmc.black_hole("cmp01")  # packets to its controllers vanish
    bmc.heal()

The Redfish controller has one system for each host, as the manager of a chassis has: taking "the" system of that
controller takes the last host.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import cached
from ..certificates import Authority, write_private
from ..hosts import CONTROL_ADDRESS, LabError, process_start, signal_process, wait_until
from .switch import ask

if TYPE_CHECKING:
    from .. import Lab

HERE = Path(__file__).parent
USER = "fencer"
SECRET = "bmc"
REDFISH_PORT = 18443
FIRST_IPMI_PORT = 16230
_NAMESPACE = uuid.UUID("0b6a1a0e-6c3c-5f5b-8f0e-3a8f1f6f7c55")
_TABLE = "inet c5c3_lab_bmc"

_IPMI = """name "{host}"
set_working_mc 0x20
  startlan 1
    addr {address} {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{program} {host}"
  user 1 false "" "" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
_COMMANDS = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""


def virtual_environment() -> Path:
    """The virtual environment with sushy-tools; made when missing (15 s).

    :raises LabError: when pip fails.
    """
    from ..nova import find_python

    python, requirements = find_python(), HERE / "requirements.txt"

    def make(folder: Path) -> None:
        subprocess.run([python, "-m", "venv", folder], check=True)
        # The whole closure is pinned. Programs are run by the environment's python, so that it may be moved.
        pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
        run = subprocess.run([*pip, "-r", requirements], capture_output=True, text=True, check=False)
        if run.returncode:
            raise LabError(f"pip cannot install the lab's Redfish controller:\n{run.stderr[-2000:]}")

    return cached("venv-bmc", [requirements, str(Path(python).resolve())], make)


class Bmc:
    """The controllers of one lab. Every method may be called again at any time.

    :param lab: a lab that is up.
    """

    user = USER

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "bmc"

    # -- what they are ------------------------------------------------------------------------------------------------

    @property
    def password(self) -> str:
        """Their password, made anew for each lab."""
        return (self.directory / "password").read_text()

    @property
    def ca(self) -> str:
        """Certificate authority of the Redfish controller, PEM."""
        return (self.directory / "tls/ca.crt").read_text()

    @staticmethod
    def system_id(host: str) -> str:
        """UUID of a host."""
        return str(uuid.uuid5(_NAMESPACE, host))

    def ipmi_port(self, host: str) -> int:
        """UDP port of a host's IPMI controller."""
        return FIRST_IPMI_PORT + 1 + self.lab.host_names.index(host)

    def redfish(self, host: str, **fencing: object) -> dict:
        """``spec.fencing`` of a host by Redfish; keywords replace fields."""
        return {
            "agent": "fence_redfish",
            "address": f"{CONTROL_ADDRESS}:{REDFISH_PORT}",
            "systemId": self.system_id(host),
            "secretRef": {"name": SECRET},
            **fencing,
        }

    def ipmi(self, host: str, **fencing: object) -> dict:
        """``spec.fencing`` of a host by IPMI; keywords replace fields."""
        return {
            "agent": "fence_ipmilan",
            "address": f"{CONTROL_ADDRESS}:{self.ipmi_port(host)}",
            "systemId": self.system_id(host),
            "secretRef": {"name": SECRET},
            # Of others it says only after ten seconds that it has none.
            "parameters": {"cipher": "3"},
            **fencing,
        }

    def credentials(self, **data: str) -> dict[str, str]:
        """What the Secret holds; keywords replace keys."""
        return {"username": self.user, "password": self.password, "ca.crt": self.ca, **data}

    def write_secret(self, namespace: str, name: str = SECRET, **data: str) -> None:
        """Write the Secret that :meth:`redfish` and :meth:`ipmi` name; the namespace is made when it is not there."""
        kubectl = self.lab.kubernetes.kubectl
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        kubectl("apply", "-f", "-", stdin=json.dumps(body))
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
        kubectl("apply", "-f", "-", stdin=json.dumps({**body, "stringData": self.credentials(**data)}))

    # -- life ---------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the controllers, and what their switches are wired to.

        :raises LabError: when they do not come up.
        """
        python = virtual_environment() / "bin/python"
        self.directory.mkdir(exist_ok=True)
        if not (self.directory / "password").exists():
            authority = Authority(self.directory / "tls")
            authority.issue("redfish", "bmc", hosts=[CONTROL_ADDRESS])
            write_private(self.directory / "password", secrets.token_hex(8).encode())  # IPMI takes 16
        self._start_switch()
        services = self.lab.control.services()
        if "bmc-redfish" not in services:
            self._write_redfish()
            self.lab.control.add_service("bmc-redfish", [python, HERE / "redfish.py", self.directory / "redfish.json"])
        for host in self.lab.host_names:
            if f"bmc-ipmi-{host}" not in services:
                folder = self._write_ipmi(host)
                program = ["ipmi_sim", "-c", folder / "lan.conf", "-f", folder / "commands", "-s", folder, "-n", "-p"]
                self.lab.control.add_service(f"bmc-ipmi-{host}", program)
        self._wait()

    def _start_switch(self) -> None:
        """The switch runs outside of the lab's namespaces, where hosts are killed and started. It ends with the lab."""
        if self._switch_pid():
            return
        log = self.lab.control.directory / "log/bmc-switch.log"
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.bmc.switch", str(self.lab.seed)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=HERE.parents[2],
                start_new_session=True,
            )
        (self.directory / "switch.pid").write_text(f"{process.pid} {process_start(process.pid)}\n")

        def answers() -> bool:
            if process.poll() is not None:
                raise LabError(f"the switch of the lab's controllers has ended: {log}")
            with contextlib.suppress(OSError):
                return bool(ask(self.directory, "ping"))
            return False

        wait_until(answers, 30, "the switch of the lab's controllers answers")

    def _switch_pid(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid, start = (self.directory / "switch.pid").read_text().split()
            return int(pid) if process_start(int(pid)) == int(start) else None
        return None

    def _write_redfish(self) -> None:
        tls = self.directory / "tls"
        settings = {
            "address": CONTROL_ADDRESS,
            "port": REDFISH_PORT,
            "certificate": [str(tls / "redfish.crt"), str(tls / "redfish.key")],
            "user": self.user,
            "password": self.password,
            "folder": str(self.directory),
            "systems": {host: self.system_id(host) for host in self.lab.host_names},
        }
        write_private(self.directory / "redfish.json", json.dumps(settings).encode())

    def _write_ipmi(self, host: str) -> Path:
        folder = self.directory / f"ipmi-{host}"
        folder.mkdir(exist_ok=True)
        program = folder / "chassis"
        line = f'echo "$@" | socat -t 10 - UNIX-CONNECT:{shlex.quote(str(self.directory / "switch"))}\n'
        program.write_text(f"#!/bin/sh\n{line}")
        program.chmod(0o755)
        values = {
            "host": host,
            "address": CONTROL_ADDRESS,
            "port": self.ipmi_port(host),
            "guid": uuid.UUID(self.system_id(host)).hex,
            "program": program,
            "user": self.user,
            "password": self.password,
        }
        write_private(folder / "lan.conf", _IPMI.format(**values).encode())
        (folder / "commands").write_text(_COMMANDS)
        return folder

    def _wait(self) -> None:
        def listening(protocol: str, port: int) -> bool:
            lines = self.lab.control.network_exec(["ss", "-Hln" + protocol], capture_output=True, text=True).stdout
            return f":{port} " in lines

        wait_until(lambda: listening("t", REDFISH_PORT), 60, "the Redfish controller listens (lab logs bmc-redfish)")
        for host in self.lab.host_names:
            port = self.ipmi_port(host)
            wait_until(lambda port=port: listening("u", port), 30, f"the IPMI controller of {host} listens")

    def down(self) -> None:
        """End them. They end with the lab in any case."""
        for name in self._services():
            self.lab.control.remove_service(name)
        pid = self._switch_pid()
        if pid:
            signal_process(pid, signal.SIGTERM)
            wait_until(lambda: self._switch_pid() is None, 10, "the switch of the lab's controllers ends")

    # -- faults -------------------------------------------------------------------------------------------------------

    def stays_on(self, *hosts: str) -> None:
        """These hosts take every command and go on running."""
        for host in hosts:
            (self.directory / f"{host}.stays-on").touch()

    def black_hole(self, *hosts: str) -> None:
        """Packets to the IPMI controllers of these hosts, and to the Redfish controller of all hosts, vanish."""
        ports = ", ".join(str(self.ipmi_port(host)) for host in hosts)
        rules = f"""table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
    chain input {{
        type filter hook input priority -300;
        tcp dport {REDFISH_PORT} drop
        udp dport {{ {ports} }} drop
    }}
}}
"""
        self.lab.control.network_exec(["nft", "-f", "-"], input=rules, text=True, check=True)

    def heal(self) -> None:
        """End all faults: hosts obey, packets arrive, frozen controllers run on. Hosts stay as they are."""
        for flag in self.directory.glob("*.stays-on"):
            flag.unlink()
        self.lab.control.network_exec(
            ["nft", "-f", "-"], input=f"table {_TABLE}\ndelete table {_TABLE}\n", text=True, check=True
        )
        for name in self._services():
            self.lab.control.heal(name)

    # -- what happened ------------------------------------------------------------------------------------------------

    def commands(self, host: str | None = None) -> list[str]:
        """Commands that reached the switch, in order, such as ``cmp01 off``; of one host or of all."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.directory / "switch.log").read_text().splitlines()
            commands = [line.partition(" ")[2] for line in lines]
            return [each for each in commands if host is None or each.split()[0] == host]
        return []

    def _services(self) -> Iterable[str]:
        return [name for name in self.lab.control.services() if name.startswith("bmc-")]
