"""Whole runs: what lands in the folder, what a second run does, what is refused before a case is begun."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from pydicom import dcmread

from spineimg.batch import outputs
from spineimg.batch.cases import read_cases
from spineimg.batch.guard import Workers
from spineimg.batch.ledger import CaseStatus, LedgerRow
from spineimg.batch.page import Shown, write_index
from spineimg.batch.runner import BatchSettings, run_batch
from spineimg.batch.worker import Answer, Job, measure_case
from spineimg.errors import SpineImgError
from tests.batch import studies as s

COUNT = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return s.tree(tmp_path_factory.mktemp("tree") / "root", COUNT)


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run with every kind of case. Tests look at it and change copies."""
    desk = tmp_path_factory.mktemp("desk")
    shutil.copytree(root, desk / "root")
    s.write_ct(desk / "root" / "broken" / "ct", 8, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    s.write_ct(desk / "root" / "pair" / "one", 20)
    s.write_ct(desk / "root" / "pair" / "two", 21)
    s.roi_file(desk / "root" / "three.json", ["L2", "L3", "L4"], liv="L4")
    s.table(desk / "cases.csv", every_kind(), ("case", "path", "level", "role", "x_mm", "y_mm", "z_mm", "rois"))
    run_batch(desk / "root", desk / "cases.csv", desk / "out", BatchSettings(workers=2, figures=True), quiet=True)
    return desk / "out"


def every_kind() -> list[dict[str, object]]:
    click = {"x_mm": 0, "y_mm": 0, "z_mm": 4}
    return [
        {"case": "whole", "path": "s01", "rois": "rois.json"},
        {"case": "same series", "path": "s01", "rois": "rois.json"},
        {"case": "Ä/../ø 症例", "path": "s02", "rois": "rois.json"},
        {"case": "by uid", "path": f"{s.UID}.3", "rois": "rois.json"},
        {"case": "of two", "path": f"{s.UID}.21", "rois": "rois.json"},
        {"case": "cut down", "path": "s00", "rois": "three.json", "level": "L3", "role": "LIV"},
        {"case": "cut down", "path": "s00", "rois": "three.json", "level": "L5"},
        {"case": "click", "path": "s00", "level": "L4", "role": "LIV", **click},
        {"case": "ambiguous", "path": "pair", "rois": "rois.json"},
        {"case": "localizer", "path": "broken/ct", "rois": "rois.json"},
        {"case": "vanished", "path": "gone", "rois": "rois.json"},
        {"case": "no such uid", "path": "1.2.3.4.5", "rois": "rois.json"},
        {"case": "no rois", "path": "s00", "rois": "absent.json"},
    ]


DONE = ["whole", "same series", "Ä/../ø 症例", "by uid", "of two", "cut down", "click"]


def test_every_case_has_its_row_and_its_reason(finished: Path) -> None:
    rows = s.ledger(finished)
    assert set(rows) == {str(row["case"]) for row in every_kind()}
    assert {name for name, row in rows.items() if row["status"] == "done"} == set(DONE)
    reasons = {name: row["reason"] for name, row in rows.items() if row["status"] == "refused"}
    assert "localizer" in reasons["localizer"]
    assert "gone: no such file or folder" in reasons["vanished"]
    assert "2 usable series; put one of these UIDs into path: " in reasons["ambiguous"]
    assert reasons["no such uid"] == "no file below ROOT has the SeriesInstanceUID 1.2.3.4.5"
    assert "absent.json" in reasons["no rois"]
    assert {name: rows[name]["n_vertebrae"] for name in ("whole", "cut down", "localizer")} == {
        "whole": "1", "cut down": "2", "localizer": "0"
    }  # fmt: skip
    assert float(rows["whole"]["seconds"]) > 0


def test_means_are_those_of_the_series_that_was_asked_for(finished: Path) -> None:
    """The mean of study n is 104 + 10 n. Planted: the first usable series taken for a UID in a shared folder; seen
    red."""
    means = {(row["case"], row["level"]): row["mean_hu"] for row in s.measurements(finished)}
    assert means == {
        ("whole", "L4"): "114.0",
        ("same series", "L4"): "114.0",
        ("Ä/../ø 症例", "L4"): "124.0",
        ("by uid", "L4"): "134.0",
        ("of two", "L4"): "314.0",
        ("cut down", "L3"): "104.0",
        ("cut down", "L5"): "",
        ("click", "L4"): "",
    }
    rows = {(row["case"], row["level"]): row for row in s.measurements(finished)}
    assert rows["click", "L4"]["notes"]  # there is no bone to be found here, and it is said
    assert (rows["cut down", "L3"]["role"], rows["cut down", "L5"]["role"]) == ("LIV", "")
    assert list(dict.fromkeys(row["case"] for row in s.measurements(finished))) == DONE  # the table's order


def test_parquet_holds_the_same_numbers(finished: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(finished / "measurements.parquet")
    rows = s.measurements(finished)
    assert table.column_names == list(rows[0])
    assert [str(value) if value is not None else "" for value in table["mean_hu"].to_pylist()] == [
        row["mean_hu"] for row in rows
    ]
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds["slices.2.n_voxels"] == "int64"
    assert kinds["acquisition.contrast"] == kinds["confirmed"] == "bool"
    assert kinds["acquisition.kvp"] == kinds["slices.0.center.2"] == kinds["flag.interval_hu.0"] == "double"
    assert kinds["acquisition.kernel"] == kinds["slices.1.sop_instance_uids"] == kinds["flag.call"] == "string"


def test_results_and_figures_are_named_after_their_cases(finished: Path) -> None:
    results = s.results(finished)
    assert len(results) == len(DONE)
    assert {content["case"] for content in results.values()} == set(DONE)
    assert results["whole.json"]["case"] == "whole"
    assert results["whole.json"]["made_by"]["settings"]["plane"] == "endplate"
    assert all(uid for one in results["whole.json"]["vertebrae"][0]["slices"] for uid in one["sop_instance_uids"])
    figures = {path.stem for path in (finished / "figures").iterdir()}
    assert figures == {Path(name).stem for name in results}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (finished / "figures").iterdir())


def test_no_name_of_a_patient_and_nothing_half_written(finished: Path) -> None:
    for path in finished.rglob("*"):
        assert not path.name.endswith(".tmp")
        if path.is_file():
            assert b"Doe" not in path.read_bytes(), path


def test_the_page_shows_every_case_with_its_picture(finished: Path) -> None:
    page = Page()
    page.feed((finished / "index.html").read_text(encoding="utf-8"))
    rows = s.ledger(finished)
    assert {cells[0] for cells in page.cells} == set(rows)
    assert {attributes["data-status"] for attributes in page.rows} == {"done", "refused"}
    shown = dict(zip((cells[0] for cells in page.cells), page.rows, strict=True))
    assert shown["cut down"]["data-level"] == "L3 L5"
    assert shown["click"]["data-flag"] == "not_assessed"
    assert len(page.pictures) == len(DONE)
    assert all((finished / unquote(source)).is_file() for source in page.pictures)
    words = {cells[0]: " ".join(cells[1:]) for cells in page.cells}
    assert "L4 LIV: 114.0" in words["whole"]
    assert "L5: not measured" in words["cut down"]
    assert rows["ambiguous"]["reason"][:60] in words["ambiguous"]


class Page(HTMLParser):
    """Rows, cells and pictures of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, str | None]] = []
        self.cells: list[list[str]] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr" and attrs:
            self.rows.append(dict(attrs))
            self.cells.append([])
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        if self.cells and data.strip():
            self.cells[-1].append(data)


def test_the_page_counts_screws_and_marks_unconfirmed_names(tmp_path: Path) -> None:
    """Planted: a name that nothing is said of marked too."""
    vertebrae = [
        {"level": level, "role": None, "confirmed": confirmed, "mean_hu": 100.0, "flag.call": None, "notes": ""}
        for level, confirmed in (("L3", False), ("L4", True), ("L5", None))
    ]
    shown = Shown(vertebrae, {"present": 1, "not_assessed": 2})
    write_index(tmp_path / "index.html", [LedgerRow("c", CaseStatus.DONE, "", 1.0, 3)], {"c": shown}, {})
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("(name unconfirmed)") == 1
    assert "<b>L3 (name unconfirmed): 100.0</b>" in page
    assert "<b>3 screws</b>, loosening: 2 not assessed, 1 present" in page


def test_markup_in_a_name_or_reason_stays_text(tmp_path: Path) -> None:
    """Planted: the case's name written as it is; seen red."""
    row = LedgerRow("<script>alert(1)</script>", CaseStatus.REFUSED, "a & <b>", 0.0, 0)
    write_index(tmp_path / "index.html", [row], {}, {row.case: 'figures/"><i>.png'})
    text = (tmp_path / "index.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &amp; &lt;b&gt;" in text
    assert 'src="figures/%22%3E%3Ci%3E.png"' in text


def test_a_second_run_does_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Workers, job: Job, timeout_s: float | None) -> Answer:
        raise AssertionError(f"{job.case.name} was begun again")

    monkeypatch.setattr(Workers, "run", never)
    before = {
        path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.suffix in (".csv", ".parquet", ".html")
    }
    summary = s.run(finished.parent / "root", finished.parent / "cases.csv", finished)
    assert (summary.n_done, summary.n_refused, summary.n_failed, summary.n_not_reached) == (7, 5, 0, 0)
    assert (summary.n_vertebrae, summary.exit_code(strict=False), summary.exit_code(strict=True)) == (8, 0, 1)
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the finished run at the same place, so that ROOT stays the same."""
    aside = tmp_path / "aside"
    shutil.copytree(finished.parent, aside)
    yield finished
    shutil.rmtree(finished.parent)
    aside.rename(finished.parent)


def test_a_roi_file_that_was_changed_since_is_told(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planted: the other way round; ROI files as old as their results were then told."""
    root, cases = copy.parent / "root", copy.parent / "cases.csv"
    run_batch(root, cases, copy, BatchSettings(workers=1))
    assert "was changed" not in capsys.readouterr().out
    later = (copy / "results" / "whole.json").stat().st_mtime_ns + 10**10
    os.utime(root / "rois.json", ns=(later, later))
    run_batch(root, cases, copy, BatchSettings(workers=1))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "was changed" in line]
    using = [
        row["case"]
        for row in every_kind()
        if row.get("rois") == "rois.json" and s.statuses(copy)[row["case"]] == "done"
    ]
    assert line.startswith(f"{len(using)} done cases were measured before their ROI file or label map was changed: ")
    assert "'whole'" in line


def failing(*_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_slice_that_cannot_be_read_for_a_moment_does_not_leave_a_case_done(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the vertebra's note alone; the case was then done without its number, and --retry left it so."""
    (case,) = read_cases(s.table(tmp_path / "c.csv", [{"case": "a", "path": "s00", "rois": "rois.json"}]), root).cases
    job = Job(case, (str(root / "s00"),), str(root / "rois.json"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "preadv", failing)
        answer = measure_case(job)
    assert answer.status == "refused"
    assert "cannot be read any more (Input/output error)" in answer.reason
    assert measure_case(job).status == "done"


def test_only_what_has_no_row_is_done_and_retry_does_the_rest(copy: Path) -> None:
    """Planted: `retry` that also forgets done cases; seen red."""
    root, cases = copy.parent / "root", copy.parent / "cases.csv"
    tables = {kind: (copy / f"measurements.{kind}").read_bytes() for kind in ("csv", "parquet")}
    made = times(copy)
    lines = (copy / "ledger.csv").read_text().splitlines(keepends=True)
    (copy / "ledger.csv").write_text("".join(line for line in lines if not line.startswith("by uid")))
    (copy / "results" / "whole.json").unlink()
    shutil.copytree(root / "s00", root / "gone")
    assert s.run(root, cases, copy).n_done == 7
    assert s.statuses(copy)["vanished"] == "refused"
    assert {name for name, when in times(copy).items() if when != made[name]} == {"by uid.json", "whole.json"}
    assert tables == {kind: (copy / f"measurements.{kind}").read_bytes() for kind in tables}
    made = times(copy)
    summary = s.run(root, cases, copy, retry=True)
    assert (summary.n_done, summary.n_refused) == (8, 4)
    assert s.statuses(copy)["vanished"] == "done"
    assert {name for name, when in times(copy).items() if when != made.get(name)} == {"vanished.json"}


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()}


def test_a_folder_does_not_mix_two_tables_trees_or_programs(copy: Path) -> None:
    root, cases = copy.parent / "root", copy.parent / "cases.csv"
    text = cases.read_text(encoding="utf-8")
    cases.write_text(text.replace("whole,s01", "whole,s02"), encoding="utf-8")
    with pytest.raises(SpineImgError, match=r"'whole' measured from another row than line 2 of cases\.csv"):
        s.run(root, cases, copy)
    cases.write_text(text.replace("vanished,gone", "vanished,s00"), encoding="utf-8")
    assert s.run(root, cases, copy, retry=True).n_done == 8  # a refused row may be mended
    shutil.copytree(root, copy.parent / "other")
    with pytest.raises(SpineImgError, match="begun with another root"):
        s.run(copy.parent / "other", cases, copy)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"spineimg": "0.0.9"}))
    with pytest.raises(SpineImgError, match=r"begun with another spineimg .0\.0\.9"):
        s.run(root, cases, copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(SpineImgError, match=r"a ledger but no manifest\.json"):
        s.run(root, cases, copy)


def test_two_runs_give_the_same_bytes_whatever_the_workers(root: Path, tmp_path: Path) -> None:
    """Planted: measurements in the order in which cases ended; seen red."""
    cases = s.whole_table(root, COUNT)
    for name, workers in (("one", 1), ("three", 3)):
        s.run(root, cases, tmp_path / name, workers=workers)
    for kind in ("csv", "parquet"):
        assert (tmp_path / "one" / f"measurements.{kind}").read_bytes() == (
            tmp_path / "three" / f"measurements.{kind}"
        ).read_bytes()
    assert s.results(tmp_path / "one") == s.results(tmp_path / "three")
    manifests = [json.loads((tmp_path / name / "manifest.json").read_bytes()) for name in ("one", "three")]
    for manifest in manifests:
        del manifest["options"], manifest["measurements_of"]  # workers differ, and so do the seconds of the ledger
    assert manifests[0] == manifests[1]


def test_a_disk_that_is_full_stops_the_run_with_a_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = s.whole_table(root, COUNT)
    write = outputs._write
    calls: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(outputs, "_write", full)
    with pytest.raises(SpineImgError, match="No space left on device: the run stopped; mend that and run the same"):
        s.run(root, cases, tmp_path / "out")
    assert len(s.ledger(tmp_path / "out")) == 2
    assert len(s.results(tmp_path / "out")) == 2
    monkeypatch.setattr(outputs, "_write", write)
    assert s.run(root, cases, tmp_path / "out").n_done == COUNT
    assert [row["mean_hu"] for row in s.measurements(tmp_path / "out")] == ["104.0", "114.0", "124.0", "134.0"]


def test_folders_without_permission(root: Path, tmp_path: Path) -> None:
    tree = tmp_path / "root"
    shutil.copytree(root, tree)
    (tree / "s01").chmod(0)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("the superuser may read and write everything")
    try:
        with pytest.raises(SpineImgError, match="cannot make the folder"):
            s.run(tree, s.whole_table(tree, 2), locked / "out")
        s.run(tree, s.whole_table(tree, 2), tmp_path / "out")
    finally:
        (tree / "s01").chmod(0o700)
    assert s.statuses(tmp_path / "out") == {"c00": "done", "c01": "refused"}
    assert "Permission denied" in s.ledger(tmp_path / "out")["c01"]["reason"]


def test_files_that_cannot_be_written_are_named(root: Path, tmp_path: Path) -> None:
    cases = s.whole_table(root, 1)
    (tmp_path / "file").touch()
    with pytest.raises(SpineImgError, match=r"cannot make the folder .*file: File exists"):
        s.run(root, cases, tmp_path / "file")
    with pytest.raises(SpineImgError, match="no such folder, ROOT holds the studies"):
        s.run(tmp_path / "absent", cases, tmp_path / "out")


def test_memory_that_runs_out_fails_the_case_and_not_the_run(root: Path, tmp_path: Path) -> None:
    """The header of a label map promises 40 GB of voxels."""
    import nibabel

    big = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    nibabel.save(big, tmp_path / "big.nii")
    with (tmp_path / "big.nii").open("r+b") as handle:
        handle.seek(42)
        handle.write(np.array([30000, 30000, 45], "<i2").tobytes())
        handle.truncate(352 + 30000 * 30000 * 45)  # a hole, no bytes on the disk
    rows: list[dict[str, Any]] = [
        {"case": "big", "path": "s00", "mask": str(tmp_path / "big.nii"), "rois": ""},
        {"case": "next", "path": "s00", "rois": "rois.json", "mask": ""},
    ]
    cases = s.table(tmp_path / "cases.csv", rows, ("case", "path", "rois", "mask"))
    s.run(root, cases, tmp_path / "out", workers=1, timeout_s=20)
    assert s.statuses(tmp_path / "out")["next"] == "done"
    assert s.statuses(tmp_path / "out")["big"] in ("refused", "failed")


def test_the_answer_of_another_version_stops_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def old(self: Workers, job: Job, timeout_s: float | None) -> Answer:
        return Answer(CaseStatus.DONE, document=b"{}", version="0.0.1")

    monkeypatch.setattr(Workers, "run", old)
    with pytest.raises(SpineImgError, match=r"a worker has spineimg 0\.0\.1"):
        s.run(root, s.whole_table(root, 1), tmp_path / "out")
    assert s.ledger(tmp_path / "out") == {}


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """A header that the disk did not give: a case that lost its numbers by it is refused, so that --retry does it
    again; one that did not says so. A damaged file is told as well. Planted: nothing skipped; seen red."""
    root = s.tree(tmp_path / "root", 3)
    last = [max((one for one in (root / f"s{n:02d}").rglob("*") if one.is_file()), key=_height) for n in range(3)]
    saved = last[0].read_bytes()
    for path in (last[0], last[1]):
        path.unlink()
        path.symlink_to(path)  # too many levels of links: what a failing disk looks like, also to the superuser
    last[2].write_bytes(last[2].read_bytes()[:400])
    text = (root / "rois.json").read_text(encoding="utf-8")
    (root / "high.json").write_text(text.replace("6.0]", "8.0]"), encoding="utf-8")
    rows = [{"case": f"c{n}", "path": f"s{n:02d}", "rois": "high.json" if n == 0 else "rois.json"} for n in range(3)]
    cases = s.table(tmp_path / "cases.csv", rows)
    s.run(root, cases, tmp_path / "out")
    ledger = s.ledger(tmp_path / "out")
    assert {name: row["status"] for name, row in ledger.items()} == {"c0": "refused", "c1": "done", "c2": "done"}
    assert ledger["c0"]["reason"].startswith(f"L4: not measured, and {last[0]} is unreadable: Too many levels")
    assert ledger["c1"]["reason"].startswith(f"of its files 1 cannot be used ({last[1]}: unreadable: Too many levels")
    assert ledger["c2"]["reason"].startswith(f"of its files 1 cannot be used ({last[2]}: ")
    last[0].unlink()
    last[0].write_bytes(saved)
    s.run(root, cases, tmp_path / "out", retry=True)
    assert s.ledger(tmp_path / "out")["c0"]["status"] == "done"


def _height(path: Path) -> float:
    return float(dcmread(path).ImagePositionPatient[2])
