"""The CRDs hold what upstream has, bound what anybody may write, and each of their rules has a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests import crd_cases

ROOT = Path(__file__).parents[2]
NAMES = ("hypervisors", "evictions", "migrations")


def ours(name: str) -> dict:
    return yaml.safe_load((ROOT / "crds" / f"{name}.yaml").read_text())


def upstream(name: str) -> dict:
    return yaml.safe_load((ROOT / "tests" / "data" / "upstream" / f"kvm.cloud.sap_{name}.yaml").read_text())


def schema(crd: dict) -> dict:
    (version,) = crd["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def walk(node: dict, path: str = ""):
    """Yield (path, schema) of every field below `node`."""
    for name, child in (node.get("properties") or {}).items():
        yield f"{path}.{name}", child
        yield from walk(child, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield f"{path}{mark}", node[key]
            yield from walk(node[key], f"{path}{mark}")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_scope_are_upstreams(name):
    mine, theirs = ours(name)["spec"], upstream(name)["spec"]
    assert mine["scope"] == theirs["scope"]
    for key in ("kind", "listKind", "plural", "singular"):
        assert mine["names"][key] == theirs["names"][key]
    assert set(mine["names"]["shortNames"]) >= set(theirs["names"].get("shortNames", []))
    (mine,), (theirs,) = mine["versions"], theirs["versions"]
    assert mine["name"] == theirs["name"]
    assert mine["subresources"] == theirs["subresources"] == {"status": {}}


@pytest.mark.parametrize("name", NAMES)
def test_every_upstream_field_is_there(name):
    mine = dict(walk(schema(ours(name))))
    for path, theirs in walk(schema(upstream(name))):
        assert path in mine, f"{name}: upstream's field {path} is missing"
        for key in ("type", "enum", "format", "x-kubernetes-int-or-string", "x-kubernetes-list-map-keys"):
            assert mine[path].get(key) == theirs.get(key), f"{name} {path}: {key}"
        if "default" in theirs:
            assert mine[path].get("default") == theirs["default"], f"{name} {path}: default"
        if path == ".spec":
            assert set(mine[path].get("required", [])) == set(theirs.get("required", []))
        else:
            assert set(mine[path].get("required", [])) <= set(theirs.get("required", [])), f"{name} {path}: required"


@pytest.mark.parametrize("name", NAMES)
def test_every_upstream_message_is_kept(name):
    assert messages(schema(upstream(name))) <= messages(schema(ours(name)))


@pytest.mark.parametrize("name", NAMES)
def test_every_upstream_column_is_there(name):
    mine = {c["name"]: c["jsonPath"] for c in ours(name)["spec"]["versions"][0]["additionalPrinterColumns"]}
    for column in upstream(name)["spec"]["versions"][0]["additionalPrinterColumns"]:
        assert mine.get(column["name"]) == column["jsonPath"], f"{name}: column {column['name']}"
    assert "Age" in mine


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_described_and_bounded(name):
    for path, field in walk(schema(ours(name))):
        if path in (".metadata", ".apiVersion", ".kind"):
            continue
        if not path.endswith(("[]", "{}")):
            assert field.get("description"), f"{name} {path} has no description"
        if field.get("type") == "array":
            assert field.get("maxItems"), f"{name} {path} has no maxItems"
        if isinstance(field.get("additionalProperties"), dict):
            assert field.get("maxProperties"), f"{name} {path} has no maxProperties"
        if field.get("type") == "string" and not field.get("enum"):
            # a date-time as well: its fraction of a second may have any number of digits
            assert field.get("maxLength"), f"{name} {path} has no maxLength"
        if field.get("type") == "integer" and path != ".status.updateStatus.retry":  # upstream's, counts down
            assert "minimum" in field, f"{name} {path} has no minimum"


def test_a_hypervisor_without_spec_has_each_fields_default():
    spec = dict(walk(schema(ours("hypervisors"))))[".spec"]
    assert spec["default"] == {n: f["default"] for n, f in spec["properties"].items() if n in spec["required"]}


def messages(node: dict) -> set[str]:
    found = {rule["message"] for rule in node.get("x-kubernetes-validations", [])}
    for _path, field in walk(node):
        found |= {rule["message"] for rule in field.get("x-kubernetes-validations", [])}
    return found


def test_every_rule_has_a_case_that_breaks_it():
    rules = set().union(*(messages(schema(ours(name))) for name in NAMES))
    shown = {case[-1] for case in (*crd_cases.REFUSED.values(), *crd_cases.CHANGE_REFUSED.values())}
    assert rules - shown == set(), "rules that no case in tests/crd_cases.py breaks"


def test_every_cause_has_an_example():
    causes = dict(walk(schema(ours("evictions"))))[".spec.cause"]["enum"]
    assert set(causes) <= {case[2].get("cause") for case in crd_cases.ACCEPTED.values() if case[0] == "Eviction"}


def test_groups_are_equal_and_ours():
    for name in NAMES:
        crd = ours(name)
        assert crd["spec"]["group"] == "hypervisor.c5c3.io"
        assert crd["metadata"]["name"] == f"{name}.hypervisor.c5c3.io"
