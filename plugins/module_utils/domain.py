# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts a libvirt domain on its host and watches that it stays up. What to do is decided in domain_restart_rules.

libvirt's calls have no time limit of their own and block against a hung daemon, so all of them run in a thread beside
the caller, who goes away when the time is up; the thread does nothing more to the domain after that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import domain_restart_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError, LibvirtError
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_binding import binding
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown

_LIFECYCLE = "DEFINED UNDEFINED STARTED SUSPENDED RESUMED STOPPED SHUTDOWN PMSUSPENDED CRASHED".split()
_NO_DOMAIN = 42  # VIR_ERR_NO_DOMAIN
# Longest time between two looks at the domain, should an event be lost; seconds.
_LOOK = 0.5


class Watched:
    """The events of one domain, as they come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[str] = []

    def add(self, event: str) -> None:
        """Record an event; called from libvirt's event loop."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def since(self, mark: int) -> list[str]:
        """Return the events from number `mark` on."""
        with self._changed:
            return self._events[mark:]

    def mark(self) -> int:
        """Return the number of the next event."""
        with self._changed:
            return len(self._events)

    def wait(self, mark: int, seconds: float) -> None:
        """Wait until there is an event from number `mark` on, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > mark, max(seconds, 0))


class EventLoop:
    """libvirt's default event loop in a thread. It must be there before a connection is opened."""

    def __init__(self, libvirt: Any) -> None:
        self._libvirt = libvirt
        self._stop = False
        libvirt.virEventRegisterDefaultImpl()
        # The loop sleeps until something happens; this makes it look whether to stop.
        self._timer = libvirt.virEventAddTimeout(200, lambda timer, opaque: None, None)
        threading.Thread(target=self._run, name="libvirt events", daemon=True).start()

    def _run(self) -> None:
        while not self._stop:
            self._libvirt.virEventRunDefaultImpl()

    def stop(self) -> None:
        """Let the thread end."""
        self._stop = True


class _Expired(Exception):
    """The caller has gone; touch nothing more."""


class Restart:
    """One restart of one domain.

    :param uuid: the domain's UUID; `name` where it is None.
    :param timeout: seconds until the domain must be seen running again, the connection included.
    :param verify_seconds: seconds that it must stay so; 0 is content with a first look.
    :param libvirt: the libvirt module; imported when None.
    """

    def __init__(
        self,
        uri: str,
        uuid: str | None,
        name: str | None,
        method: str,
        timeout: float,
        verify_seconds: float,
        check_mode: bool = False,
        libvirt: Any = None,
    ) -> None:
        self.uri = uri
        self.uuid, self.name = uuid, name
        self.method = method
        self.timeout, self.verify_seconds = timeout, verify_seconds
        self.check_mode = check_mode
        self._libvirt = libvirt
        self._expired = threading.Event()
        self._doing = "opening the connection"

    @property
    def _what(self) -> str:
        return f"domain {self.uuid or shown(self.name)} at {self.uri}"

    def run(self) -> dict:
        """Do it, and return what was found and done.

        :raises ArgumentError: the method does not fit the domain's state.
        :raises LibvirtError: libvirt failed, the domain is not there, or it does not come back or stay.
        """
        if self._libvirt is None:
            self._libvirt = binding()
        # A second on top: the thread itself knows better words for what went wrong.
        return self._bounded(self._work, self.timeout + self.verify_seconds + 1.0)

    def _bounded(self, function: Callable[[], dict], seconds: float) -> dict:
        outcome: list[Any] = []
        done = threading.Event()

        def body() -> None:
            try:
                outcome.append(function())
            except BaseException as error:  # handed to the caller
                outcome.append(error)
            done.set()

        threading.Thread(target=body, name="libvirt calls", daemon=True).start()
        if not done.wait(seconds):
            self._expired.set()
            raise LibvirtError(
                f"{self._what}: libvirt did not answer within {seconds:g} s while {self._doing}:"
                " look whether libvirtd hangs (virsh version), and restart it"
            )
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    # -- in the thread --

    def _work(self) -> dict:
        libvirt = self._libvirt
        begin = time.monotonic()
        # Else libvirt prints each error on stderr by itself.
        libvirt.registerErrorHandler(lambda context, error: None, None)
        loop = EventLoop(libvirt)
        connection = None
        try:
            connection = self._call("opening the connection", libvirt.open, self.uri)
            domain = self._lookup(connection)
            return self._restart(connection, domain, begin)
        finally:
            if connection is not None and not self._expired.is_set():
                try:
                    connection.close()
                except libvirt.libvirtError:
                    pass  # what matters is known already
            loop.stop()

    def _call(self, doing: str, function: Callable, *arguments: Any) -> Any:
        if self._expired.is_set():
            raise _Expired
        self._doing = doing
        try:
            return function(*arguments)
        except self._libvirt.libvirtError as error:
            raise LibvirtError(
                f"{self._what}: {doing} failed: {error.get_error_message() or error}", error.get_error_code() or 0
            ) from None

    def _lookup(self, connection: Any) -> Any:
        try:
            if self.uuid:
                return self._call("looking it up", connection.lookupByUUIDString, self.uuid)
            return self._call("looking it up", connection.lookupByName, self.name)
        except LibvirtError as error:
            if error.code != _NO_DOMAIN:
                raise
            raise LibvirtError(
                f"{self._what} is not there: see what is with virsh -c {self.uri} list --all --uuid --name", error.code
            ) from None

    def _state(self, domain: Any) -> tuple[str, str, int]:
        try:
            state, reason = self._call("reading its state", domain.state)
            return (*rules.state_names(state, reason), self._call("reading its id", domain.ID))
        except LibvirtError as error:
            if error.code != _NO_DOMAIN:
                raise
            # A transient domain that ended.
            return "SHUTOFF", "UNKNOWN", -1

    def _restart(self, connection: Any, domain: Any, begin: float) -> dict:
        watched = Watched()
        self._subscribe(connection, domain, watched)
        state, reason, old_id = self._state(domain)
        persistent = bool(self._call("reading its kind", domain.isPersistent))
        try:
            plan = rules.plan(state, reason, self.method, persistent)
        except ArgumentError as error:
            raise ArgumentError(f"{self._what} {error}") from None
        before = {"state": state, "reason": reason, "id": old_id}
        result = {
            "changed": bool(plan.actions),
            "actions": list(plan.actions),
            "msg": f"{self._what} {plan.message}",
            "domain": {
                "uuid": domain.UUIDString(),
                "name": domain.name(),
                **before,
            },
            "verified": False,
        }
        after = before
        if self.check_mode:
            if plan.actions:
                after = rules.expected(plan.actions, before)
        else:
            for action in plan.actions:
                self._act(domain, action)
            if plan.verify:
                self._wait_until_running(domain, watched, plan, old_id, begin + self.timeout)
                self._watch(domain, watched)
                result["verified"] = True
            after = dict(zip(("state", "reason", "id"), self._state(domain), strict=True))
        result["domain"].update(after)
        result["events"] = watched.since(0)
        result["elapsed"] = round(time.monotonic() - begin, 3)
        result["diff"] = {"before": before, "after": after}
        return result

    def _subscribe(self, connection: Any, domain: Any, watched: Watched) -> None:
        libvirt = self._libvirt

        def lifecycle(conn: Any, dom: Any, event: int, detail: int, opaque: Any) -> None:
            watched.add(_LIFECYCLE[event] if 0 <= event < len(_LIFECYCLE) else f"LIFECYCLE_{event}")

        def reboot(conn: Any, dom: Any, opaque: Any) -> None:
            watched.add("REBOOT")

        def watchdog(conn: Any, dom: Any, action: int, opaque: Any) -> None:
            watched.add("WATCHDOG")

        def io_error(conn: Any, dom: Any, path: str, device: str, action: int, opaque: Any) -> None:
            watched.add("IO_ERROR")

        register = connection.domainEventRegisterAny
        for kind, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, watchdog),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR, io_error),
        ):
            self._call("subscribing to its events", register, domain, kind, callback, None)

    def _act(self, domain: Any, action: str) -> None:
        call = {
            rules.RESET: domain.reset,
            rules.REBOOT: domain.reboot,
            rules.DESTROY: domain.destroy,
            rules.CREATE: domain.create,
            rules.RESUME: domain.resume,
        }[action]
        self._call(f"calling {action}", call)

    def _wait_until_running(
        self, domain: Any, watched: Watched, plan: rules.Plan, old_id: int, deadline: float
    ) -> None:
        while True:
            mark = watched.mark()
            state, reason, new_id = self._state(domain)
            if rules.restarted(plan.actions, watched.since(0), state, old_id, new_id):
                # libvirt's state is its own memory; a QEMU that hangs has no answer to this, and the caller's time ends.
                self._call("asking its QEMU", domain.diskErrors)
                return
            if rules.suspended_again(plan.actions, watched.since(0), state):
                raise LibvirtError(f"{self._what} was resumed and is suspended again at once: {state} ({reason})")
            left = deadline - time.monotonic()
            if left <= 0:
                done = " and ".join(plan.actions) or "looking"
                hint = (
                    "; its guest may not heed a request to reboot: use method reset"
                    if rules.REBOOT in plan.actions and state in rules.RUNNING_STATES
                    else ""
                )
                raise LibvirtError(
                    f"{self._what} did not begin anew within {self.timeout:g} s after {done}: it is {state} ({reason}),"
                    f" events {', '.join(watched.since(0)) or 'none'}{hint}"
                )
            self._doing = "waiting for it to run"
            watched.wait(mark, min(left, _LOOK))

    def _watch(self, domain: Any, watched: Watched) -> None:
        start = watched.mark()
        deadline = time.monotonic() + self.verify_seconds
        while True:
            mark = watched.mark()
            state, reason, _id = self._state(domain)
            problem = rules.broken(watched.since(start), state, reason)
            if problem:
                raise LibvirtError(
                    f"{self._what} was running again and did not stay so for {self.verify_seconds:g} s: it {problem}"
                )
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._doing = "watching it"
            watched.wait(mark, min(left, _LOOK))
