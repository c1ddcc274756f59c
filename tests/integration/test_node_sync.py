"""The step node_sync on the lab: the real node lifecycle of Kubernetes, real compute services, and both broken.

The step is called as the rulebook calls it, with short times; what it makes of a Node is read back with other clients.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils import dry_run
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, now_utc, set_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps import compute_service, evict, eviction, node_sync
from tests.lab import Lab, wait_until

ROOT = Path(__file__).parents[2]
GROUP = "/apis/hypervisor.c5c3.io/v1"
# So that a lab that came up just now, or was healed just now, is not taken for one that comes back from a partition.
LIMITS = {"settle_seconds": 0.0, "cooldown_seconds": 0.0}


class Operator:
    """Calls steps with the lab's credentials."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.access = {
            "kubeconfig": str(lab.kubernetes.kubeconfig),
            "cloud": "lab",
            "clouds_file": str(lab.nova.clouds_yaml),
        }

    def run(self, step=node_sync, check_mode: bool = False, **given) -> dict:
        """Run a step as the daemon does; node_sync with short times."""
        spec = dry_run.arguments(step.ARGUMENTS)["argument_spec"]
        filled = {name: copy.deepcopy(option.get("default")) for name, option in spec.items()}
        if step is node_sync:
            given = {"unreachable_seconds": 1.0, "return_seconds": 1.0, "gate_limits": LIMITS, **given}
        access = {name: value for name, value in self.access.items() if name in spec}
        return dry_run.run(step.run, {**filled, **access, **given}, check_mode)

    def decided(self, **given) -> list[tuple[str, str, str]]:
        """What one run of node_sync decided anew."""
        return [(one["decision"], one["host"], one["reason"]) for one in self.run(**given)["decisions"]]

    def until(self, decision: str, host: str, timeout: float = 180, **given) -> dict:
        """Run node_sync until it tells that decision, as the rulebook does at each event; return its line."""
        found: list[dict] = []

        def seen() -> bool:
            found.extend(
                one for one in self.run(**given)["decisions"] if (one["decision"], one["host"]) == (decision, host)
            )
            return bool(found)

        wait_until(seen, timeout, f"node_sync tells {decision} {host}", interval=0.5)
        return found[0]

    def get(self, kind: str, name: str) -> dict | None:
        """A resource of ours."""
        listed = self.lab.kubernetes.request("GET", f"{GROUP}/{kind}")["items"]
        return next((item for item in listed if item["metadata"]["name"] == name), None)

    def condition(self, host: str, kind: str) -> tuple[str, str] | None:
        """Status and reason of a Hypervisor's condition."""
        found = get_condition(self.get("hypervisors", host), kind)
        return (found["status"], found["reason"]) if found else None

    def patch_status(self, path: str, status: dict) -> None:
        """Write a status as somebody else would."""
        self.lab.kubernetes.request(
            "PATCH", f"{path}/status", {"status": status}, "application/strategic-merge-patch+json"
        )


@pytest.fixture(scope="module")
def operator(lab: Lab) -> Iterator[Operator]:
    kubernetes = lab.kubernetes
    for name in ("hypervisors", "evictions", "migrations"):
        kubernetes.kubectl("apply", "-f", str(ROOT / "crds" / f"{name}.yaml"))
        kubernetes.kubectl("wait", "--for=condition=Established", f"crd/{name}.hypervisor.c5c3.io", "--timeout=20s")
    kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")
    for host in lab.hosts:
        kubernetes.request("POST", f"{GROUP}/hypervisors", {
            "apiVersion": "hypervisor.c5c3.io/v1", "kind": "Hypervisor", "metadata": {"name": host}
        })  # fmt: skip
    yield Operator(lab)
    kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")


@pytest.fixture(autouse=True)
def healthy(operator: Operator) -> Iterator[None]:
    """Every test starts from a healthy lab that the operator has seen, and leaves one."""
    operator.run()
    yield
    lab = operator.lab
    lab.heal()
    for host in lab.hosts:
        lab.kubernetes.wait_node(host, "True", 120)
        lab.nova.wait_service(host, "up", 120)
        operator.run(compute_service, host=host, state="enabled", forced_down=False, timeout=120.0)
    lab.kubernetes.kubectl("delete", "evictions", "--all", "--wait")


def test_a_healthy_site_costs_nothing(operator):
    again = operator.run()
    assert (again["changed"], again["decisions"], again["next_check"]) == (False, [], None)
    assert again["nodes"] == {"hypervisors": 3, "ready": 3, "not_ready": 0, "unreachable": 0}
    shown = operator.lab.kubernetes.kubectl("get", "hypervisors", "--no-headers")
    assert shown.count(" Ready ") == 3, shown


def test_a_dead_host_is_marked_evacuated_and_back_before_the_act_cancelled(operator):
    lab = operator.lab
    lab.kill("cmp01")
    marked = operator.until("mark", "cmp01", unreachable_seconds=3600.0)
    node = lab.kubernetes.request("GET", "/api/v1/nodes/cmp01")
    since = get_condition(node, "Ready")["lastTransitionTime"]
    assert marked["reason"] == "Unreachable" and marked["since"] == since.replace("Z", ".000000Z")
    assert operator.get("hypervisors", "cmp01")["status"]["nodeState"] == "Unreachable"
    assert operator.condition("cmp01", "EvacuationAllowed") == ("False", "Waiting")
    assert get_condition(operator.get("hypervisors", "cmp01"), "NodeReady")["lastTransitionTime"][:19] == since[:19]
    # Nova still takes it for alive, so the second signal refuses; then it agrees.
    lab.nova.wait_service("cmp01", "down", 120)
    assert operator.until("evict", "cmp01", 120)["reason"] == "GatesPassed"
    spec = operator.get("evictions", "cmp01")["spec"]
    assert (spec["cause"], spec["hypervisor"], spec["occurredAt"][:19]) == ("NodeUnreachable", "cmp01", since[:19])
    assert operator.run()["changed"] is False, "once"
    events = json.loads(lab.kubernetes.kubectl("get", "events", "-n", "default", "-o", "json"))["items"]
    about = [
        e["reason"] for e in events if e["involvedObject"]["name"] == "cmp01" and e.get("action") in ("mark", "evict")
    ]
    assert {"Unreachable", "GatesPassed"} <= set(about)
    # Nobody has begun: the host is powered on again.
    lab.heal("cmp01")
    lab.kubernetes.wait_node("cmp01", "True", 120)
    operator.until("cancel", "cmp01", 60)
    ended = get_condition(operator.get("evictions", "cmp01"), "Evicting")
    assert (ended["status"], ended["reason"]) == ("False", "Cancelled")
    assert operator.get("hypervisors", "cmp01")["status"]["nodeState"] == "Ready"
    service = lab.nova.compute_services()["cmp01"]
    assert service["status"] == "enabled" and not service["forced_down"]


def test_a_dead_kubelet_on_a_living_host_moves_nothing(operator):
    operator.lab.kill("cmp02/kubelet", stay_down=True)
    line = operator.until("refuse", "cmp02")
    assert (line["gate"], line["reason"]) == ("second_signal", "ServiceUp")
    assert operator.condition("cmp02", "EvacuationAllowed") == ("False", "ServiceUp")
    assert operator.get("evictions", "cmp02") is None


def test_cut_off_from_all_hosts_it_takes_itself_for_the_isolated_one(operator):
    lab = operator.lab
    for host in lab.hosts:
        lab.partition(host)
    for host in lab.hosts:
        lab.kubernetes.wait_node(host, "Unknown", 120)
        lab.nova.wait_service(host, "down", 120)
    refused = {(one["gate"], one["reason"]) for one in operator.run()["decisions"] if one["decision"] == "refuse"}
    assert refused == {("isolated", "Isolated")}
    # They come back one after the other: the last ones are given time.
    for host in ("cmp01", "cmp02"):
        lab.heal(host)
    for host in ("cmp01", "cmp02"):
        lab.kubernetes.wait_node(host, "True", 120)
    reasons = {one["reason"] for one in operator.run(gate_limits={"settle_seconds": 600.0})["decisions"]}
    assert "Settling" in reasons
    assert operator.lab.kubernetes.request("GET", f"{GROUP}/evictions")["items"] == []


@pytest.mark.parametrize("how", ["away", "hanging"])
def test_cut_off_from_the_api_nothing_is_decided(operator, how):
    elsewhere = {"host": "https://192.0.2.1:6443"} if how == "away" else {}
    if how == "hanging":
        operator.lab.freeze("kube-apiserver")
    try:
        with pytest.raises(HaError, match="nothing is decided, since it is not known how the Nodes are"):
            operator.run(request_timeout=2.0, **elsewhere)
    finally:
        operator.lab.thaw("kube-apiserver")


def test_pressure_of_a_real_node_takes_it_out_of_scheduling_and_gives_it_back(operator):
    def pressure(kind: str, status: str) -> None:
        condition = {"type": kind, "status": status, "reason": "Test", "message": "", "lastTransitionTime": now_utc()}
        operator.patch_status("/api/v1/nodes/cmp03", {"conditions": [condition]})

    def service() -> tuple[str, str]:
        found = operator.lab.nova.compute_services()["cmp03"]
        return found["status"], found["disabled_reason"] or ""

    def disabled() -> bool:
        pressure("DiskPressure", "True")  # the kubelet takes its word back within 10 s
        return ("pressure", "cmp03", "DiskPressure") in operator.decided()

    wait_until(disabled, 120, "pressure is seen", interval=0.1)
    assert service() == ("disabled", "c5c3.ha: pressure DiskPressure")
    assert operator.condition("cmp03", "NodePressure") == ("True", "DiskPressure")
    operator.until("pressure-over", "cmp03", 60)
    assert service() == ("enabled", "")
    # A condition that no kubelet writes stays, and so does what a person says meanwhile.
    pressure("NetworkUnavailable", "True")
    operator.until("pressure", "cmp03", 60)
    operator.run(compute_service, host="cmp03", state="disabled", disabled_reason="broken fan")
    pressure("NetworkUnavailable", "False")
    operator.until("pressure-over", "cmp03", 60)
    assert service() == ("disabled", "broken fan")


def die_and_be_evacuated(operator: Operator, server: str, late: bool = False) -> None:
    """The server's host cmp01 dies and is evacuated, all by hand; the operator's Eviction says so.

    :param late: a live migration of the server, asked for just before, waits in the broker for the host.
    """
    lab = operator.lab
    lab.kill("cmp01")
    if late:
        lab.nova.late_move(server, "cmp01", "cmp03")
    lab.kubernetes.wait_node("cmp01", "Unknown", 120)
    lab.nova.force_down("cmp01")
    operator.run(compute_service, host="cmp01", state="disabled", disabled_reason="c5c3.ha: Eviction cmp01")
    operator.run(eviction, hypervisor="cmp01", cause="NodeUnreachable", reason="test", occurred_at=now_utc())
    lab.nova.evacuate(server)
    wait_until(lambda: lab.nova.connection().compute.get_server(server).compute_host != "cmp01", 60, "it moves", 0.5)
    lab.nova.wait_server(server)
    conditions = set_condition(None, "Fenced", "True", "Off")
    conditions = set_condition(conditions, "Evicting", "False", "Succeeded")
    path = f"{GROUP}/evictions/cmp01/status"
    lab.kubernetes.request("PATCH", path, {"status": {"conditions": conditions}}, "application/merge-patch+json")
    operator.run()


def test_a_host_returns_only_after_novas_evacuation_records(operator):
    lab = operator.lab
    server = lab.nova.boot("return", host="cmp01").id
    try:
        die_and_be_evacuated(operator, server)
        lab.heal("cmp01")
        line = operator.until("return", "cmp01", 300)
        assert line["reason"] == "EvacuationsCompleted"
        assert operator.until("return", "cmp01", 180)["reason"] == "HostHealthy"
        service = lab.nova.compute_services()["cmp01"]
        assert (service["status"], service["forced_down"], service["state"]) == ("enabled", False, "up")
        assert operator.condition("cmp01", "HostReturn") == ("True", "HostHealthy")
        assert operator.run()["changed"] is False
    finally:
        lab.heal("cmp01")
        lab.nova.delete(server)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_move_that_waited_in_the_broker_leaves_nothing_in_error(operator):
    """The host takes it up when it is back, finds no guest, and Nova calls ERROR what runs elsewhere since its evacuation."""
    lab = operator.lab
    server = lab.nova.boot("waited", host="cmp01").id
    try:
        wait_until(lambda: lab.oracle.counters(server), 60, "the guest counts", 0.1)
        die_and_be_evacuated(operator, server, late=True)
        boots = lab.oracle.counters(server).boots
        lab.heal("cmp01")
        compute = lab.nova.connection().compute
        wait_until(lambda: compute.get_server(server).status == "ERROR", 180, "Nova calls it ERROR", 0.5)
        operator.until("return", "cmp01", 300)
        line = operator.until("return", "cmp01", 180)
        assert line["reason"] == "HostHealthy" and f"server {server}, evacuated before" in line["message"]
        found = lab.nova.wait_server(server)
        assert found.compute_host != "cmp01" and lab.oracle.counters(server).boots == boots
        assert len(lab.nova.guest_processes(server)) == 1
    finally:
        lab.heal("cmp01")
        lab.nova.delete(server)


def everything(operator: Operator) -> str:
    """All that a step could have changed, but for what the world itself goes on writing."""
    kubernetes = operator.lab.kubernetes
    listed = [kubernetes.request("GET", f"{GROUP}/{kind}")["items"] for kind in ("hypervisors", "evictions")]
    events = [
        event["metadata"]["name"]
        for event in kubernetes.request("GET", "/api/v1/namespaces/default/events")["items"]
        if event["source"].get("component") == "c5c3-ha-operator"
    ]
    services = {
        host: {key: value for key, value in one.items() if key not in ("updated_at",)}
        for host, one in operator.lab.nova.compute_services().items()
    }
    servers = {
        server.id: server.compute_host for server in operator.lab.nova.connection().compute.servers(all_projects=True)
    }
    return json.dumps([listed, sorted(events), services, servers], indent=1, sort_keys=True)


def test_a_dry_run_decides_and_tells_and_changes_nothing(operator):
    lab = operator.lab
    server = lab.nova.boot("dry", host="cmp02").id
    try:
        operator.patch_status("/api/v1/nodes/cmp02", {"conditions": [
            {"type": "NetworkUnavailable", "status": "True", "reason": "Test", "lastTransitionTime": now_utc()}
        ]})  # fmt: skip
        lab.kill("cmp01")
        lab.kubernetes.wait_node("cmp01", "Unknown", 120)
        lab.nova.wait_service("cmp01", "down", 120)
        before = everything(operator)
        result = operator.run(dry_run=True, unreachable_seconds=0.0)
        told = {(one["decision"], one["host"]) for one in result["decisions"]}
        assert told == {("mark", "cmp01"), ("evict", "cmp01"), ("pressure", "cmp02")}
        assert all(one["dry_run"] for one in result["decisions"]) and result["msg"].startswith("dry run: would do")
        assert everything(operator) == before
        operator.run(eviction, hypervisor="cmp02", cause="Maintenance", reason="test")
        before = everything(operator)
        drained = operator.run(evict, name="cmp02", dry_run=True)
        # Servers that other tests of the same lab left on the host may come first.
        assert drained["msg"].startswith("dry run: would do DisableService cmp02") and "LiveMigrate" in drained["msg"]
        told = operator.run(eviction, dry_run=True, hypervisor="cmp03", cause="Maintenance", reason="test")["msg"]
        assert told.startswith("dry run: would do Eviction cmp03")
        operator.run(compute_service, dry_run=True, host="cmp03", state="disabled", forced_down=True)
        assert everything(operator) == before
    finally:
        operator.patch_status("/api/v1/nodes/cmp02", {"conditions": [
            {"type": "NetworkUnavailable", "status": "False", "reason": "Test", "lastTransitionTime": now_utc()}
        ]})  # fmt: skip
        lab.nova.delete(server)
