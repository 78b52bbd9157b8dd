"""Metal around a ROI, and what of the ROI lies too near to it.

Titanium reads 6300-8400 HU and steel or cobalt-chrome 12000-18000 HU on an extended scale, and all of them the end of
the scale, mostly 3071 HU, on a 12-bit scale. The blurred edge of a screw passes 2000 HU at the same place on both
scales, so that one pair of thresholds serves both: a voxel at 2500 HU or at a plateau at the end of the scale is metal,
and so is what is joined to it at 2000 HU or more. Cortex (up to 1900 HU) and osteoblastic bone (up to 1500 HU) stay
below. Around the metal a margin is left out, measured in mm between voxel centres, also on sheared or uneven slices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry
from spineimg.settings import setting
from spineimg.volume import HUArray

BoolArray = npt.NDArray[np.bool_]

_ROUNDING_MM = 1e-3
"""Slices lie where the header says to so much: a slice exactly at the margin is in reach."""


@dataclass(frozen=True, slots=True)
class MetalSettings:
    """What is metal, and how much around it is left out."""

    seed_hu: float = setting(
        2500.0,
        "HU",
        (2000.0, 3000.0),
        "engineering choice: above cortical bone, below the end of a 12-bit scale (3071 HU)",
        "A voxel at or above this is metal.",
    )
    grow_hu: float = setting(
        2000.0,
        "HU",
        (1900.0, 2500.0),
        "engineering choice: the 2000 HU edge of a 6.5 mm titanium screw lies 0.2 mm outside the metal",
        "Voxels joined to metal belong to it at or above this.",
    )
    plateau_voxels: int = setting(
        8,
        "voxels",
        (2, 1000),
        "engineering choice: unclipped data do not repeat their maximum so often",
        "So many voxels at one identical maximum between the two thresholds are a scale that ends there.",
    )
    margin_mm: float = setting(
        3.0,
        "mm",
        (0.0, 10.0),
        "engineering choice: with 3 mm left out, a circle around two screws reads the true HU",
        "Distance from metal up to which voxels are left out.",
    )
    margin_voxels: float = setting(
        1.5,
        "voxels",
        (1.0, 5.0),
        "engineering choice: a thick slice or a coarse voxel beside metal still holds a part of it",
        "The margin is at least so many slice thicknesses, slice steps or pixels.",
    )
    near_mm: float = setting(
        15.0,
        "mm",
        (0.0, 50.0),
        "beam hardening of -130 HU up to 15 mm beyond a titanium screw, simulated at 120 kVp",
        "Metal within this distance of a ROI in the slice plane is reported.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class MetalNear:
    """excluded: (n,), True for the places of the ROI that lie within the margin. nearest_mm: distance in the slice
    plane between the ROI and metal in its neighbourhood; None without metal."""

    excluded: BoolArray
    nearest_mm: float | None


def metal_near(
    geometry: Geometry,
    window: Callable[[int, slice, slice], HUArray],
    points_lps_mm: FloatArray,
    slices: tuple[int, ...],
    slice_thickness_mm: float | None = None,
    settings: MetalSettings | None = None,
) -> MetalNear:
    """Metal near (n, 3) points in LPS mm, which were taken from `slices`.

    window: reads a cut-out (slice, rows, columns), nan where there is no measurement; what it raises passes through.
    """
    chosen = settings or MetalSettings()
    nothing = MetalNear(np.zeros(len(points_lps_mm), dtype=bool), None)
    if not len(points_lps_mm) or not slices:
        return nothing
    in_plane_mm, along_mm = _margins_mm(geometry, slices, slice_thickness_mm, chosen)
    stack_slices = _neighbours(geometry, slices, along_mm + _ROUNDING_MM)
    rows, columns = _box(geometry, points_lps_mm, stack_slices, chosen)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return nothing
    found = _metal_voxels([window(int(k), rows, columns) for k in stack_slices], chosen)
    if not len(found):
        return nothing
    metal = geometry.lps_at(found + np.array([stack_slices[0], rows.start, columns.start]))
    return _distances(geometry, metal, points_lps_mm, slices, (in_plane_mm, along_mm))


def _margins_mm(
    geometry: Geometry, slices: tuple[int, ...], thickness_mm: float | None, settings: MetalSettings
) -> tuple[float, float]:
    """(in the slice plane, along its normal) margin, mm."""
    step = max(_step_beside(geometry.usual_steps_mm, k) for k in slices)
    along = settings.margin_voxels * max(step, thickness_mm or 0.0)
    pixel = settings.margin_voxels * max(geometry.spacing_mm[1:])
    return max(settings.margin_mm, pixel), max(settings.margin_mm, along)


def _step_beside(steps_mm: FloatArray, k: int) -> float:
    """The larger of the steps on either side of slice k, mm."""
    return float(steps_mm[max(0, k - 1) : k + 1].max())


def _neighbours(geometry: Geometry, slices: tuple[int, ...], along_mm: float) -> npt.NDArray[np.intp]:
    """Indices of the slices within the margin of the ROI's own slices, one run without a break."""
    own = geometry.positions_mm[list(slices)]
    near = (geometry.positions_mm >= own.min() - along_mm) & (geometry.positions_mm <= own.max() + along_mm)
    return np.flatnonzero(near)


def _box(
    geometry: Geometry, points: FloatArray, stack_slices: npt.NDArray[np.intp], settings: MetalSettings
) -> tuple[slice, slice]:
    """Rows and columns around the points on every slice of the stack, which may be sheared, with room for metal."""
    ends = [geometry.in_plane(points - geometry.origins_lps_mm[k]) for k in (stack_slices[0], stack_slices[-1])]
    box = []
    for axis, count in ((0, geometry.shape[1]), (1, geometry.shape[2])):
        at = np.concatenate([end[axis] for end in ends])
        room = settings.near_mm / geometry.spacing_mm[1 + axis] + 1
        box.append(slice(max(0, int(at.min() - room)), min(count, int(at.max() + room) + 2)))
    return box[0], box[1]


def _metal_voxels(windows: list[HUArray], settings: MetalSettings) -> npt.NDArray[np.intp]:
    """(m, 3) indices of metal in a stack of slices: hysteresis between two thresholds."""
    if all(window.max() < settings.grow_hu for window in windows):  # false where there is a nan
        return np.empty((0, 3), dtype=np.intp)
    stack = np.stack([window.astype(np.float32, copy=False) for window in windows])
    candidates = stack >= settings.grow_hu
    if not candidates.any():
        return np.empty((0, 3), dtype=np.intp)
    seed = settings.seed_hu
    peak = float(np.nanmax(stack))
    if settings.grow_hu <= peak < seed and np.count_nonzero(stack == peak) >= settings.plateau_voxels:
        seed = peak
    from scipy import ndimage

    parts, _ = ndimage.label(candidates, structure=np.ones((3, 3, 3)))
    metal = np.isin(parts, np.unique(parts[candidates & (stack >= seed)]))
    return np.argwhere(metal & candidates)


def _distances(
    geometry: Geometry,
    metal: FloatArray,
    points: FloatArray,
    slices: tuple[int, ...],
    margins_mm: tuple[float, float],
) -> MetalNear:
    """Points within the margin, in the slice plane, of metal that lies within the margin along the normal."""
    from scipy.spatial import cKDTree

    in_plane_mm, along_mm = (margin + _ROUNDING_MM for margin in margins_mm)
    first = geometry.column_step_lps_mm / np.linalg.norm(geometry.column_step_lps_mm)
    axes = np.stack([first, np.cross(geometry.normal_lps, first)], axis=1)
    metal_flat, points_flat = metal @ axes, points @ axes
    metal_height, height = metal @ geometry.normal_lps, points @ geometry.normal_lps
    excluded = np.zeros(len(points), dtype=bool)
    # A voxel is in danger by its own slice's distance from metal. A sample between two slices is made of both.
    for k in slices:
        place = geometry.positions_mm[k]
        made_of = np.abs(height - place) < _step_beside(geometry.steps_mm, k) - _ROUNDING_MM
        reach = np.abs(metal_height - place) <= along_mm
        if made_of.any() and reach.any():
            away, _ = cKDTree(metal_flat[reach]).query(points_flat[made_of], distance_upper_bound=in_plane_mm)
            excluded[made_of] |= np.isfinite(away)
    nearest, _ = cKDTree(metal_flat).query(points_flat)
    return MetalNear(excluded, float(np.min(nearest)))
