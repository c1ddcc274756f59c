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
  - A host whose nova-compute is down is left alone and its Eviction waits. Nothing is evacuated by this module.
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
      - Servers of one Eviction in work at once. Nova's own C(max_concurrent_live_migrations) is 1 for each host; one
        more is kept ready.
    type: int
    default: 2
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
  claim_ttl:
    description:
      - Seconds for which a claim on the Eviction holds without being renewed; it is renewed in a third of that.
    type: float
    default: 6
extends_documentation_fragment:
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
