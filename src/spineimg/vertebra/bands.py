"""Endplates of a column whose discs are bone: where bone grows denser towards the disc, read in a dozen places.

In an ossified disc there is no soft tissue between two shells, and the model of an endplate (`endplate_model.py`) fits
anything. What remains is the edge of the bright band. In each of a dozen columns of voxels through the body the place
where HU rise half-way from the body's own to the band's is one reading; a plane is laid through them. That they agree
is the witness that this is an endplate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.settings import setting
from spineimg.vertebra.body import FittedBody, Scene, assembled
from spineimg.vertebra.chain import Disc, Face
from spineimg.vertebra.column import Column
from spineimg.vertebra.crop import Crop
from spineimg.vertebra.endplate_model import LocalFrame, Start
from spineimg.vertebra.endplates import EndplateFit


@dataclass(frozen=True, slots=True)
class BandSettings:
    """When a dozen readings are an endplate."""

    contrast_hu: float = setting(50.0, "HU", (20, 300), "engineering choice", "least rise from the body to the band")
    used: float = setting(0.7, "1", (0.3, 1), "engineering choice", "least part of the readings that agree")
    residual_mm: float = setting(1.2, "mm", (0.2, 3), "0.1-0.9 on phantoms, bridged or not", "largest scatter of these")
    tilt_sd_deg: tuple[float, float] = setting(
        (2.0, 3.0),
        "degree",
        (1, 10),
        "measured on two public scans: 1.2 and 2-3",
        "SD of an endplate's tilt to left and back against those of the bodies around it",
    )
    certain_deg: float = setting(3.0, "degree", (1, 10), "as TrustSettings", "largest standard error of the tilt")


_REACH = 0.75
"""Readings are taken within this part of the way to the wall: beyond it lie osteophytes."""
_CELL_MM, _GRID_MM, _FEWEST = 5.5, 1.8, 6
_INSIDE_MM, _OUTSIDE_MM, _STEP_MM = 10.0, 6.0, 0.5
_DEEP_MM = 4.0
"""So far inside the disc's face bone is the body's own."""
_NEAR_MM = 4.5
"""The band lies so near to the face of the chain."""
_EDGE_MM = (1.3, 0.3)
"""The endplate's plane lies so far outside of the edge: in mm, and in slices. Measured on phantoms, bridged or not."""
_READING_MM, _READING_HU_MM = 0.5, 40.0
"""SD of one reading: in mm, and texture of bone (13 HU in the mean of a cell) over the slope of an edge 3 mm wide."""


@dataclass(frozen=True, slots=True)
class Band:
    """A plane in a local frame, and how well the readings agree."""

    plane: Start
    residual_mm: float
    used: float
    tilt_sd_deg: float
    bone_hu: float
    contrast_hu: float


def banded(
    scene: Scene, frame: LocalFrame, discs: tuple[Disc, Disc], slice_mm: float, usual: FloatArray
) -> FittedBody | None:
    """The body between the edges of the bands below and above it; None when there are no clear ones.

    usual: (2,) rise per mm to left and back, against the column, of the endplates around.
    """
    faces = (discs[1].lower, discs[0].upper)
    high, low = (_height(scene.column, frame, face) for face in faces)
    settings = BandSettings()
    ends = []
    for face, start, sense in zip(faces, (high, low), (1.0, -1.0), strict=True):
        held = _in_frame(scene.column, frame, face, usual)
        band = read_band(scene.crop, frame, start, sense, high - low, slice_mm, held)
        if (
            band is None
            or band.contrast_hu < settings.contrast_hu
            or band.used < settings.used
            or band.residual_mm > settings.residual_mm
            or band.tilt_sd_deg > settings.certain_deg
        ):
            return None
        ends.append(band)
    # Of a high band the chain sees the middle: not the way from there but the readings' scatter is the doubt.
    scatter = max(one.residual_mm for one in ends)
    return assembled(scene, frame, (_fit(ends[0], 1.0), _fit(ends[1], -1.0)), scatter, discs, high - low)


def read_band(
    crop: Crop,
    frame: LocalFrame,
    start_mm: float,
    sense: float,
    height_mm: float,
    slice_mm: float,
    usual: FloatArray,
) -> Band | None:
    """The endplate near height `start_mm` of a frame; sense 1 for a superior one, -1 for an inferior one.

    usual: (2,) rise to left and back that it is held to.
    """
    left, posterior = _places(frame)
    depth = np.arange(-min(_INSIDE_MM, 0.55 * height_mm), _OUTSIDE_MM + _STEP_MM / 2, _STEP_MM)
    flat = left[:, None, None] * frame.axes[0] + posterior[:, None, None] * frame.axes[1]
    points = frame.origin_lps_mm + flat + (start_mm + sense * depth)[None, :, None] * frame.axes[2]
    hu = np.clip(crop.sample(crop.index(points)), -150, 1200)
    cells, which = np.unique(np.rint(np.stack([left, posterior], axis=1) / _CELL_MM), axis=0, return_inverse=True)
    rows = []
    for i in range(len(cells)):
        own = which.ravel() == i
        if np.count_nonzero(own) >= _FEWEST:
            bone, rise, edge = _edge(depth, hu[own].mean(axis=0))
            rows.append((float(left[own].mean()), float(posterior[own].mean()), edge, bone, rise))
    table = np.array(rows)
    if len(table) < _FEWEST or np.isfinite(table[:, 2]).sum() < _FEWEST:
        return None
    good = table[np.isfinite(table[:, 2])]
    numbers, residual, used, tilt = _plane(good[:, :2], good[:, 2], good[:, 4], sense * usual)
    out = numbers[0] + _EDGE_MM[0] + _EDGE_MM[1] * slice_mm
    plane = Start(start_mm + sense * out, sense * numbers[1], sense * numbers[2])
    part = used / len(table)
    return Band(plane, residual, part, tilt, float(np.median(good[:, 3])), float(np.median(good[:, 4])))


def _places(frame: LocalFrame) -> tuple[FloatArray, FloatArray]:
    wide = float(frame.outline.radius_mm.max())
    ticks = np.arange(-wide, wide + _GRID_MM, _GRID_MM)
    left, posterior = (axis.ravel() for axis in np.meshgrid(ticks, ticks, indexing="ij"))
    inside = frame.outline.reach(left, posterior) < _REACH
    return left[inside], posterior[inside]


def _edge(depth: FloatArray, hu: FloatArray) -> tuple[float, float, float]:
    """(HU of the body, rise to the band, depth of its half; nan when there is no rise), walking outwards."""
    smooth = np.convolve(np.pad(hu, 1, mode="edge"), np.ones(3) / 3, "valid")
    deep = depth < -_DEEP_MM
    bone = float(np.median(smooth[deep])) if deep.sum() > 2 else float(smooth[:3].mean())
    rise = float(smooth[np.abs(depth) <= _NEAR_MM].max()) - bone
    half = bone + rise / 2
    over = np.flatnonzero((smooth[:-1] < half) & (smooth[1:] >= half) & (depth[1:] <= _NEAR_MM))
    if rise <= 0 or not len(over):
        return bone, rise, float("nan")
    i = int(over[-1] if depth[over[0]] < -_NEAR_MM - 2 else over[0])
    return bone, rise, float(depth[i] + _STEP_MM * (half - smooth[i]) / (smooth[i + 1] - smooth[i]))


def _plane(
    places: FloatArray, edges: FloatArray, rises_hu: FloatArray, usual: FloatArray
) -> tuple[FloatArray, float, int, float]:
    """(height, rises), scatter, number of readings that agree, and standard error of the tilt in degrees.

    A reading counts the less the fainter its edge is. usual: (2,) rises that those of the plane are held to.
    """
    columns = np.column_stack([np.ones(len(edges)), places])
    weight = 1 / (_READING_MM**2 + np.square(_READING_HU_MM / np.maximum(rises_hu, 1.0)))
    centre = np.array([0.0, *usual])
    held = np.diag([0.0, *np.tan(np.radians(BandSettings().tilt_sd_deg)) ** -2])
    left = edges - columns @ centre
    left -= np.median(left)
    for _ in range(4):
        keep = np.abs(left) < 3 * (1.4826 * np.median(np.abs(left)) + 0.15)
        own = columns[keep] * weight[keep, None]
        normal = own.T @ columns[keep] + held
        numbers = np.linalg.solve(normal, own.T @ edges[keep] + held @ centre)
        left = edges - columns @ numbers
    square = left[keep] ** 2
    worse = max(1.0, float(np.mean(square * weight[keep])))
    errors = np.sqrt(np.diag(np.linalg.inv((normal - held) / worse + held)))
    residual = float(np.sqrt(np.average(square, weights=weight[keep])))
    return numbers, residual, int(keep.sum()), float(np.degrees(np.hypot(*errors[1:])))


def _in_frame(column: Column, frame: LocalFrame, face: Face, rise: FloatArray) -> FloatArray:
    """(2,) rises in a frame of a plane that rises so against the column at the height of a face."""
    row = column.row_at(face.arc_mm)
    axes = np.stack([column.left_lps[row], column.posterior_lps[row], column.cranial_lps[row]])
    normal = frame.axes @ (np.array([-rise[0], -rise[1], 1.0]) @ axes)
    return np.asarray(-normal[:2] / normal[2])


def _height(column: Column, frame: LocalFrame, face: Face) -> float:
    """Of a face of the chain on the axis of a frame."""
    row = column.row_at(face.arc_mm)
    axes = np.stack([column.left_lps[row], column.posterior_lps[row]])
    middle = column.middle_lps_mm[row]
    return float(frame.local(middle + axes.T @ (axes @ (frame.origin_lps_mm - middle)))[2])


def _fit(band: Band, sense: float) -> EndplateFit:
    """As an endplate's fit; what a band does not tell is as usual."""
    beyond = Start(band.plane.height_mm + 3.0 * sense, band.plane.rise_left, band.plane.rise_posterior)
    return EndplateFit(
        height_mm=band.plane.height_mm,
        rise_left=band.plane.rise_left,
        rise_posterior=band.plane.rise_posterior,
        concavity_mm=0.0,
        residual_hu=0.0,
        explained=0.5 * band.used,
        shell_hu=800.0,
        bone_hu=band.bone_hu,
        disc_hu=80.0,
        tilt_sd_deg=band.tilt_sd_deg,
        height_sd_mm=band.residual_mm,
        facing=beyond,
        facing_shell_hu=800.0,
    )
