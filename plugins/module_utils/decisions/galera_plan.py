# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be done with a Galera cluster, given what each of its members tells of itself.

A view is what the module ``galera_info`` returns as ``node`` for one host, or None for a host that could not be asked. All
members are looked at together: who forms a cluster from half of them makes two.

The rules are Galera's own (grastate.dat, primary component, wsrep-recover; MariaDB's "Getting started" and "Recovering a
primary component"): only one member starts a new cluster, and only when no primary component can exist; after a crash the
member with the highest seqno of the one uuid starts first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

View = Mapping[str, Any]
NO_UUID = "00000000-0000-0000-0000-000000000000"
RECOVER = "ansible-playbook c5c3.ha.recover_galera"


@dataclass(frozen=True)
class Plan:
    """What to do. With a ``refusal`` nothing may be touched; it says what a human does next.

    :param seed: the member that starts a new cluster, or empty.
    :param joiners: members to start one after another.
    :param primary: members that are part of the primary component.
    :param away: members that could not be asked.
    """

    refusal: str = ""
    seed: str = ""
    joiners: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    away: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return it as Ansible's plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def real_uuid(view: View) -> str:
    """Return the uuid of the cluster whose data the member holds, or "" when it holds none."""
    for found in (
        view.get("cluster_uuid"),
        (view.get("recovered") or {}).get("uuid"),
        (view.get("grastate") or {}).get("uuid"),
    ):
        if found and found != NO_UUID:
            return found
    return ""


def kind(view: View | None) -> str:
    """Return what a member is.

    away: not asked. primary: in the primary component. waiting: runs, in none. mute: its process runs and does not answer
    (starting, receiving its data, or frozen). stopped: does not run, holds a cluster's data. owned: holds databases that no
    cluster gave it. fresh: holds nothing.
    """
    if view is None:
        return "away"
    if view.get("answers") and view.get("wsrep"):
        return "primary" if view.get("cluster_status") == "Primary" else "waiting"
    if view.get("running") and not view.get("answers"):
        return "mute"
    if not view.get("running") and real_uuid(view):
        return "stopped"
    # with grastate.dat they are what a broken transfer left
    return "owned" if view.get("databases") and not view.get("grastate") else "fresh"


def misfit(members: Sequence[str]) -> str:
    """Return why these cannot be a cluster's members, or ""."""
    twice = sorted({name for name in members if list(members).count(name) > 1})
    if twice:
        return f"{', '.join(twice)} is named more than once in galera_members; name each member once."
    if len(members) < 3 or len(members) % 2 == 0:
        return (
            f"Galera keeps quorum only with an odd number of members of at least 3, and {len(members)} are named "
            f"({', '.join(members) or 'none'}). Name 3 or 5 in galera_members, or have as many in the group galera."
        )
    return ""


def _kinds(members: Sequence[str], views: Mapping[str, View | None]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in members:
        found.setdefault(kind(views.get(name)), []).append(name)
    return found


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def _foreign(members: Sequence[str], views: Mapping[str, View | None], cluster_name: str, datadir: str) -> str:
    """Return why some member belongs elsewhere, or ""."""
    for name in members:
        view = views.get(name)
        if kind(view) == "owned":
            return (
                f"{name} has databases of its own ({_names(view['databases'][:5])}) and would lose them by joining. Dump what "
                f"is needed, then on {name}: systemctl stop mariadb && mv {datadir} {datadir}.old; and run this again."
            )
        told = (view or {}).get("cluster_name")
        if view and view.get("wsrep") and told and told != cluster_name:
            return (
                f"{name} is a member of the cluster {told!r}, not of {cluster_name!r}. Set galera_cluster_name to {told!r} if "
                f"that is the one meant; else take {name} out of it first (systemctl stop mariadb, then mv {datadir} "
                f"{datadir}.old) and run this again."
            )
    return ""


def _of_one_cluster(members: Sequence[str], views: Mapping[str, View | None], uuid: str, datadir: str) -> str:
    for name in members:
        other = real_uuid(views.get(name) or {})
        if other and other != uuid:
            return (
                f"{name} holds the data of another cluster ({other}, the running one is {uuid}) and would lose it by joining. "
                f"When it is not needed, on {name}: systemctl stop mariadb && mv {datadir} {datadir}.old; and run this again."
            )
    return ""


def plan(
    members: Sequence[str],
    views: Mapping[str, View | None],
    cluster_name: str,
    acting: Sequence[str],
    datadir: str = "/var/lib/mysql",
) -> Plan:
    """Return how to get from what is to a running cluster, or why not.

    :param members: all members, the first is the one that starts a new cluster.
    :param views: what each tells; None for one that could not be asked.
    :param acting: the members of this run (fewer than all with ``--limit``): only they are started.
    """
    refusal = misfit(members) or _foreign(members, views, cluster_name, datadir)
    if refusal:
        return Plan(refusal=refusal)
    kinds = _kinds(members, views)
    away, primary = tuple(kinds.get("away", ())), tuple(kinds.get("primary", ()))
    to_start = tuple(name for name in members if name in acting and kind(views.get(name)) in ("stopped", "fresh"))
    if primary:
        return _with_primary(members, views, primary, away, to_start, datadir)
    if away:
        return Plan(
            refusal=(
                f"No member that answered is in a primary component, and {_names(away)} could not be asked: there the cluster may "
                "be running. Make it reachable, or, when it is lost for ever, use "
                f"{RECOVER} -e galera_recover_without={','.join(away)}"
            )
        )
    troubled = kinds.get("waiting", []) + kinds.get("mute", [])
    if troubled:
        return Plan(
            refusal=(
                f"mariadb runs on {_names(troubled)} without a primary component. Heal the network between the members and "
                f"wait; when it does not come back by itself: {RECOVER}"
            )
        )
    if kinds.get("stopped"):
        return Plan(
            refusal=(
                f"The cluster exists and is stopped on {_names(kinds['stopped'])}. Starting it anew from the wrong member would "
                f"lose writes. Use {RECOVER}"
            )
        )
    left = [name for name in members if name not in acting]
    if left:
        return Plan(
            refusal=(
                f"There is no cluster yet, and forming it needs all members: {_names(left)} is not part of this run. "
                "Run it without --limit."
            )
        )
    return Plan(seed=members[0], joiners=tuple(members[1:]))


def _with_primary(
    members: Sequence[str],
    views: Mapping[str, View | None],
    primary: tuple[str, ...],
    away: tuple[str, ...],
    to_start: tuple[str, ...],
    datadir: str,
) -> Plan:
    uuids = {views[name]["cluster_uuid"]: name for name in primary}
    if len(uuids) > 1:
        told = "; ".join(f"{name}: {uuid}" for uuid, name in sorted(uuids.items()))
        return Plan(
            refusal=f"There are {len(uuids)} clusters ({told}). Decide which is the right one; on the members of the other: "
            f"systemctl stop mariadb && mv {datadir} {datadir}.old; and run this again."
        )
    views_of_it = {views[name].get("conf_id") for name in primary}
    sizes = {views[name].get("cluster_size") for name in primary}
    if len(primary) > 1 and len(views_of_it) > 1 and max(sizes) * 2 <= len(members):
        return Plan(
            refusal=f"{_names(primary)} are in primary components apart from each other: writes differ. Stop mariadb on all but "
            f"the member that clients wrote to, move {datadir} away there, and run this again."
        )
    refusal = _of_one_cluster(members, views, next(iter(uuids)), datadir)
    if refusal:
        return Plan(refusal=refusal)
    size = max(size for size in sizes if size is not None)
    if size > len(members):
        told = _names(sorted({one for name in primary for one in views[name].get("addresses", [])}))
        return Plan(
            refusal=f"The cluster has {size} members ({told}), {len(members)} are named ({_names(members)}). Name all in "
            "galera_members, or stop and disable mariadb on the ones that go, and run this again."
        )
    return Plan(joiners=to_start, primary=primary, away=away)


def recovery(
    members: Sequence[str],
    views: Mapping[str, View | None],
    without: Sequence[str] = (),
) -> Plan:
    """Return which member starts a crashed cluster, and who follows.

    The views come from ``galera_info`` with ``recover=true``, after mariadb was stopped on all.

    :param without: members that are lost for ever, and whose writes are given up.
    """
    refusal = misfit(members)
    if refusal:
        return Plan(refusal=refusal)
    kinds = _kinds(members, views)
    primary = tuple(kinds.get("primary", ()))
    if primary:
        return Plan(primary=primary)
    away = [name for name in kinds.get("away", []) if name not in without]
    if away:
        return Plan(
            refusal=(
                f"{_names(away)} could not be asked and may hold the last writes. Make it reachable; when it is lost for ever, add "
                f"-e galera_recover_without={','.join(away)}"
            )
        )
    asked = [name for name in members if name not in without and views.get(name) is not None]
    holders = [name for name in asked if real_uuid(views[name])]
    if not holders:
        return Plan(
            refusal="No member holds a cluster's data: there is nothing to recover. Deploy it with c5c3.ha.control_plane, or "
            "bring a backup."
        )
    positions = {name: position(views[name]) for name in holders}
    told = "; ".join(f"{name} {real_uuid(views[name])}:{positions[name]}" for name in holders)
    if len({real_uuid(views[name]) for name in holders}) > 1:
        return Plan(
            refusal=f"The members hold data of different clusters ({told}). Which is right only a human can say: move the "
            "data directory away on the members of the other one, and run this again."
        )
    unknown = [name for name in holders if positions[name] < 0]
    if unknown:
        return Plan(
            refusal=(
                f"The last write on {_names(unknown)} cannot be read ({told}). See the output of galera_recovery there; when its data "
                f"is broken, move it away on {_names(unknown)} and run this again."
            )
        )
    best = max(
        holders,
        key=lambda name: (
            positions[name],
            bool((views[name].get("grastate") or {}).get("safe_to_bootstrap")),
            -list(members).index(name),
        ),
    )
    # one without data may be a new host without a configuration, that would start alone: the role itself makes a member of it
    return Plan(seed=best, joiners=tuple(name for name in holders if name != best))


def turns(members: Sequence[str], before: Mapping[str, View | None], now: Mapping[str, View | None]) -> list[str]:
    """Return the members in the order in which they are taken down one by one: who takes the writes goes last.

    Then clients move once: the other members are all back when the writer goes. Of equals the one with fewer clients goes first,
    then the one named later, since proxies prefer the first.

    :param before: what each member told some seconds ago.
    :param now: what each tells now.
    """

    def load(name: str) -> tuple[int, int, int]:
        earlier, later = (int((views.get(name) or {}).get("replicated", -1)) for views in (before, now))
        written = later - earlier if 0 <= earlier <= later else 0
        return written, int((now.get(name) or {}).get("clients", 0)), -list(members).index(name)

    return sorted(members, key=load)


def position(view: View) -> int:
    """Return the seqno of the member's last write; -1 when it is not known."""
    recovered, grastate = view.get("recovered") or {}, view.get("grastate") or {}
    return max(int(recovered.get("seqno", -1)), int(grastate.get("seqno", -1)))
