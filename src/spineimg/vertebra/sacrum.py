"""The wings of the sacrum: bone at both sides of the column, where lumbar bodies have the psoas."""

from __future__ import annotations

import numpy as np

from spineimg.vertebra.body import Body
from spineimg.vertebra.chain import Disc
from spineimg.vertebra.column import Column
from spineimg.vertebra.crop import Crop

_WINGS_LEFT_MM, _WINGS_BACK_MM = np.arange(32.0, 45.0, 3.0), np.arange(-20.0, -3.0, 4.0)
_BONE_HU = 130.0
_BELOW_MM, _BELOW_LEFT_MM, _BELOW_BACK_MM = (
    np.arange(10.0, 31.0, 2.0),
    np.arange(30.0, 46.0, 3.0),
    np.arange(0.0, 25.0, 4.0),
)
_SACRAL_LEAN = 0.4
"""The sacrum leans backwards by so much for each mm below L5."""
_WINGS_BELOW = (0.2, 70.0)
"""Below L5, at either side: least part above _BONE_HU, and least mean HU. Measured: 0.21-0.66 and 81-190 below L5,
0.01-0.19 and 7-104, never both above, below other bodies."""


def wings(crop: Crop, column: Column, below: Disc, above: Disc) -> float:
    """Part of bone beside the back of a body, at the poorer side: the wings of the sacrum."""
    rows = np.arange(column.row_at(below.upper.arc_mm), column.row_at(above.lower.arc_mm) + 1, 2)
    left, posterior = (a.ravel() for a in np.meshgrid(_WINGS_LEFT_MM, _WINGS_BACK_MM, indexing="ij"))
    sides = [column.sample(crop, rows, side * left, posterior) > _BONE_HU for side in (-1.0, 1.0)]
    return min(float(side.mean()) for side in sides)


def stands_on_wings(crop: Crop, body: Body) -> bool:
    """Whether there are wings of a sacrum at both sides below a body."""
    left, back, down = (a.ravel() for a in np.meshgrid(_BELOW_LEFT_MM, _BELOW_BACK_MM, _BELOW_MM, indexing="ij"))
    for side in (-1.0, 1.0):
        flat = np.stack([side * left, back + _SACRAL_LEAN * down], axis=-1) @ body.axes[:2]
        places = body.inferior.point_lps_mm + flat - down[:, None] * body.inferior.normal_lps
        hu = crop.sample(crop.index(places))
        if (hu > _BONE_HU).mean() < _WINGS_BELOW[0] or hu.mean() < _WINGS_BELOW[1]:
            return False
    return True
