"""NESMS (Hong 2022, Asian Spine J, Table 2) and the prognostic nutritional index (Kim 2025, J Clin Med)."""

from __future__ import annotations

from dataclasses import dataclass

from spineimg.notes import Note
from spineimg.scores.model import (
    Choice,
    Part,
    Score,
    ScoreError,
    amount,
    choices,
    points_of,
    points_part,
    span_text,
    sums,
    yes_no,
)

NESMS_SOURCE = "Hong 2022, Asian Spine J, Table 2"
PNI_SOURCE = "Kim 2025, J Clin Med (prognostic nutritional index in spinal metastasis)"
ALBUMIN_G_DL = (0.5, 7.0)
"""What albumin can be in a living patient, g/dL; 10 times as much is g/L. Engineering choice."""
LYMPHOCYTES_MM3 = (20.0, 100_000.0)
"""A count per mm³; below 20 it is rather in 10⁹/L, of which 1 is 1000 per mm³. Engineering choice."""
PNI_CUTOFFS = (
    (42.8, "the cohort's mean, no ROC cutoff"),
    (36.1, "ROC for walking, AUC 0.642"),
    (42.0, "ROC for three-month survival, AUC 0.688"),
)


@dataclass(frozen=True, slots=True)
class NesmsAnswers:
    primary: str | None = choices(
        "primary tumour; the points are those of 'not lung' and of 'breast or kidney' together",
        Choice("lung", 0),
        Choice("breast", 2),
        Choice("kidney", 2, ("renal",)),
        Choice("lymphoma", 1),
        Choice("myeloma", 1),
        Choice("other", 1),
    )
    solitary: str | None = yes_no("a solitary skeletal metastasis")
    visceral: str | None = yes_no("visceral metastases")
    bauer: float | None = amount("modified Bauer score, instead of the three above", "points", 0, 4)
    albumin: float | None = amount("serum albumin", "g/dL", *ALBUMIN_G_DL)
    ambulation: str | None = choices(
        "walking",
        Choice("intact", 1, ("independent",)),
        Choice("impaired", 1),
        Choice("non-ambulatory", 0, ("nonambulatory", "none")),
    )


def nesms(answers: NesmsAnswers) -> Score:
    """NESMS, the raw sum of 0-4. Raises ScoreError when the Bauer score is given twice."""
    bauer_parts, bauer = _bauer(answers)
    groups = tuple(sorted({2 if total >= 3 else 0 for total in bauer}))
    albumin = answers.albumin
    of_albumin = (0, 1) if albumin is None else (int(albumin >= 3.5),)
    of_walking = points_of(NesmsAnswers, "ambulation", answers.ambulation)
    totals = sums([groups, of_albumin, of_walking])
    low, high = totals[0], totals[-1]
    known_bauer = f"modified Bauer {span_text(bauer[0], bauer[-1])}: {span_text(groups[0], groups[-1])}"
    parts = (
        *bauer_parts,
        Part("bauer_group", bauer[0] if len(bauer) == 1 else None, groups[0], groups[-1], known_bauer, None),
        points_part("albumin", albumin, of_albumin, "stated", "" if albumin is None else f"{albumin:g} g/dL"),
        points_part("ambulation", answers.ambulation, of_walking, "stated"),
    )
    return Score(
        name="NESMS",
        value=low if low == high else None,
        low=low,
        high=high,
        verdict=None,
        verdicts=(),
        text=f"NESMS {span_text(low, high)} (raw sum, of 4)",
        parts=parts,
        notes=_nesms_notes(answers),
        source=NESMS_SOURCE,
    )


def _bauer(answers: NesmsAnswers) -> tuple[tuple[Part, ...], tuple[int, ...]]:
    """The parts of the modified Bauer score and every total it can have."""
    stated = [name for name in ("primary", "solitary", "visceral") if getattr(answers, name) is not None]
    if answers.bauer is not None:
        if stated:
            raise ScoreError(f"bauer: its sum and its part {stated[0]!r} are both given: drop one")
        if answers.bauer != int(answers.bauer):
            raise ScoreError(f"bauer: found {answers.bauer:g}, a whole number of 0 to 4 is needed")
        return (), (int(answers.bauer),)
    points = {
        "primary": points_of(NesmsAnswers, "primary", answers.primary),
        "solitary": (0, 1) if answers.solitary is None else (int(answers.solitary == "yes"),),
        "visceral": (0, 1) if answers.visceral is None else (int(answers.visceral == "no"),),
    }
    parts = tuple(points_part(name, getattr(answers, name), points[name], "stated") for name in points)
    return parts, sums(points.values())


def _nesms_notes(answers: NesmsAnswers) -> tuple[Note, ...]:
    text = "the parts as printed add up to 4, while the score is published as 0-3; this is the raw sum"
    notes = [Note("sources_differ", text)]
    if answers.primary in ("lymphoma", "myeloma"):
        text = (
            f"{answers.primary} counts 1 as the table is printed; the modified Bauer score is elsewhere given with "
            "lymphoma and myeloma beside breast and kidney, where it would count 2"
        )
        notes.append(Note("sources_differ", text, "primary"))
    return tuple(notes)


@dataclass(frozen=True, slots=True)
class PniAnswers:
    albumin: float | None = amount("serum albumin", "g/dL", *ALBUMIN_G_DL)
    lymphocytes: float | None = amount("lymphocytes", "per mm³", *LYMPHOCYTES_MM3)


def pni(answers: PniAnswers) -> Score:
    """10 x albumin (g/dL) + 0.005 x lymphocytes (per mm³), beside the values that the paper prints.

    With one of the two unknown the known one is a lower bound and there is no upper one.
    """
    from_albumin = None if answers.albumin is None else 10 * answers.albumin
    from_cells = None if answers.lymphocytes is None else 0.005 * answers.lymphocytes
    known = from_albumin is not None and from_cells is not None
    low = round((from_albumin or 0.0) + (from_cells or 0.0), 6)
    high = low if known else None
    number = f"{low:.1f}" if known else f"at least {low:.1f}" if low else "not known"
    compared = "; ".join(f"{_side(low, high, cutoff)} {cutoff:g} ({what})" for cutoff, what in PNI_CUTOFFS)
    parts = (
        _pni_part("albumin", answers.albumin, from_albumin, "g/dL"),
        _pni_part("lymphocytes", answers.lymphocytes, from_cells, "per mm³"),
    )
    return Score(
        name="PNI",
        value=low if known else None,
        low=low,
        high=high,
        verdict=None,
        verdicts=(),
        text=f"PNI {number}: {compared}",
        parts=parts,
        notes=(
            Note("sources_differ", "the paper's Table 1 gives lymphocytes per mL, its formula needs them per mm³"),
            Note(
                "sources_differ",
                "what the paper calls mortality at 3 and 12 months, 81.6 and 57.1 %, can only be survival",
            ),
        ),
        source=PNI_SOURCE,
    )


def _side(low: float, high: float | None, cutoff: float) -> str:
    if high is not None:
        return "below" if high < cutoff else "not below"
    return "not below" if low >= cutoff else "below or not below"


def _pni_part(name: str, value: float | None, share: float | None, unit: str) -> Part:
    if value is None or share is None:
        return Part(name, None, 0.0, None, "not known", None)
    share = round(share, 6)
    return Part(name, value, share, share, f"{value:g} {unit}", "stated")
