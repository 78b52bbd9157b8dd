"""Parts painted into the slices of a lattice, with the scanner's blur."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from spineimg.geometry import FloatArray, Geometry
from spineimg.phantom.imaging import Imaging, blur_filter, sheaf, window
from spineimg.phantom.parts import Canvas, Part
from spineimg.phantom.samples import Field, Samples, joined

_CHUNK_POINTS = 4_000_000
"""Samples painted at a time: enough to keep the loop's cost small, little enough for memory."""

Painted = tuple[tuple[slice, slice], Field, Field]
"""Rows and columns of a window, and the coverage (0-1) and the weighted HU in it."""


def painted_slices(parts: Sequence[Part], imaging: Imaging, geometry: Geometry) -> Iterator[Painted | None]:
    """Slice by slice: where the parts' window lies, and their coverage and weighted HU there; None without any."""
    count = geometry.shape[0]
    near = window(imaging, geometry, joined([part.bounds_lps_mm for part in parts]))
    if near is None:
        yield from (None for _ in range(count))
        return
    under = sheaf(imaging, geometry)
    block = np.s_[near.rows[0] : near.rows[1], near.columns[0] : near.columns[1]]
    kernels = [blur_filter(imaging, step / over) for step, over in zip(geometry.spacing_mm[1:], near.over, strict=True)]
    one = near.planes(geometry, under.shift_lps_mm[:1]).shape
    together = max(1, _CHUNK_POINTS // (int(np.prod(one)) * under.stride))
    for first in range(0, count, together):
        last = min(first + together, count) - 1
        some = np.s_[first * under.stride : last * under.stride + len(under.weights)]
        canvas = painted(parts, near.planes(geometry, under.shift_lps_mm[some]), imaging.soft_mm)
        for k in range(last - first + 1):
            its = np.s_[k * under.stride : k * under.stride + len(under.weights)]
            flat = (np.tensordot(under.weights, f[its], 1) for f in (canvas.alpha, canvas.weighted_hu))
            alpha, weighted = (near.pixels(_blurred(f, kernels)) for f in flat)
            yield block, alpha, weighted


def painted(parts: Sequence[Part], samples: Samples, soft_mm: float) -> Canvas:
    """The parts, back to front, at samples."""
    canvas = Canvas.blank(samples.shape)
    for part in parts:
        part.paint(canvas, samples, soft_mm)
    return canvas


def _blurred(image: Field, kernels: Sequence[FloatArray]) -> Field:
    from scipy.ndimage import convolve1d

    for axis, kernel in enumerate(kernels):
        image = convolve1d(image, kernel.astype(np.float32), axis=axis, mode="nearest")
    return np.asarray(image)
