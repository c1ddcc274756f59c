# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nova says "No valid host was found" and no more: what stands in the way of this server, and what would help. Pure.

Also the question before a host is emptied: do the others have room for what must move?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HARD_POLICIES = ("anti-affinity", "affinity")


@dataclass(frozen=True)
class Target:
    """Another hypervisor.

    :ivar usable: its nova-compute is up, enabled and not forced down.
    :ivar why_not: why it is not usable, in a word or two.
    :ivar zone: its availability zone; empty when not known.
    :ivar ram_mb: memory that may still be given away (overcommit and reserve counted), MiB; None when not known.
    :ivar vcpus: the same for virtual processors.
    """

    host: str
    usable: bool = True
    why_not: str = ""
    zone: str = ""
    ram_mb: int | None = None
    vcpus: int | None = None


@dataclass(frozen=True)
class Group:
    """A server group that the server is in.

    :ivar hosts: host to names of the group's other members there.
    :ivar max_per_host: the rule max_server_per_host of anti-affinity.
    """

    name: str
    policy: str
    hosts: Mapping[str, Sequence[str]]
    max_per_host: int = 1


@dataclass(frozen=True)
class Need:
    """What a server takes up."""

    id: str
    name: str = ""
    ram_mb: int = 0
    vcpus: int = 0


def no_room_told(failure: str) -> bool:
    """Whether Nova's words are that the scheduler found nothing."""
    text = failure.lower()
    return "no valid host" in text or "novalidhost" in text or "allocation_candidates" in text


def explain(need: Need, source: str, targets: Iterable[Target], groups: Iterable[Group], zone: str = "") -> str:
    """Why no host takes this server, and what would help, in one sentence or two.

    :param zone: the zone that the server is in, when it may not leave it; empty when it may.
    """
    others = [target for target in targets if target.host != source]
    usable = [target for target in others if target.usable]
    if not usable:
        told = ", ".join(f"{target.host} is {target.why_not or 'not usable'}" for target in others[:5])
        return f"no other hypervisor may take it ({told or 'there is none'}): enable or add one"
    in_zone = [target for target in usable if not zone or not target.zone or target.zone == zone]
    if not in_zone:
        return f"no other hypervisor of its availability zone {zone} may take it: enable or add one there"
    left = in_zone
    for group in groups:
        allowed = [target for target in left if _allows(group, target.host)]
        if not allowed:
            return _group_told(group, left, source)
        left = allowed
    small = [target for target in left if _lack(need, target)]
    if small and len(small) == len(left):
        told = "; ".join(f"{target.host} has {_lack(need, target)}" for target in small[:3])
        more = f"; and {len(small) - 3} more" if len(small) > 3 else ""
        beside = "" if len(left) == len(in_zone) else " that its server groups allow"
        return (
            f"no hypervisor{beside} has room for its {need.ram_mb} MiB and {need.vcpus} vCPU ({told}{more}):"
            " free or add capacity"
        )
    names = ", ".join(target.host for target in left[:5])
    return (
        f"{names} {'is' if len(left) == 1 else 'are'} up, with room, and allowed by its server groups: a filter of the"
        " scheduler refuses (aggregate, trait, image property); its log says which, under the request id of"
        " `openstack server event list`"
    )


def _allows(group: Group, host: str) -> bool:
    here = len(group.hosts.get(host) or ())
    if group.policy == "anti-affinity":
        return here < group.max_per_host
    if group.policy == "affinity":
        return not any(group.hosts.values()) or here > 0
    return True  # soft policies only weigh


def _group_told(group: Group, targets: list[Target], source: str) -> str:
    if group.policy == "affinity":
        there = ", ".join(sorted(host for host, names in group.hosts.items() if names))
        helps = "its members move only all at once, stopped: `openstack server migrate`, or take it out of the group"
        if there != source:
            helps = f"let {there} take it, or take it out of the group"
        return f"server group {group.name} (affinity) holds it to {there}: {helps}"
    told = ", ".join(f"{target.host} has {', '.join(group.hosts.get(target.host) or ())}" for target in targets[:5])
    limit = f", at most {group.max_per_host} a host" if group.max_per_host > 1 else ""
    return (
        f"server group {group.name} (anti-affinity{limit}) leaves no hypervisor ({told}): add or enable a hypervisor,"
        " or use the policy soft-anti-affinity"
    )


def _lack(need: Need, target: Target) -> str:
    if target.ram_mb is not None and target.ram_mb < need.ram_mb:
        return f"{target.ram_mb} MiB free"
    if target.vcpus is not None and target.vcpus < need.vcpus:
        return f"{target.vcpus} vCPU free"
    return ""


def capacity_short(needs: Iterable[Need], targets: Iterable[Target]) -> str:
    """Why the usable targets together cannot take all of this, and what would help; empty when they can.

    Places the largest first where most memory is free, as a scheduler that spreads would. Says so only when it is sure:
    a target whose room is not known may take everything.
    """
    usable = [target for target in targets if target.usable]
    if any(target.ram_mb is None or target.vcpus is None for target in usable):
        return ""
    free = {target.host: [target.ram_mb or 0, target.vcpus or 0] for target in usable}
    missing: list[Need] = []
    wanted = sorted(needs, key=lambda need: (-need.ram_mb, -need.vcpus, need.id))
    for need in wanted:
        fits = [host for host, (ram, cpu) in free.items() if ram >= need.ram_mb and cpu >= need.vcpus]
        if not fits:
            missing.append(need)
            continue
        best = max(fits, key=lambda host: (free[host][0], host))
        free[best][0] -= need.ram_mb
        free[best][1] -= need.vcpus
    if not missing:
        return ""
    ram, cpu = sum(need.ram_mb for need in wanted), sum(need.vcpus for need in wanted)
    have_ram, have_cpu = (sum(getattr(t, kind) or 0 for t in usable) for kind in ("ram_mb", "vcpus"))
    names = ", ".join(need.name or need.id for need in missing[:5])
    return (
        f"{len(wanted)} servers need {ram} MiB and {cpu} vCPU; {len(usable)} hypervisors have {have_ram} MiB and {have_cpu}"
        f" vCPU free, and {len(missing)} of them fit nowhere ({names}{', ...' if len(missing) > 5 else ''}):"
        " enable or add hypervisors, or move less"
    )
