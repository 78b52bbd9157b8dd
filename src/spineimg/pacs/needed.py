"""Only the slices that a measurement needs.

The headers of all slices make the volume, and the measurement itself runs on it: every slice that it reads is fetched
when it is read, so nothing has to be guessed about what a ROI touches. The slices on disk are then measured as a folder
of their own, and must give the same numbers, notes and flags; while they do not, more slices are fetched, and in the
end all. A part of a series has another first and last slice, gaps, and perhaps fewer kinds of header than the whole:
that is what the comparison is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spineimg.errors import SeriesError
from spineimg.io.headers import WANTED, FileHeader, convert, read_header
from spineimg.io.index import series_of
from spineimg.io.pixels import DicomSource
from spineimg.io.records import ENHANCED_CLASSES, SliceRecord, records_of
from spineimg.io.series import SeriesEntry
from spineimg.pacs.inbox import Inbox
from spineimg.pacs.model import PacsError
from spineimg.pipeline import PLANES, assess
from spineimg.results import CaseResult, VertebraResult
from spineimg.rois import RoiSet
from spineimg.settings import setting
from spineimg.volume import HUArray, Verdict

_NATIVE = "1.2.840.10008.1.2.1"
_TOLERANCE = 1e-6
"""HU and mm; a volume whose slices are counted from another one rounds differently by 1e-10."""

Fetch = Callable[[Sequence[str]], None]
"""Makes sure that instances are on disk. Raises PacsError when the node does not hand them over."""


@dataclass(frozen=True, slots=True)
class NeededSettings:
    """How much is fetched around the slices that a measurement reads."""

    margin_slices: int = setting(
        4,
        "slices",
        (4, 100),
        "engineering choice: four equal steps in a row make a stretch whose spacing is known",
        "Slices fetched beyond those that are read, on either side; four times as many at each new try.",
    )


class WholeNeededError(Exception):
    """The slices that are needed cannot be told from the others. The message says why all are fetched."""


def fetch_needed(
    headers: Sequence[Any],
    rois: RoiSet,
    inbox: Inbox,
    fetch: Fetch,
    settings: NeededSettings | None = None,
) -> list[str]:
    """Fetches the slices that measuring `rois` needs; returns the SOP instances that must stay.

    headers: a pydicom data set for each instance of the series.
    Raises WholeNeededError when only the whole series will do, PacsError when no ROI lies in the series.
    """
    entry = _entry(headers)
    source = _FetchingSource(entry.records, inbox, fetch)
    volume = replace(entry.volume(), source=source)
    expected = [assess(volume, rois, plane=plane) for plane in PLANES]
    if not source.touched:
        low, high = sorted(float(z) for z in volume.geometry.origins_lps_mm[[0, -1], 2])
        raise PacsError(f"no ROI lies in series {entry.info.name}, whose slices run from z {low:.1f} to {high:.1f} mm")
    margin = (settings or NeededSettings()).margin_slices
    while True:
        wanted = _with_margin(source.touched, margin, len(entry.records))
        if len(wanted) == len(entry.records):
            raise WholeNeededError("the ROIs reach over the whole series, or a part of it would measure differently")
        uids = [source.uid(k) for k in wanted]
        fetch(uids)
        found = _measured(inbox.paths(), rois)
        if found is not None and all(same(one, other) for one, other in zip(expected, found, strict=True)):
            return uids
        margin *= 4


# -- the volume from headers ------------------------------------------------------------------------------------------


def _entry(headers: Sequence[Any]) -> SeriesEntry:
    """The series that can be measured, as the headers tell. Raises WholeNeededError when they do not."""
    try:
        records = [record for header in headers for record in records_of(_file_header(header))]
    except (SeriesError, ValueError, TypeError, OverflowError):
        raise WholeNeededError("the headers that the node sends make no sense") from None
    if any(record.values.get("SOPClassUID") in ENHANCED_CLASSES for record in records):
        raise WholeNeededError("a multi-frame image is one instance")
    usable = [one for one in series_of(records) if one.verdict is not Verdict.REFUSED]
    if len(usable) != 1:
        raise WholeNeededError("the headers that the node sends do not make one series that can be measured")
    return usable[0]


def _file_header(header: Any) -> FileHeader:
    values: dict[str, Any] = {}
    for name, kind in WANTED.values():
        decoded = convert(header.get(name), kind)
        if decoded not in ("", None, ("",)):
            values[name] = decoded
    values["NumberOfFrames"] = values.get("NumberOfFrames", 1)
    uid = str(values.get("SOPInstanceUID", ""))
    if values.get("SOPClassUID") in ENHANCED_CLASSES:
        raise WholeNeededError("a multi-frame image is one instance")
    return FileHeader(uid, 0, values, _NATIVE, has_pixels=True)


class _FetchingSource:
    """Slices that are fetched when they are read."""

    def __init__(self, records: Sequence[SliceRecord], inbox: Inbox, fetch: Fetch) -> None:
        self.touched: set[int] = set()
        self._records = records
        self._inbox = inbox
        self._fetch = fetch
        self._sources: dict[int, DicomSource] = {}

    def uid(self, k: int) -> str:
        return self._records[k].sop_instance_uid or ""

    def _source(self, k: int) -> DicomSource:
        if k not in self._sources:
            uid = self.uid(k)
            self._fetch([uid])
            self._sources[k] = DicomSource(records_of(read_header(str(self._inbox.path(uid)))))
            self.touched.add(k)
        return self._sources[k]

    def read(self, k: int) -> HUArray:
        return self._source(k).read(0)

    def padding_hu(self, k: int) -> tuple[float, float] | None:
        return self._source(k).padding_hu(0)

    def sop_instance_uid(self, k: int) -> str | None:
        return self._records[k].sop_instance_uid


def _with_margin(touched: Collection[int], margin: int, count: int) -> list[int]:
    """Slices that were read and so many on either side of each."""
    return sorted({k for at in touched for k in range(max(0, at - margin), min(count, at + margin + 1))})


# -- the comparison ---------------------------------------------------------------------------------------------------


def _measured(paths: Sequence[Path], rois: RoiSet) -> list[CaseResult] | None:
    """The fetched slices, measured as a folder of their own; None when they make no series."""
    records = [record for path in paths for record in records_of(read_header(str(path)))]
    usable = [one for one in series_of(records) if one.verdict is not Verdict.REFUSED]
    if len(usable) != 1:
        return None
    volume = usable[0].volume()
    return [assess(volume, rois, plane=plane) for plane in PLANES]


def same(one: CaseResult, other: CaseResult) -> bool:
    """Whether two results hold the same vertebrae with the same numbers, notes and flags."""
    if one.acquisition != other.acquisition or len(one.vertebrae) != len(other.vertebrae):
        return False
    pairs = zip(one.vertebrae, other.vertebrae, strict=True)
    return all(_words(a) == _words(b) and _close(_numbers(a), _numbers(b)) for a, b in pairs)


def _words(vertebra: VertebraResult) -> tuple[object, ...]:
    notes = sorted((note.code, note.about) for note in (*vertebra.hu.notes, *vertebra.notes))
    call = vertebra.flag.call if vertebra.flag is not None else None
    uids = tuple(sorted(one.sop_instance_uids) for one in vertebra.hu.slices)
    return vertebra.level, call, notes, uids


def _numbers(vertebra: VertebraResult) -> list[float | None]:
    hu = vertebra.hu
    numbers = [hu.mean_hu, hu.pooled_mean_hu, hu.median_hu, hu.sd_hu, hu.n_voxels, hu.kept_fraction]
    for one in hu.slices:
        numbers += [one.mean_hu, one.sd_hu, one.median_hu, one.n_voxels, one.area_mm2, one.kept_fraction]
        numbers += [*one.center_lps_mm, *(one.u_lps or ()), *(one.v_lps or ()), *(one.semi_axes_mm or ())]
    span = vertebra.flag.interval_hu if vertebra.flag is not None else None
    return [*numbers, *(span or ())]


def _close(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    return len(one) == len(other) and all(
        a is b or (a is not None and b is not None and math.isclose(a, b, rel_tol=0, abs_tol=_TOLERANCE))
        for a, b in zip(one, other, strict=True)
    )
