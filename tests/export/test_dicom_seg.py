"""Segmentations, read back by readers that did not write them and held against the rule of inclusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK

from spineimg import coding
from spineimg.cli.exchange import source_of
from spineimg.errors import SpineImgError
from spineimg.export.dicom import dicom_objects, write_dicom
from spineimg.export.dicom_groups import Groups
from spineimg.export.dicom_seg import segmentations
from spineimg.export.dicom_segments import Segment, segments_of
from spineimg.vertebra.body import Body, EndplatePlane
from spineimg.vertebra.described import body_to_dict
from tests.export.dicom_cases import AXES_MM, CASES, SHAPE, Case, as_json, judge, make

Mask = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {kind: make(tmp_path_factory.mktemp("study") / "ct", kind) for kind in CASES}


def masks(case: Case, path: Path) -> dict[str, Mask]:
    """Segment label -> (slices, rows, columns) mask, as pydicom unpacks the bits; frames by their positions."""
    ds = pydicom.dcmread(path)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    labels = {int(one.SegmentNumber): str(one.SegmentLabel) for one in ds.SegmentSequence}
    found = {label: np.zeros(SHAPE, dtype=bool) for label in labels.values()}
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        away = np.linalg.norm(case.lattice.origins_lps_mm - place, axis=1)
        assert away.min() < 1e-6
        number = group if "SegmentIdentificationSequence" in group else ds.SharedFunctionalGroupsSequence[0]
        label = labels[int(number.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        found[label][int(np.argmin(away))] |= frame.astype(bool)
    return found


def voxels_lps_mm(case: Case) -> npt.NDArray[np.float64]:
    k, r, c = np.indices(SHAPE)
    lattice = case.lattice
    steps = r[..., None] * lattice.row_step_lps_mm + c[..., None] * lattice.column_step_lps_mm
    return np.asarray(lattice.origins_lps_mm[k] + steps)


def seg_of(folder: Path) -> Path:
    return next(folder.glob("seg-*.dcm"))


@pytest.mark.parametrize("kind", CASES)
def test_the_mask_of_a_slice_is_what_was_measured(cases: dict[str, Case], kind: str, tmp_path: Path) -> None:
    """By the rule of inclusion on every voxel of the volume. Planted: rows and columns swapped in the ellipse."""
    case = cases[kind]
    write_dicom(tmp_path / "out", case.objects())
    found, points = masks(case, seg_of(tmp_path / "out")), voxels_lps_mm(case)
    for entry, one in zip(case.rois["vertebrae"][1]["slices"], case.document["vertebrae"][1]["slices"], strict=True):
        offset = points - entry["center"]
        within = (offset @ entry["u"] / AXES_MM[0]) ** 2 + (offset @ entry["v"] / AXES_MM[1]) ** 2 <= 1
        normal = np.cross(case.lattice.orientation[:3], case.lattice.orientation[3:])
        k = int(np.argmin(np.abs((case.lattice.origins_lps_mm - entry["center"]) @ normal)))
        expected = np.zeros(SHAPE, dtype=bool)
        expected[k] = within[k]
        mask = found[f"L4 {entry['position']} ROI"]
        assert np.array_equal(mask, expected)
        assert int(mask.sum()) == one["n_voxels"]


@pytest.mark.parametrize("kind", ["axial", "tilted", "feet first"])
def test_the_mask_of_a_tilted_plane_is_a_sheet_one_voxel_thick(
    cases: dict[str, Case], kind: str, tmp_path: Path
) -> None:
    """At every place of the plane one voxel, within half a slice of it. Planted: a whole slice on either side."""
    case = cases[kind]
    write_dicom(tmp_path / "out", case.objects())
    found, points = masks(case, seg_of(tmp_path / "out")), voxels_lps_mm(case)
    for entry in case.rois["vertebrae"][0]["slices"]:
        mask = found[f"T12 {entry['position']} ROI"]
        offset = points[mask] - entry["center"]
        normal = np.cross(entry["u"], entry["v"])
        assert np.abs(offset @ normal).max() <= 0.75 * 1.0001  # slices are 1.5 mm apart
        assert ((offset @ entry["u"] / AXES_MM[0]) ** 2 + (offset @ entry["v"] / AXES_MM[1]) ** 2).max() <= 1
        assert mask.sum(axis=0).max() == 1
        steps = np.stack([np.diff(case.lattice.origins_lps_mm[:2], axis=0)[0], *_in_plane_steps(case)])
        thickness, voxel = np.abs(steps @ normal).max(), abs(np.linalg.det(steps))
        assert mask.sum() * voxel == pytest.approx(np.pi * AXES_MM[0] * AXES_MM[1] * thickness, rel=0.05)


def _in_plane_steps(case: Case) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return case.lattice.row_step_lps_mm, case.lattice.column_step_lps_mm


def test_simpleitk_reads_the_same_voxels(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["axial"]
    write_dicom(tmp_path / "out", case.objects())
    image = SimpleITK.ReadImage(str(seg_of(tmp_path / "out")))
    total = sum(int(mask.sum()) for mask in masks(case, seg_of(tmp_path / "out")).values())
    assert int((SimpleITK.GetArrayViewFromImage(image) > 0).sum()) == total > 1000


def test_segments_say_what_they_are(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["multi-frame"]
    paths = write_dicom(tmp_path / "out", case.objects())
    judge(seg_of(tmp_path / "out"))
    ds, report = pydicom.dcmread(seg_of(tmp_path / "out")), pydicom.dcmread(paths[0])
    first = ds.SegmentSequence[0]
    assert ds.SegmentationType == "BINARY"
    assert first.AnatomicRegionSequence[0].CodeValue == coding.LEVEL_CODES["T12"][0]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == coding.REGION_OF_INTEREST[0]
    assert first.SegmentAlgorithmType == "SEMIAUTOMATIC"
    frame = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    position = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    source = pydicom.dcmread(next(case.folder.glob("*.dcm")), stop_before_pixels=True)
    there = source.PerFrameFunctionalGroupsSequence[int(frame.ReferencedFrameNumber) - 1].PlanePositionSequence[0]
    assert [float(x) for x in there.ImagePositionPatient] == pytest.approx([float(x) for x in position])
    assert report.StudyInstanceUID == ds.StudyInstanceUID == source.StudyInstanceUID


def test_a_screw_is_its_cylinder_and_overlap_gets_an_object_of_its_own(cases: dict[str, Case], tmp_path: Path) -> None:
    """Volume of the cylinder: π r² l within 5 %. Planted: the diameter taken for the radius."""
    case = cases["axial"]
    document = as_json(case.with_screw())
    screw = document["screws"][0]
    held = dicom_objects(source_of(case.volume), document)
    path = next(p for p in write_dicom(tmp_path / "one", held) if p.name.startswith("seg-"))
    volume = int(masks(case, path)["L4-left"].sum()) * 0.7 * 0.9 * 1.5
    assert volume == pytest.approx(np.pi * (screw["diameter_mm"] / 2) ** 2 * 20.0, rel=0.05)
    slice_20 = np.argwhere(np.arange(SHAPE[0])[:, None, None] * np.ones(SHAPE) == 20)
    segments = [*segments_of(Groups(source_of(case.volume), document, "mark")), Segment("metal", "metal", slice_20)]
    segs = segmentations(source_of(case.volume), segments, document, "mark")
    assert [len(one.SegmentSequence) for one in segs] == [7, 1]
    assert len({one.SOPInstanceUID for one in segs}) == 2
    assert len({one.SeriesInstanceUID for one in segs}) == 1
    for path in write_dicom(tmp_path / "two", segs):
        judge(path)


def test_a_body_is_the_prism_between_its_endplates(cases: dict[str, Case], tmp_path: Path) -> None:
    """Volume of an elliptic prism with a wedge: area times the height in the middle. Planted: the inferior endplate's
    side mixed up; the segment was empty."""
    case = cases["axial"]
    angle, turn = np.linspace(0, 2 * np.pi, 72, endpoint=False), np.radians(4.0)
    center = case.lattice.lps(20, 30.0, 30.0)
    up, tilted = np.array([0.0, 0.0, 1.0]), np.array([0.0, np.sin(turn), np.cos(turn)])
    body = Body(
        center, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), up, 24.0, 20.0, 16.5, 4.0,
        EndplatePlane(center + 8.25 * up, tilted, 1.0), EndplatePlane(center - 8.25 * up, up, 1.0),
        np.stack([12 * np.cos(angle), 10 * np.sin(angle)], axis=1), 0.9, (),
    )  # fmt: skip
    document = as_json(case.document)
    document["vertebrae"][1]["body"] = body_to_dict(body)
    segs = [one for one in dicom_objects(source_of(case.volume), document) if one.Modality == "SEG"]
    found: dict[str, float] = {}
    for path in write_dicom(tmp_path / "out", segs):
        judge(path)
        found |= {name: float(mask.sum()) * 0.7 * 0.9 * 1.5 for name, mask in masks(case, path).items()}
    assert found["L4 body"] == pytest.approx(np.pi * 12 * 10 * 16.5, rel=0.03)


def test_halos_rods_and_metal_are_segments(cases: dict[str, Case], tmp_path: Path) -> None:
    """Volumes against π((r + w)² - r²)l and π r² l. Planted: the zone drawn from the axis instead of the thread."""
    case = cases["axial"]
    document = as_json(case.with_screw())
    screw = document["screws"][0]
    depths, angles = np.linspace(1.0, 19.0, 10).tolist(), np.arange(0.0, 360.0, 30.0).tolist()
    flat = [[2.0] * len(angles)] * len(depths)
    screw["halo"]["map"] = {"depths_mm": depths, "angles_deg": angles, "width_mm": flat, "sd_mm": flat}
    head = np.array(screw["head"])
    ends = [(head + np.array([10.0, 0.0, z])).tolist() for z in (-15.75, 0.0, 15.75)]  # halfway between slices
    document |= {"rods": [{"id": "left", "points": ends, "diameter_mm": 5.5, "gaps": []}], "other_metal": []}
    paths = write_dicom(tmp_path / "out", dicom_objects(source_of(case.volume), document))
    voxel, radius, found = 0.7 * 0.9 * 1.5, screw["diameter_mm"] / 2, {}
    for path in (one for one in paths if one.name.startswith("seg-")):
        judge(path)
        found |= {name: float(mask.sum()) * voxel for name, mask in masks(case, path).items()}
        kinds = {
            one.SegmentLabel: one.SegmentedPropertyTypeCodeSequence[0] for one in pydicom.dcmread(path).SegmentSequence
        }
        if "L4-left halo" in kinds:
            assert kinds["L4-left halo"].CodeValue == "LUCENT_ZONE"
    assert found["L4-left halo"] == pytest.approx(np.pi * ((radius + 2) ** 2 - radius**2) * 20.0, rel=0.05)
    assert found["rod left"] == pytest.approx(np.pi * 2.75**2 * 31.5, rel=0.05)
    assert "metal" not in found  # the scan holds none


def test_a_screw_without_a_diameter_has_no_segment(cases: dict[str, Case]) -> None:
    """Planted: its nan taken for a size; the export ended in a traceback."""
    case = cases["axial"]
    document = as_json(case.with_screw())
    document["screws"][0]["diameter_mm"] = None
    objects = dicom_objects(source_of(case.volume), document)
    names = {segment.SegmentLabel for one in objects if one.Modality == "SEG" for segment in one.SegmentSequence}
    assert names
    assert "L4-left" not in names


@pytest.mark.parametrize("bad", [{"rods": [{"id": "left"}]}, {"rods": 3}, {"other_metal": [{"kind": "stem"}]}])
def test_a_screen_that_nobody_wrote_is_refused(cases: dict[str, Case], bad: dict[str, Any]) -> None:
    case = cases["axial"]
    document = as_json(case.with_screw()) | bad
    with pytest.raises(SpineImgError, match="not as `implants` writes them"):
        dicom_objects(source_of(case.volume), document)


def test_nothing_to_show_is_no_object(cases: dict[str, Case]) -> None:
    case = cases["axial"]
    nothing: Any = Segment("empty", "metal", np.zeros((0, 3), dtype=np.intp))
    assert segmentations(source_of(case.volume), [nothing], case.document, "mark") == []
