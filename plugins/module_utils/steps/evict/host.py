# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host of an Eviction: whether its work may begin, its compute service, its Hypervisor's condition."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.service_change import EVICTION_REASON
from ansible_collections.c5c3.ha.plugins.module_utils.errors import Conflict, Forbidden, NotFound
from ansible_collections.c5c3.ha.plugins.module_utils.kubernetes import Client
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova
from ansible_collections.c5c3.ha.plugins.module_utils.resources import (
    get_condition,
    hypervisors,
    now_utc,
    set_condition,
    shown,
)
from ansible_collections.c5c3.ha.plugins.module_utils.steps.evict.look import View

DISABLED_REASON = EVICTION_REASON


class HostWork:
    """What is done to the host itself, not to its servers.

    :param acts: where what was done is told.
    """

    def __init__(self, client: Client, nova: Nova, group: str, name: str, acts: list[dict]) -> None:
        self.client = client
        self.nova = nova
        self.resource = hypervisors(group)
        self.name = name
        self.acts = acts
        self.found = ""
        """What the preflight found, when nothing stands against beginning."""
        self._disabled = False

    def unknown(self, host: str, view: View) -> str | None:
        """Why the Eviction can never be worked on."""
        if view.service is not None:
            return None
        known = "check spec.hypervisor against `openstack compute service list`"
        return f"Nova knows no nova-compute on host {shown(host)}: {known}"

    def blocked(self, view: View) -> tuple[str, str] | None:
        """What stands against emptying a living host: reason and message."""
        assert view.service is not None
        host = view.service.host
        if not view.service.up:
            told = "nothing can be migrated from it; once it is proven to be off it can be evacuated"
            return "HypervisorDown", f"nova-compute of {host} is down: {told}"
        targets = [other.host for other in view.services if other.host != host and other.up and other.enabled]
        if not targets:
            return "NoTarget", f"no other hypervisor is up and enabled: enable one, then {host} can be emptied"
        self.found = f"nova-compute of {host} is up and disabled; {len(targets)} others are up and enabled"
        return None

    def disable(self, view: View) -> bool:
        """Disable the host's compute service, so that nothing new arrives; return whether Nova was changed."""
        assert view.service is not None
        changed = view.service.enabled
        if changed:
            self.nova.update_service(
                view.service.id, status="disabled", disabled_reason=f"{DISABLED_REASON} {self.name}"
            )
            self.acts.append({"act": "DisableService", "host": view.service.host})
        if not self._disabled:
            self._mark_disabled(view.service.host)
            self._disabled = True
        return changed

    def _mark_disabled(self, host: str) -> None:
        try:
            hypervisor = self.client.get(self.resource, host)
            if hypervisor is None or (get_condition(hypervisor, "HypervisorDisabled") or {}).get("status") == "True":
                return
            conditions = set_condition(
                (hypervisor.get("status") or {}).get("conditions"),
                "HypervisorDisabled",
                "True",
                "Succeeded",
                "Hypervisor is disabled",
                now_utc(),
            )
            body = {
                "metadata": {"resourceVersion": hypervisor["metadata"]["resourceVersion"]},
                "status": {"conditions": conditions},
            }
            self.client.patch(self.resource, host, body, subresource="status")
        except (Conflict, NotFound, Forbidden):
            # It says what Nova says anyway; the next step says it again.
            return
