"""Counting: from clicks, from the sacrum, with odd numbers of vertebrae."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spineimg.errors import RoiError
from spineimg.vertebra.naming import _named


def counted(count: int, known: dict[int, str], *, sacrum: bool = False, held: bool = False) -> Any:
    """Names of `count` bodies from below, of which some are known."""
    body = SimpleNamespace(notes=())
    ends = ("image_ends", "no further disc is found")
    spine: Any = SimpleNamespace(
        bodies=(body,) * count, held=(held,) * count, below=ends, above=ends, sacrum=sacrum, start=0
    )
    return _named(spine, known, confirmed=True)


def levels(named: Any) -> list[str]:
    return [one.level for one in named.vertebrae]


def test_names_are_counted_both_ways_from_a_click() -> None:
    """Planted: counting towards the feet."""
    assert levels(counted(8, {2: "L3"})) == ["T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5"]


@pytest.mark.parametrize(
    ("known", "names"),
    [
        ({1: "T13"}, ["T11", "T12", "T13", "L1"]),
        ({0: "L1", 2: "T12"}, ["T11", "T12", "T13", "L1"]),
        ({0: "L1", 1: "T11"}, ["T9", "T10", "T11", "L1"]),
        ({0: "L6"}, ["L3", "L4", "L5", "L6"]),
    ],
    ids=["T13 named", "T13 between", "T11 is the last", "L6 named"],
)
def test_other_numbers_of_vertebrae(known: dict[int, str], names: list[str]) -> None:
    assert levels(counted(4, known)) == names


def test_clicks_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RoiError, match="contradict"):
        counted(5, {0: "L5", 1: "L2"})


def test_a_sixth_lumbar_body_is_named_and_noted_and_a_doubtful_one_is_left_out() -> None:
    """Planted: the body below L5 called S1."""
    found = counted(3, {1: "L5"})
    assert levels(found) == ["L4", "L5", "L6"]
    assert "sixth_lumbar" in {note.code for note in found.notes}
    doubtful = counted(3, {1: "L5"}, held=True)
    assert levels(doubtful) == ["L4", "L5"]
    assert len(doubtful.unnamed) == 1


def test_a_sacrum_at_an_unusual_place_is_noted() -> None:
    codes = {note.code for note in counted(2, {0: "L4"}, sacrum=True).notes}
    assert "unusual_count" in codes
    assert "unusual_count" not in {note.code for note in counted(2, {0: "L5"}, sacrum=True).notes}
