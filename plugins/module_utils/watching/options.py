# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments of the event sources, checked before anything is opened: a wrong one is told in one sentence."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    DEFAULT_GROUP,
    NODES,
    Resource,
    evictions,
    hypervisors,
    migrations,
    shown,
    validate_group,
    validate_name,
    validate_namespace,
)
from ansible_collections.c5c3.ha.plugins.module_utils.watching.election import Timing
from ansible_collections.c5c3.ha.plugins.module_utils.watching.nodes import PROBLEMS, NodeOptions

KINDS: dict[str, Callable[[str], Resource]] = {
    "Eviction": evictions,
    "Hypervisor": hypervisors,
    "Migration": migrations,
}


@dataclass(frozen=True)
class Auth:
    """How to reach the Kubernetes API; what is None is looked for elsewhere (see `credentials`)."""

    kubeconfig: str | None = None
    context: str | None = None
    host: str | None = None
    api_key: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    validate_certs: bool | None = None
    request_timeout: float = 30.0


@dataclass(frozen=True)
class Watched:
    """One resource type to watch, and which of its objects."""

    resource: Resource
    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""
    resync_seconds: float = 30.0
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LeaseOptions:
    """The Lease of which only the holder tells events."""

    name: str
    namespace: str
    timing: Timing


@dataclass(frozen=True)
class Options:
    """Everything an engine needs to know."""

    auth: Auth
    watched: tuple[Watched, ...]
    lease: LeaseOptions | None = None
    watch_timeout: float = 45.0


class Arguments:
    """Takes arguments out of a dict one by one, with their types; what is left over at the end is unknown.

    Empty strings count as not given, so that ``"{{ name | default('') }}"`` works in a rulebook; numbers, booleans and
    lists may come as strings for the same reason.

    :param path: name of the dict in messages, empty at the top.
    """

    def __init__(self, values: object, path: str = "") -> None:
        if not isinstance(values, dict):
            raise ArgumentError(f"{path or 'arguments'} {shown(values)} is not a dictionary: give options by name")
        self._values = {key: value for key, value in values.items() if value is not None and value != ""}
        self._path = f"{path}." if path else ""
        self._asked: list[str] = []

    def _take(self, name: str) -> object:
        self._asked.append(name)
        return self._values.pop(name, None)

    def wrong(self, name: str, value: object, remedy: str) -> ArgumentError:
        """Return the error that says that a value is wrong, and what to do."""
        return ArgumentError(f"{self._path}{name} {shown(value)} is wrong: {remedy}")

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a string."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, value, "give a string")
        return value

    def secret(self, name: str) -> str | None:
        """Return a string that never appears in a message."""
        value = self._take(name)
        if value is not None and not isinstance(value, str):
            raise ArgumentError(f"{self._path}{name} is not a string: give a string")
        return value

    def file(self, name: str) -> str | None:
        """Return the path of an existing file, with ``~`` resolved."""
        value = self.text(name)
        if value is None:
            return None
        path = os.path.abspath(os.path.expanduser(value))
        if not os.path.isfile(path):
            raise self.wrong(name, value, "there is no such file; correct the path or create the file")
        if not os.access(path, os.R_OK):
            raise self.wrong(name, value, "the file cannot be read by this user; change its owner or mode")
        return path

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """Return a number within limits (seconds)."""
        value = self._take(name)
        if value is None:
            return default
        remedy = f"give a number of seconds from {least:g} to {most:g}"
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise ValueError(value)
            number = float(value)
        except ValueError:
            raise self.wrong(name, value, remedy) from None
        if not math.isfinite(number) or not least <= number <= most:
            raise self.wrong(name, value, remedy)
        return number

    def flag(self, name: str, default: bool | None = None) -> bool | None:
        """Return a boolean."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "yes", "on", "1"):
            return True
        if isinstance(value, str) and value.lower() in ("false", "no", "off", "0"):
            return False
        raise self.wrong(name, value, "give true or false")

    def texts(self, name: str) -> list[str] | None:
        """Return a list of strings; a single string is a list of one."""
        value = self._take(name)
        if value is None:
            return None
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) and item.strip() for item in items):
            raise self.wrong(name, value, "give a list of strings")
        return [item.strip() for item in items]

    def dictionary(self, name: str) -> Arguments | None:
        """Return the options below a name."""
        value = self._take(name)
        return None if value is None else Arguments(value, self._path + name)

    def dictionaries(self, name: str) -> list[Arguments] | None:
        """Return a list of options."""
        value = self._take(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise self.wrong(name, value, "give a list of dictionaries")
        return [Arguments(item, f"{self._path}{name}[{place}]") for place, item in enumerate(value)]

    def finish(self) -> None:
        """Raise ArgumentError when an argument is left that nobody asked for."""
        for name in self._values:
            near = difflib.get_close_matches(str(name), self._asked, 1)
            hint = f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(self._asked))
            raise ArgumentError(f"Unknown option {shown(self._path + str(name))}: {hint}")


def auth_options(arguments: Arguments) -> Auth:
    """Return the options of the fragment c5c3.ha.kubernetes, except api_group."""
    auth = Auth(
        kubeconfig=arguments.file("kubeconfig"),
        context=arguments.text("context"),
        host=arguments.text("host"),
        api_key=arguments.secret("api_key"),
        token_file=arguments.file("token_file"),
        ca_cert=arguments.file("ca_cert"),
        client_cert=arguments.file("client_cert"),
        client_key=arguments.file("client_key"),
        validate_certs=arguments.flag("validate_certs"),
        request_timeout=arguments.number("request_timeout", 30.0, 1.0, 600.0),
    )
    if auth.host is not None and not auth.host.startswith(("https://", "http://")):
        raise arguments.wrong("host", auth.host, "give the API server's URL, such as https://10.66.0.254:6443")
    if auth.client_key is not None and auth.client_cert is None:
        raise arguments.wrong("client_key", auth.client_key, "it needs client_cert too")
    if auth.api_key is not None and auth.token_file is not None:
        raise arguments.wrong("token_file", auth.token_file, "give either api_key or token_file, not both")
    return auth


def lease_options(arguments: Arguments) -> LeaseOptions | None:
    """Return the option `lease`, None when it is not given."""
    lease = arguments.dictionary("lease")
    if lease is None:
        return None
    name = lease.text("name")
    if name is None:
        raise ArgumentError("lease.name is missing: name the Lease that all daemons of this kind share")
    duration = lease.number("duration", 10, 2, 3600)
    if duration != int(duration):
        raise lease.wrong("duration", duration, "Kubernetes stores whole seconds; give an integer")
    timing = Timing(
        duration=int(duration),
        renew_deadline=lease.number("renew_deadline", duration * 0.65, 0.5, 3600),
        retry_period=lease.number("retry_period", duration * 0.2, 0.1, 3600),
    )
    namespace = lease.text("namespace", "default")
    lease.finish()
    # A quarter of a second is what the last event needs to leave the house.
    if timing.renew_deadline > timing.duration - 0.25:
        raise lease.wrong(
            "renew_deadline", timing.renew_deadline, f"it must be less than the duration, {timing.duration} s"
        )
    if timing.retry_period * 1.5 > timing.renew_deadline:
        raise lease.wrong(
            "retry_period", timing.retry_period, f"at most two thirds of renew_deadline, {timing.renew_deadline:g} s"
        )
    return LeaseOptions(validate_name(name, "lease.name"), validate_namespace(namespace), timing)


def _selector(arguments: Arguments, name: str, default: str = "") -> str:
    parts = arguments.texts(name)
    return default if parts is None else ",".join(parts)


def _fields(arguments: Arguments) -> tuple[str, ...] | None:
    paths = arguments.texts("fields")
    if paths is None:
        return None
    for path in paths:
        if not all(part and part == part.strip() for part in path.split(".")):
            raise arguments.wrong("fields", path, "give dotted paths such as spec.maintenance")
    return tuple(paths)


def _resource(arguments: Arguments, group: str) -> Resource:
    kind = arguments.text("kind")
    own = KINDS[kind](group) if kind in KINDS else None
    plural = arguments.text("plural", own.plural if own else None)
    if kind is None or plural is None:
        raise arguments.wrong(
            "plural" if kind else "kind",
            plural if kind else kind,
            "each resource needs kind, and plural unless it is" " one of " + ", ".join(KINDS),
        )
    resource_group = arguments.text("group", group)
    if resource_group in ("core", "v1"):
        resource_group = ""  # an empty string counts as not given, so the core group needs a word
    return Resource(
        group=resource_group if "." not in resource_group else validate_group(resource_group),
        version=validate_name(arguments.text("version", own.version if own else "v1"), "version"),
        plural=validate_name(plural, "plural"),
        kind=kind,
        namespaced=bool(arguments.flag("namespaced", own.namespaced if own else False)),
    )


def watched_options(arguments: Arguments) -> tuple[Watched, ...]:
    """Return the options kinds, resources, api_group, namespace, selectors and resync_seconds."""
    group = validate_group(arguments.text("api_group", DEFAULT_GROUP))
    kinds, listed = arguments.texts("kinds"), arguments.dictionaries("resources")
    namespace = arguments.text("namespace")
    labels, fields = _selector(arguments, "label_selectors"), _selector(arguments, "field_selectors")
    resync = arguments.number("resync_seconds", 30.0, 0.0, 86400.0)
    if kinds is None and listed is None:
        kinds = ["Eviction"]
    watched = []
    for kind in kinds or []:
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise arguments.wrong(
                "kinds", kind, f"{hint}give some of {', '.join(KINDS)}, and others with version in resources"
            )
        resource = KINDS[kind](group)
        watched.append(Watched(resource, namespace if resource.namespaced else None, labels, fields, resync))
    for entry in listed or []:
        resource = _resource(entry, group)
        own_namespace = entry.text("namespace", namespace if resource.namespaced else None)
        if own_namespace is not None and not resource.namespaced:
            raise entry.wrong("namespace", own_namespace, f"{resource.kind} has cluster scope; leave it out")
        watched.append(
            Watched(
                resource,
                own_namespace,
                _selector(entry, "label_selectors", labels),
                _selector(entry, "field_selectors", fields),
                entry.number("resync_seconds", resync, 0.0, 86400.0),
                _fields(entry),
            )
        )
        entry.finish()
    if not watched:
        raise arguments.wrong("kinds", [], "name at least one kind")
    if len({(one.resource.full_name, one.namespace) for one in watched}) != len(watched):
        raise arguments.wrong("kinds", [one.resource.kind for one in watched], "name each kind once")
    for one in watched:
        one.resource.path(namespace=one.namespace)  # raises on a namespace that is none
    return tuple(watched)


def parse(args: object) -> Options:
    """Return the checked arguments of the source c5c3.ha.custom_resources.

    :raises ArgumentError: on the first that is wrong.
    """
    arguments = Arguments(args)
    arguments._take("eda_feedback_queue")  # ansible-rulebook adds it when the rulebook says feedback
    options = Options(
        auth=auth_options(arguments),
        watched=watched_options(arguments),
        lease=lease_options(arguments),
        watch_timeout=arguments.number("watch_timeout", 45.0, 1.0, 3600.0),
    )
    arguments.finish()
    return options


HYPERVISOR_NODES = "nova.openstack.cloud.sap/virt-driver"


def parse_nodes(args: object) -> tuple[Options, NodeOptions]:
    """Return the checked arguments of the source c5c3.ha.node_conditions.

    :raises ArgumentError: on the first that is wrong.
    """
    arguments = Arguments(args)
    arguments._take("eda_feedback_queue")
    kinds = arguments.texts("conditions")
    for kind in kinds or []:
        if kind == "Ready" or not kind.isalnum():
            raise arguments.wrong("conditions", kind, "name conditions that mean trouble when True, besides Ready")
    node_options = NodeOptions(
        not_ready_seconds=arguments.number("not_ready_seconds", 300.0, 0.0, 86400.0),
        unreachable_seconds=arguments.number("unreachable_seconds", 60.0, 0.0, 86400.0),
        return_seconds=arguments.number("return_seconds", 120.0, 0.0, 86400.0),
        heartbeat_seconds=arguments.number("heartbeat_seconds", 30.0, 0.0, 86400.0),
        join_window=arguments.number("join_window", 0.2, 0.0, 60.0),
        problems=PROBLEMS if kinds is None else tuple(dict.fromkeys(kinds)),
    )
    watched = Watched(
        NODES,
        None,
        _selector(arguments, "label_selectors", HYPERVISOR_NODES),
        _selector(arguments, "field_selectors"),
        arguments.number("resync_seconds", 30.0, 0.0, 86400.0),
    )
    options = Options(
        auth=auth_options(arguments),
        watched=(watched,),
        lease=lease_options(arguments),
        watch_timeout=arguments.number("watch_timeout", 45.0, 1.0, 3600.0),
    )
    arguments.finish()
    return options, node_options
