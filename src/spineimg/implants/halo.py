"""The lucent zone around one screw: where the image says bone begins, beyond the outer thread.

Voxels around the shaft are fitted, uninterpolated, by `lucency.solve`: first with one width everywhere, then the width
of every piece of the unrolled surface with everything else held, and both in turn. What all pieces share (metal,
hardening, what fills the zone) is first fitted to the front half of the shaft, where the screw lies in the vertebral
body, then to the pieces that the model explains best: cortex, canal and joints within a few millimetres of the screw
are no part of it. The interval of the median width comes from the misfit when the whole map is widened or narrowed and
everything else is fitted anew; the misfit is divided by `deflation`, because neighbouring voxels err together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import ndimage

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.halo_settings import HaloSettings
from spineimg.implants.hardening import HardeningSettings, Metal, hardening_basis
from spineimg.implants.lucency import Columns, Priors, Solution, local_fits, solve
from spineimg.implants.metal_map import Windows
from spineimg.implants.model import Shaft
from spineimg.implants.profile import Blur, DiscTables, blurred_disc
from spineimg.implants.unrolled import BoolArray, Cells, ShaftFrame, ShellVoxels, shell_voxels

_CHI2_90 = 2.706
"""Quantile of chi-squared with one degree of freedom that holds 90 %."""
_QUIET_HU = 20.0


@dataclass(frozen=True, eq=False, slots=True)
class HaloFit:
    """What the fit found. Arrays are (depths, angles) of `cells`.

    width_mm, sd_mm; bone_hu: bone beside each piece; voxels: how many; misfit: median size of the residuals in units of
    the noise. shift_mm: 90 % interval of a common change of the width map. cranio_caudal_mm, in_plane_mm: (low, best,
    high) of one width fitted to the voxels on those sides alone. trajectory_hu: bone 3 mm and more outside the thread.
    """

    cells: Cells
    width_mm: FloatArray
    sd_mm: FloatArray
    bone_hu: FloatArray
    voxels: FloatArray
    misfit: FloatArray
    shift_mm: tuple[float, float]
    cranio_caudal_mm: tuple[float, float, float]
    in_plane_mm: tuple[float, float, float]
    halo_hu: float
    rim_hu: float
    noise_hu: float
    trajectory_hu: float | None


def fit_halo(
    windows: Windows,
    shaft: Shaft,
    metal: Metal,
    blur: Blur,
    settings: HaloSettings | None = None,
    hardening: HardeningSettings | None = None,
) -> HaloFit | None:
    """The zone around one shaft, None where too few voxels can be fitted.

    metal: everything, this shaft too. blur: of the scan.
    """
    shell = gather(windows, shaft, metal, settings)
    return fit_shell(shell, shaft, metal, blur, settings, hardening) if shell else None


@dataclass(frozen=True, eq=False, slots=True)
class Shell:
    """What of the scan one fit needs: voxels in the order of the pieces they lie in, and those of the front part."""

    geometry: Geometry
    frame: ShaftFrame
    voxels: ShellVoxels
    cells: Cells
    front: BoolArray


def gather(windows: Windows, shaft: Shaft, metal: Metal, settings: HaloSettings | None = None) -> Shell | None:
    """The voxels around one shaft, None where they are too few. The only part of the fit that reads the scan."""
    chosen = settings or HaloSettings()
    frame = ShaftFrame.of(shaft, windows.geometry.normal_lps)
    voxels = _voxels(windows, shaft, frame, metal, chosen)
    cells = Cells.cover(_depths(shaft, chosen), chosen.cell_mm, chosen.sectors)
    voxels = voxels.take(np.argsort(cells.number(voxels.depth_mm, voxels.angle_rad), kind="stable"))
    front = voxels.depth_mm > chosen.body_part * shaft.length_mm
    if np.count_nonzero(front) < chosen.fewest_voxels:
        return None
    return Shell(windows.geometry, frame, voxels, cells, front)


def fit_shell(
    shell: Shell,
    shaft: Shaft,
    metal: Metal,
    blur: Blur,
    settings: HaloSettings | None = None,
    hardening: HardeningSettings | None = None,
) -> HaloFit:
    """The fit to gathered voxels. Shares nothing that changes, so that several may run at once."""
    normal = shell.geometry.normal_lps
    sds = blur.along(shell.frame.b1, normal), blur.along(shell.frame.b2, normal)
    basis = hardening_basis(shell.voxels.points_lps_mm, metal, shell.geometry, blur, hardening)
    return _Fit.prepare(shaft, shell, sds, basis, settings or HaloSettings()).run()


def _depths(shaft: Shaft, settings: HaloSettings) -> tuple[float, float]:
    return settings.end_margin_mm[0], shaft.length_mm - settings.end_margin_mm[1]


def _voxels(windows: Windows, shaft: Shaft, frame: ShaftFrame, metal: Metal, settings: HaloSettings) -> ShellVoxels:
    """The voxels to fit: around the shaft, below the metal's HU, clear of other metal, no more than are useful."""
    radius = shaft.diameter_mm / 2
    reach = (radius + settings.near_mm, radius + settings.far_mm)
    found = shell_voxels(windows, shaft, frame, reach, _depths(shaft, settings))
    found = found.take(found.hu < settings.highest_hu)
    if len(found.hu) > settings.most_voxels:
        # Scattered but the same at every run.
        chosen = np.random.default_rng(0).choice(len(found.hu), settings.most_voxels, replace=False)
        found = found.take(np.sort(chosen))
    return found.take(_clear_of_metal(found.points_lps_mm, shaft, metal, settings.metal_clearance_mm))


def _clear_of_metal(points: FloatArray, shaft: Shaft, metal: Metal, clearance: float) -> BoolArray:
    """(n,) True for places that are farther than the clearance from all metal but the shaft."""
    from scipy.spatial import cKDTree

    clear = np.ones(len(points), dtype=bool)
    for cylinder in metal.cylinders:
        if np.linalg.norm(cylinder.end_lps_mm - shaft.tip_lps_mm) < 1e-6:
            continue
        span = cylinder.end_lps_mm - cylinder.start_lps_mm
        length = np.linalg.norm(span)
        t = np.clip((points - cylinder.start_lps_mm) @ span / length, 0, length)
        away = np.linalg.norm(points - cylinder.start_lps_mm - t[:, None] * span / length, axis=1)
        clear &= away > cylinder.radius_mm + clearance
    if len(metal.points_lps_mm) and len(points):
        near, _ = cKDTree(metal.points_lps_mm).query(points, distance_upper_bound=clearance)
        clear &= ~np.isfinite(near)
    return clear


@dataclass(frozen=True, eq=False)
class _Fit:
    """One shaft's fit under way. places: of the voxels in discs. front: (n,) voxels the shared part is fitted to."""

    settings: HaloSettings
    radius_mm: float
    voxels: ShellVoxels
    columns: Columns
    discs: DiscTables
    places: tuple[FloatArray, FloatArray]
    priors: Priors
    cells: Cells
    front: BoolArray

    @classmethod
    def prepare(
        cls,
        shaft: Shaft,
        shell: Shell,
        sds: tuple[float, float],
        basis: FloatArray,
        settings: HaloSettings,
    ) -> _Fit:
        voxels, cells = shell.voxels, shell.cells
        radius = shaft.diameter_mm / 2
        edge = _edge_terms(voxels, radius, sds, shaft.length_mm, settings.thread_mm)
        level = settings.clipped_metal_hu if shaft.clipped else shaft.metal_hu
        values, mean, sd = _with_priors(edge, basis, level, shaft.clipped)
        part = (voxels.distance_mm - radius) / settings.far_mm - 0.5
        profile = np.stack([np.ones_like(part), part, part**2 - 1 / 12], axis=1)
        columns = Columns(
            voxels.hu,
            values,
            mean,
            sd,
            edge[:, 0],
            cells.number(voxels.depth_mm, voxels.angle_rad),
            cells.count,
            profile,
            np.hypot(_QUIET_HU, settings.edge_mm * level * edge[:, 1]),
        )
        radii = radius + np.arange(0, settings.widest_mm + settings.rim_mm + settings.step_mm, settings.step_mm)
        discs = DiscTables.build(radii, (radius, radius + settings.far_mm), *sds)
        priors = Priors(settings.bone_sd_hu, settings.halo_hu, settings.halo_sd_hu, (0.0, 600.0), 100.0)
        places = discs.places(voxels.x_mm, voxels.y_mm)
        return cls(settings, radius, voxels, columns, discs, places, priors, cells, shell.front)

    def run(self) -> HaloFit:
        noise = self.noise()
        fit = replace(self, columns=replace(self.columns, sigma_hu=self.columns.sigma_hu * noise))
        best = fit.one_width(fit.front)[1]
        solution = fit.at(np.full(len(fit.front), best), fit.front)
        for _ in range(2):
            widths, sd, bone = fit.local(solution)
            misfit = fit.misfit(widths, bone, solution)
            fit = fit.cleaned(misfit)
            shift, solution = fit.shifted(widths)
        widths, sd, bone = fit.local(solution)
        return fit.summary(widths, sd, bone, shift, solution, noise)

    def cleaned(self, misfit: FloatArray) -> _Fit:
        """With the shared part fitted to the pieces that metal, zone and smooth bone explain best."""
        allowed = misfit.ravel()[self.columns.cell]
        limit = max(1.5, float(np.percentile(misfit[np.isfinite(misfit)], 30)))
        clean = allowed < limit
        return replace(self, front=clean)

    def misfit(self, widths: FloatArray, bone: FloatArray, solution: Solution) -> FloatArray:
        """(depths, angles) size of the residuals of each piece in units of the noise."""
        width = widths.ravel()[self.columns.cell]
        outer = np.maximum(self.disc(width), self.columns.metal)
        rest = self.columns.hu - self.columns.values @ solution.parameters
        level = np.sum(bone.reshape(-1, 3)[self.columns.cell] * self.columns.profile, axis=1)
        z = np.abs(rest - level * (1 - outer) - solution.halo_hu * (outer - self.columns.metal)) / self.columns.sigma_hu
        number = np.arange(self.cells.count)
        return np.asarray(ndimage.median(z, self.columns.cell, number)).reshape(widths.shape) / 0.6745

    def summary(
        self,
        widths: FloatArray,
        sd: FloatArray,
        bone: FloatArray,
        shift: tuple[float, float],
        solution: Solution,
        noise: float,
    ) -> HaloFit:
        upright = np.abs(self.voxels.y_mm) > np.sin(np.pi / 4) * self.voxels.distance_mm
        count = np.bincount(self.columns.cell, minlength=self.cells.count)
        width = self.cells.spread(widths, self.voxels.depth_mm, self.voxels.angle_rad)
        rest = self.columns.hu - self.columns.values @ solution.parameters
        beyond = self.front & (self.voxels.distance_mm > self.radius_mm + np.maximum(3.0, width + 0.8))
        return HaloFit(
            cells=self.cells,
            width_mm=widths,
            sd_mm=sd,
            bone_hu=bone[..., 0],
            voxels=count.reshape(widths.shape).astype(np.float64),
            misfit=self.misfit(widths, bone, solution),
            shift_mm=shift,
            cranio_caudal_mm=self.one_width(self.front & upright),
            in_plane_mm=self.one_width(self.front & ~upright),
            halo_hu=solution.halo_hu,
            rim_hu=solution.rim_hu,
            noise_hu=noise * _QUIET_HU,
            trajectory_hu=float(np.median(rest[beyond])) if np.count_nonzero(beyond) >= 50 else None,
        )

    @cached_property
    def grid_mm(self) -> FloatArray:
        return np.arange(0, self.settings.widest_mm + 1e-9, self.settings.step_mm)

    def disc(self, width_mm: FloatArray | float, which: BoolArray | slice = slice(None)) -> FloatArray:
        """Blurred disc of each voxel's own outer radius."""
        return self.discs.look_up(self.radius_mm + width_mm, self.places[0][which], self.places[1][which])

    def at(self, width_mm: FloatArray, which: BoolArray) -> Solution:
        """The shared part for given widths (n,), fitted to the chosen voxels."""
        columns = self.columns.take(which)
        outer = np.maximum(self.disc(width_mm[which], which), columns.metal)
        # A rim is bone turned dense around a zone: without a zone there is none.
        rim = np.where(width_mm[which] < self.settings.rim_from_mm, 0.0, self.settings.rim_mm)
        return solve(columns, outer, np.maximum(self.disc(width_mm[which] + rim, which), outer), self.priors)

    def noise(self) -> float:
        """Noise in units of the assumed one: the lower quartile of residuals, so that cortex does not count."""
        found = []
        for width in (0.0, 1.0, 2.0, 3.0):
            residual = self.at(np.full(len(self.front), width), self.front).residual
            found.append(np.percentile(np.abs(residual) / self.columns.sigma_hu[self.front], 25) / 0.3186)
        return float(np.clip(min(found), 0.6, 10.0))

    def one_width(self, which: BoolArray) -> tuple[float, float, float]:
        """(low, best, high) of one width for all chosen voxels."""
        costs = np.array([self.at(np.full(len(which), width), which).cost for width in self.grid_mm])
        return _interval(self.grid_mm, costs, self.settings)

    def local(self, solution: Solution) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(depths, angles) width, its standard error and bone HU, everything else held."""
        shape = (self.cells.depths, self.cells.sectors)
        outers = [np.maximum(self.disc(width), self.columns.metal) for width in self.grid_mm]
        rest = self.columns.hu - self.columns.values @ solution.parameters
        mean = float(np.median(solution.bone_hu[np.unique(self.columns.cell[self.front]), 0]))
        costs, bones = local_fits(self.columns, rest, mean, outers, solution.halo_hu, self.settings.bone_sd_hu)
        costs = costs.reshape(-1, *shape)
        kernel = np.array([0.5, 1.0, 0.5])
        costs = ndimage.convolve1d(costs, kernel, axis=1, mode="nearest")
        costs = ndimage.convolve1d(costs, kernel, axis=2, mode="wrap")
        widths, sd, bone = np.zeros(shape), np.zeros(shape), np.zeros((*shape, 3))
        for i, j in np.ndindex(shape):
            low, best, high = _interval(self.grid_mm, costs[:, i, j], self.settings)
            widths[i, j], sd[i, j] = best, (high - low) / 3.29
            bone[i, j] = bones[int(np.argmin(np.abs(self.grid_mm - best))), i * shape[1] + j]
        return widths, sd, bone

    def shifted(self, widths: FloatArray) -> tuple[tuple[float, float], Solution]:
        """The 90 % interval of a common change of a width map, around its best, and the solution there."""
        base = self.cells.spread(widths, self.voxels.depth_mm, self.voxels.angle_rad)
        grid = np.arange(-1.2, 1.21, self.settings.step_mm)
        most = self.settings.widest_mm
        solutions = [self.at(np.clip(base + change, 0, most), self.front) for change in grid]
        low, best, high = _interval(grid, np.array([s.cost for s in solutions]), self.settings)
        return (low - best, high - best), solutions[int(np.argmin(np.abs(grid - best)))]


def _interval(grid: FloatArray, costs: FloatArray, settings: HaloSettings) -> tuple[float, float, float]:
    """(low, best, high): the minimum of a misfit, refined by a parabola, and where the deflated misfit rises by 2.7."""
    lowest = int(np.argmin(costs))
    best, floor = float(grid[lowest]), float(costs[lowest])
    if 0 < lowest < len(grid) - 1:
        before, at, after = costs[lowest - 1 : lowest + 2]
        bend = before - 2 * at + after
        if bend > 0:
            step = 0.5 * (before - after) / bend
            best += step * (grid[1] - grid[0])
            floor -= 0.25 * (before - after) * step
    fine = np.linspace(grid[0], grid[-1], 20 * (len(grid) - 1) + 1)
    near = np.flatnonzero(np.interp(fine, grid, costs) - floor < _CHI2_90 * settings.deflation)
    low, high = (fine[near[0]], fine[near[-1]]) if len(near) else (best, best)
    return float(min(low, best)), best, float(max(high, best))


def _edge_terms(
    voxels: ShellVoxels, radius: float, sds: tuple[float, float], length: float, thread: float
) -> FloatArray:
    """(n, 10) the blurred metal and its changes: with radius, x, y, tilt in x and y, both blurs, half and full thread.

    Changes are for 1 mm; of the blurs, for their own size. The last two are what metal loses when half the thread's
    depth, and all of it, is taken off.
    """
    x, y = voxels.x_mm, voxels.y_mm
    h = 0.02

    def disc(a: float = radius, dx: float = 0.0, dy: float = 0.0, d1: float = 0.0, d2: float = 0.0) -> FloatArray:
        return blurred_disc(a, x - dx, y - dy, sds[0] + d1, sds[1] + d2)

    metal = disc()
    wider = (disc(radius + h) - disc(radius - h)) / (2 * h)
    across = [(disc(dx=h) - disc(dx=-h)) / (2 * h), (disc(dy=h) - disc(dy=-h)) / (2 * h)]
    lever = 2 * voxels.depth_mm / length - 1
    softer = [(disc(d1=h) - disc(d1=-h)) / (2 * h) * sds[0], (disc(d2=h) - disc(d2=-h)) / (2 * h) * sds[1]]
    core = [disc(radius - thread / 2) - metal, disc(radius - thread) - metal]
    return np.column_stack([metal, wider, *across, *(a * lever for a in across), *softer, *core])


def _with_priors(
    edge: FloatArray, basis: FloatArray, level: float, clipped: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Columns, prior means and standard deviations: metal in units of its level, the basis at a spread of 1."""
    size = np.maximum(basis.std(axis=0), 1e-12)
    values = np.column_stack([edge * level, basis / size])
    # Metal's level to 10 %, radius and place to 0.1 mm, blur to 8 %, threads of any depth; the basis as good as free.
    mean = np.array([1.0, *[0.0] * 7, 0.35, 0.35, *[0.0] * basis.shape[1]])
    sd = np.array([0.3 if clipped else 0.1, *[0.1] * 5, 0.08, 0.08, 0.4, 0.4, *[500.0] * basis.shape[1]])
    return values, mean, sd
