# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a configuration of MaxScale before Galera, by its documented parameters and by what loses writes.

A configuration is a dict of sections, each a dict of parameters; the section ``maxscale`` holds the global ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.maxscale_parameters import PARAMETERS

Section = Mapping[str, Any]
TYPES = ("server", "monitor", "service", "listener")
TLS = ("server", "listener")
TRUE, FALSE = ("1", "on", "yes", "true"), ("0", "off", "no", "false")
PATTERNS = {
    "boolean": "|".join(TRUE + FALSE),
    "number": r"-?\d+",
    "threads": r"\d+|auto",
    "size": r"\d+([kmgt]i?)?",
    # without a unit it may be refused
    "duration": r"0|\d+(h|min|m|s|ms)",
    "seconds": r"\d+(h|min|m|s)",
    "path": r"/\S*",
    "string": r".*",
    "secret": r".+",
    "list": r".*",
}
SAYS = {
    "duration": "a number with h, m, s or ms",
    "seconds": "whole seconds with their unit, such as 1s",
    "size": "a number, with k, M or G when wanted",
    "path": "an absolute path",
}


def servers(addresses: Mapping[str, str], common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a section for each server, by its name.

    :param addresses: name to address; the first is the preferred writer, and so on: with ``use_priority`` every MaxScale
        chooses the same.
    :param common: parameters that all have.
    """
    return {
        name: {"type": "server", "address": address, "priority": number, **common}
        for number, (name, address) in enumerate(addresses.items(), start=1)
    }


def kinds(section: Section) -> dict[str, str] | None:
    """Return the parameters that a section may have, or None when its type or module is unknown."""
    type_ = section.get("type")
    if type_ not in TYPES:
        return None
    known = {"type": "string", **PARAMETERS[type_]}
    if type_ in TLS:
        known.update(PARAMETERS["tls"])
    module = {"monitor": "module", "service": "router"}.get(str(type_))
    if module:
        known[module] = "string"
        if section.get(module) not in PARAMETERS:
            return None
        known.update(PARAMETERS[section[module]])
    return known


def text(value: object) -> str:
    """Return a value as the file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def truth(value: object) -> bool:
    """Return a boolean parameter's value; absent is false."""
    return text(value).lower() in TRUE


def split(value: object) -> list[str]:
    """Return the items of a list parameter."""
    return [item.strip() for item in text(value).split(",") if item.strip()]


def misfit(kind: str, value: object, names: Mapping[str, Section]) -> str:
    """Return what a value should be, or "" when it is fine."""
    told = text(value)
    if kind in ("reference", "references"):
        lost = [item for item in split(value) if item not in names]
        return f"the name of a section; there is no {', '.join(lost)}" if lost or not told else ""
    if kind.startswith(("one ", "many ")):
        how, *values = kind.split()
        items = split(value) if how == "many" else [told]
        return (
            ""
            if items and all(item in values for item in items)
            else f"{'of' if how == 'many' else 'one of'} {', '.join(values)}"
        )
    if re.fullmatch(PATTERNS[kind], told, re.IGNORECASE):
        return ""
    return SAYS.get(kind, f"a {kind}")


def faults(sections: Mapping[str, Section], instances: int = 1) -> list[str]:
    """Return every reason not to run this configuration, each with what to do; an empty list when it is fine.

    :param instances: MaxScales before the same cluster.
    """
    found = []
    for name, section in sections.items():
        known = PARAMETERS["maxscale"] if name == "maxscale" else kinds(section)
        if known is None:
            what = section.get("module") or section.get("router") or section.get("type")
            found.append(
                f"[{name}] is of a kind that is not known here ({what}); use a server, galeramon, readwritesplit or a listener."
            )
            continue
        for parameter, value in section.items():
            if parameter not in known:
                found.append(
                    f"[{name}] {parameter} is no parameter that MaxScale documents there; remove it, or mend its name."
                )
                continue
            wanted = misfit(known[parameter], value, sections)
            if wanted:
                shown = "(secret)" if known[parameter] == "secret" else repr(text(value))
                found.append(f"[{name}] {parameter} is {shown}: give {wanted}.")
    return found + _references(sections) + _unsafe(sections, instances)


def _references(sections: Mapping[str, Section]) -> list[str]:
    found = []
    for name, section in sections.items():
        wanted = {"monitor": ("servers", "user", "password"), "service": ("user", "password"), "listener": ("service",)}
        found += [
            f"[{name}] needs {parameter}."
            for parameter in wanted.get(section.get("type"), ())
            if not section.get(parameter)
        ]
        if section.get("type") == "service" and not (
            section.get("servers") or section.get("cluster") or section.get("targets")
        ):
            found.append(f"[{name}] needs servers or cluster.")
        if section.get("type") in TLS and truth(section.get("ssl", False)):
            needed = ("ssl_key", "ssl_cert", "ssl_ca") if section["type"] == "listener" else ("ssl_ca",)
            found += [f"[{name}] has ssl and needs {parameter}." for parameter in needed if not section.get(parameter)]
    return found


def _unsafe(sections: Mapping[str, Section], instances: int) -> list[str]:
    found = []
    settings = sections.get("maxscale", {})
    local = text(settings.get("admin_host", "127.0.0.1")) in ("127.0.0.1", "::1", "localhost")
    if truth(settings.get("admin_enabled", True)) and not local and not settings.get("admin_ssl_cert"):
        found.append(
            "[maxscale] opens the admin API without TLS: leave admin_host at 127.0.0.1, or give admin_ssl_key and admin_ssl_cert."
        )
    for name, section in sections.items():
        if section.get("module") == "galeramon":
            found += _unsafe_monitor(name, section, sections, instances)
        elif section.get("router") == "readwritesplit":
            found += _unsafe_service(name, section)
    return found


def _unsafe_monitor(name: str, section: Section, sections: Mapping[str, Section], instances: int) -> list[str]:
    found = []
    sticky = truth(section.get("disable_master_failback", False))
    if sticky and truth(section.get("root_node_as_master", False)):
        found.append(
            f"[{name}] root_node_as_master with disable_master_failback lets two MaxScales choose different writers: use one of them."
        )
    if sticky and instances > 1:
        found.append(
            f"[{name}] disable_master_failback with {instances} MaxScales: one that restarts chooses another writer than those that "
            "remember. Leave it false."
        )
    if truth(section.get("disable_master_role_setting", False)):
        found.append(f"[{name}] disable_master_role_setting leaves readwritesplit without a writer: leave it false.")
    if truth(section.get("use_priority", False)):
        servers = [one for one in split(section.get("servers", "")) if one in sections]
        priorities = [text(sections[one].get("priority", 0)) for one in servers]
        if len(set(priorities)) < len(priorities):
            found.append(
                f"[{name}] use_priority wants another priority for each server; they have {', '.join(priorities)}."
            )
    return found


def _unsafe_service(name: str, section: Section) -> list[str]:
    found = []
    replay = truth(section.get("transaction_replay", False))
    if text(section.get("causal_reads", "none")) != "none":
        found.append(
            f"[{name}] causal_reads does not have own writes read at once on Galera (5 % stale reads were measured): leave it at none "
            "and set galera_sync_wait to 1."
        )
    if replay and not truth(section.get("transaction_replay_safe_commit", True)):
        found.append(f"[{name}] transaction_replay_safe_commit=false may commit a transaction twice: leave it true.")
    if replay and text(section.get("transaction_replay_checksum", "full")) != "full":
        found.append(
            f"[{name}] transaction_replay_checksum other than full may replay on other data: leave it at full."
        )
    if replay and truth(section.get("transaction_replay_retry_on_mismatch", False)):
        found.append(f"[{name}] transaction_replay_retry_on_mismatch repeats what has read other data: leave it false.")
    if replay:
        contradicted = [
            f"{parameter}={text(section[parameter])}"
            for parameter, wanted in (
                ("delayed_retry", "true"),
                ("master_reconnection", "true"),
                ("master_failure_mode", "fail_on_write"),
            )
            if parameter in section and text(section[parameter]).lower() != wanted
        ]
        if contradicted:
            found.append(f"[{name}] transaction_replay overrides {', '.join(contradicted)}: remove it.")
    if truth(section.get("optimistic_trx", False)):
        found.append(f"[{name}] optimistic_trx starts writes on a member that is not the writer: leave it false.")
    if not truth(section.get("master_reconnection", True)) or truth(section.get("disable_sescmd_history", False)):
        found.append(
            f"[{name}] without master_reconnection and the session's history a client's session ends with the writer."
        )
    return found
