"""Everything around the spine, drawn cheaply: skin, fat, muscle, organs, lungs, ribs, table.

These tissues are defined already blurred (every edge a Gaussian step of the scanner's width), so they need no
supersampling; the spine is painted in front of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.phantom.parts import Canvas, Part
from spineimg.phantom.samples import Field, Samples
from spineimg.phantom.spine import Vertebra
from spineimg.phantom.tissue import texture, texture_grid

_SKIN = 30.0
_AIR, _FAT, _MUSCLE, _ORGAN, _LUNG = -1000.0, -100.0, 55.0, 45.0, -850.0
_FOAM, _TABLE_SKIN = -920.0, -350.0


@dataclass(frozen=True, eq=False)
class Torso:
    """A trunk about the line of the vertebral bodies.

    knots_lps_mm: (n, 3) middles of the bodies, ascending in z. lung_floor_mm: z where the lungs end (inf: no lungs).
    table_posterior: the table lies behind the patient (supine), else in front.
    """

    knots_lps_mm: FloatArray
    lung_floor_mm: float
    psoas_mm: tuple[float, float]
    """z where the psoas begins (below) and where it is full."""
    table_posterior: bool
    seed: int
    kidney_hu: float
    ribs: Sequence[Part]

    def hu(self, samples: Samples, soft_mm: float) -> Field:
        """HU without ribs."""
        from scipy.special import ndtr

        x, y, z = (samples.along(axis, np.zeros(3)) for axis in np.eye(3))
        across = x - np.interp(z, self.knots_lps_mm[:, 2], self.knots_lps_mm[:, 0]).astype(np.float32)
        along = y - np.interp(z, self.knots_lps_mm[:, 2], self.knots_lps_mm[:, 1]).astype(np.float32)
        middle = self.knots_lps_mm.mean(axis=0).astype(np.float32)
        trunk_x, trunk_y = (across + x - middle[0]) / 2, (along + y - middle[1]) / 2
        grid = texture_grid(6.0, self.seed)
        speckle = texture(grid, across, along, z)
        lumps = texture(grid, *(np.float32(0.4) * c for c in (across, along, z)))
        sketch = _Sketch(np.full(samples.shape, np.float32(_AIR)), soft_mm)
        self._table(y - middle[1], x - middle[0], sketch)
        skin = _ellipse(trunk_x, trunk_y + 38, 165, 116)
        sketch.paint(skin, _SKIN)
        sketch.paint(skin - 1.5, _FAT + 6 * speckle)
        sketch.paint(_ellipse(trunk_x, trunk_y + 40, 140, 96), _MUSCLE + 8 * speckle)
        organs = ndtr((lumps - np.float32(0.1)) / np.float32(0.12))
        sketch.paint(_ellipse(across, along + 62, 122, 66), _FAT + 5 + (_ORGAN - _FAT + 3 * speckle) * organs)
        for side in (-1.0, 1.0):
            sketch.paint(_ellipse(across - side * 33, along - 48, 28, 21), _MUSCLE + 10 * speckle)
            self._lung(across - side * 62, along + 38, z, speckle, sketch)
            self._psoas(across - side * 42, along + 2, z, speckle, sketch)
            self._kidney(across - side * 66, along + 8, z, speckle, sketch)
        return sketch.hu

    def _table(self, y: Field, x: Field, sketch: _Sketch) -> None:
        middle = -38 + 116 + 10 if self.table_posterior else -38 - 116 - 10
        slab = np.minimum(7 - np.abs(y - middle - 0.0006 * np.square(x)), 205 - np.abs(x))
        sketch.paint(slab, _TABLE_SKIN)
        sketch.paint(slab - 1.2, _FOAM)

    def _lung(self, x: Field, y: Field, z: Field, speckle: Field, sketch: _Sketch) -> None:
        if not np.isfinite(self.lung_floor_mm):
            return
        dome = 35 * np.maximum(0, 1 - np.square(x / 45) - np.square(y / 70))
        size = np.sqrt(np.clip((z - self.lung_floor_mm - dome) / 60, 0, 1))
        sketch.paint(_ellipse(x, y, 50 * size, 78 * size), _LUNG + 30 * speckle)

    def _psoas(self, x: Field, y: Field, z: Field, speckle: Field, sketch: _Sketch) -> None:
        begin, full = self.psoas_mm
        size = np.clip((begin - z) / max(begin - full, 1.0), 0, 1)
        sketch.paint(_ellipse(x, y, 18 * size, 22 * size), _MUSCLE + 6 * speckle)

    def _kidney(self, x: Field, y: Field, z: Field, speckle: Field, sketch: _Sketch) -> None:
        size = np.sqrt(np.clip(1 - np.square((z - (self.psoas_mm[0] - 10)) / 50), 0, 1))
        sketch.paint(_ellipse(x, y, 24 * size, 28 * size), self.kidney_hu + 5 * speckle)

    def with_ribs(self, hu: Field, samples: Samples, soft_mm: float) -> Field:
        """The ribs painted in front."""
        if not self.ribs:
            return hu
        canvas = Canvas.blank(samples.shape)
        for rib in self.ribs:
            rib.paint(canvas, samples, soft_mm)
        return canvas.over(hu)


@dataclass(eq=False, slots=True)
class _Sketch:
    """A picture that tissues are painted on, back to front."""

    hu: Field
    soft_mm: float

    def paint(self, inside_mm: Field, tissue: float | Field) -> None:
        from scipy.special import ndtr

        cover = ndtr(inside_mm / np.float32(self.soft_mm))
        self.hu = np.asarray(self.hu + cover * (tissue - self.hu), dtype=np.float32)


def _ellipse(x: Field, y: Field, wide: float | Field, deep: float | Field) -> Field:
    """Distance inside an ellipse, mm, positive inside; good near the edge. Half-axes below 0.1 mm are no ellipse."""
    a, b = (np.maximum(half, np.float32(0.1)).astype(np.float32) for half in (wide, deep))
    reach = np.hypot(x / a, y / b) + np.float32(1e-6)
    slope = np.hypot(x / np.square(a), y / np.square(b)) + np.float32(1e-6)
    inside = (1 - reach) * reach / slope
    return np.asarray(np.where(np.minimum(a, b) > 0.1, inside, -50), dtype=np.float32)


def build_torso(layout: Sequence[Vertebra], ribs: Sequence[Part], supine: bool, seed: int, enhanced: bool) -> Torso:
    """A trunk that fits the layout."""
    knots = np.array([v.frame.center_lps_mm for v in layout if v.level not in ("S2", "S3")])[::-1]
    z = {v.level: float(v.frame.center_lps_mm[2]) for v in layout}
    lumbar = [z[level] for level in z if level[0] == "L"]
    thoracic = [z[level] for level in z if level[0] == "T"]
    begin = max(lumbar) + 5 if lumbar else min(thoracic) - 60
    full = min(lumbar) if lumbar else begin - 100
    floor = begin + 8 if thoracic else float("inf")
    return Torso(knots, floor, (begin, full), supine, seed, 150.0 if enhanced else 32.0, ribs)
