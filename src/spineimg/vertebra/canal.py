"""The spinal canal behind a click: what tells a vertebral body from every other bone, and which way is up.

Slice by slice the canal is a dark, even disc with bone around it. Its middle line is the best path through all slices
of the crop, by dynamic programming; a single slice between two laminae needs no ring of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.settings import setting
from spineimg.vertebra.crop import Crop, Field


@dataclass(frozen=True, slots=True)
class CanalSettings:
    """What a canal looks like and where it lies behind a click in the central half of a body."""

    disc_radius_mm: float = setting(
        5.0, "mm", (3.0, 7.0), "canal 15-20 mm deep, 16-27 mm wide", "Radius of the dark middle."
    )
    ring_mm: tuple[float, float] = setting(
        (7.5, 16.0),
        "mm",
        (5.0, 20.0),
        "canal 15-20 mm deep, 16-27 mm wide",
        "Inner and outer radius of the ring where bone is looked for.",
    )
    behind_mm: tuple[float, float] = setting(
        (10.0, 44.0),
        "mm",
        (5.0, 60.0),
        "half of 18-36 mm depth, a quarter of it more or less, half a canal; 30 degrees of lean",
        "How far behind the click the canal's middle may lie.",
    )
    aside_mm: float = setting(
        18.0,
        "mm",
        (10.0, 30.0),
        "a quarter of 50 mm width, and 15 degrees of rotation",
        "How far to the side of the click it may lie.",
    )


_COARSE = 2
"""The canal is sought on every second grid point: it is 15 mm wide or more."""
_STEP_COST_HU = 3.0
"""Cost of one sideways step between neighbouring coarse slices."""


@dataclass(frozen=True, eq=False, slots=True)
class Canal:
    """points: (cranial, 2) fractional (posterior, left) index of the canal's middle in every crop slice.

    score_hu: (cranial,) contrast of ring and middle there.
    """

    points: FloatArray
    score_hu: FloatArray

    def score_at(self, row: float) -> float:
        """Mean contrast over 30 mm around a fractional slice of the crop."""
        at = round(row)
        return float(self.score_hu[max(0, at - 15) : at + 16].mean())


def find_canal(crop: Crop, settings: CanalSettings) -> Canal:
    """The best path of a canal behind the middle of the crop; its score tells whether there is one."""
    coarse = _coarse(crop.hu)
    score = canal_scores(coarse, crop.step_mm * _COARSE, settings)
    middle = (np.array(crop.index(crop.click_lps_mm)) - (_COARSE - 1) / 2) / _COARSE
    start = _start_window(score.shape, middle, crop.step_mm * _COARSE, settings)
    path = _best_path(score, start, round(float(middle[0])))
    values = score[np.arange(len(path)), path[:, 0], path[:, 1]]
    from scipy.ndimage import gaussian_filter1d

    rows = np.arange(crop.hu.shape[0])
    at = (rows - (_COARSE - 1) / 2) / _COARSE
    smooth = gaussian_filter1d(path.astype(np.float64), 3.0, axis=0, mode="nearest")
    fine = [np.interp(at, np.arange(len(path)), smooth[:, i]) * _COARSE + (_COARSE - 1) / 2 for i in (0, 1)]
    points = np.stack(fine, axis=-1)
    return Canal(points, np.interp(at, np.arange(len(path)), values))


def _coarse(hu: Field) -> Field:
    """Blocks of 2 x 2 x 2 averaged, clipped to what tells bone from soft tissue."""
    clipped = np.clip(hu, -200, 400)
    even = clipped[: hu.shape[0] // 2 * 2, : hu.shape[1] // 2 * 2, : hu.shape[2] // 2 * 2]
    pairs = even[0::2] + even[1::2]
    pairs = pairs[:, 0::2] + pairs[:, 1::2]
    return np.asarray((pairs[:, :, 0::2] + pairs[:, :, 1::2]) / 8, dtype=np.float32)


def canal_scores(coarse: Field, step_mm: float, settings: CanalSettings) -> Field:
    """Contrast of ring and disc in HU at every point, less what an uneven or un-watery disc costs."""
    left_ring, right_ring = _halves(_annulus(*settings.ring_mm, step_mm))
    mean, square = (_disc_mean(one, settings.disc_radius_mm, step_mm) for one in (coarse, np.square(coarse)))
    spread = np.sqrt(np.maximum(square - np.square(mean), 0))
    # The poorer side counts, else the path of a wide canal leans on one pedicle.
    left, right = _filtered(np.clip(coarse, 0, None), [side / side.sum() for side in (left_ring, right_ring)])
    around = np.minimum(left, right)
    strange = np.maximum(np.abs(mean - 30) - 40, 0)
    return np.asarray(around - np.maximum(mean, 0) - spread - strange, dtype=np.float32)


def _disc_mean(stack: Field, radius_mm: float, step_mm: float) -> Field:
    """Every slice averaged over a disc around each point, borders continued: rows of the disc are sums of three, five,
    … points, which grow from one another."""
    reach = int(radius_mm / step_mm)
    halves = [int(np.sqrt((radius_mm / step_mm) ** 2 - away**2)) for away in range(-reach, reach + 1)]
    padded = np.pad(stack, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    rows, columns = stack.shape[1:]
    run, total = np.zeros((*padded.shape[:2], columns), dtype=np.float32), np.zeros_like(stack)
    for half in range(reach + 1):
        for shift in {reach - half, reach + half}:
            run += padded[:, :, shift : shift + columns]
        for down in (at for at, own in enumerate(halves) if own == half):
            total += run[:, down : down + rows]
    return np.asarray(total / sum(2 * half + 1 for half in halves), dtype=np.float32)


def _annulus(inner_mm: float, outer_mm: float, step_mm: float) -> Field:
    reach = int(np.ceil(outer_mm / step_mm))
    ticks = np.arange(-reach, reach + 1) * step_mm
    away = np.hypot(ticks[:, None], ticks)
    mask = (away <= outer_mm) & (away >= inner_mm)
    return np.asarray(mask / mask.sum(), dtype=np.float32)


def _halves(kernel: Field) -> tuple[Field, Field]:
    """The kernel's parts at either side of the sagittal plane through its middle."""
    weight = np.clip(np.arange(kernel.shape[1]) - kernel.shape[1] // 2, -1, 1) / 2 + 0.5
    return np.asarray(kernel * weight, dtype=np.float32), np.asarray(kernel * (1 - weight), dtype=np.float32)


def _filtered(stack: Field, kernels: Sequence[Field]) -> list[Field]:
    """Every slice correlated with small kernels of one size, borders continued."""
    from scipy import fft

    reach = kernels[0].shape[0] // 2
    padded = np.pad(stack, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    shape = tuple(fft.next_fast_len(n, real=True) for n in padded.shape[1:])
    spectrum, found = fft.rfft2(padded, shape), []
    for kernel in kernels:
        full = fft.irfft2(spectrum * fft.rfft2(kernel[::-1, ::-1], shape), shape)
        found.append(full[:, 2 * reach : padded.shape[1], 2 * reach : padded.shape[2]])
    return found


def _start_window(shape: tuple[int, ...], middle: FloatArray, step_mm: float, settings: CanalSettings) -> np.ndarray:
    behind = (np.arange(shape[1]) - middle[1]) * step_mm
    aside = (np.arange(shape[2]) - middle[2]) * step_mm
    low, high = settings.behind_mm
    return np.asarray(((behind >= low) & (behind <= high))[:, None] & (np.abs(aside) <= settings.aside_mm))


def _best_path(score: Field, start: np.ndarray, at: int) -> np.ndarray:
    """(slices, 2) indices of the path of the largest sum that passes through `start` in slice `at`."""
    up, down = _sums(score[at:]), _sums(score[at::-1])
    total = np.where(start, up[0] + down[0] - score[at], -np.inf)
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(total)), total.shape))
    return np.array([*_traced(down, (row, column))[:0:-1], *_traced(up, (row, column))])


def _sums(score: Field) -> list[Field]:
    """Best sum from each point of each slice to the last slice."""
    sums = [score[-1]]
    for layer in score[-2::-1]:
        sums.append(layer + best_beside(sums[-1]))
    return sums[::-1]


def _traced(sums: list[Field], place: tuple[int, int]) -> list[tuple[int, int]]:
    path = [place]
    for further in sums[1:]:
        path.append(place_beside(further, path[-1])[1])
    return path


def best_beside(sums: Field) -> Field:
    """The best of the nine places around each one, less the cost of moving there.

    The cost is that of the rows and that of the columns, so each is chosen by itself.
    """
    return _best_along(_best_along(sums).T).T


def _best_along(sums: Field) -> Field:
    """The best of each place and its two neighbours along the last axis, less the cost of moving."""
    best, moved = sums.copy(), sums - np.float32(_STEP_COST_HU)
    np.maximum(best[:, 1:], moved[:, :-1], out=best[:, 1:])
    np.maximum(best[:, :-1], moved[:, 1:], out=best[:, :-1])
    return best


def place_beside(sums: Field, place: tuple[int, int]) -> tuple[float, tuple[int, int]]:
    """What `best_beside` finds for one place, and where: of equal ones the place itself."""
    rows, columns = ([at for at in (i, i - 1, i + 1) if 0 <= at < n] for i, n in zip(place, sums.shape, strict=True))
    cost = np.float32(_STEP_COST_HU)
    options = [
        max(((sums[row, column] - cost * (column != place[1]), column) for column in columns), key=itemgetter(0))
        for row in rows
    ]
    best = [
        (value - cost * (row != place[0]), (row, column)) for row, (value, column) in zip(rows, options, strict=True)
    ]
    value, found = max(best, key=itemgetter(0))
    return float(value), found
