"""The windows that menus open, and large text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scans
from napari.settings import get_settings
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QInputDialog, QLabel
from spineimg.volume import Acquisition

from napari_spineimg import hu_actions
from napari_spineimg.dialogs import CutoffDialog, StatedDialog, about_text
from napari_spineimg.docked import dock_and_window
from napari_spineimg.series_dialog import SeriesDialog


def test_what_the_file_says_is_shown_and_not_stated_again(qtbot: Any) -> None:
    """Planted: "unknown" shown, greyed out, for a tube voltage that the file tells."""
    dialog = StatedDialog(Acquisition(kvp=120.0, contrast=False, kernel="B30f"))
    qtbot.addWidget(dialog)
    boxes = (dialog.kvp, dialog.contrast, dialog.kernel)
    assert [box.currentText() for box in boxes] == [
        "120 kVp (from the file)",
        "no contrast agent (from the file)",
        "B30f (from the file)",
    ]
    assert not any(box.isEnabled() for box in boxes)
    assert dialog.stated == Acquisition()
    unknown = StatedDialog(Acquisition())
    qtbot.addWidget(unknown)
    unknown.contrast.setCurrentIndex(1)
    assert unknown.stated == Acquisition(contrast=False)


@pytest.mark.parametrize("points", [9, 20])
def test_no_word_of_a_window_is_cut(qtbot: Any, points: int) -> None:
    """Planted: a window as high as it was before its rows were in it."""
    dialog = CutoffDialog(127.273, "Lee 2024")
    dialog.setStyleSheet(f"* {{ font-size: {points}pt; }}")
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitExposed(dialog)
    for label in dialog.findChildren(QLabel):
        assert label.height() >= label.heightForWidth(label.width())


def test_another_name_starts_beside_the_present_one(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", scans.body_center("L2"))
    monkeypatch.setattr(QInputDialog, "getItem", lambda *inputs: (inputs[3][inputs[4]], True))
    widget.actions_._rename("L2")
    assert widget.session.state.levels == ("L1",)
    assert hu_actions.level_names()[0] == "C1"


def test_series_are_chosen_in_a_running_viewer(reading: Any, scan: Callable[[str], Path], tmp_path: Path) -> None:
    """A folder of two series: the table opens over the viewer, and what is chosen there is read."""
    for kind in ("clean", "anisotropic"):
        other_name(scan(kind), tmp_path / kind, f"1.2.3.{len(kind)}")
    seen: list[list[str]] = []

    def choose() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, SeriesDialog) or not dialog.isVisible():
            return
        looking.stop()
        rows = range(dialog.table.rowCount())
        seen.append([dialog.table.item(row, 2).text() for row in rows])
        dialog.table.selectRow(next(row for row in rows if dialog.table.item(row, 2).text().startswith("3 ")))
        dialog.buttons.button(dialog.buttons.StandardButton.Open).click()

    looking = QTimer()
    looking.timeout.connect(choose)
    looking.start(100)
    hand = reading(path=tmp_path)
    assert len(seen[0]) == 2
    assert hand.room.study.volume.geometry.spacing_mm[0] == pytest.approx(3.0)


def other_name(folder: Path, to: Path, series: str) -> None:
    """The files of a folder under the name of another series."""
    import pydicom

    to.mkdir()
    for n, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = series
        dataset.save_as(to / f"{n}.dcm")


def test_large_text_keeps_every_button_in_sight(reading: Any) -> None:
    """The dock grows with the text. Planted: a width counted in letters of the size before."""
    hand = reading()
    widget = hand.open("Vertebral HU")
    hand.viewer.window.resize(1366, 768)
    usual = widget.minimumWidth()
    appearance = get_settings().appearance
    before = appearance.font_size
    try:
        appearance.font_size = 13
        hand.qtbot.waitUntil(lambda: widget.minimumWidth() > usual, timeout=5000)
        hand.settle(6)
        area = widget._area
        hand.qtbot.waitUntil(lambda: not area.horizontalScrollBar().isVisible(), timeout=5000)
    finally:
        appearance.font_size = before


def test_about_names_version_purpose_and_papers() -> None:
    words = about_text()
    for part in ("spineimg 0.", "Research use only, not a medical device.", "Lee et al. 2024", "Schreiber", "Silva"):
        assert part in words


def test_no_widget_squeezes_another(reading: Any) -> None:
    """On a small screen they are tabs of one place. Planted: one below the other, with 100 pixels for the upper one."""
    hand = reading()
    screen, desk = hand.open("Implant screen"), hand.open("Vertebral HU")
    hand.settle()
    dock, window = dock_and_window(screen)
    assert dock_and_window(desk)[0] in window.tabifiedDockWidgets(dock)
    assert (desk.in_sight, screen.in_sight) == (True, False)
    dock.raise_()
    hand.settle()
    assert (desk.in_sight, screen.in_sight) == (False, True)
    assert screen.height() > 400
    hand.scroll_to(scans.body_center("L2"))
    hand.click(scans.body_center("L2"))
    assert desk.session.state.levels == ()  # nobody measures behind the reader's back
