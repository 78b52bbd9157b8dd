"""The picture of an implant screen: one row a screw, seen along and across its axis, with its halo unrolled."""

from __future__ import annotations

import os
from typing import Any

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from spineimg.export.drawing import FAINT, Sheet, drawable, file_format, letters, wrapped
from spineimg.export.figure import label, panel, shadow
from spineimg.export.panels import View, sample
from spineimg.geometry import FloatArray, unit
from spineimg.implants.model import HaloMap, ImplantScreen, Loosening, Screw
from spineimg.results import CaseResult
from spineimg.volume import CTVolume

MAX_SCREWS = 12
"""Most screws drawn, those with a finding first. Engineering choice: what still reads as a page."""
_WIDTH = 1400
_MARGIN = 22
_BETWEEN = 12
_PANEL = 178
_LONG_MM = (66.0, 44.0)
"""Along the axis and across it: a screw of 50 mm with its tip's surroundings."""
_CROSS_MM = 24.0
_CROSS_AT = (0.3, 0.55, 0.8)
"""Cross-sections, parts of the length from the head: pedicle, rear and front of the body."""
_HEADER = 62
_BANNER = 46
_TITLE = 26
_ROW = _BANNER + _TITLE + _PANEL + 92
_WORDS = 1110
"""Width of the words below the pictures, left of the map and its axis."""
_SCALE_MM = 3.0
_SLICE_STEP_MM = 0.5
_EDGE = "#19d3f3"
_VERDICTS = {
    Loosening.PRESENT: ("▼ HALO PRESENT", "#b3261e"),
    Loosening.INDETERMINATE: ("◆ INDETERMINATE", "#8a5a00"),
    Loosening.ABSENT: ("▲ NO HALO FOUND", "#005a9c"),
    Loosening.NOT_ASSESSED: ("○ NOT ASSESSED", "#4d5761"),
}
_ORDER = (Loosening.PRESENT, Loosening.INDETERMINATE, Loosening.ABSENT, Loosening.NOT_ASSESSED)


def write_implant_figure(volume: CTVolume, result: CaseResult, path: str | os.PathLike[str]) -> None:
    """Draws a screen on its volume and writes it as .png, .pdf or .svg, whole or not at all.

    Raises SpineImgError for another ending or a place that cannot be written, ValueError without a screen.
    """
    file_format(path)
    if result.implants is None:
        raise ValueError("the implants of this result were not screened")
    draw(volume, result.implants).save(path)


def draw(volume: CTVolume, screen: ImplantScreen) -> Sheet:
    """The figure as a sheet, not written yet."""
    chosen = shown(screen)
    rest = len(screen.screws) - len(chosen)
    grade = wrapped(screen.grade.text, 11, _WIDTH - 2 * _MARGIN, 3)
    top = _HEADER + 20.0 * len(grade)
    sheet = Sheet(_WIDTH, int(top + _ROW * len(chosen) + (30 if rest else 8)))
    sheet.text(_MARGIN, 14, "Implant screen", 15, bold=True)
    sheet.text(230, 18, _summary(screen), 10.5, color=FAINT)
    for i, line in enumerate(grade):
        sheet.text(_MARGIN, 48 + 20 * i, line, 11)
    for screw in chosen:
        _row(sheet, top, volume, screw)
        top += _ROW
    if rest:
        sheet.text(_MARGIN, top, f"{rest} more screws in the table, not shown here", 9.5, color=FAINT)
    return sheet


def shown(screen: ImplantScreen) -> tuple[Screw, ...]:
    """The screws that get a row, in the screen's order; those with a finding before others where there are too many."""
    if len(screen.screws) <= MAX_SCREWS:
        return screen.screws
    first = sorted(screen.screws, key=lambda screw: _ORDER.index(screw.loosening))[:MAX_SCREWS]
    return tuple(screw for screw in screen.screws if screw in first)


def long_views(screw: Screw) -> tuple[View, View]:
    """The planes through the axis, head on the left: with the cranial direction up, and with the left side up."""
    along = screw.shaft.direction_lps
    middle = (np.asarray(screw.shaft.head_lps_mm) + np.asarray(screw.shaft.tip_lps_mm)) / 2
    cranial, left = _across(along)
    return View(middle, along, -cranial, _LONG_MM), View(middle, along, -left, _LONG_MM)


def cross_views(screw: Screw) -> list[View]:
    """Cross-sections seen from the head: the patient's left on the left of the picture, cranial up."""
    along = screw.shaft.direction_lps
    head = np.asarray(screw.shaft.head_lps_mm)
    cranial, left = _across(along)
    size = (_CROSS_MM, _CROSS_MM)
    return [View(head + part * screw.shaft.length_mm * along, -left, -cranial, size) for part in _CROSS_AT]


def _across(along: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The cranial and the left direction as far as they are at right angles to the shaft."""
    left = np.array([1.0, 0.0, 0.0])
    left = unit(left - (left @ along) * along)
    cranial = np.cross(along, left)
    return (cranial if cranial[2] >= 0 else -cranial), left


# -- a row ------------------------------------------------------------------------------------------------------------


def _summary(screen: ImplantScreen) -> str:
    counts = [f"{len(screen.screws)} screws", f"{len(screen.rods)} rods"]
    if screen.other_metal:
        counts.append(f"{len(screen.other_metal)} other pieces of metal")
    for verdict in _ORDER:
        number = sum(screw.loosening is verdict for screw in screen.screws)
        if number:
            counts.append(f"{number} {verdict.value.replace('_', ' ')}")
    return " · ".join(counts)


def _row(sheet: Sheet, top: float, volume: CTVolume, screw: Screw) -> None:
    _banner(sheet, top, screw)
    views = [*long_views(screw), *cross_views(screw)]
    heights = [float(_PANEL)] * len(views)
    steps = [view.size_mm[1] / height for view, height in zip(views, heights, strict=True)]
    pictures = sample(volume, views, [max(0.1, step) for step in steps], _SLICE_STEP_MM)
    titles = ["Along, cranial up", "Along, left up", *(f"Across at {part:.0%}" for part in _CROSS_AT)]
    left = float(_MARGIN)
    top += _BANNER
    for view, picture, height, title in zip(views, pictures, heights, titles, strict=True):
        width = height * view.size_mm[0] / view.size_mm[1]
        sheet.text(left, top + 2, title, 10, bold=True)
        axes = panel(sheet, (left, top + _TITLE, width, height), view, picture)
        _outline(axes, view, screw)
        left += width + _BETWEEN
    if screw.halo.map is not None:
        _unrolled(sheet, (left + 46, top + _TITLE, _WIDTH - _MARGIN - left - 46, _PANEL), screw.halo.map)
    for i, line in enumerate(wrapped(_words(screw), 9.5, _WORDS, 3)):
        sheet.text(_MARGIN, top + _TITLE + _PANEL + 32 + 19 * i, line, 9.5, color=FAINT)


def _words(screw: Screw) -> str:
    """The halo's reason and the notes, each once."""
    texts = [screw.halo.reason, *(note.text for note in (*screw.shaft.notes, *screw.notes))]
    return "; ".join(dict.fromkeys(text.rstrip(".") for text in texts if text))


def _banner(sheet: Sheet, top: float, screw: Screw) -> None:
    line = [1 - top / sheet.height] * 2
    sheet.figure.add_artist(Line2D([0.0, 1.0], line, color="#d5dbe1", linewidth=1, transform=sheet.figure.transFigure))
    shaft = screw.shaft
    sheet.text(_MARGIN, top + 11, screw.id, 16, bold=True)
    size = f"Ø {shaft.diameter_mm:.1f} × {shaft.length_mm:.0f} mm"
    if screw.trajectory_hu is not None:
        size += f"  ·  bone around it {screw.trajectory_hu:.0f} HU"
    sheet.text(210, top + 16, size, 10.5, color=FAINT)
    word, colour = _VERDICTS[screw.loosening]
    left, right, height = 565.0, float(_WIDTH - _MARGIN), 30.0
    says = wrapped("  ·  ".join([word, *_numbers(screw)]), 11.5, right - left - 28, 1, bold=True)[0]
    x, y, wide, high = sheet.box(left, top + 8, right - left, height)
    box = Rectangle((x, y), wide, high, facecolor=colour, edgecolor="none", transform=sheet.figure.transFigure)
    sheet.figure.add_artist(box)
    sheet.text(left + 14, top + 8 + height / 2, says, 11.5, bold=True, color="white", va="center_baseline")


def _numbers(screw: Screw) -> list[str]:
    halo = screw.halo
    if not halo.assessable or halo.width_median_mm is None:
        return []
    found = [f"width {halo.width_median_mm:.1f} mm"]
    if halo.interval_mm is not None:
        found[0] += f" ({halo.interval_mm[0]:.1f}–{halo.interval_mm[1]:.1f})"
    if halo.coverage_over_1mm is not None:
        found.append(f"over 1 mm on {halo.coverage_over_1mm:.0%}")
    if halo.axial_extent_mm:
        found.append(f"along {halo.axial_extent_mm:.0f} mm")
    return found


def _outline(axes: Any, view: View, screw: Screw) -> None:
    """Where the fitted cylinder meets the view: two edges along it, or a circle across it."""
    radius = screw.shaft.diameter_mm / 2
    normal = np.cross(view.right_lps, view.down_lps)
    if abs(normal @ screw.shaft.direction_lps) > 0.9:
        angle = np.linspace(0, 2 * np.pi, 73)
        center = view.on_view(view.center_lps_mm)
        axes.plot(
            center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle), color=_EDGE, linewidth=1.2,
            path_effects=shadow(2.0),
        )  # fmt: skip
        return
    head, tip = view.on_view(screw.shaft.head_lps_mm), view.on_view(screw.shaft.tip_lps_mm)
    for side in (-radius, radius):
        axes.plot(
            [head[0], tip[0]], [head[1] + side, tip[1] + side], color=_EDGE, linewidth=1.0, path_effects=shadow(2)
        )
    label(axes, head[0], head[1] - radius - 1.2, "head", 8, ha="left", va="bottom")
    label(axes, tip[0], tip[1] - radius - 1.2, "tip", 8, ha="right", va="bottom")


def _unrolled(sheet: Sheet, place: tuple[float, float, float, float], halo: HaloMap) -> None:
    """Width of the lucent zone over depth and direction, with the line of 1 mm; grey where nothing could be said."""
    left, top, width, height = place
    axes = sheet.figure.add_axes(sheet.box(left, top, width - 46, height))
    colours = matplotlib.colormaps["magma_r"].with_extremes(bad="#c4cad1")
    depths, angles = np.asarray(halo.depths_mm), np.asarray(halo.angles_deg)
    picture = axes.pcolormesh(
        depths, np.arange(len(angles)), np.ma.masked_invalid(np.asarray(halo.width_mm).T),
        cmap=colours, vmin=0, vmax=_SCALE_MM, shading="nearest",
    )  # fmt: skip
    wide = np.ma.masked_invalid(np.asarray(halo.width_mm))
    if min(wide.shape) > 1 and wide.count() and wide.max() > 1.0 > wide.min():
        axes.contour(depths, np.arange(len(angles)), wide.T, levels=[1.0], colors="#00e5ff", linewidths=1.6)
    names = {0: "left", 90: "cranial", 180: "right", 270: "caudal"}
    spots = [(i, names[round(angle) % 360]) for i, angle in enumerate(angles.tolist()) if round(angle) % 360 in names]
    axes.set_yticks([i for i, _ in spots], [name for _, name in spots])
    axes.set_xlabel(drawable("depth from the head, mm"), **letters(9))
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set(**letters(8.5))
    sheet.text(left, top - _TITLE + 2, "Width, unrolled", 10, bold=True)
    bar = sheet.figure.add_axes(sheet.box(left + width - 38, top, 10, height))
    sheet.figure.colorbar(picture, cax=bar, ticks=[0, 1, 2, 3])
    for tick in bar.get_yticklabels():
        tick.set(**letters(8.5))
    bar.axhline(1.0, color="#00e5ff", linewidth=1.6)
    sheet.text(left + width - 40, top - _TITLE + 6, "mm", 8.5, color=FAINT)
