"""Structured reports of this program, read back: where was measured, and what came out."""

from __future__ import annotations

import json
import os
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from spineimg import coding
from spineimg.errors import RoiError
from spineimg.io.rois import SCHEMA, parse_rois
from spineimg.rois import RoiSet

_COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_MEASUREMENTS = "126010"
_GROUP = "125007"
_SITE = "363698007"
_METHOD = "370129005"
_DERIVATION = "121401"
_PERSON_NAME = "121008"

_LEVELS = {code[:2]: level for level, code in coding.LEVEL_CODES.items()}
_ROLES = {code[:2]: role.lower() for role, code in coding.ROLE_CODES.items()}
_STATUSES = {code[:2]: status for status, code in coding.STATUS_CODES.items()}
_CONFIRMED = {coding.YES[:2]: True, coding.NO[:2]: False}

Pair = tuple[str, str]
"""(code value, coding scheme designator)."""


@dataclass(frozen=True, eq=False, slots=True)
class ImportedReport:
    """A report of this program.

    rois: the ellipses as they were measured. series: the series they lie on, as `SeriesInfo.name`.
    mean_hu: the number of each level, None where there was none.
    from_masks: levels measured from a label map, which a report does not hold.
    """

    rois: RoiSet
    series: str | None
    mean_hu: Mapping[str, float | None]
    from_masks: tuple[str, ...]


def read_report(path: str | os.PathLike[str]) -> ImportedReport:
    """Reads a structured report that this program wrote. Raises RoiError for any other file."""
    dataset = _opened(path)
    try:
        return _report(dataset)
    except RoiError as error:
        raise RoiError(f"{path}: {error}") from None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise RoiError(f"{path}: its content does not follow TID 1500 ({str(error)[:120]})") from None


def _opened(path: str | os.PathLike[str]) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are not used here
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            found = dataset.get("SOPClassUID")
    except OSError as error:
        raise RoiError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (InvalidDicomError, BytesLengthException, struct.error, ValueError, EOFError, NotImplementedError) as error:
        raise RoiError(f"{path}: no DICOM structured report ({str(error)[:120]})") from None
    if found != _COMPREHENSIVE_3D_SR:
        raise RoiError(
            f"{path}: SOP Class UID (0008,0016) is {found}, a Comprehensive 3D SR ({_COMPREHENSIVE_3D_SR}) is needed: "
            "give the report that `spineimg export` wrote"
        )
    return dataset


def _report(dataset: Dataset) -> ImportedReport:
    construct: dict[str, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    means: dict[str, float | None] = {}
    masks: set[str] = set()
    for group in _groups(dataset):
        level, method = _LEVELS.get(_code(group, _SITE)), _code(group, _METHOD)
        if level is None:
            continue
        entry = entries.setdefault(level, {"level": level})
        words = _texts(group, coding.ELLIPSE_TEXT)
        if words:
            entry.setdefault("slices", []).append(json.loads(words[0]))
        elif method == coding.LABELLED_VOXELS[:2]:
            masks.add(level)
        elif method == coding.MEAN_OF_PLANES[:2]:
            means[level] = _mean(group)
            entry["confirmed"] = _CONFIRMED.get(_code(group, coding.LEVEL_CONFIRMED[0]))
            entry["status"] = _STATUSES.get(_code(group, coding.STATUS[0]))
            role = _ROLES.get(_code(group, coding.ROLE[0]))
            if role is not None:
                construct[role] = level
    document = {
        "schema": SCHEMA,
        "reader": _reader(dataset),
        "construct": construct,
        "vertebrae": [entry for level, entry in entries.items() if level in means and level not in masks],
    }
    if not means:
        raise RoiError("holds no vertebra that spineimg measured: give the report that `spineimg export` wrote")
    series = _texts(dataset, coding.SERIES_TEXT)
    return ImportedReport(parse_rois(document, Path()), series[0] if series else None, means, tuple(sorted(masks)))


# -- the tree ---------------------------------------------------------------------------------------------------------


def _name(item: Dataset) -> Pair:
    """The code of what an item is; of an item without one, two empty words."""
    names = item.get("ConceptNameCodeSequence")
    return _pair(names[0]) if names else ("", "")


def _pair(code: Dataset) -> Pair:
    return str(code.get("CodeValue", "")), str(code.get("CodingSchemeDesignator", ""))


def _items(parent: Dataset, value: str) -> Iterator[Dataset]:
    """The items of a container whose name has this code value."""
    return (item for item in parent.get("ContentSequence", ()) if _name(item)[0] == value)


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    for measurements in _items(dataset, _MEASUREMENTS):
        yield from _items(measurements, _GROUP)


def _code(parent: Dataset, value: str) -> Pair:
    """The coded answer to a concept; two empty words where it is not asked."""
    item = next(_items(parent, value), None)
    return ("", "") if item is None else _pair(item.ConceptCodeSequence[0])


def _texts(parent: Dataset, concept: coding.Code) -> list[str]:
    return [str(item.TextValue) for item in _items(parent, concept[0]) if _name(item) == concept[:2]]


def _mean(group: Dataset) -> float | None:
    for item in _items(group, coding.ATTENUATION[0]):
        if _code(item, _DERIVATION) == coding.MEAN[:2]:
            measured = item.MeasuredValueSequence[0]
            return float(measured.get("FloatingPointValue", measured.NumericValue))
    return None


def _reader(dataset: Dataset) -> str | None:
    item = next(_items(dataset, _PERSON_NAME), None)
    return None if item is None else str(item.PersonName).rstrip("^")
