# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the steps that ask the gates; paired with module_utils/decisions/gate_limits.py GATE_ARGS."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment c5c3.ha.gates."""

    DOCUMENTATION = r"""
options:
  gate_limits:
    description:
      - Limits of the gates that a host has to pass before it is emptied (docs/gates.md). Shares are parts of 1.
      - Hosts in maintenance, and hosts that were proven off or emptied already, count neither as gone nor as healthy.
    type: dict
    default: {}
    suboptions:
      max_unhealthy_share:
        description:
          - Share of all hypervisors that may be not Ready. Over it nothing is done, except that a single host is never
            a mass failure. Half, as medik8s and Kubernetes (0.55) have it; with more gone the rest could not take over.
        type: float
        default: 0.5
      max_unhealthy_zone_share:
        description:
          - The same within one zone (label C(topology.kubernetes.io/zone) of the Node).
        type: float
        default: 0.5
      isolated_share:
        description:
          - From this share on it is this side that is cut off, or, counted over compute services, Nova that is blind.
        type: float
        default: 0.9
      settle_seconds:
        description:
          - A hypervisor that came back within so many seconds counts as gone beside one that is, so that after a mass
            failure the rest gets that time too, as Kubernetes restarts its clocks after a full disruption.
        type: float
        default: 60
      heartbeat_seconds:
        description:
          - Age up to which an agent's sign of life, written after the Node was lost, proves that the host lives. Agents
            write every 55 seconds at the latest, so that this is two of them.
        type: float
        default: 120
      clock_skew_seconds:
        description:
          - A sign of life from further in the future comes from a wrong clock and proves nothing.
        type: float
        default: 60
      max_hosts_at_once:
        description:
          - Hosts of the cluster that are evacuated at a time. Each is a burst of rebuilds for Nova's scheduler, for the
            image store and for the network.
        type: int
        default: 3
      max_hosts_per_cycle:
        description:
          - Evacuations that may begin within O(gate_limits.cooldown_seconds).
        type: int
        default: 3
      cooldown_seconds:
        description:
          - A mass failure shows in the Nodes within Kubernetes' grace period of 40 to 50 seconds; so long it is looked at.
        type: float
        default: 60
      in_flight_seconds:
        description:
          - A migration of the host that has changed within so many seconds is waited for. An older one is stuck, as the
            death of its host leaves it; nova-compute writes progress every 5 seconds.
        type: float
        default: 60
"""
