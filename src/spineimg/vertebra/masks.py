"""The voxels of a label, in three planes.

The label is brought to the voxels of the CT, 3 mm are taken off its surface, and of what is left the voxels in the
slices at 25, 50 and 75 % of the label's height are the ROIs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry
from spineimg.notes import Note
from spineimg.rois import POSITIONS, LabelVolume, MaskRoi
from spineimg.sampling import PlaneSamples, SliceReader, voxel_area_mm2
from spineimg.settings import setting
from spineimg.vertebra.mask_place import PlaceSettings, misplaced
from spineimg.vertebra.planes import RoiPlane

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

_BALL_SLACK_MM = 1.0
"""The core is known to half a voxel, so the ball around it reaches a little further."""
_SAME_MM = 0.01
"""Two grids whose voxels lie nearer than this are one."""


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


@dataclass(frozen=True, eq=False, slots=True)
class LabelBlock:
    """A label cut out of a grid: voxel [0, 0, 0] of `voxels` is (slice, row, column) `corner` of the grid."""

    corner: IntArray
    voxels: BoolArray

    @property
    def slices(self) -> IntArray:
        """Slices of the grid that hold the label."""
        return np.asarray(np.flatnonzero(self.voxels.any(axis=(1, 2))) + self.corner[0])


def mask_planes(
    reader: SliceReader, roi: MaskRoi, level: str, settings: MaskSettings
) -> tuple[tuple[RoiPlane, ...], tuple[Note, ...]]:
    """ROIs of a label, from head to foot, and what is doubtful about them. Raises PixelError."""
    geometry = reader.volume.geometry
    stored = _cut_out(roi.labels, roi.label)
    if stored is None:
        text = f"label {roi.label} does not occur in {roi.labels.name}"
        return (), (Note("label_missing", text, level),)
    block = stored if _same_grid(geometry, roi.labels.geometry) else _on_grid(geometry, roi.labels.geometry, stored)
    if block is None:
        text = f"label {roi.label} of {roi.labels.name} lies outside this CT: is it of another scan?"
        return (), (Note("roi_outside_volume", text, level),)
    notes = _cut_notes(geometry, block, level)
    missed = misplaced(reader, block.corner, block.voxels, settings.place)
    if missed is not None:
        text = f"the rim of label {roi.label} of {roi.labels.name} {missed}: is the mask of this scan?"
        notes = (*notes, Note("mask_misplaced", text, level))
    planned = _plan(geometry, block, settings)
    if planned.more_than_body:
        name = f"label {roi.label} of {roi.labels.name}"
        body = _body_of(geometry, block, settings)
        reduced = _plan(geometry, body, settings) if body is not None else planned
        if reduced.more_than_body:
            text = f"{name} seems to hold more than the vertebral body, which raises the HU: give a label of the body"
            notes = (*notes, Note("mask_not_only_body", text, level))
        else:
            planned = reduced
            text = (
                f"{name} holds more than the vertebral body: pedicles and arch were cut off, as what no ball of "
                f"{settings.body_radius_mm:g} mm radius fits into"
            )
            notes = (*notes, Note("mask_reduced_to_body", text, level))
    if not planned.inner.any():
        text = f"nothing is left of label {roi.label} after {settings.erosion_mm:g} mm are taken off its surface"
        return (), (Note("mask_too_small", text, level),)
    planes = [_plane(reader, planned.block, planned.inner, k) for k in planned.slices]
    planes.sort(key=lambda plane: -plane.center_lps_mm[2])
    names = {1: POSITIONS[1:2], 2: POSITIONS[::2], 3: POSITIONS}[len(planes)]
    return tuple(_named(plane, name, level) for plane, name in zip(planes, names, strict=True)), notes


# -- the label on the voxels of the CT ----------------------------------------------------------------------------


def _cut_out(labels: LabelVolume, label: int) -> LabelBlock | None:
    """The label on its own grid; None when it does not occur."""
    if label not in labels.spans:
        return None
    first, last = labels.spans[label]
    planes = {k: labels.source.read(k) == label for k in range(first, last + 1)}
    voxels = np.zeros((last - first + 1, *labels.geometry.shape[1:]), dtype=bool)
    for k, plane in planes.items():
        voxels[k - first] = plane
    return _trimmed(np.array([first, 0, 0]), voxels)


def _trimmed(corner: IntArray, voxels: BoolArray) -> LabelBlock:
    """The smallest block that holds all voxels of the label, of which there is at least one."""
    at = np.argwhere(voxels)
    low, high = at.min(axis=0), at.max(axis=0) + 1
    return LabelBlock(corner + low, voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].copy())


def _same_grid(first: Geometry, second: Geometry) -> bool:
    if first.shape != second.shape:
        return False
    far = [(k, r, c) for k in (0, first.shape[0] - 1) for r in (0, first.shape[1]) for c in (0, first.shape[2])]
    apart = first.lps_at(far) - second.lps_at(far)
    even = np.abs(first.origins_lps_mm - second.origins_lps_mm).max() < _SAME_MM
    return bool(even and np.abs(apart).max() < _SAME_MM)


def _on_grid(geometry: Geometry, own: Geometry, stored: LabelBlock) -> LabelBlock | None:
    """The label on the voxels of the CT: each takes the nearest voxel of the label's grid. None when none is hit."""
    shape = np.array(stored.voxels.shape)
    corners = stored.corner - 0.5 + shape * np.array(list(np.ndindex(2, 2, 2)))
    reach = geometry.index_at(own.lps_at(corners))
    low = np.clip(np.floor(reach.min(axis=0)) - 1, 0, geometry.shape).astype(np.intp)
    high = np.clip(np.ceil(reach.max(axis=0)) + 2, 0, geometry.shape).astype(np.intp)
    if (high <= low).any():
        return None
    voxels = np.zeros(high - low, dtype=bool)
    rows, columns = np.meshgrid(np.arange(low[1], high[1]), np.arange(low[2], high[2]), indexing="ij")
    for k in range(low[0], high[0]):
        points = geometry.lps_at(np.stack([np.full(rows.shape, k), rows, columns], axis=-1))
        at = np.floor(own.index_at(points) + 0.5).astype(np.intp) - stored.corner
        hit = np.all((at >= 0) & (at < shape), axis=-1)
        voxels[k - low[0]][hit] = stored.voxels[tuple(at[hit].T)]
    return _trimmed(low, voxels) if voxels.any() else None


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
    more_than_body: bool


def _plan(geometry: Geometry, block: LabelBlock, settings: MaskSettings) -> _Plan:
    inner = _eroded(geometry, block, settings.erosion_mm)
    chosen = _chosen_slices(geometry, block, settings)
    return _Plan(block, inner, chosen, _more_than_body(geometry, block, inner, chosen, settings))


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
    return _trimmed(block.corner, voxels)


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


def _more_than_body(
    geometry: Geometry, block: LabelBlock, inner: BoolArray, chosen: list[int], settings: MaskSettings
) -> bool:
    """True when a label is deeper than a body can be, or when what is left of it is in parts."""
    from scipy import ndimage

    points: FloatArray = geometry.lps_at(np.argwhere(block.voxels) + block.corner)
    if float(np.ptp(points[:, 1])) > settings.max_depth_mm:
        return True
    touching = np.ones((3, 3, 3))
    for voxels in (inner, *(inner[[k - int(block.corner[0])]] for k in chosen)):
        parts, _ = ndimage.label(voxels, structure=touching)
        sizes = np.sort(np.bincount(parts.ravel())[1:])
        if len(sizes) > 1 and sizes[-2] > settings.second_part * sizes.sum():
            return True
    return False
