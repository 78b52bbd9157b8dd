"""The table of `spineimg series`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STYLE = {"usable": "green", "usable_with_notes": "yellow", "refused": "red"}


def series_view(listing: Mapping[str, Any]) -> RenderableType:
    """A `spineimg.series/1` document for the terminal, notes and skipped files below the table."""
    table = Table(title=None, header_style="bold", expand=False)
    for name in ("#", "description", "slices", "spacing mm", "kVp", "kernel", "contrast", "verdict"):
        table.add_column(name, justify="right" if name in ("#", "slices", "kVp") else "left")
    lines: list[RenderableType] = []
    for number, one in enumerate(listing["series"], start=1):
        table.add_row(*_cells(number, one))
        lines.append(Text(f"{number}: {_name(one)}", style="dim"))
        lines += [Text(f"   {note['code']}: {note['text']}") for note in one["notes"]]
    lines += [Text(f"skipped {one['path']}: {one['reason']}", style="red") for one in listing["skipped"]]
    if listing["n_not_dicom"]:
        lines.append(Text(f"{listing['n_not_dicom']} other files that are not DICOM", style="dim"))
    return Group(table, *lines)


def _name(one: Mapping[str, Any]) -> str:
    uid = one["series_instance_uid"] or "(no SeriesInstanceUID)"
    return uid if one["part"] is None else f"{uid}#{one['part']}"


def _cells(number: int, one: Mapping[str, Any]) -> list[Text]:
    spacing = one["spacing_mm"]
    contrast = {True: "yes", False: "no", None: "?"}[one["contrast"]]
    cells = [
        str(number),
        one["description"] or "",
        str(one["n_slices"]),
        " x ".join("?" if part is None else f"{part:.4g}" for part in spacing) if spacing else "?",
        "?" if one["kvp"] is None else f"{one['kvp']:g}",
        one["kernel"] or "?",
        contrast,
    ]
    return [*(Text(cell) for cell in cells), Text(one["verdict"], style=_STYLE[one["verdict"]])]
