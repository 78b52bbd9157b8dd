"""One screw from all sides: along its axis, across it, and its unrolled surface with the 1 mm line."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QSlider, QWidget
from spineimg.export.panels import View, sample
from spineimg.geometry import FloatArray, unit
from spineimg.implants.model import HaloMap, Screw, Shaft

from napari_spineimg.implant_layer import colour_of
from napari_spineimg.plane_view import Line, PlaneView
from napari_spineimg.study import Study

_ALONG_MM = (72.0, 40.0)
_ACROSS_MM = (30.0, 30.0)
_STEP_MM = 0.35
_WIDEST_MM = 3.0
_UNKNOWN = "#c4cad1"
_Z90 = 1.645
"""Standard errors to either side of a 90 % interval."""


class HaloPlot(FigureCanvasQTAgg):
    """Width of the lucent zone over depth and angle; what is wider than 1 mm is outlined, what is unclear is dotted."""

    def __init__(self) -> None:
        super().__init__(Figure(figsize=(3.4, 2.1), dpi=96))
        self.setMinimumHeight(170)
        self.setToolTip(
            "The screw's surface unrolled: depth by angle. Blue line: around what is wider than 1 mm. "
            "Dot: 1 mm lies within the 90 % interval of this place. Grey: not judged."
        )

    def show_map(self, halo: HaloMap | None, reason: str) -> None:
        self.figure.clear()
        self.figure.set_facecolor("white")
        if halo is None or not np.isfinite(halo.width_mm).any():
            words = f"No halo map: {reason}" if reason else "No halo map"
            self.figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=9, wrap=True, color="#16202b")
        else:
            self._draw(halo)
        self.draw_idle()

    def _draw(self, halo: HaloMap) -> None:
        axes = self.figure.add_axes((0.2, 0.24, 0.6, 0.68))
        axes.set_facecolor(_UNKNOWN)
        known = np.ma.masked_invalid(halo.width_mm)
        # A scale without grey, so that what could not be judged is not taken for a width.
        depths, angles = _cell_ends(halo.depths_mm), _cell_ends(halo.angles_deg)
        mesh = axes.pcolormesh(depths, angles, known.T, cmap="magma_r", vmin=0.0, vmax=_WIDEST_MM)
        axes.add_collection(LineCollection(one_mm_line(known, depths, angles), colors="#00e5ff", linewidths=1.8))
        unclear = np.abs(known - 1.0) < _Z90 * np.asarray(halo.sd_mm)
        at = np.argwhere(np.ma.filled(unclear, fill_value=False))
        for colour, size in (("white", 3.6), ("#16202b", 2.0)):
            axes.plot(halo.depths_mm[at[:, 0]], halo.angles_deg[at[:, 1]], "o", color=colour, markersize=size)
        axes.set_xlabel("mm from the head", fontsize=8)
        axes.set_yticks([0, 90, 180, 270], ["left", "cranial", "right", "caudal"])
        axes.tick_params(labelsize=8)
        bar = self.figure.colorbar(mesh, cax=self.figure.add_axes((0.83, 0.24, 0.03, 0.68)))
        bar.set_label("mm", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.ax.axhline(1.0, color="#00e5ff", linewidth=1.8)


def _cell_ends(middles: FloatArray) -> FloatArray:
    """(n + 1,) ends of the cells around (n,) middles."""
    if len(middles) < 2:
        return np.array([middles[0] - 0.5, middles[0] + 0.5])
    half = np.diff(middles) / 2
    return np.concatenate([[middles[0] - half[0]], middles[:-1] + half, [middles[-1] + half[-1]]])


def one_mm_line(
    width_mm: np.ma.MaskedArray[Any, Any], depths: FloatArray, angles: FloatArray
) -> list[list[tuple[float, float]]]:
    """Pieces of the line between places wider than 1 mm and places that are not, as (depth, angle) of their ends.

    width_mm: (depths, angles), masked where nothing is known: there is no line to what is not known.
    """
    known, wide = ~np.ma.getmaskarray(width_mm), np.ma.filled(width_mm, 0.0) > 1.0
    lines = []
    for i, j in np.argwhere(known[1:] & known[:-1] & (wide[1:] != wide[:-1])):
        lines.append([(depths[i + 1], angles[j]), (depths[i + 1], angles[j + 1])])
    for i, j in np.argwhere(known[:, 1:] & known[:, :-1] & (wide[:, 1:] != wide[:, :-1])):
        lines.append([(depths[i], angles[j + 1]), (depths[i + 1], angles[j + 1])])
    around = known[:, 0] & known[:, -1] & (wide[:, 0] != wide[:, -1])
    for i in np.flatnonzero(around):
        lines += [[(depths[i], angles[end]), (depths[i + 1], angles[end])] for end in (0, -1)]
    return lines


class ScrewViews(QWidget):
    """Pictures of the chosen screw; the slider goes along it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.along, self.upright, self.across = PlaneView("along"), PlaneView("along, upright"), PlaneView("across")
        self.map = HaloPlot()
        self.depth = QSlider(Qt.Orientation.Horizontal)
        self.depth.setRange(0, 100)
        self.depth.setValue(50)
        self.depth.setToolTip("Where along the screw the cross-section lies")
        self.depth_words = QLabel()
        self._study: Study | None = None
        self._screw: Screw | None = None
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.along, 0, 0)
        layout.addWidget(self.upright, 0, 1)
        layout.addWidget(self.across, 1, 0)
        layout.addWidget(self.map, 1, 1)
        layout.addWidget(self.depth, 2, 0)
        layout.addWidget(self.depth_words, 2, 1)
        self.depth.valueChanged.connect(self._show_across)

    def show_window(self, limits_hu: Any) -> None:
        for plane in (self.along, self.upright, self.across):
            plane.show_window((float(limits_hu[0]), float(limits_hu[1])))

    def show_screw(self, study: Study | None, screw: Screw | None) -> None:
        self._study, self._screw = study, screw
        if study is None or screw is None:
            for plane in (self.along, self.upright, self.across):
                plane.show_picture(None, None)
                plane.show_lines(())
            self.map.show_map(None, "")
            self.depth_words.setText("")
            return
        views = along_views(screw.shaft)
        pictures = sample(study.volume, views, [_STEP_MM] * 2, 0.0)
        for plane, view, picture in zip((self.along, self.upright), views, pictures, strict=True):
            plane.show_picture(view, picture)
            plane.show_lines(_edges(screw, view))
        self.map.show_map(screw.halo.map, screw.halo.reason)
        self._show_across()

    def _show_across(self, _: int = 0) -> None:
        if self._study is None or self._screw is None:
            return
        shaft = self._screw.shaft
        part = self.depth.value() / 100
        view = across_view(shaft, part)
        self.across.show_picture(view, sample(self._study.volume, [view], [_STEP_MM / 2], 0.0)[0])
        angle = np.linspace(0, 2 * np.pi, 60)[:, None]
        ring = view.center_lps_mm + shaft.diameter_mm / 2 * (
            np.cos(angle) * view.right_lps + np.sin(angle) * view.down_lps
        )
        self.across.show_lines([Line(ring, colour_of(self._screw.loosening), closed=True, width=1.0)])
        self.depth_words.setText(f"{part * shaft.length_mm:.0f} mm from the head")


def along_views(shaft: Shaft) -> list[View]:
    """Two planes through the shaft at right angles: the flatter one as an axial picture, the other upright."""
    head, tip = np.asarray(shaft.head_lps_mm), np.asarray(shaft.tip_lps_mm)
    middle, along = (head + tip) / 2, shaft.direction_lps
    right = along if along[np.argmax(np.abs(along[:2]))] > 0 else -along
    down = unit(np.array([0.0, 0.0, -1.0]) - (np.array([0.0, 0.0, -1.0]) @ along) * along)
    flat = np.cross(down, right)
    flat = flat if flat[int(np.argmax(np.abs(flat[:2])))] > 0 else -flat
    return [View(middle, right, flat, _ALONG_MM), View(middle, right, down, _ALONG_MM)]


def across_view(shaft: Shaft, part: float) -> View:
    """The plane across the shaft at a part of its length from the head; up is cranial."""
    along = shaft.direction_lps
    center = np.asarray(shaft.head_lps_mm) + part * shaft.length_mm * along
    down = unit(np.array([0.0, 0.0, -1.0]) - (np.array([0.0, 0.0, -1.0]) @ along) * along)
    right = np.cross(down, along)
    return View(center, right if right[0] > 0 else -right, down, _ACROSS_MM)


def _edges(screw: Screw, view: View) -> list[Line]:
    """The two sides of the shaft's cylinder as it is seen."""
    head, tip = np.asarray(screw.shaft.head_lps_mm), np.asarray(screw.shaft.tip_lps_mm)
    side: FloatArray = view.down_lps * screw.shaft.diameter_mm / 2
    colour = colour_of(screw.loosening)
    return [Line(np.array([head + sign * side, tip + sign * side]), colour, width=1.0) for sign in (-1.0, 1.0)]
