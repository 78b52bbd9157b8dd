"""Small CT series of every kind, measured, that the tests of the DICOM exports share."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spineimg.cli.exchange import source_of
from spineimg.export.dicom import dicom_objects
from spineimg.export.json import result_to_dict
from spineimg.io.opening import load
from spineimg.io.rois import parse_rois
from spineimg.pipeline import assess
from spineimg.volume import CTVolume
from tests.dicom_factory import Lattice, axial, feet_first, oblique, prone, tilted, write_enhanced, write_series

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SHAPE = (40, 64, 60)
CASES = ("axial", "feet first", "prone", "tilted", "oblique", "multi-frame")
AXES_MM = (11.3, 8.2)
SCREW: dict[str, Any] = {
    "id": "L4-left",
    "level": "L4",
    "side": "left",
    "diameter_mm": 6.25,
    "length_mm": 20.0,
    "halo": {
        "assessable": True,
        "width_median_mm": 1.3125,
        "width_p90_mm": 1.75,
        "coverage_over_1mm": 0.4375,
        "axial_extent_mm": 9.5,
        "interval_mm": [1.125, 1.5],
        "reason": "",
    },
    "loosening": "present",
    "notes": [],
}


@dataclass(frozen=True, eq=False)
class Case:
    """A measured study. `rois`: the ROI file's dict, with L4 on original slices and T12 on tilted planes."""

    folder: Path
    lattice: Lattice
    rois: dict[str, Any]
    volume: CTVolume
    document: dict[str, Any]

    @cached_property
    def plain(self) -> list[Any]:
        return dicom_objects(source_of(self.volume), self.document)

    def objects(self, **options: Any) -> list[Any]:
        return dicom_objects(source_of(self.volume), self.document, **options) if options else self.plain

    def with_screw(self) -> dict[str, Any]:
        """The result with a screw from head to tip, 20 mm along the patient's y."""
        head = self.lattice.lps(20, 50.0, 30.0)
        screw = {**SCREW, "head": head.tolist(), "tip": (head - np.array([0.0, 20.0, 0.0])).tolist()}
        return {**self.document, "screws": [screw], "grade": {"silva_type": 1, "text": "loosening of L4-left"}}


def make(folder: Path, kind: str, tags: dict[str, Any] | None = None) -> Case:
    """A study of one kind in a folder, measured. HU are a ramp with texture, never one value."""
    makers = {"feet first": feet_first, "prone": prone, "tilted": tilted, "oblique": oblique}
    lattice = makers.get(kind, axial)(SHAPE[0])
    k, r, c = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    hu = (100 + 2 * k + r - c + np.random.default_rng(4).integers(-9, 10, SHAPE)).astype(np.int16)
    common = {"KVP": "120", "ContrastBolusAgent": "NONE", **(tags or {})}
    if kind == "multi-frame":
        write_enhanced(folder / "ct.dcm", hu, [lattice], tags=tags)
    else:
        write_series(folder, hu, lattice, tags=common)
    rois = roi_document(lattice)
    volume = load(folder)
    document = result_to_dict(assess(volume, parse_rois(rois, folder)), CREATED)
    return Case(folder, lattice, rois, volume, document)


def roi_document(lattice: Lattice) -> dict[str, Any]:
    column, row = np.array(lattice.orientation[:3]), np.array(lattice.orientation[3:])
    up = lattice.origins_lps_mm[-1, 2] > lattice.origins_lps_mm[0, 2]
    turn = np.radians(14.0)
    normal = np.cross(column, row)
    steep = np.cos(turn) * row + np.sin(turn) * normal
    low, high = (8, 28) if up else (28, 8)
    step = 3 if up else -3
    return {
        "schema": "spineimg.rois/1",
        "reader": "A",
        "construct": {"uiv": "T12", "liv": "L4"},
        "vertebrae": [
            {"level": "T12", "confirmed": True, "slices": _planes(lattice, high, step, column, steep)},
            {"level": "L4", "confirmed": False, "slices": _planes(lattice, low, step, column, row)},
        ],
    }


def _planes(lattice: Lattice, k: int, step: int, u: Any, v: Any) -> list[dict[str, Any]]:
    places = (("superior", k + step), ("mid", k), ("inferior", k - step))
    # Off the voxel centres and a little off the slices.
    return [
        {
            "position": name,
            "center": (lattice.lps(at, 31.3, 29.6) + np.array([0.0, 0.0, 0.1])).tolist(),
            "u": np.asarray(u).tolist(),
            "v": np.asarray(v).tolist(),
            "semi_axes_mm": list(AXES_MM),
        }
        for name, at in places
    ]


def judge(path: Path) -> None:
    """dciodvfy finds no error; skips where Debian's dicom3tools is not installed."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "Error" not in said, said
    assert done.returncode == 0, said


def dumped(path: Path) -> str:
    """What dcmtk's dsrdump reads in a report."""
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump (dcmtk) is not installed")
    done = subprocess.run(["dsrdump", "+Pl", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_json(document: dict[str, Any]) -> dict[str, Any]:
    """A result as it is after a file."""
    read: dict[str, Any] = json.loads(json.dumps(document))
    return read
