"""Which integration tests a run takes."""

from __future__ import annotations

import pytest

from tests import selection


def test_one_in_a_share_of_each_file_is_drawn():
    cases = {"a": [f"a{number}" for number in range(9)], "b": ["b0"]}
    drawn = selection.draw(cases, "seed", share=4)
    assert len([name for name in drawn if name.startswith("a")]) == 3
    assert "b0" in drawn, "at least one of each file"


def test_the_draw_is_of_the_content_alone():
    cases = {"a": [f"a{number}" for number in range(16)]}
    backwards = {"a": list(reversed(cases["a"]))}
    assert selection.draw(cases, "x") == selection.draw(backwards, "x")
    assert len({frozenset(selection.draw(cases, str(number))) for number in range(20)}) > 10, "a change draws anew"


def test_every_case_has_its_turn():
    cases = {"a": [f"a{number}" for number in range(16)]}
    seen = set().union(*(selection.draw(cases, str(number)) for number in range(60)))
    assert seen == set(cases["a"])


@pytest.fixture
def passed(tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "part.py").write_text("one")
    return selection.Passed(tmp_path / "passed", [lab])


def test_what_passed_is_known_until_its_content_changes(passed, tmp_path):
    file = tmp_path / "test_lab_x.py"
    file.write_text("test")
    assert passed.when(file) is None
    passed.record(file)
    assert passed.when(file)
    (tmp_path / "lab" / "part.py").write_text("two")
    assert passed.when(file) is None, "the lab has changed"
    (tmp_path / "lab" / "part.py").write_text("one")
    file.write_text("another test")
    assert passed.when(file) is None, "the test has changed"


def test_a_broken_record_is_none(passed, tmp_path):
    file = tmp_path / "test_lab_x.py"
    file.write_text("test")
    passed.record(file)
    (record,) = (tmp_path / "passed").glob("*.json")
    record.write_text("{")
    assert passed.when(file) is None
