#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_info
short_description: Tell which services run with an older configuration than the one on disk
description:
  - Compares when a service of systemd was started, or last reloaded, with when the files that it reads were laid.
  - Unlike a handler this is not forgotten by a run that was interrupted before its restart, nor fooled by a certificate that somebody
    else renewed.
  - A link counts from when it was made, too, so that one which leads elsewhere now is seen.
version_added: 0.1.0
author: The c5c3.ha authors (@c5c3)
options:
  services:
    description: Which services to look at.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit, such as V(memcached).
        type: str
        required: true
      restart_for:
        description: Files that it reads only when it starts. Those that are not there are left out.
        type: list
        elements: path
        default: []
      reload_for:
        description: Files that it reads again when it is reloaded. Those that are not there are left out.
        type: list
        elements: path
        default: []
      time:
        description:
          - Which time of a file counts.
          - V(change) is when it came to its path, or got another owner or mode. A program of a package, and a file that was copied with
            an older modification time, are seen by it alone.
          - V(modification) is when its content was written, for files whose owner something else sets again and again, as OVN's start
            script does.
        type: str
        choices: [change, modification]
        default: change
extends_documentation_fragment: [ansible.builtin.action_common_attributes]
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Changes nothing.
  platform:
    platforms: posix
    support: full
    details: Hosts with systemd.
  idempotent:
    description: When run twice in a row outside check mode with the same arguments, the second run changes nothing.
    support: full
seealso:
  - module: ansible.builtin.service_facts
  - module: ansible.builtin.systemd_service
"""

EXAMPLES = r"""
- name: Look whether memcached runs with what is on disk
  c5c3.ha.service_info:
    services:
      - name: memcached
        restart_for: [/etc/memcached.conf, /etc/memcached/host.crt]
  register: age

- name: Restart it
  ansible.builtin.systemd_service:
    name: memcached
    state: restarted
    daemon_reload: true
  when: age.services.memcached.needs == 'restart'
"""

RETURN = r"""
services:
  description: What was found, by the name of the unit.
  returned: success
  type: dict
  contains:
    needs:
      description:
        - What it needs to run with what is on disk, V(start), V(restart), V(reload) or V(nothing).
        - V(start) when it does not run.
      type: str
    because:
      description: Why, in words; empty with V(nothing).
      type: str
    there:
      description: Whether systemd knows the unit.
      type: bool
    enabled:
      description: Whether it starts with the host, by itself or with another unit.
      type: bool
  sample:
    memcached:
      needs: restart
      because: /etc/memcached.conf was laid 12.3 s after the start
      there: true
      enabled: true
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.c5c3.ha.plugins.module_utils import service_age


def main() -> None:
    """Run the module."""
    files = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "restart_for": files,
                    "reload_for": files,
                    "time": {"type": "str", "choices": ["change", "modification"], "default": "change"},
                },
            }
        },
        supports_check_mode=True,
    )
    services = module.params["services"]
    try:
        told = service_age.show(module, [each["name"] for each in services])
    except LookupError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        services={
            each["name"]: service_age.judge(
                properties, *(service_age.laid(each[paths], each["time"]) for paths in ("restart_for", "reload_for"))
            )
            for each, properties in zip(services, told, strict=True)
        },
    )


if __name__ == "__main__":
    main()
