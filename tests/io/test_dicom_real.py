"""Real scans: the verdict on every folder of the test data, and voxels and places as independent readers have them.

The table of expected verdicts is in tests/README.md in words. Planted in a copy of the reader, each turns this file
red: slices left in the order of the files; the intercept dropped; padding's unsigned twin not recognised; a decoder's
signedness taken from the stream.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

import spineimg
from spineimg.errors import PixelError, SeriesError
from spineimg.io.index import scan
from spineimg.io.series import read_array
from spineimg.volume import Verdict

DATA = Path(os.environ.get("SPINEIMG_DATA", ""))
pytestmark = pytest.mark.skipif(not os.environ.get("SPINEIMG_DATA"), reason="SPINEIMG_DATA is not set: no real scans")

USABLE, NOTED, REFUSED = Verdict.USABLE, Verdict.USABLE_WITH_NOTES, Verdict.REFUSED

EXPECTED: dict[str, list[tuple[int, Verdict, set[str]]]] = {
    "tcga_ov_abdomen_ce": [(160, USABLE, set())],
    "cptac_pda_chest": [(102, USABLE, set())],
    "totalseg_example": [],
    "totalseg_example_ct_dicom": [(20, NOTED, {"overlapping_slices"})],
    "tptbox_L3_labels": [],
    "edge_tilt_philips_phantom": [(58, NOTED, {"gantry_tilt"})],
    "edge_d2n_gantrytilt": [(4, NOTED, {"gantry_tilt"})],
    "edge_d2n_sliceincrement": [(4, NOTED, {"missing_slices"}), (4, NOTED, {"missing_slices", "gantry_tilt"})],
    "edge_d2n_notavolume": [(4, REFUSED, {"one_position"})],
    "edge_dup_missing_dn": [(10, NOTED, {"duplicate_slices", "missing_slices"})],
    "edge_ts_ctimage": [(16, REFUSED, {"one_position", "undecodable"})],
    "edge_ts_nema_wg04": [
        (1, REFUSED, {"too_few_slices"}),
        (1, REFUSED, {"derived_image", "too_few_slices"}),
        (1, REFUSED, {"derived_image", "too_few_slices"}),
        (5, REFUSED, {"derived_image", "one_position"}),
        (13, REFUSED, {"one_position"}),
    ],
    "edge_enhanced_ct": [(22, REFUSED, {"derived_image", "duplicate_slices"})],
    "edge_localizer_philips": [(1, REFUSED, {"localizer", "too_few_slices"})],
    "edge_ct3slice_seg": [(1, REFUSED, {"not_ct"}), (3, NOTED, {"overlapping_slices"})],
}
"""Of every folder its series: slices, verdict, and the codes that must be among the notes of a refused series, or be
all the codes of a noted one."""


@pytest.mark.parametrize("folder", EXPECTED)
def test_verdicts(folder: str) -> None:
    index = scan([DATA / folder])
    assert index.skipped == ()
    found = sorted(index.series, key=lambda entry: (entry.n_slices, len(entry.notes)))
    expected = EXPECTED[folder]
    assert [(entry.n_slices, entry.verdict) for entry in found] == [(n, verdict) for n, verdict, _ in expected]
    for entry, (_, verdict, codes) in zip(found, expected, strict=True):
        have = {note.code for note in entry.notes}
        assert codes <= have if verdict is REFUSED else codes == have


def test_every_folder_of_the_data_has_an_expected_verdict() -> None:
    assert {path.name for path in DATA.iterdir() if path.is_dir()} == set(EXPECTED)


def test_gaps_of_real_series() -> None:
    """5, 5 and 10 mm; 0.778, 0.778 and 1.556 mm of table travel at 15.5°, so 0.750 mm and 1.499 mm along the normal."""
    for part, usual in (("001", 5.0), ("002", 0.778 * np.cos(np.radians(15.5)))):
        geometry = spineimg.load(DATA / "edge_d2n_sliceincrement" / part).geometry
        np.testing.assert_allclose(geometry.steps_mm, [usual, usual, 2 * usual], atol=1e-3)
        assert [gap.after for gap in geometry.gaps] == [2]
    index = scan([DATA / "edge_dup_missing_dn"])
    (entry,) = index.series
    assert len(entry.geometry.gaps) == 8
    assert max(gap.width_mm for gap in entry.geometry.gaps) == pytest.approx(115.0)


def test_tilt_of_real_series() -> None:
    """Shear from the positions: 16.5° with a tag that says so, 14.0° without any tag."""
    philips = spineimg.load(DATA / "edge_tilt_philips_phantom")
    assert philips.geometry.shear_deg == pytest.approx(16.5, abs=0.01)
    assert philips.geometry.spacing_mm[0] == pytest.approx(2.5 * np.cos(np.radians(16.5)), abs=1e-4)
    siemens = spineimg.load(DATA / "edge_d2n_gantrytilt")
    assert siemens.geometry.shear_deg == pytest.approx(14.0, abs=0.01)


ACQUIRED = {
    "tcga_ov_abdomen_ce": (120.0, True, "FC13", 3.0, "FFS"),
    "cptac_pda_chest": (120.0, None, "B40f", 3.0, "HFS"),
    "totalseg_example_ct_dicom": (120.0, True, "Br38f\\3", 3.0, "HFS"),
    "edge_tilt_philips_phantom": (120.0, None, "UB", 2.5, "HFS"),
    "edge_d2n_gantrytilt": (None, None, None, None, "HFS"),
    "edge_dup_missing_dn": (120.0, True, "STANDARD", 2.5, "HFS"),
}


@pytest.mark.parametrize("folder", ACQUIRED)
def test_acquisition(folder: str) -> None:
    found = spineimg.load(DATA / folder).acquisition
    told = (found.kvp, found.contrast, found.kernel, found.slice_thickness_mm, found.patient_position)
    assert told == ACQUIRED[folder]


# -- against an independent reader ------------------------------------------------------------------------------------


def _corners(shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return [(k, r, c) for k in (0, shape[0] - 1) for r in (0, shape[1] - 1) for c in (0, shape[2] - 1)]


@pytest.mark.parametrize("folder", ["tcga_ov_abdomen_ce", "cptac_pda_chest", "totalseg_example_ct_dicom"])
def test_well_formed_series_are_those_of_simpleitk(folder: str) -> None:
    """Every voxel of the whole volume, and the place of every corner to 0.01 mm."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(DATA / folder)))
    image = reader.Execute()
    volume = spineimg.load(DATA / folder)
    whole = read_array(volume)
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, SimpleITK.GetArrayViewFromImage(image))
    for k, r, c in _corners(volume.geometry.shape):
        theirs = image.TransformIndexToPhysicalPoint((c, r, k))
        np.testing.assert_allclose(volume.geometry.lps_at((k, r, c)), theirs, atol=0.01)


@pytest.mark.parametrize(
    "folder", ["edge_tilt_philips_phantom", "edge_d2n_gantrytilt", "edge_d2n_sliceincrement/002", "edge_dup_missing_dn"]
)
def test_uneven_and_sheared_series_are_simpleitks_file_by_file(folder: str) -> None:
    """Where a series reader goes wrong, single files still tell their place. Every tenth slice's pixels too."""
    import SimpleITK

    (entry,) = scan([DATA / folder]).series
    volume = spineimg.load(DATA / folder)
    for k, record in enumerate(entry.records):
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(record.path))
        reader.ReadImageInformation()
        origin = np.array(reader.GetOrigin())
        directions = np.array(reader.GetDirection()).reshape(3, 3)
        spacing = reader.GetSpacing()
        for r, c in ((0, 0), (511, 0), (0, 511), (511, 511)):
            theirs = origin + directions[:, 0] * spacing[0] * c + directions[:, 1] * spacing[1] * r
            np.testing.assert_allclose(volume.geometry.lps_at((k, r, c)), theirs, atol=1e-3)
        if k % 10 == 0:
            np.testing.assert_array_equal(volume.read(k), SimpleITK.GetArrayFromImage(reader.Execute())[0])


@pytest.mark.parametrize(
    ("name", "tag", "voxels"),
    [
        ("edge_ts_nema_wg04/CT1_UNC", -2000, 55_772),
        ("edge_ct3slice_seg/ct-3slice/02.dcm", -2000, 55_772),
        ("edge_ts_ctimage/CTImage.dcm", -32768, 55_772),
        ("edge_dup_missing_dn/CT20.dcm", -2000, 55_772),
        ("edge_tilt_philips_phantom/I10", None, 0),
    ],
)
def test_padding_of_real_scans(name: str, tag: int | None, voxels: int) -> None:
    """The rim outside the reconstruction circle, in stored values as pydicom has them. In edge_dup_missing_dn -2000 is
    written as its unsigned twin 63536 and the rim holds another value; in edge_ts_ctimage the rim is not what the tag
    says. Nothing in a patient reads so low, so both rims are no measurement."""
    volume = spineimg.load(DATA / name)
    stored = pydicom.dcmread(DATA / name).pixel_array
    hu = volume.read(0)
    np.testing.assert_array_equal(hu, stored.astype(np.int32) - 1024)
    np.testing.assert_array_equal(volume.valid(0, hu), (stored != tag) & (hu > -1500))
    assert int((~volume.valid(0, hu)).sum()) == voxels
    assert volume.source.padding_hu(0) == (None if tag is None else (tag - 1024.0, tag - 1024.0))


# -- encodings --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> np.ndarray:
    volume = spineimg.load(path)
    return np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])


def _syntax(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


LOSSY = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91))
UNDECODABLE = {"1.2.840.10008.1.2.4.53": "Spectral Selection", "1.2.840.10008.1.2.4.55": "Full Progression"}

SAMPLES = [
    ("edge_ts_ctimage", "CTImage.dcm", "CTImage.dcm_*"),
    ("edge_ts_nema_wg04", "CT1_UNC", "CT1_*"),
    ("edge_ts_nema_wg04", "CT2_UNC", "CT2_*"),
    ("edge_enhanced_ct", "CT0012.explicit_little_endian.dcm", "*.dcm"),
]


@pytest.mark.parametrize(("folder", "plain", "others"), SAMPLES, ids=[f"{s[0]}-{s[1]}" for s in SAMPLES])
def test_all_lossless_encodings_hold_the_same_pixels(folder: str, plain: str, others: str) -> None:
    """Planted: signed 16-bit JPEG lossless read as unsigned; fragments of one frame taken for frames."""
    truth = _read(DATA / folder / plain)
    compared = 0
    for path in sorted((DATA / folder).glob(others)):
        if _syntax(path) not in (*LOSSY, *UNDECODABLE):
            np.testing.assert_array_equal(_read(path), truth, err_msg=path.name)
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize(("folder", "plain", "others"), SAMPLES[:3], ids=[f"{s[0]}-{s[1]}" for s in SAMPLES[:3]])
def test_lossy_encodings_are_decoded_as_simpleitk_does(folder: str, plain: str, others: str) -> None:
    """JPEG baseline and extended (with a fractional slope), near-lossless JPEG-LS, lossy JPEG 2000."""
    import SimpleITK

    truth = _read(DATA / folder / plain)
    for path in sorted((DATA / folder).glob(others)):
        if _syntax(path) in LOSSY:
            values = _read(path)
            theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
            np.testing.assert_allclose(values, theirs, rtol=0, atol=1e-3, err_msg=path.name)
            assert 0 < np.abs(values - truth).mean() < 40, path.name


@pytest.mark.parametrize("syntax", UNDECODABLE)
def test_what_cannot_be_decoded_is_refused_by_name_of_syntax_and_file(syntax: str) -> None:
    (path,) = (DATA / "edge_ts_ctimage").glob(f"*{syntax}.dcm")
    (entry,) = scan([path]).series
    assert entry.verdict is REFUSED
    (note,) = [note for note in entry.notes if note.code == "undecodable"]
    for word in (syntax, UNDECODABLE[syntax], path.name):
        assert word in note.text
    with pytest.raises(PixelError) as error:
        _read(path)
    assert syntax in str(error.value)
    assert path.name in str(error.value)


def test_frames_of_the_enhanced_sample_are_those_of_an_independent_reader() -> None:
    """Two frames, listed here by position: SimpleITK has them in the order of the file."""
    import SimpleITK

    path = DATA / "edge_enhanced_ct" / "CT0012.explicit_little_endian.dcm"
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    volume = spineimg.load(path)
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        k, away = volume.geometry.nearest_slice(place)
        assert away < 1e-6
        np.testing.assert_allclose(volume.geometry.lps_at((k, 0, 0)), place, atol=1e-6)
        np.testing.assert_array_equal(volume.read(k), theirs[n])


def test_multi_frame_jpeg_extended_is_read_or_refused_by_name() -> None:
    (path,) = (DATA / "edge_enhanced_ct").glob("*.51.dcm")
    try:
        values = _read(path)
    except SeriesError as error:
        assert path.name in str(error)  # noqa: PT017
        assert "JPEG Extended" in str(error)  # noqa: PT017
    else:
        truth = _read(DATA / "edge_enhanced_ct" / "CT0012.explicit_little_endian.dcm")
        assert np.abs(values - truth).mean() < 25


def test_no_real_series_names_its_patient() -> None:
    for folder in EXPECTED:
        index = scan([DATA / folder])
        for entry in index.series:
            ds = pydicom.dcmread(entry.records[0].path, stop_before_pixels=True)
            told = f"{entry.info} {entry.acquisition} {[note.text for note in entry.notes]}"
            name = str(ds.get("PatientName", ""))
            assert not name or name not in told
            assert entry.info.patient == ()
