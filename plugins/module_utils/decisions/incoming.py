# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations that are about to land on a host that is to be empty: aborted, or waited for. Pure.

While a live migration runs, Nova still lists the server on its source: a host may look empty while one is about to
arrive (upstream: settle-incoming-migrations). One that has not begun to copy is aborted, which costs nothing. One that
copies is waited for, since aborting it leaves the server in ERROR; what arrives is moved on. Only one that copies for
longer than a whole attempt of ours may take is aborted, too. One that was broken off, by us or by itself, may have left a
guest that runs on its source in ERROR, where nobody else would look for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import parse_time

NOT_BEGUN = frozenset({"queued", "preparing"})
_BROKEN_OFF = frozenset({"cancelled", "error", "failed"})


def incoming(migrations: Iterable[MigrationFacts], host: str) -> list[MigrationFacts]:
    """Those on their way to ``host``. A cold one that waits for its user's confirm has arrived already."""
    return [
        migration
        for migration in migrations
        if migration.unfinished
        and migration.target == host != migration.source
        and not (migration.kind in ("migration", "resize") and migration.status == "finished")
    ]


def to_abort(arriving: Iterable[MigrationFacts], now: float, patience: float) -> list[MigrationFacts]:
    """Of the incoming ones those to abort now; the others are waited for.

    :param now: seconds since the epoch.
    :param patience: seconds that one which copies is waited for.
    """
    return [
        migration
        for migration in arriving
        if migration.kind == "live-migration"
        and (migration.status in NOT_BEGUN or (migration.status == "running" and _age(migration, now) > patience))
    ]


def broken_off(migrations: Iterable[MigrationFacts], host: str, begun: float) -> list[MigrationFacts]:
    """Live migrations to ``host`` that ended without arriving, each the last that Nova knows of its server there.

    :param migrations: newest first.
    :param begun: since when the host is being emptied, seconds since the epoch: what ended before is not our doing.
    """
    last: dict[str, MigrationFacts] = {}
    for migration in migrations:
        last.setdefault(migration.server, migration)
    return [
        each
        for each in last.values()
        if each.kind == "live-migration"
        and each.status in _BROKEN_OFF
        and each.target == host != each.source
        and (each.changed or 0.0) >= begun
    ]


def told(arriving: Iterable[MigrationFacts]) -> str:
    """What is waited for, in words."""
    listed = list(arriving)
    names = ", ".join(f"server {one.server} from {one.source or 'somewhere'} ({one.status})" for one in listed[:3])
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return f"waiting for what is about to arrive: {names}{more}"


def _age(migration: MigrationFacts, now: float) -> float:
    # Nova writes UTC without saying so; some releases with microseconds.
    text = (migration.created_at or "").rstrip("Z")
    try:
        return now - parse_time(f"{text}Z").timestamp()
    except ArgumentError:
        return 0.0
