"""When a zone counts, and when nothing is said: every default of `verdict.judge`."""

from __future__ import annotations

from dataclasses import dataclass

from spineimg.settings import setting


@dataclass(frozen=True, slots=True)
class VerdictSettings:
    """What counts as loosening, and when nothing is said."""

    width_mm: float = setting(
        1.0,
        "mm",
        (0.5, 3.0),
        "Nam 2025, J Clin Med 14:4629, after Sandén 2004",
        "A lucent zone wider than this is loosening.",
    )
    coverage: float = setting(
        0.5,
        "part",
        (0.1, 1.0),
        "engineering choice: most of what the shaft touches",
        "It must be that wide over at least this part of the surface that lies in bone.",
    )
    evidence: float = setting(
        4.0,
        "",
        (0.0, 100.0),
        "phantoms: at most 0.1 around 80 titanium screws without a zone; 4 is 55 to 1",
        "Logarithm of the odds that the zone is wide, over simple forms, that `present` needs.",
    )
    widest_smear_mm: float = setting(
        0.8,
        "mm",
        (0.2, 3.0),
        "phantoms, median over a scan: cobalt-chrome and steel 1.0-1.8 (four 0.3-0.8), with odds up to 14 around "
        "fixed screws; titanium 0-0.3, at 100 kVp 0.1-0.9",
        "Where starved rays widen shafts more than this in the slice plane, a zone needs `clear_evidence`, and "
        "`absent` is not said; nor around metal heavier than titanium.",
    )
    clipped_noise_hu: float = setting(
        130.0,
        "HU",
        (30.0, 500.0),
        "phantoms whose scale ends below metal: steel that is smeared by 0.4 mm only leaves 186-270 HU, titanium at "
        "most 126",
        "The same around a screw where the fit leaves more than this, on such a scale.",
    )
    clear_evidence: float = setting(
        60.0,
        "",
        (0.0, 1000.0),
        "phantoms: 27-31 around fixed screws of steel and cobalt-chrome on clipped scales, 74-106 around a zone of "
        "2.5 mm over a half",
        "The same where the interval of the width holds the limit, and in the streaks of heavy metal.",
    )
    counter_evidence: float = setting(
        3.0,
        "",
        (0.0, 100.0),
        "engineering choice: 20 to 1, since the interval must end at the limit as well",
        "Logarithm of the odds against a wide zone that `absent` needs.",
    )
    part_evidence: float = setting(
        1.0,
        "",
        (0.0, 100.0),
        "tuning phantoms: 2 of 64 screws without any wide zone have more, two zones of 1.5-2 mm over a quarter 2 and 7",
        "Logarithm of the odds of a zone over a part of the screw that `absent` allows.",
    )
    power: float = setting(
        0.8,
        "part",
        (0.5, 0.99),
        "statistical convention",
        "Where the odds leave it open, nothing is said unless so many such scans would tell a zone of 2 mm all along.",
    )
    extent_mm: float = setting(
        10.0,
        "mm",
        (3.0, 40.0),
        "engineering choice",
        "It must reach so far along the shaft, or over `extent_part` of its length if that is less.",
    )
    extent_part: float = setting(
        0.25, "part", (0.1, 1.0), "engineering choice", "Part of the shaft's length that is enough."
    )
    depth_coverage: float = setting(
        1 / 3,
        "part",
        (0.1, 1.0),
        "engineering choice: with a half, cross-sections of narrow pedicles, half in bone with room for a zone, and "
        "zones on half of the circumference are decided by a hair",
        "A depth counts for the zone's length when so much of its circumference in bone is wider than the limit.",
    )
    depth_judged: float = setting(
        0.25,
        "part",
        (0.05, 1.0),
        "engineering choice: one or two pieces of a circumference are often streaks",
        "A depth of which less is known does not count for the zone's length.",
    )
    little_judged: float = setting(
        0.4,
        "part",
        (0.0, 1.0),
        "phantoms: of three read narrow at 0.3-0.4, two had a zone on half of it; of 27 above, one",
        "With less of the surface judged there is a note, and `absent` is not said.",
    )
    least_cement: float = setting(
        0.06,
        "part",
        (0.0, 1.0),
        "phantoms: without cement at most 3 % of a shaft's surface looks like it",
        "With so much of the surface in cement there is a note, and `absent` is not said.",
    )
    thickest_slice_mm: float = setting(
        2.0, "mm", (0.5, 5.0), "phantoms: at 3 mm most fixed screws look loose", "Nothing is said on thicker slices."
    )
    widest_blur_mm: float = setting(
        1.2,
        "mm",
        (0.5, 2.0),
        "computed: of a 1 mm zone at 110 HU contrast, 20 HU are left at 1.0 mm and 5 HU at 1.3 mm; "
        "threads make the blur read up to 0.2 mm too wide",
        "With a wider blur in the slice plane, only widths clearly off the limit are judged.",
    )
    hopeless_blur_mm: float = setting(
        1.5,
        "mm",
        (1.0, 3.0),
        "computed: a 1 mm zone leaves nothing at 1.6 mm",
        "With a wider blur in the slice plane nothing is said.",
    )
    sharp_texture: float = setting(
        -0.06,
        "",
        (-0.5, 0.0),
        "three patients with soft kernels -0.04 and above, an unsharp mask -0.09",
        "Noise whose correlation falls below this is of a sharp kernel, where the header names none.",
    )
    sharpened_texture: float = setting(
        -0.16,
        "",
        (-0.5, 0.0),
        "82 phantoms with soft kernels: -0.14 and above; streaks have a grain of their own",
        "The same where the header names a soft kernel: an image that was sharpened afterwards.",
    )
    least_contrast_hu: float = setting(
        25.0,
        "HU",
        (10.0, 100.0),
        "engineering choice: less is lost in what hardening leaves",
        "Bone must be so much brighter than what fills the zone.",
    )
    weakest_metal_hu: float = setting(
        5000.0,
        "HU",
        (3000.0, 6500.0),
        "titanium reads 6300-8400 HU on an extended scale",
        "A shaft darker than this on a scale that is not clipped is not understood.",
    )
    heavy_metal_hu: float = setting(
        9000.0,
        "HU",
        (8500.0, 12000.0),
        "titanium reads 6300-8400 HU, steel 12300-13600 HU, cobalt-chrome about 17000 HU",
        "A shaft brighter than this is heavier than titanium; its streaks are two to three times stronger.",
    )
    heavy_slice_mm: float = setting(
        1.0,
        "mm",
        (0.5, 2.0),
        "phantoms: bands beside steel pass for a zone when slices are thicker",
        "Around metal heavier than titanium nothing is said with thicker slices.",
    )
    softest_bone_hu: float = setting(
        50.0,
        "HU",
        (40.0, 120.0),
        "a zone holds 30-50 HU, and 1 mm of it leaves 8 HU of contrast in bone of 60 HU, simulated",
        "In bone softer than this nothing is said.",
    )
    faint_bone_hu: float = setting(
        70.0,
        "HU",
        (50.0, 150.0),
        "phantoms: 1.25 mm in bone of 46 HU were not seen",
        "In bone softer than this `absent` is not said.",
    )
    noisiest_hu: float = setting(
        180.0,
        "HU",
        (30.0, 500.0),
        "phantoms: a fixed screw of steel at 186 HU read 1.4 mm",
        "With larger residuals of the fit, streaks are too strong.",
    )
    least_part: float = setting(
        0.2,
        "part",
        (0.05, 1.0),
        "engineering choice",
        "At least this part of the surface must lie in bone that can be judged.",
    )
    blind_mm: float = setting(
        0.5,
        "mm",
        (0.0, 1.0),
        "computed: of 110 HU, a zone of 0.5 mm leaves 8 HU at a blur of 0.6 mm and 1 HU at 0.8 mm",
        "A narrower zone cannot be told from none: the interval goes down to 0.",
    )
    uncertain_mm: float = setting(
        0.15,
        "mm",
        (0.0, 0.5),
        "the outer thread's radius is known to 0.1 mm, and as much comes from the blur's own error",
        "Added to the fit's interval on either side.",
    )
    uncertain_part: float = setting(
        0.08,
        "part",
        (0.0, 0.5),
        "tuning phantoms: zones of 2-3 mm read 0.1-0.4 mm too narrow, smoothed with narrower neighbours",
        "Added to the interval on either side, of the width.",
    )
