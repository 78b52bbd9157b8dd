"""Who is asked about an unclear body, in which order, and how often the whole spine is solved for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spineimg.geometry import Geometry
from spineimg.pipeline import assess, found_rois
from spineimg.vertebra import click as click_module
from spineimg.vertebra.body import Body, BodyNotFoundError
from spineimg.vertebra.candidates import SpineSettings
from spineimg.vertebra.click import Clicks
from spineimg.vertebra.crop import cut_box
from spineimg.vertebra.spine import Solved, near_body
from spineimg.volume import ArraySource, CTVolume
from tests.vertebra.spine_phantoms import spine


def unclear(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no fit is believed by itself."""

    def refused(*_: Any, **__: Any) -> Body:
        raise BodyNotFoundError("uncertain", "not by itself")

    monkeypatch.setattr(click_module, "find_body", refused)


def counting(clicks: Clicks) -> tuple[Clicks, list[Solved]]:
    """The same, and what it was given when it asked for the whole spine."""
    asked: list[Solved] = []

    def solve() -> Solved:
        asked.append(clicks.solve())
        return asked[-1]

    return replace(clicks, solve=solve), asked


def test_an_unclear_click_asks_near_neighbours_before_the_whole_spine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the body. Planted: the whole spine asked at once."""
    unclear(monkeypatch)
    phantom, volume = spine()
    center = phantom.vertebra("L4").frame.center_lps_mm
    found = []
    for whole in (False, True):
        clicks, asked = counting(Clicks.of(volume, whole=whole))
        found.append(clicks.body(center))
        assert len(asked) == whole
        assert found[-1].notes[-1].code == "from_neighbours"
        assert np.linalg.norm(found[-1].center_lps_mm - center) < 1.5
    assert np.linalg.norm(found[0].center_lps_mm - found[1].center_lps_mm) < 0.5


def test_near_neighbours_speak_only_where_enough_stand_by_themselves() -> None:
    """Planted: the number of witnesses not asked for."""
    phantom, volume = spine()
    center = phantom.vertebra("L4").frame.center_lps_mm
    assert near_body(volume, center) is not None
    assert near_body(volume, center, SpineSettings(witnesses=6)) is None
    beside = center + np.array([60.0, 0.0, 0.0])
    assert near_body(volume, beside) is None


def test_a_list_of_levels_and_its_measurements_solve_the_spine_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no fit is believed by itself in the second. Planted: the measurement with clicks of its own."""
    _, volume = spine()
    clicks = Clicks.of(volume, whole=True)
    rois = found_rois(volume, clicks)
    unclear(monkeypatch)
    solved = clicks.solve()
    monkeypatch.setattr("spineimg.vertebra.spine.find_start", None)
    result = assess(volume, rois, clicks=clicks)
    assert clicks.solve() is solved
    assert [one.hu.body is not None for one in result.vertebrae] == [True] * len(rois.vertebrae)


def test_a_crop_may_pass_over_fine_voxels() -> None:
    """HU that grow evenly in space read the same. Planted: the steps of the lattice kept while rows are passed over."""
    index = np.stack(np.meshgrid(*map(np.arange, (60, 50, 50)), indexing="ij"), axis=-1)
    affine = np.array([[0, 0, 0.7, -20], [0, 0.7, 0, 5], [0.9, 0, 0, 100], [0, 0, 0, 1.0]])
    geometry = Geometry.from_affine((60, 50, 50), affine)
    slope = np.array([3.0, -5.0, 4.0])
    volume = CTVolume(geometry, ArraySource((geometry.lps_at(index) @ slope).astype(np.float32)))
    middle = geometry.lps_at([30, 25, 25])
    for least_mm in (0.0, 1.9):
        crop = cut_box(volume, middle, [(20, 20), (10, 10), (10, 10)], 2.5, least_mm)
        places = np.stack(np.meshgrid(*map(np.arange, crop.hu.shape), indexing="ij"), axis=-1)
        assert crop.covered.all()
        np.testing.assert_allclose(crop.hu, crop.lps(places) @ slope, atol=0.01)
