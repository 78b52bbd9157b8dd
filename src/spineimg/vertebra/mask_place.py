"""Whether a label lies where the bone is: a mask of another scan, or one that slipped, is measured like a right one.

The rim of a label holds cortex, and what surrounds it does not. So the rim is brighter than its surroundings, and
clearly less so when the label is moved a little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import Geometry
from spineimg.sampling import SliceReader
from spineimg.settings import setting

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_GRID_MM, _RIM_MM, _BESIDE_MM = 1.5, 2.0, 4.0
"""Voxels are thinned out to about the first; the rim is so thick, and its surroundings reach as far again."""
_SOFT_HU, _CORTEX_HU, _FEW, _LITTLE = 60.0, 200.0, 0.05, 0.07
"""No bone: a median of the rim below the first, no more than _FEW of it above the second, and no more than _LITTLE of
all around, which the shell of a body is even for a label within it. Measured: 0.39-0.79 of rims and 0.08-0.19 of all
around bodies, 0.02 and 0.03-0.06 for a mask 60 mm off."""
_SEEN = 0.6
"""Part of the voxels that must lie in the image."""


@dataclass(frozen=True, slots=True)
class PlaceSettings:
    """When a label is thought to lie beside the bone."""

    shifts_mm: tuple[float, float] = setting(
        (6.0, 12.0), "mm", (2, 20), "engineering choice", "how far a label is moved along each axis of the image"
    )
    bone_hu: float = setting(
        100.0,
        "HU",
        (50, 300),
        "measured: 130-340 HU for labels in place on two public scans",
        "least contrast of a rim with its surroundings that shows bone",
    )
    better: tuple[float, float] = setting(
        (1.5, 60.0),
        "1, HU",
        (1, 300),
        "measured: moved labels have at most 0.7 of the contrast in place; labels 6-15 mm off gain 70-230 HU",
        "factor and HU by which the contrast of the moved label must exceed that in place",
    )


def misplaced(reader: SliceReader, corner: IntArray, label: BoolArray, settings: PlaceSettings) -> str | None:
    """How the rim of a label misses the bone; None when the label is in place, or nothing tells.

    label: voxels of the CT, [0, 0, 0] of which is (slice, row, column) `corner`. Raises PixelError.
    """
    geometry = reader.volume.geometry
    rim, beside = _rim(geometry, corner, label)
    shifts = [(0.0, np.zeros(3, dtype=np.intp))]
    for axis, spacing in enumerate(geometry.spacing_mm):
        for away in (sign * one for one in settings.shifts_mm for sign in (-1, 1)):
            step = np.zeros(3, dtype=np.intp)
            step[axis] = round(away / spacing)
            shifts.append((abs(away), step))
    hu, origin = _read(reader, np.concatenate([rim, beside]), max(settings.shifts_mm))
    contrast = [_contrast(hu, rim - origin + step, beside - origin + step) for _, step in shifts]
    own = contrast[0]
    if own is None:
        return None
    best, away = max((value, away) for value, (away, _) in zip(contrast, shifts, strict=True) if value is not None)
    factor, more = settings.better
    if best >= settings.bone_hu and best > max(factor * own, own + more):
        return f"does not lie on bone, but would if it were moved by about {away:.0f} mm"
    return "does not lie on bone" if _is_soft(hu, rim - origin) else None


def contrast_in_place(reader: SliceReader, corner: IntArray, label: BoolArray) -> float | None:
    """How much brighter the rim of a label is than its surroundings, HU; None where too little lies in the image."""
    rim, beside = _rim(reader.volume.geometry, corner, label)
    hu, origin = _read(reader, np.concatenate([rim, beside]), 0.0)
    return _contrast(hu, rim - origin, beside - origin)


def _rim(geometry: Geometry, corner: IntArray, label: BoolArray) -> tuple[IntArray, IntArray]:
    """(n, 3) voxels within the rim of a label, and (m, 3) around it."""
    from scipy.ndimage import distance_transform_edt

    every = np.maximum(1, np.floor(_GRID_MM / np.array(geometry.spacing_mm))).astype(np.intp)
    step = every * np.array(geometry.spacing_mm)
    spare = np.ceil((_BESIDE_MM + 2 * step.max()) / step).astype(np.intp)
    voxels = np.pad(label[:: every[0], :: every[1], :: every[2]], [(n, n) for n in spare])
    inside, outside = (distance_transform_edt(one, sampling=step) for one in (voxels, ~voxels))
    thick = max(_RIM_MM, float(step.max()))
    rim = voxels & (inside <= thick)
    beside = ~voxels & (outside > thick) & (outside <= max(_BESIDE_MM, 2 * thick))
    first, second = ((np.argwhere(one) - spare) * every + corner for one in (rim, beside))
    return first, second


def _read(reader: SliceReader, voxels: IntArray, further_mm: float) -> tuple[npt.NDArray[np.float32], IntArray]:
    """HU of a block around voxels that reaches so much further, nan where there is none, and its first voxel."""
    geometry = reader.volume.geometry
    more = np.ceil(further_mm / np.array(geometry.spacing_mm)).astype(np.intp)
    low = np.maximum(voxels.min(axis=0) - more, 0)
    high = np.minimum(voxels.max(axis=0) + more + 1, geometry.shape)
    hu = np.full(np.maximum(high - low, 1), np.nan, dtype=np.float32)
    if (high > low).all():
        for k in range(low[0], high[0]):
            hu[k - low[0]] = reader.window(int(k), slice(low[1], high[1]), slice(low[2], high[2]))
    return hu, low


def _is_soft(hu: npt.NDArray[np.float32], rim: IntArray) -> bool:
    """Whether neither the rim nor anything around it is bone."""
    inside = ((rim >= 0) & (rim < hu.shape)).all(axis=1)
    values = hu[tuple(rim[inside].T)]
    return bool(
        np.nanmedian(values) < _SOFT_HU and np.mean(values > _CORTEX_HU) < _FEW and np.mean(hu > _CORTEX_HU) < _LITTLE
    )


def _contrast(hu: npt.NDArray[np.float32], rim: IntArray, beside: IntArray) -> float | None:
    """How much brighter the rim is than its surroundings; None where too little of either lies in the image."""
    medians = []
    for places in (rim, beside):
        inside = ((places >= 0) & (places < hu.shape)).all(axis=1)
        values = hu[tuple(places[inside].T)]
        values = values[np.isfinite(values)]
        if len(values) < max(1.0, _SEEN * len(places)):
            return None
        medians.append(float(np.median(values)))
    return medians[0] - medians[1]
