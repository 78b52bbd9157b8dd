"""Parts of the HU widget: the banner of a flag and the table of vertebrae."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QFontInfo
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QGridLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from spineimg.anatomy import LEVELS, order
from spineimg.results import VertebraResult

from napari_spineimg import texts

_PLAIN = "#3a4754"
LONGEST = ("T12 ?", "UIV", "1000.0", "100 / 100 / 100", "100", "100%", "◆ indeterminate")
"""Cells of a row that is as long as rows usually get."""


class FlagBanner(QFrame):
    """The flag of the LIV, or the number of the level in hand: colour, shape, word and numbers."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.head, self.numbers = QLabel(), QLabel()
        self._colour, self._look = _PLAIN, ("", 0)
        for label in (self.head, self.numbers):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 8)
        layout.setSpacing(2)
        layout.addWidget(self.head)
        layout.addWidget(self.numbers)
        self.show_vertebra(None)

    def show_vertebra(self, vertebra: VertebraResult | None) -> None:
        """None: nothing is measured."""
        if vertebra is None:
            self.show_nothing("Nothing measured yet", "Choose a level and click into its body.")
            return
        colour = _PLAIN if vertebra.flag is None else texts.CALLS[vertebra.flag.call].colour
        slices = " / ".join(texts.number(one.mean_hu, 0) for one in vertebra.hu.slices)
        detail = texts.against(vertebra) or (f"slices {slices} HU" if slices else texts.why_not(vertebra))
        self._show(texts.headline(vertebra), detail, colour)
        self.setToolTip("\n".join(texts.notes_of(vertebra)))

    def show_nothing(self, head: str, words: str) -> None:
        """Words in place of a number."""
        self._show(head, words, _PLAIN)
        self.setToolTip("The number of the chosen vertebra, or the flag of the LIV, stands here")

    def _show(self, head: str, numbers: str, colour: str) -> None:
        self.head.setText(head)
        self.numbers.setText(numbers)
        self._colour = colour
        self._dress()

    def _dress(self) -> None:
        """Colour, and a head line larger than the text of the window, whatever size that has."""
        size = QFontInfo(self.numbers.font()).pixelSize()
        look = (self._colour, size)
        if look != self._look:  # a style sheet takes longer than all else here
            self._look = look
            self.setStyleSheet(
                f"FlagBanner {{ background-color: {self._colour}; border-radius: 5px; }}"
                "FlagBanner QLabel { color: white; background: transparent; }"
            )
            self.head.setStyleSheet(f"font-weight: 700; font-size: {round(1.3 * size)}px;")

    def changeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._dress()


class BusyRow(QWidget):
    """Says what is being worked out while the viewer stays usable; a button gives it up."""

    cancelled = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words, self.bar, self.stop = QLabel(), QProgressBar(), QPushButton("Cancel")
        self.words.setWordWrap(True)
        self.words.setTextFormat(Qt.TextFormat.PlainText)
        self.bar.setToolTip("How far the work is; the viewer can be used meanwhile")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.stop.setToolTip("Gives it up; nothing is entered")
        self.stop.clicked.connect(self.cancelled.emit)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.words, 0, 0)
        layout.addWidget(self.bar, 1, 0)
        layout.addWidget(self.stop, 0, 1, 2, 1)
        layout.setColumnStretch(0, 1)
        self.rest()

    def work(self, words: str, part: float | None = None) -> None:
        """Shows what is done, and how much of it is where that is known."""
        self.words.setText(words)
        self.bar.setRange(0, 0 if part is None else 100)
        if part is not None:
            self.bar.setValue(round(100 * part))
        self.show()

    def rest(self) -> None:
        """Nothing is being worked out. A bar without an end would go on being drawn."""
        self.bar.setRange(0, 100)
        self.hide()


class VertebraTable(QTableWidget):
    """One row a vertebra, from head to foot."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(texts.COLUMNS), parent)
        self._levels: list[str] = []
        name_columns(self, texts.COLUMNS, texts.COLUMN_TIPS)
        self.verticalHeader().hide()
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setToolTip("Choose a row to go there; press the right button to name, mark or remove a vertebra")
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.setMinimumHeight(110)
        self.itemSelectionChanged.connect(self._emit)

    @property
    def level(self) -> str | None:
        """The level of the selected row."""
        row = self.currentRow()
        return self._levels[row] if 0 <= row < len(self._levels) else None

    def level_at(self, row: int) -> str | None:
        return self._levels[row] if 0 <= row < len(self._levels) else None

    def show_rows(self, vertebrae: Sequence[VertebraResult], current: str | None) -> None:
        """Fills the table and selects the level in hand, without telling anyone."""
        self.blockSignals(True)
        ordered = sorted(vertebrae, key=lambda one: order(one.level))
        self._levels = [one.level for one in ordered]
        self.setRowCount(len(ordered))
        for row, vertebra in enumerate(ordered):
            self.show_row(row, vertebra)
        if current in self._levels:
            self.selectRow(self._levels.index(current))
        else:
            self.clearSelection()
        self.blockSignals(False)

    def show_live(self, vertebra: VertebraResult) -> None:
        """New numbers in the row of one level."""
        if vertebra.level in self._levels:
            self.show_row(self._levels.index(vertebra.level), vertebra)

    def clear_live(self) -> None:
        """Takes the numbers out of the table until it is filled again."""
        for row in range(self.rowCount()):
            for column in range(1, self.columnCount()):
                item = self.item(row, column)
                if item is not None:
                    item.setText(texts.DASH)

    def show_row(self, row: int, vertebra: VertebraResult) -> None:
        tip = "\n".join(texts.notes_of(vertebra))
        for column, text in enumerate(texts.cells(vertebra)):
            item = self.item(row, column)
            if item is None:
                item = QTableWidgetItem()
                self.setItem(row, column, item)
            item.setText(text)
            item.setToolTip(tip)
            if texts.COLUMNS[column] == "HU":
                font = item.font()
                font.setBold(True)
                item.setFont(font)

    def _emit(self) -> None:
        level = self.level
        if level is not None:
            self.chosen.emit(level)


def name_columns(table: QTableWidget, names: Sequence[str], tips: Sequence[str]) -> None:
    """Heads of the columns, each with its tooltip."""
    table.setHorizontalHeaderLabels(names)
    for column, tip in enumerate(tips):
        item = table.horizontalHeaderItem(column)
        if item is not None:
            item.setToolTip(tip)


def full_width(table: QTableWidget, names: Sequence[str], longest: Sequence[str]) -> int:
    """Pixels in which the heads of the columns and rows as long as they usually get are seen whole, beside a bar to
    scroll by."""
    letters, bar = table.fontMetrics().horizontalAdvance, table.verticalScrollBar()
    width = sum(max(letters(name), letters(cell)) + letters("00") for name, cell in zip(names, longest, strict=True))
    return width + 2 * table.frameWidth() + (bar.sizeHint().width() if bar is not None else 0)


def level_names() -> tuple[str, ...]:
    """Names for the choice of a level; S1 has no body to be measured."""
    return tuple(level for level in LEVELS if level != "S1")
