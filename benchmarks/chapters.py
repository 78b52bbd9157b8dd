"""What the chapters of the validation share: tables, numbers and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = Sequence[object]


def table(header: Row, rows: Iterable[Row]) -> str:
    """A GitHub table. None is an empty cell."""

    def line(cells: Row) -> str:
        return "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number at fixed digits, without a minus before zero; a dash when there is none."""
    if value is None:
        return "–"
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "−")


def save(figure: Any, path: Path) -> None:
    """Writes a picture without the writer's name and version, so that the same numbers give the same file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110, metadata={"Software": None})
