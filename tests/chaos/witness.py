"""Sees a round: QEMUs and hosts as they come and go, and at the end everything that the verdict wants to know."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.moments import Moment, reached
from tests.chaos.schedule import RUN, STOPPED
from tests.chaos.verdict import Evacuation, Facts, Life, ServerFacts, Span, condition, moment, proof
from tests.deployment import NAMESPACE, Deployment
from tests.evictor import GROUP
from tests.fenced import hypervisors
from tests.lab import Lab, LabError
from tests.lab.oracle import Watch
from tests.timeline import Timeline

# A guest counts once a second; on a busy machine it may miss some.
SILENT = 6.0
# Nobody acts any more, but a server is not as it should be: so long it is given.
HURT_SECONDS = 60.0
QUIET_SECONDS = 8.0


class Witness:
    """Looks every tenth of a second at all QEMUs and hosts."""

    def __init__(self, lab: Lab, watch: Watch) -> None:
        self.lab = lab
        self.watch = watch
        self.began = time.time()
        self._lives: dict[int, Life] = {}
        self._ended: list[Life] = []
        self._off: dict[str, Span] = {}
        self._was_off: list[Span] = []
        self._counted: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        looks = 0
        while not self._stop.wait(0.1):
            with self._lock:
                self._look()
                if looks % 5 == 0:
                    self._look_at_disks()
            if looks % 20 == 0:
                self._keep_logs()
            looks += 1

    def _look(self) -> None:
        now = time.time()
        for name, host in self.lab.hosts.items():
            if host.running and name in self._off:
                span = self._off.pop(name)
                self._was_off.append(Span("off", name, span.began, now))
            elif not host.running and name not in self._off:
                self._off[name] = Span("off", name, now)
        guests = {guest.pid: guest for guest in self.watch.guests()}
        for pid in self._lives.keys() - guests.keys():
            life = self._lives.pop(pid)
            self._ended.append(Life(life.server, life.host, pid, life.began, now))
        for pid, guest in guests.items():
            self._lives.setdefault(pid, Life(guest.server, guest.host, pid, now))

    def _look_at_disks(self) -> None:
        now = time.time()
        for server in self.lab.oracle.servers():
            counters = self.lab.oracle.counters(server)
            if counters and self._counted.get(server, (-1, 0.0))[0] != counters.total:
                self._counted[server] = (counters.total, now)

    def _keep_logs(self) -> None:
        """Kubelet removes the logs of a pod that it removes: a second name keeps them."""
        for name, host in self.lab.hosts.items():
            for log in (host.directory / "var/log/pods").glob(f"{NAMESPACE}_*operator*/*/*.log"):
                kept = kept_logs(self.lab) / f"{name}-{log.parts[-3].rsplit('_', 2)[-2]}-{log.name}"
                if not kept.exists():
                    kept.parent.mkdir(exist_ok=True)
                    with contextlib.suppress(OSError):
                        kept.hardlink_to(log)

    def counting(self, server: str) -> bool:
        """Whether its guest has counted just now."""
        return time.time() - self._counted.get(server, (0, 0.0))[1] < SILENT

    def places(self, server: str) -> list[str]:
        """Hosts on which it has a QEMU now."""
        with self._lock:
            return sorted({life.host for life in self._lives.values() if life.server == server})

    def lives(self, since: float) -> tuple[Life, ...]:
        """QEMUs that lived after a moment."""
        with self._lock:
            return tuple(life for life in (*self._ended, *self._lives.values()) if (life.ended or since) >= since)

    def off(self, since: float) -> tuple[Span, ...]:
        """When which host was off after a moment."""
        with self._lock:
            return tuple(span for span in (*self._was_off, *self._off.values()) if (span.ended or since) >= since)


class Round:
    """What is known of the round that runs: its servers, and how they were at its begin.

    :param places: server's name to (host, what it is to be).
    """

    def __init__(
        self,
        lab: Lab,
        deployment: Deployment,
        witness: Witness,
        timeline: Timeline,
        servers: dict[str, str],
        places: dict[str, tuple[str, str]],
    ) -> None:
        self.lab = lab
        self.deployment = deployment
        self.witness = witness
        self.timeline = timeline
        self.servers = servers
        self.places = places
        self.drained: set[str] = set()
        self.late: list[str] = []
        self.began = time.time()
        self.counters0 = {server: lab.oracle.counters(server) for server in servers.values()}
        self.commands0 = len(self._switch_log())

    # -- waiting for quiet ---------------------------------------------------------------------------------------------

    def wait_quiet(self, timeout: float, help_: Callable[[], None], tell: Callable[[str], None]) -> str:
        """Wait until nothing is at work any more; return what was waited for in vain, or nothing.

        :param help_: called at each look: what a person would do meanwhile.
        """
        end = time.monotonic() + timeout
        quiet = hurt = None
        told = ""
        while True:
            help_()
            work, wrong = self._looked()
            now = time.monotonic()
            said = "; ".join(work or wrong)
            if said != told:
                told = said
                tell(f"waiting: {said[:300]}" if said else "quiet")
            quiet = (quiet or now) if not work and not wrong else None
            hurt = (hurt or now) if not work else None
            if (quiet and now - quiet > QUIET_SECONDS) or (hurt and now - hurt > HURT_SECONDS):
                return ""
            if now > end:
                return f"after {timeout:.0f} s: {'; '.join(work or wrong)}"
            time.sleep(1.0)

    def _looked(self) -> tuple[list[str], list[str]]:
        """(what is at work still, what is not as it should be)."""
        try:
            return self._at_work(), self._wrong()
        except (OSError, LabError, KeyError) as error:
            return [f"nobody can tell: {error}"], []

    def _at_work(self) -> list[str]:
        kubernetes, nova = self.lab.kubernetes, self.lab.nova
        found = [f"{name} is off" for name, host in self.lab.hosts.items() if not host.running]
        found += [f"Node {host} is not Ready" for host in self.lab.hosts if kubernetes.node_ready(host) != "True"]
        for host, service in sorted(nova.compute_services().items()):
            if service["state"] != "up":
                found.append(f"nova-compute of {host} is {service['state']}")
            if service["forced_down"]:
                found.append(f"{host} is forced down")
            elif service["status"] != "enabled" and host not in self.drained:
                found.append(f"{host} is disabled ({service['disabled_reason']})")
        found += [f"no agent on {h}" for h in self.lab.hosts if not self.deployment.connected(h)] if not found else []
        operators = {each.host for each in self.deployment.daemons("operator")}
        if len(operators) < self.deployment.operators:
            found.append(f"operators run on {', '.join(sorted(operators)) or 'no host'} alone")
        for eviction in kubernetes.request("GET", f"{GROUP}/evictions")["items"]:
            evicting = condition(eviction, "Evicting")
            if evicting.get("status") != "False":
                told = evicting.get("message", "not begun")
                found.append(f"Eviction {eviction['metadata']['name']}: {told}")
        found += [
            f"{server['name']} is at {server['OS-EXT-STS:task_state']}" for server in self._nova() if _busy(server)
        ]
        return found

    def _nova(self) -> list[dict[str, Any]]:
        listed = self.lab.nova.request("GET", "/servers/detail?all_tenants=1")["servers"]
        return [server for server in listed if server["id"] in self.servers.values()]

    def _wrong(self) -> list[str]:
        found = []
        for server in self._facts_of_servers():
            if server.want == RUN and not server.runs:
                found.append(f"{server.name} is {server.status} and {'counts' if server.counting else 'silent'}")
            if server.want == STOPPED and server.status != "SHUTOFF":
                found.append(f"{server.name} is {server.status}")
            if server.locked:
                found.append(f"{server.name} is locked")
        return found

    def _facts_of_servers(self) -> list[ServerFacts]:
        facts = []
        seen = {server["id"]: server for server in self._nova()}
        for name, server in self.servers.items():
            now = seen.get(server, {})
            before, after = self.counters0[server], self.lab.oracle.counters(server)
            facts.append(
                ServerFacts(
                    id=server,
                    name=name,
                    want=self.places[name][1],
                    status=now.get("status", "gone"),
                    host=now.get("OS-EXT-SRV-ATTR:host") or "",
                    task=now.get("OS-EXT-STS:task_state"),
                    locked=bool(now.get("locked")),
                    counting=self.witness.counting(server),
                    boots0=before.boots if before else 0,
                    boots1=after.boots if after else 0,
                    total0=before.total if before else 0,
                    total1=after.total if after else 0,
                )
            )
        return facts

    # -- during the round ----------------------------------------------------------------------------------------------

    def moment(self, when: str) -> Moment | None:
        """Whether that moment of the Eviction of a host has come."""
        return reached(when, self._seen(), self.witness.lives(self.began), self.began)

    def should_be_elsewhere(
        self, host: str, servers: list[str], tell: Callable[[str], None], timeout: float = 20
    ) -> None:
        """Note the running servers that still are not elsewhere, although their host has been dead for long."""
        end = time.monotonic() + timeout
        left: list[str] = []
        while True:
            left = [
                name
                for name in servers
                if not [place for place in self.witness.places(self.servers[name]) if place != host]
            ]
            if not left or time.monotonic() > end:
                break
            time.sleep(0.5)
        if left:
            self.late.append(f"{', '.join(left)} of {host}")
            tell(f"not evacuated in time: {', '.join(left)} of {host}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def facts(self, faults: list[Span], kills: list[tuple[float, str, int]], quiet: str) -> Facts:
        """Everything, after quiet."""
        services = self.lab.nova.compute_services()
        return Facts(
            servers=tuple(self._facts_of_servers()),
            lives=self.witness.lives(self.began),
            kills=tuple(kills),
            off=self.witness.off(self.began),
            faults=tuple(faults),
            commands=tuple(self._switch_log()[self.commands0 :]),
            evacuations=tuple(self._evacuations()),
            proofs=tuple(sorted({told for one in self._seen() if (told := proof(one))})),
            evictions=self._evictions(),
            two_writers=tuple(
                (each.server, each.how) for each in self.witness.watch.two_writers() if each.at >= self.began
            ),
            late=tuple(self.late),
            services=services,
            drained=frozenset(self.drained),
            quiet=quiet,
        )

    def _switch_log(self) -> list[tuple[float, str, str]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in (self.lab.bmc.directory / "switch.log").read_text().splitlines():
                when, host, command = line.split()
                found.append((float(when), host, command))
        return found

    def _evacuations(self) -> list[Evacuation]:
        records = self.lab.nova.request("GET", "/os-migrations?migration_type=evacuation")["migrations"]
        return [
            Evacuation(
                record["instance_uuid"],
                record["source_compute"],
                record.get("dest_compute") or "",
                moment(record["created_at"]) or 0.0,
                record["status"],
            )
            for record in records
            if record["instance_uuid"] in self.servers.values()
        ]

    def _seen(self) -> list[dict[str, Any]]:
        """All that was ever seen of Evictions."""
        return [one.object for one in self.timeline.seen if one.at >= self.began and one.type != "DELETED"]

    def _evictions(self) -> dict[str, dict[str, Any]]:
        """Each end of each Eviction, and those that have none."""
        listed = {
            each["metadata"]["uid"]: each for each in self.lab.kubernetes.request("GET", f"{GROUP}/evictions")["items"]
        }
        found: dict[str, dict[str, Any]] = {}
        for eviction in (*self._seen(), *listed.values()):
            uid = eviction["metadata"]["uid"]
            if condition(eviction, "Evicting").get("status") == "False":
                found[f"{uid} {(eviction.get('status') or {}).get('finishedAt')}"] = eviction
        for uid, eviction in listed.items():
            if condition(eviction, "Evicting").get("status") != "False":
                found[uid] = eviction
        return found


def _busy(server: dict[str, Any]) -> bool:
    return bool(server.get("OS-EXT-STS:task_state"))


def restart_computes(lab: Lab, done: dict[str, float], tell: Callable[[str], None]) -> None:
    """What HostReturn asks a person for: a nova-compute whose evacuation records stay open is started once more."""
    with contextlib.suppress(OSError, LabError):
        for host, hypervisor in hypervisors(lab).items():
            told = condition(hypervisor, "HostReturn")
            if told.get("reason") == "EvacuationsOpen" and time.monotonic() - done.get(host, -60.0) > 30.0:
                since = moment(told.get("lastTransitionTime")) or 0.0
                if time.time() - since > 40.0:  # it takes some seconds to start, and more on a busy machine
                    done[host] = time.monotonic()
                    tell(f"as HostReturn asks: nova-compute of {host} is restarted")
                    lab.kill(f"{host}/nova-compute")


def kept_logs(lab: Lab) -> Path:
    """The folder with the logs of all operators, those whose pods are gone included."""
    return lab.directory / "operators"


def pods(lab: Lab) -> str:
    """The deployment's pods, for the log."""
    with contextlib.suppress(OSError, LabError):
        return json.dumps(lab.kubernetes.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods"), indent=1)
    return ""
