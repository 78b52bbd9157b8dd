"""Screws marked by hand, refined by the same fit as found ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    return ShaftFit(axis, -half, half, radius_mm, 0.0, edge, Thread(), 1.0, True)


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
