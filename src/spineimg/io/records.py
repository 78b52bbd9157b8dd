"""One slice as its header describes it, before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spineimg.errors import SeriesError
from spineimg.io.headers import WANTED, FileHeader, Header

MAX_MATRIX = 4096
"""Largest matrix that is believed; CT matrices are 256-2048. Keeps an absurd header from claiming the memory."""
ENHANCED_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
"""Enhanced CT and Legacy Converted Enhanced CT."""
CT_CLASSES = ENHANCED_CLASSES | {"1.2.840.10008.5.1.4.1.1.2"}
_OF_A_KIND = tuple(name for name, _ in WANTED.values() if name not in ("SOPInstanceUID", "ImagePositionPatient"))


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """One slice: a file and a frame of it. `values` holds the frame's own attributes over the file's."""

    file: FileHeader
    frame: int
    frames: int
    values: Header = field(repr=False)

    @property
    def path(self) -> str:
        return self.file.path

    @property
    def name(self) -> str:
        """The file, with the frame where it has several, for messages."""
        return self.path if self.frames == 1 else f"{self.path} frame {self.frame + 1}"

    @property
    def sop_instance_uid(self) -> str | None:
        uid: str | None = self.values.get("SOPInstanceUID")
        return uid

    @property
    def kind(self) -> tuple[object, ...]:
        """All that the header says but for which slice it is and where: one and the same in most series."""
        return (*map(self.values.get, _OF_A_KIND), self.file.transfer_syntax, self.file.has_pixels, self.frames)

    @property
    def matrix(self) -> tuple[int, int] | None:
        """(rows, columns), None when absent or not believable."""
        rows, columns = self.values.get("Rows"), self.values.get("Columns")
        if isinstance(rows, int) and isinstance(columns, int) and 0 < rows <= MAX_MATRIX and 0 < columns <= MAX_MATRIX:
            return rows, columns
        return None

    @property
    def signed(self) -> bool:
        return self.values.get("PixelRepresentation") == 1

    @property
    def bits_allocated(self) -> int:
        return self._whole("BitsAllocated", 0)

    @property
    def bits_stored(self) -> int:
        return self._whole("BitsStored", 0)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame; 0 when the matrix is not known."""
        rows, columns = self.matrix or (0, 0)
        return rows * columns * self._whole("SamplesPerPixel", 1) * self.bits_allocated // 8

    def _whole(self, keyword: str, absent: int) -> int:
        """A whole number, 0 when the element holds anything else."""
        value = self.values.get(keyword, absent)
        return value if isinstance(value, int) else 0

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """So many finite numbers of an element, None when it is absent or anything else."""
        value = self.values.get(keyword)
        if isinstance(value, tuple) and len(value) == count and all(abs(number) < 1e7 for number in value):
            return value
        return None

    def found(self, keyword: str) -> str:
        """What the element holds, for messages."""
        value: Any = self.values.get(keyword)
        if value is None:
            return "nothing"
        if isinstance(value, tuple):
            return "\\".join(part if isinstance(part, str) else f"{part:g}" for part in value)
        return str(getattr(value, "text", value))

    def rescale(self) -> tuple[float, float] | None:
        """(slope, intercept), None when either is absent or the slope is zero: stored values are then no HU."""
        slope, intercept = self.numbers("RescaleSlope", 1), self.numbers("RescaleIntercept", 1)
        if slope is None or intercept is None or slope[0] == 0:
            return None
        return slope[0], intercept[0]

    def padding(self) -> tuple[int, int] | None:
        """Closed range of stored values that means "no measurement" (PS3.3 C.7.5.1.1.2).

        A value written as the unsigned twin of a negative one (63536 for -2000), or the other way round, is read
        as what the pixels can hold.
        """
        value = self.values.get("PixelPaddingValue")
        if not isinstance(value, int):
            return None
        limit = self.values.get("PixelPaddingRangeLimit", value)
        ends = [self._as_stored(value), self._as_stored(limit)]
        return min(ends), max(ends)

    def _as_stored(self, unsigned: int) -> int:
        span = 1 << max(self.bits_allocated, 8)
        value = unsigned % span
        return value - span if self.signed and value >= span // 2 else value


def check_whole(header: FileHeader) -> None:
    """Raises SeriesError when the file holds fewer or more pixel bytes than its header promises."""
    if not header.has_pixels or header.pixel_offset is None or header.pixel_length is None:
        return
    present = min(header.pixel_length, header.size - header.pixel_offset)
    frames = header.values.get("NumberOfFrames", 1)
    record = SliceRecord(header, 0, 1, header.values)
    promised = record.frame_bytes * (frames if isinstance(frames, int) else 1)
    if header.encapsulated:
        promised = 0  # only the decoder knows
    if present < max(promised, header.pixel_length):
        raise SeriesError(f"truncated: {present} of {max(promised, header.pixel_length)} bytes of pixel data")
    spare = header.pixel_length - promised
    if promised and spare > 0 and spare >= promised // max(record.matrix or (1,)):  # another row or column
        raise SeriesError(
            f"{header.pixel_length} bytes of pixel data where Rows, Columns and Bits Allocated make {promised}: "
            "its matrix cannot be known"
        )


def records_of(header: FileHeader) -> tuple[SliceRecord, ...]:
    """The slices of one file: one, or one for each frame of an Enhanced CT.

    Raises SeriesError when pixel data are cut short or the functional groups do not fit the frames.
    """
    check_whole(header)
    frames = header.values.get("NumberOfFrames", 1)
    if not isinstance(frames, int) or frames < 1:
        raise SeriesError(f"Number of Frames (0028,0008) makes no sense: {getattr(frames, 'text', frames)}")
    if header.values.get("SOPClassUID") not in ENHANCED_CLASSES:
        return (SliceRecord(header, 0, frames, header.values),)
    from spineimg.io.enhanced import frame_values

    return tuple(SliceRecord(header, i, frames, own) for i, own in enumerate(frame_values(header)))
