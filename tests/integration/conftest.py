"""The lab for integration tests: one for the whole run, and the run is inside its network.

``C5C3_LAB_SEED`` (90) tells labs apart, ``C5C3_LAB_HOSTS`` (3) says how many hypervisors. With ``C5C3_LAB_REUSE=1`` a
lab of that seed that is up already is used, and the lab is left up at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import PARTS, Lab, LabError
from tests.lab.bmc import Bmc
from tests.lab.kubernetes import Kubernetes
from tests.lab.nova import Nova

from .selecting import Selection
from .telling import Telling

# Each worker of pytest-xdist has a lab of its own.
SEED = int(os.environ.get("C5C3_LAB_SEED", "90")) + 10_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
HOSTS = int(os.environ.get("C5C3_LAB_HOSTS", "3"))
REUSE = os.environ.get("C5C3_LAB_REUSE") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """Choose the tests in every process that runs some."""
    config.pluginmanager.register(Selection(), "c5c3-selection")
    config.pluginmanager.register(Telling(), "c5c3-telling")


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
        if archive := request.config.pluginmanager.getplugin("c5c3-telling").keep_logs(lab.directory):
            progress(f"tests failed: the lab's logs are in {archive}\n")
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
