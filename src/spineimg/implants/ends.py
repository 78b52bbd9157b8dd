"""Where a shaft ends: its tip, a blunted cone, and its head, where the tulip begins."""

from __future__ import annotations

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.cylinder import tip_values
from spineimg.implants.edge import Edge

_POINT = (0.25, 0.12)
"""Radius of a tip's point over the shaft's, and its spread: screws end in a rounded point. Engineering choice."""

_TITANIUM_HU = 7000.0
"""Titanium at 120 kVp reads 6500-7140 HU."""


def thinned(values: FloatArray, most: int = 4000) -> FloatArray:
    """Every n-th row, so that no more than `most` are left."""
    return values[:: max(1, -(-len(values) // most))]


def fit_tip(
    places: FloatArray, hu: FloatArray, radius_mm: float, tip_mm: float, edge: Edge, blur: FloatArray
) -> tuple[float, float]:
    """Depth of the tip and length of its cone, by least squares on the voxels around it, mm."""
    from scipy.optimize import least_squares

    rho = np.hypot(places[:, 1], places[:, 2])
    near = (places[:, 0] > tip_mm - 12) & (places[:, 0] < tip_mm + 6) & (rho < radius_mm + 1.0)
    place = thinned(places[near], 600)
    shown, low, high = edge.parts(place, thinned(hu[near], 600))
    if not edge.clipped:
        low, high = low - 0.1, high + 0.1
    shown = np.clip(shown, low, high)
    span = float(np.mean(high - low))

    def residuals(x: FloatArray) -> FloatArray:
        model = tip_values(place, radius_mm, (float(x[0]), float(x[1]), float(x[2])), blur)
        return np.append((np.clip(model, low, high) - shown) / span, (x[2] - _POINT[0]) / _POINT[1])

    # The misfit has side minima: a long cone with a far tip looks like a short one with a near tip.
    best = None
    for cone in (0.2, 5.0):
        ends = tip_mm + cone / 2 + np.arange(-5.0, 4.1, 1.0)
        start = min(ends, key=lambda end: float(np.abs(residuals(np.array([end, cone, _POINT[0]]))).sum()))
        found = least_squares(
            residuals,
            [start, cone, _POINT[0]],
            bounds=([tip_mm - 9, 0.0, 0.0], [tip_mm + 9, 14.0, 0.8]),
            loss="soft_l1",
            f_scale=0.25,
            diff_step=[3e-3],
            x_scale=[1.0, 2.0, 0.3],
            ftol=1e-3,
            xtol=3e-3,
            max_nfev=8,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return float(best.x[0]), float(best.x[1])


def find_head(
    places: FloatArray, hu: FloatArray, radius_mm: float, head_mm: float, edge: Edge, blur: FloatArray
) -> tuple[float, bool]:
    """Depth at which the shaft meets the tulip: where the metal beyond the shaft's own radius begins.

    Second: whether there is a tulip; without one the depth of the shaft's own blunt end.
    """
    from scipy.special import ndtri

    rho = np.hypot(places[:, 1], places[:, 2])
    ring = (rho > radius_mm + 1.0) & (rho < min(radius_mm + 2.2, max(5.6, radius_mm + 1.8)))
    ring &= (places[:, 0] > head_mm - 9) & (places[:, 0] < head_mm + 14)
    part, _, high = edge.parts(places[ring], hu[ring])
    # A tulip may be of titanium though the shaft is not.
    level = 0.85 * float(np.mean(high)) if edge.clipped else 0.5 * min(1.0, _TITANIUM_HU / edge.metal_hu)
    depths = np.arange(head_mm - 8, head_mm + 13, 0.25)
    filled = _filled(places[ring, 0], np.minimum(part, 1.3 * level), depths)
    above = filled >= level
    if not above.any():
        tip, _ = fit_tip(places * np.array([-1.0, 1.0, 1.0]), hu, radius_mm, -head_mm, edge, blur)
        return -tip, False
    last = int(np.flatnonzero(above)[-1])
    if last + 1 >= len(depths):
        return head_mm, True
    rise = (filled[last] - level) / max(filled[last] - filled[last + 1], 1e-6)
    at = depths[last] + 0.25 * float(np.clip(rise, 0, 1))
    # Where the scale ends low, the level is passed before the tulip is reached.
    return float(at + ndtri(level) * np.sqrt(blur[0, 0])), True


def _filled(at: FloatArray, part: FloatArray, depths: FloatArray) -> FloatArray:
    """Mean part of metal of voxels at depths `at` around each of `depths`, Gaussian weights of 0.5 mm."""
    weight = np.exp(-0.5 * np.square((depths[:, None] - at[None, :]) / 0.5))
    return np.asarray((weight @ part) / np.maximum(weight.sum(axis=1), 1e-9))
