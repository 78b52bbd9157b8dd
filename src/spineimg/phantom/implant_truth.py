"""What a measurement of the implants should find: screws, halos by depth and angle, rods, breaks, for JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.phantom.implants import PlacedRod, PlacedScrew, Shaft, Zone
from spineimg.phantom.parts import Part
from spineimg.phantom.postop import PostopSpec
from spineimg.phantom.samples import Mask, Points

BoneTest = Callable[[FloatArray], Mask]
"""Whether each of (n, 3) LPS points lies in bone."""
DEPTH_STEP_MM = 1.0
SECTORS = 24
_STEP_MM = 0.02
_REACH_MM = 6.0
_BONE_BEYOND_MM = 0.75
"""A place counts as bone when there is bone so far beyond the zone. Engineering choice: more than any cortex."""


def directions(shaft: Shaft, angles_rad: FloatArray) -> FloatArray:
    """(n, 3) LPS unit vectors across a shaft; 0 is the patient's left, 90 degrees cranial."""
    _, left, cranial = shaft.axes
    return np.asarray(np.cos(angles_rad)[:, None] * left + np.sin(angles_rad)[:, None] * cranial)


def halo_map(
    screw: PlacedScrew, bone: Part | None, is_bone: BoneTest
) -> tuple[FloatArray, FloatArray, FloatArray, Mask]:
    """Depths (mm from the head), angles (degrees), width (mm) and whether it is in bone, both (depths, angles).

    The width runs from the outer thread at right angles to the shaft; cortex ends it, as it ends the painted zone.
    Depths stop where the conical tip begins to count as a tip: at 2.5 mm from the end.
    """
    shaft = screw.shaft
    depths = np.arange(0.5, shaft.length_mm - 2.5, DEPTH_STEP_MM)
    angles = np.arange(SECTORS) * (360 / SECTORS)
    across = directions(shaft, np.radians(angles))
    centers = shaft.head_lps_mm + depths[:, None] * shaft.axes[0]
    radius = shaft.envelope(depths.astype(np.float32)).astype(np.float64)
    width = np.zeros((len(depths), SECTORS))
    if screw.spec.lucency.width_mm > 0:
        out = np.arange(_STEP_MM / 2, _REACH_MM, _STEP_MM)
        zone = Zone(shaft, screw.spec.lucency, 0.0, bone)
        for i, (center, r) in enumerate(zip(centers, radius, strict=True)):
            points = center + (r + out)[None, :, None] * across[:, None, :]
            inside = zone.distances(Points(points.reshape(-1, 3)))[0].reshape(SECTORS, -1) < 0
            width[i] = np.where(inside.all(axis=1), _REACH_MM, np.argmin(inside, axis=1) * _STEP_MM)
    beyond = np.asarray(radius[:, None] + width + _BONE_BEYOND_MM, dtype=np.float64)
    points = centers[:, None] + beyond[..., None] * across
    in_bone: Mask = is_bone(points.reshape(-1, 3)).reshape(width.shape)
    return np.asarray(depths, dtype=np.float64), np.asarray(angles, dtype=np.float64), width, in_bone


def halo_json(screw: PlacedScrew, bone: Part | None, is_bone: BoneTest) -> dict[str, Any]:
    """The planned zone, its true map, and the numbers of the contract from the sectors in bone."""
    lucency = screw.spec.lucency
    depths, angles, width, in_bone = halo_map(screw, bone, is_bone)
    wide = (width > 1.0) & in_bone
    some = in_bone.any()
    rows = wide.sum(axis=1) >= np.maximum(in_bone.sum(axis=1) / 3, 1)
    return {
        "width_mm": lucency.width_mm,
        "form": lucency.form,
        "between": list(lucency.between),
        "facing_deg": lucency.facing_deg,
        "hu": lucency.hu,
        "rim_mm": lucency.rim_mm if lucency.width_mm else 0.0,
        "rim_hu": lucency.rim_hu,
        "width_median_mm": _rounded(np.median(width[in_bone])) if some else None,
        "width_p90_mm": _rounded(np.percentile(width[in_bone], 90)) if some else None,
        "coverage_over_1mm": _rounded(wide.sum() / in_bone.sum()) if some else None,
        "axial_extent_mm": _rounded(_longest(rows) * DEPTH_STEP_MM),
        "depths_mm": [_rounded(d) for d in depths],
        "angles_deg": [_rounded(a) for a in angles],
        "width_map_mm": [[_rounded(w, 2) for w in row] for row in width],
        "in_bone": [[int(b) for b in row] for row in in_bone],
    }


def _longest(flags: Mask) -> int:
    """Length of the longest run of true."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def equivalent_diameter_mm(shaft: Shaft) -> float:
    """Diameter of the plain cylinder with the shaft's volume: what a blurred cylinder sees of core and thread."""
    turn = np.linspace(0, 1, 400, endpoint=False)
    ridge = np.clip((0.6 - np.abs(2 * turn - 1)) * 2, 0, 1)
    radius = shaft.diameter_mm / 2 - shaft.thread_mm * (1 - ridge)
    return float(2 * np.sqrt(np.mean(np.square(radius))))


def inside(bone: Part) -> BoneTest:
    """Whether points lie in a bone of the phantom."""
    return lambda points: np.asarray(bone.distances(Points(points))[0] < 0)


def screw_json(screw: PlacedScrew, material: str, bone: Part | None, is_bone: BoneTest) -> dict[str, Any]:
    """One screw as `truth.json` has it. The tip is that of the broken part when the screw is broken."""
    shaft, spec = screw.shaft, screw.spec
    tip = screw.pieces[-1].tip_lps_mm
    gaps = []
    if spec.gap_mm:
        center = shaft.head_lps_mm + spec.gap_at * shaft.length_mm * shaft.axes[0]
        gaps.append({"center": _point(center), "width_mm": spec.gap_mm, "kink_deg": spec.kink_deg})
    return {
        "id": f"{spec.level}-{spec.side}",
        "level": spec.level,
        "side": spec.side,
        "head": _point(shaft.head_lps_mm),
        "tip": _point(tip),
        "diameter_mm": shaft.diameter_mm,
        "equivalent_diameter_mm": _rounded(equivalent_diameter_mm(shaft)),
        "thread_mm": shaft.thread_mm,
        "length_mm": _rounded(np.linalg.norm(tip - shaft.head_lps_mm)),
        "material": material,
        "gaps": gaps,
        "halo": halo_json(screw, bone, is_bone),
    }


def rod_json(rod: PlacedRod) -> dict[str, Any]:
    """One rod as `truth.json` has it; the points of a broken one run through both parts."""
    gaps = []
    if rod.gap is not None:
        gaps = [{"center": _point(rod.gap.center_lps_mm), "width_mm": rod.gap.width_mm, "kink_deg": rod.gap.kink_deg}]
    return {
        "id": rod.spec.side,
        "points": [_point(p) for line in rod.lines for p in line],
        "diameter_mm": rod.spec.diameter_mm,
        "material": rod.spec.material,
        "gaps": gaps,
    }


def beam_json(spec: PostopSpec) -> dict[str, Any]:
    """The physics that the implants were scanned with."""
    beam = spec.beam
    return {
        "spectrum": beam.spectrum,
        "geometry": "fan" if beam.fan else "parallel",
        "views": beam.views,
        "scatter": beam.scatter,
        "hardening": beam.hardening,
        "sharpen": spec.sharpen,
        "reduction": spec.reduction,
    }


def _rounded(value: Any, digits: int = 3) -> float:
    return round(float(value), digits) + 0.0


def _point(values: FloatArray) -> list[float]:
    return [_rounded(v) for v in values]
