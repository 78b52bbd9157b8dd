"""The table of vertebrae as CSV: one row a vertebra, the names of the result file joined with dots.

The columns are the same for every case, so that files of many cases can be stacked: three slices always have their
columns, and what is unknown or was not measured is blank.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

from spineimg.export.files import replacing
from spineimg.volume import Acquisition

Row = dict[str, Any]

_LIST_MARK = ";"
_MAX_SLICES = 3
_SLICE = (
    *("position", "mean_hu", "sd_hu", "median_hu", "n_voxels", "area_mm2", "kept_fraction"),
    *(f"{name}.{i}" for name, i in product(("center", "u", "v"), range(3))),
    *("semi_axes_mm.0", "semi_axes_mm.1", "sop_instance_uids"),
)
_FLAG = ("call", "below_cutoff", "cutoff_hu", "interval_hu.0", "interval_hu.1", "source", "text")
_SERIES = ("series_instance_uid", "description", "n_slices", "spacing_mm.0", "spacing_mm.1", "spacing_mm.2")

COLUMNS: tuple[str, ...] = (
    *("case", "level", "role", "confirmed"),
    *("mean_hu", "pooled_mean_hu", "median_hu", "sd_hu", "n_voxels", "kept_fraction"),
    *(f"flag.{name}" for name in _FLAG),
    "notes",
    *(f"slices.{i}.{name}" for i, name in product(range(_MAX_SLICES), _SLICE)),
    *(f"series.{name}" for name in _SERIES),
    *(f"acquisition.{field.name}" for field in fields(Acquisition)),
    *("case_notes", "made_by.spineimg"),
)
"""`notes` and `case_notes` hold the codes of the vertebra's and of the case's notes, joined by semicolons."""


def rows(result: Mapping[str, Any], case: str) -> list[Row]:
    """One dict a vertebra with exactly the keys COLUMNS; values are str, int, float, bool or None.

    result: the dict of a result file; case: the case's name in a table of many.
    """
    values = flat(head(result, "series", "acquisition")) | {"case": case, "case_notes": _codes(result["notes"])}
    return [_row(values, vertebra) for vertebra in result["vertebrae"]]


def head(result: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Parts of a result file that all rows of a case share, and the program's version without its many settings."""
    return {name: result[name] for name in names} | {"made_by": {"spineimg": result["made_by"]["spineimg"]}}


def write_table(path: str | os.PathLike[str], table: Iterable[Row], columns: Sequence[str] = COLUMNS) -> None:
    """Writes rows of one or many cases as CSV (UTF-8, comma, one header line), replacing a file that exists.

    Floats are written so that reading them gives the same number; true and false as in JSON; None as nothing.
    Raises SpineImgError when the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in table:
        writer.writerow([_cell(row[name]) for name in columns])
    with replacing(path) as handle:
        handle.write(text.getvalue().encode("utf-8", "replace"))


def _row(shared: Mapping[str, Any], vertebra: Mapping[str, Any]) -> Row:
    slices = vertebra["slices"]
    if len(slices) > _MAX_SLICES:
        raise ValueError(f"{vertebra['level']} has {len(slices)} slices, the table holds {_MAX_SLICES}")
    values = {**shared, **flat(vertebra), "notes": _codes(vertebra["notes"])}
    return {name: values.get(name) for name in COLUMNS}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict with dotted names; a list of strings becomes one string."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return {name: _LIST_MARK.join(value)}
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {name: value}
    joined: dict[str, Any] = {}
    for key, item in items:
        joined |= flat(item, f"{name}.{key}" if name else key)
    return joined


def _codes(notes: Iterable[Mapping[str, Any]]) -> str:
    return _LIST_MARK.join(dict.fromkeys(note["code"] for note in notes))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
