"""The ROIs as a shapes layer: drawn from the session, and handed back to it when the reader moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.rois import Ellipse

from napari_spineimg.roi_shapes import ShapeFrame, corners, edited, flattened
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
    """

    def __init__(
        self,
        room: Room,
        on_drag: Callable[[str, tuple[Ellipse, ...]], None],
        on_edit: Callable[[str, tuple[Ellipse, ...]], None],
        say: Callable[[str], None],
    ) -> None:
        self._room, self._on_drag, self._on_edit, self._say = room, on_drag, on_edit, say
        self._shown: dict[Key, Ellipse] = {}
        self._drawn: list[FloatArray] = []
        self._rings: list[FloatArray] = []
        self._drawing = False
        self.layer: Any = None
        self.outlines: Any = None
        self._frame: ShapeFrame | None = None
        dims = room.viewer.dims.events
        for event in (dims.current_step, dims.order, dims.ndisplay):
            event.connect(self._follow_view)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Makes the layers for the room's study."""
        study, viewer = self._room.study, self._room.viewer
        if study is None:
            return
        self.close()
        self._frame = ShapeFrame(study.display)
        keywords = {
            "ndim": 3,
            "scale": self._frame.scale,
            "translate": self._frame.translate,
            "units": ("mm", "mm", "mm"),
            "face_color": "transparent",
            "edge_width": 0.6,
            "opacity": 1.0,
        }
        active = viewer.layers.selection.active
        self.outlines = viewer.add_shapes(name=OUTLINE_NAME, edge_color=OUTLINE_COLOUR, **keywords)
        self.layer = viewer.add_shapes(name=ROI_NAME, edge_color=ROI_COLOUR, **keywords)
        self.outlines.editable = False
        self._room.lend_status(self.layer)
        self._room.lend_status(self.outlines)
        self.layer.events.data.connect(self._changed)
        self.layer.mouse_drag_callbacks.append(self._follow)
        viewer.layers.selection.active = active

    def close(self) -> None:
        """Takes the layers away."""
        viewer = self._room.viewer
        if self.layer is not None:
            self.layer.events.data.disconnect(self._changed)
        for layer in (self.layer, self.outlines):
            if layer is not None and viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
        self.layer = self.outlines = self._frame = None
        self._shown, self._drawn, self._rings = {}, [], []

    @property
    def _open(self) -> bool:
        viewer = self._room.viewer
        return self.layer is not None and viewer is not None and self.layer in viewer.layers

    def draw(self, ellipses: dict[Key, Ellipse], current: str | None, rings_lps_mm: list[FloatArray]) -> None:
        """Shows these ellipses, those of the current level in another colour, and outlines of bodies, each (n, 3)."""
        if not self._open or self._frame is None:
            return
        held = self.selected()
        self._shown = dict(ellipses)
        # Closed paths: a polygon's face is never seen and takes 10 ms to be cut into triangles.
        self._rings = [self._frame.data(np.concatenate([ring, ring[:1]])) for ring in rings_lps_mm]
        self._drawn = [self._flat(corners(self._frame, one)) for one in ellipses.values()]
        colours = [CURRENT_COLOUR if level == current else ROI_COLOUR for level, _ in ellipses]
        self._drawing = True
        try:
            self.layer.data = []
            if self._drawn:
                self.layer.add(self._drawn, shape_type="ellipse", edge_color=colours, face_color="transparent")
            self._draw_rings()
        finally:
            self._drawing = False
        if held is not None:
            self.select(held)

    def _draw_rings(self) -> None:
        if self.outlines not in self._room.viewer.layers:
            return
        rings = [self._flat(ring) for ring in self._rings]
        if len(rings) == len(self.outlines.data):
            if rings:
                self.outlines.data = rings
            return
        self.outlines.data = []
        if rings:
            self.outlines.add(rings, shape_type="path", edge_color=OUTLINE_COLOUR)

    def _flat(self, data: FloatArray) -> FloatArray:
        """Points as they are drawn on the slice that is shown."""
        dims = self._room.viewer.dims
        if dims.ndisplay == 3 or dims.ndim != 3 or self._frame is None:
            return flattened(data, None, 0.0)
        across = dims.not_displayed[0]
        return flattened(
            data, across, float((dims.point[across] - self._frame.translate[across]) / self._frame.scale[across])
        )

    def _follow_view(self, event: Any = None) -> None:
        """Draws tilted ellipses on the slice that is shown now."""
        if not self._open or self._frame is None or self._drawing or not self._shown:
            return
        drawn = [self._flat(corners(self._frame, one)) for one in self._shown.values()]
        if all(np.array_equal(new, old) for new, old in zip(drawn, self._drawn, strict=True)):
            return
        held = self.selected()
        self._drawing = True
        try:
            self._drawn = drawn
            self.layer.data = drawn
            self._draw_rings()
        finally:
            self._drawing = False
        if held is not None:
            self.select(held)

    # -- the reader's hand --------------------------------------------------------------------------------------------

    def adjust(self, on: bool) -> None:
        """Lets the reader take hold of ellipses, or click into the picture."""
        if self.layer is None or self._room.layer is None:
            return
        self._room.viewer.layers.selection.active = self.layer if on else self._room.layer
        self.layer.mode = "select" if on else "pan_zoom"

    def selected(self) -> Key | None:
        """The ellipse that is held."""
        held = sorted(self.layer.selected_data) if self._open else []
        keys = list(self._shown)
        return keys[held[0]] if held and held[0] < len(keys) else None

    def select(self, key: Key) -> None:
        if self._open and key in self._shown:
            self.layer.selected_data = {list(self._shown).index(key)}

    def _edits(self) -> dict[str, tuple[Ellipse, ...]]:
        """Levels whose shapes differ from what was drawn, with their ellipses. Raises RoiError."""
        if self._frame is None or len(self.layer.data) != len(self._shown):
            raise RoiError("ROIs are added and removed in the table, not in the layer")
        displayed = tuple(self._room.viewer.dims.displayed)
        if len(displayed) != 2:
            raise RoiError("ROIs are moved in a plane, not in the 3D view")
        new = dict(self._shown)
        for (key, old), drawn, shape in zip(self._shown.items(), self._drawn, self.layer.data, strict=True):
            if not np.array_equal(np.asarray(shape, dtype=np.float32), drawn):
                new[key] = edited(self._frame, old, drawn, shape, displayed)
        levels = {level for (level, position), one in new.items() if one is not self._shown[level, position]}
        return {name: tuple(one for (level, _), one in new.items() if level == name) for name in levels}

    def _follow(self, layer: Any, event: Any) -> Iterator[None]:
        """Tells of every move while the mouse is down."""
        yield
        while event.type == "mouse_move":
            try:
                edits = self._edits()
            except RoiError:
                edits = {}  # said when the mouse is released
            for level, ellipses in edits.items():
                self._on_drag(level, ellipses)
            yield

    def _changed(self, event: Any) -> None:
        """The mouse was released, or shapes were deleted or pasted."""
        action = str(getattr(event, "action", ""))
        if self._drawing or action in ("changing", "adding", "removing"):
            return
        try:
            edits = self._edits()
        except RoiError as error:
            self._say(str(error))
            edits = {}
        for level, ellipses in edits.items():
            self._on_edit(level, ellipses)
        if not edits:
            self._restore()

    def _restore(self) -> None:
        """Draws again what the session holds."""
        held = self.selected()
        self.draw(dict(self._shown), held[0] if held else None, [])
