"""Shapes with signed distances, and how they are painted over one another.

A shape gives two distances in mm, negative inside: to its outer surface and to the inner surface of its shell. A part
paints the union of shapes. Every edge is a step convolved with a Gaussian of `soft_mm` across it, so the field is
smooth on that scale and can be sampled without aliasing; the rest of the scanner's blur is added by convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, unit
from spineimg.phantom.samples import Field, Frame, Samples, joined

_FAR_MM = np.float32(50.0)
_TABLE = 4096


class Shape(Protocol):
    @property
    def bounds_lps_mm(self) -> FloatArray:
        """(2, 3) box around the shape with 1 mm to spare."""
        ...

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        """Signed distance to the outer and to the inner surface, mm, good within a few mm of them."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Canvas:
    """What is painted so far: coverage (0-1) and coverage times HU, both of the shape of the samples."""

    alpha: Field
    weighted_hu: Field

    @classmethod
    def blank(cls, shape: tuple[int, ...]) -> Canvas:
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def over(self, hu: Field) -> Field:
        """The painting in front of a background."""
        return np.asarray(hu * (1 - self.alpha) + self.weighted_hu)


@dataclass(frozen=True, eq=False)
class Strut:
    """A rod of elliptic cross-section with rounded ends, e.g. a pedicle, a rib segment, a vessel, a screw.

    start, end: (3,) LPS mm. side: (3,) roughly across. half_mm: half-widths along `side` and along the third axis.
    end_scale: the half-widths at the end as a fraction of those at the start. blunt: flat ends instead of round ones.
    """

    start_lps_mm: FloatArray
    end_lps_mm: FloatArray
    side_lps: FloatArray
    half_mm: tuple[float, float]
    shell_mm: float = 0.0
    end_scale: float = 1.0
    blunt: bool = False

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        spare = max(self.half_mm) * max(1.0, self.end_scale) + 1.0
        ends = np.stack([self.start_lps_mm, self.end_lps_mm])
        return np.asarray(np.stack([ends.min(axis=0) - spare, ends.max(axis=0) + spare]), dtype=np.float64)

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        axis = unit(self.end_lps_mm - self.start_lps_mm)
        length = np.float32(np.linalg.norm(self.end_lps_mm - self.start_lps_mm))
        side = unit(self.side_lps - (self.side_lps @ axis) * axis)
        run = samples.along(axis, self.start_lps_mm)
        at = np.clip(run, 0, length)
        scale = 1 + (np.float32(self.end_scale) - 1) * (at / length)
        first = samples.along(side, self.start_lps_mm) / scale
        second = samples.along(np.cross(axis, side), self.start_lps_mm) / scale
        a, b = (np.float32(half) for half in self.half_mm)
        first2, second2 = np.square(first / a), np.square(second / b)
        beyond2 = 0 if self.blunt else np.square((run - at) / (scale * min(a, b)))
        reach = np.sqrt(first2 + second2 + beyond2) + np.float32(1e-6)
        slope = np.sqrt(first2 / a**2 + second2 / b**2 + beyond2 / min(a, b) ** 2) + np.float32(1e-6 / max(a, b))
        outer = (reach - 1) * reach / slope * scale
        if self.blunt:
            outer = np.maximum(outer, np.maximum(-run, run - length))
        return outer, outer + np.float32(self.shell_mm)


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed curve around a centre: radius over the angle (from left towards posterior), one entry an angle step."""

    radius_mm: Field
    steepness: Field
    """Cosine of the angle between the curve's normal and the radius: turns a radial distance into a true one."""

    @classmethod
    def from_radius(cls, radius_mm: npt.NDArray[np.float64]) -> Outline:
        rate = (np.roll(radius_mm, -1) - np.roll(radius_mm, 1)) / (4 * np.pi / len(radius_mm))
        return cls(radius_mm.astype(np.float32), (1 / np.hypot(1, rate / radius_mm)).astype(np.float32))

    @staticmethod
    def angles() -> npt.NDArray[np.float64]:
        """(n,) the angle of each entry."""
        return np.asarray((np.arange(_TABLE) + 0.5) * (2 * np.pi / _TABLE) - np.pi, dtype=np.float64)

    def polar(self, left: Field, posterior: Field) -> tuple[Field, Field, Field]:
        """Distance from the centre, radius of the curve in that direction, and steepness there."""
        angle = np.arctan2(posterior, left)
        index = ((angle + np.float32(np.pi)) * np.float32(_TABLE / (2 * np.pi))).astype(np.int32)
        radius = np.take(self.radius_mm, index, mode="clip")
        return np.hypot(left, posterior), radius, np.take(self.steepness, index, mode="clip")


@dataclass(frozen=True, slots=True)
class Endplate:
    """One end of a body: height above the centre `rim_mm` at the middle of the rim, tilted and hollowed.

    Surface (superior; the inferior one is its mirror image in the mid-plane):
    z = rim + tilt_left * x + tilt_posterior * y - concavity * max(0, 1 - q²), with q = distance / outline radius.
    """

    rim_mm: float
    tilt_left: float = 0.0
    tilt_posterior: float = 0.0
    concavity_mm: float = 0.0
    shell_mm: float = 0.6

    def height(self, left: Any, posterior: Any, q2: Any) -> Any:
        """z of the surface, mm (mirrored for the inferior endplate)."""
        hollow = np.float32(self.concavity_mm) * np.maximum(0, 1 - q2)
        flat = np.float32(self.rim_mm) + np.float32(self.tilt_left) * left + np.float32(self.tilt_posterior) * posterior
        return flat - hollow

    @property
    def norm(self) -> float:
        return float(np.sqrt(1 + self.tilt_left**2 + self.tilt_posterior**2))


@dataclass(frozen=True, eq=False)
class Body:
    """A vertebral body: a waisted prism of any outline between two endplates, with a cortical shell.

    The wall's radius is outline * (waist + (1 - waist) * (z / half_height)²), at most 1.06 of the outline; osteophytes
    widen it towards the rims, `osteophyte_mm` being extra radius per angle of the outline.
    """

    frame: Frame
    outline: Outline
    half_height_mm: float
    superior: Endplate
    inferior: Endplate
    waist: float
    shell_mm: float
    osteophyte_mm: Field | None = None

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        extra = 0.0 if self.osteophyte_mm is None else float(self.osteophyte_mm.max())
        reach = float(self.outline.radius_mm.max()) * 1.06 + 1 + extra
        radius = float(self.outline.radius_mm.max())
        top, bottom = (
            end.rim_mm + radius * float(np.hypot(end.tilt_left, end.tilt_posterior)) + 1
            for end in (self.superior, self.inferior)
        )
        return self.frame.box([-reach, -reach, -bottom], [reach, reach, top])

    def surfaces(self, samples: Samples) -> tuple[Field, Field, Field]:
        """Signed distances to the wall, the superior and the inferior endplate, mm, negative inside."""
        left, posterior, cranial = self.frame.local(samples)
        distance, radius, steepness = self.outline.polar(left, posterior)
        height2 = np.square(cranial / np.float32(self.half_height_mm))
        widen = np.minimum(np.float32(self.waist) + np.float32(1 - self.waist) * height2, np.float32(1.06))
        wall_radius = radius * widen
        if self.osteophyte_mm is not None:
            angle = np.arctan2(posterior, left)
            index = ((angle + np.float32(np.pi)) * np.float32(_TABLE / (2 * np.pi))).astype(np.int32)
            near_rim = np.exp(-np.square((np.abs(cranial) - np.float32(self.half_height_mm)) / np.float32(3.0)))
            wall_radius = wall_radius + np.take(self.osteophyte_mm, index, mode="clip") * near_rim
        wall = (distance - wall_radius) * steepness
        q2 = np.square(distance / radius)
        top = (cranial - self.superior.height(left, posterior, q2)) / np.float32(self.superior.norm)
        bottom = (-cranial - self.inferior.height(left, posterior, q2)) / np.float32(self.inferior.norm)
        return wall, top, bottom

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        wall, top, bottom = self.surfaces(samples)
        outer = np.maximum(wall, np.maximum(top, bottom))
        top += np.float32(self.superior.shell_mm)
        bottom += np.float32(self.inferior.shell_mm)
        wall += np.float32(self.shell_mm)
        return outer, np.maximum(wall, np.maximum(top, bottom))


@dataclass(frozen=True, eq=False)
class Between:
    """What fills the space between two bodies: an outline cut by two planes. No shell.

    top and bottom: (point, unit normal that points out of the space), LPS.
    """

    frame: Frame
    outline: Outline
    top: tuple[FloatArray, FloatArray]
    bottom: tuple[FloatArray, FloatArray]
    reach_mm: float

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        radius = float(self.outline.radius_mm.max()) + 1
        return self.frame.box([-radius, -radius, -self.reach_mm], [radius, radius, self.reach_mm])

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        left, posterior, _ = self.frame.local(samples)
        distance, radius, steepness = self.outline.polar(left, posterior)
        outer = (distance - radius) * steepness
        for point, normal in (self.top, self.bottom):
            outer = np.maximum(outer, samples.along(normal, point))
        return outer, outer


Fill = Callable[[Samples], Field]
"""HU of tissue at points."""


@dataclass(frozen=True, eq=False)
class Part:
    """The union of shapes, with one shell HU around one filling."""

    name: str
    shapes: Sequence[Shape]
    fill: Fill
    shell_hu: float = 0.0

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        return joined([shape.bounds_lps_mm for shape in self.shapes])

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        outer, inner = np.full(samples.shape, _FAR_MM), np.full(samples.shape, _FAR_MM)
        for shape in self.shapes:
            seen = samples.within(shape.bounds_lps_mm)
            if seen is None:
                continue
            block, index = seen
            to_outer, to_inner = shape.distances(block)
            outer[index] = np.minimum(outer[index], to_outer)
            inner[index] = np.minimum(inner[index], to_inner)
        return outer, inner

    def paint(self, canvas: Canvas, samples: Samples, soft_mm: float) -> None:
        """Paints over what is there. Shell and filling are nested, so their blurred steps add up exactly."""
        from scipy.special import ndtr

        seen = samples.within(self.bounds_lps_mm)
        if seen is None:
            return
        block, index = seen
        outer, inner = self.distances(block)
        near = np.flatnonzero(outer.ravel() < np.float32(4 * soft_mm)).astype(np.int32)
        if not len(near):
            return
        whole = ndtr(outer.ravel().take(near) / np.float32(-soft_mm))
        core = ndtr(inner.ravel().take(near) / np.float32(-soft_mm))
        hu = np.float32(self.shell_hu) * (whole - core)
        filled = np.flatnonzero(core > 1e-5)
        hu[filled] += core.take(filled) * self.fill(block.picked(near.take(filled)))
        left_of_it = 1 - whole
        for target, added in ((canvas.alpha, whole), (canvas.weighted_hu, hu)):
            copy = np.ascontiguousarray(target[index])
            flat = copy.ravel()
            flat[near] = flat.take(near) * left_of_it + added
            target[index] = copy


def uniform(hu: float) -> Fill:
    """One HU everywhere."""

    def fill(points: Samples) -> Field:
        return np.full(points.shape, np.float32(hu))

    return fill
