# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Nova says of servers, services and migrations, as plain data that decisions are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MigrationFacts:
    """One migration record. ``changed``: when Nova last wrote it, seconds since the epoch."""

    id: int
    server: str
    status: str
    kind: str = ""
    source: str = ""
    target: str = ""
    uuid: str | None = None
    created_at: str | None = None
    changed: float | None = None

    @property
    def unfinished(self) -> bool:
        """Whether Nova is still at it (nova.objects.migration and upstream's settle-incoming-migrations)."""
        return self.status not in MIGRATION_ENDED


@dataclass(frozen=True)
class ServerFacts:
    """One server. ``running`` is libvirt's word (asked through Nova), None when not asked or when nobody can tell."""

    id: str
    name: str = ""
    host: str | None = None
    status: str = ""
    vm_state: str = ""
    task_state: str | None = None
    changed: float | None = None
    """When Nova last wrote it, seconds since the epoch."""
    power_state: int = 0
    locked: bool = False
    locked_reason: str = ""
    fault: str = ""
    ram_mb: int = 0
    vcpus: int = 0
    zone: str = ""
    image: str = ""
    """UUID of the image it was booted from; empty when it boots from a volume."""
    groups: tuple[str, ...] = ()
    """UUIDs of its server groups; only a question for the server itself tells them."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    extra_specs: Mapping[str, object] = field(default_factory=dict)
    running: bool | None = None
    failure: str = ""
    """Why the last attempt failed, in Nova's words."""
    stopped_by_user: bool | None = None
    """For a stopped server: a user's doing (True), Nova's own after the guest died (False), not asked (None)."""
    live_migration: int | None = None
    """Id of the live migration in flight, if one can be aborted."""
    launched: bool = True
    evacuation: MigrationFacts | None = None
    """The record of its evacuation: an unfinished one if there is any, else the latest."""
    records: tuple[MigrationFacts, ...] | None = None
    """All its migration records, None when not asked."""
    cut_off: MigrationFacts | None = None
    """The live migration that its source's death has cut off: the guest may have gone on at its target."""
    target_off: float | None = None
    """When the target of that migration, or of its evacuation, was last proven off; None when not asked or never."""

    @property
    def volume_backed(self) -> bool:
        """Whether its disk is a volume: no host's files are needed."""
        return not self.image


@dataclass(frozen=True)
class ActionFacts:
    """One entry of a server's action history."""

    action: str
    request_id: str = ""
    user_id: str | None = None
    started_at: str | None = None
    failed: bool = False


MIGRATION_ENDED = frozenset({"confirmed", "reverted", "error", "failed", "completed", "cancelled", "done"})
MIGRATION_ABORTABLE = frozenset({"queued", "preparing", "running"})


@dataclass(frozen=True)
class GroupFacts:
    """A server group. ``members`` are server UUIDs."""

    name: str
    policy: str
    members: tuple[str, ...] = ()
    max_per_host: int = 1


@dataclass(frozen=True)
class ServiceFacts:
    """The nova-compute service of one host."""

    id: str
    host: str
    up: bool
    enabled: bool
    disabled_reason: str = ""
    forced_down: bool = False
    reported: float | None = None
    """When it last told Nova that it runs, seconds since the epoch; so does one that is forced down."""


def stopped_by_user(actions: list[ActionFacts]) -> bool:
    """Whether the last start/stop of a stopped server was a user's stop.

    When a guest dies, nova-compute notices the power state and calls the stop API with an admin context of its own,
    which has no user (nova.compute.manager, _sync_instance_power_state). ``actions`` are newest first.
    """
    for entry in actions:
        if entry.action in ("stop", "shelve"):
            return entry.user_id is not None
        if entry.action in ("start", "reboot", "create", "rebuild", "evacuate", "resume", "unpause"):
            return False
    return False


def evacuation_of(records: list[MigrationFacts], server: str, host: str) -> MigrationFacts | None:
    """The record of a server's evacuation from a host: an unfinished one, the one that moved last, else the latest.

    :param records: newest first.
    """
    own = [each for each in records if each.server == server and each.kind == "evacuation" and each.source == host]
    unfinished = [each for each in own if each.unfinished]
    return max(unfinished, key=lambda each: each.changed or 0.0) if unfinished else next(iter(own), None)


def cut_off_of(records: list[MigrationFacts], server: str, host: str) -> MigrationFacts | None:
    """The live migration from a dead host that never ended; None when there is none.

    :param records: newest first. What was evacuated since is not there any more.
    """
    for each in records:
        if each.server != server or each.source != host:
            continue
        if each.kind == "live-migration":
            return each if each.unfinished else None
        if each.kind == "evacuation" and each.status in ("done", "completed"):
            return None
    return None
