"""What the terminal shows."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from spineimg.agreement import agree
from spineimg.anatomy import Role
from spineimg.export.json import agreement_to_dict, result_to_dict
from spineimg.export.text import agreement_view, result_view
from spineimg.notes import Note
from spineimg.vertebra.flags import Call
from spineimg.volume import Acquisition, SeriesInfo
from tests.export.records import CREATED, FLAG, case, slice_hu, vertebra


def shown(what, width=120):
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(what)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_a_case_in_words(width):
    """Planted: the note's texts left out below the table."""
    note = Note("contrast_unknown", "whether contrast was given is unknown", "T12")
    result = case(
        vertebra("T8", Role.UIV, (slice_hu(mean=None),), None, (Note("gap", "a gap of 6 mm", "T8"),)),
        vertebra("T12", Role.LIV, notes=(note,)),
    )
    lines = shown(result_view(result), width).splitlines()
    (t8,) = (line for line in lines if line.startswith("│ T8"))
    (t12,) = (line for line in lines if line.startswith("│ T12"))
    assert [cell.strip() for cell in t8.split("│")[1:4]] == ["T8", "UIV", "–"]
    assert [cell.strip() for cell in t12.split("│")[1:4]] == ["T12", "LIV", "130.5"]
    assert "◆ indeterminate" in t12
    assert "21.5" in t12
    assert "100%" in t12
    text = "\n".join(lines)
    assert "120 kVp · no contrast · kernel B30f" in text
    assert FLAG.text in text
    assert "• T12: whether contrast was given is unknown" in text
    assert "• T8: a gap of 6 mm" in text
    assert "• the gantry is tilted by 12.0°" in text
    assert max(map(len, lines)) <= width


def test_slice_means_in_order():
    """Planted: the slices sorted by their means."""
    slices = tuple(slice_hu(mean=mean) for mean in (131.2, 99.8, 104.4))
    assert "131 / 100 / 104" in shown(result_view(case(vertebra(slices=slices))))


def test_headers_cannot_speak_to_the_terminal():
    """Planted: the heading given to rich as markup - `[/red]` then raises."""
    result = case(
        series=SeriesInfo("1", None, "\x1b[31mred [/red] [bold]"),
        acquisition=Acquisition(kernel="[/]\x07"),
        notes=(Note("x", "line\nbreak \x1b]0;title\x07", ""),),
    )
    text = shown(result_view(result))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[/red] [bold]" in text


def test_every_call_has_its_word():
    for call, word in {
        Call.BELOW: "▼ below",
        Call.INDETERMINATE: "◆ indeterminate",
        Call.NOT_BELOW: "▲ not below",
        Call.NOT_ASSESSED: "○ not assessed",
    }.items():
        flag = FLAG.__class__(call, None, 127.273, None, "Lee 2024", "…")
        assert word in shown(result_view(case(vertebra(flag=flag))))


def reading(**means):
    vertebrae = (vertebra(level, None, (slice_hu(mean=mean),), None) for level, mean in means.items())
    return result_to_dict(case(*vertebrae), CREATED)


def test_two_readers():
    a, b = reading(T8=180.0, T10=170.0, T12=140.0), reading(T8=184.0, T10=168.0, T12=141.0, L1=120.0)
    view = agreement_to_dict(agree(a, b), datetime(2026, 1, 1, tzinfo=UTC))
    text = shown(agreement_view(view, ("first.json", "[/red].json")))
    assert "A: first.json" in text
    assert "B: [/red].json" in text
    assert "−4.0" in text
    assert "+2.0" in text
    assert "Mean difference A − B: −1.0 HU (95 % CI −8.5 to 6.5), SD 3.0 HU" in text
    assert "Limits of agreement: −6.9 to +4.9 HU" in text
    assert "ICC(2,1): 0.992" in text
    assert "• L1: not in A" in text
    few = agreement_to_dict(agree(reading(T8=180.0), reading(T8=184.0)), datetime(2026, 1, 1, tzinfo=UTC))
    assert "No agreement can be computed: 1 measured by both, at least 3 are needed." in shown(agreement_view(few))
