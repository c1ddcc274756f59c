# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The c5c3.ha authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers are left alone by their own wish, and which go first. Pure functions over what Nova and Glance say.

A wish stands in the server's metadata, in its flavor's extra specs, or in its image's properties and tags, and the first
of these that says something counts: the nearest to the server knows best. Values are written by tenants: what is not
understood is told and otherwise as if it were not there, since a server that is moved for nothing is better off than one
that is left dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Metadata and extra specs have the colon of Nova's own scoped keys; many tools for Glance take none.
SKIP_KEY = "c5c3:ha"
PRIORITY_KEY = "c5c3:ha_priority"
IMAGE_SKIP_KEY = "c5c3_ha"
IMAGE_PRIORITY_KEY = "c5c3_ha_priority"
# Masakari's key (ha_enabled_instance_metadata_key); asked for by the option selection_key.
MASAKARI_KEY = "HA_Enabled"

SOURCES = ("metadata", "flavor", "image")
PRIORITY_LIMIT = 1000

_OUT = frozenset({"skip", "false", "no", "off", "0", "disabled"})
_IN = frozenset({"keep", "true", "yes", "on", "1", "enabled"})


@dataclass(frozen=True)
class Wishes:
    """Where a server's wishes may stand; all written by others.

    ``tags`` are the image's. ``image`` and ``tags`` are empty for a server without an image, or when Glance did not say.
    """

    metadata: Mapping[str, object] = ()  # type: ignore[assignment]
    flavor: Mapping[str, object] = ()  # type: ignore[assignment]
    image: Mapping[str, object] = ()  # type: ignore[assignment]
    tags: Iterable[str] = ()


@dataclass(frozen=True)
class Rules:
    """What the site honours.

    :ivar sources: which of SOURCES are read.
    :ivar key: a further metadata key that says yes or no, such as Masakari's HA_Enabled; empty for none.
    :ivar opted_in_only: leave alone every server that does not ask for care.
    """

    sources: tuple[str, ...] = SOURCES
    key: str = ""
    opted_in_only: bool = False


@dataclass(frozen=True)
class Choice:
    """What a server's wishes come to.

    :ivar skip: why it is left alone and what would change that, in words; empty when it is not.
    :ivar priority: higher goes first; 0 where nothing is said.
    :ivar note: a wish that was not understood.
    """

    skip: str = ""
    priority: int = 0
    note: str = ""


def choose(wishes: Wishes, rules: Rules) -> Choice:
    """What becomes of a server by its own wish."""
    notes: list[str] = []
    wanted = _wanted(wishes, rules, notes)
    skip = ""
    if wanted is not None and not wanted[0]:
        skip = f"left alone as {wanted[1]} asks; {wanted[2]} to have it moved"
    elif rules.opted_in_only and wanted is None:
        skip = f"left alone: only servers that ask for it are moved here; set its metadata {rules.key or SKIP_KEY}=true"
    return Choice(skip, _priority(wishes, rules, notes), "; ".join(notes))


def in_order(priorities: Mapping[str, int]) -> list[str]:
    """Keys, the highest priority first; the order in which they came among equals."""
    return sorted(priorities, key=lambda key: -priorities[key])


def _wanted(wishes: Wishes, rules: Rules, notes: list[str]) -> tuple[bool, str, str] | None:
    """(whether it wants care, where that stands, how to change it); None when nothing is said."""
    if "metadata" in rules.sources:
        for key in filter(None, (SKIP_KEY, rules.key)):
            answer = _answer(wishes.metadata, key, f"metadata {key}", notes)
            if answer is not None:
                told = f"its metadata {key}={_value(wishes.metadata, key)}"
                return answer, told, f"`openstack server unset --property {key}`"
    if "flavor" in rules.sources:
        answer = _answer(wishes.flavor, SKIP_KEY, f"flavor's {SKIP_KEY}", notes)
        if answer is not None:
            told = f"its flavor's extra spec {SKIP_KEY}={_value(wishes.flavor, SKIP_KEY)}"
            return answer, told, f"set its metadata {SKIP_KEY}=keep"
    if "image" in rules.sources:
        answer = _answer(wishes.image, IMAGE_SKIP_KEY, f"image's {IMAGE_SKIP_KEY}", notes)
        if answer is not None:
            told = f"its image's property {IMAGE_SKIP_KEY}={_value(wishes.image, IMAGE_SKIP_KEY)}"
            return answer, told, f"set its metadata {SKIP_KEY}=keep"
        for tag in wishes.tags or ():
            name, equals, value = str(tag).partition("=")
            if equals and name.strip() in (SKIP_KEY, IMAGE_SKIP_KEY):
                answer = _yes_or_no(value, f"image's tag {name.strip()}", notes)
                if answer is not None:
                    return answer, f"its image's tag {_shown(tag)}", f"set its metadata {SKIP_KEY}=keep"
    return None


def _priority(wishes: Wishes, rules: Rules, notes: list[str]) -> int:
    places = (("metadata", wishes.metadata, PRIORITY_KEY), ("flavor", wishes.flavor, PRIORITY_KEY))
    for source, values, key in (*places, ("image", wishes.image, IMAGE_PRIORITY_KEY)):
        if source not in rules.sources or key not in (values or {}):
            continue
        text = str(values[key]).strip()
        try:
            # int() takes 10,000 digits and digits of every script; a priority has four of ours.
            if len(text) > 6 or not text.isascii():
                raise ValueError(text)
            return max(-PRIORITY_LIMIT, min(PRIORITY_LIMIT, int(text)))
        except ValueError:
            notes.append(
                f"its {source} says {key}={_shown(text)}: give a whole number"
                f" from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}"
            )
    return 0


def _answer(values: Mapping[str, object], key: str, where: str, notes: list[str]) -> bool | None:
    return _yes_or_no(values[key], where, notes) if key in (values or {}) else None


def _yes_or_no(value: object, where: str, notes: list[str]) -> bool | None:
    text = str(value).strip().lower()
    if text in _OUT:
        return False
    if text in _IN:
        return True
    notes.append(f"its {where}={_shown(value)} is not understood: say skip or keep")
    return None


def _value(values: Mapping[str, object], key: str) -> str:
    return _shown(values[key])


def _shown(value: object) -> str:
    """A value of somebody else's as one short printable piece of text."""
    text = "".join(char if char.isprintable() else "?" for char in str(value)[:40])
    return text if len(str(value)) <= 40 else f"{text}..."
