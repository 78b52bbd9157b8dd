"""From a layout to painted parts: discs, canal, vessels, vertebrae with their arches, ribs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, unit
from spineimg.phantom.parts import Between, Outline, Part, Shape, Strut, uniform
from spineimg.phantom.samples import Field, Frame, Samples
from spineimg.phantom.spine import SpineSpec, Vertebra, rim_plane, rim_points
from spineimg.phantom.tissue import Band, Spot, Trabecular, Vein, texture, texture_grid

_SHELL_HU = 1300.0
"""Intrinsic HU of cortex (1200-1500). It is thinner than the blur, so images show less."""
_ARCH_SHELL_MM = 0.8
_RIB_SHELL_MM = 0.6
_SAC_HU, _CORD_HU, _EPIDURAL_HU = 20.0, 38.0, -20.0
_LIGAMENT_HU = 60.0


def trabecular(spec: SpineSpec, vertebra: Vertebra, number: int) -> Trabecular:
    """The filling of one vertebra, planted so that its interior mean is exact."""
    random = np.random.default_rng([spec.seed, 2, number])
    body, change, size = vertebra.body, vertebra.change, vertebra.size
    usual = spec.l1_hu * size.relative_hu * (1 + 0.03 * random.standard_normal())
    mean = usual if change.hu is None else change.hu
    wall = vertebra.wall_posterior_mm * spec.waist
    enhanced = spec.aorta_hu > 90
    vein = Vein(0.1 * wall, wall + 1, hu=mean if enhanced else 20.0) if spec.vein and vertebra.level[0] != "S" else None
    bands = (Band("sclerosis", 4.0, change.sclerosis_hu),) if change.sclerosis_hu else ()
    if change.wedge or change.crush:
        bands = (*bands, Band("impaction", 2.5, 80.0, inferior=False))
    filling = Trabecular(
        body,
        mean,
        texture_grid(spec.correlation_mm, spec.seed),
        tuple(random.uniform(0, 48, 3)),
        spec.variation,
        0.05,
        random.uniform(-0.04, 0.04),
        vertebra.wall_posterior_mm - 1,
        1.3 * mean + 40,
        vein,
        _spots(vertebra, random),
        bands,
    )
    return filling.planted()


def _spots(vertebra: Vertebra, random: np.random.Generator) -> tuple[Spot, ...]:
    width, depth = vertebra.size.width, vertebra.size.depth
    side = random.choice([-1.0, 1.0])
    spots = []
    if vertebra.change.lytic_radius_mm:
        at = (side * width * 0.2, -depth * 0.12, random.uniform(-2, 2))
        spots.append(Spot("lytic", at, vertebra.change.lytic_radius_mm, 45.0))
    if vertebra.change.island_hu:
        at = (-side * width * 0.26, -depth * 0.1, random.uniform(-3, 3))
        spots.append(Spot("island", at, 3.0, vertebra.change.island_hu))
    return tuple(spots)


@dataclass(frozen=True, eq=False)
class _Builder:
    """Struts in a vertebra's own coordinates, mirrored to both sides."""

    frame: Frame
    shell_mm: float = _ARCH_SHELL_MM

    def strut(
        self,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        half_mm: tuple[float, float],
        side: npt.ArrayLike = (1, 0, 0),
        end_scale: float = 1.0,
    ) -> Strut:
        across = np.asarray(side, dtype=np.float64) @ self.frame.axes
        return Strut(self.frame.lps(start), self.frame.lps(end), across, half_mm, self.shell_mm, end_scale)

    def pair(
        self,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        half_mm: tuple[float, float],
        side: npt.ArrayLike = (1, 0, 0),
        end_scale: float = 1.0,
    ) -> list[Strut]:
        mirror = np.array([-1.0, 1.0, 1.0])
        others = (mirror * np.asarray(local, dtype=np.float64) for local in (start, end, side))
        other_start, other_end, other_side = others
        other = self.strut(other_start, other_end, half_mm, other_side, end_scale)
        return [self.strut(start, end, half_mm, side, end_scale), other]


def pedicle_axis(vertebra: Vertebra, spec: SpineSpec, left: bool) -> tuple[FloatArray, FloatArray]:
    """Local mm: the isthmus (narrowest place) of a pedicle and the unit direction into the body."""
    size, scale = vertebra.size, spec.size
    across = (size.canal_width / 2 + size.pedicle_width / 2) * scale
    up = vertebra.body.half_height_mm - size.pedicle_height * scale / 2 - 0.5 * scale
    angle = np.radians(size.pedicle_angle_deg)
    side = 1.0 if left else -1.0
    at = np.array([side * across, vertebra.wall_posterior_mm + 4 * scale, up])
    return at, np.array([-side * np.sin(angle), -np.cos(angle), 0.0])


def arch(vertebra: Vertebra, spec: SpineSpec) -> list[Shape]:
    """Pedicles, articular processes, laminae, transverse and spinous process."""
    size, scale, high = vertebra.size, spec.size, vertebra.body.half_height_mm
    build = _Builder(vertebra.frame)
    lumbar = vertebra.level[0] == "L"
    isthmus, inward = pedicle_axis(vertebra, spec, left=True)
    half = (size.pedicle_width * scale / 2, size.pedicle_height * scale / 2)
    shapes: list[Shape] = [*build.pair(isthmus + 10 * inward, isthmus - 6 * inward, half)]
    rim, depth = vertebra.wall_posterior_mm, size.canal_depth * scale
    across, up = isthmus[0], isthmus[2]
    roof = rim + depth
    below = size.disc_below * scale
    superior_top = high + below * 0.5 + 3
    shapes += build.pair(
        (across + 1.5, rim + 0.5 * depth + 4, superior_top), (across + 1, rim + 0.6 * depth + 3, up - 5), (4.5, 3.5)
    )
    shapes += build.pair(
        (across - 2.5, roof + 2.5, up - 5), (across - 3.5, roof + 3.5, -high - below * 0.8 - 3), (4.0, 3.4)
    )
    shapes += build.pair(
        (across - 1, rim + 0.7 * depth + 3, up - 4),
        (0, roof + 4.5, -0.3 * high - 3),
        (3.0, 0.75 * high),
        side=(0.55, 0.83, 0),
    )
    if lumbar:
        shapes.append(build.strut((0, roof + 4, -0.4 * high - 2), (0, roof + 27 * scale, -0.5 * high - 2), (3.2, 6.8)))
        tip = (size.width * scale / 2 + 17, rim + 11, up - 1)
        shapes += build.pair((across + 2, rim + 7, up - 1), tip, (2.8, 4.6), side=(0, 1, 0), end_scale=0.8)
    else:
        steep = 26 if vertebra.level in ("T5", "T6", "T7", "T8", "T9") else 14
        shapes.append(
            build.strut(
                (0, roof + 4, -0.4 * high), (0, roof + 28 * scale, -high - steep + 6), (2.8, 5.0), end_scale=0.8
            )
        )
        length = 8 if vertebra.level in ("T11", "T12", "T13") else 17
        tip = (across + length, rim + 12 + length * 0.75, up + 1)
        shapes += build.pair((across + 2, rim + 12, up), tip, (4.5, 5.0), side=(0, 1, 0), end_scale=0.9)
    return shapes


def _sacral_wings(vertebra: Vertebra, spec: SpineSpec) -> list[Shape]:
    """Alae, roof of the canal and median crest of a sacral segment."""
    build = _Builder(vertebra.frame)
    size, scale = vertebra.size, spec.size
    wide, rim, high = size.width * scale / 2, vertebra.wall_posterior_mm, vertebra.body.half_height_mm
    shapes: list[Shape] = [
        *build.pair(
            (wide - 9, 2, high * 0.2), (wide + 18, rim - 2, -high * 0.3), (12 * size.depth / 33, high * 0.95), (0, 1, 0)
        )
    ]
    shapes += build.pair((wide - 8, rim + 4, 0), (0, rim + 18, -3), (3.0, high), side=(0.5, 0.85, 0))
    shapes += build.pair((wide - 4, rim - 4, 0), (wide - 8, rim + 6, 0), (6.0, high * 0.6))
    shapes.append(build.strut((0, rim + 18, 0), (0, rim + 26, -6), (3.0, high * 0.7)))
    return shapes


def bone_parts(layout: Sequence[Vertebra], fillings: Sequence[Trabecular], spec: SpineSpec) -> list[Part]:
    """One part a vertebra: body and arch, with the shell around both."""
    parts = []
    for vertebra, filling in zip(layout, fillings, strict=True):
        extra = _sacral_wings(vertebra, spec) if vertebra.level[0] == "S" else arch(vertebra, spec)
        parts.append(Part(vertebra.level, [vertebra.body, *extra], filling, _SHELL_HU))
    return parts


def disc_parts(layout: Sequence[Vertebra], spec: SpineSpec) -> list[Part]:
    """Discs, and bone across the front of bridged ones."""
    parts = []
    for upper, lower in pairwise(layout):
        parts.append(_disc(upper, lower, spec))
        if upper.change.disc_below == "bridged":
            parts.append(_bridge(upper, lower))
    return parts


def _disc(upper: Vertebra, lower: Vertebra, spec: SpineSpec) -> Part:
    floor, down = rim_plane(upper.body, superior=False)
    top, up = rim_plane(lower.body, superior=True)
    cranial = unit(upper.frame.cranial_lps + lower.frame.cranial_lps)
    posterior = upper.frame.posterior_lps
    posterior = unit(posterior - (posterior @ cranial) * cranial)
    frame = Frame((floor + top) / 2, np.cross(posterior, cranial), posterior, cranial)
    radius = 0.47 * (upper.body.outline.radius_mm + lower.body.outline.radius_mm)
    outline = Outline.from_radius(radius.astype(np.float64))
    # The disc reaches a little into the bodies, which are painted over it: no gap opens under a hollow endplate.
    above = (floor - (upper.body.inferior.concavity_mm + 1) * down, -down)
    below = (top - (lower.body.superior.concavity_mm + 1) * up, -up)
    shape = Between(frame, outline, above, below, 14.0)
    grid = texture_grid(spec.correlation_mm, spec.seed)

    def fill(points: Samples) -> Field:
        left, posterior_, cranial_ = frame.local(points)
        distance, edge, _ = outline.polar(left, posterior_)
        ring = np.square(np.square(distance / edge))
        speckle = texture(grid, left, posterior_, cranial_)
        return np.asarray(spec.disc_hu - 8 + 20 * ring + 4 * speckle, dtype=np.float32)

    return Part(f"disc below {upper.level}", [shape], fill)


def _bridge(upper: Vertebra, lower: Vertebra) -> Part:
    """Syndesmophytes: bone struts from rim to rim along the front."""
    from_points = rim_points(upper.body, superior=False, scale=0.97)
    to_points = rim_points(lower.body, superior=True, scale=0.97)
    shapes: list[Shape] = []
    for i in range(8, 25, 3):
        start, end = from_points[i], to_points[i]
        reach = 2.0 * upper.frame.cranial_lps
        shapes.append(Strut(start + reach, end - reach, upper.frame.left_lps, (3.2, 2.2), 0.6))
    return Part(f"bridge below {upper.level}", shapes, uniform(250.0), _SHELL_HU)


def canal_center(vertebra: Vertebra, spec: SpineSpec) -> FloatArray:
    """(3,) LPS middle of the canal at a vertebra."""
    back = vertebra.wall_posterior_mm + vertebra.size.canal_depth * spec.size / 2
    return vertebra.frame.lps([0, back, 0])


def canal_parts(layout: Sequence[Vertebra], spec: SpineSpec) -> list[Part]:
    """Epidural fat, dural sac and, above L2, the cord; the ligaments behind close the canal between the arches."""
    tubes: dict[str, list[Shape]] = {"ligament": [], "epidural": [], "sac": [], "cord": []}
    for upper, lower in pairwise(layout):
        size, side = upper.size, upper.frame.left_lps
        ends = canal_center(upper, spec), canal_center(lower, spec)
        wide, deep = size.canal_width * spec.size / 2, size.canal_depth * spec.size / 2
        behind = 2.5 * upper.frame.posterior_lps
        tubes["ligament"].append(Strut(ends[0] + behind, ends[1] + behind, side, (wide + 1, deep + 2)))
        tubes["epidural"].append(Strut(*ends, side, (wide, deep)))
        tubes["sac"].append(Strut(*ends, side, (wide * 0.8, deep * 0.8)))
        if upper.level[0] == "T":
            tubes["cord"].append(Strut(*ends, side, (4.6, 3.6)))
    fills = {"ligament": _LIGAMENT_HU, "epidural": _EPIDURAL_HU, "sac": _SAC_HU, "cord": _CORD_HU}
    return [Part(name, shapes, uniform(fills[name])) for name, shapes in tubes.items() if shapes]


def vessel_parts(layout: Sequence[Vertebra], spec: SpineSpec) -> list[Part]:
    """Aorta on the left in front of the spine, from the side in the thorax; vena cava on the right."""
    aorta: list[FloatArray] = []
    cava: list[FloatArray] = []
    for vertebra in layout:
        if vertebra.level in ("S2", "S3"):
            continue
        aside = {"T": 58.0, "L": 14.0, "S": 12.0}[vertebra.level[0]]
        if vertebra.level in ("T10", "T11", "T12", "T13"):
            aside = {"T10": 48.0, "T11": 38.0, "T12": 28.0, "T13": 22.0}[vertebra.level]
        aorta.append(_beside(vertebra, aside, 11.5, spec.aorta_gap_mm))
        if vertebra.level[0] in "LS":
            cava.append(_beside(vertebra, -24.0, 10.5, 2.0))
    parts = [Part("aorta", _tube(aorta, (11.5, 11.5)), uniform(spec.aorta_hu))]
    if len(cava) > 1:
        hu = 40.0 if spec.aorta_hu <= 90 else min(spec.aorta_hu, 130.0)
        parts.append(Part("vena cava", _tube(cava, (12.0, 9.0)), uniform(hu)))
    return [part for part in parts if part.shapes]


def _beside(vertebra: Vertebra, aside_deg: float, radius_mm: float, gap_mm: float) -> FloatArray:
    """LPS centre of a vessel that lies on the body's wall, `aside_deg` from the front towards the left."""
    turn = np.radians(aside_deg)
    outline = vertebra.body.outline
    index = int((np.arctan2(-np.cos(turn), np.sin(turn)) + np.pi) / (2 * np.pi) * len(outline.radius_mm))
    away = float(outline.radius_mm[index]) + radius_mm + gap_mm
    return vertebra.frame.lps([away * np.sin(turn), -away * np.cos(turn), 0.0])


def _tube(points: Sequence[FloatArray], half_mm: tuple[float, float]) -> list[Shape]:
    across = np.array([1.0, 0.0, 0.0])
    return [Strut(a, b, across, half_mm) for a, b in pairwise(points)]


def rib_parts(layout: Sequence[Vertebra]) -> list[Part]:
    """Ribs of the thoracic levels, from the body's corner past the transverse process around the chest."""
    parts = []
    for vertebra in layout:
        if vertebra.level[0] != "T":
            continue
        number = int(vertebra.level[1:])
        narrow = {1: 0.5, 2: 0.68, 3: 0.82}.get(number, 1.0)
        last_deg = 55 if number > 11 else 80 if number == 11 else 150
        shapes: list[Shape] = []
        for side in (1.0, -1.0):
            path = _rib_path(vertebra, side, narrow, last_deg)
            up = np.array([0.0, 0.0, 1.0])
            shapes += [Strut(a, b, up, (5.5, 3.4), _RIB_SHELL_MM) for a, b in pairwise(path)]
        parts.append(Part(f"ribs {vertebra.level}", shapes, uniform(180.0), 1100.0))
    return parts


def _rib_path(vertebra: Vertebra, side: float, narrow: float, last_deg: float) -> list[FloatArray]:
    rim, high = vertebra.wall_posterior_mm, vertebra.body.half_height_mm
    head = vertebra.frame.lps([side * (vertebra.size.width * 0.45 + 4), rim - 3, high * 0.7])
    neck = vertebra.frame.lps([side * (vertebra.size.width * 0.45 + 15), rim + 13, high * 0.5])
    center = vertebra.frame.center_lps_mm + np.array([0.0, -45.0, 0.0])
    path = [head, neck]
    for angle in np.arange(28, last_deg + 1, 10.0):
        turn = np.radians(angle)
        around = [side * 122 * narrow * np.sin(turn), 88 * narrow * np.cos(turn), high * 0.3 - 0.55 * (angle - 28)]
        path.append(center + around)
    return path
