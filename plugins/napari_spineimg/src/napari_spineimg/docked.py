"""A dock widget that knows when its dock is closed."""

from __future__ import annotations

from typing import Any

from napari.settings import get_settings
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QScrollArea, QVBoxLayout, QWidget

_WIDEST = 0.42
"""Of the screen's width: what a widget takes at most without being asked. Engineering choice."""


class Docked(QWidget):
    """Its dock's cross takes the widget out of the window and no more, so that layers, keys and threads would stay."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.left = self._placed = False
        self.in_sight = True
        """False behind another tab, where Qt still calls a widget visible."""
        self._area: QScrollArea | None = None
        self.message = QLabel()
        """One sentence for the reader."""
        self.message.setWordWrap(True)
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.message.hide()
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

    def say(self, words: str) -> None:
        """Shows one sentence to the reader; "" takes it away."""
        self.message.setText(words)
        self.message.setVisible(bool(words))

    def allow(self, on: bool) -> None:
        """Lets the reader use the widget or not; the sentence that says why not stays as easy to read as ever."""
        inner = self._area.widget() if self._area is not None else None
        if inner is not None:
            for part in inner.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly):
                part.setEnabled(on or part is self.message)

    def _widen(self) -> None:
        """Wide enough for its rows at the size of the text, as far as the picture keeps room."""
        inner = self._area.widget() if self._area is not None else None
        screen = QWidget.screen(self)  # a widget may call something else its screen
        if self._area is None or inner is None or screen is None:
            return
        bar = self._area.verticalScrollBar()
        needed = max(inner.minimumSizeHint().width(), self.wanted_width())
        needed += bar.sizeHint().width() if bar is not None else 0
        letters = self._width_chars * self.fontMetrics().averageCharWidth()
        self.setMinimumWidth(max(letters, min(needed, round(_WIDEST * screen.availableGeometry().width()))))

    def wanted_width(self) -> int:
        """Pixels that its parts want beside what they need at least."""
        return 0

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        QTimer.singleShot(0, self, self._widen)
        if not self._placed:
            self._placed = True
            dock = dock_and_window(self)[0]
            if dock is not None:
                dock.visibilityChanged.connect(self._visibility_changed)
            QTimer.singleShot(0, self, self.take_place)

    def _visibility_changed(self, visible: bool) -> None:
        self.in_sight = visible

    def take_place(self) -> None:
        """Called once, when the widget has its dock: a tab over another widget of the plugin where the window is not
        high enough for one below the other."""
        dock, window = dock_and_window(self)
        if dock is None or window is None:
            return
        for other in window.findChildren(Docked):
            place = dock_and_window(other)[0]
            if place is None or place is dock or place.isFloating():
                continue
            together = window.dockWidgetArea(place) == window.dockWidgetArea(dock)
            if together and self._height() + other._height() > window.height():
                window.tabifyDockWidget(place, dock)
                dock.raise_()
                return

    def _height(self) -> int:
        """What it needs to show all of itself."""
        inner = self._area.widget() if self._area is not None else None
        return inner.sizeHint().height() if inner is not None else 0

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


def dock_and_window(widget: QWidget) -> tuple[QDockWidget | None, QMainWindow | None]:
    """The dock that a widget lies in and the window of the dock, where they are."""
    dock = widget.parentWidget()
    while dock is not None and not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    window = dock.parentWidget() if dock is not None else None
    return dock, window if isinstance(window, QMainWindow) else None
