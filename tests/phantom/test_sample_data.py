"""The sample study as it is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from spineimg.phantom import body_truth, make_phantom

PREOP = Path(__file__).parents[2] / "sample_data" / "preop"
POSTOP = PREOP.with_name("postop")


@pytest.mark.skipif(not PREOP.is_dir(), reason="sample_data is not beside the tests")
def test_the_sample_is_small_readable_and_as_its_truth_says() -> None:
    truth = json.loads((PREOP / "truth.json").read_text())
    files = sorted((PREOP / "ct").iterdir())
    assert len(files) == truth["geometry"]["shape"][0]
    assert sum(file.stat().st_size for file in PREOP.rglob("*") if file.is_file()) < 6_000_000
    phantom = make_phantom(truth["recipe"], truth["seed"])
    for level in truth["levels"]:
        center = body_truth(phantom.vertebra(level["level"])).frame.center_lps_mm
        np.testing.assert_allclose(level["center"], center, atol=1e-3)
    first = pydicom.dcmread(files[0])
    assert first.pixel_array.shape == (256, 256)
    assert str(first.PatientName).startswith("Phantom")


@pytest.mark.skipif(not PREOP.is_dir(), reason="sample_data is not beside the tests")
def test_the_sample_s_construct_is_a_clear_case() -> None:
    """LIV about 101 HU: below the cutoff of 127.273 by more than the grey zone of 16 HU."""
    truth = json.loads((PREOP / "truth.json").read_text())
    for plane in ("endplate", "scanner"):
        uiv, liv = truth["rois"][plane]
        assert (uiv["level"], liv["level"]) == ("T11", "L5")
        assert np.mean([s["true_mean_hu"] for s in liv["slices"]]) == pytest.approx(101, abs=4)
        assert np.mean([s["true_mean_hu"] for s in uiv["slices"]]) == pytest.approx(132, abs=4)


@pytest.mark.skipif(not POSTOP.is_dir(), reason="sample_data is not beside the tests")
def test_the_sample_after_surgery_is_small_and_says_where_its_screws_are() -> None:
    truth = json.loads((POSTOP / "truth.json").read_text())
    files = sorted((POSTOP / "ct").iterdir())
    assert len(files) == truth["geometry"]["shape"][0]
    assert sum(file.stat().st_size for file in POSTOP.rglob("*") if file.is_file()) < 2_700_000
    phantom = make_phantom(truth["recipe"], truth["seed"])
    assert phantom.implants is not None
    assert len(truth["rods"]) == 2
    for screw, placed in zip(truth["screws"], phantom.implants.screws, strict=True):
        np.testing.assert_allclose(screw["head"], placed.shaft.head_lps_mm, atol=1e-3)
        assert screw["halo"]["width_mm"] == placed.spec.lucency.width_mm
    assert {roi["level"] for roi in json.loads((POSTOP / "rois.json").read_text())["vertebrae"]} == {"L1", "L2", "L3"}
    bright = max(int(pydicom.dcmread(file).pixel_array.max()) for file in files[::10])
    assert bright - 8192 > 5000
