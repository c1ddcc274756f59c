"""Step eviction against an API in memory: whatever others do between its read and its write, nothing is lost or doubled."""

from __future__ import annotations

import copy
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, HaError, Invalid, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.resources import Resource, is_finished
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction

UUID = "7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"


def at(second: float) -> str:
    return f"2026-11-24T09:00:{second:09.6f}Z"


class Api:
    """A server with one kind of object, which others may change before any request of ours (`meanwhile`)."""

    def __init__(self) -> None:
        self.objects: dict[str, dict] = {}
        self.warnings: list[str] = []
        self.writes: list[str] = []
        self.meanwhile = lambda: None
        self._numbers = itertools.count(1)
        self.config = type("Config", (), {"server": "https://api"})

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        pass

    def put(self, name: str, obj: dict) -> dict:
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[name] = obj
        return copy.deepcopy(obj)

    def finish(self, name: str) -> None:
        if name in self.objects and not is_finished(self.objects[name]):
            obj = self.objects[name]
            status = {"finishedAt": at(59), "conditions": [{"type": "Evicting", "status": "False"}]}
            self.put(name, {**obj, "status": status})

    def _precondition(self, name: str, version: str | None, uid: str | None = None) -> dict:
        if name not in self.objects:
            raise NotFound(f"{name} is not there", 404)
        metadata = self.objects[name]["metadata"]
        if version not in (None, metadata["resourceVersion"]) or uid not in (None, metadata["uid"]):
            raise Conflict(f"{name} was changed", 409)
        return self.objects[name]

    def get(self, resource: Resource, name: str) -> dict | None:
        self.meanwhile()
        return copy.deepcopy(self.objects.get(name))

    def create(self, resource: Resource, body: dict, dry_run: bool = False, strict: bool = False) -> dict:
        self.meanwhile()
        name = body["metadata"]["name"]
        if name in self.objects:
            raise Conflict(f"{name} is there already", 409, "AlreadyExists")
        body = copy.deepcopy(body)
        body["metadata"] |= {"uid": f"uid{next(self._numbers)}", "resourceVersion": "0"}
        if dry_run:
            return body
        self.writes.append("create")
        return self.put(name, body)

    def patch(self, resource: Resource, name: str, body: dict, dry_run: bool = False) -> dict:
        self.meanwhile()
        obj = copy.deepcopy(self._precondition(name, body["metadata"]["resourceVersion"]))
        obj["spec"] |= body["spec"]
        if dry_run:
            return obj
        self.writes.append("patch")
        return self.put(name, obj)

    def delete(self, resource: Resource, name: str, uid=None, resource_version=None, dry_run=False) -> bool:
        self.meanwhile()
        try:
            self._precondition(name, resource_version, uid)
        except NotFound:
            return False
        if not dry_run:
            self.writes.append("delete")
            del self.objects[name]
        return True


@pytest.fixture
def api(monkeypatch) -> Api:
    return use(monkeypatch)


def use(monkeypatch) -> Api:
    made = Api()
    monkeypatch.setattr(eviction.Client, "from_params", lambda params, manager: made)
    monkeypatch.setattr(eviction.time, "sleep", lambda seconds: None)
    return made


def tell(second: float | None = 10, check_mode: bool = False, **params) -> dict:
    given = {name: option.get("default") for name, option in eviction.ARGUMENTS["argument_spec"].items()}
    given |= {"hypervisor": "cmp01", "instances": [UUID], "cause": "InstanceStopped", "reason": "QEMU was killed"}
    given |= {"occurred_at": None if second is None else at(second)}
    return eviction.run({**given, **params}, check_mode)


def test_the_common_case_is_one_request(api):
    requests = []
    api.meanwhile = lambda: requests.append(1)
    assert tell()["action"] == "created"
    assert len(requests) == 1


def test_check_mode_writes_nothing(api):
    assert tell(check_mode=True)["changed"] is True
    assert api.objects == {}
    tell()
    assert tell(11, check_mode=True)["changed"] is True
    api.finish(UUID)
    assert tell(11, check_mode=True)["action"] == "replaced"
    assert tell(state="absent", check_mode=True)["action"] == "deleted"
    assert api.writes == ["create"]


def test_wrong_arguments_meet_no_server(api):
    api.meanwhile = lambda: pytest.fail("a request")
    for wrong in ({"hypervisor": "../x"}, {"instances": ["x"]}, {"instances": []}, {"api_group": "x"}, {"reason": ""}):
        with pytest.raises(HaError):
            tell(**wrong)


def test_it_ends_between_our_read_and_our_write(api):
    """The operator finishes just before the later death is told: it begins anew."""
    tell(10)
    calls = itertools.count(1)

    def meanwhile() -> None:
        if next(calls) == 3:  # create (conflict), get, patch
            api.finish(UUID)

    api.meanwhile = meanwhile
    assert tell(11)["action"] == "replaced"
    assert api.objects[UUID]["spec"]["occurredAt"] == at(11)
    assert not is_finished(api.objects[UUID])


def test_another_one_makes_it_anew_between_our_delete_and_our_create(api):
    tell(10)
    api.finish(UUID)
    state = {"done": False}

    def meanwhile() -> None:
        if UUID not in api.objects and not state["done"]:
            state["done"] = True
            body = eviction.evictions().body(UUID, spec={"hypervisor": "cmp01", "reason": "x", "instances": [UUID]})
            body["spec"] |= {"cause": "InstanceStopped", "occurredAt": at(11)}
            body["metadata"]["uid"] = "theirs"
            api.put(UUID, body)

    api.meanwhile = meanwhile
    result = tell(11)
    assert (result["action"], result["changed"]) == ("unchanged", False)
    assert api.objects[UUID]["metadata"]["uid"] == "theirs"


def test_it_vanishes_between_our_read_and_our_write(api):
    tell(10)
    calls = itertools.count(1)
    api.meanwhile = lambda: api.objects.clear() if next(calls) == 3 else None
    assert tell(11)["action"] == "created"


def test_one_that_is_changed_for_ever_ends_in_words(api):
    tell(10)
    api.meanwhile = lambda: api.put(UUID, api.objects[UUID])
    with pytest.raises(HaError, match="changed by others 10 times"):
        tell(11)


def test_one_that_is_never_gone_ends_in_words(api):
    tell(10)
    api.objects[UUID]["metadata"]["deletionTimestamp"] = at(11)
    with pytest.raises(HaError, match="is being deleted: run this again"):
        tell(11)


def test_a_server_whose_former_host_is_still_being_worked_on(api):
    tell(10)
    with pytest.raises(HaError, match="in work for 'cmp01': run this again"):
        tell(11, hypervisor="cmp02")
    api.finish(UUID)
    assert tell(11, hypervisor="cmp02")["action"] == "replaced"
    assert api.objects[UUID]["spec"]["hypervisor"] == "cmp02"


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_without_instances_is_refused_and_nothing_is_left(api, monkeypatch, check_mode, strict):
    plain = Api.create

    def create(self, resource, body, dry_run=False, strict_=strict, **options):
        assert options.pop("strict") is True
        if strict:
            raise Invalid('strict decoding error: unknown field "spec.cause", unknown field "spec.instances"', 400)
        body["spec"].pop("instances")
        return plain(self, resource, body, dry_run)

    monkeypatch.setattr(Api, "create", create)
    with pytest.raises(HaError, match="would move every server of cmp01"):
        tell(check_mode=check_mode)
    assert api.objects == {}


def test_another_unknown_field_is_another_error(api, monkeypatch):
    def create(*_arguments, **_options):
        raise Invalid('strict decoding error: unknown field "spec.cause"', 400)

    monkeypatch.setattr(Api, "create", create)
    with pytest.raises(Invalid, match=r"spec\.cause"):
        tell()


def test_what_the_server_warned_about_is_passed_on(api):
    api.warnings.append("deprecated")
    assert tell()["warnings"] == ["deprecated"]


@given(st.lists(st.sampled_from(["finish", "touch", "vanish", "none"]), max_size=12), st.integers(1, 3))
def test_whatever_happens_meanwhile_the_latest_death_is_in_work(plan, deaths):
    with pytest.MonkeyPatch.context() as monkeypatch:
        api = use(monkeypatch)
        steps = iter(plan)

        def meanwhile() -> None:
            step = next(steps, "none")
            if step == "finish":
                api.finish(UUID)
            elif step == "touch" and UUID in api.objects:
                api.put(UUID, api.objects[UUID])
            elif step == "vanish":
                api.objects.clear()

        for second in range(10, 10 + deaths):
            api.meanwhile = meanwhile
            try:
                tell(second)
            except HaError as error:
                assert "changed by others" in str(error)
                api.meanwhile = lambda: None
                tell(second)
        stored = api.objects.get(UUID)
        if stored is not None:
            assert stored["spec"]["occurredAt"] == at(9 + deaths)
            assert not is_finished(stored)
