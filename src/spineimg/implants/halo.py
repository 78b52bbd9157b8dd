"""The lucent zone around one screw: where the image says bone begins, beyond the outer thread.

Voxels around the shaft are fitted, uninterpolated, by `lucency.solve`, with metal, hardening and what fills the zone in
common, and bone piece by piece. First simple forms are tried over the whole screw (one width, cones, halves); from the
best of them and from the best narrow one the fit goes on in turns: the width of every piece with everything else held
(`lucency.local_fit`, `widthfield.widths_from`), then everything else with these widths held. The better end counts.
`surroundings.look_around` says how far each piece is of use: cortex, canal and joints within a few millimetres of the
screw are no part of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.halo_columns import edge_terms, left_over, quarter_forms, simple_forms, with_priors
from spineimg.implants.halo_settings import HaloSettings
from spineimg.implants.halo_trials import Trial, cost_of, is_open, odds, part_odds, starts
from spineimg.implants.hardening import HardeningSettings, Metal, hardening_basis
from spineimg.implants.lucency import Columns, Priors, Solution, local_fit, solve
from spineimg.implants.metal_map import Windows
from spineimg.implants.model import Shaft
from spineimg.implants.profile import Blur, DiscTables
from spineimg.implants.surroundings import Surroundings, look_around
from spineimg.implants.unrolled import BoolArray, Cells, ShaftFrame, ShellVoxels, shell_voxels
from spineimg.implants.verdict_settings import VerdictSettings
from spineimg.implants.widthfield import Widths, widths_from

_QUIET_HU = 20.0
_FIRST_MM = (0.0, 0.6, 1.2, 2.0, 3.0)
_EVEN_MM = tuple(np.arange(0.0, 3.01, 0.25).tolist())
"""Widths of zones that are as wide everywhere."""
_PART_MM = (0.8, 1.4, 2.0, 2.8)
"""Largest widths of cones and halves."""
_QUARTER_MM, _MORE_MM, _LIKELIEST = 2.0, (1.4, 2.8), 4
"""Width at which quarters of the surface are tried, and those at which the so many likeliest of them are tried too."""
LOOSE_MM, _NARROW_MM = 2.0, (0.0, 0.5, 1.0)
"""A zone that any scan should tell, and those it must be told from."""
_EVEN_PART = 0.6
"""How likely zones are as wide everywhere, before the scan is seen. Engineering choice."""
_SHIFTS_MM = (-1.2, -0.8, -0.5, -0.25, 0.0, 0.25, 0.5, 0.8, 1.2)
_TURNS = 3
_NEARLY = 0.75
"""Of the coverage that loosening needs, since no simple form is exact. Engineering choice."""
_PAST_CORTEX_MM = 0.2


@dataclass(frozen=True, eq=False, slots=True)
class HaloFit:
    """What the fit found. Arrays are (depths, angles) of `cells`.

    width_mm, sd_mm; bone_hu: bone beside each piece; voxels: how many; in_bone: whether the piece lies in bone;
    cortex_mm: where it begins, from the outer thread, far where there is none; known: whether the piece lies in bone
    and cortex is not at a distance where it passes for the end of a zone. cement: part of the surface that stands in
    it. shift_mm: 90 % interval of a common change of the width map, other maps counted in. evidence: logarithm of the
    odds, over simple forms, that nearly half of what can be judged is wider than the limit. part_evidence: the same of
    the likeliest form with a tenth that wide against the likeliest without; where there is evidence for much, that.
    evidence_if_loose: what `evidence` would be on average if there were a zone of `LOOSE_MM` all along; infinite where
    the image itself tells. trajectory_hu: bone around the screw.
    """

    cells: Cells
    width_mm: FloatArray
    sd_mm: FloatArray
    bone_hu: FloatArray
    voxels: FloatArray
    in_bone: BoolArray
    cortex_mm: FloatArray
    known: BoolArray
    cement: float
    shift_mm: tuple[float, float]
    evidence: float
    part_evidence: float
    evidence_if_loose: float
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
    loose: VerdictSettings | None = None,
) -> HaloFit | None:
    """The zone around one shaft, None where too few voxels can be fitted.

    metal: everything, this shaft too. blur: of the scan. loose: how wide, and over how much, a zone is loosening.
    """
    shell = gather(windows, shaft, metal, settings)
    return fit_shell(shell, shaft, metal, blur, settings, hardening, loose) if shell else None


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
    loose: VerdictSettings | None = None,
) -> HaloFit:
    """The fit to gathered voxels. Shares nothing that changes, so that several may run at once."""
    normal = shell.geometry.normal_lps
    sds = blur.along(shell.frame.b1, normal), blur.along(shell.frame.b2, normal)
    basis = hardening_basis(shell.voxels.points_lps_mm, metal, shell.geometry, blur, hardening)
    wide = loose or VerdictSettings()
    fit = _Fit.prepare(shaft, shell, sds, basis, settings or HaloSettings(), (wide.width_mm, _NEARLY * wide.coverage))
    return fit.run()


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
class _End:
    """Where the fit came to from a trial: the map, (widths, depths, angles) bone beside each piece, and the rest.

    kind: the best trial that is narrow, or wide, as the one was that the fit began from. log_prior: of that one.
    """

    kind: Trial
    log_prior: float
    widths: Widths
    bone_hu: FloatArray
    solution: Solution


@dataclass(frozen=True, eq=False)
class _Fit:
    """One shaft's fit under way.

    places: of the voxels in discs. front: (n,) voxels that are fitted. wide: forms are that reach so many mm over so
    large a part.
    """

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
    wide: tuple[float, float]

    @classmethod
    def prepare(
        cls,
        shaft: Shaft,
        shell: Shell,
        sds: tuple[float, float],
        basis: FloatArray,
        settings: HaloSettings,
        wide: tuple[float, float],
    ) -> _Fit:
        voxels, cells = shell.voxels, shell.cells
        radius = shaft.diameter_mm / 2
        edge = edge_terms(voxels, radius, sds, shaft.length_mm, settings.thread_mm)
        level = settings.clipped_metal_hu if shaft.clipped else shaft.metal_hu
        values, mean, sd = with_priors(edge, basis, level, shaft.clipped)
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
            left_over(voxels, away, settings),
            np.hypot(_QUIET_HU, settings.edge_mm * level * edge[:, 1]),
        )
        radii = radius + np.arange(0, settings.widest_mm + settings.rim_mm + settings.step_mm, settings.step_mm)
        radii = np.append(radii, radius + settings.far_mm)
        discs = DiscTables.build(radii, (radius, radius + settings.far_mm), *sds)
        own = (*settings.bone_sd_hu, settings.left_hu, settings.streak_hu)
        # Before the first look around, any bone.
        priors = Priors(
            (150.0, 300.0), own, settings.halo_hu, settings.halo_sd_hu, (0.0, 600.0), 100.0, settings.deflation
        )
        places = discs.places(voxels.x_mm, voxels.y_mm)
        return cls(settings, radius, shaft.length_mm, voxels, columns, discs, places, priors, cells, shell.front, wide)

    def run(self) -> HaloFit:
        relative = self.columns.sigma_hu / _QUIET_HU
        around = self.look(self.first(), relative)
        fit = self.limited(around, relative)
        first = min(fit.trials(around, even_only=True), key=cost_of)
        # With bone and cortex known a second look is a better one.
        around = fit.look(first.solution, relative, around)
        fit = self.limited(around, relative)
        trials = fit.trials(around)
        together = self.settings.together
        evidence = odds(trials, together)
        # Only asked where no zone is about to be said, for it takes as long as all that was tried before.
        part = part_odds([*trials, *fit.quarters(around)], together) if evidence < 0 else evidence
        ends = [fit.settled(trial, kind, around) for trial, kind in starts(trials, evidence)]
        # The likelier kind is shown; where narrow and wide explain the voxels alike, the interval holds both.
        ends.sort(key=lambda end: (end.kind.wide != (evidence > 0), _misfit(end, together)))
        found = fit.summary(ends, around, evidence, part)
        if not is_open(evidence):
            return found
        return replace(found, evidence_if_loose=fit.evidence_if_loose(trials[0], around))

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

        `front` becomes the voxels that are of use: none of pieces whose cortex can pass for the end of a zone, or hide
        one, for they would speak for narrow zones around the whole screw.
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
            front=(self.away_mm < around.reach_mm[columns.cell]) & self.telling(around)[columns.cell],
        )

    def telling(self, around: Surroundings) -> BoolArray:
        """(cells,) whether cortex is far enough to leave a zone visible, or too near to leave room for one; and no
        cement is there, around which a zone would not be beside the screw."""
        near, far = self.settings.cortex_mm
        return np.asarray(((around.cortex_mm <= near) | (around.cortex_mm >= far)) & ~around.cement)

    def trials(self, around: Surroundings, even_only: bool = False) -> list[Trial]:
        """Simple forms of the zone."""
        uniform, *others = simple_forms(self.voxels, self.length_mm)
        # The best even one is only looked for to look around again with: every other width will do.
        widths = _EVEN_MM[::2] if even_only else _EVEN_MM
        found = [self.trial(width * uniform, around, True, _EVEN_PART / len(_EVEN_MM)) for width in widths]
        if even_only:
            return found
        part = (1 - _EVEN_PART) / (len(others) * len(_PART_MM))
        return found + [self.trial(width * form, around, False, part) for form in others for width in _PART_MM]

    def quarters(self, around: Surroundings) -> list[Trial]:
        """Zones of a quarter of the surface."""
        found = [
            (form, self.trial(_QUARTER_MM * form, around, False, 1.0))
            for form in quarter_forms(self.voxels, self.length_mm)
        ]
        found.sort(key=lambda one: cost_of(one[1]))
        more = [self.trial(w * form, around, False, 1.0) for form, _ in found[:_LIKELIEST] for w in _MORE_MM]
        return [*(trial for _, trial in found), *more]

    def trial(self, form_mm: FloatArray, around: Surroundings, even: bool, prior: float) -> Trial:
        """A form, (n,) width at the voxels, that does not reach beyond cortex."""
        width = np.minimum(form_mm, (around.cortex_mm + _PAST_CORTEX_MM)[self.columns.cell])
        known = around.in_bone(sum(self.settings.halo_hu) / 2) & self.telling(around)
        covered = float(np.mean(self.by_piece(width)[known] > self.wide[0])) if known.any() else 0.0
        return Trial(width, self.at(width), even, covered, covered >= self.wide[1], float(np.log(prior)))

    def by_piece(self, values: FloatArray) -> FloatArray:
        """(cells,) mean of (n,) values, 0 where there are no voxels."""
        cell = self.columns.cell
        count = np.bincount(cell, minlength=self.cells.count)
        return np.asarray(np.bincount(cell, values, self.cells.count) / np.maximum(count, 1))

    def settled(self, trial: Trial, kind: Trial, around: Surroundings) -> _End:
        """Widths of the pieces, their bone and what they share, in turns from a trial. kind: see `_End`."""
        limit = np.maximum(around.cortex_mm + _PAST_CORTEX_MM, 0.3)[self.columns.cell]
        form = self.by_piece(trial.width_mm)
        solution = trial.solution
        for turn in range(_TURNS + 1):
            widths, bone = self.local(solution, around, form.reshape(self.shape))
            if turn == _TURNS:
                break
            width = self.cells.spread(widths.quantile(0.5), self.voxels.depth_mm, self.voxels.angle_rad)
            solution = self.at(np.minimum(width, limit))
        return _End(kind, trial.log_prior, widths, bone, solution)

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

    def summary(self, ends: Sequence[_End], around: Surroundings, evidence: float, part_evidence: float) -> HaloFit:
        """The first end, with what the others leave uncertain."""
        widths, bone, solution = ends[0].widths, ends[0].bone_hu, ends[0].solution
        width = widths.quantile(0.5)
        nearest = np.abs(self.grid_mm[:, None, None] - width).argmin(axis=0)[None]
        in_bone = around.in_bone(solution.halo_hu)
        known = (in_bone & self.telling(around)).reshape(self.shape)
        others = self.others(ends, known, evidence) if known.any() else []
        low, middle, high = self.shift(width, around, others)
        # Pieces are smoothed with their neighbours: a wide map as a whole is often a little wider, and one of next to
        # nothing can be far narrower.
        moved = middle if ends[0].kind.wide or high < 0 else 0.0
        count = np.bincount(self.columns.cell, minlength=self.cells.count)
        return HaloFit(
            cells=self.cells,
            width_mm=np.maximum(width + moved, 0.0),
            sd_mm=(widths.quantile(0.8413) - widths.quantile(0.1587)) / 2,
            bone_hu=np.take_along_axis(bone, nearest, axis=0)[0],
            voxels=count.reshape(self.shape).astype(np.float64),
            in_bone=in_bone.reshape(self.shape),
            cortex_mm=around.cortex_mm.reshape(self.shape),
            known=known,
            cement=float(np.mean(around.cement)),
            shift_mm=(low - moved, high - moved),
            evidence=evidence,
            part_evidence=part_evidence,
            evidence_if_loose=np.inf,
            halo_hu=solution.halo_hu,
            rim_hu=solution.rim_hu,
            noise_hu=float(np.median(around.sd_hu)),
            trajectory_hu=around.bone_hu,
        )

    def others(self, ends: Sequence[_End], known: BoolArray, evidence: float) -> list[tuple[float, float]]:
        """How far each other map is away from the first end's, mm, and how likely it is beside it: the best map of the
        other kind as its kind, the others of a kind by their misfit."""
        together, found = self.settings.together, []
        for end in ends[1:]:
            same = end.kind.wide is ends[0].kind.wide
            best = next(other for other in ends if other.kind.wide is end.kind.wide)
            less = (_misfit(end, together) - _misfit(best, together)) / (2 * together)
            likely = float(np.exp(-less)) * (1.0 if same else float(np.exp(-abs(evidence))))
            apart = (end.widths.quantile(0.5) - ends[0].widths.quantile(0.5))[known]
            found.append((float(np.median(apart)), likely))
        return found

    def evidence_if_loose(self, none: Trial, around: Surroundings) -> float:
        """The evidence on average if there were a zone of `LOOSE_MM` all along. none: the trial without a zone.

        The image is the one that the fit without a zone predicts, with what the zone takes from bone; of its noise only
        the size counts, in the misfit.
        """
        columns, solution = self.useful, none.solution
        limit = (around.cortex_mm + _PAST_CORTEX_MM)[columns.cell]

        def discs(width_mm: float) -> tuple[FloatArray, FloatArray]:
            width = np.minimum(np.full(len(limit), width_mm), limit)
            outer = np.maximum(self.disc(width, self.front), columns.metal)
            return outer, self.rim(width, outer)

        (bare, rim), loose = discs(0.0), discs(LOOSE_MM)
        taken = (solution.bone_hu - sum(self.settings.halo_hu) / 2) * (loose[0] - bare)
        shown = columns.hu - solution.residual - solution.rim_hu * (rim - bare) - taken
        image = replace(columns, hu=shown)
        narrow = min(solve(image, *discs(width), self.priors).cost for width in _NARROW_MM)
        return (narrow - solve(image, *loose, self.priors).cost) / (2 * self.settings.together)

    def shift(
        self, width_mm: FloatArray, around: Surroundings, others: Sequence[tuple[float, float]]
    ) -> tuple[float, float, float]:
        """A common change of all widths (depths, angles), all that is shared fitted anew.

        The bounds of its 90 % interval, and between them the median for this map alone.

        others: how far each other map is away, mm, and how likely it is beside the one shown.
        """
        limit = np.maximum(around.cortex_mm + _PAST_CORTEX_MM, 0.3)[self.columns.cell]
        width = self.cells.spread(width_mm, self.voxels.depth_mm, self.voxels.angle_rad)
        costs = [self.at(np.clip(width + shift, 0, limit)).cost for shift in _SHIFTS_MM]
        return _interval(np.asarray(costs), others, self.settings)

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
        # Around no zone too: kept for wider ones, it would speak for the narrowest that has it wherever bone is bright
        # beside the screw.
        return np.maximum(self.disc(width_mm + self.settings.rim_mm, self.front), outer)

    def at(self, width_mm: FloatArray) -> Solution:
        """The shared part for given widths (n,), fitted to the voxels of `front`."""
        outer = np.maximum(self.disc(width_mm[self.front], self.front), self.useful.metal)
        return solve(self.useful, outer, self.rim(width_mm[self.front], outer), self.priors)


def _interval(
    costs: FloatArray, others: Sequence[tuple[float, float]], settings: HaloSettings
) -> tuple[float, float, float]:
    """Quantiles of a common change of the widths. costs: misfit for each of `_SHIFTS_MM`; others: see `_Fit.shift`.

    Other maps count with their own likelihood, spread as the best one's.
    """
    fine = np.linspace(_SHIFTS_MM[0], _SHIFTS_MM[-1], 241)
    part = np.exp(-np.interp(fine, _SHIFTS_MM, costs - costs.min()) / (2 * settings.together))
    maps = [(0.0, 1.0), *others]
    places = np.concatenate([fine + apart for apart, _ in maps])
    weights = np.concatenate([likely * part for _, likely in maps])
    order = np.argsort(places, kind="stable")
    total = np.cumsum(weights[order])
    low, high = np.interp(np.multiply(settings.quantiles, total[-1]), total, places[order])
    own = np.cumsum(part)
    return float(low), float(np.interp(own[-1] / 2, own, fine)), float(high)


def _misfit(end: _End, together: float) -> float:
    """Of a map and of the best simple form of its kind, half each, since a map alone can bend to streaks; and what the
    form that the fit began from had against it."""
    return (end.solution.cost + end.kind.solution.cost) / 2 - 2 * together * end.log_prior
