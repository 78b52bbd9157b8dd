"""Ellipses as napari's shapes and back.

A napari ellipse is the parallelogram of four corners around it, and is drawn only on a slice that holds all four.
So each ellipse is drawn flat, as it projects along the line of sight, on whichever of its slices is shown. Dragging,
resizing or turning changes the two displayed axes; the third follows from the plane of the ellipse, so that a tilted
ellipse stays in its plane and what is measured is what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from spineimg.errors import RoiError
from spineimg.geometry import FloatArray
from spineimg.rois import Ellipse
from spineimg.vertebra.body import Body

from napari_spineimg.display import Display, lps_from_world, world_from_lps

_FACING = 0.35
"""A plane seen at more than 70 degrees is drawn as a line: to be moved, not reshaped. Cosine."""
_SAME_MM = 1e-3


class ShapeFrame:
    """From LPS mm to the data coordinates of the shapes' layer, which count displayed slices and square pixels."""

    def __init__(self, display: Display) -> None:
        pixel = float(np.abs(display.scale[1:]).min())
        self.scale = np.array([display.slice_mm, pixel, pixel])
        self.translate = np.array(display.translate, dtype=np.float64)

    def data(self, points_lps_mm: FloatArray) -> FloatArray:
        return (world_from_lps(points_lps_mm) - self.translate) / self.scale

    def lps(self, data: FloatArray) -> FloatArray:
        return lps_from_world(np.asarray(data, dtype=np.float64) * self.scale + self.translate)


def corners(frame: ShapeFrame, ellipse: Ellipse) -> FloatArray:
    """(4, 3) corners of the rectangle around an ellipse, in the layer's data coordinates."""
    a, b = ellipse.semi_axes_mm
    u, v = ellipse.u_lps * a, ellipse.v_lps * b
    return frame.data(np.stack([-u - v, u - v, u + v, -u + v]) + ellipse.center_lps_mm)


_ROD_SLICES = 2.0
"""On an axial slice a long shape is drawn as the piece of it that lies within so many slices. Engineering choice."""

_ON_SLICE = 0.5
"""So near to a slice, in slices, lies on it."""


class Flat:
    """Shapes as napari is to draw them: flat, as they project along the line of sight, all of a shape on one slice.

    That is the slice that is shown when the shape reaches it, else its own middle. Of the shapes of one group only that
    one which is nearest to the slice that is shown is drawn there: steep planes of one body reach the same slice, and
    all of them at once would be a tangle. Where nothing changes the same array is given again.

    shapes: (n, 3) each, in a layer's data coordinates. long: shapes that run through slices, such as rods; on an axial
    slice they are drawn as the piece of them around it. `reached`: whether any shape was on the slice asked for last.
    """

    def __init__(self, shapes: Sequence[FloatArray], groups: Sequence[str], long: Sequence[bool] | None = None) -> None:
        self._shapes, self._groups = shapes, groups
        self._long = long if long is not None else [False] * len(shapes)
        self._low = np.array([shape.min(axis=0) for shape in shapes]).reshape(-1, 3)
        self._high = np.array([shape.max(axis=0) for shape in shapes]).reshape(-1, 3)
        self._last: list[tuple[tuple[int, float], FloatArray] | None] = [None] * len(shapes)
        self.reached = False

    def on(self, across: int | None, at: float) -> list[FloatArray]:
        """float32 arrays while axis `across` is scrolled to `at`. across: None for the 3D view."""
        if across is None:
            self.reached = bool(self._shapes)
            return [shape.astype(np.float32) for shape in self._shapes]
        places = self._places(across, at)
        self.reached = bool((np.abs(places - at) <= _ON_SLICE).any())
        return [self._flat(number, across, float(place)) for number, place in enumerate(places)]

    def _places(self, across: int, at: float) -> FloatArray:
        """(shapes,) where along `across` each shape is drawn."""
        low, high = self._low[:, across], self._high[:, across]
        places = (low + high) / 2
        if across == 0:
            places = np.where(self._long, np.clip(at, low, high), places)
        nearest: dict[str, int] = {}
        for number in np.argsort(np.abs((low + high) / 2 - at), kind="stable"):
            nearest.setdefault(self._groups[number], int(number))
        for number in nearest.values():
            if low[number] - _ON_SLICE <= at <= high[number] + _ON_SLICE:
                places[number] = at
        return np.asarray(places)

    def _flat(self, number: int, across: int, place: float) -> FloatArray:
        last = self._last[number]
        if last is not None and last[0] == (across, place):
            return last[1]
        shape = self._shapes[number]
        flat = (_piece(shape, place) if self._long[number] and across == 0 else shape).astype(np.float32)
        flat[:, across] = place
        self._last[number] = ((across, place), flat)
        return flat


def _piece(line: FloatArray, at: float) -> FloatArray:
    """(2, 3) the part of a line, (n, 3) in slices and pixels, around slice `at`."""
    along = line[np.argsort(line[:, 0])]
    ends = np.clip([at - _ROD_SLICES, at + _ROD_SLICES], along[0, 0], along[-1, 0])
    return np.stack([np.interp(ends, along[:, 0], along[:, axis]) for axis in range(3)], axis=1)


def outline(ellipse: Ellipse, count: int = 60) -> FloatArray:
    """(count, 3) LPS mm along an ellipse."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    a, b = ellipse.semi_axes_mm
    return ellipse.center_lps_mm + np.cos(angle) * a * ellipse.u_lps + np.sin(angle) * b * ellipse.v_lps


def edited(
    frame: ShapeFrame, ellipse: Ellipse, drawn: FloatArray, new: FloatArray, displayed: tuple[int, ...]
) -> Ellipse:
    """The ellipse whose shape was `drawn` and became `new`, (4, 3), while the axes `displayed` were on the screen.

    Raises RoiError for a shape that is no ellipse any more, or one that was reshaped while seen from the side.
    """
    if new.shape != (4, 3):
        raise RoiError("the ROI is no ellipse any more: undo, or place it again")
    across = next(axis for axis in range(3) if axis not in displayed)
    seen = list(displayed)
    steps = (np.asarray(new, dtype=np.float64) - drawn)[:, seen] * frame.scale[seen]
    moved = bool(np.ptp(steps, axis=0).max() < _SAME_MM)
    facing = abs(float(world_from_lps(ellipse.normal_lps)[across]))
    shift = np.zeros(3)
    shift[seen] = steps.mean(axis=0)
    center = ellipse.center_lps_mm + lps_from_world(shift)
    if facing < _FACING:
        if not moved:
            raise RoiError("a plane that is seen from the side can be moved, not reshaped: turn to the axial view")
        return replace(ellipse, center_lps_mm=center)
    if moved:
        return replace(ellipse, center_lps_mm=_on_plane(ellipse, center[None], across)[0])
    return _ellipse(ellipse, _on_plane(ellipse, frame.lps(new), across))


def _on_plane(ellipse: Ellipse, points: FloatArray, across: int) -> FloatArray:
    """(n, 3) LPS mm, moved along the line of sight onto the plane of an ellipse."""
    sight = lps_from_world(np.eye(3)[across])
    away = (points - ellipse.center_lps_mm) @ ellipse.normal_lps
    return np.asarray(points - (away / (sight @ ellipse.normal_lps))[:, None] * sight)


def _ellipse(old: Ellipse, points: FloatArray) -> Ellipse:
    """The ellipse in a parallelogram of four points on its plane. u stays the axis nearest to the old u."""
    center = points.mean(axis=0)
    p, q = (points[1] - points[0]) / 2, (points[3] - points[0]) / 2
    basis = np.stack([old.u_lps, old.v_lps])
    # Conjugate half-diameters p and q: the ellipse is the circle's image under [p q], its axes are the singular ones.
    turn, size, _ = np.linalg.svd(np.stack([basis @ p, basis @ q], axis=1))
    axes = turn.T @ basis
    if abs(float(axes[0] @ old.u_lps)) < abs(float(axes[1] @ old.u_lps)):
        axes, size = axes[::-1], size[::-1]
    axes = axes * np.where(np.array([axes[0] @ old.u_lps, axes[1] @ old.v_lps]) < 0, -1.0, 1.0)[:, None]
    return replace(
        old, center_lps_mm=center, u_lps=axes[0], v_lps=axes[1], semi_axes_mm=(float(size[0]), float(size[1]))
    )


def shifted(ellipse: Ellipse, away_mm: float) -> Ellipse:
    """The ellipse moved along its normal, towards the head for positive distances."""
    normal = ellipse.normal_lps * (1.0 if ellipse.normal_lps[2] > 0 else -1.0)
    return replace(ellipse, center_lps_mm=ellipse.center_lps_mm + away_mm * normal)


def ring(body: Body, ellipse: Ellipse) -> FloatArray:
    """(n, 3) LPS mm: a body's outline, moved along its axis into the plane of an ellipse."""
    flat = np.concatenate([body.outline_mm, np.zeros((len(body.outline_mm), 1))], axis=1)
    points = flat @ body.axes + body.center_lps_mm
    away = (points - ellipse.center_lps_mm) @ ellipse.normal_lps
    return np.asarray(points - (away / (body.cranial_lps @ ellipse.normal_lps))[:, None] * body.cranial_lps)
