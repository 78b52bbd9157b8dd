"""The implant screen in files: result, table, overlay, picture, terminal."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from rich.console import Console

from spineimg.errors import SpineImgError
from spineimg.export.implant_figure import cross_views, draw, long_views, shown, write_implant_figure
from spineimg.export.implant_text import screen_view
from spineimg.export.implant_voxels import metal_index
from spineimg.export.implants import SCREW_COLUMNS, screw_rows
from spineimg.export.json import result_to_dict
from spineimg.export.overlay import HALO, METAL, ROD, SCREW, label_volume, write_overlay
from spineimg.export.table import write_table
from spineimg.geometry import Geometry
from spineimg.implants.model import (
    Gap,
    Grade,
    Halo,
    HaloMap,
    ImplantScreen,
    Loosening,
    OtherMetal,
    Rod,
    Screw,
    Shaft,
)
from spineimg.notes import Note
from spineimg.volume import Acquisition, ArraySource, CTVolume
from tests.export.records import CREATED, case

SHAPE = (60, 90, 70)
SPACING = (1.0, 0.5, 0.6)
HEAD, TIP = (4.0, -20.0, 30.0), (4.0, 15.0, 30.0)
RADIUS = 3.0


def volume(shear: float = 0.0) -> CTVolume:
    """Soft tissue and one block of metal in a corner. shear: mm that a slice moves towards the patient's back."""
    affine = np.eye(4)
    affine[:3, 0] = (0, shear, SPACING[0])
    affine[:3, 1] = (0, SPACING[1], 0)
    affine[:3, 2] = (SPACING[2], 0, 0)
    affine[:3, 3] = (-17.0, -24.0, 0.0)
    hu = np.full(SHAPE, 60, np.int16)
    hu[5:8, 3:6, 60:64] = 3071
    return CTVolume(Geometry.from_affine(SHAPE, affine), ArraySource(hu), Acquisition(kvp=120.0, contrast=False))


def screw(**changes: object) -> Screw:
    """A shaft along the back-to-front axis; a lucent zone of 2 mm on its left half, nothing known far from the tip."""
    depths, angles = np.arange(1.0, 35.0, 2.0), np.arange(0.0, 360.0, 30.0)
    width = np.zeros((len(depths), len(angles)))
    width[:, np.cos(np.radians(angles)) > 0.1] = 2.0
    width[depths < 6] = np.nan
    known = np.isfinite(width)
    halo = Halo(
        True, 0.9, 2.0, 0.45, 28.0, (0.6, 1.2), "", {"body": {"width_median_mm": 0.9}}, "one-sided", False,
        HaloMap(depths, angles, width, np.where(known, 0.1, np.nan)),
    )  # fmt: skip
    shaft = Shaft(HEAD, TIP, 2 * RADIUS, 7000.0, False, (Note("thread_unseen", "no thread was seen", "a"),))
    made = Screw("T12-left", shaft, halo, Loosening.INDETERMINATE, "T12", None, 141.0)
    return replace(made, **changes)  # type: ignore[arg-type]


A_ROD = Rod("left", ((-10.0, 0.0, 5.0), (-10.0, 0.0, 45.0)), 5.0, (Gap((-10.0, 0.0, 20.0), 1.5, 4.0, 0.2),))


def screen(*screws: Screw) -> ImplantScreen:
    other = OtherMetal((20.0, -22.0, 6.0), 12.0, "wire", "thin and far from the spine")
    return ImplantScreen(screws, (A_ROD,), (other,), Grade(None, "not graded", not_judged=("pull-out",)))


# -- result and table -------------------------------------------------------------------------------------------------


def test_a_screw_in_the_result_file() -> None:
    """Spelled out by the contract. Planted: `coverage_over_1mm` from the axial extent."""
    document = result_to_dict(replace(case(), implants=screen(screw())), CREATED)
    (one,) = document["screws"]
    expected = {
        "id": "T12-left", "level": "T12", "side": None, "head": list(HEAD), "tip": list(TIP),
        "diameter_mm": 6.0, "length_mm": 35.0, "loosening": "indeterminate",
    }  # fmt: skip
    assert {name: one[name] for name in expected} == expected
    halo = {
        "assessable": True, "width_median_mm": 0.9, "width_p90_mm": 2.0, "coverage_over_1mm": 0.45,
        "axial_extent_mm": 28.0, "interval_mm": [0.6, 1.2], "reason": "",
    }  # fmt: skip
    assert {name: one["halo"][name] for name in halo} == halo
    assert one["halo"]["map"]["width_mm"][0][0] is None
    assert one["notes"] == [{"code": "thread_unseen", "text": "no thread was seen", "about": "a"}]
    (rod,) = document["rods"]
    assert (rod["id"], rod["points"][1], rod["diameter_mm"]) == ("left", [-10.0, 0.0, 45.0], 5.0)
    assert rod["gaps"] == [{"center": [-10.0, 0.0, 20.0], "width_mm": 1.5, "kink_deg": 4.0, "step_mm": 0.2}]
    assert document["grade"]["silva_type"] is None


def test_a_screw_that_could_not_be_assessed_has_nulls() -> None:
    nothing = screw(halo=Halo(False, reason="slices of 3 mm"), loosening=Loosening.NOT_ASSESSED)
    (one,) = result_to_dict(replace(case(), implants=screen(nothing)), CREATED)["screws"]
    halo = one["halo"]
    assert (halo["assessable"], halo["reason"]) == (False, "slices of 3 mm")
    assert all(halo[name] is None for name in ("width_median_mm", "coverage_over_1mm", "interval_mm"))


def test_the_table_of_screws(tmp_path: Path) -> None:
    document = result_to_dict(replace(case(), implants=screen(screw(), screw(id="T12-right"))), CREATED)
    write_table(tmp_path / "a.csv", screw_rows(document, "one"), SCREW_COLUMNS)
    with (tmp_path / "a.csv").open(newline="") as handle:
        first, second = csv.DictReader(handle)
    assert (first["case"], first["id"], second["id"]) == ("one", "T12-left", "T12-right")
    assert (first["halo.interval_mm.1"], first["tip.1"], first["notes"]) == ("1.2", "15.0", "thread_unseen")
    assert (first["trajectory_hu"], first["breach_mm"], first["n_gaps"]) == ("141.0", "", "0")


# -- overlay ----------------------------------------------------------------------------------------------------------


def counted(labels: np.ndarray, label: int) -> float:
    """mm³ of a label."""
    return float((labels == label).sum() * math.prod(SPACING))


def test_labels_have_the_volumes_of_their_shapes() -> None:
    """Cylinders by formula, as well as voxels of 0.6 x 1 mm count a disc of 6 mm.

    Planted: the lucent zone drawn all around; it was twice the half ring."""
    labels = label_volume(volume(), screen(screw()))
    assert counted(labels, SCREW) == pytest.approx(math.pi * RADIUS**2 * 35, rel=0.05)
    assert counted(labels, ROD) == pytest.approx(math.pi * 2.5**2 * 40, rel=0.05)
    ring = math.pi * ((RADIUS + 2) ** 2 - RADIUS**2)
    share = 5 / 12  # angles -60 to 60 in steps of 30
    assert counted(labels, HALO) == pytest.approx(ring * share * 29, rel=0.06)  # from a depth of 6 on
    assert counted(labels, METAL) == pytest.approx(3 * 3 * 4 * math.prod(SPACING))


def test_streaks_beside_dense_metal_are_not_shown_as_metal() -> None:
    """A bridge of 4000 HU beside cobalt-chrome, and beside titanium. Planted: 2500 HU for every scan."""
    scan = volume()
    for metal_hu, voxels in ((16000, 3 * 3 * 8), (6500, 3 * 3 * 10)):
        hu = np.stack([scan.read(k) for k in range(SHAPE[0])]).astype(np.int16)
        # Metal that shows its own HU spreads; a value that it shares would be the end of the scale.
        hu[5:8, 3:6, 56:64] = metal_hu + 10 * np.arange(72).reshape(3, 3, 8)
        hu[5:8, 3:6, 54:56] = 4000
        assert len(metal_index(replace(scan, source=ArraySource(hu)))) == voxels


def test_the_halo_lies_where_the_map_says() -> None:
    """0 degrees is the patient's left. Planted: the angle counted the other way round."""
    geometry = volume().geometry
    halo = geometry.lps_at(np.argwhere(label_volume(volume(), screen(screw())) == HALO))
    assert halo[:, 0].min() > HEAD[0] - 1
    width = screw().halo.map
    assert width is not None
    turned = np.roll(width.width_mm, 3, axis=1)  # 90 degrees on: cranial
    up = screw(halo=replace(screw().halo, map=replace(width, width_mm=turned)))
    halo = geometry.lps_at(np.argwhere(label_volume(volume(), screen(up)) == HALO))
    assert halo[:, 2].min() > HEAD[2] - 1


@pytest.mark.parametrize("shear", [0.0, 0.1])
def test_the_overlay_lies_on_the_ct(tmp_path: Path, shear: float) -> None:
    """Planted: the affine of NIfTI left in LPS."""
    path = tmp_path / "overlay.nii.gz"
    write_overlay(volume(shear), screen(screw()), path)
    image = nibabel.load(path)
    at = np.argwhere(np.asarray(image.dataobj) == SCREW)
    ras = nibabel.affines.apply_affine(image.affine, at)
    middle = (np.array(HEAD) + TIP) / 2
    assert np.abs(ras.mean(axis=0) * [-1, -1, 1] - middle).max() < 0.3


def test_overlays_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SpineImgError, match=r"\.nii or \.nii\.gz, found 'overlay.png'"):
        write_overlay(volume(), screen(), tmp_path / "overlay.png")
    origins = volume().geometry.lps_at(np.column_stack([np.arange(SHAPE[0]), np.zeros((SHAPE[0], 2))]))
    origins[30:, 2] += 1.5
    uneven = replace(volume().geometry, origins_lps_mm=origins)
    with pytest.raises(SpineImgError, match="a NIfTI volume cannot describe this series: slices are uneven"):
        write_overlay(replace(volume(), geometry=uneven), screen(), tmp_path / "overlay.nii")


# -- picture and terminal ---------------------------------------------------------------------------------------------


def test_views_lie_along_and_across_the_shaft() -> None:
    along, flat = long_views(screw())
    direction = screw().shaft.direction_lps
    for view in (along, flat):
        assert view.on_view(TIP)[0] - view.on_view(HEAD)[0] == pytest.approx(35)
        assert np.abs(view.on_view_direction(direction) - [1, 0]).max() < 1e-9
    assert along.letters == ("A", "P", "H", "F")
    assert flat.letters[2:] == ("L", "R")
    assert all(view.letters == ("L", "R", "H", "F") for view in cross_views(screw()))


def test_the_picture_is_written(tmp_path: Path) -> None:
    write_implant_figure(volume(), replace(case(), implants=screen(screw())), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="were not screened"):
        write_implant_figure(volume(), case(), tmp_path / "b.png")


def test_of_many_screws_those_with_a_finding_are_drawn() -> None:
    many = [screw(id=f"screw-{n}", loosening=Loosening.ABSENT) for n in range(14)]
    many[13] = screw(id="loose", loosening=Loosening.PRESENT)
    drawn = shown(screen(*many))
    assert len(drawn) == 12
    assert drawn[-1].id == "loose"
    assert draw(volume(), screen()).height > 0


def test_the_terminal_shows_verdicts_and_reasons() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(screen_view(screen(screw(id="a\x1b[31m")), (Note("kvp_unknown", "the kVp is unknown", ""),)))
    text = console.export_text()
    for words in ("indeterminate", "0.6–1.2", "gap of 1.5 mm", "not graded", "wire", "the kVp is unknown", "pull-out"):
        assert words in text
    assert "\x1b" not in text
