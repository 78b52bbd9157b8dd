"""A sheet to draw on, in pixels, without pyplot and without the user's matplotlib settings."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font

from spineimg.errors import SpineImgError
from spineimg.export.files import replacing

DPI = 100
INK = "#16202b"
FAINT = "#5b6773"
FORMATS = ("png", "pdf", "svg")

_LONGEST = 4000
"""So many characters of a text are looked at: more than a page holds, however absurd a header is."""
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
_NO_CLOCK: dict[str, dict[str, str | None]] = {
    "png": {"Software": "spineimg"},
    "pdf": {"Creator": "spineimg", "CreationDate": None},
    "svg": {"Creator": "spineimg", "Date": None},
}
"""What a file says of itself: the program, neither a person nor a time."""


def file_format(path: str | os.PathLike[str]) -> str:
    """The format that the name's ending asks for. Raises SpineImgError for another ending."""
    ending = Path(path).suffix.lower().lstrip(".")
    if ending not in FORMATS:
        raise SpineImgError(f"a figure is written as .png, .pdf or .svg, found {Path(path).name!r}: change its ending")
    return ending


class Sheet:
    """A white page; places count from its upper left corner in pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes without ticks or frame on a rectangle of the page."""
        axes = self.figure.add_axes(self.box(left, top, width, height))
        axes.set_axis_off()
        return axes

    def box(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """A rectangle in matplotlib's figure coordinates: left, bottom, width and height as fractions."""
        return (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)

    def text(self, left: float, top: float, words: str, size: float, *, bold: bool = False, **style: Any) -> Any:
        """Words with their upper left corner at a place; size in points (72 to 100 pixels)."""
        look: dict[str, Any] = {"ha": "left", "va": "top", "color": INK} | style | letters(size, bold=bold)
        return self.figure.text(left / self.width, 1 - top / self.height, drawable(words, bold=bold), **look)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page as png, pdf or svg after the name's ending, whole or not at all."""
        kind = file_format(path)
        with replacing(path) as handle:
            self.figure.savefig(handle, format=kind, dpi=DPI, facecolor="white", metadata=_NO_CLOCK[kind])


def wrapped(words: str, size: float, width: float, lines: int, *, bold: bool = False) -> list[str]:
    """`words` broken into lines of at most so many pixels; what does not fit ends in an ellipsis. Size in points."""
    out: list[str] = []
    rest = drawable(words[:_LONGEST], bold=bold).split()
    while rest and len(out) < lines:
        count = max(1, _fitting(" ".join, rest, size, width, bold=bold))
        line, rest = " ".join(rest[:count]), rest[count:]
        letters_that_fit = _fitting("".join, line, size, width, bold=bold)  # fewer than all only of one endless word
        cut = letters_that_fit < len(line) or (rest and len(out) == lines - 1)
        out.append(line[:letters_that_fit] + " …" if cut else line)
    return out


def _fitting(
    join: Callable[[Sequence[str]], str], parts: Sequence[str], size: float, width: float, *, bold: bool
) -> int:
    """How many of the parts fit into a width, with room for an ellipsis."""
    counts = range(1, len(parts) + 1)
    return bisect_right(counts, width, key=lambda n: _pixels(join(parts[:n]) + " …", size, bold=bold))


def _pixels(words: str, size: float, *, bold: bool) -> float:
    font = get_font(str(_font(bold=bold)))
    font.set_size(size, DPI)
    font.set_text(words)
    return float(font.get_width_height()[0]) / 64


def letters(size: float, *, bold: bool = False) -> dict[str, Any]:
    """Arguments of a matplotlib text: the font that ships with matplotlib, and no markup in what headers say."""
    font = FontProperties(fname=str(_font(bold=bold)), size=size)
    return {"fontproperties": font, "parse_math": False, "usetex": False}


def drawable(words: str, *, bold: bool = False) -> str:
    """`words` with a question mark for every character that the font does not have."""
    face = get_font(str(_font(bold=bold)))
    return "".join(one if one.isprintable() and face.get_char_index(ord(one)) else "?" for one in words)


def _font(*, bold: bool) -> Path:
    return _FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
