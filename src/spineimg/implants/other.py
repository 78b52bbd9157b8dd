"""Metal that is neither screw nor rod: what it probably is, by shape and place.

Names are for the reader's orientation. They rest on size, thickness, elongation, HU and where the metal lies relative
to the construct, and none of them enters a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.metal_map import MetalMap
from spineimg.implants.model import OtherMetal

_SMALLEST_MM3 = 15.0
"""Less than this is a speck: calcium, a clip's end or noise. Engineering choice."""
_MOST_LISTED = 40


@dataclass(frozen=True, eq=False, slots=True)
class Construct:
    """What of the metal is explained. lines: pieces of shafts and rods as (n, 3) points with a radius; heads: (m, 3)
    centres of tulips; tips: (k, 3) tips of screws; shafts: pairs of head and tip."""

    lines: Sequence[tuple[FloatArray, float]]
    heads_lps_mm: FloatArray
    tips_lps_mm: FloatArray

    @property
    def center_lps_mm(self) -> FloatArray | None:
        return self.heads_lps_mm.mean(axis=0) if len(self.heads_lps_mm) else None


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes of a piece of metal along its own axes, mm, its solidity and its HU."""

    volume_mm3: float
    long_mm: float
    broad_mm: float
    thick_mm: float
    wire_radius_mm: float
    steep: float
    median_hu: float


def other_metal(metal: MetalMap, construct: Construct) -> tuple[OtherMetal, ...]:
    """What is left of the metal when screws, heads and rods are taken away, the largest pieces first."""
    if not len(metal.hu):
        return ()
    points, part = metal.points_lps_mm, metal.part
    explained = _explained(points, construct)
    left = ~explained & (metal.hu >= metal.seed_hu)
    pieces = _pieces(metal, left)
    found = []
    touching = set(np.unique(part[explained])) if construct.center_lps_mm is not None else set()
    for chosen in pieces:
        volume = float(metal.volumes_mm3[chosen].sum())
        if volume < _SMALLEST_MM3:
            continue
        center = np.average(points[chosen], axis=0)
        joined = bool(part[chosen[0]] in touching)
        kind, why = _kind(_shape(metal, chosen), center, construct, joined)
        found.append(OtherMetal((float(center[0]), float(center[1]), float(center[2])), volume, kind, why))
    found.sort(key=lambda metal: -metal.volume_mm3)
    return tuple(found[:_MOST_LISTED])


def _explained(points: FloatArray, construct: Construct) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) True for metal that belongs to a shaft, a rod or a tulip, with its blooming."""
    from scipy.spatial import cKDTree

    explained = np.zeros(len(points), dtype=bool)
    if construct.lines:
        every = np.concatenate([line for line, _ in construct.lines])
        reach = np.concatenate([np.full(len(line), radius + 2.5) for line, radius in construct.lines])
        near, at = cKDTree(every).query(points, distance_upper_bound=float(reach.max()))
        explained |= near <= np.append(reach, -1.0)[at]
    if len(construct.heads_lps_mm):
        near, _ = cKDTree(construct.heads_lps_mm).query(points, distance_upper_bound=13.0)
        explained |= np.isfinite(near)
    return explained


def _pieces(
    metal: MetalMap, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Indices of the voxels of each joined piece among the chosen ones."""
    from spineimg.implants.metal_map import joined_pieces

    at = np.flatnonzero(chosen)
    if not len(at):
        return []
    label = joined_pieces(metal.index[at], metal.geometry.shape)
    by_label = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[by_label])) + 1
    return [at[piece] for piece in np.split(by_label, starts)]


def _shape(metal: MetalMap, chosen: np.ndarray[tuple[int], np.dtype[np.intp]]) -> _Shape:
    """Measures a piece: extents along its principal axes, and the radius of a wire of its volume and length."""
    points, volume = metal.points_lps_mm[chosen], float(metal.volumes_mm3[chosen].sum())
    centred = points - points.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2] if len(points) > 3 else np.eye(3)
    extent = np.ptp(centred @ axes.T, axis=0) + float(np.mean(metal.geometry.spacing_mm[1:]))
    # A wire bent back and forth is longer than its extent: its length is at least the diagonal of the box it fills.
    length = float(np.linalg.norm(extent))
    return _Shape(
        volume,
        float(extent[0]),
        float(extent[1]),
        float(extent[2]),
        float(np.sqrt(volume / np.pi / length)),
        float(abs(axes[0, 2])),
        float(np.median(metal.hu[chosen])),
    )


def _kind(shape: _Shape, center: FloatArray, construct: Construct, joined: bool) -> tuple[str, str]:
    """(one word, a sentence)."""
    size = f"{shape.long_mm:.0f} x {shape.broad_mm:.0f} x {shape.thick_mm:.0f} mm"
    middle = construct.center_lps_mm
    if middle is not None and joined:
        return _near_construct(shape, center, construct, size)
    if shape.long_mm > 60 and shape.wire_radius_mm > 3.0:
        word = "nail" if shape.broad_mm < 25 else "stem"
        return word, f"{size}, thicker and longer than a screw and without screws: a {word} or other large implant"
    if shape.volume_mm3 > 5000:
        return "implant", f"{size} of solid metal, far larger than a screw"
    if shape.wire_radius_mm < 1.6 and shape.long_mm > 12:
        return (
            "wire",
            f"{size} of thin metal (radius about {shape.wire_radius_mm:.1f} mm): a wire, lead, stent or clip row",
        )
    if middle is not None and np.min(np.linalg.norm(construct.tips_lps_mm - center, axis=1)) < 25:
        return _in_body(shape, size)
    if shape.median_hu < 2900 and shape.volume_mm3 > 100:
        return "contrast", f"{size} at about {shape.median_hu:.0f} HU: contrast medium, cement or calcification"
    if shape.volume_mm3 < 300:
        return "fragment", f"{size}: a clip, crown, marker or small fragment"
    return "implant", f"{size} of metal that is neither a screw nor a rod"


def _near_construct(shape: _Shape, center: FloatArray, construct: Construct, size: str) -> tuple[str, str]:
    """Pieces that hang together with screws or rods."""
    flat = shape.long_mm > 15 and shape.wire_radius_mm < 5
    behind = bool(np.min(np.abs(construct.heads_lps_mm[:, 1] - center[1])) < 15)
    if flat and shape.steep < 0.6 and behind:
        return "crosslink", f"{size} from rod to rod behind the spine"
    if np.min(np.linalg.norm(construct.tips_lps_mm - center, axis=1)) < 20:
        return _in_body(shape, size)
    return "connector", f"{size} of metal joined to the construct"


def _in_body(shape: _Shape, size: str) -> tuple[str, str]:
    """Pieces in or between vertebral bodies."""
    if shape.median_hu < 3000:
        return "cement", f"{size} at about {shape.median_hu:.0f} HU around the tips of screws"
    return "cage", f"{size} of metal in or between vertebral bodies"
