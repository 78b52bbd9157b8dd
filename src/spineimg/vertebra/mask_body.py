"""The vertebral body in the label of a whole vertebra: found in the image as after a click, and held against the label.

The click is where the label is thickest: that is its body, for pedicles and arch are thin. The label is a witness of
its own: it says where the body ends towards head and feet, so it may speak for a fit that is unclear by itself, and it
contradicts one that took a disc or the next vertebra for bone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spineimg.geometry import FloatArray, Geometry
from spineimg.notes import Note
from spineimg.rois import MaskRoi
from spineimg.settings import setting
from spineimg.vertebra.body import Body, BodyNotFoundError, EndplatePlane
from spineimg.vertebra.candidates import SOFT_CODES
from spineimg.vertebra.click import Clicks, too_thick
from spineimg.vertebra.label_voxels import BoolArray, LabelBlock
from spineimg.vertebra.planes import RoiPlane
from spineimg.volume import keeping


@dataclass(frozen=True, slots=True)
class LabelBodySettings:
    """Where in a label a body is looked for, and when the two agree."""

    thick_mm: float = setting(
        6.0, "mm", (3, 10), "half of a low body", "SD of the blur under which the thickest place of a label is its body"
    )
    aside_mm: float = setting(
        4.0, "mm", (2, 8), "a quarter of a low body", "where the fit is refused it is tried so far from there"
    )
    ends_mm: float = setting(
        2.5,
        "mm",
        (1, 6),
        "engineering choice: half a low disc",
        "an endplate may lie so far from the label's end, and half a voxel of the label",
    )
    beside_mm: float = setting(
        4.0, "mm", (2, 10), "engineering choice: a tenth of a body's width", "the two may lie so far beside each other"
    )
    grown_mm: float = setting(
        1.5,
        "mm",
        (0, 4),
        "engineering choice: what two readers differ by",
        "a label may be too large or too small by so much at both ends, and one and a half voxels",
    )
    within: float = setting(
        0.7,
        "1",
        (0.5, 1),
        "engineering choice: holes; the ROIs lie in the body of the image, and the label tells whose it is",
        "part of the body that must lie in the label",
    )


_COARSE_MM = 1.5
"""The thickest place is looked for on every so many mm of the label."""
_PARTS = (0.25, 0.45, 0.6)
_STEP_MM, _BEYOND_MM, _HOLE_MM = 0.5, 15.0, 4.0
"""Lines from the body's mid-plane to its ends, in the inner 60 % of its outline. A label ends where it is missing for
longer than a hole."""
_STRAY_MM, _AROUND_MM = 5.0, 12.0
_MOST_LOST, _NOTED_LOST = 0.5, 0.05
"""Parts of a ROI that lie outside the label. Engineering choice: as the settings of HU have it for metal."""
_NEXT, _NEXT_MM = 0.1, (8.0, 22.0, 1.0)
"""More of the next vertebra than this part of it, so far beyond the endplates, must not be of the label."""
_WALL, _HEIGHT = 0.8, 0.3
"""Places that must lie in the label: so near to the wall, and so much of the height above and below the middle."""


@dataclass(frozen=True, eq=False, slots=True)
class Label:
    """A label on its own grid."""

    roi: MaskRoi
    block: LabelBlock

    @property
    def name(self) -> str:
        return f"label {self.roi.label} of {self.roi.labels.name}"

    @property
    def grid(self) -> Geometry:
        return self.roi.labels.geometry

    def holds(self, points_lps_mm: FloatArray) -> BoolArray:
        """(...) whether the voxel nearest to each point (..., 3) is of the label."""
        return self.block.holds(self.grid, points_lps_mm)


def body_of_label(clicks: Clicks, label: Label, settings: LabelBodySettings) -> Body:
    """The body in the label of a whole vertebra.

    Raises BodyNotFoundError: with `mask_misplaced` when the image shows a body elsewhere than the label, else with the
    reason of the first try. PixelError.
    """
    thick = too_thick(clicks.volume, clicks.settings)
    if thick is not None:
        raise BodyNotFoundError("body_not_found", thick)
    clicks, seeds = clicks.reading(keeping(clicks.volume)), _seeds(label, settings)
    refusals: list[BodyNotFoundError] = []
    unclear: list[FloatArray] = []

    def tried(seed: FloatArray, **how: Any) -> Body | None:
        try:
            body = clicks.body(seed, **how)
        except BodyNotFoundError as error:
            refusals.append(error)
            if error.code in SOFT_CODES:
                unclear.append(seed)
            return None
        words = apart(body, label, settings)
        if words is not None:
            refusals.insert(0, BodyNotFoundError("mask_misplaced", words))
        return body if words is None else None

    def ways() -> Iterator[tuple[FloatArray, dict[str, Any]]]:
        """The label speaks for an unclear fit only where no other place gives a clear one; neighbours come last."""
        yield from ((seed, {"alone": True}) for seed in seeds)
        again = tuple(unclear)
        yield from ((seed, {"alone": True, "witness": agrees}) for seed in again)
        yield from ((seed, {}) for seed in again[:1])

    def agrees(body: Body) -> bool:
        return apart(body, label, settings) is None

    for seed, how in ways():
        body = tried(seed, **how)
        if body is not None:
            return body
    raise refusals[0]


def _seeds(label: Label, settings: LabelBodySettings) -> list[FloatArray]:
    """(3,) LPS mm of the thickest place of a label, and of others beside it that lie in the label."""
    from scipy.ndimage import gaussian_filter

    spacing = np.nan_to_num(label.grid.spacing_mm, nan=1.0)
    every = np.maximum(1, np.floor(_COARSE_MM / spacing)).astype(np.intp)
    step = every * spacing
    spare = np.ceil(settings.thick_mm / step).astype(np.intp)
    thin = np.pad(label.block.voxels[:: every[0], :: every[1], :: every[2]], [(n, n) for n in spare])
    thick = gaussian_filter(thin.astype(np.float32), settings.thick_mm / step, mode="constant")
    at = (np.array(np.unravel_index(int(thick.argmax()), thick.shape)) - spare) * every + label.block.corner
    middle = label.grid.lps_at(at)
    up, front = np.array([0.0, 0.0, settings.aside_mm]), np.array([0.0, -settings.aside_mm, 0.0])
    others = np.array([middle + way for way in (front, up, -up)])
    return [middle, *others[label.holds(others)]]


def clipped(plane: RoiPlane, label: Label, level: str) -> tuple[RoiPlane, tuple[Note, ...]]:
    """What of a ROI lies in a label, and a note where much does not."""
    if plane.samples is None:
        return plane, ()
    own, about = plane.samples, f"{level} {plane.position}"
    held = label.holds(own.points_lps_mm)
    lost = 1 - float(held.mean())
    if lost == 0:
        return plane, ()
    if lost > _MOST_LOST:
        text = f"only {100 * (1 - lost):.0f} % of the ROI lies in {label.name}"
        return replace(plane, samples=None, refusal=Note("mask_too_small", text, about)), ()
    samples = replace(own, points_lps_mm=own.points_lps_mm[held], hu=own.hu[held], inside=own.inside[held])
    text = f"{100 * lost:.0f} % of the ROI lie outside {label.name} and were left out"
    notes = (Note("clipped_to_mask", text, about),) if lost > _NOTED_LOST else ()
    return replace(plane, samples=samples, rim=plane.rim[held]), notes


# -- the fit against the label ----------------------------------------------------------------------------------------


def apart(body: Body, label: Label, settings: LabelBodySettings) -> str | None:
    """How a body and a label contradict each other; None when they agree."""
    left, back, up = (_voxel_mm(label.grid, body.center_lps_mm, way) for way in body.axes)
    part = float(label.holds(_places_in(body, max(left, back), up)).mean())
    if part < settings.within:
        return f"the vertebral body that is found there lies in {label.name} to {100 * part:.0f} %"
    beside = _beside(body, label)
    if beside > settings.beside_mm:
        return f"the vertebral body that is found there lies {beside:.0f} mm beside {label.name}"
    if max(_next_part(body, label, way) for way in (1.0, -1.0)) > _NEXT:
        return f"{label.name} reaches into the vertebra beside the one that is found there"
    ends = [_beyond(body, label, end, way) for end, way in ((body.superior, 1.0), (body.inferior, -1.0))]
    grown = float(np.mean([one.mean() for one in ends]))
    worst = max(float(np.abs(one - grown).max()) for one in ends)
    if abs(grown) > settings.grown_mm + 1.5 * up:
        return f"{label.name} ends {abs(grown):.0f} mm {'above and below' if grown > 0 else 'within'} the body"
    if worst > settings.ends_mm + 0.5 * up:
        return f"an endplate of the vertebral body that is found there lies {worst:.0f} mm from the end of {label.name}"
    return None


def _voxel_mm(grid: Geometry, point_lps_mm: FloatArray, way_lps: FloatArray) -> float:
    """How far it is from voxel to voxel in a direction."""
    along = grid.index_at(point_lps_mm + way_lps) - grid.index_at(point_lps_mm)
    return 1 / float(np.abs(along).max())


def _places_in(body: Body, aside_mm: float, up_mm: float) -> FloatArray:
    """(n, 3) LPS mm near the wall of a body and within; a label may be smaller by so much in and across its planes."""
    rim = body.outline_mm[::4]
    rim = rim * np.maximum(0.0, _WALL - aside_mm / np.linalg.norm(rim, axis=1))[:, None]
    flat = np.concatenate([rim, rim / 2])
    height = max(0.0, _HEIGHT * body.height_mm - up_mm)
    local = np.column_stack([np.tile(flat, (3, 1)), np.repeat([-height, 0.0, height], len(flat))])
    return np.asarray(body.center_lps_mm + local @ body.axes)


def _beside(body: Body, label: Label) -> float:
    """How far the middles of a label and of the body lie from each other, mm to the side, in front of the pedicles."""
    left = np.arange(-body.width_mm / 2 - _AROUND_MM, body.width_mm / 2 + _AROUND_MM)
    back = np.arange(-body.depth_mm / 2 - _AROUND_MM, 0.0)
    high = np.array([-_HEIGHT, 0.0, _HEIGHT]) * body.height_mm
    local = np.stack(np.meshgrid(left, back, high, indexing="ij"), axis=-1)
    held = label.holds(body.center_lps_mm + local @ body.axes)
    front = body.outline_mm[body.outline_mm[:, 1] < 0, 0]
    return abs(float(local[held][:, 0].mean() - (front.min() + front.max()) / 2)) if held.any() else np.inf


def _next_part(body: Body, label: Label, way: float) -> float:
    """Part of what lies straight above (way 1) or below (-1) a body, where the next one is, that is of the label."""
    rim = body.outline_mm[::6]
    flat = np.concatenate([part * rim for part in _PARTS])
    heights = way * (body.height_mm / 2 + np.arange(*_NEXT_MM))
    places = body.center_lps_mm + (flat @ body.axes[:2])[:, None] + heights[:, None] * body.cranial_lps
    return float(label.holds(places).mean())


def _beyond(body: Body, label: Label, end: EndplatePlane, way: float) -> FloatArray:
    """(4,) mm by which the label reaches beyond an endplate plane, left, right, in front and behind in the body."""
    outline = body.outline_mm
    rays = outline[:: max(1, len(outline) // 12)]
    flat = np.concatenate([np.zeros((1, 2)), *(part * rays for part in _PARTS)])
    lines = np.arange(0.0, body.height_mm / 2 + _BEYOND_MM, _STEP_MM)
    feet = body.center_lps_mm + flat @ body.axes[:2]
    held = label.holds(feet[:, None] + way * lines[:, None] * body.cranial_lps)
    hole = round(_HOLE_MM / _STEP_MM)
    missing = np.cumsum(np.pad(~held, ((0, 0), (1, 0))), axis=1)
    gone: BoolArray = missing[:, hole:] - missing[:, :-hole] == hole
    reach = lines[np.where(gone.any(axis=1), gone.argmax(axis=1), len(lines) - 1)] - _STEP_MM / 2
    height = ((end.point_lps_mm - feet) @ end.normal_lps) / (body.cranial_lps @ end.normal_lps)
    over = reach - way * height
    kept = np.abs(over - np.median(over)) < _STRAY_MM
    design = np.column_stack([np.ones(len(flat)), flat])
    solved, *_ = np.linalg.lstsq(design[kept], over[kept], rcond=None)
    size = 0.5 * _PARTS[-1] * np.array([body.width_mm, body.depth_mm])
    corners = np.array([[1, size[0], 0], [1, -size[0], 0], [1, 0, size[1]], [1, 0, -size[1]]])
    return np.asarray(corners @ solved)
