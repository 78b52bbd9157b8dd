"""The figure: what is drawn lies where it was measured, reads well, and carries no names."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from spineimg.anatomy import Role
from spineimg.errors import SpineImgError
from spineimg.export import figure
from spineimg.export.figure import draw, ellipse_points, shown, spread, views, write_figure
from spineimg.geometry import Geometry, unit
from spineimg.notes import Note
from spineimg.vertebra.flags import Call
from spineimg.volume import Acquisition, ArraySource, CTVolume, SeriesInfo
from tests.export.records import FLAG, case, filled, lattice, slice_hu, vertebra

LONG = Note("long", "this vertebra has a reason for caution that goes on and on, " * 8, "T12")
NAMES = SeriesInfo("1.2.840.1", None, "ABD", patient=(("patient_name", "Doe^Jane"), ("patient_id", "4711")))


def tilted_case(name):
    """A volume with a bright elliptic cylinder, cut by three planes tilted to the patient's axes, and their result."""
    geometry = lattice(name)
    center, axis = np.array([6.0, -4.0, 5.0]), unit([0.1, -0.3, 1.0])
    u = unit(np.cross([0.5, 1.0, 0.0], axis))  # turned in the plane too, so that a mirrored picture cannot match
    v = np.cross(axis, u)

    def cylinder(points):
        away = points - center
        inside = (away @ u / 14) ** 2 + (away @ v / 9) ** 2 <= 1
        return np.where(inside & (abs(away @ axis) < 18), 600.0, -400.0)

    planes = tuple(
        slice_hu(
            position,
            center_lps_mm=tuple(center + height * axis),
            u_lps=tuple(u),
            v_lps=tuple(v),
            semi_axes_mm=(14.0, 9.0),
            slices=(1, 2),
            resampled=True,
        )
        for position, height in (("superior", 8.0), ("mid", 0.0), ("inferior", -8.0))
    )
    return filled(geometry, cylinder), case(vertebra(slices=planes)), axis


def image_of(axes):
    """Picture, and (rows, columns, 2) mm right and down of its elements."""
    picture = axes.images[0].get_array()
    left, right, bottom, top = axes.images[0].get_extent()
    height, width = picture.shape
    x = left + (np.arange(width) + 0.5) * (right - left) / width
    y = top + (np.arange(height) + 0.5) * (bottom - top) / height
    return picture, np.stack(np.meshgrid(x, y), axis=-1)


@pytest.mark.parametrize("name", ["prone feet first", "gantry tilt", "left-handed"])
def test_outline_lies_on_what_was_measured(name):
    """The bright cylinder's section and the drawn ellipse are the same region, in each of three tilted planes.

    And a millimetre is as many pixels across as down. Planted: u and v swapped in `ellipse_points`; the extent of the
    picture turned upside down; panel widths not taken from the view's size.
    """
    volume, result, _ = tilted_case(name)
    for axes in draw(volume, result).figure.axes[2:]:
        picture, place = image_of(axes)
        box = axes.get_window_extent()
        assert box.height / np.ptp(axes.get_ylim()) == pytest.approx(box.width / np.ptp(axes.get_xlim()), rel=1e-6)
        drawn = max((line.get_xydata() for line in axes.lines), key=len)
        inside = Outline(drawn).contains_points(place.reshape(-1, 2)).reshape(picture.shape)
        bright = np.asarray(picture.filled(-400.0)) > 100.0
        both, either = (inside & bright).sum(), (inside | bright).sum()
        assert both / either > 0.93
        assert inside.sum() * (80 / picture.shape[0]) ** 2 == pytest.approx(np.pi * 14 * 9, rel=0.02)


def test_plane_lines_lie_in_the_planes():
    """Planted: `depth` left out of `_cut`, so that all planes meet in the middle."""
    volume, result, normal = tilted_case("gantry tilt")
    slices = result.vertebrae[0].hu.slices
    all_views = views(volume.geometry, result.vertebrae[0])
    for view, one in zip(all_views[:2], draw(volume, result).figure.axes[:2], strict=True):
        thick = [line.get_xydata() for line in one.lines if line.get_linewidth() == pytest.approx(3.2)]
        assert len(thick) == 3
        for line, plane in zip(thick, slices, strict=True):
            points = view.center_lps_mm + line[:, :1] * view.right_lps + line[:, 1:] * view.down_lps
            np.testing.assert_allclose((points - plane.center_lps_mm) @ normal, 0.0, atol=1e-9)


def plain_volume():
    geometry = lattice("head first supine", reach_mm=45.0)
    return CTVolume(geometry, ArraySource(np.full(geometry.shape, 50, np.int16)))


def at(z, level="T12", role=None, mean: float | None = 130.5, **changes):
    planes = tuple(
        slice_hu(p, mean, center_lps_mm=(0.0, 0.0, z + dz), slices=(20,) if mean is not None else ())
        for p, dz in (("superior", 3.0), ("mid", 0.0), ("inferior", -3.0))
    )
    return vertebra(level, role, planes, **changes)


CROWDED = {
    "one": case(at(0.0, role=Role.LIV, notes=(LONG,))),
    "uiv and liv": case(at(20.0, "T8", Role.UIV, flag=None), at(-20.0, "T12", Role.LIV, notes=(LONG, LONG))),
    "six of nine": case(*(vertebra(f"T{i}", None, (), None, (LONG,)) for i in range(1, 10))),
    "not measured": case(
        at(0.0, "T8", Role.UIV, mean=None, notes=(LONG,)),
        vertebra("T12", Role.LIV, (), replace(FLAG, call=Call.NOT_ASSESSED, interval_hu=None), (LONG,)),
    ),
    "scattered": case(
        vertebra(
            slices=tuple(
                slice_hu(p, center_lps_mm=(x, y, z), slices=())
                for p, x, y, z in (
                    ("superior", 20.0, -30.0, 12.0),
                    ("mid", -20.0, -40.0, 0.0),
                    ("inferior", 30.0, 25, -44.0),
                )
            )
        )
    ),
    "names": case(vertebra(slices=()), series=NAMES, acquisition=Acquisition(manufacturer="Doe^Jane")),
    "hostile": case(
        at(0.0, "C1", Role.LIV, flag=replace(FLAG, source="W" * 200)),
        acquisition=Acquisition(kernel="$\\frac{1}$ \x1b[31m \u65e5\u672c \\B30f"),
    ),
}


@pytest.mark.parametrize("name", CROWDED)
def test_no_words_overlap_or_leave_the_page(name):
    """Planted: `spread` returning its input - plane numbers three millimetres apart run into each other."""
    sheet = draw(plain_volume(), CROWDED[name])
    renderer = sheet.figure.canvas.get_renderer()
    texts = [*sheet.figure.texts, *(text for axes in sheet.figure.axes for text in axes.texts)]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text().strip()]
    assert ("3 more in the table, not shown here" in dict(boxes)) == (name == "six of nine")
    for words, box in boxes:
        assert box.x0 >= 0, words
        assert box.y0 >= 0, words
        assert box.x1 <= sheet.width, words
        assert box.y1 <= sheet.height, words
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 0.5 or b.x1 <= a.x0 + 0.5 or a.y1 <= b.y0 + 0.5 or b.y1 <= a.y0 + 0.5
        assert apart, (one, other)


def words_on(result):
    sheet = draw(plain_volume(), result)
    return " | ".join(text.get_text() for text in sheet.figure.texts)


def test_numbers_and_flag_in_words():
    """Planted: the flag's colour without its word."""
    words = words_on(case(at(0.0, role=Role.LIV)))
    assert "T12  LIV" in words
    assert "130.5 HU" in words
    assert "◆ INDETERMINATE" in words
    assert "cutoff 127.273 HU (Lee 2024)" in words
    assert "interval 104.2 to 146.5 HU" in words
    assert "311 mm²" in words or "312 mm²" in words
    assert "window 1000, level 250 HU" in words


def test_unmeasured_says_why():
    why = (Note("gap", "the plane touches a gap of 6 mm", "T12"),)
    flag = replace(FLAG, call=Call.NOT_ASSESSED, interval_hu=None)
    for words in (
        words_on(case(vertebra("T12", Role.LIV, (), flag, why))),
        words_on(case(at(0.0, mean=None, flag=flag, notes=why))),
    ):
        assert "not measured | ○ NOT ASSESSED" in words
        assert "Not measured: the plane touches a gap of 6 mm" in words
        assert "130" not in words
    assert "Not measured: no reason was recorded" in words_on(case(vertebra("T12", None, (), None)))


def test_rows():
    """Those with a role, else the first six."""
    with_role = case(at(0, "T8", Role.UIV), at(0, "T9"), at(0, "T12", Role.LIV))
    assert [one.level for one in shown(with_role)] == ["T8", "T12"]
    assert len(shown(CROWDED["six of nine"])) == figure.MAX_ROWS


def test_mask_is_a_cross_without_an_outline():
    planes = (slice_hu(u_lps=None, v_lps=None, semi_axes_mm=None, center_lps_mm=(3.0, 4.0, 0.0)),)
    axes = draw(plain_volume(), case(vertebra(slices=planes))).figure.axes[2]
    cross = [line for line in axes.lines if line.get_marker() == "+"]
    assert [tuple(line.get_xydata()[0]) for line in cross] == [(0.0, 0.0)]
    assert all(len(line.get_xydata()) <= 2 for line in axes.lines)
    with pytest.raises(ValueError, match="no ellipse"):
        ellipse_points(planes[0])


def test_plane_beyond_the_volume_shows_nothing():
    """Not the volume's last slice with the ellipse drawn on it. Planted: the nearest slice taken for every plane."""
    axes = draw(plain_volume(), case(at(300.0, mean=None))).figure.axes
    assert all(one.images[0].get_array().mask.all() for one in axes)


def test_single_slice_and_thin_volumes():
    for shape in ((1, 40, 40), (2, 40, 40), (1, 1, 1)):
        geometry = Geometry.from_affine(shape, np.eye(4)[[2, 1, 0, 3]])
        plane = slice_hu(center_lps_mm=(0.0, 0.0, 0.0), slices=(0,))
        volume = CTVolume(geometry, ArraySource(np.zeros(shape, np.int16)))
        for axes in draw(volume, case(vertebra(slices=(plane,)))).figure.axes:
            assert not axes.images[0].get_array().mask.all()


def test_formats_without_names(tmp_path):
    """Planted: the series' patient in the title of the file's metadata."""
    for ending, start in {"png": b"\x89PNG", "pdf": b"%PDF", "SVG": b"<?xml"}.items():
        path = tmp_path / f"out.{ending}"
        path.write_bytes(b"old")
        write_figure(plain_volume(), CROWDED["names"], path)
        content = path.read_bytes()
        assert content.startswith(start)
        assert b"Doe" not in content
    assert {one.name for one in tmp_path.iterdir()} == {"out.png", "out.pdf", "out.SVG"}
    with Image.open(tmp_path / "out.png") as image:
        assert image.width == 1400
        assert set(image.info) == {"Software", "dpi"}


def test_refusals(tmp_path):
    with pytest.raises(SpineImgError, match=r"\.png, \.pdf or \.svg.*figure\.jpg"):
        write_figure(plain_volume(), case(), tmp_path / "figure.jpg")
    with pytest.raises(SpineImgError, match="does not exist"):
        write_figure(plain_volume(), case(), tmp_path / "no" / "figure.png")
    assert not list(tmp_path.iterdir())


def test_spread():
    assert spread([], 5.0) == []
    assert spread([0.0, 10.0], 5.0) == [0.0, 10.0]
    moved = spread([0.0, 1.0, 2.0], 5.0)
    assert np.diff(moved) == pytest.approx([5.0, 5.0])
    assert np.mean(moved) == pytest.approx(1.0)
