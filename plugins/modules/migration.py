#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Record the progress of a server's migration
description:
  - Creates, changes or removes a Migration resource, which reports how far the migration of a server is. It moves
    nothing; M(c5c3.ha.server_migration) does.
  - There is one Migration for each server, named as its UUID, used again for the next migration. When something goes on
    after the former one was over, what that left behind is removed and C(status.started) begins anew.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description:
      - UUID of the server.
    type: str
    required: true
  namespace:
    description:
      - Namespace of the resource, the agent's own.
    type: str
    required: true
  state:
    description:
      - V(present) creates or changes the resource, V(absent) removes it.
    type: str
    choices: [present, absent]
    default: present
  instance:
    description:
      - UUID of the server; O(name) when left out.
    type: str
  source:
    description:
      - Host that the server leaves.
    type: str
  target:
    description:
      - Host that the server goes to.
    type: str
  eviction:
    description:
      - Name of the Eviction that this migration serves.
    type: str
  status:
    description:
      - Fields of the resource's status, by their own names, such as C(origin), C(destination), C(type) or C(operation).
        V(null) as a value removes a field. Others stay. Overrides O(job).
    type: dict
  job:
    description:
      - libvirt's statistics of the job by libvirt's names, such as C(time_elapsed) or C(data_total), as the event
        C(job_completed) of the source C(c5c3.ha.libvirt) brings them; written into the status in its units.
        Unknown keys are left out.
    type: dict
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.attributes
seealso:
  - module: c5c3.ha.server_migration
"""

EXAMPLES = r"""
- name: Record that a server begins to move
  c5c3.ha.migration:
    name: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    namespace: c5c3-ha
    source: cmp01
    target: cmp02
    eviction: cmp01
    status:
      origin: cmp01
      type: unbounded
      operation: migration_out

- name: Record that it is over
  c5c3.ha.migration:
    name: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    namespace: c5c3-ha
    status:
      destination: cmp02
      type: completed
    job:
      time_elapsed: 2755
      data_total: 4294967296
"""

RETURN = r"""
action:
  description: What was done; V(created), V(updated), V(deleted) or V(unchanged).
  returned: success
  type: str
  sample: updated
msg:
  description: The same in words.
  returned: success
  type: str
  sample: Migration 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d is updated
migration:
  description: The Migration as the API server has it, empty when it was removed.
  returned: success
  type: dict
  sample:
    apiVersion: hypervisor.c5c3.io/v1alpha1
    kind: Migration
    metadata:
      name: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
      namespace: c5c3-ha
    spec:
      instance: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
      source: cmp01
      target: cmp02
    status:
      dataTotal: 4.0 GiB
      destination: cmp02
      origin: cmp01
      started: "2026-11-24T09:42:01.123456Z"
      timeElapsed: 2.755s
      type: completed
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import migration


def main() -> None:
    """Run the step as a module."""
    run_step(migration)


if __name__ == "__main__":
    main()
