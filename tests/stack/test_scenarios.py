"""Each role's scenario on real hosts: ``make stack``. What is measured goes to results.jsonl, never into an assertion."""

from __future__ import annotations

import pytest

from tests.stack import clients, faults
from tests.stack.hosts import Scenario
from tests.stack.scenario import molecule

pytestmark = pytest.mark.timeout(1500)


def test_converge(stack: Scenario) -> None:
    """From fresh hosts to a formed cluster."""
    molecule(stack, "converge")


def test_idempotence(stack: Scenario) -> None:
    """A second run changes nothing."""
    molecule(stack, "idempotence")


def test_check_mode(stack: Scenario) -> None:
    """--check of a formed cluster neither fails nor finds anything to change."""
    output = molecule(stack, "check")
    recaps = [line for line in output.splitlines() if "changed=" in line and "unreachable=" in line]
    assert recaps, "no recap in the output"
    wrong = [line for line in recaps if "changed=0 " not in line or "failed=0 " not in line]
    assert not wrong, "\n".join(wrong)


def test_verify(stack: Scenario) -> None:
    """What a client sees."""
    molecule(stack, "verify")


def test_fault(stack: Scenario, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients write all the time; what was acknowledged is there, exactly, and the cluster is whole again."""
    result = faults.run(stack, clients.service(stack), fault, lambda: molecule(stack, "converge") and None)
    with capsys.disabled():
        print(f"\n    {result.line()}", flush=True)
    assert result.lost == 0, result.line()
    assert result.acknowledged > 100, result.line()
