# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step node_sync: what the state of all Nodes means for their hypervisors, in one run.

Level-triggered: everything is read anew and compared with what the Hypervisors say, so that a storm of events costs a
constant number of runs, and a run that was killed is made up for by the next one.
"""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS, OPENSTACK_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import GATE_ARGS, Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.node_state import Timeouts
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import OPERATOR_MANAGER
from ansible_collections.c5c3.ha.plugins.module_utils.steps.node_sync.sync import Sync

ARGUMENTS = {
    "argument_spec": {
        "not_ready_seconds": {"type": "float", "default": 300.0},
        "unreachable_seconds": {"type": "float", "default": 60.0},
        "return_seconds": {"type": "float", "default": 120.0},
        **GATE_ARGS,
        **KUBERNETES_ARGS,
        **OPENSTACK_ARGS,
    },
}


def run(params: dict, check_mode: bool) -> dict:
    """Bring Hypervisors, compute services and Evictions in line with the Nodes.

    :returns: changed, msg, decisions, next_check, nodes, diff, and warnings when something could not be written.
    :raises HaError: wrong arguments, or Kubernetes does not tell its Nodes: then nothing is decided.
    """
    timeouts, limits = Timeouts.from_params(params), Limits.from_params(params)
    with Client.from_params(params, OPERATOR_MANAGER) as client:
        return Sync(client, Nova.from_params(params), params, timeouts, limits, check_mode).run()
