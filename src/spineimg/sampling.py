"""An ellipse on a plane -> the voxels or samples that it covers.

A plane that lies in the original slices is measured on their voxels without interpolation; any other plane is resampled
by trilinear interpolation of the native voxels, between slices by their own positions. What lies beyond the image, is
padding or is not finite counts as covered and is never a value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spineimg.errors import RoiError
from spineimg.geometry import FloatArray, Geometry
from spineimg.rois import Ellipse
from spineimg.settings import setting
from spineimg.volume import CTVolume, HUArray, KeptSlices

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_EDGE = 1e-9
"""Slack of the inclusion rule, so that a centre exactly on the ellipse belongs."""
_SNAP = 1e-6
"""A fractional index this near to a whole one is that voxel: rounding must not make a slice contribute."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """When a plane counts as an original slice, and how far apart slices may be for resampling."""

    in_plane_deg: float = setting(
        1.0,
        "degree",
        (0.0, 5.0),
        "engineering choice: at the rim of a body 50 mm wide 1 degree moves the plane by 0.4 mm",
        "Largest tilt of an ellipse that is still measured on original slices.",
    )
    max_step_mm: float = setting(
        5.0,
        "mm",
        (0.5, 10.0),
        "engineering choice: slices over 5 mm are rejected for HU measurement",
        "Largest slice step between which a tilted plane is resampled.",
    )


class PlaneRefusedError(RoiError):
    """A plane that cannot be measured. `code` is the code of the note that says so."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


_ROOM = 32
"""Pixels: what is read around a ROI, for planes near it, and metal beside it, need nearly the same part of a slice."""


class SliceReader:
    """Reads each slice of a volume once. Make one for each vertebra, so that memory stays bounded."""

    def __init__(self, volume: CTVolume) -> None:
        self._kept = KeptSlices.of(volume)
        self.volume = replace(volume, source=self._kept)

    def window(self, k: int, rows: slice, columns: slice, room: int = 0) -> HUArray:
        """A cut-out of slice k; nan where there is no measurement. room: so many more pixels around may be read."""
        ends = [one.indices(count) for one, count in zip((rows, columns), self.volume.geometry.shape[1:], strict=True)]
        whole = [slice(first, max(first, last)) for first, last, _ in ends]
        hu = self._kept.read_window(k, whole[0], whole[1], room)[:: ends[0][2], :: ends[1][2]]
        valid = self.volume.valid(k, hu)
        return hu if valid.all() else np.where(valid, hu, np.float32(np.nan))

    def values(self, k: int, rows: IntArray, columns: IntArray) -> FloatArray:
        """(n,) HU of voxels (k, row, column), which lie in the image; nan where there is no measurement."""
        if not len(rows):
            return np.zeros(0)
        first, left = int(rows.min()), int(columns.min())
        window = self.window(k, slice(first, int(rows.max()) + 1), slice(left, int(columns.max()) + 1), _ROOM)
        return window[rows - first, columns - left].astype(np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class PlaneSamples:
    """What one ROI covers on one plane: voxels of a slice, or samples of a resampled plane.

    points_lps_mm: (n, 3), every covered place, also beyond the image.
    hu: (n,), nan where there is no measurement.
    inside: (n,), True where the place lies in the volume.
    slices: indices of the original slices that contribute.
    nearest_slice: the original slice nearest to the centre of the ROI.
    """

    points_lps_mm: FloatArray
    hu: FloatArray
    inside: BoolArray
    slices: tuple[int, ...]
    nearest_slice: int
    resampled: bool
    sample_area_mm2: float

    @property
    def valid(self) -> BoolArray:
        return ~np.isnan(self.hu)


def sample_ellipse(
    reader: SliceReader, ellipse: Ellipse, plane: str = "endplate", settings: SamplingSettings | None = None
) -> PlaneSamples:
    """The voxels or samples that an ellipse covers.

    plane: "scanner" refuses an ellipse that is tilted to the slices; "endplate" resamples it.
    Raises PlaneRefusedError for a plane that cannot be measured and PixelError for slices that cannot be read.
    """
    limits = settings or SamplingSettings()
    geometry = reader.volume.geometry
    if geometry.shape[0] < 2:
        raise PlaneRefusedError("roi_outside_volume", "a single slice is no volume: the ROI has no place in it")
    tilt = tilt_deg(geometry, ellipse)
    if tilt <= limits.in_plane_deg:
        return _on_slice(reader, ellipse)
    if plane == "scanner":
        raise PlaneRefusedError(
            "roi_tilted",
            f"the ellipse is tilted {tilt:.1f}° to the slices (limit {limits.in_plane_deg:g}°), "
            "and planes other than original slices were excluded: place it on a slice, or allow resampled planes",
        )
    return _on_resampled_plane(reader, ellipse, limits)


def tilt_deg(geometry: Geometry, ellipse: Ellipse) -> float:
    """The larger of the angles between the semi-axes of an ellipse and the slice plane, degrees."""
    steepest = max(abs(float(axis @ geometry.normal_lps)) for axis in (ellipse.u_lps, ellipse.v_lps))
    return float(np.degrees(np.arcsin(min(1.0, steepest))))


# -- original slices ----------------------------------------------------------------------------------------------


def _on_slice(reader: SliceReader, ellipse: Ellipse) -> PlaneSamples:
    geometry = reader.volume.geometry
    k = _slice_of(geometry, ellipse.center_lps_mm)
    rows, columns = _lattice_box(geometry, k, ellipse)
    origin = geometry.origins_lps_mm[k]
    points = origin + rows[..., None] * geometry.row_step_lps_mm + columns[..., None] * geometry.column_step_lps_mm
    offset = points - ellipse.center_lps_mm
    a, b = ellipse.semi_axes_mm
    covered = (offset @ ellipse.u_lps / a) ** 2 + (offset @ ellipse.v_lps / b) ** 2 <= 1 + _EDGE
    rows, columns = rows[covered], columns[covered]
    inside = (rows >= 0) & (rows < geometry.shape[1]) & (columns >= 0) & (columns < geometry.shape[2])
    hu = np.full(len(rows), np.nan)
    if inside.any():
        hu[inside] = reader.values(k, rows[inside], columns[inside])
    return PlaneSamples(
        points_lps_mm=points[covered],
        hu=hu,
        inside=inside,
        slices=(k,),
        nearest_slice=k,
        resampled=False,
        sample_area_mm2=voxel_area_mm2(geometry),
    )


def voxel_area_mm2(geometry: Geometry) -> float:
    """Area of a voxel in the slice plane, mm²."""
    return float(np.linalg.norm(np.cross(geometry.row_step_lps_mm, geometry.column_step_lps_mm)))


def _lattice_box(geometry: Geometry, k: int, ellipse: Ellipse) -> tuple[IntArray, IntArray]:
    """Rows and columns, as two arrays of one shape, of the lattice points of slice k around an ellipse."""
    row, column = geometry.in_plane(ellipse.center_lps_mm - geometry.origins_lps_mm[k])
    a, b = ellipse.semi_axes_mm
    across = [geometry.in_plane(axis * length) for axis, length in ((ellipse.u_lps, a), (ellipse.v_lps, b))]
    box = []
    for at, parts in ((row, (across[0][0], across[1][0])), (column, (across[0][1], across[1][1]))):
        # An ellipse of tilt below 1 degree: one lattice point of slack covers what the projection leaves out.
        reach = float(np.hypot(*parts)) + 1
        box.append(np.arange(int(np.floor(at - reach)), int(np.ceil(at + reach)) + 1, dtype=np.intp))
    rows, columns = np.meshgrid(*box, indexing="ij")
    return rows, columns


def _slice_of(geometry: Geometry, center_lps_mm: FloatArray) -> int:
    """The slice nearest to a centre. Raises PlaneRefusedError when the centre lies in a gap or beyond the volume."""
    k, away = geometry.nearest_slice(center_lps_mm)
    side = float(center_lps_mm @ geometry.normal_lps) - geometry.positions_mm[k]
    ascending = geometry.positions_mm[-1] > geometry.positions_mm[0]
    beyond = k + 1 if (side > 0) == ascending else k - 1
    between = min(k, beyond)
    at_end = not 0 <= beyond < geometry.shape[0]
    if at_end:
        between = 0 if beyond < 0 else geometry.shape[0] - 2
    if away <= geometry.usual_steps_mm[between] / 2 + _SNAP:
        return k
    if at_end:
        raise PlaneRefusedError(
            "roi_outside_volume",
            f"the centre of the ROI lies {away:.1f} mm beyond the {'first' if k == 0 else 'last'} slice of the volume",
        )
    if between in {gap.after for gap in geometry.gaps}:
        raise PlaneRefusedError("roi_in_gap", f"the centre of the ROI lies in {_gap_text(geometry, between)}")
    return k


def _gap_text(geometry: Geometry, after: int) -> str:
    low, high = sorted(geometry.positions_mm[after : after + 2])
    return (
        f"a gap between slices {after} and {after + 1} (counted from 0), "
        f"{low:.1f} to {high:.1f} mm along the slice normal"
    )


# -- resampled planes ---------------------------------------------------------------------------------------------


def _on_resampled_plane(reader: SliceReader, ellipse: Ellipse, limits: SamplingSettings) -> PlaneSamples:
    geometry = reader.volume.geometry
    step = min(geometry.spacing_mm[1:])
    points = _plane_grid(ellipse, step)
    index = geometry.index_at(points)
    whole = np.round(index)
    index = np.where(np.abs(index - whole) < _SNAP, whole, index)
    within: BoolArray = (index >= 0) & (index <= np.array(geometry.shape) - 1)
    inside = np.all(within, axis=1)
    _refuse_wide_steps(geometry, index[within[:, 0], 0], limits)
    hu = np.full(len(points), np.nan)
    slices: tuple[int, ...] = ()
    if inside.any():
        hu[inside], slices = _trilinear(reader, index[inside])
    return PlaneSamples(
        points_lps_mm=points,
        hu=hu,
        inside=inside,
        slices=slices,
        nearest_slice=geometry.nearest_slice(ellipse.center_lps_mm)[0],
        resampled=True,
        sample_area_mm2=step**2,
    )


def _plane_grid(ellipse: Ellipse, step: float) -> FloatArray:
    """(n, 3) points in LPS mm on a square grid along u and v, one of them the centre, that the ellipse covers."""
    a, b = ellipse.semi_axes_mm
    ticks = [np.arange(-int(length / step) - 1, int(length / step) + 2) * step for length in (a, b)]
    x, y = np.meshgrid(*ticks, indexing="ij")
    covered = (x / a) ** 2 + (y / b) ** 2 <= 1 + _EDGE
    grid = ellipse.center_lps_mm + x[covered, None] * ellipse.u_lps + y[covered, None] * ellipse.v_lps
    return np.asarray(grid)


def _refuse_wide_steps(geometry: Geometry, k: FloatArray, limits: SamplingSettings) -> None:
    """Raises PlaneRefusedError when a sample lies between two slices that are too far apart to interpolate."""
    between = np.unique(np.floor(k[k % 1 > 0]).astype(np.intp))
    gaps = {gap.after for gap in geometry.gaps}
    for after in between:
        if int(after) in gaps:
            raise PlaneRefusedError("roi_in_gap", f"the plane passes through {_gap_text(geometry, int(after))}")
    wide = [int(after) for after in between if geometry.steps_mm[after] > limits.max_step_mm + _SNAP]
    if wide:
        raise PlaneRefusedError(
            "step_too_wide",
            f"the plane passes between slices {geometry.steps_mm[wide[0]]:.1f} mm apart, too far to interpolate "
            f"(limit {limits.max_step_mm:g} mm): place the ellipse on an original slice",
        )


def _trilinear(reader: SliceReader, index: FloatArray) -> tuple[FloatArray, tuple[int, ...]]:
    """(n,) HU at (n, 3) fractional indices inside the volume, nan where an invalid voxel has weight; slices used."""
    low = np.floor(index).astype(np.intp)
    part = index - low
    # The second voxel of an axis may lie beyond the image or be no measurement: without weight it is the first again.
    beside = (part > 0).astype(np.intp)
    touched = np.unique(np.concatenate([low[:, 0], low[:, 0] + beside[:, 0]]))
    first, last = low[:, 1:].min(axis=0), (low + beside)[:, 1:].max(axis=0) + 1
    box = [slice(*ends) for ends in zip(first, last, strict=True)]
    block = np.stack([reader.window(int(k), box[0], box[1], _ROOM) for k in touched])
    flat, (_, deep, wide) = block.ravel(), block.shape
    place = (np.searchsorted(touched, low[:, 0]) * deep + low[:, 1] - first[0]) * wide + low[:, 2] - first[1]
    further = beside * np.array([deep * wide, wide, 1])
    hu = np.zeros(len(index))
    for behind in (0, 1):
        on_slice = np.zeros(len(index))
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = np.abs(1 - down - part[:, 1]) * np.abs(1 - across - part[:, 2])
            on_slice += weight * flat[place + behind * further[:, 0] + down * further[:, 1] + across * further[:, 2]]
        hu += np.abs(1 - behind - part[:, 0]) * on_slice
    return hu, tuple(int(k) for k in touched)
