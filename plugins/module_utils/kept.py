# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What outlives one run of a step, in memory only: a cloud's token, so that a dead guest does not wait for a login.

A login costs Keystone 0.2 s (bcrypt, by its default strength). A warm process (plugin_utils/warm) calls :func:`share` before it
forks: its runs then have one memory together. Anywhere else each process has its own, and nothing is kept longer than it.

Nothing depends on it: what is gone, half written by a run that was killed, or overwritten by another is simply not there.
"""

from __future__ import annotations

import hashlib
import mmap

# A token's answer holds the cloud's catalog; pages that are not written to cost nothing.
LARGEST = 256 * 1024
SLOTS = 4
_HEAD = 32 + 32 + 4  # the name's digest, the content's, its length

_memory: mmap.mmap | bytearray | None = None


def share() -> None:
    """Keep things in memory that processes forked from this one share. Once, before the first fork."""
    global _memory
    if not isinstance(_memory, mmap.mmap):
        _memory = mmap.mmap(-1, SLOTS * LARGEST)


def put(name: bytes, content: bytes) -> None:
    """Keep `content` under `name`; one that is too large is not kept."""
    global _memory
    if len(content) > LARGEST - _HEAD:
        return
    if _memory is None:
        _memory = bytearray(SLOTS * LARGEST)
    key = hashlib.sha256(name).digest()
    begin = _slot(key)
    head = key + hashlib.sha256(content).digest() + len(content).to_bytes(4, "big")
    # The head last: until then the old one's digest does not fit what is there.
    _memory[begin + _HEAD : begin + _HEAD + len(content)] = content
    _memory[begin : begin + _HEAD] = head


def get(name: bytes) -> bytes | None:
    """Return what was kept last under `name`, whole, or None."""
    if _memory is None:
        return None
    key = hashlib.sha256(name).digest()
    begin = _slot(key)
    head = bytes(_memory[begin : begin + _HEAD])
    length = int.from_bytes(head[64:], "big")
    if head[:32] != key or length > LARGEST - _HEAD:
        return None
    content = bytes(_memory[begin + _HEAD : begin + _HEAD + length])
    return content if hashlib.sha256(content).digest() == head[32:64] else None


def _slot(key: bytes) -> int:
    return key[0] % SLOTS * LARGEST
