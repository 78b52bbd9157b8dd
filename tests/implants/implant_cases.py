"""Small spinal constructs for tests: solids painted by their distance, blurred by Gaussians, with the truth beside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.detect import Metal
from spineimg.volume import Acquisition, ArraySource, CTVolume

TITANIUM, COBALT_CHROME = 7000.0, 17000.0
_FINE = 2
AP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True, eq=False)
class Piece:
    """A cylinder from one point to another; cone_mm: length over which its end tapers to `point` of its radius.
    gap: (depth of the middle, width) where it is missing."""

    start: FloatArray
    end: FloatArray
    radius: float
    hu: float = TITANIUM
    cone_mm: float = 0.0
    point: float = 0.25
    gap: tuple[float, float] | None = None

    @property
    def along(self) -> FloatArray:
        return (self.end - self.start) / np.linalg.norm(self.end - self.start)

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.end - self.start))

    def inside_mm(self, points: FloatArray) -> FloatArray:
        """(...,) distance to the surface, positive inside, about exact near it."""
        way = points - self.start.astype(np.float32)
        depth = way @ self.along.astype(np.float32)
        away = np.sqrt(np.maximum(np.einsum("...i,...i->...", way, way) - depth**2, 0))
        radius = np.full_like(depth, self.radius)
        if self.cone_mm:
            left = np.clip((self.length - depth) / self.cone_mm, 0, 1)
            radius = self.radius * (self.point + (1 - self.point) * left)
        inside = np.minimum(np.minimum(depth, self.length - depth), radius - away)
        if self.gap is not None:
            inside = np.minimum(inside, np.abs(depth - self.gap[0]) - self.gap[1] / 2)
        return inside


@dataclass(frozen=True, eq=False)
class Build:
    """A scan of pieces: screws by name (head to tip), and the rest."""

    screws: dict[str, Piece]
    rest: list[Piece] = field(default_factory=list)
    spacing_mm: tuple[float, float, float] = (1.0, 0.7, 0.7)
    fwhm_mm: tuple[float, float] = (0.9, 0.9)
    """Of the blur in the slice plane and across it."""
    noise_hu: float = 20.0

    def volume(self, clip_hu: float | None = None) -> CTVolume:
        pieces = [*self.screws.values(), *self.rest]
        ends = np.array([p for piece in pieces for p in (piece.start, piece.end)])
        low, high = ends.min(axis=0) - 14, ends.max(axis=0) + 14
        step = np.array(self.spacing_mm)
        shape = np.ceil((high - low)[::-1] / step).astype(int)
        fine = np.full(shape * _FINE, 150.0, dtype=np.float32)
        grid = [(np.arange(n) + 0.5) * s / _FINE for n, s in zip(fine.shape, step, strict=True)]
        for piece in pieces:
            _paint(fine, grid, low, piece, float(np.mean(step)) / _FINE)
        sigma = np.array([self.fwhm_mm[1], self.fwhm_mm[0], self.fwhm_mm[0]]) / 2.3548 / (step / _FINE)
        image = ndimage.gaussian_filter(fine, sigma)
        image = image.reshape(shape[0], _FINE, shape[1], _FINE, shape[2], _FINE).mean(axis=(1, 3, 5))
        image += np.random.default_rng(7).normal(0, self.noise_hu, image.shape)
        if clip_hu is not None:
            image = np.minimum(image, clip_hu)
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2] = step
        affine[:3, 3] = low + step[::-1] / 2
        affine[3, 3] = 1
        geometry = Geometry.from_affine(image.shape, affine)
        return CTVolume(geometry, ArraySource(np.rint(image).astype(np.int16)), Acquisition(slice_thickness_mm=step[0]))


def _paint(hu: FloatArray, grid: list[FloatArray], low: FloatArray, piece: Piece, soft_mm: float) -> None:
    """Draws a piece into its own box."""
    if piece.radius < 0.75 * soft_mm:  # a wire thinner than the grid counts with its cross-section
        thin = (piece.radius / (0.75 * soft_mm)) ** 2
        piece = replace(piece, radius=0.75 * soft_mm, hu=150.0 + thin * (piece.hu - 150.0))
    ends = np.stack([piece.start, piece.end]) - low
    first, last = ends.min(axis=0) - piece.radius - 1, ends.max(axis=0) + piece.radius + 1
    box = [slice(*np.searchsorted(g, (first[axis], last[axis]))) for g, axis in zip(grid, (2, 1, 0), strict=True)]
    z, y, x = (g[b].astype(np.float32) for g, b in zip(grid, box, strict=True))
    points = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), axis=-1)
    part = np.clip(piece.inside_mm(points + low.astype(np.float32)) / soft_mm + 0.5, 0, 1)
    here = hu[tuple(box)]
    here += part * (piece.hu - here)


def construct(
    levels: int = 2,
    *,
    diameter_mm: float = 6.5,
    rod_hu: float = TITANIUM,
    rod_gap: tuple[float, float] | None = None,
    screw_gap: tuple[float, float] | None = None,
    sides: tuple[str, ...] = ("left", "right"),
    crosslink: bool = False,
    tilt_deg: float = 0.0,
    **scan: object,
) -> Build:
    """Screws of 40 mm on each side of `levels` vertebrae 32 mm apart, one rod of 5.5 mm a side.

    rod_gap, screw_gap: break of the left rod and of the upper left screw. tilt_deg: turn of all in the frontal plane.
    """
    t = np.radians(tilt_deg)
    turn = np.array([[np.cos(t), 0, -np.sin(t)], [0, 1, 0], [np.sin(t), 0, np.cos(t)]])
    screws: dict[str, Piece] = {}
    rest: list[Piece] = []
    for side in sides:
        sign = 1.0 if side == "left" else -1.0
        seats = []
        for n in range(levels):
            head = np.array([sign * 20.0, 10.0 + n, -32.0 * n])
            tip = head + 40.0 * _unit([-sign * 0.25, -1.0, 0.08 - 0.1 * n])
            back = head - tip
            back /= np.linalg.norm(back)
            gap = screw_gap if side == "left" and n == 0 else None
            screws[f"{n}-{side}"] = Piece(turn @ head, turn @ tip, diameter_mm / 2, cone_mm=5.0, gap=gap)
            rest.append(Piece(turn @ head, turn @ (head + 14 * back), 6.2))
            seats.append(head + 7 * back)
        if levels == 1:
            continue
        out = (seats[0] - seats[-1]) / np.linalg.norm(seats[0] - seats[-1])
        rod = Piece(turn @ (seats[0] + 9 * out), turn @ (seats[-1] - 9 * out), 2.75, rod_hu)
        rest.append(Piece(rod.start, rod.end, 2.75, rod_hu, gap=rod_gap if side == "left" else None))
    if crosslink:
        height = -16.0
        ends = [np.array([sign * 21.5, 17.0, height]) for sign in (1.0, -1.0)]
        rest.append(Piece(turn @ ends[0], turn @ ends[1], 2.5))
    return Build(screws, rest, **scan)  # type: ignore[arg-type]


def _unit(vector: list[float]) -> FloatArray:
    return np.array(vector) / np.linalg.norm(vector)


def broken_near_end(
    stub_mm: float, width_mm: float, *, kink_deg: float = 0.0, step_mm: float = 0.0, **scan: object
) -> Build:
    """The left side of `construct`; its rod stands 26 mm out above and is broken `stub_mm` below its upper end.

    width_mm: of the gap along the rod, 0: the rod is whole. kink_deg, step_mm: turn and sideways shift of the stub.
    """
    build = construct(2, sides=("left",), **scan)
    whole = next(piece for piece in build.rest if piece.radius == 2.75)
    up = -whole.along
    aside = np.array([1.0, 0.0, 0.0]) - up[0] * up
    aside /= np.linalg.norm(aside)
    turned = np.cos(np.radians(kink_deg)) * up + np.sin(np.radians(kink_deg)) * aside
    end = whole.start + 17.0 * up
    stub = end - stub_mm * up + step_mm * aside
    rods = [Piece(end - (stub_mm + width_mm) * up, whole.end, 2.75), Piece(stub, stub + stub_mm * turned, 2.75)]
    return replace(build, rest=[*(piece for piece in build.rest if piece is not whole), *rods])


def with_rod_like(kind: str) -> Build:
    """One-sided constructs whose rod is whole, beside what may look like a break.

    "slot": open tulips with set screws; "short": the rod ends within its tulips; "crosslink": a clamp and a bar on it;
    "sleeve": two rods meet with 3 mm between them inside a sleeve; "two": two constructs 16 mm apart on one line.
    """
    build = construct({"two": 5, "sleeve": 3, "crosslink": 3}.get(kind, 2), sides=("left",))
    rod = next(piece for piece in build.rest if piece.radius == 2.75)
    heads = [piece for piece in build.rest if piece is not rod]
    middle = (rod.start + rod.end) / 2

    def line(a: FloatArray, b: FloatArray, radius: float = 2.75, hu: float = TITANIUM) -> Piece:
        return Piece(a, b, radius, hu)

    more = [rod]
    if kind in ("slot", "short"):
        inset = 5.0 * rod.along if kind == "short" else np.zeros(3)
        seats = [rod.start + ((h.start + 7 * h.along - rod.start) @ rod.along) * rod.along for h in heads]
        more = [line(s - 7 * rod.along, s + 7 * rod.along, 3.2, 150.0) for s in seats]
        more += [line(s, s + 10 * h.along, 3.2, 150.0) for s, h in zip(seats, heads, strict=True)]
        more += [line(rod.start + inset, rod.end - inset)]
        more += [line(s + 2.9 * h.along, s + 7.5 * h.along, 4.6) for s, h in zip(seats, heads, strict=True)]
        more += [line(s + 5 * h.along, s + 7.6 * h.along, 2.2, 150.0) for s, h in zip(seats, heads, strict=True)]
    elif kind == "crosslink":
        clamp = middle + 16.0 * rod.along + 5.0 * AP
        more = [rod, line(clamp, clamp - [30.0, 0.0, 0.0], 2.5), line(clamp - AP * 8, clamp + AP * 3, 4.0)]
    elif kind == "sleeve":
        at = heads[0].start + 23.0 * rod.along + 7 * heads[0].along
        at = rod.start + ((at - rod.start) @ rod.along) * rod.along
        inside = (at - 1.5 * rod.along, at + 1.5 * rod.along)
        more = [line(at - 5 * rod.along, at + 5 * rod.along, 5.0), line(*inside, hu=150.0)]
        more += [line(rod.start, inside[0]), line(inside[1], rod.end)]
    elif kind == "two":
        del heads[2]
        build = replace(build, screws={name: shaft for name, shaft in build.screws.items() if name != "2-left"})
        more = [line(rod.start, middle - 8 * rod.along), line(middle + 8 * rod.along, rod.end)]
    return replace(build, rest=[*heads, *more])


def errors(build: Build, metal: Metal) -> dict[str, dict[str, float]]:
    """Errors of the screws that were found, by the truth's name: axis_mm, axis_deg, tip_mm, diameter_mm, length_mm."""
    found: dict[str, dict[str, float]] = {}
    for name, piece in build.screws.items():
        for screw in metal.screws:
            shaft = screw.shaft
            tip, head = np.array(shaft.tip_lps_mm), np.array(shaft.head_lps_mm)
            middle = (tip + head) / 2 - piece.start
            off = float(np.linalg.norm(middle - (middle @ piece.along) * piece.along))
            if off > 5 or np.linalg.norm(tip - piece.end) > 15:
                continue
            turn = np.degrees(np.arccos(np.clip(shaft.direction_lps @ piece.along, -1, 1)))
            found[name] = {
                "axis_mm": off,
                "axis_deg": float(turn),
                "tip_mm": float(np.linalg.norm(tip - piece.end)),
                "diameter_mm": shaft.diameter_mm - 2 * piece.radius,
                "length_mm": shaft.length_mm - piece.length,
            }
    return found
