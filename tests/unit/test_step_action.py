"""Action plugins and modules give the same results for the same step, and run where the task asks for it."""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from unittest import mock

import pytest
import yaml

from ansible_collections.c5c3.ha.plugins.module_utils import args, dry_run
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import GATE_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction
from ansible_collections.c5c3.ha.plugins.plugin_utils import action

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.c5c3.ha.plugins"
# These work on the host they run on, so that they can be no action plugin.
ON_THE_HOST = {"files", "galera_info", "service_info"}
STEPS = sorted({path.stem for path in (ROOT / "plugins/modules").glob("*.py")} - {"__init__"} - ON_THE_HOST)
FRAGMENTS = ("kubernetes", "openstack", "gates", "attributes")


class Tagged(str):
    """As ansible-core from 2.19 on hands out text."""

    def __str__(self):
        raise AssertionError("plain text must not come from here")


STEP = types.ModuleType("a step of the tests")
STEP.ARGUMENTS = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "count": {"type": "int", "default": 3},
        "password": {"type": "str", "no_log": True},
        "items": {"type": "list", "elements": "str"},
    },
    "required_together": [("items", "password")],
}


def step_run(params: dict, check_mode: bool) -> dict:
    if params["name"] == "bad":
        raise HaError("name 'bad' is bad: give another one")
    return {"changed": True, "params": params, "check_mode": check_mode, "said": f"with {params['password']}"}


STEP.run = step_run


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setitem(sys.modules, action.STEPS + "for_tests", STEP)

    def make_action(args: dict, transport: str = "local", check_mode: bool = False, **task) -> action.StepAction:
        class Plugin(action.StepAction):
            STEP = "for_tests"

        values = {"async_val": 0, "environment": [], "check_mode": check_mode, "args": args, "action": "x", **task}
        connection = mock.Mock(transport=transport)
        connection._shell.tmpdir = "/tmp/x"
        context = mock.Mock(become=task.get("become", False))
        plugin = Plugin(mock.Mock(**values), connection, context, mock.Mock(), mock.Mock(), mock.Mock())
        plugin._execute_module = mock.Mock(return_value={"changed": False, "from": "module"})
        return plugin

    return make_action


def test_it_runs_here_with_plain_arguments(make):
    plugin = make({Tagged("name"): Tagged("n"), "count": "7"}, check_mode=True)
    result = plugin.run(task_vars={})
    assert result["params"] == {"name": "n", "count": 7, "password": None, "items": None}
    assert type(result["params"]["name"]) is str
    assert result["check_mode"] is True
    plugin._execute_module.assert_not_called()


@pytest.mark.parametrize(
    "task",
    [
        {"transport": "ssh"},
        {"transport": "kubectl"},
        {"async_val": 5},
        {"become": True},
        {"environment": [{"KUBECONFIG": "/x"}]},
    ],
)
def test_it_runs_as_a_module_where_the_task_asks_for_more(make, task):
    plugin = make({"name": "n"}, **task)
    assert plugin.run(task_vars={"v": 1}) == {"changed": False, "from": "module"}
    plugin._execute_module.assert_called_once_with(task_vars={"v": 1}, wrap_async=bool(task.get("async_val")))


@pytest.mark.parametrize("environment", [[], [None], [{}], None])
def test_an_empty_environment_asks_for_nothing(make, environment):
    assert make({"name": "n"}, environment=environment).run()["changed"] is True


def test_an_error_of_the_step_is_a_failure_in_words(make):
    assert make({"name": "bad"}).run() == {
        "failed": True,
        "changed": False,
        "msg": "name 'bad' is bad: give another one",
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "missing required arguments: name"),
        ({"name": "n", "count": "many"}, "count"),
        (
            {"name": "n", "bogus": 1},
            "Unsupported parameters for (c5c3.ha.for_tests) module: bogus. Supported parameters",
        ),
        ({"name": "n", "items": ["a"]}, "password"),
    ],
)
def test_wrong_arguments_are_told_as_by_a_module(make, args, words):
    result = make(args).run()
    assert result["failed"] is True
    assert words in result["msg"]


def test_a_dry_run_is_check_mode_with_words_that_nobody_takes_for_a_deed(make, capsys):
    plugin = make({"name": "n", "dry_run": True})
    result = plugin.run()
    assert result["check_mode"] is True and "dry_run" not in result["params"]
    assert result["msg"].startswith("dry run: would do ")
    assert "c5c3.ha.for_tests: n dry run: would do" in capsys.readouterr().out


def test_decisions_are_told_one_in_a_line_and_whole(make, monkeypatch, capsys):
    decisions = [{"decision": "evict", "host": "cmp01", "message": "m" * 900}, {"decision": "mark", "host": "a\nb"}]
    monkeypatch.setattr(STEP, "run", lambda params, check_mode: {"changed": True, "msg": "x", "decisions": decisions})
    plugin = make({"name": "n"})
    plugin.run()
    *told, last = capsys.readouterr().out.splitlines()
    assert [json.loads(line.removeprefix("c5c3.ha.for_tests: ")) for line in told] == decisions
    assert last == "c5c3.ha.for_tests: n x"
    monkeypatch.setattr(STEP, "run", lambda params, check_mode: {"changed": False, "msg": "x", "decisions": []})
    make({"name": "n"}).run()
    assert not capsys.readouterr().out


def test_secrets_do_not_come_back(make):
    result = make({"name": "n", "password": "geheim", "items": ["a"]}).run()
    assert "geheim" not in str(result)


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", ["a", {"b": [None]}], {"a": {"b": 1}}])
def test_plain_values_stay(value):
    assert action.plain(value) == value
    assert type(action.plain(value)) is type(value)


def test_compiled_code_is_kept_for_our_module_utils_only():
    found = action._Compiled.find_spec(action.STEPS + "eviction", [str(ROOT / "plugins/module_utils/steps")])
    assert found.origin.endswith("steps/eviction.py")
    assert found.cached.endswith(".pyc")
    assert action._Compiled.find_spec(action.STEPS + "nothing", [str(ROOT)]) is None
    assert action._Compiled.find_spec("ansible_collections.c5c3.ha.plugins.modules.eviction", [str(ROOT)]) is None
    assert action._Compiled.find_spec("yaml") is None


# --- all steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
def test_each_module_has_its_step_and_its_action(name):
    step = importlib.import_module(f"{COLLECTION}.module_utils.steps.{name}")
    assert callable(step.run)
    plugin = importlib.import_module(f"{COLLECTION}.action.{name}").ActionModule
    assert name == plugin.STEP
    assert issubclass(plugin, action.StepAction)


@pytest.mark.parametrize("name", STEPS)
def test_documentation_and_arguments_are_equal(name):
    """validate-modules checks more of this, in minutes."""
    step = importlib.import_module(f"{COLLECTION}.module_utils.steps.{name}")
    module = importlib.import_module(f"{COLLECTION}.modules.{name}")
    documented = dict(yaml.safe_load(module.DOCUMENTATION)["options"])
    for fragment in yaml.safe_load(module.DOCUMENTATION).get("extends_documentation_fragment", []):
        short = fragment.rpartition(".")[2]
        if short in FRAGMENTS:
            made = importlib.import_module(f"{COLLECTION}.doc_fragments.{short}").ModuleDocFragment.DOCUMENTATION
            documented |= yaml.safe_load(made)["options"]
    compare(dry_run.arguments(step.ARGUMENTS)["argument_spec"], documented, name)
    for section in (module.EXAMPLES, module.RETURN):
        assert yaml.safe_load(section)


def compare(spec: dict, documented: dict, where: str) -> None:
    assert set(spec) == set(documented), where
    for option, values in spec.items():
        place = f"{where}.{option}"
        text = documented[option]
        assert values.get("type", "str") == text["type"], place
        assert values.get("elements") == text.get("elements"), place
        assert values.get("choices") == text.get("choices"), place
        assert values.get("default") == text.get("default"), place
        assert values.get("required", False) == text.get("required", False), place
        if "options" in values:
            compare(values["options"], text["suboptions"], place)


@pytest.mark.parametrize("name", STEPS)
def test_examples_call_the_module_by_its_full_name(name):
    module = importlib.import_module(f"{COLLECTION}.modules.{name}")
    for task in yaml.safe_load(module.EXAMPLES):
        assert task["name"]
        assert f"c5c3.ha.{name}" in task or any(key.startswith(("c5c3.ha.", "ansible.builtin.")) for key in task)


def test_shared_arguments_are_the_fragments():
    spec = {
        "kubernetes": args.KUBERNETES_ARGS,
        "openstack": args.OPENSTACK_ARGS,
        "gates": GATE_ARGS,
        "attributes": dry_run.STEP_ARGS,
    }
    for fragment in FRAGMENTS:
        made = importlib.import_module(f"{COLLECTION}.doc_fragments.{fragment}").ModuleDocFragment.DOCUMENTATION
        compare(spec[fragment], yaml.safe_load(made)["options"], fragment)
    assert not set(args.KUBERNETES_ARGS) & set(args.OPENSTACK_ARGS)


def test_no_step_option_of_ours_is_a_secret_by_its_name_alone():
    assert eviction.ARGUMENTS["argument_spec"]["api_key"]["no_log"] is True
