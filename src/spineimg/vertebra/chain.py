"""The discs beside a click, all at once: the best alternation of bodies and discs along the straightened column.

At every place along the column a face of a body scores by its bright ridge against the bone inside and against what
lies outside, at the best of some tilts. A disc is a pair of faces, or, when narrow or bridged, one bright band between
softer bone. Dynamic programming finds the row of discs whose faces score best while the bodies between them have the
height that goes with the outline's area. So a missed or a false disc would cost twice: it breaks the neighbours too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.vertebra.column import Column
from spineimg.vertebra.crop import Crop
from spineimg.vertebra.walls import Outline


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """What bodies and discs measure, relative to the root of the outline's area."""

    height: tuple[float, float, float] = field(
        default=(0.48, 0.66, 0.86),
        metadata={
            "unit": "1",
            "range": (0.3, 1.2),
            "source": "real bodies 0.55-0.75 between the endplates' middles; Panjabi's rims 0.63-0.75",
            "help": "Least, usual and largest height of a body over the root of its area.",
        },
    )
    height_sd: float = field(
        default=0.12,
        metadata={
            "unit": "fraction",
            "range": (0.05, 0.3),
            "source": "neighbours differ by up to 15 %, fractured ones by more",
            "help": "Usual deviation of one body's height from its neighbours'.",
        },
    )
    disc_mm: tuple[float, float] = field(
        default=(2.0, 15.0),
        metadata={
            "unit": "mm",
            "range": (1.0, 20.0),
            "source": "discs 4-6 mm (thoracic), 8-11 mm (lumbar), narrowed to 2 mm",
            "help": "Least and largest height of a disc.",
        },
    )
    pedicle: float = field(
        default=2.5,
        metadata={
            "unit": "1",
            "range": (0.0, 5.0),
            "source": "engineering choice: pedicles leave the upper half of a body, foramina lie below",
            "help": "Weight of bone beside the canal at the upper half of a body, and of none below.",
        },
    )
    skipped: float = field(
        default=0.6,
        metadata={
            "unit": "1/mm",
            "range": (0.0, 2.0),
            "source": "engineering choice",
            "help": "Cost of each mm of a body that looks like an endplate.",
        },
    )
    least_score: float = field(
        default=1.2,
        metadata={
            "unit": "1",
            "range": (0.0, 4.0),
            "source": "engineering choice: a disc scores up to 4.5, a place inside a body 0-1",
            "help": "What a disc must score to be worth having.",
        },
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
_PEDICLE_LEFT_MM, _PEDICLE_BACK_MM = np.arange(9.0, 24.0, 2.0), np.array([-4.0, -2.0, 0.0, 2.0])


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
    """Discs from feet to head, and the usual height of the bodies between them."""

    discs: tuple[Disc, ...]
    height_mm: float
    score: float


def find_chain(crop: Crop, column: Column, outline: Outline, slice_mm: float, settings: ChainSettings) -> Chain:
    """The discs along the column."""
    evidence = _evidence(crop, column, outline, slice_mm)
    heights_mm, discs = _disc_scores(evidence, slice_mm, settings)
    root = float(np.sqrt(outline.area_mm2))
    low, usual, high = (part * root for part in settings.height)
    skipped = settings.skipped * np.maximum(evidence.bands[2].max(axis=0) - 1.0, 0)
    margin = int(np.ceil(2.5 + 0.5 * slice_mm))
    heights = np.linspace(low * 1.1, high * 0.95, 9)
    problem = _Problem(discs, heights_mm, heights, (low, high), skipped, margin, evidence.pedicles)
    score, which, pairs = _best_chain(problem, usual, settings)
    found = [_disc(evidence, column, discs, heights_mm, pair) for pair in pairs]
    return Chain(tuple(found), float(heights[which]), score)


# -- evidence for single faces ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Evidence:
    """Scores (tilts, steps) of superior and inferior faces and of bands of each height; rises: (tilts, 2)."""

    superior: FloatArray
    inferior: FloatArray
    bands: dict[int, FloatArray]
    rises: FloatArray
    pedicles: FloatArray


def _evidence(crop: Crop, column: Column, outline: Outline, slice_mm: float) -> _Evidence:
    rises = np.tan(
        np.radians(np.stack(np.meshgrid(_CORONAL_DEG, _SAGITTAL_DEG, indexing="ij"), axis=-1).reshape(-1, 2))
    )
    profile = _tilted(*_profiles(crop, column, outline), rises)
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
    return _Evidence(faces[0], faces[1], bands, rises, _pedicles(crop, column))


def _pedicles(crop: Crop, column: Column) -> FloatArray:
    """(steps,) -1 … 1: bone at both sides of the canal's front, where pedicles and foramina alternate."""
    left, posterior = (a.ravel() for a in np.meshgrid(_PEDICLE_LEFT_MM, _PEDICLE_BACK_MM, indexing="ij"))
    sides = []
    for side in (-1.0, 1.0):
        hu = column.sample(crop, np.arange(len(column.arc_mm)), side * left, posterior)
        patches = np.clip(hu, -100, 400).reshape(len(hu), len(_PEDICLE_LEFT_MM), -1).mean(axis=2)
        # Pedicles stand 9 to 23 mm off the midline: three neighbouring lines at a time.
        sides.append(((patches[:, :-2] + patches[:, 1:-1] + patches[:, 2:]) / 3).max(axis=1))
    bone = (sides[0] + sides[1]) / 2
    low, high = np.percentile(bone, [15, 85])
    return np.asarray(np.clip((bone - (low + high) / 2) / max(40.0, (high - low) / 2), -1, 1), dtype=np.float64)


def _profiles(crop: Crop, column: Column, outline: Outline) -> tuple[FloatArray, FloatArray]:
    """HU (steps, lines) along lines beside the canal inside the outline, and their (lines, 2) place from its middle."""
    reach = float(outline.radius_mm.max())
    ticks = np.arange(-reach, reach + 1, max(2.5, reach / 8))
    left, posterior = (axis.ravel() for axis in np.meshgrid(ticks, ticks, indexing="ij"))
    middle = outline.middle_mm
    inside = outline.reach(left + middle[0], posterior + middle[1]) <= _INNER_PART
    left, posterior = left[inside], posterior[inside]
    hu = column.sample(crop, np.arange(len(column.arc_mm)), left + middle[0], posterior + middle[1])
    return np.clip(hu, -150, 1000), np.stack([left, posterior], axis=-1)


def _tilted(hu: FloatArray, places: FloatArray, rises: FloatArray) -> FloatArray:
    """(tilts, steps) mean HU on planes of each tilt."""
    steps = np.arange(len(hu))
    shift = np.rint(rises @ places.T).astype(np.intp)
    lines = np.arange(hu.shape[1])
    return np.stack([hu[np.clip(steps[:, None] + one, 0, len(hu) - 1), lines].mean(axis=1) for one in shift])


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
        ends = steps - height
        if height >= max(4, 3 + 0.6 * slice_mm):
            scores[i, :ends] = superior[:ends] + inferior[height:]
        if height in evidence.bands:
            band = evidence.bands[int(height)].max(axis=0)[:ends] + 0.4
            scores[i, :ends] = np.maximum(scores[i, :ends], band)
    return heights, scores - settings.least_score


@dataclass(frozen=True, eq=False, slots=True)
class _Problem:
    """scores: (d, steps) of discs of heights `disc_mm` (d,); body_mm: usual heights of bodies to try; limits_mm of any.

    skipped: (steps,) cost of having a step inside a body, `margin` steps or more from its faces.
    """

    scores: FloatArray
    disc_mm: npt.NDArray[np.intp]
    body_mm: FloatArray
    limits_mm: tuple[float, float]
    skipped: FloatArray
    margin: int
    pedicles: FloatArray


def _best_chain(
    problem: _Problem, usual_mm: float, settings: ChainSettings
) -> tuple[float, int, list[tuple[int, int]]]:
    """Score, which of the usual body heights, and (lower, upper) steps of the best row of discs.

    ends[i, e]: best score of a row for body height i whose last disc has its upper face at step e.
    """
    steps, body = problem.scores.shape[1], problem.body_mm[:, None]
    low, high = int(np.ceil(problem.limits_mm[0])), int(problem.limits_mm[1])
    # Spans from the longest to the shortest: then the steps they start from ascend.
    spans = np.arange(high, low - 1, -1)
    span_cost = 0.7 * np.minimum(np.abs(spans - body) / (settings.height_sd * body), 4)
    relative = problem.disc_mm / body
    disc_cost = 0.4 * np.maximum(np.abs(relative / 0.3 - 1) / 0.5 - 1, 0) + 9.0 * (relative > 0.55)
    passed = np.concatenate([[0.0], np.cumsum(problem.skipped)])
    passed = np.concatenate([np.full(high, 0.0), passed])
    bone = np.concatenate([np.zeros(high + 1), np.cumsum(problem.pedicles)])
    every = np.arange(len(body))
    ends = np.full((len(body), high + steps), -1e9)
    lower, before = np.full(ends.shape, -1), np.full(ends.shape, -1)
    disc_steps, first = problem.disc_mm, 1.5 * problem.body_mm
    for t in range(steps):
        inside = (
            passed[np.maximum(t + high - problem.margin, t + high - spans)] - passed[t + high - spans + problem.margin]
        )
        upper = _mean(bone, t + high - (0.55 * spans).astype(int), t + high - 1)
        below = _mean(bone, np.maximum(t + high - spans - 5, 0), t + high - (0.72 * spans).astype(int))
        options = ends[:, t : t + high - low + 1] - span_cost - np.maximum(inside, 0)
        options = options + settings.pedicle * (upper - below)
        at = options.argmax(axis=1)
        value, previous = options[every, at], t - spans[at]
        fresh = (t < first) & (value < 0)
        value, previous = np.where(fresh, 0.0, value), np.where(fresh, -1, previous)
        before[:, high + t] = previous
        fits = disc_steps[t + disc_steps < steps]
        new = value[:, None] + problem.scores[: len(fits), t] - disc_cost[:, : len(fits)]
        uppers = high + t + fits
        better = new > ends[:, uppers]
        ends[:, uppers] = np.where(better, new, ends[:, uppers])
        lower[:, uppers] = np.where(better, t, lower[:, uppers])
    last = np.arange(steps) > steps - 1 - first[:, None]
    total = np.where(last, ends[:, high:], -1e9) - ((body - usual_mm) / (0.2 * usual_mm)) ** 2
    which, end = (int(i) for i in np.unravel_index(int(total.argmax()), total.shape))
    pairs: list[tuple[int, int]] = []
    if total[which, end] < -1e8:
        return -1e9, which, pairs
    score = float(total[which, end])
    while end >= 0:
        start = int(lower[which, high + end])
        pairs.append((start, end))
        end = int(before[which, high + start])
    return score, which, pairs[::-1]


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
