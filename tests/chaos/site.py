"""A lab with agents, two operators and power switches, on which rounds are played."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
import urllib.error
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import fenced
from tests.chaos import schedule, verdict, witness
from tests.chaos.faults import Acting, Faults
from tests.chaos.verdict import Facts, Violation
from tests.deployment import Deployment
from tests.lab import Lab, LabError, wait_until
from tests.timeline import Timeline

QUIET_TIMEOUT = 300.0
# Who healed a host has it on; a command to its power switch that was on its way may come later.
OFF_AGAIN_SECONDS = 15.0
RULEBOOK: dict[str, Any] = {
    "c5c3_ha_unreachable_seconds": 10,
    "c5c3_ha_not_ready_seconds": 20,
    "c5c3_ha_fence_timeout": 20,
    "c5c3_ha_evacuate_timeout": 60,
    "c5c3_ha_attempt_timeout": 120,
    # The same guests die again and again.
    "c5c3_ha_crash_restarts": 100,
    # Shorter than a site would have them, but none is off: a partition that ends is to be told from one that never was.
    "c5c3_ha_gate_limits": {"settle_seconds": 15.0, "cooldown_seconds": 3.0, "in_flight_seconds": 10.0},
}


@dataclasses.dataclass
class Played:
    """What became of a round."""

    drawn: schedule.Round
    facts: Facts
    violations: list[Violation]
    notes: list[str]
    seconds: float
    left_out: int


class Site:
    """The lab with this seed, brought up when it is not up, and what is deployed on it.

    :param say: called with a line of progress.
    :param logs: where the logs of a round with violations are kept.
    """

    def __init__(self, seed: int, hosts: int, say: Callable[[str], None], logs: Path) -> None:
        self.seed = seed
        self.hosts = hosts
        self.say = say
        self.logs = logs
        self._outside = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._lines: list[str] = []
        self._began = time.time()
        self.lab = Lab(seed=seed, hosts=hosts)
        self.deployment = Deployment(self.lab)

    # -- life ----------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Lab, power switches, agents and operators."""
        try:
            lab = Lab.attach(self.seed)
            if not lab.is_up() or len(lab.hosts) != self.hosts:
                raise LabError("not up")
            self.lab = lab
        except LabError:
            Lab.saved(self.seed).down()
            self.lab = Lab(seed=self.seed, hosts=self.hosts)
            times = self.lab.up(self.say)
            self.say(f"lab {self.seed} is up: {sum(times.values()):.0f} s")
        self.lab.enter()
        self.deployment = fenced.deployed(self.lab, **RULEBOOK)
        fenced.fence_all(self.lab)
        self.say("agents and two operators are at work, every host has its power switch")

    def down(self) -> None:
        """Leave the lab's network and end the lab."""
        self.leave()
        self.lab.down()

    def leave(self) -> None:
        """Leave the lab's network."""
        self.lab.leave(self._outside)

    # -- a round -------------------------------------------------------------------------------------------------------

    def play(self, drawn: schedule.Round) -> Played:
        """Boot servers, do the faults, heal, wait for quiet, judge."""
        self._lines = []
        began = self._began = time.time()
        for line in schedule.describe(drawn):
            self._line(line)
        places = schedule.servers(self.hosts)
        self._reset()
        servers = self._boot(places)
        lab = self.lab
        with (
            lab.oracle.watch(interval=0.1) as watch,
            witness.Witness(lab, watch) as seen,
            Acting(lab) as acting,
            Timeline(lab, lambda _seconds, text: self._tell(text)) as timeline,
        ):
            wait_until(
                lambda: all(seen.counting(servers[n]) for n, p in places.items() if p[1] != "stopped"), 90, "all count"
            )
            round_ = witness.Round(lab, self.deployment, seen, timeline, servers, places)
            faults = Faults(lab, self.deployment, acting, servers, self._left_out)
            self._skipped = 0
            self._began = round_.began
            self._tell(f"all servers run; the acting operator is on {acting.host}")
            self._run(drawn, faults, round_)
            self._tell("everything is healed now")
            quiet = round_.wait_quiet(QUIET_TIMEOUT, self._helper(), self._tell)
            facts = round_.facts(faults.spans, faults.kills, quiet)
        violations = verdict.judge(facts)
        for violation in violations:
            self._line(f"  VIOLATION {violation.kind}: {violation.what}")
        notes = verdict.notes(facts)
        for note in notes:
            self._line(f"  note: {note}")
        played = Played(drawn, facts, violations, notes, time.time() - began, self._skipped)
        if violations:
            self._keep(played)
        return played

    def _run(self, drawn: schedule.Round, faults: Faults, round_: witness.Round) -> None:
        """All faults at their times, each in a thread of its own."""
        victims: dict[schedule.Fault, tuple[str, list[str]]] = {}

        def do(fault: schedule.Fault) -> None:
            self._tell(f"FAULT {schedule.say(fault)}")
            if fault in drawn.must_evacuate:
                try:
                    host = faults.host_of(fault.target)
                except LabError as error:
                    self._left_out(f"left out: {fault.kind} {fault.target}: {error}")
                    return
                running = [name for name, (_host, want) in round_.places.items() if want == schedule.RUN]
                victims[fault] = host, [n for n in running if host in round_.witness.places(round_.servers[n])]
            if fault.kind == "drain":
                round_.drained.add(fault.target)
            faults.do(fault)

        def undo(fault: schedule.Fault) -> None:
            if fault in victims:
                round_.should_be_elsewhere(*victims[fault], self._tell)
            self._tell(f"HEAL  {fault.kind} {fault.target}")
            faults.undo(fault)

        def do_at_its_moment(fault: schedule.Fault) -> None:
            while (moment := round_.moment(fault.when)) is None:
                if time.time() > round_.began + drawn.seconds:
                    self._left_out(f"left out: {fault.kind} {fault.target}: {fault.when} never came")
                    return
                time.sleep(0.05)
            faults.landing = moment
            time.sleep(fault.at)
            do(fault)
            if fault.lasts:
                time.sleep(fault.lasts)
                undo(fault)

        timed = [fault for fault in drawn.faults if not fault.when]
        moments = [(fault.at, 0, do, fault) for fault in timed]
        moments += [(fault.until, 1, undo, fault) for fault in timed if fault.lasts]
        jobs: list[Future[None]] = []
        with ThreadPoolExecutor(16) as pool:
            jobs += [pool.submit(do_at_its_moment, fault) for fault in drawn.faults if fault.when]
            for at, _order, act, fault in sorted(moments, key=lambda moment: (moment[0], moment[1], moment[3])):
                time.sleep(max(0.0, round_.began + at - time.time()))
                jobs.append(pool.submit(act, fault))
        try:
            for job in jobs:
                job.result()
        finally:
            faults.undo_all()

    def _helper(self) -> Callable[[], None]:
        """What a person does when all is healed: hosts on again, nova-compute restarted where that is asked for."""
        off: dict[str, float] = {}
        restarted: dict[str, float] = {}

        def helps() -> None:
            for name, host in self.lab.hosts.items():
                if host.running:
                    off.pop(name, None)
                elif time.monotonic() - off.setdefault(name, time.monotonic()) > OFF_AGAIN_SECONDS:
                    self._tell(f"{name} was switched off after it was healed: on again")
                    with contextlib.suppress(LabError):
                        host.heal()
            witness.restart_computes(self.lab, restarted, self._tell)

        return helps

    # -- before a round ------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        """Nothing of the round before is left: no Eviction, no server, nothing disabled."""
        lab = self.lab
        lab.kubernetes.kubectl("delete", "evictions", "--all", "--wait")
        fenced.fence_all(lab)

        def enabled() -> bool:
            for host, service in lab.nova.compute_services().items():
                body: dict[str, Any] = {}
                if service["status"] != "enabled":
                    body["status"] = "enabled"
                if service["forced_down"]:
                    body = {"forced_down": False}
                if body:
                    with contextlib.suppress(urllib.error.HTTPError):
                        lab.nova.request("PUT", f"/os-services/{service['id']}", body)
                    if service["forced_down"]:
                        lab.kill(f"{host}/nova-compute")
            return all(
                (service["status"], service["forced_down"], service["state"]) == ("enabled", False, "up")
                for service in lab.nova.compute_services().values()
            )

        wait_until(enabled, 120, "every nova-compute is up and enabled", 3.0)
        lab.nova.delete(*lab.nova.servers(), timeout=120)
        lab.kubernetes.kubectl("delete", "evictions", "--all", "--wait")

    def _boot(self, places: dict[str, tuple[str, str]]) -> dict[str, str]:
        """The servers of a round, as they are to be."""
        nova = self.lab.nova
        compute = nova.connection().compute

        def boot(name: str) -> str:
            host, want = places[name]
            more = {"metadata": {"c5c3:ha": "skip"}} if want == schedule.LEFT_ALONE else {}
            return nova.boot(name, host=host, wait=False, **more).id

        servers = {name: boot(name) for name in places}
        for name in places:
            try:
                nova.wait_server(servers[name], timeout=150)
            except LabError as error:  # a host that has just come back may fail to build its first server
                self._line(f"  {name} is booted anew: {error}")
                nova.delete(servers[name])
                servers[name] = boot(name)
                nova.wait_server(servers[name], timeout=150)
        for name, (_host, want) in places.items():
            if want == schedule.STOPPED:
                wait_until(lambda name=name: self.lab.oracle.counters(servers[name]), 90, f"{name} has booted", 0.2)
                compute.stop_server(servers[name])
                nova.wait_server(servers[name], "SHUTOFF", timeout=90)
        return servers

    # -- telling -------------------------------------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        self._line(f"  {time.time() - self._began:+7.1f} s  {text}")

    def _left_out(self, text: str) -> None:
        self._skipped += 1
        self._tell(text)

    def _line(self, text: str) -> None:
        self._lines.append(text)
        self.say(text)

    def _keep(self, played: Played) -> None:
        """All that helps to find out why."""
        folder = self.logs / f"seed-{played.drawn.seed}-round-{played.drawn.number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "timeline.txt").write_text("\n".join(self._lines) + "\n")
        (folder / "facts.json").write_text(json.dumps(dataclasses.asdict(played.facts), indent=1, default=sorted))
        (folder / "daemons.log").write_text(self.deployment.logs())
        for log in witness.kept_logs(self.lab).glob("*.log"):
            shutil.copy(log, folder / f"operator-{log.name}")
        (folder / "pods.json").write_text(witness.pods(self.lab))
        for log in self.lab.directory.glob("*/log/*.log"):
            if log.parent.parent.name == "control" or log.stem in ("nova-compute", "libvirtd", "kubelet"):
                text = log.read_bytes()[-3_000_000:]
                (folder / f"{log.parent.parent.name}-{log.name}").write_bytes(text)
        self._line(f"  logs: {folder}")
