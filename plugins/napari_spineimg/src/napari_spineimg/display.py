"""How a CT lies in napari's world.

napari's world has the axes (down from the head, back, left) in mm: (-z, y, x) of LPS. Its first axis is scrolled
through, its second runs down and its third runs right on the screen, so that an axial picture shows the patient's right
on the viewer's left, and sagittal and coronal pictures have the head up, whatever the order in which slices, rows and
columns are stored. Series whose voxels lie along these axes are shown voxel by voxel; others (gantry tilt, oblique or
uneven slices) are resampled for display, slice by slice. Measurements never see what is resampled here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from spineimg.errors import GeometryError, PixelError
from spineimg.export.panels import View, coronal, facing, sagittal, sample
from spineimg.geometry import FloatArray, Geometry
from spineimg.volume import CTVolume

_WORLD_FROM_LPS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
_DRIFT_MM = 0.05
"""Voxels that leave napari's axes by less than this over the whole volume lie along them."""
_KEPT_PLANES = 32
_SAME_MM = 1e-3


def world_from_lps(point_lps_mm: npt.ArrayLike) -> FloatArray:
    """(..., 3) LPS mm -> (..., 3) napari world."""
    return np.asarray(point_lps_mm, dtype=np.float64) @ _WORLD_FROM_LPS.T


def lps_from_world(point: npt.ArrayLike) -> FloatArray:
    """(..., 3) napari world -> (..., 3) LPS mm."""
    return np.asarray(point, dtype=np.float64) @ _WORLD_FROM_LPS


@dataclass(frozen=True, eq=False)
class Display:
    """What napari shows: `data[i]` lies at `translate + scale * i` in the world. `exact`: voxel by voxel."""

    data: Any
    scale: FloatArray
    translate: FloatArray
    exact: bool

    @property
    def slice_mm(self) -> float:
        return float(abs(self.scale[0]))


def display_of(volume: CTVolume) -> Display:
    """The volume as napari shows it."""
    straight = _straight(volume.geometry)
    if straight is not None:
        return Display(SliceStack(volume), *straight, exact=True)
    stack = ResampledStack(volume)
    return Display(stack, stack.scale, stack.translate, exact=False)


def _straight(geometry: Geometry) -> tuple[FloatArray, FloatArray] | None:
    """(scale, translate) of voxels along the world's axes, in their own order; None when they do not lie so."""
    try:
        affine = geometry.lps_from_index
    except GeometryError:
        return None
    linear = _WORLD_FROM_LPS @ affine[:3, :3]
    scale = np.diag(linear).copy()
    drift = np.abs((linear - np.diag(scale)) * np.array(geometry.shape))
    if drift.max() > _DRIFT_MM or np.abs(scale).min() < 1e-6:
        return None
    return scale, world_from_lps(affine[:3, 3])


class _Stack:
    """What napari asks of an array: slices by number, read when asked for."""

    ndim = 3
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def plane(self, axis: int, at: int) -> npt.NDArray[Any]:
        """The picture across `axis` at number `at`."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        if Ellipsis in parts:
            parts = tuple(slice(None) if part is Ellipsis else part for part in parts)
        parts = (*parts, *(slice(None),) * (3 - len(parts)))
        whole = [axis for axis, part in enumerate(parts) if not isinstance(part, slice)]
        axis = whole[0] if whole else 0
        rest = tuple(part for n, part in enumerate(parts) if n != axis)
        if whole:
            return self.plane(axis, self._number(axis, parts[axis]))[rest]
        numbers = range(*parts[0].indices(self.shape[0]))
        return np.stack([self.plane(0, number)[rest] for number in numbers])

    def _number(self, axis: int, part: Any) -> int:
        number = int(part)
        count = self.shape[axis]
        if not -count <= number < count:
            raise IndexError(f"{number} of {count}")
        return number % count

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __len__(self) -> int:
        return self.shape[0]


class SliceStack(_Stack):
    """The voxels themselves. A slice that cannot be read is black; whoever measures there is told."""

    def __init__(self, volume: CTVolume) -> None:
        self._volume = volume
        self.shape = volume.geometry.shape
        self.dtype = np.dtype(np.float32)

    def plane(self, axis: int, at: int) -> npt.NDArray[Any]:
        if axis == 0:
            return self._slice(at).astype(np.float32)
        take = (at, slice(None)) if axis == 1 else (slice(None), at)
        return np.stack([self._slice(k)[take] for k in range(self.shape[0])]).astype(np.float32)

    def _slice(self, k: int) -> npt.NDArray[Any]:
        try:
            return self._volume.read(k)
        except PixelError:
            return np.full(self.shape[1:], -1024, dtype=np.int16)


class ResampledStack(_Stack):
    """Planes through a volume whose voxels do not lie along the world's axes, resampled one at a time, some kept."""

    def __init__(self, volume: CTVolume) -> None:
        geometry = volume.geometry
        self._volume = volume
        self.dtype = np.dtype(np.float32)
        step = min(geometry.spacing_mm[1:])
        apart = geometry.spacing_mm[0] if geometry.shape[0] > 1 else step
        self._stride = max(1, round(apart / step))
        self._step_mm = step
        self.scale = np.array([step * self._stride, step, step])
        low, high = _box(geometry)
        count = np.maximum(1, np.ceil((high - low) / self.scale - 1e-6).astype(int) + 1)
        self.shape = (int(count[0]), int(count[1]), int(count[2]))
        self.translate = low
        self._kept: OrderedDict[tuple[int, int], npt.NDArray[np.float32]] = OrderedDict()

    def plane(self, axis: int, at: int) -> npt.NDArray[Any]:
        key = (axis, at)
        if key not in self._kept:
            self._kept[key] = self._sampled(axis, at)
            while len(self._kept) > _KEPT_PLANES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def kept_axial(self, place: float) -> npt.NDArray[np.float32] | None:
        """The axial plane at a world coordinate, where it is one of the stack's and was resampled lately."""
        at = (place - self.translate[0]) / self.scale[0]
        return self._kept.get((0, round(at))) if abs(at - round(at)) * self.scale[0] < _SAME_MM else None

    def _sampled(self, axis: int, at: int) -> npt.NDArray[np.float32]:
        count = np.array(self.shape)
        count[0] = (count[0] - 1) * self._stride + 1
        middle = self.translate + (count - 1) / 2 * self._step_mm
        middle[axis] = self.translate[axis] + at * self.scale[axis]
        center = lps_from_world(middle)
        size = [float(n * self._step_mm) for n in count]
        view: View
        if axis == 0:
            view = facing(np.array([0.0, 0.0, 1.0]), center, (size[2], size[1]))
        elif axis == 1:
            view = coronal(center, (size[2], size[0]))
        else:
            view = sagittal(center, (size[1], size[0]))
        picture = sample(self._volume, [view], [self._step_mm], 0.0)[0]
        return picture if axis == 0 else picture[:: self._stride]


def _box(geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest world coordinates of voxel centres."""
    _, rows, columns = geometry.shape
    corners = [
        geometry.origins_lps_mm + r * geometry.row_step_lps_mm + c * geometry.column_step_lps_mm
        for r in (0, rows - 1)
        for c in (0, columns - 1)
    ]
    world = world_from_lps(np.concatenate(corners))
    return world.min(axis=0), world.max(axis=0)
