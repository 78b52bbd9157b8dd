"""The verbs report and score: what they write, their exit codes, and that no name of the patient gets out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spineimg import cli
from spineimg.io.sample import sample_study
from tests.dicom_factory import Lattice, write_series

SECRET = "Qwxzvk"
TEXT_TAGS = {
    "PatientName": f"{SECRET}^Jane",
    "PatientID": f"{SECRET}1",
    "PatientComments": f"{SECRET} comment",
    "PatientAddress": f"{SECRET} street",
    "OtherPatientIDs": f"{SECRET}2",
    "AccessionNumber": f"{SECRET}3",
    "StudyID": f"{SECRET}4",
    "StudyDescription": f"{SECRET} study",
    "SeriesDescription": f"{SECRET} series",
    "ProtocolName": f"{SECRET} protocol",
    "InstitutionName": f"{SECRET} hospital",
    "InstitutionAddress": f"{SECRET} road",
    "ReferringPhysicianName": f"{SECRET}^Doc",
    "PerformingPhysicianName": f"{SECRET}^Perf",
    "OperatorsName": f"{SECRET}^Op",
    "StationName": f"{SECRET}st",
    "Manufacturer": f"{SECRET} maker",
    "ManufacturerModelName": f"{SECRET} model",
    "DeviceSerialNumber": f"{SECRET}5",
    "ImageComments": f"{SECRET} image",
    "ConvolutionKernel": f"{SECRET}k",
    "ContrastBolusAgent": f"{SECRET} agent",
    "ContrastBolusRoute": f"{SECRET} route",
    "SoftwareVersions": f"{SECRET} v1",
    "RequestedProcedureDescription": f"{SECRET} request",
}
SHAPE = (40, 64, 64)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["spineimg", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path]:
    """A CT whose every text tag holds a name, and a ROI file."""
    folder, rois = tmp_path / "ct", tmp_path / "rois.json"
    z = np.arange(SHAPE[0])
    hu = np.broadcast_to((100 + z)[:, None, None], SHAPE).astype(np.int16)
    affine = np.array([[0, 0, 1.0, -31.5], [0, 1.0, 0, -31.5], [1.5, 0, 0, 0], [0, 0, 0, 1]])
    write_series(folder, hu, Lattice.from_affine(SHAPE[0], affine), tags=TEXT_TAGS | {"KVP": 120})
    slices = [
        {"position": name, "center": [0, 0, height], "u": [1, 0, 0], "v": [0, 1, 0], "semi_axes_mm": [10, 8]}
        for name, height in (("superior", 36), ("mid", 30), ("inferior", 24))
    ]
    content = {
        "schema": "spineimg.rois/1",
        "vertebrae": [{"level": "L4", "slices": slices}],
        "construct": {"liv": "L4"},
    }
    rois.write_text(json.dumps(content), encoding="utf-8")
    return folder, rois


def test_no_tag_of_the_source_reaches_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: tuple[Path, Path], tmp_path: Path
) -> None:
    """Names in every text tag: none in the page, its pictures, the PDF, or what is printed.

    Planted: the raw kernel and the series description on the page.
    """
    folder, rois = study
    result, out = tmp_path / "result.json", tmp_path / "out"
    out.mkdir()
    assert run(monkeypatch, "hu", folder, "--rois", rois, "--json", result, "--quiet") == 0
    page = ("report", result, "--out", out / "r.html", "--pdf", "--source", folder, "--json", out / "made.json")
    assert run(monkeypatch, *page) == 0
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    assert sorted(one.name for one in out.iterdir()) == ["made.json", "r.html", "r.pdf"]
    for one in out.iterdir():
        content = one.read_bytes()
        assert SECRET.encode() not in content, one.name
        assert SECRET.encode("utf-16-be") not in content, one.name
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", out / "r.pdf", "-"], capture_output=True, text=True, check=True).stdout
        assert SECRET not in text
        assert "Research use only, not a medical device" in text
        assert "not confirmed" not in text
        assert "LIV L4" in text
    html = (out / "r.html").read_text(encoding="utf-8")
    assert "data:image/png" in html
    assert "120.0" in html  # 100 + 20 slices of 1.5 mm up to z = 30


def test_report_of_the_sample_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "demo", "--quiet") == 0
    source = sample_study("preop") / "ct"
    assert (
        run(monkeypatch, "report", "spineimg-demo/result.json", "--out", "r.html", "--source", source, "--quiet") == 0
    )
    html = Path("r.html").read_text(encoding="utf-8")
    assert html.count("<img") == 7
    assert "Below cutoff" in html


def test_report_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, rois = study
    result = tmp_path / "result.json"
    assert run(monkeypatch, "hu", folder, "--rois", rois, "--json", result, "--quiet") == 0
    for words, code, says in (
        (("report", result, "--out", tmp_path / "r.txt"), 2, "--out"),
        (("report", result), 2, "--out"),
        (("report", tmp_path / "none.json", "--out", tmp_path / "r.html"), 1, "none.json"),
        (("report", rois, "--out", tmp_path / "r.html"), 1, "spineimg.result/1"),
        (("report", result, "--out", tmp_path / "r.html", "--scores", result), 1, "spineimg.score/1"),
        (("report", result, "--out", tmp_path / "r.html", "--source", tmp_path / "void"), 1, "void"),
        (("report", result, "--out", tmp_path / "no" / "r.html"), 1, "does not exist"),
    ):
        capsys.readouterr()
        assert run(monkeypatch, *words) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert says in printed.err
        assert printed.err.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_real_scan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A public abdomen with contrast agent, feet first. Its page has pictures and says that contrast was given."""
    data = os.environ.get("SPINEIMG_DATA")
    if not data:
        pytest.skip("SPINEIMG_DATA is not set")
    source = Path(data) / "tcga_ov_abdomen_ce"
    rois = Path(__file__).parents[1] / "data" / "tcga_ov_abdomen_ce.rois.json"
    result, out = tmp_path / "r.json", tmp_path / "r.html"
    assert run(monkeypatch, "hu", source, "--rois", rois, "--json", result, "--quiet") == 0
    assert run(monkeypatch, "report", result, "--out", out, "--source", source, "--quiet") == 0
    html = out.read_text(encoding="utf-8")
    assert "with contrast agent" in html
    for one in json.loads(result.read_text(encoding="utf-8"))["vertebrae"]:
        assert f'<th scope="row">{one["level"]}</th>' in html


# -- scores -----------------------------------------------------------------------------------------------------------


def scored(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert run(monkeypatch, "score", *words, "--json", "-") == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_score_from_options_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Planted: the file goes before the options."""
    answers = tmp_path / "sins.json"
    content = {"location": "mobile", "pain": "yes", "lesion": "lytic", "alignment": "normal", "collapse": "none"}
    answers.write_text(json.dumps(content | {"posterolateral": None}), encoding="utf-8")
    found = scored(monkeypatch, capsys, "sins", "--input", answers)
    assert (found["schema"], found["value"], found["range"]) == ("spineimg.score/1", None, [7, 10])
    assert found["verdict"] == "potentially unstable"
    found = scored(monkeypatch, capsys, "sins", "--input", answers, "--posterolateral", "bilateral", "--pain", "none")
    assert found["value"] == 7
    assert scored(monkeypatch, capsys, "pni", "--albumin", "3.5", "--lymphocytes", "1560")["value"] == 42.8
    assert scored(monkeypatch, capsys, "nesms", "--albumin", "4")["range"] == [1, 4]
    assert scored(monkeypatch, capsys, "noms", "--escc", "low")["value"] is None


def test_collapse_from_a_levels_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    levels = tmp_path / "levels.json"
    bodies = [{"level": name, "body": {"height_mm": h}} for name, h in (("T11", 23.0), ("T12", 18.0), ("L1", 25.0))]
    levels.write_text(json.dumps({"schema": "spineimg.rois/1", "vertebrae": bodies}), encoding="utf-8")
    found = scored(monkeypatch, capsys, "sins", "--level", "T12", "--levels", levels)
    by = {part["name"]: part for part in found["parts"]}  # type: ignore[attr-defined]
    assert by["location"]["given_by"] == "level"
    assert (by["collapse"]["given_by"], by["collapse"]["range"]) == ("image", [2, 2])
    assert run(monkeypatch, "score", "sins", "--level", "L1", "--levels", levels) == 1
    assert run(monkeypatch, "score", "sins", "--pain", "yes", "--levels", levels) == 2


def test_construct_from_a_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = tmp_path / "implants.json"
    content = {
        "schema": "spineimg.result/1",
        "series": {"series_instance_uid": None},
        "made_by": {"settings": {}},
        "vertebrae": [],
        "screws": [{"id": f"s{n}"} for n in range(4)],
        "grade": {"construct": {"uiv": "T11", "liv": "L1"}},
    }
    result.write_text(json.dumps(content), encoding="utf-8")
    found = scored(monkeypatch, capsys, "construct", "--result", result, "--metastases", "T12")
    by = {part["name"]: part for part in found["parts"]}  # type: ignore[attr-defined]
    assert by["fixation_length"]["range"] == [2, 2]
    assert by["screw_density"]["answer"] == pytest.approx(0.6667)
    assert by["screw_density"]["given_by"] == "image"


@pytest.mark.parametrize(
    "words",
    [
        ("sins", "--pain", "maybe"),
        ("sins", "--pian", "yes"),
        ("sins", "--level", "Q4"),
        ("sins", "--level", "T12", "--location", "rigid"),
        ("sins",),
        ("apgar", "--pulse", "80"),
        ("pni", "--albumin", "35"),
        ("construct", "--uiv", "L1", "--liv", "T1"),
    ],
)
def test_wrong_arguments_are_exit_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(monkeypatch, "score", *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"score": "sins", "albumin": 3}', '{"albumn": 3}', '{"albumin": "x"}', '{"bauer": 2.5}']
)
def test_wrong_files_are_exit_1_and_name_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content, encoding="utf-8")
    assert run(monkeypatch, "score", "nesms", "--input", path) == 1
    printed = capsys.readouterr()
    assert "answers.json" in printed.err
    assert printed.err.count("\n") == 1
