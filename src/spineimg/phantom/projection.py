"""Metal through the physics of a CT: path lengths, polychromatic beam, noise, filtered back-projection.

Everything happens in one slice plane, in mm from the isocentre: x along the image's columns, y along its rows. A ray of
view angle a and offset s is the line x cos a + y sin a = s. What is computed is the *difference* that metal makes to a
water-corrected scan, in mm of water; the image without metal comes from elsewhere. Fan-beam data are made at the fan's
own rays and rebinned to parallel ones, as scanners do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spineimg.errors import SpineImgError
from spineimg.geometry import FloatArray
from spineimg.phantom.samples import Field
from spineimg.phantom.spectrum import attenuation, spectrum
from spineimg.settings import setting

_OVER = 2
"""Rays to a detector bin: their intensities are averaged, as a detector does."""
_FINE = 4
"""Samples to a bin of a filtered projection, so that the nearest one is near enough."""
_VIEWS_AT_ONCE = 60
_FIRST_VIEW = 0.37
"""Angle of the first view in steps: no edge of a shape is likely to lie along a ray."""


@dataclass(frozen=True, slots=True)
class Beam:
    """The scanner's physics. `spectrum`: a name of `spineimg.phantom.spectrum`, or e.g. "70 keV"."""

    spectrum: str = "120 kV"
    fan: bool = False
    views: int = 720
    """Parallel views in half a turn; a fan has twice as many in a whole turn."""
    bin_mm: float = setting(0.3, "mm", (0.1, 1), "0.5-0.6 mm with a flying focus", "detector bin at the isocentre")
    source_mm: float = setting(570.0, "mm", (400, 700), "usual 540-600", "focus to isocentre, for a fan")
    scatter: float = setting(
        0.0, "1", (0, 0.1), "engineering choice: below 0.003", "uncorrected scatter over primary behind the body"
    )
    hardening: float = setting(
        0.6,
        "1",
        (0, 1),
        "brings streaks to the published -600 to -850 HU; 1: water correction only",
        "part of the metal's beam hardening that the scanner's own correction leaves",
    )
    calm_quanta: float = setting(30.0, "quanta", (0, 1e4), "adaptive filter, Hsieh 1998", "weaker signals are smoothed")
    electronic_sd: float = setting(10.0, "quanta", (0, 100), "evidence: 10 e", "SD of the electronic noise in a bin")
    floor: float = setting(1.0, "quanta", (0.1, 10), "engineering choice", "least signal that is believed")

    def __post_init__(self) -> None:
        if self.views < 90:
            raise SpineImgError(f"a scan needs at least 90 views, found {self.views}")
        spectrum(self.spectrum)


@dataclass(frozen=True, slots=True)
class EllipticBody:
    """What the beam crosses beside the metal: ellipses (x, y, half width, half depth, fraction of bone), mm.

    The first is the trunk, of water; the others lie in it and replace water by that much cortical bone.
    """

    ellipses: tuple[tuple[float, float, float, float, float], ...]

    def paths(self, angle: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Water and bone, mm, along rays; `angle` and `offset` broadcast against one another."""
        water = np.zeros(np.broadcast_shapes(angle.shape, offset.shape))
        bone = np.zeros_like(water)
        for x, y, a, b, fraction in self.ellipses:
            reach2 = np.square(a * np.cos(angle)) + np.square(b * np.sin(angle))
            away2 = np.square(offset - x * np.cos(angle) - y * np.sin(angle))
            chord = 2 * a * b * np.sqrt(np.maximum(reach2 - away2, 0)) / reach2
            if fraction == 0:
                water += chord
            else:
                water -= fraction * chord
                bone += fraction * chord
        return water, bone


# -- path lengths -----------------------------------------------------------------------------------------------------


def polygon_paths(
    outlines: Sequence[FloatArray], angles: FloatArray, first_mm: float, step_mm: float, count: int
) -> FloatArray:
    """(views, count) mm of a flat shape along parallel rays, exact for polygons.

    outlines: (n, 2) vertices (x, y) mm in order, the first not repeated, counterclockwise around the shape and
    clockwise around holes. The chord through a polygon is piecewise linear in the ray's offset: its second derivative
    is a sum of spikes at the vertices, which are dealt to their two nearest rays and summed up twice.
    """
    spikes = np.zeros((len(angles), count + 1))
    if not outlines:
        return spikes[:, :count]
    x, y = np.concatenate(outlines).T
    lengths = [len(o) for o in outlines]
    following = np.arange(len(x)) + 1
    following[np.cumsum(lengths) - 1] = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    before = np.empty_like(following)
    before[following] = np.arange(len(x))
    for begin in range(0, len(angles), _VIEWS_AT_ONCE):
        cos, sin = (f(angles[begin : begin + _VIEWS_AT_ONCE])[:, None] for f in (np.cos, np.sin))
        at = (x * cos + y * sin - first_mm) / step_mm
        along = y * cos - x * sin
        run = at[:, following] - at
        run = np.where(np.abs(run) < 1e-9, 1e-9, run)
        slope = (along[:, following] - along) / run
        turn = slope[:, before] - slope
        at = np.clip(at, 0, count - 1e-6)
        low = at.astype(np.int64)
        part = at - low
        low += (np.arange(len(at)) * (count + 1))[:, None]
        flat = np.bincount(low.ravel(), (turn * (1 - part)).ravel(), len(at) * (count + 1))
        flat += np.bincount(low.ravel() + 1, (turn * part).ravel(), len(at) * (count + 1))
        spikes[begin : begin + _VIEWS_AT_ONCE] = flat.reshape(len(at), count + 1)
    # The ramp of a spike dealt to ray k starts at the ray after it.
    ramps = np.cumsum(np.cumsum(spikes, axis=1), axis=1)
    paths = np.zeros((len(angles), count))
    paths[:, 1:] = ramps[:, : count - 1]
    return np.maximum(paths, 0)


def outlines_of(distance_mm: Field, x_mm: FloatArray, y_mm: FloatArray) -> list[FloatArray]:
    """Outlines of the region of negative distance, for `polygon_paths`. distance_mm: (y, x); it must end outside."""
    from contourpy import contour_generator

    lines = contour_generator(x_mm, y_mm, -distance_mm).lines(0.0)
    return [np.asarray(line[:-1], dtype=np.float64) for line in lines if len(line) > 3]


@dataclass(frozen=True, eq=False, slots=True)
class Resampling:
    """Bilinear interpolation at fixed places of a table; 0 beyond its columns."""

    first: npt.NDArray[np.int32]
    """Flat index of the upper left neighbour."""
    part_row: Field
    part_column: Field
    columns: int
    shape: tuple[int, ...]

    @classmethod
    def at(cls, row: FloatArray, column: FloatArray, size: tuple[int, int]) -> Resampling:
        """For places (row, column), as fractions, in tables of a size."""
        low_row = np.clip(np.floor(row), 0, size[0] - 2)
        low_column = np.clip(np.floor(column), 0, size[1] - 2)
        first = (low_row * size[1] + low_column).astype(np.int32).ravel()
        parts = ((row - low_row).astype(np.float32).ravel(), (column - low_column).astype(np.float32).ravel())
        return cls(first, np.clip(parts[0], 0, 1), np.clip(parts[1], 0, 1), size[1], np.shape(row))

    def __call__(self, table: Field) -> Field:
        """Values at the places. Only places with something beside them are worked out."""
        flat = table.ravel()
        lone = flat != 0
        beside = lone.copy()
        for shift in (1, self.columns, self.columns + 1):
            beside[:-shift] |= lone[shift:]
        where = np.flatnonzero(beside.take(self.first))
        first = self.first.take(where)
        down, right = self.part_row.take(where), self.part_column.take(where)
        upper = flat.take(first) * (1 - right) + flat.take(first + 1) * right
        lower = flat.take(first + self.columns) * (1 - right) + flat.take(first + self.columns + 1) * right
        result = np.zeros(len(self.first), np.float32)
        result[where] = upper * (1 - down) + lower * down
        return result.reshape(self.shape)


# -- the scanner ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scanner:
    """One slice plane's rays around an isocentre, and its reconstruction.

    radius_mm: how far pixels and metal lie from the isocentre. sigma_mm: the image's blur, an in-plane Gaussian.
    quanta: per bin, without an object; None for no noise.
    """

    beam: Beam
    body: EllipticBody
    radius_mm: float
    sigma_mm: float
    quanta: float | None = None

    @cached_property
    def bins(self) -> int:
        return 2 * int(np.ceil((self.radius_mm + 2.0) / self.beam.bin_mm)) + 1

    @cached_property
    def angles(self) -> FloatArray:
        """(views,) of the parallel rays."""
        return np.asarray((np.arange(self.beam.views) + _FIRST_VIEW) * (np.pi / self.beam.views), dtype=np.float64)

    @property
    def _first_mm(self) -> float:
        """Offset of the first fine ray: `_OVER` rays sit evenly in each bin."""
        return -self.bins / 2 * self.beam.bin_mm + 0.5 * self.beam.bin_mm / _OVER

    def paths(self, outlines: Sequence[FloatArray]) -> Field:
        """(views, rays) mm along the fine parallel rays."""
        step = self.beam.bin_mm / _OVER
        return polygon_paths(outlines, self.angles, self._first_mm, step, self.bins * _OVER).astype(np.float32)

    def difference(self, paths_mm: Mapping[str, Field], random: np.random.Generator | None = None) -> Field:
        """(views, bins) mm of water that the metal adds to the corrected projections.

        paths_mm: material -> (views, rays) from `paths`. random: for the noise that the metal adds to the scan's own.
        """
        if self.beam.fan:
            return self._rebinned(self._measured(self._to_fan(paths_mm), random))
        return self._measured(paths_mm, random)

    @cached_property
    def _background(self) -> tuple[Field, Field, Field, Field]:
        """Water and bone (mm), signal and stray signal of every fine ray, each (views, rays), without metal."""
        angle, offset = self._fan_rays if self.beam.fan else self._parallel_rays
        water, bone = self.body.paths(angle, offset)
        physics = _physics(self.beam.spectrum)
        clear = physics.intensity([("water", water.ravel()), ("bone", bone.ravel())]).reshape(water.shape)
        x, y, *_ = self.body.ellipses[0]
        thick, _ = self.body.paths(angle, x * np.cos(angle) + y * np.sin(angle))
        stray = self.beam.scatter * physics.intensity([("water", thick.ravel())]).reshape(thick.shape)
        stray = np.broadcast_to(stray, water.shape)
        first, second, third, fourth = (part.astype(np.float32) for part in (water, bone, clear + stray, stray))
        return first, second, third, fourth

    @property
    def _parallel_rays(self) -> tuple[FloatArray, FloatArray]:
        offset = self._first_mm + np.arange(self.bins * _OVER) * self.beam.bin_mm / _OVER
        return self.angles[:, None], offset[None]

    def _measured(self, paths_mm: Mapping[str, Field], random: np.random.Generator | None) -> Field:
        """(views, bins) mm of water, from paths along the fine rays."""
        crossed = np.logical_or.reduce([p > 0 for p in paths_mm.values()])
        crossed = crossed.reshape(len(crossed), -1, _OVER).any(axis=-1)
        result = np.zeros(crossed.shape, np.float32)
        if not crossed.any():
            return result
        fine = np.repeat(crossed, _OVER, axis=1)
        water, bone, clear, stray = (field[fine] for field in self._background)
        metal = {name: p[fine] for name, p in paths_mm.items()}
        kept = np.maximum(water - np.add.reduce(list(metal.values())), 0)
        physics = _physics(self.beam.spectrum)
        through = physics.intensity([("water", kept), ("bone", bone), *metal.items()]) + stray
        before, after = (signal.reshape(-1, _OVER).mean(axis=1) for signal in (clear, through))
        noisy = after if random is None or self.quanta is None else self._counted(before, after, random)
        result[crossed] = physics.water_mm(noisy) - physics.water_mm(before)
        if self.beam.hardening < 1:
            straight = sum(physics.straight(name) * p.reshape(-1, _OVER).mean(axis=1) for name, p in metal.items())
            hardened = physics.water_mm(after) - physics.water_mm(before)
            result[crossed] += (1 - self.beam.hardening) * (straight - hardened)
        if noisy is not after:
            self._calm(result, crossed, after)
        return result

    def _counted(self, before: FloatArray, after: FloatArray, random: np.random.Generator) -> FloatArray:
        """The signal with the noise that the metal adds: what the image already has is left out of it."""
        beam, expected = self.beam, (self.quanta or 0.0) * after
        counted = random.poisson(expected) + beam.electronic_sd * random.standard_normal(len(expected))
        logs = np.log(np.maximum(counted, beam.floor)) - np.log(np.maximum(expected, beam.floor))
        quiet2 = beam.electronic_sd**2
        had, has = ((n + quiet2) / np.square(n) for n in ((self.quanta or 0.0) * before, np.maximum(expected, 1e-3)))
        share = np.sqrt(np.maximum(0, 1 - had / np.maximum(has, had)))
        return np.asarray(np.maximum(after, beam.floor / (self.quanta or 1.0)) * np.exp(share * logs))

    def _calm(self, result: Field, crossed: npt.NDArray[np.bool_], after: FloatArray) -> None:
        """Smooths, in place, what was measured with few quanta: every scanner does, or streaks would fill the image."""
        from scipy.ndimage import gaussian_filter

        weak = np.zeros(crossed.shape, np.float32)
        weak[crossed] = np.clip(2 - (self.quanta or 0.0) * after / max(self.beam.calm_quanta, 1e-6), 0, 1)
        if weak.any():
            result += weak * (gaussian_filter(result, (1.0, 2.0), mode="nearest") - result)

    # -- fan --------------------------------------------------------------------------------------------------------

    @cached_property
    def _fan_rays(self) -> tuple[FloatArray, FloatArray]:
        """(angle, offset), each (2 views, rays), of the fan's own fine rays."""
        turn = (np.arange(2 * self.beam.views) + _FIRST_VIEW) * (np.pi / self.beam.views)
        half_deg = np.arcsin((self.bins / 2 * self.beam.bin_mm) / self.beam.source_mm)
        rays = self.bins * _OVER
        gamma = (np.arange(rays) - (rays - 1) / 2) * (2 * half_deg / rays)
        return turn[:, None] + gamma, np.broadcast_to(self.beam.source_mm * np.sin(gamma), (len(turn), rays))

    @cached_property
    def _fan_places(self) -> Resampling:
        """Where the fan's rays lie among the parallel ones, which have one more view at either end."""
        angle, offset = self._fan_rays
        # A ray seen from the other side: the same line with the sign of its offset turned.
        half_turns = np.floor(angle / np.pi)
        sign = np.where(half_turns % 2 == 0, 1.0, -1.0)
        view = (angle - half_turns * np.pi) * (self.beam.views / np.pi) - _FIRST_VIEW + 1
        ray = (sign * offset - self._first_mm) * (_OVER / self.beam.bin_mm)
        return Resampling.at(view, ray, (self.beam.views + 2, self.bins * _OVER))

    def _to_fan(self, paths_mm: Mapping[str, Field]) -> dict[str, Field]:
        """The last view in front and the first one behind, mirrored, serve angles between the two."""
        return {name: self._fan_places(np.concatenate([p[-1:, ::-1], p, p[:1, ::-1]])) for name, p in paths_mm.items()}

    @cached_property
    def _parallel_places(self) -> tuple[Resampling, Resampling]:
        """Where parallel rays lie among the fan's bins, which have the first view again at their end: both ways."""
        views, bins = self.beam.views, self.bins
        offset = (np.arange(bins) - (bins - 1) / 2) * self.beam.bin_mm
        half = np.arcsin((bins / 2 * self.beam.bin_mm) / self.beam.source_mm)
        both = []
        for sign in (1.0, -1.0):
            gamma = np.arcsin(sign * offset / self.beam.source_mm)
            turn = self.angles[:, None] + (0 if sign > 0 else np.pi) - gamma
            view = (turn * (views / np.pi) - _FIRST_VIEW) % (2 * views)
            ray = np.broadcast_to(gamma * (bins / (2 * half)) + (bins - 1) / 2, view.shape)
            both.append(Resampling.at(view, ray, (2 * views + 1, bins)))
        return both[0], both[1]

    def _rebinned(self, fan: Field) -> Field:
        """(views, bins) parallel projections, each the mean of the two rays that run along it."""
        around = np.concatenate([fan, fan[:1]])
        there, back = self._parallel_places
        return np.asarray((there(around) + back(around)) / 2)

    # -- reconstruction -----------------------------------------------------------------------------------------------

    @cached_property
    def _filter(self) -> FloatArray:
        """(n,) response of the ramp with the image's blur, on the frequencies of a padded projection."""
        from scipy.fft import next_fast_len, rfft

        padded = next_fast_len(2 * self.bins, real=True)
        step = self.beam.bin_mm
        k = np.minimum(np.arange(padded), padded - np.arange(padded))
        ramp = np.zeros(padded)
        ramp[0] = 1 / (4 * step**2)
        odd = k % 2 == 1
        ramp[odd] = -1 / np.square(np.pi * k[odd] * step)
        frequency = np.fft.rfftfreq(padded, step)
        # The bin has blurred already.
        rest = max(self.sigma_mm**2 - step**2 / 12, 0.0)
        return np.asarray(rfft(ramp).real * step * np.exp(-2 * np.pi**2 * rest * np.square(frequency)))

    def noise_gain(self) -> float:
        """SD of the image, in 1/mm, for an SD of 1 mm of water in every bin of the projections."""
        from scipy.fft import irfft

        kernel = irfft(self._filter)
        return float(np.pi / np.sqrt(self.beam.views) * np.sqrt(np.square(kernel).sum()))

    def image(self, projections_mm: Field, x_mm: FloatArray, y_mm: FloatArray) -> Field:
        """(rows, columns) HU at pixels (x of columns, y of rows), from projections (views, bins) in mm of water."""
        from scipy.fft import irfft, rfft

        padded = self._padded
        wave = rfft(projections_mm, padded, axis=1) * self._filter.astype(np.float32)
        fine = irfft(wave, padded * _FINE, axis=1)[:, : self.bins * _FINE] * np.float32(
            _FINE * np.pi / self.beam.views * 1000
        )
        middle = (self.bins - 1) / 2 * _FINE + 0.5
        scale = _FINE / self.beam.bin_mm
        total = np.zeros((len(y_mm), len(x_mm)), np.float32)
        for view, angle in zip(fine, self.angles, strict=True):
            along_x = (x_mm * (np.cos(angle) * scale) + middle).astype(np.float32)
            along_y = (y_mm * (np.sin(angle) * scale)).astype(np.float32)
            total += view.take((along_y[:, None] + along_x).astype(np.int32), mode="clip")
        return total

    @property
    def _padded(self) -> int:
        from scipy.fft import next_fast_len

        return int(next_fast_len(2 * self.bins, real=True))


@dataclass(frozen=True, eq=False)
class _Physics:
    """Energies of one spectrum, and the correction that makes water read straight."""

    index: npt.NDArray[np.intp]
    weight: FloatArray
    table_mm: FloatArray
    table_log: FloatArray

    def intensity(self, paths_mm: Sequence[tuple[str, npt.NDArray[np.floating[Any]]]]) -> FloatArray:
        """(n,) part of the energy that passes (material, (n,) mm), one after the other."""
        lengths = np.stack([np.asarray(path, dtype=np.float32) for _, path in paths_mm])
        per_mm = np.stack([attenuation(name) for name, _ in paths_mm], axis=1).astype(np.float32)
        total = np.zeros(lengths.shape[1])
        for i, weight in zip(self.index, self.weight, strict=True):
            total += weight * np.exp(-(per_mm[i] @ lengths))
        return total

    def straight(self, name: str) -> float:
        """mm of water that 1 mm of a material counts for behind a body, 20 mm of it: along a screw, not across it."""
        behind = np.array([250.0, 250.0 - 20.0])
        signal = self.intensity([("water", behind), (name, np.array([0.0, 20.0]))])
        return float(np.diff(self.water_mm(signal))[0] / 20.0)

    def water_mm(self, signal: FloatArray) -> FloatArray:
        """(n,) mm of water that would give that signal."""
        return np.interp(-np.log(signal), self.table_log, self.table_mm)


@lru_cache(maxsize=8)
def _physics(name: str) -> _Physics:
    index, weight = spectrum(name)
    lengths = np.linspace(-50.0, 1500.0, 6201)
    bare = _Physics(index, weight, lengths, lengths)
    return _Physics(index, weight, lengths, -np.log(_sum_of_exponentials(bare, lengths)))


def _sum_of_exponentials(physics: _Physics, lengths: FloatArray) -> FloatArray:
    mu = attenuation("water")[physics.index]
    return np.asarray(np.exp(-mu * lengths[:, None]) @ physics.weight)


def quanta_for(scanner: Scanner, noise_sd_hu: float, share: float) -> float:
    """Quanta per bin that give the image this noise in the middle of the body.

    share: sum of squared weights of the planes that a slice averages; each plane has its own quanta.
    """
    physics = _physics(scanner.beam.spectrum)
    angle = np.linspace(0, np.pi, 90, endpoint=False)
    x, y, *_ = scanner.body.ellipses[0]
    water, bone = scanner.body.paths(angle, x * np.cos(angle) + y * np.sin(angle))
    signal = physics.intensity([("water", water), ("bone", bone)])
    per_mm = -np.gradient(physics.table_mm, physics.table_log)
    slope = np.interp(-np.log(signal), physics.table_log, np.abs(per_mm))
    wanted = noise_sd_hu / 1000 / scanner.noise_gain()
    # A fan sees every ray twice.
    share = share / 2 if scanner.beam.fan else share
    return float(np.mean(np.square(slope) / signal) * share / wanted**2)
