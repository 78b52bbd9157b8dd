"""A result file as the record it was written from, as far as a figure of it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spineimg.anatomy import Role
from spineimg.export.dicom_planes import ellipse_of
from spineimg.geometry import Geometry
from spineimg.notes import Note
from spineimg.results import CaseResult, VertebraResult
from spineimg.sampling import SamplingSettings, tilt_deg
from spineimg.vertebra.flags import Call, Flag
from spineimg.vertebra.hu import SliceHU, VertebraHU
from spineimg.volume import CTVolume

Entry = Mapping[str, Any]


def restored(document: Entry, volume: CTVolume) -> CaseResult:
    """The record of a result file, for drawing it on the volume that it was measured on.

    document: the dict of a result file. Settings and implants are not restored.
    """
    return CaseResult(
        series=volume.series,
        n_slices=volume.geometry.shape[0],
        spacing_mm=volume.geometry.spacing_mm,
        acquisition=volume.acquisition,
        vertebrae=tuple(_vertebra(one, volume.geometry) for one in document["vertebrae"]),
        notes=tuple(_note(note) for note in document["notes"]),
    )


def _vertebra(entry: Entry, geometry: Geometry) -> VertebraResult:
    role, flag = entry.get("role"), entry.get("flag")
    hu = VertebraHU(
        mean_hu=entry["mean_hu"],
        pooled_mean_hu=entry.get("pooled_mean_hu"),
        median_hu=entry.get("median_hu"),
        sd_hu=entry.get("sd_hu"),
        n_voxels=entry.get("n_voxels") or 0,
        kept_fraction=entry.get("kept_fraction"),
        slices=tuple(_slice(one, geometry) for one in entry["slices"]),
        notes=tuple(_note(note) for note in entry["notes"]),
    )
    known = Role(role) if role in set(Role) else None
    return VertebraResult(entry["level"], known, entry.get("confirmed"), hu, None if flag is None else _flag(flag))


def _slice(entry: Entry, geometry: Geometry) -> SliceHU:
    ellipse = ellipse_of(entry)
    tilt = 0.0 if ellipse is None else tilt_deg(geometry, ellipse)
    measured = bool(entry.get("sop_instance_uids"))
    return SliceHU(
        position=entry["position"],
        mean_hu=entry.get("mean_hu"),
        sd_hu=entry.get("sd_hu"),
        median_hu=entry.get("median_hu"),
        n_voxels=entry.get("n_voxels") or 0,
        area_mm2=entry.get("area_mm2"),
        kept_fraction=entry.get("kept_fraction"),
        center_lps_mm=tuple(entry["center"]),
        u_lps=None if ellipse is None else tuple(entry["u"]),
        v_lps=None if ellipse is None else tuple(entry["v"]),
        semi_axes_mm=None if ellipse is None else ellipse.semi_axes_mm,
        slices=(geometry.nearest_slice(entry["center"])[0],) if measured else (),
        resampled=tilt > SamplingSettings().in_plane_deg,
        sop_instance_uids=tuple(entry.get("sop_instance_uids") or ()),
    )


def _flag(entry: Entry) -> Flag:
    interval = entry.get("interval_hu")
    return Flag(
        call=Call(entry["call"]),
        below_cutoff=entry.get("below_cutoff"),
        cutoff_hu=entry["cutoff_hu"],
        interval_hu=None if interval is None else (interval[0], interval[1]),
        source=entry["source"],
        text=entry["text"],
    )


def _note(entry: Entry) -> Note:
    return Note(str(entry.get("code", "")), entry["text"], str(entry.get("about", "")))
