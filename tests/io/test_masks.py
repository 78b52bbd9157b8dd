"""Label maps: which label is which vertebra, on made-up spines and on real segmentations."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from spineimg.anatomy import LEVELS
from spineimg.errors import RoiError, SeriesError
from spineimg.geometry import Geometry
from spineimg.io.masks import Convention, labels_present, open_labels, rois_from_mask, vertebra_labels
from spineimg.rois import LabelVolume
from spineimg.volume import ArraySource
from tests.core.conformance import check_slice_source

SPACING = 4.0
TOTAL = {level: 26 + n for n, level in enumerate(["S1", *(f"L{n}" for n in range(5, 0, -1))])}
TOTAL |= {f"T{n}": 44 - n for n in range(1, 13)} | {f"C{n}": 51 - n for n in range(1, 8)}
VERSE = {level: n + 1 for n, level in enumerate(LEVELS) if level not in ("T13", "L6", "S1") and level[0] in "CT"}
VERSE |= {f"L{n}": 19 + n for n in range(1, 7)} | {"T13": 28}


def column(path: Path, labels: list[int], *, step_mm: float = 32.0, size=(5, 6, 6), dtype=np.uint8, extra=()) -> Path:
    """A NIfTI label map, RAS, of boxes from head to foot; size in voxels of 4 mm (20 x 24 x 24 mm, 11.5 cm³).

    extra: (label, (i, j, k) slices) that are put on top.
    """
    step = round(step_mm / SPACING)
    stored = np.zeros((20, 20, max(1, len(labels)) * step + 8), dtype=dtype)
    for number, label in enumerate(labels):
        top = stored.shape[2] - 4 - number * step
        stored[6 : 6 + size[2], 7 : 7 + size[1], top - size[0] : top] = label
    for label, place in extra:
        stored[place] = label
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([SPACING, SPACING, SPACING, 1])), path)
    return path


def real(name: str) -> Path:
    root = os.environ.get("SPINEIMG_DATA")
    if not root:
        pytest.skip("SPINEIMG_DATA names no folder with the public test data")
    return Path(root) / name


def test_tables_of_labels(tmp_path):
    """Every level of both numberings, spelt out a second time. Planted: TotalSegmentator's L1-L5 upside down."""
    assert (TOTAL["S1"], TOTAL["L5"], TOTAL["L1"], TOTAL["T12"], TOTAL["T1"], TOTAL["C7"], TOTAL["C1"]) == (
        26, 27, 31, 32, 43, 44, 50,
    )  # fmt: skip
    assert (VERSE["C1"], VERSE["C7"], VERSE["T1"], VERSE["T12"], VERSE["L1"], VERSE["L6"]) == (1, 7, 8, 19, 20, 25)
    for convention, table in (("totalsegmentator", TOTAL), ("verse", VERSE)):
        in_order = {level: table[level] for level in LEVELS if level in table}
        labels = open_labels(column(tmp_path / "spine.nii.gz", list(in_order.values())))
        assert vertebra_labels(labels) == in_order
        assert list(vertebra_labels(labels, convention)) == list(in_order)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([33, 32, 31], {"T11": 33, "T12": 32, "L1": 31}),
        ([18, 19, 20, 21], {"T11": 18, "T12": 19, "L1": 20, "L2": 21}),
        ([18, 20, 21], {"T11": 18, "L1": 20, "L2": 21}),
        ([19, 28, 20], {"T12": 19, "T13": 28, "L1": 20}),
        ([23, 24, 25, 26, 27], {"L4": 23, "L5": 24, "L6": 25}),
        ([29, 28, 27, 26, 25], {"L3": 29, "L4": 28, "L5": 27, "S1": 26}),
        ([20, 120, 21, 121, 22], {"L1": 20, "L2": 21, "L3": 22}),
    ],
)
def test_numbering_is_told_from_the_places(tmp_path, labels, expected):
    """T11-end, T13 and L6; the sacrum of VerSe is more than S1 and left out."""
    found = vertebra_labels(open_labels(column(tmp_path / "a.nii", labels, step_mm=20)))
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("labels", "step_mm", "why"),
    [
        ([], 32, "0 of its vertebrae"),
        ([1], 32, "1 of its vertebrae"),
        ([1, 2], 32, "2 of its vertebrae"),
        ([27], 32, "cannot be told"),
        ([31, 32], 32, "2 of its vertebrae"),
        ([20, 19, 18], 32, r"T12 \(label 19\) does not lie above L1|T11 \(label 18\) does not lie above T12"),
        ([31, 32, 33], 32, "does not lie above"),
        ([20, 21, 23, 22], 32, r"L3 \(label 22\) does not lie above L4 \(label 23\)"),
        ([20, 21, 22], 80, "80 mm apart"),
        ([41, 42, 43, 44], 32, "does not lie above"),
        ([60, 61, 62], 32, "0 of its vertebrae"),
    ],
)
def test_numbering_that_cannot_be_told(tmp_path, labels, step_mm, why):
    """Planted: the order along the spine not looked at."""
    opened = open_labels(column(tmp_path / "a.nii", labels, step_mm=step_mm))
    with pytest.raises(RoiError, match=why) as caught:
        vertebra_labels(opened)
    assert "a.nii" in str(caught.value)
    assert "state the convention" in str(caught.value)


def test_labels_on_top_of_each_other_are_no_spine(tmp_path):
    """Boxes of 4 mm each: no neck is that small."""
    opened = open_labels(column(tmp_path / "a.nii", [20, 21, 22], step_mm=4, size=(1, 12, 12)))
    with pytest.raises(RoiError, match="4 mm apart"):
        vertebra_labels(opened)


def test_a_stated_numbering(tmp_path):
    one = open_labels(column(tmp_path / "one.nii", [27]))
    assert vertebra_labels(one, "totalsegmentator") == {"L5": 27}
    assert vertebra_labels(one, " VerSe ") == {}


def test_two_numberings_that_fit(tmp_path):
    """T13-L2 and below them a coccyx and a sacrum of VerSe; or L4-S1 of TotalSegmentator among other organs."""
    labels = open_labels(column(tmp_path / "both.nii", [28, 20, 21, 27, 26], step_mm=16, size=(3, 6, 6)))
    with pytest.raises(RoiError, match="totalsegmentator: fits; verse: fits"):
        vertebra_labels(labels)
    assert vertebra_labels(labels, "verse") == {"T13": 28, "L1": 20, "L2": 21}
    assert vertebra_labels(labels, "totalsegmentator") == {"L4": 28, "L5": 27, "S1": 26}


def test_a_stated_numbering_that_contradicts_the_places(tmp_path):
    opened = open_labels(column(tmp_path / "a.nii", [20, 21, 22]))
    assert vertebra_labels(opened, Convention.VERSE) == {"L1": 20, "L2": 21, "L3": 22}
    upside_down = open_labels(column(tmp_path / "b.nii", [22, 21, 20]))
    with pytest.raises(RoiError, match=r"b\.nii: its labels are not numbered as verse has it.*stored upside down"):
        vertebra_labels(upside_down, "verse")
    with pytest.raises(RoiError, match="'total' is not a numbering"):
        vertebra_labels(opened, "total")


TOTAL_1 = {f"L{n}": 23 - n for n in range(1, 6)} | {f"T{n}": 35 - n for n in range(1, 13)}


@pytest.mark.parametrize("lowest", ["T11", "T12", "L5"])
def test_the_first_version_of_totalsegmentator_must_be_stated(tmp_path, lowest):
    """From label 26 on both versions count upwards: T9 of the first would be S1 of the second.

    Planted: the low labels left out of account, and the spine of T2 to T11 is named T10 to S1.
    """
    levels = [level for level in LEVELS if level in TOTAL_1 and level != "T1"]
    levels = levels[: levels.index(lowest) + 1]
    labels = open_labels(column(tmp_path / "first.nii.gz", [TOTAL_1[level] for level in levels], step_mm=28.0))
    with pytest.raises(RoiError, match="totalsegmentator1"):
        vertebra_labels(labels)
    assert vertebra_labels(labels, "totalsegmentator1") == {level: TOTAL_1[level] for level in levels}


def test_organs_of_the_second_version_are_no_vertebrae(tmp_path):
    """Cyst and sacrum of version 2 bear labels of vertebrae of version 1."""
    organs = [(25, (slice(6, 12), slice(2, 6), slice(0, 4))), (24, (slice(1, 5), slice(1, 5), slice(20, 26)))]
    path = column(tmp_path / "second.nii.gz", [TOTAL[level] for level in ("L3", "L4", "L5", "S1")], extra=organs)
    assert list(vertebra_labels(open_labels(path))) == ["L3", "L4", "L5", "S1"]


def test_stray_voxels_are_no_vertebra(tmp_path):
    """Seven voxels (448 mm³) of T1 in the pelvis; eight (512 mm³) count. Planted: size in voxels."""
    place = (slice(0, 1), slice(0, 1), slice(0, 7))
    labels = open_labels(column(tmp_path / "a.nii", [32, 31, 30], extra=[(43, place)]))
    assert vertebra_labels(labels) == {"T12": 32, "L1": 31, "L2": 30}
    assert labels_present(labels)[43] == 7
    enough = (slice(0, 1), slice(0, 1), slice(0, 8))
    with pytest.raises(RoiError, match=r"T1 \(label 43\)"):
        vertebra_labels(open_labels(column(tmp_path / "b.nii", [32, 31, 30], extra=[(43, enough)])))


def test_rois_from_mask(tmp_path):
    path = column(tmp_path / "a.nii.gz", [33, 32, 31, 30])
    rois = rois_from_mask(path)
    assert [roi.level for roi in rois.vertebrae] == ["T11", "T12", "L1", "L2"]
    assert [roi.mask.label for roi in rois.vertebrae] == [33, 32, 31, 30]
    assert len({id(roi.mask.labels) for roi in rois.vertebrae}) == 1
    assert rois.vertebrae[0].mask.labels.name == "a.nii.gz"
    chosen = rois_from_mask(path, "totalsegmentator", ["l1", "T11", "L1"])
    assert [roi.level for roi in chosen.vertebrae] == ["T11", "L1"]
    with pytest.raises(RoiError, match="no label for L5, only for T11, T12, L1, L2"):
        rois_from_mask(path, levels=["L1", "L5"])
    with pytest.raises(RoiError, match="not a vertebral level"):
        rois_from_mask(path, levels=["L9"])
    with pytest.raises(RoiError, match="none of its labels is a vertebra"):
        rois_from_mask(path, "verse")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.uint16])
def test_whole_numbers_of_any_type(tmp_path, dtype):
    labels = open_labels(column(tmp_path / "a.nii", [20, 21, 22], dtype=dtype))
    assert labels_present(labels) == {20: 180, 21: 180, 22: 180}
    check_slice_source(labels.source, labels.geometry.shape)


@pytest.mark.parametrize(
    ("value", "dtype"), [(-1, np.int16), (0.5, np.float32), (np.nan, np.float32), (70000, np.int32)]
)
def test_what_is_no_label(tmp_path, value, dtype):
    """Planted: fractions cut off."""
    labels = open_labels(column(tmp_path / "a.nii", [20, 21, 22], dtype=dtype, extra=[(value, (3, 3, 3))]))
    with pytest.raises(RoiError, match=rf"a\.nii: a label map holds whole numbers from 0 to 65535, found {value:g}"):
        labels_present(labels)
    with pytest.raises(RoiError, match="whole numbers"):
        labels.source.read(3)
    assert labels.source.read(10).any()


def test_large_labels_and_arrays_in_memory():
    values = np.zeros((4, 3, 2), np.float32)
    values[1, 0, 0], values[2, 2, 1] = 40000, 65535
    geometry = Geometry.from_affine((4, 3, 2), [[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    assert labels_present(LabelVolume(geometry, ArraySource(values), "made")) == {40000: 1, 65535: 1}


def test_what_is_no_label_file(tmp_path):
    with pytest.raises(SeriesError, match="cannot be read"):
        open_labels(tmp_path / "absent.nii.gz")
    with pytest.raises(SeriesError, match="its name must end in"):
        open_labels(tmp_path / "labels.dcm")


# -- real segmentations ------------------------------------------------------------------------------------------------

REPORT = "totalseg_example/spine_report/example_ct_report/"
TPTBOX = "tptbox_L3_labels/sub-ct_"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (REPORT + "totalseg.nii.gz", {"T11": 33, "T12": 32} | {f"L{n}": 32 - n for n in range(1, 6)} | {"S1": 26}),
        ("totalseg_example/example_seg.nii.gz", {"T11": 33, "T12": 32, "L1": 31, "L2": 30}),
        ("totalseg_example/example_seg_fast.nii.gz", {"T11": 33, "T12": 32, "L1": 31, "L2": 30}),
        (TPTBOX + "seg-vert_label-22_msk.nii.gz", {"L2": 21, "L3": 22, "L4": 23}),
    ],
)
def test_real_numberings(name, expected):
    assert vertebra_labels(open_labels(real(name))) == expected
    assert [roi.level for roi in rois_from_mask(real(name)).vertebrae] == list(expected)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (REPORT + "totalseg_vertebrae_body.nii.gz", "labels .1, 2. cannot be told"),
        (TPTBOX + "seg-subreg_label-22_msk.nii.gz", "does not lie above|mm apart"),
        (TPTBOX + "label-22_ct.nii.gz", "a label map holds whole numbers"),
        ("edge_ct3slice_seg/liver_spine_seg.nrrd", "2 of its vertebrae"),
        ("edge_ct3slice_seg/spine_seg_label5.nrrd", "1 of its vertebrae"),
    ],
)
def test_real_maps_without_a_numbering(name, why):
    """Parts of one vertebra numbered 41 to 50 would otherwise pass for C1 to T3."""
    with pytest.raises(RoiError, match=why):
        vertebra_labels(open_labels(real(name)))


def test_real_counts():
    """Counted with nibabel and NumPy."""
    path = real(REPORT + "totalseg.nii.gz")
    numbers, counts = np.unique(np.asarray(nibabel.load(path).dataobj), return_counts=True)
    expected = {int(n): int(c) for n, c in zip(numbers, counts, strict=True) if n}
    labels = open_labels(path)
    assert labels_present(labels) == expected
    assert set(vertebra_labels(labels, "totalsegmentator").values()) == set(expected)
