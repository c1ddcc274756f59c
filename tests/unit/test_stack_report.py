"""The table of docs/failover.md."""

from __future__ import annotations

import json

from tests.stack import report


def run(scenario: str, fault: str, gap: float) -> str:
    measured = {
        "scenario": scenario,
        "distribution": "trixie",
        "fault": fault,
        "gap": gap,
        "heal_gap": 0.1,
        "recovery": 1.0,
    }
    return json.dumps({**measured, "limit": 2.5, "acknowledged": 10, "lost": 0})


def test_rows_that_were_not_measured_anew_stay() -> None:
    """Another machine measured them: the results of this one must not throw them away."""
    before = "\n".join(
        report.rows([run("valkey", "kill", 4.7), run("galera", "kill", 10.2), run("galera", "freeze", 2.3)])
    )
    table = report.rows([run("galera", "kill", 1.9), run("galera", "kill", 1.7)], before)
    # in the scenarios' order
    assert [line.split(" | ")[:4] for line in table[2:]] == [
        ["| valkey", "trixie", "kill", "4.7 (4.7-4.7), 1"],
        ["| galera", "trixie", "kill", "1.8 (1.7-1.9), 2"],
        ["| galera", "trixie", "freeze", "2.3 (2.3-2.3), 1"],
    ]
    assert report.rows([], "\n".join(table)) == table


def test_the_page_as_it_is_can_be_read() -> None:
    """No row of the page itself is lost, and its head is no row."""
    old = report.PAGE.read_text().split(report.BEGIN)[1].split(report.END)[0]
    assert report.rows([], old) == old.strip().split("\n")
