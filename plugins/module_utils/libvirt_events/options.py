# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source's options: read once, refused with one sentence that names the value and the remedy. Pure."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

DEFAULT_URI = "qemu:///system"
_URI = re.compile(r"[a-z][a-z0-9+.-]*:///?\S*\Z")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
# ansible-rulebook adds it to the arguments of every source of a rulebook that asks for feedback
_FROM_RULEBOOK = frozenset(("eda_feedback_queue",))


@dataclass(frozen=True)
class Options:
    """Checked options. All times are seconds."""

    uris: tuple[str, ...] = (DEFAULT_URI,)
    hypervisors: tuple[str | None, ...] = (None,)  # one for each URI; None: ask the connection for its host name
    keepalive_interval: int = 5
    keepalive_count: int = 3
    backoff_min: float = 0.5
    backoff_max: float = 10.0
    call_timeout: float = 10.0
    heartbeat_seconds: float = 10.0
    retell_seconds: float = 20.0
    join_window: float = 0.5
    instances: bool = True
    state_path: str | None = None


# name: (least, most) of the numbers
_NUMBERS: dict[str, tuple[float, float]] = {
    "keepalive_interval": (1, 3600),
    "keepalive_count": (1, 100),
    "backoff_min": (0.05, 3600),
    "backoff_max": (0.05, 3600),
    "call_timeout": (0.5, 600),
    "heartbeat_seconds": (1, 86400),
    "retell_seconds": (1, 86400),
    "join_window": (0, 10),
}
_WHOLE = frozenset(("keepalive_interval", "keepalive_count"))
NAMES = ("uri", "uris", "hypervisor", *_NUMBERS, "instances", "state_path")


def parse(arguments: dict[str, Any]) -> Options:
    """Check a source's arguments.

    :raises ArgumentError: for the first wrong one, in one sentence.
    """
    for name in arguments:
        if name not in NAMES and name not in _FROM_RULEBOOK:
            near = difflib.get_close_matches(str(name), NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(NAMES)}"
            raise ArgumentError(f"c5c3.ha.libvirt has no option {name!r}: {hint}")
    uris = _uris(arguments)
    values: dict[str, Any] = {"uris": uris, "hypervisors": _hypervisors(arguments.get("hypervisor"), uris)}
    for name, limits in _NUMBERS.items():
        if arguments.get(name) is not None:
            values[name] = _number(name, arguments[name], *limits)
    if arguments.get("instances") is not None:
        values["instances"] = _boolean("instances", arguments["instances"])
    if arguments.get("state_path") not in (None, ""):
        values["state_path"] = _state_path(arguments["state_path"])
    options = Options(**values)
    if options.backoff_min > options.backoff_max:
        raise ArgumentError(
            f"backoff_min {options.backoff_min:g} is greater than backoff_max {options.backoff_max:g}: "
            "make backoff_max at least as large"
        )
    return options


def _uris(arguments: dict[str, Any]) -> tuple[str, ...]:
    one, several = arguments.get("uri"), arguments.get("uris")
    if one is not None and several is not None:
        raise ArgumentError("uri and uris are both given: put every URI into uris and leave uri out")
    if several is not None:
        if not isinstance(several, (list, tuple)) or not several:
            raise ArgumentError(f"uris is {several!r}: give a list with at least one libvirt URI such as {DEFAULT_URI}")
        uris = tuple(several)
    else:
        uris = (DEFAULT_URI if one is None else one,)
    for uri in uris:
        if not isinstance(uri, str) or not _URI.match(uri):
            raise ArgumentError(f"{uri!r} is not a libvirt URI: write it like {DEFAULT_URI} or qemu+tls://host/system")
    for uri in uris:
        if uris.count(uri) > 1:
            raise ArgumentError(f"uris names {uri} twice: each event would come twice, so name it once")
    return uris


def _hypervisors(given: Any, uris: tuple[str, ...]) -> tuple[str | None, ...]:
    if given in (None, ""):
        return (None,) * len(uris)
    if isinstance(given, str):
        if len(uris) > 1:
            raise ArgumentError(
                f"hypervisor {given!r} cannot name the hosts of {len(uris)} URIs: give a mapping of each URI to its name"
            )
        names: dict[Any, Any] = {uris[0]: given}
    elif isinstance(given, dict):
        names = given
    else:
        raise ArgumentError(f"hypervisor is {given!r}: give a name, or a mapping of each URI to its name")
    for uri, name in names.items():
        if uri not in uris:
            raise ArgumentError(
                f"hypervisor names the URI {uri!r}, which is not among the URIs: add it to uris or remove it"
            )
        if not isinstance(name, str) or not _HOST_NAME.match(name):
            raise ArgumentError(f"hypervisor {name!r} is not a host name: use the name of the Kubernetes node")
    return tuple(names.get(uri) for uri in uris)


def _number(name: str, value: Any, least: float, most: float) -> float | int:
    convert = int if name in _WHOLE else float
    try:
        # a template in a rulebook yields a string
        number = convert(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        number = None
    if number is None or not least <= number <= most or (convert is int and number != float(value)):
        kind = "a whole number" if convert is int else "a number"
        raise ArgumentError(f"{name} is {value!r}: give {kind} from {least:g} to {most:g}")
    return number


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    raise ArgumentError(f"{name} is {value!r}: give true or false")


def _state_path(value: Any) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or value.endswith("/"):
        raise ArgumentError(f"state_path is {value!r}: give the absolute path of a file, its folder must exist")
    return value
