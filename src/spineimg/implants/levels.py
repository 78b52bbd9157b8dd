"""Which side and which vertebra a screw belongs to.

The side comes from the construct itself, because the patient's midline is of no use in a scoliotic spine: the rod or
partner to compare with lies at the same height. Of a construct on one side only, the vertebra tells, or the way its
screws converge. The level is that of the vertebra whose body holds the shaft's front half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spineimg.anatomy import Side, order
from spineimg.geometry import FloatArray
from spineimg.implants.breach import Outline

_PARTNER_MM = 15.0
"""Screws of one level lie within this height of each other, also in a tilted vertebra. Engineering choice."""
_APART_MM = 8.0
"""Two sides are at least this far apart from left to right. Engineering choice."""
_CONVERGE_MM = 3.0
"""Mean way of the tips towards the middle from which it tells the side. Engineering choice."""
_REACH_MM = 32.0
"""A shaft's front half lies within this distance of its vertebral body's centre. Engineering choice."""


@dataclass(frozen=True, eq=False, slots=True)
class KnownVertebra:
    """A vertebra whose body is known. up_lps, left_lps: (3,) its axes towards head and left; None: the patient's.
    height_mm: of the body; None: unknown. outline: looks up its outline, which may take a second; gives None where
    there is none."""

    level: str
    center_lps_mm: FloatArray
    up_lps: FloatArray | None = None
    left_lps: FloatArray | None = None
    height_mm: float | None = None
    outline: Callable[[], Outline | None] | None = None


def axes_of(vertebra: KnownVertebra, vertebrae: Sequence[KnownVertebra]) -> FloatArray:
    """(3, 3) unit rows left, posterior, cranial of a vertebra."""
    up = _up(vertebra, vertebrae)
    left = vertebra.left_lps if vertebra.left_lps is not None else np.array([1.0, 0.0, 0.0])
    left = left - (left @ up) * up
    left = left / np.linalg.norm(left)
    return np.stack([left, np.cross(up, left), up])


def level_of(
    head_lps_mm: FloatArray, tip_lps_mm: FloatArray, vertebrae: Sequence[KnownVertebra]
) -> KnownVertebra | None:
    """The vertebra whose body holds the front half of a shaft; None where no known one does."""
    best: tuple[float, KnownVertebra] | None = None
    for vertebra in vertebrae:
        up = _up(vertebra, vertebrae)
        inside = [_beside(vertebra, head_lps_mm + part * (tip_lps_mm - head_lps_mm), up) for part in (0.6, 0.8, 1.0)]
        off, away = float(np.mean([abs(o) for o, _ in inside])), min(a for _, a in inside)
        half = vertebra.height_mm * 0.6 if vertebra.height_mm else _half_step(vertebra, vertebrae)
        if off <= half and away <= _REACH_MM and (best is None or off < best[0]):
            best = off, vertebra
    return best[1] if best else None


def _beside(vertebra: KnownVertebra, point: FloatArray, up: FloatArray) -> tuple[float, float]:
    """(height over the centre along the vertebra's axis, distance from that axis), mm."""
    way = point - vertebra.center_lps_mm
    height = float(way @ up)
    return height, float(np.linalg.norm(way - height * up))


def _up(vertebra: KnownVertebra, vertebrae: Sequence[KnownVertebra]) -> FloatArray:
    """The vertebra's axis: its own, else along its neighbours, else the patient's."""
    if vertebra.up_lps is not None:
        return vertebra.up_lps
    line = sorted(vertebrae, key=lambda v: order(v.level))
    at = [v.level for v in line].index(vertebra.level)
    above, below = line[max(0, at - 1)], line[min(len(line) - 1, at + 1)]
    way = above.center_lps_mm - below.center_lps_mm
    near = abs(order(above.level) - order(below.level)) <= 3
    length = float(np.linalg.norm(way))
    return np.asarray(way / length) if near and length > 5 else np.array([0.0, 0.0, 1.0])


def _half_step(vertebra: KnownVertebra, vertebrae: Sequence[KnownVertebra]) -> float:
    """Half the distance to the next known vertebra, 10-20 mm; 16 mm without one."""
    others = [float(np.linalg.norm(v.center_lps_mm - vertebra.center_lps_mm)) for v in vertebrae if v is not vertebra]
    return float(np.clip(min(others, default=32.0) / 2, 10.0, 20.0))


def sides_of(
    heads_lps_mm: FloatArray,
    tips_lps_mm: FloatArray,
    rod_of: Sequence[int | None],
    rods: Sequence[FloatArray],
    vertebra_of: Sequence[KnownVertebra | None],
) -> tuple[list[Side | None], list[Side | None]]:
    """Sides of the screws and of the rods; None where nothing tells.

    heads_lps_mm, tips_lps_mm: (n, 3). rod_of: index of the rod that each screw carries. rods: (m, 3) centre lines.
    """
    rod_sides = [_rod_side(n, rods) for n in range(len(rods))]
    sides: list[Side | None] = []
    for n in range(len(heads_lps_mm)):
        side = _by_vertebra(heads_lps_mm[n], vertebra_of[n])
        rod = rod_of[n]
        if side is None and rod is not None:
            side = rod_sides[rod]
        sides.append(side or _by_partner(n, heads_lps_mm))
    for rod in range(len(rods)):
        carried = [n for n in range(len(sides)) if rod_of[n] == rod]
        told = [side for n in carried if (side := sides[n]) is not None]
        if rod_sides[rod] is None:
            rod_sides[rod] = _most(told) or _by_convergence(heads_lps_mm[carried], tips_lps_mm[carried])
        for n in carried:
            sides[n] = sides[n] or rod_sides[rod]
    return [s or _by_convergence(heads_lps_mm[[n]], tips_lps_mm[[n]]) for n, s in enumerate(sides)], rod_sides


def _most(told: Sequence[Side]) -> Side | None:
    left = sum(side is Side.LEFT for side in told)
    if 2 * left == len(told):
        return None
    return Side.LEFT if 2 * left > len(told) else Side.RIGHT


def _rod_side(n: int, rods: Sequence[FloatArray]) -> Side | None:
    """The side of a rod from the other rods at its height."""
    apart: list[float] = []
    for m, other in enumerate(rods):
        if m == n:
            continue
        low, high = max(rods[n][:, 2].min(), other[:, 2].min()), min(rods[n][:, 2].max(), other[:, 2].max())
        if high - low < 5.0:
            continue
        heights = np.linspace(low, high, 9)
        apart.append(float(np.median(_x_at(rods[n], heights) - _x_at(other, heights))))
    telling = [a for a in apart if abs(a) >= _APART_MM]
    if not telling:
        return None
    return Side.LEFT if max(telling, key=abs) > 0 else Side.RIGHT


def _x_at(line: FloatArray, heights: FloatArray) -> FloatArray:
    by_height = np.argsort(line[:, 2], kind="stable")
    return np.asarray(np.interp(heights, line[by_height, 2], line[by_height, 0]))


def _by_vertebra(head: FloatArray, vertebra: KnownVertebra | None) -> Side | None:
    if vertebra is None:
        return None
    left = vertebra.left_lps if vertebra.left_lps is not None else np.array([1.0, 0.0, 0.0])
    off = float((head - vertebra.center_lps_mm) @ left)
    return None if abs(off) < 3.0 else (Side.LEFT if off > 0 else Side.RIGHT)


def _by_partner(n: int, heads: FloatArray) -> Side | None:
    """The side from the nearest head at about the same height."""
    way = heads - heads[n]
    beside = (np.abs(way[:, 2]) <= _PARTNER_MM) & (np.abs(way[:, 0]) >= _APART_MM)
    if not beside.any():
        return None
    nearest = np.flatnonzero(beside)[np.argmin(np.abs(way[beside, 2]))]
    return Side.LEFT if way[nearest, 0] < 0 else Side.RIGHT


def _by_convergence(heads: FloatArray, tips: FloatArray) -> Side | None:
    """Pedicle screws converge forward: tips lie nearer to the middle than heads."""
    if not len(heads):
        return None
    way = float(np.mean(heads[:, 0] - tips[:, 0]))
    return None if abs(way) < _CONVERGE_MM else (Side.LEFT if way > 0 else Side.RIGHT)


def reading_order(heads: FloatArray, tips: FloatArray, sides: Sequence[Side | None]) -> list[int]:
    """Indices from head to foot, the left one of a pair first."""
    height = (0.5 * heads + 0.5 * tips)[:, 2]
    left = sorted((n for n in range(len(heads)) if sides[n] is not Side.RIGHT), key=lambda n: -height[n])
    right = sorted((n for n in range(len(heads)) if sides[n] is Side.RIGHT), key=lambda n: -height[n])
    merged: list[int] = []
    while left and right:
        # A pair counts as one height; of a pair the left one comes first.
        first_right = height[right[0]] > height[left[0]] + _PARTNER_MM / 2
        merged.append(right.pop(0) if first_right else left.pop(0))
        if not first_right and right and abs(height[right[0]] - height[merged[-1]]) <= _PARTNER_MM / 2:
            merged.append(right.pop(0))
    return [*merged, *left, *right]
