# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role maxscale; documented in the .yml files beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import maxscale_config


def maxscale_faults(sections: Mapping[str, Mapping[str, Any]], instances: int = 1) -> list[str]:
    """Return every reason not to run this configuration."""
    return maxscale_config.faults(sections, int(instances))


def maxscale_servers(addresses: Mapping[str, str], common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a section for each server; their order is their priority."""
    return maxscale_config.servers(addresses, common)


class FilterModule:
    """Ansible's door to them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"maxscale_faults": maxscale_faults, "maxscale_servers": maxscale_servers}
