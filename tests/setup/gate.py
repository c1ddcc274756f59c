"""``make test``: every gate, side by side where one does not need the other, and one closing line that counts the tests.

``python -m tests.setup.gate [GATE ...]`` runs only those gates. Lint, sanity and unit tests run two at a time while the
lab's artefacts are being built (minutes on a fresh machine, nothing later). Integration tests run after them and alone, on two labs,
each file of tests on one of them; last come the scenarios of the stack, two at a time. On a machine as busy as that a process may not
get its turn for seconds: a test that fails is run once more and told as RERUN, in the summary, too. What must never happen, once is
enough: a server twice, a restart too many, data or a server lost. Every gate's whole output is kept in the cache's folder logs/.

A gate that looks at files alone need not look twice at the same ones: what passed on this machine with the same content of the
checkout is told and left out; likewise a role's scenario, while its role, its scenario and the harness are the same. Of the
scenarios those run that end within the hour; what was left out is named. ``make thorough`` leaves out nothing.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests import selection
from tests.setup import system

IN = str(system.ROOT / "tests" / "setup" / "in")
STARTED = time.monotonic()
PRINTING = threading.Lock()


@dataclass
class Gate:
    """One gate: its command, and what came of it."""

    name: str
    argv: list[str]
    limit: float  # seconds after which it is stopped and has failed
    counts: bool = False  # pytest, whose tests are counted
    live: bool = False  # print its output as it comes
    inputs: Callable[[], list[Path]] | None = None  # the files its outcome depends on; None when on more than files
    alone: bool = False  # of the real parts: runs after the others, with none of them beside it
    needs: float = 0.0  # seconds that must be left of HOUR for it to begin; 0 when it always does
    before: str | None = None  # when it passed with the same files
    left_out: bool = False
    retried: bool = False  # a scenario: the whole is run once more when it has failed
    code: int | None = None
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    again: int = 0  # tests that passed or failed at their second run
    running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def worth_another(self) -> bool:
        """Whether a scenario failed, no acknowledged write was lost, and CI has the time to run it once more."""
        there_is_time = time.monotonic() - STARTED + self.needs < AGAIN_WITHIN
        return bool(
            self.retried and self.code and there_is_time and not LOST.search(self.log.read_text(errors="replace"))
        )

    @property
    def log(self) -> Path:
        return system.cache() / "logs" / f"gate-{self.name}.log"

    @property
    def report(self) -> Path:
        return system.cache() / "logs" / f"gate-{self.name}.xml"


def pytest_gate(name: str, part: str, folder: str, limit: float, *options: str, **kind: Any) -> Gate:
    report = system.cache() / "logs" / f"gate-{name}.xml"
    argv = [
        IN,
        part,
        "pytest",
        folder,
        *options,
        f"--junitxml={report}",
        "-o",
        f"cache_dir={system.cache()}/pytest-{name}",
        "--durations=10",
        "--durations-min=5",
    ]
    return Gate(name, argv, limit, counts=True, **kind)


# What a failed test of the real parts says when it must not be tried again.
NEVER_AGAIN = ("two writers", "more than once", "twice", "booted", "forgotten", "lost", "doubled")


def gates() -> list[Gate]:
    """Return all gates; those that run alone come last, and need what `lab` prepares."""
    halves = ("-n", "2")  # half of a unit test's time is waiting
    again = ("--reruns", "1", *(f"--rerun-except={text}" for text in NEVER_AGAIN))
    return [
        Gate("lint", [IN, "dev", "python", "-m", "tests.setup.lint"], 600, inputs=selection.checkout),
        pytest_gate("unit", "dev", "tests/unit", 600, *halves, inputs=selection.checkout),
        Gate("build", [IN, "dev", "python", "-m", "tests.setup.build"], 300, inputs=selection.checkout),
        pytest_gate("unit-oldest", "oldest", "tests/unit", 900, *halves, inputs=selection.checkout),
        Gate("sanity", [IN, "dev", "python", "-m", "tests.setup.sanity", "dev"], 1500, inputs=selection.checkout),
        Gate(
            "sanity-oldest",
            [IN, "oldest", "python", "-m", "tests.setup.sanity", "oldest"],
            1500,
            inputs=selection.checkout,
        ),
        Gate("lab", ["nice", IN, "lab", "true"], 2400),
        pytest_gate(
            "integration",
            "lab",
            "tests/integration",
            3300,
            *("-v", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", *again),
            live=True,
            alone=True,
        ),
        *map(stack_gate, drawn(STACK, selection.seed())),
    ]


@dataclass(frozen=True)
class Scenario:
    """One of extensions/molecule, and what its outcome depends on beside the harness.

    :param seconds: what converge, second run, verify, refusals, restart and cheap faults take on two cores with another one beside it.
    """

    name: str
    distribution: str
    seconds: float
    roles: tuple[str, ...]


# The first is part of every run. Of the others as many as end within HOUR, another one first whenever the content changes;
# what passed once with the same files need not run again on this machine, so that all have had their turn after some runs.
STACK = (
    Scenario("memcached", "trixie", 300, ("memcached",)),
    Scenario("galera", "trixie", 600, ("galera", "galera_proxy")),
    Scenario("rabbitmq", "trixie", 650, ("rabbitmq",)),
    Scenario("valkey", "trixie", 500, ("valkey",)),
    Scenario("ovn", "trixie", 700, ("ovn_central", "ovn_controller")),
    Scenario(
        "stack",
        "bookworm",
        700,
        ("memcached", "valkey", "rabbitmq", "galera", "galera_proxy", "ovn_central", "ovn_controller"),
    ),
)
HOUR = 3500.0
# CI stops after 90 minutes.
AGAIN_WITHIN = 4800.0
# What a scenario says when it must not be tried again.
LOST = re.compile(r"\b[1-9][0-9]* lost\b|\b([2-9]|[1-9][0-9]+) failovers\b")


def drawn(scenarios: tuple[Scenario, ...], seed: str) -> list[Scenario]:
    """The order in which scenarios have their turn: the first one first, the others by the content of the checkout."""
    first, *others = scenarios
    return [first, *random.Random(seed).sample(others, len(others))]


def stack_gate(of: Scenario) -> Gate:
    """The scenario of one role; it depends on what its roles, its scenario and the harness are."""
    there = ("roles/ca", "extensions/molecule/config.yml", "extensions/molecule/shared", "tests/stack", "tests/setup")
    folders = [
        *there,
        *(f"roles/{role}" for role in of.roles),
        f"extensions/molecule/{of.name}",
        "playbooks",
        "plugins/filter",
        # what runs on a host, and what the filters decide with
        *(f"plugins/modules/{name}.py" for name in ("files", "galera_info", "service_info")),
        "plugins/module_utils/service_age.py",
        "plugins/module_utils/decisions/galera_plan.py",
        "tests/requirements",
    ]
    options = ("-v", "-W", "ignore::pytest.PytestConfigWarning", "--role", of.name, "--distro", of.distribution)

    def inputs() -> list[Path]:
        return [path for path in selection.checkout() if any(path.is_relative_to(system.ROOT / f) for f in folders)]

    return pytest_gate(
        f"stack-{of.name}",
        "hosts",
        "tests/stack",
        2 * of.seconds + 600,
        *(*options, "--faults", "cheap"),
        live=True,
        inputs=inputs,
        alone=True,
        needs=of.seconds if of is not STACK[0] else 0.0,
        retried=True,
    )


def say(text: str) -> None:
    with PRINTING:
        print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a gate's process group: first as Ctrl-C would, so that fixtures clean up, then for good."""
    for number, patience in ((signal.SIGINT, 90), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def stop_all(gates: Sequence[Gate]) -> None:
    """End those that still run."""
    for gate in gates:
        if gate.running and gate.running.poll() is None:
            stop(gate.running)


def finish(chosen: Sequence[Gate], pending: Sequence[Future], *lanes: ThreadPoolExecutor) -> None:
    """Wait until all that is pending in the lanes is done; Ctrl-C ends what runs before the lanes are waited for."""
    try:
        for future in pending:
            future.result()
    except KeyboardInterrupt:
        for lane in lanes:
            lane.shutdown(wait=False, cancel_futures=True)
        stop_all(chosen)
        raise


def recorded(gate: Gate) -> selection.Record | None:
    """Where it is kept that the gate has passed with the files as they are."""
    return selection.Record(f"gate-{gate.name}", *gate.inputs()) if gate.inputs else None


def run_real(gate: Gate) -> None:
    """Run a gate of the real parts; a scenario that has failed once more, which is never left out."""
    run(gate)
    if gate.worth_another():
        say(
            f"{gate.name} is run once more, as a test of the real parts that fails is: on a busy machine it may not get its turn"
        )
        before, gate.passed, gate.failed, gate.skipped = gate.failed, 0, 0, 0
        run(gate, within=math.inf)
        gate.again += before


def run(gate: Gate, within: float = HOUR) -> Gate:
    """Run one gate to its end or limit; its output goes to its log, and to ours when it is live or has failed.

    One that would not end within so many seconds of the whole run is left out.
    """
    record = recorded(gate)
    gate.before = record.when() if record and not selection.everything() else None
    if gate.before:
        gate.code = 0
        say(f"{gate.name} passed with the same files at {gate.before}")
        return gate
    if gate.needs and not selection.everything() and time.monotonic() - STARTED + gate.needs > within:
        gate.code, gate.left_out = 0, True
        say(f"{gate.name} is left out: it takes {gate.needs:.0f} s, and the run is to end within the hour")
        return gate
    say(f"{gate.name} begins")
    began = time.monotonic()
    gate.report.unlink(missing_ok=True)
    with gate.log.open("wb") as log:
        gate.running = subprocess.Popen(
            gate.argv,
            cwd=system.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if gate.live else log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        alarm = threading.Timer(gate.limit, stop, [gate.running])
        alarm.start()
        try:
            if gate.live:
                assert gate.running.stdout is not None
                for line in gate.running.stdout:
                    log.write(line)
                    log.flush()
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()
            gate.code = gate.running.wait()
        finally:
            alarm.cancel()
    gate.seconds = time.monotonic() - began
    if gate.counts:
        count(gate)
    told = (
        f"{gate.passed} passed, {gate.failed} failed, {gate.skipped} skipped"
        if gate.counts
        else ("clean" if gate.code == 0 else "findings")
    )
    if gate.seconds >= gate.limit:
        told += f", stopped at its limit of {gate.limit:.0f} s"
    if record and gate.code == 0 and record.path == recorded(gate).path:  # nobody edited a file meanwhile
        record.write()
    say(f"{gate.name} {'ok' if gate.code == 0 else 'FAILED'} after {gate.seconds:.1f} s: {told}")
    if gate.code != 0 and not gate.live:
        with PRINTING:
            width = min(shutil.get_terminal_size().columns, 100)
            print(
                f"{f' {gate.name} ':=^{width}}\n{gate.log.read_text(errors='replace').rstrip()}\n{'=' * width}",
                flush=True,
            )
    return gate


def count(gate: Gate) -> None:
    """Read the numbers of a pytest run; a run that counted nothing has failed, whatever its exit code says."""
    try:
        suites = ElementTree.parse(gate.report).getroot().iter("testsuite")
        for suite in suites:
            total, failed, errors, skipped = (
                int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
            )
            gate.failed += failed + errors
            gate.skipped += skipped
            gate.passed += total - failed - errors - skipped
    except (OSError, ElementTree.ParseError):
        pass
    found = re.findall(r"(\d+) rerun", gate.log.read_text(errors="replace"))
    gate.again = int(found[-1]) if found else 0
    if gate.code == 0 and gate.passed == 0:
        say(f"{gate.name} ran no test")
        gate.code = 5


def main(argv: list[str]) -> int:
    known = gates()
    unknown = set(argv) - {gate.name for gate in known}
    if unknown:
        print(f"no gate {', '.join(sorted(unknown))}: choose from {', '.join(gate.name for gate in known)}")
        return 2
    chosen = [gate for gate in known if not argv or gate.name in argv]
    (system.cache() / "logs").mkdir(exist_ok=True)
    try:
        # the lab's build has a lane of its own: it is long, and niced so that the others are not held up
        with ThreadPoolExecutor(1) as lab_lane, ThreadPoolExecutor(2) as lanes:
            pending = [
                (lab_lane if gate.name == "lab" else lanes).submit(run, gate) for gate in chosen if not gate.alone
            ]
            finish(chosen, pending, lab_lane, lanes)
        for gate in chosen:
            if gate.alone and not gate.retried:
                run_real(gate)
        # three scenarios starve each other on two cores
        with ThreadPoolExecutor(2) as lanes:
            finish(chosen, [lanes.submit(run_real, gate) for gate in chosen if gate.retried], lanes)
    except KeyboardInterrupt:
        stop_all(chosen)
        raise
    print()
    for gate in chosen:
        numbers = f"  {gate.passed} passed, {gate.failed} failed, {gate.skipped} skipped" if gate.counts else ""
        numbers = f"  with the same files at {gate.before}" if gate.before else numbers
        numbers = f"  left out: run it with make test ARGS={gate.name}" if gate.left_out else numbers
        numbers += f", {gate.again} run again" if gate.again else ""
        print(f"{'ok    ' if gate.code == 0 else 'FAILED'}  {gate.name:14} {gate.seconds:7.1f} s{numbers}")
    bad = [gate for gate in chosen if gate.code != 0]
    print(f"all gates took {time.monotonic() - STARTED:.0f} s; whole outputs: {system.cache()}/logs/gate-*.log")
    # the closing line that CI reads: a gate that failed without a failed test counts as one
    failed = sum(gate.failed or 1 for gate in bad)
    print(
        f"{sum(gate.passed for gate in chosen)} passed, {failed} failed, {sum(gate.skipped for gate in chosen)} skipped",
        flush=True,
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
