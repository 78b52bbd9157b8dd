"""How wide the zone is at every piece of the unrolled surface, with its uncertainty, from each piece's misfit.

Neighbours are alike: each pair of neighbouring pieces costs `neighbour` for every millimetre they differ by, and each
piece `form` for every millimetre it differs from the simple form that explains the whole screw best. The distribution
at each piece is found by iteration, each against the mean cost that its neighbours' distributions put on it (mean
field). No zone reaches beyond cortex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray

_TURNS = 12
_PAST_CORTEX_MM, _LEAST_LIMIT_MM = 0.3, 0.6


@dataclass(frozen=True, eq=False, slots=True)
class Widths:
    """part: (widths, depths, angles) probability of each of grid_mm."""

    grid_mm: FloatArray
    part: FloatArray

    def quantile(self, q: float) -> FloatArray:
        """(depths, angles) width below which the part q lies, linear within a step."""
        total = np.cumsum(self.part, axis=0)
        at = np.argmax(total >= q - 1e-12, axis=0)[None]
        before = np.where(at > 0, np.take_along_axis(total, np.maximum(at - 1, 0), axis=0), 0.0)
        share = (q - before) / np.maximum(np.take_along_axis(self.part, at, axis=0), 1e-12)
        step = self.grid_mm[1] - self.grid_mm[0]
        return np.asarray(np.maximum(self.grid_mm[at] + (share - 0.5) * step, 0.0)[0])


def widths_from(
    cost: FloatArray, grid_mm: FloatArray, cortex_mm: FloatArray, form_mm: FloatArray, neighbour: float, form: float
) -> Widths:
    """cost: (widths, depths, angles) misfit, twice a negative logarithm; cortex_mm, form_mm: (depths, angles)."""
    limit = np.maximum(cortex_mm + _PAST_CORTEX_MM, _LEAST_LIMIT_MM)
    own = -cost / 2 - form * np.abs(grid_mm[:, None, None] - form_mm)
    own = np.where(grid_mm[:, None, None] > limit, -1e3, own)
    apart = np.abs(grid_mm[:, None] - grid_mm)
    # A neighbour that cannot be wider has nothing against one that is.
    last = np.searchsorted(grid_mm, limit, side="right") - 1
    seen = np.minimum(np.arange(len(grid_mm))[:, None, None], last)
    part = _normal(own)
    for _ in range(_TURNS):
        against = np.take_along_axis(np.tensordot(apart, part, axes=1), seen, axis=0)
        total = np.roll(against, 1, axis=2) + np.roll(against, -1, axis=2)
        total[:, 1:] += against[:, :-1]
        total[:, :-1] += against[:, 1:]
        part = (part + _normal(own - neighbour * total)) / 2
    return Widths(grid_mm, part)


def _normal(logs: FloatArray) -> FloatArray:
    part = np.exp(logs - logs.max(axis=0))
    return np.asarray(part / part.sum(axis=0))
