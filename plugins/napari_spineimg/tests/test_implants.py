"""The implant screen: in its own thread, cancelled, walked through and corrected. A stand-in screens at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scans
from spineimg.errors import SeriesError
from spineimg.implants.given import GivenScrew
from spineimg.implants.model import Grade, Halo, HaloMap, ImplantScreen, Loosening, Rod, Screw, Shaft

from napari_spineimg.implant_layer import colour_of
from napari_spineimg.screening import Screening
from napari_spineimg.screw_views import across_view, along_views

CENTER = scans.body_center("L2")


def halo_map() -> HaloMap:
    depths, angles = np.linspace(2, 38, 19), np.arange(0, 360, 15.0)
    width = 0.4 + 1.4 * (np.cos(np.radians(angles))[None] > 0.5) * (depths[:, None] > 15)
    return HaloMap(
        depths, angles, width, 0.1 + 0 * width, np.broadcast_to(depths[:, None] > 6, width.shape).astype(float)
    )


def shaft(side: float) -> Shaft:
    head, tip = CENTER + [side * 22, 38, 2], CENTER + [side * 8, 0, -1]
    return Shaft(tuple(head), tuple(tip), 6.5, 7000.0, clipped=False)


def as_shaft(mark: GivenScrew) -> Shaft:
    return Shaft(tuple(mark.head_lps_mm), tuple(mark.tip_lps_mm), 6.5, 7000.0, clipped=False)


class StandIn:
    """Gives two screws, or those that were marked; waits at half of its way while `hold` is set."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.marks: list[tuple[GivenScrew, ...]] = []

    def __call__(self, volume: Any, rois: Any, screws: Sequence[GivenScrew], progress: Any) -> ImplantScreen:
        self.marks.append(tuple(screws))
        progress(0.5, "measuring")
        while self.hold.is_set():
            threading.Event().wait(0.005)
            progress(0.5, "measuring")
        shafts = [as_shaft(mark) for mark in screws] or [shaft(1.0), shaft(-1.0)]
        calls = [Loosening.PRESENT, Loosening.NOT_ASSESSED, Loosening.ABSENT]
        found = tuple(
            Screw(f"screw-{n + 1}", one, Halo(True, 1.4, 1.9, 0.4, 20.0, (1.1, 1.7), map=halo_map()), calls[n % 3])
            for n, one in enumerate(shafts)
        )
        rod = Rod("left", (tuple(CENTER + [24, 45, 60]), tuple(CENTER + [24, 45, -60])), 5.5)
        return ImplantScreen(found, (rod,), (), Grade(1, "Silva type 1", reasons=("screw-1: loose",)))


@pytest.fixture
def screening(reading: Any) -> Any:
    hand = reading()
    widget = hand.open("Implant screen")
    widget.run.function = stand_in = StandIn()

    def run(act: Any = widget.start.click) -> None:
        with hand.qtbot.waitSignal(widget.run.finished, timeout=20_000):
            act()
        hand.settle()

    return hand, widget, stand_in, run


def test_screws_are_shown_corrected_and_added(screening: Any) -> None:
    """Planted: the other end moved; an added screw that replaces the others."""
    hand, widget, stand_in, run = screening
    run()
    assert widget.table.rowCount() == 2
    assert widget.table.item(0, 1).text() == "▼ present"
    layer = hand.viewer.layers["Implants"]
    assert len(layer.data) == 3
    assert "Silva type 1" in widget.grade.text()
    widget.table.selectRow(1)
    assert widget.chosen == "screw-2"
    middle = (np.array(shaft(-1.0).head_lps_mm) + shaft(-1.0).tip_lps_mm) / 2
    np.testing.assert_allclose(hand.room.point_lps_mm, middle)
    assert widget.views.across.view is not None

    # The tip is dragged in the axial view; its height stays.
    old = np.array(shaft(1.0).tip_lps_mm)
    hand.scroll_to(CENTER)
    widget.move.setChecked(True)
    hand.settle()
    layer.selected_data = {0}
    run(lambda: hand.drag(old, old + [4.0, 3.0, 0.0]))
    head, tip = stand_in.marks[-1][0].head_lps_mm, stand_in.marks[-1][0].tip_lps_mm
    np.testing.assert_allclose(tip, old + [4.0, 3.0, 0.0], atol=0.8)
    assert tip[2] == pytest.approx(old[2], abs=1e-4)
    np.testing.assert_allclose(head, shaft(1.0).head_lps_mm, atol=1e-4)
    widget.move.setChecked(False)

    # Two clicks add a screw beside the others; they measure no vertebra.
    widget.add.click()
    hand.click(CENTER + [10.0, 20.0, 0.0])
    run(lambda: hand.click(CENTER + [-10.0, 0.0, 0.0]))
    assert len(stand_in.marks[-1]) == 3
    np.testing.assert_allclose(stand_in.marks[-1][2].tip_lps_mm[:2], (CENTER + [-10.0, 0.0, 0.0])[:2], atol=0.8)
    assert widget.table.rowCount() == 3
    assert hand.room.claimed is None

    # A run that is cancelled leaves what was there.
    stand_in.hold.set()
    widget.start.click()
    hand.qtbot.waitUntil(lambda: widget.bar.value() == 500, timeout=10_000)
    with hand.qtbot.waitSignal(widget.run.cancelled, timeout=10_000):
        widget.stop.click()
    hand.settle()
    assert "Cancelled" in widget.message.text()
    assert widget.table.rowCount() == 3
    assert widget.start.isEnabled()

    # Closing the scan under a run stops it.
    widget.start.click()
    assert widget.run.running
    hand.viewer.layers.clear()
    assert not widget.run.running
    assert widget.table.rowCount() == 0


def test_bad_scan_is_one_sentence(qtbot: Any) -> None:
    run = Screening()

    def refuse(*_: Any) -> ImplantScreen:
        raise SeriesError("the series was refused")

    run.function = refuse
    with qtbot.waitSignal(run.failed, timeout=5000) as said:
        run.start(None, None, ())
    assert said.args == ["the series was refused"]
    run.close()


def test_views_hold_the_shaft() -> None:
    """Both views along contain the axis; across is at right angles. Planted: head and tip taken from one view only."""
    one = shaft(1.0)
    head, tip = np.array(one.head_lps_mm), np.array(one.tip_lps_mm)
    flat, upright = along_views(one)
    for view in (flat, upright):
        normal = np.cross(view.right_lps, view.down_lps)
        assert abs((head - view.center_lps_mm) @ normal) < 1e-9
        assert abs((tip - view.center_lps_mm) @ normal) < 1e-9
    assert upright.letters[2:] == ("H", "F")
    across = across_view(one, 0.25)
    np.testing.assert_allclose(np.abs(np.cross(across.right_lps, across.down_lps) @ one.direction_lps), 1.0)
    np.testing.assert_allclose(across.center_lps_mm, head + 0.25 * (tip - head))
    assert across.letters[2:] == ("H", "F")


def test_verdicts_differ_in_colour() -> None:
    assert len({colour_of(one) for one in Loosening}) == len(Loosening)
