"""The measurement itself: a gap that was there is told, and a write that is missing is counted."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.stack import faults, hosts
from tests.stack.hosts import Host, Scenario
from tests.stack.writing import Service, Session, Writer

OF = Scenario("ca", "trixie", 0, (Host("ca1", "c5c3-0-ca1", "10.213.1.11", ()),))


class Memory(Service):
    """A service in this process: refuses for a while when broken, and may forget."""

    daemon = "none"

    def __init__(self) -> None:
        super().__init__(OF)
        self.keys: Counter[str] = Counter()
        self.broken_until = 0.0

    def prepare(self) -> None:
        self.keys.clear()

    def connect(self) -> Session:
        service = self

        class Connection(Session):
            def write(self, key: str) -> None:
                if time.monotonic() < service.broken_until:
                    raise OSError("broken")
                service.keys[key] += 1

        return Connection()

    def found(self) -> Counter[str]:
        return self.keys

    def victim(self) -> Host:
        return OF.hosts[0]

    def unsettled(self) -> str:
        return ""


def test_gap_is_the_longest_silence_between_the_two_times() -> None:
    writer = Writer(Memory(), "w")
    writer.acknowledged = [(when, f"w-{when}") for when in (1.0, 2.0, 5.0, 6.0, 30.0)]
    assert writer.gap(1.5, 7.0) == 3.0
    # silence that has not ended counts, and so does what began before
    assert writer.gap(6.5, 20.0) == 13.5
    assert writer.gap(0.0, 1.5) == 1.0


def test_what_a_client_was_told_in_its_longest_gap() -> None:
    writer = Writer(Memory(), "w")
    writer.acknowledged = [(when, f"w-{when}") for when in (1.0, 2.0, 5.0, 6.0)]
    writer.failures = [
        (1.5, "OSError: early"),
        (3.0, "OSError: broken"),
        (3.1, "OSError: broken"),
        (4.0, "OSError: other"),
    ]
    assert writer.silence(1.0, 8.0) == [
        "w +1.00 acknowledged",
        "+2.00 OSError: broken (2 times)",
        "+3.00 OSError: other",
        "+4.00 acknowledged",
    ]


def test_failures_in_a_row_are_one_interruption() -> None:
    writer = Writer(Memory(), "w")
    writer.acknowledged = [(when, f"w-{when}") for when in (1.0, 2.0, 5.0, 6.0)]
    writer.failures = [(when, "OSError: broken") for when in (0.5, 3.0, 3.5, 4.0, 5.5, 7.0)]
    assert writer.interruptions(0.9, 8.0) == 3
    assert writer.interruptions(3.2, 5.2) == 1
    assert writer.interruptions(1.0, 2.5) == 0


@pytest.mark.parametrize("code", [0, 2])
def test_a_playbook_under_load_is_measured_and_its_failure_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path, code: int
) -> None:
    service = Memory()

    def playbook(*_args: object) -> tuple[int, str]:
        forgotten = next(iter(service.keys))
        service.broken_until = time.monotonic() + 0.5
        hosts.wait("end of the break", lambda: time.monotonic() > service.broken_until, 5)
        service.keys.pop(forgotten)
        return code, "fatal: [ca1]: FAILED! => a doubt\nca1 : ok=9 changed=4 unreachable=0 failed=0"

    monkeypatch.setattr(faults, "playbook", playbook)
    monkeypatch.setattr(faults.system, "cache", lambda: tmp_path)
    (tmp_path / "stack").mkdir()
    if code:
        with pytest.raises(hosts.HostError, match=r"restart_x ended with 2:\s+fatal.*a doubt"):
            faults.roll(OF, service, "restart_x")
        return
    rolled = faults.roll(OF, service, "restart_x")
    assert 0.4 < rolled.result.gap < 3.0
    assert (rolled.result.lost, rolled.interruptions, rolled.changed, rolled.failovers) == (1, 1, 4, None)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_fault_is_measured_and_losses_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path, forgets: bool) -> None:
    service = Memory()

    def inject(*_args: object) -> None:
        service.broken_until = time.monotonic() + 1.0
        if forgets:
            service.keys.pop(next(iter(service.keys)))

    monkeypatch.setattr(faults, "inject", inject)
    monkeypatch.setattr(faults, "heal", lambda *_args: None)
    monkeypatch.setattr(faults, "LASTS", {"kill": 1.0})
    monkeypatch.setattr(faults.system, "cache", lambda: tmp_path)
    (tmp_path / "stack").mkdir()
    result = faults.run(OF, service, "kill", lambda: None)
    assert 0.9 < result.gap < 3.0
    assert result.lost == (1 if forgets else 0)
    assert result.acknowledged > 100
    assert '"fault": "kill"' in (tmp_path / "stack" / "results.jsonl").read_text()


def test_a_service_that_stays_away_fails_with_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Memory()
    monkeypatch.setattr(faults, "inject", lambda *_args: setattr(service, "broken_until", time.monotonic() + 60))
    with pytest.raises(hosts.HostError, match="write again after kill on ca1"):
        faults.run(OF, service, "kill", lambda: None, patience=2)
