"""Shapes over a CT that cost little while nothing of them changes, and what both layers of shapes have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from napari.layers import Shapes
from spineimg.geometry import FloatArray

from napari_spineimg.fixed import fix
from napari_spineimg.roi_shapes import ShapeFrame
from napari_spineimg.room import Room


class Overlay(Shapes):
    """napari draws shapes, their highlight and their thumbnail anew at every slice, each as slow as the CT itself.

    Here a slice without shapes after another one without them is not drawn, a highlight only where something is held
    or was, and a thumbnail never; the extent is looked up only where shapes changed. `about_to_slice` is called before
    another slice is looked up, to put shapes onto it: `viewer.dims` tells when napari has drawn already.
    """

    about_to_slice: Callable[[], None] | None = None

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self._empty = self._dark = self._scrolling = False
        self._at: object = None
        super().__init__(*args, **keywords)

    @property
    def _type_string(self) -> str:
        return "shapes"

    def show(self, shapes: Sequence[FloatArray], **look: Any) -> None:
        """These shapes in place of those that are there, drawn once."""
        with self._block_refresh():
            if len(self.data):
                self.data = []
            if shapes:
                self.add(shapes, **look)
        self.refresh()

    def _slice_dims(self, dims: Any, force: bool = False) -> None:
        at = (dims.point, dims.order, dims.ndisplay)
        if at != self._at and self.about_to_slice is not None:
            self._at = at
            self.about_to_slice()
        self._scrolling = True
        super()._slice_dims(dims, force)
        self._scrolling = False

    def _refresh_sync(self, *, data_displayed: bool = False, extent: bool = False, **keywords: bool) -> None:
        if data_displayed:
            was, self._empty = self._empty, not len(self._view_indices)
            data_displayed = not (was and self._empty)
        super()._refresh_sync(data_displayed=data_displayed, extent=extent and not self._scrolling, **keywords)

    def _set_highlight(self, force: bool = False) -> None:
        was, self._dark = self._dark, not self.selected_data and self._value[0] is None and self._drag_box is None
        if not (was and self._dark):
            super()._set_highlight(force)

    def _update_thumbnail(self, event: Any = None) -> None:
        pass


def overlay(room: Room, frame: ShapeFrame, name: str, about_to_slice: Callable[[], None], **look: Any) -> Overlay:
    """A layer of shapes over the room's CT, fixed to it; the active layer stays active."""
    viewer = room.viewer
    active = viewer.layers.selection.active
    place = {"ndim": 3, "scale": frame.scale, "translate": frame.translate, "units": ("mm", "mm", "mm")}
    layer = Overlay(name=name, **place, **look)
    layer.about_to_slice = about_to_slice
    viewer.add_layer(layer)
    room.lend_status(layer)
    fix(layer, frame.scale, frame.translate, room.said.emit)
    viewer.layers.selection.active = active
    return layer


def when_turned(room: Room, act: Callable[[Any], None]) -> Callable[[], None]:
    """Calls `act` whenever the picture is turned, until what this gives is called."""
    dims = room.viewer.dims.events
    for event in (dims.order, dims.ndisplay):
        event.connect(act)

    def end() -> None:
        if room.viewer is not None:
            for event in (dims.order, dims.ndisplay):
                event.disconnect(act)

    return end
