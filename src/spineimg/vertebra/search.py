"""Where the spine is, without a click: the longest and best canal in the whole image.

At 2.5 mm every place is scored as the middle of a canal (`canal.py`), and the path with the largest sum over the line
is found by dynamic programming; it may begin and end anywhere.
"""

from __future__ import annotations

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.vertebra.body import BodyNotFoundError
from spineimg.vertebra.canal import CanalSettings, canal_scores, sideways
from spineimg.vertebra.column import BODY_MM
from spineimg.vertebra.crop import Field, cut_box, extent_mm
from spineimg.volume import CTVolume

_STEP_MM = 2.5
_LINE_HU = 70.0
"""A place adds to the path when its contrast is above this. Engineering choice: canals have 100-280, others less."""
_SHORTEST_MM = 60.0
"""Two levels. Engineering choice."""


def find_start(volume: CTVolume, settings: CanalSettings) -> FloatArray:
    """(3,) LPS mm in front of the clearest place of the canal. Raises BodyNotFoundError when there is none."""
    middle = volume.geometry.lps_at((np.array(volume.geometry.shape) - 1) / 2)
    reach = [(float(low), float(high)) for low, high in extent_mm(volume.geometry, middle)]
    crop = cut_box(volume, middle, reach, _STEP_MM)
    score = canal_scores(np.clip(crop.hu, -200, 400), _STEP_MM, settings)
    path = _best_stretch(score - _LINE_HU)
    if len(path) * _STEP_MM < _SHORTEST_MM:
        raise BodyNotFoundError("no_spine", "no spinal canal is found in this volume: give a seed")
    values = np.convolve(score[tuple(path.T)], np.ones(9) / 9, mode="same")
    canal = crop.lps(path[int(values.argmax())])
    return np.asarray(canal - BODY_MM * crop.axes[1])


def _best_stretch(worth: Field) -> FloatArray:
    """(n, 3) indices of the path of the largest sum; it moves by at most one place sideways a slice."""
    best = worth[0]
    totals, choices = [best], []
    for layer in worth[1:]:
        value, choice = sideways(best)
        fresh = value <= 0
        choices.append(np.where(fresh, -1, choice))
        best = layer + np.where(fresh, 0, value)
        totals.append(best)
    end = int(np.argmax([total.max() for total in totals]))
    row, column = (int(i) for i in np.unravel_index(int(totals[end].argmax()), best.shape))
    path = [(end, row, column)]
    while end > 0:
        move = int(choices[end - 1][row, column])
        if move < 0:
            break
        end, row, column = end - 1, row + move // 3 - 1, column + move % 3 - 1
        path.append((end, row, column))
    return np.array(path[::-1])
