"""What metal does to an image, slice by slice, on the image's own lattice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.phantom.parts import Part, Shape, uniform
from spineimg.phantom.projection import Beam, EllipticBody, Scanner, outlines_of, quanta_for
from spineimg.phantom.reduction import reduced
from spineimg.phantom.samples import Field, Planes, joined

_PLANE_MM = 0.3
"""Planes under a slice lie at most this far apart."""
_OUTLINE_MM = 0.15
"""Step of the lattice on which outlines of metal are followed; they are interpolated between its points."""


@dataclass(frozen=True, slots=True)
class Blur:
    """The image's blur: in-plane Gaussian, trapezoid slice profile, and the profile's own softness."""

    sigma_mm: float
    thickness_mm: float
    ramp_mm: float = 0.3
    soft_mm: float = 0.25

    def profile(self, step_mm: float) -> FloatArray:
        """(2n + 1,) weights of planes `step_mm` apart, sum 1."""
        half = (self.thickness_mm + self.ramp_mm) / 2 + 3 * self.soft_mm
        count = int(np.ceil(half / step_mm))
        fine = 20
        at = np.arange(-(count + 1) * fine, (count + 1) * fine + 1) * (step_mm / fine)
        edge = (self.thickness_mm + max(self.ramp_mm, 1e-6)) / 2 - np.abs(at)
        trapezoid = np.clip(edge / max(self.ramp_mm, 1e-6), 0, 1)
        bell = np.exp(-0.5 * np.square(at / self.soft_mm))
        shape = np.convolve(trapezoid, bell / bell.sum(), mode="same")
        # Each plane stands for the space around it.
        box = np.ones(fine + 1)
        box[[0, -1]] = 0.5
        weight = np.convolve(shape, box, mode="same")[fine:-fine:fine]
        return np.asarray(weight / weight.sum())


@dataclass(frozen=True, eq=False)
class MetalScene:
    """Metal in front of a lattice of slices.

    shapes: material -> shapes of it, not overlapping other materials. center_index: (row, column) of the isocentre.
    body: what else the beam crosses, in mm from the isocentre (x along columns, y along rows).
    """

    shapes: Mapping[str, Sequence[Shape]]
    geometry: Geometry
    blur: Blur
    beam: Beam
    body: EllipticBody
    center_index: tuple[float, float]
    noise_sd_hu: float = 0.0
    seed: int = 0

    @cached_property
    def _parts(self) -> dict[str, Part]:
        return {name: Part(name, shapes, uniform(0.0)) for name, shapes in self.shapes.items() if shapes}

    @cached_property
    def _stride(self) -> int:
        spacing = float(self.geometry.spacing_mm[0]) if self.geometry.shape[0] > 1 else self.blur.thickness_mm
        return max(1, int(np.ceil(spacing / _PLANE_MM)))

    @cached_property
    def _step_mm(self) -> float:
        spacing = float(self.geometry.spacing_mm[0]) if self.geometry.shape[0] > 1 else self.blur.thickness_mm
        return spacing / self._stride

    @cached_property
    def _axes(self) -> tuple[FloatArray, FloatArray]:
        """Pixel places in mm from the isocentre: x of the columns, y of the rows."""
        _, rows, columns = self.geometry.shape
        _, row_mm, column_mm = self.geometry.spacing_mm
        row, column = self.center_index
        x, y = (np.arange(columns) - column) * column_mm, (np.arange(rows) - row) * row_mm
        return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)

    @cached_property
    def _box(self) -> tuple[float, float, float, float]:
        """x and y from and to which there is metal in any slice, mm from the isocentre."""
        bounds = joined([part.bounds_lps_mm for part in self._parts.values()])
        corners = np.stack(np.meshgrid(*bounds.T, indexing="ij"), axis=-1).reshape(8, 3)
        index = self.geometry.in_plane(corners[None] - self.geometry.origins_lps_mm[:, None])
        _, row_mm, column_mm = self.geometry.spacing_mm
        y, x = ((v - c) * mm for v, c, mm in zip(index, self.center_index, (row_mm, column_mm), strict=True))
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())

    @cached_property
    def scanner(self) -> Scanner:
        x, y = self._axes
        x0, x1, y0, y1 = self._box
        far = np.hypot(np.abs([x[0], x[-1], x0, x1]).max(), np.abs([y[0], y[-1], y0, y1]).max())
        bare = Scanner(self.beam, self.body, float(far), self.blur.sigma_mm)
        if not self.noise_sd_hu:
            return bare
        share = float(np.square(self.blur.profile(self._step_mm)).sum())
        quanta = quanta_for(bare, self.noise_sd_hu, share)
        return Scanner(self.beam, self.body, float(far), self.blur.sigma_mm, quanta)

    def image(self, plain_hu: Field, projections_mm: Field, reduction: bool = False) -> Field:
        """(rows, columns) HU of a slice with its metal; `plain_hu` must have 0 HU inside the metal."""
        if reduction:
            return reduced(self.scanner, self._axes, plain_hu, projections_mm)
        return plain_hu + self.scanner.image(projections_mm, *self._axes)

    def projections(self, noise: bool = True) -> Iterator[Field | None]:
        """(views, bins) mm of water that metal adds to one slice after the other; None where there is none."""
        weights = self.blur.profile(self._step_mm)
        reach = len(weights) // 2
        sheared = self.geometry.shear_deg > 1e-3
        cache: dict[tuple[int, int], Field | None] = {}
        for k in range(self.geometry.shape[0]):
            total: Field | None = None
            for i, weight in zip(range(-reach, reach + 1), weights, strict=True):
                key = (k, i) if sheared else (0, k * self._stride + i)
                if key not in cache:
                    cache[key] = self._plane(k, i, noise)
                plane = cache[key]
                if plane is not None:
                    share = np.float32(weight) * plane
                    total = share if total is None else total + share
            oldest = (k + 1) * self._stride - reach
            cache = {} if sheared else {key: v for key, v in cache.items() if key[1] >= oldest}
            yield total

    def _plane(self, k: int, i: int, noise: bool) -> Field | None:
        """(views, bins) mm of water that the metal on one plane adds; i planes beyond slice k."""
        paths = {}
        for name, part in self._parts.items():
            outlines = self._outlines(
                part, self.geometry.origins_lps_mm[k] + i * self._step_mm * self.geometry.normal_lps
            )
            if outlines:
                paths[name] = self.scanner.paths(outlines)
        if not paths:
            return None
        number = k * self._stride + i + 10_000
        random = np.random.default_rng([self.seed, 6, number]) if noise and self.noise_sd_hu else None
        return self.scanner.difference(paths, random)

    def _outlines(self, part: Part, first_voxel: FloatArray) -> list[FloatArray]:
        x0, x1, y0, y1 = self._box
        x = np.arange(x0, x1 + _OUTLINE_MM, _OUTLINE_MM)
        y = np.arange(y0, y1 + _OUTLINE_MM, _OUTLINE_MM)
        right, down = unit(self.geometry.column_step_lps_mm), unit(self.geometry.row_step_lps_mm)
        row, column = self.center_index
        center = first_voxel + row * self.geometry.row_step_lps_mm + column * self.geometry.column_step_lps_mm
        corner = center + x0 * right + y0 * down
        planes = Planes(corner[None], down * _OUTLINE_MM, right * _OUTLINE_MM, (len(y), len(x)))
        if planes.within(part.bounds_lps_mm) is None:
            return []
        distance, _ = part.distances(planes)
        return outlines_of(distance[0], x, y) if (distance[0] < 0).any() else []


def sharpened(hu: Field, gain: float, pixel_mm: tuple[float, float], sigma_mm: float = 0.8) -> Field:
    """(rows, columns) an unsharp mask, as a sharp kernel does: edges overshoot on both sides."""
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(hu, [sigma_mm / step for step in pixel_mm], mode="nearest")
    return np.asarray(hu + np.float32(gain) * (hu - soft))
