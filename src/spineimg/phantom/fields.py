"""Settings that carry their unit, range and source."""

from __future__ import annotations

from dataclasses import field


def number(default: float, unit: str, limits: tuple[float, float], source: str, help_: str) -> float:
    """A dataclass field for a number, with metadata as everywhere in the project."""
    value: float = field(default=default, metadata={"unit": unit, "range": limits, "source": source, "help": help_})
    return value
