"""The NOMS table as printed in Hong 2022 (Asian Spine J), Table 3. A table of treatments, not a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product

from spineimg.notes import Note
from spineimg.scores.model import Choice, Part, Score, choices, yes_no

SOURCE = "Hong 2022, Asian Spine J, Table 3"

_CEBRT = "conventional external beam radiotherapy"
_STABLE_CEBRT = f"stabilization, then {_CEBRT}"
_SRS = "stereotactic radiosurgery"
_STABLE_SRS = f"stabilization, then {_SRS}"
_SURGERY = f"decompression and stabilization, then {_SRS}"
NO_ROW = "no row in the table"

_LOW_GRADES = ("0", "1a", "1b", "1c")
_HIGH_GRADES = ("2", "3")


@dataclass(frozen=True, slots=True)
class NomsAnswers:
    escc: str | None = choices(
        "epidural spinal cord compression, from MRI: low, high, or a Bilsky grade",
        Choice("low", also=("low-grade",)),
        Choice("high", also=("high-grade",)),
        *(Choice(grade) for grade in (*_LOW_GRADES, *_HIGH_GRADES)),
    )
    myelopathy: str | None = yes_no("signs of myelopathy")
    radiosensitivity: str | None = choices(
        "the tumour's answer to radiation",
        Choice("sensitive", also=("radiosensitive",)),
        Choice("resistant", also=("radioresistant",)),
    )
    stability: str | None = choices("mechanical stability", Choice("stable"), Choice("unstable"))
    systemic: str | None = choices("able to tolerate surgery", Choice("able", also=("yes",)), Choice("unable"))


_VALUES = {
    "escc": ("low", "high"),
    "myelopathy": ("yes", "no"),
    "radiosensitivity": ("sensitive", "resistant"),
    "stability": ("stable", "unstable"),
    "systemic": ("able", "unable"),
}


def noms(answers: NomsAnswers) -> Score:
    """The treatments that the table prints for what is known: one, or all that are possible."""
    known = {name: getattr(answers, name) for name in _VALUES}
    known["escc"] = _grade_group(answers.escc)
    possible = {name: (value,) if value is not None else _VALUES[name] for name, value in known.items()}
    found = _treatments(possible)
    single = found[0] if len(found) == 1 else None
    text = f"NOMS: {single}" if single else f"NOMS, one of: {'; '.join(found)}"
    if single is None:
        text += f" (open: {', '.join(_deciding(possible))})"
    return Score(
        name="NOMS",
        value=None,
        low=None,
        high=None,
        verdict=single,
        verdicts=found,
        text=text,
        parts=tuple(_part(name, getattr(answers, name)) for name in (one.name for one in fields(NomsAnswers))),
        notes=_notes(answers, found),
        source=SOURCE,
    )


def _grade_group(answer: str | None) -> str | None:
    if answer in _LOW_GRADES:
        return "low"
    return "high" if answer in _HIGH_GRADES else answer


def _treatments(possible: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_treatment(*row) for row in product(*possible.values())))


def _deciding(possible: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The unknown answers on which the treatment depends."""
    found = []
    for name, values in possible.items():
        others = {key: [(one,) for one in several] for key, several in possible.items() if key != name}
        for fixed in product(*others.values()):
            settled = dict(zip(others, fixed, strict=True))
            row = {key: values if key == name else settled[key] for key in possible}
            if len(_treatments(row)) > 1:
                found.append(name)
                break
    return found


def _treatment(escc: str, myelopathy: str, radiosensitivity: str, stability: str, systemic: str) -> str:
    if escc == "low" and myelopathy == "yes":
        return NO_ROW
    if radiosensitivity == "sensitive":
        return _CEBRT if stability == "stable" else _STABLE_CEBRT
    if escc == "low":
        return _SRS if stability == "stable" else _STABLE_SRS
    if systemic == "able":
        return _SURGERY
    return _CEBRT if stability == "stable" else _STABLE_CEBRT


def _part(name: str, answer: str | None) -> Part:
    return Part(name, answer, None, None, answer or "not known", "stated" if answer is not None else None)


def _notes(answers: NomsAnswers, found: tuple[str, ...]) -> tuple[Note, ...]:
    notes = [Note("source_incomplete", "the source does not define low and high grade of cord compression", "escc")]
    if answers.escc in (*_LOW_GRADES, *_HIGH_GRADES):
        text = "grades 0 to 1c were taken as low, 2 and 3 as high, which is usual but not in the source"
        notes.append(Note("grade_interpreted", text, "escc"))
    if NO_ROW in found:
        notes.append(Note("no_row", "the table has no row for low-grade compression with myelopathy"))
    text = (
        "the table leaves the systemic column empty in most rows; it counts for resistant tumours with high grade only"
    )
    return (*notes, Note("source_incomplete", text, "systemic"))
