"""Numbers that could go stale, and pictures that could show another scan than the one that is measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scans
import spineimg
from qtpy.QtCore import Qt
from spineimg.errors import SeriesError
from spineimg.rois import RoiSet, VertebraRoi

from napari_spineimg import session as session_module
from napari_spineimg.display import lps_from_world, world_from_lps
from napari_spineimg.linked_planes import _whole_picture, _whole_view
from napari_spineimg.session import Session, own_cutoff
from napari_spineimg.sessions import Sessions
from napari_spineimg.study import open_study
from napari_spineimg.work import Work

CENTER = scans.body_center("L2")


def shown(widget: Any) -> list[str]:
    """HU of every row of the table."""
    return [widget.table.item(row, 2).text() for row in range(widget.table.rowCount())]


def true(widget: Any) -> list[str]:
    """HU of every vertebra as the core measures the ROIs that are entered, from the beginning."""
    state = widget.session.state
    found = spineimg.assess(widget.session.volume, state.rois, cutoffs=state.cutoffs)
    return [f"{one.hu.mean_hu:.1f}" for one in found.vertebrae]


def test_a_click_is_worked_out_once(scan: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The body is looked for once, the other vertebrae are not measured again, and all is as the core has it at once.

    Planted: a vertebra remembered by its name, so that a moved ellipse kept its old number.
    """
    searches, measured = [], []
    look, measure = session_module.rois_of_click, session_module.EllipseMeter.measure

    def looked(*inputs: Any, **how: Any) -> Any:
        searches.append(inputs[2])
        return look(*inputs, **how)

    def measured_once(meter: Any, volume: Any, level: str, ellipses: Any) -> Any:
        measured.append(level)
        return measure(meter, volume, level, ellipses)

    monkeypatch.setattr(session_module, "rois_of_click", looked)
    monkeypatch.setattr(session_module.EllipseMeter, "measure", measured_once)
    volume = spineimg.load(scan("clean"))
    session = Session(volume, "A")
    session.click("L3", scans.body_center("L3"))
    session.click("L2", CENTER)
    assert session.body("L2") is not None
    session.set_construct("L2", "L3")
    assert searches == measured == ["L3", "L2"]
    clicks = (VertebraRoi("L2", CENTER, confirmed=True), VertebraRoi("L3", scans.body_center("L3"), confirmed=True))
    whole = spineimg.assess(volume, RoiSet(clicks, session.state.rois.construct))
    for mine, core in zip(session.result.vertebrae, whole.vertebrae, strict=True):
        assert mine.hu.mean_hu == core.hu.mean_hu
        assert mine.flag == core.flag
        assert mine.hu.notes == core.hu.notes
    ellipses = session.ellipses("L2")
    moved = tuple(session_module.replace(one, center_lps_mm=one.center_lps_mm + [2.0, 1.0, 0.0]) for one in ellipses)
    before = session.vertebra("L2").hu.mean_hu
    assert session.try_ellipses("L2", moved).hu.mean_hu != before
    assert session.vertebra("L2").hu.mean_hu == before
    session.edit("L2", moved)
    again = spineimg.assess(volume, RoiSet((VertebraRoi("L2", ellipses=moved),))).vertebrae[0]
    assert session.vertebra("L2").hu.mean_hu == again.hu.mean_hu != before
    session.undo()
    assert session.vertebra("L2").hu.mean_hu == before


def test_everything_comes_back(scan: Callable[[str], Path]) -> None:
    """A cutoff of the reader's own and what was stated survive too. Planted: only ROIs kept, so that a flag fell back
    on the published cutoff without a word."""
    study = open_study(str(scan("clean")), spineimg.load(scan("clean")))
    sessions = Sessions(study)
    session = sessions.session
    session.click("L2", CENTER)
    session.set_construct(None, "L2")
    session.set_cutoffs((own_cutoff(140.0, "Our clinic 2024"),))
    if study.volume.acquisition.contrast is None:
        session.set_stated(spineimg.volume.Acquisition(contrast=False))
    again = Sessions(open_study(str(scan("clean")), spineimg.load(scan("clean"))))
    assert again.restored == ("A",)
    assert again.session.state.stated == session.state.stated
    mine, kept = session.vertebra("L2"), again.session.vertebra("L2")
    assert kept.flag == mine.flag
    assert kept.flag.source == "Our clinic 2024"
    assert kept.hu == mine.hu


def test_a_killed_program_loses_nothing(scan: Callable[[str], Path], user_data: Path) -> None:
    """kill -9 after a click: the next start has it. Planted: sessions written at the end only."""
    words = f"""
import os, signal, spineimg
from napari_spineimg.sessions import Sessions
from napari_spineimg.study import open_study
path = {str(scan("clean"))!r}
sessions = Sessions(open_study(path, spineimg.load(path)))
session = sessions.session
session.click("L2", {CENTER.tolist()})
print(repr(session.vertebra("L2").hu.mean_hu), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", words]
    killed = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    sessions = Sessions(open_study(str(scan("clean")), spineimg.load(scan("clean"))))
    assert repr(sessions.session.vertebra("L2").hu.mean_hu) == killed.stdout.strip()


def test_a_move_that_comes_to_nothing_leaves_no_number(reading: Any) -> None:
    """A drag back to where it began, a deleted shape, a layer taken away or moved: what is shown is what is entered.

    Planted: the number of the last place of the mouse kept in the table.
    """
    hand = reading()
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    mid = widget.session.ellipses("L2")[1].center_lps_mm
    before, state = shown(widget), widget.session.state
    widget.adjust(True)
    hand.scroll_to(mid)
    live: list[str] = []
    tell = widget.table.show_live
    widget.table.show_live = lambda vertebra: (tell(vertebra), live.append(shown(widget)[0]))
    start, far = hand.pixel(mid), hand.pixel(mid + [8.0, 0.0, 0.0])
    native = hand.canvas.native
    from qtpy.QtTest import QTest

    QTest.mousePress(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    for place in (start + (far - start) / 2, far, start + (far - start) / 2, start):
        hand.move(place, Qt.MouseButton.LeftButton)
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    hand.settle()
    assert len(set(live)) > 1
    assert shown(widget) == true(widget)
    if widget.session.state is state:
        assert shown(widget) == before

    rois = hand.viewer.layers["ROIs"]
    widget.rois.select(("L2", "mid"))
    rois.remove_selected()
    hand.settle()
    assert len(rois.data) == 3
    assert len(hand.viewer.layers["Bodies"].data) == 3
    assert "added and removed in the table" in widget.message.text()
    assert shown(widget) == true(widget)

    rois.name = "something else"
    rois.translate = np.array(rois.translate) + [0.0, 5.0, 0.0]
    hand.room.layer.affine = np.diag([1.0, 1.1, 1.0, 1.0])
    np.testing.assert_allclose(rois.translate, hand.room.study.display.translate)
    np.testing.assert_allclose(hand.room.layer.affine.affine_matrix, np.eye(4))
    assert "was put back" in widget.message.text()

    hand.viewer.layers.remove(rois)
    hand.qtbot.waitUntil(lambda: "ROIs" in hand.viewer.layers, timeout=5000)
    assert len(hand.viewer.layers["ROIs"].data) == 3
    hand.viewer.dims.ndisplay = 3
    hand.settle()
    hand.viewer.dims.ndisplay = 2
    hand.viewer.dims.order = (2, 0, 1)
    hand.settle()
    widget.undo()
    widget.redo()
    assert shown(widget) == true(widget)


def other_patient(folder: Path, to: Path) -> Path:
    """The same files with the name of another series."""
    import pydicom

    for n, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.save_as(to / f"{n}.dcm")
    return to


def test_what_is_seen_is_what_is_measured(reading: Any, scan: Callable[[str], Path], tmp_path: Path) -> None:
    """Two scans are open: the one that is read is seen alone, each keeps its own steps and reader.

    Planted: the layer on top seen while the other one was measured; reader B's box over reader A's numbers.
    """
    hand = reading("clean")
    widget = hand.open("Vertebral HU")
    widget.measure("L2", CENTER)
    first, first_session, first_hu = hand.room.layer, widget.session, shown(widget)
    hand.viewer.open(str(other_patient(scan("prone"), tmp_path)), plugin="napari-spineimg")
    hand.settle()
    second = hand.room.layer
    assert second is not first
    assert (first.visible, second.visible) == (False, True)
    assert widget.table.rowCount() == 0
    widget.reader.setCurrentIndex(1)
    widget.reader.activated.emit(1)
    widget.measure("L2", CENTER)
    hand.viewer.layers.selection.active = first
    hand.settle()
    assert (first.visible, second.visible) == (True, False)
    assert widget.session is first_session
    assert shown(widget) == first_hu == true(widget)
    assert widget.reader.currentText() == "Reader A"
    assert widget.session.can_undo
    second.visible = True
    hand.settle()
    assert hand.room.layer is second
    assert not first.visible
    assert widget.reader.currentText() == "Reader B"
    assert shown(widget) == true(widget)
    k, r, c = (round(float(part)) for part in hand.room.study.volume.geometry.index_at(CENTER))
    assert hand.room.status_words(CENTER)[1] == f"{spineimg.load(scan('prone')).read(k)[r, c]:.0f} HU"


def test_a_scan_that_is_open_twice_has_one_desk(reading: Any, scan: Callable[[str], Path]) -> None:
    """What was entered on either is there on both, and is kept. Planted: a desk for each, as two scans have; then the
    click below on the first one took the second one's level out of the kept session."""
    hand = reading("clean")
    widget = hand.open("Vertebral HU")
    first = hand.room.layer
    hand.viewer.open(str(scan("clean")), plugin="napari-spineimg")
    hand.settle()
    second = hand.room.layer
    widget.measure("L2", CENTER)
    hand.viewer.layers.selection.active = first
    hand.settle()
    assert widget.session.state.levels == ("L2",)
    widget.measure("L3", scans.body_center("L3"))
    hand.viewer.layers.selection.active = second
    hand.settle()
    assert widget.session.state.levels == ("L2", "L3")
    widget.session.set_construct("L2", "L3")
    hand.viewer.layers.remove(second)
    hand.settle()
    assert widget.session.state.levels == ("L2", "L3")
    assert widget.session.state.rois.construct.liv == "L3"
    assert shown(widget) == true(widget)


def test_a_file_that_was_written_anew_is_another_scan(tmp_path: Path) -> None:
    """Planted: the path alone; ROIs of the scan before came back over the new one."""
    import nibabel

    file, keys = tmp_path / "ct.nii.gz", []
    for seed in (1, 2):
        hu = np.random.default_rng(seed).normal(-200, 400, (9, 8, 7)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), file)
        os.utime(file, ns=(seed, seed))
        keys.append(open_study(str(file), spineimg.load(file)).key)
    assert keys[0] != keys[1]
    assert open_study(str(file), spineimg.load(file)).key == keys[1]


def test_a_closed_dock_leaves_nothing(reading: Any) -> None:
    """Its layers and keys go with it, the work stays. Planted: napari only takes the widget out of the window."""
    hand = reading()
    for name in ("Linked planes", "Implant screen", "Vertebral HU"):
        widget = hand.open(name)
    widget.measure("L2", CENTER)
    hu = shown(widget)
    for dock in hand.docks:
        dock.destroyOnClose()
    hand.docks.clear()
    hand.settle()
    assert [layer.name for layer in hand.viewer.layers] == [hand.room.layer.name]
    hand.press(Qt.Key.Key_Z, Qt.KeyboardModifier.AltModifier)
    hand.press(Qt.Key.Key_E, Qt.KeyboardModifier.ShiftModifier)
    hand.click(CENTER)
    again = hand.open("Vertebral HU")
    assert again is not widget
    assert shown(again) == hu == true(again)
    assert [layer.name for layer in hand.viewer.layers][1:] == ["Bodies", "ROIs"]


def test_a_job_that_was_given_up_is_not_heard(qtbot: Any) -> None:
    """Planted: the screen of the scan before shown on the next one, because it came to its end while it was closed."""
    work, go, heard = Work(), threading.Event(), []
    work.finished.connect(heard.append)

    def job(_: Any) -> str:
        go.wait(10)
        return "the scan before"

    work.start(job)
    go.set()
    while work._thread is not None and work._thread.is_alive():
        threading.Event().wait(0.001)
    work.close()  # its end waits to be heard
    with qtbot.waitSignal(work.finished, timeout=5000):
        work.start(lambda _: "this scan")
    assert heard == ["this scan"]

    def broken(_: Any) -> None:
        raise SeriesError("one sentence")

    with qtbot.waitSignal(work.failed, timeout=5000) as said:
        work.start(broken)
    assert said.args == ["one sentence"]
    assert not work.running


@pytest.mark.parametrize("kind", ["clean", "feet_first", "prone", "anisotropic"])
def test_linked_planes_show_the_voxels(scan: Callable[[str], Path], kind: str) -> None:
    """Each pixel of the quick planes is the voxel that lies there in the patient. Planted: a plane not flipped."""
    study = open_study("x", spineimg.load(scan(kind)))
    for k in range(study.display.data.shape[0]):
        study.volume.read(k)
    display = study.display
    low = np.minimum(display.translate, display.translate + display.scale * (np.array(display.data.shape) - 1))
    for axis in range(3):
        picture, place = study.loaded_plane(axis, float(world_from_lps(CENTER)[axis]))
        rest = [one for one in range(3) if one != axis]
        assert abs(place - world_from_lps(CENTER)[axis]) <= abs(study.display.scale[axis]) / 2 + 1e-6
        for at in ((0, 0), (11, 37), (picture.shape[0] - 1, 5)):
            world = np.zeros(3)
            world[axis] = place
            world[rest] = low[rest] + np.abs(study.display.scale[rest]) * at
            (_, hu) = study.hu_at(lps_from_world(world))
            assert picture[at] == hu
    study.cache.close()
    assert np.isnan(study.loaded_plane(1, 0.0)[0]).all()


def test_linked_axial_plane_of_a_tilted_scan_is_the_viewers(scan: Callable[[str], Path]) -> None:
    """What was resampled for the viewer is the linked plane through the same place, and of no other place. Planted:
    the nearest plane, however far."""
    study = open_study("x", spineimg.load(scan("tilted")))
    for k in range(study.volume.geometry.shape[0]):
        study.volume.read(k)
    stack, at = study.display.data, 12
    place = float(study.display.translate[0] + at * study.display.scale[0])
    point = lps_from_world(np.array([place, *world_from_lps(CENTER)[1:]]))
    view = _whole_view("axial", study, point)
    before = _whole_picture("axial", study, view, place)
    shown = stack.plane(0, at)
    assert _whole_picture("axial", study, view, place) is shown
    np.testing.assert_allclose(shown, before, atol=1e-3)
    assert stack.kept_axial(place + 0.01) is None
    study.cache.close()
