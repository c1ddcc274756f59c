"""What the bench measures, how it is shown, and what a process costs."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table


@dataclass
class Figure:
    """One row: values in `unit`, what they are measured against, and the most that is wanted."""

    name: str
    values: list[float]
    unit: str = "s"
    limit: list[float] | None = None
    limit_name: str = ""
    wanted: float | None = None

    def met(self) -> bool | None:
        """Whether the median is within what is wanted; None when nothing is."""
        return None if self.wanted is None or not self.values else statistics.median(self.values) <= self.wanted


def spread(values: list[float] | None) -> str:
    """Median (least - most), n."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f}) n={len(values)}"


def table(figures: list[Figure]) -> Table:
    """All figures as a person reads them."""
    shown = Table(box=None, pad_edge=False)
    for column in ("figure", "median (least-most)", "wanted", "limit in the same run", "ratio"):
        shown.add_column(column)
    for figure in figures:
        met = figure.met()
        wanted = "" if met is None else f"at most {figure.wanted:g}" + ("" if met else "  MISSED")
        limit = f"{spread(figure.limit)} {figure.limit_name}" if figure.limit else ""
        ratio = ""
        if figure.limit and figure.values:
            ratio = f"{statistics.median(figure.values) / statistics.median(figure.limit):.1f}"
        shown.add_row(f"{figure.name} [{figure.unit}]".replace("[", "\\["), spread(figure.values), wanted, limit, ratio)
    return shown


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        found = [int(child) for child in children.read_text().split()]
    except OSError:
        return []
    return [pid, *(each for child in found for each in tree(child))]


def pss(pid: int) -> float:
    """Proportional set size in MB: pages that are shared with others count by share."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def cpu(pid: int) -> float:
    """Seconds of processor time that a process and its ended children took."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = stat[stat.rindex(")") + 2 :].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
