"""The services as their clients see them: a module for each scenario whose faults are measured, with a class ``Client``."""

from __future__ import annotations

import importlib
import importlib.util

from tests.stack.hosts import Scenario
from tests.stack.writing import Service


def known(name: str) -> bool:
    """Tell whether the scenario of that name has a client, and so faults."""
    return importlib.util.find_spec(f"tests.stack.clients.{name}") is not None


def service(of: Scenario) -> Service:
    """Return a fresh client of the scenario's service."""
    return importlib.import_module(f"tests.stack.clients.{of.name}").Client(of)


def missing(name: str) -> str:
    """Return why the scenario of that name cannot run on this machine, or an empty string."""
    if not known(name):
        return ""
    return getattr(importlib.import_module(f"tests.stack.clients.{name}"), "missing", str)()
