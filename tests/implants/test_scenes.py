"""Metal that is no screw gives none, and screws in odd places are found: painted scenes on several lattices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spineimg.anatomy import Side
from spineimg.geometry import Geometry
from spineimg.implants.detect import Metal, find_metal
from spineimg.volume import ArraySource, CTVolume
from tests.implants.implant_cases import Build, Piece, construct, errors
from tests.implants.metal_scenes import (
    NO_SCREWS,
    SCREWS,
    THICK,
    UP,
    USUAL,
    hip_stem,
    hold,
    reoriented,
    screw,
    sternal_wires,
)

FAR = np.array([0.0, -80.0, -60.0])
ODD = {"cement", "gut_contrast", "cord_stimulator", "k_wires", "teeth"}


def _scan(build: Build, spacing: tuple[float, float, float], clip: float | None) -> CTVolume:
    return replace(build, spacing_mm=spacing, fwhm_mm=(0.8, max(0.8, 0.7 * spacing[0]))).volume(clip)


@pytest.mark.parametrize("clip", [None, 3071.0])
@pytest.mark.parametrize("name", sorted(NO_SCREWS))
def test_no_screw_and_no_rod(name: str, clip: float | None) -> None:
    """Planted: any tube beside a steep piece of metal held for a screw (cement gave two); the HU of a shaft not asked
    (contrast in an appendix was a screw of 41 mm); any wider metal behind a shaft taken for a tulip (screws through
    nails, under plates and beside a hip's ball)."""
    for spacing in (USUAL, THICK) if name in ODD else (USUAL,):
        metal = find_metal(_scan(Build({}, NO_SCREWS[name]()), spacing, clip))
        assert [(s.shaft.diameter_mm, s.shaft.length_mm) for s in metal.screws] == []
        assert metal.rods == ()


@pytest.mark.parametrize(("name", "rods"), [("short_and_thin", 2), ("pelvic", 2), ("steep", 1), ("alone", 0)])
def test_screws_of_every_size(name: str, rods: int) -> None:
    """26 to 90 mm long, 3.5 to 8.5 mm thick, 3 mm slices; no break in rods that are whole.

    Planted: a small tulip taken for a piece of the shaft (14 mm too long); 75 mm as the longest shaft (no iliac screw).
    """
    build = SCREWS[name]()
    for spacing in (USUAL, THICK):
        metal = find_metal(_scan(build, spacing, 3071.0))
        _all_found(build, metal, 1.2)
        assert [rod.gaps for rod in metal.rods] == [()] * rods


def test_tulips_with_an_empty_slot() -> None:
    """Planted: the depth of a tulip read near its axis alone (none of two found)."""
    build = SCREWS["emptied"]()
    metal = find_metal(_scan(build, USUAL, 3071.0))
    _all_found(build, metal, 1.2)
    assert metal.rods == ()


def _all_found(build: Build, metal: Metal, length_mm: float) -> None:
    found = errors(build, metal)
    assert set(found) == set(build.screws)
    assert len(metal.screws) == len(build.screws)
    for error in found.values():
        assert abs(error["length_mm"]) <= length_mm, error
        assert abs(error["diameter_mm"]) <= 0.5, error
        assert error["axis_deg"] <= 2.0, error


@pytest.mark.parametrize(("diameter", "step_mm"), [(4.0, 2.0), (5.5, 3.0)])
def test_whole_thin_shafts_in_thick_slices_have_no_gap(diameter: float, step_mm: float) -> None:
    """A shaft thinner than two slices that crosses them obliquely looks notched at every crossing; a missing piece of
    two slices is still a gap.

    Planted: the core between two slices held against the end of the scale (two to three gaps in each shaft).
    """
    whole = {
        f"{n}": screw([18.0, 10.0, 30.0 * n], [-0.2, -1, lean], 36.0, diameter)
        for n, lean in enumerate((0.06, 0.12, -0.17))
    }
    thick = {name: (replace(shaft, hu=5600.0), tulip) for name, (shaft, tulip) in whole.items()}
    build = hold(thick, [["0", "1", "2"]])
    gapped = replace(build.screws["1"], gap=(20.0, 2 * step_mm))
    for shown, gaps in ((build, [0, 0, 0]), (replace(build, screws={**build.screws, "1": gapped}), [0, 1, 0])):
        metal = find_metal(_scan(shown, (step_mm, 0.8, 0.8), 3071.0))
        by_height = sorted(metal.screws, key=lambda one: one.shaft.head_lps_mm[2])
        assert [len(one.gaps) for one in by_height] == gaps


def test_two_constructs() -> None:
    """Planted: rods of two constructs on one line taken for one."""
    build = SCREWS["twice"]()
    metal = find_metal(_scan(build, USUAL, 3071.0))
    _all_found(build, metal, 1.2)
    assert [rod.id for rod in metal.rods] == ["left-1", "left-2", "right-1", "right-2"]


def test_a_cage_and_a_lead_beside_screws() -> None:
    """Planted: no thinnest rod, so that a lead in the canal might pass for one."""
    build = SCREWS["cage_and_screws"]()
    metal = find_metal(_scan(build, USUAL, None))
    _all_found(build, metal, 1.2)
    assert [rod.id for rod in metal.rods] == ["left", "right"]
    assert "cage" in {other.kind for other in metal.other_metal}


def test_metal_in_which_no_screw_is_told_is_not_passed_over() -> None:
    """A construct that its streaks join to one piece, here a block. Planted: "no screw and no rod" without a word;
    wires and a hip's stem, which are known for what they are, told too."""
    block = [Piece(np.array([x, 0.0, 0.0]), np.array([x, 30.0, 0.0]), 9.0) for x in (-16.0, 0.0, 16.0)]
    metal = find_metal(_scan(Build({}, block), USUAL, 3071.0))
    assert metal.screws == ()
    assert [note.code for note in metal.notes] == ["metal_unresolved"]
    assert "cm³" in metal.notes[0].text
    for known in (sternal_wires(), hip_stem()):
        assert find_metal(_scan(Build({}, known), USUAL, 3071.0)).notes == ()


def test_metal_far_from_screws_is_not_joined_to_them() -> None:
    """Planted: all metal whose blooming is darker than its core held for joined (wires and a nail "joined to the
    construct")."""
    build = construct(2)
    loops = [replace(piece, start=piece.start + FAR, end=piece.end + FAR) for piece in sternal_wires()]
    beside = FAR + np.array([45.0, 0.0, 0.0])
    nail = Piece(beside, beside + 80.0 * UP, 6.5)
    metal = find_metal(_scan(replace(build, rest=[*build.rest, *loops, nail]), USUAL, 3071.0))
    _all_found(build, metal, 1.2)
    assert {other.kind for other in metal.other_metal} == {"nail", "wire"}
    assert not any("joined" in other.why for other in metal.other_metal)


@pytest.mark.parametrize("kind", ["feet first", "prone", "tilted"])
def test_the_lattice_does_not_matter(kind: str) -> None:
    """Planted: the slice's number taken for height, the column's for the side."""
    build = construct(2, sides=("left",), spacing_mm=(1.0, 0.8, 0.8))
    metal = find_metal(reoriented(build.volume(3071.0), kind))
    _all_found(build, metal, 1.2)
    assert [screw.side for screw in metal.screws] == [Side.LEFT] * 2
    assert metal.screws[0].shaft.head_lps_mm[2] > metal.screws[1].shaft.head_lps_mm[2]


def test_a_screw_that_the_image_cuts() -> None:
    """The note says so; a whole screw has none. A rod that leaves the image is no break, and no crash.

    Planted: nan beyond the image taken for a gap.
    """
    volume = construct(2, sides=("left",), spacing_mm=(1.0, 0.8, 0.8)).volume(3071.0)
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])
    whole = find_metal(volume)
    assert not [note for screw in whole.screws for note in screw.notes if note.code == "cut_by_image"]
    for rows, end in ((slice(34, None), "tip"), (slice(0, -24), None)):
        affine = np.array(volume.geometry.lps_from_index)
        affine[:3, 3] += affine[:3, 1] * (rows.start or 0)
        part = np.ascontiguousarray(hu[:, rows])
        cut = CTVolume(Geometry.from_affine(part.shape, affine), ArraySource(part), volume.acquisition)
        metal = find_metal(cut)
        texts = [note.text for screw in metal.screws for note in screw.notes if note.code == "cut_by_image"]
        assert len(metal.screws) == 2
        assert [f"ends at its {end}" in text for text in texts] == ([True] * 2 if end else [])
        assert all(rod.gaps == () for rod in metal.rods)


def test_diameters_on_a_clipped_scale_name_what_they_assume() -> None:
    """A screw of cobalt-chrome reads too thick by about what the note says; its length is right.

    Planted: the note on a scale that shows the metal's own HU; a tulip of titanium not seen on a brighter shaft.
    """
    build = construct(1, sides=("left",), diameter_mm=6.0)
    heavy = Build({name: replace(piece, hu=17000.0) for name, piece in build.screws.items()}, build.rest)
    metal = find_metal(heavy.volume(3071.0))
    (error,) = errors(heavy, metal).values()
    (note,) = (note for note in metal.notes if note.code == "titanium_assumed")
    named = float(note.text.split("about ")[1].split(" mm")[0])
    assert error["diameter_mm"] == pytest.approx(named, abs=0.3)
    assert abs(error["length_mm"]) < 1.2
    assert metal.notes[-1:] == (note,)
    shown = find_metal(heavy.volume())
    assert len(shown.screws) == 1
    assert not [note for note in shown.notes if note.code == "titanium_assumed"]
