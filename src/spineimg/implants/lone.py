"""Shafts without a tulip or a rod: a screw whose rod was taken out, a broken one, or bare metal of a screw's size.

What holds a screw is the best witness that a tube of metal is one. Without it the tube itself must look like a pedicle
screw: its thickness, length and direction, an edge that is a cylinder's, and bone around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.axis import ShaftFit
from spineimg.implants.metal_map import MetalMap
from spineimg.settings import setting

_ANGLES = 12
_STEP_MM = 2.0
_BESIDE_MM = 1.5


@dataclass(frozen=True, slots=True)
class LoneSettings:
    """When a shaft that nothing holds is a screw."""

    least_forward: float = setting(
        0.6,
        "",
        (0.3, 0.95),
        "engineering choice: pedicle screws point forward, screws of the hip and the sacroiliac joint inward",
        "Forward part of its direction.",
    )
    length_mm: tuple[float, float] = setting(
        (18.0, 65.0), "mm", (10.0, 110.0), "pedicle screws are 20-60 mm long", "Shortest and longest."
    )
    radius_mm: tuple[float, float] = setting(
        (1.7, 4.6),
        "mm",
        (1.3, 6.0),
        "pedicle screws of 3.5-8.5 mm; needles and wires are thinner",
        "Thinnest and thickest fitted shaft, radius.",
    )
    least_slender: float = setting(
        3.5,
        "diameters",
        (2.0, 8.0),
        "pedicle screws have 5-9 diameters, lateral mass screws 4; cages between two vertebrae 2-3",
        "Shortest shaft for its thickness.",
    )
    least_cone_mm: float = setting(
        1.0,
        "mm",
        (0.0, 5.0),
        "engineering choice: screws taper over 3-8 mm; threaded cages and walls of cages end flat",
        "Length of the tip's taper.",
    )
    worst_misfit: float = setting(
        0.2,
        "of the fitted range",
        (0.05, 1.0),
        "engineering choice: 0.02-0.15 on shafts",
        "A fit with a larger rms residual is no screw.",
    )
    ring_mm: float = setting(
        3.0, "mm", (1.5, 6.0), "engineering choice: outside the blur and the usual zone", "Looked at around its thread."
    )
    tissue_hu: tuple[float, float] = setting(
        (-30.0, 1600.0),
        "HU",
        (-200.0, 2500.0),
        "engineering choice: neither fat, air nor metal, beam hardening allowed for",
        "HU of a ring in a vertebra.",
    )
    least_tissue: float = setting(
        0.75, "", (0.0, 1.0), "engineering choice: the entry may lie in fat", "Part of the ring with such HU."
    )
    most_metal: float = setting(
        0.1,
        "",
        (0.0, 0.5),
        "engineering choice: a bare shaft has none beside it; the wall of a cage and a screw through a nail a fifth",
        "Part of the ring 1.5 mm outside its thread that is metal.",
    )
    bone_hu: float = setting(
        120.0,
        "HU",
        (60.0, 400.0),
        "engineering choice: muscle reads 60, cortex beside a shaft 200 and more",
        "The brightest tenth of the ring is at least that bright.",
    )


def stands_alone(metal: MetalMap, fit: ShaftFit, settings: LoneSettings) -> bool:
    """Whether a fitted shaft that nothing holds looks like a screw in bone."""
    thin, thick = settings.radius_mm
    short, long = settings.length_mm
    shaped = thin <= fit.radius_mm <= thick and short <= fit.length_mm <= long
    slender = fit.length_mm >= settings.least_slender * 2 * fit.radius_mm
    if not (shaped and slender) or fit.cone_mm < settings.least_cone_mm:
        return False
    if fit.misfit > settings.worst_misfit or -fit.axis.along[1] < settings.least_forward:
        return False
    depths = np.arange(*fit.clean_mm, _STEP_MM)
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    across = np.cos(angles)[:, None] * fit.axis.across + np.sin(angles)[:, None] * fit.axis.beyond
    centres = fit.axis.origin_lps_mm + depths[:, None] * fit.axis.along

    def ring_hu(beyond_mm: float) -> FloatArray:
        ring = centres[:, None] + (fit.outer_radius_mm + beyond_mm) * across
        return metal.windows.sample(ring.reshape(-1, 3))

    if np.mean(ring_hu(_BESIDE_MM) >= metal.seed_hu) > settings.most_metal:
        return False
    hu = ring_hu(settings.ring_mm)
    low, high = settings.tissue_hu
    tissue = (hu > low) & (hu < high)
    return bool(tissue.mean() >= settings.least_tissue and np.percentile(hu[tissue], 90) >= settings.bone_hu)
