"""Cobalt-chrome and steel: starved rays bridge, smear and darken them in the slice plane."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ndtr

from spineimg.implants.breaks import BreakSettings, Core, find_gaps
from spineimg.implants.cylinder import flatness, frame
from spineimg.implants.detect import Metal, _apart, find_metal
from spineimg.implants.metal_map import map_metal
from spineimg.volume import ArraySource, CTVolume
from tests.implants.implant_cases import COBALT_CHROME, Build, Piece, construct, errors
from tests.implants.metal_scenes import USUAL, teeth

_BRIDGE_HU, _SMEAR_MM, _LEFT = 3000.0, 2.0, 0.75


def _dense_build() -> Build:
    build = construct(rod_hu=COBALT_CHROME)
    screws = {name: replace(piece, hu=COBALT_CHROME) for name, piece in build.screws.items()}
    return replace(build, screws=screws, rest=[replace(piece, hu=COBALT_CHROME) for piece in build.rest])


def _starved(build: Build) -> CTVolume:
    """The scan with shafts darker and wider from side to side, and a bright band between those of one slice."""
    volume = build.volume()
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(np.float64)
    metal = hu > 6000
    width = round(_SMEAR_MM / volume.geometry.spacing_mm[2])
    smeared = ndimage.uniform_filter1d(ndimage.maximum_filter1d(hu, width, axis=2), width, axis=2) * _LEFT
    left, right = np.cumsum(metal, axis=2) > 0, np.cumsum(metal[:, :, ::-1], axis=2)[:, :, ::-1] > 0
    # Rows that pass metal of both sides.
    middle = hu.shape[2] // 2
    both = (metal[:, :, :middle].any(axis=2) & metal[:, :, middle:].any(axis=2))[:, :, None]
    bridge = ndimage.gaussian_filter1d(np.where(both & left & right, _BRIDGE_HU, 0.0), 1.0, axis=1)
    starved = np.where(both, np.maximum(smeared, bridge), hu)
    return replace(volume, source=ArraySource(np.rint(starved).astype(np.int16)))


@pytest.fixture(scope="module")
def starved() -> tuple[Build, Metal]:
    build = _dense_build()
    return build, find_metal(_starved(build))


def test_bridges_between_screws_are_no_metal(starved: tuple[Build, Metal]) -> None:
    """Planted: 2500 HU as the level of metal on every scan (tips 7-10 mm off, a shaft turned by 2.3°)."""
    build, metal = starved
    found = errors(build, metal)
    assert set(found) == set(build.screws)
    assert len(metal.screws) == len(build.screws)
    assert len(metal.rods) == 2
    assert max(one["tip_mm"] for one in found.values()) < 0.8
    assert max(one["axis_deg"] for one in found.values()) < 0.5
    assert metal.other_metal == ()


def test_the_smear_is_not_the_diameter(starved: tuple[Build, Metal]) -> None:
    """Planted: one radius all around (0.8 mm too thick)."""
    _, metal = starved
    for screw in metal.screws:
        assert screw.shaft.diameter_mm == pytest.approx(6.5, abs=0.5)
        assert [note.code for note in screw.notes if note.code == "dense_metal"] == ["dense_metal"]


def test_rods_tell_the_blur_that_starved_shafts_hide(starved: tuple[Build, Metal]) -> None:
    """Rays cross a rod along the patient briefly. Planted: the blur from the shafts alone (2.2 mm in the slice)."""
    clear = find_metal(construct().volume()).psf
    psf = starved[1].psf
    assert psf.fwhm_in_plane_mm == pytest.approx(clear.fwhm_in_plane_mm, abs=0.15)
    assert psf.fwhm_slice_mm == pytest.approx(clear.fwhm_slice_mm, abs=0.15)
    assert psf.estimated == (True, True)


def test_the_level_of_metal_follows_dense_metal_only() -> None:
    """Planted: the level raised on the clipped scale too (nothing is left)."""
    build = _dense_build()
    assert map_metal(build.volume()).dense
    assert 4000 < map_metal(build.volume()).seed_hu <= 5000
    for same in (construct().volume(), build.volume(3071.0)):
        assert not map_metal(same).dense
        assert map_metal(same).seed_hu == pytest.approx(2500.0)


def _joined() -> Build:
    """Shafts drawn out by 2 mm to either side, and bands of 2.6 mm between those of a level, as a clipped scale shows
    steel."""
    build = construct()
    aside = np.array([2.0, 0.0, 0.0])
    drawn = [
        replace(s, start=s.start + k * aside, end=s.end + k * aside) for s in build.screws.values() for k in (-1, 1)
    ]
    bands = []
    for n in (0, 1):
        left, right = build.screws[f"{n}-left"], build.screws[f"{n}-right"]
        bands += [
            Piece(left.start + d * left.along, right.start + d * right.along, 1.3) for d in (-13.0, 2.0, 20.0, 36.0)
        ]
    return replace(build, rest=[*build.rest, *drawn, *bands])


def test_screws_that_streaks_join_are_taken_apart() -> None:
    """Planted: the metal followed as it is (two of four screws, one rod, 10 cm³ of "connector")."""
    build = _joined()
    metal = find_metal(build.volume(3071.0))
    assert set(errors(build, metal)) == set(build.screws)
    assert (len(metal.screws), len(metal.rods)) == (4, 2)
    assert max(one["axis_deg"] for one in errors(build, metal).values()) < 1.2
    assert "metal_unresolved" not in {note.code for note in metal.notes}


def test_teeth_beside_a_construct_are_not_taken_apart() -> None:
    """Planted: a second look that leaves less metal untold counted, whatever it found (a fifth screw in the teeth)."""
    build = construct()
    far = np.array([0.0, -60.0, 90.0])
    work = [replace(piece, start=piece.start + far, end=piece.end + far) for piece in teeth()]
    metal = find_metal(replace(build, rest=[*build.rest, *work], spacing_mm=USUAL).volume(3071.0))
    assert set(errors(build, metal)) == set(build.screws)
    assert len(metal.screws) == 4


def test_a_large_piece_joined_to_the_construct_may_hold_more_screws() -> None:
    """A block that no look takes apart. Planted: only scans without any screw told of such metal."""
    build = construct()
    head = build.screws["0-left"].start
    block = Piece(head + np.array([8.0, 18.0, 0.0]), head + np.array([34.0, 18.0, 0.0]), 9.0)
    metal = find_metal(replace(build, rest=[*build.rest, block]).volume(3071.0))
    assert len(metal.screws) == 4
    (note,) = [note for note in metal.notes if note.code == "metal_unresolved"]
    assert "more screws" in note.text


def test_two_shafts_cannot_lie_in_one_place() -> None:
    """Planted: a streak beside a shaft, 2 mm off its axis, counted as a second screw."""
    fit = find_metal(construct(1, sides=("left",)).volume(3071.0)).screws[0].fit
    for off_mm, count in ((2.0, 1), (4.5, 2)):
        moved = fit.axis.moved(np.array([off_mm, 0.0]), np.zeros(2))
        beside = replace(fit, axis=moved, head_mm=fit.head_mm + 6, tip_mm=fit.tip_mm - 9)
        assert len(_apart([beside, fit])) == count


def test_two_shafts_have_two_heads() -> None:
    """Planted: a streak that leaves a shaft's head by 22° counted as a second screw."""
    fit = find_metal(construct(1, sides=("left",)).volume(3071.0)).screws[0].fit
    for off_mm, count in ((2.0, 1), (9.0, 2)):
        start = fit.head_lps_mm + off_mm * fit.axis.across
        streak = frame(start, fit.axis.along + 0.4 * fit.axis.across)
        assert len(_apart([fit, replace(fit, axis=streak, head_mm=0.0, tip_mm=22.0)])) == count


def test_measures_of_a_drawn_out_shaft_are_told_to_be_rough() -> None:
    """Planted: a note where the thread is hidden only. Titanium that is not drawn out has none."""
    build = construct(1, sides=("left",))
    volume = build.volume()
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(np.float64)
    drawn = np.minimum(ndimage.maximum_filter1d(hu, 9, axis=2), 3071.0)
    (screw,) = find_metal(replace(volume, source=ArraySource(drawn.astype(np.int16)))).screws
    (note,) = [note for note in screw.notes if note.code == "dense_metal"]
    assert "rough" in note.text
    (plain,) = find_metal(build.volume(3071.0)).screws
    assert "dense_metal" not in {note.code for note in plain.notes}


def _darkening(gap_mm: float) -> Core:
    """A core that starved rays darken to a third towards one end, with or without a gap in the dark part."""
    depths = np.arange(0, 40, 0.25)
    hu = 6000.0 + 12000.0 / (1 + np.exp(-(depths - 26) / 3.0))
    x = depths - 12.0
    if gap_mm:
        hu = hu * (1 - ndtr((x + gap_mm / 2) / 0.45) + ndtr((x - gap_mm / 2) / 0.45))
    return Core(depths, hu, 18000.0, 18000.0, np.full(len(depths), 0.45))


def test_a_darkened_shaft_is_not_broken() -> None:
    """Planted: one level for the whole shaft (no break, since the dark part is longer than any)."""
    assert find_gaps(_darkening(0.0), BreakSettings()) == []
    ((middle, width),) = find_gaps(_darkening(2.0), BreakSettings())
    assert middle == pytest.approx(12.0, abs=0.3)
    assert width == pytest.approx(2.0, abs=0.3)


def test_a_gap_darker_than_the_scale_is_seen() -> None:
    """Streaks in a break can read less than any HU that is a measurement; a missing slice has no dark flanks.

    Planted: no gap where anything is missing in it.
    """
    whole, broken = _darkening(0.0), _darkening(2.0)
    middle = np.abs(broken.depths_mm - 12.0) < 0.4
    ((_, width),) = find_gaps(replace(broken, hu=np.where(middle, np.nan, broken.hu)), BreakSettings())
    assert width == pytest.approx(2.0, abs=0.3)
    assert find_gaps(replace(whole, hu=np.where(middle, np.nan, whole.hu)), BreakSettings()) == []


def test_flat_directions() -> None:
    """Of a screw in the slice plane the sides are flat, above and below not; a tilt changes nothing of that."""
    normal = np.array([0.0, 0.0, 1.0])
    for along in ([0.0, -1.0, 0.0], [0.3, -1.0, 0.5]):
        axis = frame(np.zeros(3), np.array(along))
        side, above = axis.across, axis.beyond
        places = axis.places(np.stack([2 * side, 3 * above, side + above]))
        assert flatness(places, axis, normal) == pytest.approx([1.0, 0.0, 0.5], abs=1e-6)
