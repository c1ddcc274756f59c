# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step migration_watch: a live migration's progress, from libvirt into the Migration of the server, until it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ansible_collections.c5c3.ha.plugins.module_utils.args import KUBERNETES_ARGS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions import migration_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.domain_restart_rules import validate_uri
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.hypervisor_rules import changes, merged
from ansible_collections.c5c3.ha.plugins.module_utils.errors import (
    ArgumentError,
    Conflict,
    Forbidden,
    HaError,
    NotServed,
)
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    AGENT_MANAGER,
    evictions,
    migrations,
    now_utc,
    shown,
    validate_name,
    validate_namespace,
    validate_uuid,
)

ARGUMENTS = {
    "argument_spec": {
        **KUBERNETES_ARGS,
        "hypervisor": {"type": "str", "required": True},
        "uri": {"type": "str", "default": "qemu:///system"},
        "uuid": {"type": "str", "required": True},
        "namespace": {"type": "str", "required": True},
        "begun": {"type": "bool", "default": False},
        "interval": {"type": "float", "default": 1.0},
        "timeout": {"type": "float", "default": 3600.0},
    },
}

TURNS = 10


def run(params: dict, check_mode: bool) -> dict:
    """Write what libvirt tells of the migration of ``params["uuid"]`` until it is over; in check mode look once.

    :returns: changed, outcome, writes, migration, diff, msg.
    :raises HaError: wrong arguments (before any request), or what the API server or libvirt said.
    """
    hypervisor = validate_name(params["hypervisor"], "hypervisor")
    uri, uuid = validate_uri(params["uri"]), validate_uuid(params["uuid"])
    namespace = validate_namespace(params["namespace"])
    for option, least, most in (("interval", 1.0, 3600.0), ("timeout", 0.0, 86_400.0)):
        if not least <= params[option] <= most:
            raise ArgumentError(f"{option} {shown(params[option])} is out of range: give {least:g} to {most:g} seconds")

    # Late: a wrong argument needs no libvirt.
    from ansible_collections.c5c3.ha.plugins.module_utils.domain_job import JobWatch

    watch = JobWatch(uri, uuid, params["interval"], begun=params["begun"])
    with Client.from_params(params, AGENT_MANAGER) as client:
        record = Record(client, params["api_group"], uuid, namespace, hypervisor, check_mode)
        end = time.monotonic() + params["timeout"]
        outcome = "none"
        for kind, job in watch.samples():
            outcome = kind
            if kind == "none":
                break
            record.write(kind, job)
            if check_mode or (kind == "progress" and time.monotonic() >= end):
                break
        return {
            "changed": record.writes > 0,
            "outcome": outcome,
            "writes": record.writes,
            "migration": record.existing or {},
            "diff": record.diff(),
            "msg": f"Migration {uuid}: {rules.OUTCOMES[outcome]}",
        }


class Record:
    """The Migration of one server, written by one hypervisor's agent.

    Source and destination both write, so each write carries the resourceVersion that was read.

    :param check_mode: reads only, and tells what would be written.
    :ivar writes: how many requests changed something, or would.
    """

    def __init__(
        self, client: Client, group: str, name: str, namespace: str, hypervisor: str, check_mode: bool = False
    ) -> None:
        self.client = client
        self.resource, self.evictions = migrations(group), evictions(group)
        self.name, self.namespace, self.hypervisor = name, namespace, hypervisor
        self.check_mode = check_mode
        self.existing: dict | None = None
        self.writes = 0
        self._before: dict | None = None
        self._started: str | None = None
        self._spec_told = self._begun = False
        self._anew = False

    def write(self, kind: str, job: dict) -> None:
        """Bring one sample into the Migration.

        :raises HaError: as the API server said, and when others change it all the time.
        """
        for turn in range(TURNS):
            if turn or not self._begun:
                self.existing = self.client.get(self.resource, self.name, self.namespace)
                if self.writes == 0:
                    self._before = self.existing
            try:
                self._write(kind, job)
                return
            except Conflict:
                continue
        raise HaError(f"Migration {self.name} was changed by others {TURNS} times meanwhile: run this again")

    def diff(self) -> dict:
        """What was written, or would be."""
        return {"before": _shown(self._before), "after": _shown(self.existing)}

    def _write(self, kind: str, job: dict) -> None:
        if not self._spec_told:
            eviction = None if kind == "arrived" else self._eviction()
            spec, self._anew = rules.watched_spec(kind, self.name, self.hypervisor, self.existing, eviction)
            self._tell_spec(spec)
            self._spec_told = True
        told: dict = {}
        if not self._begun and self._anew:
            self._started = now_utc()
            told = rules.begun(self.existing, self._started)
        told |= rules.watched(kind, job, self.hypervisor, self.existing, self._started)
        status = self.existing.get("status") or {}
        if not (told.get("started") or status.get("started")):
            told["started"] = now_utc()
        if difference := changes(status, told):
            self._patch({"status": difference}, "status")
        self._begun = True

    def _tell_spec(self, spec: dict) -> None:
        if self.existing is None:
            given = {key: value for key, value in spec.items() if value is not None}
            body = self.resource.body(self.name, self.namespace, spec=given)
            self.existing = body if self.check_mode else self.client.create(self.resource, body, self.namespace)
            self.writes += 1
        elif difference := changes(self.existing.get("spec"), spec):
            self._patch({"spec": difference})

    def _eviction(self) -> str | None:
        """Name of the Eviction that this migration serves: the server's own, or its host's."""

        def candidates() -> Iterator[dict | None]:
            for name in (self.name, self.hypervisor):
                yield self.client.get(self.evictions, name)

        try:
            return rules.served(self.name, self.hypervisor, candidates())
        except (Forbidden, NotServed):
            return None  # the progress is told all the same

    def _patch(self, body: dict, subresource: str | None = None) -> None:
        if self.check_mode:
            self.existing = merged(self.existing, body)
        else:
            body = {"metadata": {"resourceVersion": self.existing["metadata"]["resourceVersion"]}, **body}
            self.existing = self.client.patch(self.resource, self.name, body, self.namespace, subresource=subresource)
        self.writes += 1


def _shown(migration: dict | None) -> dict:
    return {key: migration.get(key) or {} for key in ("spec", "status")} if migration else {}
