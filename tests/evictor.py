"""The step evict in a process of its own, as the operator runs it: to be killed at any instant, and to be measured.

An instant may be one of its exchanges with Kubernetes, Nova or Placement: `points` of :func:`start`.

>>> make_eviction(lab, "cmp01"); step = start(lab, "cmp01"); eviction(lab, "cmp01")["status"]
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.steps import compute_service
from tests.crds import install
from tests.lab import Lab, wait_until

GROUP = "/apis/hypervisor.c5c3.io/v1"
# Where the lab's controllers have their Secret.
NAMESPACE = "c5c3-ha"
# So that a lab that came up just now, or was healed just now, is not taken for one that comes back from a partition.
GATES = {"settle_seconds": 0.0, "cooldown_seconds": 0.0, "in_flight_seconds": 5.0}
# Again and again until the Eviction is finished, as the rulebook does. Options come on stdin.
_STEP = """
import json, sys, time
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import is_finished
from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict

options = json.load(sys.stdin)
defaults = {name: option.get("default") for name, option in evict.ARGUMENTS["argument_spec"].items()}
while True:
    try:
        result = evict.run({**defaults, **options}, False)
    except HaError as error:
        print(f"failed: {error}", flush=True)
        time.sleep(1)
        continue
    print(json.dumps({"msg": result["msg"], "acts": result["acts"]}), flush=True)
    if result["eviction"] is None or is_finished(result["eviction"]):
        break
"""
# Before it: the process kills or stops itself at points of its exchanges, and keeps at which. Nothing of a request has been
# sent at "before"; at "after" its answer is there, and nothing was made of it yet.
_POINTS = """
import collections, http.client, json, os, re, signal, threading
import urllib3.connection

log, deed, times, reads = SETTINGS
lock, base, library = threading.Lock(), http.client.HTTPConnection, urllib3.connection.HTTPConnection
past = collections.Counter(open(log).read().splitlines())

def what(method, url, body):
    name = re.sub("[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "ID", url.partition("?")[0])
    if deed == signal.SIGKILL:
        return f"{method} {name}"  # three of each are enough: whoever comes next is further on
    if name.endswith("/action"):
        name += " " + next(iter(json.loads(body)))
    if name.endswith("/status") and b"finishedAt" in (body if isinstance(body, bytes) else body.encode()):
        name += " finished"
    return f"{method} {name}"

def reached(point, asked):
    kind = f"{point} {what(*asked)}"
    reading = asked[0] == "GET"
    # For all others no time passes between an answer that was read and what is asked next.
    wanted = not reading or (re.search(reads, kind) and (point == "before" or deed == signal.SIGKILL))
    with lock:
        if wanted and past[kind] < (1 if reading else times):
            past[kind] += 1
            with open(log, "a") as file:
                file.write(kind + "\\n")
            os.kill(os.getpid(), deed)

def noting(request):
    def noted(self, method, url, body=None, *args, **kwargs):
        self.c5c3_asked = method, url, body
        return request(self, method, url, body, *args, **kwargs)
    return noted

def end(self, *args, **kwargs):
    reached("before", self.c5c3_asked)
    return endheaders(self, *args, **kwargs)

def get(self, *args, **kwargs):
    response = getresponse(self, *args, **kwargs)
    if response.status < 500:
        reached("after", self.c5c3_asked)
    return response

endheaders, getresponse = base.endheaders, base.getresponse
base.request, library.request = noting(base.request), noting(library.request)
base.endheaders, base.getresponse = end, get
"""


def start(
    lab: Lab,
    host: str,
    points: Path | None = None,
    deed: signal.Signals = signal.SIGKILL,
    times: int = 3,
    reads: str = "",
    **options: Any,
) -> subprocess.Popen:
    """Run the step for a host's Eviction; what it says is in the lab's folder, ``evacuation.log``.

    :param points: makes it kill itself at the first of its exchanges of whose kind this file has not enough lines: one for
        what reads, `times` for what writes. The file is there; it gets a line more: before or after, method, path without
        names; where it stops the act, too.
    :param deed: SIGSTOP makes it stop there instead, to go on at SIGCONT; not after what reads, since to all others that is
        the same instant as before the next exchange.
    :param reads: a pattern: only what reads and matches it is a point.
    :param options: of the step, beside those that the lab asks for.
    """
    options = {
        "name": host,
        "kubeconfig": str(lab.kubernetes.kubeconfig),
        "cloud": "lab",
        "clouds_file": str(lab.nova.clouds_yaml),
        "gate_limits": GATES,
        "fencing_namespace": NAMESPACE,
        **options,
    }
    with open(lab.directory / "evacuation.log", "ab") as log:
        settings = repr((str(points), int(deed), times, reads))
        code = (_POINTS.replace("SETTINGS", settings, 1) if points else "") + _STEP
        step = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=log, stderr=log)
    assert step.stdin
    step.stdin.write(json.dumps(options).encode())
    step.stdin.close()
    return step


def prepare(lab: Lab) -> None:
    """Definitions, controllers, and a Hypervisor for each host that says how it is fenced; nothing of before is left."""
    kubernetes = lab.kubernetes
    install(kubernetes, "hypervisors", "evictions")
    kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")
    lab.bmc.up()
    lab.bmc.write_secret(NAMESPACE)
    for host in lab.hosts:
        body = {"apiVersion": "hypervisor.c5c3.io/v1", "kind": "Hypervisor", "metadata": {"name": host}}
        kubernetes.request("POST", f"{GROUP}/hypervisors", {**body, "spec": {"fencing": fencing(lab, host)}})


def fencing(lab: Lab, host: str) -> dict:
    """How a host is fenced. Both kinds of controller are in use: cmp02 by IPMI, the others by Redfish."""
    return lab.bmc.ipmi(host) if host == "cmp02" else lab.bmc.redfish(host)


def make_eviction(lab: Lab, host: str, cause: str = "NodeUnreachable") -> None:
    """Make the Eviction of a whole host."""
    body = {"apiVersion": "hypervisor.c5c3.io/v1", "kind": "Eviction", "metadata": {"name": host}}
    spec = {"hypervisor": host, "reason": "test", "cause": cause}
    lab.kubernetes.request("POST", f"{GROUP}/evictions", {**body, "spec": spec})


def eviction(lab: Lab, host: str) -> dict:
    """The host's Eviction, or an empty dict."""
    listed = lab.kubernetes.request("GET", f"{GROUP}/evictions")["items"]
    return next((item for item in listed if item["metadata"]["name"] == host), {})


def wait_unheard(lab: Lab, host: str) -> None:
    """Wait until Kubernetes and Nova both take the host for gone."""
    lab.kubernetes.wait_node(host, "Unknown", 120)
    lab.nova.wait_service(host, "down", 120)


def back(lab: Lab, host: str) -> None:
    """Nova takes the host for healthy again, once its records of what was evacuated are completed.

    Each start of nova-compute completes one record of each server: where a broker's death made two, it is restarted.
    """
    spec = compute_service.ARGUMENTS["argument_spec"]
    access = {"cloud": "lab", "clouds_file": str(lab.nova.clouds_yaml)}
    left = f"/os-migrations?migration_type=evacuation&status=done&source_compute={host}"
    given = {"host": host, "state": "enabled", "forced_down": False, "timeout": 30.0}

    def back() -> bool:
        try:
            compute_service.run(
                {**{name: each.get("default") for name, each in spec.items()}, **access, **given}, False
            )
        except HaError:  # nova-api was killed, or waits for its broker, or for nova-compute
            if lab.nova.compute_services()[host]["forced_down"] and lab.nova.request("GET", left)["migrations"]:
                lab.kill(f"{host}/nova-compute")
            return False
        return True

    wait_until(back, 240, f"{host} is in service again", 1.0)
