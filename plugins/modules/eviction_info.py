#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: eviction_info
short_description: Read Evictions
description:
  - Returns Evictions with their status, the oldest first.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description:
      - Name of one Eviction, which is a server's UUID or a hypervisor.
    type: str
  hypervisor:
    description:
      - Only Evictions of this hypervisor.
    type: str
  finished:
    description:
      - V(true) for those that have ended, however; V(false) for those that wait or are in work. Both when left out.
    type: bool
  label_selectors:
    description:
      - Label selectors that must all match, such as V(topology.kubernetes.io/zone=az1).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.attributes
attributes:
  check_mode:
    details: Reads only.
  diff_mode:
    support: N/A
    details: Reads only.
seealso:
  - module: c5c3.ha.eviction
"""

EXAMPLES = r"""
- name: Read what is in work on one hypervisor
  c5c3.ha.eviction_info:
    hypervisor: cmp01
    finished: false
  register: in_work

- name: Wait until the host is empty
  c5c3.ha.eviction_info:
    name: cmp01
  register: drain
  until: drain.evictions[0].finished
  retries: 60
  delay: 10
"""

RETURN = r"""
evictions:
  description:
    - The Evictions as the API server has them, each with the key C(finished) added.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: hypervisor.c5c3.io/v1
      kind: Eviction
      finished: true
      metadata:
        name: cmp01
      spec:
        cause: Maintenance
        hypervisor: cmp01
        reason: Upgrade of the operating system
      status:
        conditions:
          - type: Evicting
            status: "False"
            reason: Succeeded
            message: 2 of 2 servers moved
            lastTransitionTime: "2026-11-24T09:45:10.001000Z"
        counts: {total: 2, succeeded: 2, failed: 0, skipped: 0}
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction_info


def main() -> None:
    """Run the step as a module."""
    run_step(eviction_info)


if __name__ == "__main__":
    main()
