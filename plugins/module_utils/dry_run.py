# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option dry_run, which every step has: it decides and tells, and acts on nothing. Check mode, for daemons.

Handled here and by those who run a step, so that no step can forget it.
"""

from __future__ import annotations

from collections.abc import Callable

# c5c3.ha.attributes
STEP_ARGS: dict[str, dict] = {"dry_run": {"type": "bool", "default": False}}


def arguments(step_arguments: dict) -> dict:
    """A step's ``ARGUMENTS`` with what every step has."""
    return {**step_arguments, "argument_spec": {**step_arguments["argument_spec"], **STEP_ARGS}}


def run(step_run: Callable[[dict, bool], dict], params: dict, check_mode: bool) -> dict:
    """Run a step; in a dry run as in check mode, with words that nobody takes for a deed."""
    dry_run = params.get("dry_run")
    params = {name: value for name, value in params.items() if name not in STEP_ARGS}
    result = step_run(params, bool(check_mode or dry_run))
    return _told(result) if dry_run else result


def _told(result: dict) -> dict:
    acts = ", ".join(
        " ".join(str(act[key]) for key in ("act", "server", "host") if act.get(key)) for act in result.get("acts") or []
    )
    words = acts or result.get("msg") or "something"
    told = f"dry run: would do {words}" if result.get("changed") else f"dry run: would do nothing: {words}"
    decisions = [{**decision, "dry_run": True} for decision in result.get("decisions") or []]
    return {**result, "msg": told, **({"decisions": decisions} if "decisions" in result else {})}
