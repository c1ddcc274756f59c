# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that Nova calls ERROR though their guests run: what a live migration leaves that was aborted, or came too late."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova


def falsely_in_error(nova: Nova, server: str, there: Callable[[str | None], bool]) -> bool:
    """Whether a server may be reset to active: it is in ERROR, at rest and its guest runs.

    A guest that is dead, or of which nobody knows, is not: ERROR is what is to be seen.

    :param there: whether a host is one on which it is looked for.
    :raises NovaError: as Nova says.
    """
    facts = nova.server(server)
    if facts is None or facts.vm_state != "error" or facts.task_state or not there(facts.host):
        return False
    return bool(nova.is_running(server))
