"""Which servers are left alone by their own wish, and which go first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.c5c3.ha.plugins.module_utils.decisions.selection import (
    MASAKARI_KEY,
    PRIORITY_LIMIT,
    Choice,
    Rules,
    Wishes,
    choose,
    in_order,
)

MASAKARI = Rules(key=MASAKARI_KEY)


def test_nothing_said_is_taken_along():
    assert choose(Wishes(), Rules()) == Choice()


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        (Wishes(metadata={"c5c3:ha": "skip"}), "its metadata c5c3:ha=skip"),
        (Wishes(metadata={"c5c3:ha": " No "}), "its metadata c5c3:ha="),
        (Wishes(flavor={"c5c3:ha": "skip"}), "its flavor's extra spec c5c3:ha=skip"),
        (Wishes(image={"c5c3_ha": "skip"}), "its image's property c5c3_ha=skip"),
        (Wishes(tags=["linux", "c5c3_ha=skip"]), "its image's tag c5c3_ha=skip"),
        (Wishes(tags=["c5c3:ha=skip"]), "its image's tag c5c3:ha=skip"),
    ],
)
def test_each_place_opts_out_and_says_where_and_what_helps(wishes, says):
    choice = choose(wishes, Rules())
    assert says in choice.skip and "to have it moved" in choice.skip and choice.note == ""


def test_the_nearest_counts():
    wishes = Wishes(metadata={"c5c3:ha": "keep"}, flavor={"c5c3:ha": "skip"}, tags=["c5c3_ha=skip"])
    assert choose(wishes, Rules()).skip == ""
    assert "flavor" in choose(wishes, Rules(sources=("flavor", "image"))).skip
    assert "tag" in choose(wishes, Rules(sources=("image",))).skip
    assert choose(wishes, Rules(sources=())).skip == ""


def test_masakaris_key_only_where_asked_for():
    out, into = Wishes(metadata={"HA_Enabled": "False"}), Wishes(metadata={"HA_Enabled": "True"})
    assert choose(out, Rules()).skip == ""
    assert "HA_Enabled=False" in choose(out, MASAKARI).skip
    assert choose(into, MASAKARI).skip == ""
    only = Rules(key=MASAKARI_KEY, opted_in_only=True)
    assert choose(into, only).skip == ""
    assert "HA_Enabled=true" in choose(Wishes(), only).skip
    assert choose(Wishes(flavor={"c5c3:ha": "keep"}), only).skip == ""
    # ours is nearer than theirs
    assert choose(Wishes(metadata={"HA_Enabled": "False", "c5c3:ha": "keep"}), MASAKARI).skip == ""


@pytest.mark.parametrize("value", ["skpi", "", "ja", "skip\n\x1b[31m", 5, None, "x" * 300])
def test_what_is_not_understood_is_told_and_taken_along(value):
    choice = choose(Wishes(metadata={"c5c3:ha": value}), Rules())
    assert choice.skip == ""
    assert "c5c3:ha" in choice.note and "skip or keep" in choice.note and len(choice.note) < 200
    assert choice.note.isprintable()


@pytest.mark.parametrize(
    ("wishes", "priority"),
    [
        (Wishes(metadata={"c5c3:ha_priority": "7"}, flavor={"c5c3:ha_priority": "9"}), 7),
        (Wishes(flavor={"c5c3:ha_priority": "-3"}), -3),
        (Wishes(image={"c5c3_ha_priority": "+12"}), 12),
        (Wishes(metadata={"c5c3:ha_priority": "99999"}), PRIORITY_LIMIT),
        (Wishes(metadata={"c5c3:ha_priority": 5}), 5),
    ],
)
def test_priority(wishes, priority):
    assert choose(wishes, Rules()).priority == priority


@pytest.mark.parametrize("text", ["high", "1e3", "", "9" * 5000, "٣", "1.5", "0x10"])
def test_bad_priority_is_told_and_the_next_place_asked(text):
    choice = choose(Wishes(metadata={"c5c3:ha_priority": text}, flavor={"c5c3:ha_priority": "4"}), Rules())
    assert choice.priority == 4 and "c5c3:ha_priority" in choice.note and len(choice.note) < 200


def test_order_is_by_priority_then_as_it_was():
    assert in_order({"a": 0, "b": 5, "c": 0, "d": 5, "e": -1}) == ["b", "d", "a", "c", "e"]


VALUES = st.one_of(st.text(max_size=50), st.integers(), st.sampled_from([None, "skip", "keep", "TRUE", "0"]))
KEYS = st.sampled_from(["c5c3:ha", "c5c3:ha_priority", "c5c3_ha", "c5c3_ha_priority", "HA_Enabled", "x"])
MAPS = st.dictionaries(KEYS, VALUES, max_size=3)


@given(
    st.builds(Wishes, metadata=MAPS, flavor=MAPS, image=MAPS, tags=st.lists(st.text(max_size=8), max_size=3)),
    st.builds(
        Rules,
        sources=st.sampled_from([(), ("metadata",), ("image", "flavor"), ("metadata", "flavor", "image")]),
        key=st.sampled_from(["", "HA_Enabled"]),
        opted_in_only=st.booleans(),
    ),
)
def test_whatever_stands_there_an_answer_comes(wishes, rules):
    choice = choose(wishes, rules)
    assert abs(choice.priority) <= PRIORITY_LIMIT
    assert (choice.skip + choice.note).isprintable()
    assert len(choice.skip) < 300
