"""The surface of an endplate, fitted to native voxels.

Across the surface the model is trabecular bone, a thin dense shell, disc and, where the disc is low, the shell and the
bone of the next body, blurred by the scanner's resolution and by the width of the slices. The surface is a plane with
curvature in two directions. HU of the tissues, and their slopes across the body, are solved linearly at every step; the
surface is found by Gauss-Newton steps on what is left over (variable projection, Golub & Pereyra 1973), with weights
that fade out voxels that fit nothing, such as osteophytes. Interpolated gradients would follow the slices instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.vertebra.walls import Outline
from spineimg.volume import CTVolume


@dataclass(frozen=True, slots=True)
class EndplateSettings:
    """The model of an endplate and how much it may bend."""

    shell_mm: float = field(
        default=0.7,
        metadata={
            "unit": "mm",
            "range": (0.3, 1.5),
            "source": "endplates 0.5-0.8 mm",
            "help": "Thickness of the dense shell.",
        },
    )
    blur_mm: float = field(
        default=0.45,
        metadata={
            "unit": "mm",
            "range": (0.2, 1.5),
            "source": "soft kernels: FWHM 0.8-1.2 mm",
            "help": "Gaussian sigma of the in-plane blur.",
        },
    )
    central_part: float = field(
        default=0.7,
        metadata={
            "unit": "fraction",
            "range": (0.4, 0.95),
            "source": "definition of the endplate plane",
            "help": "Part of the endplate's area that defines its plane.",
        },
    )
    curvature_mm: tuple[float, float] = field(
        default=(1.5, 1.5),
        metadata={
            "unit": "mm",
            "range": (0.0, 6.0),
            "source": "concavity 1.5-3 mm",
            "help": "Usual concavity from rim to middle, and its SD, to which the fit is held.",
        },
    )
    tilt_sd_deg: float = field(
        default=6.0,
        metadata={
            "unit": "degree",
            "range": (1.0, 30.0),
            "source": "engineering choice: wedge and own tilt of endplates against the body's axis",
            "help": "How far the fit may lean from where it starts before it costs.",
        },
    )
    voxels: int = field(
        default=3000,
        metadata={
            "unit": "voxels",
            "range": (1000, 50000),
            "source": "engineering choice: more do not improve the fit measurably",
            "help": "About so many voxels are fitted.",
        },
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


@dataclass(frozen=True, eq=False, slots=True)
class EndplateFit:
    """The least-squares plane of the central part, in the local frame: height, rise_left, rise_posterior.

    concavity_mm: depth of the middle below the rim. residual_hu: robust SD of what the model leaves; noise included.
    explained: share of the variation across the surface that the model explains. shell_hu, bone_hu, disc_hu: tissues.
    tilt_sd_deg, height_sd_mm: standard errors.
    """

    height_mm: float
    rise_left: float
    rise_posterior: float
    concavity_mm: float
    residual_hu: float
    explained: float
    shell_hu: float
    bone_hu: float
    disc_hu: float
    tilt_sd_deg: float
    height_sd_mm: float

    def normal(self, axes: FloatArray) -> FloatArray:
        """(3,) LPS unit normal towards the head."""
        return unit(np.array([-self.rise_left, -self.rise_posterior, 1.0]) @ axes)


_INSIDE_MM, _OUTSIDE_MM, _BEYOND_MM = 7.0, 4.5, 2.5
"""How far in and out of the face, and into the next body, voxels are looked at, beyond half a slice."""
_THIN_HALF_MM = 1.5
_START_BEND_MM = 1.2
LEAN_PART = 0.4
"""Starts carry so much of the tilt that the chain sees: at narrow discs and thick slices it errs by 10 degrees."""
_STEPS = 8
_BIWEIGHT = 4.685
_CORRELATION = 12.0
"""Voxels that share noise and texture: so much the fit's errors are larger than those of independent voxels."""


def fit_endplate(
    volume: CTVolume, frame: LocalFrame, start: Start, other: Start, settings: EndplateSettings
) -> EndplateFit | None:
    """The endplate that is thought to be at `start`, with `other`, the facing one of the next body, fitted along.

    None when too few voxels are there. Raises PixelError.
    """
    superior = other.height_mm > start.height_mm
    half = _slice_mm(volume) / 2
    found = _voxels(volume, frame, (start, other), superior, half, settings)
    if found is None:
        return None
    problem = _problem(volume, frame, found, (start, other), superior, half, settings)
    return _solve(problem, superior)


def _slice_mm(volume: CTVolume) -> float:
    return float(volume.acquisition.slice_thickness_mm or volume.geometry.spacing_mm[0])


# -- voxels -----------------------------------------------------------------------------------------------------------


def _voxels(
    volume: CTVolume,
    frame: LocalFrame,
    faces: tuple[Start, Start],
    superior: bool,
    half_slice: float,
    settings: EndplateSettings,
) -> tuple[FloatArray, FloatArray] | None:
    """(n, 3) local places and (n,) HU of native voxels around the face, thinned out evenly."""
    geometry = volume.geometry
    sign = 1.0 if superior else -1.0
    inside, outside = _INSIDE_MM + half_slice, _OUTSIDE_MM + half_slice
    low, high = _index_box(geometry, frame, faces[0], (sign * -inside, sign * outside))
    if (high <= low).any():
        return None
    stride = _stride(geometry, frame.outline, inside + outside, settings.voxels)
    wide2 = float(frame.outline.radius_mm.max()) ** 2
    places, values = [], []
    for k in range(low[0], high[0] + 1):
        rows, columns = np.arange(low[1], high[1] + 1, stride), np.arange(low[2], high[2] + 1, stride)
        x, y, z = _local_grid(geometry, frame, k, rows, columns)
        depth = sign * (z - faces[0].height(x, y))
        beyond = sign * (z - faces[1].height(x, y))
        near = (depth > -inside) & (depth < outside) & (beyond < _BEYOND_MM + half_slice) & (x * x + y * y < wide2)
        r, c = np.nonzero(near)
        if not len(r):
            continue
        hu = volume.read(k)[rows[r], columns[c]]
        good = volume.valid(k, hu)
        places.append(np.stack([x[r, c], y[r, c], z[r, c]], axis=-1)[good])
        values.append(hu[good].astype(np.float64))
    return (np.concatenate(places), np.concatenate(values)) if places else None


def _index_box(
    geometry: Geometry, frame: LocalFrame, face: Start, reach: tuple[float, float]
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Lowest and highest (slice, row, column) around a face, within the image."""
    wide = float(frame.outline.radius_mm.max())
    across = np.array([(x, y) for x in (-wide, wide) for y in (-wide, wide)])
    heights = face.height(*across.T)
    corners = [(x, y, h + away) for (x, y), h in zip(across, heights, strict=True) for away in reach]
    index = geometry.index_at(frame.lps(corners))
    low = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(index.max(axis=0)), np.array(geometry.shape) - 1).astype(int)
    return low, high


def _stride(geometry: Geometry, outline: Outline, height: float, wanted: int) -> int:
    spacing = geometry.spacing_mm
    voxels = outline.area_mm2 * height / float(np.prod(spacing))
    return max(1, round(float(np.sqrt(voxels / wanted))))


def _local_grid(
    geometry: Geometry, frame: LocalFrame, k: int, rows: npt.NDArray[np.int_], columns: npt.NDArray[np.int_]
) -> FloatArray:
    """(3, rows, columns) local coordinates of pixels of slice k."""
    first = frame.local(geometry.origins_lps_mm[k])
    row, column = frame.axes @ geometry.row_step_lps_mm, frame.axes @ geometry.column_step_lps_mm
    return np.asarray(first[:, None, None] + row[:, None, None] * rows[:, None] + column[:, None, None] * columns)


# -- the model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Problem:
    """The voxels, with `height` counted towards the disc, and what the surfaces are held to.

    shape: (n, 5) how a surface's height changes with each of its five numbers; across: (n, 2) left and posterior over
    the outline's radius; centre, sd: (10,) usual numbers of this surface and of the facing one, and their SD.
    """

    shape: FloatArray
    across: FloatArray
    height: FloatArray
    hu: FloatArray
    centre: FloatArray
    sd: FloatArray
    half_mm: float
    blur_mm: float
    shell_mm: float


def _problem(
    volume: CTVolume,
    frame: LocalFrame,
    found: tuple[FloatArray, FloatArray],
    faces: tuple[Start, Start],
    superior: bool,
    half_slice: float,
    settings: EndplateSettings,
) -> _Problem:
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
    half, blur = _blur(volume, frame, faces[0], half_slice, settings)
    return _Problem(
        shape=_shape(place[:, 0], place[:, 1], scale),
        across=place[:, :2] / scale,
        height=sign * place[:, 2],
        hu=np.clip(hu, -200, 1500),
        centre=np.concatenate(centre),
        sd=np.array([2.0, tilt, tilt, bend_sd, bend_sd] * 2),
        half_mm=half,
        blur_mm=blur,
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
    """(n, 5): 1, left, posterior, and two curvatures that leave the plane of a disc of radius `scale` as it is."""
    u2, v2 = np.square(x / scale), np.square(y / scale)
    # The mean of u² over the central 70 % of a disc is 0.7 / 4.
    return np.stack([np.ones_like(x), x, y, u2 - 0.175, v2 - 0.175], axis=-1)


def _step(depth: FloatArray, half: float, blur: float) -> tuple[FloatArray, FloatArray]:
    """A step at 0 seen by a slice of half-width `half` and a Gaussian of `blur`, and its derivative."""
    from scipy.special import ndtr

    high, low = (depth + half) / blur, (depth - half) / blur
    n_high, n_low = ndtr(high), ndtr(low)
    bell = (np.exp(-0.5 * high**2) - np.exp(-0.5 * low**2)) / np.sqrt(2 * np.pi)
    value = (high * n_high - low * n_low + bell) * (blur / (2 * half))
    return value, (n_high - n_low) / (2 * half)


def _basis(problem: _Problem, numbers: FloatArray, rows: slice) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(n, tissues) model columns, and their derivatives by the depth behind this surface and behind the facing one."""
    half, blur, shell = problem.half_mm, problem.blur_mm, problem.shell_mm
    depth = problem.height[rows] - problem.shape[rows] @ numbers[:5]
    beyond = problem.height[rows] - problem.shape[rows] @ numbers[5:]
    inner, inner_rate = _step(depth + shell, half, blur)
    outer, outer_rate = _step(depth, half, blur)
    near, near_rate = _step(beyond, half, blur)
    far, far_rate = _step(beyond - shell, half, blur)
    zero = np.zeros_like(depth)
    slopes = np.concatenate([np.ones((len(depth), 1)), problem.across[rows]], axis=1)
    sloping = [
        (1 - inner, -inner_rate, zero),
        (inner - outer, inner_rate - outer_rate, zero),
        (outer - near, outer_rate, -near_rate),
    ]
    inwards = np.minimum(depth, 0)
    plain = [
        (near - far, zero, near_rate - far_rate),
        (far, zero, far_rate),
        (inwards * (1 - inner), -inwards * inner_rate, zero),
    ]
    stacks = []
    for i in range(3):
        stacks.append(
            np.concatenate([p[i][:, None] * slopes for p in sloping] + [p[i][:, None] for p in plain], axis=1)
        )
    return stacks[0], stacks[1], stacks[2]


# -- solving ----------------------------------------------------------------------------------------------------------


def _solve(problem: _Problem, superior: bool) -> EndplateFit | None:
    if len(problem.hu) < 150:
        return None
    numbers = _scan(problem)
    weight = np.ones(len(problem.hu))
    for step in range(_STEPS):
        columns, rates, facing_rates = _basis(problem, numbers, slice(None))
        left, tissues, q = _projected(columns, problem.hu, weight)
        plain = problem.hu - columns @ tissues
        spread = 1.4826 * float(np.median(np.abs(plain))) + 1.0
        if step > 1:
            weight = np.square(np.maximum(0, 1 - np.square(plain / (_BIWEIGHT * spread))))
            left, tissues, q = _projected(columns, problem.hu, weight)
        root = np.sqrt(weight)[:, None]
        shape = problem.shape * root
        change = -np.concatenate([(r @ tissues)[:, None] * shape for r in (rates, facing_rates)], axis=1)
        change -= q @ (q.T @ change)
        # Prior rows: each number is held to its centre as if by a measurement of its SD.
        held = spread * np.sqrt(_CORRELATION) / problem.sd
        normal = change.T @ change + np.diag(held**2)
        move = np.linalg.solve(normal, change.T @ left + held**2 * (problem.centre - numbers))
        numbers = numbers + move * min(1.0, 1.5 / max(1e-9, float(np.abs(move[[0, 5]]).max())))
        if np.abs(move[0]) < 0.005 and np.abs(move[1:3]).max() < 0.0005:
            break
    return _result(problem, numbers, tissues, spread, normal, superior)


def _projected(columns: FloatArray, hu: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What the tissues leave over (weighted), their HU, and an orthonormal base of the weighted columns."""
    root = np.sqrt(weight)
    ridge = 1e-3 * np.sqrt(len(hu))
    q, r = np.linalg.qr(columns * root[:, None])
    aim = q.T @ (hu * root)
    tissues = np.linalg.solve(r.T @ r + ridge**2 * np.eye(len(r)), r.T @ aim)
    return hu * root - q @ aim, tissues, q


def _scan(problem: _Problem) -> FloatArray:
    """The best start among shifts and three tilts, on a part of the voxels."""
    rows = slice(None, None, max(1, len(problem.hu) // 700))
    hu = problem.hu[rows]
    best, found = np.inf, problem.centre
    for lean in (0.0, 1.0, 1 / LEAN_PART):
        for shift in np.arange(-2.0, 2.1, 0.5):
            numbers = problem.centre.copy()
            numbers[0] += shift
            numbers[[1, 2, 6, 7]] *= lean
            numbers[3:5] = _START_BEND_MM
            columns, _, _ = _basis(problem, numbers, rows)
            gram = columns.T @ columns + 1e-6 * len(hu) * np.eye(columns.shape[1])
            left = np.abs(hu - columns @ np.linalg.solve(gram, columns.T @ hu))
            cost = float(np.minimum(left, 3 * np.median(left) + 1).sum()) * (1 + 0.01 * abs(shift))
            if cost < best:
                best, found = cost, numbers
    return found


def _result(
    problem: _Problem,
    numbers: FloatArray,
    tissues: FloatArray,
    spread: float,
    normal: FloatArray,
    superior: bool,
) -> EndplateFit:
    sign = 1.0 if superior else -1.0
    errors = spread * np.sqrt(np.diag(np.linalg.inv(normal)) * _CORRELATION)
    columns, _, _ = _basis(problem, numbers, slice(None))
    left = np.minimum(np.abs(problem.hu - columns @ tissues), 4 * spread)
    # Against a smooth field without any face: what does the face explain?
    depth = problem.height - problem.shape @ problem.centre[:5]
    smooth = np.stack([np.ones_like(depth), depth, *problem.across.T], axis=-1)
    flat = problem.hu - smooth @ np.linalg.lstsq(smooth, problem.hu, rcond=None)[0]
    explained = 1 - float(np.mean(left**2)) / max(1e-9, float(np.mean(np.minimum(np.abs(flat), 400) ** 2)))
    return EndplateFit(
        height_mm=sign * float(numbers[0]),
        rise_left=sign * float(numbers[1]),
        rise_posterior=sign * float(numbers[2]),
        concavity_mm=float(numbers[3:5].mean()),
        residual_hu=spread,
        explained=explained,
        shell_hu=float(tissues[3]),
        bone_hu=float(tissues[0]),
        disc_hu=float(tissues[6]),
        tilt_sd_deg=float(np.degrees(np.hypot(*errors[1:3]))),
        height_sd_mm=float(errors[0]),
    )
