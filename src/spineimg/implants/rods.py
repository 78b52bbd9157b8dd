"""Rods: centre line, diameter and breaks.

A rod is seen clearly between the heads only. Its pieces are joined through the heads by a smooth line, and its ends are
followed on the line's continuation for as long as the core is metal. What lies beyond a gap is looked for in
`rod_ends.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.axis import AxisSettings, SideFit, fit_piece
from spineimg.implants.breaks import STEP_MM, BreakSettings, Core, core_hu, find_gaps, gap_between, invisible_note
from spineimg.implants.metal_map import MetalMap
from spineimg.implants.model import Gap, Vector
from spineimg.implants.psf import Psf
from spineimg.implants.rod_ends import CROWDED, RodTrace, covered, metal_beside, with_stubs
from spineimg.implants.tubes import Tube, line_direction
from spineimg.notes import Note

_PIECE_MM = 14.0
_EXTEND_MM = 30.0
_BEND_PER_MM = 0.004
"""Step in which a rod's bend is tried, 1/mm: a radius of 250 mm; contoured rods have 100 mm and more."""
_HEAD_REACH_MM = 8.0
_SAME_RADIUS_MM = 0.6
_PAST_MM, _ASIDE_MM, _SOLID = 3.0, 1.0, 0.95
"""Metal as bright as this part of solid metal, from so far before a gap to so far behind it, on lines so far beside."""
_SHALLOW = 0.85
"""What a line beside the rod's axis still reads, as part of solid metal. Engineering choice: 0.90 around a rod of steel
that was whole, 0.81 in the narrowest break of one of cobalt-chrome."""
_JUMP_MM = 2.5
"""Centres of one piece lie 1 mm apart, 2 mm where one is missing; farther apart they belong to two."""


@dataclass(frozen=True, eq=False, slots=True)
class RodLine:
    """A rod. points_lps_mm: (n, 3) every 0.25 mm from head to foot; length_mm along it."""

    points_lps_mm: FloatArray
    radius_mm: float
    metal_hu: float
    clipped: bool
    gaps: tuple[Gap, ...]
    notes: tuple[Note, ...]

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(np.diff(self.points_lps_mm, axis=0), axis=1).sum())

    def sparse_points(self, every_mm: float = 2.0) -> tuple[Vector, ...]:
        """The centre line with a point about every 2 mm, both ends kept."""
        count = max(2, round(self.length_mm / every_mm) + 1)
        chosen = np.linspace(0, len(self.points_lps_mm) - 1, count).round().astype(np.intp)
        return tuple((float(x), float(y), float(z)) for x, y, z in self.points_lps_mm[chosen])


def trace_rod(metal: MetalMap, tube: Tube, cylinders: RodPieces) -> RodTrace | None:
    """The line of a tube, followed to where its core stops being metal. None where no piece of it is a cylinder."""
    pieces, loose = cylinders.fits, cylinders.loose
    if not pieces:
        return None
    radius = _radius_mm(metal, pieces)
    metal_hu = float(np.median([piece.edge.metal_hu for piece in pieces]))
    clipped = sum(piece.edge.clipped for piece in pieces) > len(pieces) / 2
    top = float(metal.scale_end_hu or metal_hu) if clipped else metal_hu
    line = _smooth(tube, pieces, loose)
    trace = RodTrace(line, slice(0, len(line)), radius, metal_hu, clipped, top)
    before, after = (_beyond(metal, line, end, radius, trace.level_hu) for end in (0, 1))
    seen = slice(len(before), len(before) + len(line))
    return replace(trace, points_lps_mm=np.concatenate([before, line, after]), seen=seen)


def finish_rod(
    metal: MetalMap, trace: RodTrace, seats_lps_mm: FloatArray, psf: Psf, settings: BreakSettings | None = None
) -> RodLine:
    """The rod of a line, with the stubs beyond its ends and its breaks. seats_lps_mm: (m, 3) where heads hold it."""
    chosen = settings or BreakSettings()
    line, radius = with_stubs(metal, trace, chosen.widest_mm), trace.radius_mm
    core = _core(metal, line, radius, (trace.metal_hu, trace.top_hu), psf)
    breaks = _outside_heads(find_gaps(core, chosen), line, seats_lps_mm, core)
    breaks = [gap for gap in breaks if not (covered(metal, line, gap, trace) or _goes_on(metal, line, gap, core))]
    gaps = tuple(_gap(metal, line, place, radius, psf) for place in breaks)
    return RodLine(line, radius, trace.metal_hu, trace.clipped, gaps, (invisible_note(core, chosen),))


@dataclass(frozen=True, eq=False, slots=True)
class RodPieces:
    """Fitted cylinders along the clean parts of a tube, and the centres (n, 3) of those parts that are as thick and too
    short to be fitted."""

    fits: tuple[SideFit, ...]
    loose: tuple[FloatArray, ...]


def rod_pieces(metal: MetalMap, tube: Tube, psf: Psf, settings: AxisSettings | None = None) -> RodPieces:
    """The cylinders of a tube that may be a rod, each about 14 mm long. psf: as such a scan usually has."""
    points = tube.points_lps_mm
    jumps = np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) > _JUMP_MM) + 1
    fits, loose = [], []
    for run, radii in zip(np.split(points, jumps), np.split(tube.radii_mm, jumps), strict=True):
        # Beside a head the cross-sections lean towards it.
        lean = 2 if len(run) > 14 else 1 if len(run) > 10 else 0
        clean = run[lean : len(run) - lean]
        count = max(1, round(len(clean) / _PIECE_MM))
        for part in np.array_split(clean, count):
            if len(part) < 5:
                continue
            fit = fit_piece(metal, part[0], part[-1], tube.radius_mm, psf, settings)
            if fit is not None and fit.misfit < 0.4:
                fits.append(fit)
            elif abs(float(np.median(radii)) - tube.radius_mm) < _SAME_RADIUS_MM:
                loose.append(part[:: max(1, len(part) // 5)])
    return RodPieces(tuple(fits), tuple(loose))


def _radius_mm(metal: MetalMap, pieces: Sequence[SideFit]) -> float:
    """The median of the bare pieces; clamps and heads beside a piece make it look thicker."""
    crowded = [
        float(np.median(metal_beside(metal, _on_axis(piece), piece.radius_mm, 0.5 * metal.seed_hu))) for piece in pieces
    ]
    bare = [piece.radius_mm for piece, part in zip(pieces, crowded, strict=True) if part < CROWDED]
    return float(np.median(bare or [piece.radius_mm for piece in pieces]))


def any_bare(metal: MetalMap, cylinders: RodPieces) -> bool:
    """Whether around one piece at least there is no other metal; all along a plate there is, to its sides."""
    beside = (metal_beside(metal, _on_axis(fit), fit.radius_mm, metal.seed_hu / 0.6) for fit in cylinders.fits)
    return any(float(np.median(part)) < CROWDED for part in beside)


def _smooth(tube: Tube, pieces: Sequence[SideFit], loose: Sequence[FloatArray]) -> FloatArray:
    """(n, 3) a smooth line every 0.25 mm through the tube's centres, from head to foot."""
    from scipy.interpolate import UnivariateSpline

    points = np.concatenate([*(_on_axis(piece) for piece in pieces), *loose])
    along = line_direction(points) if len(pieces) == 1 else tube.points_lps_mm[-1] - tube.points_lps_mm[0]
    points = points[np.argsort(points @ along, kind="stable")]
    if points[0, 2] < points[-1, 2]:
        points = points[::-1]
    depth = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    keep = np.concatenate([[True], np.diff(depth) > 1e-6])
    points, depth = points[keep], depth[keep]
    fine = np.arange(0.0, depth[-1], STEP_MM)
    columns = [
        UnivariateSpline(depth, x, k=3 if len(points) > 8 else 1, s=len(points) * 0.08**2)(fine) for x in points.T
    ]
    return np.stack(columns, axis=1)


def _on_axis(piece: SideFit) -> FloatArray:
    """(5, 3) points on a fitted piece."""
    depths = np.linspace(*piece.clean_mm, 5)
    return np.asarray(piece.axis.origin_lps_mm + depths[:, None] * piece.axis.along)


def _beyond(metal: MetalMap, line: FloatArray, end: int, radius_mm: float, level_hu: float) -> FloatArray:
    """(n, 3) the line's continuation at its first (0) or last (1) end, to where the core stops being metal."""
    near = line[: int(12 / STEP_MM)][::-1] if end == 0 else line[-int(12 / STEP_MM) :]
    beyond = _bent(metal, near, level_hu)
    is_metal = core_hu(metal.windows, beyond, radius_mm) >= level_hu
    count = len(beyond) if is_metal.all() else int(np.argmin(is_metal))
    return beyond[:count][::-1] if end == 0 else beyond[:count]


def _bent(metal: MetalMap, near: FloatArray, level_hu: float) -> FloatArray:
    """(n, 3) continuation of a line's end. A head hides the rod; the bend over it is chosen so that the core beyond the
    head is metal over the longest way, the straightest such bend."""
    out = line_direction(near)
    helper = np.array([1.0, 0.0, 0.0])
    side = np.cross(out, helper) / np.linalg.norm(np.cross(out, helper))
    ahead = np.arange(1, int(_EXTEND_MM / STEP_MM))[:, None] * STEP_MM
    tries = [(a, b) for a in range(-2, 3) for b in range(-1, 2)]
    bends = np.array([a * side + b * np.cross(side, out) for a, b in tries]) * _BEND_PER_MM
    lines = near[-1] + ahead * out + ahead * ahead / 2 * bends[:, None]
    is_metal = metal.windows.sample(lines[:, ::4].reshape(-1, 3)).reshape(len(lines), -1) >= level_hu
    runs = np.where(is_metal.all(axis=1), is_metal.shape[1], np.argmin(is_metal, axis=1))
    return np.asarray(lines[int(np.argmax(runs - 0.3 * np.hypot(*np.array(tries).T)))])


def _core(metal: MetalMap, line: FloatArray, radius_mm: float, hu: tuple[float, float], psf: Psf) -> Core:
    """The rod's core along its line."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    covariance = psf.covariance_mm2(metal.geometry.normal_lps)
    sigma = np.sqrt(np.einsum("ij,jk,ik->i", along, covariance, along))
    depths = np.arange(len(line), dtype=np.float64) * STEP_MM
    return Core(depths, core_hu(metal.windows, line, radius_mm), hu[0], hu[1], np.asarray(sigma, dtype=np.float64))


def _outside_heads(
    gaps: list[tuple[float, float]], line: FloatArray, seats_lps_mm: FloatArray, core: Core
) -> list[tuple[float, float]]:
    """Gaps that are breaks: within a head, whose slot leaves room beside the rod, only where little metal is left."""
    kept = []
    for depth, width in gaps:
        at = line[min(len(line) - 1, round(depth / STEP_MM))]
        in_head = len(seats_lps_mm) and np.linalg.norm(seats_lps_mm - at, axis=1).min() < _HEAD_REACH_MM
        lowest = float(np.nanmin(core.hu[np.abs(core.depths_mm - depth) <= 1.0]))
        if not in_head or lowest < 0.4 * core.top_hu:
            kept.append((depth, width))
    return kept


def _goes_on(metal: MetalMap, line: FloatArray, gap: tuple[float, float], core: Core) -> bool:
    """Whether the core grows only a little darker and solid metal goes on past it on a parallel line: then the line
    leaves the rod there, and no rod ends.

    A break crosses the whole rod. Beside dense metal a line that was followed through a head can lie 2 mm off.
    """
    depth, width = gap
    # A gap can be narrower than a step, and darker than any HU that is a measurement.
    inside = core.hu[np.abs(core.depths_mm - depth) <= max(width / 2, STEP_MM)]
    if not (inside >= _SHALLOW * core.top_hu).all():
        return False
    first, last = (round((depth + side * (width / 2 + _PAST_MM)) / STEP_MM) for side in (-1, 1))
    part = line[max(0, first) : last + 1]
    if len(part) < 2:
        return False
    along = line_direction(part)
    side = np.cross(along, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    angles = np.arange(8)[:, None] * np.pi / 4
    ways = np.cos(angles) * side + np.sin(angles) * np.cross(along, side)
    beside = part + _ASIDE_MM * ways[:, None]
    hu = metal.windows.sample(beside.reshape(-1, 3)).reshape(len(ways), len(part))
    return bool((hu >= _SOLID * core.top_hu).all(axis=1).any())


def _gap(metal: MetalMap, line: FloatArray, place: tuple[float, float], radius_mm: float, psf: Psf) -> Gap:
    """The record of a gap at (depth, width)."""
    depth, width = place
    at = min(len(line) - 1, round(depth / STEP_MM))
    off, far = round((width / 2 + 1.0) / STEP_MM), round((width / 2 + 11.0) / STEP_MM)
    before, after = line[max(0, at - far) : max(0, at - off)], line[at + off : at + far]
    pieces = tuple(np.stack([run[0], run[-1]]) if len(run) * STEP_MM >= 4.0 else None for run in (before, after))
    return gap_between(metal, (pieces[0], pieces[1]), line[at], width, radius_mm, psf)
