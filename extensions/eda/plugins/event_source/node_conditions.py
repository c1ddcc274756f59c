# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source c5c3.ha.node_conditions."""

from __future__ import annotations

import asyncio
from typing import Any

DOCUMENTATION = r"""
module: node_conditions
short_description: What becomes of Kubernetes Nodes as events
description:
  - Lists and watches Nodes on a Kubernetes API server and gives an event when a Node becomes Ready, NotReady or Unreachable,
    comes under pressure, is deleted, or has been so for too long.
  - Only transitions leave the source, not the kubelets' many signs of life. Those of a moment are one event, which lists its
    Nodes; and while the rulebook is busy, everything that happens is joined. A failure of hundreds of Nodes is a handful
    of events.
  - Clocks begin at the C(lastTransitionTime) of the condition Ready, so that a restarted daemon neither forgets a Node nor
    starts its clock anew.
  - Goes on for ever. An API server that is away is tried again with growing intervals of at most 2 seconds. As long as it is
    away no clock is told, and what changed meanwhile is told once it is back.
version_added: 0.1.0
author: The c5c3.ha authors
options:
  label_selectors:
    description:
      - Only Nodes that match all of these. The default takes the Nodes with that label, whatever its value, as CobaltCore
        marks hypervisors; V([]) takes all Nodes.
    type: list
    elements: str
    default: [nova.openstack.cloud.sap/virt-driver]
  field_selectors:
    description: Only Nodes that match all of these, such as C(metadata.name=cmp01).
    type: list
    elements: str
  not_ready_seconds:
    description: Seconds after which a Node with Ready=False is overdue. The kubelet speaks, and its guests run.
    type: float
    default: 300
  unreachable_seconds:
    description:
      - Seconds after which a Node with Ready=Unknown is overdue. Kubernetes has waited its own grace period before that.
    type: float
    default: 60
  return_seconds:
    description: Seconds for which a Node has to be Ready again until it is told as returned. V(0) turns that off.
    type: float
    default: 120
  resync_seconds:
    description: Overdue Nodes are told again after so many seconds, as long as there are any. V(0) turns that off.
    type: float
    default: 30
  heartbeat_seconds:
    description: Seconds between two signs of life of the source. V(0) turns them off.
    type: float
    default: 30
  join_window:
    description:
      - Transitions within so many seconds are one event. While more of them follow, the time between two events grows to 2
        seconds.
    type: float
    default: 0.2
  conditions:
    description: Conditions of a Node, besides Ready, that mean trouble when they are True.
    type: list
    elements: str
    default: [DiskPressure, MemoryPressure, PIDPressure, NetworkUnavailable]
  watch_timeout:
    description:
      - Seconds after which the server is asked to end a watch, which is then opened anew at the same place. A server that
        hangs is noticed at most five seconds later.
    type: float
    default: 45
  lease:
    description:
      - With a Lease, of several daemons with the same Lease only the holder gives events. The others watch silently.
      - Sources of one rulebook that name the same Lease hold it together.
      - Whoever gains the Lease gives an event of type INIT_DONE with all Nodes that are not well, and tells clocks that have run out.
      - A holder that cannot renew the Lease gives no event after O(lease.renew_deadline), before another may follow.
    type: dict
    suboptions:
      name:
        description: Name of the Lease.
        type: str
        required: true
      namespace:
        description: Namespace of the Lease.
        type: str
        default: default
      duration:
        description: Whole seconds after which a Lease that is not renewed may be taken.
        type: int
        default: 10
      renew_deadline:
        description: Seconds after which a holder that could not renew stops. The default is 0.65 of the duration.
        type: float
      retry_period:
        description: Seconds between two attempts. The default is 0.2 of the duration.
        type: float
  kubeconfig:
    description:
      - Path of a kubeconfig. Without it E(K8S_AUTH_KUBECONFIG) and E(KUBECONFIG), the pod's service account and
        C(~/.kube/config) are tried in this order.
    type: path
  context:
    description: Context in the kubeconfig, the current one when left out.
    type: str
  host:
    description: URL of the API server, in place of a kubeconfig.
    type: str
  api_key:
    description: Bearer token.
    type: str
  token_file:
    description: File that holds a bearer token. It is read again when it changes.
    type: path
  ca_cert:
    description: File with the CA certificates of the API server.
    type: path
  client_cert:
    description: File with a client certificate.
    type: path
  client_key:
    description: File with the key of O(client_cert).
    type: path
  validate_certs:
    description: Whether to check the API server's certificate.
    type: bool
  request_timeout:
    description: Seconds for one request that is not a watch.
    type: float
    default: 30
notes:
  - Needs the Python package kubernetes_asyncio in the interpreter of ansible-rulebook.
  - Wrong options end the source at its start with one sentence. After that it neither ends nor raises.
  - The collection must be importable, so E(PYTHONPATH) names the folder that holds C(ansible_collections).
  - The user needs get, list and watch for C(nodes); with O(lease) also get, create and update for Leases.
"""

EXAMPLES = r"""
- name: Nodes that are gone for a minute
  hosts: localhost
  sources:
    - c5c3.ha.node_conditions:
        unreachable_seconds: 60
  rules:
    - name: Somebody should look
      condition: event.type == "OVERDUE" and event.unreachable > 0
      action:
        debug:
          msg: "{{ event.names | join(', ') }}: {{ event.unreachable }} of {{ event.total }} Nodes are unreachable"
    - name: A disk fills up
      condition: event.type == "TRANSITION" and event.nodes is selectattr("problems", "contains", "DiskPressure")
      action:
        print_event:
"""


async def main(queue: asyncio.Queue, args: dict[str, Any]) -> None:
    """Put events into `queue` until cancelled."""
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.engine import Engine
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.lease import candidacy
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.nodes import KnownNodes, Tokens, render
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Watched, parse_nodes

    options, node_options = parse_nodes(args)

    def follow(watched: Watched) -> KnownNodes:
        return KnownNodes(watched.resource, node_options, watched.resync_seconds)

    part = candidacy(options.lease, options.auth) if options.lease else None
    await Engine(options, follow, render, outbox=Tokens(), part=part).run(queue)


if __name__ == "__main__":
    # PYTHONPATH=... python node_conditions.py '{"kubeconfig": "..."}' prints events until Ctrl-C.
    import json
    import logging
    import sys

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    class _Printer:
        async def put(self, event: dict) -> None:
            print(json.dumps(event), flush=True)

    try:
        asyncio.run(main(_Printer(), json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")))
    except KeyboardInterrupt:
        pass
