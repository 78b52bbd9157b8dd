"""Phantoms drawn at random over all the shapes that real spines have, for tests in bulk."""

from __future__ import annotations

import numpy as np

from spineimg.anatomy import order
from spineimg.phantom.imaging import Imaging
from spineimg.phantom.model import Phantom
from spineimg.phantom.spine import DIMENSIONS, Change, SpineSpec

_LEVELS = [level for level in DIMENSIONS if level not in ("T13", "L6")]


def varied_phantom(seed: int, imaging: Imaging | None = None) -> Phantom:
    """A random spine of five to nine covered levels with a neighbour at either end, and a random scanner.

    Bone from as soft as a disc to dense, all sizes and curves, scoliosis up to 25° of tilt, wedges up to 25 %,
    osteophytes, narrow and bridged discs, lesions, an enhanced aorta that may touch the bodies; noise SD 10-30 HU,
    slices 0.6-5 mm. One seed, one phantom; `imaging` replaces the random scanner.
    """
    random = np.random.default_rng([seed, 5])
    levels, cover = _levels(random)
    enhanced = bool(random.random() < 0.3)
    elderly = bool(random.random() < 0.4)
    scoliotic = bool(random.random() < 0.35)
    spine = SpineSpec(
        levels,
        {level: _change(random, elderly) for level in levels},
        seed,
        l1_hu=float(random.uniform(55, 110) if elderly else random.uniform(100, 230)),
        size=float(random.uniform(0.88, 1.1)),
        lordosis=float(random.uniform(0.5, 1.3)),
        kyphosis=float(random.uniform(0.6, 1.6)),
        scoliosis_deg=float(random.uniform(8, 25) * random.choice([-1, 1])) if scoliotic else 0.0,
        rotation_deg=float(random.uniform(-15, 15)) if scoliotic else 0.0,
        variation=float(random.uniform(0.10, 0.15)),
        correlation_mm=float(random.uniform(3, 5)),
        waist=float(random.uniform(0.84, 0.92)),
        aorta_hu=float(random.uniform(130, 320)) if enhanced else 40.0,
        aorta_gap_mm=float(random.choice([0.0, 2.0, 5.0])),
        origin_lps_mm=tuple(random.uniform([-20, -160, -500], [20, -60, 800])),
        disc_hu=float(random.uniform(70, 100)),
    )
    scan = imaging or _imaging(random, enhanced)
    return Phantom(spine, scan, cover=cover, seed=seed, name=f"varied-{seed}")


def _levels(random: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, str]]:
    """Levels of the layout, one more than is covered at both ends, and the covered ones."""
    count = int(random.integers(5, 10))
    names = list(_LEVELS)
    odd = random.random()
    if odd < 0.06:
        names = sorted([*names, "L6"], key=order)
    elif odd < 0.10:
        names = sorted([*names, "T13"], key=order)
    elif odd < 0.13:
        names.remove("T12")
    start = int(random.integers(1, len(names) - count + 1))
    stop = start + count
    levels = names[start - 1 : stop + 1]
    return tuple(levels), (names[start], names[stop - 1])


def _change(random: np.random.Generator, elderly: bool) -> Change:
    rare = 0.12 if elderly else 0.04
    disc = "normal"
    if random.random() < (0.3 if elderly else 0.1):
        disc = str(random.choice(["narrow", "bridged"]))
    return Change(
        wedge=float(random.uniform(0.1, 0.25)) if random.random() < rare else 0.0,
        crush=float(random.uniform(0.05, 0.2)) if random.random() < rare else 0.0,
        osteophyte_mm=float(random.uniform(2, 7)) if random.random() < 3 * rare else 0.0,
        sclerosis_hu=float(random.uniform(80, 250)) if random.random() < rare else 0.0,
        lytic_radius_mm=float(random.uniform(3, 8)) if random.random() < rare / 2 else 0.0,
        island_hu=float(random.uniform(400, 800)) if random.random() < rare / 2 else 0.0,
        disc_below=disc,
    )


def _imaging(random: np.random.Generator, enhanced: bool) -> Imaging:
    spacing, thickness = [(0.6, 0.6), (1.0, 1.25), (1.5, 2.0), (2.0, 2.5), (3.0, 3.0), (4.0, 5.0), (5.0, 5.0)][
        int(random.integers(7))
    ]
    return Imaging(
        size=(224, 224),
        pixel_mm=float(random.uniform(0.5, 0.9)),
        spacing_mm=spacing,
        thickness_mm=thickness,
        psf_fwhm_mm=float(random.uniform(0.7, 1.0)),
        noise_sd_hu=float(random.uniform(10, 30)),
        position=str(random.choice(["HFS", "HFS", "HFS", "FFS", "HFP", "FFP"])),
        tilt_deg=float(random.choice([0.0, 0.0, 0.0, random.uniform(-20, 20)])),
        contrast_agent="IOHEXOL" if enhanced else None,
    )
