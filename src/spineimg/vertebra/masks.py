"""A label's ROIs, in three planes.

In the label of a whole vertebra the body is found as after a click (`mask_body.py`), and the ROIs lie in it. Else, and
where no body is found, the label is brought to the voxels of the CT, 3 mm are taken off its surface, and of what is
left the voxels in the slices at 25, 50 and 75 % of its height are the ROIs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from spineimg.geometry import FloatArray, Geometry
from spineimg.notes import Note
from spineimg.rois import POSITIONS, MaskRoi
from spineimg.sampling import PlaneSamples, SliceReader, voxel_area_mm2
from spineimg.settings import setting
from spineimg.vertebra.body import Body, BodyNotFoundError
from spineimg.vertebra.candidates import SOFT_CODES
from spineimg.vertebra.label_voxels import BoolArray, LabelBlock, cut_out, on_grid, same_grid, trimmed
from spineimg.vertebra.mask_body import Label, LabelBodySettings
from spineimg.vertebra.mask_place import PlaceSettings, misplaced
from spineimg.vertebra.planes import RoiPlane

_LAYER_MM, _MIDDLE_MM, _ASIDE_MM, _PEDICLE_MM = 3.0, 4.0, 7.0, 6.0
"""Pedicles: in layers so thick, beyond so much aside of the middle, a label reaches back so much farther than within so
much of it, over as much height. Engineering choice: a body's back is hollow by 1-3 mm, a pedicle 7-18 mm high."""
_BALL_SLACK_MM = 1.0
"""The core is known to half a voxel, so the ball around it reaches a little further."""


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """How a label becomes three ROIs."""

    erosion_mm: float = setting(
        3.0,
        "mm",
        (0.0, 10.0),
        "spill-in from a 0.35 mm shell of +1150 HU falls to 0.1 HU at 2 mm (FWHM 1.2 mm), computed; "
        "1 mm more for the label's own error",
        "Depth below the surface of the label from which voxels count.",
    )
    heights: tuple[float, float, float] = setting(
        (0.25, 0.5, 0.75),
        "fraction",
        (0.0, 1.0),
        "engineering choice: clear of both endplates and of the disc edge",
        "Heights of the three planes as fractions of the label's extent along the slice normal.",
    )
    body_radius_mm: float = setting(
        6.0,
        "mm",
        (4.0, 8.0),
        "pedicles and arch are under 12 mm thick up to L4, bodies over 14 mm high (Panjabi); on a public "
        "scan with both labels the HU of L1-L4 came within 3 and of L5 within 8 HU of those of the body's label",
        "Radius of the ball that tells the body of a whole vertebra from its pedicles and arch.",
    )
    max_depth_mm: float = setting(
        50.0,
        "mm",
        (30.0, 80.0),
        "engineering choice: bodies are up to 36 mm deep, whole vertebrae of two public scans 63-102 mm",
        "A label deeper than this from front to back holds more than the body.",
    )
    second_part: float = setting(
        0.1,
        "fraction",
        (0.01, 0.5),
        "engineering choice: stray voxels of a body's label are below 1 % of it",
        "A second part of this size, relative to the whole, means more than the body.",
    )
    place: PlaceSettings = field(default_factory=PlaceSettings)
    body: LabelBodySettings = field(default_factory=LabelBodySettings)


Planes = tuple[tuple[RoiPlane, ...], tuple[Note, ...], Body | None]
"""ROIs from head to foot, what is doubtful about them, and the body they lie in when one was fitted."""


def mask_planes(
    reader: SliceReader, roi: MaskRoi, level: str, settings: MaskSettings, in_body: Callable[[Label], Planes]
) -> Planes:
    """The ROIs of a label.

    in_body: places them in the body of a whole vertebra, or raises BodyNotFoundError. Raises PixelError.
    """
    geometry = reader.volume.geometry
    stored = cut_out(roi.labels, roi.label)
    if stored is None:
        text = f"label {roi.label} does not occur in {roi.labels.name}"
        return (), (Note("label_missing", text, level),), None
    label, failed = Label(roi, stored), None
    if _is_whole(roi.labels.geometry.lps_at(np.argwhere(stored.voxels) + stored.corner), settings):
        try:
            return in_body(label)
        except BodyNotFoundError as error:
            failed = error
    block = stored if same_grid(geometry, roi.labels.geometry) else on_grid(geometry, roi.labels.geometry, stored)
    if block is None:
        text = f"label {roi.label} of {roi.labels.name} lies outside this CT: is it of another scan?"
        return (), (Note("roi_outside_volume", text, level),), None
    if failed is None:
        planned = _plan(geometry, block, settings)
        if not planned.in_parts:
            return _in_slices(reader, label, level, block, planned, (), settings)
        try:
            return in_body(label)
        except BodyNotFoundError as error:
            failed = error
    return _without_body(reader, label, level, block, failed, settings)


def _without_body(
    reader: SliceReader, label: Label, level: str, block: LabelBlock, failed: BodyNotFoundError, settings: MaskSettings
) -> Planes:
    """The label of a whole vertebra in which no body is found: what of it may be measured, or why nothing is."""
    geometry = reader.volume.geometry
    if failed.code == "mask_misplaced":
        return (), (Note(failed.code, f"{failed}: is the mask of this scan?", level),), None
    if not _may_be_reduced(failed.code, level, bool(_cut_notes(geometry, block, level))):
        ask = "" if failed.code in ("body_cut", "body_in_gap") else ": is the mask of this scan?"
        text = f"no vertebral body is found in {label.name} ({failed}){ask}"
        return (), (Note("mask_without_body", text, level),), None
    planned, note = _reduced(geometry, label, level, block, str(failed), settings)
    return _in_slices(reader, label, level, block, planned, (note,), settings)


def _may_be_reduced(code: str, level: str, cut: bool) -> bool:
    """Whether a label is measured by itself though no body is fitted: where fits are unclear, slices are too thick, and
    in neck and sacrum. Other reasons say that no whole body is where the label is.

    cut: whether an end of the image or a gap may cut the label.
    """
    return code in SOFT_CODES or code == "body_not_found" or (level[0] in "CS" and not cut)


def _reduced(
    geometry: Geometry, label: Label, level: str, block: LabelBlock, reason: str, settings: MaskSettings
) -> tuple[_Plan, Note]:
    """The body of a whole vertebra in which none could be fitted, by its thickness."""
    body = _body_of(geometry, block, settings)
    reduced = _plan(geometry, body if body is not None else block, settings)
    points = geometry.lps_at(np.argwhere(reduced.block.voxels) + reduced.block.corner)
    if reduced.in_parts or _is_whole(points, settings):
        text = f"{label.name} seems to hold more than the vertebral body, which raises the HU: give a label of the body"
        return reduced, Note("mask_not_only_body", text, level)
    text = (
        f"{label.name} holds more than the vertebral body, and none was fitted in it ({reason}): pedicles and arch "
        f"were cut off, as what no ball of {settings.body_radius_mm:g} mm radius fits into"
    )
    return reduced, Note("mask_reduced_to_body", text, level)


def _in_slices(
    reader: SliceReader,
    label: Label,
    level: str,
    block: LabelBlock,
    planned: _Plan,
    notes: tuple[Note, ...],
    settings: MaskSettings,
) -> Planes:
    """The voxels of a label below its surface, on three original slices. block: all of the label."""
    notes = (*_cut_notes(reader.volume.geometry, block, level), *notes)
    missed = misplaced(reader, block.corner, block.voxels, settings.place)
    if missed is not None:
        notes = (*notes, Note("mask_misplaced", f"the rim of {label.name} {missed}: is the mask of this scan?", level))
    if not planned.inner.any():
        text = f"nothing is left of {label.name} after {settings.erosion_mm:g} mm are taken off its surface"
        return (), (Note("mask_too_small", text, level),), None
    planes = [_plane(reader, planned.block, planned.inner, k) for k in planned.slices]
    planes.sort(key=lambda plane: -plane.center_lps_mm[2])
    names = {1: POSITIONS[1:2], 2: POSITIONS[::2], 3: POSITIONS}[len(planes)]
    return tuple(_named(plane, name, level) for plane, name in zip(planes, names, strict=True)), notes, None


# -- depth in the label -----------------------------------------------------------------------------------------------


def _eroded(geometry: Geometry, block: LabelBlock, depth_mm: float) -> BoolArray:
    """Voxels of a block whose centres lie at least so deep below the surface of the label.

    The surface is the faces between voxels in and out of the label; beyond the volume nothing is label.
    """
    from scipy.spatial import cKDTree

    padded = np.pad(block.voxels, 1)
    at = np.argwhere(padded)
    faces = []
    for step in (*np.eye(3, dtype=np.intp), *-np.eye(3, dtype=np.intp)):
        beside = at + step
        bare = ~padded[tuple(beside.T)]
        faces.append((at[bare] + beside[bare]) / 2)
    corner = block.corner - 1
    surface = cKDTree(geometry.lps_at(np.concatenate(faces) + corner))
    away, _ = surface.query(geometry.lps_at(at + corner), distance_upper_bound=max(depth_mm - 1e-6, 1e-6))
    deep = at[np.isinf(away)] - 1
    inner = np.zeros_like(block.voxels)
    inner[tuple(deep.T)] = True
    return inner


# -- the body in the label ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    """What of a label would be measured: the voxels below its surface, on these slices."""

    block: LabelBlock
    inner: BoolArray
    slices: list[int]
    in_parts: bool
    """What is left below the surface falls into several: more than a body."""


def _plan(geometry: Geometry, block: LabelBlock, settings: MaskSettings) -> _Plan:
    inner = _eroded(geometry, block, settings.erosion_mm)
    chosen = _chosen_slices(geometry, block, settings)
    return _Plan(block, inner, chosen, _in_parts(block, inner, chosen, settings))


def _body_of(geometry: Geometry, block: LabelBlock, settings: MaskSettings) -> LabelBlock | None:
    """The vertebral body of a whole vertebra: the label opened by a ball that fits the body and nothing else of it.

    None when the ball fits nowhere, or into more than one body.
    """
    from scipy import ndimage
    from scipy.spatial import cKDTree

    core = _eroded(geometry, block, settings.body_radius_mm)
    parts, count = ndimage.label(core, structure=np.ones((3, 3, 3)))
    if not count:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    if np.sort(sizes)[:-1].sum() > settings.second_part * sizes.sum():
        return None
    largest = 1 + int(np.argmax(sizes))
    reach = settings.body_radius_mm + _BALL_SLACK_MM
    tree = cKDTree(geometry.lps_at(np.argwhere(parts == largest) + block.corner))
    at = np.argwhere(block.voxels)
    away, _ = tree.query(geometry.lps_at(at + block.corner), distance_upper_bound=reach)
    voxels = np.zeros_like(block.voxels)
    voxels[tuple(at[np.isfinite(away)].T)] = True
    return trimmed(block.corner, voxels)


# -- planes and doubts --------------------------------------------------------------------------------------------


def _chosen_slices(geometry: Geometry, block: LabelBlock, settings: MaskSettings) -> list[int]:
    """Slices nearest to the three heights, distinct as long as there are slices."""
    left = list(block.slices)
    places = geometry.positions_mm[left]
    low, high = places.min(), places.max()
    chosen: list[int] = []
    for height in settings.heights[: len(left)]:
        best = min(left, key=lambda k: abs(geometry.positions_mm[k] - low - height * (high - low)))
        left.remove(best)
        chosen.append(int(best))
    return chosen


def _plane(reader: SliceReader, block: LabelBlock, inner: BoolArray, k: int) -> RoiPlane:
    """The ROI of one slice, not yet named. Of a slice without voxels the centre is that of the label's own section."""
    geometry = reader.volume.geometry
    local = k - int(block.corner[0])
    at = np.argwhere(inner[local]) + block.corner[1:]
    index = np.column_stack([np.full(len(at), k), at])
    points = geometry.lps_at(index)
    samples = PlaneSamples(
        points_lps_mm=points,
        hu=reader.values(k, at[:, 0], at[:, 1]),
        inside=np.ones(len(at), dtype=bool),
        slices=(k,),
        nearest_slice=k,
        resampled=False,
        sample_area_mm2=voxel_area_mm2(geometry),
    )
    section = np.argwhere(block.voxels[local]) + block.corner[1:]
    center = points.mean(axis=0) if len(at) else geometry.lps_at([k, *section.mean(axis=0)])
    return RoiPlane("", center, None, samples, np.ones(len(at), dtype=bool))


def _named(plane: RoiPlane, position: str, level: str) -> RoiPlane:
    if plane.samples is not None and len(plane.samples.hu):
        return RoiPlane(position, plane.center_lps_mm, None, plane.samples, plane.rim)
    refusal = Note("mask_too_small", "nothing of the label is left in this plane", f"{level} {position}")
    return RoiPlane(position, plane.center_lps_mm, None, None, plane.rim, refusal)


def _cut_notes(geometry: Geometry, block: LabelBlock, level: str) -> tuple[Note, ...]:
    """Notes on a label that the volume cuts off or that spans a gap: its height is then not known."""
    notes = []
    slices = block.slices
    if slices[0] == 0 or slices[-1] == geometry.shape[0] - 1:
        text = "the label reaches the end of the volume, so that the vertebra may be cut off and the planes misplaced"
        notes.append(Note("roi_at_volume_end", text, level))
    if any(slices[0] <= gap.after + 1 and gap.after <= slices[-1] for gap in geometry.gaps):
        text = (
            "slices are missing within or beside the label, so that its height is not known and planes may be misplaced"
        )
        notes.append(Note("roi_at_gap", text, level))
    return tuple(notes)


def _in_parts(block: LabelBlock, inner: BoolArray, chosen: list[int], settings: MaskSettings) -> bool:
    """True when what is left of a label, or of one of its slices, is in parts."""
    from scipy import ndimage

    touching = np.ones((3, 3, 3))
    for voxels in (inner, *(inner[[k - int(block.corner[0])]] for k in chosen)):
        parts, _ = ndimage.label(voxels, structure=touching)
        sizes = np.sort(np.bincount(parts.ravel())[1:])
        if len(sizes) > 1 and sizes[-2] > settings.second_part * sizes.sum():
            return True
    return False


def _is_whole(points: FloatArray, settings: MaskSettings) -> bool:
    """Whether points (n, 3) LPS of a label reach farther back than a body does."""
    return bool(float(np.ptp(points[:, 1])) > settings.max_depth_mm or _has_pedicles(points))


def _has_pedicles(points: FloatArray) -> bool:
    """Whether points (n, 3) LPS of a label reach farther back on both sides than between, at some height.

    A rotated body reaches back on one side only.
    """
    aside = np.abs(points[:, 0] - np.median(points[:, 0]))
    layer = np.floor((points[:, 2] - points[:, 2].min()) / _LAYER_MM).astype(np.intp)
    left = points[:, 0] > np.median(points[:, 0])
    backs = []
    for part in (aside < _MIDDLE_MM, (aside > _ASIDE_MM) & left, (aside > _ASIDE_MM) & ~left):
        back = np.full(int(layer.max()) + 1, -np.inf)
        np.maximum.at(back, layer[part], points[part, 1])
        backs.append(back)
    seen = np.isfinite(backs).all(axis=0)
    middle, first, second = (back[seen] for back in backs)
    return int((np.minimum(first, second) - middle > _PEDICLE_MM).sum()) * _LAYER_MM >= _PEDICLE_MM
