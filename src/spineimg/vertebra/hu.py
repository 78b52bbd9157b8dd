"""Trabecular HU of one vertebra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from spineimg.errors import PixelError
from spineimg.geometry import FloatArray
from spineimg.metal import MetalSettings, metal_near
from spineimg.notes import Note
from spineimg.rois import Ellipse, VertebraRoi
from spineimg.sampling import PlaneSamples, SamplingSettings, SliceReader
from spineimg.settings import setting
from spineimg.vertebra.body import Body
from spineimg.vertebra.click import Clicks, ClickSettings, Placed, placed_in
from spineimg.vertebra.mask_body import Label, body_of_label, clipped
from spineimg.vertebra.masks import MaskSettings, Planes, mask_planes
from spineimg.vertebra.noise import NoiseSettings, noise_hu
from spineimg.vertebra.planes import RoiPlane, ellipse_plane, undecodable
from spineimg.vertebra.quality import (
    PlaneFacts,
    QualitySettings,
    content_notes,
    coverage_notes,
    metal_notes,
    vertebra_notes,
)
from spineimg.volume import CTVolume

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SliceHU:
    """One ROI on one plane. Numbers are None when they could not be measured; `n_voxels` counts what was averaged."""

    position: str
    mean_hu: float | None
    sd_hu: float | None
    median_hu: float | None
    n_voxels: int
    area_mm2: float | None
    kept_fraction: float | None
    center_lps_mm: Vector
    u_lps: Vector | None
    v_lps: Vector | None
    semi_axes_mm: tuple[float, float] | None
    slices: tuple[int, ...]
    """Indices of the original slices that the plane touches."""
    resampled: bool
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VertebraHU:
    """`mean_hu` is the mean of the slice means (Schreiber 2011, Lee 2024); `pooled_mean_hu` weighs voxels alike."""

    mean_hu: float | None = None
    pooled_mean_hu: float | None = None
    median_hu: float | None = None
    sd_hu: float | None = None
    n_voxels: int = 0
    kept_fraction: float | None = None
    slices: tuple[SliceHU, ...] = ()
    notes: tuple[Note, ...] = ()
    body: Body | None = field(default=None, compare=False, repr=False)
    """The vertebral body that was found from a click."""


@dataclass(frozen=True, slots=True)
class HuSettings:
    """How much of a ROI must be left for a number, and the settings of the parts of the measurement."""

    min_kept_fraction: float = setting(
        0.5, "fraction", (0.1, 1.0), "engineering choice", "With less left in any plane the vertebra has no number."
    )
    min_voxels: int = setting(
        30,
        "voxels",
        (2, 1000),
        "engineering choice: at an SD of 40 HU the mean of 30 voxels is uncertain by 7 HU",
        "With fewer left in any plane the vertebra has no number.",
    )
    min_area_mm2: float = setting(
        100.0,
        "mm²",
        (10.0, 1000.0),
        "engineering choice: 11 voxels of 3 mm; at an SD of 40 HU their mean is uncertain by 12 HU, that "
        "of three such planes by 7 HU",
        "With pixels of 2 mm or more so much left is enough, however few voxels it holds.",
    )
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    click: ClickSettings = field(default_factory=ClickSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    metal: MetalSettings = field(default_factory=MetalSettings)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)


_COARSE_MM2 = 4.0


def measure(
    volume: CTVolume,
    roi: VertebraRoi,
    settings: HuSettings | None = None,
    plane: str = "endplate",
    *,
    clicks: Clicks | None = None,
) -> VertebraHU:
    """Trabecular HU of one vertebra in the planes of its ROIs.

    The mean of the slice means is the vertebral HU. When any plane has no number the vertebra has none, for a mean of
    the other planes would be another quantity. What cannot be measured is None with a note; nothing is raised for it.

    plane: "scanner" refuses ellipses tilted to the slices; "endplate" resamples them. clicks: answers those of several
    vertebrae in this volume.
    """
    chosen = settings or HuSettings()
    reader = SliceReader(volume)
    asked = (clicks or Clicks.of(volume, chosen.click)).reading(reader.volume)
    try:
        planes, notes, body = _planes(reader, asked, roi, chosen, plane)
    except PixelError as error:
        return VertebraHU(notes=(undecodable(error, roi.level),))
    if not planes:
        return VertebraHU(notes=notes, body=body)
    measured = [_measure_plane(reader, one, roi.level, chosen) for one in planes]
    return replace(_together(roi.level, measured, notes, chosen), body=body)


class EllipseMeter:
    """`measure` for ellipses that a reader moves: an ellipse that stays the same object is measured once.

    Ellipses are compared by identity, with the level that their notes name; those that a call does not hold are
    forgotten by it for that level.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[Ellipse, MeasuredPlane]] = {}

    def measure(self, volume: CTVolume, level: str, ellipses: Sequence[Ellipse]) -> VertebraHU:
        """What `measure` gives for these ellipses of a level, at least one, with the settings as they are."""
        settings, reader, before = HuSettings(), SliceReader(volume), self._known.get(level, {})
        now = {
            one: before.get(one)
            or _measure_plane(reader, ellipse_plane(reader, one, level, "endplate", settings.sampling), level, settings)
            for one in ellipses
        }
        self._known[level] = now
        return _together(level, [now[one] for one in ellipses], (), settings)


def _planes(
    reader: SliceReader, clicks: Clicks, roi: VertebraRoi, settings: HuSettings, plane: str
) -> tuple[tuple[RoiPlane, ...], tuple[Note, ...], Body | None]:
    """The ROIs of a vertebra on their planes, by ellipses, else by a mask, else from a click. Raises PixelError."""
    if not roi.ellipses and roi.mask is not None:
        in_body = partial(_in_label, reader, clicks, level=roi.level, settings=settings, plane=plane)
        return mask_planes(reader, roi.mask, roi.level, settings.mask, in_body)
    placed = Placed(roi.ellipses, (), None)
    if not roi.ellipses and roi.center_lps_mm is not None:
        placed = clicks.rois(roi.center_lps_mm, roi.level, plane)
    elif not roi.ellipses:
        note = Note("no_roi", "this level was asked for, but no ROI says where it is", roi.level)
        placed = Placed((), (note,), None)
    planes = tuple(ellipse_plane(reader, one, roi.level, plane, settings.sampling) for one in placed.rois)
    return planes, placed.notes, placed.body


def _in_label(
    reader: SliceReader, clicks: Clicks, label: Label, *, level: str, settings: HuSettings, plane: str
) -> Planes:
    """ROIs in the body of a labelled vertebra, as after a click, within the label. Raises BodyNotFoundError."""
    body = body_of_label(clicks, label, settings.mask.body)
    how = ("placed_in_label", f"in {label.name}")
    placed = placed_in(reader.volume, body, level, plane, settings.click, how)
    planes = [ellipse_plane(reader, one, level, plane, settings.sampling) for one in placed.rois]
    within = [clipped(one, label, level) for one in planes]
    notes = (*placed.notes, *(note for _, more in within for note in more))
    return tuple(one for one, _ in within), notes, body


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredPlane:
    """One plane after averaging. kept_hu: (n,) values that count. facts: None when the plane was refused."""

    result: SliceHU
    kept_hu: FloatArray
    facts: PlaneFacts | None
    notes: tuple[Note, ...]


def _measure_plane(reader: SliceReader, plane: RoiPlane, level: str, settings: HuSettings) -> MeasuredPlane:
    if plane.samples is None:
        return _refused(reader, plane, plane.refusal)
    try:
        return _measured(reader, plane, _facts(reader, plane, plane.samples, level, settings), settings)
    except PixelError as error:
        return _refused(reader, plane, undecodable(error, f"{level} {plane.position}"))


def _measured(reader: SliceReader, plane: RoiPlane, facts: PlaneFacts, settings: HuSettings) -> MeasuredPlane:
    """A plane that was sampled. Raises PixelError."""
    hu = facts.samples.hu[facts.kept]
    fraction = len(hu) / len(facts.samples.hu) if len(facts.samples.hu) else None
    thickness = reader.volume.acquisition.slice_thickness_mm
    notes = coverage_notes(facts, reader.volume.geometry, thickness, settings.quality)
    lacking = _too_little(hu, fraction, facts.samples.sample_area_mm2, facts.about, settings)
    if lacking is not None:
        return MeasuredPlane(_slice_hu(reader, plane, None, fraction), hu, facts, (*notes, lacking))
    result = _slice_hu(reader, plane, hu, fraction)
    notes += content_notes(facts, float(hu.std(ddof=1)), settings.quality)
    return MeasuredPlane(result, hu, facts, notes)


def _facts(reader: SliceReader, plane: RoiPlane, samples: PlaneSamples, level: str, settings: HuSettings) -> PlaneFacts:
    """Metal around a plane, and a way to the noise beside it. Raises PixelError."""
    geometry = reader.volume.geometry
    thickness = reader.volume.acquisition.slice_thickness_mm
    metal = metal_near(geometry, reader.window, samples.points_lps_mm, samples.slices, thickness, settings.metal)
    noise = partial(_noise_hu, reader, plane, samples, settings.noise)
    return PlaneFacts(f"{level} {plane.position}", level, samples, plane.rim, metal, noise)


def _noise_hu(reader: SliceReader, plane: RoiPlane, samples: PlaneSamples, settings: NoiseSettings) -> float | None:
    """Noise of the slice nearest to a plane, around its ROI; None where it is unknown. Raises PixelError."""
    if not samples.slices:
        return None
    geometry, k = reader.volume.geometry, samples.nearest_slice
    row, column = geometry.in_plane(plane.center_lps_mm - geometry.origins_lps_mm[k])
    window, center = partial(reader.window, k), (float(row), float(column))
    return noise_hu(window, center, geometry.shape[1:], geometry.spacing_mm[1:], settings)


def _too_little(
    hu: FloatArray, fraction: float | None, area_mm2: float, about: str, settings: HuSettings
) -> Note | None:
    """Why what is left gives no number; area_mm2: of one voxel."""
    if fraction is None or fraction < settings.min_kept_fraction:
        text = (
            f"only {100 * (fraction or 0):.0f} % of the ROI is left without metal, padding and what lies outside "
            f"(needed {100 * settings.min_kept_fraction:g} %), so there is no number"
        )
        return Note("too_little_left", text, about)
    enough = area_mm2 >= _COARSE_MM2 and len(hu) * area_mm2 >= settings.min_area_mm2
    if len(hu) < settings.min_voxels and not enough:
        text = f"only {len(hu)} voxels in the ROI (needed {settings.min_voxels}), so there is no number"
        return Note("too_few_voxels", text, about)
    return None


def _refused(reader: SliceReader, plane: RoiPlane, refusal: Note | None) -> MeasuredPlane:
    notes = (refusal,) if refusal is not None else ()
    return MeasuredPlane(_slice_hu(reader, plane, None, None), np.zeros(0), None, notes)


def _slice_hu(reader: SliceReader, plane: RoiPlane, hu: FloatArray | None, fraction: float | None) -> SliceHU:
    ellipse, samples = plane.ellipse, plane.samples
    slices = samples.slices if samples is not None else ()
    uids = [reader.volume.source.sop_instance_uid(k) for k in slices]
    return SliceHU(
        position=plane.position,
        mean_hu=float(hu.mean()) if hu is not None else None,
        sd_hu=float(hu.std(ddof=1)) if hu is not None else None,
        median_hu=float(np.median(hu)) if hu is not None else None,
        n_voxels=len(hu) if hu is not None else 0,
        area_mm2=len(hu) * samples.sample_area_mm2 if hu is not None and samples is not None else None,
        kept_fraction=fraction,
        center_lps_mm=_vector(plane.center_lps_mm),
        u_lps=_vector(ellipse.u_lps) if ellipse is not None else None,
        v_lps=_vector(ellipse.v_lps) if ellipse is not None else None,
        semi_axes_mm=ellipse.semi_axes_mm if ellipse is not None else None,
        slices=slices,
        resampled=samples.resampled if samples is not None else False,
        sop_instance_uids=tuple(uid for uid in uids if uid is not None),
    )


def _vector(value: FloatArray) -> Vector:
    x, y, z = (float(part) for part in value)
    return x, y, z


def _together(
    level: str, measured: Sequence[MeasuredPlane], notes: tuple[Note, ...], settings: HuSettings
) -> VertebraHU:
    """The vertebra from its planes."""
    means = [one.result.mean_hu for one in measured]
    facts = [one.facts for one in measured if one.facts is not None]
    covered = sum(len(one.samples.hu) for one in facts)
    complete = [mean for mean in means if mean is not None]
    mean = float(np.mean(complete)) if complete and len(complete) == len(means) else None
    notes += tuple(note for one in measured for note in one.notes)
    if measured:
        notes += vertebra_notes(level, means, mean, settings.quality) + metal_notes(level, facts, settings.metal)
    hu = np.concatenate([one.kept_hu for one in measured]) if measured else np.zeros(0)
    return VertebraHU(
        mean_hu=mean,
        pooled_mean_hu=float(hu.mean()) if mean is not None else None,
        median_hu=float(np.median(hu)) if mean is not None else None,
        sd_hu=float(hu.std(ddof=1)) if mean is not None else None,
        n_voxels=len(hu) if mean is not None else 0,
        kept_fraction=len(hu) / covered if covered and len(facts) == len(measured) else None,
        slices=tuple(one.result for one in measured),
        notes=notes,
    )
