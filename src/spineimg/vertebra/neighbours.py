"""Neighbours speak for a body whose own fit is unclear.

It is fitted once more with its endplates held to the way the neighbours' stand, and is believed when its size, its axis
and its discs go with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.vertebra.bands import banded
from spineimg.vertebra.body import Body, BodyNotFoundError, FittedBody, Scene, fits_between
from spineimg.vertebra.candidates import SACRUM, SOFT_CODES, Candidate, SpineSettings, gap_mm, rough_between, slice_mm
from spineimg.vertebra.chain import Disc, Face, Zone
from spineimg.vertebra.column import Column
from spineimg.vertebra.endplate_model import LEAN_PART
from spineimg.vertebra.trust import doubt
from spineimg.volume import CTVolume

_FEWEST_PEERS, _FEWEST_BANDS = 4, 2


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
            and is_unclear(one)
            and any(0 <= j < len(found) and found[j].reason is None for j in (i - 1, i + 1))
        ]
        if not doubtful:
            break
        i = doubtful[0]
        tried.add(i)
        found[i] = _held(volume, scene, zones, found, i, _near(found, i, believed=True)[:4], settings)
    # Where no one is clear (bridged discs), all around it together still tell how endplates stand.
    unclear = [i for i, one in enumerate(found) if is_unclear(one) and i not in tried]
    peers = {i: _near(found, i, believed=False) for i in unclear}
    for i in unclear:
        if len(peers[i]) >= _FEWEST_PEERS:
            found[i] = _held(volume, scene, zones, candidates, i, peers[i], settings)
    apart = slice_mm(volume)
    found = _by_bands(scene, found, apart, settings)
    return _witnessed(found, settings) if apart > settings.thick_mm else found


def _witnessed(candidates: list[Candidate], settings: SpineSettings) -> list[Candidate]:
    """Held bodies are believed where enough of those that held them stand by themselves."""
    text = "in slices as thick as these too few of the bodies beside it are clear by themselves"
    found = list(candidates)
    for i, one in enumerate(candidates):
        near = _near(candidates, i, believed=True)
        clear = sum(not candidates[j].held for j in near)
        if one.held and one.reason is None and clear < settings.witnesses:
            found[i] = replace(one, reason=("uncertain", text))
    return found


def _by_bands(scene: Scene, candidates: list[Candidate], apart_mm: float, settings: SpineSettings) -> list[Candidate]:
    """Bodies that are still unclear, between the edges of bright bands (ossified discs), where several such agree."""
    if apart_mm > settings.bands_mm:
        return candidates
    read = _read_bands(scene, candidates, candidates, apart_mm)
    # Once more, held to the way of what was read: fits that mean nothing held the first reading.
    read = _read_bands(scene, candidates, read, apart_mm)
    found = list(candidates)
    for i, one in enumerate(read):
        near = [fit for fit in (read[j].fit for j in _near(read, i, believed=True)) if fit is not None]
        if one is candidates[i] or one.fit is None or len(near) < _FEWEST_BANDS:
            continue
        reason = (
            _strayed(scene.column, one.fit, candidates[i], replace(settings, held_move_mm=settings.bands_move_mm))
            or _disagreement(scene.column, one.fit, near, settings)
            or _crossing(one.fit, read, i, settings)
        )
        found[i] = one if reason is None else candidates[i]
    return found


def _read_bands(
    scene: Scene, candidates: Sequence[Candidate], around: Sequence[Candidate], apart_mm: float
) -> list[Candidate]:
    """The candidates, what is unclear among them read from the edges of bands, held to how others stand `around` it."""
    read = list(candidates)
    for i, one in enumerate(candidates):
        near = _near(around, i, believed=True)
        near = near if len(near) >= _FEWEST_BANDS else _near(around, i, believed=False)
        fits = [fit for fit in (around[j].fit for j in near) if fit is not None]
        if not is_unclear(one) or one.fit is None or len(fits) < _FEWEST_BANDS:
            continue
        usual = np.median(np.concatenate([_rises(scene.column, fit.body) for fit in fits]), axis=0)
        fit = banded(scene, one.fit.frame, (one.below, one.above), apart_mm, usual)
        if fit is not None:
            read[i] = replace(one, fit=fit, reason=None, held=True)
    return read


def is_unclear(one: Candidate) -> bool:
    """Whether neighbours, or a second look, may outweigh why it is not believed."""
    return one.reason is not None and one.reason[0] in SOFT_CODES


def _near(candidates: Sequence[Candidate], i: int, *, believed: bool) -> list[int]:
    """Neighbours with a fit within three levels, nearest first; believed: only those that are."""
    near = sorted((j for j in range(len(candidates)) if 0 < abs(j - i) <= 3), key=lambda j: abs(j - i))
    fits = [j for j in near if candidates[j].fit is not None]
    return [j for j in fits if candidates[j].reason is None or (not believed and is_unclear(candidates[j]))]


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
    # The disc on the sacrum is wedged: L5's lower endplate stands more steeply than any above it.
    more = settings.lumbosacral_deg if i > 0 and candidates[i - 1].reason == SACRUM else 0.0
    lower = rise + np.array([0.0, np.tan(np.radians(more))])
    discs = (_leaning(one.below, lower / LEAN_PART), _leaning(one.above, rise / LEAN_PART))
    endplates = replace(
        settings.body.endplates, tilt_sd_deg=settings.held_tilt_deg, height_sd_mm=settings.held_height_mm
    )
    held = replace(settings.body, endplates=endplates)
    height = float(np.median([fit.found.height for fit in neighbours]))
    rough = rough_between(zones, scene.column, one.below, one.above)
    usual = height * float(np.sqrt(rough.area_mm2))
    first: Candidate | None = None
    try:
        # Another start may lead to the right valley, or out of it.
        for fit in fits_between(volume, scene, rough, discs, usual, held):
            reason = (
                _strayed(scene.column, fit, one, settings)
                or _leant(scene.column, fit, one, np.stack([rise, lower]), settings)
                or _disagreement(scene.column, fit, neighbours, settings)
                or _crossing(fit, candidates, i, settings)
            )
            first = first or Candidate(one.below, one.above, fit, reason, held=True)
            if reason is None:
                return Candidate(one.below, one.above, fit, None, held=True)
    except BodyNotFoundError as error:
        return replace(one, reason=(error.code, str(error)))
    return first or one


def _crossing(
    fit: FittedBody, candidates: Sequence[Candidate], i: int, settings: SpineSettings
) -> tuple[str, str] | None:
    """(code, reason) when a body cuts into a believed neighbour."""
    for j in (i - 1, i + 1):
        other = candidates[j].fit if 0 <= j < len(candidates) and candidates[j].reason is None else None
        if other is not None and gap_mm(*((other, fit) if j < i else (fit, other))) < -settings.overlap_mm:
            return "neighbours_contradict", "its endplate cuts into the next body"
    return None


def _rises(column: Column, body: Body) -> FloatArray:
    """(2, 2) rise per mm to left and back of both endplates against the column."""
    rises = []
    for end in (body.superior, body.inferior):
        row, normal = _row(column, end.point_lps_mm), end.normal_lps
        up = float(normal @ column.cranial_lps[row])
        rises.append([-float(normal @ side[row]) / up for side in (column.left_lps, column.posterior_lps)])
    return np.array(rises)


def _row(column: Column, point_lps_mm: FloatArray) -> int:
    """The step of the column at the height of a point."""
    away = np.einsum("ij,ij->i", point_lps_mm - column.middle_lps_mm, column.cranial_lps)
    return int(np.argmin(np.abs(away)))


def _leaning(disc: Disc, rise: FloatArray) -> Disc:
    def turned(face: Face) -> Face:
        return replace(face, rise_left=float(rise[0]), rise_posterior=float(rise[1]))

    return Disc(turned(disc.lower), turned(disc.upper), disc.score)


def _strayed(column: Column, fit: FittedBody, one: Candidate, settings: SpineSettings) -> tuple[str, str] | None:
    """(code, reason) when a held fit left what it was held to (in a bridged column the next bright band attracts it),
    or when the voxels speak against it."""
    body = fit.body
    for end, face in ((body.superior, one.above.lower), (body.inferior, one.below.upper)):
        row = _row(column, end.point_lps_mm)
        rest = float((end.point_lps_mm - column.middle_lps_mm[row]) @ column.cranial_lps[row])
        if abs(column.arc_mm[row] + rest - face.arc_mm) > settings.held_move_mm:
            return "endplates_unclear", "an endplate lies elsewhere than the disc that was found with the others"
    if abs(fit.top.bone_hu - fit.bottom.bone_hu) > settings.held_bone_hu:
        text = "the bone at one of its endplates is much denser than at the other: part of the disc may be in it"
        return "endplates_contradict", text
    for own, held in ((one.fit.top, fit.top), (one.fit.bottom, fit.bottom)) if one.fit is not None else ():
        certain = own.tilt_sd_deg < settings.body.trust.tilt_sd_deg
        if certain and own.explained - held.explained > settings.held_loss:
            return "endplates_contradict", "an endplate does not stand as those of its neighbours: look for a fracture"
    return None


def _leant(
    column: Column, fit: FittedBody, one: Candidate, rises: FloatArray, settings: SpineSettings
) -> tuple[str, str] | None:
    """(code, reason) when an endplate leans far from the `rises` (2, 2) that it was held to, and was not certain by
    itself: then something else than an endplate drew it."""
    away = np.degrees(np.arctan(np.linalg.norm(_rises(column, fit.body) - rises, axis=1)))
    own = (one.fit.top, one.fit.bottom) if one.fit is not None else (None, None)
    for lean, end in zip(away, own, strict=True):
        unclear = end is None or end.tilt_sd_deg > settings.body.trust.tilt_sd_deg
        if unclear and lean > settings.held_lean_deg:
            return "endplates_unclear", "an endplate is drawn far from where its neighbours' would have it"
    return None


def _disagreement(
    column: Column, fit: FittedBody, neighbours: Sequence[FittedBody], settings: SpineSettings
) -> tuple[str, str] | None:
    """(code, reason) when a body does not go with its neighbours; None when they speak for it."""
    body, found = fit.body, fit.found
    others = [other.body for other in neighbours]
    for name in ("width_mm", "depth_mm", "height_mm"):
        sizes = [getattr(other, name) for other in others]
        # Beyond the end of a row the nearest is more alike than the others: bodies grow towards the feet.
        ratios = [getattr(body, name) / size for size in (float(np.median(sizes)), sizes[0])]
        ratio = min(ratios, key=lambda one: abs(np.log(max(one, 0.01))))
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
        tilt_sd_deg=np.inf,  # the tilt is the neighbours'
        convex_tilt_sd_deg=np.inf,
        oddities=settings.held_oddities,
    )
    return doubt(found, lines)
