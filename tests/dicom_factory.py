"""Writes unfriendly CT series: every way in which scanners, archives and anonymisers make a folder hard to read.

A `Lattice` says where voxels are, an array what they hold; `write_series` and `write_enhanced` turn both into files and
return the truth (`Written`). File names are shuffled, InstanceNumber and SliceLocation lie, SliceThickness is not the
spacing, rows and columns differ in number and spacing, and no two slices or voxels are alike, so that a reader that
sorts by name, takes a spacing from the wrong tag or swaps an axis cannot pass by luck.
"""

from __future__ import annotations

import base64
import itertools
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openjpeg
import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from spineimg.volume import CTVolume

FloatArray = npt.NDArray[np.float64]
Tags = Mapping[str, Any]

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
"""Every lossless transfer syntax this module can write from any array. HTJ2K has `htj2k_series` of its own."""

PATIENT = {"PatientName": "Zyxwv^Qwertz", "PatientID": "ID-4711-0815", "PatientBirthDate": "19310507"}
"""Who the patient of every written file is. None of it may turn up in a result."""

_counter = itertools.count(1)


# -- where voxels are -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Lattice:
    """Slices in DICOM's own terms.

    origins_lps_mm: (slices, 3) ImagePositionPatient; orientation: (6,) ImageOrientationPatient, the direction of
    increasing column first; spacing_mm: (between rows, between columns) as in PixelSpacing.
    """

    origins_lps_mm: FloatArray
    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    spacing_mm: tuple[float, float] = (0.7, 0.9)

    @property
    def row_step_lps_mm(self) -> FloatArray:
        return np.array(self.orientation[3:]) * self.spacing_mm[0]

    @property
    def column_step_lps_mm(self) -> FloatArray:
        return np.array(self.orientation[:3]) * self.spacing_mm[1]

    def lps(self, k: int, row: float, column: float) -> FloatArray:
        """(3,) LPS mm of a voxel of slice k, by equation C.7.6.2.1-1 of DICOM PS3.3."""
        return self.origins_lps_mm[k] + row * self.row_step_lps_mm + column * self.column_step_lps_mm

    def keep(self, slices: Sequence[int]) -> Lattice:
        return replace(self, origins_lps_mm=self.origins_lps_mm[list(slices)])

    @classmethod
    def from_affine(cls, count: int, lps_from_index: npt.ArrayLike) -> Lattice:
        """lps_from_index: (4, 4), (slice, row, column, 1) -> LPS mm."""
        a = np.asarray(lps_from_index, dtype=np.float64)
        row, column = np.linalg.norm(a[:3, 1]), np.linalg.norm(a[:3, 2])
        orientation = tuple(float(x) for x in (*(a[:3, 2] / column), *(a[:3, 1] / row)))
        return cls(a[:3, 3] + np.arange(count)[:, None] * a[:3, 0], orientation, (float(row), float(column)))


START = np.array([-12.34, 45.67, 301.25])


def axial(count: int, step: float = 1.5, start: npt.ArrayLike = START) -> Lattice:
    """Head first, supine."""
    return axial_at(np.arange(count) * step, start)


def axial_at(z_mm: npt.ArrayLike, start: npt.ArrayLike = START) -> Lattice:
    """Axial slices at these places above `start`, in this order."""
    z = np.asarray(z_mm, dtype=np.float64)
    return Lattice(np.asarray(start) + z[:, None] * [0.0, 0.0, 1.0])


def prone(count: int, step: float = 1.5) -> Lattice:
    """Head first, prone: both in-plane directions are turned about."""
    return replace(axial(count, step), orientation=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0))


def feet_first(count: int, step: float = 1.5) -> Lattice:
    """Feet first, supine, as lying on the table: columns run to the right, so the slice normal points to the feet."""
    return replace(axial(count, step), orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


def oblique(count: int, step: float = 1.5, degrees: float = 11.0) -> Lattice:
    """A rectangular lattice turned about x by `degrees` and then about z by 4 degrees."""
    a, b = np.radians(degrees), np.radians(4.0)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    column, row, normal = (about_z @ about_x).T
    return Lattice(START + np.arange(count)[:, None] * step * normal, (*column.tolist(), *row.tolist()))


def tilted(count: int, step: float = 1.5, degrees: float = 15.0) -> Lattice:
    """Gantry tilt: planes turned about x, the table still moving along z. `step` is the table's."""
    a = np.radians(degrees)
    return replace(axial(count, step), orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(a)), float(-np.sin(a))))


def coronal(count: int, step: float = 2.0) -> Lattice:
    return Lattice(START + np.arange(count)[:, None] * step * np.array([0.0, 1.0, 0.0]), (1, 0, 0, 0, 0, -1))


def sagittal(count: int, step: float = 2.0) -> Lattice:
    return Lattice(START + np.arange(count)[:, None] * step * np.array([1.0, 0.0, 0.0]), (0, 1, 0, 0, 0, -1))


# -- what voxels hold -------------------------------------------------------------------------------------------------


def pattern(count: int, rows: int = 12, columns: int = 17, seed: int = 7) -> npt.NDArray[np.int16]:
    """(count, rows, columns) whole HU in -1000…2000 without two equal slices or a flat region."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 2000, (count, rows, columns), dtype=np.int16)


def linear_field(lattice: Lattice, rows: int = 12, columns: int = 17) -> npt.NDArray[np.int16]:
    """HU that tell their own place: 200 + 11 x + 7 y + 3 (z - 300), rounded, with (x, y, z) in LPS mm."""
    k = len(lattice.origins_lps_mm)
    r, c = np.mgrid[0:rows, 0:columns].astype(np.float64)
    points = lattice.origins_lps_mm[:, None, None] + (
        r[..., None] * lattice.row_step_lps_mm + c[..., None] * lattice.column_step_lps_mm
    )
    assert points.shape[0] == k
    return np.round(field_hu(points)).astype(np.int16)


def field_hu(point_lps_mm: FloatArray) -> FloatArray:
    """(..., 3) LPS mm -> HU of `linear_field` before rounding."""
    return 200 + (point_lps_mm - [0.0, 0.0, 300.0]) @ np.array([11.0, 7.0, 3.0])


# -- how they are written ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoding:
    """How HU become bytes. slope and intercept: one number, or one a slice.

    padding_vr is the VR in which PixelPaddingValue is written: "US" with signed pixels (or "SS" with unsigned ones) is
    the unsigned twin that some scanners write. junk_bits fills the bits above `bits_stored`, as embedded overlays do.
    """

    signed: bool = False
    bits_stored: int = 12
    slope: float | Sequence[float] = 1.0
    intercept: float | Sequence[float] = -1024.0
    padding: int | None = None
    padding_limit: int | None = None
    padding_vr: str = ""
    transfer_syntax: str = ExplicitVRLittleEndian
    junk_bits: bool = False

    def rescale(self, k: int) -> tuple[float, float]:
        def of(value: float | Sequence[float]) -> float:
            return float(value) if isinstance(value, int | float) else float(value[k])

        return of(self.slope), of(self.intercept)

    def stored(self, k: int, hu: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(rows, columns) stored values of slice k, in the file's own pixel type."""
        slope, intercept = self.rescale(k)
        values = np.round((hu.astype(np.float64) - intercept) / slope)
        low, high = (
            (-(1 << self.bits_stored - 1), (1 << self.bits_stored - 1) - 1)
            if self.signed
            else (0, (1 << self.bits_stored) - 1)
        )
        if values.min() < low or values.max() > high:
            raise ValueError(f"HU {hu.min()}…{hu.max()} do not fit {self.bits_stored} bits with {slope}, {intercept}")
        return values.astype(np.int16 if self.signed else np.uint16)

    def hu(self, k: int, stored: npt.NDArray[Any]) -> FloatArray:
        slope, intercept = self.rescale(k)
        return stored.astype(np.float64) * slope + intercept


@dataclass(frozen=True)
class Layout:
    """How files lie about.

    preamble: "dicm" as the standard has it, "bare" without the 128 bytes and DICM, "dataset" without file meta too.
    """

    nested: bool = False
    named: bool = False
    preamble: str = "dicm"
    private_bytes: int = 0
    clutter: bool = False
    seed: int = 5


@dataclass(frozen=True, eq=False)
class Written:
    """The truth of a written series, slices in the lattice's order."""

    folder: Path
    paths: tuple[Path, ...]
    series_uid: str
    sop_uids: tuple[str, ...]
    lattice: Lattice
    hu: FloatArray = field(repr=False)
    """(slices, rows, columns) after the trip through stored values."""
    stored: npt.NDArray[Any] = field(repr=False)


def new_uid(name: str = "series") -> str:
    """A UID that is new within one run and the same in every run."""
    return str(generate_uid(entropy_srcs=["spineimg tests", name, str(next(_counter))]))


def write_series(
    folder: Path,
    hu: npt.NDArray[Any],
    lattice: Lattice,
    *,
    encoding: Encoding = Encoding(),
    layout: Layout = Layout(),
    tags: Tags | None = None,
    slice_tags: Mapping[int, Tags] | None = None,
    series_uid: str | None = None,
) -> Written:
    """One file a slice. hu: (slices, rows, columns). `tags` go into every file, `slice_tags[k]` into slice k's; a tag
    whose value is None is left out of the file. Returns the truth."""
    count = len(lattice.origins_lps_mm)
    uid = series_uid or new_uid()
    order = np.random.default_rng(layout.seed + count).permutation(count)
    stored = np.stack([encoding.stored(k, hu[k]) for k in range(count)])
    paths, sops = [], []
    for k in range(count):
        ds = _slice_dataset(uid, lattice, k, int(order[k]))
        _set_pixel_tags(ds, encoding, stored[k].shape, encoding.rescale(k))
        for name, value in {**(tags or {}), **((slice_tags or {}).get(k, {}))}.items():
            set_tag(ds, name, value)
        path = folder / _file_name(layout, k, int(order[k]), uid)
        write_file(path, ds, stored[k][None], encoding, layout)
        paths.append(path)
        sops.append(str(ds.SOPInstanceUID))
    truth = np.stack([encoding.hu(k, stored[k]) for k in range(count)])
    return Written(folder, tuple(paths), uid, tuple(sops), lattice, truth, stored)


def write_file(
    path: Path, ds: Dataset, frames: npt.NDArray[Any], encoding: Encoding, layout: Layout = Layout()
) -> None:
    """Writes ds with these stored frames, (frames, rows, columns), in the transfer syntax of `encoding`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if layout.clutter:
        _add_clutter(ds)
    if layout.private_bytes:
        block = ds.private_block(0x0029, "SPINEIMG TESTS", create=True)
        block.add_new(0x10, "OB", bytes(range(256)) * (layout.private_bytes // 256))
    syntax = encoding.transfer_syntax
    written_as = syntax if syntax not in (JPEGLossless, JPEGLosslessSV1) else ExplicitVRLittleEndian
    if encoding.junk_bits:
        frames = frames.view(np.uint16) | np.uint16(0xFFFF << encoding.bits_stored & 0xFFFF)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = written_as
    _set_pixels(ds, frames, encoding.bits_stored, written_as)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deliberately odd values
        ds.save_as(path, enforce_file_format=True)
    if written_as != syntax:
        _transcode(path, syntax)
    if layout.preamble != "dicm":
        strip_preamble(path, meta_too=layout.preamble == "dataset")


def set_tag(ds: Dataset, name: str, value: Any) -> None:
    """Sets a keyword; None removes it. A DataElement is taken as it is, whatever its VR."""
    if isinstance(value, DataElement):
        ds[value.tag] = value
    elif value is None:
        if name in ds:
            delattr(ds, name)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setattr(ds, name, value)


def recode(path: Path, syntax: str, frame: bytes) -> None:
    """Puts one coded frame in place of a file's pixels."""
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)


def strip_preamble(path: Path, *, meta_too: bool) -> None:
    """Cuts the 128 bytes and DICM, and with meta_too the file meta group as well (then implicit little endian)."""
    content = path.read_bytes()[132:]
    if meta_too:
        content = content[12 + struct.unpack("<I", content[8:12])[0] :]
    path.write_bytes(content)


def truncate(path: Path, keep: int | float) -> None:
    """Cuts the file to so many bytes, or to a fraction of its size."""
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])


def _slice_dataset(series_uid: str, lattice: Lattice, k: int, shuffled: int) -> Dataset:
    ds = _patient_dataset(CTImageStorage, series_uid)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.KVP = "120"
    ds.ConvolutionKernel = "B30f"
    ds.SliceThickness = "1.25"
    ds.InstanceNumber = str(shuffled + 1)
    ds.SliceLocation = f"{100.0 - 13.0 * shuffled:.1f}"
    ds.ImagePositionPatient = [ds_text(x) for x in lattice.origins_lps_mm[k]]
    ds.ImageOrientationPatient = [ds_text(x) for x in lattice.orientation]
    ds.PixelSpacing = [ds_text(x) for x in lattice.spacing_mm]
    return ds


def _patient_dataset(sop_class: str, series_uid: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = new_uid("instance")
    ds.StudyDate, ds.StudyTime = "20240229", "093000"
    ds.Modality = "CT"
    ds.Manufacturer, ds.ManufacturerModelName = "Acme Ltd", "Model Ä7"
    ds.StudyDescription, ds.SeriesDescription = "Spine", "Spine 1.5 B30f"
    for name, value in PATIENT.items():
        setattr(ds, name, value)
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = str(generate_uid(entropy_srcs=["spineimg tests", "study"]))
    ds.SeriesInstanceUID = series_uid
    ds.FrameOfReferenceUID = str(generate_uid(entropy_srcs=["spineimg tests", "frame of reference"]))
    ds.SeriesNumber = "3"
    return ds


def ds_text(value: float) -> str:
    """A decimal string of at most 16 bytes, as exact as that allows."""
    return str(pydicom.valuerep.DSfloat(float(value), auto_format=True))


def _set_pixel_tags(
    ds: Dataset, encoding: Encoding, shape: tuple[int, ...], rescale: tuple[float, float] | None
) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, encoding.bits_stored, encoding.bits_stored - 1
    ds.PixelRepresentation = int(encoding.signed)
    own_vr = "SS" if encoding.signed else "US"
    if encoding.padding is not None:
        ds.add_new("PixelPaddingValue", encoding.padding_vr or own_vr, encoding.padding)
    if encoding.padding_limit is not None:
        ds.add_new("PixelPaddingRangeLimit", encoding.padding_vr or own_vr, encoding.padding_limit)
    if rescale is not None:
        ds.RescaleSlope, ds.RescaleIntercept = ds_text(rescale[0]), ds_text(rescale[1])
        ds.RescaleType = "HU"


def _set_pixels(ds: Dataset, frames: npt.NDArray[Any], bits_stored: int, syntax: str) -> None:
    if syntax == JPEG2000Lossless:
        coded = [openjpeg.encode(frame, bits_stored=bits_stored) for frame in frames]
        ds.PixelData = encapsulate(coded)
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        return
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW"
    if syntax in (RLELossless, JPEGLSLossless, JPEGLSNearLossless):
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        options: dict[str, Any] = {"jls_error": 4} if syntax == JPEGLSNearLossless else {}
        if syntax == RLELossless:
            options["encoding_plugin"] = "pydicom"  # gdcm's encoder ends the process on 8 of 16 bits
        ds.compress(syntax, generate_instance_uid=False, **options)


def _transcode(path: Path, syntax: str) -> None:
    """JPEG lossless, which only gdcm writes."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    kind = {
        JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
        JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    }
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind[syntax]))
    if not reader.Read():
        raise ValueError(f"gdcm cannot read {path}")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise ValueError(f"gdcm cannot write {path} as {syntax}")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise ValueError(f"gdcm cannot write {path} as {syntax}")


def _add_clutter(ds: Dataset) -> None:
    """What a header may hold: sequences of undefined length, private elements, an icon with pixels of its own."""
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation, icon.Rows, icon.Columns = 1, "MONOCHROME2", 4, 6
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
    icon.add_new("PixelData", "OB", bytes(range(24)))
    ds.IconImageSequence = [icon]
    deep = Dataset()
    deep.ReferencedSOPInstanceUID = "1.2.3.4"
    deep.ImagePositionPatient = ["999", "999", "999"]
    deep.PixelSpacing = ["9", "9"]
    ds.SourceImageSequence = [deep, Dataset(), deep]
    for name in ("IconImageSequence", "SourceImageSequence"):
        ds[name].is_undefined_length = True
        for item in ds[name].value:
            item.is_undefined_length_sequence_item = True
    block = ds.private_block(0x0009, "ODD VENDOR", create=True)
    block.add_new(0x01, "UN", b"\x00\x01\x02" * 7 + b"\x00")
    block.add_new(0x02, "LO", "private text")
    nested = Dataset()
    nested.private_block(0x0009, "ODD VENDOR", create=True).add_new(0x03, "FD", 1.25)
    block.add_new(0x04, "SQ", DicomSequence([nested]))
    ds.add_new((0xFFFC, 0xFFFC), "OB", b"\x00" * 64)


def _file_name(layout: Layout, k: int, shuffled: int, uid: str) -> str:
    if layout.named:
        return f"slice_{k:04d}.dcm"
    name = f"{(shuffled * 7919 + 104729) % 999983:06d}{uid[-6:].replace('.', '_')}"
    return f"{'ABC'[shuffled % 3]}/{shuffled % 2}/{name}" if layout.nested else name


# -- several frames in one file ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Where Enhanced CT says what. A value that differs between frames goes into the frames in any case."""

    orientation_per_frame: bool = False
    spacing_per_frame: bool = False
    rescale_per_frame: bool = False
    stack_ids: Sequence[str] = ()
    """Stack of each frame; one stack when empty."""
    frame_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
    frame_types: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    thickness_mm: float = 1.25


def write_enhanced(
    path: Path,
    hu: npt.NDArray[Any],
    lattices: Sequence[Lattice],
    *,
    encoding: Encoding = Encoding(),
    groups: Groups = Groups(),
    shuffle: bool = True,
    tags: Tags | None = None,
) -> Written:
    """One Enhanced CT file with the slices of all `lattices` one after the other, frames in shuffled order.

    hu: (all slices, rows, columns). The truth is given in the lattices' order; `Written.lattice` is the first one with
    the origins of all.
    """
    places = [(lattice, k) for lattice in lattices for k in range(len(lattice.origins_lps_mm))]
    stored = np.stack([encoding.stored(i, hu[i]) for i in range(len(places))])
    order = np.random.default_rng(3).permutation(len(places)) if shuffle else np.arange(len(places))
    ds = _patient_dataset(EnhancedCTImageStorage, new_uid())
    ds.ImageType = list(groups.frame_type)
    _set_pixel_tags(ds, encoding, stored.shape[1:], None)
    ds.NumberOfFrames = len(places)
    ds.SharedFunctionalGroupsSequence = [_shared_groups(lattices, encoding, groups)]
    ds.PerFrameFunctionalGroupsSequence = [_frame_groups(places[i], int(i), encoding, groups, lattices) for i in order]
    for name, value in (tags or {}).items():
        set_tag(ds, name, value)
    write_file(path, ds, stored[order], encoding)
    origins = np.concatenate([lattice.origins_lps_mm for lattice in lattices])
    truth = np.stack([encoding.hu(i, stored[i]) for i in range(len(places))])
    lattice = replace(lattices[0], origins_lps_mm=origins)
    return Written(path.parent, (path,), str(ds.SeriesInstanceUID), (str(ds.SOPInstanceUID),), lattice, truth, stored)


def _item(**values: Any) -> DicomSequence:
    ds = Dataset()
    for name, value in values.items():
        setattr(ds, name, value)
    return DicomSequence([ds])


def _measures(lattice: Lattice, groups: Groups) -> DicomSequence:
    spacing = [ds_text(x) for x in lattice.spacing_mm]
    return _item(PixelSpacing=spacing, SliceThickness=ds_text(groups.thickness_mm))


def _plane(lattice: Lattice) -> DicomSequence:
    return _item(ImageOrientationPatient=[ds_text(x) for x in lattice.orientation])


def _values(encoding: Encoding, i: int) -> DicomSequence:
    slope, intercept = encoding.rescale(i)
    return _item(RescaleSlope=ds_text(slope), RescaleIntercept=ds_text(intercept), RescaleType="HU")


def _in_frames(lattices: Sequence[Lattice], encoding: Encoding, groups: Groups) -> tuple[bool, bool, bool]:
    """(orientation, spacing, rescale): is it said by each frame?"""
    return (
        groups.orientation_per_frame or len({tuple(lattice.orientation) for lattice in lattices}) > 1,
        groups.spacing_per_frame or len({lattice.spacing_mm for lattice in lattices}) > 1,
        groups.rescale_per_frame or not isinstance(encoding.slope, float) or not isinstance(encoding.intercept, float),
    )


def _shared_groups(lattices: Sequence[Lattice], encoding: Encoding, groups: Groups) -> Dataset:
    orientation, spacing, rescale = _in_frames(lattices, encoding, groups)
    ds = Dataset()
    ds.CTReconstructionSequence = _item(ConvolutionKernel="B30f")
    ds.CTXRayDetailsSequence = _item(KVP="120")
    ds.CTImageFrameTypeSequence = _item(FrameType=list(groups.frame_type))
    if not orientation:
        ds.PlaneOrientationSequence = _plane(lattices[0])
    if not spacing:
        ds.PixelMeasuresSequence = _measures(lattices[0], groups)
    if not rescale:
        ds.PixelValueTransformationSequence = _values(encoding, 0)
    return ds


def _frame_groups(
    place: tuple[Lattice, int], i: int, encoding: Encoding, groups: Groups, lattices: Sequence[Lattice]
) -> Dataset:
    lattice, k = place
    orientation, spacing, rescale = _in_frames(lattices, encoding, groups)
    ds = Dataset()
    stack = groups.stack_ids[i] if groups.stack_ids else "1"
    ds.FrameContentSequence = _item(StackID=stack, InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
    ds.PlanePositionSequence = _item(ImagePositionPatient=[ds_text(x) for x in lattice.origins_lps_mm[k]])
    if orientation:
        ds.PlaneOrientationSequence = _plane(lattice)
    if spacing:
        ds.PixelMeasuresSequence = _measures(lattice, groups)
    if rescale:
        ds.PixelValueTransformationSequence = _values(encoding, i)
    if i in groups.frame_types:
        ds.CTImageFrameTypeSequence = _item(FrameType=list(groups.frame_types[i]))
    return ds


# -- HTJ2K ------------------------------------------------------------------------------------------------------------

_HTJ2K_FRAME = base64.b64decode(
    """
/0//UQApQAAAAAAYAAAAFAAAAAAAAAAAAAAAGAAAABQAAAAAAAAAAAABCwEB/1AACAACAAAAB/9SAAwAAgABAAIEBEAB/1wACiBw
eHh4cHB4/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAABiwAB/5PAAXagzx/mES/YHMOyrN13pMJLj+FsUm0A+9zy1GqZ
mogTSAm7mQ/TQDiuPfoAh+zhGcwAhAKpvADAALbgAFtwAC2glIA5VOxmQgjgAEJtt4TG4hPpb/O40iC2dFsAoliQiQM5gpJoUFre
rsb+AR6EIHuev6FAwFwAQY+YTkWKiWSioV4S/ojuSA/Z2mGo4tknOwDAAXpUABeqQAC9BDDJiAGaZMLhiU6g/0MjA6uBLHw/pGnt
n8uZcA8g4TwU9ZPgP5RC5A1o2GYnhhqAZrlpGjfc4xhxD46VBP7OLnCJZGPkz6ikb3wBFFhRSABHJCPezy8EIpLyTIgUy/fvUHsJ
A9YbACOIH8gH88F8uB62h27hWwg/AO08QO38kHEA9T5HYIBAAixUxp2U6rsvvJJO562LNdGylmtI01ECiBD6EfAfQnDx2NdAZxx0
FwCMLwTzvwdEO4AIb3zftgsAsQIXnQ/j+KZTz42NI2nTXFl7uFuer8+jAJU/x1HPcAL/2Q==
    """
)


def htj2k_series(folder: Path, count: int = 3) -> Written:
    """A series whose every slice is one lossless HTJ2K frame, made once with OpenJPH: stored value at (row, column) of
    20 rows and 24 columns is (97 row + 53 column + (row * column mod 17)) mod 3000 + 24."""
    r, c = np.mgrid[0:20, 0:24]
    stored = ((97 * r + 53 * c + (r * c) % 17) % 3000 + 24).astype(np.uint16)
    hu = np.repeat(stored[None].astype(np.float64) - 1024, count, axis=0)
    written = write_series(folder, hu, axial(count))
    for path in written.paths:
        recode(path, HTJ2KLossless, _HTJ2K_FRAME)
    return written


# -- the truth held against a volume ----------------------------------------------------------------------------------


def truth_slice(written: Written, hu: npt.NDArray[Any]) -> int:
    """Which written slice has these pixels. Fails when none has."""
    away = np.abs(written.hu - hu).reshape(len(written.hu), -1).max(axis=1)
    best = int(np.argmin(away))
    assert away[best] <= 1e-3, f"no written slice has these pixels: the nearest is {away[best]:g} HU off"
    return best


def worst_position_mm(volume: CTVolume, written: Written) -> float:
    """Largest distance, over all corner voxels, between where the volume says a voxel is and where it was written.

    Slices are recognised by their pixels alone, so the measure trusts neither names, numbers nor positions.
    """
    worst = 0.0
    rows, columns = volume.geometry.shape[1:]
    for k in range(volume.geometry.shape[0]):
        true = truth_slice(written, volume.read(k))
        for r, c in itertools.product((0, rows - 1), (0, columns - 1)):
            off = volume.geometry.lps_at((k, r, c)) - written.lattice.lps(true, r, c)
            worst = max(worst, float(np.linalg.norm(off)))
    return worst
