"""The lab's OpenStack: real guests on real hypervisors, faults, and an oracle that sees what happens to them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab import Lab, LabError, wait_until
from tests.lab.hosts import process_start
from tests.lab.nova import SERVICES, Nova
from tests.lab.oracle import Report

from .conftest import SEED

pytestmark = [pytest.mark.lab, pytest.mark.nova]
INSTANCES = "/var/lib/nova/instances"
# The scheduler's and the test's idea of time differ: a loaded machine takes its time.
LONG = 60


@pytest.fixture
def boot(lab_nova: Nova) -> Iterator[Callable[..., str]]:
    """Boot a server, wait until its guest counts, return its UUID; all are deleted at the end."""
    servers: list[str] = []

    def boot(name: str, host: str, **kwargs) -> str:
        server = lab_nova.boot(name, host, **kwargs).id
        servers.append(server)
        wait_counting(lab_nova, server)
        return server

    yield boot
    lab_nova.lab.heal()
    for host in lab_nova.lab.hosts:
        lab_nova.wait_service(host, "up", LONG)
    lab_nova.delete(*servers)


def wait_counting(nova: Nova, server: str, ticks: int = 2) -> None:
    before = nova.lab.oracle.counters(server)
    start = before.total if before else 0
    wait_until(
        lambda: (now := nova.lab.oracle.counters(server)) and now.total >= start + ticks,
        LONG,
        f"guest {server} counts on from {start}",
    )


def report(nova: Nova, server: str) -> Report:
    return next(each for each in nova.lab.oracle.report() if each.server == server)


def test_guests_count_on_every_host(lab_nova: Nova, boot: Callable[..., str]) -> None:
    servers = {boot(f"count-{host}", host): host for host in lab_nova.lab.hosts}
    reports = {each.server: each for each in lab_nova.lab.oracle.report() if each.server in servers}
    assert {server: each.hosts for server, each in reports.items()} == {s: {h: "running"} for s, h in servers.items()}
    assert {each.state for each in reports.values()} == {"counting"}
    assert {each.boots for each in reports.values()} == {1}
    assert not any(each.two_writers for each in reports.values())
    assert {each.name for each in reports.values()} == {f"count-{host}" for host in lab_nova.lab.hosts}


def test_live_migration_keeps_counting(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("live", "cmp01")
    compute = lab_nova.connection().compute
    with lab_nova.lab.oracle.watch() as watch:
        for target in ("cmp02", "cmp01"):
            compute.live_migrate_server(server, host=target, block_migration="auto")
            lab_nova.wait_server(server, host=target)
            watch.wait_counting(server, 3)
        assert [each.boots for each in watch.boots(server)] == [1]
        assert watch.gaps(server) == []
        assert watch.two_writers() == [], "two writers"
    assert report(lab_nova, server).hosts == {"cmp01": "running"}


def test_hard_reboot_is_one_more_boot(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("reboot", "cmp01")
    with lab_nova.lab.oracle.watch() as watch:
        lab_nova.connection().compute.reboot_server(server, "HARD")
        watch.wait_boots(server, 2, LONG)
        lab_nova.wait_server(server)
        assert watch.two_writers() == [], "two writers"
    assert lab_nova.lab.oracle.counters(server).boots == 2


def test_cold_migration_keeps_the_data(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("cold", "cmp01")
    compute = lab_nova.connection().compute
    before = lab_nova.lab.oracle.counters(server)
    with lab_nova.lab.oracle.watch() as watch:
        compute.migrate_server(server, host="cmp03")
        lab_nova.wait_server(server, "VERIFY_RESIZE", "cmp03")
        compute.confirm_server_resize(server)
        lab_nova.wait_server(server, host="cmp03")
        watch.wait_boots(server, before.boots + 1, LONG)
        assert watch.two_writers() == [], "two writers"
    assert lab_nova.lab.oracle.counters(server).total > before.total
    assert report(lab_nova, server).hosts == {"cmp03": "running"}


def test_killed_qemu_is_seen_and_restarted(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("killed", "cmp02")
    lab = lab_nova.lab
    with lab.oracle.watch() as watch:
        pid = lab.oracle.qemu_pid(server)
        lab.kill("killed")  # by its name
        wait_until(lambda: server not in watch.hosts(), 5, "the oracle sees that no QEMU is left")
        assert process_start(pid) is None
        assert report(lab_nova, server).state == "off"
        lab_nova.connection().compute.reboot_server(server, "HARD")
        watch.wait_boots(server, 2, LONG)
        assert watch.two_writers() == [], "two writers"
        gap = watch.gaps(server)[0]
        assert gap.end and gap.seconds > 2.5


def test_frozen_guest_is_silent(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("frozen", "cmp03")
    lab_nova.lab.freeze(server)
    frozen = report(lab_nova, server)
    assert (frozen.state, frozen.hosts) == ("silent", {"cmp03": "frozen"})
    lab_nova.lab.thaw(server)
    wait_counting(lab_nova, server)
    assert lab_nova.lab.oracle.counters(server).boots == 1


def test_killed_services_come_back(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("survivor", "cmp01")
    lab = lab_nova.lab
    for service in ("nova-compute", "libvirtd"):
        before = lab.hosts["cmp01"].service_pid(service)
        lab.kill(f"cmp01/{service}")
        wait_until(
            lambda service=service, before=before: lab.hosts["cmp01"].service_pid(service) not in (None, before),
            10,
            f"{service} is started again",
        )
    lab.wait_answering("cmp01/nova-compute")  # else it begins with what it finds being rebooted
    began = time.time()

    def told() -> bool:
        # Nova disables the service while libvirtd is away, and enables it again by itself.
        service = lab_nova.compute_services()["cmp01"]
        return service["state"] == "up" and service["status"] == "enabled" and service["updated_at"] > _iso(began)

    wait_until(told, LONG, "nova-compute of cmp01 has told Nova that it is well", 0.3)
    assert lab.oracle.counters(server).boots == 1
    lab_nova.connection().compute.reboot_server(server, "HARD")
    wait_until(lambda: lab.oracle.counters(server).boots == 2, LONG, "the new processes have begun it anew")
    lab_nova.wait_server(server)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def test_dead_host_is_down_and_returns(lab_nova: Nova, boot: Callable[..., str]) -> None:
    server = boot("lost", "cmp02")
    lab = lab_nova.lab
    lab.kill("cmp02")
    assert report(lab_nova, server).state == "off"
    assert lab_nova.wait_service("cmp02", "down", LONG) < 20
    lab.heal("cmp02")
    lab_nova.wait_service("cmp02", "up", LONG)
    # The domain is still defined on its disk, and Nova starts it on demand.
    lab_nova.connection().compute.reboot_server(server, "HARD")
    wait_until(lambda: lab.oracle.counters(server).boots == 2, LONG, "the guest runs again on its own host")
    lab_nova.wait_server(server, host="cmp02")


def test_evacuation_moves_the_guests_of_a_dead_host(lab_nova: Nova, boot: Callable[..., str]) -> None:
    servers = [boot(f"evacuated-{number}", "cmp02") for number in range(2)]
    lab, compute = lab_nova.lab, lab_nova.connection().compute
    with lab.oracle.watch() as watch:
        lab.kill("cmp02")
        lab_nova.force_down("cmp02")
        for server in servers:
            lab_nova.evacuate(server)
        for server in servers:
            watch.wait_boots(server, 2, LONG)
            lab_nova.wait_server(server)
            # Nova writes the new host a moment after the task has ended.
            wait_until(lambda server=server: compute.get_server(server).compute_host != "cmp02", 30, "it is elsewhere")
        lab.heal("cmp02")
        lab_nova.force_down("cmp02", False)
        lab_nova.wait_service("cmp02", "up", LONG)
        assert watch.two_writers() == [], "two writers"


def test_split_brain_is_seen(lab_nova: Nova, boot: Callable[..., str]) -> None:
    """Only the agent of the host is dead, its guest lives: an evacuation without fencing makes two writers."""
    server = boot("split", "cmp02")
    lab = lab_nova.lab
    lab.kill("cmp02/nova-compute", stay_down=True)
    with lab.oracle.watch() as watch:
        lab_nova.force_down("cmp02")
        lab_nova.evacuate(server, "cmp03")
        wait_until(lambda: len(watch.two_writers()) >= 2, LONG, "the oracle sees two writers")
        assert {each.server for each in watch.two_writers()} == {server}
        hows = {each.how.split()[0] for each in watch.two_writers()}
        wait_until(
            lambda: {each.how.split()[0] for each in watch.two_writers()} == {"runs", "counters"},
            10,
            f"both witnesses saw it, the processes and the disk (until now {hows})",
        )
        assert set(watch.hosts()[server]) == {"cmp02", "cmp03"}
        # the returning agent ends the old guest
        lab.heal("cmp02/nova-compute")
        wait_until(lambda: set(watch.hosts()[server]) == {"cmp03"}, LONG, "the old guest is gone")
    lab_nova.force_down("cmp02", False)


def test_two_qemus_on_one_disk_are_two_writers(lab_nova: Nova, boot: Callable[..., str]) -> None:
    """Without Nova: the locks of QEMU do not cross from one host's mount to the other's."""
    server = boot("twice", "cmp01")
    with lab_nova.lab.oracle.watch() as watch:
        assert watch.two_writers() == [], "two writers"
        second = start_qemu(lab_nova.lab, "cmp02", server)
        try:
            wait_until(watch.two_writers, 20, "the oracle sees two writers")
            assert {each.server for each in watch.two_writers()} == {server}
        finally:
            os.kill(lab_nova.lab.oracle.qemu_pid(server, "cmp02"), signal.SIGKILL)
            second.wait(10)


def start_qemu(lab: Lab, host: str, server: str):
    disk = f"file={INSTANCES}/{server}/disk,format=raw,if=virtio"
    command = ["qemu-system-x86_64", "-name", "guest=second,debug-threads=on", "-uuid", server]
    command += ["-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-display", "none", "-drive", disk]
    return lab.hosts[host].popen(command)


def test_frozen_storage_of_one_host(lab_nova: Nova, boot: Callable[..., str]) -> None:
    """Nova stays green while the guest hangs; the other host's guests go on."""
    hanging, other = boot("hanging", "cmp01"), boot("other", "cmp02")
    lab_nova.lab.freeze("cmp01/store")
    with lab_nova.lab.oracle.watch(gap=2.5) as watch:
        wait_until(lambda: watch.gaps(hanging), 20, "the guest on frozen storage does not count")
        watch.wait_counting(other, 2)
        assert lab_nova.compute_services()["cmp01"]["state"] == "up"
        lab_nova.lab.thaw("cmp01/store")
        watch.wait_counting(hanging, 2)
    assert lab_nova.lab.oracle.counters(hanging).boots == 1


@pytest.mark.slow
def test_control_plane_parts_come_back(lab_nova: Nova, boot: Callable[..., str]) -> None:
    lab = lab_nova.lab
    for name in SERVICES:
        before = lab.control.service_pid(name)
        lab.kill(name)
        wait_until(
            lambda name=name, before=before: lab.control.service_pid(name) not in (None, before), 20, f"{name} is back"
        )
    lab_nova.wait_ready()
    boot("after-the-storm", "cmp01")


def test_unknown_names_are_told(lab_nova: Nova) -> None:
    with pytest.raises(LabError, match="no image 'nosuch'; it has: tick|no flavor"):
        lab_nova.boot("never", flavor="nosuch")
    with pytest.raises(LabError, match="0 servers are called 'nosuch'"):
        lab_nova.server_id("nosuch")


@pytest.fixture(scope="module")
def fake() -> Iterator[Nova]:
    """A lab of its own with fake computes; the test process stays in the network of the main one."""
    lab = Lab(seed=SEED + 2000, hosts=3, parts=("nova",), computes="fake")
    lab.up()
    yield lab.nova
    lab.down()


@pytest.mark.slow
def test_fake_computes(fake: Nova) -> None:
    lab = fake.lab
    began = time.monotonic()
    servers = fake.in_network(lambda: [fake.boot(f"fake-{n}", wait=False).id for n in range(20)])
    for server in servers:
        fake.in_network(lambda server=server: fake.wait_server(server, timeout=LONG))
    print(f"20 servers on fake computes: {time.monotonic() - began:.1f} s")
    guests = lab.oracle.guests()
    assert {each.server for each in guests} == set(servers)
    assert len(guests) == 20
    # a power cycle ends the guests
    victim = guests[0]
    lab.kill(victim.host)
    assert victim not in lab.oracle.guests()
    lab.heal(victim.host)
    assert fake.wait_service(victim.host, "up", LONG) < LONG
    # Nova shows the service up from before until it has been silent for 15 s: the driver's own start is what counts.
    wait_until(lambda: victim not in lab.oracle.guests(), 30, "the guests of a host that lost its power are off")
    fake.hypervisors.fault(victim.host, spawn="fail")
    with pytest.raises(LabError, match="is in ERROR"):
        fake.in_network(lambda: fake.boot("refused", victim.host))


@pytest.mark.slow
def test_shared_storage_locks_between_hosts() -> None:
    """One mount for all hosts: QEMU's image lock of cmp01 holds on cmp02, and returns after the store was killed."""
    lab = Lab(seed=SEED + 3000, hosts=2, parts=("nova",), storage="shared")
    lab.up()
    try:
        nova = lab.nova
        server = nova.in_network(lambda: nova.boot("locked", "cmp01").id)
        wait_counting(nova, server)
        second = start_qemu(lab, "cmp02", server)
        assert second.wait(20) == 1, "QEMU must not get the lock"
        nova.in_network(
            lambda: nova.connection().compute.live_migrate_server(server, host="cmp02", block_migration="auto")
        )
        nova.in_network(lambda: nova.wait_server(server, host="cmp02"))
        wait_counting(nova, server)
        lab.kill("store")
        nova.in_network(lambda: nova.connection().compute.reboot_server(server, "HARD"))
        wait_until(lambda: lab.oracle.counters(server).boots == 2, LONG, "the guest is back on the new mount")
    finally:
        lab.down()
