"""The gates: every one refuses by its own question, and by its fail mode when its input is gone or lies."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_data import (
    GateFacts,
    HostEviction,
    HostWork,
    HypervisorFacts,
    NodeFacts,
    Room,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_limits import Limits
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gate_reading import OWN_CONDITIONS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.gates import (
    GATES,
    judge,
    may_fence,
    refusal,
)
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.node_state import DECISIONS
from ansible_collections.c5c3.ha.plugins.module_utils.decisions.server_facts import MigrationFacts, ServiceFacts
from ansible_collections.c5c3.ha.plugins.module_utils.errors import ArgumentError

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
    fenced = {name: replace(eviction, fenced=True, created=NOW - 5) for name, eviction in at_once.evictions.items()}
    own = {HOST: HostEviction(HOST, created=NOW - 90)}
    assert refused(dead_host(9, evictions={**fenced, **own})) == ("budget", "TooManyAtOnce"), "they have begun already"
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
    # A host that lives is drained: its own migrations do not stop that, a foreign evacuation does.
    drained = facts(status="running", changed=NOW - 5)
    up = {**drained.services, HOST: replace(drained.services[HOST], up=True)}
    nodes = {**drained.nodes, HOST: replace(drained.nodes[HOST], state="NotReady")}
    drained = replace(drained, services=up, nodes=nodes)
    assert refused(drained) == ("in_flight", "MigrationsInFlight")
    record = replace(drained.work[HOST].migrations[0], kind="live-migration")
    assert refused(replace(drained, work={HOST: HostWork(sizes=(), migrations=(record,))})) is None


# --- each gate, one by one --------------------------------------------------------------------------------------------


def hypervisor(**changed) -> GateFacts:
    facts = dead_host()
    return replace(facts, hypervisors={**facts.hypervisors, HOST: replace(facts.hypervisors[HOST], **changed)})


def with_service(**changed) -> GateFacts:
    facts = dead_host()
    return replace(facts, services={**facts.services, HOST: replace(facts.services[HOST], **changed)})


def with_nodes(count: int = 10, gone: int = 1, zones: int = 0, gone_zone: str | None = None, **changed) -> GateFacts:
    """`gone` of the Nodes are lost, the host itself among them."""
    facts = dead_host(count)
    nodes = {}
    for number, name in enumerate(facts.nodes):
        zone = f"z{number % zones}" if zones else ""
        lost = number < gone if gone_zone is None else zone == gone_zone
        nodes[name] = NodeFacts(name, "Unreachable" if lost else "Ready", NOW - (100 if lost else 9999), zone)
    return replace(facts, nodes=nodes, **changed)


@pytest.mark.parametrize("maintenance", ["manual", "auto", "termination"])
def test_a_host_in_maintenance_is_left_to_who_works_on_it(maintenance):
    assert refused(hypervisor(maintenance=maintenance)) == ("maintenance", "InMaintenance")


def test_maintenance_ha_is_this_very_reaction_and_another_word_is_not_known():
    assert refused(hypervisor(maintenance="ha")) is None
    assert refused(hypervisor(maintenance="later")) == ("maintenance", "Unknown")


def test_high_availability_off_means_never():
    assert refused(hypervisor(high_availability=False)) == ("high_availability", "HighAvailabilityOff")
    facts = dead_host()
    without = {name: own for name, own in facts.hypervisors.items() if name != HOST}
    assert refused(replace(facts, hypervisors=without)) == ("high_availability", "NoHypervisor")


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (None, "NodeGone"),
        (NodeFacts(HOST, "Ready", NOW - 1), "NodeReady"),
        (NodeFacts(HOST, "Bogus", NOW - 1), "Unknown"),
    ],
)
def test_only_a_node_that_is_not_ready_is_a_first_signal(node, reason):
    facts = dead_host()
    nodes = {name: one for name, one in facts.nodes.items() if name != HOST} | ({HOST: node} if node else {})
    assert refused(replace(facts, nodes=nodes)) == ("node", reason)


def test_all_gone_at_once_means_that_we_are_the_isolated_one():
    for count in (1, 2, 3, 20):
        assert refused(with_nodes(count, gone=count)) == ("isolated", "Isolated")
    assert refused(with_nodes(20, gone=18)) == ("isolated", "Isolated")
    assert refused(with_nodes(20, gone=17)) == ("unhealthy_share", "TooManyUnhealthy")


def test_when_all_others_have_just_come_back_the_rest_gets_time():
    facts = dead_host()
    back = {name: replace(node, since=NOW - 59) if name != HOST else node for name, node in facts.nodes.items()}
    assert refused(replace(facts, nodes=back)) == ("isolated", "Settling")
    assert refused(replace(facts, nodes=back), Limits(settle_seconds=0)) is None
    one_stayed = {**back, "cmp05": replace(back["cmp05"], since=NOW - 61)}
    assert refused(replace(facts, nodes=one_stayed)) == ("unhealthy_share", "Settling")


def test_after_a_mass_failure_the_rest_gets_time_though_some_never_were_away():
    """As the operator's own host, when all others were cut off: they do not come back in the same second."""
    for count, gone, back, reason in (
        (3, 1, 1, "Settling"),
        (3, 1, 0, None),
        (2, 1, 1, "Settling"),
        (10, 2, 4, "Settling"),
        (10, 2, 3, None),
    ):
        facts = with_nodes(count, gone)
        for name in list(facts.nodes)[gone : gone + back]:
            facts = replace(facts, nodes={**facts.nodes, name: replace(facts.nodes[name], since=NOW - 59)})
        assert refused(facts) == (reason and ("unhealthy_share", reason)), (count, gone, back)
        assert refused(facts, Limits(settle_seconds=58)) is None
        worked_on = {
            name: replace(own, maintenance="manual") for name, own in facts.hypervisors.items() if name != HOST
        }
        assert refused(replace(facts, hypervisors={**facts.hypervisors, **worked_on})) is None, "rebooted by somebody"


def test_after_a_zone_was_gone_its_rest_gets_time():
    facts = with_nodes(9, zones=3)
    back = {**facts.nodes, "cmp04": replace(facts.nodes["cmp04"], since=NOW - 59)}
    assert refused(replace(facts, nodes=back)) == ("unhealthy_zone", "Settling")


def test_a_single_host_is_no_mass_failure_and_two_of_three_are():
    assert refused(with_nodes(2, gone=1)) is None
    assert refused(with_nodes(3, gone=2)) == ("unhealthy_share", "TooManyUnhealthy")
    assert refused(with_nodes(4, gone=2)) is None
    assert refused(with_nodes(3, gone=2), Limits(max_unhealthy_share=0.7)) is None


def test_a_zone_that_goes_at_once_is_not_emptied_and_a_host_of_it_is():
    assert refused(with_nodes(9, zones=3, gone_zone="z0")) == ("unhealthy_zone", "TooManyUnhealthy")
    assert refused(with_nodes(9, zones=3, gone=1)) is None
    assert refused(with_nodes(4, zones=4, gone=1)) is None, "alone in its zone"
    assert refused(with_nodes(9, zones=3, gone_zone="z0"), Limits(max_unhealthy_zone_share=1.0)) is None


def test_hosts_that_are_off_on_purpose_are_no_failure_and_no_health():
    facts = with_nodes(4, gone=3)
    assert refused(facts) == ("unhealthy_share", "TooManyUnhealthy")
    emptied = {
        name: HostEviction(name, created=NOW - 5000, finished=True, reason="Succeeded", occurred_at=NOW - 100)
        for name in ("cmp02", "cmp03")
    }
    assert refused(replace(facts, evictions=emptied)) is None
    proven_off = {name: replace(eviction, finished=False, fenced=True) for name, eviction in emptied.items()}
    assert refused(replace(facts, evictions=proven_off)) is None
    for change in ({"finished": False}, {"occurred_at": NOW - 101}, {"reason": "Cancelled"}, {"for_failure": False}):
        other = {name: replace(eviction, **change) for name, eviction in emptied.items()}
        assert refused(replace(facts, evictions=other)) == ("unhealthy_share", "TooManyUnhealthy"), change
    worked_on = {**facts.hypervisors, **{n: HypervisorFacts(n, maintenance="manual") for n in ("cmp02", "cmp03")}}
    assert refused(replace(facts, hypervisors=worked_on)) is None
    only_one_left = {**emptied, "cmp04": replace(emptied["cmp02"], host="cmp04")}
    assert refused(replace(with_nodes(4, gone=4), evictions=only_one_left)) == ("isolated", "Isolated")


def test_nodes_that_are_no_hypervisors_do_not_count():
    facts = with_nodes(3, gone=2)
    controllers = {f"ctl{n}": NodeFacts(f"ctl{n}", "Ready", NOW - 9999) for n in range(9)}
    assert refused(replace(facts, nodes={**facts.nodes, **controllers})) == ("unhealthy_share", "TooManyUnhealthy")


def test_novas_word_that_it_is_up_saves_an_unreachable_host_and_drains_a_not_ready_one():
    up = with_service(up=True)
    assert refused(up) == ("second_signal", "ServiceUp")
    nodes = {**up.nodes, HOST: replace(up.nodes[HOST], state="NotReady")}
    verdicts = judge(HOST, replace(up, nodes=nodes), Limits())
    assert refusal(verdicts) is None and not may_fence(verdicts), "moved, and never fenced"


def test_nova_that_sees_all_down_is_blind():
    facts = dead_host()
    for others in (
        {name: replace(one, up=False) for name, one in facts.services.items()},
        {HOST: facts.services[HOST]},
    ):
        assert refused(replace(facts, services=others)) == ("second_signal", "NovaBlind")
    many = dead_host(12)
    forced = {
        name: replace(one, up=name == "cmp02", forced_down=name != "cmp02") for name, one in many.services.items()
    }
    assert refused(replace(many, services=forced)) is None, "forced down is not blindness"


def test_a_host_unknown_to_nova_is_left_alone():
    facts = dead_host()
    services = {name: one for name, one in facts.services.items() if name != HOST}
    assert refused(replace(facts, services=services)) == ("second_signal", "UnknownToNova")


@pytest.mark.parametrize(
    ("heartbeat", "alive"),
    [
        (NOW - 10, True),  # the Node was lost 100 s ago
        (NOW - 99, True),
        (NOW - 100, False),
        (NOW - 150, False),
        (None, False),
        (NOW + 59, True),
        (NOW + 61, False),  # a clock that lies must not keep a dead host from being evacuated
    ],
)
def test_an_agent_that_wrote_after_the_node_was_lost_proves_that_the_host_lives(heartbeat, alive):
    assert refused(hypervisor(heartbeat=heartbeat)) == (("second_signal", "AgentAlive") if alive else None)


def test_an_old_heartbeat_proves_nothing_and_without_a_clock_nothing_is_proven_alive():
    facts = dead_host()
    long_lost = {**facts.nodes, HOST: replace(facts.nodes[HOST], since=NOW - 1000)}
    beats = hypervisor(heartbeat=NOW - 121).hypervisors
    assert refused(replace(facts, nodes=long_lost, hypervisors=beats)) is None
    beats = hypervisor(heartbeat=NOW - 119).hypervisors
    assert refused(replace(facts, nodes=long_lost, hypervisors=beats)) == ("second_signal", "AgentAlive")


@pytest.mark.parametrize("scheduler", [{"up": False}, {"enabled": False}])
def test_without_a_scheduler_nothing_begins(scheduler):
    assert refused(dead_host(schedulers=())) == ("scheduler", "NoScheduler")
    assert refused(dead_host(schedulers=(service("ctl01", **scheduler),))) == ("scheduler", "NoScheduler")
    assert refused(dead_host(schedulers=(service("ctl01", **scheduler), service("ctl02")))) is None


def sizes(*rooms: Room) -> GateFacts:
    return dead_host(work={HOST: HostWork(sizes=rooms, migrations=())})


def test_capacity_refuses_only_when_nothing_fits_anywhere():
    small, big = Room(1, 512, 3, frozenset({"cmp02"})), Room(64, 999_999, 1, frozenset())
    verdict = next(v for v in judge(HOST, sizes(small, big), Limits()) if v.gate == "capacity")
    assert (verdict.passed, verdict.reason) == (True, "TightRoom") and "64 vCPU" in verdict.message
    assert refused(sizes(big)) == ("capacity", "NoRoom")
    assert refused(sizes(replace(big, hosts=frozenset({HOST})))) == (
        "capacity",
        "NoRoom",
    ), "room on the dead host itself"
    assert refused(sizes(replace(big, hosts=None))) is None, "Placement does not answer"
    assert refused(sizes()) is None
    disabled = {name: replace(one, enabled=False) for name, one in dead_host().services.items()}
    assert refused(replace(sizes(small), services=disabled)) == ("capacity", "NoTarget")


def test_limits_that_make_no_sense_are_named():
    assert Limits.from_params({}) == Limits.from_params({"gate_limits": None}) == Limits()
    assert Limits.from_params({"gate_limits": {"max_hosts_at_once": 9, "settle_seconds": None}}).max_hosts_at_once == 9
    for wrong in (
        {"max_unhealthy_share": 0.0},
        {"max_unhealthy_share": 1.5},
        {"max_unhealthy_zone_share": float("nan")},
        {"max_hosts_at_once": 0},
        {"cooldown_seconds": -1.0},
        {"cooldown_seconds": float("inf")},
    ):
        with pytest.raises(ArgumentError, match=f"gate_limits: {next(iter(wrong))} "):
            Limits.from_params({"gate_limits": wrong})


# --- whatever the facts are -------------------------------------------------------------------------------------------


def _lies() -> list[tuple[str, str, object]]:
    """Changes to the facts: (fact, host, value); a value of None takes the host away, no host takes the whole fact."""
    lies: list[tuple[str, str, object]] = [(fact, "", None) for fact in FACTS]
    facts = dead_host()
    for name in facts.nodes:
        for state, since in itertools.product(
            ("Ready", "NotReady", "Unreachable", "?"), (None, NOW + 50, NOW - 30, NOW - 500)
        ):
            lies.append(("nodes", name, NodeFacts(name, state, since, "a")))
        for word, allowed, beat in itertools.product(
            ("", "ha", "manual", "?"), (True, False), (None, NOW + 1e6, NOW - 1)
        ):
            lies.append(("hypervisors", name, HypervisorFacts(name, word, allowed, beat)))
        for up, enabled, forced in itertools.product((True, False), repeat=3):
            lies.append(("services", name, service(name, up, enabled, forced_down=forced)))
        for failure, finished, held in itertools.product((True, False), repeat=3):
            lies.append(("evictions", name, HostEviction(name, NOW - 30, failure, finished, "Succeeded", held)))
        lies += [(fact, name, None) for fact in ("nodes", "hypervisors", "services")]
    for status, changed in itertools.product(("running", "accepted", "done"), (None, NOW - 1, NOW - 100, NOW + 100)):
        record = MigrationFacts(1, "s", status, kind="evacuation", source=HOST, changed=changed)
        lies.append(("work", HOST, HostWork(sizes=(), migrations=(record,))))
    lies += [
        ("work", HOST, value)
        for value in (None, HostWork(None, ()), HostWork((), None), HostWork((Room(1, 1, 1, frozenset()),), ()))
    ]
    return lies


def lied(lies: list[tuple[str, str, object]]) -> GateFacts:
    facts = dead_host()
    for fact, host, value in lies:
        if not host:
            facts = replace(facts, **{fact: None})
        elif (old := getattr(facts, fact)) is not None:
            rest = {name: one for name, one in old.items() if name != host}
            facts = replace(facts, **{fact: rest if value is None else {**rest, host: value}})
    return facts


FACTS = ("nodes", "hypervisors", "services", "schedulers", "evictions")
LIED = st.lists(st.sampled_from(_lies()), max_size=6).map(lied)


@settings(max_examples=1000)
@given(LIED)
def test_whatever_is_gone_or_lies_it_never_passes_against_the_rules(facts):
    verdicts = judge(HOST, facts, Limits())
    for gate, verdict in zip([gate for gate in GATES if gate.check], verdicts, strict=True):
        assert verdict.reason in (*(gate.passes if verdict.passed else gate.refuses), "Unknown")
        assert verdict.reason != "Unknown" or verdict.passed == (gate.fail == "open")
        assert verdict.message
    if refusal(verdicts) is not None:
        assert not may_fence(verdicts)
        return
    own = facts.hypervisors[HOST]
    assert own.high_availability and own.maintenance in ("", "ha")
    assert facts.nodes[HOST].state in ("NotReady", "Unreachable")
    assert any(node.state == "Ready" and name in facts.hypervisors for name, node in facts.nodes.items()), "isolated"
    assert any(one.up for name, one in facts.services.items() if name != HOST), "Nova is blind"
    assert any(one.up and one.enabled for one in facts.schedulers)
    assert facts.work[HOST].migrations is not None
    if may_fence(verdicts):
        assert not facts.services[HOST].up, "fenced a host that Nova hears"
        beat, since = own.heartbeat, facts.nodes[HOST].since
        assert beat is None or since is None or not (beat > since and 0 <= NOW - beat < Limits().heartbeat_seconds)


@given(LIED, st.sampled_from(FACTS))
def test_taking_a_fact_away_never_lets_a_host_through(facts, fact):
    assert refusal(judge(HOST, replace(facts, **{fact: None}), Limits())) is not None


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/gates.md").read_text()


def table(first_column: str) -> list[list[str]]:
    """The rows of the page's table whose head begins with that column."""
    lines = PAGE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_page_is_the_table():
    assert table("#") == [
        [str(number), f"`{gate.name}`", gate.question, gate.fail, gate.why] for number, gate in enumerate(GATES, 1)
    ]
    assert table("gate") == [
        [f"`{gate.name}`", ", ".join(gate.passes), ", ".join(gate.refuses)] for gate in GATES if gate.check
    ]
    assert table("limit") == [[f"`{entry.name}`", f"{entry.default:g}"] for entry in fields(Limits)]
    assert table("decision") == [[f"`{name}`", meaning] for name, meaning in DECISIONS.items()]


def test_the_page_names_every_condition():
    assert [row[0] for row in table("condition of the Hypervisor")] == [f"`{kind}`" for kind in OWN_CONDITIONS]
