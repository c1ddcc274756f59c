# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's Python binding, imported where it is needed: most hosts that run these steps have none."""

from __future__ import annotations

from types import ModuleType

from ansible_collections.c5c3.ha.plugins.module_utils.errors import HaError


def binding() -> ModuleType:
    """Return the module ``libvirt``.

    :raises HaError: this Python has none.
    """
    try:
        import libvirt
    except ImportError:
        raise HaError(
            "this Python has no libvirt: install libvirt-python (Debian: python3-libvirt) on the host that runs"
            " this, or set ansible_python_interpreter to one that has it"
        ) from None
    return libvirt
