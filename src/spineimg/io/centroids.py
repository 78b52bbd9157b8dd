"""VerSe's centroid files: one point a vertebra, in voxels of the image turned to a stated orientation.

The file is a JSON list: first `{"direction": ["P", "I", "R"]}`, the ends towards which the three voxel axes run, then
`{"label": 20, "X": …, "Y": …, "Z": …}` with indices along these axes from 0 (Sekuboyina 2021; Löffler 2020). The points
are clicks: they mean nothing without the image's lattice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from spineimg.anatomy import order
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray, Geometry
from spineimg.io.masks import VERSE_LEVELS
from spineimg.rois import RoiSet, VertebraRoi

_MOST_BYTES = 2**20
_WAYS = {
    "L": (0, 1.0), "R": (0, -1.0), "P": (1, 1.0), "A": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0),
}  # fmt: skip
_NOT_VERTEBRAE = (26, 27)
"""VerSe's labels of sacrum and coccyx."""


def is_centroid_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a JSON list that states an orientation, as VerSe's are; False for what cannot be read."""
    try:
        return _header(_loaded(Path(path))) is not None
    except RoiError:
        return False


def read_centroids(path: str | os.PathLike[str], geometry: Geometry) -> RoiSet:
    """A click a vertebra from a centroid file of the image with this lattice, from head to foot.

    Raises RoiError for another file, a label that is no vertebra, a level named twice, or a point outside the image.
    """
    path = Path(path)
    entries = _loaded(path)
    direction = _header(entries)
    if direction is None:
        raise RoiError(f"{path}: is no centroid file: its first entry must state the direction, e.g. P, I, R")
    axes = _axes(geometry, direction)
    clicks: dict[str, FloatArray] = {}
    for entry in entries[1:]:
        if not isinstance(entry, dict) or "label" not in entry or entry["label"] in _NOT_VERTEBRAE:
            continue
        level = VERSE_LEVELS.get(entry["label"]) if isinstance(entry["label"], int) else None
        if level is None:
            raise RoiError(f"{path}: label {entry['label']!r} is no vertebra of VerSe (1-25, 28)")
        if level in clicks:
            raise RoiError(f"{path}: names {level} (label {entry['label']}) twice: keep one")
        clicks[level] = _point(path, level, entry, axes, geometry)
    if not clicks:
        raise RoiError(f"{path}: holds no centroid of a vertebra")
    ordered = sorted(clicks, key=order)
    return RoiSet(tuple(VertebraRoi(level, clicks[level]) for level in ordered))


def centroids_of(rois: RoiSet, geometry: Geometry) -> list[dict[str, Any]]:
    """The entries of a centroid file, in the image's own orientation: column, row, slice.

    Raises RoiError for S1, and when no vertebra has a point.
    """
    labels = {level: label for label, level in VERSE_LEVELS.items()}
    steps = _steps(geometry)[::-1]
    document: list[dict[str, Any]] = [{"direction": [_letter(step) for step in steps]}]
    for roi in rois.vertebrae:
        if roi.center_lps_mm is None:
            continue
        if roi.level not in labels:
            raise RoiError(f"{roi.level} has no label in VerSe")
        slice_, row, column = (round(float(one), 3) for one in geometry.index_at(roi.center_lps_mm))
        document.append({"label": labels[roi.level], "X": column, "Y": row, "Z": slice_})
    if len(document) == 1:
        raise RoiError("there is no vertebra with a name and a point to write as a centroid")
    return document


def write_centroids(path: str | os.PathLike[str], rois: RoiSet, geometry: Geometry) -> None:
    """Writes the clicks of a ROI set as a centroid file. Raises RoiError."""
    text = json.dumps(centroids_of(rois, geometry), indent=1)
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RoiError(f"{path}: cannot be written ({error.strerror or error})") from None


def _loaded(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise RoiError(f"{path}: larger than 1 MB, so it is no centroid file")
        data = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise RoiError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise RoiError(f"{path}: is no JSON") from None
    if not isinstance(data, list):
        raise RoiError(f"{path}: is no centroid file: a JSON list is expected")
    return data


def _header(entries: list[Any]) -> tuple[str, str, str] | None:
    """The three letters of the stated orientation; None when the first entry states none."""
    first = entries[0] if entries else None
    letters = first.get("direction") if isinstance(first, dict) else None
    if not isinstance(letters, list) or len(letters) != 3 or not all(one in _WAYS for one in letters):
        return None
    if len({_WAYS[one][0] for one in letters}) != 3:
        return None
    return letters[0], letters[1], letters[2]


def _steps(geometry: Geometry) -> list[FloatArray]:
    """LPS directions of the slice, row and column index."""
    along = geometry.origins_lps_mm[-1] - geometry.origins_lps_mm[0]
    return [along, geometry.row_step_lps_mm, geometry.column_step_lps_mm]


def _letter(step: FloatArray) -> str:
    axis = int(np.argmax(np.abs(step)))
    return next(name for name, (one, sign) in _WAYS.items() if one == axis and sign * step[axis] > 0)


def _axes(geometry: Geometry, direction: tuple[str, str, str]) -> list[tuple[int, bool]]:
    """For slice, row and column: which of X, Y, Z it is, and whether that one runs the other way."""
    found = []
    for step in _steps(geometry):
        axis, sign = _WAYS[_letter(step)]
        which = next(i for i, one in enumerate(direction) if _WAYS[one][0] == axis)
        found.append((which, _WAYS[direction[which]][1] != sign))
    if sorted(which for which, _ in found) != [0, 1, 2]:
        raise RoiError("the image is too oblique to tell which of its axes a centroid file means")
    return found


def _point(
    path: Path, level: str, entry: dict[str, Any], axes: list[tuple[int, bool]], geometry: Geometry
) -> FloatArray:
    place = [entry.get(name) for name in ("X", "Y", "Z")]
    if not all(type(one) in (int, float) and abs(one) < 1e6 for one in place):  # type: ignore[arg-type]
        raise RoiError(f"{path}: {level}: X, Y and Z must be numbers, found {place}")
    index = []
    for (which, turned), count in zip(axes, geometry.shape, strict=True):
        value = float(place[which])  # type: ignore[arg-type]  # numbers, as checked
        if not -0.5 <= value <= count - 0.5:
            raise RoiError(f"{path}: {level} lies outside this image ({'XYZ'[which]} = {value:g}, {count} voxels)")
        index.append(count - 1 - value if turned else value)
    return geometry.lps_at(index)
