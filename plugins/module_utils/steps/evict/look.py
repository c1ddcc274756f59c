# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Nova says of the host and the servers of one Eviction, asked side by side and no more than the decisions need."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evacuation import needs_target_off
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Context, Entry
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_plan import (
    SETTLED_SECONDS,
    needs_failure,
    needs_live_migration,
    needs_running,
    needs_stop_origin,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.incoming import broken_off, incoming, to_abort, told
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.lost_move import needs_records
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    MIGRATION_ABORTABLE,
    MigrationFacts,
    ServerFacts,
    ServiceFacts,
    cut_off_of,
    evacuation_of,
    stopped_by_user,
)
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.helping import with_help
from ansible_collections.c5c3.ha.plugins.module_utils.steps.false_error import falsely_in_error

# Nova itself needs a minute to see that a nova-compute is down: for a single server it is not asked at each look.
_SERVICE_SECONDS = 2.0


@dataclass(frozen=True)
class View:
    """One look at Nova.

    :param service: the host's nova-compute; None when Nova knows none.
    :param services: all of them, when the whole host is to be emptied.
    :param on_host: the servers whose host it is, likewise.
    :param servers: what was asked of by UUID; None for one that Nova knows no more.
    """

    service: ServiceFacts | None
    services: list[ServiceFacts] = field(default_factory=list)
    on_host: list[ServerFacts] = field(default_factory=list)
    servers: dict[str, ServerFacts | None] = field(default_factory=dict)


@dataclass
class Settled:
    """What became of the migrations to a host that is to be empty.

    :param waiting: what is waited for, in words; empty when nothing is.
    :param aborted: servers whose migration was aborted.
    :param righted: servers that run where they were, and whose ERROR was reset.
    """

    waiting: str = ""
    aborted: list[str] = field(default_factory=list)
    righted: list[str] = field(default_factory=list)


class Look:
    """Reads Nova for one Eviction.

    :param call_all: runs calls side by side and returns their answers by key.
    :param proven_off: when a host was last proven off, seconds since the epoch.
    """

    def __init__(self, nova: Nova, call_all: Callable[[dict], dict], proven_off: Callable[[str], float | None]) -> None:
        self.nova = nova
        self.call_all = call_all
        self.proven_off = proven_off
        self._service: tuple[float, ServiceFacts | None] | None = None
        self._at_rest: set[int] = set()  # broken off migrations whose server was seen to

    def read(self, host: str, whole: bool, servers: list[str]) -> View:
        """The host's service and the servers named; for a whole host its servers and all services, too.

        :raises NovaError: as Nova says.
        """
        calls: dict = {"service": lambda: self.nova.service(host)}
        now = time.monotonic()
        if not whole and self._service and now - self._service[0] < _SERVICE_SECONDS:
            calls["service"] = lambda known=self._service[1]: known
        else:
            self._service = None
        if whole:
            calls["on_host"] = lambda: self.nova.servers_on(host)
            calls["services"] = self.nova.services
            found, calls = self.call_all(calls), {}
        else:
            found = {}
        on_host: list[ServerFacts] = found.get("on_host") or []
        asked: dict[str, ServerFacts | None] = {server.id: server for server in on_host}
        # Of a host with a hundred servers one answer tells of all that are still there.
        elsewhere = [server for server in servers if server not in asked]
        for server in elsewhere:
            calls[f"server {server}"] = lambda server=server: self.nova.server(server)
        found.update(self.call_all(calls))
        asked.update({server: found[f"server {server}"] for server in elsewhere})
        self._service = self._service or (now, found["service"])
        return View(found["service"], found.get("services") or [], on_host, asked)

    def details(
        self,
        entries: dict[str, Entry],
        servers: dict[str, ServerFacts | None],
        context: Context,
        turn: set[str],
        since: float,
    ) -> dict[str, ServerFacts | None]:
        """The servers with what the decisions hang on, asked for those only where they do.

        :param turn: the servers that are worth it in this pass.
        :param since: of a dead host's migration records those changed since then, seconds since the epoch.
        """
        calls: dict = {}
        targets: dict[str, list[str]] = {}
        servers = {key: servers.get(key) for key in entries}
        if context.dead:
            servers = self._records(servers, context.source, since)
        for key, server in servers.items():
            entry = entries[key]
            if server is None or entry.finished or key not in turn:
                continue
            if context.dead and (target := needs_target_off(server, context.now)):
                targets.setdefault(target, []).append(key)
            if needs_running(entry, server, context):
                calls[key, "running"] = lambda key=key: self.nova.is_running(key)
            if needs_stop_origin(entry, server, context):
                calls[key, "stopped_by_user"] = lambda key=key: stopped_by_user(self.nova.actions(key))
            if needs_failure(entry, server, context):
                calls[key, "failure"] = lambda key=key: self._failure(key, context.source)
            if needs_records(entry, server, context):
                calls[key, "records"] = lambda key=key: tuple(self.nova.migrations(server=key))
            if needs_live_migration(entry, server, context):
                calls[key, "live_migration"] = lambda key=key: self.live_migration(key)
        for target in targets:
            calls[target, "target_off"] = lambda target=target: self.proven_off(target)
        for (key, name), answer in self.call_all(calls).items():
            for server in targets[key] if name == "target_off" else (key,):
                servers[server] = replace(servers[server], **{name: answer})
        return servers

    def _records(
        self, servers: dict[str, ServerFacts | None], host: str, since: float
    ) -> dict[str, ServerFacts | None]:
        """The servers with what Nova's migration records say of them. Read after the servers: see decisions/evacuation."""
        if not any(server and server.host == host for server in servers.values()):
            return servers
        records = self.nova.migrations(host=host, since=since)
        return {
            key: server
            and replace(server, evacuation=evacuation_of(records, key, host), cut_off=cut_off_of(records, key, host))
            for key, server in servers.items()
        }

    def _failure(self, server: str, source: str) -> str:
        actions = [action for action in self.nova.actions(server) if action.action not in ("lock", "unlock")]
        if not actions or not actions[0].failed:
            return ""
        return with_help(self.nova, server, source, self.nova.failure_of(server, actions[0].request_id))

    def live_migration(self, server: str) -> int | None:
        """Id of the server's live migration that can be aborted."""
        for migration in self.nova.migrations(server=server):
            if migration.kind == "live-migration" and migration.status in MIGRATION_ABORTABLE:
                return migration.id
        return None

    def settle_incoming(self, host: str, now: float, patience: float, begun: float, since: float | None) -> Settled:
        """Abort what is about to land on a host that is to be empty, and put right what a broken off one left behind.

        :param now: seconds since the epoch.
        :param patience: seconds that a migration which copies is waited for before it is aborted.
        :param begun: since when the host is being emptied, seconds since the epoch.
        :param since: only what has changed since then counts, seconds since the epoch.
        """
        try:
            records = self.nova.migrations(host=host, since=since)
        except NovaError as error:
            return Settled(f"waiting for Nova to say what is about to arrive: {error}")
        arriving = incoming(records, host)
        settled = Settled(told(arriving) if arriving else "")
        for migration in to_abort(arriving, now, patience):
            try:
                self.nova.abort_live_migration(migration.server, migration.id)
                settled.aborted.append(migration.server)
            except NovaError:
                continue  # it is over, or has begun to copy: the next look tells
        for migration in broken_off(records, host, begun):
            if migration.id in self._at_rest:
                continue
            try:
                trouble = self._put_right(migration, now, settled.righted)
            except NovaError as error:
                trouble = str(error)
            if trouble:
                settled.waiting = settled.waiting or f"server {migration.server} was on its way: {trouble}"
            else:
                self._at_rest.add(migration.id)
        return settled

    def _put_right(self, migration: MigrationFacts, now: float, righted: list[str]) -> str:
        """Reset a server that runs on its source and is in ERROR; what has to be waited for, in words."""
        if abs(now - (migration.changed or 0.0)) < SETTLED_SECONDS:
            return "Nova may still write what became of it"
        if falsely_in_error(self.nova, migration.server, lambda host: host == migration.source):
            self.nova.reset_state(migration.server)
            righted.append(migration.server)
        return ""
