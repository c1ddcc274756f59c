"""The option dry_run: no step can forget it, no rule may."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import yaml

from ansible_collections.c5c3.ha.plugins.module_utils import dry_run

ROOT = Path(__file__).parents[2]
RULEBOOKS = sorted((ROOT / "extensions/eda/rulebooks").glob("*.yml"))
PASSED = "{{ c5c3_ha_dry_run | default(false) }}"


def ran(result: dict, given: bool, check_mode: bool = False) -> tuple[dict, list]:
    calls: list = []

    def step(params: dict, check_mode: bool) -> dict:
        calls.append((params, check_mode))
        return dict(result)

    return dry_run.run(step, {"name": "n", "dry_run": given}, check_mode), calls


def test_it_is_check_mode_and_no_step_sees_it():
    assert ran({}, True)[1] == [({"name": "n"}, True)]
    assert ran({}, False)[1] == [({"name": "n"}, False)]
    assert ran({}, False, check_mode=True)[1] == [({"name": "n"}, True)]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"changed": True, "msg": "Eviction cmp01 is made"}, "dry run: would do Eviction cmp01 is made"),
        ({"changed": False, "msg": "it is finished"}, "dry run: would do nothing: it is finished"),
        ({"changed": True}, "dry run: would do something"),
        (
            {"changed": True, "msg": "check mode", "acts": [{"act": "Fence", "host": "cmp01"}, {"act": "Abort"}]},
            "dry run: would do Fence cmp01, Abort",
        ),
    ],
)
def test_its_words_are_no_claim_that_something_was_done(result, told):
    assert ran(result, True)[0]["msg"] == told
    assert ran(result, False)[0].get("msg") == result.get("msg")


def test_its_decisions_say_so():
    assert ran({"decisions": [{"host": "a"}]}, True)[0]["decisions"] == [{"host": "a", "dry_run": True}]
    assert ran({"decisions": [{"host": "a"}]}, False)[0]["decisions"] == [{"host": "a"}]


def test_every_step_has_the_option():
    step = types.SimpleNamespace(ARGUMENTS={"argument_spec": {"name": {}}, "required_one_of": [("name",)]})
    made = dry_run.arguments(step.ARGUMENTS)
    assert set(made["argument_spec"]) == {"name", "dry_run"} and made["required_one_of"] == [("name",)]
    assert "dry_run" not in step.ARGUMENTS["argument_spec"]


@pytest.mark.parametrize("path", RULEBOOKS, ids=lambda path: path.stem)
def test_every_rule_passes_it(path):
    for ruleset in yaml.safe_load(path.read_text()):
        for rule in ruleset["rules"]:
            for action in rule.get("actions") or [rule["action"]]:
                if module := action.get("run_module"):
                    assert module["module_args"]["dry_run"] == PASSED, rule["name"]
                if playbook := action.get("run_playbook"):
                    passed = [value for name, value in playbook["extra_vars"].items() if name.endswith("_dry_run")]
                    assert passed == [PASSED], rule["name"]


@pytest.mark.parametrize("role", ["ha_agent", "hypervisor_operator"])
def test_both_roles_pass_it(role):
    assert f"'c5c3_ha_dry_run': {role}_dry_run | bool" in (ROOT / "roles" / role / "vars/main.yml").read_text()
