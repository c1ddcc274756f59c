# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specifications shared by several steps, each paired with the documentation fragment of the same name.

A step names its arguments in ``ARGUMENTS``: keyword arguments for both AnsibleModule and ArgumentSpecValidator.
"""

from __future__ import annotations

# c5c3.ha.kubernetes
KUBERNETES_ARGS: dict[str, dict] = {
    "kubeconfig": {"type": "path"},
    "context": {"type": "str"},
    "host": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "token_file": {"type": "path"},
    "ca_cert": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "validate_certs": {"type": "bool"},
    "api_group": {"type": "str", "default": "hypervisor.c5c3.io"},
    "request_timeout": {"type": "float", "default": 30.0},
}

# c5c3.ha.openstack. Names do not collide with KUBERNETES_ARGS: a step may take both.
OPENSTACK_ARGS: dict[str, dict] = {
    "cloud": {"type": "str"},
    "clouds_file": {"type": "path"},
    "auth": {"type": "dict", "no_log": True},
    "auth_type": {"type": "str"},
    "region_name": {"type": "str"},
    "interface": {"type": "str", "choices": ["public", "internal", "admin"]},
    "api_timeout": {"type": "float", "default": 60.0},
}
