"""A cut-out of a volume around a click, on one even grid in the patient's directions.

The axes of the grid are those of the scanner's lattice, named and ordered by the direction of the patient they are
nearest to: (cranial, posterior, left). So prone, feet-first, oblique and reformatted series all look alike. A sheared
lattice (gantry tilt) is straightened slice by slice. Smoothing and interpolation are one product of small matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry
from spineimg.settings import setting
from spineimg.volume import CTVolume

Field = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How much around the click is looked at, and how finely."""

    step_mm: float = setting(
        1.0,
        "mm",
        (0.8, 1.5),
        "engineering choice: enough to find walls and endplates, which are then fitted on native voxels",
        "Distance of the grid points.",
    )
    cranial_mm: float = setting(
        60.0,
        "mm",
        (45.0, 90.0),
        "engineering choice: the nearest disc of both neighbours of an L4 (33-40 mm a level)",
        "Reach towards head and feet.",
    )
    lateral_mm: float = setting(
        46.0,
        "mm",
        (40.0, 70.0),
        "engineering choice: half a body of 50 mm, a click 12 mm off its middle, 9 mm of tissue",
        "Reach to both sides.",
    )
    anterior_mm: float = setting(
        38.0,
        "mm",
        (30.0, 60.0),
        "engineering choice: 27 mm from a click to the anterior wall at most, 11 mm of tissue before it",
        "Reach to the front.",
    )
    posterior_mm: float = setting(
        56.0,
        "mm",
        (45.0, 70.0),
        "engineering choice: the canal's middle lies up to 40 mm behind a click, with a 16 mm ring",
        "Reach to the back.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class Crop:
    """hu: (cranial, posterior, left) float32, HU clipped to -1000 … 2000; beyond the image its border continues.

    covered: False where the image ends. origin_lps_mm: (3,) of hu[0, 0, 0]. axes: (3, 3) rows are the LPS directions of
    the array's axes. step_mm: one for all axes.
    """

    hu: Field
    covered: BoolArray
    origin_lps_mm: FloatArray
    axes: FloatArray
    step_mm: float
    click_lps_mm: FloatArray

    def lps(self, index: npt.ArrayLike) -> FloatArray:
        """(..., 3) fractional index -> LPS mm."""
        return np.asarray(self.origin_lps_mm + np.asarray(index, dtype=np.float64) * self.step_mm @ self.axes)

    def index(self, point_lps_mm: npt.ArrayLike) -> FloatArray:
        """(..., 3) LPS mm -> fractional index."""
        return np.asarray((np.asarray(point_lps_mm) - self.origin_lps_mm) @ self.axes.T / self.step_mm)

    def sample(self, index: FloatArray) -> Field:
        """(...,) HU by trilinear interpolation at (..., 3) indices; the border continues."""
        return self.sample_at(np.moveaxis(index, -1, 0).astype(np.float32))

    def sample_at(self, at: Field) -> Field:
        """(...,) HU by trilinear interpolation at (3, ...) indices; the border continues."""
        flat, low, part = self.hu.ravel(), [], []
        for axis, count in zip(at, self.hu.shape, strict=True):
            place = np.clip(axis, np.float32(0), np.float32(count - 1))
            low.append(np.minimum(place.astype(np.intp), count - 2))
            part.append(place - low[-1].astype(np.float32))
        _, deep, wide = self.hu.shape
        first = (low[0] * deep + low[1]) * wide + low[2]

        def between(offset: int, steps: tuple[int, ...], parts: list[Field]) -> Field:
            """Between the voxel so far behind the first one and its neighbour along each axis."""
            if not steps:
                return np.asarray(flat[offset:].take(first))
            near = between(offset, steps[1:], parts[1:])
            far = between(offset + steps[0], steps[1:], parts[1:])
            far -= near
            far *= parts[0]
            far += near
            return far

        return between(0, (deep * wide, wide, 1), part)


def cut_out(volume: CTVolume, click_lps_mm: FloatArray, settings: CropSettings) -> Crop:
    """The grid around a click. Reads only the slices that it touches. Raises PixelError."""
    reach = (
        (settings.cranial_mm, settings.cranial_mm),
        (settings.anterior_mm, settings.posterior_mm),
        (settings.lateral_mm, settings.lateral_mm),
    )
    return cut_box(volume, click_lps_mm, reach, settings.step_mm)


def cut_box(
    volume: CTVolume, click_lps_mm: FloatArray, reach: Sequence[tuple[float, float]], step: float, least_mm: float = 0.0
) -> Crop:
    """The grid around a point with its reach, mm, to (feet, head), (front, back), (right, left). Raises PixelError.

    least_mm: of slices, rows and columns that lie nearer to each other only every so-many-th is used.
    """
    geometry = volume.geometry
    axes, order = _directions(geometry)
    ticks = [np.arange(-round(low / step), round(high / step) + 1) * step for low, high in reach]
    # Place of the grid along (slice normal, rows, columns) of the lattice, mm from the click, in the lattice's sense.
    along = [ticks[order.index(axis)] for axis in range(3)]
    signs = [float(np.sign(axes[order.index(axis)] @ _lattice(geometry)[axis])) for axis in range(3)]
    places = [np.asarray(s * t, dtype=np.float64) for s, t in zip(signs, along, strict=True)]
    hu, covered = _resampled(volume, click_lps_mm, places, step, least_mm)
    origin = click_lps_mm + np.array([t[0] for t in ticks]) @ axes
    return Crop(
        np.ascontiguousarray(hu.transpose(order)),
        np.ascontiguousarray(covered.transpose(order)),
        origin,
        axes,
        step,
        click_lps_mm,
    )


def extent_mm(geometry: Geometry, point_lps_mm: FloatArray) -> FloatArray:
    """(3, 2) how far the image reaches from a point inside to (feet, head), (front, back), (right, left)."""
    axes, _ = _directions(geometry)
    corners = [(k, r, c) for k in (0, -1) for r in (0, geometry.shape[1] - 1) for c in (0, geometry.shape[2] - 1)]
    places = geometry.lps_at([(k % geometry.shape[0], r, c) for k, r, c in corners]) - point_lps_mm
    away = places @ axes.T
    return np.stack([np.maximum(-away.min(axis=0), 0), np.maximum(away.max(axis=0), 0)], axis=1)


def _lattice(geometry: Geometry) -> FloatArray:
    """(3, 3) orthonormal rows: slice normal, across the columns, along a row."""
    column = geometry.column_step_lps_mm / np.linalg.norm(geometry.column_step_lps_mm)
    return np.stack([geometry.normal_lps, np.cross(geometry.normal_lps, column), column])


def _directions(geometry: Geometry) -> tuple[FloatArray, list[int]]:
    """Axes nearest to (cranial, posterior, left), and which lattice axis each is."""
    lattice = _lattice(geometry)
    wanted = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    like = wanted @ lattice.T
    order = max(permutations(range(3)), key=lambda p: sum(abs(like[i, p[i]]) for i in range(3)))
    axes = np.stack([lattice[p] * np.sign(like[i, p]) for i, p in enumerate(order)])
    return axes, list(order)


def _resampled(
    volume: CTVolume, click: FloatArray, along: list[FloatArray], step: float, least_mm: float
) -> tuple[Field, BoolArray]:
    """HU and coverage on the grid, axes in the lattice's order (slice, row, column)."""
    from scipy.sparse import csr_array

    geometry = volume.geometry
    lattice = _lattice(geometry)
    every = _every(geometry, least_mm)
    places = (geometry.origins_lps_mm[:: every[0]] - click) @ lattice.T
    # Rows may run against the second lattice axis: signed steps.
    spacing = (float(geometry.row_step_lps_mm @ lattice[1]), float(geometry.column_step_lps_mm @ lattice[2]))
    across, covered_across = _weights(along[0], places[:, 0], step)
    used = np.flatnonzero(across.any(axis=0))
    shape = tuple(len(a) for a in along)
    flat = np.empty((len(used), *shape[1:]), dtype=np.float32)
    covered = np.broadcast_to(covered_across[:, None, None], shape).copy()
    at = 0
    for place, run in groupby(used.tolist(), lambda k: (round(float(places[k, 1]), 3), round(float(places[k, 2]), 3))):
        rows, columns = (
            _window(along[1 + i], place[i], spacing[i], geometry.shape[1 + i], every[1 + i], step) for i in (0, 1)
        )
        alike = list(run)
        for k in alike:
            hu = volume.read_window(k * every[0], rows.pixels, columns.pixels)
            hu = _clipped(hu[:: every[1], :: every[2]])
            # One slice at a time: it stays in the processor's cache, where turning it over costs little.
            flat[at] = (columns.sparse @ (rows.sparse @ hu).T).T
            at += 1
        covered[across[:, alike].any(axis=1)] &= rows.covered[:, None] & columns.covered
    weights = csr_array(across[:, used].astype(np.float32))
    return np.asarray((weights @ flat.reshape(len(used), -1)).reshape(shape), dtype=np.float32), covered


def _every(geometry: Geometry, least_mm: float) -> tuple[int, int, int]:
    """How many slices, rows and columns make a step of at most least_mm, at least one each, wherever slices lie."""
    if not least_mm:
        return 1, 1, 1
    spacings = (float(geometry.usual_steps_mm.max()), *geometry.spacing_mm[1:])
    slices, rows, columns = (max(1, int(least_mm / spacing)) for spacing in spacings)
    return slices, rows, columns


_AIR_HU, _METAL_HU = -1000, 2000
"""HU are clipped to this range: padding is air, metal must not outshine bone."""


def _clipped(native: npt.NDArray[Any]) -> Field:
    hu: Field = np.clip(native, _AIR_HU, _METAL_HU).astype(np.float32)
    if native.dtype.kind == "f":
        hu[np.isnan(hu)] = _AIR_HU
    return hu


@dataclass(frozen=True, eq=False, slots=True)
class _Window:
    """The pixels that places along one axis touch, their weights (places, pixels), and which places are covered."""

    pixels: slice
    sparse: Any
    covered: BoolArray


def _window(along: FloatArray, place: float, spacing: float, count: int, every: int, step: float) -> _Window:
    """every: only every so-many-th pixel is used."""
    from scipy.sparse import csr_array

    at = np.asarray(place + spacing * np.arange(0, count, every), dtype=np.float64)
    weights, covered = _weights(along, at, step)
    used = np.flatnonzero(weights.any(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    own = weights[:, first:last].astype(np.float32)
    return _Window(slice(first * every, (last - 1) * every + 1), csr_array(own), covered)


def _weights(wanted: FloatArray, given: FloatArray, step: float) -> tuple[FloatArray, BoolArray]:
    """(wanted, given) linear interpolation, averaged over one grid step so that fine samples are not skipped."""
    descending = len(given) > 1 and given[-1] < given[0]
    places = given[::-1] if descending else given
    weights = np.zeros((len(wanted), len(given)))
    row = np.arange(len(wanted))
    for part in (-1 / 3, 0.0, 1 / 3):
        at = np.clip(wanted + part * step, places[0], places[-1])
        low = np.clip(np.searchsorted(places, at, side="right") - 1, 0, max(0, len(places) - 2))
        high = np.minimum(low + 1, len(places) - 1)
        gap = np.where(high > low, places[high] - places[low], 1.0)
        portion = (at - places[low]) / gap
        np.add.at(weights, (row, low), (1 - portion) / 3)
        np.add.at(weights, (row, high), portion / 3)
    covered = (wanted >= places[0] - 1e-6) & (wanted <= places[-1] + 1e-6)
    return (weights[:, ::-1] if descending else weights), covered
