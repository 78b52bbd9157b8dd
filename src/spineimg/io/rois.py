"""ROI files: what a reader hands in, as JSON (schema `spineimg.rois/1`).

Reading is strict, because a measurement at the wrong place looks like any other. Keys that are not known are passed
over, so that other programs may keep their own beside, but not those that look like a misspelt key of the format.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spineimg.anatomy import Construct, Status, parse_level
from spineimg.errors import RoiError, SpineImgError
from spineimg.geometry import FloatArray
from spineimg.io.masks import LabelFile, open_labels
from spineimg.rois import POSITIONS, Ellipse, LabelVolume, MaskRoi, RoiSet, VertebraRoi

SCHEMA = "spineimg.rois/1"
MOST_BYTES = 20 * 2**20
"""A ROI file of a whole spine takes 20 kB; a thousand times that is another file."""
MOST_MM = 100_000.0
"""No point of a scan lies 100 m from the scanner's origin."""
_MISSPELT = 0.7
"""Likeness (difflib's ratio) from which an unknown key is taken for a slip: centre 0.83, semi_axes 0.86, centroid 0.71;
the nearest harmless ones: confidence 0.64, statistics 0.63. Engineering choice."""

_TOP_KEYS = ("schema", "reader", "construct", "vertebrae")
_CONSTRUCT_KEYS = ("uiv", "liv")
_VERTEBRA_KEYS = ("level", "center", "slices", "mask", "confirmed", "status", "quality", "body")
_SLICE_KEYS = ("position", "center", "u", "v", "semi_axes_mm")
_MASK_KEYS = ("file", "label")


def read_rois(path: str | os.PathLike[str]) -> RoiSet:
    """The ROIs in a file. Label maps it names are opened, their voxels read when asked for.

    Raises RoiError with the file, the level and position, the key and its value.
    """
    path = Path(path)
    with _at(str(path)):
        return _roi_set(_loaded(path), path.parent)


def parse_rois(data: object, base_folder: str | os.PathLike[str]) -> RoiSet:
    """The ROIs in a ROI file's JSON object; the paths of masks are relative to `base_folder`. Raises RoiError."""
    return _roi_set(data, Path(base_folder))


def write_rois(path: str | os.PathLike[str], rois: RoiSet) -> None:
    """Writes a ROI file, whole or not at all. Numbers come back bit for bit. Raises RoiError."""
    path = Path(path)
    with _at(str(path)):
        document = rois_to_dict(rois, path.parent)
        try:
            text = json.dumps(document, indent=2, allow_nan=False)
        except ValueError:
            raise RoiError("a ROI holds a number that is not finite") from None
        # Vectors on one line; no string can match, as JSON strings hold no line breaks.
        text = re.sub(r"\[\s*\n([^\[\]{}\"]*)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            try:
                partial.write_text(text + "\n", encoding="utf-8")
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise RoiError(f"cannot be written ({error.strerror or error})") from None


def rois_to_dict(rois: RoiSet, base_folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object of a ROI file; paths of masks are spelt relative to `base_folder`.

    Raises RoiError for a mask that lies in no file.
    """
    document: dict[str, Any] = {"schema": SCHEMA}
    if rois.reader is not None:
        document["reader"] = rois.reader
    if rois.construct != Construct():
        document["construct"] = {"uiv": rois.construct.uiv, "liv": rois.construct.liv}
    document["vertebrae"] = [_vertebra_to_dict(roi, Path(base_folder)) for roi in rois.vertebrae]
    return document


# -- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Names the place in every complaint from inside."""
    try:
        yield
    except SpineImgError as error:
        raise RoiError(f"{place}: {error}") from None


def _loaded(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RoiError(f"cannot be read ({error.strerror or error})") from None
    if len(content) > MOST_BYTES:
        raise RoiError(f"larger than {MOST_BYTES // 2**20} MB, so it is no ROI file")
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_refuse_twins)
    except UnicodeDecodeError as error:
        raise RoiError(f"not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except RecursionError:
        raise RoiError("not a ROI file: its brackets are nested too deeply") from None
    except ValueError as error:
        raise RoiError(f"not JSON: {error}") from None


def _refuse_constant(word: str) -> None:
    raise RoiError(f"holds {word}, which is no number of JSON: leave the key out when it is not known")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RoiError(f"names the key {_shown(key)} twice in one object: keep one")
        found[key] = value
    return found


def _roi_set(data: object, base_folder: Path) -> RoiSet:
    if isinstance(data, dict) and data.get("schema") != SCHEMA:  # first: another kind of file has other keys
        raise RoiError(f"schema must be {SCHEMA!r}, found {_shown(data.get('schema'))}")
    top = _object(data, "the file", _TOP_KEYS)
    reader = _one_of_type(top, "reader", str, "a text")
    construct = _construct(top.get("construct"))
    entries = top.get("vertebrae")
    if not isinstance(entries, list):
        raise RoiError(f"vertebrae must be a list, found {_shown(entries)}")
    masks = _Masks(base_folder)
    vertebrae: dict[str, VertebraRoi] = {}
    for number, entry in enumerate(entries, start=1):
        roi = _vertebra(entry, number, masks)
        if roi.level in vertebrae:
            raise RoiError(f"names the level {roi.level} twice: keep one")
        vertebrae[roi.level] = roi
    return RoiSet(tuple(vertebrae.values()), construct, reader)


def _construct(value: object) -> Construct:
    if value is None:
        return Construct()
    with _at("construct"):
        entry = _object(value, "it", _CONSTRUCT_KEYS)
        levels = []
        for key in _CONSTRUCT_KEYS:
            with _at(key):
                levels.append(None if entry.get(key) is None else parse_level(entry[key]))
        return Construct(*levels)


def _vertebra(value: object, number: int, masks: _Masks) -> VertebraRoi:
    with _at(f"vertebra {number}"):
        entry = _object(value, "it", _VERTEBRA_KEYS)
        level = parse_level(entry.get("level"))
    with _at(level):
        center = None if entry.get("center") is None else _point(entry, "center")
        ellipses = _ellipses(entry.get("slices"))
        mask = None if entry.get("mask") is None else masks.roi(entry["mask"])
        if mask and (ellipses or center is not None):
            raise RoiError("has a mask beside a center or slices: keep what is to be measured")
        confirmed = _one_of_type(entry, "confirmed", bool, "true or false")
        return VertebraRoi(level, center, ellipses, mask, confirmed, _status(entry.get("status")))


def _status(value: object) -> Status | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in set(Status):
        raise RoiError(f"status must be null or one of {', '.join(Status)}, found {_shown(value)}")
    return Status(value)


def _ellipses(value: object) -> tuple[Ellipse, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 1 <= len(value) <= len(POSITIONS):
        found = f"{len(value)} of them" if isinstance(value, list) else _shown(value)
        raise RoiError(f"slices must be a list of one to three ellipses, found {found}")
    ellipses = tuple(_ellipse(entry, number) for number, entry in enumerate(value, start=1))
    names = [ellipse.position for ellipse in ellipses]
    twice = [name for name in POSITIONS if names.count(name) > 1]
    if twice:
        raise RoiError(f"slices: names the position {twice[0]} twice, each of {', '.join(POSITIONS)} may come once")
    return ellipses


def _ellipse(value: object, number: int) -> Ellipse:
    with _at(f"slice {number}"):
        entry = _object(value, "it", _SLICE_KEYS)
        position = entry.get("position")
        if position not in POSITIONS:
            raise RoiError(f"position must be one of {', '.join(POSITIONS)}, found {_shown(position)}")
    with _at(position):
        center = _point(entry, "center")
        u, v = _vector(entry, "u", 3, "numbers", 2), _vector(entry, "v", 3, "numbers", 2)
        a, b = _vector(entry, "semi_axes_mm", 2, "numbers in mm", MOST_MM)
        return Ellipse(position, center, np.array(u), np.array(v), (a, b))


class _Masks:
    """The label maps of a ROI file, each opened once."""

    def __init__(self, base_folder: Path) -> None:
        self._base_folder = base_folder
        self._opened: dict[str, LabelVolume] = {}

    def roi(self, value: object) -> MaskRoi:
        with _at("mask"):
            entry = _object(value, "it", _MASK_KEYS)
            name, label = entry.get("file"), entry.get("label")
            if not isinstance(name, str) or not name or "\0" in name:
                raise RoiError(f"file must be the path of a label map, found {_shown(name)}")
            if Path(name).is_absolute():
                raise RoiError(f"file must be a path relative to the ROI file, found {_shown(name)}")
            if not isinstance(label, int) or isinstance(label, bool) or not 1 <= label <= 65535:
                raise RoiError(f"label must be a whole number from 1 to 65535, found {_shown(label)}")
            if name not in self._opened:
                self._opened[name] = open_labels(self._base_folder / name)
            return MaskRoi(self._opened[name], label)


def _object(value: object, what: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RoiError(f"{what} must be a JSON object, found {_shown(value)}")
    for key in value:
        if key in known:
            continue
        alike = difflib.get_close_matches(str(key).lower()[:40], known, 1, _MISSPELT)
        if alike:
            raise RoiError(f"has an unknown key {_shown(key)}: is {alike[0]!r} meant?")
    return value


def _one_of_type(entry: Mapping[str, Any], key: str, kind: type, what: str) -> Any:
    value = entry.get(key)
    if value is not None and not isinstance(value, kind):
        raise RoiError(f"{key} must be {what} or null, found {_shown(value)}")
    return value


def _point(entry: Mapping[str, Any], key: str) -> FloatArray:
    return np.array(_vector(entry, key, 3, "numbers in mm (LPS)", MOST_MM))


def _vector(entry: Mapping[str, Any], key: str, count: int, what: str, most: float) -> list[float]:
    value = entry.get(key)
    good = isinstance(value, list | tuple) and len(value) == count
    # The comparison also refuses NaN, infinity and whole numbers too large for a float.
    if not good or not all(type(number) in (int, float) and abs(number) <= most for number in value or ()):
        raise RoiError(f"{key} must be {count} {what}, none beyond {most:g}, found {_shown(value)}")
    return [float(number) for number in value or ()]


def _shown(value: object) -> str:
    return "nothing" if value is None else reprlib.repr(value)


# -- writing ----------------------------------------------------------------------------------------------------------


def _vertebra_to_dict(roi: VertebraRoi, base_folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"level": roi.level}
    if roi.center_lps_mm is not None:
        entry["center"] = _listed(roi.center_lps_mm)
    if roi.ellipses:
        entry["slices"] = [
            {
                "position": ellipse.position,
                "center": _listed(ellipse.center_lps_mm),
                "u": _listed(ellipse.u_lps),
                "v": _listed(ellipse.v_lps),
                "semi_axes_mm": [float(axis) for axis in ellipse.semi_axes_mm],
            }
            for ellipse in roi.ellipses
        ]
    if roi.mask is not None:
        entry["mask"] = _mask_to_dict(roi.mask, base_folder)
    if roi.confirmed is not None:
        entry["confirmed"] = roi.confirmed
    if roi.status is not None:
        entry["status"] = roi.status.value
    return entry


def _mask_to_dict(mask: MaskRoi, base_folder: Path) -> dict[str, Any]:
    source = mask.labels.source
    if not isinstance(source, LabelFile):
        raise RoiError(f"the mask {mask.labels.name} lies in no file, so it cannot be named in one")
    place = os.path.relpath(source.path.absolute(), base_folder.absolute())
    return {"file": Path(place).as_posix(), "label": mask.label}


def _listed(vector: FloatArray) -> list[float]:
    return [float(number) for number in vector]
