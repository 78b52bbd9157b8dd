"""The implant screen in the result file and as a table: one row a screw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from spineimg.export.table import Row, flat, head
from spineimg.implants.model import Gap, Grade, Halo, ImplantScreen, OtherMetal, Rod, Screw
from spineimg.notes import Note

_HALO = (
    *("assessable", "width_median_mm", "width_p90_mm", "coverage_over_1mm", "axial_extent_mm"),
    *("interval_mm.0", "interval_mm.1", "reason", "shape", "rim"),
)
_GRADE = ("silva_type", "nam_loosening", "nam_breakage", "text")

SCREW_COLUMNS: tuple[str, ...] = (
    *("case", "id", "level", "side", "loosening", "diameter_mm", "length_mm"),
    *(f"halo.{name}" for name in _HALO),
    *("trajectory_hu", "breach_mm", "breach.side", "n_gaps"),
    *(f"{end}.{axis}" for end in ("head", "tip") for axis in range(3)),
    "notes",
    *(f"grade.{name}" for name in _GRADE),
    *("series.series_instance_uid", "series.description", "made_by.spineimg"),
)
"""`notes` holds the codes of the screw's notes, joined by semicolons."""


def screen_to_dict(screen: ImplantScreen | None) -> dict[str, Any]:
    """The parts of a result file that the implant screen fills: screws, rods, grade, other_metal."""
    if screen is None:
        return {"screws": [], "rods": [], "grade": {"silva_type": None, "text": "implants were not screened"}}
    return {
        "screws": [_screw(one) for one in screen.screws],
        "rods": [_rod(one) for one in screen.rods],
        "grade": _grade(screen.grade),
        "other_metal": [_other(one) for one in screen.other_metal],
    }


def screw_rows(result: Mapping[str, Any], case: str) -> list[Row]:
    """One dict a screw with exactly the keys SCREW_COLUMNS. result: the dict of a result file."""
    shared = flat(head(result, "series", "grade")) | {"case": case}
    return [_row(shared, screw) for screw in result["screws"]]


def _row(shared: Mapping[str, Any], screw: Mapping[str, Any]) -> Row:
    own = flat({name: value for name, value in screw.items() if name not in ("notes", "gaps")})
    codes = ";".join(dict.fromkeys(note["code"] for note in screw["notes"]))
    values = {**shared, **own, "notes": codes, "n_gaps": len(screw["gaps"])}
    return {name: values.get(name) for name in SCREW_COLUMNS}


def _screw(screw: Screw) -> dict[str, Any]:
    shaft = screw.shaft
    return {
        "id": screw.id,
        "level": screw.level,
        "side": screw.side,
        "head": shaft.head_lps_mm,
        "tip": shaft.tip_lps_mm,
        "diameter_mm": shaft.diameter_mm,
        "length_mm": shaft.length_mm,
        "halo": _halo(screw.halo),
        "loosening": screw.loosening,
        "trajectory_hu": screw.trajectory_hu,
        "breach_mm": screw.breach_mm,
        "breach": None if screw.breach is None else asdict(screw.breach),
        "gaps": [_gap(gap) for gap in screw.gaps],
        "notes": _notes((*shaft.notes, *screw.notes)),
    }


def _halo(halo: Halo) -> dict[str, Any]:
    document: dict[str, Any] = {
        "assessable": halo.assessable,
        "width_median_mm": halo.width_median_mm,
        "width_p90_mm": halo.width_p90_mm,
        "coverage_over_1mm": halo.coverage_over_1mm,
        "axial_extent_mm": halo.axial_extent_mm,
        "interval_mm": halo.interval_mm,
        "reason": halo.reason,
        "regions": {name: dict(region) for name, region in halo.regions.items()},
        "shape": halo.shape,
        "rim": halo.rim,
    }
    if halo.map is not None:
        names = ("depths_mm", "angles_deg", "width_mm", "sd_mm")
        document["map"] = {name: getattr(halo.map, name).round(3) for name in names}
    return document


def _rod(rod: Rod) -> dict[str, Any]:
    return {
        "id": rod.id,
        "points": rod.points_lps_mm,
        "diameter_mm": rod.diameter_mm,
        "gaps": [_gap(gap) for gap in rod.gaps],
        "notes": _notes(rod.notes),
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "center": gap.center_lps_mm,
        "width_mm": gap.width_mm,
        "kink_deg": gap.kink_deg,
        "step_mm": gap.step_mm,
    }


def _grade(grade: Grade) -> dict[str, Any]:
    return asdict(grade)


def _other(metal: OtherMetal) -> dict[str, Any]:
    return {"center": metal.center_lps_mm, "volume_mm3": metal.volume_mm3, "kind": metal.kind, "why": metal.why}


def _notes(notes: Iterable[Note]) -> list[dict[str, str]]:
    return [asdict(note) for note in dict.fromkeys(notes)]
