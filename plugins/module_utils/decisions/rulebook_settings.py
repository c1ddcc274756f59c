# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the two rulebooks: names, defaults and what each may be. Pure.

The one truth about them: rulebooks, roles and docs are compared with it by tests/unit/test_rulebook_settings.py. A value
that the daemon could not use would be found out when a guest has died, so the roles ask here before they deploy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.selection import SOURCES
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    DEFAULT_GROUP,
    shown,
    validate_group,
    validate_name,
    validate_namespace,
)

PREFIX = "c5c3_ha_"
HYPERVISOR_NODES = "nova.openstack.cloud.sap/virt-driver"
DAY = 86_400
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# Between two looks at one guest's I/O errors (the rule's throttle).
_LOOK_SECONDS = 15

# What to give instead of a value that is wrong, empty for one that is right.
Check = Callable[[Any], str]


@dataclass(frozen=True)
class Setting:
    """One variable of a rulebook.

    :ivar name: without the prefix ``c5c3_ha_``.
    :ivar default: the rulebook's.
    :ivar variable: the role's variable where it is not called as the setting; empty: it is.
    :ivar computed: the role makes its value of other variables.
    """

    name: str
    default: Any
    check: Check
    variable: str = ""
    computed: bool = False

    def role_variable(self, role: str) -> str:
        """Name of the role's variable."""
        return self.variable or f"{role}_{self.name}"


def _number(least: float, most: float, what: str = "a number of seconds", whole: bool = False) -> Check:
    def check(value: Any) -> str:
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        fits = math.isfinite(number) and least <= number <= most and (not whole or number == int(number))
        return "" if fits else f"give {what} from {least:g} to {most:g}"

    return check


def _count(least: int, most: int) -> Check:
    return _number(least, most, "a whole number", whole=True)


def _flag(value: Any) -> str:
    known = isinstance(value, bool) or str(value).lower() in _TRUE + _FALSE
    return "" if known else "give true or false"


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "give a text"


def _of(validate: Callable[[Any], object], empty: bool = False) -> Check:
    def check(value: Any) -> str:
        if empty and value == "":
            return ""
        try:
            validate(value)
        except ArgumentError as error:
            return str(error)
        return ""

    return check


def _words(*choices: str) -> Check:
    def check(value: Any) -> str:
        listed = isinstance(value, (list, tuple)) and all(isinstance(one, str) and one.strip() for one in value)
        if listed and (not choices or set(value) <= set(choices)):
            return ""
        return f"give a list of {', '.join(choices)}" if choices else "give a list of texts"

    return check


def _traits(value: Any) -> str:
    remedy = "give a dictionary of traits, each with a whole number above 0"
    if not isinstance(value, Mapping):
        return remedy
    wrong = [trait for trait, limit in value.items() if _count(1, 10_000)(limit)]
    return f"{remedy}; {', '.join(shown(trait) for trait in wrong)} has another" if wrong else ""


def _gates(value: Any) -> str:
    known = {name: type(getattr(Limits(), name)) for name in Limits.__dataclass_fields__}
    if not isinstance(value, Mapping):
        return f"give a dictionary of {', '.join(known)}"
    for name, given in value.items():
        if name not in known:
            return f"it has no {shown(name)}: {_near(name, known)}"
        if _number(-math.inf, math.inf, whole=known[name] is int)(given):
            return f"{name} is {shown(given)}: give {'a whole number' if known[name] is int else 'a number'}"
    try:
        Limits.from_params({"gate_limits": {name: known[name](float(given)) for name, given in value.items()}})
    except ArgumentError as error:
        return str(error)
    return ""


AGENT = (
    Setting("api_group", DEFAULT_GROUP, _of(validate_group)),
    Setting("dry_run", False, _flag),
    Setting("namespace", "c5c3-ha", _of(validate_namespace)),
    Setting("libvirt_uri", "qemu:///system", _text),
    Setting("hypervisor", "", _text, computed=True),
    Setting("state_path", "", _text, computed=True),
    Setting("heartbeat_seconds", 10, _number(1, 60)),
    Setting("join_window", 0.5, _number(0, 10)),
    Setting("keepalive_interval", 5, _count(1, 3600)),
    Setting("keepalive_count", 3, _count(1, 100)),
    Setting("verify_seconds", 5, _number(0, 3600)),
    Setting("restart_timeout", 30, _number(1, 3600)),
    Setting("io_error_count", 4, _count(0, 64)),
    Setting("io_error_window", 180, _number(0, DAY)),
    Setting("retell_seconds", 20, _number(1, DAY)),
    Setting("migration_interval", 1, _number(1, 3600)),
)
OPERATOR = (
    Setting("api_group", DEFAULT_GROUP, _of(validate_group)),
    Setting("dry_run", False, _flag),
    Setting("cloud", "openstack", _text),
    Setting("lease_name", "c5c3-ha-hypervisor-operator", _of(validate_name), computed=True),
    Setting("lease_namespace", "default", _of(validate_namespace), computed=True),
    Setting("fencing_namespace", "", _of(validate_namespace, empty=True), computed=True),
    Setting("resync_seconds", 10, _number(1, DAY)),
    # Beside the role's node_selector, which says where the operator itself runs.
    Setting("node_selectors", [HYPERVISOR_NODES], _words(), "hypervisor_operator_hypervisor_selectors"),
    Setting("not_ready_seconds", 300, _number(0, DAY)),
    Setting("unreachable_seconds", 60, _number(0, DAY)),
    Setting("return_seconds", 120, _number(0, DAY)),
    Setting("node_resync_seconds", 30, _number(1, DAY)),
    # Where it is not given, the rulebook looks at the group.
    Setting("beside_cobaltcore", False, _flag),
    Setting("gate_limits", {}, _gates),
    Setting("fence_timeout", 60, _number(1, 3600)),
    Setting("proof_seconds", 30, _number(1, 3600)),
    Setting("unfenced_evacuation", False, _flag),
    Setting("evacuate_timeout", 180, _number(1, DAY)),
    Setting("evacuate_from_image", False, _flag),
    Setting("max_evacuations", 32, _count(0, 10_000)),
    Setting("max_parallel", 2, _count(1, 1000)),
    Setting("max_per_target", 0, _count(0, 10_000)),
    Setting("max_per_cluster", 0, _count(0, 10_000)),
    Setting("trait_limits", {"CUSTOM_HANA_EXCLUSIVE_HOST": 1}, _traits),
    Setting("selection_sources", list(SOURCES), _words(*SOURCES)),
    Setting("selection_key", "", _text),
    Setting("opted_in_only", False, _flag),
    Setting("live_migratable", [], _words()),
    Setting("evict_timeout", 600, _number(1, DAY)),
    Setting("deadline", 7200, _number(1, 7 * DAY)),
    Setting("attempt_timeout", 600, _number(1, DAY)),
    Setting("restart_attempts", 2, _count(1, 100)),
    Setting("move_attempts", 3, _count(1, 100)),
    Setting("backoff", 5, _number(0, 3600)),
    Setting("crash_restarts", 10, _count(0, 1000)),
    Setting("crash_moves", 10, _count(0, 1000)),
    Setting("crash_window", 600, _number(0, DAY)),
)
SETTINGS = {"ha_agent": AGENT, "hypervisor_operator": OPERATOR}


def faults(values: Mapping[str, Any], role: str, own_rulebook: bool = True) -> list[str]:
    """Say what is wrong with the variables that a rulebook is about to get, each in a sentence with the remedy.

    :param values: by name, with the prefix.
    :param role: ha_agent or hypervisor_operator, which is the rulebook's name, too.
    :param own_rulebook: it is the collection's, so that a variable it does not know is a slip of the pen.
    :raises ArgumentError: there is no such role.
    """
    if role not in SETTINGS:
        raise ArgumentError(f"role {shown(role)} is not known: give one of {', '.join(SETTINGS)}")
    known = {PREFIX + setting.name: setting for setting in SETTINGS[role]}
    told = []
    for name, value in values.items():
        if name in known:
            remedy = known[name].check(value)
            if remedy:
                told.append(f"{known[name].role_variable(role)} ({name}) is {shown(value)}: {remedy}.")
        elif own_rulebook:
            told.append(f"{role}_rulebook_vars: the rulebook has no variable {shown(name)}: {_near(name, known)}.")
    return told or _together(values, role)


def _together(values: Mapping[str, Any], role: str) -> list[str]:
    """What is wrong with values that are right each alone."""

    def number(name: str) -> float:
        default = next(setting.default for setting in SETTINGS[role] if setting.name == name)
        return float(values.get(PREFIX + name, default))

    if role == "ha_agent" and number("io_error_count") > 0:
        least = _LOOK_SECONDS * (number("io_error_count") - 1)
        if number("io_error_window") < least:
            return [
                f"ha_agent_io_error_window ({PREFIX}io_error_window) is {number('io_error_window'):g}: a guest's errors"
                f" are looked at once in {_LOOK_SECONDS} seconds, so {number('io_error_count'):g} of them never fall into"
                f" it; give at least {least:g}, or a smaller ha_agent_io_error_count."
            ]
    return []


def _near(name: object, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), known, 1)
    return f"perhaps {near[0]} is meant" if near else f"known are {', '.join(sorted(known))}"
