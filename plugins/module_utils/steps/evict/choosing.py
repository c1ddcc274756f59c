# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is worked on, in which order and how many at once: gathers what decisions/evict_choice decides on."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_choice import (
    at_work,
    begin_now,
    in_turn,
    keep_out,
    load_of,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Context, Decision, Entry
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.limits import MOVE, Limits, Load
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.selection import SOURCES, Choice, Rules, Wishes, choose
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts, ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, KubernetesError
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import hypervisors, shown
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.claim import Claim

# What the step takes beside its own options; documented in the module evict.
CHOOSING_ARGS: dict[str, dict] = {
    "max_parallel": {"type": "int", "default": 2},
    "max_evacuations": {"type": "int", "default": 32},
    "max_per_target": {"type": "int", "default": 0},
    "max_per_cluster": {"type": "int", "default": 0},
    "trait_limits": {"type": "dict", "default": {"CUSTOM_HANA_EXCLUSIVE_HOST": 1}},
    "selection_sources": {"type": "list", "elements": "str", "choices": list(SOURCES), "default": list(SOURCES)},
    "selection_key": {"type": "str", "no_log": False},
    "opted_in_only": {"type": "bool", "default": False},
    "live_migratable": {"type": "list", "elements": "str", "default": []},
}


def check_choosing(params: dict) -> None:
    """Refuse what cannot be meant.

    :raises ArgumentError: names the option and the value.
    """
    if not params["max_parallel"] > 0:
        raise ArgumentError(f"max_parallel {shown(params['max_parallel'])} must be more than 0")
    for option in ("max_evacuations", "max_per_target", "max_per_cluster"):
        if params[option] < 0:
            raise ArgumentError(f"{option} {shown(params[option])} must not be negative; 0 means no limit")
    limits_of(params)


def limits_of(params: dict) -> Limits:
    """The site's limits.

    :raises ArgumentError: a limit of a trait is no whole number above 0.
    """
    by_trait: dict[str, int] = {}
    for trait, limit in (params["trait_limits"] or {}).items():
        try:
            by_trait[str(trait)] = int(str(limit), 10)
        except ValueError:
            by_trait[str(trait)] = 0
        if by_trait[str(trait)] < 1:
            raise ArgumentError(f"trait_limits: {shown(trait)} has {shown(limit)}: give a whole number above 0")
    return Limits(
        per_host=params["max_parallel"],
        evacuations=params["max_evacuations"],
        per_target=params["max_per_target"],
        per_cluster=params["max_per_cluster"],
        per_trait=by_trait,
    )


class Choosing:
    """The choice for one Eviction."""

    def __init__(self, client: Client, nova: Nova, params: dict, claim: Claim) -> None:
        self.client = client
        self.nova = nova
        self.claim = claim
        self.group = params["api_group"]
        self.limits = limits_of(params)
        self.rules = Rules(
            tuple(params["selection_sources"] or ()), params["selection_key"] or "", bool(params["opted_in_only"])
        )
        self.live_migratable = frozenset(params["live_migratable"] or ())
        self._servers: dict[str, ServerFacts] = {}
        self._images: dict[str, Future] = {}
        self._choices: dict[str, Choice] = {}
        self._traits: frozenset[str] | None = None

    def read(self, servers: dict[str, ServerFacts | None]) -> None:
        """Begin to read the wishes of servers that are new here; their images' are asked for in the background."""
        for key, server in servers.items():
            if server and key not in self._servers:
                self._servers[key] = server
                image = server.image if "image" in self.rules.sources else ""
                if image and image not in self._images:
                    self._images[image] = self.claim.pool.submit(self.nova.image_wishes, image)

    def _choice(self, server: str) -> Choice:
        """What a server's wishes come to, once its image's are there."""
        if server not in self._choices:
            facts = self._servers.get(server)
            if facts is None:
                return Choice()
            properties, tags = {}, ()
            if facts.image in self._images:
                properties, tags = self.claim.call_all({0: self._images[facts.image].result})[0]
            self._choices[server] = choose(Wishes(facts.metadata, facts.extra_specs, properties, tags), self.rules)
        return self._choices[server]

    def wanted(self, servers: list[ServerFacts]) -> list[ServerFacts]:
        """Those that will not be left alone by their own wish."""
        return [server for server in servers if not self._choice(server.id).skip]

    def turn(self, entries: dict[str, Entry], servers: dict[str, ServerFacts | None], living: bool) -> set[str]:
        """Which servers are worth a closer look in this pass.

        :param living: whether the host answers, so that a closer look costs it something.
        """
        room = 2 * max(self.limits.per_host, 1) + 2
        if not living or len(entries) <= room:
            return set(entries)
        return in_turn(entries, servers, self._priorities(entries), room)

    def _priorities(self, keys: Iterable[str]) -> dict[str, int]:
        return {key: self._choice(key).priority for key in keys}

    def begin(
        self,
        entries: dict[str, Entry],
        decided: dict[str, Decision],
        servers: dict[str, ServerFacts | None],
        services: list[ServiceFacts],
        context: Context,
    ) -> tuple[dict[str, Entry], list[Decision]]:
        """The entries to write and the acts to do now."""
        decided = {
            key: keep_out(decision, servers.get(key), self._choice(key), context, self.live_migratable)
            for key, decision in decided.items()
        }
        load = self._load(decided, servers, services, context)
        return begin_now(entries, decided, self._priorities(decided), self.limits, load)

    def _load(
        self,
        decided: dict[str, Decision],
        servers: dict[str, ServerFacts | None],
        services: list[ServiceFacts],
        context: Context,
    ) -> Load:
        working = at_work(decided, servers)
        moving = any(decision.act in MOVE for decision in decided.values())
        traits = self._host_traits(context.source) if moving and context.whole_host else frozenset()
        if not moving or not (self.limits.per_target or self.limits.per_cluster):
            return Load(here=len(working), traits=traits)
        targets = [
            service.host for service in services if service.up and service.enabled and service.host != context.source
        ]
        return load_of(working, self.nova.moves_under_way(), targets, traits)

    def _host_traits(self, host: str) -> frozenset[str]:
        if not self.limits.per_trait:
            return frozenset()
        if self._traits is None:
            try:
                found = self.client.get(hypervisors(self.group), host) or {}
            except KubernetesError:
                return frozenset()
            told = ((found.get("status") or {}).get("traits"), (found.get("spec") or {}).get("customTraits"))
            self._traits = frozenset(str(trait) for traits in told for trait in traits or ())
        return self._traits
