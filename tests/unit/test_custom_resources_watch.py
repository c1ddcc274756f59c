# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watch engine against a scripted API server (kmock): list, watch, bookmarks, 410, faults, Lease, busy queue."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import jsonschema
import pytest
from kmock import KubernetesError

from ansible_collections.c5c3.ha.plugins.module_utils.watching import engine as engine_module
from ansible_collections.c5c3.ha.plugins.module_utils.watching import lease as lease_module
from ansible_collections.c5c3.ha.plugins.module_utils.watching import watcher as watcher_module
from ansible_collections.c5c3.ha.plugins.module_utils.watching.credentials import Credentials
from ansible_collections.c5c3.ha.plugins.module_utils.watching.custom_resources import follow, render
from ansible_collections.c5c3.ha.plugins.module_utils.watching.engine import Engine
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import parse
from ansible_collections.c5c3.ha.plugins.module_utils.watching.session import refusal

pytestmark = pytest.mark.timeout(20)

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "extensions/eda/schemas/custom_resource_event.schema.json").read_text()
)
PATH = "/apis/hypervisor.c5c3.io/v1/evictions"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
# kmock sends the headers with the first byte; an API server sends them at once.
OPEN = (b"\n", lambda: asyncio.sleep(60))
DONE = {"conditions": [{"type": "Evicting", "status": "False", "reason": "Succeeded"}]}


def obj(name, version, uid=None, status=None, **metadata):
    made = {"metadata": {"name": name, "resourceVersion": str(version), "uid": uid or f"uid-{name}", **metadata}}
    if status is not None:
        made["status"] = status
    return made


def ev(kind, thing):
    return {"type": kind, "object": thing}


def bookmark(version):
    return ev("BOOKMARK", {"kind": "Eviction", "metadata": {"resourceVersion": str(version)}})


def error(code):
    return ev("ERROR", {"kind": "Status", "code": code, "reason": "Expired", "message": "too old resource version"})


def listing(version, *items, **metadata):
    return {"kind": "EvictionList", "metadata": {"resourceVersion": str(version), **metadata}, "items": list(items)}


class Api:
    """Answers lists and watches from scripts; the last list answer is repeated, a watch beyond the script stays open."""

    def __init__(self, kmock):
        self.kmock = kmock
        self.lists, self.watches = [listing(1)], []
        self.lease = None
        self.lease_fault = None
        self.writes = []
        kmock[f"get {PATH}"] << self._get
        kmock[f"get {LEASE}/ha"] << self._get_lease
        kmock[f"put {LEASE}/ha"] << self._put_lease
        kmock[f"post {LEASE}"] << self._put_lease

    def _get(self, request):
        if "watch" in request.params:
            return self.watches.pop(0) if self.watches else OPEN
        return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]

    def _get_lease(self, _request):
        if self.lease_fault:
            return self.lease_fault
        if self.lease is None:
            return KubernetesError(status=404, reason="NotFound", message="none", details={"name": "ha"})
        return self.lease

    def _put_lease(self, request):
        if self.lease_fault:
            return self.lease_fault
        new = request.data
        old = (self.lease or {}).get("metadata", {}).get("resourceVersion")
        if new["metadata"].get("resourceVersion") != old:
            return KubernetesError(status=409, reason="Conflict", message="changed")
        new["metadata"].update(uid="u", resourceVersion=str(int(old or 0) + 1))
        self.writes.append(new["spec"])
        self.lease = new
        return new

    def take(self, identity):
        """Let somebody else hold the Lease for a minute."""
        number = str(int(self.lease["metadata"]["resourceVersion"]) + 1)
        spec = {**self.lease["spec"], "holderIdentity": identity, "renewTime": "z", "leaseDurationSeconds": 60}
        self.lease = {**self.lease, "metadata": {**self.lease["metadata"], "resourceVersion": number}, "spec": spec}

    def asked(self, *names):
        """Parameters of the requests so far: a watch as its resourceVersion, a list as None."""
        names = names or ("resourceVersion",)
        rows = [tuple(request.params.get(name) for name in names) for request in self.kmock[f"get {PATH}"]]
        return [row[0] for row in rows] if len(names) == 1 else rows


@pytest.fixture()
def api(kmock):
    return Api(kmock)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watcher_module, "_SETTLE", 0.05)
    monkeypatch.setattr(watcher_module, "_GRACE", 0.3)


class Daemon:
    """An engine with its queue, as ansible-rulebook runs it (the queue holds one event)."""

    def __init__(self, url, clock=engine_module.boot_clock, **args):
        self.queue = asyncio.Queue(1)
        options = parse({"host": str(url).rstrip("/"), "request_timeout": 1, "resync_seconds": 0, **args})
        self.engine = Engine(options, follow, render, Credentials(options.auth, {}), clock)
        self.task = asyncio.create_task(self.engine.run(self.queue))

    async def next(self, seconds=15.0):
        assert not self.task.done(), self.task
        event = await asyncio.wait_for(self.queue.get(), seconds)
        jsonschema.validate(json.loads(json.dumps(event)), SCHEMA)
        return event

    async def told(self, count, seconds=15.0):
        events = [await self.next(seconds) for _ in range(count)]
        return [
            (e["type"], e["name"], e["resource_version"]) if "name" in e else (e["type"], e["count"]) for e in events
        ]

    async def silent(self, seconds=0.4):
        with pytest.raises(TimeoutError):
            event = await self.next(seconds)
            pytest.fail(f"unexpected {event}")

    async def stop(self):
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


@pytest.fixture()
async def daemon(kmock):
    daemons = []

    def start(**args):
        daemons.append(Daemon(kmock.url, **args))
        return daemons[-1]

    yield start
    for one in daemons:
        if not one.task.done():
            await one.stop()


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


# --- list and watch -----------------------------------------------------------------------------------------------


async def test_list_watch_bookmark_and_410_as_event(api, daemon):
    api.lists = [listing(10, obj("a", 5)), listing(30, obj("a", 11), obj("c", 25))]
    api.watches = [
        (ev("MODIFIED", obj("a", 11)), bookmark(20)),
        (ev("ADDED", obj("b", 21)), error(410)),
        (ev("DELETED", obj("c", 31)),),
    ]
    one = daemon()
    assert await one.told(7) == [
        ("ADDED", "a", "5"),
        ("INIT_DONE", 1),
        ("MODIFIED", "a", "11"),
        ("ADDED", "b", "21"),
        ("DELETED", "b", "21"),  # not in the second list
        ("ADDED", "c", "25"),
        ("DELETED", "c", "31"),
    ]
    await one.silent()
    assert api.asked()[:5] == [None, "10", "20", None, "30"]
    assert api.asked("watch", "allowWatchBookmarks", "timeoutSeconds")[1] == ("true", "true", "45")


async def test_410_as_http_status_lists_again(api, daemon):
    api.lists = [listing(10, obj("a", 5)), listing(30, obj("a", 29))]
    api.watches = [KubernetesError(status=410, reason="Expired", message="too old")]
    one = daemon()
    assert await one.told(3) == [("ADDED", "a", "5"), ("INIT_DONE", 1), ("MODIFIED", "a", "29")]
    await until(lambda: api.asked()[:4] == [None, "10", None, "30"])


async def test_410_again_and_again_is_not_a_busy_loop(api, daemon):
    api.watches = [(error(410),) for _ in range(1000)]
    one = daemon()
    assert await one.told(1) == [("INIT_DONE", 0)]
    await asyncio.sleep(1.0)
    assert 4 < len(api.asked()) < 20


async def test_a_watch_that_ends_at_once_is_not_a_busy_loop(api, daemon):
    api.watches = [(b"\n",) for _ in range(1000)]
    daemon()
    await asyncio.sleep(1.0)
    assert 3 < len(api.asked()) < 15


async def test_events_in_one_chunk_and_objects_in_pieces(api, daemon):
    lines = [json.dumps(ev("ADDED", obj(name, n))).encode() + b"\n" for n, name in enumerate("abcdef", 2)]
    lines.append(json.dumps(ev("ADDED", {**obj("big", 9), "spec": {"x": "y" * 6_000_000}})).encode() + b"\n")
    data = b"".join(lines)
    api.watches = [(data[:50], data[50:700], data[700:3_000_000], data[3_000_000:], lambda: asyncio.sleep(60))]
    one = daemon()
    told = await one.told(8)
    assert [row[1] for row in told[1:]] == [*"abcdef", "big"]


async def test_pages_of_a_long_list_are_joined(api, daemon):
    pages = [listing(10, obj("a", 1), **{"continue": "more"}), listing(10, obj("b", 2))]
    api.lists = [*pages, listing(10)]
    one = daemon()
    assert await one.told(3) == [("ADDED", "a", "1"), ("ADDED", "b", "2"), ("INIT_DONE", 2)]
    assert api.asked("limit", "continue")[:2] == [("500", None), ("500", "more")]


async def test_selectors_namespace_and_group_reach_the_server(kmock, daemon):
    path = "/apis/kvm.cloud.sap/v1alpha1/namespaces/monsoon3/migrations"
    kmock[f"get {path}"] << (lambda request: OPEN if "watch" in request.params else listing(3, obj("m", 1)))
    one = daemon(
        api_group="kvm.cloud.sap",
        kinds=["Migration"],
        namespace="monsoon3",
        label_selectors=["zone in (a,b)", "x=y"],
        field_selectors=["metadata.name=m"],
    )
    event = await one.next()
    assert (event["kind"], event["group"], event["version"]) == ("Migration", "kvm.cloud.sap", "v1alpha1")
    assert event["resource"]["kind"] == "Migration"  # items of a list may lack it
    await until(lambda: len(kmock[f"get {path}"]) == 2)
    for request in kmock[f"get {path}"]:
        assert request.params["labelSelector"] == "zone in (a,b),x=y"
        assert request.params["fieldSelector"] == "metadata.name=m"


async def test_events_are_flat_and_carry_the_object_without_managed_fields(api, daemon):
    thing = obj("a", 5, generation=3, managedFields=[{"manager": "x"}])
    api.lists = [listing(10, {**thing, "spec": {"hypervisor": "cmp01"}})]
    event = await daemon().next()
    assert event.pop("resource") == {
        "apiVersion": "hypervisor.c5c3.io/v1",
        "kind": "Eviction",
        "metadata": {"name": "a", "resourceVersion": "5", "uid": "uid-a", "generation": 3},
        "spec": {"hypervisor": "cmp01"},
    }
    assert event == {
        "type": "ADDED",
        "kind": "Eviction",
        "group": "hypervisor.c5c3.io",
        "version": "v1",
        "initial": True,
        "name": "a",
        "namespace": "",
        "uid": "uid-a",
        "generation": 3,
        "resource_version": "5",
        "finished": False,
    }


async def test_of_chosen_fields_only_a_change_is_told(api, daemon):
    def hv(version, maintenance, beat):
        status = {"agent": {"heartbeatTime": beat}, "instances": ["x" * 1000]}
        return {**obj("cmp01", version, status=status, labels={"a": "b"}), "spec": {"maintenance": maintenance, "x": 1}}

    api.lists = [listing(10, hv(5, "", "1")), listing(20, hv(19, "auto", "9"))]
    api.watches = [
        (
            ev("MODIFIED", hv(11, "", "2")),
            ev("MODIFIED", hv(12, "manual", "3")),
            ev("MODIFIED", hv(13, "manual", "4")),
            error(410),
        )
    ]
    fields = ["spec.maintenance", "status.evicted", "spec.maintenance.deeper"]
    one = daemon(resources=[{"kind": "Eviction", "fields": fields, "resync_seconds": 0.3}])
    first = await one.next()
    assert first["resource"] == {
        "apiVersion": "hypervisor.c5c3.io/v1",
        "kind": "Eviction",
        "metadata": {"name": "cmp01", "uid": "uid-cmp01", "resourceVersion": "5"},
        "spec": {"maintenance": ""},
    }
    told = [await one.next() for _ in range(4)]
    modified = [event for event in told if event["type"] == "MODIFIED"]
    assert [(e["resource_version"], e["changed"]) for e in modified] == [
        ("12", ["spec.maintenance"]),
        ("19", ["spec.maintenance"]),
    ]
    assert "changed" not in first
    assert (await one.told(1))[0][0] == "RESYNC"  # a change of other fields does not stop its clock


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
async def test_a_list_that_is_refused_is_tried_again(api, daemon, caplog, status):
    api.lists = [KubernetesError(status=status, reason="No", message="not so"), listing(1, obj("a", 1))]
    assert await daemon().told(1) == [("ADDED", "a", "1")]
    (text,) = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert f"refused to list evictions.hypervisor.c5c3.io with {status}" in text
    assert "not so" in text
    await until(lambda: any("works again" in r.getMessage() for r in caplog.records) or len(api.asked()) > 2)


async def test_retry_after_is_kept(api, daemon):
    watcher = daemon().engine.watchers[0]
    assert watcher._after(refusal(429, b"{}", "list", "7")) == 7
    assert watcher._after(refusal(429, b"{}", "list", "86400")) == 30  # within reason
    assert watcher._after(refusal(503, b"{}", "list", "Wed, 21 Oct 2026 07:28:00 GMT")) < 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"[]",
        b"7",
        {"items": None, "metadata": None},
        {"items": {}, "metadata": {"resourceVersion": 5}},
        b'{"metadata":' + b"[" * 100_000,
    ],
)
async def test_a_list_of_any_shape_is_survived(api, daemon, answer):
    api.lists = [answer, listing(1, obj("a", 1))]
    assert await daemon().told(2) == [("ADDED", "a", "1"), ("INIT_DONE", 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":7}\n',
        b'{"type":"ADDED","object":{"metadata":null}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"x"}}}\n',
        b'{"type":"BOOKMARK","object":{"metadata":null}}\n',
        b'{"type":7,"object":{"metadata":{"name":"x","resourceVersion":"4"}}}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b"\n\n",
    ],
)
async def test_a_hostile_line_costs_only_itself(api, daemon, line):
    good = json.dumps(ev("ADDED", obj("good", 5))).encode() + b"\n"
    api.watches = [(line + good, lambda: asyncio.sleep(60))]
    assert await daemon().told(2) == [("INIT_DONE", 0), ("ADDED", "good", "5")]


async def test_what_a_hostile_line_hid_is_told_by_the_next_list(api, daemon):
    api.lists = [listing(1), listing(9, obj("hidden", 4))]
    api.watches = [(b"garbage\n",)]
    assert await daemon().told(2) == [("INIT_DONE", 0), ("ADDED", "hidden", "4")]


@pytest.mark.parametrize("code", [500, 504, None, "x"])
async def test_an_error_event_other_than_410_lists_again(api, daemon, code):
    api.lists = [listing(1), listing(9, obj("a", 4))]
    api.watches = [(error(code),)]
    assert await daemon().told(2) == [("INIT_DONE", 0), ("ADDED", "a", "4")]


async def test_a_stream_cut_in_the_middle_of_an_event_goes_on_from_the_last_whole_one(api, daemon):
    whole, half = (json.dumps(ev("ADDED", obj(name, n))).encode() + b"\n" for name, n in (("a", 5), ("b", 6)))
    api.watches = [(whole + half[:40],), (half,)]
    assert await daemon().told(3) == [("INIT_DONE", 0), ("ADDED", "a", "5"), ("ADDED", "b", "6")]
    assert api.asked()[:3] == [None, "1", "5"]


async def test_a_server_that_hangs_is_noticed_by_our_own_deadline(api, daemon, caplog):
    api.watches = [(ev("ADDED", obj("a", 5)), lambda: asyncio.sleep(60)), (ev("ADDED", obj("b", 6)),)]
    one = daemon(watch_timeout=1)
    assert await one.told(3) == [("INIT_DONE", 0), ("ADDED", "a", "5"), ("ADDED", "b", "6")]
    assert any("the server hangs" in record.getMessage() for record in caplog.records)
    assert api.asked()[:3] == [None, "1", "5"]


async def test_a_list_that_hangs_is_given_up(api, daemon):
    api.lists = [(lambda: asyncio.sleep(60),), listing(1)]
    assert await daemon().told(1) == [("INIT_DONE", 0)]


async def test_after_many_failures_the_place_is_not_trusted(api, daemon, monkeypatch):
    monkeypatch.setattr(watcher_module, "LONGEST_DELAY", 0.05)
    api.lists = [listing(1), listing(50)]
    api.watches = [(b"\n",) for _ in range(6)]
    daemon()
    await until(lambda: "50" in api.asked())
    assert api.asked()[:7] == [None, "1", "1", "1", "1", "1", None]


async def test_a_server_away_for_a_while(unused_tcp_port_factory, caplog, monkeypatch):
    """A real port that refuses, then serves: nothing lost, nothing twice."""
    from aiohttp import web

    monkeypatch.setattr(watcher_module, "LONGEST_DELAY", 0.1)
    port = unused_tcp_port_factory()
    lists = [listing(10, obj("a", 5), obj("b", 6)), listing(20, obj("a", 5), obj("b", 15), obj("c", 16))]

    async def answer(request):
        if "watch" not in request.query:
            return web.json_response(lists[0])
        if request.query["resourceVersion"] == "10" and len(lists) == 1:
            return web.json_response({"code": 410, "message": "too old"}, status=410)  # a restarted server's way
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(30)
        return response

    async def serve():
        app = web.Application()
        app.router.add_get(PATH, answer)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    one = Daemon(f"http://127.0.0.1:{port}")
    try:
        for _look in range(50):  # a busy machine takes its time to be refused
            await one.silent(0.3)
            if any("cannot be reached" in record.getMessage() for record in caplog.records):
                break
        await one.silent(0.3)
        assert sum("cannot be reached" in record.getMessage() for record in caplog.records) == 1  # told once
        runner = await serve()
        assert await one.told(3) == [("ADDED", "a", "5"), ("ADDED", "b", "6"), ("INIT_DONE", 2)]
        await runner.cleanup()
        del lists[0]
        await one.silent(0.5)
        runner = await serve()
        assert await one.told(2) == [("MODIFIED", "b", "15"), ("ADDED", "c", "16")]
        await one.silent(0.3)
        await runner.cleanup()
    finally:
        await one.stop()


async def test_a_fault_of_our_own_is_told_and_the_loop_goes_on(api, daemon, monkeypatch, caplog):
    calls = []
    original = watcher_module.Watcher._list

    async def faulty(self):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("oops")
        await original(self)

    monkeypatch.setattr(watcher_module.Watcher, "_list", faulty)
    assert await daemon().told(1) == [("INIT_DONE", 0)]
    assert any("unexpected ZeroDivisionError ('oops')" in record.getMessage() for record in caplog.records)


async def test_an_object_that_cannot_be_rendered_is_left_out(api, kmock, caplog):
    def picky(change):
        if change.key and change.key[1] == "bad":
            raise KeyError("bad")
        return render(change)

    api.lists = [listing(1, obj("bad", 1), obj("good", 2))]
    options = parse({"host": str(kmock.url).rstrip("/")})
    queue = asyncio.Queue(1)
    task = asyncio.create_task(Engine(options, follow, picky, Credentials(options.auth, {})).run(queue))
    assert (await asyncio.wait_for(queue.get(), 5))["name"] == "good"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_filter_that_raises_costs_one_event(api, kmock, caplog):
    class Filtered(asyncio.Queue):
        async def put(self, item):
            if item.get("name") == "bad":
                raise RuntimeError("a filter of the rulebook")
            await super().put(item)

    api.lists = [listing(1, obj("bad", 1), obj("good", 2))]
    options = parse({"host": str(kmock.url).rstrip("/")})
    queue = Filtered(1)
    task = asyncio.create_task(Engine(options, follow, render, Credentials(options.auth, {})).run(queue))
    assert (await asyncio.wait_for(queue.get(), 5))["name"] == "good"
    assert any("a filter of the rulebook" in record.getMessage() for record in caplog.records)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_a_renewed_token_is_used_without_a_restart_and_401_is_tried_again(kmock, daemon, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    accepted, seen = {"Bearer old"}, []

    def serve(request):
        seen.append(request.headers.get("Authorization"))
        if seen[-1] not in accepted:
            return KubernetesError(status=401, reason="Unauthorized", message="Unauthorized")
        if "watch" in request.params:
            return (b"\n", lambda: asyncio.sleep(0.3))
        return listing(1)

    kmock[f"get {PATH}"] << serve
    one = daemon(token_file=str(token), watch_timeout=1)
    assert await one.told(1) == [("INIT_DONE", 0)]
    accepted.clear()
    await until(lambda: seen.count("Bearer old") > 3)  # refused, and tried again
    accepted.add("Bearer new")
    token.write_text("new\n")
    await until(lambda: "Bearer new" in seen)
    await until(lambda: one.engine.watchers[0].connected)
    await one.silent(0.2)  # its place was kept: nothing is told twice


@pytest.mark.parametrize("way", ["rewritten kubeconfig", "login helper"])
async def test_credentials_that_no_token_file_holds_are_renewed(kmock, tmp_path, way):
    """A kubeconfig that is replaced is noticed; a helper's token without an end is asked for anew after a 401."""
    accepted, seen = {"Bearer one"}, []

    def serve(request):
        seen.append(request.headers.get("Authorization"))
        if seen[-1] not in accepted:
            return KubernetesError(status=401, reason="Unauthorized", message="Unauthorized")
        return (b"\n", lambda: asyncio.sleep(0.3)) if "watch" in request.params else listing(1)

    kmock[f"get {PATH}"] << serve
    answer = tmp_path / "answer"

    def renew(token):
        status = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
        answer.write_text(json.dumps(status))
        helper = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "cat",
            "args": [str(answer)],
            "interactiveMode": "Never",
        }
        if way == "rewritten kubeconfig" or token == "one":
            user = {"exec": helper} if way == "login helper" else {"token": token}
            (tmp_path / "config").write_text(
                json.dumps(
                    {
                        "apiVersion": "v1",
                        "kind": "Config",
                        "current-context": "x",
                        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                        "clusters": [{"name": "x", "cluster": {"server": str(kmock.url).rstrip("/")}}],
                        "users": [{"name": "x", "user": user}],
                    }
                )
            )

    renew("one")
    queue = asyncio.Queue(1)
    options = parse({"kubeconfig": str(tmp_path / "config"), "watch_timeout": 1, "request_timeout": 5})
    task = asyncio.create_task(Engine(options, follow, render, Credentials(options.auth, {})).run(queue))
    assert (await asyncio.wait_for(queue.get(), 5))["type"] == "INIT_DONE"
    if way == "login helper":
        accepted.clear()
    renew("second")
    accepted.add("Bearer second")
    await until(lambda: "Bearer second" in seen)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- a busy rulebook ----------------------------------------------------------------------------------------------


async def test_the_watch_goes_on_while_the_queue_is_full(api, daemon):
    api.lists = [listing(1, obj("first", 1))]
    stream = [ev("ADDED", obj("x", 10))]
    stream += [ev("MODIFIED", obj("x", n)) for n in range(11, 400)]
    stream += [ev("ADDED", obj("short", 401)), ev("DELETED", obj("short", 402))]
    stream += [ev("ADDED", obj("y", 500)), ev("MODIFIED", obj("y", 501, status=DONE))]
    api.watches = [(*stream, lambda: asyncio.sleep(60))]
    one = daemon()
    await until(lambda: one.engine.watchers[0]._version == "501")
    # One event is in the queue and one in the blocked put; the rest is joined.
    assert await one.told(4) == [
        ("ADDED", "first", "1"),
        ("INIT_DONE", 1),
        ("ADDED", "x", "399"),
        ("ADDED", "y", "501"),
    ]
    await one.silent(0.2)


async def test_resync_tells_unfinished_unchanged_objects_again(api, daemon):
    api.lists = [listing(1, obj("open", 1), obj("done", 2, status=DONE))]
    one = daemon(resync_seconds=0.2)
    start = asyncio.get_running_loop().time()
    assert await one.told(5) == [
        ("ADDED", "open", "1"),
        ("ADDED", "done", "2"),
        ("INIT_DONE", 2),
        ("RESYNC", "open", "1"),
        ("RESYNC", "open", "1"),
    ]
    assert asyncio.get_running_loop().time() - start > 0.35


async def test_resyncs_do_not_pile_up_behind_a_busy_rulebook(api, daemon):
    api.lists = [listing(1, obj("open", 1))]
    one = daemon(resync_seconds=0.3)
    await asyncio.sleep(1.5)
    assert await one.told(3) == [("ADDED", "open", "1"), ("INIT_DONE", 1), ("RESYNC", "open", "1")]
    await one.silent(0.1)


async def test_no_resync_while_the_server_is_away(api, daemon, monkeypatch):
    monkeypatch.setattr(watcher_module, "LONGEST_DELAY", 0.1)
    api.lists = [listing(1, obj("open", 1)), KubernetesError(status=503, reason="No", message="away")]
    api.watches = [(error(500),)]
    one = daemon(resync_seconds=0.1)
    assert await one.told(2) == [("ADDED", "open", "1"), ("INIT_DONE", 1)]
    await one.silent(0.5)
    api.lists = [listing(9, obj("open", 8))]
    assert await one.told(1) == [("MODIFIED", "open", "8")]


# --- Lease --------------------------------------------------------------------------------------------------------

TERM = {"name": "ha", "duration": 2, "renew_deadline": 1.0, "retry_period": 0.2}


async def test_only_the_holder_tells_and_the_next_tells_every_unfinished_object(api, daemon):
    api.lists = [listing(1, obj("open", 1), obj("done", 2, status=DONE))]
    one = daemon(lease=TERM)
    assert await one.told(2) == [("ADDED", "open", "1"), ("INIT_DONE", 2)]  # finished ones are no work
    two = daemon(lease=TERM)
    await two.silent(1.0)
    await one.stop()
    assert api.lease["spec"]["holderIdentity"] == ""  # given back
    assert await two.told(2, seconds=1.0) == [("ADDED", "open", "1"), ("INIT_DONE", 2)]
    assert api.lease["spec"]["leaseTransitions"] == 1


async def test_a_stop_in_the_moment_of_a_renewal_is_not_lost(api, daemon, monkeypatch):
    """asyncio.wait_for of Python 3.11 swallowed it: the daemon went on for ever."""
    original = lease_module.LeaseKeeper._attempt

    async def last(self):
        await original(self)
        if len(api.writes) > 2:
            asyncio.get_running_loop().call_soon(one.task.cancel)

    monkeypatch.setattr(lease_module.LeaseKeeper, "_attempt", last)
    one = daemon(lease=TERM)
    await asyncio.wait({one.task}, timeout=3)
    assert one.task.cancelled()
    assert api.lease["spec"]["holderIdentity"] == ""


async def test_a_stop_in_the_middle_of_a_renewal_gives_the_lease_back(api, daemon, monkeypatch):
    original = lease_module.LeaseKeeper._write

    async def cut_off(self, action):
        lease = await original(self, action)
        if len(api.writes) > 2:
            one.task.cancel()
            await asyncio.sleep(5)  # the server has written, the answer never comes
        return lease

    monkeypatch.setattr(lease_module.LeaseKeeper, "_write", cut_off)
    one = daemon(lease=TERM)
    await asyncio.wait({one.task}, timeout=3)
    assert one.task.cancelled()
    assert api.lease["spec"]["holderIdentity"] == ""


async def test_a_holder_killed_is_followed_when_its_lease_runs_out(api, daemon, monkeypatch):
    api.lists = [listing(1, obj("open", 1))]
    one = daemon(lease=TERM)
    await one.told(2)
    two = daemon(lease=TERM)
    await two.silent(0.5)
    one.engine._session._host = "http://127.0.0.1:1"  # cut off: neither renews nor gives back
    start = asyncio.get_running_loop().time()
    event = await two.next(4)
    assert (event["type"], event["initial"]) == ("ADDED", True)
    assert 1.0 < asyncio.get_running_loop().time() - start < 3.0
    assert one.engine.state in ("paused", "standby")


async def test_a_holder_cut_off_stops_before_the_next_begins(api, daemon):
    api.lists = [listing(1, *(obj(f"o{n}", n) for n in range(1, 200)))]
    one = daemon(lease=TERM)
    await one.told(2)
    api.lease_fault = KubernetesError(status=500, reason="No", message="away")
    cut = asyncio.get_running_loop().time()
    last = cut
    while True:
        try:
            await one.next(0.5)
        except TimeoutError:
            break
        last = asyncio.get_running_loop().time()
        await asyncio.sleep(0.05)
    assert last - cut < 1.3  # the deadline, and one event that was in the queue already
    assert one.engine.state == "paused"
    # Nobody else held it: it goes on where it stopped, telling nothing twice.
    api.lease_fault = None
    rest = []
    while len(rest) < 400:
        event = await one.next(3)
        rest.append(event)
        if event["type"] == "INIT_DONE":
            break
    names = [event["name"] for event in rest if "name" in event]
    assert len(names) == len(set(names))
    assert names[-1] == "o199"
    assert int(names[0][1:]) > 3


async def test_a_frozen_holder_tells_nothing_after_its_deadline_even_before_it_notices(api, daemon):
    """As after SIGSTOP: the clock has jumped, and no task has run yet."""
    jump = [0.0]
    api.lists = [listing(1, *(obj(f"o{n}", n) for n in range(1, 50)))]
    one = daemon(lease=TERM, clock=lambda: engine_module.boot_clock() + jump[0])
    await one.next()
    api.take("next")
    jump[0] = 100.0
    taken = 0
    while True:
        try:
            await one.next(0.5)
            taken += 1
        except TimeoutError:
            break
    assert taken <= 2  # the queue's one and the put that was waiting
    assert one.engine.state == "standby"


async def test_a_put_that_waits_is_withdrawn_when_the_lease_is_lost(api, daemon):
    api.lists = [listing(1, *(obj(f"o{n}", n) for n in range(1, 9)))]
    one = daemon(lease=TERM)
    await until(one.queue.full)  # and nobody reads: the next put waits
    api.take("else")
    await until(lambda: one.engine.state == "standby")
    assert await one.told(1) == [("ADDED", "o1", "1")]  # it was in the queue
    await one.silent(0.3)


async def test_a_lease_taken_by_force_stops_us_at_once(api, daemon):
    api.lists = [listing(1, obj("open", 1))]
    api.watches = [(b"\n", lambda: asyncio.sleep(1.0), ev("MODIFIED", obj("open", 2)), lambda: asyncio.sleep(60))]
    one = daemon(lease=TERM)
    await one.told(2)
    api.take("else")
    await until(lambda: one.engine.state == "standby", 2)
    await one.silent(1.2)
    api.lease["spec"]["holderIdentity"] = ""
    assert await one.told(2) == [("ADDED", "open", "2"), ("INIT_DONE", 1)]


async def test_a_deleted_lease_is_made_again(api, daemon):
    one = daemon(lease=TERM)
    await one.told(1)
    api.lease = None
    del api.kmock.objects["coordination.k8s.io/v1/leases", "default", "ha"]
    await until(lambda: api.lease is not None)
    await until(lambda: one.engine.state == "holding")


async def test_a_namespace_that_is_missing_is_named(kmock, api, daemon, caplog):
    caplog.set_level(logging.WARNING)
    kmock["post /apis/coordination.k8s.io/v1/namespaces/nowhere/leases"] << KubernetesError(
        status=404, reason="NotFound", message="namespaces nowhere not found", details={"name": "nowhere"}
    )
    kmock["get /apis/coordination.k8s.io/v1/namespaces/nowhere/leases/ha"] << KubernetesError(
        status=404, reason="NotFound", message="none", details={"name": "ha"}
    )
    one = daemon(lease={**TERM, "namespace": "nowhere"})
    await until(lambda: any("namespace nowhere does not exist: create it" in r.getMessage() for r in caplog.records))
    await one.silent(0.2)


async def test_the_lease_is_a_proper_one(api, daemon):
    one = daemon(lease=TERM)
    await until(lambda: len(api.writes) >= 2)
    first, second = api.writes[:2]
    assert first["leaseDurationSeconds"] == 2
    assert first["acquireTime"] == first["renewTime"] == second["acquireTime"] < second["renewTime"]
    assert first["renewTime"].endswith("Z")
    assert len(first["renewTime"]) == len("2026-11-24T09:42:01.123456Z")
    assert first["holderIdentity"] == second["holderIdentity"] == one.engine._part.election.identity


# --- end ----------------------------------------------------------------------------------------------------------


async def test_a_part_that_took_the_stop_for_its_own_deadline_is_told_again(api, daemon, monkeypatch):
    """asyncio.timeout that expires in the moment of the stop: the task counts as cancelled and goes on."""
    monkeypatch.setattr(engine_module, "_PATIENCE", 0.2)
    calls = []

    async def once_deaf():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                calls.append(1)
                if len(calls) > 1:
                    raise
                asyncio.current_task().uncancel()

    one = daemon()
    one.engine.watchers[0].run = once_deaf
    await asyncio.sleep(0.2)
    await asyncio.wait_for(one.stop(), 5)
    assert len(calls) == 2


async def test_cancelled_while_a_put_is_blocked(api, daemon):
    api.lists = [listing(1, obj("a", 1), obj("b", 2), obj("c", 3))]
    one = daemon()
    await until(one.queue.full)
    await asyncio.wait_for(one.stop(), 2)
    assert one.queue.qsize() == 1  # the put that waited was withdrawn
