"""Each role's variables are told alike in its defaults, its argument specification and its README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = ("crds", "ha_agent", "hypervisor_operator")
SHARED = re.compile(r"^\{\{ c5c3_ha_\w+ \| default\(('.*'|false)\) \}\}$")
TYPES = {"str": str, "path": str, "int": int, "float": (int, float), "bool": bool, "dict": dict, "list": list}
# Made of another variable; what comes of its default.
COMPUTED = {"{{ hypervisor_operator_api_group == 'kvm.cloud.sap' }}": False}
SECRETS = {
    "ha_agent_kubeconfig_content",
    "hypervisor_operator_clouds",
    "hypervisor_operator_kubeconfig_content",
}


def load(role: str, path: str) -> dict:
    return yaml.safe_load((ROOT / "roles" / role / path).read_text())


def default(value: object) -> object:
    """Return a default as a user sees it, who set none of the variables that roles share."""
    if isinstance(value, str) and value in COMPUTED:
        return COMPUTED[value]
    shared = SHARED.match(value) if isinstance(value, str) else None
    return yaml.safe_load(shared[1]) if shared else value


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role):
    defaults = {name: default(value) for name, value in load(role, "defaults/main.yml").items()}
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == defaults
    for name, option in options.items():
        assert name.startswith(f"{role}_")
        assert option["description"]
        assert isinstance(defaults[name], TYPES[option["type"]]), name
        if "choices" in option and option["type"] != "list":
            assert defaults[name] in option["choices"], name


@pytest.mark.parametrize("role", ROLES)
def test_readme_names_every_variable_and_no_other(role):
    told = set(re.findall(rf"\b{role}_[a-z_]+\b", (ROOT / "roles" / role / "README.md").read_text()))
    assert told == set(load(role, "defaults/main.yml"))


def test_secrets_are_marked():
    for role in ROLES:
        options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
        marked = {name for name, option in options.items() if option.get("no_log")}
        assert marked == SECRETS & set(options)


@pytest.mark.parametrize("role", ROLES)
def test_a_task_that_touches_a_secret_logs_nothing(role):
    words = ("clouds_yaml", "kubeconfig_content", "secret.yml.j2", "environment.j2", "kind: Secret")
    for file in sorted((ROOT / "roles" / role / "tasks").rglob("*.yml")):
        for block in re.split(r"\n(?=- name:)", file.read_text()):
            inside = [word for word in words if word in re.sub(r"when:.*", "", block, flags=re.S)]
            if inside:
                assert "no_log: true" in block, f"{file}: {inside} in a task that logs"
