"""Small phantoms for the body finder, painted fast: every edge a Gaussian step, one sample a voxel, white noise."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from spineimg.geometry import Geometry
from spineimg.phantom import Imaging, Phantom, SpineSpec
from spineimg.phantom.parts import Canvas
from spineimg.phantom.samples import Planes
from spineimg.volume import Acquisition, ArraySource, CTVolume

SOFT_MM = 0.6
_TISSUE_HU = 50.0


@lru_cache(maxsize=1)
def lumbar() -> tuple[Phantom, CTVolume]:
    """L2 and L3 whole, with half of their neighbours; 1.1 mm pixels, 2 mm slices, noise SD 15 HU."""
    spine = SpineSpec(("T12", "L1", "L2", "L3", "L4", "L5"), seed=3)
    imaging = Imaging(size=(112, 112), pixel_mm=1.1, spacing_mm=2.0, thickness_mm=2.0, margin_mm=26.0)
    phantom = Phantom(spine, imaging, cover=("L2", "L3"))
    return phantom, CTVolume(
        phantom.geometry, ArraySource(painted(phantom, 15.0)), Acquisition(kvp=120.0, slice_thickness_mm=2.0)
    )


def painted(phantom: Phantom, noise_sd_hu: float) -> npt.NDArray[np.int16]:
    """(slices, rows, columns) HU: the mean of two planes a slice, in soft tissue."""
    geometry, thickness = phantom.geometry, phantom.imaging.thickness_mm
    size = geometry.shape[1:]
    halves = []
    for shift in (-thickness / 4, thickness / 4):
        origins = geometry.origins_lps_mm + shift * geometry.normal_lps
        planes = Planes(origins, geometry.row_step_lps_mm, geometry.column_step_lps_mm, size)
        canvas = Canvas.blank(planes.shape)
        for part in phantom.parts:
            part.paint(canvas, planes, SOFT_MM)
        halves.append(canvas.over(np.full(planes.shape, np.float32(_TISSUE_HU))))
    noise = np.random.default_rng(7).standard_normal(geometry.shape) * noise_sd_hu
    return np.rint((halves[0] + halves[1]) / 2 + noise).astype(np.int16)


def turned(volume: CTVolume, flips: tuple[int, ...], order: tuple[int, int, int] = (0, 1, 2)) -> CTVolume:
    """The same voxels at the same places, stored along other axes and in other senses."""
    stack = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])
    affine = volume.geometry.lps_from_index.copy()
    for axis in flips:
        stack = np.flip(stack, axis)
        affine[:3, 3] += affine[:3, axis] * (stack.shape[axis] - 1)
        affine[:3, axis] *= -1
    stack = np.ascontiguousarray(stack.transpose(order))
    affine[:, :3] = affine[:, list(order)]
    geometry = Geometry.from_affine((stack.shape[0], stack.shape[1], stack.shape[2]), affine)
    return replace(volume, geometry=geometry, source=ArraySource(stack))
