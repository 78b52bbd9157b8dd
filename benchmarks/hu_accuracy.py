"""How near a measured HU comes to the truth of a phantom.

The truth of a ROI is the mean over its ellipse of what the scanner shows there without noise: bone, discs and vessels
after in-plane blur and slice profile. It is computed on the continuous plane by quadrature and knows no voxels. Every
deviation above the goal is taken apart: voxel centres instead of the whole ellipse, interpolation between voxels, and
what is left, which is rounding and the program itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.chapters import number, save, table
from spineimg import assess, load
from spineimg.anatomy import Construct
from spineimg.errors import SpineImgError
from spineimg.phantom import Imaging, Phantom, SpineSpec, ellipses
from spineimg.phantom.dicom import write_series
from spineimg.phantom.imaging import noise_slices
from spineimg.rois import Ellipse, RoiSet, VertebraRoi
from spineimg.sampling import PlaneSamples, SliceReader, sample_ellipse
from spineimg.vertebra.hu import VertebraHU
from spineimg.volume import ArraySource, CTVolume

FloatArray = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.float32]

GOAL_HU = 0.2
NOISY_SCANS = 12
FIELD_MM = 66.0
PIXELS_MM = (0.3, 0.6, 1.0)
SLICES_MM = ((0.6, 0.5), (1.25, 1.0), (3.0, 3.0), (5.0, 5.0))
"""Thickness and spacing: thin slices overlap, thick ones touch."""
SCANS: dict[str, dict[str, object]] = {
    "straight": {},
    "tilt 15°": {"tilt_deg": 15.0},
    "oblique 11°": {"oblique_deg": (11.0, 4.0)},
}
PLANES = ("scanner", "endplate")
LUMBAR = ("L1", "L2", "L3", "L4", "L5")


@dataclass(frozen=True, slots=True)
class Cell:
    """One scan of one vertebra. The field of view is no wider than the vertebra and what surrounds it."""

    scan: str
    pixel_mm: float
    thickness_mm: float
    spacing_mm: float
    level: str = "L3"
    position: str = "HFS"

    def phantom(self, seed: int = 1) -> Phantom:
        size = round(FIELD_MM / self.pixel_mm)
        imaging = Imaging(
            size=(size, size),
            pixel_mm=self.pixel_mm,
            spacing_mm=self.spacing_mm,
            thickness_mm=self.thickness_mm,
            margin_mm=self.thickness_mm / 2,
            offset_mm=(0.0, 6.0),
            position=self.position,
            **SCANS[self.scan],  # type: ignore[arg-type]
        )
        at = LUMBAR.index(self.level)
        spine = SpineSpec(LUMBAR[at - 1 : at + 2], seed=seed)
        return Phantom(spine, imaging, cover=(self.level, self.level), seed=seed, name=f"{self.scan} {self.level}")


GRID = tuple(
    Cell(scan, pixel, thickness, spacing) for scan, pixel, (thickness, spacing) in product(SCANS, PIXELS_MM, SLICES_MM)
)
STEEP = tuple(Cell("straight", 0.6, thickness, spacing, level="L5") for thickness, spacing in SLICES_MM)
"""L5 leans by about 20°: its endplate planes cross many slices of a straight scan."""


# -- truth ------------------------------------------------------------------------------------------------------------


def ellipse_rule(ellipse: Ellipse, rings: int = 8, spokes: int = 32) -> tuple[FloatArray, FloatArray]:
    """(n, 3) LPS mm points and (n,) weights of a quadrature over an ellipse.

    Gauss-Legendre in the squared radius, even angles turned by half a step from ring to ring: without the staircase of
    a square grid 256 points suffice for a few thousandths of a HU.
    """
    nodes, weights = np.polynomial.legendre.leggauss(rings)
    radius = np.sqrt((nodes + 1) / 2)[:, None]
    turn = 2 * np.pi * (np.arange(spokes) + 0.5 * (np.arange(rings)[:, None] % 2)) / spokes
    x, y = (radius * part * axis for part, axis in zip((np.cos(turn), np.sin(turn)), ellipse.semi_axes_mm, strict=True))
    points = ellipse.center_lps_mm + x[..., None] * ellipse.u_lps + y[..., None] * ellipse.v_lps
    return points.reshape(-1, 3), np.repeat(weights / 2 / spokes, spokes)


def true_hu(phantom: Phantom, ellipse: Ellipse) -> float:
    """Mean over the ellipse after blur and partial volume, before noise."""
    points, weights = ellipse_rule(ellipse)
    return float(weights @ phantom.blurred_hu(points))


def tissue_hu(phantom: Phantom, level: str, ellipse: Ellipse) -> float:
    """Mean over the ellipse of the bone's own HU, without any scanner."""
    from spineimg.phantom.samples import Points

    points, weights = ellipse_rule(ellipse)
    return float(weights @ phantom.filling(level)(Points(points)).astype(np.float64))


# -- one scan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One vertebra in one scan. `errors_hu`: measured minus true, plane by plane, without noise.

    noisy_hu: errors of the vertebral HU in scans that differ by their noise alone. parts_hu: what the error of the
    vertebral HU is made of, when it was taken apart: voxel centres, interpolation, the rest.
    """

    cell: Cell
    plane: str
    true_hu: tuple[float, ...]
    tissue_hu: tuple[float, ...]
    errors_hu: tuple[float, ...]
    noisy_hu: tuple[float, ...] = ()
    parts_hu: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    refused: bool = False
    """The program gave no number; the errors are then empty."""

    @property
    def bias_hu(self) -> float:
        """Error of the vertebral HU, the mean of the slice means."""
        return float(np.mean(self.errors_hu))

    @property
    def worst_plane_hu(self) -> float:
        return max(self.errors_hu, key=abs)

    @property
    def partial_volume_hu(self) -> float:
        """Truth after the scanner minus the tissue's own HU."""
        return float(np.mean(self.true_hu) - np.mean(self.tissue_hu))

    @property
    def noisy_bias_hu(self) -> float:
        return float(np.mean(self.noisy_hu))

    @property
    def standard_error_hu(self) -> float:
        """By noise, of the vertebral HU in one scan."""
        return float(np.std(self.noisy_hu, ddof=1))

    @property
    def scans_within_noise(self) -> int:
        """Single noisy scans whose error is at most two standard errors."""
        return int(np.count_nonzero(np.abs(self.noisy_hu) <= 2 * self.standard_error_hu))

    @property
    def within_goal(self) -> bool:
        return abs(self.bias_hu) < GOAL_HU

    @property
    def within_noise(self) -> bool:
        return abs(self.noisy_bias_hu) <= 2 * self.standard_error_hu


@dataclass(frozen=True, eq=False)
class Scan:
    """A phantom and its image before noise."""

    cell: Cell
    phantom: Phantom

    @cached_property
    def clean_hu(self) -> Pixels:
        return self.phantom.hu(noise=False)

    def volume(self, seed: int | None) -> CTVolume:
        """The image with the noise of a seed, as stored: whole HU."""
        hu = self.clean_hu
        if seed is not None:
            hu = hu + np.stack(list(noise_slices(self.phantom.imaging, self.phantom.geometry, seed)))
        stored = np.stack([self.phantom.stored_hu(one) for one in hu]).astype(np.int16)
        return CTVolume(self.phantom.geometry, ArraySource(stored), self.phantom.acquisition)

    def rois(self, plane: str) -> RoiSet:
        level = self.cell.level
        return RoiSet((VertebraRoi(level, ellipses=ellipses(self.phantom, level, plane)),), Construct(liv=level))


def measured(volume: CTVolume, rois: RoiSet) -> VertebraHU:
    """What the program says, by its public function."""
    return assess(volume, rois).vertebrae[0].hu


def means_hu(hu: VertebraHU) -> FloatArray:
    """(planes,) slice means; nan where there is none."""
    return np.array([np.nan if one.mean_hu is None else one.mean_hu for one in hu.slices])


def read_cell(cell: Cell, planes: Sequence[str] = PLANES, noisy_scans: int = NOISY_SCANS) -> list[Reading]:
    """One reading a kind of plane, in memory; none where the slices leave no number."""
    scan = Scan(cell, cell.phantom())
    fitting = [plane for plane in planes if _has_room(scan, plane)]
    noisy = [scan.volume(100 + seed) for seed in range(noisy_scans)]
    return [_reading(scan, plane, noisy) for plane in fitting]


def _has_room(scan: Scan, plane: str) -> bool:
    try:
        scan.rois(plane)
    except SpineImgError:
        return False
    return True


def _reading(scan: Scan, plane: str, noisy: Sequence[CTVolume]) -> Reading:
    rois = scan.rois(plane)
    own = rois.vertebrae[0].ellipses
    truth = np.array([true_hu(scan.phantom, one) for one in own])
    clean = scan.volume(None)
    result = assess(clean, rois)
    errors = means_hu(result.vertebrae[0].hu) - truth
    codes = tuple(dict.fromkeys(n.code for v in result.vertebrae for n in (*v.hu.notes, *v.notes)))
    if np.isnan(errors).any():
        return Reading(scan.cell, plane, tuple(truth), (), (), notes=codes, refused=True)
    reading = Reading(
        scan.cell,
        plane,
        tuple(truth),
        tuple(tissue_hu(scan.phantom, scan.cell.level, one) for one in own),
        tuple(errors),
        tuple(float(np.mean(means_hu(measured(one, rois)) - truth)) for one in noisy),
        notes=codes,
    )
    return reading if reading.within_goal else replace(reading, parts_hu=take_apart(scan, clean, own, truth, errors))


# -- why --------------------------------------------------------------------------------------------------------------


def take_apart(
    scan: Scan, clean: CTVolume, own: Sequence[Ellipse], truth: FloatArray, errors: FloatArray
) -> tuple[float, float, float]:
    """What an error is made of: (voxel centres, interpolation, rest), mean over the planes, HU.

    Voxel centres: the truth at the places that are averaged, minus the truth of the ellipse. Interpolation: the clean
    image at those places, by SciPy from unrounded HU, minus the truth there. The rest is rounding and the program.
    """
    centres, between = [], []
    for ellipse, true in zip(own, truth, strict=True):
        samples = sample_ellipse(SliceReader(clean), ellipse)
        there = scan.phantom.blurred_hu(samples.points_lps_mm)
        centres.append(float(there.mean()) - true)
        between.append(float(_interpolated(scan, samples).mean() - there.mean()))
    parts = float(np.mean(centres)), float(np.mean(between))
    return *parts, float(errors.mean()) - sum(parts)


def _interpolated(scan: Scan, samples: PlaneSamples) -> FloatArray:
    """(n,) clean HU at the places of a ROI, linear between voxels, without the program's own sampling."""
    from scipy.ndimage import map_coordinates

    geometry = scan.phantom.geometry
    points = samples.points_lps_mm
    if not samples.resampled:
        # On an original slice, the slice itself is measured, wherever within half a spacing the ellipse lies.
        k = samples.nearest_slice
        points = points - ((points - geometry.origins_lps_mm[k]) @ geometry.normal_lps)[:, None] * geometry.normal_lps
    inverse = np.linalg.inv(geometry.lps_from_index)
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    return np.asarray(map_coordinates(scan.clean_hu.astype(np.float64), index.T, order=1, mode="nearest"))


def reason(reading: Reading) -> str:
    """The largest part of an error, in words."""
    if reading.parts_hu is None:
        return ""
    names = ("voxel centres", "interpolation between slices", "the rest")
    return names[int(np.argmax(np.abs(reading.parts_hu)))]


# -- through files ----------------------------------------------------------------------------------------------------

FILES = (
    Cell("straight", 0.6, 1.25, 1.0),
    Cell("straight", 0.6, 1.25, 1.0, position="HFP"),
    Cell("straight", 0.6, 1.25, 1.0, position="FFS"),
    Cell("tilt 15°", 0.6, 1.25, 1.0),
    Cell("oblique 11°", 0.6, 1.25, 1.0),
    Cell("straight", 1.0, 5.0, 5.0),
)


@dataclass(frozen=True)
class FileReading:
    """The same noise-free scan by way of DICOM files: error of the vertebral HU by spineimg and by SimpleITK."""

    cell: Cell
    plane: str
    error_hu: float | None
    from_memory_hu: float | None
    peer_error_hu: float | None


def read_files(cell: Cell, planes: Sequence[str] = PLANES) -> list[FileReading]:
    """Written as DICOM, loaded, measured; the peer reads the same files and ellipses."""
    phantom = cell.phantom()
    silent = replace(phantom, imaging=replace(phantom.imaging, noise_sd_hu=0.0))
    scan = Scan(cell, silent)
    readings = []
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), silent)
        volume = load(Path(folder))
        for plane in planes:
            rois = scan.rois(plane)
            own = rois.vertebrae[0].ellipses
            truth = float(np.mean([true_hu(silent, one) for one in own]))
            mean = measured(volume, rois).mean_hu
            inside = float(means_hu(measured(scan.volume(None), rois)).mean())
            peer = [_simpleitk_mean(Path(folder), one) for one in own]
            known = [value for value in peer if value is not None]
            readings.append(
                FileReading(
                    cell,
                    plane,
                    None if mean is None else mean - truth,
                    None if mean is None else mean - inside,
                    float(np.mean(known)) - truth if len(known) == len(peer) else None,
                )
            )
    return readings


def _simpleitk_mean(folder: Path, ellipse: Ellipse) -> float | None:
    """Mean over the ellipse as a script with SimpleITK takes it: series reader, linear interpolation at LPS points."""
    import SimpleITK

    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    image = SimpleITK.ReadImage(names, SimpleITK.sitkFloat32)
    points, weights = ellipse_rule(ellipse)
    values = []
    for point in points:
        index = image.TransformPhysicalPointToContinuousIndex([float(p) for p in point])
        if not all(0 <= i <= size - 1 for i, size in zip(index, image.GetSize(), strict=True)):
            return None
        values.append(float(image.EvaluateAtContinuousIndex(index, SimpleITK.sitkLinear)))
    return float(weights @ np.array(values))


# -- chapter ----------------------------------------------------------------------------------------------------------


def read_all(cells: Sequence[Cell], workers: int, progress: Callable[[str], None]) -> Iterator[Reading]:
    """Cells in their own order, `workers` at a time."""
    with ProcessPoolExecutor(workers) as pool:
        for done, readings in enumerate(pool.map(read_cell, cells), 1):
            progress(f"HU: {done} of {len(cells)} scans")
            yield from readings


def chapter(figures: Path, progress: Callable[[str], None] = print) -> str:
    """The chapter as Markdown; its picture goes to `figures`."""
    everything = list(read_all((*GRID, *STEEP), 2, progress))
    readings = [one for one in everything if not one.refused]
    files = [one for cell in FILES for one in read_files(cell)]
    progress("HU: DICOM done")
    save(_picture(readings), figures / "hu_bias.png")
    return "\n\n".join(
        [
            _introduction(),
            _summary(readings, files),
            _unmeasured(everything),
            _details(readings),
            _causes(readings),
            _files(files),
        ]
    )


def _introduction() -> str:
    return f"""\
A phantom vertebra with trabecular texture, cortex, vein, discs and vessels is scanned with in-plane blur (FWHM 0.8 mm),
a slice profile, whole HU, and with or without correlated noise of 12 HU. Three ellipses are measured, once on original
slices (plane `scanner`) and once on planes parallel to the endplates (`endplate`). The scan is straight, tilted
by 15° (a sheared lattice) or turned by 11° and 4°. Vertebra: L3; in addition L5, which leans by about 20°.

**Reference**: the mean over the ellipse of the noise-free HU after blur and partial volume, by quadrature on the
continuous plane. **Partial volume**: that reference minus the mean of the bone's own HU in the ellipse, an
error of the scan that no measurement can undo. **Noise**: the mean error of {NOISY_SCANS} scans that differ by their
noise alone; the standard error (SE) is that of the vertebral HU of one scan. Of single scans 1 in 20 lies beyond two
standard errors by chance."""


def _summary(readings: Sequence[Reading], files: Sequence[FileReading]) -> str:
    rows = []
    for scan, plane in product(SCANS, PLANES):
        own = [one for one in readings if one.cell.scan == scan and one.plane == plane]
        for name, few in (("up to 1.25 mm", (0.0, 1.25)), ("3 mm", (3.0, 3.0)), ("5 mm", (5.0, 5.0))):
            some = [one for one in own if few[0] <= one.cell.thickness_mm <= few[1]]
            if not some:
                rows.append([scan, plane, name, "no number", None, None])
                continue
            worst = max((one.bias_hu for one in some), key=abs)
            beyond = sum(not one.within_noise for one in some)
            reached = sum(one.within_goal for one in some)
            rows.append(
                [
                    scan,
                    plane,
                    name,
                    number(worst, 2, True),
                    f"{reached} of {len(some)}",
                    f"{len(some) - beyond} of {len(some)}",
                ]
            )
    head = ["scan", "plane", "slices", "worst bias, HU", f"bias below {GOAL_HU} HU", "noisy within 2 SE"]
    good = sum(one.within_goal for one in readings)
    quiet = sum(one.within_noise for one in readings)
    fair = [one for one in readings if one.within_goal]
    within = sum(one.scans_within_noise for one in fair) / max(1, sum(len(one.noisy_hu) for one in fair))
    read = [abs(one.error_hu) for one in files if one.error_hu is not None]
    text = (
        f"Goal: bias below {GOAL_HU} HU without noise, within two standard errors with it. "
        f"Reached: {good} of {len(readings)} cells without noise, {quiet} of {len(readings)} with it; "
        f"by way of DICOM files {sum(one < GOAL_HU for one in read)} of {len(files)}. In cells that reach the goal, "
        f"{within:.1%} of the single noisy scans lie within two standard errors (expected by chance alone: 95 %)."
    )
    return f"{text}\n\n{table(head, rows)}\n\n![bias of every cell](validation/hu_bias.png)"


def _unmeasured(everything: Sequence[Reading]) -> str:
    """Cells without a number, and why."""
    there = {(one.cell, one.plane) for one in everything}
    absent = [one for one in product((*GRID, *STEEP), PLANES) if one not in there]
    refused = [(one.cell, one.plane) for one in everything if one.refused]
    codes = ", ".join(
        f"`{code}`" for code in dict.fromkeys(code for one in everything if one.refused for code in one.notes)
    )
    reasons = (
        ("No slice lies clear of endplates and vein by half its thickness and a margin", absent),
        (f"Refused by the program ({codes})", refused),
    )
    lines = [f"{why}: {_names(cells)}." for why, cells in reasons if cells]
    return "\n\n".join(["Cells without a number count neither way.", *lines]) if lines else "Every cell has a number."


def _names(cells: Sequence[tuple[Cell, str]]) -> str:
    return "; ".join(f"{c.level}, {c.scan}, {plane}, {c.pixel_mm:g} mm, {c.thickness_mm:g} mm" for c, plane in cells)


def _details(readings: Sequence[Reading]) -> str:
    rows = [
        [
            one.cell.level,
            one.cell.scan,
            one.plane,
            f"{one.cell.pixel_mm:g}",
            f"{one.cell.thickness_mm:g} / {one.cell.spacing_mm:g}",
            number(float(np.mean(one.true_hu)), 1),
            number(one.bias_hu, 2, True) if one.within_goal else f"**{number(one.bias_hu, 2, True)}**",
            number(one.worst_plane_hu, 2, True),
            f"{number(one.noisy_bias_hu, 2, True)} ± {number(one.standard_error_hu)}"
            + ("" if one.within_noise else " (!)"),
            number(one.partial_volume_hu, 2, True),
        ]
        for one in readings
    ]
    head = [
        "level", "scan", "plane", "pixel, mm", "thickness / spacing, mm", "reference, HU", "bias, HU",
        "worst of three planes", "with noise ± SE", "partial volume",
    ]  # fmt: skip
    return f"<details><summary>Every cell</summary>\n\n{table(head, rows)}\n\n</details>"


def _causes(readings: Sequence[Reading]) -> str:
    over = [one for one in readings if one.parts_hu is not None]
    if not over:
        return "No cell exceeds the goal."
    rows = [
        [
            f"{one.cell.level}, {one.cell.scan}, {one.plane}, {one.cell.pixel_mm:g} mm, {one.cell.thickness_mm:g} mm",
            number(one.bias_hu, 2, True),
            *(number(part, 2, True) for part in one.parts_hu or ()),
            reason(one),
            ", ".join(f"`{code}`" for code in one.notes) or "none",
        ]
        for one in over
    ]
    head = ["cell", "bias, HU", "voxel centres", "interpolation", "rest", "cause", "notes on the result"]
    worst = max(abs(one.parts_hu[2]) for one in over if one.parts_hu)
    on_slices = max(abs(one.bias_hu) for one in readings if one.plane == "scanner")
    return f"""\
### Cells beyond the goal

Each was taken apart with SciPy's own linear interpolation of the unrounded image at the measured places. What is
left for rounding and the program is at most {number(worst, 3)} HU in all of them.

{table(head, rows)}

*Interpolation between slices*: a plane that crosses the slices is resampled linearly between their centres, so that its
values reach one spacing further up and down than the slice profile alone. At 3 mm this smooths the texture of bone,
which moves a mean by tenths of a HU either way. At 5 mm it brings endplate and shell into planes near the endplates,
and the mean rises, most where the vertebra leans most. It comes from the data and from linear interpolation, not
from averaging; the remedy is to place ROIs of thick scans on original slices (`--plane scanner`), where the largest
bias of all cells is {number(on_slices)} HU. *Voxel centres*: a voxel belongs when its centre lies in the ellipse; the
staircase of few large voxels takes in a little more of one side of the texture than of the other, without direction."""


def _files(files: Sequence[FileReading]) -> str:
    rows = [
        [
            f"{one.cell.scan}, {one.cell.position}",
            one.plane,
            f"{one.cell.pixel_mm:g} / {one.cell.thickness_mm:g}",
            number(one.error_hu, 2, True),
            number(one.from_memory_hu, 4, True),
            number(one.peer_error_hu, 2, True) if one.peer_error_hu is not None else "ROI outside the image",
        ]
        for one in files
    ]
    head = ["scan", "plane", "pixel / slice, mm", "spineimg, HU", "files minus memory, HU", "SimpleITK, HU"]
    return f"""\
### By way of DICOM files

The noise-free study is written as DICOM with shuffled names, loaded and measured. Beside it SimpleITK's series reader
with linear interpolation at the same LPS points, as scripts use it: errors against the same reference.

{table(head, rows)}"""


def _picture(readings: Sequence[Reading]) -> object:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    thickness = [one[0] for one in SLICES_MM]
    marks = dict(zip(SCANS, "os^", strict=True))
    colours = dict(zip(PIXELS_MM, ("#1b6ca8", "#3a9d5d", "#c8641e"), strict=True))
    for ax, plane in zip(axes, PLANES, strict=True):
        for one in readings:
            if one.plane != plane:
                continue
            shift = 0.09 * (list(SCANS).index(one.cell.scan) - 1) + 0.28 * (PIXELS_MM.index(one.cell.pixel_mm) - 1)
            ax.plot(
                thickness.index(one.cell.thickness_mm) + shift,
                one.bias_hu,
                "D" if one.cell.level == "L5" else marks[one.cell.scan],
                color="#444444" if one.cell.level == "L5" else colours[one.cell.pixel_mm],
                markersize=5,
                markerfacecolor="none" if one.cell.level == "L5" else None,
            )
        ax.axhspan(-GOAL_HU, GOAL_HU, color="#d9e6d4", zorder=0)
        ax.set_yscale("symlog", linthresh=GOAL_HU, linscale=1.2)
        ax.set_yticks(
            [-10, -1, -0.2, -0.1, 0, 0.1, 0.2, 1, 10], ["−10", "−1", "−0.2", "−0.1", "0", "0.1", "0.2", "1", "10"]
        )
        ax.set_yticks([], minor=True)
        ax.set_xticks(range(len(thickness)), [f"{one:g} mm" for one in thickness])
        ax.set_xlabel("slice thickness")
        ax.set_title(f"plane {plane}")
    axes[0].set_ylabel("bias without noise, HU (band: the goal)")
    for name, mark in marks.items():
        axes[0].plot([], [], mark, color="#666666", label=name)
    axes[0].plot([], [], "D", color="#444444", markerfacecolor="none", label="straight, L5, 0.6 mm")
    for pixel, colour in colours.items():
        axes[0].plot([], [], "s", color=colour, label=f"pixel {pixel:g} mm")
    axes[0].legend(fontsize=8, loc="upper left")
    return figure


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(chapter(Path(folder)))


if __name__ == "__main__":
    main()
