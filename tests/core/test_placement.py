"""Three ROIs in a found body, against the truth of a phantom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spineimg.phantom import body_truth
from spineimg.phantom.samples import Points
from spineimg.rois import POSITIONS, Ellipse
from spineimg.sampling import SliceReader, sample_ellipse
from spineimg.vertebra.body import Body, find_body
from spineimg.vertebra.placement import PlacementError, PlacementSettings, place_rois
from spineimg.volume import ArraySource, CTVolume
from tests.core.body_phantoms import lumbar


@pytest.fixture(scope="module")
def body() -> Body:
    phantom, volume = lumbar()
    return find_body(volume, body_truth(phantom.vertebra("L3")).frame.center_lps_mm)


def _points(ellipse: Ellipse) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    rings = np.concatenate([np.stack([np.cos(turn), np.sin(turn)], axis=-1) * s for s in (0.3, 0.7, 1.0)])
    a, b = ellipse.semi_axes_mm
    return ellipse.center_lps_mm + a * rings[:, :1] * ellipse.u_lps + b * rings[:, 1:] * ellipse.v_lps


@pytest.mark.parametrize("plane", ["endplate", "scanner"])
def test_rois_lie_in_plain_bone(body: Body, plane: str) -> None:
    """Planted: the inset without the slice spacing; the vein's region left out of the mid plane."""
    phantom, volume = lumbar()
    filling = phantom.filling("L3")
    rois = place_rois(volume, body, plane)
    assert [roi.position for roi in rois] == list(POSITIONS)
    for roi in rois:
        points = Points(_points(roi))
        wall, top, bottom = filling.body.surfaces(points)
        assert wall.max() < -2.0
        assert max(top.max(), bottom.max()) < -2.5
        assert filling.clear(points, 0.0).all()
        assert np.pi * np.prod(roi.semi_axes_mm) > 200


@pytest.mark.parametrize("plane", ["endplate", "scanner"])
def test_hu_is_the_trabecular_mean(body: Body, plane: str) -> None:
    phantom, volume = lumbar()
    reader = SliceReader(volume)
    rois = place_rois(volume, body, plane)
    errors = [float(sample_ellipse(reader, roi).hu.mean()) - phantom.tissue_mean_hu("L3", roi) for roi in rois]
    assert abs(np.mean(errors)) < 3.0


def test_planes(body: Body) -> None:
    """Endplate planes are parallel to the mid-plane, in order, and 4.3 mm + 0.6 slices from the endplates."""
    rois = place_rois(lumbar()[1], body)
    heights = [(roi.center_lps_mm - body.center_lps_mm) @ body.cranial_lps for roi in rois]
    assert all(abs(abs(roi.normal_lps @ body.cranial_lps) - 1) < 1e-9 for roi in rois)
    inset = body.height_mm / 2 - heights[0]
    assert 4.3 + 0.6 * 2.0 - 1e-6 <= inset < 4.3 + 0.6 * 2.0 + 0.6
    assert heights[0] > heights[1] > heights[2]


def test_scanner_planes_are_original_slices(body: Body) -> None:
    volume = lumbar()[1]
    for roi in place_rois(volume, body, "scanner"):
        index = volume.geometry.index_at(roi.center_lps_mm)
        assert abs(index[0] - round(float(index[0]))) < 1e-6
        assert not sample_ellipse(SliceReader(volume), roi, "scanner").resampled


def test_metal_in_the_body_is_avoided(body: Body) -> None:
    """A screw of 6 mm through the left half: no ROI sample above 400 HU. Planted: bright places not marked."""
    volume = lumbar()[1]
    stack = np.stack([volume.read(k) for k in range(volume.geometry.shape[0])])
    index = np.stack(np.meshgrid(*map(np.arange, stack.shape), indexing="ij"), axis=-1)
    local = (volume.geometry.lps_at(index) - body.center_lps_mm) @ body.axes.T
    screw = np.hypot(local[..., 0] - 10, local[..., 2]) < 3
    screw &= np.abs(local[..., 1]) < 20
    metal = replace(volume, source=ArraySource(np.where(screw, 3000, stack).astype(np.int16)))
    rois = place_rois(metal, body)
    for roi in rois:
        assert sample_ellipse(SliceReader(metal), roi).hu.max() < 400


def test_no_room(body: Body) -> None:
    with pytest.raises(PlacementError, match="no room"):
        place_rois(lumbar()[1], body, settings=PlacementSettings(least_area_mm2=900.0))


def test_low_body_keeps_off_its_endplates(body: Body) -> None:
    """In a body of 11 mm the outer planes move to a tenth of the height from the middle."""
    low = 11.0
    flat = replace(
        body,
        height_mm=low,
        superior=replace(body.superior, point_lps_mm=body.center_lps_mm + low / 2 * body.cranial_lps),
        inferior=replace(body.inferior, point_lps_mm=body.center_lps_mm - low / 2 * body.cranial_lps),
    )
    volume: CTVolume = lumbar()[1]
    heights = [(roi.center_lps_mm - body.center_lps_mm) @ body.cranial_lps for roi in place_rois(volume, flat)]
    assert heights[0] == pytest.approx(1.1, abs=0.01)
    assert heights[2] == pytest.approx(-1.1, abs=0.01)
