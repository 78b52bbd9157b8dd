"""`spineimg implants` on the sample study after surgery and on one without metal."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from spineimg import cli
from spineimg.export.overlay import SCREW
from tests.export.dicom_cases import judge

SAMPLES = Path(__file__).parents[2] / "sample_data"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["spineimg", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLES / "postop" / "truth.json").read_text())
    return content


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, truth: dict[str, Any]) -> Path:
    """Everything that the verb writes, levels named by clicks."""
    folder = tmp_path_factory.mktemp("implants")
    clicks = [{"level": one["level"], "center": one["center"]} for one in truth["levels"] if one["level"] in "L1 L2 L3"]
    (folder / "rois.json").write_text(json.dumps({"schema": "spineimg.rois/1", "vertebrae": clicks}))
    with pytest.MonkeyPatch.context() as patch:
        code = run(
            patch, "implants", SAMPLES / "postop" / "ct", "--rois", folder / "rois.json", "--quiet",
            "--json", folder / "a.json", "--csv", folder / "a.csv", "--figure", folder / "a.png",
            "--overlay", folder / "a.nii.gz", "--dicom", folder / "dicom",
        )  # fmt: skip
    assert code == 0
    return folder


def test_screws_lie_where_they_are(out: Path, truth: dict[str, Any]) -> None:
    """Planted: sides told from the image's left instead of the patient's; every id was wrong."""
    result = json.loads((out / "a.json").read_text())
    found = {one["id"]: one for one in result["screws"]}
    assert set(found) == {one["id"] for one in truth["screws"]}
    for one in truth["screws"]:
        mine = found[one["id"]]
        assert (mine["level"], mine["side"]) == (one["level"], one["side"])
        assert np.linalg.norm(np.subtract(mine["tip"], one["tip"])) < 1.0
        assert np.linalg.norm(np.subtract(mine["head"], one["head"])) < 1.0
        assert mine["length_mm"] == pytest.approx(one["length_mm"], abs=1.2)
        assert mine["diameter_mm"] == pytest.approx(one["diameter_mm"], abs=0.3)
    assert {rod["id"] for rod in result["rods"]} == {"left", "right"}
    assert all(rod["gaps"] == [] for rod in result["rods"])


def test_wide_halos_are_present_and_none_where_there_is_none(out: Path, truth: dict[str, Any]) -> None:
    result = json.loads((out / "a.json").read_text())
    true = {one["id"]: one["halo"]["width_median_mm"] for one in truth["screws"]}
    for one in result["screws"]:
        if true[one["id"]] >= 1.5:
            assert one["loosening"] != "absent"
        if true[one["id"]] == 0:
            assert one["loosening"] != "present"
    wide = [one for one in result["screws"] if true[one["id"]] >= 2]
    assert wide
    assert all(one["loosening"] == "present" for one in wide)
    assert result["grade"]["silva_type"] == 1


def test_all_files_say_the_same(out: Path) -> None:
    result = json.loads((out / "a.json").read_text())
    with (out / "a.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["id"] for row in rows] == [one["id"] for one in result["screws"]]
    assert [row["loosening"] for row in rows] == [one["loosening"] for one in result["screws"]]
    image = nibabel.load(out / "a.nii.gz")
    volume_mm3 = (np.asarray(image.dataobj) == SCREW).sum() * abs(np.linalg.det(image.affine[:3, :3]))
    shafts = sum(np.pi * one["diameter_mm"] ** 2 / 4 * one["length_mm"] for one in result["screws"])
    assert volume_mm3 == pytest.approx(shafts, rel=0.05)
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")
    kinds = sorted(pydicom.dcmread(path).Modality for path in (out / "dicom").iterdir())
    assert set(kinds) == {"SR", "SEG", "OT"}


def test_export_of_the_result_is_what_the_screen_wrote(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same objects, though one rests on the file and the other on the screen. Planted: a halo drawn from the map before
    it was rounded; its object had the same UID and other voxels."""
    ct = SAMPLES / "postop" / "ct"
    assert run(monkeypatch, "export", out / "a.json", "--source", ct, "--dicom", tmp_path / "again", "--quiet") == 0
    first, again = ({path.name: path for path in folder.iterdir()} for folder in (out / "dicom", tmp_path / "again"))
    assert set(first) == set(again)
    result = json.loads((out / "a.json").read_text())
    labels: set[str] = set()
    for name, path in first.items():
        judge(path)
        one, other = pydicom.dcmread(path), pydicom.dcmread(again[name])
        if one.Modality != "SR":
            assert one.PixelData == other.PixelData
        if one.Modality == "SEG":
            labels |= {segment.SegmentLabel for segment in one.SegmentSequence}
    wide = {f"{one['id']} halo" for one in result["screws"] if one["loosening"] == "present"}
    assert wide
    assert labels >= {one["id"] for one in result["screws"]} | wide | {"rod left", "rod right", "metal"}


def test_screws_marked_by_hand(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of a result, moved by a millimetre, comes back to where the metal is."""
    result = json.loads((out / "a.json").read_text())
    (first,) = result["screws"][:1]
    marked = {"schema": "spineimg.screws/1", "screws": [dict(first, tip=[x + 0.6 for x in first["tip"]])]}
    (tmp_path / "screws.json").write_text(json.dumps(marked))
    options = ("--screws", tmp_path / "screws.json", "--json", tmp_path / "b.json", "--quiet")
    assert run(monkeypatch, "implants", SAMPLES / "postop" / "ct", *options) == 0
    (again,) = json.loads((tmp_path / "b.json").read_text())["screws"]
    assert np.linalg.norm(np.subtract(again["tip"], first["tip"])) < 0.5
    assert (again["id"], again["level"]) == (first["id"], first["level"])


def test_a_scan_without_metal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "implants", SAMPLES / "preop" / "ct", "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["screws"], result["rods"], result["grade"]["silva_type"]) == ([], [], None)


def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "implants", "x", "--rois", "a", "--mask", "b") == 2
    assert run(monkeypatch, "implants", "no such folder") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
