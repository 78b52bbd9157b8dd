"""Which voxels of a scan a screw, a rod, or the lucent zone around a screw holds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.metal_map import solid_index
from spineimg.implants.model import HaloMap, Rod, Screw, Shaft
from spineimg.volume import CTVolume

Index = npt.NDArray[np.intp]
"""(n, 3) voxels: slice, row, column."""

_LEAST_MM = 0.5
"""A lucent zone narrower than this is not shown: no scan resolves it. Engineering choice."""
_WIDEST_MM = 6.0


def metal_index(volume: CTVolume) -> Index:
    """(n, 3) voxels of metal, of whatever it is part: at the level that the screen takes for this scan's metal."""
    return np.asarray(solid_index(volume), dtype=np.intp)


def shaft_index(geometry: Geometry, shaft: Shaft) -> Index:
    """(n, 3) voxels whose centres lie in the cylinder of a shaft's outer thread."""
    index, depth, off = _about(geometry, shaft, shaft.diameter_mm / 2)
    away = np.linalg.norm(off, axis=1)
    held: Index = index[(depth >= 0) & (depth <= shaft.length_mm) & (away <= shaft.diameter_mm / 2)]
    return held


def halo_index(geometry: Geometry, screw: Screw) -> Index:
    """(n, 3) voxels between a shaft and the end of the lucent zone, as wide as its map says; none without a map."""
    if screw.halo.map is None:
        return np.zeros((0, 3), dtype=np.intp)
    shaft = screw.shaft
    radius = shaft.diameter_mm / 2
    index, depth, off = _about(geometry, shaft, radius + _WIDEST_MM)
    away = np.linalg.norm(off, axis=1)
    width = _width_at(screw.halo.map, depth, _angle_deg(off, shaft.direction_lps))
    along = (depth >= 0) & (depth <= shaft.length_mm)
    held: Index = index[along & (away > radius) & (width > _LEAST_MM) & (away <= radius + width)]
    return held


def rod_index(geometry: Geometry, rod: Rod) -> Index:
    """(n, 3) voxels whose centres lie within a rod's radius of its centre line. Its ends are flat."""
    radius = rod.diameter_mm / 2
    held = [np.zeros((0, 3), dtype=np.intp)]
    pieces = list(pairwise(np.array(rod.points_lps_mm)))
    for number, (a, b) in enumerate(pieces):
        index, places = _around(geometry, np.array([a, b]), radius)
        way = b - a
        part = (places - a) @ way / max(float(way @ way), 1e-9)
        outside = ((part < 0) & (number == 0)) | ((part > 1) & (number == len(pieces) - 1))
        away = np.linalg.norm(places - a - np.clip(part, 0, 1)[:, None] * way, axis=1)
        held.append(index[(away <= radius) & ~outside])
    return np.unique(np.concatenate(held), axis=0)


def _about(geometry: Geometry, shaft: Shaft, reach_mm: float) -> tuple[Index, FloatArray, FloatArray]:
    """((n, 3) voxels near a shaft, (n,) their depth from its head in mm, (n, 3) their offset from its axis, LPS mm)."""
    ends = np.array([shaft.head_lps_mm, shaft.tip_lps_mm])
    index, places = _around(geometry, ends, reach_mm)
    offset = places - ends[0]
    depth = offset @ shaft.direction_lps
    return index, depth, offset - depth[:, None] * shaft.direction_lps


def _around(geometry: Geometry, ends: FloatArray, reach_mm: float) -> tuple[Index, FloatArray]:
    """((n, 3) indices, (n, 3) LPS mm) of the voxels in a box around a line."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * reach_mm
    at = geometry.index_at((ends[:, None, :] + corners[None]).reshape(-1, 3))
    low = np.clip(np.floor(at.min(axis=0)).astype(int), 0, None)
    high = np.clip(np.ceil(at.max(axis=0)).astype(int) + 1, 0, geometry.shape)
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    index: Index = grid.reshape(-1, 3)
    return index, geometry.lps_at(index) if len(index) else np.zeros((0, 3))


def _angle_deg(off: FloatArray, along: FloatArray) -> FloatArray:
    """(n,) direction of places around a shaft, as HaloMap counts it: 0 the patient's left, 90 cranial."""
    left = np.array([1.0, 0.0, 0.0])
    left = left - (left @ along) * along
    left /= np.linalg.norm(left)
    cranial = np.cross(along, left)
    cranial = cranial if cranial[2] >= 0 else -cranial
    return np.asarray(np.degrees(np.arctan2(off @ cranial, off @ left)) % 360)


def _width_at(halo: HaloMap, depth: FloatArray, angle_deg: FloatArray) -> FloatArray:
    """(n,) width in the nearest cell of the map, 0 where nothing could be said."""
    depths, angles = np.asarray(halo.depths_mm), np.asarray(halo.angles_deg)
    row = np.abs(depths[None, :] - depth[:, None]).argmin(axis=1)
    turn = np.abs(angles[None, :] % 360 - angle_deg[:, None])
    column = np.minimum(turn, 360 - turn).argmin(axis=1)
    return np.asarray(np.nan_to_num(np.asarray(halo.width_mm)[row, column], nan=0.0))
