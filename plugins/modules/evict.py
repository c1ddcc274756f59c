#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: evict
short_description: Work on an Eviction until it is finished
description:
  - Reads the Eviction O(name) and Nova, writes what it is about to do into the Eviction's status, does it, and begins
    again until every server is done.
  - A running server on a living host is live-migrated, a stopped one is cold-migrated and the migration confirmed, a
    crashed one is restarted in place through Nova first and moved if that does not help. A server that runs where it
    should is never restarted; whether it runs is asked of libvirt through Nova's diagnostics.
  - Before a whole host is emptied its compute service is disabled, so that nothing new arrives. It is not enabled again.
  - A host whose Node is not Ready and whose nova-compute is down is taken for dead once the gates (docs/gates.md) let it
    pass. It is then switched off and proven to be off through its power switch (C(spec.fencing) of its Hypervisor),
    forced down and disabled in Nova, and its servers are evacuated, running ones to run and stopped ones to stay
    stopped. Without the proof nothing is evacuated, and the condition C(Fenced) says why.
  - A Node that is Ready again before its host was asked to be switched off ends the Eviction as C(Cancelled). A host
    whose nova-compute is down while its Node is Ready is left alone and its Eviction waits.
  - What Nova cannot evacuate (suspended, rescued, resized, shelved or half built servers, and servers whose disk was being
    moved when the host died) ends as V(Failed) with what would help, and the others go on.
  - While a server is moved it is locked in Nova, with the Eviction as reason, and unlocked after. A lock of somebody
    else's is left as it is, and worked under.
  - What is about to arrive on a host that is to be empty is aborted when it has not begun to copy, else waited for and
    moved on.
  - May be killed at any instant and run again. Of two that work on one Eviction only one acts; the other waits until
    the first has not renewed its claim for O(claim_ttl) seconds.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description: Name of the Eviction.
    type: str
    required: true
  timeout:
    description:
      - Seconds that one run of this step works on the Eviction. Then it ends with the Eviction unfinished, and whoever
        calls it calls it again. Not a failure.
    type: float
    default: 600
  deadline:
    description:
      - Seconds from the begin of the work after which the rest is given up as V(Failed). Two hours hold a host of a
        hundred servers with Nova's one live migration at a time.
    type: float
    default: 7200
  max_parallel:
    description:
      - Servers of one living host in work at once. Nova's own C(max_concurrent_live_migrations) is 1 for each host; one
        more is kept ready.
    type: int
    default: 2
  max_evacuations:
    description:
      - Servers of one dead host in work at once; 0 means no limit. Nothing is copied from such a host, so it may be more
        than O(max_parallel).
    type: int
    default: 32
  max_per_target:
    description:
      - Servers on their way to one host at once, whoever moves them; 0 means no limit. The scheduler chooses the target,
        so it is kept as a sum over all hosts that may be one.
    type: int
    default: 0
  max_per_cluster:
    description: Servers on their way in the whole cloud at once, whoever moves them; 0 means no limit.
    type: int
    default: 0
  trait_limits:
    description:
      - Trait of a host to a limit that takes the place of O(max_parallel) for hosts that have it, where it is lower.
        Traits are read from the Hypervisor, C(status.traits) and C(spec.customTraits). Exclusive hosts are emptied one
        server after the other.
    type: dict
    default:
      CUSTOM_HANA_EXCLUSIVE_HOST: 1
  selection_sources:
    description:
      - Where a server's wishes are read. V(metadata) is the server's own and C(c5c3:ha=skip) there leaves it alone,
        C(c5c3:ha_priority=10) moves it before others. V(flavor) is its flavor's extra specs with the same keys. V(image)
        is its image's properties C(c5c3_ha) and C(c5c3_ha_priority), and its tags, such as C(c5c3_ha=skip).
      - The first of them that says something counts. A server that is left alone ends as V(Skipped), and its message
        says where that stands.
      - Metadata is written by tenants. Leave it out where they may not decide.
    type: list
    elements: str
    choices: [metadata, flavor, image]
    default: [metadata, flavor, image]
  selection_key:
    description: A further metadata key that says yes or no, such as Masakari's C(HA_Enabled).
    type: str
  opted_in_only:
    description: Leave alone every server that does not ask to be taken care of (C(c5c3:ha=keep), or O(selection_key)).
    type: bool
    default: false
  live_migratable:
    description:
      - PCI aliases that Nova has with C(live_migratable), and V(VGPU) where hypervisors migrate virtual GPUs. A running
        server with another passed-through device is not tried but ends as V(Skipped).
    type: list
    elements: str
    default: []
  restart_attempts:
    description: Hard reboots of a crashed server on its host before it is moved.
    type: int
    default: 2
  move_attempts:
    description: Migrations of a server that are tried before it is V(Failed).
    type: int
    default: 3
  attempt_timeout:
    description: Seconds after which a live migration in flight is aborted. The abort counts as a failed attempt.
    type: float
    default: 600
  backoff:
    description: Seconds between the first and the second attempt; doubled for each one more.
    type: float
    default: 5
  crash_restarts:
    description:
      - How often within O(crash_window) a server whose guest dies is restarted on its host; after that it is moved. Its
        former faults are in the annotation C(c5c3.ha/faults) of its Eviction.
      - A guest that cannot live dies again within seconds, so that this is reached soon. Bad luck hardly ever reaches it.
    type: int
    default: 10
  crash_moves:
    description:
      - How often beyond O(crash_restarts) a server is then moved, an I/O error that persists included; after that it ends as
        failed and is left alone.
    type: int
    default: 10
  crash_window:
    description:
      - Seconds within which O(crash_restarts) and O(crash_moves) count.
    type: float
    default: 600
  claim_ttl:
    description:
      - Seconds for which a claim on the Eviction holds without being renewed; it is renewed in a third of that.
    type: float
    default: 6
  evacuate_timeout:
    description:
      - Seconds after which an evacuation that no compute service has taken up is sent again. Its message was lost, or waits
        for a host that is dead too.
    type: float
    default: 180
  evacuate_from_image:
    description:
      - Whether a server whose disk no other host sees is evacuated all the same. Nova then makes it anew from its image,
        and B(its data is lost). Otherwise Nova is asked to refuse (C(onSharedStorage)), also on a target whose shared
        storage is not mounted, and the server ends as V(Failed). Servers that boot from a volume are not concerned.
    type: bool
    default: false
  fence_timeout:
    description: Seconds that one call of the fence agent may take until the host is proven off.
    type: float
    default: 60
  fencing_namespace:
    description:
      - The only namespace in which the Secrets of C(spec.fencing.secretRef) are read. Empty means the operator's own.
    type: str
    default: ""
  proof_seconds:
    description:
      - How old the proof that a host is off may be when an evacuation begins. An older one is renewed first, since somebody
        could have switched the host on. Half of what a server needs at least from power to its first guest.
    type: float
    default: 30
  unfenced_evacuation:
    description:
      - Whether a host whose Hypervisor says C(spec.fencing.agent=none) is evacuated without proof that it is off, once the
        gates let it pass. B(If it still runs, each of its guests runs twice and both write to one disk.) The condition
        C(Fenced) says so with the reason C(UnfencedByConsent).
    type: bool
    default: false
extends_documentation_fragment:
  - c5c3.ha.gates
  - c5c3.ha.kubernetes
  - c5c3.ha.openstack
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.eviction
  - module: c5c3.ha.server_migration
"""

EXAMPLES = r"""
- name: Bring back or move what the Eviction names
  c5c3.ha.evict:
    name: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    cloud: production

- name: Empty a host, four servers at a time
  c5c3.ha.evict:
    name: cmp01
    cloud: production
    max_parallel: 4

- name: Empty a host with what Masakari's users are used to
  c5c3.ha.evict:
    name: cmp01
    cloud: production
    selection_key: HA_Enabled
    max_per_cluster: 10
"""

RETURN = r"""
acts:
  description: What was done, in this order; in check mode what would be done first.
  returned: success
  type: list
  elements: dict
  sample:
    - act: Restart
      server: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
decisions:
  description:
    - What the gates said of a host that may be dead, each answer once, in the fields of its line in the log
      (see M(c5c3.ha.node_sync)). V(pass) and V(refuse) are the decisions.
  returned: when the gates were asked
  type: list
  elements: dict
  sample:
    - decision: refuse
      gate: budget
      host: cmp01
      message: "3 hosts are being evacuated (cmp02, cmp03, cmp04), and the limit is 3: this one is next"
      reason: TooManyAtOnce
      since: "2026-11-24T09:42:01.000000Z"
      time: "2026-11-24T09:43:01.402113Z"
eviction:
  description: The Eviction as it was written last; none when there is no such Eviction.
  returned: success
  type: dict
  sample:
    kind: Eviction
    metadata:
      name: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    status:
      counts:
        failed: 0
        skipped: 0
        succeeded: 1
        total: 1
msg:
  description: How it stands, in words.
  returned: success
  type: str
  sample: "Succeeded: web: restarted on cmp01"
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import evict


def main() -> None:
    """Run the step as a module."""
    run_step(evict)


if __name__ == "__main__":
    main()
