"""From a fitted width map to a halo in words and numbers, and to `present`, `absent` or a reason for neither.

Loosening is a lucent zone wider than 1 mm (Nam 2025, after Sandén 2004). No paper says around how much of a screw: the
coverage and length asked for here are engineering choices. Where the scan cannot tell, the answer is `not_assessed`
with the reason; where the interval holds both answers, `indeterminate`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.special import ndtri

from spineimg.geometry import FloatArray
from spineimg.implants.halo import LOOSE_MM, HaloFit
from spineimg.implants.model import Halo, HaloMap, Loosening, Shaft
from spineimg.implants.psf import Psf
from spineimg.implants.unrolled import BoolArray
from spineimg.implants.verdict_settings import VerdictSettings
from spineimg.notes import Note
from spineimg.volume import Sharpness

_FEWEST_UPRIGHT = 4


@dataclass(frozen=True, slots=True)
class Conditions:
    """What of the scan decides whether a halo can be judged. None is unknown. texture: see `texture.noise_texture`.

    brightest_hu: metal of the brightest shaft on a scale that is not clipped, 0 elsewhere; a construct is of one alloy.
    smear_mm: how much wider starved rays make shafts in the slice plane, the median over the scan.
    """

    slice_mm: float
    sharpness: Sharpness | None
    artifact_reduction: bool | None
    psf: Psf
    texture: float = 0.0
    brightest_hu: float = 0.0
    smear_mm: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class _Surface:
    """The unrolled surface: widths, where they count, where there is bone, where cortex begins, mm between depths."""

    width_mm: FloatArray
    judged: BoolArray
    in_bone: BoolArray
    cortex_mm: FloatArray
    step_mm: float

    def coverage(self, limit_mm: float) -> float:
        """Part of what is judged."""
        return float(np.mean(self.width_mm[self.judged] > limit_mm))

    @property
    def in_all_bone(self) -> _Surface:
        """With what lies in bone and is not judged: there a zone is as wide as around there, and ends at the cortex."""
        widths = np.where(self.judged, self.width_mm, np.minimum(self.width_mm, self.cortex_mm))
        return replace(self, width_mm=widths, judged=self.judged | self.in_bone)

    def of_depths(self, rows: BoolArray) -> _Surface:
        """A part of the depths."""
        return replace(
            self,
            width_mm=self.width_mm[rows],
            judged=self.judged[rows],
            in_bone=self.in_bone[rows],
            cortex_mm=self.cortex_mm[rows],
        )

    def extent_mm(self, limit_mm: float, settings: VerdictSettings) -> tuple[float, bool, bool]:
        """Longest run of depths around enough of which the zone is wider than the limit; nan where no depth is known.

        Neighbouring depths count a fifth as much as a depth itself, so that one streak does not end a run. Depths of
        which little is known do not end a run, but it does not begin or end with them. Beside it, whether the run holds
        the first depth and the last one.
        """
        around = self.in_all_bone
        number = around.judged.sum(axis=1)
        seen = number >= max(1.0, settings.depth_judged * around.judged.shape[1] - 1e-9)
        if not seen.any():
            return float("nan"), False, False
        wide, known = (
            ndimage.convolve1d(np.sum(flags, axis=1).astype(np.float64), [0.2, 1.0, 0.2], mode="constant")
            for flags in (around.judged & (around.width_mm > limit_mm), around.judged)
        )
        long = seen & (wide >= np.maximum(settings.depth_coverage * known - 1e-9, 1))
        parts, count = ndimage.label(long | ~seen)
        runs = [rows for n in range(1, count + 1) if len(rows := np.flatnonzero((parts == n) & long))]
        if not runs:
            return 0.0, False, False
        best = max(runs, key=np.ptp)
        return (int(np.ptp(best)) + 1) * self.step_mm, bool(best[0] == 0), bool(best[-1] == len(number) - 1)


def judge(
    fit: HaloFit | None, shaft: Shaft, conditions: Conditions, settings: VerdictSettings | None = None
) -> tuple[Halo, Loosening]:
    """The halo and the verdict. Without a fit, or where nothing may be said, the halo has only its reason."""
    chosen = settings or VerdictSettings()
    reason = refusal_by_scan(shaft, conditions, chosen)
    if reason:
        return Halo(False, reason=reason), Loosening.NOT_ASSESSED
    if fit is None:
        return Halo(False, reason="too few voxels around the shaft are free of other metal"), Loosening.NOT_ASSESSED
    surface = _surface(fit, chosen)
    reason = _refusal_by_fit(fit, surface, chosen)
    if reason:
        return Halo(False, reason=reason), Loosening.NOT_ASSESSED
    halo, interval = _halo(fit, surface, shaft, chosen)
    verdict, why = _verdict(fit, surface, shaft, interval, conditions, chosen)
    if verdict is Loosening.NOT_ASSESSED:
        return Halo(False, reason=why), verdict
    return replace(halo, reason=why), verdict


def notes_on(fit: HaloFit | None, halo: Halo, about: str, settings: VerdictSettings | None = None) -> tuple[Note, ...]:
    """What to bear in mind when reading the numbers of a halo. about: the screw's name."""
    chosen, notes = settings or VerdictSettings(), []
    if fit is not None and fit.cement >= chosen.least_cement:
        text = (
            f"{100 * fit.cement:.0f} % of the shaft's surface stands in what is as bright and as thick as cement: "
            "no zone is looked for there, nor between it and bone"
        )
        notes.append(Note("cement", text, about))
    part = halo.map.judged_part if halo.assessable and halo.map else 1.0
    if part < chosen.little_judged:
        text = (
            f"the zone could be judged over only {100 * part:.0f} % of the shaft's surface: "
            "width and coverage speak for that part alone"
        )
        notes.append(Note("little_judged", text, about))
    return tuple(notes)


def refusal_by_scan(shaft: Shaft, conditions: Conditions, settings: VerdictSettings) -> str:
    """Why nothing can be said on this scan around this shaft; empty when something can."""
    if conditions.artifact_reduction:
        return "metal artefact reduction makes and hides dark rims around screws: use the series without it"
    if conditions.sharpness is Sharpness.SHARP:
        return "a sharp kernel paints a dark rim around metal: use a soft-tissue series"
    told_soft = conditions.sharpness is Sharpness.SOFT
    if conditions.texture < (settings.sharpened_texture if told_soft else settings.sharp_texture):
        return (
            "the noise has the grain of a sharp kernel, which paints a dark rim around metal, or of strong streaks"
            + ("" if told_soft else "; the header does not name the kernel: use a soft-tissue series")
        )
    if conditions.slice_mm > settings.thickest_slice_mm + 1e-6:
        return (
            f"slices of {conditions.slice_mm:.1f} mm are too thick for a zone of 1 mm: "
            f"at most {settings.thickest_slice_mm:g} mm"
        )
    if conditions.psf.fwhm_in_plane_mm > settings.hopeless_blur_mm:
        return f"the image is too blurred for a zone of 1 mm ({conditions.psf.fwhm_in_plane_mm:.1f} mm in the slice)"
    if not shaft.clipped and shaft.metal_hu < settings.weakest_metal_hu:
        return (
            f"the shaft reads only {shaft.metal_hu:.0f} HU, less than solid titanium: rays along it are starved, and "
            "what they leave beside it can be or hide a zone"
        )
    brightest_hu = max(conditions.brightest_hu, 0.0 if shaft.clipped else shaft.metal_hu)
    if brightest_hu > settings.heavy_metal_hu and conditions.slice_mm > settings.heavy_slice_mm + 1e-6:
        return (
            f"the metal reads {brightest_hu:.0f} HU, heavier than titanium: with slices of "
            f"{conditions.slice_mm:.1f} mm its streaks cannot be told from a zone "
            f"(at most {settings.heavy_slice_mm:g} mm)"
        )
    return ""


def _surface(fit: HaloFit, settings: VerdictSettings) -> _Surface:
    contrast = fit.bone_hu - fit.halo_hu
    judged = (contrast >= settings.least_contrast_hu) & (fit.bone_hu < 1500) & (fit.voxels >= 8) & fit.known
    return _Surface(fit.width_mm, judged, fit.in_bone, fit.cortex_mm, fit.cells.depth_mm)


def _refusal_by_fit(fit: HaloFit, surface: _Surface, settings: VerdictSettings) -> str:
    if fit.noise_hu > settings.noisiest_hu:
        return f"streaks are too strong (the fit is off by {fit.noise_hu:.0f} HU)"
    if fit.trajectory_hu is not None and fit.trajectory_hu < settings.softest_bone_hu:
        return (
            f"the bone around the screw reads {fit.trajectory_hu:.0f} HU, too near to what fills a zone "
            f"(at least {settings.softest_bone_hu:g} HU)"
        )
    if np.mean(surface.judged) < settings.least_part:
        return (
            f"only {100 * np.mean(surface.judged):.0f} % of the shaft's surface lies in bone at least "
            f"{settings.least_contrast_hu:g} HU brighter than a lucent zone"
            + (f", and {100 * fit.cement:.0f} % in cement" if fit.cement >= settings.least_cement else "")
        )
    return ""


def _halo(fit: HaloFit, surface: _Surface, shaft: Shaft, settings: VerdictSettings) -> tuple[Halo, tuple[float, float]]:
    limit = settings.width_mm
    widths = surface.width_mm[surface.judged]
    median = float(np.median(widths))
    spare = settings.uncertain_mm + settings.uncertain_part * median
    low = median + min(fit.shift_mm[0], 0.0) - spare
    if low < settings.blind_mm:
        low = 0.0
    high = median + max(fit.shift_mm[1], 0.0) + spare
    interval = (low, high)
    extent, from_head, to_tip = surface.extent_mm(limit, settings)
    # What is wide at the last depth that is looked at is taken to go on: to the head, and half way to the tip's point.
    cells = fit.cells
    extent += cells.first_mm * from_head
    extent += max(shaft.length_mm - cells.first_mm - cells.depths * cells.depth_mm, 0.0) / 2 * to_tip
    halo = Halo(
        assessable=True,
        width_median_mm=median,
        width_p90_mm=float(np.percentile(widths, 90)),
        coverage_over_1mm=surface.in_all_bone.coverage(limit),
        axial_extent_mm=min(extent, shaft.length_mm) if np.isfinite(extent) else None,
        interval_mm=interval,
        regions=_regions(surface, fit.cells.centers_mm, shaft.length_mm, limit),
        shape=_shape(surface, fit.cells.centers_mm) if surface.coverage(limit) >= 0.1 else None,
        rim=bool(fit.rim_hu > 100.0),
        map=_map(fit, surface),
    )
    return halo, interval


def _verdict(
    fit: HaloFit,
    surface: _Surface,
    shaft: Shaft,
    interval: tuple[float, float],
    conditions: Conditions,
    settings: VerdictSettings,
) -> tuple[Loosening, str]:
    """The verdict, and why it is not a plain one."""
    limit = settings.width_mm
    blurred = conditions.psf.fwhm_in_plane_mm > settings.widest_blur_mm
    if blurred and interval[0] < 1.5 * limit and interval[1] > 0.5 * limit:
        return Loosening.NOT_ASSESSED, (
            f"with a blur of {conditions.psf.fwhm_in_plane_mm:.1f} mm in the slice plane a zone near 1 mm "
            "cannot be told"
        )
    covered = surface.coverage(limit)
    strained = _is_strained(fit, shaft, conditions, settings)
    needed = settings.clear_evidence if strained else settings.evidence
    if strained and interval[0] > 0 and fit.evidence < needed:
        return Loosening.NOT_ASSESSED, (
            f"a zone of {interval[0]:.1f} to {interval[1]:.1f} mm would explain the image, but so would streaks as "
            "strong as those of cobalt-chrome and steel, in which fixed screws read up to 2 mm"
        )
    if covered >= settings.coverage and fit.evidence >= needed:
        doubt, plain = _doubt_of_a_zone(fit, surface, shaft, interval, settings), Loosening.PRESENT
    elif covered < settings.coverage / 2 and interval[1] <= limit and fit.evidence <= -settings.counter_evidence:
        doubt, plain = _doubt_of_none(fit, surface, strained, settings), Loosening.ABSENT
    elif -settings.counter_evidence < fit.evidence < needed and not _told_if_loose(fit, needed, settings):
        return Loosening.NOT_ASSESSED, (
            f"even a zone of {LOOSE_MM:g} mm all along might not be told from none here, with "
            f"{100 * float(np.mean(surface.judged)):.0f} % of the surface judged, bone of "
            f"{float(np.median(fit.bone_hu[surface.judged])):.0f} HU, noise and streaks of {fit.noise_hu:.0f} HU"
        )
    else:
        doubt, plain = _unclear(fit, covered, interval, needed, settings), Loosening.INDETERMINATE
    return (Loosening.INDETERMINATE if doubt else plain), doubt


def _is_strained(fit: HaloFit, shaft: Shaft, conditions: Conditions, settings: VerdictSettings) -> bool:
    """Whether streaks may be those of cobalt-chrome or steel, which can look like a zone.

    Its own HU do not always tell, for starved rays darken such metal to those of titanium, and scales end below it;
    smear and strong streaks may then be theirs.
    """
    heavy = conditions.brightest_hu > settings.heavy_metal_hu
    smeared = conditions.smear_mm > settings.widest_smear_mm
    return heavy or smeared or (shaft.clipped and fit.noise_hu > settings.clipped_noise_hu)


def _told_if_loose(fit: HaloFit, needed: float, settings: VerdictSettings) -> bool:
    """Whether a zone of `LOOSE_MM` would bring the odds that `present` needs, with the power asked for.

    The logarithm of the odds of two fixed images in normal noise has a variance of twice its mean.
    """
    mean = max(fit.evidence_if_loose, 0.0)
    return not np.isfinite(mean) or mean - ndtri(settings.power) * np.sqrt(2 * mean) >= needed


def _doubt_of_a_zone(
    fit: HaloFit, surface: _Surface, shaft: Shaft, interval: tuple[float, float], settings: VerdictSettings
) -> str:
    """Why a wide zone that is seen is not `present`; empty when it is."""
    limit = settings.width_mm
    needed = min(settings.extent_mm, settings.extent_part * shaft.length_mm)
    if surface.extent_mm(limit, settings)[0] < needed:
        return "a wide zone is seen, but not for certain over enough of the length of the screw"
    if interval[0] == 0:
        return f"a zone wider than {limit:g} mm is seen, but a map without one explains the image nearly as well"
    if interval[0] < limit and fit.evidence < settings.clear_evidence:
        return (
            f"a zone wider than {limit:g} mm is likelier than none, but its width is between {interval[0]:.1f} and "
            f"{interval[1]:.1f} mm"
        )
    if surface.coverage(limit + settings.uncertain_mm) < settings.coverage:
        return (
            f"the zone is wider than {limit:g} mm by less than the {settings.uncertain_mm:g} mm that the screw's "
            "radius and the blur are uncertain by"
        )
    if not _concentric(fit, surface, limit, settings):
        return "the zone is not seen above and below the screw, where streaks reach least: it may be a streak"
    return ""


def _doubt_of_none(fit: HaloFit, surface: _Surface, strained: bool, settings: VerdictSettings) -> str:
    """Why a screw around which no wide zone is seen is not `absent`; empty when it is."""
    if strained:
        return "no wide zone is seen, but one can be hidden in streaks as strong as those of cobalt-chrome and steel"
    if fit.cement >= settings.least_cement:
        return f"no wide zone is seen, but {100 * fit.cement:.0f} % of the shaft's surface stands in cement"
    if fit.trajectory_hu is not None and fit.trajectory_hu < settings.faint_bone_hu:
        return f"no wide zone is seen, but in bone of {fit.trajectory_hu:.0f} HU one might not be"
    if fit.part_evidence > settings.part_evidence:
        return (
            f"no wide zone is seen over most of the screw, but one wider than {settings.width_mm:g} mm over a part of "
            "it would explain the image better than none"
        )
    part = float(np.mean(surface.judged))
    if part < settings.little_judged:
        return f"no wide zone is seen, but only {100 * part:.0f} % of the shaft's surface could be judged"
    return ""


def _unclear(
    fit: HaloFit, covered: float, interval: tuple[float, float], needed: float, settings: VerdictSettings
) -> str:
    """Why a screw is neither loose nor not loose."""
    limit, part = settings.width_mm, 100 * covered
    if fit.evidence >= needed and covered >= settings.coverage / 4:
        least = 100 * settings.coverage
        return (
            f"along a part of the screw there may be a zone wider than {limit:g} mm: {part:.0f} % of what could be "
            f"judged, less than the {least:.0f} % that count as loosening"
        )
    if interval[1] <= limit and covered < settings.coverage / 2:
        return "no wide zone is seen piece by piece, but over the whole screw one cannot be ruled out"
    if covered < settings.coverage / 4:
        return (
            "no wide zone is seen piece by piece, but over most of the screw its width may be up to "
            f"{interval[1]:.2f} mm"
        )
    return (
        f"the width of the zone is between {interval[0]:.1f} and {interval[1]:.1f} mm over most of the screw, and "
        f"{part:.0f} % of what could be judged seem to have more than {limit:g} mm"
    )


def _concentric(fit: HaloFit, surface: _Surface, limit: float, settings: VerdictSettings) -> bool:
    """Whether the zone is seen above and below the screw too, as far as that can be judged."""
    upright = np.abs(np.sin(np.radians(fit.cells.centers_deg))) > np.sin(np.pi / 4) - 1e-9
    seen = surface.judged & upright
    if np.count_nonzero(seen) < _FEWEST_UPRIGHT:
        return False
    return float(np.mean(surface.width_mm[seen] > limit)) >= 0.6 * settings.coverage


def _regions(
    surface: _Surface, depths_mm: FloatArray, length_mm: float, limit: float
) -> dict[str, dict[str, float | None]]:
    """Head, pedicle, body and tip, by depth: the last and first 8 mm, and the rest halved.

    Where the pedicle ends and the body begins is not known from the screw alone; half way is an approximation.
    """
    middle = (8.0 + length_mm - 8.0) / 2
    ranges = {
        "head": (0.0, 8.0),
        "pedicle": (8.0, middle),
        "body": (middle, length_mm - 8.0),
        "tip": (length_mm - 8.0, 1e9),
    }
    out: dict[str, dict[str, float | None]] = {}
    for name, (low, high) in ranges.items():
        part = surface.of_depths((depths_mm >= low) & (depths_mm < high))
        widths = part.width_mm[part.judged]
        known = len(widths) > 0
        out[name] = {
            "width_median_mm": float(np.median(widths)) if known else None,
            "width_p90_mm": float(np.percentile(widths, 90)) if known else None,
            "coverage_over_1mm": part.in_all_bone.coverage(limit) if known else None,
        }
    return out


def _shape(surface: _Surface, depths_mm: FloatArray) -> str:
    """In one phrase. Differences below 0.6 mm are none."""
    clear = 0.6
    widths = np.where(surface.judged, surface.width_mm, np.nan)
    thirds = np.array_split(np.arange(len(depths_mm)), 3)
    parts = [widths[rows][~np.isnan(widths[rows])] for rows in thirds]
    head, middle, tip = (float(np.median(p)) if len(p) else np.nan for p in parts)
    if min(head, tip) - middle > clear:
        return "double cone"
    if tip - head > clear:
        return "widest at the tip"
    if head - tip > clear:
        return "widest at the head"
    around = np.array([np.median(c[~np.isnan(c)]) if (~np.isnan(c)).any() else np.nan for c in widths.T])
    # A side and the one opposite; both thirds of the circumference wide.
    half = len(around) // 2
    opposite = np.abs(around - np.roll(around, half))
    if np.nanmax(opposite, initial=0.0) > 2 * clear:
        return "one-sided"
    return "uniform"


def _map(fit: HaloFit, surface: _Surface) -> HaloMap:
    return HaloMap(
        depths_mm=fit.cells.centers_mm,
        angles_deg=fit.cells.centers_deg,
        width_mm=np.where(surface.judged, surface.width_mm, np.nan),
        sd_mm=np.where(surface.judged, fit.sd_mm, np.nan),
    )
