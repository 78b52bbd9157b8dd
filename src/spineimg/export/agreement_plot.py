"""The Bland-Altman plot of two readers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from spineimg.export.drawing import FAINT, INK, Sheet, drawable, file_format, letters, wrapped
from spineimg.export.text import summary_lines

_SIZE = (1100, 640)
_PLOT = (92.0, 66.0, 690.0, 490.0)
_SIDE = 850.0
_MEAN, _LIMIT = "#005a9c", "#b3261e"


def write_agreement_plot(agreement: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Differences against means with limits and their intervals, as .png, .pdf or .svg, whole or not at all.

    agreement: the dict of an agreement file. With too few pairs the plot shows the points and says why no more.
    Raises SpineImgError for another ending or a place that cannot be written.
    """
    file_format(path)
    draw(agreement).save(path)


def draw(agreement: Mapping[str, Any]) -> Sheet:
    """The plot as a sheet, not written yet."""
    sheet = Sheet(*_SIZE)
    sheet.text(22, 16, "Agreement of two readers, vertebral HU", 15, bold=True)
    axes = sheet.figure.add_axes(sheet.box(*_PLOT))
    axes.set_facecolor("white")
    for name, words in (("set_xlabel", "mean of A and B, HU"), ("set_ylabel", "A − B, HU")):
        getattr(axes, name)(words, color=INK, **letters(11))
    pairs = [pair for pair in agreement["vertebrae"] if pair["difference_hu"] is not None]
    _scale(axes, agreement["hu"], pairs)
    _lines(axes, agreement["hu"])
    _points(axes, pairs)
    _ticks(axes)
    _side(sheet, agreement)
    return sheet


def _scale(axes: Any, hu: Mapping[str, Any], pairs: list[Mapping[str, Any]]) -> None:
    """Axes that hold every point, every interval and the line of no difference."""
    x = [(pair["a_hu"] + pair["b_hu"]) / 2 for pair in pairs] or [0.0]
    y = [pair["difference_hu"] for pair in pairs] + [0.0]
    if not hu["reason"]:
        y += [hu[name][end] for name in ("lower_limit", "upper_limit") for end in ("low", "high")]
    for values, set_limits, least in ((x, axes.set_xlim, 20.0), (y, axes.set_ylim, 4.0)):
        middle, half = (max(values) + min(values)) / 2, max(max(values) - min(values), least) / 2
        set_limits(middle - 1.2 * half, middle + 1.2 * half)


def _lines(axes: Any, hu: Mapping[str, Any]) -> None:
    axes.axhline(0.0, color=FAINT, linewidth=1, linestyle=":")
    if hu["reason"]:
        return
    looks = (("difference", _MEAN, "-", 0.97), ("lower_limit", _LIMIT, "--", 0.94), ("upper_limit", _LIMIT, "--", 1.0))
    for name, colour, style, beside in looks:
        axes.axhline(hu[name]["value"], color=colour, linewidth=1.6, linestyle=style)
        ends = [hu[name]["low"], hu[name]["high"]]
        across = axes.get_yaxis_transform()
        axes.plot([beside, beside], ends, color=colour, marker="_", markersize=11, transform=across, clip_on=False)


def _points(axes: Any, pairs: list[Mapping[str, Any]]) -> None:
    for pair in pairs:
        x, y = (pair["a_hu"] + pair["b_hu"]) / 2, pair["difference_hu"]
        axes.plot([x], [y], marker="o", markersize=7, color=INK, markeredgecolor="white", linestyle="")
        words = drawable(pair["level"])
        axes.annotate(words, (x, y), xytext=(6, 4), textcoords="offset points", color=INK, **letters(10))


def _ticks(axes: Any) -> None:
    font = letters(10)["fontproperties"]
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(fontproperties=font, color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _side(sheet: Sheet, agreement: Mapping[str, Any]) -> None:
    """The numbers in words beside the plot."""
    top = _PLOT[1]
    for line in summary_lines(agreement):
        for words in wrapped(line, 10.5, _SIZE[0] - _SIDE - 24, 6):
            sheet.text(_SIDE, top, words, 10.5)
            top += 21
        top += 10
    for words in wrapped(
        "Solid: mean difference. Dashed: limits of agreement. Bars at the right: their intervals.", 9.5, 226, 4
    ):
        sheet.text(_SIDE, top, words, 9.5, color=FAINT)
        top += 19
