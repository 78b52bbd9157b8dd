"""NIfTI, NRRD and MetaImage against the programs that wrote them: nibabel and SimpleITK."""

from __future__ import annotations

import gzip
import itertools
import os
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spineimg.errors import GeometryError, PixelError, SeriesError, SpineImgError
from spineimg.io.grid_headers import is_volume_file
from spineimg.io.volumes import as_hu, open_volume
from spineimg.volume import Verdict
from tests.core.conformance import check_slice_source

LPS_FROM_RAS = np.diag([-1.0, -1, 1, 1])
ENDINGS = ("nii", "nii.gz", "raw.nrrd", "gz.nrrd", "raw.mha", "zip.mha", "raw.mhd", "detached.nhdr")
ORDERS = [
    (perm, turned) for perm in itertools.permutations(range(3)) for turned in itertools.product((False, True), repeat=3)
]

USUAL = np.array([[0.0, 0, 0.6, -40], [0, 0.7, 0, -30], [2.5, 0, 0, 100], [0, 0, 0, 1]])
"""(k, r, c) -> LPS of a usual axial scan: slices to the head, rows to the back, columns to the left."""


def ct(shape=(5, 6, 7), seed=0):
    """Different numbers in every voxel, air and bone among them."""
    count = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(np.arange(count) * 9 - 1000).astype(np.int16).reshape(shape)


def stored_as(values, affine, perm, turned):
    """The same volume with stored axis a = axis perm[a] of the values, run backwards where turned[a]."""
    affine = affine.copy()
    for axis in range(3):
        if turned[axis]:
            affine[:3, 3] += (values.shape[perm[axis]] - 1) * affine[:3, perm[axis]]
            affine[:3, perm[axis]] *= -1
    stored = np.flip(values.transpose(perm), [a for a in range(3) if turned[a]])
    return stored, affine[:, [*perm, 3]]


def write(path: Path, stored, affine) -> Path:
    """stored: (i, j, k), fastest axis of the file first; affine: (i, j, k) -> LPS."""
    if ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(stored, LPS_FROM_RAS @ affine), path)
        return path
    image = SimpleITK.GetImageFromArray(stored.transpose(2, 1, 0))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), useCompression="gz" in path.name or "zip" in path.name)
    return path


def all_slices(volume):
    return np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])


def off_simpleitk_mm(path, volume, count=60) -> float:
    """Largest distance in mm between a voxel's place here and in SimpleITK, found through its index there."""
    image = SimpleITK.ReadImage(str(path))
    theirs = SimpleITK.GetArrayFromImage(image)
    ours = all_slices(volume)
    assert ours.size == theirs.size
    ijk = np.random.default_rng(2).integers(image.GetSize(), size=(count, 3))
    points = np.array([image.TransformIndexToPhysicalPoint(at.tolist()) for at in ijk])
    index = np.rint(volume.geometry.index_at(points)).astype(int)
    assert np.array_equal(ours[tuple(index.T)], theirs[tuple(ijk[:, ::-1].T)])
    return float(np.linalg.norm(volume.geometry.lps_at(index) - points, axis=1).max())


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["nii", "raw.nrrd", "raw.mha"])
def test_all_48_storage_orders_are_one_volume(tmp_path, ending):
    """Planted: origin left where it was when an axis is turned; x and y signs of NIfTI left as RAS."""
    values = ct()
    for number, (perm, turned) in enumerate(ORDERS):
        path = write(tmp_path / f"{number}.{ending}", *stored_as(values, USUAL, perm, turned))
        volume = open_volume(path)
        assert volume.geometry.lps_from_index == pytest.approx(USUAL, abs=1e-5)
        assert np.array_equal(all_slices(volume), values)
        assert volume.verdict is Verdict.USABLE
        assert off_simpleitk_mm(path, volume, 5) < 0.001


@pytest.mark.parametrize("ending", ENDINGS)
def test_slices_of_an_oblique_volume_are_the_nearest_to_axial(tmp_path, ending):
    """30 degrees about x and 20 about z: the slice axis stays, its slices are tilted but not sheared."""
    a, b = np.radians(30), np.radians(20)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = USUAL.copy()
    affine[:3, :3] = about_z @ about_x @ USUAL[:3, :3]
    for number, (perm, turned) in enumerate(ORDERS[::7]):
        path = write(tmp_path / f"{number}.{ending}", *stored_as(ct(), affine, perm, turned))
        volume = open_volume(path)
        assert volume.geometry.lps_from_index == pytest.approx(affine, abs=1e-4)
        assert volume.geometry.normal_lps[2] == pytest.approx(np.cos(a), abs=1e-6)
        assert off_simpleitk_mm(path, volume) < 0.001


@pytest.mark.parametrize("ending", ENDINGS)
def test_shear_is_kept(tmp_path, ending):
    """A gantry tilt of 12 degrees. SimpleITK refuses it in NIfTI, so nibabel is the witness there.

    Planted: directions made orthogonal when read.
    """
    affine = USUAL.copy()
    affine[1, 0] = 2.5 * np.tan(np.radians(12))
    path = write(tmp_path / f"tilted.{ending}", *stored_as(ct(), affine, (2, 1, 0), (False,) * 3))
    volume = open_volume(path)
    assert volume.geometry.lps_from_index == pytest.approx(affine, abs=1e-5)
    assert volume.geometry.shear_deg == pytest.approx(12, abs=1e-4)
    assert volume.verdict is Verdict.USABLE_WITH_NOTES
    assert [note.code for note in volume.notes] == ["gantry_tilt"]
    if "nii" in ending:
        ras = nibabel.load(path).affine @ [6, 5, 4, 1]
        assert volume.geometry.lps_at([4, 5, 6]) == pytest.approx((LPS_FROM_RAS @ ras)[:3], abs=1e-5)
    else:
        assert off_simpleitk_mm(path, volume) < 0.001


@settings(max_examples=25)
@given(
    arrays(np.int16, st.tuples(*[st.integers(3, 5)] * 3), elements=st.integers(-1000, 3000)),
    arrays(float, (3, 4), elements=st.floats(-0.25, 0.25)),
    st.sampled_from(ORDERS),
)
def test_written_and_read_again(tmp_path_factory, values, skew, order):
    affine = np.eye(4)
    affine[:3] = USUAL[:3] + skew * [1, 1, 1, 100]
    path = tmp_path_factory.mktemp("any") / "any.nii"
    write(path, *stored_as(values, affine, *order))
    volume = open_volume(path)
    assert volume.geometry.lps_from_index == pytest.approx(affine, abs=1e-4)
    assert np.array_equal(all_slices(volume), values)


REAL = (
    "totalseg_example/example_ct.nii.gz",
    "totalseg_example/example_seg.nii.gz",
    "totalseg_example/spine_report/example_ct_report/totalseg.nii.gz",
    "totalseg_example/spine_report/example_ct_report/totalseg_vertebrae_body.nii.gz",
    "tptbox_L3_labels/sub-ct_label-22_ct.nii.gz",
    "tptbox_L3_labels/sub-ct_seg-subreg_label-22_msk.nii.gz",
    "tptbox_L3_labels/sub-ct_seg-vert_label-22_msk.nii.gz",
    "edge_ct3slice_seg/liver_seg.nrrd",
    "edge_ct3slice_seg/liver_spine_gapped_seg.nrrd",
    "edge_ct3slice_seg/liver_spine_seg.nrrd",
    "edge_ct3slice_seg/spine_seg.nrrd",
    "edge_ct3slice_seg/spine_seg_label5.nrrd",
)


def real(name: str) -> Path:
    root = os.environ.get("SPINEIMG_DATA")
    if not root:
        pytest.skip("SPINEIMG_DATA names no folder with the public test data")
    return Path(root) / name


@pytest.mark.parametrize("name", REAL)
def test_real_files_lie_where_simpleitk_has_them(name):
    path = real(name)
    volume = open_volume(path)
    assert off_simpleitk_mm(path, volume, 300) < 0.001
    is_ct = name.endswith("ct.nii.gz")
    assert (volume.verdict is Verdict.REFUSED) is not is_ct
    assert [note.code for note in volume.notes] == ([] if is_ct else ["not_ct"])


def test_real_picture_is_no_volume():
    with pytest.raises(SeriesError, match="no colour"):
        open_volume(real("totalseg_example/spine_report/example_ct_report/spine_report.nii.gz"))


# -- orientation that is missing or said twice -----------------------------------------------------------------------


def nifti(path, stored, affine=USUAL[:, [2, 1, 0, 3]], codes=(2, 0), **fields):
    """codes: of sform and qform."""
    image = nibabel.Nifti1Image(stored, LPS_FROM_RAS @ affine)
    image.set_sform(LPS_FROM_RAS @ affine, codes[0])
    image.set_qform(LPS_FROM_RAS @ affine, codes[1])
    nibabel.save(image, path)
    if fields:
        content = bytearray(path.read_bytes())
        header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
        for key, value in fields.items():
            header[key] = value
        content[:348] = header.binaryblock
        path.write_bytes(content)
    return path


def test_nifti_without_a_position_is_refused(tmp_path):
    """Planted: the identity (or pixdim alone) for a file whose codes are both 0."""
    with pytest.raises(GeometryError, match=r"no\.nii: tells no position.*sform_code and qform_code are 0"):
        open_volume(nifti(tmp_path / "no.nii", ct(), codes=(0, 0)))


def test_nifti_with_a_qform_alone(tmp_path):
    volume = open_volume(nifti(tmp_path / "q.nii", ct().transpose(), codes=(0, 1)))
    assert volume.geometry.lps_from_index == pytest.approx(USUAL, abs=1e-4)
    assert np.array_equal(all_slices(volume), ct())


@pytest.mark.parametrize("field", ["sform_code", "qform_code"])
def test_a_form_code_that_means_nothing_is_refused(tmp_path, field):
    """nibabel takes it for 0 and the other form for the right one. Planted: positions up to 51 mm off, in silence."""
    image = nibabel.Nifti1Image(ct().transpose(), np.diag([-1.0, -1, 1, 1]))
    nibabel.save(image, tmp_path / "a.nii")
    header = bytearray((tmp_path / "a.nii").read_bytes())
    at = {"qform_code": 252, "sform_code": 254}[field]
    header[at : at + 2] = (33).to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(header)
    with pytest.raises(GeometryError, match=f"its {field} is 33"):
        open_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(("shift_mm", "codes"), [(0.005, []), (0.5, ["orientations_disagree"])])
def test_nifti_with_two_positions_takes_the_sform(tmp_path, shift_mm, codes):
    path = nifti(tmp_path / "two.nii", ct().transpose(), codes=(1, 1), qoffset_z=100 + shift_mm)
    volume = open_volume(path)
    assert volume.geometry.lps_at([0, 0, 0]) == pytest.approx([-40, -30, 100], abs=1e-4)
    assert [note.code for note in volume.notes] == codes
    assert volume.verdict is (Verdict.USABLE_WITH_NOTES if codes else Verdict.USABLE)
    if codes:
        assert "0.50 mm apart" in volume.notes[0].text


def test_nifti_with_a_broken_qform_beside_the_sform(tmp_path):
    path = nifti(tmp_path / "broken.nii", ct().transpose(), codes=(1, 1), quatern_b=7.0)
    assert [note.code for note in open_volume(path).notes] == ["orientations_disagree"]


def nrrd(path, **changes):
    fields = {
        "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "7 6 5",
        "space directions": "(0.6,0,0) (0,0.7,0) (0,0,2.5)", "endian": "little", "encoding": "raw",
        "space origin": "(-40,-30,100)",
    }  # fmt: skip
    fields |= {key.replace("_", " "): value for key, value in changes.items() if key != "data"}
    head = "NRRD0004\n# comment: none\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v is not None)
    path.write_bytes((head + "key:=value: more\n\n").encode() + changes.get("data", ct().astype("<i2").tobytes()))
    return path


def meta(path, **changes):
    fields = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "-40 -30 100",
        "ElementSpacing": "0.6 0.7 2.5", "DimSize": "7 6 5", "ElementType": "MET_SHORT", "ElementDataFile": "LOCAL",
    }  # fmt: skip
    place = fields.pop("ElementDataFile")
    fields |= {key: value for key, value in changes.items() if key != "data"}
    fields["ElementDataFile"] = fields.pop("ElementDataFile", place)
    head = "".join(f"{k} = {v}\n" for k, v in fields.items() if v is not None)
    path.write_bytes(head.encode() + changes.get("data", ct().astype("<i2").tobytes()))
    return path


def test_headers_written_by_hand(tmp_path):
    for path in (nrrd(tmp_path / "a.nrrd"), meta(tmp_path / "a.mha")):
        volume = open_volume(path)
        assert volume.geometry.lps_from_index == pytest.approx(USUAL, abs=1e-12)
        assert np.array_equal(all_slices(volume), ct())
        assert volume.series.description == path.name


@pytest.mark.parametrize(
    ("space", "signs"), [("right-anterior-superior", (-1, -1)), ("LAS", (1, -1)), ("RAS", (-1, -1))]
)
def test_nrrd_spaces(tmp_path, space, signs):
    """Planted: the origin not turned with the directions."""
    path = nrrd(tmp_path / "a.nrrd", space=space)
    assert off_simpleitk_mm(path, open_volume(path)) < 0.001
    first_stored = open_volume(path).geometry.index_at([signs[0] * -40, signs[1] * -30, 100])
    assert first_stored == pytest.approx([0, 0 if signs[1] > 0 else 5, 0 if signs[0] > 0 else 6], abs=1e-9)


def test_nrrd_axis_of_one_component_is_dropped(tmp_path):
    path = nrrd(
        tmp_path / "a.nrrd", dimension="4", sizes="1 7 6 5", space_directions="none (0.6,0,0) (0,0.7,0) (0,0,2.5)"
    )
    assert np.array_equal(all_slices(open_volume(path)), ct())


def test_meta_by_its_other_names(tmp_path):
    path = meta(
        tmp_path / "a.mha", TransformMatrix=None, Offset=None, ElementSpacing=None,
        Orientation="0 1 0 1 0 0 0 0 1", Position="-40 -30 100", ElementSize="0.6 0.7 2.5",
    )  # fmt: skip
    volume = open_volume(path)
    assert off_simpleitk_mm(path, volume) < 0.001
    assert volume.geometry.spacing_mm == pytest.approx((2.5, 0.6, 0.7))


MISSING = [
    (nrrd, {"space": None}, GeometryError, "'space' is absent"),
    (nrrd, {"space": "scanner-xyz"}, GeometryError, "scanner-xyz"),
    (nrrd, {"space_directions": None}, GeometryError, "lacks 'space directions'"),
    (nrrd, {"space_origin": None}, GeometryError, "lacks 'space origin'"),
    (nrrd, {"space_directions": "(1,0,0) (0,1,0)"}, GeometryError, "three spatial axes"),
    (nrrd, {"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, GeometryError, "finite"),
    (nrrd, {"space_directions": "(1,0,0) (0,1,0) (0,1,0)"}, GeometryError, "no volume"),
    (nrrd, {"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, GeometryError, "no volume"),
    (nrrd, {"space_origin": "(1,2)"}, GeometryError, "3 finite numbers"),
    (nrrd, {"space_units": '"cm" "cm" "cm"'}, GeometryError, "mm"),
    (nrrd, {"type": "block"}, SeriesError, "block"),
    (nrrd, {"type": None}, SeriesError, "lacks 'type'"),
    (nrrd, {"endian": None}, SeriesError, "endian"),
    (nrrd, {"encoding": "ascii"}, SeriesError, "ascii"),
    (nrrd, {"encoding": None}, SeriesError, "encoding"),
    (nrrd, {"byte_skip": "-1"}, SeriesError, "byte skip"),
    (nrrd, {"data_file": "LIST"}, SeriesError, "several files"),
    (nrrd, {"data_file": "slice%03d.raw 1 5 1"}, SeriesError, "several files"),
    (nrrd, {"data_file": "nowhere.raw"}, SeriesError, r"nowhere\.raw: cannot be read"),
    (nrrd, {"dimension": "2", "sizes": "7 6"}, SeriesError, "2 dimensions"),
    (nrrd, {"dimension": "x"}, SeriesError, "whole numbers"),
    (nrrd, {"sizes": "7 6 -5"}, SeriesError, "whole numbers"),
    (nrrd, {"sizes": "7 6 0"}, SeriesError, "7 x 6 x 0"),
    (
        nrrd,
        {"dimension": "4", "sizes": "7 2 3 5", "space_directions": "(1,0,0) (0,1,0) none (0,0,1)"},
        SeriesError,
        "several numbers a voxel",
    ),
    (meta, {"TransformMatrix": None}, GeometryError, "lacks 'transformmatrix'"),
    (meta, {"Offset": None}, GeometryError, "lacks 'offset'"),
    (meta, {"ElementSpacing": None}, GeometryError, "lacks 'elementspacing'"),
    (meta, {"ElementSpacing": "1 1"}, GeometryError, "3 finite numbers"),
    (meta, {"ElementSpacing": "1 1 0"}, GeometryError, "no volume"),
    (meta, {"TransformMatrix": "1 0 0 0 1 0 0 1 0"}, GeometryError, "no volume"),
    (meta, {"Offset": "1 2 inf"}, GeometryError, "finite"),
    (meta, {"DistanceUnits": "cm"}, SeriesError, "cm"),
    (meta, {"NDims": "4", "DimSize": "7 6 5 1"}, SeriesError, "ndims"),
    (meta, {"ElementNumberOfChannels": "3"}, SeriesError, "channels"),
    (meta, {"ElementType": "MET_UCHAR_ARRAY"}, SeriesError, "MET_UCHAR_ARRAY"),
    (meta, {"ElementToIntensityFunctionSlope": "2"}, SeriesError, "slope"),
    (meta, {"BinaryData": "False"}, SeriesError, "binarydata"),
    (meta, {"BinaryDataByteOrderMSB": "maybe"}, SeriesError, "maybe"),
    (meta, {"HeaderSize": "-1"}, SeriesError, "headersize"),
    (meta, {"ElementDataFile": "LIST"}, SeriesError, "several files"),
    (meta, {"DimSize": None}, SeriesError, "dimsize"),
    (meta, {"ElementType": None}, SeriesError, "elementtype"),
]


@pytest.mark.parametrize(("writer", "changes", "error", "message"), MISSING)
def test_what_a_header_lacks_is_no_identity(tmp_path, writer, changes, error, message):
    """SimpleITK reads many of these with an identity in place of what is missing.

    Planted: an absent `space` taken for LPS; an absent TransformMatrix for the identity.
    """
    path = writer(tmp_path / ("file.nrrd" if writer is nrrd else "file.mha"), **changes)
    with pytest.raises(error, match=message) as caught:
        open_volume(path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "<u2", ">i4", "<u4", "<i8", "<u8", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (2, -90), (0.5, -60.25)])
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_nifti_types_and_scaling(tmp_path, dtype, slope, intercept, ending):
    """Planted: the intercept dropped; the byte order of the machine taken."""
    stored = np.random.default_rng(3).integers(0, 120, (4, 5, 6)).astype(dtype)
    path = tmp_path / f"a.{ending}"
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    header.set_data_shape(stored.shape)
    header.set_sform(LPS_FROM_RAS @ USUAL[:, [2, 1, 0, 3]], 1)
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    content = header.binaryblock + bytes(4) + stored.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    expected = nibabel.load(path).get_fdata().transpose(2, 1, 0)
    volume = open_volume(path)
    found = all_slices(volume)
    assert found.dtype == (np.float32 if slope == 0.5 else np.int16)
    assert np.array_equal(found, expected.astype(np.float32))
    check_slice_source(volume.source, volume.geometry.shape, found)


@pytest.mark.parametrize("code", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("ending", ENDINGS[2:])
def test_types_of_nrrd_and_meta(tmp_path, code, ending):
    stored = np.random.default_rng(3).integers(0, 120, (4, 5, 6)).astype(code)
    path = write(tmp_path / f"a.{ending}", stored, USUAL[:, [2, 1, 0, 3]])
    found = all_slices(open_volume(path))
    assert found.dtype == np.int16
    assert np.array_equal(found, stored.transpose(2, 1, 0))


def test_big_endian_nrrd_and_meta(tmp_path):
    data = ct().astype(">i2").tobytes()
    packed = zlib.compress(data)
    for path in (
        nrrd(tmp_path / "a.nrrd", endian="big", data=data),
        nrrd(tmp_path / "b.nrrd", endian="big", data=gzip.compress(data), encoding="gzip"),
        meta(tmp_path / "a.mha", BinaryDataByteOrderMSB="True", data=data),
        meta(tmp_path / "b.mha", ElementByteOrderMSB="True", CompressedData="True", data=packed),
    ):
        assert np.array_equal(all_slices(open_volume(path)), ct()), path


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_number_stays_no_number(tmp_path, ending):
    values = ct().astype(np.float32) + np.float32(0.25)
    values[1, 2, 3], values[3, 0, 0], values[3, 0, 1] = np.nan, np.inf, -np.inf
    path = write(tmp_path / f"a.{ending}", values.transpose(), USUAL[:, [2, 1, 0, 3]])
    volume = open_volume(path)
    values[~np.isfinite(values)] = np.nan
    check_slice_source(volume.source, values.shape, values)
    assert not volume.valid(1, volume.read(1))[2, 3]
    assert volume.valid(0, volume.read(0)).all()


def test_as_hu_is_int16_only_where_it_is_exact():
    cases = [
        ([-32768, 32767], np.int32, np.int16),
        ([-32769, 0], np.int32, np.float32),
        ([0, 32768], np.uint16, np.float32),
        ([0, 2**63], np.uint64, np.float32),
        ([0.5, 1], np.float64, np.float32),
        ([3.0, -7.0], np.float64, np.int16),
        ([1e300, 0], np.float64, np.float32),
        ([np.nan, 0], np.float32, np.float32),
    ]
    for values, dtype, expected in cases:
        assert as_hu(np.array([values], dtype=dtype), 1, 0).dtype == expected, values
    assert as_hu(np.array([[100, 2]], dtype=np.int16), 2.0**20, 0).tolist() == [[100 * 2**20, 2 * 2**20]]
    assert np.isnan(as_hu(np.array([[1e300, 0]]), 1, 0)).tolist() == [[True, False]]


def test_corners_outside_the_field_of_view_are_no_measurement(tmp_path):
    values = ct()
    values[:, 0, 0] = -3024
    volume = open_volume(write(tmp_path / "a.nii", values.transpose(), USUAL[:, [2, 1, 0, 3]]))
    assert volume.valid(2, volume.read(2)).sum() == 41
    assert volume.read(2)[0, 0] == -3024


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_sources_conform(tmp_path, ending):
    for perm, turned in (((2, 1, 0), (False,) * 3), ((0, 2, 1), (True, False, True)), ((1, 2, 0), (False, True, True))):
        path = write(tmp_path / f"{perm[0]}.{ending}", *stored_as(ct(), USUAL, perm, turned))
        volume = open_volume(path)
        check_slice_source(volume.source, volume.geometry.shape, ct())
        volume.read(1)[:] = 0
        assert np.array_equal(volume.read(1), ct()[1])
        for k in (-1, 5):
            with pytest.raises(IndexError):
                volume.read(k)


@pytest.mark.parametrize("ending", ["nii", "raw.nrrd", "raw.mha", "raw.mhd"])
def test_unpacked_slices_are_read_when_asked_for(tmp_path, ending):
    """The file changes after it was opened, and the slices with it. Planted: the whole file read at once."""
    path = write(tmp_path / f"a.{ending}", ct().transpose(), USUAL[:, [2, 1, 0, 3]])
    volume = open_volume(path)
    data = path.with_name("a.raw.raw") if ending.endswith("mhd") else path
    content = data.read_bytes()
    third = ct()[3].tobytes()
    data.write_bytes(content.replace(third, bytes(len(third))))
    assert np.array_equal(volume.read(2), ct()[2])
    assert not volume.read(3).any()
    data.write_bytes(content[:-1])
    with pytest.raises(PixelError, match="cut short"):
        volume.read(4)
    data.unlink()
    with pytest.raises(PixelError, match="cannot be read"):
        volume.read(0)


def test_gzip_in_several_members(tmp_path):
    """As parallel packers write it, a member ending anywhere."""
    plain = write(tmp_path / "a.nii", ct().transpose(), USUAL[:, [2, 1, 0, 3]]).read_bytes()
    path = tmp_path / "b.nii.gz"
    for cut in (1, 200, 352, 400, len(plain) - 1):
        path.write_bytes(gzip.compress(plain[:cut]) + gzip.compress(plain[cut:]) + bytes(7))
        assert np.array_equal(all_slices(open_volume(path)), ct())


def test_unpacked_data_under_a_packed_name_and_the_reverse(tmp_path):
    plain = write(tmp_path / "a.nii", ct().transpose(), USUAL[:, [2, 1, 0, 3]]).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(plain)
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain))
    for name in ("b.nii.gz", "c.nii"):
        assert np.array_equal(all_slices(open_volume(tmp_path / name)), ct())


def test_nifti_2_and_extensions(tmp_path):
    image = nibabel.Nifti2Image(ct().transpose(), LPS_FROM_RAS @ USUAL[:, [2, 1, 0, 3]])
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"more " * 50))
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(image, tmp_path / name)
        volume = open_volume(tmp_path / name)
        assert np.array_equal(all_slices(volume), ct())
        assert volume.geometry.lps_from_index == pytest.approx(USUAL, abs=1e-12)


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (ct(), None),
        (ct().astype(np.int32) + 1024, "not_ct"),
        ((ct() // 12 + 100).clip(0, 255).astype(np.uint8), "not_ct"),
        (ct().astype(np.float32) / 3000, "not_ct"),
        (np.zeros((5, 6, 7), np.int16), "not_ct"),
        (np.full((5, 6, 7), np.nan, np.float32), "no_pixels"),
        (np.full((5, 6, 7), -2000, np.int16), "no_pixels"),
        (ct((2, 6, 7)), "too_few_slices"),
        (ct((5, 6, 2)), "too_few_slices"),
    ],
)
def test_verdict(tmp_path, values, code):
    """Planted: a picture of 0 to 255 accepted as HU."""
    volume = open_volume(write(tmp_path / "a.nii", values.transpose(), USUAL[:, [2, 1, 0, 3]]))
    assert volume.verdict is (Verdict.REFUSED if code else Verdict.USABLE)
    assert [note.code for note in volume.notes] == ([code] if code else [])


def test_acquisition_is_unknown(tmp_path):
    acquisition = open_volume(nrrd(tmp_path / "a.nrrd")).acquisition
    assert (acquisition.kvp, acquisition.contrast, acquisition.kernel, acquisition.stated) == (None, None, None, ())


def test_names_of_volume_files():
    assert all(is_volume_file(f"x/A.{e}") for e in ("nii", "NII.GZ", "nrrd", "nhdr", "mha", "Mhd"))
    assert is_volume_file(Path("patient.v2.nii.gz"))
    assert not any(is_volume_file(name) for name in ("a.dcm", "a.gz", "nii", "a.nii.bz2", "a.hdr", "a.img", "folder/"))


# -- broken files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"NRRD", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(500), b"\x89PNG\r\n\x1a\n" + bytes(999), b"a = b\n"],
)
def test_what_is_no_volume_file(tmp_path, ending, content):
    path = tmp_path / f"bad.{ending}"
    path.write_bytes(content)
    with pytest.raises(SeriesError, match=f"bad.{ending}"):
        open_volume(path)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    for name in ("absent.nii", "folder.nii"):
        with pytest.raises(SeriesError, match=f"{name}: cannot be read"):
            open_volume(tmp_path / name)
    with pytest.raises(SeriesError, match="its name must end in"):
        open_volume(tmp_path / "a.dcm")


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_short(tmp_path, ending):
    path = write(tmp_path / f"a.{ending}", ct((9, 30, 40)).transpose(), USUAL[:, [2, 1, 0, 3]])
    data = next((p for p in tmp_path.iterdir() if p != path), path)
    content = data.read_bytes()
    for keep in (len(content) - 1, len(content) - 9, len(content) // 2, len(content) // 2 + 1):
        data.write_bytes(content[:keep])
        with pytest.raises(SeriesError, match="cut short"):
            open_volume(path)


@pytest.mark.parametrize("ending", ["nii.gz", "gz.nrrd", "zip.mha"])
def test_damaged_packing(tmp_path, ending):
    """Any flipped byte is noticed, by the packing itself or by its checksum."""
    path = write(tmp_path / f"a.{ending}", ct((9, 30, 40)).transpose(), USUAL[:, [2, 1, 0, 3]])
    content = path.read_bytes()
    for at in range(len(content) - 4000, len(content) - 1, 371):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with pytest.raises(SeriesError, match=r"damaged|cut short"):
            open_volume(path)


def absurd(tmp_path):
    """Files of a few hundred bytes that declare a thousand million rows, or more than any memory."""
    sizes = ("1000000000 7 5", "7 1000000000 5", "7 6 1000000000", "19999 19999 19999", "2000 2000 900")
    for number, sides in enumerate(sizes):
        yield nrrd(tmp_path / f"{number}.nrrd", sizes=sides)
        yield nrrd(tmp_path / f"{number}z.nrrd", sizes=sides, encoding="gzip", data=gzip.compress(bytes(9999)))
        yield meta(tmp_path / f"{number}.mha", DimSize=sides)
        yield meta(tmp_path / f"{number}z.mha", DimSize=sides, CompressedData="True", data=zlib.compress(bytes(9999)))
        header = nibabel.Nifti2Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape([int(side) for side in sides.split()])
        header.set_sform(np.eye(4), 1)
        header["vox_offset"] = 544
        header["magic"] = b"n+2\0\r\n\x1a\n"
        content = header.binaryblock + bytes(999)
        for name in (f"{number}.nii", f"{number}.nii.gz"):
            (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
            yield tmp_path / name
    yield nrrd(tmp_path / "digits.nrrd", sizes="9" * 5000 + " 6 5")
    yield meta(tmp_path / "digits.mha", DimSize="7 6 " + "9" * 18)


def test_absurd_headers_allocate_nothing(tmp_path):
    """Planted: the array made before the size of the file is looked at."""
    for path in absurd(tmp_path):
        tracemalloc.start()
        with pytest.raises(SeriesError, match=path.name):
            open_volume(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6, path.name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": 99}, "datatype = 99"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 128}, "no colour"),
        ({"dim": [3, 7, -6, 5, 1, 1, 1, 1]}, "dim"),
        ({"dim": [0, 7, 6, 5, 1, 1, 1, 1]}, "dim"),
        ({"dim": [9, 7, 6, 5, 1, 1, 1, 1]}, "dim"),
        ({"dim": [4, 7, 6, 1, 5, 1, 1, 1]}, "several volumes"),
        ({"dim": [5, 7, 6, 1, 1, 5, 1, 1]}, "several volumes"),
        ({"magic": b"ni1"}, "NIfTI file in one piece"),
        ({"sizeof_hdr": 347}, "NIfTI file in one piece"),
        ({"vox_offset": 100}, "vox_offset"),
        ({"vox_offset": np.nan}, "vox_offset"),
        ({"vox_offset": 1e30}, "vox_offset"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "scl_slope"),
        ({"xyzt_units": 1}, "xyzt_units"),
        ({"srow_x": [0, 0, 0, 0]}, "no volume"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "finite"),
        ({"srow_z": [0, 0, np.inf, 0]}, "finite"),
    ],
)
def test_nifti_headers_that_make_no_sense(tmp_path, fields, message):
    path = nifti(tmp_path / "bad.nii", ct().transpose(), **fields)
    with pytest.raises((SeriesError, GeometryError), match=message) as caught:
        open_volume(path)
    assert "bad.nii" in str(caught.value)


def test_one_frame_in_four_dimensions(tmp_path):
    path = nifti(tmp_path / "a.nii", ct().transpose(), dim=[4, 7, 6, 5, 1, 1, 1, 1])
    assert np.array_equal(all_slices(open_volume(path)), ct())


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "raw.nrrd", "gz.nrrd", "raw.mha", "zip.mha"])
def test_any_byte_of_a_header_may_be_wrong(tmp_path, ending):
    """A flipped byte gives a volume or one sentence, never another exception."""
    path = write(tmp_path / f"a.{ending}", ct().transpose(), USUAL[:, [2, 1, 0, 3]])
    content = path.read_bytes()
    packed = ending == "nii.gz"
    content = gzip.decompress(content) if packed else content
    rng = np.random.default_rng(4)
    messages = []
    for at in range(0, min(len(content), 500), 3):
        changed = content[:at] + bytes([int(rng.integers(256))]) + content[at + 1 :]
        path.write_bytes(gzip.compress(changed) if packed else changed)
        try:
            all_slices(open_volume(path))
        except SpineImgError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
