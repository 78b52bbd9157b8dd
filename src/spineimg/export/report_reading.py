"""A result file's dict as the records that the report shows, every value checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spineimg.anatomy import LEVELS, Role, order, parse_level
from spineimg.cutoffs import PUBLISHED, Cutoff, Performance
from spineimg.errors import SpineImgError
from spineimg.export import report_values as read
from spineimg.export.report_model import (
    FlagView,
    GradeView,
    HaloMapView,
    Page,
    RodView,
    ScanView,
    ScrewView,
    SliceView,
    VertebraView,
)
from spineimg.export.report_values import Cleaner, cleaner, known_kernel
from spineimg.implants.model import Loosening
from spineimg.notes import Note
from spineimg.rois import POSITIONS
from spineimg.vertebra.flags import Call

NOT_SCREENED = "implants were not screened"
"""What a result's grade says when nobody looked for implants."""
_MOST = 400
"""More vertebrae or screws than a person has: another file. Engineering choice."""
_STATABLE = ("kvp", "contrast", "kernel")


def build_page(results: Sequence[tuple[str, Mapping[str, Any]]]) -> Page:
    """The page of one result, or of one with vertebrae and one with implants. results: (name for messages, dict).

    Raises SpineImgError that names the file for values that are not what the contract says, for two results with the
    same part, and when there is nothing to report.
    """
    clean = cleaner([result for _, result in results])
    parts = [(name, _part(name, result, clean)) for name, result in results]
    of_hu = _only([one for one in parts if one[1].vertebrae], "vertebrae")
    of_screws = _only([one for one in parts if one[1].grade is not None], "implants")
    if of_hu is None and of_screws is None:
        raise SpineImgError(f"{results[0][0]} holds neither vertebrae nor implants: there is nothing to report")
    return Page(
        vertebrae=of_hu.vertebrae if of_hu else (),
        screws=of_screws.screws if of_screws else (),
        rods=of_screws.rods if of_screws else (),
        grade=of_screws.grade if of_screws else None,
        cutoff=of_hu.cutoff if of_hu else None,
        notes=tuple(dict.fromkeys(note for _, part in parts for note in part.notes)),
        hu_scan=of_hu.scan if of_hu else None,
        screw_scan=of_screws.scan if of_screws else None,
    )


# -- one result -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    scan: ScanView
    vertebrae: tuple[VertebraView, ...]
    screws: tuple[ScrewView, ...]
    rods: tuple[RodView, ...]
    grade: GradeView | None
    cutoff: Cutoff | None
    notes: tuple[Note, ...]


def _only(parts: Sequence[tuple[str, _Part]], what: str) -> _Part | None:
    if len(parts) > 1:
        raise SpineImgError(f"{parts[0][0]} and {parts[1][0]} both hold {what}: give one of them")
    return parts[0][1] if parts else None


def _part(name: str, result: Mapping[str, Any], clean: Cleaner) -> _Part:
    try:
        vertebrae = [_vertebra(one, clean) for one in _few(read.objects(result, "vertebrae", "the result"))]
        screws = [_screw(one, clean) for one in _few(read.objects(result, "screws", "the result"))]
        rods = [_rod(one) for one in _few(read.objects(result, "rods", "the result"))]
        grade = _grade(read.mapping(result, "grade", "the result"), clean)
        flags = [one.flag for one in vertebrae if one.flag is not None]
        return _Part(
            scan=_scan(result),
            vertebrae=tuple(sorted(vertebrae, key=lambda one: order(one.level))),
            screws=tuple(sorted(screws, key=_rank)),
            rods=tuple(rods),
            grade=grade if screws or rods or grade.text != NOT_SCREENED else None,
            cutoff=_cutoff(flags[0], result) if flags else None,
            notes=_notes(result, "the result", clean),
        )
    except SpineImgError as error:
        raise SpineImgError(f"{name}: {error}") from None


def _few(items: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if len(items) > _MOST:
        raise SpineImgError(f"a list of {len(items)} is longer than a spine has vertebrae or screws")
    return items


def _rank(screw: ScrewView) -> tuple[int, str, str]:
    """From head to foot, the right screw before the left one, as pictures show them."""
    return (
        order(screw.level) if screw.level else len(LEVELS),
        {"right": "0", "left": "1"}.get(screw.side or "", "2"),
        screw.id,
    )


def _scan(result: Mapping[str, Any]) -> ScanView:
    series = read.mapping(result, "series", "the result")
    acquisition = read.mapping(result, "acquisition", "the result")
    made_by = read.mapping(result, "made_by", "the result")
    patient = read.mapping(result, "patient", "the result")
    count = read.number(series, "n_slices", "series")
    stated = acquisition.get("stated")
    return ScanView(
        uid=read.text(series, "series_instance_uid", "series"),
        description=read.text(series, "description", "series"),
        n_slices=None if count is None else int(count),
        spacing_mm=_spacing(series),
        kvp=read.number(acquisition, "kvp", "acquisition"),
        contrast=read.truth(acquisition, "contrast", "acquisition"),
        kernel=known_kernel(read.text(acquisition, "kernel", "acquisition")),
        sharpness=read.word(acquisition, "sharpness", "acquisition", ("soft", "sharp")),
        slice_thickness_mm=read.number(acquisition, "slice_thickness_mm", "acquisition"),
        stated=tuple(str(one) for one in stated if one in _STATABLE) if isinstance(stated, list) else (),
        version=read.text(made_by, "spineimg", "made_by") or "unknown",
        created=read.text(made_by, "created", "made_by") or "unknown",
        settings=read.mapping(made_by, "settings", "made_by"),
        patient=tuple((str(key), str(value)) for key, value in patient.items()),
    )


def _spacing(series: Mapping[str, Any]) -> tuple[float | None, ...]:
    """Slice step, row step and column step; a step that is not one value for all slices is null."""
    found = series.get("spacing_mm")
    return (
        tuple(read.number({"spacing_mm": one}, "spacing_mm", "series") for one in found)
        if isinstance(found, list)
        else ()
    )


def _notes(holder: Mapping[str, Any], where: str, clean: Cleaner) -> tuple[Note, ...]:
    found = []
    for one in read.objects(holder, "notes", where):
        code, text, about = (read.text(one, key, f"a note of {where}") or "" for key in ("code", "text", "about"))
        found.append(Note(code, clean.text(text), clean.place(about)))
    return tuple(dict.fromkeys(found))


def _vertebra(one: Mapping[str, Any], clean: Cleaner) -> VertebraView:
    level = parse_level(one.get("level"))
    flag = read.mapping(one, "flag", level)
    return VertebraView(
        level=level,
        role=read.word(one, "role", level, ("UIV", "LIV")),
        confirmed=read.truth(one, "confirmed", level),
        mean_hu=read.number(one, "mean_hu", level),
        pooled_mean_hu=read.number(one, "pooled_mean_hu", level),
        sd_hu=read.number(one, "sd_hu", level),
        kept_fraction=read.number(one, "kept_fraction", level),
        slices=tuple(_slice(item, f"a slice of {level}") for item in read.objects(one, "slices", level)),
        flag=_flag(flag, f"the flag of {level}", clean) if flag else None,
        notes=_notes(one, level, clean),
    )


def _slice(one: Mapping[str, Any], where: str) -> SliceView:
    center = read.vector(one, "center", where)
    if center is None:
        raise SpineImgError(f"`center` of {where} is missing")
    position = read.text(one, "position", where)
    return SliceView(
        position=position if position is not None and position in POSITIONS else "",
        mean_hu=read.number(one, "mean_hu", where),
        sd_hu=read.number(one, "sd_hu", where),
        area_mm2=read.number(one, "area_mm2", where),
        kept_fraction=read.number(one, "kept_fraction", where),
        n_voxels=int(read.number(one, "n_voxels", where) or 0),
        center=center,
        u=read.vector(one, "u", where),
        v=read.vector(one, "v", where),
        semi_axes_mm=read.pair(one, "semi_axes_mm", where),
    )


def _flag(flag: Mapping[str, Any], where: str, clean: Cleaner) -> FlagView:
    cutoff = read.number(flag, "cutoff_hu", where)
    call = read.word(flag, "call", where, [*map(str, Call)])
    if cutoff is None or call is None:
        raise SpineImgError(f"{where} needs `call` and `cutoff_hu`")
    return FlagView(
        call=Call(call),
        cutoff_hu=cutoff,
        interval_hu=read.pair(flag, "interval_hu", where),
        source=clean.text(read.text(flag, "source", where) or "no source"),
        text=clean.text(read.text(flag, "text", where) or ""),
    )


def _cutoff(flag: FlagView, result: Mapping[str, Any]) -> Cutoff | None:
    """The cutoff that a flag names: a published one, else one of the reader's own, from the settings."""
    for cutoff in PUBLISHED:
        if cutoff.source == flag.source and cutoff.value_hu == flag.cutoff_hu:
            return cutoff
    settings = read.mapping(read.mapping(result, "made_by", "the result"), "settings", "made_by")
    for one in read.objects(settings, "cutoffs", "settings"):
        if one.get("source") == flag.source and one.get("value_hu") == flag.cutoff_hu:
            return _own_cutoff(one, flag)
    return None


def _own_cutoff(one: Mapping[str, Any], flag: FlagView) -> Cutoff:
    where = f"the cutoff of {flag.source}"
    texts = {
        key: read.text(one, key, where) or "not told" for key in ("citation", "population", "method", "conditions")
    }
    performance = [_performance(item, where) for item in read.objects(one, "performance", where)]
    events = read.pair(one, "events", where)
    return Cutoff(
        value_hu=flag.cutoff_hu,
        role=Role.LIV if one.get("role") != Role.UIV else Role.UIV,
        source=flag.source,
        **texts,
        performance=tuple(found for found in performance if found is not None),
        events=(int(events[0]), int(events[1])) if events is not None and 0 < events[0] < events[1] else None,
        caution=read.text(one, "caution", where) or "",
    )


def _performance(item: Mapping[str, Any], where: str) -> Performance | None:
    rates = [read.number(item, key, where) for key in ("sensitivity", "specificity")]
    if rates[0] is None or rates[1] is None or not all(0 < rate <= 1 for rate in rates if rate is not None):
        return None
    return Performance(read.text(item, "where", where) or "", rates[0], rates[1], read.number(item, "auc", where))


# -- implants ----------------------------------------------------------------------------------------------------------


def _screw(one: Mapping[str, Any], clean: Cleaner) -> ScrewView:
    name = read.text(one, "id", "a screw") or "a screw"
    level = one.get("level")
    head, tip = (read.vector(one, key, name) for key in ("head", "tip"))
    if head is None or tip is None:
        raise SpineImgError(f"`head` or `tip` of {name} is missing")
    halo = read.mapping(one, "halo", name)
    where = f"the halo of {name}"
    plan = read.mapping(halo, "map", where)
    return ScrewView(
        id=clean.text(name),
        level=None if level is None else parse_level(level),
        side=read.word(one, "side", name, ("left", "right")),
        head=head,
        tip=tip,
        diameter_mm=read.number(one, "diameter_mm", name),
        length_mm=read.number(one, "length_mm", name),
        loosening=Loosening(read.word(one, "loosening", name, [*map(str, Loosening)]) or "not_assessed"),
        reason=clean.text(read.text(halo, "reason", where) or ""),
        width_median_mm=read.number(halo, "width_median_mm", where),
        width_p90_mm=read.number(halo, "width_p90_mm", where),
        interval_mm=read.pair(halo, "interval_mm", where),
        coverage=read.number(halo, "coverage_over_1mm", where),
        extent_mm=read.number(halo, "axial_extent_mm", where),
        shape=read.text(halo, "shape", where),
        trajectory_hu=read.number(one, "trajectory_hu", name),
        n_gaps=len(read.objects(one, "gaps", name)),
        map=_halo_map(plan, f"the halo map of {name}") if plan else None,
        notes=_notes(one, name, clean),
    )


def _halo_map(plan: Mapping[str, Any], where: str) -> HaloMapView | None:
    depths, angles = plan.get("depths_mm"), plan.get("angles_deg")
    if not isinstance(depths, list) or not isinstance(angles, list) or len(depths) < 2 or len(angles) < 2:
        raise SpineImgError(f"{where} needs lists `depths_mm` and `angles_deg`")
    return HaloMapView(
        depths_mm=read.numbers(plan, "depths_mm", where, len(depths)) or (),
        angles_deg=read.numbers(plan, "angles_deg", where, len(angles)) or (),
        width_mm=read.grid(plan, "width_mm", where, len(depths), len(angles)),
    )


def _rod(one: Mapping[str, Any]) -> RodView:
    name = f"rod {read.text(one, 'id', 'a rod') or ''}"
    points = one.get("points")
    found = [read.vector({"points": point}, "points", name) for point in points] if isinstance(points, list) else []
    return RodView(name, tuple(p for p in found if p is not None), len(read.objects(one, "gaps", name)))


def _grade(grade: Mapping[str, Any], clean: Cleaner) -> GradeView:
    silva = read.number(grade, "silva_type", "grade")
    named = read.mapping(grade, "construct", "grade")
    ends = [parse_level(named[key]) if named.get(key) is not None else None for key in ("uiv", "liv")]
    reasons, not_judged = (
        tuple(clean.text(str(one)) for one in grade[key]) if isinstance(grade.get(key), list) else ()
        for key in ("reasons", "not_judged")
    )
    return GradeView(
        silva_type=None if silva is None else int(silva),
        text=clean.text(read.text(grade, "text", "grade") or NOT_SCREENED),
        reasons=reasons,
        not_judged=not_judged,
        construct=(ends[0], ends[1]),
    )
