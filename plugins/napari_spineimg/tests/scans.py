"""Small spines as DICOM folders: lying in every way a scanner stores them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from body_phantoms import painted
from spineimg.geometry import FloatArray
from spineimg.phantom import Imaging, Phantom, SpineSpec, body_truth
from spineimg.phantom.dicom import write_series

SPINE = SpineSpec(("T12", "L1", "L2", "L3", "L4", "L5"), seed=3)
KINDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "feet_first": {"position": "FFS"},
    "prone": {"position": "HFP"},
    "tilted": {"tilt_deg": 15.0},
    "anisotropic": {"spacing_mm": 3.0, "thickness_mm": 3.0, "row_mm": 0.8, "size": (144, 112)},
}


class Painted(Phantom):
    """A phantom that is painted fast, one sample a voxel."""

    def slices(self) -> Iterator[np.ndarray]:
        return iter(painted(self, 15.0).astype(np.float32))


def phantom(kind: str) -> Phantom:
    """L2 and L3 whole, with parts of their neighbours."""
    usual = {"size": (112, 112), "pixel_mm": 1.1, "spacing_mm": 2.0, "thickness_mm": 2.0, "margin_mm": 26.0}
    return Painted(SPINE, Imaging(**(usual | KINDS[kind])), cover=("L2", "L3"))


def write_scan(folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_series(folder, phantom(kind))
    return folder


def body_center(level: str) -> FloatArray:
    """(3,) LPS mm: the middle of a body, the same in every kind of scan."""
    return body_truth(phantom("clean").vertebra(level)).frame.center_lps_mm
