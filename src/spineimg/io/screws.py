"""Screw files: screws that a person marked, as JSON (schema `spineimg.screws/1`).

    {"schema": "spineimg.screws/1",
     "screws": [{"id": "a", "level": "T12", "side": "left", "head": [x, y, z], "tip": [x, y, z], "diameter_mm": 6.5}]}

`head` is where the shaft meets the tulip; points are LPS mm. Only `head` and `tip` are needed. The list of a result
(`spineimg implants --json`) reads too: keys that are not known are passed over.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spineimg.anatomy import Side, parse_level
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.implants.given import GivenScrew

SCHEMA = "spineimg.screws/1"
_MOST_BYTES = 20 * 2**20
_MOST_SCREWS = 200
_MOST_MM = 100_000.0
_LENGTH_MM = (5.0, 150.0)
_DIAMETER_MM = (1.0, 15.0)


def read_screws(path: str | os.PathLike[str]) -> tuple[GivenScrew, ...]:
    """The screws in a file. Raises RoiError with the file, the screw, the key and its value."""
    path = Path(path)
    try:
        return parse_screws(_loaded(path))
    except RoiError as error:
        raise RoiError(f"{path}: {error}") from None


def parse_screws(data: object) -> tuple[GivenScrew, ...]:
    """The screws in a screw file's JSON object. Raises RoiError."""
    if not isinstance(data, dict):
        raise RoiError(f"the file must hold a JSON object, found {reprlib.repr(data)}")
    if data.get("schema") != SCHEMA:
        raise RoiError(f"schema must be {SCHEMA!r}, found {reprlib.repr(data.get('schema'))}")
    entries = data.get("screws")
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST_SCREWS:
        raise RoiError(f"screws must be a list of 1 to {_MOST_SCREWS} screws, found {reprlib.repr(entries)}")
    screws = tuple(_screw(entry, number) for number, entry in enumerate(entries, start=1))
    ids = [screw.id for screw in screws if screw.id is not None]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise RoiError(f"names the screw {twice!r} twice: keep one")
    return screws


def _loaded(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RoiError(f"cannot be read ({error.strerror or error})") from None
    if len(content) > _MOST_BYTES:
        raise RoiError(f"larger than {_MOST_BYTES // 2**20} MB, so it is no screw file")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RoiError(f"not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except RecursionError:
        raise RoiError("not a screw file: its brackets are nested too deeply") from None
    except ValueError as error:
        raise RoiError(f"not JSON: {error}") from None


def _screw(entry: object, number: int) -> GivenScrew:
    try:
        if not isinstance(entry, dict):
            raise RoiError(f"must be a JSON object, found {reprlib.repr(entry)}")
        head, tip = _point(entry, "head"), _point(entry, "tip")
        length = float(np.linalg.norm(tip - head))
        if not _LENGTH_MM[0] <= length <= _LENGTH_MM[1]:
            raise RoiError(
                f"head and tip lie {length:.1f} mm apart, which no screw's do ({_LENGTH_MM[0]:g}-{_LENGTH_MM[1]:g} mm)"
            )
        level = None if entry.get("level") is None else parse_level(entry["level"])
        return GivenScrew(head, tip, _diameter(entry), _id(entry), level, _side(entry))
    except RoiError as error:
        raise RoiError(f"screw {number}: {error}") from None


def _point(entry: Mapping[str, Any], key: str) -> FloatArray:
    value = entry.get(key)
    good = isinstance(value, list) and len(value) == 3
    # The comparison also refuses NaN, infinity and whole numbers too large for a float.
    if not good or not all(type(number) in (int, float) and abs(number) <= _MOST_MM for number in value or ()):
        raise RoiError(f"{key} must be 3 numbers in mm (LPS), found {_shown(value)}")
    return np.array(value, dtype=np.float64)


def _diameter(entry: Mapping[str, Any]) -> float | None:
    value = entry.get("diameter_mm")
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or not _DIAMETER_MM[0] <= value <= _DIAMETER_MM[1]:
        raise RoiError(f"diameter_mm must lie in {_DIAMETER_MM[0]:g}-{_DIAMETER_MM[1]:g} mm, found {_shown(value)}")
    return float(value)


def _id(entry: Mapping[str, Any]) -> str | None:
    value = entry.get("id")
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise RoiError(f"id must be a text, found {_shown(value)}")
    return value


def _side(entry: Mapping[str, Any]) -> Side | None:
    value = entry.get("side")
    if value is None:
        return None
    if not isinstance(value, str) or value not in set(Side):
        raise RoiError(f"side must be one of {', '.join(Side)}, found {_shown(value)}")
    return Side(value)


def _shown(value: object) -> str:
    return "nothing" if value is None else reprlib.repr(value)
