"""A picture of one plane, drawn by Qt: crosshair, lines, letters. It knows where each of its pixels lies in LPS mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget
from spineimg.export.panels import View
from spineimg.geometry import FloatArray

from napari_spineimg.windows import BONE

_CROSS = QColor("#7fd36b")
_LETTERS = QColor("#ffd23f")
_NOTHING = QColor("#101418")


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """points_lps_mm: (n, 3), drawn as seen from the plane's front. label: written beside its first point."""

    points_lps_mm: FloatArray
    colour: str
    closed: bool = False
    width: float = 1.6
    label: str = ""


class PlaneView(QWidget):
    """One plane. Clicking and dragging tell LPS mm, the wheel tells steps along the line of sight."""

    clicked = Signal(object)
    pointed = Signal(object)
    """The crosshair was dragged here, (3,) LPS mm; `clicked` follows only where the mouse did not move."""
    scrolled = Signal(int)

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = title
        self._view: View | None = None
        self._hu: npt.NDArray[np.float32] | None = None
        self._image: QImage | None = None
        self._limits_hu = BONE.limits_hu
        self._lines: Sequence[Line] = ()
        self._point: FloatArray | None = None
        self._pressed: QPointF | None = None
        self.setMinimumSize(120, 120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip(f"{title}: click or drag to move the crosshair, turn the wheel to go through the planes")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        return QSize(260, 260)

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def view(self) -> View | None:
        return self._view

    def show_picture(self, view: View | None, hu: npt.NDArray[np.float32] | None) -> None:
        """hu: (rows, columns) of the view, nan where there is nothing."""
        self._view, self._hu, self._image = view, hu, None
        self.update()

    def show_window(self, limits_hu: tuple[float, float]) -> None:
        self._limits_hu, self._image = limits_hu, None
        self.update()

    def show_lines(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self.update()

    def show_point(self, point_lps_mm: FloatArray | None) -> None:
        self._point = point_lps_mm
        self.update()

    # -- places -------------------------------------------------------------------------------------------------------

    def _frame(self) -> tuple[float, float, float]:
        """(left, top, pixels a mm) of the picture in the widget."""
        width, height = self._view.size_mm if self._view is not None else (1.0, 1.0)
        zoom = min(self.width() / width, self.height() / height)
        return (self.width() - zoom * width) / 2, (self.height() - zoom * height) / 2, zoom

    def pixel_of(self, point_lps_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 3) LPS mm -> (..., 2) x and y in the widget."""
        if self._view is None:
            raise ValueError("no plane is shown")
        left, top, zoom = self._frame()
        at = self._view.on_view(point_lps_mm) + np.array(self._view.size_mm) / 2
        return np.asarray(at * zoom + (left, top))

    def lps_of(self, x: float, y: float) -> FloatArray:
        """A place in the widget -> (3,) LPS mm."""
        if self._view is None:
            raise ValueError("no plane is shown")
        left, top, zoom = self._frame()
        right, down = (np.array([x - left, y - top]) / zoom) - np.array(self._view.size_mm) / 2
        return np.asarray(self._view.center_lps_mm + right * self._view.right_lps + down * self._view.down_lps)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def paintEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        painter = QPainter(self)
        painter.fillRect(self.rect(), _NOTHING)
        if self._view is not None and self._hu is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            left, top, zoom = self._frame()
            width, height = self._view.size_mm
            painter.drawImage(QRectF(left, top, zoom * width, zoom * height), self._grey())
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self._draw_cross(painter)
            for line in self._lines:
                self._draw_line(painter, line)
            self._draw_labels(painter)
            self._draw_letters(painter)
        painter.end()

    def _grey(self) -> QImage:
        if self._image is None and self._hu is not None:
            low, high = self._limits_hu
            scaled = (np.nan_to_num(self._hu, nan=low) - low) * (255.0 / (high - low))
            grey = np.ascontiguousarray(np.clip(scaled, 0, 255).astype(np.uint8))
            rows, columns = grey.shape
            self._image = QImage(grey.tobytes(), columns, rows, columns, QImage.Format.Format_Grayscale8).copy()
        return self._image if self._image is not None else QImage()

    def _draw_cross(self, painter: QPainter) -> None:
        if self._point is None:
            return
        x, y = self.pixel_of(self._point)
        gap = 9.0
        painter.setPen(QPen(_CROSS, 1.0))
        for start, end in (
            ((0, y), (x - gap, y)),
            ((x + gap, y), (self.width(), y)),
            ((x, 0), (x, y - gap)),
            ((x, y + gap), (x, self.height())),
        ):
            painter.drawLine(QPointF(*start), QPointF(*end))

    def _draw_line(self, painter: QPainter, line: Line) -> None:
        places = self.pixel_of(line.points_lps_mm)
        points = QPolygonF([QPointF(float(x), float(y)) for x, y in places])
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for colour, width in ((QColor(0, 0, 0, 160), line.width + 1.6), (QColor(line.colour), line.width)):
            painter.setPen(QPen(colour, width))
            if line.closed:
                painter.drawPolygon(points)
            else:
                painter.drawPolyline(points)

    def _draw_labels(self, painter: QPainter) -> None:
        """Names beside their lines, the last line's first; a name that would cover another is left out."""
        metrics = painter.fontMetrics()
        taken = [QRectF(0, 0, 1.15 * metrics.horizontalAdvance(self.title) + 10, metrics.height())]
        for line in reversed([one for one in self._lines if one.label]):
            places = self.pixel_of(line.points_lps_mm)
            x, y = places[int(np.argmin(places[:, 0]))]
            width = metrics.horizontalAdvance(line.label)
            box = QRectF(float(x) - width - 6, float(y) + 4 - metrics.ascent(), width, 0.8 * metrics.height())
            if not any(box.intersects(other) for other in taken):
                taken.append(box)
                self._write(painter, box.x(), float(y) + 4, line.label, QColor(line.colour))

    def _draw_letters(self, painter: QPainter) -> None:
        if self._view is None:
            return
        font = QFont(self.font())
        font.setBold(True)
        painter.setFont(font)
        metrics = painter.fontMetrics()
        middle_x, middle_y = self.width() / 2, self.height() / 2
        left, right, up, down = self._view.letters
        self._write(painter, 5, middle_y, left, _LETTERS)
        self._write(painter, self.width() - metrics.horizontalAdvance(right) - 5, middle_y, right, _LETTERS)
        self._write(painter, middle_x, metrics.ascent() + 3, up, _LETTERS)
        self._write(painter, middle_x, self.height() - 5, down, _LETTERS)
        self._write(painter, 5, metrics.ascent() + 3, self.title, QColor("#e8eef4"))

    @staticmethod
    def _write(painter: QPainter, x: float, y: float, words: str, colour: QColor) -> None:
        painter.setPen(QColor(0, 0, 0, 200))
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            painter.drawText(QPointF(x + dx, y + dy), words)
        painter.setPen(colour)
        painter.drawText(QPointF(x, y), words)

    # -- the mouse ----------------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        if event.button() == Qt.MouseButton.LeftButton and self._view is not None:
            self._pressed = event.position()

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        if self._pressed is not None and (event.position() - self._pressed).manhattanLength() > 3:
            self.pointed.emit(self.lps_of(event.position().x(), event.position().y()))

    def mouseReleaseEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        if self._pressed is None:
            return
        if (event.position() - self._pressed).manhattanLength() <= 3:
            self.clicked.emit(self.lps_of(self._pressed.x(), self._pressed.y()))
        self._pressed = None

    def wheelEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        turn = event.angleDelta().y()
        if turn and self._view is not None:
            self.scrolled.emit(1 if turn > 0 else -1)
            event.accept()
