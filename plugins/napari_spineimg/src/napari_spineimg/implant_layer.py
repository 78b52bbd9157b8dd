"""Screws and rods as lines on the slices they pass, coloured by verdict; their ends can be dragged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from spineimg.geometry import FloatArray
from spineimg.implants.model import ImplantScreen, Loosening

from napari_spineimg.overlay import overlay, when_turned
from napari_spineimg.roi_shapes import ShapeFrame, flattened, put_on_slice
from napari_spineimg.room import Room

NAME = "Implants"
ROD_COLOUR = "#b9c4cf"
_ROD_SLICES = 2.0
"""On an axial slice a rod is drawn as the piece of it that lies within so many slices. Engineering choice."""


def colour_of(loosening: Loosening) -> str:
    return {
        Loosening.PRESENT: "#ff5a4d",
        Loosening.INDETERMINATE: "#ffb300",
        Loosening.ABSENT: "#4db3ff",
        Loosening.NOT_ASSESSED: "#c58cff",
    }[loosening]


class ImplantLayer:
    """One shapes layer. on_moved(id, head_lps_mm, tip_lps_mm): when the reader has dragged an end of a screw."""

    def __init__(
        self, room: Room, on_moved: Callable[[str, FloatArray, FloatArray], None], say: Callable[[str], None]
    ) -> None:
        self._room, self._on_moved, self._say = room, on_moved, say
        self._screws: list[tuple[str, FloatArray, str]] = []
        self._rods: list[FloatArray] = []
        self._drawn: list[FloatArray] = []
        self._frame: ShapeFrame | None = None
        self._drawing = False
        self.layer: Any = None
        self._end = when_turned(room, self._follow_view)

    @property
    def _open(self) -> bool:
        viewer = self._room.viewer
        return self.layer is not None and viewer is not None and self.layer in viewer.layers

    def close(self) -> None:
        """Takes the layer away."""
        if self._open:
            self.layer.events.data.disconnect(self._changed)
            self._room.viewer.layers.remove(self.layer)
        self.layer, self._screws, self._rods, self._drawn = None, [], [], []

    def leave(self) -> None:
        """Takes the layer away for good."""
        self.close()
        self._end()

    def draw(self, screen: ImplantScreen | None, chosen: str | None) -> None:
        """Shows a screen; the chosen screw is thicker."""
        study = self._room.study
        if study is None or screen is None:
            self.close()
            return
        if not self._open:
            self._make()
        self._frame = ShapeFrame(study.display)
        self._screws = [
            (one.id, np.array([one.shaft.head_lps_mm, one.shaft.tip_lps_mm]), colour_of(one.loosening))
            for one in screen.screws
        ]
        self._rods = [np.array(rod.points_lps_mm) for rod in screen.rods]
        self._drawn = self._flat()
        widths = [4.0 if name == chosen else 2.0 for name, _, _ in self._screws] + [1.5] * len(self._rods)
        colours = [colour for _, _, colour in self._screws] + [ROD_COLOUR] * len(self._rods)
        kinds = ["line"] * len(self._screws) + ["path"] * len(self._rods)
        self._drawing = True
        try:
            self.layer.show(self._drawn, shape_type=kinds, edge_color=colours, edge_width=widths)
        finally:
            self._drawing = False

    def adjust(self, on: bool) -> None:
        """Lets the reader take hold of the ends of a screw."""
        if self._open and self._room.layer is not None:
            self._room.viewer.layers.selection.active = self.layer if on else self._room.layer
            self.layer.mode = "direct" if on else "pan_zoom"

    def _make(self) -> None:
        study = self._room.study
        if study is not None:
            self.layer = overlay(self._room, ShapeFrame(study.display), NAME, self._follow_slice, opacity=0.9)
            self.layer.events.data.connect(self._changed)

    def _flat(self) -> list[FloatArray]:
        """All lines as they are drawn on the slice that is shown."""
        frame, dims = self._frame, self._room.viewer.dims
        if frame is None:
            return []
        across = dims.not_displayed[0] if dims.ndisplay == 2 and dims.ndim == 3 else None
        at = 0.0 if across is None else float((dims.point[across] - frame.translate[across]) / frame.scale[across])
        screws = [flattened(frame.data(ends), across, at) for _, ends, _ in self._screws]
        rods = [frame.data(rod) for rod in self._rods]
        if across == 0:
            rods = [_piece(rod, at) for rod in rods]
        return screws + [flattened(rod, across, at) for rod in rods]

    def _follow_slice(self) -> None:
        """Puts what reaches the slice that is about to be shown onto it."""
        if self._open and not self._drawing and self._drawn and len(self.layer.data) == len(self._drawn):
            drawn = self._flat()
            put_on_slice(self.layer, drawn, self._drawn)
            self._drawn = drawn

    def _follow_view(self, event: Any = None) -> None:
        """Draws all anew: the picture was turned."""
        if not self._open or self._drawing or not self._drawn:
            return
        self._drawing = True
        try:
            self._drawn = self._flat()
            self.layer.data = self._drawn
        finally:
            self._drawing = False

    def _changed(self, event: Any) -> None:
        action = str(getattr(event, "action", ""))
        if self._drawing or self._frame is None or action in ("changing", "adding", "removing"):
            return
        if len(self.layer.data) != len(self._drawn):
            self._say("Screws are added by two clicks, and removed in the table.")
            self._redraw()
            return
        displayed = list(self._room.viewer.dims.displayed)
        for (name, ends, _), drawn, new in zip(self._screws, self._drawn, self.layer.data, strict=False):
            if not np.array_equal(np.asarray(new, dtype=np.float32), drawn):
                moved = self._frame.data(ends)
                moved[:, displayed] += (np.asarray(new, dtype=np.float64) - drawn)[:, displayed]
                head, tip = self._frame.lps(moved)
                self._on_moved(name, head, tip)
                return
        self._redraw()

    def _redraw(self) -> None:
        self._drawing = True
        try:
            self.layer.data = self._drawn
        finally:
            self._drawing = False


def _piece(rod: FloatArray, at: float) -> FloatArray:
    """(2, 3) the part of a rod, (n, 3) in slices and pixels, around slice `at`; its end where it does not reach it."""
    along = rod[np.argsort(rod[:, 0])]
    ends = np.clip([at - _ROD_SLICES, at + _ROD_SLICES], along[0, 0], along[-1, 0])
    return np.stack([np.interp(ends, along[:, 0], along[:, axis]) for axis in range(3)], axis=1)


def lines_of(screen: ImplantScreen, chosen: str | None) -> Sequence[tuple[FloatArray, str, float]]:
    """(points, colour, width) of screws and rods, for pictures that are not napari's."""
    screws = [
        (
            np.array([one.shaft.head_lps_mm, one.shaft.tip_lps_mm]),
            colour_of(one.loosening),
            3.0 if one.id == chosen else 1.6,
        )
        for one in screen.screws
    ]
    return [*screws, *((np.array(rod.points_lps_mm), ROD_COLOUR, 1.2) for rod in screen.rods)]
