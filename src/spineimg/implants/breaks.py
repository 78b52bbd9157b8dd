"""Breaks: places where the metal along an axis is missing.

Along the axis the mean HU of the core is looked at. A gap of width w, blurred by sigma, leaves
M (1 - Phi((x + w/2) / sigma) + Phi((x - w/2) / sigma)) of the metal's HU M at distance x from its middle. The missing
area over M is the width itself, whatever the blur; where the scale ends below M only a deep gap shows, and its width
follows from how far the profile stays below the scale's end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.axis import ShaftFit, fit_piece
from spineimg.implants.cylinder import blur_across, side_values
from spineimg.implants.metal_map import MetalMap, Windows
from spineimg.implants.model import Gap
from spineimg.implants.psf import FWHM_PER_SIGMA, Psf
from spineimg.notes import Note
from spineimg.settings import setting

STEP_MM = 0.25
"""Distance of the places along an axis that are looked at."""
_LEAST_TITANIUM = 0.65
"""Hardened by what lies around it titanium shows so much of its HU at least. Engineering choice."""
_BESIDE_MM = 4.0
"""So much metal beside the widest gap tells what solid metal reads there."""


@dataclass(frozen=True, slots=True)
class BreakSettings:
    """When missing metal is a break."""

    left_unclipped: float = setting(
        0.65,
        "of the metal's HU",
        (0.3, 0.9),
        "engineering choice: streaks change the core of a rod by up to 15 %",
        "Where metal shows its own HU, a core below this part of it is a gap.",
    )
    left_clipped: float = setting(
        0.93,
        "of the scale's end",
        (0.6, 0.99),
        "engineering choice: noise of 100 HU in metal stays above",
        "Where the scale ends below the metal, a core below this part of the end is a gap.",
    )
    over_noise: float = setting(
        10.0,
        "SD",
        (3.0, 20.0),
        "simulated profiles: the brightest is 2-3 SD above the mean, noise 5 below; the SD is known to 20 %",
        "And so many SD of its own unrest along the axis below the brightest core nearby.",
    )
    widest_mm: float = setting(
        10.0,
        "mm",
        (4.0, 20.0),
        "engineering choice: pieces of a broken rod stay near each other",
        "A wider gap lies between two implants.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class Core:
    """What the metal around an axis reads. depths_mm: (n,) along the axis; hu: (n,) mean over the inner 60 % of the
    radius; metal_hu: HU of solid metal; top_hu: what solid metal reads on this scale; sigma_mm: (n,) blur along it."""

    depths_mm: FloatArray
    hu: FloatArray
    metal_hu: float
    top_hu: float
    sigma_mm: FloatArray

    @property
    def clipped(self) -> bool:
        return self.top_hu < 0.9 * self.metal_hu

    def level_hu(self, settings: BreakSettings) -> float:
        return self.top_hu * (settings.left_clipped if self.clipped else settings.left_unclipped)


def core_hu(windows: Windows, line_lps_mm: FloatArray, radius_mm: float) -> FloatArray:
    """(n,) mean HU within 0.6 radii of each place of a line (n, 3), at right angles to it."""
    along = np.gradient(line_lps_mm, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(along[:, 2:]) < 0.8, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    across = np.cross(along, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    beyond = np.cross(along, across)
    angles = np.arange(6)[:, None, None] * np.pi / 3
    ring = line_lps_mm + 0.6 * radius_mm * (np.cos(angles) * across + np.sin(angles) * beyond)
    points = np.concatenate([line_lps_mm[None], ring]).reshape(-1, 3)
    return np.asarray(windows.sample(points).reshape(7, -1).mean(axis=0))


def find_gaps(core: Core, settings: BreakSettings) -> list[tuple[float, float]]:
    """(depth of the middle, width) in mm of the gaps that have metal on both sides."""
    tops = _local_tops_hu(core, settings)
    levels = _levels_hu(core, tops, settings)
    low = ~(core.hu >= levels)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(np.int8), [0]])))
    gaps = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        # Beyond the image nothing is known. In a gap between dense pieces HU can fall below the scale; its flanks show.
        if first == 0 or end == len(low) or np.isnan(core.hu[[first - 1, first, end - 1, end]]).any():
            continue
        middle = float(core.depths_mm[first:end].mean())
        top = float(tops[first:end].min())
        here = replace(core, top_hu=top, metal_hu=core.metal_hu if core.clipped else top)
        width = _width(here, int(first), int(end), float(levels[first:end].min()))
        if 0.0 < width <= settings.widest_mm:
            gaps.append((middle, width))
    return gaps


def _local_tops_hu(core: Core, settings: BreakSettings) -> FloatArray:
    """(n,) what solid metal reads at each place: the brightest core near it, on the darker of its two sides.

    Starved rays darken dense metal to a third where they run along it, and thick slices a thin shaft; what grows dark
    and stays so, or ends so, is no gap.
    """
    from scipy.ndimage import maximum_filter1d

    half = round((settings.widest_mm + _BESIDE_MM) / STEP_MM / 2)
    hu = np.where(np.isnan(core.hu), -np.inf, core.hu)
    sides = [maximum_filter1d(hu, 2 * half + 1, mode="nearest", origin=way * half) for way in (1, -1)]
    return np.asarray(np.minimum(np.minimum(sides[0], sides[1]), core.top_hu))


def _levels_hu(core: Core, tops_hu: FloatArray, settings: BreakSettings) -> FloatArray:
    """(n,) below which a core is a gap: a part of solid metal's, and beyond the unrest of the core itself.

    A sharp kernel makes so much noise in metal that where the scale ends its mean wanders by 200 HU.
    """
    from scipy.ndimage import median_filter

    seen = core.hu[np.isfinite(core.hu)]
    width = min(len(seen), round(_BESIDE_MM / STEP_MM))
    unrest = seen - median_filter(seen, width, mode="nearest") if len(seen) else np.zeros(1)
    spread = 1.4826 * float(max(-np.percentile(unrest, 25), 0.0))  # its upper half may be cut off
    part = core.level_hu(settings) / core.top_hu
    return np.asarray(np.minimum(part * tops_hu, tops_hu - settings.over_noise * spread))


def _width(core: Core, first: int, end: int, level_hu: float) -> float:
    """Width of the gap whose core stays below the level from place `first` to `end` (exclusive)."""
    if not core.clipped:
        room = int(np.ceil(2.5 * float(core.sigma_mm[first]) / STEP_MM))
        a, b = max(0, first - room), min(len(core.hu), end + room)
        missing = np.clip(1 - np.nan_to_num(core.hu[a:b]) / core.top_hu, 0.0, 1.0)
        return float(missing.sum() * STEP_MM)
    seen = _crossing_width(core, first, end, level_hu)
    widths = np.arange(0.05, seen + 4 * float(core.sigma_mm[first]) + 1, 0.05)
    shown = np.array([_shown_width(w, float(core.sigma_mm[first]), level_hu / core.metal_hu) for w in widths])
    return float(widths[int(np.argmin(np.abs(shown - seen)))])


def _crossing_width(core: Core, first: int, end: int, level_hu: float) -> float:
    """Width over which the profile is below the level, between its interpolated crossings."""
    left = (core.hu[first - 1] - level_hu) / max(core.hu[first - 1] - core.hu[first], 1e-6)
    right = (core.hu[end] - level_hu) / max(core.hu[end] - core.hu[end - 1], 1e-6)
    return float((end - first + 1 - np.clip(left, 0, 1) - np.clip(right, 0, 1)) * STEP_MM)


def _shown_width(width_mm: float, sigma_mm: float, level: float) -> float:
    """Width over which a gap's blurred profile is below a part of the metal's HU; 0 where it never is."""
    from scipy.special import ndtr

    x = np.arange(0.0, width_mm / 2 + 4 * sigma_mm, 0.02)
    shown = 1 - ndtr((x + width_mm / 2) / sigma_mm) + ndtr((x - width_mm / 2) / sigma_mm)
    return 2 * float(np.count_nonzero(shown < level)) * 0.02


def smallest_visible_mm(sigma_mm: float, level: float) -> float:
    """Narrowest gap whose blurred core falls below `level` (0-1) of the metal's HU."""
    from scipy.special import ndtri

    return float(2 * sigma_mm * ndtri(1 - level / 2))


def invisible_note(core: Core, settings: BreakSettings) -> Note:
    """Names the smallest gap that would have been seen."""
    sigma = float(np.median(core.sigma_mm))
    level = max(float(np.median(_levels_hu(core, _local_tops_hu(core, settings), settings))), 0.02 * core.metal_hu)
    smallest = smallest_visible_mm(sigma, level / core.metal_hu)
    text = f"gaps below {smallest:.1f} mm cannot be seen at a blur of {sigma * FWHM_PER_SIGMA:.1f} mm along the metal"
    if core.clipped:
        hard = smallest_visible_mm(sigma, level / 17000.0)
        text += (
            f" if it is titanium, below {hard:.1f} mm if it is cobalt-chrome: the scale ends at {core.top_hu:.0f} HU"
        )
    return Note("smallest_gap", text)


def shaft_gaps(
    metal: MetalMap, fit: ShaftFit, psf: Psf, settings: BreakSettings
) -> tuple[tuple[Gap, ...], tuple[Note, ...]]:
    """Breaks of a shaft between its head and the taper of its tip, and the note about the smallest visible one."""
    depths = np.arange(fit.head_mm - 1.0, fit.tip_mm - max(fit.cone_mm, 1.5), STEP_MM)
    if len(depths) < 8:
        return (), ()
    line = fit.axis.origin_lps_mm + depths[:, None] * fit.axis.along
    sigma = float(np.sqrt(fit.axis.along @ psf.covariance_mm2(metal.geometry.normal_lps) @ fit.axis.along))
    edge = fit.edge
    top = float(metal.scale_end_hu or edge.metal_hu) if edge.clipped else edge.metal_hu
    hu = core_hu(metal.windows, line, fit.radius_mm) * (top / _solid_hu(metal, fit, depths, top, psf))
    core = Core(depths, hu, edge.metal_hu, top, np.full(len(depths), sigma))
    gaps = tuple(_shaft_gap(metal, fit, depth, width, psf) for depth, width in find_gaps(core, settings))
    return gaps, (invisible_note(core, settings),)


def _solid_hu(metal: MetalMap, fit: ShaftFit, depths_mm: FloatArray, top_hu: float, psf: Psf) -> FloatArray:
    """(n,) what `core_hu` reads of this shaft where it is whole.

    A shaft that crosses thick slices obliquely is less than a slice high beside its axis: what lies between two
    slices, each cut off at the scale's end, reads too dark at every crossing. The slices on both sides of each place
    are modelled as blurred and cut off, and the line between them taken, as `Windows.sample` does.
    """
    geometry, axis = metal.geometry, fit.axis
    if geometry.shape[0] < 2:
        return np.full(len(depths_mm), top_hu)
    angles = np.arange(6)[:, None, None] * np.pi / 3
    ring = 0.6 * fit.radius_mm * (np.cos(angles) * axis.across + np.sin(angles) * axis.beyond)
    line = axis.origin_lps_mm + depths_mm[:, None] * axis.along
    points = np.concatenate([line[None], line + ring]).reshape(-1, 3)
    index = geometry.index_at(points)
    part = index[:, 0] - np.floor(index[:, 0])
    metal_hu = _LEAST_TITANIUM * fit.edge.metal_hu if fit.edge.clipped else fit.edge.metal_hu
    around = float(fit.edge.around[0])
    blur = blur_across(axis, psf, geometry.normal_lps)
    shown = np.zeros(len(points))
    for slices, weight in ((0, 1 - part), (1, part)):
        in_slice = geometry.lps_at(index + np.stack([slices - part, 0 * part, 0 * part], axis=1))
        inside = side_values(axis.places(in_slice), fit.radius_mm, blur)
        shown += weight * np.minimum(around + inside * (metal_hu - around), top_hu)
    return np.asarray(np.clip(shown.reshape(7, -1).mean(axis=0), 0.5 * top_hu, top_hu))


def _shaft_gap(metal: MetalMap, fit: ShaftFit, depth_mm: float, width_mm: float, psf: Psf) -> Gap:
    """The record of a shaft's gap."""
    off = width_mm / 2 + 1.0
    before = max(fit.head_mm + 2.0, depth_mm - 15.0), depth_mm - off
    after = depth_mm + off, min(fit.tip_mm - 2.0, depth_mm + 15.0)
    pieces = [np.stack([fit.axis.point(a), fit.axis.point(b)]) if b - a >= 5.0 else None for a, b in (before, after)]
    return gap_between(metal, (pieces[0], pieces[1]), fit.axis.point(depth_mm), width_mm, fit.radius_mm, psf)


def gap_between(
    metal: MetalMap,
    pieces_lps_mm: tuple[FloatArray | None, FloatArray | None],
    center_lps_mm: FloatArray,
    width_mm: float,
    radius_mm: float,
    psf: Psf,
) -> Gap:
    """The record of a gap; bend and step come from fits of the pieces before and after it, each (2, 3) end points.

    Both are 0 where a piece is too short or no cylinder.
    """
    at = center_lps_mm
    fits = [None if p is None else fit_piece(metal, p[0], p[1], radius_mm, psf) for p in pieces_lps_mm]
    kink = step = 0.0
    if fits[0] is not None and fits[1] is not None:
        one, two = fits[0].axis, fits[1].axis
        kink = float(np.degrees(np.arccos(np.clip(abs(one.along @ two.along), 0, 1))))
        ends = [axis.origin_lps_mm + ((at - axis.origin_lps_mm) @ axis.along) * axis.along for axis in (one, two)]
        way = ends[1] - ends[0]
        step = float(np.linalg.norm(way - (way @ one.along) * one.along))
    return Gap((float(at[0]), float(at[1]), float(at[2])), round(width_mm, 2), round(kink, 1), round(step, 2))
