"""The figure of a result as a DICOM secondary capture: the key image beside report and segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from spineimg.export.dicom_source import MAKER, Source, created_at, stable_uid
from spineimg.export.drawing import DPI, Sheet

SERIES_NUMBER = 9803


def pixels(sheet: Sheet) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3) RGB of a page."""
    canvas: Any = sheet.figure.canvas
    sheet.figure.set_dpi(DPI)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def secondary_capture(
    source: Source, picture: npt.NDArray[np.uint8], document: Mapping[str, Any], mark: str
) -> Dataset:
    """A picture as a secondary capture of the source's study.

    picture: (rows, columns, 3) RGB without anything that tells the patient: the object says that none is burned in.
    document: the dict of the result file. mark: its fingerprint, from which all UIDs follow.
    """
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = stable_uid(mark, "SC")
    dataset.SeriesInstanceUID = stable_uid(mark, "SC series")
    dataset.SeriesNumber, dataset.InstanceNumber = SERIES_NUMBER, 1
    dataset.Modality, dataset.ConversionType = "OT", "WSD"
    dataset.SeriesDescription = "spineimg figure"
    dataset.Manufacturer = dataset.SecondaryCaptureDeviceManufacturer = MAKER
    dataset.ManufacturerModelName = dataset.SecondaryCaptureDeviceManufacturerModelName = MAKER
    version = str(document["made_by"].get("spineimg"))
    dataset.SoftwareVersions = dataset.SecondaryCaptureDeviceSoftwareVersions = version
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.PatientOrientation = dataset.Laterality = ""
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    content = np.ascontiguousarray(picture, dtype=np.uint8).tobytes()
    dataset.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))
    source.stamp(dataset, created_at(document))
    dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = dataset.ContentDate, dataset.ContentTime
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
