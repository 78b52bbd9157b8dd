"""One setting of a frozen dataclass: its default with unit, range, source and help."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, unit: str, limits: tuple[Any, Any], source: str, help_: str) -> Any:
    """A dataclass field that says what its value means.

    limits: least and largest sensible value. source: the paper or measurement, or "engineering choice".
    """
    return field(default=default, metadata={"unit": unit, "range": limits, "source": source, "help": help_})
