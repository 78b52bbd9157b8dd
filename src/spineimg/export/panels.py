"""Slices through a volume as a reader wants to see them: patient's right on the left, head up, anterior up in axial.

A panel is laid out in LPS mm and sampled from the native voxels, so it looks the same for any patient position, file
order, handedness or gantry tilt. Where the volume holds nothing - outside, in a gap between slices, pixel padding - a
panel holds nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError, PixelError
from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.volume import CTVolume, HUArray

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
_RIGHT = np.array([1.0, 0.0, 0.0])
_BACK = np.array([0.0, 1.0, 0.0])
_DOWN = np.array([0.0, 0.0, -1.0])

_ASTRAY_MM = 1e-3
"""Rows that leave a slice's row by less than this over the whole picture run along it."""
_SNAP = 1e-6
"""A fractional index this near to a whole one is that voxel, whatever rounding made of it."""


@dataclass(frozen=True, eq=False, slots=True)
class View:
    """A rectangle in space to be looked at.

    center_lps_mm, right_lps, down_lps: (3,); the last two are unit vectors at right angles, along which the picture's
    columns and rows run. size_mm: (width, height). slice_index: the original slice to show without interpolation
    between slices; None samples the plane itself.
    """

    center_lps_mm: FloatArray
    right_lps: FloatArray
    down_lps: FloatArray
    size_mm: tuple[float, float]
    slice_index: int | None = None

    def on_view(self, point_lps_mm: npt.ArrayLike) -> FloatArray:
        """(..., 3) LPS mm -> (..., 2) mm to the right of and below the centre, projected on the view."""
        offset = np.asarray(point_lps_mm, dtype=np.float64) - self.center_lps_mm
        return np.stack([offset @ self.right_lps, offset @ self.down_lps], axis=-1)

    def on_view_direction(self, direction_lps: npt.ArrayLike) -> FloatArray:
        """(3,) direction -> (2,) its parts to the right and down."""
        direction = np.asarray(direction_lps, dtype=np.float64)
        return np.array([direction @ self.right_lps, direction @ self.down_lps])

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Where the left, right, upper and lower edge point in the patient: R, L, A, P, H or F."""
        return (letter(-self.right_lps), letter(self.right_lps), letter(-self.down_lps), letter(self.down_lps))


def letter(direction_lps: FloatArray) -> str:
    """The letter of the patient axis nearest to a direction."""
    axis = int(np.argmax(np.abs(direction_lps)))
    return _LETTERS[axis][int(direction_lps[axis] > 0)]


def sagittal(center_lps_mm: FloatArray, size_mm: tuple[float, float]) -> View:
    """Seen from the patient's left: anterior on the left, head up."""
    return View(center_lps_mm, _BACK, _DOWN, size_mm)


def coronal(center_lps_mm: FloatArray, size_mm: tuple[float, float]) -> View:
    """Seen from the front: patient's right on the left, head up."""
    return View(center_lps_mm, _RIGHT, _DOWN, size_mm)


def facing(
    normal_lps: FloatArray, center_lps_mm: FloatArray, size_mm: tuple[float, float], slice_index: int | None = None
) -> View:
    """The view onto a plane of any tilt, turned as the sagittal, coronal or axial view nearest to it."""
    usual = ((_BACK, _DOWN), (_RIGHT, _DOWN), (_RIGHT, _BACK))[int(np.argmax(np.abs(normal_lps)))]
    normal = unit(normal_lps)
    right = unit(usual[0] - (usual[0] @ normal) * normal)
    down = np.cross(normal, right)
    return View(center_lps_mm, right, down if down @ usual[1] > 0 else -down, size_mm, slice_index)


def sample(
    volume: CTVolume, views: Sequence[View], step_mm: Sequence[float], slice_step_mm: float
) -> list[npt.NDArray[np.float32]]:
    """One picture a view, (rows, columns) HU with square pixels of step_mm; nan where the volume holds nothing.

    Each slice that any view touches is read once, and only the part a view needs is kept. A view across slices leaves
    out slices closer together than slice_step_mm; a view near to the slices' own plane uses every one. A single view
    whose rows run along those of the slices, such as an axial one of a tilted scan, is sampled row by row.
    """
    if len(views) == 1 and slice_step_mm == 0.0:
        picture = _by_rows(volume, views[0], step_mm[0])
        if picture is not None:
            return [picture]
    requests = [_request(volume.geometry, view, step, slice_step_mm) for view, step in zip(views, step_mm, strict=True)]
    for k in sorted({k for request in requests for k in request.slices}):
        wanted = [request for request in requests if k in request.slices]
        try:
            hu = volume.read(k)
        except PixelError:  # a slice that cannot be read leaves a blank band, not a figure that fails
            continue
        for request in wanted:
            window: HUArray = hu[request.rows, request.columns]
            seen = np.where(volume.valid(k, window), window, np.float32(np.nan))
            request.box[request.slices.index(k)] = seen
    return [_picture(request) for request in requests]


@dataclass(frozen=True, eq=False, slots=True)
class _Request:
    """What a view needs of a volume: some slices, a window of rows and columns, and where in them to sample."""

    slices: list[int]
    rows: slice
    columns: slice
    box: npt.NDArray[np.float32]
    """(slices, rows, columns) of the window, filled while reading."""
    at: FloatArray
    """(3, height, width) position of each picture element in `box`."""
    inside: npt.NDArray[np.bool_]


def _request(geometry: Geometry, view: View, step_mm: float, slice_step_mm: float) -> _Request:
    points = _grid(view, step_mm)
    index = _index(geometry, view, points)
    inside = np.ones(index.shape[:2], dtype=np.bool_)
    for axis, count in enumerate(geometry.shape):
        inside &= (index[..., axis] > -0.5) & (index[..., axis] < count - 0.5)
    for gap in geometry.gaps if view.slice_index is None else ():
        place = points @ geometry.normal_lps
        inside &= (place <= gap.start_mm) | (place >= gap.end_mm)
    if not inside.any():
        nothing = np.zeros((0, 0, 0), dtype=np.float32)
        return _Request([], slice(0), slice(0), nothing, np.moveaxis(index, -1, 0), inside)
    index = np.clip(index, 0, np.array(geometry.shape) - 1)
    low = np.floor(index[inside].min(axis=0)).astype(int)
    high = np.ceil(index[inside].max(axis=0)).astype(int)
    across = abs(np.cross(view.right_lps, view.down_lps) @ geometry.normal_lps) < 0.5
    stride = max(1, int(slice_step_mm / geometry.spacing_mm[0])) if across and geometry.shape[0] > 1 else 1
    slices = sorted({*range(low[0], high[0] + 1, stride), int(high[0])})
    rows, columns = slice(low[1], high[1] + 1), slice(low[2], high[2] + 1)
    box = np.full((len(slices), high[1] + 1 - low[1], high[2] + 1 - low[2]), np.nan, dtype=np.float32)
    nth = np.interp(index[..., 0], slices, np.arange(len(slices)))
    at = np.stack([nth, index[..., 1] - low[1], index[..., 2] - low[2]])
    return _Request(slices, rows, columns, box, at, inside)


def _grid(view: View, step_mm: float) -> FloatArray:
    """(height, width, 3) LPS mm of the centres of the picture's elements."""
    right, down = _places(view, step_mm)
    return np.asarray(view.center_lps_mm + right[None, :, None] * view.right_lps + down[:, None, None] * view.down_lps)


def _places(view: View, step_mm: float) -> list[FloatArray]:
    """mm to the right of and below the centre: (width,) of the picture's columns, (height,) of its rows."""
    counts = (max(1, round(size / step_mm)) for size in view.size_mm)
    return [np.asarray((np.arange(count) - (count - 1) / 2) * step_mm) for count in counts]


def _by_rows(volume: CTVolume, view: View, step_mm: float) -> npt.NDArray[np.float32] | None:
    """The picture of a view whose rows run along the rows of the slices; None for any other.

    Then a row of the picture lies between two slices and two of their rows all along, and whole rows are added up: the
    same trilinear interpolation as for other views, thirty times as fast.
    """
    geometry, column = volume.geometry, volume.geometry.column_step_lps_mm
    right, down = _places(view, step_mm)
    starts = view.center_lps_mm + right[0] * view.right_lps + down[:, None] * view.down_lps
    index = geometry.index_at(starts)
    per_mm = float(view.right_lps @ column) / float(column @ column)
    astray = (view.right_lps - per_mm * column) * (right[-1] - right[0])
    if view.slice_index is not None or np.abs(astray).max() > _ASTRAY_MM or np.ptp(index[:, 2]) > _ASTRAY_MM:
        return None
    columns = index[0, 2] + per_mm * (right - right[0])
    inside = np.ones(len(starts), dtype=np.bool_)
    for axis, count in enumerate(geometry.shape[:2]):
        inside &= (index[:, axis] > -0.5) & (index[:, axis] < count - 0.5)
    place = starts @ geometry.normal_lps
    for gap in geometry.gaps:
        inside &= (place <= gap.start_mm) | (place >= gap.end_mm)
    within = (columns > -0.5) & (columns < geometry.shape[2] - 0.5)
    rows = _rows(volume, np.clip(index[:, :2], 0, np.array(geometry.shape[:2]) - 1), inside)
    picture = _between(rows, np.clip(columns, 0, geometry.shape[2] - 1), axis=1)
    return np.where(inside[:, None] & within, picture, np.float32(np.nan))


def _rows(volume: CTVolume, at: FloatArray, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """(n, columns) HU along rows of the volume. at: (n, 2) fractional slice and row, read where `inside`."""
    found = np.zeros((len(at), volume.geometry.shape[2]), dtype=np.float32)
    low = np.floor(at[inside, 0])
    for k in np.unique(np.concatenate([low, np.ceil(at[inside, 0])])).astype(int):
        weight = np.maximum(0.0, 1.0 - np.abs(at[:, 0] - k)).astype(np.float32)
        here = np.flatnonzero(inside & (weight > 0))
        try:
            hu = volume.read(k)
        except PixelError:  # a blank band, not a picture that fails
            found[here] = np.nan
            continue
        first = int(at[here, 1].min())
        window: HUArray = hu[first : int(np.ceil(at[here, 1].max())) + 1]
        valid = volume.valid(k, window)
        seen = window if valid.all() else np.where(valid, window, np.float32(np.nan))
        found[here] += weight[here, None] * _between(seen, at[here, 1] - first, axis=0)
    return found


def _between(values: HUArray, at: FloatArray, axis: int) -> npt.NDArray[np.float32]:
    """`values` at fractional places along an axis, linearly; the places lie within."""
    whole = np.rint(at)
    at = np.where(np.abs(at - whole) < _SNAP, whole, at)
    low = np.floor(at).astype(np.intp)
    part = (at - low).astype(np.float32)
    lower = np.take(values, low, axis=axis).astype(np.float32)
    if not part.any():
        return lower
    shape = (-1, 1) if axis == 0 else (1, -1)
    upper = np.take(values, np.minimum(low + 1, values.shape[axis] - 1), axis=axis)
    return np.asarray(lower + part.reshape(shape) * (upper - lower), dtype=np.float32)


def _index(geometry: Geometry, view: View, points: FloatArray) -> FloatArray:
    """(height, width, 3) fractional (slice, row, column) of the picture's elements."""
    if view.slice_index is None:
        try:
            index_from_lps = np.linalg.inv(geometry.lps_from_index)
        except GeometryError:
            return geometry.index_at(points)
        return np.asarray(points @ index_from_lps[:3, :3].T + index_from_lps[:3, 3])
    row, column = geometry.in_plane(points - geometry.origins_lps_mm[view.slice_index])
    return np.stack([np.full_like(row, view.slice_index), row, column], axis=-1)


def _picture(request: _Request) -> npt.NDArray[np.float32]:
    from scipy.ndimage import map_coordinates

    if not request.slices:
        return np.full(request.inside.shape, np.nan, dtype=np.float32)
    values = map_coordinates(request.box, request.at, order=1, mode="nearest", prefilter=False)
    return np.where(request.inside, values, np.float32(np.nan))
