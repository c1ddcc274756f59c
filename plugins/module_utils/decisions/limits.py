# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much may be in work at once: per source host, per target, in the whole cluster, and per trait of the host.

Pure: who is in work and who wants to begin come in, who may begin now comes out. Whoever is at work is never counted
out; a limit that is passed already (somebody else migrates too) only keeps new work from beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

# Acts that begin work on a server. Every other one ends work that is begun, and must never wait for a place.
BEGIN = frozenset({"Restart", "LiveMigrate", "ColdMigrate", "Evacuate"})
# Of these the ones that bring a server to another host.
MOVE = BEGIN - {"Restart"}


@dataclass(frozen=True)
class Limits:
    """The site's limits; 0 means no limit.

    :ivar per_host: servers of one living source host in work at once.
    :ivar evacuations: servers of one dead source host in work at once. Nothing is copied from there, so it may be more.
    :ivar per_target: servers on their way to one host at once.
    :ivar per_cluster: servers on their way in the whole cloud at once, whoever moves them.
    :ivar per_trait: trait of the source host to a limit that takes the place of per_host where it is lower; of several
        the lowest counts (upstream's --eviction-trait-concurrency).
    """

    per_host: int = 2
    evacuations: int = 32
    per_target: int = 0
    per_cluster: int = 0
    per_trait: Mapping[str, int] = field(default_factory=dict)

    def of_host(self, traits: Iterable[str]) -> int:
        """The limit that holds for a living source host with these traits; 0 for none."""
        lowest = [limit for trait in traits if (limit := self.per_trait.get(trait, 0)) > 0]
        return min(filter(None, (self.per_host, *lowest)), default=0)


@dataclass(frozen=True)
class Load:
    """What is in work now.

    :ivar here: servers of this source host that are in work.
    :ivar to_target: host to servers on their way to it, for every host that may take some (0 for none on the way).
    :ivar cluster: servers on their way in the whole cloud, those of this host included.
    :ivar unplaced: those of them whose target Nova has not said yet.
    :ivar traits: the source host's traits.
    """

    here: int = 0
    to_target: Mapping[str, int] = field(default_factory=dict)
    cluster: int = 0
    unplaced: int = 0
    traits: frozenset[str] = frozenset()


def may_begin(wanting: Iterable[tuple[str, str]], limits: Limits, load: Load) -> set[str]:
    """Who may begin now.

    The scheduler chooses the targets, so the limit per target comes to one sum: no more on the way than all targets
    together may take, and none while no target is free.

    :param wanting: (server, act) of those at rest that an act is decided for, the most urgent first. Acts that are not
        in BEGIN come through always.
    """
    begun = moved = 0
    chosen = set()
    for server, act in wanting:
        if act in BEGIN:
            now = replace(load, here=load.here + begun, cluster=load.cluster + moved)
            # One that may not begin does not stand in the way of one that may: a restart needs no place on a target.
            if _refusal(act, limits, now, moved):
                continue
            begun += 1
            moved += act in MOVE
        chosen.add(server)
    return chosen


def waiting_for(act: str, limits: Limits, load: Load) -> str:
    """Which limit keeps an act from beginning, in words for the server's message; empty when none does."""
    return _refusal(act, limits, load, 0) if act in BEGIN else ""


def _refusal(act: str, limits: Limits, load: Load, moved: int) -> str:
    """:param moved: moves that are begun with this one; they are in ``load`` but for its targets."""
    here = limits.evacuations if act == "Evacuate" else limits.of_host(load.traits)
    if here and load.here >= here:
        by = (
            ""
            if act == "Evacuate" or here == limits.per_host
            else f", by the host's trait {_trait(here, limits, load)}"
        )
        return f"waiting for a place: at most {here} servers of this host are in work at once{by}"
    if act not in MOVE:
        return ""
    if limits.per_cluster and load.cluster >= limits.per_cluster:
        return f"waiting for a place: at most {limits.per_cluster} servers of the cloud are moved at once"
    if limits.per_target and load.to_target:
        free = sum(max(0, limits.per_target - count) for count in load.to_target.values())
        if moved + load.unplaced >= free:
            return f"waiting for a place: each target takes at most {limits.per_target} servers at once"
    return ""


def _trait(limit: int, limits: Limits, load: Load) -> str:
    return next((trait for trait in sorted(load.traits) if limits.per_trait.get(trait, 0) == limit), "")
