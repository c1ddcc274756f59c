"""The step evict against an API server and a Nova that keep the real ones' rules but live in this process.

They exist to be killed between any two requests, and to do so for every one of them. What they claim of Kubernetes and
Nova is checked on the real parts in tests/integration.
"""

from __future__ import annotations

import copy
import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    ActionFacts,
    MigrationFacts,
    ServerFacts,
    ServiceFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Conflict, NotFound, Unreachable
from ansible_collections.c5c3.ha.plugins.module_utils.nova import NovaConflict, NovaError, NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, is_finished
from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict import claim, look, work

IDS = [f"00000000-0000-4000-8000-{n:012d}" for n in range(1, 9)]


class Killed(BaseException):
    """kill -9 of the step: no handler of the step may see it, so it is no Exception."""


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0
        self.set_back = 0.0
        self.breath = 0.0

    def time(self):
        return self.now - self.set_back

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 0.001)
        if self.breath:
            time.sleep(self.breath)


class World:
    """Kubernetes' and Nova's state, the clock, and the kill after a number of requests."""

    def __init__(self):
        self.clock = Clock()
        self.lock = threading.RLock()
        self.objects: dict = {}
        self.versions = itertools.count(1)
        self.servers: dict[str, dict] = {}
        self.services = {h: {"up": True, "enabled": True, "disabled_reason": ""} for h in ("cmp01", "cmp02", "cmp03")}
        self.kill_after = None
        self.requests = 0
        self.calls: list[tuple] = []
        self.refuse: list = []
        self.room: dict = {}
        self.groups: dict = {}
        self.images: dict = {}
        self.moves: list = []
        self.incoming: list = []

    def request(self, *what):
        with self.lock:
            if self.kill_after is not None and self.requests >= self.kill_after:
                raise Killed
            self.requests += 1
            self.clock.now += 0.01
            self.calls.append(what)

    def put(self, name, spec):
        self.objects[name] = {
            "metadata": {"name": name, "uid": name, "resourceVersion": str(next(self.versions)), "generation": 1},
            "spec": spec,
        }

    def server(self, number, **values):
        base = {"host": "cmp01", "vm_state": "active", "running": True, "task": None, "boots": 1, "history": []}
        self.servers[IDS[number]] = {**base, "name": f"vm{number}", "status": "ACTIVE", **values}
        return self.servers[IDS[number]]

    def crash(self, number):
        self.servers[IDS[number]]["running"] = False

    def settle(self):
        """What Nova has begun comes to its end when its time is over."""
        for vm in self.servers.values():
            if vm["task"] and self.clock.now >= vm["until"]:
                vm["task"] = None
                vm.pop("finish")(vm)


class FakeClient:
    def __init__(self, world):
        self.world = world

    def get(self, resource, name, namespace=None):
        self.world.request("get", resource.plural)
        if resource.plural == "nodes":
            return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        return copy.deepcopy(self.world.objects.get(name)) if resource.plural == "evictions" else None

    def patch(self, resource, name, body, namespace=None, subresource=None, dry_run=False):
        self.world.request("patch", resource.plural)
        with self.world.lock:
            there = self.world.objects.get(name)
            if there is None:
                raise NotFound("gone", 404)
            if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
                raise Conflict("changed", 409)
            there.setdefault("status", {}).update(copy.deepcopy(body["status"]))
            there["status"] = {key: value for key, value in there["status"].items() if value is not None}
            there["metadata"]["resourceVersion"] = str(next(self.world.versions))
            return copy.deepcopy(there)


class FakeNova:
    def __init__(self, world):
        self.world = world

    def _facts(self, uuid):
        vm = self.world.servers[uuid]
        return ServerFacts(
            id=uuid,
            name=vm["name"],
            host=vm["host"],
            status="MIGRATING" if vm["task"] == "migrating" else vm["status"],
            vm_state=vm["vm_state"],
            task_state=vm["task"],
            ram_mb=16,
            vcpus=1,
            changed=vm.get("changed"),
            locked=bool(vm.get("locked")),
            locked_reason=vm.get("locked") or "",
            metadata=vm.get("metadata") or {},
            extra_specs=vm.get("extra_specs") or {},
            image=vm.get("image") or "",
            groups=tuple(vm.get("groups") or ()),
        )

    def server(self, uuid):
        self.world.request("server")
        self.world.settle()
        return self._facts(uuid) if uuid in self.world.servers else None

    def servers_on(self, host):
        self.world.request("servers")
        self.world.settle()
        return [self._facts(uuid) for uuid, vm in self.world.servers.items() if vm["host"] == host]

    def is_running(self, uuid):
        self.world.request("diagnostics")
        self.world.settle()
        return self.world.servers[uuid]["running"]

    def service(self, host):
        self.world.request("service")
        known = self.world.services.get(host)
        return ServiceFacts(id=host, host=host, reported=self.world.clock.now, **known) if known else None

    def services(self, host=None):
        self.world.request("services")
        return [ServiceFacts(id=h, host=h, **s) for h, s in self.world.services.items()]

    def update_service(self, service, **changes):
        self.world.request("update_service")
        self.world.services[service].update(
            enabled=changes["status"] == "enabled", disabled_reason=changes.get("disabled_reason", "")
        )

    def actions(self, uuid):
        self.world.request("actions")
        return list(reversed(self.world.servers[uuid]["history"]))

    def failure_of(self, uuid, request_id):
        self.world.request("failure")
        return "No valid host was found"

    def migrations(self, *, server=None, host=None, since=None):
        self.world.request("migrations")
        vm = self.world.servers.get(server) or {}
        if vm.get("task") == "migrating" and not math.isinf(vm["until"]):
            return [MigrationFacts(id=7, server=server, status="running", kind="live-migration")]
        return list(self.world.incoming) if host else []

    def _begin(self, uuid, action, task, seconds, finish):
        self.world.request(action)
        with self.world.lock:
            vm = self.world.servers[uuid]
            if self.world.refuse:
                raise self.world.refuse.pop(0)
            if vm["task"]:
                raise NovaConflict("task", 409)
            lost = vm.get("lose", 0) > 0 and action in ("live-migration", "migrate")
            vm["lose"] = vm.get("lose", 0) - lost
            until = math.inf if lost else self.world.clock.now + seconds
            vm.update(task=task, until=until, finish=finish, changed=self.world.clock.now)
            vm["history"].append(ActionFacts(action, user_id="operator"))

    def reboot_hard(self, uuid):
        def done(vm):
            vm["boots"] += 1
            works = vm.get("reboots", True)
            vm.update(running=works, vm_state="active" if works else "error", status="ACTIVE" if works else "ERROR")

        self._begin(uuid, "reboot", "reboot_started_hard", 0.6, done)

    def live_migrate(self, uuid, host=None):
        def done(vm):
            if vm.get("migrates", True):
                vm["host"] = "cmp02"
            else:
                vm["history"][-1] = ActionFacts("live-migration", failed=True)

        assert self.world.servers[uuid]["running"], "live migration of a dead guest"
        self._begin(uuid, "live-migration", "migrating", self.world.servers[uuid].get("seconds", 1.5), done)

    def cold_migrate(self, uuid, host=None):
        def done(vm):
            vm.update(host="cmp02", status="VERIFY_RESIZE", before=vm["vm_state"], vm_state="resized")

        self._begin(uuid, "migrate", "resize_prep", 1.0, done)

    def confirm_resize(self, uuid):
        def done(vm):
            stopped = vm["before"] == "stopped"
            vm.update(vm_state=vm["before"], status="SHUTOFF" if stopped else "ACTIVE", running=not stopped)
            vm["boots"] += not stopped

        self._begin(uuid, "confirmResize", "confirming", 0.2, done)

    def lock(self, uuid, reason):
        self.world.request("lock")
        vm = self.world.servers[uuid]
        assert not vm["task"], "a lock in the middle of Nova's own writing"
        vm["locked"] = reason
        vm["history"].append(ActionFacts("lock", user_id="operator"))

    def unlock(self, uuid):
        self.world.request("unlock")
        self.world.servers[uuid]["locked"] = ""
        self.world.servers[uuid]["history"].append(ActionFacts("unlock", user_id="operator"))

    def image_wishes(self, image):
        self.world.request("image")
        return self.world.images.get(image, ({}, ()))

    def free_room(self):
        self.world.request("room")
        return self.world.room

    def group(self, group):
        self.world.request("group")
        return self.world.groups.get(group)

    def moves_under_way(self):
        self.world.request("moves")
        return self.world.moves

    def stop(self, uuid):
        def done(vm):
            vm.update(running=False, vm_state="stopped", status="SHUTOFF")

        self._begin(uuid, "stop", "powering-off", 0.2, done)

    def reset_state(self, uuid, state="active"):
        self.world.request("reset_state")
        self.world.servers[uuid].update(vm_state="active", status="ACTIVE", task=None, finish=lambda vm: None)

    def abort_live_migration(self, uuid, migration):
        self.world.request("abort")
        self.world.servers[uuid].update(until=0.0, finish=lambda vm: None)


def set_clock(world):
    for module in (claim, look, work):
        module.time = world.clock


@pytest.fixture
def world(monkeypatch):
    world = World()
    for module in (claim, look, work):
        monkeypatch.setattr(module, "time", world.clock)
    monkeypatch.setattr(evict.Client, "from_params", classmethod(lambda cls, params, manager: FakeClient(world)))
    monkeypatch.setattr(evict.Nova, "from_params", classmethod(lambda cls, params: FakeNova(world)))
    return world


def run(world, name, check_mode=False, **options):
    params = {key: value.get("default") for key, value in evict.ARGUMENTS["argument_spec"].items()}
    return evict.run({**params, "name": name, **options}, check_mode)


def crashed(world, number=0, occurred="2027-01-15T08:00:00.000001Z", **values):
    vm = world.server(number, running=False, **values)
    spec = {"hypervisor": "cmp01", "reason": "test", "cause": "InstanceStopped", "instances": [IDS[number]]}
    world.put(IDS[number], {**spec, "occurredAt": occurred})
    return vm


def drain(world):
    world.put("cmp01", {"hypervisor": "cmp01", "reason": "test", "cause": "Maintenance"})


def evicting(world, name):
    condition = get_condition(world.objects[name], "Evicting")
    return condition["status"], condition["reason"]


def test_crashed_guest_runs_again_once(world):
    vm = crashed(world)
    result = run(world, IDS[0])
    assert (vm["running"], vm["boots"], evicting(world, IDS[0])) == (True, 2, ("False", "Succeeded"))
    assert [act["act"] for act in result["acts"]] == ["Restart"]
    status = world.objects[IDS[0]]["status"]
    assert status["instances"][0]["message"] == "restarted on cmp01"
    assert "holder" not in status and status["finishedAt"]
    assert run(world, IDS[0])["changed"] is False and vm["boots"] == 2


def test_the_service_is_not_asked_at_each_look_for_one_guest(world):
    """Five guests at once: each request takes Nova from the others' restarts."""
    crashed(world)
    run(world, IDS[0])
    asked = world.calls.count(("service",))
    looked = world.calls.count(("server",))
    assert looked >= 3 and asked == 1, world.calls


def test_check_mode_tells_and_touches_nothing(world):
    vm = crashed(world)
    before = copy.deepcopy(world.objects)
    result = run(world, IDS[0], check_mode=True)
    assert result["changed"] and result["acts"] == [{"act": "Restart", "server": IDS[0]}]
    assert result["diff"]["before"] != result["diff"]["after"]
    assert (vm["boots"], world.objects) == (1, before)
    drain(world)
    world.server(1)
    assert run(world, "cmp01", check_mode=True)["acts"][0] == {"act": "DisableService", "host": "cmp01"}
    assert world.services["cmp01"]["enabled"]


def test_drain_moves_each_by_its_route(world):
    live, stopped, dead = world.server(0), world.server(1, vm_state="stopped", status="SHUTOFF", running=False), None
    dead = world.server(2, running=False)
    drain(world)
    run(world, "cmp01")
    assert evicting(world, "cmp01") == ("False", "Succeeded")
    assert [vm["host"] for vm in (live, stopped, dead)] == ["cmp02"] * 3
    assert (live["boots"], stopped["boots"], dead["boots"]) == (1, 1, 2)
    assert stopped["running"] is False
    assert world.services["cmp01"]["disabled_reason"] == "c5c3.ha: Eviction cmp01"
    routes = {item["id"]: item["route"] for item in world.objects["cmp01"]["status"]["instances"]}
    assert routes == {IDS[0]: "LiveMigrate", IDS[1]: "ColdMigrate", IDS[2]: "LiveMigrate"}


def test_one_that_does_not_move_fails_and_the_others_go_on(world):
    world.server(0, migrates=False)
    world.server(1)
    drain(world)
    run(world, "cmp01")
    assert evicting(world, "cmp01") == ("False", "Failed")
    assert "No valid host" in get_condition(world.objects["cmp01"], "Evicting")["message"]
    assert world.servers[IDS[1]]["host"] == "cmp02"
    counts = world.objects["cmp01"]["status"]["counts"]
    assert counts == {"total": 2, "succeeded": 1, "failed": 1, "skipped": 0}


def test_restart_that_does_not_help_moves_the_guest(world):
    vm = crashed(world, reboots=False)
    run(world, IDS[0])
    assert (vm["host"], vm["running"], evicting(world, IDS[0])[1]) == ("cmp02", True, "Succeeded")
    assert sum(entry.action == "reboot" for entry in vm["history"]) == 2


def test_hung_live_migration_is_aborted_and_tried_again(world):
    vm = world.server(0, seconds=10_000)
    drain(world)
    run(world, "cmp01", attempt_timeout=30.0, move_attempts=2)
    assert ("abort",) in world.calls
    assert vm["host"] == "cmp01" and evicting(world, "cmp01") == ("False", "Failed")


def test_a_refused_abort_leaves_the_attempt_as_it_was_and_is_sent_again(world, monkeypatch):
    refusals, abort = [NovaConflict("it is at something else", 409)], FakeNova.abort_live_migration

    def refuses(self, uuid, migration):
        if refusals:
            raise refusals.pop()
        abort(self, uuid, migration)

    monkeypatch.setattr(FakeNova, "abort_live_migration", refuses)
    vm = world.server(0, seconds=10_000)
    drain(world)
    run(world, "cmp01", attempt_timeout=30.0, move_attempts=1)
    moves = [action for action in vm["history"] if action.action == "live-migration"]
    assert len(moves) == 1 and world.calls.count(("abort",)) == 1
    assert "live migration over 30 s: aborted" in world.objects["cmp01"]["status"]["instances"][0]["message"]


def test_down_service_waits_and_touches_nothing(world):
    vm = crashed(world)
    world.services["cmp01"]["up"] = False
    result = run(world, IDS[0], timeout=20.0)
    assert vm["history"] == [] and "not finished" in result["msg"]
    assert "is down" in get_condition(world.objects[IDS[0]], "Evicting")["message"]
    drain(world)
    world.server(1)
    run(world, "cmp01", timeout=20.0)
    preflight = get_condition(world.objects["cmp01"], "PreflightChecksSucceeded")
    assert (preflight["status"], preflight["reason"]) == ("False", "HypervisorDown")
    assert world.services["cmp01"]["enabled"], "a host that is not drained is not disabled either"


def test_unknown_hypervisor_fails_with_the_remedy(world):
    world.put("cmp77", {"hypervisor": "cmp77", "reason": "typo"})
    run(world, "cmp77")
    condition = get_condition(world.objects["cmp77"], "Evicting")
    assert (condition["status"], condition["reason"]) == ("False", "Failed")
    assert "'cmp77'" in condition["message"] and "openstack compute service list" in condition["message"]


def test_no_target_waits(world):
    world.server(0)
    for host in ("cmp02", "cmp03"):
        world.services[host]["enabled"] = False
    drain(world)
    run(world, "cmp01", timeout=10.0)
    assert get_condition(world.objects["cmp01"], "PreflightChecksSucceeded")["reason"] == "NoTarget"


def test_deadline_ends_it_with_what_was_last(world):
    crashed(world)
    world.services["cmp01"]["up"] = False
    run(world, IDS[0], deadline=30.0)
    assert evicting(world, IDS[0]) == ("False", "Failed")
    assert "is down" in world.objects[IDS[0]]["status"]["instances"][0]["message"]


def test_guest_that_dies_again_while_in_work_is_restarted_again(world):
    vm = crashed(world)
    original = FakeClient.patch
    fired = []

    def dies_before_the_end(self, resource, name, body, **kwargs):
        evicting_ = [c for c in body["status"].get("conditions", []) if c["type"] == "Evicting"]
        if evicting_ and evicting_[0]["status"] == "False" and not fired:
            fired.append(True)
            world.crash(0)
            there = world.objects[name]
            there["spec"]["occurredAt"] = "2027-01-15T09:00:00.000001Z"
            there["metadata"]["resourceVersion"] = str(next(world.versions))
        return original(self, resource, name, body, **kwargs)

    FakeClient.patch = dies_before_the_end
    try:
        run(world, IDS[0])
    finally:
        FakeClient.patch = original
    assert (vm["running"], vm["boots"]) == (True, 3)
    assert world.objects[IDS[0]]["status"]["observedOccurredAt"] == "2027-01-15T09:00:00.000001Z"


@pytest.mark.parametrize("error", [NovaUnavailable("away"), NovaError("no", 403), NovaConflict("busy", 409)])
def test_refusals_of_nova_are_tried_again(world, error):
    vm = crashed(world)
    world.refuse = [error]
    run(world, IDS[0])
    assert (vm["running"], vm["boots"], evicting(world, IDS[0])[1]) == (True, 2, "Succeeded")


def test_deleted_eviction_stops_the_work(world):
    crashed(world, reboots=False)
    world.kill_after = None
    original = FakeNova.reboot_hard

    def delete(self, uuid):
        original(self, uuid)
        world.objects.clear()

    FakeNova.reboot_hard = delete
    try:
        result = run(world, IDS[0])
    finally:
        FakeNova.reboot_hard = original
    assert "deleted" in result["msg"] and world.servers[IDS[0]]["host"] == "cmp01"


def scenario(world, kind):
    if kind == "crash":
        crashed(world)
        return IDS[0]
    if kind == "stubborn":
        crashed(world, reboots=False)
        return IDS[0]
    world.server(0)
    world.server(1, vm_state="stopped", status="SHUTOFF", running=False)
    world.server(2, running=False)
    drain(world)
    return "cmp01"


def check(world, kind):
    assert not any(vm.get("locked") for vm in world.servers.values()), "every lock is given back"
    name = "cmp01" if kind == "drain" else IDS[0]
    assert evicting(world, name) == ("False", "Succeeded")
    if kind == "crash":
        assert world.servers[IDS[0]]["boots"] == 2, "restarted exactly once"
    elif kind == "stubborn":
        assert (world.servers[IDS[0]]["host"], world.servers[IDS[0]]["running"]) == ("cmp02", True)
    else:
        assert [world.servers[IDS[n]]["host"] for n in range(3)] == ["cmp02"] * 3
        assert [world.servers[IDS[n]]["boots"] for n in range(3)] == [1, 1, 2], "nothing is restarted but the dead one"


@pytest.mark.parametrize("kind", ["crash", "stubborn", "drain"])
def test_killed_at_every_request(world, kind):
    """Enumerated: killed after 0, 1, 2, ... requests and started again, until it comes through unharmed."""
    for kill_after in itertools.count():
        assert kill_after < 2000
        fresh = World()
        world.__dict__.update(fresh.__dict__)
        set_clock(world)
        name = scenario(world, kind)
        world.kill_after = kill_after
        try:
            run(world, name)
            whole = True
        except Killed:
            whole = False
        world.kill_after = None
        run(world, name)
        check(world, kind)
        if whole:
            break
    assert kill_after > 10


def test_a_drain_whose_messages_die_with_the_conductor_moves_everybody_all_the_same(world):
    """Nova knows nothing of them but their tasks; what was stopped arrives stopped, nobody boots."""
    running, stopped = world.server(0, lose=2), world.server(
        1, vm_state="stopped", status="SHUTOFF", running=False, lose=1
    )
    drain(world)
    acts = [act["act"] for act in run(world, "cmp01")["acts"] if act.get("server")]
    assert evicting(world, "cmp01") == ("False", "Succeeded")
    for vm, state, runs in ((running, "active", True), (stopped, "stopped", False)):
        assert (vm["host"], vm["vm_state"], vm["running"], vm["boots"]) == ("cmp02", state, runs, 1)
        assert not vm["locked"]
    assert acts.count("ResetState") == 3 and acts.count("Stop") == 1


class Line:
    """The network between the step and its two servers: one of the requests fails.

    :param fault: ``refused``: the request does not arrive; ``lost``: it is done and its answer is lost; ``away``: it and the
        next ones do not arrive, as when the server is started anew.
    """

    def __init__(self, number: int, fault: str):
        self.number, self.fault = number, fault
        self.count = itertools.count()
        self.failed = False

    def between(self, monkeypatch, server, client, nova):
        """Have the step ask `server` (kubernetes or nova) through this line, and the other one directly."""
        if server == "kubernetes":
            client = self.through(client, Unreachable)
        else:
            nova = self.through(nova, NovaUnavailable)
        monkeypatch.setattr(evict.Client, "from_params", classmethod(lambda cls, params, manager: client))
        monkeypatch.setattr(evict.Nova, "from_params", classmethod(lambda cls, params: nova))

    def through(self, target, error):
        line = self

        class Proxy:
            def __getattr__(self, name):
                call = getattr(target, name)

                def asked(*args, **kwargs):
                    number = next(line.count)
                    if number < line.number or number >= line.number + (4 if line.fault == "away" else 1):
                        return call(*args, **kwargs)
                    line.failed = True
                    if name == "image_wishes":
                        return {}, ()  # nova.py: no answer is no wish
                    if line.fault == "lost":
                        call(*args, **kwargs)
                    raise error("no answer")

                return asked

        return Proxy()


@pytest.mark.parametrize("fault", ["refused", "lost", "away"])
@pytest.mark.parametrize("server", ["kubernetes", "nova"])
@pytest.mark.parametrize("kind", ["crash", "stubborn", "drain"])
def test_a_server_fails_at_every_request(world, monkeypatch, kind, server, fault):
    """Enumerated: the API server, or Nova, does not answer the request 0, 1, 2, ...; the step is called again."""
    for number in itertools.count():
        assert number < 2000
        fresh = World()
        world.__dict__.update(fresh.__dict__)
        set_clock(world)
        line = Line(number, fault)
        line.between(monkeypatch, server, FakeClient(world), FakeNova(world))
        name = scenario(world, kind)
        for _call in range(10):
            try:
                run(world, name)
                break
            except Unreachable:
                world.clock.now += 10.0  # the source tells it again
        check(world, kind)
        if not line.failed:
            break
    assert number > 4


@pytest.mark.parametrize("kind", ["crash", "drain"])
def test_two_steps_at_once_act_once(world, kind):
    name = scenario(world, kind)
    # Else one that waits makes the other's claim old while that is only waiting for the processor.
    world.clock.breath = 0.02
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, world, name) for _ in range(2)]:
            future.result(timeout=60)
    check(world, kind)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0),
        ("max_parallel", 0),
        ("restart_attempts", -1),
        ("claim_ttl", 0),
        ("backoff", -1),
        ("name", "../x"),
    ],
)
def test_bad_options_are_named(world, option, value):
    crashed(world)
    with pytest.raises(ArgumentError) as caught:
        run(world, **{"name": IDS[0], option: value})
    assert option in str(caught.value) and str(value) in str(caught.value)
    assert world.calls == []


def test_finished_helper_agrees(world):
    crashed(world)
    run(world, IDS[0])
    assert is_finished(world.objects[IDS[0]])
