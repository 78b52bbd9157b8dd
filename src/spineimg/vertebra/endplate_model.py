"""What a scanner shows of an endplate: tissues across a bent surface, blurred.

Behind one another lie trabecular bone, a thin dense shell, disc and, where the disc is low, the shell and the bone of
the next body, blurred by the scanner's resolution and by the width of the slices. The surface is a plane with curvature
in two directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, unit
from spineimg.settings import setting
from spineimg.vertebra.walls import Outline
from spineimg.volume import CTVolume


@dataclass(frozen=True, slots=True)
class EndplateSettings:
    """The model of an endplate and how much it may bend."""

    shell_mm: float = setting(0.7, "mm", (0.3, 1.5), "endplates 0.5-0.8 mm", "Thickness of the dense shell.")
    blur_mm: float = setting(
        0.45, "mm", (0.2, 1.5), "soft kernels: FWHM 0.8-1.2 mm", "Gaussian sigma of the in-plane blur."
    )
    central_part: float = setting(
        0.7,
        "fraction",
        (0.4, 0.95),
        "definition of the endplate plane",
        "Part of the endplate's area that defines its plane.",
    )
    curvature_mm: tuple[float, float] = setting(
        (1.5, 1.5),
        "mm",
        (0.0, 6.0),
        "concavity 1.5-3 mm",
        "Usual concavity from rim to middle, and its SD, to which the fit is held.",
    )
    tilt_sd_deg: float = setting(
        6.0,
        "degree",
        (1.0, 30.0),
        "engineering choice: wedge and own tilt of endplates against the body's axis",
        "How far the fit may lean from where it starts before it costs.",
    )
    height_sd_mm: float = setting(
        2.0,
        "mm",
        (0.3, 6.0),
        "engineering choice: the chain's faces are found within 1-2 mm",
        "How far the fit may move from where it starts before it costs.",
    )
    voxels: int = setting(
        3000,
        "voxels",
        (1000, 50000),
        "engineering choice: more do not improve the fit measurably",
        "About so many voxels are fitted.",
    )


@dataclass(frozen=True, eq=False, slots=True)
class LocalFrame:
    """origin_lps_mm: (3,); axes: (3, 3) rows left, posterior, cranial. outline: around (0, 0) of this frame."""

    origin_lps_mm: FloatArray
    axes: FloatArray
    outline: Outline

    def lps(self, local_mm: npt.ArrayLike) -> FloatArray:
        return np.asarray(self.origin_lps_mm + np.asarray(local_mm, dtype=np.float64) @ self.axes)

    def local(self, point_lps_mm: npt.ArrayLike) -> FloatArray:
        return np.asarray((np.asarray(point_lps_mm, dtype=np.float64) - self.origin_lps_mm) @ self.axes.T)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a face is thought to be: height = height_mm + rise_left * left + rise_posterior * posterior."""

    height_mm: float
    rise_left: float
    rise_posterior: float

    def height(self, left: FloatArray, posterior: FloatArray) -> FloatArray:
        return np.asarray(self.height_mm + self.rise_left * left + self.rise_posterior * posterior)


LEAN_PART = 0.4
"""Starts carry so much of the tilt that the chain sees: at narrow discs and thick slices it errs by 10 degrees."""
_THIN_HALF_MM = 1.5
_GRID_MM = 0.02


@dataclass(frozen=True, eq=False, slots=True)
class Problem:
    """The voxels, with `height` counted towards the disc, and what the surfaces are held to.

    shape: (5, n) how a surface's height changes with each of its five numbers; slopes: (3, n) 1, left and posterior
    over the outline's radius; height, hu: (n,); centre, sd: (10,) usual numbers of this surface and of the facing one,
    and their SD.
    """

    shape: FloatArray
    slopes: FloatArray
    height: FloatArray
    hu: FloatArray
    centre: FloatArray
    sd: FloatArray
    edge: Edge
    shell_mm: float


def problem_of(
    volume: CTVolume,
    frame: LocalFrame,
    found: tuple[FloatArray, FloatArray],
    faces: tuple[Start, Start],
    superior: bool,
    half_slice: float,
    settings: EndplateSettings,
) -> Problem:
    place, hu = found
    sign = 1.0 if superior else -1.0
    used = np.square(frame.outline.reach(place[:, 0], place[:, 1])) <= settings.central_part * 1.1
    place, hu = place[used], hu[used]
    scale = float(np.sqrt(frame.outline.area_mm2 / np.pi))
    # Thick slices tell little about tilt: there it is held closer to where the chain and the canal see it.
    thick = max(1.0, half_slice / _THIN_HALF_MM)
    tilt = float(np.tan(np.radians(settings.tilt_sd_deg))) / thick
    bend, bend_sd = settings.curvature_mm
    centre = [
        [sign * face.height_mm, sign * face.rise_left, sign * face.rise_posterior, hollow, hollow]
        for face, hollow in zip(faces, (bend, -bend), strict=True)
    ]
    return Problem(
        shape=_shape(place[:, 0], place[:, 1], scale),
        slopes=np.stack([np.ones(len(place)), place[:, 0] / scale, place[:, 1] / scale]),
        height=sign * place[:, 2],
        hu=np.clip(hu, -200, 1500),
        centre=np.concatenate(centre),
        sd=np.array([settings.height_sd_mm, tilt, tilt, bend_sd, bend_sd] * 2),
        edge=edge_of(*_blur(volume, frame, faces[0], half_slice, settings)),
        shell_mm=settings.shell_mm,
    )


def _blur(
    volume: CTVolume, frame: LocalFrame, face: Start, half_slice: float, settings: EndplateSettings
) -> tuple[float, float]:
    """Across the face: half the width of a slice, and the sigma of the rest."""
    normal = unit(np.array([-face.rise_left, -face.rise_posterior, 1.0]) @ frame.axes)
    cosine = abs(float(normal @ volume.geometry.normal_lps))
    sine = float(np.sqrt(max(0.0, 1 - cosine**2)))
    pixel = max(volume.geometry.spacing_mm[1:])
    return max(0.1, half_slice * cosine), float(np.hypot(settings.blur_mm, 0.3 * pixel * max(sine, 0.3)))


def _shape(x: FloatArray, y: FloatArray, scale: float) -> FloatArray:
    """(5, n): 1, left, posterior, and two curvatures that leave the plane of a disc of radius `scale` as it is."""
    u2, v2 = np.square(x / scale), np.square(y / scale)
    # The mean of u² over the central 70 % of a disc is 0.7 / 4.
    return np.stack([np.ones_like(x), x, y, u2 - 0.175, v2 - 0.175])


@dataclass(frozen=True, eq=False, slots=True)
class Edge:
    """A step at 0, seen by a slice of half-width `half` and a Gaussian of `blur`, tabulated every _GRID_MM.

    table: (4, n) its value, its rate, and what is added to both up to the next column; it begins at -reach_mm.
    """

    reach_mm: float
    table: FloatArray

    def at(self, depth: FloatArray) -> Seen:
        place = (depth + self.reach_mm) / _GRID_MM
        place = np.minimum(np.maximum(place, 0, out=place), self.table.shape[1] - 1, out=place)
        low = place.astype(np.intp)
        return Seen(self.table, low, np.subtract(place, low, out=place))


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """An edge at depths of any shape: `part` of the way from column `low` of its table to the next."""

    table: FloatArray
    low: npt.NDArray[np.intp]
    part: FloatArray

    @property
    def value(self) -> FloatArray:
        return self._between(0)

    @property
    def rate(self) -> FloatArray:
        return self._between(1)

    def _between(self, row: int) -> FloatArray:
        further: FloatArray = self.table[row + 2].take(self.low)
        further *= self.part
        further += self.table[row].take(self.low)
        return further


def edge_of(half: float, blur: float) -> Edge:
    from scipy.special import ndtr

    reach = half + 5 * blur
    depth = np.arange(-reach, reach + _GRID_MM, _GRID_MM)
    high, low = (depth + half) / blur, (depth - half) / blur
    n_high, n_low = ndtr(high), ndtr(low)
    bell = (np.exp(-0.5 * high**2) - np.exp(-0.5 * low**2)) / np.sqrt(2 * np.pi)
    value = (high * n_high - low * n_low + bell) * (blur / (2 * half))
    table = np.stack([value, (n_high - n_low) / (2 * half)])
    return Edge(reach, np.concatenate([table, np.diff(table, append=table[:, -1:])]))


@dataclass(frozen=True, eq=False, slots=True)
class Faces:
    """What the image shows of the four steps at each voxel: bone to shell, shell to disc, disc to the facing shell,
    facing shell to its bone. depth: (..., n) behind the surface."""

    depth: FloatArray
    inner: Seen
    outer: Seen
    near: Seen
    far: Seen

    def columns(self, slopes: FloatArray) -> FloatArray:
        """(..., 12, n) share of each tissue at each voxel; bone, shell and disc with their slopes across the body."""
        inner, outer, near, far = (one.value for one in (self.inner, self.outer, self.near, self.far))
        *many, n = self.depth.shape
        found = np.empty((*many, 12, n))
        bone = 1 - inner
        for i, part in enumerate((bone, inner - outer, outer - near)):
            np.multiply(part[..., None, :], slopes, out=found[..., 3 * i : 3 * i + 3, :])
        found[..., 9, :], found[..., 10, :] = near - far, far
        np.multiply(np.minimum(self.depth, 0), bone, out=found[..., 11, :])
        return found

    def rates(self, slopes: FloatArray, tissues: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(starts, n) how HU change with the depth behind this surface and behind the facing one."""
        bone, shell, disc = (tissues[:, :9].reshape(-1, 3, 3) @ slopes).swapaxes(0, 1)
        facing_shell, facing_bone, deeper = tissues[:, 9:].T[..., None]
        bone = bone + np.minimum(self.depth, 0) * deeper
        own = self.inner.rate * (shell - bone) + self.outer.rate * (disc - shell)
        facing = self.near.rate * (facing_shell - disc) + self.far.rate * (facing_bone - facing_shell)
        return own, facing


def faces_of(problem: Problem, numbers: FloatArray) -> Faces:
    """numbers: (10,) or (starts, 10)."""
    depth, beyond = (problem.height - some @ problem.shape for some in (numbers[..., :5], numbers[..., 5:]))
    return seen(problem, depth, beyond)


def seen(problem: Problem, depth: FloatArray, beyond: FloatArray) -> Faces:
    at, shell = problem.edge.at, problem.shell_mm
    return Faces(depth, at(depth + shell), at(depth), at(beyond), at(beyond - shell))
