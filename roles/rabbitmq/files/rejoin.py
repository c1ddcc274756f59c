# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts this RabbitMQ member when a hang left it apart from the majority.

A host that hangs longer than net_ticktime is left out by the others. When it goes on, all connections are down and up again within
a blink: RabbitMQ never sees itself without a majority and does not pause (rabbitmq-server#1161, #2230), while Mnesia notes a
partition that only a restart ends. So a member that Mnesia tells of a partition, and that is apart from a majority, is restarted.
When all are apart from each other, the first stays.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

# what the member logs when Mnesia notes a partition
SIGN = "inconsistent_database"
# All members are asked: cluster_status tells of those only that this one takes for running.
QUESTION = "Nodes = mnesia:system_info(db_nodes), {Nodes, rabbit_node_monitor:partitions(Nodes)}."
# a member that pauses or starts has no answer, and needs no help
ATTEMPTS, DELAY = 5, 3.0
# what is logged within so many seconds is of the same event
SAME = 1.0


def read(answer: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return (members, whom each that answered sees apart) from the answer to QUESTION, a term of Erlang; raise ValueError else."""
    found = re.fullmatch(r"\{\[(?P<members>[^][{}]+)\],\[(?P<told>.*)\]\}", "".join(answer.split()))
    if not found:
        raise ValueError(answer)

    def names(text: str) -> list[str]:
        # quoted where a host's name has a dash or a dot
        return [name.strip("'") for name in text.split(",") if name]

    told = re.findall(r"\{([^][{},]+),\[([^][{}]*)\]\}", found["told"])
    return names(found["members"]), {name.strip("'"): names(others) for name, others in told}


def apart(members: Sequence[str], partitions: Mapping[str, Sequence[str]], me: str) -> bool:
    """Tell whether this member is the one to restart.

    :param partitions: for each member that answered, whom it sees apart.
    """

    def from_majority(name: str) -> bool:
        return 2 * len(partitions.get(name, ())) > len(members)

    with_majority = [name for name in partitions if name != me and not from_majority(name)]
    return from_majority(me) and (bool(with_majority) or me != min(members))


def look(ask: Callable[[], str], me: str, wait: Callable[[float], object]) -> tuple[bool, str]:
    """Return (restart, why); asks some times, since a member that starts has no answer yet."""
    answer = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            wait(DELAY)
        answer = ask()
        try:
            wrong = apart(*read(answer), me)
        except ValueError:
            continue
        return wrong, "apart from the majority since this member hung" if wrong else "not apart from the majority"
    return False, f"no answer from this member: {answer.strip()[-300:]}"


def ask_member() -> str:
    """Return the member's answer to QUESTION, or its complaint."""
    done = subprocess.run(
        ["timeout", "60", "rabbitmqctl", "--quiet", "eval", QUESTION],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def signs(log: IO[str], seen: threading.Event) -> None:
    """Set ``seen`` whenever the log has a sign."""
    for line in log:
        if SIGN in line:
            seen.set()


def main() -> None:
    """Follow the log until systemd stops it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--node", required=True, help="this member's name, such as rabbit@msg1")
    parser.add_argument("--service", required=True, help="its unit")
    arguments = parser.parse_args()
    never, seen = threading.Event(), threading.Event()
    # by name and again and again: the log is rotated, and a new member has none yet
    argv = ["tail", "--follow=name", "--retry", "--lines=0", f"/var/log/rabbitmq/{arguments.node}.log"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace") as tail:
        assert tail.stdout is not None
        reader = threading.Thread(target=signs, args=(tail.stdout, seen), daemon=True)
        reader.start()
        while reader.is_alive():
            if not seen.wait(5):
                continue
            never.wait(SAME)
            seen.clear()
            restart, why = look(ask_member, arguments.node, never.wait)
            print(f"{why}{': restart' if restart else ''}", flush=True)
            if restart:
                subprocess.run(["systemctl", "restart", arguments.service], check=False)


if __name__ == "__main__":
    main()
