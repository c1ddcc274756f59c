# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's oracle judges what the guests wrote, and which QEMUs ran, rightly."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.lab import guest, oracle
from tests.lab.guest import Counters
from tests.lab.oracle import Oracle, Process, Watch

SERVER = "0ebbc390-82b5-44ca-809b-8b923e3353f2"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(oracle.time, "time", lambda: clock.now)
    return clock


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    lab = SimpleNamespace(computes="libvirt", hosts={}, directory=tmp_path, nova=SimpleNamespace(store=tmp_path))
    return Oracle(lab).watch()


@pytest.fixture
def see(watch: Watch, clock: SimpleNamespace) -> Callable[..., None]:
    """Let a second pass, write the counters as the guest does, let the sampler look."""

    def see(*counters: int, new_disk: bool = False, seconds: float = 1) -> None:
        clock.now += seconds
        disk = watch.oracle.store / SERVER / "disk"
        disk.parent.mkdir(exist_ok=True)
        boots, ticks, total = counters
        data = bytes(512) + (b"NOVATEST" + struct.pack("<III", ticks, boots, total)).ljust(512, b"\0")
        if new_disk:
            disk.rename(disk.with_suffix(".old"))
        with open(disk, "r+b" if disk.exists() else "wb") as file:
            file.write(data)
        watch._sample_disk(SERVER)

    return see


def test_a_disk_nobody_wrote_has_no_counters() -> None:
    assert guest.parse_sector(bytes(512)) is None
    assert guest.parse_sector(b"NOVATEST" + struct.pack("<III", 7, 2, 30) + bytes(492)) == Counters(2, 7, 30)


def test_a_restart_is_one_more_boot_and_no_second_writer(watch: Watch, see: Callable[..., None]) -> None:
    see(1, 1, 1)
    see(1, 2, 2)
    see(2, 1, 3, seconds=2)
    see(2, 2, 4)
    assert [(each.at, each.boots) for each in watch.boots(SERVER)] == [(1001.0, 1), (1004.0, 2)]
    assert watch.gaps(SERVER) == []
    assert watch.two_writers() == []


@pytest.mark.parametrize(
    "second",
    [
        pytest.param((1, 3, 3), id="boots go back: the first guest lives on"),
        pytest.param((2, 1, 3), id="ticks go back: both read the same number of boots"),
    ],
)
def test_counters_that_go_back_are_two_writers(
    watch: Watch, see: Callable[..., None], second: tuple[int, int, int]
) -> None:
    see(1, 2, 2)
    see(2, 3, 4)
    assert watch.two_writers() == []
    see(*second)
    (seen,) = watch.two_writers()
    assert (seen.server, seen.at) == (SERVER, 1003.0)
    assert seen.how == f"counters went from (2, 3, 4) back to {second}"


def test_another_disk_may_begin_anew(watch: Watch, see: Callable[..., None]) -> None:
    see(3, 9, 30)
    see(1, 1, 1, new_disk=True)
    assert watch.two_writers() == []
    assert [each.boots for each in watch.boots(SERVER)] == [3, 1]


def test_of_two_copies_the_one_counts_that_has_come_further(
    watch: Watch, see: Callable[..., None], tmp_path: Path
) -> None:
    """As in a block migration: the source's copy stands still when the destination's goes on."""
    watch.oracle.lab.hosts["cmp01"] = SimpleNamespace(directory=tmp_path / "cmp01", name="cmp01", pid=0)
    see(2, 5, 9)
    own = tmp_path / "cmp01/var/lib/nova/instances" / SERVER / "disk"
    own.parent.mkdir(parents=True)
    shutil.copy(watch.oracle.store / SERVER / "disk", own)
    assert watch.oracle.copies(SERVER) == {"store": Counters(2, 5, 9), "cmp01": Counters(2, 5, 9)}
    see(2, 6, 10)
    assert watch.oracle.counters(SERVER) == Counters(2, 6, 10)
    (watch.oracle.store / SERVER / "disk").unlink()
    watch._sample_disk(SERVER)
    assert watch.oracle.counters(SERVER) == Counters(2, 5, 9)
    assert SERVER in watch.oracle.servers()
    assert watch.two_writers() == []


def test_gaps_are_told_while_they_last_and_after(
    watch: Watch, see: Callable[..., None], clock: SimpleNamespace
) -> None:
    see(1, 1, 1)
    clock.now += 2.4
    watch._sample_disk(SERVER)
    assert watch.gaps(SERVER) == []
    clock.now += 0.2
    assert [(each.start, each.end) for each in watch.gaps(SERVER)] == [(1001.0, None)]
    see(1, 2, 2, seconds=1.4)
    assert [(each.start, each.end, each.seconds) for each in watch.gaps(SERVER)] == [(1001.0, 1005.0, 4.0)]


class Processors:
    """Two QEMUs of one server; `run` lets some of them use the processor between two looks."""

    def __init__(self, watch: Watch, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.watch, self.clock = watch, clock
        self.slices = {11: 5, 22: 5}
        processes = [Process(SERVER, "cmp01", 11), Process(SERVER, "cmp02", 22)]
        monkeypatch.setattr(watch.oracle, "guests", lambda: processes)
        monkeypatch.setattr(oracle, "_time_slices", self.slices.__getitem__)
        monkeypatch.setattr(oracle, "_stopped", lambda pid: False)
        self.run()

    def run(self, *pids: int) -> None:
        self.clock.now += 0.1
        for pid in pids:
            self.slices[pid] += 2
        self.watch._sample()
        self.watch.samples += 1


def test_a_live_migration_is_no_second_writer(
    watch: Watch, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    processors = Processors(watch, clock, monkeypatch)
    for _ in range(20):
        processors.run(11)
    assert watch.hosts() == {SERVER: {"cmp01": "running", "cmp02": "paused"}}
    processors.run(11, 22)  # the source's last slice and the destination's first fall into one look
    for _ in range(20):
        processors.run(22)
    assert watch.two_writers() == []
    assert watch.hosts() == {SERVER: {"cmp01": "paused", "cmp02": "running"}}


def test_two_qemus_that_run_are_two_writers(
    watch: Watch, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    processors = Processors(watch, clock, monkeypatch)
    for look in range(9):
        processors.run(*([11, 22] if look % 2 == 0 else [11]))
    (seen,) = watch.two_writers()
    assert seen.how == "runs at once on cmp01 (QEMU 11), cmp02 (QEMU 22)"
