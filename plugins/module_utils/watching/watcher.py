# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list and watch loop of one kind: never returns, never raises, tells what changed."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable

from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError, KubernetesError, Unauthorized, Unreachable
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown
from ansible_collections.c5c3.ha.plugins.module_utils.watching.known import Change, Known, identify
from ansible_collections.c5c3.ha.plugins.module_utils.watching.lines import LineSplitter
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import Watched
from ansible_collections.c5c3.ha.plugins.module_utils.watching.session import Session, refusal

logger = logging.getLogger(__name__)

GONE = 410
# There are few daemons: a short cap costs the server nothing, and seconds count once it is back.
FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
PAGE = 500
# After that many failures in a row the place in the stream is not trusted any more: list again.
_FAILURES_BEFORE_LIST = 5
# What the server may take beyond the time we asked it to end the watch at.
_GRACE = 5.0
# Time for the changes that were missed to arrive before unchanged objects are told again.
_SETTLE = 2.0


def delay(failures: int, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after that many failures in a row: doubling, capped, half of it by chance."""
    if failures <= 0:
        return 0.0
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 16))
    return longest * (0.5 + chance() / 2)


class Complaints:
    """Logs the first of equal complaints, then one a minute, and that it is over."""

    def __init__(self, about: str, clock: Callable[[], float]) -> None:
        self._about = about
        self._clock = clock
        self._last: tuple[str, float] | None = None

    def say(self, text: str) -> None:
        """Log a complaint unless the same was logged less than a minute ago."""
        now = self._clock()
        if self._last is None or self._last[0] != text or now - self._last[1] >= 60:
            logger.warning("%s: %s", self._about, text)
            self._last = (text, now)

    def over(self) -> None:
        """Log that it works again, if there was a complaint."""
        if self._last is not None:
            logger.warning("%s: works again", self._about)
            self._last = None


class Watcher:
    """Follows the objects of one kind and hands every change to `sink`.

    :param watched: what to follow.
    :param known: where to keep what was seen.
    :param sink: called with each list of changes, must not block or raise.
    :param clock: seconds that never go back.
    :param only_unfinished: finished objects of the first list are not told.
    """

    def __init__(
        self,
        session: Session,
        watched: Watched,
        known: Known,
        sink: Callable[[list[Change]], None],
        clock: Callable[[], float],
        watch_timeout: float = 45.0,
        only_unfinished: bool = False,
    ) -> None:
        self.known = known
        self.connected = False
        self._session = session
        self._sink = sink
        self._clock = clock
        self._watch_timeout = watch_timeout
        self._only_unfinished = only_unfinished
        self._path = watched.resource.path(namespace=watched.namespace)
        self._name = watched.resource.full_name
        self._selectors = {
            key: value
            for key, value in (("labelSelector", watched.label_selector), ("fieldSelector", watched.field_selector))
            if value
        }
        self._api_version = watched.resource.api_version
        self._kind = watched.resource.kind
        self._version: str | None = None
        self._failures = 0
        self._complaints = Complaints(f"Watch of {self._name}", clock)

    async def run(self) -> None:
        """List, watch, and begin again, for ever."""
        while True:
            wait = 0.0
            try:
                fresh = self._version is None
                if fresh:
                    await self._list()
                await self._watch(self._version, fresh)
            except Exception as error:
                self.connected = False
                self._failures += 1
                wait = self._after(error)
            if wait:
                await asyncio.sleep(wait)

    def _after(self, error: Exception) -> float:
        """Decide where to go on after an error, and return how long to wait before."""
        status = getattr(error, "status", 0)
        lost_place = not isinstance(error, (Unreachable, Unauthorized))
        if lost_place or self._failures >= _FAILURES_BEFORE_LIST:
            self._version = None
        if status == GONE:
            logger.info("Watch of %s: the server has forgotten our place, listing again", self._name)
            return delay(self._failures - 1)  # the first time at once: it is the server's ordinary way
        if isinstance(error, HaError):
            self._complaints.say(str(error))
        else:
            self._complaints.say(f"unexpected {type(error).__name__} ({shown(str(error), 300)}); listing again")
            logger.debug("Watch of %s", self._name, exc_info=error)
        return max(delay(self._failures), getattr(error, "retry_after", None) or 0.0)

    async def _list(self) -> None:
        items: list = []
        query = {**self._selectors, "limit": str(PAGE)}
        while True:
            page = await self._session.request("GET", self._path, f"list {self._name}", query)
            metadata = page.get("metadata") if isinstance(page.get("metadata"), dict) else {}
            found = page.get("items")
            items += [self._trimmed(obj) for obj in (found if isinstance(found, list) else [])]
            token = metadata.get("continue")
            if not token:
                break
            query["continue"] = str(token)
        version = metadata.get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise Unreachable(f"The list of {self._name} has no resourceVersion: is this a Kubernetes API?")
        self._tell(self.known.listed(items, self._only_unfinished))
        self._version = version

    async def _watch(self, version: str, fresh: bool) -> None:
        query = {
            **self._selectors,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(self._watch_timeout))),
        }
        response = await self._session.stream(self._path, f"watch {self._name}", query)
        try:
            opened = self._clock()
            if not self.connected:
                self.connected = True
                if not fresh:
                    self.known.postpone(opened + _SETTLE)
            whole, told = await self._follow(response)
        finally:
            response.close()
        if not whole:
            self._version = None  # a line was lost: the next list tells what was in it
        if not told and self._clock() - opened < min(1.0, self._watch_timeout / 2):
            raise Unreachable(f"The server ended the watch of {self._name} at once; still trying")
        self._well()

    def _well(self) -> None:
        self._failures = 0
        self._complaints.over()

    async def _follow(self, response) -> tuple[bool, bool]:
        """Read the stream to its end; return whether every line was understood, and whether any was."""
        splitter, whole, told = LineSplitter(), True, False
        limit = self._watch_timeout + _GRACE
        try:
            async with asyncio.timeout(limit):
                while True:
                    try:
                        chunk = await response.content.readany()
                    except TimeoutError:
                        raise
                    except Exception as error:
                        detail = str(error) or type(error).__name__
                        raise Unreachable(f"The watch of {self._name} broke off ({shown(detail, 200)})") from error
                    if not chunk:
                        break
                    for line in splitter.feed(chunk):
                        if self._line(line):
                            if not told:
                                told = True
                                self._well()
                        else:
                            whole = False
        except TimeoutError as error:
            raise Unreachable(
                f"The watch of {self._name} did not end within {limit:g} s as asked: the server hangs; connecting anew"
            ) from error
        if splitter.dropped:
            self._complaints.say(f"{splitter.dropped} event(s) longer than {splitter.limit} bytes were left out")
        return whole and not splitter.dropped, told

    def _line(self, line: bytes) -> bool:
        """Take one line of the stream; return False when it was not understood."""
        try:
            event = json.loads(line)
            kind, obj = event["type"], event["object"]
            if not isinstance(obj, dict):
                raise TypeError(type(obj))
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            self._complaints.say(f"an event that is none was left out ({type(error).__name__})")
            return False
        if kind == "ERROR":
            code = obj.get("code")
            raise refusal(code if isinstance(code, int) else 500, line_body(obj), f"watch {self._name}")
        if kind == "BOOKMARK":
            metadata = obj.get("metadata")
            version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
            if isinstance(version, str) and version:
                self._version = version
            return True
        identity = identify(obj)
        if identity is None:
            self.known.malformed += 1
            self._complaints.say("an object without usable metadata was left out")
            return False
        self._tell(self.known.watched(kind, self._trimmed(obj)))
        self._version = identity[2]
        return True

    def _tell(self, changes: list[Change]) -> None:
        if changes:
            self._sink(changes)

    def _trimmed(self, obj: object) -> object:
        """Return what is kept of an object, with kind and apiVersion: items of some lists lack them."""
        if not isinstance(obj, dict):
            return obj
        obj.setdefault("apiVersion", self._api_version)
        obj.setdefault("kind", self._kind)
        return self.known.slim(obj)


def line_body(status: dict) -> bytes:
    """Return a Status object as the body it would have been in an HTTP error."""
    return json.dumps(status).encode()


__all__ = ["Complaints", "KubernetesError", "Watcher", "delay"]
