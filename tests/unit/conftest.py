"""Unit tests import the collection as Ansible does, whether they are started by ``make unit`` or by a bare pytest."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# A loaded machine is slow, not wrong.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[2]


def pytest_configure() -> None:
    """Put a collections path that holds this checkout in front, unless the environment did."""
    for entry in sys.path:
        place = Path(entry) / "ansible_collections" / "c5c3" / "ha"
        if place.exists() and place.resolve() == ROOT:
            return
    if importlib.util.find_spec("tests.setup") is None:
        sys.path.insert(0, str(ROOT))
    from tests.setup.collection import linked_tree

    sys.path.insert(0, str(linked_tree()))
