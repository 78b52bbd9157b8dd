"""The implant screen: metal, halos, verdicts and the grade of one scan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.breach import BreachSettings, Outline, breach_notes, breach_of
from spineimg.implants.detect import FoundScrew, Metal, find_metal
from spineimg.implants.detect_settings import DetectSettings
from spineimg.implants.given import GivenScrew
from spineimg.implants.grade import grade
from spineimg.implants.halo import HaloFit, fit_shell, gather
from spineimg.implants.halo_settings import HaloSettings
from spineimg.implants.hardening import Cylinder, HardeningSettings
from spineimg.implants.hardening import Metal as Obstacles
from spineimg.implants.levels import KnownVertebra, axes_of
from spineimg.implants.model import Halo, ImplantScreen, Progress, Screw
from spineimg.implants.profile import Blur
from spineimg.implants.texture import noise_texture
from spineimg.implants.verdict import Conditions, judge, notes_on, refusal_by_scan
from spineimg.implants.verdict_settings import VerdictSettings
from spineimg.notes import Note
from spineimg.threads import one_blas_thread
from spineimg.volume import CTVolume

_OWN_MM = 1.0
"""Metal voxels this near to a fitted shaft's thread are its own blur."""
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """The settings of every step."""

    detect: DetectSettings = field(default_factory=DetectSettings)
    halo: HaloSettings = field(default_factory=HaloSettings)
    hardening: HardeningSettings = field(default_factory=HardeningSettings)
    verdict: VerdictSettings = field(default_factory=VerdictSettings)
    breach: BreachSettings = field(default_factory=BreachSettings)


@one_blas_thread
def screen_implants(
    volume: CTVolume,
    *,
    shafts: Sequence[GivenScrew] = (),
    vertebrae: Sequence[KnownVertebra] = (),
    tumour_levels: Sequence[str] = (),
    progress: Progress | None = None,
    settings: ScreenSettings | None = None,
) -> ImplantScreen:
    """Finds screws and rods, measures the zone around each screw and grades the construct.

    shafts: screws marked by hand, refined instead of searched. vertebrae: those whose place is known, for the levels,
    and with an outline for what leaves them.
    tumour_levels: vertebrae with metastases, for the fixation length. progress: gets the part done, 0-1, and cancels by
    raising. Raises SeriesError for a series whose geometry does not allow measuring; what reading the scan raises
    passes through.
    """
    volume.require_usable()
    chosen = settings or ScreenSettings()
    tell = progress or (lambda part, what: None)
    metal = find_metal(volume, lambda part, what: tell(0.5 * part, what), chosen.detect, vertebrae, shafts)
    obstacles = obstacles_of(metal)
    conditions = conditions_of(volume, metal)
    screws = _screws(metal, obstacles, conditions, chosen, tell)
    screws = _with_breaches(screws, vertebrae, chosen.breach, tell)
    tell(1.0, "implants measured")
    return ImplantScreen(
        screws=tuple(screws),
        rods=metal.rods,
        other_metal=metal.other_metal,
        grade=grade(
            screws,
            metal.rods,
            artifact_reduction=bool(volume.acquisition.metal_artifact_reduction),
            tumour_levels=tumour_levels,
            breach=chosen.breach,
        ),
        notes=(*metal.notes, *_notes(volume)),
        settings=asdict(chosen),
    )


def conditions_of(volume: CTVolume, metal: Metal) -> Conditions:
    acquisition, step = volume.acquisition, volume.geometry.spacing_mm[0]
    return Conditions(
        slice_mm=max(acquisition.slice_thickness_mm or 0.0, step if np.isfinite(step) else 0.0),
        sharpness=acquisition.sharpness,
        artifact_reduction=acquisition.metal_artifact_reduction,
        psf=metal.psf,
        brightest_hu=max((shaft.metal_hu for shaft in metal.shafts if not shaft.clipped), default=0.0),
        texture=noise_texture(volume, [screw.shaft for screw in metal.screws]),
        smear_mm=float(np.median([shaft.smear_mm for shaft in metal.shafts])) if metal.shafts else 0.0,
    )


def obstacles_of(metal: Metal) -> Obstacles:
    """Shafts as cylinders of their metal's volume, and the voxels of everything else."""
    geometry = metal.map.geometry
    points = metal.map.points_lps_mm[metal.map.hu >= metal.map.seed_hu]
    own = np.zeros(len(points), dtype=bool)
    cylinders = []
    for screw in metal.screws:
        head, tip = np.asarray(screw.shaft.head_lps_mm), np.asarray(screw.shaft.tip_lps_mm)
        cylinders.append(Cylinder(head, tip, screw.fit.radius_mm))
        own |= _near(points, head, screw.shaft.direction_lps, screw.shaft.length_mm, screw.shaft.diameter_mm / 2)
    area = float(np.linalg.norm(np.cross(geometry.row_step_lps_mm, geometry.column_step_lps_mm)))
    step = geometry.spacing_mm[0] if np.isfinite(geometry.spacing_mm[0]) else 1.0
    return Obstacles(tuple(cylinders), points[~own], area, step)


def _near(points: FloatArray, head: FloatArray, along: FloatArray, length: float, radius: float) -> FloatArray:
    way = points - head
    depth = way @ along
    away = np.linalg.norm(way - depth[:, None] * along, axis=1)
    return np.asarray((depth > 0) & (depth < length + _OWN_MM) & (away < radius + _OWN_MM))


def _screws(
    metal: Metal, obstacles: Obstacles, conditions: Conditions, settings: ScreenSettings, tell: Progress
) -> list[Screw]:
    """Fits run side by side; the scan is read, and progress told, by the calling thread alone."""
    blur = Blur.from_fwhm(metal.psf.fwhm_in_plane_mm, metal.psf.fwhm_slice_mm)
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        fits = []
        for found in metal.screws:
            shell = None
            if found.fit.is_found and not refusal_by_scan(found.shaft, conditions, settings.verdict):
                shell = gather(metal.map.windows, found.shaft, obstacles, settings.halo)
            job = (found.shaft, obstacles, blur, settings.halo, settings.hardening, settings.verdict)
            fits.append(pool.submit(fit_shell, shell, *job) if shell else None)
        screws = []
        for number, (found, fit) in enumerate(zip(metal.screws, fits, strict=True)):
            tell(0.5 + 0.48 * number / len(metal.screws), f"measuring around {found.id}")
            screws.append(_screw(found, fit.result() if fit else None, conditions, settings))
        return screws
    finally:
        pool.shutdown(cancel_futures=True)


def _screw(found: FoundScrew, fit: HaloFit | None, conditions: Conditions, settings: ScreenSettings) -> Screw:
    halo, loosening = judge(fit, found.shaft, conditions, settings.verdict)
    if not found.fit.is_found:
        halo = Halo(False, reason="no cylinder of metal could be fitted where it was marked")
    return Screw(
        id=found.id,
        shaft=found.shaft,
        halo=halo,
        loosening=loosening,
        level=found.level,
        side=found.side,
        trajectory_hu=fit.trajectory_hu if fit else None,
        gaps=found.gaps,
        notes=(*found.notes, *notes_on(fit, halo, found.id, settings.verdict)),
    )


def _with_breaches(
    screws: Sequence[Screw], vertebrae: Sequence[KnownVertebra], settings: BreachSettings, tell: Progress
) -> list[Screw]:
    """The screws with what of them lies outside their vertebrae, where those have outlines."""
    known = {vertebra.level: vertebra for vertebra in vertebrae if vertebra.outline is not None}
    outlines: dict[str, Outline | None] = {}
    found = []
    for screw in screws:
        vertebra = known.get(screw.level or "")
        if vertebra is None or vertebra.outline is None:
            found.append(screw)
            continue
        if vertebra.level not in outlines:
            tell(0.98, f"outlining {vertebra.level}")
            outlines[vertebra.level] = vertebra.outline()
        outline = outlines[vertebra.level]
        breach = None if outline is None else breach_of(screw.shaft, outline, axes_of(vertebra, vertebrae))
        notes = breach_notes(breach, screw.id, vertebra.level, settings)
        mm = None if breach is None else breach.mm
        found.append(replace(screw, breach_mm=mm, breach=breach, notes=(*screw.notes, *notes)))
    return found


def _notes(volume: CTVolume) -> list[Note]:
    """What the header leaves open and a halo depends on."""
    found = []
    if volume.acquisition.slice_thickness_mm is None:
        text = "the slice thickness is unknown: slices thicker than their spacing hide and widen halos"
        found.append(Note("slice_thickness_unknown", text))
    if volume.acquisition.metal_artifact_reduction is None:
        text = "the header does not say whether metal artefacts were reduced: on such a series halos and gaps mislead"
        found.append(Note("artifact_reduction_unknown", text))
    return found
