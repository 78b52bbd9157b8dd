"""What stands behind a shaft: a tulip, or a plate, a nail, the ball of a joint.

Screws of the whole body point forward from a wider piece of metal. What tells those of the spine is how far metal goes
on behind the shaft, along its axis: a plate ends after a few mm, a tulip with its rod and set screw after 9-17 mm, and
a ball, or a nail with the other half of its screw, reaches farther.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.implants.axis import ShaftFit
from spineimg.implants.metal_map import MetalMap
from spineimg.settings import setting

_STEP_MM = 0.5
_ANGLES = 12
_LEAN_MM = 2.5
"""A tulip leans by up to 30 degrees: at each depth metal so near to the axis counts. Engineering choice."""
_ARM_MM = 4.8
"""The arms of a tulip whose rod was taken out stand so far from the axis. Engineering choice."""
_BARE_MM, _BARE = 2.0, 0.15
"""Behind a head a bare shaft has metal around no more than this part of it, so far outside its side."""


@dataclass(frozen=True, slots=True)
class HolderSettings:
    """How deep the tulip of a pedicle screw is."""

    deepest_mm: float = setting(
        26.0,
        "mm",
        (18.0, 39.0),
        "engineering choice: tulips are 9-17 mm deep; beyond them lies at most a crosslink. Balls of joints have 28 mm",
        "Metal goes on behind a shaft so far at most.",
    )
    least_mm: float = setting(
        7.0,
        "mm",
        (0.0, 12.0),
        "engineering choice: plates are 1-5 mm thick, which blur and the heads of their screws lengthen by 2 mm",
        "And at least so far, where no rod is seen.",
    )
    least_slender: float = setting(
        3.2,
        "diameters",
        (1.0, 6.0),
        "screws have 3.5 diameters and more (3.5 x 14 mm); what of a locking screw stands out of its nail has fewer",
        "Shortest shaft for its thickness, where no rod is seen.",
    )
    shaft_mm: float = setting(
        5.0,
        "mm",
        (3.0, 15.0),
        "engineering choice: a set screw stands 1-2 mm out of its tulip; behind a nail its screws have 8 mm and more",
        "A bare shaft so long behind the head is the other half of a screw through a nail.",
    )


def may_hold(metal: MetalMap, fit: ShaftFit, rod: bool, settings: HolderSettings) -> bool:
    """Whether what stands behind a shaft can be a pedicle screw's tulip. rod: whether a rod passes there. Where the
    image ends before the metal does, it may."""
    if not rod and fit.length_mm < settings.least_slender * 2 * fit.radius_mm:
        return False
    depths = np.arange(_STEP_MM, settings.deepest_mm + 3 * _STEP_MM, _STEP_MM)
    count, wide = _runs(metal, fit, depths)
    end = fit.head_lps_mm - (count + 1) * _STEP_MM * fit.axis.along
    if np.isnan(metal.windows.sample(end[None])).all():
        return True
    depth = count * _STEP_MM
    core = _metal_at(metal, fit, depths[:count], 0.4 * fit.radius_mm).all(axis=1)
    beside = _metal_at(metal, fit, depths[:count], fit.radius_mm + _BARE_MM).mean(axis=1)
    bare = np.count_nonzero(core & (beside <= _BARE)) * _STEP_MM
    deep = rod or wide * _STEP_MM >= settings.least_mm
    return bool(depth <= settings.deepest_mm and bare < settings.shaft_mm and deep)


def _runs(metal: MetalMap, fit: ShaftFit, depths_mm: FloatArray) -> tuple[int, int]:
    """Number of depths from the head on with metal near the axis, and with any at all. Looked for no farther than it
    goes, so that no slice is read for nothing."""
    near: list[bool] = []
    wide: list[bool] = []
    for depth in depths_mm:
        here = np.array([depth])
        near.append(bool((_metal_at(metal, fit, here, _LEAN_MM) | _metal_at(metal, fit, here, 0.0)).any()))
        wide.append(near[-1] or bool(_metal_at(metal, fit, here, _ARM_MM).any()))
        if not wide[-1]:
            break
    return (near.index(False) if False in near else len(near)), (wide.index(False) if False in wide else len(wide))


def _metal_at(metal: MetalMap, fit: ShaftFit, depths_mm: FloatArray, off_mm: float) -> npt.NDArray[np.bool_]:
    """(depths, angles) True where metal is at a distance from the axis, behind the head."""
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    ring = np.cos(angles)[:, None] * fit.axis.across + np.sin(angles)[:, None] * fit.axis.beyond
    points = fit.head_lps_mm - depths_mm[:, None, None] * fit.axis.along + off_mm * ring
    hu = metal.windows.sample(points.reshape(-1, 3)).reshape(len(depths_mm), _ANGLES)
    return np.asarray(hu >= metal.seed_hu)
