"""The metal's edge as part of metal (0-1): HU between what lies around a shaft and what its core reads.

Beside a screw beam hardening lifts or lowers the HU by hundreds, differently in the slice plane and across it, so that
the level around the metal is taken by direction. Where metal shows its own HU the middle of the edge is looked at, and
else the lower flank, the metal's HU assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.settings import setting

_MIDDLE = (0.3, 0.7)
_FLANK_FLOOR = 0.06
"""The lower flank begins this part of the way from the surroundings to the metal, or at the set HU: an engineering
choice."""
_CORE_PIECE_MM = 4.0
"""The core of dense metal is read in pieces of this length: an engineering choice."""


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """What is known of metal beforehand."""

    titanium_hu: float = setting(
        7000.0,
        "HU",
        (5000.0, 20000.0),
        "titanium at 120 kVp reads 6500-7140 HU (published measurements and a polychromatic simulation)",
        "HU of the metal where the scale ends below it.",
    )
    flank_hu: tuple[float, float] = setting(
        (1500.0, 2950.0),
        "HU",
        (1000.0, 3071.0),
        "engineering choice: above bone and its beam hardening, below the end of a 12-bit scale",
        "The part of the edge that is fitted where the scale ends below the metal.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class Edge:
    """What a shaft's edge lies between. metal_hu: of the core. rim, around: (3,) HU just inside and just outside the
    edge: mean, and its parts with the cosine and sine of twice the angle around the axis. flank_hu: the looked-at part
    of the edge where the scale ends below the metal. core: (2, m) depths in mm and HU of the core there over metal_hu,
    of dense metal, which starved rays darken to a half towards the head; None where the core is alike."""

    metal_hu: float
    rim: FloatArray
    around: FloatArray
    clipped: bool
    flank_hu: tuple[float, float]
    core: FloatArray | None = None

    def around_hu(self, places: FloatArray) -> FloatArray:
        """(n,) HU beside the metal in the direction of each place."""
        return np.clip(_waves(places) @ self.around, -300.0, 0.75 * self.metal_hu)

    def parts(self, places: FloatArray, hu: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(n,) part of metal that the voxels show, and the lowest and highest part that is looked at there."""
        around = self.around_hu(places)
        inside = np.maximum(_waves(places) @ self.rim, 0.8 * self.metal_hu)
        if self.core is not None:
            inside = np.maximum(inside * np.interp(places[:, 0], *self.core), around + 0.2 * self.metal_hu)
        contrast = inside - around
        if not self.clipped:
            low, high = np.full(len(hu), _MIDDLE[0]), np.full(len(hu), _MIDDLE[1])
        else:
            low = np.maximum((self.flank_hu[0] - around) / contrast, _FLANK_FLOOR)
            high = np.maximum((self.flank_hu[1] - around) / contrast, low + 0.02)
        return (hu - around) / contrast, low, high


def _waves(places: FloatArray) -> FloatArray:
    angle = np.arctan2(places[:, 2], places[:, 1])
    return np.stack([np.ones(len(places)), np.cos(2 * angle), np.sin(2 * angle)], axis=1)


def edge_of(
    places: FloatArray,
    hu: FloatArray,
    radius_mm: float,
    blur: FloatArray,
    scale_end_hu: float | None,
    dense_hu: float | None,
    settings: EdgeSettings,
) -> Edge:
    """The levels of a shaft from its voxels, places (n, 3) along its disturbed-free part. dense_hu: the level of metal
    where most of it is dense."""
    rho = np.hypot(places[:, 1], places[:, 2])
    core = hu[rho < max(0.55 * radius_mm, 0.7)]
    inside = float(np.median(core)) if len(core) else 0.0
    clipped = scale_end_hu is not None and inside >= 0.85 * scale_end_hu
    metal = settings.titanium_hu if clipped else max(inside, 1500.0)
    angle = np.arctan2(places[:, 2], places[:, 1])
    a, b = np.cos(angle), np.sin(angle)
    sigma = np.sqrt(a * a * blur[1, 1] + 2 * a * b * blur[1, 2] + b * b * blur[2, 2])
    beyond = rho - radius_mm - 2.2 * sigma
    ring = (beyond > 0.4) & (beyond < 1.2)
    around = (
        _robust_waves(places[ring], hu[ring], dense_hu or 2500.0)
        if np.count_nonzero(ring) >= 40
        else np.array([150.0, 0.0, 0.0])
    )
    top = settings.flank_hu[1] if scale_end_hu is None else min(settings.flank_hu[1], 0.96 * scale_end_hu)
    rim = np.array([metal, 0.0, 0.0])
    inner = (radius_mm - rho > 2.0 * sigma + 0.2) & (radius_mm - rho < 2.0 * sigma + 0.9)
    if not clipped and np.count_nonzero(inner) >= 60:
        rim = np.linalg.lstsq(_waves(places[inner]), hu[inner], rcond=None)[0]
    return Edge(metal, rim, around, clipped, (min(settings.flank_hu[0], 0.6 * top), top))


def with_core(edge: Edge, places: FloatArray, hu: FloatArray, radius_mm: float) -> Edge:
    """The edge of a shaft whose core is read piece by piece along it; unchanged where it shows too few voxels."""
    core = np.hypot(places[:, 1], places[:, 2]) < max(0.55 * radius_mm, 0.7)
    depths, hu = places[core, 0], hu[core]
    if edge.clipped or len(depths) < 40:
        return edge
    piece = np.floor((depths - depths.min()) / _CORE_PIECE_MM)
    pieces = [chosen for n in np.unique(piece) if np.count_nonzero(chosen := piece == n) >= 8]
    if not pieces:
        return edge
    middles = [float(np.mean(depths[chosen])) for chosen in pieces]
    parts = [float(np.median(hu[chosen])) / edge.metal_hu for chosen in pieces]
    return replace(edge, core=np.array([middles, parts]))


def _robust_waves(places: FloatArray, hu: FloatArray, metal_hu: float) -> FloatArray:
    """(3,) the waves that the HU follow around the axis; other metal in the ring counts for nothing."""
    waves = _waves(places)
    weight = (hu < metal_hu).astype(np.float64) + 1e-9
    found = np.array([float(np.median(hu)), 0.0, 0.0])
    for _ in range(5):
        found = np.linalg.lstsq(waves * weight[:, None], hu * weight, rcond=None)[0]
        rest = hu - waves @ found
        scale = 4.7 * max(1.48 * float(np.median(np.abs(rest))), 20.0)
        weight = np.clip(1 - np.square(rest / scale), 0, None) + 1e-9
    return np.asarray(found)
