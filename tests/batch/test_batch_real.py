"""All public scans in one run: each usable series measured, each other one refused with its reason.

Set SPINEIMG_DATA to the folder of the public test data; without it these tests skip.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from spineimg.geometry import unit
from spineimg.io.grid_headers import is_volume_file
from spineimg.io.index import scan
from spineimg.io.opening import load
from spineimg.volume import CTVolume, Verdict
from tests.batch import studies as s

DATA = os.environ.get("SPINEIMG_DATA")
RADII_MM = (6.0, 5.0)

pytestmark = pytest.mark.skipif(DATA is None, reason="SPINEIMG_DATA is not set: no real scans")


def middle(volume: CTVolume) -> tuple[dict[str, object], float]:
    """A ROI file with one ellipse in the middle slice, and the mean of the voxels in it, found without the program."""
    geometry = volume.geometry
    k, row, column = (n // 2 for n in geometry.shape)
    center = geometry.lps_at(np.array([k, row, column]))
    u, v = unit(geometry.column_step_lps_mm), unit(geometry.row_step_lps_mm)
    rows, columns = np.mgrid[: geometry.shape[1], : geometry.shape[2]]
    x = (columns - column) * np.linalg.norm(geometry.column_step_lps_mm)
    y = (rows - row) * np.linalg.norm(geometry.row_step_lps_mm)
    inside = (x / RADII_MM[0]) ** 2 + (y / RADII_MM[1]) ** 2 <= 1 + 1e-9
    place = {"position": "mid", "center": center.tolist(), "u": u.tolist(), "v": v.tolist(), "semi_axes_mm": RADII_MM}
    rois = {"schema": "spineimg.rois/1", "vertebrae": [{"level": "L3", "slices": [place]}]}
    return rois, float(volume.read(k)[inside].astype(np.float64).mean())


def test_all_scans_in_one_run(tmp_path: Path) -> None:
    """Planted: a series' verdict ignored by the worker; a localizer and a perfusion map got a mean."""
    root = Path(DATA or "")
    means: dict[str, float] = {}
    refused: dict[str, set[str]] = {}
    rows = []

    def add(path: object, content: dict[str, object]) -> str:
        case = f"{len(rows):02d}"
        rois = tmp_path / f"{case}.json"
        rois.write_text(json.dumps(content), encoding="utf-8")
        rows.append({"case": case, "path": path, "rois": rois})
        return case

    for series in scan([root]).series:
        path = series.info.name if series.info.series_instance_uid else Path(series.records[0].path).parent
        if series.verdict is Verdict.REFUSED:
            case = add(path, {"schema": "spineimg.rois/1", "vertebrae": [{"level": "L3"}]})
            refused[case] = {note.text for note in series.notes}
        else:
            content, mean = middle(series.volume())
            means[add(path, content)] = mean
    for file in sorted(one for one in root.rglob("*ct.nii.gz") if is_volume_file(one)):
        content, mean = middle(load(file))
        means[add(file, content)] = mean
    assert len(means) > 8
    assert len(refused) > 4
    numbers = 0
    s.run(root, s.table(tmp_path / "cases.csv", rows), tmp_path / "out")
    for case, row in s.ledger(tmp_path / "out").items():
        if case in refused:
            assert row["status"] == "refused"
            assert any(text in row["reason"] for text in refused[case]), row["reason"]
            continue
        assert row["status"] == "done", row["reason"]
        (found,) = json.loads((tmp_path / "out" / "results" / f"{case}.json").read_text())["vertebrae"]
        (plane,) = found["slices"]
        if plane["mean_hu"] is None:
            assert found["notes"], "no number and no reason"
        else:
            assert plane["mean_hu"] == pytest.approx(means[case], abs=1e-6)
            numbers += 1
    assert numbers > 6
