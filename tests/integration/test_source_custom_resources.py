# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source c5c3.ha.custom_resources against the real kube-apiserver, as processes that are killed and frozen.

The definitions are those of crds/ under an API group of the tests' own, so that nothing else in the lab is disturbed.
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
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.lab.kubernetes import Kubernetes

pytestmark = [pytest.mark.lab, pytest.mark.kubernetes, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "extensions/eda/plugins/event_source/custom_resources.py"
SCHEMA = json.loads((ROOT / "extensions/eda/schemas/custom_resource_event.schema.json").read_text())
GROUP = "watch.c5c3.io"
API = f"/apis/{GROUP}/v1/evictions"


def until(condition: Callable[[], object], seconds: float = 30.0, what: str = "") -> float:
    """Wait for a condition; return the seconds that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what or condition}"
        time.sleep(0.05)
    return time.monotonic() - start


def collections_path() -> str:
    """The folder below which Python and Ansible find this collection."""
    import ansible_collections.c5c3.ha as collection

    return str(Path(next(iter(collection.__path__))).absolute().parents[2])


class Listener:
    """What a daemon has told: checks that it makes sense in its order, and that no state is told twice."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.times: list[float] = []
        self.view: dict[str, str] = {}
        self.faults: list[str] = []
        self._versions: set[tuple] = set()

    def hear(self, event: dict) -> None:
        self.times.append(time.monotonic())
        self.events.append(event)
        jsonschema.validate(event, SCHEMA)
        if event["type"] == "INIT_DONE":
            return
        name, version = event["name"], event["resource_version"]
        there = name in self.view
        if event["type"] == "ADDED":
            if there:
                self.faults.append(f"{name} added twice")
        elif not there:
            self.faults.append(f"{event['type']} of {name}, which is not there")
        if event["type"] in ("ADDED", "MODIFIED"):
            if (name, version) in self._versions:
                self.faults.append(f"{name} told twice as of {version}")
            self._versions.add((name, version))
            self.view[name] = version
        elif event["type"] == "DELETED":
            self.view.pop(name, None)


class Daemon:
    """The source as a process of its own; what it prints are its events."""

    def __init__(self, folder: Path, **args: object) -> None:
        self.told = Listener()
        self.log = folder / f"log-{uuid.uuid4().hex[:6]}"
        self.started = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PLUGIN), json.dumps({"api_group": GROUP, **args})],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": collections_path(), "PYTHONDONTWRITEBYTECODE": "1"},
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.told.hear(json.loads(line))

    def types(self, name: str) -> list[str]:
        return [event["type"] for event in list(self.told.events) if event.get("name") == name]

    def ready(self) -> Daemon:
        until(lambda: any(e["type"] == "INIT_DONE" for e in self.told.events), 30, self.log.read_text)
        return self

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def api(lab_kubernetes: Kubernetes) -> Iterator[Kubernetes]:
    """The API server with the definitions of the tests' own group."""
    names = []
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        text = path.read_text().replace("hypervisor.c5c3.io", GROUP)
        lab_kubernetes.kubectl("apply", "-f", "-", stdin=text)
        names.append(f"{path.stem}.{GROUP}")
    lab_kubernetes.kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in names))
    until(lambda: attempt(lambda: lab_kubernetes.request("GET", API)) is not None)
    yield lab_kubernetes
    lab_kubernetes.lab.heal("kube-apiserver")
    until(lambda: attempt(lambda: lab_kubernetes.kubectl("get", "--raw", "/readyz")) is not None, 60)
    lab_kubernetes.kubectl("delete", "--ignore-not-found", *(f"crd/{name}" for name in names))


def attempt(action: Callable[[], object]) -> object:
    """Return what the action returns, None when it fails (the API server may be away)."""
    try:
        return action()
    except Exception:
        return None


class Evictions:
    """Makes, changes and deletes Evictions, and says what is there."""

    def __init__(self, api: Kubernetes) -> None:
        self.api = api

    def create(self, name: str, **metadata: object) -> None:
        spec = {"hypervisor": name, "reason": "a test", "cause": "Maintenance"}
        self.api.request(
            "POST",
            API,
            {"apiVersion": f"{GROUP}/v1", "kind": "Eviction", "metadata": {"name": name, **metadata}, "spec": spec},
        )

    def label(self, name: str, value: str) -> None:
        self.api.request(
            "PATCH", f"{API}/{name}", {"metadata": {"labels": {"n": value}}}, "application/merge-patch+json"
        )

    def finish(self, name: str) -> None:
        condition = {
            "type": "Evicting",
            "status": "False",
            "reason": "Succeeded",
            "message": "",
            "lastTransitionTime": "2026-11-24T09:00:00Z",
        }
        self.api.request(
            "PATCH", f"{API}/{name}/status", {"status": {"conditions": [condition]}}, "application/merge-patch+json"
        )

    def delete(self, name: str) -> None:
        self.api.request("DELETE", f"{API}/{name}")

    def versions(self) -> dict[str, str]:
        items = self.api.request("GET", API)["items"]
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}


@pytest.fixture()
def evictions(api: Kubernetes) -> Iterator[Evictions]:
    yield Evictions(api)
    api.kubectl("delete", f"evictions.{GROUP}", "--all", "--wait=false")


@pytest.fixture()
def start(api: Kubernetes, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []

    def begin(**args: object) -> Daemon:
        if "host" not in args:
            args.setdefault("kubeconfig", str(api.kubeconfig))
        daemons.append(Daemon(tmp_path, **args))
        return daemons[-1]

    yield begin
    for daemon in daemons:
        with contextlib.suppress(ProcessLookupError):
            daemon.signal(signal.SIGCONT)
        daemon.end()
        print(daemon.log.read_text())


@pytest.fixture()
def measured(record_property) -> Callable[[str, float], None]:
    def note(name: str, value: float) -> None:
        record_property(name, value)
        print(f"MEASURED {name}: {value:.3f}")

    return note


def test_created_changed_finished_and_deleted_are_seen(start, evictions, measured):
    evictions.create("before")
    daemon = start(resync_seconds=1).ready()
    measured("start to first event, s", daemon.told.times[0] - daemon.started)
    assert [(e["type"], e.get("name"), e["initial"]) for e in daemon.told.events[:2]] == [
        ("ADDED", "before", True),
        ("INIT_DONE", None, True),
    ]
    sent = time.monotonic()
    evictions.create("cmp01")
    until(lambda: daemon.types("cmp01"))
    measured("create to event, s", daemon.told.times[-1] - sent)
    until(lambda: "RESYNC" in daemon.types("cmp01"), 5)
    evictions.label("cmp01", "1")
    until(lambda: "MODIFIED" in daemon.types("cmp01"))
    evictions.finish("cmp01")
    until(lambda: daemon.told.events[-1].get("finished") or any(e.get("finished") for e in daemon.told.events))
    finished = len(daemon.types("cmp01"))
    until(lambda: daemon.types("before").count("RESYNC") >= 4, 10)
    assert len(daemon.types("cmp01")) == finished  # finished ones are left in peace
    evictions.delete("cmp01")
    until(lambda: daemon.types("cmp01")[-1] == "DELETED")
    assert daemon.told.faults == []
    assert "managedFields" not in daemon.told.events[0]["resource"]["metadata"]


def test_selectors_reach_the_real_server(start, evictions):
    daemon = start(label_selectors=["n=1"]).ready()
    named = start(field_selectors=["metadata.name=two"]).ready()
    by_hypervisor = start(field_selectors=["spec.hypervisor=one"]).ready()
    evictions.create("one")
    evictions.create("two")
    evictions.label("one", "1")
    until(lambda: daemon.types("one"))
    evictions.label("one", "2")  # leaves the selection
    until(lambda: daemon.types("one") == ["ADDED", "DELETED"])
    until(lambda: named.types("two") and by_hypervisor.types("one"))
    assert (named.types("one"), by_hypervisor.types("two"), daemon.types("two")) == ([], [], [])


def test_the_scripts_of_the_unit_tests_speak_as_the_real_server(api, evictions, start):
    """A resourceVersion that the server has forgotten is answered with 410."""
    evictions.create("old")
    first = evictions.versions()["old"]
    for number in range(150):  # the watch cache of a restarted server begins later
        evictions.label("old", str(number))
    api.lab.kill("kube-apiserver")
    until(lambda: attempt(evictions.versions) is not None, 60)
    query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "5", "resourceVersion": first}
    gone = raw_watch(api, query)
    assert '"code":410' in gone, gone


def raw_watch(api: Kubernetes, query: dict[str, str]) -> str:
    """The body of a watch, an error's too."""
    done = api.lab.control.network_exec(
        api.kubectl_command("get", "--raw", f"{API}?{urllib.parse.urlencode(query)}", "-v=9"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_server_killed_and_back_loses_and_doubles_nothing(api, start, evictions, measured):
    for number in range(20):
        evictions.create(f"h{number}")
    daemon = start(resync_seconds=0).ready()
    for round_ in range(3):
        evictions.label("h0", f"a{round_}")
        evictions.delete(f"h{round_ + 1}")
        api.lab.kill("kube-apiserver")
        until(lambda: attempt(evictions.versions) is not None, 60)
        evictions.create(f"new{round_}")
        evictions.label("h10", f"b{round_}")
        back = time.monotonic()
        until(lambda: daemon.told.view == evictions.versions(), 30)
        measured("server answers to all told, s", time.monotonic() - back)
    assert daemon.told.faults == []


@pytest.mark.thorough
def test_the_server_away_for_long_and_a_frozen_daemon_that_must_list_again(api, start, evictions, measured):
    for number in range(5):
        evictions.create(f"h{number}")
    daemon = start(resync_seconds=1).ready()
    until(lambda: daemon.types("h4"))
    api.lab.kill("kube-apiserver", stay_down=True)
    until(lambda: "cannot be reached" in daemon.log.read_text(), 20)
    count = len(daemon.told.events)
    time.sleep(20)  # nothing to wait for: it has to stay silent and try
    assert len(daemon.told.events) == count
    assert daemon.process.poll() is None
    api.lab.heal("kube-apiserver")
    until(lambda: "works again" in daemon.log.read_text(), 60)
    assert daemon.told.faults == []
    daemon.signal(signal.SIGSTOP)
    evictions.delete("h0")
    evictions.create("h0")  # the same name, another object
    evictions.delete("h1")
    for number in range(120):
        evictions.label("h2", str(number))
    api.lab.kill("kube-apiserver")  # its watch cache begins after all that: our place is gone
    until(lambda: attempt(evictions.versions) is not None, 60)
    back = time.monotonic()
    daemon.signal(signal.SIGCONT)
    until(lambda: daemon.told.view == evictions.versions(), 30)
    measured("frozen while all changed: back to all told, s", time.monotonic() - back)
    assert daemon.told.faults == []
    assert [kind for kind in daemon.types("h0") if kind != "RESYNC"] == ["ADDED", "DELETED", "ADDED"]
    assert [kind for kind in daemon.types("h1") if kind != "RESYNC"] == ["ADDED", "DELETED"]
    # One change, or a few: what the connection held already when the daemon was frozen is told first.
    added, *changed = [kind for kind in daemon.types("h2") if kind != "RESYNC"]
    assert added == "ADDED" and set(changed) == {"MODIFIED"} and len(changed) < 10
    # Whether the new server still knows our place or answers 410 is its own matter; both have just come out right.
    measured("it had to list again", float("listing again" in daemon.log.read_text()))


def holder(api: Kubernetes, name: str) -> str:
    return api.kubectl("get", "lease", name, "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")


@pytest.mark.thorough
def test_of_two_daemons_one_tells_and_the_other_follows_within_15_seconds(api, start, evictions, measured):
    lease = {"name": f"ha-{uuid.uuid4().hex[:6]}"}
    evictions.create("open")
    evictions.create("done")
    evictions.finish("done")
    one = start(lease=lease).ready()
    two = start(lease=lease)
    until(lambda: two.process.poll() is None)
    evictions.create("next")
    until(lambda: one.types("next"))
    # The second is ready, watches and is silent; when the first dies it tells every unfinished object.
    time.sleep(3)
    assert two.told.events == []
    assert one.types("done") == []
    one.signal(signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: two.told.events, 20)
    takeover = two.told.times[0] - killed
    measured("holder killed -9 to next holder's first event, s", takeover)
    assert takeover < 15
    until(lambda: any(e["type"] == "INIT_DONE" for e in two.told.events))
    assert sorted(e["name"] for e in two.told.events if "name" in e) == ["next", "open"]
    assert all(e["type"] == "ADDED" and e["initial"] for e in two.told.events if "name" in e)
    # A daemon that ends in peace gives the Lease back.
    three = start(lease=lease)
    time.sleep(2)
    two.signal(signal.SIGINT)
    left = time.monotonic()
    until(lambda: three.told.events, 10)
    measured("holder ended to next holder's first event, s", three.told.times[0] - left)
    assert three.told.times[0] - left < 4
    assert one.told.faults == two.told.faults == three.told.faults == []


@pytest.mark.thorough
def test_a_frozen_holder_tells_nothing_once_another_may_hold_the_lease(api, start, evictions):
    lease = {"name": f"ha-{uuid.uuid4().hex[:6]}", "duration": 4}
    evictions.create("open")
    one = start(lease=lease, resync_seconds=0.2).ready()
    two = start(lease=lease, resync_seconds=0.2)
    until(lambda: "RESYNC" in one.types("open"))
    first = holder(api, lease["name"])
    one.signal(signal.SIGSTOP)
    until(lambda: two.told.events, 15)
    evictions.label("open", "changed")
    until(lambda: "MODIFIED" in two.types("open"))
    told = len(one.told.events)
    one.signal(signal.SIGCONT)
    until(lambda: "lost" in one.log.read_text(), 10)
    time.sleep(2)
    assert len(one.told.events) - told <= 1  # what was in the pipe when it froze
    assert holder(api, lease["name"]) not in ("", first)


@pytest.mark.thorough
def test_a_holder_without_a_server_stops_and_goes_on_where_it_was(api, start, evictions):
    lease = {"name": f"ha-{uuid.uuid4().hex[:6]}", "duration": 4}
    evictions.create("open")
    daemon = start(lease=lease, resync_seconds=0).ready()
    api.lab.kill("kube-apiserver", stay_down=True)
    until(lambda: "could not be renewed in time" in daemon.log.read_text(), 15)
    api.lab.heal("kube-apiserver")
    until(lambda: attempt(evictions.versions) is not None, 60)
    evictions.create("new")
    until(lambda: daemon.types("new"), 20)
    assert daemon.types("open") == ["ADDED"]  # nobody else held the Lease: nothing is told anew
    assert daemon.told.faults == []


def test_a_renewed_token_is_picked_up_without_a_restart(api, start, evictions, tmp_path):
    api.kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "List",
                "items": [
                    {
                        "apiVersion": "v1",
                        "kind": "ServiceAccount",
                        "metadata": {"name": "watcher", "namespace": "default"},
                    },
                    {
                        "apiVersion": "rbac.authorization.k8s.io/v1",
                        "kind": "ClusterRole",
                        "metadata": {"name": "watch-test"},
                        "rules": [
                            {"apiGroups": [GROUP], "resources": ["evictions"], "verbs": ["get", "list", "watch"]}
                        ],
                    },
                    {
                        "apiVersion": "rbac.authorization.k8s.io/v1",
                        "kind": "ClusterRoleBinding",
                        "metadata": {"name": "watch-test"},
                        "roleRef": {
                            "apiGroup": "rbac.authorization.k8s.io",
                            "kind": "ClusterRole",
                            "name": "watch-test",
                        },
                        "subjects": [{"kind": "ServiceAccount", "name": "watcher", "namespace": "default"}],
                    },
                    *(
                        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}}
                        for name in ("first", "second")
                    ),
                ],
            }
        ),
    )
    token = tmp_path / "token"

    def issue(secret: str) -> None:
        """A token that dies with its Secret: the API server issues none that is valid for less than ten minutes."""
        text = api.kubectl("create", "token", "watcher", "--bound-object-kind", "Secret", "--bound-object-name", secret)
        fresh = tmp_path / "fresh"
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        os.replace(fresh, token)

    issue("first")
    evictions.create("one")
    daemon = start(
        host="https://10.66.0.254:6443",
        ca_cert=str(api.kubeconfig.parent / "ca.crt"),
        token_file=str(token),
        watch_timeout=2,
        resync_seconds=0,
    ).ready()
    api.kubectl("delete", "secret", "first")
    until(lambda: "with 401" in daemon.log.read_text(), 40, daemon.log.read_text)
    evictions.create("two")
    issue("second")
    until(lambda: daemon.types("two"), 20)
    assert daemon.types("one") == ["ADDED"]
    assert daemon.told.faults == []
    api.kubectl("delete", "secret/second", "clusterrolebinding/watch-test", "clusterrole/watch-test", "sa/watcher")


def test_a_missing_right_or_definition_is_told_and_waited_for(api, start, evictions):
    daemon = start(resources=[{"kind": "Eviction"}, {"kind": "Nothing", "plural": "nothings"}])
    until(lambda: "Install the CustomResourceDefinition" in daemon.log.read_text(), 20)
    evictions.create("one")
    until(lambda: daemon.types("one"))  # the other kind does not suffer
    assert daemon.process.poll() is None


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"kubeconfig": "/nowhere"}, "kubeconfig '/nowhere' is wrong: there is no such file"),
        ({"context": "prod"}, "context 'prod' is wrong"),
        ({"kinds": ["Evicton"]}, "did you mean Eviction?"),
    ],
)
def test_wrong_arguments_end_it_at_once(start, args, says):
    daemon = start(**args)
    assert daemon.process.wait(15) != 0
    assert says in daemon.log.read_text().strip().splitlines()[-1]


# --- through ansible-rulebook -------------------------------------------------------------------------------------

# What a daemon's unit file sets: ansible-rulebook asks for 512 MB of heap, whatever JAVA_TOOL_OPTIONS says of -Xmx.
JVM = {
    "DROOLS_JPY_JVM_MAXMEM": "64M",
    "JAVA_TOOL_OPTIONS": "-Xms8m -Xss512k -Xrs -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData"
    " -XX:MinHeapFreeRatio=10 -XX:MaxHeapFreeRatio=20 -XX:ReservedCodeCacheSize=24m",
}
RULEBOOK = """
- name: Show
  hosts: localhost
  sources:
    - c5c3.ha.custom_resources:
        api_group: "{{ group }}"
        kubeconfig: "{{ kubeconfig }}"
        context: "{{ context | default('') }}"
        resync_seconds: "{{ resync | default(30) }}"
        lease:
          name: rulebook
  rules:
    - name: Unfinished
      condition: event.kind == "Eviction" and event.finished == false
      action:
        print_event:
          pretty: false
"""


@contextlib.contextmanager
def rulebook(folder: Path, variables: dict, text: str = RULEBOOK) -> Iterator[tuple[subprocess.Popen, Path]]:
    (folder / "rulebook.yml").write_text(text)
    (folder / "inventory.yml").write_text("all: {hosts: {localhost: {ansible_connection: local}}}")
    (folder / "variables.yml").write_text(json.dumps(variables))
    output = folder / "output"
    tools = str(Path(sys.executable).parent)
    with output.open("w") as stream:
        process = subprocess.Popen(
            [
                f"{tools}/ansible-rulebook",
                "--rulebook",
                "rulebook.yml",
                "-i",
                "inventory.yml",
                "--vars",
                "variables.yml",
            ],
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PATH": f"{tools}:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": collections_path(),
                "PYTHONPATH": collections_path(),
                **JVM,
            },
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait(10)
        print(output.read_text()[-3000:])


def resident(pid: int) -> float:
    """Resident memory in MB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@pytest.mark.rulebook
def test_through_the_real_ansible_rulebook(api, evictions, tmp_path, measured):
    evictions.create("one")
    began = time.monotonic()
    with rulebook(tmp_path, {"group": GROUP, "kubeconfig": str(api.kubeconfig), "resync": 2}) as (process, output):
        until(lambda: "'one'" in output.read_text(), 60, output.read_text)
        measured("ansible-rulebook: start to first event, s", time.monotonic() - began)
        evictions.create("two")
        until(lambda: "'two'" in output.read_text())
        until(lambda: "RESYNC" in output.read_text())
        evictions.finish("one")
        measured("ansible-rulebook: resident, MB", resident(process.pid))
        assert resident(process.pid) <= 170

        # ansible-rulebook swallows a SIGTERM that arrives while a rule runs: a supervisor says it again.
        def ended() -> bool:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            return process.poll() is not None

        until(ended, 20)
        assert "given back" in output.read_text()
        assert holder(api, "rulebook") == ""


@pytest.mark.rulebook
def test_wrong_arguments_end_ansible_rulebook_with_one_sentence(api, tmp_path):
    with rulebook(tmp_path, {"group": GROUP, "kubeconfig": str(api.kubeconfig), "context": "prod"}) as (
        process,
        output,
    ):
        assert process.wait(60) != 0
        assert "context 'prod' is wrong" in output.read_text()
