"""Vertebrae in a DICOM Segmentation: its frames as a label map, its segments' codes and names as levels.

Binary, fractional and label-map segmentations are read. Frames of empty slices are usually left out: they are put back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.anatomy import parse_level
from spineimg.coding import LEVEL_CODES
from spineimg.errors import GeometryError, RoiError, SeriesError
from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.volume import HUArray

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PREFIX_BYTES = 132
_EVEN = 0.05
"""Frames may lie off the even lattice by so much of its step. Engineering choice: positions are rounded."""
_MOST_VOXELS = 2_000_000_000
_OVERLAP = 0.01
"""Part of a segment that may lie in others. Engineering choice: surfaces that touch share voxels."""
_LEVEL_IN_NAME = re.compile(r"(?<![A-Za-z0-9])([CTLS])[ _-]?(\d{1,2})(?![0-9])", re.IGNORECASE)
_BY_CODE = {code[:2]: level for level, code in LEVEL_CODES.items()}


class SegmentSource:
    """The label map in memory; slice k holds the number of the segment at each place, 0 for none."""

    def __init__(self, labels: npt.NDArray[np.int16]) -> None:
        self._labels = labels

    def read(self, k: int) -> HUArray:
        plane: npt.NDArray[np.int16] = self._labels[k]
        return plane


def is_dicom(path: str | Path) -> bool:
    """Whether a file starts as DICOM files do; False for what cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_PREFIX_BYTES)[-4:] == b"DICM"
    except OSError:
        return False


def read_segmentation(path: str | Path) -> tuple[Geometry, SegmentSource, dict[str, int]]:
    """(lattice, label map, level -> segment number) of a DICOM SEG.

    A level is told by the segment's property or anatomic region code, else by its label or description. Raises
    SeriesError for other DICOM files, RoiError when segments overlap or two are one level, GeometryError.
    """
    import pydicom

    path = Path(path)
    try:
        data = pydicom.dcmread(path)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise SeriesError(f"{path}: cannot be read as DICOM ({error})") from None
    if str(data.get("SOPClassUID", "")) not in _SEGMENTATIONS:
        raise SeriesError(
            f"{path}: is no DICOM Segmentation (0008,0016) but {data.get('SOPClassUID', 'without class')}"
        )
    try:
        frames = _frames(data)
        geometry, numbers = _lattice(path, data, frames)
        labels = _label_map(path, data, frames, numbers, geometry)
        levels = _levels(path, data)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise SeriesError(f"{path}: this segmentation cannot be read: {error}") from None
    return geometry, SegmentSource(labels), levels


def _frames(data: Any) -> list[tuple[int, FloatArray]]:
    """(segment number, 0 for a label map; position (3,)) of every frame."""
    found = []
    for groups in data.PerFrameFunctionalGroupsSequence:
        position = np.array([float(x) for x in groups.PlanePositionSequence[0].ImagePositionPatient])
        own = groups.get("SegmentIdentificationSequence")
        found.append((int(own[0].ReferencedSegmentNumber) if own else 0, position))
    return found


def _lattice(path: Path, data: Any, frames: list[tuple[int, FloatArray]]) -> tuple[Geometry, list[int]]:
    """The even lattice that holds all frames, and the slice of each frame."""
    shared, first = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence[0]

    def group(name: str) -> Any:
        return (shared.get(name) or first.get(name))[0]

    turn = np.array([float(x) for x in group("PlaneOrientationSequence").ImageOrientationPatient])
    spacing = [float(x) for x in group("PixelMeasuresSequence").PixelSpacing]
    row_step, column_step = unit(turn[3:]) * spacing[0], unit(turn[:3]) * spacing[1]
    normal = unit(np.cross(turn[:3], turn[3:]))
    places = np.array([position @ normal for _, position in frames])
    distinct = np.unique(np.round(places, 3))
    steps = np.diff(distinct)
    stated = group("PixelMeasuresSequence").get("SpacingBetweenSlices") or group("PixelMeasuresSequence").SliceThickness
    step = float(steps.min()) if len(steps) else float(stated)
    numbers = np.rint((places - distinct[0]) / step)
    if np.abs(places - distinct[0] - numbers * step).max() > _EVEN * step:
        raise GeometryError(f"{path}: the frames of this segmentation do not lie on even slices")
    count = int(numbers.max()) + 1
    if count * data.Rows * data.Columns > _MOST_VOXELS:
        raise GeometryError(f"{path}: {count} slices of {data.Rows} x {data.Columns} are too many for a label map")
    lowest = int(places.argmin())
    highest = int(places.argmax())
    # The way from slice to slice may be sheared (gantry tilt): it follows the frames themselves.
    way = (frames[highest][1] - frames[lowest][1]) / max(count - 1, 1) if count > 1 else step * normal
    origins = frames[lowest][1] + np.arange(count)[:, None] * way
    return Geometry((count, int(data.Rows), int(data.Columns)), origins, row_step, column_step), [
        int(n) for n in numbers
    ]


def _label_map(
    path: Path, data: Any, frames: list[tuple[int, FloatArray]], numbers: list[int], geometry: Geometry
) -> npt.NDArray[np.int16]:
    labels = np.zeros(geometry.shape, dtype=np.int16)
    fractional = str(data.get("SegmentationType", "")) == "FRACTIONAL"
    half = int(data.get("MaximumFractionalValue", 255)) / 2 if fractional else 0.5
    sizes: dict[int, int] = {}
    shared: dict[int, int] = {}
    for (segment, _), k, plane in zip(frames, numbers, _planes(data), strict=True):
        if segment == 0:
            labels[k] = plane
            continue
        here = plane > half
        taken = here & (labels[k] != 0)
        sizes[segment] = sizes.get(segment, 0) + int(here.sum())
        shared[segment] = shared.get(segment, 0) + int(taken.sum())
        labels[k][here & ~taken] = segment
    overlapping = [n for n, size in sizes.items() if size and shared[n] > _OVERLAP * size]
    if overlapping:
        raise RoiError(f"{path}: segment {overlapping[0]} overlaps others, so it is not clear which voxels are whose")
    return labels


def _planes(data: Any) -> Iterator[npt.NDArray[Any]]:
    """The frames' pixels, one at a time."""
    from pydicom.pixels import iter_pixels

    yield from iter_pixels(data, raw=True)


def _levels(path: Path, data: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for segment in data.SegmentSequence:
        level = _level_of(segment)
        if level is None:
            continue
        number = int(segment.SegmentNumber)
        if level in found:
            raise RoiError(f"{path}: segments {found[level]} and {number} are both {level}: keep one")
        found[level] = number
    return found


def _level_of(segment: Any) -> str | None:
    """The level a segment is of; None for anything else, a disc or an implant among them."""
    for name in ("AnatomicRegionSequence", "SegmentedPropertyTypeCodeSequence"):
        for code in segment.get(name) or ():
            key = (str(code.get("CodeValue", "")), str(code.get("CodingSchemeDesignator", "")))
            if key in _BY_CODE:
                return _BY_CODE[key]
    words = f"{segment.get('SegmentLabel', '')} {segment.get('SegmentDescription', '')}"
    names = {f"{letter}{int(number)}" for letter, number in _LEVEL_IN_NAME.findall(words.replace("_", " "))}
    if len(names) != 1 or re.search(r"disc|disk|screw|rod|nerve|rib|cord", words, re.IGNORECASE):
        return None
    try:
        return parse_level(names.pop())
    except RoiError:
        return None
