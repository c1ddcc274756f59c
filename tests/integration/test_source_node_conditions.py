# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source c5c3.ha.node_conditions against real Nodes, whose hosts die, and hundreds that nobody keeps."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.lab.kubernetes import VIRT_DRIVER_LABEL, Kubernetes
from tests.nodes import Source, Stand, forced_reconnects, until

pytestmark = [pytest.mark.lab, pytest.mark.kubernetes, pytest.mark.timeout(600)]

MANY = 500


@pytest.fixture()
def start(lab_kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Callable[..., Source]]:
    sources: list[Source] = []

    def begin(**args: object) -> Source:
        sources.append(Source(tmp_path, kubeconfig=str(lab_kubernetes.kubeconfig), **args))
        return sources[-1]

    yield begin
    for source in sources:
        source.end()
        print(source.log.read_text())


@pytest.fixture()
def measured(record_property) -> Callable[[str, float], None]:
    def note(name: str, value: float) -> None:
        record_property(name, value)
        print(f"MEASURED {name}: {value:.3f}")

    return note


@pytest.fixture()
def stand(lab_kubernetes: Kubernetes) -> Iterator[Stand]:
    made = Stand(lab_kubernetes)
    yield made
    made.remove()


def test_a_killed_host_becomes_unreachable_overdue_and_returns(lab_kubernetes, start, measured):
    """Kubernetes' own controller says Unknown when the kubelet's Lease is not renewed any more."""
    lab, host = lab_kubernetes.lab, next(iter(lab_kubernetes.lab.hosts))
    for each in lab.hosts:  # the tests before may have had the API server away for long
        lab_kubernetes.wait_node(each, "True", 120)
    source = start(unreachable_seconds=3, return_seconds=2, resync_seconds=2, heartbeat_seconds=5).ready()
    first = source.events[0]
    assert first["total"] == len(lab.hosts)
    killed = time.monotonic()
    try:
        lab.kill(host)
        gone = source.wait(lambda e: e["type"] == "TRANSITION" and e.state(host) == "Unreachable", 120)
        measured("host killed to Unreachable told, s", time.monotonic() - killed)
        ready = [one for one in gone.node(host)["changed"] if one["condition"] == "Ready"]
        assert (ready[0]["previous"], ready[0]["status"]) == ("True", "Unknown")
        overdue = source.wait(lambda e: e["type"] == "OVERDUE" and host in e["names"], 60)
        due = overdue.node(host)["due"]
        assert due == pytest.approx(datetime.fromisoformat(overdue.node(host)["since"]).timestamp() + 3)
        measured("overdue told after its time, s", overdue.at - due)
        assert overdue.at >= due - 0.01
        # A daemon that starts now neither forgets nor starts the clock anew.
        second = start(unreachable_seconds=3).ready()
        late = second.wait(lambda e: e["type"] == "OVERDUE", 30)
        assert (late["names"], late.node(host)["due"]) == ([host], due)
        source.wait(lambda e: e["type"] == "OVERDUE" and e.at > overdue.at, 30)  # again, as long as it lasts
        source.wait(lambda e: e["type"] == "HEARTBEAT" and e["unreachable"] == 1 and e["connected"], 30)
    finally:
        lab.heal(host)
    source.wait(lambda e: e["type"] == "TRANSITION" and e.at > overdue.at and e.state(host) == "Ready", 120)
    returned = source.wait(lambda e: e["type"] == "RETURNED" and host in e["names"], 60)
    assert returned.at >= returned.node(host)["due"] - 0.01
    lab_kubernetes.wait_node(host, "True", 60)


def test_pressure_deletion_and_a_kubelet_that_says_no(stand, start):
    stand.create(["quiet"])
    source = start(not_ready_seconds=1, heartbeat_seconds=0).ready()
    stand.condition("quiet", "Ready", "True")
    source.wait(lambda e: e["type"] == "TRANSITION" and e.state("quiet") == "Ready", 30)
    kinds = ["DiskPressure", "MemoryPressure", "NetworkUnavailable", "PIDPressure"]
    # Quick: the real controller takes a Node that is silent for a while for lost.
    for status in ("True", "False"):
        for kind in kinds:
            stand.condition("quiet", kind, status)
        wanted = kinds if status == "True" else []
        source.wait(
            lambda e, wanted=wanted: e["type"] == "TRANSITION"
            and "quiet" in e["names"]
            and sorted(e.node("quiet")["problems"]) == wanted,
            30,
        )
    stand.condition("quiet", "Ready", "False")
    source.wait(lambda e: e["type"] == "TRANSITION" and e.state("quiet") == "NotReady", 30)
    source.wait(lambda e: e["type"] == "OVERDUE" and "quiet" in e["names"], 30)
    stand.remove()
    event = source.wait(
        lambda e: e["type"] == "TRANSITION" and "quiet" in e["names"] and e.node("quiet")["deleted"], 30
    )
    assert event["total"] == len(stand.api.lab.hosts)


def test_hundreds_of_nodes_lose_no_transition_over_forced_reconnects(stand, start, measured):
    names = [f"many-{number:04}" for number in range(MANY)]
    stand.create(names)
    source = start(label_selectors=[f"{VIRT_DRIVER_LABEL}=stand"], watch_timeout=2, heartbeat_seconds=0).ready()
    assert source.events[0]["total"] == MANY
    measured("resident with 500 Nodes, MB", source.resident())
    # Of a few, each as often as there are rounds; while the connection breaks in different ways.
    with forced_reconnects(source, stand.api):
        for number in range(30):
            stand.condition(names[number % 10], "Ready", ("True", "False", "Unknown")[number % 3])
            if number % 10 == 9:
                until(lambda: source.view(names[:10]) == stand.states(names[:10]), 120, source.log.read_text)
    assert source.faults == []
    # All at once are one event, or the few that the API server's own pace makes of it.
    count = len(source.told("TRANSITION"))
    source.signal(signal.SIGSTOP)
    stand.conditions(dict.fromkeys(names, ("Ready", "Unknown")))
    source.signal(signal.SIGCONT)
    until(lambda: source.view(names) == dict.fromkeys(names, "Unreachable"), 60)
    storm = source.told("TRANSITION")[count:]
    measured("events of 500 transitions at once", len(storm))
    assert len(storm) <= 10
    assert source.faults == []


def test_wrong_arguments_end_it_at_once(start):
    source = start(unreachable_seconds="soon")
    assert source.process.wait(30) != 0
    assert "unreachable_seconds 'soon' is wrong" in source.log.read_text().strip().splitlines()[-1]


def test_both_sources_of_a_rulebook_share_their_lease(lab_kubernetes, tmp_path):
    """Through the real ansible-rulebook: one holder in the Lease, and no refused write."""
    from tests.integration.test_source_custom_resources import rulebook

    lab_kubernetes.kubectl("delete", "lease", "shared", "--ignore-not-found")
    kubeconfig, lease = str(lab_kubernetes.kubeconfig), {"name": "shared"}
    namespaces = {"kind": "Namespace", "group": "core", "plural": "namespaces"}
    sources = [
        {"c5c3.ha.node_conditions": {"kubeconfig": kubeconfig, "lease": lease}},
        {"c5c3.ha.custom_resources": {"kubeconfig": kubeconfig, "lease": lease, "resources": [namespaces]}},
    ]
    show = {"name": "Show", "condition": 'event.type == "INIT_DONE"', "action": {"print_event": {"pretty": False}}}
    text = [{"name": "Both", "hosts": "localhost", "sources": sources, "rules": [show]}]
    with rulebook(tmp_path, {}, json.dumps(text)) as (process, output):
        until(lambda: "'kind': 'Node'" in output.read_text() and "'kind': 'Namespace'" in output.read_text(), 120)
        # Lost and gained again on a loaded machine, but never by two.
        assert len(set(re.findall(r"held by us \((.*?)\)", output.read_text()))) == 1
        assert process.poll() is None
    with contextlib.suppress(Exception):
        lab_kubernetes.kubectl("delete", "lease", "shared", "--ignore-not-found")
