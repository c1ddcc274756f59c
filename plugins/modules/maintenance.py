#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance
short_description: Do what the maintenance of a Hypervisor asks for
description:
  - Reads C(spec.maintenance) of one Hypervisor, or of all of which something is left to do, and does what is missing. Running
    it more often than needed does no harm.
  - V(manual), V(auto) and V(termination) disable the compute service with a reason of our own, say so in the condition
    C(HypervisorDisabled), and make the host's Eviction with the cause C(Maintenance). The Hypervisor's condition
    C(Evicting) follows it and ends as C(Succeeded) with C(status.evicted), or as C(Failed). A host that still has servers is
    never told as evicted.
  - V(ha) makes no Eviction and leaves the compute service alone; the condition C(HypervisorDisabled) follows the service.
  - Without a maintenance the Eviction that it made is removed, and the compute service is enabled if a maintenance of
    ours disabled it. What a person or Nova itself disabled stays disabled.
  - Keeps the condition C(HaEnabled), for which CobaltCore's operator waits when it puts hosts in and out of service.
  - Conditions of others are not touched.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description:
      - The Hypervisor. Without it, all are looked at.
    type: str
  beside_cobaltcore:
    description:
      - Whether CobaltCore's own openstack-hypervisor-operator runs here. It does V(manual), V(auto) and V(termination) then,
        and a host that was emptied after a failure gets V(ha), which is taken back when the host has returned.
      - Left out, it is so where O(api_group) is V(kvm.cloud.sap).
    type: bool
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.openstack
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.hypervisor
    description: Sets the maintenance.
  - module: c5c3.ha.evict
    description: Works on the Eviction.
"""

EXAMPLES = r"""
- name: Do what the maintenance of one host asks for
  c5c3.ha.maintenance:
    name: cmp01
    cloud: production

- name: Look after all hosts
  c5c3.ha.maintenance:
    cloud: production
"""

RETURN = r"""
hypervisors:
  description: What was looked at.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the host.
      type: str
    mode:
      description: Its maintenance, empty for none.
      type: str
    message:
      description: What it came to, in words.
      type: str
    changed:
      description: Whether anything was changed for it.
      type: bool
  sample:
    - name: cmp01
      mode: manual
      message: Evicting
      changed: true
msg:
  description: The same in words.
  returned: success
  type: str
  sample: "manual: Evicting"
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import maintenance


def main() -> None:
    """Run the step as a module."""
    run_step(maintenance)


if __name__ == "__main__":
    main()
