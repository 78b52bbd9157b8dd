"""What metal does to the image outside itself: a physical basis of beam hardening, scatter and starvation.

X-rays that pass metal of path length L are logged as f(L) instead of a multiple of L; f depends on the spectrum, on
scatter and on the scanner's correction and is not known, but it is a smooth function of L. So is every combination of
1 - exp(-L/l) with l = 1.5, 5 and 15 mm. Filtered back-projection is linear: the back-projections of these three,
computed from the metal that was found, span the artefact, and a fit finds their amplitudes. Rays are taken as parallel
and in the slice plane. Only the places that are asked for are back-projected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import fft

from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.implants.profile import Blur
from spineimg.settings import setting

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.intp]

_VIEWS_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class HardeningSettings:
    """How finely metal is projected."""

    lengths_mm: tuple[float, ...] = setting(
        (1.5, 5.0, 15.0),
        "mm",
        (0.5, 50.0),
        "engineering choice: titanium of 3-50 mm, with saturation early and late",
        "Path lengths l of the basis 1 - exp(-L/l).",
    )
    views: int = setting(
        180,
        "views over 180°",
        (60, 1440),
        "engineering choice: twice as many change the fitted width by less than 0.02 mm",
        "Number of directions.",
    )
    ray_mm: float = setting(
        0.2,
        "mm",
        (0.1, 1.0),
        "engineering choice: rays 0.4 mm apart miss the metal's edge by enough to paint 40 HU",
        "Distance between rays.",
    )
    reach_mm: float = setting(
        75.0,
        "mm",
        (30.0, 250.0),
        "engineering choice: holds both screws and rods of a level",
        "Metal farther than this from the screw's middle is left out.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class Cylinder:
    """A solid cylinder between two points, (3,) LPS mm."""

    start_lps_mm: FloatArray
    end_lps_mm: FloatArray
    radius_mm: float


@dataclass(frozen=True, eq=False, slots=True)
class Metal:
    """All metal of a scan: cylinders where the shape is known, and the voxels of everything else.

    points_lps_mm: (n, 3) centres of metal voxels outside the cylinders; voxel_area_mm2: their area in the slice plane;
    step_mm: distance between slices.
    """

    cylinders: tuple[Cylinder, ...] = ()
    points_lps_mm: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    voxel_area_mm2: float = 0.25
    step_mm: float = 1.0


def hardening_basis(
    points_lps_mm: FloatArray,
    metal: Metal,
    geometry: Geometry,
    blur: Blur,
    settings: HardeningSettings | None = None,
) -> FloatArray:
    """(n, lengths) basis at (n, 3) places, in 1/mm, blurred like the image."""
    chosen = settings or HardeningSettings()
    frame = _Frame.of(geometry, points_lps_mm)
    flat = frame.coordinates(points_lps_mm)
    step = float(np.clip(0.6 * blur.across_mm, 0.2, 0.5))
    margin = 2.5 * blur.across_mm
    low, high = float(flat[:, 2].min()) - margin, float(flat[:, 2].max()) + margin
    heights = np.arange(low, high + step, step)
    solids = [
        (frame.coordinates(np.stack([one.start_lps_mm, one.end_lps_mm])), one.radius_mm) for one in metal.cylinders
    ]
    theta, s = _rays(chosen)
    layers = list(_layers(frame, heights, metal, s))
    target = _Target.of(flat, heights, blur)
    out = np.zeros((len(flat), len(chosen.lengths_mm)))
    # A few views at a time stay in the processor's cache.
    for first in range(0, len(theta), _VIEWS_AT_ONCE):
        part = theta[first : first + _VIEWS_AT_ONCE]
        paths = np.zeros((len(heights), len(part), len(s)), dtype=np.float32)
        for ends, radius in solids:
            _add_cylinder(paths, ends, radius, heights, part, s)
        for layer in layers:
            layer.add_to(paths, part, s)
        # Most rays miss the metal at every height.
        hit = np.flatnonzero(paths.any(axis=0))
        lengths = paths.reshape(len(heights), -1)[:, hit]
        shorter = np.zeros((len(chosen.lengths_mm), len(target.across), *paths.shape[1:]), dtype=np.float32)
        for value, length in zip(shorter, chosen.lengths_mm, strict=True):
            value.reshape(len(value), -1)[:, hit] = target.across @ -np.expm1(lengths * np.float32(-1 / length))
        _back_project(out, shorter, target, part, s)
    return out * np.pi / len(theta)


@dataclass(frozen=True, eq=False, slots=True)
class _Frame:
    """Axes (3, 3) as columns: column direction, the direction at right angles in the slice plane, slice normal."""

    center_lps_mm: FloatArray
    axes: FloatArray

    @classmethod
    def of(cls, geometry: Geometry, points: FloatArray) -> _Frame:
        first = unit(geometry.column_step_lps_mm)
        normal = geometry.normal_lps
        return cls(points.mean(axis=0), np.stack([first, np.cross(normal, first), normal], axis=1))

    def coordinates(self, points_lps_mm: FloatArray) -> FloatArray:
        return np.asarray((np.asarray(points_lps_mm) - self.center_lps_mm) @ self.axes)


def _rays(settings: HardeningSettings) -> tuple[FloatArray, FloatArray]:
    """(angles, places): (views,) radians and (rays,) signed distances from the centre, mm."""
    theta = (np.arange(settings.views) + 0.5) * np.pi / settings.views
    count = int(settings.reach_mm / settings.ray_mm)
    return theta, np.asarray(np.arange(-count, count + 1) * settings.ray_mm, dtype=np.float64)


def _add_cylinder(
    paths: Float32Array, ends: FloatArray, radius: float, heights: FloatArray, theta: FloatArray, s: FloatArray
) -> None:
    """Adds the chords of a finite cylinder.

    A ray at (theta, s) in the plane of height z is s (cos, sin, 0) + u (-sin, cos, 0) + (0, 0, z). With d the axis
    and p the ray's origin from the start, |p + u m - ((p + u m) . d) d|^2 = radius^2 and 0 < (p + u m) . d < length.
    """
    length = float(np.linalg.norm(ends[1] - ends[0]))
    d = (ends[1] - ends[0]) / length
    low = ends[:, 2].min() - radius * np.sqrt(max(0.0, 1 - d[2] ** 2))
    high = ends[:, 2].max() + radius * np.sqrt(max(0.0, 1 - d[2] ** 2))
    planes = np.flatnonzero((heights > low) & (heights < high))
    middle = ends[:, :2].mean(axis=0)
    if not len(planes) or np.hypot(*middle) > s[-1] + length / 2:
        return
    z = heights[planes][:, None]
    for view, angle in enumerate(theta):
        e, m = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        on = ends[:, :2] @ e
        first, last = np.searchsorted(s, [on.min() - radius, on.max() + radius])
        if first >= last:
            continue
        px = s[first:last] * e[0] - ends[0, 0]
        py = s[first:last] * e[1] - ends[0, 1]
        pz = z - ends[0, 2]
        md = m[0] * d[0] + m[1] * d[1]
        pd = (px * d[0] + py * d[1])[None] + pz * d[2]
        pm = (px * m[0] + py * m[1])[None]
        pp = (px**2 + py**2)[None] + pz**2
        a = max(1 - md**2, 1e-9)
        b = pm - pd * md
        root = b**2 - a * (pp - pd**2 - radius**2)
        reach = np.sqrt(np.maximum(root, 0)) / a
        near, far = -b / a - reach, -b / a + reach
        if abs(md) > 1e-6:
            start, end = (0.0, length) if md > 0 else (length, 0.0)
            chord = np.minimum(far, (end - pd) / md) - np.maximum(near, (start - pd) / md)
        else:
            chord = np.where((pd > 0) & (pd < length), far - near, 0)
        paths[planes, view, first:last] += np.where(root > 0, np.maximum(chord, 0), 0)


@dataclass(frozen=True, eq=False, slots=True)
class _Layer:
    """Metal voxels of one slice. flat_mm: (n, 2). planes: where they count. share_mm: what each adds to its ray."""

    flat_mm: FloatArray
    planes: IntArray
    share_mm: float

    def add_to(self, paths: Float32Array, theta: FloatArray, s: FloatArray) -> None:
        """Adds voxels as area spread over the two nearest rays."""
        at = (self.flat_mm @ np.stack([np.cos(theta), np.sin(theta)]) - s[0]) / (s[1] - s[0])
        low = np.clip(at.astype(np.intp), 0, len(s) - 2)
        part = ((at - low) * self.share_mm).ravel()
        low += np.arange(len(theta)) * len(s)
        size = len(theta) * len(s)
        total = np.bincount(low.ravel(), self.share_mm - part, size)
        total += np.bincount(low.ravel() + 1, part, size)
        paths[self.planes] += total.reshape(len(theta), len(s)).astype(np.float32)


def _layers(frame: _Frame, heights: FloatArray, metal: Metal, s: FloatArray) -> Iterator[_Layer]:
    """Metal voxels by slice, as far as they lie near the heights and within reach of the rays."""
    if not len(metal.points_lps_mm):
        return
    step = float(heights[1] - heights[0]) if len(heights) > 1 else metal.step_mm
    thick = max(metal.step_mm, step)
    # Planes that reach several slices hold each of them once, or the metal would be counted twice.
    share = metal.voxel_area_mm2 / (s[1] - s[0]) * metal.step_mm / thick
    points = frame.coordinates(metal.points_lps_mm)
    near = (points[:, 2] >= heights[0] - thick) & (points[:, 2] <= heights[-1] + thick)
    points = points[near & (np.hypot(points[:, 0], points[:, 1]) < s[-1])]
    levels, which = np.unique(np.round(points[:, 2], 3), return_inverse=True)
    for number in range(len(levels)):
        here = points[which == number]
        planes = np.flatnonzero(np.abs(here[0, 2] - heights) <= thick / 2 + 1e-6)
        if len(planes):
            yield _Layer(here[:, :2], planes, float(share))


@dataclass(frozen=True, eq=False, slots=True)
class _Target:
    """Where the image is wanted.

    flat_mm: (n, 2). level: (n,) which height; across: (levels, heights) weights of planes. blur_mm: in the slice plane.
    """

    flat_mm: FloatArray
    level: IntArray
    across: Float32Array
    blur_mm: float

    @classmethod
    def of(cls, flat: FloatArray, heights: FloatArray, blur: Blur) -> _Target:
        levels, which = np.unique(np.round(flat[:, 2], 3), return_inverse=True)
        across = np.exp(-0.5 * ((levels[:, None] - heights) / blur.across_mm) ** 2)
        across = (across / across.sum(axis=1, keepdims=True)).astype(np.float32)
        return cls(flat[:, :2], which, across, blur.in_plane_mm)


def _back_project(out: FloatArray, values: Float32Array, target: _Target, theta: FloatArray, s: FloatArray) -> None:
    """Adds the filtered back-projection of (lengths, levels, views, rays) to (n, lengths)."""
    ray = float(s[1] - s[0])
    size = fft.next_fast_len(2 * len(s), real=True)
    frequency = fft.rfftfreq(size, ray)
    ramp = (frequency * np.exp(-2 * (np.pi * frequency * target.blur_mm) ** 2)).astype(np.float32)
    filtered = []
    for value in values:
        whole = fft.irfft(fft.rfft(value, size, axis=2) * ramp, size, axis=2)[:, :, : len(s)]
        filtered.append(whole.transpose(1, 0, 2).reshape(len(theta), -1))
    base = target.level * len(s)
    for view, angle in enumerate(theta):
        at = (target.flat_mm @ np.array([np.cos(angle), np.sin(angle)]) - s[0]) / ray
        low = at.astype(np.intp)
        part = at - low
        low += base
        for number, image in enumerate(filtered):
            row = image[view]
            out[:, number] += row[low] * (1 - part) + row[low + 1] * part
