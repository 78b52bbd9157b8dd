"""A dock widget that knows when its dock is closed."""

from __future__ import annotations

from typing import Any

from napari.settings import get_settings
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

_WIDEST = 0.42
"""Of the screen's width: what a widget takes at most without being asked. Engineering choice."""


class Docked(QWidget):
    """Its dock's cross takes the widget out of the window and no more, so that layers, keys and threads would stay."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.left = False
        self._area: QScrollArea | None = None
        get_settings().appearance.events.font_size.connect(self._dress)
        self._dress()

    def _dress(self, event: Any = None) -> None:
        """Gives the size of napari's text to what napari leaves out."""
        size = get_settings().appearance.font_size
        self.setStyleSheet(
            f"QTableView, QHeaderView, QPlainTextEdit, QLineEdit, QToolButton, PlaneView {{ font-size: {size}pt; }}"
        )
        QTimer.singleShot(0, self, self._widen)

    def scroll_to(self, inner: QWidget, width_chars: int) -> None:
        """Fills the widget with another that can be scrolled to, so that nothing is out of reach on a small screen.

        width_chars: how wide it is at least, in letters of the font in use.
        """
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setWidget(inner)
        self._area.setFrameShape(QScrollArea.Shape.NoFrame)
        self._width_chars = width_chars
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._area)
        self._widen()

    def _widen(self) -> None:
        """Wide enough for its rows at the size of the text, as far as the picture keeps room."""
        inner = self._area.widget() if self._area is not None else None
        screen = QWidget.screen(self)  # a widget may call something else its screen
        if self._area is None or inner is None or screen is None:
            return
        bar = self._area.verticalScrollBar()
        needed = inner.minimumSizeHint().width() + (bar.sizeHint().width() if bar is not None else 0)
        letters = self._width_chars * self.fontMetrics().averageCharWidth()
        self.setMinimumWidth(max(letters, min(needed, round(_WIDEST * screen.availableGeometry().width()))))

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        QTimer.singleShot(0, self, self._widen)

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
