"""The bodies that may lie between the discs of a chain, each fitted and judged by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from spineimg.settings import setting
from spineimg.vertebra.body import BodyNotFoundError, BodySettings, FittedBody, Scene, fit_between
from spineimg.vertebra.chain import Chain, Disc, Zone
from spineimg.vertebra.column import Column
from spineimg.vertebra.sacrum import wings
from spineimg.vertebra.trust import doubt
from spineimg.vertebra.walls import Outline
from spineimg.volume import CTVolume


@dataclass(frozen=True, slots=True)
class SpineSettings:
    """When neighbours' agreement makes up for an unclear fit, and what ends the spine."""

    body: BodySettings = field(default_factory=BodySettings)
    reach_mm: float = setting(
        700.0, "mm", (100, 900), "a spine from atlas to sacrum: up to 650 mm", "how far from the seed to feet and head"
    )
    held_tilt_deg: float = setting(
        2.0,
        "degree",
        (0.5, 6),
        "engineering choice",
        "SD of endplates' tilt against the neighbours' where it is unclear",
    )
    held_height_mm: float = setting(
        0.8,
        "mm",
        (0.3, 3),
        "engineering choice",
        "SD of endplates' place against the discs of the chain, where unclear",
    )
    held_move_mm: float = setting(
        4.0, "mm", (1, 10), "as TrustSettings.move_mm", "and how far it may end from the disc of the chain"
    )
    held_lean_deg: float = setting(
        8.0,
        "degree",
        (3, 30),
        "three standard deviations: 2-3 degrees in two public scans",
        "and how far one of uncertain tilt may end from the tilt it is held to",
    )
    held_bone_hu: float = setting(
        130.0,
        "HU",
        (30, 500),
        "engineering choice: 92 HU at most in right ones on phantoms, a wrong one in an ossified column 186",
        "largest difference of the bone at its two endplates",
    )
    held_loss: float = setting(
        0.12,
        "1",
        (0.02, 0.5),
        "engineering choice: 0.05 in right ones on phantoms, 0.11 on scans, 0.22 in a wedge fracture held straight",
        "holding an endplate of certain tilt to the neighbours' way may lose so much of the explained variation",
    )
    held_oddities: int = setting(
        3, "", (0, 10), "engineering choice: a bridged disc at either side", "most odd numbers of its endplate fits"
    )
    size: float = setting(
        0.2, "1", (0.05, 0.5), "neighbours differ by up to 15 %", "largest difference from the neighbours' size"
    )
    turn_deg: float = setting(
        12.0, "degree", (5, 30), "engineering choice", "largest angle between a body's axis and its neighbours'"
    )
    wedge_deg: float = setting(
        13.0, "degree", (5, 30), "L5 is wedged by 5-12 degrees more than L4", "largest difference of wedge from theirs"
    )
    overlap_mm: float = setting(
        1.5, "mm", (0, 3), "engineering choice", "endplates of neighbours may cross by so much, no more"
    )
    held_quality: float = setting(
        0.62, "1", (0, 1), "engineering choice", "least quality of a body that its neighbours speak for"
    )
    held_wall: float = setting(0.55, "1", (0, 1), "engineering choice", "and least support of its wall")
    bands_move_mm: float = setting(
        6.0,
        "mm",
        (1, 10),
        "engineering choice: half a high disc",
        "and how far bands may lie from the disc of the chain",
    )
    bands_mm: float = setting(
        4.0,
        "mm",
        (0, 5),
        "measured on phantoms: 98 % of tilts within 8 degrees at 3 mm, 12 at 4.8 mm",
        "with thicker slices no body is read from the bands of ossified discs",
    )
    lumbosacral_deg: float = setting(
        8.5,
        "degree",
        (0, 15),
        "L5 is wedged by 5-12 degrees more than L4",
        "so much more steeply than its neighbours' the lower endplate of a held body on the sacrum is thought to stand",
    )
    lowest_wedge_deg: float = setting(
        0.0, "degree", (-10, 15), "L5 is higher in front by 5-20 degrees", "largest wedge of the body on the sacrum"
    )
    wings: float = setting(
        0.3,
        "1",
        (0.1, 0.9),
        "measured: 0.0-0.28 beside L5",
        "part of bone at either side of the body from which on it is the sacrum",
    )
    thick_mm: float = setting(
        4.0,
        "mm",
        (0.5, 5.0),
        "measured on phantoms (docs/body.md): at 3 mm neighbours are certain enough, at 4.8 mm not all",
        "with slices farther apart or thicker the two next settings count",
    )
    clear_tilt_deg: float = setting(
        1.5,
        "degree",
        (0.5, 3.0),
        "measured on phantoms: at 4.8 mm 3 of 7 bodies with more were wrong",
        "bodies stand by themselves with a standard error of tilt below it; the others are held to the tilt of these",
    )
    witnesses: int = setting(
        2,
        "",
        (1, 6),
        "measured on phantoms: a row of bodies held to a single one stands up to 10 degrees off",
        "at least so many neighbours within three levels must stand by themselves",
    )


def for_slices(settings: SpineSettings, slice_mm: float) -> SpineSettings:
    """The settings for slices so thick: where they are thick, fewer bodies stand by themselves."""
    if slice_mm <= settings.thick_mm:
        return settings
    trust = replace(settings.body.trust, tilt_sd_deg=min(settings.body.trust.tilt_sd_deg, settings.clear_tilt_deg))
    return replace(settings, body=replace(settings.body, trust=trust))


def slice_mm(volume: CTVolume) -> float:
    """Distance or thickness of slices, whichever is more."""
    return max(volume.geometry.spacing_mm[0], volume.acquisition.slice_thickness_mm or 0.0)


SOFT_CODES = frozenset(
    {"uncertain", "endplates_unclear", "neighbours_contradict", "endplates_contradict", "walls_unclear", "not_a_body"}
)
"""Reasons of refusal that neighbours may outweigh."""
SACRUM = ("sacrum", "the sacrum begins")


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


def candidates_of(
    volume: CTVolume, scene: Scene, zones: Sequence[Zone], chain: Chain, settings: SpineSettings
) -> list[Candidate]:
    """Every body between two discs of the chain, judged by itself; of the sacrum, below the start, one, unfitted."""
    pairs = list(zip(chain.height_mm, pairwise(chain.discs), strict=False))
    sacral = [
        i
        for i, (_, (below, above)) in enumerate(pairs)
        if above.lower.arc_mm < 0 and wings(scene.crop, scene.column, below, above) >= settings.wings
    ]
    first = max(sacral, default=-1)
    found = [Candidate(*pairs[first][1], None, SACRUM)] if sacral else []
    for height, (below, above) in pairs[first + 1 :]:
        rough = rough_between(zones, scene.column, below, above)
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
        if lower.fit is None or upper.fit is None or gap_mm(lower.fit, upper.fit) > -settings.overlap_mm:
            continue
        poorer = i if lower.fit.body.quality < upper.fit.body.quality else i + 1
        reason = found[poorer].reason or ("neighbours_contradict", "its endplate cuts into the next body")
        found[poorer] = replace(found[poorer], reason=reason)
    return found


def gap_mm(lower: FittedBody, upper: FittedBody) -> float:
    """Least height of the disc between two bodies within two thirds of the way to their walls."""
    top, bottom = lower.body.superior, upper.body.inferior
    way = (top.normal_lps + bottom.normal_lps) / np.linalg.norm(top.normal_lps + bottom.normal_lps)
    ring = 0.67 * lower.body.outline_mm @ lower.body.axes[:2]
    places = np.concatenate([np.zeros((1, 3)), ring]) + top.point_lps_mm
    heights = [((p.point_lps_mm - places) @ p.normal_lps) / (way @ p.normal_lps) for p in (bottom, top)]
    return float(np.min(heights[0] - heights[1]))


def rough_between(zones: Sequence[Zone], column: Column, below: Disc, above: Disc) -> Outline:
    row = column.row_at((below.upper.arc_mm + above.lower.arc_mm) / 2)
    return next(zone.outline for zone in zones if zone.first <= row < zone.last)
