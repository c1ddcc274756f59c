# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that talk to OpenStack; paired with module_utils/args.py OPENSTACK_ARGS."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment c5c3.ha.openstack."""

    DOCUMENTATION = r"""
options:
  cloud:
    description:
      - Name of a cloud in C(clouds.yaml); certificate authorities and verification belong there too.
      - E(OS_CLOUD) is used when left out, and without that the other E(OS_*) variables.
    type: str
  clouds_file:
    description:
      - Path of C(clouds.yaml). Without it the usual places are searched (E(OS_CLIENT_CONFIG_FILE), the working
        directory, C(~/.config/openstack), C(/etc/openstack)).
    type: path
  auth:
    description:
      - Authentication values such as V(auth_url), V(username), V(password), V(project_name); override those of
        O(cloud).
    type: dict
  auth_type:
    description:
      - Name of the keystoneauth plugin, such as V(password) or V(v3applicationcredential).
    type: str
  region_name:
    description:
      - Name of the region.
    type: str
  interface:
    description:
      - Which endpoint of the catalogue to use.
    type: str
    choices: [public, internal, admin]
  api_timeout:
    description:
      - Time limit of one request to an OpenStack API in seconds.
    type: float
    default: 60.0
requirements:
  - keystoneauth1
  - openstacksdk (for C(clouds.yaml))
"""
