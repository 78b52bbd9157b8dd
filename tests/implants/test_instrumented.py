"""The HU flag is for the scan before surgery: a vertebra that holds a screw gets none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spineimg.anatomy import Construct as Ends
from spineimg.pipeline import assess, assess_and_screen, screen
from spineimg.rois import Ellipse, RoiSet, VertebraRoi
from spineimg.vertebra.flags import Call
from spineimg.volume import CTVolume
from tests.implants.implant_cases import construct


def _scan() -> tuple[CTVolume, RoiSet]:
    """Two levels of screws, too thick in slices for halos; an ellipse in each body, between the screws' tips."""
    build = construct(2, spacing_mm=(3.0, 0.8, 0.8), fwhm_mm=(0.9, 2.0))
    volume = build.volume()
    told = replace(volume.acquisition, kvp=120.0, contrast=False)
    vertebrae = []
    for level, name in (("L2", "0-left"), ("L3", "1-left")):
        tip = build.screws[name].end
        center = np.array([0.0, tip[1] + 2.0, tip[2]])
        plane = (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
        vertebrae.append(VertebraRoi(level, ellipses=(Ellipse("mid", center, *plane, (4.0, 4.0)),)))
    return replace(volume, acquisition=told), RoiSet(tuple(vertebrae), Ends("L2", "L3"))


def test_an_instrumented_vertebra_gets_no_flag() -> None:
    """Planted: the status of the ROI left as it was (the LIV was then called `not_below`)."""
    volume, rois = _scan()
    plain = assess(volume, rois).vertebrae[1].flag
    assert plain is not None
    result = assess_and_screen(volume, rois)
    assert result.implants is not None
    assert {found.level for found in result.implants.screws} == {"L2", "L3"}
    for vertebra in result.vertebrae:
        assert vertebra.hu.mean_hu is not None
        assert vertebra.flag is None or vertebra.flag.call is Call.NOT_ASSESSED
    flag = result.vertebrae[1].flag
    assert flag is not None
    assert "instrumented" in flag.text


def test_the_screen_alone_measures_no_vertebra() -> None:
    volume, rois = _scan()
    result = screen(volume, rois)
    assert result.vertebrae == ()
    assert result.implants is not None
    summary = result.implants.grade.construct
    assert (summary["uiv"], summary["liv"], summary["n_screws"], summary["screw_density"]) == ("L2", "L3", 4, 1.0)
