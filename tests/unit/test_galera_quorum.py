"""galera-quorum: when two members of three may make their component the primary one, and when not."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection

import pytest

from tests.setup import system

SPEC = importlib.util.spec_from_file_location("galera_quorum", system.ROOT / "roles/galera/files/galera_quorum.py")
assert SPEC and SPEC.loader
quorum = sys.modules[SPEC.name] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quorum)

A, B, C, D, E = (f"{letter * 8}-0000-11f1-0000-{letter * 12}" for letter in "abcde")
KEPT = f"my_uuid: {A}\n#vwbeg\nview_id: 3 {A} 6\nbootstrap: 0\nmember: {A} 0\nmember: {B} 0\nmember: {C} 0\n#vwend\n"


def view(me: str, *members: str) -> quorum.View:
    return quorum.View(me, frozenset(members))


def test_what_galera_keeps_is_read() -> None:
    assert quorum.parse(KEPT) == view(A, A, B, C)


@pytest.mark.parametrize("text", ["", "my_uuid: \n", KEPT.replace("#vwend\n", ""), KEPT[: KEPT.index("member")]])
def test_a_file_that_was_being_written_is_none(text: str) -> None:
    assert quorum.parse(text) is None


@pytest.mark.parametrize(
    ("last", "status", "component", "says"),
    [
        (view(A, A, B, C), "Primary", {A, B, C}, ""),
        (view(A, A, B, C), "Disconnected", {A, B}, ""),
        # a member that starts, or left in good order, has no file
        (None, "non-Primary", {A, B}, "no primary component since its start"),
        (view(A, A, B, C), "non-Primary", {A}, "1 of 3"),
        (view(A, A, B, C), "non-Primary", {B, C}, "no primary component since its start"),
        (view(A, A, B, C), "non-Primary", (), "no primary component since its start"),
        # restarted, so under another uuid: it may have been in a later component with the third, and left it
        (view(A, A, B, C), "non-Primary", {A, D}, "not in the last primary component"),
        (view(A, A, B, C), "non-Primary", {A, B, D}, "not in the last primary component"),
        # the third left in good order: who was last knows only itself
        (view(A, A, B), "non-Primary", {A, B}, "had 2 members"),
        (view(A, A), "non-Primary", {A, B}, "had 1 members"),
        # of five, three may be apart from two that went on with a third that is back
        (view(A, A, B, C, D, E), "non-Primary", {A, B, C}, "a human decides"),
        # one of the two acts
        (view(B, A, B, C), "non-Primary", {A, B}, "the other one of the two"),
    ],
)  # fmt: skip
def test_it_leaves_alone(last: quorum.View | None, status: str, component: Collection[str], says: str) -> None:
    act, why = quorum.judge(last, status, component)
    assert not act and says in why


@pytest.mark.parametrize(("me", "component"), [(A, {A, B}), (A, {A, C}), (B, {B, C}), (A, {A, B, C})])
def test_a_majority_that_was_there_all_along_goes_on(me: str, component: set[str]) -> None:
    assert quorum.judge(view(me, A, B, C), "non-Primary", component)[0]


def test_of_two_that_see_each_other_just_one_acts() -> None:
    acts = [quorum.judge(view(me, A, B, C), "non-Primary", {B, C})[0] for me in (B, C)]
    assert acts == [True, False]
