"""The clinical scores against their printed tables, added up by hand, and what unknown answers leave open."""

from __future__ import annotations

from itertools import product

import pytest

from spineimg.anatomy import LEVELS
from spineimg.scores.decision import NO_ROW, NomsAnswers, noms
from spineimg.scores.fixation import ConstructAnswers, construct
from spineimg.scores.instability import SinsAnswers, location_of, measured_collapse, sins
from spineimg.scores.model import ScoreError, read_answers
from spineimg.scores.survival import NesmsAnswers, PniAnswers, nesms, pni

WORST = {
    "location": "junctional",
    "pain": "yes",
    "lesion": "lytic",
    "alignment": "subluxation",
    "collapse": "over-50",
    "posterolateral": "bilateral",
}
BEST = {
    "location": "rigid",
    "pain": "none",
    "lesion": "blastic",
    "alignment": "normal",
    "collapse": "none",
    "posterolateral": "none",
}
SINS_POINTS = {
    "location": {"junctional": 3, "mobile": 2, "semi-rigid": 1, "rigid": 0},
    "pain": {"yes": 3, "occasional": 1, "none": 0},
    "lesion": {"lytic": 2, "mixed": 1, "blastic": 0},
    "alignment": {"subluxation": 4, "deformity": 2, "normal": 0},
    "collapse": {"over-50": 3, "under-50": 2, "body-involved": 1, "none": 0},
    "posterolateral": {"bilateral": 3, "unilateral": 1, "none": 0},
}


def of_sins(**answers):
    return sins(read_answers(SinsAnswers, answers))


# -- SINS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", SINS_POINTS)
def test_sins_points_as_printed(part):
    """Hong 2022, Table 4. Planted: deformity worth 3; blastic and lytic swapped."""
    for word, points in SINS_POINTS[part].items():
        assert of_sins(**(BEST | {part: word})).value == points


def test_sins_ends_and_bands():
    """0-6, 7-12, 13-18. Planted: the upper band from 12 on."""
    assert (of_sins(**WORST).value, of_sins(**WORST).verdict) == (18, "unstable")
    assert (of_sins(**BEST).value, of_sins(**BEST).verdict) == (0, "stable")
    six = BEST | {"alignment": "subluxation", "location": "mobile"}
    assert (of_sins(**six).value, of_sins(**six).verdict) == (6, "stable")
    seven = six | {"lesion": "mixed"}
    assert (of_sins(**seven).value, of_sins(**seven).verdict) == (7, "potentially unstable")
    twelve = WORST | {"alignment": "normal", "lesion": "blastic"}
    assert (of_sins(**twelve).value, of_sins(**twelve).verdict) == (12, "potentially unstable")
    thirteen = twelve | {"lesion": "mixed"}
    assert (of_sins(**thirteen).value, of_sins(**thirteen).verdict) == (13, "unstable")


def test_sins_unknown_parts_leave_a_range():
    """Any two unknown parts: least and most are those of the table. Planted: an unknown part taken as 0."""
    for first, second in product(SINS_POINTS, SINS_POINTS):
        answers = {key: word for key, word in WORST.items() if key not in (first, second)}
        score = of_sins(**answers)
        hidden = {first, second}
        assert score.value is None
        assert score.high == 18
        assert score.low == 18 - sum(max(SINS_POINTS[key].values()) for key in hidden)
    nothing = of_sins()
    assert (nothing.low, nothing.high, len(nothing.verdicts), nothing.verdict) == (0, 18, 3, None)


def test_sins_band_may_be_certain_when_the_sum_is_not():
    score = of_sins(**(WORST | {"posterolateral": None}))
    assert (score.value, score.low, score.high, score.verdict) == (None, 15, 18, "unstable")


@pytest.mark.parametrize(("percent", "low", "high"), [(49, 2, 2), (50, 2, 3), (51, 3, 3), (0, 0, 1), ("30 %", 2, 2)])
def test_collapse_in_percent(percent, low, high):
    """Exactly 50 % is not defined in the source. Planted: 50 counted as over 50."""
    score = of_sins(**(BEST | {"collapse": percent}))
    assert (score.low, score.high) == (low, high)
    codes = {note.code for note in score.notes}
    assert ("boundary_undefined" in codes) == (percent == 50)
    assert (score.value is None) == (low != high)


def test_location_of_every_level():
    """Planted: T10 junctional; L1 mobile."""
    junctional = ["C1", "C2", "C7", "T1", "T2", "T11", "T12", "T13", "L1", "L5", "L6", "S1", "OCCIPUT"]
    mobile = ["C3", "C4", "C5", "C6", "L2", "L3", "L4"]
    semirigid = [f"T{n}" for n in range(3, 11)]
    expected = dict.fromkeys(junctional, "junctional") | dict.fromkeys(mobile, "mobile")
    expected |= dict.fromkeys(semirigid, "semi-rigid") | dict.fromkeys(["S2", "S5"], "rigid")
    assert set(LEVELS) <= set(expected)
    assert {level: location_of(level) for level in expected} == expected


def test_level_gives_the_location_and_says_so():
    score = of_sins(level="t12", **{key: word for key, word in BEST.items() if key != "location"})
    assert score.value == 3
    assert score.parts[0].given_by == "level"
    assert "location_interpreted" in {note.code for note in of_sins(level="S1").notes}
    with pytest.raises(ScoreError, match=r"mobile.*contradicts T12"):
        of_sins(level="T12", location="mobile")


def test_measured_collapse():
    """18 mm between neighbours of 24 mm is 25 % lower. Planted: taken against the lower neighbour alone."""
    found = measured_collapse({"T11": 23.0, "T12": 18.0, "L1": 25.0}, "T12")
    assert found.percent == pytest.approx(25.0)
    score = sins(SinsAnswers(level="T12"), found)
    part = next(one for one in score.parts if one.name == "collapse")
    assert (part.low, part.high, part.given_by) == (2, 2, "image")
    near = measured_collapse({"T11": 24.0, "T12": 13.0, "L1": 24.0}, "T12")  # 46 %: its error reaches over 50 %
    part = next(one for one in sins(SinsAnswers(level="T12"), near).parts if one.name == "collapse")
    assert (part.low, part.high) == (2, 3)
    intact = measured_collapse({"T11": 24.0, "T12": 23.5, "L1": 24.0}, "T12")
    part = next(one for one in sins(SinsAnswers(level="T12"), intact).parts if one.name == "collapse")
    assert (part.low, part.high) == (0, 2)


def test_measured_collapse_needs_both_neighbours_and_yields_to_a_stated_one():
    assert measured_collapse({"T12": 18.0, "L1": 25.0}, "T12") is None
    assert measured_collapse({"T10": 22.0, "T12": 18.0, "L1": 25.0}, "T12") is None
    found = measured_collapse({"T11": 23.0, "T12": 18.0, "L1": 25.0}, "T12")
    part = next(one for one in sins(SinsAnswers(collapse="none"), found).parts if one.name == "collapse")
    assert (part.low, part.high, part.given_by) == (0, 0, "stated")


# -- NESMS, PNI -------------------------------------------------------------------------------------------------------


def of_nesms(**answers):
    return nesms(read_answers(NesmsAnswers, answers))


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        ({"primary": "breast", "solitary": "yes", "visceral": "no", "albumin": 3.5, "ambulation": "impaired"}, 4),
        ({"primary": "kidney", "solitary": "no", "visceral": "no", "albumin": 3.49, "ambulation": "intact"}, 3),
        ({"primary": "other", "solitary": "no", "visceral": "no", "albumin": 4.0, "ambulation": "intact"}, 2),
        ({"primary": "other", "solitary": "yes", "visceral": "no", "albumin": 3.0, "ambulation": "non-ambulatory"}, 2),
        ({"primary": "lung", "solitary": "yes", "visceral": "no", "albumin": 3.0, "ambulation": "non-ambulatory"}, 0),
        ({"bauer": 3, "albumin": 3.0, "ambulation": "non-ambulatory"}, 2),
        ({"bauer": 2, "albumin": 3.0, "ambulation": "non-ambulatory"}, 0),
    ],
)
def test_nesms_as_printed(answers, value):
    """Bauer <= 2 counts 0, >= 3 counts 2; albumin from 3.5 g/dL on counts 1. Planted: albumin > 3.5; Bauer > 3."""
    assert of_nesms(**answers).value == value


def test_nesms_range_and_contradiction():
    """Planted: unknown ambulation taken as non-ambulatory."""
    score = of_nesms(primary="breast", solitary="yes", albumin=4.0)
    assert (score.value, score.low, score.high) == (None, 3, 4)
    assert any("0-3" in note.text and "4" in note.text for note in score.notes)
    assert (of_nesms().low, of_nesms().high) == (0, 4)
    with pytest.raises(ScoreError, match="bauer"):
        of_nesms(bauer=2, primary="lung")
    assert any("lymphoma" in note.text for note in of_nesms(primary="lymphoma").notes)


def test_pni():
    """10 x 3.5 + 0.005 x 1560 = 42.8. Planted: 0.05 instead of 0.005."""
    score = pni(PniAnswers(albumin=3.5, lymphocytes=1560))
    assert score.value == pytest.approx(42.8)
    assert "not below 42.8" in score.text
    partial = pni(PniAnswers(albumin=4.3))
    assert (partial.value, partial.low, partial.high) == (None, pytest.approx(43.0), None)
    unknown = pni(PniAnswers(lymphocytes=1000))
    assert unknown.text.count("below or not below") == 3
    assert any("mm³" in note.text for note in score.notes)


@pytest.mark.parametrize(
    "wrong", [{"albumin": 35}, {"lymphocytes": 1.5}, {"albumin": "much"}, {"albumin": float("nan")}]
)
def test_other_units_are_found_out(wrong):
    with pytest.raises(ScoreError, match="needed"):
        read_answers(PniAnswers, wrong)


# -- NOMS -------------------------------------------------------------------------------------------------------------

C, SRS = "conventional external beam radiotherapy", "stereotactic radiosurgery"
PRINTED = [
    # escc, radiosensitivity, stability, systemic, treatment
    ("low", "sensitive", "stable", None, C),
    ("low", "sensitive", "unstable", None, f"stabilization, then {C}"),
    ("low", "resistant", "stable", None, SRS),
    ("low", "resistant", "unstable", None, f"stabilization, then {SRS}"),
    ("high", "sensitive", "stable", None, C),
    ("high", "sensitive", "unstable", None, f"stabilization, then {C}"),
    ("high", "resistant", "stable", "able", f"decompression and stabilization, then {SRS}"),
    ("high", "resistant", "stable", "unable", C),
    ("high", "resistant", "unstable", "able", f"decompression and stabilization, then {SRS}"),
    ("high", "resistant", "unstable", "unable", f"stabilization, then {C}"),
]


@pytest.mark.parametrize(("escc", "radiosensitivity", "stability", "systemic", "treatment"), PRINTED)
def test_noms_as_printed(escc, radiosensitivity, stability, systemic, treatment):
    """Every row of Table 3, with and without myelopathy for high grade. Planted: unable and stable sent to SRS."""
    for myelopathy in ("no",) if escc == "low" else ("no", "yes", None):
        answers = NomsAnswers(escc, myelopathy, radiosensitivity, stability, systemic)
        assert noms(answers).verdict == treatment
        assert noms(answers).verdicts == (treatment,)


def test_noms_without_a_row_and_with_unknowns():
    score = noms(NomsAnswers("1b", "yes", "sensitive", "stable", "able"))
    assert score.verdict == NO_ROW
    assert {"no_row", "grade_interpreted", "source_incomplete"} <= {note.code for note in score.notes}
    open_ = noms(NomsAnswers(escc="high", radiosensitivity="resistant", stability="stable"))
    assert open_.verdict is None
    assert set(open_.verdicts) == {f"decompression and stabilization, then {SRS}", C}
    assert "open: systemic" in open_.text


# -- construct --------------------------------------------------------------------------------------------------------


def of_construct(**answers):
    score = construct(read_answers(ConstructAnswers, answers))
    return score, {part.name: part for part in score.parts}


def test_one_above_one_below_is_two():
    """Nam's own example: a metastasis between one vertebra above and one below. Planted: metastases counted in."""
    score, parts = of_construct(uiv="T11", liv="L1", metastases=["T12"], screws=4)
    assert parts["fixation_length"].low == parts["fixation_length"].high == 2
    assert parts["screw_density"].low == pytest.approx(4 / 6, abs=1e-4)
    assert "boundary_undefined" in {note.code for note in score.notes}
    assert "below T10" in parts["liv"].says


def test_construct_sides_of_the_cutoffs():
    """3 or more is long, 0.67 or more is dense, T10 counts as at or above. Planted: long from 4 on."""
    _, parts = of_construct(uiv="T8", liv="T10", metastases="none", screws=6)
    assert "3 or more" in parts["fixation_length"].says
    assert "0.67 or more" in parts["screw_density"].says
    assert "at or above T10" in parts["liv"].says
    _, parts = of_construct(uiv="T8", liv="T11", metastases="T9", screws=5)
    assert parts["screw_density"].low == pytest.approx(0.625)
    assert "under 0.67" in parts["screw_density"].says


def test_construct_skips_no_level_and_adds_none():
    """T13 and L6 count only when stated. Planted: the span taken straight from the list of all levels."""
    _, parts = of_construct(uiv="T12", liv="L1", metastases=[])
    assert parts["fixation_length"].low == 2
    _, parts = of_construct(levels="T12,T13,L1", metastases=[])
    assert parts["fixation_length"].low == 3


def test_construct_with_unknowns_and_contradictions():
    _, parts = of_construct(uiv="T8", liv="T12", screws=8)
    assert (parts["fixation_length"].low, parts["fixation_length"].high) == (0, 5)
    _, parts = of_construct(liv="T12")
    assert parts["screw_density"].low is None
    for wrong in (
        {"uiv": "L1", "liv": "T8"},
        {"uiv": "T8", "liv": "T9", "screws": 5},
        {"levels": "T8,T9", "uiv": "T7"},
    ):
        with pytest.raises(ScoreError):
            of_construct(**wrong)


def test_misspelt_answers_are_named():
    with pytest.raises(ScoreError, match="did you mean 'lesion'"):
        read_answers(SinsAnswers, {"lesoin": "lytic"})
    with pytest.raises(ScoreError, match="lytic, mixed, blastic"):
        read_answers(SinsAnswers, {"lesion": "liquid"})
