"""Panels: where the patient's corners land, whatever way the scanner stored them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spineimg.errors import PixelError
from spineimg.export.panels import View, coronal, facing, letter, sagittal, sample
from spineimg.geometry import Geometry
from spineimg.volume import ArraySource, CTVolume
from tests.export.records import LATTICES, filled, lattice

CORNER = np.array([18.0, -14.0, 21.0])
"""Left, anterior, superior of the origin, LPS mm."""
ORIGIN = np.zeros(3)
SIZE = (80.0, 80.0)


def blob(points):
    """A bright ball at CORNER in soft tissue."""
    return np.where(np.linalg.norm(points - CORNER, axis=-1) < 7.0, 1000.0, 40.0)


def ramp(points):
    """A value that tells its own place."""
    return points @ np.array([1.0, 3.0, 7.0])


def brightest(picture):
    """(right, down) mm of the middle of what is bright."""
    step = SIZE[0] / picture.shape[1]
    at = np.argwhere(picture > 500.0).mean(axis=0)
    down, right = (at - (np.array(picture.shape) - 1) / 2) * step
    return right, down


@pytest.mark.parametrize("name", LATTICES)
def test_marker_lands_where_a_reader_expects_it(name):
    """The patient's left is on the right, the front on the left of a sagittal panel and on top of an axial one.

    Planted: `_RIGHT` pointing to the patient's right - every panel mirrored; `np.cross` in `facing` taken without its
    sign check - the axial panel upside down.
    """
    volume = filled(lattice(name), blob)
    x, y, z = CORNER
    views = [
        sagittal(np.array([x, 0, 0]), SIZE),
        coronal(np.array([0, y, 0]), SIZE),
        facing(np.array([0.0, 0.0, 1.0]), np.array([0, 0, z]), SIZE),
    ]
    pictures = sample(volume, views, [1.0] * 3, 1.0)
    expected = [(y, -z), (x, -z), (x, y)]
    for picture, place in zip(pictures, expected, strict=True):
        assert brightest(picture) == pytest.approx(place, abs=1.2)
    assert [view.letters for view in views] == [tuple("APHF"), tuple("RLHF"), tuple("RLAP")]


@pytest.mark.parametrize("name", LATTICES)
def test_every_panel_samples_the_place_it_shows(name):
    """Linear in space, so trilinear sampling must give the formula's value anywhere inside.

    Planted: rows and columns of the window swapped in `_request`; the window's start not taken off in `at`.
    """
    geometry = lattice(name)
    volume = filled(geometry, ramp)
    tilted = facing(np.array([0.1, -0.35, 0.9]), np.array([3.0, 2.0, 1.0]), (60.0, 60.0))
    views = [sagittal(ORIGIN, (50, 70)), coronal(ORIGIN, (50, 70)), tilted]
    for view, picture in zip(views, sample(volume, views, [0.9] * 3, 0.1), strict=True):
        height, width = picture.shape
        right = (np.arange(width) - (width - 1) / 2) * 0.9
        down = (np.arange(height) - (height - 1) / 2) * 0.9
        place = view.center_lps_mm + right[None, :, None] * view.right_lps + down[:, None, None] * view.down_lps
        assert np.isfinite(picture).mean() > 0.9
        seen = np.isfinite(picture)
        np.testing.assert_allclose(picture[seen], ramp(place)[seen], atol=2e-3)


@pytest.mark.parametrize("name", ["feet first supine", "gantry tilt", "left-handed"])
def test_original_slice_is_shown_without_mixing_neighbours(name):
    """Each slice holds its own number; the panel of slice k holds k alone, though the ROI's centre lies beside it.

    Planted: the view of a slice sampled through `index_at`, at its centre's height.
    """
    geometry = lattice(name)
    hu = np.broadcast_to(np.arange(geometry.shape[0])[:, None, None] * 10.0, geometry.shape).astype(np.float32)
    volume = CTVolume(geometry, ArraySource(hu))
    view = facing(geometry.normal_lps, geometry.lps_at([20.3, 40, 60]), (40, 40), 20)
    (picture,) = sample(volume, [view], [1.0], 1.0)
    assert set(np.unique(picture)) == {200.0}


def test_outside_and_gap_hold_nothing():
    """A gap is blank, not a smear of the slices beside it. Planted: the loop over `gaps` removed."""
    whole = lattice("head first supine")
    keep = [k for k in range(whole.shape[0]) if not 30 <= k < 36]
    geometry = Geometry(
        (len(keep), *whole.shape[1:]), whole.origins_lps_mm[keep], whole.row_step_lps_mm, whole.column_step_lps_mm
    )
    volume = filled(geometry, ramp)
    (picture,) = sample(volume, [sagittal(ORIGIN, (40, 200))], [1.0], 0.1)
    z = -(np.arange(200) - 99.5)
    blank = np.isnan(picture).all(axis=1)
    start, end = whole.positions_mm[29], whole.positions_mm[36]
    np.testing.assert_array_equal(blank, ((z > start) & (z < end)) | (abs(z) > 67.0))


class Counting(ArraySource):
    """Counts reads and fails on one slice."""

    def __init__(self, hu, broken=None):
        super().__init__(hu)
        self.seen: list[int] = []
        self.broken = broken

    def read(self, k):
        self.seen.append(k)
        if k == self.broken:
            raise PixelError(f"slice {k} is cut short")
        return super().read(k)

    def padding_hu(self, k):
        return (-2000.0, -2000.0)


def test_reads_each_slice_once_and_only_near_the_views():
    """Planted: `range(geometry.shape[0])` in place of the touched slices."""
    geometry = Geometry.from_affine((600, 8, 8), [[0, 0, 10, -35], [0, 10, 0, -35], [0.5, 0, 0, -150], [0, 0, 0, 1]])
    source = Counting(np.zeros(geometry.shape, np.int16))
    size = (40.0, 60.0)
    sample(CTVolume(geometry, source), [sagittal(ORIGIN, size), coronal(ORIGIN, size)], [1.0, 1.0], 1.0)
    assert len(source.seen) == len(set(source.seen))
    assert min(source.seen) >= 300 - 61
    assert max(source.seen) <= 300 + 61
    assert len(source.seen) <= 62  # every other one of 121: slices half a millimetre apart are too many to see


def test_unreadable_slice_and_padding_are_blank():
    geometry = lattice("head first supine")
    hu = np.full(geometry.shape, 100, np.int16)
    hu[:, :, : geometry.shape[2] // 2 - 10] = -2000
    middle = geometry.shape[0] // 2
    volume = replace(CTVolume(geometry, ArraySource(hu)), source=Counting(hu, broken=middle))
    (picture,) = sample(volume, [coronal(ORIGIN, (60, 40))], [0.5], 0.1)
    assert np.isnan(picture[:, :36]).all()  # the patient's right, padded
    assert np.isnan(picture[38:42]).all()
    assert set(np.unique(picture[:34, 44:])) == {100.0}


def test_letters():
    assert letter(np.array([0.2, -0.9, 0.3])) == "A"
    assert letter(np.array([0.1, 0.2, -0.9])) == "F"
    assert View(ORIGIN, np.array([0, 1.0, 0]), np.array([0, 0, -1.0]), SIZE).letters == tuple("APHF")


@pytest.mark.parametrize("name", LATTICES)
def test_a_single_view_row_by_row_is_the_same_picture(name):
    """Noise, so that every weight counts; with a gap. Two views at once are sampled point by point.

    Planted: the weights of the two slices exchanged; the shear between rows left out; the gap forgotten.
    """
    whole = lattice(name)
    half = whole.shape[0] // 2
    keep = [k for k in range(whole.shape[0]) if k not in (half + 2, half + 3)]
    shape = (len(keep), *whole.shape[1:])
    geometry = Geometry(shape, whole.origins_lps_mm[keep], whole.row_step_lps_mm, whole.column_step_lps_mm)
    hu = np.random.default_rng(5).normal(0, 300, shape).astype(np.float32)
    volume = CTVolume(geometry, ArraySource(hu))
    middle = whole.lps_at((np.array(whole.shape) - 1) / 2)
    counted = 0
    for view in (facing(np.array([0.0, 0.0, 1.0]), middle + np.array([3.3, 1.1, 9.7]), SIZE), coronal(middle, SIZE)):
        (mine,) = sample(volume, [view], [0.7], 0.0)
        point_by_point = sample(volume, [view, view], [0.7, 0.7], 0.0)[0]
        np.testing.assert_allclose(mine, point_by_point, atol=0.02)
        counted += np.isfinite(mine).sum()
    assert counted > 2000


def test_a_view_of_a_tilted_scan_reads_no_more_than_it_shows():
    """Planted: `_by_rows` left out, which takes whole slices; the blank of a slice that cannot be read left out."""
    geometry = lattice("gantry tilt")
    middle = geometry.lps_at((np.array(geometry.shape) - 1) / 2)
    source = Counting(np.full(geometry.shape, 100, np.int16), broken=geometry.shape[0] // 2)
    view = facing(np.array([0.0, 0.0, 1.0]), middle, (40.0, 40.0))
    (picture,) = sample(CTVolume(geometry, source), [view], [1.0], 0.0)
    assert len(source.seen) == len(set(source.seen))
    across = 40.0 * np.abs(geometry.normal_lps[1]) / geometry.spacing_mm[0]
    assert len(source.seen) <= across + 2
    assert np.isnan(picture).any()
    np.testing.assert_allclose(picture[np.isfinite(picture)], 100.0, rtol=1e-6)
