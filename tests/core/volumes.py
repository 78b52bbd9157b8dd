"""Small volumes in memory with unfriendly geometry, whose HU follow a formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.errors import PixelError
from spineimg.geometry import Geometry, unit
from spineimg.rois import POSITIONS, Ellipse, VertebraRoi
from spineimg.volume import Acquisition, ArraySource, CTVolume, HUArray, Sharpness

FloatArray = npt.NDArray[np.float64]

UNENHANCED_120 = Acquisition(kvp=120.0, contrast=False, kernel="B30f", sharpness=Sharpness.SOFT, slice_thickness_mm=1.0)
"""An acquisition that gives no cause for a note."""
GRADIENT = np.array([1.7, -2.3, 3.1])
"""HU per mm along x, y and z of `linear` volumes: no two axes alike, so that none can be swapped unseen."""


def geometry(
    shape: tuple[int, int, int] = (24, 60, 72),
    steps_mm: tuple[float, float, float] = (1.5, 0.7, 0.9),
    *,
    column: tuple[float, float, float] = (1, 0, 0),
    row: tuple[float, float, float] = (0, 1, 0),
    shift_mm: float = 0.0,
    places_mm: FloatArray | None = None,
    descending: bool = False,
    left_handed: bool = False,
) -> Geometry:
    """A lattice around LPS (5, -8, 300).

    steps_mm: (slice, row, column). column, row: directions from one column, one row to the next. shift_mm: how far each
    slice moves along the row direction for each mm along the normal (gantry tilt). places_mm: uneven places of slices.
    """
    across, down = unit(column), unit(np.array(row) - np.dot(row, unit(column)) * unit(column))
    normal = np.cross(across, down)
    if left_handed:
        across = -across
    places = np.arange(shape[0]) * steps_mm[0] if places_mm is None else np.asarray(places_mm, dtype=float)
    places = places - places.mean()
    if descending:
        places = places[::-1]
    middle = np.array([5.0, -8.0, 300.0])
    half = down * steps_mm[1] * (shape[1] - 1) / 2 + across * steps_mm[2] * (shape[2] - 1) / 2
    origins = middle - half + places[:, None] * (normal + shift_mm * down)
    return Geometry(shape, origins, down * steps_mm[1], across * steps_mm[2])


GAP_PLACES = np.concatenate([np.arange(12) * 1.5, 11 * 1.5 + 6.0 + np.arange(12) * 1.5])
"""24 slices 1.5 mm apart, with a gap of 6 mm between slices 11 and 12."""
UNEVEN_PLACES = np.cumsum(1.5 + 0.2 * np.sin(np.arange(24)))
"""24 slices whose steps vary by 13 %, without a gap."""

UNFRIENDLY = {
    "anisotropic": geometry(),
    "gantry tilt": geometry(shift_mm=0.29),
    "prone, feet first": geometry(column=(1, 0.02, 0), row=(0, -1, 0.03)),
    "oblique": geometry(column=(0.9, 0.3, -0.2), row=(-0.2, 0.8, 0.5)),
    "descending": geometry(descending=True),
    "left-handed": geometry(left_handed=True),
    "uneven": geometry(places_mm=UNEVEN_PLACES, shift_mm=-0.2),
    "with a gap": geometry(places_mm=GAP_PLACES),
}


def all_points(where: Geometry) -> FloatArray:
    """(slices, rows, columns, 3) LPS mm of every voxel, by plain sums."""
    _, rows, columns = where.shape
    return np.asarray(
        where.origins_lps_mm[:, None, None, :]
        + np.arange(rows)[None, :, None, None] * where.row_step_lps_mm
        + np.arange(columns)[None, None, :, None] * where.column_step_lps_mm
    )


def linear_hu(points_lps_mm: npt.ArrayLike) -> FloatArray:
    """HU of `linear` volumes: 120 at LPS (5, -8, 300) and a slope along every axis."""
    return np.asarray(120 + (np.asarray(points_lps_mm) - [5.0, -8.0, 300.0]) @ GRADIENT)


def linear(where: Geometry, acquisition: Acquisition = UNENHANCED_120) -> CTVolume:
    return CTVolume(where, ArraySource(linear_hu(all_points(where)).astype(np.float32)), acquisition)


def filled(
    where: Geometry,
    hu: npt.ArrayLike,
    acquisition: Acquisition = UNENHANCED_120,
    **source: Any,
) -> CTVolume:
    """A volume of these HU, one number or one a voxel; keywords go to `Source`."""
    values = np.broadcast_to(np.asarray(hu, dtype=np.float32), where.shape).copy()
    return CTVolume(where, Source(values, **source), acquisition)


class Source:
    """An array as slices, with padding, UIDs, a slice that cannot be read, and a list of what was read."""

    def __init__(
        self,
        hu: npt.NDArray[np.float32],
        padding: tuple[float, float] | None = None,
        uids: bool = False,
        broken: int | None = None,
    ) -> None:
        self.hu, self.padding, self.uids, self.broken = hu, padding, uids, broken
        self.reads: list[int] = []

    def read(self, k: int) -> HUArray:
        self.reads.append(k)
        if k == self.broken:
            raise PixelError(f"slice {k} is cut short")
        return self.hu[k]

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return self.padding

    def sop_instance_uid(self, k: int) -> str | None:
        return f"1.2.3.{k}" if self.uids else None


def ellipse(
    where: Geometry,
    index: tuple[float, float, float],
    axes_mm: tuple[float, float] = (11.0, 8.0),
    position: str = "mid",
) -> Ellipse:
    """An ellipse in the slice plane around a fractional index, u along the rows' direction."""
    u = unit(where.column_step_lps_mm)
    v = unit(where.row_step_lps_mm - (where.row_step_lps_mm @ u) * u)
    return Ellipse(position, where.lps_at(index), u, v, axes_mm)


def tilted(one: Ellipse, degrees: float) -> Ellipse:
    """The ellipse turned about its u axis."""
    angle = np.radians(degrees)
    normal = np.cross(one.u_lps, one.v_lps)
    v = np.cos(angle) * one.v_lps + np.sin(angle) * normal
    return Ellipse(one.position, one.center_lps_mm, one.u_lps, v, one.semi_axes_mm)


def three(
    where: Geometry, slices: tuple[float, float, float], axes_mm: tuple[float, float] = (11.0, 8.0), level: str = "T12"
) -> VertebraRoi:
    """A vertebra with three ellipses in the middle of the image, on these slices from head to foot."""
    middle = ((where.shape[1] - 1) // 2, (where.shape[2] - 1) // 2)
    return VertebraRoi(
        level,
        ellipses=tuple(
            ellipse(where, (k, *middle), axes_mm, position) for k, position in zip(slices, POSITIONS, strict=True)
        ),
    )
