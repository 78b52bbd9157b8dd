"""The picture of a measurement: one row a vertebra with its planes, its ellipses, its numbers and its flag."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from spineimg.export.drawing import DPI, FAINT, INK, Sheet, drawable, file_format, letters, wrapped
from spineimg.export.json import all_notes
from spineimg.export.panels import View, coronal, facing, sagittal, sample
from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.results import CaseResult, VertebraResult
from spineimg.vertebra.flags import Call, Flag
from spineimg.vertebra.hu import SliceHU
from spineimg.volume import CTVolume

WINDOW_HU = 1000.0
LEVEL_HU = 250.0
"""Width and middle of the grey scale. Engineering choice: trabeculae and cortex are both visible."""
MAX_ROWS = 6
"""Most vertebrae shown when none has a role. Engineering choice: what still reads as one page."""
_SLICE_STEP_MM = 1.25
"""The overviews leave out slices closer together than this. Engineering choice: three to four picture elements."""

_WIDTH = 1400
_MARGIN = 22
_BETWEEN = 12
_PANEL = 288
"""Height of a panel and width of an axial one, pixels."""
_LONG_MM = (80.0, 104.0)
"""Width and height of the sagittal and coronal panels: a vertebra with its two neighbours."""
_AXIAL_MM = (80.0, 80.0)
_HEADER = 58
_BANNER = 46
_TITLE = 26
_CAPTION = 52
_NOTE_LINE = 19
_NOTE_LINES = 2
_AFTER_ROW = 20
_LINE_MM = 17.0
"""Half length of a plane's line on the overviews; the part inside the ellipse is thick."""

_ELLIPSE = "#19d3f3"
_PLANE = "#ffd23f"
_NOTHING = "#33424f"
_CALLS = {
    Call.BELOW: ("▼ BELOW", "#b3261e"),
    Call.INDETERMINATE: ("◆ INDETERMINATE", "#8a5a00"),
    Call.NOT_BELOW: ("▲ NOT BELOW", "#005a9c"),
    Call.NOT_ASSESSED: ("○ NOT ASSESSED", "#4d5761"),
}


def write_figure(volume: CTVolume, result: CaseResult, path: str | os.PathLike[str]) -> None:
    """Draws a result on its volume and writes it as .png, .pdf or .svg, whole or not at all.

    One row a vertebra with a role, or else one for each of the first MAX_ROWS vertebrae. Reads only the slices near
    the measured planes. Raises SpineImgError for another ending or a place that cannot be written.
    """
    file_format(path)
    draw(volume, result).save(path)


def draw(volume: CTVolume, result: CaseResult) -> Sheet:
    """The figure as a sheet, not written yet."""
    chosen = shown(result)
    notes = [_note_lines(one) for one in chosen]
    heights = [_row_height(one, len(lines)) for one, lines in zip(chosen, notes, strict=True)]
    rest = len(result.vertebrae) - len(chosen)
    sheet = Sheet(_WIDTH, _HEADER + sum(heights) + (26 if rest else 0))
    _header(sheet, volume, result)
    top = float(_HEADER)
    for vertebra, lines, height in zip(chosen, notes, heights, strict=True):
        _row(sheet, top, volume, result, vertebra)
        for i, line in enumerate(lines):
            place = top + height - _AFTER_ROW - (len(lines) - i) * _NOTE_LINE
            sheet.text(_MARGIN, place, line, 9.5, color=FAINT)
        top += height
    if rest:
        sheet.text(_MARGIN, top, f"{rest} more in the table, not shown here", 9.5, color=FAINT)
    return sheet


def shown(result: CaseResult) -> tuple[VertebraResult, ...]:
    """The vertebrae that get a row: those with a role, or else the first ones."""
    with_role = tuple(one for one in result.vertebrae if one.role is not None)
    return with_role or result.vertebrae[:MAX_ROWS]


def views(geometry: Geometry, vertebra: VertebraResult) -> list[View]:
    """Sagittal and coronal view through the middle of the measured planes, then one view a plane."""
    slices = vertebra.hu.slices
    center = np.mean([one.center_lps_mm for one in slices], axis=0)
    planes = [_plane_view(geometry, one) for one in slices]
    return [sagittal(center, _LONG_MM), coronal(center, _LONG_MM), *planes]


def _plane_view(geometry: Geometry, one: SliceHU) -> View:
    """The plane that was measured: the original slice, or the plane itself, resampled, as where none could be."""
    center = np.asarray(one.center_lps_mm, dtype=np.float64)
    normal = geometry.normal_lps
    if one.resampled or not one.slices:
        own = normal if one.u_lps is None or one.v_lps is None else np.cross(one.u_lps, one.v_lps)
        return facing(own, center, _AXIAL_MM)
    index = min(one.slices, key=lambda k: abs(float(geometry.positions_mm[k] - center @ normal)))
    on_slice = center + (geometry.positions_mm[index] - center @ normal) * normal
    return facing(normal, on_slice, _AXIAL_MM, index)


# -- layout -----------------------------------------------------------------------------------------------------------


def _header(sheet: Sheet, volume: CTVolume, result: CaseResult) -> None:
    acquisition = result.acquisition
    spacing = " × ".join(f"{step:.3g}" for step in result.spacing_mm if np.isfinite(step))
    contrast = {None: "contrast unknown", True: "contrast given", False: "no contrast"}[acquisition.contrast]
    facts = [
        "kVp unknown" if acquisition.kvp is None else f"{acquisition.kvp:g} kVp",
        contrast,
        f"kernel {acquisition.kernel or 'unknown'}",
        f"{result.n_slices} slices, {spacing} mm",
        f"window {WINDOW_HU:g}, level {LEVEL_HU:g} HU",
    ]
    if volume.geometry.shear_deg >= 0.1:
        facts.insert(4, f"gantry tilt {volume.geometry.shear_deg:.1f}°")
    sheet.text(_MARGIN, 14, "Vertebral HU", 15, bold=True)
    for line in wrapped(" · ".join(facts), 10.5, _WIDTH - 230 - _MARGIN, 1):
        sheet.text(230, 18, line, 10.5, color=FAINT)


def _row_height(vertebra: VertebraResult, note_lines: int) -> int:
    panels = _TITLE + _PANEL + _CAPTION if vertebra.hu.slices else 0
    return _BANNER + panels + note_lines * _NOTE_LINE + _AFTER_ROW


def _note_lines(vertebra: VertebraResult) -> list[str]:
    """The notes of a vertebra, each text once; more room for them where they say why there is no number."""
    texts = list(dict.fromkeys(note.text.rstrip(".") for note in all_notes(vertebra)))
    measured = vertebra.hu.mean_hu is not None
    if measured and not texts:
        return []
    words = f"{'Notes' if measured else 'Not measured'}: {'; '.join(texts) or 'no reason was recorded'}"
    return wrapped(words, 9.5, _WIDTH - 2 * _MARGIN, _NOTE_LINES if measured else 2 * _NOTE_LINES)


def _row(sheet: Sheet, top: float, volume: CTVolume, result: CaseResult, vertebra: VertebraResult) -> None:
    """Banner and panels of one vertebra; no panels where nobody said where to measure."""
    _banner(sheet, top, vertebra)
    if not vertebra.hu.slices:
        return
    all_views = views(volume.geometry, vertebra)
    steps = [view.size_mm[1] / _PANEL for view in all_views]
    pictures = sample(volume, all_views, steps, _SLICE_STEP_MM)
    titles = ["Sagittal", "Coronal", *(f"{i}  {one.position}" for i, one in enumerate(vertebra.hu.slices, start=1))]
    left, top = float(_MARGIN), top + _BANNER
    for i, (view, picture) in enumerate(zip(all_views, pictures, strict=True)):
        sheet.text(left, top + 2, titles[i], 11, bold=True)
        width = _PANEL * view.size_mm[0] / view.size_mm[1]
        axes = panel(sheet, (left, top + _TITLE, width, _PANEL), view, picture)
        if i < 2:
            plane_lines(axes, view, all_views[2:], vertebra.hu.slices)
            _levels(axes, view, result, vertebra)
        else:
            outline(axes, view, vertebra.hu.slices[i - 2])
            _caption(sheet, left, top + _TITLE + _PANEL + 4, vertebra.hu.slices[i - 2])
        left += width + _BETWEEN


def _banner(sheet: Sheet, top: float, vertebra: VertebraResult) -> None:
    """Level and role, the mean with its SD, and the flag as a word, a shape and a colour."""
    hu = vertebra.hu
    name = f"{vertebra.level}  {vertebra.role}" if vertebra.role is not None else vertebra.level
    sheet.figure.add_artist(
        Line2D(
            [0.0, 1.0], [1 - top / sheet.height] * 2, color="#d5dbe1", linewidth=1, transform=sheet.figure.transFigure
        )
    )
    sheet.text(_MARGIN, top + 11, name, 16, bold=True)
    if hu.mean_hu is None:
        sheet.text(190, top + 11, "not measured", 16, bold=True)
    else:
        sheet.text(190, top + 11, f"{_minus(f'{hu.mean_hu:.1f}')} HU", 16, bold=True)
        sd = "" if hu.sd_hu is None else f", SD {hu.sd_hu:.1f}"
        sheet.text(345, top + 16, f"mean of {_count(hu.slices)}{sd}", 10.5, color=FAINT)
    if vertebra.flag is not None:
        _flag(sheet, top, vertebra.flag)


def _flag(sheet: Sheet, top: float, flag: Flag) -> None:
    word, colour = _CALLS[flag.call]
    says = word
    if flag.interval_hu is not None:
        low, high = flag.interval_hu
        says += f"  ·  interval {_minus(f'{low:.1f}')} to {_minus(f'{high:.1f}')} HU"
    says += f"  ·  cutoff {flag.cutoff_hu:g} HU ({flag.source})"
    left, right, height = 565.0, float(_WIDTH - _MARGIN), 30.0
    line = wrapped(says, 11.5, right - left - 28, 1, bold=True)[0]
    x, y, wide, high = sheet.box(left, top + 8, right - left, height)
    box = Rectangle((x, y), wide, high, facecolor=colour, edgecolor="none", transform=sheet.figure.transFigure)
    sheet.figure.add_artist(box)
    sheet.text(left + 14, top + 8 + height / 2, line, 11.5, bold=True, color="white", va="center_baseline")


def _caption(sheet: Sheet, left: float, top: float, one: SliceHU) -> None:
    if one.mean_hu is None:
        sheet.text(left, top, "not measured", 11, bold=True)
    else:
        spread = "" if one.sd_hu is None else f"   SD {one.sd_hu:.1f}"
        sheet.text(left, top, f"{_minus(f'{one.mean_hu:.1f}')} HU{spread}", 11, bold=True)
    facts = [] if one.area_mm2 is None else [f"{one.area_mm2:.0f} mm²"]
    facts += [f"{one.n_voxels} {'samples' if one.resampled else 'voxels'}"] if one.mean_hu is not None else []
    facts += [f"{one.kept_fraction:.0%} kept"] if one.kept_fraction is not None and one.kept_fraction < 1 else []
    facts += ["resampled plane"] if one.resampled else []
    sheet.text(left, top + 21, " · ".join(facts), 9.5, color=FAINT)


def _count(slices: Sequence[SliceHU]) -> str:
    return "1 slice" if len(slices) == 1 else f"{len(slices)} slices"


def _minus(number: str) -> str:
    return number.replace("-", "−")


# -- panels -----------------------------------------------------------------------------------------------------------


def panel(
    sheet: Sheet,
    place: tuple[float, float, float, float],
    view: View,
    picture: npt.NDArray[np.float32],
) -> Any:
    """The grey picture with its letters and a scale bar; data coordinates are mm right of and below the centre."""
    axes = sheet.axes(*place)
    width, height = view.size_mm
    grey = matplotlib.colormaps["gray"].with_extremes(bad=_NOTHING)
    low = LEVEL_HU - WINDOW_HU / 2
    extent = (-width / 2, width / 2, height / 2, -height / 2)
    axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=grey,
        vmin=low,
        vmax=low + WINDOW_HU,
        extent=extent,
        interpolation="nearest",
        aspect="equal",
    )
    axes.set(xlim=extent[:2], ylim=extent[2:])
    edge = 0.025
    spots = (
        (edge, 0.5, "left", "center"),
        (1 - edge, 0.5, "right", "center"),
        (0.5, 1 - edge, "center", "top"),
        (0.5, edge, "center", "bottom"),
    )
    for (x, y, ha, va), name in zip(spots, view.letters, strict=True):
        label(axes, x, y, name, 11, ha=ha, va=va, transform=axes.transAxes)
    start, bar = -width / 2 + 4, height / 2 - 4
    length = 20 if width > 40 else 10
    axes.plot([start, start + length], [bar, bar], color="white", linewidth=2.5, path_effects=shadow())
    label(axes, start, bar - height / 50, f"{length} mm", 8, ha="left", va="bottom")
    return axes


def plane_lines(axes: Any, view: View, planes: Sequence[View], slices: Sequence[SliceHU]) -> None:
    """A numbered line where each measured plane cuts the view, thick as far as its ellipse reaches."""
    numbers = []
    for number, (plane, one) in enumerate(zip(planes, slices, strict=True), start=1):
        line = _cut(view, plane)
        if line is None:
            continue
        middle, along = line
        reach = _reach(one, along[0] * view.right_lps + along[1] * view.down_lps)
        for half, width in ((max(_LINE_MM, reach), 1.2), (reach, 3.2)):
            ends = np.stack([middle - half * along, middle + half * along], axis=1)
            axes.plot(*ends, color=_PLANE, linewidth=width, solid_capstyle="butt", path_effects=shadow(width + 1))
        start = middle - max(_LINE_MM, reach) * along
        numbers.append((float(start[1]), float(start[0]), str(number)))
    numbers.sort()
    heights = spread([y for y, _, _ in numbers], gap=5.0)
    for (_, x, words), y in zip(numbers, heights, strict=True):
        if abs(y) < view.size_mm[1] / 2 - 8:
            label(axes, max(x - 1.5, 11 - view.size_mm[0] / 2), y, words, 10, ha="right", va="center", color=_PLANE)


def _cut(view: View, plane: View) -> tuple[FloatArray, FloatArray] | None:
    """Where a plane cuts a view, in the view's mm: the point nearest to the plane's centre, and a unit direction."""
    normal = np.cross(plane.right_lps, plane.down_lps)
    across = view.on_view_direction(normal)
    length = float(np.linalg.norm(across))
    if length < 1e-6:
        return None  # the plane runs along the view
    along = np.array([across[1], -across[0]]) / length
    along = along if tuple(along) > (0, 0) else -along
    depth = (plane.center_lps_mm - view.center_lps_mm) @ normal
    foot = across * (depth / length**2)
    return foot + ((view.on_view(plane.center_lps_mm) - foot) @ along) * along, along


def _reach(one: SliceHU, direction_lps: FloatArray) -> float:
    """How far from its centre an ellipse reaches along a direction, mm; 0 without an ellipse."""
    if one.u_lps is None or one.v_lps is None or one.semi_axes_mm is None:
        return 0.0
    a, b = one.semi_axes_mm
    return float(np.hypot(a * (direction_lps @ one.u_lps), b * (direction_lps @ one.v_lps)))


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising places moved as little as needed to lie at least `gap` apart, around the same middle."""
    moved = list(places)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    shift = (sum(moved) - sum(places)) / len(moved) if moved else 0.0
    return [place - shift for place in moved]


def _levels(axes: Any, view: View, result: CaseResult, vertebra: VertebraResult) -> None:
    """The names of this vertebra and of its neighbours that were measured too."""
    found = []
    for one in result.vertebrae:
        if one.hu.slices:
            x, y = view.on_view(np.mean([s.center_lps_mm for s in one.hu.slices], axis=0))
            if abs(y) < view.size_mm[1] / 2 - 8 and abs(x) < view.size_mm[0] / 2:
                found.append((float(y), one.level))
    found.sort()
    for (_, level), height in zip(found, spread([y for y, _ in found], gap=6.0), strict=True):
        mine = level == vertebra.level
        label(axes, view.size_mm[0] / 2 - 9, height, level, 10.5 if mine else 9.5, ha="right", va="center", bold=mine)


def outline(axes: Any, view: View, one: SliceHU) -> None:
    """The ellipse that was measured; of a mask, whose outline is not recorded, a cross at its centre."""
    x, y = view.on_view(one.center_lps_mm)
    axes.plot([x], [y], marker="+", color=_ELLIPSE, markersize=9, markeredgewidth=1.4, path_effects=shadow(2.5))
    if one.u_lps is None or one.v_lps is None or one.semi_axes_mm is None:
        return
    edge = ellipse_points(one)
    axes.plot(*view.on_view(edge).T, color=_ELLIPSE, linewidth=1.8, path_effects=shadow(3.0))


def ellipse_points(one: SliceHU, count: int = 90) -> FloatArray:
    """(count + 1, 3) LPS mm of points on the closed outline of an ellipse."""
    if one.u_lps is None or one.v_lps is None or one.semi_axes_mm is None:
        raise ValueError(f"the {one.position} slice has no ellipse")
    angle = np.linspace(0, 2 * np.pi, count + 1)[:, None]
    a, b = one.semi_axes_mm
    around = a * np.cos(angle) * unit(one.u_lps) + b * np.sin(angle) * unit(one.v_lps)
    return np.asarray(np.asarray(one.center_lps_mm) + around)


def label(axes: Any, x: float, y: float, words: str, size: float, *, bold: bool = True, **style: Any) -> None:
    style = {"color": "white", "path_effects": shadow(2.5)} | style
    axes.text(x, y, drawable(words, bold=bold), **letters(size, bold=bold), **style)


def shadow(width: float = 4.0) -> list[Any]:
    return [withStroke(linewidth=width * DPI / 100, foreground=INK)]
