"""Dock widget: sagittal, coronal and a third plane beside the viewer's, all with one crosshair."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QDockWidget, QHBoxLayout, QLabel, QSplitter, QVBoxLayout, QWidget
from spineimg.export.panels import View, coronal, facing, sagittal, sample
from spineimg.geometry import FloatArray
from spineimg.rois import POSITIONS

from napari_spineimg.display import lps_from_world, world_from_lps
from napari_spineimg.docked import Docked, dock_and_window
from napari_spineimg.plane_view import Line, PlaneView
from napari_spineimg.roi_layer import CURRENT_COLOUR, ROI_COLOUR
from napari_spineimg.roi_shapes import outline
from napari_spineimg.room import room_of
from napari_spineimg.study import Study

_AXIAL = "axial"
_WORLD_AXIS = {"sagittal": 2, "coronal": 1, _AXIAL: 0}
_ROI_VIEW_MM = (90.0, 90.0)
_REFRESH_MS = 250
_WIDTH_CHARS = 38
_HEIGHT_PX = 420


class LinkedPlanes(Docked):
    """Clicking or scrolling in one plane moves the others and the viewer."""

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.room = room_of(napari_viewer)
        self.planes = {name: PlaneView(name) for name in ("sagittal", "coronal", _AXIAL)}
        self._shown: dict[str, tuple[float, ...]] = {}
        self.third = QComboBox()
        self.third.addItem("axial", _AXIAL)
        for position in POSITIONS:
            self.third.addItem(f"ROI plane: {position}", position)
        self.third.setToolTip("What the third picture shows: the axial plane, or the plane of one ROI of the level")
        self._build()
        self._timer = QTimer(self)
        self._timer.setInterval(_REFRESH_MS)
        self._timer.timeout.connect(self._refresh)
        self._connect()
        self._study_changed()

    def _build(self) -> None:
        upper = QSplitter(Qt.Orientation.Horizontal)
        upper.addWidget(self.planes["sagittal"])
        upper.addWidget(self.planes["coronal"])
        whole = QSplitter(Qt.Orientation.Vertical)
        whole.addWidget(upper)
        whole.addWidget(self.planes[_AXIAL])
        row = QHBoxLayout()
        row.addWidget(QLabel("Third picture"))
        row.addWidget(self.third, 1)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(row)
        layout.addWidget(whole, 1)
        self.scroll_to(inner, _WIDTH_CHARS)

    def _connect(self) -> None:
        room = self.room
        room.study_changed.connect(self._study_changed)
        room.point_changed.connect(self._point_changed)
        room.rois_changed.connect(self._draw_lines)
        self.third.currentIndexChanged.connect(self._third_chosen)
        for name, plane in self.planes.items():
            plane.clicked.connect(room.click)
            plane.pointed.connect(partial(self._pointed))
            plane.scrolled.connect(partial(self._scroll, name))

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _study_changed(self) -> None:
        self._shown = {}
        for plane in self.planes.values():
            plane.show_picture(None, None)
            plane.show_point(None)
        if self.room.study is None:
            self._timer.stop()
            return
        layer = self.room.layer
        layer.events.contrast_limits.connect(self._window_changed)
        self._window_changed()
        self._timer.start()
        self._point_changed()
        self._draw_lines()

    def _window_changed(self, event: Any = None) -> None:
        if self.room.layer is not None:
            low, high = self.room.layer.contrast_limits
            for plane in self.planes.values():
                plane.show_window((float(low), float(high)))

    def _point_changed(self) -> None:
        for name in self.planes:
            self._show(name)

    def _refresh(self) -> None:
        """Draws again what was drawn while slices were still being read."""
        study = self.room.study
        if study is None or study.cache.done:
            self._timer.stop()
        for name in self.planes:
            self._again(name)

    def _visibility_changed(self, visible: bool) -> None:
        super()._visibility_changed(visible)
        if visible:
            self._point_changed()

    def _again(self, name: str) -> None:
        self._shown.pop(name, None)
        self._show(name)

    def _show(self, name: str) -> None:
        """Draws a plane through the crosshair, sampling it only where the crosshair left the one that is shown."""
        study, point = self.room.study, self.room.point_lps_mm
        plane = self.planes[name]
        if study is None or point is None or not self.in_sight:
            return
        roi_view = self._roi_view() if name == _AXIAL else None
        place = float(world_from_lps(point)[_WORLD_AXIS[name]])
        key = (place,) if roi_view is None else (*roi_view.center_lps_mm, *roi_view.right_lps, *roi_view.down_lps)
        key = tuple(round(float(part), 3) for part in key)
        if self._shown.get(name) != key:
            self._shown[name] = key
            view = roi_view or _whole_view(name, study, point)
            picture = _resampled(study, view) if roi_view is not None else _whole_picture(name, study, view, place)
            plane.title = name if roi_view is None else f"{self.room.current} {self._third_position()} plane"
            plane.show_picture(view, picture)
        plane.show_point(point)

    def _roi_view(self) -> View | None:
        """The plane of the ROI that the third picture is to show; None for an axial picture."""
        if self.third.currentData() == _AXIAL:
            return None
        ellipse = self.room.ellipses.get((self.room.current or "", self.third.currentData()))
        return None if ellipse is None else facing(ellipse.normal_lps, ellipse.center_lps_mm, _ROI_VIEW_MM)

    def _third_chosen(self, _: int) -> None:
        self._again(_AXIAL)
        self._draw_lines()

    def _draw_lines(self) -> None:
        """ROIs in every plane: outlines as they project, those of the level in hand in another colour."""
        for name, plane in self.planes.items():
            lines = []
            last = sorted(self.room.ellipses.items(), key=lambda one: one[0][0] == self.room.current)
            for (level, position), ellipse in last:
                own = level == self.room.current
                if name == _AXIAL and not (own and position == self._third_position()):
                    continue
                label = level if position == "mid" and name != _AXIAL else ""
                colour = CURRENT_COLOUR if own else ROI_COLOUR
                lines.append(Line(outline(ellipse), colour, closed=True, label=label))
            plane.show_lines([*lines, *(self.room.lines if name != _AXIAL else ())])
        if self._third_position() != _AXIAL:
            self._show(_AXIAL)

    def _third_position(self) -> str:
        return str(self.third.currentData())

    # -- the reader's hand --------------------------------------------------------------------------------------------

    def _pointed(self, point_lps_mm: FloatArray) -> None:
        self.room.move_to(point_lps_mm)

    def _scroll(self, name: str, steps: int) -> None:
        study, point, view = self.room.study, self.room.point_lps_mm, self.planes[name].view
        if study is None or point is None or view is None:
            return
        normal = np.cross(view.right_lps, view.down_lps)
        step = study.display.slice_mm if name == _AXIAL else min(study.volume.geometry.spacing_mm[1:])
        self.room.move_to(point - steps * step * normal)

    def take_place(self) -> None:
        """Beside the layer list, so that the HU widget keeps the other side for itself."""
        beside_layers(self)

    def leave(self) -> None:
        """Shows no more."""
        self._timer.stop()
        room = self.room
        room.study_changed.disconnect(self._study_changed, missing_ok=True)
        room.point_changed.disconnect(self._point_changed, missing_ok=True)
        room.rois_changed.disconnect(self._draw_lines, missing_ok=True)


def beside_layers(widget: QWidget) -> None:
    """Moves a widget's dock to the left, as a tab over the layer list."""
    dock, window = dock_and_window(widget)
    if dock is None or window is None:
        return
    lists = [one for one in window.findChildren(QDockWidget) if one.objectName() == "layer list"]
    if lists and dock not in window.tabifiedDockWidgets(lists[0]):
        window.tabifyDockWidget(lists[0], dock)
        window.resizeDocks([dock], [_HEIGHT_PX], Qt.Orientation.Vertical)
        dock.raise_()


def _whole_view(name: str, study: Study, point: FloatArray) -> View:
    """The plane through a point, as large as the scan."""
    low, high = _extent(study)
    axis = _WORLD_AXIS[name]
    middle = (low + high) / 2
    middle[axis] = float(world_from_lps(point)[axis])
    size = high - low + np.abs(study.display.scale)
    center = lps_from_world(middle)
    if name == "sagittal":
        return sagittal(center, (float(size[1]), float(size[0])))
    if name == "coronal":
        return coronal(center, (float(size[2]), float(size[0])))
    return facing(np.array([0.0, 0.0, 1.0]), center, (float(size[2]), float(size[1])))


def _whole_picture(name: str, study: Study, view: View, place: float) -> npt.NDArray[np.float32]:
    """(rows, columns) HU of a whole view at a world coordinate. What the viewer has resampled serves here too."""
    if study.display.exact:
        return study.loaded_plane(_WORLD_AXIS[name], place)[0]
    shown = study.display.data.kept_axial(place) if name == _AXIAL else None
    return shown if shown is not None else _resampled(study, view)


def _resampled(study: Study, view: View) -> npt.NDArray[np.float32]:
    return sample(study.loaded_volume(), [view], [min(study.volume.geometry.spacing_mm[1:])], 0.0)[0]


def _extent(study: Study) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest world coordinates of the centres of what is displayed."""
    ends = np.stack([study.display.translate, study.display.translate + study.display.scale * (_count(study) - 1)])
    return ends.min(axis=0), ends.max(axis=0)


def _count(study: Study) -> FloatArray:
    return np.asarray(study.display.data.shape, dtype=np.float64)
