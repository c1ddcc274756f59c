# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role galera; documented in the .yml files beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import galera_plan as rules


def galera_plan(
    views: Mapping[str, Any],
    members: Sequence[str],
    cluster_name: str,
    acting: Sequence[str],
    datadir: str = "/var/lib/mysql",
) -> dict[str, Any]:
    """Return the plan as plain data."""
    return rules.plan(members, views, cluster_name, acting, datadir).plain()


def galera_recovery(views: Mapping[str, Any], members: Sequence[str], without: Sequence[str] = ()) -> dict[str, Any]:
    """Return who starts a crashed cluster as plain data."""
    return rules.recovery(members, views, without).plain()


def galera_misfit(members: Sequence[str]) -> str:
    """Return why these cannot be a cluster's members, or an empty string."""
    return rules.misfit(members)


def galera_turns(now: Mapping[str, Any], members: Sequence[str], before: Mapping[str, Any]) -> list[str]:
    """Return the members in the order in which they are restarted."""
    return rules.turns(members, before, now)


class FilterModule:
    """Ansible's door to them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {
            "galera_plan": galera_plan,
            "galera_recovery": galera_recovery,
            "galera_misfit": galera_misfit,
            "galera_turns": galera_turns,
        }
