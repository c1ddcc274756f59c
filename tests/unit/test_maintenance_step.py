# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step maintenance on a scripted Kubernetes and Nova: order of writes, deaths in between, others who write."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Conflict, HaError, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.nova import NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, set_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps import maintenance

PARAMS = {"name": "cmp01", "api_group": "hypervisor.c5c3.io", "beside_cobaltcore": None}


class Killed(Exception):
    """The step died here."""


class World:
    """Kubernetes and Nova; every write is in `writes`, and the one numbered `dies_at` kills the step after it."""

    def __init__(self):
        self.objects = {"Hypervisor": {}, "Eviction": {}}
        self.service_facts = {}
        self.guests = []
        self.writes = []
        self.dies_at = None
        self.meanwhile = lambda: None
        self.warnings = []
        self._numbers = itertools.count(1)
        self.config = type("Config", (), {"server": "https://api"})

    def add(self, name, mode="", **status):
        self.put("Hypervisor", {"metadata": {"name": name}, "spec": {"maintenance": mode}, "status": status})
        self.service_facts[name] = ServiceFacts(f"id-{name}", name, True, True)

    def put(self, kind, obj):
        obj = copy.deepcopy(obj)
        obj["metadata"] |= {"resourceVersion": str(next(self._numbers)), "uid": obj["metadata"].get("uid") or "u1"}
        self.objects[kind][obj["metadata"]["name"]] = obj
        return copy.deepcopy(obj)

    def wrote(self, what):
        self.writes.append(what)
        if self.dies_at == len(self.writes):
            raise Killed

    # the client

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        return None

    def get(self, resource, name):
        return copy.deepcopy(self.objects[resource.kind].get(name))

    def list(self, resource, project=None):
        return [project(copy.deepcopy(one)) for one in self.objects[resource.kind].values()]

    def create(self, resource, body, dry_run=False, strict=False):
        if body["metadata"]["name"] in self.objects[resource.kind]:
            raise Conflict("there", 409)
        if not dry_run:
            self.put(resource.kind, body)
            self.wrote(("create", resource.kind))
        return copy.deepcopy(body)

    def patch(self, resource, name, body, subresource=None, dry_run=False):
        self.meanwhile()
        obj = copy.deepcopy(self.objects[resource.kind].get(name))
        if obj is None:
            raise NotFound("gone", 404)
        if body["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict("changed", 409)
        for part in ("spec", "status"):
            for key, value in (body.get(part) or {}).items():
                obj.setdefault(part, {})[key] = value
        if not dry_run:
            obj = self.put(resource.kind, obj)
            self.wrote(("patch", resource.kind, subresource or "spec"))
        return obj

    def delete(self, resource, name, uid=None, resource_version=None, dry_run=False):
        if not dry_run:
            self.objects[resource.kind].pop(name)
            self.wrote(("delete", resource.kind))
        return True

    # Nova

    def service(self, host):
        return self.service_facts.get(host)

    def services(self):
        return list(self.service_facts.values())

    def servers_on(self, host):
        return self.guests

    def update_service(self, service, status=None, disabled_reason=""):
        host = service.removeprefix("id-")
        enabled = status == "enabled"
        self.service_facts[host] = replace(
            self.service_facts[host], enabled=enabled, disabled_reason="" if enabled else disabled_reason
        )
        self.wrote(("service", status))

    # what others do

    def set_mode(self, name, mode):
        hypervisor = self.objects["Hypervisor"][name]
        self.put("Hypervisor", {**hypervisor, "spec": {**hypervisor["spec"], "maintenance": mode}})

    def finish(self, name, reason="Succeeded"):
        eviction = self.objects["Eviction"][name]
        conditions = set_condition([], "Evicting", "False", reason, f"it {reason}")
        status = {"conditions": conditions, "observedOccurredAt": eviction["spec"]["occurredAt"]}
        self.put("Eviction", {**eviction, "status": status})

    def seen(self, name="cmp01"):
        hypervisor = self.objects["Hypervisor"][name]
        evicting = get_condition(hypervisor, "Evicting")
        return (
            self.service_facts[name].enabled,
            evicting and evicting["reason"],
            bool((hypervisor.get("status") or {}).get("evicted")),
            name in self.objects["Eviction"],
        )


@pytest.fixture()
def world(monkeypatch):
    made = World()
    made.add("cmp01", "manual")
    monkeypatch.setattr(maintenance.Client, "from_params", lambda *_a: made)
    monkeypatch.setattr(maintenance.Nova, "from_params", lambda *_a: made)
    return made


def run(check_mode=False, **params):
    return maintenance.run({**PARAMS, **params}, check_mode)


def test_the_whole_way_and_a_second_run_changes_nothing(world):
    assert run()["changed"]
    assert world.writes == [("service", "disabled"), ("patch", "Hypervisor", "status"), ("create", "Eviction")]
    assert world.seen() == (False, "Running", False, True)
    mark = get_condition(world.objects["Hypervisor"]["cmp01"], "Evicting")
    assert world.objects["Eviction"]["cmp01"]["spec"]["occurredAt"] == mark["lastTransitionTime"]
    assert not run()["changed"]
    world.finish("cmp01")
    assert run()["msg"] == "manual: Evicted"
    assert world.seen() == (False, "Succeeded", True, True)
    assert not run()["changed"]
    world.set_mode("cmp01", "")
    assert run()["changed"]
    assert world.seen() == (True, None, False, False)
    assert not run()["changed"]


@pytest.mark.parametrize("outcome", ["Succeeded", "Failed"])
def test_killed_after_any_write_the_next_run_makes_up_for_it(world, outcome):
    """Every write of the way there and back, one after the other."""
    for dies_at in range(1, 9):
        world.__init__()
        world.add("cmp01", "manual")
        world.dies_at = dies_at
        story = [lambda: None, lambda: world.finish("cmp01", outcome), lambda: world.set_mode("cmp01", "")]
        for change in story:
            change()
            try:
                run()
            except Killed:
                run()
            if change is story[1]:
                assert world.seen() == (False, outcome, outcome == "Succeeded", True), dies_at
        assert world.seen() == (True, None, False, False), dies_at
        created = [write for write in world.writes if write[0] == "create"]
        assert len(created) == 1, dies_at


def test_an_earlier_eviction_of_that_host_gives_way(world):
    old = {"hypervisor": "cmp01", "cause": "NodeUnreachable", "reason": "x", "occurredAt": "2026-01-01T00:00:00Z"}
    world.put("Eviction", {"metadata": {"name": "cmp01", "uid": "old"}, "spec": old})
    world.finish("cmp01")
    run()
    assert world.objects["Eviction"]["cmp01"]["spec"]["cause"] == "Maintenance"
    assert world.seen() == (False, "Running", False, True)


def test_an_eviction_of_a_fault_that_was_cancelled_is_followed_by_one_of_the_maintenance(world):
    run()
    first = get_condition(world.objects["Hypervisor"]["cmp01"], "Evicting")["lastTransitionTime"]
    world.finish("cmp01", "Cancelled")
    assert run()["changed"]
    assert world.seen() == (False, "Running", False, True)
    eviction = world.objects["Eviction"]["cmp01"]
    assert get_condition(eviction, "Evicting") is None
    assert eviction["spec"]["occurredAt"] > first
    world.finish("cmp01")
    run()
    assert world.seen() == (False, "Succeeded", True, True)


def test_others_who_write_in_between_are_not_overwritten(world):
    def heartbeat():
        world.meanwhile = lambda: None
        hypervisor = world.objects["Hypervisor"]["cmp01"]
        conditions = [{"type": "Theirs", "status": "True", "reason": "R", "message": ""}]
        world.put("Hypervisor", {**hypervisor, "status": {"agent": {"beat": 1}, "conditions": conditions}})

    world.meanwhile = heartbeat
    run()
    status = world.objects["Hypervisor"]["cmp01"]["status"]
    assert status["agent"] == {"beat": 1}
    assert {one["type"] for one in status["conditions"]} == {"Theirs", "HypervisorDisabled", "Evicting", "HaEnabled"}


def test_check_mode_writes_nothing_and_tells(world):
    result = run(check_mode=True)
    assert (result["changed"], world.writes) == (True, [])
    before, after = (result["diff"][side]["cmp01"] for side in ("before", "after"))
    assert (before["service"]["status"], after["service"]["status"]) == ("enabled", "disabled")
    assert (before["eviction"], after["eviction"]["cause"]) == (None, "Maintenance")
    assert set(before) == set(after)


def test_the_diff_is_what_was_changed(world):
    made = run()["diff"]
    assert made["before"]["cmp01"]["eviction"] is None
    assert made["after"]["cmp01"]["eviction"] == world.objects["Eviction"]["cmp01"]["spec"]
    assert run()["diff"] == {"before": {}, "after": {}}
    world.finish("cmp01")
    run()
    world.set_mode("cmp01", "")
    back = run()["diff"]
    assert (back["before"]["cmp01"]["eviction"]["cause"], back["after"]["cmp01"]["eviction"]) == ("Maintenance", None)
    before, after = (back[side]["cmp01"] for side in ("before", "after"))
    assert before["service"] == {"status": "disabled", "disabled_reason": "c5c3.ha: maintenance=manual"}
    assert after["service"]["status"] == "enabled"
    assert (before["status"]["evicted"], after["status"]["evicted"]) == (True, False)


def test_all_looks_at_what_is_open_only(world):
    world.add("cmp02")
    world.add("cmp03")
    run(name=None)
    assert world.seen("cmp01") == (False, "Running", False, True)
    assert get_condition(world.objects["Hypervisor"]["cmp02"], "HaEnabled")["status"] == "True"
    # A maintenance that was taken back before anything was marked.
    world.update_service("id-cmp03", status="disabled", disabled_reason="c5c3.ha: maintenance=auto")
    result = run(name=None)
    assert [one["name"] for one in result["hypervisors"]] == ["cmp01", "cmp03"]
    assert world.seen("cmp03")[0]


def test_a_host_that_was_disabled_while_all_were_read_is_not_told_as_enabled(world, monkeypatch):
    """Its service was read before it was disabled, its Hypervisor after: the service is read anew."""
    world.set_mode("cmp01", "")
    world.put("Hypervisor", {**world.objects["Hypervisor"]["cmp01"], "status": {
        "conditions": set_condition([], "HypervisorDisabled", "True", "Succeeded", "Hypervisor is disabled")
    }})  # fmt: skip
    old = dict(world.service_facts)
    world.service_facts["cmp01"] = replace(old["cmp01"], enabled=False, disabled_reason="c5c3.ha: Eviction cmp01")
    monkeypatch.setattr(world, "services", lambda: list(old.values()))
    run(name=None)
    found = get_condition(world.objects["Hypervisor"]["cmp01"], "HypervisorDisabled")
    assert found["status"] == "True"
    world.service_facts["cmp01"] = old["cmp01"]  # a person gives it back
    run(name=None)
    found = get_condition(world.objects["Hypervisor"]["cmp01"], "HypervisorDisabled")
    assert found["status"] == "False"
    assert run(name=None)["changed"] is False


def test_one_that_fails_does_not_stop_the_others(world, monkeypatch):
    world.add("cmp02")
    monkeypatch.setattr(world, "service", lambda host: (_ for _ in ()).throw(NovaUnavailable("away")))
    monkeypatch.setattr(world, "services", lambda: [world.service_facts["cmp02"]])
    with pytest.raises(HaError, match="1 of 2 Hypervisors failed: cmp01: away"):
        run(name=None)
    assert get_condition(world.objects["Hypervisor"]["cmp02"], "HaEnabled")


def test_no_hypervisor_and_a_name_that_is_none(world):
    assert run(name="nobody")["msg"] == "there is no Hypervisor nobody"
    with pytest.raises(ArgumentError, match="is not a Kubernetes object name"):
        run(name="{{ x }}")


def test_the_group_says_whether_cobaltcores_operator_is_there(world):
    run(api_group="kvm.cloud.sap")
    assert world.writes == []
    run(api_group="kvm.cloud.sap", beside_cobaltcore=False)
    assert ("service", "disabled") in world.writes
