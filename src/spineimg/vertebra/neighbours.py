"""Neighbours speak for a body whose own fit is unclear.

It is fitted once more with its endplates held to the way the neighbours' stand, and is believed when its size, its axis
and its discs go with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.vertebra.body import Body, BodyNotFoundError, FittedBody, Scene, fit_between
from spineimg.vertebra.candidates import SOFT_CODES, Candidate, SpineSettings, gap_mm, rough_between
from spineimg.vertebra.chain import Disc, Face, Zone
from spineimg.vertebra.column import Column
from spineimg.vertebra.endplate_model import LEAN_PART
from spineimg.vertebra.trust import doubt
from spineimg.volume import CTVolume

_FEWEST_PEERS = 4


def spoken_for(
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
    rough = rough_between(zones, scene.column, one.below, one.above)
    usual = height * float(np.sqrt(rough.area_mm2))
    try:
        fit = fit_between(volume, scene, rough, (discs[0], discs[1]), usual, held)
    except BodyNotFoundError as error:
        return replace(one, reason=(error.code, str(error)))
    reason = _disagreement(scene.column, fit, neighbours, settings)
    for j, (low, high) in ((i - 1, (i - 1, i)), (i + 1, (i, i + 1))):
        if 0 <= j < len(candidates) and candidates[j].reason is None and reason is None:
            pair = [fit if k == i else candidates[k].fit for k in (low, high)]
            if pair[0] is not None and pair[1] is not None and gap_mm(pair[0], pair[1]) < -settings.overlap_mm:
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
