"""The outline of a vertebral body across its axis: front, sides and back, without the pedicles.

From a point inside, HU are averaged over some height and looked at along rays. The wall is the closed curve of the best
falls from bone to what lies outside, by dynamic programming around the circle. An edge behind another strong edge
counts less, and nothing beyond the front of the canal counts at all: both keep the curve from swallowing the canal or a
vessel. Where a pedicle leaves the body there is no edge, and the curve bridges it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.settings import setting
from spineimg.vertebra.column import Column
from spineimg.vertebra.crop import Crop

RAYS = 72
_ANGLES = np.arange(RAYS) * (2 * np.pi / RAYS)
"""Angle of each ray from left towards posterior."""
_RADII_MM = np.arange(5.0, 38.01, 0.5)
_OUTSIDE_MM = 0.5
"""The fall is steepest so far outside the wall, measured on phantoms: cortex is inside of the edge that it makes."""
_CENTRED_MM = 1.0
"""Rays from so near the centre meet the wall as squarely as from the centre itself."""
_MOVES = np.arange(-3, 4)
"""Changes of radius between neighbouring rays, in steps of 0.5 mm."""


@dataclass(frozen=True, slots=True)
class WallSettings:
    """How a wall is told from other edges."""

    canal_half_mm: float = setting(
        5.0,
        "mm",
        (3.0, 8.0),
        "canal 15-20 mm deep, its middle found within 2 mm",
        "No wall lies nearer to the canal's middle line.",
    )
    edge_hu: tuple[float, float] = setting(
        (40.0, 150.0),
        "HU",
        (20.0, 400.0),
        "engineering choice: from 3 mm voxels of soft bone to 1 mm voxels of dense bone",
        "Least and largest fall that counts as a full edge; in between four fifths of the image's own.",
    )
    later_edge: float = setting(
        0.6, "fraction", (0.0, 2.0), "engineering choice", "What an edge loses behind other strong edges."
    )
    bend: float = setting(
        0.175, "fraction", (0.02, 1.0), "engineering choice", "Cost of changing the radius by 0.5 mm from ray to ray."
    )


@dataclass(frozen=True, eq=False)
class Outline:
    """Around (left, posterior) = `middle_mm` in the straightened column: radius_mm and support (-0.5 … 1), (rays,)."""

    middle_mm: tuple[float, float]
    radius_mm: FloatArray
    support: FloatArray

    @cached_property
    def points_mm(self) -> FloatArray:
        """(rays, 2) left, posterior."""
        around = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)
        return np.asarray(np.array(self.middle_mm) + self.radius_mm[:, None] * around)

    @cached_property
    def area_mm2(self) -> float:
        return float(self._cross.sum() / 2)

    @cached_property
    def _cross(self) -> FloatArray:
        x, y = self.points_mm.T
        return np.asarray(x * np.roll(y, -1) - y * np.roll(x, -1))

    @cached_property
    def centroid_mm(self) -> tuple[float, float]:
        pairs = self.points_mm + np.roll(self.points_mm, -1, axis=0)
        left, posterior = (pairs * self._cross[:, None]).sum(axis=0) / (6 * self.area_mm2)
        return float(left), float(posterior)

    def reach(self, left: FloatArray, posterior: FloatArray) -> FloatArray:
        """Distance from the middle as a fraction of the wall's, 1 on the wall."""
        x, y = left - self.middle_mm[0], posterior - self.middle_mm[1]
        angle = np.mod(np.arctan2(y, x), 2 * np.pi)
        radius = np.interp(angle, np.append(_ANGLES, 2 * np.pi), np.append(self.radius_mm, self.radius_mm[0]))
        return np.asarray(np.hypot(x, y) / radius)


def find_outline(
    crop: Crop, column: Column, rows: npt.NDArray[np.intp], middle_mm: tuple[float, float], settings: WallSettings
) -> Outline:
    """The outline around a point inside, from HU averaged over the steps `rows`; around its own centre if the point
    was not near it."""
    outline = _outline(crop, column, rows, middle_mm, settings)
    if np.hypot(*np.subtract(outline.centroid_mm, middle_mm)) < _CENTRED_MM:
        return outline
    return _outline(crop, column, rows, outline.centroid_mm, settings)


def _outline(
    crop: Crop, column: Column, rows: npt.NDArray[np.intp], middle_mm: tuple[float, float], settings: WallSettings
) -> Outline:
    left = middle_mm[0] + np.cos(_ANGLES)[:, None] * _RADII_MM
    posterior = middle_mm[1] + np.sin(_ANGLES)[:, None] * _RADII_MM
    hu = column.sample(crop, rows, left, posterior).mean(axis=0).astype(np.float64)
    edge = _edge(np.clip(hu, -150, 600), settings)
    score = edge - settings.later_edge * _crossed(edge)
    score = np.where(_behind_front(left, posterior, settings), -4.0, score)
    path = _closed_path(score, settings.bend)
    return Outline(middle_mm, _RADII_MM[path] - _OUTSIDE_MM, np.minimum(edge[np.arange(RAYS), path], 1.0))


def _edge(hu: FloatArray, settings: WallSettings) -> FloatArray:
    """(rays, radii) fall outwards over 2 mm as a fraction of a full edge; less where bone lies behind it."""
    padded = np.pad(hu, ((0, 0), (2, 4)), mode="edge")
    count = hu.shape[1]

    def at(step: int) -> FloatArray:
        return padded[:, 2 + step : 2 + step + count]

    beyond = (at(2) + at(3) + at(4)) / 3
    fall = np.maximum(at(-1), at(-2)) - beyond
    full = np.clip(0.8 * np.percentile(fall.max(axis=1), 40), *settings.edge_hu)
    # A little more for what is beyond full keeps the curve on the steepest place of a strong edge.
    worth = np.clip(fall / full, -0.5, 1.0) + 0.1 * np.clip(fall / full - 1, 0, 3)
    return np.asarray(worth - np.clip((beyond - 250) / 300, 0, 0.5))


def _crossed(edge: FloatArray) -> FloatArray:
    """How much strong edge lies at least 3 mm further in, 0 … 1."""
    strong = np.cumsum(np.maximum(np.clip(edge, 0, 1) - 0.6, 0), axis=1)
    return np.minimum(np.pad(strong, ((0, 0), (6, 0)))[:, : edge.shape[1]] / 2, 1.0)


def _behind_front(left: FloatArray, posterior: FloatArray, settings: WallSettings) -> npt.NDArray[np.bool_]:
    """Places that cannot be wall, for they lie in the canal, beside it or behind it."""
    near = np.hypot(left / 1.6, np.minimum(posterior, 0)) < settings.canal_half_mm
    return near | ((posterior > 0) & (np.abs(left) < 25)) | (posterior > 2)


def _closed_path(score: FloatArray, bend: float) -> npt.NDArray[np.intp]:
    """(rays,) index of the radius at each ray: the best path once around.

    It runs two rounds; of these the middle one is taken, whose ends have met.
    """
    rays = np.concatenate([np.arange(RAYS // 2, RAYS), np.arange(RAYS), np.arange(RAYS // 2)])
    count, spare = score.shape[1], int(_MOVES[-1])
    cost = bend * np.abs(_MOVES) ** 1.3
    sums = np.full((len(rays), count + 2 * spare), -1e6)
    # Places that a path may come from, before one at each radius.
    options = np.lib.stride_tricks.sliding_window_view(sums, len(_MOVES), axis=1).swapaxes(1, 2)
    best = sums[:, spare : spare + count]
    best[0] = score[rays[0]]
    for before, own, sum_ in zip(options[:-1], score[rays[1:]], best[1:], strict=True):
        np.add(own, np.maximum.reduce(before - cost[:, None]), out=sum_)
    path = [int(best[-1].argmax())]
    for before in options[-2::-1]:
        path.append(path[-1] + int(_MOVES[(before[:, path[-1]] - cost).argmax()]))
    return np.array(path[::-1][RAYS // 2 : RAYS // 2 + RAYS], dtype=np.intp)
