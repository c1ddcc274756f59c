"""Every field of every resource spoilt: no step falls over anything but with an error that was meant (HaError).

The API server refuses most of this; what it lets through, or what a schema of somebody else's lets through, must not stop
an operator. tests/integration/test_crds_mutated.py tries the same on the real one.
"""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import gate_reading
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition, is_finished, shaped
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction, eviction_info, hypervisor, migration
from tests import crd_mutations
from tests.crd_cases import EARLY, LATE, SERVER
from tests.unit import test_evict_step as base

PATHS = {kind: crd_mutations.fields(kind) for kind in crd_mutations.PLURALS}
world = base.world


def test_every_field_of_the_schemas_is_spoilt():
    """A field that the example does not hold would never be tried."""
    for kind, paths in PATHS.items():
        named = {tuple(part for part in path if isinstance(part, str)) for path in paths}
        missing = [path for path in _schema_paths(crd_mutations.schema(kind)) if path not in named]
        allowed = {("spec", "notifyOnly"), ("spec", "groups", "aggregate"), ("spec", "overcommit", "key")}
        assert [path for path in missing if path[:3] not in allowed and path not in allowed] == [], kind


def _schema_paths(node, path=()):
    if path and path[0] in ("spec", "status"):
        yield path
    for name, child in (node.get("properties") or {}).items():
        if path or name in ("spec", "status"):
            yield from _schema_paths(child, (*path, name))
    if isinstance(node.get("items"), dict):
        yield from _schema_paths(node["items"], path)


class Store:
    """A client that has one object, whatever it looks like, and takes every write."""

    warnings: list = []

    config = SimpleNamespace(server="https://nowhere")

    def __init__(self, obj):
        self.object = shaped(obj)  # as the client hands it out

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None

    def get(self, *_args, **_kwargs):
        return copy.deepcopy(self.object)

    def list(self, *_args, **_kwargs):
        return [copy.deepcopy(self.object)]

    def create(self, _resource, body, *_args, **_kwargs):
        return copy.deepcopy(body)

    def patch(self, _resource, _name, body, *_args, **_kwargs):
        json.dumps(body)
        for part in ("spec", "status"):
            if isinstance(body.get(part), dict):
                old = self.object.get(part)
                self.object[part] = {**(old if isinstance(old, dict) else {}), **body[part]}
        return copy.deepcopy(self.object)

    def delete(self, *_args, **_kwargs):
        return True


def ask(step, monkeypatch, obj, check_mode=False, **given):
    """Run a step that finds this object."""
    params = {name: option.get("default") for name, option in step.ARGUMENTS["argument_spec"].items()}
    with monkeypatch.context() as patched:
        # The class is one for all steps.
        store = Store(copy.deepcopy(obj))
        patched.setattr(step.Client, "from_params", classmethod(lambda cls, params, manager: store))
        return step.run({**params, **given}, check_mode)


def work(world, obj):
    """Let the operator's step work on an Eviction that looks like this; its error, or why the Eviction as such failed."""
    fresh = base.World()
    world.__dict__.update(fresh.__dict__)
    world.server(0)
    name = obj["metadata"]["name"]
    world.objects[name] = shaped(obj)
    try:
        base.run(world, name, timeout=30.0, deadline=1e12)
    except HaError as error:
        return str(error)
    condition = get_condition(world.objects[name], "Evicting")
    assert condition, "nothing is said of it"
    return condition["message"] if condition["reason"] == "Failed" else ""


GIVEN = {
    "eviction": (eviction, {"hypervisor": "cmp01", "instances": [SERVER], "cause": "InstanceStopped", "reason": "x"}),
    "hypervisor": (hypervisor, {"name": "cmp01", "node_state": "NotReady", "maintenance": "auto"}),
    "migration": (migration, {"name": SERVER, "source": "cmp01", "status": {"type": "unbounded"}}),
}


def test_evict_survives_every_spoilt_field(world):
    crashes = []
    for mutation in crd_mutations.mutations("Eviction"):
        obj = copy.deepcopy(mutation.object)
        try:
            told = work(world, obj)
        except Exception as error:  # pylint: disable=broad-exception-caught
            crashes.append(f"{mutation}: {type(error).__name__}: {error}")
            continue
        named = mutation.field.split("[")[0] in told or "status" in mutation.field
        if told and not named and mutation.path[0] == "spec":
            crashes.append(f"{mutation}: the field is not named: {told}")
    assert not crashes, f"{len(crashes)} crashes:\n" + "\n".join(crashes[:40])


@pytest.mark.parametrize(
    ("step", "kind"), [("eviction", "Eviction"), ("hypervisor", "Hypervisor"), ("migration", "Migration")]
)
@pytest.mark.parametrize("state", ["present", "absent"])
def test_steps_survive_every_spoilt_field(monkeypatch, step, kind, state):
    module, given_ = GIVEN[step]
    crashes = []
    for mutation in crd_mutations.mutations(kind):
        for occurred in (EARLY, LATE) if step == "eviction" else (None,):
            more = {"occurred_at": occurred} if occurred else {}
            try:
                ask(module, monkeypatch, mutation.object, **given_, **more, state=state)
            except HaError:
                continue
            except Exception as error:  # pylint: disable=broad-exception-caught
                crashes.append(f"{mutation}: {type(error).__name__}: {error}")
    assert not crashes, f"{len(crashes)} crashes:\n" + "\n".join(crashes[:40])


def test_eviction_info_survives_every_spoilt_field(monkeypatch):
    for mutation in crd_mutations.mutations("Eviction"):
        for given_ in ({"name": SERVER}, {"hypervisor": "cmp01"}, {"finished": False}):
            try:
                ask(eviction_info, monkeypatch, mutation.object, **given_)
            except HaError:
                pass
            except Exception as error:  # pylint: disable=broad-exception-caught
                pytest.fail(f"{mutation}: {type(error).__name__}: {error}")


def _value(obj, path):
    for part in path:
        obj = obj[part]
    return obj


@pytest.mark.parametrize("value", [[], [None], ["x"]])
def test_a_list_where_a_time_should_be_is_read_as_no_time(value):
    """kube-apiserver 1.36 stores a list in a text field of format date-time: an agent could write one."""
    readers = {
        "Hypervisor": [gate_reading.hypervisor_facts],
        "Eviction": [gate_reading.host_eviction, is_finished],
        "Migration": [is_finished],
    }
    tried = 0
    for kind, paths in PATHS.items():
        for path in paths:
            if _value(crd_mutations.example(kind), path) == EARLY:
                for read in readers[kind]:
                    obj = crd_mutations.mutate(kind, path, value).object
                    read(obj)
                    read({**obj, "spec": {key: each for key, each in obj["spec"].items() if key != "instances"}})
                    tried += 1
    assert tried > 10


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=20),
        st.sampled_from([EARLY]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)


@given(st.data())
def test_anything_anywhere(data):
    """Whatever JSON stands in whatever field: finished or not is always said."""
    kind = data.draw(st.sampled_from(sorted(PATHS)))
    mutation = crd_mutations.mutate(kind, data.draw(st.sampled_from(PATHS[kind])), data.draw(JSON))
    assert is_finished(mutation.object) in (True, False)
