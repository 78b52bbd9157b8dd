"""When a zone counts, and when nothing is said: every default of `verdict.judge`."""

from __future__ import annotations

from dataclasses import dataclass, field


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
    coverage_error: float = field(
        default=0.1,
        metadata={
            "unit": "part",
            "range": (0.0, 0.5),
            "source": "phantoms: coverage reads up to 0.2 too low on loose screws, where cortex is near",
            "help": "So much less is enough when the evidence for a wide zone is clear.",
        },
    )
    evidence: float = field(
        default=8.0,
        metadata={
            "unit": "",
            "range": (0.0, 100.0),
            "source": "tuning phantoms: at most 3 with less than 0.5 mm; 14 and more on three of five with 1.5 mm",
            "help": "How much better wide forms must explain the whole screw than narrow ones, as a log likelihood.",
        },
    )
    counter_evidence: float = field(
        default=2.0,
        metadata={
            "unit": "",
            "range": (0.0, 100.0),
            "source": "engineering choice: seven to one; missed zones on a part of the screw read -2 to 0",
            "help": "How much better narrow forms must explain the whole screw for `absent`, as a log likelihood.",
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
        default=0.4,
        metadata={
            "unit": "part",
            "range": (0.0, 1.0),
            "source": "phantoms: of three read narrow at 0.3-0.4, two had a zone on half of it; of 27 above, one",
            "help": "With less of the surface judged there is a note, and `absent` is not said.",
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
        default=1.2,
        metadata={
            "unit": "mm",
            "range": (0.5, 2.0),
            "source": "computed: of a 1 mm zone at 110 HU contrast, 20 HU are left at 1.0 mm and 5 HU at 1.3 mm; "
            "threads make the blur read up to 0.2 mm too wide",
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
            "source": "three patients with soft kernels -0.04 and above, an unsharp mask -0.09",
            "help": "Noise whose correlation falls below this is of a sharp kernel, where the header names none.",
        },
    )
    sharpened_texture: float = field(
        default=-0.12,
        metadata={
            "unit": "",
            "range": (-0.5, 0.0),
            "source": "34 phantoms with soft kernels: titanium -0.09 and above; streaks have a grain of their own",
            "help": "The same where the header names a soft kernel: an image that was sharpened afterwards.",
        },
    )
    least_contrast_hu: float = field(
        default=25.0,
        metadata={
            "unit": "HU",
            "range": (10.0, 100.0),
            "source": "engineering choice: less is lost in what hardening leaves",
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
        default=50.0,
        metadata={
            "unit": "HU",
            "range": (40.0, 120.0),
            "source": "a zone holds 30-50 HU, and 1 mm of it leaves 8 HU of contrast in bone of 60 HU, simulated",
            "help": "In bone softer than this nothing is said.",
        },
    )
    faint_bone_hu: float = field(
        default=70.0,
        metadata={
            "unit": "HU",
            "range": (50.0, 150.0),
            "source": "phantoms: 1.25 mm in bone of 46 HU were not seen",
            "help": "In bone softer than this `absent` is not said.",
        },
    )
    noisiest_hu: float = field(
        default=160.0,
        metadata={
            "unit": "HU",
            "range": (30.0, 500.0),
            "source": "phantoms: at 121-150 HU fixed screws read as fixed, loose ones as loose (n = 8)",
            "help": "With larger residuals of the fit, streaks are too strong.",
        },
    )
    least_part: float = field(
        default=0.2,
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
        default=0.15,
        metadata={
            "unit": "mm",
            "range": (0.0, 0.5),
            "source": "the outer thread's radius is known to 0.1 mm, and as much comes from the blur's own error",
            "help": "Added to the fit's interval on either side.",
        },
    )
