"""The ROIs as a shapes layer: drawn from the session, and handed back to it when the reader moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.rois import Ellipse

from napari_spineimg.overlay import SliceShapes
from napari_spineimg.roi_shapes import Flat, corners, edited
from napari_spineimg.room import Room

ROI_NAME = "ROIs"
OUTLINE_NAME = "Bodies"
ROI_COLOUR = "#19d3f3"
CURRENT_COLOUR = "#ffd23f"
OUTLINE_COLOUR = "#ff9f40"
Key = tuple[str, str]
"""(level, position) of one ellipse."""


class RoiLayer:
    """Keeps one shapes layer and the session's ellipses the same.

    on_drag(level, ellipses): while the mouse is down. on_edit(level, ellipses): when it is released.
    on_stuck(why): the mouse is down, and what it does cannot be measured. on_nothing(why): it was released, and nothing
    is to be entered; what was shown meanwhile is to be shown no more.
    """

    def __init__(
        self,
        room: Room,
        on_drag: Callable[[str, tuple[Ellipse, ...]], None],
        on_edit: Callable[[str, tuple[Ellipse, ...]], None],
        on_nothing: Callable[[str], None],
        on_stuck: Callable[[str], None],
    ) -> None:
        self._room, self._on_drag, self._on_edit = room, on_drag, on_edit
        self._on_nothing, self._on_stuck = on_nothing, on_stuck
        self._shown: dict[Key, Ellipse] = {}
        self._current: str | None = None
        self._adjusting = False
        look: dict[str, Any] = {"face_color": "transparent", "edge_width": 0.6, "opacity": 1.0}
        self._bodies = SliceShapes(room, OUTLINE_NAME, edge_color=OUTLINE_COLOUR, **look)
        self._rois = SliceShapes(room, ROI_NAME, self._changed, edge_color=ROI_COLOUR, **look)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def owns(self, layer: Any) -> bool:
        """Whether a layer is one of those that show the ROIs."""
        return layer is not None and layer in (self._rois.layer, self._bodies.layer)

    def prepare(self) -> None:
        """Makes the layers before they are needed, so that the first click need not."""
        if not self._rois.is_open:
            self._open()

    def _open(self) -> None:
        if self._room.study is None:
            return
        self.close()
        self._bodies.open()
        self._bodies.layer.editable = False
        self._rois.open()
        self._rois.layer.mouse_drag_callbacks.append(self._follow)
        self.adjust(self._adjusting)

    def close(self) -> None:
        """Takes the layers away."""
        self._shown = {}
        for shapes in (self._bodies, self._rois):
            shapes.close()

    def leave(self) -> None:
        """Takes the layers away for good."""
        self.close()
        for shapes in (self._bodies, self._rois):
            shapes.leave()

    def draw(self, ellipses: dict[Key, Ellipse], current: str | None, rings_lps_mm: list[FloatArray]) -> None:
        """Shows these ellipses, those of the current level in another colour, and outlines of bodies, each (n, 3)."""
        if ellipses and not self._rois.is_open:
            self._open()  # not yet, or someone removed the layer, and ROIs without a picture of them must not be
        frame = self._rois.frame
        if frame is None or not self._rois.is_open:
            return
        held, same = self.selected(), list(ellipses) == list(self._shown) and current == self._current
        self._shown, self._current = dict(ellipses), current
        flat = Flat([corners(frame, one) for one in ellipses.values()], [level for level, _ in ellipses])
        if same and self._rois.layer.shape_type == ["ellipse"] * len(ellipses):
            self._rois.move(flat)
        else:
            colours = [CURRENT_COLOUR if level == current else ROI_COLOUR for level, _ in ellipses]
            self._rois.show(flat, shape_type="ellipse", edge_color=colours, face_color="transparent")
        # Closed paths: a polygon's face is never seen and takes 10 ms to be cut into triangles.
        rings = [frame.data(np.concatenate([ring, ring[:1]])) for ring in rings_lps_mm]
        self._draw_rings(Flat(rings, [""] * len(rings)), len(rings))
        if held is not None:
            self.select(held)

    def _draw_rings(self, flat: Flat, count: int) -> None:
        if not self._bodies.is_open:
            return
        if count == len(self._bodies.layer.data):
            self._bodies.move(flat)
        else:
            self._bodies.show(flat, shape_type="path", edge_color=OUTLINE_COLOUR)

    # -- the reader's hand --------------------------------------------------------------------------------------------

    def adjust(self, on: bool) -> None:
        """Lets the reader take hold of ellipses, or click into the picture."""
        self._adjusting = on
        self._rois.hold("select" if on else None)

    def selected(self) -> Key | None:
        """The ellipse that is held."""
        held = sorted(self._rois.layer.selected_data) if self._rois.is_open else []
        keys = list(self._shown)
        return keys[held[0]] if held and held[0] < len(keys) else None

    def select(self, key: Key) -> None:
        if self._rois.is_open and key in self._shown:
            self._rois.layer.selected_data = {list(self._shown).index(key)}

    def _edits(self) -> dict[str, tuple[Ellipse, ...]]:
        """Levels whose shapes differ from what was drawn, with their ellipses. Raises RoiError."""
        frame, layer = self._rois.frame, self._rois.layer
        if frame is None or len(layer.data) != len(self._shown):
            raise RoiError("ROIs are added and removed in the table, not in the layer")
        displayed = tuple(self._room.viewer.dims.displayed)
        if len(displayed) != 2:
            raise RoiError("ROIs are moved in a plane, not in the 3D view")
        new = dict(self._shown)
        for (key, old), drawn, shape in zip(self._shown.items(), self._rois.drawn, layer.data, strict=True):
            if not np.array_equal(np.asarray(shape, dtype=np.float32), drawn):
                new[key] = edited(frame, old, drawn, shape, displayed)
        levels = {level for (level, position), one in new.items() if one is not self._shown[level, position]}
        return {name: tuple(one for (level, _), one in new.items() if level == name) for name in levels}

    def _follow(self, layer: Any, event: Any) -> Iterator[None]:
        """Tells of every move while the mouse is down."""
        yield
        while event.type == "mouse_move":
            try:
                edits = self._edits()
            except RoiError as error:
                edits = {}
                self._on_stuck(str(error))
            for level, ellipses in edits.items():
                self._on_drag(level, ellipses)
            yield

    def _changed(self) -> None:
        """The mouse was released, or shapes were deleted or pasted."""
        why = ""
        try:
            edits = self._edits()
        except RoiError as error:
            edits, why = {}, str(error)
        for level, ellipses in edits.items():
            self._on_edit(level, ellipses)
        if not edits:
            self._on_nothing(why)
