"""The whole column of vertebral bodies, solved as one chain.

The canal gives the column, the column its outlines, and the discs are found all at once (`chain.py`). Every body
between two discs is fitted as after a click. Then the neighbours speak: a body that is not believed by itself is fitted
once more with its endplates held to the way the neighbours' stand, and is believed when its size and its discs go with
theirs; one whose endplate cuts into the next body is not. From the start the list goes up and down as far as every body
is believed: no body is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.threads import one_blas_thread
from spineimg.vertebra.body import (
    Body,
    BodyNotFoundError,
    BodySettings,
    FittedBody,
    Scene,
    fit_between,
    refuse_click_outside,
    refuse_cut,
    refuse_outside,
    refuse_without_canal,
)
from spineimg.vertebra.canal import Canal, find_canal
from spineimg.vertebra.chain import Chain, Disc, Face, Zone, find_chain
from spineimg.vertebra.column import Column, straighten
from spineimg.vertebra.crop import Crop, cut_box, extent_mm
from spineimg.vertebra.endplates import LEAN_PART
from spineimg.vertebra.kept import keeping
from spineimg.vertebra.sacrum import stands_on_wings, wings
from spineimg.vertebra.search import find_start
from spineimg.vertebra.trust import doubt
from spineimg.vertebra.walls import Outline, find_outline
from spineimg.volume import CTVolume


def _setting(default: Any, unit_: str, low: float, high: float, source: str, help_: str) -> Any:
    return field(default=default, metadata={"unit": unit_, "range": (low, high), "source": source, "help": help_})


@dataclass(frozen=True, slots=True)
class SpineSettings:
    """When neighbours' agreement makes up for an unclear fit, and what ends the spine."""

    body: BodySettings = field(default_factory=BodySettings)
    reach_mm: float = _setting(
        700.0, "mm", 100, 900, "a spine from atlas to sacrum: up to 650 mm", "how far from the seed to feet and head"
    )
    held_tilt_deg: float = _setting(
        2.0, "degree", 0.5, 6, "engineering choice", "SD of endplates' tilt against the neighbours' where it is unclear"
    )
    held_height_mm: float = _setting(
        0.8, "mm", 0.3, 3, "engineering choice", "SD of endplates' place against the discs of the chain, where unclear"
    )
    held_oddities: int = _setting(
        3, "", 0, 10, "engineering choice: a bridged disc at either side", "most odd numbers of its endplate fits"
    )
    size: float = _setting(
        0.2, "1", 0.05, 0.5, "neighbours differ by up to 15 %", "largest difference from the neighbours' size"
    )
    turn_deg: float = _setting(
        12.0, "degree", 5, 30, "engineering choice", "largest angle between a body's axis and its neighbours'"
    )
    wedge_deg: float = _setting(
        13.0, "degree", 5, 30, "L5 is wedged by 5-12 degrees more than L4", "largest difference of wedge from theirs"
    )
    overlap_mm: float = _setting(
        1.5, "mm", 0, 3, "engineering choice", "endplates of neighbours may cross by so much, no more"
    )
    held_quality: float = _setting(
        0.62, "1", 0, 1, "engineering choice", "least quality of a body that its neighbours speak for"
    )
    held_wall: float = _setting(0.55, "1", 0, 1, "engineering choice", "and least support of its wall")
    lowest_wedge_deg: float = _setting(
        0.0, "degree", -10, 15, "L5 is higher in front by 5-20 degrees", "largest wedge of the body on the sacrum"
    )
    wings: float = _setting(
        0.3,
        "1",
        0.1,
        0.9,
        "measured: 0.0-0.15 beside L5",
        "part of bone at either side of the body from which on it is the sacrum",
    )


_ZONE_MM = 10
_ASIDE_MM = np.array([[90.0, 120.0], [65.0, 65.0]])
"""How far from the seed the spine may run to front and back, right and left."""
_STEP_MM = 1.0
_FEWEST_PEERS = 4
SOFT_CODES = frozenset(
    {"uncertain", "endplates_unclear", "neighbours_contradict", "endplates_contradict", "walls_unclear", "not_a_body"}
)
"""Reasons of refusal that neighbours may outweigh."""


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """What lies between two discs: its fit, or why there is none; `reason` (code, text) when it is not believed.

    below, above: the discs; held: the fit leans on the neighbours.
    """

    below: Disc
    above: Disc
    fit: FittedBody | None
    reason: tuple[str, str] | None
    held: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Spine:
    """Bodies from feet to head without a gap; `start`: which of them holds the seed.

    below, above: (code, reason) why the list ends there; sacrum: the next one below is the sacrum. column: for figures.
    """

    bodies: tuple[Body, ...]
    held: tuple[bool, ...]
    start: int
    below: tuple[str, str]
    above: tuple[str, str]
    sacrum: bool
    scene: Scene


@one_blas_thread
def find_spine(volume: CTVolume, seed_lps_mm: FloatArray, settings: SpineSettings | None = None) -> Spine:
    """The bodies around a point inside one of them, (3,) LPS mm, as far up and down as they are believed.

    Raises BodyNotFoundError with the reason when the body at the seed is not believed; PixelError.
    """
    chosen = settings or SpineSettings()
    seed = np.asarray(seed_lps_mm, dtype=np.float64)
    refuse_outside(volume.geometry, seed)
    volume = keeping(volume)
    scene, candidates = _solved(volume, seed, chosen)
    return _around(volume, scene, candidates, _at(candidates, seed), chosen)


@one_blas_thread
def search_spine(volume: CTVolume, settings: SpineSettings | None = None) -> Spine:
    """The longest run of believed bodies of the spine that is found in a volume; `start` is the lowest of them.

    Raises BodyNotFoundError when there is no spine or no body is believed; PixelError.
    """
    chosen = settings or SpineSettings()
    volume = keeping(volume)
    scene, candidates = _solved(volume, find_start(volume, chosen.body.canal), chosen)
    believed = [isinstance(_judged(volume, one), Body) for one in candidates]
    best, length, run = -1, 0, 0
    for i, good in enumerate(believed):
        run = run + 1 if good else 0
        best, length = (i, run) if run > length else (best, length)
    if best < 0:
        reason = next((one.reason for one in candidates if one.reason is not None), None)
        raise BodyNotFoundError("no_spine", f"no vertebral body is clear enough{f': {reason[1]}' if reason else ''}")
    return _around(volume, scene, candidates, best - length + 1, chosen)


def _solved(volume: CTVolume, point: FloatArray, settings: SpineSettings) -> tuple[Scene, list[Candidate]]:
    """All candidates of the spine that runs in front of the canal behind a point."""
    wanted = np.concatenate([[[settings.reach_mm] * 2], _ASIDE_MM])
    reach = np.minimum(wanted, extent_mm(volume.geometry, point) + 2.0)
    crop = cut_box(volume, point, [(float(low), float(high)) for low, high in reach], _STEP_MM)
    canal = find_canal(crop, settings.body.canal)
    refuse_without_canal(crop, canal, settings.body)
    column = _trusted(crop, canal, straighten(crop, canal), settings)
    zones = _zones(crop, column, settings.body)
    chain = find_chain(crop, column, zones, volume.geometry.spacing_mm[0], settings.body.chain)
    scene = Scene(crop, canal, column)
    candidates = _candidates(volume, scene, zones, chain, settings)
    return scene, _spoken_for(volume, scene, zones, candidates, settings)


# -- the column -------------------------------------------------------------------------------------------------------


def _trusted(crop: Crop, canal: Canal, column: Column, settings: SpineSettings) -> Column:
    """The column as far as there is a canal behind it."""
    rows = crop.index(column.middle_lps_mm)[:, 0]
    low = np.array([canal.score_at(row) for row in rows]) < settings.body.trust.canal_hu
    before, after = np.flatnonzero(low[: column.row + 1]), np.flatnonzero(low[column.row :])
    first = int(before[-1]) + 1 if len(before) else 0
    last = column.row + int(after[0]) if len(after) else len(rows)
    return column.part(min(first, column.row), max(last, column.row + 1))


def _zones(crop: Crop, column: Column, settings: BodySettings) -> list[Zone]:
    """The outline every centimetre, each found around the middle of the one before, from the seed outwards."""
    count = len(column.arc_mm)
    middles = np.arange(column.row % _ZONE_MM, count, _ZONE_MM)
    at = int(np.argmin(np.abs(middles - column.row)))
    left, posterior = column.click_mm
    start = (0.7 * left, float(np.clip(posterior, -32, -14)))
    found: dict[int, Outline] = {}
    for way in (range(at, len(middles)), range(at - 1, -1, -1)):
        middle = found[at].centroid_mm if found else start
        for i in way:
            rows = np.clip(middles[i] + np.arange(-8, 9, 2), 0, count - 1)
            found[i] = find_outline(crop, column, rows, middle, settings.walls)
            left, posterior = found[i].centroid_mm
            middle = (float(np.clip(left, -12, 12)), float(np.clip(posterior, -32, -12)))
    outlines = [found[i] for i in range(len(middles))]
    edges = [0, *[int((a + b) // 2) for a, b in pairwise(middles)], count]
    return [Zone(a, b, _usual(outlines, i)) for i, (a, b) in enumerate(pairwise(edges))]


def _usual(outlines: Sequence[Outline], i: int) -> Outline:
    """The outline of the usual area among five neighbours: one that leaked or shrank does not count."""
    near = outlines[max(0, i - 2) : i + 3]
    usual = float(np.median([one.area_mm2 for one in near]))
    return min(near, key=lambda one: (abs(one.area_mm2 - usual), one is not outlines[i]))


def _rough(zones: Sequence[Zone], column: Column, below: Disc, above: Disc) -> Outline:
    row = column.row_at((below.upper.arc_mm + above.lower.arc_mm) / 2)
    return next(zone.outline for zone in zones if zone.first <= row < zone.last)


# -- candidates -------------------------------------------------------------------------------------------------------


def _candidates(
    volume: CTVolume, scene: Scene, zones: Sequence[Zone], chain: Chain, settings: SpineSettings
) -> list[Candidate]:
    """Every body between two discs of the chain, judged by itself."""
    found = []
    for height, (below, above) in zip(chain.height_mm, pairwise(chain.discs), strict=False):
        rough = _rough(zones, scene.column, below, above)
        try:
            fit = fit_between(volume, scene, rough, (below, above), height, settings.body)
        except BodyNotFoundError as error:
            found.append(Candidate(below, above, None, (error.code, str(error))))
            continue
        found.append(Candidate(below, above, fit, doubt(fit.found, settings.body.trust)))
    return _without_crossing(found, settings)


def _without_crossing(candidates: list[Candidate], settings: SpineSettings) -> list[Candidate]:
    """Of two bodies whose endplates cross the one with the poorer fit is not believed."""
    found = list(candidates)
    for i in range(len(found) - 1):
        lower, upper = found[i], found[i + 1]
        if lower.fit is None or upper.fit is None or _gap_mm(lower.fit, upper.fit) > -settings.overlap_mm:
            continue
        poorer = i if lower.fit.body.quality < upper.fit.body.quality else i + 1
        reason = found[poorer].reason or ("neighbours_contradict", "its endplate cuts into the next body")
        found[poorer] = replace(found[poorer], reason=reason)
    return found


def _gap_mm(lower: FittedBody, upper: FittedBody) -> float:
    """Least height of the disc between two bodies within two thirds of the way to their walls."""
    top, bottom = lower.body.superior, upper.body.inferior
    way = (top.normal_lps + bottom.normal_lps) / np.linalg.norm(top.normal_lps + bottom.normal_lps)
    ring = 0.67 * lower.body.outline_mm @ lower.body.axes[:2]
    places = np.concatenate([np.zeros((1, 3)), ring]) + top.point_lps_mm
    heights = [((p.point_lps_mm - places) @ p.normal_lps) / (way @ p.normal_lps) for p in (bottom, top)]
    return float(np.min(heights[0] - heights[1]))


def _at(candidates: Sequence[Candidate], seed: FloatArray) -> int:
    """The body that holds the seed. Raises BodyNotFoundError when none does."""
    fits = [(i, one.fit) for i, one in enumerate(candidates) if one.fit is not None]
    if not fits:
        raise BodyNotFoundError("body_cut", "no two discs are found around the click: the body may be cut off")
    i, fit = min(fits, key=lambda pair: float(np.linalg.norm(pair[1].body.center_lps_mm - seed)))
    refuse_click_outside(fit.frame, fit.frame.local(seed), fit.top, fit.bottom)
    return i


# -- neighbours -------------------------------------------------------------------------------------------------------


def _spoken_for(
    volume: CTVolume, scene: Scene, zones: Sequence[Zone], candidates: list[Candidate], settings: SpineSettings
) -> list[Candidate]:
    """Candidates that are not believed, fitted again between believed neighbours, nearest to these first."""
    found = list(candidates)
    tried: set[int] = set()
    while True:
        doubtful = [
            i
            for i, one in enumerate(found)
            if i not in tried
            and _is_unclear(one)
            and any(0 <= j < len(found) and found[j].reason is None for j in (i - 1, i + 1))
        ]
        if not doubtful:
            break
        i = doubtful[0]
        tried.add(i)
        found[i] = _held(volume, scene, zones, found, i, _near(found, i, believed=True)[:4], settings)
    # Where no one is clear (bridged discs), all around it together still tell how endplates stand.
    unclear = [i for i, one in enumerate(found) if _is_unclear(one) and i not in tried]
    peers = {i: _near(found, i, believed=False) for i in unclear}
    for i in unclear:
        if len(peers[i]) >= _FEWEST_PEERS:
            found[i] = _held(volume, scene, zones, candidates, i, peers[i], settings)
    return found


def _is_unclear(one: Candidate) -> bool:
    return one.reason is not None and one.reason[0] in SOFT_CODES


def _near(candidates: Sequence[Candidate], i: int, *, believed: bool) -> list[int]:
    """Neighbours with a fit within three levels, nearest first; believed: only those that are."""
    near = sorted((j for j in range(len(candidates)) if 0 < abs(j - i) <= 3), key=lambda j: abs(j - i))
    fits = [j for j in near if candidates[j].fit is not None]
    return [j for j in fits if candidates[j].reason is None or (not believed and _is_unclear(candidates[j]))]


def _held(
    volume: CTVolume,
    scene: Scene,
    zones: Sequence[Zone],
    candidates: Sequence[Candidate],
    i: int,
    near: Sequence[int],
    settings: SpineSettings,
) -> Candidate:
    """A candidate fitted with its endplates held to the neighbours' way, believed when it goes with them."""
    one = candidates[i]
    neighbours = [fit for fit in (candidates[j].fit for j in near) if fit is not None]
    rise = np.median(np.concatenate([_rises(scene.column, fit.body) for fit in neighbours]), axis=0)
    discs = tuple(_leaning(disc, rise / LEAN_PART) for disc in (one.below, one.above))
    endplates = replace(
        settings.body.endplates, tilt_sd_deg=settings.held_tilt_deg, height_sd_mm=settings.held_height_mm
    )
    held = replace(settings.body, endplates=endplates)
    height = float(np.median([fit.found.height for fit in neighbours]))
    rough = _rough(zones, scene.column, one.below, one.above)
    usual = height * float(np.sqrt(rough.area_mm2))
    try:
        fit = fit_between(volume, scene, rough, (discs[0], discs[1]), usual, held)
    except BodyNotFoundError as error:
        return replace(one, reason=(error.code, str(error)))
    reason = _disagreement(scene.column, fit, neighbours, settings)
    for j, (low, high) in ((i - 1, (i - 1, i)), (i + 1, (i, i + 1))):
        if 0 <= j < len(candidates) and candidates[j].reason is None and reason is None:
            pair = [fit if k == i else candidates[k].fit for k in (low, high)]
            if pair[0] is not None and pair[1] is not None and _gap_mm(pair[0], pair[1]) < -settings.overlap_mm:
                reason = ("neighbours_contradict", "its endplate cuts into the next body")
    return Candidate(one.below, one.above, fit, reason, held=True)


def _rises(column: Column, body: Body) -> FloatArray:
    """(2, 2) rise per mm to left and back of both endplates against the column."""
    rises = []
    for end in (body.superior, body.inferior):
        row = int(np.argmin(np.abs(np.einsum("ij,ij->i", end.point_lps_mm - column.middle_lps_mm, column.cranial_lps))))
        normal = end.normal_lps
        up = float(normal @ column.cranial_lps[row])
        rises.append([-float(normal @ side[row]) / up for side in (column.left_lps, column.posterior_lps)])
    return np.array(rises)


def _leaning(disc: Disc, rise: FloatArray) -> Disc:
    def turned(face: Face) -> Face:
        return replace(face, rise_left=float(rise[0]), rise_posterior=float(rise[1]))

    return Disc(turned(disc.lower), turned(disc.upper), disc.score)


def _disagreement(
    column: Column, fit: FittedBody, neighbours: Sequence[FittedBody], settings: SpineSettings
) -> tuple[str, str] | None:
    """(code, reason) when a body does not go with its neighbours; None when they speak for it."""
    body, found = fit.body, fit.found
    others = [other.body for other in neighbours]
    sizes = {
        name: getattr(body, name) / float(np.median([getattr(other, name) for other in others]))
        for name in ("width_mm", "depth_mm", "height_mm")
    }
    for name, ratio in sizes.items():
        if abs(np.log(max(ratio, 0.01))) > settings.size:
            word = name.removesuffix("_mm")
            return "neighbours_contradict", f"its {word} is {ratio:.2f} times that of the bodies beside it"
    usual = np.median(np.concatenate([_rises(column, other) for other in others]), axis=0)
    lean = _rises(column, body).mean(axis=0) - usual
    turn = float(np.degrees(np.arctan(np.linalg.norm(lean))))
    if turn > settings.turn_deg:
        return "neighbours_contradict", f"its axis leans {turn:.0f} degrees against the bodies beside it"
    wedge = body.wedge_deg - float(np.median([other.wedge_deg for other in others]))
    if abs(wedge) > settings.wedge_deg:
        return "endplates_contradict", f"its endplates diverge by {abs(wedge):.0f} degrees more than those beside it"
    lines = replace(
        settings.body.trust,
        quality=settings.held_quality,
        wall=settings.held_wall,
        explained=-1.0,
        tilt_sd_deg=np.inf,  # the tilt is the neighbours'
        oddities=settings.held_oddities,
    )
    return doubt(found, lines)


# -- the list ---------------------------------------------------------------------------------------------------------


def _around(
    volume: CTVolume, scene: Scene, candidates: Sequence[Candidate], start: int, settings: SpineSettings
) -> Spine:
    """The believed bodies around the start without a gap."""
    body = _judged(volume, candidates[start])
    if isinstance(body, tuple):
        raise BodyNotFoundError(*body)
    parts: dict[int, list[tuple[Body, bool]]] = {}
    ends: dict[int, tuple[str, str]] = {}
    for way in (-1, 1):
        parts[way] = []
        ends[way] = ("image_ends", "no further disc is found")
        i = start + way
        while 0 <= i < len(candidates):
            one = candidates[i]
            found = ("sacrum", "the sacrum begins") if _is_sacrum(scene, one, way, settings) else _judged(volume, one)
            if isinstance(found, tuple):
                ends[way] = found
                break
            parts[way].append((found, one.held))
            i += way
    row = [*parts[-1][::-1], (body, candidates[start].held), *parts[1]]
    sacrum = ends[-1][0] == "sacrum" or stands_on_wings(scene.crop, row[0][0])
    if sacrum and row[0][0].wedge_deg > settings.lowest_wedge_deg:
        ends[-1] = ("endplates_contradict", "the body on the sacrum would be lower in front than behind")
        if len(row) == 1 or not parts[-1]:
            raise BodyNotFoundError(*ends[-1])
        row, parts[-1], sacrum = row[1:], parts[-1][:-1], False
    bodies, held = tuple(one for one, _ in row), tuple(leans for _, leans in row)
    return Spine(bodies, held, len(parts[-1]), ends[-1], ends[1], sacrum, scene)


def _is_sacrum(scene: Scene, one: Candidate, way: int, settings: SpineSettings) -> bool:
    return way < 0 and wings(scene.crop, scene.column, one.below, one.above) >= settings.wings


def _judged(volume: CTVolume, one: Candidate) -> Body | tuple[str, str]:
    """The body, or (code, reason) when it is not believed, or cut by the image or a gap."""
    if one.fit is None or one.reason is not None:
        return one.reason or ("body_cut", "there is no fit")
    try:
        refuse_cut(volume.geometry, one.fit.body)
    except BodyNotFoundError as error:
        return error.code, str(error)
    return one.fit.body
