"""The ledger: one row for every case that was reached, on the disk before the run goes on."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from spineimg.errors import SpineImgError
from spineimg.export.files import replacing

COLUMNS = ("case", "status", "reason", "seconds", "n_vertebrae")
_HEADER = ",".join(COLUMNS) + "\n"


class CaseStatus(StrEnum):
    """How a case ended. `refused`: its input cannot be used. `failed`: no answer (time, memory, a dead worker)."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One case that was reached."""

    case: str
    status: CaseStatus
    reason: str
    seconds: float
    n_vertebrae: int

    def text(self) -> str:
        line = io.StringIO()
        reason = " ".join(self.reason.split())
        cells = (self.case, self.status, reason, f"{self.seconds:.3f}", self.n_vertebrae)
        csv.writer(line, lineterminator="\n").writerow(cells)
        return line.getvalue()


class Ledger:
    """The file and its rows. Whoever opens it holds the folder's lock; nobody else writes."""

    def __init__(self, path: Path, rows: Mapping[str, LedgerRow]) -> None:
        self.path = path
        self.rows = dict(rows)
        self._handle = _opened(path)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """The ledger of a folder, made when absent. A last line that a killed process left unfinished is cut off.

        Raises SpineImgError, with the line, for anything that is not a ledger.
        """
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise SpineImgError(f"cannot read {path}: {error.strerror}") from error
        whole = content[: content.rfind(b"\n") + 1]
        rows = _parsed(path, whole) if whole else {}
        if not whole or whole != content:
            _rewrite(path, rows.values())
        return cls(path, rows)

    def append(self, row: LedgerRow) -> None:
        """One more row, safe on the disk when this returns. A row that does not fit on the disk leaves no trace."""
        if row.case in self.rows:
            raise ValueError(f"{row.case} has a row already")
        data = row.text().encode("utf-8", "replace")
        end = os.fstat(self._handle).st_size
        try:
            written = os.write(self._handle, data)
            if written < len(data):
                raise OSError(28, "No space left on device")
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, end)
            raise SpineImgError(f"cannot write {self.path}: {error.strerror}") from error
        self.rows[row.case] = row

    def forget(self, cases: Iterable[str]) -> None:
        """Drops the rows of these cases, in one step: they count as not reached."""
        dropped = set(cases)
        if not dropped & self.rows.keys():
            return
        kept = {name: row for name, row in self.rows.items() if name not in dropped}
        self.close()
        _rewrite(self.path, kept.values())
        self.rows = kept
        self._handle = _opened(self.path)

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise SpineImgError(f"cannot write {path}: {error.strerror}") from error


def _rewrite(path: Path, rows: Iterable[LedgerRow]) -> None:
    with replacing(path) as handle:
        handle.write((_HEADER + "".join(row.text() for row in rows)).encode("utf-8", "replace"))


def _parsed(path: Path, content: bytes) -> dict[str, LedgerRow]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpineImgError(f"{path} is not UTF-8 text, so it is no ledger: choose another --out") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    if tuple(next(reader, ())) != COLUMNS:
        raise SpineImgError(f"{path}, line 1: a ledger starts with {','.join(COLUMNS)}: choose another --out")
    rows: dict[str, LedgerRow] = {}
    for cells in reader:
        try:
            case, status, reason, seconds, n_vertebrae = cells
            row = LedgerRow(case, CaseStatus(status), reason, float(seconds), int(n_vertebrae))
        except ValueError:
            raise SpineImgError(f"{path}, line {reader.line_num}: no row of a ledger; mend or remove it") from None
        if case in rows:
            raise SpineImgError(f"{path}, line {reader.line_num}: a second row of {case!r}; remove one")
        rows[case] = row
    return rows
