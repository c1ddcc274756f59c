#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_sync
short_description: Bring Hypervisors, compute services and Evictions in line with the Nodes
description:
  - Reads all Nodes, Hypervisors, host Evictions and compute services, decides, and writes what changed. One run is for
    all hosts; running it more often than needed does no harm.
  - Marks Hypervisors of Nodes that are not Ready (C(status.nodeState), condition C(NodeReady)). The clock of an evacuation
    begins at the C(lastTransitionTime) of the Node's condition, so that a restart neither forgets a host nor begins anew.
  - Asks the gates (docs/gates.md) for hosts whose time is over, and makes the host's Eviction when all pass. What a gate
    said is in the condition C(EvacuationAllowed) of the Hypervisor.
  - Ends the Eviction as C(Cancelled) when the Node is Ready again before anything was done.
  - Under pressure (C(DiskPressure), C(MemoryPressure), C(PIDPressure), C(NetworkUnavailable)) disables the host's compute
    service with a reason of our own, and enables it again afterwards if that reason still stands.
  - Puts a host back into service after a failure. Its force-down is taken back once Nova's evacuation records are
    completed, and its compute service is enabled, after the Node has been Ready for O(return_seconds). What a person, Nova
    itself or a drain disabled stays disabled.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  not_ready_seconds:
    description:
      - Seconds from C(Ready=False) to the gates. The kubelet still speaks then and the guests run, so there is time for
        a restart of the container runtime.
    type: float
    default: 300
  unreachable_seconds:
    description:
      - Seconds from C(Ready=Unknown) to the gates. Kubernetes has waited its own grace period of 40 to 50 seconds by then,
        and a switch reboots within a minute.
    type: float
    default: 60
  return_seconds:
    description:
      - Seconds for which a Node has to be Ready before its host gets servers again; a host that keeps crashing does so
        within its first minutes.
    type: float
    default: 120
extends_documentation_fragment:
  - c5c3.ha.gates
  - c5c3.ha.kubernetes
  - c5c3.ha.openstack
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.eviction
  - module: c5c3.ha.evict
  - module: c5c3.ha.hypervisor
"""

EXAMPLES = r"""
- name: Look after all Nodes
  c5c3.ha.node_sync:
    cloud: production

- name: See what would be done, with a shorter patience
  c5c3.ha.node_sync:
    cloud: production
    unreachable_seconds: 30
    gate_limits:
      max_unhealthy_share: 0.3
    dry_run: true
  register: seen
"""

RETURN = r"""
decisions:
  description:
    - What was decided anew in this run, in the fields of its line in the log. What stands since an earlier run is in the
      conditions of the Hypervisors.
  returned: success
  type: list
  elements: dict
  contains:
    time:
      description: When it was told.
      type: str
    decision:
      description:
        - One of V(mark), V(ready), V(refuse), V(evict), V(cancel), V(pressure), V(pressure-over), V(return),
          V(return-wait), V(node-gone), V(no-hypervisor).
      type: str
    host:
      description: Name of the host.
      type: str
    reason:
      description: Why, in a word for a program.
      type: str
    gate:
      description: The gate that refused; empty for all else.
      type: str
    since:
      description: When the Node's condition changed; empty where that says nothing.
      type: str
    message:
      description: Why, in words for a person.
      type: str
    dry_run:
      description: There, and true, when nothing was done for it.
      type: bool
  sample:
    - decision: refuse
      gate: second_signal
      host: cmp01
      message: "nova-compute of cmp01 is up for Nova: the host lives, only its kubelet is not heard"
      reason: ServiceUp
      since: "2026-11-24T09:42:01.000000Z"
      time: "2026-11-24T09:43:01.402113Z"
nodes:
  description: How many hypervisors there are, and the state of their Nodes.
  returned: success
  type: dict
  sample:
    hypervisors: 3
    not_ready: 0
    ready: 2
    unreachable: 1
next_check:
  description: Seconds until a clock that runs comes to its end; none when no clock runs.
  returned: success
  type: float
  sample: 41.2
msg:
  description: The sums in words.
  returned: success
  type: str
  sample: 3 hypervisors, 2 ready, 0 not ready, 1 unreachable; 1 decisions
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import node_sync


def main() -> None:
    """Run the step as a module."""
    run_step(node_sync)


if __name__ == "__main__":
    main()
