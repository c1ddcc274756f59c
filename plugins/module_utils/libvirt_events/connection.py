# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One libvirt connection, for ever: connect, subscribe, compare, stay, and begin again when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

try:
    import libvirt
except ImportError:  # the source's main tells it; ansible-test imports this file without the library
    libvirt = None  # type: ignore[assignment]

from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import event_loop
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.join import Joiner
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.options import Options
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.states import Domains, Listed
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events.translate import KINDS, Kind, event_of, timestamp

log = logging.getLogger("c5c3.ha.libvirt")

_CLOSE_REASONS = ("error", "libvirtd closed it", "no answer to keepalive", "closed here")
# Opens that hang in a frozen libvirtd hold a thread each; more of them would not make it answer.
_MOST_OPENS = 3
_CLOSE_DEADLINE = 2.0
_DISK_ERRORS = ("", "", "enospc")  # virDomainDiskErrorCode: none, unspecified, no space


def _quiet(context: Any, error: Any) -> None:
    """libvirt prints every error to stderr unless it is given somebody to tell; they are raised as well."""


class Connection:
    """Watches one URI.

    :param name: name of the hypervisor, or None to ask libvirt.
    :param domains: what is known of its domains; kept over connections.
    :param tell: takes each finished event.
    """

    def __init__(
        self, uri: str, name: str | None, options: Options, domains: Domains, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self.uri = uri
        self.options = options
        self.domains = domains
        self._tell = tell
        self._named = name is not None
        self._name = name or _host_of(uri)
        self._joiner = Joiner(options.join_window)
        self._join_timer: asyncio.TimerHandle | None = None
        self._opens = 0
        self._loop = asyncio.get_running_loop()
        self._link: _Link | None = None  # while connected
        self._was_connected: bool | None = None
        self._skipped_told = False

    async def run(self) -> None:
        """Watch until cancelled. Never returns, never raises anything else."""
        libvirt.registerErrorHandler(_quiet, None)
        beats = asyncio.create_task(self._beat_for_ever())
        try:
            await self._watch_for_ever()
        finally:
            beats.cancel()

    async def _watch_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                link = _Link(await self._open(), self.options.call_timeout)
            except Exception as error:  # pylint: disable=broad-except  # whatever it is, try again
                failures += 1
                self._disconnected(f"cannot connect: {_text(error)}")
                await self._back_off(failures)
                continue
            lost: asyncio.Future[str] = self._loop.create_future()
            try:
                await self._subscribe(link, lost)
                failures = 0
                reason = await lost
            except Exception as error:  # pylint: disable=broad-except
                reason = _text(error)
            finally:
                self._link = None
                await self._close(link)
            failures += 1
            self._emit(self._joiner.flush())
            self._disconnected(reason)
            await self._back_off(failures)

    async def _beat_for_ever(self) -> None:
        """Compare and tell a heartbeat now and then, connected or not.

        Keepalive finds a libvirtd that hangs whole. One that only answers no questions keeps its connection: its events
        may still come.
        """
        silent = False
        while True:
            await asyncio.sleep(self.options.heartbeat_seconds)
            link = self._link
            if link is not None:
                try:
                    await self._compare(link)
                    silent = False
                except Exception as error:  # pylint: disable=broad-except  # a heartbeat must not end
                    if not silent and link is self._link:
                        log.warning("%s: libvirtd is connected but does not answer: %s", self.uri, _text(error))
                    silent = True
            self._beat(connected=self._link is not None and not silent)

    # -- telling

    def _finish(self, event: dict[str, Any]) -> None:
        self._tell({**event, "hypervisor": self._name, "uri": self.uri})

    def _tell_connection(self, connected: bool, reason: str) -> None:
        self._finish(
            {
                "event": "connection",
                "occurred_at": timestamp(time.time()),
                "synthetic": False,
                "count": 1,
                "connected": connected,
                "reason": reason,
            }
        )

    def _disconnected(self, reason: str) -> None:
        if self._was_connected is not False:
            log.warning("%s: not connected: %s; trying again", self.uri, reason)
            self._tell_connection(False, reason)
        else:
            log.info("%s: still not connected: %s", self.uri, reason)
        self._was_connected = False

    def _beat(self, connected: bool) -> None:
        """Tell that the source lives, and what runs as far as it knows."""
        instances = self.domains.instances()
        event = {
            "event": "heartbeat",
            "occurred_at": timestamp(time.time()),
            "synthetic": False,
            "count": 1,
            "connected": connected,
            "domains": sum(1 for instance in instances if instance["active"]),
        }
        if self.options.instances:
            event["instances"] = instances
        self._finish(event)

    # -- connecting

    async def _back_off(self, failures: int) -> None:
        """Wait before the next attempt: doubling, with jitter so that a thousand agents do not knock in step."""
        longest = min(self.options.backoff_max, self.options.backoff_min * 2 ** min(failures - 1, 16))
        await asyncio.sleep(longest * random.uniform(0.5, 1.0))

    async def _open(self) -> Any:
        if self._opens >= _MOST_OPENS:
            raise TimeoutError(f"libvirtd does not answer, {self._opens} attempts still wait for it")
        self._opens += 1

        def open_connection() -> Any:
            try:
                return libvirt.openReadOnly(self.uri)
            finally:
                self._loop.call_soon_threadsafe(self._open_ended)

        # a connection that is made after we gave up is nobody's
        return await event_loop.call(open_connection, deadline=self.options.call_timeout, late=_close_quietly)

    def _open_ended(self) -> None:
        self._opens -= 1

    async def _subscribe(self, link: _Link, lost: asyncio.Future[str]) -> None:
        """Ask for everything, then compare: what happens between the two is told by both and known to be one."""

        def closed(_connection: Any, reason: int, _opaque: Any) -> None:
            text = _CLOSE_REASONS[reason] if 0 <= reason < len(_CLOSE_REASONS) else str(reason)
            self._loop.call_soon_threadsafe(lambda: lost.done() or lost.set_result(text))

        def subscribe(connection: Any) -> tuple[str, list[str]]:
            try:
                connection.setKeepAlive(self.options.keepalive_interval, self.options.keepalive_count)
            except libvirt.libvirtError as error:
                # a driver without a daemon, such as test:///
                log.info("%s: without keepalive: %s", self.uri, _text(error))
            connection.registerCloseCallback(closed, None)
            link.undo.append(connection.unregisterCloseCallback)
            skipped = []
            for kind in KINDS:
                number = getattr(libvirt, kind.constant, None)
                try:
                    if number is None:
                        raise LookupError("this libvirt-python does not know it")
                    identity = connection.domainEventRegisterAny(None, number, self._callback(kind), None)
                except (LookupError, libvirt.libvirtError) as error:
                    if isinstance(error, libvirt.libvirtError) and kind.event == "lifecycle":
                        raise
                    skipped.append(f"{kind.constant} ({_text(error)})")
                else:
                    link.undo.append(lambda identity=identity: connection.domainEventDeregisterAny(identity))
            return connection.getHostname(), skipped

        # what comes from here on over the new connection is newer than the comparison below
        self.domains.begin_connection()
        host, skipped = await link.ask(subscribe)
        if not self._named:
            self._name = host.split(".")[0]
        if skipped and not self._skipped_told:
            self._skipped_told = True
            log.warning("%s: this libvirt lacks events, they are never told: %s", self.uri, ", ".join(skipped))
        await self._compare(link, connected=True)
        if lost.done():
            return
        self._link = link
        log.log(
            logging.INFO if self._was_connected is None else logging.WARNING,
            "%s: connected as hypervisor %s",
            self.uri,
            self._name,
        )
        self._was_connected = True
        self._tell_connection(True, "")
        self._beat(connected=True)

    async def _close(self, link: _Link) -> None:
        if self._join_timer is not None:
            self._join_timer.cancel()
            self._join_timer = None
        try:
            await event_loop.call(link.close, deadline=_CLOSE_DEADLINE)
        except TimeoutError as error:
            log.info("%s: closing the connection: %s", self.uri, _text(error))

    # -- edges

    def _callback(self, kind: Kind) -> Callable[..., None]:
        def callback(_connection: Any, domain: Any, *arguments: Any) -> None:
            now = time.time()
            try:
                # the last argument is the opaque that we registered
                event = event_of(kind, domain.UUIDString(), domain.name(), timestamp(now), arguments[:-1])
            except Exception:  # pylint: disable=broad-except  # libvirt would print it to stderr and go on
                log.exception("%s: cannot read a %s event with %r", self.uri, kind.event, arguments[:-1])
                return
            # usually we are on the loop already; a call in another thread may dispatch as well
            if event_loop.is_loop_thread():
                self._happened(event)
            else:
                self._loop.call_soon_threadsafe(self._happened, event)

        return callback

    def _happened(self, event: dict[str, Any]) -> None:
        if not self.domains.observe(event):
            log.debug("%s: %s of %s was told before", self.uri, event["event"], event["uuid"])
            return
        self._emit(self._joiner.add(event, self._loop.time()))

    def _emit(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self._finish(event)
        due = self._joiner.next_due()
        if due is not None and self._join_timer is None:
            self._join_timer = self._loop.call_at(due, self._join_due)

    def _join_due(self) -> None:
        self._join_timer = None
        self._emit(self._joiner.due(self._loop.time()))

    # -- levels

    async def _compare(self, link: _Link, connected: bool = False) -> None:
        if not connected:
            self.domains.begin_listing()
        asked = timestamp(time.time())
        listing = await link.ask(_list)
        events, notes = self.domains.compare(listing, asked, connected=connected, now=self._loop.time())
        for note in notes:
            log.warning("%s: %s", self.uri, note)
        for event in events:
            if event["event"] == "io_error":
                event.update(await self._disk_error(link, event["uuid"]))
            log.log(
                logging.INFO if event["uuid"] in self.domains.lasting else logging.WARNING,
                "%s: found without an event: %s %s of %s (%s) since %s",
                self.uri,
                event.get("action"),
                event.get("detail", event["event"]),
                event["uuid"],
                event["domain"],
                event["occurred_at"],
            )
            self._finish(event)

    async def _disk_error(self, link: _Link, uuid: str) -> dict[str, str]:
        """Which disk of a paused domain failed, and whether for want of space. Best effort: it asks the QEMU."""
        try:
            errors = await link.ask(lambda connection: connection.lookupByUUIDString(uuid).diskErrors(), 2.0)
        except (TimeoutError, libvirt.libvirtError) as error:
            log.info("%s: cannot ask %s for its disk errors: %s", self.uri, uuid, _text(error))
            return {}
        for device, code in errors.items():
            return {"device": device, "reason": _DISK_ERRORS[code] if 0 <= code < len(_DISK_ERRORS) else ""}
        return {}


class _Link:
    """A libvirt connection that is asked one question at a time, and closed when none is under way.

    libvirt frees a connection that is closed while another thread still uses it.
    """

    def __init__(self, connection: Any, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._in_use = threading.Lock()
        self.undo: list[Callable[[], Any]] = []

    async def ask(self, question: Callable[[Any], Any], deadline: float | None = None) -> Any:
        """Run ``question(connection)`` in a thread.

        :raises TimeoutError: no answer yet; the next question is refused in the same way until there is one.
        """
        if not self._in_use.acquire(blocking=False):
            raise TimeoutError("the last question is still without an answer")

        def run() -> Any:
            try:
                return question(self._connection)
            finally:
                self._in_use.release()

        return await event_loop.call(run, deadline=min(deadline or self._deadline, self._deadline))

    def close(self) -> None:
        """Undo what was registered and close. Blocks until a question under way has its answer."""
        with self._in_use:
            for step in reversed(self.undo):
                try:
                    step()
                except libvirt.libvirtError:
                    pass
            _close_quietly(self._connection)


def _list(connection: Any) -> list[Listed]:
    """All domains with state and reason, in two calls."""
    persistent = {
        domain.UUIDString() for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    }
    try:
        rows = [
            (domain, statistics["state.state"], statistics["state.reason"])
            for domain, statistics in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
        ]
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        rows = []
        for domain in connection.listAllDomains():
            try:
                rows.append((domain, *domain.state()))
            except libvirt.libvirtError as gone:
                if gone.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    return [
        Listed(domain.UUIDString(), domain.name(), state, reason, domain.UUIDString() in persistent)
        for domain, state, reason in rows
    ]


def _close_quietly(connection: Any) -> None:
    try:
        connection.close()
    except libvirt.libvirtError:
        pass


def _host_of(uri: str) -> str:
    """Name to go by until libvirt has been asked: the URI's host, else our own."""
    return (urlsplit(uri).hostname or socket.gethostname()).split(".")[0]


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
