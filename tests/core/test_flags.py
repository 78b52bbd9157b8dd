"""A mean against a cutoff: the interval, the call, the reasons and the words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spineimg.anatomy import Role, Status
from spineimg.cutoffs import LEE_2024
from spineimg.notes import Note
from spineimg.vertebra.flags import BLOCKING, Call, Flag, FlagSettings, Subject, flag, interval
from spineimg.volume import Acquisition
from tests.core.volumes import UNENHANCED_120

CUTOFF = 127.273


def flagged(
    mean: float | None, acquisition: Acquisition = UNENHANCED_120, notes: tuple[str, ...] = (), **subject: object
) -> Flag:
    who = replace(Subject("T12", Role.LIV, mean), **subject)  # type: ignore[arg-type]
    reasons = [Note(code, f"because of {code}", "T12") for code in notes]
    found = flag(who, acquisition, reasons, LEE_2024)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kvp", "contrast", "expected"),
    [
        (120.0, False, (84.0, 116.0)),
        (120.0, True, (58.0, 116.0)),
        (120.0, None, (58.0, 116.0)),
        (100.0, False, (71.0, 116.0)),
        (100.0, None, (45.0, 116.0)),
        (80.0, False, (56.0, 116.0)),
        (140.0, False, (84.0, 127.0)),
        (140.0, True, (58.0, 127.0)),
        (120.3, False, (84.0, 116.0)),
        (130.0, False, None),
        (None, False, None),
    ],
)
def test_the_interval_of_a_mean_of_100_hu(
    kvp: float | None, contrast: bool | None, expected: tuple[float, float] | None
) -> None:
    """mean * factor - 26 - 16 to mean * factor + 16. Planted: unknown contrast as none; the factors of 100 and 140 kVp
    swapped; contrast added above; the error on one side only.
    """
    got = interval(100.0, Acquisition(kvp=kvp, contrast=contrast), FlagSettings())
    assert got == (pytest.approx(expected) if expected else None)


def test_factors_of_a_negative_mean_keep_the_interval_in_order() -> None:
    """Planted: the low factor taken for the low end."""
    got = interval(-50.0, Acquisition(kvp=80.0, contrast=False), FlagSettings())
    assert got == pytest.approx((-66.0, -20.0))


@pytest.mark.parametrize(
    ("mean", "call"),
    [
        (CUTOFF - 16.001, Call.BELOW),
        (CUTOFF - 16.0, Call.INDETERMINATE),
        (CUTOFF, Call.INDETERMINATE),
        (CUTOFF + 15.999, Call.INDETERMINATE),
        (CUTOFF + 16.001, Call.NOT_BELOW),
    ],
)
def test_the_call_is_the_interval_against_the_cutoff(mean: float, call: Call) -> None:
    """Planted: the mean itself compared; the error counted twice."""
    assert flagged(mean).call is call


@pytest.mark.parametrize(
    ("mean", "below"), [(127.272, True), (127.2729999, True), (127.273, False), (127.274, False), (127.0, True)]
)
def test_the_plain_comparison_is_strict_and_unrounded(mean: float, below: bool) -> None:
    """Planted: <= for <; the mean rounded to one decimal first."""
    assert flagged(mean).below_cutoff is below


@given(
    mean=st.floats(-150, 800),
    kvp=st.sampled_from([80.0, 100.0, 120.0, 140.0]),
    contrast=st.sampled_from([True, False, None]),
)
def test_the_interval_holds_the_mean_and_what_is_unknown_never_narrows_it(
    mean: float, kvp: float, contrast: bool | None
) -> None:
    got = flagged(mean, Acquisition(kvp=kvp, contrast=contrast))
    assert got.interval_hu is not None
    low, high = got.interval_hu
    assert low <= mean <= high
    known = flagged(mean, UNENHANCED_120).interval_hu
    assert known is not None
    assert low <= known[0] + 1e-9
    assert high >= known[1] - 1e-9
    expected = Call.BELOW if high < CUTOFF else Call.NOT_BELOW if low >= CUTOFF else Call.INDETERMINATE
    assert got.call is expected


@pytest.mark.parametrize("code", sorted(BLOCKING))
def test_each_blocking_note_ends_in_not_assessed_with_its_reason(code: str) -> None:
    got = flagged(60.0, notes=(code,))
    assert got.call is Call.NOT_ASSESSED
    assert got.below_cutoff is True
    assert got.interval_hu == pytest.approx((44.0, 76.0))
    assert f"because of {code}" in got.text


def test_the_codes_that_block_are_those_agreed_on() -> None:
    assert {
        "monoenergetic",
        "slices_too_thick",
        "resampled_thick_slices",
        "slices_differ",
        "sd_beyond_noise",
        "metal_near",
        "metal_excluded",
        "implausible_hu",
        "level_order",
        "mask_not_only_body",
        "mask_misplaced",
        "mask_reduced_to_body",
    } == BLOCKING


@pytest.mark.parametrize("code", ["fewer_than_three_slices", "roi_small", "contrast_unknown", "touches_cortex"])
def test_other_notes_do_not_block(code: str) -> None:
    assert flagged(60.0, notes=(code,)).call is Call.BELOW


@pytest.mark.parametrize("kvp", [None, 70.0, 110.0, 135.0])
def test_another_or_unknown_tube_voltage_is_not_assessed(kvp: float | None) -> None:
    got = flagged(60.0, Acquisition(kvp=kvp, contrast=False))
    assert (got.call, got.interval_hu, got.below_cutoff) == (Call.NOT_ASSESSED, None, True)
    assert "tube voltage" in got.text or f"{kvp:g} kVp" in got.text


def test_without_a_number_nothing_is_assessed() -> None:
    """Planted: a missing mean taken for 0."""
    got = flagged(None)
    assert (got.call, got.interval_hu, got.below_cutoff) == (Call.NOT_ASSESSED, None, None)
    assert "there is no number" in got.text


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_measured_and_never_flagged(status: Status) -> None:
    got = flagged(60.0, status=status)
    assert (got.call, got.below_cutoff) == (Call.NOT_ASSESSED, None)
    assert got.interval_hu == pytest.approx((44.0, 76.0))
    assert f"marked as {status}" in got.text


def test_the_cutoff_of_the_liv_is_not_applied_to_another_role() -> None:
    """Planted: the role not compared."""
    assert flag(Subject("T8", Role.UIV, 60.0), UNENHANCED_120, (), LEE_2024) is None
    assert flag(Subject("T8", Role.UIV, 60.0), UNENHANCED_120, (), None) is None
    own = replace(LEE_2024, role=Role.UIV, value_hu=163.0, source="Example 2020")
    got = flag(Subject("T8", Role.UIV, 60.0), UNENHANCED_120, (), own)
    assert got is not None
    assert (got.call, got.cutoff_hu, got.source) == (Call.BELOW, 163.0, "Example 2020")


def test_the_text_says_value_interval_cutoff_paper_and_how_it_did() -> None:
    text = flagged(104.23, replace(UNENHANCED_120, contrast=None)).text
    for part in (
        "LIV T12: mean 104.2 HU",
        "unenhanced at 120 kVp 62.2 to 120.2 HU",
        "below the cutoff of 127.273 HU (Lee 2024)",
        "± 16 HU measurement error",
        "down to -26 HU because whether contrast agent was given is unknown",
        "abstract): sensitivity 59.1%, specificity 73.4%",
        "Figure 2): sensitivity 69.6%, specificity 73.6%",
        "10.9% (24 of 220)",
        "PPV 21.4%, NPV 93.6%",
        "PPV 24.4%, NPV 95.2%",
        "two different results",
        "not a diagnosis",
    ):
        assert part in text
    assert "not confirmed" not in text
    assert "from 100 to 120 kVp" in flagged(104.23, Acquisition(kvp=100.0, contrast=True)).text
    assert "contrast agent was given;" in flagged(104.23, Acquisition(kvp=100.0, contrast=True)).text


@pytest.mark.parametrize(("confirmed", "said"), [(False, True), (True, False), (None, False)])
def test_an_unconfirmed_level_is_said(confirmed: bool | None, said: bool) -> None:
    assert ("The name T12 is not confirmed" in flagged(100.0, confirmed=confirmed).text) is said


def test_a_reason_that_holds_for_three_planes_is_said_once() -> None:
    got = flagged(60.0, notes=("sd_beyond_noise", "sd_beyond_noise", "metal_near", "sd_beyond_noise"))
    assert got.text.count("because of sd_beyond_noise") == 1
    assert "scans before surgery" in got.text
