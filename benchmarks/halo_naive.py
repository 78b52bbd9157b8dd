"""The naive way to measure a halo, for comparison: threshold, radial profile, half-depth width.

Metal is what lies above 2000 HU. Around the shaft's axis HU are averaged in rings; the dip between the metal's edge and
the bone plateau 4-6 mm outside it counts as the zone, as wide as it stays below the level half way between the dip's
floor and the plateau. Blur, streaks and the bone's own structure are not thought of.
"""

from __future__ import annotations

import numpy as np

from spineimg.implants.metal_map import Windows
from spineimg.implants.model import Shaft
from spineimg.implants.unrolled import ShaftFrame, shell_voxels
from spineimg.volume import CTVolume

_RING_MM = 0.2


def naive_width_mm(volume: CTVolume, shaft: Shaft) -> float:
    """Width of the zone by the half-depth rule, 0 where the profile has no dip."""
    windows = Windows(volume)
    frame = ShaftFrame.of(shaft, volume.geometry.normal_lps)
    radius = shaft.diameter_mm / 2
    around = shell_voxels(windows, shaft, frame, (0.0, radius + 6.0), (0.3 * shaft.length_mm, shaft.length_mm - 5.0))
    ring = (around.distance_mm / _RING_MM).astype(int)
    count = np.bincount(ring)
    profile = np.bincount(ring, around.hu) / np.maximum(count, 1)
    place = (np.arange(len(profile)) + 0.5) * _RING_MM
    outside = np.flatnonzero((profile < 2000.0) & (place > 0.5 * radius))
    if not len(outside):
        return 0.0
    edge = int(outside[0])
    plateau = float(np.median(profile[(place > radius + 4.0) & (count > 0)]))
    lowest = edge + int(np.argmin(profile[edge:]))
    if profile[lowest] > plateau - 20.0:
        return 0.0
    half = (profile[lowest] + plateau) / 2
    below = np.flatnonzero(profile[edge:] < half) + edge
    return float((below[-1] - below[0] + 1) * _RING_MM)
