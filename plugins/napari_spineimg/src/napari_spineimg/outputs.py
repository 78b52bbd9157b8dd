"""What leaves the program: the files of the command line, written by the core, and the clipboard."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication, QFileDialog, QWidget
from spineimg.export.figure import write_figure
from spineimg.export.implant_figure import write_implant_figure
from spineimg.export.implants import SCREW_COLUMNS, screw_rows
from spineimg.export.json import result_to_dict, write_json
from spineimg.export.table import rows, write_table
from spineimg.implants.model import ImplantScreen
from spineimg.results import CaseResult

from napari_spineimg.session import Session
from napari_spineimg.study import Study

KINDS = {
    "csv": ("Table (CSV)", "CSV (*.csv)", "One row a vertebra, as the command line writes it"),
    "json": ("Result (JSON)", "JSON (*.json)", "All numbers, notes and settings"),
    "rois": ("ROI file", "ROI file (*.json)", "The ellipses, to be loaded or measured again"),
    "figure": ("Figure", "Figure (*.png *.pdf *.svg)", "Every vertebra with its ellipses, numbers and flag"),
}
"""(title, pattern of file names, what it is)."""

SCREW_KINDS = {
    "screws_csv": ("Screws (CSV)", "CSV (*.csv)", "One row a screw, as the command line writes it"),
    "screws_json": ("Screen (JSON)", "JSON (*.json)", "All screws, rods, notes and settings"),
    "screws_figure": ("Figure of the screws", "Figure (*.png *.pdf *.svg)", "The screws, their planes and halo maps"),
}


def write(kind: str, path: str | Path, session: Session, case: str, screen: ImplantScreen | None = None) -> None:
    """One of KINDS. Raises SpineImgError."""
    result = session.result
    if screen is not None:
        notes = tuple(dict.fromkeys((*result.notes, *screen.notes)))
        settings = {**result.settings, "implants": dict(screen.settings)}
        result = replace(result, implants=screen, notes=notes, settings=settings)
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


def write_screws(kind: str, path: str | Path, study: Study, result: CaseResult) -> None:
    """One of SCREW_KINDS, as the command line writes it. Raises SpineImgError."""
    if kind == "screws_figure":
        write_implant_figure(study.volume, result, path)
        return
    document: dict[str, Any] = result_to_dict(result, datetime.now(UTC))
    if kind == "screws_json":
        write_json(path, document)
    else:
        write_table(path, screw_rows(document, study.case), SCREW_COLUMNS)


def ask_where(parent: QWidget, kind: str) -> str:
    """A place for a file; "" when the reader changes their mind."""
    title, pattern, _ = (KINDS | SCREW_KINDS)[kind]
    last = kind.rsplit("_", 1)[-1]
    ending = {"figure": "png", "rois": "rois.json"}.get(last, last)
    name = "screws" if kind in SCREW_KINDS else "spine"
    return str(QFileDialog.getSaveFileName(parent, f"Export {title}", f"{name}.{ending}", pattern)[0])


def copy(text: str) -> None:
    """Puts text onto the clipboard."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
