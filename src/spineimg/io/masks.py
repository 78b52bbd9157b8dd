"""Label maps: which label is which vertebra.

Known are TotalSegmentator's task `total` (50 C1 ... 27 L5, 26 S1; Wasserthal 2023), the same of its version 1 (41 C1
... 18 L5), and VerSe (1 C1 ... 24 L5, 25 L6, 28 T13; Sekuboyina 2021), which `vertebrae_pp` shares. All are lists of
numbers without a name in the file, so a numbering is believed only when the labels lie along the spine in its order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.anatomy import order, parse_level
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.io.segmentations import SegmentSource, is_dicom, read_segmentation
from spineimg.io.volumes import GridSource, open_grid
from spineimg.rois import LabelVolume, MaskRoi, RoiSet, VertebraRoi
from spineimg.volume import HUArray

HIGHEST_LABEL = 65535
"""Above this a number is a measurement, no label; segmentations store 8 or 16 bits."""
LEAST_VERTEBRA_MM3 = 500.0
"""A fiftieth of a lumbar vertebra: smaller patches of a label are stray voxels. Engineering choice."""
NEIGHBOURS_MM = (8.0, 60.0)
"""Distance between the centres of neighbouring vertebrae: 12 mm in a small neck to 45 mm in a tall lumbar spine
(heights and discs of Panjabi 1991, 1992), with room for processes and for cut vertebrae. Engineering choice."""
LEAST_LABELS = 3
"""So many vertebrae in order tell a numbering; fewer may be any organs. Engineering choice."""


class Convention(StrEnum):
    """How a label map numbers vertebrae."""

    TOTALSEGMENTATOR = "totalsegmentator"
    TOTALSEGMENTATOR_1 = "totalsegmentator1"
    VERSE = "verse"


_LEVELS: dict[Convention, dict[int, str]] = {
    Convention.TOTALSEGMENTATOR: {
        26: "S1",
        **{32 - n: f"L{n}" for n in range(1, 6)},
        **{44 - n: f"T{n}" for n in range(1, 13)},
        **{51 - n: f"C{n}" for n in range(1, 8)},
    },
    Convention.TOTALSEGMENTATOR_1: {
        **{23 - n: f"L{n}" for n in range(1, 6)},
        **{35 - n: f"T{n}" for n in range(1, 13)},
        **{42 - n: f"C{n}" for n in range(1, 8)},
    },
    Convention.VERSE: {
        **{n: f"C{n}" for n in range(1, 8)},
        **{7 + n: f"T{n}" for n in range(1, 13)},
        **{19 + n: f"L{n}" for n in range(1, 7)},
        28: "T13",
    },
}
VERSE_LEVELS = _LEVELS[Convention.VERSE]
"""Label -> level."""
_FOREIGN_TO_VERSE = range(29, 100)
"""Labels that VerSe does not have. From 100 on, discs and endplates are numbered by some of its users."""
_OF_VERSION_1 = range(18, 26)
"""Organs and the sacrum in version 2 of TotalSegmentator, L5 to T10 in version 1. Only these labels tell the versions
apart, for both count upwards."""
_UNASKED = (Convention.TOTALSEGMENTATOR, Convention.VERSE)
"""Version 1 must be stated: a map of VerSe that lies upside down looks like it."""


@dataclass(frozen=True, eq=False, slots=True)
class _Patch:
    """All voxels of one label."""

    count: int
    volume_mm3: float
    center_lps_mm: FloatArray


class LabelFile:
    """Slices of a label map in a file; each is checked for whole numbers from 0 on when it is read."""

    def __init__(self, source: GridSource | SegmentSource, path: Path) -> None:
        self._source, self.path = source, path

    def read(self, k: int) -> HUArray:
        """(rows, columns) labels of slice k. Raises RoiError for numbers that are no labels, PixelError."""
        plane = self._source.read(k)
        _labels_of(plane, self.path.name)
        return plane

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return None

    def sop_instance_uid(self, k: int) -> str | None:
        return None


def open_labels(path: str | os.PathLike[str]) -> LabelVolume:
    """A label map in a NIfTI, NRRD, MetaImage or DICOM SEG file, on its own lattice; voxels are read when asked for.

    Raises SeriesError and GeometryError for files that hold no volume.
    """
    path = Path(path)
    if is_dicom(path):
        geometry, segments, _ = read_segmentation(path)
        return LabelVolume(geometry, LabelFile(segments, path), path.name)
    geometry, source = open_grid(path)
    return LabelVolume(geometry, LabelFile(source, path), path.name)


def labels_present(labels: LabelVolume) -> dict[int, int]:
    """Number of voxels of each label, the background 0 left out. Raises RoiError for numbers that are no labels."""
    return {label: patch.count for label, patch in _patches(labels).items()}


def vertebra_labels(labels: LabelVolume, convention: str | None = None) -> dict[str, int]:
    """Level -> label, from head to foot, of the vertebrae in a label map.

    Without a convention the one is taken under which at least three vertebrae lie in order, if it is the only one.
    Labels of less than 500 mm³ are stray voxels and left out, as is the sacrum of VerSe, which is more than S1.
    Raises RoiError when no numbering or more than one fits, or when the stated one contradicts the places of labels.
    """
    patches = {label: p for label, p in _patches(labels).items() if p.volume_mm3 >= LEAST_VERTEBRA_MM3}
    if convention is not None:
        stated = _parse_convention(convention)
        contradiction = _contradiction(stated, patches)
        if contradiction:
            raise RoiError(f"{labels.name}: its labels are not numbered as {stated} has it: {contradiction}")
        return _by_level(stated, patches)
    reasons = {known: _doubt(known, patches) for known in _UNASKED}
    fitting = [known for known, reason in reasons.items() if not reason]
    if len(fitting) == 1:
        return _by_level(fitting[0], patches)
    why = "; ".join(f"{known}: {reason or 'fits'}" for known, reason in reasons.items())
    raise RoiError(
        f"{labels.name}: the numbering of its labels ({_listed(patches)}) cannot be told ({why}): state the "
        "convention (--mask-labels), or name level and label in a ROI file"
    )


def rois_from_mask(
    path: str | os.PathLike[str], convention: str | None = None, levels: Sequence[str] | None = None
) -> RoiSet:
    """One label ROI a vertebra of a label map, from head to foot; `levels` names those that are wanted.

    Raises RoiError when a wanted level is not in the map or its numbering cannot be told, SeriesError, GeometryError.
    """
    labels, found = _named_labels(Path(path), convention)
    if not found:
        raise RoiError(f"{labels.name}: none of its labels is a vertebra")
    wanted = list(found) if levels is None else sorted({parse_level(level) for level in levels}, key=order)
    missing = [level for level in wanted if level not in found]
    if missing:
        raise RoiError(f"{labels.name}: has no label for {', '.join(missing)}, only for {', '.join(found)}")
    return RoiSet(tuple(VertebraRoi(level, mask=MaskRoi(labels, found[level])) for level in wanted))


def _named_labels(path: Path, convention: str | None) -> tuple[LabelVolume, dict[str, int]]:
    """The label map and level -> label; a DICOM SEG names its segments itself, which its places must not contradict."""
    if not is_dicom(path):
        labels = open_labels(path)
        return labels, vertebra_labels(labels, convention)
    geometry, segments, levels = read_segmentation(path)
    labels = LabelVolume(geometry, LabelFile(segments, path), path.name)
    patches = {label: p for label, p in _patches(labels).items() if p.volume_mm3 >= LEAST_VERTEBRA_MM3}
    found = {level: levels[level] for level in sorted(levels, key=order) if levels[level] in patches}
    wrong = _disorder(found, patches)
    if wrong:
        raise RoiError(f"{labels.name}: its segments are not named in the order of the spine: {wrong}")
    return labels, found


# -- numbering --------------------------------------------------------------------------------------------------------


def _parse_convention(text: str) -> Convention:
    try:
        return Convention(text.strip().lower())
    except ValueError:
        raise RoiError(f"{text!r} is not a numbering of vertebrae: use {' or '.join(Convention)}") from None


def _by_level(convention: Convention, patches: Mapping[int, _Patch]) -> dict[str, int]:
    names = _LEVELS[convention]
    return {names[label]: label for label in sorted(patches.keys() & names.keys(), key=lambda n: order(names[n]))}


def _doubt(convention: Convention, patches: Mapping[int, _Patch]) -> str:
    """Why this numbering is not to be believed unasked; empty when it is."""
    if convention is Convention.VERSE and any(label in _FOREIGN_TO_VERSE for label in patches):
        return "labels it does not have"
    known = _by_level(convention, patches)
    if convention is Convention.TOTALSEGMENTATOR and _is_first_version(patches):
        return f"labels of 18 to 25 lie in the row as in its version 1, {Convention.TOTALSEGMENTATOR_1}"
    if len(known) < LEAST_LABELS:
        return f"{len(known)} of its vertebrae, at least {LEAST_LABELS} are needed"
    return _contradiction(convention, patches)


def _is_first_version(patches: Mapping[int, _Patch]) -> bool:
    """Whether labels from 18 to 25 lie among the vertebrae, which they do in version 1 of TotalSegmentator."""
    low = [label for label in _OF_VERSION_1 if label in patches]
    row = len(low) >= LEAST_LABELS or low == [24, 25]
    return row and not _contradiction(Convention.TOTALSEGMENTATOR_1, patches)


def _contradiction(convention: Convention, patches: Mapping[int, _Patch]) -> str:
    """Where the numbering goes against the places of the labels; empty when it does not."""
    return _disorder(_by_level(convention, patches), patches)


def _disorder(known: Mapping[str, int], patches: Mapping[int, _Patch]) -> str:
    """Where levels go against the places of their labels; empty when they do not."""
    ways = {
        (upper, lower): patches[known[lower]].center_lps_mm - patches[known[upper]].center_lps_mm
        for upper, lower in pairwise(known)
    }
    wrong = [pair for pair, way in ways.items() if way[2] >= 0]
    if wrong:
        upper, lower = wrong[0]
        reverse = "; all lie in reverse, as in a map that is stored upside down" if 1 < len(wrong) == len(ways) else ""
        return f"{upper} (label {known[upper]}) does not lie above {lower} (label {known[lower]}){reverse}"
    for (upper, lower), way in ways.items():
        apart = float(np.linalg.norm(way))
        if not NEIGHBOURS_MM[0] <= apart <= NEIGHBOURS_MM[1] * (order(lower) - order(upper)):
            return f"{upper} (label {known[upper]}) and {lower} (label {known[lower]}) are {apart:.0f} mm apart"
    return ""


def _listed(patches: Mapping[int, _Patch]) -> str:
    shown = [str(label) for label in sorted(patches)]
    return ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "") if shown else "none"


# -- voxels -----------------------------------------------------------------------------------------------------------


def _labels_of(plane: HUArray, name: str) -> npt.NDArray[np.integer[Any]]:
    """The slice as whole numbers. Raises RoiError when it holds others."""
    with np.errstate(invalid="ignore"):
        good = (plane >= 0) & (plane <= HIGHEST_LABEL)
        if plane.dtype.kind == "f":
            good &= np.rint(plane) == plane
    if not good.all():
        found = plane[~good].flat[0]
        raise RoiError(f"{name}: a label map holds whole numbers from 0 to {HIGHEST_LABEL}, found {found:g}")
    return plane.astype(np.int32)


def _patches(labels: LabelVolume) -> dict[int, _Patch]:
    """Size and centre of each label but 0."""
    geometry = labels.geometry
    sums = np.zeros((4, HIGHEST_LABEL + 1))
    for k in range(geometry.shape[0]):
        plane = _labels_of(labels.source.read(k), labels.name)
        rows, columns = np.nonzero(plane)
        if not len(rows):
            continue
        here = plane[rows, columns]
        counts = np.bincount(here)
        used = slice(0, len(counts))
        sums[0, used] += counts
        sums[1, used] += k * counts
        sums[2, used] += np.bincount(here, weights=rows)
        sums[3, used] += np.bincount(here, weights=columns)
    voxel_mm3 = abs(float(np.linalg.det(geometry.lps_from_index[:3, :3])))
    return {
        int(label): _Patch(
            count := int(sums[0, label]), count * voxel_mm3, geometry.lps_at(sums[1:, label] / sums[0, label])
        )
        for label in np.flatnonzero(sums[0])
    }
