"""Screws, rods and halos put into a real CT, through the same projection as the phantom's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, Geometry
from spineimg.phantom.imaging import Imaging
from spineimg.phantom.implant_truth import BoneTest, rod_json, screw_json
from spineimg.phantom.implants import (
    PlacedRod,
    PlacedScrew,
    RodSpec,
    ScrewSpec,
    Shaft,
    bent_rod,
    metal_of,
    pieces_of,
    with_tulips_turned,
    zones_of,
)
from spineimg.phantom.metalimage import Blur, MetalScene, sharpened
from spineimg.phantom.painting import Painted, painted_slices
from spineimg.phantom.parts import Part, uniform
from spineimg.phantom.projection import Beam, EllipticBody
from spineimg.phantom.samples import Field, Mask
from spineimg.settings import setting
from spineimg.volume import ArraySource, CTVolume

_BODY_HU = -300.0
_RESIDUE_HU = 60.0
"""Most of a voxel's own noise and texture that a lucent zone keeps."""


@dataclass(frozen=True, slots=True)
class HybridScrew:
    """A screw in LPS mm; `spec` holds level, side, thread, halo and break (its diameter must be given)."""

    spec: ScrewSpec
    head_lps_mm: tuple[float, float, float]
    tip_lps_mm: tuple[float, float, float]

    def placed(self) -> PlacedScrew:
        """The screw as a shape. Raises SpineImgError without a diameter or with a length below 15 mm."""
        if self.spec.diameter_mm is None:
            raise SpineImgError(f"the screw {self.spec.level} {self.spec.side} has no diameter: give one")
        head, tip = np.asarray(self.head_lps_mm, dtype=np.float64), np.asarray(self.tip_lps_mm, dtype=np.float64)
        shaft = Shaft(head, tip, self.spec.diameter_mm, self.spec.thread_mm, self.spec.pitch_mm)
        if shaft.length_mm < 15:
            raise SpineImgError(f"the screw {self.spec.level} {self.spec.side} is {shaft.length_mm:.1f} mm long")
        return PlacedScrew(self.spec, shaft, pieces_of(shaft, self.spec), -shaft.axes[0])


@dataclass(frozen=True, slots=True)
class HybridSettings:
    """How the metal is scanned; blur and noise should be those of the CT it goes into."""

    beam: Beam = field(default_factory=Beam)
    material: str = "titanium"
    psf_fwhm_mm: float = setting(1.0, "mm", (0.4, 2), "soft kernel 0.7-1.0 mm", "in-plane blur of the CT")
    thickness_mm: float | None = None
    """Slice profile; None: what the header says, else the slice spacing."""
    noise_sd_hu: float = setting(15.0, "HU", (0, 100), "10-30 HU", "noise of the CT, for the dose behind metal")
    bone_hu: float = setting(80.0, "HU", (0, 300), "engineering choice", "from here on tissue around a screw is bone")
    clip_hu: float | None = 3071.0
    """Largest HU that is stored; None for an extended scale."""
    sharpen: float = 0.0
    reduction: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Hybrid:
    """A CT with metal in it, and its truth in the form of `truth.json` (`screws`, `rods`)."""

    volume: CTVolume
    truth: dict[str, Any]


def with_implants(
    volume: CTVolume,
    screws: Sequence[HybridScrew],
    rods: Sequence[RodSpec] = (),
    settings: HybridSettings = HybridSettings(),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Hybrid:
    """Screws, their halos and rods through their tulips, painted and projected into every slice they touch.

    The halo replaces what was there, without regard to where bone ends; `in_bone` of the truth says where there was
    bone. Rods join the screws of their side in the order given, from head to foot. progress: called with (slices
    done, slices). Raises SpineImgError for screws that lie outside the volume.
    """
    placed = with_tulips_turned([screw.placed() for screw in screws])
    for screw in placed:
        _check_inside(volume.geometry, screw)
    lines = [bent_rod([s.seat_lps_mm for s in placed if s.spec.side == rod.side], rod) for rod in rods]
    imaging = _imaging(volume, settings)
    scene = _scene(volume, placed, lines, settings, imaging, seed)
    zones = [zone for screw in placed for zone in zones_of(screw)]
    metal = Part("metal", [shape for shapes in scene.shapes.values() for shape in shapes], uniform(0.0))
    slices = []
    painting = painted_slices([*zones, metal], imaging, volume.geometry)
    projections = scene.projections(settings.noise_sd_hu > 0)
    for k, (paint, added) in enumerate(zip(painting, projections, strict=True)):
        slices.append(_slice(volume, k, paint, added, scene, settings))
        if progress:
            progress(k + 1, volume.geometry.shape[0])
    acquisition = replace(volume.acquisition, metal_artifact_reduction=settings.reduction)
    result = replace(volume, source=ArraySource(np.stack(slices)), acquisition=acquisition)
    is_bone = _bone_test(volume, settings.bone_hu)
    truth = {
        "screws": [screw_json(screw, settings.material, None, is_bone) for screw in placed],
        "rods": [rod_json(rod) for rod in lines],
    }
    return Hybrid(result, truth)


def _slice(
    volume: CTVolume, k: int, paint: Painted | None, added: Field | None, scene: MetalScene, settings: HybridSettings
) -> Field:
    hu = np.array(volume.read(k), dtype=np.float32)
    if paint is not None and paint[1].any():
        block, alpha, weighted = paint
        own = hu[block]
        residue = np.clip(own - _smooth(own), -_RESIDUE_HU, _RESIDUE_HU)
        hu[block] = own * (1 - alpha) + weighted + alpha * residue
    if added is not None:
        hu = scene.image(hu, added, settings.reduction)
        if settings.sharpen:
            _, row_mm, column_mm = volume.geometry.spacing_mm
            hu = sharpened(hu, settings.sharpen, (row_mm, column_mm))
    low = float(np.asarray(volume.read(k)).min())
    return np.rint(np.clip(hu, min(low, -1024.0), settings.clip_hu)).astype(np.float32)


def _smooth(hu: Field) -> Field:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(hu, 1.2, mode="nearest"))


def _check_inside(geometry: Geometry, screw: PlacedScrew) -> None:
    ends = geometry.index_at(np.stack([screw.shaft.head_lps_mm, screw.shaft.tip_lps_mm]))
    if (ends < 0).any() or (ends > np.array(geometry.shape) - 1).any():
        name = f"{screw.spec.level} {screw.spec.side}"
        raise SpineImgError(f"the screw {name} lies outside the volume: give head and tip in LPS mm")


def _imaging(volume: CTVolume, settings: HybridSettings) -> Imaging:
    """The scanner as the painting asks for it: only blur and spacing count."""
    spacing = float(volume.geometry.spacing_mm[0])
    thickness = settings.thickness_mm or volume.acquisition.slice_thickness_mm or spacing
    return Imaging(
        pixel_mm=float(volume.geometry.spacing_mm[2]),
        row_mm=float(volume.geometry.spacing_mm[1]),
        spacing_mm=spacing,
        thickness_mm=thickness,
        ramp_mm=min(0.3, thickness),
        psf_fwhm_mm=settings.psf_fwhm_mm,
        noise_sd_hu=settings.noise_sd_hu,
    )


def _scene(
    volume: CTVolume,
    screws: Sequence[PlacedScrew],
    rods: Sequence[PlacedRod],
    settings: HybridSettings,
    imaging: Imaging,
    seed: int,
) -> MetalScene:
    geometry = volume.geometry
    middle = np.mean([(s.shaft.head_lps_mm + s.shaft.tip_lps_mm) / 2 for s in screws], axis=0)
    k, _ = geometry.nearest_slice(middle)
    row, column, deep, wide = _trunk(volume, k)
    spine = geometry.index_at(middle)
    x, y = (float(spine[2]) - column) * geometry.spacing_mm[2], (float(spine[1]) - row) * geometry.spacing_mm[1]
    body = EllipticBody(((0.0, 0.0, wide, deep, 0.0), (float(x), float(y), 24.0, 28.0, 0.08)))
    blur = Blur(imaging.sigma_mm, imaging.thickness_mm, imaging.ramp_mm, imaging.soft_mm)
    shapes = metal_of(screws, rods, settings.material)
    return MetalScene(shapes, geometry, blur, settings.beam, body, (row, column), settings.noise_sd_hu, seed)


def _trunk(volume: CTVolume, k: int) -> tuple[float, float, float, float]:
    """Middle (row, column), half depth and half width (mm) of the ellipse with the moments of the trunk in slice k."""
    rows, columns = np.nonzero(np.asarray(volume.read(k), dtype=np.float32) > _BODY_HU)
    if len(rows) < 100:
        raise SpineImgError("there is no body around the screws: nothing above -300 HU in their slice")
    _, row_mm, column_mm = volume.geometry.spacing_mm
    half = (2 * float(rows.std()) * row_mm, 2 * float(columns.std()) * column_mm)
    return float(rows.mean()), float(columns.mean()), half[0], half[1]


def _bone_test(volume: CTVolume, bone_hu: float) -> BoneTest:
    """Whether the CT, smoothed over 3 x 3 voxels in the plane, was bone at points."""
    from scipy.ndimage import uniform_filter

    kept: dict[int, Field] = {}

    def test(points_lps_mm: FloatArray) -> Mask:
        index = np.rint(volume.geometry.index_at(points_lps_mm)).astype(int)
        index = np.clip(index, 0, np.array(volume.geometry.shape) - 1)
        hu = np.empty(len(index), np.float32)
        for k in np.unique(index[:, 0]):
            if k not in kept:
                kept[int(k)] = uniform_filter(np.asarray(volume.read(int(k)), dtype=np.float32), 3)
            here = index[:, 0] == k
            hu[here] = kept[int(k)][index[here, 1], index[here, 2]]
        return np.asarray(hu > bone_hu)

    return test
