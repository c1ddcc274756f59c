"""What happens to Evictions, as it happens: for the demo, the bench and the tests.

>>> with Timeline(lab, print) as timeline:
...     timeline.mark("QEMU of web killed")
...     timeline.wait(server, finished, 60)
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.lab import Lab, LabError, wait_until


@dataclass(frozen=True)
class Seen:
    """One change of one object, with the moment at which it was seen (seconds since the epoch)."""

    at: float
    type: str
    name: str
    object: dict[str, Any]


def condition(eviction: dict[str, Any], kind: str = "Evicting") -> dict[str, Any]:
    """The condition, or an empty dict."""
    return next((c for c in (eviction.get("status") or {}).get("conditions") or [] if c["type"] == kind), {})


def finished(seen: Seen) -> bool:
    """Whether the Eviction is over."""
    return seen.type != "DELETED" and condition(seen.object).get("status") == "False"


def moment(text: str | None) -> float:
    """A time stamp of Kubernetes as seconds since the epoch; 0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


class Timeline:
    """Watches the lab's Evictions; prints what changes when given something to print with.

    :param say: called with (seconds since the last mark, text) for each change.
    """

    def __init__(self, lab: Lab, say: Callable[[float, str], None] | None = None) -> None:
        self.lab = lab
        self.say = say or (lambda _seconds, _text: None)
        self.began = time.time()
        self.seen: list[Seen] = []
        self._told: dict[str, str] = {}
        self._stop = False
        self._process: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)

    def __enter__(self) -> Timeline:
        self._thread.start()
        wait_until(lambda: self._process is not None, 10, "kubectl watches the Evictions")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop = True
        if self._process:
            self._process.kill()
        self._thread.join(10)

    def mark(self, text: str) -> float:
        """Begin to count the seconds anew; returns the moment."""
        self.began = time.time()
        self.say(0.0, text)
        return self.began

    def tell(self, text: str) -> None:
        """Say something at its time."""
        self.say(time.time() - self.began, text)

    def changes(self, name: str, since: float = 0.0) -> list[Seen]:
        """What was seen of one Eviction."""
        return [each for each in list(self.seen) if each.name == name and each.at >= since]

    def wait(self, name: str, wanted: Callable[[Seen], bool], timeout: float, since: float = 0.0) -> Seen:
        """Wait until a change of the Eviction is what is wanted; returns it.

        :raises LabError: after `timeout` seconds.
        """

        def found() -> Seen | None:
            return next((each for each in self.changes(name, since) if wanted(each)), None)

        try:
            return wait_until(found, timeout, f"Eviction {name}")
        except LabError as error:
            last = self.changes(name)[-1:]
            state = json.dumps(last[0].object.get("status"), indent=1) if last else "never seen"
            raise LabError(f"{error}; it is: {state}") from None

    def _run(self) -> None:
        command = self.lab.kubernetes.kubectl_command(
            "get", "evictions", "--watch", "--output-watch-events", "-o", "json"
        )
        while not self._stop:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for event in _documents(self._process.stdout):
                self._note(event["type"], event["object"])
            self._process.wait()
            # The API server was killed, perhaps on purpose.
            time.sleep(0.2)

    def _note(self, kind: str, item: dict[str, Any]) -> None:
        if item.get("kind") != "Eviction":
            return
        seen = Seen(time.time(), kind, item["metadata"]["name"], item)
        if any(
            each.object["metadata"].get("resourceVersion") == item["metadata"].get("resourceVersion")
            and each.type == kind
            for each in self.seen[-50:]
        ):
            return  # the watch was opened anew
        self.seen.append(seen)
        for line in self._lines(seen):
            if self._told.get(line[0]) != line[1]:
                self._told[line[0]] = line[1]
                self.say(seen.at - self.began, line[1])

    def _lines(self, seen: Seen) -> Iterator[tuple[str, str]]:
        spec, status, name = seen.object["spec"], seen.object.get("status") or {}, seen.name
        if seen.type == "DELETED":
            self._told.clear()
            return
        if not status:
            what = "the whole host" if not spec.get("instances") else f"{len(spec['instances'])} server"
            cause = spec.get("cause", "drain")
            yield f"{name} spec", f"Eviction made: {what} of {spec['hypervisor']}, {cause} ({spec['reason']})"
        for entry in status.get("instances") or []:
            label = entry.get("name") or entry["id"]
            yield f"{name} {entry['id']}", f"  {label}: {entry['phase']}: {entry.get('message', '')}"
        state = condition(seen.object)
        if state.get("status") == "False":
            yield f"{name} end", f"Eviction {state['reason']}: {state.get('message', '')}"


def _documents(stream: Any) -> Iterator[dict[str, Any]]:
    """kubectl's watch events, one JSON document a line."""
    with contextlib.suppress(ValueError):  # closed by __exit__
        for line in stream:
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)
