#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fence
short_description: Switch a host off for certain, or ask whether it is on
description:
  - Reads C(spec.fencing) of the Hypervisor and the Secret that it names, and asks the management controller by a
    ClusterLabs fence agent. First the controller must prove that it is the host's own.
  - V(off) counts only when that system itself says, twice and later than the command, that it is off. The task fails in
    every other case, with RV(reason) and what to do.
  - It never restarts a host, and never switches one on.
  - For a person, and to try a configuration before it is needed. The operator does the same by itself before it
    evacuates a host.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  name:
    description:
      - Name of the Hypervisor.
    type: str
    required: true
  action:
    description:
      - V(status) asks and changes nothing. V(off) switches the host off.
      - Servers that run on the host die with it.
    type: str
    choices: [status, "off"]
    default: status
  deadline:
    description:
      - Seconds after which the task gives up, whatever hangs.
    type: float
    default: 60.0
  confirm_seconds:
    description:
      - Seconds between the two answers that prove V(off). In the middle of a power cycle a host is off for a moment.
    type: float
    default: 2.0
  fencing_namespace:
    description:
      - The only namespace whose Secrets are read; that of the pod this runs in when empty, and C(c5c3-ha) outside one.
    type: str
    default: ""
extends_documentation_fragment:
  - c5c3.ha.kubernetes
  - c5c3.ha.attributes
attributes:
  idempotent:
    support: full
requirements:
  - fence-agents and, for IPMI, ipmitool, where the task runs
notes:
  - Run it where the operator runs, which is what must reach the management controllers.
  - The step does not tell Nova anything, and moves no server; an Eviction does that (M(c5c3.ha.eviction)).
seealso:
  - module: c5c3.ha.hypervisor
  - module: c5c3.ha.eviction
"""

EXAMPLES = r"""
- name: See whether fencing of a host is configured well
  c5c3.ha.fence:
    name: cmp01

- name: Switch it off
  c5c3.ha.fence:
    name: cmp01
    action: "off"
    deadline: 120

# ansible localhost -m c5c3.ha.fence -a 'name=cmp01'
"""

RETURN = r"""
"off":
  description: Whether the host is proven off.
  returned: always
  type: bool
  sample: true
power:
  description: What the right system said last; V(on), V(off) or V(unknown).
  returned: always
  type: str
  sample: "off"
reason:
  description:
    - V(Off), V(AlreadyOff) or V(On); or why it failed, V(NotConfigured), V(NoFencing), V(WrongSystem),
      V(AuthenticationFailed), V(Unreachable), V(StaysOn), V(Timeout), V(AgentMissing), V(InvalidTarget) or V(AgentFailed).
  returned: always
  type: str
  sample: "Off"
seconds:
  description: How long it took.
  returned: always
  type: float
  sample: 4.113
msg:
  description: What was seen, and what to do where it failed.
  returned: always
  type: str
  sample: cmp01 was switched off, 192.0.2.9 says so
"""

from ansible_collections.c5c3.ha.plugins.module_utils.module import run_step
from ansible_collections.c5c3.ha.plugins.module_utils.steps import fence


def main() -> None:
    """Run the step as a module."""
    run_step(fence)


if __name__ == "__main__":
    main()
