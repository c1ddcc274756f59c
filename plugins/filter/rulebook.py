# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter of the roles ha_agent and hypervisor_operator; documented in the .yml file beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import rulebook_settings


def rulebook_faults(values: Mapping[str, Any], role: str, own_rulebook: bool = True) -> list[str]:
    """Return every reason not to start the role's rulebook with these variables."""
    return rulebook_settings.faults(values, role, own_rulebook)


class FilterModule:
    """Ansible's door to it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter."""
        return {"rulebook_faults": rulebook_faults}
