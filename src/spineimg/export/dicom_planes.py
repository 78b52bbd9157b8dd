"""The planes of a result on the slices of its source, and how they are drawn in DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spineimg.errors import SpineImgError
from spineimg.export.dicom_source import Source
from spineimg.geometry import FloatArray
from spineimg.rois import Ellipse
from spineimg.sampling import SamplingSettings, tilt_deg

_OUTLINE_POINTS = 72
_RIGHT_ANGLE = 1e-3
"""Cosine between the axes of an ellipse on an image up to which it is drawn by its axes. Where pixels are not square,
those of a turned ellipse leave the right angle, and its outline is drawn instead. Engineering choice."""


@dataclass(frozen=True, eq=False, slots=True)
class Plane:
    """One ROI of a result. numbers: its entry there.

    ellipse: None of a mask. on_slice: the original slice it was measured on, None where the plane was resampled, could
    not be measured or is of a mask. slices: all original slices that it touches.
    """

    level: str
    numbers: Mapping[str, Any]
    ellipse: Ellipse | None
    on_slice: int | None
    slices: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.level} {self.numbers['position']}"


def planes_of(source: Source, vertebra: Mapping[str, Any], document: Mapping[str, Any]) -> list[Plane]:
    """The planes of one vertebra. Raises SpineImgError when the result names slices that the source does not have."""
    return [_plane(source, vertebra["level"], one, _in_plane_deg(document)) for one in vertebra["slices"]]


def ellipse_of(numbers: Mapping[str, Any]) -> Ellipse | None:
    """The ellipse of a slice of a result; None of a mask."""
    if any(numbers.get(key) is None for key in ("u", "v", "semi_axes_mm")):
        return None
    a, b = numbers["semi_axes_mm"]
    u, v = np.array(numbers["u"]), np.array(numbers["v"])
    return Ellipse(numbers["position"], np.array(numbers["center"]), u, v, (a, b))


def _in_plane_deg(document: Mapping[str, Any]) -> float:
    """The tilt from which planes were resampled, as the result tells it."""
    told: Any = document["made_by"]["settings"]
    for key in ("hu", "sampling", "in_plane_deg"):
        told = told.get(key) if isinstance(told, Mapping) else None
    return float(told) if isinstance(told, int | float) else SamplingSettings().in_plane_deg


def _plane(source: Source, level: str, numbers: Mapping[str, Any], in_plane_deg: float) -> Plane:
    ellipse = ellipse_of(numbers)
    uids = set(numbers.get("sop_instance_uids") or ())
    missing = uids - {place.sop_instance_uid for place in source.places}
    if missing:
        raise SpineImgError(
            f"{level} {numbers['position']} was measured on slice {min(missing)}, which the source does not have: "
            "give the folder with all its slices"
        )
    if not uids:
        return Plane(level, numbers, ellipse, None, ())
    if ellipse is None:
        return Plane(level, numbers, None, None, _slices_of_mask(source, numbers, uids))
    geometry = source.volume.geometry
    if tilt_deg(geometry, ellipse) > in_plane_deg:
        return Plane(level, numbers, ellipse, None, slices_between(source, outline_lps_mm(ellipse)))
    k = geometry.nearest_slice(ellipse.center_lps_mm)[0]
    if source.places[k].sop_instance_uid not in uids:
        raise SpineImgError(
            f"{level} {numbers['position']} lies on another slice of the source than the one it was measured on: "
            "give the folder that was measured"
        )
    return Plane(level, numbers, ellipse, k, (k,))


def _slices_of_mask(source: Source, numbers: Mapping[str, Any], uids: set[str]) -> tuple[int, ...]:
    if source.multi_frame:
        return (source.volume.geometry.nearest_slice(numbers["center"])[0],)
    return tuple(k for k, place in enumerate(source.places) if place.sop_instance_uid in uids)


def slices_between(source: Source, points_lps_mm: FloatArray) -> tuple[int, ...]:
    """The slices of the source between which (n, 3) points lie, LPS mm."""
    k = source.volume.geometry.index_at(points_lps_mm)[:, 0]
    last = source.volume.geometry.shape[0] - 1
    ends = np.clip([np.floor(k.min() + 1e-6), np.ceil(k.max() - 1e-6)], 0, last).astype(int)
    return tuple(range(int(ends[0]), int(ends[1]) + 1))


# -- drawn ------------------------------------------------------------------------------------------------------------


def axis_ends_lps_mm(ellipse: Ellipse) -> FloatArray:
    """(4, 3) ends of the major, then of the minor axis, LPS mm, as DICOM lists them."""
    arms = [axis * length for axis, length in zip((ellipse.u_lps, ellipse.v_lps), ellipse.semi_axes_mm, strict=True)]
    arms.sort(key=lambda arm: -float(np.linalg.norm(arm)))
    return np.stack([ellipse.center_lps_mm + sign * arm for arm in arms for sign in (-1, 1)])


def outline_lps_mm(ellipse: Ellipse) -> FloatArray:
    """(73, 3) points on the ellipse, the last one the first, LPS mm."""
    turn = np.linspace(0, 2 * np.pi, _OUTLINE_POINTS, endpoint=False)[:, None]
    a, b = ellipse.semi_axes_mm
    points = ellipse.center_lps_mm + a * np.cos(turn) * ellipse.u_lps + b * np.sin(turn) * ellipse.v_lps
    return np.concatenate([points, points[:1]])


def on_image(source: Source, ellipse: Ellipse, k: int) -> tuple[str, FloatArray]:
    """(graphic type, (n, 2) column and row) of an ellipse on slice k.

    DICOM counts from the corner of the image: the centre of the first pixel is 0.5, 0.5.
    """
    ends = _pixels(source, axis_ends_lps_mm(ellipse), k)
    arms = ends[[1, 3]] - ends[[0, 2]]
    lengths = np.linalg.norm(arms, axis=1)
    if abs(float(arms[0] @ arms[1])) > _RIGHT_ANGLE * float(lengths.prod()):
        return "POLYLINE", _pixels(source, outline_lps_mm(ellipse), k)
    # Pixels that are not square can make the longer axis the shorter one.
    return "ELLIPSE", ends if lengths[0] >= lengths[1] else ends[[2, 3, 0, 1]]


def _pixels(source: Source, points_lps_mm: FloatArray, k: int) -> FloatArray:
    geometry = source.volume.geometry
    row, column = geometry.in_plane(points_lps_mm - geometry.origins_lps_mm[k])
    return np.stack([column + 0.5, row + 0.5], axis=1)
