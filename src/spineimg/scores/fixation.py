"""Fixation length and screw density of a construct, as Nam 2025 (J Clin Med 14:4629) defines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from spineimg.anatomy import LEVELS, order
from spineimg.notes import Note
from spineimg.scores.model import Part, Score, ScoreError, amount, level, level_list

SOURCE = "Nam 2025, J Clin Med 14:4629"
LONG_FROM = 3
"""Fixation length of 3 or more counts as long (Nam 2025)."""
DENSE_FROM = Fraction(67, 100)
"""Screw density of 0.67 or more counts as dense (Nam 2025)."""
_UNUSUAL = ("T13", "L6")


@dataclass(frozen=True, slots=True)
class ConstructAnswers:
    uiv: str | None = level("upper instrumented vertebra")
    liv: str | None = level("lowest instrumented vertebra")
    levels: tuple[str, ...] | None = level_list(
        "all vertebrae of the construct, ends and skipped ones too, where there is a T13 or L6 or one is missing"
    )
    metastases: tuple[str, ...] | None = level_list("vertebrae with metastases; an empty list when there are none")
    screws: float | None = amount("pedicle screws", "screws", 0, 60)


def construct(answers: ConstructAnswers, from_image: Mapping[str, str] | None = None) -> Score:
    """Fixation length, screw density, and where the LIV lies, each against the value that Nam prints.

    from_image: names of the answers that were read from a result, with how. Raises ScoreError for answers that
    contradict each other.
    """
    span = _span(answers)
    notes: list[Note] = []
    by = dict.fromkeys(from_image or {}, "image")
    parts = (
        _length(answers, span, by),
        _density(answers, span, notes, by),
        _liv(answers.liv or (span[-1] if span else None), by),
    )
    text = "the text of the paper turns the two rates around; the table is right: failure in 7 of 11 (63.6 %) with a "
    text += "fixation length under 3, in 1 of 12 (8.3 %) from 3 on"
    notes.append(Note("sources_differ", text, "fixation_length"))
    if span and not answers.levels:
        notes.append(Note("levels_assumed", f"taken as instrumented: {', '.join(span)}; state levels to say otherwise"))
    notes += [Note("from_image", text, name) for name, text in (from_image or {}).items()]
    return Score(
        name="construct",
        value=None,
        low=None,
        high=None,
        verdict=None,
        verdicts=(),
        text="; ".join(part.says for part in parts),
        parts=parts,
        notes=tuple(notes),
        source=SOURCE,
    )


def _span(answers: ConstructAnswers) -> tuple[str, ...]:
    """The vertebrae of the construct from head to foot; empty when they are not known."""
    if answers.levels:
        span = tuple(sorted(answers.levels, key=order))
        for name, end, told in (("uiv", span[0], answers.uiv), ("liv", span[-1], answers.liv)):
            if told not in (None, end):
                raise ScoreError(f"{name}: {told} contradicts the levels, which end at {end}: correct one")
    elif answers.uiv and answers.liv:
        first, last = order(answers.uiv), order(answers.liv)
        if first > last:
            raise ScoreError(f"uiv: {answers.uiv} lies below the liv {answers.liv}: swap them")
        ends = (answers.uiv, answers.liv)
        span = tuple(one for one in LEVELS[first : last + 1] if one not in _UNUSUAL or one in ends)
    else:
        return ()
    outside = [
        one for one in answers.metastases or () if one not in span and order(span[0]) < order(one) < order(span[-1])
    ]
    if outside:
        raise ScoreError(f"metastases: {outside[0]} is not one of the construct's vertebrae ({', '.join(span)})")
    return span


def _length(answers: ConstructAnswers, span: tuple[str, ...], by: Mapping[str, str]) -> Part:
    """Number of instrumented vertebrae without metastases."""
    name = "fixation_length"
    if not span:
        return Part(name, None, None, None, "fixation length not known (UIV and LIV, or levels, are needed)", None)
    ends = f"{span[0]} to {span[-1]}"
    if answers.metastases is None:
        low, high = 0, len(span)
        says = f"fixation length at most {high} ({ends}; vertebrae with metastases not known)"
        return Part(name, None, low, high, says, None)
    length = sum(one not in answers.metastases for one in span)
    side = f"{LONG_FROM} or more" if length >= LONG_FROM else f"under {LONG_FROM}"
    says = f"fixation length {length} ({ends}, {len(span) - length} of {len(span)} with metastases): {side}"
    return Part(name, length, length, length, says, by.get("uiv", "stated"))


def _density(answers: ConstructAnswers, span: tuple[str, ...], notes: list[Note], by: Mapping[str, str]) -> Part:
    """Number of pedicle screws per number of pedicles within the instrumented levels."""
    name = "screw_density"
    if not span or answers.screws is None:
        missing = "the screws" if span else "UIV and LIV"
        return Part(name, None, None, None, f"screw density not known ({missing} not told)", None)
    if answers.screws != int(answers.screws):
        raise ScoreError(f"screws: found {answers.screws:g}, a whole number is needed")
    screws, pedicles = int(answers.screws), 2 * len(span)
    if screws > pedicles:
        raise ScoreError(f"screws: {screws} screws in the {pedicles} pedicles of {span[0]} to {span[-1]}: correct one")
    density = Fraction(screws, pedicles)
    side = "0.67 or more" if density >= DENSE_FROM else "under 0.67"
    if density < DENSE_FROM and round(float(density), 2) == float(DENSE_FROM):
        side = "under 0.67, but 0.67 when rounded"
        text = f"{screws} of {pedicles} is under 0.67 as printed and equal to it when rounded to two digits; the "
        text += "source does not say which was meant"
        notes.append(Note("boundary_undefined", text, name))
    value = float(density)
    says = f"screw density {value:.2f} ({screws} screws in {pedicles} pedicles): {side}"
    return Part(name, round(value, 4), round(value, 4), round(value, 4), says, by.get("screws", "stated"))


def _liv(liv: str | None, by: Mapping[str, str]) -> Part:
    if liv is None:
        return Part("liv", None, None, None, "LIV not known", None)
    side = "at or above T10" if order(liv) <= order("T10") else "below T10"
    return Part("liv", liv, None, None, f"LIV {liv}: {side}", by.get("liv", "stated"))
