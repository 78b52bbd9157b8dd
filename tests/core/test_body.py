"""One click -> a vertebral body, against the truth of a phantom."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spineimg.geometry import Geometry
from spineimg.phantom import BodyTruth, body_truth
from spineimg.vertebra.body import Body, BodyNotFoundError, find_body, refuse_cut
from spineimg.vertebra.crop import CropSettings, cut_out
from spineimg.vertebra.endplate_search import search_endplate
from spineimg.vertebra.trust import Findings, TrustSettings, doubt, quality
from spineimg.volume import Acquisition, ArraySource, CTVolume
from tests.core.body_phantoms import lumbar, turned


def _truth(level: str) -> BodyTruth:
    return body_truth(lumbar()[0].vertebra(level))


def _at(truth: BodyTruth, left: float, posterior: float, cranial: float) -> np.ndarray:
    """LPS of a place given in fractions of half the width, depth and height."""
    half = np.array([truth.width_mm, truth.depth_mm, truth.height_mm]) / 2
    return truth.frame.lps(half * [left, posterior, cranial])


def _angles_deg(body: Body, truth: BodyTruth) -> list[float]:
    pairs = ((body.superior, truth.superior), (body.inferior, truth.inferior))
    return [float(np.degrees(np.arccos(min(1.0, a.normal_lps @ b.normal_lps)))) for a, b in pairs]


def _offsets_mm(body: Body, truth: BodyTruth) -> list[float]:
    pairs = ((body.superior, truth.superior), (body.inferior, truth.inferior))
    return [float((b.point_lps_mm - a.point_lps_mm) @ a.normal_lps) for a, b in pairs]


@pytest.mark.parametrize("level", ["L2", "L3"])
@pytest.mark.parametrize("place", [(0, 0, 0), (0.35, 0.3, 0.4), (-0.4, -0.25, -0.35)])
def test_planes_and_centre(level: str, place: tuple[float, float, float]) -> None:
    """Planted: the shell of the model on the disc's side of the surface."""
    truth = _truth(level)
    body = find_body(lumbar()[1], _at(truth, *place))
    assert max(_angles_deg(body, truth)) < 2.0
    assert max(np.abs(_offsets_mm(body, truth))) < 0.5
    assert np.linalg.norm(body.center_lps_mm - truth.frame.center_lps_mm) < 1.2
    assert body.height_mm == pytest.approx(truth.height_mm, abs=0.7)
    assert body.quality > 0.8


def test_axes_are_the_patients() -> None:
    truth = _truth("L3")
    body = find_body(lumbar()[1], truth.frame.center_lps_mm)
    np.testing.assert_allclose(body.axes @ body.axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.diag(body.axes @ truth.frame.axes.T), 1, atol=0.004)
    # The outline is taken at the waist, which is 0.88 of the rim.
    assert 0.84 < body.width_mm / truth.width_mm < 0.96
    assert 0.88 < body.depth_mm / truth.depth_mm < 1.03


@pytest.mark.parametrize(
    ("flips", "order"),
    [
        ((1, 2), (0, 1, 2)),
        ((0, 2), (0, 1, 2)),
        ((0,), (0, 1, 2)),
        ((), (0, 2, 1)),
        ((2,), (2, 0, 1)),
        ((1,), (1, 0, 2)),
    ],
    ids=["prone", "feet first", "descending", "rows and columns swapped", "sagittal", "coronal"],
)
def test_storage_does_not_matter(flips: tuple[int, ...], order: tuple[int, int, int]) -> None:
    """Planted: the grid's axes taken in the order of storage."""
    volume, click = lumbar()[1], _truth("L3").frame.center_lps_mm
    crop, other = (cut_out(v, click, CropSettings()) for v in (volume, turned(volume, flips, order)))
    np.testing.assert_allclose(other.axes, crop.axes, atol=1e-9)
    np.testing.assert_array_equal(other.covered, crop.covered)
    np.testing.assert_allclose(other.hu, crop.hu, atol=0.5)


def test_prone_feet_first_body() -> None:
    truth = _truth("L2")
    body = find_body(turned(lumbar()[1], (0, 1)), truth.frame.center_lps_mm)
    assert max(_angles_deg(body, truth)) < 2.0
    assert np.linalg.norm(body.center_lps_mm - truth.frame.center_lps_mm) < 1.2


def test_gantry_tilt_is_straightened() -> None:
    """A linear field on a sheared lattice comes back as that field. Planted: one in-plane offset for all slices."""
    slope = np.array([2.0, -3.0, 4.0])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([[0, 0.6, 2.0], [0, 0.9, 0], [0.9, 0, 0]], axis=1)
    geometry = Geometry.from_affine((50, 120, 120), affine)
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    hu = (geometry.lps_at(index) @ slope).astype(np.float32)
    middle = geometry.lps_at([25, 60, 60])
    crop = cut_out(CTVolume(geometry, ArraySource(hu)), middle, CropSettings())
    places = crop.lps(np.stack(np.meshgrid(*map(np.arange, crop.hu.shape), indexing="ij"), axis=-1))
    inner = np.linalg.norm(places - middle, axis=-1) < 25
    np.testing.assert_allclose(crop.hu[inner], (places @ slope)[inner], atol=0.05)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ((0, 0, 1.35), "click_in_disc"),
        ((0, 1.5, 0), ""),
        ((1.9, 0, 0), ""),
        ((0, -1.8, 0), ""),
        ((0.2, 3.2, 0), ""),
    ],
    ids=["disc", "canal", "beside", "in front", "behind"],
)
def test_clicks_outside_are_refused(place: tuple[float, float, float], code: str) -> None:
    with pytest.raises(BodyNotFoundError) as refused:
        find_body(lumbar()[1], _at(_truth("L3"), *place))
    assert refused.value.code == code or not code


@pytest.mark.parametrize("part", [1 / 6, 0.52])
def test_cut_body_is_refused(part: float) -> None:
    """L2 without its upper third, and L2 whole with an image that ends at its endplate."""
    volume, truth = lumbar()[1], _truth("L2")
    keep = int(volume.geometry.index_at(truth.frame.lps([0, 0, part * truth.height_mm]))[0]) + 1
    with pytest.raises(BodyNotFoundError):
        find_body(_without(volume, range(keep, volume.geometry.shape[0])), truth.frame.center_lps_mm)


def test_body_beside_the_image_is_refused() -> None:
    """The image ends within the left wall. Planted: the check of the image's edge left out."""
    volume, truth = lumbar()[1], _truth("L3")
    body = find_body(volume, truth.frame.center_lps_mm)
    edge = volume.geometry.index_at(_at(truth, 0.8, 0, 0))[2]
    with pytest.raises(BodyNotFoundError) as refused:
        refuse_cut(replace_columns(volume.geometry, int(edge)), body)
    assert refused.value.code == "body_cut"
    refuse_cut(volume.geometry, body)


def replace_columns(geometry: Geometry, columns: int) -> Geometry:
    shape = (geometry.shape[0], geometry.shape[1], columns)
    return Geometry(shape, geometry.origins_lps_mm, geometry.row_step_lps_mm, geometry.column_step_lps_mm)


def _without(volume: CTVolume, missing: Container[int]) -> CTVolume:
    """The volume with some slices missing."""
    geometry = volume.geometry
    keep = [k for k in range(geometry.shape[0]) if k not in missing]
    stack = np.stack([volume.read(k) for k in keep])
    rest = Geometry(stack.shape, geometry.origins_lps_mm[keep], geometry.row_step_lps_mm, geometry.column_step_lps_mm)
    return replace(volume, geometry=rest, source=ArraySource(stack))


def test_body_in_gap_is_refused() -> None:
    """Three slices in the middle of L3 are missing."""
    volume, truth = lumbar()[1], _truth("L3")
    k = round(float(volume.geometry.index_at(truth.frame.center_lps_mm)[0]))
    with pytest.raises(BodyNotFoundError):
        find_body(_without(volume, range(k, k + 3)), truth.frame.center_lps_mm)


def test_click_outside_volume_and_empty_volume() -> None:
    volume = lumbar()[1]
    with pytest.raises(BodyNotFoundError, match="outside the volume"):
        find_body(volume, [500.0, 0.0, 0.0])
    flat = np.full(volume.geometry.shape, 50, np.int16)
    with pytest.raises(BodyNotFoundError):
        find_body(CTVolume(volume.geometry, ArraySource(flat), Acquisition()), _truth("L3").frame.center_lps_mm)


def test_quality_and_doubt() -> None:
    good = Findings(150, 0.9, 0.66, 0.8, 2, 1, 0.5, 0.8, 0.5, 2.5, 1.0)
    assert quality(good) > 0.9
    assert doubt(good, TrustSettings()) is None
    bulging = replace(good, tilt_sd_deg=2.0, convex_tilt_sd_deg=0.8)
    for plain in (replace(good, canal_hu=20), replace(good, bone_hu=200), replace(good, move_mm=4.5), bulging):
        assert doubt(plain, TrustSettings()) is None
    for worse, code in (
        (replace(good, canal_hu=10), "no_canal"),
        (replace(good, canal_hu=20, wall=0.7, explained=0.2, move_mm=3), "no_canal"),
        (replace(good, wall=0.4), "walls_unclear"),
        (replace(good, height=1.3), "not_a_body"),
        (replace(good, wedge_deg=40), "endplates_contradict"),
        (replace(good, neighbours=1.5), "neighbours_contradict"),
        (replace(good, explained=0.0), "endplates_unclear"),
        (replace(good, tilt_sd_deg=3.5), "endplates_unclear"),
        (replace(good, convex_tilt_sd_deg=1.1), "endplates_unclear"),
        (replace(good, oddities=1), "endplates_unclear"),
        (replace(good, bone_hu=200, tilt_sd_deg=1.2), "endplates_contradict"),
        (replace(good, move_mm=4.5, neighbours=1.2), "endplates_unclear"),
        (replace(good, wall=0.69, explained=0.2, disc_score=-1, move_mm=3.5, tilt_sd_deg=2.4), "uncertain"),
    ):
        assert quality(worse) <= quality(good)
        reason = doubt(worse, TrustSettings())
        assert reason is not None
        assert reason[0] == code


@pytest.mark.parametrize(("which", "tilt_sd_deg", "believed"), [(0, 0.5, True), (0, 1.2, False), (1, 1.2, False)])
def test_an_endplate_that_bulges_must_be_certain(
    monkeypatch: pytest.MonkeyPatch, which: int, tilt_sd_deg: float, believed: bool
) -> None:
    """Planted: only the superior endplate held to it."""
    real, calls = search_endplate, []

    def bulging(*told: Any, **more: Any) -> Any:
        found = real(*told, **more)
        calls.append(found)
        changed = len(calls) - 1 == which
        return replace(found, concavity_mm=-0.2, tilt_sd_deg=tilt_sd_deg) if changed else found

    monkeypatch.setattr("spineimg.vertebra.body.search_endplate", bulging)
    center = _truth("L3").frame.center_lps_mm
    if believed:
        find_body(lumbar()[1], center)
        return
    with pytest.raises(BodyNotFoundError) as refused:
        find_body(lumbar()[1], center)
    assert refused.value.code == "endplates_unclear"
