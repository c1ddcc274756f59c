# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One site from its dry run to the end of a host, deployed three times, as a site that is new to it would begin.

1. Dry run: a guest dies, a host is asked to be emptied, a host is cut off. All is decided and told, nothing is done.
2. The same deployed in earnest, beside CobaltCore's operator: all of that is done now. A guest that keeps dying is given up
   at last; a disk that fails on one host only is left by its guest, one whose storage is full is not.
3. The same with maintenance in its own hands: manual, auto, ha and termination.

The tests go on from one another. Counted by the guests themselves and by the lab's oracle.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import fenced
from tests.crds import install
from tests.deployment import Deployment
from tests.evictor import GATES, GROUP, make_eviction
from tests.lab import Lab, LabError, wait_until
from tests.timeline import Timeline, condition, finished

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

MERGE = "application/merge-patch+json"
# How long nothing more may happen before it is believed that nothing will.
QUIET = 4.0
RESTARTS, MOVES = 2, 1
# Role variables, as a site would set them.
VARIABLES = {
    "ha_agent_max_unavailable": "100%",
    "ha_agent_io_error_count": 2,
    "ha_agent_retell_seconds": 2,
    "hypervisor_operator_node_resync_seconds": 3,
    "hypervisor_operator_unreachable_seconds": 5,
    "hypervisor_operator_return_seconds": 5,
    "hypervisor_operator_gate_limits": GATES,
    "hypervisor_operator_crash_restarts": RESTARTS,
    "hypervisor_operator_crash_moves": MOVES,
}


class Site:
    """The lab, what is deployed on it, its hosts by what becomes of them, and three servers."""

    def __init__(self, lab: Lab, deployment: Deployment, watch: Any, timeline: Timeline) -> None:
        self.lab, self.deployment, self.watch, self.timeline = lab, deployment, watch, timeline
        self.asked = {host: len(lab.bmc.commands(host)) for host in lab.hosts}  # by the tests before
        # An operator is on another host than the one that will be cut off: how another takes over is test_operators.
        (operator,) = {daemon.host for daemon in deployment.daemons("operator")}
        self.stays, self.cut = [host for host in sorted(lab.hosts) if host != operator]
        self.drained = operator
        self.servers: dict[str, str] = {}
        self.before: dict[str, int] = {}  # boots of those whose disks fail
        self.began = time.time()

    # -- looking -------------------------------------------------------------------------------------------------------

    def deploy(self, **variables: Any) -> None:
        """Deploy anew with further variables."""
        self.deployment.settings.update(variables)
        self.deployment.deploy()

    def boots(self, name: str) -> int:
        """How often a guest has booted, from its disk."""
        counters = self.lab.oracle.counters(self.servers[name])
        return counters.boots if counters else 0

    def server(self, name: str) -> Any:
        return self.lab.nova.connection().compute.get_server(self.servers[name])

    def host_of(self, name: str) -> str:
        return self.server(name).compute_host

    def actions(self, name: str) -> list[str]:
        """What Nova was ever asked to do with a server, oldest first; but for the stop that it notes itself of a dead one."""
        compute = self.lab.nova.connection().compute
        asked = [action.action for action in compute.server_actions(self.servers[name])][::-1]
        return [action for action in asked if action != "stop" or name == "off"]

    def commands(self, host: str) -> list[str]:
        """What a host's power switch was told by this module's operators."""
        return self.lab.bmc.commands(host)[self.asked[host] :]

    def hypervisor(self, host: str) -> dict:
        return fenced.hypervisors(self.lab)[host]

    def said(self, host: str, kind: str) -> tuple[str, str] | None:
        """Status and reason of a condition of a Hypervisor."""
        found = condition(self.hypervisor(host), kind)
        return (found["status"], found["reason"]) if found else None

    def service(self, host: str) -> tuple[str, str, bool]:
        """A compute service: its status, why it is disabled, whether it is forced down."""
        found = self.lab.nova.compute_services()[host]
        return found["status"], found["disabled_reason"] or "", found["forced_down"]

    def evictions(self) -> dict[str, dict]:
        items = self.lab.kubernetes.request("GET", f"{GROUP}/evictions")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def ended(self, name: str, since: float, timeout: float = 150) -> dict:
        """Wait until the Eviction is over; a server may be given by its name here."""
        name = self.servers.get(name, name)
        return self.timeline.wait(name, lambda seen: finished(seen) and seen.at > since, timeout).object

    def wait_said(self, host: str, kind: str, wanted: tuple[str, str] | None, timeout: float = 90) -> None:
        what = f"{kind} {wanted} of {host}; it is {self.said(host, kind)}"
        wait_until(lambda: self.said(host, kind) == wanted, timeout, what, 0.3)

    def told(self, *words: str) -> list[str]:
        """The lines in the logs of agents and operators that have all of these words, oldest first of each daemon."""
        return [line for line in self.deployment.logs().splitlines() if all(word in line for word in words)]

    def wait_told(self, *words: str, timeout: float = 60, more_than: int = 0) -> str:
        """Wait for more than so many of these lines; return one of the last daemon's."""
        wait_until(lambda: len(self.told(*words)) > more_than, timeout, f"a line with {words}", 0.5)
        return self.told(*words)[-1]

    def quiet(self) -> None:
        """Give whoever would act the time for it."""
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > QUIET, 60, "quiet")

    # -- doing ---------------------------------------------------------------------------------------------------------

    def boot(self, name: str, host: str) -> None:
        self.servers[name] = self.lab.nova.boot(f"site-{name}", host=host, timeout=120).id
        self.watch.wait_counting(self.servers[name], 1)

    def want(self, host: str, **spec: Any) -> dict:
        """Change what is wanted of a Hypervisor."""
        return self.lab.kubernetes.request("PATCH", f"{GROUP}/hypervisors/{host}", {"spec": spec}, MERGE)

    def enable(self, host: str) -> None:
        """A person gives a host back."""
        service = self.lab.nova.compute_services()[host]
        if service["status"] != "enabled":
            self.lab.nova.request("PUT", f"/os-services/{service['id']}", {"status": "enabled"})

    def disable(self, host: str, reason: str) -> None:
        """A person takes a host out of service."""
        service = self.lab.nova.compute_services()[host]
        body = {"status": "disabled", "disabled_reason": reason}
        self.lab.nova.request("PUT", f"/os-services/{service['id']}", body)


class Disk:
    """The disk of a running guest, made to fail: QEMU answers each write with an error, on this host only."""

    def __init__(self, site: Site, name: str) -> None:
        self.server = site.servers[name]
        self.host = site.lab.hosts[site.host_of(name)]
        (block,) = [each for each in self.qmp("query-block") if each.get("inserted") and each.get("qdev")]
        self.device, self.node = block["qdev"], block["inserted"]["node-name"]

    def qmp(self, command: str, **arguments: Any) -> Any:
        request = json.dumps({"execute": command, "arguments": arguments})
        call = ["virsh", "-c", "qemu:///system", "qemu-monitor-command", self.server, request]
        answer = json.loads(self.host.exec(call, check=True, capture_output=True, text=True).stdout)
        assert "error" not in answer, answer
        return answer["return"]

    def fail(self, errno: int) -> None:
        """Every write fails from now on."""
        errors = [{"event": "none", "iotype": "write", "errno": errno, "once": False}]
        node = {"driver": "blkdebug", "node-name": "failing", "image": self.node, "inject-error": errors}
        self.qmp("blockdev-add", **node)
        self.qmp("qom-set", path=self.device, property="drive", value="failing")

    def heal(self) -> None:
        """Writes succeed again."""
        self.qmp("qom-set", path=self.device, property="drive", value=self.node)
        self.qmp("blockdev-del", **{"node-name": "failing"})


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site]:
    deployment = Deployment(lab, settings={**VARIABLES, "c5c3_ha_dry_run": True})
    install(lab.kubernetes, "hypervisors", "evictions", "migrations")
    lab.kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")
    deployment.deploy()
    made: Site | None = None
    try:
        deployment.wait_ready()
        fenced.fence_all(lab)
        with lab.oracle.watch(interval=0.05) as watch, Timeline(lab) as timeline:
            made = Site(lab, deployment, watch, timeline)
            for host in lab.hosts:
                made.enable(host)
            for name, host in (("dies", made.stays), ("moves", made.drained), ("cut", made.cut)):
                made.boot(name, host)
            yield made
            assert watch.two_writers() == [], "two writers"
    finally:
        (lab.directory / "deployment" / "site.log").write_text(deployment.logs())
        deployment.remove()
        lab.bmc.heal()
        lab.heal()
        lab.kubernetes.kubectl("delete", "hypervisors,evictions", "--all", "--wait")
        for host in lab.hosts:
            lab.kubernetes.wait_node(host, "True", 120)
            lab.nova.force_down(host, False, 120)
            lab.nova.wait_service(host, "up", 120)
            if made:
                made.enable(host)
        if made:
            lab.nova.delete(*made.servers.values())


# -- 1. dry run --------------------------------------------------------------------------------------------------------


def test_a_dry_run_decides_and_tells_and_does_nothing(site, record_property):
    lab, dies = site.lab, site.servers["dies"]
    before = {name: site.boots(name) for name in site.servers}
    actions = {name: site.actions(name) for name in site.servers}
    lab.partition(site.cut)
    lab.kill(dies)
    make_eviction(lab, site.drained, "Maintenance")
    site.want(site.stays, maintenance="manual", maintenanceReason="a try")

    # Each in its own words, in one log.
    assert "InstanceStopped" in site.wait_told("c5c3.ha.eviction: ", "dry run: would do ", f"Eviction {dies}")
    drain = site.wait_told(f"c5c3.ha.evict: {site.drained} dry run: would do ")
    assert f"DisableService {site.drained}, LiveMigrate {site.servers['moves']}" in drain
    maintained = site.wait_told(f"c5c3.ha.maintenance: {site.stays} dry run: would do ")
    assert "manual: Evicting" in maintained
    line = site.wait_told("c5c3.ha.node_sync: {", '"decision": "evict"', f'"host": "{site.cut}"', timeout=120)
    decided = json.loads(line[line.index("{") :])
    assert (decided["reason"], decided["dry_run"]) == ("GatesPassed", True)
    # Nobody has made its Eviction, so a person does: the power switch would be next.
    assert site.cut not in site.evictions()
    make_eviction(lab, site.cut)
    site.wait_told(f"c5c3.ha.evict: {site.cut} dry run: would do Fence {site.cut}")
    site.want(site.stays, maintenance="", maintenanceReason=None)
    record_property("dry run: all told after, s", time.time() - site.began)

    # And nothing was done: not to Kubernetes, not to Nova, not to a power switch, not to a guest.
    site.watch.wait_counting(site.servers["cut"], 3)
    evictions = site.evictions()
    assert set(evictions) == {site.drained, site.cut} and not any(each.get("status") for each in evictions.values())
    assert not any(each.get("status") for each in fenced.hypervisors(lab).values())
    assert lab.kubernetes.request("GET", "/apis/hypervisor.c5c3.io/v1alpha1/migrations")["items"] == []
    for host in lab.hosts:
        assert site.service(host) == ("enabled", "", False)
        assert site.commands(host) == [], "its power switch was used"
    assert {name: site.boots(name) for name in site.servers} == before, "booted in a dry run"
    assert {name: site.actions(name) for name in site.servers} == actions
    assert lab.oracle.qemu_pid(dies) is None and lab.hosts[site.cut].running


# -- 2. in earnest, beside CobaltCore's operator -----------------------------------------------------------------------


def test_in_earnest_the_same_is_done(site, record_property):
    """Told anew at the start of each daemon: who died, who is asked to be emptied, who is not there."""
    lab = site.lab
    before = {name: site.boots(name) for name in site.servers}
    # As CobaltCore's operator does when it has taken a host on; from then on it waits for HaEnabled.
    done = {"type": "Onboarding", "status": "False", "reason": "Succeeded", "message": "Onboarding completed"}
    done["lastTransitionTime"] = "2026-11-24T00:00:00Z"
    path = f"{GROUP}/hypervisors/{site.cut}/status"
    lab.kubernetes.request("PATCH", path, {"status": {"conditions": [done]}}, MERGE)
    began = time.time()
    site.deploy(c5c3_ha_dry_run=False, hypervisor_operator_beside_cobaltcore=True)
    record_property("deployed anew while a hypervisor is away, s", time.time() - began)

    eviction = site.ended("dies", site.began)
    assert condition(eviction)["reason"] == "Succeeded" and eviction["status"]["instances"][0]["route"] == "Restart"
    drained = site.ended(site.drained, site.began)
    assert condition(drained)["reason"] == "Succeeded", drained["status"]
    assert site.service(site.drained)[:2] == ("disabled", f"c5c3.ha: Eviction {site.drained}")
    evacuated = site.ended(site.cut, site.began)
    assert condition(evacuated)["reason"] == "Succeeded", evacuated["status"]
    assert condition(evacuated, "Fenced")["reason"] == "Off" and not lab.hosts[site.cut].running
    assert site.commands(site.cut) == [f"{site.cut} off"] and site.commands(site.stays) == []
    for name, more in (("dies", 1), ("moves", 0), ("cut", 1)):
        site.watch.wait_boots(site.servers[name], before[name] + more, 60)
        site.watch.wait_counting(site.servers[name], 1)
        assert site.boots(name) == before[name] + more, f"{name} booted another number of times"
        assert site.host_of(name) == site.stays
    assert "live-migration" in site.actions("moves")

    # upstream.md 2.4, contract of an HA service: the host is in its hands, and out of service.
    wait_until(lambda: site.hypervisor(site.cut)["spec"].get("maintenance") == "ha", 60, f"{site.cut} says ha", 0.3)
    spec = site.hypervisor(site.cut)["spec"]
    assert spec["maintenanceReason"] == "c5c3.ha: NodeUnreachable"
    assert site.service(site.cut)[0] == "disabled" and site.service(site.cut)[2]
    site.wait_said(site.cut, "HypervisorDisabled", ("True", "Succeeded"))
    site.wait_said(site.cut, "HaEnabled", ("True", "Succeeded"))
    # The other modes are CobaltCore's operator's there.
    site.want(site.stays, maintenance="auto")
    site.wait_told(f"c5c3.ha.maintenance: {site.stays} auto: ", "is done by CobaltCore's operator")
    site.want(site.stays, maintenance="")
    assert site.service(site.stays)[0] == "enabled" and site.stays not in site.evictions()
    lab.bmc.heal()
    lab.heal(site.cut)
    site.enable(site.drained)


@pytest.fixture(scope="module")
def disks(site) -> Iterator[dict[str, Disk]]:
    """Two guests whose disks fail while the guest of the next test keeps dying: "moves" gets EIO, "cut" ENOSPC."""
    failing = {"moves": Disk(site, "moves"), "cut": Disk(site, "cut")}
    site.before = {name: site.boots(name) for name in failing}
    failing["moves"].fail(5)
    failing["cut"].fail(28)
    yield failing


def test_a_guest_that_keeps_dying_is_restarted_then_moved_then_left_alone(site, disks, record_property):
    """Once it has died already. Its faults are in its Eviction: agents and operators die on the way."""
    lab, server = site.lab, site.servers["dies"]
    hosts = [site.host_of("dies")]
    began = time.time()
    for fault in range(2, RESTARTS + MOVES + 1):
        boots, since = site.boots("dies"), time.time()
        lab.kill(server)
        # The one who is told, then the one who acts.
        site.deployment.kill(*(("agent", hosts[-1]) if fault == 2 else ("operator",)))
        eviction = site.ended("dies", since)
        assert condition(eviction)["reason"] == "Succeeded", eviction["status"]
        site.watch.wait_boots(server, boots + 1, 90)
        assert site.boots("dies") == boots + 1, "booted more than once"
        (entry,) = eviction["status"]["instances"]
        assert entry["route"] == ("Restart" if fault <= RESTARTS else "ColdMigrate"), f"death {fault}: {entry}"
        lab.nova.wait_server(server)
        hosts.append(site.host_of("dies"))
        assert (hosts[-1] != hosts[-2]) == (fault > RESTARTS), hosts
    wait_until(lambda: site.deployment.connected(hosts[-1]), 90, f"the agent of {hosts[-1]} watches its guests", 0.2)
    boots, actions, since = site.boots("dies"), site.actions("dies"), time.time()
    lab.kill(server)
    eviction = site.ended("dies", since)
    assert condition(eviction)["reason"] == "Failed"
    (entry,) = eviction["status"]["instances"]
    assert entry["phase"] == "Failed"
    assert f"needed help {RESTARTS + MOVES + 1} times within 600 s" in entry["message"], entry
    assert "left alone until somebody has looked why" in condition(eviction)["message"]
    site.quiet()
    found = site.server("dies")
    assert (found.compute_host, found.is_locked) == (hosts[-1], False)
    assert lab.oracle.qemu_pid(server) is None and site.actions("dies") == actions, "restarted more than once"
    assert site.boots("dies") == boots, "booted although it was given up"
    record_property("crash loop to given up, s", time.time() - began)


def test_an_error_of_one_hosts_disk_is_left_by_its_guest(site, disks):
    """EIO, so that the guest runs on: told once, told again, then moved live by the operator."""
    eviction = site.timeline.wait(
        site.servers["moves"],
        lambda seen: finished(seen) and not seen.object["spec"].get("notifyOnly"),
        120,
        site.began,
    ).object
    assert (eviction["spec"]["cause"], condition(eviction)["reason"]) == ("DiskIOError", "Succeeded"), eviction
    assert "told 2 times within 180 s, so it persists" in eviction["spec"]["reason"]
    (entry,) = eviction["status"]["instances"]
    assert (entry["route"], entry["phase"]) == ("LiveMigrate", "Succeeded")
    assert site.host_of("moves") != site.stays
    site.watch.wait_counting(site.servers["moves"], 2)
    assert site.boots("moves") == site.before["moves"], "booted, and was to be moved while it runs"
    told = [seen for seen in site.timeline.changes(site.servers["moves"]) if seen.object["spec"].get("notifyOnly")]
    assert told, "told before it was moved"
    phases = {entry["phase"] for seen in told for entry in (seen.object.get("status") or {}).get("instances", [])}
    # On a busy machine it is told for the second time before the operator has looked at the first.
    assert phases <= {"Pending", "Notified"}, phases


def test_a_full_storage_is_told_and_its_guest_goes_on_when_there_is_space(site, disks):
    """ENOSPC, told more often than an EIO that is moved then, and never moved."""
    server = site.servers["cut"]
    wait_until(lambda: site.watch.hosts()[server] == {site.stays: "paused"}, 60, "suspended by its QEMU", 0.2)
    before = site.actions("cut")

    def times_told() -> int:
        return len({seen.object["spec"].get("occurredAt") for seen in site.timeline.changes(server, site.began)})

    wait_until(
        lambda: times_told() > VARIABLES["ha_agent_io_error_count"], 90, "told once more than EIO has to be", 0.3
    )
    disks["cut"].heal()
    site.watch.wait_counting(server, 2, timeout=90)
    seen = site.timeline.changes(server, site.began)
    told = [each.object["spec"] for each in seen if each.object["spec"].get("cause") == "DiskIOError"]
    assert told and all(spec.get("notifyOnly") for spec in told), "never asked to be moved"
    assert any("the storage is full (enospc)" in spec["reason"] for spec in told)
    wait_until(lambda: "space again" in site.evictions()[server]["spec"]["reason"], 60, "told that it goes on", 0.3)
    (entry,) = site.evictions()[server]["status"]["instances"]
    assert (entry["phase"], entry["route"]) == ("Notified", "None")
    assert site.actions("cut") == before and site.host_of("cut") == site.stays
    assert site.boots("cut") == site.before["cut"], "booted, and was only to go on"


def test_the_host_that_was_cut_off_is_taken_back(site):
    """upstream.md 2.4: on return ``ha`` is taken back, if it was ours."""
    site.lab.kubernetes.wait_node(site.cut, "True", 120)
    fenced.wait_returned(site.lab, site.cut)
    wait_until(lambda: not site.hypervisor(site.cut)["spec"].get("maintenance"), 60, "ha is taken back", 0.3)
    assert "maintenanceReason" not in site.hypervisor(site.cut)["spec"]


# -- 3. maintenance in its own hands -----------------------------------------------------------------------------------


def test_manual_empties_a_host_and_gives_it_back(site, record_property):
    """A running server, a stopped one, and the operator dies in the middle."""
    lab, host, server = site.lab, site.stays, site.servers["cut"]
    lab.nova.delete(site.servers.pop("dies"))
    site.deploy(hypervisor_operator_beside_cobaltcore=False)
    site.boot("off", host)
    compute = lab.nova.connection().compute
    compute.stop_server(site.servers["off"])
    lab.nova.wait_server(site.servers["off"], "SHUTOFF")
    boots = {name: site.boots(name) for name in site.servers}
    since = time.time()
    site.want(host, maintenance="manual", maintenanceReason="new fans")
    site.timeline.wait(host, lambda seen: bool((seen.object.get("status") or {}).get("holder")), 60, since)
    site.deployment.kill("operator")
    eviction = site.ended(host, since)
    spec = eviction["spec"]
    assert (spec["cause"], spec["reason"]) == ("Maintenance", "spec.maintenance is manual: new fans")
    assert site.service(host) == ("disabled", "c5c3.ha: maintenance=manual", False)
    site.wait_said(host, "Evicting", ("False", "Succeeded"))
    record_property("maintenance asked for to host empty, s", time.time() - since)
    assert site.hypervisor(host)["status"]["evicted"] is True
    site.wait_said(host, "HaEnabled", ("False", "Evicted"))
    site.wait_said(host, "HypervisorDisabled", ("True", "Succeeded"))
    routes = {entry["id"]: entry["route"] for entry in eviction["status"]["instances"]}
    assert routes == {server: "LiveMigrate", site.servers["off"]: "ColdMigrate"}
    assert not list(compute.servers(all_projects=True, compute_host=host)), "a server was forgotten"
    site.watch.wait_counting(server, 2)
    assert {name: site.boots(name) for name in site.servers} == boots, "booted by a maintenance"
    assert site.server("off").status == "SHUTOFF" and "live-migration" in site.actions("cut")

    site.want(host, maintenance="", maintenanceReason=None)
    wait_until(lambda: site.service(host) == ("enabled", "", False), 60, f"{host} is given back", 0.3)
    wait_until(lambda: host not in site.evictions(), 60, "its Eviction is gone", 0.3)
    site.wait_said(host, "Evicting", None)
    site.wait_said(host, "HypervisorDisabled", ("False", "Succeeded"))
    site.wait_said(host, "HaEnabled", ("True", "Succeeded"))
    assert not site.hypervisor(host)["status"].get("evicted")


def test_auto_gives_back_only_what_was_its_own(site):
    host = site.stays
    site.disable(host, "broken fan")
    site.want(host, maintenance="auto")
    site.wait_said(host, "Evicting", ("False", "Succeeded"))
    assert site.hypervisor(host)["status"]["evicted"] is True
    assert site.service(host) == ("disabled", "broken fan", False)
    site.want(host, maintenance="")
    site.wait_said(host, "Evicting", None)
    site.wait_said(host, "HypervisorDisabled", ("True", "Succeeded"))
    assert site.service(host) == ("disabled", "broken fan", False)
    site.enable(host)
    site.wait_said(host, "HypervisorDisabled", ("False", "Succeeded"))


def test_ha_leaves_the_host_to_whoever_asked_for_it(site):
    host = site.host_of("cut")
    actions = site.actions("cut")
    since = time.time()
    site.want(host, maintenance="ha")
    site.wait_told(f"c5c3.ha.maintenance: {host} ha: in the hands of HA, and its compute service is enabled")
    over = f"c5c3.ha.maintenance: {host} no maintenance: "
    before = len(site.told(over))
    site.want(host, maintenance="")
    site.wait_told(over, more_than=before)
    assert site.service(host) == ("enabled", "", False)
    assert site.timeline.changes(host, since) == [] and site.actions("cut") == actions


def test_termination_cannot_be_taken_back(site):
    """Its host stays out of service, also when its Hypervisor is deleted, which is the end of it."""
    lab, host = site.lab, site.stays
    site.want(host, maintenance="termination")
    site.wait_said(host, "Evicting", ("False", "Succeeded"))
    assert site.service(host) == ("disabled", "c5c3.ha: maintenance=termination", False)
    with pytest.raises(LabError, match="immutable when maintenance is 'termination'"):
        site.want(host, maintenance="")
    assert site.hypervisor(host)["spec"]["maintenance"] == "termination"
    lab.kubernetes.kubectl("delete", "hypervisor", host)
    site.quiet()
    assert site.service(host) == ("disabled", "c5c3.ha: maintenance=termination", False)
    assert host not in fenced.hypervisors(lab)
