"""Three ROIs in a vertebral body: under the superior endplate, in the middle, above the inferior endplate.

On each plane every place that must not be measured is marked: near the wall, near an endplate, where the basivertebral
vein leaves the body, and around anything as bright as cortex or metal. The ROI is the largest ellipse free of marks, up
to a part of the body's width and depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.errors import RoiError
from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.rois import POSITIONS, Ellipse
from spineimg.sampling import PlaneRefusedError, SliceReader, sample_ellipse
from spineimg.settings import setting
from spineimg.threads import one_blas_thread
from spineimg.vertebra.body import Body
from spineimg.volume import CTVolume

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlacementSettings:
    """How far ROIs keep from what is not trabecular bone."""

    endplate_mm: float = setting(
        4.3,
        "mm",
        (2, 10),
        "engineering choice: concavity 1.5-3 mm; less read 3-6 HU too high",
        "from an endplate plane",
    )
    endplate_slices: float = setting(
        0.6, "slice", (0, 2), "engineering choice: half a slice and its flank", "and so many slice spacings more"
    )
    least_spread: float = setting(
        0.1,
        "1",
        (0, 0.25),
        "engineering choice: quartiles of a low body read 10-60 HU too high",
        "of the height, outer planes stand at least so far from the middle",
    )
    wall_mm: float = setting(
        3.0, "mm", (1, 8), "spill-in of a 0.35 mm shell: 4 HU at 1.5 mm, 0.1 HU at 2 mm (FWHM 1.2 mm)", "from the wall"
    )
    vein_back: float = setting(
        -0.03,
        "1",
        (-0.3, 0.5),
        "basivertebral vein: a wedge in the posterior half",
        "the mid ROI ends so far behind the middle, of the depth",
    )
    vein_mm: float = setting(
        4.0,
        "mm",
        (0, 10),
        "basivertebral vein: 4-6 mm high, and blur",
        "a plane this near to mid-height keeps off the vein",
    )
    largest: float = setting(0.68, "1", (0.3, 0.9), "0.6-0.7 of width and depth", "largest axis over the body's")
    bright_hu: float = setting(
        150.0,
        "HU",
        (50, 500),
        "engineering choice: cortex 300 HU and more above trabeculae",
        "above the median of the middle, or four SD, a place is cortex",
    )
    bright_mm: float = setting(
        1.5, "mm", (0, 5), "engineering choice: the blur of a bright voxel", "kept from such places"
    )
    least_area_mm2: float = setting(
        60.0, "mm²", (20, 300), "engineering choice: SE 3 HU at SD 20 HU", "a smaller ROI is none"
    )


class PlacementError(RoiError):
    """A body leaves no room for a ROI."""


@one_blas_thread
def place_rois(
    volume: CTVolume, body: Body, plane: str = "endplate", settings: PlacementSettings | None = None
) -> tuple[Ellipse, Ellipse, Ellipse]:
    """Three ROIs, superior to inferior.

    plane: "endplate" for planes parallel to the mid-plane of the endplates, "scanner" for original slices.
    Raises PlacementError when a plane leaves no room, PixelError for slices that cannot be read.
    """
    chosen = settings or PlacementSettings()
    geometry = volume.geometry
    if plane == "endplate":
        u, v = body.left_lps, body.posterior_lps
    else:
        u, v = _slice_directions(geometry, body)
    in_slices = abs(float(np.cross(u, v) @ geometry.normal_lps)) > _IN_SLICES
    spacing = geometry.spacing_mm[0]
    # Voxels that contribute to a plane reach half a slice away from it, and a spacing more when it is interpolated.
    reach = (volume.acquisition.slice_thickness_mm or spacing) / 2 + (0.0 if in_slices else spacing)
    site = _Site(SliceReader(volume), body, u, v, in_slices, reach, _insets_mm(body, spacing, reach, chosen), chosen)
    first, second, third = (
        _largest(site, position, height)
        for position, height in zip(POSITIONS, _heights_mm(body, site.insets_mm, chosen), strict=True)
    )
    return first, second, third


@dataclass(frozen=True, eq=False, slots=True)
class _Site:
    """A body, the directions of its planes, and how far they keep from the superior and the inferior endplate."""

    reader: SliceReader
    body: Body
    u_lps: FloatArray
    v_lps: FloatArray
    in_slices: bool
    reach_mm: float
    insets_mm: tuple[float, float]
    settings: PlacementSettings


def _slice_directions(geometry: Geometry, body: Body) -> tuple[FloatArray, FloatArray]:
    """Directions in the slices nearest to the body's left and posterior."""
    normal = geometry.normal_lps
    v = unit(body.posterior_lps - (body.posterior_lps @ normal) * normal)
    normal = normal * np.sign(normal @ body.cranial_lps)
    return np.cross(v, normal), v


def _insets_mm(body: Body, spacing: float, reach: float, settings: PlacementSettings) -> tuple[float, float]:
    """Distance of the outer planes from the superior and the inferior endplate: more below a deeply hollow one."""
    plain = max(settings.endplate_mm + settings.endplate_slices * spacing, _MIDDLE_BELOW_PLANE_MM + reach)
    extra = [_HOLLOW_PART * max(0.0, end.concavity_mm - _USUAL_HOLLOW_MM) for end in (body.superior, body.inferior)]
    return plain + extra[0], plain + extra[1]


def _heights_mm(body: Body, insets_mm: tuple[float, float], settings: PlacementSettings) -> tuple[float, float, float]:
    """Heights of the planes above the body's centre along its axis.

    In a low body the outer planes move towards the middle, down to a tenth of the height from it.
    """
    above, below = (max(body.height_mm / 2 - inset, settings.least_spread * body.height_mm) for inset in insets_mm)
    return above, (above - below) / 2, -below


def _largest(site: _Site, position: str, height_mm: float) -> Ellipse:
    """The largest ellipse on one plane."""
    body, u, v = site.body, site.u_lps, site.v_lps
    center = body.center_lps_mm + np.array([*body.outline_mm.mean(axis=0), height_mm]) @ body.axes
    geometry = site.reader.volume.geometry
    if site.in_slices:
        k, _ = geometry.nearest_slice(center)
        center = center + (geometry.positions_mm[k] - center @ geometry.normal_lps) * geometry.normal_lps
    try:
        samples = sample_ellipse(
            site.reader, Ellipse(position, center, u, v, (body.width_mm / 2 + 3, body.depth_mm / 2 + 3))
        )
    except PlaneRefusedError as refused:
        raise PlacementError(f"the {position} plane cannot be measured: {refused}") from refused
    bad = _near_edges(site, (samples.points_lps_mm - body.center_lps_mm) @ body.axes.T, height_mm) | ~samples.valid
    flat = (samples.points_lps_mm - center) @ np.stack([u, v], axis=1)
    bad |= _near_bright(flat, samples.hu, bad, np.sqrt(samples.sample_area_mm2), site.settings)
    place, axes = _fit(flat[bad], (body.width_mm, body.depth_mm), site.settings)
    area = np.pi * axes[0] * axes[1]
    if area < site.settings.least_area_mm2:
        raise PlacementError(
            f"the {position} plane leaves no room for a ROI: {area:.0f} mm² are free of wall, endplate and bright bone "
            f"(needed {site.settings.least_area_mm2:g} mm²)"
        )
    return Ellipse(position, center + place[0] * u + place[1] * v, u, v, axes)


def _near_edges(site: _Site, local: FloatArray, height_mm: float) -> BoolArray:
    """Places too near to the wall or an endplate, or in the region of the vein. local: (n, 3) in the body's axes."""
    from scipy.spatial import cKDTree

    body, settings = site.body, site.settings
    bad = ~_inside(body.outline_mm, local[:, :2])
    wall, _ = cKDTree(_dense(body.outline_mm)).query(local[~bad, :2], distance_upper_bound=settings.wall_mm)
    bad[~bad] = np.isfinite(wall)
    for end, sign, inset in ((body.superior, 1.0, site.insets_mm[0]), (body.inferior, -1.0, site.insets_mm[1])):
        least = min(inset, body.height_mm / 2 - sign * height_mm) - _SLACK_MM
        point = (end.point_lps_mm - body.center_lps_mm) @ body.axes.T
        depth = -sign * (local - point) @ (body.axes @ end.normal_lps)
        bad |= depth < max(least, site.reach_mm - _OVERLAP_MM)
    if abs(height_mm) < settings.vein_mm + site.reader.volume.geometry.spacing_mm[0] / 2:
        bad |= local[:, 1] > body.outline_mm[:, 1].mean() + settings.vein_back * body.depth_mm
    return np.asarray(bad)


def _dense(outline: FloatArray) -> FloatArray:
    """The outline with a point between each two."""
    return np.concatenate([outline, (outline + np.roll(outline, -1, axis=0)) / 2])


def _inside(outline: FloatArray, places: FloatArray) -> BoolArray:
    """(n,) True for places (n, 2) inside the outline, which its mean sees all around."""
    middle = outline.mean(axis=0)
    angle = np.arctan2(*(outline - middle).T[::-1])
    order = np.argsort(angle)
    radius = np.linalg.norm(outline - middle, axis=1)[order]
    x = places - middle
    edge = np.interp(np.arctan2(x[:, 1], x[:, 0]), angle[order], radius, period=2 * np.pi)
    return np.asarray(np.hypot(x[:, 0], x[:, 1]) < edge)


def _near_bright(
    flat: FloatArray, hu: FloatArray, bad: BoolArray, pixel_mm: float, settings: PlacementSettings
) -> BoolArray:
    """Places within reach, at least a pixel, of anything as bright as cortex. flat: (n, 2) mm in the plane."""
    from scipy.spatial import cKDTree

    near = np.zeros(len(hu), dtype=bool)
    inner = hu[~bad]
    if len(inner) < 10:
        return near
    median = float(np.median(inner))
    spread = 1.4826 * float(np.median(np.abs(inner - median)))
    bright = ~bad & (hu > median + max(settings.bright_hu, 4 * spread))
    if bright.any():
        away, _ = cKDTree(flat[bright]).query(flat, distance_upper_bound=max(settings.bright_mm, pixel_mm))
        near = np.isfinite(away)
    return near


def _fit(
    marked: FloatArray, size_mm: tuple[float, float], settings: PlacementSettings
) -> tuple[FloatArray, tuple[float, float]]:
    """Centre (2,) and semi-axes of the largest ellipse that holds no marked place (n, 2)."""
    limit = settings.largest / 2 * np.array(size_mm)
    across = np.linspace(-0.12, 0.12, 5) * size_mm[0]
    along = np.linspace(-0.26, 0.10, 10) * size_mm[1]
    centers = np.stack(np.meshgrid(across, along, indexing="ij"), axis=-1).reshape(-1, 2)
    # Marks out of reach of every centre bound nothing.
    near = (np.abs(marked) < np.abs(centers).max(axis=0) + limit).all(axis=1)
    # Half as many bytes: a distance is good to a nanometre or so, and time is memory's here.
    bounding, own = marked[near].astype(np.float32), centers.astype(np.float32)
    across_2, along_2 = (np.square(bounding[:, axis] - own[:, axis, None]) for axis in (0, 1))
    best, place, axes = 0.0, centers[0], (0.1, 0.1)
    away = np.empty_like(across_2)
    for ratio in _RATIOS:
        np.divide(across_2, np.float32(ratio**2), out=away)
        away += along_2
        reach = np.sqrt(away.min(axis=1, initial=np.inf))
        deep = np.minimum(np.minimum(reach, limit[1]), limit[0] / ratio)
        # Of two equal ellipses the one nearer to the midline.
        worth = ratio * deep**2 * (1 - 0.3 * np.abs(centers[:, 0]) / size_mm[0])
        i = int(worth.argmax())
        if worth[i] > best:
            best, place, axes = float(worth[i]), centers[i], (float(ratio * deep[i]), float(deep[i]))
    return place, axes


_SLACK_MM = 1.2
"""A plane parallel to the mid-plane may come so much nearer to the endplate of a wedged body at its edge."""
_OVERLAP_MM = 0.5
"""The far edge of a slice profile may touch the endplate plane by so much: it weighs little there."""
_IN_SLICES = float(np.cos(np.radians(0.05)))
_MIDDLE_BELOW_PLANE_MM = 1.0
"""The middle of a usual endplate lies so far below its plane: 0.35 of 1.5-3 mm."""
_HOLLOW_PART, _USUAL_HOLLOW_MM = 0.35, 2.5
"""The middle of an endplate lies 0.35 of its concavity below its plane."""
_RATIOS = np.arange(0.8, 2.6, 0.15)
"""Shapes tried: width over depth."""
