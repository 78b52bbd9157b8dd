"""What lies beyond a rod's ends: the stub of a broken rod, the other half of it, or another implant.

A rod that broke near a head leaves pieces too short to pass for rods of their own. A piece belongs to a rod when it is
as thick, faces its end, and lies no farther from it than the widest gap of a break. Two implants lie farther apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.implants.breaks import STEP_MM, core_hu
from spineimg.implants.metal_map import MetalMap
from spineimg.implants.tubes import End, Tube, line_direction

BoolArray = npt.NDArray[np.bool_]

_NEAR_MM = 12.0
_LONGEST_STUB_MM = 30.0
_LEAST_STUB_MM = 3.0
"""A stub beyond a gap shows its own side over so much. Engineering choice: less could be the edge of a head."""
_STUB_TURNS_DEG = (0.0, 8.0, 16.0)
"""How far a stub's way may turn from the rod's. Engineering choice."""
_BARE_MM = (1.4, 2.2)
"""Beside a bare rod there is no metal so far outside its radius; in a sleeve, a head or a plate there is."""
CROWDED = 0.15
"""A place with metal around more of it is not bare. Engineering choice."""
_COVERED = 0.6
"""A place with metal around so much of it lies in a sleeve. Engineering choice: a tulip's slot leaves half open."""
_SAME_RADIUS_MM = 0.6
_SHARPEST_DEG = 35.0
_STEP_PER_MM = 0.1
"""A bent rod leaves its end's line by so much of the way to the next bare piece."""
_ARM, _BENT_DEG = 7, 14.0
"""Rods are bent to radii of 50 mm and more: 8 degrees between the middles of two arms of 7 mm. Engineering choice."""
_DIP, _FEWEST = 0.85, 3
"""A cross-section below this part of the tube's usual radius is a dip; fewer cross-sections (1 mm) are no piece."""


@dataclass(frozen=True, eq=False, slots=True)
class RodTrace:
    """The line of a rod before its breaks are looked for. seen: points from its first to its last bare piece; outside
    them it was followed through other metal. clipped: the scale ends below the metal's own HU; top_hu: what solid metal
    reads on this scale; level_hu: what the core of a rod reaches."""

    points_lps_mm: FloatArray
    seen: slice
    radius_mm: float
    metal_hu: float
    clipped: bool
    top_hu: float

    @property
    def level_hu(self) -> float:
        return (0.9 if self.clipped else 0.5) * self.top_hu

    @property
    def turned(self) -> RodTrace:
        """The same from its other end."""
        count = len(self.points_lps_mm)
        seen = slice(count - self.seen.stop, count - self.seen.start)
        return replace(self, points_lps_mm=self.points_lps_mm[::-1], seen=seen)


def at_breaks(tube: Tube) -> list[Tube]:
    """A tube, cut where its cross-section dips or its way bends sharply: over a narrow gap it may pass from one end of
    a break to the other."""
    whole = tube.radii_mm >= _DIP * tube.radius_mm
    if whole[2:-2].all():
        whole &= ~_sharp_bend(tube.points_lps_mm)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]]).astype(np.int8)))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= _FEWEST]
    return [
        Tube(
            tube.points_lps_mm[a:b],
            tube.radii_mm[a:b],
            (tube.ends[0] if a == runs[0][0] else End.FREE, tube.ends[1] if b == runs[-1][1] else End.FREE),
        )
        for a, b in runs
    ]


def _sharp_bend(points: FloatArray) -> BoolArray:
    """(n,) True at the sharpest bend of a line with a point about every mm, when no rod is bent so sharply."""
    found = np.zeros(len(points), dtype=bool)
    middles = range(_ARM, len(points) - _ARM)
    turns = [line_direction(points[n - _ARM : n]) @ line_direction(points[n + 1 : n + 1 + _ARM]) for n in middles]
    if turns and min(turns) < np.cos(np.radians(_BENT_DEG)):
        found[_ARM + int(np.argmin(turns))] = True
    return found


def parted(metal: MetalMap, tube: Tube, widest_mm: float) -> list[Tube]:
    """A joined tube, cut where no metal lies over more than `widest_mm` between two of its runs: two implants."""
    points = tube.points_lps_mm
    cuts = []
    for at in np.flatnonzero(np.linalg.norm(np.diff(points, axis=0), axis=1) > widest_mm):
        way = points[at + 1] - points[at]
        count = int(np.linalg.norm(way) / STEP_MM)
        hu = core_hu(metal.windows, points[at] + np.linspace(0, 1, count)[:, None] * way, tube.radius_mm)
        bare = np.diff(np.flatnonzero(np.concatenate([[True], hu >= metal.seed_hu, [True]])))
        if bare.max() * STEP_MM > widest_mm:
            cuts.append(int(at) + 1)
    bounds = [0, *cuts, len(points)]
    ends = [tube.ends[0], *(end for _ in cuts for end in (End.FREE, End.FREE)), tube.ends[1]]
    return [
        Tube(points[a:b], tube.radii_mm[a:b], (ends[2 * n], ends[2 * n + 1]))
        for n, (a, b) in enumerate(pairwise(bounds))
    ]


def join_traces(traces: Sequence[RodTrace], widest_mm: float, widest_step_mm: float) -> list[RodTrace]:
    """Lines of one broken rod become one: as thick, ends that face each other over at most `widest_mm`."""
    found = list(traces)
    while True:
        best: tuple[float, int, int, RodTrace] | None = None
        for i, j in combinations(range(len(found)), 2):
            for before in (found[i], found[i].turned):
                for after in (found[j], found[j].turned):
                    way, joined = _joined(before, after, widest_mm, widest_step_mm) or (np.inf, None)
                    if joined is not None and (best is None or way < best[0]):
                        best = (way, i, j, joined)
        if best is None:
            return found
        _, i, j, joined = best
        rest = [trace for n, trace in enumerate(found) if n not in (i, j)]
        found = [*rest, joined if joined.points_lps_mm[0, 2] >= joined.points_lps_mm[-1, 2] else joined.turned]


def _joined(
    before: RodTrace, after: RodTrace, widest_mm: float, widest_step_mm: float
) -> tuple[float, RodTrace] | None:
    """The way from the last point of one line to the first of another that continues it, mm, and both as one; None
    where it does not."""
    first, second = before.points_lps_mm, after.points_lps_mm
    way_mm, forward = _way(first, second, widest_step_mm)
    if forward is None or abs(before.radius_mm - after.radius_mm) > _SAME_RADIUS_MM:
        return None
    if forward < -2.0:
        # Both may have been followed through the same head, past each other: then only what was seen of them counts.
        if max(_away_mm(first[-1], second), _away_mm(second[0], first)) > widest_step_mm:
            return None
        first, second = first[: before.seen.stop], second[after.seen.start :]
        way_mm, forward = _way(first, second, _STEP_PER_MM * way_mm + widest_step_mm)
        if forward is None or forward < 0.0:
            return None
        line = _bridged(first, second)
    elif way_mm <= widest_mm:
        line = _linked(first, second)
    else:
        return None
    seen = slice(before.seen.start, len(line) - (len(after.points_lps_mm) - after.seen.stop))
    longer = max(before, after, key=lambda trace: len(trace.points_lps_mm))
    return way_mm, replace(longer, points_lps_mm=line, seen=seen)


def _way(before: FloatArray, after: FloatArray, widest_step_mm: float) -> tuple[float, float | None]:
    """Distance from the last point of one line to the first of another, and how far that leads forward, mm; None where
    they do not face each other or stand too far apart sideways."""
    way = after[0] - before[-1]
    out = line_direction(before[-int(_NEAR_MM / STEP_MM) :])
    inward = line_direction(after[: int(_NEAR_MM / STEP_MM)])
    step = min(float(np.linalg.norm(way - (way @ along) * along)) for along in (out, inward))
    facing = out @ inward >= np.cos(np.radians(_SHARPEST_DEG)) and step <= widest_step_mm
    return float(np.linalg.norm(way)), float(way @ (out + inward)) / 2 if facing else None


def _away_mm(point: FloatArray, line: FloatArray) -> float:
    return float(np.linalg.norm(line - point, axis=1).min())


def _linked(before: FloatArray, after: FloatArray) -> FloatArray:
    """(n, 3) two lines with a straight piece between them, a point about every 0.25 mm."""
    way = after[0] - before[-1]
    count = int(np.linalg.norm(way) / STEP_MM)
    return np.concatenate([before, before[-1] + np.arange(1, count)[:, None] / max(count, 1) * way, after])


def _bridged(before: FloatArray, after: FloatArray) -> FloatArray:
    """(n, 3) two lines with a smooth bend between them, a point about every 0.25 mm."""
    from scipy.interpolate import CubicHermiteSpline

    way_mm = float(np.linalg.norm(after[0] - before[-1]))
    near = int(_NEAR_MM / STEP_MM)
    along = way_mm * np.stack([line_direction(before[-near:]), line_direction(after[:near])])
    bend = CubicHermiteSpline([0.0, 1.0], np.stack([before[-1], after[0]]), along)
    count = int(way_mm / STEP_MM)
    return np.concatenate([before, bend(np.arange(1, count) / max(count, 1)), after])


def distinct(traces: Sequence[RodTrace]) -> list[RodTrace]:
    """The lines without those that run within a longer one."""
    kept: list[RodTrace] = []
    for trace in sorted(traces, key=lambda trace: -len(trace.points_lps_mm)):
        near = [
            np.linalg.norm(trace.points_lps_mm[::4, None] - other.points_lps_mm[None, ::4], axis=2).min(axis=1)
            for other in kept
        ]
        if not any(np.mean(away < other.radius_mm) > 0.5 for away, other in zip(near, kept, strict=True)):
            kept.append(trace)
    return kept


def with_stubs(metal: MetalMap, trace: RodTrace, widest_mm: float) -> FloatArray:
    """(n, 3) a rod's line, continued over a gap at either end to a bare piece of the same thickness beyond it."""
    line = trace.points_lps_mm
    for _ in (0, 1):
        beyond = _stub(metal, line, trace, widest_mm)
        # The second time the other end is looked at, and the order is turned back.
        line = (line if beyond is None else np.concatenate([line, beyond]))[::-1]
    return line


def _stub(metal: MetalMap, line: FloatArray, trace: RodTrace, widest_mm: float) -> FloatArray | None:
    """(n, 3) the way over a gap behind a line's last point and through a bare piece of rod beyond; None without one."""
    radius_mm, level_hu = trace.radius_mm, trace.level_hu
    out, end = line_direction(line[-int(_NEAR_MM / STEP_MM) :]), line[-1]
    ahead = np.arange(1, int((widest_mm + _LONGEST_STUB_MM) / STEP_MM))[:, None] * STEP_MM
    lines = end + ahead * np.array(_turned(out))[:, None]
    is_metal = metal.windows.sample(lines.reshape(-1, 3)).reshape(len(lines), -1) >= level_hu
    best: tuple[int, FloatArray] | None = None
    for line_beyond in lines[is_metal[:, : int(widest_mm / STEP_MM)].any(axis=1)]:
        core = core_hu(metal.windows, line_beyond, radius_mm) >= level_hu
        first = int(np.argmax(core))
        count = len(core) - first if core[first:].all() else int(np.argmin(core[first:]))
        if not core.any() or not 0 < first * STEP_MM <= widest_mm:
            continue
        piece = line_beyond[first : first + count]
        bare = int(np.count_nonzero(metal_beside(metal, piece, radius_mm, level_hu) < CROWDED))
        if bare * STEP_MM >= _LEAST_STUB_MM and (best is None or bare > best[0]):
            best = bare, line_beyond[: first + count]
    return None if best is None else best[1]


def _turned(out: FloatArray) -> list[FloatArray]:
    """Unit directions up to 16 degrees from one."""
    side = np.cross(out, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(side, out)
    ways = [out]
    for turn in np.radians(_STUB_TURNS_DEG[1:]):
        for angle in np.arange(6) * np.pi / 3:
            ways.append(np.cos(turn) * out + np.sin(turn) * (np.cos(angle) * side + np.sin(angle) * up))
    return ways


def metal_beside(metal: MetalMap, line: FloatArray, radius_mm: float, level_hu: float) -> FloatArray:
    """(n,) part of the circumference with metal just outside a rod's side, at each place of a line."""
    if len(line) < 2:
        return np.ones(len(line))
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.cross(along, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along)
    angles = np.arange(12)[:, None, None] * np.pi / 6
    off = np.cos(angles) * side + np.sin(angles) * up
    points = np.stack([line + (radius_mm + out) * off for out in _BARE_MM])
    hu = metal.windows.sample(points.reshape(-1, 3)).reshape(len(_BARE_MM), 12, len(line))
    return np.asarray(np.mean(hu.mean(axis=0) >= 0.6 * level_hu, axis=0))


def covered(metal: MetalMap, line: FloatArray, gap: tuple[float, float], trace: RodTrace) -> bool:
    """Whether a gap lies in a sleeve that joins two rods."""
    depth, width = gap
    at = np.clip(np.round((depth + np.linspace(-0.5, 0.5, 5) * width) / STEP_MM), 0, len(line) - 1).astype(np.intp)
    place = np.clip(at[:, None] + np.array([-2, 0, 2]), 0, len(line) - 1)
    beside = [metal_beside(metal, line[three], trace.radius_mm, trace.level_hu)[1] for three in place]
    return bool(np.median(beside) >= _COVERED)
