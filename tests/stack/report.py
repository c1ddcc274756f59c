"""Write the table of docs/failover.md from the results of the faults; a row that this machine did not measure stays as it is."""

from __future__ import annotations

import json
import statistics

from tests.setup import system
from tests.stack.faults import FAULTS
from tests.stack.hosts import NUMBERS

PAGE = system.ROOT / "docs" / "failover.md"
BEGIN, END = "<!-- made by make matrix -->", "<!-- end -->"
Key = tuple[str, str, str]


def kept(table: str) -> dict[Key, str]:
    """Return the rows of a table by scenario, distribution and fault."""
    cells = {
        line: [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.split("\n")
        if line.startswith("| ")
    }
    return {(cell[0], cell[1], cell[2]): line for line, cell in cells.items() if cell[0] in NUMBERS}


def rows(lines: list[str], before: str = "") -> list[str]:
    """Return the table's lines: for each scenario, distribution and fault the median and the range of all runs.

    :param before: the table as it was: its rows of what has no run in lines stay.
    """
    runs: dict[Key, list[dict[str, object]]] = {}
    for line in lines:
        run = json.loads(line)
        runs.setdefault((run["scenario"], run["distribution"], run["fault"]), []).append(run)
    table = [
        "| service | Debian | fault | gap, s: median (range), n | limit | return, s | whole again, s | acknowledged | lost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def number(values: list[float]) -> str:
        return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"

    def place(key: Key) -> tuple[int, str, int]:
        return NUMBERS.get(key[0], 99), key[1], FAULTS.index(key[2]) if key[2] in FAULTS else len(FAULTS)

    there = kept(before)
    for key in sorted({**there, **runs}, key=place):
        if key not in runs:
            table.append(there[key])
            continue
        of = runs[key]
        limit = of[-1]["limit"]
        table.append(
            f"| {key[0]} | {key[1]} | {key[2]} | {number([run['gap'] for run in of])}, {len(of)} | {limit if limit else '-'} "
            f"| {statistics.median([run['heal_gap'] for run in of]):.1f} | {number([run['recovery'] for run in of])} "
            f"| {sum(run['acknowledged'] for run in of)} | {sum(run['lost'] for run in of)} |"
        )
    return table


def write() -> int:
    """Put the table between the page's marks; return the number of its rows."""
    results = system.cache() / "stack" / "results.jsonl"
    before, rest = PAGE.read_text().split(BEGIN)
    old, after = rest.split(END)
    table = rows(results.read_text().splitlines() if results.exists() else [], old)
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}{after}")
    return len(table) - 2
