"""python -m tests.chaos [--seed N] [--minutes M | --rounds N] [--round K] [--theme T] [--plan]

Faults drawn from a seed, judged. Rounds are played until the minutes are over. Exit 1 when anything was seen that must
never be (docs/chaos.md).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos import schedule, verdict
from tests.chaos.site import Played, Site
from tests.lab import LabError

LOGS = Path(__file__).resolve().parents[1] / "output" / "chaos"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the schedule (1)")
    parser.add_argument("--minutes", type=float, default=10.0, help="no round begins later (10)")
    parser.add_argument("--rounds", type=int, help="so many rounds, however long they take")
    parser.add_argument("--round", type=int, help="only this round of the seed, or --rounds from it on")
    parser.add_argument("--theme", choices=schedule.THEMES, help="only rounds of this theme")
    parser.add_argument("--hosts", type=int, default=3, help="hypervisors, which the schedule depends on (3)")
    parser.add_argument("--plan", action="store_true", help="print the schedule and do nothing")
    parser.add_argument("--lab", type=int, default=73, help="seed of the lab, which tells labs apart (73)")
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    parser.add_argument("--logs", type=Path, default=LOGS, help="where logs of violations are kept")
    return parser.parse_args()


def main() -> int:
    """Play rounds; 0 when nothing was seen that must not be."""
    arguments = _arguments()
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    first = arguments.round or 0
    count = arguments.rounds or (1 if arguments.round is not None else None)
    listed = (
        drawn
        for drawn in schedule.rounds(arguments.seed, 10_000, arguments.hosts, first)
        if arguments.theme in (None, drawn.theme)
    )
    if arguments.plan:
        for drawn in itertools.islice(listed, count or len(schedule.THEMES)):
            console.print("\n".join(schedule.describe(drawn)), markup=False)
        return 0
    site = Site(arguments.lab, arguments.hosts, lambda text: console.print(text, markup=False), arguments.logs)
    played: list[Played] = []
    broke = ""
    try:
        site.up()
        began = time.monotonic()
        for drawn in itertools.islice(listed, count):
            if count is None and time.monotonic() - began > arguments.minutes * 60:
                break
            played.append(site.play(drawn))
            if played[-1].facts.quiet:
                # Whatever hangs there would be counted again in each round that follows.
                console.print("the site does not come to rest: it is made anew")
                site.down()
                site.up()
    except (LabError, OSError) as error:
        broke = f"the judge itself failed: {type(error).__name__}: {error}"
    except KeyboardInterrupt:
        broke = "interrupted"
    finally:
        if arguments.keep:
            site.leave()
        else:
            site.down()
    report(console, played)
    if broke:
        console.print(broke, markup=False)
    return int(bool(broke) or any(each.violations for each in played))


def report(console: Console, played: list[Played]) -> None:
    """The tables: a line for each round, a line for each thing that must not be."""
    table = Table(
        "round",
        "theme",
        "faults",
        "left out",
        "deaths",
        "restarts",
        "evacuations",
        "fenced",
        "s",
        "violations",
        box=None,
    )
    for each in played:
        facts = each.facts
        table.add_row(
            f"{each.drawn.seed}/{each.drawn.number}",
            each.drawn.theme,
            str(len(each.drawn.faults)),
            str(each.left_out),
            str(sum(len(verdict.deaths(facts, server.id)) for server in facts.servers)),
            str(sum(server.boots1 - server.boots0 for server in facts.servers if server.want == schedule.RUN)),
            str(len(facts.evacuations)),
            str(len(facts.commands)),
            f"{each.seconds:.0f}",
            ", ".join(sorted({violation.kind for violation in each.violations})) or "-",
        )
    console.print(table)
    table = Table("must never be", "seen", "where", box=None)
    counted = verdict.tally(violation for each in played for violation in each.violations)
    for kind, number in counted.items():
        where = [f"{e.drawn.seed}/{e.drawn.number}" for e in played if any(v.kind == kind for v in e.violations)]
        table.add_row(kind, f"[red]{number}[/red]" if number else "0", ", ".join(where))
    console.print(table)
    rounds = sum(not each.violations for each in played)
    console.print(f"{rounds} of {len(played)} rounds without a violation")


if __name__ == "__main__":
    sys.exit(main())
