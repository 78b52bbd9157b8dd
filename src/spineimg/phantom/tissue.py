"""What bone is filled with: trabecular HU with texture, gradients, the basivertebral vein and lesions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.phantom.parts import Body
from spineimg.phantom.samples import Field, Mask, Points, Samples

_TEXTURE_CELLS = 48
_EDGE_MM = np.float32(0.4)
"""Softness of the edges of vein and lesions. Engineering choice: as sharp as the scanner can show."""


@lru_cache(maxsize=8)
def texture_grid(correlation_mm: float, seed: int) -> Field:
    """(n, n, n) periodic Gaussian field on a 1 mm grid, mean 0 and SD 1, autocorrelation 1/e at `correlation_mm`."""
    from scipy.ndimage import gaussian_filter

    white = np.random.default_rng([seed, 101]).standard_normal((_TEXTURE_CELLS,) * 3)
    smooth = gaussian_filter(white, correlation_mm / 2, mode="wrap")
    smooth -= smooth.mean()
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def texture(grid: Field, left: Field, posterior: Field, cranial: Field) -> Field:
    """The periodic field at coordinates in mm, linear between grid points."""
    from scipy.ndimage import map_coordinates

    return np.asarray(
        map_coordinates(grid, np.stack([left, posterior, cranial]), output=np.float32, order=1, mode="grid-wrap")
    )


@dataclass(frozen=True, slots=True)
class Vein:
    """Basivertebral vein: a wedge at mid-height, wide at the posterior wall. Local mm."""

    tip_posterior_mm: float
    wall_posterior_mm: float
    half_width_mm: tuple[float, float] = (1.0, 4.5)
    half_height_mm: tuple[float, float] = (1.2, 2.5)
    hu: float = 20.0

    def coverage(self, left: Field, posterior: Field, cranial: Field, spare_mm: float = 0.0) -> Field:
        """0-1, 1 inside; `spare_mm` widens it."""
        part = np.clip((posterior - self.tip_posterior_mm) / (self.wall_posterior_mm - self.tip_posterior_mm), 0, 1)
        width = self.half_width_mm[0] + (self.half_width_mm[1] - self.half_width_mm[0]) * part + spare_mm
        height = self.half_height_mm[0] + (self.half_height_mm[1] - self.half_height_mm[0]) * part + spare_mm
        tip = posterior - self.tip_posterior_mm + spare_mm
        inside = _step(width - np.abs(left)) * _step(height - np.abs(cranial)) * _step(tip)
        return np.asarray(inside, dtype=np.float32)

    def near(self, left: Field, posterior: Field, cranial: Field) -> Mask:
        """True where there may be coverage."""
        across = np.abs(left) < self.half_width_mm[1] + 2
        return np.asarray(
            across & (np.abs(cranial) < self.half_height_mm[1] + 2) & (posterior > self.tip_posterior_mm - 2)
        )


@dataclass(frozen=True, slots=True)
class Spot:
    """A lesion or a bone island: a ball of its own HU. Local mm."""

    name: str
    center_mm: tuple[float, float, float]
    radius_mm: float
    hu: float

    def coverage(self, left: Field, posterior: Field, cranial: Field, spare_mm: float = 0.0) -> Field:
        x, y, z = self.center_mm
        away = np.sqrt(np.square(left - x) + np.square(posterior - y) + np.square(cranial - z))
        return _step(np.float32(self.radius_mm + spare_mm) - away)

    def near(self, left: Field, posterior: Field, cranial: Field) -> Mask:
        """True where there may be coverage."""
        x, y, z = self.center_mm
        reach = self.radius_mm + 2
        return np.asarray((np.abs(left - x) < reach) & (np.abs(posterior - y) < reach) & (np.abs(cranial - z) < reach))


@dataclass(frozen=True, slots=True)
class Band:
    """Denser bone under the endplates: `extra_hu` down to `depth_mm`."""

    name: str
    depth_mm: float
    extra_hu: float
    superior: bool = True
    inferior: bool = True


def _step(inside_mm: Field) -> Field:
    return np.asarray(0.5 * (1 + np.tanh(1.2 * inside_mm / _EDGE_MM)), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Trabecular:
    """Filling of a vertebra. `mean_hu` is the mean over `interior_points`, exactly: `planted` sees to it."""

    body: Body
    mean_hu: float
    grid: Field
    offset_mm: tuple[float, float, float]
    variation: float
    """SD of the texture as a fraction of the mean."""
    posterior_gain: float
    """Relative rise from the middle to the posterior wall (the anterior wall has as much less)."""
    cranial_gain: float
    """Relative rise from the middle to the superior endplate."""
    arch_from_mm: float
    """Where the arch begins, posterior mm; its marrow has `arch_hu`."""
    arch_hu: float
    vein: Vein | None = None
    spots: tuple[Spot, ...] = ()
    bands: tuple[Band, ...] = ()
    gain: float = 1.0

    def __call__(self, points: Samples) -> Field:
        left, posterior, cranial = self.body.frame.local(points)
        to_left, to_back, to_head = (np.float32(offset) for offset in self.offset_mm)
        speckle = texture(self.grid, left + to_left, posterior + to_back, cranial + to_head)
        depth = np.float32(self.body.outline.radius_mm.mean())
        slope = self.posterior_gain * posterior / depth + self.cranial_gain * cranial / self.body.half_height_mm
        hu = np.float32(self.mean_hu * self.gain) * (1 + np.float32(self.variation) * speckle + slope)
        for band in self.bands:
            hu += np.float32(band.extra_hu) * self._banded(points, band)
        for piece in (*((self.vein,) if self.vein else ()), *self.spots):
            near = np.flatnonzero(piece.near(left, posterior, cranial))
            cover = piece.coverage(left.take(near), posterior.take(near), cranial.take(near))
            hu[near] = hu.take(near) * (1 - cover) + np.float32(piece.hu) * cover
        behind = np.flatnonzero(posterior > self.arch_from_mm)
        arch = np.clip((posterior.take(behind) - self.arch_from_mm) / 3, 0, 1)
        marrow = np.float32(self.arch_hu) * (1 + np.float32(self.variation) * speckle.take(behind))
        hu[behind] = hu.take(behind) * (1 - arch) + marrow * arch
        return np.asarray(hu, dtype=np.float32)

    def _banded(self, points: Samples, band: Band) -> Field:
        _, top, bottom = self.body.surfaces(points)
        cover = np.zeros(points.shape, np.float32)
        for wanted, inside in ((band.superior, top), (band.inferior, bottom)):
            if wanted:
                cover = np.maximum(cover, _step(np.float32(band.depth_mm) + inside))
        return cover

    def clear(self, points: Points, spare_mm: float = 1.5) -> Mask:
        """(n,) true where neither vein nor lesion nor band is within `spare_mm`."""
        local = self.body.frame.local(points)
        good = np.ones(points.shape, bool)
        for piece in (*((self.vein,) if self.vein else ()), *self.spots):
            good &= piece.coverage(*local, spare_mm) < 0.5
        for band in self.bands:
            good &= self._banded(points, replace(band, depth_mm=band.depth_mm + spare_mm)) < 0.5
        return good

    def interior_points(self, step_mm: float = 1.0, wall_mm: float = 3.0, endplate_mm: float = 4.0) -> Points:
        """Points of plain trabecular bone: that far from wall and endplates, clear of vein and lesions."""
        points = Points(self.body.frame.lps(_grid(self.body, step_mm)))
        wall, top, bottom = self.body.surfaces(points)
        inside = (wall < -wall_mm) & (top < -endplate_mm) & (bottom < -endplate_mm) & self.clear(points)
        return points.picked(np.flatnonzero(inside))

    def planted(self) -> Trabecular:
        """The same with the gain at which the mean over `interior_points` is `mean_hu`."""
        plain = replace(self, gain=1.0)
        return replace(self, gain=self.mean_hu / float(plain(self.interior_points()).mean(dtype=np.float64)))


def _grid(body: Body, step_mm: float) -> FloatArray:
    radius = float(body.outline.radius_mm.max())
    across = np.arange(-radius, radius + step_mm, step_mm)
    up = np.arange(-body.half_height_mm, body.half_height_mm + step_mm, step_mm)
    return np.stack(np.meshgrid(across, across, up, indexing="ij"), axis=-1).reshape(-1, 3)
