"""Another phantom than the project's own: elliptical cylinders, discs and a canal, with a shell and arches or plain."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from spineimg.geometry import Geometry
from spineimg.volume import Acquisition, ArraySource, CTVolume

WIDTH, DEPTH, HEIGHT, DISC = 44.0, 33.0, 26.0, 9.0
CANAL = 9.0
BONE_HU, DISC_HU = 150.0, 80.0
SLICE_MM, PIXEL_MM = 1.5, 1.0
Array = npt.NDArray[np.float64]


def tilted() -> Array:
    """(3, 3) rows left, posterior, cranial of the spine in LPS: 12 degrees forward, 7 to the side."""
    a, b = np.radians([12.0, 7.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return np.asarray((about_x @ about_y).T)


@lru_cache(maxsize=2)
def column(*, plain: bool = False) -> CTVolume:
    """A straight column whose middle body is centred at the origin; noise SD 15 HU, soft tissue 50 HU.

    plain: neither shells nor arches.
    """
    shape = (64, 116, 96)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = SLICE_MM, PIXEL_MM, PIXEL_MM, 1.0
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2) + [0, 14, 0]
    geometry = Geometry.from_affine(shape, affine)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    hu = _painted(geometry.lps_at(index) @ tilted().T, plain)
    hu += np.random.default_rng(3).standard_normal(shape) * 15
    return CTVolume(geometry, ArraySource(np.rint(hu).astype(np.int16)), Acquisition(slice_thickness_mm=SLICE_MM))


def _painted(local: Array, plain: bool) -> Array:
    x, y, z = np.moveaxis(local, -1, 0)
    z = np.mod(z + HEIGHT / 2, HEIGHT + DISC) - HEIGHT / 2
    hu = np.full(x.shape, 50.0)
    hu[np.hypot(x / WIDTH, y / DEPTH) < 0.49] = DISC_HU
    body = (np.hypot(x / WIDTH, y / DEPTH) < 0.5) & (np.abs(z) < HEIGHT / 2)
    behind = y - DEPTH / 2 - 0.9 * CANAL
    ring = np.hypot(x / 1.25, behind)
    if plain:
        hu[body] = BONE_HU
        hu[(ring < CANAL) & (y > DEPTH / 2)] = 20.0
        return gaussian_filter(hu, 0.5)
    pedicle = (np.abs(np.abs(x) - 15) < 4) & (np.abs(behind + 6) < 6) & (z > 0) & (z < 0.45 * HEIGHT)
    lamina = (ring > CANAL) & (ring < CANAL + 5) & (behind > 0) & (np.abs(z) < 0.35 * HEIGHT)
    hu[pedicle | lamina] = 350.0
    hu[body] = 400.0
    inner = np.hypot(x / (WIDTH - 2), y / (DEPTH - 2)) < 0.5
    hu[inner & (np.abs(z) < HEIGHT / 2 - 1)] = BONE_HU
    hu[(ring < CANAL) & (y > DEPTH / 2)] = 20.0
    return gaussian_filter(hu, 0.5)
