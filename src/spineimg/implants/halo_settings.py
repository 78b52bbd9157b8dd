"""How the lucent zone is fitted: every default of `halo.fit_halo`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HaloSettings:
    """How the lucent zone is fitted."""

    near_mm: float = field(
        default=0.4,
        metadata={
            "unit": "mm",
            "range": (0.2, 1.5),
            "source": "engineering choice: nearer, the metal's edge hides everything",
            "help": "Voxels are fitted from this far outside the outer thread.",
        },
    )
    far_mm: float = field(
        default=4.5,
        metadata={
            "unit": "mm",
            "range": (3.0, 8.0),
            "source": "engineering choice: the widest zone and some bone, little of what lies beyond a pedicle",
            "help": "Voxels are fitted up to this far outside the outer thread.",
        },
    )
    highest_hu: float = field(
        default=3000.0,
        metadata={
            "unit": "HU",
            "range": (1500.0, 3071.0),
            "source": "below the end of a 12-bit scale (3071 HU)",
            "help": "Voxels at or above this are not fitted.",
        },
    )
    widest_mm: float = field(
        default=3.5,
        metadata={
            "unit": "mm",
            "range": (3.0, 4.0),
            "source": "typical lucent zones are 1-3 mm wide",
            "help": "Widths are looked for up to this.",
        },
    )
    step_mm: float = field(
        default=0.25,
        metadata={
            "unit": "mm",
            "range": (0.05, 0.5),
            "source": "engineering choice: a third of the usual blur",
            "help": "Step of the search for the width.",
        },
    )
    body_part: float = field(
        default=0.55,
        metadata={
            "unit": "part of the length",
            "range": (0.3, 0.8),
            "source": "engineering choice: pedicle and canal end about half way",
            "help": "From this depth on the shared part of the model is fitted first.",
        },
    )
    cell_mm: float = field(
        default=4.0,
        metadata={
            "unit": "mm",
            "range": (2.0, 10.0),
            "source": "engineering choice: a few hundred voxels a piece",
            "help": "Length of a piece of the unrolled surface.",
        },
    )
    sectors: int = field(
        default=12,
        metadata={
            "unit": "",
            "range": (6, 36),
            "source": "engineering choice: 30°",
            "help": "Pieces around the circumference.",
        },
    )
    end_margin_mm: tuple[float, float] = field(
        default=(1.5, 5.5),
        metadata={
            "unit": "mm",
            "range": (0.0, 10.0),
            "source": "tips taper over about 5 mm, tulips blur over 1-2 mm",
            "help": "Left out at the head and at the tip.",
        },
    )
    halo_hu: tuple[float, float] = field(
        default=(0.0, 50.0),
        metadata={
            "unit": "HU",
            "range": (-50.0, 100.0),
            "source": "fibrous tissue 30-50 HU, fluid 0-20 HU",
            "help": "Bounds of what fills the zone.",
        },
    )
    halo_sd_hu: float = field(
        default=12.0,
        metadata={
            "unit": "HU",
            "range": (2.0, 50.0),
            "source": "engineering choice",
            "help": "Standard deviation of the prior between those bounds.",
        },
    )
    bone_sd_hu: tuple[float, float, float] = field(
        default=(50.0, 30.0, 20.0),
        metadata={
            "unit": "HU",
            "range": (1.0, 500.0),
            "source": "engineering choice: texture of 15 %; with twice as much, bone's slope swallows true zones",
            "help": "How a piece's bone may differ: level, slope and bend with the distance.",
        },
    )
    bone_mean_sd_hu: float = field(
        default=40.0,
        metadata={
            "unit": "HU",
            "range": (5.0, 300.0),
            "source": "engineering choice: as far as the first look may be wrong",
            "help": "How far the mean of bone may be from what the outer rings show.",
        },
    )
    cortex_sd_hu: float = field(
        default=500.0,
        metadata={
            "unit": "HU",
            "range": (100.0, 1500.0),
            "source": "blurred cortex reads 460-600 HU",
            "help": "How much brighter than bone cortex may be.",
        },
    )
    cortex_mm: tuple[float, float] = field(
        default=(0.8, 2.4),
        metadata={
            "unit": "mm",
            "range": (0.0, 4.5),
            "source": "phantoms: nearer than the one there is no room for a zone; up to the other its blur hides one",
            "help": "Pieces with cortex between these distances from the thread are not judged.",
        },
    )
    left_hu: float = field(
        default=30.0,
        metadata={
            "unit": "HU",
            "range": (0.0, 200.0),
            "source": "phantoms: pieces beside fixed screws are off by 30-60 HU 1.1 mm outside the thread",
            "help": "What the hardening basis leaves, standard deviation at `left_at_mm`.",
        },
    )
    left_at_mm: float = field(
        default=1.15,
        metadata={
            "unit": "mm",
            "range": (0.4, 4.0),
            "source": "where it was measured",
            "help": "Distance from the thread at which `left_hu` holds.",
        },
    )
    left_fall_mm: float = field(
        default=1.0,
        metadata={
            "unit": "mm",
            "range": (0.2, 5.0),
            "source": "phantoms: half as much 0.5 mm farther out",
            "help": "Distance over which it falls to a third.",
        },
    )
    rim_mm: float = field(
        default=0.8,
        metadata={
            "unit": "mm",
            "range": (0.3, 2.0),
            "source": "sclerotic rims are 0.5-1 mm wide",
            "help": "Width of a rim.",
        },
    )
    rim_from_mm: float = field(
        default=0.8,
        metadata={
            "unit": "mm",
            "range": (0.0, 2.0),
            "source": "engineering choice: without a zone a rim would be taken for bone beside a dark rim",
            "help": "A rim is looked for around zones at least so wide.",
        },
    )
    thread_mm: float = field(
        default=0.7,
        metadata={
            "unit": "mm",
            "range": (0.0, 1.5),
            "source": "thread depth 0.6-1.0 mm",
            "help": "Depth of the thread.",
        },
    )
    edge_mm: float = field(
        default=0.04,
        metadata={
            "unit": "mm",
            "range": (0.01, 0.2),
            "source": "engineering choice: no cylinder fits metal better",
            "help": "Unknown place of the metal's edge, which makes voxels near it count less.",
        },
    )
    metal_clearance_mm: float = field(
        default=2.0,
        metadata={
            "unit": "mm",
            "range": (1.0, 5.0),
            "source": "engineering choice: two and a half times the usual blur",
            "help": "Distance from other metal.",
        },
    )
    most_voxels: int = field(
        default=6000,
        metadata={
            "unit": "",
            "range": (1000, 100000),
            "source": "engineering choice: neighbours err together, so that more add little",
            "help": "Voxels fitted; a fixed random choice where there are more.",
        },
    )
    fewest_voxels: int = field(
        default=300,
        metadata={
            "unit": "",
            "range": (100, 2000),
            "source": "engineering choice",
            "help": "With fewer in the front part nothing is fitted.",
        },
    )
    deflation: float = field(
        default=4.0,
        metadata={
            "unit": "",
            "range": (1.0, 50.0),
            "source": "about as many voxels share one grain of noise",
            "help": "The misfit is divided by this.",
        },
    )
    neighbour: float = field(
        default=0.7,
        metadata={
            "unit": "1/mm",
            "range": (0.0, 10.0),
            "source": "engineering choice: zones are smooth",
            "help": "Weight against different widths of neighbouring pieces.",
        },
    )
    form: float = field(
        default=1.0,
        metadata={
            "unit": "1/mm",
            "range": (0.0, 10.0),
            "source": "engineering choice: zones are cones, halves or even",
            "help": "Weight against widths other than the best simple form's.",
        },
    )
    quantiles: tuple[float, float] = field(
        default=(0.05, 0.95),
        metadata={
            "unit": "part",
            "range": (0.0, 1.0),
            "source": "a 90 % interval",
            "help": "Quantiles of a common change of the widths that bound the interval.",
        },
    )
    together: float = field(
        default=6.0,
        metadata={
            "unit": "",
            "range": (1.0, 20.0),
            "source": "tuning phantoms: so that intervals hold the truth nine times in ten; pieces err together",
            "help": "The misfit is divided by this once more where the whole screw's width is in question.",
        },
    )
    clipped_metal_hu: float = field(
        default=7000.0,
        metadata={
            "unit": "HU",
            "range": (5000.0, 20000.0),
            "source": "titanium reads 6500-7140 HU at 120 kVp",
            "help": "HU of metal where the scale ends below it.",
        },
    )
