"""Finds every pedicle screw and rod of a scan, and says what the rest of the metal is.

The way: metal map, tubes in it, then the question what each tube is. A rod runs along the spine and carries screws. A
screw's shaft points forward from a head or a rod, ends in bone, and is no thicker or longer than screws are. What is
neither is other metal (`other.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spineimg.anatomy import Side
from spineimg.geometry import FloatArray
from spineimg.implants.axis import STARVED_MM, ShaftFit, SideFit, fit_piece, fit_shaft, with_shared_thread
from spineimg.implants.breach import surface_of
from spineimg.implants.breaks import shaft_gaps
from spineimg.implants.detect_settings import DetectSettings
from spineimg.implants.given import Candidate, GivenScrew, distinct_screws, not_given, refined
from spineimg.implants.holder import may_hold
from spineimg.implants.levels import KnownVertebra, level_of, reading_order, sides_of
from spineimg.implants.lone import stands_alone
from spineimg.implants.metal_map import MetalMap, map_metal
from spineimg.implants.model import Gap, OtherMetal, Progress, Rod, Shaft, Vector
from spineimg.implants.other import Construct, other_metal
from spineimg.implants.psf import Psf, estimate_psf, usual_psf
from spineimg.implants.rod_ends import RodTrace, at_breaks, distinct, join_traces, parted
from spineimg.implants.rods import RodLine, RodPieces, any_bare, finish_rod, rod_pieces, trace_rod
from spineimg.implants.tubes import (
    Cloud,
    End,
    Tube,
    cloud_of,
    find_tubes,
    join_tubes,
    line_direction,
    narrow_parts,
    without_tulips,
)
from spineimg.notes import Note
from spineimg.volume import CTVolume

_COBALT_CHROME_HU = 17000.0
"""What cobalt-chrome reads at 120 kVp in a polychromatic simulation; steel reads 12000-13500 HU."""
_CONSTRUCT_MM3 = 5000.0
"""Four screws and two rods have 15000 mm³ and more. Engineering choice."""
_UNTOLD_MM3 = 3000.0
"""Two screws of 5 x 35 mm and their heads. Engineering choice."""
_ONE_HEAD_MM = 5.0
"""Two screws' heads are farther apart. Engineering choice: the smallest tulips are 8 mm wide."""
_MAY_HIDE = ("implant", "connector", "crosslink")
"""Kinds of other metal that screws melted together can pass for."""
_ROUGH_MM = 0.8
"""Farther only shafts of steel and cobalt-chrome, and few of titanium, are drawn out. Phantoms: their axes are up to 9
degrees off, their tips 5 mm."""
_EDGE_MM = 2.0
"""A screw that ends this near to the image's edge may go on beyond it. Engineering choice: two voxels and the blur."""
_STUB_REACH_MM = 30.0
"""Ends of the pieces of one rod that broke beside a head lie within this of each other: a head, a gap, some stub."""


@dataclass(frozen=True, eq=False, slots=True)
class FoundScrew:
    """A screw before anything is said about its bone. fit: how the shaft was found, for those who measure around it."""

    id: str
    shaft: Shaft
    fit: ShaftFit
    level: str | None = None
    side: Side | None = None
    gaps: tuple[Gap, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Metal:
    """All metal of a scan. clipped: the scale ends below the metal's own HU. map: its voxels and the cut-outs around
    them. psf: the blur of the scan. Screws come from head to foot, left first."""

    screws: tuple[FoundScrew, ...]
    rods: tuple[Rod, ...]
    other_metal: tuple[OtherMetal, ...]
    psf: Psf
    clipped: bool
    map: MetalMap
    notes: tuple[Note, ...] = ()

    @property
    def shafts(self) -> tuple[Shaft, ...]:
        return tuple(screw.shaft for screw in self.screws)


def find_metal(
    volume: CTVolume,
    progress: Progress | None = None,
    settings: DetectSettings | None = None,
    vertebrae: Sequence[KnownVertebra] = (),
    given: Sequence[GivenScrew] = (),
) -> Metal:
    """Screws, rods and other metal of a scan.

    vertebrae: those whose place is known, for the levels. given: screws marked by hand; then these are the screws, each
    refined by the same fit. `progress` gets 0-1 and cancels by raising; what reading the scan raises passes through.
    """
    chosen = settings or DetectSettings()
    tell = progress or (lambda part, what: None)
    metal = map_metal(volume, lambda part, what: tell(0.6 * part, what), chosen.map)
    usual = usual_psf(volume.geometry, volume.acquisition)
    tell(0.6, "following shafts and rods")
    traced = _traced(metal, cloud_of(metal), usual, given, chosen, tell)
    if metal.scale_end_hu is not None and _untold_mm3(traced.rest) >= _UNTOLD_MM3:
        tell(0.85, "following what streaks join")
        again = _traced(metal, cloud_of(metal, chosen.tubes.peel_mm), usual, given, chosen, tell)
        traced = again if _tells_more(again, traced, chosen) else traced
    tell(0.95, "naming screws and rods")
    named, rods = _named(metal, traced.screws, traced.lines, vertebrae, traced.psf, chosen)
    fits = [screw.fit for screw in traced.screws]
    notes = (
        *_notes(metal, chosen),
        *traced.notes,
        *_construct_notes(named),
        *_clipped_notes(metal, fits, traced.psf),
        *_unresolved_notes(fits, traced.rest),
    )
    clipped = any(fit.edge.clipped for fit in fits)
    tell(1.0, "metal found")
    return Metal(named, rods, traced.rest, traced.scan_psf, clipped, metal, notes)


@dataclass(frozen=True, eq=False, slots=True)
class _Traced:
    """What following one cloud led to. psf: the blur that fits used; scan_psf: the scan's own. rest: other metal."""

    screws: tuple[Candidate, ...]
    lines: tuple[RodLine, ...]
    psf: Psf
    scan_psf: Psf
    rest: tuple[OtherMetal, ...]
    notes: tuple[Note, ...]


def _traced(
    metal: MetalMap, cloud: Cloud, usual: Psf, given: Sequence[GivenScrew], settings: DetectSettings, tell: Progress
) -> _Traced:
    """Shafts and rods along the tubes of a cloud, fitted to the image."""
    steep, flat = _sorted_by_slope(find_tubes(cloud, settings.tubes), settings)
    thinnest, thickest = settings.rod_radius_mm
    rods = [rod for rod in _along_spine(metal, steep, settings) if thinnest <= rod.radius_mm <= thickest]
    shafts = join_tubes([without_tulips(tube) for tube in flat], 8.0, 2.0, 15.0)
    tubes_of_rods = [(rod, rod_pieces(metal, rod, usual, settings.axis)) for rod in rods]
    tubes_of_rods = [one for one in tubes_of_rods if _is_round(metal, one[1], settings)]
    found, psf, scan_psf = _fitted(metal, shafts, tubes_of_rods, usual, settings)
    tell(0.85, "measuring screws and rods")
    screws, notes = [Candidate(fit) for fit in found], list[Note]()
    if given:
        screws, twice = distinct_screws([refined(metal, screw, psf, settings.axis) for screw in given])
        notes = [*twice, *not_given(found, given)]
    fits = with_shared_thread([screw.fit for screw in screws])
    screws = [replace(screw, fit=fit) for screw, fit in zip(screws, fits, strict=True)]
    lines = _rods(metal, tubes_of_rods, fits, psf, settings)
    rest = other_metal(metal, _construct(fits, lines))
    return _Traced(tuple(screws), tuple(lines), psf, scan_psf, rest, tuple(notes))


def _tells_more(again: _Traced, before: _Traced, settings: DetectSettings) -> bool:
    """Whether a second look found screws of a construct in metal that the first left untold.

    Only constructs are joined so: teeth and cages, taken apart, can look like a screw that no rod holds.
    """

    def free(traced: _Traced) -> int:
        return sum(_rod_of(screw.fit, traced.lines, settings.seat_mm) is None for screw in traced.screws)

    more = len(again.screws) > len(before.screws) and free(again) <= free(before)
    return more and _untold_mm3(again.rest) < _untold_mm3(before.rest)


def _untold_mm3(rest: Sequence[OtherMetal]) -> float:
    """The largest piece of metal that may hide screws."""
    return max((metal.volume_mm3 for metal in rest if metal.kind in _MAY_HIDE), default=0.0)


def _along_spine(metal: MetalMap, steep: list[Tube], settings: DetectSettings) -> list[Tube]:
    """Tubes that may be rods, each from its pieces."""
    parts = [part for tube in steep for narrow in narrow_parts(tube) for part in at_breaks(narrow)]
    joined = join_tubes(parts, settings.rod_gap_mm, 2.5, 35.0)
    return [part for tube in joined for part in parted(metal, tube, settings.breaks.widest_mm)]


def _is_round(metal: MetalMap, cylinders: RodPieces, settings: DetectSettings) -> bool:
    """Whether a tube that may be a rod, once fitted, is neither a nail nor a plate: no thicker than rods are, and one
    of its pieces bare. Where none of it could be fitted nothing is known."""
    radii = [piece.radius_mm for piece in cylinders.fits]
    return not radii or (float(np.median(radii)) <= settings.rod_fitted_mm and any_bare(metal, cylinders))


def _fitted(
    metal: MetalMap,
    flat: Sequence[Tube],
    tubes_of_rods: Sequence[tuple[Tube, RodPieces]],
    usual: Psf,
    settings: DetectSettings,
) -> tuple[list[ShaftFit], Psf, Psf]:
    """The shafts, the blur that their fits used, and the scan's own.

    First only the sides are fitted, which tell the blur. The two differ for dense metal, whose shafts are smeared.
    """
    rods = [tube for tube, _ in tubes_of_rods]
    likely = [tube for tube in map(_from_head, flat) if _may_be_screw(tube, rods, settings)]
    sides = [_side(metal, tube, usual, settings) for tube in likely]
    pieces = [piece for _, cylinders in tubes_of_rods for piece in cylinders.fits]
    known = [side for side in sides if side is not None]
    scan_psf = estimate_psf(metal, known, usual, pieces)
    psf = estimate_psf(metal, known, usual) if metal.dense else scan_psf
    fits = [
        fit_shaft(metal, tube.end_point(0), tube.end_point(1), side.radius_mm, psf, settings.axis)
        for tube, side in zip(likely, sides, strict=True)
        if side is not None
    ]
    good = [fit for fit in fits if fit is not None and _is_screw(metal, fit, rods, settings)]
    return _apart([fit for fit in good if _is_metal(metal, fit, settings)]), psf, scan_psf


def _apart(fits: Sequence[ShaftFit]) -> list[ShaftFit]:
    """The shafts without those in a longer one's place or at its head: streaks of dense metal can look like a shaft."""
    kept: list[ShaftFit] = []
    for fit in sorted(fits, key=lambda fit: -fit.length_mm):
        heads = [float(np.linalg.norm(fit.head_lps_mm - other.head_lps_mm)) for other in kept]
        if min(heads, default=np.inf) >= _ONE_HEAD_MM and not any(_lies_within(fit, other) for other in kept):
            kept.append(fit)
    return [fit for fit in fits if any(fit is one for one in kept)]


def _lies_within(fit: ShaftFit, other: ShaftFit) -> bool:
    """Whether more than half of a shaft's axis runs inside another's metal."""
    places = other.axis.places(np.linspace(fit.head_lps_mm, fit.tip_lps_mm, 21))
    inside = np.hypot(places[:, 1], places[:, 2]) < other.radius_mm
    inside &= (places[:, 0] > other.head_mm) & (places[:, 0] < other.tip_mm)
    return bool(np.mean(inside) > 0.5)


def _side(metal: MetalMap, tube: Tube, psf: Psf, settings: DetectSettings) -> SideFit | None:
    """A first fit of the part of a shaft that head and tip do not disturb."""
    head, tip = tube.end_point(0), tube.end_point(1)
    length = float(np.linalg.norm(tip - head))
    low = min(settings.axis.head_off_mm, length / 3) / length
    high = 1 - min(settings.axis.tip_off_mm, length / 3) / length
    return fit_piece(metal, head + low * (tip - head), head + high * (tip - head), tube.radius_mm, psf, settings.axis)


def _notes(metal: MetalMap, settings: DetectSettings) -> list[Note]:
    if not metal.overflow:
        return []
    text = f"more than {settings.map.most_voxels} voxels above 2000 HU: not a CT in HU, so that no metal was looked for"
    return [Note("too_much_metal", text)]


def _unresolved_notes(fits: Sequence[ShaftFit], rest: Sequence[OtherMetal]) -> list[Note]:
    """Metal as large as a construct, or as a part of one, that nothing is known of: streaks can join screws to a single
    piece."""
    untold = [metal for metal in rest if metal.kind in _MAY_HIDE and metal.volume_mm3 >= _CONSTRUCT_MM3]
    if not untold:
        return []
    x, y, z = untold[0].center_lps_mm
    what = "no construct, or one that its streaks join"
    if fits:
        what = "a cage or plate, or more screws, which their streaks join"
    text = (
        f"{untold[0].volume_mm3 / 1000:.0f} cm³ of metal hang together around ({x:.0f}, {y:.0f}, {z:.0f}) mm, in "
        f"which no screw could be told: {what}"
    )
    return [Note("metal_unresolved", text)]


def _construct_notes(screws: Sequence[FoundScrew]) -> list[Note]:
    without = [screw.id for screw in screws if screw.side is None]
    if not without:
        return []
    return [Note("side_unknown", f"nothing tells the side of {', '.join(without)}: one rod and no known vertebra")]


def _clipped_notes(metal: MetalMap, fits: Sequence[ShaftFit], psf: Psf) -> list[Note]:
    """What diameters on a clipped scale assume, and what they would be otherwise: the flank of a brighter metal passes
    the same HU farther out."""
    from scipy.special import ndtri

    clipped = [fit for fit in fits if fit.edge.clipped]
    if not clipped or metal.scale_end_hu is None:
        return []
    flank = float(np.mean(clipped[0].edge.flank_hu))
    titanium, heavy = (float(ndtri(1 - flank / hu)) for hu in (clipped[0].edge.metal_hu, _COBALT_CHROME_HU))
    across = np.eye(3) - np.outer(clipped[0].axis.along, clipped[0].axis.along)
    sigma = np.sqrt(np.trace(across @ psf.covariance_mm2(metal.geometry.normal_lps)) / 2)
    text = (
        f"the scale ends at {metal.scale_end_hu:.0f} HU: diameters rest on titanium, and of cobalt-chrome or steel "
        f"would be about {2 * sigma * (heavy - titanium):.1f} mm smaller"
    )
    return [Note("titanium_assumed", text)]


def _rods(
    metal: MetalMap,
    tubes: Sequence[tuple[Tube, RodPieces]],
    fits: Sequence[ShaftFit],
    psf: Psf,
    settings: DetectSettings,
) -> list[RodLine]:
    """The rods that carry screws, measured."""
    held = [one for one in tubes if any(_seat_distance(fit, one[0]) <= settings.seat_mm for fit in fits)]
    # A broken rod's other half may carry no screw.
    beside = [one for one in tubes if one not in held and any(_may_continue(one[0], rod) for rod, _ in held)]
    traces = [trace_rod(metal, *one) for one in (*held, *beside)]
    whole = join_traces([t for t in traces if t is not None], settings.breaks.widest_mm, settings.break_step_mm)
    lines = []
    for trace in distinct(whole):
        seats = [_seat(fit) for fit in fits if _near_line(_seat(fit), trace) <= settings.seat_mm]
        if seats:
            lines.append(finish_rod(metal, trace, np.array(seats), psf, settings.breaks))
    return [line for line in lines if line.length_mm >= settings.least_rod_mm]


def _may_continue(tube: Tube, rod: Tube) -> bool:
    ends = [one.end_point(a) - rod.end_point(b) for one in (tube,) for a in (0, 1) for b in (0, 1)]
    return min(float(np.linalg.norm(way)) for way in ends) <= _STUB_REACH_MM


def _near_line(point: FloatArray, trace: RodTrace) -> float:
    """Distance of a point from a line, lengthened by 15 mm at both ends."""
    line, step = trace.points_lps_mm, np.arange(1, 16)[:, None]
    near = [line[:48][::-1], line[-48:]]
    ends = [part[-1] + step * line_direction(part) for part in near]
    return float(np.linalg.norm(np.concatenate([line[::4], *ends]) - point, axis=1).min())


def _named(
    metal: MetalMap,
    screws: Sequence[Candidate],
    lines: Sequence[RodLine],
    vertebrae: Sequence[KnownVertebra],
    psf: Psf,
    settings: DetectSettings,
) -> tuple[tuple[FoundScrew, ...], tuple[Rod, ...]]:
    """Screws and rods with level, side and id, in the order of the report."""
    heads = np.array([screw.fit.head_lps_mm for screw in screws]).reshape(-1, 3)
    tips = np.array([screw.fit.tip_lps_mm for screw in screws]).reshape(-1, 3)
    rod_of = [_rod_of(screw.fit, lines, settings.seat_mm) for screw in screws]
    known = [level_of(head, tip, vertebrae) for head, tip in zip(heads, tips, strict=True)]
    sides, rod_sides = sides_of(heads, tips, rod_of, [line.points_lps_mm for line in lines], known)
    levels = [s.level or (v.level if v else None) for s, v in zip(screws, known, strict=True)]
    sides = [s.side or side for s, side in zip(screws, sides, strict=True)]
    order = reading_order(heads, tips, sides)
    ids = _ids([screws[n].id for n in order], [levels[n] for n in order], [sides[n] for n in order])
    named = tuple(
        _found(metal, screws[n], rod_of[n], (name, levels[n], sides[n]), psf, settings)
        for name, n in zip(ids, order, strict=True)
    )
    places = [float(line.points_lps_mm[0, 2]) for line in lines]
    by_place = sorted(range(len(lines)), key=lambda n: (rod_sides[n] or "z", -places[n]))
    rod_ids = _rod_ids([rod_sides[n] for n in by_place])
    rods = tuple(
        Rod(name, lines[n].sparse_points(), 2 * lines[n].radius_mm, lines[n].gaps, lines[n].notes)
        for name, n in zip(rod_ids, by_place, strict=True)
    )
    return named, rods


def _found(
    metal: MetalMap,
    screw: Candidate,
    rod: int | None,
    name: tuple[str, str | None, Side | None],
    psf: Psf,
    settings: DetectSettings,
) -> FoundScrew:
    gaps, notes = shaft_gaps(metal, screw.fit, psf, settings.breaks)
    shaft = shaft_of(screw.fit, screw.diameter_mm, screw.notes)
    about = (
        *_held_notes(screw, rod, name[0]),
        *_cut_notes(metal, shaft, name[0]),
        *_dense_notes(metal, screw, name[0]),
        *_thread_notes(screw, name[0]),
    )
    notes = (*screw.notes, *about, *notes)
    return FoundScrew(name[0], shaft, screw.fit, name[1], name[2], gaps, notes)


def _held_notes(screw: Candidate, rod: int | None, name: str) -> list[Note]:
    """A note when no rod was found at the screw, and another when no tulip says that it is one either."""
    if rod is not None or not screw.fit.is_found:
        return []
    if screw.fit.has_head:
        text = "no rod was found at its tulip: it is broken beside it, lies close to another, or there is none"
        return [Note("no_rod", text, name)]
    text = "neither a tulip nor a rod is at its head: a screw without its construct, or other metal of a screw's size"
    return [Note("no_head", text, name)]


def _cut_notes(metal: MetalMap, shaft: Shaft, name: str) -> list[Note]:
    """A note when the image ends at a screw: head, tip and length are then those of what is shown."""
    along = _EDGE_MM * shaft.direction_lps
    head, tip = np.subtract(shaft.head_lps_mm, along), np.add(shaft.tip_lps_mm, along)
    places = {"head": head[None], "tip": tip[None], "side": surface_of(shaft)[1:-1].reshape(-1, 3)}
    last = np.array(metal.geometry.shape) - 1
    index = {place: metal.geometry.index_at(points) for place, points in places.items()}
    cut = [place for place, at in index.items() if not bool(((at >= 0) & (at <= last)).all())]
    if not cut:
        return []
    where = " and ".join(cut)
    text = f"the image ends at its {where}: it may be longer than {shaft.length_mm:.0f} mm, or lie elsewhere"
    return [Note("cut_by_image", text, name)]


def _dense_notes(metal: MetalMap, screw: Candidate, name: str) -> list[Note]:
    """A note when streaks of dense metal, or of starved rays, hide a part of what a screw measures."""
    starved = screw.fit.edge.clipped and screw.fit.smear_mm > STARVED_MM
    if screw.fit.edge.clipped and screw.fit.smear_mm > _ROUGH_MM:
        text = f"starved rays draw it out by {screw.fit.smear_mm:.1f} mm in the slice plane, as steel or cobalt-chrome"
        return [Note("dense_metal", f"{text}: its length, diameter and direction are rough", name)]
    if not starved and (not metal.dense or screw.fit.edge.clipped):
        return []
    if screw.fit.edge.core is None and not starved:
        text = "starved rays smear dense metal in the slice plane, and the slices are too thick to measure beside that"
        return [Note("dense_metal", f"{text}: its length, diameter and direction are rough", name)]
    if screw.fit.thread.crest_mm is None and screw.diameter_mm is None:
        text = "no thread was seen in the streaks of starved rays: the outer diameter may be up to 1.2 mm larger"
        return [Note("dense_metal", text, name)]
    return []


def _thread_notes(screw: Candidate, name: str) -> list[Note]:
    """A note when the thread that the diameter counts with was seen on other screws only."""
    thread = screw.fit.thread
    if thread.crest_mm is None or thread.pitch_mm is not None or screw.diameter_mm is not None:
        return []
    text = "streaks hide its thread: the outer diameter takes the height of the other screws' threads"
    return [Note("thread_of_others", text, name)]


def _ids(own: Sequence[str | None], levels: Sequence[str | None], sides: Sequence[Side | None]) -> list[str]:
    """An id for each screw: its own, "T12-left", or "screw-3" where level or side are unknown; none twice."""
    names: list[str] = []
    for number, (given, level, side) in enumerate(zip(own, levels, sides, strict=True), start=1):
        name = given or (f"{level}-{side.value}" if level and side else f"screw-{number}")
        copies = 2
        while name in names:
            name = f"{name.removesuffix(f'-{copies - 1}') if copies > 2 else name}-{copies}"
            copies += 1
        names.append(name)
    return names


def _rod_ids(sides: Sequence[Side | None]) -> list[str]:
    """ "left", "right"; "left-1", "left-2" from head to foot where a side has several; "rod-1" without a side."""
    names = []
    for n, side in enumerate(sides):
        same = [m for m, other in enumerate(sides) if other is side]
        word = side.value if side else "rod"
        names.append(word if side and len(same) == 1 else f"{word}-{same.index(n) + 1}")
    return names


def _construct(fits: Sequence[ShaftFit], lines: Sequence[RodLine]) -> Construct:
    """What is explained of the metal."""
    shafts = [(np.linspace(f.head_lps_mm, f.tip_lps_mm, 60), f.radius_mm) for f in fits]
    rods = [(line.points_lps_mm[::4], line.radius_mm) for line in lines]
    heads = np.array([f.head_lps_mm - 7.0 * f.axis.along for f in fits]).reshape(-1, 3)
    tips = np.array([f.tip_lps_mm for f in fits]).reshape(-1, 3)
    return Construct((*shafts, *rods), heads, tips)


def _seat(fit: ShaftFit) -> FloatArray:
    """Where about a screw's head holds its rod."""
    return np.asarray(fit.head_lps_mm - 6.0 * fit.axis.along)


def _rod_of(fit: ShaftFit, lines: Sequence[RodLine], reach_mm: float) -> int | None:
    away = [float(np.linalg.norm(line.points_lps_mm - _seat(fit), axis=1).min()) for line in lines]
    return int(np.argmin(away)) if away and min(away) <= reach_mm else None


def shaft_of(fit: ShaftFit, diameter_mm: float | None = None, notes: tuple[Note, ...] = ()) -> Shaft:
    """The record of a fitted shaft. diameter_mm: the nominal one, which goes before the fitted one."""
    return Shaft(
        _vector(fit.head_lps_mm),
        _vector(fit.tip_lps_mm),
        diameter_mm or 2 * fit.outer_radius_mm,
        fit.edge.metal_hu,
        fit.edge.clipped,
        notes,
        fit.smear_mm,
    )


def _vector(point: FloatArray) -> Vector:
    return float(point[0]), float(point[1]), float(point[2])


def _sorted_by_slope(tubes: Sequence[Tube], settings: DetectSettings) -> tuple[list[Tube], list[Tube]]:
    """(tubes that run along the patient, tubes that do not)."""
    steep: list[Tube] = []
    flat: list[Tube] = []
    for tube in tubes:
        along = tube.end_point(1) - tube.end_point(0)
        lean = np.degrees(np.arccos(min(1.0, abs(along[2]) / float(np.linalg.norm(along)))))
        (steep if lean <= settings.rod_angle_deg else flat).append(tube)
    return steep, flat


def _may_be_screw(tube: Tube, rods: Sequence[Tube], settings: DetectSettings) -> bool:
    """Whether a tube, from its head's end, has a shaft's length and direction, and something to hold it."""
    length = float(np.linalg.norm(tube.end_point(1) - tube.end_point(0)))
    if not settings.shaft_mm[0] - 4 <= length <= settings.shaft_mm[1] or not _forward(tube, settings.least_forward):
        return False
    held = tube.ends[0] is not End.FREE or any(_behind(tube, rod) <= settings.seat_mm for rod in rods)
    return held or _forward(tube, settings.lone.least_forward)


def _from_head(tube: Tube) -> Tube:
    """The tube from its head's end: the one in a mass when the other is free, else the one behind."""
    behind = tube.end_point(0)[1] >= tube.end_point(1)[1]
    if (tube.ends[0] is End.FREE) != (tube.ends[1] is End.FREE):
        behind = tube.ends[1] is End.FREE
    return tube if behind else tube.reversed()


def _forward(tube: Tube, least: float) -> bool:
    way = tube.end_point(1) - tube.end_point(0)
    return bool(-way[1] >= least * np.linalg.norm(way))


def _behind(tube: Tube, rod: Tube) -> float:
    """Distance of a rod from the tube's head end, mm."""
    return float(np.min(np.linalg.norm(rod.points_lps_mm - tube.end_point(0), axis=1)))


def _is_screw(metal: MetalMap, fit: ShaftFit, rods: Sequence[Tube], settings: DetectSettings) -> bool:
    thin, thick = settings.shaft_radius_mm
    good = thin <= fit.radius_mm <= thick and settings.shaft_mm[0] <= fit.length_mm <= settings.shaft_mm[1]
    good = good and fit.misfit <= settings.worst_misfit and fit.length_mm <= settings.most_slender * 2 * fit.radius_mm
    if not good:
        return False
    on_rod = any(_seat_distance(fit, rod) <= settings.seat_mm for rod in rods if rod.length_mm >= settings.least_rod_mm)
    if fit.has_head or on_rod:
        return may_hold(metal, fit, on_rod, settings.holder)
    return stands_alone(metal, fit, settings.lone)


def _is_metal(metal: MetalMap, fit: ShaftFit, settings: DetectSettings) -> bool:
    """Whether a shaft's core is as bright as metal is on this scale; cement and contrast medium are not."""
    if not fit.edge.clipped or metal.scale_end_hu is None:
        return fit.edge.metal_hu >= settings.least_metal_hu
    depths = np.linspace(*fit.clean_mm, 25)
    core = metal.windows.sample(fit.axis.origin_lps_mm + depths[:, None] * fit.axis.along)
    return float(np.nanmedian(core)) >= settings.least_of_end * metal.scale_end_hu


def _seat_distance(fit: ShaftFit, rod: Tube) -> float:
    """Distance of a rod's line, lengthened by 15 mm, from where the shaft's head holds it, mm."""
    seat = _seat(fit)
    ends = [at + np.arange(1, 16)[:, None] * out for at, out in (rod.end_line(0), rod.end_line(1))]
    points = np.concatenate([rod.points_lps_mm, *ends])
    return float(np.min(np.linalg.norm(points - seat, axis=1)))
