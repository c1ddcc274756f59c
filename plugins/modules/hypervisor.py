#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor
short_description: Set what is wanted of a hypervisor and record what is seen of it
description:
  - Creates, changes or removes a Hypervisor resource. Fields that are not given stay as they are, conditions and the
    fields of other writers included.
  - An agent records its sign of life and the servers that its libvirt knows; the operator records the state of the
    host's Node; a person puts the host into maintenance.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description:
      - Name of the hypervisor, equal to its Node and its Nova host.
    type: str
    required: true
  state:
    description:
      - V(present) creates or changes the resource, V(absent) removes it. The host itself is not touched.
    type: str
    choices: [present, absent]
    default: present
  create:
    description:
      - Whether a resource that is not there is created. With V(false) the task is skipped then, which suits an agent
        where another operator makes the resources.
    type: bool
    default: true
  labels:
    description:
      - Labels to set; V(null) as a value removes a label. Others stay.
    type: dict
  maintenance:
    description:
      - Why the host is out of service. An empty string puts it back into service and removes the reason.
      - V(manual) needs O(maintenance_reason). V(termination) cannot be taken back.
    type: str
    choices: ["", manual, auto, ha, termination]
  maintenance_reason:
    description:
      - Why, in words for a person.
    type: str
  high_availability:
    description:
      - Whether failures of this host and of its servers are handled.
    type: bool
  fencing:
    description:
      - How to switch this host off for certain. Replaces what was there as a whole; V({}) removes it.
    type: dict
    suboptions:
      agent:
        description:
          - Name of the fence agent, such as V(fence_redfish) or V(fence_ipmilan). V(none) declares that this host cannot
            be fenced.
        type: str
      address:
        description:
          - Address of the host's management controller, host name or IP address, and C(:PORT) where it is not the usual one.
        type: str
      system_id:
        description:
          - What identifies the host's system, and is checked before the host is switched off. Its UUID or serial number
            for Redfish, the GUID that C(ipmitool mc guid) tells for IPMI.
        type: str
      secret_ref:
        description:
          - Secret with the keys C(username) and C(password).
        type: dict
        suboptions:
          name:
            description:
              - Name of the Secret.
            type: str
            required: true
          namespace:
            description:
              - Namespace of the Secret; the operator's own when left out.
            type: str
      parameters:
        description:
          - Further options of the fence agent, V(cipher) and V(privlvl) for IPMI, V(ssl_insecure) for Redfish,
            V(power_wait) for both.
        type: dict
  node_state:
    description:
      - State of the host's Node as the operator takes it.
    type: str
    choices: [Ready, NotReady, Unreachable]
  agent_heartbeat:
    description:
      - When the agent last said that it lives, an RFC 3339 time. One earlier than the resource holds is ignored, and
        with it O(version), O(libvirt_connected) and O(instances).
    type: str
  version:
    description:
      - Version of the collection that the agent runs.
    type: str
  libvirt_connected:
    description:
      - Whether the agent's connection to libvirt stands.
    type: bool
  instances:
    description:
      - Servers that libvirt knows on this host, running or not. Replaces the list that was there.
    type: list
    elements: dict
    suboptions:
      id:
        description:
          - UUID of the server.
        type: str
        required: true
      name:
        description:
          - Name of the server's domain.
        type: str
        required: true
      active:
        description:
          - Whether it runs.
        type: bool
        required: true
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.compute_service
  - module: c5c3.ha.fence
"""

EXAMPLES = r"""
- name: Put a host into maintenance
  c5c3.ha.hypervisor:
    name: cmp01
    maintenance: manual
    maintenance_reason: New memory modules

- name: Put it back into service
  c5c3.ha.hypervisor:
    name: cmp01
    maintenance: ""

- name: Say how to switch it off
  c5c3.ha.hypervisor:
    name: cmp01
    fencing:
      agent: fence_redfish
      address: bmc-cmp01.example.com
      system_id: 4c4c4544-0035-4d10-8056-c2c04f4a5931
      secret_ref:
        name: bmc-cmp01
        namespace: c5c3-ha

- name: Record an agent's sign of life
  c5c3.ha.hypervisor:
    name: cmp01
    create: false
    agent_heartbeat: "2026-11-24T09:42:01.123456Z"
    libvirt_connected: true
    instances:
      - id: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
        name: instance-00000001
        active: true
"""

RETURN = r"""
action:
  description: What was done; V(created), V(updated), V(deleted), V(unchanged) or V(skipped).
  returned: success
  type: str
  sample: updated
msg:
  description: The same in words.
  returned: success
  type: str
  sample: Hypervisor cmp01 is updated
hypervisor:
  description: The Hypervisor as the API server has it, empty when it was removed or is not there.
  returned: success
  type: dict
  sample:
    apiVersion: hypervisor.c5c3.io/v1
    kind: Hypervisor
    metadata:
      name: cmp01
    spec:
      highAvailability: true
      maintenance: manual
      maintenanceReason: New memory modules
    status:
      nodeState: Ready
      numInstances: 2
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import hypervisor


def main() -> None:
    """Run the step as a module."""
    run_step(hypervisor)


if __name__ == "__main__":
    main()
