"""The lucent zone around one screw: where the image says bone begins, beyond the outer thread.

Voxels around the shaft are fitted, uninterpolated, by `lucency.solve`, with metal, hardening and what fills the zone in
common, and bone piece by piece. First simple forms are tried over the whole screw (one width, cones, halves); from the
best of them and from the best narrow one the fit goes on in turns: the width of every piece with everything else held
(`lucency.local_fit`, `widthfield.widths_from`), then everything else with these widths held. The better end counts.
`surroundings.look_around` says how far each piece is of use: cortex, canal and joints within a few millimetres of the
screw are no part of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.halo_settings import HaloSettings
from spineimg.implants.hardening import HardeningSettings, Metal, hardening_basis
from spineimg.implants.lucency import Columns, Priors, Solution, local_fit, solve
from spineimg.implants.metal_map import Windows
from spineimg.implants.model import Shaft
from spineimg.implants.profile import Blur, DiscTables, blurred_disc
from spineimg.implants.surroundings import Surroundings, look_around
from spineimg.implants.unrolled import BoolArray, Cells, ShaftFrame, ShellVoxels, shell_voxels
from spineimg.implants.widthfield import Widths, widths_from

_QUIET_HU = 20.0
_FIRST_MM = (0.0, 0.6, 1.2, 2.0, 3.0)
_NARROW_MM = (0.0, 0.4, 0.8)
_WIDE_MM = (1.2, 1.6, 2.0, 2.5, 3.0)
_CONE_MM = (1.4, 2.6)
_SHIFTS_MM = (-1.2, -0.8, -0.5, -0.25, 0.0, 0.25, 0.5, 0.8, 1.2)
_STEP_OVER_MM = 4.0
"""Length over which a zone of half the screw ends."""
_TURNS = 3
_PAST_CORTEX_MM = 0.2


@dataclass(frozen=True, eq=False, slots=True)
class HaloFit:
    """What the fit found. Arrays are (depths, angles) of `cells`.

    width_mm, sd_mm; bone_hu: bone beside each piece; voxels: how many; known: whether the piece lies in bone and cortex
    is not at a distance where it passes for the end of a zone. shift_mm: 90 % interval of a common change of the width
    map. evidence: how much better wide forms explain the whole screw than narrow ones, half a difference of misfit.
    trajectory_hu: bone around the screw.
    """

    cells: Cells
    width_mm: FloatArray
    sd_mm: FloatArray
    bone_hu: FloatArray
    voxels: FloatArray
    known: BoolArray
    shift_mm: tuple[float, float]
    evidence: float
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
class _Trial:
    """A simple form of the zone, (n,) width at the voxels, with what all pieces share fitted to it."""

    width_mm: FloatArray
    solution: Solution


@dataclass(frozen=True, eq=False)
class _Fit:
    """One shaft's fit under way. places: of the voxels in discs. front: (n,) voxels the first look is fitted to."""

    settings: HaloSettings
    radius_mm: float
    length_mm: float
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
        away = voxels.distance_mm - radius
        part = away / settings.far_mm - 0.5
        columns = Columns(
            voxels.hu,
            values,
            mean,
            sd,
            edge[:, 0],
            cells.number(voxels.depth_mm, voxels.angle_rad),
            cells.count,
            np.stack([np.ones_like(part), part, part**2 - 1 / 12], axis=1),
            np.exp(-(away - settings.left_at_mm) / settings.left_fall_mm),
            np.hypot(_QUIET_HU, settings.edge_mm * level * edge[:, 1]),
        )
        radii = radius + np.arange(0, settings.widest_mm + settings.rim_mm + settings.step_mm, settings.step_mm)
        radii = np.append(radii, radius + settings.far_mm)
        discs = DiscTables.build(radii, (radius, radius + settings.far_mm), *sds)
        own = (*settings.bone_sd_hu, settings.left_hu)
        # Before the first look around, any bone.
        priors = Priors(
            (150.0, 300.0), own, settings.halo_hu, settings.halo_sd_hu, (0.0, 600.0), 100.0, settings.deflation
        )
        places = discs.places(voxels.x_mm, voxels.y_mm)
        return cls(settings, radius, shaft.length_mm, voxels, columns, discs, places, priors, cells, shell.front)

    def run(self) -> HaloFit:
        relative = self.columns.sigma_hu / _QUIET_HU
        around = self.look(self.first(), relative)
        fit = self.limited(around, relative)
        best = min(fit.trials(around, 1), key=_cost)
        # With bone and cortex known a second look is a better one.
        around = fit.look(best.solution, relative, around)
        fit = self.limited(around, relative)
        narrow, wide = fit.trials(around, len(_forms(self.voxels, self.length_mm)))
        ends = [fit.settled(trial, around) for trial in (narrow, wide)]
        evidence = (narrow.solution.cost - wide.solution.cost) / 2
        widths, bone, solution = min(ends, key=lambda end: end[2].cost)
        return fit.summary(widths, bone, solution, around, evidence)

    def first(self) -> Solution:
        """What is shared, fitted to the front with the best single width and a rough noise."""
        sigma = self.columns.sigma_hu
        found = [self.at(np.full(len(self.front), width)) for width in _FIRST_MM]
        scales = [float(np.percentile(np.abs(one.residual) / sigma[self.front], 25)) / 0.3186 for one in found]
        best = int(np.argmin(scales))
        fit = replace(self, columns=replace(self.columns, sigma_hu=sigma * np.clip(scales[best], 0.6, 10.0)))
        return fit.at(np.full(len(self.front), _FIRST_MM[best]))

    def look(self, solution: Solution, relative_sd: FloatArray, before: Surroundings | None = None) -> Surroundings:
        columns = self.columns
        rest = columns.hu - columns.values @ solution.parameters
        reach = before.reach_mm if before else None
        shade = 1 - columns.metal
        return look_around(rest, shade, self.away_mm, columns.cell, self.shape, relative_sd, reach)

    def limited(self, around: Surroundings, relative_sd: FloatArray) -> _Fit:
        """With each piece's own noise, bone expected as it was seen, and cortex for the bend where there is some.

        `front` becomes the voxels that are of use.
        """
        columns, settings = self.columns, self.settings
        beyond = 1 - self.disc(np.minimum(around.cortex_mm, settings.far_mm)[columns.cell])
        third = beyond * settings.cortex_sd_hu / settings.bone_sd_hu[2]
        third = np.where(around.has_cortex[columns.cell], third, columns.profile[:, 2])
        return replace(
            self,
            columns=replace(
                columns,
                sigma_hu=relative_sd * around.sd_hu[columns.cell],
                profile=np.column_stack([columns.profile[:, :2], third]),
            ),
            priors=replace(self.priors, bone_hu=(around.bone_hu, settings.bone_mean_sd_hu)),
            front=self.away_mm < around.reach_mm[columns.cell],
        )

    def trials(self, around: Surroundings, number: int) -> tuple[_Trial, _Trial]:
        """The best narrow and the best wide one of so many forms, no zone reaching beyond cortex."""
        limit = (around.cortex_mm + _PAST_CORTEX_MM)[self.columns.cell]

        def trial(form: FloatArray, largest_mm: float) -> _Trial:
            width = np.minimum(largest_mm * form, limit)
            return _Trial(width, self.at(width))

        uniform, *others = _forms(self.voxels, self.length_mm)[:number]
        narrow = [trial(uniform, width) for width in _NARROW_MM]
        wide = [trial(uniform, width) for width in _WIDE_MM]
        wide += [trial(form, width) for form in others for width in _CONE_MM]
        return min(narrow, key=_cost), min(wide, key=_cost)

    def settled(self, trial: _Trial, around: Surroundings) -> tuple[Widths, FloatArray, Solution]:
        """Widths of the pieces, their bone and what they share, in turns from a trial."""
        limit = np.maximum(around.cortex_mm + _PAST_CORTEX_MM, 0.3)[self.columns.cell]
        count = np.bincount(self.columns.cell, minlength=self.cells.count)
        form = np.bincount(self.columns.cell, trial.width_mm, self.cells.count) / np.maximum(count, 1)
        solution = trial.solution
        for turn in range(_TURNS + 1):
            widths, bone = self.local(solution, around, form.reshape(self.shape))
            if turn == _TURNS:
                break
            width = self.cells.spread(widths.quantile(0.5), self.voxels.depth_mm, self.voxels.angle_rad)
            solution = self.at(np.minimum(width, limit))
        return widths, bone, solution

    def local(self, solution: Solution, around: Surroundings, form_mm: FloatArray) -> tuple[Widths, FloatArray]:
        """Widths of the pieces, everything else held, and (widths, depths, angles) bone beside each."""
        columns = self.useful
        costs, bones = [], []
        for outer, rim in self.grid_discs:
            cost, bone = local_fit(columns, solution, outer, rim, self.priors)
            costs.append(cost.reshape(self.shape))
            bones.append(bone.reshape(self.shape))
        cortex = around.cortex_mm.reshape(self.shape)
        settings = self.settings
        found = widths_from(np.stack(costs), self.grid_mm, cortex, form_mm, settings.neighbour, settings.form)
        return found, np.stack(bones)

    def summary(
        self, widths: Widths, bone: FloatArray, solution: Solution, around: Surroundings, evidence: float
    ) -> HaloFit:
        width = widths.quantile(0.5)
        nearest = np.abs(self.grid_mm[:, None, None] - width).argmin(axis=0)[None]
        near, far = self.settings.cortex_mm
        cortex = around.cortex_mm
        known = around.in_bone(solution.halo_hu) & ((cortex <= near) | (cortex >= far))
        known = known.reshape(self.shape)
        count = np.bincount(self.columns.cell, minlength=self.cells.count)
        return HaloFit(
            cells=self.cells,
            width_mm=width,
            sd_mm=(widths.quantile(0.8413) - widths.quantile(0.1587)) / 2,
            bone_hu=np.take_along_axis(bone, nearest, axis=0)[0],
            voxels=count.reshape(self.shape).astype(np.float64),
            known=known,
            shift_mm=self.shift(width, around),
            evidence=evidence,
            halo_hu=solution.halo_hu,
            rim_hu=solution.rim_hu,
            noise_hu=float(np.median(around.sd_hu)),
            trajectory_hu=around.bone_hu,
        )

    def shift(self, width_mm: FloatArray, around: Surroundings) -> tuple[float, float]:
        """The 90 % interval of a common change of all widths (depths, angles), all that is shared fitted anew."""
        limit = np.maximum(around.cortex_mm + _PAST_CORTEX_MM, 0.3)[self.columns.cell]
        width = self.cells.spread(width_mm, self.voxels.depth_mm, self.voxels.angle_rad)
        costs = [self.at(np.clip(width + shift, 0, limit)).cost for shift in _SHIFTS_MM]
        fine = np.linspace(_SHIFTS_MM[0], _SHIFTS_MM[-1], 241)
        logs = -np.interp(fine, _SHIFTS_MM, np.asarray(costs) - min(costs)) / (2 * self.settings.together)
        total = np.cumsum(np.exp(logs))
        low, high = np.interp(np.multiply(self.settings.quantiles, total[-1]), total, fine)
        return float(low), float(high)

    @property
    def shape(self) -> tuple[int, int]:
        return self.cells.depths, self.cells.sectors

    @cached_property
    def grid_mm(self) -> FloatArray:
        return np.arange(0, self.settings.widest_mm + 1e-9, self.settings.step_mm)

    @cached_property
    def grid_discs(self) -> list[tuple[FloatArray, FloatArray]]:
        """At the voxels of `front`, the discs of the zone's and the rim's outer edge for each width of the grid."""
        found = []
        for width in self.grid_mm:
            outer = np.maximum(self.disc(width, self.front), self.useful.metal)
            found.append((outer, self.rim(width, outer)))
        return found

    @cached_property
    def useful(self) -> Columns:
        """The columns at the voxels of `front`."""
        return self.columns.take(self.front)

    @cached_property
    def away_mm(self) -> FloatArray:
        """(n,) from the outer thread."""
        return self.voxels.distance_mm - self.radius_mm

    def disc(self, width_mm: FloatArray | float, which: BoolArray | slice = slice(None)) -> FloatArray:
        """Blurred disc of each voxel's own outer radius."""
        return self.discs.look_up(self.radius_mm + width_mm, self.places[0][which], self.places[1][which])

    def rim(self, width_mm: FloatArray | float, outer: FloatArray) -> FloatArray:
        """Blurred disc of a rim's outer edge at the voxels of `front`."""
        # A rim is bone turned dense around a zone: without a zone there is none.
        wide = np.where(np.asarray(width_mm) < self.settings.rim_from_mm, 0.0, self.settings.rim_mm)
        return np.maximum(self.disc(width_mm + wide, self.front), outer)

    def at(self, width_mm: FloatArray) -> Solution:
        """The shared part for given widths (n,), fitted to the voxels of `front`."""
        outer = np.maximum(self.disc(width_mm[self.front], self.front), self.useful.metal)
        return solve(self.useful, outer, self.rim(width_mm[self.front], outer), self.priors)


def _cost(trial: _Trial) -> float:
    return trial.solution.cost


def _forms(voxels: ShellVoxels, length_mm: float) -> list[FloatArray]:
    """(n,) part of the largest width at the voxels: everywhere, cones, halves of circumference and of length."""
    depth = np.clip(voxels.depth_mm / length_mm, 0, 1)
    front = np.clip(0.5 + (voxels.depth_mm - length_mm / 2) / _STEP_OVER_MM, 0, 1)
    halves = [np.clip(0.5 + 2 * np.cos(voxels.angle_rad - quarter * np.pi / 2), 0, 1) for quarter in range(4)]
    return [np.ones_like(depth), depth, 1 - depth, np.abs(2 * depth - 1), *halves, front, 1 - front]


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
