"""The source node_conditions as a process of its own, and Nodes that nobody keeps: for tests and for the bench.

>>> stand = Stand(lab.kubernetes); stand.create(["a", "b"]); stand.condition("a", "Ready", "False")
>>> source = Source(folder, kubeconfig=...).ready(); source.wait(lambda e: e["type"] == "OVERDUE", 60)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema

from tests.lab import LabError
from tests.lab.kubernetes import VIRT_DRIVER_LABEL, Kubernetes

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "extensions/eda/plugins/event_source/node_conditions.py"
SCHEMA = json.loads((ROOT / "extensions/eda/schemas/node_event.schema.json").read_text())
STATES = {"True": "Ready", "False": "NotReady", "Unknown": "Unreachable"}
# Other than the real hosts': only who asks for these gets them.
LABEL = "stand"


def until(condition: Callable[[], object], seconds: float = 30.0, what: Callable[[], str] | str = "") -> float:
    """Wait for a condition; return the seconds that took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return time.monotonic() - start


class Event(dict):
    """One event, and when it came (time of day)."""

    def __init__(self, values: dict) -> None:
        super().__init__(values)
        self.at = time.time()

    def node(self, name: str) -> dict:
        """What it says of a Node."""
        return next(one for one in self["nodes"] if one["name"] == name)

    def state(self, name: str) -> str:
        """State of a Node, empty when the event is not about it."""
        return self.node(name)["state"] if name in self.get("names", ()) else ""


class Source:
    """The source as a process; what it prints are its events. Differences that contradict each other are `faults`."""

    def __init__(self, folder: Path, **args: object) -> None:
        import ansible_collections.c5c3.ha as collection

        self.events: list[Event] = []
        self.faults: list[str] = []
        self._states: dict[str, str] = {}
        self._ready: dict[str, str] = {}
        self.log = folder / f"log-{uuid.uuid4().hex[:6]}"
        path = str(Path(next(iter(collection.__path__))).absolute().parents[2])
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PLUGIN), json.dumps(args)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            event = Event(json.loads(line))
            try:
                jsonschema.validate(dict(event), SCHEMA)
            except jsonschema.ValidationError as error:
                self.faults.append(str(error))
            if event["type"] == "TRANSITION":
                for one in event["nodes"]:
                    self._take(one)
            elif event["type"] == "INIT_DONE":
                self._states.update({one["name"]: one["state"] for one in event["nodes"]})
            self.events.append(event)

    def _take(self, node: dict) -> None:
        name = node["name"]
        for change in node["changed"]:
            if change["condition"] == "Ready":
                # Nothing in between is lost: each difference begins where the last one ended.
                if self._ready.get(name, change["previous"]) != change["previous"]:
                    self.faults.append(f"{name}: {change} follows {self._ready[name]}")
                self._ready[name] = change["status"]
        if node["deleted"]:
            self._states.pop(name, None)
            self._ready.pop(name, None)
        else:
            self._states[name] = node["state"]

    def told(self, kind: str) -> list[Event]:
        """The events of a type so far."""
        return [event for event in list(self.events) if event["type"] == kind]

    def view(self, names: list[str]) -> dict[str, str]:
        """What was told last of Nodes."""
        return {name: self._states[name] for name in names if name in self._states}

    def ready(self, seconds: float = 60) -> Source:
        """Wait until it has told INIT_DONE."""
        self.wait(lambda event: event["type"] == "INIT_DONE", seconds)
        return self

    def wait(self, wanted: Callable[[Event], object], seconds: float) -> Event:
        """Wait for an event, the earliest that fits."""

        def found() -> Event | None:
            return next((event for event in list(self.events) if wanted(event)), None)

        until(found, seconds, lambda: f"{self.events[-5:]}\n{self.log.read_text()}")
        event = found()
        assert event is not None
        return event

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid, number)

    def resident(self) -> float:
        """Resident memory in MB."""
        (line,) = [one for one in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "VmRSS" in one]
        return int(line.split()[1]) / 1024

    def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait(10)


class Stand:
    """Nodes without a kubelet, and what is said of them. Kubernetes itself calls them Unknown after its grace period."""

    def __init__(self, api: Kubernetes) -> None:
        self.api = api
        self._names: set[str] = set()

    def create(self, names: list[str]) -> None:
        """Make Nodes."""
        self._names |= set(names)
        bodies = [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {VIRT_DRIVER_LABEL: LABEL}}}
            for name in names
        ]
        self._side_by_side(lambda body: self.api.request("POST", "/api/v1/nodes", body), bodies)

    def condition(self, name: str, kind: str, status: str) -> None:
        """Set one condition of a Node, now."""
        self.conditions({name: (kind, status)})

    def conditions(self, wanted: dict[str, tuple[str, str]]) -> None:
        """Set one condition of each of many Nodes, now; tried again while the API server is away."""
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

        def set_one(item: tuple[str, tuple[str, str]]) -> None:
            name, (kind, status) = item
            entry = {"type": kind, "status": status, "lastTransitionTime": when, "reason": "Test", "message": "x" * 200}
            body = {"status": {"conditions": [entry]}}
            path = f"/api/v1/nodes/{name}/status"

            def done() -> bool:
                try:
                    self.api.request("PATCH", path, body, "application/strategic-merge-patch+json")
                except (OSError, LabError):
                    return False
                return True

            until(done, 120, f"{name} is {status}")

        self._side_by_side(set_one, list(wanted.items()))

    def states(self, names: list[str]) -> dict[str, str]:
        """The state of Nodes as the API server has it; empty while it is away."""
        path = f"/api/v1/nodes?labelSelector={VIRT_DRIVER_LABEL.replace('/', '%2F')}%3D{LABEL}"
        try:
            items = self.api.request("GET", path)["items"]
        except (OSError, LabError):
            return {}
        found = {}
        for item in items:
            listed = item["status"].get("conditions") or []
            ready = next((one["status"] for one in listed if one["type"] == "Ready"), "Unknown")
            found[item["metadata"]["name"]] = STATES[ready]
        return {name: found[name] for name in names if name in found}

    def remove(self) -> None:
        """Delete all of them."""

        def gone(name: str) -> bool:
            try:
                self.api.request("DELETE", f"/api/v1/nodes/{name}")
            except OSError:
                return False  # the API server is away
            except LabError as error:
                return ": 404 " in str(error)
            return True

        self._side_by_side(lambda name: until(lambda: gone(name), 120, f"Node {name} is gone"), sorted(self._names))
        self._names.clear()

    @staticmethod
    def _side_by_side(call: Callable[[Any], object], items: list) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, items))


@contextlib.contextmanager
def forced_reconnects(source: Source, api: Kubernetes) -> Iterator[None]:
    """While this holds: the source is frozen, and the API server is killed, again and again; once it answers again."""
    done = threading.Event()

    def answers() -> bool:
        try:
            return api.request("GET", "/readyz") == "ok"
        except (OSError, LabError):
            return False

    def disturb() -> None:
        number = 0
        while not done.wait(1.5):
            number += 1
            if number % 4 == 0:
                api.lab.kill("kube-apiserver")
                while not answers() and not done.wait(0.5):
                    pass
                done.wait(3)  # for the work that others do meanwhile
            else:
                source.signal(signal.SIGSTOP)
                done.wait(0.5)
                source.signal(signal.SIGCONT)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        source.signal(signal.SIGCONT)
