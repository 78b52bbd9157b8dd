"""A vertebral body as plain values, for files, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.vertebra.body import Body, EndplatePlane


def body_to_dict(body: Body) -> dict[str, Any]:
    """Lengths in mm, points and directions in LPS. outline_mm: left and posterior of the centre, at mid-height."""
    return {
        "axes": {
            "left": _numbers(body.left_lps, 6),
            "posterior": _numbers(body.posterior_lps, 6),
            "cranial": _numbers(body.cranial_lps, 6),
        },
        "width_mm": round(body.width_mm, 2),
        "depth_mm": round(body.depth_mm, 2),
        "height_mm": round(body.height_mm, 2),
        "wedge_deg": round(body.wedge_deg, 2),
        "superior": _plane(body.superior),
        "inferior": _plane(body.inferior),
        "center": _numbers(body.center_lps_mm),
        "outline_mm": [_numbers(point, 2) for point in body.outline_mm],
        "quality": round(body.quality, 3),
    }


def body_from_dict(entry: Mapping[str, Any]) -> Body:
    """The body that `body_to_dict` described, without its notes."""
    left, posterior, cranial = (np.array(entry["axes"][name]) for name in ("left", "posterior", "cranial"))
    superior, inferior = (_plane_back(entry[name]) for name in ("superior", "inferior"))
    sizes = {name: float(entry[name]) for name in ("width_mm", "depth_mm", "height_mm", "wedge_deg")}
    return Body(
        center_lps_mm=np.array(entry["center"]),
        left_lps=left,
        posterior_lps=posterior,
        cranial_lps=cranial,
        superior=superior,
        inferior=inferior,
        outline_mm=np.array(entry["outline_mm"]),
        quality=float(entry["quality"]),
        notes=(),
        **sizes,
    )


def _plane(plane: EndplatePlane) -> dict[str, Any]:
    return {
        "point": _numbers(plane.point_lps_mm),
        "normal": _numbers(plane.normal_lps, 6),
        "concavity_mm": round(plane.concavity_mm, 2),
    }


def _plane_back(entry: Mapping[str, Any]) -> EndplatePlane:
    return EndplatePlane(np.array(entry["point"]), np.array(entry["normal"]), float(entry["concavity_mm"]))


def _numbers(vector: FloatArray, digits: int = 3) -> list[float]:
    return [round(float(number), digits) for number in vector]
