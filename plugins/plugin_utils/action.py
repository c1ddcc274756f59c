# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a step in the controller's own process, or as a module where the task asks for that.

An action plugin of c5c3.ha is this and nothing more::

    class ActionModule(StepAction):
        STEP = "eviction"

It lives in plugin_utils since module_utils may not import ansible.plugins (ansible-test sanity).
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator, ValidationResult
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

UTILS = "ansible_collections.c5c3.ha.plugins.module_utils."
STEPS = UTILS + "steps."


class _Compiled:
    """Finds our module_utils by Python's own loader, which keeps compiled code.

    Ansible's compiles every file of a collection anew in each process: 15 to 30 ms of each step.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Answer for what lies below module_utils, and leave the rest to others."""
        if name.startswith(UTILS):
            for folder in path or ():
                # Not by way of sys.path_hooks: Ansible has put its own loader there too.
                if spec := FileFinder(folder, (SourceFileLoader, [".py"])).find_spec(name, target):
                    return spec
        return None


def plain(value: Any) -> Any:
    """Return `value` in Python's own types: ansible-core from 2.19 on hands out tagged and lazy subclasses of them."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


class StepAction(ActionBase):
    """Base of the action plugins; `STEP` names the Python module below module_utils/steps."""

    STEP = ""
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        """Return the same result as the module of that name."""
        if not self._in_process():
            result = super().run(tmp, task_vars)
            result.update(self._execute_module(task_vars=task_vars, wrap_async=bool(self._task.async_val)))
            return result
        result = super().run(tmp, task_vars)
        # Late, since it costs most.
        from ansible_collections.c5c3.ha.plugins.module_utils import dry_run
        from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError

        if _Compiled not in sys.meta_path:
            sys.meta_path.insert(0, _Compiled)  # type: ignore[arg-type]
        step = importlib.import_module(STEPS + self.STEP)
        spec = dry_run.arguments(step.ARGUMENTS)
        valid = ArgumentSpecValidator(spec.pop("argument_spec"), **spec).validate(plain(self._task.args))
        if valid.error_messages:
            return {**result, "failed": True, "changed": False, "msg": self._words(valid)}
        try:
            done = dry_run.run(step.run, valid.validated_parameters, bool(self._task.check_mode))
        except HaError as error:
            done = {"failed": True, "changed": False, "msg": str(error)}
        # pylint: disable-next=protected-access
        result.update(remove_values(done, valid._no_log_values))
        self._tell(result)
        return result

    def _tell(self, result: dict) -> None:
        """Print what was done in one line: ansible-rulebook shows no more of an action than that it ran."""
        decisions = result.get("decisions")
        for decision in decisions or ():
            # One line of JSON for each, whole.
            self._display.display(f"c5c3.ha.{self.STEP}: {json.dumps(decision)}")
        if decisions == [] and not result.get("changed"):
            return  # a look at all that found nothing new
        if result.get("msg") and not result.get("failed"):
            about = self._task.args.get("name") or ""
            # Texts of guests and APIs go into it: one line, nothing that a terminal obeys.
            text = "".join(c if c.isprintable() else "?" for c in f"{about} {result['msg']}".strip())
            self._display.display(f"c5c3.ha.{self.STEP}: {text[:500]}")

    def _words(self, valid: ValidationResult) -> str:
        """Say what is wrong with the arguments, as AnsibleModule does."""
        if valid.unsupported_parameters:
            return f"Unsupported parameters for (c5c3.ha.{self.STEP}) module: {valid.error_messages[-1]}"
        return ". ".join(valid.error_messages)

    def _in_process(self) -> bool:
        """Tell whether the task can run here: nothing asks for another host, user, environment or the background."""
        return (
            getattr(self._connection, "transport", None) == "local"
            and not self._task.async_val
            and not self._play_context.become
            and not any(self._task.environment or [])
        )
