"""One ROI of a vertebra on one plane, before anything is averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.errors import PixelError, UnreadableError
from spineimg.geometry import FloatArray
from spineimg.notes import Note
from spineimg.rois import Ellipse
from spineimg.sampling import PlaneRefusedError, PlaneSamples, SamplingSettings, SliceReader, sample_ellipse

BoolArray = npt.NDArray[np.bool_]

_RIM = 0.5
"""The outer half of the area of an ellipse is its rim."""


@dataclass(frozen=True, eq=False, slots=True)
class RoiPlane:
    """Where a ROI lies and what it covers.

    center_lps_mm: (3,). ellipse: None when the ROI is a part of a mask.
    samples: None when the plane could not be measured; `refusal` then says why.
    rim: (n,), True for samples near the border of the ROI, where cortex would show.
    """

    position: str
    center_lps_mm: FloatArray
    ellipse: Ellipse | None
    samples: PlaneSamples | None
    rim: BoolArray
    refusal: Note | None = None


def ellipse_plane(
    reader: SliceReader, ellipse: Ellipse, level: str, plane: str, settings: SamplingSettings
) -> RoiPlane:
    """The ROI of an ellipse; a plane that cannot be measured comes back with its refusal."""
    try:
        samples = sample_ellipse(reader, ellipse, plane, settings)
    except PlaneRefusedError as refused:
        refusal = Note(refused.code, str(refused), f"{level} {ellipse.position}")
    except PixelError as error:
        refusal = undecodable(error, f"{level} {ellipse.position}")
    else:
        offset = samples.points_lps_mm - ellipse.center_lps_mm
        a, b = ellipse.semi_axes_mm
        rim = (offset @ ellipse.u_lps / a) ** 2 + (offset @ ellipse.v_lps / b) ** 2 > _RIM
        return RoiPlane(ellipse.position, ellipse.center_lps_mm, ellipse, samples, rim)
    return RoiPlane(ellipse.position, ellipse.center_lps_mm, ellipse, None, np.zeros(0, dtype=bool), refusal)


def undecodable(error: PixelError, about: str) -> Note:
    code = "unreadable" if isinstance(error, UnreadableError) else "undecodable"
    return Note(code, f"a slice that is needed here cannot be read: {error}", about)
