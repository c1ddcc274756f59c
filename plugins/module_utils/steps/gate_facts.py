# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the gates look at, side by side. What cannot be read is None in the facts, with the reason beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import gate_reading as reading
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    GateFacts,
    HostWork,
    Room,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import KubernetesError
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import NODES, evictions, hypervisors

# Sizes of servers that Placement is asked about; a host of more has its most frequent ones stand for all.
MAX_SIZES = 10
_WORKERS = 6


def collect(client: Client, nova: Nova, params: dict, hosts: Iterable[str]) -> GateFacts:
    """All facts for judging `hosts`.

    :param params: ``api_group``.
    """
    return with_work(cluster(client, nova, params), nova, hosts)


def cluster(client: Client, nova: Nova, params: dict) -> GateFacts:
    """The facts of the whole cluster. Lists come page by page from the quorum, never from a cache that may be old."""
    group, now = params["api_group"], time.time()
    calls: dict[str, Callable] = {
        "nodes": lambda: _by_name(client.list(NODES, project=reading.node_facts)),
        "hypervisors": lambda: _by_name(client.list(hypervisors(group), project=reading.hypervisor_facts)),
        "evictions": lambda: {
            eviction.host: eviction
            for eviction in client.list(evictions(group), project=reading.host_eviction)
            if eviction is not None
        },
        "services": lambda: {service.host: service for service in nova.services()},
        "schedulers": lambda: tuple(nova.services(binary="nova-scheduler")),
    }
    found, troubles = _ask_all(calls)
    return GateFacts(now=now, **found, troubles=troubles)


def with_work(facts: GateFacts, nova: Nova, hosts: Iterable[str]) -> GateFacts:
    """The facts with what has to be asked for each of `hosts`."""
    work, troubles = {}, dict(facts.troubles)
    for host in hosts:
        found, failed = _ask_all(
            {
                "sizes": lambda host=host: _sizes(nova, host),
                "migrations": lambda host=host: tuple(nova.migrations(host=host)),
            }
        )
        work[host] = HostWork(**found)
        troubles.update(failed)
    return replace(facts, work={**facts.work, **work}, troubles=troubles)


def _by_name(items: list) -> dict:
    return {item.name: item for item in items}


def _sizes(nova: Nova, host: str) -> tuple[Room, ...]:
    counts: dict[tuple[int, int], int] = {}
    for server in nova.servers_on(host):
        counts[server.vcpus, server.ram_mb] = counts.get((server.vcpus, server.ram_mb), 0) + 1
    most = sorted(counts, key=lambda size: (-counts[size], size))[:MAX_SIZES]
    return tuple(Room(*size, servers=counts[size], hosts=_room(nova, *size)) for size in most)


def _room(nova: Nova, vcpus: int, ram_mb: int) -> frozenset[str] | None:
    try:
        return nova.hosts_with_room(vcpus, ram_mb)
    except NovaError:
        # The gate is open to that: the scheduler is asked anyway.
        return None


def _ask_all(calls: dict[str, Callable]) -> tuple[dict, dict[str, str]]:
    """Run the calls side by side; what fails is None, and why."""
    found, troubles = {}, {}
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
        for name, future in futures.items():
            try:
                found[name] = future.result()
            except (KubernetesError, NovaError) as error:
                found[name], troubles[name] = None, str(error)
    return found, troubles
