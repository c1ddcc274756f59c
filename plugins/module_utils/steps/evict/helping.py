# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks Nova and Placement what decisions/placement_help explains: only after a failure, and once before a host is emptied."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.movable import site_remedy
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.placement_help import (
    Group,
    Need,
    Target,
    capacity_short,
    explain,
    no_room_told,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts, ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError

# Members of a server group that are asked about, one request each.
MAX_MEMBERS = 20


def with_help(nova: Nova, server: str, source: str, failure: str) -> str:
    """Nova's words of a failure, and what would help: where no host was found, why; where the site is at fault, what to look at."""
    if not no_room_told(failure):
        helps = site_remedy(failure)
        return f"{failure.rstrip('. ')}: {helps}" if helps else failure
    try:
        facts = nova.server(server)
        if facts is None:
            return failure
        groups = [group for each in facts.groups if (group := _group(nova, each, server))]
        return f"{failure.rstrip('. ')}: {explain(_need(facts), source, _targets(nova, nova.services()), groups)}"
    except NovaError:
        return failure


def no_capacity(nova: Nova, host: str, servers: Iterable[ServerFacts], services: list[ServiceFacts]) -> str:
    """Why the other hypervisors cannot take what must leave ``host``; empty when they can, or nobody knows."""
    needs = [_need(server) for server in servers]
    if not needs:
        return ""
    try:
        targets = _targets(nova, services)
    except NovaError:
        return ""
    return capacity_short(needs, [target for target in targets if target.host != host])


def _need(server: ServerFacts) -> Need:
    return Need(server.id, server.name, server.ram_mb, server.vcpus)


def _targets(nova: Nova, services: list[ServiceFacts]) -> list[Target]:
    try:
        room = nova.free_room()
    except NovaError:
        room = {}
    targets = []
    for service in services:
        why = "forced down" if service.forced_down else "" if service.up else "down"
        why = why or ("" if service.enabled else "disabled")
        vcpus, ram_mb = room.get(service.host, (None, None))
        targets.append(Target(service.host, not why, why, ram_mb=ram_mb, vcpus=vcpus))
    return targets


def _group(nova: Nova, group: str, server: str) -> Group | None:
    facts = nova.group(group)
    if facts is None:
        return None
    hosts: dict[str, list[str]] = {}
    for member in [each for each in facts.members if each != server][:MAX_MEMBERS]:
        there = nova.server(member)
        if there and there.host:
            hosts.setdefault(there.host, []).append(there.name or there.id)
    return Group(facts.name, facts.policy, hosts, facts.max_per_host)
