# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step domain_restart: bring a libvirt domain back to work on its own host, and see that it stays so."""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions import domain_restart_rules as rules
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.resources import shown, validate_uuid

ARGUMENTS = {
    "argument_spec": {
        "uri": {"type": "str", "default": "qemu:///system"},
        "uuid": {"type": "str"},
        "name": {"type": "str"},
        "method": {"type": "str", "choices": list(rules.METHODS), "default": "auto"},
        "timeout": {"type": "float", "default": 30.0},
        "verify_seconds": {"type": "float", "default": 5.0},
    },
    "mutually_exclusive": [("uuid", "name")],
    "required_one_of": [("uuid", "name")],
}


def run(params: dict, check_mode: bool) -> dict:
    """Restart the domain as its state asks for.

    :returns: changed, actions, domain, events, verified, elapsed, diff, msg.
    :raises HaError: wrong arguments (before any connection), or what libvirt said.
    """
    uri = rules.validate_uri(params["uri"])
    uuid = validate_uuid(params["uuid"]) if params.get("uuid") is not None else None
    name = rules.validate_domain_name(params["name"]) if uuid is None else None
    for option, least in (("timeout", 0.1), ("verify_seconds", 0.0)):
        if not least <= params[option] <= 3600:
            raise ArgumentError(f"{option} {shown(params[option])} is out of range: give {least:g} to 3600 seconds")

    # Late: a wrong argument needs no libvirt.
    from ansible_collections.c5c3.ha.plugins.module_utils.domain import Restart

    return Restart(uri, uuid, name, params["method"], params["timeout"], params["verify_seconds"], check_mode).run()
