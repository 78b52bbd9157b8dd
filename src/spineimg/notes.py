"""A warning as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One reason for caution.

    `code` is a stable lower-case word for programs, `text` one sentence for people, `about` what it concerns: a level
    ("T12"), a level and plane ("T12 superior"), a place in the series, or "" for the whole case.
    """

    code: str
    text: str
    about: str = ""
