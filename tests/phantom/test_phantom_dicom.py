"""Written studies as another program reads them: by their tags alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from spineimg.anatomy import Construct
from spineimg.errors import SpineImgError
from spineimg.phantom import Imaging, MetalSpec, Phantom, Storage, write_phantom
from spineimg.phantom import recipes as recipes_module
from spineimg.phantom.dicom import write_series
from spineimg.phantom.parts import Strut
from tests.phantom.plain_shapes import EMPTY_HU, SMALL, one_shape

TINY = Imaging(size=(40, 44), pixel_mm=1.6, spacing_mm=3.0, thickness_mm=3.5, noise_sd_hu=10.0, margin_mm=-6.0)
BALL = np.array(SMALL.origin_lps_mm) + np.array([3.17, 24.41, 1.29])


def _read(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in folder.iterdir()]


def _center_of_mass(slices: list[pydicom.Dataset]) -> np.ndarray:
    """LPS mm by DICOM PS3.3 C.7.6.2.1.1, written out apart from the project's own geometry."""
    total, moment = 0.0, np.zeros(3)
    for ds in slices:
        weight = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) - EMPTY_HU
        weight[weight < 4] = 0
        x, y = np.array(ds.ImageOrientationPatient[:3], float), np.array(ds.ImageOrientationPatient[3:], float)
        between_rows, between_columns = (float(s) for s in ds.PixelSpacing)
        row, column = np.mgrid[: ds.Rows, : ds.Columns]
        at = np.array(ds.ImagePositionPatient, float)
        at = at + column[..., None] * between_columns * x + row[..., None] * between_rows * y
        total += weight.sum()
        moment += (weight[..., None] * at).sum(axis=(0, 1))
    return moment / total


@pytest.mark.parametrize(
    "scan",
    [
        {},
        {"position": "HFP"},
        {"position": "FFS"},
        {"position": "FFP"},
        {"tilt_deg": 15.0},
        {"oblique_deg": (11.0, 4.0)},
        {"row_mm": 0.9},
    ],
    ids=str,
)
def test_a_landmark_lies_where_the_tags_say(tmp_path: Path, scan: dict[str, object]) -> None:
    """A ball's centre of mass within 0.01 mm. Planted: PixelSpacing as (column, row); IPP of the corner, not centre."""
    imaging = replace(Imaging(size=(48, 40), pixel_mm=0.6, spacing_mm=0.7, noise_sd_hu=0.0, margin_mm=-4.0), **scan)
    up = np.array([0.0, 0.0, 1e-3])
    ball = Strut(BALL - up, BALL + up, np.array([1.0, 0.0, 0.0]), (4.0, 4.0))
    write_series(tmp_path, one_shape(ball, imaging, 2000.0))
    slices = _read(tmp_path)
    assert {str(ds.PatientPosition) for ds in slices} == {imaging.position}
    np.testing.assert_allclose(_center_of_mass(slices), BALL, atol=0.01)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_phantom(folder, _tiny(), Construct("L2", "L3"))
    return folder


def _tiny(**changes: object) -> Phantom:
    return replace(Phantom(SMALL, TINY, cover=("L3", "L3"), name="tiny", seed=7), **changes)


def test_files_look_like_a_scanner_s(study: Path) -> None:
    slices = _read(study / "ct")
    by_name = [float(pydicom.dcmread(file).SliceLocation) for file in sorted((study / "ct").iterdir())]
    assert by_name != sorted(by_name)
    assert by_name != sorted(by_name, reverse=True)
    first = slices[0]
    assert float(first.SliceThickness) == 3.5
    assert first.PixelRepresentation == 0
    assert first.RescaleIntercept == -1024
    by_number = sorted(slices, key=lambda ds: ds.InstanceNumber)
    assert [ds.InstanceNumber for ds in by_number] == list(range(1, len(slices) + 1))
    places = [float(ds.ImagePositionPatient[2]) for ds in by_number]
    np.testing.assert_allclose(np.diff(places), -3.0, atol=1e-6)
    for name in ("SeriesInstanceUID", "FrameOfReferenceUID", "StudyInstanceUID"):
        assert len({ds[name].value for ds in slices}) == 1
    assert len({ds.SOPInstanceUID for ds in slices}) == len(slices)


def test_pixels_are_the_image(study: Path) -> None:
    """Planted: intercept left out on writing."""
    phantom = _tiny()
    volume = phantom.volume()
    origins = phantom.geometry.origins_lps_mm
    for ds in _read(study / "ct"):
        k = int(np.argmin(np.abs(origins[:, 2] - float(ds.ImagePositionPatient[2]))))
        np.testing.assert_array_equal(ds.pixel_array.astype(int) + int(ds.RescaleIntercept), volume.read(k))


def test_jpeg_ls_holds_the_same_pixels(study: Path, tmp_path: Path) -> None:
    write_series(tmp_path, _tiny(storage=Storage(jpeg_ls=True)))
    packed = {ds.SOPInstanceUID: ds for ds in _read(tmp_path)}
    for ds in _read(study / "ct"):
        twin = packed[ds.SOPInstanceUID]
        assert twin.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
        np.testing.assert_array_equal(twin.pixel_array, ds.pixel_array)


def test_one_seed_one_study(study: Path, tmp_path: Path) -> None:
    """Planted: random UIDs."""
    again = tmp_path / "again"
    write_phantom(again, _tiny(), Construct("L2", "L3"))
    for file in study.rglob("*"):
        if file.is_file():
            assert (again / file.relative_to(study)).read_bytes() == file.read_bytes(), file.name
    write_series(tmp_path, _tiny(seed=8))
    uids = {pydicom.dcmread(f).SOPInstanceUID for f in tmp_path.iterdir() if f.is_file()}
    assert not uids & {ds.SOPInstanceUID for ds in _read(study / "ct")}


def test_truth_and_rois_are_beside_it(study: Path) -> None:
    truth = json.loads((study / "truth.json").read_text())
    rois = json.loads((study / "rois.json").read_text())
    assert truth["recipe"] == "tiny"
    assert truth["seed"] == 7
    assert rois["construct"] == {"uiv": "L2", "liv": "L3"}
    assert [v["level"] for v in truth["rois"]["endplate"]] == ["L2", "L3"]
    l3 = next(level for level in truth["levels"] if level["level"] == "L3")
    assert l3["trabecular_mean_hu"] == pytest.approx(_tiny().filling("L3").mean_hu, abs=1e-3)


# -- what does not fit ------------------------------------------------------------------------------------------------

METAL = MetalSpec(("L3",))


def test_metal_needs_the_extended_scale(tmp_path: Path) -> None:
    """Planted: values wrapped round at 16 bits instead of being refused."""
    with pytest.raises(SpineImgError, match=r"HU do not fit into 12 bits with intercept -1024 \(at most 3071 HU\)"):
        write_phantom(tmp_path / "study", _tiny(metal=METAL), Construct("L2", "L3"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("storage", "top"), [(Storage(-8192, 16), 7000), (Storage(clip_high=True), 3071)])
def test_metal_is_stored_whole_or_clipped(tmp_path: Path, storage: Storage, top: int) -> None:
    imaging = replace(TINY, noise_sd_hu=0.0, pixel_mm=0.8, size=(100, 90))
    write_series(tmp_path, _tiny(metal=METAL, storage=storage, imaging=imaging))
    highest = max(int(ds.pixel_array.max()) + int(ds.RescaleIntercept) for ds in _read(tmp_path))
    assert highest == pytest.approx(top, abs=top * 0.002)


def test_the_corners_outside_the_circle_are_padding(tmp_path: Path) -> None:
    write_series(tmp_path, _tiny(imaging=replace(TINY, circle=True)))
    for ds in _read(tmp_path):
        assert ds.PixelPaddingValue == 0
        assert ds.pixel_array[0, 0] == 0
        assert ds.pixel_array[ds.Rows // 2, ds.Columns // 2] > 0


def test_a_folder_in_use_is_refused(study: Path) -> None:
    with pytest.raises(SpineImgError, match="not an empty folder"):
        write_phantom(study, _tiny(), Construct("L2", "L3"))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recipes_module, "_write_json", full)
    with pytest.raises(SpineImgError, match="No space left"):
        write_phantom(tmp_path / "study", _tiny(), Construct("L2", "L3"))
    assert list(tmp_path.iterdir()) == []


def test_dciodvfy_finds_no_error(study: Path, tmp_path: Path) -> None:
    """The standard's own checker (dicom3tools), on a raw, a compressed, an enhanced and a padded file."""
    checker = shutil.which("dciodvfy")
    if checker is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    enhanced = replace(TINY, contrast_agent="IOHEXOL", tilt_deg=10.0, circle=True, position="FFP")
    write_series(tmp_path, _tiny(storage=Storage(jpeg_ls=True), imaging=enhanced))
    for file in [next((study / "ct").iterdir()), next(tmp_path.iterdir())]:
        found = subprocess.run([checker, "-new", str(file)], capture_output=True, text=True, check=False)
        errors = [line for line in (found.stdout + found.stderr).splitlines() if line.startswith("Error")]
        assert not errors
