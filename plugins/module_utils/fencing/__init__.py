# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switching a host off for certain, through ClusterLabs fence agents.

:func:`read_target` reads how, :func:`fence_off` does it and proves it, :func:`fence_status` only asks.
:func:`fence_hypervisor` is the first two in one call that never raises for what is wrong with a configuration.
"""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import (
    FenceResult,
    FenceTarget,
    FencingError,
)
from ansible_collections.c5c3.ha.plugins.module_utils.fencing.switch import (
    CONFIRM_SECONDS,
    fence_hypervisor,
    fence_off,
    fence_status,
)
from ansible_collections.c5c3.ha.plugins.module_utils.fencing.target import read_target

__all__ = [
    "CONFIRM_SECONDS",
    "FenceResult",
    "FenceTarget",
    "FencingError",
    "fence_hypervisor",
    "fence_off",
    "fence_status",
    "read_target",
]
