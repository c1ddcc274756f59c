# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to one Kubernetes API server over kubernetes_asyncio, with credentials that may change while we run."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import asynccontextmanager
from urllib.parse import quote

from ansible_collections.c5c3.ha.plugins.module_utils.errors import (
    Conflict,
    Forbidden,
    HaError,
    Invalid,
    KubernetesError,
    NotFound,
    NotServed,
    Unauthorized,
    Unreachable,
)
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown
from ansible_collections.c5c3.ha.plugins.module_utils.watching.credentials import Credentials

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
_LONGEST_ANSWER = 256 * 1024 * 1024
# A peer that vanished without a word is noticed by the kernel within half a minute.
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 25000),
)


def watch_over(response) -> None:
    """Let the kernel probe the connection of a response that may be silent for long."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return
    for level, name, value in _SOCKET_OPTIONS:
        try:
            sock.setsockopt(level, getattr(socket, name), value)
        except (AttributeError, OSError):  # not on this platform: our own deadlines remain
            continue


def refusal(status: int, body: bytes, what: str, retry_after: str | None = None) -> KubernetesError:
    """Return the error for an HTTP status that is no success.

    :param what: the request in words, such as ``list evictions.hypervisor.c5c3.io``.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    message = str(answer.get("message") or body[:200].decode("utf-8", "replace").strip() or "no message")
    message = " ".join(message.split())[:500]
    reason = str(answer.get("reason") or "")
    head = f"Kubernetes refused to {what} with {status}: {message}"
    if status == 401:
        error = Unauthorized(f"{head}. Renew the token or certificate; it is read again at once", status, reason)
    elif status == 403:
        error = Forbidden(f"{head}. Grant this user that right (a ClusterRole and its binding)", status, reason)
    elif status == 404:
        # For an object the API names it in details; for a whole type it says only "page not found".
        kind = NotFound if isinstance(answer.get("details"), dict) and answer["details"].get("name") else NotServed
        error = kind(f"{head}. Install the CustomResourceDefinition in that group and version", status, reason)
        if kind is NotFound:
            error = NotFound(head, status, reason)
    elif status == 409:
        error = Conflict(head, status, reason)
    elif status in (400, 422):
        error = Invalid(f"{head}. Correct the selectors or the namespace", status, reason)
    else:
        error = KubernetesError(head, status, reason)
    error.retry_after = _seconds(retry_after)
    return error


def _seconds(text: str | None) -> float | None:
    try:
        return min(max(float(text), 0.0), 30.0) if text else None
    except ValueError:
        return None


class Session:
    """One connection pool. `open` first; `close` at the end.

    :param request_timeout: seconds for a whole request that is no watch.
    """

    def __init__(self, credentials: Credentials, request_timeout: float = 30.0) -> None:
        self.request_timeout = request_timeout
        self._credentials = credentials
        self._rest = None
        self._host = ""
        self._reloading = asyncio.Lock()
        self._generation = 0

    async def open(self) -> None:
        """Read the credentials.

        :raises HaError: when they cannot be used (nothing is sent yet).
        """
        self._rest, self._host = await self._credentials.load()
        self._generation += 1

    async def close(self) -> None:
        """Close all connections."""
        if self._rest is not None:
            await self._rest.close()

    async def reload(self, generation: int) -> None:
        """Read the credentials anew, unless somebody has done so since `generation`."""
        async with self._reloading:
            if generation != self._generation:
                return
            old = self._rest
            await self.open()
            await old.close()  # watches of other kinds go on over the new one

    async def request(
        self,
        method: str,
        path: str,
        what: str,
        query: dict[str, str] | None = None,
        body: dict | None = None,
        timeout: float | None = None,
    ) -> dict:
        """Send a request and return the JSON object that comes back.

        :param what: the request in words, for messages.
        :raises KubernetesError: refused, or Unreachable.
        """
        async with self._answer_within(timeout or self.request_timeout, what):
            response = await self._send(method, path, query, body)
            try:
                data = await _read(response)
            finally:
                response.release()
        if not 200 <= response.status <= 299:
            raise refusal(response.status, data, what, response.headers.get("Retry-After"))
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Unreachable(f"{self._host} answered something that is not JSON: is it a Kubernetes API?") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{self._host} answered {shown(answer)}: is it a Kubernetes API?")
        return answer

    async def stream(self, path: str, what: str, query: dict[str, str]):
        """Open a watch and return the response, whose content the caller reads and which it closes.

        :raises KubernetesError: refused, or Unreachable.
        """
        async with self._answer_within(max(self.request_timeout, CONNECT_TIMEOUT), what):
            response = await self._send("GET", path, query, None)
            if response.status == 200:
                watch_over(response)
                return response
            try:
                data = await _read(response)
            finally:
                response.release()
        raise refusal(response.status, data, what, response.headers.get("Retry-After"))

    async def _send(self, method: str, path: str, query: dict[str, str] | None, body: dict | None):
        # `limit` is for whole requests; ours are measured outside, a watch has no end of its own.
        import aiohttp

        for attempt in (1, 2):
            if self._credentials.changed():
                await self.reload(self._generation)
            generation = self._generation
            headers = {"Accept": "application/json", "User-Agent": "c5c3-ha"}
            authorization = await self._credentials.authorization()
            if authorization:
                headers["Authorization"] = authorization
            response = await self._rest.request(
                method,
                self._host + quote(path),
                query_params=query,
                headers=headers,
                body=body,
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            )
            if response.status != 401 or attempt == 2:
                return response
            response.close()
            await self.reload(generation)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _answer_within(self, seconds: float, what: str):
        """Bound what is inside to `seconds`; whatever goes wrong in it leaves as an HaError."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except HaError:
            raise
        except TimeoutError as error:
            if str(error):  # aiohttp's own: it could not connect in time
                raise self._unreachable(error) from error
            raise Unreachable(f"Kubernetes at {self._host} gave no answer within {seconds:g} s to: {what}") from error
        except Exception as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        detail = str(error) or type(error).__name__
        return Unreachable(f"Kubernetes at {self._host} cannot be reached ({shown(detail, 200)}); still trying")


async def _read(response) -> bytes:
    parts, size = [], 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > _LONGEST_ANSWER:
            response.close()
            raise ValueError(f"an answer of more than {_LONGEST_ANSWER} bytes")
        parts.append(chunk)
    return b"".join(parts)
