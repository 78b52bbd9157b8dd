"""The ROIs as a shapes layer: drawn from the session, and handed back to it when the reader moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.rois import Ellipse

from napari_spineimg.overlay import overlay, when_turned
from napari_spineimg.roi_shapes import ShapeFrame, corners, edited, flattened, put_on_slice
from napari_spineimg.room import Room

ROI_NAME = "ROIs"
OUTLINE_NAME = "Bodies"
ROI_COLOUR = "#19d3f3"
CURRENT_COLOUR = "#ffd23f"
OUTLINE_COLOUR = "#ff9f40"
_NOWHERE = -1e9
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
        self._drawn: list[FloatArray] = []
        self._rings: list[FloatArray] = []
        self._drawn_rings: list[FloatArray] = []
        self._drawing = self._adjusting = False
        self.layer: Any = None
        self.outlines: Any = None
        self._frame: ShapeFrame | None = None
        self._end = when_turned(room, self._follow_view)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the layers before they are needed, so that the first click need not."""
        if not self._open:
            self.open()

    def open(self) -> None:
        """Makes the layers for the room's study. It takes longer than to show the CT."""
        study = self._room.study
        if study is None:
            return
        self.close()
        self._frame = frame = ShapeFrame(study.display)
        look: dict[str, Any] = {"face_color": "transparent", "edge_width": 0.6, "opacity": 1.0}
        look |= {"edge_color": OUTLINE_COLOUR}
        self.outlines = overlay(self._room, frame, OUTLINE_NAME, self._rings_to_slice, **look)
        look |= {"edge_color": ROI_COLOUR}
        self.layer = overlay(self._room, frame, ROI_NAME, self._ellipses_to_slice, **look)
        self.outlines.editable = False
        self.layer.events.data.connect(self._changed)
        self.layer.mouse_drag_callbacks.append(self._follow)
        self.adjust(self._adjusting)

    def close(self) -> None:
        """Takes the layers away."""
        viewer = self._room.viewer
        layers = self.layer, self.outlines
        if self.layer is not None:
            self.layer.events.data.disconnect(self._changed)
        self.layer = self.outlines = self._frame = None
        self._shown, self._drawn, self._rings, self._drawn_rings = {}, [], [], []
        for layer in layers:
            if layer is not None and viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)

    def leave(self) -> None:
        """Takes the layers away for good."""
        self.close()
        self._end()

    @property
    def _open(self) -> bool:
        viewer = self._room.viewer
        return self.layer is not None and viewer is not None and self.layer in viewer.layers

    def draw(self, ellipses: dict[Key, Ellipse], current: str | None, rings_lps_mm: list[FloatArray]) -> None:
        """Shows these ellipses, those of the current level in another colour, and outlines of bodies, each (n, 3)."""
        if ellipses and not self._open:
            self.open()  # not yet, or someone removed the layer, and ROIs without a picture of them must not be
        if not self._open or self._frame is None:
            return
        held, same = self.selected(), list(ellipses) == list(self._shown) and current == self._current
        self._shown, self._current = dict(ellipses), current
        # Closed paths: a polygon's face is never seen and takes 10 ms to be cut into triangles.
        self._rings = [self._frame.data(np.concatenate([ring, ring[:1]])) for ring in rings_lps_mm]
        drawn = self._flat_ellipses()
        self._drawing = True
        try:
            if same and self.layer.shape_type == ["ellipse"] * len(drawn):
                put_on_slice(self.layer, drawn, self.layer.data)
                self.layer.refresh()
            else:
                self._draw_all(drawn)
            self._drawn = drawn
            self._draw_rings()
        finally:
            self._drawing = False
        if held is not None:
            self.select(held)

    def _draw_all(self, drawn: list[FloatArray]) -> None:
        colours = [CURRENT_COLOUR if level == self._current else ROI_COLOUR for level, _ in self._shown]
        self.layer.show(drawn, shape_type="ellipse", edge_color=colours, face_color="transparent")

    def _draw_rings(self) -> None:
        if self.outlines not in self._room.viewer.layers:
            return
        self._drawn_rings = self._flat_rings()
        if len(self._drawn_rings) == len(self.outlines.data):
            put_on_slice(self.outlines, self._drawn_rings, self.outlines.data)
            self.outlines.refresh()
            return
        self.outlines.show(self._drawn_rings, shape_type="path", edge_color=OUTLINE_COLOUR)

    def _flat(self, shapes: Sequence[FloatArray], bodies: Sequence[str]) -> list[FloatArray]:
        """Shapes as they are drawn on the slice that is shown: of each body that one which is nearest to it.

        Steep planes of one body reach the same slice; all of them at once would be a tangle.
        """
        dims = self._room.viewer.dims
        if dims.ndisplay == 3 or dims.ndim != 3 or self._frame is None:
            return [flattened(shape, None, 0.0) for shape in shapes]
        across = dims.not_displayed[0]
        at = float((dims.point[across] - self._frame.translate[across]) / self._frame.scale[across])
        away = [abs(float(shape[:, across].min() + shape[:, across].max()) / 2 - at) for shape in shapes]
        nearest: dict[str, int] = {}
        for number, body in enumerate(bodies):
            if body not in nearest or away[number] < away[nearest[body]]:
                nearest[body] = number
        return [
            flattened(shape, across, at if nearest[body] == number else _NOWHERE)
            for number, (shape, body) in enumerate(zip(shapes, bodies, strict=True))
        ]

    def _flat_ellipses(self) -> list[FloatArray]:
        if self._frame is None:
            return []
        return self._flat(
            [corners(self._frame, one) for one in self._shown.values()], [level for level, _ in self._shown]
        )

    def _flat_rings(self) -> list[FloatArray]:
        return self._flat(self._rings, [""] * len(self._rings))

    def _ellipses_to_slice(self) -> None:
        """Puts what reaches the slice that is about to be shown onto it."""
        if self._open and self._shown and not self._drawing:
            drawn = self._flat_ellipses()
            if len(self.layer.data) == len(drawn) == len(self._drawn):
                put_on_slice(self.layer, drawn, self._drawn)
                self._drawn = drawn

    def _rings_to_slice(self) -> None:
        if self.outlines in self._room.viewer.layers and self._rings and not self._drawing:
            rings = self._flat_rings()
            if len(self.outlines.data) == len(rings) == len(self._drawn_rings):
                put_on_slice(self.outlines, rings, self._drawn_rings)
                self._drawn_rings = rings

    def _follow_view(self, event: Any = None) -> None:
        """Draws all anew: the picture was turned."""
        if not self._open or self._frame is None or self._drawing or not self._shown:
            return
        held = self.selected()
        self._drawing = True
        try:
            self._drawn = self._flat_ellipses()
            self.layer.data = self._drawn
            self._draw_rings()
        finally:
            self._drawing = False
        if held is not None:
            self.select(held)

    # -- the reader's hand --------------------------------------------------------------------------------------------

    def adjust(self, on: bool) -> None:
        """Lets the reader take hold of ellipses, or click into the picture."""
        self._adjusting = on
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
            except RoiError as error:
                edits = {}
                self._on_stuck(str(error))
            for level, ellipses in edits.items():
                self._on_drag(level, ellipses)
            yield

    def _changed(self, event: Any) -> None:
        """The mouse was released, or shapes were deleted or pasted."""
        action = str(getattr(event, "action", ""))
        if self._drawing or action in ("changing", "adding", "removing"):
            return
        why = ""
        try:
            edits = self._edits()
        except RoiError as error:
            edits, why = {}, str(error)
        for level, ellipses in edits.items():
            self._on_edit(level, ellipses)
        if not edits:
            self._on_nothing(why)
