"""What the verbs print and how they end."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spineimg.batch.commands import batch, cases
from spineimg.batch.runner import BatchSettings
from tests.batch import studies as s


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = s.tree(tmp_path_factory.mktemp("tree") / "root", 2)
    rows = [{"case": name, "path": name, "rois": "rois.json"} for name in ("s00", "s01")]
    s.table(root / "cases.csv", [*rows, {"case": "gone", "path": "gone", "rois": "rois.json"}])
    return root


def test_lines_when_no_terminal_shows_a_bar(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (root, root / "cases.csv", tmp_path / "out", BatchSettings(workers=1))
    assert batch(*words, strict=False, quiet=False, json=None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("gone: refused: ")
    assert lines[1].startswith("3 of 3 cases: 2 done, 1 refused, 0 failed; ")
    assert lines[2] == "3 cases: 2 done, 1 refused, 0 failed; 2 vertebrae"
    assert lines[3].startswith(f"numbers: {tmp_path / 'out' / 'measurements.csv'}")
    assert batch(*words, strict=True, quiet=True, json=None) == 1
    assert capsys.readouterr().out == ""
    assert batch(*words, strict=False, quiet=False, json="-") == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": "spineimg.batch/1", "folder": str(tmp_path / "out"), "n_cases": 3, "n_done": 2, "n_refused": 1,
        "n_failed": 0, "n_vertebrae": 2, "interrupted": False, "n_not_reached": 0,
    }  # fmt: skip


def test_a_bar_on_a_terminal(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    batch(root, root / "cases.csv", tmp_path / "out", BatchSettings(workers=1), strict=False, quiet=False, json=None)
    shown = capsys.readouterr().out
    assert "3/3" in shown
    assert "2 done, 1 refused, 0 failed" in shown


@pytest.mark.parametrize("output", [">&-", ">&- 2>&- <&-", "> /dev/full", "| true"])
def test_a_run_that_nobody_hears_goes_on_to_its_end(root: Path, tmp_path: Path, output: str) -> None:
    """Planted: what the pipe says passed on; the run ended before its tables were written, `| true` with status 0."""
    out = tmp_path / "out"
    code = "from spineimg.cli import main; main()"
    words = [sys.executable, "-c", code, "batch", root, "--cases", root / "cases.csv", "--out", out, "--strict"]
    line = f"({shlex.join(map(str, words))}; echo $? > {shlex.quote(str(tmp_path / 'status'))}) {output}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert (tmp_path / "status").read_text() == "1\n"  # one case is not done
    assert len(s.measurements(out)) == 2
    assert (out / "index.html").exists()


def test_cases_goes_to_the_screen_or_a_file(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases(root, csv=None, quiet=False, json=None)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith("use,case,path,level")
    found = [line.split(",")[:3] for line in shown.splitlines()[1:]]
    assert found == [["yes", "root", "s00"], ["no", "root", "s01"]]  # one study
    cases(root, csv=tmp_path / "c.csv", quiet=False, json=str(tmp_path / "c.json"))
    assert (tmp_path / "c.csv").read_text(encoding="utf-8") == shown
    assert len(json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["cases"]) == 2
    assert capsys.readouterr().out == ""
