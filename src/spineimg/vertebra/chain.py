"""The discs beside a click, all at once: the best alternation of bodies and discs along the straightened column.

At every place along the column a face of a body scores by its bright ridge against the bone inside and against what
lies outside, at the best of some tilts. A disc is a pair of faces, or, when narrow or bridged, one bright band between
softer bone. Dynamic programming finds the row of discs whose faces score best while the bodies between them have the
height that goes with the outline's area. So a missed or a false disc would cost twice: it breaks the neighbours too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.settings import setting
from spineimg.vertebra.column import Column
from spineimg.vertebra.crop import Crop
from spineimg.vertebra.walls import Outline


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What bodies and discs measure, relative to the root of the outline's area."""

    height: tuple[float, float, float] = setting(
        (0.48, 0.66, 0.86),
        "1",
        (0.3, 1.2),
        "real bodies 0.55-0.75 between the endplates' middles; Panjabi's rims 0.63-0.75",
        "Least, usual and largest height of a body over the root of its area.",
    )
    height_sd: float = setting(
        0.12,
        "fraction",
        (0.05, 0.3),
        "neighbours differ by up to 15 %, fractured ones by more",
        "Usual deviation of one body's height from its neighbours'.",
    )
    disc_mm: tuple[float, float] = setting(
        (2.0, 15.0),
        "mm",
        (1.0, 20.0),
        "discs 4-6 mm (thoracic), 8-11 mm (lumbar), narrowed to 2 mm",
        "Least and largest height of a disc.",
    )
    pedicle: float = setting(
        2.5,
        "1",
        (0.0, 5.0),
        "engineering choice: pedicles leave the upper half of a body, foramina lie below",
        "Weight of bone beside the canal at the upper half of a body, and of none below.",
    )
    skipped: float = setting(
        0.6, "1/mm", (0.0, 2.0), "engineering choice", "Cost of each mm of a body that looks like an endplate."
    )
    drift: float = setting(
        0.5,
        "1",
        (0.0, 5.0),
        "engineering choice: height over the root of the area falls from 0.77 (T4) to 0.64 (L5), Panjabi",
        "Cost of a body that is one step (5 %) higher or lower for its area than the one below it.",
    )
    least_score: float = setting(
        1.2,
        "1",
        (0.0, 4.0),
        "engineering choice: a disc scores up to 4.5, a place inside a body 0-1",
        "What a disc must score to be worth having.",
    )


_SAGITTAL_DEG = np.arange(-36.0, 37.0, 6.0)
_CORONAL_DEG = np.arange(-12.0, 13.0, 6.0)
_TILT_COST = 1.25
"""Score that a tilt of 45 degrees against the canal costs."""
_APART_COST = 4.0
"""Score that an angle of 45 degrees between the two faces of a disc costs."""
_SHARPNESS = 6.0
"""A tilt that scores 1 / 6 less than the best one weighs 1 / e."""
_INNER_PART = 0.75
"""Profiles are taken within this fraction of the way to the wall."""
_BANDS_MM = (2, 3, 4, 5)
_BEYOND_ZONE = 30
"""A face tilted by 36 degrees in a body of 48 mm leans by 13 steps to either side, and looks 14 steps out."""
_PEDICLES_MM = 50
"""What is bone beside the canal is told from so many mm around: more than one body and foramen."""
_PEDICLE_LEFT_MM, _PEDICLE_BACK_MM = np.arange(9.0, 24.0, 2.0), np.array([-6.0, -4.0, -2.0])
"""Beside the front half of the canal: behind it lie the facet joints, before it the heads of ribs, and both are bone at
the height of discs too."""


@dataclass(frozen=True, slots=True)
class Face:
    """An endplate in the straightened column: arc_mm at the outline's middle, and its rise per mm to left and back."""

    arc_mm: float
    rise_left: float
    rise_posterior: float
    score: float


@dataclass(frozen=True, slots=True)
class Disc:
    """lower: the superior face of the body below; upper: the inferior face of the body above."""

    lower: Face
    upper: Face
    score: float


@dataclass(frozen=True, eq=False, slots=True)
class Chain:
    """Discs from feet to head; height_mm: the usual height of the body that stands on each of them."""

    discs: tuple[Disc, ...]
    height_mm: tuple[float, ...]
    score: float


@dataclass(frozen=True, eq=False, slots=True)
class Zone:
    """Steps of a column, `first` up to but not `last`, and the outline of the bodies there."""

    first: int
    last: int
    outline: Outline


def find_chain(crop: Crop, column: Column, zones: Sequence[Zone], slice_mm: float, settings: ChainSettings) -> Chain:
    """The discs along the column. The zones follow one another and cover it."""
    evidence = _joined([_evidence(crop, column, zone, slice_mm) for zone in zones])
    evidence = replace(evidence, pedicles=_pedicles(crop, column, zones))
    heights_mm, discs = _disc_scores(evidence, slice_mm, settings)
    root = np.concatenate([np.full(zone.last - zone.first, np.sqrt(zone.outline.area_mm2)) for zone in zones])
    low, _, high = settings.height
    skipped = settings.skipped * np.maximum(evidence.bands[2].max(axis=0) - 1.0, 0)
    margin = int(np.ceil(2.5 + 0.5 * slice_mm))
    parts = np.linspace(low * 1.1, high * 0.95, 9)
    problem = _Problem(discs, heights_mm, parts, root, skipped, margin, evidence.pedicles)
    score, row = _best_chain(problem, settings)
    found = [_disc(evidence, column, discs, heights_mm, (lower, upper)) for lower, upper, _ in row]
    heights = [float(parts[which] * root[upper]) for _, upper, which in row]
    return Chain(tuple(found), tuple(heights), score)


# -- evidence for single faces ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Evidence:
    """Scores (tilts, steps) of superior and inferior faces and of bands of each height; rises: (tilts, 2)."""

    superior: FloatArray
    inferior: FloatArray
    bands: dict[int, FloatArray]
    rises: FloatArray
    pedicles: FloatArray


def _joined(parts: Sequence[_Evidence]) -> _Evidence:
    """Zone after zone."""
    return _Evidence(
        np.concatenate([one.superior for one in parts], axis=1),
        np.concatenate([one.inferior for one in parts], axis=1),
        {height: np.concatenate([one.bands[height] for one in parts], axis=1) for height in _BANDS_MM},
        parts[0].rises,
        np.zeros(0),
    )


def _evidence(crop: Crop, column: Column, zone: Zone, slice_mm: float) -> _Evidence:
    """Of the zone's steps; the pedicles are left out. Profiles reach beyond the zone as far as tilts and faces do."""
    first, last = max(0, zone.first - _BEYOND_ZONE), min(len(column.arc_mm), zone.last + _BEYOND_ZONE)
    rises = np.tan(
        np.radians(np.stack(np.meshgrid(_CORONAL_DEG, _SAGITTAL_DEG, indexing="ij"), axis=-1).reshape(-1, 2))
    )
    profile = _tilted(*_profiles(crop, column, np.arange(first, last), zone.outline), rises)
    full = float(np.clip(0.6 * (np.percentile(profile, 96) - np.percentile(profile, 8)), 25, 130))
    spare, steps = 14, profile.shape[1]
    padded = np.pad(profile, ((0, 0), (spare, spare)), mode="edge")

    def at(away_mm: float) -> FloatArray:
        whole = int(np.floor(away_mm))
        part = away_mm - whole
        low = padded[:, spare + whole : spare + whole + steps]
        return np.asarray((1 - part) * low + part * padded[:, spare + whole + 1 : spare + whole + 1 + steps])

    def against(first: FloatArray, second: FloatArray) -> FloatArray:
        return np.clip((first - second) / full, -1, 1)

    cost = _TILT_COST * np.hypot(*rises.T)[:, None]
    wide = 0.4 * slice_mm
    faces = []
    for inwards in (-1.0, 1.0):
        ridge = (at(0.8 * inwards) + at(0)) / 2
        inside = (at(inwards * (3.0 + wide)) + at(inwards * (4.5 + wide)) + at(inwards * (6.0 + wide))) / 3
        outside = at(-inwards * (2 + 0.5 * slice_mm))
        faces.append(against(ridge, inside) + against(ridge, outside) - cost)
    bands = {}
    for height in _BANDS_MM:
        middle = (at(0) + at(height / 2) + at(height)) / 3
        below, above = (
            (at(a) + at(b)) / 2 for a, b in ((-3 - wide, -5 - wide), (height + 3 + wide, height + 5 + wide))
        )
        low, high = against(middle, below), against(middle, above)
        bands[height] = 1.5 * np.minimum(low, high) + 0.5 * (low + high) - cost
    own = slice(zone.first - first, zone.last - first)
    return _Evidence(
        faces[0][:, own], faces[1][:, own], {height: band[:, own] for height, band in bands.items()}, rises, np.zeros(0)
    )


def _pedicles(crop: Crop, column: Column, zones: Sequence[Zone]) -> FloatArray:
    """(steps,) -1 … 1: bone at both sides of the canal's front, where pedicles and foramina alternate."""
    left, posterior = (a.ravel() for a in np.meshgrid(_PEDICLE_LEFT_MM, _PEDICLE_BACK_MM, indexing="ij"))
    sides = []
    for side in (-1.0, 1.0):
        hu = column.sample(crop, np.arange(len(column.arc_mm)), side * left, posterior)
        patches = np.clip(hu, -100, 400).reshape(len(hu), len(_PEDICLE_LEFT_MM), -1).mean(axis=2)
        # Pedicles stand 9 to 23 mm off the midline: three neighbouring lines at a time.
        sides.append(((patches[:, :-2] + patches[:, 1:-1] + patches[:, 2:]) / 3).max(axis=1))
    bone = (sides[0] + sides[1]) / 2
    found = np.empty(len(bone))
    for zone in zones:
        low, high = np.percentile(bone[max(0, zone.first - _PEDICLES_MM) : zone.last + _PEDICLES_MM], [15, 85])
        own = slice(zone.first, zone.last)
        found[own] = np.clip((bone[own] - (low + high) / 2) / max(40.0, (high - low) / 2), -1, 1)
    return found


def _profiles(
    crop: Crop, column: Column, rows: npt.NDArray[np.intp], outline: Outline
) -> tuple[FloatArray, FloatArray]:
    """HU (steps, lines) along lines beside the canal inside the outline, and their (lines, 2) place from its middle."""
    reach = float(outline.radius_mm.max())
    ticks = np.arange(-reach, reach + 1, max(2.5, reach / 8))
    left, posterior = (axis.ravel() for axis in np.meshgrid(ticks, ticks, indexing="ij"))
    middle = outline.middle_mm
    inside = outline.reach(left + middle[0], posterior + middle[1]) <= _INNER_PART
    left, posterior = left[inside], posterior[inside]
    hu = column.sample(crop, rows, left + middle[0], posterior + middle[1])
    return np.clip(hu, -150, 1000), np.stack([left, posterior], axis=-1)


def _tilted(hu: FloatArray, places: FloatArray, rises: FloatArray) -> FloatArray:
    """(tilts, steps) mean HU on planes of each tilt."""
    shift = np.rint(rises @ places.T).astype(np.intp)
    spare, (steps, count) = int(np.abs(shift).max()), hu.shape
    padded = np.ascontiguousarray(np.pad(hu, ((spare, spare), (0, 0)), mode="edge").T)
    lines = np.arange(count)
    # Each row holds a line from one step on: a plane of a tilt takes one of them from every line.
    begun = np.lib.stride_tricks.sliding_window_view(padded, steps, axis=1)
    return np.stack([begun[lines, spare + one].mean(axis=0) for one in shift])


# -- discs and chain --------------------------------------------------------------------------------------------------


def _disc_scores(
    evidence: _Evidence, slice_mm: float, settings: ChainSettings
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Disc heights in steps (d,), and the score (d, steps) of a disc whose lower face lies at each step."""
    low, high = settings.disc_mm
    heights = np.arange(int(low), int(high) + 1)
    superior, inferior = evidence.superior.max(axis=0), evidence.inferior.max(axis=0)
    steps = len(superior)
    scores = np.full((len(heights), steps), -9.0)
    for i, height in enumerate(heights):
        ends = max(steps - height, 0)
        if height >= max(4, 3 + 0.6 * slice_mm):
            scores[i, :ends] = superior[:ends] + inferior[height:]
        if height in evidence.bands:
            band = evidence.bands[int(height)].max(axis=0)[:ends] + 0.4
            scores[i, :ends] = np.maximum(scores[i, :ends], band)
    return heights, scores - settings.least_score


@dataclass(frozen=True, eq=False, slots=True)
class _Problem:
    """scores: (d, steps) of discs of heights `disc_mm` (d,); parts: (p,) usual heights of bodies to try, over `root`.

    root: (steps,) of the outline's area, mm. skipped: (steps,) cost of having a step inside a body, `margin` steps or
    more from its faces.
    """

    scores: FloatArray
    disc_mm: npt.NDArray[np.intp]
    parts: FloatArray
    root: FloatArray
    skipped: FloatArray
    margin: int
    pedicles: FloatArray


class _Rows:
    """Best rows of discs so far, for every part p and every step e at which the last disc may have its upper face.

    value, lower, part: (p, spare + steps): score, lower face of that disc, and the part of the body below it.
    """

    def __init__(self, parts: int, spare: int, steps: int) -> None:
        self.spare = spare
        self.value = np.full((parts, spare + steps), -1e9)
        self.lower = np.full(self.value.shape, -1)
        self.part = np.full(self.value.shape, -1)
        self.before = np.full(self.value.shape, -1)

    def settle(self, step: int, drift: float) -> None:
        """Rows that end at a step are complete: the next body may be of the neighbouring part."""
        at = self.spare + step
        own, part = self.value[:, at], np.arange(len(self.value))
        value = own.copy()
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            beside = own[there] - drift
            better = beside > value[here]
            np.copyto(value[here], beside, where=better)
            np.copyto(part[here], np.arange(len(part))[there], where=better)
        self.part[:, at] = part
        self.lower[:, at] = self.lower[part, at]
        self.value[:, at] = value


@dataclass(frozen=True, eq=False, slots=True)
class _Costs:
    """What does not depend on the rows so far, for a body whose superior face lies at each step.

    spans: (spans,) heights that bodies may have, in steps, from the longest to the shortest: then the steps they start
    from ascend. worth: (steps, spans) of a body; height: (steps, parts, spans) cost of it; disc: (steps, parts, discs)
    cost of the disc above; first: (steps, parts) whether it may be the lowest.
    """

    spans: npt.NDArray[np.intp]
    worth: FloatArray
    height: FloatArray
    disc: FloatArray
    first: npt.NDArray[np.bool_]


def _costs(problem: _Problem, settings: ChainSettings) -> _Costs:
    root, (low, _, high) = problem.root, settings.height
    spans = np.arange(int(high * root.max()), int(np.ceil(low * root.min())) - 1, -1)
    far, t = int(spans[0]), np.arange(len(root))[:, None]
    passed = np.concatenate([np.zeros(far + 1), np.cumsum(problem.skipped)])
    bone = np.concatenate([np.zeros(far + 1), np.cumsum(problem.pedicles)])
    inside = passed[np.maximum(t + far - problem.margin, t + far - spans)] - passed[t + far - spans + problem.margin]
    upper = _mean(bone, t + far - (0.55 * spans).astype(int), t + far - 1)
    below = _mean(bone, np.maximum(t + far - spans - 5, 0), t + far - (0.72 * spans).astype(int))
    worth = settings.pedicle * (upper - below) - np.maximum(inside, 0)
    size = root[np.maximum(0, t - (0.35 * root[t]).astype(int))]
    fits = (spans >= np.ceil(low * size)) & (spans <= np.floor(high * size))
    body = problem.parts * size
    height = 0.7 * np.minimum(np.abs(spans - body[..., None]) / (settings.height_sd * body[..., None]), 4)
    relative = problem.disc_mm / body[..., None]
    disc = 0.4 * np.maximum(np.abs(relative / 0.3 - 1) / 0.5 - 1, 0) + 9.0 * (relative > 0.55)
    return _Costs(spans, np.where(fits, worth, -1e9), height, disc, t < 1.5 * body)


def _best_chain(problem: _Problem, settings: ChainSettings) -> tuple[float, list[tuple[int, int, int]]]:
    """Score, and (lower step, upper step, part of the body above) of the best row of discs, from feet to head."""
    steps, costs, usual = problem.scores.shape[1], _costs(problem, settings), settings.height[1]
    far, near = int(costs.spans[0]), int(costs.spans[-1])
    every = np.arange(len(problem.parts))
    prior = -(((problem.parts - usual) / (0.2 * usual)) ** 2)
    rows = _Rows(len(problem.parts), far, steps)
    for t in range(steps):
        if t >= near:
            rows.settle(t - near, settings.drift)
        options = rows.value[:, t : t + far - near + 1] - costs.height[t] + costs.worth[t]
        at = options.argmax(axis=1)
        value = options[every, at]
        fresh = costs.first[t] & (value < prior)
        rows.before[:, far + t] = np.where(fresh, -1, t - costs.spans[at])
        _add_discs(rows, problem, t, np.where(fresh, prior, value), costs.disc[t])
    last = np.arange(steps) > steps - 1 - 1.5 * problem.parts[:, None] * problem.root[-1]
    total = np.where(last, rows.value[:, far:], -1e9)
    which, end = (int(i) for i in np.unravel_index(int(total.argmax()), total.shape))
    return _traced(rows, which, end) if total[which, end] > -1e8 else (-1e9, [])


def _add_discs(rows: _Rows, problem: _Problem, t: int, value: FloatArray, cost: FloatArray) -> None:
    """Rows whose last disc has its lower face at step t. cost: (parts, discs)."""
    fits = int(np.searchsorted(problem.disc_mm, problem.scores.shape[1] - t))
    new = value[:, None] + problem.scores[:fits, t] - cost[:, :fits]
    # Heights of discs follow one another, so do the steps of their upper faces.
    first = rows.spare + t + int(problem.disc_mm[0])
    uppers = np.s_[:, first : first + fits]
    better = new > rows.value[uppers]
    np.copyto(rows.value[uppers], new, where=better)
    np.copyto(rows.lower[uppers], t, where=better)


def _traced(rows: _Rows, which: int, end: int) -> tuple[float, list[tuple[int, int, int]]]:
    found: list[tuple[int, int, int]] = []
    score = float(rows.value[which, rows.spare + end])
    while end >= 0:
        part, start = int(rows.part[which, rows.spare + end]), int(rows.lower[which, rows.spare + end])
        found.append((start, end, which))
        which = which if part < 0 else part
        end = int(rows.before[which, rows.spare + start])
    return score, found[::-1]


def _mean(sums: FloatArray, low: npt.NDArray[np.intp], high: npt.NDArray[np.intp] | int) -> FloatArray:
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _disc(
    evidence: _Evidence,
    column: Column,
    discs: FloatArray,
    heights: npt.NDArray[np.intp],
    pair: tuple[int, int],
) -> Disc:
    score = float(discs[int(np.flatnonzero(heights == pair[1] - pair[0])[0]), pair[0]])
    rises = evidence.rises
    apart = np.linalg.norm(rises[:, None] - rises[None], axis=2)
    lower, upper = evidence.superior[:, pair[0]], evidence.inferior[:, pair[1]]
    joint = lower[:, None] + upper[None] - _APART_COST * apart
    # Tilts stand on a coarse grid: the mean of the likely ones is nearer to the truth than the best one.
    likely = np.exp(_SHARPNESS * (joint - joint.max()))
    likely /= likely.sum()
    first, second = likely.sum(axis=1) @ rises, likely.sum(axis=0) @ rises
    arcs = column.arc_mm[list(pair)]
    return Disc(
        Face(float(arcs[0]), float(first[0]), float(first[1]), float(lower.max())),
        Face(float(arcs[1]), float(second[0]), float(second[1]), float(upper.max())),
        score,
    )
