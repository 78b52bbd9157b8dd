"""The reading room: what is attached to one viewer while it shows CTs.

Letters at the edges, window presets by key, patient mm and HU in the status bar, a crosshair that all planes share, and
the sessions of the readers. Dock widgets ask `room_of(viewer)` and talk to each other through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.components.overlays import TextOverlay
from psygnal import Signal
from spineimg.export.panels import letter
from spineimg.geometry import FloatArray
from spineimg.implants.model import ImplantScreen
from spineimg.rois import Ellipse

from napari_spineimg import windows
from napari_spineimg.display import lps_from_world, world_from_lps
from napari_spineimg.fixed import fix
from napari_spineimg.plane_view import Line
from napari_spineimg.scrolling import spare
from napari_spineimg.sessions import Sessions
from napari_spineimg.study import Study, middle_lps_mm, study_of

_BOX: dict[str, Any] = {"visible": False, "box": True, "box_color": "#101418"}
"""Words in the picture stand on black, whatever the theme."""
_UPRIGHT = {0: (0, 1, 2), 2: (2, 0, 1), 1: (1, 0, 2)}
"""Orders of the viewer's axes by the one that is scrolled through, the head up: axial, sagittal, coronal. The viewer's
button goes round in this order."""
_EDGES = ("middle_left", "middle_right", "top_center", "bottom_center")
_rooms: WeakKeyDictionary[Any, Room] = WeakKeyDictionary()


def room_of(viewer: Any) -> Room:
    """The room of a viewer, made at the first call."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # dock widgets are handed a proxy
    if viewer not in _rooms:
        _rooms[viewer] = Room(viewer)
    return _rooms[viewer]


class Room:
    """One viewer with its CTs. `study` is the one that is read; `point_lps_mm` the place of the crosshair."""

    study_changed = Signal()
    point_changed = Signal()
    clicked = Signal(object)
    """A click into a picture, (3,) LPS mm."""
    rois_changed = Signal()
    said = Signal(str)
    """A sentence for the reader."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = ref(viewer)
        self._moving = False
        self._order: tuple[int, ...] = viewer.dims.order
        self.study: Study | None = None
        self.layer: Any = None
        self.point_lps_mm: FloatArray | None = None
        self.sessions: Sessions | None = None
        self._sessions: dict[Study, Sessions] = {}
        """Those of every study that is open: going from one to another and back loses nothing."""
        self._last_read: dict[str, Study | None] = {}
        """By key: the study that was read last; None where that one was closed."""
        self.lines: list[Line] = []
        self.ellipses: dict[tuple[str, str], Ellipse] = {}
        self.current: str | None = None
        """What all planes draw: the ROIs by (level, position), and the level in hand."""
        self.editing: set[str] = set()
        """Who lets shapes be edited: then a click is neither for the crosshair nor for those who listen."""
        self.claimed: Callable[[FloatArray], None] | None = None
        """Takes the next clicks for itself, such as the two ends of a screw."""
        self._connect()
        for layer in viewer.layers:
            self._inserted_layer(layer)

    @property
    def viewer(self) -> Any:
        return self._viewer()

    @property
    def screen(self) -> ImplantScreen | None:
        """What the implant screen found on the study that is read."""
        return self.sessions.screen if self.sessions is not None else None

    # -- layers -------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        viewer = self.viewer
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.selection.events.active.connect(self._activated)
        viewer.dims.events.order.connect(self._turned)
        viewer.dims.events.ndisplay.connect(self._show_letters)
        viewer.scene.camera.events.orientation.connect(self._show_letters)
        viewer.dims.events.current_step.connect(self._scrolled)
        viewer.mouse_drag_callbacks.append(self._on_drag)
        for window in windows.WINDOWS:
            viewer.bind_key(window.key, self._window_key(window), overwrite=True)
        for edge in _EDGES:
            overlay = TextOverlay(position=edge, font_size=14, color="#ffd23f", **_BOX)
            viewer.canvas.overlays[f"spineimg_{edge}"] = overlay
        viewer.canvas.overlays["spineimg_facts"] = TextOverlay(
            position="top_left", font_size=11, color="#e8eef4", **_BOX
        )

    def _inserted(self, event: Any) -> None:
        self._inserted_layer(event.value)

    def _inserted_layer(self, layer: Any) -> None:
        study = study_of(layer)
        if study is None:
            return
        layer.get_status = self._status(study, layer.get_status)
        spare(layer)
        layer.events.contrast_limits.connect(self._show_facts)
        layer.events.visible.connect(self._seen)
        fix(layer, study.display.scale, study.display.translate, self.said.emit)
        study.cache.start()
        self._read_this(layer, study)

    def _removed(self, event: Any) -> None:
        study = study_of(event.value)
        if study is None:
            return
        left = [layer for layer in self.viewer.layers if study_of(layer) is not None]
        same = [layer for layer in left if study_of(layer) is study]
        if same:  # a layer that was duplicated
            self.layer = same[-1] if event.value is self.layer else self.layer
            return
        study.cache.close()
        self._sessions.pop(study, None)
        if self._last_read.get(study.key) is study:
            self._last_read[study.key] = None
        if study is self.study and left:
            self._read_this(left[-1], study_of(left[-1]))
        elif study is self.study:
            self._read_nothing()

    def _activated(self, event: Any) -> None:
        layer = event.value
        study = study_of(layer) if layer is not None else None
        if study is not None and study is not self.study:
            self._read_this(layer, study)

    def _seen(self, event: Any) -> None:
        """A CT whose eye is opened is the one that is read."""
        layer = event.source
        study = study_of(layer)
        if layer.visible and study is not None and study is not self.study:
            self._read_this(layer, study)

    def _read_this(self, layer: Any, study: Study | None) -> None:
        """Reads a CT. The others are hidden: what is seen is what is measured."""
        if study is None or study is self.study:
            return
        self.study, self.layer, self.lines, self.claimed = study, layer, [], None
        self.sessions = self._sessions[study] = self._desk(study)
        layer.visible = True
        for other in self.viewer.layers:
            if other is not layer and study_of(other) is not None:
                other.visible = False
        self.viewer.dims.order = (0, 1, 2)
        self.move_to(middle_lps_mm(study), scroll=True)
        self._show_letters()
        self.study_changed.emit()

    def _desk(self, study: Study) -> Sessions:
        """The sessions on a study. Of a scan that is open twice, the one that is turned to takes over what was entered
        on the other, measured on its own voxels: else the steps on one would overwrite those on the other."""
        own = self._sessions.get(study)
        elsewhere = self._last_read.get(study.key, study) is not study
        self._last_read[study.key] = study
        if own is not None and not elsewhere:
            return own
        fresh = Sessions(study)
        if own is None or not fresh.restored:
            return own or fresh
        fresh.active = own.active
        if own.screen is not None:
            fresh.take_screen(own.screen, own.screened_names)
        return fresh

    def _read_nothing(self) -> None:
        self.study = self.layer = self.point_lps_mm = self.sessions = None
        self._show_letters()
        self.study_changed.emit()

    # -- place --------------------------------------------------------------------------------------------------------

    def move_to(self, point_lps_mm: FloatArray, *, scroll: bool = True) -> None:
        """Moves the crosshair, and the viewer's slice with it."""
        if self.study is None:
            return
        self.point_lps_mm = np.asarray(point_lps_mm, dtype=np.float64)
        self.study.cache.look_at(self.study.slice_near(self.point_lps_mm))
        if scroll:
            place = world_from_lps(self.point_lps_mm)
            self._moving = True
            try:
                for axis in self.viewer.dims.not_displayed:
                    self._scroll_to(axis, float(place[axis]))
            finally:
                self._moving = False
        self.point_changed.emit()

    def _scroll_to(self, axis: int, place: float) -> None:
        """Shows the displayed slice nearest to a place: between two slices napari finds no shape under the mouse."""
        extent = self.viewer.dims.range[axis]
        self.viewer.dims.set_current_step(axis, round((place - extent.start) / extent.step))

    def _scrolled(self, event: Any = None) -> None:
        """Takes the crosshair along when the viewer scrolls."""
        if self._moving or self.study is None or self.point_lps_mm is None or self.viewer.dims.ndim != 3:
            return
        world = world_from_lps(self.point_lps_mm)
        for axis in self.viewer.dims.not_displayed:
            world[axis] = self.viewer.dims.point[axis]
        self.move_to(lps_from_world(world), scroll=False)

    def _on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        """A press and release without a move between is a click."""
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            if np.abs(np.array(event.pos) - start).max() > 3:
                return
            yield
        plain = self.study is not None and event.button in (1, None) and not event.modifiers
        if plain and self.viewer.dims.ndisplay == 2 and (self.claimed or not self.editing):
            self.click(lps_from_world(np.array(event.position)[-3:]))

    def click(self, point_lps_mm: FloatArray) -> None:
        """A click into any picture: the crosshair goes there, and who claimed clicks, else who listens, is told."""
        self.move_to(point_lps_mm)
        (self.claimed or self.clicked.emit)(np.asarray(point_lps_mm, dtype=np.float64))

    def show_rois(self, ellipses: dict[tuple[str, str], Ellipse], current: str | None) -> None:
        """Lets all planes draw these ROIs."""
        self.ellipses, self.current = ellipses, current
        self.rois_changed.emit()

    def show_lines(self, lines: list[Line]) -> None:
        """Lets all planes draw these lines beside the ROIs."""
        self.lines = lines
        self.rois_changed.emit()

    def _turned(self, event: Any = None) -> None:
        """napari's button rolls the axes, which lays every second plane on its side: the next upright one is shown."""
        dims = self.viewer.dims
        was, self._order = self._order, dims.order
        if self.study is not None and dims.ndim == 3 and dims.order == (was[-1], *was[:-1]):
            axes = list(_UPRIGHT)
            after = _UPRIGHT[axes[(axes.index(was[0]) + 1) % 3]]
            if was == _UPRIGHT[was[0]] and dims.order != after:
                dims.order = after
                return
        self._show_letters()

    # -- what is written into the picture -----------------------------------------------------------------------------

    def show_window(self, window: windows.Window) -> None:
        """Shows the CT in a window."""
        if self.layer is not None:
            windows.apply(self.layer, window)

    def _window_key(self, window: windows.Window) -> Callable[[Any], None]:
        def press(viewer: Any) -> None:
            self.show_window(window)

        press.__doc__ = f"CT window: {window.name}"
        return press

    def letters(self) -> tuple[str, str, str, str] | None:
        """Letters of the left, right, upper and lower edge; None when no plane of a CT is shown."""
        dims = self.viewer.dims
        if self.study is None or dims.ndisplay != 2 or dims.ndim != 3:
            return None
        down, right = (lps_from_world(np.eye(3)[axis]) for axis in dims.displayed)
        vertical, horizontal = (str(one) for one in self.viewer.scene.camera.orientation2d)
        down = down if vertical == "down" else -down
        right = right if horizontal == "right" else -right
        return letter(-right), letter(right), letter(-down), letter(down)

    def _show_letters(self, event: Any = None) -> None:
        letters = self.letters()
        for edge, text in zip(_EDGES, letters or ("",) * 4, strict=True):
            overlay = self.viewer.canvas.overlays[f"spineimg_{edge}"]
            overlay.text = text
            overlay.visible = bool(text)
        self._show_facts()

    def _show_facts(self, event: Any = None) -> None:
        overlay = self.viewer.canvas.overlays["spineimg_facts"]
        dims = self.viewer.dims
        if self.study is None or self.point_lps_mm is None or dims.ndisplay != 2 or dims.ndim != 3:
            overlay.visible = False
            return
        shown = "" if self.study.display.exact else "\nresampled for display"
        if len(self._sessions) > 1:
            shown += f"\n{self.study.name[:40]}"
        overlay.text = f"{windows.words(self.layer.contrast_limits)}{shown}"
        overlay.visible = True

    def status_words(self, point_lps_mm: FloatArray) -> tuple[str, str]:
        """(place, HU) of the original voxel under a point, in words."""
        x, y, z = point_lps_mm
        place = f"LPS {x:.1f} {y:.1f} {z:.1f} mm"
        found = None if self.study is None else self.study.hu_at(point_lps_mm)
        if found is None:
            return place, "outside the scan"
        (k, r, c), hu = found
        value = "no measurement" if np.isnan(hu) else f"{hu:.0f} HU"
        return f"{place}  voxel {k} {r} {c}", value

    def _status(self, study: Study, plain: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
        """napari has no hook for what a layer says in the status bar; its own answer is completed here."""

        def get_status(position: Any = None, **keywords: Any) -> dict[str, str]:
            status = plain(None)
            if position is not None and self.viewer.dims.ndisplay == 2:
                place, value = self.status_words(lps_from_world(np.asarray(position)[-3:]))
                status |= {"coords": place, "value": value, "coordinates": f"{place}   {value}"}
            return status

        return get_status

    def lend_status(self, layer: Any) -> None:
        """Lets another layer, such as the ROIs', say the same in the status bar."""
        if self.study is not None:
            layer.get_status = self._status(self.study, layer.get_status)
