"""NIfTI, NRRD and MetaImage volumes.

The headers are judged here, before a byte of pixels is read, because the usual readers take a missing orientation for
the identity and allocate whatever a header declares. A stored index is (i, j, k), fastest axis first.

Axes: the slice axis is the stored axis nearest to LPS z, the row axis the one nearest to y of the other two, the
column axis the third. Each is turned so that slices ascend to the head, rows to the back and columns to the left. A
volume is thereby the same in all 48 orders in which its voxels can be stored. Nothing is resampled.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from spineimg.errors import GeometryError, PixelError, SeriesError
from spineimg.geometry import FloatArray, Geometry
from spineimg.notes import Note
from spineimg.volume import CTVolume, HUArray, SeriesInfo, Verdict

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MOST_VOXELS_A_SIDE = 20_000
"""A side longer than this is a broken header; the longest CT has a few thousand slices."""
MOST_VOXELS = 4_000_000_000
"""8 GB as int16: more cannot be held where it must be unpacked."""
MOST_INFLATION = 1032
"""Deflate cannot pack more tightly than 1032:1 (zlib, technical details), so a header that declares more is wrong."""
HEADER_BYTES = 1 << 20
"""A text header ends within this; those of segmentations with hundreds of segments take about 100 kB."""
FORMS_AGREE_MM = 0.01
"""NIfTI holds two affines; nearer than this at every corner they are the same. It is what positions are held to."""
TILT_NOTED_DEG = 0.5
"""Shear below this moves a slice by less than 1 % of the spacing; engineering choice."""
NO_MEASUREMENT_BELOW_HU = -1500.0
"""Air is -1000 HU; scanners fill the corners outside their field of view with -2000 or less. Engineering choice."""
NORMALISED_BELOW = 10.0
"""A volume without a value this far from 0 was normalised. Engineering choice."""
OFFSET_ABOVE_HU = 1800.0
"""A volume without negative values that reaches this holds HU + 1024. Engineering choice: cortex plus the offset."""
SAMPLED_SLICES = 5
"""Slices that are looked at to tell HU from other numbers."""

_INFLATE_CHUNK = 1 << 18
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, eq=False, slots=True)
class GridHeader:
    """How a file stores its voxels.

    path: the file as named by the caller; data: the file with the voxels, from byte `offset` on. A deflated file is
    unpacked from there, and `skip` bytes of what comes out precede the voxels.
    shape: (i, j, k), fastest axis first. lps_from_stored: (4, 4), (i, j, k, 1) -> LPS mm.
    value = slope * stored + intercept.
    """

    path: Path
    data: Path
    offset: int
    deflated: bool
    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    lps_from_stored: FloatArray
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[Note, ...] = ()

    @property
    def slab_bytes(self) -> int:
        """Size of one plane of the slowest axis."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


# -- NIfTI ------------------------------------------------------------------------------------------------------------


def _nifti_header(path: Path) -> GridHeader:
    deflated = _peek(path, 2) == b"\x1f\x8b"
    with path.open("rb") as file:
        block = (_Inflated(file, path) if deflated else file).read(540)
    header = _parsed_nifti(path, block)
    dimensions = [int(n) for n in header["dim"]]
    sides = dimensions[1 : dimensions[0] + 1] if 1 <= dimensions[0] <= 7 else []
    if not sides or min(sides) < 1:
        raise SeriesError(f"{path}: its header declares no volume (dim = {dimensions})")
    if any(side != 1 for side in sides[3:]):
        raise SeriesError(f"{path}: holds several volumes (dim = {dimensions}), one is needed: export a single frame")
    first, second, third = (*sides, 1, 1)[:3]
    shape = (first, second, third)
    least = 544 if int(header["sizeof_hdr"]) == 540 else 352
    start = float(header["vox_offset"])
    if not (start == 0 or (least <= start <= HEADER_BYTES and start.is_integer())):
        raise SeriesError(f"{path}: its header puts the voxels at byte {start:g} (vox_offset), where they cannot be")
    offset, skip = (0, int(start) or least) if deflated else (int(start) or least, 0)
    dtype = _nifti_dtype(path, header)
    affine, notes = _nifti_affine(path, header, shape)
    slope, intercept = _nifti_scaling(path, header)
    return GridHeader(path, path, offset, deflated, dtype, shape, affine, skip, slope, intercept, notes)


def _parsed_nifti(path: Path, block: bytes) -> Any:
    import nibabel

    for size, kind in ((348, nibabel.Nifti1Header), (540, nibabel.Nifti2Header)):
        for order in "<>":
            if len(block) >= size and struct.unpack(f"{order}i", block[:4])[0] == size:
                header = kind(block[:size], endianness=order, check=False)
                if bytes(header["magic"])[:3] in (b"n+1", b"n+2"):
                    return header
    raise SeriesError(f"{path}: not a NIfTI file in one piece (no header of NIfTI-1 or NIfTI-2 with magic n+1 or n+2)")


def _nifti_dtype(path: Path, header: Any) -> np.dtype[Any]:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        raise SeriesError(f"{path}: unknown type of voxels (datatype = {int(header['datatype'])})") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise SeriesError(f"{path}: its voxels are {dtype}, one number a voxel is needed (no colour, no complex)")
    return dtype


def _nifti_scaling(path: Path, header: Any) -> tuple[float, float]:
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise SeriesError(f"{path}: its scaling (scl_slope, scl_inter) makes no sense: {error}") from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _nifti_affine(path: Path, header: Any, shape: tuple[int, int, int]) -> tuple[FloatArray, tuple[Note, ...]]:
    """(4, 4) LPS from stored: the sform where its code is set, else the qform. Raises GeometryError for neither."""
    from nibabel.spatialimages import HeaderDataError

    units = int(header["xyzt_units"]) & 7
    if units not in (0, 2):
        raise GeometryError(f"{path}: its lengths are not in mm (xyzt_units = {units}): convert it to mm")
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        qform, qform_code = np.full((4, 4), np.nan), int(header["qform_code"])
    if sform_code <= 0 and qform_code <= 0:
        raise GeometryError(
            f"{path}: tells no position in the patient (sform_code and qform_code are 0): export it again with one"
        )
    used = sform if sform_code > 0 else qform
    if not np.isfinite(used).all():
        raise GeometryError(f"{path}: its {'sform' if sform_code > 0 else 'qform'} holds numbers that are not finite")
    affine = LPS_FROM_RAS @ np.asarray(used, dtype=np.float64)
    if sform_code <= 0 or qform_code <= 0:
        return affine, ()
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(shape, dtype=np.float64) - 1
    with np.errstate(invalid="ignore", over="ignore"):
        apart = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart <= FORMS_AGREE_MM:
        return affine, ()
    text = f"the file's two orientations, sform and qform, are up to {apart:.2f} mm apart; the sform was used"
    return affine, (Note("orientations_disagree", text),)


# -- NRRD -------------------------------------------------------------------------------------------------------------

_NRRD_TYPES = {
    name: code
    for code, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
_NRRD_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}


def _nrrd_header(path: Path) -> GridHeader:
    fields, end = _nrrd_fields(path)
    for name in ("line skip", "byte skip", "lineskip", "byteskip"):
        if fields.get(name, "0") != "0":
            raise SeriesError(f"{path}: its field {name!r} is not supported: save it again in one file")
    code = _NRRD_TYPES.get(_needed(path, fields, "type").lower())
    if code is None:
        raise SeriesError(f"{path}: its voxels are of type {fields['type']!r}, one number a voxel is needed")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and code[1] != "1":
        raise SeriesError(f"{path}: its field 'endian' is {fields.get('endian')!r}, it must be little or big")
    encoding = _needed(path, fields, "encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise SeriesError(f"{path}: its encoding {encoding!r} is not supported: save it as raw or gzip")
    data, offset = _data_place(path, fields.get("data file", fields.get("datafile", "")), end)
    shape, affine = _nrrd_lattice(path, fields)
    return GridHeader(path, data, offset, encoding != "raw", np.dtype((order or "<") + code), shape, affine)


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of the header and the byte after it."""
    fields: dict[str, str] = {}
    end = 0
    for number, (line, line_end) in enumerate(_header_lines(path)):
        end = line_end
        if number == 0 and not re.fullmatch(r"NRRD000[1-5]", line):
            break
        if number and not line:
            return fields, end
        field = re.match(r"([^:#]+):(?!=)\s*(.*)", line)
        if field:
            fields[field[1].strip().lower()] = field[2].strip()
    if not fields:
        raise SeriesError(f"{path}: not an NRRD file")
    return fields, end


def _nrrd_lattice(path: Path, fields: Mapping[str, str]) -> tuple[tuple[int, int, int], FloatArray]:
    dimension = _whole_numbers(path, "dimension", _needed(path, fields, "dimension"), 1)[0]
    if not 3 <= dimension <= 16:
        raise SeriesError(f"{path}: has {dimension} dimensions, three are needed")
    sides = _whole_numbers(path, "sizes", _needed(path, fields, "sizes"), dimension)
    space = fields.get("space", "").lower()
    if space not in _NRRD_SPACES:
        raise GeometryError(
            f"{path}: its field 'space' is {space or 'absent'}, so positions in the patient are unknown: save it again "
            "with left-posterior-superior"
        )
    vectors = re.findall(r"none|\([^()]*\)", _needed(path, fields, "space directions", GeometryError))
    if len(vectors) != dimension or dimension - vectors.count("none") != 3:
        raise GeometryError(
            f"{path}: 'space directions' must name three spatial axes, found {fields['space directions']}"
        )
    if any(side != 1 for side, vector in zip(sides, vectors, strict=True) if vector == "none"):
        raise SeriesError(
            f"{path}: holds several numbers a voxel or several frames (sizes {fields['sizes']}), one is needed"
        )
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if not units <= {"mm", ""}:
        raise GeometryError(f"{path}: its lengths are not in mm ('space units' is {fields['space units']})")
    spatial = [(side, vector) for side, vector in zip(sides, vectors, strict=True) if vector != "none"]
    affine = np.eye(4)
    for axis, (_, vector) in enumerate(spatial):
        affine[:3, axis] = _numbers(path, "space directions", vector, 3)
    affine[:3, 3] = _numbers(path, "space origin", _needed(path, fields, "space origin", GeometryError), 3)
    affine[:3] *= np.array(_NRRD_SPACES[space])[:, None]
    return (spatial[0][0], spatial[1][0], spatial[2][0]), affine


# -- MetaImage --------------------------------------------------------------------------------------------------------

_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_META_ALIASES = {
    "rotation": "transformmatrix",
    "orientation": "transformmatrix",
    "position": "offset",
    "origin": "offset",
    "elementsize": "elementspacing",
    "elementbyteordermsb": "binarydatabyteordermsb",
}
_META_FIXED = {
    "ndims": "3",
    "binarydata": "true",
    "elementnumberofchannels": "1",
    "headersize": "0",
    "elementtointensityfunctionslope": "1",
    "elementtointensityfunctionoffset": "0",
    "distanceunits": "mm",
}
"""Keys that change the meaning of the rest, with the one value that is read."""


def _meta_header(path: Path) -> GridHeader:
    fields, end = _meta_fields(path)
    for key, value in _META_FIXED.items():
        if fields.get(key, value).lower() not in (value, f"{value}.0"):
            raise SeriesError(f"{path}: its {key} is {fields[key]}, only {value} can be read")
    code = _META_TYPES.get(_needed(path, fields, "elementtype").upper())
    if code is None:
        raise SeriesError(f"{path}: its voxels are of type {fields['elementtype']}, one number a voxel is needed")
    big = _truth(path, fields, "binarydatabyteordermsb")
    sides = _whole_numbers(path, "DimSize", _needed(path, fields, "dimsize"), 3)
    spacing = _numbers(path, "ElementSpacing", _needed(path, fields, "elementspacing", GeometryError), 3)
    matrix = _numbers(path, "TransformMatrix", _needed(path, fields, "transformmatrix", GeometryError), 9)
    affine = np.eye(4)
    affine[:3, :3] = np.array(matrix).reshape(3, 3).T * spacing
    affine[:3, 3] = _numbers(path, "Offset", _needed(path, fields, "offset", GeometryError), 3)
    local = fields["elementdatafile"].lower() == "local"
    data, offset = _data_place(path, "" if local else fields["elementdatafile"], end)
    deflated = _truth(path, fields, "compresseddata")
    dtype = np.dtype((">" if big else "<") + code)
    return GridHeader(path, data, offset, deflated, dtype, (sides[0], sides[1], sides[2]), affine)


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """The keys of the header, lower case and by one name each, and the byte after it."""
    fields: dict[str, str] = {}
    for line, end in _header_lines(path):
        key, equals, value = line.partition("=")
        if not equals:
            break
        name = key.strip().lower()
        fields[_META_ALIASES.get(name, name)] = value.strip()
        if name == "elementdatafile":
            return fields, end
    raise SeriesError(f"{path}: not a MetaImage file (no line ElementDataFile at the end of its header)")


def _truth(path: Path, fields: Mapping[str, str], key: str) -> bool:
    value = fields.get(key, "False").lower()
    if value not in ("true", "false"):
        raise SeriesError(f"{path}: its {key} is {value!r}, it must be True or False")
    return value == "true"


# -- headers in general -----------------------------------------------------------------------------------------------

_READERS: dict[str, Callable[[Path], GridHeader]] = {
    ".nii": _nifti_header,
    ".nii.gz": _nifti_header,
    ".nrrd": _nrrd_header,
    ".nhdr": _nrrd_header,
    ".mha": _meta_header,
    ".mhd": _meta_header,
}


def is_volume_file(path: str | os.PathLike[str]) -> bool:
    """True when the name ends like that of a NIfTI, NRRD or MetaImage volume."""
    return os.fspath(path).lower().endswith(tuple(_READERS))


def read_header(path: Path) -> GridHeader:
    """How a volume file stores its voxels, checked against the size of the file.

    Raises SeriesError and GeometryError.
    """
    reader = next((reader for ending, reader in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise SeriesError(f"{path}: not a volume file, its name must end in one of {', '.join(_READERS)}")
    try:
        header = reader(path)
        held = header.data.stat().st_size - header.offset
    except OSError as error:
        raise SeriesError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None
    _check_size(header, held)
    return header


def _check_size(header: GridHeader, held: int) -> None:
    """Refuses what cannot be in the file before anything is allocated for it. held: bytes that may be voxels."""
    voxels = int(np.prod([int(side) for side in header.shape], dtype=object))
    if min(header.shape) < 1 or max(header.shape) > MOST_VOXELS_A_SIDE or voxels > MOST_VOXELS:
        raise SeriesError(f"{header.path}: its header declares {_sides(header)} voxels, which no CT has")
    declared = voxels * header.dtype.itemsize
    if declared > (MOST_INFLATION * held if header.deflated else held):
        raise SeriesError(
            f"{header.data}: cut short, its header declares {_sides(header)} voxels in {declared} bytes, "
            f"the file holds {max(0, held)}{' packed' if header.deflated else ''}"
        )


def _sides(header: GridHeader) -> str:
    return " x ".join(str(side) for side in header.shape)


def _peek(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Each line of a text header, stripped, with the byte after it."""
    head = _peek(path, HEADER_BYTES)
    start = 0
    while start < len(head):
        newline = head.find(b"\n", start)
        end = len(head) if newline < 0 else newline + 1
        yield head[start:end].decode("utf-8", "replace").strip(), end
        start = end


def _data_place(path: Path, name: str, end: int) -> tuple[Path, int]:
    """The file with the voxels and where they start. name: as the header spells it, "" for the header's own file."""
    if not name:
        return path, end
    if not name.isprintable():
        raise SeriesError(f"{path}: the file with its voxels has an impossible name, {name[:80]!r}")
    if "%" in name or name.split()[0].upper() == "LIST":
        raise SeriesError(f"{path}: its voxels lie in several files ({name!r}): save it again in one file")
    return path.parent / name, 0


def _needed(
    path: Path, fields: Mapping[str, str], key: str, error: type[SeriesError | GeometryError] = SeriesError
) -> str:
    value = fields.get(key)
    if not value:
        raise error(f"{path}: its header lacks {key!r}: save it again with a complete header")
    return value


def _numbers(path: Path, key: str, text: str, count: int) -> list[float]:
    try:
        values = [float(word) for word in re.split(r"[\s,()]+", text) if word]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise GeometryError(f"{path}: {key!r} must be {count} finite numbers, found {text[:80]!r}")
    return values


def _whole_numbers(path: Path, key: str, text: str, count: int) -> list[int]:
    words = text.split()
    if len(words) != count or not all(re.fullmatch(r"\d{1,19}", word, re.ASCII) for word in words):
        raise SeriesError(f"{path}: {key!r} must be {count} whole numbers, found {text[:80]!r}")
    return [int(word) for word in words]


# -- voxels -----------------------------------------------------------------------------------------------------------


class _Inflated:
    """The bytes of a zlib stream or of gzip members one after the other, as a file to read from."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._engine = zlib.decompressobj(wbits=47)
        self._waiting = b""

    def read(self, count: int) -> bytes:
        """`count` bytes, fewer at the end of the stream. Raises PixelError for a broken stream."""
        out = bytearray()
        while len(out) < count:
            packed = self._waiting or self._file.read(_INFLATE_CHUNK)
            if self._engine.eof:
                packed += self._file.read(_INFLATE_CHUNK) if len(packed) < 2 else b""
                if not packed.startswith(b"\x1f\x8b"):
                    self._waiting = b""
                    break
                self._engine = zlib.decompressobj(wbits=47)
            if not packed:
                break
            try:
                out += self._engine.decompress(packed, count - len(out))
            except zlib.error as error:
                raise PixelError(f"{self._path}: its packed voxels are damaged ({error})") from None
            self._waiting = self._engine.unused_data or self._engine.unconsumed_tail
        return bytes(out)

    @property
    def ended(self) -> bool:
        """True after the end of a stream, whose checksum was then right."""
        return self._engine.eof


def as_hu(stored: npt.NDArray[Any], slope: float, intercept: float) -> HUArray:
    """slope * stored + intercept: int16 where every value is whole and fits, else float32 with NaN for no number."""
    same = slope == 1 and intercept == 0
    if stored.dtype == np.int16 and same:
        return stored.astype(np.int16, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        exact = stored if same else stored.astype(np.float64) * slope + intercept
        # Comparisons with NaN are false, so this holds for finite values only.
        if exact.min() >= _INT16.min and exact.max() <= _INT16.max:
            whole = exact.astype(np.int16)
            if exact.dtype.kind in "iu" or (whole == exact).all():
                return whole
        hu = exact.astype(np.float32)
    hu[~np.isfinite(hu)] = np.nan
    return hu


class GridSource:
    """Slices of one volume file.

    Slices that lie in one piece of an unpacked file are read when asked for; otherwise the file is unpacked once into
    memory, at the first read.
    """

    def __init__(self, header: GridHeader, axes: tuple[int, int, int], turned: tuple[bool, bool, bool]) -> None:
        """axes: stored axis of slice, row and column; turned: whether each runs against the stored order."""
        self.header = header
        self._axes, self._turned = axes, turned
        self._volume: HUArray | None = None

    def read(self, k: int) -> HUArray:
        """(rows, columns) of slice k, a copy. Raises PixelError."""
        count = self.header.shape[self._axes[0]]
        if not 0 <= k < count:
            raise IndexError(f"slice {k} of {count}")
        stored_k = count - 1 - k if self._turned[0] else k
        plane: HUArray
        if not self.header.deflated and self._axes[0] == 2:
            plane = self._slab(stored_k)
            plane = plane if self._axes[1] == 1 else plane.T
        else:
            if self._volume is None:
                self._volume = self._unpacked()
            slices, rows, columns = (2 - axis for axis in self._axes)
            plane = self._volume.transpose(slices, rows, columns)[stored_k]
        plane = plane[:: -1 if self._turned[1] else 1, :: -1 if self._turned[2] else 1]
        return plane.copy()

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        """These formats cannot name their padding; values that nothing in a CT can have are padding."""
        return (-np.inf, NO_MEASUREMENT_BELOW_HU)

    def sop_instance_uid(self, k: int) -> str | None:
        return None

    def _slab(self, k: int) -> HUArray:
        """(j, i) plane k of the slowest axis of an unpacked file."""
        try:
            with self.header.data.open("rb") as file:
                file.seek(self.header.offset + k * self.header.slab_bytes)
                return self._decoded(file)
        except OSError as error:
            raise PixelError(f"{self.header.data}: cannot be read ({error.strerror or error})") from None

    def _unpacked(self) -> HUArray:
        """(k, j, i) all voxels, int16 where they fit."""
        header = self.header
        try:
            with header.data.open("rb") as file:
                file.seek(header.offset)
                if not header.deflated:
                    return self._collected(file)
                stream = _Inflated(file, header.data)
                stream.read(header.skip)
                volume = self._collected(stream)
                if len(stream.read(_INFLATE_CHUNK)) < _INFLATE_CHUNK and not stream.ended:
                    raise PixelError(f"{header.data}: cut short, the end of its packed voxels is missing")
                return volume
        except OSError as error:
            raise PixelError(f"{header.data}: cannot be read ({error.strerror or error})") from None
        except MemoryError:
            raise PixelError(f"{header.path}: {_sides(header)} voxels do not fit into memory") from None

    def _collected(self, stream: BinaryIO | _Inflated) -> HUArray:
        # An empty array takes no memory until voxels that are really there are written to it.
        volume: HUArray = np.empty(self.header.shape[::-1], dtype=np.int16)
        for k in range(len(volume)):
            slab = self._decoded(stream)
            if slab.dtype != volume.dtype and volume.dtype == np.int16:
                wider = np.empty(volume.shape, dtype=np.float32)
                wider[:k] = volume[:k]
                volume = wider
            volume[k] = slab
        return volume

    def _decoded(self, stream: BinaryIO | _Inflated) -> HUArray:
        """(j, i) the next plane of the slowest axis."""
        header = self.header
        packed = stream.read(header.slab_bytes)
        if len(packed) < header.slab_bytes:
            raise PixelError(f"{header.data}: cut short, its header declares {_sides(header)} voxels")
        stored = np.frombuffer(packed, dtype=header.dtype).reshape(header.shape[1], header.shape[0])
        return as_hu(stored, header.slope, header.intercept)


# -- volumes ----------------------------------------------------------------------------------------------------------


def open_grid(path: Path) -> tuple[Geometry, GridSource]:
    """The lattice of a volume file and its slices, by the module's rule of axes. Raises SeriesError, GeometryError."""
    header = read_header(path)
    stored = header.lps_from_stored
    lengths = np.linalg.norm(stored[:3, :3], axis=0)
    if not np.isfinite(stored).all() or abs(np.linalg.det(stored[:3, :3])) < 1e-9 or lengths.min() < 1e-6:
        raise GeometryError(f"{path}: its directions or spacings span no volume: {stored[:3, :3].tolist()}")
    toward = np.abs(stored[:3, :3] / lengths)
    slices = int(np.argmax(toward[2]))
    rows, columns = sorted({0, 1, 2} - {slices}, key=lambda axis: -toward[1, axis])
    axes = (slices, rows, columns)
    turned = (bool(stored[2, slices] < 0), bool(stored[1, rows] < 0), bool(stored[0, columns] < 0))
    affine = np.eye(4)
    affine[:3, 3] = stored[:3, 3]
    for place, (axis, against) in enumerate(zip(axes, turned, strict=True)):
        affine[:3, place] = -stored[:3, axis] if against else stored[:3, axis]
        if against:
            affine[:3, 3] += (header.shape[axis] - 1) * stored[:3, axis]
    shape = (header.shape[slices], header.shape[rows], header.shape[columns])
    try:
        geometry = Geometry.from_affine(shape, affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    return geometry, GridSource(header, axes, turned)


def open_volume(path: str | os.PathLike[str]) -> CTVolume:
    """A CT in a NIfTI, NRRD or MetaImage file. How it was acquired is unknown: these formats do not say.

    Raises SeriesError, PixelError and GeometryError for files that hold no volume. A volume that must not be measured
    comes back with the verdict `refused` and the reason as a note.
    """
    path = Path(path)
    geometry, source = open_grid(path)
    refusals = [note for note in (_too_few(geometry), _no_hu(geometry, source)) if note is not None]
    notes = list(source.header.notes)
    if geometry.shear_deg > TILT_NOTED_DEG:
        shear = f"{geometry.shear_deg:.1f} degrees"
        text = f"gantry tilt: slices are shifted along their plane by {shear}; measured as they are"
        notes.append(Note("gantry_tilt", text))
    verdict = Verdict.REFUSED if refusals else Verdict.USABLE_WITH_NOTES if notes else Verdict.USABLE
    return CTVolume(
        geometry,
        source,
        series=SeriesInfo(description=path.name),
        verdict=verdict,
        notes=(*refusals, *notes),
    )


def _too_few(geometry: Geometry) -> Note | None:
    if min(geometry.shape) >= 3:
        return None
    sides = " x ".join(str(side) for side in geometry.shape)
    return Note("too_few_slices", f"{sides} voxels: a volume needs at least three slices")


def _no_hu(geometry: Geometry, source: GridSource) -> Note | None:
    """Says so when the numbers are those of a label map, a picture of 0 to 255, a normalised volume, or HU + 1024."""
    count = geometry.shape[0]
    places = sorted({round(at) for at in np.linspace(0, count - 1, SAMPLED_SLICES)})
    values = np.concatenate([source.read(k).ravel() for k in places])
    values = values[np.isfinite(values) & (values > NO_MEASUREMENT_BELOW_HU)]
    if not values.size:
        return Note("no_pixels", f"no number above {NO_MEASUREMENT_BELOW_HU:g} in {len(places)} slices of the volume")
    low, high = float(values.min()), float(values.max())
    picture = low >= 0 and high <= 255 and (low == 0 or source.header.dtype.itemsize == 1)
    offset = low >= 0 and high >= OFFSET_ABOVE_HU
    normalised = max(-low, high) < NORMALISED_BELOW
    if not (picture or offset or normalised):
        return None
    text = (
        f"not HU: values run from {low:g} to {high:g} where air and fat should be below 0, so this is a label map, a "
        "picture, or HU with an offset: save it as HU"
    )
    return Note("not_ct", text)
