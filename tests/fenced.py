"""A site on a lab whose hosts can be switched off: operators deployed with short times, each host's controller known.

>>> deployment = deployed(lab); fence_all(lab); lab.kill("cmp01")
"""

from __future__ import annotations

import time
from typing import Any

from tests.deployment import NAMESPACE, Deployment
from tests.evictor import GATES, GROUP, fencing
from tests.lab import Lab, wait_until

# Later than Kubernetes' and Nova's own notice, so that what is waited for is this.
UNREACHABLE_SECONDS = 20


def settings(**rulebook: Any) -> dict[str, Any]:
    """Variables of the playbook; `rulebook` are further ones of the rulebook."""
    variables = {
        "c5c3_ha_resync_seconds": 5,
        "c5c3_ha_node_resync_seconds": 5,
        "c5c3_ha_unreachable_seconds": UNREACHABLE_SECONDS,
        "c5c3_ha_return_seconds": 5,
        "c5c3_ha_gate_limits": GATES,
        **rulebook,
    }
    return {"hypervisor_operator_rulebook_vars": variables}


def deployed(lab: Lab, operators: int = 2, **rulebook: Any) -> Deployment:
    """Agents and operators with those settings, at work."""
    deployment = Deployment(lab, operators, settings(**rulebook))
    deployment.deploy()
    deployment.wait_ready()
    wait_until(lambda: len(deployment.daemons("operator")) == operators, 120, f"{operators} operators", 0.2)
    return deployment


def fence_all(lab: Lab) -> None:
    """Start the hosts' controllers and tell each Hypervisor about its own."""
    lab.bmc.up()
    lab.bmc.write_secret(NAMESPACE)
    for host in lab.hosts:
        wait_until(lambda host=host: host in hypervisors(lab), 60, f"Hypervisor {host} is there", 0.2)
        spec = {"fencing": fencing(lab, host)}
        lab.kubernetes.request("PATCH", f"{GROUP}/hypervisors/{host}", {"spec": spec}, "application/merge-patch+json")


def hypervisors(lab: Lab) -> dict[str, dict]:
    """The Hypervisors by name."""
    return {item["metadata"]["name"]: item for item in lab.kubernetes.request("GET", f"{GROUP}/hypervisors")["items"]}


def wait_returned(lab: Lab, host: str, timeout: float = 240) -> float:
    """Wait until Nova has the host back in service, by the operator's doing; seconds."""
    began = time.monotonic()

    def returned() -> bool:
        service = lab.nova.compute_services()[host]
        return (service["state"], service["status"], service["forced_down"]) == ("up", "enabled", False)

    wait_until(returned, timeout, f"{host} is in service again", 0.5)
    return time.monotonic() - began
