"""The voxels of one label: cut out of its map, looked up anywhere, brought to the voxels of a CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry
from spineimg.rois import LabelVolume

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_SAME_MM = 0.01
"""Two grids whose voxels lie nearer than this are one."""


@dataclass(frozen=True, eq=False, slots=True)
class LabelBlock:
    """A label cut out of a grid: voxel [0, 0, 0] of `voxels` is (slice, row, column) `corner` of the grid."""

    corner: IntArray
    voxels: BoolArray

    @property
    def slices(self) -> IntArray:
        """Slices of the grid that hold the label."""
        return np.asarray(np.flatnonzero(self.voxels.any(axis=(1, 2))) + self.corner[0])

    def holds(self, own: Geometry, points_lps_mm: FloatArray) -> BoolArray:
        """(...) whether the voxel of the label's grid `own` that is nearest to each point (..., 3) is of the label."""
        at = np.floor(own.index_at(points_lps_mm) + 0.5).astype(np.intp) - self.corner
        inside = np.all((at >= 0) & (at < self.voxels.shape), axis=-1)
        held = np.zeros(inside.shape, dtype=bool)
        held[inside] = self.voxels[tuple(at[inside].T)]
        return held


def cut_out(labels: LabelVolume, label: int) -> LabelBlock | None:
    """The label on its own grid; None when it does not occur."""
    if label not in labels.spans:
        return None
    first, last = labels.spans[label]
    planes = {k: labels.source.read(k) == label for k in range(first, last + 1)}
    voxels = np.zeros((last - first + 1, *labels.geometry.shape[1:]), dtype=bool)
    for k, plane in planes.items():
        voxels[k - first] = plane
    return trimmed(np.array([first, 0, 0]), voxels)


def trimmed(corner: IntArray, voxels: BoolArray) -> LabelBlock:
    """The smallest block that holds all voxels of the label, of which there is at least one."""
    at = np.argwhere(voxels)
    low, high = at.min(axis=0), at.max(axis=0) + 1
    return LabelBlock(corner + low, voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].copy())


def same_grid(first: Geometry, second: Geometry) -> bool:
    if first.shape != second.shape:
        return False
    far = [(k, r, c) for k in (0, first.shape[0] - 1) for r in (0, first.shape[1]) for c in (0, first.shape[2])]
    apart = first.lps_at(far) - second.lps_at(far)
    even = np.abs(first.origins_lps_mm - second.origins_lps_mm).max() < _SAME_MM
    return bool(even and np.abs(apart).max() < _SAME_MM)


def on_grid(geometry: Geometry, own: Geometry, stored: LabelBlock) -> LabelBlock | None:
    """The label on the voxels of the CT: each takes the nearest voxel of the label's grid. None when none is hit."""
    shape = np.array(stored.voxels.shape)
    corners = stored.corner - 0.5 + shape * np.array(list(np.ndindex(2, 2, 2)))
    reach = geometry.index_at(own.lps_at(corners))
    low = np.clip(np.floor(reach.min(axis=0)) - 1, 0, geometry.shape).astype(np.intp)
    high = np.clip(np.ceil(reach.max(axis=0)) + 2, 0, geometry.shape).astype(np.intp)
    if (high <= low).any():
        return None
    voxels = np.zeros(high - low, dtype=bool)
    rows, columns = np.meshgrid(np.arange(low[1], high[1]), np.arange(low[2], high[2]), indexing="ij")
    for k in range(low[0], high[0]):
        points = geometry.lps_at(np.stack([np.full(rows.shape, k), rows, columns], axis=-1))
        at = np.floor(own.index_at(points) + 0.5).astype(np.intp) - stored.corner
        hit = np.all((at >= 0) & (at < shape), axis=-1)
        voxels[k - low[0]][hit] = stored.voxels[tuple(at[hit].T)]
    return trimmed(low, voxels) if voxels.any() else None
