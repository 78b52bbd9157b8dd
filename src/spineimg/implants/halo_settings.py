"""How the lucent zone is fitted: every default of `halo.fit_halo`."""

from __future__ import annotations

from dataclasses import dataclass

from spineimg.settings import setting


@dataclass(frozen=True, slots=True)
class HaloSettings:
    """How the lucent zone is fitted."""

    near_mm: float = setting(
        0.4,
        "mm",
        (0.2, 1.5),
        "engineering choice: nearer, the metal's edge hides everything",
        "Voxels are fitted from this far outside the outer thread.",
    )
    far_mm: float = setting(
        6.0,
        "mm",
        (3.0, 8.0),
        "phantoms: with 4.5 mm too little bone is seen beyond zones of 2.5-3 mm, and half of them pass for soft bone",
        "Voxels are fitted up to this far outside the outer thread.",
    )
    highest_hu: float = setting(
        3000.0,
        "HU",
        (1500.0, 3071.0),
        "below the end of a 12-bit scale (3071 HU)",
        "Voxels at or above this are not fitted.",
    )
    widest_mm: float = setting(
        3.5, "mm", (3.0, 4.0), "typical lucent zones are 1-3 mm wide", "Widths are looked for up to this."
    )
    step_mm: float = setting(
        0.25, "mm", (0.05, 0.5), "engineering choice: a third of the usual blur", "Step of the search for the width."
    )
    body_part: float = setting(
        0.55,
        "part of the length",
        (0.3, 0.8),
        "engineering choice: pedicle and canal end about half way",
        "From this depth on the shared part of the model is fitted first.",
    )
    cell_mm: float = setting(
        4.0,
        "mm",
        (2.0, 10.0),
        "engineering choice: a few hundred voxels a piece",
        "Length of a piece of the unrolled surface.",
    )
    sectors: int = setting(12, "", (6, 36), "engineering choice: 30°", "Pieces around the circumference.")
    end_margin_mm: tuple[float, float] = setting(
        (1.5, 5.5),
        "mm",
        (0.0, 10.0),
        "tips taper over about 5 mm, tulips blur over 1-2 mm",
        "Left out at the head and at the tip.",
    )
    halo_hu: tuple[float, float] = setting(
        (0.0, 50.0), "HU", (-50.0, 100.0), "fibrous tissue 30-50 HU, fluid 0-20 HU", "Bounds of what fills the zone."
    )
    halo_sd_hu: float = setting(
        12.0, "HU", (2.0, 50.0), "engineering choice", "Standard deviation of the prior between those bounds."
    )
    bone_sd_hu: tuple[float, float, float] = setting(
        (35.0, 20.0, 14.0),
        "HU",
        (1.0, 500.0),
        "engineering choice: texture of 15 %, and some more; with much more, bone's slope swallows true zones",
        "How a piece's bone may differ: level, slope and bend with the distance.",
    )
    bone_mean_sd_hu: float = setting(
        40.0,
        "HU",
        (5.0, 300.0),
        "engineering choice: as far as the first look may be wrong",
        "How far the mean of bone may be from what the outer rings show.",
    )
    cortex_sd_hu: float = setting(
        500.0, "HU", (100.0, 1500.0), "blurred cortex reads 460-600 HU", "How much brighter than bone cortex may be."
    )
    cortex_mm: tuple[float, float] = setting(
        (0.8, 2.4),
        "mm",
        (0.0, 4.5),
        "phantoms: nearer than the one there is no room for a zone; up to the other its blur hides one",
        "Pieces with cortex between these distances from the thread are not judged.",
    )
    left_hu: float = setting(
        30.0,
        "HU",
        (0.0, 200.0),
        "phantoms: pieces beside fixed screws are off by 30-60 HU 1.1 mm outside the thread",
        "What the hardening basis leaves, standard deviation at `left_at_mm`.",
    )
    left_at_mm: float = setting(
        1.15, "mm", (0.4, 4.0), "where it was measured", "Distance from the thread at which `left_hu` holds."
    )
    left_fall_mm: float = setting(
        1.0, "mm", (0.2, 5.0), "phantoms: half as much 0.5 mm farther out", "Distance over which it falls to a third."
    )
    streak_hu: float = setting(
        100.0,
        "HU",
        (0.0, 500.0),
        "phantoms: beside fixed screws pieces in the slice plane are off by up to 200 HU",
        "What streaks in the slice plane add to a piece, zone and bone alike, standard deviation.",
    )
    rim_mm: float = setting(0.8, "mm", (0.3, 2.0), "sclerotic rims are 0.5-1 mm wide", "Width of a rim.")
    thread_mm: float = setting(0.7, "mm", (0.0, 1.5), "thread depth 0.6-1.0 mm", "Depth of the thread.")
    edge_mm: float = setting(
        0.04,
        "mm",
        (0.01, 0.2),
        "engineering choice: no cylinder fits metal better",
        "Unknown place of the metal's edge, which makes voxels near it count less.",
    )
    metal_clearance_mm: float = setting(
        2.0, "mm", (1.0, 5.0), "engineering choice: two and a half times the usual blur", "Distance from other metal."
    )
    most_voxels: int = setting(
        12000,
        "",
        (1000, 100000),
        "phantoms: of half as many, readings of one zone of 2.5 mm in soft bone spread by 0.5 mm with the choice",
        "Voxels fitted; a fixed random choice where there are more.",
    )
    fewest_voxels: int = setting(
        300, "", (100, 2000), "engineering choice", "With fewer in the front part nothing is fitted."
    )
    deflation: float = setting(
        2.0,
        "",
        (1.0, 50.0),
        "phantoms: misfits of pieces scatter as if so many of the chosen voxels shared one grain of noise",
        "The misfit is divided by this.",
    )
    neighbour: float = setting(
        0.7,
        "1/mm",
        (0.0, 10.0),
        "engineering choice: zones are smooth",
        "Weight against different widths of neighbouring pieces.",
    )
    form: float = setting(
        1.0,
        "1/mm",
        (0.0, 10.0),
        "engineering choice: zones are cones, halves or even",
        "Weight against widths other than the best simple form's.",
    )
    quantiles: tuple[float, float] = setting(
        (0.05, 0.95),
        "part",
        (0.0, 1.0),
        "a 90 % interval",
        "Quantiles of a common change of the widths that bound the interval.",
    )
    together: float = setting(
        1.5,
        "",
        (1.0, 20.0),
        "tuning phantoms: so that intervals hold the truth nine times in ten; pieces err together",
        "The misfit is divided by this once more where the whole screw's width is in question.",
    )
    clipped_metal_hu: float = setting(
        7000.0,
        "HU",
        (5000.0, 20000.0),
        "titanium reads 6500-7140 HU at 120 kVp",
        "HU of metal where the scale ends below it.",
    )
