"""The named bodies of a spine as a ROI file, with what is known of each body beside its click."""

from __future__ import annotations

from typing import Any

from spineimg.geometry import FloatArray
from spineimg.io.rois import SCHEMA
from spineimg.vertebra.described import body_to_dict
from spineimg.vertebra.naming import NamedSpine


def levels_to_dict(named: NamedSpine, created: str, version: str) -> dict[str, Any]:
    """The JSON object of a ROI file (schema spineimg.rois/1). `unnamed` and `notes` are beside what readers need."""
    return {
        "schema": SCHEMA,
        "reader": None,
        "construct": {"uiv": None, "liv": None},
        "vertebrae": [
            {
                "level": one.level,
                "center": _numbers(one.body.center_lps_mm),
                "confirmed": one.confirmed,
                "status": None,
                "quality": round(one.body.quality, 3),
                "body": body_to_dict(one.body),
            }
            for one in named.vertebrae
        ],
        "unnamed": [{"at": _numbers(body.center_lps_mm), "geometry": body_to_dict(body)} for body in named.unnamed],
        "notes": [{"code": note.code, "text": note.text, "about": note.about} for note in _all_notes(named)],
        "made_by": {"spineimg": version, "created": created},
    }


def _all_notes(named: NamedSpine) -> list[Any]:
    from dataclasses import replace

    own = [replace(note, about=one.level) for one in named.vertebrae for note in one.body.notes]
    return [*named.notes, *own]


def _numbers(vector: FloatArray, digits: int = 3) -> list[float]:
    return [round(float(number), digits) for number in vector]
