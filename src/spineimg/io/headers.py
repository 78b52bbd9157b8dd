"""DICOM headers, read without decoding anything.

A folder of 600 slices costs most of its time in headers, and a measurement needs some forty tags of each. So the
common encodings (explicit and implicit little endian, explicit big endian) are skimmed here: top-level elements are
walked, wanted ones decoded, everything else skipped. Whatever is unusual (deflated, no preamble, broken lengths) is
handed to pydicom. benchmarks/speed.py measures both.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from spineimg.errors import SeriesError

Header = Mapping[str, Any]
"""Keyword -> value: str for text and UIDs, tuple of str for multi-valued text, tuple of float for numbers, int for
whole numbers. Absent and empty elements have no key. A value that cannot be parsed is kept as `Unparsed`."""

FIRST_READ = 1 << 15
"""Bytes read at once: more than most CT headers (2-10 kB), little enough to be read in one go."""
UNDEFINED = 0xFFFFFFFF
DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DICOMDIR = "1.2.840.10008.1.3.10"
IS_DICOMDIR = "a DICOMDIR, an index of other files: its files are found by walking the folder"
NATIVE = frozenset({IMPLICIT, BIG_ENDIAN, DEFLATED, "1.2.840.10008.1.2.1"})
"""Transfer syntaxes whose pixels are not encapsulated."""
MAX_DEPTH = 64
"""Nesting of undefined-length sequences that is followed. Real headers stay below ten."""


class NotDicomError(SeriesError):
    """The file is something else. Counted, not listed."""


class UnusualError(Exception):
    """The skimmer does not know this encoding; pydicom may."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A value that is there and makes no sense, kept for the message."""

    text: str


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The wanted elements of one file and where its pixel data are.

    pixel_offset: first byte of the value of (7FE0,0010) in the file; None when it must be asked of pydicom.
    pixel_length: bytes from there to the end of the pixel data, as far as the file's own lengths tell.
    changed_ns: when the file was changed, 0 where it is none.
    """

    path: str
    size: int
    values: Header = field(repr=False)  # it may hold the patient's name
    transfer_syntax: str
    has_pixels: bool
    pixel_offset: int | None = None
    pixel_length: int | None = None
    changed_ns: int = 0

    @property
    def encapsulated(self) -> bool:
        return self.transfer_syntax not in NATIVE


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0\r\n\t")


def _uid(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _texts(raw: bytes) -> tuple[str, ...]:
    return tuple(part.strip() for part in _text(raw).split("\\"))


def _numbers(raw: bytes) -> tuple[float, ...] | Unparsed:
    text = _text(raw)
    try:
        if "_" in text:  # Python reads 0_7 as 7
            return Unparsed(text[:64])
        return tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return Unparsed(text[:64])


def _whole(raw: bytes) -> int | Unparsed:
    text = _text(raw)
    return int(text) if re.fullmatch(r"[+-]?\d{1,12}", text) else Unparsed(text[:64])


Decoder = Callable[[bytes], Any]
SHORT = object()
"""Marks binary 16-bit values (US, SS, or either by PixelRepresentation): decoded with the file's byte order."""

WANTED: dict[int, tuple[str, Any]] = {
    0x00080005: ("SpecificCharacterSet", _texts),
    0x00080008: ("ImageType", _texts),
    0x00080016: ("SOPClassUID", _uid),
    0x00080018: ("SOPInstanceUID", _uid),
    0x00080060: ("Modality", _text),
    0x00080070: ("Manufacturer", _text),
    0x0008103E: ("SeriesDescription", _text),
    0x00081090: ("ManufacturerModelName", _text),
    0x00100010: ("PatientName", _text),
    0x00100020: ("PatientID", _text),
    0x00100030: ("PatientBirthDate", _text),
    0x00180010: ("ContrastBolusAgent", _text),
    0x00180050: ("SliceThickness", _numbers),
    0x00180060: ("KVP", _numbers),
    0x00181040: ("ContrastBolusRoute", _text),
    0x00181210: ("ConvolutionKernel", _texts),
    0x00185100: ("PatientPosition", _text),
    0x00189315: ("ReconstructionAlgorithm", _text),
    0x0020000D: ("StudyInstanceUID", _uid),
    0x0020000E: ("SeriesInstanceUID", _uid),
    0x00200032: ("ImagePositionPatient", _numbers),
    0x00200037: ("ImageOrientationPatient", _numbers),
    0x00200052: ("FrameOfReferenceUID", _uid),
    0x00280002: ("SamplesPerPixel", SHORT),
    0x00280004: ("PhotometricInterpretation", _text),
    0x00280008: ("NumberOfFrames", _whole),
    0x00280010: ("Rows", SHORT),
    0x00280011: ("Columns", SHORT),
    0x00280030: ("PixelSpacing", _numbers),
    0x00280100: ("BitsAllocated", SHORT),
    0x00280101: ("BitsStored", SHORT),
    0x00280102: ("HighBit", SHORT),
    0x00280103: ("PixelRepresentation", SHORT),
    0x00280120: ("PixelPaddingValue", SHORT),
    0x00280121: ("PixelPaddingRangeLimit", SHORT),
    0x00281052: ("RescaleIntercept", _numbers),
    0x00281053: ("RescaleSlope", _numbers),
    0x00281054: ("RescaleType", _text),
}
_FREE_TEXT = {"Manufacturer", "SeriesDescription", "ManufacturerModelName", "PatientName", "ContrastBolusAgent"}
_FIRST_PIXEL_TAG = 0x7FE00000
_FIRST_DELIMITER = 0xFFFE0000
_PIXEL_TAGS = {0x7FE00010, 0x7FE00008, 0x7FE00009}
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_VRS = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip


class _Bytes:
    """A file as bytes, read in pieces. `start` is the place in the file of the first byte of `data`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        status = os.fstat(fd)
        self.size, self.changed_ns = status.st_size, status.st_mtime_ns
        self.start = 0
        self.data = os.pread(fd, FIRST_READ, 0)

    def at(self, offset: int, count: int) -> int:
        """Place in `data` of `offset` of the file, with `count` bytes there (fewer only at the end of the file)."""
        if offset < self.start or offset + count > self.start + len(self.data):
            if offset > self.size:
                raise SeriesError("truncated")
            self.start = offset
            self.data = os.pread(self.fd, max(count, FIRST_READ), offset)
        return offset - self.start

    def value(self, offset: int, length: int) -> bytes:
        """The bytes of a value. Raises SeriesError when the file ends before."""
        if offset + length > self.size:
            raise SeriesError("truncated")
        at = self.at(offset, length)
        return self.data[at : at + length]


Element = tuple[int, bytes, int, int]
"""Tag, VR (empty when implicit or an item), bytes of its header, length of its value."""
ReadElement = Callable[[bytes, int], Element]


def _element_reader(*, implicit: bool, order: str) -> ReadElement:
    """A function that reads the element header at a place of a buffer. Closures, since this is the inner loop."""
    plain = struct.Struct(order + "HHL").unpack_from
    with_vr = struct.Struct(order + "HH2sH").unpack_from
    long_length = struct.Struct(order + "L").unpack_from

    def read_implicit(data: bytes, at: int) -> Element:
        group, element, length = plain(data, at)
        return group << 16 | element, b"", 8, length

    def read_explicit(data: bytes, at: int) -> Element:
        group, element, vr, length = with_vr(data, at)
        if vr in _SHORT_VRS:
            return group << 16 | element, vr, 8, length
        if vr in _LONG_VRS:
            return group << 16 | element, vr, 12, long_length(data, at + 8)[0]
        if group == 0xFFFE:
            return group << 16 | element, b"", 8, long_length(data, at + 4)[0]
        raise UnusualError

    return read_implicit if implicit else read_explicit


_READ_IMPLICIT = _element_reader(implicit=True, order="<")
_READ_EXPLICIT = _element_reader(implicit=False, order="<")
_READ_BIG_ENDIAN = _element_reader(implicit=False, order=">")


def _skip_undefined(source: _Bytes, offset: int, read: ReadElement, vr: bytes) -> int:
    """Offset behind the sequence of undefined length whose value starts at `offset`."""
    # The content of an undefined-length UN is implicit little endian (PS3.5 6.2.2).
    stack = [_READ_IMPLICIT if vr == b"UN" else read]
    while stack:
        at = source.at(offset, 12)
        tag, vr, head, length = stack[-1](source.data, at)
        if tag in (0xFFFEE0DD, 0xFFFEE00D):
            stack.pop()
            offset += head
        elif length == UNDEFINED:
            if len(stack) >= MAX_DEPTH:
                raise SeriesError(f"sequences nested deeper than {MAX_DEPTH}")
            stack.append(_READ_IMPLICIT if vr == b"UN" else stack[-1])
            offset += head
        else:
            offset += head + length
    return offset


def _fragments_length(source: _Bytes, start: int) -> int:
    """Bytes of the encapsulated pixel data at `start`. Raises SeriesError when the file ends inside a fragment."""
    offset = start
    while offset + 8 <= source.size:
        group, element, length = struct.unpack("<HHL", os.pread(source.fd, 8, offset))
        if (group, element) == (0xFFFE, 0xE0DD):
            return offset + 8 - start
        if (group, element) != (0xFFFE, 0xE000) or offset + 8 + length > source.size:
            raise SeriesError("truncated or corrupt pixel data")
        offset += 8 + length
    raise SeriesError("truncated pixel data")


def _decode(kind: Any, raw: bytes, order: str) -> Any:
    if kind is SHORT:
        if len(raw) != 2:
            return Unparsed(f"{len(raw)} bytes instead of 2")
        (number,) = struct.unpack_from(order + "H", raw)
        return number
    return kind(raw)


def _skim(path: str, source: _Bytes, start: int, transfer_syntax: str, values: dict[str, Any]) -> FileHeader:
    """The data set that begins at `start`. values: what is known already; an element of the data set replaces it."""
    order = ">" if transfer_syntax == BIG_ENDIAN else "<"
    read = {IMPLICIT: _READ_IMPLICIT, BIG_ENDIAN: _READ_BIG_ENDIAN}.get(transfer_syntax, _READ_EXPLICIT)
    explicit = None if transfer_syntax == IMPLICIT else struct.Struct(order + "HH2sH").unpack_from
    wide: dict[str, bytes] = {}
    offset, end = start, source.size
    at = source.at(start, 12)
    data, limit = source.data, len(source.data) - 12
    while offset + 8 <= end:
        if at > limit:
            at = source.at(offset, 12)
            data = source.data
            limit = len(data) - 12 if source.start + len(data) < end else len(data)
        # The usual element is read right here, since a call for each would double the cost of a header.
        group, element, vr, length = explicit(data, at) if explicit else (0, 0, b"", 0)
        if vr in _SHORT_VRS:
            tag, head = group << 16 | element, 8
        else:
            tag, vr, head, length = read(data, at)
        if tag >= _FIRST_DELIMITER:
            raise UnusualError  # the end of a sequence that never began: what follows may belong to another one
        if tag >= _FIRST_PIXEL_TAG and tag in _PIXEL_TAGS:
            _decode_wide(values, wide)
            # Float pixel data (7FE0,0008/0009) belong to parametric maps, not to CT: no pixels for us.
            length = _fragments_length(source, offset + head) if length == UNDEFINED else length
            place = offset + head, length
            return FileHeader(path, end, values, transfer_syntax, tag == 0x7FE00010, *place, source.changed_ns)
        if length == UNDEFINED:
            offset = _skip_undefined(source, offset + head, read, vr)
            at = limit + 1  # the buffer may have moved: find our place anew
            continue
        if tag in WANTED and length:
            raw = source.value(offset + head, length)
            data = source.data
            at, limit = offset + head + length - source.start, len(data) - 12
            name, decoded, is_wide = _decoded(tag, raw, order)
            if decoded is not None:
                values[name] = decoded
            if is_wide:
                wide[name] = raw
        else:
            at += head + length
        offset += head + length
    if offset != end:
        raise SeriesError("truncated")
    _decode_wide(values, wide)
    return FileHeader(path, end, values, transfer_syntax, has_pixels=False, changed_ns=source.changed_ns)


@lru_cache(maxsize=8192)
def _decoded(tag: int, raw: bytes, order: str) -> tuple[str, Any, bool]:
    """(keyword, value or None when empty, whether it waits for the character set). Most values repeat in a series."""
    name, kind = WANTED[tag]
    decoded = _decode(kind, raw, order)
    if decoded in ("", None, ("",)):
        return name, None, False
    return name, decoded, name in _FREE_TEXT and (not raw.isascii() or b"\x1b" in raw)


_CODECS = {
    "ISO_IR 100": "latin-1", "ISO_IR 101": "iso8859-2", "ISO_IR 109": "iso8859-3", "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5", "ISO_IR 127": "iso8859-6", "ISO_IR 126": "iso8859-7", "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9", "ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk",
}  # fmt: skip
"""Character sets that need no code extensions (PS3.3 C.12.1.1.2); for the others pydicom is asked."""


def _decode_wide(values: dict[str, Any], wide: Mapping[str, bytes]) -> None:
    """Text in another character set than ASCII, by the file's Specific Character Set (PS3.3 C.12.1.1.2)."""
    if not wide:
        return
    charsets = values.get("SpecificCharacterSet", ("",))
    codec = _CODECS.get(charsets[0]) if len(charsets) == 1 else None
    if codec is None:
        _decode_with_extensions(values, wide, charsets)
        return
    for name, raw in wide.items():
        values[name] = raw.decode(codec, errors="replace").strip(" \0")


def _decode_with_extensions(values: dict[str, Any], wide: Mapping[str, bytes], charsets: tuple[str, ...]) -> None:
    import warnings

    from pydicom.charset import convert_encodings, decode_bytes
    from pydicom.valuerep import PersonName

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an unknown character set is not the measurement's business
        try:
            encodings = convert_encodings(list(charsets))
        except (LookupError, ValueError):
            return  # no name of a character set at all: the text stays as it was read
        for name, raw in wide.items():
            if name == "PatientName":
                values[name] = str(PersonName(raw, encodings).decode(encodings)).strip()
            else:
                values[name] = decode_bytes(raw, encodings, {"\\", "\r", "\n", "\t", "\f"}).strip()


def _start(source: _Bytes) -> tuple[int, str, str]:
    """(offset of the data set, transfer syntax, SOP class) from the file meta information."""
    offset, transfer_syntax, sop_class = 132, "", ""
    while offset + 8 <= source.size:
        at = source.at(offset, 12)
        if source.data[at : at + 2] != b"\x02\x00":
            break
        tag, _, head, length = _READ_EXPLICIT(source.data, at)
        if tag == 0x00020010:
            transfer_syntax = _uid(source.value(offset + head, length))
        elif tag == 0x00020002:
            sop_class = _uid(source.value(offset + head, length))
        offset += head + length
    return offset, transfer_syntax, sop_class


def read_header(path: str) -> FileHeader:
    """The wanted elements of one file.

    Raises NotDicomError for another kind of file and SeriesError (reason only, without the path) for an empty,
    truncated or unreadable one, and for a DICOMDIR.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SeriesError(f"unreadable: {error.strerror}") from error
    try:
        return _read_header(path, fd)
    except OSError as error:
        raise SeriesError(f"unreadable: {error.strerror}") from error
    except (RecursionError, MemoryError, struct.error) as error:
        raise SeriesError("unreadable: its elements make no sense") from error
    finally:
        os.close(fd)


def _read_header(path: str, fd: int) -> FileHeader:
    source = _Bytes(fd)
    if source.size == 0:
        raise SeriesError("a file of zero bytes")
    if source.data[128:132] != b"DICM":
        if not _looks_like_dicom(source.data):
            raise NotDicomError("not DICOM")
        return _ask_pydicom(path, source)
    try:
        offset, transfer_syntax, sop_class = _start(source)
        if sop_class == DICOMDIR:
            raise SeriesError(IS_DICOMDIR)
        at = source.at(offset, 8)
        vr = source.data[at + 4 : at + 6]
        says_explicit = vr in _SHORT_VRS or vr in _LONG_VRS
        if transfer_syntax in ("", DEFLATED) or says_explicit == (transfer_syntax == IMPLICIT):
            raise UnusualError
        # Some anonymisers drop the SOP class from the data set and leave it in the file meta information.
        return _skim(path, source, offset, transfer_syntax, {"SOPClassUID": sop_class} if sop_class else {})
    except UnusualError:
        return _ask_pydicom(path, source)


def _looks_like_dicom(data: bytes) -> bool:
    """Files without preamble start with group 2 or 8; anything else is not worth asking pydicom."""
    if len(data) < 8 or data[1] != 0 or data[0] not in (2, 8) or data[3] != 0:
        return False
    explicit = data[4:6] in _SHORT_VRS or data[4:6] in _LONG_VRS
    return explicit or int.from_bytes(data[4:8], "little") <= 1024


def _ask_pydicom(path: str, source: _Bytes) -> FileHeader:
    """The same through pydicom, for encodings that the skimmer leaves alone."""
    import warnings
    import zlib

    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    values: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of values that are judged below
            dataset = pydicom.dcmread(path, force=True, defer_size=1024)
            for name, kind in WANTED.values():
                decoded = convert(dataset.get(name), kind)
                if decoded not in ("", None, ("",)):
                    values[name] = decoded
            has_pixels = "PixelData" in dataset
            syntax = str(dataset.file_meta.get("TransferSyntaxUID", IMPLICIT))
    except (
        InvalidDicomError, BytesLengthException, zlib.error, EOFError, ValueError, KeyError, TypeError, AttributeError,
        IndexError, NotImplementedError, AssertionError,
    ) as error:  # fmt: skip
        raise SeriesError(f"unreadable: {str(error)[:120] or type(error).__name__}") from error
    if "SOPClassUID" not in values and "Modality" not in values:
        raise NotDicomError("not DICOM")
    if values.get("SOPClassUID") == DICOMDIR:
        raise SeriesError(IS_DICOMDIR)
    return FileHeader(path, source.size, values, syntax, has_pixels, changed_ns=source.changed_ns)


def convert(value: Any, kind: Any) -> Any:
    """A pydicom value as the skimmer would have decoded it."""
    if value is None:
        return None
    if kind is SHORT:
        return int(value) & 0xFFFF
    if kind is _whole:
        return int(value)
    several = list(value) if isinstance(value, MutableSequence) else [value]
    if kind is _numbers:
        return tuple(float(part) for part in several) or None
    if kind is _texts:
        return tuple(str(part).strip() for part in several)
    return "\\".join(str(part) for part in several).strip()
