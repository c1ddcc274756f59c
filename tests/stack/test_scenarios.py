"""Each role's scenario on real hosts: ``make stack``. What is measured goes to results.jsonl, never into an assertion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack import clients, faults, schedule
from tests.stack.hosts import SCENARIOS, Scenario
from tests.stack.scenario import molecule, playbook, recaps, told

pytestmark = pytest.mark.timeout(1500)


def test_converge(stack: Scenario) -> None:
    """From fresh hosts to a formed cluster."""
    molecule(stack, "converge")


def test_idempotence(stack: Scenario) -> None:
    """A second run changes nothing."""
    molecule(stack, "idempotence")


def test_check_mode(stack: Scenario) -> None:
    """--check of a formed cluster neither fails nor finds anything to change."""
    counted = recaps(molecule(stack, "check"))
    assert counted, "no recap in the output"
    wrong = {host: count for host, count in counted.items() if count["changed"] or count["failed"]}
    assert not wrong, wrong


def test_verify(stack: Scenario) -> None:
    """What a client sees."""
    molecule(stack, "verify")


def test_limit(stack: Scenario) -> None:
    """--limit to one host of a formed cluster neither fails nor finds anything to change."""
    last = stack.hosts[-1].name
    code, output = playbook(stack, str(SCENARIOS / stack.name / "converge.yml"), None, "--limit", last)
    assert code == 0, told(output)
    assert {host: count["changed"] for host, count in recaps(output).items()} == {last: 0}, output[-2000:]


def refused(stack: Scenario, number: int, case: dict[str, Any]) -> str:
    """Run one case of refusals/; return what is wrong, or an empty string."""
    converge = str(SCENARIOS / stack.name / "converge.yml")
    options = ("--limit", case.get("limit", "all"))
    code, output = playbook(stack, converge, case["variables"], *options, log=f"refusal{number}")
    counted = recaps(output)
    if not code or not counted or any(count["changed"] for count in counted.values()):
        return f"{case['name']}: ended with {code}, {counted}"
    if case["says"] not in " ".join(output.split()):
        return f"{case['name']}: nothing says {case['says']!r}:\n{told(output)}"
    return ""


def test_refusals(stack: Scenario) -> None:
    """Bad variables end before anything changed, with the sentence that says what to do."""
    file = Path(__file__).with_name("refusals") / f"{stack.name}.yml"
    if not file.exists():
        pytest.skip(f"no refusals/{file.name}")
    cases = yaml.safe_load(file.read_text())
    with ThreadPoolExecutor(2) as pool:  # nothing is changed by any of them
        wrong = list(filter(None, pool.map(lambda pair: refused(stack, *pair), enumerate(cases))))
    assert not wrong, "\n".join(wrong)


def test_rolling(stack: Scenario, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients write all the time while a playbook takes the members down one by one: nothing is lost, one failover at most."""
    if not clients.known(stack.name) or not clients.service(stack).rolling:
        pytest.skip("no playbook takes its members down")
    # a restart is what an upgrade does and less: it is enough beside cheap faults
    names = clients.service(stack).rolling
    for name in names[:1] if request.config.getoption("faults") == "cheap" else names:
        rolled = faults.roll(stack, clients.service(stack), name)
        with capsys.disabled():
            print(f"\n    {rolled.line()}{rolled.result.slow()}", flush=True)
        assert rolled.result.lost == 0, rolled.line()
        assert (rolled.failovers or 0) <= 1, rolled.line()


def test_bad_upgrade(stack: Scenario, capsys: pytest.CaptureFixture[str]) -> None:
    """An upgrade whose first member does not come up ends there: that one runs what it ran before, the others go on."""
    bad = clients.service(stack).bad_upgrade() if clients.known(stack.name) else None
    if not bad:
        pytest.skip("no upgrade that does not start can be had")
    result = faults.refuse(stack, clients.service(stack), *bad)
    with capsys.disabled():
        print(f"\n    {result.line()}{result.slow()}", flush=True)
    assert result.lost == 0, result.line()


def test_fault(stack: Scenario, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients write all the time; what was acknowledged is there, exactly, and the cluster is whole again."""
    service = clients.service(stack)
    if fault == "drawn":
        result = schedule.run(stack, service)
    else:
        result = faults.run(stack, service, fault, lambda: molecule(stack, "converge") and None)
    with capsys.disabled():
        print(f"\n    {result.line()}{result.slow()}", flush=True)
    assert result.lost == 0, result.line()
    assert result.acknowledged > 100, result.line()
    if service.silence and fault in service.cheap:
        assert not [told for told in result.failures if service.silence in told], f"{result.line()}: {result.failures}"
