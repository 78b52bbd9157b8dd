"""A running Orthanc, a small study in it, and the command line beside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from spineimg import cli
from tests.dicom_factory import Lattice, Written, axial, new_uid, write_series
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, why_no_orthanc

COUNT = 24


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@dataclass(frozen=True)
class Study:
    """A CT of `COUNT` slices on disk, and two ROI files: one vertebra in few slices, one that lies elsewhere."""

    ct: Written
    study_uid: str
    rois: Path
    far_rois: Path


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One server for the whole session, without TLS."""
    server = started(tmp_path_factory.mktemp("orthanc"))
    try:
        yield server
    finally:
        server.stop()


def started(root: Path, *, tls: bool = False) -> Orthanc:
    reason = why_no_orthanc()
    if reason is not None:
        pytest.skip(reason)
    return Orthanc(root, tls=tls).start()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line in this process, with the credentials of the node `web` in the environment."""
    monkeypatch.setenv("SPINEIMG_PACS_WEB_USER", USER)
    monkeypatch.setenv("SPINEIMG_PACS_WEB_PASSWORD", PASSWORD)

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["spineimg", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capfd.readouterr()
        return Said(int(stop.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path)


def make_study(folder: Path, **tags: object) -> Study:
    """HU with a gradient along every axis, a texture, and a new study each time."""
    lattice = axial(COUNT, 1.5)
    study_uid = new_uid("study")
    rng = np.random.default_rng(3)
    k, r, c = np.mgrid[0:COUNT, 0:64, 0:64]
    hu = (60 + 2 * k + r + c // 2 + rng.normal(0, 15, k.shape)).astype(np.int16)
    ct = write_series(
        folder / "ct", hu, lattice, tags={"StudyInstanceUID": study_uid, "ContrastBolusAgent": "none", **tags}
    )
    return Study(
        ct, study_uid, _roi_file(folder / "rois.json", lattice, 0.0), _roi_file(folder / "far.json", lattice, 500.0)
    )


def _roi_file(path: Path, lattice: Lattice, shift_mm: float) -> Path:
    """L1 with three planes around slice 14: one in the slices, one tilted by 9 degrees, one in the slices."""
    tilt = np.radians(9.0)
    slices = []
    for position, k, v in (
        ("superior", 16, [0, 1, 0]),
        ("mid", 14, [0, float(np.cos(tilt)), float(np.sin(tilt))]),
        ("inferior", 12, [0, 1, 0]),
    ):
        center = lattice.lps(k, 32, 32) + np.array([0, 0, shift_mm])
        slices.append(
            {"position": position, "center": center.tolist(), "u": [1, 0, 0], "v": v, "semi_axes_mm": [11, 9]}
        )
    vertebrae = [{"level": "L1", "slices": slices, "confirmed": True}]
    document = {"schema": "spineimg.rois/1", "construct": {"uiv": None, "liv": "L1"}, "vertebrae": vertebrae}
    path.write_text(json.dumps(document))
    return path


def measured(run: Run, folder: Path, rois: Path, out: Path) -> dict[str, object]:
    """The vertebrae of `spineimg hu`, as JSON."""
    said = run("hu", folder, "--rois", rois, "--json", out, "--quiet")
    assert said.code == 0, said.err
    vertebrae: dict[str, object] = json.loads(out.read_text())["vertebrae"]
    return vertebrae


def is_one_sentence(said: Said) -> bool:
    """Exit 1, nothing on standard output, one line of complaint."""
    lines = said.err.strip().splitlines()
    return said.code == 1 and said.out == "" and len(lines) == 1 and lines[0].startswith("spineimg: ")
