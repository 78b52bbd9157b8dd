"""Trabecular HU beside screws: an L4 of 110 HU with two 6.5 mm screws, read with and without leaving out metal.

The peers are recipes in use: a 200 mm² circle on three slices, and the body's label eroded by 4 mm, its mean and its
median. They are written here with NumPy and SciPy, on the same image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.chapters import number, save, table
from spineimg import assess
from spineimg.anatomy import Construct
from spineimg.metal import metal_near
from spineimg.phantom import Change, Imaging, Phantom, SpineSpec, Storage, body_truth, ellipses
from spineimg.phantom.assembly import pedicle_axis
from spineimg.phantom.metal import COBALT_CHROME_HU, TITANIUM_HU
from spineimg.phantom.parts import Part, Shape, Strut, uniform
from spineimg.phantom.samples import Points
from spineimg.results import VertebraResult
from spineimg.rois import POSITIONS, Ellipse, LabelVolume, MaskRoi, RoiSet, VertebraRoi
from spineimg.sampling import SliceReader, sample_ellipse
from spineimg.volume import ArraySource, CTVolume

Pixels = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TRUE_HU, GOAL_HU = 110.0, 5.0
LEVEL, SCREW_MM, SCREW_LENGTH_MM = "L4", 6.5, 45.0
CONVERGENCES_DEG = (24.0, 18.0, 12.0)
"""How far each screw turns inwards: into the circles in the middle of the body, along them, or past them."""
CIRCLES_APART_MM = 5.0
CIRCLE_MM2, EROSION_MM = 200.0, 4.0
METALS = {"titanium": TITANIUM_HU, "cobalt-chrome": COBALT_CHROME_HU}
SCALES = {"extended": Storage(intercept=-8192, bits=16), "clipped at 3071": Storage(clip_high=True)}
SLICES_MM = ((0.6, 0.5), (1.25, 1.0), (2.5, 2.0), (5.0, 5.0))
"""Thickness and spacing."""
ROIS = ("three ellipses, slices", "three ellipses, endplates", "200 mm² circles", "label of the body")
PEERS = ("circle", "eroded mean", "eroded median")


@dataclass(frozen=True, slots=True)
class Case:
    """One scan of the same vertebra and screws."""

    metal: str
    scale: str
    thickness_mm: float
    spacing_mm: float
    convergence_deg: float


CASES = tuple(
    Case(metal, scale, *slices, turn)
    for turn in CONVERGENCES_DEG
    for slices in SLICES_MM
    for metal in METALS
    for scale in SCALES
)


# -- scan -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Screwed(Phantom):
    """A phantom with two screws of a chosen size through the pedicles of one level."""

    screw_hu: float = TITANIUM_HU
    convergence_deg: float = CONVERGENCES_DEG[0]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        vertebra = self.vertebra(LEVEL)
        shafts: list[Shape] = []
        for left in (True, False):
            isthmus, _ = pedicle_axis(vertebra, self.spine, left)
            turn = np.radians(self.convergence_deg) * (1 if left else -1)
            inward = np.array([-np.sin(turn), -np.cos(turn), 0.0])
            ends = (isthmus + along * inward for along in (SCREW_LENGTH_MM - 15, -15))
            tip, head = (vertebra.frame.lps(end) for end in ends)
            shafts.append(Strut(head, tip, np.array([1.0, 0.0, 0.0]), (SCREW_MM / 2, SCREW_MM / 2), blunt=True))
        return (*super().parts, Part("screws", shafts, uniform(self.screw_hu)))


def phantom_of(case: Case) -> Screwed:
    """L4 of 110 HU with two screws. There is no vein in it, so that only texture and metal move a mean."""
    imaging = Imaging(
        size=(180, 180),
        pixel_mm=0.5,
        spacing_mm=case.spacing_mm,
        thickness_mm=case.thickness_mm,
        noise_sd_hu=10.0,
        margin_mm=6.5,
        offset_mm=(0.0, 12.0),
    )
    spine = SpineSpec(("L3", "L4", "L5"), {LEVEL: Change(hu=TRUE_HU)}, vein=False, seed=3)
    return Screwed(
        spine,
        imaging,
        SCALES[case.scale],
        (LEVEL, LEVEL),
        seed=3,
        screw_hu=METALS[case.metal],
        convergence_deg=case.convergence_deg,
    )


@lru_cache(maxsize=1)
def _image(case: Case) -> Pixels:
    """HU with noise before storage; the scale does not matter here."""
    return phantom_of(case).hu()


@lru_cache(maxsize=1)
def without_screws(thickness_mm: float, spacing_mm: float) -> dict[str, float | None]:
    """What the same ROIs read when there is no metal: noise, texture and partial volume of the same scan."""
    screwed = phantom_of(Case("titanium", "extended", thickness_mm, spacing_mm, CONVERGENCES_DEG[0]))
    plain = Phantom(screwed.spine, screwed.imaging, screwed.storage, screwed.cover, seed=screwed.seed)
    return {name: one.hu.mean_hu for name, one in measured(plain, plain.volume()).items()}


def volume_of(case: Case, phantom: Phantom) -> CTVolume:
    """The scan as stored on its scale."""
    hu = _image(replace(case, scale="extended"))
    stored = np.stack([phantom.stored_hu(one) for one in hu]).astype(np.int16)
    return CTVolume(phantom.geometry, ArraySource(stored), phantom.acquisition)


@lru_cache(maxsize=len(SLICES_MM))
def body_label(thickness_mm: float, spacing_mm: float) -> Mask:
    """Voxels of the vertebral body, cortex included, from the phantom's own surfaces."""
    phantom = phantom_of(Case("titanium", "extended", thickness_mm, spacing_mm, CONVERGENCES_DEG[0]))
    shape = phantom.geometry.shape
    index = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3)
    wall, top, bottom = phantom.vertebra(LEVEL).body.surfaces(Points(phantom.geometry.lps_at(index)))
    return np.asarray((np.maximum(np.maximum(wall, top), bottom) < 0).reshape(shape))


def circles(phantom: Phantom) -> tuple[Ellipse, ...]:
    """Circles of 200 mm² around the body's axis on original slices, the middle one at mid-height."""
    truth = body_truth(phantom.vertebra(LEVEL))
    radius = float(np.sqrt(CIRCLE_MM2 / np.pi))
    x, y = np.eye(3)[:2]
    return tuple(
        Ellipse(name, truth.frame.lps([0, 0, part * CIRCLES_APART_MM]), x, y, (radius, radius))
        for name, part in zip(POSITIONS, (1, 0, -1), strict=True)
    )


@lru_cache(maxsize=len(SLICES_MM))
def rois_of(thickness_mm: float, spacing_mm: float) -> dict[str, VertebraRoi]:
    """The same vertebra as four readers would mark it; none of them minds the screws, so these do not matter here."""
    phantom = phantom_of(Case("titanium", "extended", thickness_mm, spacing_mm, CONVERGENCES_DEG[0]))
    label = LabelVolume(phantom.geometry, ArraySource(body_label(thickness_mm, spacing_mm).astype(np.int16)), "body")
    made = (
        VertebraRoi(LEVEL, ellipses=ellipses(phantom, LEVEL, "scanner")),
        VertebraRoi(LEVEL, ellipses=ellipses(phantom, LEVEL, "endplate")),
        VertebraRoi(LEVEL, ellipses=circles(phantom)),
        VertebraRoi(LEVEL, mask=MaskRoi(label, 1)),
    )
    return dict(zip(ROIS, made, strict=True))


# -- readings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One scan. own_hu, reasons, kept, flags: by kind of ROI; peers_hu: by recipe."""

    case: Case
    own_hu: dict[str, float | None]
    reasons: dict[str, tuple[str, ...]]
    kept: dict[str, float | None]
    flags: dict[str, str]
    peers_hu: dict[str, float]

    @property
    def within_goal(self) -> bool:
        """Every number near the truth; no number is right too."""
        return all(hu is None or abs(hu - TRUE_HU) <= GOAL_HU for hu in self.own_hu.values())


def read_case(case: Case) -> Reading:
    """All readings of one scan."""
    phantom = phantom_of(case)
    volume = volume_of(case, phantom)
    results = measured(phantom, volume)
    return Reading(
        case,
        {name: one.hu.mean_hu for name, one in results.items()},
        {name: _reasons(one) for name, one in results.items()},
        {name: one.hu.kept_fraction for name, one in results.items()},
        {name: one.flag.call.value if one.flag else "" for name, one in results.items()},
        peers(phantom, volume),
    )


def measured(phantom: Phantom, volume: CTVolume) -> dict[str, VertebraResult]:
    """The LIV by every kind of ROI."""
    return {
        name: assess(volume, RoiSet((roi,), Construct(liv=LEVEL))).vertebrae[0]
        for name, roi in rois_of(phantom.imaging.thickness_mm, phantom.imaging.spacing_mm).items()
    }


def _reasons(result: VertebraResult) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note.code for note in (*result.hu.notes, *result.notes)))


def peers(phantom: Phantom, volume: CTVolume) -> dict[str, float]:
    """What the recipes without metal exclusion read on the same image."""
    from scipy.ndimage import distance_transform_edt

    geometry = phantom.geometry
    hu = np.stack([volume.read(k) for k in range(geometry.shape[0])]).astype(np.float64)
    label = body_label(phantom.imaging.thickness_mm, phantom.imaging.spacing_mm)
    inner = hu[distance_transform_edt(label, sampling=geometry.spacing_mm) > EROSION_MM]
    means = []
    for circle in circles(phantom):
        k = int(np.argmin(np.abs(geometry.origins_lps_mm[:, 2] - circle.center_lps_mm[2])))
        rows, columns = np.indices(geometry.shape[1:])
        x = geometry.origins_lps_mm[k, 0] + columns * geometry.spacing_mm[2] - circle.center_lps_mm[0]
        y = geometry.origins_lps_mm[k, 1] + rows * geometry.spacing_mm[1] - circle.center_lps_mm[1]
        means.append(hu[k][x**2 + y**2 <= circle.semi_axes_mm[0] ** 2].mean())
    return dict(zip(PEERS, (float(np.mean(means)), float(inner.mean()), float(np.median(inner))), strict=True))


# -- chapter ----------------------------------------------------------------------------------------------------------


def chapter(figures: Path, progress: Callable[[str], None] = print) -> str:
    """The chapter as Markdown; its pictures go to `figures`."""
    readings = list(read_all(progress))
    save(_slices_picture(), figures / "metal_rois.png")
    save(_numbers_picture(readings), figures / "metal_hu.png")
    plain = [without_screws(*slices) for slices in SLICES_MM]
    return "\n\n".join([_introduction(), _summary(readings), _table(readings), _misses(readings, plain), _limits()])


def read_all(progress: Callable[[str], None]) -> Iterator[Reading]:
    """All cases in their own order; the scales of one scan follow each other in one process and share its image."""
    with ProcessPoolExecutor(2) as pool:
        for done, reading in enumerate(pool.map(read_case, CASES, chunksize=len(SCALES)), 1):
            progress(f"metal: {done} of {len(CASES)} scans")
            yield reading


def _introduction() -> str:
    steep, middle, flat = CONVERGENCES_DEG
    return f"""\
The LIV is an {LEVEL} planted with {TRUE_HU:g} HU, with two screws of {SCREW_MM:g} × {SCREW_LENGTH_MM:g} mm through its
pedicles, each converging by {steep:g}° (into the circles), {middle:g}° (along them) or {flat:g}° (past them), blurred
as everything else; 0.5 mm pixels, noise of 10 HU. The screws are titanium (7000 HU) or cobalt-chrome (17000 HU), stored
on an extended scale or clipped at 3071 HU. Four readers mark the vertebra as if there were no screws: three large
ellipses on slices or parallel to the endplates, three circles of 200 mm², a label of the body. Peers, on the same
image: the same circles with every voxel counted, and the same label eroded by {EROSION_MM:g} mm."""


def _summary(readings: Sequence[Reading]) -> str:
    own = [hu for one in readings for hu in one.own_hu.values()]
    numbers = [hu for hu in own if hu is not None]
    calls = {call for one in readings for call in one.flags.values()}
    ranges = [
        f"{name} {min(v):.0f} to {max(v):.0f}" for name in PEERS for v in [[one.peers_hu[name] for one in readings]]
    ]
    kept = "; ".join(sorted(calls))
    spread = f"{min(numbers):.1f} to {max(numbers):.1f} HU" if numbers else "no number at all"
    right = sum(abs(hu - TRUE_HU) <= GOAL_HU for hu in numbers)
    return (
        f"Goal: {TRUE_HU:g} ± {GOAL_HU:g} HU or no number. Reached: {right + len(own) - len(numbers)} of {len(own)} "
        f"readings; {len(numbers)} gave a number ({spread}), {len(own) - len(numbers)} gave none. "
        f"Peers, HU: {'; '.join(ranges)}. "
        f"The flag is `{kept}` in every case: the cutoff is for scans before surgery.\n\n"
        "Voxels of the ROI that count (green) and that are left out (red):\n\n"
        "![ROIs beside screws](validation/metal_rois.png)\n\n![readings](validation/metal_hu.png)"
    )


def _cell(reading: Reading, name: str) -> str:
    hu, kept = reading.own_hu[name], reading.kept[name]
    if hu is not None:
        text = number(hu, 1) if abs(hu - TRUE_HU) <= GOAL_HU else f"**{number(hu, 1)}**"
        return f"{text} ({kept:.0%} kept)"
    said = [
        code for code in reading.reasons[name] if code.startswith(("too_", "mask_", "step_", "roi_outside", "roi_in"))
    ]
    return "no number: " + ", ".join(f"`{code}`" for code in said)


def _table(readings: Sequence[Reading]) -> str:
    rows = [
        [
            f"{one.case.metal}, {one.case.convergence_deg:g}°",
            one.case.scale,
            f"{one.case.thickness_mm:g} / {one.case.spacing_mm:g}",
            *(_cell(one, name) for name in ROIS),
            *(number(one.peers_hu[name], 0) for name in PEERS),
        ]
        for one in readings
    ]
    head = [
        "screws", "scale", "thickness / spacing, mm", *(f"spineimg, {name}" for name in ROIS),
        "peer: circles, all voxels", "peer: eroded label, mean", "peer: eroded label, median",
    ]  # fmt: skip
    return table(head, rows)


def _misses(readings: Sequence[Reading], plain: Sequence[dict[str, float | None]]) -> str:
    """Numbers off the goal, beside what the same ROI reads without any metal."""
    lines = []
    for (thickness, spacing), without in zip(SLICES_MM, plain, strict=True):
        for name in ROIS:
            off = [
                hu
                for one in readings
                if (one.case.thickness_mm, one.case.spacing_mm) == (thickness, spacing)
                and (hu := one.own_hu[name]) is not None
                and abs(hu - TRUE_HU) > GOAL_HU
            ]
            if off:
                lines.append(
                    f"- {name}, {thickness:g} mm slices: {min(off):.1f} to {max(off):.1f} HU in {len(off)} scans; "
                    f"the same ROI without screws reads {number(without[name], 1)} HU"
                )
    found = "\n".join(lines) if lines else "- none"
    return f"""\
Numbers beyond the goal. Where the same ROI reads as much without screws, the metal is not the cause but resampling of
thick slices, which blends endplates into oblique planes (chapter 2):

{found}

{_plain_table(plain)}"""


def _plain_table(plain: Sequence[dict[str, float | None]]) -> str:
    rows = [
        [f"{thickness:g} / {spacing:g}", *(number(one[name], 1) for name in ROIS)]
        for (thickness, spacing), one in zip(SLICES_MM, plain, strict=True)
    ]
    head = ["thickness / spacing, mm", *ROIS]
    return f"""\
The same ROIs in the same scans without screws, for what texture, noise and thick slices do by themselves:

{table(head, rows)}"""


def _limits() -> str:
    return """\
Limits: these screws have no streaks, no beam hardening and no threads; around real screws HU are wrong up to
15 mm away and more, which no exclusion of a margin repairs. This is why a reading beside metal is never held against a
cutoff and carries the notes `metal_near` and `metal_excluded`."""


def _slices_picture() -> Any:
    from matplotlib.figure import Figure

    steep, middle, flat = CONVERGENCES_DEG
    shown = [
        Case("titanium", "extended", 1.25, 1.0, steep),
        Case("titanium", "clipped at 3071", 1.25, 1.0, steep),
        Case("cobalt-chrome", "clipped at 3071", 1.25, 1.0, steep),
        Case("titanium", "clipped at 3071", 1.25, 1.0, middle),
        Case("titanium", "clipped at 3071", 5.0, 5.0, flat),
    ]
    figure = Figure(figsize=(2.3 * len(shown), 5.0), layout="constrained")
    for column, axes in enumerate(figure.subplots(2, len(shown)).T):
        phantom = phantom_of(shown[column])
        volume = volume_of(shown[column], phantom)
        rois = rois_of(phantom.imaging.thickness_mm, phantom.imaging.spacing_mm)
        for ax, name in zip(axes, (ROIS[0], ROIS[2]), strict=True):
            _draw(ax, volume, rois[name].ellipses[0])
            ax.set_xlabel(f"{name},\nsuperior plane", fontsize=8)
        axes[0].set_title(
            f"{shown[column].metal}, {shown[column].scale}\n"
            f"{shown[column].thickness_mm:g} mm slices, "
            f"{shown[column].convergence_deg:g}°",
            fontsize=8,
        )
    return figure


def _draw(ax: Any, volume: CTVolume, ellipse: Ellipse) -> None:
    """A slice with its ROI: what counts in green, what is left out in red."""
    geometry = volume.geometry
    reader = SliceReader(volume)
    samples = sample_ellipse(reader, ellipse)
    near = metal_near(
        geometry, reader.window, samples.points_lps_mm, samples.slices, volume.acquisition.slice_thickness_mm
    )
    k = samples.nearest_slice
    ax.imshow(volume.read(k), cmap="gray", vmin=-200, vmax=1200)
    for chosen, colour in ((~near.excluded, "#37b34a"), (near.excluded, "#e0352b")):
        row, column = geometry.in_plane(samples.points_lps_mm[chosen] - geometry.origins_lps_mm[k])
        ax.plot(column, row, "s", color=colour, markersize=1.1, markeredgewidth=0, alpha=0.75)
    row, column = geometry.in_plane(ellipse.center_lps_mm - geometry.origins_lps_mm[k])
    ax.set_xlim(column - 64, column + 64)
    ax.set_ylim(row + 76, row - 52)
    ax.set_xticks([])
    ax.set_yticks([])


def _numbers_picture(readings: Sequence[Reading]) -> Any:
    """Above everything on a logarithmic scale, below what lies near the goal; a column a direction of the screws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    grid = figure.subplots(2, len(CONVERGENCES_DEG), sharex=True, sharey="row", height_ratios=(1, 1.2))
    for column, turn in enumerate(CONVERGENCES_DEG):
        own = [one for one in readings if one.case.convergence_deg == turn]
        for ax in grid[:, column]:
            ax.axhspan(TRUE_HU - GOAL_HU, TRUE_HU + GOAL_HU, color="#d9e6d4", zorder=0, label="goal: 110 ± 5 HU")
            _plot(ax, own)
        grid[0, column].set_title(f"screws converging by {turn:g}°", fontsize=9)
        grid[1, column].set_xticks(range(len(own)), [_label(one.case) for one in own], rotation=90, fontsize=7)
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_yticks([110, 200, 400, 800, 1600], ["110", "200", "400", "800", "1600"])
    grid[0, 0].set_yticks([], minor=True)
    grid[1, 0].set_ylim(98, 127)
    for ax in grid[:, 0]:
        ax.set_ylabel("HU of the LIV")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    return figure


def _plot(ax: Any, own: Sequence[Reading]) -> None:
    for name, mark, colour in zip(ROIS, "osv^", ("#155d27", "#1f9d55", "#0b7285", "#66a80f"), strict=True):
        values = [one.own_hu[name] if one.own_hu[name] is not None else np.nan for one in own]
        ax.plot(range(len(own)), values, mark, color=colour, markersize=4.5, label=f"spineimg, {name}")
    for name, colour in zip(PEERS, ("#c8641e", "#7a3fb0", "#8a8a8a"), strict=True):
        ax.plot(range(len(own)), [one.peers_hu[name] for one in own], "x", color=colour, label=f"peer: {name}")


def _label(case: Case) -> str:
    metal = "Ti" if case.metal == "titanium" else "CoCr"
    return f"{metal}, {case.thickness_mm:g} mm, {'ext.' if case.scale == 'extended' else '3071'}"
