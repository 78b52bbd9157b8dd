"""The CSV: the same columns for every case, and the numbers of the result file to the last digit."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spineimg.export.json import result_to_dict
from spineimg.export.table import COLUMNS, rows, write_table
from spineimg.notes import Note
from spineimg.volume import Acquisition, SeriesInfo
from tests.export.records import CREATED, case, slice_hu, vertebra


def read(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_names_are_those_of_the_result_file(tmp_path):
    """Every cell is found at its dotted name in the dict. Planted: `center` and `u` exchanged in `_SLICE`'s order."""
    notes = (Note("contrast_unknown", "…", "T12"), Note("roi_small", "…", "T12 mid"), Note("roi_small", "…", "T12"))
    result = result_to_dict(case(vertebra(notes=notes), acquisition=Acquisition(stated=("kvp", "kernel"))), CREATED)
    write_table(tmp_path / "t.csv", rows(result, "CASE 1"))
    (row,) = read(tmp_path / "t.csv")
    assert list(row) == list(COLUMNS)
    assert COLUMNS[:5] == ("case", "level", "role", "confirmed", "mean_hu")
    assert len(set(COLUMNS)) == len(COLUMNS)
    for name in set(COLUMNS) - {"case", "notes", "case_notes"}:
        holder = result if name.split(".")[0] in ("series", "acquisition", "made_by") else result["vertebrae"][0]
        for part in name.split("."):
            holder = holder[int(part)] if isinstance(holder, list) and part.isdigit() else holder[part]
        expected = (
            {None: "", True: "true", False: "false"}.get(holder, holder) if not isinstance(holder, list) else None
        )
        if isinstance(holder, float):
            assert float(row[name]) == holder
        else:
            assert row[name] == (";".join(holder) if expected is None else str(expected)), name
    assert row["case"] == "CASE 1"
    assert row["notes"] == "contrast_unknown;roi_small"
    assert row["case_notes"] == "gantry_tilt"


def test_columns_do_not_depend_on_the_case(tmp_path):
    """One slice, no slice, no flag, a mask: blanks, not missing columns. Planted: columns taken from the first row."""
    cases = [
        case(vertebra(slices=(slice_hu(),)), vertebra("T8", None, (), None)),
        case(vertebra(slices=(slice_hu(u_lps=None, v_lps=None, semi_axes_mm=None),)), series=SeriesInfo()),
    ]
    table = [row for name, one in zip("AB", cases, strict=True) for row in rows(result_to_dict(one, CREATED), name)]
    assert {tuple(row) for row in table} == {COLUMNS}
    write_table(tmp_path / "t.csv", table)
    found = read(tmp_path / "t.csv")
    assert [(row["case"], row["level"]) for row in found] == [("A", "T12"), ("A", "T8"), ("B", "T12")]
    unmeasured = found[1]
    assert {unmeasured[name] for name in ("mean_hu", "n_voxels", "flag.call", "slices.0.mean_hu", "notes")} == {""}
    assert found[0]["slices.1.mean_hu"] == ""
    assert found[2]["slices.0.u.0"] == found[2]["series.series_instance_uid"] == ""


def test_more_than_three_slices_are_our_bug():
    result = result_to_dict(case(vertebra(slices=(slice_hu(),) * 4)), CREATED)
    with pytest.raises(ValueError, match="4 slices"):
        rows(result, "A")


@settings(max_examples=40)
@given(st.floats(-3000, 30000), st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_numbers_and_words_come_back(tmp_path_factory, mean, words):
    """Planted: floats written with six digits."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    result = result_to_dict(case(vertebra(slices=(slice_hu(mean=mean),)), series=SeriesInfo("1", None, words)), CREATED)
    write_table(path, rows(result, 'a "case", with; signs'))
    (row,) = read(path)
    assert float(row["slices.0.mean_hu"]) == mean
    assert row["series.description"] == words
    assert row["case"] == 'a "case", with; signs'


def test_pandas_reads_it_without_help(tmp_path):
    result = result_to_dict(case(vertebra(), vertebra("T8", None, (), None)), CREATED)
    write_table(tmp_path / "t.csv", rows(result, "A"))
    table = pd.read_csv(tmp_path / "t.csv")
    assert table["mean_hu"].tolist()[0] == 130.5
    assert table["mean_hu"].isna().tolist() == [False, True]
    assert table["confirmed"].dtype == bool
