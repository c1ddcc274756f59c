# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of the gates; the defaults' reasons are in the documentation fragment c5c3.ha.gates."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown


@dataclass(frozen=True)
class Limits:
    """Settings of the gates. Shares are parts of 1, times are seconds.

    :ivar max_unhealthy_share: of all hypervisors; half, as medik8s' node health check and Kubernetes' own threshold
        (0.55) have it: with more gone the rest could not take their load.
    :ivar max_unhealthy_zone_share: of the hypervisors of one zone.
    :ivar isolated_share: from here on it is this side that is cut off, or Nova that is blind.
    :ivar settle_seconds: after a mass failure the rest gets this time to come back, as Kubernetes' node lifecycle
        controller restarts its clocks when it leaves full disruption.
    :ivar heartbeat_seconds: how old an agent's sign of life may be; agents write every 55 s at the latest.
    :ivar clock_skew_seconds: a sign of life from further in the future is taken for a wrong clock.
    :ivar max_hosts_at_once: hosts being evacuated at a time.
    :ivar max_hosts_per_cycle: evacuations that may begin within ``cooldown_seconds``.
    :ivar cooldown_seconds: long enough for a mass failure to show in the Nodes (40 s of Kubernetes' grace period).
    :ivar in_flight_seconds: a migration record that has not changed for so long is stuck; nova-compute writes progress
        every 5 s.
    """

    max_unhealthy_share: float = 0.5
    max_unhealthy_zone_share: float = 0.5
    isolated_share: float = 0.9
    settle_seconds: float = 60.0
    heartbeat_seconds: float = 120.0
    clock_skew_seconds: float = 60.0
    max_hosts_at_once: int = 3
    max_hosts_per_cycle: int = 3
    cooldown_seconds: float = 60.0
    in_flight_seconds: float = 60.0

    @classmethod
    def from_params(cls, params: dict) -> Limits:
        """The limits of the option ``gate_limits``; what is not given has its default.

        :raises ArgumentError: names the limit that makes no sense.
        """
        given = {name: value for name, value in (params.get("gate_limits") or {}).items() if value is not None}
        limits = cls(**given)
        for entry in fields(cls):
            value = getattr(limits, entry.name)
            share, count = entry.name.endswith("share"), entry.name.startswith("max_hosts")
            if not (0 < value <= 1 if share else value >= 1 if count else 0 <= value < float("inf")):
                wanted = "more than 0 and at most 1" if share else "at least 1" if count else "0 or more seconds"
                raise ArgumentError(f"gate_limits: {entry.name} {shown(value)} must be {wanted}")
        return limits


# c5c3.ha.gates
GATE_ARGS: dict[str, dict] = {
    "gate_limits": {
        "type": "dict",
        "default": {},
        "options": {
            entry.name: {"type": "int" if isinstance(entry.default, int) else "float", "default": entry.default}
            for entry in fields(Limits)
        },
    },
}
