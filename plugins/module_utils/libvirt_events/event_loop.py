# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's callbacks on asyncio's loop, and libvirt's blocking calls off it.

libvirtaio is made for one thread. Here blocking calls run in other threads, and libvirt adds, changes and removes its
handles and timers from whichever thread it runs in. :class:`EventLoop` therefore hands timers over to the loop (a timer
set from another thread would not wake it), and locks the handles (they must be gone when libvirt closes the descriptor,
so they cannot be handed over).
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

try:
    import libvirtaio
except ImportError:  # the source's main tells it; ansible-test imports this file without the library
    libvirtaio = None  # type: ignore[assignment]

_Implementation: Any = libvirtaio.virEventAsyncIOImpl if libvirtaio else object


class EventLoop(_Implementation):
    """libvirtaio's implementation, callable from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.owner = threading.get_ident()
        self._handles = threading.RLock()

    def _on_loop(self, function: Callable[..., Any], *arguments: Any) -> None:
        if threading.get_ident() == self.owner:
            function(*arguments)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *arguments)

    # libvirt's functions for handles

    def _add_handle(self, *arguments: Any) -> int:
        with self._handles:
            return super()._add_handle(*arguments)

    def _update_handle(self, *arguments: Any) -> None:
        with self._handles:
            super()._update_handle(*arguments)

    def _remove_handle(self, watch: int) -> int:
        with self._handles:
            return super()._remove_handle(watch)

    # libvirt's functions for timers

    def _add_timeout(self, timeout: int, cb: Any, opaque: Any) -> int:
        timer = libvirtaio.TimeoutCallback(self, cb, opaque)
        self.callbacks[timer.iden] = timer
        self._pending_inc()
        self._update_timeout(timer.iden, timeout)
        return timer.iden

    def _update_timeout(self, timer: int, timeout: int) -> None:
        callback = self.callbacks.get(timer)
        if callback is not None:
            # what is wanted is noted at once, so that requests of several threads cannot overtake each other
            callback.wanted = timeout
            self._on_loop(self._apply_timeout, timer)

    def _apply_timeout(self, timer: int) -> None:
        callback = self.callbacks.get(timer)
        if callback is not None:
            callback.update(timeout=callback.wanted)

    def _remove_timeout(self, timer: int) -> int:
        callback = self.callbacks.pop(timer, None)
        if callback is None:
            return -1
        self._on_loop(callback.close)
        return 0

    def schedule_ff_callback(self, iden: int, opaque: Any) -> None:
        """Free what libvirt gave us, later and on the loop, as libvirt demands."""
        self._on_loop(super().schedule_ff_callback, iden, opaque)


_installed: EventLoop | None = None


def install() -> None:
    """Make libvirt use the running loop. To be called before the first connection; again does nothing.

    libvirt takes one implementation per process and keeps it: on a later loop (tests) the one installed moves over.
    """
    global _installed
    loop = asyncio.get_running_loop()
    if _installed is None:
        _installed = EventLoop(loop).register()
    elif _installed.loop is not loop:
        _installed.loop, _installed.owner = loop, threading.get_ident()


def is_loop_thread() -> bool:
    """Whether this thread runs the loop that :func:`install` was called on."""
    return _installed is not None and threading.get_ident() == _installed.owner


_numbers = itertools.count(1)


async def call(
    function: Callable[..., Any], *arguments: Any, deadline: float, late: Callable[[Any], Any] | None = None
) -> Any:
    """Run a blocking libvirt call in a thread of its own, and give up waiting after a deadline.

    The threads are daemons: one that a hung libvirtd holds for ever does not hold the process, as a pool's would.

    :param deadline: seconds.
    :param late: takes the result of a call that ended after everybody had given up on it (runs in its thread).
    :raises TimeoutError: the call goes on in its thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> bool:
        if done.done():
            return False
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)
        return True

    def run() -> None:
        result, error = None, None
        try:
            result = function(*arguments)
        except BaseException as exception:  # pylint: disable=broad-except  # handed to the caller
            error = exception

        def deliver() -> None:
            if not settle(result, error) and error is None and late is not None:
                threading.Thread(target=late, args=(result,), daemon=True).start()

        try:
            loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the loop is closed, the process ends
            pass

    threading.Thread(target=run, name=f"libvirt-call-{next(_numbers)}", daemon=True).start()
    try:
        async with asyncio.timeout(deadline):
            return await done
    except TimeoutError:
        raise TimeoutError(f"no answer within {deadline:g} s") from None
