"""python -m tests.demo [--seed N] [--clean]."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.deployment import Deployment
from tests.lab import Lab, LabError
from tests.timeline import Timeline, finished

SERVERS = {"web": "cmp01", "db": "cmp02", "mail": "cmp03"}


class Demo:
    """The lab, what is deployed on it, and what is said about it."""

    def __init__(self, seed: int) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.seed = seed
        self.began = time.monotonic()
        self.lab = self._lab()
        self.deployment = Deployment(self.lab)
        self.results: list[tuple[str, str, str]] = []

    def _lab(self) -> Lab:
        try:
            lab = Lab.attach(self.seed)
            if lab.is_up():
                self.head(f"The lab {self.seed} is up from an earlier run")
                return lab
        except LabError:
            pass
        self.head(
            "Starting the lab: Kubernetes, OpenStack, three hypervisors (all real, all in namespaces of this machine)"
        )
        lab = Lab(seed=self.seed)
        lab.up(self.step)
        return lab

    def head(self, text: str) -> None:
        """A new chapter."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def step(self, text: str) -> None:
        """A step of a chapter, with the seconds since the begin of the demo."""
        self.console.print(f"  [dim]{time.monotonic() - self.began:6.1f} s[/dim]  {escape(text)}")

    def event(self, seconds: float, text: str) -> None:
        """Something that happened, with the seconds since the fault."""
        self.console.print(f"  [cyan]{seconds:+7.2f} s[/cyan]  {escape(text)}")

    def run(self) -> int:
        """The whole demo; 0 when all came back and nothing ran twice."""
        self.lab.enter()
        self.head("Deploying agent and operator with the playbook c5c3.ha.data_plane")
        recap = self.deployment.deploy(self.step)
        self.step(f"deployed: {recap['changed']} changes")
        self.deployment.wait_ready()
        self.step("every agent watches its guests, an operator holds the Lease")
        self.head("Booting servers")
        servers = self.boot()
        with self.lab.oracle.watch(interval=0.02) as watch, Timeline(self.lab, self.event) as timeline:
            self.guest_dies(servers["web"], watch, timeline)
            self.host_is_drained(servers, watch, timeline)
            two = watch.two_writers()
        return self.summary(servers, two)

    def boot(self) -> dict[str, str]:
        """The servers by name; those of an earlier run are used again."""
        compute = self.lab.nova.connection().compute
        for service in compute.services(binary="nova-compute"):
            if service.status != "enabled" and "c5c3.ha" in (service.disabled_reason or ""):
                compute.enable_service(service, service.host, "nova-compute")
        there = {server.name: server for server in compute.servers(all_projects=True)}
        known = {}
        for name, host in SERVERS.items():
            server = there.get(name)
            if server is not None and server.status != "ACTIVE":
                self.lab.nova.delete(server.id)
                server = None
            if server is None:
                server = self.lab.nova.boot(name, host=host)
            known[name] = server.id
        with self.lab.oracle.watch() as watch:
            for name, server in known.items():
                watch.wait_counting(server)
                host = compute.get_server(server).compute_host
                self.step(
                    f"{name} runs on {host} and counts (its disk says: boot {self.lab.oracle.counters(server).boots})"
                )
        return known

    def guest_dies(self, server: str, watch, timeline: Timeline) -> None:
        """(a) QEMU is killed with -9; the guest's own boot counter says when it lives again."""
        self.head("(a) The QEMU of web is killed with kill -9")
        boots = self.lab.oracle.counters(server).boots
        began = timeline.mark("kill -9")
        self.lab.kill(server)
        boot = watch.wait_boots(server, boots + 1, 120)
        self.event(boot.at - began, f"the guest counts boot {boot.boots}: it lives again")
        timeline.wait(server, lambda seen: finished(seen) and seen.at > began, 120)
        self.results.append(("a guest's QEMU was killed", "runs again, data kept", f"{boot.at - began:.2f} s"))

    def host_is_drained(self, servers: dict[str, str], watch, timeline: Timeline) -> None:
        """(b) One Eviction empties a hypervisor by live migration."""
        compute = self.lab.nova.connection().compute
        host = compute.get_server(servers["db"]).compute_host
        moved = [name for name, server in servers.items() if compute.get_server(server).compute_host == host]
        self.head(f"(b) {host} is drained by one Eviction ({', '.join(moved)} on it)")
        boots = {name: self.lab.oracle.counters(servers[name]).boots for name in moved}
        eviction = {
            "apiVersion": "hypervisor.c5c3.io/v1",
            "kind": "Eviction",
            "metadata": {"name": host},
            "spec": {"hypervisor": host, "reason": "demo", "cause": "Maintenance"},
        }
        self.lab.kubernetes.kubectl("delete", "eviction", host, "--ignore-not-found")
        began = timeline.mark(f"kubectl create: an Eviction of {host}")
        self.lab.kubernetes.request("POST", "/apis/hypervisor.c5c3.io/v1/evictions", eviction)
        end = timeline.wait(host, lambda seen: finished(seen) and seen.at > began, 180)
        for name in moved:
            now = compute.get_server(servers[name]).compute_host
            if now == host or self.lab.oracle.counters(servers[name]).boots != boots[name]:
                raise LabError(f"{name} is on {now} with another boot count: it was not live-migrated")
            gaps = [gap for gap in watch.gaps(servers[name]) if gap.start > began]
            self.event(end.at - began, f"{name} runs on {now}, not rebooted, counting all the while ({len(gaps)} gaps)")
        self.results.append((f"{host} was drained", "live-migrated, not rebooted", f"{end.at - began:.2f} s"))

    def summary(self, servers: dict[str, str], two: list) -> int:
        """A table, and where to look."""
        self.head("Summary")
        table = Table(box=None, pad_edge=False)
        for column in ("what", "outcome", "time"):
            table.add_column(column)
        for row in self.results:
            table.add_row(*row)
        table.add_row("two copies of one guest on one disk", "seen!" if two else "never seen", f"{len(servers)} guests")
        self.console.print(table)
        self.console.print(self.lab.kubernetes.kubectl("get", "evictions"))
        self.console.print(
            f"The lab is left up ({time.monotonic() - self.began:.0f} s so far). Look around:\n"
            f"  tests/lab/lab status --seed {self.seed}      tests/lab/lab kubectl --seed {self.seed} get evictions,hypervisors\n"
            f"  tests/lab/lab oracle --seed {self.seed}      tests/lab/lab kill db --seed {self.seed}\n"
            "Remove it all: make demo-clean"
        )
        return 1 if two else 0


def main() -> int:
    """Run or clean; a failure ends with one message and the way to the logs."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=70, help="which lab (default 70)")
    parser.add_argument("--clean", action="store_true", help="stop the demo's lab and remove all of it")
    arguments = parser.parse_args()
    try:
        if arguments.clean:
            Lab.saved(arguments.seed).down()
            return 0
        return Demo(arguments.seed).run()
    except LabError as error:
        print(f"\nThe demo failed: {error}\nLogs: /var/lib/c5c3-lab/{arguments.seed}/*/log", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
