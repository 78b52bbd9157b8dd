"""Post-operative phantoms drawn at random over implants, bone, halos, scanners and physics, for tests in bulk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spineimg.phantom.imaging import Imaging
from spineimg.phantom.implants import HaloForm, Lucency, RodSpec, ScrewSpec
from spineimg.phantom.model import Phantom, Storage
from spineimg.phantom.postop import PostopSpec
from spineimg.phantom.projection import Beam
from spineimg.phantom.spine import DIMENSIONS, Change, SpineSpec

_LEVELS = [level for level in DIMENSIONS if level not in ("T13", "L6")]
_FORMS: tuple[HaloForm, ...] = ("uniform", "uniform", "tip cone", "head cone", "double cone", "half")
_SLICES = ((0.5, 0.6), (0.6, 0.75), (0.8, 1.0), (1.0, 1.0), (1.0, 1.25), (1.5, 2.0), (2.0, 2.0), (3.0, 3.0))
"""Spacing and thickness, mm."""
_OFTEN = (0.14, 0.14, 0.22, 0.18, 0.10, 0.10, 0.05, 0.07)
_FIELD_MM = 104.0


def varied_postop(seed: int, imaging: Imaging | None = None) -> Phantom:
    """A random instrumented spine of two or three levels with four to six screws, half of them without a halo.

    Bone of 45-230 HU; widths 0.4-3 mm in all forms, some with a rim; threads; titanium, cobalt-chrome and steel; broken
    rods and screws; voxels, slices, blur, noise, kernel, clipping, spectra, geometry, scatter and hardening all vary.
    One seed, one phantom; seeds below 1000 are for tuning, the others for validation. `imaging` replaces the random
    scanner's lattice.
    """
    random = np.random.default_rng([seed, 8])
    count = int(random.choice([2, 3]))
    first = int(random.integers(_LEVELS.index("T9"), _LEVELS.index("L5") - count + 2))
    chosen = _LEVELS[first : first + count]
    levels = tuple(_LEVELS[first - 1 : first + count + 1])
    scoliotic = bool(random.random() < 0.25)
    spine = SpineSpec(
        levels,
        {level: Change(hu=float(random.uniform(45, 230))) for level in levels},
        seed,
        size=float(random.uniform(0.92, 1.08)),
        lordosis=float(random.uniform(0.6, 1.2)),
        kyphosis=float(random.uniform(0.7, 1.4)),
        scoliosis_deg=float(random.uniform(-10, 10)) if scoliotic else 0.0,
        rotation_deg=float(random.uniform(-10, 10)) if scoliotic else 0.0,
        variation=float(random.uniform(0.10, 0.15)),
        correlation_mm=float(random.uniform(3, 5)),
        origin_lps_mm=tuple(random.uniform([-20, -160, -500], [20, -60, 800])),
    )
    kilovolt = str(random.choice(["100 kV", "120 kV", "120 kV", "120 kV hard", "130 kV", "140 kV"]))
    scan = _imaging(random, float(kilovolt.split()[0]))
    sharp = float(random.uniform(0.1, 0.4)) if random.random() < 0.15 else 0.0
    metal = _implants(random, chosen, kilovolt, sharp)
    if sharp:
        scan = replace(scan, kernel="B60f", noise_sd_hu=scan.noise_sd_hu * 1.4)
    if metal.reduction:
        scan = replace(scan, metal_artifact_reduction=True)
    clipped = bool(random.random() < 0.5)
    storage = Storage(clip_high=True) if clipped else Storage(intercept=-8192, bits=16)
    return Phantom(spine, imaging or scan, storage, (chosen[0], chosen[-1]), metal, seed, f"postop-{seed}")


def _imaging(random: np.random.Generator, kvp: float) -> Imaging:
    spacing, thickness = _SLICES[int(random.choice(len(_SLICES), p=_OFTEN))]
    pixel = float(random.choice([0.35, 0.4, 0.45, 0.5, 0.6, 0.7], p=[0.15, 0.25, 0.2, 0.2, 0.1, 0.1]))
    size = 2 * round(_FIELD_MM / pixel / 2)
    return Imaging(
        size=(size, size),
        pixel_mm=pixel,
        spacing_mm=spacing,
        thickness_mm=thickness,
        psf_fwhm_mm=float(random.uniform(0.65, 0.95) if pixel <= 0.5 else random.uniform(0.8, 1.05)),
        noise_sd_hu=float(random.uniform(8, 24)),
        position=str(random.choice(["HFS", "HFS", "HFS", "FFS", "HFP"])),
        tilt_deg=float(random.uniform(-12, 12)) if random.random() < 0.05 else 0.0,
        margin_mm=5.0,
        offset_mm=(0.0, 14.0),
        kvp=kvp,
    )


def _implants(random: np.random.Generator, levels: list[str], kilovolt: str, sharp: float) -> PostopSpec:
    material = str(random.choice(["titanium", "cobalt-chrome", "steel"], p=[0.8, 0.12, 0.08]))
    rods_of = "cobalt-chrome" if material == "titanium" and random.random() < 0.3 else material
    diameter = float(random.choice([5.5, 6.0]))
    rods = []
    for side in ("left", "right"):
        gap = float(random.uniform(1.0, 4.0)) if random.random() < 0.1 else 0.0
        after = int(random.integers(1, len(levels)))
        rods.append(RodSpec(side, diameter, rods_of, gap, after, float(random.uniform(0, 12)) if gap else 0.0))
    thread = float(random.uniform(0.5, 0.9)) if random.random() < 0.9 else 0.0
    pitch = float(random.uniform(2.4, 3.0))
    screws = [_screw(random, level, side, thread, pitch) for level in levels for side in ("left", "right")]
    beam = Beam(
        kilovolt,
        fan=bool(random.random() < 0.5),
        views=int(random.choice([720, 900])),
        scatter=float(random.choice([0.0, random.uniform(0.0, 0.0015 if material == "titanium" else 0.0003)])),
        hardening=float(random.uniform(0.35, 0.85)),
        electronic_sd=float(random.uniform(5, 15)),
    )
    reduced = bool(random.random() < 0.07)
    trunk = (float(random.uniform(145, 190)), float(random.uniform(95, 125)))
    return PostopSpec(tuple(screws), tuple(rods), material, beam, sharp, reduced, trunk)


def _screw(random: np.random.Generator, level: str, side: str, thread: float, pitch: float) -> ScrewSpec:
    broken = bool(random.random() < 0.04)
    return ScrewSpec(
        level,
        side,
        thread_mm=thread,
        pitch_mm=pitch,
        lucency=_lucency(random) if random.random() < 0.5 else Lucency(),
        aim_deg=(float(random.normal(0, 2.5)), float(random.normal(0, 3))),
        gap_mm=float(random.uniform(1, 3)) if broken else 0.0,
        gap_at=float(random.uniform(0.3, 0.6)),
        kink_deg=float(random.uniform(0, 6)) if broken else 0.0,
    )


def _lucency(random: np.random.Generator) -> Lucency:
    part = (0.0, 1.0)
    if random.random() < 0.25:
        start = float(random.uniform(0, 0.5))
        part = (start, start + 0.5)
    return Lucency(
        float(random.choice([0.4, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0])),
        str(random.choice(_FORMS)),  # type: ignore[arg-type]
        part,
        float(random.uniform(0, 360)),
        float(random.uniform(30, 50)),
        float(random.uniform(0.5, 1.0)) if random.random() < 0.3 else 0.0,
        float(random.uniform(400, 600)),
    )
