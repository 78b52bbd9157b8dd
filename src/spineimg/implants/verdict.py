"""From a fitted width map to a halo in words and numbers, and to `present`, `absent` or a reason for neither.

Loosening is a lucent zone wider than 1 mm (Nam 2025, after Sandén 2004). No paper says around how much of a screw: the
coverage and length asked for here are engineering choices. Where the scan cannot tell, the answer is `not_assessed`
with the reason; where the interval holds both answers, `indeterminate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from spineimg.geometry import FloatArray
from spineimg.implants.halo import HaloFit
from spineimg.implants.model import Halo, HaloMap, Loosening, Shaft
from spineimg.implants.psf import Psf
from spineimg.implants.unrolled import BoolArray
from spineimg.notes import Note
from spineimg.volume import Sharpness


@dataclass(frozen=True, slots=True)
class VerdictSettings:
    """What counts as loosening, and when nothing is said."""

    width_mm: float = field(
        default=1.0,
        metadata={
            "unit": "mm",
            "range": (0.5, 3.0),
            "source": "Nam 2025, J Clin Med 14:4629, after Sandén 2004",
            "help": "A lucent zone wider than this is loosening.",
        },
    )
    coverage: float = field(
        default=0.5,
        metadata={
            "unit": "part",
            "range": (0.1, 1.0),
            "source": "engineering choice: most of what the shaft touches",
            "help": "It must be that wide over at least this part of the surface that lies in bone.",
        },
    )
    extent_mm: float = field(
        default=10.0,
        metadata={
            "unit": "mm",
            "range": (3.0, 40.0),
            "source": "engineering choice",
            "help": "It must reach so far along the shaft, or over `extent_part` of its length if that is less.",
        },
    )
    extent_part: float = field(
        default=0.25,
        metadata={
            "unit": "part",
            "range": (0.1, 1.0),
            "source": "engineering choice",
            "help": "Part of the shaft's length that is enough.",
        },
    )
    depth_coverage: float = field(
        default=0.5,
        metadata={
            "unit": "part",
            "range": (0.1, 1.0),
            "source": "engineering choice: as for the whole surface",
            "help": "A depth counts as wide when so much of what is judged there is wider than the limit.",
        },
    )
    depth_judged: float = field(
        default=0.25,
        metadata={
            "unit": "part",
            "range": (0.05, 1.0),
            "source": "engineering choice: one or two pieces of a circumference are often streaks",
            "help": "A depth with less of its circumference judged does not count for the zone's length.",
        },
    )
    little_judged: float = field(
        default=0.3,
        metadata={
            "unit": "part",
            "range": (0.0, 1.0),
            "source": "engineering choice",
            "help": "A note is given when less of the surface was judged.",
        },
    )
    thickest_slice_mm: float = field(
        default=2.0,
        metadata={
            "unit": "mm",
            "range": (0.5, 5.0),
            "source": "phantoms: at 3 mm most fixed screws look loose",
            "help": "Nothing is said on thicker slices.",
        },
    )
    widest_blur_mm: float = field(
        default=1.0,
        metadata={
            "unit": "mm",
            "range": (0.5, 2.0),
            "source": "computed: of a 1 mm zone at 110 HU contrast, 20 HU are left at 1.0 mm and 5 HU at 1.3 mm",
            "help": "With a wider blur in the slice plane, only widths clearly off the limit are judged.",
        },
    )
    hopeless_blur_mm: float = field(
        default=1.5,
        metadata={
            "unit": "mm",
            "range": (1.0, 3.0),
            "source": "computed: a 1 mm zone leaves nothing at 1.6 mm",
            "help": "With a wider blur in the slice plane nothing is said.",
        },
    )
    sharp_texture: float = field(
        default=-0.06,
        metadata={
            "unit": "",
            "range": (-0.5, 0.0),
            "source": "three patients and four phantoms with soft kernels -0.04 and above, an unsharp mask -0.09",
            "help": "Noise whose correlation falls below this is of a sharp kernel.",
        },
    )
    least_contrast_hu: float = field(
        default=30.0,
        metadata={
            "unit": "HU",
            "range": (10.0, 100.0),
            "source": "phantoms: below this, 1 mm leaves less than the noise",
            "help": "Bone must be so much brighter than what fills the zone.",
        },
    )
    weakest_metal_hu: float = field(
        default=5000.0,
        metadata={
            "unit": "HU",
            "range": (3000.0, 6500.0),
            "source": "titanium reads 6300-8400 HU on an extended scale",
            "help": "A shaft darker than this on a scale that is not clipped is not understood.",
        },
    )
    heavy_metal_hu: float = field(
        default=9000.0,
        metadata={
            "unit": "HU",
            "range": (8500.0, 12000.0),
            "source": "titanium reads 6300-8400 HU, steel 12300-13600 HU, cobalt-chrome about 17000 HU",
            "help": "A shaft brighter than this is heavier than titanium; its streaks are two to three times stronger.",
        },
    )
    heavy_slice_mm: float = field(
        default=1.0,
        metadata={
            "unit": "mm",
            "range": (0.5, 2.0),
            "source": "phantoms: bands beside steel pass for a zone when slices are thicker",
            "help": "Around metal heavier than titanium nothing is said with thicker slices.",
        },
    )
    softest_bone_hu: float = field(
        default=80.0,
        metadata={
            "unit": "HU",
            "range": (50.0, 120.0),
            "source": "a zone holds 30-50 HU, and 1 mm of it leaves 8 HU of contrast in bone of 60 HU, simulated",
            "help": "In bone softer than this nothing is said.",
        },
    )
    noisiest_hu: float = field(
        default=120.0,
        metadata={
            "unit": "HU",
            "range": (30.0, 500.0),
            "source": "engineering choice",
            "help": "With larger residuals of the fit, streaks are too strong.",
        },
    )
    worst_misfit: float = field(
        default=1.5,
        metadata={
            "unit": "of the noise",
            "range": (1.0, 5.0),
            "source": "engineering choice",
            "help": "Pieces of the surface with larger residuals (cortex, canal, joints nearby) are not judged.",
        },
    )
    least_part: float = field(
        default=0.1,
        metadata={
            "unit": "part",
            "range": (0.05, 1.0),
            "source": "engineering choice",
            "help": "At least this part of the surface must lie in bone that can be judged.",
        },
    )
    blind_mm: float = field(
        default=0.5,
        metadata={
            "unit": "mm",
            "range": (0.0, 1.0),
            "source": "computed: of 110 HU, a zone of 0.5 mm leaves 8 HU at a blur of 0.6 mm and 1 HU at 0.8 mm",
            "help": "A narrower zone cannot be told from none: the interval goes down to 0.",
        },
    )
    uncertain_mm: float = field(
        default=0.1,
        metadata={
            "unit": "mm",
            "range": (0.0, 0.5),
            "source": "the outer thread's radius is known to 0.1 mm",
            "help": "Added to the fit's interval on either side.",
        },
    )


@dataclass(frozen=True, slots=True)
class Conditions:
    """What of the scan decides whether a halo can be judged. None is unknown. texture: see `texture.noise_texture`.

    brightest_hu: metal of the brightest shaft on a scale that is not clipped, 0 elsewhere; a construct is of one alloy.
    """

    slice_mm: float
    sharpness: Sharpness | None
    artifact_reduction: bool | None
    psf: Psf
    texture: float = 0.0
    brightest_hu: float = 0.0


@dataclass(frozen=True, eq=False, slots=True)
class _Surface:
    """The unrolled surface: widths, where they count, and the mm between depths."""

    width_mm: FloatArray
    judged: BoolArray
    step_mm: float

    def shifted(self, change_mm: float) -> _Surface:
        return _Surface(np.maximum(self.width_mm + change_mm, 0), self.judged, self.step_mm)

    def coverage(self, limit_mm: float) -> float:
        return float(np.mean(self.width_mm[self.judged] > limit_mm))

    def extent_mm(self, limit_mm: float, part_wide: float, part_judged: float) -> float:
        """Longest run of depths of whose judged part so much is wider than the limit; nan where no depth is known.

        Depths of which less than `part_judged` is judged do not end a run, but it does not begin or end with them.
        """
        number = self.judged.sum(axis=1)
        seen = number >= max(1.0, part_judged * self.judged.shape[1] - 1e-9)
        if not seen.any():
            return float("nan")
        wide = seen & (np.sum(self.judged & (self.width_mm > limit_mm), axis=1) >= np.maximum(part_wide * number, 1))
        parts, count = ndimage.label(wide | ~seen)
        rows = [np.flatnonzero((parts == n) & wide) for n in range(1, count + 1)]
        return max((int(np.ptp(r)) + 1 for r in rows if len(r)), default=0) * self.step_mm


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
        return Halo(False, reason=reason, map=_map(fit, surface)), Loosening.NOT_ASSESSED
    halo, interval = _halo(fit, surface, shaft, chosen)
    verdict, why = _verdict(fit, surface, shaft, interval, conditions, chosen)
    if verdict is Loosening.NOT_ASSESSED:
        return Halo(False, reason=why, map=halo.map), verdict
    return replace(halo, reason=why), verdict


def notes_on(halo: Halo, about: str, settings: VerdictSettings | None = None) -> tuple[Note, ...]:
    """What to bear in mind when reading the numbers of an assessed halo. about: the screw's name."""
    chosen = settings or VerdictSettings()
    part = float(np.mean(halo.map.in_bone > 0)) if halo.assessable and halo.map else 1.0
    if part >= chosen.little_judged:
        return ()
    text = (
        f"the zone could be judged over only {100 * part:.0f} % of the shaft's surface: "
        "width and coverage speak for that part alone"
    )
    return (Note("little_judged", text, about),)


def refusal_by_scan(shaft: Shaft, conditions: Conditions, settings: VerdictSettings) -> str:
    """Why nothing can be said on this scan around this shaft; empty when something can."""
    if conditions.artifact_reduction:
        return "metal artefact reduction makes and hides dark rims around screws: use the series without it"
    if conditions.sharpness is Sharpness.SHARP or conditions.texture < settings.sharp_texture:
        return "a sharp kernel paints a dark rim around metal: use a soft-tissue series"
    if conditions.slice_mm > settings.thickest_slice_mm + 1e-6:
        return (
            f"slices of {conditions.slice_mm:.1f} mm are too thick for a zone of 1 mm: "
            f"at most {settings.thickest_slice_mm:g} mm"
        )
    if conditions.psf.fwhm_in_plane_mm > settings.hopeless_blur_mm:
        return f"the image is too blurred for a zone of 1 mm ({conditions.psf.fwhm_in_plane_mm:.1f} mm in the slice)"
    if not shaft.clipped and shaft.metal_hu < settings.weakest_metal_hu:
        return f"the shaft reads only {shaft.metal_hu:.0f} HU, less than solid titanium"
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
    judged = (
        (contrast >= settings.least_contrast_hu)
        & (fit.bone_hu < 1500)
        & (fit.voxels >= 8)
        & (fit.misfit < settings.worst_misfit)
    )
    return _Surface(fit.width_mm, judged, fit.cells.depth_mm)


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
        )
    return ""


def _halo(fit: HaloFit, surface: _Surface, shaft: Shaft, settings: VerdictSettings) -> tuple[Halo, tuple[float, float]]:
    limit = settings.width_mm
    widths = surface.width_mm[surface.judged]
    median = float(np.median(widths))
    low = median + min(fit.shift_mm[0], 0.0) - settings.uncertain_mm
    if low < settings.blind_mm:
        low = 0.0
    high = median + max(fit.shift_mm[1], 0.0) + settings.uncertain_mm
    interval = (low, high)
    coverage, extent = surface.coverage(limit), surface.extent_mm(limit, settings.depth_coverage, settings.depth_judged)
    halo = Halo(
        assessable=True,
        width_median_mm=median,
        width_p90_mm=float(np.percentile(widths, 90)),
        coverage_over_1mm=coverage,
        axial_extent_mm=min(extent, shaft.length_mm) if np.isfinite(extent) else None,
        interval_mm=interval,
        regions=_regions(surface, fit.cells.centers_mm, shaft.length_mm, limit),
        shape=_shape(surface, fit.cells.centers_mm) if coverage >= 0.1 else None,
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
    median = float(np.median(surface.width_mm[surface.judged]))
    limit = settings.width_mm
    needed = min(settings.extent_mm, settings.extent_part * shaft.length_mm)

    def loose(change: float, part_wide: float, part_judged: float) -> bool:
        moved = surface.shifted(change)
        return moved.coverage(limit) >= settings.coverage and moved.extent_mm(limit, part_wide, part_judged) >= needed

    surely = loose(interval[0] - median, settings.depth_coverage, settings.depth_judged)
    # Any piece may speak for a zone that cannot be excluded.
    possibly = loose(interval[1] - median, min(1 / 3, settings.depth_coverage), 0.0)
    blurred = conditions.psf.fwhm_in_plane_mm > settings.widest_blur_mm
    if blurred and interval[0] < 1.5 * limit and interval[1] > 0.5 * limit:
        return Loosening.NOT_ASSESSED, (
            f"with a blur of {conditions.psf.fwhm_in_plane_mm:.1f} mm in the slice plane a zone near 1 mm "
            "cannot be told"
        )
    if surely:
        low, best, _ = fit.cranio_caudal_mm
        if best < 0.8 * limit or low < 0.5 * limit:
            return Loosening.INDETERMINATE, (
                "the zone is not seen above and below the screw, where streaks reach least: it may be a streak"
            )
        return Loosening.PRESENT, ""
    if possibly and interval[0] > limit:
        return (
            Loosening.INDETERMINATE,
            "a wide zone is seen, but not for certain over enough of the length of the screw",
        )
    if possibly:
        return Loosening.INDETERMINATE, (
            f"the width of the zone is between {interval[0]:.1f} and {interval[1]:.1f} mm, "
            f"on both sides of {limit:g} mm"
        )
    if fit.cranio_caudal_mm[0] > limit:
        return Loosening.INDETERMINATE, (
            "a zone is seen above and below the screw that the whole of its surface does not show"
        )
    return Loosening.ABSENT, ""


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
        rows = (depths_mm >= low) & (depths_mm < high)
        widths = surface.width_mm[rows][surface.judged[rows]]
        known = len(widths) > 0
        out[name] = {
            "width_median_mm": float(np.median(widths)) if known else None,
            "width_p90_mm": float(np.percentile(widths, 90)) if known else None,
            "coverage_over_1mm": float(np.mean(widths > limit)) if known else None,
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
        in_bone=surface.judged.astype(np.float64),
    )
