"""Where metal is in a scan, found in one pass over its slices.

Every slice is read once. Voxels at 2000 HU or more are kept as a list, and around them a cut-out of the slice, from
which all later fits take their voxels; the rest of the slice is dropped. The metal is labelled on the list, so that
memory follows the amount of metal and not the size of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spineimg.geometry import FloatArray, Geometry
from spineimg.implants.model import Progress
from spineimg.metal import MetalSettings
from spineimg.settings import setting
from spineimg.volume import CTVolume, HUArray

IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

_NEIGHBOURS = np.array(
    [(dk, dr, dc) for dk in (0, 1) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if (dk, dr, dc) > (0, 0, 0)]
)
"""Half of the 26 neighbours of a voxel."""


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What is metal, and how much of the slices around it is kept."""

    room_mm: float = setting(
        14.0,
        "mm",
        (5.0, 40.0),
        "engineering choice: the halo and the bone around it are looked at up to 10 mm from a shaft",
        "So much of a slice is kept around its metal.",
    )
    plateau_part: float = setting(
        0.2,
        "",
        (0.02, 0.9),
        "engineering choice: half of a clipped screw's voxels lie at the end of the scale; metal that "
        "shows its own HU spreads over hundreds",
        "The end of the scale is a value that so much of the brightest metal shares.",
    )
    dense_hu: float = setting(
        10000.0,
        "HU",
        (8500.0, 12000.0),
        "titanium reads 6300-8400 HU, steel and cobalt-chrome 12000-18000 HU: engineering choice between",
        "Where a quarter of the metal is brighter, it is dense, and the levels follow it.",
    )
    of_dense: float = setting(
        0.35,
        "of the metal's HU",
        (0.2, 0.45),
        "engineering choice: streaks between two screws read up to 0.35, starved shafts 0.4",
        "A voxel at this part of dense metal's HU is metal.",
    )
    most_dense_hu: float = setting(
        5000.0,
        "HU",
        (3000.0, 6000.0),
        "engineering choice: a titanium screw beside a cobalt-chrome rod stays metal",
        "The level of metal rises so far at most.",
    )
    most_voxels: int = setting(
        6_000_000,
        "voxels",
        (100_000, 50_000_000),
        "engineering choice: a hundred times the metal of a long construct",
        "A scan with more voxels above 2000 HU is not in HU, or not of a patient.",
    )


class Windows:
    """Cut-outs of slices, kept from the pass over the scan; what is not kept is read again.

    Values are float32 HU, nan where there is no measurement.
    """

    def __init__(self, volume: CTVolume) -> None:
        self._volume = volume
        self._kept: dict[int, tuple[int, int, Float32Array]] = {}
        self._raw: dict[int, tuple[int, int, HUArray]] = {}

    @property
    def geometry(self) -> Geometry:
        return self._volume.geometry

    def keep(self, k: int, hu: HUArray, rows: slice, columns: slice) -> None:
        """Keeps (rows, columns) of slice k, whose whole HU are given."""
        self._raw[k] = (rows.start, columns.start, hu[rows, columns].copy())

    def _measured(self, k: int, hu: HUArray) -> Float32Array:
        good = self._volume.valid(k, hu)
        return np.where(good, hu, np.float32(np.nan)).astype(np.float32)

    def window(self, k: int, rows: slice, columns: slice) -> Float32Array:
        """(rows, columns) of slice k. The slices must lie within the scan."""
        raw = self._raw.pop(k, None)
        if raw is not None:
            self._kept[k] = (raw[0], raw[1], self._measured(k, raw[2]))
        kept = self._kept.get(k)
        if kept is not None:
            first_row, first_column, hu = kept
            inside = rows.start >= first_row and columns.start >= first_column
            if inside and rows.stop <= first_row + hu.shape[0] and columns.stop <= first_column + hu.shape[1]:
                return hu[
                    rows.start - first_row : rows.stop - first_row,
                    columns.start - first_column : columns.stop - first_column,
                ]
        full = self._measured(k, self._volume.read(k))
        self._kept[k] = (0, 0, full)
        return full[rows, columns]

    def near_line(
        self, start_lps_mm: FloatArray, end_lps_mm: FloatArray, reach_mm: float
    ) -> tuple[FloatArray, FloatArray]:
        """Native voxels within reach of a line's piece: (n, 3) centres in LPS mm and (n,) HU, finite ones only."""
        geometry = self.geometry
        ends = np.stack([start_lps_mm, end_lps_mm])
        places, normal = geometry.positions_mm, geometry.normal_lps
        low, high = np.sort(ends @ normal)
        slices = np.flatnonzero((places >= low - reach_mm) & (places <= high + reach_mm))
        axis = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
        length = float(np.linalg.norm(ends[1] - ends[0]))
        found_at, found_hu = [np.empty((0, 3))], [np.empty(0)]
        for k in slices:
            box = self._box(int(k), ends, reach_mm)
            if box is None:
                continue
            rows, columns = box
            hu = self.window(int(k), rows, columns)
            near = _near(geometry, int(k), (rows, columns), (ends[0], axis, length), reach_mm)
            r, c = np.nonzero(near & np.isfinite(hu))
            at = geometry.origins_lps_mm[k] + (r + rows.start)[:, None] * geometry.row_step_lps_mm
            found_at.append(at + (c + columns.start)[:, None] * geometry.column_step_lps_mm)
            found_hu.append(hu[r, c].astype(np.float64))
        return np.concatenate(found_at), np.concatenate(found_hu)

    def sample(self, points_lps_mm: FloatArray) -> FloatArray:
        """(n,) HU between voxels, trilinear, at (n, 3) LPS mm; nan outside the scan and beside missing voxels."""
        index = self.geometry.index_at(points_lps_mm)
        shape = self.geometry.shape
        inside = ((index >= -1e-6) & (index <= np.array(shape) - 1 + 1e-6)).all(axis=1)
        values = np.full(len(index), np.nan)
        if not inside.any() or min(shape) < 2:
            return values
        at = index[inside]
        low = np.clip(np.floor(at).astype(np.int64), 0, np.array(shape) - 2)
        part = np.clip(at - low, 0.0, 1.0)
        total = np.zeros(len(at))
        for k in np.unique(np.concatenate([low[:, 0], low[:, 0] + 1])):
            weight = np.where(low[:, 0] == k, 1 - part[:, 0], np.where(low[:, 0] + 1 == k, part[:, 0], 0.0))
            used = np.flatnonzero(weight)
            if len(used):
                total[used] += weight[used] * self._bilinear(int(k), low[used, 1:], part[used, 1:])
        values[inside] = total
        return values

    def _bilinear(self, k: int, low: IntArray, part: FloatArray) -> FloatArray:
        """(n,) HU of slice k between four voxels each, from (n, 2) lower row and column and the parts beyond them."""
        first, last = low.min(axis=0), low.max(axis=0) + 2
        hu = self.window(k, slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])))
        r, c = (low - first).T
        a, b = part.T
        upper = hu[r, c] * (1 - b) + hu[r, c + 1] * b
        lower = hu[r + 1, c] * (1 - b) + hu[r + 1, c + 1] * b
        return np.asarray(upper * (1 - a) + lower * a, dtype=np.float64)

    def _box(self, k: int, ends: FloatArray, reach_mm: float) -> tuple[slice, slice] | None:
        """Rows and columns of slice k that the neighbourhood of a line's piece crosses."""
        geometry = self.geometry
        height = (ends - geometry.origins_lps_mm[k]) @ geometry.normal_lps
        part = _crossing(float(height[0]), float(height[1]), reach_mm)
        if part is None:
            return None
        piece = ends[0] + np.array(part)[:, None] * (ends[1] - ends[0])
        row, column = geometry.in_plane(piece - geometry.origins_lps_mm[k])
        box = []
        for at, count, step in ((row, geometry.shape[1], 1), (column, geometry.shape[2], 2)):
            room = reach_mm / geometry.spacing_mm[step] + 1
            first, last = max(0, int(np.floor(at.min() - room))), min(count, int(np.ceil(at.max() + room)) + 1)
            if first >= last:
                return None
            box.append(slice(first, last))
        return box[0], box[1]


def _near(
    geometry: Geometry,
    k: int,
    box: tuple[slice, slice],
    piece: tuple[FloatArray, FloatArray, float],
    reach_mm: float,
) -> npt.NDArray[np.bool_]:
    """(rows, columns) of a box on slice k: True within reach of a piece of line (start, unit direction, length).

    Depth along the line and distance from its start are sums over rows and columns, which saves the points themselves.
    """
    start, axis, length = piece
    away = geometry.origins_lps_mm[k] - start
    row, column = geometry.row_step_lps_mm, geometry.column_step_lps_mm
    r, c = np.arange(box[0].start, box[0].stop)[:, None], np.arange(box[1].start, box[1].stop)
    along = (away @ axis + r * (row @ axis)) + c * (column @ axis)
    squared = (away @ away + r * (2 * away @ row) + r * r * (row @ row)) + (
        c * (2 * away @ column) + c * c * (column @ column)
    )
    cross = float(row @ column)
    if abs(cross) > 1e-12:
        squared = squared + 2 * cross * r * c
    inside = np.clip(along, 0.0, length)
    return np.asarray(squared - 2 * along * inside + inside * inside <= reach_mm * reach_mm)


def _crossing(start: float, end: float, reach: float) -> tuple[float, float] | None:
    """The part (0-1) of a piece running from height `start` to `end` that lies within `reach` of height 0."""
    if abs(end - start) < 1e-9:
        return (0.0, 1.0) if abs(start) <= reach else None
    a, b = sorted(((-reach - start) / (end - start), (reach - start) / (end - start)))
    a, b = max(a, 0.0), min(b, 1.0)
    return (a, b) if a <= b else None


@dataclass(frozen=True, eq=False)
class MetalMap:
    """The metal of a scan.

    index: (n, 3) slice, row, column of voxels at `grow_hu` or more that are joined to metal; hu: (n,) their values;
    part: (n,) number of the joined piece each belongs to, 0 … parts - 1. seed_hu: what a voxel of solid metal reaches;
    dense: whether that was raised, since most of the metal shows the HU of steel or cobalt-chrome.
    scale_end_hu: HU at which the scale ends, below the metal's own; None when metal shows its own HU. overflow: so much
    is bright that nothing was looked for.
    """

    windows: Windows
    index: IntArray
    hu: Float32Array
    part: IntArray
    seed_hu: float
    scale_end_hu: float | None
    overflow: bool = False
    dense: bool = False

    @property
    def geometry(self) -> Geometry:
        return self.windows.geometry

    @property
    def dense_hu(self) -> float | None:
        """The level of metal where it was raised."""
        return self.seed_hu if self.dense else None

    @property
    def brighter(self) -> float:
        """How far the level of metal was raised, 1 where it was not."""
        return self.seed_hu / MetalSettings().seed_hu if self.dense else 1.0

    @property
    def parts(self) -> int:
        return int(self.part.max()) + 1 if len(self.part) else 0

    @cached_property
    def points_lps_mm(self) -> FloatArray:
        """(n, 3) centres of the voxels."""
        return self.geometry.lps_at(self.index)

    @cached_property
    def volumes_mm3(self) -> FloatArray:
        """(n,) volume of the voxels: of uneven slices, each counts with the mean of its two steps."""
        geometry = self.geometry
        area = np.linalg.norm(np.cross(geometry.row_step_lps_mm, geometry.column_step_lps_mm))
        steps = geometry.usual_steps_mm if geometry.shape[0] > 1 else np.ones(1)
        height = (np.append(steps, steps[-1]) + np.insert(steps, 0, steps[0])) / 2
        return np.asarray(area * height[self.index[:, 0]])


def map_metal(
    volume: CTVolume,
    progress: Progress | None = None,
    settings: MapSettings | None = None,
    metal: MetalSettings | None = None,
) -> MetalMap:
    """Finds the metal of a scan. `progress` gets 0-1 and cancels by raising; what reading raises passes through."""
    chosen, levels = settings or MapSettings(), metal or MetalSettings()
    windows = Windows(volume)
    count = volume.geometry.shape[0]
    found, values, total = [np.empty((0, 3), dtype=np.int64)], [np.empty(0, dtype=np.float32)], 0
    for k in range(count):
        if progress is not None:
            progress(k / count, "looking for metal")
        index, hu = _bright(volume, windows, k, levels.grow_hu, chosen.room_mm)
        total += len(index)
        if total > chosen.most_voxels:
            return MetalMap(windows, found[0], values[0], found[0][:, 0], levels.seed_hu, None, overflow=True)
        found.append(index)
        values.append(hu)
    index, hu = np.concatenate(found), np.concatenate(values)
    return _joined(windows, index, hu, levels, chosen)


def _bright(
    volume: CTVolume, windows: Windows, k: int, level_hu: float, room_mm: float
) -> tuple[IntArray, Float32Array]:
    """Voxels of slice k at the level or more; the slice around them is kept."""
    hu = volume.read(k)
    # One axis is looked through several times faster than two.
    row, column = np.divmod(np.flatnonzero(hu >= level_hu), hu.shape[1])
    if not len(row):
        return np.empty((0, 3), dtype=np.int64), np.empty(0, dtype=np.float32)
    good = volume.valid(k, hu[row, column])
    row, column = row[good], column[good]
    if not len(row):
        return np.empty((0, 3), dtype=np.int64), np.empty(0, dtype=np.float32)
    room = [int(np.ceil(room_mm / step)) for step in volume.geometry.spacing_mm[1:]]
    rows = slice(max(0, int(row.min()) - room[0]), min(hu.shape[0], int(row.max()) + room[0] + 1))
    columns = slice(max(0, int(column.min()) - room[1]), min(hu.shape[1], int(column.max()) + room[1] + 1))
    windows.keep(k, hu, rows, columns)
    index = np.stack([np.full(len(row), k), row, column], axis=1)
    return index.astype(np.int64), hu[row, column].astype(np.float32)


def _joined(
    windows: Windows, index: IntArray, hu: Float32Array, levels: MetalSettings, settings: MapSettings
) -> MetalMap:
    """Bright voxels that hang together with solid metal, numbered by piece."""
    empty = MetalMap(windows, index[:0], hu[:0], np.empty(0, dtype=np.int64), levels.seed_hu, None)
    if not len(hu):
        return empty
    seed, end, dense = _level_of(hu, levels, settings)
    if dense:
        # Between and beside dense implants streaks are as bright as titanium's edge.
        bright = hu >= seed * levels.grow_hu / levels.seed_hu
        index, hu = index[bright], hu[bright]
    label = joined_pieces(index, windows.geometry.shape)
    metal = np.isin(label, np.unique(label[hu >= seed]))
    if not metal.any():
        return empty
    _, part = np.unique(label[metal], return_inverse=True)
    return MetalMap(windows, index[metal], hu[metal], part.astype(np.int64), seed, end, dense=dense)


def solid_index(volume: CTVolume) -> IntArray:
    """(n, 3) slice, row, column of all voxels as bright as the scan's own metal, whatever they are part of; none where
    so much is bright that nothing is looked for. Raises what reading raises."""
    levels, settings = MetalSettings(), MapSettings()
    found, values, total = [np.empty((0, 3), dtype=np.int64)], [np.empty(0, dtype=np.float32)], 0
    for k in range(volume.geometry.shape[0]):
        hu = volume.read(k)
        bright = np.argwhere((hu >= levels.grow_hu) & volume.valid(k, hu))
        total += len(bright)
        if total > settings.most_voxels:
            return found[0]
        found.append(np.column_stack([np.full(len(bright), k), bright]))
        values.append(hu[tuple(bright.T)].astype(np.float32))
    known = np.concatenate(values)
    least_hu = _level_of(known, levels, settings)[0]
    return np.concatenate(found)[known >= least_hu]


def _level_of(hu: Float32Array, levels: MetalSettings, settings: MapSettings) -> tuple[float, float | None, bool]:
    """What a voxel of solid metal reaches, where the scale ends below metal, and whether the metal is dense."""
    end = _scale_end(hu, levels, settings)
    if end is not None:
        return min(end, levels.seed_hu), end, False
    raised = _dense_seed(hu, levels, settings)
    return (levels.seed_hu, None, False) if raised is None else (raised, None, True)


def _dense_seed(hu: Float32Array, levels: MetalSettings, settings: MapSettings) -> float | None:
    """The level of metal where most of it is denser than titanium; None where it is not."""
    solid = hu[hu >= levels.seed_hu]
    level = float(np.quantile(solid, 0.75)) if len(solid) else 0.0
    if level < settings.dense_hu:
        return None
    return float(np.clip(settings.of_dense * level, levels.seed_hu, settings.most_dense_hu))


def _scale_end(hu: Float32Array, levels: MetalSettings, settings: MapSettings) -> float | None:
    """HU at which the scale ends below metal: a value that solid metal repeats; None where there is none.

    Resampling may overshoot the end a little, so that it is the commonest of the highest values and not the largest.
    """
    values, counts = np.unique(np.rint(hu[hu >= levels.grow_hu]), return_counts=True)
    if not len(values):
        return None
    high = values >= max(levels.grow_hu, 0.8 * float(values[-1]))
    common = int(np.argmax(np.where(high, counts, 0)))
    repeated = int(counts[common])
    above = int(counts[values > values[common] - 0.1 * abs(values[common])].sum())
    enough = repeated >= levels.plateau_voxels and repeated >= settings.plateau_part * above
    return float(values[common]) if enough else None


def joined_pieces(index: IntArray, shape: tuple[int, int, int]) -> IntArray:
    """(n,) number of the 26-connected piece of each voxel of a list that is sorted by slice, row, column."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    wide = (shape[1] + 2, shape[2] + 2)
    code = ((index[:, 0] * wide[0]) + index[:, 1] + 1) * wide[1] + index[:, 2] + 1
    first, second = [], []
    for dk, dr, dc in _NEIGHBOURS:
        target = code + (dk * wide[0] + dr) * wide[1] + dc
        at = np.minimum(np.searchsorted(code, target), len(code) - 1)
        hit = np.flatnonzero(code[at] == target)
        first.append(hit)
        second.append(at[hit])
    i, j = np.concatenate(first), np.concatenate(second)
    links = coo_matrix((np.ones(len(i), dtype=np.int8), (i, j)), shape=(len(code), len(code)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)
