"""Pedicle screws and rods as plain cylinders. Blurred like everything else; streaks are not modelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, unit
from spineimg.phantom.assembly import pedicle_axis
from spineimg.phantom.parts import Part, Shape, Strut, uniform
from spineimg.phantom.spine import SpineSpec, Vertebra

TITANIUM_HU = 7000.0
COBALT_CHROME_HU = 17000.0
_HEAD_MM = (6.2, 14.0)
"""Radius and length of a tulip (12-13 x 14 mm)."""


@dataclass(frozen=True, slots=True)
class MetalSpec:
    """Screws on both sides of `levels`, joined by one rod a side."""

    levels: tuple[str, ...]
    screw_hu: float = TITANIUM_HU
    rod_hu: float = TITANIUM_HU
    rod_diameter_mm: float = 5.5


@dataclass(frozen=True, eq=False, slots=True)
class Screw:
    """head, tip: (3,) LPS mm, as the contract names them."""

    level: str
    side: str
    head_lps_mm: FloatArray
    tip_lps_mm: FloatArray
    diameter_mm: float

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(self.tip_lps_mm - self.head_lps_mm))


def screws(metal: MetalSpec, layout: Sequence[Vertebra], spec: SpineSpec) -> list[Screw]:
    """Screws through the pedicles: 80 % of the pedicle's width, 4.5-7.5 mm; tip two thirds into the body."""
    placed = []
    for level in metal.levels:
        vertebra = next((v for v in layout if v.level == level), None)
        if vertebra is None or level[0] == "S":
            raise SpineImgError(f"no screws for {level}: this phantom has no such vertebra")
        diameter = float(np.clip(round(1.6 * vertebra.size.pedicle_width * spec.size) / 2, 4.5, 7.0))
        for side in ("left", "right"):
            isthmus, inward = pedicle_axis(vertebra, spec, side == "left")
            depth = vertebra.size.depth * spec.size * 0.65 + 4
            tip = isthmus + inward * depth / -inward[1]
            head = isthmus - inward * (vertebra.size.canal_depth * spec.size * 0.75)
            placed.append(Screw(level, side, vertebra.frame.lps(head), vertebra.frame.lps(tip), diameter))
    return placed


def rods(metal: MetalSpec, layout: Sequence[Vertebra], spec: SpineSpec) -> dict[str, FloatArray]:
    """side -> (n, 3) LPS mm centre line of the rod, from head to foot, 8 mm beyond the last screws."""
    lines = {}
    for side in ("left", "right"):
        seats = np.array([_seat(s) for s in screws(metal, layout, spec) if s.side == side])
        if len(seats) < 2:
            continue
        first, last = unit(seats[0] - seats[1]), unit(seats[-1] - seats[-2])
        lines[side] = np.array([seats[0] + 8 * first, *seats, seats[-1] + 8 * last])
    return lines


def _seat(screw: Screw) -> FloatArray:
    return screw.head_lps_mm + 7.0 * unit(screw.head_lps_mm - screw.tip_lps_mm)


def metal_parts(metal: MetalSpec, layout: Sequence[Vertebra], spec: SpineSpec) -> tuple[Part, ...]:
    """The metal as parts: shafts and heads, rods."""
    bodies: list[Shape] = []
    for screw in screws(metal, layout, spec):
        back = unit(screw.head_lps_mm - screw.tip_lps_mm)
        across = np.array([1.0, 0.0, 0.0])
        radius = screw.diameter_mm / 2
        bodies.append(Strut(screw.head_lps_mm, screw.tip_lps_mm, across, (radius, radius), blunt=True))
        end = screw.head_lps_mm + _HEAD_MM[1] * back
        bodies.append(Strut(screw.head_lps_mm, end, across, (_HEAD_MM[0], _HEAD_MM[0]), blunt=True))
    lines: list[Shape] = []
    for line in rods(metal, layout, spec).values():
        half = metal.rod_diameter_mm / 2
        lines += [Strut(a, b, np.array([1.0, 0.0, 0.0]), (half, half)) for a, b in pairwise(line)]
    parts = [Part("screws", bodies, uniform(metal.screw_hu))]
    if lines:
        parts.append(Part("rods", lines, uniform(metal.rod_hu)))
    return tuple(parts)
