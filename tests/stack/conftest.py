"""Options and the order of a scenario's phases; a phase that needs one that failed is skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack import clients, hosts, images
from tests.stack.faults import FAULTS
from tests.stack.scenario import molecule


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stack")
    group.addoption("--role", default="all", help="scenarios of extensions/molecule, comma-separated, or all")
    group.addoption("--distro", default="trixie", help=f"{' or '.join(images.DISTRIBUTIONS)}, comma-separated, or all")
    group.addoption("--faults", default="cheap", help=f"cheap, all, none, or of {', '.join(FAULTS)}, comma-separated")
    group.addoption("--keep", action="store_true", help="leave the hosts, and use those that are there")


def scenarios(config: pytest.Config) -> list[str]:
    """Return the chosen scenarios in the order of their numbers."""
    there = [name for name in hosts.NUMBERS if (hosts.SCENARIOS / name / "molecule.yml").exists()]
    wanted = config.getoption("role")
    if wanted in ("", "all"):
        return there
    chosen = [name for name in wanted.split(",") if name]
    unknown = set(chosen) - set(there)
    if unknown:
        raise pytest.UsageError(f"no scenario {', '.join(sorted(unknown))}: choose from {', '.join(there)}")
    return chosen


def distributions(config: pytest.Config) -> list[str]:
    wanted = config.getoption("distro")
    return list(images.DISTRIBUTIONS) if wanted == "all" else [name for name in wanted.split(",") if name]


def faults(config: pytest.Config, name: str) -> list[str]:
    """Return the chosen faults of one scenario."""
    if not clients.known(name):
        return []
    service = clients.service(hosts.scenario(name))
    wanted = config.getoption("faults")
    if wanted in ("", "cheap"):
        return list(service.cheap)
    if wanted == "all":
        return [*service.faults, "drawn"]
    if wanted == "none":
        return []
    chosen = [fault for fault in wanted.split(",") if fault]
    unknown = set(chosen) - set(FAULTS)
    if unknown:
        raise pytest.UsageError(f"no fault {', '.join(sorted(unknown))}: choose from {', '.join(FAULTS)}")
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stack" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("scenario")
    names = [name for name in scenarios(metafunc.config) if marker is None or name in marker.args]
    pairs = [(name, distro) for distro in distributions(metafunc.config) for name in names]
    if "fault" in metafunc.fixturenames:
        cases = [((name, distro), fault) for name, distro in pairs for fault in faults(metafunc.config, name)]
        metafunc.parametrize(
            ("stack", "fault"), cases, indirect=["stack"], ids=[f"{p[0]}-{p[1]}-{fault}" for p, fault in cases]
        )
    else:
        metafunc.parametrize("stack", pairs, indirect=True, ids=[f"{name}-{distro}" for name, distro in pairs])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All phases of one scenario, then the next scenario."""
    order: dict[tuple[str, str], int] = {}
    for item in items:
        if hasattr(item, "callspec") and "stack" in item.callspec.params:
            order.setdefault(item.callspec.params["stack"], len(order))
    items.sort(key=lambda item: order.get(item.callspec.params["stack"], -1) if hasattr(item, "callspec") else -1)


# phases without which those after them say nothing
NEEDED = ("converge", "idempotence", "check_mode", "verify")
# the phase that failed, by scenario and distribution
BROKEN: dict[tuple[str, str], str] = {}
# whose hosts stand now
STANDING: dict[tuple[str, str], hosts.Scenario] = {}


@pytest.fixture
def stack(request: pytest.FixtureRequest, stack_session: None) -> hosts.Scenario:
    """The scenario that the test is for; hosts of the one before are removed."""
    pair = request.param
    reason = clients.missing(pair[0])
    if reason:
        pytest.skip(reason)
    keep = request.config.getoption("keep")
    for other in [other for other in STANDING if other != pair]:
        of = STANDING.pop(other)
        if not keep:
            hosts.down(of)
    if pair in BROKEN:
        pytest.skip(f"{BROKEN[pair]} failed before")
    of = hosts.scenario(*pair)
    if pair not in STANDING:
        STANDING[pair] = of
        # molecule's own notes may tell of hosts that are gone
        if not keep or not any(hosts.state(host.container) for host in of.hosts):
            molecule(of, "destroy")
    return of


@pytest.fixture(scope="session")
def stack_session(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for of in STANDING.values():
        if not request.config.getoption("keep"):
            hosts.down(of)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    # one failed fault says nothing about the next one, which waits for a healthy service first
    phase = item.name.split("[")[0].removeprefix("test_")
    if report.failed and hasattr(item, "callspec") and "stack" in item.callspec.params and phase in NEEDED:
        BROKEN.setdefault(item.callspec.params["stack"], phase)
