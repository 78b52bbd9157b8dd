"""Screws marked by hand, refined by the same fit as found ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spineimg.anatomy import Side
from spineimg.geometry import FloatArray
from spineimg.implants.axis import AxisSettings, ShaftFit, fit_shaft
from spineimg.implants.cylinder import frame
from spineimg.implants.edge import Edge
from spineimg.implants.metal_map import MetalMap
from spineimg.implants.psf import Psf
from spineimg.implants.thread import Thread
from spineimg.notes import Note

_USUAL_DIAMETER_MM = 6.0
_FARTHEST_MM = 6.0
"""A refined end this far from the marked one belongs to something else. Engineering choice."""
_WIDEST_DEG = 10.0
_BACKWARD = 0.3
"""Backward part of a mark's direction from which it may run from tip to head: screws of the spine point forward."""
_SAME_MM = 3.0
"""Two marks whose ends both lie so near to each other are one screw. Engineering choice: half a shaft's thickness."""


@dataclass(frozen=True, eq=False, slots=True)
class GivenScrew:
    """A screw as a person marked it. head_lps_mm: where shaft and tulip meet; diameter_mm: the outer thread's, as on
    the implant's label."""

    head_lps_mm: FloatArray
    tip_lps_mm: FloatArray
    diameter_mm: float | None = None
    id: str | None = None
    level: str | None = None
    side: Side | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """A fitted screw and what is already known about it."""

    fit: ShaftFit
    diameter_mm: float | None = None
    id: str | None = None
    level: str | None = None
    side: Side | None = None
    notes: tuple[Note, ...] = ()


def refined(metal: MetalMap, given: GivenScrew, psf: Psf, settings: AxisSettings | None = None) -> Candidate:
    """The marked screw, fitted. Where there is no such cylinder of metal it stays as it was marked, with a note."""
    radius = (given.diameter_mm or _USUAL_DIAMETER_MM) / 2
    name = given.id or "the marked screw"
    turned = _turned(metal, given, radius, psf, settings)
    if turned is not None:
        text = f"{name} was marked from tip to head: its tulip is at the marked tip, and the ends were exchanged"
        return replace(turned, notes=(Note("ends_exchanged", text, given.id or ""), *turned.notes))
    fit = fit_shaft(metal, given.head_lps_mm, given.tip_lps_mm, radius, psf, settings)
    if fit is None or not _agrees(fit, given):
        text = f"{name} was kept as marked: no cylinder of metal could be fitted there"
        notes: tuple[Note, ...] = (Note("not_refined", text, given.id or ""),)
        fit = _as_marked(metal, given, radius, settings or AxisSettings())
        return Candidate(fit, given.diameter_mm, given.id, given.level, given.side, notes)
    notes = ()
    fitted = 2 * fit.outer_radius_mm
    if given.diameter_mm is not None and abs(fitted - given.diameter_mm) > 1.5:
        text = f"{name} was marked with a diameter of {given.diameter_mm:.1f} mm and looks like {fitted:.1f} mm"
        notes = (Note("diameter_differs", text, given.id or ""),)
    return Candidate(fit, given.diameter_mm, given.id, given.level, given.side, notes)


def _turned(
    metal: MetalMap, given: GivenScrew, radius_mm: float, psf: Psf, settings: AxisSettings | None
) -> Candidate | None:
    """The screw of a mark that runs backwards, when a tulip stands at its tip; None for all others."""
    way = given.tip_lps_mm - given.head_lps_mm
    if way[1] < _BACKWARD * np.linalg.norm(way):
        return None
    fit = fit_shaft(metal, given.tip_lps_mm, given.head_lps_mm, radius_mm, psf, settings)
    right = replace(given, head_lps_mm=given.tip_lps_mm, tip_lps_mm=given.head_lps_mm)
    if fit is None or not fit.has_head or not _agrees(fit, right):
        return None
    return refined(metal, right, psf, settings)


def distinct_screws(screws: Sequence[Candidate]) -> tuple[list[Candidate], list[Note]]:
    """The refined marks without those that are an earlier one once more, and a note for each that is left out."""
    kept: list[Candidate] = []
    notes = []
    for number, screw in enumerate(screws, start=1):
        same = next((other for other in kept if _one_screw(screw.fit, other.fit)), None)
        if same is None:
            kept.append(screw)
        else:
            name = screw.id or f"marked screw {number}"
            text = f"{name} is {same.id or 'a screw that was marked before'} once more, and counts once"
            notes.append(Note("marked_twice", text))
    return kept, notes


def _one_screw(one: ShaftFit, other: ShaftFit) -> bool:
    ends = one.head_lps_mm - other.head_lps_mm, one.tip_lps_mm - other.tip_lps_mm
    return max(float(np.linalg.norm(end)) for end in ends) < _SAME_MM


def _agrees(fit: ShaftFit, given: GivenScrew) -> bool:
    """Whether the fit is of the screw that was marked."""
    way = given.tip_lps_mm - given.head_lps_mm
    along = way / np.linalg.norm(way)
    off = given.tip_lps_mm - fit.tip_lps_mm, given.head_lps_mm - fit.head_lps_mm
    turn = np.degrees(np.arccos(np.clip(along @ fit.axis.along, -1, 1)))
    return bool(turn <= _WIDEST_DEG and max(float(np.linalg.norm(o)) for o in off) <= 2 * _FARTHEST_MM) and (
        min(float(np.linalg.norm(o)) for o in off) <= _FARTHEST_MM
    )


def _as_marked(metal: MetalMap, given: GivenScrew, radius_mm: float, settings: AxisSettings) -> ShaftFit:
    """A fit that says what was marked."""
    way = given.tip_lps_mm - given.head_lps_mm
    half = float(np.linalg.norm(way)) / 2
    axis = frame((given.head_lps_mm + given.tip_lps_mm) / 2, way)
    known, clipped = settings.edge, metal.scale_end_hu is not None
    waves = np.array([1.0, 0.0, 0.0])
    edge = Edge(known.titanium_hu, known.titanium_hu * waves, 150.0 * waves, clipped, known.flank_hu)
    return ShaftFit(axis, -half, half, radius_mm, 0.0, edge, Thread(), 1.0, has_head=True, is_found=False)


def not_given(found: Sequence[ShaftFit], given: Sequence[GivenScrew]) -> list[Note]:
    """A note for each screw that the scan shows and the marks leave out."""
    notes = []
    for fit in found:
        middle = fit.axis.point((fit.head_mm + fit.tip_mm) / 2)
        away = [np.linalg.norm((g.head_lps_mm + g.tip_lps_mm) / 2 - middle) for g in given]
        if min(away) > 8.0:
            place = ", ".join(f"{x:.0f}" for x in middle)
            notes.append(Note("screw_not_marked", f"a screw around ({place}) mm is not among the marked ones"))
    return notes
