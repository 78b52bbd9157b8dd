"""Screws in bone with a lucent zone, made for tests: blurred cylinders by brute force, with or without hardening."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from spineimg.geometry import Geometry
from spineimg.implants.hardening import Cylinder, Metal
from spineimg.implants.model import Shaft
from spineimg.volume import Acquisition, ArraySource, CTVolume, Sharpness


def volume_with_screw(
    width_mm: float,
    *,
    bone_hu: float = 150.0,
    halo_hu: float = 30.0,
    spacing_mm: tuple[float, float, float] = (0.8, 0.4, 0.4),
    fwhm_mm: tuple[float, float] = (1.0, 0.8),
    diameter_mm: float = 6.0,
    clipped: bool = False,
    noise_hu: float = 15.0,
    seed: int = 1,
    width_of: Callable[[Any, Any], Any] | None = None,
    walls_mm: float | None = None,
    rim_mm: float = 0.0,
) -> tuple[CTVolume, Shaft]:
    """A titanium screw of 40 mm in a block of bone, blurred by Gaussians of `fwhm_mm` (across slices, in the slice).

    The solid is painted on a lattice three times finer in each direction, blurred there and averaged.
    width_of: (depth, angle in the plane across the axis) -> width, in place of one width. walls_mm: walls of cortex,
    0.5 mm thick, on the left and on the right of the rear half, so far from the thread, with fat beyond. rim_mm: of
    500 HU around the zone.
    """
    fine = 3
    size = (32.0, 53.0, 26.4)
    shape = tuple(int(s / d) for s, d in zip(size, spacing_mm, strict=True))
    step = np.array(spacing_mm) / fine
    grid = [(np.arange(n * fine) + 0.5) * d for n, d in zip(shape, step, strict=True)]
    head, tip = np.array([14.0, 6.0, 10.0]), np.array([18.0, 45.0, 16.0])
    direction = (tip - head) / np.linalg.norm(tip - head)
    place = [grid[i].reshape([-1 if j == i else 1 for j in range(3)]).astype(np.float32) - head[i] for i in range(3)]
    depth = sum(p * d for p, d in zip(place, direction, strict=True))
    away = np.sqrt(np.maximum(sum(p**2 for p in place) - depth**2, 0))
    length = float(np.linalg.norm(tip - head))
    width = width_mm
    if width_of is not None:
        angle = np.arctan2(place[0] - depth * direction[0], place[2] - depth * direction[2])
        width = width_of(depth, angle)
    solid = np.full(away.shape, bone_hu, dtype=np.float32)
    if walls_mm is not None:
        aside = np.abs(place[2] - depth * direction[2]) - diameter_mm / 2 - walls_mm
        rear = depth < length / 2
        solid[rear & (aside > 0)] = 1200.0
        solid[rear & (aside > 0.5)] = -100.0
    along = (depth > 0) & (depth < length)
    solid[along & (away < diameter_mm / 2 + width + rim_mm)] = 500.0 if rim_mm else bone_hu
    solid[along & (away < diameter_mm / 2 + width)] = halo_hu
    solid[along & (away < diameter_mm / 2)] = 7000.0
    sd = np.array([fwhm_mm[0], fwhm_mm[1], fwhm_mm[1]]) / 2.3548
    image = ndimage.gaussian_filter(solid, sd / step)
    image = image.reshape(shape[0], fine, shape[1], fine, shape[2], fine).mean(axis=(1, 3, 5))
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.7)
    image = image + noise_hu * noise / noise.std()
    if clipped:
        image = np.minimum(image, 3071)
    dz, dy, dx = spacing_mm
    affine = np.array([[0, 0, dx, dx / 2], [0, dy, 0, dy / 2], [dz, 0, 0, dz / 2], [0, 0, 0, 1.0]])
    acquisition = Acquisition(kvp=120.0, sharpness=Sharpness.SOFT, metal_artifact_reduction=False)
    volume = CTVolume(Geometry.from_affine(shape, affine), ArraySource(image.astype(np.float32)), acquisition)
    lps = tuple(float(v) for v in head[::-1]), tuple(float(v) for v in tip[::-1])
    return volume, Shaft(lps[0], lps[1], diameter_mm, 7000.0, clipped)


def around(shaft: Shaft) -> Metal:
    """No metal but the shaft."""
    return Metal((Cylinder(np.array(shaft.head_lps_mm), np.array(shaft.tip_lps_mm), shaft.diameter_mm / 2),))
