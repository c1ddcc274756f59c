# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Kubernetes resources that c5c3.ha reads and writes, their names, conditions and timestamps. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

DEFAULT_GROUP = "hypervisor.c5c3.io"
AGENT_MANAGER = "c5c3-ha-agent"
OPERATOR_MANAGER = "c5c3-ha-operator"

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_LABEL_RE = re.compile(_LABEL)
# Labels inside a subdomain name have no limit of their own in Kubernetes, only the whole has (253).
_SUBDOMAIN_RE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_UUID_RE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME_RE = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def shown(value: object, limit: int = 80) -> str:
    """Return `value` quoted for an error message: control characters escaped, long values cut."""
    text = ascii(str(value) if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def validate_group(group: str) -> str:
    """Return the API group as a plain string, or raise ArgumentError."""
    if not isinstance(group, str) or len(group) > 253 or not _SUBDOMAIN_RE.fullmatch(group) or "." not in group:
        raise ArgumentError(
            f"api_group {shown(group)} is not an API group: give a lower-case DNS name such as"
            f" {DEFAULT_GROUP} or kvm.cloud.sap"
        )
    return str.__str__(group)


def validate_name(name: str, what: str = "name") -> str:
    """Return an object name (RFC 1123 subdomain, at most 253 characters), or raise ArgumentError that calls it `what`."""
    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN_RE.fullmatch(name):
        raise ArgumentError(
            f"{what} {shown(name)} is not a Kubernetes object name: use at most 253 lower-case letters, digits,"
            " '-' and '.', beginning and ending with a letter or digit"
        )
    return str.__str__(name)


def validate_namespace(namespace: str) -> str:
    """Return a namespace (RFC 1123 label, at most 63 characters), or raise ArgumentError."""
    if not isinstance(namespace, str) or not _LABEL_RE.fullmatch(namespace):
        raise ArgumentError(
            f"namespace {shown(namespace)} is not a Kubernetes namespace: use at most 63 lower-case letters, digits"
            " and '-', beginning and ending with a letter or digit"
        )
    return str.__str__(namespace)


def is_uuid(value: object) -> bool:
    """Tell whether `value` is a UUID in its canonical lower-case form."""
    return isinstance(value, str) and _UUID_RE.fullmatch(value) is not None


def validate_uuid(value: str, what: str = "uuid") -> str:
    """Return a UUID in canonical lower-case form, or raise ArgumentError that calls it `what`."""
    lowered = value.lower() if isinstance(value, str) else value
    if not is_uuid(lowered):
        raise ArgumentError(
            f"{what} {shown(value)} is not a UUID: give it as openstack server list prints it,"
            " such as 7f1c2f0e-55b9-4f0a-9f5e-0d1f2a3b4c5d"
        )
    return str.__str__(lowered)


@dataclass(frozen=True)
class Resource:
    """One resource type of the Kubernetes API.

    :param group: API group, empty for the core group.
    :param plural: name in the URL, such as ``evictions``.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """Name as kubectl takes it, such as ``evictions.hypervisor.c5c3.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, name: str | None = None, namespace: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, or of one object, or of its subresource.

        :raises ArgumentError: when a name is not valid in a path, or the namespace is missing or superfluous.
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            if not self.namespaced:
                raise ArgumentError(f"{self.kind} has cluster scope: leave out namespace {shown(namespace)}")
            parts += ["namespaces", validate_namespace(namespace)]
        elif self.namespaced and name is not None:
            raise ArgumentError(f"{self.kind} {shown(name)} needs a namespace")
        parts.append(self.plural)
        if name is not None:
            parts.append(validate_name(name, f"{self.kind} name"))
            if subresource is not None:
                parts.append(validate_namespace(subresource))
        return "/".join(parts)

    def body(self, name: str, namespace: str | None = None, **fields: object) -> dict:
        """Return a manifest with apiVersion, kind, metadata.name (and namespace) and the given top-level fields."""
        metadata: dict = {"name": name}
        if namespace is not None:
            metadata["namespace"] = namespace
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **fields}


NODES = Resource("", "v1", "nodes", "Node", False)
EVENTS = Resource("", "v1", "events", "Event", True)


def hypervisors(group: str = DEFAULT_GROUP) -> Resource:
    """Hypervisor v1, cluster scope; named as the Node and the Nova host."""
    return Resource(validate_group(group), "v1", "hypervisors", "Hypervisor", False)


def evictions(group: str = DEFAULT_GROUP) -> Resource:
    """Eviction v1, cluster scope; named as the server UUID (one VM) or as the hypervisor (the whole host)."""
    return Resource(validate_group(group), "v1", "evictions", "Eviction", False)


def migrations(group: str = DEFAULT_GROUP) -> Resource:
    """Migration v1alpha1, namespaced; named as the server UUID."""
    return Resource(validate_group(group), "v1alpha1", "migrations", "Migration", True)


def is_notify_only(eviction: dict | None) -> bool:
    """Tell whether an Eviction only tells of a fault, and nothing is to be moved for it."""
    return ((eviction or {}).get("spec") or {}).get("notifyOnly") is True


# --- timestamps -------------------------------------------------------------------------------------------------


def format_time(when: datetime) -> str:
    """Return an aware datetime as RFC 3339 in UTC with microseconds, ending in Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now_utc() -> str:
    """Return the present time as RFC 3339 in UTC with microseconds."""
    return format_time(datetime.now(UTC))


def parse_time(text: str, what: str = "time") -> datetime:
    """Return an RFC 3339 time stamp as an aware datetime (finer digits than microseconds are cut).

    :raises ArgumentError: calls the value `what` when it is no RFC 3339 time with a zone.
    """
    try:
        if not isinstance(text, str) or not _TIME_RE.fullmatch(text):
            raise ValueError(text)
        when = datetime.fromisoformat(str.__str__(text).upper())
        return when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentError(
            f"{what} {shown(text)} is not an RFC 3339 time: give it as 2026-11-24T09:42:01.123456Z"
        ) from None


def shaped(obj: dict) -> dict:
    """Return an object whose metadata, spec and status are objects; what is anything else there is taken as missing.

    Every structural schema keeps them so. A step need not fall over one that does not.
    """
    for part in ("metadata", "spec", "status"):
        if part in obj and not isinstance(obj[part], dict):
            obj = {key: value for key, value in obj.items() if key != part}
    return obj


# --- conditions -------------------------------------------------------------------------------------------------


def get_condition(obj: dict | None, kind: str) -> dict | None:
    """Return the condition of type `kind` from an object's ``status.conditions``, or None."""
    status = (obj or {}).get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for condition in conditions if isinstance(conditions, list) else []:
        if isinstance(condition, dict) and condition.get("type") == kind:
            return condition
    return None


def set_condition(
    conditions: list[dict] | None,
    kind: str,
    status: str,
    reason: str,
    message: str = "",
    now: str | None = None,
    observed_generation: int | None = None,
) -> list[dict]:
    """Return a new list of conditions in which the one of type `kind` says what is given.

    The others stay as they are. ``lastTransitionTime`` is kept while the status is unchanged, as Kubernetes has it.

    :param status: ``True``, ``False`` or ``Unknown``.
    :param now: RFC 3339 time of the change; the present one when left out.
    """
    if status not in ("True", "False", "Unknown"):
        raise ValueError(f"condition status {status!r} is not True, False or Unknown")
    condition = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now or now_utc(),
    }
    if observed_generation is not None:
        condition["observedGeneration"] = observed_generation
    result, found = [], False
    for old in conditions or []:
        if old.get("type") != kind:
            result.append(old)
        elif not found:
            found = True
            if old.get("status") == status and old.get("lastTransitionTime"):
                condition["lastTransitionTime"] = old["lastTransitionTime"]
            result.append(condition)
    if not found:
        result.append(condition)
    return result


def is_finished(eviction: dict | None) -> bool:
    """Tell whether an Eviction is finished: its condition Evicting has the status False. Nothing else counts."""
    condition = get_condition(eviction, "Evicting")
    return condition is not None and condition.get("status") == "False"
