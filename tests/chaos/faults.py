"""Does faults to a site and takes them back; every fault is a Span afterwards, with the hosts that it hit.

What cannot be done when its time has come (a part that another fault has taken already) is told and left out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.moments import Moment
from tests.chaos.schedule import HANG, LANDING, OPERATORS, PART_FAULTS, Fault
from tests.chaos.verdict import Span
from tests.deployment import NAMESPACE, Deployment
from tests.evictor import GROUP, fencing
from tests.lab import Lab, LabError, wait_until
from tests.lab.hosts import CONTROL_ADDRESS, signal_process
from tests.lab.kubernetes import API_PORT, SERVICE_ADDRESS
from tests.lab.nova import MESSAGE_PORT

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/c5c3-ha-hypervisor-operator"
# Seconds between two hosts that come back after a partition.
STAGGER = 12.0
_TABLE = "inet c5c3_chaos"
_CUTS = {
    "api": (
        f"ip daddr {CONTROL_ADDRESS} tcp dport {API_PORT} drop",
        f"ip saddr {CONTROL_ADDRESS} tcp sport {API_PORT} drop",
        f"ip daddr {SERVICE_ADDRESS} drop",
        f"ip saddr {SERVICE_ADDRESS} drop",
    ),
    "nova": (
        f"ip daddr {CONTROL_ADDRESS} tcp dport {MESSAGE_PORT} drop",
        f"ip saddr {CONTROL_ADDRESS} tcp sport {MESSAGE_PORT} drop",
    ),
}


class Acting:
    """Knows on which host the acting operator is, also while nobody can be asked."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.host = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acting", daemon=True)

    def __enter__(self) -> Acting:
        self._thread.start()
        wait_until(lambda: self.host, 60, "an operator acts")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            with contextlib.suppress(OSError, LabError, KeyError):
                holder = self.lab.kubernetes.request("GET", LEASE)["spec"].get("holderIdentity") or ""
                pod = holder.split("_")[0]
                found = self.lab.kubernetes.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")
                self.host = found["spec"]["nodeName"]


class Faults:
    """The faults of one round.

    :param servers: name to UUID.
    :param tell: called with what cannot be done.
    """

    def __init__(
        self,
        lab: Lab,
        deployment: Deployment,
        acting: Acting,
        servers: dict[str, str],
        tell: Callable[[str], None],
    ) -> None:
        self.lab = lab
        self.deployment = deployment
        self.acting = acting
        self.servers = servers
        self.tell = tell
        self.spans: list[Span] = []
        self.kills: list[tuple[float, str, int]] = []
        self.landing = Moment()
        self._open: dict[Fault, list[Span]] = {}
        self._undo: dict[Fault, Callable[[], object]] = {}
        self._lock = threading.Lock()

    # -- doing and undoing ---------------------------------------------------------------------------------------------

    def do(self, fault: Fault) -> None:
        """Do it now."""
        began = time.time()
        try:
            hosts, undo = self._do(fault)
        except (LabError, OSError) as error:
            self.tell(f"left out: {fault.kind} {fault.target}: {error}")
            return
        spans = [Span(fault.kind, host, began) for host in hosts]
        with self._lock:
            self._open[fault], self._undo[fault] = spans, undo

    def undo(self, fault: Fault) -> None:
        """Heal it, when it was done."""
        with self._lock:
            undo = self._undo.pop(fault, None)
        if undo is None:
            return
        try:
            undo()
        except (LabError, OSError) as error:
            self.tell(f"heals later: {fault.kind} {fault.target}: {error}")
        with self._lock:
            self._close(fault)

    def _close(self, fault: Fault) -> None:
        now = time.time()
        self.spans += [Span(each.kind, each.target, each.began, now) for each in self._open.pop(fault, ())]

    def undo_all(self) -> None:
        """Heal whatever is left, and everything else that a fault could have left."""
        for fault in list(self._undo):
            self.undo(fault)
        for fault in list(self._open):
            self._close(fault)
        self.heal_everything()

    def heal_everything(self) -> None:
        """All hosts on, connected and running, all parts up; said again until it is so."""

        def healed() -> bool:
            try:
                self.lab.bmc.heal()
                self.lab.heal()
                for host in self.lab.hosts:
                    self._connect(host)
            except (LabError, OSError) as error:
                self.tell(f"healing: {error}")
                return False
            return True

        wait_until(healed, 120, "everything is healed", 1.0)
        for daemon in self.deployment.daemons():
            self._signal(daemon.host, daemon.pid, signal.SIGCONT)

    # -- one kind each -------------------------------------------------------------------------------------------------

    def host_of(self, target: str) -> str:
        """The host that a target means now."""
        if target == "acting":
            return self.acting.host
        if target == "standby":
            others = [one.host for one in self.deployment.daemons("operator") if one.host != self.acting.host]
            if not others:
                raise LabError("no standby runs")
            return others[0]
        return self.landing.host if target == LANDING else target

    def _do(self, fault: Fault) -> tuple[list[str], Callable[[], object]]:
        """Do it; return the hosts (or the target) that it hits, and what heals it."""
        kind, target = fault.kind, fault.target
        if target.startswith(f"{LANDING}/"):
            target = f"{self.landing.host}/{target.partition('/')[2]}"
        if kind in (*PART_FAULTS, HANG):
            return self._part(kind, target)
        if kind == "guest-kill":
            return self._guest(target)
        if kind == "drain":
            return self._drain(target)
        if kind.startswith("bmc-"):
            return self._bmc(kind, target)
        if kind == "isolation":
            hosts = [name for name in self.lab.hosts if name != self.acting.host]
            for name in hosts:
                self.lab.partition(name)
            return hosts, lambda: self._reunite(hosts)
        if kind == "operators-cut":
            hosts = list(self.lab.hosts)
            for name in hosts:
                self._cut(name, "api")
            return hosts, lambda: [self._connect(name) for name in hosts]
        host = self.host_of(target)
        return [host], self._host(kind, host)

    def _reunite(self, hosts: list[str]) -> None:
        """One after the other, as switches and kubelets come back: the clocks of the last ones have run out by then."""
        for name in hosts:
            if name != hosts[0]:
                time.sleep(STAGGER)
            self.lab.hosts[name].heal()

    def _host(self, kind: str, name: str) -> Callable[[], object]:
        host = self.lab.hosts[name]
        if kind == "host-power":
            host.kill()
        elif kind == "host-freeze":
            host.freeze()
        elif kind in ("host-cut", "host-unplug"):
            host.partition("drop" if kind == "host-cut" else "link")
        elif kind == "host-heal":
            host.heal()
            return lambda: None
        else:
            self._cut(name, "api" if kind == "host-api-cut" else "nova")
            return lambda: self._connect(name)
        return host.heal

    def _cut(self, name: str, what: str) -> None:
        rules = "\n".join(_CUTS[what])
        text = f"""table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
    chain output {{ type filter hook output priority -300
{rules}
    }}
    chain input {{ type filter hook input priority -300
{rules}
    }}
}}
"""
        self.lab.hosts[name].network_exec(["nft", "-f", "-"], input=text, text=True, check=True)

    def _connect(self, name: str) -> None:
        host = self.lab.hosts[name]
        if host.running:
            text = f"table {_TABLE}\ndelete table {_TABLE}\n"
            host.network_exec(["nft", "-f", "-"], input=text, text=True, check=True)

    def _guest(self, name: str) -> tuple[list[str], Callable[[], object]]:
        server = self.landing.server if name == LANDING else self.servers[name]
        pid = self.lab.oracle.qemu_pid(server)
        if pid is None:
            raise LabError("it has no QEMU now")
        self.kills.append((time.time(), server, pid))
        signal_process(pid, signal.SIGKILL)
        return [], lambda: None

    def _drain(self, host: str) -> tuple[list[str], Callable[[], object]]:
        kubernetes = self.lab.kubernetes
        with contextlib.suppress(LabError):  # 404
            kubernetes.request("DELETE", f"{GROUP}/evictions/{host}")
        body = {"apiVersion": "hypervisor.c5c3.io/v1", "kind": "Eviction", "metadata": {"name": host}}
        spec = {"hypervisor": host, "reason": "chaos", "cause": "Maintenance"}
        kubernetes.request("POST", f"{GROUP}/evictions", {**body, "spec": spec})
        return [host], lambda: None

    def _bmc(self, kind: str, host: str) -> tuple[list[str], Callable[[], object]]:
        bmc = self.lab.bmc
        if kind == "bmc-silent":
            service = "bmc-ipmi-" + host if fencing(self.lab, host)["agent"] == "fence_ipmilan" else "bmc-redfish"
            self.lab.freeze(service)
            return [host], lambda: self.lab.heal(service)
        if kind == "bmc-black-hole":
            bmc.black_hole(host)
            return [host], bmc.heal
        if kind == "bmc-stays-on":
            bmc.stays_on(host)
            return [host], bmc.heal
        if kind == "bmc-password":
            bmc.write_secret(NAMESPACE, password="not-the-one")
            return [host], lambda: _again(lambda: bmc.write_secret(NAMESPACE))
        other = next(name for name in self.lab.hosts if name != host)
        self._fencing(host, bmc.ipmi(host, address=bmc.ipmi(other)["address"]))
        return [host], lambda: _again(lambda: self.fence_rightly(host))

    def fence_rightly(self, host: str) -> None:
        """Its Hypervisor names its own power switch."""
        self._fencing(host, {"parameters": None, **fencing(self.lab, host)})

    def _fencing(self, host: str, spec: dict[str, Any]) -> None:
        body = {"spec": {"fencing": spec}}
        path = f"{GROUP}/hypervisors/{host}"
        self.lab.kubernetes.request("PATCH", path, body, "application/merge-patch+json")

    def _part(self, kind: str, target: str) -> tuple[list[str], Callable[[], object]]:
        if target in (*OPERATORS, "operators") or target.endswith("/agent"):
            return self._daemon(kind, target)
        host = target.partition("/")[0]
        if kind == "kill":
            self.lab.kill(target)
            return [host], lambda: None
        if kind == HANG:
            self.lab.nova.hang(host)
            return [host], lambda: self.lab.kill(target)  # it is started again
        if kind == "freeze":
            self.lab.freeze(target)
        else:
            self.lab.kill(target, stay_down=True)
        return [host], lambda: self.lab.heal(target)

    def _daemon(self, kind: str, target: str) -> tuple[list[str], Callable[[], object]]:
        """An agent or operators: killed they are started again by kubelet."""
        if target.endswith("/agent"):
            found = self.deployment.daemons("agent", target.partition("/")[0])
        elif target == "operators":
            found = self.deployment.daemons("operator")
        else:
            found = self.deployment.daemons("operator", self.host_of(target))
        if not found:
            raise LabError("it does not run now")
        for daemon in found:
            if kind == "kill":
                signal_process(daemon.pid, signal.SIGKILL)
            else:
                self._signal(daemon.host, daemon.pid, signal.SIGSTOP)

        def thaw() -> None:
            for each in found:
                self._signal(each.host, each.pid, signal.SIGCONT)

        return [each.host for each in found], thaw

    def _signal(self, host: str, pid: int, number: int) -> None:
        """To a daemon and all that it has started."""
        for each in self.lab.hosts[host].descendants(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)


def _again(call: Callable[[], object]) -> None:
    """Until the API server takes it, which may be away."""

    def done() -> bool:
        try:
            call()
        except (LabError, OSError, subprocess.TimeoutExpired):
            return False
        return True

    wait_until(done, 120, "the API server takes it", 1.0)
