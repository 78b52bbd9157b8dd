"""The forward model of a shaft in bone and its fit to voxels.

At a voxel, with M, D the blurred discs of the metal's radius R and of the outer radius R + w:

    HU = A M + (edge terms) + H (D - M) + B (1 - D) + S (D' - D) + O o + c . (hardening basis)

A: metal. Edge terms: first-order changes of M with radius, position, direction and blur, and the thread. H: what fills
the zone. B: bone, a common mean with a deviation, a slope and a third term for each piece of the unrolled surface: a
bend, or cortex where there is some. S: a bright rim from R + w outwards, never negative. O: what the hardening basis
leaves beside the metal, one amplitude for each piece, falling off with the distance. All but w is linear with normal
priors; H and S have bounds. What belongs to one piece is eliminated piece by piece, so that one solution costs a few
milliseconds. Residuals are weighted by Tukey's biweight; a voxel's variance grows with the slope of the metal's edge,
since no cylinder is known better than a few hundredths of a millimetre. Neighbouring voxels err together: their misfit
is divided by `deflation` before it meets the priors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spineimg.geometry import FloatArray
from spineimg.implants.unrolled import BoolArray, IntArray

_BIWEIGHT = 4.685
"""Tukey's constant: 95 % efficiency for normal residuals."""


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Voxels laid out by piece, so that every piece's products are one small matrix product.

    here: (pieces,) those that have any voxel. slot: (n,) place of each voxel in (pieces x most voxels of a piece).
    """

    here: IntArray
    slot: IntArray
    shape: tuple[int, int]

    @classmethod
    def of(cls, cell: IntArray) -> Rows:
        here, starts, count = np.unique(cell, return_index=True, return_counts=True)
        most = int(count.max(initial=0))
        inside = np.arange(len(cell)) - np.repeat(starts, count)
        return cls(here, np.repeat(np.arange(len(here)), count) * most + inside, (len(here), most))

    def spread(self, values: FloatArray) -> FloatArray:
        """(n, k) values as (pieces, most, k), 0 where a piece has fewer."""
        out = np.zeros((self.shape[0] * self.shape[1], values.shape[1]))
        out[self.slot] = values
        return out.reshape(*self.shape, values.shape[1])


@dataclass(frozen=True, eq=False)
class Columns:
    """The part of the model that does not depend on w.

    values: (n, p). mean, sd: (p,) priors. metal: (n,) the blurred disc of the metal itself. cell: (n,) piece of bone
    that a voxel lies in, ascending. profile: (n, 3) how bone may vary with the distance. offsets: (n, 2) shapes of
    what hardening leaves: beside the metal, and far along the slice plane. sigma_hu: (n,) SD of a voxel.
    """

    hu: FloatArray
    values: FloatArray
    mean: FloatArray
    sd: FloatArray
    metal: FloatArray
    cell: IntArray
    cells: int
    profile: FloatArray
    offsets: FloatArray
    sigma_hu: FloatArray

    @cached_property
    def rows(self) -> Rows:
        return Rows.of(self.cell)

    @cached_property
    def _fixed(self) -> FloatArray:
        """`equations` without what the discs change."""
        gap = np.zeros((len(self.hu), 3))
        return np.column_stack([gap, self.offsets, self.values, gap, self.hu])

    def equations(self, outer: FloatArray, rim: FloatArray) -> FloatArray:
        """(n, 5 + p + 3 + 1) what each piece has of its own outside discs `outer`, what is shared, and the HU."""
        every = self._fixed.copy()
        every[:, :3] = self.profile * (1 - outer)[:, None]
        every[:, -4], every[:, -3], every[:, -2] = 1 - outer, outer - self.metal, rim - outer
        return every

    def take(self, which: BoolArray) -> Columns:
        return replace(
            self,
            hu=self.hu[which],
            values=self.values[which],
            metal=self.metal[which],
            cell=self.cell[which],
            profile=self.profile[which],
            offsets=self.offsets[which],
            sigma_hu=self.sigma_hu[which],
        )

    def own(self, outer: FloatArray) -> FloatArray:
        """(n, 5) what each piece has of its own, outside discs `outer`."""
        return np.column_stack([self.profile * (1 - outer)[:, None], self.offsets])


@dataclass(frozen=True, slots=True)
class Priors:
    """Means, bounds and standard deviations, HU. piece_sd_hu: of what each piece has of its own."""

    bone_hu: tuple[float, float]
    piece_sd_hu: tuple[float, float, float, float, float]
    halo_hu: tuple[float, float]
    halo_sd_hu: float
    rim_hu: tuple[float, float]
    rim_sd_hu: float
    deflation: float

    def shared(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """(p + 3,) means and standard deviations of what all pieces share."""
        mean = np.append(columns.mean, [self.bone_hu[0], sum(self.halo_hu) / 2, 0.0])
        return mean, np.append(columns.sd, [self.bone_hu[1], self.halo_sd_hu, self.rim_sd_hu])


@dataclass(frozen=True, eq=False, slots=True)
class Solution:
    """cost: misfit and priors. parameters: (p,) of the columns. bone_hu: the common mean. residual: (n,) HU."""

    cost: float
    parameters: FloatArray
    bone_hu: float
    halo_hu: float
    rim_hu: float
    residual: FloatArray


def solve(columns: Columns, outer: FloatArray, rim: FloatArray, priors: Priors, rounds: int = 3) -> Solution:
    """The best parameters for given discs `outer` (n,) (radius R + w) and `rim` (n,) (a rim's outer edge)."""
    system = _System(columns, columns.equations(outer, rim), priors)
    inverse = 1 / (priors.deflation * columns.sigma_hu**2)
    weights = inverse
    for turn in range(rounds):
        beta, pieces = system.best(weights)
        residual = columns.hu - system.shared[:, :-1] @ beta
        residual -= np.einsum("ij,ij->i", system.own, pieces[columns.cell])
        # The first round sees gross misfits everywhere; a wider one keeps it from discarding good voxels.
        weights = biweight(residual / columns.sigma_hu, 3.0 if turn == 0 else 1.0) * inverse
    mean, sd = priors.shared(columns)
    cost = float(np.sum(biweight_cost(residual / columns.sigma_hu))) / priors.deflation
    cost += float(np.sum(((beta - mean) / sd) ** 2) + np.sum((pieces / priors.piece_sd_hu) ** 2))
    return Solution(cost, beta[:-3], float(beta[-3]), float(beta[-2]), float(beta[-1]), residual)


def biweight(z: FloatArray, width: float = 1.0) -> FloatArray:
    """Weights of residuals in standard deviations."""
    u2 = np.minimum((z / (_BIWEIGHT * width)) ** 2, 1.0)
    return np.asarray((1 - u2) ** 2)


def biweight_cost(z: FloatArray) -> FloatArray:
    """Tukey's bounded loss, z^2 for small residuals."""
    u2 = np.minimum((z / _BIWEIGHT) ** 2, 1.0)
    return np.asarray(_BIWEIGHT**2 / 3 * (1 - (1 - u2) ** 3))


@dataclass(frozen=True, eq=False)
class _System:
    """One linear problem. equations: (n, 5 + p + 3 + 1), see `Columns.equations`."""

    columns: Columns
    equations: FloatArray
    priors: Priors

    @property
    def own(self) -> FloatArray:
        """(n, 5) what pieces have of their own."""
        return self.equations[:, : len(self.priors.piece_sd_hu)]

    @property
    def shared(self) -> FloatArray:
        """(n, p + 3 + 1) all else, and the HU."""
        return self.equations[:, len(self.priors.piece_sd_hu) :]

    @cached_property
    def laid_out(self) -> tuple[FloatArray, FloatArray]:
        """(pieces, 5, most) what is a piece's own, (pieces, most, 5 + p + 3 + 1) everything."""
        both = self.columns.rows.spread(self.equations)
        return np.ascontiguousarray(both[:, :, : self.own.shape[1]].transpose(0, 2, 1)), both

    def best(self, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(p + 3,) parameters and (cells, 5) of the pieces, by weighted least squares with priors and bounds."""
        columns, priors, local = self.columns, self.priors, len(self.priors.piece_sd_hu)
        mean, sd = priors.shared(columns)
        whole = self.shared[:, :-1].T @ (self.shared * weight[:, None])
        normal, right = whole[:, :-1] + np.diag(sd**-2), whole[:, -1] + mean / sd**2
        # For each piece, the products of what is its own with itself, with what is shared and with the HU.
        across, both = self.laid_out
        piece = (across * columns.rows.spread(weight[:, None])[:, None, :, 0]) @ both
        piece[:, :, :local] += np.diag(1 / np.square(priors.piece_sd_hu))
        solved = np.linalg.solve(piece[:, :, :local], piece[:, :, local:])
        taken = piece[:, :, local:-1].reshape(-1, len(right)).T @ solved.reshape(-1, len(right) + 1)
        beta = _bounded(normal - taken[:, :-1], right - taken[:, -1], priors)
        pieces = np.zeros((columns.cells, local))
        pieces[columns.rows.here] = solved[:, :, -1] - solved[:, :, :-1] @ beta
        return beta, pieces


def _bounded(normal: FloatArray, right: FloatArray, priors: Priors) -> FloatArray:
    """Solves with the last two parameters within their bounds: one that leaves them is fixed at the bound."""
    bounds = {len(right) - 2: priors.halo_hu, len(right) - 1: priors.rim_hu}
    beta = np.linalg.solve(normal, right)
    free = np.ones(len(right), dtype=bool)
    for _ in bounds:
        outside = [j for j, (low, high) in bounds.items() if free[j] and not low <= beta[j] <= high]
        if not outside:
            break
        for j in outside:
            beta[j] = np.clip(beta[j], *bounds[j])
            free[j] = False
        held = right[free] - normal[np.ix_(free, ~free)] @ beta[~free]
        beta[free] = np.linalg.solve(normal[np.ix_(free, free)], held)
    return np.asarray(beta)


def local_fit(
    columns: Columns, solution: Solution, outer: FloatArray, rim: FloatArray, priors: Priors
) -> tuple[FloatArray, FloatArray]:
    """(cells,) misfit of discs `outer`, `rim` (n,) in every piece, and (cells,) its bone; what is shared is held."""
    rows = columns.rows
    own = columns.own(outer)
    rest = columns.hu - columns.values @ solution.parameters - solution.bone_hu * (1 - outer)
    rest -= solution.halo_hu * (outer - columns.metal) + solution.rim_hu * (rim - outer)
    prior = np.diag(1 / np.square(priors.piece_sd_hu))
    # Padding has no weight and counts for nothing.
    both = rows.spread(np.column_stack([own, rest, 1 / columns.sigma_hu]))
    own_laid, rest_laid, per_sd = both[..., :-2], both[..., -2], both[..., -1]
    across = np.ascontiguousarray(own_laid.transpose(0, 2, 1))
    inverse = per_sd**2 / priors.deflation
    weight = inverse
    for turn in range(3):
        product = (across * weight[:, None]) @ both[..., :-1]
        pieces = np.linalg.solve(product[..., :-1] + prior, product[..., -1:])
        z = (rest_laid - (own_laid @ pieces)[..., 0]) * per_sd
        weight = biweight(z, 3.0 if turn == 0 else 1.0) * inverse
    cost, bone = np.zeros(columns.cells), np.full(columns.cells, solution.bone_hu)
    cost[rows.here] = np.sum(biweight_cost(z), axis=1) / priors.deflation
    cost[rows.here] += np.sum((pieces[..., 0] / priors.piece_sd_hu) ** 2, axis=1)
    bone[rows.here] += pieces[:, 0, 0]
    return cost, bone
