"""Pedicle screws with threads, bent rods, and what surrounds a loose screw: shapes with exact edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, unit
from spineimg.phantom.parts import Part, Shape, Strut, uniform
from spineimg.phantom.samples import Field, Samples, joined
from spineimg.settings import setting

_FAR_MM = np.float32(50.0)
TIP_MM = 5.0
"""Length of a screw's conical tip."""
_POINT_MM = 0.8
"""Radius at the very tip."""
TULIP_MM = (6.2, 14.0)
"""Radius and length of a tulip (12-13 x 14 mm)."""
SEAT_MM = 7.0
"""From where the shaft meets the tulip to the middle of the rod."""

HaloForm = Literal["uniform", "tip cone", "head cone", "double cone", "half"]


@dataclass(frozen=True, slots=True)
class Lucency:
    """A lucent zone around a shaft, measured from the outer thread, inside bone only.

    form: how the width runs: `width_mm` everywhere; growing from head to tip, from tip to head, or from the middle to
    both; or on one half of the circumference only, around `facing_deg` (0 is the patient's left, 90 cranial).
    between: first and last depth as parts of the shaft's length.
    """

    width_mm: float = setting(0.0, "mm", (0, 5), "typically 1-3 mm", "largest width")
    form: HaloForm = "uniform"
    between: tuple[float, float] = (0.0, 1.0)
    facing_deg: float = 90.0
    hu: float = setting(40.0, "HU", (0, 80), "30-50 fibrous tissue", "HU of the zone")
    rim_mm: float = setting(0.0, "mm", (0, 2), "0.5-1 mm", "sclerotic rim around the zone")
    rim_hu: float = setting(500.0, "HU", (200, 900), "400-600", "HU of the rim")

    def width(self, depth: Field, angle: Field, length: float) -> Field:
        """Width at depths (mm from the head) and angles (radians from the patient's left)."""
        at = np.clip(depth / np.float32(length), 0, 1)
        if self.form == "half":
            turn = np.cos(angle - np.float32(np.radians(self.facing_deg)))
            # The zone ends within about 10° on either side.
            shape = np.clip(0.5 + turn / np.float32(2 * np.sin(np.radians(10))), 0, 1)
        else:
            shape = {
                "uniform": np.ones_like(at),
                "tip cone": at,
                "head cone": 1 - at,
                "double cone": np.abs(2 * at - 1),
            }[self.form]
        first, last = (np.float32(part * length) for part in self.between)
        if self.between[0] > 0:
            shape = shape * np.clip(depth - first + np.float32(0.5), 0, 1)
        if self.between[1] < 1:
            shape = shape * np.clip(last - depth + np.float32(0.5), 0, 1)
        return np.asarray(np.float32(self.width_mm) * shape, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Shaft:
    """A screw's shaft: core and helical thread, conical tip. head, tip: (3,) LPS mm.

    span: depths between which there is metal; None for all of it and 3 mm into the tulip.
    """

    head_lps_mm: FloatArray
    tip_lps_mm: FloatArray
    diameter_mm: float
    thread_mm: float = 0.7
    pitch_mm: float = 2.75
    phase: float = 0.0
    span: tuple[float, float] | None = None

    @cached_property
    def length_mm(self) -> float:
        return float(np.linalg.norm(self.tip_lps_mm - self.head_lps_mm))

    @cached_property
    def axes(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Unit vectors along the shaft, to the patient's left and cranial across it."""
        along = unit(self.tip_lps_mm - self.head_lps_mm)
        left = np.array([1.0, 0.0, 0.0])
        left = unit(left - (left @ along) * along)
        cranial = np.cross(along, left)
        return along, left, cranial * (1.0 if cranial[2] >= 0 else -1.0)

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        return self.box(1.0)

    def box(self, spare_mm: float) -> FloatArray:
        ends = np.stack([self.head_lps_mm - 3 * self.axes[0], self.tip_lps_mm])
        spare = self.diameter_mm / 2 + spare_mm
        return np.asarray(np.stack([ends.min(axis=0) - spare, ends.max(axis=0) + spare]))

    def cylindrical(self, samples: Samples) -> tuple[Field, Field, Field]:
        """Depth from the head, distance from the axis and angle (0: left, 90°: cranial) of the samples."""
        depth, left, cranial = (samples.along(axis, self.head_lps_mm) for axis in self.axes)
        return depth, np.hypot(left, cranial), np.arctan2(cranial, left)

    def envelope(self, depth: Field) -> Field:
        """Radius of the outer thread."""
        radius = np.float32(self.diameter_mm / 2)
        slope = (radius - np.float32(_POINT_MM)) / np.float32(TIP_MM)
        cone = np.float32(_POINT_MM) + (np.float32(self.length_mm) - depth) * slope
        return np.asarray(np.minimum(radius, cone), dtype=np.float32)

    def outside(self, depth: Field, away: Field) -> Field:
        """Distance to the outer thread's envelope, mm, exact on the outside of cylinder, cone and point."""
        radius = np.float32(self.diameter_mm / 2)
        fall = radius - np.float32(_POINT_MM)
        norm = np.float32(np.hypot(fall, TIP_MM))
        cone = (
            (away - np.float32(_POINT_MM)) * np.float32(TIP_MM) + (depth - np.float32(self.length_mm)) * fall
        ) / norm
        flat = np.maximum(away - radius, cone)
        beyond = depth - np.float32(self.length_mm)
        ahead = np.where(beyond > 0, np.hypot(beyond, np.maximum(away - np.float32(_POINT_MM), 0)), np.float32(-1e3))
        past_rim = (beyond > 0) & (away < np.float32(_POINT_MM) + beyond * np.float32(TIP_MM) / fall)
        return np.asarray(np.where(past_rim, ahead, flat), dtype=np.float32)

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        depth, away, angle = self.cylindrical(samples)
        surface = self.envelope(depth)
        slope = np.ones((), np.float32)
        if self.thread_mm:
            turn = depth / np.float32(self.pitch_mm) - angle / np.float32(2 * np.pi) + np.float32(self.phase)
            from_crest = np.abs(2 * (turn - np.floor(turn)) - 1)
            # Flanks between 10 % and 60 % of the half pitch.
            ridge = np.clip((np.float32(0.6) - from_crest) * 2, 0, 1)
            groove = np.float32(self.thread_mm) * np.minimum(1, surface / np.float32(self.diameter_mm / 2))
            surface = surface - groove * (1 - ridge)
            flank = np.float32(4 * self.thread_mm / self.pitch_mm)
            slope = np.where((ridge > 0) & (ridge < 1), 1 / np.hypot(1, flank), 1).astype(np.float32)
        outer = (away - surface) * slope
        first, last = self.span or (-3.0, self.length_mm)
        outer = np.maximum(outer, np.maximum(np.float32(first) - depth, depth - np.float32(min(last, self.length_mm))))
        return outer, outer


@dataclass(frozen=True, eq=False)
class Zone:
    """The space near a shaft's outer thread: the lucent zone, or zone and rim; inside `bone` only."""

    shaft: Shaft
    lucency: Lucency
    extra_mm: float
    bone: Part | None = None

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        return self.shaft.box(self.lucency.width_mm + self.extra_mm + 1.0)

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        depth, away, angle = self.shaft.cylindrical(samples)
        width = self.lucency.width(depth, angle, self.shaft.length_mm)
        outer = self.shaft.outside(depth, away) - width
        if self.extra_mm:
            outer = outer - np.float32(self.extra_mm) * np.clip(width * 4, 0, 1)
        # Nothing where there is no zone, not even in the thread's grooves.
        outer = np.where(width > 0.02, outer, np.maximum(outer, np.float32(0.5)))
        outer = np.maximum(outer, -depth)
        if self.bone is not None:
            outer = np.maximum(outer, self.bone.distances(samples)[1])
        return outer, outer


@dataclass(frozen=True, eq=False)
class Tulip:
    """A screw's head: a ball on the shaft, a drum with a slot for the rod, and the set screw that closes it.

    joint: where shaft and tulip meet; up: unit vector to the open end; along: unit vector of the rod in its seat.
    """

    joint_lps_mm: FloatArray
    up_lps: FloatArray
    along_lps: FloatArray
    rod_mm: float

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        ends = np.stack([self.joint_lps_mm, self.joint_lps_mm + TULIP_MM[1] * self.up_lps])
        return np.asarray(np.stack([ends.min(axis=0) - TULIP_MM[0] - 1, ends.max(axis=0) + TULIP_MM[0] + 1]))

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        side = np.cross(self.up_lps, self.along_lps)
        up, along, across = (samples.along(v, self.joint_lps_mm) for v in (self.up_lps, self.along_lps, side))
        away = np.hypot(along, across)
        drum = np.maximum(away - np.float32(TULIP_MM[0]), np.maximum(-up, up - np.float32(TULIP_MM[1])))
        half = np.float32(self.rod_mm / 2 + 0.1)
        over_seat = np.float32(SEAT_MM) - up
        slot = np.where(over_seat > 0, np.hypot(across, over_seat), np.abs(across)) - half
        plug_low, plug_high = SEAT_MM + self.rod_mm / 2, TULIP_MM[1] - 0.8
        plug = np.maximum(away - np.float32(4.2), np.maximum(np.float32(plug_low) - up, up - np.float32(plug_high)))
        outer = np.minimum(np.maximum(drum, -slot), plug)
        return outer, outer


@dataclass(frozen=True, eq=False)
class Tube:
    """A bent rod: (n, 3) LPS mm centre line from end to end, flat at both ends."""

    points_lps_mm: FloatArray
    diameter_mm: float

    @cached_property
    def _pieces(self) -> list[Strut]:
        half = (self.diameter_mm / 2, self.diameter_mm / 2)
        return [Strut(a, b, np.array([1.0, 0.0, 0.0]), half) for a, b in pairwise(self.points_lps_mm)]

    @cached_property
    def bounds_lps_mm(self) -> FloatArray:
        return joined([piece.bounds_lps_mm for piece in self._pieces])

    def distances(self, samples: Samples) -> tuple[Field, Field]:
        outer = np.full(samples.shape, _FAR_MM)
        for piece in self._pieces:
            seen = samples.within(piece.bounds_lps_mm)
            if seen is not None:
                block, index = seen
                outer[index] = np.minimum(outer[index], piece.distances(block)[0])
        ends = (self.points_lps_mm[:2], self.points_lps_mm[:-3:-1])
        for end, following in ends:
            near = np.minimum(np.float32(self.diameter_mm), np.float32(5))
            beyond = samples.along(unit(end - following), end)
            away = np.abs(beyond) < near
            outer = np.where(away, np.maximum(outer, beyond), outer)
        return outer, outer


# -- what is planned --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScrewSpec:
    """One screw. None for diameter or length: by the vertebra's size. gap_at: depth of a break, part of the length.

    aim_deg: turn of the screw towards the patient's left and the head, from where a surgeon would aim it.
    """

    level: str
    side: str
    diameter_mm: float | None = None
    length_mm: float | None = None
    thread_mm: float = setting(0.7, "mm", (0, 1.2), "0.6-1.0", "depth of the thread; 0: a plain cylinder")
    pitch_mm: float = setting(2.75, "mm", (1.5, 4), "2.5-3", "distance of the turns")
    lucency: Lucency = field(default_factory=Lucency)
    aim_deg: tuple[float, float] = (0.0, 0.0)
    gap_mm: float = 0.0
    gap_at: float = 0.5
    kink_deg: float = 0.0


@dataclass(frozen=True, slots=True)
class RodSpec:
    """A rod through all screws of one side. gap_after: the break lies midway after that many screws (1: the first)."""

    side: str
    diameter_mm: float = 5.5
    material: str = "titanium"
    gap_mm: float = 0.0
    gap_after: int = 1
    kink_deg: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class PlacedScrew:
    """A screw in place. pieces: the shaft, or its two parts when it is broken, the part at the head first."""

    spec: ScrewSpec
    shaft: Shaft
    pieces: tuple[Shaft, ...]
    up_lps: FloatArray

    @property
    def seat_lps_mm(self) -> FloatArray:
        """(3,) middle of the rod in the tulip."""
        return np.asarray(self.shaft.head_lps_mm + SEAT_MM * self.up_lps)


@dataclass(frozen=True, eq=False, slots=True)
class RodGap:
    """A break: its middle, how wide it is along the rod, and the angle between the ends."""

    center_lps_mm: FloatArray
    width_mm: float
    kink_deg: float


@dataclass(frozen=True, eq=False, slots=True)
class PlacedRod:
    """A rod in place. lines: (n, 3) centre lines from head to foot, two when it is broken."""

    spec: RodSpec
    lines: tuple[FloatArray, ...]
    gap: RodGap | None = None


def pieces_of(shaft: Shaft, spec: ScrewSpec) -> tuple[Shaft, ...]:
    """The shaft, or the two parts of a broken one; the part at the tip is turned about the break, towards the head."""
    from dataclasses import replace

    if not spec.gap_mm:
        return (shaft,)
    middle = spec.gap_at * shaft.length_mm
    along, _, cranial = shaft.axes
    pivot = shaft.head_lps_mm + middle * along
    turn = np.radians(spec.kink_deg)
    bent = np.cos(turn) * along + np.sin(turn) * cranial
    half = spec.gap_mm / 2
    near = replace(shaft, span=(-3.0, middle - half))
    far = replace(
        shaft,
        head_lps_mm=pivot - middle * bent,
        tip_lps_mm=pivot + (shaft.length_mm - middle) * bent,
        span=(middle + half, shaft.length_mm),
    )
    return near, far


def bent_rod(seats: Sequence[FloatArray], spec: RodSpec, beyond_mm: float = 8.0) -> PlacedRod:
    """A rod through (n, 3) seats, smooth, or broken between two of them with a kink. Raises SpineImgError."""
    from scipy.interpolate import CubicSpline

    points = np.asarray(seats, dtype=np.float64)
    if len(points) < 2:
        raise SpineImgError(f"the {spec.side} rod needs at least two screws, found {len(points)}")
    run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    if not spec.gap_mm:
        return PlacedRod(
            spec, (_extended(CubicSpline(run, points, bc_type="natural")(_steps(run)), beyond_mm, beyond_mm),)
        )
    if not 1 <= spec.gap_after < len(points):
        raise SpineImgError(f"the {spec.side} rod cannot break after screw {spec.gap_after} of {len(points)}")
    above, below = points[spec.gap_after - 1], points[spec.gap_after]
    way = unit(below - above)
    back = unit(np.array([0.0, 1.0, 0.0]) - way[1] * way)
    middle = (above + below) / 2 + np.tan(np.radians(spec.kink_deg / 2)) * np.linalg.norm(below - above) / 2 * back
    lines = []
    for part in (points[: spec.gap_after], points[spec.gap_after :][::-1]):
        arm = unit(middle - part[-1])
        knots = np.concatenate([part, [middle - spec.gap_mm / 2 * arm]])
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
        if len(part) == 1:
            lines.append(_extended(knots, beyond_mm, 0.0))
            continue
        # Straight where it broke, smooth above.
        curve = CubicSpline(along[:-1], part, bc_type=("natural", (1, arm)))(_steps(along[:-1]))
        lines.append(_extended(np.concatenate([curve, knots[-1:]]), beyond_mm, 0.0))
    return PlacedRod(spec, (lines[0], lines[1][::-1]), RodGap(middle, spec.gap_mm, spec.kink_deg))


def _steps(run_mm: FloatArray) -> FloatArray:
    return np.linspace(run_mm[0], run_mm[-1], 1 + max(2, int(np.ceil((run_mm[-1] - run_mm[0]) / 5.0))))


def _extended(line: FloatArray, before_mm: float, after_mm: float) -> FloatArray:
    first = [line[0] + before_mm * unit(line[0] - line[1])] if before_mm else []
    last = [line[-1] + after_mm * unit(line[-1] - line[-2])] if after_mm else []
    return np.asarray([*first, *line, *last])


def zones_of(screw: PlacedScrew, bone: Part | None = None) -> list[Part]:
    """Rim and lucent zone around a screw, in the order of painting; none when it has no halo."""
    lucency = screw.spec.lucency
    if lucency.width_mm <= 0:
        return []
    zone = Part("halo", [Zone(screw.shaft, lucency, 0.0, bone)], uniform(lucency.hu))
    if lucency.rim_mm <= 0:
        return [zone]
    return [Part("rim", [Zone(screw.shaft, lucency, lucency.rim_mm, bone)], uniform(lucency.rim_hu)), zone]


def metal_of(screws: Sequence[PlacedScrew], rods: Sequence[PlacedRod], material: str) -> dict[str, list[Shape]]:
    """Material -> shapes of it. `material`: of the screws; each rod has its own."""
    along = {rod.spec.side: rod for rod in rods}
    shapes: dict[str, list[Shape]] = {material: []}
    for screw in screws:
        rod = along.get(screw.spec.side)
        direction = _direction_at(rod, screw.seat_lps_mm) if rod else np.array([0.0, 0.0, 1.0])
        direction = unit(direction - (direction @ screw.up_lps) * screw.up_lps)
        diameter = rod.spec.diameter_mm if rod else 5.5
        tulip = Tulip(screw.shaft.head_lps_mm, screw.up_lps, direction, diameter)
        shapes[material] += [*screw.pieces, tulip]
    for rod in rods:
        shapes.setdefault(rod.spec.material, []).extend(Tube(line, rod.spec.diameter_mm) for line in rod.lines)
    return shapes


def with_tulips_turned(screws: Sequence[PlacedScrew]) -> tuple[PlacedScrew, ...]:
    """The screws with each tulip turned so that the rod of its side lies flat in the seat."""
    from dataclasses import replace

    turned = []
    for screw in screws:
        side = [s for s in screws if s.spec.side == screw.spec.side]
        i = side.index(screw)
        seats = [s.seat_lps_mm for s in side[max(i - 1, 0) : i + 2]]
        back = -screw.shaft.axes[0]
        if len(seats) > 1:
            along = unit(seats[-1] - seats[0])
            back = unit(back - (back @ along) * along)
        turned.append(replace(screw, up_lps=back))
    return tuple(turned)


def _direction_at(rod: PlacedRod, point: FloatArray) -> FloatArray:
    best, direction = np.inf, np.array([0.0, 0.0, 1.0])
    for line in rod.lines:
        for a, b in pairwise(line):
            away = float(np.linalg.norm((a + b) / 2 - point))
            if away < best:
                best, direction = away, unit(b - a)
    return direction
