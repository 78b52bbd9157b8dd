"""Where a phantom is looked at: stacks of parallel planes, or loose points, with one interface."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.integer[Any]]


class Samples(Protocol):
    """Points in LPS mm at which tissue is asked for. `shape` is the shape of every array about them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def along(self, direction_lps: FloatArray, origin_lps_mm: FloatArray) -> Field:
        """(*shape) distance of each point from `origin_lps_mm` along `direction_lps`, mm."""
        ...

    def within(self, bounds_lps_mm: FloatArray) -> tuple[Samples, Any] | None:
        """The points that may lie in the box (2, 3) and where they sit in arrays of this shape; None without any."""
        ...

    def picked(self, flat: Index) -> Samples:
        """The points at positions `flat` (n,) of a flattened array about these samples."""
        ...


@dataclass(frozen=True, eq=False)
class Points:
    """Loose points, (n, 3) LPS mm."""

    points_lps_mm: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.points_lps_mm),)

    def along(self, direction_lps: FloatArray, origin_lps_mm: FloatArray) -> Field:
        return np.asarray((self.points_lps_mm - origin_lps_mm) @ direction_lps, dtype=np.float32)

    def within(self, bounds_lps_mm: FloatArray) -> tuple[Samples, Any] | None:
        low, high = bounds_lps_mm
        if (self._reach[0] > high).any() or (self._reach[1] < low).any():
            return None
        inside = np.ones(self.shape, bool)
        for axis in range(3):
            at = self.points_lps_mm[:, axis]
            inside &= (at >= low[axis]) & (at <= high[axis])
        index = np.flatnonzero(inside)
        return (Points(self.points_lps_mm[index]), index) if len(index) else None

    def picked(self, flat: Index) -> Points:
        return Points(self.points_lps_mm[flat])

    @cached_property
    def _reach(self) -> FloatArray:
        """(2, 3) box around the points."""
        if not len(self.points_lps_mm):
            return np.array([[np.inf] * 3, [-np.inf] * 3])
        return np.stack([self.points_lps_mm.min(axis=0), self.points_lps_mm.max(axis=0)])


@dataclass(frozen=True, eq=False)
class Planes:
    """Parallel lattices: point (p, r, c) = origins[p] + r * row_step + c * column_step, r and c counted from 0.

    origins_lps_mm: (planes, 3), in any order; steps: (3,) mm; size: (rows, columns).
    """

    origins_lps_mm: FloatArray
    row_step_lps_mm: FloatArray
    column_step_lps_mm: FloatArray
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.origins_lps_mm), *self.size)

    def along(self, direction_lps: FloatArray, origin_lps_mm: FloatArray) -> Field:
        base, rows, columns = self.axes_along(direction_lps, origin_lps_mm)
        return np.asarray((base[:, None, None] + rows[:, None]) + columns)

    def axes_along(self, direction_lps: FloatArray, origin_lps_mm: FloatArray) -> tuple[Field, Field, Field]:
        """`along` as a sum: a share of each plane, each row and each column."""
        base = ((self.origins_lps_mm - origin_lps_mm) @ direction_lps).astype(np.float32)
        rows = (np.arange(self.size[0]) * (self.row_step_lps_mm @ direction_lps)).astype(np.float32)
        columns = (np.arange(self.size[1]) * (self.column_step_lps_mm @ direction_lps)).astype(np.float32)
        return base, rows, columns

    def within(self, bounds_lps_mm: FloatArray) -> tuple[Samples, Any] | None:
        middle, half = bounds_lps_mm.sum(axis=0) / 2, (bounds_lps_mm[1] - bounds_lps_mm[0]) / 2
        normal, in_plane = self._solver
        place = np.abs(self.origins_lps_mm @ normal - middle @ normal)
        hit = np.flatnonzero(place <= np.abs(normal) @ half)
        if not len(hit):
            return None
        first, last = int(hit[0]), int(hit[-1]) + 1
        start = self.origins_lps_mm[first:last] @ in_plane.T
        at, reach = in_plane @ middle, np.abs(in_plane) @ half
        low = np.maximum(np.ceil(at - reach - start.max(axis=0)), 0).astype(int)
        high = np.minimum(np.floor(at + reach - start.min(axis=0)) + 1, self.size).astype(int)
        if (high <= low).any():
            return None
        moved = self.origins_lps_mm[first:last] + low[0] * self.row_step_lps_mm + low[1] * self.column_step_lps_mm
        block = replace(self, origins_lps_mm=moved, size=(int(high[0] - low[0]), int(high[1] - low[1])))
        return block, np.s_[first:last, low[0] : high[0], low[1] : high[1]]

    @cached_property
    def _solver(self) -> tuple[FloatArray, FloatArray]:
        """Unit normal, and (2, 3) matrix from an offset in mm to (row, column)."""
        normal = np.cross(self.column_step_lps_mm, self.row_step_lps_mm)
        steps = np.stack([self.row_step_lps_mm, self.column_step_lps_mm], axis=1)
        return np.asarray(normal / np.linalg.norm(normal)), np.asarray(np.linalg.pinv(steps), dtype=np.float64)

    def picked(self, flat: Index) -> PlanePoints:
        plane, rest = np.divmod(flat, np.int32(self.size[0] * self.size[1]))
        row, column = np.divmod(rest, np.int32(self.size[1]))
        return PlanePoints(self, plane, row, column)


@dataclass(frozen=True, eq=False, slots=True)
class PlanePoints:
    """Some points of planes, by their (n,) indices: cheaper than their coordinates."""

    planes: Planes
    plane: Index
    row: Index
    column: Index

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plane.shape

    def along(self, direction_lps: FloatArray, origin_lps_mm: FloatArray) -> Field:
        base, rows, columns = self.planes.axes_along(direction_lps, origin_lps_mm)
        return np.asarray(base.take(self.plane) + rows.take(self.row) + columns.take(self.column))

    def within(self, bounds_lps_mm: FloatArray) -> tuple[Samples, Any] | None:
        low, high = bounds_lps_mm
        inside = np.ones(self.shape, bool)
        for axis in np.eye(3):
            at = self.along(axis, np.zeros(3))
            inside &= (at >= low @ axis) & (at <= high @ axis)
        index = np.flatnonzero(inside)
        return (self.picked(index), index) if len(index) else None

    def picked(self, flat: Index) -> PlanePoints:
        return PlanePoints(self.planes, self.plane.take(flat), self.row.take(flat), self.column.take(flat))


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """Axes of a vertebra: origin and unit vectors to the left, the back and the head, all (3,) LPS."""

    center_lps_mm: FloatArray
    left_lps: FloatArray
    posterior_lps: FloatArray
    cranial_lps: FloatArray

    @property
    def axes(self) -> FloatArray:
        """(3, 3) rows left, posterior, cranial."""
        return np.stack([self.left_lps, self.posterior_lps, self.cranial_lps])

    def lps(self, local_mm: npt.ArrayLike) -> FloatArray:
        """(..., 3) (left, posterior, cranial) mm -> (..., 3) LPS mm."""
        return np.asarray(self.center_lps_mm + np.asarray(local_mm, dtype=np.float64) @ self.axes)

    def local(self, samples: Samples) -> tuple[Field, Field, Field]:
        """Left, posterior and cranial coordinates of the samples, mm."""
        left, posterior, cranial = (samples.along(axis, self.center_lps_mm) for axis in self.axes)
        return left, posterior, cranial

    def box(self, low_mm: npt.ArrayLike, high_mm: npt.ArrayLike) -> FloatArray:
        """(2, 3) LPS box around a box in this frame."""
        sides = np.stack([np.asarray(low_mm, dtype=np.float64), np.asarray(high_mm, dtype=np.float64)])
        corners = self.lps(np.stack(np.meshgrid(*sides.T, indexing="ij"), axis=-1).reshape(8, 3))
        return np.stack([corners.min(axis=0), corners.max(axis=0)])


def joined(boxes: list[FloatArray]) -> FloatArray:
    """(2, 3) the box around boxes."""
    stack = np.stack(boxes)
    return np.stack([stack[:, 0].min(axis=0), stack[:, 1].max(axis=0)])
