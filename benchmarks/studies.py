"""Synthetic CT studies for the benchmarks: textured, with headers as long as a scanner's."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.anatomy import Construct
from spineimg.phantom import Imaging, Storage, make_phantom, write_phantom

MATRIX = 512
PIXEL_MM = 0.7
SLICE_MM = 1.0
JPEG_LS = "1.2.840.10008.1.2.4.80"
RAW = "1.2.840.10008.1.2.1"
N_NOISES = 16
SPINE = (330, 256)
"""Row and column of the vertebra's centre."""


@dataclass(frozen=True, slots=True)
class Study:
    """What to write: so many 512 x 512 slices in one transfer syntax."""

    folder: Path
    slices: int
    syntax: str


def write_study(study: Study) -> None:
    """One file a slice, names shuffled, about 150 elements a header, and `rois.json` beside the folder `ct`."""
    (study.folder / "ct").mkdir(parents=True)
    names = np.random.default_rng(1).permutation(study.slices)
    with ProcessPoolExecutor(2, initializer=_prepare, initargs=(study,)) as pool:
        list(pool.map(_write_slice, range(study.slices), names.tolist(), chunksize=16))
    (study.folder / "rois.json").write_text(json.dumps(roi_document(study.slices)))


def link_study(larger: Study, folder: Path, slices: int) -> None:
    """The first slices of a study as one of its own, without a second copy of the files."""
    (folder / "ct").mkdir(parents=True)
    names = np.random.default_rng(1).permutation(larger.slices)[:slices]
    for name in names.tolist():
        (folder / "ct" / f"{name:05d}").hardlink_to(larger.folder / "ct" / f"{name:05d}")
    (folder / "rois.json").write_text(json.dumps(roi_document(slices)))


def write_spine(folder: Path) -> int:
    """A phantom of a lumbar spine, 512 x 512 and about 300 slices of 0.9 mm, with `clicks.json` in the middles of its
    UIV and LIV and `rois.json` on original slices of both. Returns how many slices it has."""
    imaging = Imaging(size=(MATRIX, MATRIX), pixel_mm=0.68, spacing_mm=0.9, margin_mm=34.0)
    phantom = replace(make_phantom("preop"), imaging=imaging, storage=Storage())
    summary = write_phantom(folder, phantom, Construct("T11", "L5"))
    placed = json.loads((folder / "rois_scanner.json").read_text())
    clicks = [{"level": one["level"], "center": one["slices"][1]["center"]} for one in placed["vertebrae"]]
    (folder / "rois.json").write_text(json.dumps(placed))
    (folder / "clicks.json").write_text(json.dumps({**placed, "vertebrae": clicks}))
    return int(summary["n_slices"])


def roi_document(slices: int) -> dict[str, Any]:
    """Three ellipses on original slices in each of two vertebrae, at a quarter and at three quarters of the scan."""
    y, x = SPINE[0] * PIXEL_MM, SPINE[1] * PIXEL_MM
    vertebrae = []
    for level, part in (("L4", 0.25), ("T12", 0.75)):
        middle = round(slices * part)
        ellipses = [
            {"position": position, "center": [x, y, (middle + away) * SLICE_MM], "u": [1, 0, 0], "v": [0, 1, 0],
             "semi_axes_mm": [11.0, 8.0]}
            for position, away in (("superior", 8), ("mid", 0), ("inferior", -8))
        ]  # fmt: skip
        vertebrae.append({"level": level, "slices": ellipses})
    return {"schema": "spineimg.rois/1", "construct": {"uiv": "T12", "liv": "L4"}, "vertebrae": vertebrae}


_state: dict[str, Any] = {}


def _prepare(study: Study) -> None:
    rng = np.random.default_rng(0)
    _state.update(study=study, body=_body(), noises=[_noise(rng) for _ in range(N_NOISES)])


def _noise(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Correlated over neighbouring pixels as a soft kernel leaves it; SD 18 HU."""
    spectrum = np.fft.rfft2(rng.normal(size=(MATRIX, MATRIX)))
    frequency = np.hypot(np.fft.fftfreq(MATRIX)[:, None], np.fft.rfftfreq(MATRIX)[None])
    smooth = np.fft.irfft2(spectrum * np.exp(-((frequency / 0.25) ** 2)), s=(MATRIX, MATRIX))
    return np.asarray(18 * smooth / smooth.std())


def _body() -> npt.NDArray[np.float64]:
    row, column = np.mgrid[0:MATRIX, 0:MATRIX].astype(np.float64)
    hu = np.full((MATRIX, MATRIX), -1000.0)
    hu[((row - 260) / 170) ** 2 + ((column - 256) / 235) ** 2 < 1] = -100
    hu[((row - 260) / 145) ** 2 + ((column - 256) / 205) ** 2 < 1] = 45
    vertebra = np.hypot(row - SPINE[0], column - SPINE[1])
    hu[vertebra < 30] = 420
    hu[vertebra < 27] = 140
    return hu


def _write_slice(k: int, name: int) -> None:
    study: Study = _state["study"]
    hu = _state["body"] + np.roll(_state["noises"][k % N_NOISES], (7 * k, 13 * k), axis=(0, 1))
    ds = _header(k)
    ds.PixelData = (np.clip(hu, -1024, 3071).astype(np.int16) + 1024).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    if study.syntax == JPEG_LS:
        ds.compress(JPEG_LS, generate_instance_uid=False)
    ds.save_as(study.folder / "ct" / f"{name:05d}", enforce_file_format=True)


def _header(k: int) -> Any:
    """About 150 elements, 6 kB: image, equipment and protocol modules, two sequences, a block of private elements."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(RAW)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.826.0.1.3680043.2.1143.7.{k + 1}"
    for keyword, value in _TEXT.items():
        setattr(ds, keyword, value)
    for keyword in _DATES:
        setattr(ds, keyword, "20240229")
    for keyword in _TIMES:
        setattr(ds, keyword, "093012.345678")
    for keyword in _NUMBERS:
        setattr(ds, keyword, "1.25")
    ds.InstanceNumber = str(k + 1)
    ds.ImagePositionPatient = ["0", "0", f"{k * SLICE_MM:g}"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.PixelSpacing = [str(PIXEL_MM)] * 2
    ds.SliceThickness, ds.SliceLocation = "1.25", f"{-k * SLICE_MM:g}"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = MATRIX
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SmallestImagePixelValue, ds.LargestImagePixelValue = 0, 4095
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    _add_sequences(ds)
    block = ds.private_block(0x0021, "SPINEIMG BENCHMARK", create=True)
    for element in range(0x10, 0x38):
        block.add_new(element, "LO", f"private value {element}")
    block.add_new(0x40, "OB", bytes(range(256)) * 6)
    return ds


def _add_sequences(ds: Any) -> None:
    from pydicom.dataset import Dataset

    for keyword in ("ReferencedStudySequence", "ReferencedImageSequence", "ProcedureCodeSequence"):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
        item.CodeValue, item.CodeMeaning = "77477000", "Computed tomography"
        setattr(ds, keyword, [item, item])


_TEXT = {
    "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "Modality": "CT", "Manufacturer": "SPINEIMG", "InstitutionName": "Hospital", "InstitutionAddress": "Road 1",
    "ReferringPhysicianName": "A^B", "StationName": "CT01", "StudyDescription": "Spine", "SeriesDescription": "Spine",
    "PerformingPhysicianName": "C^D", "OperatorsName": "E^F", "ManufacturerModelName": "Benchmark",
    "PatientName": "Nobody^At all", "PatientID": "0", "PatientBirthDate": "19500101", "PatientSex": "O",
    "PatientAge": "074Y", "PatientSize": "1.7", "PatientWeight": "70", "BodyPartExamined": "SPINE",
    "ScanOptions": "SPI", "KVP": "120", "DeviceSerialNumber": "12345", "SoftwareVersions": "1.0",
    "ProtocolName": "Spine", "GeneratorPower": "40", "FilterType": "WEDGE", "ConvolutionKernel": "B30f",
    "PatientPosition": "HFS", "RotationDirection": "CW", "ExposureModulationType": "NONE", "ExposureTime": "500",
    "XRayTubeCurrent": "200", "Exposure": "100", "StudyInstanceUID": "1.2.826.0.1.3680043.2.1143.7",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.2.1143.7.0", "FrameOfReferenceUID": "1.2.826.0.1.3680043.2.1143.8",
    "StudyID": "1", "SeriesNumber": "3", "AcquisitionNumber": "1", "PositionReferenceIndicator": "",
    "ImageComments": "none", "WindowCenter": ["40", "400"], "WindowWidth": ["400", "2000"],
    "WindowCenterWidthExplanation": ["W1", "W2"], "RequestedProcedureDescription": "CT spine",
    "PerformedProcedureStepID": "1", "PerformedProcedureStepDescription": "CT spine", "AccessionNumber": "7",
    "RequestedProcedureID": "7", "BurnedInAnnotation": "NO", "LossyImageCompression": "00",
    "PatientComments": "none", "RequestAttributesSequence": [], "DerivationDescription": "",
    "LongitudinalTemporalInformationModified": "UNMODIFIED", "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "synthetic", "IrradiationEventUID": "1.2.3.4", "QueryRetrieveLevel": "SERIES",
    "Allergies": "none", "MedicalAlerts": "none", "Occupation": "none", "SmokingStatus": "UNKNOWN",
    "PregnancyStatus": 4, "AdmissionID": "1", "CurrentPatientLocation": "ward", "ReasonForStudy": "spine",
    "StudyComments": "none", "FocalSpots": "1.2", "TableFeedPerRotation": 19.2, "SpiralPitchFactor": 0.8,
    "SingleCollimationWidth": 0.6, "TotalCollimationWidth": 24.0, "TableSpeed": 38.4,
    "CTDIvol": 7.5, "EstimatedDoseSaving": 10.0,
}  # fmt: skip
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate",
          "PerformedProcedureStepStartDate", "DateOfLastCalibration")  # fmt: skip
_TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime",
          "PerformedProcedureStepStartTime", "TimeOfLastCalibration")  # fmt: skip
_NUMBERS = (
    "DataCollectionDiameter", "ReconstructionDiameter", "DistanceSourceToDetector", "DistanceSourceToPatient",
    "GantryDetectorTilt", "TableHeight",
)  # fmt: skip
