"""Screws that leave their vertebra, against outlines whose distances a formula gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.breach import (
    BodyShape,
    BreachSettings,
    MaskShape,
    Outline,
    breach_notes,
    breach_of,
    cuts_out,
    surface_of,
)
from spineimg.implants.grade import grade
from spineimg.implants.levels import KnownVertebra, axes_of
from spineimg.implants.model import Gap, Halo, Loosening, Screw, Shaft, Vector
from spineimg.implants.screen import screen_implants
from spineimg.pipeline import outlined
from spineimg.rois import LabelVolume, MaskRoi, RoiSet, VertebraRoi
from spineimg.volume import ArraySource
from tests.implants.implant_cases import construct

WIDE, DEEP, HIGH = 23.0, 17.0, 14.0
"""Half sizes of a body around the origin; the canal lies behind it."""


def _turn(degrees: float) -> FloatArray:
    """A tilt of the vertebra in the sagittal plane."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _body(turn: FloatArray) -> BodyShape:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    outline = np.stack([WIDE * np.cos(angle), DEEP * np.sin(angle)], axis=1)
    up = turn @ np.array([0.0, 0.0, 1.0])
    return BodyShape(np.zeros(3), turn.T, outline, (HIGH * up, up), (-HIGH * up, up))


def _vertebra(turn: FloatArray, spacing: tuple[float, float, float]) -> Geometry:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing
    affine[:3, 3] = [-40.0, -30.0, -30.0]
    affine[3, 3] = 1
    return Geometry.from_affine(tuple(int(n / s) for n, s in zip((60, 90, 80), spacing, strict=True)), affine)


def _inside(points: FloatArray) -> FloatArray:
    """Body, two pedicles of 10 x 14 mm and an arch around a canal of 20 x 16 mm, in the vertebra's own axes."""
    x, y, z = points.T
    body = (np.square(x / WIDE) + np.square(y / DEEP) <= 1) & (np.abs(z) <= HIGH)
    pedicle = (np.abs(np.abs(x) - 15) <= 5) & (y > 0) & (y < 32) & (np.abs(z - 4) <= 7)
    arch = (np.abs(x) <= 20) & (np.abs(y - 36.5) <= 4.5) & (np.abs(z) <= 10)
    return body | pedicle | arch


def _label(tilt_deg: float = 0.0, spacing: tuple[float, float, float] = (1.0, 0.8, 0.8)) -> LabelVolume:
    turn = _turn(tilt_deg)
    geometry = _vertebra(turn, spacing)
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    values = _inside(geometry.lps_at(index) @ turn).reshape(geometry.shape).astype(np.int16)
    return LabelVolume(geometry, ArraySource(values), "label")


def _mask(label: LabelVolume) -> MaskShape:
    index = np.argwhere(np.stack([label.source.read(k) for k in range(label.geometry.shape[0])]) > 0)
    return MaskShape(label.geometry.lps_at(index), label.geometry.lps_from_index[:3, :3].T)


def _shaft(head: tuple[float, ...], tip: tuple[float, ...], turn: FloatArray, diameter: float = 6.0) -> Shaft:
    ends = [turn @ np.array(end) for end in (head, tip)]
    vectors: list[Vector] = [(float(x), float(y), float(z)) for x, y, z in ends]
    return Shaft(vectors[0], vectors[1], diameter, 7000.0, False)


SAFE = ((15.0, 30.0, 4.0), (10.0, -8.0, 2.0))


@pytest.mark.parametrize("tilt", [0.0, 20.0])
@pytest.mark.parametrize(
    ("ends", "side", "expected"),
    [
        (SAFE, None, 0.0),
        # Straight through the front wall, which stands 15.34 mm in front at x = 10: the tip is blunt.
        (((15.0, 30.0, 4.0), (10.0, -20.0, 2.0)), "anterior", 4.3),
        # The shaft's upper side (3 mm above its axis) over the upper plane, 14 mm up.
        (((15.0, 30.0, 4.0), (10.0, -8.0, 18.0)), "superior endplate", 5.2),
        (((15.0, 30.0, 4.0), (10.0, -8.0, -16.0)), "inferior endplate", 3.2),
        (((-15.0, 30.0, 4.0), (-24.0, -10.0, 2.0)), "right", 4.8),
    ],
)
@pytest.mark.parametrize("kind", ["body", "mask"])
def test_how_far_a_shaft_leaves_the_body(
    ends: tuple[tuple[float, ...], ...], side: str | None, expected: float, tilt: float, kind: str
) -> None:
    """Planted: the patient's axes for the vertebra's; the axis instead of the shaft's surface (3 mm less)."""
    turn = _turn(tilt)
    outline: Outline = _body(turn) if kind == "body" else _mask(_label(tilt))
    shaft = _shaft(ends[0], ends[1], turn)
    found = breach_of(shaft, outline, turn.T)
    assert found is not None
    truth = _true_mm(shaft, turn, side)
    assert truth == pytest.approx(expected, abs=0.8)
    assert found.sides[side or "anterior"] == pytest.approx(truth, abs=0.9 if kind == "mask" else 0.2)
    # Steep screws leave the label's pedicle too.
    others = {name: mm for name, mm in found.sides.items() if name != side and "pedicle" not in name}
    assert max(others.values()) <= (truth or 0.9)
    assert ("medial pedicle" in found.sides) is (kind == "mask")


def _true_mm(shaft: Shaft, turn: FloatArray, side: str | None) -> float:
    """Distance by brute force: of surface points in front of the pedicles from a fine cloud of the body's surface."""
    if side is None:
        return 0.0
    points = surface_of(shaft).reshape(-1, 3) @ turn
    points = points[points[:, 1] < DEEP / 3]
    if "endplate" in side:
        inside = np.square(points[:, 0] / WIDE) + np.square(points[:, 1] / DEEP) <= 1
        return float(np.max(np.abs(points[inside, 2]) - HIGH))
    angle = np.linspace(0, 2 * np.pi, 800)
    wall = np.stack([WIDE * np.cos(angle), DEEP * np.sin(angle)], axis=1)
    outside = points[np.square(points[:, 0] / WIDE) + np.square(points[:, 1] / DEEP) > 1][:, :2]
    return float(np.linalg.norm(outside[:, None] - wall, axis=2).min(axis=1).max())


@pytest.mark.parametrize(
    ("shift", "side", "expected"), [(0.0, None, 0.0), (-5.0, "medial pedicle", 3.0), (5.0, "lateral pedicle", 3.0)]
)
def test_the_pedicle_of_a_whole_vertebra(shift: float, side: str | None, expected: float) -> None:
    """A screw of 6 mm in a pedicle of 10 mm. Planted: medial told by the patient's left instead of the canal."""
    x = 15.0 + shift
    for sign in (1.0, -1.0):
        shaft = _shaft((sign * x, 31.0, 4.0), (sign * x, 0.0, 4.0), _turn(0.0))
        found = breach_of(shaft, _mask(_label()), np.eye(3))
        assert found is not None
        pedicle = {name: mm for name, mm in found.sides.items() if "pedicle" in name}
        worst = max(pedicle, key=lambda name: pedicle[name])
        assert pedicle[worst] == pytest.approx(expected, abs=0.6)
        assert side is None or worst == side


def test_beside_the_rear_of_the_body_is_no_anterior_wall() -> None:
    """A screw outside the pedicle passes in front of the transverse process, beside the body.

    Planted: the way from the label's nearest voxel alone (4.5 mm beyond the anterior wall).
    """
    mask = _mask(_label())
    x, y, z = np.meshgrid(np.arange(20.0, 40.0, 0.8), np.arange(18.0, 26.0, 0.8), np.arange(-4.0, 8.0), indexing="ij")
    process = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    mask = replace(mask, centers_lps_mm=np.concatenate([mask.centers_lps_mm, process]))
    for sign, wall in ((1.0, "left"), (-1.0, "right")):
        mirrored = replace(mask, centers_lps_mm=mask.centers_lps_mm * np.array([sign, 1, 1]))
        shaft = _shaft((sign * 29.0, 33.0, 2.0), (sign * 14.0, -12.0, 2.0), _turn(0.0))
        found = breach_of(shaft, mirrored, np.eye(3))
        assert found is not None
        assert found.sides["anterior"] == 0.0
        assert found.sides[wall] > 2.0


def test_a_label_that_leaves_out_the_screw_tells_nothing() -> None:
    """Planted: the hole taken for the outside."""
    label = _label()
    mask, shaft = _mask(label), _shaft(*SAFE, _turn(0.0))
    way = mask.centers_lps_mm - np.array(shaft.head_lps_mm)
    depth = way @ shaft.direction_lps
    off = np.linalg.norm(way - depth[:, None] * shaft.direction_lps, axis=1)
    assert breach_of(shaft, replace(mask, centers_lps_mm=mask.centers_lps_mm[off > 4.5]), np.eye(3)) is None


def test_notes_and_the_grade() -> None:
    """A wall is worth a note 1.5 mm later where it was fitted; endplates and pedicles are cut-outs.

    Planted: cut-out graded above a break; a fitted outline's rim forgotten.
    """
    turn = _turn(0.0)
    settings = BreachSettings()
    through = breach_of(_shaft((15.0, 30.0, 4.0), (10.0, -8.0, 18.0), turn), _body(turn), np.eye(3))
    front = breach_of(_shaft((15.0, 30.0, 4.0), (10.0, -18.2, 2.0), turn), _body(turn), np.eye(3))
    safe = breach_of(_shaft(*SAFE, turn), _body(turn), np.eye(3))
    assert through is not None
    assert front is not None
    assert [note.code for note in breach_notes(through, "a", "L3", settings)] == ["endplate_breach"]
    assert 2.0 < front.mm < 3.5
    assert breach_notes(front, "a", "L3", settings) == ()
    assert [n.code for n in breach_notes(front, "a", "L3", replace(settings, rim_mm=0.0))] == ["wall_breach"]
    assert cuts_out(front) == cuts_out(safe) == cuts_out(None) == []
    shaft = _shaft(*SAFE, turn)
    screws = [
        Screw(name, shaft, Halo(True), Loosening.ABSENT, breach=one) for name, one in (("a", through), ("b", safe))
    ]
    found = grade(screws, [])
    assert found.silva_type == 2
    assert grade([replace(screws[0], gaps=(Gap(shaft.tip_lps_mm, 2.0, 0.0, 0.0),)), screws[1]], []).silva_type == 3
    assert grade([replace(screws[0], loosening=Loosening.PRESENT), screws[1]], []).silva_type == 2
    assert "superior endplate" in found.reasons[0]
    assert not any("cut-out" in text and "outline" in text for text in found.not_judged)
    without = grade([replace(screws[1], breach=None)], [])
    assert without.silva_type is None
    assert any("outline of the vertebra is not known" in text for text in without.not_judged)


def test_the_screen_says_what_leaves_a_label() -> None:
    """Through ROI file and screen; a screw whose level has no outline gets none. Planted: LPS and index mixed up."""
    build = construct(1, spacing_mm=(3.0, 0.8, 0.8), fwhm_mm=(0.9, 2.0))  # too thick for halos, which take long
    volume = build.volume()
    geometry = volume.geometry
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    points = geometry.lps_at(index.reshape(-1, 3)).reshape(*geometry.shape, 3)
    # A block whose front lies 5 mm behind the tips.
    front = build.screws["0-left"].end[1] + 5.0
    block = (np.abs(points[..., 0]) < 22) & (points[..., 1] > front) & (points[..., 1] < 0) & (points[..., 2] < 14)
    label = LabelVolume(geometry, ArraySource(block.astype(np.int16)), "label")
    rois = RoiSet((VertebraRoi("L3", mask=MaskRoi(label, 1)),))
    told: list[str] = []
    found = screen_implants(volume, vertebrae=outlined(volume, rois), progress=lambda part, what: told.append(what))
    assert [screw.id for screw in found.screws] == ["L3-left", "L3-right"]
    for screw in found.screws:
        assert screw.breach is not None
        assert screw.breach_mm == screw.breach.mm == pytest.approx(5.0, abs=1.5)
        assert screw.breach.side == "anterior"
        assert "wall_breach" in {note.code for note in screw.notes}
    assert "outlining L3" in told
    bare = screen_implants(volume, vertebrae=[KnownVertebra("L3", np.array([0.0, -20.0, 4.0]))]).screws
    assert [(screw.level, screw.breach_mm) for screw in bare] == [("L3", None)] * 2


def test_axes_follow_the_neighbours() -> None:
    line = [KnownVertebra(f"L{n}", np.array([0.0, 12.0 * n, -34.0 * n])) for n in (1, 2, 3)]
    axes = axes_of(line[1], line)
    assert axes @ axes.T == pytest.approx(np.eye(3))
    assert axes[2] @ np.array([0.0, -12.0, 34.0]) == pytest.approx(np.hypot(12, 34))
    assert axes[1][1] > 0.9
