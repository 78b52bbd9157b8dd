"""The column of bodies, straightened along the canal.

Places in it have three coordinates in mm: `arc` towards the head, 0 at the click; `left` and `posterior` from the
canal's middle line. A body lies at negative `posterior`. `arc` counts mm along the bodies' middles: in a lordosis of
85 mm radius the canal behind them is a quarter shorter, and low bodies would be looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.vertebra.canal import Canal
from spineimg.vertebra.crop import Crop, Field

_PATH_SMOOTH_MM = 10.0
_DIRECTION_SMOOTH_MM = 6.0
"""The canal's path is a voxel line, and between two laminae it sags backwards by up to 5 mm over 30 mm: smoothed so
much, its direction stays within 5 degrees of the body's axis. A bend of 85 mm radius moves by 0.6 mm."""
_LEAST_STEP_MM = 0.3
"""Where the canal bends more sharply than bodies can, a mm of it still counts for so much."""

BODY_MM = 22.0
"""The middle of a body lies about so far before the middle of the canal."""


@dataclass(frozen=True, eq=False, slots=True)
class Column:
    """arc_mm: (n,), steps of 1 mm at the bodies' middles. middle_lps_mm, left, posterior, cranial: (n, 3) of the canal.

    click: (left, posterior) mm of the click; `row` the step at its height.
    """

    arc_mm: FloatArray
    middle_lps_mm: FloatArray
    left_lps: FloatArray
    posterior_lps: FloatArray
    cranial_lps: FloatArray
    row: int
    click_mm: tuple[float, float]

    def lps(self, rows: npt.NDArray[np.intp], left: FloatArray, posterior: FloatArray) -> FloatArray:
        """(rows, *shape, 3) places at steps `rows` (n,) and at (left, posterior), both of one shape."""
        wide = (len(rows), *([1] * left.ndim), 3)
        return np.asarray(
            self.middle_lps_mm[rows].reshape(wide)
            + left[..., None] * self.left_lps[rows].reshape(wide)
            + posterior[..., None] * self.posterior_lps[rows].reshape(wide)
        )

    def sample(self, crop: Crop, rows: npt.NDArray[np.intp], left: FloatArray, posterior: FloatArray) -> Field:
        """(rows, *shape) HU."""
        # Indices are affine in left and posterior: one product of small matrices gives them all.
        base = crop.index(self.middle_lps_mm[rows])
        turns = [side[rows] @ crop.axes.T / crop.step_mm for side in (self.left_lps, self.posterior_lps)]
        flat = np.stack([np.ones(left.size), left.ravel(), posterior.ravel()])
        at = np.stack([base, *turns], axis=-1).swapaxes(0, 1) @ flat
        return crop.sample_at(at.astype(np.float32).reshape(3, len(rows), *left.shape))

    def part(self, first: int, last: int) -> Column:
        """The steps from `first` up to but not `last`, which must hold `row`."""
        own = slice(first, last)
        return Column(
            self.arc_mm[own],
            self.middle_lps_mm[own],
            self.left_lps[own],
            self.posterior_lps[own],
            self.cranial_lps[own],
            self.row - first,
            self.click_mm,
        )

    def row_at(self, arc_mm: float) -> int:
        return int(np.clip(round(arc_mm - self.arc_mm[0]), 0, len(self.arc_mm) - 1))


def straighten(crop: Crop, canal: Canal) -> Column:
    """The column along a canal."""
    rows = np.arange(crop.hu.shape[0])
    path = crop.lps(np.column_stack([rows, canal.points]))
    path = _smooth(path, _PATH_SMOOTH_MM / crop.step_mm)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    middle = _at(np.arange(0.0, length[-1]), length, path)
    way = np.gradient(_smooth(middle, _DIRECTION_SMOOTH_MM), axis=0)
    length = _along_bodies(middle, _units(way), crop.axes[1])
    arc = np.arange(0.0, length[-1])
    middle, cranial = _at(arc, length, middle), _units(_at(arc, length, way))
    posterior = _across(cranial, crop.axes[1])
    left = np.cross(posterior, cranial)
    away = np.einsum("ij,ij->i", crop.click_lps_mm - middle, cranial)
    row = int(np.argmin(np.abs(away)))
    offset = crop.click_lps_mm - middle[row]
    click = (float(offset @ left[row]), float(offset @ posterior[row]))
    seen = _seen(crop, middle - BODY_MM * posterior, row)
    return Column(
        arc[seen] - arc[row], middle[seen], left[seen], posterior[seen], cranial[seen], row - seen.start, click
    )


def _along_bodies(middle: FloatArray, cranial: FloatArray, back: FloatArray) -> FloatArray:
    """(n,) mm along the line through the bodies' middles at each step along the canal."""
    line = middle - BODY_MM * _across(cranial, back)
    steps = np.einsum("ij,ij->i", np.diff(line, axis=0), cranial[:-1])
    return np.concatenate([[0.0], np.cumsum(np.maximum(steps, _LEAST_STEP_MM))])


def _across(cranial: FloatArray, back: FloatArray) -> FloatArray:
    """(n, 3) unit vectors towards the back, across each direction."""
    return _units(back - (cranial @ back)[:, None] * cranial)


def _at(place: FloatArray, places: FloatArray, values: FloatArray) -> FloatArray:
    """(n, 3) values of a curve, interpolated."""
    return np.stack([np.interp(place, places, values[:, i]) for i in range(3)], axis=-1)


def _units(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _smooth(path: FloatArray, sigma: float) -> FloatArray:
    """Smoothed along the first axis; beyond its ends the path goes on as its mirror image in the end point."""
    from scipy.ndimage import gaussian_filter1d

    spare = min(round(3 * sigma), len(path) - 1)
    padded = np.pad(path, ((spare, spare), (0, 0)), mode="reflect", reflect_type="odd")
    return np.asarray(gaussian_filter1d(padded, sigma, axis=0, mode="nearest")[spare : spare + len(path)])


def _seen(crop: Crop, points_lps_mm: FloatArray, row: int) -> slice:
    """The steps around the click at which the image shows the body."""
    index = np.round(crop.index(points_lps_mm)).astype(np.intp)
    inside = ((index >= 0) & (index < crop.hu.shape)).all(axis=1)
    index = np.clip(index, 0, np.array(crop.hu.shape) - 1)
    hidden = np.flatnonzero(~(inside & crop.covered[index[:, 0], index[:, 1], index[:, 2]]))
    before, after = hidden[hidden <= row], hidden[hidden > row]
    first = int(before[-1]) + 1 if len(before) else 0
    last = int(after[0]) if len(after) else len(index)
    return slice(min(first, row), last)
