"""A result as DICOM files in a folder: report, segmentations and key image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from spineimg.errors import SpineImgError
from spineimg.export.dicom_groups import Groups
from spineimg.export.dicom_picture import secondary_capture
from spineimg.export.dicom_seg import segmentations
from spineimg.export.dicom_segments import segments_of
from spineimg.export.dicom_source import Source, fingerprint
from spineimg.export.dicom_sr import check_observer, structured_report
from spineimg.export.files import replacing
from spineimg.rois import POSITIONS


def dicom_objects(
    source: Source,
    document: Mapping[str, Any],
    *,
    observer: str | None = None,
    picture: npt.NDArray[np.uint8] | None = None,
) -> list[Dataset]:
    """Everything that a result gives in DICOM: the report, the segmentations, and the key image where there is one.

    document: the dict of a result file. observer: the person who confirmed it. picture: (rows, columns, 3) RGB without
    anybody's name. segments: further segments (bodies, metal, halos) beside the ROIs and screws of the result.
    The same arguments give the same bytes. Raises SpineImgError for a result that was not measured on the source.
    """
    check_match(document)
    measured, series = document["series"]["series_instance_uid"], source.volume.series.name
    if measured != series:
        raise SpineImgError(
            f"the result was measured on series {measured}, but the source is {series}: give the CT that was measured"
        )
    source.check()
    mark = fingerprint(document, str(source.header.StudyInstanceUID))
    name = None if observer is None else check_observer(observer)
    groups = Groups(source, document, mark)
    objects = [structured_report(source, document, mark, name)]
    objects += segmentations(source, segments_of(groups), document, mark)
    if picture is not None:
        objects.append(secondary_capture(source, picture, document, mark))
    return objects


def write_dicom(folder: str | os.PathLike[str], objects: Sequence[Dataset]) -> list[Path]:
    """Writes objects into a folder, which is made where it does not exist: all of them or none.

    A file is named by its kind and its UID, so that the same object replaces itself and no other.
    Raises SpineImgError when the folder cannot be made or written.
    """
    files = {_file_name(one): _encoded(one) for one in objects}
    target = Path(folder)
    made = not target.exists()
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise SpineImgError(f"cannot write into {target}: {error.strerror or error}, name another folder") from error
    try:
        with ExitStack() as stack:
            for name, content in files.items():
                stack.enter_context(replacing(target / name)).write(content)
    except SpineImgError:
        if made:
            with suppress(OSError):
                target.rmdir()
        raise
    return [target / name for name in files]


def check_match(document: Mapping[str, Any]) -> None:
    """Raises SpineImgError for a result that can never become DICOM, or lacks what the objects are made of."""
    if document["series"]["series_instance_uid"] is None:
        raise SpineImgError(
            "measured on a volume without a SeriesInstanceUID (NIfTI, NRRD, MHA, or stripped DICOM), so DICOM cannot "
            "name its patient or images: measure the original DICOM series instead"
        )
    if not isinstance(document.get("notes"), list):
        raise SpineImgError("`notes` is missing or not a list")
    for vertebra in document["vertebrae"]:
        for one in vertebra["slices"]:
            if one.get("position") not in POSITIONS:
                raise SpineImgError(f"a slice of {vertebra['level']} has the position {one.get('position')!r}")
    for screw in document.get("screws", []):
        _check_screw(screw)


def _check_screw(screw: Any) -> None:
    ends = [screw.get("head"), screw.get("tip")] if isinstance(screw, dict) else []
    points = [end for end in ends if isinstance(end, list) and len(end) == 3]
    numbers = all(isinstance(part, int | float) for point in points for part in point)
    if len(points) < 2 or not numbers or points[0] == points[1] or not isinstance(screw.get("id"), str):
        raise SpineImgError(f"a screw needs `id`, `head` and `tip`, two points of three numbers, found {screw!r:.80}")


def _file_name(dataset: Dataset) -> str:
    return f"{str(dataset.Modality).lower()}-{str(dataset.SOPInstanceUID)[-12:]}.dcm"


def _encoded(dataset: Dataset) -> bytes:
    content = BytesIO()
    dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()
