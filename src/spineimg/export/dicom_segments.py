"""What of a result is shown as segments: ROIs, vertebral bodies, screws, rods, lucent zones, metal.

The ROI of an original slice is the voxels that were measured. The ROI of a resampled plane is the voxels whose centres
lie within half a slice of the plane and, seen along its normal, in the ellipse: a sheet one voxel thick. A screw is the
voxels whose centres lie in the cylinder of its outer thread. Segments may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spineimg import coding
from spineimg.coding import Code
from spineimg.export.dicom_groups import Groups
from spineimg.export.dicom_planes import Plane
from spineimg.export.implant_voxels import Index, halo_index, metal_index, rod_index, shaft_index
from spineimg.export.restored import restored_screen
from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.model import ImplantScreen
from spineimg.vertebra.body import Body
from spineimg.vertebra.described import body_from_dict
from spineimg.volume import CTVolume

_EDGE = 1e-9


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """One thing to show. kind: a key of `coding.SEGMENT_CODES`; site: code of the vertebra, None when unknown.

    index: the voxels that it holds; may be empty, and then it is left out.
    """

    name: str
    kind: str
    index: Index
    site: Code | None = None


def segments_of(groups: Groups) -> list[Segment]:
    """The ROIs of a result, the bodies that clicks found, and what its implant screen found."""
    volume = groups.source.volume
    found = [
        Segment(f"{plane.name} ROI", "roi", _roi_index(volume.geometry, plane), _site(plane.level))
        for planes in groups.planes
        for plane in planes
        if plane.ellipse is not None and plane.slices
    ]
    bodies = ((one["level"], one.get("body")) for one in groups.document["vertebrae"])
    found += [
        Segment(f"{level} body", "body", body_index(volume.geometry, body_from_dict(body)), _site(level))
        for level, body in bodies
        if body
    ]
    screen = restored_screen(groups.document)
    return found if screen is None else [*found, *implant_segments(volume, screen)]


def implant_segments(volume: CTVolume, screen: ImplantScreen) -> list[Segment]:
    """Screws, the lucent zones around them, rods, and all voxels of metal of whatever they are part."""
    geometry = volume.geometry
    sized = [one for one in screen.screws if np.isfinite(one.shaft.diameter_mm)]
    screws = [Segment(one.id, "screw", shaft_index(geometry, one.shaft), _site(one.level)) for one in sized]
    halos = [Segment(f"{one.id} halo", "halo", halo_index(geometry, one), _site(one.level)) for one in sized]
    rods = [Segment(f"rod {one.id}", "metal", rod_index(geometry, one)) for one in screen.rods]
    return [*screws, *rods, *halos, Segment("metal", "metal", metal_index(volume))]


def _site(level: str | None) -> Code | None:
    return coding.LEVEL_CODES.get(str(level))


# -- voxels -----------------------------------------------------------------------------------------------------------


def body_index(geometry: Geometry, body: Body) -> Index:
    """(n, 3) voxels between the endplate planes of a body, within its outline at mid-height."""
    from matplotlib.path import Path as Outline

    edge = body.outline_mm @ body.axes[:2]
    reach = 0.75 * body.height_mm + body.depth_mm * abs(np.sin(np.radians(body.wedge_deg)))
    corners = body.center_lps_mm + np.concatenate([edge + sign * reach * body.cranial_lps for sign in (-1, 1)])
    index = _box(geometry, corners)
    places = geometry.lps_at(index)
    under = (places - body.superior.point_lps_mm) @ body.superior.normal_lps <= 0
    over = (places - body.inferior.point_lps_mm) @ body.inferior.normal_lps >= 0
    index, places = index[under & over], places[under & over]
    held: Index = index[Outline(body.outline_mm).contains_points((places - body.center_lps_mm) @ body.axes[:2].T)]
    return held


def _roi_index(geometry: Geometry, plane: Plane) -> Index:
    """(n, 3) voxels of an ROI: those measured on its slice, or the sheet of voxels along its resampled plane."""
    ellipse = plane.ellipse
    if ellipse is None:
        raise ValueError(f"{plane.name} has no ellipse")
    a, b = ellipse.semi_axes_mm
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    corners = ellipse.center_lps_mm + signs @ np.stack([a * ellipse.u_lps, b * ellipse.v_lps])
    index = _box(geometry, corners, plane.on_slice)
    offset = geometry.lps_at(index) - ellipse.center_lps_mm
    inside = (offset @ ellipse.u_lps / a) ** 2 + (offset @ ellipse.v_lps / b) ** 2 <= 1 + _EDGE
    if plane.on_slice is None:
        inside &= np.abs(offset @ ellipse.normal_lps) <= _half_voxel_mm(geometry, ellipse.normal_lps) + _EDGE
    held: Index = index[inside]
    return held


def _box(geometry: Geometry, points_lps_mm: FloatArray, on_slice: int | None = None) -> Index:
    """(n, 3) all voxels of the volume in the box of indices around some points, one voxel wider; or of one slice."""
    at = geometry.index_at(points_lps_mm)
    if on_slice is not None:
        row, column = geometry.in_plane(points_lps_mm - geometry.origins_lps_mm[on_slice])
        at = np.stack([np.full_like(row, on_slice), row, column], axis=1)
    low = np.maximum(np.floor(at.min(axis=0)).astype(np.intp) - 1, 0)
    high = np.minimum(np.ceil(at.max(axis=0)).astype(np.intp) + 1, np.array(geometry.shape) - 1)
    ranges = [np.arange(start, stop + 1) for start, stop in zip(low, high, strict=True)]
    if on_slice is not None:
        ranges[0] = np.array([on_slice])
    index: Index = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    return index


def _half_voxel_mm(geometry: Geometry, normal_lps: FloatArray) -> float:
    """Half the longest way that one voxel's step goes along a normal: for a plane near to the slices half a slice."""
    step = (geometry.origins_lps_mm[-1] - geometry.origins_lps_mm[0]) / max(1, geometry.shape[0] - 1)
    steps = np.stack([step, geometry.row_step_lps_mm, geometry.column_step_lps_mm])
    return float(np.abs(steps @ normal_lps).max()) / 2
