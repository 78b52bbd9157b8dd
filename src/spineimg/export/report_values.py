"""Reading a result for the report: every value checked, every text free of what could name a patient."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spineimg.errors import SpineImgError

Vector = tuple[float, float, float]

_PATHS = re.compile(r"\S*[/\\]\S+|\S+\.(?:dcm|ima|nii|nii\.gz|nrrd|nhdr|mha|mhd)\b", re.IGNORECASE)
_KERNEL = re.compile(
    r"[A-Z][a-z]?\d{2}[a-z]?|FC\d{2}|STANDARD|SOFT|BONE(PLUS)?|DETAIL|LUNG|EDGE|CHST|[A-F]|Y[A-D]|soft|sharp"
)
"""Names of kernels of the four large makers; anything else in that tag may be free text."""
_PLACE = re.compile(r"((C|T|L|S)\d{1,2}|screw-\d+)([ -][a-z]+)?|slices? \d+(-\d+)?|left|right|rod-\d+")
"""What a note may be about: a level, a plane of it, a screw, a slice. Anything else may be a file's name."""
_FREE_TEXTS = ("kernel", "manufacturer", "model", "contrast_agent", "contrast_route")


@dataclass(frozen=True, slots=True)
class Cleaner:
    """Takes what a header says in free text, and the names of files, out of sentences."""

    free_texts: tuple[str, ...] = ()

    def text(self, words: str) -> str:
        shown = "".join(letter if letter.isprintable() else " " for letter in words)
        for one in self.free_texts:
            shown = shown.replace(one, "…")
        return _PATHS.sub("…", shown) if self.free_texts else shown

    def place(self, about: str) -> str:
        return about if _PLACE.fullmatch(about) else ""


def cleaner(results: Sequence[Mapping[str, Any]]) -> Cleaner:
    """A cleaner that knows the free texts of these results; short ones are words, and makers' kernels name nobody."""
    found = []
    for result in results:
        acquisition, series = result.get("acquisition"), result["series"]
        held = [series.get("description"), series.get("series_instance_uid")]
        held += [acquisition.get(name) for name in _FREE_TEXTS] if isinstance(acquisition, Mapping) else []
        patient = result.get("patient")
        held += list(patient.values()) if isinstance(patient, Mapping) else []
        found += [one for one in held if isinstance(one, str) and len(one) > 3 and not _KERNEL.fullmatch(one)]
    return Cleaner(tuple(sorted(set(found), key=len, reverse=True)) or ("\0",))


def known_kernel(kernel: str | None) -> str | None:
    """The kernel's name when it is one that makers use; several stand apart as in DICOM."""
    parts = (kernel or "").split("\\")
    return " / ".join(parts) if all(_KERNEL.fullmatch(part) for part in parts) else None


# -- checked access ---------------------------------------------------------------------------------------------------


def number(holder: Mapping[str, Any], key: str, where: str) -> float | None:
    value = holder.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
        raise SpineImgError(f"`{key}` of {where} is {_short(value)}, not a number")
    return float(value)


def text(holder: Mapping[str, Any], key: str, where: str) -> str | None:
    value = holder.get(key)
    if value is not None and not isinstance(value, str):
        raise SpineImgError(f"`{key}` of {where} is {_short(value)}, not a text")
    return value


def truth(holder: Mapping[str, Any], key: str, where: str) -> bool | None:
    value = holder.get(key)
    if value is not None and not isinstance(value, bool):
        raise SpineImgError(f"`{key}` of {where} is {_short(value)}, not true or false")
    return value


def mapping(holder: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """An object; an empty one when it is not there."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpineImgError(f"`{key}` of {where} is {_short(value)}, not an object")
    return value


def objects(holder: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    """A list of objects; an empty one when it is not there."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise SpineImgError(f"`{key}` of {where} must be a list of objects")
    return value


def numbers(holder: Mapping[str, Any], key: str, where: str, count: int) -> tuple[float, ...] | None:
    """So many numbers; None when they are not there."""
    value = holder.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != count or not all(_finite(one) for one in value):
        raise SpineImgError(f"`{key}` of {where} must be {count} numbers, found {_short(value)}")
    return tuple(float(one) for one in value)


def vector(holder: Mapping[str, Any], key: str, where: str) -> Vector | None:
    found = numbers(holder, key, where, 3)
    return (found[0], found[1], found[2]) if found is not None else None


def pair(holder: Mapping[str, Any], key: str, where: str) -> tuple[float, float] | None:
    found = numbers(holder, key, where, 2)
    return (found[0], found[1]) if found is not None else None


def word(holder: Mapping[str, Any], key: str, where: str, allowed: Sequence[str]) -> str | None:
    value = text(holder, key, where)
    if value is not None and value not in allowed:
        raise SpineImgError(f"`{key}` of {where} is {_short(value)}, not one of {', '.join(allowed)}")
    return value


def grid(holder: Mapping[str, Any], key: str, where: str, rows: int, columns: int) -> tuple[tuple[float, ...], ...]:
    """rows x columns numbers, null as nan."""
    value = holder.get(key)
    right = isinstance(value, list) and len(value) == rows
    if not right or not all(isinstance(row, list) and len(row) == columns for row in value or ()):
        raise SpineImgError(f"`{key}` of {where} must be {rows} rows of {columns} numbers")
    if not all(one is None or _finite(one) for row in value or () for one in row):
        raise SpineImgError(f"`{key}` of {where} holds something that is not a number")
    return tuple(tuple(math.nan if one is None else float(one) for one in row) for row in value or ())


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]} …"
