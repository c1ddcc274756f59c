"""Every field of the CRDs spoilt, one at a time: the wrong type, hostile text, extreme sizes, missing.

Driven by the schemas in crds/, so a new field is tried without anybody's doing. Shared by the unit tests (do the steps
survive it?) and the integration tests (does the API server refuse it by name, or the steps survive it?).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.crd_cases import EARLY, OTHER, SERVER

ROOT = Path(__file__).parents[1]
PLURALS = {"Hypervisor": "hypervisors", "Eviction": "evictions", "Migration": "migrations"}
GONE = object()
"""The field is left out."""

HOSTILE = (
    "../../etc/passwd",
    "-rf",
    "--action=on",
    "$(touch /tmp/x)",
    "`id`",
    "{{ lookup('pipe', 'id') }}",
    "{% for x in range(9) %}x{% endfor %}",
    "a\nb: c",
    "a\x00b",
    "\x1b[2J",
    "\u202eabc",
    "é\u0301\U0001f600",
    "' OR 1=1 --",
    "%s%n",
    " ",
    "",
    "A" * 300,
    "x" * 5000,
)
WRONG: tuple[Any, ...] = (None, True, 0, -1, 2**63, 1e308, [], {}, [None], [[]], {"a": {"b": []}}, ["x"] * 3, GONE)
TIMES = (
    "yesterday",
    "2026-02-31T00:00:00Z",
    "9999-12-31T23:59:59+23:59",
    "0000-01-01T00:00:00Z",
    "2026-11-24T10:00:00",
)


@dataclass(frozen=True)
class Mutation:
    """One spoilt object. ``path`` is the field's, such as ("status", "instances", 0, "id")."""

    kind: str
    path: tuple[str | int, ...]
    value: Any
    object: dict

    @property
    def field(self) -> str:
        """The field as the API server names it."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
        return text

    def __str__(self) -> str:
        return f"{self.kind} {self.field}={'missing' if self.value is GONE else ascii(self.value)[:40]}"


@cache
def schema(kind: str) -> dict:
    """The schema of a kind, as it is in crds/."""
    definition = yaml.safe_load((ROOT / "crds" / f"{PLURALS[kind]}.yaml").read_text())
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def example(kind: str) -> dict:
    """A valid object with every field filled that the schema has, and those that belong together fitting."""
    filled = {key: _fill(child, key) for key, child in schema(kind)["properties"].items() if key in ("spec", "status")}
    known = {
        "Eviction": {
            "metadata": {"name": SERVER},
            "spec": {"hypervisor": "cmp01", "reason": "test", "cause": "InstanceStopped", "instances": [SERVER]},
        },
        "Hypervisor": {"metadata": {"name": "cmp01"}, "spec": {"maintenance": "", "maintenanceReason": "test"}},
        "Migration": {"metadata": {"name": SERVER, "namespace": "default"}, "spec": {"instance": SERVER}},
    }[kind]
    if kind == "Hypervisor":
        filled["spec"]["groups"] = [{"trait": {"name": "CUSTOM_GPU"}}]
        filled["spec"]["overcommit"] = {"cpu": 2.0}
    if kind == "Eviction":
        filled["spec"].pop("notifyOnly", None)
        filled["status"]["instances"][0].update(id=SERVER, phase="Pending", route="None")
        filled["status"]["conditions"][0].update(type="Evicting", status="True", reason="Running")
        filled["status"].pop("holder", None)
        filled["status"]["holder"] = {"identity": "somebody", "renewedAt": EARLY}
    group, version = "hypervisor.c5c3.io", {"Migration": "v1alpha1"}.get(kind, "v1")
    metadata = {"uid": OTHER, "resourceVersion": "7", "generation": 1, **known["metadata"]}
    spec = {**filled["spec"], **known["spec"]}
    return {
        "apiVersion": f"{group}/{version}",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        "status": filled.get("status") or {},
    }


def _fill(node: dict, name: str) -> Any:
    if node.get("enum"):
        return next((value for value in node["enum"] if value), node["enum"][0])
    if node.get("x-kubernetes-int-or-string"):
        return 1
    kind = node.get("type")
    if kind == "object":
        if isinstance(node.get("additionalProperties"), dict):
            return {"key": _fill(node["additionalProperties"], name)}
        return {key: _fill(child, key) for key, child in (node.get("properties") or {}).items()}
    if kind == "array":
        return [_fill(node["items"], name)]
    if kind == "string":
        return EARLY if node.get("format") == "date-time" else OTHER if name == "uuid" else "x1"
    return {"integer": max(1, int(node.get("minimum") or 1)), "number": 2.0, "boolean": True}.get(kind or "", {})


def fields(kind: str) -> list[tuple[str | int, ...]]:
    """Every field that the example holds, spec and status themselves among them."""
    return list(_paths({key: value for key, value in example(kind).items() if key in ("spec", "status")}))


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _paths(child, (*path, key))
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _paths(child, (*path, number))


def mutate(kind: str, path: tuple[str | int, ...], value: Any) -> Mutation:
    """The example with one field spoilt."""
    spoilt = copy.deepcopy(example(kind))
    owner = spoilt
    for part in path[:-1]:
        owner = owner[part]  # type: ignore[index]
    if value is GONE:
        del owner[path[-1]]  # type: ignore[arg-type]
    else:
        owner[path[-1]] = copy.deepcopy(value)  # type: ignore[index]
    return Mutation(kind, path, value, spoilt)


def mutations(kind: str) -> Iterator[Mutation]:
    """Every field with every spoilt value."""
    for path in fields(kind):
        for value in (*WRONG, *HOSTILE, *TIMES):
            yield mutate(kind, path, value)
