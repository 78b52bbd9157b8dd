"""A CT series as the measurements see it: where voxels are, how to read slice k, and how it was acquired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from spineimg.errors import SeriesError
from spineimg.geometry import Geometry
from spineimg.notes import Note

NO_MEASUREMENT_BELOW_HU = -1500.0
"""Air is -1000 HU; scanners fill the corners outside their field of view with -2000 or less, with or without a padding
tag. Nothing in a patient reads below this. Engineering choice."""

HUArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]


class SliceSource(Protocol):
    """Reads one slice at a time. Every source passes the same conformance test (tests/core/conformance.py)."""

    def read(self, k: int) -> HUArray:
        """(rows, columns) HU of slice k: int16 where every value fits, else float32. Raises PixelError."""
        ...

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        """Closed HU range of slice k that means "no measurement here" (pixel padding), or None."""
        ...

    def sop_instance_uid(self, k: int) -> str | None:
        """The SOP instance that holds slice k; None when the source is not DICOM."""
        ...


WindowReader = Callable[[int, slice, slice], HUArray | None]
"""(k, rows, columns) -> these rows and columns of slice k, with the values of `read`, though int16 where they alone fit
it; None where reading the whole slice costs no more. Both slices have a start and a stop, which may lie beyond the
image's last row or column. Raises PixelError."""


def window_reader(source: SliceSource) -> WindowReader | None:
    """`read_window` of a source that has it: it can read part of a slice for less than the whole."""
    found: WindowReader | None = getattr(source, "read_window", None)
    return found


class Verdict(StrEnum):
    """Whether the geometry of a series allows measuring."""

    USABLE = "usable"
    USABLE_WITH_NOTES = "usable_with_notes"
    REFUSED = "refused"


class Sharpness(StrEnum):
    """How a reconstruction kernel treats edges."""

    SOFT = "soft"
    SHARP = "sharp"


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How a series was acquired and reconstructed. None means unknown, never "no"."""

    kvp: float | None = None
    contrast: bool | None = None
    contrast_agent: str | None = None
    contrast_route: str | None = None
    kernel: str | None = None
    """Convolution kernel; several values joined by a backslash as in DICOM."""
    sharpness: Sharpness | None = None
    slice_thickness_mm: float | None = None
    manufacturer: str | None = None
    model: str | None = None
    metal_artifact_reduction: bool | None = None
    monoenergetic_kev: float | None = None
    """Energy of a virtual mono-energetic image; 0.0 when it is one but its energy is not told."""
    patient_position: str | None = None
    stated: tuple[str, ...] = ()
    """Names of the fields that a person stated on the command line."""


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """Which series this is. Holds no identity of the patient unless `patient` was asked for."""

    series_instance_uid: str | None = None
    part: int | None = None
    description: str | None = None
    study_instance_uid: str | None = None
    frame_of_reference_uid: str | None = None
    patient: tuple[tuple[str, str], ...] = ()
    """(("patient_id", …), ("patient_name", …), ("patient_birth_date", …)) only with --keep-ids."""

    @property
    def name(self) -> str:
        """The UID, with `#part` when the UID was split."""
        uid = self.series_instance_uid or "(no SeriesInstanceUID)"
        return f"{uid}#{self.part}" if self.part is not None else uid


@dataclass(frozen=True, eq=False, slots=True)
class CTVolume:
    """A CT series. Nothing is decoded until `read` is called."""

    geometry: Geometry
    source: SliceSource
    acquisition: Acquisition = Acquisition()
    series: SeriesInfo = SeriesInfo()
    verdict: Verdict = Verdict.USABLE
    notes: tuple[Note, ...] = ()

    def require_usable(self) -> None:
        """Raises SeriesError with the reasons when the geometry does not allow measuring."""
        if self.verdict is Verdict.REFUSED:
            why = "; ".join(f"{note.code}: {note.text}" for note in self.notes) or "its geometry was refused"
            raise SeriesError(f"series {self.series.name} cannot be measured: {why}")

    def read(self, k: int) -> HUArray:
        """(rows, columns) HU of slice k."""
        return self.source.read(k)

    def read_window(self, k: int, rows: slice, columns: slice) -> HUArray:
        """HU of some rows and columns of slice k, within the image. Both slices have a start and a stop."""
        read = window_reader(self.source)
        own = read(k, rows, columns) if read is not None else None
        return self.source.read(k)[rows, columns] if own is None else own

    def valid(self, k: int, hu: HUArray) -> npt.NDArray[np.bool_]:
        """(rows, columns) True where `hu` of slice k is a measurement: finite, possible, and not pixel padding."""
        padding = self.source.padding_hu(k)
        whole = hu.dtype.kind == "i"  # then compared as whole numbers, thirty times as fast as with a float
        good = hu > int(NO_MEASUREMENT_BELOW_HU) if whole else np.isfinite(hu) & (hu > NO_MEASUREMENT_BELOW_HU)
        if padding is not None:
            good &= (hu < padding[0]) | (hu > padding[1])
        return good


class ArraySource:
    """Slices of an array in memory, shape (slices, rows, columns), HU."""

    def __init__(self, hu: npt.NDArray[np.int16] | npt.NDArray[np.float32]) -> None:
        self._hu = hu

    def read(self, k: int) -> HUArray:
        hu: HUArray = self._hu[k]
        return hu

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return None

    def sop_instance_uid(self, k: int) -> str | None:
        return None


def keeping(volume: CTVolume) -> CTVolume:
    """The volume with every slice decoded once: a body's search, its endplates and its ROIs need the same ones.

    It holds all slices that were read, or the parts of them, for as long as it lives.
    """
    return volume if isinstance(volume.source, KeptSlices) else replace(volume, source=KeptSlices(volume.source))


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """Rows and columns of a slice."""

    rows: slice
    columns: slice
    hu: HUArray

    def holds(self, rows: slice, columns: slice) -> bool:
        pairs = ((self.rows, rows), (self.columns, columns))
        return all(own.start <= one.start and one.stop <= own.stop for own, one in pairs)

    def cut(self, rows: slice, columns: slice) -> HUArray:
        first, left = self.rows.start, self.columns.start
        return self.hu[rows.start - first : rows.stop - first, columns.start - left : columns.stop - left]


def _around(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def _roomier(one: slice, room: int) -> slice:
    return slice(max(0, one.start - room), one.stop + room)


class KeptSlices:
    """A source of slices and those that were read, or one part of each."""

    def __init__(self, source: SliceSource) -> None:
        self._source = source
        self._read_window = window_reader(source)
        self._slices: dict[int, HUArray] = {}
        self._parts: dict[int, _Part] = {}
        self._padding_hu: dict[int, tuple[float, float] | None] = {}

    @classmethod
    def of(cls, volume: CTVolume) -> KeptSlices:
        return volume.source if isinstance(volume.source, cls) else cls(volume.source)

    def read(self, k: int) -> HUArray:
        if k not in self._slices:
            self._slices[k] = self._source.read(k)
            self._parts.pop(k, None)
        return self._slices[k]

    def read_window(self, k: int, rows: slice, columns: slice, room: int = 0) -> HUArray:
        """A part that is kept, else read together with the one that is, so that it stays one piece.

        room: so many more pixels around are read where any are, for whoever looks here soon looks beside it.
        """
        part = self._parts.get(k)
        if part is not None and part.holds(rows, columns):
            return part.cut(rows, columns)
        if k not in self._slices and self._read_window is not None:
            wanted = _roomier(rows, room), _roomier(columns, room)
            if part is not None:
                wanted = _around(part.rows, wanted[0]), _around(part.columns, wanted[1])
            hu = self._read_window(k, *wanted)
            if hu is not None:
                ends = [slice(one.start, one.start + size) for one, size in zip(wanted, hu.shape, strict=True)]
                part = self._parts[k] = _Part(ends[0], ends[1], hu)
                return part.cut(rows, columns)
        return self.read(k)[rows, columns]

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        if k not in self._padding_hu:
            self._padding_hu[k] = self._source.padding_hu(k)
        return self._padding_hu[k]

    def sop_instance_uid(self, k: int) -> str | None:
        return self._source.sop_instance_uid(k)
