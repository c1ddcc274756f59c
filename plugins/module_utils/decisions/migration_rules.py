# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's job statistics in the words of a Migration's status, and what to change. Pure functions over plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import format_time, is_finished, parse_time, shown

TEXTS = (
    "origin destination type errMsg operation timeElapsed timeRemaining downtime setupTime dataTotal dataProcessed"
    " dataRemaining memTotal memProcessed memRemaining memNormalBytes memPageSize memBps memDirtyRate diskTotal"
    " diskProcessed diskRemaining diskBps autoConvergeThrottle"
).split()
NUMBERS = "memConstant memNormal memIteration memPostcopyRequests".split()
FIELDS = frozenset([*TEXTS, *NUMBERS, "started"])

# Types of a job that is over. "success" is upstream's word for one that libvirt called successful.
FINAL_TYPES = ("completed", "failed", "cancelled", "success")

_TYPES = ("", "bounded", "unbounded", "completed", "failed", "cancelled")
_OPERATIONS = (
    "unknown start save restore migration_in migration_out snapshot snapshot_revert dump backup snapshot_delete"
).split()

_DURATIONS = {
    "time_elapsed": "timeElapsed",
    "time_remaining": "timeRemaining",
    "downtime": "downtime",
    "setup_time": "setupTime",
}
_SIZES = {
    "data_total": "dataTotal",
    "data_processed": "dataProcessed",
    "data_remaining": "dataRemaining",
    "memory_total": "memTotal",
    "memory_processed": "memProcessed",
    "memory_remaining": "memRemaining",
    "memory_normal_bytes": "memNormalBytes",
    "memory_page_size": "memPageSize",
    "disk_total": "diskTotal",
    "disk_processed": "diskProcessed",
    "disk_remaining": "diskRemaining",
}
_RATES = {"memory_bps": "memBps", "disk_bps": "diskBps"}
_COUNTS = {
    "memory_constant": "memConstant",
    "memory_normal": "memNormal",
    "memory_iteration": "memIteration",
    "memory_postcopy_requests": "memPostcopyRequests",
}


def go_duration(milliseconds: int) -> str:
    """Return milliseconds as Go prints a time.Duration: ``0s``, ``150ms``, ``2.755s``, ``1h0m3.2s``."""
    if milliseconds < 0:
        return "-" + go_duration(-milliseconds)
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def iec(count: int) -> str:
    """Return a number of bytes with an IEC unit: ``0 B``, ``512 B``, ``10.4 MiB``, ``4.0 GiB``."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        value /= 1024
        # 1023.95 and more would print as 1024.0.
        if value < 1023.95 or unit == "EiB":
            return f"{value:.1f} {unit}"
    raise AssertionError("unreachable")


def status_from_job(job: dict) -> dict:
    """Return libvirt's job statistics (names as in virDomainGetJobStats) as fields of a Migration's status.

    ``type`` and ``operation`` may be libvirt's numbers or their names. Unknown statistics are left out.

    :raises ArgumentError: a statistic is not of its kind.
    """
    status: dict[str, Any] = {}
    for source, table in ((_DURATIONS, go_duration), (_SIZES, iec), (_RATES, lambda value: iec(value) + "/s")):
        for key, field in source.items():
            if key in job:
                status[field] = table(_number(key, job[key]))
    for key, field in _COUNTS.items():
        if key in job:
            status[field] = _number(key, job[key])
    if "memory_dirty_rate" in job:
        status["memDirtyRate"] = f"{_number('memory_dirty_rate', job['memory_dirty_rate'])}/s"
    if "auto_converge_throttle" in job:
        status["autoConvergeThrottle"] = f"{_number('auto_converge_throttle', job['auto_converge_throttle'])}%"
    for key, names in (("type", _TYPES), ("operation", _OPERATIONS)):
        value = job.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = names[value] if 0 <= value < len(names) else ""
        if value:
            status[key] = str(value).lower()
    if job.get("errmsg"):
        status["errMsg"] = str(job["errmsg"])[:4096]
    success = job.get("success")
    if success is not None:
        status["type"] = "success" if success else "failed"
    return status


def _number(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ArgumentError(f"job: {key} {shown(value)} is not a number")
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise ArgumentError(f"job: {key} {shown(value)} is not a number") from None


def checked_status(status: dict) -> dict:
    """Return fields of a Migration's status, checked; None as a value removes a field.

    :raises ArgumentError: a field is not known or not of its kind.
    """
    result: dict[str, Any] = {}
    for key, value in status.items():
        if key not in FIELDS:
            raise ArgumentError(f"status: there is no field {shown(key)}: known are {', '.join(sorted(FIELDS))}")
        if value is None:
            result[key] = None
        elif key == "started":
            result[key] = format_time(parse_time(value, "status: started"))
        elif key in NUMBERS:
            number = _number(key, value)
            if number < 0:
                raise ArgumentError(f"status: {key} {shown(value)} is negative")
            result[key] = number
        elif isinstance(value, str):
            result[key] = value
        else:
            raise ArgumentError(f"status: {key} {shown(value)} is not text: put it in quotes")
    return result


def next_status(existing: dict | None, told: dict, now: str) -> dict:
    """Return the wanted status: what was told, completed by ``started``.

    One object serves all migrations of a server. When the former one is over and something goes on again, the fields
    it left behind are removed (None) and the clock starts anew.

    :param existing: the status that is there.
    :param told: checked fields; empty tells nothing, and nothing is returned.
    :param now: RFC 3339 time.
    """
    if not told:
        return {}
    old = existing or {}
    over = old.get("type") in FINAL_TYPES
    goes_on = told.get("type") is not None and told["type"] not in FINAL_TYPES
    if over and goes_on:
        return {**{key: None for key in old if key in FIELDS and key not in told}, "started": now, **told}
    if told.get("started") or old.get("started"):
        return told
    return {"started": now, **told}


# --- watched by the agents of source and destination ---------------------------------------------------------------

OUTCOMES = {
    "progress": "still on its way",
    "left": "the server has left",
    "failed": "the migration failed or was cancelled, the server stays where it is",
    "arrived": "the server has arrived",
    "none": "nothing is on its way",
}


def served(server: str, hypervisor: str, evictions: Iterable[dict | None]) -> str | None:
    """Name of the Eviction that moves a server off a hypervisor; None when nobody's does.

    :param evictions: those that may be it, the likeliest first; None for one that is not there.
    """
    for eviction in evictions:
        spec = (eviction or {}).get("spec") or {}
        if (
            eviction is not None
            and not is_finished(eviction)
            and spec.get("hypervisor") == hypervisor
            and not spec.get("notifyOnly")
            and server in (spec.get("instances") or [server])
        ):
            return eviction["metadata"]["name"]
    return None


def watched_spec(
    kind: str, name: str, hypervisor: str, existing: dict | None, eviction: str | None = None
) -> tuple[dict, bool]:
    """The spec to write at the first sample (None as a value removes), and whether a new migration begins with it.

    Only the source sees a migration begin, and only the destination says that it is the target. A destination that finds an
    older migration there, or none, was quicker than the source's agent.

    :param kind: of the sample, as in domain_job.Sample.
    :param eviction: name of the Eviction that it serves, as its source sees it.
    """
    spec, status = (existing or {}).get("spec") or {}, (existing or {}).get("status") or {}
    if kind == "left" and not spec.get("source") and spec.get("target") not in (None, hypervisor):
        # Over before it could be seen here, and its destination was quicker.
        return {"instance": name, "source": hypervisor, "eviction": eviction}, False
    if kind != "arrived":
        return {"instance": name, "source": hypervisor, "target": None, "eviction": eviction}, True
    if spec.get("target") == hypervisor and status.get("destination") == hypervisor:
        return {"instance": name}, False  # told before
    if (
        spec.get("source")
        and spec["source"] != hypervisor
        and not spec.get("target")
        and status.get("type") != "failed"
    ):
        return {"instance": name, "target": hypervisor}, False
    return {"instance": name, "source": None, "target": hypervisor, "eviction": None}, True


def begun(existing: dict | None, now: str) -> dict:
    """The status's fields for a new migration: what the former one left is removed (None)."""
    return {**{key: None for key in (existing or {}).get("status") or {} if key in FIELDS}, "started": now}


def watched(kind: str, job: dict, hypervisor: str, existing: dict | None, started: str | None) -> dict:
    """The status's fields that one sample tells.

    :param started: when this watch began a new migration; None when it goes on with that of the other agent.
    """
    told = status_from_job(job)
    if kind == "progress" or kind == "failed":
        told["origin"] = hypervisor
    if kind == "failed":
        told |= {"type": "failed", "errMsg": OUTCOMES["failed"]}
    elif kind == "left":
        told |= {"origin": hypervisor, "type": "completed", "operation": "migration_out"}
    elif kind == "arrived":
        told |= {"destination": hypervisor, "type": "completed"}
        return told
    status = (existing or {}).get("status") or {}
    if status.get("destination") and started in (None, status.get("started")):
        # The destination has told the end already.
        return {"origin": hypervisor}
    return told
