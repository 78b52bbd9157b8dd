"""From bytes to HU, one slice at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.errors import PixelError, UnreadableError
from spineimg.io.headers import FileHeader
from spineimg.io.records import SliceRecord
from spineimg.volume import HUArray

_PLUGINS = {
    "1.2.840.10008.1.2.5": ("RLE Lossless", "pydicom"),
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline", "gdcm"),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended", "gdcm"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "gdcm"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless SV1", "gdcm"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near-lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless", "pylibjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg"),
    "1.2.840.10008.1.2.4.201": ("HTJ2K Lossless", "pylibjpeg"),
    "1.2.840.10008.1.2.4.202": ("HTJ2K Lossless RPCL", "pylibjpeg"),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", "pylibjpeg"),
}
"""Transfer syntax -> (name, pydicom decoding plugin). One fixed plugin each: the fastest that is exact."""
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
RLE = "1.2.840.10008.1.2.5"
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_JPEG = ("1.2.840.10008.1.2.4.50", JPEG_EXTENDED, "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_FRAME_STARTS = {**dict.fromkeys(JPEG_LS, (0xF7,)), **dict.fromkeys(_JPEG, (0xC0, 0xC1, 0xC3))}
"""Start-of-frame markers of the syntaxes; those of JPEG are often taken for each other, and decode all the same."""


_DECIDES = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "SamplesPerPixel", "PhotometricInterpretation",
)  # fmt: skip


def why_undecodable(record: SliceRecord) -> str | None:
    """Why the pixels of a slice can never be decoded, from its header alone; None when they may be."""
    return _why_undecodable(tuple(map(record.values.get, _DECIDES)), record.file.transfer_syntax)


@lru_cache(maxsize=64)  # slices of a series have the same, and it is asked for every one that is read
def _why_undecodable(values: tuple[object, ...], syntax: str) -> str | None:
    present = {name: value for name, value in zip(_DECIDES, values, strict=True) if value is not None}
    record = SliceRecord(FileHeader("", 0, present, syntax, has_pixels=True), 0, 1, present)
    if record.matrix is None:
        return f"Rows x Columns (0028,0010/0011) are {record.found('Rows')} x {record.found('Columns')}"
    if record.bits_allocated not in (8, 16, 32) or not 1 <= record.bits_stored <= record.bits_allocated:
        return (
            f"Bits Allocated (0028,0100) is {record.found('BitsAllocated')}, "
            f"Bits Stored (0028,0101) {record.found('BitsStored')}"
        )
    high = record.values.get("HighBit", record.bits_stored - 1)
    if high != record.bits_stored - 1:
        return f"High Bit (0028,0102) is {getattr(high, 'text', high)} with {record.bits_stored} bits stored"
    if record.values.get("PixelRepresentation") not in (0, 1):
        return f"Pixel Representation (0028,0103) is {record.found('PixelRepresentation')}"
    for keyword, tag in (("PixelPaddingValue", "(0028,0120)"), ("PixelPaddingRangeLimit", "(0028,0121)")):
        if not isinstance(record.values.get(keyword, 0), int):
            return f"{keyword} {tag} makes no sense: {record.found(keyword)}"
    if record.values.get("SamplesPerPixel", 1) != 1:
        return f"Samples per Pixel (0028,0002) is {record.found('SamplesPerPixel')}"
    if record.values.get("PhotometricInterpretation", "MONOCHROME2") not in ("MONOCHROME1", "MONOCHROME2"):
        return f"Photometric Interpretation (0028,0004) is {record.found('PhotometricInterpretation')}"
    if record.file.encapsulated and syntax not in _PLUGINS:
        return f"no decoder for the transfer syntax {syntax_name(syntax)}"
    return None


def syntax_name(syntax: str) -> str:
    """Name and UID of a transfer syntax, for messages."""
    if syntax in _PLUGINS:
        return f"{_PLUGINS[syntax][0]} ({syntax})"
    import warnings

    from pydicom.uid import UID

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of UIDs that are none; they are named as they are
        name = UID(syntax).name
    return f"{name} ({syntax})" if name != syntax else syntax


# -- stored values -----------------------------------------------------------------------------------------------------


def _dtype(record: SliceRecord) -> np.dtype[Any]:
    order = ">" if record.file.transfer_syntax == "1.2.840.10008.1.2.2" else "<"
    return np.dtype(f"{order}{'i' if record.signed else 'u'}{record.bits_allocated // 8}")


def _is_direct(record: SliceRecord) -> bool:
    """Whether the pixels lie in the file as they are, at a known place, and make sense."""
    return record.file.has_pixels and record.file.pixel_offset is not None and why_undecodable(record) is None


def _read_bytes(record: SliceRecord, offset: int, target: memoryview) -> None:
    """Fills `target` from a place of the record's file. Raises UnreadableError, also when the file ends before."""
    try:
        fd = os.open(record.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            count = os.preadv(fd, [target], offset)
        finally:
            os.close(fd)
    except OSError as error:
        raise UnreadableError(f"{record.path}: cannot be read any more ({error.strerror})") from error
    if count < len(target):
        raise UnreadableError(
            f"{record.name}: {count} of {len(target)} bytes of pixel data are there; the file was cut short"
        )


def read_stored(record: SliceRecord) -> npt.NDArray[Any]:
    """(rows, columns) stored values of one slice, before rescale. Raises PixelError naming file and syntax."""
    if not record.file.has_pixels:
        raise PixelError(f"{record.name}: no Pixel Data (7FE0,0010)")
    reason = why_undecodable(record)
    if reason is not None:
        raise PixelError(f"{record.name}: its pixels cannot be decoded: {reason}")
    if record.file.encapsulated:
        return _mask_unused_bits(_decode(record), record)
    if record.file.pixel_offset is not None:
        return _read_stored_window(record, *(slice(0, size) for size in record.matrix or (0, 0)))
    count = record.frame_bytes
    data = _bytes_from_pydicom(record)[record.frame * count :][:count]
    if len(data) < count:
        raise PixelError(f"{record.name}: {len(data)} of {count} bytes of pixel data are there")
    return _mask_unused_bits(np.frombuffer(data, dtype=_dtype(record)).reshape(record.matrix or ()), record)


def _read_stored_window(record: SliceRecord, rows: slice, columns: slice) -> npt.NDArray[Any]:
    """Stored values of some rows and columns of a slice that is direct. Raises PixelError."""
    count, wide = record.matrix or (0, 0)
    first, last = rows.start, min(rows.stop, count)
    start = (record.file.pixel_offset or 0) + record.frame * record.frame_bytes
    row_bytes = record.frame_bytes // count
    data = np.empty(row_bytes * (last - first), dtype=np.uint8)
    _read_bytes(record, start + row_bytes * first, data.data)
    stored = data.view(_dtype(record)).reshape(last - first, wide)[:, columns]
    return _mask_unused_bits(np.ascontiguousarray(stored), record)


def _bytes_from_pydicom(record: SliceRecord) -> bytes:
    """Pixel bytes of an encoding that only pydicom opens (deflated, no preamble)."""
    import warnings
    import zlib

    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = pydicom.dcmread(record.path, force=True).get("PixelData")
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, NotImplementedError,
                zlib.error, struct.error) as error:  # fmt: skip
            raise PixelError(f"{record.name}: {str(error)[:120]}") from error
    return data if isinstance(data, bytes) else b""


def _mask_unused_bits(stored: npt.NDArray[Any], record: SliceRecord) -> npt.NDArray[Any]:
    """Bits above Bits Stored may hold anything (overlays, in old files): clear them, or extend the sign."""
    spare = record.bits_allocated - record.bits_stored
    if not spare or stored.dtype.itemsize * 8 != record.bits_allocated:
        return stored
    top = 1 << (record.bits_stored - (1 if record.signed else 0))
    if int(stored.max()) < top and (not record.signed or int(stored.min()) >= -top):
        return stored
    native = stored.astype(stored.dtype.newbyteorder("="))
    return (native << spare) >> spare


def _decode(record: SliceRecord) -> npt.NDArray[Any]:
    """One frame of encapsulated pixel data. Raises PixelError."""
    syntax = record.file.transfer_syntax
    try:
        frame = _coded_frame(record)
        _check_coded_size(frame, record)
        if syntax in JPEG_LS:
            return _decode_jpeg_ls(frame, record)
        if syntax == JPEG_EXTENDED and record.bits_stored > 8:
            return _decode_with_simpleitk(record)
        return _decode_with_pydicom(frame, record)
    except PixelError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError, KeyError,
            EOFError, MemoryError, OSError) as error:  # fmt: skip
        # Decoders are other people's C code and Python glue: what they raise on broken bytes is not specified.
        detail = " ".join(str(error).split())[:160]
        raise PixelError(f"{record.name}: {syntax_name(syntax)} pixels cannot be decoded: {detail}") from error


def _check_coded_size(frame: bytes, record: SliceRecord) -> None:
    """Raises PixelError unless the code stream is of the size in the header: decoders allocate what it declares."""
    if record.file.transfer_syntax == RLE:
        _check_rle_size(frame, record)
        return
    starts = _FRAME_STARTS.get(record.file.transfer_syntax)
    coded = _jpeg_2000_size(frame) if starts is None else _jpeg_size(frame, starts)
    if coded != (*(record.matrix or ()), 1):
        found = " x ".join(str(number) for number in coded) if coded else "nothing"
        wanted = " x ".join(str(number) for number in record.matrix or ())
        raise PixelError(
            f"{record.name}: its {syntax_name(record.file.transfer_syntax)} code stream declares {found} rows, columns "
            f"and components where the header says {wanted} x 1"
        )


def _jpeg_size(frame: bytes, starts: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(rows, columns, components) in the start-of-frame segment of JPEG or JPEG-LS (ITU-T T.81 B.2.2, T.87 C.2.2).

    None when there is none, or one of another coding than `starts` has.
    """
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in starts:
            return _big_endian(frame, at + 5, 2), _big_endian(frame, at + 7, 2), frame[at + 9]
        elif marker == 0xDA:  # the scan, without a start of frame that is known
            return None
        else:
            at += 2 + _big_endian(frame, at + 2, 2)
    return None


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) in the SIZ segment, which follows the start of the code stream (T.800 A.5.1)."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 42 > len(frame):
        return None
    columns, rows, left, top = (_big_endian(frame, at + 8 + 4 * n, 4) for n in range(4))
    return rows - top, columns - left, _big_endian(frame, at + 40, 2)


def _check_rle_size(frame: bytes, record: SliceRecord) -> None:
    """Raises PixelError unless every segment holds one byte of every pixel (PS3.5 G.3, G.5): decoders fill and cut."""
    rows, columns = record.matrix or (0, 0)
    header = struct.unpack("<16L", frame[:64]) if len(frame) >= 64 else (0,) * 16
    count = header[0]
    if count != record.bits_allocated // 8:
        raise PixelError(
            f"{record.name}: {count} RLE segments where {record.bits_allocated} bits are allocated a pixel"
        )
    ends = (*header[2 : count + 1], len(frame))
    for start, end in zip(header[1 : count + 1], ends, strict=True):
        held = _rle_bytes(frame[start:end])
        if held != rows * columns:
            raise PixelError(
                f"{record.name}: an RLE segment holds {held} pixels where the header says {rows} x {columns}"
            )


def _rle_bytes(segment: bytes) -> int:
    """How many bytes a segment unpacks to; the last byte may only make its length even."""
    at = held = 0
    end = len(segment)
    while at + 1 < end:
        code = segment[at]
        if code < 128:
            held += min(code + 1, end - at - 1)
            at += code + 2
        elif code > 128:
            held += 257 - code
            at += 2
        else:
            at += 1
    return held


def _big_endian(data: bytes, at: int, count: int) -> int:
    return int.from_bytes(data[at : at + count], "big")


def _decode_jpeg_ls(frame: bytes, record: SliceRecord) -> npt.NDArray[Any]:
    """Without pydicom, whose import would cost as much as fifty slices."""
    from spineimg.io.jpegls import decode

    stored, precision = decode(frame)
    if not record.signed:
        return stored
    spare = 8 * stored.itemsize - precision
    signed: npt.NDArray[Any] = (stored << spare).view(f"i{stored.itemsize}") >> spare  # the sign is the top coded bit
    return signed


def _decode_with_pydicom(frame: bytes, record: SliceRecord) -> npt.NDArray[Any]:
    import warnings

    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    rows, columns = record.matrix or (0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # over-long padding and the like, which do not change pixels
        array, _ = get_decoder(UID(record.file.transfer_syntax)).as_array(
            encapsulate([frame]),
            index=0,
            raw=True,
            decoding_plugin=_PLUGINS[record.file.transfer_syntax][1],
            rows=rows,
            columns=columns,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation=record.values.get("PhotometricInterpretation", "MONOCHROME2"),
            bits_allocated=record.bits_allocated,
            bits_stored=record.bits_stored,
            pixel_representation=int(record.signed),
            pixel_keyword="PixelData",
            transfer_syntax_uid=UID(record.file.transfer_syntax),
        )
    if array.shape != (rows, columns):
        raise PixelError(f"{record.name}: decodes to {array.shape} pixels where the header says {(rows, columns)}")
    stored: npt.NDArray[Any] = array
    return stored


def _coded_frame(record: SliceRecord) -> bytes:
    """The code stream of one frame; of a multi-frame file only that frame's fragments are read."""
    offset, length = record.file.pixel_offset, record.file.pixel_length
    if offset is None or length is None:
        data = _bytes_from_pydicom(record)
        return _joined_fragments(data) if record.frames == 1 else _one_frame(data, record)
    if record.frames == 1:
        whole = bytearray(length)
        _read_bytes(record, offset, memoryview(whole))
        return _joined_fragments(bytes(whole))
    with open(record.path, "rb") as file:  # noqa: PTH123 - a path string, opened thousands of times
        file.seek(offset)
        return _one_frame(file, record)


def _joined_fragments(data: bytes) -> bytes:
    """Encapsulated pixel data of a single frame without the offset table, its first item (PS3.5 A.4).

    Raises ValueError when they are not made of items.
    """
    items, at = [], 0
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(data[at + 8 : end])
        at = end
    if data[at : at + 4] not in (b"", b"\xfe\xff\xdd\xe0"):
        raise ValueError("the pixel data are not a sequence of fragments")
    return b"".join(items[1:])


def _one_frame(buffer: Any, record: SliceRecord) -> bytes:
    from pydicom.encaps import get_frame

    return bytes(get_frame(buffer, record.frame, number_of_frames=record.frames))


def _decode_with_simpleitk(record: SliceRecord) -> npt.NDArray[Any]:
    """Stored values of a 12-bit JPEG Extended frame. SimpleITK applies the rescale; here it is taken back."""
    import SimpleITK as sitk  # noqa: N813 - the library's own customary name

    rescale = record.rescale()
    if record.frames > 1 or rescale is None:
        raise PixelError(f"{record.name}: 12-bit JPEG Extended is decoded in single-frame files with a rescale only")
    sitk.ProcessObject.GlobalWarningDisplayOff()
    hu = sitk.GetArrayFromImage(sitk.ReadImage(record.path))[0].astype(np.float64)
    stored: npt.NDArray[Any] = np.rint((hu - rescale[1]) / rescale[0]).astype(np.int32)
    return stored


# -- HU ----------------------------------------------------------------------------------------------------------------


def to_hu(stored: npt.NDArray[Any], slope: float, intercept: float) -> HUArray:
    """HU = slope * stored + intercept, int16 where every value is whole and fits, else float32."""
    if slope == 1 and intercept == int(intercept) and stored.dtype.itemsize <= 2:
        low, high = int(stored.min()) + int(intercept), int(stored.max()) + int(intercept)
        if low >= -32768 and high <= 32767:
            # Two's complement: the sum of the low 16 bits is right wherever the true sum fits.
            words = stored.astype(stored.dtype.newbyteorder("="), copy=False)
            words = words.view(np.int16) if words.itemsize == 2 else words.astype(np.int16)
            return words + np.int16(((int(intercept) + 32768) % 65536) - 32768)
    hu = stored.astype(np.float64) * slope + intercept
    if slope == int(slope) and intercept == int(intercept) and hu.min() >= -32768 and hu.max() <= 32767:
        return hu.astype(np.int16)
    return hu.astype(np.float32)


class DicomSource:
    """Slices of a DICOM series, decoded when asked for. The records come sorted; no file stays open."""

    def __init__(self, records: Sequence[SliceRecord]) -> None:
        self.records = tuple(records)

    def read(self, k: int) -> HUArray:
        rescale = self._rescale(k)
        return to_hu(read_stored(self.records[k]), *rescale)

    def read_window(self, k: int, rows: slice, columns: slice) -> HUArray | None:
        record = self.records[k]
        if (
            record.file.encapsulated
            or not _is_direct(record)
            or rows.start >= rows.stop
            or columns.start >= columns.stop
        ):
            return None
        return to_hu(_read_stored_window(record, rows, columns), *self._rescale(k))

    def _rescale(self, k: int) -> tuple[float, float]:
        record = self.records[k]
        rescale = record.rescale()
        if rescale is None:
            raise PixelError(
                f"{record.name}: no Rescale Slope and Intercept (0028,1053/1052), so its stored values are no HU"
            )
        return rescale

    def read_into(self, k: int, out: npt.NDArray[np.int16]) -> bool:
        """Slice k into `out` (rows, columns); False when its HU do not fit int16, and `out` is then undefined.

        Raw 16-bit slices go from the file straight into `out`: a whole volume is read without a second copy.
        """
        record = self.records[k]
        rescale = record.rescale()
        plain = rescale is not None and rescale[0] == 1 and rescale[1] == int(rescale[1])
        if not plain or _dtype(record).str not in ("<i2", "<u2") or record.file.encapsulated or not _is_direct(record):
            hu = self.read(k)
            if hu.dtype != np.int16:
                return False
            out[...] = hu
            return True
        start = (record.file.pixel_offset or 0) + record.frame * record.frame_bytes
        _read_bytes(record, start, out.data.cast("B"))
        stored = _mask_unused_bits(out.view(_dtype(record)), record)
        intercept = int(rescale[1]) if rescale else 0
        if int(stored.min()) + intercept < -32768 or int(stored.max()) + intercept > 32767:
            return False
        # Two's complement: the low 16 bits of the sum are right wherever the true sum fits.
        np.add(stored.view(np.int16), np.int16((intercept + 32768) % 65536 - 32768), out=out)
        return True

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        record = self.records[k]
        padding, rescale = record.padding(), record.rescale()
        if padding is None or rescale is None:
            return None
        ends = [stored * rescale[0] + rescale[1] for stored in padding]
        return min(ends), max(ends)

    def sop_instance_uid(self, k: int) -> str | None:
        return self.records[k].sop_instance_uid
