"""Names and order of vertebrae, and the instrumented construct."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from spineimg.errors import RoiError

LEVELS: tuple[str, ...] = (
    *(f"C{n}" for n in range(1, 8)),
    *(f"T{n}" for n in range(1, 14)),
    *(f"L{n}" for n in range(1, 7)),
    "S1",
)
"""All levels from head to foot. T11-end, T13 and L6 are real anatomy, not errors."""


def parse_level(text: object) -> str:
    """A level as the project spells it ("t12" -> "T12"). Raises RoiError for anything else."""
    match = re.fullmatch(r"\s*([CTLS])\s*0?(\d{1,2})\s*", text, re.IGNORECASE) if isinstance(text, str) else None
    level = f"{match[1].upper()}{int(match[2])}" if match else ""
    if level not in LEVELS:
        raise RoiError(f"{text!r} is not a vertebral level: use C1-C7, T1-T13, L1-L6 or S1")
    return level


def order(level: str) -> int:
    """Rank of a level from the head: C1 is 0."""
    return LEVELS.index(level)


def is_lumbar(level: str) -> bool:
    return level[0] in "LS"


class Role(StrEnum):
    UIV = "UIV"
    LIV = "LIV"


class Status(StrEnum):
    """What makes a vertebra measurable but never flagged."""

    TUMOUR = "tumour"
    CEMENTED = "cemented"
    FRACTURED = "fractured"
    INSTRUMENTED = "instrumented"


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Construct:
    """Upper and lowest instrumented vertebra; None when not told."""

    uiv: str | None = None
    liv: str | None = None

    def __post_init__(self) -> None:
        for level in (self.uiv, self.liv):
            if level is not None and level not in LEVELS:
                raise RoiError(f"{level!r} is not a vertebral level: use C1-C7, T1-T13, L1-L6 or S1")
        if self.uiv and self.liv and order(self.uiv) > order(self.liv):
            raise RoiError(f"the UIV ({self.uiv}) lies below the LIV ({self.liv}): swap them")

    def role(self, level: str) -> Role | None:
        """The role of a level. A vertebra that is both ends counts as the LIV, which has a cutoff."""
        if level == self.liv:
            return Role.LIV
        return Role.UIV if level == self.uiv else None
