#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_migration
short_description: Move a server to another hypervisor, or stop its move
description:
  - Live-migrates, cold-migrates or evacuates a server, confirms a cold migration, or aborts a live migration.
  - Two routes, never mixed. A server of a living host is migrated; one of a host that is proven to be off is evacuated.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  server:
    description: UUID of the server.
    type: str
    required: true
  method:
    description:
      - V(live) for a running server, V(cold) for a stopped one; it ends in VERIFY_RESIZE and wants V(confirm).
      - V(evacuate) rebuilds a server of a dead host elsewhere.
      - V(abort) cancels a live migration in flight.
    type: str
    choices: [live, cold, evacuate, confirm, abort]
    required: true
  source:
    description:
      - Host to leave. A server that is elsewhere is left alone, so that a second run changes nothing.
      - This or O(target) is needed for V(live), V(cold) and V(evacuate).
    type: str
  target:
    description: Host to go to. Nova's scheduler chooses when left out.
    type: str
  host_is_off:
    description:
      - Says that the server's host was proven to be off. O(method=evacuate) is refused without it.
    type: bool
    default: false
  wait:
    description: Wait until Nova is done, and fail with its reason when it failed.
    type: bool
    default: true
  timeout:
    description: Seconds to wait.
    type: float
    default: 600
extends_documentation_fragment:
  - c5c3.ha.openstack
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.evict
  - module: openstack.cloud.server_action
"""

EXAMPLES = r"""
- name: Move a running server off a host
  c5c3.ha.server_migration:
    cloud: production
    server: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    method: live
    source: cmp01

- name: Rebuild a server of a fenced host
  c5c3.ha.server_migration:
    cloud: production
    server: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    method: evacuate
    source: cmp01
    host_is_off: true
"""

RETURN = r"""
server:
  description: The server afterwards.
  returned: success
  type: dict
  sample:
    host: cmp02
    id: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    name: web
    status: ACTIVE
    task_state:
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import server_migration


def main() -> None:
    """Run the step as a module."""
    run_step(server_migration)


if __name__ == "__main__":
    main()
