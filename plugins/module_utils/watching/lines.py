# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A byte stream cut into lines, with a limit that costs one line and not the stream. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

# etcd takes 1.5 MiB by default; several times that still is no reason to lose the stream.
LONGEST_LINE = 32 * 1024 * 1024


class LineSplitter:
    """Joins chunks and yields whole lines without their newline; a line over `limit` bytes is dropped and counted."""

    def __init__(self, limit: int = LONGEST_LINE) -> None:
        self.limit = limit
        self.dropped = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield each line that `chunk` completes."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            self._append(piece)
            if self._dropping:
                self.dropped += 1
            elif self._size:
                yield b"".join(self._parts)
            self._parts, self._size, self._dropping = [], 0, False
        self._append(rest)

    def _append(self, piece: bytes) -> None:
        if self._dropping or not piece:
            return
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > self.limit:
            self._parts, self._size, self._dropping = [], 0, True
