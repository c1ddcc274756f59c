# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a step as an Ansible module."""

from __future__ import annotations

from types import ModuleType

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.c5c3.ha.plugins.module_utils import dry_run
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError


def run_step(step: ModuleType) -> None:
    """Make an AnsibleModule from ``step.ARGUMENTS``, run ``step.run(params, check_mode)`` and end the process."""
    module = AnsibleModule(supports_check_mode=True, **dry_run.arguments(step.ARGUMENTS))
    try:
        result = dry_run.run(step.run, module.params, module.check_mode)
    except HaError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)
