#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: eviction
short_description: Ask for servers to be moved off a hypervisor or brought back to life
description:
  - Creates an Eviction, the resource on which the hypervisor operator acts, or takes it back.
  - Asking twice is asking once. An Eviction of one server is named as the server's UUID, one of a whole host as the
    hypervisor, so that any number of agents and playbooks that tell of the same fault make one.
  - A fault of O(occurred_at) that is told while the Eviction is in work moves C(spec.occurredAt) forward, so that a
    server that dies again is not lost. One that is newer than the fault which a finished Eviction answered begins a new
    one. One that was answered changes nothing.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description:
      - Name of the Eviction.
      - Needed only where O(instances) names several servers; otherwise it follows from O(instances) and O(hypervisor).
    type: str
  hypervisor:
    description:
      - Name of the hypervisor, equal to its Node and its Nova host.
      - Required when O(state=present).
    type: str
  instances:
    description:
      - UUIDs of the servers, at most 1000. Empty means every server of the hypervisor.
      - Refused where the served definition of the resource has no C(spec.instances), as CobaltCore's has not, since the
        whole host would be emptied.
    type: list
    elements: str
    default: []
  cause:
    description:
      - What was seen, for programs.
      - V(InstanceStopped), V(RebootFailed), V(WatchdogRestartFailed) and V(DiskIOError) need O(instances);
        V(NodeNotReady) and V(NodeUnreachable) forbid them. Without it the Eviction is a plain drain.
    type: str
    choices:
      - NodeNotReady
      - NodeUnreachable
      - InstanceStopped
      - RebootFailed
      - WatchdogRestartFailed
      - DiskIOError
      - Maintenance
      - Reboot
  reason:
    description:
      - Why, in words for a person. Cut after 1024 characters.
      - Required when O(state=present).
    type: str
  occurred_at:
    description:
      - When the fault was seen, an RFC 3339 time such as V(2026-11-24T09:42:01.123456Z).
      - Without it a finished Eviction is left as it is.
    type: str
  notify_only:
    description:
      - The Eviction only tells of a fault of O(instances), and nothing is moved for it. It ends with the reason
        C(Notified).
      - One that is in work for another fault is left as it is; a later one without this takes its place. Told of a later
        fault of the same cause it takes note of it, time and reason included.
    type: bool
    default: false
  fault_over:
    description:
      - The fault of O(occurred_at) that the Eviction tells of (O(notify_only)) is over. Only its reason becomes O(reason); an
        Eviction of another fault is left as it is, and none is made.
    type: bool
    default: false
  persist_count:
    description:
      - With O(notify_only), how often a fault of O(cause) must be told within O(persist_window) to count as persistent. Then
        the Eviction is made anew without O(notify_only), so that the server is moved.
      - What was told is kept in the annotation C(c5c3.ha/faults) of the Eviction, so that no restart of an agent forgets it.
      - V(0) is never.
    type: int
    default: 0
  persist_window:
    description:
      - Seconds within which O(persist_count) counts.
    type: float
    default: 0.0
  state:
    description:
      - V(present) asks for the Eviction, V(absent) removes it. What Nova has begun goes on.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.eviction_info
  - module: c5c3.ha.evict
"""

EXAMPLES = r"""
- name: Bring a crashed server back
  c5c3.ha.eviction:
    hypervisor: cmp01
    instances:
      - 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    cause: InstanceStopped
    reason: QEMU was killed
    occurred_at: "2026-11-24T09:42:01.123456Z"

- name: Empty a host before its upgrade
  c5c3.ha.eviction:
    hypervisor: cmp01
    cause: Maintenance
    reason: Upgrade of the operating system

- name: Take that back
  c5c3.ha.eviction:
    hypervisor: cmp01
    state: absent
"""

RETURN = r"""
action:
  description: What was done; V(created), V(updated), V(replaced), V(deleted) or V(unchanged).
  returned: success
  type: str
  sample: created
msg:
  description: The same in words.
  returned: success
  type: str
  sample: "Eviction 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d is made: InstanceStopped on cmp01"
eviction:
  description: The Eviction as the API server has it, empty when it was removed.
  returned: success
  type: dict
  sample:
    apiVersion: hypervisor.c5c3.io/v1
    kind: Eviction
    metadata:
      name: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
      resourceVersion: "1042"
      uid: 0d4a7b6e-6f54-4f0b-8b0e-1b2c3d4e5f60
    spec:
      cause: InstanceStopped
      hypervisor: cmp01
      instances:
        - 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
      occurredAt: "2026-11-24T09:42:01.123456Z"
      reason: QEMU was killed
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import eviction


def main() -> None:
    """Run the step as a module."""
    run_step(eviction)


if __name__ == "__main__":
    main()
