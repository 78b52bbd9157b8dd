"""Which voxels and samples an ellipse covers, on lattices that forgive nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spineimg.geometry import Geometry
from spineimg.rois import Ellipse
from spineimg.sampling import PlaneRefusedError, SliceReader, sample_ellipse, tilt_deg
from tests.core.volumes import (
    GAP_PLACES,
    UNFRIENDLY,
    Source,
    all_points,
    ellipse,
    filled,
    geometry,
    linear,
    linear_hu,
    tilted,
)

every_geometry = pytest.mark.parametrize("where", UNFRIENDLY.values(), ids=UNFRIENDLY.keys())


def brute_force(where: Geometry, one: Ellipse, k: int) -> set[tuple[int, int]]:
    """(row, column) of all voxels of slice k inside the ellipse, from the definition alone."""
    offset = all_points(where)[k] - one.center_lps_mm
    a, b = one.semi_axes_mm
    covered = (offset @ one.u_lps / a) ** 2 + (offset @ one.v_lps / b) ** 2 <= 1
    return {(int(r), int(c)) for r, c in np.argwhere(covered)}


# -- original slices ----------------------------------------------------------------------------------------------


@every_geometry
def test_on_a_slice_exactly_the_voxels_of_the_definition_are_covered(where: Geometry) -> None:
    """Planted: u and v swapped in the inclusion rule; row and column reach swapped in the bounding box."""
    one = ellipse(where, (9.2, 28.3, 33.7))
    turned = Ellipse(
        "mid", one.center_lps_mm, (one.u_lps + one.v_lps) / 2**0.5, (one.v_lps - one.u_lps) / 2**0.5, (9, 5)
    )
    for roi in (one, turned):
        got = sample_ellipse(SliceReader(linear(where)), roi)
        index = np.round(where.index_at(got.points_lps_mm)).astype(int)
        assert got.slices == (9,)
        assert not got.resampled
        assert set(index[:, 0]) == {9}
        assert {(int(r), int(c)) for _, r, c in index} == brute_force(where, roi, 9)
        assert len(index) == len(brute_force(where, roi, 9))


@every_geometry
def test_on_a_slice_the_mean_is_the_value_at_the_centre(where: Geometry) -> None:
    """Around a voxel centre the covered lattice is symmetric, so a linear volume averages to its value there.

    Planted: rows and columns swapped when voxels are read; slice k + 1 read.
    """
    one = ellipse(where, (7, 30, 36))
    got = sample_ellipse(SliceReader(linear(where)), one)
    assert got.hu.mean() == pytest.approx(float(linear_hu(one.center_lps_mm)), abs=2e-3)
    np.testing.assert_allclose(got.hu, linear_hu(got.points_lps_mm), atol=2e-3)


def test_area_of_a_voxel_is_that_of_the_lattice() -> None:
    """Planted: area from the row spacing squared."""
    where = geometry(steps_mm=(3.0, 0.6, 0.9))
    got = sample_ellipse(SliceReader(linear(where)), ellipse(where, (8, 30, 36), (9.0, 6.0)))
    assert got.sample_area_mm2 == pytest.approx(0.54)
    assert len(got.hu) * got.sample_area_mm2 == pytest.approx(np.pi * 9 * 6, rel=0.02)


def test_a_voxel_centre_exactly_on_the_ellipse_belongs() -> None:
    """Planted: < instead of <=."""
    where = geometry(steps_mm=(1.0, 1.0, 1.0))
    got = sample_ellipse(SliceReader(linear(where)), ellipse(where, (8, 30, 36), (1.0, 1.0)))
    assert len(got.hu) == 5


def test_places_beyond_the_image_are_counted_and_have_no_value() -> None:
    """Planted: negative rows wrap round to the other side of the image."""
    where = geometry()
    whole = sample_ellipse(SliceReader(linear(where)), ellipse(where, (8, 30, 36)))
    one = ellipse(where, (8, 0, 0))
    got = sample_ellipse(SliceReader(linear(where)), one)
    assert len(got.hu) == len(whole.hu)
    assert np.count_nonzero(got.inside) == len(brute_force(where, one, 8))
    assert np.isnan(got.hu[~got.inside]).all()
    np.testing.assert_allclose(got.hu[got.inside], linear_hu(got.points_lps_mm[got.inside]), atol=2e-3)


def test_a_roi_wholly_beyond_the_image_reads_nothing() -> None:
    where = geometry()
    volume = filled(where, 100)
    got = sample_ellipse(SliceReader(volume), ellipse(where, (8, 500, 36)))
    assert len(got.hu) > 0
    assert not got.inside.any()
    assert isinstance(volume.source, Source)
    assert volume.source.reads == []


def test_padding_and_what_is_not_finite_have_no_value() -> None:
    where = geometry()
    hu = np.full(where.shape, 100.0)
    hu[8, 30, 36], hu[8, 31, 36], hu[8, 32, 36] = -2000, np.nan, np.inf
    got = sample_ellipse(SliceReader(filled(where, hu, padding=(-2048, -2000))), ellipse(where, (8, 30, 36)))
    assert np.count_nonzero(np.isnan(got.hu)) == 3
    assert np.nanmax(got.hu) == np.nanmin(got.hu) == 100


@every_geometry
def test_the_nearest_slice_within_half_a_step_is_measured(where: Geometry) -> None:
    for k in (8.0, 7.6, 8.4):
        assert sample_ellipse(SliceReader(linear(where)), ellipse(where, (k, 30, 36))).slices == (8,)


@pytest.mark.parametrize("descending", [False, True])
def test_a_centre_in_a_gap_is_refused_and_the_gap_is_named(descending: bool) -> None:
    """Planted: half of the gap's own step taken as reach."""
    where = geometry(places_mm=GAP_PLACES, descending=descending)
    reader = SliceReader(linear(where))
    one = ellipse(where, (11, 30, 36))
    for away in (0.74, -0.74):
        near = Ellipse("mid", one.center_lps_mm + away * where.normal_lps, one.u_lps, one.v_lps, one.semi_axes_mm)
        assert sample_ellipse(reader, near).slices == (11,)
    into = np.sign(where.positions_mm[12] - where.positions_mm[11]) * 0.8
    far = Ellipse("mid", one.center_lps_mm + into * where.normal_lps, one.u_lps, one.v_lps, one.semi_axes_mm)
    with pytest.raises(PlaneRefusedError, match="gap between slices 11 and 12") as refused:
        sample_ellipse(reader, far)
    assert refused.value.code == "roi_in_gap"
    low, high = sorted(where.positions_mm[[11, 12]])
    assert f"{low:.1f} to {high:.1f} mm" in str(refused.value)


@pytest.mark.parametrize(("k", "which"), [(-0.6, "first"), (23.6, "last")])
def test_a_centre_beyond_the_ends_is_refused(k: float, which: str) -> None:
    where = geometry()
    with pytest.raises(PlaneRefusedError, match=f"beyond the {which} slice") as refused:
        sample_ellipse(SliceReader(linear(where)), ellipse(where, (k, 30, 36)))
    assert refused.value.code == "roi_outside_volume"
    inside = sample_ellipse(SliceReader(linear(where)), ellipse(where, (np.clip(k, -0.4, 23.4), 30, 36)))
    assert inside.slices == (0 if which == "first" else 23,)


def test_one_slice_is_no_volume() -> None:
    where = geometry(shape=(1, 60, 72))
    with pytest.raises(PlaneRefusedError, match="single slice"):
        sample_ellipse(SliceReader(linear(where)), ellipse(where, (0, 30, 36)))


# -- resampled planes ---------------------------------------------------------------------------------------------


@every_geometry
@pytest.mark.parametrize("degrees", [-30.0, 3.0, 17.0])
def test_a_tilted_plane_reads_a_linear_volume_exactly(where: Geometry, degrees: float) -> None:
    """Planted: slices interpolated by index of the usual step, not by their own places; weights along rows and columns
    swapped; v tilted the other way.
    """
    if where.gaps:
        where = geometry(places_mm=GAP_PLACES + 0.0, shift_mm=0.1)
    one = tilted(ellipse(where, (6.3, 30.4, 36.2), (6.0, 4.0)), degrees)
    got = sample_ellipse(SliceReader(linear(where)), one)
    assert got.resampled
    assert got.inside.all()
    np.testing.assert_allclose(got.hu, linear_hu(got.points_lps_mm), atol=5e-3)
    assert got.hu.mean() == pytest.approx(float(linear_hu(one.center_lps_mm)), abs=5e-3)


def test_samples_of_a_tilted_plane_are_a_square_grid_at_the_finer_spacing() -> None:
    """Planted: step from the coarser spacing; semi-axes swapped."""
    where = geometry(steps_mm=(1.0, 0.5, 0.8))
    one = tilted(ellipse(where, (12, 30, 36), (7.0, 4.0)), 10)
    got = sample_ellipse(SliceReader(linear(where)), one)
    offset = got.points_lps_mm - one.center_lps_mm
    x, y = offset @ one.u_lps, offset @ one.v_lps
    expected = {(i, j) for i in range(-20, 21) for j in range(-20, 21) if (i * 0.5 / 7) ** 2 + (j * 0.5 / 4) ** 2 <= 1}
    assert {(round(i), round(j)) for i, j in zip(x / 0.5, y / 0.5, strict=True)} == expected
    assert len(got.hu) == len(expected)
    assert got.sample_area_mm2 == pytest.approx(0.25)
    np.testing.assert_allclose(offset @ np.cross(one.u_lps, one.v_lps), 0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    spin=st.floats(0, 360),
    tilt=st.floats(2, 60),
    part=st.tuples(st.floats(10, 13), st.floats(25, 33), st.floats(32, 40)),
    name=st.sampled_from([name for name in UNFRIENDLY if name != "with a gap"]),
)
def test_any_plane_reads_any_linear_volume(
    spin: float, tilt: float, part: tuple[float, float, float], name: str
) -> None:
    where = UNFRIENDLY[name]
    flat = ellipse(where, part, (5.0, 3.0))
    angle = np.radians(spin)
    u = np.cos(angle) * flat.u_lps + np.sin(angle) * flat.v_lps
    one = tilted(Ellipse("mid", flat.center_lps_mm, u, np.cross(np.cross(flat.u_lps, flat.v_lps), u), (5.0, 3.0)), tilt)
    got = sample_ellipse(SliceReader(linear(where)), one)
    assert got.resampled
    np.testing.assert_allclose(got.hu[got.inside], linear_hu(got.points_lps_mm[got.inside]), atol=5e-3)


def test_the_limit_between_slice_and_resampling_is_one_degree() -> None:
    where = geometry()
    flat = ellipse(where, (8, 30, 36))
    assert tilt_deg(where, tilted(flat, 0.9)) == pytest.approx(0.9)
    assert not sample_ellipse(SliceReader(linear(where)), tilted(flat, 0.9)).resampled
    assert sample_ellipse(SliceReader(linear(where)), tilted(flat, 1.1)).resampled


def test_the_scanner_plane_refuses_a_tilted_ellipse() -> None:
    where = geometry()
    flat = ellipse(where, (8, 30, 36))
    assert sample_ellipse(SliceReader(linear(where)), tilted(flat, 0.9), "scanner").slices == (8,)
    with pytest.raises(PlaneRefusedError, match=r"tilted 12\.0°") as refused:
        sample_ellipse(SliceReader(linear(where)), tilted(flat, 12), "scanner")
    assert refused.value.code == "roi_tilted"


def test_a_tilted_plane_through_a_gap_is_refused_and_beside_it_measured() -> None:
    where = geometry(places_mm=GAP_PLACES)
    reader = SliceReader(linear(where))
    with pytest.raises(PlaneRefusedError, match="passes through a gap between slices 11 and 12") as refused:
        sample_ellipse(reader, tilted(ellipse(where, (10, 30, 36)), 20))
    assert refused.value.code == "roi_in_gap"
    got = sample_ellipse(reader, tilted(ellipse(where, (9, 30, 36)), 13))
    assert max(got.slices) <= 11
    np.testing.assert_allclose(got.hu, linear_hu(got.points_lps_mm), atol=5e-3)


def test_a_tilted_plane_between_distant_slices_is_refused() -> None:
    where = geometry(steps_mm=(6.0, 0.7, 0.9))
    with pytest.raises(PlaneRefusedError, match=r"6\.0 mm apart") as refused:
        sample_ellipse(SliceReader(linear(where)), tilted(ellipse(where, (8, 30, 36)), 5))
    assert refused.value.code == "step_too_wide"


def test_a_sample_is_void_when_any_voxel_with_weight_is() -> None:
    """Planted: void voxels left out and the other weights kept."""
    where = geometry(steps_mm=(1.0, 1.0, 1.0))
    hu = linear_hu(all_points(where))
    hu[8, 30, 36] = np.nan
    one = tilted(ellipse(where, (8, 30, 36), (5.0, 4.0)), 20)
    got = sample_ellipse(SliceReader(filled(where, hu)), one)
    away = np.abs(where.index_at(got.points_lps_mm) - [8, 30, 36])
    has_weight = (away < 1 - 1e-5).all(axis=1)
    assert np.array_equal(np.isnan(got.hu), has_weight)
    np.testing.assert_allclose(got.hu[~has_weight], linear_hu(got.points_lps_mm[~has_weight]), atol=5e-3)


def test_samples_beyond_the_volume_have_no_value() -> None:
    where = geometry()
    one = tilted(ellipse(where, (0.5, 30, 36)), 25)
    got = sample_ellipse(SliceReader(linear(where)), one)
    k = where.index_at(got.points_lps_mm)[:, 0]
    assert np.array_equal(got.inside, k > -1e-6)
    assert np.isnan(got.hu[~got.inside]).all()
    assert 0.3 < got.inside.mean() < 0.9


def test_each_slice_is_read_once_and_only_those_that_are_touched() -> None:
    where = geometry()
    volume = filled(where, 100)
    reader = SliceReader(volume)
    first = sample_ellipse(reader, tilted(ellipse(where, (8, 30, 36)), 15))
    sample_ellipse(reader, ellipse(where, (8, 30, 36)))
    assert isinstance(volume.source, Source)
    assert sorted(volume.source.reads) == sorted(first.slices)
    reach = 8 * np.sin(np.radians(15)) / 1.5
    assert (min(first.slices), max(first.slices)) == (int(8 - reach), int(np.ceil(8 + reach)))
