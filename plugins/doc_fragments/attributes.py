# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes and the option that every step has; paired with module_utils/dry_run.py STEP_ARGS."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment c5c3.ha.attributes."""

    DOCUMENTATION = r"""
options:
  dry_run:
    description:
      - Decide and tell, and act on nothing, neither in Nova nor in Kubernetes, libvirt or a management controller.
      - "Check mode for daemons, which a rulebook cannot switch on. Their log then holds a line with C(dry run: would do)."
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  action:
    description:
      - Has an action plugin. With a local connection the step runs in the controller's process, which halves its time.
      - With any other connection, with C(become), C(async) or C(environment), it runs as a module.
    support: full
  idempotent:
    description: When run twice in a row outside check mode with the same arguments, the second run changes nothing.
    support: full
"""
