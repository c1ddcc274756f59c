"""Installs the CRDs on a lab."""

from __future__ import annotations

from pathlib import Path

from tests.lab import LabError, wait_until
from tests.lab.kubernetes import Kubernetes

FOLDER = Path(__file__).parents[1] / "crds"


def install(kubernetes: Kubernetes, *names: str) -> None:
    """Apply crds/NAME.yaml for each name (hypervisors, evictions, migrations), and wait until they are served."""

    def served(name: str) -> bool:
        try:
            # Right after the apply kubectl falls over a definition that has no conditions yet.
            kubernetes.kubectl("wait", "--for=condition=Established", f"crd/{name}.hypervisor.c5c3.io", "--timeout=5s")
            kubernetes.kubectl("get", f"{name}.hypervisor.c5c3.io", "-A")
        except LabError:
            return False
        return True

    for name in names:
        kubernetes.kubectl("apply", "-f", str(FOLDER / f"{name}.yaml"))
        wait_until(lambda name=name: served(name), 30, f"{name}.hypervisor.c5c3.io is served", 0.2)
