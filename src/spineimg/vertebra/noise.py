"""The noise of a slice, from the slice itself.

After Christianson et al. 2015 (Am J Roentgenol 205:W93-W99): the standard deviation within a small window is taken all
over the soft tissue, and the most frequent value is the noise, since windows over edges scatter and uniform ones agree.
Here the most frequent value is the middle of the narrowest interval that holds a tenth of the windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.settings import setting
from spineimg.volume import HUArray

_Number = TypeVar("_Number", np.float64, np.uint16)


@dataclass(frozen=True, slots=True)
class NoiseSettings:
    """Where and how the noise of a slice is estimated."""

    reach_mm: float = setting(
        80.0,
        "mm",
        (30.0, 250.0),
        "engineering choice: with 50 mm lung leaves too little soft tissue around thoracic vertebrae",
        "Half width of the square around the ROI in which noise is looked for.",
    )
    own_mm: float = setting(
        25.0,
        "mm",
        (0.0, 60.0),
        "engineering choice: half the width of a lumbar body; its texture is no noise",
        "Half width of the square around the ROI, within the larger one, that is left out.",
    )
    window_mm: float = setting(
        6.0,
        "mm",
        (2.0, 20.0),
        "engineering choice: 9 mm windows rarely miss all edges in the mediastinum",
        "Side of the window within which a standard deviation is taken.",
    )
    soft_tissue_hu: tuple[float, float] = setting(
        (-20.0, 180.0),
        "HU",
        (-200.0, 400.0),
        "engineering choice: muscle and organs with and without contrast agent",
        "Mean HU of windows that count as soft tissue.",
    )
    fraction: float = setting(
        0.1, "", (0.02, 0.5), "engineering choice", "Share of the windows whose narrowest interval gives the noise."
    )
    min_windows: int = setting(
        50, "windows", (10, 10000), "engineering choice", "With fewer windows of soft tissue the noise is unknown."
    )


_COARSE_MM = 0.6
"""Pixels finer than this are thinned out: noise reaches over about 1 mm, so nothing is lost."""


def noise_hu(
    read: Callable[[slice, slice], HUArray],
    center: tuple[float, float],
    shape: tuple[int, int],
    pixel_mm: tuple[float, float],
    settings: NoiseSettings | None = None,
) -> float | None:
    """Noise SD in HU of a slice of this shape around a centre (row, column); None when there is too little soft tissue.

    read: a cut-out of the slice, nan where there is no measurement. pixel_mm: (row, column) spacing.
    """
    chosen = settings or NoiseSettings()
    box, own, steps = [], [], []
    for at, count, size in zip(center, shape, pixel_mm, strict=True):
        thin = max(1, round(_COARSE_MM / size))
        reach, body = chosen.reach_mm / size, chosen.own_mm / size
        start = max(0, int(at - reach))
        box.append(slice(start, max(0, min(count, int(at + reach) + 1)), thin))
        own.append(slice(max(0, int((at - body - start) / thin)), max(0, int((at + body - start) / thin) + 1)))
        steps.append(size * thin)
    hu = read(box[0], box[1]).astype(np.float64)
    if chosen.own_mm > 0:
        hu[own[0], own[1]] = np.nan
    return noise_sd(hu, (steps[0], steps[1]), chosen)


def noise_sd(hu: FloatArray, pixel_mm: tuple[float, float], settings: NoiseSettings) -> float | None:
    """Noise SD in HU of the soft tissue of an image, (rows, columns), nan where there is no measurement."""
    size = [max(3, round(settings.window_mm / step)) for step in pixel_mm]
    if hu.shape[0] < size[0] or hu.shape[1] < size[1]:
        return None
    count = size[0] * size[1]
    holes = np.isnan(hu)
    hu = np.where(holes, 0.0, hu)
    mean = _window_sums(hu, size) / count
    low, high = settings.soft_tissue_hu
    soft = (mean > low) & (mean < high)
    if holes.any():
        soft &= _window_sums(holes.astype(np.uint16), size) == 0
    square = _window_sums(hu * hu, size)[soft] / count
    variance = np.maximum(square - mean[soft] ** 2, 0.0) * count / (count - 1)
    if len(variance) < settings.min_windows:
        return None
    return _densest(np.sqrt(variance), settings.fraction)


def _window_sums(values: npt.NDArray[_Number], size: list[int]) -> npt.NDArray[_Number]:
    """Sum over each window, every second one along both axes: pairs of rows are added up, then pairs of columns."""
    for axis, width in enumerate(size):
        across = np.moveaxis(values, axis, 0)
        count = (len(across) - width) // 2 + 1
        even = 2 * (count + width // 2 - 1)
        pairs = across[:even:2] + across[1:even:2]
        sums = pairs[:count].copy()
        for shift in range(1, width // 2):
            sums += pairs[shift : shift + count]
        if width % 2:
            sums += across[width - 1 : width - 1 + 2 * count : 2]
        values = np.moveaxis(sums, 0, axis)
    return values


def _densest(values: FloatArray, fraction: float) -> float:
    """Median of the narrowest interval that holds this fraction of the values."""
    ordered = np.sort(values)
    held = max(2, int(len(ordered) * fraction))
    start = int(np.argmin(ordered[held - 1 :] - ordered[: len(ordered) - held + 1]))
    return float(np.median(ordered[start : start + held]))
