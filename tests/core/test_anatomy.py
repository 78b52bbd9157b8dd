"""Names and order of vertebrae."""

from __future__ import annotations

import pytest

from spineimg.anatomy import LEVELS, Construct, Role, is_lumbar, order, parse_level
from spineimg.errors import RoiError


def test_levels_run_from_head_to_foot():
    assert len(LEVELS) == len(set(LEVELS)) == 7 + 13 + 6 + 1
    assert [order(level) for level in ("C1", "C7", "T1", "T12", "T13", "L1", "L5", "L6", "S1")] == [
        0, 6, 7, 18, 19, 20, 24, 25, 26,
    ]  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_spellings_of_a_level(level):
    assert parse_level(level) == parse_level(level.lower()) == parse_level(f" {level[0]} 0{level[1:]} ") == level


@pytest.mark.parametrize(
    "text", ["", "T14", "L7", "C8", "S2", "T0", "X1", "12", "T", "T12-L1", "T1 2", None, 12, ["T1"]]
)
def test_no_level(text):
    with pytest.raises(RoiError, match="C1-C7"):
        parse_level(text)


def test_lumbar_begins_at_l1():
    assert [is_lumbar(level) for level in ("T12", "T13", "L1", "L6", "S1")] == [False, False, True, True, True]


def test_roles_of_a_construct():
    construct = Construct("T8", "T12")
    assert [construct.role(level) for level in ("T7", "T8", "T10", "T12")] == [None, Role.UIV, None, Role.LIV]
    assert Construct().role("T8") is None
    assert Construct("T8", "T8").role("T8") is Role.LIV
    assert Construct(liv="L4").role("L4") is Role.LIV


def test_construct_upside_down():
    """Planted: order compared by the spelling, where T10 comes before T9."""
    with pytest.raises(RoiError, match="swap"):
        Construct("T10", "T9")
    assert Construct("T9", "T10").liv == "T10"
    assert Construct("T13", "L1").uiv == "T13"
