"""The forward model of a shaft in bone and its fit to voxels.

At a voxel, with M, D the blurred discs of the metal's radius R and of the outer radius R + w:

    HU = A M + (edge terms) + H (D - M) + B (1 - D) + S (D' - D) + c . (hardening basis)

A: metal. Edge terms: first-order changes of M with radius, position, direction and blur, and the thread. H: what fills
the zone. B: bone, a common mean with a deviation, slope and bend for each piece of the unrolled surface. S: a bright
rim from R + w outwards, never negative. All but w is linear with normal priors; H and S have bounds. The pieces'
deviations are eliminated piece by piece, so that one solution costs a few milliseconds. Residuals are weighted by
Tukey's biweight; a voxel's variance grows with the slope of the metal's edge, since no cylinder is known better than a
few hundredths of a millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.unrolled import BoolArray, IntArray

_BIWEIGHT = 4.685
"""Tukey's constant: 95 % efficiency for normal residuals."""


@dataclass(frozen=True, eq=False, slots=True)
class Columns:
    """The part of the model that does not depend on w.

    values: (n, p). mean, sd: (p,) priors. metal: (n,) the blurred disc of the metal itself. cell: (n,) piece of bone
    that a voxel lies in, ascending. profile: (n, 3) how bone may vary with the distance. sigma_hu: (n,) standard
    deviation of a voxel.
    """

    hu: FloatArray
    values: FloatArray
    mean: FloatArray
    sd: FloatArray
    metal: FloatArray
    cell: IntArray
    cells: int
    profile: FloatArray
    sigma_hu: FloatArray

    @property
    def starts(self) -> IntArray:
        """The first voxel of every piece that has any."""
        return np.flatnonzero(np.diff(self.cell, prepend=-1))

    def take(self, which: BoolArray) -> Columns:
        return replace(
            self,
            hu=self.hu[which],
            values=self.values[which],
            metal=self.metal[which],
            cell=self.cell[which],
            profile=self.profile[which],
            sigma_hu=self.sigma_hu[which],
        )


@dataclass(frozen=True, slots=True)
class Priors:
    """Bounds and standard deviations, HU."""

    bone_sd_hu: tuple[float, float, float]
    halo_hu: tuple[float, float]
    halo_sd_hu: float
    rim_hu: tuple[float, float]
    rim_sd_hu: float


@dataclass(frozen=True, eq=False, slots=True)
class Solution:
    """cost: robust misfit. parameters: (p,) of the columns. bone_hu: (cells, 3) of the profile. residual: (n,) HU."""

    cost: float
    parameters: FloatArray
    bone_hu: FloatArray
    halo_hu: float
    rim_hu: float
    residual: FloatArray


def solve(columns: Columns, outer: FloatArray, rim: FloatArray, priors: Priors, rounds: int = 3) -> Solution:
    """The best parameters for given discs `outer` (n,) (radius R + w) and `rim` (n,) (a rim's outer edge)."""
    shade = 1 - outer
    bone_part = columns.profile * shade[:, None]
    own = np.column_stack([columns.values, shade, outer - columns.metal, rim - outer])
    system = _System(columns, np.column_stack([bone_part, own, columns.hu]), columns.starts, priors)
    inverse = 1 / columns.sigma_hu**2
    weights = inverse
    for turn in range(rounds):
        beta, bone = system.best(weights)
        residual = columns.hu - own @ beta - np.sum(bone_part * bone[columns.cell], axis=1)
        # The first round sees gross misfits everywhere; a wider one keeps it from discarding good voxels.
        weights = biweight(residual / columns.sigma_hu, 3.0 if turn == 0 else 1.0) * inverse
    cost = float(np.sum(biweight_cost(residual / columns.sigma_hu)))
    cost += float(np.sum(((beta[:-3] - columns.mean) / columns.sd) ** 2))
    return Solution(cost, beta[:-3], bone + np.array([beta[-3], 0.0, 0.0]), float(beta[-2]), float(beta[-1]), residual)


def biweight(z: FloatArray, width: float = 1.0) -> FloatArray:
    """Weights of residuals in standard deviations."""
    u2 = np.minimum((z / (_BIWEIGHT * width)) ** 2, 1.0)
    return np.asarray((1 - u2) ** 2)


def biweight_cost(z: FloatArray) -> FloatArray:
    """Tukey's bounded loss, z^2 for small residuals."""
    u2 = np.minimum((z / _BIWEIGHT) ** 2, 1.0)
    return np.asarray(_BIWEIGHT**2 / 3 * (1 - (1 - u2) ** 3))


@dataclass(frozen=True, eq=False, slots=True)
class _System:
    """One linear problem. all_columns: (n, 3 + p + 3 + 1) bone's profile in shade, all that is shared, HU."""

    columns: Columns
    all_columns: FloatArray
    starts: IntArray
    priors: Priors

    def best(self, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(p + 3,) parameters and (cells, 3) deviations of bone by weighted least squares with priors and bounds."""
        columns, priors, local = self.columns, self.priors, self.columns.profile.shape[1]
        mean = np.append(columns.mean, [0.0, sum(priors.halo_hu) / 2, 0.0])
        precision = np.append(1 / columns.sd**2, [1e-6, 1 / priors.halo_sd_hu**2, 1 / priors.rim_sd_hu**2])
        weighted = self.all_columns * weight[:, None]
        whole = self.all_columns[:, local:-1].T @ weighted[:, local:]
        normal, right = whole[:, :-1] + np.diag(precision), whole[:, -1] + precision * mean
        # For each piece, the products of its bone with itself, with what is shared and with the HU.
        piece = np.add.reduceat(self.all_columns[:, :local, None] * weighted[:, None], self.starts)
        piece[:, :, :local] += np.diag(1 / np.square(priors.bone_sd_hu))
        cross = piece[:, :, local:-1]
        solved = np.linalg.solve(piece[:, :, :local], piece[:, :, local:])
        reduced = normal - np.tensordot(cross, solved[:, :, :-1], axes=([0, 1], [0, 1]))
        beta = _bounded(reduced, right - np.tensordot(cross, solved[:, :, -1], axes=([0, 1], [0, 1])), priors)
        deviations = np.zeros((columns.cells, local))
        deviations[columns.cell[self.starts]] = solved[:, :, -1] - solved[:, :, :-1] @ beta
        return beta, deviations


def _bounded(normal: FloatArray, right: FloatArray, priors: Priors) -> FloatArray:
    """Solves with the last two parameters within their bounds: one that leaves them is fixed at the bound."""
    free = np.ones(len(right), dtype=bool)
    beta = np.zeros(len(right))
    bounds = {len(right) - 2: priors.halo_hu, len(right) - 1: priors.rim_hu}
    for _ in range(3):
        held = right[free] - normal[np.ix_(free, ~free)] @ beta[~free]
        beta[free] = np.linalg.solve(normal[np.ix_(free, free)], held)
        outside = [j for j, (low, high) in bounds.items() if free[j] and not low <= beta[j] <= high]
        if not outside:
            break
        for j in outside:
            beta[j] = np.clip(beta[j], *bounds[j])
            free[j] = False
    return beta


def local_fits(
    columns: Columns,
    rest: FloatArray,
    mean_hu: float,
    outers: list[FloatArray],
    halo_hu: float,
    bone_sd_hu: tuple[float, float, float],
) -> tuple[FloatArray, FloatArray]:
    """Misfit (radii, cells) of every outer radius in every cell and bone (radii, cells, 3) there, all else held.

    rest: (n,) HU without metal and hardening. mean_hu: bone expected. outers: blurred discs, (n,) each.
    """
    starts = columns.starts
    here = columns.cell[starts]
    prior = np.diag(1 / np.square(bone_sd_hu))
    inverse = 1 / columns.sigma_hu**2
    costs = np.zeros((len(outers), columns.cells))
    bones = np.zeros((len(outers), columns.cells, len(bone_sd_hu)))
    bones[..., 0] = mean_hu
    for number, outer in enumerate(outers):
        shade = columns.profile * (1 - outer)[:, None]
        open_part = rest - halo_hu * (outer - columns.metal) - mean_hu * shade[:, 0]
        weight = inverse
        for turn in range(3):
            own = np.add.reduceat(shade[:, :, None] * (shade * weight[:, None])[:, None], starts) + prior
            target = np.add.reduceat(shade * (weight * open_part)[:, None], starts)
            change = np.linalg.solve(own, target[..., None])[..., 0]
            spread = np.repeat(change, np.diff(np.append(starts, len(rest))), axis=0)
            z = (open_part - np.sum(shade * spread, axis=1)) / columns.sigma_hu
            weight = biweight(z, 3.0 if turn == 0 else 1.0) * inverse
        costs[number, here] = np.add.reduceat(biweight_cost(z), starts)
        costs[number, here] += np.sum(change**2 / np.square(bone_sd_hu), axis=1)
        bones[number, here] += change
    return costs, bones
