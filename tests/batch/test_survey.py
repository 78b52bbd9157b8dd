"""The first table of cases, and that a run takes it once it says where to measure."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from spineimg.batch.commands import cases
from spineimg.batch.survey import COLUMNS, survey, table_text, write_cases
from spineimg.errors import SpineImgError
from tests.batch import studies as s

STUDY = "1.2.826.0.1.3680043.2.1143.78"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, tags in (
        ("a_contrast", {"ContrastBolusAgent": "Iopromide"}),
        ("b_sharp", {"ConvolutionKernel": "B70f", "ContrastBolusAgent": "NONE"}),
        ("c_soft", {"ContrastBolusAgent": "NONE"}),
        ("d_thick", {"ContrastBolusAgent": "NONE", "SliceThickness": 5}),
        ("e_scout", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    ):
        number = ord(name[0])
        s.write_ct(root / "p1" / name, number, StudyInstanceUID=f"{STUDY}.1", **tags)
    for number in (1, 2):
        s.write_ct(root / "p2" / "mixed", number, StudyInstanceUID=f"{STUDY}.2", SeriesDescription=f"pass\n{number}")
    s.write_ct(root / "p3", 3, StudyInstanceUID=f"{STUDY}.3")
    s.write_ct(root / "p3", 4, StudyInstanceUID=f"{STUDY}.4")
    import nibabel

    hu = np.full((9, 9, 9), -1000, np.int16)
    hu[2:7, 2:7] = 40
    hu[4, 4] = 300
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), root / "volume.nii.gz")
    nibabel.save(nibabel.Nifti1Image((hu > 0).astype(np.uint8), np.eye(4)), root / "labels.nii.gz")
    return root


def test_every_series_is_listed_and_the_best_of_each_study_chosen(root: Path) -> None:
    """Planted: sharp kernels ranked before soft ones; seen red."""
    rows, _ = survey(root)
    assert [list(row) for row in rows] == [list(COLUMNS)] * len(rows)
    first = [(row["use"], row["path"]) for row in rows if row["study"] == f"{STUDY}.1"]
    names = [f"p1/{name}" for name in ("c_soft", "d_thick", "b_sharp", "a_contrast")]
    assert first == [("yes", names[0]), ("no", names[1]), ("no", names[2]), ("no", names[3]), ("no", f"{s.UID}.101")]
    assert {row["case"] for row in rows if row["study"] == f"{STUDY}.1"} == {"p1"}
    refused = next(row for row in rows if row["verdict"] == "refused" and row["study"])
    assert "localizer" in refused["why"]
    assert rows[[row["case"] for row in rows].index("p1")]["why"] == "chosen of 4 usable: no contrast, soft kernel"


def test_one_slice_has_no_spacing(tmp_path: Path) -> None:
    s.write_ct(tmp_path / "one", 1)
    for path in sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())[1:]:
        path.unlink()
    ((row,), _) = survey(tmp_path)
    assert (row["verdict"], row["n_slices"], row["spacing_mm"]) == ("refused", "1", "")


def test_a_folder_that_holds_two_series_does_not_name_one(root: Path) -> None:
    rows = {row["series"]: row for row in survey(root)[0] if row["study"] in (f"{STUDY}.2", f"{STUDY}.3", f"{STUDY}.4")}
    assert {uid: row["path"] for uid, row in rows.items()} == {uid: uid for uid in rows}
    assert len(rows) == 4
    assert len({row["case"] for row in rows.values()}) == 3  # two studies of one folder are two cases
    assert rows[f"{s.UID}.1"]["description"] == "pass 1"


def test_volumes_are_listed_and_label_maps_refused(root: Path) -> None:
    rows = {row["case"]: row for row in survey(root)[0] if not row["study"]}
    assert rows["labels.nii.gz"]["verdict"] == "refused"
    assert rows["volume.nii.gz"]["path"] == "volume.nii.gz"
    assert rows["volume.nii.gz"]["use"] == "yes"


def test_a_run_takes_the_table_once_it_says_where_to_measure(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    write_cases(path, survey(root)[0])
    with pytest.raises(SpineImgError, match="level is empty, and so are rois and mask"):
        s.run(root, path, tmp_path / "out")
    s.roi_file(tmp_path / "rois.json")
    rows = [row | {"rois": "rois.json"} for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))]
    s.table(path, rows, COLUMNS)
    summary = s.run(root, path, tmp_path / "out")
    assert (summary.n_cases, summary.n_done) == (5, 5)
    means = {row["case"]: row["mean_hu"] for row in s.measurements(tmp_path / "out")}
    assert means["p1"] == str(104.0 + 10 * ord("c"))


def test_what_cannot_be_read_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study that the disk does not give must not be missing without a word. Planted: nothing said; seen red."""
    (root / "p4").symlink_to(root / "p4")
    (one,) = survey(root)[1]
    assert (one.path, one.reason) == (str(root / "p4"), "unreadable: Too many levels of symbolic links")
    cases(root, csv=None, quiet=False, json=None)
    said = capsys.readouterr()
    assert "1 cannot be used" in said.err
    assert "p4" in said.err
    assert said.out.startswith("use,case")


def test_nothing_to_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpineImgError, match="no CT series and no volume found"):
        survey(tmp_path)
    with pytest.raises(SpineImgError, match="no such folder"):
        survey(tmp_path / "absent")


def test_the_table_is_csv_with_its_header() -> None:
    assert table_text([]) == ",".join(COLUMNS) + "\n"
