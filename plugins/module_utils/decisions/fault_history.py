# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of one server before the present one, carried from Eviction to Eviction in an annotation. Pure.

Whoever makes a server's Eviction anew hands them on, so that a count over minutes survives any restart of any daemon and
goes with the server to another host. What stands there is an agent's word about its own guests: it is read as untrusted
input, and the worst that it can do is to have such a guest moved or left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import parse_time

ANNOTATION = "c5c3.ha/faults"
# Kept of those that were acted on, and of those that were only told; counts that need more are not asked for.
KEPT = 64
_LONGEST = 16_384


class Fault(NamedTuple):
    """One fault.

    :ivar at: RFC 3339 time.
    :ivar told: it was only told, nothing was done.
    """

    at: str
    cause: str
    told: bool = False


def read(eviction: dict | None) -> tuple[Fault, ...]:
    """The faults that an Eviction knows, oldest first; what is malformed is left out."""
    annotations = ((eviction or {}).get("metadata") or {}).get("annotations") or {}
    text = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    if not isinstance(text, str) or len(text) > _LONGEST:
        return ()
    faults = []
    for part in text.split(","):
        words = part.split()
        try:
            if len(words) in (2, 3) and words[1].isascii() and words[1].isalpha():
                parse_time(words[0])
                faults.append(Fault(words[0], words[1], words[2:] == ["told"]))
        except ArgumentError:
            continue
    return tuple(sorted(faults, key=lambda fault: parse_time(fault.at)))


def write(faults: Iterable[Fault]) -> str:
    """The annotation's value."""
    return ", ".join(f"{fault.at} {fault.cause}" + (" told" if fault.told else "") for fault in faults)


def added(faults: tuple[Fault, ...], fault: Fault) -> tuple[Fault, ...]:
    """The faults with one more; one of the same time and cause is the same."""
    faults = tuple(each for each in faults if (each.at, each.cause) != (fault.at, fault.cause))
    faults = tuple(sorted((*faults, fault), key=lambda each: parse_time(each.at)))
    acted = [each for each in faults if not each.told][-KEPT:]
    told = [each for each in faults if each.told][-KEPT:]
    return tuple(each for each in faults if each in acted or each in told)


def told_lately(faults: tuple[Fault, ...], cause: str, window: float) -> int:
    """How many faults of a cause were told, and not acted on, within so many seconds before the newest of them.

    Counted anew after one that was acted on.
    """
    lately: list[Fault] = []
    for fault in faults:
        if fault.cause == cause:
            lately = [*lately, fault] if fault.told else []
    return _within(lately, window)


def acted_lately(eviction: dict, window: float) -> int:
    """How many faults of the server were acted on within so many seconds, that of this Eviction included; 0: unknown."""
    return _within([fault for fault in read(eviction) if not fault.told], window)


def _within(faults: list[Fault], window: float) -> int:
    if not faults:
        return 0
    newest = parse_time(faults[-1].at)
    return sum((newest - parse_time(fault.at)).total_seconds() <= window for fault in faults)
