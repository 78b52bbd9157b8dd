"""Score files, "spineimg.score/1", out and back in, and their lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spineimg.anatomy import parse_level
from spineimg.errors import SpineImgError
from spineimg.export.json import read_result
from spineimg.scores.model import Score

SCORE_SCHEMA = "spineimg.score/1"
_MOST_BYTES = 2**20


def score_to_dict(score: Score, created: datetime) -> dict[str, Any]:
    """A score as a dict of plain values. `range` is [least, most], null where there is no bound."""
    return {
        "schema": SCORE_SCHEMA,
        "score": score.name,
        "value": score.value,
        "range": [score.low, score.high],
        "verdict": score.verdict,
        "verdicts": list(score.verdicts),
        "text": score.text,
        "parts": [
            {
                "name": part.name,
                "answer": part.answer,
                "range": [part.low, part.high],
                "says": part.says,
                "given_by": part.given_by,
            }
            for part in score.parts
        ],
        "notes": [asdict(note) for note in score.notes],
        "source": score.source,
        "made_by": {
            "spineimg": version("spineimg"),
            "created": created.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        },
    }


def score_lines(score: Score) -> list[str]:
    """The score in words: the result, its parts, the notes, the source."""
    marks = {"image": " (from the image)", "level": " (from the level)", "stated": "", None: ""}
    lines = [score.text]
    if score.name != "construct":  # there the parts are the text
        lines += [
            f"  {part.name}: {part.says}{_points(score, part.low, part.high)}{marks[part.given_by]}"
            for part in score.parts
        ]
    lines += [f"  • {note.text}" for note in score.notes]
    return [*lines, f"  Source: {score.source}"]


def _points(score: Score, low: float | None, high: float | None) -> str:
    if low is None or score.name == "NOMS":
        return ""
    if high is None:
        return f" → {low:g} or more"
    return f" → {low:g}" if low == high else f" → {low:g} to {high:g}"


def read_plain(path: str | Path, what: str) -> dict[str, Any]:
    """The object in a small JSON file. Raises SpineImgError that names the file."""
    where = Path(path)
    try:
        with where.open("rb") as handle:
            content = handle.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SpineImgError(f"cannot read {where}: {error.strerror or error}") from error
    if len(content) > _MOST_BYTES:
        raise SpineImgError(f"{where} is larger than 1 MB: {what} is needed")
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SpineImgError(f"{where} is not JSON: {error}; {what} is needed") from error
    if not isinstance(found, dict):
        raise SpineImgError(f"{where} holds no JSON object: {what} is needed")
    return found


def read_score(path: str | Path) -> dict[str, Any]:
    """A score file, checked as far as the report relies on it. Raises SpineImgError that names the file."""
    found = read_plain(path, "a file of `spineimg score --json`")
    if found.get("schema") != SCORE_SCHEMA:
        raise SpineImgError(f"{path} has schema {found.get('schema')!r}, a score file needs {SCORE_SCHEMA!r}")
    for key in ("score", "text", "source"):
        if not isinstance(found.get(key), str):
            raise SpineImgError(f"{path}: `{key}` is missing or not a text")
    for key in ("parts", "notes"):
        items = found.get(key)
        words = ("name", "says") if key == "parts" else ("text",)
        if not isinstance(items, list) or not all(_has_texts(one, words) for one in items):
            raise SpineImgError(f"{path}: `{key}` must be a list of objects with {' and '.join(words)}")
    return found


def _has_texts(item: object, keys: tuple[str, ...]) -> bool:
    return isinstance(item, Mapping) and all(isinstance(item.get(key), str) for key in keys)


# -- what other files say ---------------------------------------------------------------------------------------------


def read_heights(path: str | Path) -> dict[str, float]:
    """Level -> height of the fitted body, mm, of a file of `spineimg levels --json`. Raises SpineImgError."""
    found = read_plain(path, "a file of `spineimg levels --json`")
    heights = {}
    vertebrae = found.get("vertebrae")
    for one in vertebrae if isinstance(vertebrae, list) else ():
        body = one.get("body") if isinstance(one, Mapping) else None
        height = (
            next((body[key] for key in ("height_mm", "height") if key in body), None)
            if isinstance(body, Mapping)
            else None
        )
        if isinstance(height, (int, float)) and not isinstance(height, bool) and 2 < height < 80:
            heights[parse_level(one.get("level"))] = float(height)
    if not heights:
        raise SpineImgError(
            f"{path}: no vertebra with the height of its body: a file of `spineimg levels --json` is needed"
        )
    return heights


def construct_of_result(path: str | Path) -> dict[str, Any]:
    """UIV, LIV and the number of pedicle screws that a result holds; None where it does not tell.

    The ends are the roles of its vertebrae, else the ends that the implant screen named.
    """
    found = read_result(path)
    screws = found.get("screws")
    grade = found.get("grade")
    named = grade.get("construct") if isinstance(grade, Mapping) else None
    ends: dict[str, Any] = {"uiv": None, "liv": None}
    for key in ends:
        of_role = [one["level"] for one in found["vertebrae"] if one.get("role") == key.upper()]
        told = of_role[0] if of_role else named.get(key) if isinstance(named, Mapping) else None
        ends[key] = parse_level(told) if told is not None else None
    return ends | {"screws": float(len(screws)) if isinstance(screws, list) and screws else None}
