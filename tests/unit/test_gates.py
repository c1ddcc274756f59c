"""The gates: every one refuses by its own question, and by its fail mode when its input is gone or lies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gates import (
    GATES,
    GateFacts,
    HostEviction,
    HostWork,
    HypervisorFacts,
    NodeFacts,
    Room,
    judge,
    may_fence,
    refusal,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServiceFacts

NOW = 1_000_000.0
HOST = "cmp01"


def service(host: str, up: bool = True, enabled: bool = True, **more) -> ServiceFacts:
    return ServiceFacts(id=f"id-{host}", host=host, up=up, enabled=enabled, **more)


def dead_host(hosts: int = 5, **changed) -> GateFacts:
    """One dead host among healthy ones, all else in order."""
    names = [f"cmp{number:02}" for number in range(1, hosts + 1)]
    facts = GateFacts(
        now=NOW,
        nodes={
            name: NodeFacts(name, "Unreachable" if name == HOST else "Ready", NOW - (100 if name == HOST else 9999))
            for name in names
        },
        hypervisors={name: HypervisorFacts(name, heartbeat=NOW - (150 if name == HOST else 10)) for name in names},
        services={name: service(name, up=name != HOST) for name in names},
        schedulers=(service("ctl01"),),
        evictions={},
        work={HOST: HostWork(sizes=(Room(2, 2048, 7, frozenset({"cmp02"})),), migrations=())},
    )
    return replace(facts, **changed)


def refused(facts: GateFacts, limits: Limits | None = None, host: str = HOST) -> tuple[str, str] | None:
    verdict = refusal(judge(host, facts, limits or Limits()))
    return (verdict.gate, verdict.reason) if verdict else None


def test_a_dead_host_among_healthy_ones_passes_every_gate():
    verdicts = judge(HOST, dead_host(), Limits())
    assert refusal(verdicts) is None and may_fence(verdicts)
    assert [verdict.gate for verdict in verdicts] == [gate.name for gate in GATES if gate.check]


def test_no_verdict_is_no_consent():
    assert refusal(()) is not None and not may_fence(())


@pytest.mark.parametrize("fact", ["nodes", "hypervisors", "services", "schedulers", "evictions"])
def test_a_fact_that_is_gone_refuses(fact):
    facts = dead_host(**{fact: None}, troubles={fact: "cannot list it: 403"})
    verdicts = judge(HOST, facts, Limits())
    assert not may_fence(verdicts)
    for gate, verdict in zip([gate for gate in GATES if gate.check], verdicts, strict=True):
        if fact in gate.needs:
            assert (verdict.passed, verdict.reason) == (gate.fail == "open", "Unknown")
            assert "cannot list it: 403" in verdict.message


def test_not_knowing_the_servers_is_no_reason_to_leave_them_dead_but_migrations_are():
    work = dead_host().work[HOST]
    assert refused(dead_host(work={HOST: replace(work, sizes=None)})) is None
    assert refused(dead_host(work={HOST: replace(work, migrations=None)})) == ("in_flight", "Unknown")
    assert refused(dead_host(work={})) == ("in_flight", "Unknown")


def test_the_budget_counts_who_came_first_and_lets_one_of_many_go():
    waiting = {f"cmp{n:02}": HostEviction(f"cmp{n:02}", created=NOW - 90) for n in range(1, 6)}
    facts = dead_host(9, evictions=waiting)
    assert refused(facts) is None, "the first of those that wait"
    assert refused(facts, host="cmp04") is not None
    at_once = dead_host(9, evictions={name: e for name, e in waiting.items() if name != HOST})
    assert refused(at_once) == ("budget", "TooManyAtOnce")
    held = {name: replace(eviction, held=True, created=NOW - 61) for name, eviction in at_once.evictions.items()}
    assert refused(dead_host(9, evictions=held)) is None
    just_begun = {
        name: replace(eviction, finished=True, reason="Succeeded", created=NOW - 59) for name, eviction in held.items()
    }
    assert refused(dead_host(9, evictions=just_begun)) == ("budget", "CoolingDown")


def test_a_migration_in_flight_is_waited_for_and_a_stuck_record_is_not():
    def facts(**migration):
        record = MigrationFacts(id=1, server="a", kind="evacuation", source=HOST, **migration)
        return dead_host(work={HOST: replace(dead_host().work[HOST], migrations=(record,))})

    assert refused(facts(status="accepted", changed=NOW - 5)) == ("in_flight", "MigrationsInFlight")
    assert refused(facts(status="accepted", changed=None)) == ("in_flight", "MigrationsInFlight")
    assert refused(facts(status="running", changed=NOW - 61)) is None
    assert refused(facts(status="done", changed=NOW - 5)) is None
