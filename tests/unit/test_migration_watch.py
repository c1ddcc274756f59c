"""The Migration as the agents of source and destination write it, each when its turn comes."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.hypervisor_rules import merged
from ansible_collections.c5c3.ha.plugins.module_utils.domain_job import JobWatch
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Conflict, Forbidden, NotServed
from ansible_collections.c5c3.ha.plugins.module_utils.resources import set_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps import migration_watch

UUID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
PROGRESS = {"type": 2, "operation": 5, "time_elapsed": 1803, "data_remaining": 389120, "memory_iteration": 2}
LEFT = {"operation": 5, "time_elapsed": 2027, "downtime": 20, "data_remaining": 0}
ARRIVED = {"operation": 4, "type": 3, "time_elapsed": 2026, "downtime": 20, "data_remaining": 0}


class Api:
    """The API server's side of one Migration."""

    def __init__(self) -> None:
        self.object: dict | None = None
        self.version = 0
        self.evictions: dict[str, dict] = {}
        self.refusal: Exception | None = None

    def _store(self, new: dict) -> dict:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.object = new
        return copy.deepcopy(new)

    def get(self, resource, name, _namespace=None):
        if resource.plural == "evictions":
            if self.refusal:
                raise self.refusal
            return self.evictions.get(name)
        return copy.deepcopy(self.object)

    def create(self, _resource, body, _namespace):
        if self.object is not None:
            raise Conflict("it is there")
        assert None not in body["spec"].values()
        return self._store(copy.deepcopy(body))

    def patch(self, _resource, _name, body, _namespace, subresource=None):
        body = copy.deepcopy(body)
        if body["metadata"].pop("resourceVersion") != self.object["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        new = merged(self.object, body)
        assert subresource or set(body) == {"metadata", "spec"}
        assert "status" not in new or new["status"]["started"], "the schema requires it"
        return self._store(new)


def record(api: Api, host: str, check_mode: bool = False) -> migration_watch.Record:
    return migration_watch.Record(api, "hypervisor.c5c3.io", UUID, "c5c3-ha", host, check_mode)


def eviction(name: str, hypervisor: str, finished: bool = False, **spec) -> dict:
    conditions = set_condition([], "Evicting", "False" if finished else "True", "Running")
    spec = {"hypervisor": hypervisor, "reason": "test", **spec}
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ([], None),
        ([eviction("cmp01", "cmp01")], "cmp01"),
        ([eviction(UUID, "cmp01", instances=[UUID])], UUID),
        ([eviction("cmp01", "cmp01"), eviction(UUID, "cmp01", instances=[UUID])], UUID),
        ([eviction(UUID, "cmp01", finished=True, instances=[UUID])], None),
        ([eviction("cmp01", "cmp01", finished=True)], None),
        ([eviction(UUID, "cmp01", instances=[UUID], notifyOnly=True)], None),
        ([eviction(UUID, "cmp03", instances=[UUID])], None),  # of the host where it was before
        ([eviction("cmp01", "cmp01", instances=["another"])], None),
        ([{"metadata": {"name": UUID}, "spec": {"hypervisor": "cmp01", "reason": "just made"}}], UUID),
    ],
)
def test_it_names_the_eviction_that_it_serves(there, named):
    api = Api()
    api.evictions = {one["metadata"]["name"]: one for one in there}
    source = record(api, "cmp01")
    source.write("progress", PROGRESS)
    assert api.object["spec"].get("eviction") == named
    record(api, "cmp02").write("arrived", ARRIVED)
    source.write("left", LEFT)
    assert (api.object["spec"].get("eviction"), api.object["spec"]["target"]) == (named, "cmp02")
    # the next migration is somebody else's wish
    api.evictions = {}
    record(api, "cmp02").write("progress", PROGRESS)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp02"}


@pytest.mark.parametrize("refusal", [Forbidden("no"), NotServed("none")])
def test_progress_is_told_to_who_may_not_read_evictions(refusal):
    api = Api()
    api.refusal = refusal
    record(api, "cmp01").write("progress", PROGRESS)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp01"} and api.object["status"]["type"] == "unbounded"


def test_check_mode_writes_nothing_and_tells_what_it_would():
    api = Api()
    would = record(api, "cmp01", check_mode=True)
    would.write("progress", PROGRESS)
    assert (api.object, would.writes > 0) == (None, True)
    done = record(api, "cmp01")
    done.write("progress", PROGRESS)
    told, real = would.diff(), done.diff()
    for side in (told, real):
        side["after"]["status"].pop("started")
    assert told == real and real["before"] == {} and real["after"]["spec"]["source"] == "cmp01"
    kept = copy.deepcopy(api.object)
    over = record(api, "cmp02", check_mode=True)
    over.write("arrived", ARRIVED)
    assert api.object == kept and over.writes > 0
    assert over.diff()["before"]["status"]["type"] == "unbounded"
    assert over.diff()["after"]["status"]["destination"] == "cmp02"


def test_what_is_told_already_changes_nothing_in_check_mode_either():
    api = Api()
    record(api, "cmp01").write("progress", PROGRESS)
    record(api, "cmp02").write("arrived", ARRIVED)
    again = record(api, "cmp02", check_mode=True)
    again.write("arrived", ARRIVED)
    assert again.writes == 0 and again.diff()["before"] == again.diff()["after"]


def test_a_migration_from_its_begin_to_its_end():
    api = Api()
    source = record(api, "cmp01")
    source.write("progress", PROGRESS)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp01"}
    status = dict(api.object["status"])
    assert (status["origin"], status["type"], status["memIteration"]) == ("cmp01", "unbounded", 2)
    assert "destination" not in status
    source.write("progress", {**PROGRESS, "data_remaining": 1024})
    assert api.object["status"]["dataRemaining"] == "1.0 KiB"
    record(api, "cmp02").write("arrived", ARRIVED)
    source.write("left", LEFT)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp01", "target": "cmp02"}
    end = api.object["status"]
    assert (end["origin"], end["destination"], end["type"], end["downtime"]) == ("cmp01", "cmp02", "completed", "20ms")
    assert end["started"] == status["started"]
    assert source.writes == 3 or source.writes == 4


def test_the_same_told_again_writes_nothing():
    api = Api()
    source = record(api, "cmp01")
    source.write("progress", PROGRESS)
    record(api, "cmp02").write("arrived", ARRIVED)
    version = api.version
    record(api, "cmp02").write("arrived", ARRIVED)
    assert api.version == version


def test_what_goes_on_after_the_end_was_told_does_not_undo_it():
    """The source's job lasts for a moment after the guest runs at its destination."""
    api = Api()
    source = record(api, "cmp01")
    source.write("progress", PROGRESS)
    record(api, "cmp02").write("arrived", ARRIVED)
    source.write("progress", PROGRESS)
    assert api.object["status"]["type"] == "completed"
    assert api.object["spec"]["target"] == "cmp02"


def test_a_failed_one_says_so_and_where_the_server_is():
    api = Api()
    source = record(api, "cmp01")
    source.write("progress", PROGRESS)
    source.write("failed", PROGRESS)
    assert api.object["status"]["type"] == "failed"
    assert "stays where it is" in api.object["status"]["errMsg"]
    again = record(api, "cmp01")
    again.write("progress", PROGRESS)
    assert "errMsg" not in api.object["status"] and api.object["status"]["type"] == "unbounded"


def test_one_too_short_to_be_seen_at_its_source():
    api = Api()
    record(api, "cmp02").write("arrived", ARRIVED)
    assert api.object["spec"] == {"instance": UUID, "target": "cmp02"}
    record(api, "cmp03").write("arrived", ARRIVED)
    assert api.object["spec"] == {"instance": UUID, "target": "cmp03"}
    assert api.object["status"]["destination"] == "cmp03"
    record(api, "cmp03").write("progress", PROGRESS)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp03"}
    assert "destination" not in api.object["status"] and "downtime" not in api.object["status"]


@pytest.mark.parametrize("source_first", [True, False])
def test_one_that_is_over_before_its_source_could_look(source_first):
    """Both agents tell their part, and the source names the Eviction."""
    api = Api()
    api.evictions = {"cmp01": eviction("cmp01", "cmp01")}
    turns = [("cmp01", "left", {}), ("cmp02", "arrived", ARRIVED)]
    for host, kind, job in turns if source_first else reversed(turns):
        record(api, host).write(kind, job)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp01", "target": "cmp02", "eviction": "cmp01"}
    status = api.object["status"]
    assert (status["origin"], status["destination"], status["type"]) == ("cmp01", "cmp02", "completed")
    assert (status["downtime"], status["operation"]) == ("20ms", "migration_in")
    # back again, as quick
    api.evictions = {}
    turns = [("cmp02", "left", {}), ("cmp01", "arrived", ARRIVED)]
    for host, kind, job in turns if source_first else reversed(turns):
        record(api, host).write(kind, job)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp02", "target": "cmp01"}
    assert (api.object["status"]["origin"], api.object["status"]["destination"]) == ("cmp02", "cmp01")


class Libvirt:
    """Of libvirt what a watch of one domain asks. A stand-in: a migration that is over at an exact moment cannot be had."""

    VIR_DOMAIN_EVENT_ID_JOB_COMPLETED = VIR_DOMAIN_EVENT_ID_LIFECYCLE = VIR_ERR_OPERATION_UNSUPPORTED = -1

    class libvirtError(Exception):
        def get_error_code(self):
            return self.args[0]

    def __init__(self, *jobs):
        self.jobs = list(jobs)

    def lookupByUUIDString(self, _uuid):
        if not self.jobs:
            raise self.libvirtError(42)
        return self

    def domainEventRegisterAny(self, *_arguments):
        return 1

    def jobStats(self, flags=0):
        job = self.jobs[-1] if flags else self.jobs.pop(0)
        if job is None:
            raise self.libvirtError(55)
        return job


@pytest.mark.parametrize(
    ("jobs", "begun", "kind"),
    [
        ((), True, "left"),
        ((), False, "none"),
        ((None, None), True, "left"),
        ((None, None), False, "none"),
        (({"type": 0}, {"type": 0}), True, "failed"),
        (({"type": 0}, {"type": 0}), False, "none"),
        (({"type": 0}, ARRIVED), True, "arrived"),  # it is back already
    ],
)
def test_what_is_over_at_the_first_look(jobs, begun, kind):
    libvirt = Libvirt(*jobs)
    watch = JobWatch("qemu:///system", UUID, 1.0, libvirt, begun=begun)
    assert [sample.kind for sample in watch._watch(libvirt)] == [kind]


@given(st.data())
def test_any_order_of_the_two_agents_ends_as_completed(data):
    """Every interleaving of their requests, conflicts included."""
    api = Api()
    if data.draw(st.booleans()):
        api.object = {
            "metadata": {"resourceVersion": "0"},
            "spec": {"instance": UUID, "source": "cmp03", "target": "cmp01"},
            "status": {"type": "completed", "destination": "cmp01", "started": "2026-11-24T09:00:00Z"},
        }
    source, target = record(api, "cmp01"), record(api, "cmp02")
    todo = [(source, "progress", PROGRESS)] * data.draw(st.integers(1, 3)) + [(source, "left", LEFT)]
    source.write(*todo.pop(0)[1:])

    real = api.get

    def interrupted(*arguments):
        """Between the other's reading and its writing."""
        found = real(*arguments)
        if todo and data.draw(st.booleans()):
            api.get = real
            source.write(*todo.pop(0)[1:])
            api.get = interrupted
        return found

    api.get = interrupted
    while todo and data.draw(st.booleans()):
        source.write(*todo.pop(0)[1:])
    target.write("arrived", ARRIVED)
    api.get = real
    for who, kind, job in todo:
        who.write(kind, job)
    assert api.object["spec"] == {"instance": UUID, "source": "cmp01", "target": "cmp02"}
    status = api.object["status"]
    assert (status["origin"], status["destination"], status["type"]) == ("cmp01", "cmp02", "completed")


@pytest.mark.parametrize(
    "given",
    [
        {"interval": 0.5},
        {"timeout": -1},
        {"uuid": "x"},
        {"uri": "; reboot"},
        {"hypervisor": "{{ x }}"},
        {"namespace": "../x"},
    ],
)
def test_wrong_arguments_are_named_before_any_request(given):
    params = {
        "hypervisor": "cmp01",
        "uri": "qemu:///system",
        "uuid": UUID,
        "namespace": "n",
        "begun": False,
        "interval": 1.0,
        "timeout": 1.0,
    }
    with pytest.raises(ArgumentError, match=next(iter(given))):
        migration_watch.run({**params, **given}, False)
