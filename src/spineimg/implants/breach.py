"""Whether a screw leaves its vertebra, and by how much, where the vertebra's outline is known.

Two outlines are understood. A fitted body: its wall at mid-height and two endplate planes. It says nothing of the
pedicle, and nothing of the rear third of the body, where pedicle and wall meet. A label of the whole vertebra: its
voxels, whose projection along the vertebra shows the canal as a hole; in front of the canal is the body, beside its
front part the pedicle. A label of the body alone is taken as a body.

What is measured is the shaft's surface, from the head to the taper of its tip: how far its farthest point lies beyond
the outline on each side. Grades of 2 mm are usual for pedicle screws (Gertzbein and Robbins 1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.implants.model import Breach, Shaft
from spineimg.notes import Note
from spineimg.settings import setting

BoolArray = npt.NDArray[np.bool_]

_STEP_MM = 1.0
_ANGLES = 24
_TAPER_MM, _POINT = 5.0, 0.3
"""A screw's tip tapers over so much to so much of its radius. Engineering choice."""
_REAR = 1 / 3
"""Pedicles join the rear third of a body. Engineering choice."""
_PEDICLE_MM = 10.0
"""Length of a pedicle from the body's rear wall backwards. Engineering choice."""
_CANAL_MM2 = 60.0
"""A hole of this size in a vertebra's projection is its canal. Engineering choice: canals have 150 mm² and more."""
_FIT_MM = 1.0
"""How well fitted walls and endplates are known. Engineering choice."""
_NEIGHBOURS = 12
_ROOM_MM = 10.0
ENDPLATES = ("superior endplate", "inferior endplate")
PEDICLE = ("medial pedicle", "lateral pedicle", "cranial pedicle", "caudal pedicle")


@dataclass(frozen=True, slots=True)
class BreachSettings:
    """When a screw that leaves its vertebra is worth a note."""

    note_mm: float = setting(
        2.0,
        "mm",
        (0.5, 6.0),
        "Gertzbein and Robbins 1990: below 2 mm is the grade that is accepted as safe",
        "A screw farther outside its vertebra gets a note; through endplate or pedicle it is a cut-out.",
    )
    rim_mm: float = setting(
        1.5,
        "mm",
        (0.0, 4.0),
        "engineering choice: the rims of a body overhang its waist by 5-10 % of its width",
        "So much farther a screw must leave a fitted wall, whose outline is that of mid-height.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class BodyShape:
    """A fitted body. axes_lps: (3, 3) rows left, posterior, cranial; outline_mm: (n, 2) left and posterior of the wall
    around the centre at mid-height; superior, inferior: a point (3,) of each endplate plane and its unit normal towards
    the head."""

    center_lps_mm: FloatArray
    axes_lps: FloatArray
    outline_mm: FloatArray
    superior: tuple[FloatArray, FloatArray]
    inferior: tuple[FloatArray, FloatArray]


@dataclass(frozen=True, eq=False, slots=True)
class MaskShape:
    """A label's voxels. centers_lps_mm: (n, 3); steps_lps_mm: (3, 3) rows are the steps from voxel to voxel."""

    centers_lps_mm: FloatArray
    steps_lps_mm: FloatArray


Outline = BodyShape | MaskShape


def breach_of(shaft: Shaft, outline: Outline, axes_lps: FloatArray) -> Breach | None:
    """How far a shaft leaves its vertebra; None where the outline cannot tell.

    axes_lps: (3, 3) rows left, posterior, cranial of the vertebra, for a label.
    """
    if isinstance(outline, BodyShape):
        return _beyond_body(surface_of(shaft), outline)
    return _beyond_mask(shaft, outline, axes_lps)


def surface_of(shaft: Shaft) -> FloatArray:
    """(depths, angles, 3) points on a shaft's surface from head to tip."""
    head, along = np.asarray(shaft.head_lps_mm), shaft.direction_lps
    helper = np.array([0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    across = np.cross(along, helper)
    across /= np.linalg.norm(across)
    depths = np.append(np.arange(0.0, shaft.length_mm, _STEP_MM), shaft.length_mm)
    part = np.clip(_POINT + (1 - _POINT) * (shaft.length_mm - depths) / _TAPER_MM, 0.0, 1.0)
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    ring = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * np.cross(along, across)
    radius = shaft.diameter_mm / 2 * part
    return np.asarray(head + depths[:, None, None] * along + radius[:, None, None] * ring)


def _beyond_body(surface: FloatArray, body: BodyShape) -> Breach:
    points = surface.reshape(-1, 3)
    local = (points - body.center_lps_mm) @ body.axes_lps.T
    off, out = _outside(local[:, :2], body.outline_mm)
    rear = body.outline_mm[:, 1].max() - _REAR * np.ptp(body.outline_mm[:, 1])
    front = local[:, 1] < rear
    forward = -out[:, 1] > np.abs(out[:, 0])
    left = out[:, 0] > 0
    heights = [
        (points - body.superior[0]) @ body.superior[1],
        (body.inferior[0] - points) @ body.inferior[1],
    ]
    sides = {
        "anterior": _most(off, front & forward),
        "left": _most(off, front & ~forward & left),
        "right": _most(off, front & ~forward & ~left),
        **{name: _most(height, off <= 0) for name, height in zip(ENDPLATES, heights, strict=True)},
    }
    return _breach(sides, "fitted body", _FIT_MM)


def _most(values: FloatArray, where: BoolArray) -> float:
    return float(max(0.0, values[where].max(initial=0.0)))


def _breach(sides: Mapping[str, float], basis: str, resolution_mm: float) -> Breach:
    rounded = {name: round(value, 2) for name, value in sides.items()}
    worst = max(rounded, key=lambda name: rounded[name])
    return Breach(rounded[worst], worst if rounded[worst] > 0 else None, rounded, basis, resolution_mm)


def _outside(points: FloatArray, outline: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of points (n, 2) and a closed outline (m, 2): (n,) distance, positive outside, and (n, 2) way from the outline's
    nearest place."""
    start, way = outline, np.roll(outline, -1, axis=0) - outline
    rel = points[:, None] - start
    along = np.clip(np.sum(rel * way, axis=2) / np.maximum(np.sum(way * way, axis=1), 1e-12), 0.0, 1.0)
    off = rel - along[..., None] * way
    distance = np.linalg.norm(off, axis=2)
    nearest = np.argmin(distance, axis=1)
    row = np.arange(len(points))
    # A ray to the left crosses the outline an odd number of times from inside.
    above = (start[:, 1] > points[:, None, 1]) != ((start + way)[:, 1] > points[:, None, 1])
    slope = np.where(way[:, 1] == 0, 1.0, way[:, 1])
    crossing = start[:, 0] + (points[:, None, 1] - start[:, 1]) / slope * way[:, 0]
    inside = np.count_nonzero(above & (points[:, None, 0] < crossing), axis=1) % 2 == 1
    size = distance[row, nearest]
    return np.where(inside, -size, size), off[row, nearest]


def _beyond_mask(shaft: Shaft, mask: MaskShape, axes: FloatArray) -> Breach | None:
    """Sides beyond a label; None where the label leaves out the screw itself."""
    surface = surface_of(shaft)
    points = surface.reshape(-1, 3)
    near = _around(mask, points)
    if len(near.centers_lps_mm) < 8:
        return None
    off, out = _outside_voxels(points, near)
    way = out @ axes.T
    body, pedicle, canal, basis, middle = _parts(points, mask, axes)
    axis = surface.mean(axis=1)
    axis_off, _ = _outside_voxels(axis, near)
    axis_body = _parts(axis, mask, axes)[0]
    if np.count_nonzero(axis_body) and np.mean(axis_off[axis_body] > 0) > 0.5 and axis_off[axis_body].max() < 5.0:
        return None
    towards = np.argmax(np.abs(way), axis=1)
    ahead = body & (towards == 1) & (way[:, 1] < 0)
    # Between pedicle and body a screw may pass in front of the pedicle, beside the body: that is no anterior wall.
    beside = ahead & (points @ axes[1] > middle)
    left = points @ axes[0] > float(np.median(mask.centers_lps_mm @ axes[0]))
    sides = {
        "anterior": _most(off, ahead & ~beside),
        "left": _most(off, body & (towards == 0) & (way[:, 0] > 0) | beside & left),
        "right": _most(off, body & (towards == 0) & (way[:, 0] < 0) | beside & ~left),
        "superior endplate": _most(off, body & (towards == 2) & (way[:, 2] > 0)),
        "inferior endplate": _most(off, body & (towards == 2) & (way[:, 2] < 0)),
    }
    if pedicle.any():
        sides |= {
            "medial pedicle": _most(off, pedicle & canal),
            "lateral pedicle": _most(off, pedicle & ~canal & (towards == 0)),
            "cranial pedicle": _most(off, pedicle & ~canal & (towards == 2) & (way[:, 2] > 0)),
            "caudal pedicle": _most(off, pedicle & ~canal & (towards == 2) & (way[:, 2] < 0)),
        }
    return _breach(sides, basis, round(float(np.linalg.norm(mask.steps_lps_mm, axis=1).max()) / 2, 2))


def _around(mask: MaskShape, points: FloatArray) -> MaskShape:
    """The voxels of a label in a box around a shaft."""
    low, high = points.min(axis=0) - _ROOM_MM, points.max(axis=0) + _ROOM_MM
    inside = ((mask.centers_lps_mm >= low) & (mask.centers_lps_mm <= high)).all(axis=1)
    return MaskShape(mask.centers_lps_mm[inside], mask.steps_lps_mm)


def _outside_voxels(points: FloatArray, mask: MaskShape) -> tuple[FloatArray, FloatArray]:
    """(n,) distance of points from a label's voxels, 0 inside, and (n, 3) way from the nearest voxel, LPS."""
    from scipy.spatial import cKDTree

    to_index = np.linalg.inv(mask.steps_lps_mm)
    count = min(_NEIGHBOURS, len(mask.centers_lps_mm))
    _, near = cKDTree(mask.centers_lps_mm).query(points, k=count)
    away = (points[:, None] - mask.centers_lps_mm[near.reshape(len(points), count)]) @ to_index
    beyond = np.sign(away) * np.maximum(np.abs(away) - 0.5, 0.0) @ mask.steps_lps_mm
    distance = np.linalg.norm(beyond, axis=2)
    best = np.argmin(distance, axis=1)
    row = np.arange(len(points))
    return distance[row, best], beyond[row, best]


def _parts(points: FloatArray, mask: MaskShape, axes: FloatArray) -> tuple[BoolArray, BoolArray, BoolArray, str, float]:
    """Which points (n, 3) lie as far forward as the body, as far as the pedicle, and behind or before the canal's hole;
    what the label shows, and where the middle of the body is from front to back, mm along the posterior axis."""
    from scipy import ndimage

    flat = mask.centers_lps_mm @ axes[:2].T
    step = max(1.0, float(np.sort(np.linalg.norm(mask.steps_lps_mm, axis=1))[1]))
    low = flat.min(axis=0) - 2 * step
    shape = np.ceil((np.ptp(flat, axis=0) + 4 * step) / step).astype(int) + 1
    shadow = np.zeros(shape, dtype=bool)
    shadow[tuple(np.round((flat - low) / step).astype(int).T)] = True
    shadow = ndimage.binary_closing(shadow, iterations=1)
    holes, count = ndimage.label(ndimage.binary_fill_holes(shadow) & ~shadow)
    at = points @ axes[:2].T
    sizes = np.bincount(holes.ravel())[1:] * step**2 if count else np.zeros(0)
    if not len(sizes) or sizes.max() < _CANAL_MM2:
        rear = flat[:, 1].max() - _REAR * float(np.ptp(flat[:, 1]))
        nowhere = np.zeros(len(points), dtype=bool)
        return at[:, 1] < rear, nowhere, nowhere, "label of the body", float(flat[:, 1].mean())
    hole = holes == 1 + int(np.argmax(sizes))
    behind = low[1] + step * np.flatnonzero(hole.any(axis=0))
    index = np.round((at - low) / step).astype(int)
    inside = ((index >= 0) & (index < shape)).all(axis=1)
    canal = np.zeros(len(points), dtype=bool)
    canal[inside] = hole[tuple(index[inside].T)]
    front = float(behind.min()) - step / 2
    pedicle = (at[:, 1] >= front) & (at[:, 1] <= min(front + _PEDICLE_MM, float(behind.max())))
    return at[:, 1] < front, pedicle, canal, "label of the whole vertebra", (float(flat[:, 1].min()) + front) / 2


def cuts_out(breach: Breach | None, settings: BreachSettings | None = None) -> list[str]:
    """The sides on which a screw goes through an endplate or a pedicle's wall, farther than the settings ask for."""
    return [side for side in _noted(breach, settings or BreachSettings()) if side in (*ENDPLATES, *PEDICLE)]


def breach_notes(breach: Breach | None, screw_id: str, level: str, settings: BreachSettings) -> tuple[Note, ...]:
    """A note for each side on which a screw leaves its vertebra."""
    if breach is None:
        return ()
    notes = []
    for side in _noted(breach, settings):
        code = "endplate_breach" if side in ENDPLATES else "pedicle_breach" if side in PEDICLE else "wall_breach"
        what = side if side in ENDPLATES else f"wall of the {side}" if side in PEDICLE else f"{side} wall of the body"
        text = (
            f"the screw stands {breach.sides[side]:.1f} mm beyond the {what} ({breach.basis} of {level}, "
            f"known to {breach.resolution_mm:.1f} mm)"
        )
        notes.append(Note(code, text, screw_id))
    return tuple(notes)


def _noted(breach: Breach | None, settings: BreachSettings) -> list[str]:
    if breach is None:
        return []
    fitted = breach.basis == "fitted body"
    least = {
        side: max(settings.note_mm + (settings.rim_mm if fitted and side not in ENDPLATES else 0), breach.resolution_mm)
        for side in breach.sides
    }
    return [side for side, mm in breach.sides.items() if mm > least[side]]
