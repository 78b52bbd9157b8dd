"""The result file, "spineimg.result/1", out and back in, and the agreement file, "spineimg.agreement/1"."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from spineimg import __version__
from spineimg.anatomy import parse_level
from spineimg.errors import SpineImgError
from spineimg.export.files import replacing
from spineimg.export.implants import screen_to_dict
from spineimg.notes import Note
from spineimg.results import CaseResult, VertebraResult
from spineimg.vertebra.described import body_to_dict
from spineimg.vertebra.flags import Call, Flag
from spineimg.vertebra.hu import SliceHU
from spineimg.volume import Acquisition, SeriesInfo

RESULT_SCHEMA = "spineimg.result/1"
AGREEMENT_SCHEMA = "spineimg.agreement/1"

# -- out --------------------------------------------------------------------------------------------------------------


def result_to_dict(result: CaseResult, created: datetime) -> dict[str, Any]:
    """A result as the contract's dict of plain values. created: when it was made, with its time zone.

    Everything unknown, unmeasured or not finite is None. Where implants were not screened their lists are empty.
    """
    identity = {"patient": dict(result.series.patient)} if result.series.patient else {}
    plain: dict[str, Any] = _plain(
        {
            "schema": RESULT_SCHEMA,
            **({"reader": result.reader} if result.reader is not None else {}),
            "series": _series(result.series, result.n_slices, result.spacing_mm),
            **identity,
            "acquisition": _acquisition(result.acquisition),
            "vertebrae": [_vertebra(one) for one in result.vertebrae],
            **screen_to_dict(result.implants),
            "notes": [_note(note) for note in result.notes],
            "made_by": _made_by(result.settings, created),
        }
    )
    return plain


def agreement_to_dict(agreement: Any, created: datetime) -> dict[str, Any]:
    """A record of `spineimg.agreement` as a dict of plain values, field by field, with schema and `made_by`."""
    record = {"schema": AGREEMENT_SCHEMA, **asdict(agreement), "made_by": _made_by({}, created)}
    plain: dict[str, Any] = _plain(record)
    return plain


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes `content` to a file, replacing one that exists, or to standard output when path is "-".

    Raises SpineImgError when the file cannot be written, ValueError for a number that is not finite (our own bug).
    """
    to_screen = str(path) == "-"
    text = json.dumps(content, indent=2, ensure_ascii=to_screen, allow_nan=False) + "\n"
    if to_screen:  # only ASCII, whatever the terminal's character set
        sys.stdout.write(text)
        return
    with replacing(path) as handle:
        handle.write(text.encode("utf-8", "replace"))  # a name that no character set decodes must not stop a result


def all_notes(vertebra: VertebraResult) -> tuple[Note, ...]:
    """Every note on a vertebra once: those of the measurement, then those of the assessment."""
    return tuple(dict.fromkeys((*vertebra.hu.notes, *vertebra.notes)))


def _series(series: SeriesInfo, n_slices: int, spacing_mm: Sequence[float]) -> dict[str, Any]:
    return {
        "series_instance_uid": series.name if series.series_instance_uid is not None else None,
        "description": series.description,
        "n_slices": n_slices,
        "spacing_mm": spacing_mm,
    }


def _acquisition(acquisition: Acquisition) -> dict[str, Any]:
    contract = ("kvp", "contrast", "kernel", "slice_thickness_mm", "manufacturer", "metal_artifact_reduction", "stated")
    return {name: getattr(acquisition, name) for name in contract} | asdict(acquisition)


def _vertebra(vertebra: VertebraResult) -> dict[str, Any]:
    hu = vertebra.hu
    return {
        "level": vertebra.level,
        "role": vertebra.role,
        "confirmed": vertebra.confirmed,
        **({"status": vertebra.status} if vertebra.status is not None else {}),
        "mean_hu": hu.mean_hu,
        "pooled_mean_hu": hu.pooled_mean_hu,
        "median_hu": hu.median_hu,
        "sd_hu": hu.sd_hu,
        "n_voxels": hu.n_voxels if hu.mean_hu is not None else None,
        "kept_fraction": hu.kept_fraction,
        "slices": [_slice(one) for one in hu.slices],
        "flag": None if vertebra.flag is None else _flag(vertebra.flag),
        **({"body": body_to_dict(hu.body)} if hu.body is not None else {}),
        "notes": [_note(note) for note in all_notes(vertebra)],
    }


def _slice(one: SliceHU) -> dict[str, Any]:
    return {
        "position": one.position,
        "mean_hu": one.mean_hu,
        "sd_hu": one.sd_hu,
        "median_hu": one.median_hu,
        "n_voxels": one.n_voxels if one.mean_hu is not None else None,
        "area_mm2": one.area_mm2,
        "kept_fraction": one.kept_fraction,
        "center": one.center_lps_mm,
        "u": one.u_lps,
        "v": one.v_lps,
        "semi_axes_mm": one.semi_axes_mm,
        "sop_instance_uids": one.sop_instance_uids,
    }


def _flag(flag: Flag) -> dict[str, Any]:
    return {
        "call": flag.call,
        "below_cutoff": flag.below_cutoff,
        "cutoff_hu": flag.cutoff_hu,
        "interval_hu": flag.interval_hu,
        "source": flag.source,
        "text": flag.text,
    }


def _note(note: Note) -> dict[str, str]:
    return {"code": note.code, "text": note.text, "about": note.about}


def _made_by(settings: Mapping[str, Any], created: datetime) -> dict[str, Any]:
    stamp = created.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"spineimg": __version__, "settings": settings, "created": stamp}


def _plain(value: Any) -> Any:
    """Containers, enums and NumPy numbers as JSON knows them; a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, str) else value


# -- in ---------------------------------------------------------------------------------------------------------------


def read_result(path: str | Path) -> dict[str, Any]:
    """A result file as a dict, checked as far as a comparison of readers relies on it.

    Raises SpineImgError that names the file and the place for anything that is not a "spineimg.result/1".
    """
    where = Path(path)
    try:
        content = json.loads(where.read_bytes().decode("utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as error:
        raise SpineImgError(f"cannot read {where}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SpineImgError(f"{where} is not JSON: {error}; a result of `spineimg hu --json` is needed") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != RESULT_SCHEMA:
        raise SpineImgError(f"{where} has schema {schema!r}, a result file needs {RESULT_SCHEMA!r}")
    try:
        _check_result(content)
    except SpineImgError as error:
        raise SpineImgError(f"{where}: {error}") from error
    result: dict[str, Any] = content
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_result(content: dict[str, Any]) -> None:
    _need(content, "series", dict)
    _need(content["series"], "series_instance_uid", str, None)
    _need(content, "made_by", dict)
    _need(content["made_by"], "settings", dict)
    seen = set()
    for vertebra in _need(content, "vertebrae", list):
        if not isinstance(vertebra, dict):
            raise SpineImgError("`vertebrae` must hold objects")
        level = parse_level(vertebra.get("level"))
        if level in seen:
            raise SpineImgError(f"{level} is listed twice")
        seen.add(level)
        vertebra["level"] = level
        _check_vertebra(vertebra)


def _check_vertebra(vertebra: dict[str, Any]) -> None:
    _need_number(vertebra, "mean_hu")
    for note in _need(vertebra, "notes", list):
        if not isinstance(note, dict):
            raise SpineImgError(f"`notes` of {vertebra['level']} must hold objects")
        _need(note, "text", str)
    flag = _need(vertebra, "flag", dict, None)
    if flag is not None and flag.get("call") not in list(Call):
        raise SpineImgError(
            f"`flag.call` of {vertebra['level']} is {flag.get('call')!r}, not one of {[*map(str, Call)]}"
        )
    for one in _need(vertebra, "slices", list):
        center = one.get("center") if isinstance(one, dict) else None
        if not isinstance(center, list) or len(center) != 3 or not all(_is_number(x) for x in center):
            raise SpineImgError(f"a slice of {vertebra['level']} needs a `center` of three numbers")


def _need(holder: dict[str, Any], key: str, *kinds: type | None) -> Any:
    """The value at `key`, which must be there and of one of the kinds; None among them allows null."""
    value = holder.get(key)
    allowed = tuple(kind for kind in kinds if kind is not None)
    if key not in holder or not (isinstance(value, allowed) or (value is None and None in kinds)):
        raise SpineImgError(f"`{key}` is missing or not {' or '.join(kind.__name__ for kind in allowed)}")
    return value


def _need_number(holder: dict[str, Any], key: str) -> None:
    if key not in holder or not (holder[key] is None or _is_number(holder[key])):
        raise SpineImgError(f"`{key}` of {holder['level']} is missing or not a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
