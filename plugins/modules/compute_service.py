#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compute_service
short_description: Enable, disable or force down a nova-compute service
description:
  - Sets the status, the disabled reason and the forced-down flag of the nova-compute service of a host.
  - Forcing down is done before disabling, since Nova's disabling waits for a compute that does not answer.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  host:
    description: Host of the service, as Nova names it.
    type: str
    required: true
  state:
    description: Whether the scheduler may use the host. Left as it is when not given.
    type: str
    choices: [enabled, disabled]
  disabled_reason:
    description: Why it is disabled, at most 255 characters.
    type: str
  forced_down:
    description:
      - Whether Nova takes the service for down whatever it reports. Only for a host that is proven to be off.
      - Nova refuses to take it back until the evacuation records of the host are done; with O(wait=true) it is asked
        again for O(timeout) seconds.
    type: bool
  only_if_reason:
    description:
      - Touch a disabled service only if its reason begins with this. What a person disabled stays disabled.
    type: str
  wait:
    description: Wait until Nova accepts the release of a forced-down service.
    type: bool
    default: true
  timeout:
    description: Seconds to wait.
    type: float
    default: 60
extends_documentation_fragment:
  - c5c3.ha.openstack
  - c5c3.ha.attributes
seealso:
  - module: openstack.cloud.compute_service_info
"""

EXAMPLES = r"""
- name: Let no new server come to a host
  c5c3.ha.compute_service:
    cloud: production
    host: cmp01
    state: disabled
    disabled_reason: Upgrade of the operating system

- name: Give a host back that an Eviction has emptied
  c5c3.ha.compute_service:
    cloud: production
    host: cmp01
    state: enabled
    only_if_reason: "c5c3.ha: Eviction"
"""

RETURN = r"""
service:
  description: The service afterwards.
  returned: success
  type: dict
  sample:
    disabled_reason: ""
    forced_down: false
    host: cmp01
    id: 0d4a7b6e-6f54-4f0b-8b0e-1b2c3d4e5f60
    state: up
    status: enabled
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import compute_service


def main() -> None:
    """Run the step as a module."""
    run_step(compute_service)


if __name__ == "__main__":
    main()
