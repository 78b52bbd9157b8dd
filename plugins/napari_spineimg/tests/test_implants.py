"""The implant screen: in its own thread, cancelled, walked through and corrected. A stand-in screens at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import scans
from qtpy.QtWidgets import QApplication
from spineimg.anatomy import Construct
from spineimg.errors import SeriesError
from spineimg.export.implants import SCREW_COLUMNS, screw_rows
from spineimg.export.json import result_to_dict
from spineimg.export.table import write_table
from spineimg.implants.given import GivenScrew
from spineimg.implants.model import Grade, Halo, HaloMap, ImplantScreen, Loosening, Rod, Screw, Shaft
from spineimg.results import CaseResult

from napari_spineimg.implant_layer import colour_of
from napari_spineimg.screening import Screening
from napari_spineimg.screw_views import across_view, along_views, one_mm_line

CENTER = scans.body_center("L2")


def halo_map() -> HaloMap:
    depths, angles = np.linspace(2, 38, 19), np.arange(0, 360, 15.0)
    width = 0.4 + 1.4 * (np.cos(np.radians(angles))[None] > 0.5) * (depths[:, None] > 15)
    return HaloMap(depths, angles, np.where(depths[:, None] > 6, width, np.nan), 0.1 + 0 * width)


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
        level = rois.vertebrae[0].level if rois is not None else None
        halo = Halo(True, 1.4, 1.9, 0.4, 20.0, (1.1, 1.7), map=halo_map())
        found = tuple(Screw(f"screw-{n + 1}", one, halo, calls[n % 3], level=level) for n, one in enumerate(shafts))
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


def test_screws_and_vertebrae_agree(screening: Any, tmp_path: Any) -> None:
    """Ends are proposed from the screws, a vertebra that bears one is never flagged, changed names are said to be old,
    and the files are the command line's. Planted: LIV flagged though screws lie in it; levels of the run before."""
    hand, widget, _, run = screening
    hu = hand.open("Vertebral HU")
    hu.measure("L2", CENTER)
    run()
    assert widget.propose.text() == "Take UIV L2 and LIV L2 from the screws"
    widget.propose.click()
    assert not widget.propose.isVisibleTo(widget)
    assert hu.session.state.rois.construct == Construct("L2", "L2")
    flag = hu.session.vertebra("L2").flag
    assert flag.call == "not_assessed"
    assert "marked as instrumented" in flag.text
    assert "because the vertebra is marked as instrumented" in hu.banner.numbers.text()
    assert hu.session.state.roi("L2").status is None
    assert "run the screen again" not in widget.grade.text()
    hu.session.rename("L2", "L3")
    assert "run the screen again" in widget.grade.text()
    hu.undo()
    assert "run the screen again" not in widget.grade.text()

    for kind in ("screws_csv", "screws_json"):
        widget.export(kind, str(tmp_path / kind))
        assert widget.message.text().startswith("Written")
    result = CaseResult(
        series=hu.session.result.series,
        n_slices=hu.session.result.n_slices,
        spacing_mm=hu.session.result.spacing_mm,
        acquisition=hu.session.result.acquisition,
        vertebrae=(),
        notes=hand.room.study.volume.notes,
        implants=widget.screen,
    )
    write_table(tmp_path / "core.csv", screw_rows(result_to_dict(result, datetime.now(UTC)), "clean"), SCREW_COLUMNS)
    assert (tmp_path / "screws_csv").read_bytes() == (tmp_path / "core.csv").read_bytes()
    widget.copy_table()
    assert QApplication.clipboard().text().splitlines()[1].startswith("screw-1\t▼ present\t1.4\t1.1–1.7")
    widget.copy_report()
    assert "2 screws; loosening" in QApplication.clipboard().text()

    # A click on the picture is not for the vertebrae while ends are moved.
    widget.move.setChecked(True)
    before = hu.session.state
    hand.click(CENTER)
    assert hu.session.state is before


def test_bad_scan_is_one_sentence(qtbot: Any) -> None:
    run = Screening()

    def refuse(*_: Any) -> ImplantScreen:
        raise SeriesError("the series was refused")

    run.function = refuse
    with qtbot.waitSignal(run.failed, timeout=5000) as said:
        run.screen(None, None, ())
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


def test_one_mm_line_runs_between_wide_and_narrow() -> None:
    """Around one wide cell, also over the seam of the angles, and not towards what is unknown. Planted: no seam."""
    width = np.ma.masked_invalid(np.array([[0.2, 0.3, 0.4], [0.2, 0.3, 1.6], [0.2, 0.3, np.nan]]))
    pieces = one_mm_line(width, np.arange(4.0), np.arange(4.0))
    assert sorted(pieces) == sorted(
        [[(1.0, 2.0), (1.0, 3.0)], [(1.0, 2.0), (2.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, 3.0), (2.0, 3.0)]]
    )


def test_verdicts_differ_in_colour() -> None:
    assert len({colour_of(one) for one in Loosening}) == len(Loosening)
