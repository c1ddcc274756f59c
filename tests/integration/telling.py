"""What a failed run leaves for whoever looks for the reason: why a test was run again, and the lab's logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import kept_logs


class Telling:
    """A plugin of pytest, in every process."""

    def __init__(self) -> None:
        self.failed: list[str] = []  # in this process, also those that are run again

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        """Remember whether there is a reason to keep the lab's logs."""
        report = yield
        if report.failed and item.nodeid not in self.failed:
            self.failed.append(item.nodeid)
        return report

    def pytest_terminal_summary(self, terminalreporter) -> None:
        """Say what failed before a test was run again: pytest shows the last run only."""
        again = terminalreporter.stats.get("rerun", [])
        if again:
            terminalreporter.section("why tests were run again")
        for report in again:
            terminalreporter.write_line(f"{report.nodeid} ({report.when})", bold=True)
            terminalreporter.write_line(report.longreprtext)

    def keep_logs(self, lab: Path) -> Path | None:
        """Keep the logs of a lab in which a test failed, beside the gates' outputs; returns the archive.

        :param lab: the lab's folder.
        """
        if not self.failed:
            return None
        return kept_logs.keep(lab)
