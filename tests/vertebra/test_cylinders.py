"""Clicks on a phantom that shares nothing with the project's own."""

from __future__ import annotations

import numpy as np
import pytest

from spineimg import assess
from spineimg.rois import RoiSet, VertebraRoi
from spineimg.vertebra.body import BodyNotFoundError, agree, find_body
from spineimg.vertebra.click import body_of_click
from tests.vertebra.cylinders import BONE_HU, CANAL, DEPTH, DISC, HEIGHT, WIDTH, column, tilted


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (8.0, -5.0, 5.0), (-7.0, 6.0, -5.0)])
def test_planes_and_size_of_a_tilted_cylinder(place: tuple[float, float, float]) -> None:
    """Planted: the shell of the model outside of the surface; the table of edges shifted by its reach."""
    body = find_body(column(), np.array(place) @ tilted())
    cranial = tilted()[2]
    for end, height in ((body.superior, HEIGHT / 2), (body.inferior, -HEIGHT / 2)):
        assert float(end.normal_lps @ cranial) > np.cos(np.radians(1.5))
        assert float(end.point_lps_mm @ cranial) == pytest.approx(height, abs=0.6)
    assert body.width_mm == pytest.approx(WIDTH, abs=2.5)
    assert body.depth_mm == pytest.approx(DEPTH, abs=2.5)
    assert body.quality > 0.85


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (-7.0, 6.0, -5.0)])
def test_planes_of_a_plain_cylinder_without_shell_and_arches(place: tuple[float, float, float]) -> None:
    """Planted: no surface without a shell; only a canal with bone around it taken for one."""
    body = find_body(column(plain=True), np.array(place) @ tilted())
    cranial = tilted()[2]
    for end, height in ((body.superior, HEIGHT / 2), (body.inferior, -HEIGHT / 2)):
        assert float(end.normal_lps @ cranial) > np.cos(np.radians(2.0))
        assert float(end.point_lps_mm @ cranial) == pytest.approx(height, abs=0.6)


@pytest.mark.parametrize("place", [(0, 0, HEIGHT / 2 + DISC / 2), (0, DEPTH / 2 + 0.9 * CANAL, 0), (35, 20, 0)])
def test_clicks_outside_plain_cylinders_are_refused(place: tuple[float, float, float]) -> None:
    """In disc, canal and muscle. Planted: the nearest body taken for it."""
    with pytest.raises(BodyNotFoundError):
        body_of_click(column(plain=True), np.array(place, dtype=np.float64) @ tilted())


OUTSIDE = {
    "disc": (0, 0, HEIGHT / 2 + DISC / 2),
    "canal": (0, DEPTH / 2 + 0.9 * CANAL, 0),
    "in front by 3 mm": (0, -DEPTH / 2 - 3, 0),
    "beside by 3 mm": (WIDTH / 2 + 3, 0, 0),
    "muscle": (35, 20, 0),
    "lamina": (0, DEPTH / 2 + 2 * CANAL + 2, 0),
}


@pytest.mark.parametrize("place", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_clicks_outside_are_refused(place: tuple[float, float, float]) -> None:
    """Planted: the nearest body taken for it."""
    with pytest.raises(BodyNotFoundError):
        body_of_click(column(), np.array(place, dtype=np.float64) @ tilted())


def test_the_result_holds_the_body_that_was_found_and_the_bone_of_the_cylinder() -> None:
    """Planted: the body of the click left out of the result."""
    (found,) = assess(column(), RoiSet((VertebraRoi("L3", np.array([3.0, 2.0, -3.0]) @ tilted()),))).vertebrae
    assert found.hu.body is not None
    assert float(np.linalg.norm(found.hu.body.center_lps_mm)) < 1.5
    assert found.hu.mean_hu == pytest.approx(BONE_HU, abs=2)


def test_fits_agree_within_an_angle_and_a_distance() -> None:
    """Planted: the distance taken at one end only."""
    from dataclasses import replace

    body = find_body(column(), np.zeros(3))
    assert agree(body, body, 0.1, 0.1)
    moved = replace(body.inferior, point_lps_mm=body.inferior.point_lps_mm - 2.5 * body.inferior.normal_lps)
    assert agree(replace(body, inferior=moved), body, 1, 2.6)
    assert not agree(replace(body, inferior=moved), body, 1, 2.4)
    lean = np.cos(np.radians(6)) * body.superior.normal_lps + np.sin(np.radians(6)) * body.left_lps
    turned = replace(body.superior, normal_lps=lean / np.linalg.norm(lean))
    assert not agree(replace(body, superior=turned), body, 5, 3)
