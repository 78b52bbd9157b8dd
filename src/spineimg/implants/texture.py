"""Whether a kernel is sharp, from the grain of the image's noise.

A soft kernel's noise is correlated over a pixel or two, then hardly at all. A kernel that enhances edges turns the
correlation negative a millimetre or two away, as it puts a dark rim around everything bright.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from spineimg.geometry import FloatArray
from spineimg.implants.model import Shaft
from spineimg.volume import CTVolume

_SOFT_TISSUE_HU = (-50.0, 150.0)
_CLEAR_MM = 2.0
"""Away from edges by this."""
_SLOW_MM = 1.5
"""Standard deviation of the Gaussian that takes slow changes out."""
_LAGS_MM = (0.6, 3.0)
_LEAST_PAIRS = 500
_MOST_SLICES = 8


def noise_texture(volume: CTVolume, shafts: Sequence[Shaft]) -> float:
    """The lowest correlation of the noise at 0.6-3 mm along rows, in soft tissue; 0 where there is too little of it.

    It is looked for in a few slices around the shafts. Raises what reading a slice raises.
    """
    places = volume.geometry.positions_mm
    ends = np.array([point for shaft in shafts for point in (shaft.head_lps_mm, shaft.tip_lps_mm)])
    if not len(ends):
        return 0.0
    heights = ends @ volume.geometry.normal_lps
    near = np.flatnonzero((places >= heights.min() - 10) & (places <= heights.max() + 10))
    if not len(near):
        return 0.0
    slices = near[np.unique(np.linspace(0, len(near) - 1, _MOST_SLICES).astype(int))]
    found = np.array([_correlations(volume, int(k)) for k in slices])
    found = found[np.isfinite(found).all(axis=1)]
    return float(np.min(np.median(found, axis=0), initial=0.0)) if len(found) else 0.0


def _correlations(volume: CTVolume, k: int) -> FloatArray:
    """(lags,) correlation of one slice's noise, nan where there are too few pairs."""
    pixel = volume.geometry.spacing_mm[2]
    hu = np.where(volume.valid(k, volume.read(k)), volume.read(k), np.float32(-1000)).astype(np.float32)
    tissue = (hu > _SOFT_TISSUE_HU[0]) & (hu < _SOFT_TISSUE_HU[1])
    tissue = ndimage.binary_erosion(tissue, iterations=int(np.ceil(_CLEAR_MM / pixel)))
    noise = hu - ndimage.gaussian_filter(hu, _SLOW_MM / pixel)
    lags = np.arange(max(1, int(np.ceil(_LAGS_MM[0] / pixel))), int(_LAGS_MM[1] / pixel) + 1)
    out = np.full(len(lags), np.nan)
    for number, lag in enumerate(lags):
        both = tissue[:, lag:] & tissue[:, :-lag]
        if np.count_nonzero(both) >= _LEAST_PAIRS:
            out[number] = np.mean((noise[:, lag:] * noise[:, :-lag])[both]) / np.var(noise[tissue])
    return out
