"""One door for every input: a folder of DICOM files, one DICOM file, or a NIfTI, NRRD or MHA volume."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from spineimg.errors import SeriesError
from spineimg.io.grid_headers import is_volume_file
from spineimg.io.index import SeriesIndex, left_out, scan
from spineimg.io.series import SeriesEntry
from spineimg.io.volumes import open_volume
from spineimg.volume import Acquisition, CTVolume, Verdict


def load(path: Path | str, series: str | None = None, *, keep_ids: bool = False) -> CTVolume:
    """Open a CT series. Pixels are read when asked for.

    path: a folder (any nesting and names, links followed), one DICOM file, or a NIfTI/NRRD/MHA file.
    series: SeriesInstanceUID, with `#part` where the UID was split; may be left out when one series is usable.
    A refused series can be opened for reading when it is named or the only one; `assess` refuses it.
    Raises SeriesError when nothing, or more than one usable series, is there.
    """
    if is_volume_file(path):
        return open_volume(path)
    return choose(scan([path], keep_ids=keep_ids), os.fspath(path), series).volume()


def choose(index: SeriesIndex, path: str, series: str | None, how: str = "choose with --series from") -> SeriesEntry:
    """The series that is meant. Raises SeriesError with the candidates when it is not clear which.

    how: what the message says before the list of them.
    """
    if not index.series:
        found = f"{index.n_not_dicom} other files" if index.n_not_dicom else "no file"
        if index.skipped:
            found += f", {left_out(index.skipped)}"
        raise SeriesError(f"{path}: no DICOM image found ({found})")
    if series is not None:
        named = [one for one in index.series if series in (one.info.name, one.info.series_instance_uid)]
        if len(named) == 1:
            return named[0]
        usable = [one for one in named if one.verdict is not Verdict.REFUSED]
        if len(usable) == 1:
            return usable[0]
        problem = "is in several parts" if named else "is not there"
        raise SeriesError(f"{path}: series {series} {problem}; {how}: {_listing(index)}")
    usable = [one for one in index.series if one.verdict is not Verdict.REFUSED]
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise SeriesError(f"{path}: {len(usable)} usable series; {how}: {_listing(index)}")
    if len(index.series) == 1:
        return index.series[0]
    raise SeriesError(f"{path}: none of {len(index.series)} series can be measured: {_listing(index)}")


def _listing(index: SeriesIndex) -> str:
    def line(one: SeriesEntry) -> str:
        what = f"{one.info.name} ({one.info.description or 'no description'}, {one.n_slices} slices"
        if one.verdict is Verdict.REFUSED:
            return f"{what}, refused: {one.notes[0].code})"
        return f"{what})"

    return "; ".join(line(one) for one in index.series[:20]) + (" …" if len(index.series) > 20 else "")


def state(volume: CTVolume, stated: Acquisition) -> CTVolume:
    """The volume with what a person states about its acquisition where the file says nothing.

    Fields of `stated` that are not None count. Raises SeriesError when the file says otherwise.
    """
    changes: dict[str, object] = {}
    for name in ("kvp", "contrast", "kernel", "sharpness"):
        value, read = getattr(stated, name), getattr(volume.acquisition, name)
        if value is None or value == read:
            continue
        if read is not None and name != "sharpness":
            raise SeriesError(f"--{name} states {value}, but the file says {read}: leave the option out")
        changes[name] = value
    if not changes:
        return volume
    names = tuple(name for name in changes if name != "sharpness")
    return replace(volume, acquisition=replace(volume.acquisition, **changes, stated=names))  # type: ignore[arg-type]
