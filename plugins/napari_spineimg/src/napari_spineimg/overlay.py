"""Shapes over a CT: a napari layer that costs little while nothing of it changes, and what draws into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Shapes
from spineimg.geometry import FloatArray

from napari_spineimg.fixed import fix
from napari_spineimg.roi_shapes import Flat, ShapeFrame
from napari_spineimg.room import Room
from napari_spineimg.scrolling import spare


class Overlay(Shapes):
    """napari slices and draws shapes, their highlight and their thumbnail anew at every slice, each as slow as the CT
    itself, and asks for each slice twice.

    Here a slice without shapes after another one without them is passed over until something is drawn again, a
    highlight is drawn only where something is held or was, and a thumbnail never. `about_to_slice` is called before
    another slice is looked up, to put shapes onto it, and tells whether there are any: `viewer.dims` tells when napari
    has drawn already.
    """

    about_to_slice: Callable[[], bool] | None = None

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self._dark, self._any = False, True
        self._at: tuple[Any, ...] | None = None
        self._behind: Any = None
        """The viewer's dims, while slices have been passed over."""
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

    def put(self, shapes: Sequence[FloatArray], old: Sequence[FloatArray]) -> None:
        """Moves those shapes that differ from the old ones, without drawing them.

        Setting `data` would make all shapes anew, which takes longer than all the rest of a scroll; napari offers the
        change of a single shape by its list of shapes alone.
        """
        with self._data_view.batched_updates():
            for number, (there, here) in enumerate(zip(shapes, old, strict=True)):
                if there is not here and not np.array_equal(there, here):
                    self._data_view.edit(number, there)

    def _slice_dims(self, dims: Any, force: bool = False) -> None:
        was, at = self._at, (dims.point, dims.margin_left, dims.margin_right, dims.order, dims.ndisplay, dims.units)
        if at == was and not force:
            return
        self._at = at
        bare, self._any = not self._any, self.about_to_slice is None or self.about_to_slice()
        if bare and not self._any and not force and was is not None and was[1:] == at[1:]:
            self._behind = dims
            return
        self._behind = None
        super()._slice_dims(dims, force)

    def set_view_slice(self) -> None:
        if self._behind is not None:
            dims, self._behind = self._behind, None
            self._slicing_state.set_slice_input_from_dims(dims, False)
        super().set_view_slice()

    def _set_highlight(self, force: bool = False) -> None:
        was, self._dark = self._dark, not self.selected_data and self._value[0] is None and self._drag_box is None
        if not (was and self._dark):
            super()._set_highlight(force)

    def _update_thumbnail(self, event: Any = None) -> None:
        pass


class SliceShapes:
    """Draws shapes into one layer over the room's CT, each flat on whichever of its slices is shown.

    look: of the layer. on_changed: called when someone else has changed the shapes, such as the reader's mouse.
    `drawn` are the arrays that were handed to napari, to tell by what has changed.
    """

    def __init__(self, room: Room, name: str, on_changed: Callable[[], None] | None = None, **look: Any) -> None:
        self._room, self._name, self._on_changed, self._look = room, name, on_changed, look
        self._flat = Flat((), ())
        self._drawing = False
        self.drawn: list[FloatArray] = []
        self.frame: ShapeFrame | None = None
        self.layer: Any = None
        self._turns = (room.viewer.dims.events.order, room.viewer.dims.events.ndisplay)
        for event in self._turns:
            event.connect(self._turned)

    # -- the layer ----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        viewer = self._room.viewer
        return self.layer is not None and viewer is not None and self.layer in viewer.layers

    def open(self) -> None:
        """Makes the layer, fixed to the room's CT; the active one stays active. It takes longer than to show the CT."""
        study, viewer = self._room.study, self._room.viewer
        if study is None:
            return
        self.close()
        self.frame = frame = ShapeFrame(study.display)
        active = viewer.layers.selection.active
        place = {"ndim": 3, "scale": frame.scale, "translate": frame.translate, "units": ("mm", "mm", "mm")}
        self.layer = layer = Overlay(name=self._name, **place, **self._look)
        layer.about_to_slice = self._about_to_slice
        spare(layer)
        viewer.add_layer(layer)
        self._room.lend_status(layer)
        fix(layer, frame.scale, frame.translate, self._room.said.emit)
        viewer.layers.selection.active = active
        layer.events.data.connect(self._changed)

    def close(self) -> None:
        """Takes the layer away."""
        layer, is_open = self.layer, self.is_open
        self.layer = self.frame = None
        self.drawn, self._flat = [], Flat((), ())
        if layer is not None:
            layer.events.data.disconnect(self._changed)
        if is_open:
            self._room.viewer.layers.remove(layer)

    def leave(self) -> None:
        """Takes the layer away for good."""
        self.close()
        if self._room.viewer is not None:
            for event in self._turns:
                event.disconnect(self._turned)

    def hold(self, mode: str | None) -> None:
        """Hands the mouse to this layer in a mode, or back to the CT."""
        if self.is_open and self._room.layer is not None:
            self._room.viewer.layers.selection.active = self.layer if mode else self._room.layer
            self.layer.mode = mode or "pan_zoom"

    # -- its shapes ---------------------------------------------------------------------------------------------------

    def show(self, flat: Flat, **look: Any) -> None:
        """These shapes in place of those that are there, with a look each."""
        with self._own():
            self._flat = flat
            self.drawn = self._on_slice()
            self.layer.show(self.drawn, **look)

    def move(self, flat: Flat) -> None:
        """As many shapes as there are, of the same kinds and looks, at other places."""
        with self._own():
            self._flat = flat
            drawn = self._on_slice()
            self.layer.put(drawn, self.layer.data)
            self.drawn = drawn
            self.layer.refresh()

    def again(self, event: Any = None) -> None:
        """Draws anew what was drawn, whatever became of it."""
        with self._own():
            self.drawn = self._on_slice()
            self.layer.data = self.drawn

    @contextmanager
    def _own(self) -> Iterator[None]:
        """While it lasts, changes of the shapes are the program's own."""
        self._drawing = True
        try:
            yield
        finally:
            self._drawing = False

    def _on_slice(self) -> list[FloatArray]:
        dims, frame = self._room.viewer.dims, self.frame
        if frame is None or dims.ndisplay == 3 or dims.ndim != 3:
            return self._flat.on(None, 0.0)
        across = dims.not_displayed[0]
        return self._flat.on(across, float((dims.point[across] - frame.translate[across]) / frame.scale[across]))

    def _about_to_slice(self) -> bool:
        """Puts what reaches the slice that is about to be shown onto it; whether anything does."""
        if self.is_open and not self._drawing and self.drawn and len(self.layer.data) == len(self.drawn):
            drawn = self._on_slice()
            self.layer.put(drawn, self.drawn)
            self.drawn = drawn
            return self._flat.reached
        return self._drawing or bool(self.drawn)

    def _turned(self, event: Any = None) -> None:
        """Draws all anew: the picture was turned."""
        if self.is_open and not self._drawing and self.drawn:
            self.again()

    def _changed(self, event: Any) -> None:
        action = str(getattr(event, "action", ""))
        if not self._drawing and self._on_changed is not None and action not in ("changing", "adding", "removing"):
            self._on_changed()
