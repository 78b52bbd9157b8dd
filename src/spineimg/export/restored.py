"""A result file as the record it was written from, as far as a figure of it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spineimg.anatomy import Role, Side
from spineimg.errors import SpineImgError
from spineimg.export.dicom_planes import ellipse_of
from spineimg.geometry import Geometry
from spineimg.implants.model import Grade, Halo, HaloMap, ImplantScreen, Loosening, OtherMetal, Rod, Screw, Shaft
from spineimg.notes import Note
from spineimg.results import CaseResult, VertebraResult
from spineimg.sampling import SamplingSettings, tilt_deg
from spineimg.vertebra.described import body_from_dict
from spineimg.vertebra.flags import Call, Flag
from spineimg.vertebra.hu import SliceHU, VertebraHU
from spineimg.volume import CTVolume

Entry = Mapping[str, Any]


def restored(document: Entry, volume: CTVolume) -> CaseResult:
    """The record of a result file, for drawing it on the volume that it was measured on.

    document: the dict of a result file. Settings are not restored.
    """
    return CaseResult(
        series=volume.series,
        n_slices=volume.geometry.shape[0],
        spacing_mm=volume.geometry.spacing_mm,
        acquisition=volume.acquisition,
        vertebrae=tuple(_vertebra(one, volume.geometry) for one in document["vertebrae"]),
        notes=tuple(_note(note) for note in document["notes"]),
        implants=restored_screen(document),
    )


def restored_screen(document: Entry) -> ImplantScreen | None:
    """What the implant screen of a result file found, None when implants were not screened.

    A shaft's `metal_hu` and `clipped` are not in the file and are nan and False; a halo's map is taken to lie in bone
    where it has a width. A diameter that is null in the file is nan. Raises SpineImgError for a file that `implants`
    did not write.
    """
    if not document.get("screws") and "other_metal" not in document:
        return None
    try:
        return _screen(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"its screws, rods or other metal are not as `implants` writes them ({error!r:.80}): screen it again"
        raise SpineImgError(text) from error


def _screen(document: Entry) -> ImplantScreen:
    grade = document.get("grade") or {}
    return ImplantScreen(
        screws=tuple(_screw(one) for one in document.get("screws", [])),
        rods=tuple(_rod(one) for one in document.get("rods", [])),
        other_metal=tuple(
            OtherMetal(tuple(one["center"]), one["volume_mm3"], one["kind"], one["why"])
            for one in document.get("other_metal", [])
        ),
        grade=Grade(grade.get("silva_type"), grade.get("text", "")),
    )


def _screw(entry: Entry) -> Screw:
    side = entry.get("side")
    return Screw(
        id=entry["id"],
        shaft=Shaft(tuple(entry["head"]), tuple(entry["tip"]), entry.get("diameter_mm") or np.nan, np.nan, False),
        halo=_halo(entry.get("halo") or {}),
        loosening=Loosening(entry.get("loosening") or Loosening.NOT_ASSESSED),
        level=entry.get("level"),
        side=Side(side) if side in set(Side) else None,
        trajectory_hu=entry.get("trajectory_hu"),
        breach_mm=entry.get("breach_mm"),
        notes=tuple(_note(note) for note in entry.get("notes", [])),
    )


def _halo(entry: Entry) -> Halo:
    interval = entry.get("interval_mm")
    return Halo(
        assessable=bool(entry.get("assessable")),
        width_median_mm=entry.get("width_median_mm"),
        width_p90_mm=entry.get("width_p90_mm"),
        coverage_over_1mm=entry.get("coverage_over_1mm"),
        axial_extent_mm=entry.get("axial_extent_mm"),
        interval_mm=None if interval is None else (interval[0], interval[1]),
        reason=entry.get("reason") or "",
        map=_map(entry["map"]) if entry.get("map") else None,
    )


def _map(entry: Entry) -> HaloMap:
    arrays = {name: np.array(entry[name], dtype=np.float64) for name in ("depths_mm", "angles_deg")}
    width, sd = (np.array(entry[name], dtype=np.float64) for name in ("width_mm", "sd_mm"))
    return HaloMap(**arrays, width_mm=width, sd_mm=sd)


def _rod(entry: Entry) -> Rod:
    points = tuple((point[0], point[1], point[2]) for point in entry["points"])
    return Rod(entry["id"], points, entry["diameter_mm"])


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
        body=body_from_dict(entry["body"]) if entry.get("body") else None,
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
