# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the step migration_watch in the controller's process."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.plugin_utils.action import StepAction


class ActionModule(StepAction):
    """Action plugin c5c3.ha.migration_watch."""

    STEP = "migration_watch"
