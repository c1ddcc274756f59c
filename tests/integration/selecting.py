"""tests/selection.py as a plugin of pytest. Apart from conftest.py, on which the lab's own tests depend."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests import selection

LAB_TESTS = "test_lab_"
WHOLE = pytest.StashKey[bool]()  # no phase of the test has failed


def _passed(file: Path) -> selection.Record:
    return selection.Record(file.stem, *selection.LAB_INPUTS, file)


class Selection:
    """Chooses at collection, and keeps what passed."""

    def __init__(self) -> None:
        self.open: dict[Path, set[str]] = defaultdict(set)  # of the lab's own tests, what has not passed yet

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take what this run takes; a choice of files, names or keywords is the caller's, and is left alone."""
        whole = not config.option.keyword and all(Path(argument).is_dir() for argument in config.args)
        if not whole or selection.everything():
            return
        thorough: dict[str, list[str]] = defaultdict(list)
        for item in items:
            if item.get_closest_marker("thorough"):
                thorough[item.path.name].append(item.nodeid)
            if item.path.name.startswith(LAB_TESTS):
                self.open[item.path].add(item.nodeid)
        seed = selection.seed()
        drawn, stories = selection.draw(thorough, seed), selection.stories_left_out(seed)
        left = [
            item
            for item in items
            if item.path.name in stories or (item.get_closest_marker("thorough") and item.nodeid not in drawn)
        ]
        if left:
            config.hook.pytest_deselected(items=left)
            gone = set(left)
            items[:] = [item for item in items if item not in gone]
        items.sort(key=lambda item: selection.turn(item.path.name))
        for file in list(self.open):
            if when := _passed(file).when():
                reason = f"the lab passed on this machine with the same content at {when}"
                for item in items:
                    if item.path == file:
                        item.add_marker(pytest.mark.skip(reason=reason))
                del self.open[file]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo):
        """Count what passed as a whole, or has its own reason to be skipped."""
        report = yield
        item.stash[WHOLE] = report.outcome != "failed" and (report.when == "setup" or item.stash[WHOLE])
        if item.path in self.open and report.when == "teardown" and item.stash[WHOLE]:
            self.open[item.path].discard(item.nodeid)
            if not self.open[item.path]:
                _passed(item.path).write()
        return report
