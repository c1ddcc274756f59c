# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server's entry in an Eviction, what holds around it, and the shapes that every decision about it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

TERMINAL = frozenset({"Succeeded", "Failed", "Skipped", "Notified"})
# Seconds without an answer after which nova-compute may hang: Nova waits as long for one (rpc_response_timeout).
MUTE_SECONDS = 60.0
HUNG = "read nova-compute's log on {host}, and restart it there if it hangs"


@dataclass(frozen=True)
class Settings:
    """Limits of the work on one server. Times in seconds; each has its reason in the module's documentation."""

    restart_attempts: int = 2
    move_attempts: int = 3
    backoff: float = 5.0
    attempt_timeout: float = 600.0
    evacuate_timeout: float = 180.0
    crash_restarts: int = 10
    crash_moves: int = 10
    crash_window: float = 600.0


@dataclass(frozen=True)
class Entry:
    """One element of an Eviction's ``status.instances``. Times are seconds since the epoch.

    ``vm_state`` is Nova's word before an evacuation began, "stopped" for a cold migration of what was: it stays stopped.
    """

    id: str
    name: str = ""
    route: str = "None"
    phase: str = "Pending"
    attempts: int = 0
    source: str = ""
    target: str = ""
    vm_state: str = ""
    message: str = ""
    started_at: float | None = None
    attempted_at: float | None = None
    finished_at: float | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.phase in TERMINAL


@dataclass(frozen=True)
class Context:
    """What holds for all servers of one Eviction in this pass.

    :ivar dead: the host is proven off, or taken for off by consent: its servers are evacuated.
    :ivar returned: it came back since: what has begun is ended, nothing more is begun.
    :ivar heard: when its nova-compute last told Nova that it runs, by Nova's clock.
    :ivar others: each other hypervisor: up, down, or off (forced down: somebody vouches for it).
    """

    source: str
    cause: str
    now: float
    service_up: bool = True
    notify_only: bool = False
    whole_host: bool = False
    dead: bool = False
    returned: bool = False
    heard: float | None = None
    others: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    faults: int = 0
    """How often this server needed help within the crash window, this time included; 0 where that is not known."""


@dataclass(frozen=True)
class Decision:
    """The next act for a server and the entry to write before it is done.

    ``act``: None (wait, or finished), Restart, RestartAgain, LiveMigrate, ColdMigrate, Evacuate, Confirm,
    ResetState, Stop or Abort.
    ``target``: the only host it may go to; empty lets Nova choose. ``on_disk``: its data is in files of the host's.
    ``release``: UUID of a broken-off migration that may hold the server's allocation on its host; empty for none.
    ``drop``: UUID of a migration that is over and whose allocation nobody will give back; empty for none.
    """

    entry: Entry
    act: str | None = None
    target: str = ""
    on_disk: bool = True
    release: str = ""
    drop: str = ""


def attempt(entry: Entry, route: str, phase: str, doing: str, context: Context, act: str | None = None) -> Decision:
    """Begin an attempt of a route: the entry to write, and the act."""
    attempts = entry.attempts + 1 if route == entry.route else 1
    return Decision(
        replace(
            entry,
            route=route,
            phase=phase,
            attempts=attempts,
            attempted_at=context.now,
            message=f"{doing}, attempt {attempts}" + (f" ({entry.message})" if "failed" in entry.message else ""),
        ),
        act or route,
    )


def wait(entry: Entry, message: str) -> Decision:
    """Do nothing, and say why."""
    return Decision(replace(entry, message=message))


def end(entry: Entry, phase: str, message: str, context: Context) -> Decision:
    """Nothing more will be done for it: ``phase`` is one of TERMINAL."""
    return Decision(replace(entry, phase=phase, message=message, finished_at=context.now))


def backing_off(entry: Entry, context: Context) -> bool:
    """Whether it is too early for the next attempt."""
    if entry.attempted_at is None or entry.attempts == 0:
        return False
    return context.now < entry.attempted_at + context.settings.backoff * 2 ** (entry.attempts - 1)


def mute(entry: Entry, host: str | None, context: Context, told: str = "") -> Decision:
    """Wait for nova-compute to say whether the guest runs; after a minute with what ends a hang.

    nova-compute's sign of life comes from a thread of its own: one that hangs is up for Nova all the same (seen on the
    lab with Nova 34: it waits for ever for its own lock of the connection to libvirtd).

    :param host: whose nova-compute was asked.
    :param told: what else is known of the server.
    """
    message = f"{told or f'nova-compute of {host}'} does not say whether the guest runs"
    if context.now - (entry.attempted_at or entry.started_at or context.now) > MUTE_SECONDS:
        message += f", for over {MUTE_SECONDS:.0f} s: {HUNG.format(host=host)}"
    return wait(entry, message)


def over_time(entry: Entry, context: Context, more: float = 0.0) -> bool:
    """Whether the attempt takes longer than one may, by more than some seconds."""
    began = entry.attempted_at or entry.started_at or context.now
    return context.now - began > context.settings.attempt_timeout + more
