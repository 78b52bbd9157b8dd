"""What lies around a shaft, piece by piece: how noisy it is, how bright its bone, and where cortex begins.

Metal and hardening taken off, the HU of each piece are put into rings. Cortex is where they rise far above the bone
between it and the screw; what lies beyond it (canal, fat, muscle) says nothing about the screw and is left out. Noise
is the spread within the rings, since streaks make it differ from piece to piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spineimg.geometry import FloatArray
from spineimg.implants.unrolled import BoolArray, IntArray

NOWHERE_MM = 9.0
"""Distance of a cortex that is not there."""
_RING_MM = 0.5
_QUIET_FROM_MM = 0.9
"""Nearer, the metal's edge adds to the spread."""
_SPREAD = 1.48 * 1.15
"""Standard deviation over the median deviation from the median of a handful."""
_LEAST_SD_HU = 8.0
"""No scan is quieter. Engineering choice."""
_FRONT = 0.5
_BONE_HU = (60.0, 380.0)
"""What counts as trabecular bone at first: muscle and canal are darker, cortex is brighter."""
_SOFT_HU = (100.0, 30.0)
"""Where bone reads less than the one, it may be as dark as the other."""
_FEWEST = (3, 10)
"""Voxels for a ring's HU, for a piece's noise."""
_CORTEX = (120.0, 0.8)
"""Cortex is this many HU, or this part of the bone's HU, brighter than bone. Engineering choice."""
_PEAK_RINGS = 3
_ZONE_HU, _MUSCLE_HU = 40.0, 60.0
_RIM_RINGS = 4
"""A rim is no wider: 1 mm of bone, and the blur."""
_CONCENTRIC_MM, _ALL_AROUND = 0.5, 0.5
"""A band is a rim where so much of it stands within this of one distance, around most cross-sections. Phantoms: in the
front half quartiles of the distances lie 0.2-1 mm apart around 20 of 26 rims, 1-4.4 mm without one. Engineering
choice."""

_CEMENT = (700.0, 4)
"""Cement reads more than this over so many rings, 2 mm. Phantoms: so do at most 3 % of the pieces around a screw
without it, beside steel; PMMA with barium reads 1000-2000 HU. Engineering choice."""


@dataclass(frozen=True, eq=False, slots=True)
class Surroundings:
    """All (cells,) but bone_hu, that of the whole screw. rings_hu: (cells, rings), nan where there are too few voxels.

    cortex_mm: where it begins, from the outer thread; reach_mm: how far voxels are of use; cement: whether the piece
    lies in cement.
    """

    bone_hu: float
    rings_hu: FloatArray
    sd_hu: FloatArray
    cortex_mm: FloatArray
    reach_mm: FloatArray
    cement: BoolArray

    @property
    def has_cortex(self) -> BoolArray:
        return np.asarray(self.cortex_mm < NOWHERE_MM)

    def in_bone(self, halo_hu: float) -> BoolArray:
        """(cells,) whether there is bone in the outer rings, or cortex on the way to them."""
        outer = _row_medians(self.rings_hu[:, _PEAK_RINGS:])
        bright = outer > halo_hu + 0.35 * (self.bone_hu - halo_hu)
        return np.asarray((self.has_cortex | bright) & ~self.cement)


def look_around(
    rest_hu: FloatArray,
    shade: FloatArray,
    away_mm: FloatArray,
    piece: IntArray,
    shape: tuple[int, int],
    relative_sd: FloatArray,
    reach_mm: FloatArray | None = None,
) -> Surroundings:
    """What is seen around a shaft.

    rest_hu: (n,) HU without metal and hardening; shade: (n,) what of a voxel is not metal; away_mm: (n,) from the outer
    thread; piece: (n,); shape: (depths, angles); relative_sd: (n,) what voxels expect of noise, 1 far from the metal;
    reach_mm: from an earlier look, (cells,).
    """
    cells, first = shape[0] * shape[1], float(away_mm.min())
    rings = int(np.ceil((away_mm.max() - first) / _RING_MM))
    ring = np.minimum(((away_mm - first) / _RING_MM).astype(np.intp), rings - 1)
    index, number = piece * rings + ring, np.arange(cells * rings)
    own = np.maximum(shade, 0.3)
    middle = np.asarray(ndimage.median(rest_hu / own, index, number))
    known = (np.bincount(index, minlength=cells * rings) >= _FEWEST[0]).reshape(cells, rings)
    rings_hu = np.where(known, middle.reshape(cells, rings), np.nan)
    off = np.abs(rest_hu / own - middle[index]) * own / relative_sd
    calm = away_mm > _QUIET_FROM_MM
    if reach_mm is not None:
        calm &= away_mm < reach_mm[piece]
    sd = _noise(off[calm], piece[calm], shape)
    front = rings_hu[int(_FRONT * shape[0]) * shape[1] :, _PEAK_RINGS:]
    bone = _bone_hu(front, _BONE_HU[0])
    if bone < _SOFT_HU[0]:
        bone = _bone_hu(front, _SOFT_HU[1])
    middle_mm = np.asarray(first + (np.arange(rings) + 0.5) * _RING_MM, dtype=np.float64)
    cortex, reach, thin = _cortex(rings_hu, bone, sd, middle_mm)
    # Cement stands around a screw as evenly, but is no thin band away from it.
    bands = np.where(thin, cortex, NOWHERE_MM)
    rim = is_concentric(bands.reshape(shape), known.any(axis=1).reshape(shape)).ravel()
    cortex, reach = (np.where(rim, NOWHERE_MM, values) for values in (cortex, reach))
    return Surroundings(bone, rings_hu, sd, cortex, reach, _cement(rings_hu))


def _bone_hu(rings_hu: FloatArray, least_hu: float) -> float:
    """Median of what may be trabecular bone; of everything where little may be."""
    plausible = rings_hu[(rings_hu > least_hu) & (rings_hu < _BONE_HU[1])]
    return float(np.median(plausible)) if len(plausible) >= 20 else float(np.nanmedian(rings_hu))


def _noise(off: FloatArray, piece: IntArray, shape: tuple[int, int]) -> FloatArray:
    """(cells,) noise, nowhere below that of the quietest fifth; where there are few voxels, that of the neighbours."""
    cells = shape[0] * shape[1]
    few = np.bincount(piece, minlength=cells) < _FEWEST[1]
    if few.all():
        return np.full(cells, max(_LEAST_SD_HU, float(np.median(off)) * _SPREAD if len(off) else 0.0))
    found = np.asarray(ndimage.median(off, piece, np.arange(cells)), dtype=np.float64) * _SPREAD
    found = np.maximum(found, max(_LEAST_SD_HU, float(np.percentile(found[~few], 20))))
    grid = np.where(few, np.nan, found).reshape(shape)
    for _ in range(sum(shape)):
        missing = ~np.isfinite(grid)
        if not missing.any():
            break
        around = np.pad(np.pad(grid, ((1, 1), (0, 0)), constant_values=np.nan), ((0, 0), (1, 1)), mode="wrap")
        shifts = [around[i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3)]
        grid = np.where(missing, _row_medians(np.stack(shifts, axis=-1).reshape(cells, 9)).reshape(shape), grid)
    return np.asarray(grid.ravel())


def _cement(rings_hu: FloatArray) -> BoolArray:
    """(cells,) whether a piece shows far more than cortex over more than cortex's width."""
    least_hu, least_rings = _CEMENT
    run = longest = np.zeros(len(rings_hu), dtype=np.intp)
    # The innermost ring lies in the metal's own blur; a ring with too few voxels ends no run.
    for hu in rings_hu[:, 1:].T:
        run = np.where(np.isnan(hu), run, np.where(hu > least_hu, run + 1, 0))
        longest = np.maximum(longest, run)
    return np.asarray(longest >= least_rings)


def _row_medians(values: FloatArray) -> FloatArray:
    """(n,) median of each row's finite values, nan where there are none."""
    ordered = np.sort(values, axis=1)
    count = np.isfinite(values).sum(axis=1)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    row = np.arange(len(values))
    high = np.minimum(high, np.maximum(count - 1, 0))
    return np.where(count > 0, (ordered[row, low] + ordered[row, high]) / 2, np.nan)


def _cortex(
    rings_hu: FloatArray, bone_hu: float, sd_hu: FloatArray, middle_mm: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """(cells,) where cortex begins, half way up its flank, how far voxels are of use: up to its crest, and whether it
    is a thin band away from the screw, as a rim is."""
    filled = np.where(np.isfinite(rings_hu), rings_hu, -1e9)
    bright = filled > (bone_hu + max(_CORTEX[0], _CORTEX[1] * bone_hu) + sd_hu / 2)[:, None]
    # The innermost ring lies in the metal's own blur.
    bright[:, 0] = False
    cortex, reach = np.full(len(filled), NOWHERE_MM), np.full(len(filled), NOWHERE_MM)
    thin = np.zeros(len(filled), dtype=bool)
    for k in np.flatnonzero(bright.any(axis=1)):
        first = int(bright[k].argmax())
        crest = first + int(np.argmax(filled[k, first : first + _PEAK_RINGS]))
        if _is_rim(rings_hu[k], bright[k], first, bone_hu):
            continue
        half = (bone_hu + filled[k, crest]) / 2
        above = first + int(np.argmax(filled[k, first : crest + 1] >= half))
        below = filled[k, above - 1] if filled[k, above - 1] > -1e9 else bone_hu
        begins = middle_mm[above] - _RING_MM * (filled[k, above] - half) / max(filled[k, above] - below, 1.0)
        # Where all rings are bright the flank lies in the metal's blur.
        cortex[k] = max(begins, 0.0)
        reach[k] = middle_mm[crest] + 0.1
        # Cement begins at the screw itself: nothing darker lies before it.
        before = rings_hu[k, :first][np.isfinite(rings_hu[k, :first])]
        ends = int(np.argmin(np.append(bright[k, first:], False))) <= _RIM_RINGS
        thin[k] = ends and len(before) > 0 and float(before.min()) < half
    return cortex, reach, thin


def is_concentric(band_mm: FloatArray, seen: BoolArray) -> BoolArray:
    """(depths, angles) where a bright band is the rim of a zone because it stands equally far off all around the screw.

    band_mm: where bands begin; seen: whether there is anything to see. Cortex lies on a side or two of a screw, and all
    around it only in the pedicle: so the front half decides, and says where a rim is to be expected behind it.
    """
    depths = np.arange(len(band_mm))
    here = band_mm < NOWHERE_MM
    middle = _row_medians(np.where(here, band_mm, np.nan))
    around = here & (np.abs(band_mm - middle[:, None]) <= _CONCENTRIC_MM)
    ringed = around.sum(axis=1) >= _ALL_AROUND * np.maximum(seen.sum(axis=1), 1)
    front = depths >= int(_FRONT * len(depths))
    if np.count_nonzero(ringed & front) < max(2.0, _ALL_AROUND * np.count_nonzero(front)):
        return np.zeros(band_mm.shape, dtype=bool)
    slope, start = np.polyfit(depths[ringed & front], middle[ringed & front], 1)
    expected = np.where(ringed & front, middle, start + slope * depths)
    return np.asarray(here & (np.abs(band_mm - expected[:, None]) <= _CONCENTRIC_MM))


def _is_rim(rings_hu: FloatArray, bright: BoolArray, first: int, bone_hu: float) -> bool:
    """Whether a bright band is the sclerotic rim of a lucent zone: dark between it and the screw, and beyond it bone.

    Inside cortex there is bone, and beyond it canal, fat or muscle; in soft bone the two cannot be told apart.
    """
    after = first + int(np.argmin(np.append(bright[first:], False)))
    inside, beyond = rings_hu[1:first], rings_hu[after + 1 :]
    beyond = beyond[np.isfinite(beyond)]
    if first < 2 or after - first > _RIM_RINGS or len(beyond) < 2 or not np.isfinite(inside).any():
        return False
    dark = float(np.nanmedian(inside)) < (_ZONE_HU + bone_hu) / 2
    return bone_hu > 2 * _MUSCLE_HU and dark and float(np.median(beyond)) > (_MUSCLE_HU + bone_hu) / 2
