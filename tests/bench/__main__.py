"""python -m tests.bench [PART ...] [--seed N] [-n KILLS] [--keep] [--json FILE]: the figures of README.md, "How fast".

Every figure is a median with its spread, and stands beside a limit or a peer that was measured in the same run. Without a
PART all are run, which takes half an hour on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from tests.bench import agent, dead_host, drain, evacuation, nodes, scale
from tests.bench.figures import Figure, table
from tests.bench.site import Site
from tests.lab import LabError

# On one lab with agent and operator, in this order; the others start a lab of their own kind afterwards.
DEPLOYED: dict[str, Callable[[Site], list[Figure]]] = {
    "idle": Site.idle,
    "recovery": Site.recovery,
    "agent": agent.figures,
    "starts": Site.starts,
    "drain": drain.figures,
    "evacuation": evacuation.figures,
    "dead-host": dead_host.figures,
}
ALONE: dict[str, Callable[[int, Callable[[str], None]], list[Figure]]] = {
    "nodes": nodes.figures,
    "scale": scale.figures,
}


def main() -> int:
    """Run the parts; nonzero when a wanted figure is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join((*DEPLOYED, *ALONE))}")
    parser.add_argument("--seed", type=int, default=71)
    parser.add_argument("-n", "--kills", type=int, default=12)
    parser.add_argument("--keep", action="store_true", help="leave the lab of the deployed parts up")
    parser.add_argument("--json", type=Path, help="write the values there, too")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - {*DEPLOYED, *ALONE}
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}: choose from {', '.join((*DEPLOYED, *ALONE))}")
    wanted = arguments.parts or [*DEPLOYED, *ALONE]
    console = Console(highlight=False, soft_wrap=True)
    figures: list[Figure] = []
    failed = []

    def measure(name: str, function: Callable[..., list[Figure]], *given: object) -> None:
        """One part; when it fails the others still run."""
        console.print(f"{name}:")
        try:
            found = function(*given)
            figures.extend(found)
            console.print(table(found))  # an interrupted run has shown what it measured
        except (LabError, AssertionError) as error:
            failed.append(name)
            console.print(f"  FAILED: {error}", markup=False)

    if set(wanted) & set(DEPLOYED):
        site = Site(arguments.seed, arguments.kills, console)
        try:
            figures += site.up()
            for name in DEPLOYED:
                if name in wanted:
                    measure(name, DEPLOYED[name], site)
        finally:
            if not arguments.keep:
                site.down()
    for number, name in enumerate(ALONE):
        if name in wanted:
            measure(name, ALONE[name], arguments.seed + 1 + number, site_say(console))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    console.print(table(figures))
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    return int(bool(failed) or any(figure.met() is False for figure in figures))


def site_say(console: Console) -> Callable[[str], None]:
    """Progress of a part."""
    return lambda text: console.print(f"  {text}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
