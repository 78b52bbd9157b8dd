"""Rods and breaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from spineimg.implants.breaks import BreakSettings, Core, find_gaps, smallest_visible_mm
from spineimg.implants.detect import find_metal
from spineimg.implants.metal_map import map_metal
from spineimg.implants.psf import Psf
from spineimg.implants.rod_ends import RodTrace, join_traces
from spineimg.implants.rods import _goes_on, rod_pieces
from spineimg.implants.tubes import End, Tube
from tests.implants.implant_cases import COBALT_CHROME, Build, Piece, broken_near_end, construct, with_rod_like

STEP = 0.25


def _core(width_mm: float, sigma_mm: float, metal_hu: float, end_hu: float | None) -> Core:
    """A core with one gap in the middle of 40 mm, by the formula."""
    from scipy.special import ndtr

    depths = np.arange(0, 40, STEP)
    x = depths - 20.0
    hu = metal_hu * (1 - ndtr((x + width_mm / 2) / sigma_mm) + ndtr((x - width_mm / 2) / sigma_mm))
    top = metal_hu if end_hu is None else end_hu
    return Core(depths, np.minimum(hu, top), metal_hu, top, np.full(len(depths), sigma_mm))


@pytest.mark.parametrize("end_hu", [None, 3071.0])
@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_the_width_of_a_gap(width: float, end_hu: float | None) -> None:
    """Planted: the width that a clipped profile shows taken for the gap's own."""
    ((middle, found),) = find_gaps(_core(width, 0.42, 7000.0, end_hu), BreakSettings())
    assert middle == pytest.approx(20.0, abs=0.3)
    assert found == pytest.approx(width, abs=0.12)


@pytest.mark.parametrize(("metal_hu", "end_hu"), [(7000.0, None), (7000.0, 3071.0), (17000.0, 3071.0)])
def test_the_smallest_visible_gap_is_named_rightly(metal_hu: float, end_hu: float | None) -> None:
    """Just wider is found, just narrower is not. Planted: the level of the other scale."""
    settings, sigma = BreakSettings(), 0.42
    level = _core(1.0, sigma, metal_hu, end_hu).level_hu(settings) / metal_hu
    smallest = smallest_visible_mm(sigma, level)
    assert find_gaps(_core(1.05 * smallest, sigma, metal_hu, end_hu), settings)
    assert not find_gaps(_core(0.95 * smallest, sigma, metal_hu, end_hu), settings)


def test_a_core_that_wanders_in_noise_is_not_broken_and_a_real_gap_in_it_is_found() -> None:
    """A sharp kernel's noise, cut off at the scale's end. Planted: the limit for still metal alone."""
    noise = gaussian_filter1d(np.random.default_rng(4).normal(0, 180, 160), 2.0)
    still, broken = (_core(width, 0.42, 7000.0, 3071.0) for width in (0.0, 4.0))
    wandering = [replace(core, hu=core.hu - 130 + np.minimum(noise, 130)) for core in (still, broken)]
    assert wandering[0].hu.min() < BreakSettings().left_clipped * 3071
    assert find_gaps(wandering[0], BreakSettings()) == []
    ((middle, width),) = find_gaps(wandering[1], BreakSettings())
    assert middle == pytest.approx(20.0, abs=0.3)
    assert width == pytest.approx(4.0, abs=0.3)


def test_a_line_that_leaves_its_rod_is_no_break() -> None:
    """Where the core is a little darker and solid metal goes on beside it. Planted: only the core asked (a whole rod of
    steel broken, 2 mm wide, below its head)."""
    depths = np.arange(0, 10, STEP)
    for gap, darker_hu, goes_on in ((None, 320.0, True), (None, 900.0, False), ((25.0, 2.1), 320.0, False)):
        build = construct(2, sides=("left",), rod_gap=gap)
        rod = next(piece for piece in build.rest if piece.radius == 2.75)
        line = rod.start + (20.0 + depths)[:, None] * rod.along + np.array([1.5, 0.0, 0.0])
        hu = 3071.0 - darker_hu * np.exp(-0.5 * np.square((depths - 5.0) / 0.8))
        core = Core(depths, hu, 7000.0, 3071.0, np.full(len(depths), 0.4))
        metal = map_metal(build.volume(3071.0))
        assert _goes_on(metal, line, (5.0, 2.1), core) is goes_on
        # Narrower than a step, between two places. Planted: no place looked at (a traceback).
        assert _goes_on(metal, line, (5.125, 0.1), core) is goes_on
        assert not _goes_on(metal, line, (5.0, 2.1), replace(core, hu=np.where(hu < hu.max() - 1, np.nan, hu)))


def test_an_end_is_no_gap() -> None:
    core = _core(8.0, 0.42, 7000.0, None)
    half = len(core.depths_mm) // 2
    cut = Core(core.depths_mm[half:], core.hu[half:], 7000.0, 7000.0, core.sigma_mm[half:])
    assert not find_gaps(cut, BreakSettings())


@pytest.mark.parametrize(("rod_hu", "clip"), [(COBALT_CHROME, None), (7000.0, 3071.0)])
def test_whole_rods(rod_hu: float, clip: float | None) -> None:
    """Line, ends and diameter; no gap. Planted: the tube's own centres, which lean towards the heads."""
    build = construct(rod_hu=rod_hu, sides=("right",))
    metal = find_metal(build.volume(clip))
    assert [rod.id for rod in metal.rods] == ["right"]
    for rod, piece in zip(metal.rods, (p for p in build.rest if p.radius == 2.75), strict=True):
        points = np.array(rod.points_lps_mm)
        way = points - piece.start
        off = np.linalg.norm(way - (way @ piece.along)[:, None] * piece.along, axis=1)
        assert off.max() < 0.5
        assert np.linalg.norm(points[0] - piece.start) < 1.0
        assert np.linalg.norm(points[-1] - piece.end) < 1.0
        assert rod.diameter_mm == pytest.approx(5.5, abs=0.3)
        assert rod.gaps == ()
        assert [note.code for note in rod.notes] == ["smallest_gap"]


@pytest.mark.parametrize(("width", "clip", "sides"), [(1.0, None, ("left", "right")), (2.0, 3071.0, ("left",))])
def test_breaks_of_rod_and_screw(width: float, clip: float | None, sides: tuple[str, ...]) -> None:
    """A break of 1 mm at slices of 1 mm, of two slices on the clipped scale; the other side is whole.

    Planted: the core of the whole radius, which the neighbouring head fills.
    """
    build = construct(rod_gap=(24.0, width), screw_gap=(15.0, width), sides=sides)
    metal = find_metal(build.volume(clip))
    gaps = {rod.id: rod.gaps for rod in metal.rods}
    assert len(gaps["left"]) == 1
    assert gaps.get("right", ()) == ()
    rod = next(p for p in build.rest if p.gap is not None)
    assert np.linalg.norm(gaps["left"][0].center_lps_mm - (rod.start + 24.0 * rod.along)) < 0.7
    assert gaps["left"][0].width_mm == pytest.approx(width, abs=0.5)
    assert gaps["left"][0].kink_deg < 4
    broken = [screw for screw in metal.screws if screw.gaps]
    piece = build.screws["0-left"]
    assert len(metal.screws) == 2 * len(sides)
    assert len(broken) == 1
    assert np.linalg.norm(broken[0].gaps[0].center_lps_mm - (piece.start + 15.0 * piece.along)) < 0.7


THICK = {"spacing_mm": (3.0, 0.7, 0.7), "fwhm_mm": (0.9, 2.0)}


@pytest.mark.parametrize(
    ("stub_mm", "width_mm", "clip", "more"),
    [
        (14.0, 1.0, None, {}),
        (9.0, 2.0, 3071.0, {}),
        (5.0, 1.0, None, {}),
        (3.5, 2.5, 3071.0, {}),
        (8.0, 6.0, 3071.0, THICK),
        (6.0, 1.5, None, {"kink_deg": 12.0}),
        (8.0, 2.0, None, {"step_mm": 3.5}),
        (11.0, 2.0, 3071.0, {"kink_deg": 15.0, "step_mm": 1.0}),
    ],
)
def test_a_break_near_the_end_of_a_rod(
    stub_mm: float, width_mm: float, clip: float | None, more: dict[str, object]
) -> None:
    """The stub belongs to the rod, and the gap before it is reported.

    Planted: the rod's line ends where its core first ends (3.5 mm is lost); pieces without a fit left out (3 mm slices
    lose the stub); ends of a rod joined only in line (the step is lost).
    """
    metal = find_metal(broken_near_end(stub_mm, width_mm, **more).volume(clip))
    (rod,) = metal.rods
    (gap,) = rod.gaps
    end = np.array(rod.points_lps_mm[0])
    # The far end of a stub that stands aside is not always reached.
    far = 4.5 if "step_mm" in more else 2.0
    assert np.linalg.norm(end - gap.center_lps_mm) == pytest.approx(stub_mm + width_mm / 2, abs=far)
    # Beyond the scale's end the width rests on the usual blur; of thick slices it is known to a slice.
    assert gap.width_mm == pytest.approx(width_mm, abs=3.0 if more is THICK else 1.6 if more else 1.0)
    assert len(metal.screws) == 2
    assert not metal.other_metal
    if stub_mm >= 5.0 and "spacing_mm" not in more:
        assert gap.kink_deg == pytest.approx(more.get("kink_deg", 0.0), abs=6.0)


@pytest.mark.parametrize(("clip", "more"), [(None, {}), (3071.0, {"spacing_mm": (0.7, 0.5, 0.5)}), (3071.0, THICK)])
def test_a_rod_that_stands_out_is_one_whole_rod(clip: float | None, more: dict[str, object]) -> None:
    """Planted: the lean of cross-sections into the head taken for the rod's way; one rod was then measured as two."""
    (rod,) = find_metal(broken_near_end(8.0, 0.0, **more).volume(clip)).rods
    assert rod.gaps == ()
    assert np.linalg.norm(np.subtract(rod.points_lps_mm[0], rod.points_lps_mm[-1])) == pytest.approx(67.2, abs=2.0)


@pytest.mark.parametrize("clip", [None, 3071.0])
@pytest.mark.parametrize(("kind", "count"), [("slot", 1), ("short", 1), ("crosslink", 1), ("sleeve", 1), ("two", 2)])
def test_what_is_no_break(kind: str, count: int, clip: float | None) -> None:
    """Planted: a gap in a sleeve counted (3 mm); pieces of two constructs joined into one rod."""
    metal = find_metal(with_rod_like(kind).volume(clip))
    assert [rod.gaps for rod in metal.rods] == [()] * count
    assert [abs(rod.diameter_mm - 5.5) < 0.35 for rod in metal.rods] == [True] * count
    assert len(metal.screws) == {"two": 4, "sleeve": 3, "crosslink": 3}.get(kind, 2)


def test_a_tube_that_lacks_one_cross_section_is_one_piece() -> None:
    """15 mm of rod between two heads, one centre missing. Planted: 2.0 mm as the widest step (no piece, so no rod)."""
    rod = Piece(np.array([0.0, 0.0, 25.0]), np.array([0.0, 0.0, -25.0]), 2.75)
    metal = map_metal(Build({}, [rod]).volume())
    heights = np.delete(np.arange(7.5, -7.6, -1.01), 6)
    points = np.stack([0 * heights, 0 * heights, heights], axis=1)
    tube = Tube(points, np.full(len(points), 2.8), (End.MASS, End.MASS))
    pieces = rod_pieces(metal, tube, Psf(0.9, 0.9))
    assert [piece.radius_mm for piece in pieces.fits] == pytest.approx([2.75], abs=0.05)


def _trace(start: tuple[float, ...], end: tuple[float, ...], followed_mm: tuple[float, float]) -> RodTrace:
    """A straight line, of which so much at either end was not seen."""
    count = int(np.linalg.norm(np.subtract(end, start)) / STEP)
    seen = slice(int(followed_mm[0] / STEP), count - int(followed_mm[1] / STEP))
    return RodTrace(np.linspace(start, end, count), seen, 2.75, 7000.0, False, 7000.0)


@pytest.mark.parametrize("turned", [False, True])
def test_lines_followed_past_each_other_through_a_head_are_one_rod(turned: bool) -> None:
    """Bent by 16 degrees at the head, each goes on straight through it and beyond. Planted: ends that lie past each
    other never joined (two rods on a side); both lines kept whole (a rod that runs back); a straight line between."""
    upper, lower = _trace((-5.2, 0, 45), (1.2, 0, -6), (0, 12)), _trace((1.8, 0, 6), (-9.0, 0, -30), (12, 0))
    (rod,) = join_traces([upper, lower.turned if turned else lower], 10.0, 4.0)
    assert (rod.points_lps_mm[0, 2], rod.points_lps_mm[-1, 2]) == (45, -30)
    assert (np.diff(rod.points_lps_mm[:, 2]) < 0).all()
    assert np.linalg.norm(np.diff(rod.points_lps_mm, axis=0), axis=1).max() < 0.6
    bends = np.diff(rod.points_lps_mm, n=2, axis=0) / STEP**2
    assert np.linalg.norm(bends, axis=1).max() < 0.1
    assert rod.seen == slice(0, len(rod.points_lps_mm))
    # Beside each other, and one line that was found twice.
    beside = _trace((7.8, 0, 6), (-3.0, 0, -30), (12, 0))
    assert len(join_traces([upper, beside], 10.0, 4.0)) == 2
    assert len(join_traces([upper, upper], 10.0, 4.0)) == 2
