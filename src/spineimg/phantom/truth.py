"""What a measurement of the phantom should find: planes, sizes, ellipses, HU, as plain records for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from spineimg.anatomy import Construct
from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.phantom.implant_truth import beam_json, inside, rod_json, screw_json
from spineimg.phantom.metal import MetalSpec, rods, screws
from spineimg.phantom.model import Phantom
from spineimg.phantom.parts import Body, Outline
from spineimg.phantom.postop import PostopSpec
from spineimg.phantom.samples import Frame, Points
from spineimg.phantom.spine import Vertebra, rim_points
from spineimg.rois import POSITIONS, Ellipse, RoiSet, VertebraRoi
from spineimg.settings import setting

TRUTH_SCHEMA = "spineimg.truth/1"
_CENTRAL = 0.7
"""Part of the endplate's area that defines its plane (contract): points with q² <= 0.7."""


@dataclass(frozen=True, eq=False, slots=True)
class PlaneTruth:
    """An endplate plane: a point on it (above or below the body's centre) and its unit normal towards the head."""

    point_lps_mm: FloatArray
    normal_lps: FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class BodyTruth:
    """Geometry of a vertebral body, from its endplate planes. All vectors (3,) LPS.

    The frame stands midway between the planes, its cranial axis halves their angle, its left axis is the body's own.
    height: distance of the planes along the cranial axis through the centre; width, depth: largest extent of the rim.
    """

    level: str
    frame: Frame
    superior: PlaneTruth
    inferior: PlaneTruth
    width_mm: float
    depth_mm: float
    height_mm: float
    wedge_deg: float
    """Angle between the planes in the sagittal plane; positive when the front is lower."""


def endplate_plane(body: Body, superior: bool) -> PlaneTruth:
    """Least-squares plane of the central 70 % (by area) of an endplate's outer surface, concavity included."""
    angle = Outline.angles()[::16]
    radius = body.outline.radius_mm[::16].astype(np.float64)
    # Equal areas: q² evenly spaced, weighted by the sector's area.
    q2 = (np.arange(40) + 0.5) / 40 * _CENTRAL
    left = np.sqrt(q2)[:, None] * radius * np.cos(angle)
    posterior = np.sqrt(q2)[:, None] * radius * np.sin(angle)
    end = body.superior if superior else body.inferior
    height = end.height(left, posterior, q2[:, None]) * (1 if superior else -1)
    weight = np.broadcast_to(np.square(radius), left.shape).ravel()
    points = np.stack([left.ravel(), posterior.ravel(), height.ravel()], axis=-1)
    middle = np.average(points, axis=0, weights=weight)
    _, _, axes = np.linalg.svd((points - middle) * np.sqrt(weight)[:, None], full_matrices=False)
    normal = axes[2] * np.sign(axes[2][2])
    return PlaneTruth(body.frame.lps(middle), unit(normal @ body.frame.axes))


def body_truth(vertebra: Vertebra) -> BodyTruth:
    """The body's geometry as a fit should find it."""
    body = vertebra.body
    top, bottom = endplate_plane(body, superior=True), endplate_plane(body, superior=False)
    cranial = unit(top.normal_lps + bottom.normal_lps)
    posterior = body.frame.posterior_lps
    posterior = unit(posterior - (posterior @ cranial) * cranial)
    left = np.cross(posterior, cranial)
    axis = body.frame.center_lps_mm
    high, low = (_meet(axis, cranial, plane) for plane in (top, bottom))
    frame = Frame((high + low) / 2, left, posterior, cranial)
    rim = (np.concatenate([rim_points(body, True), rim_points(body, False)]) - frame.center_lps_mm) @ frame.axes.T
    lean = [np.degrees(np.arctan2(p.normal_lps @ posterior, p.normal_lps @ cranial)) for p in (top, bottom)]
    return BodyTruth(
        vertebra.level,
        frame,
        PlaneTruth(high, top.normal_lps),
        PlaneTruth(low, bottom.normal_lps),
        float(np.ptp(rim[:, 0])),
        float(np.ptp(rim[:, 1])),
        float(np.linalg.norm(high - low)),
        float(lean[1] - lean[0]),
    )


def _meet(point: FloatArray, direction: FloatArray, plane: PlaneTruth) -> FloatArray:
    away = (plane.point_lps_mm - point) @ plane.normal_lps / (direction @ plane.normal_lps)
    return np.asarray(point + away * direction)


@dataclass(frozen=True, slots=True)
class Placement:
    """How far ROIs keep from what is not trabecular bone."""

    wall_mm: float = setting(3.0, "mm", (1, 8), "spill-in of the shell", "from the wall")
    endplate_mm: float = setting(
        4.3,
        "mm",
        (2, 10),
        "engineering choice: with 0.6 slice spacings the least that reads without bias",
        "from the endplate plane, plus 0.6 slice spacings",
    )
    low_body_mm: float = setting(16.0, "mm", (8, 30), "engineering choice", "use quartiles below")
    width_fraction: float = setting(0.66, "1", (0.3, 0.8), "0.6-0.7", "of width and depth, at most")
    vein_mm: float = setting(1.5, "mm", (0, 5), "engineering choice", "from vein and lesions")


def ellipses(
    phantom: Phantom, level: str, plane: str = "endplate", placement: Placement = Placement()
) -> tuple[Ellipse, ...]:
    """Three ROIs in plain trabecular bone, superior to inferior; `plane` is "endplate" or "scanner".

    Raises SpineImgError when a body leaves no room for one.
    """
    truth = body_truth(phantom.vertebra(level))
    spacing = phantom.geometry.spacing_mm[0] if phantom.geometry.shape[0] > 1 else phantom.imaging.spacing_mm
    inset = placement.endplate_mm + 0.6 * spacing
    if truth.height_mm < placement.low_body_mm or 2 * inset > 0.7 * truth.height_mm:
        inset = 0.25 * truth.height_mm
    heights = (truth.height_mm / 2 - inset, 0.0, inset - truth.height_mm / 2)
    if plane == "endplate":
        u, v = truth.frame.left_lps, truth.frame.posterior_lps
    else:
        u, v = unit(phantom.geometry.column_step_lps_mm), unit(phantom.geometry.row_step_lps_mm)
    return tuple(
        _largest(phantom, truth, position, height, (u, v), placement)
        for position, height in zip(POSITIONS, heights, strict=True)
    )


def _largest(
    phantom: Phantom,
    truth: BodyTruth,
    position: str,
    height_mm: float,
    directions: tuple[FloatArray, FloatArray],
    placement: Placement,
) -> Ellipse:
    """The largest ellipse that is clear, on the midline, from the middle to the front."""
    u, v = directions
    snap = abs(np.cross(u, v) @ phantom.geometry.normal_lps) > np.cos(np.radians(1.0))
    parts = np.arange(placement.width_fraction, 0.2, -0.06)
    best, area = None, 0.0
    for ahead in (0.0, 0.08, 0.16, 0.24):
        center = truth.frame.lps([0, -ahead * truth.depth_mm, height_mm])
        if snap:
            center = _on_slice(phantom.geometry, center)
        for deep in parts:
            for wide in parts:
                axes = (truth.width_mm * wide / 2, truth.depth_mm * deep / 2)
                if axes[0] * axes[1] <= area:
                    break
                ellipse = Ellipse(position, center, u, v, axes)
                if _clear(phantom, truth.level, ellipse, placement):
                    best, area = ellipse, axes[0] * axes[1]
                    break
    if best is None:
        raise SpineImgError(f"{truth.level} of this phantom leaves no room for the {position} ROI")
    return best


def _on_slice(geometry: Geometry, point: FloatArray) -> FloatArray:
    k, _ = geometry.nearest_slice(point)
    return np.asarray(point + (geometry.positions_mm[k] - point @ geometry.normal_lps) * geometry.normal_lps)


def _clear(phantom: Phantom, level: str, ellipse: Ellipse, placement: Placement) -> bool:
    """True when the ellipse lies in plain trabecular bone, with its distances kept."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    rings = np.concatenate([np.stack([np.cos(turn), np.sin(turn)], axis=-1) * s for s in (0.0, 0.3, 0.6, 0.8, 1.0)])
    a, b = ellipse.semi_axes_mm
    points = Points(ellipse.center_lps_mm + a * rings[:, :1] * ellipse.u_lps + b * rings[:, 1:] * ellipse.v_lps)
    filling = phantom.filling(level)
    wall, top, bottom = filling.body.surfaces(points)
    half = phantom.imaging.thickness_mm / 2
    return bool(
        wall.max() < -placement.wall_mm
        and max(top.max(), bottom.max()) < -(half + 1.5)
        and filling.clear(points, placement.vein_mm + half * 0.5).all()
    )


def roi_set(phantom: Phantom, construct: Construct, plane: str = "endplate") -> RoiSet:
    """ROIs of the construct's ends, as a careful reader would place them; a click alone where there is no room."""
    levels = [level for level in (construct.uiv, construct.liv) if level]
    if phantom.implants is not None:
        screwed = {screw.spec.level for screw in phantom.implants.screws}
        # Metal lies where the ROIs would: clicks that name the levels.
        clicks = [VertebraRoi(v.level, body_truth(v).frame.center_lps_mm) for v in phantom.layout if v.level in screwed]
        return RoiSet(tuple(clicks), construct, "phantom")
    vertebrae = []
    for level in dict.fromkeys(levels):
        try:
            placed = ellipses(phantom, level, plane)
        except SpineImgError:
            placed = ()
        vertebrae.append(VertebraRoi(level, body_truth(phantom.vertebra(level)).frame.center_lps_mm, placed))
    return RoiSet(tuple(vertebrae), construct, "phantom")


def roi_json(rois: RoiSet) -> dict[str, Any]:
    """The `spineimg.rois/1` form of ROIs with ellipses."""
    return {
        "schema": "spineimg.rois/1",
        "reader": rois.reader,
        "construct": {"uiv": rois.construct.uiv, "liv": rois.construct.liv},
        "vertebrae": [
            {"level": v.level, "center": _numbers(v.center_lps_mm)}
            | ({"slices": [_ellipse_json(e) for e in v.ellipses]} if v.ellipses else {})
            for v in rois.vertebrae
        ],
    }


def _ellipse_json(ellipse: Ellipse) -> dict[str, Any]:
    return {
        "position": ellipse.position,
        "center": _numbers(ellipse.center_lps_mm),
        "u": _numbers(ellipse.u_lps, 6),
        "v": _numbers(ellipse.v_lps, 6),
        "semi_axes_mm": _numbers(ellipse.semi_axes_mm),
    }


def _numbers(values: Any, digits: int = 3) -> list[float]:
    return [round(float(v), digits) + 0.0 for v in values]


# -- everything, for the file -----------------------------------------------------------------------------------------


def truth_json(phantom: Phantom, rois: Mapping[str, RoiSet]) -> dict[str, Any]:
    """All that is known of a phantom. `rois`: plane ("endplate", "scanner") -> ROIs whose true means are listed."""
    layout = phantom.layout
    geometry = phantom.geometry
    return {
        "schema": TRUTH_SCHEMA,
        "recipe": phantom.name,
        "seed": phantom.seed,
        "geometry": {
            "shape": list(geometry.shape),
            "spacing_mm": _numbers(geometry.spacing_mm, 6),
            "first_voxel": _numbers(geometry.origins_lps_mm[0]),
            "last_slice_first_voxel": _numbers(geometry.origins_lps_mm[-1]),
            "row_step": _numbers(geometry.row_step_lps_mm, 6),
            "column_step": _numbers(geometry.column_step_lps_mm, 6),
        },
        "imaging": _imaging_json(phantom),
        "levels": [_level_json(phantom, v) for v in layout if v.level in phantom.spine.levels],
        "sacrum": [_level_json(phantom, v) for v in layout if v.level == "S1"],
        "discs": [_disc_json(upper, lower) for upper, lower in pairwise(layout) if lower.level not in ("S2", "S3")],
        "canal": [_numbers(canal) for canal in _canal(phantom)],
        "screws": _screws_json(phantom),
        "rods": _rods_json(phantom),
        "rois": {plane: _means_json(phantom, its) for plane, its in rois.items()},
    }


def _imaging_json(phantom: Phantom) -> dict[str, Any]:
    imaging = phantom.imaging
    return {
        "kvp": imaging.kvp,
        "contrast": imaging.contrast_agent is not None,
        "psf_fwhm_mm": imaging.psf_fwhm_mm,
        "thickness_mm": imaging.thickness_mm,
        "profile_ramp_mm": imaging.ramp_mm,
        "noise_sd_hu": imaging.noise_sd_hu,
        "position": imaging.position,
        "tilt_deg": imaging.tilt_deg,
        "beam": beam_json(phantom.metal) if isinstance(phantom.metal, PostopSpec) else None,
    }


def whole(phantom: Phantom, level: str) -> bool:
    """True when all of a body lies in the image."""
    body = phantom.vertebra(level).body
    index = phantom.geometry.index_at(np.concatenate([rim_points(body, True), rim_points(body, False)]))
    return bool(((index >= 0) & (index <= np.array(phantom.geometry.shape) - 1)).all())


def _plane_json(plane: PlaneTruth) -> dict[str, Any]:
    return {"point": _numbers(plane.point_lps_mm), "normal": _numbers(plane.normal_lps, 6)}


def _level_json(phantom: Phantom, vertebra: Vertebra) -> dict[str, Any]:
    truth, filling, change = body_truth(vertebra), phantom.filling(vertebra.level), vertebra.change
    return {
        "level": vertebra.level,
        "whole": whole(phantom, vertebra.level),
        "center": _numbers(truth.frame.center_lps_mm),
        "left": _numbers(truth.frame.left_lps, 6),
        "posterior": _numbers(truth.frame.posterior_lps, 6),
        "cranial": _numbers(truth.frame.cranial_lps, 6),
        "superior_plane": _plane_json(truth.superior),
        "inferior_plane": _plane_json(truth.inferior),
        "width_mm": round(truth.width_mm, 3),
        "depth_mm": round(truth.depth_mm, 3),
        "height_mm": round(truth.height_mm, 3),
        "wedge_deg": round(truth.wedge_deg, 3),
        "trabecular_mean_hu": round(filling.mean_hu, 3),
        "fracture": {"wedge": change.wedge, "crush": change.crush},
        "osteophyte_mm": change.osteophyte_mm,
        "sclerosis_hu": change.sclerosis_hu,
        "lesions": [
            {"name": s.name, "center": _numbers(vertebra.frame.lps(s.center_mm)), "radius_mm": s.radius_mm, "hu": s.hu}
            for s in filling.spots
        ],
    }


def _disc_json(upper: Vertebra, lower: Vertebra) -> dict[str, Any]:
    top, bottom = endplate_plane(upper.body, superior=False), endplate_plane(lower.body, superior=True)
    return {
        "between": [upper.level, lower.level],
        "center": _numbers((top.point_lps_mm + bottom.point_lps_mm) / 2),
        "height_mm": round(float(np.linalg.norm(top.point_lps_mm - bottom.point_lps_mm)), 3),
        "state": upper.change.disc_below,
    }


def _canal(phantom: Phantom) -> list[FloatArray]:
    from spineimg.phantom.assembly import canal_center

    return [canal_center(v, phantom.spine) for v in phantom.layout]


def _screws_json(phantom: Phantom) -> list[dict[str, Any]]:
    if (implants := phantom.implants) is not None:
        bones = [implants.bone(screw.spec.level) for screw in implants.screws]
        return [
            screw_json(screw, implants.spec.material, bone, inside(bone))
            for screw, bone in zip(implants.screws, bones, strict=True)
        ]
    if not isinstance(phantom.metal, MetalSpec):
        return []
    return [
        {
            "id": f"{s.level}-{s.side}",
            "level": s.level,
            "side": s.side,
            "head": _numbers(s.head_lps_mm),
            "tip": _numbers(s.tip_lps_mm),
            "diameter_mm": s.diameter_mm,
            "length_mm": round(s.length_mm, 3),
            "hu": phantom.metal.screw_hu,
        }
        for s in screws(phantom.metal, phantom.layout, phantom.spine)
    ]


def _rods_json(phantom: Phantom) -> list[dict[str, Any]]:
    if phantom.implants is not None:
        return [rod_json(rod) for rod in phantom.implants.rods]
    if not isinstance(phantom.metal, MetalSpec):
        return []
    lines = rods(phantom.metal, phantom.layout, phantom.spine)
    return [
        {
            "id": side,
            "points": [_numbers(p) for p in line],
            "diameter_mm": phantom.metal.rod_diameter_mm,
            "hu": phantom.metal.rod_hu,
        }
        for side, line in lines.items()
    ]


def _means_json(phantom: Phantom, rois: RoiSet) -> list[dict[str, Any]]:
    return [
        {
            "level": v.level,
            "slices": [
                {
                    "position": e.position,
                    "true_mean_hu": round(phantom.true_mean_hu(e), 3),
                    "tissue_mean_hu": round(phantom.tissue_mean_hu(v.level, e), 3),
                }
                for e in v.ellipses
            ],
        }
        for v in rois.vertebrae
    ]
