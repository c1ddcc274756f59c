# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a Redfish controller who its systems are.

fence_redfish without ``systems_uri`` takes the controller's last system, and with it believes whatever answers there.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fencing_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.fencing_rules import FenceTarget, FencingError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown

PORT = 443
_ROOT = "/redfish/v1/Systems"
_MOST_BYTES = 4 << 20
_MOST_SYSTEMS = 64


def find_system(target: FenceTarget, seconds: float, known: str = "") -> tuple[str, str]:
    """Return (path, PowerState) of the target's system, after it was seen to be that one.

    :param known: the path where it was found before; only that one is read then.
    :raises FencingError: WrongSystem, AuthenticationFailed, Unreachable or AgentFailed.
    """
    end = time.monotonic() + seconds
    with _Session(target, end) as session:
        if known:
            systems = [(known, session.get(known))]
        else:
            systems = list(_systems(session))
    found = rules.matching_systems(target.system_id, systems)
    if len(found) != 1:
        raise FencingError(
            rules.WRONG_SYSTEM, rules.wrong_system(target, [_identity(path, system) for path, system in systems])
        )
    path, system = found[0]
    return path, str(system.get("PowerState") or "")


def _systems(session: _Session) -> Iterator[tuple[str, dict]]:
    path: str | None = _ROOT
    number = 0
    while path:
        page = session.get(path)
        members = page.get("Members")
        for member in members if isinstance(members, list) else []:
            number += 1
            where = rules.usable_path(member.get("@odata.id") if isinstance(member, dict) else None)
            if where and number <= _MOST_SYSTEMS:
                yield where, session.get(where)
        number += 1  # also a page without members ends
        path = rules.usable_path(page.get("Members@odata.nextLink"), page=True) if number <= _MOST_SYSTEMS else None


def _identity(path: str, system: dict) -> str:
    return " ".join(str(part) for part in (path, system.get("UUID"), system.get("SerialNumber")) if part)


@functools.lru_cache(maxsize=4)  # reading the machine's authorities takes longer than a controller's answer
def _context(ca: str, insecure: bool) -> ssl.SSLContext:
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    return ssl.create_default_context(cadata=ca or None)


class _Session:
    """Some GETs on one connection, all within one deadline.

    They run in a thread of their own: neither a name server nor a controller that sends a byte now and then can hold us.
    """

    def __init__(self, target: FenceTarget, end: float) -> None:
        self._target = target
        self._end = end
        try:
            context = _context(target.ca, dict(target.parameters).get("ssl_insecure") == "1")
        except ssl.SSLError:
            raise FencingError(
                rules.INVALID_TARGET, f"Hypervisor {target.host}: ca.crt of its Secret is no certificate in PEM"
            ) from None
        self._connection = http.client.HTTPSConnection(target.address, target.port or PORT, context=context)
        credential = base64.b64encode(f"{target.username}:{target.password}".encode()).decode()
        self._headers = {
            "Accept": "application/json",
            "OData-Version": "4.0",
            "Authorization": f"Basic {credential}",
        }

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def get(self, path: str) -> dict:
        """Return the resource at `path`.

        :raises FencingError: AuthenticationFailed, Unreachable or AgentFailed.
        """
        box: list = []
        thread = threading.Thread(target=self._exchange, args=(path, box), daemon=True)
        thread.start()
        thread.join(max(self._end - time.monotonic(), 0.0))
        if not box:
            sock = self._connection.sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            raise FencingError(
                rules.UNREACHABLE,
                (
                    f"{self._target.where} accepted the connection and does not answer"
                    if sock is not None
                    else f"{self._target.where} cannot be connected to within the time allowed"
                ),
            )
        return self._judged(path, box[0])

    def _exchange(self, path: str, box: list) -> None:
        try:
            # The thread's own limit, should nobody wait for it any more.
            self._connection.timeout = max(self._end - time.monotonic(), 0.01)
            self._connection.request("GET", path, headers=self._headers)
            response = self._connection.getresponse()
            box.append((response.status, response.read(_MOST_BYTES)))
        except Exception as error:  # pylint: disable=broad-exception-caught # judged by the other thread
            box.append(error)

    def _judged(self, path: str, answer: tuple[int, bytes] | Exception) -> dict:
        where = self._target.where
        if isinstance(answer, ssl.SSLCertVerificationError):
            raise FencingError(
                rules.UNREACHABLE,
                f"the certificate of {where} is not trusted ({answer.verify_message}): give its certificate authority as"
                " ca.crt in the Secret, or set spec.fencing.parameters ssl_insecure to 1",
            )
        if isinstance(answer, TimeoutError):
            raise FencingError(rules.UNREACHABLE, f"{where} does not answer within the time allowed")
        if isinstance(answer, Exception):
            kind = type(answer).__name__
            text = f"{kind}: {answer}" if isinstance(answer, OSError) else kind
            raise FencingError(rules.UNREACHABLE, f"{where} cannot be asked ({rules.words(text)})")
        status, data = answer
        if status in (401, 403):
            raise FencingError(
                rules.AUTHENTICATION_FAILED, f"{where} refuses the user {shown(self._target.username)} (HTTP {status})"
            )
        try:
            resource = json.loads(data) if status == 200 else None
        except ValueError:
            resource = None
        if status == 404:
            return {}
        if not isinstance(resource, dict):
            raise FencingError(rules.AGENT_FAILED, f"{where} answers GET {path} with HTTP {status} and no resource")
        return resource
