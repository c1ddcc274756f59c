"""The variables of the rulebooks: rulebook, role, README, docs and steps agree on each; what cannot work is refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.rulebook_settings import (
    OPERATOR,
    PREFIX,
    SETTINGS,
    Setting,
    faults,
)
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import options as libvirt_options
from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict, node_sync
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import parse_nodes

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(SETTINGS)
EVERY = [(role, setting) for role in ROLES for setting in SETTINGS[role]]
NAMES = [f"{role}-{setting.name}" for role, setting in EVERY]
# Told by the rulebook as an expression.
BESIDE = "c5c3_ha_beside_cobaltcore | default(c5c3_ha_api_group | default('') == 'kvm.cloud.sap')"
TYPES = {"float": (int, float), "int": int, "bool": bool, "str": str, "path": str, "dict": dict, "list": list}


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def rulebook_defaults(role: str) -> dict[str, list[Any]]:
    """Name without the prefix: every default that the rulebook has for it."""
    text = (ROOT / f"extensions/eda/rulebooks/{role}.yml").read_text()
    if role == "hypervisor_operator":
        assert text.count(BESIDE) > 0
        text = text.replace(BESIDE, "c5c3_ha_beside_cobaltcore | default(false)")
    found: dict[str, list[Any]] = {}
    for name, default in re.findall(rf"{PREFIX}(\w+) \| default\((.*?)\) }}}}", text):
        found.setdefault(name, []).append(yaml.safe_load(default))
    assert len(re.findall(rf"{PREFIX}\w+ \|", text)) == sum(map(len, found.values()))
    return found


@pytest.mark.parametrize("role", ROLES)
def test_rulebook(role):
    found = rulebook_defaults(role)
    assert set(found) == {setting.name for setting in SETTINGS[role]}
    for setting in SETTINGS[role]:
        for default in found[setting.name]:
            assert default == setting.default and isinstance(default, bool) == isinstance(
                setting.default, bool
            ), setting


@pytest.mark.parametrize("role", ROLES)
def test_the_role_hands_each_to_the_rulebook(role):
    text = (ROOT / "roles" / role / "vars/main.yml").read_text()
    handed = dict(re.findall(rf"'{PREFIX}(\w+)': (\w+)", text))
    from_environment = {"hypervisor"} if role == "ha_agent" else set()
    assert set(handed) == {setting.name for setting in SETTINGS[role]} - from_environment
    for setting in SETTINGS[role]:
        if not setting.computed:
            assert handed[setting.name] == setting.role_variable(role)


@pytest.mark.parametrize(("role", "setting"), EVERY, ids=NAMES)
def test_role_defaults_and_readme(role, setting: Setting):
    if setting.computed:
        return
    name = setting.role_variable(role)
    given = load(f"roles/{role}/defaults/main.yml")[name]
    spec = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"][name]
    assert spec["default"] == setting.default and isinstance(spec["default"], TYPES[spec["type"]])
    assert (isinstance(given, str) and "{{" in given) or given == setting.default
    row = next(
        line for line in (ROOT / f"roles/{role}/README.md").read_text().splitlines() if line.startswith(f"| `{name}` ")
    )
    told = row.split("|")[2].strip()
    assert yaml.safe_load(told.strip("`")) == setting.default or (told == "empty" and not setting.default), row


def doc_rows() -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of every table of the docs that tells variables with defaults."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        head: list[str] = []
        for line in path.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            if "default" in cells and cells[0].startswith("variable"):
                head = cells
            elif not cells:
                head = []
            elif head and re.match(r"`?(c5c3_ha|ha_agent|hypervisor_operator)_", cells[0]):
                yield path.name, dict(zip(head, cells, strict=True))


def test_docs():
    by_variable = {setting.role_variable(role): setting for role, setting in EVERY}
    seen = set()
    for page, row in doc_rows():
        name = row["variable"].strip("`")
        assert name in by_variable, f"{page}: {name}"
        seen.add(name)
        assert yaml.safe_load(row["default"].strip("`").split(",")[0]) == by_variable[name].default or isinstance(
            by_variable[name].default, (list, dict)
        ), f"{page}: {row}"
    # Thresholds and clocks: whoever reads the pages finds each.
    wanted = {
        "ha_agent_verify_seconds",
        "hypervisor_operator_crash_restarts",
        "hypervisor_operator_unreachable_seconds",
    }
    assert wanted <= seen


def test_steps_have_the_same_defaults():
    own = {"evict_timeout": "timeout"}
    arguments = {**node_sync.ARGUMENTS["argument_spec"], **evict.ARGUMENTS["argument_spec"]}
    compared = 0
    for setting in OPERATOR:
        option = arguments.get(own.get(setting.name, setting.name))
        if option is not None and not setting.computed and setting.name not in ("cloud", "api_group"):
            assert (option.get("default") or setting.default) == setting.default, setting.name
            compared += 1
    assert compared > 25


@pytest.mark.parametrize(("role", "setting"), EVERY, ids=NAMES)
def test_the_default_is_right_and_nonsense_is_refused_by_name(role, setting: Setting):
    name = PREFIX + setting.name
    assert faults({name: setting.default}, role) == []
    for nonsense in (None, object, [None], {"a": []}):
        (told,) = faults({name: nonsense}, role)
        assert setting.role_variable(role) in told and name in told
        assert any(word in told for word in ("give", "use", "known are")), told


def test_a_name_that_the_rulebook_does_not_know_is_refused():
    (told,) = faults({"c5c3_ha_unreachable_second": 5}, "hypervisor_operator")
    assert "'c5c3_ha_unreachable_second'" in told and "perhaps c5c3_ha_unreachable_seconds is meant" in told
    assert "hypervisor_operator_rulebook_vars" in told
    assert faults({"my_own": 5}, "ha_agent")[0].count("known are")
    # Somebody's own rulebook may have more; what ours share is looked at all the same.
    assert faults({"my_own": 5}, "ha_agent", own_rulebook=False) == []
    assert len(faults({"my_own": 5, "c5c3_ha_verify_seconds": "soon"}, "ha_agent", own_rulebook=False)) == 1


@pytest.mark.parametrize(
    ("role", "name", "value", "told"),
    [
        ("hypervisor_operator", "unreachable_seconds", "soon", "give a number of seconds from 0 to 86400"),
        ("hypervisor_operator", "unreachable_seconds", -1, "give a number of seconds from 0 to 86400"),
        ("hypervisor_operator", "fence_timeout", float("nan"), "give a number of seconds"),
        ("hypervisor_operator", "max_parallel", 0, "give a whole number from 1"),
        ("hypervisor_operator", "max_parallel", 1.5, "give a whole number from 1"),
        ("hypervisor_operator", "max_parallel", True, "give a whole number from 1"),
        ("hypervisor_operator", "unfenced_evacuation", "perhaps", "give true or false"),
        ("hypervisor_operator", "selection_sources", ["metadata", "flavour"], "give a list of metadata, flavor, image"),
        ("hypervisor_operator", "trait_limits", {"CUSTOM_A": 0}, "'CUSTOM_A' has another"),
        ("hypervisor_operator", "gate_limits", {"max_unhealthy_share": 50}, "more than 0 and at most 1"),
        ("hypervisor_operator", "gate_limits", {"max_hosts_at_once": "x"}, "give a whole number"),
        ("hypervisor_operator", "gate_limits", {"max_host_at_once": 1}, "perhaps max_hosts_at_once is meant"),
        ("hypervisor_operator", "lease_namespace", "No Name", "is not a Kubernetes namespace"),
        ("ha_agent", "heartbeat_seconds", 600, "from 1 to 60"),
        ("ha_agent", "io_error_count", 65, "from 0 to 64"),
    ],
)
def test_what_is_refused(role, name, value, told):
    (line,) = faults({PREFIX + name: value}, role)
    assert told in line and line.startswith(f"{role}_{name} (c5c3_ha_{name}) is ") and line.endswith(".")


def test_a_count_that_its_window_never_holds():
    """Four looks at an I/O error, fifteen seconds apart, take three quarters of a minute."""
    (told,) = faults({"c5c3_ha_io_error_window": 30}, "ha_agent")
    assert "give at least 45, or a smaller ha_agent_io_error_count" in told
    assert faults({"c5c3_ha_io_error_window": 30, "c5c3_ha_io_error_count": 3}, "ha_agent") == []
    assert faults({"c5c3_ha_io_error_window": 0, "c5c3_ha_io_error_count": 0}, "ha_agent") == []


def test_as_text_as_an_inventory_of_the_ini_kind_gives_it():
    values = {"unreachable_seconds": "30", "max_parallel": "4", "unfenced_evacuation": "no", "gate_limits": {}}
    assert faults({PREFIX + name: value for name, value in values.items()}, "hypervisor_operator") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(role=st.sampled_from(ROLES), value=JSON, extra=st.text())
def test_whatever_is_given_is_answered_in_words(role, value, extra):
    values = {PREFIX + setting.name: value for setting in SETTINGS[role]}
    for told in faults({**values, extra: value}, role):
        assert len(told) < 2000 and told.isascii() and told.endswith(".")


def test_a_living_agent_writes_before_the_clock_of_its_lost_node_ends():
    """By default; with any interval that is let through its sign of life is never too old for the gate second_signal."""
    (rules,) = load("extensions/eda/rulebooks/ha_agent.yml")
    (within,) = [rule["throttle"]["once_within"] for rule in rules["rules"] if rule["name"] == "The agent lives"]
    seconds = int(within.removesuffix(" seconds"))
    settings = {setting.name: setting for role in ROLES for setting in SETTINGS[role]}

    def period(beat: int) -> int:
        return -(-seconds // beat) * beat

    assert period(settings["heartbeat_seconds"].default) < settings["unreachable_seconds"].default
    longest = next(beat for beat in range(600, 0, -1) if settings["heartbeat_seconds"].check(beat) == "")
    assert max(map(period, range(1, longest + 1))) < Limits().heartbeat_seconds


def test_what_is_let_through_the_sources_and_steps_take():
    """The limits of each number, given to those who will read it."""
    ends: dict[str, tuple[str, list[float]]] = {}
    for role, setting in EVERY:
        match = re.search(r"from ([\d.]+) to ([\d.]+)", setting.check(object))
        if match:
            ends[setting.name] = (role, [float(match[1]), float(match[2])])
    defaults = {name: option.get("default") for name, option in evict.ARGUMENTS["argument_spec"].items()}
    timeouts = ("not_ready_seconds", "unreachable_seconds", "return_seconds")
    for name, (role, values) in ends.items():
        for value in values:
            if role == "hypervisor_operator" and name in defaults:
                evict._check({**defaults, "name": "cmp01", name: value})
            if name in timeouts:
                parse_nodes({name: value})
            if role == "ha_agent" and name in libvirt_options.NAMES:
                libvirt_options.parse({name: value})
