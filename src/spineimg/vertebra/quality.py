"""Reasons to distrust a vertebral HU, as notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spineimg.anatomy import is_lumbar
from spineimg.geometry import Geometry
from spineimg.metal import MetalNear, MetalSettings
from spineimg.notes import Note
from spineimg.sampling import PlaneSamples
from spineimg.settings import setting
from spineimg.vertebra.planes import BoolArray
from spineimg.volume import Acquisition, Sharpness


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """From where on something is noted."""

    thick_mm: float = setting(
        3.0,
        "mm",
        (0.5, 10.0),
        "engineering choice: a thick slice between the endplates blends bone and disc",
        "Thicker slices are noted.",
    )
    too_thick_mm: float = setting(
        5.0,
        "mm",
        (0.5, 10.0),
        "engineering choice: three planes no longer fit between the endplates of a small vertebra",
        "Thicker slices are not assessed against a cutoff.",
    )
    slices_differ: float = setting(
        0.30,
        "fraction of the mean",
        (0.05, 1.0),
        "engineering choice: healthy bodies differ less, except around an enhanced basivertebral vein",
        "Largest range of the slice means.",
    )
    noise_factor: float = setting(
        2.5,
        "",
        (1.0, 10.0),
        "engineering choice: noise in the spine exceeds that of soft tissue, streaks included",
        "Multiple of the noise that an SD within a ROI may reach by noise alone.",
    )
    texture_sd_hu: float = setting(
        40.0,
        "HU",
        (0.0, 100.0),
        "measured: SD of 23-43 HU beyond the noise, at any mean from 93 to 227 HU, in 25 ROIs of "
        "normal-looking bodies of two public scans (TCGA-OV, TotalSegmentator example)",
        "SD of healthy trabecular bone itself; adds to the noise in quadrature.",
    )
    noise_unknown_hu: float = setting(
        30.0,
        "HU",
        (5.0, 100.0),
        "upper end of the usual noise of 10-30 HU; engineering choice",
        "Noise that is assumed where there is too little soft tissue to measure it.",
    )
    cortex_above_hu: float = setting(
        200.0,
        "HU",
        (50.0, 1000.0),
        "engineering choice: a 0.35 mm shell peaks at 460-600 HU (computed), texture stays within 4 SD",
        "So far above the median of the ROI a voxel is taken for cortex; four times the noise if more.",
    )
    cortex_fraction: float = setting(
        0.03,
        "fraction",
        (0.0, 1.0),
        "engineering choice: single bright trabeculae are common",
        "Share of such voxels along the border of the ROI from which it touches cortex.",
    )
    min_area_mm2: float = setting(
        100.0, "mm²", (10.0, 1000.0), "engineering choice for cervical and thoracic bodies", "Smaller ROIs are noted."
    )
    min_area_lumbar_mm2: float = setting(
        200.0,
        "mm²",
        (10.0, 1000.0),
        "200 mm² circles differ by less than 8 HU from other sizes (Osteoporos Int 2025)",
        "Smaller ROIs in lumbar and sacral bodies are noted.",
    )
    plausible_hu: tuple[float, float] = setting(
        (-150.0, 800.0),
        "HU",
        (-1000.0, 3000.0),
        "engineering choice: from pure fat to compact bone",
        "A mean outside is not trabecular bone.",
    )
    usual_planes: int = setting(3, "planes", (1, 3), "Lee 2024: three axial slices", "Fewer are noted.")


@dataclass(frozen=True, eq=False, slots=True)
class PlaneFacts:
    """What the notes on one measured plane rest on. kept, rim: (n,) of the samples. area_mm2 is that of the kept.

    noise_hu: estimates the noise beside the plane, None where it is unknown; asked only where a note hangs on it.
    """

    about: str
    level: str
    samples: PlaneSamples
    rim: BoolArray
    metal: MetalNear
    noise_hu: Callable[[], float | None]

    @property
    def kept(self) -> BoolArray:
        return self.samples.valid & ~self.metal.excluded

    @property
    def area_mm2(self) -> float:
        return float(np.count_nonzero(self.kept)) * self.samples.sample_area_mm2


# -- acquisition --------------------------------------------------------------------------------------------------


def acquisition_notes(
    acquisition: Acquisition, geometry: Geometry, about: str, settings: QualitySettings
) -> tuple[Note, ...]:
    """What is doubtful about every HU of a series, because of how it was acquired."""
    found = [
        *_contrast(acquisition),
        *_energy(acquisition),
        *_kernel(acquisition),
        *_thickness(acquisition, geometry, settings),
    ]
    if acquisition.metal_artifact_reduction:
        found.append(
            ("artifact_reduction", "metal-artefact reduction was used, which changes HU and can make false lucencies")
        )
    return tuple(Note(code, text, about) for code, text in found)


def _contrast(acquisition: Acquisition) -> list[tuple[str, str]]:
    raised = "contrast agent raises the HU of bone by 11-26 on average, so that weak bone can look sound"
    if acquisition.contrast is None:
        return [("contrast_unknown", f"whether contrast agent was given is not known; {raised}")]
    if acquisition.contrast:
        agent = f" ({acquisition.contrast_agent})" if acquisition.contrast_agent else ""
        return [("contrast_given", f"contrast agent was given{agent}; {raised}")]
    return []


def _energy(acquisition: Acquisition) -> list[tuple[str, str]]:
    found = []
    if acquisition.kvp is None:
        found.append(("kvp_unknown", "the tube voltage is not known; HU of bone depend on it"))
    elif round(acquisition.kvp) != 120:
        found.append(
            (
                "kvp_not_120",
                f"the tube voltage is {acquisition.kvp:g} kVp; the cutoffs hold for 120 kVp, and HU of bone rise at "
                "lower and fall at higher voltage",
            )
        )
    if acquisition.monoenergetic_kev is not None:
        energy = f" at {acquisition.monoenergetic_kev:g} keV" if acquisition.monoenergetic_kev else ""
        found.append(
            ("monoenergetic", f"this is a virtual mono-energetic image{energy}; its HU are not those of 120 kVp")
        )
    return found


def _kernel(acquisition: Acquisition) -> list[tuple[str, str]]:
    if acquisition.sharpness is Sharpness.SHARP:
        return [
            (
                "sharp_kernel",
                f"the kernel ({acquisition.kernel}) is sharp: more noise, and edges that spill into the ROI; "
                "a soft kernel is better for HU",
            )
        ]
    if acquisition.sharpness is None:
        named = f"whether the kernel {acquisition.kernel} is soft or sharp" if acquisition.kernel else "the kernel"
        return [("kernel_unknown", f"{named} is not known; a sharp one makes HU less certain")]
    return []


def _thickness(acquisition: Acquisition, geometry: Geometry, settings: QualitySettings) -> list[tuple[str, str]]:
    told = acquisition.slice_thickness_mm
    thickness = told if told else geometry.spacing_mm[0]
    named = "slices are" if told else "the slice thickness is not told and slices lie"
    apart = "thick" if told else "apart"
    if thickness > settings.too_thick_mm:
        text = f"{named} {thickness:g} mm {apart} (limit {settings.too_thick_mm:g} mm): too thick for trabecular HU"
        return [("slices_too_thick", text)]
    if thickness > settings.thick_mm:
        text = (
            f"{named} {thickness:g} mm {apart} (better {settings.thick_mm:g} mm or less): disc may blend into the ROI"
        )
        return [("thick_slices", text)]
    return []


# -- one plane ----------------------------------------------------------------------------------------------------


def coverage_notes(
    facts: PlaneFacts, geometry: Geometry, thickness_mm: float | None, settings: QualitySettings
) -> tuple[Note, ...]:
    """What of a ROI could not be measured, whether it lies where the volume ends, and what it was resampled from."""
    samples, found = facts.samples, []
    apart = max(geometry.spacing_mm[0], thickness_mm or 0.0)
    if samples.resampled and apart > 1.01 * settings.thick_mm:
        text = (
            f"the plane is tilted and was resampled from slices of {apart:.3g} mm (better {settings.thick_mm:g} mm or "
            "less): endplate and disc up to a slice away blend in"
        )
        found.append(("resampled_thick_slices", text))
    total = max(1, len(samples.hu))
    beyond = np.count_nonzero(~samples.inside)
    padding = np.count_nonzero(samples.inside & ~samples.valid)
    if beyond:
        found.append(("roi_outside_volume", f"{_percent(beyond / total)} of the ROI lies outside the volume"))
    if padding:
        text = f"{_percent(padding / total)} of the ROI holds no measurement (padding)"
        found.append(("padding_in_roi", text))
    gaps = [gap for gap in geometry.gaps if {gap.after, gap.after + 1} & set(samples.slices)]
    if gaps:
        text = f"the ROI lies beside a gap of {gaps[0].width_mm:.1f} mm between slices"
        found.append(("roi_at_gap", f"{text} {gaps[0].after} and {gaps[0].after + 1} (counted from 0)"))
    if {0, geometry.shape[0] - 1} & set(samples.slices):
        found.append(("roi_at_volume_end", "the ROI lies on the first or last slice; the vertebra may be cut off"))
    return tuple(Note(code, text, facts.about) for code, text in found)


def content_notes(facts: PlaneFacts, sd_hu: float, settings: QualitySettings) -> tuple[Note, ...]:
    """What the voxels of a measured ROI tell: cortex in it, an SD beyond noise, too small an area."""
    found = []
    # Noise only raises both limits: where nothing passes them without any, it need not be known.
    if sd_hu > settings.texture_sd_hu or _cortex_share(facts, 0.0, settings) > settings.cortex_fraction:
        found += _beyond_noise(facts, sd_hu, settings)
    least = settings.min_area_lumbar_mm2 if is_lumbar(facts.level) else settings.min_area_mm2
    if facts.area_mm2 < least:
        found.append(("roi_small", f"only {facts.area_mm2:.0f} mm² were measured (better {least:g} mm² or more)"))
    return tuple(Note(code, text, facts.about) for code, text in found)


def _beyond_noise(facts: PlaneFacts, sd_hu: float, settings: QualitySettings) -> list[tuple[str, str]]:
    """An SD that noise does not explain, and cortex along the border. Raises PixelError, for it reads the noise."""
    found = []
    measured = facts.noise_hu()
    noise = measured if measured is not None else settings.noise_unknown_hu
    highest_sd = float(np.hypot(settings.noise_factor * noise, settings.texture_sd_hu))
    if sd_hu > highest_sd:
        source = f"noise of {noise:.0f} HU" if measured is not None else "noise (assumed)"
        text = (
            f"the SD of {sd_hu:.0f} HU is beyond what {source} and healthy trabeculae explain ({highest_sd:.0f} HU): "
            "look for a lesion, sclerosis, a haemangioma, a fracture, endplate or metal streaks in the ROI"
        )
        found.append(("sd_beyond_noise", text))
    bright = _cortex_share(facts, noise, settings)
    if bright > settings.cortex_fraction:
        text = f"{_percent(bright)} of the border of the ROI is as bright as cortex or endplate, which raises the mean"
        found.append(("touches_cortex", text))
    return found


def _cortex_share(facts: PlaneFacts, noise: float, settings: QualitySettings) -> float:
    """Share of the kept voxels along the border that are as bright as cortex."""
    kept = facts.kept
    border = facts.samples.hu[kept & facts.rim]
    if not len(border):
        return 0.0
    bright = float(np.median(facts.samples.hu[kept])) + max(settings.cortex_above_hu, 4 * noise)
    return float(np.count_nonzero(border > bright)) / len(border)


# -- the whole vertebra -------------------------------------------------------------------------------------------


def vertebra_notes(
    level: str, means_hu: Sequence[float | None], mean_hu: float | None, settings: QualitySettings
) -> tuple[Note, ...]:
    """Notes on the slice means of one vertebra, None for those that could not be measured, and on their mean."""
    found = []
    if len(means_hu) < settings.usual_planes:
        count = "one ROI" if len(means_hu) == 1 else f"{len(means_hu)} ROIs"
        text = f"{count} instead of {settings.usual_planes}: the cutoffs rest on the mean of three slices"
        found.append(("fewer_than_three_slices", text))
    known = [mean for mean in means_hu if mean is not None]
    if mean_hu is not None:
        spread = max(known) - min(known)
        if spread > settings.slices_differ * abs(mean_hu):
            text = (
                f"the slice means differ by {spread:.0f} HU, over {_percent(settings.slices_differ)} of their mean: "
                "look for a lesion, a fracture, an enhanced vein, or endplate in one of the planes"
            )
            found.append(("slices_differ", text))
        low, high = settings.plausible_hu
        if not low <= mean_hu <= high:
            text = (
                f"a mean of {mean_hu:.0f} HU is not trabecular bone ({low:g} to {high:g} HU): check place and scaling"
            )
            found.append(("implausible_hu", text))
    return tuple(Note(code, text, level) for code, text in found)


def metal_notes(level: str, facts: Sequence[PlaneFacts], settings: MetalSettings) -> tuple[Note, ...]:
    """Metal beside or in the ROIs of one vertebra."""
    found = []
    distances = [one.metal.nearest_mm for one in facts if one.metal.nearest_mm is not None]
    if distances and min(distances) <= settings.near_mm:
        text = f"metal lies {min(distances):.1f} mm from the ROI; streaks and beam hardening change HU around it"
        found.append(("metal_near", text))
    excluded = sum(int(np.count_nonzero(one.metal.excluded & one.samples.valid)) for one in facts)
    if excluded:
        share = excluded / sum(len(one.samples.hu) for one in facts)
        text = f"{_percent(share)} of the ROI was left out, as metal or within {settings.margin_mm:g} mm of it"
        found.append(("metal_excluded", text))
    return tuple(Note(code, text, level) for code, text in found)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"
