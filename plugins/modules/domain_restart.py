#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: domain_restart
short_description: Restart a libvirt domain on its own host and see that it stays up
description:
  - Looks at the domain's state, does what that asks for, and succeeds only when the domain was seen to begin anew and
    then stayed running for O(verify_seconds). Otherwise it fails, so that a rulebook can go on with an Eviction.
  - A domain whose shut-off reason says that it was migrated away is never started, since it runs elsewhere on the same
    disk. One that libvirt is at work on is left alone.
  - Every libvirt call is bounded in time, also against a daemon that hangs.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  uri:
    description:
      - libvirt connection.
    type: str
    default: qemu:///system
  uuid:
    description:
      - UUID of the domain, which under Nova is the server's.
      - One of O(uuid) and O(name) is required.
    type: str
  name:
    description:
      - Name of the domain.
    type: str
  method:
    description:
      - V(auto) resets a running domain, resets and resumes one that its watchdog paused, resumes one that an I/O error
        paused, destroys and starts a crashed one, and starts one whose QEMU died. One that somebody paused or switched
        off is left alone, and the task is unchanged.
      - V(reset) restarts the guest without asking it, V(reboot) asks it.
      - V(start) makes the domain run and does not restart one that runs.
      - V(resume) lets a guest go on that an I/O error suspended, and leaves alone every other one.
      - V(verify) does nothing and only looks, for a domain that its watchdog has reset already. Its QEMU must answer.
    type: str
    choices: [auto, reset, reboot, start, resume, verify]
    default: auto
  timeout:
    description:
      - Seconds until the domain must have begun anew.
    type: float
    default: 30.0
  verify_seconds:
    description:
      - Seconds that the domain must stay running after that.
    type: float
    default: 5.0
extends_documentation_fragment:
  - c5c3.ha.attributes
attributes:
  idempotent:
    support: partial
    details: V(start) and V(verify) are; the others restart a running domain each time, which is what they are for.
requirements:
  - libvirt-python
seealso:
  - module: c5c3.ha.eviction
"""

EXAMPLES = r"""
- name: Restart a server whose watchdog has paused it
  c5c3.ha.domain_restart:
    uuid: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d

- name: See that a server is well which its watchdog has reset
  c5c3.ha.domain_restart:
    uuid: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
    method: verify
    verify_seconds: 10
"""

RETURN = r"""
actions:
  description: libvirt calls that were made, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample: [reset, resume]
msg:
  description: What was found and done, in words.
  returned: success
  type: str
  sample: "domain 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d at qemu:///system is PAUSED (WATCHDOG): reset and resumed"
verified:
  description: Whether the domain was seen to run and to stay so. False where it was left alone, and in check mode.
  returned: success
  type: bool
  sample: true
domain:
  description: The domain afterwards; C(id) is libvirt's number of the running domain, new with each QEMU process.
  returned: success
  type: dict
  sample:
    id: 12
    name: instance-00000001
    reason: UNPAUSED
    state: RUNNING
    uuid: 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d
events:
  description: libvirt's events of the domain meanwhile.
  returned: success
  type: list
  elements: str
  sample: [REBOOT, RESUMED]
elapsed:
  description: Seconds from the connection to the end.
  returned: success
  type: float
  sample: 5.214
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import domain_restart


def main() -> None:
    """Run the step as a module."""
    run_step(domain_restart)


if __name__ == "__main__":
    main()
