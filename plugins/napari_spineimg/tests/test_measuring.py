"""Clicking bodies and moving ellipses with the mouse: what is shown is what the core measures, to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scans
import spineimg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from spineimg.rois import RoiSet, VertebraRoi

CENTER = scans.body_center("L2")


@pytest.mark.parametrize("kind", scans.KINDS)
def test_point_click_and_drag(reading: Any, scan: Callable[[str], Path], kind: str) -> None:
    """The voxel and HU under the mouse, the number of a click, the number of a dragged ellipse.

    Planted: the HU of the displayed, resampled picture in the status bar; the click taken in voxels of the display; the
    moved ellipse measured at its old place.
    """
    hand = reading(kind)
    widget = hand.open("Vertebral HU")
    volume = spineimg.load(scan(kind))
    hand.scroll_to(CENTER)
    under = hand.point_at(CENTER + [6.0, 3.0, 0.0])
    k, r, c = np.rint(volume.geometry.index_at(under)).astype(int)
    place = " ".join(f"{x:.1f}" for x in under)
    assert hand.status() == f"LPS {place} mm  voxel {k} {r} {c}   {volume.read(k)[r, c]:.0f} HU"

    widget.level.setCurrentText("L2")
    clicked = hand.click(CENTER)
    expected = spineimg.assess(volume, RoiSet((VertebraRoi("L2", center_lps_mm=clicked),))).vertebrae[0]
    shown = widget.session.vertebra("L2")
    assert shown.hu.mean_hu == expected.hu.mean_hu
    assert {note.code for note in expected.hu.notes} <= {note.code for note in (*shown.hu.notes, *shown.notes)}
    assert widget.table.item(0, 2).text() == f"{expected.hu.mean_hu:.1f}"
    assert len(hand.viewer.layers["ROIs"].data) == 3
    assert len(hand.viewer.layers["Bodies"].data) == 3
    assert widget.level.currentText() == "L3"

    mid = widget.session.ellipses("L2")[1]
    hand.press(Qt.Key.Key_E, Qt.KeyboardModifier.ShiftModifier)
    hand.scroll_to(mid.center_lps_mm)
    hand.drag(mid.center_lps_mm, mid.center_lps_mm + [3.0, 2.0, 0.0])
    moved = widget.session.ellipses("L2")[1]
    way = moved.center_lps_mm - mid.center_lps_mm
    np.testing.assert_allclose(way[:2], [3.0, 2.0], atol=0.6)
    assert abs(way @ mid.normal_lps) < 1e-9
    assert moved.semi_axes_mm == mid.semi_axes_mm
    again = spineimg.assess(volume, RoiSet((VertebraRoi("L2", ellipses=widget.session.ellipses("L2")),)))
    assert widget.session.vertebra("L2").hu.mean_hu == again.vertebrae[0].hu.mean_hu != expected.hu.mean_hu
    assert widget.table.item(0, 2).text() == f"{again.vertebrae[0].hu.mean_hu:.1f}"

    hand.press(Qt.Key.Key_Z, Qt.KeyboardModifier.AltModifier)
    assert widget.session.vertebra("L2").hu.mean_hu == expected.hu.mean_hu
    np.testing.assert_array_equal(widget.session.ellipses("L2")[1].center_lps_mm, mid.center_lps_mm)


def test_numbers_follow_the_drag(reading: Any) -> None:
    """While the mouse is down the table shows each place's number; nothing is entered before it is released."""
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    before = widget.session.state
    seen: list[float] = []
    live = widget.session.try_ellipses

    def watched(level: str, ellipses: Any) -> Any:
        vertebra = live(level, ellipses)
        assert widget.session.state is before
        seen.append(vertebra.hu.mean_hu)
        return vertebra

    widget.session.try_ellipses = watched
    mid = widget.session.ellipses("L2")[1]
    widget.adjust(True)
    hand.scroll_to(mid.center_lps_mm)
    hand.drag(mid.center_lps_mm, mid.center_lps_mm + [4.0, 0.0, 0.0], steps=6)
    assert len(set(seen)) >= 3
    assert widget.session.state is not before


def test_plane_is_moved_by_keys(reading: Any) -> None:
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    old = widget.session.ellipses("L2")
    widget.adjust(True)
    widget.rois.select(("L2", "superior"))
    hand.press(Qt.Key.Key_Up, Qt.KeyboardModifier.ShiftModifier)
    new = widget.session.ellipses("L2")
    way = new[0].center_lps_mm - old[0].center_lps_mm
    assert way @ old[0].normal_lps * np.sign(old[0].normal_lps[2]) == pytest.approx(2.0)
    np.testing.assert_array_equal(new[1].center_lps_mm, old[1].center_lps_mm)


def test_miss_says_why_and_offers_ellipses(reading: Any) -> None:
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.level.setCurrentText("L3")
    beside = CENTER + [0.0, 60.0, 0.0]
    hand.scroll_to(beside)
    hand.click(beside)
    hand.qtbot.waitUntil(widget.message.isVisible, timeout=20_000)
    assert "no vertebral body was found" in widget.message.text()
    assert widget.session.state.levels == ()
    widget.by_hand.click()
    hand.settle()
    assert len(hand.viewer.layers["ROIs"].data) == 3
    assert widget.session.vertebra("L3").hu.n_voxels > 0
    assert widget.adjusting.isChecked()


def test_flag_banner_and_exports(reading: Any, tmp_path: Path) -> None:
    """The banner says value, interval, cutoff and paper; the files are the command line's."""
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    widget.measure("L3", scans.body_center("L3"))
    widget.liv.setCurrentText("L3")
    widget.liv.activated.emit(widget.liv.currentIndex())
    widget.uiv.setCurrentText("L2")
    widget.uiv.activated.emit(widget.uiv.currentIndex())
    vertebra = widget.session.vertebra("L3")
    assert vertebra.flag is not None
    assert f"{vertebra.hu.mean_hu:.1f} HU" in widget.banner.head.text()
    assert "cutoff 127.273 HU (Lee 2024)" in widget.banner.numbers.text()
    assert any(word in widget.banner.head.text() for word in ("BELOW", "INDETERMINATE", "NOT ASSESSED"))
    widget.go_to("L2")
    assert "L3" in widget.banner.head.text()  # the flag stays in sight

    for kind, ending in (("csv", "csv"), ("json", "json"), ("rois", "rois.json"), ("figure", "png")):
        widget.actions_.export(kind, str(tmp_path / f"x.{ending}"))
        assert (tmp_path / f"x.{ending}").stat().st_size > 500
    again = spineimg.assess(hand.room.study.volume, spineimg.read_rois(tmp_path / "x.rois.json"))
    assert [one.hu.mean_hu for one in again.vertebrae] == [one.hu.mean_hu for one in widget.session.result.vertebrae]
    widget.actions_.copy_table()
    assert QApplication.clipboard().text().splitlines()[1].startswith("L2\tUIV\t")
    widget.actions_.copy_report()
    assert "LIV L3" in QApplication.clipboard().text()

    widget.actions_.set_cutoff(50.0, "Our clinic 2024")
    assert "cutoff 50 HU (Our clinic 2024)" in widget.banner.numbers.text()
    assert widget.session.vertebra("L3").flag.source == "Our clinic 2024"
    # The UIV below the LIV is refused and the boxes say what holds.
    widget.uiv.setCurrentText("L5")
    widget.uiv.activated.emit(widget.uiv.currentIndex())
    assert "lies below the LIV" in widget.message.text()
    assert widget.uiv.currentText() == "L2"


def test_second_reader_sees_nothing_of_the_first(reading: Any) -> None:
    hand = reading()
    widget = hand.open("Vertebral HU")
    for level in ("L2", "L3"):
        widget.measure(level, scans.body_center(level))
    widget.reader.setCurrentIndex(1)
    widget.reader.activated.emit(1)
    assert widget.table.rowCount() == 0
    assert len(hand.viewer.layers["ROIs"].data) == 0
    assert hand.room.ellipses == {}
    assert "Nothing measured" in widget.banner.head.text()
    widget.actions_.show_agreement()
    assert "reader B has measured nothing" in widget.message.text()
    widget.measure("L2", CENTER + [3.0, 2.0, 1.0])
    agreement = hand.room.sessions.agreement()
    rows = {pair["level"]: pair for pair in agreement["vertebrae"]}
    first, second = (hand.room.sessions.by_reader[name].vertebra("L2").hu.mean_hu for name in "AB")
    assert rows["L2"]["difference_hu"] == pytest.approx(first - second)
    assert rows["L3"]["measured_by"] == "A"
    from napari_spineimg.agreement_view import AgreementDialog

    dialog = AgreementDialog(agreement)
    hand.qtbot.addWidget(dialog)
    assert dialog.table.rowCount() == 2


def test_session_comes_back_after_a_crash(reading: Any, user_data: Path, scan: Callable[[str], Path]) -> None:
    """Each step is kept in the user's folder, never with the CT. Planted: the search's notes lost."""
    inside = sorted(scan("clean").iterdir())
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    kept = list(user_data.rglob("*.rois.json"))
    assert len(kept) == 1
    before = widget.session.vertebra("L2")
    hand.viewer.layers.clear()
    assert not widget.clicking.isEnabled()
    hand.viewer.open(str(scan("clean")), plugin="napari-spineimg")
    hand.settle()
    after = widget.session.vertebra("L2")
    assert after.hu.mean_hu == before.hu.mean_hu
    assert {note.code for note in after.notes} == {note.code for note in before.notes}
    assert "restored" in widget.message.text()
    widget.undo()
    assert widget.session.state.levels == ()
    assert sorted(scan("clean").iterdir()) == inside


def test_rounds_of_opening_and_measuring_do_not_grow(reading: Any, scan: Callable[[str], Path]) -> None:
    """Short version of fifty rounds. Planted: the slices kept by a closed study."""
    import gc

    import psutil

    hand = reading()
    widget = hand.open("Vertebral HU")
    hand.open("Linked planes")
    process = psutil.Process()
    sizes = []
    for _ in range(6):
        hand.viewer.layers.clear()
        hand.viewer.open(str(scan("clean")), plugin="napari-spineimg")
        widget.measure("L2", CENTER)
        hand.settle()
        gc.collect()
        sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[2] < 15e6
