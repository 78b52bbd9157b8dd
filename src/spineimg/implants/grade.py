"""What the findings add up to: Silva's implant failure scale, with Nam's definitions beside it.

Silva 2021 (World Neurosurg): type 1 screw loosening (lucency around the screw), 2 pull-out or cut-out, 3 screw or rod
breakage, 4 angulation increased by more than 10°. Nam 2025 (J Clin Med 14:4629): loosening is a lucent zone wider than
1 mm, breakage any discontinuity of an implant, pull-out a change of the screw's angle to the upper endplate by 5° or
more.
One scan shows types 1 and 3, and of type 2 a screw that stands outside its vertebra through an endplate or a pedicle's
wall, where the vertebra's outline is known; whether it was placed so, an earlier scan tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spineimg.anatomy import LEVELS, order
from spineimg.implants.breach import BreachSettings, cuts_out
from spineimg.implants.model import Grade, Loosening, Rod, Screw

_CUT_OUT = "cut-out (Silva type 2) of {screws}: the outline of the vertebra is not known"
_NOT_JUDGED = (
    "pull-out (Silva type 2; Nam: the screw's angle to the upper endplate changed by 5° or more) needs an earlier scan",
    "angulation increased by more than 10° (Silva type 4) needs an earlier scan",
)


def grade(
    screws: Sequence[Screw],
    rods: Sequence[Rod],
    *,
    artifact_reduction: bool = False,
    tumour_levels: Sequence[str] = (),
    breach: BreachSettings | None = None,
) -> Grade:
    """The construct's grade. tumour_levels: vertebrae with metastases; without any, the fixation length is unknown.

    artifact_reduction: such series have shown breaks where there were none, so that breaks stay indeterminate.
    """
    loosening = _loosening(screws)
    breakage, breaks = _breakage(screws, rods, artifact_reduction)
    loose = [screw.id for screw in screws if screw.loosening is Loosening.PRESENT]
    outside = [
        f"{screw.id}: {screw.breach.sides[side]:.1f} mm beyond the {side}"
        for screw in screws
        if screw.breach is not None
        for side in cuts_out(screw.breach, breach)
    ]
    shown = ((3, breakage is Loosening.PRESENT), (2, bool(outside)), (1, loosening is Loosening.PRESENT))
    silva = next((number for number, present in shown if present), None)
    reasons = [f"{name}: a lucent zone wider than 1 mm" for name in loose] + outside + breaks
    unknown = [screw.id for screw in screws if screw.breach is None]
    open_parts = (_CUT_OUT.format(screws=", ".join(unknown)),) if unknown else ()
    return Grade(
        silva_type=silva,
        text=_text(silva, screws, rods, loosening, breakage),
        nam_loosening=loosening,
        nam_breakage=breakage,
        reasons=tuple(reasons),
        not_judged=(*_NOT_JUDGED[:1], *open_parts, *_NOT_JUDGED[1:]),
        construct=construct_summary(screws, tumour_levels),
    )


def _loosening(screws: Sequence[Screw]) -> Loosening:
    """Of the construct: present when one screw is, absent when every screw is."""
    found = {screw.loosening for screw in screws}
    if Loosening.PRESENT in found:
        return Loosening.PRESENT
    if found == {Loosening.ABSENT}:
        return Loosening.ABSENT
    return Loosening.NOT_ASSESSED if found <= {Loosening.NOT_ASSESSED} else Loosening.INDETERMINATE


def _breakage(screws: Sequence[Screw], rods: Sequence[Rod], artifact_reduction: bool) -> tuple[Loosening, list[str]]:
    named = [(screw.id, "screw", screw.gaps) for screw in screws] + [(rod.id, "rod", rod.gaps) for rod in rods]
    if not named:
        return Loosening.NOT_ASSESSED, []
    doubt = (
        "suspicious for a break, but artefact reduction can open a gap"
        if artifact_reduction
        else "suspicious for a break"
    )
    texts = [
        f"{name} ({kind}): a gap of {gap.width_mm:.1f} mm, {doubt}; look at the original slices"
        for name, kind, gaps in named
        for gap in gaps
    ]
    if not texts:
        return Loosening.ABSENT, []
    return (Loosening.INDETERMINATE if artifact_reduction else Loosening.PRESENT), texts


def _text(
    silva: int | None, screws: Sequence[Screw], rods: Sequence[Rod], loosening: Loosening, breakage: Loosening
) -> str:
    if not screws and not rods:
        return "No screw and no rod was found."
    if silva is not None:
        what = {
            1: "screw loosening (a lucent zone around a screw)",
            2: "a screw stands outside its vertebra, cut out or placed so; an earlier scan tells which",
            3: "a gap in a screw or rod, suspicious for a break",
        }
        also = " and a lucent zone around a screw" if silva > 1 and loosening is Loosening.PRESENT else ""
        return f"Silva type {silva}: {what[silva]}{also}."
    if breakage is Loosening.INDETERMINATE:
        return "A gap on a series with artefact reduction: not graded. Look at the series without it."
    counts = [
        (sum(screw.loosening is verdict for screw in screws), word)
        for verdict, word in ((Loosening.INDETERMINATE, "indeterminate"), (Loosening.NOT_ASSESSED, "not assessed"))
    ]
    open_screws = ", ".join(f"{count} {word}" for count, word in counts if count)
    if loosening is Loosening.NOT_ASSESSED:
        return "Not graded: the zone around the screws could not be assessed. No gap was seen in screws and rods."
    if open_screws:
        return (
            f"No lucent zone wider than 1 mm was shown; of {len(screws)} screws: {open_screws}. No gap was seen in "
            "screws and rods."
        )
    return (
        "No lucent zone wider than 1 mm and no gap was seen. That does not show that the screws hold: CT misses a "
        "third and more of loose screws."
    )


def construct_summary(screws: Sequence[Screw], tumour_levels: Sequence[str] = ()) -> Mapping[str, Any]:
    """uiv, liv, n_screws, fixation_length, screw_density as Nam 2025 defines them; None where a level is unknown.

    fixation_length: instrumented vertebrae without metastases; None when no vertebra is marked as bearing one.
    screw_density: screws per pedicle from the UIV to the LIV.
    """
    levels = sorted({screw.level for screw in screws if screw.level is not None}, key=order)
    known = bool(screws) and all(screw.level is not None for screw in screws)
    summary: dict[str, Any] = dict.fromkeys(("uiv", "liv", "n_screws", "fixation_length", "screw_density"))
    summary["n_screws"] = len(screws)
    if not known:
        return summary
    uiv, liv = levels[0], levels[-1]
    spanned = [
        level
        for level in LEVELS[order(uiv) : order(liv) + 1]
        # T13 and L6 count only in patients that have them.
        if level not in ("T13", "L6") or level in levels or level in tumour_levels
    ]
    summary.update(uiv=uiv, liv=liv, screw_density=len(screws) / (2 * len(spanned)))
    if tumour_levels:
        summary["fixation_length"] = len([level for level in levels if level not in tumour_levels])
    return summary
