"""The ledger: whole rows or none, whatever happens while one is written."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spineimg.batch.ledger import CaseStatus, Ledger, LedgerRow
from spineimg.errors import SpineImgError

DONE, REFUSED = CaseStatus.DONE, CaseStatus.REFUSED
HEADER = "case,status,reason,seconds,n_vertebrae\n"


def test_every_row_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    with Ledger.open(path) as ledger:
        assert path.read_text() == HEADER
        ledger.append(LedgerRow("a, b", DONE, "", 1.23456, 2))
        assert path.read_text() == HEADER + '"a, b",done,,1.235,2\n'
        ledger.append(LedgerRow("c", REFUSED, 'no "CT"\nat all', 0.1, 0))
        with path.open(newline="") as handle:
            assert list(csv.reader(handle))[2] == ["c", "refused", 'no "CT" at all', "0.100", "0"]
    with Ledger.open(path) as again:
        assert list(again.rows) == ["a, b", "c"]


@given(case=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), reason=st.text(max_size=80))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, case: str, reason: str) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.csv"
    with Ledger.open(path) as ledger:
        ledger.append(LedgerRow(case, DONE, reason, 0.5, 3))
    with Ledger.open(path) as again:
        assert [(row.case, row.n_vertebrae) for row in again.rows.values()] == [(case, 3)]


@pytest.mark.parametrize("cut", range(1, 17))
def test_a_row_that_a_killed_process_left_unfinished_is_not_a_row(tmp_path: Path, cut: int) -> None:
    """Planted: the torn line kept, so that the next row was glued to it; seen red."""
    path = tmp_path / "ledger.csv"
    with Ledger.open(path) as ledger:
        ledger.append(LedgerRow("a", DONE, "", 1, 1))
        ledger.append(LedgerRow("b", DONE, "", 1, 1))
    whole = path.read_bytes()
    assert len(whole.splitlines(keepends=True)[-1]) == 16
    path.write_bytes(whole[:-cut])
    with Ledger.open(path) as again:
        assert list(again.rows) == ["a"]
        again.append(LedgerRow("b", DONE, "", 1, 1))
    assert path.read_bytes() == whole


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: no truncation after a short write; seen red."""
    path = tmp_path / "ledger.csv"
    write = os.write

    def short(handle: int, data: bytes) -> int:
        return write(handle, data[:7])

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger.open(path) as ledger:
        ledger.append(LedgerRow("a", DONE, "", 1, 1))
        before = path.read_bytes()
        for fault in (short, full):
            monkeypatch.setattr(os, "write", fault)
            with pytest.raises(SpineImgError, match=r"ledger\.csv: No space left on device"):
                ledger.append(LedgerRow("b", DONE, "", 1, 1))
            monkeypatch.setattr(os, "write", write)
            assert path.read_bytes() == before
            assert "b" not in ledger.rows
        ledger.append(LedgerRow("b", DONE, "", 1, 1))
    assert path.read_bytes() == before + b"b,done,,1.000,1\n"


def test_forgetting_is_one_step(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    with Ledger.open(path) as ledger:
        for name in "abc":
            ledger.append(LedgerRow(name, REFUSED, "why", 1, 0))
        ledger.forget({"b", "not there"})
        ledger.append(LedgerRow("d", DONE, "", 1, 1))
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == ["case", "a", "c", "d"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("name,age\n", "line 1: a ledger starts with case,status"),
        (HEADER + "a,done,,1,1\na,done,,1,1\n", "line 3: a second row of 'a'"),
        (HEADER + "a,perhaps,,1,1\n", "line 2: no row of a ledger"),
        (HEADER + "a,done,,1\n", "line 2: no row of a ledger"),
        (HEADER + "a,done,,soon,1\n", "line 2: no row of a ledger"),
    ],
)
def test_what_is_no_ledger_is_left_alone(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(content)
    with pytest.raises(SpineImgError, match=complaint):
        Ledger.open(path)
    assert path.read_text() == content


def test_a_ledger_that_a_spreadsheet_saved_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + "a,done,,1.5,2\n").replace("\n", "\r\n").encode())
    with Ledger.open(path) as ledger:
        assert ledger.rows["a"] == LedgerRow("a", DONE, "", 1.5, 2)
