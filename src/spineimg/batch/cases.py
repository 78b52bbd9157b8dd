"""The table of cases: read whole and checked before anything is measured, every complaint with its line.

One row a vertebra, or one row for all vertebrae of a ROI file or a label map:

    case,path,level,role,x_mm,y_mm,z_mm         a click in the vertebral body, LPS mm
    case,path,rois[,level,role]                 a ROI file; with levels, only these
    case,path,mask[,level,role]                 a label map; with levels, only these

`path` is relative to ROOT or a SeriesInstanceUID; `rois` and `mask` are relative to ROOT or, when they are not there,
to the table's folder. `{case}` in the three stands for the case's name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category, normalize

from spineimg.anatomy import Construct, Role, parse_level
from spineimg.errors import SpineImgError

KNOWN = ("case", "path", "level", "role", "x_mm", "y_mm", "z_mm", "rois", "mask")
REMARKS = (
    *("use", "study", "series", "description", "n_slices", "spacing_mm", "slice_thickness_mm", "kvp", "kernel"),
    *("contrast", "verdict", "why"),
)
"""Columns of the table that `spineimg cases` writes. Of these only `use` counts here: rows with `no` are left out."""
_POINT = ("x_mm", "y_mm", "z_mm")
_MOST_MM = 100_000.0
"""No point of a scan lies 100 m from the scanner's origin."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)+(#[0-9]+)?")
_MOST_CELL = 100_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """One vertebra that a row asks for; `center_lps_mm` is a click."""

    level: str
    role: Role | None = None
    center_lps_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a CT and where to measure it.

    path: as the table has it; uid: the SeriesInstanceUID when `path` is one. rois, mask: file or None.
    wanted: the rows' vertebrae; empty means all of the file.
    """

    name: str
    line: int
    path: str
    uid: str | None
    rois: str | None
    mask: str | None
    wanted: tuple[Wanted, ...]

    @property
    def searched(self) -> bool:
        """Nothing says where the vertebrae are."""
        return self.rois is None and self.mask is None and all(one.center_lps_mm is None for one in self.wanted)

    @property
    def fingerprint(self) -> str:
        """Changes when the table asks for something else. Independent of the row's place and of where ROOT lies."""
        wanted = [(one.level, one.role, one.center_lps_mm) for one in self.wanted]
        content = json.dumps([self.name, self.path, self.uid, self.rois, self.mask, wanted])
        return hashlib.sha256(content.encode()).hexdigest()[:24]

    def construct(self) -> Construct:
        """The ends that the table names. Raises RoiError when they are upside down."""
        ends = {one.role: one.level for one in self.wanted if one.role is not None}
        return Construct(ends.get(Role.UIV), ends.get(Role.LIV))


@dataclass(frozen=True, slots=True)
class CaseTable:
    """All cases, in the table's order; n_left_out counts the rows with `use` = no."""

    cases: tuple[Case, ...]
    sha256: str
    n_left_out: int


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.cells.get(name, "")


def read_cases(
    path: Path, root: Path, columns: Mapping[str, str] | None = None, *, may_search: bool = False
) -> CaseTable:
    """The cases of a CSV file.

    columns: our name -> the table's, where it has others; then what is unknown is ignored. may_search: a case need not
    say where its vertebrae are. Raises SpineImgError with the line of the first row that cannot be understood."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpineImgError(f"cannot read {path}: {error.strerror or error}, name a table of cases") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SpineImgError(f"{path}, line {line}: not UTF-8 text, save the table as CSV in UTF-8") from None
    try:
        rows = list(_rows(text, columns or {}))
        used = [row for row in rows if _is_used(row)]
        groups: dict[str, list[_Row]] = {}
        for row in used:
            groups.setdefault(_name(row), []).append(row)
        _refuse_look_alikes(groups)
        cases = tuple(_case(name, group, (root, path.parent), may_search) for name, group in groups.items())
    except _TableError as error:
        raise SpineImgError(f"{path}, {error}") from None
    if not cases:
        raise SpineImgError(f"{path}: no case in it, add a row with case, path and level, rois or mask")
    return CaseTable(cases, hashlib.sha256(content).hexdigest(), len(rows) - len(used))


def located(file: str, root: Path, table: Path) -> str:
    """The whole path of a ROI file or label map: in ROOT, or else beside the table."""
    in_root, beside = root / file, table.parent / file
    return os.path.abspath(beside if os.path.exists(beside) and not os.path.exists(in_root) else in_root)  # noqa: PTH100, PTH110


class _TableError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")


# -- rows -------------------------------------------------------------------------------------------------------------


def _rows(text: str, columns: Mapping[str, str]) -> Iterator[_Row]:
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _TableError(reader.line_num, f"not CSV: {error}") from None
        if cells is None:
            break
        if header is None:
            header = _header(cells, line, columns)
        elif any(cell.strip() for cell in cells):
            yield _row(header, cells, line)
    if header is None:
        raise _TableError(1, "the table is empty")


def _delimiter(text: str) -> str:
    """Spreadsheets of some countries write semicolons or tabs; the header tells."""
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def parse_columns(text: str | None) -> dict[str, str]:
    """`case=Patient,path=Folder` -> our name: the table's. Raises SpineImgError."""
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        ours, mark, theirs = (piece.strip() for piece in part.partition("="))
        if not mark or not theirs or ours not in (*KNOWN, "use") or ours in found:
            raise SpineImgError(
                f"--columns has {part.strip()!r}: write OURS=THEIRS once each, OURS one of {', '.join(KNOWN)}"
            )
        found[ours] = theirs
    return found


def _header(cells: Sequence[str], line: int, columns: Mapping[str, str]) -> list[str]:
    if columns:
        return _mapped([cell.strip() for cell in cells], line, columns)
    names = [cell.strip().lower() for cell in cells]
    for name in names:
        if name not in (*KNOWN, *REMARKS):
            raise _TableError(line, f"unknown column {name!r}; known are {', '.join(KNOWN)} (and remarks: "
                                    f"{', '.join(REMARKS)})")  # fmt: skip
    return _with_needed(names, line)


def _mapped(cells: Sequence[str], line: int, columns: Mapping[str, str]) -> list[str]:
    """Our names of a table's columns; what is not mapped and not ours is no concern of a run."""
    for ours, theirs in columns.items():
        if cells.count(theirs) != 1:
            raise _TableError(
                line, f"--columns says {ours}={theirs}, but {cells.count(theirs)} columns are called that"
            )
    ours_of = {theirs: ours for ours, theirs in columns.items()}
    names = []
    for number, cell in enumerate(cells):
        name = cell.lower()
        own = name if name in (*KNOWN, "use") and name not in columns else f"#{number}"
        names.append(ours_of.get(cell, own))
    return _with_needed(names, line)


def _with_needed(names: list[str], line: int) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise _TableError(line, f"the column {name!r} is there twice")
    missing = [name for name in ("case", "path") if name not in names]
    if missing:
        raise _TableError(line, f"the column {missing[0]!r} is missing (--columns may say how it is called)")
    return names


def _row(header: Sequence[str], cells: Sequence[str], line: int) -> _Row:
    if len(cells) != len(header):
        raise _TableError(line, f"{len(cells)} cells where the header has {len(header)}")
    stripped = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for name, cell in stripped.items():
        if len(cell) > _MOST_CELL or not _is_seen(cell):
            raise _TableError(
                line, f"{name} holds {cell[:40]!r}: line breaks and characters that are not seen are not allowed"
            )
    return _Row(line, stripped)


def _is_used(row: _Row) -> bool:
    if row["use"].lower() not in ("", "yes", "no"):
        raise _TableError(row.line, f"use is yes, no or empty, found {row['use']!r}")
    return row["use"].lower() != "no"


def _is_seen(text: str) -> bool:
    """Whether every character shows on paper; spaces of other scripts and such that do not break show as a gap."""
    return text.isprintable() or all(letter.isprintable() or category(letter) == "Zs" for letter in text)


def _refuse_look_alikes(groups: Mapping[str, Sequence[_Row]]) -> None:
    """One name typed on two machines may differ in nothing that a person sees; its rows would become two cases."""
    known: dict[str, tuple[str, int]] = {}
    for name, rows in groups.items():
        other, line = known.setdefault(" ".join(normalize("NFC", name).split()), (name, rows[0].line))
        if other != name:
            raise _TableError(
                rows[0].line,
                f"case {name!a} looks like {other!a} of line {line}, but is not spelt with the same characters: "
                "write one of them as the other, or give it another name",
            )


def _name(row: _Row) -> str:
    if not row["case"]:
        raise _TableError(row.line, "the case has no name")
    return row["case"]


# -- cases ------------------------------------------------------------------------------------------------------------


def _case(name: str, rows: Sequence[_Row], bases: tuple[Path, Path], may_search: bool) -> Case:
    first = rows[0]
    for row in rows:
        for column in ("path", "rois", "mask"):
            if row[column] != first[column]:
                raise _TableError(
                    row.line,
                    f"case {name!r} has {column} {row[column]!r} here and {first[column]!r} in line {first.line}: "
                    "one case is one CT with ROIs from one source",
                )
    path, rois, mask = (first[column].replace("{case}", name) for column in ("path", "rois", "mask"))
    if not path:
        raise _TableError(first.line, "path is empty: give a folder or file below ROOT, or a SeriesInstanceUID")
    if rois and mask:
        raise _TableError(first.line, "rois and mask are both given: keep one")
    for file in (rois, mask):
        if file and _is_ambiguous(bases[0] / file, bases[1] / file):
            raise _TableError(first.line, f"{file} lies in ROOT and beside the table: give the whole path of one")
    placed = bool(rois or mask) or not may_search or any(row[name] for row in rows for name in _POINT)
    wanted = _all_wanted(rows, from_file=bool(rois or mask) or not placed)
    is_uid = _UID.fullmatch(path) and not os.path.exists(bases[0] / path)  # noqa: PTH110 - takes any name
    uid = path if is_uid else None
    case = Case(name, first.line, path, uid, rois or None, mask or None, wanted)
    try:
        case.construct()
    except SpineImgError as error:
        raise _TableError(first.line, f"case {name!r}: {error}") from None
    return case


def _is_ambiguous(in_root: Path, beside: Path) -> bool:
    both = in_root != beside and os.path.exists(in_root) and os.path.exists(beside)  # noqa: PTH110 - takes any name
    return both and not in_root.samefile(beside)


def _all_wanted(rows: Sequence[_Row], *, from_file: bool) -> tuple[Wanted, ...]:
    """The vertebrae of all rows; empty for one row that asks for all of a file."""
    if from_file and len(rows) == 1 and not any(rows[0][name] for name in ("level", "role", *_POINT)):
        return ()
    found: dict[str, Wanted] = {}
    lines: dict[str, int] = {}
    roles: dict[Role, int] = {}
    for row in rows:
        one = _wanted(row, from_file=from_file)
        if one.level in found:
            raise _TableError(row.line, f"{one.level} of this case is there already, in line {lines[one.level]}")
        if one.role in roles:
            raise _TableError(row.line, f"this case has a {one.role} already, in line {roles[one.role]}")
        found[one.level], lines[one.level] = one, row.line
        if one.role is not None:
            roles[one.role] = row.line
    return tuple(found.values())


def _wanted(row: _Row, *, from_file: bool) -> Wanted:
    if not row["level"]:
        raise _TableError(
            row.line,
            "level is empty" + ("" if from_file else ", and so are rois and mask: fill one, or run with --levels auto"),
        )
    try:
        level = parse_level(row["level"])
    except SpineImgError as error:
        raise _TableError(row.line, str(error)) from None
    role = row["role"].upper()
    if role not in ("", *Role):
        raise _TableError(row.line, f"role is UIV, LIV or empty, found {row['role']!r}")
    center = _point(row)
    if from_file and center is not None:
        raise _TableError(row.line, "a click beside rois or mask: keep one")
    if not from_file and center is None:
        raise _TableError(row.line, f"nothing says where {level} is: give x_mm, y_mm and z_mm, or rois, or mask")
    return Wanted(level, Role(role) if role else None, center)


def _point(row: _Row) -> tuple[float, float, float] | None:
    texts = [row[name] for name in _POINT]
    if not any(texts):
        return None
    x, y, z = (_number(row, name) for name in _POINT)
    return x, y, z


def _number(row: _Row, name: str) -> float:
    try:
        value = float(row[name].replace("_", "?"))  # Python reads 6_4 as 64
    except ValueError:
        text = f"{name} must be a number in mm with a decimal point, found {row[name]!r}"
        raise _TableError(row.line, text) from None
    if not math.isfinite(value) or abs(value) > _MOST_MM:
        raise _TableError(row.line, f"{name} must be a number in mm within ±{_MOST_MM:g}, found {row[name]!r}")
    return value
