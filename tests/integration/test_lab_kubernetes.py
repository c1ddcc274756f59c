"""The lab itself: real Nodes that die and return by Kubernetes' own doing, pods, two labs at once, no trace left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import Lab, LabError, wait_until
from tests.lab.hosts import LAB_ROOT, process_start
from tests.lab.images import BUSYBOX_IMAGE
from tests.lab.kubernetes import LAB_IMAGE, VIRT_DRIVER_LABEL, Kubernetes

from .conftest import SEED

pytestmark = [pytest.mark.lab, pytest.mark.kubernetes]
ROOT = Path(__file__).parents[2]
OTHER_SEED = SEED + 1000


def node(kubernetes: Kubernetes, name: str) -> dict:
    return kubernetes.request("GET", f"/api/v1/nodes/{name}")


def ready_condition(kubernetes: Kubernetes, name: str) -> dict:
    return next(c for c in node(kubernetes, name)["status"]["conditions"] if c["type"] == "Ready")


def wait_pod(kubernetes: Kubernetes, name: str, phases: tuple[str, ...], timeout: float = 60) -> dict:
    def reached() -> dict | None:
        pod = kubernetes.request("GET", f"/api/v1/namespaces/default/pods/{name}")
        return pod if pod["status"].get("phase") in phases else None

    return wait_until(reached, timeout, f"pod {name} is {' or '.join(phases)}", 0.2)


def run_pod(kubernetes: Kubernetes, name: str, host: str, image: str, command: list[str], **spec) -> None:
    container = {"name": "main", "image": image, "command": command, **spec.pop("container", {})}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": host,
            "hostNetwork": True,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }
    kubernetes.request("POST", "/api/v1/namespaces/default/pods", body)


@pytest.fixture
def healed(lab_kubernetes):
    """The lab, whose faults are undone afterwards, with every Node Ready again and no pods of the test."""
    yield lab_kubernetes.lab
    lab_kubernetes.lab.heal()
    for name in lab_kubernetes.lab.hosts:
        lab_kubernetes.wait_node(name, "True", 90)
    lab_kubernetes.kubectl("delete", "pods", "--all", "--now", "--wait=true")


def test_nodes_are_the_hosts(lab_kubernetes):
    for name, host in lab_kubernetes.lab.hosts.items():
        found = node(lab_kubernetes, name)
        assert ready_condition(lab_kubernetes, name)["status"] == "True"
        assert found["metadata"]["labels"][VIRT_DRIVER_LABEL] == "kvm"
        assert found["metadata"]["labels"]["kubernetes.io/hostname"] == name
        assert {"type": "InternalIP", "address": host.address} in found["status"]["addresses"]
        assert host.exec(["hostname"], capture_output=True, text=True, check=True).stdout.strip() == name


def test_kubeconfig_is_private(lab_kubernetes):
    for path in (lab_kubernetes.directory / "pki").glob("*"):
        if path.suffix in (".kubeconfig", ".key"):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.slow
def test_silent_nodes_become_unknown_and_return(lab_kubernetes, healed, record_property):
    """Power off, partition and freeze are each found by the node-lifecycle controller alone, and each Node returns."""
    lab = healed
    off, cut, *_ = lab.hosts
    frozen = list(lab.hosts)[-1]
    (lab.hosts[off].directory / "var" / "kept").write_text("x")
    lab.hosts[off].exec(["touch", "/run/lost"], check=True)
    faults = {off: lab.kill, cut: lab.partition, frozen: lab.freeze}
    for name, fault in faults.items():
        fault(name)
    start = time.monotonic()
    for name in faults:
        lab_kubernetes.wait_node(name, "Unknown", 40)
        condition = ready_condition(lab_kubernetes, name)
        assert condition["reason"] == "NodeStatusUnknown"
        record_property(f"{name}_unknown_after", round(time.monotonic() - start, 1))
    assert not lab.hosts[off].running
    start = time.monotonic()
    # As another process: it knows the lab by its folder only.
    attached = Lab.attach(SEED)
    for name in faults:
        attached.heal(name)
    for name in faults:
        lab_kubernetes.wait_node(name, "True", 60)
        record_property(f"{name}_ready_after", round(time.monotonic() - start, 1))
    host = lab.hosts[off]
    assert host.exec(["cat", "/var/kept"], capture_output=True, text=True).stdout == "x"
    assert host.exec(["test", "-e", "/run/lost"], check=False).returncode == 1


def test_killed_api_server_comes_back(lab_kubernetes):
    control = lab_kubernetes.lab.control
    before = control.service_pid("kube-apiserver")
    lab_kubernetes.lab.kill("kube-apiserver")
    assert process_start(before) is None

    def answers() -> bool:
        try:
            return lab_kubernetes.request("GET", "/readyz") == "ok"
        except (OSError, LabError):
            return False

    wait_until(answers, 30, "the API server answers again", 0.1)
    assert control.service_pid("kube-apiserver") not in (None, before)


def test_service_stays_down_until_healed(lab_kubernetes, healed):
    host = healed.hosts["cmp01"]
    healed.kill("cmp01/kubelet", stay_down=True)
    assert host.service_pid("kubelet") is None
    assert host.service_state("kubelet").startswith("down")
    with pytest.raises(LabError, match="heal cmp01/kubelet"):
        healed.freeze("cmp01/kubelet")
    healed.heal("cmp01/kubelet")
    assert host.service_pid("kubelet")


POD_PROGRAM = """
import json, ssl, subprocess, sys, urllib.request
import ansible_rulebook, libvirt
java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr.split()[0]
version = subprocess.run(["ansible-rulebook", "--version"], capture_output=True, text=True, check=True).stdout
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
request = urllib.request.Request(
    "https://10.0.0.1/apis/authentication.k8s.io/v1/selfsubjectreviews",
    json.dumps(review).encode(),
    {"Content-Type": "application/json", "Authorization": "Bearer " + open(folder + "/token").read()},
)
answer = urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=folder + "/ca.crt"))
print(json.dumps({"java": java, "rulebook": "Java home" in version, "user": json.load(answer)["status"]["userInfo"]}))
"""


def test_pod_on_the_lab_image(lab_kubernetes, healed):
    """A pod has our Python, libvirt, ansible-rulebook with Java, and a token that names its node to the API server."""
    needs = lab_kubernetes.pod_volumes()
    run_pod(
        lab_kubernetes,
        "lab-image",
        "cmp02",
        LAB_IMAGE,
        ["python", "-c", POD_PROGRAM],
        volumes=needs["volumes"],
        container={"env": needs["env"], "volumeMounts": needs["volumeMounts"]},
    )
    pod = wait_pod(lab_kubernetes, "lab-image", ("Succeeded", "Failed"), 90)
    log = lab_kubernetes.kubectl("logs", "lab-image")
    assert pod["status"]["phase"] == "Succeeded", log
    result = json.loads(log.splitlines()[-1])
    assert result["java"] == "openjdk"
    assert result["rulebook"]
    assert result["user"]["username"] == "system:serviceaccount:default:default"
    assert result["user"]["extra"]["authentication.kubernetes.io/node-name"] == ["cmp02"]


def test_host_path_is_the_hosts_own(lab_kubernetes, healed):
    healed.hosts["cmp01"].exec(["sh", "-c", "mkdir -p /run/libvirt; echo of-cmp01 >/run/libvirt/whose"], check=True)
    run_pod(
        lab_kubernetes,
        "host-path",
        "cmp01",
        BUSYBOX_IMAGE,
        ["cat", "/run/libvirt/whose"],
        volumes=[{"name": "libvirt", "hostPath": {"path": "/run/libvirt"}}],
        container={"volumeMounts": [{"name": "libvirt", "mountPath": "/run/libvirt"}]},
    )
    wait_pod(lab_kubernetes, "host-path", ("Succeeded",))
    assert lab_kubernetes.kubectl("logs", "host-path") == "of-cmp01\n"


def traces(seed: int) -> list[str]:
    """Everything on the machine that belongs to a lab."""
    found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/c5c3-lab-{seed}-*")]
    found += [str(p) for p in (LAB_ROOT / str(seed), LAB_ROOT / f".lock-{seed}") if p.exists()]
    mark = f"{LAB_ROOT}/{seed}/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            mounts = (process / "mountinfo").read_text()
        except OSError:
            continue
        if mark in command or mark in mounts:
            found.append(f"process {process.name}: {command[:80]}")
    return found


@pytest.mark.slow
def test_second_lab_and_no_trace_of_it(lab_kubernetes):
    """A lab whose `up` was killed is cleaned by the next; it runs beside the first; down leaves nothing."""
    assert traces(OTHER_SEED) == []
    argv = [sys.executable, "-m", "tests.lab", "up", "--seed", str(OTHER_SEED), "--hosts", "1", "--parts", "kubernetes"]
    starting = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    other = Lab(seed=OTHER_SEED, hosts=1, parts=("kubernetes",))
    try:
        wait_until(lambda: other.hosts["cmp01"].running, 30, "the host of the second lab is on")
        starting.send_signal(signal.SIGKILL)
        starting.wait()
        left = other.control.pid
        assert left is not None
        other.up()
        assert process_start(left) is None
        assert other.kubernetes.node_ready("cmp01") == "True"
        assert lab_kubernetes.node_ready("cmp01") == "True"
        uid = node(other.kubernetes, "cmp01")["metadata"]["uid"]
        assert uid != node(lab_kubernetes, "cmp01")["metadata"]["uid"]
        with pytest.raises(LabError, match="is up already"):
            other.up()
        with other._lock(), pytest.raises(LabError, match="just being started or stopped"):
            other.down()
        run_pod(other.kubernetes, "sleeper", "cmp01", BUSYBOX_IMAGE, ["sleep", "1000"])
        wait_pod(other.kubernetes, "sleeper", ("Running",))
        processes = {
            pid: process_start(pid) for machine in (other.control, *other.hosts.values()) for pid in machine.processes()
        }
        assert len(processes) > 15
    finally:
        starting.kill()
        starting.wait()
        other.down()
    assert traces(OTHER_SEED) == []
    assert [pid for pid, start in processes.items() if start and process_start(pid) == start] == []
    assert lab_kubernetes.node_ready("cmp01") == "True"


def test_failed_start_kills_all_and_keeps_the_logs(monkeypatch):
    """A host whose set-up fails says why; nothing runs on; down removes the rest."""
    other = Lab(seed=OTHER_SEED, hosts=1, parts=("kubernetes",))
    monkeypatch.setattr(Kubernetes, "start", lambda *_arguments: None)
    other.hosts["cmp01"].add_setup("echo the reason; false")
    try:
        with pytest.raises(LabError, match="cmp01 does not start: the reason"):
            other.up()
        assert not other.control.running
        assert not other.is_up()
        assert (other.directory / "cmp01" / "init.log").read_text().startswith("the reason")
        assert [trace for trace in traces(OTHER_SEED) if trace.startswith(("process", "/sys"))] == []
    finally:
        other.down()
    assert traces(OTHER_SEED) == []


def test_commands_end_with_their_caller(lab_kubernetes):
    host = lab_kubernetes.lab.hosts["cmp01"]
    with pytest.raises(subprocess.TimeoutExpired):
        host.exec(["sleep", "4711"], timeout=0.5)

    def running() -> list[int]:
        return [p for p in host.processes() if b"4711" in Path(f"/proc/{p}/cmdline").read_bytes()]

    wait_until(lambda: not running(), 5, "the command has ended")


def test_status_and_log(lab_kubernetes):
    rows = {row["part"]: row for row in lab_kubernetes.lab.status()}
    assert rows["cmp01"]["state"] == "on"
    assert rows["kube-apiserver"]["state"] == "run"
    assert rows["kube-apiserver"]["rss"] > 50e6
    assert rows["cmp01/kubelet"]["pid"] in lab_kubernetes.lab.hosts["cmp01"].processes()
    assert lab_kubernetes.lab.log_path("cmp01/kubelet").stat().st_size > 0
    assert os.readlink(f"/proc/{rows['cmp01']['pid']}/ns/pid") != os.readlink("/proc/self/ns/pid")


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("C5C3_LAB_KWOK") != "1", reason="builds kwok (minutes, once): set C5C3_LAB_KWOK=1")
def test_simulated_nodes(lab_kubernetes):
    def ready() -> int:
        return lab_kubernetes.kubectl("get", "nodes", "-l", "type=kwok", "--no-headers").split().count("Ready")

    lab_kubernetes.kwok_nodes(30)
    assert ready() == 30
    lab_kubernetes.kwok_nodes(10)
    assert ready() == 10
    # They renew their leases: still Ready when an unrenewed one would long be Unknown.
    renewed = time.monotonic() + lab_kubernetes.lab.node_grace + 5
    wait_until(lambda: time.monotonic() > renewed or ready() != 10, 60, "the grace has passed", 1)
    assert ready() == 10
    lab_kubernetes.kwok_nodes(0)
    assert ready() == 0
