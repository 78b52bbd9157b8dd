"""A dock widget that knows when its dock is closed."""

from __future__ import annotations

from typing import Any

from napari.settings import get_settings
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget


class Docked(QWidget):
    """Its dock's cross takes the widget out of the window and no more, so that layers, keys and threads would stay."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.left = False
        get_settings().appearance.events.font_size.connect(self._dress)
        self._dress()

    def _dress(self, event: Any = None) -> None:
        """Gives the size of napari's text to what napari leaves out."""
        size = get_settings().appearance.font_size
        self.setStyleSheet(
            f"QTableView, QHeaderView, QPlainTextEdit, QToolButton, PlaneView {{ font-size: {size}pt; }}"
        )

    def leave(self) -> None:
        """Lets go of everything that outlives the widget. Called once."""
        raise NotImplementedError

    def _leave(self) -> None:
        if not self.left:
            self.left = True
            get_settings().appearance.events.font_size.disconnect(self._dress)
            self.leave()

    def changeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Type.ParentChange and self.parentWidget() is None:
            self._leave()
        super().changeEvent(event)

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        self._leave()
        super().closeEvent(event)


def scrolling(widget: QWidget, inner: QWidget, width_chars: int) -> None:
    """Fills a widget with another that can be scrolled to, so that nothing is out of reach on a small screen.

    width_chars: how wide it is at least, in letters of the font in use.
    """
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setWidget(inner)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(area)
    widget.setMinimumWidth(width_chars * widget.fontMetrics().averageCharWidth())
