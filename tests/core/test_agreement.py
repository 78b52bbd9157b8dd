"""Agreement of two readers, against published worked examples, formulas and simulated readers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spineimg.agreement import AgreementSettings, agree, compare, icc_2_1, limit_factors
from spineimg.errors import SpineImgError

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Six subjects, four judges (Shrout & Fleiss 1979, table 2)."""

LARGE_1 = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
LARGE_2 = [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421]
MINI_1 = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
MINI_2 = [525, 415, 508, 444, 500, 625, 460, 390, 642, 432, 420, 605, 227, 467, 268, 370, 443]
"""Peak flow of 17 people, two readings with each of two meters, l/min (Bland & Altman 1986, table)."""


def test_icc_of_shrout_and_fleiss():
    """ICC(2,1) = 0.29; its 95 % interval 0.019 to 0.761 as R's psych gives it for these data.

    Planted: the raters' variance left out of the denominator, which is ICC(3,1) = 0.71; the F quantiles of the interval
    with their degrees of freedom exchanged.
    """
    icc = icc_2_1(SHROUT_FLEISS)
    assert icc.value == pytest.approx(0.29, abs=0.005)
    assert (icc.low, icc.high) == pytest.approx((0.019, 0.761), abs=0.0005)


def test_peak_flow_of_bland_and_altman():
    """Mean difference -2.1 l/min, SD 38.8, its interval -22.0 to 17.8; with two SDs limits of -79.7 and 75.5.

    Planted: SD with n in place of n - 1; A and B exchanged.
    """
    two = compare(LARGE_1, MINI_1, AgreementSettings(limits_z=2.0))
    assert two.n == 17
    assert two.difference.value == pytest.approx(-2.1, abs=0.05)
    assert two.sd_difference == pytest.approx(38.8, abs=0.05)
    assert (two.difference.low, two.difference.high) == pytest.approx((-22.0, 17.8), abs=0.1)
    assert (two.lower_limit.value, two.upper_limit.value) == pytest.approx((-79.7, 75.5), abs=0.15)


def test_repeatability_of_bland_and_altman():
    """43.2 l/min for the large meter, 56.4 for the mini meter, in the paper's two SDs about no bias.

    Planted: the mean difference taken off before squaring.
    """
    two_sd = AgreementSettings(limits_z=2.0)
    assert compare(LARGE_1, LARGE_2, two_sd).repeatability == pytest.approx(43.2, abs=0.15)
    assert compare(MINI_1, MINI_2, two_sd).repeatability == pytest.approx(56.4, abs=0.15)


def test_limits_interval_is_exact():
    """The factors are one-sided tolerance factors: k = 2.911 for 95 % with confidence 95 % from 10 values.

    That is the tabled value (Odeh & Owen 1980; NIST handbook 7.2.6.3). For many pairs they become Bland and Altman's
    SD * sqrt(1/n + z^2 / (2 (n - 1))). Planted: the noncentrality without the root of n.
    """
    _, far = limit_factors(10, AgreementSettings(limits_z=1.644854, confidence=0.90))
    assert far == pytest.approx(2.911, abs=0.0005)
    n, z = 2000, 1.959964
    near, far = limit_factors(n)
    half = 1.959964 * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
    assert (near, far) == pytest.approx((z - half, z + half), abs=0.005)


def test_intervals_cover_the_truth():
    """Of 1500 simulated studies of six vertebrae, 95 % of intervals hold the true value.

    Planted: `near` and `far` exchanged.
    """
    random = np.random.default_rng(1)
    bias, subjects, noise = 3.0, 40.0, 6.0
    true_sd = noise * math.sqrt(2)
    hits = np.zeros(3)
    for _ in range(1500):
        truth = random.normal(130, subjects, 6)
        rater = random.normal(0, 4.0, 2)
        a, b = (truth + shift + random.normal(0, noise, 6) for shift in (bias, 0.0))
        two = compare(a, b)
        upper = bias + 1.959964 * true_sd
        hits[:2] += [
            two.difference.low <= bias <= two.difference.high,
            two.upper_limit.low <= upper <= two.upper_limit.high,
        ]
        icc = icc_2_1(np.stack([truth + one + random.normal(0, noise, 6) for one in rater], axis=1))
        hits[2] += icc.low <= subjects**2 / (subjects**2 + 4.0**2 + noise**2) <= icc.high
    assert hits / 1500 == pytest.approx([0.95] * 3, abs=0.02)


PAIRS = st.lists(st.tuples(st.floats(-500, 1500), st.floats(-500, 1500)), min_size=3, max_size=12)


@settings(max_examples=60)
@given(PAIRS)
def test_against_scipy_and_the_definitions(pairs):
    a, b = np.array(pairs).T
    two = compare(a, b)
    gap = a - b
    assert two.difference.value == pytest.approx(gap.mean(), abs=1e-9)
    assert two.repeatability == pytest.approx(1.959964 * math.sqrt(np.mean(gap**2)), abs=1e-9)
    if np.ptp(gap) > 1e-6:
        interval = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (two.difference.low, two.difference.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    for one in (two.lower_limit, two.upper_limit, two.icc):
        assert one.value is None or one.low is None or one.low <= one.value <= one.high
    swapped = compare(b, a)
    assert swapped.difference.value == pytest.approx(-two.difference.value, abs=1e-9)
    assert swapped.lower_limit.high == pytest.approx(-two.upper_limit.low, abs=1e-6)


def test_degenerate_pairs():
    """No spread between vertebrae: no ICC. Full agreement: one. Constant offset: below one."""
    assert compare([100.1] * 4, [100.1] * 4).icc.value is None
    assert compare([100.0] * 4, [120.0] * 4).icc.value is None
    same = compare([100.1, 120.3, 90.7], [100.1, 120.3, 90.7])
    assert (same.icc.value, same.icc.low, same.icc.high) == (1.0, 1.0, 1.0)
    assert (same.sd_difference, same.upper_limit.value, same.repeatability) == (0.0, 0.0, 0.0)
    assert compare([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]).icc.value == pytest.approx(2 / 3)
    assert compare([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]).icc.value is None


def test_too_few_and_bad_pairs():
    """Planted: two pairs taken as enough."""
    for n in (0, 1, 2):
        few = compare([100.0] * n, [101.0] * n)
        assert (few.n, few.sd_difference, few.repeatability) == (n, None, None)
        assert few.difference.value is few.lower_limit.low is few.icc.value is None
        assert few.reason == f"{n} measured by both, at least 3 are needed"
    with pytest.raises(SpineImgError, match="one length"):
        compare([1.0, 2.0], [1.0])
    with pytest.raises(SpineImgError, match="finite"):
        compare([1.0, 2.0, math.nan], [1.0, 2.0, 3.0])


# -- results ----------------------------------------------------------------------------------------------------------


def vertebra(level, mean, call=None, center=(0.0, 0.0, 0.0), note=None):
    return {
        "level": level,
        "mean_hu": mean,
        "slices": [{"center": list(center)}] if center else [],
        "flag": {"call": call} if call else None,
        "notes": [{"code": "x", "text": note, "about": level}] if note else [],
    }


def result(*vertebrae, uid="1.2.3", used=None):
    return {"series": {"series_instance_uid": uid}, "made_by": {"settings": used or {}}, "vertebrae": list(vertebrae)}


def codes(notes):
    return {note.code for note in notes}


def test_vertebrae_are_matched_by_level():
    """Order in the files does not matter; rows come from head to foot. Planted: vertebrae paired by their place."""
    a = result(vertebra("L1", 120.0), vertebra("T12", 140.0, "below"), vertebra("T8", 180.0), vertebra("T4", 200.0))
    b = result(vertebra("T12", 137.0, "below"), vertebra("L1", 125.0), vertebra("T8", 181.0), vertebra("L3", 99.0))
    found = agree(a, b)
    assert [(one.level, one.difference_hu) for one in found.vertebrae] == [
        ("T4", None),
        ("T8", -1.0),
        ("T12", 3.0),
        ("L1", -5.0),
        ("L3", None),
    ]
    assert [one.measured_by for one in found.vertebrae] == ["A", "both", "both", "both", "B"]
    assert found.hu == compare([180.0, 140.0, 120.0], [181.0, 137.0, 125.0])
    assert codes(found.vertebrae[0].notes) == {"only_in_a"}
    assert codes(found.vertebrae[4].notes) == {"only_in_b"}
    assert (found.flags.n, found.flags.same) == (1, 1)


def test_unmeasured_vertebrae_tell_why_and_do_not_count():
    """Planted: a missing mean taken as 0 HU."""
    a = result(vertebra("T8", None, note="the plane touches a gap"), vertebra("T9", 1.0), vertebra("T10", None))
    b = result(vertebra("T8", 181.0), vertebra("T9", 2.0), vertebra("T10", None))
    found = agree(a, b)
    t8, _, t10 = found.vertebrae
    assert (t8.a_hu, t8.b_hu, t8.difference_hu, t8.measured_by) == (None, 181.0, None, "B")
    assert t8.notes[0].text == "not measured in A: the plane touches a gap"
    assert t10.measured_by == "neither"
    assert codes(t10.notes) == {"not_measured_in_a", "not_measured_in_b"}
    assert (found.hu.n, found.hu.difference.value) == (1, None)


def test_another_vertebra_under_the_same_name_is_noted():
    """Planted: the distance taken between lists, not points."""
    a = result(vertebra("T12", 140.0, center=(0.0, 3.0, 0.0)), vertebra("L1", 130.0, center=()))
    b = result(vertebra("T12", 150.0, center=(0.0, 3.0, 28.0)), vertebra("L1", 131.0))
    t12, l1 = agree(a, b).vertebrae
    assert codes(t12.notes) == {"centers_apart"}
    assert "28 mm" in t12.notes[0].text
    assert not l1.notes
    near = result(vertebra("T12", 150.0, center=(4.0, 3.0, 9.0)))
    assert not agree(a, near).vertebrae[0].notes


def test_notes_on_the_comparison():
    means = [vertebra(f"T{i}", 100.0 + i) for i in range(1, 6)]
    assert codes(agree(result(*means), result(*means)).notes) == {"few_pairs", "one_patient"}
    other = result(*means, uid="9.9", used={"plane": "scanner"})
    assert codes(agree(result(*means), other).notes) == {
        *("few_pairs", "one_patient", "different_series", "different_settings"),
    }
    assert "series_unknown" in codes(agree(result(*means, uid=None), result(*means)).notes)
    assert not agree(result(), result()).vertebrae


def test_flags_side_by_side():
    """Planted: unequal calls counted as the same when both are `below` of another level."""
    a = result(vertebra("T12", 100.0, "below"), vertebra("L1", 130.0, "indeterminate"), vertebra("L2", 90.0, "below"))
    b = result(vertebra("T12", 101.0, "below"), vertebra("L1", 110.0, "below"), vertebra("L2", 92.0))
    flags = agree(a, b).flags
    assert (flags.n, flags.same) == (2, 1)
    assert flags.counts == (("below", "below", 1), ("indeterminate", "below", 1))
