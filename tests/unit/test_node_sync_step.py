"""The step node_sync on a scripted cluster: what it writes for what the Nodes say, and that a second run writes nothing."""

from __future__ import annotations

import copy
import itertools
import threading
from dataclasses import replace

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import stamp
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    MigrationFacts,
    ServerFacts,
    ServiceFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, Forbidden, HaError, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Config
from ansible_collections.c5c3.ha.plugins.module_utils.nova import NovaError, NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, set_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps import gate_facts, node_sync

NOW = 1_800_000_000.0


class World:
    """Kubernetes and Nova in one; every write is in `writes`."""

    def __init__(self, hosts: int = 5) -> None:
        self.now = NOW
        self.names = [f"cmp{number:02}" for number in range(1, hosts + 1)]
        self.objects: dict[str, dict[str, dict]] = {"Node": {}, "Hypervisor": {}, "Eviction": {}, "Event": {}}
        self.services = {name: {"up": True, "enabled": True, "reason": "", "forced": False} for name in self.names}
        self.migrations: list[MigrationFacts] = []
        self.servers = 1
        self.writes: list[tuple] = []
        self.broken: set[str] = set()
        self.refuses_clear = False
        self.known: dict[str, ServerFacts] = {}
        self.upstream = False  # CobaltCore's schema, which drops what it does not know
        self.config = Config()
        self.warnings: list[str] = []
        self.meanwhile = lambda kind, name: None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        for name in self.names:
            self.put("Node", {"metadata": {"name": name}})
            self.node(name, "True", -9999)
            self.put("Hypervisor", {"metadata": {"name": name}, "spec": {"highAvailability": True}})

    def put(self, kind: str, obj: dict) -> dict:
        obj = copy.deepcopy(obj)
        if self.upstream:
            obj.get("status", {}).pop("nodeState", None)
            for field in ("cause", "occurredAt"):
                obj.get("spec", {}).pop(field, None)
        obj["metadata"] |= {
            "resourceVersion": str(next(self._numbers)),
            "uid": obj["metadata"].get("uid") or f"uid-{kind}",
        }
        self.objects[kind][obj["metadata"]["name"]] = obj
        return copy.deepcopy(obj)

    def node(self, name: str, ready: str, ago: float, **others: str) -> None:
        """Set the Node's condition Ready since `ago` seconds before now, and others (DiskPressure="True")."""
        node = self.objects["Node"][name]
        conditions = node.setdefault("status", {}).get("conditions") or []
        for kind, status in ({"Ready": ready, **others}).items():
            when = stamp(self.now + ago)
            conditions = [one for one in conditions if one["type"] != kind]
            conditions = set_condition(conditions, kind, status, "Kubelet", f"{kind} is {status}", when)
        node["status"]["conditions"] = conditions
        if ready == "Unknown":
            self.services[name]["up"] = False

    def finish(self, name: str, reason: str, fenced: bool | None = None) -> None:
        eviction = self.objects["Eviction"][name]
        conditions = set_condition([], "Evicting", "False", reason, "", stamp(self.now))
        if fenced is not None:
            proof = ("True", "Off") if fenced else ("False", "PoweredOn")
            conditions = set_condition(conditions, "Fenced", *proof, "", stamp(self.now))
        eviction["status"] = {"conditions": conditions, "finishedAt": stamp(self.now)}

    def condition(self, name: str, kind: str) -> tuple[str, str] | None:
        found = get_condition(self.objects["Hypervisor"][name], kind)
        return (found["status"], found["reason"]) if found else None


class FakeClient:
    def __init__(self, world: World) -> None:
        self.world, self.config, self.warnings = world, world.config, []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None

    def _check(self, verb: str, kind: str) -> None:
        if f"{verb} {kind}" in self.world.broken:
            raise Forbidden(f"cannot {verb} {kind}: 403", 403)

    def list(self, resource, project=None, **_selectors):
        self._check("list", resource.kind)
        return [project(copy.deepcopy(item)) for item in self.world.objects[resource.kind].values()]

    def get(self, resource, name):
        found = self.world.objects[resource.kind].get(name)
        return copy.deepcopy(found)

    def create(self, resource, body, namespace=None, dry_run=False, strict=False):
        self._check("create", resource.kind)
        name = body["metadata"]["name"]
        with self.world._lock:
            if name in self.world.objects[resource.kind]:
                raise Conflict("it is there", 409)
            if dry_run:
                return copy.deepcopy(body)
            self.world.writes.append(("create", resource.kind, name))
            return self.world.put(resource.kind, body)

    def patch(self, resource, name, body, subresource=None, dry_run=False):
        self._check("patch", resource.kind)
        self.world.meanwhile(resource.kind, name)
        with self.world._lock:
            obj = copy.deepcopy(self.world.objects[resource.kind].get(name))
            if obj is None:
                raise NotFound("gone", 404)
            if body["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                raise Conflict("changed", 409)
            for part in ("spec", "status"):
                for key, value in (body.get(part) or {}).items():
                    if value is None:
                        obj.get(part, {}).pop(key, None)
                    else:
                        obj.setdefault(part, {})[key] = value
            if dry_run:
                return obj
            self.world.writes.append(("patch", resource.kind, name))
            return self.world.put(resource.kind, obj)

    def delete(self, resource, name, **_conditions):
        self.world.writes.append(("delete", resource.kind, name))
        return self.world.objects[resource.kind].pop(name, None) is not None


class FakeNova:
    def __init__(self, world: World) -> None:
        self.world = world

    def _facts(self, host: str) -> ServiceFacts:
        one = self.world.services[host]
        return ServiceFacts(
            f"id-{host}",
            host,
            one["up"] and not one["forced"],
            one["enabled"],
            one["reason"],
            one["forced"],
            one.get("reported"),
        )

    def services(self, host=None, binary="nova-compute"):
        if "nova" in self.world.broken:
            raise NovaUnavailable("Nova does not answer", 0)
        if binary == "nova-scheduler":
            return [ServiceFacts("s", "ctl", up=True, enabled=True)]
        return [self._facts(name) for name in self.world.services if host in (None, name)]

    def service(self, host):
        return self.services(host)[0]

    def update_service(self, service, **changes):
        if changes.get("forced_down") is False and self.world.refuses_clear:
            raise NovaError("Nova answered 400: evacuations in progress", 400)
        one = self.world.services[service.removeprefix("id-")]
        self.world.writes.append(("nova", service, tuple(sorted(changes.items()))))
        if "status" in changes:
            one["enabled"] = changes["status"] == "enabled"
            one["reason"] = changes.get("disabled_reason", "") if not one["enabled"] else ""
        one["forced"] = changes.get("forced_down", one["forced"])

    def servers_on(self, host):
        return [ServerFacts(id=f"s{number}", host=host, vcpus=1, ram_mb=512) for number in range(self.world.servers)]

    def server(self, server):
        return self.world.known.get(server)

    def is_running(self, server):
        return self.world.known[server].running

    def reset_state(self, server, state="active"):
        self.world.writes.append(("reset", server, state))
        self.world.known[server] = replace(self.world.known[server], vm_state=state)

    def hosts_with_room(self, vcpus, ram_mb):
        return frozenset(self.world.services)

    def migrations(self, *, server=None, host=None):
        return [one for one in self.world.migrations if host in (one.source, one.target)]


@pytest.fixture
def world(monkeypatch):
    return use(monkeypatch, World())


def use(monkeypatch, world: World) -> World:
    monkeypatch.setattr(node_sync.Client, "from_params", lambda params, manager: FakeClient(world))
    monkeypatch.setattr(node_sync.Nova, "from_params", lambda params: FakeNova(world))
    monkeypatch.setattr(gate_facts.time, "time", lambda: world.now)
    return world


def run(world: World, check_mode: bool = False, **given) -> dict:
    params = {name: option.get("default") for name, option in node_sync.ARGUMENTS["argument_spec"].items()}
    world.writes.clear()
    return node_sync.run({**params, **given}, check_mode)


def told(result: dict) -> list[tuple[str, str, str]]:
    return [(one["decision"], one["host"], one["reason"]) for one in result["decisions"]]


def test_the_first_run_marks_all_ready_and_the_second_does_nothing(world):
    first = run(world)
    assert first["changed"] and told(first) == []
    assert {hv["status"]["nodeState"] for hv in world.objects["Hypervisor"].values()} == {"Ready"}
    second = run(world)
    assert (second["changed"], world.writes, second["next_check"]) == (False, [], None)
    assert second["nodes"] == {"hypervisors": 5, "ready": 5, "not_ready": 0, "unreachable": 0}


def test_a_lost_node_is_marked_then_waited_for_then_evacuated_once(world):
    run(world)
    world.node("cmp01", "Unknown", 0)
    marked = run(world)
    assert told(marked) == [("mark", "cmp01", "Unreachable")]
    assert world.objects["Hypervisor"]["cmp01"]["status"]["nodeState"] == "Unreachable"
    assert world.condition("cmp01", "NodeReady") == ("Unknown", "Unreachable")
    assert world.condition("cmp01", "EvacuationAllowed") == ("False", "Waiting")
    assert get_condition(world.objects["Hypervisor"]["cmp01"], "NodeReady")["lastTransitionTime"] == stamp(NOW)
    assert marked["next_check"] == 60
    world.now += 59.9
    assert told(run(world)) == [] and not world.writes
    world.now += 0.1
    done = run(world)
    assert told(done) == [("evict", "cmp01", "GatesPassed")]
    spec = world.objects["Eviction"]["cmp01"]["spec"]
    assert (spec["cause"], spec["occurredAt"], spec["hypervisor"]) == ("NodeUnreachable", stamp(NOW), "cmp01")
    assert "instances" not in spec
    assert world.condition("cmp01", "EvacuationAllowed") == ("True", "GatesPassed")
    for _again in range(2):
        assert told(run(world)) == [] and not world.writes


def test_the_condition_is_there_before_the_eviction(world):
    run(world)
    world.node("cmp01", "Unknown", -61)
    run(world)
    writes = [write[1] for write in world.writes if write[1] in ("Hypervisor", "Eviction")]
    assert writes.index("Eviction") == len(writes) - 1


def test_not_ready_has_a_clock_of_its_own_and_a_living_host_is_drained(world):
    run(world)
    world.node("cmp01", "False", 0)
    world.now += 299
    assert told(run(world)) == [("mark", "cmp01", "NotReady")]
    world.now += 1
    assert told(run(world)) == [("evict", "cmp01", "HostAlive")]
    assert world.objects["Eviction"]["cmp01"]["spec"]["cause"] == "NodeNotReady"


def test_a_living_host_without_kubelet_is_left_alone_and_said_once(world):
    run(world)
    world.node("cmp01", "Unknown", -100)
    world.services["cmp01"]["up"] = True
    assert told(run(world))[1:] == [("refuse", "cmp01", "ServiceUp")]
    assert world.condition("cmp01", "EvacuationAllowed") == ("False", "ServiceUp")
    assert told(run(world)) == [] and not world.writes
    assert not world.objects["Eviction"]


def test_a_mass_failure_makes_no_eviction_and_asks_nova_for_no_host(world, monkeypatch):
    monkeypatch.setattr(FakeNova, "servers_on", lambda self, host: pytest.fail("asked for a host"))
    run(world)
    for name in world.names[:4]:
        world.node(name, "Unknown", -100)
    reasons = {(one["decision"], one["gate"]) for one in run(world)["decisions"]}
    assert reasons == {("mark", ""), ("refuse", "unhealthy_share")}
    world.node("cmp05", "Unknown", -100)
    assert {one["reason"] for one in run(world)["decisions"] if one["decision"] == "refuse"} == {"Isolated"}
    assert not world.objects["Eviction"]


def test_what_one_run_lets_through_counts_for_the_next_host(monkeypatch):
    world = use(monkeypatch, World(20))
    run(world)
    for number, name in enumerate(world.names[:5]):
        world.node(name, "Unknown", -100 - number)
    result = run(world)
    assert [host for decision, host, _reason in told(result) if decision == "evict"] == ["cmp05", "cmp04", "cmp03"]
    assert {reason for decision, _host, reason in told(result) if decision == "refuse"} == {"TooManyAtOnce"}
    for name in ("cmp03", "cmp04", "cmp05"):
        world.objects["Eviction"][name]["metadata"]["creationTimestamp"] = stamp(world.now)
        world.finish(name, "Succeeded", fenced=True)
    assert [reason for _d, _h, reason in told(run(world))] == ["CoolingDown"] * 2
    world.now += 60
    assert sorted(host for _d, host, _r in told(run(world))) == ["cmp01", "cmp02"]


def test_ready_again_before_the_act_cancels_and_a_new_fault_begins_anew(world):
    run(world)
    world.node("cmp01", "Unknown", -61)
    run(world)
    world.node("cmp01", "True", 0)
    world.services["cmp01"]["up"] = True
    assert set(told(run(world))) == {("ready", "cmp01", "Ready"), ("cancel", "cmp01", "Cancelled")}
    evicting = get_condition(world.objects["Eviction"]["cmp01"], "Evicting")
    assert (evicting["status"], evicting["reason"]) == ("False", "Cancelled")
    assert world.condition("cmp01", "EvacuationAllowed") == ("False", "NodeReady")
    assert told(run(world)) == [] and not world.writes
    world.now += 100
    world.node("cmp01", "Unknown", 0)
    world.now += 60
    assert told(run(world)) == [("mark", "cmp01", "Unreachable"), ("evict", "cmp01", "GatesPassed")]
    assert not get_condition(world.objects["Eviction"]["cmp01"], "Evicting"), "a new Eviction"


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Fenced", "status": "Unknown", "reason": "Fencing"}]},
        {"conditions": [{"type": "Fenced", "status": "True", "reason": "Off"}]},
        {"conditions": [{"type": "Fenced", "status": "False", "reason": "StaysOn"}]},
        {"instances": [{"id": "s0", "attempts": 1, "phase": "Migrating"}]},
    ],
)
def test_once_begun_it_is_not_cancelled(world, status):
    run(world)
    world.node("cmp01", "Unknown", -61)
    run(world)
    world.objects["Eviction"]["cmp01"]["status"] = status
    world.node("cmp01", "True", 0)
    assert told(run(world)) == [("ready", "cmp01", "Ready")]
    assert world.objects["Eviction"]["cmp01"]["status"] == status


def test_who_begins_to_fence_in_the_moment_of_the_cancel_wins(world):
    run(world)
    world.node("cmp01", "Unknown", -61)
    run(world)
    world.node("cmp01", "True", 0)

    def fence(kind, name):
        if kind == "Eviction":
            eviction = world.objects["Eviction"]["cmp01"]
            eviction["status"] = {"conditions": [{"type": "Fenced", "status": "Unknown", "reason": "Fencing"}]}
            world.put("Eviction", eviction)

    world.meanwhile = fence
    assert told(run(world)) == [("ready", "cmp01", "Ready")]
    assert get_condition(world.objects["Eviction"]["cmp01"], "Evicting") is None


def test_a_failed_eviction_is_not_made_again_for_the_same_fault_and_says_so(world):
    run(world)
    world.node("cmp01", "Unknown", -61)
    run(world)
    world.finish("cmp01", "Failed")
    assert told(run(world)) == [("refuse", "cmp01", "EvictionEnded")]
    assert world.condition("cmp01", "EvacuationAllowed") == ("False", "EvictionEnded")
    assert told(run(world)) == []
    del world.objects["Eviction"]["cmp01"]
    assert told(run(world)) == [("evict", "cmp01", "GatesPassed")]


def test_pressure_disables_with_our_reason_and_gives_back_only_that(world):
    run(world)
    world.node("cmp01", "True", -9999, DiskPressure="True")
    assert told(run(world)) == [("pressure", "cmp01", "DiskPressure")]
    assert world.services["cmp01"] == {
        "up": True, "enabled": False, "reason": "c5c3.ha: pressure DiskPressure", "forced": False
    }  # fmt: skip
    assert world.condition("cmp01", "NodePressure") == ("True", "DiskPressure")
    events = [event for event in world.objects["Event"].values() if event["reason"] == "DiskPressure"]
    assert [(event["type"], event["involvedObject"]["name"]) for event in events] == [("Warning", "cmp01")]
    assert not run(world)["changed"]
    world.node("cmp01", "True", -9999, DiskPressure="True", MemoryPressure="True")
    run(world)
    assert world.services["cmp01"]["reason"] == "c5c3.ha: pressure DiskPressure,MemoryPressure"
    world.node("cmp01", "True", -9999, DiskPressure="False", MemoryPressure="False")
    assert told(run(world)) == [("pressure-over", "cmp01", "NoPressure")]
    assert world.services["cmp01"]["enabled"] and world.condition("cmp01", "NodePressure") == ("False", "NoPressure")
    assert not run(world)["changed"]


@pytest.mark.parametrize("kind", ["DiskPressure", "MemoryPressure", "PIDPressure", "NetworkUnavailable"])
def test_each_pressure_counts(world, kind):
    run(world)
    world.node("cmp02", "True", -9999, **{kind: "True"})
    run(world)
    assert world.services["cmp02"]["reason"] == f"c5c3.ha: pressure {kind}"


@pytest.mark.parametrize(
    "reason", ["broken fan", "AUTO: Connection to libvirt lost", "c5c3.ha: Eviction cmp01", "c5c3.ha: maintenance"]
)
def test_what_others_disabled_is_neither_taken_over_nor_given_back(world, reason):
    run(world)
    world.services["cmp01"].update(enabled=False, reason=reason)
    world.node("cmp01", "True", -9999, DiskPressure="True")
    run(world)
    assert world.services["cmp01"]["reason"] == reason
    world.node("cmp01", "True", -9999, DiskPressure="False")
    run(world)
    assert (world.services["cmp01"]["enabled"], world.services["cmp01"]["reason"]) == (False, reason)


def test_a_kubelet_that_is_not_heard_says_nothing_of_pressure(world):
    run(world)
    world.node("cmp01", "True", -9999, DiskPressure="True")
    run(world)
    world.node("cmp01", "Unknown", 0, DiskPressure="Unknown")
    run(world)
    assert world.services["cmp01"]["reason"] == "c5c3.ha: pressure DiskPressure"
    assert world.condition("cmp01", "NodePressure") == ("True", "DiskPressure")


@pytest.mark.parametrize("spec", [{"highAvailability": False}, {"highAvailability": True, "maintenance": "manual"}])
def test_a_host_that_is_to_be_left_alone_is_marked_and_no_more(world, spec):
    world.objects["Hypervisor"]["cmp01"]["spec"] = spec
    run(world)
    world.node("cmp01", "Unknown", -1000, DiskPressure="True")
    result = run(world)
    assert world.objects["Hypervisor"]["cmp01"]["status"]["nodeState"] == "Unreachable"
    assert not world.objects["Eviction"] and world.services["cmp01"]["enabled"]
    assert ("refuse", "cmp01", "InMaintenance") in told(result) or not spec["highAvailability"]


def lost_and_evacuated(world):
    run(world)
    world.node("cmp01", "Unknown", -61)
    run(world)
    world.finish("cmp01", "Succeeded", fenced=True)
    world.services["cmp01"].update(enabled=False, forced=True, reason="c5c3.ha: Eviction cmp01")
    world.migrations = [MigrationFacts(1, "s0", "done", kind="evacuation", source="cmp01", target="cmp02")]
    world.now += 600
    world.node("cmp01", "True", 0)


def test_a_host_returns_after_its_records_and_its_health(world):
    lost_and_evacuated(world)
    assert ("return-wait", "cmp01", "ReadyTooShort") in told(run(world))
    world.now += 120
    assert told(run(world)) == [("return-wait", "cmp01", "EvacuationsOpen")]
    assert told(run(world)) == [] and world.services["cmp01"]["forced"]
    world.migrations = [MigrationFacts(1, "s0", "completed", kind="evacuation", source="cmp01", target="cmp02")]
    world.refuses_clear = True
    run(world)
    assert world.services["cmp01"]["forced"]
    world.refuses_clear = False
    assert told(run(world)) == [("return", "cmp01", "EvacuationsCompleted")]
    assert (world.services["cmp01"]["forced"], world.services["cmp01"]["enabled"]) == (False, False)
    assert told(run(world)) == [("return-wait", "cmp01", "ServiceDown")]
    world.services["cmp01"]["up"] = True
    assert told(run(world)) == [("return", "cmp01", "HostHealthy")]
    assert world.services["cmp01"]["enabled"]
    assert world.condition("cmp01", "HypervisorDisabled") == ("False", "Succeeded")
    assert world.condition("cmp01", "HostReturn") == ("True", "HostHealthy")
    assert told(run(world)) == [] and not world.writes


def moved(server, status, number=2):
    """A live migration from cmp01, of a server that was evacuated from it."""
    return [
        MigrationFacts(1, server, "completed", kind="evacuation", source="cmp01", target="cmp02"),
        MigrationFacts(number, server, status, kind="live-migration", source="cmp01", target="cmp02"),
    ]


def healthy_again(world, *records):
    lost_and_evacuated(world)
    world.now += 121
    world.services["cmp01"].update(forced=False, up=True)
    world.migrations = list(records)
    world.writes.clear()


def test_a_move_that_waited_in_the_broker_leaves_nothing_in_error(world):
    """Nova 34: the host takes it up when it is back, finds no guest, and puts the server into ERROR, which runs elsewhere."""
    healthy_again(world, *moved("s0", "queued"), *moved("s1", "error"))
    run(world)
    assert (
        world.condition("cmp01", "HostReturn") == ("False", "MigrationsOpen") and not world.services["cmp01"]["enabled"]
    )
    world.migrations = [
        *(record for server in ("s0", "s1", "s2", "s3", "s4", "s5") for record in moved(server, "error")),
        MigrationFacts(9, "other", "error", kind="live-migration", source="cmp01", target="cmp02"),
    ]
    error = {"vm_state": "error", "host": "cmp02", "running": True}
    world.known = {
        "s0": ServerFacts("s0", **error),
        "s1": ServerFacts("s1", **{**error, "vm_state": "active"}),
        "s2": ServerFacts("s2", **{**error, "running": False}),
        "s3": ServerFacts("s3", **error, task_state="rebuilding"),
        "s4": ServerFacts("s4", **{**error, "host": "cmp01"}),
        "other": ServerFacts("other", **error),
    }
    world.writes.clear()
    assert ("return", "cmp01", "HostHealthy") in told(run(world))
    assert [write for write in world.writes if write[0] == "reset"] == [("reset", "s0", "active")]
    assert world.services["cmp01"]["enabled"]
    message = get_condition(world.objects["Hypervisor"]["cmp01"], "HostReturn")["message"]
    assert "server s0, evacuated before, put into ERROR by a live migration" in message


def test_a_move_that_never_ends_holds_a_host_for_a_minute_only(world):
    healthy_again(world, *moved("s0", "running"))
    run(world)
    assert world.condition("cmp01", "HostReturn") == ("False", "MigrationsOpen")
    world.now += 61
    assert ("return", "cmp01", "HostHealthy") in told(run(world))


def waits_for_records(world, *records):
    """What HostReturn says with records of (server, status); the host is healthy again."""
    world.migrations = [
        MigrationFacts(number, server, status, kind="evacuation", source="cmp01", target="cmp02")
        for number, (server, status) in enumerate(records)
    ]
    run(world)
    found = get_condition(world.objects["Hypervisor"]["cmp01"], "HostReturn")
    assert world.services["cmp01"]["forced"] and (found["status"], found["reason"]) == ("False", "EvacuationsOpen")
    return found["message"]


def test_what_a_person_has_to_do_is_said_exactly(world):
    """And said anew with each record that is done."""
    lost_and_evacuated(world)
    world.now += 120
    world.services["cmp01"]["reported"] = world.now - 700
    told_ = waits_for_records(world, ("a", "done"), ("a", "done"), ("b", "done"))
    assert "3 open evacuation records of servers a, b" in told_ and "nova-compute on cmp01" in told_
    assert "it has not run since the Node is Ready: start it, then restart it 1 time (" in told_
    world.services["cmp01"]["reported"] = world.now - 5
    assert ": restart it (" in waits_for_records(world, ("a", "done"))
    assert ": restart it 2 times, one after the other (" in waits_for_records(world, ("a", "done"), ("a", "done"))


@pytest.mark.parametrize("status", ["accepted", "pre-migrating"])
def test_a_record_that_was_lost_does_not_destroy_a_guest_months_later(world, status):
    """It was sent again, and that record is completed: Nova would take the host, and its next start would end the guest."""
    lost_and_evacuated(world)
    world.now, world.services["cmp01"]["reported"] = world.now + 120, world.now + 110
    assert "1 open evacuation record of server x," in waits_for_records(world, ("x", status), ("x", "completed"))
    assert "reboot --hard" not in waits_for_records(world, ("x", status))
    assert "that stops server s0, which came back to this host: `openstack server reboot --hard`" in waits_for_records(
        world, ("x", status), ("s0", status)
    )
    world.migrations = [MigrationFacts(1, "x", "failed", kind="evacuation", source="cmp01", target="cmp02")]
    assert told(run(world)) == [("return", "cmp01", "EvacuationsCompleted")]


def test_a_host_returns_that_came_back_before_it_was_disabled(world):
    """It was proven off and forced down, the step was killed, and then somebody switched it on: nothing was evacuated."""
    lost_and_evacuated(world)
    world.finish("cmp01", "Cancelled", fenced=False)
    world.services["cmp01"].update(enabled=True, forced=True, reason="")
    world.migrations, world.now = [], world.now + 120
    assert ("return", "cmp01", "EvacuationsCompleted") in told(run(world))
    assert not world.services["cmp01"]["forced"]


def test_who_was_forced_down_by_somebody_else_stays_so(world):
    lost_and_evacuated(world)
    world.finish("cmp01", "Cancelled")  # before a power switch was asked
    world.services["cmp01"].update(enabled=True, forced=True, reason="")
    world.migrations, world.now = [], world.now + 120
    run(world)
    assert world.services["cmp01"]["forced"]


@pytest.mark.parametrize("spec", [{"highAvailability": False}, {"highAvailability": True, "maintenance": "manual"}])
def test_no_return_of_a_host_that_somebody_works_on(world, spec):
    lost_and_evacuated(world)
    world.objects["Hypervisor"]["cmp01"]["spec"] = spec
    world.migrations, world.now = [], world.now + 200
    run(world)
    assert world.services["cmp01"]["forced"]


def test_a_drained_host_is_not_put_back(world):
    run(world)
    world.put("Eviction", {"metadata": {"name": "cmp01"}, "spec": {"hypervisor": "cmp01", "cause": "Maintenance"}})
    world.finish("cmp01", "Succeeded")
    world.services["cmp01"].update(enabled=False, reason="c5c3.ha: Eviction cmp01")
    assert not run(world)["changed"] and not world.services["cmp01"]["enabled"]


def test_a_deleted_node_is_told_and_nothing_is_done(world):
    run(world)
    del world.objects["Node"]["cmp01"]
    world.services["cmp01"]["up"] = False
    world.now += 5000
    assert told(run(world)) == [("node-gone", "cmp01", "NodeGone")]
    assert "nodeState" not in world.objects["Hypervisor"]["cmp01"]["status"]
    assert told(run(world)) == [] and not world.writes and not world.objects["Eviction"]


def test_a_node_without_hypervisor_is_told_once_and_a_plain_one_never(world):
    del world.objects["Hypervisor"]["cmp01"]
    world.put("Node", {"metadata": {"name": "ctl01"}})
    world.node("cmp01", "Unknown", -1000)
    world.objects["Node"]["ctl01"]["status"] = {"conditions": []}
    assert told(run(world)) == [("no-hypervisor", "cmp01", "NoHypervisor")]
    assert told(run(world)) == []
    assert not world.objects["Eviction"]


@pytest.mark.parametrize("kind", ["Node", "Hypervisor", "Eviction"])
def test_without_kubernetes_word_nothing_is_decided(world, kind):
    world.broken.add(f"list {kind}")
    with pytest.raises(HaError, match=f"nothing is decided.*cannot list {kind}"):
        run(world)
    assert not world.writes


def test_without_nova_hosts_are_marked_and_none_is_evacuated(world):
    run(world)
    world.broken.add("nova")
    world.node("cmp01", "Unknown", -1000, DiskPressure="True")
    result = run(world)
    assert [one["gate"] for one in result["decisions"] if one["decision"] == "refuse"] == ["second_signal"]
    assert "Nova does not answer" in result["decisions"][-1]["message"]
    assert not world.objects["Eviction"]


def test_on_cobaltcores_schema_it_does_the_same_and_nothing_twice(world):
    world.upstream = True
    run(world)
    assert not run(world)["changed"]
    world.node("cmp01", "Unknown", 0)
    assert told(run(world)) == [("mark", "cmp01", "Unreachable")]
    assert not run(world)["changed"]
    world.now += 60
    assert told(run(world)) == [("evict", "cmp01", "GatesPassed")]
    assert not run(world)["changed"] and not world.writes
    world.node("cmp01", "True", 0)
    assert set(told(run(world))) == {("ready", "cmp01", "Ready"), ("cancel", "cmp01", "Cancelled")}
    assert not run(world)["changed"]


def test_one_hosts_trouble_does_not_keep_the_others_from_it(world):
    world.broken.add("create Event")
    run(world)
    world.broken.add("create Eviction")
    world.node("cmp01", "Unknown", -1000)
    result = run(world)
    assert any("cannot create Eviction" in warning for warning in result["warnings"])
    assert world.objects["Hypervisor"]["cmp01"]["status"]["nodeState"] == "Unreachable"


def test_others_conditions_stay_and_a_conflict_is_read_again(world):
    foreign = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": stamp(NOW)}
    world.objects["Hypervisor"]["cmp01"]["status"] = {"conditions": [foreign], "agent": {"version": "1"}}
    times = itertools.count()

    def heartbeat(kind, name):
        if kind == "Hypervisor" and next(times) < 3:
            hypervisor = world.objects["Hypervisor"][name]
            hypervisor.setdefault("status", {})["agent"] = {"version": "2"}
            world.put("Hypervisor", hypervisor)

    world.meanwhile = heartbeat
    run(world)
    status = world.objects["Hypervisor"]["cmp01"]["status"]
    assert foreign in status["conditions"] and status["agent"] == {"version": "2"} and status["nodeState"] == "Ready"


def test_check_mode_decides_all_that_and_writes_nothing(world):
    run(world)
    world.node("cmp01", "Unknown", -100)
    world.node("cmp02", "True", -9999, DiskPressure="True")
    lost = copy.deepcopy((world.objects, world.services))
    result = run(world, check_mode=True)
    assert result["changed"]
    assert {decision for decision, _host, _reason in told(result)} == {"mark", "evict", "pressure"}
    assert not world.writes and (world.objects, world.services) == lost
    before, after = result["diff"]["before"], result["diff"]["after"]
    assert (before["cmp01"]["eviction"], after["cmp01"]["eviction"]["cause"]) == (None, "NodeUnreachable")
    assert (before["cmp01"]["nodeState"], after["cmp01"]["nodeState"]) == ("Ready", "Unreachable")
    assert (before["cmp02"]["service"]["status"], after["cmp02"]["service"]["status"]) == ("enabled", "disabled")
    assert run(world)["diff"]["after"].keys() == after.keys(), "and it does what it told"


def test_a_line_of_the_log_has_always_the_same_fields(world):
    run(world)
    world.node("cmp01", "Unknown", -100)
    for line in run(world)["decisions"]:
        assert list(line) == ["time", "decision", "host", "reason", "gate", "since", "message"]


def test_a_run_that_was_killed_after_any_write_is_made_up_for(world, monkeypatch):
    """Kill after each of the run's writes in turn; the next run ends in the same state."""
    run(world)
    world.node("cmp01", "Unknown", -100)
    world.node("cmp02", "True", -9999, DiskPressure="True")
    begin = copy.deepcopy((world.objects, world.services))

    def state():
        conditions = {
            (name, kind): world.condition(name, kind)
            for name in world.names
            for kind in ("NodeReady", "NodePressure", "EvacuationAllowed")
        }
        return conditions, sorted(world.objects["Eviction"]), copy.deepcopy(world.services), len(world.objects["Event"])

    run(world)
    total, wanted = len(world.writes), state()
    assert total >= 6

    class Killed(BaseException):
        pass

    for kill_after in range(1, total):
        world.objects, world.services = copy.deepcopy(begin)

        class Writes(list):
            def append(self, item, limit=kill_after):
                if len(self) >= limit:
                    raise Killed
                super().append(item)

        world.writes = Writes()
        with pytest.raises(Killed):
            run(world)
        world.writes = []
        run(world)
        assert state() == wanted, f"killed after write {kill_after}"
