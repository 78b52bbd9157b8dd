"""The surface of an endplate, fitted to native voxels.

HU of the model's tissues (`endplate_model.py`), and their slopes across the body, are solved linearly at every step;
the surface is found by Gauss-Newton steps on what is left over (variable projection, Golub & Pereyra 1973), with
weights that fade out voxels that fit nothing, such as osteophytes. Interpolated gradients would follow the slices
instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry, unit
from spineimg.vertebra.endplate_model import (
    EndplateSettings,
    LocalFrame,
    Problem,
    Start,
    faces_of,
    problem_of,
    seen,
)
from spineimg.vertebra.walls import Outline
from spineimg.volume import CTVolume


@dataclass(frozen=True, eq=False, slots=True)
class EndplateFit:
    """The least-squares plane of the central part, in the local frame: height, rise_left, rise_posterior.

    concavity_mm: depth of the middle below the rim. residual_hu: robust SD of what the model leaves; noise included.
    explained: share of the variation across the surface that the model explains. shell_hu, bone_hu, disc_hu: tissues.
    tilt_sd_deg, height_sd_mm: standard errors. facing, facing_shell_hu: the next body's endplate. plain: fitted without
    shells; shell_hu is then that of bone.
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
    facing: Start
    facing_shell_hu: float
    plain: bool = False

    @property
    def ridge_hu(self) -> float:
        """How far the shell stands above bone and disc."""
        return self.shell_hu - max(self.bone_hu, self.disc_hu)

    @property
    def oddities(self) -> int:
        """How many of its numbers no endplate has: signs of a surface in the wrong place, or of a bridged disc."""
        apart = abs(self.facing.height_mm - self.height_mm)
        turn = np.hypot(self.facing.rise_left - self.rise_left, self.facing.rise_posterior - self.rise_posterior)
        tissues = (self.bone_hu, self.shell_hu, self.disc_hu, self.facing_shell_hu)
        return int(_oddities(tissues, apart, turn, self.concavity_mm, self.plain))

    @property
    def worth(self) -> float:
        """For choosing between fits of one endplate."""
        return self.explained - _ODD_COST * self.oddities - _TILT_COST * min(self.tilt_sd_deg, 10.0)

    def normal(self, axes: FloatArray) -> FloatArray:
        """(3,) LPS unit normal towards the head."""
        return unit(np.array([-self.rise_left, -self.rise_posterior, 1.0]) @ axes)


_INSIDE_MM, _OUTSIDE_MM, _BEYOND_MM = 7.0, 4.5, 2.5
"""How far in and out of the face, and into the next body, voxels are looked at, beyond half a slice."""
_START_BEND_MM = 1.2
_STEPS, _ROUGH_STEPS = 8, 3
_STARTS = ((0, 0, None), (4, 0, None), (3, 0, 2.5), (-3, 0, 2.5), (0, 0.25, None), (0, -0.25, 2.5), (2, -0.25, 2.5))
"""The steps set out from where the chain has the face, and from around it: mm towards the disc, rise to the back, and
mm to the next body's endplate (None: where the chain has it)."""
_PLACE, _SAME = [0, 1, 2, 5], np.array([0.5, 0.03, 0.03, 1.5])
"""Two valleys are one where these numbers, place and rises of the surface and place of the facing one, differ by less:
mm and 1.7 degrees. Engineering choice."""
_USUAL_SPREAD_HU = 30.0
_TISSUE_HU = np.array([130.0, 0, 0, 800, 0, 0, 80, 0, 0, 800, 130, 0])
_TISSUE_SD_HU = np.array([120.0, 40, 40, 400, 200, 200, 50, 25, 25, 400, 120, 12])
"""What bone, shell and disc (each with its slopes to left and back), the facing shell, its bone and the slope of bone
with depth are held to, each as if by a measurement of its SD. In thick slices tissues that no body has would else
excuse a wrong tilt. Shells 0.35-0.8 mm thick of 1200-1500 HU; in two public scans 400-900 HU at shell_mm."""
_EDGE_HU, _FACING_HU, _DISC_HU, _APART_MM, _DISC_WEDGE = 60.0, -150.0, (-30.0, 170.0), 1.0, 0.36
"""Least ridge or fall to the disc, least facing shell, usual disc, least height and largest wedge (20 degrees).
Of 349 right fits on phantoms with slices up to 3 mm 5 crossed one of these, all at bridged or narrow discs."""
_DENSEST_SHELL_HU = 2200.0
"""More than 1 mm of the densest cortex (1500 HU) holds, as a shell of 0.7 mm: in thick slices a wrong tilt puts a band
of sclerosis into the shell. Of 1164 right looks at phantoms with slices up to 3 mm none has more, of 544 at 4.8 mm
none."""
_CONVEX_MM = -1.0
"""Endplates are hollow or flat; on phantoms right fits stay above 0, a wrong one reached -1.6."""
_PLAIN_EDGE_HU = 25.0
"""Least fall to the disc where there is no shell (as in plain phantoms): what it is worth, the error of tilt tells."""
_FAINT_SHELL_HU = 120.0
"""With less above bone the shell may be none, and a surface without one is tried. Engineering choice."""
_ODD_COST, _TILT_COST = 0.08, 0.005
"""Engineering choice: of two fits that explain about as much the one with possible tissues and a certain tilt."""
_DEEPER = 6.0
"""A fit from elsewhere replaces the first by so many standard errors squared: odds of 20 to 1."""
_OPENER_DEG = 1.0
"""And where its tilt is no more open than by so much: an endplate tells its tilt, the edge of a texture does not."""
_CLEAR_TILT_DEG, _OTHER_TILT_DEG, _OTHER_SHIFTS_MM = 0.7, 5.0, np.arange(-1.5, 1.6, 0.5)
_OPEN_TILT_DEG, _VALLEYS = 3.0, 2
"""With a larger standard error of tilt the best of the tilts that tell it is a start of its own, so many times.
Engineering choice: as TrustSettings.tilt_sd_deg, beyond which no fit is believed by itself."""
_SCANNED = 400
"""About so many voxels are enough to choose among starts."""
_BIWEIGHT = 4.685
_CORRELATION = 12.0
"""Voxels that share noise and texture: so much the fit's errors are larger than those of independent voxels."""


def fit_endplate(
    volume: CTVolume, frame: LocalFrame, start: Start, other: Start, settings: EndplateSettings
) -> EndplateFit | None:
    """The endplate that is thought to be at `start`, with `other`, the facing one of the next body, fitted along.

    Where hardly a shell is seen the surface is fitted without one too, for a free shell leaves its place open.
    None when too few voxels are there. Raises PixelError.
    """
    superior = other.height_mm > start.height_mm
    half = _slice_mm(volume) / 2
    found = _voxels(volume, frame, (start, other), superior, half, settings)
    if found is None:
        return None
    problem = problem_of(volume, frame, found, (start, other), superior, half, settings)
    fit = _solve(problem, superior)
    if fit is None or fit.shell_hu - fit.bone_hu > _FAINT_SHELL_HU or fit.bone_hu - fit.disc_hu < _PLAIN_EDGE_HU:
        return fit
    plain = _solve(replace(problem, shell_mm=0.0), superior)
    return plain if plain is not None and plain.worth > fit.worth else fit


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
    box = [slice(int(first), int(last) + 1) for first, last in zip(low, high, strict=True)]
    place = _local_grid(geometry, frame, box, stride)
    x, y, z = place
    depth, beyond = (sign * (z - face.height(x, y)) for face in faces)
    near = (depth > -inside) & (depth < outside) & (beyond < _BEYOND_MM + half_slice) & (x * x + y * y < wide2)
    values, good = [], []
    for i in np.flatnonzero(near.any(axis=(1, 2))):
        k = int(low[0] + i)
        hu = volume.read_window(k, box[1], box[2])[::stride, ::stride][near[i]]
        values.append(hu.astype(np.float64))
        good.append(volume.valid(k, hu))
    return (place[:, near].T[np.concatenate(good)], np.concatenate(values)[np.concatenate(good)]) if values else None


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


def _local_grid(geometry: Geometry, frame: LocalFrame, box: Sequence[slice], stride: int) -> FloatArray:
    """(3, slices, rows, columns) local coordinates of every slice of a box, and of every `stride`th row and column."""
    slices, rows, columns = box
    first = np.stack([frame.local(origin) for origin in geometry.origins_lps_mm[slices]], axis=1)[..., None, None]
    row, column = (frame.axes @ step for step in (geometry.row_step_lps_mm, geometry.column_step_lps_mm))
    down = row[:, None, None, None] * np.arange(rows.start, rows.stop, stride)[:, None]
    across = column[:, None, None, None] * np.arange(columns.start, columns.stop, stride)
    return np.asarray(first + down + across)


# -- solving ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Valleys:
    """Where the steps from each start came to rest. numbers: (starts, 10) of the surfaces; tissues: (starts, 12) HU;
    spread: (starts,); normal: (starts, 10, 10) their normal equations."""

    numbers: FloatArray
    tissues: FloatArray
    spread: FloatArray
    normal: FloatArray

    def only(self, i: int) -> _Valley:
        return _Valley(self.numbers[i], self.tissues[i], float(self.spread[i]), self.normal[i])


@dataclass(frozen=True, eq=False, slots=True)
class _Valley:
    """One of them. numbers, normal: of the surfaces, and their normal equations."""

    numbers: FloatArray
    tissues: FloatArray
    spread: float
    normal: FloatArray

    @property
    def tilt_sd_deg(self) -> float:
        """From the curvature here."""
        return float(np.degrees(np.hypot(*self.errors[1:3])))

    @property
    def errors(self) -> FloatArray:
        return np.asarray(self.spread * np.sqrt(np.diag(np.linalg.inv(self.normal)) * _CORRELATION))


def _solve(problem: Problem, superior: bool) -> EndplateFit | None:
    """The fit from where the chain has the face, or one from elsewhere that is clearly better."""
    if len(problem.hu) < 150:
        return None
    near, deepest = _rough(problem)
    first, tilt_sd_deg = _certain(problem, _settled(problem, near[None], _STEPS).only(0))
    fit = _result(problem, first, tilt_sd_deg, superior)
    if deepest is None or (np.abs(deepest - first.numbers)[_PLACE] < _SAME).all():
        return fit
    second, tilt_sd_deg = _certain(problem, _settled(problem, deepest[None], _STEPS).only(0))
    other = _result(problem, second, tilt_sd_deg, superior)
    numbers = np.stack([first.numbers, second.numbers])
    depths = _depths(problem, numbers, min(first.spread, second.spread), len(problem.hu))
    possible = other.oddities <= fit.oddities and other.tilt_sd_deg <= fit.tilt_sd_deg + _OPENER_DEG
    return other if possible and depths[1] < depths[0] - _DEEPER else fit


def _rough(problem: Problem) -> tuple[FloatArray, FloatArray | None]:
    """(10,) about where the steps come to rest from the problem's centre, and where in the deepest valley around it, by
    a part of the voxels; None when that is the one.

    Where a disc is low or slices are thick there are several: the surface may come to rest on the next body's endplate,
    or lean across slices.
    """
    part = _part(problem)
    starts = np.tile(problem.centre, (len(_STARTS), 1))
    starts[:, 3:5] = _START_BEND_MM
    for start, (shift, turn, gap) in zip(starts, _STARTS, strict=True):
        start[0] += shift
        start[[2, 7]] += turn
        start[5] = max(start[0] + 1, start[5]) if gap is None else start[0] + gap
    valleys = _settled(part, starts, _ROUGH_STEPS)
    depths = _depths(part, valleys.numbers, float(valleys.spread.min()), len(problem.hu))
    best = int(depths.argmin())
    return valleys.numbers[0], valleys.numbers[best] if best else None


def _certain(problem: Problem, valley: _Valley) -> tuple[_Valley, float]:
    """A valley, or a deeper one that is found where its tilt is told, and the standard error of its tilt."""
    tilt_sd_deg, better = _tilt(problem, valley)
    for _ in range(_VALLEYS):
        if tilt_sd_deg < _OPEN_TILT_DEG or better is None:
            break
        # Hardly worse, or even better, 5 degrees away: the steps may have come to rest beside the deeper valley.
        other = _settled(_part(problem), better[None], _STEPS).numbers[0]
        if _cost(problem, other, valley.spread) >= _cost(problem, valley.numbers, valley.spread):
            break
        valley = _settled(problem, other[None], _STEPS).only(0)
        tilt_sd_deg, better = _tilt(problem, valley)
    return valley, tilt_sd_deg


def _depths(part: Problem, numbers: FloatArray, spread: float, count: int) -> FloatArray:
    """(starts,) what surfaces and tissues leave of `count` voxels such as these, and how far both are from usual ones,
    in standard errors squared.

    Infinite where more of its numbers than of the first are such as no endplate has: in real bone a surface that means
    nothing may explain more.
    """
    columns = faces_of(part, numbers).columns(part.slopes)
    _, tissues = _projected(columns, part.hu, np.ones((len(columns), len(part.hu))), np.full(len(columns), spread))
    left = np.minimum(np.abs(part.hu - (tissues[:, None] @ columns)[:, 0]), 3 * spread)
    bone, shell, disc, facing, facing_bone = tissues[:, [0, 3, 6, 9, 10]].T
    seen_hu = (bone, shell, disc, facing) if part.shell_mm else (bone, bone, disc, facing_bone)
    own, other = numbers[:, :3].T, numbers[:, 5:8].T
    apart, turn = np.abs(other[0] - own[0]), np.hypot(*(other[1:] - own[1:]))
    odd = _oddities(seen_hu, apart, turn, numbers[:, 3:5].mean(axis=1), not part.shell_mm)
    held = np.square((numbers - part.centre) / part.sd).sum(axis=1)
    usual = np.square((tissues - _TISSUE_HU) / _TISSUE_SD_HU).sum(axis=1)
    depths = np.square(left).mean(axis=1) * count / (spread**2 * _CORRELATION) + held + usual
    return np.where(odd > odd[0], np.inf, depths)


def _oddities(
    tissues: Sequence[float | FloatArray],
    apart_mm: float | FloatArray,
    turn: float | FloatArray,
    concavity_mm: float | FloatArray,
    plain: bool,
) -> npt.NDArray[np.intp]:
    """How many numbers no endplate has. tissues: HU of bone, shell, disc and facing shell; apart_mm, turn: of both
    surfaces."""
    bone, shell, disc, facing = (np.asarray(hu) for hu in tissues)
    edge = np.maximum(shell - np.maximum(bone, disc), bone - disc)
    signs = (
        edge < (_PLAIN_EDGE_HU if plain else _EDGE_HU),
        shell > _DENSEST_SHELL_HU,
        facing < _FACING_HU,
        (disc <= _DISC_HU[0]) | (disc >= _DISC_HU[1]),
        np.asarray(apart_mm) < _APART_MM,
        np.asarray(turn) > _DISC_WEDGE,
        np.asarray(concavity_mm) < _CONVEX_MM,
    )
    return np.asarray(np.sum(signs, axis=0))


def _settled(problem: Problem, numbers: FloatArray, steps: int) -> _Valleys:
    """Gauss-Newton steps from (starts, 10) numbers."""
    many = len(numbers)
    weight, spread = np.ones((many, len(problem.hu))), np.full(many, _USUAL_SPREAD_HU)
    slopes = problem.slopes
    for step in range(steps):
        faces = faces_of(problem, numbers)
        columns = faces.columns(slopes)
        gram, tissues = _projected(columns, problem.hu, weight, spread)
        left = problem.hu - (tissues[:, None] @ columns)[:, 0]
        spread = 1.4826 * np.median(np.abs(left), axis=1) + 1.0
        if step > 1:
            weight = np.square(np.maximum(0, 1 - np.square(left / (_BIWEIGHT * spread[:, None]))))
            gram, tissues = _projected(columns, problem.hu, weight, spread)
            left = problem.hu - (tissues[:, None] @ columns)[:, 0]
        change = np.concatenate([-rate[:, None] * problem.shape for rate in faces.rates(slopes, tissues)], axis=1)
        weighed = change * weight[:, None]
        # What tissues explain of a change is no change: the rest of it makes up the normal equations.
        shared = columns @ weighed.swapaxes(1, 2)
        own = change @ weighed.swapaxes(1, 2) - shared.swapaxes(1, 2) @ np.linalg.solve(gram, shared)
        # Prior rows: each number is held to its centre as if by a measurement of its SD.
        held = np.square(spread[:, None] * np.sqrt(_CORRELATION) / problem.sd)
        normal = own + held[:, :, None] * np.eye(held.shape[1])
        wanted = (weighed @ left[..., None])[..., 0] + held * (problem.centre - numbers)
        move = np.linalg.solve(normal, wanted[..., None])[..., 0]
        far = np.abs(move[:, [0, 5]]).max(axis=1)
        numbers = numbers + move * np.minimum(1.0, 1.5 / np.maximum(1e-9, far))[:, None]
        if np.abs(move[:, 0]).max() < 0.005 and np.abs(move[:, 1:3]).max() < 0.0005:
            break
    return _Valleys(numbers, tissues, spread, normal)


def _projected(
    columns: FloatArray, hu: FloatArray, weight: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The normal equations (starts, 12, 12) of the tissues, and their HU (starts, 12).

    Each is held to its usual HU, which keeps the equations well conditioned.
    """
    held = np.square(spread[:, None] * np.sqrt(_CORRELATION) / _TISSUE_SD_HU)
    weighed = columns * weight[:, None]
    gram = weighed @ columns.swapaxes(1, 2) + held[:, :, None] * np.eye(held.shape[1])
    return gram, np.linalg.solve(gram, (weighed @ hu + held * _TISSUE_HU)[..., None])[..., 0]


def _part(problem: Problem) -> Problem:
    """About _SCANNED voxels of it."""
    every = max(1, len(problem.hu) // _SCANNED)
    return replace(
        problem,
        shape=problem.shape[:, ::every],
        slopes=problem.slopes[:, ::every],
        height=problem.height[::every],
        hu=problem.hu[::every],
    )


def _left(part: Problem, numbers: FloatArray, shifts: FloatArray) -> FloatArray:
    """(shifts, n) size of what the best tissues leave when the surface is moved by each shift, mm."""
    depth = part.height - numbers[:5] @ part.shape - shifts[:, None]
    beyond = part.height - numbers[5:] @ part.shape
    columns = seen(part, depth, beyond).columns(part.slopes)
    gram = columns @ columns.swapaxes(1, 2) + 1e-6 * len(part.hu) * np.eye(columns.shape[1])
    tissues = np.linalg.solve(gram, (columns @ part.hu)[..., None])
    return np.asarray(np.abs(part.hu - (tissues.swapaxes(1, 2) @ columns)[:, 0]))


def _tilt(problem: Problem, valley: _Valley) -> tuple[float, FloatArray | None]:
    """The standard error of the tilt, by how much worse tilts of 5 degrees more or less explain the voxels, and the
    best of these (None where the error is small anyway); 50 where it, with whatever tissues, explains them better.

    Where an endplate lies in one slice, the misfit stays level and then rises steeply: its curvature at the best place
    tells too little.
    """
    if valley.tilt_sd_deg < _CLEAR_TILT_DEG:
        return valley.tilt_sd_deg, None
    rise, own = float(np.tan(np.radians(_OTHER_TILT_DEG))), _cost(problem, valley.numbers, valley.spread)
    worse, best = np.inf, valley.numbers
    for turn in ((rise, 0.0), (-rise, 0.0), (0.0, rise), (0.0, -rise)):
        tried = valley.numbers.copy()
        tried[[1, 2]] += turn
        costs = _costs(problem, tried, _OTHER_SHIFTS_MM, valley.spread)
        i = int(costs.argmin())
        if costs[i] - own < worse:
            worse, best = float(costs[i] - own), tried
            best[0] += _OTHER_SHIFTS_MM[i]
    return float(_OTHER_TILT_DEG / np.sqrt(max(worse, 0.01))), best


def _cost(problem: Problem, numbers: FloatArray, spread: float) -> float:
    return float(_costs(problem, numbers, np.zeros(1), spread)[0])


def _costs(problem: Problem, numbers: FloatArray, shifts: FloatArray, spread: float) -> FloatArray:
    """(shifts,) misfit in standard errors squared when the surface is moved by each shift, mm, whatever the tissues."""
    part = _part(problem)
    left = np.minimum(_left(part, numbers, shifts), 3 * spread)
    scale = len(problem.hu) / len(part.hu) / (spread**2 * _CORRELATION)
    held = np.square((numbers - problem.centre) / problem.sd).sum()
    return np.asarray(np.square(left).sum(axis=1) * scale + held)


def _result(problem: Problem, valley: _Valley, tilt_sd_deg: float, superior: bool) -> EndplateFit:
    sign = 1.0 if superior else -1.0
    numbers, tissues, spread = valley.numbers, valley.tissues, valley.spread
    columns = faces_of(problem, numbers).columns(problem.slopes)
    left = np.minimum(np.abs(problem.hu - tissues @ columns), 4 * spread)
    # Against a smooth field without any face: what does the face explain?
    depth = problem.height - problem.centre[:5] @ problem.shape
    smooth = np.concatenate([depth[None], problem.slopes])
    flat = problem.hu - np.linalg.solve(smooth @ smooth.T, smooth @ problem.hu) @ smooth
    explained = 1 - float(np.mean(left**2)) / max(1e-9, float(np.mean(np.minimum(np.abs(flat), 400) ** 2)))
    return EndplateFit(
        facing=Start(*(sign * float(number) for number in numbers[5:8])),
        facing_shell_hu=float(tissues[9]) if problem.shell_mm else float(tissues[10]),
        plain=not problem.shell_mm,
        height_mm=sign * float(numbers[0]),
        rise_left=sign * float(numbers[1]),
        rise_posterior=sign * float(numbers[2]),
        concavity_mm=float(numbers[3:5].mean()),
        residual_hu=spread,
        explained=explained,
        shell_hu=float(tissues[3 if problem.shell_mm else 0]),
        bone_hu=float(tissues[0]),
        disc_hu=float(tissues[6]),
        tilt_sd_deg=tilt_sd_deg,
        height_sd_mm=float(valley.errors[0]),
    )
