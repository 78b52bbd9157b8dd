"""A long cylinder as the scanner shows it: the disc of its cross-section, blurred differently in two directions.

Symbols: d is the cylinder's axis, n the normal of the slices. Across the axis, b1 = d x n lies in the slice plane and
is blurred by the in-plane standard deviation s1 alone; b2 = b1 x d leans out of it by the angle whose sine is
c = |b2 . n|, so that its blur is s2 = sqrt(s_xy^2 (1 - c^2) + s_z^2 c^2). A disc of radius a, blurred by a Gaussian of
s1 and s2, is

    D_a(x, y) = integral dv  g(y - v; s2) [ G((h(v) - x)/s1) - G((-h(v) - x)/s1) ],   h(v) = sqrt(a^2 - v^2),

with g and G the normal density and distribution. It is tabulated over radius and one quadrant of angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from spineimg.geometry import FloatArray, unit

FWHM_OF_SD = 2.3548200450309493
"""Full width at half maximum of a Gaussian of standard deviation 1."""

_STEP_MM = 0.08
_QUADRANT = 10
_NODES = 25
_FAR = 7.0
_AT_ONCE = 400


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian standard deviations, mm, in the slice plane and across it."""

    in_plane_mm: float
    across_mm: float

    @classmethod
    def from_fwhm(cls, in_plane_mm: float, across_mm: float) -> Blur:
        return cls(in_plane_mm / FWHM_OF_SD, across_mm / FWHM_OF_SD)

    def along(self, direction_lps: FloatArray, normal_lps: FloatArray) -> float:
        """Standard deviation along a direction, mm."""
        c = float(unit(direction_lps) @ normal_lps)
        return float(np.sqrt(self.in_plane_mm**2 * (1 - c**2) + self.across_mm**2 * c**2))


def cross_axes(axis_lps: FloatArray, normal_lps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(b1, b2): unit vectors at right angles to the axis; b1 lies in the slice plane."""
    axis = unit(axis_lps)
    first = np.cross(axis, normal_lps)
    if np.linalg.norm(first) < 1e-6:
        first = np.cross(axis, [0.0, 1.0, 0.0] if abs(axis[1]) < 0.9 else [1.0, 0.0, 0.0])
    first = unit(first)
    return first, np.cross(first, axis)


def blurred_disc(radius_mm: float, x: FloatArray, y: FloatArray, s1: float, s2: float) -> FloatArray:
    """D_a at x, y (any one shape), mm, by Gauss-Legendre quadrature. 1 deep inside, 0 far away."""
    out = np.zeros(np.shape(x))
    if radius_mm <= 0:
        return out
    # Beyond seven standard deviations nothing is left (1e-12); some hundred places at a time stay in the cache.
    near = np.flatnonzero(np.hypot(x, y) < radius_mm + _FAR * max(s1, s2))
    for first in range(0, len(near), _AT_ONCE):
        part = near[first : first + _AT_ONCE]
        out.reshape(-1)[part] = _quadrature(radius_mm, np.ravel(x)[part], np.ravel(y)[part], s1, s2)
    return out


@cache
def _nodes() -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


def _quadrature(radius_mm: float, x: FloatArray, y: FloatArray, s1: float, s2: float) -> FloatArray:
    nodes, weights = _nodes()
    # Only |v - y| < 5 s2 counts; the nodes are spread over that part of the disc, by the angle whose sine is v / a,
    # since the chord's end is no smooth function of v.
    low, high = (np.arcsin(np.clip((y + side * 5 * s2) / radius_mm, -1.0, 1.0)) for side in (-1, 1))
    half = (high - low) / 2
    turn = (high + low)[:, None] / 2 + half[:, None] * nodes
    v, h = radius_mm * np.sin(turn), radius_mm * np.cos(turn)
    chord = ndtr((h - x[:, None]) / s1) - ndtr((-h - x[:, None]) / s1)
    density = np.exp(-0.5 * ((y[:, None] - v) / s2) ** 2) * h / (s2 * np.sqrt(2 * np.pi))
    return np.asarray((density * chord) @ weights * half)


@dataclass(frozen=True, eq=False, slots=True)
class DiscTables:
    """D_a on a polar grid for several radii. values: (radii a, places r, angles in one quadrant)."""

    radii_mm: FloatArray
    first_mm: float
    values: FloatArray

    @classmethod
    def build(cls, radii_mm: FloatArray, reach_mm: tuple[float, float], s1: float, s2: float) -> DiscTables:
        """reach_mm: smallest and largest distance from the axis that will be asked for."""
        r = np.arange(max(0.0, reach_mm[0] - 0.2), reach_mm[1] + 0.3, _STEP_MM)
        turn = np.linspace(0, np.pi / 2, _QUADRANT)
        x, y = r[:, None] * np.cos(turn), r[:, None] * np.sin(turn)
        return cls(np.asarray(radii_mm), float(r[0]), np.stack([blurred_disc(a, x, y, s1, s2) for a in radii_mm]))

    def at(self, radius_mm: FloatArray | float, x: FloatArray, y: FloatArray) -> FloatArray:
        """(n,) D of each place's own radius at (n,) x, y. Linear between the tables and the grid's places."""
        return self.look_up(radius_mm, *self.places(x, y))

    def places(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n,) rows and columns of the tables for places that are asked for many times."""
        row = (np.hypot(x, y) - self.first_mm) / _STEP_MM
        column = np.arctan2(np.abs(y), np.abs(x)) / (np.pi / 2) * (_QUADRANT - 1)
        return row, column

    def look_up(self, radius_mm: FloatArray | float, row: FloatArray, column: FloatArray) -> FloatArray:
        """(n,) D of each place's own radius at the rows and columns of `places`."""
        number = np.interp(radius_mm, self.radii_mm, np.arange(len(self.radii_mm)))
        places = np.stack([np.broadcast_to(number, row.shape), row, column])
        return np.asarray(ndimage.map_coordinates(self.values, places, order=1, mode="nearest"))
