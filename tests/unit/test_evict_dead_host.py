"""The step evict and a host that died: proven off, forced down, evacuated; killed after every single request of it."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils import fencing
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.eviction_status import stamp
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    ActionFacts,
    MigrationFacts,
    ServiceFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Unreachable
from ansible_collections.c5c3.ha.plugins.module_utils.nova import NovaConflict, NovaError, NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, set_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict, gate_facts
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict import claim, host, work
from tests.unit.test_evict_step import IDS, FakeClient, FakeNova, Killed, Line, World, evicting

HOSTS = ("cmp01", "cmp02", "cmp03")
CLOCKED = (claim, host, work, gate_facts)


class Site(World):
    """A World whose hosts have a power switch, and where every guest that runs twice is counted."""

    def __init__(self):
        super().__init__()
        self.ready = dict.fromkeys(HOSTS, True)
        self.ready_since: dict[str, str] = {}
        self.power = dict.fromkeys(HOSTS, "on")
        self.agent = "fence_redfish"
        self.fence_results: list = []
        self.records: list[dict] = []
        self.doubled: list[str] = []
        self.asked_twice: list[str] = []
        self.unproven: list[str] = []
        self.fenced: list[str] = []
        self.no_host: set[str] = set()
        self.disks = True
        self.rolled_back: set[str] = set()
        """Migrations whose allocation was given back to the server."""
        self.gap = 0.3
        self.alone: set[str] = set()
        """Servers whose evacuation nobody works on: the message was lost."""

    def server(self, number, **values):
        return super().server(number, **{"image": "0f0f0f0f-0000-4000-8000-000000000000", **values})

    def die(self, name="cmp01", power="off"):
        self.ready[name] = False
        self.services[name]["up"] = False
        self.power[name] = power

    def evict(self, cause="NodeUnreachable"):
        self.put("cmp01", {"hypervisor": "cmp01", "reason": "test", "cause": cause})
        self.objects["cmp01"]["metadata"]["creationTimestamp"] = "2027-01-15T08:00:00Z"

    def settle(self):
        super().settle()
        for uuid, vm in self.servers.items():
            if "landing" in vm and self.clock.now >= vm["landing"]:
                del vm["landing"]
                self.land(uuid, vm)

    def land(self, uuid, vm):
        vm["host"] = vm["to"]
        vm["record"].update(status="done", changed=self.clock.now)


class SiteClient(FakeClient):
    def _objects(self, plural):
        world = self.world
        if plural == "nodes":
            return [
                {
                    "metadata": {"name": name},
                    "status": {
                        "conditions": [
                            {
                                "type": "Ready",
                                "status": "True" if ready else "Unknown",
                                "lastTransitionTime": world.ready_since.get(name),
                            }
                        ]
                    },
                }
                for name, ready in world.ready.items()
            ]
        if plural == "hypervisors":
            spec = {"fencing": {"agent": world.agent}}
            return [{"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec} for name in HOSTS]
        return list(world.objects.values())

    def get(self, resource, name, namespace=None):
        if resource.plural == "evictions":
            return super().get(resource, name)
        self.world.request("get", resource.plural)
        return next((item for item in self._objects(resource.plural) if item["metadata"]["name"] == name), None)

    def list(self, resource, namespace=None, project=lambda item: item, **_more):
        self.world.request("list", resource.plural)
        return [project(item) for item in self._objects(resource.plural)]

    def patch(self, resource, name, body, **more):
        if resource.plural != "evictions":
            self.world.request("patch", resource.plural)
            return body
        return super().patch(resource, name, body, **more)


class SiteNova(FakeNova):
    def services(self, host=None, binary="nova-compute"):
        if binary != "nova-compute":
            self.world.request("schedulers")
            return [ServiceFacts(id="s", host="control", up=True, enabled=True)]
        return super().services(host)

    def hosts_with_room(self, vcpus, ram_mb):
        self.world.request("room")
        return frozenset(HOSTS)

    def is_running(self, uuid):
        host = self.world.servers[uuid]["host"]
        assert self.world.services[host]["up"] or self.world.power[host] == "on", "asked a dead host"
        return super().is_running(uuid)

    def update_service(self, service, **changes):
        self.world.request("update_service", *changes)
        mine = self.world.services[service]
        if "status" in changes:
            mine.update(enabled=changes["status"] == "enabled", disabled_reason=changes.get("disabled_reason", ""))
        if changes.get("forced_down"):
            mine.update(forced_down=True, up=False)

    def migrations(self, *, server=None, host=None, since=None):
        self.world.request("migrations")
        self.world.settle()
        return [
            MigrationFacts(**each)
            for each in reversed(self.world.records)
            if server in (None, each["server"]) and host in (None, each["source"], each["target"])
        ]

    def evacuate(self, uuid, host=None, only_with_disk=False):
        world, vm = self.world, self.world.servers[uuid]
        self.world.request("evacuate")
        with world.lock:
            if world.refuse:
                raise world.refuse.pop(0)
            assert not world.services[vm["host"]]["up"], "Nova refuses to evacuate a host that is up"
            if vm["vm_state"] not in ("active", "stopped", "error"):
                raise NovaConflict(f"Cannot 'evacuate' instance while it is in vm_state {vm['vm_state']}", 409)
            if any(
                each["server"] == uuid and each["status"] in ("accepted", "pre-migrating") for each in world.records
            ):
                world.asked_twice.append(uuid)
            if world.power[vm["host"]] == "on":
                world.unproven.append(uuid)
            record = {"id": len(world.records) + 1, "server": uuid, "kind": "evacuation", "status": "accepted"}
            record.update(source=vm["host"], target="", changed=world.clock.now)
            world.records.append(record)
            vm.update(
                task="rebuilding", until=world.clock.now + 1.5, record=record, to=host or "cmp02", was=vm["vm_state"]
            )
            vm["finish"] = lambda vm: self._rebuilt(uuid, vm, only_with_disk)
            halves = {each["uuid"] for each in world.records if each["kind"] == "live-migration"} - world.rolled_back
            if uuid in world.alone or (host and halves):
                vm["until"] = float("inf")  # the conductor ends in a KeyError and tells nobody

    def take_back_allocation(self, server, migration):
        self.world.request("take back")
        self.world.rolled_back.add(migration)
        return True

    def _rebuilt(self, uuid, vm, only_with_disk):
        world = self.world
        if uuid in world.no_host or (only_with_disk and not world.disks):
            vm["record"].update(status="error", changed=world.clock.now)
            why = (
                "No valid host was found"
                if uuid in world.no_host
                else "Invalid state of instance files on shared storage"
            )
            vm.update(vm_state="error", status="ERROR", why=why)
            return
        if vm["running"] and world.power[vm["host"]] == "on":
            world.doubled.append(uuid)
        stays = vm["was"] == "stopped"
        vm.update(vm_state="stopped" if stays else "active", status="SHUTOFF" if stays else "ACTIVE", running=not stays)
        vm["boots"] += not stays
        vm["record"].update(status="pre-migrating", target=vm["to"], changed=world.clock.now)
        vm["landing"] = world.clock.now + world.gap

    def actions(self, uuid):
        self.world.request("actions")
        return [ActionFacts("evacuate", failed=self.world.servers[uuid]["vm_state"] == "error")]

    def failure_of(self, uuid, request_id):
        self.world.request("failure")
        return self.world.servers[uuid].get("why", "")


@pytest.fixture
def new_site(monkeypatch):
    """A function that makes a fresh site which the step sees from then on."""
    made: list[Site] = []
    monkeypatch.setattr(evict.Client, "from_params", classmethod(lambda cls, params, manager: SiteClient(made[-1])))
    monkeypatch.setattr(evict.Nova, "from_params", classmethod(lambda cls, params: SiteNova(made[-1])))

    def switch_off(client, hypervisor, deadline, namespace="", confirm_seconds=2.0):
        name, site = hypervisor["metadata"]["name"], made[-1]
        site.request("fence")
        site.fenced.append(name)
        if site.fence_results:
            return site.fence_results.pop(0)
        if site.agent == "none":
            return fencing.FenceResult(False, "NoFencing", f"{name} has no fencing")
        was, site.power[name] = site.power[name], "off"
        return fencing.FenceResult(True, "Off" if was == "on" else "AlreadyOff", f"{name} is off", 1.0, "off")

    def status(target, deadline):
        made[-1].request("fence status")
        power = made[-1].power[target]
        return fencing.FenceResult(power == "off", power.capitalize(), f"{target} is {power}", 0.1, power)

    monkeypatch.setattr(fencing, "fence_hypervisor", switch_off)
    monkeypatch.setattr(fencing, "read_target", lambda client, hypervisor, namespace="": hypervisor["metadata"]["name"])
    monkeypatch.setattr(fencing, "fence_status", status)

    def make() -> Site:
        made.append(Site())
        for module in CLOCKED:
            monkeypatch.setattr(module, "time", made[-1].clock)
        return made[-1]

    return make


@pytest.fixture
def site(new_site):
    return new_site()


def run(name="cmp01", check_mode=False, **options):
    params = {key: value.get("default") for key, value in evict.ARGUMENTS["argument_spec"].items()}
    return evict.run({**params, "name": name, **options}, check_mode)


def condition(site, kind):
    return get_condition(site.objects["cmp01"], kind) or {}


def entries(site):
    return {item["id"]: item for item in site.objects["cmp01"]["status"]["instances"]}


def harmless(site):
    """What must hold whatever happened."""
    assert site.doubled == [] and site.asked_twice == [] and site.unproven == []


def dead(site, **options):
    """Three servers of a host that died: running, stopped, in ERROR."""
    site.server(0)
    site.server(1, vm_state="stopped", status="SHUTOFF", running=False)
    site.server(2, vm_state="error", status="ERROR")
    site.die(**options)
    site.evict()


def cut_off(site):
    record = {"id": 1, "server": IDS[0], "kind": "live-migration", "status": "running", "source": "cmp01", "uuid": "m1"}
    site.records.append({**record, "target": "cmp03", "changed": site.clock.now - 100})


def arrived(site):
    assert evicting(site, "cmp01") == ("False", "Succeeded")
    assert [site.servers[IDS[n]]["host"] for n in range(3)] == ["cmp02"] * 3
    assert [site.servers[IDS[n]]["running"] for n in range(3)] == [True, False, True]
    assert [site.servers[IDS[n]]["boots"] for n in range(3)] == [2, 1, 2], "each started once, the stopped one never"
    harmless(site)


def test_a_dead_host_is_fenced_forced_down_disabled_and_evacuated_in_this_order(site):
    dead(site, power="on")
    result = run()
    arrived(site)
    acts = [act["act"] for act in result["acts"]]
    assert acts[:3] == ["Fence", "ForceDown", "DisableService"] and acts[3:] == ["Evacuate"] * 3
    assert (site.power["cmp01"], site.fenced) == ("off", ["cmp01"])
    service = site.services["cmp01"]
    assert (service["forced_down"], service["enabled"]) == (True, False)
    assert service["disabled_reason"] == "c5c3.ha: Eviction cmp01"
    fenced = condition(site, "Fenced")
    assert (fenced["status"], fenced["reason"]) == ("True", "Off")
    assert site.objects["cmp01"]["status"]["fencing"]["provenAt"]
    assert {item["route"] for item in entries(site).values()} == {"Evacuate"}
    assert entries(site)[IDS[1]]["vmState"] == "stopped"
    assert entries(site)[IDS[0]]["message"] == "evacuated to cmp02"
    assert run()["changed"] is False


def test_check_mode_says_fence_and_touches_nothing(site):
    dead(site, power="on")
    assert run(check_mode=True)["acts"] == [{"act": "Fence", "host": "cmp01"}]
    assert (site.power["cmp01"], site.fenced) == ("on", [])


def test_recovery_before_the_act_cancels(site):
    dead(site)
    site.ready["cmp01"] = True
    run()
    assert evicting(site, "cmp01") == ("False", "Cancelled")
    assert "Ready again" in condition(site, "Evicting")["message"]
    assert (site.fenced, site.services["cmp01"]["enabled"], condition(site, "Fenced")) == ([], True, {})
    assert condition(site, "PreflightChecksSucceeded") == {}, "no gate was asked"


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda site: site.services["cmp01"].update(up=True), "ServiceUp"),
        (lambda site: (site.die("cmp02"), site.die("cmp03")), "Isolated"),
        (lambda site: site.ready.pop("cmp01"), "NodeGone"),
    ],
)
def test_a_gate_that_refuses_is_told_and_nothing_is_done(site, break_it, reason):
    dead(site, power="on")
    break_it(site)
    result = run(timeout=20.0)
    preflight = condition(site, "PreflightChecksSucceeded")
    assert (preflight["status"], preflight["reason"]) == ("False", reason)
    assert "not finished" in result["msg"] and evicting(site, "cmp01")[0] == "True"
    assert (site.fenced, site.power["cmp01"]) == ([], "on")
    assert "forced_down" not in site.services["cmp01"]


@pytest.mark.parametrize("reason", ["Unreachable", "StaysOn", "WrongSystem", "AuthenticationFailed", "Timeout"])
def test_a_host_that_is_not_proven_off_is_not_evacuated(site, reason):
    dead(site, power="on")
    site.fence_results = [fencing.FenceResult(False, reason, f"it is {reason}")] * 1000
    run(timeout=300.0, deadline=200.0)
    fenced = condition(site, "Fenced")
    assert (fenced["status"], fenced["reason"]) == ("False", reason)
    assert evicting(site, "cmp01") == ("False", "Failed")
    assert f"cmp01 is not proven off (it is {reason})" in condition(site, "Evicting")["message"]
    assert ("evacuate",) not in site.calls and site.services["cmp01"]["enabled"]
    most = 4 if reason in ("WrongSystem", "AuthenticationFailed") else 8
    assert 2 <= len(site.fenced) <= most, "tried again, with a pause: a wrong password too often locks the account"


def test_a_fence_that_fails_first_is_tried_again(site):
    dead(site, power="on")
    site.fence_results = [fencing.FenceResult(False, "Unreachable", "no answer")]
    run()
    arrived(site)


def test_no_fencing_evacuates_only_by_consent_and_says_what_is_risked(site):
    dead(site)
    site.agent = "none"
    run(timeout=20.0)
    assert condition(site, "Fenced")["reason"] == "NoFencing" and ("evacuate",) not in site.calls
    site.clock.now += 100
    run(unfenced_evacuation=True)
    fenced = condition(site, "Fenced")
    assert (fenced["status"], fenced["reason"]) == ("False", "UnfencedByConsent")
    assert "runs twice" in fenced["message"]
    arrived(site)


def test_consent_says_nothing_about_a_switch_that_fails(site):
    dead(site, power="on")
    site.fence_results = [fencing.FenceResult(False, "Unreachable", "no answer")] * 1000
    run(timeout=60.0, unfenced_evacuation=True)
    assert condition(site, "Fenced")["reason"] == "Unreachable" and ("evacuate",) not in site.calls


def test_an_old_proof_is_renewed_before_more_is_evacuated(site):
    dead(site)
    site.no_host = {IDS[0]}
    run(backoff=40.0, move_attempts=2)
    assert len(site.fenced) > 1, "the second attempt came 40 s after the proof"
    harmless(site)


def test_a_host_that_somebody_switched_on_meanwhile_goes_off_again(site):
    dead(site)
    site.no_host = {IDS[0]}
    original = site.settle

    def powered_on():
        original()
        if site.servers[IDS[0]]["vm_state"] == "error":
            site.power["cmp01"] = "on"
            site.settle = original

    site.settle = powered_on
    run(backoff=40.0, move_attempts=2)
    assert site.power["cmp01"] == "off"
    harmless(site)


def test_a_host_that_came_back_keeps_what_was_not_evacuated(site):
    dead(site)
    site.no_host = {IDS[0]}
    original = site.settle

    def back():
        original()
        if site.servers[IDS[0]]["vm_state"] == "error":
            site.power["cmp01"], site.ready["cmp01"] = "on", True
            site.settle = original

    site.settle = back
    run(backoff=40.0, move_attempts=2)
    assert site.power["cmp01"] == "on", "a host that works is not switched off"
    assert entries(site)[IDS[0]]["phase"] == "Skipped" and "came back" in entries(site)[IDS[0]]["message"]
    assert entries(site)[IDS[1]]["phase"] == "Succeeded"
    harmless(site)


@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_a_node_that_became_ready_after_the_proof_makes_it_void(site, seconds):
    """However young the proof is. A Node that is Ready since before it may be one whose end nobody has noticed yet."""
    dead(site, power="on")
    site.no_host = {IDS[0]}
    original = site.settle

    def back():
        original()
        if site.servers[IDS[0]]["vm_state"] == "error":
            site.power["cmp01"], site.ready["cmp01"] = "on", True
            site.ready_since["cmp01"] = stamp(site.clock.now)
            site.no_host = set()
            site.settle = original

    site.settle = back
    run(backoff=seconds)
    assert site.power["cmp01"] == "on" and site.servers[IDS[0]]["host"] == "cmp01"
    assert entries(site)[IDS[0]]["phase"] == "Skipped" and "came back" in entries(site)[IDS[0]]["message"]
    harmless(site)


def test_a_node_whose_end_is_not_noticed_yet_does_not_make_a_young_proof_void(site):
    """It was heard a last time right before it was switched off."""
    dead(site)
    original = site.request

    def request(*what):
        original(*what)
        if what == ("fence",):
            site.ready["cmp01"], site.ready_since["cmp01"] = True, stamp(site.clock.now - 1)

    site.request = request
    run()
    arrived(site)
    assert ("fence status",) not in site.calls
    harmless(site)


def killed_before_the_command(site):
    """The step is killed right after it has written what it is about to do."""
    dead(site, power="on")
    for kill_after in itertools.count():
        site.kill_after, site.requests = kill_after, 0
        with contextlib.suppress(Killed):
            run()
        if condition(site, "Fenced"):
            break
    assert site.fenced == [] and condition(site, "Fenced")["reason"] == "Fencing"
    site.kill_after = None
    site.ready["cmp01"], site.services["cmp01"]["up"] = True, True


def test_ready_again_after_a_command_may_be_on_its_way_looks_before_it_leaves_it(site):
    killed_before_the_command(site)
    run(timeout=200.0)
    assert ("fence status",) in site.calls
    assert evicting(site, "cmp01") == ("False", "Cancelled") and site.power["cmp01"] == "on"


def test_a_command_that_a_killed_step_left_behind_takes_effect_late(site):
    killed_before_the_command(site)
    late, original = site.clock.now + 40, site.request

    def request(*what):
        if site.clock.now >= late and site.power["cmp01"] == "on":
            site.power["cmp01"], site.services["cmp01"]["up"] = "off", False
            site.servers[IDS[0]]["running"] = False
        original(*what)

    site.request = request
    run(timeout=200.0)
    arrived(site)


def test_no_host_for_a_stopped_one_does_not_start_it(site):
    dead(site)
    site.no_host = {IDS[1]}
    original = site.settle

    def room_again():
        original()
        if site.servers[IDS[1]]["vm_state"] == "error":
            site.no_host.clear()

    site.settle = room_again
    run()
    vm = site.servers[IDS[1]]
    assert (vm["host"], vm["running"], vm["vm_state"]) == ("cmp02", False, "stopped")
    assert entries(site)[IDS[1]]["message"] == "evacuated to cmp02, stopped as it was"


def test_a_record_that_a_host_which_came_back_has_ended_does_not_hold_its_server(site):
    """Its nova-compute completes records of evacuations that never were."""
    dead(site)
    original = site.settle

    def ended():
        original()
        if site.records and site.records[0]["status"] == "accepted":
            site.records[0].update(status="completed", changed=site.clock.now)
            site.settle = original

    site.alone, site.settle = set(IDS[:3]), ended
    run(timeout=100.0)
    assert max(entry.get("attempts", 0) for entry in entries(site).values()) > 1


def test_a_server_whose_evacuation_was_lost_runs_again_on_its_host_that_came_back(site):
    """The message died with the broker, and the host's nova-compute undefines the guest as it starts."""
    site.server(0)
    site.server(1)
    site.die(power="on")
    site.evict()
    original, site.alone = site.settle, {IDS[0]}
    site.servers[IDS[0]]["boots"], site.servers[IDS[0]]["running"] = 1, False

    def back():
        original()
        if site.records and site.servers[IDS[1]]["host"] == "cmp02":
            site.power["cmp01"], site.ready["cmp01"] = "on", True
            site.ready_since["cmp01"] = stamp(site.clock.now)
            mine = next(record for record in site.records if record["server"] == IDS[0])
            mine.update(status="completed", changed=site.clock.now)
            site.settle = original

    site.settle = back
    run(timeout=400.0)
    assert evicting(site, "cmp01") == ("False", "Succeeded"), condition(site, "Evicting")
    assert (site.servers[IDS[0]]["host"], site.servers[IDS[0]]["running"]) == ("cmp01", True)
    assert "it runs there" in entries(site)[IDS[0]]["message"]
    assert site.servers[IDS[0]]["boots"] == 2 and site.power["cmp01"] == "on"
    harmless(site)


def test_one_without_a_host_fails_and_the_others_go_on(site):
    dead(site)
    site.no_host = {IDS[0]}
    run()
    assert evicting(site, "cmp01") == ("False", "Failed")
    assert "No valid host" in entries(site)[IDS[0]]["message"]
    assert site.servers[IDS[1]]["host"] == site.servers[IDS[2]]["host"] == "cmp02"
    harmless(site)


def test_a_disk_that_no_other_host_sees_is_not_made_anew(site):
    dead(site)
    site.disks = False
    run()
    assert evicting(site, "cmp01") == ("False", "Failed")
    assert "evacuate_from_image" in entries(site)[IDS[0]]["message"]
    assert site.servers[IDS[0]]["boots"] == 1
    site.evict()
    run(evacuate_from_image=True)
    assert site.servers[IDS[0]]["host"] == "cmp02"


@pytest.mark.parametrize("state", ["suspended", "rescued", "resized", "shelved", "building"])
def test_what_nova_does_not_evacuate_is_told_with_the_remedy(site, state):
    site.server(0, vm_state=state, status=state.upper())
    site.server(1)
    site.die()
    site.evict()
    run()
    assert evicting(site, "cmp01") == ("False", "Failed")
    assert entries(site)[IDS[0]]["message"].startswith("not evacuated: ")
    assert site.servers[IDS[1]]["host"] == "cmp02" and site.servers[IDS[0]]["host"] == "cmp01"


def test_a_paused_one_boots_elsewhere(site):
    site.server(0, vm_state="paused", status="PAUSED")
    site.die()
    site.evict()
    run()
    assert (site.servers[IDS[0]]["host"], site.servers[IDS[0]]["running"]) == ("cmp02", True)


@pytest.mark.parametrize("task", ["powering-off", "reboot_started_hard", "migrating", "image_snapshot", "resize_prep"])
def test_a_task_that_died_with_the_host_does_not_hold_it(site, task):
    site.server(0, task=task, until=float("inf"), finish=lambda vm: None)
    site.die()
    site.evict()
    run()
    assert site.servers[IDS[0]]["host"] == "cmp02"
    harmless(site)


@pytest.mark.parametrize("task", ["resize_migrating", "resize_migrated", "resize_finish"])
def test_a_disk_that_is_half_copied_is_left_alone(site, task):
    site.server(0, task=task, until=float("inf"), finish=lambda vm: None)
    site.die()
    site.evict()
    run()
    assert site.servers[IDS[0]]["host"] == "cmp01" and ("evacuate",) not in site.calls
    assert task in entries(site)[IDS[0]]["message"]


def test_a_migration_that_the_death_cut_off_is_ended_where_it_went(site):
    site.server(0, task="migrating", until=float("inf"), finish=lambda vm: None)
    cut_off(site)
    site.die()
    site.evict()
    run()
    assert site.servers[IDS[0]]["host"] == "cmp03", "only there Nova can tell whether the guest went on"
    assert "to cmp03" in str(site.objects["cmp01"]["status"]) and ("evacuate",) in site.calls


def test_a_migration_whose_target_is_away_too_waits_for_it(site):
    site.server(0, task="migrating", until=float("inf"), finish=lambda vm: None)
    cut_off(site)
    site.die()
    site.evict()
    site.services["cmp04"] = {"up": True, "enabled": True, "disabled_reason": ""}
    site.services["cmp03"]["up"] = False
    run(timeout=30.0)
    assert ("evacuate",) not in site.calls and "cmp03, which is down" in entries(site)[IDS[0]]["message"]
    site.services["cmp03"]["forced_down"] = True
    run()
    assert site.servers[IDS[0]]["host"] == "cmp02"


def test_while_no_other_hypervisor_is_up_no_attempt_is_spent(site, monkeypatch):
    """A broker that goes when the work has begun takes all of them down for Nova; three refusals then were the end, Failed."""
    site.server(0)
    site.die()
    site.evict()
    ask = site.request

    def lose_the_broker(*call):
        if call[0] == "update_service":
            for name in ("cmp02", "cmp03"):
                site.services[name]["up"] = False
        return ask(*call)

    with monkeypatch.context() as patch:
        patch.setattr(site, "request", lose_the_broker)
        run(timeout=120.0)
    waiting = entries(site)[IDS[0]]
    assert ("evacuate",) not in site.calls and (waiting["phase"], waiting["attempts"]) == ("Pending", 0)
    assert "no other hypervisor is up for Nova (cmp02 is down, cmp03 is down)" in waiting["message"]
    site.services["cmp03"]["up"] = True
    run()
    done = entries(site)[IDS[0]]
    assert (done["phase"], done["attempts"]) == ("Succeeded", 1)


def left_at(site, later, reason="Off"):
    """An evacuation that was building the guest on cmp03 when that died, too, and was proven off so much later."""
    site.server(0, task="rebuild_spawning", until=float("inf"), finish=lambda vm: None)
    changed = site.clock.now - 40
    record = {"id": 1, "server": IDS[0], "kind": "evacuation", "status": "pre-migrating", "uuid": "m1"}
    site.records.append({**record, "source": "cmp01", "target": "cmp03", "changed": changed})
    site.put("cmp03", {"hypervisor": "cmp03", "reason": "test", "cause": "NodeUnreachable"})
    site.objects["cmp03"]["status"] = {
        "conditions": set_condition([], "Fenced", "True", reason),
        "fencing": {"attempts": 1, "provenAt": stamp(changed + later)},
    }
    site.die()
    site.evict()


def test_what_was_left_at_a_target_that_was_proven_off_since_is_evacuated_anew_at_once(site):
    left_at(site, later=11)
    began = site.clock.now
    run()
    assert site.servers[IDS[0]]["host"] == "cmp02" and evicting(site, "cmp01") == ("False", "Succeeded")
    assert site.clock.now - began < 60 and site.doubled == []


@pytest.mark.parametrize("back", [False, True])
def test_the_proof_of_a_former_target_says_nothing_of_the_present_one(site, back):
    """A live migration to cmp02 was cut off, that was proven off, and an evacuation was building the guest on cmp03."""
    left_at(site, later=-30)
    moving = {"id": 0, "server": IDS[0], "kind": "live-migration", "status": "running", "uuid": "m0"}
    site.records.insert(0, {**moving, "source": "cmp01", "target": "cmp02", "changed": site.clock.now - 300})
    site.put("cmp02", {"hypervisor": "cmp02", "reason": "test", "cause": "NodeUnreachable"})
    site.objects["cmp02"]["status"] = {
        "conditions": set_condition([], "Fenced", "True", "Off"),
        "fencing": {"attempts": 1, "provenAt": stamp(site.clock.now - 100)},
    }
    if back:
        back_after_fencing(site)
    run(attempt_timeout=60.0)
    if back:
        assert site.servers[IDS[0]]["running"] is False
        assert "look where it runs" in entries(site)[IDS[0]]["message"]
    else:
        assert site.servers[IDS[0]]["host"] == "cmp03", "where a guest of it may run"


UNPROVEN = [{"later": 9}, {"later": -30}, {"later": 30, "reason": "UnfencedByConsent"}]


@pytest.mark.parametrize("proof", UNPROVEN)
def test_what_was_left_at_a_target_without_such_a_proof_is_waited_for(site, proof):
    """By the clocks of two machines, before the record, or by consent alone."""
    left_at(site, **proof)
    run(timeout=30.0)
    assert ("evacuate",) not in site.calls


def back_after_fencing(site):
    original = site.request

    def request(*what):
        if what[0] == "update_service":
            site.power["cmp01"], site.ready["cmp01"] = "on", True
            site.ready_since["cmp01"] = stamp(site.clock.now + 1)
            site.servers[IDS[0]]["running"] = False
            site.clock.now += 2
            site.request = original
        original(*what)

    site.request = request


def test_what_was_left_at_such_a_target_starts_at_its_host_that_came_back(site):
    """Neither host runs it any more, and Nova would be at rebuild_spawning for ever (seen in chaos, seed 38)."""
    left_at(site, later=11)
    back_after_fencing(site)
    run(attempt_timeout=120.0)
    assert ("evacuate",) not in site.calls
    vm = site.servers[IDS[0]]
    assert (vm["host"], vm["running"], vm["task"]) == ("cmp01", True, None), entries(site)
    assert site.doubled == [] and evicting(site, "cmp01") == ("False", "Succeeded")


@pytest.mark.parametrize("proof", UNPROVEN)
def test_what_may_run_elsewhere_is_not_started_at_its_host_that_came_back(site, proof):
    left_at(site, **proof)
    back_after_fencing(site)
    run(attempt_timeout=60.0)
    assert site.servers[IDS[0]]["running"] is False
    assert "look where it runs" in entries(site)[IDS[0]]["message"]


@pytest.mark.parametrize("error", [NovaUnavailable("away"), NovaError("no", 403), NovaConflict("busy", 409)])
def test_refusals_are_tried_again(site, error):
    dead(site)
    site.refuse = [error]
    run()
    arrived(site)


def test_an_answer_that_was_lost_is_not_asked_again_at_once(site):
    dead(site)
    original = SiteNova.evacuate
    lost = []

    def slow(self, uuid, host=None, only_with_disk=False):
        if uuid == IDS[0] and not lost:
            lost.append(site.clock.now)
            raise NovaUnavailable("no answer within 30 s")
        if uuid == IDS[0]:
            lost.append(site.clock.now)
        return original(self, uuid, host, only_with_disk)

    SiteNova.evacuate = slow
    try:
        run()
    finally:
        SiteNova.evacuate = original
    assert lost[1] - lost[0] >= 30, "by then a request that was heard has its record"
    arrived(site)


def test_an_evacuation_that_nobody_works_on_is_sent_again(site):
    dead(site)
    site.alone = {IDS[0]}
    original = SiteNova.evacuate

    def heard(self, uuid, host=None, only_with_disk=False):
        again = site.servers[uuid].get("record")
        if again:
            again["status"] = "error"
            site.alone.clear()
        return original(self, uuid, host, only_with_disk)

    SiteNova.evacuate = heard
    try:
        run(evacuate_timeout=60.0)
    finally:
        SiteNova.evacuate = original
    arrived(site)


def test_an_evacuation_by_hand_is_left_to_end(site):
    dead(site)
    site.services["cmp01"]["forced_down"] = True
    SiteNova(site).evacuate(IDS[0], "cmp03")
    run()
    assert site.servers[IDS[0]]["host"] == "cmp03"
    assert site.calls.count(("evacuate",)) == 3
    harmless(site)


def test_a_drain_goes_on_as_an_evacuation_when_its_host_dies(site):
    site.server(0, seconds=1000)
    site.server(1)
    site.evict("Maintenance")
    run(timeout=3.0)
    assert entries(site)[IDS[0]]["route"] == "LiveMigrate"
    site.die()
    site.servers[IDS[0]].update(task="migrating", until=float("inf"))
    run()
    assert evicting(site, "cmp01") == ("False", "Succeeded")
    assert entries(site)[IDS[0]]["route"] == "Evacuate" and site.servers[IDS[0]]["host"] == "cmp02"
    harmless(site)


def test_a_node_that_is_not_ready_with_a_nova_compute_that_is_up_is_drained_by_migration(site):
    site.server(0)
    site.evict("NodeNotReady")
    original = SiteClient._objects

    def not_ready(self, plural):
        found = original(self, plural)
        for node in found if plural == "nodes" else ():
            if node["metadata"]["name"] == "cmp01":
                node["status"]["conditions"][0]["status"] = "False"
        return found

    SiteClient._objects = not_ready
    try:
        run()
    finally:
        SiteClient._objects = original
    assert entries(site)[IDS[0]]["route"] == "LiveMigrate" and site.fenced == []


@pytest.mark.parametrize("set_back", [0.0, 60.0])
def test_a_step_that_was_frozen_sends_nothing_when_it_wakes(site, set_back):
    """Nor when the clock was set back meanwhile."""
    dead(site)
    original = SiteClient.patch

    def frozen(self, resource, name, body, **more):
        answer = original(self, resource, name, body, **more)
        if any(item.get("phase") == "Evacuating" for item in body.get("status", {}).get("instances") or []):
            SiteClient.patch = original
            site.clock.now += 60
            site.clock.set_back = set_back
        return answer

    SiteClient.patch = frozen
    try:
        run(timeout=0.5)
    finally:
        SiteClient.patch = original
    assert ("evacuate",) not in site.calls, "somebody else may be at it by now"
    run()
    arrived(site)


def test_a_step_that_was_frozen_while_it_gave_an_allocation_back_sends_nothing(site):
    site.server(0, task="migrating", until=float("inf"), finish=lambda vm: None)
    cut_off(site)
    site.die()
    site.evict()
    original = SiteNova.take_back_allocation

    def frozen(self, server, migration):
        SiteNova.take_back_allocation = original
        answer = original(self, server, migration)
        site.clock.now += 60
        return answer

    SiteNova.take_back_allocation = frozen
    try:
        run(timeout=0.5)
    finally:
        SiteNova.take_back_allocation = original
    assert ("evacuate",) not in site.calls
    run()
    assert site.servers[IDS[0]]["host"] == "cmp03"
    harmless(site)


def test_what_look_has_read_is_not_asked_again_for_each_server(site):
    """A hundred servers whose live migrations were cut off: one question about the host's records a pass, none for each."""
    site.server(0, task="migrating", until=float("inf"), finish=lambda vm: None)
    cut_off(site)
    site.die()
    site.evict()
    run()
    before = site.calls[: site.calls.index(("evacuate",))]
    assert before[-1] == ("take back",) and before[-2][0] != "migrations"


@pytest.mark.parametrize("kind", ["plain", "slow fence", "no host", "by consent"])
def test_killed_at_every_request(new_site, kind):
    """Enumerated: killed after 0, 1, 2, ... requests and started again, until it comes through unharmed."""
    for kill_after in itertools.count():
        assert kill_after < 1000
        site = new_site()
        dead(site, power="off" if kind == "by consent" else "on")
        options = {}
        if kind == "slow fence":
            site.fence_results = [fencing.FenceResult(False, "Timeout", "no answer in time")]
        elif kind == "no host":
            site.no_host = {IDS[2]}
            options = {"move_attempts": 2, "backoff": 1.0}
        elif kind == "by consent":
            site.agent = "none"
            options = {"unfenced_evacuation": True}
        site.kill_after = kill_after
        try:
            run(**options)
            whole = True
        except Killed:
            whole = False
        site.kill_after = None
        run(**options)
        if kind == "no host":
            assert evicting(site, "cmp01") == ("False", "Failed")
            assert site.servers[IDS[0]]["host"] == site.servers[IDS[1]]["host"] == "cmp02"
            assert site.servers[IDS[2]]["host"] == "cmp01"
            harmless(site)
        else:
            arrived(site)
        if whole:
            break
    assert kill_after > 30


@pytest.mark.parametrize("fault", ["refused", "lost", "away"])
@pytest.mark.parametrize("server", ["kubernetes", "nova"])
def test_a_server_fails_at_every_request(new_site, monkeypatch, server, fault):
    """Enumerated: the API server, or Nova, does not answer the request 0, 1, 2, ...; the step is called again."""
    for number in itertools.count():
        assert number < 1000
        site = new_site()
        dead(site)
        line = Line(number, fault)
        line.between(monkeypatch, server, SiteClient(site), SiteNova(site))
        for _call in range(10):
            try:
                run()
                break
            except Unreachable:
                site.clock.now += 10.0  # the source tells it again
        arrived(site)
        if not line.failed:
            break
    assert number > 9


def test_killed_and_another_one_starts_at_every_request_while_the_host_comes_back(new_site):
    """The Node is Ready again after the kill: whatever was begun, no guest runs twice and none is lost."""
    for kill_after in itertools.count():
        site = new_site()
        dead(site, power="on")
        site.kill_after = kill_after
        try:
            run()
            break
        except Killed:
            pass
        site.kill_after = None
        began = bool(condition(site, "Fenced"))
        site.ready["cmp01"] = True
        if site.power["cmp01"] == "off" and not site.records:
            site.power["cmp01"] = "on"
            site.servers[IDS[0]]["running"] = site.servers[IDS[2]]["running"] = False
        site.clock.now += 100
        run(timeout=400.0)
        reason = evicting(site, "cmp01")
        assert reason[0] == "False", f"killed after {kill_after}: {site.objects['cmp01']['status']}"
        assert began or reason[1] == "Cancelled"
        assert site.doubled == [] and site.asked_twice == []
        for n in range(3):
            assert site.servers[IDS[n]]["task"] is None


def test_a_dead_hosts_servers_are_never_migrated(site):
    for number, state in enumerate(["active", "stopped", "error", "paused"]):
        site.server(number, vm_state=state)
    site.die()
    site.evict()
    run()
    assert not [call for call in site.calls if call[0] in ("live-migration", "migrate", "reboot")]
