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


RowReader = Callable[[int, int, int], HUArray | None]
"""(k, first, last) -> rows `first` up to but not `last` of slice k, with the values of `read`, though int16 where these
rows alone fit it; None where reading the whole slice costs no more. Raises PixelError."""


def row_reader(source: SliceSource) -> RowReader | None:
    """`read_rows` of a source that has it: it can read part of a slice for less than the whole."""
    found: RowReader | None = getattr(source, "read_rows", None)
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

    def read_rows(self, k: int, first: int, last: int) -> HUArray:
        """(last - first, columns) HU of some rows of slice k, within the image."""
        read = row_reader(self.source)
        own = read(k, first, last) if read is not None and first < last else None
        return self.source.read(k)[first:last] if own is None else own

    def valid(self, k: int, hu: HUArray) -> npt.NDArray[np.bool_]:
        """(rows, columns) True where `hu` of slice k is a measurement: finite, possible, and not pixel padding."""
        padding = self.source.padding_hu(k)
        good = np.isfinite(hu) & (hu > NO_MEASUREMENT_BELOW_HU)
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

    It holds all slices that were read, or the rows of them, for as long as it lives.
    """
    return volume if isinstance(volume.source, KeptSlices) else replace(volume, source=KeptSlices(volume.source))


class KeptSlices:
    """A source of slices and those that were read."""

    def __init__(self, source: SliceSource) -> None:
        self._source = source
        self._read_rows = row_reader(source)
        self._slices: dict[int, HUArray] = {}
        self._rows: dict[int, tuple[int, HUArray]] = {}
        self._padding_hu: dict[int, tuple[float, float] | None] = {}

    @classmethod
    def of(cls, volume: CTVolume) -> KeptSlices:
        return volume.source if isinstance(volume.source, cls) else cls(volume.source)

    def read(self, k: int) -> HUArray:
        if k not in self._slices:
            self._slices[k] = self._source.read(k)
            self._rows.pop(k, None)
        return self._slices[k]

    def read_rows(self, k: int, first: int, last: int) -> HUArray:
        """Rows that are kept, else read together with those that are: so they stay one piece."""
        whole = self._slices.get(k)
        start, rows = (0, whole) if whole is not None else self._rows.get(k, (first, None))
        if rows is None or first < start or last > start + len(rows):
            low, high = min(first, start), max(last, start + len(rows) if rows is not None else last)
            read = self._read_rows(k, low, high) if self._read_rows is not None and low < high else None
            start, rows = (low, read) if read is not None else (0, self.read(k))
            if read is not None:
                self._rows[k] = (start, read)
        return rows[first - start : last - start]

    def rows_at_hand(self, k: int, first: int, last: int) -> HUArray:
        """Rows that are kept, else those of the whole slice: whoever needs more of it will not open it again."""
        start, rows = self._rows.get(k, (0, None))
        if rows is None or first < start or last > start + len(rows):
            start, rows = 0, self.read(k)
        return rows[first - start : last - start]

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        if k not in self._padding_hu:
            self._padding_hu[k] = self._source.padding_hu(k)
        return self._padding_hu[k]

    def sop_instance_uid(self, k: int) -> str | None:
        return self._source.sop_instance_uid(k)
