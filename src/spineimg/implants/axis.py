"""A screw's shaft, fitted to the native voxels as a blurred cylinder.

Thresholded voxels are never counted, because how far metal blooms over a threshold depends on the scale's end, on the
metal and on the blur. Where metal shows its own HU the cylinder's edge is the half level; where the scale ends below
it, only the lower flank is there, and one parameter, the radius, is fitted to it with the metal's HU and the blur held
(both free, with the flank alone, trade against each other).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.cylinder import Frame, blur_across, flatness, frame, side_slopes, side_values
from spineimg.implants.edge import Edge, EdgeSettings, edge_of, with_core
from spineimg.implants.ends import find_head, fit_tip, thinned
from spineimg.implants.metal_map import MetalMap
from spineimg.implants.thread import Thread, ThreadSettings, find_thread, sharpened
from spineimg.settings import setting

if TYPE_CHECKING:
    from spineimg.implants.psf import Psf


_THICK_SLICE_MM = 2.5
"""Slices farther apart do not show a shaft's sides above and below. Engineering choice: a shaft's radius is 2-4 mm."""
_STEEP = 0.75
"""What runs along the patient, nearer to that than the angle of this cosine, is not smeared: rays cross it briefly."""
_FLAT = 0.6
"""Directions flatter than this (`flatness`) lie in the smear of starved rays. Engineering choice."""
STARVED_MM = 0.5
"""Where a shaft stands out so much farther in the slice plane, that would pass for the tulip, and starved rays can hide
its thread. Phantoms: up to 0.35 mm where threads are seen."""
_SMEARED_MM = 0.2
"""A shaft that stands out so much farther in the slice plane is smeared. Engineering choice: the blur's own error makes
up to 0.15 mm."""


@dataclass(frozen=True, slots=True)
class AxisSettings:
    """How shafts are fitted."""

    edge: EdgeSettings = field(default_factory=EdgeSettings)
    thread: ThreadSettings = field(default_factory=ThreadSettings)
    head_off_mm: float = setting(
        4.0,
        "mm",
        (0.0, 10.0),
        "engineering choice: the tulip's blur reaches 2-3 mm over the shaft",
        "So much of the shaft beside the head is left out of the axis.",
    )
    tip_off_mm: float = setting(
        8.0,
        "mm",
        (0.0, 15.0),
        "engineering choice: a pedicle screw's tip tapers over up to 8 mm",
        "So much of the shaft at the tip is left out of the axis.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class ShaftFit:
    """A fitted shaft. axis: depth 0 is anywhere on it; head_mm, tip_mm: depths of its ends; cone_mm: length of the
    tip's taper; radius_mm: of the plain cylinder that the blurred image equals; thread: what stands over it; misfit:
    rms of the edge's residuals, in parts of the metal; has_head: a wider piece of metal stands at the head's end;
    is_found: the shaft is the image's, not only a reader's mark where no cylinder of metal was found; smear_mm: how
    much farther starved rays make it stand out in the slice plane."""

    axis: Frame
    head_mm: float
    tip_mm: float
    radius_mm: float
    cone_mm: float
    edge: Edge
    thread: Thread
    misfit: float
    has_head: bool
    is_found: bool = True
    smear_mm: float = 0.0

    @property
    def outer_radius_mm(self) -> float:
        """Radius of the outer thread."""
        return self.radius_mm + (self.thread.crest_mm or 0.0)

    @property
    def head_lps_mm(self) -> FloatArray:
        return self.axis.point(self.head_mm)

    @property
    def tip_lps_mm(self) -> FloatArray:
        return self.axis.point(self.tip_mm)

    @property
    def length_mm(self) -> float:
        return self.tip_mm - self.head_mm

    @property
    def clean_mm(self) -> tuple[float, float]:
        """Depths between which neither head nor tip disturb the shaft's side."""
        low = self.head_mm + min(4.0, self.length_mm / 3)
        return low, self.tip_mm - min(max(3.0, self.cone_mm + 1.0), self.length_mm / 3)


@dataclass(frozen=True, eq=False, slots=True)
class SideFit:
    """A fitted piece of a long cylinder; fields as in `ShaftFit`. clean_mm: depths between which it was fitted."""

    axis: Frame
    clean_mm: tuple[float, float]
    radius_mm: float
    edge: Edge
    thread: Thread
    misfit: float
    smear_mm: float = 0.0


def fit_shaft(
    metal: MetalMap,
    head_lps_mm: FloatArray,
    tip_lps_mm: FloatArray,
    radius_mm: float,
    psf: Psf,
    settings: AxisSettings | None = None,
) -> ShaftFit | None:
    """Fits the shaft that lies about between two points; None where there is no cylinder of metal.

    radius_mm: a first guess. The points may be off by 2-3 mm, also along the axis.
    """
    chosen = settings or AxisSettings()
    length = float(np.linalg.norm(tip_lps_mm - head_lps_mm))
    along = (tip_lps_mm - head_lps_mm) / length
    points, hu = metal.windows.near_line(head_lps_mm - 10 * along, tip_lps_mm + 6 * along, radius_mm + 3.2)
    start = frame((head_lps_mm + tip_lps_mm) / 2, along)
    side = _fit_side(metal, (start, radius_mm, length), points, hu, psf, chosen)
    if side is None:
        return None
    blur = blur_across(side.axis, psf, metal.geometry.normal_lps)
    places = side.axis.places(points)
    # Smear is full in the slice plane and none across it.
    around_mm = side.radius_mm + (0.0 if side.edge.core is not None else side.smear_mm / 2)
    tip, cone = fit_tip(places, hu, around_mm, length / 2, side.edge, blur)
    # Beside dense metal the smear in the slice plane would pass for the tulip.
    smeared = side.edge.core is not None or side.smear_mm > STARVED_MM
    across = flatness(places, side.axis, metal.geometry.normal_lps) < (_FLAT if smeared else 1.1)
    around_mm = side.radius_mm if smeared else around_mm
    head, has_head = find_head(places[across], hu[across], around_mm, -length / 2, side.edge, blur)
    if tip - head < 5.0:
        return None
    return ShaftFit(
        side.axis,
        head,
        tip,
        side.radius_mm,
        cone,
        side.edge,
        side.thread,
        side.misfit,
        has_head,
        smear_mm=side.smear_mm,
    )


def with_shared_thread(fits: Sequence[ShaftFit]) -> list[ShaftFit]:
    """Where streaks hide a shaft's thread, it has the height of those that are seen: a construct is of one make."""
    seen = [fit.thread.crest_mm for fit in fits if fit.thread.crest_mm is not None]
    if not seen:
        return list(fits)
    crest = float(np.median(seen))
    hidden = [fit.is_found and fit.thread.crest_mm is None for fit in fits]
    return [
        replace(fit, thread=replace(fit.thread, crest_mm=crest)) if hides else fit
        for fit, hides in zip(fits, hidden, strict=True)
    ]


def fit_piece(
    metal: MetalMap,
    start_lps_mm: FloatArray,
    end_lps_mm: FloatArray,
    radius_mm: float,
    psf: Psf,
    settings: AxisSettings | None = None,
) -> SideFit | None:
    """Fits the side of a cylinder, such as a piece of rod, that runs about from one point to the other and beyond."""
    chosen = replace(settings or AxisSettings(), head_off_mm=0.0, tip_off_mm=0.0)
    length = float(np.linalg.norm(end_lps_mm - start_lps_mm))
    axis = frame((start_lps_mm + end_lps_mm) / 2, end_lps_mm - start_lps_mm)
    points, hu = metal.windows.near_line(start_lps_mm, end_lps_mm, radius_mm + 3.2)
    return _fit_side(metal, (axis, radius_mm, length), points, hu, psf, chosen)


def _straightened(
    axis: Frame, points: FloatArray, hu: FloatArray, length_mm: float, brighter: float, settings: AxisSettings
) -> Frame | None:
    """The robust straight line through the centroids of cross-sections, weights clipped at 3071 HU on every scale.

    brighter: how far the level of metal was raised for dense metal; the weights rise with it, or streaks would count.
    """
    low, high = _shaft_range(length_mm, settings)
    for reach in (6.0, 5.0):
        places = axis.places(points)
        weight = np.clip(hu / brighter, 1200.0, 3071.0) - 1200.0
        weight[(np.hypot(places[:, 1], places[:, 2]) > reach) | (places[:, 0] < low) | (places[:, 0] > high)] = 0.0
        plane = np.floor(places[:, 0] - low).astype(np.int64)
        plane = np.clip(plane, 0, int(high - low) + 1)
        mass = np.bincount(plane, weight)
        good = mass > 0.2 * np.max(mass, initial=0.0)
        if np.count_nonzero(good) < 3:
            return None
        mean = [np.bincount(plane, weight * places[:, i])[good] / mass[good] for i in range(3)]
        shift, slope = zip(*(_robust_line(mean[0], mean[i]) for i in (1, 2)), strict=True)
        axis = axis.moved(np.array(shift), np.array(slope))
    return axis


def _robust_line(depth: FloatArray, off: FloatArray) -> tuple[float, float]:
    """Value at depth 0 and slope of the line through points, biweight."""
    weight = np.ones(len(depth))
    shift = slope = 0.0
    for _ in range(8):
        slope, shift = np.polyfit(depth, off, 1, w=np.sqrt(weight) + 1e-6)
        rest = off - shift - slope * depth
        scale = 4.7 * max(1.48 * float(np.median(np.abs(rest))), 0.03)
        weight = np.square(np.clip(1 - np.square(rest / scale), 0, None))
    return float(shift), float(slope)


def _shaft_range(length_mm: float, settings: AxisSettings) -> tuple[float, float]:
    """Depths (about the middle) of the part of a shaft that head and tip do not disturb; at least its middle third."""
    low = -length_mm / 2 + min(settings.head_off_mm, length_mm / 3)
    high = length_mm / 2 - min(settings.tip_off_mm, length_mm / 3)
    return low, high


def _fit_side(
    metal: MetalMap,
    start: tuple[Frame, float, float],
    points: FloatArray,
    hu: FloatArray,
    psf: Psf,
    settings: AxisSettings,
) -> SideFit | None:
    """Axis and radius by least squares on the voxels around the edge. start: axis, radius and length to begin with."""
    rough, radius, length = start
    shown_smear = _shows_smear(metal, rough)
    dense = shown_smear and metal.dense
    axis = _straightened(rough, points, hu, length, metal.brighter, settings)
    if axis is None:
        return None
    low, high = _shaft_range(length, settings)
    normal = metal.geometry.normal_lps
    thread, smear = Thread(), np.zeros(2)
    for attempt in range(4):
        blur = blur_across(axis, psf, normal)
        places = axis.places(points)
        places, value = places[kept := (places[:, 0] > low) & (places[:, 0] < high)], hu[kept]
        edge = edge_of(places, value, radius, blur, metal.scale_end_hu, metal.dense_hu, settings.edge)
        edge = with_core(edge, places, value, radius) if dense else edge
        rho = np.hypot(places[:, 1], places[:, 2])
        near = (rho < radius + 1.5) & (rho > radius - 1.5)
        if np.count_nonzero(near) < 30:
            return None
        place, value = thinned(places[near], 3000), thinned(value[near], 3000)
        flat = flatness(place, axis, normal) if shown_smear else np.zeros(len(place))
        shown = blur if dense else thread.widened(blur)
        moved = _moved(place, value, (radius + thread.over_mm(place), smear, flat), edge, shown)
        if moved is None:
            return None
        shift, more, smear, residuals, by_radius = moved
        axis, radius = axis.moved(shift[:2], shift[2:]), radius + more
        misfit = float(np.sqrt(np.mean(np.square(residuals))))
        # The thread is looked for once, on a settled axis; then it is held, and made sharper by what is left of it.
        along = float(np.sqrt(blur[0, 0]))
        if attempt == 1:
            seen = flat < (_FLAT if dense or smear[0] > _SMEARED_MM else 1.1)
            thread = find_thread(place[seen], residuals[seen], by_radius[seen], along, radius, settings.thread)
            if thread.crest_mm is None:
                break
        elif attempt > 1:
            thread = sharpened(thread, place, residuals, by_radius, along, radius)
    return SideFit(axis, (low, high), radius, edge, thread, misfit, float(smear[0]))


def _shows_smear(metal: MetalMap, axis: Frame) -> bool:
    """Whether starved rays may smear a shaft from side to side, and the slices show its sides above and below."""
    flat = abs(float(axis.along @ metal.geometry.normal_lps)) < _STEEP
    return flat and metal.geometry.spacing_mm[0] <= _THICK_SLICE_MM


@dataclass(frozen=True, eq=False, slots=True)
class _SideModel:
    """The part of metal at voxels around the edge, for x: two shifts and two slopes of the axis (mm, the slopes over
    half of the depths), the change of radius, and where there is smear, that and its slope.

    places: (n, 3); radius_mm: (n,) of the edge at each; flat: (n,) part of the smear that each takes; limits: least and
    most part of metal that is told, (n,) each.
    """

    places: FloatArray
    radius_mm: FloatArray
    flat: FloatArray
    blur: FloatArray
    limits: tuple[FloatArray, FloatArray]

    @property
    def half_mm(self) -> float:
        return max(float(np.abs(self.places[:, 0]).max()), 1.0)

    def moved(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Places from the moved axis, the radius at each, and what of smear a change adds to it."""
        lever = self.places[:, 0] / self.half_mm
        place = self.places.copy()
        place[:, 1] -= x[0] + x[2] * lever
        place[:, 2] -= x[1] + x[3] * lever
        # Less than none would be the slices' blur, which is held.
        added = x[5] + x[6] * lever if len(x) > 5 else np.zeros(len(lever))
        return place, self.radius_mm + x[4] + np.maximum(added, 0.0) * self.flat, np.where(added >= 0, self.flat, 0.0)

    def part(self, x: FloatArray) -> FloatArray:
        """(n,) part of metal."""
        place, radius, _ = self.moved(x)
        return side_values(place, radius, self.blur)

    def told(self, x: FloatArray) -> FloatArray:
        """(n,) the same within the limits."""
        return np.asarray(np.clip(self.part(x), *self.limits))

    def slopes(self, x: FloatArray) -> FloatArray:
        """(n, len(x)) changes of `told`."""
        place, radius, smears = self.moved(x)
        inside = side_values(place, radius, self.blur)
        low, high = self.limits
        wider, across, beyond = np.where((inside > low) & (inside < high), side_slopes(place, radius, self.blur).T, 0.0)
        lever = self.places[:, 0] / self.half_mm
        columns = [across, beyond, across * lever, beyond * lever, wider, wider * smears, wider * smears * lever]
        return np.stack(columns[: len(x)], axis=1)


def _moved(
    places: FloatArray, hu: FloatArray, side: tuple[FloatArray, FloatArray, FloatArray], edge: Edge, blur: FloatArray
) -> tuple[FloatArray, float, FloatArray, FloatArray, FloatArray] | None:
    """Least squares on voxels around the edge.

    side: (n,) radius of the edge at each; what starved rays add to it in the slice plane, mm; (n,) the part of that
    which each takes, 0 where there is none. Returns two shifts (mm) and two slopes of the axis, the change of radius,
    what is added in the slice plane, and for each voxel the residual and the change of its part of metal per mm of
    radius.
    """
    from scipy.optimize import least_squares

    part, low, high = edge.parts(places, hu)
    shown = np.clip(part, low, high)
    radius_mm, smear, flat = side
    smeared = bool(flat.any())
    model = _SideModel(places, radius_mm, flat, blur, (low, high))

    def residuals(x: FloatArray) -> FloatArray:
        return model.told(x) - shown

    found = least_squares(
        residuals,
        np.append(np.zeros(5), smear) if smeared else np.zeros(5),
        model.slopes,
        loss="soft_l1",
        f_scale=0.25 * float(np.mean(high - low)),
        x_scale=0.1,
        ftol=1e-4,
        max_nfev=10,
    )
    radius = float(np.mean(radius_mm)) + found.x[4]
    if not 0.8 < radius < 8.0 or np.abs(found.x[:4]).max() > 4.0:
        return None
    fitted = model.part(found.x)
    more = model.part(found.x + 0.02 * (np.arange(len(found.x)) == 4))
    by_radius = np.where((fitted > low) & (fitted < high), (more - fitted) / 0.02, 0.0)
    rest = shown - np.clip(fitted, low, high)
    smear = np.array([max(found.x[5], 0.0), found.x[6]]) if smeared else smear
    return found.x[:4] / np.array([1, 1, *[model.half_mm] * 2]), float(found.x[4]), smear, rest, by_radius
