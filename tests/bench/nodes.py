"""Thousands of Nodes, kept by kwok on a real API server.

Measured: memory of the source c5c3.ha.node_conditions and of a whole operator daemon (ansible-rulebook with the rulebook
hypervisor_operator), the time from a Node's transition to its event and from the end of its time to OVERDUE, and whether
any transition is lost while the connection breaks again and again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.bench.figures import Figure, pss, tree
from tests.crds import install
from tests.lab import Lab, LabError, wait_until
from tests.lab.kube.build import kwok_folder
from tests.nodes import Source, Stand, forced_reconnects, until

# kwok renews each Lease after a quarter of it: with the lab's ten seconds that would be thousands of writes a second.
GRACE = 300
NODES = 5000
JVM = {
    "DROOLS_JPY_JVM_MAXMEM": "64M",
    "JAVA_TOOL_OPTIONS": "-Xms8m -Xss512k -Xrs -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData",
}


class Nodes:
    """The measurement on one lab."""

    def __init__(self, lab: Lab, count: int, folder: Path, say: Callable[[str], None]) -> None:
        self.say = say
        self.lab = lab
        self.count = count
        self.folder = folder
        self.figures: list[Figure] = []
        self.stand = Stand(lab.kubernetes)

    def run(self) -> None:
        """All of it."""
        seconds = self.lab.kubernetes.kwok_nodes(self.count, timeout=1200)
        self.say(f"{self.count} Nodes are Ready after {seconds:.0f} s")
        began = time.monotonic()
        source = self._source(unreachable_seconds=5, watch_timeout=20)
        try:
            first = source.ready(120)
            total = first.events[0]["total"]
            if total < self.count:
                raise LabError(f"the source knows {total} of {self.count} Nodes")
            self.figures.append(Figure("source: start to all Nodes known", [time.monotonic() - began]))
            self.lags(source)
            self.reconnects(source)
            self.figures.append(Figure(f"source with {self.count} Nodes: memory", [source.resident()], "MB"))
            if source.faults:
                raise LabError(f"transitions contradict each other: {source.faults[:3]}")
        finally:
            source.end()
            self.stand.remove()
        self.daemon()

    def _source(self, **args: object) -> Source:
        return Source(self.folder, kubeconfig=str(self.lab.kubernetes.kubeconfig), **args)

    def lags(self, source: Source) -> None:
        """One Node after the other becomes Unknown: to its event, and from the end of its time to OVERDUE."""
        names = [f"lag-{number}" for number in range(20)]
        self.stand.create(names)
        told, late = [], []
        for name in names:
            sent = time.time()
            self.stand.condition(name, "Ready", "False")
            told.append(source.wait(lambda e, name=name: e.state(name) == "NotReady", 60).at - sent)
        for name in names[::4]:
            self.stand.condition(name, "Ready", "Unknown")
            event = source.wait(
                lambda e, name=name: e["type"] == "OVERDUE"
                and name in e["names"]
                and e.node(name)["state"] == "Unreachable",
                60,
            )
            late.append(event.at - datetime.fromisoformat(event.node(name)["since"]).timestamp() - 5)
        self.figures.append(Figure("transition written to its event", told))
        self.figures.append(Figure("end of a Node's time to OVERDUE", late, wanted=1.0))

    def reconnects(self, source: Source) -> None:
        """Transitions of 20 Nodes while the source is frozen and the API server killed: the end is the same."""
        names = [f"lag-{number}" for number in range(20)]
        before = len(source.told("TRANSITION"))
        with forced_reconnects(source, self.lab.kubernetes):
            for number in range(100):
                self.stand.condition(names[number % 20], "Ready", ("True", "False", "Unknown")[number % 3])
        lost = until(lambda: source.view(names) == self.stand.states(names), 120, "all transitions are told")
        self.figures.append(Figure("after forced reconnects: all told after", [lost]))
        events = len(source.told("TRANSITION")) - before
        self.say(f"{events} events of 100 transitions over reconnects")

    def daemon(self) -> None:
        """A whole operator: memory of all its processes after it knows all Nodes, and after all of them changed."""
        install(self.lab.kubernetes, "hypervisors", "evictions", "migrations")
        tools = Path(sys.executable).parent
        (self.folder / "inventory.yml").write_text("all: {hosts: {localhost: {ansible_connection: local}}}")
        variables = {"c5c3_ha_lease_name": "bench-nodes", "c5c3_ha_node_resync_seconds": 5}
        (self.folder / "variables.yml").write_text(json.dumps(variables))
        output = self.folder / "operator.log"
        collections = os.environ["ANSIBLE_COLLECTIONS_PATH"].split(os.pathsep)[0]
        warm = Path(collections) / "ansible_collections/c5c3/ha/plugins/plugin_utils/warm"
        arguments = ["--rulebook", "c5c3.ha.hypervisor_operator", "-i", "inventory.yml", "--vars", "variables.yml"]
        with output.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, str(warm), "--", str(tools / "ansible-rulebook"), *arguments],
                cwd=self.folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **JVM,
                    "PATH": f"{tools}:{os.environ['PATH']}",
                    "PYTHONPATH": collections,
                    "K8S_AUTH_KUBECONFIG": str(self.lab.kubernetes.kubeconfig),
                },
            )
        try:
            wait_until(lambda: "held by us" in output.read_text(), 180, "the operator holds its Lease", 0.5)
            memory = []
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if process.poll() is not None:
                    raise LabError(f"the operator ended:\n{output.read_text()[-2000:]}")
                memory.append(sum(map(pss, tree(process.pid))))
                time.sleep(2)
            self.figures.append(Figure(f"operator with {self.count} Nodes: memory", [max(memory)], "MB", wanted=400))
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def figures(seed: int, say: Callable[[str], None]) -> list[Figure]:
    """For the table of make bench, on a lab with Kubernetes alone."""
    lab = Lab(seed=seed, hosts=0, parts=("kubernetes",), node_grace=GRACE)
    Lab.saved(seed).down()
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    kwok_folder(say)  # within the lab's network nothing can be fetched
    try:
        lab.up(say)
        lab.enter()
        with tempfile.TemporaryDirectory() as folder:
            measurement = Nodes(lab, NODES, Path(folder), say)
            measurement.run()
            return measurement.figures
    finally:
        lab.leave(outside)
        os.close(outside)
        lab.down()
