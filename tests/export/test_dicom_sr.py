"""The structured report, held against the result it was made from by readers that nobody here wrote."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes

from spineimg import coding
from spineimg.anatomy import LEVELS
from spineimg.cli.exchange import source_of
from spineimg.errors import SpineImgError
from spineimg.export.dicom import dicom_objects, write_dicom
from spineimg.export.dicom_picture import pixels
from spineimg.export.figure import draw
from spineimg.export.restored import restored
from spineimg.io.structured_report import read_report
from tests.export.dicom_cases import AXES_MM, CASES, Case, as_json, dumped, judge, make

PLACES = ("superior", "mid", "inferior")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {kind: make(tmp_path_factory.mktemp("study") / "ct", kind) for kind in CASES}


def report_of(folder: Path) -> Path:
    return next(folder.glob("sr-*.dcm"))


def measured(group: Any, name: coding.Code, derivation: coding.Code | None = None) -> float | None:
    """One number of a group, as highdicom reads it."""
    for one in group.get_measurements(name=hd.sr.CodedConcept(*name)):
        if derivation is None or (one.derivation and one.derivation.value == derivation[0]):
            return float(one.value)
    return None


def groups(objects: list[Any]) -> dict[str, Any]:
    """The groups of the report among some objects, by name, after a trip through bytes."""
    return named(reread(objects[0]))


def reread(report: Any) -> Any:
    return hd.sr.srread(BytesIO(encoded(report)))


def encoded(dataset: Any) -> bytes:
    content = BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()


def read_groups(path: Path) -> dict[str, Any]:
    return named(hd.sr.srread(path))


def named(report: Any) -> dict[str, Any]:
    found = report.content.get_image_measurement_groups() + report.content.get_planar_roi_measurement_groups()
    return {one.tracking_identifier: one for one in found}


# -- codes ------------------------------------------------------------------------------------------------------------


def test_levels_have_the_codes_of_the_dictionaries() -> None:
    """Planted: T11 with the code of T1."""
    listed = {meaning: code for entry in concepts["SCT"].values() for code, (meaning, _) in entry.items()}
    for level in LEVELS:
        value, scheme, meaning = coding.LEVEL_CODES[level]
        assert meaning == f"{level} vertebra"
        if level in ("T13", "L6"):
            assert scheme == coding.PRIVATE
        elif level != "S1":  # in SNOMED CT, but not in the dictionaries of pydicom
            assert (listed[meaning], "SCT") == (value, scheme)


def test_every_public_code_means_what_its_dictionary_says() -> None:
    for name, value in vars(coding).items():
        if not (isinstance(value, tuple) and len(value) == 3 and name.isupper()) or value[1] in (
            "UCUM",
            coding.PRIVATE,
        ):
            continue
        meanings = {m for entry in concepts[value[1]].values() for code, (m, _) in entry.items() if code == value[0]}
        assert not meanings or value[2] in meanings or name == "ANATOMICAL_STRUCTURE", (name, meanings)
    assert codes.UCUM.HounsfieldUnit.value == coding.HOUNSFIELD[0]


def test_private_codes_fit_and_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text(encoding="utf-8")
    for value in re.findall(r'private\(\s*"(\w+)"', Path(coding.__file__).read_text(encoding="utf-8")):
        assert len(value) <= 16
        assert f"`{value}`" in text, value


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CASES)
def test_the_judges_accept_every_kind_and_read_every_number(cases: dict[str, Case], kind: str, tmp_path: Path) -> None:
    """Planted: the median written in place of the mean."""
    case = cases[kind]
    for path in write_dicom(tmp_path / "out", case.objects()):
        judge(path)
    found = read_groups(report_of(tmp_path / "out"))
    hu = coding.ATTENUATION
    for vertebra in case.document["vertebrae"]:
        group = found[vertebra["level"]]
        assert measured(group, hu, coding.MEAN) == vertebra["mean_hu"]
        assert measured(group, hu, coding.STANDARD_DEVIATION) == vertebra["sd_hu"]
        assert measured(group, hu, coding.MEDIAN) == vertebra["median_hu"]
        assert measured(group, hu, coding.POOLED_MEAN) == vertebra["pooled_mean_hu"]
        assert measured(group, coding.VOXEL_COUNT) == vertebra["n_voxels"]
        assert group.finding_sites[0].value.value == coding.LEVEL_CODES[vertebra["level"]][0]
        assert {one.unit.value for one in group.get_measurements(name=hd.sr.CodedConcept(*hu))} == {"[hnsf'U]"}
        for one in vertebra["slices"]:
            plane = found[f"{vertebra['level']} {one['position']}"]
            assert measured(plane, hu, coding.MEAN) == one["mean_hu"]
            assert measured(plane, coding.AREA) == one["area_mm2"]
            assert measured(plane, coding.VOXEL_COUNT) == one["n_voxels"]
    text = dumped(report_of(tmp_path / "out"))
    assert text.count("Measurement Group") == 8
    for vertebra in case.document["vertebrae"]:
        assert f"{vertebra['mean_hu']:.8f}"[:8] in text


def test_the_flag_carries_its_cutoff_and_interval(cases: dict[str, Case]) -> None:
    case = cases["axial"]
    group = groups(case.objects())["L4"]
    flag = case.document["vertebrae"][1]["flag"]
    call = group.get_qualitative_evaluations(name=hd.sr.CodedConcept(*coding.FLAG))[0]
    assert call.value.value == coding.CALL_CODES[flag["call"]][0]
    assert measured(group, coding.THRESHOLD) == flag["cutoff_hu"]
    ends = [measured(group, coding.ATTENUATION, end) for end in (coding.INTERVAL_LOW, coding.INTERVAL_HIGH)]
    assert ends == flag["interval_hu"]


def test_an_unmeasured_vertebra_has_no_number_but_its_reason(cases: dict[str, Case]) -> None:
    case = cases["axial"]
    document = as_json(case.document)
    lost = document["vertebrae"][0]
    lost.update(dict.fromkeys(("mean_hu", "pooled_mean_hu", "median_hu", "sd_hu", "n_voxels", "kept_fraction")))
    lost["slices"] = []
    lost["notes"] = [{"code": "no_roi", "text": "no ROI says where it is", "about": "T12"}]
    group = groups(dicom_objects(source_of(case.volume), document))["T12"]
    assert group.get_measurements() == []
    said = [str(item.TextValue) for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert "T12: no ROI says where it is [no_roi]" in said


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CASES)
def test_a_region_on_a_slice_lies_where_the_ellipse_lies(cases: dict[str, Case], kind: str) -> None:
    """Pixel to mm by the equation of PS3.3 C.7.6.2.1-1, the first pixel's centre at 0.5. Planted: the half pixel."""
    case = cases[kind]
    found = groups(case.objects())
    for entry in case.rois["vertebrae"][1]["slices"]:
        region = found[f"L4 {entry['position']}"].roi
        image = region.ContentSequence[0].ReferencedSOPSequence[0]
        k = slice_named(case, image)
        points = [case.lattice.lps(k, row - 0.5, column - 0.5) for column, row in region.value]
        assert region.graphic_type.value == "ELLIPSE"
        middle = np.mean(points, axis=0)
        lengths = [np.linalg.norm(points[1] - points[0]) / 2, np.linalg.norm(points[3] - points[2]) / 2]
        np.testing.assert_allclose(sorted(lengths), sorted(AXES_MM), atol=1e-3)
        normal = np.cross(case.lattice.orientation[:3], case.lattice.orientation[3:])
        away = middle - entry["center"]
        np.testing.assert_allclose(away - (away @ normal) * normal, 0, atol=1e-3)
        assert abs(away @ normal) < 0.2


def slice_named(case: Case, reference: Any) -> int:
    """The lattice's slice that an image reference names, by the position in the file itself."""
    for path in sorted(case.folder.rglob("*")):
        if path.is_dir():
            continue
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        if ds.SOPInstanceUID != reference.ReferencedSOPInstanceUID:
            continue
        if "PerFrameFunctionalGroupsSequence" in ds:
            frame = ds.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
            ds = frame.PlanePositionSequence[0]
        away = np.linalg.norm(case.lattice.origins_lps_mm - np.array(ds.ImagePositionPatient, float), axis=1)
        return int(np.argmin(away))
    raise AssertionError(f"no file holds {reference.ReferencedSOPInstanceUID}")


@pytest.mark.parametrize("kind", ["axial", "tilted", "multi-frame"])
def test_a_region_on_a_tilted_plane_lies_in_patient_coordinates(cases: dict[str, Case], kind: str) -> None:
    case = cases[kind]
    found = groups(case.objects())
    for entry in case.rois["vertebrae"][0]["slices"]:
        region = found[f"T12 {entry['position']}"].roi
        a, b = AXES_MM
        u, v, center = (np.array(entry[name]) for name in ("u", "v", "center"))
        expected = [center - a * u, center + a * u, center - b * v, center + b * v]
        np.testing.assert_allclose(region.value, expected, atol=1e-4)


def test_a_turned_ellipse_on_pixels_that_are_not_square_is_drawn_by_its_outline(cases: dict[str, Case]) -> None:
    """Pixels of 0.7 x 0.9 mm: its axes leave the right angle on the image."""
    case = cases["axial"]
    document = as_json(case.document)
    one = document["vertebrae"][1]["slices"][1]
    c, s = np.cos(0.6), np.sin(0.6)
    one["u"], one["v"] = [c, s, 0.0], [-s, c, 0.0]
    region = groups(dicom_objects(source_of(case.volume), document))["L4 mid"].roi
    k = int(np.argmin(np.abs(case.lattice.origins_lps_mm[:, 2] - one["center"][2])))
    offset = np.array([case.lattice.lps(k, row - 0.5, column - 0.5) for column, row in region.value]) - one["center"]
    away = (offset @ one["u"] / AXES_MM[0]) ** 2 + (offset @ one["v"] / AXES_MM[1]) ** 2
    np.testing.assert_allclose(away, 1.0, atol=1e-4)
    assert region.graphic_type.value == "POLYLINE"


# -- screws -----------------------------------------------------------------------------------------------------------


def test_a_screw_has_a_group_with_its_axis_and_its_halo(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["axial"]
    document = as_json(case.with_screw())
    paths = write_dicom(tmp_path / "out", dicom_objects(source_of(case.volume), document))
    for path in paths:
        judge(path)
    group = read_groups(report_of(tmp_path / "out"))["L4-left"]
    screw = document["screws"][0]
    assert group.finding_type.value == "68183006"
    assert group.finding_sites[0].laterality.value == coding.SIDE_CODES["left"][0]
    assert measured(group, coding.DIAMETER) == screw["diameter_mm"]
    assert measured(group, coding.HALO_WIDTH, coding.MEDIAN) == screw["halo"]["width_median_mm"]
    assert measured(group, coding.HALO_WIDTH, coding.INTERVAL_HIGH) == screw["halo"]["interval_mm"][1]
    assert measured(group, coding.HALO_COVERAGE) == screw["halo"]["coverage_over_1mm"]
    axis = group.get_measurements(name=hd.sr.CodedConcept(*coding.LENGTH))[0].referenced_coordinates[0]
    np.testing.assert_allclose(axis.value, [screw["head"], screw["tip"]], atol=1e-4)
    verdict = group.get_qualitative_evaluations(name=hd.sr.CodedConcept(*coding.LOOSENING))[0]
    assert verdict.value.meaning == "Present"


# -- who, what, whose -------------------------------------------------------------------------------------------------


def test_the_same_result_gives_the_same_bytes_and_another_one_other_uids(cases: dict[str, Case]) -> None:
    """Planted: the time of making in the fingerprint."""
    case = cases["axial"]
    first, again = case.objects(), dicom_objects(source_of(case.volume), as_json(case.document))
    assert [encoded(one) for one in first] == [encoded(one) for one in again]
    later = as_json(case.document)
    later["made_by"]["created"] = "2027-01-01T00:00:00Z"
    assert [one.SOPInstanceUID for one in dicom_objects(source_of(case.volume), later)] == uids(first)
    other = as_json(case.document)
    other["vertebrae"][0]["level"] = "T11"
    moved = dicom_objects(source_of(case.volume), other)
    assert not set(uids(moved)) & set(uids(first))
    assert not {one.SeriesInstanceUID for one in moved} & {one.SeriesInstanceUID for one in first}


def uids(objects: list[Any]) -> list[str]:
    return [one.SOPInstanceUID for one in objects]


def test_the_observer_is_the_person_who_confirmed_else_the_program(cases: dict[str, Case]) -> None:
    case = cases["axial"]
    plain, signed = (reread(case.objects(observer=name)[0]) for name in (None, "Doe^Jane"))
    assert plain.content.get_observer_contexts()[0].observer_type.meaning == "Device"
    person = signed.content.get_observer_contexts()[0]
    assert person.observer_type.meaning == "Person"
    assert str(person.observer_identifying_attributes.name) == "Doe^Jane"
    assert plain.SOPInstanceUID != signed.SOPInstanceUID
    with pytest.raises(SpineImgError, match="no name that DICOM can hold"):
        case.objects(observer="a\\b")


def test_only_patient_and_study_come_from_the_source(tmp_path: Path) -> None:
    """Every text tag of the source holds an unmistakable word; of them only the patient's and the study's number come
    through. Planted: Study Description copied."""
    marked = {
        "ReferringPhysicianName": "LEAK^referrer",
        "PerformingPhysicianName": "LEAK^performer",
        "OperatorsName": "LEAK^operator",
        "InstitutionName": "LEAK institution",
        "InstitutionAddress": "LEAK address",
        "StationName": "LEAK station",
        "StudyDescription": "LEAK study",
        "SeriesDescription": "LEAK series",
        "ProtocolName": "LEAK protocol",
        "PatientComments": "LEAK comments",
        "PatientAddress": "LEAK home",
        "OtherPatientIDs": "LEAK other",
        "PatientTelephoneNumbers": "LEAK phone",
        "AdditionalPatientHistory": "LEAK history",
        "Occupation": "LEAK job",
        "ImageComments": "LEAK image",
        "PositionReferenceIndicator": "LEAK sternum",
        "DeviceSerialNumber": "LEAK serial",
        "Manufacturer": "LEAK maker",
        "RequestedProcedureDescription": "LEAK request",
    }
    kept = {"PatientName": "KEEP^Name", "PatientID": "KEEP id", "AccessionNumber": "KEEP acc", "StudyID": "KEEP study"}
    case = make(tmp_path / "ct", "axial", {**marked, **kept})
    case.document["made_by"]["settings"].pop("cutoffs")
    drawn = pixels(draw(case.volume, restored(as_json(case.document), case.volume)))
    for path in write_dicom(tmp_path / "out", case.objects(picture=drawn)):
        content = path.read_bytes()
        assert b"LEAK" not in content
        ds = pydicom.dcmread(path)
        assert [str(ds[name].value) for name in kept] == list(kept.values())
        assert ds.StudyInstanceUID == case.volume.series.study_instance_uid
        assert ds.SeriesInstanceUID != case.volume.series.series_instance_uid
        assert not [one for one in ds.iterall() if one.tag.is_private]
        judge(path)


def test_names_in_other_scripts_and_broken_dates_come_through(tmp_path: Path) -> None:
    case = make(tmp_path / "ct", "axial", {"PatientName": "Müller^Jörg", "PatientSex": "", "StudyTime": ""})
    report = case.objects()[0]
    assert str(report.PatientName) == "Müller^Jörg"
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.StudyTime in (None, "")


def test_what_does_not_belong_together_is_refused(cases: dict[str, Case]) -> None:
    case = cases["axial"]
    with pytest.raises(SpineImgError, match=r"measured on series .*, but the source is"):
        dicom_objects(source_of(case.volume), cases["tilted"].document)
    lost = as_json(case.document)
    lost["vertebrae"][0]["slices"][0]["sop_instance_uids"] = ["1.2.3"]
    with pytest.raises(SpineImgError, match=r"measured on slice 1\.2\.3, which the source does not have"):
        dicom_objects(source_of(case.volume), lost)
    unnamed = as_json(case.document)
    unnamed["series"]["series_instance_uid"] = None
    with pytest.raises(SpineImgError, match="volume without a SeriesInstanceUID"):
        dicom_objects(source_of(case.volume), unnamed)


def test_a_source_without_a_frame_of_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpineImgError, match=r"no FrameOfReferenceUID \(0020,0052\)"):
        make(tmp_path / "ct", "axial", {"FrameOfReferenceUID": None}).objects()


@pytest.mark.parametrize("kind", CASES)
def test_a_report_read_back_holds_the_ellipses_bit_for_bit(cases: dict[str, Case], kind: str, tmp_path: Path) -> None:
    """Planted: ellipses taken from the 32-bit coordinates of the regions."""
    case = cases[kind]
    write_dicom(tmp_path / "out", case.objects(observer="A"))
    found = read_report(report_of(tmp_path / "out"))
    assert found.rois.reader == "A"
    assert (found.rois.construct.uiv, found.rois.construct.liv) == ("T12", "L4")
    assert [roi.confirmed for roi in found.rois.vertebrae] == [True, False]
    for roi, entry in zip(found.rois.vertebrae, case.rois["vertebrae"], strict=True):
        assert roi.level == entry["level"]
        for ellipse, told in zip(roi.ellipses, entry["slices"], strict=True):
            assert ellipse.center_lps_mm.tolist() == told["center"]
            assert ellipse.v_lps.tolist() == told["v"]
            assert ellipse.semi_axes_mm == tuple(told["semi_axes_mm"])
