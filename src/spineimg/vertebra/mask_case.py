"""Whether a label map is of the scan it is laid on: judged by all of its vertebrae together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spineimg.errors import RoiError
from spineimg.geometry import Geometry
from spineimg.rois import LabelVolume, MaskRoi
from spineimg.sampling import SliceReader
from spineimg.vertebra.label_voxels import LabelBlock, cut_out, on_grid
from spineimg.vertebra.mask_place import PlaceSettings, contrast_in_place

_ENOUGH = 3
"""So many labels beside the bone speak of the whole map; fewer may be errors of their own. Engineering choice."""
_WAYS = ("left to right", "front to back", "head to feet")


def refuse_other_scan(
    reader: SliceReader, masks: Sequence[MaskRoi], outside: int, odd: Sequence[str], settings: PlaceSettings
) -> None:
    """Raises RoiError when no label lies in the volume, when none fits a vertebra of it, or when most do not and would
    if the map were mirrored; PixelError.

    outside: how many of the labels lie outside the volume; odd: why others do not fit.
    """
    names = ", ".join(sorted({mask.labels.name for mask in masks}))
    if masks and outside == len(masks):
        raise RoiError(f"{names}: no label lies in this CT: is it a mask of another scan?")
    if len(odd) < _ENOUGH or 2 * (len(odd) + outside) < len(masks):
        return
    for axis in range(3):
        if _fits_mirrored(reader, masks, axis, settings):
            way = _way(masks[0].labels.geometry, axis)
            raise RoiError(f"{names}: its labels lie beside the bone, and on it when mirrored {way}: store it anew")
    if len(odd) + outside == len(masks):
        raise RoiError(f"{names}: none of its labels fits a vertebra of this CT; the first: {odd[0]}")


def _way(grid: Geometry, axis: int) -> str:
    steps = [grid.origins_lps_mm[-1] - grid.origins_lps_mm[0], grid.row_step_lps_mm, grid.column_step_lps_mm]
    return _WAYS[int(np.argmax(np.abs(steps[axis])))]


def _fits_mirrored(reader: SliceReader, masks: Sequence[MaskRoi], axis: int, settings: PlaceSettings) -> bool:
    """Whether labels lie clearly better on bone when an axis of their map runs the other way."""
    pairs = [(_contrast(reader, mask, None, settings), _contrast(reader, mask, axis, settings)) for mask in masks]
    seen = [(own, other) for own, other in pairs if other is not None]
    if len(seen) < max(_ENOUGH, len(masks) / 2):
        return False
    own = float(np.median([one if one is not None else 0.0 for one, _ in seen]))
    other = float(np.median([one for _, one in seen]))
    factor, more = settings.better
    return other >= settings.bone_hu and other > max(factor * own, own + more)


def _contrast(reader: SliceReader, mask: MaskRoi, axis: int | None, settings: PlaceSettings) -> float | None:
    """How much brighter the rim of a label is than its surroundings; axis: of its map, turned round."""
    stored = cut_out(mask.labels, mask.label)
    if stored is not None and axis is not None:
        stored = _turned(mask.labels, stored, axis)
    block = on_grid(reader.volume.geometry, mask.labels.geometry, stored) if stored is not None else None
    return contrast_in_place(reader, block.corner, block.voxels) if block is not None else None


def _turned(labels: LabelVolume, stored: LabelBlock, axis: int) -> LabelBlock:
    corner = stored.corner.copy()
    corner[axis] = labels.geometry.shape[axis] - corner[axis] - stored.voxels.shape[axis]
    return LabelBlock(corner, np.flip(stored.voxels, axis))
