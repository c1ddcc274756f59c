"""The step evict and what stands around its moves: opt-out, order, limits, locks, what cannot move, explanations.

In the world of test_evict_step: an API server and a Nova in this process, which keep the real ones' rules.
"""

from __future__ import annotations

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_choice import load_of
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    GroupFacts,
    MigrationFacts,
    ServerFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.nova import NovaConflict, NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.locks import Locks
from tests.unit import test_evict_step as base
from tests.unit.test_evict_step import IDS, FakeNova, crashed, drain, evicting, run

world = base.world


def instance(world, number, name="cmp01"):
    return next(item for item in world.objects[name]["status"]["instances"] if item["id"] == IDS[number])


def acts(result, *kinds):
    return [act["server"] for act in result["acts"] if act["act"] in kinds]


def test_opted_out_is_left_alone_and_told(world):
    world.server(0, metadata={"c5c3:ha": "skip"})
    world.server(1, extra_specs={"c5c3:ha": "skip"})
    world.server(2, image="golden")
    world.server(3)
    world.images["golden"] = ({"c5c3_ha": "no"}, ())
    drain(world)
    result = run(world, "cmp01")
    assert acts(result, "LiveMigrate") == [IDS[3]]
    for number, place in enumerate(("metadata c5c3:ha=skip", "extra spec c5c3:ha=skip", "property c5c3_ha=no")):
        item = instance(world, number)
        assert item["phase"] == "Skipped" and place in item["message"] and world.servers[IDS[number]]["host"] == "cmp01"
    condition = get_condition(world.objects["cmp01"], "Evicting")
    assert "skipped" in condition["message"] and "c5c3:ha=skip" in condition["message"]
    assert world.objects["cmp01"]["status"]["counts"] == {"total": 4, "succeeded": 1, "failed": 0, "skipped": 3}


def test_opted_out_guest_that_died_is_not_restarted(world):
    vm = crashed(world, metadata={"c5c3:ha": "skip"})
    run(world, IDS[0])
    assert vm["history"] == [] and instance(world, 0, IDS[0])["phase"] == "Skipped"


def test_only_those_that_ask_for_it(world):
    world.server(0, metadata={"HA_Enabled": "True"})
    world.server(1)
    drain(world)
    assert acts(run(world, "cmp01", selection_key="HA_Enabled", opted_in_only=True), "LiveMigrate") == [IDS[0]]


def test_order_by_priority(world):
    for number, priority in enumerate(("", "5", "-1", "9")):
        world.server(number, metadata={"c5c3:ha_priority": priority} if priority else {})
    drain(world)
    result = run(world, "cmp01", max_parallel=1)
    assert acts(result, "LiveMigrate") == [IDS[number] for number in (3, 1, 0, 2)]


def most_at_once(world, monkeypatch):
    """Watches how many servers of the world are in work at once."""
    seen = [0]
    original = FakeNova._begin

    def begin(self, *args):
        original(self, *args)
        with self.world.lock:
            seen[0] = max(seen[0], sum(bool(vm["task"]) for vm in self.world.servers.values()))

    monkeypatch.setattr(FakeNova, "_begin", begin)
    return seen


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_no_more_than_the_limit_at_once(world, monkeypatch, limit):
    seen = most_at_once(world, monkeypatch)
    for number in range(8):
        world.server(number)
    drain(world)
    run(world, "cmp01", max_parallel=limit)
    assert evicting(world, "cmp01") == ("False", "Succeeded")
    assert seen == [limit]


def test_exclusive_hosts_are_emptied_one_by_one(world, monkeypatch):
    seen = most_at_once(world, monkeypatch)
    original = base.FakeClient.get

    def get(self, resource, name, namespace=None):
        if resource.plural == "hypervisors":
            return {"metadata": {"resourceVersion": "1"}, "status": {"traits": ["CUSTOM_HANA_EXCLUSIVE_HOST"]}}
        return original(self, resource, name, namespace)

    monkeypatch.setattr(base.FakeClient, "get", get)
    monkeypatch.setattr("ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.host.HostWork._mark_disabled", id)
    for number in range(4):
        world.server(number)
    drain(world)
    run(world, "cmp01", max_parallel=4)
    assert evicting(world, "cmp01") == ("False", "Succeeded") and seen == [1]


def test_full_cluster_is_waited_for(world):
    world.server(0)
    world.moves = [MigrationFacts(id=n, server=f"other{n}", status="running", target="cmp02") for n in range(3)]
    drain(world)
    result = run(world, "cmp01", max_per_cluster=3, timeout=10.0)
    assert acts(result, "LiveMigrate") == []
    assert "at most 3 servers of the cloud" in instance(world, 0)["message"]
    world.moves = []
    assert acts(run(world, "cmp01", max_per_cluster=3), "LiveMigrate") == [IDS[0]]


def test_locked_while_moved_and_given_back(world):
    vm = world.server(0)
    seen = []
    original = FakeNova._begin
    vm["history"].append(base.ActionFacts("create"))

    def begin(self, uuid, *args):
        seen.append(vm.get("locked"))
        original(self, uuid, *args)

    FakeNova._begin = begin
    try:
        drain(world)
        run(world, "cmp01")
    finally:
        FakeNova._begin = original
    assert seen == ["c5c3.ha: being moved by Eviction cmp01"] and vm["locked"] == ""


def test_lock_of_others_is_worked_under_and_left(world):
    vm = world.server(0, locked="hands off, says the owner")
    drain(world)
    run(world, "cmp01")
    assert vm["host"] == "cmp02" and vm["locked"] == "hands off, says the owner"
    assert ("lock",) not in world.calls and ("unlock",) not in world.calls


def test_refused_lock_does_not_keep_the_server_from_being_saved(world, monkeypatch):
    def refuse(self, uuid, reason):
        raise NovaConflict("policy", 403)

    monkeypatch.setattr(FakeNova, "lock", refuse)
    vm = world.server(0)
    drain(world)
    run(world, "cmp01")
    assert vm["host"] == "cmp02"


def test_lock_that_cannot_be_given_back_is_tried_again(world, monkeypatch):
    refusals = [NovaUnavailable("away"), NovaUnavailable("away")]
    original = FakeNova.unlock

    def unlock(self, uuid):
        if refusals:
            raise refusals.pop()
        original(self, uuid)

    monkeypatch.setattr(FakeNova, "unlock", unlock)
    vm = world.server(0)
    drain(world)
    run(world, "cmp01")
    assert refusals == [] and vm["locked"] == "" and evicting(world, "cmp01")[1] == "Succeeded"


def test_locks_are_given_back_at_the_deadline_and_when_the_eviction_is_deleted(world, monkeypatch):
    vm = world.server(0, seconds=10_000)
    drain(world)
    run(world, "cmp01", deadline=30.0)
    assert evicting(world, "cmp01") == ("False", "Failed") and vm["locked"] == ""

    vm.update(task=None, seconds=1.5)
    drain(world)
    original = FakeNova.live_migrate

    def delete(self, uuid, host=None):
        original(self, uuid, host)
        world.objects.clear()

    monkeypatch.setattr(FakeNova, "live_migrate", delete)
    assert "deleted" in run(world, "cmp01")["msg"]
    assert vm["locked"] == ""


def test_passed_through_devices_are_skipped_before_any_attempt(world):
    world.server(0, extra_specs={"pci_passthrough:alias": "gpu:1"})
    stopped = world.server(
        1, extra_specs={"pci_passthrough:alias": "gpu:1"}, vm_state="stopped", status="SHUTOFF", running=False
    )
    drain(world)
    result = run(world, "cmp01")
    item = instance(world, 0)
    assert item["phase"] == "Skipped" and "PCI" in item["message"] and "openstack server stop" in item["message"]
    assert acts(result, "LiveMigrate") == [] and stopped["host"] == "cmp02"
    world.objects.clear()
    drain(world)
    assert acts(run(world, "cmp01", live_migratable=["gpu"]), "LiveMigrate") == [IDS[0]]


def test_refusal_that_no_attempt_changes_ends_it(world, monkeypatch):
    words = "Operation 'live-migration' not supported for mem encryption enabled instance"
    monkeypatch.setattr(FakeNova, "failure_of", lambda self, uuid, request_id: words)
    world.server(0, migrates=False)
    drain(world)
    result = run(world, "cmp01")
    item = instance(world, 0)
    assert item["phase"] == "Skipped" and words in item["message"] and "openstack server stop" in item["message"]
    assert len(acts(result, "LiveMigrate")) == 1 and world.servers[IDS[0]]["locked"] == ""


def test_no_valid_host_is_explained_by_the_server_group(world):
    world.server(0, migrates=False, groups=["g1"])
    world.server(1, host="cmp02")
    world.server(2, host="cmp03")
    world.groups["g1"] = GroupFacts("db", "anti-affinity", (IDS[0], IDS[1], IDS[2]))
    drain(world)
    run(world, "cmp01")
    item = instance(world, 0)
    assert item["phase"] == "Failed" and item["attempts"] == 3
    assert "server group db (anti-affinity)" in item["message"] and "cmp02 has vm1" in item["message"]
    assert "server group db" in get_condition(world.objects["cmp01"], "Evicting")["message"]


def test_without_room_nothing_begins_until_there_is_some(world):
    world.server(0)
    world.server(1, metadata={"c5c3:ha": "skip"})
    world.room = {"cmp02": (4, 8), "cmp03": (0, 4096)}
    drain(world)
    result = run(world, "cmp01", timeout=10.0)
    preflight = get_condition(world.objects["cmp01"], "PreflightChecksSucceeded")
    assert (preflight["status"], preflight["reason"]) == ("False", "NoCapacity")
    assert "1 servers need 16 MiB" in preflight["message"] and result["acts"] == []
    assert world.services["cmp01"]["enabled"], "nothing is done before it is known to help"
    world.room = {"cmp02": (4, 16)}
    run(world, "cmp01")
    assert evicting(world, "cmp01") == ("False", "Succeeded")


def test_what_is_about_to_arrive_is_settled_first(world, monkeypatch):
    queued = MigrationFacts(id=1, server=IDS[1], status="queued", kind="live-migration", source="cmp02", target="cmp01")
    copying = MigrationFacts(
        id=2, server=IDS[2], status="running", kind="live-migration", source="cmp03", target="cmp01"
    )
    world.server(1, host="cmp02")
    world.server(2, host="cmp03")
    world.incoming = [queued, copying]
    aborted = []

    def abort(self, uuid, migration):
        aborted.append(migration)
        self.world.incoming.remove(queued)

    monkeypatch.setattr(FakeNova, "abort_live_migration", abort)
    drain(world)
    run(world, "cmp01", timeout=10.0)
    assert aborted == [1] and evicting(world, "cmp01") == ("True", "Running")
    assert f"server {IDS[2]} from cmp03" in get_condition(world.objects["cmp01"], "Evicting")["message"]
    world.incoming.clear()
    world.servers[IDS[2]]["host"] = "cmp01"
    run(world, "cmp01")
    assert world.servers[IDS[2]]["host"] == "cmp02", "what arrived is moved on"
    assert evicting(world, "cmp01") == ("False", "Succeeded")


@pytest.mark.parametrize(
    ("running", "host", "resets"),
    [(True, "cmp03", True), (False, "cmp03", False), (True, "cmp02", False)],
    ids=["runs where it was", "is dead", "runs elsewhere"],
)
def test_a_server_that_a_broken_off_migration_left_in_error_is_put_right(world, running, host, resets):
    """Nova 34 puts what it aborts into ERROR, on a host that nobody else looks at."""
    vm = world.server(1, host=host, running=running, vm_state="error", status="ERROR")
    drain(world)
    world.objects["cmp01"]["metadata"]["creationTimestamp"] = "2027-01-15T07:59:00Z"
    record = {"server": IDS[1], "kind": "live-migration", "source": "cmp03", "target": "cmp01"}
    world.incoming = [MigrationFacts(id=1, status="cancelled", changed=world.clock.now - 1, **record)]
    result = run(world, "cmp01")
    assert acts(result, "ResetState") == [IDS[1]] * resets and (vm["vm_state"] == "active") is resets
    assert evicting(world, "cmp01") == ("False", "Succeeded")


def test_only_the_next_ones_are_asked_whether_they_run(world):
    for number in range(8):
        world.server(number)
    drain(world)
    run(world, "cmp01", max_parallel=1, timeout=0.05)
    assert world.calls.count(("diagnostics",)) <= 4


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_parallel", 0),
        ("max_per_cluster", -1),
        ("max_evacuations", -1),
        ("trait_limits", {"CUSTOM_X": "many"}),
        ("trait_limits", {"CUSTOM_X": 0}),
    ],
)
def test_bad_options_are_named(world, option, value):
    world.server(0)
    drain(world)
    with pytest.raises(ArgumentError, match=option):
        run(world, "cmp01", **{option: value})
    assert world.calls == []


def test_a_lock_is_never_taken_while_nova_works_on_the_server(world):
    locks = Locks(FakeNova(world), "cmp01")
    world.server(0)
    for facts in (None, ServerFacts(IDS[0], task_state="migrating"), ServerFacts(IDS[0], locked=True)):
        locks.hold("LiveMigrate", facts)
    locks.hold("Restart", ServerFacts(IDS[0]))
    assert world.calls == []
    locks.hold("LiveMigrate", ServerFacts(IDS[0]))
    assert world.calls == [("lock",)]


def test_why_a_move_failed_is_found_behind_somebodys_lock(world):
    vm = world.server(0, migrates=False)
    original = FakeNova.live_migrate

    def locked_after(self, uuid, host=None):
        original(self, uuid, host)
        done = vm["finish"]
        vm["finish"] = lambda vm: (done(vm), vm["history"].append(base.ActionFacts("unlock")))

    FakeNova.live_migrate = locked_after
    try:
        drain(world)
        run(world, "cmp01", move_attempts=1)
    finally:
        FakeNova.live_migrate = original
    assert "No valid host" in instance(world, 0)["message"]


def test_what_was_just_begun_counts_before_nova_has_a_record_of_it():
    """Found on a real Nova: three were on the way where two were allowed."""
    working = {"a": "LiveMigrate", "b": "LiveMigrate", "r": "Restart"}
    records = [
        MigrationFacts(1, "b", "running", target="cmp02"),
        MigrationFacts(2, "other", "queued"),
        MigrationFacts(3, "third", "running", target="cmp09"),
    ]
    load = load_of(working, records, ["cmp02", "cmp03"], frozenset())
    assert (load.here, load.cluster, load.unplaced, load.to_target) == (3, 4, 2, {"cmp02": 1, "cmp03": 0})
