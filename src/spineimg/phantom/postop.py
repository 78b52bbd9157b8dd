"""A spine after surgery: where screws and rods go, and the halos around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from spineimg.errors import SpineImgError
from spineimg.geometry import Geometry, unit
from spineimg.phantom.assembly import pedicle_axis
from spineimg.phantom.imaging import Imaging
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
from spineimg.phantom.metalimage import Blur, MetalScene
from spineimg.phantom.parts import Part, Shape, uniform
from spineimg.phantom.projection import Beam, EllipticBody
from spineimg.phantom.spine import SpineSpec, Vertebra
from spineimg.settings import setting

_DOWN_DEG = -6.0
"""Screws run from the pedicle, which is in the upper half, towards the middle of the body."""


@dataclass(frozen=True, slots=True)
class PostopSpec:
    """Screws, rods and the physics they are scanned with. Materials: titanium, cobalt-chrome or steel."""

    screws: tuple[ScrewSpec, ...]
    rods: tuple[RodSpec, ...] = (RodSpec("left"), RodSpec("right"))
    material: str = "titanium"
    beam: Beam = field(default_factory=Beam)
    sharpen: float = setting(0.0, "1", (0, 0.6), "0.2-0.4 strong", "gain of an unsharp mask: a sharp kernel")
    reduction: bool = False
    """Artefact reduction: rays through metal are made up from their neighbours and a soft prior image."""
    trunk_mm: tuple[float, float] = (170.0, 110.0)
    """Half width and half depth of the trunk that the beam crosses."""


@dataclass(frozen=True, eq=False)
class Construct3D:
    """The implants of a `PostopSpec` in the coordinates of a laid-out spine."""

    spec: PostopSpec
    layout: tuple[Vertebra, ...]
    spine: SpineSpec
    bones: tuple[Part, ...]
    """One part a vertebra, named by its level."""

    @cached_property
    def screws(self) -> tuple[PlacedScrew, ...]:
        return with_tulips_turned([self._placed(screw) for screw in self.spec.screws])

    def _placed(self, spec: ScrewSpec) -> PlacedScrew:
        vertebra = next((v for v in self.layout if v.level == spec.level), None)
        if vertebra is None or spec.level[0] == "S":
            raise SpineImgError(f"no screws for {spec.level}: this phantom has no such vertebra")
        size, scale = vertebra.size, self.spine.size
        isthmus, inward = pedicle_axis(vertebra, self.spine, spec.side == "left")
        aside, up = np.radians(spec.aim_deg) + np.radians([0.0, _DOWN_DEG])
        inward = unit(inward + np.array([np.tan(aside), 0.0, np.tan(up)]))
        head = isthmus - inward * (size.canal_depth * scale * 0.75)
        depth = (size.depth * scale * 0.65 + 4) / -inward[1]
        tip = isthmus + inward * depth if spec.length_mm is None else head + inward * spec.length_mm
        diameter = spec.diameter_mm or float(np.clip(round(1.6 * size.pedicle_width * scale) / 2, 4.5, 7.5))
        phase = float(np.random.default_rng([self.spine.seed, 7, len(spec.level), ord(spec.level[-1])]).random())
        at = vertebra.frame.lps
        shaft = Shaft(at(head), at(tip), diameter, spec.thread_mm, spec.pitch_mm, phase)
        return PlacedScrew(spec, shaft, pieces_of(shaft, spec), -shaft.axes[0])

    @cached_property
    def rods(self) -> tuple[PlacedRod, ...]:
        placed = []
        for rod in self.spec.rods:
            seats = [s.seat_lps_mm for s in self.screws if s.spec.side == rod.side]
            if len(seats) > 1:
                placed.append(bent_rod(seats, rod))
        return tuple(placed)

    def bone(self, level: str) -> Part:
        """The vertebra that a screw sits in."""
        return next(part for part in self.bones if part.name == level)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What is painted into the image without metal: rims, lucent zones, and 0 HU where the metal goes."""
        zones = [zone for screw in self.screws for zone in zones_of(screw, self.bone(screw.spec.level))]
        metal = [shape for shapes in self.shapes.values() for shape in shapes]
        return (*zones, Part("metal", metal, uniform(0.0)))

    @cached_property
    def shapes(self) -> dict[str, list[Shape]]:
        """Material -> shapes of it."""
        return metal_of(self.screws, self.rods, self.spec.material)

    def scene(self, imaging: Imaging, geometry: Geometry, seed: int) -> MetalScene:
        """The metal in front of a lattice, with a trunk of water and the vertebrae around it."""
        middle = np.mean([s.shaft.tip_lps_mm for s in self.screws], axis=0) + np.array([0.0, 6.0, 0.0])
        center = middle + np.array([6.0, -24.0, 0.0])
        row, column = geometry.in_plane(center - geometry.origins_lps_mm[0])
        right, down = (v / np.linalg.norm(v) for v in (geometry.column_step_lps_mm, geometry.row_step_lps_mm))

        def at(behind_mm: float) -> tuple[float, float]:
            away = middle + np.array([0.0, behind_mm, 0.0]) - center
            return float(away @ right), float(away @ down)

        wide, deep = self.spec.trunk_mm
        body = EllipticBody(((0.0, 0.0, wide, deep, 0.0), (*at(0.0), 22.0, 16.0, 0.10), (*at(34.0), 24.0, 11.0, 0.12)))
        blur = Blur(imaging.sigma_mm, imaging.thickness_mm, imaging.ramp_mm, imaging.soft_mm)
        where = (float(np.ravel(row)[0]), float(np.ravel(column)[0]))
        return MetalScene(self.shapes, geometry, blur, self.spec.beam, body, where, imaging.noise_sd_hu, seed)
