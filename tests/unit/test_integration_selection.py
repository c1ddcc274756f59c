"""Which integration tests and scenarios a run takes."""

from __future__ import annotations

import time

import pytest

from tests import selection
from tests.setup import gate


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


def test_scenarios_take_turns_by_content_and_the_first_is_always_first():
    orders = {tuple(each.name for each in gate.drawn(gate.STACK, str(seed))) for seed in range(30)}
    assert len(orders) > 5 and {order[0] for order in orders} == {gate.STACK[0].name}
    assert {order[1] for order in orders} == {each.name for each in gate.STACK[1:]}
    assert gate.drawn(gate.STACK, "same") == gate.drawn(gate.STACK, "same")


@pytest.mark.parametrize(("elapsed", "left_out"), [(0.0, False), (gate.HOUR - 800, True)])
def test_a_scenario_that_would_not_end_within_the_hour_is_left_out(monkeypatch, tmp_path, elapsed, left_out):
    monkeypatch.setattr(gate.system, "cache", lambda: tmp_path)
    monkeypatch.setattr(gate, "STARTED", time.monotonic() - elapsed)
    monkeypatch.setenv("C5C3_HA_THOROUGH", "0")
    (tmp_path / "logs").mkdir()
    ran = gate.run(gate.Gate("scenario", ["true"], 60, needs=801.0))
    assert (ran.left_out, ran.code) == (left_out, 0) and (ran.seconds > 0) is not left_out


def test_one_that_is_part_of_every_run_is_never_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(gate.system, "cache", lambda: tmp_path)
    monkeypatch.setattr(gate, "STARTED", time.monotonic() - 2 * gate.HOUR)
    (tmp_path / "logs").mkdir()
    assert not gate.run(gate.Gate("scenario", ["true"], 60)).left_out


@pytest.mark.parametrize(
    ("told", "elapsed", "again"),
    [
        ("clients do not write again within 180 s", 0.0, True),
        ("4019 acknowledged, 0 lost, 0 twice; 1 failovers", 0.0, True),
        ("4019 acknowledged, 3 lost, 0 twice", 0.0, False),
        ("4019 acknowledged, 0 lost, 0 twice; 2 failovers", 0.0, False),
        ("clients do not write again within 180 s", gate.AGAIN_WITHIN, False),
    ],
)
def test_a_failed_scenario_is_run_once_more_unless_data_was_lost_or_time_is_short(
    monkeypatch, tmp_path, told, elapsed, again
):
    monkeypatch.setattr(gate.system, "cache", lambda: tmp_path)
    monkeypatch.setattr(gate, "STARTED", time.monotonic() - elapsed)
    (tmp_path / "logs").mkdir()
    failed = gate.Gate("scenario", ["true"], 60, code=1, needs=10.0, retried=True)
    failed.log.write_text(told)
    assert failed.worth_another() is again
    assert not gate.Gate("lint", ["true"], 60, code=1).worth_another()


def test_a_scenario_that_failed_is_never_left_out_of_its_second_run(monkeypatch, tmp_path):
    """Its first run has used up the hour: left out, a failed scenario would pass."""
    monkeypatch.setattr(gate.system, "cache", lambda: tmp_path)
    monkeypatch.setattr(gate, "STARTED", time.monotonic() - gate.HOUR + 10.5)
    monkeypatch.setenv("C5C3_HA_THOROUGH", "0")
    (tmp_path / "logs").mkdir()
    ran = tmp_path / "ran"
    failing = gate.Gate("scenario", ["sh", "-c", f"echo x >> {ran}; sleep 0.6; exit 1"], 60, needs=10.0, retried=True)
    gate.run_real(failing)
    assert (ran.read_text(), failing.code, failing.left_out) == ("x\nx\n", 1, False)
