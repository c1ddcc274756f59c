# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The step ``evict``: works on one Eviction until it is finished.

Reads the Eviction and Nova, lets :mod:`decisions.evict_plan` decide, writes what it is about to do into the status, then
does it, and begins again. The write carries the resourceVersion that was read, so of two steps on one Eviction only one
gets to act; a step that died leaves nothing but a status from which the next one goes on.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS, OPENSTACK_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import eviction_status as status_
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_plan import (
    DEAD_GUEST,
    Context,
    Decision,
    Entry,
    Settings,
    decide,
    needs_failure,
    needs_live_migration,
    needs_running,
    needs_stop_origin,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    MIGRATION_ABORTABLE,
    ServerFacts,
    ServiceFacts,
    stopped_by_user,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, Conflict, Forbidden, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaConflict, NovaError, NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    OPERATOR_MANAGER,
    evictions,
    get_condition,
    hypervisors,
    is_finished,
    now_utc,
    set_condition,
    shown,
    validate_name,
)

ARGUMENTS = {
    "argument_spec": {
        "name": {"type": "str", "required": True},
        "timeout": {"type": "float", "default": 600.0},
        "deadline": {"type": "float", "default": 7200.0},
        "max_parallel": {"type": "int", "default": 2},
        "restart_attempts": {"type": "int", "default": 2},
        "move_attempts": {"type": "int", "default": 3},
        "attempt_timeout": {"type": "float", "default": 600.0},
        "backoff": {"type": "float", "default": 5.0},
        "claim_ttl": {"type": "float", "default": 6.0},
        **KUBERNETES_ARGS,
        **OPENSTACK_ARGS,
    },
}

DISABLED_REASON = "c5c3.ha: Eviction"
# Between two looks at Nova, which has no watch: often while a guest is being restarted, seldom while one is being copied.
_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.15, 2.0, 1.15


def run(params: dict, check_mode: bool) -> dict:
    """Work on the Eviction ``params["name"]``; return ``changed``, ``eviction``, ``acts`` and ``diff``.

    In check mode nothing is written or done: ``acts`` says what would be done first.

    :raises HaError: bad options; Kubernetes refuses or does not answer. Nova's troubles go into the status instead.
    """
    _check(params)
    client = Client.from_params(params, OPERATOR_MANAGER)
    resource = evictions(params["api_group"])
    eviction = client.get(resource, params["name"])
    if eviction is None:
        return {"changed": False, "eviction": None, "acts": [], "msg": f"there is no Eviction {params['name']}"}
    if is_finished(eviction):
        return {"changed": False, "eviction": eviction, "acts": [], "msg": "the Eviction is finished"}
    with ThreadPoolExecutor(max_workers=max(4, 2 * params["max_parallel"])) as pool:
        return _Work(client, Nova.from_params(params), pool, params).run(eviction, check_mode)


def _check(params: dict) -> None:
    validate_name(params["name"], "name")
    for option in (
        "timeout",
        "deadline",
        "max_parallel",
        "restart_attempts",
        "move_attempts",
        "attempt_timeout",
        "claim_ttl",
    ):
        if not params[option] > 0:
            raise ArgumentError(f"{option} {shown(params[option])} must be more than 0")
    if not params["backoff"] >= 0:
        raise ArgumentError(f"backoff {shown(params['backoff'])} must not be negative")


class _Stop(Exception):
    """The Eviction is gone, finished or in other hands: nothing more may be done here."""


class _Work:
    def __init__(self, client: Client, nova: Nova, pool: ThreadPoolExecutor, params: dict) -> None:
        self.client = client
        self.nova = nova
        self.pool = pool
        self.params = params
        self.resource = evictions(params["api_group"])
        self.settings = Settings(
            restart_attempts=params["restart_attempts"],
            move_attempts=params["move_attempts"],
            backoff=params["backoff"],
            attempt_timeout=params["attempt_timeout"],
        )
        pod = os.environ.get("HOSTNAME") or socket.gethostname()
        self.identity = f"{pod[:200]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.ttl = params["claim_ttl"]
        self.eviction: dict = {}
        self.entries: dict[str, Entry] = {}
        self.ram_mb: dict[str, int] = {}
        self.answered: str | None = None
        self.disabled = False
        self.verdict: str | None = None
        self.preflight = ""
        self.acts: list[dict] = []
        self.changed = False
        self.claimed = False
        self.written_at = 0.0

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, eviction: dict, check_mode: bool) -> dict:
        before = eviction.get("status") or {}
        self._adopt(eviction)
        if check_mode:
            return self._preview()
        end, pause, message = time.monotonic() + self.params["timeout"], _POLL_FIRST, ""
        try:
            while True:
                self._wait_for_holder()
                known = dict(self.entries)
                try:
                    finished, acted = self._pass()
                except _Again:
                    # Nothing was done yet: what was decided on an older reading is forgotten.
                    self.entries = known
                    self._read()
                    continue
                if finished:
                    break
                if time.monotonic() >= end:
                    message = f"not finished after {self.params['timeout']:g} s: run the step again"
                    break
                pause = _POLL_FIRST if acted else min(pause * _POLL_GROWTH, _POLL_LAST)
                time.sleep(min(pause, max(0.0, end - time.monotonic())))
                self._read()
        except _Stop as stop:
            message = str(stop)
        result = {
            "changed": self.changed,
            "eviction": self.eviction,
            "acts": self.acts,
            "diff": {"before": before, "after": self.eviction.get("status") or {}},
        }
        condition = get_condition(self.eviction, "Evicting") or {}
        result["msg"] = message or f"{condition.get('reason')}: {condition.get('message')}"
        return result

    def _pass(self) -> tuple[bool, bool]:
        """Read, decide, write, act. Return whether the Eviction is finished, and whether something was done.

        :raises _Again: the Eviction changed since it was read; nothing was done.
        """
        started = status_.seconds((self.eviction.get("status") or {}).get("startedAt"))
        if started is not None and time.time() - started > self.params["deadline"]:
            self._fail_rest(f"not done within {self.params['deadline']:g} s")
            return self._write(True), False
        try:
            service, servers, blocked = self._look()
        except NovaError as error:
            self._write(False, ("NovaUnavailable" if isinstance(error, NovaUnavailable) else "NovaRefuses", str(error)))
            return False, False
        if blocked:
            final = blocked[0] == "UnknownHypervisor"
            if final:
                self._fail_rest(blocked[1])
            return self._write(final, None if final else blocked), False
        context = status_.context_of(self.eviction, time.time(), bool(service and service.up), self.settings)
        decisions = self._decide(servers, context)
        finished = all(entry.finished for entry in self.entries.values()) and self._host_is_empty(context)
        self._write(finished)
        return finished, not finished and self._act(decisions)

    def _preview(self) -> dict:
        service, servers, blocked = self._look(read_only=True)
        context = status_.context_of(self.eviction, time.time(), bool(service and service.up), self.settings)
        decisions = [] if blocked else self._decide(servers, context)
        acts = [{"act": decision.act, "server": decision.entry.id} for decision in decisions]
        if context.whole_host and service and service.enabled:
            acts.insert(0, {"act": "DisableService", "host": context.source})
        before = self.eviction.get("status") or {}
        after = {**before, "instances": [status_.write_entry(entry) for entry in self.entries.values()]}
        return {
            "changed": True,
            "eviction": self.eviction,
            "acts": acts,
            "diff": {"before": before, "after": after},
            "msg": blocked[1] if blocked else "check mode: nothing was done",
        }

    # -- Kubernetes ----------------------------------------------------------------------------------------------------

    def _adopt(self, eviction: dict) -> None:
        """Take over what an Eviction says; what this step knows better (attempts on a schema without them) stays."""
        first = not self.eviction
        if not first and eviction["metadata"].get("uid") != self.eviction["metadata"].get("uid"):
            raise _Stop("the Eviction was made anew: run the step again")
        self.eviction = eviction
        if is_finished(eviction):
            raise _Stop("the Eviction was finished elsewhere")
        if first:
            self.entries = status_.read_entries(eviction)
            self.answered = (eviction.get("status") or {}).get("observedOccurredAt")
        occurred = eviction["spec"].get("occurredAt")
        newer = (status_.seconds(occurred) or 0) > (status_.seconds(self.answered) or 0)
        if self.answered and newer and eviction["spec"].get("cause") in DEAD_GUEST:
            # The guest died again while its Eviction was in work: it is looked at again, never taken for done.
            self.entries = {
                key: replace(entry, phase="Pending", finished_at=None) if entry.finished else entry
                for key, entry in self.entries.items()
            }
        self.answered = occurred or self.answered
        for server in eviction["spec"].get("instances") or []:
            self.entries.setdefault(server, Entry(id=server))

    def _read(self) -> None:
        eviction = self.client.get(self.resource, self.params["name"])
        if eviction is None:
            raise _Stop("the Eviction was deleted: stopped; what Nova has begun it will finish")
        self._adopt(eviction)

    def _wait_for_holder(self) -> None:
        while True:
            other = status_.foreign_holder(self.eviction, self.identity, time.time(), self.ttl)
            if other is None:
                return
            if self.claimed:
                raise _Stop(f"taken over by {other[0]}")
            time.sleep(min(other[1], 1.0) + 0.01)
            self._read()

    def _write(self, finished: bool, blocked: tuple[str, str] | None = None) -> bool:
        """Write the status if it changed or the claim needs renewing; the precondition makes it ours alone.

        :raises _Stop: somebody else wrote in between and works on it.
        """
        now = time.time()
        status = status_.write_status(
            self.eviction,
            self.entries,
            holder=self.identity,
            now=now,
            ram_mb=self.ram_mb,
            finished=finished,
            blocked=blocked,
            verdict=self.verdict,
            occurred_at=self.answered,
            preflight=self.preflight,
        )
        old = self.eviction.get("status") or {}
        same = all(old.get(key) == value for key, value in status.items() if key != "holder")
        if same and self.claimed and not finished and now - self.written_at < self.ttl / 3:
            return finished
        self._patch(status)
        return finished

    def _patch(self, status: dict) -> None:
        body = {"metadata": {"resourceVersion": self.eviction["metadata"]["resourceVersion"]}, "status": status}
        try:
            self.eviction = self.client.patch(self.resource, self.params["name"], body, subresource="status")
        except NotFound:
            raise _Stop("the Eviction was deleted: stopped") from None
        except Conflict:
            raise _Again from None
        self.claimed = self.changed = True
        self.written_at = time.time()

    def _renew(self) -> None:
        """Renew the claim while a call to Nova takes its time."""
        if not self.claimed or time.time() - self.written_at < self.ttl / 3:
            return
        holder = {"identity": self.identity, "renewedAt": status_.stamp(time.time())}
        try:
            self._patch({"holder": holder})
        except _Again:
            # The next write before an act meets the same conflict and deals with it.
            return

    # -- Nova: reading -------------------------------------------------------------------------------------------------

    def _all(self, calls: dict) -> dict:
        """Run calls side by side, renewing the claim while they take long. Errors come out as they are, first in order."""
        futures: dict = {key: self.pool.submit(call) for key, call in calls.items()}
        pending: set[Future] = set(futures.values())
        while pending:
            _done, pending = wait(pending, timeout=min(1.0, self.ttl / 4))
            if pending:
                self._renew()
        return {key: future.result() for key, future in futures.items()}

    def _look(self, read_only: bool = False) -> tuple[ServiceFacts | None, dict, tuple[str, str] | None]:
        """The host's service, its servers of interest, and what stands against beginning (reason, message)."""
        spec = self.eviction["spec"]
        host, whole = spec["hypervisor"], not spec.get("instances")
        calls: dict = {"service": lambda: self.nova.service(host)}
        if whole:
            calls["servers"] = lambda: self.nova.servers_on(host)
            calls["services"] = self.nova.services
        for server in [key for key, entry in self.entries.items() if not entry.finished]:
            calls[f"server {server}"] = lambda server=server: self.nova.server(server)
        found = self._all(calls)
        service: ServiceFacts | None = found["service"]
        if service is None:
            known = "check spec.hypervisor against `openstack compute service list`"
            return None, {}, ("UnknownHypervisor", f"Nova knows no nova-compute on host {shown(host)}: {known}")
        if whole:
            blocked = self._preflight(service, found["services"], read_only)
            if blocked:
                return service, {}, blocked
            for server in found["servers"]:
                entry = self.entries.setdefault(server.id, Entry(id=server.id, name=server.name))
                if entry.phase == "Succeeded":
                    # It came back, or was counted as gone too early: it is on the host, so it is not done.
                    self.entries[server.id] = Entry(id=server.id, name=server.name)
                found.setdefault(f"server {server.id}", server)
        servers: dict[str, ServerFacts | None] = {key: found.get(f"server {key}") for key in self.entries}
        context = status_.context_of(self.eviction, time.time(), service.up, self.settings)
        return service, self._details(servers, context), None

    def _details(self, servers: dict, context: Context) -> dict:
        """Ask what the decisions hang on, for those servers only where they do."""
        calls: dict = {}
        for key, server in servers.items():
            entry = self.entries[key]
            if server is None or entry.finished:
                continue
            self.ram_mb[key] = server.ram_mb
            if needs_running(entry, server, context):
                calls[key, "running"] = lambda key=key: self.nova.is_running(key)
            if needs_stop_origin(entry, server, context):
                calls[key, "stopped_by_user"] = lambda key=key: stopped_by_user(self.nova.actions(key))
            if needs_failure(entry, server, context):
                calls[key, "failure"] = lambda key=key: self._failure(key)
            if needs_live_migration(entry, server, context):
                calls[key, "live_migration"] = lambda key=key: self._live_migration(key)
        for (key, field), answer in self._all(calls).items():
            servers[key] = replace(servers[key], **{field: answer})
        return servers

    def _failure(self, server: str) -> str:
        actions = self.nova.actions(server)
        return self.nova.failure_of(server, actions[0].request_id) if actions and actions[0].failed else ""

    def _live_migration(self, server: str) -> int | None:
        for migration in self.nova.migrations(server=server):
            if migration.kind == "live-migration" and migration.status in MIGRATION_ABORTABLE:
                return migration.id
        return None

    def _preflight(self, service: ServiceFacts, services: list, read_only: bool) -> tuple[str, str] | None:
        """What stands against emptying the host; disables its compute service first, so that nothing new arrives."""
        host = service.host
        if not service.up:
            told = "nothing can be migrated from it; once it is proven to be off it can be evacuated"
            return "HypervisorDown", f"nova-compute of {host} is down: {told}"
        targets = [other.host for other in services if other.host != host and other.up and other.enabled]
        if not targets:
            return "NoTarget", f"no other hypervisor is up and enabled: enable one, then {host} can be emptied"
        self.preflight = f"nova-compute of {host} is up and disabled; {len(targets)} others are up and enabled"
        if service.enabled and not read_only:
            self.nova.update_service(
                service.id, status="disabled", disabled_reason=f"{DISABLED_REASON} {self.params['name']}"
            )
            self.acts.append({"act": "DisableService", "host": host})
            self.changed = True
        if not self.disabled and not read_only:
            self._mark_disabled(host)
            self.disabled = True
        return None

    def _mark_disabled(self, host: str) -> None:
        resource = hypervisors(self.params["api_group"])
        try:
            hypervisor = self.client.get(resource, host)
            if hypervisor is None or (get_condition(hypervisor, "HypervisorDisabled") or {}).get("status") == "True":
                return
            conditions = set_condition(
                (hypervisor.get("status") or {}).get("conditions"),
                "HypervisorDisabled",
                "True",
                "Succeeded",
                "Hypervisor is disabled",
                now_utc(),
            )
            body = {
                "metadata": {"resourceVersion": hypervisor["metadata"]["resourceVersion"]},
                "status": {"conditions": conditions},
            }
            self.client.patch(resource, host, body, subresource="status")
        except (Conflict, NotFound, Forbidden):
            # It says what Nova says anyway; the next step says it again.
            return

    def _host_is_empty(self, context: Context) -> bool:
        """Whether nothing is about to land on a host that is to be empty (upstream: settle-incoming-migrations)."""
        if not context.whole_host:
            return True
        try:
            return not any(
                migration.unfinished and migration.target == context.source
                for migration in self.nova.migrations(host=context.source)
            )
        except NovaError:
            return False

    # -- deciding and doing --------------------------------------------------------------------------------------------

    def _decide(self, servers: dict, context: Context) -> list[Decision]:
        """Decide for every server; begin no more new work than max_parallel allows."""
        decided = {key: decide(entry, servers.get(key), context) for key, entry in self.entries.items()}
        at_work = sum(
            1
            for key, decision in decided.items()
            if not decision.entry.finished and servers.get(key) is not None and servers[key].task_state
        )
        doing: list[Decision] = []
        for key, decision in decided.items():
            if decision.act in ("Restart", "LiveMigrate", "ColdMigrate"):
                if at_work >= self.params["max_parallel"]:
                    continue
                at_work += 1
            self.entries[key] = decision.entry
            if decision.act:
                doing.append(decision)
        return doing

    def _act(self, decisions: list[Decision]) -> bool:
        """Do what was decided, side by side; return whether Nova accepted any of it."""
        calls = {decision.entry.id: (lambda decision=decision: self._do(decision)) for decision in decisions}
        refusals = self._all(calls)
        for server, refusal in refusals.items():
            if refusal:
                self.entries[server] = replace(self.entries[server], phase="Pending", message=refusal)
        return not all(refusals.values())

    def _do(self, decision: Decision) -> str:
        """Do one act; return why it failed, or nothing."""
        server, act = decision.entry.id, decision.act
        call = {
            "Restart": self.nova.reboot_hard,
            "LiveMigrate": self.nova.live_migrate,
            "ColdMigrate": self.nova.cold_migrate,
            "Confirm": self.nova.confirm_resize,
            "ResetState": self.nova.reset_state,
        }.get(act or "")
        self.acts.append({"act": act, "server": server})
        try:
            if call:
                call(server)
            elif act == "Abort":
                migration = self._live_migration(server)
                if migration is not None:
                    self.nova.abort_live_migration(server, migration)
        except NovaConflict as error:
            return f"{act} {decision.entry.attempts} failed, state changed meanwhile: {error}"
        except NovaError as error:
            return f"{act} {decision.entry.attempts} failed: {error}"
        return ""

    def _fail_rest(self, message: str) -> None:
        """End every unfinished entry as Failed, and the Eviction with it."""
        self.verdict = message
        now = time.time()
        for server, entry in self.entries.items():
            if not entry.finished:
                told = f"{message}; last: {entry.message}" if entry.message else message
                self.entries[server] = replace(entry, phase="Failed", message=told, finished_at=now)


class _Again(Exception):
    """The Eviction changed between reading and writing: begin the pass anew."""
