# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nova's compute API, as far as the steps need it: thin I/O, no decisions.

On keystoneauth1, openstacksdk's own core: importing openstacksdk costs half a second on the way of a VM back to life.
Facts leave this module as the plain data of :mod:`decisions.server_facts`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import (
    ActionFacts,
    GroupFacts,
    MigrationFacts,
    ServerFacts,
    ServiceFacts,
)
from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError

# 2.84 brings the details of a failed action, 2.73 the lock's reason, 2.56 a cold migration's target, 2.53 services by UUID.
# Not above 2.94: from 2.95 on an evacuated server arrives stopped (Nova's REST API version history).
MICROVERSION = "2.90"
# The last one in which an evacuation can be bound to the disk (onSharedStorage); 2.14 lets Nova find out, and go without.
EVACUATE_WITH_DISK = "2.13"
# Less than decisions.evacuation.SETTLE_SECONDS: whoever finds an unanswered one knows when it can be sent again.
EVACUATE_SECONDS = 20.0
# Placement's: 1.22 has forbidden traits.
PLACEMENT_MICROVERSION = "1.22"
# Placement's first that guards a change of two consumers by their generations.
ALLOCATIONS_MICROVERSION = "1.28"


class NovaError(HaError):
    """Nova refused or did not answer. ``status`` is the HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0):
        super().__init__(message)
        self.status = status


class NovaNotFound(NovaError):
    """HTTP 404."""


class NovaConflict(NovaError):
    """HTTP 409: the server's state does not allow it. Read the state again, do not guess."""


class NovaUnavailable(NovaError):
    """No answer, or HTTP 5xx/429: try again later."""


class Nova:
    """One session with one cloud.

    :param session: a keystoneauth1 session.
    :param region: region name, or None for the only one.
    :param interface: public, internal or admin.
    :param timeout: seconds for one request.
    """

    def __init__(self, session, region: str | None = None, interface: str = "public", timeout: float = 30.0):
        from keystoneauth1.adapter import Adapter

        self._timeout = timeout
        self._api = Adapter(
            session,
            service_type="compute",
            region_name=region,
            interface=interface,
            default_microversion=MICROVERSION,
            user_agent="c5c3.ha",
            connect_retries=0,
        )

    @classmethod
    def from_params(cls, params: dict) -> Nova:
        """A session from the options of the doc fragment ``c5c3.ha.openstack`` (clouds.yaml and OS_* as openstacksdk)."""
        from ansible_collections.c5c3.ha.plugins.module_utils.clouds import open_session

        session, region, interface = open_session(params)
        return cls(session, region, interface, params.get("api_timeout") or 30.0)

    # -- requests ------------------------------------------------------------------------------------------------------

    def _request(
        self, method: str, path: str, body: dict | None = None, timeout: float | None = None, **kwargs
    ) -> dict:
        from keystoneauth1 import exceptions

        def send():
            return self._api.request(
                path, method, json=body, raise_exc=False, timeout=timeout or self._timeout, **kwargs
            )

        try:
            try:
                response = send()
            except exceptions.ConnectTimeout:
                raise
            except exceptions.ConnectFailure:
                # A kept connection that the server has closed just now. What only asks is asked again.
                if method != "GET":
                    raise
                response = send()
        except (exceptions.ConnectFailure, exceptions.ConnectTimeout, exceptions.RetriableConnectionFailure) as error:
            raise NovaUnavailable(f"Nova does not answer ({method} {path}): {error}") from error
        except exceptions.HttpError as error:
            kind = NovaUnavailable if (error.http_status or 0) >= 500 else NovaError
            raise kind(
                f"Keystone refused the session: {error}. Check the credentials.", error.http_status or 0
            ) from error
        except exceptions.ClientException as error:
            raise NovaUnavailable(f"Nova does not answer ({method} {path}): {error}") from error
        if response.status_code < 400:
            if response.status_code == 204 or not response.content:
                return {}
            try:
                answer = response.json()
            except ValueError:
                return {}
            return answer if isinstance(answer, dict) else {}
        message = _message(response)
        text = f"Nova answered {response.status_code} to {method} {path}: {message}"
        if response.status_code == 404:
            raise NovaNotFound(text, 404)
        if response.status_code == 409:
            raise NovaConflict(text, 409)
        if response.status_code == 429 or response.status_code >= 500:
            raise NovaUnavailable(text, response.status_code)
        raise NovaError(text, response.status_code)

    def _action(self, server: str, body: dict, **kwargs) -> None:
        self._request("POST", f"/servers/{server}/action", body, **kwargs)

    # -- facts ---------------------------------------------------------------------------------------------------------

    def server(self, server: str) -> ServerFacts | None:
        """The server, or None when Nova knows none of that UUID."""
        try:
            answer = self._request("GET", f"/servers/{server}")
        except NovaNotFound:
            return None
        return server_facts(answer["server"])

    def servers_on(self, host: str) -> list[ServerFacts]:
        """All servers whose host is ``host``, of all projects, whatever their state."""
        found: list[ServerFacts] = []
        query: dict = {"all_tenants": "1", "host": host, "limit": "1000", "sort_key": "uuid", "sort_dir": "asc"}
        while True:
            page = self._request("GET", "/servers/detail", params=query)["servers"]
            # Asked again here: a proxy or an old Nova that drops the filter must not hand us the whole cloud.
            found.extend(facts for facts in map(server_facts, page) if facts.host == host)
            if len(page) < 1000:
                return found
            query["marker"] = page[-1]["id"]

    def is_running(self, server: str) -> bool | None:
        """Whether the guest runs now, asked of libvirt through nova-compute (diagnostics); None when nobody can tell.

        Nova's own ``power_state`` is up to 15 s late after a QEMU died: nova-compute holds STOPPED events back.
        """
        try:
            answer = self._request("GET", f"/servers/{server}/diagnostics", timeout=min(self._timeout, 10.0))
        except NovaConflict:
            return False
        except NovaNotFound:
            return None
        except NovaError:
            return None
        return answer.get("state") == "running"

    def actions(self, server: str) -> list[ActionFacts]:
        """The server's action history, newest first."""
        try:
            answer = self._request("GET", f"/servers/{server}/os-instance-actions")
        except NovaNotFound:
            return []
        return [
            ActionFacts(
                action=item["action"],
                request_id=item["request_id"],
                user_id=item.get("user_id"),
                started_at=item.get("start_time"),
                failed=item.get("message") == "Error",
            )
            for item in answer.get("instanceActions", [])
        ]

    def failure_of(self, server: str, request_id: str) -> str:
        """Why an action failed, in Nova's words; empty when Nova does not say."""
        try:
            answer = self._request("GET", f"/servers/{server}/os-instance-actions/{request_id}")
        except NovaError:
            return ""
        for event in reversed(answer.get("instanceAction", {}).get("events") or []):
            if event.get("result") == "Error":
                trace = (event.get("traceback") or "").strip().splitlines()
                return (event.get("details") or (trace[-1] if trace else "") or f"{event.get('event')} failed")[:500]
        return ""

    def migrations(
        self, *, server: str | None = None, host: str | None = None, since: float | None = None
    ) -> list[MigrationFacts]:
        """Migration records of a server or touching a host (as source or target), newest first.

        :param since: only those changed then or later, seconds since the epoch.
        """
        query = {k: v for k, v in (("instance_uuid", server), ("host", host)) if v}
        if since is None:
            return self._migrations(query)
        found = self._migrations({**query, "changes-since": _nova_time(since)})
        known = {each.id for each in found}
        # A record that was never written again has no time of change, and changes-since leaves it out: that of an
        # evacuation that nobody has begun yet.
        fresh = [
            each
            for each in self._migrations({**query, "status": "accepted"})
            if each.id not in known and (each.changed is None or each.changed >= since)
        ]
        return sorted([*fresh, *found], key=lambda each: each.id, reverse=True)

    def moves_under_way(self) -> list[MigrationFacts]:
        """All migrations in the cloud that are not over, whoever began them.

        One that Nova has not written for an hour is none: what runs is written every few seconds, and the record of one
        whose host died stays as it was for ever.
        """
        found = self._migrations({"changes-since": _nova_time(time.time() - 3600), "limit": "1000"})
        return [migration for migration in found if migration.unfinished]

    def _migrations(self, query: dict) -> list[MigrationFacts]:
        answer = self._request("GET", "/os-migrations", params=query)
        return [
            MigrationFacts(
                id=item["id"],
                uuid=item.get("uuid"),
                server=item["instance_uuid"],
                kind=item.get("migration_type") or "",
                status=item.get("status") or "",
                source=item.get("source_compute") or "",
                target=item.get("dest_compute") or "",
                created_at=item.get("created_at"),
                changed=_epoch(item.get("updated_at") or item.get("created_at")),
            )
            for item in answer.get("migrations", [])
        ]

    def services(self, host: str | None = None, binary: str = "nova-compute") -> list[ServiceFacts]:
        """The nova-compute services (or another binary's), of one host or of all."""
        query = {"binary": binary, **({"host": host} if host else {})}
        answer = self._request("GET", "/os-services", params=query)
        return [
            ServiceFacts(
                id=str(item["id"]),
                host=item["host"],
                up=item.get("state") == "up",
                enabled=item.get("status") == "enabled",
                disabled_reason=item.get("disabled_reason") or "",
                forced_down=bool(item.get("forced_down")),
                reported=_epoch(item.get("updated_at")),
            )
            for item in answer.get("services", [])
            if item.get("binary") == binary and (host is None or item["host"] == host)
        ]

    def service(self, host: str) -> ServiceFacts | None:
        """The nova-compute service of ``host``, or None."""
        found = self.services(host)
        return found[0] if found else None

    def hosts_with_room(self, vcpus: int, ram_mb: int) -> frozenset[str]:
        """Names (whole, and short) of the hypervisors on which Placement sees room for one server of that size.

        Placement knows what Nova's API no longer tells: allocation ratios, reservations, and which computes are disabled.
        """
        resources = ",".join(f"{name}:{size}" for name, size in (("VCPU", vcpus), ("MEMORY_MB", ram_mb)) if size > 0)
        answer = self._request(
            "GET",
            "/resource_providers",
            params={"resources": resources, "required": "!COMPUTE_STATUS_DISABLED"} if resources else {},
            endpoint_filter={"service_type": "placement"},
            microversion=PLACEMENT_MICROVERSION,
        )
        names = {str(item.get("name", "")) for item in answer.get("resource_providers", [])}
        return frozenset(names | {name.partition(".")[0] for name in names})

    def free_room(self) -> dict[str, tuple[int, int]]:
        """Hypervisor (its name, and its short name) to virtual processors and MiB that Placement may still give away.

        Two requests, however many hypervisors. Ratios and reservations are counted; (0, 0) for one that is full.
        """
        ask = {"resources": "VCPU:1,MEMORY_MB:1", "limit": "1000"}
        where = {"endpoint_filter": {"service_type": "placement"}, "microversion": PLACEMENT_MICROVERSION}
        names = self._request("GET", "/resource_providers", **where).get("resource_providers", [])
        summaries = self._request("GET", "/allocation_candidates", params=ask, **where).get("provider_summaries", {})
        free: dict[str, tuple[int, int]] = {}
        for item in names:
            given = (summaries.get(item.get("uuid")) or {}).get("resources") or {}
            left = [
                int(given[kind]["capacity"]) - int(given[kind]["used"]) if kind in given else 0
                for kind in ("VCPU", "MEMORY_MB")
            ]
            name = str(item.get("name", ""))
            free[name] = free[name.partition(".")[0]] = (left[0], left[1])
        return free

    def take_back_allocation(self, server: str, migration: str) -> bool:
        """Give a server what the record of its broken-off live migration holds on its source; return whether it held any.

        Nova's own rollback does that, and died with the host. Without it Nova evacuates the server to no host that is named
        (``KeyError`` in claim_resources_on_destination of Nova 34).

        :param migration: UUID of the record.
        """
        where: dict = {"endpoint_filter": {"service_type": "placement"}, "microversion": ALLOCATIONS_MICROVERSION}
        held = self._request("GET", f"/allocations/{migration}", **where)
        if not held.get("allocations"):
            return False
        own = self._request("GET", f"/allocations/{server}", **where)
        owner = {key: held[key] for key in ("project_id", "user_id")}
        given = {
            provider: {"resources": allocation["resources"]} for provider, allocation in held["allocations"].items()
        }
        body = {
            migration: {"allocations": {}, "consumer_generation": held.get("consumer_generation"), **owner},
            server: {"allocations": given, "consumer_generation": own.get("consumer_generation"), **owner},
        }
        self._request("POST", "/allocations", body, **where)
        return True

    def drop_allocation(self, consumer: str) -> None:
        """Give up what a server or a migration holds; nothing to do when it holds nothing."""
        where: dict = {"endpoint_filter": {"service_type": "placement"}, "microversion": ALLOCATIONS_MICROVERSION}
        with suppress(NovaNotFound):
            self._request("DELETE", f"/allocations/{consumer}", **where)

    def group(self, group: str) -> GroupFacts | None:
        """A server group of any project, or None."""
        try:
            item = self._request("GET", f"/os-server-groups/{group}")["server_group"]
        except NovaNotFound:
            return None
        most = (item.get("rules") or {}).get("max_server_per_host")
        return GroupFacts(
            name=item.get("name") or group,
            policy=item.get("policy") or "",
            members=tuple(item.get("members") or ()),
            max_per_host=int(most or 1),
        )

    def image_wishes(self, image: str) -> tuple[dict, tuple[str, ...]]:
        """Properties and tags of an image, as Glance knows it; nothing when it is gone or Glance does not answer."""
        where = {"endpoint_filter": {"service_type": "image"}, "microversion": None}
        for path in (f"/v2/images/{image}", f"/images/{image}"):  # the catalog may name the version or not
            try:
                item = self._request("GET", path, timeout=min(self._timeout, 10.0), **where)
            except NovaNotFound:
                continue
            except NovaError:
                break
            return item, tuple(map(str, item.get("tags") or ()))
        return {}, ()

    # -- acts ----------------------------------------------------------------------------------------------------------

    def reboot_hard(self, server: str) -> None:
        """Destroy what is left of the domain and start it again on its host."""
        self._action(server, {"reboot": {"type": "HARD"}})

    def start(self, server: str) -> None:
        """Start a stopped server."""
        self._action(server, {"os-start": None})

    def stop(self, server: str) -> None:
        """Stop a running server."""
        self._action(server, {"os-stop": None})

    def live_migrate(self, server: str, host: str | None = None) -> None:
        """Move a running server; Nova chooses block migration by itself (``auto``), else local disks never leave."""
        self._action(server, {"os-migrateLive": {"host": host, "block_migration": "auto"}})

    def cold_migrate(self, server: str, host: str | None = None) -> None:
        """Move a stopped server; ends in VERIFY_RESIZE, to be confirmed."""
        self._action(server, {"migrate": {"host": host}})

    def confirm_resize(self, server: str) -> None:
        """Confirm a cold migration."""
        self._action(server, {"confirmResize": None})

    def evacuate(self, server: str, host: str | None = None, only_with_disk: bool = False) -> None:
        """Rebuild a server of a dead host elsewhere. The caller has proven that the host is off.

        :param only_with_disk: Nova refuses on a target that does not see the server's disk, instead of making it anew
            from its image. Then a named host is taken without asking the scheduler.
        """
        body: dict = {"host": host} if host else {}
        timeout = min(self._timeout, EVACUATE_SECONDS)
        if only_with_disk:
            body["onSharedStorage"] = True
            self._action(server, {"evacuate": body}, timeout=timeout, microversion=EVACUATE_WITH_DISK)
        else:
            self._action(server, {"evacuate": body}, timeout=timeout)

    def reset_state(self, server: str, state: str = "active") -> None:
        """Tell Nova that a server is ``active`` or in ``error``."""
        self._action(server, {"os-resetState": {"state": state}})

    def lock(self, server: str, reason: str) -> None:
        """Keep its users' hands off a server, and tell them why. An administrator still may."""
        self._action(server, {"lock": {"locked_reason": reason[:255]}})

    def unlock(self, server: str) -> None:
        """Give it back to its users."""
        self._action(server, {"unlock": None})

    def abort_live_migration(self, server: str, migration: int) -> None:
        """Cancel a live migration that is queued, preparing or running."""
        self._request("DELETE", f"/servers/{server}/migrations/{migration}")

    def update_service(self, service: str, **changes) -> None:
        """Change ``status``, ``disabled_reason``, ``forced_down`` of a service by its UUID."""
        self._request("PUT", f"/os-services/{service}", changes)


def server_facts(item: dict) -> ServerFacts:
    """Nova's JSON of a server as plain facts."""
    flavor = item.get("flavor") or {}
    return ServerFacts(
        id=item["id"],
        name=item.get("name") or "",
        host=item.get("OS-EXT-SRV-ATTR:host"),
        status=item.get("status") or "",
        vm_state=item.get("OS-EXT-STS:vm_state") or "",
        task_state=item.get("OS-EXT-STS:task_state"),
        changed=_epoch((item.get("updated") or "").rstrip("Z")),
        power_state=item.get("OS-EXT-STS:power_state") or 0,
        locked=bool(item.get("locked")),
        locked_reason=item.get("locked_reason") or "",
        fault=((item.get("fault") or {}).get("message") or "")[:500],
        ram_mb=int(flavor.get("ram") or 0),
        launched=bool(item.get("OS-SRV-USG:launched_at")),
        vcpus=int(flavor.get("vcpus") or 0),
        zone=item.get("OS-EXT-AZ:availability_zone") or "",
        image=str((item.get("image") or {}).get("id") or ""),
        groups=tuple(item.get("server_groups") or ()),
        metadata=item.get("metadata") or {},
        extra_specs=flavor.get("extra_specs") or {},
    )


def wait_until(condition, timeout: float, interval: float = 0.5):
    """Ask ``condition()`` until it answers something true; that answer, or None after ``timeout`` seconds.

    Nova offers no watch: its state can only be asked again.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            return None
        time.sleep(min(interval, max(0.0, deadline - time.monotonic())))


def _nova_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _epoch(text: str | None) -> float | None:
    """Nova's time, UTC without saying so, as seconds since the epoch."""
    try:
        return datetime.fromisoformat(text or "").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _message(response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return (response.text or response.reason or "")[:300]
    for value in answer.values() if isinstance(answer, dict) else []:
        if isinstance(value, dict) and value.get("message"):
            return " ".join(str(value["message"]).split())[:500]  # Nova's 500 has lines
    return str(answer)[:300]
