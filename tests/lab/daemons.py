"""Agents and operators on the lab's hosts, found by their rulebook: kubelet runs them, the lab only finds and hurts them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .hosts import Host

RULEBOOKS = {"agent": "c5c3.ha.ha_agent", "operator": "c5c3.ha.hypervisor_operator"}


@dataclass(frozen=True)
class Daemon:
    """One ansible-rulebook process, as seen from outside."""

    role: str
    host: str
    pid: int


def daemons(hosts: Iterable[Host], role: str | None = None) -> list[Daemon]:
    """The ansible-rulebook processes on hosts, in the hosts' order.

    :param role: ``agent``, ``operator``, or None for both.
    """
    found = []
    for host in hosts:
        for pid in host.processes() if host.running else []:
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
            except OSError:
                continue
            if any(argument.endswith("/ansible-rulebook") for argument in arguments[:3]):
                found += [
                    Daemon(each, host.name, pid)
                    for each, rulebook in RULEBOOKS.items()
                    if rulebook in arguments and role in (None, each)
                ]
    return found
