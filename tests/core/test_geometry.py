"""Geometry against formulas: where voxels are, how far apart, and back from a point to its index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spineimg.errors import GeometryError
from spineimg.geometry import Gap, Geometry, unit
from spineimg.volume import ArraySource, CTVolume
from tests.core.conformance import check_slice_source

ROW = np.array([0.0, 0.7, 0.0])
COLUMN = np.array([0.6, 0.0, 0.0])


def axial(z_mm: list[float] | np.ndarray, rows: int = 5, columns: int = 6) -> Geometry:
    """Axial slices at the given heights, 0.7 x 0.6 mm, first voxel at x = -10, y = 20."""
    z = np.asarray(z_mm, dtype=float)
    origins = np.stack([np.full(len(z), -10.0), np.full(len(z), 20.0), z], axis=1)
    return Geometry((len(z), rows, columns), origins, ROW, COLUMN)


def rotation(a: float, b: float, c: float) -> np.ndarray:
    """(3, 3) rotation about x, y, z by the angles in radians."""
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


# -- one lattice, by hand ----------------------------------------------------------------------------------------------


def test_voxel_places_by_hand():
    """Planted: row and column step swapped in lps_at."""
    geometry = axial([100.0, 102.0, 104.0])
    assert geometry.lps_at([0, 0, 0]) == pytest.approx([-10, 20, 100])
    assert geometry.lps_at([2, 3, 4]) == pytest.approx([-10 + 4 * 0.6, 20 + 3 * 0.7, 104])
    assert geometry.lps_at([0.5, 0, 0]) == pytest.approx([-10, 20, 101])
    assert geometry.index_at([-10 + 5 * 0.6, 20 + 0.7, 103]) == pytest.approx([1.5, 1, 5])
    assert geometry.spacing_mm == pytest.approx((2.0, 0.7, 0.6))
    assert geometry.normal_lps == pytest.approx([0, 0, 1])
    assert geometry.shear_deg == 0
    assert not geometry.varies
    assert geometry.gaps == ()


def test_points_keep_their_leading_shape():
    geometry = axial([0.0, 1.0, 2.0])
    index = np.arange(24, dtype=float).reshape(2, 4, 3) / 5
    point = geometry.lps_at(index)
    assert point.shape == (2, 4, 3)
    assert geometry.index_at(point) == pytest.approx(index)


@pytest.mark.parametrize("tilt_deg", [-20.0, 0.3, 14.0])
def test_gantry_tilt_is_a_shear(tilt_deg):
    """Axial planes whose origins also move in y: spacing is along the normal. Planted: spacing as |slice step|."""
    tilt = np.radians(tilt_deg)
    step = np.array([0, 2.5 * np.tan(tilt), 2.5])
    geometry = Geometry((4, 5, 6), np.arange(4)[:, None] * step, ROW, COLUMN)
    assert geometry.spacing_mm[0] == pytest.approx(2.5)
    assert geometry.shear_deg == pytest.approx(abs(tilt_deg))
    assert geometry.lps_at([3, 0, 0]) == pytest.approx(3 * step)
    assert geometry.index_at(3 * step + 2 * ROW) == pytest.approx([3, 2, 0])
    assert geometry.lps_from_index[:3, 0] == pytest.approx(step)


def test_left_handed_and_descending():
    """Feet-first storage: slices go down, the normal still points up. Planted: k not turned round when descending."""
    geometry = axial([50.0, 49.0, 48.0, 46.0])
    assert geometry.normal_lps == pytest.approx([0, 0, 1])
    assert geometry.index_at([-10, 20, 49.5])[0] == pytest.approx(0.5)
    assert geometry.index_at([-10, 20, 47.0])[0] == pytest.approx(2.5)
    assert geometry.nearest_slice([0, 0, 48.4]) == (2, pytest.approx(0.4))
    columns_to_the_right = [[0, 0, -0.6, 9], [0, 0.7, 0, 8], [2, 0, 0, 7], [0, 0, 0, 1]]
    mirrored = Geometry.from_affine((3, 4, 5), columns_to_the_right)
    assert mirrored.normal_lps == pytest.approx([0, 0, -1])
    assert mirrored.lps_at([1, 2, 3]) == pytest.approx([9 - 1.8, 8 + 1.4, 7 + 2])
    assert mirrored.index_at([9 - 1.8, 8 + 1.4, 7 + 2]) == pytest.approx([1, 2, 3])


def test_beyond_the_volume_by_continuation():
    geometry = axial([0.0, 1.0, 3.0])
    assert geometry.lps_at([-2, 0, 0])[2] == pytest.approx(-2)
    assert geometry.lps_at([3, 0, 0])[2] == pytest.approx(5)
    assert geometry.index_at([-10, 20, 5])[0] == pytest.approx(3)
    assert geometry.index_at([-10, 20, -2])[0] == pytest.approx(-2)


def test_single_slice():
    """k of a single slice is the distance along its normal."""
    geometry = axial([7.0])
    assert np.isnan(geometry.spacing_mm[0])
    assert geometry.shear_deg == 0
    assert geometry.gaps == ()
    assert not geometry.varies
    assert geometry.lps_at([2.5, 1, 1]) == pytest.approx([-9.4, 20.7, 9.5])
    assert geometry.index_at([-9.4, 20.7, 9.5]) == pytest.approx([2.5, 1, 1])
    assert geometry.nearest_slice([0, 0, 9.0]) == (0, pytest.approx(2.0))
    assert geometry.lps_from_index @ [0, 1, 1, 1] == pytest.approx([-9.4, 20.7, 7.0, 1])


# -- gaps and zones ----------------------------------------------------------------------------------------------------


def test_gap_keeps_its_neighbours_in_place():
    """Slices missing over 2 mm. Planted: the gap's index one too high."""
    geometry = axial([*range(6), *range(8, 14)])
    assert geometry.gaps == (Gap(5, 5.0, 8.0),)
    assert geometry.gaps[0].width_mm == pytest.approx(3)
    assert not geometry.varies
    assert geometry.spacing_mm[0] == pytest.approx(1)
    assert geometry.lps_at([6, 0, 0])[2] == pytest.approx(8)
    assert geometry.index_at([-10, 20, 6.5])[0] == pytest.approx(5.5)
    with pytest.raises(GeometryError, match="uneven"):
        _ = geometry.lps_from_index


def test_gap_of_descending_slices_is_named_from_below():
    assert axial([*range(12, 6, -1), *range(3, -1, -1)]).gaps == (Gap(5, 3.0, 7.0),)


def test_zones_of_one_and_two_mm_are_no_gaps():
    """1 mm slices, then 2 mm slices, as some protocols have it. Planted: gaps against the mean step of the volume."""
    z = [*np.arange(0.0, 40.0), *np.arange(40.0, 61.0, 2.0)]
    geometry = axial(z)
    assert geometry.gaps == ()
    assert geometry.varies
    assert geometry.usual_steps_mm == pytest.approx(np.diff(z))
    for k, height in enumerate(z):
        assert geometry.lps_at([k, 0, 0])[2] == pytest.approx(height)
        assert geometry.nearest_slice([0, 0, height]) == (k, pytest.approx(0))


def test_gap_within_a_zone_of_two_mm():
    geometry = axial([*np.arange(0.0, 10.0), *np.arange(10.0, 21.0, 2.0), *np.arange(24.0, 35.0, 2.0)])
    assert geometry.gaps == (Gap(15, 20.0, 24.0),)
    assert geometry.varies


@pytest.mark.parametrize(
    ("steps", "gap"),
    [
        ((5, 5, 10), (2, 10, 20)),
        ((0.778, 0.778, 1.556), (2, 1.556, 3.112)),
        ((10, 5, 5), (0, 0, 10)),
        ((5, 10), (1, 5, 15)),
    ],
)
def test_gap_in_a_few_slices(steps, gap):
    """No stretch of even slices tells the usual step: the smallest one does."""
    found = axial(np.cumsum([0, *steps])).gaps
    assert len(found) == 1
    assert (found[0].after, found[0].start_mm, found[0].end_mm) == pytest.approx(gap)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origins_lps_mm": [[0, 0, 0], [0, 0, 1]]}, "one origin a slice"),
        ({"shape": (0, 5, 6), "origins_lps_mm": np.zeros((0, 3))}, "one origin a slice"),
        ({"origins_lps_mm": [[0, 0, 0], [0, 0, 1], [0, 0, 1]]}, "not sorted"),
        ({"origins_lps_mm": [[0, 0, 0], [0, 0, 2], [0, 0, 1]]}, "not sorted"),
        ({"origins_lps_mm": [[0, 0, 0], [0, 3, 0], [0, 6, 0]]}, "not sorted"),
        ({"origins_lps_mm": [[0, 0, 0], [0, 0, np.nan], [0, 0, 2]]}, "finite"),
        ({"row_step_lps_mm": [0.6, 0, 0]}, "parallel or zero"),
        ({"row_step_lps_mm": [0, 0, 0]}, "parallel or zero"),
        ({"row_step_lps_mm": [0, 1e30, 0]}, "absurdly large"),
        ({"origins_lps_mm": [[0, 0, 0], [0, 0, 1], [0, 0, 1e30]]}, "absurdly large"),
        ({"row_step_lps_mm": [0, np.inf, 0]}, "finite"),
    ],
)
def test_no_volume(change, message):
    given_ = {
        "shape": (3, 5, 6),
        "origins_lps_mm": [[0, 0, 0], [0, 0, 1], [0, 0, 2]],
        "row_step_lps_mm": ROW,
        "column_step_lps_mm": COLUMN,
    }
    with pytest.raises(GeometryError, match=message):
        Geometry(**{**given_, **change})


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1])])
def test_no_affine(affine):
    with pytest.raises(GeometryError):
        Geometry.from_affine((3, 4, 5), affine)


def test_arrays_are_the_geometrys_own():
    origins = np.array([[0, 0, 0], [0, 0, 1.0]])
    geometry = Geometry((2, 3, 4), origins, ROW, COLUMN)
    origins[:] = 9
    assert geometry.lps_at([1, 0, 0]) == pytest.approx([0, 0, 1])
    with pytest.raises(ValueError, match="read-only"):
        geometry.origins_lps_mm[0] = 1


def test_unit():
    assert unit([3, 0, 4]) == pytest.approx([0.6, 0, 0.8])
    for bad in ([0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0]):
        with pytest.raises(GeometryError):
            unit(bad)


# -- round trips -------------------------------------------------------------------------------------------------------

angles = st.floats(-np.pi, np.pi)
spacings = st.floats(0.2, 6.0)


@st.composite
def lattices(draw: st.DrawFn) -> Geometry:
    """Any lattice a scanner or a file may hold: turned, mirrored, sheared, uneven, ascending or descending."""
    turn = rotation(draw(angles), draw(angles), draw(angles))
    shear = draw(st.floats(-0.6, 0.6))
    in_plane = draw(st.floats(-0.3, 0.3))
    column = turn @ [draw(spacings), 0, 0]
    row = turn @ (np.array([in_plane, 1.0, 0.0]) * draw(spacings))
    if draw(st.booleans()):
        row, column = column, row
    slices = draw(st.integers(2, 12))
    steps = draw(arrays(float, slices - 1, elements=st.floats(0.2, 8.0)))
    along = turn @ [0.0, shear, 1.0] * draw(st.sampled_from([1.0, -1.0]))
    places = np.concatenate([[0], np.cumsum(steps)])
    start = draw(arrays(float, 3, elements=st.floats(-1000, 1000)))
    return Geometry((slices, 300, 400), start + places[:, None] * along, row, column)


@given(lattices(), arrays(float, 3, elements=st.floats(-0.2, 1.2)))
def test_index_to_mm_and_back(geometry, fraction):
    """Planted: in-plane part taken from slice 0 instead of the slice's own origin."""
    index = fraction * (np.array(geometry.shape) - 1)
    assert geometry.index_at(geometry.lps_at(index)) == pytest.approx(index, abs=1e-6)


@given(lattices(), arrays(float, 3, elements=st.floats(-500, 500)))
def test_mm_to_index_and_back(geometry, offset):
    point = geometry.origins_lps_mm[0] + offset
    assert geometry.lps_at(geometry.index_at(point)) == pytest.approx(point, abs=1e-6)


@given(
    arrays(float, 3, elements=spacings),
    st.tuples(angles, angles, angles),
    arrays(float, 3, elements=st.floats(-0.5, 0.5)),
    st.sampled_from([1.0, -1.0]),
)
def test_affine_comes_back(spacing, turn, shear, hand):
    matrix = rotation(*turn) @ (np.array([[hand, 0, 0], [shear[0], 1, 0], [shear[1], shear[2], 1]]) * spacing)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, (12.3, -45.6, 789.0)
    geometry = Geometry.from_affine((7, 8, 9), affine)
    assert geometry.lps_from_index == pytest.approx(affine, abs=1e-9)
    corner = np.array([6, 7, 8])
    assert geometry.lps_at(corner) == pytest.approx((affine @ [*corner, 1])[:3], abs=1e-9)


# -- volume ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_array_source_conforms(dtype):
    values = np.random.default_rng(1).integers(-1000, 1500, (4, 5, 6)).astype(dtype)
    check_slice_source(ArraySource(values), values.shape, values)


def test_what_is_no_measurement():
    class Padded(ArraySource):
        def padding_hu(self, k):
            return (-1048, -1000)

    values = np.array([[[-1048, -1000, -999], [np.nan, np.inf, 40]]], dtype=np.float32)
    volume = CTVolume(axial([0.0], 2, 3), Padded(values))
    assert volume.valid(0, volume.read(0)).tolist() == [[False, False, True], [False, False, True]]
    plain = CTVolume(axial([0.0], 2, 3), ArraySource(values))
    assert plain.valid(0, plain.read(0)).sum() == 4
    corner = CTVolume(axial([0.0], 2, 3), ArraySource(np.full((1, 2, 3), -2000, dtype=np.int16)))
    assert not corner.valid(0, corner.read(0)).any()
