"""A reader's hand: real mouse and key events on napari's canvas and on the plugin's own pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QCoreApplication, QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from spineimg.geometry import FloatArray

from napari_spineimg.display import lps_from_world, world_from_lps
from napari_spineimg.room import room_of

_LEFT = Qt.MouseButton.LeftButton


class Hand:
    """Works on one viewer."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.room = room_of(viewer)
        self.docks: list[Any] = []
        self.settle()

    def open(self, name: str) -> Any:
        """A dock widget of the plugin."""
        dock, widget = self.viewer.window.add_plugin_dock_widget("napari-spineimg", name)
        self.docks.append(dock)
        self.settle()
        return widget

    def leave(self) -> None:
        self.viewer.layers.clear()
        self.docks.clear()
        self.settle()

    def settle(self, times: int = 3) -> None:
        for _ in range(times):
            QApplication.processEvents()
        # A running event loop deletes closed widgets; processEvents alone keeps them, and napari's keep their layers.
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)

    # -- places -------------------------------------------------------------------------------------------------------

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas

    def world_at(self, x: float, y: float) -> FloatArray:
        return np.array(self.canvas._map_canvas2world((x, y), self.canvas.view), dtype=float)[-3:]

    def pixel(self, point_lps_mm: FloatArray) -> QPoint:
        """Where a point is on the canvas."""
        shown = list(self.viewer.dims.displayed)
        origin = self.world_at(0, 0)[shown]
        steps = np.stack([(self.world_at(*end)[shown] - origin) / 100 for end in ((100, 0), (0, 100))], axis=1)
        x, y = np.linalg.solve(steps, world_from_lps(point_lps_mm)[shown] - origin)
        return QPoint(round(x), round(y))

    def lps_at(self, pixel: QPoint) -> FloatArray:
        """The point under a pixel of the canvas, on the slice that is shown."""
        return lps_from_world(self.world_at(pixel.x(), pixel.y()))

    # -- acts ---------------------------------------------------------------------------------------------------------

    def scroll_to(self, point_lps_mm: FloatArray) -> None:
        """Scrolls the viewer to the slice of a point, as its slider does."""
        world = world_from_lps(point_lps_mm)
        for axis in self.viewer.dims.not_displayed:
            extent = self.viewer.dims.range[axis]
            self.viewer.dims.set_current_step(axis, round((world[axis] - extent.start) / extent.step))
        self.settle()

    def point_at(self, point_lps_mm: FloatArray) -> FloatArray:
        """Moves the mouse over a point; the point that is really under it."""
        under = np.zeros(3)

        def there() -> bool:  # a window that has only just been mapped misses the first moves, and is laid out again
            nonlocal under
            pixel = self.pixel(point_lps_mm)
            under = self.lps_at(pixel)
            self.move(pixel)
            return bool(np.allclose(lps_from_world(np.array(self.viewer.cursor.position)[-3:]), under, atol=1e-6))

        self.qtbot.waitUntil(there, timeout=10_000)
        return under

    def move(self, pixel: QPoint, held: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
        """A move of the mouse as the canvas gets it. QTest moves the pointer of the screen, whose events another window
        may take; napari takes in one move every 5 ms and the last one late."""
        native = self.canvas.native
        at = QPointF(pixel), QPointF(native.mapToGlobal(pixel))
        event = QMouseEvent(QEvent.Type.MouseMove, *at, Qt.MouseButton.NoButton, held, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(native, event)
        self.qtbot.wait(20)
        self.settle()

    def status(self) -> str:
        """What the status bar says of the place under the mouse."""
        return str(self.viewer._calc_status_from_cursor()[0]["coordinates"])

    def click(self, point_lps_mm: FloatArray) -> FloatArray:
        """Clicks a point on the slice that is shown; the point that was really clicked."""
        pixel = self.pixel(point_lps_mm)
        self.move(pixel)
        QTest.mousePress(self.canvas.native, _LEFT, Qt.KeyboardModifier.NoModifier, pixel)
        QTest.mouseRelease(self.canvas.native, _LEFT, Qt.KeyboardModifier.NoModifier, pixel)
        self.settle()
        return self.lps_at(pixel)

    def drag(self, start_lps_mm: FloatArray, end_lps_mm: FloatArray, steps: int = 5) -> None:
        start, end = self.pixel(start_lps_mm), self.pixel(end_lps_mm)
        native, none = self.canvas.native, Qt.KeyboardModifier.NoModifier
        self.move(start)
        QTest.mousePress(native, _LEFT, none, start)
        self.settle()
        for n in range(1, steps + 1):
            self.move(start + (end - start) * n / steps, _LEFT)
        QTest.mouseRelease(native, _LEFT, none, end)
        self.settle()

    def press(self, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
        QTest.keyClick(self.canvas.native, key, modifier)
        self.settle()
