# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's migration job as libvirt tells it, sample by sample, over a connection that only reads.

libvirt's calls have no time limit of their own, so they run in a thread beside the caller, who goes away when nothing
comes for too long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.c5c3.ha.plugins.module_utils.domain import EventLoop, Watched
from ansible_collections.c5c3.ha.plugins.module_utils.errors import LibvirtError
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_binding import binding

# virDomainJobOperation, virDomainJobType
_IN, _OUT = 4, 5
_ACTIVE = (1, 2)
_COMPLETED, _KEEP = 1, 2
_NO_DOMAIN, _INVALID_STATE = 42, 55
# What a libvirtd that lives needs at most for one answer; a migration's own answer may wait for its QEMU.
_SILENCE = 30.0
# How long libvirt may need to tell of the job after the domain has left.
_AFTER = 2.0


class Sample(NamedTuple):
    """What was seen.

    :ivar kind: ``progress``; or the last one: ``left`` (moved away), ``failed`` (it stays), ``arrived`` (it came here), ``none``.
    :ivar job: libvirt's statistics.
    """

    kind: str
    job: dict[str, Any]


class JobWatch:
    """Samples of the migration of one domain.

    :param interval: seconds between two samples.
    :param begun: that the migration was seen to begin here, so that one which is not on its way any more is over.
    """

    def __init__(self, uri: str, uuid: str, interval: float, libvirt: Any = None, begun: bool = False) -> None:
        self.uri, self.uuid, self.interval, self.begun = uri, uuid, interval, begun
        self._libvirt = libvirt
        self._samples: queue.Queue[Sample | BaseException] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._completed: dict[str, Any] | None = None

    def samples(self) -> Iterator[Sample]:
        """Yield samples until the migration is over; the last one's kind is not ``progress``.

        :raises LibvirtError: libvirt failed or does not answer.
        """
        if self._libvirt is None:
            self._libvirt = binding()
        threading.Thread(target=self._body, name="libvirt calls", daemon=True).start()
        try:
            while True:
                try:
                    sample = self._samples.get(timeout=self.interval + _SILENCE)
                except queue.Empty:
                    raise LibvirtError(
                        f"domain {self.uuid} at {self.uri}: libvirt did not answer within {self.interval + _SILENCE:g} s:"
                        " look whether libvirtd hangs (virsh version), and restart it"
                    ) from None
                if isinstance(sample, BaseException):
                    raise sample
                yield sample
                if sample.kind != "progress":
                    return
        finally:
            self._stopped.set()

    # -- in the thread --

    def _put(self, sample: Sample | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                self._samples.put(sample, timeout=1.0)
                return
            except queue.Full:
                continue  # the API server is slow; what comes next is newer

    def _body(self) -> None:
        libvirt = self._libvirt
        loop = connection = None
        try:
            libvirt.registerErrorHandler(lambda context, error: None, None)
            loop = EventLoop(libvirt)
            connection = libvirt.openReadOnly(self.uri)
            for sample in self._watch(connection):
                self._put(sample)
                if self._stopped.is_set():
                    break
        except libvirt.libvirtError as error:
            self._put(LibvirtError(f"domain {self.uuid} at {self.uri}: {error.get_error_message() or error}"))
        except BaseException as error:  # handed to the caller
            self._put(error)
        finally:
            try:
                if connection is not None:
                    connection.close()
            except libvirt.libvirtError:
                pass  # what matters is known already
            if loop is not None:
                loop.stop()

    def _watch(self, connection: Any) -> Iterator[Sample]:
        libvirt = self._libvirt
        watched = Watched()

        def completed(_connection: Any, _domain: Any, job: dict, _opaque: Any) -> None:
            if job.get("operation") == _OUT:
                self._completed = dict(job)
            watched.add("JOB_COMPLETED")

        def lifecycle(_connection: Any, _domain: Any, event: int, _detail: int, _opaque: Any) -> None:
            watched.add("LIFECYCLE")

        try:
            domain = connection.lookupByUUIDString(self.uuid)
            register = connection.domainEventRegisterAny
            register(domain, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, completed, None)
            register(domain, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
        except libvirt.libvirtError as error:
            if error.get_error_code() != _NO_DOMAIN:
                raise
            yield Sample("left" if self.begun else "none", {})
            return
        last: dict[str, Any] | None = None
        while True:
            mark = watched.mark()
            job = self._job(domain)
            if job is not None and job.get("type") in _ACTIVE and job.get("operation") == _OUT:
                last = job
                yield Sample("progress", job)
                self._pause(watched, mark)
                continue
            yield self._last(domain, job, last, watched)
            return

    def _pause(self, watched: Watched, mark: int) -> None:
        """Until the next sample is due; sooner where the job is over."""
        end = time.monotonic() + self.interval
        while (left := end - time.monotonic()) > 0 and self._completed is None:
            watched.wait(mark, left)
            mark = watched.mark()

    def _last(self, domain: Any, job: dict | None, last: dict | None, watched: Watched) -> Sample:
        """The migration is over, or there was none."""
        if job is None and last is not None:
            end = time.monotonic() + _AFTER
            while self._completed is None and (left := end - time.monotonic()) > 0:
                watched.wait(watched.mark(), left)
        if self._completed is not None:
            return Sample("left", self._completed)
        if job is None:
            return Sample("left", last or {}) if last is not None or self.begun else Sample("none", {})
        if last is not None:
            return Sample("failed", last)
        done = self._job(domain, _COMPLETED | _KEEP)
        if done and done.get("operation") == _IN:
            return Sample("arrived", done)
        return Sample("failed" if self.begun else "none", {})

    def _job(self, domain: Any, flags: int = 0) -> dict | None:
        """Statistics of the job; None when the domain does not run here."""
        try:
            return domain.jobStats(flags)
        except self._libvirt.libvirtError as error:
            if error.get_error_code() in (_NO_DOMAIN, _INVALID_STATE):
                return None
            if error.get_error_code() == self._libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
                return {"type": 0}  # it is just arriving
            raise
