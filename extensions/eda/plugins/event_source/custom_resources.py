# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source c5c3.ha.custom_resources."""

from __future__ import annotations

import asyncio
from typing import Any

DOCUMENTATION = r"""
module: custom_resources
short_description: Evictions, Hypervisors, Migrations and other custom resources as events
description:
  - Lists and watches custom resources on a Kubernetes API server and gives an event for each one that is added, changed
    or deleted, and again for each that stays unfinished.
  - Goes on for ever. An API server that is away is tried again with growing intervals of at most 2 seconds, and what
    changed meanwhile is told once it is back.
  - While the rulebook is busy, changes of the same object are joined; only its newest state waits.
version_added: 0.1.0
author: The c5c3.ha authors
options:
  api_group:
    description: API group of O(kinds). CobaltCore's own operators use C(kvm.cloud.sap).
    type: str
    default: hypervisor.c5c3.io
  kinds:
    description: Kinds of O(api_group) to watch. The default is C(Eviction), or nothing when O(resources) is given.
    type: list
    elements: str
    choices: [Eviction, Hypervisor, Migration]
  resources:
    description: Other resource types to watch, or the same with selectors of their own.
    type: list
    elements: dict
    suboptions:
      kind:
        description: Kind, such as C(Eviction) or C(Node).
        type: str
        required: true
      group:
        description: API group, O(api_group) when left out; C(core) for the core group.
        type: str
      version:
        description: API version.
        type: str
        default: v1
      plural:
        description: Name in the URL, such as C(nodes). Not needed for Eviction, Hypervisor and Migration.
        type: str
      namespaced:
        description: Whether the objects live in namespaces.
        type: bool
        default: false
      namespace:
        description: Only objects of this namespace; O(namespace) when left out.
        type: str
      label_selectors:
        description: In place of O(label_selectors).
        type: list
        elements: str
      field_selectors:
        description: In place of O(field_selectors).
        type: list
        elements: str
      resync_seconds:
        description: In place of O(resync_seconds).
        type: float
      fields:
        description:
          - Dotted paths such as C(spec.maintenance). Only these parts are kept and told, beside kind and identity, and only
            a change in them is an event. For types with many or large objects that others write often.
        type: list
        elements: str
  namespace:
    description: Only objects of this namespace, for kinds that live in one. All namespaces when left out.
    type: str
  label_selectors:
    description: Only objects that match all of these, such as C(zone=a) or C(tier!=test).
    type: list
    elements: str
  field_selectors:
    description: Only objects that match all of these, such as C(metadata.name=cmp01).
    type: list
    elements: str
  resync_seconds:
    description:
      - An unfinished object whose resourceVersion has not changed for this many seconds is sent again with type RESYNC,
        and again after the same time. V(0) turns this off.
    type: float
    default: 30
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
      - Whoever gains the Lease gives an event of type ADDED, initial true, for every unfinished object.
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
  - Events are given at least once over the life of a resource. Actions must be idempotent.
"""

EXAMPLES = r"""
- name: Unfinished Evictions, one of two daemons acting
  hosts: localhost
  sources:
    - c5c3.ha.custom_resources:
        kinds: [Eviction]
        resync_seconds: 30
        lease:
          name: c5c3-ha-operator
          namespace: c5c3-ha
  rules:
    - name: Work on an Eviction
      condition: event.type in ["ADDED", "MODIFIED", "RESYNC"] and event.kind == "Eviction" and not event.finished
      action:
        print_event:

- name: CobaltCore's Evictions and Hypervisors of one zone, and Nodes
  hosts: localhost
  sources:
    - c5c3.ha.custom_resources:
        api_group: kvm.cloud.sap
        kinds: [Eviction]
        resources:
          - kind: Hypervisor
            label_selectors: [topology.kubernetes.io/zone=a]
            resync_seconds: 0
          - kind: Node
            group: core
            plural: nodes
  rules:
    - name: Show it
      condition: event.type is defined
      action:
        print_event:
"""


async def main(queue: asyncio.Queue, args: dict[str, Any]) -> None:
    """Put events into `queue` until cancelled."""
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.custom_resources import follow, render
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.engine import Engine
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.lease import candidacy
    from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import parse

    options = parse(args)
    part = candidacy(options.lease, options.auth) if options.lease else None
    await Engine(options, follow, render, part=part).run(queue)


if __name__ == "__main__":
    # PYTHONPATH=... python custom_resources.py '{"kubeconfig": "..."}' prints events until Ctrl-C.
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
