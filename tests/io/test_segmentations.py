"""DICOM Segmentations: voxels, lattice and names against what was written, and against a reference file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spineimg.errors import RoiError, SeriesError
from spineimg.io.masks import open_labels, rois_from_mask
from spineimg.io.segmentations import is_dicom, read_segmentation
from tests.dicom_factory import axial, pattern, write_series

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
DATA = os.environ.get("SPINEIMG_DATA")
BLOCKS = {"T12": (25, 33), "L1": (14, 22), "L2": (3, 11)}
"""Slices of each level's block of 16 x 20 x 24 mm."""


def written(folder: Path, names: dict[str, str], *, coded: bool = False) -> Path:
    """A binary SEG on 36 slices of 2 mm, with one block a name; the names' values are the segments' labels."""
    import pydicom
    from pydicom.sr.coding import Code

    from spineimg.coding import LEVEL_CODES

    write_series(folder / "ct", pattern(36, 40, 48), axial(36, 2.0))
    ct = sorted((pydicom.dcmread(f) for f in (folder / "ct").rglob("*") if f.is_file()), key=_height)
    for data in ct:  # what highdicom copies from its source
        for name in ("PatientSex", "PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyID"):
            setattr(data, name, data.get(name, ""))
        for name in ("StudyDate", "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator"):
            setattr(data, name, data.get(name, ""))
    voxels = np.zeros((36, 40, 48, len(names)), dtype=np.uint8)
    segments = []
    for i, (level, label) in enumerate(names.items()):
        low, high = BLOCKS[level]
        voxels[low:high, 8:28, 12:36, i] = 1
        value, scheme, meaning = LEVEL_CODES[level] if coded else ("91723000", "SCT", "Anatomical structure")
        segments.append(
            hd.seg.SegmentDescription(
                i + 1, label, Code("123037004", "SCT", "Anatomical structure"), Code(value, scheme, meaning), "MANUAL"
            )
        )
    seg = hd.seg.Segmentation(
        ct, voxels, "BINARY", segments, hd.UID(), 1, hd.UID(), 1, "maker", "model", "1", "0", omit_empty_frames=True
    )
    seg.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def _height(data: Any) -> float:
    return float(data.ImagePositionPatient[2])


@pytest.mark.filterwarnings("ignore")  # of highdicom, on the odd headers of the made-up series
@pytest.mark.parametrize("coded", [False, True], ids=["by name", "by code"])
def test_voxels_lattice_and_levels(tmp_path: Path, coded: bool) -> None:
    """Empty slices, which the file leaves out, are back. Planted: frames stacked without them."""
    names = {"T12": "vertebrae T12", "L1": "L1 vertebra", "L2": "vertebra_L2"}
    file = written(tmp_path, dict.fromkeys(names, "bone") if coded else names, coded=coded)
    geometry, source, levels = read_segmentation(file)
    assert levels == {"T12": 1, "L1": 2, "L2": 3}
    assert geometry.spacing_mm[0] == pytest.approx(2.0, abs=1e-6)
    origin = axial(36, 2.0)
    for level, (low, high) in BLOCKS.items():
        k = [i for i in range(geometry.shape[0]) if (source.read(i) == levels[level]).any()]
        assert len(k) == high - low
        place = geometry.lps_at([(k[0] + k[-1]) / 2, 17.5, 23.5])
        wanted = np.mean([origin.origins_lps_mm[low], origin.origins_lps_mm[high - 1]], axis=0)[2]
        assert place[2] == pytest.approx(wanted, abs=1e-6)
        assert int((source.read(k[0]) > 0).sum()) == 20 * 24
    found = rois_from_mask(file)
    assert [roi.level for roi in found.vertebrae] == ["T12", "L1", "L2"]


@pytest.mark.filterwarnings("ignore")
def test_names_against_the_order_of_the_spine_are_refused(tmp_path: Path) -> None:
    """Planted: the check left out."""
    file = written(tmp_path, {"T12": "L2", "L1": "L1", "L2": "T12"})
    with pytest.raises(RoiError, match="order"):
        rois_from_mask(file)


def test_other_files_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", pattern(4), axial(4))
    one = next(f for f in (tmp_path / "ct").rglob("*") if f.is_file())
    assert is_dicom(one)
    assert not is_dicom(tmp_path / "missing.dcm")
    with pytest.raises(SeriesError, match="no DICOM Segmentation"):
        open_labels(one)


@pytest.mark.skipif(DATA is None, reason="SPINEIMG_DATA is not set: no real scans")
def test_a_real_segmentation_is_the_label_map_that_was_made_of_it() -> None:
    folder = Path(DATA or "") / "edge_ct3slice_seg"
    seg, reference = open_labels(folder / "liver.dcm"), open_labels(folder / "liver_seg.nrrd")
    np.testing.assert_allclose(seg.geometry.origins_lps_mm, reference.geometry.origins_lps_mm, atol=1e-3)
    for k in range(seg.geometry.shape[0]):
        np.testing.assert_array_equal(seg.source.read(k), reference.source.read(k))
    with pytest.raises(RoiError, match="vertebra"):
        rois_from_mask(folder / "liver.dcm")
