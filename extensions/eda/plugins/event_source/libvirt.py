# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event source c5c3.ha.libvirt: what happens to virtual machines, as flat events."""

from __future__ import annotations

import asyncio
from typing import Any

DOCUMENTATION = r"""
short_description: Events of virtual machines from one or more libvirt connections
description:
  - Subscribes to libvirt over a read-only connection and turns its events into flat dictionaries. The kinds are
    V(lifecycle), V(reboot), V(watchdog), V(io_error), V(control_error), V(agent_lifecycle), V(migration_iteration),
    V(job_completed), V(memory_failure), and the source's own V(heartbeat) and V(connection). C(docs/events.md) describes
    them field by field, C(extensions/eda/schemas/libvirt_event.schema.json) is their JSON schema.
  - What libvirt tells several times about one fault is one event. A death is never held back, and overtakes what waits.
  - At every connect, and again with every heartbeat, all domains are compared with what was last known of them. What died
    while the source or libvirtd was away is told once, with O(ignore:synthetic=true).
  - Reconnects for ever. Ends only when it is cancelled, or at once when its options are wrong.
version_added: 0.1.0
requirements:
  - libvirt-python
  - The folder that holds C(ansible_collections) on E(PYTHONPATH).
options:
  uri:
    description: One libvirt URI. Not together with O(uris).
    type: str
    default: qemu:///system
  uris:
    description: Several libvirt URIs, watched side by side.
    type: list
    elements: str
  hypervisor:
    description:
      - Name of the hypervisor in the events, equal to the name of the Kubernetes node and of Nova's host.
      - With several URIs, a mapping of each URI to its name.
      - Where it is missing, the short host name that the connection tells.
    type: raw
  keepalive_interval:
    description: Seconds of silence after which libvirtd is asked whether it lives.
    type: int
    default: 5
  keepalive_count:
    description: Unanswered questions after which the connection is given up.
    type: int
    default: 3
  backoff_min:
    description: Seconds before the first attempt to reconnect. Each further one doubles it, with jitter.
    type: float
    default: 0.5
  backoff_max:
    description: Longest time in seconds between two attempts to reconnect.
    type: float
    default: 10
  call_timeout:
    description: Seconds to wait for a libvirt call. A hung libvirtd never blocks the rulebook.
    type: float
    default: 10
  heartbeat_seconds:
    description: Seconds between two heartbeats, each with a comparison of all domains.
    type: float
    default: 10
  retell_seconds:
    description:
      - Seconds after which a guest that an I/O error keeps suspended is told again, at the next comparison. Whether the
        error persists, or the guest can go on, is for the rulebook to find out.
    type: float
    default: 20
  join_window:
    description: Seconds that events which come in several are held to be joined. Deaths are never held.
    type: float
    default: 0.5
  instances:
    description: Whether a heartbeat lists all domains.
    type: bool
    default: true
  state_path:
    description:
      - A file that remembers, over a restart of the source, which domains ran. It holds UUIDs only, with mode 0600, and its
        folder must exist.
      - Without it the source still tells every domain that is shut off as crashed or failed, and also those which are
        shut off for a reason that libvirt forgot. Losing it costs questions to Nova, never a machine.
    type: path
author:
  - The c5c3.ha authors
"""

EXAMPLES = r"""
- name: Watch this hypervisor
  hosts: localhost
  sources:
    - name: Virtual machines
      c5c3.ha.libvirt:
        uri: qemu:///system
        state_path: /var/lib/c5c3-ha/libvirt.json
  rules:
    - name: A machine died
      condition: >-
        event.event == "lifecycle" and event.action == "STOPPED" and event.detail in ["FAILED", "CRASHED", "UNKNOWN"]
      action:
        debug:
          msg: "{{ event.uuid }} died on {{ event.hypervisor }} at {{ event.occurred_at }}"

- name: Watch two hypervisors from one place
  hosts: localhost
  sources:
    - c5c3.ha.libvirt:
        uris:
          - qemu+tls://cmp01.example.org/system
          - qemu+tls://cmp02.example.org/system
        hypervisor:
          qemu+tls://cmp01.example.org/system: cmp01
          qemu+tls://cmp02.example.org/system: cmp02
  rules:
    - name: Everything
      condition: event.event is defined
      action:
        print_event:
"""


async def main(queue: asyncio.Queue[dict[str, Any]], args: dict[str, Any]) -> None:
    """Entry point of ansible-rulebook. Returns never; raises only for wrong options or a missing library."""
    try:
        from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import options
    except ImportError as error:
        raise ImportError(
            f"c5c3.ha.libvirt cannot import its own collection ({error}): put the folder that holds ansible_collections "
            "on PYTHONPATH, for example PYTHONPATH=/usr/share/ansible/collections"
        ) from error
    checked = options.parse(args)
    try:
        import libvirtaio  # noqa: F401

        from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import source
    except ImportError as error:
        raise ImportError(
            f"c5c3.ha.libvirt cannot import libvirt's Python binding ({error}): install libvirt-python for the Python "
            "that runs ansible-rulebook (pip install libvirt-python, or Debian's python3-libvirt)"
        ) from error
    await source.run(queue, checked)
