"""Agent and operator on a lab, deployed with the collection's own playbook, and their processes to be killed.

>>> deployment = Deployment(lab)
>>> deployment.deploy(print)
>>> deployment.kill("agent", "cmp01")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.lab import Lab, LabError, wait_until
from tests.lab.daemons import Daemon, daemons

NAMESPACE = "c5c3-ha"
# What the rulebook ha_agent tells when its source is connected.
_CONNECTED = "is connected"


class Deployment:
    """What ``playbooks/data_plane.yml`` makes on a lab.

    :param operators: replicas of the operator; of several, one acts.
    :param settings: more variables of the playbook.
    """

    def __init__(self, lab: Lab, operators: int = 1, settings: dict[str, Any] | None = None) -> None:
        self.lab = lab
        self.operators = operators
        self.settings = settings or {}
        self.folder = lab.directory / "deployment"

    # -- deploying -----------------------------------------------------------------------------------------------------

    def variables(self) -> dict[str, Any]:
        """Variables of the playbook. Secret: it holds the lab's password."""
        collections = Path(os.environ["ANSIBLE_COLLECTIONS_PATH"].split(os.pathsep)[0])
        checkout = (collections / "ansible_collections" / "c5c3" / "ha").resolve()
        pod = self.lab.kubernetes.pod_volumes(paths=[collections, checkout], python=sys.executable)
        clouds = yaml.safe_load(self.lab.nova.clouds_yaml.read_text())["clouds"]
        values: dict[str, Any] = {
            "hypervisor_operator_cloud": "lab",
            "hypervisor_operator_clouds": clouds,
            "hypervisor_operator_replicas": self.operators,
            "hypervisor_operator_rulebook_vars": {"c5c3_ha_resync_seconds": 5},
        }
        for role in ("ha_agent", "hypervisor_operator"):
            values.update(
                {
                    f"{role}_kubeconfig": str(self.lab.kubernetes.kubeconfig),
                    f"{role}_image": "lab.local/c5c3-ha:1",
                    f"{role}_image_pull_policy": "Never",
                    f"{role}_collections_path": str(collections),
                    f"{role}_extra_volumes": pod["volumes"],
                    f"{role}_extra_volume_mounts": pod["volumeMounts"],
                    f"{role}_extra_env": pod["env"],
                    # Weighs against nova-compute, kubelet and guests of the same machine.
                    f"{role}_resources": {"requests": {"cpu": "500m", "memory": "192Mi"}},
                }
            )
        values["crds_kubeconfig"] = str(self.lab.kubernetes.kubeconfig)
        return {**values, **self.settings}

    def deploy(
        self, tell: Callable[[str], None] = lambda _text: None, arguments: tuple[str, ...] = ()
    ) -> dict[str, int]:
        """Run the playbook; return Ansible's recap (``ok``, ``changed``, ...).

        :raises LabError: when it fails, with its last lines.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        path = self.folder / "variables.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(self.variables(), file)
        command = ["ansible-playbook", "c5c3.ha.data_plane", "-i", "localhost,", "-e", f"@{path}", *arguments]
        environment = {**os.environ, "ANSIBLE_HOME": str(self.folder / "ansible"), "ANSIBLE_NOCOLOR": "1"}
        process = subprocess.Popen(
            self._entered(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        lines: list[str] = []
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if line.startswith("TASK ["):
                tell(line[6:].split("]")[0])
        if process.wait():
            raise LabError("the playbook c5c3.ha.data_plane failed:\n" + "\n".join(lines[-40:]))
        recap = next(line for line in reversed(lines) if line.startswith("localhost") and "ok=" in line)
        return {key: int(value) for key, value in (part.split("=") for part in recap.split(":", 1)[1].split())}

    def remove(self) -> None:
        """Take agents and operators away, and wait until none runs."""
        self.lab.kubernetes.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=180)
        wait_until(lambda: not self.daemons(), 60, "no agent and no operator runs", 0.2)

    def _entered(self, command: list[str]) -> list[str]:
        # The process may be in the lab's network already; entering it again changes nothing.
        return ["nsenter", "--target", str(self.lab.control.pid), "--net", "--", *command]

    def wait_ready(self, timeout: float = 120) -> None:
        """Wait until every agent has told a heartbeat's worth of life and an operator holds the Lease."""

        def leads() -> bool:
            lease = self.lab.kubernetes.kubectl(
                "get", "lease", "-n", NAMESPACE, "-o", "jsonpath={.items[*].spec.holderIdentity}"
            )
            return bool(lease.strip())

        wait_until(lambda: len(self.daemons("agent")) == len(self.lab.hosts), timeout, "an agent on every host", 0.2)
        wait_until(leads, timeout, "an operator that holds the Lease", 0.2)
        for host in self.lab.hosts:
            wait_until(lambda host=host: self.connected(host), timeout, f"the agent of {host} watches its guests", 0.2)

    def connected(self, host: str) -> bool:
        """Whether the agent of a host, as it runs now, has said that it is connected to libvirt."""
        pods = (self.lab.hosts[host].directory / "var" / "log" / "pods").glob(f"{NAMESPACE}_*/agent/*.log")
        logs = sorted(pods, key=lambda path: path.stat().st_mtime)
        found = self.daemons("agent", host)
        if not found or not logs or logs[-1].stat().st_mtime < _started_at(found[0].pid):
            return False  # what is there was written by the container before
        return _CONNECTED in logs[-1].read_text(encoding="utf-8", errors="replace")

    # -- the daemons ---------------------------------------------------------------------------------------------------

    def daemons(self, role: str | None = None, host: str | None = None) -> list[Daemon]:
        """The ansible-rulebook processes of the deployment, by host."""
        return daemons([machine for name, machine in self.lab.hosts.items() if host in (None, name)], role)

    def kill(self, role: str, host: str | None = None) -> Daemon:
        """Kill -9 one daemon: its container ends and kubelet starts another. Returns what was killed.

        :raises LabError: when none runs there.
        """
        found = self.daemons(role, host)
        if not found:
            raise LabError(f"no {role} runs" + (f" on {host}" if host else ""))
        os.kill(found[0].pid, signal.SIGKILL)
        return found[0]

    def logs(self) -> str:
        """What agents and operators said, the containers before the present ones included."""
        text = []
        for host, machine in self.lab.hosts.items():
            for path in sorted((machine.directory / "var" / "log" / "pods").glob(f"{NAMESPACE}_*/*/*.log")):
                text.append(f"== {host} {path.parts[-3]}/{path.name}\n{path.read_text(errors='replace')}")
        return "\n".join(text)


def _started_at(pid: int) -> float:
    """Start of a process, seconds since the epoch; now, when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return time.time()
    ticks = int(stat[stat.rindex(")") + 2 :].split()[19])
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
