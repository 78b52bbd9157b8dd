"""What artefact reduction does to a slice: rays through metal are replaced, so fine detail beside metal is made up."""

from __future__ import annotations

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.phantom.projection import Scanner
from spineimg.phantom.samples import Field

_PRIOR_MM = 2.5
"""SD of the blur that makes the prior image, as in normalised reduction (Meyer 2010), where a prior is segmented."""
_METAL_HU = 2000.0
_TRACE_MM = 0.05


def reduced(scanner: Scanner, axes_mm: tuple[FloatArray, FloatArray], plain_hu: Field, projections_mm: Field) -> Field:
    """(rows, columns) HU of a slice after artefact reduction.

    plain_hu: the slice without metal. projections_mm: (views, bins) what the metal adds. Rays through metal keep the
    prior and lose the rest, which is interpolated from the rays beside the metal (Kalender 1987); voxels of metal are
    put back from the unreduced image.
    """
    from scipy.ndimage import gaussian_filter

    x_mm, y_mm = axes_mm
    with_metal = plain_hu + scanner.image(projections_mm, x_mm, y_mm)
    steps = (abs(y_mm[1] - y_mm[0]), abs(x_mm[1] - x_mm[0]))
    prior = gaussian_filter(plain_hu, [_PRIOR_MM / step for step in steps], mode="nearest")
    paths = project(scanner, axes_mm, np.asarray((plain_hu - prior) / 1000, dtype=np.float32))
    trace = np.abs(projections_mm) > _TRACE_MM
    change = np.zeros_like(paths)
    bins = np.arange(paths.shape[1])
    for row, hidden, out in zip(paths, trace, change, strict=True):
        if hidden.any() and not hidden.all():
            out[hidden] = np.interp(bins[hidden], bins[~hidden], row[~hidden]) - row[hidden]
    smeared = plain_hu + scanner.image(change, x_mm, y_mm)
    return np.asarray(np.where(with_metal > _METAL_HU, with_metal, smeared), dtype=np.float32)


def project(scanner: Scanner, axes_mm: tuple[FloatArray, FloatArray], image: Field) -> Field:
    """(views, bins) line integrals of an image (rows, columns), in its unit times mm."""
    x_mm, y_mm = axes_mm
    area = abs((y_mm[1] - y_mm[0]) * (x_mm[1] - x_mm[0]))
    weight = (image * (area / scanner.beam.bin_mm)).ravel()
    sums = np.zeros((len(scanner.angles), scanner.bins), np.float32)
    for out, angle in zip(sums, scanner.angles, strict=True):
        at = (y_mm * np.sin(angle))[:, None] + x_mm * np.cos(angle)
        place = at.ravel() / scanner.beam.bin_mm + (scanner.bins - 1) / 2
        low = place.astype(np.int64)
        upper = weight * (place - low)
        both = np.bincount(low, weight - upper, scanner.bins + 1)
        both[1:] += np.bincount(low, upper, scanner.bins + 1)[:-1]
        out[:] = both[: scanner.bins]
    return sums
