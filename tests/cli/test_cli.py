"""The command line: exit codes, one line of complaint, nothing else on standard output with `--json -`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spineimg import cli
from tests.dicom_factory import Lattice, write_series

SHAPE = (9, 48, 48)


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Exit status of one call of the command."""
    monkeypatch.setattr(sys, "argv", ["spineimg", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def ellipse(position: str, z: float, **changes: object) -> dict[str, object]:
    base = {"position": position, "center": [0.0, 0.0, z], "u": [1, 0, 0], "v": [0, 1, 0], "semi_axes_mm": [9.0, 8.0]}
    return base | changes


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A CT whose HU is 100 + z, so that the mean of an axial ROI is known."""
    folder = tmp_path / "Case One"
    z = np.arange(SHAPE[0])
    hu = np.broadcast_to((100 + z)[:, None, None], SHAPE).astype(np.int16)
    affine = np.array([[0, 0, 1, -23.5], [0, 1, 0, -23.5], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    tags = {"PatientName": "Doe^Jane", "KVP": 120, "ContrastBolusAgent": None, "SliceThickness": 1.5}
    write_series(folder, hu, Lattice.from_affine(SHAPE[0], affine), tags=tags)
    return folder


@pytest.fixture
def rois(tmp_path: Path) -> Path:
    slices = [ellipse("superior", 6.0), ellipse("mid", 4.0), ellipse("inferior", 2.0)]
    content = {
        "schema": "spineimg.rois/1",
        "construct": {"uiv": None, "liv": "L4"},
        "vertebrae": [{"level": "L4", "slices": slices}],
    }
    path = tmp_path / "rois.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['spineimg', '--help']\n"
        "from spineimg import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pydicom', 'scipy', 'SimpleITK', 'pandas', 'matplotlib', 'numpy', 'nibabel'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_hu_of_raw_slices_needs_no_heavy_library(study: Path, rois: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    code = (
        f"import sys; sys.argv = ['spineimg', 'hu', {str(study)!r}, '--rois', {str(rois)!r}]\n"
        f"sys.argv += ['--json', {str(out)!r}, '--quiet']\n"
        "from spineimg import cli\n"
        "try: cli.main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'pydicom', 'scipy', 'SimpleITK', 'pandas', 'matplotlib', 'nibabel', 'rich'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_hu_measures_and_prints_json_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: Path, rois: Path
) -> None:
    """Planted: taking slices in file order instead of by position turned the means 106, 104, 102 around."""
    assert run(monkeypatch, "hu", study, "--rois", rois, "--json", "-") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.err == ""
    assert result["schema"] == "spineimg.result/1"
    (vertebra,) = result["vertebrae"]
    assert [one["mean_hu"] for one in vertebra["slices"]] == [106.0, 104.0, 102.0]
    assert vertebra["mean_hu"] == 104.0
    assert vertebra["role"] == "LIV"
    assert vertebra["flag"]["interval_hu"] == [104.0 - 16 - 26, 120.0]
    assert vertebra["flag"]["call"] == "below"
    assert "Doe" not in printed.out


def test_outputs_are_written_and_used_rois_measure_the_same(
    monkeypatch: pytest.MonkeyPatch, study: Path, rois: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("a.json", "a.csv", "a.png", "used.json", "b.json")}
    assert run(
        monkeypatch, "hu", study, "--rois", rois, "--json", files["a.json"], "--csv", files["a.csv"], "--uiv", "t12",
        "--figure", files["a.png"], "--rois-out", files["used.json"], "--quiet",
    ) == 0  # fmt: skip
    assert run(monkeypatch, "hu", study, "--rois", files["used.json"], "--json", files["b.json"], "--quiet") == 0
    first, second = (json.loads(files[name].read_text(encoding="utf-8")) for name in ("a.json", "b.json"))
    assert first["vertebrae"] == second["vertebrae"]
    assert [one["role"] for one in first["vertebrae"]] == ["LIV", "UIV"]
    assert first["vertebrae"][1]["mean_hu"] is None
    header, *rows = files["a.csv"].read_text(encoding="utf-8").splitlines()
    assert header.startswith("case,")
    assert len(rows) == 2
    assert rows[0].startswith("Case One,")
    assert files["a.png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("hu", "STUDY"), 2, "--rois"),
        (("hu", "STUDY", "--rois", "ROIS", "--mask", "ROIS"), 2, "--mask"),
        (("hu", "STUDY", "--rois", "ROIS", "--plane", "sideways"), 2, "sideways"),
        (("hu", "STUDY", "--rois", "ROIS", "--liv", "L9"), 2, "L9"),
        (("hu", "STUDY", "--rois", "ROIS", "--uiv", "L5"), 1, "UIV"),
        (("hu", "STUDY", "--rois", "ROIS", "--kvp", "100"), 1, "120"),
        (("hu", "STUDY", "--rois", "missing.json"), 1, "missing.json"),
        (("hu", "STUDY", "--rois", "ROIS", "--series", "1.2.3"), 1, "1.2.3"),
        (("hu", "nowhere", "--rois", "ROIS"), 1, "nowhere"),
        (("hu", "STUDY", "--rois", "ROIS", "--json", "no/folder/x.json"), 1, "folder"),
        (("series", "nowhere"), 1, "nowhere"),
        (("fly",), 2, "fly"),
        (("series", "--wings", "STUDY"), 2, "--wings"),
        (("phantom", "out", "--recipe", "unicorn"), 1, "unicorn"),
        (("agree", "ROIS", "ROIS"), 1, "schema"),
    ],
)
def test_bad_input_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    study: Path,
    rois: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"STUDY": study, "ROIS": rois}
    assert run(monkeypatch, *(places.get(word, word) for word in words)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert says in printed.err


@pytest.mark.parametrize("kept", ["no spine", "two slices", "one position"])
@pytest.mark.parametrize(
    "words", [("levels", "STUDY"), ("hu", "STUDY", "--levels", "all"), ("hu", "STUDY", "--rois", "ROIS"),
              ("implants", "STUDY"), ("agree", "ROIS", "ROIS", "--source", "STUDY")],
)  # fmt: skip
def test_what_is_wrong_with_a_scan_is_told_with_its_path(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    study: Path,
    rois: Path,
    words: tuple[str, ...],
    kept: str,
) -> None:
    """Of twenty scans in a loop each complaint says which. Planted: the path left out; named twice."""
    files = sorted(file for file in study.rglob("*") if file.is_file())
    if kept == "two slices":
        for file in files[2:]:
            file.unlink()
    if kept == "one position":
        for file in files[1:]:
            file.write_bytes(files[0].read_bytes())
    code = run(monkeypatch, *({"STUDY": study, "ROIS": rois}.get(word, word) for word in words), "--quiet")
    said = capsys.readouterr().err
    if kept == "no spine" and words[0] != "levels" and "--levels" not in words:
        assert code == 0  # nothing is wrong with it
        return
    assert code == 1
    assert said.startswith(f"spineimg: {study}: ")
    assert said.count(str(study)) - said.count(f"{study}/") == 1


def test_series_lists_verdicts_and_exits_zero_for_refused_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path
) -> None:
    (study / "notes.txt").write_text("not DICOM", encoding="utf-8")
    (study / "empty.dcm").touch()
    assert run(monkeypatch, "series", study, "--json", "-") == 0
    listing = json.loads(capsys.readouterr().out)
    assert listing["schema"] == "spineimg.series/1"
    assert [one["verdict"] for one in listing["series"]] != ["refused"]
    assert listing["n_not_dicom"] == 1
    assert [Path(one["path"]).name for one in listing["skipped"]] == ["empty.dcm"]
    assert run(monkeypatch, "series", study) == 0
    assert "empty.dcm" in capsys.readouterr().out


def test_ids_are_kept_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], study: Path, rois: Path
) -> None:
    assert run(monkeypatch, "hu", study, "--rois", rois, "--json", "-", "--keep-ids") == 0
    assert "Doe^Jane" in capsys.readouterr().out


def test_demo_writes_its_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "demo") == 0
    assert (tmp_path / "spineimg-demo" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "figure" in capsys.readouterr().out


def test_phantom_lists_its_recipes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "phantom") == 0
    assert "preop" in capsys.readouterr().out
