"""What leaves the program: the files of the command line, written by the core, and the clipboard."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication, QFileDialog, QWidget
from spineimg.anatomy import Role
from spineimg.cutoffs import Cutoff
from spineimg.export.figure import write_figure
from spineimg.export.json import result_to_dict, write_json
from spineimg.export.table import rows, write_table
from spineimg.implants.model import ImplantScreen

from napari_spineimg.session import Session

KINDS = {
    "csv": ("Table (CSV)", "CSV (*.csv)"),
    "json": ("Result (JSON)", "JSON (*.json)"),
    "rois": ("ROI file", "ROI file (*.json)"),
    "figure": ("Figure", "Figure (*.png *.pdf *.svg)"),
}


def write(kind: str, path: str | Path, session: Session, case: str, screen: ImplantScreen | None = None) -> None:
    """One of KINDS. Raises SpineImgError."""
    from dataclasses import replace

    result = replace(session.result, implants=screen) if screen is not None else session.result
    if kind == "rois":
        session.save(path)
    elif kind == "figure":
        write_figure(session.volume, result, path)
    else:
        document: dict[str, Any] = result_to_dict(result, datetime.now(UTC))
        if kind == "json":
            write_json(path, document)
        else:
            write_table(path, rows(document, case))


def ask_where(parent: QWidget, kind: str) -> str:
    """A place for a file; "" when the reader changes their mind."""
    title, pattern = KINDS[kind]
    ending = {"figure": "png", "rois": "rois.json"}.get(kind, kind)
    return str(QFileDialog.getSaveFileName(parent, f"Export {title}", f"spine.{ending}", pattern)[0])


def copy(text: str) -> None:
    """Puts text onto the clipboard."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)


def own_cutoff(value_hu: float, source: str) -> Cutoff:
    """A reader's own cutoff for the LIV; the flag names its source everywhere."""
    return Cutoff(
        value_hu=value_hu,
        role=Role.LIV,
        source=source,
        citation=source,
        population="as told by the source",
        method="mean of the slice means",
        conditions="taken for unenhanced scans at 120 kVp",
    )
