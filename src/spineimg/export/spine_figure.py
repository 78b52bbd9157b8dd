"""The picture of a whole spine: a sagittal sheet along its sideways course, with levels, planes and HU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.errors import PixelError, SpineImgError
from spineimg.export.drawing import FAINT, INK, Sheet, file_format, letters, wrapped
from spineimg.geometry import FloatArray
from spineimg.results import CaseResult
from spineimg.volume import CTVolume

_WINDOW_HU = (-250.0, 750.0)
_STEP_MM = 0.8
_BEYOND_MM = 45.0
"""So much of the image is shown above and below the levels. Engineering choice: the next vertebra."""
_BEFORE_MM, _BEHIND_MM = 60.0, 75.0
_PIXELS_PER_MM = 2.2
_MARGIN, _HEADER, _LINE = 22, 52, 17
_CHART = 330
_PLANE, _NAME, _UNSURE = "#ffd23f", "#19d3f3", "#ffa64d"


@dataclass(frozen=True, eq=False, slots=True)
class Mark:
    """A level on the picture. center_lps_mm: (3,). planes: (point, normal) of endplates or measured planes, LPS."""

    level: str
    center_lps_mm: FloatArray
    mean_hu: float | None
    confirmed: bool | None
    planes: Sequence[tuple[FloatArray, FloatArray]] = ()
    depth_mm: float = 30.0


def marks_of(result: CaseResult) -> list[Mark]:
    """The levels of a result that have a place; the planes are those that were measured."""
    marks = []
    for one in result.vertebrae:
        centers = [np.array(plane.center_lps_mm) for plane in one.hu.slices]
        if not centers:
            continue
        planes = [
            (center, np.cross(np.array(plane.u_lps), np.array(plane.v_lps)))
            for center, plane in zip(centers, one.hu.slices, strict=True)
            if plane.u_lps is not None and plane.v_lps is not None
        ]
        marks.append(Mark(one.level, np.mean(centers, axis=0), one.hu.mean_hu, one.confirmed, planes))
    return marks


def write_spine_figure(
    volume: CTVolume, marks: Sequence[Mark], notes: Sequence[str], path: str | os.PathLike[str]
) -> None:
    """Draws the levels on the volume and writes .png, .pdf or .svg, whole or not at all.

    Raises SpineImgError for another ending, for a place that cannot be written, and when there is no level to draw.
    """
    file_format(path)
    draw_spine(volume, marks, notes).save(path)


def draw_spine(volume: CTVolume, marks: Sequence[Mark], notes: Sequence[str]) -> Sheet:
    """The figure as a sheet, not written yet."""
    if not marks:
        raise SpineImgError("there is no level to draw: give a seed, or leave the figure out")
    course = np.array(sorted((mark.center_lps_mm for mark in marks), key=lambda center: float(center[2])))
    low, high = float(course[0, 2]) - _BEYOND_MM, float(course[-1, 2]) + _BEYOND_MM
    seen = volume.geometry.lps_at(np.array(list(np.ndindex(2, 2, 2))) * _far(volume))[:, 2]
    low, high = max(low, float(seen.min())), min(high, float(seen.max()))
    front, back = float(course[:, 1].min()) - _BEFORE_MM, float(course[:, 1].max()) + _BEHIND_MM
    width, height = (back - front) * _PIXELS_PER_MM, (high - low) * _PIXELS_PER_MM
    lines = [line for note in notes for line in wrapped(note, 9.5, width + _CHART, 2)]
    sheet = Sheet(round(width + _CHART + 3 * _MARGIN), round(_HEADER + height + 70 + len(lines) * _LINE + _MARGIN))
    sheet.text(_MARGIN, 14, "Levels of the spine", 15, bold=True)
    axes = sheet.axes(_MARGIN, _HEADER, width, height)
    picture = _sheet_hu(volume, course, (front, back), (low, high))
    axes.imshow(
        np.ma.masked_invalid(picture),
        cmap="gray",
        vmin=_WINDOW_HU[0],
        vmax=_WINDOW_HU[1],
        aspect="equal",
        extent=(front, back, low, high),
        interpolation="bilinear",
    )
    axes.set(xlim=(front, back), ylim=(low, high), facecolor="#33424f")
    for mark in marks:
        _draw_mark(axes, mark)
    _chart(sheet, (width + 2 * _MARGIN, _HEADER, _CHART - _MARGIN, height), marks, (low, high))
    for i, line in enumerate(lines):
        sheet.text(_MARGIN, _HEADER + height + 60 + i * _LINE, line, 9.5, color=FAINT)
    return sheet


def _far(volume: CTVolume) -> npt.NDArray[np.int_]:
    """The last index along each axis."""
    return np.array(volume.geometry.shape) - 1


def _sheet_hu(
    volume: CTVolume, course: FloatArray, across: tuple[float, float], along: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """(rows, columns) HU from feet upwards turned head up; nan outside. Only slices that are crossed are read."""
    from scipy.ndimage import map_coordinates

    y, z = np.arange(*across, _STEP_MM), np.arange(along[1], along[0], -_STEP_MM)
    x = np.interp(z, course[:, 2], course[:, 0])
    points = np.stack(np.broadcast_arrays(x[:, None], y[None], z[:, None]), axis=-1)
    index = volume.geometry.index_at(points)
    top = _far(volume)
    inside = ((index >= -0.5) & (index <= top + 0.5)).all(axis=-1)
    found = np.full(inside.shape, np.nan)
    if not inside.any():
        return found
    index = np.clip(index, 0, top)
    low = np.floor(index[inside].min(axis=0)).astype(int)
    high = np.ceil(index[inside].max(axis=0)).astype(int)
    box = np.full(tuple(high - low + 1), np.nan, dtype=np.float32)
    for k in range(low[0], high[0] + 1):
        try:
            hu = volume.read(k)
        except PixelError:  # a slice that cannot be read leaves a blank band, not a figure that fails
            continue
        seen = np.where(volume.valid(k, hu), hu, np.float32(np.nan))
        box[k - low[0]] = seen[low[1] : high[1] + 1, low[2] : high[2] + 1]
    found[inside] = map_coordinates(box, (index[inside] - low).T, order=1, mode="nearest", prefilter=False)
    return found


def _draw_mark(axes: Any, mark: Mark) -> None:
    """Level, a dot at its centre, and its planes where they cut the sheet."""
    center = mark.center_lps_mm
    colour = _UNSURE if mark.confirmed is False else _NAME
    axes.plot([center[1]], [center[2]], "o", color=colour, markersize=3.5)
    name = f"{mark.level}?" if mark.confirmed is False else mark.level
    axes.text(
        center[1] - 0.5 * mark.depth_mm - 9,
        center[2],
        name,
        color=colour,
        ha="right",
        va="center",
        **letters(11, bold=True),
    )
    for point, normal in mark.planes:
        if abs(normal[2]) < 0.2:
            continue
        y = center[1] + np.array([-0.55, 0.55]) * mark.depth_mm
        z = point[2] - ((y - point[1]) * normal[1] + (center[0] - point[0]) * normal[0]) / normal[2]
        axes.plot(y, z, color=_PLANE, linewidth=1.4)


def _chart(
    sheet: Sheet, place: tuple[float, float, float, float], marks: Sequence[Mark], along: tuple[float, float]
) -> None:
    """HU of every level at its height beside the picture."""
    axes = sheet.figure.add_axes(sheet.box(*place))
    measured = sorted((m for m in marks if m.mean_hu is not None), key=lambda m: float(m.center_lps_mm[2]))
    z = [float(mark.center_lps_mm[2]) for mark in measured]
    hu = [mark.mean_hu or 0.0 for mark in measured]
    axes.plot(hu, z, "-o", color=INK, markersize=4, linewidth=1.2)
    for mark in measured:
        axes.annotate(
            f"{mark.level}  {mark.mean_hu:.0f}".replace("-", "−"),
            (mark.mean_hu or 0.0, mark.center_lps_mm[2]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            **letters(9.5),
        )
    for mark in marks:
        if mark.mean_hu is None:
            axes.text(
                0.02,
                float(mark.center_lps_mm[2]),
                f"{mark.level}: not measured",
                va="center",
                color=FAINT,
                transform=axes.get_yaxis_transform(),
                **letters(9),
            )
    axes.set_ylim(*along)
    low, high = (min(hu), max(hu)) if hu else (0.0, 200.0)
    axes.set_xlim(min(0.0, low - 20), high + 0.35 * (high - min(0.0, low)) + 20)
    axes.set_yticks([])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=FAINT, labelsize=8)
    axes.set_xlabel("mean HU of the vertebra", color=INK, **letters(9.5))
