# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A keystoneauth1 session from the options of the doc fragment ``c5c3.ha.openstack``.

Passwords, tokens and application credentials from a clouds.yaml are read here, because openstacksdk's import takes
half a second that a dead VM waits for. Everything else (other auth types, vendor profiles) goes through openstacksdk.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from ansible_collections.c5c3.ha.plugins.module_utils import kept
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

_PASSWORD = (
    "auth_url username user_id password user_domain_id user_domain_name project_id project_name project_domain_id"
    " project_domain_name domain_id domain_name system_scope trust_id"
).split()
_CREDENTIAL = (
    "auth_url application_credential_id application_credential_secret application_credential_name username user_id"
    " user_domain_id user_domain_name"
).split()
_TOKEN = (
    "auth_url token project_id project_name project_domain_id project_domain_name domain_id domain_name system_scope trust_id"
).split()
_TYPES = {
    "password": ("Password", _PASSWORD),
    "v3password": ("Password", _PASSWORD),
    "v3applicationcredential": ("ApplicationCredential", _CREDENTIAL),
    "token": ("Token", _TOKEN),
    "v3token": ("Token", _TOKEN),
}


def open_session(params: dict) -> tuple:
    """Return ``(session, region_name, interface)``. No request is made yet.

    :raises ArgumentError: the cloud is not described, or its description is not usable; says where it was looked for.
    """
    config = _config(params)
    auth_type = config.get("auth_type") or "password"
    if auth_type not in _TYPES or config.get("profile"):
        return _through_openstacksdk(params)
    from keystoneauth1 import session
    from keystoneauth1.identity import v3

    name, allowed = _TYPES[auth_type]
    auth = {k: v for k, v in (config.get("auth") or {}).items() if v is not None}
    if not auth.get("auth_url"):
        raise ArgumentError(f"the cloud {config['name']!r} has no auth.auth_url: add it to {config['origin']}")
    unknown = sorted(set(auth) - set(allowed) - {"default_domain", "default_domain_id", "default_domain_name"})
    if unknown:
        raise ArgumentError(f"auth of the cloud {config['name']!r} has unknown keys {', '.join(unknown)}: remove them")
    for scope in ("user", "project"):
        if auth.get("default_domain_id") and not auth.get(f"{scope}_domain_name"):
            auth.setdefault(f"{scope}_domain_id", auth["default_domain_id"])
        if auth.get("default_domain_name") and not auth.get(f"{scope}_domain_id"):
            auth.setdefault(f"{scope}_domain_name", auth["default_domain_name"])
    arguments = {k: auth[k] for k in allowed if k in auth}
    url = str(arguments["auth_url"]).rstrip("/")
    arguments["auth_url"] = url if url.endswith("/v3") else f"{url}/v3"
    plugin = getattr(v3, name)(**arguments)
    _keep_token(plugin, json.dumps([name, arguments], sort_keys=True, default=str).encode())
    verify: bool | str = config.get("verify", True)
    if verify and config.get("cacert"):
        verify = config["cacert"]
    cert = (config["cert"], config["key"]) if config.get("cert") and config.get("key") else config.get("cert")
    return (
        session.Session(auth=plugin, verify=verify, cert=cert, app_name="c5c3.ha"),
        params.get("region_name") or config.get("region_name"),
        params.get("interface") or config.get("interface") or "public",
    )


def _keep_token(plugin, name: bytes) -> None:
    """Begin with the token of an earlier run, and keep each new one.

    keystoneauth1 asks for a new token itself when one is about to expire, or is refused (401).
    """
    state = kept.get(name)
    if state:
        with suppress(ValueError, KeyError, TypeError):
            plugin.set_auth_state(state.decode())
    log_in = plugin.get_auth_ref

    def get_auth_ref(session, **kwargs):
        access = log_in(session, **kwargs)
        # pylint: disable-next=protected-access
        kept.put(name, json.dumps({"auth_token": access.auth_token, "body": access._data}).encode())
        return access

    plugin.get_auth_ref = get_auth_ref


def _config(params: dict) -> dict:
    if params.get("auth"):
        return {"auth": params["auth"], "auth_type": params.get("auth_type"), "name": "given by auth", "origin": "auth"}
    name = params.get("cloud") or os.environ.get("OS_CLOUD")
    if not name:
        auth = {
            key[3:].lower(): value
            for key, value in os.environ.items()
            if key.startswith("OS_") and key[3:].lower() in {*_PASSWORD, *_CREDENTIAL, "token"}
        }
        if auth.get("auth_url"):
            found = {"auth": auth, "auth_type": os.environ.get("OS_AUTH_TYPE"), "name": "of the environment"}
            found.update(
                origin="the OS_* variables",
                region_name=os.environ.get("OS_REGION_NAME"),
                interface=os.environ.get("OS_INTERFACE"),
                cacert=os.environ.get("OS_CACERT"),
            )
            return found
        raise ArgumentError("no cloud is named: set the option cloud, or OS_CLOUD, to a name in clouds.yaml")
    places = _places(params)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ArgumentError(f"no clouds.yaml for the cloud {name!r}: looked for {', '.join(map(str, places))}")
    clouds = _load(path)
    if name not in clouds:
        known = ", ".join(sorted(clouds)) or "none"
        raise ArgumentError(f"{path} has no cloud {name!r}, only: {known}")
    config = _merged(clouds[name] or {}, _load(path.with_name("secure.yaml")).get(name) or {})
    config.update(name=name, origin=str(path))
    return config


def _places(params: dict) -> list[Path]:
    if params.get("clouds_file"):
        return [Path(params["clouds_file"])]
    if os.environ.get("OS_CLIENT_CONFIG_FILE"):
        return [Path(os.environ["OS_CLIENT_CONFIG_FILE"])]
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path.cwd() / "clouds.yaml", home / "openstack" / "clouds.yaml", Path("/etc/openstack/clouds.yaml")]


def _load(path: Path) -> dict:
    import yaml

    if not path.is_file():
        return {}
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}  # noqa: S506 - safe, in C
        return content.get("clouds") or {}
    except (OSError, yaml.YAMLError, AttributeError) as error:
        # The text of a YAML error can hold a line with a password: only its place is told.
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ArgumentError(f"{path} cannot be read as YAML{where}: mend it ({type(error).__name__})") from None


def _merged(first: dict, second: dict) -> dict:
    result = dict(first)
    for key, value in second.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return result


def _through_openstacksdk(params: dict) -> tuple:
    try:
        from openstack.config import OpenStackConfig
    except ImportError as error:
        raise ArgumentError(f"this cloud's auth type needs openstacksdk: install it ({error})") from None
    files = [params["clouds_file"]] if params.get("clouds_file") else None
    arguments = {"config_files": files} if files else {}
    region = OpenStackConfig(**arguments).get_one(
        cloud=params.get("cloud"),
        **{k: params[k] for k in ("auth", "auth_type", "region_name", "interface") if params.get(k)},
    )
    return region.get_session(), region.region_name, region.get_interface("compute") or "public"
