"""The fixed columns of the halo's model at the voxels: the metal's edge, its priors, what hardening leaves, and simple
forms of a zone."""

from __future__ import annotations

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.halo_settings import HaloSettings
from spineimg.implants.profile import blurred_disc
from spineimg.implants.unrolled import ShellVoxels

_STEP_OVER_MM = 4.0
"""Length over which a zone of half the screw ends."""


def simple_forms(voxels: ShellVoxels, length_mm: float) -> list[FloatArray]:
    """(n,) part of the largest width at the voxels: everywhere, cones, halves of circumference and of length."""
    depth = np.clip(voxels.depth_mm / length_mm, 0, 1)
    front = _front(voxels, length_mm)
    halves = [_half(voxels, quarter * np.pi / 2) for quarter in range(4)]
    return [np.ones_like(depth), depth, 1 - depth, np.abs(2 * depth - 1), *halves, front, 1 - front]


def quarter_forms(voxels: ShellVoxels, length_mm: float) -> list[FloatArray]:
    """(n,) the same: half the circumference, in eight directions, of half the length."""
    front = _front(voxels, length_mm)
    halves = [_half(voxels, eighth * np.pi / 4) for eighth in range(8)]
    return [half * part for half in halves for part in (front, 1 - front)]


def _front(voxels: ShellVoxels, length_mm: float) -> FloatArray:
    return np.clip(0.5 + (voxels.depth_mm - length_mm / 2) / _STEP_OVER_MM, 0, 1)


def _half(voxels: ShellVoxels, facing_rad: float) -> FloatArray:
    return np.clip(0.5 + 2 * np.cos(voxels.angle_rad - facing_rad), 0, 1)


def left_over(voxels: ShellVoxels, away_mm: FloatArray, settings: HaloSettings) -> FloatArray:
    """(n, 2) shapes of what the hardening basis leaves: falling off beside the metal, and along the slice plane."""
    near = np.exp(-(away_mm - settings.left_at_mm) / settings.left_fall_mm)
    return np.stack([near, np.square(voxels.x_mm / voxels.distance_mm) ** 2], axis=1)


def edge_terms(
    voxels: ShellVoxels, radius: float, sds: tuple[float, float], length: float, thread: float
) -> FloatArray:
    """(n, 11) the blurred metal and its changes: with radius, x, y, tilt in x and y, both blurs, half and full thread,
    and smear.

    Changes are for 1 mm; of the blurs, for their own size. Half and full thread are what metal loses when half the
    thread's depth, and all of it, is taken off; smear is how starved rays widen it in the slice plane.
    """
    x, y = voxels.x_mm, voxels.y_mm
    h = 0.02

    def disc(a: float = radius, dx: float = 0.0, dy: float = 0.0, d1: float = 0.0, d2: float = 0.0) -> FloatArray:
        return blurred_disc(a, x - dx, y - dy, sds[0] + d1, sds[1] + d2)

    metal = disc()
    wider = (disc(radius + h) - disc(radius - h)) / (2 * h)
    across = [(disc(dx=h) - disc(dx=-h)) / (2 * h), (disc(dy=h) - disc(dy=-h)) / (2 * h)]
    lever = 2 * voxels.depth_mm / length - 1
    softer = [(disc(d1=h) - disc(d1=-h)) / (2 * h) * sds[0], (disc(d2=h) - disc(d2=-h)) / (2 * h) * sds[1]]
    core = [disc(radius - thread / 2) - metal, disc(radius - thread) - metal]
    smear = wider * np.square(x / voxels.distance_mm)
    return np.column_stack([metal, wider, *across, *(a * lever for a in across), *softer, *core, smear])


def with_priors(
    edge: FloatArray, basis: FloatArray, level: float, clipped: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Columns, prior means and standard deviations: metal in units of its level, the basis at a spread of 1."""
    size = np.maximum(basis.std(axis=0), 1e-12)
    values = np.column_stack([edge * level, basis / size])
    # Metal's level to 10 %, radius and place to 0.1 mm, blur to 8 %, threads of any depth, smear to 0.4 mm; the
    # basis as good as free.
    mean = np.array([1.0, *[0.0] * 7, 0.35, 0.35, 0.0, *[0.0] * basis.shape[1]])
    sd = np.array([0.3 if clipped else 0.1, *[0.1] * 5, 0.08, 0.08, 0.4, 0.4, 0.4, *[500.0] * basis.shape[1]])
    return values, mean, sd
