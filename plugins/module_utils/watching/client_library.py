# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubernetes_asyncio without its 800 modules of models and APIs, which cost 33 MB and 0.3 s of every daemon."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError

PACKAGE = "kubernetes_asyncio"
# Their __init__ files import everything below them.
_HEAVY = (PACKAGE, f"{PACKAGE}.client", f"{PACKAGE}.client.models", f"{PACKAGE}.config")


class _OnDemand(types.ModuleType):
    """A package whose ``__init__`` runs only when a name is asked for that no submodule has.

    So whoever else in this process imports kubernetes_asyncio still finds all of it.
    """

    def __getattr__(self, name: str):
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        if name != "__all__" and importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        self.__class__ = types.ModuleType  # once; and what the real __init__ lacks is an AttributeError again
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _stand_in(name: str) -> types.ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{name} is not a package")
    module = _OnDemand(name)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__file__ = spec.origin
    module.__package__ = name
    module.__path__ = spec.submodule_search_locations
    sys.modules[name] = module
    parent, _dot, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


def _load_lightly() -> None:
    """Put the stand-ins in place and give them the two names that kubernetes_asyncio's own modules ask them for."""
    modules = {name: _stand_in(name) for name in _HEAVY}
    client = modules[f"{PACKAGE}.client"]
    client.Configuration = importlib.import_module(f"{PACKAGE}.client.configuration").Configuration
    client.ApiClient = importlib.import_module(f"{PACKAGE}.client.api_client").ApiClient


def load() -> types.SimpleNamespace:
    """Return Configuration, RESTClientObject, ApiException, kube_config and ConfigException of kubernetes_asyncio.

    :raises HaError: when it is not installed.
    """
    try:
        if PACKAGE not in sys.modules:
            try:
                _load_lightly()
                importlib.import_module(f"{PACKAGE}.config.kube_config")
            except Exception:
                # Another version with another layout: the ordinary import is heavier, but never wrong.
                for name in [name for name in sys.modules if name == PACKAGE or name.startswith(PACKAGE + ".")]:
                    del sys.modules[name]
        names = {
            "Configuration": ("client.configuration", "Configuration"),
            "RESTClientObject": ("client.rest", "RESTClientObject"),
            "kube_config": ("config.kube_config", None),
            "ConfigException": ("config.config_exception", "ConfigException"),
        }
        found = {}
        for key, (module, attribute) in names.items():
            loaded = importlib.import_module(f"{PACKAGE}.{module}")
            found[key] = loaded if attribute is None else getattr(loaded, attribute)
        return types.SimpleNamespace(**found)
    except ImportError as error:
        raise HaError(
            f"Python package kubernetes_asyncio cannot be imported by {sys.executable} ({error}):"
            " install it there, for example with pip install kubernetes_asyncio"
        ) from error
