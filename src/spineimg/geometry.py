"""Where voxels are.

Symbols: an index is (k, r, c) = (slice, row, column). Slice k is the plane lattice
`origins_lps_mm[k] + r * row_step_lps_mm + c * column_step_lps_mm`. Slices are parallel, but every slice keeps its own
origin: a constant step gives an affine volume, a step that is not along the normal a sheared one (gantry tilt), and
uneven steps a volume with gaps or varying spacing. Nothing is ever resampled to fit a lattice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError

FloatArray = npt.NDArray[np.float64]

_FARTHEST_MM = 1e6
_WIDEST_STEP_MM = 1e3
"""A voxel farther away than a kilometre, or wider than a metre, is a broken header. Engineering choice."""
_EVEN_TOLERANCE = 0.05
"""Relative deviation of one slice step up to which steps count as even. Engineering choice: positions are often
written with two or three decimals."""
_GAP_FACTOR = 1.4
"""A step this many times the usual one is a gap. Engineering choice, between 1 (even) and 2 (one slice missing)."""
_ZONE_STEPS = 4
"""So many equal steps in a row are a stretch of its own spacing, not a row of gaps. Engineering choice."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A place without slices, between slice `after` and slice `after + 1`; positions along the slice normal in mm."""

    after: int
    start_mm: float
    end_mm: float

    @property
    def width_mm(self) -> float:
        return self.end_mm - self.start_mm


@dataclass(frozen=True, eq=False)
class Geometry:
    """The lattice of a volume in LPS mm.

    shape: (slices, rows, columns).
    origins_lps_mm: (slices, 3), centre of voxel (k, 0, 0) of each slice.
    row_step_lps_mm: (3,), from one row to the next, i.e. down a column (ImageOrientationPatient[3:] * PixelSpacing[0]).
    column_step_lps_mm: (3,), from one column to the next (ImageOrientationPatient[:3] * PixelSpacing[1]).

    Slices must come in ascending or descending order along the plane normal, no two at one place.
    """

    shape: tuple[int, int, int]
    origins_lps_mm: FloatArray
    row_step_lps_mm: FloatArray
    column_step_lps_mm: FloatArray

    def __post_init__(self) -> None:
        for name in ("origins_lps_mm", "row_step_lps_mm", "column_step_lps_mm"):
            value = np.array(getattr(self, name), dtype=np.float64)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if self.origins_lps_mm.shape != (self.shape[0], 3) or min(self.shape) < 1:
            raise GeometryError(
                f"a volume of shape {self.shape} needs one origin a slice, found {self.origins_lps_mm.shape}"
            )
        steps = np.stack([self.row_step_lps_mm, self.column_step_lps_mm])
        if steps.shape != (2, 3) or not (np.isfinite(steps).all() and np.isfinite(self.origins_lps_mm).all()):
            raise GeometryError("positions, orientation and pixel spacing must be finite numbers")
        if np.abs(self.origins_lps_mm).max() > _FARTHEST_MM or np.abs(steps).max() > _WIDEST_STEP_MM:
            raise GeometryError("positions or spacings are absurdly large: a kilometre, or a metre from voxel to voxel")
        if np.linalg.norm(np.cross(steps[1], steps[0])) < 1e-9:
            raise GeometryError(f"the row and column directions are parallel or zero: {steps.tolist()}")
        moves = np.diff(self.positions_mm)
        if len(moves) and not ((moves > 1e-4).all() or (moves < -1e-4).all()):
            raise GeometryError("slices are not sorted along their normal, or two lie at one position")

    @classmethod
    def from_affine(cls, shape: tuple[int, int, int], lps_from_index: npt.ArrayLike) -> Geometry:
        """A regular lattice. lps_from_index: (4, 4), (k, r, c, 1) -> LPS mm; it may be sheared or left-handed."""
        affine = np.asarray(lps_from_index, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], [0, 0, 0, 1]):
            raise GeometryError(f"not an affine of index to mm: {affine.tolist()}")
        if np.abs(affine).max() > _FARTHEST_MM:
            raise GeometryError(f"the affine is absurdly large: {affine.tolist()}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise GeometryError(f"the affine has no volume: {affine.tolist()}")
        origins = affine[:3, 3] + np.arange(shape[0])[:, None] * affine[:3, 0]
        return cls(shape, origins, affine[:3, 1], affine[:3, 2])

    # -- directions -------------------------------------------------------------------------------------------------

    @cached_property
    def normal_lps(self) -> FloatArray:
        """(3,) unit normal of the slice planes, column direction x row direction (+z for a usual axial scan)."""
        normal = np.cross(self.column_step_lps_mm, self.row_step_lps_mm)
        return np.asarray(normal / np.linalg.norm(normal))

    @cached_property
    def positions_mm(self) -> FloatArray:
        """(slices,) place of each slice along the normal, mm."""
        return np.asarray(self.origins_lps_mm @ self.normal_lps)

    @cached_property
    def steps_mm(self) -> FloatArray:
        """(slices - 1,) distance between neighbouring slices along the normal, mm, positive."""
        return np.abs(np.diff(self.positions_mm))

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing. The slice spacing is the usual step along the normal; nan for one slice."""
        usual = float(np.median(self.usual_steps_mm)) if len(self.steps_mm) else float("nan")
        return (usual, float(np.linalg.norm(self.row_step_lps_mm)), float(np.linalg.norm(self.column_step_lps_mm)))

    @cached_property
    def shear_deg(self) -> float:
        """Angle between the slice normal and the way from the first to the last slice: gantry tilt, degrees."""
        if self.shape[0] < 2:
            return 0.0
        way = self.origins_lps_mm[-1] - self.origins_lps_mm[0]
        cosine = abs(way @ self.normal_lps) / np.linalg.norm(way)
        return float(np.degrees(np.arccos(min(1.0, cosine))))

    # -- evenness ---------------------------------------------------------------------------------------------------

    @cached_property
    def usual_steps_mm(self) -> FloatArray:
        """(slices - 1,) the step that is usual at each place, mm: the stretch's own, else the next stretch's.

        In a volume without any even stretch it is the smallest step: everything wider is a gap.
        """
        steps = self.steps_mm
        usual = np.full(len(steps), np.nan)
        start = 0
        for i in range(1, len(steps) + 1):
            if i == len(steps) or abs(steps[i] - steps[start]) > _EVEN_TOLERANCE * steps[start]:
                if i - start >= _ZONE_STEPS:
                    usual[start:i] = np.median(steps[start:i])
                start = i
        known = np.flatnonzero(~np.isnan(usual))
        for at in np.flatnonzero(np.isnan(usual)):
            before, after = known[known < at], known[known > at]
            beside = [usual[before[-1]]] if len(before) else []
            beside += [usual[after[0]]] if len(after) else []
            usual[at] = max(beside) if beside else float(steps.min())
        return usual

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Places where slices are missing."""
        wide = np.flatnonzero(self.steps_mm > _GAP_FACTOR * self.usual_steps_mm)
        ends = np.sort(np.stack([self.positions_mm[wide], self.positions_mm[wide + 1]]), axis=0)
        return tuple(Gap(int(k), float(a), float(b)) for k, a, b in zip(wide, ends[0], ends[1], strict=True))

    @cached_property
    def varies(self) -> bool:
        """True when the spacing changes along the volume other than by gaps."""
        gap_steps = {gap.after for gap in self.gaps}
        rest = np.array([step for k, step in enumerate(self.steps_mm) if k not in gap_steps])
        return bool(len(rest)) and bool(np.ptp(rest) > 2 * _EVEN_TOLERANCE * np.median(rest))

    @cached_property
    def lps_from_index(self) -> FloatArray:
        """(4, 4) affine of a regular volume, (k, r, c, 1) -> LPS mm.

        Raises GeometryError when slices are uneven by more than 0.01 mm: then only the slices' own origins are right.
        """
        count = self.shape[0]
        step = (self.origins_lps_mm[-1] - self.origins_lps_mm[0]) / max(1, count - 1)
        if count == 1:
            step = self.normal_lps
        straight = self.origins_lps_mm[0] + np.arange(count)[:, None] * step
        worst = float(np.abs(straight - self.origins_lps_mm).max())
        if worst > 0.01:
            raise GeometryError(
                f"slices are uneven (up to {worst:.2f} mm off a regular lattice), so there is no affine"
            )
        affine = np.eye(4)
        affine[:3] = np.stack([step, self.row_step_lps_mm, self.column_step_lps_mm, self.origins_lps_mm[0]], axis=1)
        return affine

    # -- points -----------------------------------------------------------------------------------------------------

    def lps_at(self, index: npt.ArrayLike) -> FloatArray:
        """(..., 3) fractional index (k, r, c) -> (..., 3) LPS mm. k runs linearly between neighbouring slices.

        Of a single slice, k is the distance from it along the normal in mm.
        """
        at = np.asarray(index, dtype=np.float64)
        k = at[..., 0]
        low = np.clip(np.floor(k), 0, max(0, self.shape[0] - 2)).astype(np.intp)
        high = np.minimum(low + 1, self.shape[0] - 1)
        part = (k - low)[..., None]
        origin = self.origins_lps_mm[low] * (1 - part) + self.origins_lps_mm[high] * part
        if self.shape[0] == 1:
            origin = origin + part * self.normal_lps
        return np.asarray(origin + at[..., 1:2] * self.row_step_lps_mm + at[..., 2:3] * self.column_step_lps_mm)

    def index_at(self, point_lps_mm: npt.ArrayLike) -> FloatArray:
        """(..., 3) LPS mm -> (..., 3) fractional index (k, r, c), beyond the volume by continuation."""
        point = np.asarray(point_lps_mm, dtype=np.float64)
        count = self.shape[0]
        if count == 1:
            k = (point - self.origins_lps_mm[0]) @ self.normal_lps
            origin = self.origins_lps_mm[0] + k[..., None] * self.normal_lps
        else:
            place = point @ self.normal_lps
            places, ascending = self.positions_mm, True
            if places[0] > places[-1]:
                places, ascending = places[::-1], False
            low = np.clip(np.searchsorted(places, place, side="right") - 1, 0, count - 2)
            k = low + (place - places[low]) / (places[low + 1] - places[low])
            if not ascending:
                k = count - 1 - k
            origin = self.lps_at(np.stack([k, np.zeros_like(k), np.zeros_like(k)], axis=-1))
        row, column = self.in_plane(point - origin)
        return np.stack([k, row, column], axis=-1)

    def in_plane(self, offset_lps_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(..., 3) offset from a slice's origin, mm -> fractional (row, column) of its projection on the slice."""
        solved = offset_lps_mm @ self._to_steps
        return solved[..., 0], solved[..., 1]

    @cached_property
    def _to_steps(self) -> FloatArray:
        """(3, 2) takes mm to rows and columns."""
        steps = np.stack([self.row_step_lps_mm, self.column_step_lps_mm], axis=1)
        return np.asarray(np.linalg.pinv(steps).T)

    def nearest_slice(self, point_lps_mm: npt.ArrayLike) -> tuple[int, float]:
        """(slice nearest to the point along the normal, distance in mm)."""
        away = np.abs(self.positions_mm - np.asarray(point_lps_mm, dtype=np.float64) @ self.normal_lps)
        nearest = int(np.argmin(away))
        return nearest, float(away[nearest])

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"Geometry(shape={self.shape}, spacing_mm={spacing}, shear_deg={self.shear_deg:.2f})"


def unit(vector: Any) -> FloatArray:
    """The vector at length 1. Raises GeometryError for a zero or non-finite vector."""
    value = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(value))
    if not np.isfinite(length) or length < 1e-12:
        raise GeometryError(f"a direction needs a length, found {value.tolist()}")
    return np.asarray(value / length)
