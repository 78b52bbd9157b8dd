"""SINS, the spinal instability neoplastic score, as printed in Hong 2022 (Asian Spine J), Table 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spineimg.anatomy import LEVELS, order, parse_level
from spineimg.notes import Note
from spineimg.scores.model import (
    Choice,
    Part,
    Score,
    ScoreError,
    choices,
    level,
    points_of,
    points_part,
    span_text,
    sums,
)

SOURCE = "Hong 2022, Asian Spine J, Table 4; bands from Nam 2025, J Clin Med 14:4629"
BANDS = ((0, 6, "stable"), (7, 12, "potentially unstable"), (13, 18, "unstable"))
HEIGHT_ERROR_PERCENT = 10.0
"""Error of a collapse measured against the neighbouring vertebrae. Engineering choice: a millimetre in each of three
heights of 20-25 mm, and neighbours that differ by some percent in health."""

_SACRUM = ("S2", "S3", "S4", "S5")
_OCCIPUT = "OCCIPUT"


@dataclass(frozen=True, slots=True)
class SinsAnswers:
    level: str | None = level("vertebra with the lesion; gives the location", *_SACRUM, _OCCIPUT)
    location: str | None = choices(
        "where in the spine the lesion is",
        Choice("junctional", 3),
        Choice("mobile", 2, ("mobile-spine",)),
        Choice("semi-rigid", 1, ("semirigid",)),
        Choice("rigid", 0),
    )
    pain: str | None = choices(
        "improvement with recumbency and/or pain with movement or loading of the spine",
        Choice("yes", 3, ("mechanical",)),
        Choice("occasional", 1, ("occasional-but-not-mechanical", "occasional,-not-mechanical", "not-mechanical")),
        Choice("none", 0, ("pain-free", "painfree", "no", "no-pain")),
    )
    lesion: str | None = choices(
        "bone lesion", Choice("lytic", 2), Choice("mixed", 1), Choice("blastic", 0, ("sclerotic",))
    )
    alignment: str | None = choices(
        "radiographic alignment",
        Choice("subluxation", 4, ("translation", "subluxation/translation")),
        Choice("deformity", 2, ("de-novo-deformity", "kyphosis", "scoliosis")),
        Choice("normal", 0),
    )
    collapse: str | float | None = choices(
        "collapse of the vertebral body, in words or percent of its height",
        Choice("over-50", 3, (">50-%", ">-50-%", "over-50-%", ">50")),
        Choice("under-50", 2, ("<50-%", "<-50-%", "under-50-%", "<50")),
        Choice("body-involved", 1, ("no-collapse-with->50-%-body-involved", "no-collapse,-over-half-involved")),
        Choice("none", 0, ("no",)),
        number=(0, 100),
    )
    posterolateral: str | None = choices(
        "fracture or tumour of facets, pedicles or costovertebral joints",
        Choice("bilateral", 3),
        Choice("unilateral", 1),
        Choice("none", 0, ("no",)),
    )


@dataclass(frozen=True, slots=True)
class MeasuredCollapse:
    """How much lower a vertebral body is than its two neighbours on average, percent, and how that was found."""

    percent: float
    says: str


def measured_collapse(heights_mm: Mapping[str, float], of: str) -> MeasuredCollapse | None:
    """Collapse of a vertebra from the body heights of a levels file; None without the two neighbours.

    The source does not say how collapse is measured; the neighbours' mean is an engineering choice.
    """
    there = sorted(heights_mm, key=order)
    place = there.index(of) if of in there else 0
    if not 0 < place < len(there) - 1:
        return None
    above, below = there[place - 1], there[place + 1]
    between = LEVELS[order(above) + 1 : order(below)]
    if any(one not in (of, "T13", "L6") for one in between):
        return None
    usual = (heights_mm[above] + heights_mm[below]) / 2
    percent = 100 * (1 - heights_mm[of] / usual)
    return MeasuredCollapse(
        percent,
        f"{of} is {heights_mm[of]:.1f} mm high, {above} and {below} {usual:.1f} mm on average: "
        f"{abs(percent):.0f} % {'lower' if percent > 0 else 'higher'} (± {HEIGHT_ERROR_PERCENT:g})",
    )


def sins(answers: SinsAnswers, measured: MeasuredCollapse | None = None) -> Score:
    """SINS. What is not known leaves a range; a stated collapse goes before a measured one.

    Raises ScoreError when level and location contradict each other.
    """
    notes: list[Note] = []
    parts = [
        _location(answers, notes),
        *(_stated(answers, name) for name in ("pain", "lesion", "alignment")),
        _collapse(answers.collapse, measured, notes),
        _stated(answers, "posterolateral"),
    ]
    # The points of a part that is not known are all of its choices'; between least and most some may be unreachable.
    totals = sums([_reachable(part) for part in parts])
    bands = tuple(name for low, high, name in BANDS if any(low <= total <= high for total in totals))
    low, high = totals[0], totals[-1]
    unknown = [part.name for part in parts if part.low != part.high]
    text = f"SINS {span_text(low, high)} of 18: {' or '.join(bands)}"
    if unknown:
        text += f" (open: {', '.join(unknown)})"
    notes.append(
        Note(
            "sources_differ",
            "bands 0-6, 7-12, 13-18; Silva 2021 prints the lowest band as 1-6, and Lee 2024 leaves out the location "
            "'rigid'",
        )
    )
    return Score(
        name="SINS",
        value=low if low == high else None,
        low=low,
        high=high,
        verdict=bands[0] if len(bands) == 1 else None,
        verdicts=bands,
        text=text,
        parts=tuple(parts),
        notes=tuple(notes),
        source=SOURCE,
    )


def _reachable(part: Part) -> tuple[int, ...]:
    span = (part.low or 0, part.high or 0)
    every = points_of(SinsAnswers, part.name, None)
    return tuple(points for points in every if span[0] <= points <= span[1])


def _stated(answers: SinsAnswers, name: str) -> Part:
    word = getattr(answers, name)
    return points_part(name, word, points_of(SinsAnswers, name, word), "stated")


def location_of(name: str) -> str:
    """Location of a level: C3-C6 and L2-L4 mobile, T3-T10 semi-rigid, S2-S5 rigid, all others junctional."""
    if name in _SACRUM:
        return "rigid"
    if name == _OCCIPUT:
        return "junctional"
    for first, last, location in (("C3", "C6", "mobile"), ("T3", "T10", "semi-rigid"), ("L2", "L4", "mobile")):
        if LEVELS.index(first) <= LEVELS.index(parse_level(name)) <= LEVELS.index(last):
            return location
    return "junctional"


def _location(answers: SinsAnswers, notes: list[Note]) -> Part:
    if answers.level is None:
        return _stated(answers, "location")
    from_level = location_of(answers.level)
    if answers.location not in (None, from_level):
        raise ScoreError(f"location: {answers.location!r} contradicts {answers.level}, which is {from_level}: drop one")
    if answers.level in ("T13", "L6", "S1"):
        says = {
            "S1": "the source names S1 only as part of the junction L5-S1; a lesion of S1 alone counts as that",
            "T13": "the source does not name T13; it lies within the junction T11-L1",
            "L6": "the source does not name L6; it lies within the junction L5-S1",
        }
        notes.append(Note("location_interpreted", says[answers.level], answers.level))
    points = points_of(SinsAnswers, "location", from_level)
    return points_part("location", from_level, points, "level", f"{from_level} ({answers.level})")


def _collapse(stated: str | float | None, measured: MeasuredCollapse | None, notes: list[Note]) -> Part:
    if isinstance(stated, str):
        return points_part("collapse", stated, points_of(SinsAnswers, "collapse", stated), "stated")
    if stated is not None:
        points = _points_of_percent(stated, stated)
        if stated == 50:
            text = "the source gives 2 points under 50 % and 3 over 50 %; exactly 50 % is not defined there"
            notes.append(Note("boundary_undefined", text, "collapse"))
        if stated == 0:
            text = "without collapse it counts whether more than half of the body is involved (1) or not (0)"
            notes.append(Note("involvement_unknown", text, "collapse"))
        return points_part("collapse", stated, points, "stated", f"{stated:g} %")
    if measured is None:
        return points_part("collapse", None, points_of(SinsAnswers, "collapse", None), None)
    span = (measured.percent - HEIGHT_ERROR_PERCENT, measured.percent + HEIGHT_ERROR_PERCENT)
    text = "the source does not say how collapse is measured; a wedge may be missed: check it on the image"
    notes.append(Note("collapse_measured", text, "collapse"))
    return points_part("collapse", round(measured.percent, 1), _points_of_percent(*span), "image", measured.says)


def _points_of_percent(low: float, high: float) -> tuple[int, ...]:
    """Points that a collapse between two percentages can be worth; exactly 50 % may be 2 or 3."""
    points = {0, 1} if low <= 0 else set()
    points |= {2} if high > 0 and low <= 50 else set()
    points |= {3} if high >= 50 else set()
    return tuple(sorted(points))
