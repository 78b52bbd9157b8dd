"""Ellipses as napari's shapes and back."""

from __future__ import annotations

import numpy as np
import pytest
from spineimg.errors import RoiError
from spineimg.geometry import unit
from spineimg.rois import Ellipse

from napari_spineimg.display import Display, world_from_lps
from napari_spineimg.roi_shapes import Flat, ShapeFrame, corners, edited, outline, shifted

FRAME = ShapeFrame(Display(None, np.array([-1.5, 0.7, 0.7]), np.array([-200.0, -100.0, -50.0]), exact=True))
AXIAL, SAGITTAL = (1, 2), (0, 1)


def tilted(degrees: float = 20.0) -> Ellipse:
    u = unit(np.array([1.0, 0.0, 0.1]))
    v = unit(np.cross(np.array([-0.1, -np.sin(np.radians(degrees)), np.cos(np.radians(degrees))]), u))
    return Ellipse("mid", np.array([5.0, -80.0, 210.0]), u, v, (13.0, 8.0))


def test_ellipse_is_drawn_where_it_is() -> None:
    """Planted: the slice axis left in mm."""
    ring = corners(FRAME, tilted())
    np.testing.assert_allclose(FRAME.lps(ring).mean(axis=0), tilted().center_lps_mm, atol=1e-4)
    np.testing.assert_allclose(FRAME.lps(FRAME.data(outline(tilted()))), outline(tilted()), atol=1e-9)


def test_tilted_ellipse_is_drawn_on_each_slice_it_reaches() -> None:
    """napari draws a shape on a slice only when all of it lies there."""
    ring = corners(FRAME, tilted())
    low, high = ring[:, 0].min(), ring[:, 0].max()
    assert high - low > 2
    flat = Flat([ring], ["L3"])
    for at in (np.ceil(low), np.round((low + high) / 2), np.floor(high)):
        (drawn,) = flat.on(0, float(at))
        assert (drawn[:, 0] == at).all()
        np.testing.assert_allclose(drawn[:, 1:], ring[:, 1:], rtol=1e-6)
    (beyond,) = flat.on(0, float(high + 5))
    assert abs(beyond[0, 0] - (low + high) / 2) < 1e-4
    assert flat.on(0, float(high + 9))[0] is beyond
    np.testing.assert_allclose(flat.on(None, 0.0)[0], ring, rtol=1e-6)


def test_of_steep_planes_of_one_body_the_nearest_is_drawn() -> None:
    """Other bodies are not concerned. Planted: all that reach the slice; the farthest."""
    ring = corners(FRAME, tilted())
    rings = [ring, ring + [1.0, 0.0, 0.0], ring + [0.4, 0.0, 0.0]]
    at = float(np.round(ring[:, 0].mean()))
    on = [bool((drawn[:, 0] == at).all()) for drawn in Flat(rings, ["L3", "L3", "L4"]).on(0, at)]
    assert on == [True, False, True]
    on = [bool((drawn[:, 0] == at + 1).all()) for drawn in Flat(rings, ["L3", "L3", "L4"]).on(0, at + 1)]
    assert on == [False, True, True]


def test_rods_are_drawn_as_the_piece_around_an_axial_slice() -> None:
    """Planted: the piece around the slice before; the whole rod on every slice."""
    rod = np.array([[10.0, 0.0, 0.0], [20.0, 5.0, 0.0], [40.0, 5.0, 20.0]])
    flat = Flat([rod], ["rod"], [True])
    np.testing.assert_allclose(flat.on(0, 15.0)[0], [[15.0, 1.5, 0.0], [15.0, 3.5, 0.0]])
    np.testing.assert_allclose(flat.on(0, 30.0)[0], [[30.0, 5.0, 8.0], [30.0, 5.0, 12.0]])
    assert (flat.on(0, 50.0)[0][:, 0] == 40.0).all()
    np.testing.assert_allclose(flat.on(1, 4.0)[0], rod * [1.0, 0.0, 1.0] + [0.0, 4.0, 0.0])


def test_reshaping_stays_in_the_plane() -> None:
    """Stretching and turning the drawn shape gives the ellipse that is drawn. Planted: axes not made orthogonal."""
    old = tilted()
    ring = corners(FRAME, old)
    middle = ring.mean(axis=0)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    flat = (ring - middle)[:, 1:] @ turn.T * 1.2
    moved = ring.copy()
    moved[:, 1:] = flat + middle[1:]
    new = edited(FRAME, old, ring, moved, AXIAL)
    assert np.abs((outline(new) - old.center_lps_mm) @ old.normal_lps).max() < 1e-4
    # Seen along the line of sight, every point of the new outline lies on the drawn shape.
    p, q = (moved[1] - moved[0])[1:] / 2 * FRAME.scale[1], (moved[3] - moved[0])[1:] / 2 * FRAME.scale[1]
    seen = world_from_lps(outline(new))[:, 1:] - world_from_lps(old.center_lps_mm)[1:]
    on = np.linalg.solve(np.stack([p, q], axis=1), seen.T)
    np.testing.assert_allclose(np.hypot(*on), 1.0, atol=1e-4)


def test_moving_along_the_plane_and_with_it() -> None:
    """Face on, a move slides along the plane; from the side it takes the plane along."""
    old = tilted()
    ring = corners(FRAME, old)
    new = edited(FRAME, old, ring, ring + [0.0, 4.0, -3.0] / FRAME.scale, AXIAL)
    way = new.center_lps_mm - old.center_lps_mm
    np.testing.assert_allclose(way[:2], [-3.0, 4.0], atol=1e-4)
    assert abs(way @ old.normal_lps) < 1e-4
    assert new.semi_axes_mm == old.semi_axes_mm
    side = edited(FRAME, old, ring, ring + [3.0, 1.0, 0.0] / FRAME.scale, SAGITTAL)
    np.testing.assert_allclose(side.center_lps_mm - old.center_lps_mm, [0.0, 1.0, -3.0], atol=1e-4)


def test_what_is_no_ellipse_is_refused() -> None:
    old = tilted()
    ring = corners(FRAME, old)
    with pytest.raises(RoiError, match="no ellipse"):
        edited(FRAME, old, ring, ring[:3], AXIAL)
    stretched = ring.copy()
    stretched[:2, 1] += 3
    with pytest.raises(RoiError, match="from the side"):
        edited(FRAME, old, ring, stretched, SAGITTAL)


def test_plane_moves_along_its_normal() -> None:
    up = shifted(tilted(), 2.0).center_lps_mm - tilted().center_lps_mm
    assert up[2] > 0
    assert np.linalg.norm(up) == pytest.approx(2.0)
    assert abs(up @ tilted().u_lps) < 1e-9
