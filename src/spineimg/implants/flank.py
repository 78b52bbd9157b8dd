"""The blur as the lower flank of a metal's edge shows it, where the scale ends below the metal.

With the metal's HU assumed, each voxel of the flank lies a known number of standard deviations from the edge, so that
its distance from the axis tells radius and blur together. That holds on a flank that beam hardening and streaks leave
alone: where its voxels stray by more than a few hundredths of a millimetre, as beside most shafts of a real scan, it
says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.cylinder import blur_across, polar

if TYPE_CHECKING:
    from spineimg.implants.axis import ShaftFit, SideFit
    from spineimg.implants.metal_map import MetalMap
    from spineimg.implants.psf import Psf

_STRAY_MM = 0.05
"""Voxels of a clean flank stray less. Engineering choice: 0.01-0.04 mm on flanks without streaks, 0.1-0.4 mm beside
shafts with them."""
_FEWEST, _MOST = 100, 1500
_REACH_MM = 1.6
"""No flank lies farther from the edge. Engineering choice: a blur of 2 mm."""
_TOGETHER = 10.0
"""So many neighbouring voxels err together. Engineering choice."""


def flank_widths(metal: MetalMap, fit: ShaftFit | SideFit, usual: Psf, trust: float) -> tuple[float, float] | None:
    """FWHM in the slice plane and across it, mm, and None where the flank is too short or too streaked.

    trust: standard error of the usual widths, as a logarithm.
    """
    from scipy.optimize import least_squares
    from scipy.special import ndtri

    from spineimg.implants.psf import Psf

    places, hu = _flank(metal, fit)
    if len(hu) < _FEWEST:
        return None
    thread = fit.thread.over_mm(places)
    around = fit.edge.around_hu(places)
    inside = ndtri(np.clip((hu - around) / (fit.edge.metal_hu - around), 1e-3, 1 - 1e-3))
    usual_logs = np.log([usual.fwhm_in_plane_mm, usual.fwhm_slice_mm])

    def stray(x: FloatArray) -> FloatArray:
        trial = Psf(float(np.exp(x[0])), float(np.exp(x[1])))
        blur = fit.thread.widened(blur_across(fit.axis, trial, metal.geometry.normal_lps))
        rho, normal, tangent = polar(places, blur)
        return np.asarray(x[2] + thread - tangent / (2 * fit.radius_mm) - inside * np.sqrt(normal) - rho)

    def residuals(x: FloatArray) -> FloatArray:
        return np.concatenate([stray(x) / _STRAY_MM / np.sqrt(_TOGETHER), (x[:2] - usual_logs) / trust])

    found = least_squares(residuals, [*usual_logs, fit.radius_mm], loss="soft_l1", f_scale=2.0, max_nfev=20)
    if float(np.std(stray(found.x))) > _STRAY_MM:
        return None
    flat, deep = np.exp(found.x[:2])
    return float(flat), float(deep)


def _flank(metal: MetalMap, fit: ShaftFit | SideFit) -> tuple[FloatArray, FloatArray]:
    """Places (n, 3) along and across the fit's axis, and HU, of voxels on the flank of its undisturbed part."""
    low, high = fit.clean_mm
    points, hu = metal.windows.near_line(fit.axis.point(low), fit.axis.point(high), fit.radius_mm + _REACH_MM)
    places = fit.axis.places(points)
    away = np.abs(np.hypot(places[:, 1], places[:, 2]) - fit.radius_mm)
    least, most = fit.edge.flank_hu
    kept = (hu > least) & (hu < most) & (away < _REACH_MM) & (places[:, 0] > low) & (places[:, 0] < high)
    every = max(1, -(-int(kept.sum()) // _MOST))
    return places[kept][::every], hu[kept][::every]
