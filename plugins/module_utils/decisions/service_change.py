# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change on a nova-compute service: pure functions."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServiceFacts

# How the disabled_reason begins of a compute service that we disabled, by what for.
EVICTION_REASON = "c5c3.ha: Eviction"
PRESSURE_REASON = "c5c3.ha: pressure"
MAINTENANCE_REASON = "c5c3.ha: maintenance"


def change(
    service: ServiceFacts,
    state: str | None,
    reason: str | None,
    forced_down: bool | None,
    only_if_reason: str | None,
) -> dict:
    """The fields to send to Nova, empty when the service is so already.

    :param only_if_reason: touch a disabled service only if its reason begins so: what a person or Nova itself
        ("AUTO: ...") disabled is not ours to enable, nor is its reason ours to overwrite.
    """
    wanted: dict = {}
    ours = only_if_reason is None or service.disabled_reason.startswith(only_if_reason)
    if state == "enabled" and not service.enabled and ours:
        wanted["status"] = "enabled"
    if state == "disabled" and (service.enabled or (reason is not None and service.disabled_reason != reason and ours)):
        wanted["status"] = "disabled"
        if reason:
            wanted["disabled_reason"] = reason
    if forced_down is not None and service.forced_down != forced_down:
        wanted["forced_down"] = forced_down
    return wanted


def changed_facts(service: ServiceFacts, wanted: dict) -> ServiceFacts:
    """The service as it is after the change."""
    after = service
    if "status" in wanted:
        enabled = wanted["status"] == "enabled"
        after = replace(after, enabled=enabled, disabled_reason="" if enabled else wanted.get("disabled_reason", ""))
    if "forced_down" in wanted:
        down = wanted["forced_down"]
        after = replace(after, forced_down=down, up=after.up and not down)
    return after
