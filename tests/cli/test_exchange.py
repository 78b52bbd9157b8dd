"""The verbs export and import, and `hu --dicom`: what they write, refuse and leave behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from spineimg import cli
from tests.export.dicom_cases import Case, judge, make

FILES = ["ot", "seg", "sr"]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["spineimg", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make(tmp_path_factory.mktemp("study") / "ct", "axial")


@pytest.fixture
def paths(case: Case, tmp_path: Path) -> tuple[Path, Path]:
    """The ROI file and the result file."""
    rois, result = tmp_path / "rois.json", tmp_path / "result.json"
    rois.write_text(json.dumps(case.rois), encoding="utf-8")
    result.write_text(json.dumps(case.document), encoding="utf-8")
    return rois, result


def kinds(folder: Path) -> list[str]:
    assert all(path.suffix == ".dcm" and path.is_file() for path in folder.iterdir())
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


def test_a_round_trip_measures_the_same_numbers(
    case: Case, paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the role of the LIV lost on the way back, so that its flag is missing."""
    out, again, rois = tmp_path / "dicom", tmp_path / "again.json", tmp_path / "back.json"
    assert run(monkeypatch, "hu", case.folder, "--rois", paths[0], "--dicom", out, "--quiet") == 0
    assert kinds(out) == FILES
    for path in out.iterdir():
        judge(path)
    report = next(out.glob("sr-*"))
    words = ("--rois-out", rois, "--source", case.folder, "--json", again, "--quiet")
    assert run(monkeypatch, "import", report, *words) == 0
    measured = json.loads(again.read_text())
    for one, first in zip(measured["vertebrae"], case.document["vertebrae"], strict=True):
        assert {k: v for k, v in one.items() if k != "notes"} == {k: v for k, v in first.items() if k != "notes"}
    assert "differs_from_report" not in {note["code"] for note in measured["notes"]}
    assert run(monkeypatch, "hu", case.folder, "--rois", rois, "--json", again, "--quiet") == 0
    assert json.loads(again.read_text())["vertebrae"] == measured["vertebrae"]


def test_export_is_the_same_as_measuring_with_dicom_and_twice_is_once(
    case: Case, paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, words = tmp_path / "dicom", ("--source", case.folder, "--dicom", tmp_path / "dicom", "--observer", "A")
    assert run(monkeypatch, "export", paths[1], *words, "--json", "-") == 0
    listing = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in listing["files"]] == ["report", "segmentation", "key image"]
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(monkeypatch, "export", paths[1], *words, "--quiet") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    other = tmp_path / "other"
    assert run(monkeypatch, "hu", case.folder, "--rois", paths[0], "--dicom", other, "--quiet") == 0
    assert sorted(path.name for path in other.iterdir()) == sorted(first)


def test_the_key_image_shows_the_figure_and_no_name(
    case: Case, paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "hu", case.folder, "--rois", paths[0], "--dicom", tmp_path / "o", "--quiet") == 0
    ds = pydicom.dcmread(next((tmp_path / "o").glob("ot-*")))
    assert (ds.BurnedInAnnotation, ds.Columns, ds.SamplesPerPixel) == ("NO", 1400, 3)
    assert np.ptp(ds.pixel_array) == 255


def test_a_volume_file_is_refused_with_the_reason(
    case: Case, paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    k = np.arange(12)
    values = np.broadcast_to((k * 9 - 40).astype(np.int16), (20, 20, 12))
    nifti = tmp_path / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values), np.eye(4)), nifti)
    for words in (
        ("hu", nifti, "--rois", paths[0], "--json", tmp_path / "r.json"),
        ("export", paths[1], "--source", nifti),
    ):
        assert run(monkeypatch, *words, "--dicom", tmp_path / "o") == 1
        complaint = capsys.readouterr().err
        assert complaint.count("\n") == 1
        assert "NIfTI" in complaint or "is needed" in complaint
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "r.json").exists()


def test_wrong_sources_files_and_places_end_in_one_sentence(
    case: Case, paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    strange = make(tmp_path / "strange", "axial")
    used = tmp_path / "file"
    used.write_text("x")
    attempts = {
        "give the CT that was measured": ("export", paths[1], "--source", strange.folder, "--dicom", tmp_path / "o"),
        "name another folder": ("export", paths[1], "--source", case.folder, "--dicom", used),
        "no DICOM structured report": ("import", paths[1]),
        "a Comprehensive 3D SR": ("import", next(case.folder.rglob("*[0-9a-zA-Z]"))),
        "cannot be read": ("import", tmp_path / "nothing.dcm"),
    }
    for part, words in attempts.items():
        assert run(monkeypatch, *words) == 1, part
        complaint = capsys.readouterr().err
        assert complaint.count("\n") == 1
        assert part in complaint
    assert not (tmp_path / "o").exists()


def test_a_write_that_fails_leaves_nothing(
    case: Case, paths: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: each file written as soon as it is made."""
    from spineimg.export import dicom

    calls = []

    def failing(path: Path) -> object:
        calls.append(path)
        if len(calls) == 3:
            raise dicom.SpineImgError("the disk is full")
        return dicom_replacing(path)

    dicom_replacing = dicom.replacing
    monkeypatch.setattr(dicom, "replacing", failing)
    assert run(monkeypatch, "export", paths[1], "--source", case.folder, "--dicom", tmp_path / "o") == 1
    assert len(calls) == 3
    assert not (tmp_path / "o").exists()
