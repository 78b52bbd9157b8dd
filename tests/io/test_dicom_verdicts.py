"""What a folder of files may be used for, and what is said of the files that are of no use.

Planted in a copy of the reader, each turns this file red: derived images let through; duplicates dropped without a look
at their pixels; a truncated file read as zeros; parts of one UID joined; links counted twice.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

import spineimg
from spineimg.errors import SeriesError, SpineImgError
from spineimg.io.index import SeriesEntry, SeriesIndex, scan
from spineimg.rois import RoiSet
from spineimg.volume import Verdict
from tests import dicom_factory as factory
from tests.dicom_factory import Encoding, Written

REFUSED, NOTED, USABLE = Verdict.REFUSED, Verdict.USABLE_WITH_NOTES, Verdict.USABLE
LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "Topogram"}
REFORMAT = {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"], "SeriesDescription": "Cor MPR"}


def codes(entry: SeriesEntry) -> set[str]:
    return {note.code for note in entry.notes}


def said(entry: SeriesEntry) -> str:
    return " ".join(f"{note.text} {note.about}" for note in entry.notes)


def only(index: SeriesIndex) -> SeriesEntry:
    (entry,) = index.series
    return entry


def clean(folder: Path, count: int = 8, **kwargs: Any) -> Written:
    return factory.write_series(folder, factory.pattern(count), factory.axial(count), **kwargs)


def named(path: Path, index: SeriesIndex) -> bool:
    """Is the file named among the skipped or in a note?"""
    return path in [Path(skipped.path) for skipped in index.skipped] or any(path.name in said(e) for e in index.series)


def skipped_reason(index: SeriesIndex, path: Path) -> str:
    """The one reason why this file was skipped."""
    (reason,) = [skipped.reason for skipped in index.skipped if Path(skipped.path) == path]
    assert len(reason) > 5
    return str(reason)


def check_positions(folder: Path, written: Written, series: str | None = None) -> spineimg.CTVolume:
    volume = spineimg.load(folder, series=series)
    assert factory.worst_position_mm(volume, written) < 1e-6
    return volume


# -- clean ------------------------------------------------------------------------------------------------------------


def test_a_clean_series_is_usable_without_a_word(tmp_path: Path) -> None:
    written = clean(tmp_path, 9, layout=factory.Layout(nested=True))
    index = scan([tmp_path])
    entry = only(index)
    assert (entry.verdict, entry.notes, entry.n_slices) == (USABLE, (), 9)
    assert (index.skipped, index.n_not_dicom) == ((), 0)
    assert entry.info.series_instance_uid == written.series_uid
    assert entry.info.part is None
    assert {record.sop_instance_uid for record in entry.records} == set(written.sop_uids)
    assert {Path(record.path) for record in entry.records} == set(written.paths)


def test_records_geometry_and_source_agree(tmp_path: Path) -> None:
    """Record k, origin k and SOP instance k are one slice. Planted: records left unsorted."""
    written = factory.write_series(tmp_path, factory.pattern(7), factory.feet_first(7))
    entry, volume = only(scan([tmp_path])), spineimg.load(tmp_path)
    for k, record in enumerate(entry.records):
        true = written.sop_uids.index(str(record.sop_instance_uid))
        assert volume.source.sop_instance_uid(k) == record.sop_instance_uid
        np.testing.assert_allclose(entry.geometry.origins_lps_mm[k], written.lattice.origins_lps_mm[true], atol=1e-9)
        np.testing.assert_array_equal(volume.read(k), written.hu[true])


def test_files_may_be_given_one_by_one_and_twice(tmp_path: Path) -> None:
    """Planted: a path given twice counts as a duplicate slice."""
    written = clean(tmp_path, 5)
    entry = only(scan([*written.paths, written.paths[2], tmp_path]))
    assert (entry.verdict, entry.n_slices) == (USABLE, 5)


# -- duplicates, gaps, places -----------------------------------------------------------------------------------------


def test_identical_duplicates_are_dropped_and_noted(tmp_path: Path) -> None:
    """Two slices are there twice under other SOP UIDs."""
    lattice, hu = factory.axial(8), factory.pattern(8)
    twice = [0, 1, 2, 2, 3, 4, 5, 6, 6, 7]
    factory.write_series(tmp_path, hu[twice], lattice.keep(twice))
    entry = only(scan([tmp_path]))
    assert (entry.verdict, entry.n_slices) == (NOTED, 8)
    assert codes(entry) == {"duplicate_slices"}
    volume = spineimg.load(tmp_path)
    assert volume.geometry.shape[0] == 8
    np.testing.assert_allclose(volume.geometry.steps_mm, 1.5, atol=1e-6)
    assert {int(np.flatnonzero((hu == volume.read(k)).all(axis=(1, 2)))[0]) for k in range(8)} == set(range(8))


@pytest.mark.parametrize("change", [1, 500])
def test_duplicates_that_differ_in_one_voxel_are_refused(tmp_path: Path, change: int) -> None:
    """One voxel of one copy is 1 HU off: nobody can say which is right. Planted: the first copy taken on trust."""
    lattice, hu = factory.axial(8), factory.pattern(8)
    twice = [0, 1, 2, 2, 3, 4, 5, 6, 7]
    other = hu[twice].copy()
    other[3, 5, 6] = other[3, 5, 6] - change if other[3, 5, 6] > 0 else other[3, 5, 6] + change
    factory.write_series(tmp_path, other, lattice.keep(twice))
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "duplicate_slices" in codes(entry)


def test_duplicates_with_equal_bytes_but_another_rescale_are_refused(tmp_path: Path) -> None:
    """Equal stored values, intercepts 100 HU apart. Planted: duplicates compared by their bytes."""
    twice = [0, 1, 2, 2, 3, 4]
    hu = factory.pattern(5).clip(-1000, 1500)[twice].copy()
    hu[3] += 100
    encoding = Encoding(intercept=[-1024.0] * 3 + [-924.0] + [-1024.0] * 2)
    factory.write_series(tmp_path, hu, factory.axial(5).keep(twice), encoding=encoding)
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "duplicate_slices" in codes(entry)


def test_one_sop_instance_in_two_files_is_one_slice(tmp_path: Path) -> None:
    """The same file copied under another name."""
    written = clean(tmp_path, 6)
    shutil.copy(written.paths[3], tmp_path / "copy of it")
    entry = only(scan([tmp_path]))
    assert (entry.verdict, entry.n_slices) == (NOTED, 6)
    assert "duplicate_slices" in codes(entry)


def test_duplicates_in_other_encodings_are_compared_by_value(tmp_path: Path) -> None:
    """A slice as raw, and again as JPEG-LS."""
    lattice, hu = factory.axial(6), factory.pattern(6)
    written = factory.write_series(tmp_path, hu, lattice)
    coded = Encoding(transfer_syntax=factory.JPEGLSLossless)
    again = factory.write_series(
        tmp_path / "again", hu[2:3], lattice.keep([2]), encoding=coded, series_uid=written.series_uid
    )
    entry = only(scan([tmp_path]))
    assert again.series_uid == entry.info.series_instance_uid
    assert (entry.verdict, entry.n_slices) == (NOTED, 6)


def test_two_fields_of_view_in_one_plane_are_refused(tmp_path: Path) -> None:
    """At each place two slices side by side, 30 mm apart in the plane: neither a duplicate nor one volume."""
    lattice = factory.axial(5)
    beside = replace(lattice, origins_lps_mm=lattice.origins_lps_mm + np.array([30.0, 0, 0]))
    both = replace(lattice, origins_lps_mm=np.concatenate([lattice.origins_lps_mm, beside.origins_lps_mm]))
    hu = factory.pattern(5)
    factory.write_series(tmp_path, np.concatenate([hu, hu]), both)
    assert {entry.verdict for entry in scan([tmp_path]).series} == {REFUSED}


def test_all_slices_at_one_place(tmp_path: Path) -> None:
    factory.write_series(tmp_path, factory.pattern(6), factory.axial_at(np.zeros(6)))
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "one_position" in codes(entry)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices_are_refused_but_readable(tmp_path: Path, count: int) -> None:
    """A verdict binds measuring; the pixels may be looked at, and assess says no."""
    written = clean(tmp_path, count)
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "too_few_slices" in codes(entry)
    volume = check_positions(tmp_path, written)
    assert volume.verdict is REFUSED
    with pytest.raises(SeriesError, match="too_few_slices"):
        spineimg.assess(volume, RoiSet(()))
    assert factory.worst_position_mm(spineimg.load(written.paths[0]), written) < 1e-6


def test_three_slices_are_enough(tmp_path: Path) -> None:
    clean(tmp_path, 3)
    assert only(scan([tmp_path])).verdict is USABLE


# -- what is no axial CT ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_uid", [False, True], ids=["own series", "same series"])
@pytest.mark.parametrize("shape", [(12, 17), (40, 25)], ids=["same matrix", "other matrix"])
def test_localizers_are_left_out(tmp_path: Path, same_uid: bool, shape: tuple[int, int]) -> None:
    """A frontal and a lateral scout lie among the slices. Planted: the localizer's origin among the slices'."""
    written = clean(tmp_path, 10)
    for name, lattice in (("front", factory.coronal(1)), ("side", factory.sagittal(1))):
        uid = written.series_uid if same_uid else factory.new_uid()
        hu = factory.pattern(1, *shape, seed=99)
        factory.write_series(tmp_path / name, hu, lattice, tags=LOCALIZER, series_uid=uid)
    index = scan([tmp_path])
    scouts = [entry for entry in index.series if "localizer" in codes(entry)]
    assert sum(entry.n_slices for entry in scouts) == 2
    assert {entry.verdict for entry in scouts} == {REFUSED}
    assert check_positions(tmp_path, written).verdict is USABLE
    parts = [entry.info.part for entry in index.series]
    assert (None not in parts) if same_uid else set(parts) == {None}


def test_localizer_frames_of_an_enhanced_file_are_left_out(tmp_path: Path) -> None:
    """Two of eight frames are scouts by their own frame type. Planted: the file's ImageType for all frames."""
    scout = ("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
    groups = factory.Groups(frame_types={6: scout, 7: scout})
    lattices = [factory.axial(6), factory.axial_at([3.2, 9.1])]
    written = factory.write_enhanced(tmp_path / "e", factory.pattern(8), lattices, groups=groups)
    index = scan([tmp_path])
    assert sorted((entry.n_slices, entry.verdict) for entry in index.series) == [(2, REFUSED), (6, USABLE)]
    assert {frozenset(codes(entry)) for entry in index.series if entry.n_slices == 6} == {frozenset()}
    volume = spineimg.load(tmp_path)
    assert {factory.truth_slice(written, volume.read(k)) for k in range(6)} == set(range(6))


def test_a_localizer_alone_is_refused(tmp_path: Path) -> None:
    factory.write_series(tmp_path, factory.pattern(1), factory.coronal(1), tags=LOCALIZER)
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "localizer" in codes(entry)


def test_axial_localizers_in_the_same_planes_are_left_out(tmp_path: Path) -> None:
    """Orientation and matrix are those of the slices: only ImageType tells. Nothing of them may enter the volume."""
    written = clean(tmp_path, 10)
    lattice = factory.axial_at([3.2, 9.1])
    hu = factory.pattern(2, seed=98)
    factory.write_series(tmp_path / "s", hu, lattice, tags=LOCALIZER, series_uid=written.series_uid)
    usable = [entry for entry in scan([tmp_path]).series if entry.verdict is not REFUSED]
    for entry in usable:
        check_positions(tmp_path, written, entry.info.name)
    if not usable:
        assert any("localizer" in codes(entry) for entry in scan([tmp_path]).series)


@pytest.mark.parametrize("lattice", [factory.coronal(7), factory.sagittal(7)], ids=["coronal", "sagittal"])
@pytest.mark.parametrize("tags", [REFORMAT, None], ids=["named derived", "named original"])
def test_reformats_in_the_same_series_are_a_part_of_their_own(
    tmp_path: Path, lattice: factory.Lattice, tags: dict[str, Any] | None
) -> None:
    """One SeriesInstanceUID, same matrix, two orientations: UID#1 and UID#2. Planted: parts joined."""
    written = clean(tmp_path, 10)
    reformat = factory.write_series(
        tmp_path / "mpr", factory.pattern(7, seed=3), lattice, tags=tags, series_uid=written.series_uid
    )
    index = scan([tmp_path])
    by_count = {entry.n_slices: entry for entry in index.series}
    assert set(by_count) == {7, 10}
    assert {entry.info.name for entry in index.series} == {f"{written.series_uid}#{n}" for n in (1, 2)}
    assert by_count[10].verdict is not REFUSED
    check_positions(tmp_path, written, by_count[10].info.name)
    if tags is REFORMAT:
        assert by_count[7].verdict is REFUSED
        assert {"derived_image", "mixed_orientation"} & codes(by_count[7])
        assert check_positions(tmp_path, written).geometry.shape[0] == 10
    else:
        check_positions(tmp_path, reformat, by_count[7].info.name)


def test_radial_reformats_make_no_volume(tmp_path: Path) -> None:
    """Every slice is turned 10° about z against the last."""
    uid = factory.new_uid()
    hu = factory.pattern(9)
    for k in range(9):
        a = np.radians(10 * k)
        lattice = replace(factory.axial(1), orientation=(float(np.cos(a)), float(np.sin(a)), 0, 0, 0, -1))
        factory.write_series(tmp_path / str(k), hu[k : k + 1], lattice, series_uid=uid)
    index = scan([tmp_path])
    assert {entry.verdict for entry in index.series} == {REFUSED}
    with pytest.raises(SeriesError):
        spineimg.load(tmp_path)


@pytest.mark.parametrize("degrees", [0.5, 3.0])
def test_a_turn_between_slices_is_never_taken_for_parallel(tmp_path: Path, degrees: float) -> None:
    """Half of the slices are turned a little about x; at 350 mm, 0.5° is 3 mm. Whatever is usable is right."""
    uid, hu = factory.new_uid(), factory.pattern(12)
    turned = factory.oblique(6, degrees=degrees)
    above = replace(turned, origins_lps_mm=turned.origins_lps_mm + np.array([0, 0, 9.0]))
    parts = [(factory.axial(6), hu[:6]), (above, hu[6:])]
    written = [
        factory.write_series(tmp_path / str(n), h, lattice, series_uid=uid) for n, (lattice, h) in enumerate(parts)
    ]
    for entry in scan([tmp_path]).series:
        if entry.verdict is REFUSED:
            continue
        volume = spineimg.load(tmp_path, series=entry.info.name)
        half = 0 if (written[0].hu == volume.read(0)).all(axis=(1, 2)).any() else 1
        assert factory.worst_position_mm(volume, written[half]) < 1e-6


DERIVED = [
    ["DERIVED", "SECONDARY", "AXIAL"],
    ["DERIVED", "SECONDARY", "REFORMATTED"],
    ["DERIVED", "SECONDARY", "OTHER", "CSAMANIPULATED"],
    ["DERIVED", "SECONDARY"],
]


@pytest.mark.parametrize("image_type", DERIVED, ids="-".join)
def test_derived_secondary_images_are_refused(tmp_path: Path, image_type: list[str]) -> None:
    clean(tmp_path, tags={"ImageType": image_type})
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "derived_image" in codes(entry)
    assert spineimg.load(tmp_path).verdict is REFUSED


@pytest.mark.parametrize("image_type", [["ORIGINAL", "PRIMARY"], ["ORIGINAL", "SECONDARY", "AXIAL"]], ids="-".join)
def test_original_images_are_usable(tmp_path: Path, image_type: list[str]) -> None:
    clean(tmp_path, tags={"ImageType": image_type})
    assert only(scan([tmp_path])).verdict is not REFUSED


MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "MR", "SOPClassUID": MR_STORAGE},
        {"Modality": "PT", "SOPClassUID": PET_STORAGE},
        {"Modality": "MR"},
        {"SOPClassUID": MR_STORAGE},
    ],
    ids=["MR", "PET", "CT class but MR", "MR class but CT"],
)
def test_other_modalities_are_not_ct(tmp_path: Path, tags: dict[str, str]) -> None:
    clean(tmp_path, tags=tags)
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "not_ct" in codes(entry)


def test_a_report_is_not_ct(tmp_path: Path) -> None:
    """A structured report beside the slices is listed and left out."""
    written = clean(tmp_path / "ct")
    path = _strip(written.paths[0], tmp_path / "report", ["PixelData", "Rows", "Columns", "ImagePositionPatient"])
    _edit(path, Modality="SR", SOPClassUID=BASIC_TEXT_SR, SeriesInstanceUID=factory.new_uid())
    index = scan([tmp_path])
    (report,) = [entry for entry in index.series if entry.verdict is REFUSED]
    assert "not_ct" in codes(report)
    assert check_positions(tmp_path, written).verdict is USABLE


def test_a_colour_screenshot_of_a_dose_report_is_refused(tmp_path: Path) -> None:
    """Modality CT, but RGB secondary capture without a position."""
    written = clean(tmp_path / "ct")
    shot = tmp_path / "shot"
    gone = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"]
    _strip(written.paths[0], shot, gone)
    ds = pydicom.dcmread(shot)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    ds.SeriesInstanceUID, ds.SOPInstanceUID = factory.new_uid(), factory.new_uid()
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(ds.Rows * ds.Columns * 3)
    ds.save_as(shot)
    index = scan([tmp_path])
    assert sorted(entry.verdict for entry in index.series) == [REFUSED, USABLE]
    check_positions(tmp_path, written)


# -- missing and absurd headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_without_place_there_is_no_volume(tmp_path: Path, tag: str) -> None:
    """The verdict names the tag that is missing."""
    clean(tmp_path, tags={tag: None})
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert tag in said(entry)
    with pytest.raises(SeriesError, match=tag):
        spineimg.load(tmp_path)


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows"])
def test_one_slice_without_place_is_not_silently_lost(tmp_path: Path, tag: str) -> None:
    """Slice 4 of 9 has no place: the series is refused, or the rest has a gap there and the file is named."""
    written = clean(tmp_path, 9, slice_tags={4: {tag: None}})
    index = scan([tmp_path])
    assert named(written.paths[4], index)
    for entry in index.series:
        if entry.verdict is not REFUSED:
            assert entry.n_slices == 8
            assert "missing_slices" in codes(entry)
            check_positions(tmp_path, written, entry.info.name)


TEXTS = {
    "ImagePositionPatient": [["0", "0", "nan"], ["0", "0"], ["inf", "0", "0"], ["1e300", "0", "0"], ["left", "0", "0"]],
    "ImageOrientationPatient": [
        ["0"] * 6,
        ["1", "0", "0", "1", "0", "0"],
        ["1", "0", "0", "0.5", "0.8", "0"],
        ["2", "0", "0", "0", "2", "0"],
        ["1", "0", "0"],
        ["nan"] * 6,
    ],
    "PixelSpacing": [
        ["0", "0"],
        ["nan", "nan"],
        ["-0.7", "0.7"],
        ["0.7"],
        ["inf", "0.7"],
        ["0.7", "0.7", "0.7"],
        [""],
        ["0.7", "0_7"],
    ],
    "RescaleSlope": [["0"], ["nan"], ["inf"], ["one"]],
    "RescaleIntercept": [["nan"], ["-inf"], ["1e400"]],
}
ABSURD = [(tag, value) for tag, values in TEXTS.items() for value in values]


@pytest.mark.parametrize(("tag", "value"), ABSURD, ids=[f"{tag}={'/'.join(v)[:20]}" for tag, v in ABSURD])
def test_absurd_values_are_refused_by_name(tmp_path: Path, tag: str, value: list[str]) -> None:
    """No number may come of such a header, and no traceback. Planted: NaN spacing read as 1."""
    clean(tmp_path)
    for path in tmp_path.iterdir():
        _replace_text(path, tag, "\\".join(value))
    index = scan([tmp_path])
    assert all(entry.verdict is REFUSED for entry in index.series)
    everything = " ".join([said(e) for e in index.series] + [s.reason for s in index.skipped])
    assert tag.removesuffix("Slope").removesuffix("Intercept") in everything
    with pytest.raises(SpineImgError):
        _read_all(spineimg.load(tmp_path))


@pytest.mark.parametrize(
    "tags",
    [
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 0},
        {"Columns": 0},
        {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
        {"BitsAllocated": 64},
        {"BitsAllocated": 0},
        {"BitsStored": 0},
        {"BitsStored": 40},
        {"SamplesPerPixel": 3},
        {"PixelRepresentation": 7},
        {"PixelRepresentation": None},
        {"BitsAllocated": None},
        {"Rows": None},
        {"NumberOfFrames": 10**9},
        {"NumberOfFrames": -1},
    ],
    ids=str,
)
def test_absurd_pixel_descriptions_give_no_number(tmp_path: Path, tags: dict[str, int | None]) -> None:
    """The pixels do not fill what the header promises: refused, skipped, or an error, in little memory."""
    clean(tmp_path, tags=tags)
    index = scan([tmp_path])
    assert index.series or index.skipped
    assert all(entry.verdict is not USABLE for entry in index.series)
    with pytest.raises(SpineImgError):
        _read_all(spineimg.load(tmp_path))


@pytest.mark.parametrize("photometric", ["PALETTE COLOR", "RGB"])
def test_colour_indices_are_no_hounsfield_units(tmp_path: Path, photometric: str) -> None:
    """One sample a pixel, but it is the number of a colour."""
    clean(tmp_path, tags={"PhotometricInterpretation": photometric})
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert photometric in said(entry)


@pytest.mark.parametrize("tags", [{"Rows": 11}, {"Columns": 16}, {"Rows": 6, "Columns": 17}], ids=str)
def test_more_pixels_than_the_header_promises_are_not_passed_over(tmp_path: Path, tags: dict[str, int]) -> None:
    """12 x 17 pixels lie there: at 16 columns every row would slide by one. One byte of padding is no matter."""
    clean(tmp_path, tags=tags)
    index = scan([tmp_path])
    assert index.series or index.skipped
    assert all(entry.verdict is not USABLE for entry in index.series)


@pytest.mark.parametrize(
    "gone", [["RescaleSlope", "RescaleIntercept"], ["RescaleIntercept"], ["RescaleSlope"]], ids=str
)
def test_a_missing_rescale_is_never_taken_as_none_in_silence(tmp_path: Path, gone: list[str]) -> None:
    clean(tmp_path, tags=dict.fromkeys(gone))
    entry = only(scan([tmp_path]))
    assert entry.verdict is not USABLE
    assert "Rescale" in said(entry)


@pytest.mark.parametrize("rescale_type", ["OD", "MGML", "Z_EFF"])
def test_values_that_are_no_hounsfield_units_are_not_usable(tmp_path: Path, rescale_type: str) -> None:
    """RescaleType other than HU: material density, effective Z and the like."""
    clean(tmp_path, tags={"RescaleType": rescale_type})
    entry = only(scan([tmp_path]))
    assert entry.verdict is not USABLE
    assert rescale_type in said(entry)


def test_series_without_pixels(tmp_path: Path) -> None:
    clean(tmp_path, tags={"PixelData": None})
    for path in tmp_path.iterdir():
        _strip(path, path, ["PixelData"])
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "no_pixels" in codes(entry)
    with pytest.raises(SeriesError):
        spineimg.load(tmp_path)


def test_one_slice_without_pixels_is_a_gap(tmp_path: Path) -> None:
    written = clean(tmp_path, 9)
    _strip(written.paths[4], written.paths[4], ["PixelData"])
    index = scan([tmp_path])
    assert named(written.paths[4], index)
    usable = [entry for entry in index.series if entry.verdict is not REFUSED]
    for entry in usable:
        assert "missing_slices" in codes(entry)
        check_positions(tmp_path, written, entry.info.name)
    assert usable or any("no_pixels" in codes(entry) for entry in index.series)


def test_an_undecodable_encoding_is_refused_by_name(tmp_path: Path) -> None:
    """MPEG-4 is no CT slice's encoding: the verdict is there before a pixel is asked for, and names it."""
    written = clean(tmp_path)
    for path in written.paths:
        _edit_meta(path, "1.2.840.10008.1.2.4.102")
    entry = only(scan([tmp_path]))
    assert entry.verdict is REFUSED
    assert "undecodable" in codes(entry)
    assert "MPEG-4" in said(entry) or "1.2.840.10008.1.2.4.102" in said(entry)
    with pytest.raises(SeriesError):
        _read_all(spineimg.load(tmp_path))


def test_an_unknown_transfer_syntax_is_refused_by_its_number(tmp_path: Path) -> None:
    written = clean(tmp_path)
    for path in written.paths:
        _edit_meta(path, "1.2.3.4.5")
    index = scan([tmp_path])
    assert all(entry.verdict is REFUSED for entry in index.series)
    everything = " ".join([said(e) for e in index.series] + [s.reason for s in index.skipped])
    assert "1.2.3.4.5" in everything
    with pytest.raises(SpineImgError):
        _read_all(spineimg.load(tmp_path))


# -- files that are broken or no DICOM --------------------------------------------------------------------------------


def test_other_files_are_counted_or_named_and_never_fatal(tmp_path: Path) -> None:
    written = clean(tmp_path / "ct")
    (tmp_path / "README.txt").write_text("Dear reader, these are the slices of the patient.\n" * 40)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9)
    (tmp_path / "noise").write_bytes(np.random.default_rng(1).bytes(5000))
    (tmp_path / "zeros").write_bytes(bytes(4096))
    (tmp_path / "x").write_bytes(b"DICM")
    (tmp_path / "empty.dcm").touch()
    index = scan([tmp_path])
    assert only(index).verdict is USABLE
    assert "zero" in skipped_reason(index, tmp_path / "empty.dcm").lower()
    assert index.n_not_dicom + len(index.skipped) == 7
    assert index.n_not_dicom >= 5
    check_positions(tmp_path, written)


def test_a_folder_without_dicom_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    index = scan([tmp_path])
    assert (index.series, index.n_not_dicom) == ((), 1)
    with pytest.raises(SeriesError) as error:
        spineimg.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpineImgError, match="nowhere"):
        spineimg.load(tmp_path / "nowhere")


def test_dicomdir_is_named(tmp_path: Path) -> None:
    written = clean(tmp_path / "ct", tags={"PatientID": "1", "StudyID": "1", "AccessionNumber": ""})
    _write_disc(written, tmp_path / "disc")
    index = scan([tmp_path / "disc"])
    assert "DICOMDIR" in skipped_reason(index, tmp_path / "disc" / "DICOMDIR")
    assert (only(index).verdict, only(index).n_slices) == (USABLE, 8)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """Root may read everything, so a link to nowhere stands for what cannot be opened."""
    written = clean(tmp_path)
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    if os.geteuid() != 0:
        written.paths[3].chmod(0)
    index = scan([tmp_path])
    skipped_reason(index, tmp_path / "lost")
    assert only(index).n_slices == (8 if os.geteuid() == 0 else 7)


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    """A named pipe without a writer, and a link to an endless device."""
    clean(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    index = scan([tmp_path])
    assert only(index).n_slices == 8
    assert skipped_reason(index, tmp_path / "pipe")
    assert skipped_reason(index, tmp_path / "endless")


@pytest.mark.parametrize("keep", [140, 200, 300, 500, 800])
def test_a_truncated_header_is_named_and_leaves_a_gap(tmp_path: Path, keep: int) -> None:
    """Planted: a cut header read as far as it goes."""
    written = clean(tmp_path, 9)
    size = written.paths[4].stat().st_size
    header = size - written.stored[0].nbytes
    factory.truncate(written.paths[4], min(keep, header - 20))
    index = scan([tmp_path])
    assert skipped_reason(index, written.paths[4])
    entry = only(index)
    assert (entry.verdict, entry.n_slices) == (NOTED, 8)
    assert "missing_slices" in codes(entry)
    check_positions(tmp_path, written)


@pytest.mark.parametrize("missing", [1, 2, 100, 407, 408])
def test_truncated_pixels_are_named_and_leave_a_gap(tmp_path: Path, missing: int) -> None:
    """The last bytes of slice 4's pixels (408 of them) are gone. Planted: cut pixels filled with zeros."""
    written = clean(tmp_path, 9)
    assert written.stored[4].nbytes == 408
    factory.truncate(written.paths[4], written.paths[4].stat().st_size - missing)
    index = scan([tmp_path])
    assert "truncated" in skipped_reason(index, written.paths[4]) or "short" in skipped_reason(index, written.paths[4])
    entry = only(index)
    assert (entry.verdict, entry.n_slices) == (NOTED, 8)
    assert "missing_slices" in codes(entry)
    check_positions(tmp_path, written)


@pytest.mark.parametrize("syntax", [factory.JPEGLSLossless, factory.RLELossless, factory.JPEGLosslessSV1])
@pytest.mark.parametrize("keep", [0.4, 0.9])
def test_truncated_compressed_pixels_give_no_number(tmp_path: Path, syntax: str, keep: float) -> None:
    """A cut stream is found from its length, or by the decoder: named either way, never half a picture."""
    written = factory.write_series(
        tmp_path, factory.pattern(5, 40, 48), factory.axial(5), encoding=Encoding(transfer_syntax=syntax)
    )
    path = written.paths[2]
    header = path.stat().st_size - len(pydicom.dcmread(path).PixelData)
    factory.truncate(path, header + int(keep * (path.stat().st_size - header)))
    index = scan([tmp_path])
    if named(path, index):
        check_positions(tmp_path, written)
        return
    volume = spineimg.load(tmp_path)
    k = [volume.source.sop_instance_uid(k) for k in range(5)].index(written.sop_uids[2])
    with pytest.raises(SpineImgError, match=path.name):
        volume.read(k)


def test_a_file_cut_after_it_was_listed_is_an_error_by_name(tmp_path: Path) -> None:
    """The index is a moment old when pixels are read."""
    written = clean(tmp_path, 5)
    volume = spineimg.load(tmp_path)
    k = [volume.source.sop_instance_uid(k) for k in range(5)].index(written.sop_uids[3])
    factory.truncate(written.paths[3], written.paths[3].stat().st_size - 10)
    with pytest.raises(SpineImgError, match=written.paths[3].name):
        volume.read(k)
    written.paths[3].unlink()
    with pytest.raises(SpineImgError, match=written.paths[3].name):
        volume.read(k)


# -- links ------------------------------------------------------------------------------------------------------------


def test_linked_folders_files_and_loops(tmp_path: Path) -> None:
    """Links are followed, a loop ends, and a slice that two links lead to is one slice."""
    written = clean(tmp_path / "store" / "deep")
    study = tmp_path / "study"
    study.mkdir()
    (study / "ct").symlink_to(tmp_path / "store", target_is_directory=True)
    (tmp_path / "store" / "deep" / "back").symlink_to(tmp_path / "store", target_is_directory=True)
    (study / "self").symlink_to(study, target_is_directory=True)
    (study / "again").symlink_to(written.paths[0])
    os.link(written.paths[1], study / "hard link")
    entry = only(scan([study]))
    assert (entry.verdict, entry.n_slices) == (USABLE, 8)
    check_positions(study, written)


def test_a_linked_series_in_its_own_folder(tmp_path: Path) -> None:
    """A folder of links only, as a batch tool lays it out."""
    written = clean(tmp_path / "store")
    study = tmp_path / "study"
    study.mkdir()
    for n, path in enumerate(written.paths):
        (study / f"{n}").symlink_to(path)
    assert only(scan([study])).n_slices == 8
    check_positions(study, written)


# -- several series ---------------------------------------------------------------------------------------------------


def test_two_series_mixed_in_a_folder(tmp_path: Path) -> None:
    """Both lie in the same places: files are told apart by UID alone. Several usable ones must be named."""
    first = factory.write_series(tmp_path, factory.pattern(8, seed=1), factory.axial(8))
    second = factory.write_series(
        tmp_path, factory.pattern(8, seed=2), factory.axial(8), layout=factory.Layout(seed=77)
    )
    assert len(list(tmp_path.iterdir())) == 16
    index = scan([tmp_path])
    assert [(entry.verdict, entry.n_slices) for entry in index.series] == [(USABLE, 8)] * 2
    with pytest.raises(SeriesError) as error:
        spineimg.load(tmp_path)
    for written in (first, second):
        assert written.series_uid in str(error.value)
        check_positions(tmp_path, written, written.series_uid)


def test_a_series_that_is_not_there_is_an_error_with_the_list(tmp_path: Path) -> None:
    written = clean(tmp_path)
    with pytest.raises(SeriesError) as error:
        spineimg.load(tmp_path, series="1.2.3")
    assert "1.2.3" in str(error.value)
    assert written.series_uid in str(error.value)


def test_one_uid_with_two_matrix_sizes_is_two_parts(tmp_path: Path) -> None:
    """Same planes, other matrix: UID#1 and UID#2, both in place."""
    small = factory.write_series(tmp_path / "a", factory.pattern(8), factory.axial(8))
    large = factory.write_series(
        tmp_path / "b", factory.pattern(6, 20, 30), factory.axial(6, 2.0), series_uid=small.series_uid
    )
    index = scan([tmp_path])
    assert {entry.info.name for entry in index.series} == {f"{small.series_uid}#{n}" for n in (1, 2)}
    for entry in index.series:
        check_positions(tmp_path, small if entry.n_slices == 8 else large, entry.info.name)


def test_one_uid_with_two_pixel_spacings_is_never_one_volume(tmp_path: Path) -> None:
    small = factory.write_series(tmp_path / "a", factory.pattern(6), factory.axial(6))
    lattice = replace(factory.axial(6), spacing_mm=(0.5, 0.5), origins_lps_mm=factory.axial(12).origins_lps_mm[6:])
    zoomed = factory.write_series(tmp_path / "b", factory.pattern(6, seed=8), lattice, series_uid=small.series_uid)
    for entry in scan([tmp_path]).series:
        if entry.verdict is REFUSED:
            continue
        volume = spineimg.load(tmp_path, series=entry.info.name)
        mine = small if (small.hu == volume.read(0)).all(axis=(1, 2)).any() else zoomed
        assert factory.worst_position_mm(volume, mine) < 1e-6


def test_two_frames_of_reference_are_never_one_volume(tmp_path: Path) -> None:
    """The coordinates of two frames of reference have nothing to do with each other."""
    lattice, hu = factory.axial(12), factory.pattern(12)
    other = {"FrameOfReferenceUID": str(generate_uid(entropy_srcs=["other frame"]))}
    factory.write_series(tmp_path, hu, lattice, slice_tags=dict.fromkeys(range(6, 12), other))
    for entry in scan([tmp_path]).series:
        assert entry.verdict is REFUSED or entry.n_slices == 6


def test_series_without_uid_are_not_thrown_together(tmp_path: Path) -> None:
    """Anonymisers blank SeriesInstanceUID. Two such series in one folder are told apart or refused, one is loaded."""
    first = clean(tmp_path / "a", tags={"SeriesInstanceUID": ""})
    entry = only(scan([tmp_path / "a"]))
    assert entry.verdict is USABLE
    assert entry.info.series_instance_uid is None
    check_positions(tmp_path / "a", first)
    factory.write_series(tmp_path / "b", factory.pattern(8, seed=5), factory.axial(8), tags={"SeriesInstanceUID": ""})
    for entry in scan([tmp_path]).series:
        assert entry.verdict is REFUSED or entry.n_slices == 8


# -- what is said -----------------------------------------------------------------------------------------------------


def test_notes_are_sentences_with_codes(tmp_path: Path) -> None:
    """Every refused or noted series says why, in one line of prose and a code of the contract's style."""
    clean(tmp_path / "short", 2)
    factory.write_series(tmp_path / "tilted", factory.pattern(6), factory.tilted(6))
    clean(tmp_path / "derived", tags={"ImageType": DERIVED[0]})
    for entry in scan([tmp_path]).series:
        assert entry.notes
        for note in entry.notes:
            assert note.code == note.code.lower().replace(" ", "_")
            assert 10 < len(note.text) < 400
            assert "\n" not in note.text


def test_refusals_say_why_when_loading(tmp_path: Path) -> None:
    """With nothing usable and several candidates, the error lists the reasons."""
    clean(tmp_path / "a", tags={"ImageType": DERIVED[0]})
    clean(tmp_path / "b", tags={"Modality": "MR", "SOPClassUID": MR_STORAGE})
    reasons = {code for entry in scan([tmp_path]).series for code in codes(entry)}
    assert {"derived_image", "not_ct"} <= reasons
    with pytest.raises(SeriesError) as error:
        spineimg.load(tmp_path)
    for entry in scan([tmp_path]).series:
        assert entry.info.name in str(error.value)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("spineimg")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=60)


def test_the_listing_of_the_command_line(tmp_path: Path) -> None:
    """`series --json -` prints the contract's JSON and nothing else; refused series are exit 0."""
    written = factory.write_series(tmp_path / "tilted", factory.pattern(6), factory.tilted(6))
    clean(tmp_path / "short", 2, series_uid=factory.new_uid())
    (tmp_path / "empty").touch()
    done = run("series", str(tmp_path), "--json", "-")
    assert done.returncode == 0, done.stderr
    listing = json.loads(done.stdout)
    assert listing["schema"] == "spineimg.series/1"
    assert [item["path"] for item in listing["skipped"]] == [str(tmp_path / "empty")]
    tilted = next(s for s in listing["series"] if s["series_instance_uid"] == written.series_uid)
    names = {
        "series_instance_uid", "part", "description", "n_slices", "spacing_mm", "kvp", "kernel", "contrast",
        "slice_thickness_mm", "verdict", "notes",
    }  # fmt: skip
    assert names <= set(tilted)
    assert (tilted["n_slices"], tilted["verdict"], tilted["kvp"]) == (6, "usable_with_notes", 120.0)
    assert tilted["spacing_mm"] == pytest.approx([1.5 * np.cos(np.radians(15)), 0.7, 0.9], abs=1e-6)
    assert {note["code"] for note in tilted["notes"]} == {"gantry_tilt"}
    assert set(tilted["notes"][0]) == {"code", "text", "about"}
    short = next(s for s in listing["series"] if s is not tilted)
    assert (short["verdict"], short["n_slices"]) == ("refused", 2)
    text = done.stdout + done.stderr
    assert not [value for value in factory.PATIENT.values() if value in text]


def test_the_command_line_on_odd_names(tmp_path: Path) -> None:
    """A file name that is no UTF-8, and brackets that a terminal library might take for its own markup."""
    written = clean(tmp_path, 9, tags={"SeriesDescription": "Spine [/red] [bold", "ConvolutionKernel": "[/]"})
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe[bold].dcm"))
    factory.truncate(written.paths[4], 0.8)
    written.paths[4].rename(odd)
    for options in ([], ["--json", "-"]):
        done = run("series", str(tmp_path), *options)
        assert done.returncode == 0, done.stderr
        assert "Spine [/red] [bold" in done.stdout
        assert "[bold].dcm" in done.stdout


def test_the_command_line_on_nothing(tmp_path: Path) -> None:
    done = run("series", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr


# -- helpers ----------------------------------------------------------------------------------------------------------


def _read_all(volume: spineimg.CTVolume) -> None:
    for k in range(volume.geometry.shape[0]):
        volume.read(k)


def _write_disc(written: Written, folder: Path) -> None:
    """The files of a series as on a disc, with a DICOMDIR."""
    from pydicom.fileset import FileSet

    files = FileSet()
    for path in written.paths:
        files.add(path)
    files.write(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a FileSet leaves its temporary folder to the collector
        del files
        gc.collect()


def _strip(path: Path, target: Path, tags: list[str]) -> Path:
    ds = pydicom.dcmread(path)
    for tag in tags:
        del ds[tag]
    ds.save_as(target)
    return target


def _edit(path: Path, **values: str) -> None:
    ds = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.save_as(path)


def _edit_meta(path: Path, syntax: str) -> None:
    """Another transfer syntax in the file meta group, the rest of the bytes as they are."""
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    value = syntax.encode() + b"\x00" * (len(syntax) % 2)
    group = int.from_bytes(content[140:144], "little") + len(value) - length
    head = content[:140] + group.to_bytes(4, "little") + content[144:at]
    path.write_bytes(
        head + b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value + content[at + 8 + length :]
    )


def _replace_text(path: Path, tag: str, text: str) -> None:
    """Puts any bytes into a text element of an explicit little endian file, which no library would write."""
    number = pydicom.datadict.tag_for_keyword(tag)
    assert number is not None
    content = path.read_bytes()
    start = (number >> 16).to_bytes(2, "little") + (number & 0xFFFF).to_bytes(2, "little") + b"DS"
    at = content.index(start)
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    value = text.encode() + b" " * (len(text) % 2)
    path.write_bytes(content[:at] + start + len(value).to_bytes(2, "little") + value + content[at + 8 + length :])
