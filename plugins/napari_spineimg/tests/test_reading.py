"""Scans on the screen: the voxel under the mouse, its HU, the letters, whatever way the patient lay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scans
import spineimg
from qtpy.QtCore import Qt
from spineimg.errors import SeriesError
from spineimg.geometry import Geometry
from spineimg.volume import ArraySource, CTVolume

from napari_spineimg import windows
from napari_spineimg.display import lps_from_world, world_from_lps
from napari_spineimg.reader import get_reader, read
from napari_spineimg.room import room_of
from napari_spineimg.study import middle_lps_mm, open_study

KINDS = tuple(scans.KINDS)


def test_world_is_the_patients() -> None:
    """Rows run to the back, columns to the left, slices to the feet. Planted: z not turned."""
    np.testing.assert_array_equal(world_from_lps([1.0, 2.0, 3.0]), [-3.0, 2.0, 1.0])
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_array_equal(lps_from_world(world_from_lps(points)), points)


@pytest.mark.parametrize("kind", ["clean", "feet_first", "prone", "anisotropic"])
def test_layer_holds_the_voxels_in_their_own_order(scan: Callable[[str], Path], kind: str) -> None:
    """Planted: the row spacing taken for the columns."""
    data, settings, layer_type = read(str(scan(kind)))[0]
    volume = spineimg.load(scan(kind))
    assert layer_type == "image"
    assert data.shape == volume.geometry.shape
    np.testing.assert_array_equal(data[7], volume.read(7))
    np.testing.assert_array_equal(data[:, 50, 3:9], np.stack([volume.read(k)[50, 3:9] for k in range(data.shape[0])]))
    for index in ([0, 0, 0], [7, 40, 60], np.array(data.shape) - 1):
        place = np.array(settings["translate"]) + np.array(settings["scale"]) * index
        np.testing.assert_allclose(lps_from_world(place), volume.geometry.lps_at(index), atol=1e-6)


def test_tilted_scan_is_resampled_for_display_only(scan: Callable[[str], Path]) -> None:
    """Every displayed plane shows what the native voxels hold at its places. Planted: the shear left out."""
    volume = spineimg.load(scan("tilted"))
    study = open_study("x", volume)
    display = study.display
    assert not display.exact
    assert study.volume.geometry is volume.geometry
    middle = np.array(display.data.shape) // 2
    around = display.data[middle[0]][middle[1] - 20 : middle[1] + 20 : 5, middle[2] - 20 : middle[2] + 20 : 5]
    rows, columns = np.mgrid[middle[1] - 20 : middle[1] + 20 : 5, middle[2] - 20 : middle[2] + 20 : 5]
    index = np.stack([np.full(rows.shape, middle[0]), rows, columns], axis=-1)
    native = volume.geometry.index_at(lps_from_world(display.translate + index * display.scale))
    stack = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])]).astype(float)
    from scipy.ndimage import map_coordinates

    expected = map_coordinates(stack, np.moveaxis(native, -1, 0), order=1)
    np.testing.assert_allclose(around, expected, atol=0.1)
    # The three directions cut the same points.
    at = tuple(int(n) for n in middle)
    values = display.data[at[0]][at[1], at[2]], display.data[:, at[1]][at[0], at[2]], display.data[:, :, at[2]][at[:2]]
    np.testing.assert_allclose(values, values[0], atol=0.1)


def test_letters_of_every_view(reading: Any) -> None:
    """The patient's right is on the viewer's left, the head is up. Planted: letters of the stored directions."""
    hand = reading("prone")
    dims, camera = hand.viewer.dims, hand.viewer.scene.camera
    assert hand.room.letters() == ("R", "L", "A", "P")
    assert hand.viewer.canvas.overlays["spineimg_middle_left"].text == "R"
    dims.order = (2, 0, 1)
    assert hand.room.letters() == ("A", "P", "H", "F")
    camera.orientation2d = ("up", "right")
    assert hand.room.letters() == ("A", "P", "F", "H")
    dims.ndisplay = 3
    assert hand.room.letters() is None
    assert not hand.viewer.canvas.overlays["spineimg_middle_left"].visible
    dims.ndisplay = 2
    camera.orientation2d = ("down", "right")
    dims.order = (1, 0, 2)
    hand.settle()
    assert hand.room.letters() == ("R", "L", "H", "F")
    center = scans.body_center("L2")
    assert hand.pixel(center + [10, 0, 0]).x() > hand.pixel(center).x()
    assert hand.pixel(center + [0, 0, 10]).y() < hand.pixel(center).y()


def test_the_head_stays_up_when_the_axes_are_rolled(reading: Any) -> None:
    """napari's key goes axial, sagittal, coronal and round again. Planted: napari's own roll, which lays the coronal
    plane on its side."""
    hand = reading("prone")
    seen = []
    for _ in range(4):
        hand.press(Qt.Key.Key_E, Qt.KeyboardModifier.ControlModifier)
        seen.append("".join(hand.room.letters()))
    assert seen == ["APHF", "RLHF", "RLAP", "APHF"]
    hand.viewer.dims.transpose()  # what the reader turns by hand stays turned, and the letters say so
    assert hand.room.letters() == ("H", "F", "A", "P")


def test_the_third_picture_shows_the_plane_of_a_roi(reading: Any) -> None:
    """Its name, its plane and its ellipse. Planted: lines left as they were, so that the ellipse was missing."""
    hand = reading()
    planes, widget = hand.open("Linked planes"), hand.open("Vertebral HU")
    widget.measure("L2", scans.body_center("L2"))
    third = planes.planes["axial"]
    assert third._lines == []
    planes.third.setCurrentIndex(2)
    mid = widget.session.ellipses("L2")[1]
    assert third.title == "L2 mid plane"
    assert len(third._lines) == 1
    normal = np.cross(third.view.right_lps, third.view.down_lps)
    np.testing.assert_allclose(np.abs(normal @ mid.normal_lps), 1.0)
    np.testing.assert_allclose((third._lines[0].points_lps_mm - third.view.center_lps_mm) @ normal, 0.0, atol=1e-6)
    planes.third.setCurrentIndex(0)
    assert third.title == "axial"
    assert third._lines == []


def test_windows_by_key(reading: Any) -> None:
    hand = reading()
    layer = hand.room.layer
    for key, window in zip((Qt.Key.Key_2, Qt.Key.Key_3, Qt.Key.Key_4, Qt.Key.Key_1), (1, 2, 3, 0), strict=True):
        hand.press(key, Qt.KeyboardModifier.AltModifier)
        assert tuple(layer.contrast_limits) == windows.WINDOWS[window].limits_hu
    assert "W 1800 L 400\nbone" in hand.viewer.canvas.overlays["spineimg_facts"].text


def test_first_picture_needs_one_slice(scan: Callable[[str], Path]) -> None:
    """Planted: the whole volume read at opening."""
    volume = spineimg.load(scan("clean"))
    study = open_study("x", volume)
    study.display.data[20]
    assert study.cache.loaded.sum() == 1
    study.cache.start()
    study.cache._thread.join(20)
    assert study.cache.loaded.all()
    assert study.cache.done
    study.cache.close()
    assert not study.cache.loaded.any()


def test_scrolling_moves_the_crosshair_and_back(reading: Any) -> None:
    hand = reading()
    target = scans.body_center("L2")
    hand.scroll_to(target)
    assert abs(hand.room.point_lps_mm[2] - target[2]) <= 1.0
    hand.room.move_to(scans.body_center("L3"))
    assert abs(lps_from_world(np.array(hand.viewer.dims.point))[2] - scans.body_center("L3")[2]) <= 1.0


def test_other_files_are_not_ours(tmp_path: Path) -> None:
    assert get_reader(str(tmp_path)) is None
    (tmp_path / "x.txt").write_text("no scan")
    assert get_reader(str(tmp_path / "x.txt")) is None
    assert get_reader(str(tmp_path / "missing")) is None


def test_one_file_of_a_scan_opens_alone(scan: Callable[[str], Path]) -> None:
    """A single slice is refused for measuring by the core, with its reason, and can still be looked at."""
    file = next(iter(sorted(scan("clean").iterdir())))
    assert get_reader(str(file)) is read
    data, settings, _ = read(str(file))[0]
    assert data.shape == (1, 112, 112)
    assert settings["metadata"]["spineimg"].volume.verdict == "refused"


def test_what_is_refused_can_be_looked_at(reading: Any, tmp_path: Path) -> None:
    """A label map in place of a CT: the widget says why nothing is measured. Planted: the core's error let through."""
    import nibabel

    labels = nibabel.Nifti1Image(np.tile(np.arange(8, dtype=np.int16), (9, 9, 1)), np.diag([1.0, 1.0, 1.0, 1.0]))
    nibabel.save(labels, tmp_path / "labels.nii.gz")
    hand = reading(path=tmp_path / "labels.nii.gz")
    widget = hand.open("Vertebral HU")
    assert "label map" in widget.message.text()
    assert not widget.clicking.isEnabled()
    assert not widget.table.isEnabled()
    assert widget.message.isEnabled()  # grey on grey could not be read
    assert "Nothing can be measured" in widget.banner.head.text()
    assert widget.session is None


def test_a_scan_with_a_gap_in_its_middle_opens_beside_it() -> None:
    """Planted: the middle of the box, which was black."""
    places = np.array([0.0, 2.0, 4.0, 6.0, 8.0, 60.0, 62.0, 64.0, 66.0, 68.0])
    origins = np.stack([0 * places, 0 * places, places], axis=1)
    geometry = Geometry((10, 12, 12), origins, np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    study = open_study("gap", CTVolume(geometry, ArraySource(np.full((10, 12, 12), 100, dtype=np.int16))))
    middle = middle_lps_mm(study)
    number = round(float((world_from_lps(middle) - study.display.translate)[0] / study.display.scale[0]))
    assert np.isfinite(study.display.data.plane(0, number)).all()
    assert middle[2] == pytest.approx(7.0)


def test_several_series_without_a_window_are_an_error(scan: Callable[[str], Path], tmp_path: Path) -> None:
    for kind in ("clean", "prone"):
        (tmp_path / kind).symlink_to(scan(kind))
    (tmp_path / "odd").mkdir()
    with pytest.raises(SeriesError, match="slices"):
        read(str(_two_series(tmp_path, scan)))


def test_series_dialog(qtbot: Any, scan: Callable[[str], Path], tmp_path: Path) -> None:
    """Refused series are shown with their reason and cannot be opened. Planted: the thickest preselected."""
    from spineimg.io.index import scan as index_of

    from napari_spineimg.series_dialog import SeriesDialog

    index = index_of([_two_series(tmp_path, scan)])
    dialog = SeriesDialog(index, "somewhere")
    qtbot.addWidget(dialog)
    assert dialog.chosen.geometry.spacing_mm[0] == pytest.approx(2.0)
    refused = next(n for n, entry in enumerate(index.series) if entry.verdict == "refused")
    dialog.table.selectRow(refused)
    open_button = dialog.buttons.button(dialog.buttons.StandardButton.Open)
    assert not open_button.isEnabled()
    assert "Refused, because" in dialog.notes.text()
    assert dialog.table.item(refused, 6).text() == "✕ refused"


def test_room_is_one_for_each_viewer(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    assert room_of(viewer) is room_of(viewer)


def _two_series(folder: Path, scan: Callable[[str], Path]) -> Path:
    """A thin and a thick series, and two slices of a third."""
    import pydicom

    root = folder / "study"
    for kind, most in (("clean", 99), ("anisotropic", 99), ("feet_first", 2)):
        (root / kind).mkdir(parents=True)
        for n, file in enumerate(sorted(scan(kind).iterdir())[:most]):
            dataset = pydicom.dcmread(file)
            dataset.SeriesInstanceUID = f"1.2.3.{len(kind)}"
            dataset.save_as(root / kind / f"{n}.dcm")
    return root
