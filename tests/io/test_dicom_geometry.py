"""Positions of every voxel, from series laid out in mm and written with everything but the position telling lies.

Slices are recognised by their pixels, and where a volume puts them is compared with where they were written. Planted in
a copy of the reader, each turns this file red: slice spacing from SliceThickness; slices sorted by InstanceNumber;
row and column spacing swapped; row and column directions swapped; normal taken as +z; tilt taken from the tag; origins
replaced by a regular lattice.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spineimg
from spineimg.io.index import scan
from spineimg.volume import Verdict
from tests import dicom_factory as factory
from tests.dicom_factory import Encoding, Groups, Lattice, Layout

EXACT_MM = 1e-6

LATTICES = {
    "clean": factory.axial(14),
    "thin": factory.axial(14, 0.2),
    "prone": factory.prone(14),
    "feet first": factory.feet_first(14),
    "oblique 11°": factory.oblique(14),
    "tilt 15°": factory.tilted(14),
    "tilt -22°": factory.tilted(14, degrees=-22.0),
    "coronal": factory.coronal(14),
    "sagittal": factory.sagittal(14),
}


def codes(series_or_volume: object) -> set[str]:
    return {note.code for note in series_or_volume.notes}  # type: ignore[attr-defined]


@pytest.mark.parametrize("lattice", LATTICES.values(), ids=LATTICES.keys())
def test_positions_are_exact(tmp_path: Path, lattice: Lattice) -> None:
    """Planted: spacing from SliceThickness; sorting by InstanceNumber; PixelSpacing swapped; IOP halves swapped."""
    written = factory.write_series(tmp_path, factory.pattern(14), lattice)
    volume = spineimg.load(tmp_path)
    assert volume.geometry.shape == (14, 12, 17)
    assert factory.worst_position_mm(volume, written) < EXACT_MM
    assert volume.geometry.spacing_mm[1:] == pytest.approx(lattice.spacing_mm, abs=1e-9)


@pytest.mark.parametrize("lattice", LATTICES.values(), ids=LATTICES.keys())
def test_every_voxel_reads_the_field_at_its_place(tmp_path: Path, lattice: Lattice) -> None:
    """HU are a linear field of LPS position, so voxel and place can be held together without the writer's order.

    Planted: rows and columns of the pixels swapped; a slice's origin taken from its neighbour.
    """
    factory.write_series(tmp_path, factory.linear_field(lattice), lattice)
    volume = spineimg.load(tmp_path)
    index = np.moveaxis(np.indices(volume.geometry.shape), 0, -1)
    hu = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])
    off = hu - factory.field_hu(volume.geometry.lps_at(index))
    assert np.abs(off).max() <= 0.5 + 1e-6


def test_slices_ascend_along_their_normal(tmp_path: Path) -> None:
    factory.write_series(tmp_path, factory.pattern(9), factory.oblique(9))
    steps = np.diff(spineimg.load(tmp_path).geometry.positions_mm)
    assert np.abs(steps) == pytest.approx(np.full(8, 1.5), abs=1e-6)
    assert len(set(np.sign(steps))) == 1


@pytest.mark.parametrize("tag", [None, "0", "15", "-15", "7.5", "-89"], ids=str)
def test_tilt_comes_from_positions_whatever_the_tag_says(tmp_path: Path, tag: str | None) -> None:
    """1.5 mm of table travel at 15° is 1.5 cos 15° = 1.449 mm along the normal. Planted: shear from the tag."""
    lattice = factory.tilted(12)
    written = factory.write_series(tmp_path, factory.pattern(12), lattice, tags={"GantryDetectorTilt": tag})
    (entry,) = scan([tmp_path]).series
    volume = spineimg.load(tmp_path)
    assert factory.worst_position_mm(volume, written) < EXACT_MM
    assert volume.geometry.shear_deg == pytest.approx(15.0, abs=1e-6)
    assert volume.geometry.spacing_mm[0] == pytest.approx(1.5 * np.cos(np.radians(15)), abs=1e-6)
    assert entry.verdict is volume.verdict is Verdict.USABLE_WITH_NOTES
    assert "gantry_tilt" in codes(entry)


@pytest.mark.parametrize("tag", ["15", "-3"])
def test_a_tilt_tag_without_shear_moves_nothing(tmp_path: Path, tag: str) -> None:
    written = factory.write_series(tmp_path, factory.pattern(8), factory.axial(8), tags={"GantryDetectorTilt": tag})
    volume = spineimg.load(tmp_path)
    assert volume.geometry.shear_deg == pytest.approx(0.0, abs=1e-5)
    assert factory.worst_position_mm(volume, written) < EXACT_MM


def test_obliquity_is_no_tilt(tmp_path: Path) -> None:
    """An oblique but rectangular lattice has no shear, so nothing to note."""
    factory.write_series(tmp_path, factory.pattern(8), factory.oblique(8))
    (entry,) = scan([tmp_path]).series
    assert entry.verdict is Verdict.USABLE
    assert entry.geometry.shear_deg == pytest.approx(0.0, abs=1e-5)


def test_overlapping_slices_keep_their_positions(tmp_path: Path) -> None:
    """3 mm slices every 0.8 mm. Planted: spacing from SliceThickness."""
    lattice = factory.axial(12, 0.8)
    written = factory.write_series(tmp_path, factory.pattern(12), lattice, tags={"SliceThickness": "3.0"})
    (entry,) = scan([tmp_path]).series
    volume = spineimg.load(tmp_path)
    assert factory.worst_position_mm(volume, written) < EXACT_MM
    assert volume.geometry.spacing_mm[0] == pytest.approx(0.8, abs=1e-6)
    assert entry.verdict is Verdict.USABLE_WITH_NOTES
    assert any("overlap" in (note.code + note.text).lower() for note in entry.notes)


@pytest.mark.parametrize(
    "lattice", [factory.axial(20), factory.feet_first(20), factory.tilted(20)], ids=["axial", "feet first", "tilted"]
)
def test_missing_slices_are_gaps_and_the_rest_stays_in_place(tmp_path: Path, lattice: Lattice) -> None:
    """Slices 7 and 12-13 of 20 are gone. Planted: origins replaced by a regular lattice."""
    kept = [k for k in range(20) if k not in (7, 12, 13)]
    written = factory.write_series(tmp_path, factory.pattern(17), lattice.keep(kept))
    (entry,) = scan([tmp_path]).series
    volume = spineimg.load(tmp_path)
    assert factory.worst_position_mm(volume, written) < EXACT_MM
    assert entry.verdict is Verdict.USABLE_WITH_NOTES
    assert "missing_slices" in codes(entry)
    assert "varying_spacing" not in codes(entry)
    places = volume.geometry.normal_lps @ lattice.origins_lps_mm.T
    expected = sorted(sorted((places[a], places[b])) for a, b in ((6, 8), (11, 14)))
    found = sorted((gap.start_mm, gap.end_mm) for gap in volume.geometry.gaps)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_note_names_the_place_of_each_gap(tmp_path: Path) -> None:
    lattice = factory.axial(20)
    kept = [k for k in range(20) if k not in (7, 12, 13)]
    factory.write_series(tmp_path, factory.pattern(17), lattice.keep(kept))
    (entry,) = scan([tmp_path]).series
    said = " ".join(note.text + " " + note.about for note in entry.notes if note.code == "missing_slices")
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", said)]
    for k in (6, 8, 11, 14):
        place = lattice.origins_lps_mm[k, 2]
        assert any(abs(number - place) <= 0.06 for number in numbers), f"{place} is not in: {said}"


def test_spacing_that_changes_halfway_is_no_gap(tmp_path: Path) -> None:
    """Ten slices of 1 mm, then ten of 2 mm. Planted: origins replaced by a regular lattice."""
    lattice = factory.axial_at([*np.arange(10.0), *np.arange(11.0, 31.0, 2.0)])
    written = factory.write_series(tmp_path, factory.pattern(20), lattice)
    (entry,) = scan([tmp_path]).series
    volume = spineimg.load(tmp_path)
    assert factory.worst_position_mm(volume, written) < EXACT_MM
    assert entry.verdict is Verdict.USABLE_WITH_NOTES
    assert "varying_spacing" in codes(entry)
    assert "missing_slices" not in codes(entry)
    assert volume.geometry.gaps == ()


def test_positions_rounded_to_a_hundredth_are_even(tmp_path: Path) -> None:
    """0.625 mm written with two decimals gives steps of 0.62 and 0.63: each slice stays where it says it is."""
    lattice = factory.axial_at(np.round(np.arange(24) * 0.625, 2), [0.0, 0.0, 0.0])
    written = factory.write_series(tmp_path, factory.pattern(24), lattice, tags={"SliceThickness": "0.625"})
    (entry,) = scan([tmp_path]).series
    assert entry.verdict is Verdict.USABLE, entry.notes
    assert factory.worst_position_mm(spineimg.load(tmp_path), written) < EXACT_MM


def test_orientation_noise_does_not_split_a_series(tmp_path: Path) -> None:
    """Direction cosines that differ by 2e-5 from slice to slice move a voxel by less than 0.001 mm."""
    lattice = factory.oblique(10)
    noisy = {}
    for k in range(10):
        cosines = [x + 2e-5 * (-1) ** (k + i) for i, x in enumerate(lattice.orientation)]
        noisy[k] = {"ImageOrientationPatient": [factory.ds_text(x) for x in cosines]}
    written = factory.write_series(tmp_path, factory.pattern(10), lattice, slice_tags=noisy)
    (entry,) = scan([tmp_path]).series
    assert entry.n_slices == 10
    assert entry.verdict is Verdict.USABLE
    assert factory.worst_position_mm(spineimg.load(tmp_path), written) < 0.001


@pytest.mark.parametrize("offset", [(1000.0, -500.0, -1800.5), (0.0, 0.0, 0.0)])
def test_far_from_the_origin(tmp_path: Path, offset: tuple[float, ...]) -> None:
    lattice = replace(factory.tilted(8), origins_lps_mm=factory.tilted(8).origins_lps_mm + np.array(offset))
    written = factory.write_series(tmp_path, factory.pattern(8), lattice)
    assert factory.worst_position_mm(spineimg.load(tmp_path), written) < EXACT_MM


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    shear=st.tuples(*[st.floats(-0.4, 0.4)] * 2),
    spacing=st.tuples(*[st.floats(0.2, 3.0)] * 3),
    count=st.integers(3, 8),
)
def test_any_sheared_lattice_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, ...],
    shear: tuple[float, ...],
    spacing: tuple[float, ...],
    count: int,
) -> None:
    """Write and read of any affine: index to mm of every corner to 1e-5 mm (DICOM's decimal strings have 16 bytes)."""
    from scipy.spatial.transform import Rotation

    directions = Rotation.from_euler("zyx", angles).as_matrix()
    affine = np.eye(4)
    step = spacing[0] * (directions[:, 0] + shear[0] * directions[:, 1] + shear[1] * directions[:, 2])
    affine[:3, :3] = np.stack([step, directions[:, 1] * spacing[1], directions[:, 2] * spacing[2]], axis=1)
    affine[:3, 3] = [5.5, -7.25, 90.0]
    folder = tmp_path_factory.mktemp("lattice")
    written = factory.write_series(folder, factory.pattern(count), Lattice.from_affine(count, affine))
    volume = spineimg.load(folder)
    assert factory.worst_position_mm(volume, written) < 1e-5
    true = written.lattice.lps(count - 1, 3, 5)
    k, r, c = volume.geometry.index_at(true)
    np.testing.assert_allclose([r, c], [3, 5], atol=1e-4)
    assert min(abs(k), abs(k - (count - 1))) < 1e-4


LAYOUTS = {
    "nested": Layout(nested=True),
    "no preamble": Layout(preamble="bare"),
    "no file meta": Layout(preamble="dataset"),
    "70 KB private header": Layout(private_bytes=70_000),
    "3 MB private header": Layout(private_bytes=3_000_000),
    "sequences, private elements, icon": Layout(clutter=True),
    "all of it": Layout(nested=True, private_bytes=70_000, clutter=True),
}


HEADERS = [
    (name, syntax)
    for name, layout in LAYOUTS.items()
    for syntax in (factory.NATIVE[:1] if layout.preamble == "dataset" else factory.NATIVE)
]
"""A file without meta is implicit little endian by definition."""


@pytest.mark.parametrize(("name", "syntax"), HEADERS, ids=[f"{name}-{uid.name}" for name, uid in HEADERS])
def test_headers_of_any_shape(tmp_path: Path, name: str, syntax: str) -> None:
    """Icons with pixels, nested position tags and long private parts stand before the pixel data.

    Planted: the first (7FE0,0010) of the bytes taken as the pixels; a header read cut at 64 KB.
    """
    layout, encoding = LAYOUTS[name], Encoding(transfer_syntax=syntax)
    written = factory.write_series(tmp_path, factory.pattern(5), factory.tilted(5), layout=layout, encoding=encoding)
    assert scan([tmp_path]).skipped == ()
    volume = spineimg.load(tmp_path)
    assert volume.geometry.shape[0] == 5
    assert factory.worst_position_mm(volume, written) < EXACT_MM


# -- Enhanced CT ------------------------------------------------------------------------------------------------------

GROUPS = {
    "shared": Groups(),
    "orientation per frame": Groups(orientation_per_frame=True),
    "spacing per frame": Groups(spacing_per_frame=True),
    "all per frame": Groups(orientation_per_frame=True, spacing_per_frame=True, rescale_per_frame=True),
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("lattice", [factory.axial(9), factory.tilted(9), factory.feet_first(9)])
def test_enhanced_frames_in_any_order(tmp_path: Path, groups: Groups, lattice: Lattice) -> None:
    """Frames are shuffled. Planted: frames taken in the order of the file; functional groups of frame 0 for all."""
    written = factory.write_enhanced(tmp_path / "enhanced", factory.pattern(9), [lattice], groups=groups)
    for path in (tmp_path, tmp_path / "enhanced"):
        volume = spineimg.load(path)
        assert volume.geometry.shape == (9, 12, 17)
        assert factory.worst_position_mm(volume, written) < EXACT_MM


def test_enhanced_with_two_orientations_is_two_parts(tmp_path: Path) -> None:
    """Nine axial frames and seven coronal ones in one file. Each part is in its place, or refused by name."""
    lattices = [factory.axial(9), factory.coronal(7)]
    stacks = Groups(stack_ids=["1"] * 9 + ["2"] * 7)
    written = factory.write_enhanced(tmp_path / "two", factory.pattern(16), lattices, groups=stacks)
    index = scan([tmp_path])
    assert sorted(entry.info.name for entry in index.series) == [f"{written.series_uid}#{n}" for n in (1, 2)]
    assert sorted(entry.n_slices for entry in index.series) == [7, 9]
    axial = next(entry for entry in index.series if entry.n_slices == 9)
    volume = spineimg.load(tmp_path, series=axial.info.name)
    for k in range(9):
        true = factory.truth_slice(written, volume.read(k))
        np.testing.assert_allclose(volume.geometry.lps_at((k, 0, 0)), lattices[0].lps(true, 0, 0), atol=EXACT_MM)


def test_enhanced_stacks_at_one_place_are_never_mixed(tmp_path: Path) -> None:
    """Two stacks over the same positions (two time points): whatever loads holds one stack's pixels only."""
    lattices = [factory.axial(6), factory.axial(6)]
    stacks = Groups(stack_ids=["1"] * 6 + ["2"] * 6)
    written = factory.write_enhanced(tmp_path / "two", factory.pattern(12), lattices, groups=stacks)
    for entry in scan([tmp_path]).series:
        if entry.verdict is Verdict.REFUSED:
            continue
        volume = spineimg.load(tmp_path, series=entry.info.name)
        taken = {factory.truth_slice(written, volume.read(k)) // 6 for k in range(volume.geometry.shape[0])}
        assert len(taken) == 1


def test_enhanced_gap_is_noted(tmp_path: Path) -> None:
    kept = [0, 1, 2, 3, 4, 7, 8, 9, 10]
    written = factory.write_enhanced(tmp_path / "gap", factory.pattern(9), [factory.axial(11).keep(kept)])
    volume = spineimg.load(tmp_path)
    assert volume.verdict is Verdict.USABLE_WITH_NOTES
    assert "missing_slices" in codes(volume)
    assert factory.worst_position_mm(volume, written) < EXACT_MM
