"""Long thin pieces of metal: shafts and rods, told from heads and plates by following them.

The metal becomes a cloud of small volumes. Where the cloud within a ball of 7 mm is a line, a tube is followed in both
directions in steps of 1 mm, from centroid to centroid of its cross-sections, until the cross-section is too wide (a
head, a stem), empties (a free end) or the way turns sharply. Pieces of one line are joined across heads and gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray
from spineimg.implants.metal_map import IntArray, MetalMap
from spineimg.settings import setting

_END_SPAN = 12
_LEAN = 4
"""Cross-sections (1 mm) that tell a tube's direction at its end, and those beside a mass that lean into it."""


_TULIP, _FEWEST = 1.35, 3
"""A piece of so many cross-sections wider than this part of the shaft is a tulip. Engineering choice."""


class End(StrEnum):
    """Why a tube ends."""

    FREE = "free"
    MASS = "mass"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class TubeSettings:
    """What counts as a tube. All engineering choices, made on pedicle screws of 4-8.5 mm and rods of 3.5-6.5 mm."""

    cell_mm: float = setting(
        2.0,
        "mm",
        (1.0, 3.0),
        "engineering choice: fine beside the ball, coarse enough for large implants",
        "Side of the cells in which directions are looked for.",
    )
    ball_mm: float = setting(
        7.0,
        "mm",
        (4.0, 12.0),
        "engineering choice: a shaft is longer than the ball and thinner",
        "Radius of the ball in which metal must look like a line.",
    )
    thinness: float = setting(
        0.62,
        "",
        (0.3, 0.9),
        "engineering choice: 0.4-0.5 in a shaft, above 0.8 in a head",
        "Metal is a line where its second axis is at most this part of its first.",
    )
    widest_mm: float = setting(
        5.4,
        "mm",
        (4.0, 7.0),
        "engineering choice: an 8.5 mm screw with its blooming; a head has 6 mm",
        "A cross-section of a larger effective radius ends a tube.",
    )
    peel_mm: float = setting(
        1.25,
        "mm",
        (0.5, 2.5),
        "engineering choice: streaks of steel join shafts by bands of 2-4 mm; the thinnest shafts have 4 mm",
        "So much of metal's edge in each slice is left out where streaks join screws and rods to one piece.",
    )
    shortest_mm: float = setting(
        5.0, "mm", (2.0, 15.0), "engineering choice: a rod between two cervical heads", "Shorter tubes are dropped."
    )


@dataclass(frozen=True, eq=False, slots=True)
class Cloud:
    """Metal as small volumes. points_lps_mm: (n, 3); volumes_mm3: (n,); no two slices farther apart than 1 mm."""

    points_lps_mm: FloatArray
    volumes_mm3: FloatArray


@dataclass(frozen=True, eq=False, slots=True)
class Tube:
    """points_lps_mm: (n, 3) centres of cross-sections about 1 mm apart; radii_mm: (n,) effective radii."""

    points_lps_mm: FloatArray
    radii_mm: FloatArray
    ends: tuple[End, End]

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(np.diff(self.points_lps_mm, axis=0), axis=1).sum())

    @property
    def radius_mm(self) -> float:
        return float(np.median(self.radii_mm))

    def end_line(self, end: int) -> tuple[FloatArray, FloatArray]:
        """Where a tube ends, (3,), and the unit direction in which it leaves, at its first (0) or last (1) end.

        Beside a mass the cross-sections lean into it; the last of them only tell how far the tube goes.
        """
        inward = self.points_lps_mm if end == 0 else self.points_lps_mm[::-1]
        lean = min(_LEAN, len(inward) // 3) if self.ends[end] is End.MASS else 0
        used = inward[lean : lean + _END_SPAN]
        out = line_direction(used[::-1])
        middle = used.mean(axis=0)
        return middle + ((inward[0] - middle) @ out) * out, out

    def end_point(self, end: int) -> FloatArray:
        return np.asarray(self.points_lps_mm[0 if end == 0 else -1])

    def reversed(self) -> Tube:
        return Tube(self.points_lps_mm[::-1], self.radii_mm[::-1], (self.ends[1], self.ends[0]))


def line_direction(points: FloatArray) -> FloatArray:
    """(3,) unit direction of the straight line through points (n, 3), from the first to the last."""
    centred = points - points.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    return np.asarray(direction if direction @ (points[-1] - points[0]) >= 0 else -direction)


def cloud_of(metal: MetalMap, peel_mm: float = 0.0) -> Cloud:
    """The solid metal of a map (at its seed level or more) as a cloud, without so much of its edge in each slice."""
    solid = metal.hu >= metal.seed_hu
    if peel_mm > 0:
        solid[solid] = _deeper(metal.index[solid], metal.geometry.spacing_mm[1:], peel_mm)
    index, volume = metal.index[solid].astype(np.float64), metal.volumes_mm3[solid]
    step = metal.geometry.spacing_mm[0]
    pieces = int(np.ceil(step)) if np.isfinite(step) else 1
    shifts = (np.arange(pieces) + 0.5) / pieces - 0.5
    points = [metal.geometry.lps_at(index + np.array([shift, 0.0, 0.0])) for shift in shifts]
    return Cloud(np.concatenate(points), np.tile(volume / pieces, pieces))


def _deeper(index: IntArray, spacing_mm: tuple[float, float], depth_mm: float) -> npt.NDArray[np.bool_]:
    """(n,) which of voxels, by (n, 3) index, lie deeper than so much inside them all in their slice."""
    from scipy.ndimage import distance_transform_edt

    deep = np.zeros(len(index), dtype=bool)
    for k in np.unique(index[:, 0]):
        here = index[:, 0] == k
        row, column = (index[here, 1:] - index[here, 1:].min(axis=0) + 1).T
        image = np.zeros((row.max() + 2, column.max() + 2), dtype=bool)
        image[row, column] = True
        deep[here] = distance_transform_edt(image, sampling=spacing_mm)[row, column] > depth_mm
    return deep


def find_tubes(cloud: Cloud, settings: TubeSettings | None = None) -> list[Tube]:
    """All tubes of a cloud, the straightest first."""
    from scipy.spatial import cKDTree

    chosen = settings or TubeSettings()
    if len(cloud.points_lps_mm) < 4:
        return []
    cells, directions, thinness = _directions(cloud, chosen)
    tree = cKDTree(cloud.points_lps_mm)
    tracer = _Tracer(cloud, tree, chosen)
    open_cells = thinness <= chosen.thinness
    tubes: list[Tube] = []
    for seed in np.argsort(thinness, kind="stable"):
        if not open_cells[seed]:
            continue
        tube = tracer.follow(cells[seed], directions[seed])
        open_cells[seed] = False
        if tube is None:
            continue
        near, _ = cKDTree(tube.points_lps_mm).query(cells, distance_upper_bound=tube.radius_mm + chosen.cell_mm)
        open_cells &= ~np.isfinite(near)
        tracer.taken.append(tube)
        if tube.length_mm >= chosen.shortest_mm:
            tubes.append(tube)
    return tubes


def _directions(cloud: Cloud, settings: TubeSettings) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cells of the cloud: (m, 3) centroids, (m, 3) direction of the metal around each, (m,) its thinness."""
    from scipy.sparse import coo_matrix
    from scipy.spatial import cKDTree

    keys = np.floor(cloud.points_lps_mm / settings.cell_mm).astype(np.int64)
    _, cell = np.unique(keys, axis=0, return_inverse=True)
    cell = cell.ravel()
    weight = np.bincount(cell, cloud.volumes_mm3)
    sums_of = [np.bincount(cell, cloud.volumes_mm3 * x) for x in cloud.points_lps_mm.T]
    centers: FloatArray = np.stack(sums_of, axis=1).astype(np.float64) / weight[:, None]
    pairs = cKDTree(centers).query_pairs(settings.ball_mm, output_type="ndarray")
    both = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(len(centers))[:, None], 2, axis=1)])
    near = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(centers),) * 2).tocsr()
    local = centers - centers.mean(axis=0)
    outer = (local[:, :, None] * local[:, None, :]).reshape(-1, 9)
    sums = near @ (weight[:, None] * np.concatenate([np.ones((len(local), 1)), local, outer], axis=1))
    mean = sums[:, 1:4] / sums[:, :1]
    spread = (sums[:, 4:] / sums[:, :1]).reshape(-1, 3, 3) - mean[:, :, None] * mean[:, None, :]
    values, vectors = np.linalg.eigh(spread)
    values = np.maximum(values, 0.0)
    thin = np.sqrt(values[:, 1] / np.maximum(values[:, 2], 1e-9))
    # A handful of voxels has no direction.
    thin[(values[:, 2] < 1.0) | (sums[:, 0] < 20.0)] = np.inf
    return centers, vectors[:, :, 2], thin


class _Tracer:
    """Follows tubes through a cloud. `taken`: tubes followed so far; their metal ends another tube."""

    STEP_MM = 1.0
    HALF_SLAB_MM = 1.0
    LOOK_MM = 7.5
    CENTRE_MM = 5.5

    def __init__(self, cloud: Cloud, tree: object, settings: TubeSettings) -> None:
        self._cloud, self._tree, self._settings = cloud, tree, settings
        self.taken: list[Tube] = []

    def section(self, at: FloatArray, along: FloatArray) -> tuple[FloatArray, float]:
        """Centroid and effective radius of the cross-section near a point; the radius is 0 where there is no metal."""
        reach = float(np.hypot(self.LOOK_MM, self.HALF_SLAB_MM))
        near = np.asarray(self._tree.query_ball_point(at, reach), dtype=np.intp)  # type: ignore[attr-defined]
        if not len(near):
            return at, 0.0
        away = self._cloud.points_lps_mm[near] - at
        depth = away @ along
        across = away - depth[:, None] * along
        off = np.einsum("ij,ij->i", across, across)
        inside = np.abs(depth) <= self.HALF_SLAB_MM
        volume = self._cloud.volumes_mm3[near] * inside * (off <= self.LOOK_MM**2)
        area = float(volume.sum()) / (2 * self.HALF_SLAB_MM)
        close = volume * (off <= self.CENTRE_MM**2)
        if close.sum() <= 0:
            return at, 0.0
        return at + (close[:, None] * across).sum(axis=0) / close.sum(), float(np.sqrt(area / np.pi))

    def follow(self, start: FloatArray, along: FloatArray) -> Tube | None:
        """The tube through a point, both ways; None where the cross-section there is no tube's."""
        for _ in range(3):
            start, radius = self.section(start, along)
        if not 0.5 < radius <= self._settings.widest_mm:
            return None
        ways = [self._one_way(start, along * sign) for sign in (-1.0, 1.0)]
        points = np.array([*ways[0][0][::-1], start, *ways[1][0]])
        radii = np.array([*ways[0][1][::-1], radius, *ways[1][1]])
        return Tube(points, radii, (ways[0][2], ways[1][2]))

    def _one_way(self, start: FloatArray, along: FloatArray) -> tuple[list[FloatArray], list[float], End]:
        points, radii = [start], [0.0]
        while len(points) < 600:
            at, radius = self.section(points[-1] + self.STEP_MM * along, along)
            if radius < 0.6:
                return points[1:], radii[1:], End.FREE
            if radius > self._settings.widest_mm or self._in_another(at):
                return points[1:], radii[1:], End.MASS
            move = at - points[-1]
            if np.linalg.norm(move - (move @ along) * along) > 1.2:
                return points[1:], radii[1:], End.TURN
            points.append(at)
            radii.append(radius)
            if len(points) >= 5:
                heading = line_direction(np.array(points[-10:]))
                along = 0.5 * along + 0.5 * heading
                along = along / np.linalg.norm(along)
        return points[1:], radii[1:], End.TURN

    def _in_another(self, at: FloatArray) -> bool:
        return any(
            float(np.min(np.linalg.norm(tube.points_lps_mm - at, axis=1))) < 0.7 * tube.radius_mm for tube in self.taken
        )


def without_tulips(tube: Tube) -> Tube:
    """The longest part of a shaft's tube without wide pieces: a small tulip is not too wide for a tube."""
    parts = narrow_parts(tube)
    return max(parts, key=lambda part: len(part.radii_mm)) if parts else tube


def narrow_parts(tube: Tube) -> list[Tube]:
    """The parts of a tube between its wide pieces, which are masses."""
    usual = float(np.quantile(tube.radii_mm, 0.3))
    wide = tube.radii_mm > max(_TULIP * usual, usual + 0.8)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wide, [False]]).astype(np.int8)))
    cut = np.zeros(len(wide), dtype=bool)
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        cut[a:b] = b - a >= _FEWEST
    edges = np.flatnonzero(np.diff(np.concatenate([[True], cut, [True]]).astype(np.int8)))
    return [
        Tube(
            tube.points_lps_mm[a:b],
            tube.radii_mm[a:b],
            (tube.ends[0] if a == 0 else End.MASS, tube.ends[1] if b == len(cut) else End.MASS),
        )
        for a, b in zip(edges[::2], edges[1::2], strict=True)
        if b - a >= _FEWEST
    ]


def join_tubes(tubes: list[Tube], longest_gap_mm: float, widest_step_mm: float, sharpest_deg: float) -> list[Tube]:
    """Tubes of one line become one: ends that face each other, the nearest pair first."""
    tubes = list(tubes)
    while True:
        best: tuple[float, int, int, int, int] | None = None
        for i in range(len(tubes)):
            for j in range(i + 1, len(tubes)):
                for a in (0, 1):
                    for b in (0, 1):
                        gap = _facing(tubes[i], a, tubes[j], b, widest_step_mm, sharpest_deg)
                        if gap is not None and gap <= longest_gap_mm and (best is None or gap < best[0]):
                            best = (gap, i, j, a, b)
        if best is None:
            return tubes
        _, i, j, a, b = best
        first = tubes[i] if a == 1 else tubes[i].reversed()
        second = tubes[j] if b == 0 else tubes[j].reversed()
        joined = Tube(
            np.concatenate([first.points_lps_mm, second.points_lps_mm]),
            np.concatenate([first.radii_mm, second.radii_mm]),
            (first.ends[0], second.ends[1]),
        )
        tubes = [tube for n, tube in enumerate(tubes) if n not in (i, j)] + [joined]


def _facing(
    one: Tube, end_one: int, other: Tube, end_other: int, widest_step_mm: float, sharpest_deg: float
) -> float | None:
    """Distance between two ends that continue each other, mm; None when they do not."""
    (at_one, out_one), (at_other, out_other) = one.end_line(end_one), other.end_line(end_other)
    way = at_other - at_one
    distance = float(np.linalg.norm(way))
    if -(out_one @ out_other) < np.cos(np.radians(sharpest_deg)):
        return None
    forward = float(way @ (out_one - out_other)) / 2
    if forward < -2.0:
        return None
    # A bent rod leaves its end's line by half the bend over the gap.
    allowed = widest_step_mm + 0.1 * distance
    off = max(
        float(np.linalg.norm(way - (way @ out_one) * out_one)),
        float(np.linalg.norm(way - (way @ out_other) * out_other)),
    )
    return distance if off <= allowed else None
