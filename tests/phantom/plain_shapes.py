"""Phantoms of one simple shape in front of nothing, to test the scanner by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.phantom import Imaging, Phantom, SpineSpec
from spineimg.phantom.parts import Part, Shape, uniform
from spineimg.phantom.samples import Field, Samples

SMALL = SpineSpec(("L2", "L3", "L4"))
EMPTY_HU = -100.0


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """Everything behind a plane: the normal points out."""

    point_lps_mm: FloatArray
    normal_lps: FloatArray

    @property
    def bounds_lps_mm(self) -> FloatArray:
        return np.array([[-1e4] * 3, [1e4] * 3])

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        away = samples.along(self.normal_lps, self.point_lps_mm)
        return away, away


class Nothing:
    """A trunk of one HU."""

    def hu(self, samples: Samples, soft_mm: float) -> Field:
        return np.full(samples.shape, np.float32(EMPTY_HU))

    def with_ribs(self, hu: Field, samples: Samples, soft_mm: float) -> Field:
        return hu


def one_shape(shape: Shape, imaging: Imaging, hu: float) -> Phantom:
    """A phantom that holds only this shape."""
    phantom = Phantom(SMALL, imaging, cover=("L3", "L3"))
    vars(phantom)["parts"] = (Part("shape", [shape], uniform(hu)),)
    vars(phantom)["torso"] = Nothing()
    return phantom
