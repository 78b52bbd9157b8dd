"""The whole column of vertebral bodies, solved as one chain.

The canal gives the column, the column its outlines, and the discs are found all at once (`chain.py`). Every body
between two discs is fitted as after a click. Then the neighbours speak: a body that is not believed by itself is fitted
once more with its endplates held to the way the neighbours' stand, and is believed when its size and its discs go with
theirs; one whose endplate cuts into the next body is not. From the start the list goes up and down as far as every body
is believed: no body is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.threads import one_blas_thread
from spineimg.vertebra.body import (
    Body,
    BodyNotFoundError,
    BodySettings,
    Scene,
    refuse_click_outside,
    refuse_cut,
    refuse_outside,
    refuse_without_canal,
)
from spineimg.vertebra.canal import Canal, find_canal
from spineimg.vertebra.candidates import Candidate, SpineSettings, candidates_of
from spineimg.vertebra.chain import Zone, find_chain
from spineimg.vertebra.column import Column, straighten
from spineimg.vertebra.crop import Crop, cut_box, extent_mm
from spineimg.vertebra.neighbours import spoken_for
from spineimg.vertebra.sacrum import stands_on_wings, wings
from spineimg.vertebra.search import find_start
from spineimg.vertebra.walls import Outline, find_outline
from spineimg.volume import CTVolume, keeping

_ZONE_MM = 10
_ASIDE_MM = np.array([[90.0, 120.0], [65.0, 65.0]])
"""How far from the seed the spine may run to front and back, right and left."""
_STEP_MM = 1.0


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


@one_blas_thread
def find_spine(
    volume: CTVolume, seed_lps_mm: FloatArray, settings: SpineSettings | None = None, *, beside: bool = False
) -> Spine:
    """The bodies around a point inside one of them, (3,) LPS mm, as far up and down as they are believed.

    beside: where the image's end cuts the body at the seed, those beside it. Raises BodyNotFoundError with the reason
    when the body at the seed is not believed; PixelError.
    """
    chosen = settings or SpineSettings()
    seed = np.asarray(seed_lps_mm, dtype=np.float64)
    refuse_outside(volume.geometry, seed)
    volume = keeping(volume)
    scene, candidates = _solved(volume, seed, chosen)
    at = _at(candidates, seed)
    way = _whole_side(volume, candidates, at) if beside else 0
    spine = _around(volume, scene, candidates, at + way, chosen)
    return replace(spine, start=-1 if way > 0 else len(spine.bodies)) if way else spine


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
    refuse_without_canal(crop, canal, settings.body.trust.canal_hu)
    column = _trusted(crop, canal, straighten(crop, canal), settings)
    zones = _zones(crop, column, settings.body)
    chain = find_chain(crop, column, zones, volume.geometry.spacing_mm[0], settings.body.chain)
    scene = Scene(crop, canal, column)
    candidates = candidates_of(volume, scene, zones, chain, settings)
    return scene, spoken_for(volume, scene, zones, candidates, settings)


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
