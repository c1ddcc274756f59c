"""Which integration tests a run takes."""

from __future__ import annotations

import pytest

from tests import selection


def test_one_in_a_share_of_each_file_is_drawn():
    cases = {"a": [f"a{number}" for number in range(9)], "b": ["b0"]}
    drawn = selection.draw(cases, "seed", share=4)
    assert len([name for name in drawn if name.startswith("a")]) == 3
    assert "b0" in drawn, "at least one of each file"


def test_of_a_story_no_more_than_one_is_drawn():
    cases = {selection.STORIES[0]: [f"a{number}" for number in range(20)]}
    assert len(selection.draw(cases, "seed", share=4)) == 1


def test_the_draw_is_of_the_content_alone():
    cases = {"a": [f"a{number}" for number in range(16)]}
    backwards = {"a": list(reversed(cases["a"]))}
    assert selection.draw(cases, "x") == selection.draw(backwards, "x")
    assert len({frozenset(selection.draw(cases, str(number))) for number in range(20)}) > 10, "a change draws anew"


def test_every_case_has_its_turn():
    cases = {"a": [f"a{number}" for number in range(16)]}
    seen = set().union(*(selection.draw(cases, str(number)) for number in range(60)))
    assert seen == set(cases["a"])


def test_one_story_is_told_and_each_has_its_turn():
    told = [set(selection.STORIES) - selection.stories_left_out(str(number)) for number in range(40)]
    assert {len(each) for each in told} == {1}
    assert set().union(*told) == set(selection.STORIES)
    for name in selection.STORIES:
        assert (selection.ROOT / "tests" / "integration" / name).is_file()


@pytest.fixture
def record(tmp_path):
    """Makes the record anew, as another process would."""
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "part.py").write_text("one")
    file = tmp_path / "test_lab_x.py"
    file.write_text("test")
    return lambda: selection.Record("x", lab, file, folder=tmp_path / "passed")


def test_what_passed_is_known_until_its_content_changes(record, tmp_path):
    assert record().when() is None
    record().write()
    assert record().when()
    (tmp_path / "lab" / "part.py").write_text("two")
    assert record().when() is None, "the lab has changed"
    (tmp_path / "lab" / "part.py").write_text("one")
    assert record().when()
    (tmp_path / "test_lab_x.py").write_text("another test")
    assert record().when() is None, "the test has changed"


def test_a_broken_record_is_none(record, tmp_path):
    record().write()
    (path,) = (tmp_path / "passed").glob("*.json")
    path.write_text("{")
    assert record().when() is None


def test_the_checkout_is_all_that_git_sees():
    files = selection.checkout()
    assert selection.ROOT / "galaxy.yml" in files and selection.ROOT / "tests" / "selection.py" in files
    assert not [path for path in files if "__pycache__" in path.parts]


def test_a_moved_file_is_another_content(tmp_path):
    one = selection.Record("x", selection.ROOT / "rulebooks", folder=tmp_path)
    other = selection.Record("x", selection.ROOT / "extensions" / "eda" / "rulebooks", folder=tmp_path)
    assert one.path != other.path


def test_the_longest_files_come_first_and_exist():
    there = {path.name for path in (selection.ROOT / "tests" / "integration").glob("test_*.py")}
    assert set(selection.LONGEST) <= there
    assert sorted(there, key=selection.turn)[: len(selection.LONGEST)] == list(selection.LONGEST)
