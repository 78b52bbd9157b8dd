"""The report's CT pictures: the spine with its planes, each ROI, each screw along its shaft. PNG without a word inside
the file about patient, time or place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.errors import SpineImgError
from spineimg.export.drawing import Sheet
from spineimg.export.figure import label, outline, panel, plane_lines, shadow, spread, views
from spineimg.export.panels import View, facing, sample
from spineimg.export.report_model import Page, ScanView, ScrewView, SliceView, VertebraView
from spineimg.export.report_svg import LOOSENING_COLOURS
from spineimg.geometry import Geometry
from spineimg.results import VertebraResult
from spineimg.vertebra.hu import SliceHU, VertebraHU
from spineimg.volume import CTVolume

_PIXELS = {"spine": 620, "axial": 250, "screw": 260}
"""Height of a picture in the sheet's pixels; twice as many are written, for print."""
_PRINT_DPI = 200
_STEPS = {"spine": 1.4, "axial": 0.9, "screw": 0.9}
"""Sampling steps a sheet's pixel. Engineering choice: finer than the voxels of a spine CT, not finer than the print."""
_SLICE_STEP_MM = 1.25
_SCREW_MM = (54.0, 71.0)
_PLANE_DEG = 1.0
_SCREW_LINE = {"#b3261e": "#ff8a80", "#8a5a00": "#ffd23f", "#005a9c": "#7cc4ff", "#4d5761": "#dfe6ec"}
"""Colours of verdicts light enough to be seen on a CT."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """PNG files: the overview, the ROIs by level and number of the plane, the screws by id."""

    spine: bytes | None
    axial: dict[tuple[str, int], bytes]
    screws: dict[str, bytes]


def check_source(volume: CTVolume, scan: ScanView) -> None:
    """Raises SpineImgError when a volume is not the one that a result was measured on."""
    if scan.uid is not None and volume.series.series_instance_uid is not None and volume.series.name != scan.uid:
        raise SpineImgError(f"the source is series {volume.series.name}, the result is of {scan.uid}: give its CT")
    count, steps = volume.geometry.shape[0], volume.geometry.spacing_mm
    if scan.n_slices not in (None, count):
        raise SpineImgError(f"the source has {count} slices, the result is of {scan.n_slices}: give its CT")
    for there, told in zip(steps, scan.spacing_mm, strict=False):
        if told is not None and np.isfinite(there) and abs(there - told) > 0.01:
            raise SpineImgError(f"the source has steps of {there:.3g} mm, the result of {told:.3g} mm: give its CT")


def pictures(volume: CTVolume, page: Page, view: View, *, hu: bool, screws: bool) -> Pictures:
    """Pictures of what was measured on this volume. view: of the overview. Each slice is read once."""
    shown = [_record(volume.geometry, v) for v in page.vertebrae if v.slices] if hu else []
    framed = [v for v in shown if v.role is not None] or shown[:2]
    screw_views = [_screw_view(one) for one in page.screws] if screws else []
    planes = {v.level: views(volume.geometry, v)[2:] for v in shown}
    axial = [(v, k, plane) for v in framed for k, plane in enumerate(planes[v.level])]
    every = [view, *(plane for _, _, plane in axial), *screw_views]
    kinds = ["spine", *["axial"] * len(axial), *["screw"] * len(screw_views)]
    steps = [one.size_mm[1] / _PIXELS[kind] / _STEPS[kind] for one, kind in zip(every, kinds, strict=True)]
    found = sample(volume, every, steps, _SLICE_STEP_MM)
    rest = found[1 + len(axial) :]
    return Pictures(
        spine=_spine(view, found[0], shown, planes, page.overview_screws) if hu or not page.vertebrae else None,
        axial={
            (v.level, k): _axial(one, grey, v.hu.slices[k]) for (v, k, one), grey in zip(axial, found[1:], strict=False)
        },
        screws={s.id: _screw(one, grey, s) for s, one, grey in zip(page.screws, screw_views, rest, strict=False)},
    )


def _record(geometry: Geometry, vertebra: VertebraView) -> VertebraResult:
    """A vertebra as the figure's code takes it."""
    slices = tuple(_slice(geometry, one) for one in vertebra.slices)
    role: Any = vertebra.role
    return VertebraResult(vertebra.level, role, vertebra.confirmed, VertebraHU(vertebra.mean_hu, slices=slices), None)


def _slice(geometry: Geometry, one: SliceView) -> SliceHU:
    """A result does not tell whether a plane was resampled: its tilt to the slices does."""
    nearest = int(np.argmin(np.abs(geometry.positions_mm - np.array(one.center) @ geometry.normal_lps)))
    tilted = False
    if one.u is not None and one.v is not None:
        normal = np.cross(one.u, one.v)
        cosine = abs(float(normal @ geometry.normal_lps)) / float(np.linalg.norm(normal))
        tilted = cosine < np.cos(np.radians(_PLANE_DEG))
    return SliceHU(
        position=one.position,
        mean_hu=one.mean_hu,
        sd_hu=one.sd_hu,
        median_hu=None,
        n_voxels=one.n_voxels,
        area_mm2=one.area_mm2,
        kept_fraction=one.kept_fraction,
        center_lps_mm=one.center,
        u_lps=one.u,
        v_lps=one.v,
        semi_axes_mm=one.semi_axes_mm,
        slices=(nearest,),
        resampled=tilted,
        sop_instance_uids=(),
    )


def _screw_view(screw: ScrewView) -> View:
    """The plane that holds a screw's axis and is otherwise as level as can be."""
    head, tip = np.array(screw.head), np.array(screw.tip)
    along = tip - head
    across = np.cross(along, [0.0, 0.0, 1.0])
    if np.linalg.norm(across) < 1e-6:
        across = np.array([1.0, 0.0, 0.0])
    return facing(np.cross(along, across), (head + tip) / 2, _SCREW_MM)


# -- drawing ----------------------------------------------------------------------------------------------------------


def _sheet(view: View, grey: npt.NDArray[np.float32], kind: str) -> tuple[Sheet, Any]:
    height = _PIXELS[kind]
    width = round(height * view.size_mm[0] / view.size_mm[1])
    sheet = Sheet(width, height)
    return sheet, panel(sheet, (0.0, 0.0, width, height), view, grey)


def _png(sheet: Sheet) -> bytes:
    data = BytesIO()
    sheet.figure.savefig(data, format="png", dpi=_PRINT_DPI, facecolor="white", metadata={"Software": "spineimg"})
    return data.getvalue()


def _spine(
    view: View,
    grey: npt.NDArray[np.float32],
    shown: Sequence[VertebraResult],
    planes: dict[str, list[View]],
    screws: Sequence[ScrewView],
) -> bytes:
    sheet, axes = _sheet(view, grey, "spine")
    for screw in screws:
        _shaft(axes, view, screw, 1.6)
    for vertebra in shown:
        plane_lines(axes, view, planes[vertebra.level], vertebra.hu.slices)
    middles = sorted((float(view.on_view(_middle(v))[1]), v.level, v.role) for v in shown)
    places = spread([y for y, _, _ in middles], gap=7.0)
    for (_, level, role), y in zip(middles, places, strict=True):
        words = f"{level} {role}" if role else level
        label(axes, view.size_mm[0] / 2 - 4, y, words, 11.5, ha="right", va="center", bold=role is not None)
    return _png(sheet)


def _middle(vertebra: VertebraResult) -> npt.NDArray[np.float64]:
    return np.asarray(np.mean([one.center_lps_mm for one in vertebra.hu.slices], axis=0))


def _axial(view: View, grey: npt.NDArray[np.float32], one: SliceHU) -> bytes:
    sheet, axes = _sheet(view, grey, "axial")
    outline(axes, view, one)
    return _png(sheet)


def _screw(view: View, grey: npt.NDArray[np.float32], screw: ScrewView) -> bytes:
    sheet, axes = _sheet(view, grey, "screw")
    _shaft(axes, view, screw, 1.4)
    return _png(sheet)


def _shaft(axes: Any, view: View, screw: ScrewView, width: float) -> None:
    """The outline of a shaft as a cylinder of its outer diameter, projected."""
    head, tip = view.on_view(screw.head), view.on_view(screw.tip)
    along = tip - head
    length = float(np.linalg.norm(along))
    if length < 1e-6:
        return
    side = np.array([-along[1], along[0]]) / length * (screw.diameter_mm or 0.0) / 2
    corners = np.array([head + side, tip + side, tip - side, head - side, head + side])
    colour = _SCREW_LINE[LOOSENING_COLOURS[screw.loosening]]
    axes.plot(*corners.T, color=colour, linewidth=width, path_effects=shadow(width + 1.2))
