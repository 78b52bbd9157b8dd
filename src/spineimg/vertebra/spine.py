"""The whole column of vertebral bodies, solved as one chain.

The canal gives the column, the column its outlines, and the discs are found all at once (`chain.py`). Every body
between two discs is fitted as after a click. Then the neighbours speak: a body that is not believed by itself is fitted
once more with its endplates held to the way the neighbours' stand, and is believed when its size and its discs go with
theirs; one whose endplate cuts into the next body is not. From the start the list goes up and down as far as every body
is believed: no body is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.threads import one_blas_thread
from spineimg.vertebra.body import (
    Body,
    BodyNotFoundError,
    BodySettings,
    Scene,
    agree,
    refuse_click_outside,
    refuse_cut,
    refuse_outside,
    refuse_without_canal,
)
from spineimg.vertebra.canal import Canal, find_canal
from spineimg.vertebra.candidates import (
    SACRUM,
    SOFT_CODES,
    Candidate,
    SpineSettings,
    candidates_of,
    for_slices,
    slice_mm,
)
from spineimg.vertebra.chain import Zone, find_chain
from spineimg.vertebra.column import Column, straighten
from spineimg.vertebra.crop import Crop, cut_box, extent_mm
from spineimg.vertebra.neighbours import is_unclear, spoken_for
from spineimg.vertebra.sacrum import stands_on_wings, wings
from spineimg.vertebra.search import find_start
from spineimg.vertebra.walls import Outline, find_outline
from spineimg.volume import CTVolume, keeping

_ZONE_MM = 10
_ASIDE_MM = np.array([[90.0, 120.0], [65.0, 65.0]])
"""How far from the seed the spine may run to front and back, right and left."""
_NEAR, _NEAR_MM = 3, np.array([[110.0, 110.0], [60.0, 80.0], [60.0, 60.0]])
"""So many levels to either side are asked first: how far from the body they reach to feet and head, front and back,
right and left. Engineering choice: a lumbar level is 33-40 mm high."""
_STEP_MM = 1.0
_KEPT, _SPARE_MM = 3, 12
"""A second look beyond the end of a run takes so many of its bodies along, and so much more."""
SAME_DEG, SAME_MM = 5.0, 3.0
"""Two fits whose endplates stand farther apart are of two minds: neither is believed. Engineering choice."""


@dataclass(frozen=True, eq=False, slots=True)
class Spine:
    """Bodies from feet to head without a gap; `start`: which of them holds the seed (-1 or their number: the body below
    or above them does, which the image cuts).

    below, above: (code, reason) why the list ends there; sacrum: the next one below is the sacrum. scene: for figures.
    beyond: believed bodies of the same column beyond such an end, from feet to head.
    """

    bodies: tuple[Body, ...]
    held: tuple[bool, ...]
    start: int
    below: tuple[str, str]
    above: tuple[str, str]
    sacrum: bool
    scene: Scene
    beyond: tuple[Body, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Solved:
    """All that may be bodies of a spine, from feet to head, and whether they are believed."""

    scene: Scene
    candidates: tuple[Candidate, ...]
    settings: SpineSettings


@one_blas_thread
def solve_spine(volume: CTVolume, settings: SpineSettings | None = None) -> Solved:
    """The spine of a volume, wherever it is: the same whoever asks. Raises BodyNotFoundError, PixelError."""
    chosen = for_slices(settings or SpineSettings(), slice_mm(volume))
    volume = keeping(volume)
    return _solved(volume, find_start(volume, chosen.body.canal), chosen)


def once(volume: CTVolume, settings: SpineSettings | None = None) -> Callable[[], Solved]:
    """`solve_spine` at the first call; later calls give the same spine."""
    return cache(partial(solve_spine, volume, settings))


@one_blas_thread
def find_spine(
    volume: CTVolume,
    seed_lps_mm: FloatArray,
    settings: SpineSettings | None = None,
    *,
    beside: bool = False,
    solve: Callable[[], Solved] | None = None,
) -> Spine:
    """The bodies around a point inside one of them, (3,) LPS mm, as far up and down as they are believed.

    beside: where the image's end cuts the body at the seed, those beside it. solve: gives the volume's spine, for those
    who ask several times (`once`). Where that does not hold the seed, the spine is looked for around the seed.
    Raises BodyNotFoundError with the reason when the body at the seed is not believed; PixelError.
    """
    seed = np.asarray(seed_lps_mm, dtype=np.float64)
    refuse_outside(volume.geometry, seed)
    volume = keeping(volume)
    try:
        known = solve() if solve else solve_spine(volume, settings)
        at = _at(known.candidates, seed)
    except BodyNotFoundError as error:
        known, at = _around_seed(volume, seed, for_slices(settings or SpineSettings(), slice_mm(volume)), error)
    way = _whole_side(volume, known.candidates, at) if beside else 0
    spine = _around(volume, known, at + way)
    return replace(spine, start=-1 if way > 0 else len(spine.bodies)) if way else spine


def _around_seed(
    volume: CTVolume, seed: FloatArray, settings: SpineSettings, before: BodyNotFoundError
) -> tuple[Solved, int]:
    """The spine around a seed, where that of the volume does not hold it, and which body does."""
    try:
        known = _solved(volume, seed, settings)
        return known, _at(known.candidates, seed)
    except BodyNotFoundError as error:
        if before.code != "no_spine" or error.code not in ("body_cut", *SOFT_CODES):
            raise
        text = "no spinal canal is found, which contrast agent in it or metal beside it may hide"
        raise BodyNotFoundError("no_canal", f"{text}; and around the click {error}") from None


@one_blas_thread
def search_spine(
    volume: CTVolume, settings: SpineSettings | None = None, *, solve: Callable[[], Solved] | None = None
) -> Spine:
    """The longest run of believed bodies of the spine that is found in a volume; `start` is the lowest of them.

    solve: as in `find_spine`.
    Raises BodyNotFoundError when there is no spine or no body is believed; PixelError.
    """
    volume = keeping(volume)
    known = solve() if solve else solve_spine(volume, settings)
    run = _longest_run(volume, known.candidates)
    if not run:
        reason = next((one.reason for one in known.candidates if one.reason is not None), None)
        raise BodyNotFoundError("no_spine", f"no vertebral body is clear enough{f': {reason[1]}' if reason else ''}")
    return _around(volume, known, run[0])


@one_blas_thread
def near_body(volume: CTVolume, seed_lps_mm: FloatArray, settings: SpineSettings | None = None) -> Body | None:
    """The body at a point, (3,) LPS mm, in the column of its nearest neighbours.

    None where it is not believed there, or too few of these stand by themselves: the whole spine may tell more. Raises
    PixelError.
    """
    chosen = for_slices(settings or SpineSettings(), slice_mm(volume))
    volume = keeping(volume)
    try:
        candidates = _chained(volume, _scene(volume, seed_lps_mm, _NEAR_MM, chosen), chosen).candidates
        at = _at(candidates, seed_lps_mm)
    except BodyNotFoundError:
        return None
    beside = (*candidates[max(0, at - _NEAR) : at], *candidates[at + 1 : at + 1 + _NEAR])
    clear = sum(one.reason is None and not one.held for one in beside)
    body = _judged(volume, candidates[at])
    return body if isinstance(body, Body) and clear >= chosen.witnesses else None


def _solved(volume: CTVolume, point: FloatArray, settings: SpineSettings) -> Solved:
    """All candidates of the spine that runs in front of the canal behind a point."""
    reach = np.concatenate([[[settings.reach_mm] * 2], _ASIDE_MM])
    known = _chained(volume, _scene(volume, point, reach, settings), settings)
    for way in (-1, 1):
        known = _looked_again(volume, known, way)
    return known


def _scene(volume: CTVolume, point: FloatArray, reach_mm: FloatArray, settings: SpineSettings) -> Scene:
    """The canal behind a point and the column before it, as far as the image or (3, 2) reach_mm goes."""
    reach = np.minimum(reach_mm, extent_mm(volume.geometry, point) + 2.0)
    crop = cut_box(volume, point, [(float(low), float(high)) for low, high in reach], _STEP_MM)
    canal = find_canal(crop, settings.body.canal)
    refuse_without_canal(crop, canal, settings.body.trust.canal_hu)
    return Scene(crop, canal, _trusted(crop, canal, straighten(crop, canal), settings))


def _chained(volume: CTVolume, scene: Scene, settings: SpineSettings) -> Solved:
    """All candidates of a column."""
    zones = _zones(scene.crop, scene.column, settings.body)
    chain = find_chain(scene.crop, scene.column, zones, volume.geometry.spacing_mm[0], settings.body.chain)
    candidates = candidates_of(volume, scene, zones, chain, settings)
    return Solved(scene, tuple(spoken_for(volume, scene, zones, candidates, settings)), settings)


def _looked_again(volume: CTVolume, known: Solved, way: int) -> Solved:
    """Where the longest run of believed bodies ends at an unclear one, the column is solved anew from its last three.

    Faint discs are seen or not by where outlines happen to be taken. The second look counts where it finds the last
    body of the run again, and more bodies beyond it.
    """
    run = _longest_run(volume, known.candidates)
    after = (run[-1] if way > 0 else run[0]) + way if run else -1
    if not 0 <= after < len(known.candidates) or not is_unclear(known.candidates[after]):
        return known
    last = known.candidates[after - way]
    kept = [known.candidates[i] for i in (run[-_KEPT:] if way > 0 else run[:_KEPT])]
    part = _column_beyond(known.scene, kept, last, way)
    other = _chained(volume, replace(known.scene, column=part), known.settings)
    again = _longest_run(volume, other.candidates)
    same = [i for i in again if _is_same(other.candidates[i], last)]
    if not same or (again[-1] - same[0] if way > 0 else same[0] - again[0]) < 1:
        return known
    own, further = known.candidates, other.candidates
    joined = (*own[:after], *further[same[0] + 1 :]) if way > 0 else (*further[: same[0]], *own[after + 1 :])
    return replace(known, candidates=joined)


def _column_beyond(scene: Scene, kept: Sequence[Candidate], last: Candidate, way: int) -> Column:
    """The column from the kept bodies on in one direction, started at the last of them."""
    column = scene.column
    row = column.row_at((last.below.upper.arc_mm + last.above.lower.arc_mm) / 2)
    if last.fit is None:
        return column
    away = last.fit.body.center_lps_mm - column.middle_lps_mm[row]
    click = (float(away @ column.left_lps[row]), float(away @ column.posterior_lps[row]))
    column = replace(column, row=row, click_mm=click)
    if way > 0:
        return column.part(max(0, column.row_at(kept[0].below.lower.arc_mm) - _SPARE_MM), len(column.arc_mm))
    return column.part(0, min(len(column.arc_mm), column.row_at(kept[-1].above.upper.arc_mm) + _SPARE_MM))


def _longest_run(volume: CTVolume, candidates: Sequence[Candidate]) -> list[int]:
    """The numbers of the longest run of believed bodies."""
    best: list[int] = []
    run: list[int] = []
    for i, one in enumerate(candidates):
        run = [*run, i] if isinstance(_judged(volume, one), Body) else []
        best = run if len(run) > len(best) else best
    return best


def _is_same(one: Candidate, other: Candidate) -> bool:
    if one.fit is None or other.fit is None:
        return False
    return agree(one.fit.body, other.fit.body, SAME_DEG, SAME_MM)


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


# -- the list ---------------------------------------------------------------------------------------------------------


def _at(candidates: Sequence[Candidate], seed: FloatArray) -> int:
    """The body that holds the seed. Raises BodyNotFoundError when none does."""
    fits = [(i, one.fit) for i, one in enumerate(candidates) if one.fit is not None]
    if not fits:
        raise BodyNotFoundError("body_cut", "no two discs are found around the click: the body may be cut off")
    i, fit = min(fits, key=lambda pair: float(np.linalg.norm(pair[1].body.center_lps_mm - seed)))
    refuse_click_outside(fit.frame, fit.frame.local(seed), fit.top, fit.bottom)
    return i


def _whole_side(volume: CTVolume, candidates: Sequence[Candidate], at: int) -> int:
    """-1 or 1: below or above a clear body that the image cuts lies a whole one; 0 when it is not cut, or not clear."""
    judged = _judged(volume, candidates[at])
    if isinstance(judged, Body) or candidates[at].reason is not None or judged[0] != "body_cut":
        return 0
    near = {way: at + way for way in (-1, 1) if 0 <= at + way < len(candidates)}
    whole = [way for way, i in near.items() if isinstance(_judged(volume, candidates[i]), Body)]
    return whole[0] if len(whole) == 1 else 0


def _around(volume: CTVolume, known: Solved, start: int) -> Spine:
    """The believed bodies around the start without a gap."""
    scene, candidates, settings = known.scene, known.candidates, known.settings
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
            found = SACRUM if _is_sacrum(scene, one, way, settings) else _judged(volume, one)
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
    others = (_judged(volume, one) for one in candidates)
    beyond = tuple(one for one in others if isinstance(one, Body) and not any(one is body for body in bodies))
    return Spine(bodies, held, len(parts[-1]), ends[-1], ends[1], sacrum, scene, beyond)


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
