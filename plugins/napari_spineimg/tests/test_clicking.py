"""Bodies that their neighbours must speak for: asked in the background, given up, overtaken. And shapes that follow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scans
from qtpy.QtCore import Qt
from spineimg.notes import Note
from spineimg.vertebra.click import Placed

from napari_spineimg import clicking

CENTER = scans.body_center("L2")


class Neighbours:
    """Makes every body unclear by itself; neighbours answer as the core does once `go` is set."""

    def __init__(self, core: Callable[..., Placed]) -> None:
        self._core = core
        self.go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, volume: Any, level: str, point: Any, *, alone: bool = False) -> Placed:
        if alone:
            return Placed((), (Note("uncertain", "no vertebral body was found: its wall is unclear", level),), None)
        self.asked.append(level)
        assert threading.current_thread() is not threading.main_thread()
        assert self.go.wait(20)
        return self._core(volume, level, point)


@pytest.fixture
def unclear(reading: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    neighbours = Neighbours(clicking.placed_at)
    monkeypatch.setattr(clicking, "placed_at", neighbours)
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.level.setCurrentText("L2")
    hand.scroll_to(CENTER)
    hand.click(CENTER)
    assert widget.busy.isVisible()
    assert "neighbours" in widget.busy.words.text()
    yield hand, widget, neighbours
    neighbours.go.set()


def test_neighbours_are_asked_while_the_viewer_stays_usable(unclear: Any) -> None:
    """The slice scrolls while they are asked, the number comes by itself. Planted: asked in the window's own thread."""
    hand, widget, neighbours = unclear
    step = hand.viewer.dims.current_step[0]
    hand.viewer.dims.set_current_step(0, step + 3)
    hand.settle()
    assert widget.session.state.levels == ()
    neighbours.go.set()
    hand.qtbot.waitUntil(lambda: widget.session.state.levels == ("L2",), timeout=20_000)
    assert not widget.busy.isVisible()
    assert neighbours.asked == ["L2"]
    assert widget.table.item(0, 2).text() == f"{widget.session.vertebra('L2').hu.mean_hu:.1f}"
    assert hand.viewer.dims.current_step[0] == step + 3


@pytest.mark.parametrize("how", ["another click", "the other reader", "cancelled", "closed", "entered by hand"])
def test_an_answer_that_comes_too_late_is_dropped(unclear: Any, how: str) -> None:
    """Planted: the answer for one reader entered in the other's session; a level overwritten that was placed by hand
    meanwhile; a cancelled click entered after all."""
    hand, widget, neighbours = unclear
    first = widget.session
    if how == "another click":
        widget.measure("L3", scans.body_center("L3"))
    elif how == "the other reader":
        widget.reader.setCurrentIndex(1)
        widget.reader.activated.emit(1)
    elif how == "cancelled":
        widget.busy.stop.click()
        assert widget.by_hand.isVisible()
        assert "given up" in widget.message.text()
    elif how == "closed":
        hand.viewer.layers.clear()
    else:
        first.place_by_hand("L2", CENTER)
    mine = first.state
    neighbours.go.set()
    if how == "another click":
        hand.qtbot.waitUntil(lambda: first.state is not mine, timeout=20_000)
        assert first.state.levels == ("L3",)
    else:
        widget.clicks.neighbours.close() if how != "entered by hand" else hand.qtbot.waitUntil(
            lambda: not widget.busy.isVisible(), timeout=20_000
        )
        hand.settle()
        assert first.state is mine
        assert widget.session is first or not widget.session or widget.session.state.levels == ()
    assert not widget.busy.isVisible()


def coloured(hand: Any, name: str) -> int:
    """Pixels of the canvas in the colour of the shapes of a layer."""
    picture = hand.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    colour = np.array(hand.viewer.layers[name].edge_color[0][:3]) * 255
    return int(np.count_nonzero(np.abs(picture - colour).max(axis=-1) < 30))


def test_shapes_are_drawn_on_every_slice_that_they_reach(reading: Any) -> None:
    """Slice by slice, as napari's slider goes. Planted: shapes put onto the slice when napari had drawn it already, so
    that a tilted ellipse was seen on the one slice where it was entered; nothing drawn after an empty slice."""
    hand = reading("anisotropic")
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    names = ("ROIs", "Bodies")
    layers = [hand.viewer.layers[name] for name in names]
    hand.scroll_to(CENTER)
    middle = hand.viewer.dims.current_step[0]
    seen: dict[str, list[tuple[bool, int]]] = {name: [] for name in names}
    for step in [*range(middle - 9, middle + 10), *range(middle + 9, middle - 10, -3)]:
        hand.viewer.dims.set_current_step(0, step)
        hand.settle()
        for name, layer in zip(names, layers, strict=True):
            seen[name].append((len(layer._view_indices) > 0, coloured(hand, name)))
    for name in names:
        bare = [count for reached, count in seen[name] if not reached]
        shown = [count for reached, count in seen[name] if reached]
        assert len(bare) > 2
        assert len(shown) > 2
        assert min(shown) > max(bare) + 40


def test_a_held_ellipse_shows_its_handles(reading: Any) -> None:
    """Highlights are drawn where something is held, and go when it is let go. Planted: never drawn."""
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    mid = widget.session.ellipses("L2")[1].center_lps_mm
    hand.scroll_to(mid)
    heard: list[int] = []
    rois = hand.viewer.layers["ROIs"]
    rois.events.highlight.connect(lambda event=None: heard.append(len(rois.selected_data)))
    hand.viewer.dims.set_current_step(0, hand.viewer.dims.current_step[0] + 1)
    hand.scroll_to(mid)
    assert heard == []
    hand.press(Qt.Key.Key_E, Qt.KeyboardModifier.ShiftModifier)
    hand.click(mid)
    assert heard
    assert heard[-1] == 1
    hand.press(Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    rois.selected_data = set()
    assert heard[-1] == 0
    assert rois.as_layer_data_tuple()[2] == "shapes"
