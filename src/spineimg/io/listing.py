"""What `spineimg series` tells of a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from spineimg.geometry import Geometry
from spineimg.io.index import SeriesIndex
from spineimg.io.series import SeriesEntry
from spineimg.notes import Note
from spineimg.volume import Acquisition, CTVolume, SeriesInfo, Verdict

SCHEMA = "spineimg.series/1"


def index_to_dict(index: SeriesIndex) -> dict[str, Any]:
    """The index as a `spineimg.series/1` document. `n_not_dicom` counts the files of other kinds."""
    return {
        "schema": SCHEMA,
        "series": [_entry(entry) for entry in index.series],
        "skipped": [{"path": one.path, "reason": one.reason} for one in index.skipped],
        "n_not_dicom": index.n_not_dicom,
    }


def volume_to_dict(volume: CTVolume) -> dict[str, Any]:
    """The same document for one volume that is no DICOM series."""
    one = _describe(
        volume.series, volume.acquisition, volume.geometry.shape[0], volume.geometry, volume.verdict, volume.notes
    )
    return {"schema": SCHEMA, "series": [one], "skipped": [], "n_not_dicom": 0}


def _entry(entry: SeriesEntry) -> dict[str, Any]:
    return _describe(entry.info, entry.acquisition, entry.n_slices, entry.geometry, entry.verdict, entry.notes)


def _describe(
    info: SeriesInfo,
    acquisition: Acquisition,
    n_slices: int,
    geometry: Geometry | None,
    verdict: Verdict,
    notes: Sequence[Note],
) -> dict[str, Any]:
    spacing = geometry.spacing_mm if geometry is not None else (math.nan,) * 3
    return {
        "series_instance_uid": info.series_instance_uid,
        "part": info.part,
        "description": info.description,
        "n_slices": n_slices,
        "spacing_mm": [None if math.isnan(one) else round(one, 6) for one in spacing] if geometry else None,
        "kvp": acquisition.kvp,
        "kernel": acquisition.kernel,
        "contrast": acquisition.contrast,
        "slice_thickness_mm": acquisition.slice_thickness_mm,
        "verdict": verdict.value,
        "notes": [{"code": note.code, "text": note.text, "about": note.about} for note in notes],
    }
