"""A volume and a reader's ROIs -> the results of one case. No files, no clock, nothing printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from spineimg.anatomy import Status, order
from spineimg.cutoffs import PUBLISHED, Cutoff, for_role
from spineimg.errors import GeometryError, RoiError
from spineimg.geometry import FloatArray
from spineimg.notes import Note
from spineimg.results import CaseResult, VertebraResult
from spineimg.rois import Ellipse, LabelVolume, MaskRoi, RoiSet, VertebraRoi
from spineimg.sampling import SliceReader
from spineimg.vertebra.click import Clicks
from spineimg.vertebra.flags import FlagSettings, Subject, flag
from spineimg.vertebra.hu import HuSettings, SliceHU, VertebraHU, measure
from spineimg.vertebra.label_voxels import cut_out
from spineimg.vertebra.mask_case import refuse_other_scan
from spineimg.vertebra.mask_place import PlaceSettings
from spineimg.vertebra.quality import acquisition_notes
from spineimg.volume import CTVolume

if TYPE_CHECKING:
    from spineimg.implants.breach import BodyShape, MaskShape, Outline
    from spineimg.implants.given import GivenScrew
    from spineimg.implants.levels import KnownVertebra
    from spineimg.implants.model import Progress
    from spineimg.implants.screen import ScreenSettings

PLANES = ("endplate", "scanner")
_ENDS = 2
"""A construct has two: they may be far apart, and each has near neighbours of its own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a case."""

    hu: HuSettings = field(default_factory=HuSettings)
    flags: FlagSettings = field(default_factory=FlagSettings)


def assess(
    volume: CTVolume,
    rois: RoiSet,
    *,
    plane: str = "endplate",
    settings: Settings | None = None,
    cutoffs: tuple[Cutoff, ...] = PUBLISHED,
    known: Mapping[str, VertebraHU] | None = None,
    clicks: Clicks | None = None,
) -> CaseResult:
    """Vertebral HU of every ROI, and the flags of those whose role has a cutoff.

    plane: "endplate" resamples ellipses that are tilted to the slices, "scanner" refuses them. known: level -> what
    `measure` gave for the same ROI of the same volume; these ROIs are not measured again. clicks: of this volume, when
    they have been asked before.
    Raises SeriesError for a series whose geometry does not allow measuring, RoiError for an unknown plane. A single
    vertebra that cannot be measured stays in the result, its numbers None and a note saying why.
    """
    volume.require_usable()
    if plane not in PLANES:
        raise RoiError(f"the plane must be one of {', '.join(PLANES)}, found {plane!r}")
    chosen = settings or Settings()
    asked = _asked(rois)
    before = known or {}
    answers = clicks or Clicks.of(volume, chosen.hu.click, whole=_lists_levels(asked))
    measured = [before.get(roi.level) or measure(volume, roi, chosen.hu, plane, clicks=answers) for roi in asked]
    _refuse_other_scan(volume, rois, measured, chosen.hu.mask.place)
    disorder = _disorder(asked, measured)
    vertebrae = tuple(
        _result(volume, rois, roi, hu, disorder.get(number, ()), chosen, cutoffs)
        for number, (roi, hu) in enumerate(zip(asked, measured, strict=True))
    )
    of_case = acquisition_notes(volume.acquisition, volume.geometry, "", chosen.hu.quality)
    return CaseResult(
        series=volume.series,
        n_slices=volume.geometry.shape[0],
        spacing_mm=volume.geometry.spacing_mm,
        acquisition=volume.acquisition,
        vertebrae=vertebrae,
        notes=(*volume.notes, *of_case),
        settings={**_spelled(chosen), "plane": plane, "cutoffs": [_spelled(cutoff) for cutoff in cutoffs]},
        reader=rois.reader,
    )


def screen(
    volume: CTVolume,
    rois: RoiSet | None = None,
    *,
    screws: Sequence[GivenScrew] = (),
    progress: Progress | None = None,
    settings: ScreenSettings | None = None,
) -> CaseResult:
    """Screws and rods of a scan after surgery, the lucent zone around each screw, and the grade.

    rois: names the levels, by clicks, ellipses or labels; nothing in it is measured. screws: marked by hand instead of
    found. progress: called with 0-1 and what is under way; cancels by raising. Raises SeriesError for a series whose
    geometry does not allow measuring.
    """
    from spineimg.implants.screen import ScreenSettings, screen_implants  # SciPy is not loaded for HU alone

    chosen = settings or ScreenSettings()
    known = outlined(volume, rois) if rois is not None else ()
    tumours = tuple(roi.level for roi in rois.vertebrae if roi.status is Status.TUMOUR) if rois is not None else ()
    found = screen_implants(
        volume, shafts=screws, vertebrae=known, tumour_levels=tumours, progress=progress, settings=chosen
    )
    return CaseResult(
        series=volume.series,
        n_slices=volume.geometry.shape[0],
        spacing_mm=volume.geometry.spacing_mm,
        acquisition=volume.acquisition,
        vertebrae=(),
        notes=(*volume.notes, *found.notes),
        settings=asdict(chosen),
        implants=found,
    )


def assess_and_screen(volume: CTVolume, rois: RoiSet, clicks: Clicks | None = None) -> CaseResult:
    """Vertebral HU and the implant screen of one scan. A vertebra that holds a screw is measured, never flagged."""
    screened = screen(volume, rois)
    found = screened.implants
    held = {screw.level for screw in found.screws} if found is not None else set()
    marked = tuple(
        replace(roi, status=Status.INSTRUMENTED) if roi.level in held and roi.status is None else roi
        for roi in rois.vertebrae
    )
    result = assess(volume, replace(rois, vertebrae=marked), clicks=clicks)
    return replace(
        result,
        notes=tuple(dict.fromkeys((*result.notes, *screened.notes))),
        settings={**result.settings, "implants": dict(screened.settings)},
        implants=found,
    )


def found_rois(volume: CTVolume, clicks: Clicks | None = None) -> RoiSet:
    """A click in every vertebra that is found and can be named without a person, its name unconfirmed.

    clicks: of this volume, for whoever measures them.
    Raises SeriesError for a series whose geometry does not allow measuring, RoiError when none can be named.
    """
    from spineimg.vertebra.body import BodyNotFoundError
    from spineimg.vertebra.naming import name_spine

    try:
        named = name_spine(volume, clicks=clicks)
    except BodyNotFoundError as error:
        raise RoiError(f"no vertebra was found: {error}") from error
    if not named.vertebrae:
        raise RoiError(
            f"{len(named.unnamed)} vertebrae were found, but {named.notes[0].text}: name one with "
            "spineimg levels --seed LEVEL=x,y,z --json FILE and measure that file with --rois"
        )
    return named.rois()


def known_vertebrae(rois: RoiSet) -> tuple[KnownVertebra, ...]:
    """Where the vertebrae of a ROI set are: at their clicks, the middle of their ellipses, or the middle of a label."""
    from spineimg.implants.levels import KnownVertebra

    found = []
    for roi in rois.vertebrae:
        if roi.ellipses:
            center = np.mean([ellipse.center_lps_mm for ellipse in roi.ellipses], axis=0)
            normal = roi.ellipses[0].normal_lps
            found.append(KnownVertebra(roi.level, center, normal if normal[2] > 0 else -normal))
        elif roi.center_lps_mm is not None:
            found.append(KnownVertebra(roi.level, roi.center_lps_mm))
    masks = [(roi.level, roi.mask) for roi in rois.vertebrae if roi.mask is not None and not roi.ellipses]
    by_file: dict[int, list[tuple[str, MaskRoi]]] = {}
    for level, mask in masks:
        by_file.setdefault(id(mask.labels), []).append((level, mask))
    for group in by_file.values():
        centers = label_centers(group[0][1].labels)
        found += [KnownVertebra(level, centers[mask.label]) for level, mask in group if mask.label in centers]
    return tuple(found)


def outlined(volume: CTVolume, rois: RoiSet) -> tuple[KnownVertebra, ...]:
    """`known_vertebrae` with ways to look up their outlines: a label's voxels, or the body fitted around a click."""
    masks = {roi.level: roi.mask for roi in rois.vertebrae if roi.mask is not None and not roi.ellipses}

    def outline(vertebra: KnownVertebra) -> Outline | None:
        mask = masks.get(vertebra.level)
        try:
            return fitted_shape(volume, vertebra.center_lps_mm) if mask is None else label_shape(mask)
        except GeometryError:  # slices at uneven steps: the screws are worth having without it
            return None

    return tuple(replace(one, outline=partial(outline, one)) for one in known_vertebrae(rois))


def fitted_shape(volume: CTVolume, click_lps_mm: FloatArray) -> BodyShape | None:
    """The body around a click as an outline; None where none can be fitted."""
    from spineimg.implants.breach import BodyShape
    from spineimg.vertebra.body import BodyNotFoundError, find_body

    try:
        body = find_body(volume, click_lps_mm)
    except BodyNotFoundError:
        return None
    planes = [(plane.point_lps_mm, plane.normal_lps) for plane in (body.superior, body.inferior)]
    return BodyShape(body.center_lps_mm, body.axes, body.outline_mm, *planes)


def label_shape(mask: MaskRoi) -> MaskShape:
    """The voxels of a label. Raises PixelError."""
    from spineimg.implants.breach import MaskShape

    geometry, block = mask.labels.geometry, cut_out(mask.labels, mask.label)
    voxels = np.argwhere(block.voxels) + block.corner if block is not None else np.zeros((0, 3))
    steps = np.asarray(geometry.lps_from_index[:3, :3].T)
    return MaskShape(geometry.lps_at(voxels), steps)


def label_centers(labels: LabelVolume) -> dict[int, FloatArray]:
    """Label -> (3,) LPS mm of the mean of its voxels. Raises PixelError."""
    sums: dict[int, FloatArray] = {}
    for k in range(labels.geometry.shape[0]):
        values = labels.source.read(k)
        rows, columns = np.nonzero(values > 0)
        if not len(rows):
            continue
        here = values[rows, columns].astype(np.intp)
        index = np.column_stack([np.full(len(rows), k), rows, columns, np.ones(len(rows))])
        for label in np.unique(here).tolist():
            sums[label] = sums.get(label, np.zeros(4)) + index[here == label].sum(axis=0)
    return {label: labels.geometry.lps_at(total[:3] / total[3]) for label, total in sums.items()}


def used_rois(rois: RoiSet, result: CaseResult) -> RoiSet:
    """The ROIs that were measured: clicks spelled out as the ellipses that were placed, with the click beside them."""
    measured = {vertebra.level: vertebra.hu.slices for vertebra in result.vertebrae}
    return replace(rois, vertebrae=tuple(_spelled_out(roi, measured[roi.level]) for roi in rois.vertebrae))


def _spelled_out(roi: VertebraRoi, slices: Sequence[SliceHU]) -> VertebraRoi:
    if roi.ellipses or roi.mask is not None:
        return roi
    placed = tuple(
        Ellipse(one.position, np.array(one.center_lps_mm), np.array(one.u_lps), np.array(one.v_lps), one.semi_axes_mm)
        for one in slices
        if one.semi_axes_mm is not None
    )
    return replace(roi, ellipses=placed)


@lru_cache(maxsize=64)
def _spelled(settings: Settings | Cutoff) -> dict[str, object]:
    """Settings as they stand in a result. Spelling them out takes longer than measuring a plane again."""
    return asdict(settings)


def _lists_levels(asked: Sequence[VertebraRoi]) -> bool:
    """Whether more is clicked on than the ends of a construct."""
    return sum(roi.center_lps_mm is not None and not roi.ellipses and roi.mask is None for roi in asked) > _ENDS


def _refuse_other_scan(volume: CTVolume, rois: RoiSet, measured: Sequence[VertebraHU], settings: PlaceSettings) -> None:
    """Raises RoiError when every vertebra is a label, and they show that the map is of another scan, or mirrored."""
    masks = [roi.mask for roi in rois.vertebrae if roi.mask is not None]
    if len(masks) < len(rois.vertebrae):
        return
    outside, odd = 0, []
    for hu in measured[: len(masks)]:
        reasons = {note.code: note.text for note in hu.notes}
        outside += "roi_outside_volume" in reasons and not hu.slices
        odd += [reasons[code] for code in ("mask_misplaced", "mask_without_body") if code in reasons][:1]
    if outside or odd:
        refuse_other_scan(SliceReader(volume), masks, outside, odd, settings)


def _asked(rois: RoiSet) -> tuple[VertebraRoi, ...]:
    """The vertebrae of the ROI file, and the ends of the construct that it does not hold."""
    present = {roi.level for roi in rois.vertebrae}
    ends = (rois.construct.uiv, rois.construct.liv)
    missing = dict.fromkeys(level for level in ends if level is not None and level not in present)
    return (*rois.vertebrae, *(VertebraRoi(level) for level in missing))


def _result(
    volume: CTVolume,
    rois: RoiSet,
    roi: VertebraRoi,
    hu: VertebraHU,
    disorder: tuple[Note, ...],
    settings: Settings,
    cutoffs: tuple[Cutoff, ...],
) -> VertebraResult:
    """One vertebra with its role, its flag and the notes that do not come from its own voxels."""
    notes = disorder
    if hu.mean_hu is not None:
        notes += acquisition_notes(volume.acquisition, volume.geometry, roi.level, settings.hu.quality)
    role = rois.construct.role(roi.level)
    found = None
    if role is not None:
        subject = Subject(roi.level, role, hu.mean_hu, roi.status, roi.confirmed)
        cutoff = for_role(cutoffs, role)
        found = flag(subject, volume.acquisition, (*hu.notes, *notes), cutoff, settings.flags)
    return VertebraResult(roi.level, role, roi.confirmed, hu, found, notes, roi.status)


def _disorder(asked: Sequence[VertebraRoi], measured: Sequence[VertebraHU]) -> dict[int, tuple[Note, ...]]:
    """Notes on vertebrae whose place along z contradicts their names, by number."""
    places = [_height_mm(roi, hu) for roi, hu in zip(asked, measured, strict=True)]
    placed = [(number, asked[number].level, z) for number, z in enumerate(places) if z is not None]
    found: dict[int, tuple[Note, ...]] = {}
    for number, level, z in placed:
        wrong = [
            other for _, other, other_z in placed if other != level and (order(level) < order(other)) != (z > other_z)
        ]
        if wrong:
            text = f"{level} does not lie where its name says it should beside {', '.join(wrong)}: check the names"
            found[number] = (Note("level_order", text, level),)
    return found


def _height_mm(roi: VertebraRoi, hu: VertebraHU) -> float | None:
    """LPS z of a vertebra's ROIs, else of its click; None when nothing tells."""
    heights = [one.center_lps_mm[2] for one in hu.slices]
    if heights:
        return sum(heights) / len(heights)
    return float(roi.center_lps_mm[2]) if roi.center_lps_mm is not None else None
