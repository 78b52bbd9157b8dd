"""Which of several series? A table that also says why some are refused."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QMainWindow,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from spineimg.io.index import SeriesIndex
from spineimg.io.series import SeriesEntry
from spineimg.volume import Sharpness, Verdict

COLUMNS = ("Description", "Slices", "Spacing mm", "kVp", "Kernel", "Contrast", "Verdict")
_VERDICTS = {
    Verdict.USABLE: "✓ usable",
    Verdict.USABLE_WITH_NOTES: "◆ usable, see notes",
    Verdict.REFUSED: "✕ refused",
}


def preselected(entries: Sequence[SeriesEntry]) -> int | None:
    """The thinnest series of a soft kernel; of an unknown kernel before a sharp one. None when all are refused."""

    def rank(number: int) -> tuple[int, float, int]:
        entry = entries[number]
        sharpness = entry.acquisition.sharpness
        kernel = {Sharpness.SOFT: 0, None: 1, Sharpness.SHARP: 2}[sharpness]
        thickness = entry.acquisition.slice_thickness_mm or 0.0
        spacing = entry.geometry.spacing_mm[0] if entry.geometry is not None else 1e3
        return kernel, max(thickness, spacing), -entry.n_slices

    usable = [n for n, entry in enumerate(entries) if entry.verdict is not Verdict.REFUSED]
    return min(usable, key=rank, default=None)


def cells(entry: SeriesEntry) -> tuple[str, ...]:
    """One row of the table."""
    acquisition, geometry = entry.acquisition, entry.geometry
    spacing = " × ".join("?" if one != one else f"{one:.3g}" for one in geometry.spacing_mm) if geometry else "?"
    return (
        entry.info.description or entry.info.name,
        str(entry.n_slices),
        spacing,
        "?" if acquisition.kvp is None else f"{acquisition.kvp:g}",
        acquisition.kernel or "?",
        {True: "yes", False: "no", None: "?"}[acquisition.contrast],
        _VERDICTS[entry.verdict],
    )


class SeriesDialog(QDialog):
    """The table of series, usable ones to be chosen, with the notes of the row under it."""

    def __init__(self, index: SeriesIndex, path: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Choose a CT series")
        self._entries = index.series
        self.table = QTableWidget(len(index.series), len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setToolTip("Choose a series; what is to be known of it stands below")
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.setTextFormat(Qt.TextFormat.PlainText)
        self.notes.setMinimumHeight(70)
        self.notes.setAlignment(Qt.AlignmentFlag.AlignTop)
        buttons = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(buttons.Open | buttons.Cancel)
        heading = QLabel(f"{path} holds {len(index.series)} series.")
        heading.setWordWrap(True)
        layout = QVBoxLayout(self)
        for part in (heading, self.table, self.notes, self.buttons):
            layout.addWidget(part)
        self._fill()
        self.table.itemSelectionChanged.connect(self._show_notes)
        self.table.itemDoubleClicked.connect(lambda _: self._take())
        self.buttons.accepted.connect(self._take)
        self.buttons.rejected.connect(self.reject)
        self.resize(900, 420)
        first = preselected(self._entries)
        self.table.selectRow(0 if first is None else first)
        self._show_notes()

    @classmethod
    def ask(cls, index: SeriesIndex, path: str) -> SeriesEntry | None:
        """Shows the table; None when it is closed without a choice."""
        windows = [one for one in QApplication.topLevelWidgets() if isinstance(one, QMainWindow) and one.isVisible()]
        dialog = cls(index, path, windows[0] if windows else None)  # in the window's colours
        accepted = dialog.exec()
        chosen = dialog.chosen if accepted else None
        dialog.deleteLater()
        return chosen

    @property
    def chosen(self) -> SeriesEntry | None:
        """The entry of the selected row."""
        row = self.table.currentRow()
        return self._entries[row] if 0 <= row < len(self._entries) else None

    def _fill(self) -> None:
        for row, entry in enumerate(self._entries):
            for column, text in enumerate(cells(entry)):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                self.table.setItem(row, column, item)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    def _show_notes(self) -> None:
        entry = self.chosen
        if entry is None:
            return
        refused = entry.verdict is Verdict.REFUSED
        self.buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(not refused)
        start = "Refused, because " if refused else "Notes: " if entry.notes else "No remarks."
        self.notes.setText(start + "; ".join(note.text for note in entry.notes))

    def _take(self) -> None:
        entry = self.chosen
        if entry is not None and entry.verdict is not Verdict.REFUSED:
            self.accept()
