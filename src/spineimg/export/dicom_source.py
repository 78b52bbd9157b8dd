"""The CT that a result was measured on, as DICOM objects refer to it.

Only what identifies patient and study is taken from its files, by an explicit list, so that no other text of theirs can
reach a new object. Everything that is made here is a function of the result and the source: the same result gives the
same UIDs and the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from spineimg.coding import PRIVATE, PRIVATE_NAME
from spineimg.errors import SeriesError
from spineimg.volume import CTVolume

MAKER = "spineimg"
_NAMESPACE = uuid.UUID("6f1d3b52-6f0b-5d7e-9a51-0d6c3e7f4b18")
_MULTI_FRAME = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
_REQUIRED = {
    "SOPClassUID": "(0008,0016)",
    "StudyInstanceUID": "(0020,000D)",
    "SeriesInstanceUID": "(0020,000E)",
    "FrameOfReferenceUID": "(0020,0052)",
}
_TEXTS = {
    "PatientName": "(0010,0010)",
    "PatientID": "(0010,0020)",
    "IssuerOfPatientID": "(0010,0021)",
    "StudyID": "(0020,0010)",
    "AccessionNumber": "(0008,0050)",
}
_LONGEST = {"PatientName": 64, "PatientID": 64, "IssuerOfPatientID": 64, "StudyID": 16, "AccessionNumber": 16}
_PATTERNS = {
    "PatientBirthDate": r"\d{8}",
    "PatientSex": r"[MFO]",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "TimezoneOffsetFromUTC": r"[+-]\d{4}",
}
"""What may be copied, and the form without which it is left empty. Names and numbers must be copied whole or not."""
_FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True, slots=True)
class Place:
    """Where slice k of a volume lies: a file and, in a multi-frame one, the frame counted from 1."""

    path: str
    sop_instance_uid: str
    frame: int


@dataclass(frozen=True, eq=False)
class Source:
    """A DICOM series on which a result was measured. places: one for each slice of the volume, in its order."""

    volume: CTVolume
    places: tuple[Place, ...]

    @cached_property
    def header(self) -> Dataset:
        """The listed elements of the first file. Raises SeriesError for a file that cannot be read any more."""
        return _read(self.places[0].path, [*_REQUIRED, *_TEXTS, *_PATTERNS, "SpecificCharacterSet"])

    def check(self) -> None:
        """Raises SeriesError when the source lacks a UID to which DICOM objects must refer."""
        for keyword, tag in _REQUIRED.items():
            if not self.header.get(keyword):
                raise SeriesError(
                    f"{self.places[0].path}: no {keyword} {tag}, to which a DICOM object must refer: use the original "
                    "files, from before it was taken out"
                )

    @property
    def multi_frame(self) -> bool:
        return str(self.header.SOPClassUID) in _MULTI_FRAME

    def frame(self, k: int) -> int | None:
        """Frame number of slice k, None for a single-frame image."""
        return self.places[k].frame if self.multi_frame else None

    def references(self, slices: Iterable[int]) -> list[tuple[str, list[int] | None]]:
        """(SOP instance UID, frame numbers or None) of some slices; each instance once."""
        frames: dict[str, list[int]] = {}
        for k in slices:
            frames.setdefault(self.places[k].sop_instance_uid, []).append(self.places[k].frame)
        return [(uid, sorted(set(found)) if self.multi_frame else None) for uid, found in frames.items()]

    def images(self, slices: Sequence[int]) -> list[Dataset]:
        """Bare headers of the images that hold some slices: their place and their UIDs, nobody's name."""
        if self.multi_frame:
            return [self._multi_frame_image()]
        return [self._image(k) for k in slices]

    def _blank(self, sop_instance_uid: str) -> Dataset:
        """An image header that says which image it is. highdicom wants patient and study, `stamp` writes them."""
        image = Dataset()
        for keyword in _REQUIRED:
            setattr(image, keyword, str(self.header[keyword].value))
        image.SOPInstanceUID = sop_instance_uid
        image.Modality = "CT"
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(image, keyword, "")
        image.StudyDate = image.StudyTime = None
        image.Rows, image.Columns = self.volume.geometry.shape[1:]
        return image

    def _image(self, k: int) -> Dataset:
        place = self.places[k]
        image = self._blank(place.sop_instance_uid)
        image.ImagePositionPatient = [decimal(part) for part in self.volume.geometry.origins_lps_mm[k]]
        image.ImageOrientationPatient = self.orientation
        image.PixelSpacing = self.pixel_spacing
        image.SliceThickness = decimal(self.thickness_mm)
        return image

    def _multi_frame_image(self) -> Dataset:
        place = self.places[0]
        image = self._blank(place.sop_instance_uid)
        groups = _read(place.path, list(_FRAMES))
        frames = groups.get("PerFrameFunctionalGroupsSequence") or []
        image.NumberOfFrames = len(frames)
        shared = Dataset()
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=self.orientation)]
        measures = _item(PixelSpacing=self.pixel_spacing, SliceThickness=decimal(self.thickness_mm))
        shared.PixelMeasuresSequence = [measures]
        image.SharedFunctionalGroupsSequence = [shared]
        positions = [_first(one, "PlanePositionSequence").get("ImagePositionPatient") or (0, 0, 0) for one in frames]
        image.PerFrameFunctionalGroupsSequence = [
            _item(PlanePositionSequence=[_item(ImagePositionPatient=[decimal(part) for part in position])])
            for position in positions
        ]
        return image

    @property
    def orientation(self) -> list[str]:
        """Image Orientation (Patient): direction of a row, then of a column."""
        steps = (self.volume.geometry.column_step_lps_mm, self.volume.geometry.row_step_lps_mm)
        return [decimal(part) for step in steps for part in step / np.linalg.norm(step)]

    @property
    def pixel_spacing(self) -> list[str]:
        return [decimal(step) for step in self.volume.geometry.spacing_mm[1:]]

    @property
    def thickness_mm(self) -> float:
        """Slice thickness, of a file that does not tell it the slice spacing."""
        known = self.volume.acquisition.slice_thickness_mm
        return float(known if known is not None else self.volume.geometry.spacing_mm[0])

    def stamp(self, dataset: Dataset, created: datetime) -> None:
        """Writes patient, study and times of the making into a new object, in UTF-8.

        Times are in the source's own zone where it names one, else in UTC. Raises SeriesError for a name or number of
        the source that cannot be copied whole.
        """
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword, tag in _TEXTS.items():
            text = _text(self.header, keyword)
            parts = text.split("=") if keyword == "PatientName" else [text]
            if "\\" in text or not text.isprintable() or any(len(part) > _LONGEST[keyword] for part in parts):
                raise SeriesError(
                    f"{self.places[0].path}: {keyword} {tag} holds {len(text)} characters that DICOM does not allow "
                    f"there (at most {_LONGEST[keyword]}, no line breaks or backslashes): correct it in the source"
                )
            if text or keyword != "IssuerOfPatientID":
                setattr(dataset, keyword, text)
        found = {keyword: _text(self.header, keyword) for keyword in _PATTERNS}
        values = {name: text if re.fullmatch(_PATTERNS[name], text) else "" for name, text in found.items()}
        zone = values.pop("TimezoneOffsetFromUTC")
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.ReferringPhysicianName = ""
        dataset.StudyInstanceUID = str(self.header.StudyInstanceUID)
        if zone:
            dataset.TimezoneOffsetFromUTC = zone
        _stamp_times(dataset, created.astimezone(_zone(zone)))


def _stamp_times(dataset: Dataset, moment: datetime) -> None:
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    for kind in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{kind}Date", date)
        setattr(dataset, f"{kind}Time", time)
    for equipment in dataset.get("ContributingEquipmentSequence") or ():
        equipment.ContributionDateTime = date + time


def _zone(offset: str) -> timezone:
    if not offset:
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    if minutes >= 24 * 60:
        return UTC
    return timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes))


def _read(path: str, keywords: list[str]) -> Dataset:
    """Some elements of a file. What they hold is judged by who asked for them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values whose form is checked where they are copied
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords), force=True)
            found.decode()
            return found
    except OSError as error:
        raise SeriesError(f"{path}: cannot be read any more ({error.strerror or error})") from None
    except (InvalidDicomError, BytesLengthException, ValueError, KeyError, AttributeError, LookupError) as error:
        raise SeriesError(f"{path}: its header cannot be read again ({str(error)[:120]})") from None


def _text(dataset: Dataset, keyword: str) -> str:
    """An element as one text, without the spaces around it; "" where it is absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = dataset.get(keyword)
    if value is None:
        return ""
    several = isinstance(value, (list, tuple, pydicom.multival.MultiValue))
    return ("\\".join(map(str, value)) if several else str(value)).strip(" \0")


def _first(dataset: Dataset, keyword: str) -> Dataset:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else Dataset()


def _item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def decimal(value: float) -> str:
    """A number as a decimal string of DICOM: at most 16 characters."""
    return str(pydicom.valuerep.format_number_as_ds(float(value)))


# -- stable names -----------------------------------------------------------------------------------------------------


def fingerprint(document: Mapping[str, Any], study_instance_uid: str) -> str:
    """A hash of everything that a result says, but not of when it was made or of whom."""
    made_by = {key: value for key, value in document["made_by"].items() if key != "created"}
    content = {key: value for key, value in document.items() if key != "patient"} | {"made_by": made_by}
    text = json.dumps([study_instance_uid, content], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def stable_uid(*parts: str) -> str:
    """A UID under 2.25 that follows from some words."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(10).join(parts)).int}"


def created_at(document: Mapping[str, Any]) -> datetime:
    """When the result was made; where the file does not say it in ISO 8601, the start of 1970."""
    try:
        moment = datetime.fromisoformat(str(document["made_by"].get("created")))
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def coding_scheme() -> Dataset:
    """The entry that tells whose the private codes are."""
    return _item(
        CodingSchemeDesignator=PRIVATE, CodingSchemeName=PRIVATE_NAME, CodingSchemeResponsibleOrganization=MAKER
    )
