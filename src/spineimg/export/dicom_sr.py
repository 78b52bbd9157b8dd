"""A result as a DICOM structured report: Comprehensive 3D SR, template TID 1500.

One measurement group for each vertebra (TID 1501: the mean of its planes, inferred from their ellipses), one for each
of its planes (TID 1410: the ellipse as a region, the numbers of that plane), one for each screw. A region is drawn on
the original slice where it was measured on one, and in 3-D coordinates where the plane was resampled. Coordinates of
regions are 32-bit numbers in DICOM; the ellipse as measured is therefore spelled out as text as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset

from spineimg import coding
from spineimg.errors import SpineImgError
from spineimg.export.dicom_groups import Groups, concept, note_words, text
from spineimg.export.dicom_source import MAKER, Source, coding_scheme, created_at, stable_uid

SERIES_NUMBER = 9801
_LONGEST_NAME = 62


def structured_report(source: Source, document: Mapping[str, Any], mark: str, observer: str | None = None) -> Dataset:
    """The report of a result.

    document: the dict of a result file whose series `source` is. mark: its fingerprint, from which all UIDs follow.
    observer: the person who confirmed it; without one the program is the observer.
    Raises SpineImgError for a result that does not fit its source, or has nothing to report.
    """
    groups = Groups(source, document, mark)
    measured = groups.all()
    if not measured:
        raise SpineImgError("the result holds no vertebra and no screw, so there is nothing to report")
    report = sr.MeasurementReport(
        observation_context=_context(document, observer),
        procedure_reported=concept(coding.CT_PROCEDURE),
        imaging_measurements=measured,
    )
    report[0].ContentSequence.extend(_closing_words(document))
    dataset = sr.Comprehensive3DSR(
        evidence=source.images(groups.slices or [0]),
        content=report[0],
        series_instance_uid=stable_uid(mark, "SR series", observer or ""),
        series_number=SERIES_NUMBER,
        sop_instance_uid=stable_uid(mark, "SR", observer or ""),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=str(document["made_by"].get("spineimg")),
        series_description="spineimg measurements",
        is_complete=True,
    )
    dataset.CodingSchemeIdentificationSequence = [coding_scheme()]
    source.stamp(dataset, created_at(document))
    return dataset


def check_observer(name: str) -> str:
    """A person's name as DICOM can hold it. Raises SpineImgError."""
    plain = name.strip()
    if not plain or len(plain) > _LONGEST_NAME or not plain.isprintable() or set(plain) & set("\\="):
        raise SpineImgError(
            f"the observer {name[:80]!r} is no name that DICOM can hold: use 1-{_LONGEST_NAME} characters, no \\ or ="
        )
    # A name of one component ends in a caret: DICOM then knows it for a family name.
    return plain if "^" in plain else f"{plain}^"


def _context(document: Mapping[str, Any], observer: str | None) -> sr.ObservationContext:
    if observer is not None:
        person = sr.PersonObserverIdentifyingAttributes(name=check_observer(observer))
        return sr.ObservationContext(sr.ObserverContext(concept(coding.PERSON), person))
    version = str(document["made_by"].get("spineimg"))
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=stable_uid("device", version), name=MAKER, manufacturer_name=MAKER, model_name=f"{MAKER} {version}"
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(concept(coding.DEVICE), device))


def _closing_words(document: Mapping[str, Any]) -> Iterable[sr.TextContentItem]:
    """What concerns the whole case."""
    yield text(coding.SERIES_TEXT, str(document["series"]["series_instance_uid"]))
    grade = document.get("grade") or {}
    if document.get("screws"):
        if grade.get("silva_type") is not None:
            yield text(coding.SILVA_TYPE, str(grade["silva_type"]))
        if grade.get("text"):
            yield text(coding.GRADE_TEXT, grade["text"])
    for note in document["notes"]:
        yield text(coding.COMMENT, note_words(note))
