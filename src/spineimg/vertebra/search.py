"""Where the spine is, without a click: the longest and best canal in the whole image.

At 2.5 mm every place is scored as the middle of a canal (`canal.py`), and the path with the largest sum over the line
is found by dynamic programming; it may begin and end anywhere.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.vertebra.body import BodyNotFoundError
from spineimg.vertebra.canal import CanalSettings, best_beside, canal_scores, place_beside
from spineimg.vertebra.column import BODY_MM
from spineimg.vertebra.crop import Field, cut_box, extent_mm
from spineimg.volume import CTVolume

_STEP_MM = 2.5
_LEAST_MM = 1.9
"""Voxels nearer to each other are passed over: scans of 2 mm slices and 1.5 mm pixels show the canal as well."""
_LINE_HU = 70.0
"""A place adds to the path when its contrast is above this. Engineering choice: canals have 100-280, others less."""
_BONE_HU, _FEW_SLICES, _SPARE = 150.0, 4, 6
"""Bone at a place of the image in so many slices; the canal's ring reaches so many steps."""
_CLEAR_PART = 0.8
"""Of the contrast at its clearest place."""
_SHORTEST_MM = 60.0
"""Two levels. Engineering choice."""


def find_start(volume: CTVolume, settings: CanalSettings) -> FloatArray:
    """(3,) LPS mm in front of a clear place of the canal, near the middle of it. Raises BodyNotFoundError."""
    middle = volume.geometry.lps_at((np.array(volume.geometry.shape) - 1) / 2)
    reach = [(float(low), float(high)) for low, high in extent_mm(volume.geometry, middle)]
    height = sum(reach[0])
    if height < _SHORTEST_MM:
        text = f"the image shows {height:.0f} mm of the spine, too little to find it without a seed"
        raise BodyNotFoundError("image_short", text)
    crop = cut_box(volume, middle, reach, _STEP_MM, _LEAST_MM)
    hu, corner = _around_bone(crop.hu)
    score = canal_scores(np.clip(hu, -200, 400), _STEP_MM, settings)
    path = _best_stretch(score - _LINE_HU)
    if len(path) * _STEP_MM < _SHORTEST_MM:
        raise BodyNotFoundError("no_spine", "no spinal canal is found in this volume: give a seed")
    values = np.convolve(score[tuple(path.T)], np.ones(9) / 9, mode="same")
    # Outlines are followed from the start outwards, and err more the farther they are.
    clear = np.flatnonzero(values >= _CLEAR_PART * values.max())
    at = int(clear[np.argmin(np.abs(clear - (len(path) - 1) / 2))])
    canal = crop.lps(path[at] + corner)
    return np.asarray(canal - BODY_MM * crop.axes[1])


def _around_bone(hu: Field) -> tuple[Field, npt.NDArray[np.intp]]:
    """What lies around bone in any slice, and the first index of that: air and the table are half of an image."""
    bone = (hu > _BONE_HU).sum(axis=0) >= _FEW_SLICES
    spans = []
    for axis in (1, 0):
        at = np.flatnonzero(bone.any(axis=axis))
        low, high = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, hu.shape[2 - axis])
        spans.append(slice(max(0, low - _SPARE), high + _SPARE))
    return hu[:, spans[0], spans[1]], np.array([0, spans[0].start, spans[1].start])


def _best_stretch(worth: Field) -> FloatArray:
    """(n, 3) indices of the path of the largest sum; it moves by at most one place sideways a slice."""
    sums = [worth[0]]
    for layer in worth[1:]:
        sums.append(layer + np.maximum(best_beside(sums[-1]), 0))
    end = int(np.argmax([one.max() for one in sums]))
    row, column = (int(i) for i in np.unravel_index(int(sums[end].argmax()), worth[0].shape))
    path = [(end, row, column)]
    for k in range(end - 1, -1, -1):
        value, (row, column) = place_beside(sums[k], (row, column))
        if value <= 0:
            break
        path.append((k, row, column))
    return np.array(path[::-1])
