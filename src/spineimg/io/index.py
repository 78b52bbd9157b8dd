"""What lies in a folder: every series with its verdict, and every file that could not be used. Headers only."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spineimg.errors import SeriesError
from spineimg.geometry import FloatArray
from spineimg.io.headers import FileHeader, NotDicomError, read_header
from spineimg.io.records import SliceRecord, records_of
from spineimg.io.series import SeriesEntry, SliceGroup, judge, kind_of, orientation_of, same_orientation, series_info
from spineimg.notes import Note

MOST_ORIENTATIONS = 12
"""A UID with more orientations than this is a rotating reformat and stays in one part. Engineering choice."""
PARTIAL_PREFIX = ".partial-"
"""Folders with such a name hold a transfer that is not finished: nothing in them may be measured."""
_UNREADABLE = "unreadable: "
_IS_PARTIAL = "a transfer from a PACS that was not finished: run the same pacs get again"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that should have been usable, and why it is not."""

    path: str
    reason: str

    @property
    def unreadable(self) -> bool:
        """Whether the disk failed or the system refused: another try may succeed."""
        return self.reason.startswith(_UNREADABLE)


def left_out(skipped: Sequence[Skipped]) -> str:
    """How many files or folders, at least one, cannot be used, and why the first one cannot."""
    which = "" if len(skipped) == 1 else "the first: "
    return f"{len(skipped)} cannot be used ({which}{skipped[0].path}: {skipped[0].reason})"


@dataclass(frozen=True, eq=False, slots=True)
class SeriesIndex:
    """All series of some folders or files, usable or not. `n_not_dicom` counts files of other kinds."""

    series: tuple[SeriesEntry, ...]
    skipped: tuple[Skipped, ...]
    n_not_dicom: int


def walk(paths: Iterable[Path | str]) -> Iterator[tuple[str, str | None]]:
    """(path, None) of every file below the paths, links followed, each file and folder once; (path, reason) if not.

    Files of a folder come sorted by name, so that a result does not depend on the file system.
    """
    seen: set[tuple[int, int]] = set()
    stack = [os.fspath(path) for path in paths][::-1]
    while stack:
        path = stack.pop()
        # The first question is the cheap one, for thousands of files.
        if PARTIAL_PREFIX in path and os.path.basename(path.rstrip(os.sep)).startswith(PARTIAL_PREFIX):  # noqa: PTH119
            yield path, _IS_PARTIAL
            continue
        try:
            status = os.stat(path)  # noqa: PTH116 - strings, for speed over thousands of files
            key = (status.st_dev, status.st_ino)
            if key in seen:
                continue
            seen.add(key)
            if not stat.S_ISDIR(status.st_mode):
                yield path, None if stat.S_ISREG(status.st_mode) else "neither a file nor a folder"
                continue
            with os.scandir(path) as entries:
                stack += sorted((entry.path for entry in entries), reverse=True)
        except OSError as error:
            yield path, f"{_UNREADABLE}{error.strerror}"


def headers(
    paths: Iterable[Path | str], read: Callable[[str], FileHeader] = read_header
) -> Iterator[tuple[str, FileHeader | Skipped | None]]:
    """(path, header) of every file below the paths; None for one of another kind, Skipped for one without a usable
    header, and for a folder that cannot be read."""
    for path, reason in walk(paths):
        found: FileHeader | Skipped | None = None
        if reason is not None:
            found = Skipped(path, reason)
        else:
            try:
                found = read(path)
            except NotDicomError:
                pass
            except SeriesError as error:
                found = Skipped(path, str(error))
            except OSError as error:
                found = Skipped(path, f"{_UNREADABLE}{error.strerror}")
        yield path, found


def scan(
    paths: Sequence[Path | str], *, keep_ids: bool = False, read: Callable[[str], FileHeader] = read_header
) -> SeriesIndex:
    """Index folders and files. Never raises for what it finds there; a path that does not exist is a SeriesError.

    read: gives the header of a file, for those who have read it before.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise SeriesError(f"{path}: no such file or folder")
    records: list[SliceRecord] = []
    skipped: list[Skipped] = []
    n_not_dicom = 0
    for path, header in headers(paths, read):
        if header is None:
            n_not_dicom += 1
        elif isinstance(header, Skipped):
            skipped.append(header)
        else:
            try:
                records += records_of(header)
            except SeriesError as error:
                skipped.append(Skipped(path, str(error)))
    return SeriesIndex(series_of(records, keep_ids=keep_ids), tuple(skipped), n_not_dicom)


def series_of(records: Iterable[SliceRecord], *, keep_ids: bool = False) -> tuple[SeriesEntry, ...]:
    """The series that slices make, each with its verdict; the largest part of a UID first."""
    return tuple(entry for group in _by_uid(records) for entry in _parts(group, keep_ids=keep_ids))


def _by_uid(records: Iterable[SliceRecord]) -> list[list[SliceRecord]]:
    """Slices of one SeriesInstanceUID; of one folder where anonymisation took the UID away."""
    groups: dict[tuple[str, ...], list[SliceRecord]] = defaultdict(list)
    for record in records:
        uid = record.values.get("SeriesInstanceUID")
        if uid:
            groups[("", uid)].append(record)
        else:
            folder, description = os.path.dirname(record.path), record.values.get("SeriesDescription", "")  # noqa: PTH120
            groups[(folder, record.values.get("StudyInstanceUID", ""), description)].append(record)
    return list(groups.values())


def _parts(records: Sequence[SliceRecord], *, keep_ids: bool) -> Iterator[SeriesEntry]:
    """One entry for each size, orientation and kind of slice inside one UID; the largest part first."""
    numbers: dict[tuple[object, ...], int] = {}
    kinds = [numbers.setdefault(record.kind, len(numbers)) for record in records]
    firsts: dict[int, SliceRecord] = {}
    for record, kind in zip(records, kinds, strict=True):
        firsts.setdefault(kind, record)
    samples = list(firsts.values())
    turned = _orientations(samples)
    n_turned = len(set(turned) - {None})
    keys = [
        _part(sample, place, many=n_turned > MOST_ORIENTATIONS) for sample, place in zip(samples, turned, strict=True)
    ]
    groups: dict[tuple[object, ...], list[SliceRecord]] = defaultdict(list)
    for record, kind in zip(records, kinds, strict=True):
        groups[keys[kind]].append(record)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    for number, (key, group) in enumerate(ordered, start=1):
        extra = []
        if n_turned > 1 and len(group) < 3:
            extra = [Note("mixed_orientation", "slices of several orientations share this SeriesInstanceUID")]
        info = series_info(group[0], number if len(ordered) > 1 else None, keep_ids=keep_ids)
        of_group = [sample for sample, own in zip(samples, keys, strict=True) if own == key]
        yield judge(info, SliceGroup(group, of_group), extra=extra)


def _part(sample: SliceRecord, orientation: int | None, *, many: bool) -> tuple[object, ...]:
    """What the slices of one part have in common; many: there are too many orientations to tell them apart."""
    spacing = sample.numbers("PixelSpacing", 2)
    rounded = tuple(round(number, 4) for number in spacing) if spacing else None
    known = orientation is not None if many else orientation
    frame_of_reference = sample.values.get("FrameOfReferenceUID")  # positions in two of them have no relation
    return (kind_of(sample), sample.matrix, rounded, known, frame_of_reference, sample.file.has_pixels)


def _orientations(records: Sequence[SliceRecord]) -> list[int | None]:
    """Which of the orientations in this UID each record has, counted from 0; None for a record without one."""
    known: list[FloatArray] = []
    by_value: dict[object, int | None] = {}
    numbers = []
    for record in records:
        value = record.numbers("ImageOrientationPatient", 6)
        if value not in by_value:
            directions = orientation_of(record)
            by_value[value] = None if directions is None else _number(directions, known)
        numbers.append(by_value[value])
    return numbers


def _number(directions: FloatArray, known: list[FloatArray]) -> int:
    """The place of these directions in the list of known ones, to which they are added when new."""
    for number, other in enumerate(known):
        if same_orientation(directions, other):
            return number
    known.append(directions)
    return len(known) - 1
