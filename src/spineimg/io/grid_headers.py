"""Headers of NIfTI, NRRD and MetaImage files.

They are judged here, before a byte of pixels is read, because the usual readers take a missing orientation for the
identity and allocate whatever a header declares. A stored index is (i, j, k), fastest axis first.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spineimg.errors import GeometryError, SeriesError
from spineimg.geometry import FloatArray
from spineimg.io.inflate import Inflated
from spineimg.notes import Note

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MOST_VOXELS_A_SIDE = 20_000
"""A side longer than this is a broken header; the longest CT has a few thousand slices."""
MOST_VOXELS = 4_000_000_000
"""8 GB as int16: more cannot be held where it must be unpacked."""
MOST_INFLATION = 1032
"""Deflate cannot pack more tightly than 1032:1 (zlib, technical details), so a header that declares more is wrong."""
HEADER_BYTES = 1 << 20
"""A text header ends within this; those of segmentations with hundreds of segments take about 100 kB."""
FARTHEST_MM = 1e6
"""A voxel farther away than a kilometre is a broken header. Engineering choice."""
_LAST_FORM_CODE = 5
"""NIFTI_XFORM_TEMPLATE_OTHER of nifti1.h."""
FORMS_AGREE_MM = 0.01
"""NIfTI holds two affines; nearer than this at every corner they are the same. It is what positions are held to."""


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
    def sides(self) -> str:
        """The shape, for messages."""
        return " x ".join(str(side) for side in self.shape)

    @property
    def slab_bytes(self) -> int:
        """Size of one plane of the slowest axis."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


# -- NIfTI ------------------------------------------------------------------------------------------------------------


def _nifti_header(path: Path) -> GridHeader:
    deflated = _peek(path, 2) == b"\x1f\x8b"
    with path.open("rb") as file:
        block = (Inflated(file, path) if deflated else file).read(540)
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
    for name in ("sform_code", "qform_code"):
        # nibabel takes a code that means nothing for 0 and the other form for the right one.
        if not 0 <= int(header[name]) <= _LAST_FORM_CODE:
            raise GeometryError(f"{path}: its {name} is {int(header[name])}, which means nothing: correct the header")
    with np.errstate(invalid="ignore", over="ignore"):
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
    name = "sform" if sform_code > 0 else "qform"
    if not np.isfinite(used).all() or np.abs(used).max() > FARTHEST_MM:
        raise GeometryError(f"{path}: its {name} holds numbers that are not finite, or absurdly large")
    affine = LPS_FROM_RAS @ np.asarray(used, dtype=np.float64)
    if sform_code <= 0 or qform_code <= 0:
        return affine, ()
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(shape, dtype=np.float64) - 1
    with np.errstate(invalid="ignore", over="ignore"):
        apart = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart <= FORMS_AGREE_MM:
        return affine, ()
    far = f"up to {apart:.2f} mm apart" if np.isfinite(apart) else "apart, for the qform makes no sense"
    text = f"the file's two orientations, sform and qform, are {far}; the sform was used"
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
        raise SeriesError(f"{header.path}: its header declares {header.sides} voxels, which no CT has")
    declared = voxels * header.dtype.itemsize
    if declared > (MOST_INFLATION * held if header.deflated else held):
        raise SeriesError(
            f"{header.data}: cut short, its header declares {header.sides} voxels in {declared} bytes, "
            f"the file holds {max(0, held)}{' packed' if header.deflated else ''}"
        )


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
