"""One setting of a frozen dataclass on one line."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, unit: str, low: float, high: float, source: str, help_: str) -> Any:
    """A field with its unit, range, source and help as metadata."""
    return field(default=default, metadata={"unit": unit, "range": (low, high), "source": source, "help": help_})
