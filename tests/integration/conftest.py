"""The lab for integration tests: one for the whole run, and the run is inside its network.

``C5C3_LAB_SEED`` (90) tells labs apart, ``C5C3_LAB_HOSTS`` (3) says how many hypervisors. With ``C5C3_LAB_REUSE=1`` a
lab of that seed that is up already is used, and the lab is left up at the end.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import selection
from tests.lab import PARTS, Lab, LabError
from tests.lab.bmc import Bmc
from tests.lab.kubernetes import Kubernetes
from tests.lab.nova import Nova

# Each worker of pytest-xdist has a lab of its own.
SEED = int(os.environ.get("C5C3_LAB_SEED", "90")) + 10_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
HOSTS = int(os.environ.get("C5C3_LAB_HOSTS", "3"))
REUSE = os.environ.get("C5C3_LAB_REUSE") == "1"
LAB_TESTS = "test_lab_"
WHOLE = pytest.StashKey[bool]()  # no phase of the test has failed


def _passed(file: Path) -> selection.Record:
    return selection.Record(file.stem, *selection.LAB_INPUTS, file)


class Selection:
    """tests/selection.py as a plugin of pytest."""

    def __init__(self) -> None:
        self.open: dict[Path, set[str]] = defaultdict(set)  # of the lab's own tests, what has not passed yet

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take what this run takes; a choice by name or keyword is the caller's, and is left alone."""
        whole = not config.option.keyword and not any("::" in argument for argument in config.args)
        if not whole or selection.everything():
            return
        thorough: dict[str, list[str]] = defaultdict(list)
        for item in items:
            if item.get_closest_marker("thorough"):
                thorough[item.path.name].append(item.nodeid)
            if item.path.name.startswith(LAB_TESTS):
                self.open[item.path].add(item.nodeid)
        drawn = selection.draw(thorough, selection.seed())
        left = [item for item in items if item.get_closest_marker("thorough") and item.nodeid not in drawn]
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if item not in set(left)]
        for file in list(self.open):
            if when := _passed(file).when():
                reason = f"the lab passed on this machine with the same content at {when}"
                for item in items:
                    if item.path == file:
                        item.add_marker(pytest.mark.skip(reason=reason))
                del self.open[file]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        """Count what passed as a whole, or has its own reason to be skipped."""
        report = yield
        item.stash[WHOLE] = report.outcome != "failed" and (report.when == "setup" or item.stash[WHOLE])
        if item.path in self.open and report.when == "teardown" and item.stash[WHOLE]:
            self.open[item.path].discard(item.nodeid)
            if not self.open[item.path]:
                _passed(item.path).write()
        return report


def pytest_configure(config: pytest.Config) -> None:
    """Choose the tests in every process that runs some."""
    config.pluginmanager.register(Selection(), "c5c3-selection")


def _wanted_parts(session: pytest.Session) -> tuple[str, ...]:
    """A process can be inside one lab only: with everything that any test asks for."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    return PARTS if "lab" in wanted else tuple(part for part in PARTS if f"lab_{part}" in wanted) or ("kubernetes",)


def _running(parts: tuple[str, ...]) -> Lab | None:
    if not REUSE:
        return None
    try:
        lab = Lab.attach(SEED)
    except LabError:
        return None
    missing = set(parts) - set(lab.parts)
    if missing or not lab.is_up():
        pytest.exit(f"lab {SEED} is up without {', '.join(missing) or 'being ready'}: tests/lab/lab down --seed {SEED}")
    return lab


@pytest.fixture(scope="session")
def _lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    parts = _wanted_parts(request.session)
    capture = request.config.pluginmanager.getplugin("capturemanager")
    start = time.monotonic()

    def progress(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\nlab {SEED} {time.monotonic() - start:6.1f} s  {text}", end="", flush=True)

    lab = _running(parts)
    started = lab is None
    if lab is None:
        # What an interrupted run left behind; `make lab-up` and the demo have other seeds.
        Lab.saved(SEED).down()
        lab = Lab(seed=SEED, hosts=HOSTS, parts=parts)
        times = lab.up(progress)
        progress("up: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items()) + "\n")
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    lab.enter()
    try:
        yield lab
    finally:
        # The run leaves the network before it ends it.
        Lab.leave(outside)
        os.close(outside)
        if started and not REUSE:
            lab.down()


@pytest.fixture(scope="session")
def lab_kubernetes(_lab: Lab) -> Kubernetes:
    """The lab's Kubernetes (``.kubeconfig``, ``.kubectl()``, ``.lab``)."""
    return _lab.kubernetes


@pytest.fixture(scope="session")
def lab_nova(_lab: Lab) -> Nova:
    """The lab's OpenStack and hypervisors (``.connection()``, ``.boot()``, ``.lab.oracle``, ``.lab.kill()``)."""
    return _lab.nova


@pytest.fixture(scope="session")
def lab(_lab: Lab) -> Lab:
    """The lab with every part."""
    return _lab


@pytest.fixture
def lab_bmc(_lab: Lab) -> Iterator[Bmc]:
    """The hosts' management controllers; afterwards without faults, and every host on."""
    _lab.bmc.up()
    try:
        yield _lab.bmc
    finally:
        _lab.bmc.heal()
        for host in _lab.hosts.values():
            host.heal()


@pytest.fixture(scope="session")
def lab_logs(_lab: Lab) -> Path:
    """The folder with the lab's logs (``*/log/*.log``)."""
    return _lab.directory
