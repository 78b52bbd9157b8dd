"""One click to a number, on the sample study with its truth and on a real scan."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spineimg
from spineimg.anatomy import Construct
from spineimg.io.sample import sample_study
from spineimg.pipeline import used_rois
from spineimg.results import VertebraResult
from spineimg.rois import RoiSet, VertebraRoi
from spineimg.vertebra.body import Body, BodyNotFoundError, BodySettings
from spineimg.vertebra.candidates import SpineSettings
from spineimg.vertebra.click import ClickSettings, rois_of_click
from spineimg.vertebra.trust import TrustSettings
from spineimg.volume import CTVolume

STUDY = sample_study("preop")
TRUTH = {one["level"]: one for one in json.loads((STUDY / "truth.json").read_text(encoding="utf-8"))["levels"]}
WHOLE = ("L1", "L3", "L5")
DATA = os.environ.get("SPINEIMG_DATA")


def click(level: str, *offset_mm: float) -> VertebraRoi:
    return VertebraRoi(level, np.array(TRUTH[level]["center"]) + np.array(offset_mm or (0.0, 0.0, 0.0)))


def assessed(*rois: VertebraRoi, plane: str = "endplate") -> dict[str, VertebraResult]:
    result = spineimg.assess(spineimg.load(STUDY / "ct"), RoiSet(rois, Construct(liv="L5")), plane=plane)
    return {one.level: one for one in result.vertebrae}


def codes(one: VertebraResult) -> set[str]:
    return {note.code for note in one.hu.notes}


def test_a_click_reads_the_trabecular_mean_of_the_body() -> None:
    """Planted: planes at the endplates themselves read 15 HU more."""
    found = assessed(*(click(level) for level in WHOLE))
    for level in WHOLE:
        one = found[level]
        assert codes(one) == {"placed_from_click"}
        assert one.hu.mean_hu == pytest.approx(TRUTH[level]["trabecular_mean_hu"], abs=4)
        normal = np.array(TRUTH[level]["cranial"])
        for ellipse in one.hu.slices:
            tilt = np.degrees(np.arccos(abs(np.cross(ellipse.u_lps, ellipse.v_lps) @ normal)))
            assert tilt < 3
    assert found["L5"].flag is not None
    assert found["L5"].flag.call == "below"


def test_where_in_the_body_is_clicked_changes_little() -> None:
    """People differ by 10-16 HU between sessions (Osteoporos Int 2025)."""
    places = [(0.0, 0.0, 0.0), (7.0, 3.0, 4.0), (-7.0, -4.0, -4.0), (3.0, -5.0, 3.0)]
    means = [assessed(click("L3", *place))["L3"].hu.mean_hu for place in places]
    assert None not in means
    assert np.std(np.array(means, dtype=float)) < 1.5


def test_original_slices_when_asked_for() -> None:
    found = assessed(click("L3"), plane="scanner")["L3"]
    assert [one.resampled for one in found.hu.slices] == [False] * 3
    assert found.hu.mean_hu == pytest.approx(TRUTH["L3"]["trabecular_mean_hu"], abs=6)


@pytest.mark.parametrize(
    ("level", "offset_mm", "code"),
    [
        ("L3", (0.0, 33.0, 0.0), None),
        ("L3", (45.0, 0.0, 0.0), None),
        ("L3", (0.0, 0.0, 18.0), None),
        ("T10", (0.0, 0.0, -6.0), "body_cut"),
        ("L3", (0.0, 400.0, 0.0), "click_outside_volume"),
    ],
    ids=["canal", "muscle", "disc", "cut by the image", "beyond the image"],
)
def test_a_click_elsewhere_gives_a_reason_and_no_number(
    level: str, offset_mm: tuple[float, float, float], code: str | None
) -> None:
    found = assessed(click(level, *offset_mm))[level]
    assert found.hu.mean_hu is None
    assert "placed_from_click" not in codes(found)
    assert len(found.hu.notes) == 1
    assert code is None or codes(found) == {code}


def test_slices_too_thick_for_a_click() -> None:
    from dataclasses import replace

    volume = spineimg.load(STUDY / "ct")
    thick = replace(volume, acquisition=replace(volume.acquisition, slice_thickness_mm=5.5))
    (one,) = spineimg.assess(thick, RoiSet((click("L3"),))).vertebrae
    assert (one.hu.mean_hu, codes(one)) == (None, {"body_not_found"})


def test_the_rois_that_were_placed_measure_the_same() -> None:
    volume = spineimg.load(STUDY / "ct")
    rois = RoiSet((click("L1"),))
    first = spineimg.assess(volume, rois)
    spelled = used_rois(rois, first)
    assert len(spelled.vertebrae[0].ellipses) == 3
    assert spelled.vertebrae[0].center_lps_mm is not None
    second = spineimg.assess(volume, spelled)
    assert second.vertebrae[0].hu.slices == first.vertebrae[0].hu.slices


@pytest.mark.skipif(DATA is None, reason="SPINEIMG_DATA is not set: no real scans")
def test_a_real_spine_is_measured_or_refused_and_never_beside_the_body() -> None:
    """Clicks into T11 to L3 of the public abdomen scan, and into T7, which the image cuts off at its top."""
    volume = spineimg.load(Path(DATA or "") / "tcga_ov_abdomen_ce")
    clicks = {"T7": (-14, 72, 1503), "T12": (-14, 58, 1387), "L1": (-14, 50, 1357), "L3": (-14, 36, 1290)}
    rois = RoiSet(tuple(VertebraRoi(level, np.array(at, dtype=float)) for level, at in clicks.items()))
    found = {one.level: one for one in spineimg.assess(volume, rois).vertebrae}
    assert found["T7"].hu.mean_hu is None
    for level in ("T12", "L1", "L3"):
        assert found[level].hu.mean_hu is not None
        middle = np.array(found[level].hu.slices[1].center_lps_mm)
        assert np.linalg.norm(middle - clicks[level]) < 12
        assert found[level].hu.mean_hu == pytest.approx(170, abs=30)


@pytest.mark.parametrize("alone", [True, False])
def test_with_or_without_neighbours_a_fit_in_thick_slices_must_be_as_clear(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Planted: `alone` judged by the lines of thin slices, so that a first look showed what the measurement refused."""
    seen: list[float] = []

    def refused(volume: CTVolume, at: np.ndarray, settings: BodySettings, *, witness: object) -> Body:
        seen.append(settings.trust.tilt_sd_deg)
        raise BodyNotFoundError("no_canal", "not asked here")

    monkeypatch.setattr("spineimg.vertebra.click.find_body", refused)
    volume = spineimg.load(STUDY / "ct")
    thick = replace(volume, acquisition=replace(volume.acquisition, slice_thickness_mm=4.8))
    for one in (volume, thick):
        rois_of_click(one, np.array(TRUTH["L3"]["center"]), "L3", "endplate", ClickSettings(), alone=alone)
    assert seen == [TrustSettings().tilt_sd_deg, SpineSettings().clear_tilt_deg]
