"""Dimensions of the levels, and how the vertebrae stand on one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from spineimg.anatomy import LEVELS, order, parse_level
from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray, unit
from spineimg.phantom.parts import Body, Endplate, Outline
from spineimg.phantom.samples import Field, Frame
from spineimg.settings import setting


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A level's usual size in mm. width, depth: of the endplates; height: at the rim.

    Bodies after Panjabi (1991, 1992), pedicles after Zindrick (1987); canal and disc are textbook ranges.
    """

    width: float
    depth: float
    height: float
    pedicle_width: float
    pedicle_height: float
    pedicle_angle_deg: float
    canal_width: float
    canal_depth: float
    disc_below: float
    pitch_deg: float
    """Forward lean of the cranial axis in a normal standing curve: kyphosis T4-T12 about 30°, lordosis about 50°."""
    wedge_deg: float
    """How much lower the anterior height is than the posterior one, as an angle; negative in the lower lumbar spine."""
    relative_hu: float
    """Trabecular HU relative to L1: it rises towards the head."""


def _table() -> Mapping[str, Dimensions]:
    rows = {
        "T1": (24.5, 18.5, 14.1, 7.9, 9.9, 33, 21, 16, 4.0, 25, 1, 1.55),
        "T2": (24.9, 19.6, 15.6, 7.0, 12.0, 27, 19, 16, 4.0, 24, 2, 1.45),
        "T3": (24.6, 22.7, 15.7, 5.6, 12.4, 20, 18, 16, 4.0, 22, 2, 1.38),
        "T4": (24.5, 23.3, 16.2, 4.7, 12.1, 16, 17, 16, 4.0, 19, 3, 1.33),
        "T5": (24.9, 24.3, 16.2, 4.5, 11.9, 14, 17, 16, 4.2, 15, 3, 1.29),
        "T6": (26.2, 26.0, 17.4, 5.2, 12.2, 12, 17, 16, 4.4, 11, 3, 1.25),
        "T7": (27.8, 27.4, 18.2, 5.3, 12.1, 10, 17, 16, 4.6, 6, 3, 1.22),
        "T8": (29.5, 27.9, 18.7, 5.9, 12.5, 9, 17, 16, 4.8, 1, 3, 1.18),
        "T9": (30.6, 29.3, 19.3, 6.1, 13.9, 8, 18, 16, 5.0, -3, 2, 1.14),
        "T10": (31.9, 30.5, 20.2, 6.3, 14.7, 6, 18, 16, 5.4, -6, 2, 1.10),
        "T11": (34.9, 31.9, 21.3, 7.8, 17.4, 4, 19, 17, 6.0, -9, 3, 1.06),
        "T12": (39.0, 32.8, 22.7, 7.1, 15.8, 3, 22, 18, 6.8, -11, 2, 1.03),
        "T13": (40.1, 33.4, 23.2, 8.0, 15.6, 6, 23, 18, 7.4, -11, 2, 1.01),
        "L1": (41.2, 34.1, 23.8, 8.7, 15.4, 11, 24, 18, 8.0, -12, 1, 1.00),
        "L2": (42.6, 34.6, 24.3, 8.9, 15.0, 13, 24, 18, 9.0, -9, 0, 0.97),
        "L3": (44.1, 35.2, 23.8, 10.3, 14.9, 16, 24, 18, 10.0, -3, -1, 0.95),
        "L4": (46.6, 35.5, 24.1, 12.9, 14.8, 20, 25, 19, 11.0, 6, -3, 0.97),
        "L5": (47.3, 34.7, 22.9, 15.0, 14.0, 26, 27, 20, 10.0, 20, -9, 1.00),
        "L6": (48.0, 34.3, 22.4, 15.5, 13.8, 28, 27, 20, 9.0, 30, -9, 1.02),
    }
    return {level: Dimensions(*values) for level, values in rows.items()}


DIMENSIONS: Mapping[str, Dimensions] = _table()
_SACRUM = ((50.0, 33.0, 30.0, 40.0), (38.0, 22.0, 24.0, 56.0), (30.0, 16.0, 20.0, 68.0))
"""Width, depth, height, forward lean of the first three sacral segments. Textbook values, rounded."""
_WORN_CONCAVITY = 0.4
"""Concavity of endplates beside a narrow or bridged disc relative to the others. Engineering choice: they are flat."""
_SACRAL_CONCAVITY = 0.35
"""Concavity of sacral endplates relative to the others. Engineering choice."""


@dataclass(frozen=True, slots=True)
class Change:
    """How one vertebra differs from the usual. Fractions are of the rim height; None leaves the usual."""

    hu: float | None = None
    wedge: float = 0.0
    """Anterior height lost by fracture."""
    crush: float = 0.0
    """Middle height lost by fracture (deeper concavity of the superior endplate)."""
    osteophyte_mm: float = 0.0
    sclerosis_hu: float = 0.0
    """Extra HU in 4 mm under both endplates."""
    lytic_radius_mm: float = 0.0
    island_hu: float = 0.0
    """A bone island of 3 mm radius; 0 for none."""
    disc_below: str = "normal"
    """"normal", "narrow" (2.5 mm) or "bridged" (1.8 mm, with bone across its front)."""


@dataclass(frozen=True, slots=True)
class SpineSpec:
    """What spine to build. `levels` run from head to foot without a gap."""

    levels: tuple[str, ...]
    changes: Mapping[str, Change] = field(default_factory=dict)
    seed: int = 0
    l1_hu: float = setting(127.0, "HU", (0, 400), "Lee 2024: cutoff 127.273", "trabecular HU of L1; others follow")
    size: float = setting(1.0, "1", (0.8, 1.2), "engineering choice: small to tall adults", "scale of all lengths")
    lordosis: float = setting(1.0, "1", (0.0, 1.8), "engineering choice: 1 is about 50°", "scale of the lumbar curve")
    kyphosis: float = setting(1.0, "1", (0.0, 2.0), "engineering choice: 1 is about 30°", "scale of the thoracic curve")
    scoliosis_deg: float = setting(0.0, "deg", (-40, 40), "Cobb angle is twice this", "largest tilt to the side")
    rotation_deg: float = setting(0.0, "deg", (-30, 30), "engineering choice", "axial rotation at the apex")
    variation: float = setting(0.12, "1", (0, 0.3), "engineering choice: 10-15 %", "SD of the texture over the mean")
    correlation_mm: float = setting(
        4.0, "mm", (2, 8), "engineering choice: 3-5 mm", "correlation length of the texture"
    )
    concavity_mm: tuple[float, float] = (1.5, 3.0)
    """Range of concavity of a lumbar endplate, drawn for each one; lower bodies have less."""
    endplate_tilt_deg: float = setting(1.0, "deg", (0, 5), "engineering choice", "SD of each endplate's own tilt")
    waist: float = setting(0.88, "1", (0.7, 1.0), "textbook", "width at mid-height over width at the rim")
    vein: bool = True
    aorta_hu: float = setting(40.0, "HU", (20, 500), "40 plain, 150 portal, 300 arterial", "HU of the aorta")
    aorta_gap_mm: float = setting(2.0, "mm", (0, 20), "engineering choice", "space between aorta and body")
    origin_lps_mm: tuple[float, float, float] = (6.4, -121.5, 312.7)
    """Where the middle of the bodies lies: away from zero, so that a lost origin shows."""
    disc_hu: float = setting(85.0, "HU", (40, 130), "70-100", "HU of the discs")

    def __post_init__(self) -> None:
        known = [level for level in LEVELS if level in DIMENSIONS]
        names = tuple(parse_level(level) for level in self.levels)
        if not names or any(name not in known for name in names):
            raise SpineImgError(f"a phantom has levels from T1 to L6, found {', '.join(self.levels) or 'none'}")
        if [order(n) for n in names] != sorted({order(n) for n in names}) or not _contiguous(names):
            raise SpineImgError(f"levels must run from head to foot without a gap, found {', '.join(names)}")
        strangers = sorted(set(self.changes) - set(names))
        if strangers:
            raise SpineImgError(f"changes for {', '.join(strangers)}, which this phantom does not have")


def _contiguous(names: tuple[str, ...]) -> bool:
    """T11 or T12 or T13 may be followed by L1; otherwise every step is the next level."""
    for upper, lower in pairwise(names):
        last_thoracic = upper in ("T11", "T12", "T13") and lower == "L1"
        if not last_thoracic and order(lower) != order(upper) + 1:
            return False
    return True


@dataclass(frozen=True, eq=False)
class Vertebra:
    """One vertebra of the layout: its size, its place and its body. S1-S3 have `level` "S1", "S2", "S3"."""

    level: str
    size: Dimensions
    body: Body
    change: Change

    @property
    def frame(self) -> Frame:
        return self.body.frame

    @property
    def wall_posterior_mm(self) -> float:
        """Posterior wall on the midline at the rim, local mm."""
        middle = len(self.body.outline.radius_mm) * 3 // 4
        return float(self.body.outline.radius_mm[middle])


def body_outline(width: float, depth: float, dent: float = 0.10) -> Outline:
    """A vertebral outline: elliptic in front, squarer and dented behind."""
    angle = Outline.angles()
    power = np.where(np.sin(angle) > 0, 2.9, 2.2)
    across = np.abs(np.cos(angle)) / (width / 2)
    along = np.abs(np.sin(angle)) / (depth / 2)
    radius = (across**power + along**power) ** (-1 / power)
    return Outline.from_radius(radius * (1 - dent * np.exp(-(((angle - np.pi / 2) / 0.45) ** 2))))


def lay_out(spec: SpineSpec) -> tuple[Vertebra, ...]:
    """The vertebrae from head to foot, then S1-S3 when the last level is L5 or L6; their middle is at the origin."""
    random = np.random.default_rng([spec.seed, 1])
    levels = [*spec.levels, *(("S1", "S2", "S3") if spec.levels[-1] in ("L5", "L6") else ())]
    axes = [_axes(spec, levels, i) for i in range(len(levels))]
    plain = [_plain(spec, level, axes[i], random) for i, level in enumerate(levels)]
    placed: list[Vertebra] = []
    for i, (level, (size, body)) in enumerate(zip(levels, plain, strict=True)):
        change = spec.changes.get(level, Change())
        center = np.zeros(3) if not placed else _below(placed[-1], body, _rim_gap(spec, placed[-1], body))
        frame = Frame(center, *axes[i])
        placed.append(Vertebra(level, size, replace(body, frame=frame), change))
    middle = np.mean([v.frame.center_lps_mm for v in placed if v.level in spec.levels], axis=0)
    shift = np.array(spec.origin_lps_mm) - middle
    return tuple(
        replace(v, body=replace(v.body, frame=Frame(v.frame.center_lps_mm + shift, *v.frame.axes))) for v in placed
    )


def _axes(spec: SpineSpec, levels: list[str], i: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Left, posterior and cranial unit vectors of one level: lean forwards, tilt to the side, turn about the axis."""
    level = levels[i]
    sacral = level[0] == "S"
    lean = _size(level).pitch_deg
    if "L6" in levels and sacral:
        lean += 6
    lean *= spec.lordosis if level[0] in "LS" else spec.kyphosis
    reach = len(spec.levels) - 1
    phase = min(i, reach) / max(reach, 1)
    tilt = spec.scoliosis_deg * float(np.cos(np.pi * phase)) if reach else 0.0
    turn = spec.rotation_deg * float(np.sin(np.pi * phase))
    a, b, c = np.radians([lean, tilt, turn])
    cranial = unit(np.array([np.sin(b), -np.sin(a) * np.cos(b), np.cos(a) * np.cos(b)]))
    ahead = np.array([np.sin(c), np.cos(c), 0.0])
    posterior = unit(ahead - (ahead @ cranial) * cranial)
    return np.cross(posterior, cranial), posterior, cranial


def _plain(
    spec: SpineSpec, level: str, axes: tuple[FloatArray, FloatArray, FloatArray], random: np.random.Generator
) -> tuple[Dimensions, Body]:
    """A level's size and its body, not yet in place."""
    change = spec.changes.get(level, Change())
    size = _size(level)
    wobble = 1 + 0.015 * random.standard_normal(3)
    width, depth, height = np.array([size.width, size.depth, size.height]) * wobble * spec.size
    hollow = random.uniform(*spec.concavity_mm, size=2) * (_SACRAL_CONCAVITY if level[0] == "S" else size.height / 24)
    hollow *= [_WORN_CONCAVITY if state != "normal" else 1.0 for state in _discs_beside(spec, level)]
    tilts = np.tan(np.radians(spec.endplate_tilt_deg * random.standard_normal((2, 2))))
    tilts[:, 1] += np.tan(np.radians(size.wedge_deg / 2))
    shells = random.uniform([0.25, 0.5, 0.5], [0.4, 0.8, 0.8])
    lost = change.wedge * height
    superior = Endplate(
        rim_mm=(height - lost) / 2,
        tilt_left=tilts[0, 0],
        tilt_posterior=tilts[0, 1] + lost / depth,
        concavity_mm=hollow[0] + change.crush * height,
        shell_mm=shells[1],
    )
    inferior = Endplate(height / 2, tilts[1, 0], tilts[1, 1], hollow[1], shells[2])
    spurs = _osteophytes(change.osteophyte_mm, random) if change.osteophyte_mm else None
    frame = Frame(np.zeros(3), *axes)
    return size, Body(frame, body_outline(width, depth), height / 2, superior, inferior, spec.waist, shells[0], spurs)


def _discs_beside(spec: SpineSpec, level: str) -> tuple[str, str]:
    """State of the disc above and of the one below a level."""
    chain = [*spec.levels, "S1"]
    above = chain[chain.index(level) - 1] if level in chain[1:] else ""
    return spec.changes.get(above, Change()).disc_below, spec.changes.get(level, Change()).disc_below


def _size(level: str) -> Dimensions:
    if level[0] != "S":
        return DIMENSIONS[level]
    width, depth, height, pitch = _SACRUM[int(level[1]) - 1]
    return Dimensions(width, depth, height, 9, 12, 25, 30, 15, 1.5, pitch, 0, 1.0)


def _osteophytes(size_mm: float, random: np.random.Generator) -> Field:
    """Extra radius over the angle: lumps at the front and the sides, none behind."""
    angle = Outline.angles()
    extra = np.zeros_like(angle)
    for middle in random.uniform([-2.9, -2.1, -1.2, -0.4], [-2.3, -1.5, -0.6, 0.1]):
        lump = np.exp(-((np.angle(np.exp(1j * (angle - middle))) / 0.3) ** 2))
        extra = np.maximum(extra, size_mm * random.uniform(0.5, 1.0) * lump)
    return extra.astype(np.float32)


def rim_points(body: Body, superior: bool, scale: float = 1.0) -> FloatArray:
    """(64, 3) LPS points on the rim of an endplate."""
    every = len(body.outline.radius_mm) // 64
    angle = Outline.angles()[::every]
    radius = body.outline.radius_mm[::every] * scale
    left, posterior = radius * np.cos(angle), radius * np.sin(angle)
    end = body.superior if superior else body.inferior
    height = end.height(left, posterior, scale**2)
    return body.frame.lps(np.stack([left, posterior, height if superior else -height], axis=-1))


def rim_plane(body: Body, superior: bool) -> tuple[FloatArray, FloatArray]:
    """(point, unit normal that points out of the body) of the rim of an endplate, LPS mm."""
    end, sign = (body.superior, 1.0) if superior else (body.inferior, -1.0)
    outward = np.array([-end.tilt_left, -end.tilt_posterior, 1.0]) * [1, 1, sign]
    return body.frame.lps([0, 0, sign * end.rim_mm]), unit(outward @ body.frame.axes)


def _rim_gap(spec: SpineSpec, upper: Vertebra, lower: Body) -> float:
    """Distance of the rims' middles that gives the disc its height between the endplate planes."""
    state = upper.change.disc_below
    height = {"normal": upper.size.disc_below * spec.size, "narrow": 2.5, "bridged": 1.8}[state]
    return float(height - 0.65 * (upper.body.inferior.concavity_mm + lower.superior.concavity_mm))


def _below(upper: Vertebra, body: Body, gap_mm: float) -> FloatArray:
    """Centre of the next body: its rim `gap_mm` below the one above, and nowhere closer than 0.5 mm to it."""
    floor, _ = rim_plane(upper.body, superior=False)
    top, _ = rim_plane(body, superior=True)
    way = unit(upper.frame.cranial_lps + body.frame.cranial_lps)
    center = floor - top - gap_mm * way
    moved = replace(body, frame=Frame(body.frame.center_lps_mm + center, *body.frame.axes))
    above, below = rim_points(upper.body, superior=False), rim_points(moved, superior=True)
    point, normal = rim_plane(moved, superior=True)
    clearance = min(float(((above - point) @ normal).min()), float(_over(upper.body, below).min()))
    return np.asarray(center - max(0.0, 0.5 - clearance) * way)


def _over(body: Body, points: FloatArray) -> FloatArray:
    point, normal = rim_plane(body, superior=False)
    return np.asarray((points - point) @ normal)
