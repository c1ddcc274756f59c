# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source node_conditions and sources that share a Lease, against a scripted API server (kmock)."""

from __future__ import annotations

import asyncio
import json
import runpy
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError
from ansible_collections.c5c3.ha.plugins.module_utils.watching import watcher as watcher_module
from ansible_collections.c5c3.ha.plugins.module_utils.watching.lease import candidacy
from ansible_collections.c5c3.ha.plugins.module_utils.watching.options import parse, parse_nodes

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "extensions/eda/plugins/event_source"
SCHEMA = json.loads((ROOT / "extensions/eda/schemas/node_event.schema.json").read_text())
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
TERM = {"name": "ha", "duration": 2, "renew_deadline": 1.0, "retry_period": 0.2}
OPEN = (b"\n", lambda: asyncio.sleep(60))


def stamp(ago: float = 0.0) -> str:
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() - ago, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def node(name, version, ready="True", ago=3600.0):
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": stamp(ago), "reason": "Why"}
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"conditions": [condition]}}


def changed(thing, kind="MODIFIED"):
    return {"type": kind, "object": thing}


GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


class Api:
    """Lists and watches from scripts, and a Lease; what else is asked for is an empty list."""

    def __init__(self, kmock):
        self.nodes, self.watches, self.lease, self.writes = [], [], None, []
        kmock["get /api/v1/nodes"] << self._get
        kmock["get /apis/hypervisor.c5c3.io/v1/evictions"] << self._evictions
        kmock[f"get {LEASE}/ha"] << (lambda _request: self.lease or self._none())
        kmock[f"put {LEASE}/ha"] << self._write
        kmock[f"post {LEASE}"] << self._write

    @staticmethod
    def _none():
        from kmock import KubernetesError

        return KubernetesError(status=404, reason="NotFound", message="none", details={"name": "ha"})

    def _get(self, request):
        if "watch" in request.params:
            return self.watches.pop(0) if self.watches else OPEN
        items = self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0]
        return {"kind": "NodeList", "metadata": {"resourceVersion": "10"}, "items": items}

    @staticmethod
    def _evictions(request):
        if "watch" in request.params:
            return OPEN
        return {"kind": "EvictionList", "metadata": {"resourceVersion": "10"}, "items": []}

    def _write(self, request):
        new = request.data
        old = (self.lease or {}).get("metadata", {}).get("resourceVersion")
        if new["metadata"].get("resourceVersion") != old:
            from kmock import KubernetesError

            return KubernetesError(status=409, reason="Conflict", message="changed")
        new["metadata"].update(uid="u", resourceVersion=str(int(old or 0) + 1))
        self.writes.append(new["spec"])
        self.lease = new
        return new


@pytest.fixture()
def api(kmock, monkeypatch):
    monkeypatch.setattr(watcher_module, "_SETTLE", 0.05)
    made = Api(kmock)
    made.nodes = [[node("a", 1), node("b", 2, "Unknown")]]
    return made


class Source:
    """A source as ansible-rulebook runs it: `main` of the plugin, and a queue that holds one event."""

    def __init__(self, url, plugin="node_conditions", **args):
        self.queue = asyncio.Queue(1)
        main = runpy.run_path(str(SOURCES / f"{plugin}.py"))["main"]
        if plugin == "node_conditions":
            args = {"heartbeat_seconds": 0, "unreachable_seconds": 7200, **args}
        self.task = asyncio.create_task(main(self.queue, {"host": str(url).rstrip("/"), "request_timeout": 2, **args}))

    async def next(self, seconds=10.0):
        async with asyncio.timeout(seconds):
            event = await self.queue.get()
        if event["kind"] == "Node":
            jsonschema.validate(event, SCHEMA)
        return event

    async def silent(self, seconds=0.5):
        try:
            event = await self.next(seconds)
        except TimeoutError:
            return
        pytest.fail(f"unexpected {event}")

    async def stop(self):
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=20)
        assert self.task.done()


@pytest.fixture()
async def start(kmock):
    sources = []

    def begin(*args, **kwargs):
        sources.append(Source(kmock.url, *args, **kwargs))
        return sources[-1]

    yield begin
    for source in sources:
        await source.stop()


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_from_the_first_list_over_a_watch_and_a_410_to_the_clock(api, start, kmock):
    api.nodes = [[node("a", 1), node("b", 2, "Unknown")], [node("a", 11, "Unknown", ago=1), node("c", 12)]]
    api.watches = [(changed(node("b", 5, ago=1)), changed(node("a", 6)), GONE)]
    one = start(unreachable_seconds=2)
    first = await one.next()
    assert (first["type"], first["names"], first["total"]) == ("INIT_DONE", ["b"], 2)
    told, overdue = {}, None
    while {"a", "b", "c"} - set(told) or overdue is None:
        event = await one.next()
        if event["type"] == "TRANSITION":
            told.update({item["name"]: item for item in event["nodes"]})
        elif "a" in event["names"]:
            overdue = event
    assert told["a"]["state"] == "Unreachable"
    assert told["b"]["deleted"]
    assert told["c"]["changed"] == []
    assert (overdue["type"], overdue["nodes"][-1]["name"]) == ("OVERDUE", "a")
    assert datetime.now(UTC).timestamp() >= overdue["nodes"][-1]["due"] - 0.01
    request = next(iter(kmock["get /api/v1/nodes"]))
    assert request.params["labelSelector"] == "nova.openstack.cloud.sap/virt-driver"


async def test_500_nodes_at_once_are_one_event_and_a_busy_rulebook_gets_no_second(api, start):
    api.nodes = [[node(f"n{number}", number + 1) for number in range(500)]]
    api.watches = [
        (
            *(changed(node(f"n{number}", 1000 + number, "Unknown", ago=0)) for number in range(500)),
            lambda: asyncio.sleep(60),
        )
    ]
    one = start()
    assert (await one.next())["type"] == "INIT_DONE"
    await asyncio.sleep(1.0)  # nobody takes an event meanwhile
    told = []
    while sum(len(event["names"]) for event in told) < 500:
        told.append(await one.next())
    assert [event["type"] for event in told] == ["TRANSITION"] * len(told)
    assert len(told) <= 2
    await one.silent(1.0)


async def test_wrong_arguments_end_it_at_the_start(api, start):
    one = start(unreachable_seconds="soon")
    with pytest.raises(ArgumentError, match="unreachable_seconds 'soon' is wrong"):
        await one.task


async def test_heartbeats(api, start):
    one = start(heartbeat_seconds=0.3)
    while (first := await one.next())["type"] != "INIT_DONE":  # on a busy machine the list takes longer than a beat
        assert (first["type"], first["connected"]) == ("HEARTBEAT", False)
    while not (beat := await one.next())["connected"]:  # and so does the watch after it
        assert beat["type"] == "HEARTBEAT"
    assert (beat["type"], beat["connected"], beat["total"], beat["unreachable"]) == ("HEARTBEAT", True, 2, 1)


# --- a Lease for several sources ------------------------------------------------------------------------------------


async def test_sources_of_one_process_hold_one_lease_together(api, start, kmock):
    nodes = start(lease=TERM)
    evictions = start("custom_resources", lease=TERM)
    assert (await nodes.next())["type"] == "INIT_DONE"
    assert (await evictions.next())["type"] == "INIT_DONE"
    before = len(api.writes)
    await asyncio.sleep(1.0)
    # One renews, not both, and no write is refused.
    assert 2 <= len(api.writes) - before <= 6
    assert len({spec["holderIdentity"] for spec in api.writes}) == 1
    assert len(list(kmock[f"put {LEASE}/ha"])) + len(list(kmock[f"post {LEASE}"])) == len(api.writes)
    # The one that renews ends; the other goes on as the holder, and begins anew.
    await nodes.stop()
    assert (await evictions.next())["type"] == "INIT_DONE"
    await until(lambda: api.lease["spec"]["holderIdentity"])
    await evictions.stop()
    assert api.lease["spec"]["holderIdentity"] == ""


async def test_a_source_that_comes_later_tells_at_once(api, start):
    evictions = start("custom_resources", lease=TERM)
    assert (await evictions.next())["type"] == "INIT_DONE"
    nodes = start(lease=TERM)
    assert (await nodes.next())["type"] == "INIT_DONE"


async def test_both_are_silent_when_another_daemon_takes_the_lease(api, start):
    nodes, evictions = start(lease=TERM, resync_seconds=0.2, unreachable_seconds=1), start(
        "custom_resources", lease=TERM
    )
    assert (await nodes.next())["type"] == "INIT_DONE"
    assert (await evictions.next())["type"] == "INIT_DONE"
    assert (await nodes.next())["type"] == "OVERDUE"
    version = str(int(api.lease["metadata"]["resourceVersion"]) + 1)
    spec = {**api.lease["spec"], "holderIdentity": "other", "renewTime": "z", "leaseDurationSeconds": 60}
    api.lease = {**api.lease, "metadata": {**api.lease["metadata"], "resourceVersion": version}, "spec": spec}
    await asyncio.sleep(0.6)
    while not nodes.queue.empty():
        nodes.queue.get_nowait()
    await nodes.silent(1.0)
    await evictions.silent(0.1)
    api.lease["spec"]["holderIdentity"] = ""
    assert (await nodes.next())["type"] == "INIT_DONE"
    assert (await evictions.next())["type"] == "INIT_DONE"


async def test_one_lease_has_one_timing(api, start):
    start("custom_resources", lease=TERM)
    await asyncio.sleep(0)
    other = start(lease={**TERM, "duration": 5})
    with pytest.raises(ArgumentError, match="lease default/ha is wrong: another source of this rulebook"):
        await other.task


async def test_leases_of_other_names_or_clusters_are_others(api):
    def part(**args):
        options, _nodes = parse_nodes({"host": "https://a", "lease": TERM, **args})
        return candidacy(options.lease, options.auth)

    same = parse({"host": "https://a", "lease": TERM})
    assert candidacy(same.lease, same.auth) is part()
    assert part(host="https://b") is not part()
    assert part(lease={**TERM, "name": "other"}) is not part()
