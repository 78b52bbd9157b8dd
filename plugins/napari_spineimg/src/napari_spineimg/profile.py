"""HU along the spine: one point a vertebra with the spread of its slices, and the cutoff where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from napari.settings import get_settings
from qtpy.QtCore import Signal
from qtpy.QtGui import QPalette
from spineimg.anatomy import order
from spineimg.results import CaseResult, VertebraResult

_LINE, _CURRENT, _CUTOFF = "#19a7c3", "#e0a800", "#d5433a"
_REACH = 0.6
"""A click so near to a vertebra's place, in vertebrae, is meant for it."""


class Profile(FigureCanvasQTAgg):
    """A plot; a click in it tells the level."""

    picked = Signal(str)

    def __init__(self) -> None:
        super().__init__(Figure(figsize=(3.2, 2.4), dpi=96))
        self.setMinimumHeight(180)
        self._axes = self.figure.add_axes((0.16, 0.22, 0.8, 0.72))
        self.levels: list[str] = []
        self._waiting: tuple[CaseResult | None, str | None] | None = None
        self.mpl_connect("button_press_event", self._pressed)
        self.setToolTip("HU along the spine; click at a vertebra to go there")

    def show_result(self, result: CaseResult | None, current: str | None) -> None:
        """Draws the measured vertebrae, the level in hand marked; when it is not in sight, once it is."""
        self._waiting = None if self.isVisible() else (result, current)
        vertebrae = [] if result is None else [one for one in result.vertebrae if one.hu.mean_hu is not None]
        vertebrae.sort(key=lambda one: order(one.level))
        self.levels = [one.level for one in vertebrae]
        if self._waiting is not None:
            return
        self._axes.clear()
        self._axes.set_xticks([])
        if vertebrae:
            self._draw(vertebrae, current)
        self._dress()
        self.draw_idle()

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        super().showEvent(event)
        if self._waiting is not None:
            self.show_result(*self._waiting)

    def _draw(self, vertebrae: Sequence[VertebraResult], current: str | None) -> None:
        axes = self._axes
        means = [one.hu.mean_hu or 0.0 for one in vertebrae]
        for n, one in enumerate(vertebrae):
            values = [part.mean_hu for part in one.hu.slices if part.mean_hu is not None]
            axes.plot([n, n], [min(values), max(values)], color=_LINE, linewidth=4, alpha=0.5)
            if one.flag is not None:
                cutoff = one.flag.cutoff_hu
                axes.plot([n - 0.45, n + 0.45], [cutoff, cutoff], color=_CUTOFF, linewidth=2, linestyle="--")
        axes.plot(range(len(means)), means, color=_LINE, marker="o", linewidth=1.2, markersize=5)
        if current in self.levels:
            n = self.levels.index(current)
            axes.plot([n], [means[n]], marker="o", markersize=9, color=_CURRENT, linestyle="")
        names = [f"{one.level}\n{one.role}" if one.role else one.level for one in vertebrae]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.7, max(1.0, len(names) - 0.3))

    def _dress(self) -> None:
        """Black on a light theme, white on a dark one; letters grow with those of the window."""
        size = max(8.0, 0.8 * get_settings().appearance.font_size)
        self._axes.set_position((0.02 * size, 0.0275 * size, 0.97 - 0.02 * size, 0.94 - 0.0275 * size))
        parent = self.parentWidget()
        background = (parent or self).palette().color(QPalette.ColorRole.Window)
        ink = "#e8eef4" if background.lightness() < 128 else "#16202b"
        self.figure.set_facecolor(background.name())
        self._axes.set_facecolor(background.name())
        self._axes.set_ylabel("HU", color=ink, fontsize=size)
        self._axes.tick_params(colors=ink, labelsize=size)
        for side in self._axes.spines.values():
            side.set_color(ink)

    def _pressed(self, event: Any) -> None:
        if event.xdata is None or not self.levels:
            return
        away = np.abs(np.arange(len(self.levels)) - event.xdata)
        if away.min() < _REACH:
            self.picked.emit(self.levels[int(away.argmin())])
