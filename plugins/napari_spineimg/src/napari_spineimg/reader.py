"""Reader: a dropped DICOM folder or file, NIfTI, NRRD or MHA becomes an image layer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spineimg.errors import SeriesError
from spineimg.io.grid_headers import is_volume_file
from spineimg.io.headers import NotDicomError, read_header
from spineimg.io.index import SeriesIndex, scan, walk
from spineimg.io.opening import choose
from spineimg.io.series import SeriesEntry
from spineimg.io.volumes import open_volume
from spineimg.volume import CTVolume, Verdict

from napari_spineimg.study import open_study, volume_to_layer

LayerData = tuple[Any, dict[str, Any], str]
_LOOKED_AT = 200
"""So many files of a folder are tried before it counts as one without DICOM. Engineering choice."""


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Any]] | None:
    """The reader for a path, or None when there is nothing here for it."""
    one = _one(path)
    if not Path(one).exists() or not (is_volume_file(one) or _has_dicom(one)):
        return None
    return read


def read(path: str | Sequence[str]) -> list[Any]:
    """Layers of a path; napari's empty layer when the reader closes the list of series. Raises SpineImgError."""
    one = _one(path)
    volume = open_volume(one) if is_volume_file(one) else _of_folder(one)
    _attach()
    return [(None,)] if volume is None else [volume_to_layer(open_study(one, volume))]


def _one(path: str | Sequence[str]) -> str:
    """napari hands in a list when files are to be stacked: then their folder is meant."""
    if isinstance(path, str | os.PathLike):
        return os.fspath(path)
    return os.fspath(path[0]) if len(path) == 1 else os.path.commonpath([os.fspath(one) for one in path])


def _has_dicom(path: str) -> bool:
    for file, problem in itertools.islice(walk([path]), _LOOKED_AT):
        if problem is not None:
            continue
        try:
            read_header(file)
        except NotDicomError:
            continue
        except SeriesError:
            return True  # a broken DICOM file is for this reader to refuse, with the reason
        return True
    return False


def _of_folder(path: str) -> CTVolume | None:
    """The series that is meant; None when the reader decides for none. Raises SpineImgError."""
    index = scan([path])
    usable = [entry for entry in index.series if entry.verdict is not Verdict.REFUSED]
    if len(usable) == 1 and len(index.series) == 1:
        return usable[0].volume()
    if not index.series or not _has_window():
        return choose(index, path, None).volume()
    entry = _asked(index, path)
    return None if entry is None else entry.volume()


def _asked(index: SeriesIndex, path: str) -> SeriesEntry | None:
    """The series that the reader picks from a table."""
    from napari_spineimg.series_dialog import SeriesDialog

    return SeriesDialog.ask(index, path)


def _has_window() -> bool:
    """Whether there is someone to ask."""
    import napari

    return napari.current_viewer() is not None


def _attach() -> None:
    """Letters, windows and the status bar come with the layer, before any dock widget is opened."""
    import napari

    from napari_spineimg.room import room_of

    viewer = napari.current_viewer()
    if viewer is not None:
        room_of(viewer)
