"""How much the scanner blurs: a Gaussian, as wide in the slice plane as across it only by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.cylinder import blur_across, side_values
from spineimg.implants.flank import flank_widths
from spineimg.volume import Acquisition, Sharpness

if TYPE_CHECKING:
    from spineimg.implants.axis import ShaftFit, SideFit
    from spineimg.implants.metal_map import MetalMap

FWHM_PER_SIGMA = 2.3548200450309493


@dataclass(frozen=True, slots=True)
class Psf:
    """Full widths at half maximum of the Gaussian blur, mm. A rectangular slice profile of thickness t counts with the
    Gaussian of its own variance, 0.68 t. `estimated`: (in plane, across slices) True where the scan's own metal told
    the width, False where it is only what such a scan usually has."""

    fwhm_in_plane_mm: float
    fwhm_slice_mm: float
    estimated: tuple[bool, bool] = (False, False)

    def covariance_mm2(self, normal_lps: FloatArray) -> FloatArray:
        """(3, 3) covariance of the blur in LPS for slices with this unit normal."""
        flat, deep = (np.square(w / FWHM_PER_SIGMA) for w in (self.fwhm_in_plane_mm, self.fwhm_slice_mm))
        across = np.outer(normal_lps, normal_lps)
        return np.asarray(flat * (np.eye(3) - across) + deep * across)


def usual_psf(geometry: Geometry, acquisition: Acquisition) -> Psf:
    """What a scan like this usually has: 0.8 mm (soft kernel) or 0.6 mm (sharp) together with the pixel's own width,
    and the slice thickness together with the softness of its profile, each as a Gaussian of the same variance."""
    pixel = max(geometry.spacing_mm[1:])
    kernel = 0.6 if acquisition.sharpness is Sharpness.SHARP else 0.8
    step = geometry.spacing_mm[0]
    thickness = acquisition.slice_thickness_mm or (step if np.isfinite(step) else 1.0)
    box = FWHM_PER_SIGMA / np.sqrt(12.0)
    return Psf(float(np.hypot(kernel, 0.5 * box * pixel)), float(np.hypot(_SOFT_PROFILE_MM, box * 1.1 * thickness)))


_SOFT_PROFILE_MM = 0.55
"""FWHM that focus, detector and interpolation add to a slice's profile: nominal 0.6 mm measure 0.7 mm and more."""
_TRUST = 0.2
"""Standard error of the usual widths, as a logarithm. Engineering choice."""
_FLANK_ERROR = 0.12
"""Standard error of widths from flanks, as a logarithm: they rest on the metal's HU, which beam hardening changes by a
quarter between rods and shafts. Six phantoms: 1.0-1.25 times the true width in the slice plane."""
_STEEP = 0.85
"""Rods nearer than that (cosine) to the slices' normal tell the blur in the slice plane. Engineering choice."""
_EDGE_MM = 1.3
"""Voxels up to so far from a shaft's edge tell its blur. Engineering choice: both plateaus of a blur of 1.2 mm, little
of what lies beyond."""
_BEST_MISFIT = 1.6
"""A shaft whose edge misfits so much worse than the best one's is starved or streaked. Engineering choice."""


def estimate_psf(
    metal: MetalMap,
    fits: Sequence[ShaftFit | SideFit],
    usual: Psf,
    rods: Sequence[SideFit] = (),
) -> Psf:
    """The blur as the edges of metal show it that shows its own HU: the median over shafts, without those whose edge
    misfits far worse than the best one's.

    rods: pieces of what may be rods. They have no thread, and rays cross them briefly where they run along the patient:
    where there are any, they tell the blur in the slice plane, and shafts only that across it. Beside shafts rays that
    run along them are hardened and starved, which smears their sides by up to a millimetre.
    Where the scale ends below the metal, only the lower flank is left: that of shafts tells the blur where no streaks
    touch it (`flank.flank_widths`), together with the usual widths, which else stay.
    """
    steep = [rod for rod in rods if abs(float(rod.axis.along @ metal.geometry.normal_lps)) >= _STEEP]
    by_rods, by_shafts = _median_widths(metal, steep, usual), _median_widths(metal, fits, usual)
    if by_rods is None and by_shafts is None:
        flanks = [w for f in fits if f.edge.clipped and (w := flank_widths(metal, f, usual, _TRUST)) is not None]
        by_shafts = _between(np.median(flanks, axis=0), usual) if flanks else None
    flat = (by_rods or by_shafts or (usual.fwhm_in_plane_mm,))[0]
    deep = by_shafts[1] if by_shafts else usual.fwhm_slice_mm
    return Psf(float(flat), float(deep), (by_rods is not None or by_shafts is not None, by_shafts is not None))


def _between(flank_mm: FloatArray, usual: Psf) -> tuple[float, float]:
    """What flanks tell and what is usual, by their errors."""
    told = _TRUST**2 / (_TRUST**2 + _FLANK_ERROR**2)
    logs = told * np.log(flank_mm) + (1 - told) * np.log([usual.fwhm_in_plane_mm, usual.fwhm_slice_mm])
    flat, deep = np.exp(logs)
    return float(flat), float(deep)


def _median_widths(metal: MetalMap, fits: Sequence[ShaftFit | SideFit], usual: Psf) -> tuple[float, float] | None:
    """FWHM in the slice plane and across it, None where no fit tells them."""
    told = [w for f in fits if not f.edge.clipped and (w := _widths(metal, f, usual)) is not None]
    if not told:
        return None
    flat, deep, misfit = np.array(told).T
    good = misfit <= _BEST_MISFIT * misfit.min()
    return float(np.median(flat[good])), float(np.median(deep[good]))


def _widths(metal: MetalMap, fit: ShaftFit | SideFit, usual: Psf) -> tuple[float, float, float] | None:
    """FWHM in the slice plane and across it, mm, from the side of one shaft, and what they leave of its edge."""
    from scipy.optimize import least_squares

    places, hu = side_voxels(metal, fit, _EDGE_MM)
    if len(hu) < 200:
        return None
    normal = metal.geometry.normal_lps
    shown = hu / fit.edge.metal_hu
    rho = np.hypot(places[:, 1], places[:, 2]) - fit.radius_mm
    twice = np.cos(2 * np.arctan2(places[:, 2], places[:, 1]))
    # A thread's wave is held, or it would pass for blur.
    thread = fit.thread.over_mm(places)
    usual_logs = np.log([usual.fwhm_in_plane_mm, usual.fwhm_slice_mm])

    def residuals(x: FloatArray) -> FloatArray:
        trial = Psf(float(np.exp(x[0])), float(np.exp(x[1])))
        inside = side_values(places, float(x[2]) + thread, fit.thread.widened(blur_across(fit.axis, trial, normal)))
        # Beam hardening: the levels inside and beside the metal differ in the slice plane and across it, and slope.
        levels = np.stack([np.ones(len(places)), twice, rho], axis=1)
        columns = np.concatenate([inside[:, None] * levels, (1 - inside[:, None]) * levels], axis=1)
        model = columns @ np.linalg.lstsq(columns, shown, rcond=None)[0]
        # Voxels lie closer than the blur is wide, so that they count as a tenth of their number.
        return np.concatenate([(model - shown) / 0.05 / np.sqrt(10.0), (x[:2] - usual_logs) / _TRUST])

    start = [*usual_logs, fit.radius_mm]
    found = least_squares(residuals, start, loss="soft_l1", f_scale=2.0, diff_step=[1e-3], ftol=1e-3, max_nfev=8)
    flat, deep = np.exp(found.x[:2])
    misfit = float(np.std(residuals(found.x)[: len(places)]))
    return (float(flat), float(deep), misfit) if flat < 4 and deep < 12 else None


def side_voxels(
    metal: MetalMap, fit: ShaftFit | SideFit, reach_mm: float, most: int = 1500
) -> tuple[FloatArray, FloatArray]:
    """Native voxels up to `reach_mm` inside and outside a shaft's side, away from its ends.

    Returns (n, 3) places along and across the fit's axis and (n,) HU.
    """
    low, high = fit.clean_mm
    points, hu = metal.windows.near_line(fit.axis.point(low), fit.axis.point(high), fit.radius_mm + reach_mm)
    places = fit.axis.places(points)
    rho = np.hypot(places[:, 1], places[:, 2])
    kept = (rho > fit.radius_mm - reach_mm) & (places[:, 0] > low) & (places[:, 0] < high)
    every = max(1, -(-int(kept.sum()) // most))
    return places[kept][::every], hu[kept][::every]
