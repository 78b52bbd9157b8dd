"""A phantom: a spine, a scanner and a seed; its image and what the image should say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, Geometry
from spineimg.phantom.assembly import (
    bone_parts,
    canal_parts,
    disc_parts,
    rib_parts,
    trabecular,
    vessel_parts,
)
from spineimg.phantom.imaging import Imaging, lattice, noise_slices, quadrature
from spineimg.phantom.metal import MetalSpec, metal_parts
from spineimg.phantom.metalimage import MetalScene, sharpened
from spineimg.phantom.painting import painted, painted_slices
from spineimg.phantom.parts import Part
from spineimg.phantom.postop import Construct3D, PostopSpec
from spineimg.phantom.samples import Field, Planes, Points
from spineimg.phantom.spine import SpineSpec, Vertebra, lay_out, rim_points
from spineimg.phantom.tissue import Trabecular
from spineimg.phantom.torso import Torso, build_torso
from spineimg.rois import Ellipse
from spineimg.volume import Acquisition, ArraySource, CTVolume, HUArray, SeriesInfo, Sharpness

_TORSO_STEP_MM = 3.0
"""Every so far the trunk is drawn; between, it is interpolated. Engineering choice: it hardly changes along z."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How HU become stored values: value = HU - intercept in `bits` unsigned bits."""

    intercept: int = -1024
    bits: int = 12
    clip_high: bool = False
    """Clip above the largest value, as scanners without extended scale do; otherwise such HU are refused."""
    jpeg_ls: bool = False

    @property
    def range_hu(self) -> tuple[int, int]:
        return self.intercept, self.intercept + 2**self.bits - 1


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT. `cover`: the first and last level that must be whole in the image; all when None."""

    spine: SpineSpec
    imaging: Imaging = field(default_factory=Imaging)
    storage: Storage = field(default_factory=Storage)
    cover: tuple[str, str] | None = None
    metal: MetalSpec | PostopSpec | None = None
    seed: int = 0
    name: str = "phantom"

    @cached_property
    def layout(self) -> tuple[Vertebra, ...]:
        """Vertebrae from head to foot, sacral segments last."""
        return lay_out(self.spine)

    @cached_property
    def fillings(self) -> tuple[Trabecular, ...]:
        return tuple(trabecular(self.spine, v, i) for i, v in enumerate(self.layout))

    def vertebra(self, level: str) -> Vertebra:
        """One vertebra by name. Raises SpineImgError when the phantom has none."""
        for vertebra in self.layout:
            if vertebra.level == level:
                return vertebra
        raise SpineImgError(f"this phantom has no {level}: it has {', '.join(v.level for v in self.layout)}")

    def filling(self, level: str) -> Trabecular:
        """The trabecular bone of one vertebra."""
        return self.fillings[self.layout.index(self.vertebra(level))]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What is painted with the full scanner model, back to front."""
        soft = (*vessel_parts(self.layout, self.spine), *disc_parts(self.layout, self.spine))
        metal: tuple[Part, ...] = ()
        if isinstance(self.metal, MetalSpec):
            metal = metal_parts(self.metal, self.layout, self.spine)
        elif self.implants:
            metal = self.implants.parts
        return (*soft, *canal_parts(self.layout, self.spine), *self._bones, *metal)

    @cached_property
    def _bones(self) -> tuple[Part, ...]:
        return tuple(bone_parts(self.layout, self.fillings, self.spine))

    @cached_property
    def implants(self) -> Construct3D | None:
        """Screws, rods and halos in place, when there are any with physics."""
        if not isinstance(self.metal, PostopSpec):
            return None
        return Construct3D(self.metal, self.layout, self.spine, self._bones)

    @cached_property
    def metal_scene(self) -> MetalScene | None:
        """What the metal adds to the image."""
        return self.implants.scene(self.imaging, self.geometry, self.seed) if self.implants else None

    @cached_property
    def torso(self) -> Torso:
        supine = self.imaging.position.endswith("S")
        return build_torso(self.layout, rib_parts(self.layout), supine, self.spine.seed, self.spine.aorta_hu > 90)

    @cached_property
    def geometry(self) -> Geometry:
        """The lattice of the image, slices ascending along their normal."""
        first, last = self.cover or (self.spine.levels[0], self.spine.levels[-1])
        names = [v.level for v in self.layout]
        chosen = self.layout[names.index(first) : names.index(last) + 1]
        rims = np.concatenate([rim_points(v.body, end) for v in chosen for end in (True, False)])
        middle = np.mean([v.frame.center_lps_mm for v in chosen], axis=0)
        return lattice(self.imaging, middle, rims)

    # -- image ------------------------------------------------------------------------------------------------------

    def slices(self, noise: bool = True) -> Iterator[Field]:
        """(rows, columns) HU, float32, one slice after the other, not rounded or clipped."""
        outside = self._outside_circle()
        noises = noise_slices(self.imaging, self.geometry, self.seed) if noise and self.imaging.noise_sd_hu else None
        added = self.metal_scene.projections(noise) if self.metal_scene else None
        for trunk, spine in zip(self._trunks(), painted_slices(self.parts, self.imaging, self.geometry), strict=True):
            hu = trunk
            if spine is not None:
                block, alpha, weighted = spine
                hu[block] = hu[block] * (1 - alpha) + weighted
            if noises is not None:
                hu += next(noises)
            if added is not None:
                hu = self._with_metal(hu, next(added))
            hu[outside] = self.storage.intercept
            yield hu

    def _with_metal(self, hu: Field, projections_mm: Field | None) -> Field:
        """A slice with what the metal adds, and the sharpness of the kernel."""
        assert isinstance(self.metal, PostopSpec)
        assert self.metal_scene is not None
        if projections_mm is not None:
            hu = self.metal_scene.image(hu, projections_mm, self.metal.reduction)
        _, row_mm, column_mm = self.geometry.spacing_mm
        return sharpened(hu, self.metal.sharpen, (row_mm, column_mm)) if self.metal.sharpen else hu

    def _outside_circle(self) -> npt.NDArray[np.bool_]:
        """(rows, columns) true where the scanner blanks the image."""
        _, rows, columns = self.geometry.shape
        if not self.imaging.circle:
            return np.zeros((rows, columns), bool)
        row = (np.arange(rows) - (rows - 1) / 2)[:, None] * self.geometry.spacing_mm[1]
        column = (np.arange(columns) - (columns - 1) / 2) * self.geometry.spacing_mm[2]
        half = min(rows * self.geometry.spacing_mm[1], columns * self.geometry.spacing_mm[2]) / 2
        return np.asarray(np.hypot(row, column) > half)

    def _trunks(self) -> Iterator[Field]:
        """(rows, columns) HU of everything but the spine."""
        geometry, soft = self.geometry, self.imaging.far_soft_mm
        every = max(1, round(_TORSO_STEP_MM / geometry.spacing_mm[0])) if geometry.shape[0] > 1 else 1
        knots = [*range(0, geometry.shape[0] - 1, every), geometry.shape[0] - 1]
        before = self.torso.hu(self._plane(0), soft)
        for first, last in zip(knots, [*knots[1:], knots[-1] + 1], strict=True):
            after = self.torso.hu(self._plane(last), soft) if last < geometry.shape[0] else before
            for k in range(first, last):
                part = np.float32((k - first) / (last - first))
                mixed = before * (1 - part) + after * part
                yield self.torso.with_ribs(mixed, self._plane(k), soft)[0]
            before = after

    def _plane(self, k: int) -> Planes:
        g = self.geometry
        return Planes(g.origins_lps_mm[k : k + 1], g.row_step_lps_mm, g.column_step_lps_mm, (g.shape[1], g.shape[2]))

    def hu(self, noise: bool = True) -> Field:
        """(slices, rows, columns) HU, float32, not rounded or clipped."""
        return np.stack(list(self.slices(noise)))

    def stored_hu(self, slice_hu: Field) -> npt.NDArray[np.int32]:
        """HU as the storage can hold them. Air below the intercept is clipped, as scanners do.

        Raises SpineImgError for HU above the largest value unless the storage clips there.
        """
        low, high = self.storage.range_hu
        rounded = np.rint(slice_hu).astype(np.int32)
        top = int(rounded.max())
        if top > high and not self.storage.clip_high:
            raise SpineImgError(
                f"{top} HU do not fit into {self.storage.bits} bits with intercept {self.storage.intercept} "
                f"(at most {high} HU): use the extended scale or a recipe that clips"
            )
        return np.clip(rounded, low, high)

    def volume(self, noise: bool = True) -> CTVolume:
        """The image in memory as a reader would see it, int16 HU where they fit."""
        stored = [self.stored_hu(hu) for hu in self.slices(noise)]
        small = max(int(hu.max()) for hu in stored) <= np.iinfo(np.int16).max
        pixels: HUArray = np.stack(stored).astype(np.int16) if small else np.stack(stored).astype(np.float32)
        return CTVolume(self.geometry, ArraySource(pixels), self.acquisition, SeriesInfo(description=self.name))

    @property
    def acquisition(self) -> Acquisition:
        imaging = self.imaging
        return Acquisition(
            kvp=imaging.kvp,
            contrast=imaging.contrast_agent is not None,
            contrast_agent=imaging.contrast_agent,
            kernel=imaging.kernel,
            sharpness=Sharpness.SHARP if isinstance(self.metal, PostopSpec) and self.metal.sharpen else Sharpness.SOFT,
            slice_thickness_mm=imaging.thickness_mm,
            manufacturer="spineimg",
            metal_artifact_reduction=imaging.metal_artifact_reduction or None,
            patient_position=imaging.position,
        )

    # -- truth ------------------------------------------------------------------------------------------------------

    def blurred_hu(self, points_lps_mm: FloatArray) -> npt.NDArray[np.float64]:
        """(n,) noise-free HU that the scanner would give at points (n, 3): after blur and slice profile."""
        points = np.atleast_2d(np.asarray(points_lps_mm, dtype=np.float64))
        g = self.geometry
        offsets, weight = quadrature(self.imaging)
        row, column = (step / np.linalg.norm(step) for step in (g.row_step_lps_mm, g.column_step_lps_mm))
        shifts = offsets @ np.stack([row, column, g.normal_lps])
        samples = Points(points)
        soft = self.imaging.far_soft_mm
        trunk = self.torso.with_ribs(self.torso.hu(samples, soft), samples, soft)
        alpha, weighted = np.zeros(len(points)), np.zeros(len(points))
        chunk = max(1, 400_000 // max(1, len(points)))
        for first in range(0, len(shifts), chunk):
            some = shifts[first : first + chunk]
            canvas = painted(self.parts, Points((points + some[:, None]).reshape(-1, 3)), self.imaging.soft_mm)
            portion = weight[first : first + chunk]
            alpha += portion @ canvas.alpha.reshape(len(some), -1).astype(np.float64)
            weighted += portion @ canvas.weighted_hu.reshape(len(some), -1).astype(np.float64)
        return np.asarray(trunk * (1 - alpha) + weighted)

    def true_mean_hu(self, ellipse: Ellipse, step_mm: float = 0.7) -> float:
        """Mean over the ellipse on its plane before noise, after blur and partial volume."""
        return float(self.blurred_hu(ellipse_points(ellipse, step_mm)).mean())

    def tissue_mean_hu(self, level: str, ellipse: Ellipse | None = None, step_mm: float = 0.7) -> float:
        """Mean of the bone's own HU without any blur: over an ellipse, or over the interior of the body."""
        filling = self.filling(level)
        points = Points(ellipse_points(ellipse, step_mm)) if ellipse else filling.interior_points()
        return float(filling(points).mean(dtype=np.float64))

    def region_mean_hu(self, level: str) -> float:
        """Mean over the interior of a body after blur, before noise."""
        return float(self.blurred_hu(self.filling(level).interior_points(2.0).points_lps_mm).mean())


def ellipse_points(ellipse: Ellipse, step_mm: float) -> FloatArray:
    """(n, 3) LPS points of a square grid inside an ellipse."""
    a, b = ellipse.semi_axes_mm
    u, v = (np.arange(-np.floor(h / step_mm), np.floor(h / step_mm) + 1) * step_mm for h in (a, b))
    first, second = np.meshgrid(u, v, indexing="ij")
    inside = np.square(first / a) + np.square(second / b) <= 1
    return np.asarray(
        ellipse.center_lps_mm + first[inside][:, None] * ellipse.u_lps + second[inside][:, None] * ellipse.v_lps
    )
