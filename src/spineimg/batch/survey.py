"""A first table of cases, from what lies below ROOT: every series with its verdict, and which one to measure.

The table can be given to `spineimg batch` once the columns that say where to measure are filled in. Rows with `use` =
no are left out there.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spineimg.batch.cases import KNOWN, REMARKS
from spineimg.errors import SpineImgError
from spineimg.export.files import replacing
from spineimg.volume import Acquisition, Sharpness, Verdict

if TYPE_CHECKING:
    from spineimg.io.index import Skipped
    from spineimg.io.series import SeriesEntry

COLUMNS = ("use", *KNOWN, *(name for name in REMARKS if name != "use"))
_SHARPNESS = {Sharpness.SOFT: (0, "soft kernel"), None: (1, "unknown kernel"), Sharpness.SHARP: (2, "sharp kernel")}
_CONTRAST = {False: (0, "no contrast"), None: (1, "contrast unknown"), True: (2, "contrast given")}

Row = dict[str, str]


def survey(root: Path) -> tuple[list[Row], Sequence[Skipped]]:
    """(one row a series, studies by name, the chosen one of each study first; files and folders that cannot be used).
    Keys of a row are COLUMNS, values text.

    Raises SpineImgError when ROOT is no folder or holds no series and no volume.
    """
    from spineimg.io.index import left_out, scan

    if not root.is_dir():
        raise SpineImgError(f"{root}: no such folder, ROOT holds the studies")
    root = Path(os.path.abspath(root))  # noqa: PTH100 - keeps links
    studies: dict[str, list[SeriesEntry]] = {}
    index = scan([root])
    entries = index.series
    for entry in entries:
        studies.setdefault(entry.info.study_instance_uid or _folder(entry), []).append(entry)
    usable = [entry for entry in entries if entry.verdict is not Verdict.REFUSED]
    crowded = _crowded(usable)
    rows = [_study_rows(study, root, crowded) for study in studies.values()]
    rows += [[_volume_row(path, root)] for path in _volumes(root)]
    if not rows:
        found = f" ({left_out(index.skipped)})" if index.skipped else ""
        raise SpineImgError(f"{root}: no CT series and no volume found{found}, give the folder that holds the studies")
    rows.sort(key=lambda study: study[0]["case"])
    return _with_unique_names(rows), index.skipped


def table_text(rows: Iterable[Row]) -> str:
    """The table as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_cases(path: Path, rows: Iterable[Row]) -> None:
    """Writes the table, whole or not at all. Raises SpineImgError."""
    with replacing(path) as handle:
        handle.write(table_text(rows).encode("utf-8", "replace"))


# -- DICOM ------------------------------------------------------------------------------------------------------------


def _study_rows(entries: Sequence[SeriesEntry], root: Path, crowded: set[str]) -> list[Row]:
    ordered = sorted(entries, key=_rank)
    n_usable = sum(entry.verdict is not Verdict.REFUSED for entry in entries)
    case = _case_name(os.path.commonpath([_folder(entry) for entry in entries]), root)
    return [
        _row(entry, case, _path(entry, root, crowded), chosen=number == 0 and n_usable > 0, n_usable=n_usable)
        for number, entry in enumerate(ordered)
    ]


def _rank(entry: SeriesEntry) -> tuple[object, ...]:
    """Usable before refused, without contrast first, then soft kernels, thin slices, many slices."""
    acquisition = entry.acquisition
    spacing = float(entry.geometry.spacing_mm[0]) if entry.geometry is not None else float("inf")
    return (
        entry.verdict is Verdict.REFUSED,
        _CONTRAST[acquisition.contrast][0],
        _SHARPNESS[acquisition.sharpness][0],
        round(max(spacing, acquisition.slice_thickness_mm or 0.0), 2),
        -entry.n_slices,
        entry.info.name,
    )


def _row(entry: SeriesEntry, case: str, path: str, *, chosen: bool, n_usable: int) -> Row:
    if entry.verdict is Verdict.REFUSED:
        why = "; ".join(f"{note.code}: {note.text}" for note in entry.notes)
    else:
        words = f"{_CONTRAST[entry.acquisition.contrast][1]}, {_SHARPNESS[entry.acquisition.sharpness][1]}"
        why = f"{'chosen' if chosen else 'not chosen'} of {n_usable} usable: {words}"
    spacing = entry.geometry.spacing_mm[0] if entry.geometry is not None and entry.n_slices > 1 else None
    about = {
        "study": entry.info.study_instance_uid or "",
        "series": entry.info.name if entry.info.series_instance_uid else "",
        "description": entry.info.description or "",
        "n_slices": str(entry.n_slices),
        "spacing_mm": "" if spacing is None else f"{spacing:.4g}",
        "verdict": entry.verdict.value,
        "why": why,
    }
    return _filled({"use": "yes" if chosen else "no", "case": case, "path": path} | about | _told(entry.acquisition))


def _told(acquisition: Acquisition) -> Row:
    contrast = {None: "", True: "yes", False: "no"}[acquisition.contrast]
    thickness, kvp = acquisition.slice_thickness_mm, acquisition.kvp
    return {
        "slice_thickness_mm": "" if thickness is None else f"{thickness:g}",
        "kvp": "" if kvp is None else f"{kvp:g}",
        "kernel": acquisition.kernel or "",
        "contrast": contrast,
    }


def _folder(entry: SeriesEntry) -> str:
    return os.path.commonpath([str(Path(record.path).parent) for record in entry.records])


def _crowded(usable: Sequence[SeriesEntry]) -> set[str]:
    """Folders below which, at any depth, lie slices of several usable series: they do not name one."""
    counts: Counter[str] = Counter()
    for entry in usable:
        folders = {Path(record.path).parent for record in entry.records}
        counts.update({str(above) for folder in folders for above in (folder, *folder.parents)})  # a set: once a series
    return {folder for folder, count in counts.items() if count > 1}


def _path(entry: SeriesEntry, root: Path, crowded: set[str]) -> str:
    """The series' folder where that names it, else its UID."""
    folder = _folder(entry)
    if entry.info.series_instance_uid and (folder in crowded or entry.verdict is Verdict.REFUSED):
        return entry.info.name
    return os.path.relpath(folder, root)


# -- volumes and names ------------------------------------------------------------------------------------------------


def _volumes(root: Path) -> list[str]:
    from spineimg.io.grid_headers import is_volume_file
    from spineimg.io.index import walk

    return sorted(path for path, reason in walk([root]) if reason is None and is_volume_file(path))


def _volume_row(path: str, root: Path) -> Row:
    """A NIfTI, NRRD or MHA file. Whether it is a CT or a label map is told by opening it."""
    from spineimg.io.opening import load

    row = {"use": "no", "case": _case_name(path, root), "path": os.path.relpath(path, root)}
    try:
        volume = load(path)
    except SpineImgError as error:
        return _filled(row | {"verdict": Verdict.REFUSED.value, "why": str(error)})
    usable = volume.verdict is not Verdict.REFUSED
    why = "; ".join(note.text for note in volume.notes) or "the only volume of this file"
    about = {
        "use": "yes" if usable else "no",
        "n_slices": str(volume.geometry.shape[0]),
        "spacing_mm": f"{volume.geometry.spacing_mm[0]:.4g}",
        "verdict": volume.verdict.value,
        "why": why,
    }
    return _filled(row | about | _told(volume.acquisition))


def _filled(row: Row) -> Row:
    """All columns, without line breaks and control characters, which a table of cases may not hold."""
    return {name: "".join(one if one.isprintable() else " " for one in row.get(name, "")) for name in COLUMNS}


def _case_name(path: str, root: Path) -> str:
    relative = os.path.relpath(path, root)
    return root.name if relative == "." else relative.replace(os.sep, "_")


def _with_unique_names(studies: Iterable[list[Row]]) -> list[Row]:
    """Studies that share a folder get numbers."""
    seen: set[str] = set()
    rows = []
    for study in studies:
        base, number = study[0]["case"], 1
        name = base
        while name in seen:
            number += 1
            name = f"{base}-{number}"
        seen.add(name)
        rows += [row | {"case": name} for row in study]
    return rows
