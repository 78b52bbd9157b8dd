"""A vertebral HU held against a published cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Call(StrEnum):
    BELOW = "below"
    INDETERMINATE = "indeterminate"
    NOT_BELOW = "not_below"
    NOT_ASSESSED = "not_assessed"


@dataclass(frozen=True, slots=True)
class Flag:
    """The interval in which the true unenhanced 120 kVp value can lie, against a cutoff that names its paper."""

    call: Call
    below_cutoff: bool | None
    cutoff_hu: float
    interval_hu: tuple[float, float] | None
    source: str
    text: str
