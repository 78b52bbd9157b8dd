"""Phantoms as a scanner would export them: one CT Image object a slice, under names that tell nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spineimg.geometry import unit
from spineimg.phantom.model import Phantom
from spineimg.phantom.samples import Field

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_DATE, _TIME = "20250301", "101500"


def write_series(folder: Path, phantom: Phantom, progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Writes the image into `folder`, which must exist, and returns the files in the order of the slices.

    progress: called with (slices done, slices in all). Raises SpineImgError when HU do not fit the storage.
    """
    count = phantom.geometry.shape[0]
    names = _names(phantom)
    common = _common(phantom)
    files = []
    for k, hu in enumerate(phantom.slices()):
        dataset = _slice(common, phantom, k, hu)
        file = folder / names[k]
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
        if progress:
            progress(k + 1, count)
    return files


def _names(phantom: Phantom) -> list[str]:
    """Names without order, half of them without a suffix."""
    random = np.random.default_rng([phantom.seed, 4])
    numbers = random.choice(2**28, size=phantom.geometry.shape[0], replace=False)
    return [f"{number:07X}" + (".dcm" if number % 2 else "") for number in numbers]


def _uid(phantom: Phantom, *what: object) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=[phantom.name, str(phantom.seed), *map(str, what)]))


def _common(phantom: Phantom) -> Dataset:
    """Everything that all slices share."""
    from pydicom.dataset import Dataset
    from pydicom.uid import CTImageStorage

    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = _DATE
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = _TIME
    ds.AccessionNumber = ""
    ds.Modality = "CT"
    ds.Manufacturer = "spineimg"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Spine phantom"
    ds.SeriesDescription = f"Spine {phantom.name}"
    ds.ManufacturerModelName = "phantom"
    ds.DeviceSerialNumber = str(phantom.seed)
    ds.SoftwareVersions = "1"
    ds.PatientName = f"Phantom^{phantom.name}"
    ds.PatientID = f"PHANTOM-{phantom.name}-{phantom.seed}"
    ds.PatientBirthDate = "19600101"
    ds.PatientSex = "O"
    ds.PatientAge = "065Y"
    _acquisition(ds, phantom)
    ds.StudyInstanceUID = _uid(phantom, "study")
    ds.SeriesInstanceUID = _uid(phantom, "series")
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.FrameOfReferenceUID = _uid(phantom, "frame")
    ds.PositionReferenceIndicator = ""
    _pixels(ds, phantom)
    return ds


def _acquisition(ds: Dataset, phantom: Phantom) -> None:
    imaging = phantom.imaging
    if imaging.contrast_agent:
        ds.ContrastBolusAgent = imaging.contrast_agent
        ds.ContrastBolusRoute = "INTRAVENOUS"
    ds.BodyPartExamined = "SPINE"
    ds.ScanOptions = "HELICAL MODE"
    ds.SliceThickness = _text(imaging.thickness_mm)
    ds.KVP = _text(imaging.kvp)
    ds.DataCollectionDiameter = "500"
    ds.ProtocolName = "Spine"
    ds.ReconstructionDiameter = _text(
        min(n * s for n, s in zip(imaging.size, phantom.geometry.spacing_mm[1:], strict=True))
    )
    ds.GantryDetectorTilt = _text(imaging.tilt_deg)
    ds.RotationDirection = "CW"
    ds.ExposureTime = 500
    ds.XRayTubeCurrent = 240
    ds.Exposure = 120
    ds.FilterType = "BODY"
    ds.ConvolutionKernel = imaging.kernel
    ds.PatientPosition = imaging.position


def _pixels(ds: Dataset, phantom: Phantom) -> None:
    storage, geometry = phantom.storage, phantom.geometry
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = geometry.shape[1:]
    ds.PixelSpacing = [_text(s) for s in geometry.spacing_mm[1:]]
    ds.BitsAllocated = 16
    ds.BitsStored = storage.bits
    ds.HighBit = storage.bits - 1
    ds.PixelRepresentation = 0
    if phantom.imaging.circle:
        ds.add_new("PixelPaddingValue", "US", 0)
    ds.WindowCenter, ds.WindowWidth = "400", "1800"
    ds.RescaleIntercept = str(storage.intercept)
    ds.RescaleSlope = "1"
    ds.RescaleType = "HU"


def _slice(common: Dataset, phantom: Phantom, k: int, hu: Field) -> Dataset:
    """The file of one slice. Instances are numbered from the head."""
    from copy import deepcopy

    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

    geometry = phantom.geometry
    from_head = geometry.normal_lps[2] < 0
    number = k + 1 if from_head else geometry.shape[0] - k
    ds = deepcopy(common)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPInstanceUID = _uid(phantom, "slice", k)
    ds.InstanceNumber = number
    origin = geometry.origins_lps_mm[k]
    ds.ImagePositionPatient = [_text(x) for x in origin]
    directions = (unit(geometry.column_step_lps_mm), unit(geometry.row_step_lps_mm))
    ds.ImageOrientationPatient = [_text(x) for d in directions for x in d]
    ds.SliceLocation = _text(origin[2])
    stored = (phantom.stored_hu(hu) - phantom.storage.intercept).astype("<u2")
    ds.PixelData = stored.tobytes()
    if phantom.storage.jpeg_ls:
        ds.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    return ds


def _text(value: Any) -> str:
    """A decimal string of at most 16 characters."""
    text = f"{float(value):.10f}".rstrip("0").rstrip(".")
    return text[:16] if text not in ("-0", "") else "0"
