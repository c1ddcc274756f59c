#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_watch
short_description: Write the progress of a live migration until it is over
description:
  - Asks libvirt every O(interval) seconds how far the live migration of a domain is, and writes that into the Migration of that
    name, which C(kubectl get migrations) shows.
  - Run on the source it ends with the migration, and writes how that ended. Run on the destination once the domain has
    arrived, it writes the end state and the destination. Where nothing is on its way it does nothing.
  - The source also names the Eviction that the migration serves, the server's own or its host's, where one is at work.
  - It reads only, from libvirt, and moves nothing. Each change is one request, at most one in O(interval) seconds beside the
    first.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  hypervisor:
    description:
      - Name of the hypervisor whose libvirt this is, equal to its Node.
    type: str
    required: true
  uri:
    description:
      - libvirt connection.
    type: str
    default: qemu:///system
  uuid:
    description:
      - UUID of the domain, which under Nova is the server's.
    type: str
    required: true
  namespace:
    description:
      - Namespace of the Migration, the agent's own.
    type: str
    required: true
  begun:
    description:
      - That the migration was seen to begin here. If nothing is on its way any more, the migration is over already, and is
        written as one that left or, where the domain still runs here, failed.
    type: bool
    default: false
  interval:
    description:
      - Seconds between two looks.
    type: float
    default: 1.0
  timeout:
    description:
      - Seconds after which the watch is given up; the migration goes on. V(0) looks once.
    type: float
    default: 3600.0
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.attributes
attributes:
  check_mode:
    details: Looks once.
  idempotent:
    support: partial
    details: As long as the migration goes on, its progress is another each time.
requirements:
  - libvirt-python
seealso:
  - module: c5c3.ha.migration
"""

EXAMPLES = r"""
- name: Follow the migration of a server
  c5c3.ha.migration_watch:
    hypervisor: cmp01
    uuid: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    namespace: c5c3-ha
"""

RETURN = r"""
outcome:
  description: >-
    What was seen last. V(left), V(arrived), V(failed) (it failed or was cancelled), V(progress) (the time was over before), or
    V(none).
  returned: success
  type: str
  sample: left
writes:
  description: How many requests changed the Migration.
  returned: success
  type: int
  sample: 5
msg:
  description: The outcome in words.
  returned: success
  type: str
  sample: "Migration 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d: the server has left"
migration:
  description: The Migration as the API server has it, empty when it was not written.
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
    status:
      dataTotal: 4.0 GiB
      origin: cmp01
      started: "2026-11-24T09:42:01.123456Z"
      timeElapsed: 2.755s
      type: completed
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import migration_watch


def main() -> None:
    """Run the step as a module."""
    run_step(migration_watch)


if __name__ == "__main__":
    main()
