"""What a scanner shows of a metal cylinder: its HU at any place, after the blur.

Symbols: s is the depth along the axis, rho the distance from it; the blur is a Gaussian with its own width in the
slice plane and across it. Across the edge the blur is a step's: the normal distribution's integral. The edge's
curvature moves the half level inwards by (tangential variance) / (2 radius). Thin tips take the exact blur of a disc,
the non-central chi-square distribution with two degrees of freedom (Rice 1945).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from spineimg.geometry import FloatArray

if TYPE_CHECKING:
    from spineimg.implants.psf import Psf

_LEAST_SIGMA_MM = 0.05
_STEP = 0.1
_MOST = 16.0
_SIDE = 5.0
"""The table of blurred discs: radii up to `_MOST` sigma, places up to `_SIDE` sigma from the edge."""
_NODES = tuple((float(node), float(weight / np.sqrt(2 * np.pi))) for node, weight in zip(*hermegauss(5), strict=True))
"""Places in sigma and weights that stand for the blur along the axis."""


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """A straight axis. origin_lps_mm: (3,) where s is 0; along, across, beyond: (3,) orthogonal unit vectors."""

    origin_lps_mm: FloatArray
    along: FloatArray
    across: FloatArray
    beyond: FloatArray

    def places(self, points_lps_mm: FloatArray) -> FloatArray:
        """(n, 3): depth s and the two coordinates at right angles to the axis, mm."""
        away = points_lps_mm - self.origin_lps_mm
        return np.stack([away @ self.along, away @ self.across, away @ self.beyond], axis=1)

    def point(self, depth_mm: float) -> FloatArray:
        return np.asarray(self.origin_lps_mm + depth_mm * self.along)

    def moved(self, shift: FloatArray, slope: FloatArray) -> Frame:
        """The axis shifted by two distances (mm) and turned by two slopes, at s = 0."""
        origin = self.origin_lps_mm + shift[0] * self.across + shift[1] * self.beyond
        return frame(origin, self.along + slope[0] * self.across + slope[1] * self.beyond)


def frame(origin_lps_mm: FloatArray, along: FloatArray) -> Frame:
    """The axis through a point; `across` lies as near to the patient's left as it can, `beyond` near the head."""
    along = along / np.linalg.norm(along)
    helper = np.array([0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    across = np.cross(along, helper)
    across /= np.linalg.norm(across)
    return Frame(np.asarray(origin_lps_mm, dtype=np.float64), along, across, np.cross(across, along))


def blur_across(axis: Frame, psf: Psf, normal_lps: FloatArray) -> FloatArray:
    """(3, 3) covariance of the blur in the coordinates of `Frame.places`, mm²."""
    base = np.stack([axis.along, axis.across, axis.beyond])
    return np.asarray(base @ psf.covariance_mm2(normal_lps) @ base.T)


def flatness(places: FloatArray, axis: Frame, normal_lps: FloatArray) -> FloatArray:
    """(n,) how far the way from the axis to each place lies in the slice plane: 1 in it, 0 as far across as it can."""
    rise = np.array([axis.across @ normal_lps, axis.beyond @ normal_lps])
    steepest = max(float(rise @ rise), 1e-6)
    rho = np.maximum(np.square(places[:, 1]) + np.square(places[:, 2]), 1e-9)
    return np.asarray(1 - np.square(places[:, 1:] @ rise) / (rho * steepest))


def side_values(places: FloatArray, radius_mm: float | FloatArray, blur: FloatArray) -> FloatArray:
    """(n,) part of metal (0-1) that a long cylinder shows at `places` (n, 3); blur: (3, 3) of `blur_across`."""
    from scipy.special import ndtr

    rho, normal, tangent = polar(places, blur)
    edge = radius_mm - tangent / (2 * np.maximum(radius_mm, 0.3))
    return np.asarray(ndtr((edge - rho) / np.sqrt(normal)))


def side_slopes(places: FloatArray, radius_mm: float | FloatArray, blur: FloatArray) -> FloatArray:
    """(n, 3) changes of `side_values` per mm of radius, and per mm that the axis moves along each of its two sides."""
    rho, normal, tangent = polar(places, blur)
    sigma, radius = np.sqrt(normal), np.maximum(radius_mm, 0.3)
    edge = radius_mm - tangent / (2 * radius)
    density = np.exp(-0.5 * np.square((edge - rho) / sigma)) / np.sqrt(2 * np.pi)
    safe = np.maximum(rho, 1e-6)
    a, b = places[:, 1] / safe, places[:, 2] / safe
    # By turning the place around the axis by a radian: the variances at right angles and along the edge are exchanged.
    turned = 2 * a * b * (blur[2, 2] - blur[1, 1]) + 2 * (a * a - b * b) * blur[1, 2]
    around = (turned / (2 * radius) / sigma - (edge - rho) * turned / (2 * normal * sigma)) / safe
    by_radius = (1 + np.where(radius_mm > 0.3, tangent / (2 * radius**2), 0.0)) / sigma
    slopes = np.stack([by_radius, a / sigma + b * around, b / sigma - a * around], axis=1)
    return np.asarray(density[:, None] * slopes)


def tip_values(places: FloatArray, radius_mm: float, end: tuple[float, float, float], blur: FloatArray) -> FloatArray:
    """(n,) the same for a cylinder with a conical end.

    end: depth of the tip, length of the cone in mm (0: blunt), and the radius of its point as part of the cylinder's.
    """
    tip_mm, cone_mm, point = end
    rho, normal, tangent = polar(places, blur)
    sigma = np.sqrt(normal)
    total = np.zeros(len(places))
    for node, weight in _NODES:
        left = tip_mm - (places[:, 0] + node * np.sqrt(blur[0, 0]))
        local = radius_mm * np.clip(point + (1 - point) * left / max(cone_mm, 0.05), 0.0, 1.0)
        # The table's disc is blurred alike all around: the difference moves the edge by the curvature's share.
        corrected = local + np.where(local > sigma, (normal - tangent) / (2 * np.maximum(local, 0.3)), 0.0)
        total += weight * np.where(left > 0, _disc(rho / sigma, corrected / sigma), 0.0)
    return total


def polar(places: FloatArray, blur: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distance from the axis, and the blur's variance at right angles to the edge and along it there."""
    rho = np.hypot(places[:, 1], places[:, 2])
    safe = np.maximum(rho, 1e-6)
    a, b = places[:, 1] / safe, places[:, 2] / safe
    normal = a * a * blur[1, 1] + 2 * a * b * blur[1, 2] + b * b * blur[2, 2]
    tangent = b * b * blur[1, 1] - 2 * a * b * blur[1, 2] + a * a * blur[2, 2]
    return rho, np.maximum(normal, _LEAST_SIGMA_MM**2), tangent


@lru_cache(maxsize=1)
def _disc_table() -> FloatArray:
    """(radii, sides): value of a disc blurred by sigma 1, at places from 5 inside to 5 outside its edge."""
    from scipy.special import chndtr

    radius = np.arange(0, _MOST + _STEP / 2, _STEP)[:, None]
    side = np.arange(-_SIDE, _SIDE + _STEP / 2, _STEP)[None, :]
    at = np.maximum(radius + side, 0.0)
    return np.asarray(chndtr(radius**2, 2.0, at**2))


def _disc(at: FloatArray, radius: FloatArray) -> FloatArray:
    """Values of blurred discs, lengths in sigma."""
    from scipy.ndimage import map_coordinates
    from scipy.special import ndtr

    side = np.clip(at - radius, -_SIDE, _SIDE)
    inside = map_coordinates(
        _disc_table(), [np.clip(radius, 0, _MOST) / _STEP, (side + _SIDE) / _STEP], order=1, mode="nearest"
    )
    return np.where(radius > _MOST, ndtr(-side), inside)
