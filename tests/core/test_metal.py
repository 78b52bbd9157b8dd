"""What is metal, and what is left out around it."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from spineimg.geometry import Geometry, unit
from spineimg.metal import MetalNear, MetalSettings, metal_near
from spineimg.rois import POSITIONS, Ellipse, VertebraRoi
from spineimg.sampling import SliceReader, sample_ellipse
from spineimg.vertebra.hu import VertebraHU, measure
from spineimg.volume import Acquisition, ArraySource, CTVolume
from tests.core.volumes import UNFRIENDLY, all_points, ellipse, filled, geometry, tilted

TITANIUM, COBALT_CHROME, END_OF_12_BIT = 6700.0, 17750.0, 3071.0


def near(
    volume: CTVolume, one: Ellipse, thickness_mm: float | None = None
) -> tuple[MetalNear, npt.NDArray[np.float64]]:
    """Metal around an ellipse, and the points that it covers."""
    reader = SliceReader(volume)
    got = sample_ellipse(reader, one)
    found = metal_near(volume.geometry, reader.window, got.points_lps_mm, got.slices, thickness_mm)
    return found, got.points_lps_mm


def with_spot(where: Geometry, index: tuple[int, int, int], hu: float, background: float = 110.0) -> CTVolume:
    values = np.full(where.shape, background)
    values[index] = hu
    return filled(where, values)


@pytest.mark.parametrize("hu", [2500.0, END_OF_12_BIT, TITANIUM, COBALT_CHROME, 30710.0])
def test_metal_is_found_on_clipped_and_extended_scales(hu: float) -> None:
    """Planted: seed at 3000 HU on every scale."""
    where = geometry()
    found, _ = near(with_spot(where, (8, 30, 36), hu), ellipse(where, (8, 30, 36)))
    assert found.nearest_mm == pytest.approx(0)
    assert found.excluded.any()


@pytest.mark.parametrize("hu", [1500.0, 1900.0, 2400.0])
def test_bright_bone_is_not_metal(hu: float) -> None:
    """Cortex reaches 1900 HU and osteoblastic bone 1500 HU; a single bright voxel is no plateau."""
    where = geometry()
    values = np.random.default_rng(1).normal(hu - 250, 60, where.shape)
    values[8, 30, 36] = hu
    found, _ = near(filled(where, values), ellipse(where, (8, 30, 36)))
    assert found.nearest_mm is None
    assert not found.excluded.any()


def test_a_scale_that_ends_early_is_metal_at_its_plateau() -> None:
    where = geometry()
    values = np.full(where.shape, 110.0)
    values[8, 29:32, 35:38] = 2047
    assert near(filled(where, values), ellipse(where, (8, 30, 36)))[0].excluded.any()


def test_the_blurred_edge_of_metal_belongs_to_it_and_a_bright_voxel_apart_does_not() -> None:
    """Planted: every voxel over the lower threshold taken for metal."""
    where = geometry(steps_mm=(1.0, 1.0, 1.0))
    values = np.full(where.shape, 110.0)
    values[8, 30, 36:39] = 3000, 2100, 2050
    values[8, 30, 20] = 2300
    found, points = near(filled(where, values), ellipse(where, (8, 30, 30), (20.0, 9.0)))
    metal = where.lps_at([(8, 30, 36), (8, 30, 37), (8, 30, 38)])
    away = np.linalg.norm(points[:, None] - metal, axis=2).min(axis=1)
    assert np.array_equal(found.excluded, away <= 3.0)


@pytest.mark.parametrize("where", UNFRIENDLY.values(), ids=UNFRIENDLY.keys())
def test_the_margin_is_3_mm_whatever_the_lattice(where: Geometry) -> None:
    """Planted: 3 voxels for 3 mm; row and column spacing swapped; row index taken as is on a sheared lattice."""
    spot = (9, 28, 38)
    found, points = near(with_spot(where, spot, TITANIUM), ellipse(where, (8, 30, 36)))
    flat = points - where.lps_at(spot)
    flat -= np.outer(flat @ where.normal_lps, where.normal_lps)
    away = np.linalg.norm(flat, axis=1)
    assert np.array_equal(found.excluded, away <= 3.0)
    assert found.nearest_mm == pytest.approx(away.min())


@pytest.mark.parametrize(
    ("step", "thickness", "slices_away", "reached"),
    [
        (1.0, None, 3, True),
        (1.0, None, 4, False),
        (1.0, 3.0, 4, True),
        (1.0, 3.0, 5, False),
        (3.0, 3.0, 1, True),
        (3.0, 3.0, 2, False),
        (5.0, 5.0, 1, True),
        (0.6, 0.6, 5, True),
        (0.6, 0.6, 6, False),
    ],
)
def test_along_the_slices_the_margin_covers_partial_volume(
    step: float, thickness: float | None, slices_away: int, reached: bool
) -> None:
    """At least 3 mm and 1.5 times the thickness or step. Planted: 3 mm for every thickness."""
    where = geometry(steps_mm=(step, 0.8, 0.8))
    volume = with_spot(where, (8 + slices_away, 30, 36), TITANIUM)
    assert bool(near(volume, ellipse(where, (8, 30, 36)), thickness)[0].excluded.any()) is reached


def test_in_coarse_pixels_the_margin_is_one_and_a_half_of_them() -> None:
    where = geometry(steps_mm=(3.0, 3.0, 3.0), shape=(24, 20, 20))
    found, points = near(with_spot(where, (8, 10, 10), TITANIUM), ellipse(where, (8, 10, 10), (16.0, 12.0)))
    away = np.linalg.norm(points - where.lps_at((8, 10, 10)), axis=1)
    assert np.array_equal(found.excluded, away <= 4.5)


def test_a_sample_between_two_slices_is_left_out_with_either_of_them() -> None:
    """A slice near metal may hold a part of it that is too faint to be seen as metal.

    Planted: the height of the sample itself held against the margin.
    """
    where = geometry(steps_mm=(3.0, 0.7, 0.7))
    one = tilted(ellipse(where, (9.2, 30, 36), (6.0, 9.0)), 15)
    found, points = near(with_spot(where, (7, 30, 36), TITANIUM), one)
    flat = points - where.lps_at((7, 30, 36))
    height = flat @ where.normal_lps
    away = np.linalg.norm(flat - np.outer(height, where.normal_lps), axis=1)
    # Metal in slice 7 is in reach of slice 8 (3 mm), and every sample below slice 9 (6 mm) is made of slice 8.
    assert np.array_equal(found.excluded, (away <= 3.0) & (height < 6 - 1e-3))
    assert found.excluded.any()


@pytest.mark.parametrize(("columns_away", "seen"), [(56, True), (80, False)])
def test_metal_in_the_neighbourhood_is_measured_in_mm(columns_away: int, seen: bool) -> None:
    """Planted: 15 voxels searched instead of 15 mm."""
    where = geometry(shape=(24, 60, 140), steps_mm=(1.0, 0.7, 0.45))
    volume = with_spot(where, (8, 30, 40 + columns_away), TITANIUM)
    found, points = near(volume, ellipse(where, (8, 30, 40)))
    assert not found.excluded.any()
    if seen:
        away = np.linalg.norm(points - where.lps_at((8, 30, 40 + columns_away)), axis=1).min()
        assert found.nearest_mm == pytest.approx(away)
        assert 13 < away < 15
    else:
        assert found.nearest_mm is None


def test_padding_is_not_metal() -> None:
    where = geometry()
    values = np.full(where.shape, 110.0)
    values[:, :30] = 31000
    found, _ = near(filled(where, values, padding=(31000, 31000)), ellipse(where, (8, 40, 36)))
    assert found.nearest_mm is None


def test_settings_move_the_margin() -> None:
    where = geometry(steps_mm=(1.0, 0.5, 0.5))
    volume = with_spot(where, (8, 30, 36), TITANIUM)
    reader = SliceReader(volume)
    got = sample_ellipse(reader, ellipse(where, (8, 30, 36)))
    counts = [
        np.count_nonzero(
            metal_near(
                where, reader.window, got.points_lps_mm, got.slices, settings=MetalSettings(margin_mm=margin)
            ).excluded
        )
        for margin in (2.0, 3.0, 4.0)
    ]
    assert counts == pytest.approx([np.pi * margin**2 / 0.25 for margin in (2.0, 3.0, 4.0)], rel=0.13)


def test_without_metal_scipy_is_not_loaded() -> None:
    code = (
        "import sys; from tests.core.volumes import filled, geometry, three; "
        "from spineimg.vertebra.hu import measure; where = geometry(); "
        "assert measure(filled(where, 110), three(where, (6, 9, 12))).mean_hu == 110; "
        "sys.exit('scipy' in sys.modules)"
    )
    here = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=here).returncode == 0


# -- screws -------------------------------------------------------------------------------------------------------


@lru_cache
def screw_share(step: float, sagittal_deg: float, apart_mm: float) -> tuple[Geometry, npt.NDArray[np.float64]]:
    """How much of each voxel two 6.5 mm screws fill, in slices as thick as their step; blurred by 0.9 mm."""
    from scipy.ndimage import gaussian_filter

    where = geometry(shape=(int(36 / step), 60, 76), steps_mm=(step, 0.8, 0.8))
    points = all_points(where) - where.lps_at((np.array(where.shape) - 1) / 2)
    share = np.zeros(where.shape)
    parts = max(3, round(2 * step))
    for part in range(parts):
        shift = np.array([0, 0, ((part + 0.5) / parts - 0.5) * step])
        for side in (-1, 1):
            way = unit([side * 0.25, 1.0, np.tan(np.radians(sagittal_deg))])
            from_tip = points + shift - np.array([side * apart_mm, -11.0, 0.0])
            along = from_tip @ way
            radius2 = (from_tip**2).sum(axis=-1) - along**2
            share += ((along >= 0) & (along <= 40) & (radius2 <= 3.25**2)) / parts
    blur_mm = 0.9 / 2.355
    return where, gaussian_filter(np.minimum(share, 1), [0, blur_mm / 0.8, blur_mm / 0.8])


def around_screws(
    hu: float, clip: float | None, step: float, screws: tuple[float, float], tilt_deg: float
) -> VertebraHU:
    """Bone of 110 HU around two screws, measured in three ellipses."""
    where, share = screw_share(step, *screws)
    values = np.minimum(110 + share * (hu - 110), clip or np.inf).astype(np.float32)
    scan = CTVolume(where, ArraySource(values), Acquisition(slice_thickness_mm=step))
    middle = where.lps_at((np.array(where.shape) - 1) / 2)
    flat = [
        Ellipse(name, middle + np.array([0, 0, z]), np.array([1, 0, 0]), np.array([0, 1, 0]), (12.0, 9.0))
        for name, z in zip(POSITIONS, (6.5, 0, -6.5), strict=True)
    ]
    return measure(scan, VertebraRoi("L1", ellipses=tuple(tilted(one, tilt_deg) for one in flat)))


@pytest.mark.parametrize(("hu", "clip"), [(TITANIUM, END_OF_12_BIT), (TITANIUM, None), (COBALT_CHROME, None)])
@pytest.mark.parametrize("step", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("screws", [(0.0, 6.0), (0.0, 13.0), (18.0, 9.0)])
@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_around_two_screws_the_bone_reads_its_own_hu_or_nothing(
    hu: float, clip: float | None, step: float, screws: tuple[float, float], tilt: float
) -> None:
    """screws: their sagittal slope in degrees, and how far their tips are from the midline in mm.

    Planted: no margin (reads up to 600 HU too much); the margin of the plane taken along the slices too.
    """
    got = around_screws(hu, clip, step, screws, tilt)
    for one in got.slices:
        assert one.kept_fraction is not None
        assert one.mean_hu == pytest.approx(110, abs=5) if one.kept_fraction >= 0.5 else one.mean_hu is None
    assert (got.mean_hu is None) == any(one.mean_hu is None for one in got.slices)
    codes = {note.code for note in got.notes}
    assert {"metal_near", "metal_excluded"} <= codes
    assert ("too_little_left" in codes) == (got.mean_hu is None)
