"""Multi-frame CT: attributes of each frame from the shared and per-frame functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from typing import Any

from spineimg.errors import SeriesError
from spineimg.io.headers import WANTED, FileHeader, Header, convert

_GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "PlanePositionSequence": (("ImagePositionPatient", "ImagePositionPatient"),),
    "PlaneOrientationSequence": (("ImageOrientationPatient", "ImageOrientationPatient"),),
    "PixelMeasuresSequence": (("PixelSpacing", "PixelSpacing"), ("SliceThickness", "SliceThickness")),
    "PixelValueTransformationSequence": (
        ("RescaleSlope", "RescaleSlope"),
        ("RescaleIntercept", "RescaleIntercept"),
        ("RescaleType", "RescaleType"),
    ),
    "CTImageFrameTypeSequence": (("FrameType", "ImageType"),),
    "CTReconstructionSequence": (
        ("ConvolutionKernel", "ConvolutionKernel"),
        ("ReconstructionAlgorithm", "ReconstructionAlgorithm"),
    ),
    "CTXRayDetailsSequence": (("KVP", "KVP"),),
}
"""Functional group -> (attribute there, keyword of the single-frame header it stands for)."""
_KINDS = dict(WANTED.values())


def frame_values(header: FileHeader) -> list[Header]:
    """One header a frame, in frame order. Raises SeriesError when frames and groups do not fit."""
    import struct
    import warnings

    import pydicom
    from pydicom.errors import BytesLengthException

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that are judged later
        try:
            dataset = pydicom.dcmread(header.path, stop_before_pixels=True, force=True)
            shared = _values_of(_first(dataset, "SharedFunctionalGroupsSequence"))
            agent = _first(dataset, "ContrastBolusAgentSequence")
            if agent is not None:
                shared["ContrastBolusAgent"] = _meaning(agent)
                route = _first(agent, "ContrastBolusAdministrationRouteSequence")
                if route is not None:
                    shared["ContrastBolusRoute"] = _meaning(route)
            own = [_values_of(group) for group in dataset.get("PerFrameFunctionalGroupsSequence", ())]
        except (
            BytesLengthException, struct.error, ValueError, KeyError, TypeError, AttributeError, EOFError, OSError,
            NotImplementedError,
        ) as error:  # fmt: skip
            raise SeriesError(f"unreadable functional groups: {str(error)[:120]}") from error
    frames = header.values.get("NumberOfFrames", 1)
    if len(own) != frames:
        raise SeriesError(f"{frames} frames, but {len(own)} items of Per-Frame Functional Groups (5200,9230)")
    return [{**header.values, **shared, **frame} for frame in own]


def _first(item: Any, keyword: str) -> Any:
    sequence = item.get(keyword) if item is not None else None
    return sequence[0] if sequence else None


def _meaning(item: Any) -> str:
    return str(item.get("CodeMeaning", "")).strip() or "(coded)"


def _values_of(group: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for sequence, attributes in _GROUPS.items():
        item = _first(group, sequence)
        for keyword, stands_for in attributes if item is not None else ():
            value = convert(item.get(keyword), _KINDS[stands_for])
            if value not in ("", None, ("",)):
                values[stands_for] = value
    return values
