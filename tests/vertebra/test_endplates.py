"""Endplates fitted from where they are not: painted without the phantom, as smooth steps across a bent surface."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spineimg
from spineimg.geometry import Geometry
from spineimg.rois import RoiSet, VertebraRoi
from spineimg.vertebra.endplate_model import EndplateSettings, LocalFrame, Start
from spineimg.vertebra.endplates import fit_endplate
from spineimg.vertebra.walls import Outline
from spineimg.volume import Acquisition, ArraySource, CTVolume

FRAME = LocalFrame(
    np.zeros(3), np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), Outline((0.0, 0.0), np.full(72, 19.0), np.ones(72))
)
SHELL_MM, FINE = 0.6, 12


def disc(slice_mm: float, tilt_deg: float, disc_mm: float, bone_hu: float = 90.0, band_hu: float = 0.0) -> CTVolume:
    """A superior endplate through (0, 0, 0), higher behind by a tilt, hollow by 1.5 mm, with the next body's above.

    band_hu: of sclerosis, 4 mm under the endplate. Noise SD 20 HU.
    """
    draw = np.random.default_rng(7)
    count = round(48 / slice_mm)
    z = (np.arange(count * FINE) + 0.5) * slice_mm / FINE - 24.3
    x = np.arange(-24, 24.1, 1.0)
    left, back = np.meshgrid(x, x)
    hollow = 1.5 * (np.hypot(left, back) / 19) ** 2 - 1.5 * 0.35
    surface = np.tan(np.radians(tilt_deg)) * back + hollow
    facing = surface - 2 * hollow + disc_mm
    depth, beyond = z[:, None, None] - surface, z[:, None, None] - facing

    def passed(height: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.clip(height / 0.25, -50, 50)))

    steps = (
        (depth + SHELL_MM + 4, band_hu), (depth + SHELL_MM, 1300 - bone_hu - band_hu), (depth, 80 - 1300),
        (beyond, 1300 - 80), (beyond - SHELL_MM, bone_hu - 1300),
    )  # fmt: skip
    hu = bone_hu + sum(passed(height) * change for height, change in steps)
    hu = hu.reshape(count, FINE, *left.shape).mean(axis=1) + draw.normal(0, 20, (count, *left.shape))
    affine = np.array([[0.0, 0, 1, -24], [0, 1, 0, -24], [slice_mm, 0, 0, z[:FINE].mean()], [0, 0, 0, 1]])
    geometry = Geometry.from_affine(hu.shape, affine)
    return CTVolume(geometry, ArraySource(np.rint(hu).astype(np.int16)), Acquisition(slice_thickness_mm=slice_mm))


@pytest.mark.parametrize("slice_mm", [1.2, 3.0])
@pytest.mark.parametrize("disc_mm", [2.5, 6.0])
@pytest.mark.parametrize(("away_mm", "lean_deg"), [(-2.0, 0.0), (2.0, 0.0), (0.0, 9.0), (0.0, -9.0), (-3.5, 6.0)])
def test_an_endplate_is_found_from_starts_that_are_off(
    slice_mm: float, disc_mm: float, away_mm: float, lean_deg: float
) -> None:
    """Planted: steps from the best start of the scan alone."""
    volume = disc(slice_mm, 8.0, disc_mm)
    rise = float(np.tan(np.radians(8.0 + lean_deg)))
    start, other = Start(away_mm, 0.0, rise), Start(away_mm + 6.0, 0.0, rise)
    found = fit_endplate(volume, FRAME, start, other, EndplateSettings())
    assert found is not None
    assert abs(found.height_mm) < 0.4
    assert np.degrees(np.arctan(found.rise_posterior)) == pytest.approx(8.0, abs=1.5)
    assert found.oddities == 0


@pytest.mark.parametrize("away_mm", [-2.0, 0.0, 2.0])
def test_a_band_of_sclerosis_is_no_disc(away_mm: float) -> None:
    """Planted: the edge of the band taken for the endplate, the band for a disc."""
    volume = disc(1.2, 4.0, 4.0, band_hu=190.0)
    start, other = Start(away_mm, 0.0, 0.03), Start(away_mm + 6.0, 0.0, 0.03)
    found = fit_endplate(volume, FRAME, start, other, EndplateSettings())
    assert found is not None
    assert abs(found.height_mm) < 0.4
    assert found.bone_hu > 200


@pytest.mark.parametrize(("shell_hu", "odd"), [(1500.0, 0), (2480.0, 1)])
def test_a_shell_denser_than_cortex_is_none(shell_hu: float, odd: int) -> None:
    """What a wrong tilt made of a band of sclerosis in slices of 4.8 mm, its tilt's standard error 0.2 degrees.

    Planted: no limit to the shell.
    """
    found = fit_endplate(disc(1.2, 4.0, 6.0), FRAME, Start(0, 0, 0.07), Start(6, 0, 0.07), EndplateSettings())
    assert found is not None
    assert replace(found, shell_hu=shell_hu).oddities == odd


def test_a_fit_whose_tilt_is_open_replaces_none_whose_tilt_is_certain() -> None:
    """The sample study with every pixel four times, as an enlarged reconstruction shows it: L2's upper endplate.

    Planted: the misfit alone counts (the plane lies 2.3 mm low).
    """
    study = Path(__file__).parents[2] / "sample_data" / "preop"
    small = spineimg.load(study / "ct")
    stack = np.concatenate([small.read(k)[None] for k in range(small.geometry.shape[0])])
    affine = small.geometry.lps_from_index.copy()
    affine[:3, 1:3] /= 2
    hu = stack.repeat(2, axis=1).repeat(2, axis=2)
    volume = replace(small, geometry=Geometry.from_affine(hu.shape, affine), source=ArraySource(hu))
    (true,) = [one for one in json.loads((study / "truth.json").read_text())["levels"] if one["level"] == "L2"]
    click = VertebraRoi("L2", np.add(true["center"], [-1.36, 2.31, -1.57]))
    body = spineimg.assess(volume, RoiSet((click,))).vertebrae[0].hu.body
    assert body is not None
    off = (body.superior.point_lps_mm - true["superior_plane"]["point"]) @ true["superior_plane"]["normal"]
    assert abs(off) < 0.5
