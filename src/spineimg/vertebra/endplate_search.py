"""The endplate where the chain saw the face of a disc: fitted from there, and from elsewhere when that is no good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spineimg.vertebra.chain import Face
from spineimg.vertebra.column import Column
from spineimg.vertebra.crop import Crop
from spineimg.vertebra.endplate_model import LEAN_PART, EndplateSettings, LocalFrame, Start
from spineimg.vertebra.endplates import EndplateFit, fit_endplate
from spineimg.volume import CTVolume

FAR_MM = 1.8
_NEXT_MM = 6.5
_CLEARLY = 0.02
"""A fit this far from where the chain saw the face may have ended on another endplate: one from elsewhere replaces it
when it explains clearly more. Engineering choice."""
_BONE_HU, _BONE_COST = 60.0, 0.3
"""From so much (to twice as much) difference of bone at an endplate from the middle of the body on, a fit is worth less
than any other. Engineering choice."""


def start_of(column: Column, frame: LocalFrame, face: Face) -> Start:
    """A face of the chain in the local frame."""
    row = column.row_at(face.arc_mm)
    axes = np.stack([column.left_lps[row], column.posterior_lps[row], column.cranial_lps[row]])
    middle = column.middle_lps_mm[row]
    offset = (frame.origin_lps_mm - middle) @ axes.T
    point = middle + offset[:2] @ axes[:2]
    lean = LEAN_PART * np.array([face.rise_left, face.rise_posterior])
    normal = frame.axes @ (np.array([-lean[0], -lean[1], 1.0]) @ axes)
    rises = -normal[:2] / normal[2]
    at = frame.local(point)
    return Start(float(at[2] - rises @ at[:2]), float(rises[0]), float(rises[1]))


def core_hu(crop: Crop, frame: LocalFrame, low_mm: float, high_mm: float) -> float:
    """The median HU of the middle of a body, away from walls and faces."""
    across = 0.6 * frame.outline.points_mm[::6]
    heights = low_mm + np.linspace(0.35, 0.65, 5) * (high_mm - low_mm)
    rings = [part * across for part in (0.3, 0.6, 1.0)]
    flat = np.concatenate(rings)
    places = [np.column_stack([flat, np.full(len(flat), height)]) for height in heights]
    return float(np.median(crop.sample(crop.index(frame.lps(np.concatenate(places))))))


def search_endplate(
    volume: CTVolume,
    frame: LocalFrame,
    faces: tuple[Start, Start],
    found: EndplateFit,
    core: float,
    settings: EndplateSettings,
) -> EndplateFit:
    """The endplate at the first of two faces of a disc, where its fit from there, `found`, is no good.

    core: HU of the middle of the body. Where the fit ended up far from its start or with tissues that are none, the
    facing surface of the model may have taken this endplate, and left its own to plain bone: a fit from there is tried.
    Else it is `found` itself. Raises PixelError.
    """
    start, other = faces
    good = abs(found.height_mm - start.height_mm) < FAR_MM and not found.oddities
    if good or abs(found.facing.height_mm - start.height_mm) > _NEXT_MM:
        return found
    further = found.facing.height_mm + other.height_mm - start.height_mm
    fit = fit_endplate(volume, frame, found.facing, replace(found.facing, height_mm=further), settings)
    return fit if fit is not None and _worth(fit, core) > _worth(found, core) + _CLEARLY else found


def _worth(fit: EndplateFit, core: float) -> float:
    """For choosing between fits of one endplate: a narrow disc between bright shells passes for bone in thick slices,
    but not for bone as in the middle of the body."""
    return fit.worth - _BONE_COST * float(np.clip(abs(fit.bone_hu - core) / _BONE_HU - 1, 0, 1))
