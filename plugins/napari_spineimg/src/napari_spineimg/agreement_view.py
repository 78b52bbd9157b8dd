"""Two readers side by side: the table, the numbers in words, the Bland-Altman plot of the core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from spineimg.export.agreement_plot import draw
from spineimg.export.text import summary_lines

from napari_spineimg.texts import DASH, number

_COLUMNS = ("Level", "A HU", "B HU", "A − B", "Flag A", "Flag B")


class AgreementDialog(QDialog):
    """Shows an agreement file's content."""

    def __init__(self, agreement: Mapping[str, Any], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Agreement of two readers")
        pairs = agreement["vertebrae"]
        self.table = QTableWidget(len(pairs), len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.verticalHeader().hide()
        self.table.setToolTip("Levels that both readers measured")
        for row, pair in enumerate(pairs):
            numbers = [number(pair[name]) for name in ("a_hu", "b_hu", "difference_hu")]
            calls = [str(pair[name] or DASH).replace("_", " ") for name in ("call_a", "call_b")]
            tip = "\n".join(note["text"] for note in pair["notes"])
            for column, text in enumerate([pair["level"], *numbers, *calls]):
                item = QTableWidgetItem(text)
                item.setToolTip(tip)
                self.table.setItem(row, column, item)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.summary = QLabel("\n".join([*summary_lines(agreement), *(note["text"] for note in agreement["notes"])]))
        self.summary.setWordWrap(True)
        above = QHBoxLayout()
        above.addWidget(self.table, 1)
        above.addWidget(self.summary, 1)
        self.table.setMinimumHeight(190)
        layout = QVBoxLayout(self)
        layout.addLayout(above)
        layout.addWidget(FigureCanvasQTAgg(draw(agreement).figure), 1)
        self.resize(980, 700)
