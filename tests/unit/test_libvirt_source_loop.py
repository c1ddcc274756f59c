"""The source c5c3.ha.libvirt on libvirt's own test driver, and its loop when libvirt misbehaves."""

from __future__ import annotations

import asyncio
import logging
import runpy
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt")

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import (
    connection as connection_module,
)
from ansible_collections.c5c3.ha.plugins.module_utils.libvirt_events import (
    event_loop,
    options,
    source,
)

SOURCE = Path(__file__).resolve().parents[2] / "extensions/eda/plugins/event_source/libvirt.py"
URI = "test:///default"
QUICK = {"uri": URI, "heartbeat_seconds": 1, "backoff_min": 0.05, "backoff_max": 0.05, "call_timeout": 0.5}
Event = dict[str, Any]


class Running:
    """The source as ansible-rulebook runs it."""

    def __init__(self, **arguments: Any) -> None:
        self.queue: asyncio.Queue[Event] = asyncio.Queue(1)
        self.events: list[Event] = []
        self.task = asyncio.create_task(source.run(self.queue, options.parse({**QUICK, **arguments})))
        self.taker = asyncio.create_task(self.take())

    async def take(self) -> None:
        while True:
            self.events.append(await self.queue.get())

    async def until(self, condition: Callable[[], object], seconds: float = 8) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                assert not self.task.done(), "the source ended"
                await asyncio.sleep(0.01)

    def of(self, **fields: Any) -> list[Event]:
        return [event for event in self.events if all(event.get(key) == value for key, value in fields.items())]

    async def stop(self) -> None:
        self.task.cancel()
        self.taker.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(self.task, self.taker, return_exceptions=True)


@pytest.fixture
async def run() -> AsyncIterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(**arguments: Any) -> Running:
        running.append(Running(**arguments))
        return running[-1]

    yield start
    for each in running:
        await each.stop()


async def test_events_of_the_test_driver(run: Callable[..., Running]) -> None:
    watched = run()
    await watched.until(lambda: watched.of(event="connection", connected=True))
    other = await event_loop.call(libvirt.open, URI, deadline=5)
    domain = await event_loop.call(other.lookupByName, "test", deadline=5)
    await event_loop.call(domain.suspend, deadline=5)
    await event_loop.call(domain.resume, deadline=5)
    await watched.until(lambda: watched.of(event="lifecycle", action="RESUMED"))
    assert watched.of(action="SUSPENDED")[0]["domain"] == "test"
    await event_loop.call(other.close, deadline=5)


async def test_hung_open_leaves_the_loop_free_and_its_threads_bounded(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    opened: list[Any] = []

    def hang(uri: str) -> Any:
        release.wait(20)
        opened.append(real(uri))
        return opened[-1]

    real = libvirt.openReadOnly
    monkeypatch.setattr(connection_module.libvirt, "openReadOnly", hang)
    watched = run()
    started = time.monotonic()
    await watched.until(lambda: len(watched.of(event="heartbeat", connected=False)) >= 3)
    assert time.monotonic() - started < 5
    calls = [thread for thread in threading.enumerate() if thread.name.startswith("libvirt-call")]
    assert len(calls) <= 3
    assert len(watched.of(event="connection")) == 1, "told once that it is not connected"
    release.set()
    await watched.until(lambda: watched.of(event="connection", connected=True))


async def test_libvirt_that_answers_no_question_keeps_its_connection(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = run()
    await watched.until(lambda: watched.of(event="heartbeat", connected=True))
    release = threading.Event()
    real = connection_module._list
    monkeypatch.setattr(connection_module, "_list", lambda link: release.wait(20) and real(link))
    await watched.until(lambda: len(watched.of(event="heartbeat", connected=False)) >= 2)
    assert len(watched.of(event="connection")) == 1
    assert "is connected but does not answer" in caplog.text
    release.set()
    heartbeats = len(watched.of(event="heartbeat", connected=True))
    await watched.until(lambda: len(watched.of(event="heartbeat", connected=True)) > heartbeats)


async def test_lost_connection_is_told_and_made_anew(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Callable[..., None]] = []
    monkeypatch.setattr(
        libvirt.virConnect, "registerCloseCallback", lambda _self, callback, _opaque: closed.append(callback)
    )
    monkeypatch.setattr(libvirt.virConnect, "unregisterCloseCallback", lambda _self: None)
    watched = run()
    await watched.until(lambda: watched.of(event="connection", connected=True))
    closed[0](None, libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE, None)
    await watched.until(lambda: len(watched.of(event="connection", connected=True)) == 2)
    assert watched.of(event="connection", connected=False)[0]["reason"] == "no answer to keepalive"


async def test_events_that_libvirt_lacks_are_skipped_and_told(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(libvirt, "VIR_DOMAIN_EVENT_ID_MEMORY_FAILURE")
    watched = run()
    with caplog.at_level(logging.WARNING):
        await watched.until(lambda: watched.of(event="connection", connected=True))
    assert "VIR_DOMAIN_EVENT_ID_MEMORY_FAILURE (this libvirt-python does not know it)" in caplog.text


async def test_error_of_ours_does_not_end_the_source(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = connection_module.Connection._open
    failures = iter((RuntimeError("broken"), ZeroDivisionError(), None))

    async def fail(self: Any) -> Any:
        if error := next(failures, None):
            raise error
        return await real(self)

    monkeypatch.setattr(connection_module.Connection, "_open", fail)
    watched = run()
    await watched.until(lambda: watched.of(event="connection", connected=True))
    assert watched.of(event="connection", connected=False)[0]["reason"] == "cannot connect: broken"


async def test_one_uri_that_cannot_be_reached_does_not_hold_the_other(run: Callable[..., Running]) -> None:
    nowhere = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
    watched = run(uri=None, uris=[nowhere, URI])
    await watched.until(lambda: watched.of(uri=URI, connected=True))
    await watched.until(lambda: watched.of(uri=nowhere, event="connection", connected=False))


async def test_damaged_state_file_is_told_and_replaced(
    run: Callable[..., Running], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_text("{")
    watched = run(state_path=str(path))
    await watched.until(lambda: path.read_text() != "{")
    assert f"cannot use {path}" in caplog.text


async def test_state_that_cannot_be_written_is_told_once(
    run: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    watched = run(state_path="/nonexistent/state.json")
    await watched.until(lambda: len(watched.of(event="heartbeat")) > 2)
    assert caplog.text.count("cannot write /nonexistent/state.json") == 1


async def test_cancelling_closes_the_connection(run: Callable[..., Running]) -> None:
    watched = run()
    await watched.until(lambda: watched.of(event="connection", connected=True))
    await watched.stop()
    assert watched.task.cancelled()
    assert event_loop._installed is not None
    assert not event_loop._installed.callbacks


async def test_main_refuses_wrong_options_at_once() -> None:
    main = runpy.run_path(str(SOURCE))["main"]
    assert asyncio.iscoroutinefunction(main)
    with pytest.raises(ArgumentError, match="has no option 'urk'"):
        await asyncio.wait_for(main(asyncio.Queue(1), {"urk": "x"}), 5)


def test_documentation_names_every_option() -> None:
    yaml = pytest.importorskip("yaml")
    documentation = yaml.safe_load(runpy.run_path(str(SOURCE))["DOCUMENTATION"])
    assert sorted(documentation["options"]) == sorted(options.NAMES)
    defaults = options.Options()
    for name, option in documentation["options"].items():
        if "default" in option and name not in ("uri",):
            assert option["default"] == getattr(defaults, name), name


async def test_late_result_of_a_call_is_handed_over() -> None:
    handed: list[str] = []
    done = threading.Event()  # set in another thread

    def slow() -> str:
        time.sleep(0.2)
        return "late"

    with pytest.raises(TimeoutError, match="no answer within"):
        await event_loop.call(slow, deadline=0.05, late=lambda result: (handed.append(result), done.set()))
    assert await asyncio.to_thread(done.wait, 5)
    assert handed == ["late"]


async def test_timers_set_by_other_threads_wake_the_loop() -> None:
    """libvirtaio alone lets such a timer wait for the loop's next event."""
    event_loop.install()
    impl = event_loop._installed
    fired = asyncio.Event()
    identity = await event_loop.call(
        lambda: impl._add_timeout(-1, lambda _timer, _opaque: fired.set(), None), deadline=5
    )
    thread = threading.Timer(0.1, impl._update_timeout, (identity, 0))
    thread.start()
    started = time.monotonic()
    await asyncio.wait_for(fired.wait(), 5)
    assert time.monotonic() - started < 1
    impl._update_timeout(identity, -1)
    impl.callbacks.pop(identity).update(timeout=-1)
    impl._pending_dec()
