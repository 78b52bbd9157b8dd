"""How well a click becomes a body and three ROIs, on random phantoms; three other recipes on the same volumes.

    python -m benchmarks.body [--seeds 300 301 302] [--slices 1.2 3.0 4.8] [--folder CT --click X Y Z]

The truth comes from the phantom. The other recipes are given the true centre and the true body, with and without a
metal rod through the left half of the body; ours finds the body itself. With --folder one click on real data is tried.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.chapters import number, table
from spineimg.geometry import FloatArray, Geometry
from spineimg.phantom import BodyTruth, Change, Imaging, Phantom, SpineSpec, body_truth
from spineimg.phantom.model import ellipse_points
from spineimg.phantom.parts import Canvas
from spineimg.phantom.samples import Planes, Points
from spineimg.phantom.spine import Vertebra, rim_points
from spineimg.rois import Ellipse
from spineimg.sampling import SliceReader, sample_ellipse
from spineimg.vertebra.body import Body, BodyNotFoundError
from spineimg.vertebra.click import body_of_click
from spineimg.vertebra.placement import PlacementError, place_rois
from spineimg.volume import Acquisition, ArraySource, CTVolume

LUMBAR = ("T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
THORACIC = ("T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12", "L1")
FINE_MM = 0.6
SOFT_MM = 0.42
METAL_HU = 3000.0


def random_phantom(seed: int) -> Phantom:
    """A spine of random size, curve, bone and wear; every third one thoracic."""
    draw = np.random.default_rng([seed, 77])
    thoracic = seed % 3 == 2
    levels = THORACIC if thoracic else LUMBAR
    soft, worn, bent = draw.random() < 0.35, draw.random() < 0.4, draw.random() < 0.4
    spine = SpineSpec(
        levels,
        {level: _change(draw, worn) for level in levels},
        seed=seed,
        l1_hu=float(draw.uniform(45, 85) if soft else draw.uniform(90, 200)),
        size=float(draw.uniform(0.86, 1.14)),
        lordosis=float(draw.uniform(0.3, 1.25)),
        kyphosis=float(draw.uniform(0.5, 1.6)),
        scoliosis_deg=float(draw.uniform(-25, 25) if bent else draw.uniform(-3, 3)),
        rotation_deg=float(draw.uniform(-15, 15) if bent else draw.uniform(-3, 3)),
        aorta_hu=float(draw.choice([40.0, 165.0, 280.0])),
        aorta_gap_mm=float(draw.choice([0.0, 2.0])),
    )
    imaging = Imaging(size=(200, 200), pixel_mm=0.8, spacing_mm=FINE_MM, thickness_mm=FINE_MM, margin_mm=25.0)
    return Phantom(spine, imaging, cover=("T4", "T10") if thoracic else ("T11", "L5"), seed=seed)


def _change(draw: np.random.Generator, worn: bool) -> Change:
    disc = draw.random()
    state = "bridged" if worn and disc < 0.25 else "narrow" if disc < (0.6 if worn else 0.1) else "normal"
    return Change(
        osteophyte_mm=float(draw.uniform(2, 5)) if draw.random() < (0.5 if worn else 0.1) else 0.0,
        wedge=float(draw.uniform(0.1, 0.25)) if draw.random() < 0.07 else 0.0,
        crush=float(draw.uniform(0.05, 0.15)) if draw.random() < 0.05 else 0.0,
        sclerosis_hu=float(draw.uniform(100, 220)) if draw.random() < 0.05 else 0.0,
        disc_below=state,
    )


def painted(phantom: Phantom) -> np.ndarray:
    """(slices, rows, columns) float32 HU without noise, one sample a voxel, every edge a Gaussian step."""
    geometry = phantom.geometry
    size, row, column = geometry.shape[1:], geometry.row_step_lps_mm, geometry.column_step_lps_mm
    hu = np.empty(geometry.shape, np.float32)
    for first in range(0, geometry.shape[0], 20):
        some = geometry.origins_lps_mm[first : first + 20]
        planes, middle = Planes(some, row, column, size), Planes(some[len(some) // 2][None], row, column, size)
        trunk = np.broadcast_to(phantom.torso.hu(middle, SOFT_MM), planes.shape).copy()
        canvas = Canvas.blank(planes.shape)
        for part in phantom.parts:
            part.paint(canvas, planes, SOFT_MM)
        hu[first : first + 20] = canvas.over(phantom.torso.with_ribs(trunk, planes, SOFT_MM))
    return hu


def scanned(phantom: Phantom, fine: np.ndarray, together: int, noise_sd_hu: float, seed: int) -> CTVolume:
    """Fine slices averaged to thicker ones, with noise of a ramp filter's spectrum."""
    geometry = phantom.geometry
    count = fine.shape[0] // together
    hu = fine[: count * together].reshape(count, together, *fine.shape[1:]).mean(axis=1)
    draw = np.random.default_rng([seed, together])
    frequency = np.hypot(np.fft.fftfreq(hu.shape[1], 0.8)[:, None], np.fft.rfftfreq(hu.shape[2], 0.8))
    spectrum = np.sqrt(frequency) * np.exp(-2 * (np.pi * 0.4 * frequency) ** 2)
    noise = np.stack([np.fft.irfft2(np.fft.rfft2(draw.standard_normal(hu.shape[1:])) * spectrum) for _ in hu])
    hu = hu + noise * (noise_sd_hu / noise.std())
    origins = geometry.origins_lps_mm[: count * together].reshape(count, together, 3).mean(axis=1)
    lattice = Geometry(hu.shape, origins, geometry.row_step_lps_mm, geometry.column_step_lps_mm)
    return CTVolume(
        lattice, ArraySource(np.rint(hu).astype(np.int16)), Acquisition(slice_thickness_mm=together * FINE_MM)
    )


@dataclass
class Table:
    """What one slice thickness gave."""

    clicks: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    angle_deg: list[float] = field(default_factory=list)
    place_mm: list[float] = field(default_factory=list)
    hu: dict[str, list[float]] = field(default_factory=dict)
    outside: int = 0
    outside_refused: int = 0
    seconds: list[float] = field(default_factory=list)

    def print(self, slices_mm: float) -> None:
        found = len(self.angle_deg) // 2
        print(f"\nslices {slices_mm:.1f} mm: {self.clicks} clicks, {found} bodies, {len(self.wrong)} of them wrong")
        print(f"  clicks outside a body refused: {self.outside_refused} of {self.outside}")
        print(f"  refusals inside: {dict(self.refused)}; wrong: {'; '.join(self.wrong) or 'none'}")
        for name, unit, values in (("plane angle", "deg", self.angle_deg), ("plane place", "mm", self.place_mm)):
            print(f"  {name}: median {np.median(values):.2f}, p95 {np.percentile(values, 95):.2f} {unit}")
        print(f"  time of a click: median {np.median(self.seconds):.3f} s")
        for name, errors in self.hu.items():
            size = np.abs(errors)
            print(
                f"  HU error, {name}: n {len(size)}, mean {np.mean(errors):+.1f}, "
                f"median of size {np.median(size):.2f}, p95 {np.percentile(size, 95):.2f}, largest {size.max():.1f}"
            )


def run(found: Table, phantom: Phantom, volume: CTVolume, draw: np.random.Generator) -> None:
    for vertebra in phantom.layout[1:]:
        if vertebra.level[0] == "S" or not _whole(volume, vertebra):
            continue
        truth = body_truth(vertebra)
        _inside(found, phantom, volume, truth, draw)
        _others(found, phantom, volume, truth)
    for click in _clicks_outside(phantom, volume, draw, 8):
        found.outside += 1
        try:
            body_of_click(volume, click)
        except BodyNotFoundError:
            found.outside_refused += 1


def _whole(volume: CTVolume, vertebra: Vertebra) -> bool:
    rim = np.concatenate([rim_points(vertebra.body, end) for end in (True, False)])
    spacing = np.array(volume.geometry.spacing_mm)
    index = volume.geometry.index_at(rim)
    return bool(((index * spacing > 2) & ((np.array(volume.geometry.shape) - 1 - index) * spacing > 2)).all())


def _inside(found: Table, phantom: Phantom, volume: CTVolume, truth: BodyTruth, draw: np.random.Generator) -> None:
    while np.hypot(*(place := draw.uniform(-0.5, 0.5, 3))[:2]) > 0.5:
        pass
    half = np.array([truth.width_mm, truth.depth_mm, truth.height_mm]) / 2
    found.clicks += 1
    start = time.perf_counter()
    try:
        body = body_of_click(volume, truth.frame.lps(place * half))
    except BodyNotFoundError as refusal:
        found.refused[refusal.code] += 1
        return
    found.seconds.append(time.perf_counter() - start)
    angles, places = _errors(body, truth)
    found.angle_deg += angles
    found.place_mm += places
    if max(angles) > 5 or max(places) > 3 or np.linalg.norm(body.center_lps_mm - truth.frame.center_lps_mm) > 3:
        found.wrong.append(f"{phantom.seed} {truth.level} ({max(angles):.1f} deg, {max(places):.1f} mm)")
    try:
        rois = place_rois(volume, body)
    except PlacementError:
        found.refused["no_room"] += 1
        return
    errors = [_roi_mean(volume, roi) - _bone_mean(phantom, truth.level, roi) for roi in rois]
    found.hu.setdefault("three ROIs from a click, against the bone in the same planes", []).append(
        float(np.nanmean(errors))
    )


def _errors(body: Body, truth: BodyTruth) -> tuple[list[float], list[float]]:
    pairs = ((body.superior, truth.superior), (body.inferior, truth.inferior))
    angles = [float(np.degrees(np.arccos(min(1.0, float(a.normal_lps @ b.normal_lps))))) for a, b in pairs]
    return angles, [abs(float((b.point_lps_mm - a.point_lps_mm) @ a.normal_lps)) for a, b in pairs]


def _roi_mean(volume: CTVolume, roi: Ellipse) -> float:
    return float(np.nanmean(sample_ellipse(SliceReader(volume), roi).hu))


def _bone_mean(phantom: Phantom, level: str, roi: Ellipse) -> float:
    """Mean of trabecular bone proper on the plane: no vein, lesion or band of sclerosis, no wall or disc."""
    filling, points = phantom.filling(level), Points(ellipse_points(roi, 0.7))
    wall, top, bottom = filling.body.surfaces(points)
    proper = filling.clear(points, 0.0) & (np.maximum(wall, np.maximum(top, bottom)) < -1)
    return float(filling(points)[proper].mean()) if proper.any() else float("nan")


def _others(found: Table, phantom: Phantom, volume: CTVolume, truth: BodyTruth) -> None:
    """Three other recipes at the true place, against the mean of plain bone in the whole body."""
    geometry, filling = volume.geometry, phantom.filling(truth.level)
    reach = np.linalg.norm([truth.width_mm, truth.depth_mm, truth.height_mm]) / 2
    index = geometry.index_at(truth.frame.center_lps_mm)
    low = np.maximum(np.floor(index - reach / np.array(geometry.spacing_mm)), 0).astype(int)
    high = np.minimum(np.ceil(index + reach / np.array(geometry.spacing_mm)) + 1, geometry.shape).astype(int)
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    block = np.stack([volume.read(int(k))[low[1] : high[1], low[2] : high[2]] for k in range(low[0], high[0])])
    points = geometry.lps_at(grid).reshape(-1, 3)
    local = (points - truth.frame.center_lps_mm) @ truth.frame.axes.T
    depth = -np.max(filling.body.surfaces(Points(points)), axis=0)
    mid_slice = grid[..., 0].ravel() == round(float(index[0]))
    recipes = {
        "200 mm2 circle at the centre": mid_slice & (np.hypot(local[:, 0], local[:, 1]) <= np.sqrt(200 / np.pi)),
        "5 mm sphere at the centroid": np.linalg.norm(local, axis=1) <= 5,
        "body eroded by 4 mm": depth >= 4,
    }
    rod = np.hypot(local[:, 0] - 10, local[:, 2]) < 3
    for metal in (False, True):
        hu = np.where(rod & metal, METAL_HU, block.ravel())
        for name, chosen in recipes.items():
            if chosen.any():
                label = f"{name}{', metal in the body' if metal else ''}"
                found.hu.setdefault(label, []).append(float(hu[chosen].mean()) - filling.mean_hu)


def _clicks_outside(phantom: Phantom, volume: CTVolume, draw: np.random.Generator, count: int) -> list[FloatArray]:
    """Points within 6 cm of the spine and 3 mm or more outside every body."""
    found: list[FloatArray] = []
    bodies = [v.body for v in phantom.layout]
    while len(found) < count:
        near = phantom.layout[draw.integers(len(phantom.layout))].frame.center_lps_mm
        point = near + draw.uniform([-60, -45, -22], [60, 60, 22])
        index = volume.geometry.index_at(point)
        inside = ((index >= 1) & (index <= np.array(volume.geometry.shape) - 2)).all()
        if inside and min(float(np.max(b.surfaces(Points(point[None])))) for b in bodies) >= 3:
            found.append(point)
    return found


# -- the chapter ------------------------------------------------------------------------------------------------------

CHAPTER_SEEDS = (1751, 1752, 1753, 1754, 1755, 1756)
"""Used for nothing else."""
CHAPTER_SLICES_MM = (1.2, 3.0, 4.8)


def chapter(figures: Path, progress: Callable[[str], None] = print) -> str:
    """Clicks and whole spines on random phantoms against their truth and the goals, as Markdown. Draws nothing."""
    from benchmarks.levels import SpineTable, levels_table, run_levels

    tables = {slices: Table() for slices in CHAPTER_SLICES_MM}
    spines = {slices: SpineTable() for slices in CHAPTER_SLICES_MM}
    for seed in CHAPTER_SEEDS:
        phantom = random_phantom(seed)
        fine = painted(phantom)
        for i, slices in enumerate(CHAPTER_SLICES_MM):
            noise = (10.0, 20.0, 30.0)[(seed + i) % 3]
            volume = scanned(phantom, fine, max(1, round(slices / FINE_MM)), noise, seed)
            run(tables[slices], phantom, volume, np.random.default_rng([seed, i, 5]))
            run_levels(spines[slices], phantom, volume, np.random.default_rng([seed, i, 6]))
            progress(f"bodies: phantom {seed}, {slices:g} mm")
    return "\n\n".join([_INTRODUCTION, _clicks_table(tables), levels_table(spines), _recipes_table(tables)])


_INTRODUCTION = f"""\
Random phantoms (`benchmarks/body.py`: size, curve, scoliosis to 25°, bone from 45 to 200 HU, wedges, osteophytes,
sclerosis, narrow and bridged discs, an enhanced aorta at the body), noise SD 10-30 HU, {len(CHAPTER_SEEDS)} spines
(seeds {CHAPTER_SEEDS[0]} to {CHAPTER_SEEDS[-1]}) that nothing was tuned on. One click anywhere in the central half of
every whole body; clicks within 6 cm of the spine, 3 mm or more outside every body; and whole spines from one named
click. Wrong: more than 3 mm or 5 degrees off."""


def _clicks_table(tables: Mapping[float, Table]) -> str:
    header = ["clicks", "goal", *(f"slices {slices:g} mm" for slices in tables)]
    every = list(tables.values())

    def row(name: str, goal: str, value: Callable[[Table], str]) -> list[str]:
        return [name, goal, *(value(one) for one in every)]

    def spread(values: list[float]) -> str:
        return f"{np.median(values):.1f} / {np.percentile(values, 95):.1f}" if values else "–"

    ours = "three ROIs from a click, against the bone in the same planes"
    return table(
        header,
        [
            row("bodies found", "99 %", lambda t: f"{len(t.angle_deg) // 2} of {t.clicks}"),
            row("wrong of the found", "", lambda t: f"{len(t.wrong)}"),
            row("plane angle, median / 95th percentile, degrees", "0.7 / 2-3", lambda t: spread(t.angle_deg)),
            row("plane position, mm", "0.4 / 1.2", lambda t: spread(t.place_mm)),
            row("HU error, size", "1 / 4", lambda t: spread([abs(e) for e in t.hu.get(ours, [])])),
            row("clicks outside refused", "98 %", lambda t: f"{t.outside_refused} of {t.outside}"),
        ],
    )


def _recipes_table(tables: Mapping[float, Table]) -> str:
    """Errors of every recipe, all slices together."""
    errors: dict[str, list[float]] = {}
    for one in tables.values():
        for name, values in one.hu.items():
            errors.setdefault(name, []).extend(values)
    rows = [
        [name, len(v), number(float(np.mean(v)), 1, sign=True), f"{np.median(np.abs(v)):.1f}",
         f"{np.percentile(np.abs(v), 95):.1f}"]
        for name, v in errors.items()
    ]  # fmt: skip
    return (
        "HU errors of other recipes on the same volumes, given the true centre and the true body; against the mean of "
        "plain bone in the whole body. A rod of 6 mm with 3000 HU stands for metal in the body.\n\n"
        + table(["recipe", "bodies", "mean error", "median size", "95th percentile"], rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[300, 301, 302])
    parser.add_argument("--slices", type=float, nargs="+", default=[1.2, 3.0, 4.8])
    parser.add_argument("--folder")
    parser.add_argument("--click", type=float, nargs=3)
    chosen = parser.parse_args()
    if chosen.folder:
        import spineimg

        print(body_of_click(spineimg.load(chosen.folder), chosen.click))
        return
    tables = {slices: Table() for slices in chosen.slices}
    for seed in chosen.seeds:
        phantom = random_phantom(seed)
        fine = painted(phantom)
        for i, (slices, found) in enumerate(tables.items()):
            together = max(1, round(slices / FINE_MM))
            noise = (10.0, 20.0, 30.0)[(seed + i) % 3]
            run(found, phantom, scanned(phantom, fine, together, noise, seed), np.random.default_rng([seed, i, 5]))
    for slices, found in tables.items():
        found.print(slices)


if __name__ == "__main__":
    main()
