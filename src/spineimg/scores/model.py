"""What the scores share: answers with their allowed words, parts with their points, and the score itself."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any, TypeVar

from spineimg.anatomy import parse_level
from spineimg.errors import SpineImgError
from spineimg.notes import Note

A = TypeVar("A")
_UNKNOWN = ("", "unknown", "?", "not known")
_YES_NO = {True: "yes", False: "no"}


class ScoreError(SpineImgError):
    """An answer that a score does not know. The message names the answer, what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One allowed answer. points: what it adds, where the answer has points. also: other spellings."""

    word: str
    points: int = 0
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One component. low, high: least and most that it can be, equal when it is known; None when nothing bounds it.

    given_by: "stated", "level" (follows from the vertebra's name), "image" (measured), or None when unknown.
    """

    name: str
    answer: str | float | None
    low: float | None
    high: float | None
    says: str
    given_by: str | None


@dataclass(frozen=True, slots=True)
class Score:
    """value: None unless everything that counts is known. low, high: what is possible; None where there is no bound.

    verdict: the band or treatment when only one is possible; verdicts: all that are possible.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    verdict: str | None
    verdicts: tuple[str, ...]
    text: str
    parts: tuple[Part, ...]
    notes: tuple[Note, ...]
    source: str


# -- questions --------------------------------------------------------------------------------------------------------


def choices(help_: str, *allowed: Choice, number: tuple[float, float] | None = None) -> Any:
    """A field: one of several words; with `number`, also a number in that range."""
    return field(default=None, metadata={"help": help_, "choices": allowed, "range": number})


def yes_no(help_: str) -> Any:
    return choices(help_, Choice("yes", also=("true",)), Choice("no", also=("false", "none")))


def amount(help_: str, unit: str, low: float, high: float) -> Any:
    """A field: a number. low, high: what can be, so that another unit is found out."""
    return field(default=None, metadata={"help": help_, "unit": unit, "range": (low, high)})


def level(help_: str, *more: str) -> Any:
    """A field: a vertebra, or one of `more`."""
    return field(default=None, metadata={"help": help_, "levels": more})


def level_list(help_: str) -> Any:
    """A field: a list of vertebrae, or a text with commas; "none" is the empty list."""
    return field(default=None, metadata={"help": help_, "many": True})


def read_answers(kind: type[A], given: Mapping[str, Any]) -> A:
    """The answers of a score from plain values; null and "unknown" are unknown. Raises ScoreError."""
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    found = {}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ScoreError(f"unknown answer {key!r}: {hint}")
        if value is not None and not (isinstance(value, str) and value.strip().lower() in _UNKNOWN):
            found[key] = _answer(key, value, known[key].metadata)
    return kind(**found)


def _answer(key: str, value: Any, asked: Mapping[str, Any]) -> Any:
    if "choices" in asked:
        return _word(key, value, asked["choices"], asked["range"])
    if "range" in asked:
        return _amount(key, value, asked["range"], asked["unit"])
    if "many" in asked:
        if isinstance(value, str):
            value = [] if value.strip().lower() == "none" else value.split(",")
        if not isinstance(value, Sequence):
            raise ScoreError(f"{key}: a list of vertebrae is needed, found {value!r}")
        return tuple(dict.fromkeys(_level(key, one, ()) for one in value))
    return _level(key, value, asked["levels"])


def _level(key: str, value: Any, more: tuple[str, ...]) -> str:
    if isinstance(value, str) and value.strip().upper() in more:
        return value.strip().upper()
    try:
        return parse_level(value)
    except SpineImgError as error:
        raise ScoreError(f"{key}: {error}") from None


def _word(key: str, value: Any, allowed: tuple[Choice, ...], span: tuple[float, float] | None) -> str | float:
    if isinstance(value, bool):
        value = _YES_NO[value]
    plain = "-".join(str(value).lower().replace("_", " ").replace("%", " %").split())
    for one in allowed:
        if plain in (one.word, *one.also):
            return one.word
    if span is not None:
        try:
            return _amount(key, float(plain.removesuffix("-%")), span, "%")
        except ValueError:
            pass
    words = ", ".join(one.word for one in allowed) + ("" if span is None else ", or a percentage")
    raise ScoreError(f"{key}: found {value!r}, allowed are {words}")


def _amount(key: str, value: Any, span: tuple[float, float], unit: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not span[0] <= number <= span[1]:
        raise ScoreError(f"{key}: found {value!r}, a number of {span[0]:g} to {span[1]:g} {unit} is needed")
    return number


# -- points -----------------------------------------------------------------------------------------------------------


def points_of(kind: type[Any], name: str, word: str | None) -> tuple[int, ...]:
    """The points that an answer can be worth: one number, or those of every choice when it is not known."""
    allowed: tuple[Choice, ...] = next(one for one in fields(kind) if one.name == name).metadata["choices"]
    return tuple(sorted({one.points for one in allowed if word in (None, one.word)}))


def points_part(
    name: str, answer: str | float | None, points: Sequence[int], given_by: str | None, says: str = ""
) -> Part:
    """A part that adds points; `says` defaults to the answer."""
    known = answer is not None
    words = says or (str(answer) if known else "not known")
    return Part(name, answer, min(points), max(points), words, given_by if known else None)


def sums(possible: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Every total that can be reached, rising."""
    return tuple(sorted({sum(one) for one in product(*possible)}))


def span_text(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
