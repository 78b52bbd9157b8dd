"""The chain of bodies on a phantom with its truth, and on a real scan with labels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spineimg
from spineimg.phantom import BodyTruth, body_truth
from spineimg.vertebra.body import Body, BodyNotFoundError
from spineimg.vertebra.naming import name_spine
from spineimg.vertebra.spine import find_spine, search_spine
from tests.vertebra.spine_phantoms import WHOLE, spine

DATA = os.environ.get("SPINEIMG_DATA")


def truth(level: str) -> BodyTruth:
    return body_truth(spine()[0].vertebra(level))


def worst(body: Body, true: BodyTruth) -> tuple[float, float]:
    """(mm, degrees) that the endplate planes are off."""
    pairs = ((body.superior, true.superior), (body.inferior, true.inferior))
    away = [abs(float((b.point_lps_mm - a.point_lps_mm) @ b.normal_lps)) for a, b in pairs]
    turn = [float(np.degrees(np.arccos(min(1.0, float(a.normal_lps @ b.normal_lps))))) for a, b in pairs]
    return max(away), max(turn)


@pytest.mark.parametrize("level", ["L4", "T12"])
def test_one_named_click_names_the_spine(level: str) -> None:
    """Every body, in order, with its planes. Planted: one step too many between neighbours in the chain."""
    named = name_spine(spine()[1], {level: truth(level).frame.center_lps_mm + np.array([4.0, -3.0, 3.0])})
    assert [one.level for one in named.vertebrae] == list(WHOLE[::-1])
    for one in named.vertebrae:
        away, turn = worst(one.body, truth(one.level))
        assert away < 2.0, one.level
        assert turn < 5.0, one.level
        assert one.confirmed
        assert one.body.quality > 0.6
    assert not named.unnamed
    assert {note.about for note in named.notes if note.code.startswith("stopped")} == {"T12", "L5"}


def test_a_seed_in_a_body_that_the_image_cuts_names_its_neighbours() -> None:
    """The image is cut 4 mm above T12: it is not listed, and L1 keeps its name. Planted: the list named from T12 on."""
    from dataclasses import replace

    from spineimg.geometry import Geometry
    from spineimg.volume import ArraySource

    volume, geometry = spine()[1], spine()[1].geometry
    top = truth("T12").superior.point_lps_mm[2] + 4.0
    kept = np.flatnonzero(geometry.origins_lps_mm[:, 2] < top)
    hu = np.stack([volume.source.read(int(k)) for k in kept])
    lattice = Geometry(hu.shape, geometry.origins_lps_mm[kept], geometry.row_step_lps_mm, geometry.column_step_lps_mm)
    cut = replace(volume, geometry=lattice, source=ArraySource(hu))
    named = name_spine(cut, {"T12": truth("T12").frame.center_lps_mm})
    assert [one.level for one in named.vertebrae] == ["L1", "L2", "L3", "L4", "L5"]
    assert {note.about for note in named.notes if note.code == "seed_cut"} == {"L1"}
    for one in named.vertebrae:
        assert np.linalg.norm(one.body.center_lps_mm - truth(one.level).frame.center_lps_mm) < 3


def test_without_a_click_names_come_from_the_sacrum_and_are_not_confirmed() -> None:
    """Planted: the sacrum's first segment counted as L5."""
    named = name_spine(spine()[1])
    assert [one.level for one in named.vertebrae] == list(WHOLE[::-1])
    assert not any(one.confirmed for one in named.vertebrae)
    assert "names_unconfirmed" in {note.code for note in named.notes}
    for one in named.vertebrae:
        assert np.linalg.norm(one.body.center_lps_mm - truth(one.level).frame.center_lps_mm) < 3


def test_a_spine_is_the_same_whoever_asks() -> None:
    """Clicks in other bodies, and none at all. Planted: the column begun at the seed."""
    volume = spine()[1]
    lists = [find_spine(volume, truth(level).frame.center_lps_mm).bodies for level in ("L5", "L1")]
    lists.append(search_spine(volume).bodies)
    for bodies in lists[1:]:
        for one, other in zip(lists[0], bodies, strict=True):
            np.testing.assert_array_equal(one.center_lps_mm, other.center_lps_mm)


def test_beyond_an_unclear_body_is_looked_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1 and T12 are unclear at first sight. Planted: the second look's bodies put before the first one's."""
    from dataclasses import replace

    from spineimg.vertebra import spine as module

    real, calls = module._chained, []

    def chained(*given: Any) -> Any:
        found = real(*given)
        calls.append(len(found.scene.column.arc_mm))
        if len(calls) > 1:
            return found
        unclear = [
            replace(one, reason=("uncertain", "faint")) if one.fit and one.fit.body.center_lps_mm[2] > high else one
            for one in found.candidates
        ]
        return replace(found, candidates=tuple(unclear))

    high = truth("L2").superior.point_lps_mm[2]
    monkeypatch.setattr(module, "_chained", chained)
    found = search_spine(spine()[1])
    assert calls[1] < calls[0]
    assert len(found.bodies) == len(WHOLE)
    for body, level in zip(found.bodies, WHOLE, strict=True):
        assert np.linalg.norm(body.center_lps_mm - truth(level).frame.center_lps_mm) < 3


def test_search_in_an_empty_volume_is_refused() -> None:
    from dataclasses import replace

    from spineimg.volume import ArraySource

    volume = spine()[1]
    flat = np.full(volume.geometry.shape, 40, np.int16)
    with pytest.raises(BodyNotFoundError, match="canal"):
        search_spine(replace(volume, source=ArraySource(flat)))


@pytest.mark.parametrize("place", [(0.0, 1.6, 0.0), (1.9, 0.0, 0.0), (0.0, 0.0, 1.3)], ids=["canal", "beside", "disc"])
def test_a_seed_outside_a_body_is_refused(place: tuple[float, float, float]) -> None:
    """place: in halves of width, depth and height of L3. Planted: the nearest body taken for it."""
    true = truth("L3")
    half = np.array([true.width_mm, true.depth_mm, true.height_mm]) / 2
    with pytest.raises(BodyNotFoundError):
        find_spine(spine()[1], true.frame.lps(np.array(place) * half))


@pytest.mark.skipif(DATA is None, reason="SPINEIMG_DATA is not set: no real scans")
def test_a_real_lumbar_spine_is_named_down_to_the_sacrum_and_measured_again(tmp_path: Path) -> None:
    """L1-L5 against the centres of the reference labels; the written file finds every one of them again."""
    from spineimg.io.levels import levels_to_dict
    from spineimg.io.masks import open_labels

    folder = Path(DATA or "") / "totalseg_example"
    volume = spineimg.load(folder / "example_ct.nii.gz")
    report = folder / "spine_report" / "example_ct_report"
    labels, bodies = open_labels(report / "totalseg.nii.gz"), open_labels(report / "totalseg_vertebrae_body.nii.gz")
    count = labels.geometry.shape[0]
    map_ = np.stack([labels.source.read(k) for k in range(count)])
    body = np.stack([bodies.source.read(k) for k in range(count)]) > 0
    centers = {f"L{n}": labels.geometry.lps_at(np.argwhere((map_ == 32 - n) & body).mean(axis=0)) for n in range(1, 6)}
    named = name_spine(volume, {"L3": centers["L3"]})
    assert [one.level for one in named.vertebrae] == ["L1", "L2", "L3", "L4", "L5"]
    for one in named.vertebrae:
        assert np.linalg.norm(one.body.center_lps_mm - centers[one.level]) < 4
    file = tmp_path / "levels.json"
    file.write_text(json.dumps(levels_to_dict(named, "", "0")), encoding="utf-8")
    again = spineimg.assess(volume, spineimg.read_rois(file))
    codes = {one.level: {note.code for note in one.hu.notes} for one in again.vertebrae}
    assert all("placed_from_click" in one for one in codes.values()), codes
    assert all(len(one.hu.slices) == 3 for one in again.vertebrae)
    assert all(one.hu.mean_hu is not None and 90 < one.hu.mean_hu < 140 for one in again.vertebrae)
    # A bone island at the upper half of L1: a number, and the reason to look at it, or a ROI that keeps off it.
    assert codes["L1"] & {"sd_beyond_noise", "roi_small"}
    assert "sd_beyond_noise" not in codes["L2"] | codes["L3"]


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="SPINEIMG_DATA is not set: no real scans")
@pytest.mark.parametrize("seed", [{"L3": (-14.0, 36.0, 1290.0)}, None], ids=["seed", "no seed"])
def test_a_real_spine_with_ossified_discs_is_named_down_to_the_sacrum(seed: dict[str, Any] | None) -> None:
    """3 mm slices, contrast agent; centres by eye on sagittal reformats. Planted: fits not begun anew beside a deeper
    valley, which loses L5."""
    volume = spineimg.load(Path(DATA or "") / "tcga_ov_abdomen_ce")
    named = name_spine(volume, seed)
    heights = {"T11": 1410, "T12": 1384, "L1": 1355, "L2": 1323, "L3": 1290, "L4": 1255, "L5": 1224}
    found = {one.level: one.body for one in named.vertebrae}
    assert set(heights) <= set(found)
    for level, height in heights.items():
        assert abs(found[level].center_lps_mm[2] - height) < 4, level
    assert -23 < found["L5"].wedge_deg < -15
