"""Names for the bodies of a spine: counted from named clicks, or from the sacrum upwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from spineimg.anatomy import order, parse_level
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.notes import Note
from spineimg.rois import RoiSet, VertebraRoi
from spineimg.vertebra.body import Body, BodyNotFoundError, agree
from spineimg.vertebra.candidates import SpineSettings
from spineimg.vertebra.click import Clicks, ClickSettings
from spineimg.vertebra.spine import SAME_DEG, SAME_MM, Spine, find_spine, search_spine
from spineimg.volume import CTVolume, keeping

_COUNTS = tuple(product((5, 6, 4), (12, 13, 11)))
"""Numbers of lumbar and thoracic vertebrae, the usual ones first (Tins 2016: 5-6 lumbar; 14 % have other ribs)."""
_MOST_LUMBAR = 6


@dataclass(frozen=True, eq=False, slots=True)
class NamedBody:
    """A body and its level. confirmed: the name rests on a person's click. held: its fit leans on its neighbours."""

    level: str
    body: Body
    confirmed: bool
    held: bool


@dataclass(frozen=True, eq=False, slots=True)
class NamedSpine:
    """Bodies from head to foot, without a gap; `unnamed` are bodies that nothing tells the names of, gaps among them.
    notes: why the list ends, and what is doubtful."""

    vertebrae: tuple[NamedBody, ...]
    unnamed: tuple[Body, ...]
    notes: tuple[Note, ...]
    spine: Spine

    def rois(self) -> RoiSet:
        """One click a body."""
        return RoiSet(
            tuple(VertebraRoi(one.level, one.body.center_lps_mm, confirmed=one.confirmed) for one in self.vertebrae)
        )


def name_spine(
    volume: CTVolume,
    seed: Mapping[str, npt.ArrayLike] | None = None,
    settings: SpineSettings | None = None,
    *,
    clicks: Clicks | None = None,
) -> NamedSpine:
    """All bodies of the spine that are found, with their levels.

    seed: level -> (3,) LPS mm of a point inside that body; several settle how many vertebrae a region has. Without one
    the spine is searched for and named from the sacrum upwards, unconfirmed; where no sacrum is seen, nothing is named.
    clicks: of this volume and these settings, for whoever clicks on: the spine is solved once.
    Raises BodyNotFoundError when the body of the first seed is not believed or there is no spine, RoiError for seeds
    that contradict each other, SeriesError for a series whose geometry does not allow measuring, PixelError.
    """
    volume.require_usable()
    volume, chosen = keeping(volume), settings or SpineSettings()
    clicks = (clicks or Clicks.of(volume, ClickSettings(body=chosen.body), whole=True)).reading(volume)
    if not seed:
        return _reachable(clicks, _from_sacrum(search_spine(volume, chosen, solve=clicks.solve)), None)
    seeds = {parse_level(level): np.asarray(point, dtype=np.float64) for level, point in seed.items()}
    first = next(iter(seeds))
    spine = find_spine(volume, seeds[first], chosen, beside=True, solve=clicks.solve)
    told = {spine.start: first}
    for level in list(seeds)[1:]:
        at = _index(spine, seeds[level])
        if at in told:
            raise RoiError(f"the seeds {told[at]} and {level} lie in one vertebra: keep one")
        told[at] = level
    named = _named(spine, told, confirmed=True)
    if 0 <= spine.start < len(spine.bodies):
        return _reachable(clicks, named, first)
    text = f"the image cuts {first}, which the seed names: it names its neighbours and is not listed itself"
    nearest = named.vertebrae[-1 if spine.start < 0 else 0].level
    return _reachable(clicks, replace(named, notes=(*named.notes, Note("seed_cut", text, nearest))), nearest)


def _reachable(clicks: Clicks, named: NamedSpine, first: str | None) -> NamedSpine:
    """The bodies around `first` (else the longest run) that a click at their own centre gives again.

    Whoever measures the list clicks there. Raises BodyNotFoundError when `first` is none of them.
    """
    runs: list[list[NamedBody]] = [[]]
    for one in (_found_again(clicks, listed) for listed in named.vertebrae):
        if one is not None:
            runs[-1].append(one)
        elif runs[-1]:
            runs.append([])
    run = max(runs, key=len) if first is None else next((r for r in runs if first in [one.level for one in r]), [])
    if first is not None and not run:
        raise BodyNotFoundError("not_found_again", "a click at the centre of the body does not give it again")
    levels, kept = [one.level for one in named.vertebrae], [one.level for one in run]
    notes = [note for note in named.notes if not note.about or note.about in kept]
    for place, end, beyond in (("above", 0, -1), ("below", -1, 1)):
        if run and 0 <= levels.index(kept[end]) + beyond < len(levels):
            text = f"{place} it the list ends (not_found_again): a click at the centre of the next body finds another"
            notes.append(Note(f"stopped_{place}", text, kept[end]))
    return NamedSpine(tuple(run), named.unnamed, tuple(notes), named.spine)


def _found_again(clicks: Clicks, one: NamedBody) -> NamedBody | None:
    """The body as a click at its centre gives it: another fit only when it is no poorer, and a click at that one's
    centre agrees."""
    try:
        again = clicks.body(one.body.center_lps_mm)
        if agree(again, one.body, SAME_DEG, SAME_MM):
            return one
        third = clicks.body(again.center_lps_mm)
    except BodyNotFoundError:
        return None
    better = again.quality >= one.body.quality and agree(third, again, SAME_DEG, SAME_MM)
    return replace(one, body=again) if better else None


def _index(spine: Spine, point: FloatArray) -> int:
    """Which body holds a further seed. Raises BodyNotFoundError when none of the list does."""
    for i, body in enumerate(spine.bodies):
        local = (point - body.center_lps_mm) @ body.axes.T
        if abs(local[2]) < body.height_mm / 2 and np.hypot(*local[:2]) < body.width_mm / 2:
            return i
    raise BodyNotFoundError(
        "seed_not_reached", f"the seed {np.round(point, 1).tolist()} lies in none of the bodies that hang together"
    )


def _from_sacrum(spine: Spine) -> NamedSpine:
    if not spine.sacrum:
        text = "the sacrum is not seen below the lowest body, so that nothing tells the names: give a seed"
        every = sorted((*spine.bodies, *spine.beyond), key=lambda one: -float(one.center_lps_mm[2]))
        return NamedSpine((), tuple(every), (Note("no_sacrum", text), *_ends(spine, "", "")), spine)
    return _named(spine, {0: "L5"}, confirmed=False)


def _named(spine: Spine, known: Mapping[int, str], *, confirmed: bool) -> NamedSpine:
    """Levels counted from the known ones, under the first usual number of vertebrae that holds them all."""
    count = len(spine.bodies)
    for lumbar, thoracic in _COUNTS:
        names = _sequence(lumbar, thoracic)
        if not all(level in names for level in known.values()):
            continue
        offsets = {names.index(level) - i for i, level in known.items()}
        if len(offsets) == 1:
            break
    else:
        told = ", ".join(f"{level} (body {i + 1} of {count} from below)" for i, level in sorted(known.items()))
        raise RoiError(f"the seeds contradict each other: {told}")
    offset = offsets.pop()
    found: list[NamedBody] = []
    extra: list[Body] = []
    for i, (body, held) in enumerate(zip(spine.bodies, spine.held, strict=True)):
        if 0 <= i + offset < len(names):
            found.append(NamedBody(names[i + offset], body, confirmed, held))
        elif i + offset == -1 and lumbar < _MOST_LUMBAR and not held:
            found.append(NamedBody(f"L{lumbar + 1}", body, confirmed, held))
        else:
            extra.append(body)
    found.reverse()
    notes = (*_ends(spine, found[0].level, found[-1].level), *_doubts(spine, found, confirmed))
    notes += tuple(
        Note("from_neighbours", "its own endplates are unclear: they were held to those of its neighbours", one.level)
        for one in found
        if one.held
    )
    return NamedSpine(tuple(found), tuple(extra), notes, spine)


def _sequence(lumbar: int, thoracic: int) -> list[str]:
    """Levels from the lowest upwards."""
    names = [
        *(f"C{n}" for n in range(1, 8)),
        *(f"T{n}" for n in range(1, thoracic + 1)),
        *(f"L{n}" for n in range(1, lumbar + 1)),
    ]
    return names[::-1]


def _ends(spine: Spine, top: str, bottom: str) -> tuple[Note, Note]:
    """Why the list ends."""
    return (
        Note("stopped_above", f"above it the list ends ({spine.above[0]}): {spine.above[1]}", top),
        Note("stopped_below", f"below it the list ends ({spine.below[0]}): {spine.below[1]}", bottom),
    )


def _doubts(spine: Spine, found: list[NamedBody], confirmed: bool) -> list[Note]:
    notes = []
    levels = [one.level for one in found]
    if not confirmed:
        text = "names were counted from the sacrum upwards, which sixth lumbar vertebrae and the like mislead: confirm"
        notes.append(Note("names_unconfirmed", text))
    lowest = levels[-1]
    if lowest == "L6":
        notes.append(Note("sixth_lumbar", "a sixth lumbar vertebra was counted: check the numbering", lowest))
    elif spine.sacrum and confirmed and lowest != "L5":
        text = (
            f"below {lowest} lies what looks like the sacrum: the numbering is unusual, the named level is wrong, or a "
            "body between them was not found"
        )
        notes.append(Note("unusual_count", text, lowest))
    if any(order(level) <= order("T12") for level in levels) and any(level[0] == "L" for level in levels):
        text = "names across the thoracolumbar junction rest on the usual number of vertebrae: check against the ribs"
        notes.append(Note("count_assumed", text))
    return notes
