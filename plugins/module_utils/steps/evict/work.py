# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop: read, decide, write, act."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import eviction_status as status_
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evacuation import ROUTE as EVACUATE
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_choice import locked_by_us
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_entry import Context, Decision, Entry, Settings
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_plan import (
    AGAIN,
    DEAD_GUEST,
    REBOOT_ASKED,
    decide,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.host_plan import HostDecision
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.limits import MOVE
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaConflict, NovaError, NovaUnavailable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import get_condition
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.choosing import Choosing
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.claim import Again, Claim, Deleted, Stop
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.helping import no_capacity, with_help
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.host import HostWork
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.locks import Locks
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.look import Look, View

# Between two looks at Nova, which has no watch: soon while a guest is being restarted, seldom while one is being copied.
# Not sooner than a restart takes at its fastest: of five guests at once each look delays the others' restarts.
_POLL_FIRST, _POLL_LAST, _POLL_GROWTH = 0.5, 2.0, 1.2
# After an act on the host itself, whose next one waits for nothing.
_POLL_HOST = 0.1
# While a gate or the fencing holds it: the gates read the whole cluster.
_POLL_HELD = 3.0
# Nova writes the progress of a migration every 5 s; of a dead host's an older record never ends.
_RECENT = 60.0
# Migration records that may still matter to a host that died: what was in flight then, whatever the clocks say.
_HISTORY = 3600.0
UNANSWERED = "no answer"
NOT_SENT = "not sent, since the claim was not renewed in time"


class Work:
    """The work of one run of the step on one Eviction."""

    def __init__(self, client: Client, nova: Nova, pool: ThreadPoolExecutor, params: dict) -> None:
        self.nova = nova
        self.params = params
        self.settings = Settings(
            restart_attempts=params["restart_attempts"],
            move_attempts=params["move_attempts"],
            backoff=params["backoff"],
            attempt_timeout=params["attempt_timeout"],
            evacuate_timeout=params["evacuate_timeout"],
            crash_restarts=params["crash_restarts"],
            crash_moves=params["crash_moves"],
            crash_window=params["crash_window"],
        )
        self.acts: list[dict] = []
        self.claim = Claim(client, params["api_group"], params["name"], params["claim_ttl"], pool)
        self.look = Look(nova, self.claim.call_all, self.claim.proven_off)
        self.choosing = Choosing(client, nova, params, self.claim)
        self.locks = Locks(nova, params["name"])
        self.host = HostWork(client, nova, params, self.claim.call_all, self.acts)
        self.entries: dict[str, Entry] = {}
        self._taken = False
        self._room_seen = False
        self._waiting = ""
        self.ram_mb: dict[str, int] = {}
        self.answered: str | None = None
        self.verdict: str | None = None
        self.cancelled: str | None = None
        self._pause = 0.0

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, eviction: dict, check_mode: bool) -> dict:
        """Work until it is finished, in other hands or the time is over; return the step's result."""
        before = eviction.get("status") or {}
        self.claim.adopt(eviction)
        self._take()
        if check_mode:
            return self._preview()
        end, pause, message = time.monotonic() + self.params["timeout"], _POLL_FIRST, ""
        try:
            while True:
                if self.claim.wait_for_holder():
                    self._take()
                known = dict(self.entries)
                try:
                    finished, acted = self._pass()
                except Again:
                    # Nothing was done yet: what was decided on an older reading is forgotten.
                    self.entries = known
                    self._read()
                    continue
                if finished:
                    break
                if time.monotonic() >= end:
                    message = f"not finished after {self.params['timeout']:g} s: run the step again"
                    break
                grown = max(self._pause, min(pause * _POLL_GROWTH, _POLL_LAST))
                pause = (self._pause or _POLL_FIRST) if acted else grown
                time.sleep(min(pause, max(0.0, end - time.monotonic())))
                self._read()
        except Deleted as deleted:
            message = str(deleted)
            self._unlock_rest()
        except Stop as stop:
            message = str(stop)
        eviction = self.claim.eviction
        result = {
            "changed": self.claim.changed,
            "eviction": eviction,
            "acts": self.acts,
            **({"decisions": self.host.decisions} if self.host.decisions else {}),
            "diff": {"before": before, "after": eviction.get("status") or {}},
        }
        condition = get_condition(eviction, "Evicting") or {}
        result["msg"] = message or f"{condition.get('reason')}: {condition.get('message')}"
        return result

    def _read(self) -> None:
        self.claim.read()
        self._take()

    def _take(self) -> None:
        """Take over what the Eviction says; what this step knows better (attempts on a schema without them) stays."""
        eviction = self.claim.eviction
        if not self._taken:
            self._taken = True
            self.entries = status_.read_entries(eviction)
            self.host.fence = status_.read_fence(eviction)
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

    def _pass(self) -> tuple[bool, bool]:
        """Read, decide, write, act. Return whether the Eviction is finished, and whether something was done.

        :raises Again: the Eviction changed since it was read; nothing was done.
        """
        started = status_.seconds((self.claim.eviction.get("status") or {}).get("startedAt"))
        if started is not None and time.time() - started > self.params["deadline"]:
            fence = self.host.fence
            unproven = fence.begun and fence.proven_at is None and not fence.by_consent
            why = f": {self._source} is not proven off ({fence.message})" if unproven else ""
            self._fail_rest(f"not done within {self.params['deadline']:g} s{why}")
            return self._write(True), False
        self._pause = 0.0
        try:
            view = self._view()
            unknown = self.host.unknown(self._source, view)
            if unknown:
                self._fail_rest(unknown)
                return self._write(True), False
            self.choosing.read(view.servers)
            route = self._route(view)
            if route.act in ("Wait", "Cancel", "Fence", "Look", "ForceDown", "Disable"):
                return self._act_on_host(route, view)
            if route.act == "Migrate" and self._whole and self.host.disable(view):
                self.claim.changed = True
            context, servers, turn = self._details(view, route)
            before = dict(self.entries)
            decisions = self._decide(servers, context, turn, view)
        except NovaError as error:
            self._write(False, ("NovaUnavailable" if isinstance(error, NovaUnavailable) else "NovaRefuses", str(error)))
            return False, False
        self._unlock(before, servers)
        finished = all(entry.finished for entry in self.entries.values()) and not self._arriving(context)
        if finished and context.returned and not any(entry.route == EVACUATE for entry in self.entries.values()):
            self.cancelled = route.message
        self._write(finished)
        return finished, not finished and self._act(decisions, servers)

    def _route(self, view: View) -> HostDecision:
        """What is next for the host; where it is about single servers only they are looked at."""
        if not self._whole:
            return HostDecision("Migrate")
        route = self.host.decide(self._source, status_.cause_of(self.claim.eviction), view, self.entries)
        short = self._no_room(view) if route.act == "Migrate" else None
        return HostDecision("Wait", *short) if short else route

    def _act_on_host(self, route: HostDecision, view: View) -> tuple[bool, bool]:
        """Write what is done to the host, then do it. Returns as :meth:`_pass`."""
        if route.act == "Wait":
            self._pause = _POLL_HELD
            return self._write(False, (route.reason, route.message)), False
        if route.act == "Cancel":
            self._end_rest("Skipped", route.message)
            self.cancelled = route.message
            return self._write(True), False
        if route.act == "Fence":
            self.host.begin_fencing()
        self._write(False, doing=route.message)
        if not self.claim.fresh():
            raise Again
        self.claim.changed = True
        if route.act == "Fence":
            self.host.switch_off(self._source)
        elif route.act == "Look":
            self.host.look(self._source)
        else:
            if route.act == "ForceDown":
                self.host.force_down(view)
            self.host.disable(view)
        self._pause = _POLL_HOST
        return False, True

    def _preview(self) -> dict:
        view = self._view()
        unknown = self.host.unknown(self._source, view)
        route = HostDecision("Wait", "", unknown) if unknown else self._route(view)
        acts: list[dict] = []
        if route.act in ("Fence", "Look", "ForceDown", "Disable", "Cancel"):
            acts.append({"act": route.act, "host": self._source})
        elif route.act != "Wait":
            self.choosing.read(view.servers)
            context, servers, turn = self._details(view, route)
            acts = [{"act": each.act, "server": each.entry.id} for each in self._decide(servers, context, turn, view)]
            if route.act == "Migrate" and self._whole and view.service and view.service.enabled:
                acts.insert(0, {"act": "DisableService", "host": self._source})
        before = self.claim.eviction.get("status") or {}
        after = {**before, "instances": [status_.write_entry(entry) for entry in self.entries.values()]}
        return {
            "changed": True,
            "eviction": self.claim.eviction,
            "acts": acts,
            **({"decisions": self.host.decisions} if self.host.decisions else {}),
            "diff": {"before": before, "after": after},
            "msg": route.message or "check mode: nothing was done",
        }

    def _write(self, finished: bool, blocked: tuple[str, str] | None = None, doing: str = "") -> bool:
        status = status_.write_status(
            self.claim.eviction,
            self.entries,
            holder=self.claim.identity,
            now=time.time(),
            ram_mb=self.ram_mb,
            finished=finished,
            blocked=blocked,
            verdict=self.verdict,
            occurred_at=self.answered,
            preflight=self.host.found,
            fence=self.host.fence,
            cancelled=self.cancelled,
            doing=doing,
            waiting=self._waiting,
        )
        self.claim.write(status, finished)
        return finished

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def _whole(self) -> bool:
        """Whether the whole host is to be emptied."""
        return not self.claim.eviction["spec"].get("instances")

    @property
    def _source(self) -> str:
        return self.claim.eviction["spec"]["hypervisor"]

    def _begun(self) -> float:
        """When the Eviction was made, seconds since the epoch."""
        return status_.seconds(self.claim.eviction["metadata"].get("creationTimestamp")) or time.time()

    def _view(self) -> View:
        unfinished = [key for key, entry in self.entries.items() if not entry.finished]
        return self.look.read(self._source, self._whole, unfinished)

    def _details(self, view: View, route: HostDecision) -> tuple[Context, dict[str, ServerFacts | None], set[str]]:
        """What holds in this pass, each server of interest, and which of them it is the turn of."""
        for server in view.on_host:
            entry = self.entries.setdefault(server.id, Entry(id=server.id, name=server.name))
            if entry.phase == "Succeeded":
                # It came back, or was counted as gone too early: it is on the host, so it is not done.
                self.entries[server.id] = Entry(id=server.id, name=server.name)
        up = bool(view.service and view.service.up)
        context = status_.context_of(
            self.claim.eviction,
            time.time(),
            up,
            self.settings,
            dead=route.act in ("Evacuate", "Return"),
            returned=route.act == "Return",
            heard=view.service.reported if view.service else None,
            others={
                each.host: "up" if each.up else "off" if each.forced_down else "down"
                for each in view.services
                if each.host != self._source
            },
        )
        turn = self.choosing.turn(self.entries, view.servers, living=up)
        servers = self.look.details(self.entries, view.servers, context, turn, self._begun() - _HISTORY)
        self.ram_mb.update({key: server.ram_mb for key, server in servers.items() if server})
        return context, servers, turn

    def _no_room(self, view: View) -> tuple[str, str] | None:
        """What stands against beginning to empty the host: the others cannot take it. Looked at until it has begun."""
        if self._room_seen or any(entry.phase != "Pending" for entry in self.entries.values()):
            return None
        short = no_capacity(self.nova, self._source, self.choosing.wanted(view.on_host), view.services)
        self._room_seen = not short
        return ("NoCapacity", short) if short else None

    def _arriving(self, context: Context) -> bool:
        """Whether something is about to land on a host that is to be empty; aborts and puts right what can be."""
        self._waiting = ""
        if self._whole:
            # What was on its way to a host that is dead ends by itself, or its record never changes again.
            since = context.now - _RECENT if context.dead else None
            patience = self.settings.attempt_timeout
            settled = self.look.settle_incoming(self._source, context.now, patience, self._begun(), since)
            self._waiting = settled.waiting
            self.acts.extend({"act": "AbortIncoming", "server": server} for server in settled.aborted)
            self.acts.extend({"act": "ResetState", "server": server} for server in settled.righted)
        return bool(self._waiting)

    # -- deciding and doing --------------------------------------------------------------------------------------------

    def _decide(self, servers: dict, context: Context, turn: set[str], view: View) -> list[Decision]:
        """Decide for every server whose turn it is; begin no more new work than the limits allow."""
        decided = {key: decide(self.entries[key], servers.get(key), context) for key in self.entries if key in turn}
        self.entries, doing = self.choosing.begin(self.entries, decided, servers, view.services, context)
        return doing

    def _act(self, decisions: list[Decision], servers: dict) -> bool:
        """Do what was decided, side by side; return whether Nova accepted any of it."""
        calls = {
            decision.entry.id: (lambda decision=decision: self._do(decision, servers.get(decision.entry.id)))
            for decision in decisions
        }
        refusals = self.claim.call_all(calls)
        aborts = {decision.entry.id for decision in decisions if decision.act == "Abort"}
        for server, refusal in refusals.items():
            if refusal and server in aborts:  # what was to be aborted is still the attempt that counts
                self.entries[server] = replace(self.entries[server], message=refusal)
            elif refusal is NOT_SENT:
                entry = self.entries[server]
                self.entries[server] = replace(entry, phase="Pending", attempts=max(0, entry.attempts - 1))
            elif refusal is UNANSWERED:
                # It may have been heard: the entry stays at work, and Nova's records tell.
                self.entries[server] = replace(self.entries[server], attempted_at=time.time())
            elif refusal:
                self.entries[server] = replace(self.entries[server], phase="Pending", message=refusal)
        return not all(refusals.values())

    def _do(self, decision: Decision, facts: ServerFacts | None) -> str:
        """Do one act; return why it failed, or nothing."""
        server, act = decision.entry.id, decision.act
        call = {
            "Restart": self.nova.reboot_hard,
            AGAIN: self._restart_again,
            "LiveMigrate": self.nova.live_migrate,
            "ColdMigrate": self.nova.cold_migrate,
            "Confirm": self.nova.confirm_resize,
            "ResetState": self.nova.reset_state,
            "Stop": self.nova.stop,
        }.get(act or "")
        if not self.claim.fresh():
            return NOT_SENT
        try:
            self.locks.hold(act, facts)
            if decision.release:
                # What Nova's own rollback would have done, had it not died with the host, or with the conductor.
                self.nova.take_back_allocation(server, decision.release)
            if decision.drop:
                self.nova.drop_allocation(decision.drop)
            if not self.claim.fresh():
                return NOT_SENT  # those took their time
            self.acts.append({"act": act, "server": server})
            if call:
                call(server)
            elif act == EVACUATE:
                with_disk = decision.on_disk and not self.params["evacuate_from_image"]
                self.nova.evacuate(server, decision.target or None, only_with_disk=with_disk)
            elif act == "Abort":
                migration = self.look.live_migration(server)
                if migration is not None:
                    self.nova.abort_live_migration(server, migration)
        except NovaUnavailable as error:
            return UNANSWERED if act == EVACUATE else f"{act} {decision.entry.attempts} failed: {error}"
        except NovaConflict as error:
            return f"{act} {decision.entry.attempts} failed, state changed meanwhile: {error}"
        except NovaError as error:
            told = with_help(self.nova, server, self._source, str(error))
            return f"{act} {decision.entry.attempts} failed: {told}"
        return ""

    def _restart_again(self, server: str) -> None:
        """Send a lost restart again, unless nova-compute has begun it since its host was asked."""
        now = self.nova.server(server)
        if now is not None and now.task_state in REBOOT_ASKED:
            self.nova.reboot_hard(server)

    def _unlock(self, before: dict[str, Entry], servers: dict[str, ServerFacts | None]) -> None:
        """Give back the locks of those that are done now. Whose lock stays is not done: else nobody would take it away."""
        done = [
            key
            for key, entry in self.entries.items()
            if entry.finished and not before[key].finished and locked_by_us(servers.get(key))
        ]
        troubles = self.claim.call_all({key: (lambda key=key: self.locks.give_back(servers[key])) for key in done})
        for key, trouble in troubles.items():
            if trouble:
                message = f"{self.entries[key].message}, but still locked: {trouble}"
                self.entries[key] = replace(before[key], message=message)

    def _unlock_rest(self) -> None:
        """Give back all locks that may be left, for better or worse: nobody will come back to them."""
        moved = [key for key, entry in self.entries.items() if not entry.finished and entry.route in MOVE]
        self.claim.call_all({key: (lambda key=key: self.locks.give_back_blindly(key)) for key in moved})

    def _fail_rest(self, message: str) -> None:
        """End every unfinished entry as Failed, and the Eviction with it."""
        self.verdict = message
        self._end_rest("Failed", message)

    def _end_rest(self, phase: str, message: str) -> None:
        self._unlock_rest()
        now = time.time()
        for server, entry in self.entries.items():
            if not entry.finished:
                told = f"{message}; last: {entry.message}" if entry.message else message
                self.entries[server] = replace(entry, phase=phase, message=told, finished_at=now)
