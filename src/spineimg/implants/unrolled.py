"""The voxels around a shaft in the shaft's own coordinates: depth, angle, distance from the axis.

Symbols: depth t runs from the head to the tip. Across the axis there are two frames: (x, y) along (b1, b2) of
`profile.cross_axes`, in which the blur is diagonal, and the angle of the unrolled map, 0 towards the patient's left,
90 towards the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.implants.metal_map import Windows
from spineimg.implants.model import Shaft
from spineimg.implants.profile import cross_axes

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class ShaftFrame:
    """Origin at the head. axis, b1, b2, left, up: (3,) unit vectors; left and up are at right angles to the axis."""

    head_lps_mm: FloatArray
    axis: FloatArray
    b1: FloatArray
    b2: FloatArray
    left: FloatArray
    up: FloatArray

    @classmethod
    def of(cls, shaft: Shaft, normal_lps: FloatArray) -> ShaftFrame:
        axis = shaft.direction_lps
        b1, b2 = cross_axes(axis, normal_lps)
        reference = np.array([1.0, 0.0, 0.0])
        if abs(axis[0]) > 0.95:
            reference = np.array([0.0, -1.0, 0.0])
        left = unit(reference - (reference @ axis) * axis)
        up = np.cross(axis, left)
        if up[2] < 0:
            up = -up
        return cls(np.asarray(shaft.head_lps_mm, dtype=np.float64), axis, b1, b2, left, up)


@dataclass(frozen=True, eq=False, slots=True)
class ShellVoxels:
    """Native voxels around a shaft, all (n,). points_lps_mm: (n, 3). angle_rad: 0-2 pi. slices: slice numbers."""

    points_lps_mm: FloatArray
    hu: FloatArray
    depth_mm: FloatArray
    x_mm: FloatArray
    y_mm: FloatArray
    angle_rad: FloatArray
    slices: IntArray

    @property
    def distance_mm(self) -> FloatArray:
        return np.asarray(np.hypot(self.x_mm, self.y_mm))

    def take(self, which: BoolArray | IntArray) -> ShellVoxels:
        return ShellVoxels(
            self.points_lps_mm[which],
            self.hu[which],
            self.depth_mm[which],
            self.x_mm[which],
            self.y_mm[which],
            self.angle_rad[which],
            self.slices[which],
        )


def shell_voxels(
    windows: Windows,
    shaft: Shaft,
    frame: ShaftFrame,
    reach_mm: tuple[float, float],
    depths_mm: tuple[float, float],
) -> ShellVoxels:
    """Voxels whose distance from the axis and depth lie in the two ranges. Empty when the shaft is off the volume.

    Raises what reading a slice raises.
    """
    geometry = windows.geometry
    ends = np.stack([frame.head_lps_mm + t * frame.axis for t in depths_mm])
    parts = []
    for k in _slices(geometry, ends, reach_mm[1]):
        found = _voxels_of_slice(windows, int(k), frame, ends, reach_mm, depths_mm)
        if found is not None:
            parts.append(found)
    if not parts:
        nothing = np.zeros(0)
        return ShellVoxels(np.zeros((0, 3)), *(nothing,) * 5, np.zeros(0, dtype=np.intp))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return ShellVoxels(*columns)


def _slices(geometry: Geometry, ends: FloatArray, reach: float) -> IntArray:
    places = ends @ geometry.normal_lps
    near = (geometry.positions_mm >= places.min() - reach) & (geometry.positions_mm <= places.max() + reach)
    return np.flatnonzero(near)


def _voxels_of_slice(
    windows: Windows,
    k: int,
    frame: ShaftFrame,
    ends: FloatArray,
    reach_mm: tuple[float, float],
    depths_mm: tuple[float, float],
) -> tuple[FloatArray, ...] | None:
    geometry = windows.geometry
    row, column = geometry.in_plane(ends - geometry.origins_lps_mm[k])
    room = [reach_mm[1] / spacing + 1 for spacing in geometry.spacing_mm[1:]]
    rows = np.arange(max(0, int(row.min() - room[0])), min(geometry.shape[1], int(row.max() + room[0]) + 2))
    columns = np.arange(max(0, int(column.min() - room[1])), min(geometry.shape[2], int(column.max() + room[1]) + 2))
    if not len(rows) or not len(columns):
        return None
    start = geometry.origins_lps_mm[k] - frame.head_lps_mm
    places = [
        (start @ axis)
        + rows[:, None] * (geometry.row_step_lps_mm @ axis)
        + columns[None, :] * (geometry.column_step_lps_mm @ axis)
        for axis in (frame.axis, frame.b1, frame.b2)
    ]
    away = np.hypot(places[1], places[2])
    wanted = (away >= reach_mm[0]) & (away <= reach_mm[1]) & (places[0] >= depths_mm[0]) & (places[0] <= depths_mm[1])
    if not wanted.any():
        return None
    cut = windows.window(k, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    wanted &= np.isfinite(cut)
    r, c = np.nonzero(wanted)
    depth, x, y = (place[r, c] for place in places)
    points = (
        geometry.origins_lps_mm[k]
        + rows[r, None] * geometry.row_step_lps_mm
        + columns[c, None] * geometry.column_step_lps_mm
    )
    across = x[:, None] * frame.b1 + y[:, None] * frame.b2
    angle = np.mod(np.arctan2(across @ frame.up, across @ frame.left), 2 * np.pi)
    return points, cut[r, c].astype(np.float64), depth, x, y, angle, np.full(len(r), k, dtype=np.intp)


@dataclass(frozen=True, eq=False, slots=True)
class Cells:
    """Pieces of the unrolled surface: depths x angles."""

    first_mm: float
    depth_mm: float
    depths: int
    sectors: int

    @classmethod
    def cover(cls, depths_mm: tuple[float, float], depth_mm: float, sectors: int) -> Cells:
        """Pieces of about `depth_mm` that fill the range."""
        length = depths_mm[1] - depths_mm[0]
        count = max(1, round(length / depth_mm))
        return cls(depths_mm[0], length / count, count, sectors)

    @property
    def count(self) -> int:
        return self.depths * self.sectors

    @property
    def centers_mm(self) -> FloatArray:
        return np.asarray(self.first_mm + (np.arange(self.depths) + 0.5) * self.depth_mm)

    @property
    def centers_deg(self) -> FloatArray:
        return np.arange(self.sectors) * 360.0 / self.sectors

    def number(self, depth_mm: FloatArray, angle_rad: FloatArray) -> IntArray:
        """(n,) which piece; sector 0 is centred on angle 0."""
        row = np.clip(((depth_mm - self.first_mm) / self.depth_mm).astype(np.intp), 0, self.depths - 1)
        column = np.round(angle_rad / (2 * np.pi) * self.sectors).astype(np.intp) % self.sectors
        return np.asarray(row * self.sectors + column)

    def spread(self, values: FloatArray, depth_mm: FloatArray, angle_rad: FloatArray) -> FloatArray:
        """(n,) values (depths, angles) between the centres of the pieces, linear, round the circumference."""
        row = np.clip((depth_mm - self.first_mm) / self.depth_mm - 0.5, 0, self.depths - 1)
        column = angle_rad / (2 * np.pi) * self.sectors
        r0 = np.minimum(row.astype(np.intp), max(0, self.depths - 2))
        r1 = np.minimum(r0 + 1, self.depths - 1)
        c0 = column.astype(np.intp) % self.sectors
        c1 = (c0 + 1) % self.sectors
        pr, pc = row - r0, column % 1
        return np.asarray(
            values[r0, c0] * (1 - pr) * (1 - pc)
            + values[r0, c1] * (1 - pr) * pc
            + values[r1, c0] * pr * (1 - pc)
            + values[r1, c1] * pr * pc
        )
