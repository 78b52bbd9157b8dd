"""Small SVG drawings for the report, in millimetres of paper. Words are escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from spineimg.implants.model import Loosening
from spineimg.vertebra.flags import Call

INK, FAINT, GRID = "#16202b", "#55616c", "#d5dbe1"
RED, AMBER, BLUE, GREY = "#b3261e", "#8a5a00", "#005a9c", "#4d5761"
CALL_COLOURS = {Call.BELOW: RED, Call.INDETERMINATE: AMBER, Call.NOT_BELOW: BLUE, Call.NOT_ASSESSED: GREY}
LOOSENING_COLOURS = {
    Loosening.PRESENT: RED,
    Loosening.INDETERMINATE: AMBER,
    Loosening.ABSENT: BLUE,
    Loosening.NOT_ASSESSED: GREY,
}

_RING = '<circle cx="6" cy="6" r="4.4" fill="none" stroke="#fff" stroke-width="1.8"/>'
_DIAMOND = '<path d="M6 0.5L11.5 6L6 11.5L0.5 6z" fill="#fff"/>'
_DOWN = '<path d="M1 2h10L6 11z" fill="#fff"/>'
_UP = '<path d="M1 10h10L6 1z" fill="#fff"/>'
_SHAPES: dict[str, str] = {
    Call.BELOW: _DOWN,
    Call.NOT_BELOW: _UP,
    Call.INDETERMINATE: _DIAMOND,
    Call.NOT_ASSESSED: _RING,
    Loosening.PRESENT: _DOWN,
    Loosening.ABSENT: _UP,
}


def shape(call: str) -> Markup:
    """The white shape that stands beside the word of a call on a badge: triangles, a diamond, a ring."""
    body = Markup(_SHAPES[call])
    return Markup('<svg class="shape" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">{}</svg>').format(
        body
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str = "") -> Markup:
    return Markup(
        '<line x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}" stroke="{}" stroke-width="{}" stroke-dasharray="{}"/>'
    ).format(x1, y1, x2, y2, colour, width, dashes or "none")


def words(x: float, y: float, what: str, size: float, colour: str = INK, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.2f}" y="{:.2f}" font-size="{}" fill="{}" text-anchor="{}">{}</text>').format(
        x, y, size, colour, anchor, what
    )


def strong(x: float, y: float, what: str, size: float, colour: str = INK, anchor: str = "start") -> Markup:
    return Markup(
        '<text x="{:.2f}" y="{:.2f}" font-size="{}" font-weight="bold" fill="{}" text-anchor="{}">{}</text>'
    ).format(x, y, size, colour, anchor, what)


def dot(x: float, y: float, radius: float, fill: str, stroke: str = "none") -> Markup:
    return Markup('<circle cx="{:.2f}" cy="{:.2f}" r="{}" fill="{}" stroke="{}" stroke-width="0.35"/>').format(
        x, y, radius, fill, stroke
    )


def bar(x: float, y: float, width: float, height: float, fill: str, opacity: float = 1.0) -> Markup:
    return Markup('<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill="{}" fill-opacity="{}"/>').format(
        x, y, width, height, fill, opacity
    )


def polygon(
    points: Sequence[tuple[float, float]], stroke: str, fill: str, width: float, *, closed: bool = True
) -> Markup:
    path = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + ("z" if closed else "")
    return Markup(
        '<path d="{}" fill="{}" stroke="{}" stroke-width="{}" stroke-linecap="round" stroke-linejoin="round"/>'
    ).format(path, fill, stroke, width)


def drawing(width: float, height: float, parts: Sequence[Markup], says: str, kind: str) -> Markup:
    """An SVG of a size in mm of paper. says: what a reader hears who does not see it."""
    return Markup(
        '<svg class="{}" role="img" aria-label="{}" viewBox="0 0 {:.2f} {:.2f}" width="{:.2f}mm" height="{:.2f}mm" '
        'font-family="inherit">{}</svg>'
    ).format(kind, says, width, height, width, height, Markup("").join(parts))


def hu(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}f}".replace("-", "−")
