# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to bring a libvirt domain back to work on its own host. Pure functions over plain data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown

METHODS = ("auto", "reset", "reboot", "start", "resume", "verify")

# libvirt's virDomainState and its reasons, by number.
STATES = ("NOSTATE", "RUNNING", "BLOCKED", "PAUSED", "SHUTDOWN", "SHUTOFF", "CRASHED", "PMSUSPENDED")
REASONS = {
    "RUNNING": (
        "UNKNOWN BOOTED MIGRATED RESTORED FROM_SNAPSHOT UNPAUSED MIGRATION_CANCELED SAVE_CANCELED WAKEUP CRASHED"
        " POSTCOPY POSTCOPY_FAILED"
    ).split(),
    "PAUSED": (
        "UNKNOWN USER MIGRATION SAVE DUMP IOERROR WATCHDOG FROM_SNAPSHOT SHUTTING_DOWN SNAPSHOT CRASHED STARTING_UP"
        " POSTCOPY POSTCOPY_FAILED API_ERROR"
    ).split(),
    "SHUTDOWN": "UNKNOWN USER".split(),
    "SHUTOFF": "UNKNOWN SHUTDOWN DESTROYED CRASHED MIGRATED SAVED FAILED FROM_SNAPSHOT DAEMON".split(),
    "CRASHED": "UNKNOWN PANICKED".split(),
}

# Actions, in libvirt's terms.
RESET, REBOOT, DESTROY, CREATE, RESUME = "reset", "reboot", "destroy", "create", "resume"

# Something else is at work on the domain, or its memory is in two places: any act would break that.
_BUSY = {
    ("RUNNING", "POSTCOPY"),
    ("RUNNING", "POSTCOPY_FAILED"),
    ("PAUSED", "MIGRATION"),
    ("PAUSED", "SAVE"),
    ("PAUSED", "DUMP"),
    ("PAUSED", "SHUTTING_DOWN"),
    ("PAUSED", "SNAPSHOT"),
    ("PAUSED", "STARTING_UP"),
    ("PAUSED", "POSTCOPY"),
    ("PAUSED", "POSTCOPY_FAILED"),
}
_SUSPENDED_BY_ERROR = {("PAUSED", "IOERROR"), ("PAUSED", "API_ERROR")}
# QEMU died; nobody wanted it off.
_DIED = {("SHUTOFF", "CRASHED"), ("SHUTOFF", "FAILED"), ("SHUTOFF", "DAEMON")}


@dataclass(frozen=True)
class Plan:
    """What to do.

    :ivar actions: libvirt calls in order; empty when nothing is to be done.
    :ivar message: why, in words.
    :ivar verify: whether the domain must be seen running afterwards. False where somebody wanted it as it is.
    """

    actions: tuple[str, ...]
    message: str
    verify: bool = True


def state_names(state: int, reason: int) -> tuple[str, str]:
    """Return libvirt's numbers of state and reason as names; ``UNKNOWN`` for numbers of newer libvirt."""
    name = STATES[state] if 0 <= state < len(STATES) else "UNKNOWN"
    reasons = REASONS.get(name, ())
    return name, reasons[reason] if 0 <= reason < len(reasons) else "UNKNOWN"


def plan(state: str, reason: str, method: str, persistent: bool = True) -> Plan:
    """Say how to bring a domain back.

    :param state: a name of STATES, with `reason` as in REASONS.
    :param method: ``auto`` repairs what broke and leaves alone what somebody wanted; ``reset`` and ``reboot`` restart a
        guest whatever it does; ``start`` makes it run without restarting one that runs; ``resume`` lets a guest go on that
        an I/O error suspended, and leaves alone every other one; ``verify`` only looks.
    :param persistent: whether libvirt keeps the definition of a domain that is off.
    :raises ArgumentError: the method does not fit the state, or would do harm.
    """
    if method not in METHODS:
        raise ArgumentError(f"method {shown(method)} is not known: use one of {', '.join(METHODS)}")
    at = f"is {state} ({reason})"
    if method == "verify":
        return Plan((), f"{at}; nothing is done to it")
    if method == "resume":
        if (state, reason) in _SUSPENDED_BY_ERROR:
            # Its memory is whole; QEMU tries the failed request again.
            return Plan((RESUME,), f"{at}: resumed")
        return Plan((), f"{at} and left alone: no I/O error suspends it", verify=False)
    if (state, reason) == ("SHUTOFF", "MIGRATED"):
        # Never: it runs on another host with the same disk.
        return _leave(method, at, "it was migrated to another host and may run there")
    if (state, reason) in _BUSY or state == "SHUTDOWN":
        return _leave(method, at, "libvirt or QEMU is at work on it: wait until that is over")
    if state in ("NOSTATE", "UNKNOWN"):
        return _leave(method, at, "this state is not known: look at it with virsh domstate --reason")
    if state == "CRASHED" or (state, reason) == ("PAUSED", "CRASHED"):
        if not persistent:
            return _leave(method, at, "it is transient, and destroying it would lose its definition")
        return Plan((DESTROY, CREATE), f"{at}: destroyed and started")
    if state == "SHUTOFF":
        return _plan_off(state, reason, method, at)
    if state == "PMSUSPENDED":
        if method == "auto":
            return _leave(method, at, "its guest went to sleep by itself")
        if not persistent:
            return _leave(method, at, "it is transient, and destroying it would lose its definition")
        return Plan((DESTROY, CREATE), f"{at}: destroyed and started")
    if state == "PAUSED":
        return _plan_paused(reason, method, at)
    # RUNNING and BLOCKED
    if method == "start":
        return Plan((), f"{at} already")
    return Plan((REBOOT,), f"{at}: rebooted") if method == "reboot" else Plan((RESET,), f"{at}: reset")


def _plan_off(state: str, reason: str, method: str, at: str) -> Plan:
    if method == "start" or (state, reason) in _DIED:
        return Plan((CREATE,), f"{at}: started")
    if method == "auto":
        return _leave(method, at, "somebody switched it off")
    raise ArgumentError(f"{at}, which method {method} does not turn on: use method start")


def _plan_paused(reason: str, method: str, at: str) -> Plan:
    if method in ("reset", "reboot"):
        # A paused guest cannot answer a request to reboot.
        return Plan((RESET, RESUME), f"{at}: reset and resumed")
    if method == "start":
        return Plan((RESUME,), f"{at}: resumed")
    if reason == "WATCHDOG":
        return Plan((RESET, RESUME), f"{at}: reset and resumed")
    if ("PAUSED", reason) in _SUSPENDED_BY_ERROR:
        return Plan((RESUME,), f"{at}: resumed")
    return _leave(method, at, "somebody paused it")


def _leave(method: str, at: str, why: str) -> Plan:
    """Nothing is done under auto; a method that was chosen by name must not seem to have worked."""
    if method == "auto":
        return Plan((), f"{at} and left alone: {why}", verify=False)
    raise ArgumentError(f"{at}, and method {method} is refused: {why}")


def expected(actions: Iterable[str], before: dict) -> dict:
    """Return the state that the actions lead to, for check mode; `before` and the result have state, reason and id."""
    actions = tuple(actions)
    if CREATE in actions:
        return {"state": "RUNNING", "reason": "BOOTED", "id": None}
    if RESUME in actions:
        return {"state": "RUNNING", "reason": "UNPAUSED", "id": before["id"]}
    return dict(before)


# --- verification -------------------------------------------------------------------------------------------------

RUNNING_STATES = ("RUNNING", "BLOCKED")
# What must not happen to a domain that was brought back.
BAD_EVENTS = ("STOPPED", "CRASHED", "SHUTDOWN", "SUSPENDED", "PMSUSPENDED", "WATCHDOG", "IO_ERROR")


def restarted(actions: Iterable[str], events: Iterable[str], state: str, old_id: int, new_id: int) -> bool:
    """Tell whether what was done has taken hold: the guest began anew (or goes on, where it was only resumed).

    :param events: names of the events since the first action, such as ``REBOOT`` or ``STARTED``.
    :param old_id: libvirt's number of the running domain before; each QEMU process has a new one. -1 when off.
    """
    actions = tuple(actions)
    if state not in RUNNING_STATES:
        return False
    if CREATE in actions:
        return new_id != old_id
    if RESET in actions or REBOOT in actions:
        # on_reboot=destroy with a restart by the management: a new process instead of the event.
        return "REBOOT" in events or new_id != old_id
    return True


def suspended_again(actions: Iterable[str], events: Iterable[str], state: str) -> bool:
    """Tell whether a domain that was only resumed has run into its error again, so that waiting is in vain.

    :param events: names of the events since the first action.
    """
    events = list(events)
    return (
        tuple(actions) == (RESUME,) and state == "PAUSED" and "SUSPENDED" in events[events.index("RESUMED") :]
        if "RESUMED" in events
        else False
    )


def broken(events: Iterable[str], state: str, reason: str) -> str | None:
    """Return in words why a domain that was brought back does not stay so, or None.

    :param events: names of the events since it was seen running.
    """
    bad = [event for event in events if event in BAD_EVENTS]
    if state not in RUNNING_STATES:
        return f"is {state} ({reason})" + (f" after {', '.join(dict.fromkeys(bad))}" if bad else "")
    # It may have been suspended and resumed by something else meanwhile; a process that ended, or a watchdog that bit
    # again, tells that the guest is not well.
    bad = [event for event in bad if event not in ("SUSPENDED", "SHUTDOWN")]
    return f"runs again after {', '.join(dict.fromkeys(bad))}" if bad else None


# --- arguments ----------------------------------------------------------------------------------------------------

_URI_RE = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]*")
_NAME_RE = re.compile(r"[^\x00-\x1f\x7f/]{1,255}")


def validate_uri(uri: str) -> str:
    """Return a libvirt connection URI, or raise ArgumentError."""
    if not isinstance(uri, str) or len(uri) > 1024 or not _URI_RE.fullmatch(uri):
        raise ArgumentError(f"uri {shown(uri)} is not a libvirt URI: give it as qemu:///system")
    return str.__str__(uri)


def validate_domain_name(name: str) -> str:
    """Return a libvirt domain name, or raise ArgumentError."""
    if not isinstance(name, str) or not _NAME_RE.fullmatch(name):
        raise ArgumentError(f"name {shown(name)} is not a domain name: give it as virsh list prints it")
    return str.__str__(name)
