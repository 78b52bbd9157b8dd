"""Screws and rods as lines on the slices they pass, coloured by verdict; their ends can be dragged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from spineimg.geometry import FloatArray
from spineimg.implants.model import ImplantScreen, Loosening

from napari_spineimg.overlay import SliceShapes
from napari_spineimg.roi_shapes import Flat
from napari_spineimg.room import Room

NAME = "Implants"
ROD_COLOUR = "#b9c4cf"


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
        self._screws: list[tuple[str, FloatArray]] = []
        """(id, (head, tip) in LPS mm)"""
        self._shapes = SliceShapes(room, NAME, self._changed, opacity=0.9)

    def leave(self) -> None:
        """Takes the layer away for good."""
        self._shapes.leave()

    def draw(self, screen: ImplantScreen | None, chosen: str | None) -> None:
        """Shows a screen; the chosen screw is thicker."""
        if self._room.study is None or screen is None:
            self._shapes.close()
            return
        if not self._shapes.is_open:
            self._shapes.open()
        frame = self._shapes.frame
        if frame is None:
            return
        self._screws = [(one.id, np.array([one.shaft.head_lps_mm, one.shaft.tip_lps_mm])) for one in screen.screws]
        lines = [ends for _, ends in self._screws] + [np.array(rod.points_lps_mm) for rod in screen.rods]
        is_rod = [False] * len(screen.screws) + [True] * len(screen.rods)
        flat = Flat([frame.data(line) for line in lines], [str(number) for number in range(len(lines))], is_rod)
        widths = [4.0 if name == chosen else 2.0 for name, _ in self._screws] + [1.5] * len(screen.rods)
        colours = [colour_of(one.loosening) for one in screen.screws] + [ROD_COLOUR] * len(screen.rods)
        kinds = ["path" if rod else "line" for rod in is_rod]
        self._shapes.show(flat, shape_type=kinds, edge_color=colours, edge_width=widths)

    def adjust(self, on: bool) -> None:
        """Lets the reader take hold of the ends of a screw."""
        self._shapes.hold("direct" if on else None)

    def _changed(self) -> None:
        """The mouse was released, or shapes were deleted or pasted."""
        frame, layer = self._shapes.frame, self._shapes.layer
        if frame is None:
            return
        if len(layer.data) != len(self._shapes.drawn):
            self._say("Screws are added by two clicks, and removed in the table.")
            self._shapes.again()
            return
        displayed = list(self._room.viewer.dims.displayed)
        for (name, ends), drawn, new in zip(self._screws, self._shapes.drawn, layer.data, strict=False):
            if not np.array_equal(np.asarray(new, dtype=np.float32), drawn):
                moved = frame.data(ends)
                moved[:, displayed] += (np.asarray(new, dtype=np.float64) - drawn)[:, displayed]
                head, tip = frame.lps(moved)
                self._on_moved(name, head, tip)
                return
        self._shapes.again()


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
