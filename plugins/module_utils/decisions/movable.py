# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot go the way it would have to go, and what would help. Pure.

Known before an attempt from the flavor's extra specs; after one from Nova's own words. What is not sure is tried: a
refused migration leaves the guest as it was.

Volumes and local disks need nothing here: Nova copies what is not shared (block migration ``auto``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

VGPU = "VGPU"

_STOP = "stop it (`openstack server stop`), then a new Eviction moves it cold; or leave it to a window with its user"
_DELETE = "its user has to replace it by a server without that"

_ALIAS = "pci_passthrough:alias"
_VGPU = re.compile(r"resources[^:]{0,64}:VGPU")
_YES = frozenset({"1", "t", "true", "on", "y", "yes"})

# Nova's refusals that no later attempt will change (nova.exception), each with what would help.
_FINAL = (
    (re.compile(r"not supported for (mem encryption|SEV|vTPM|vDPA|accelerator|instance with vDPA)", re.I), _STOP),
    (re.compile(r"does not explicitly request live-migratable devices|non-VIF related PCI requests", re.I), _STOP),
    (re.compile(r"Cannot live migrate VIF with related PCI", re.I), _STOP),
    (re.compile(r"virtual persistent memory|vpmem|attached (vgpu|mdev)|mediated devices", re.I), _STOP),
    (re.compile(r"cyborg|accelerator requests?", re.I), _DELETE),
)

# Failures whose cause lies with the site: a later attempt may do better, once somebody has mended it.
_SITE = (
    (
        re.compile(
            r"\b(ssh|scp|rsync)\b.*(refused|timed out|denied|verification|unreachable|no route|command)", re.I | re.S
        ),
        "nova-compute copies by ssh from host to host: see that sshd runs on both, and that `ssh HOST true` works there as nova's user",
    ),
    (
        re.compile(
            r"unacceptable cpu|cpu (doesn't|does not) (have compatibility|match)|incompatible with host cpu", re.I
        ),
        "the hosts' CPUs differ: give nova-compute the same [libvirt]cpu_mode=custom and cpu_models everywhere, or stop the server, "
        "which then moves cold",
    ),
    (
        re.compile(
            r"unable to connect to server at|failed to connect to remote libvirt|cannot recv data|end of file while reading data",
            re.I,
        ),
        "libvirtd of the other host was not reached: see that it runs there and takes connections of [libvirt]live_migration_scheme",
    ),
)


def hindrance(act: str, extra_specs: Mapping[str, object], live_migratable: Collection[str] = ()) -> str:
    """Why Nova will not carry out ``act`` on a server of this flavor, and what would help; empty when it may.

    :param act: LiveMigrate, ColdMigrate or Evacuate; only a live migration hangs on devices: the others plug anew.
    :param live_migratable: PCI aliases that the site's Nova has with ``live_migratable``, and VGPU where its
        hypervisors migrate mediated devices.
    """
    if act != "LiveMigrate":
        return ""
    aliases = [part.split(":")[0].strip() for part in str(extra_specs.get(_ALIAS) or "").split(",")]
    stuck = [alias for alias in filter(None, aliases) if alias not in live_migratable]
    if stuck:
        return f"its flavor passes PCI devices through ({_shown(stuck)}), which do not migrate live: {_STOP}"
    if VGPU not in live_migratable and any(_VGPU.fullmatch(str(key)) for key in extra_specs):
        return f"its flavor has a virtual GPU, which does not migrate live here: {_STOP}"
    if extra_specs.get("hw:pmem"):
        return f"its flavor has persistent memory (hw:pmem), which does not migrate live: {_STOP}"
    if str(extra_specs.get("hw:mem_encryption") or "").strip().lower() in _YES:
        return f"its flavor has encrypted memory (hw:mem_encryption), which does not migrate live: {_STOP}"
    return ""


def final_refusal(failure: str) -> str:
    """What would help when Nova's words say that no later attempt will do better; empty when one may."""
    return next((helps for pattern, helps in _FINAL if pattern.search(failure)), "")


def site_remedy(failure: str) -> str:
    """What to look at when Nova's words name a cause outside of Nova: ssh, CPUs, the other host's libvirtd. Else empty."""
    return next((helps for pattern, helps in _SITE if pattern.search(failure)), "")


def _shown(names: list[str]) -> str:
    text = ", ".join(names)[:80]
    return "".join(char if char.isprintable() else "?" for char in text)
