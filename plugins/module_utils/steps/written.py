# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What steps that write return: of one resource the same keys for every kind, of several things the diff by name."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError


def written(
    key: str,
    changed: bool,
    action: str,
    before: dict | None,
    after: dict | None,
    message: str,
    show: Callable[[dict], dict],
) -> dict:
    """Return a step's result.

    :param key: the name under which the resource as it is now is returned, such as ``eviction``.
    :param action: created, updated, deleted, unchanged or skipped.
    :param show: makes of a resource what the step may have changed of it, for the diff.
    """
    return {
        "changed": changed,
        "action": action,
        "msg": message,
        key: after or {},
        "diff": {"before": show(before) if before else {}, "after": show(after) if after else {}},
    }


def note(diff: dict[str, dict], name: str, before: dict, after: dict) -> None:
    """Keep in a diff what a part was before its first change, and after its last.

    :param diff: ``before`` and ``after``, each by name.
    """
    diff["before"][name] = {**before, **diff["before"].get(name, {})}
    diff["after"][name] = {**diff["after"].get(name, {}), **after}


def contended(name: str, turns: int) -> HaError:
    """The error for a Hypervisor that could not be written since somebody else always was faster."""
    return HaError(
        f"Hypervisor {name} was changed by others {turns} times between reading and writing it: find out who writes it"
        " (kubectl get --show-managed-fields) and run this again"
    )
