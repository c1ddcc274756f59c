"""When a moment of an Eviction has come, by what was seen of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.chaos.verdict import Life, condition


@dataclass(frozen=True)
class Moment:
    """That it has come. `host` and `server` of the first landing; empty before."""

    host: str = ""
    server: str = ""


def reached(when: str, evictions: Iterable[dict[str, Any]], lives: Iterable[Life], since: float) -> Moment | None:
    """The moment `when` (one of schedule.MOMENTS), None while it has not come.

    :param evictions: Evictions as they were seen.
    :param lives: QEMUs; those that began before `since` are none that landed.
    """
    for eviction in evictions:
        if eviction["spec"].get("instances"):
            continue
        fenced = condition(eviction, "Fenced").get("status")
        moved = {
            entry["id"]
            for entry in (eviction.get("status") or {}).get("instances") or []
            if entry.get("route") == "Evacuate"
        }
        come = {"fencing": bool(fenced), "proven": fenced == "True", "asked": bool(moved)}
        if come.get(when):
            return Moment()
        if when == "landed":
            for life in lives:
                if life.server in moved and life.began >= since and life.host != eviction["spec"]["hypervisor"]:
                    return Moment(life.host, life.server)
    return None
