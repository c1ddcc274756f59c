# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps users' hands off a server while it is moved, and tells them why (Nova's lock with a reason).

Nova itself is the memory: a lock whose reason begins with ours is ours, whoever took it, and is given back before the
server's entry is finished. So a step that was killed leaves nothing that the next one does not find.

A lock of somebody else's is left as it is, and does not keep us from working: it protects a server from its users' own
mistakes, not from being saved, and Nova lets administrators act on it. A restart in place takes no lock: it is over in
a second, and Nova's own task keeps others out.
"""

from __future__ import annotations

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.evict_choice import LOCK_PREFIX, locked_by_us
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.limits import MOVE
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import ServerFacts
from ansible_collections.c5c3.ha.plugins.module_utils.nova import Nova, NovaError, NovaNotFound

# Not an evacuation: Nova's task keeps users out from the first moment, and two more calls a server would make a dead
# host's servers wait.
_LOCKED = MOVE - {"Evacuate"}


class Locks:
    """The locks of one Eviction.

    :param name: the Eviction's name, told in the reason.
    """

    def __init__(self, nova: Nova, name: str) -> None:
        self.nova = nova
        self.reason = f"{LOCK_PREFIX}being moved by Eviction {name}"
        self.held: set[str] = set()

    def hold(self, act: str | None, server: ServerFacts | None) -> None:
        """Lock a server before it is moved. Only at rest: a lock taken while Nova writes the server can undo its writing.

        A lock that Nova refuses is gone without: the move matters more.
        """
        if act not in _LOCKED or server is None or server.locked or server.task_state:
            return
        try:
            self.nova.lock(server.id, self.reason)
        except NovaError:
            return
        self.held.add(server.id)

    def give_back(self, server: ServerFacts | None) -> str:
        """Unlock a server whose lock is ours; return why it could not be, or nothing."""
        if server is None or not locked_by_us(server):
            return ""
        try:
            self.nova.unlock(server.id)
        except NovaNotFound:
            pass
        except NovaError as error:
            return str(error)
        self.held.discard(server.id)
        return ""

    def give_back_blindly(self, server: str) -> str:
        """The same for one of which nothing new is known; whatever fails is let be."""
        try:
            return self.give_back(self.nova.server(server))
        except NovaError as error:
            return str(error)
