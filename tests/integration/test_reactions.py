"""docs/reactions.md on real QEMUs: the rulebook ha_agent beside a real libvirtd, before the real kube-apiserver.

No operator runs, so that what the agents ask for stays as they asked for it. That a dead guest then runs again is shown in
test_ha.py. All guests run side by side: most of the time is waiting.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import libvirt
import pytest
import yaml

from tests.integration.source_libvirt import (
    FILL,
    IDLE,
    PANIC,
    POWER_OFF,
    RESET,
    WATCHDOG,
    WATCHDOG_ONCE,
    Guest,
    Hypervisor,
    failing_disk,
    qcow2_on_full_disk,
    two_hypervisors,
)
from tests.lab.hosts import wait_until
from tests.lab.kubernetes import Kubernetes

pytestmark = [pytest.mark.lab, pytest.mark.kubernetes, pytest.mark.libvirt, pytest.mark.rulebook, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "c5c3-ha-reactions"
VARIABLES = {
    "c5c3_ha_namespace": NAMESPACE,
    "c5c3_ha_heartbeat_seconds": 2,
    "c5c3_ha_retell_seconds": 2,
    "c5c3_ha_verify_seconds": 5,
    "c5c3_ha_restart_timeout": 4,
    "c5c3_ha_io_error_count": 2,
}
JAVA = "-Xrs -Xms8m -Xss256k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData"


class Agent:
    """The rulebook ha_agent of one hypervisor, as the role starts it."""

    def __init__(self, name: str, uri: str, kubeconfig: Path, folder: Path) -> None:
        program = Path(sys.executable).parent / "ansible-rulebook"
        if not program.exists():
            pytest.skip("ansible-rulebook is not installed beside this Python")
        folder.mkdir(parents=True)
        variables = {**VARIABLES, "c5c3_ha_hypervisor": name, "c5c3_ha_libvirt_uri": uri}
        (folder / "vars.yml").write_text(yaml.safe_dump(variables))
        localhost = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": localhost}}}))
        collections = next(
            path for path in map(Path, sys.path) if (path / "ansible_collections/c5c3/ha/galaxy.yml").exists()
        )
        warm = [sys.executable, str(ROOT / "plugins/plugin_utils/warm"), "--"]
        rulebook = ["--rulebook", "c5c3.ha.ha_agent", "--inventory", "inventory.yml", "--vars", "vars.yml"]
        environment = {
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "PYTHONPATH": str(collections),
            "KUBECONFIG": str(kubeconfig),
            "JAVA_TOOL_OPTIONS": JAVA,
        }
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*warm, str(program), *rulebook],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> None:
        wait_until(lambda: "is connected" in self.text(), 180, f"the agent is connected; see {self.log}", 0.2)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Site:
    """Two hypervisors with agents, and what they have written."""

    def __init__(self, api: Kubernetes, hypervisors: list[Hypervisor], agents: list[Agent], folder: Path) -> None:
        self.api, self.hypervisors, self.agents, self.folder = api, hypervisors, agents, folder
        self.guests: dict[str, Guest] = {}

    def guest(self, name: str, mode: int = IDLE, **options: Any) -> Guest:
        guest = self.guests[name] = Guest(self.hypervisors[0], self.folder, mode, **options)
        return guest

    def get(self, kind: str) -> dict[str, dict]:
        arguments = ("-n", NAMESPACE) if kind == "migrations" else ()
        items = json.loads(self.api.kubectl("get", kind, *arguments, "-o", "json"))["items"]
        return {item["metadata"]["name"]: item for item in items}

    def eviction(self, name: str) -> dict | None:
        return self.get("evictions").get(self.guests[name].uuid)

    def expect(self, name: str, timeout: float = 120, **spec: object) -> dict:
        """Wait for the Eviction of a guest with these fields."""

        def found() -> dict | None:
            eviction = self.eviction(name)
            return eviction if eviction and all(eviction["spec"].get(k) == v for k, v in spec.items()) else None

        return wait_until(found, timeout, f"Eviction of {name} with {spec}; there is {self.eviction(name)}", 0.3)


@pytest.fixture(scope="module")
def site(lab_kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    for name in ("hypervisors", "evictions", "migrations"):
        lab_kubernetes.kubectl("apply", "-f", str(ROOT / "crds" / f"{name}.yaml"))
        lab_kubernetes.kubectl("wait", "--for=condition=Established", f"crd/{name}.hypervisor.c5c3.io", "--timeout=60s")
    lab_kubernetes.kubectl("create", "namespace", NAMESPACE)
    folder = tmp_path_factory.mktemp("agents")
    agents: list[Agent] = []
    guests: dict[str, Guest] = {}
    with two_hypervisors() as hypervisors:
        try:
            agents.extend(
                Agent(each.name, each.writable, lab_kubernetes.kubeconfig, folder / each.name) for each in hypervisors
            )
            for agent in agents:
                agent.wait()
            images = hypervisors[0].directory / "images"
            images.mkdir(exist_ok=True)
            made = Site(lab_kubernetes, hypervisors, agents, images)
            guests = made.guests
            happen(made)
            yield made
        finally:
            for agent in agents:
                agent.stop()
            for guest in guests.values():
                lab_kubernetes.kubectl("delete", "eviction", guest.uuid, "--ignore-not-found")
            lab_kubernetes.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def happen(site: Site) -> None:
    """Everything at once: what each guest does by itself, and what is done to the others."""
    here = site.hypervisors[0]
    by_themselves = [
        site.guest("panic", PANIC),
        site.guest("panic preserve", PANIC, on_crash="preserve"),
        site.guest("reset", RESET),
        site.guest("power off", POWER_OFF),
        site.guest("watchdog once", WATCHDOG_ONCE, watchdog="reset"),
        site.guest("watchdog pause", WATCHDOG, watchdog="pause"),
        site.guest("watchdog poweroff", WATCHDOG, watchdog="poweroff"),
        site.guest("watchdog none", WATCHDOG, watchdog="none"),
        site.guest("watchdog inject-nmi", WATCHDOG, watchdog="inject-nmi"),
        site.guest("full disk", disk=qcow2_on_full_disk(here, site.folder, "stop")),
        site.guest("failing disk", **failing_disk(site.folder)),
    ]
    killed, hung, user, moved, cancelled = (
        site.guest("killed"),
        site.guest("hung reboot"),
        site.guest("user"),
        site.guest("moved", FILL),
        site.guest("cancelled", FILL),
    )
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Guest.start, [killed, hung, user, moved, cancelled, *by_themselves]))
    killed.kill()
    hung.virsh("reset")
    os.kill(hung.pid, signal.SIGSTOP)
    saved = str(site.folder / "user.saved")
    here.virsh(
        f"suspend {user.name}; resume {user.name}; save {user.name} {saved}; restore {saved}; destroy {user.name}"
    )


DEAD = ["killed", "panic", "panic preserve", "watchdog poweroff"]
ALONE = ["reset", "power off", "user", "watchdog once", "watchdog none", "watchdog inject-nmi"]


def test_a_reboot_that_hangs(site: Site) -> None:
    """First. Once, when it came after the deaths, that by a watchdog was told when this QEMU went on; not seen again."""
    site.expect("hung reboot", cause="RebootFailed")
    os.kill(site.guests["hung reboot"].pid, signal.SIGCONT)


@pytest.mark.parametrize("name", DEAD)
def test_a_death_asks_for_help_once(site: Site, name: str) -> None:
    eviction = site.expect(name, cause="InstanceStopped")
    assert eviction["spec"]["hypervisor"] == "src01"
    assert eviction["metadata"]["generation"] == 1, "told once"
    assert "notifyOnly" not in eviction["spec"]


def test_a_watchdog_that_bites_again_after_its_restart(site: Site) -> None:
    site.expect("watchdog pause", cause="WatchdogRestartFailed")


def move(site: Site, guest: Guest) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *("virsh", "-q", "-c", site.hypervisors[0].writable, "migrate", guest.name, "qemu+tcp://10.66.0.2/system"),
            *("--live", "--p2p", "--persistent", "--undefinesource", "--unsafe", "--bandwidth", "1"),
        ],
        stderr=subprocess.DEVNULL,
    )


def migration(site: Site, guest: Guest) -> dict:
    return site.get("migrations").get(guest.uuid, {}).get("status", {})


def test_a_migration_shows_its_progress_and_its_end(site: Site) -> None:
    guest = site.guests["moved"]
    # Whom it serves: no operator is here that would work on it.
    spec = {"hypervisor": "src01", "reason": "test", "cause": "Maintenance"}
    body = {"apiVersion": "hypervisor.c5c3.io/v1", "kind": "Eviction", "metadata": {"name": "src01"}, "spec": spec}
    site.api.kubectl("create", "-f", "-", stdin=json.dumps(body))
    process = move(site, guest)
    seen: list[str] = []
    try:
        # what kubectl shows, until three different amounts are left
        def three() -> bool:
            remaining = migration(site, guest).get("dataRemaining")
            if remaining and remaining not in seen:
                seen.append(remaining)
            return len(seen) >= 3 or process.poll() is not None

        wait_until(three, 60, "progress", 0.1)
        assert len(seen) >= 3, f"only {seen} was seen"
        table = site.api.kubectl("get", "migrations", "-n", NAMESPACE)
        assert guest.uuid in table and "migration_out" in table
        print(table)
        guest.virsh("migrate-setspeed", "500", check=False)
        assert process.wait(60) == 0
    finally:
        process.kill()
        site.api.kubectl("delete", "eviction", "src01", "--ignore-not-found")

    def over() -> bool:
        status = migration(site, guest)
        return status.get("type") == "completed" and status.get("destination") == "src02"

    wait_until(over, 60, f"the end of the migration is told: {migration(site, guest)}", 0.2)
    status = migration(site, guest)
    assert (status["origin"], status["dataRemaining"]) == ("src01", "0 B")
    spec = site.get("migrations")[guest.uuid]["spec"]
    assert (spec["source"], spec["target"], spec["eviction"]) == ("src01", "src02", "src01")
    assert site.eviction("moved") is None
    moved = Guest.__new__(Guest)
    moved.__dict__.update(guest.__dict__, hypervisor=site.hypervisors[1])
    moved.remove()


def test_a_migration_that_is_cancelled_says_so(site: Site) -> None:
    guest = site.guests["cancelled"]
    process = move(site, guest)
    try:
        wait_until(lambda: migration(site, guest).get("type") == "unbounded", 60, "it is on its way", 0.1)
        guest.virsh("domjobabort")
        assert process.wait(60) != 0
    finally:
        process.kill()
    wait_until(lambda: migration(site, guest).get("type") == "failed", 60, f"{migration(site, guest)}", 0.2)
    assert "stays where it is" in migration(site, guest)["errMsg"]
    assert site.eviction("cancelled") is None


def test_a_full_disk_is_told_and_the_guest_goes_on_when_there_is_space(site: Site) -> None:
    guest = site.guests["full disk"]
    eviction = site.expect("full disk", cause="DiskIOError", notifyOnly=True)
    if "space again" not in eviction["spec"]["reason"]:
        assert "the storage is full" in eviction["spec"]["reason"]
    wait_until(lambda: guest.state() == "paused (I/O error)", 60, "suspended", 0.2)
    site.hypervisors[0].host.exec(["mount", "-o", "remount,size=100m", "/run/small-stop"], check=True)
    wait_until(lambda: guest.state() == "running (unpaused)", 90, "resumed by the agent", 0.2)
    wait_until(lambda: "space again" in site.eviction("full disk")["spec"]["reason"], 60, "told", 0.2)
    assert site.eviction("full disk")["spec"]["notifyOnly"] is True


def test_an_error_that_persists_is_moved(site: Site) -> None:
    """blkdebug: libvirt knows no path of this disk."""
    guest = site.guests["failing disk"]
    eviction = site.expect("failing disk", cause="DiskIOError", notifyOnly=None)
    assert "told 2 times within 180 s, so it persists" in eviction["spec"]["reason"]
    assert guest.state() == "paused (I/O error)"


@pytest.mark.parametrize("name", ALONE)
def test_what_needs_nobody_is_left_alone(site: Site, name: str) -> None:
    """Last: whoever would act has had all the time of the tests before."""
    log, guest = site.agents[0].text(), site.guests[name]
    assert site.eviction(name) is None, name
    told = "domain {}" if name in ("reset", "watchdog once") else "left alone: {}"
    assert [line for line in log.splitlines() if told.split("{}")[0] in line and guest.uuid in line], "told in the log"


def test_each_death_was_answered_once_to_the_end(site: Site) -> None:
    for name in DEAD:
        assert site.eviction(name)["metadata"]["generation"] == 1, name


def test_a_restarted_agent_counts_on(site: Site) -> None:
    """The faults of a guest are in its Eviction, not in the daemon."""
    from ansible_collections.c5c3.ha.plugins.module_utils.decisions import fault_history

    faults = fault_history.read(site.eviction("failing disk"))
    assert [fault.told for fault in faults] == [True, False]


STORM, NOISY = 1000, 4


def test_a_storm_of_a_thousand_events_in_a_second(site: Site, tmp_path: Path) -> None:
    """None is lost, one guest died in its midst, and there is one action. Guests of libvirt's driver "test", since with QEMU
    this machine's libvirtd tells some 150 events a second; the libvirtd, its events and their way are the same."""
    uri = site.hypervisors[1].writable.replace("qemu+unix:///system", "test+unix:///default")
    agent = Agent("storm", uri, site.api.kubeconfig, tmp_path / "agent")
    connection = libvirt.open(uri)
    try:
        made = [
            connection.createXML(
                f"<domain type='test'><name>storm-{number}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
            )
            for number in range(NOISY + 1)
        ]
        agent.wait()
        died, noisy = made[0], made[1:]
        began = time.monotonic()
        for turn in range(STORM // NOISY // 2):
            for domain in noisy:
                domain.suspend()
                domain.resume()
            if turn == STORM // NOISY // 4:
                died.coreDump(str(tmp_path / "core"), libvirt.VIR_DUMP_CRASH)
        seconds = time.monotonic() - began

        def told() -> list[tuple[str, str, int]]:
            """What was left alone: word, guest, how many of them in one."""
            found = re.findall(
                r"left alone: lifecycle (SUSPENDED|RESUMED) \w+ (\S+)(?: \((\d+) times\))?", agent.text()
            )
            return [(word, uuid, int(count or 1)) for word, uuid, count in found]

        def asked() -> dict | None:
            return site.get("evictions").get(died.UUIDString())

        wait_until(lambda: sum(count for *_, count in told()) >= STORM, 60, "all events are told", 0.2)
        wait_until(asked, 60, "the Eviction of the guest that died in the storm", 0.2)
        print(f"{STORM} events within {seconds:.2f} s, told after {time.monotonic() - began:.2f} s")
        assert seconds < 1.0
        for word in ("SUSPENDED", "RESUMED"):
            assert sum(count for said, _, count in told() if said == word) == STORM // 2
        for domain in noisy:
            assert [word for word, uuid, _ in told() if uuid == domain.UUIDString()][-1] == "RESUMED", "as it is"
        assert (asked()["spec"]["cause"], asked()["metadata"]["generation"]) == ("InstanceStopped", 1)
        assert [uuid for uuid in site.get("evictions") if uuid in {each.UUIDString() for each in noisy}] == []
        assert len(re.findall(r"c5c3\.ha\.(?:eviction|domain_restart): ", agent.text())) == 1
    finally:
        agent.stop()
        for domain in connection.listAllDomains():
            if domain.name().startswith("storm-"):
                domain.destroy()
        site.api.kubectl("delete", "eviction", made[0].UUIDString(), "--ignore-not-found")
        connection.close()
