# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step that writes one resource returns: the same keys for every kind."""

from __future__ import annotations

from collections.abc import Callable


def written(
    key: str,
    changed: bool,
    action: str,
    before: dict | None,
    after: dict | None,
    message: str,
    show: Callable[[dict], dict],
) -> dict:
    """Return a step's result.

    :param key: the name under which the resource as it is now is returned, such as ``eviction``.
    :param action: created, updated, deleted, unchanged or skipped.
    :param show: makes of a resource what the step may have changed of it, for the diff.
    """
    return {
        "changed": changed,
        "action": action,
        "msg": message,
        key: after or {},
        "diff": {"before": show(before) if before else {}, "after": show(after) if after else {}},
    }
