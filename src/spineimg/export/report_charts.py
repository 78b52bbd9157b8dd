"""The report's drawings that need no CT: the interval against the cutoff, HU along the spine, a schematic, halo maps.

Every colour has a word or a shape beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from spineimg.export import report_svg as svg
from spineimg.export.figure import spread
from spineimg.export.panels import View
from spineimg.export.report_model import FlagView, HaloMapView, Page, SliceView, VertebraView
from spineimg.geometry import FloatArray, unit

SPINE_HEIGHT_MM = 108.0
"""Height on the page of the spine's picture and of the profile beside it."""
_ROW_MM = 172.0
"""Width on the page of both together."""
_MARGIN_MM = 32.0
"""Patient shown above and below what was measured. Engineering choice: about one vertebra."""
_LEAST_MM = (95.0, 110.0)
_MOST_TILT_DEG = 20.0
"""The overview follows a spine tilted in the coronal plane up to this. Engineering choice."""
HALO_STEPS_MM = (0.5, 1.0, 1.5, 2.0)
HALO_COLOURS = ("#e3edf5", "#f7dca6", "#ef9b4f", "#c8501e", "#75120f")
HALO_NOTHING = "#a3adb7"

OnPage = Callable[[float], float]


def interval_strip(flag: FlagView, mean_hu: float | None) -> Markup:
    """The interval of a flag as a bar on a scale of HU, with the cutoff as a line across it."""
    if flag.interval_hu is None:
        return Markup("")
    low, high = flag.interval_hu
    first, last = min(low, flag.cutoff_hu) - 22, max(high, flag.cutoff_hu) + 22
    width, colour = 84.0, svg.CALL_COLOURS[flag.call]

    def x(value: float) -> float:
        return 3 + (width - 6) * (value - first) / (last - first)

    parts = [svg.line(3, 13.4, width - 3, 13.4, svg.GRID, 0.3)]
    step = 25 if last - first < 220 else 50
    for tick in range(int(np.ceil(first / step)) * step, int(last) + 1, step):
        parts.append(svg.line(x(tick), 12.9, x(tick), 13.9, svg.FAINT, 0.25))
        parts.append(svg.words(x(tick), 17.2, svg.hu(tick), 2.7, svg.FAINT, "middle"))
    parts.append(svg.bar(x(low), 7.6, x(high) - x(low), 3.4, colour))
    if mean_hu is not None and low <= mean_hu <= high:
        parts.append(svg.dot(x(mean_hu), 9.3, 1, "white"))
    cut = x(flag.cutoff_hu)
    anchor = "start" if cut < 16 else "end" if cut > width - 16 else "middle"
    parts.append(svg.line(cut, 4.6, cut, 13.9, svg.INK, 0.5, "1.2 0.8"))
    parts.append(svg.words(cut, 3.4, f"cutoff {flag.cutoff_hu:g}", 2.9, svg.INK, anchor))
    says = f"Interval {svg.hu(low, 1)} to {svg.hu(high, 1)} HU against the cutoff of {flag.cutoff_hu:g} HU"
    return svg.drawing(width, 18.5, parts, says, "strip")


# -- along the spine --------------------------------------------------------------------------------------------------


def overview(page: Page) -> View | None:
    """A sagittal view of all that was measured, tilted as the spine is in the coronal plane; None for nothing.

    Screws of another series than the vertebrae are left out: their places mean another frame.
    """
    middles = [middle(v) for v in page.vertebrae if v.slices]
    shafts = [np.array(end) for screw in page.overview_screws for end in (screw.head, screw.tip)]
    if not middles and not shafts:
        return None
    points = np.array([*middles, *shafts])
    bodies = np.array(middles) if middles else points
    center = bodies.mean(axis=0)
    right, down = np.array([0.0, 1.0, 0.0]), _down(bodies)
    place = (points - center) @ np.stack([right, down], axis=1)
    low, high = place.min(axis=0), place.max(axis=0)
    height = max(float(high[1] - low[1]) + 2 * _MARGIN_MM, _LEAST_MM[1])
    width = max(_LEAST_MM[0], 0.5 * height, float(high[0] - low[0]) + 50.0)
    behind = 0.0 if shafts else 8.0  # the arches lie behind the bodies
    shift = ((low + high) / 2 + [behind, 0.0]) @ np.stack([right, down])
    return View(center + shift, right, down, (width, height))


def _down(bodies: FloatArray) -> FloatArray:
    """(3,) from the uppermost body to the lowest in the coronal plane; straight down where that says nothing."""
    along = (bodies[np.argmin(bodies[:, 2])] - bodies[np.argmax(bodies[:, 2])]) * [1, 0, 1]
    steep = -along[2] > 40 and abs(along[0]) < -along[2] * np.tan(np.radians(_MOST_TILT_DEG))
    return unit(along) if steep else np.array([0.0, 0.0, -1.0])


def picture_width_mm(view: View) -> float:
    """Width on the page of the overview's picture."""
    return SPINE_HEIGHT_MM * view.size_mm[0] / view.size_mm[1]


def middle(vertebra: VertebraView) -> FloatArray:
    """(3,) LPS mm of the middle of a vertebra's planes."""
    return np.asarray(np.mean([one.center for one in vertebra.slices], axis=0))


def profile(page: Page, view: View) -> Markup:
    """HU of every plane and mean of every vertebra, at the height where the overview shows them."""
    measured = [v for v in page.vertebrae if v.slices and v.mean_hu is not None]
    if not measured:
        return Markup("")
    scale = SPINE_HEIGHT_MM / view.size_mm[1]
    width = min(_ROW_MM - scale * view.size_mm[0], 105.0)
    low, high = _hu_range(measured)

    def x(value: float) -> float:
        return 17 + (width - 38) * (value - low) / (high - low)

    def y(center: FloatArray) -> float:
        return SPINE_HEIGHT_MM / 2 + float(view.on_view(center)[1]) * scale

    parts = _hu_axis(x, low, high, width)
    heights = [y(middle(v)) for v in measured]
    path = [(x(v.mean_hu or 0), at) for v, at in zip(measured, heights, strict=True)]
    parts.append(svg.polygon(path, "#8b98a5", "none", 0.5, closed=False))
    for v, at, label in zip(measured, heights, _apart(heights), strict=True):
        colour = svg.CALL_COLOURS[v.flag.call] if v.flag is not None else svg.INK
        if v.flag is not None:
            parts += _flag_marks(v.flag, x, at, colour)
        parts += [svg.dot(x(one.mean_hu or 0), y(np.array(one.center)), 0.9, "white", colour) for one in _valued(v)]
        parts.append(svg.dot(x(v.mean_hu or 0), at, 1.5, colour))
        named = svg.strong if v.role else svg.words
        parts.append(named(0, label + 1, f"{v.level} {v.role or ''}".strip(), 3.1))
        parts.append(named(width, label + 1, f"{svg.hu(v.mean_hu or 0)} HU", 3.1, colour, "end"))
    says = "HU along the spine: " + ", ".join(f"{v.level} {svg.hu(v.mean_hu or 0)}" for v in measured)
    return svg.drawing(width, SPINE_HEIGHT_MM, parts, says, "profile")


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of labels in the order of their vertebrae, no two on top of each other."""
    ranks = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = dict(zip(ranks, spread([heights[i] for i in ranks], gap=4.0), strict=True))
    return [moved[i] for i in range(len(heights))]


def _valued(vertebra: VertebraView) -> list[SliceView]:
    return [one for one in vertebra.slices if one.mean_hu is not None]


def _hu_range(measured: Sequence[VertebraView]) -> tuple[float, float]:
    every = [one.mean_hu or 0.0 for v in measured for one in _valued(v)]
    for v in measured:
        every.append(v.mean_hu or 0.0)
        if v.flag is not None:
            every += [v.flag.cutoff_hu, *(v.flag.interval_hu or ())]
    return 50 * float(np.floor(min(0, *every) / 50)), 50 * float(np.ceil((max(every) + 20) / 50))


def _hu_axis(x: OnPage, low: float, high: float, width: float) -> list[Markup]:
    step = next(step for step in (50, 100, 200, 500, 1e9) if (high - low) / step <= 7)
    parts = []
    for tick in np.arange(low, high + 1, step):
        parts.append(svg.line(x(tick), 2, x(tick), SPINE_HEIGHT_MM - 6, svg.GRID, 0.25))
        parts.append(svg.words(x(tick), SPINE_HEIGHT_MM - 2.4, svg.hu(tick), 2.8, svg.FAINT, "middle"))
    parts.append(svg.words(width, SPINE_HEIGHT_MM - 2.4, "HU", 2.8, svg.FAINT, "end"))
    return parts


def _flag_marks(flag: FlagView, x: OnPage, at: float, colour: str) -> list[Markup]:
    """The interval as a pale bar, the cutoff as a short line beside the vertebra that it is for."""
    marks = []
    if flag.interval_hu is not None:
        low, high = (x(end) for end in flag.interval_hu)
        marks.append(svg.bar(low, at - 1, high - low, 2, colour, 0.22))
    cut = x(flag.cutoff_hu)
    marks.append(svg.line(cut, at - 7, cut, at + 7, svg.INK, 0.45, "1.2 0.8"))
    marks.append(svg.words(cut, at + 10, f"cutoff {flag.cutoff_hu:g}", 2.7, svg.INK, "middle"))
    return marks


def schematic(page: Page, view: View) -> Markup:
    """ROIs, screws and rods from their recorded places, seen from the patient's left. Drawn when there is no CT."""
    scale = SPINE_HEIGHT_MM / view.size_mm[1]
    width = view.size_mm[0] * scale
    half = np.array([width, SPINE_HEIGHT_MM]) / 2

    def at(point: object) -> tuple[float, float]:
        x, y = half + view.on_view(np.array(point)) * scale
        return float(x), float(y)

    parts = [svg.bar(0, 0, width, SPINE_HEIGHT_MM, "#f4f6f8")]
    parts += [
        svg.polygon([at(p) for p in rod.points], "#b4bec8", "none", 4 * scale, closed=False)
        for rod in page.rods
        if len(rod.points) > 1 and page.one_series
    ]
    for screw in page.overview_screws:
        colour = svg.LOOSENING_COLOURS[screw.loosening]
        thick = max(0.6, (screw.diameter_mm or 5.0) * scale)
        parts.append(svg.polygon([at(screw.head), at(screw.tip)], colour, "none", round(thick, 2), closed=False))
    for v in page.vertebrae:
        for one in v.slices:
            outline = _outline(one)
            parts.append(
                svg.polygon([at(p) for p in outline], "#0b7285", "#c5e8ee", 0.6)
                if len(outline)
                else svg.dot(*at(one.center), 1, "#0b7285")
            )
        if v.slices:
            x, y = at(middle(v))
            parts.append(svg.strong(max(x - 22 * scale, 9), y + 1, v.level, 3.2, svg.INK, "end"))
    parts.append(svg.words(1.5, SPINE_HEIGHT_MM / 2, "A", 3, svg.FAINT))
    parts.append(svg.words(width - 1.5, SPINE_HEIGHT_MM / 2, "P", 3, svg.FAINT, "end"))
    says = f"Schematic of the measured places, seen from the left: {', '.join(v.level for v in page.vertebrae)}"
    return svg.drawing(width, SPINE_HEIGHT_MM, parts, f"{says}; {len(page.overview_screws)} screws", "schematic")


def _outline(one: SliceView) -> FloatArray:
    """(points, 3) LPS mm on the ellipse's outline; none of a mask, whose outline is not recorded."""
    if one.u is None or one.v is None or one.semi_axes_mm is None:
        return np.zeros((0, 3))
    angle = np.linspace(0, 2 * np.pi, 37)[:, None]
    a, b = one.semi_axes_mm
    return np.asarray(one.center + a * np.cos(angle) * np.array(one.u) + b * np.sin(angle) * np.array(one.v))


# -- halo maps --------------------------------------------------------------------------------------------------------


def halo_map(plan: HaloMapView, screw: str) -> Markup:
    """The unrolled surface of a screw: along it from head to tip, and around it, coloured by the width of the halo."""
    left, top, width, height = 10.5, 0.5, 31.5, 35.0
    angles = np.mod(plan.angles_deg, 360)
    turn = np.argsort(angles, kind="stable")
    widths = np.array(plan.width_mm)[:, turn].T  # (angles, depths)
    part = np.searchsorted(HALO_STEPS_MM, np.nan_to_num(widths), side="right")
    palette = np.array([_rgb(colour) for colour in (*HALO_COLOURS, HALO_NOTHING)], dtype=np.uint8)
    pixels = palette[np.where(np.isnan(widths), len(HALO_COLOURS), part)]
    parts = [_pixels(pixels, left, top, width, height)]
    for nth, name in enumerate(("left", "cranial", "right", "caudal")):
        nearest = float(np.argmin(np.abs(np.mod(angles[turn] - 90 * nth + 180, 360) - 180)))
        y = top + height * (nearest + 0.5) / len(angles)
        parts.append(svg.words(left - 1, y + 0.9, name, 2.6, svg.FAINT, "end"))
    first, last = plan.depths_mm[0], plan.depths_mm[-1]
    for tick in range(int(np.ceil(first / 10)) * 10, int(last) + 1, 10):
        x = left + width * (tick - first) / max(last - first, 1e-6)
        parts.append(svg.words(x, top + height + 3.6, str(tick), 2.7, svg.FAINT, "middle"))
    parts.append(svg.words(left + width / 2, top + height + 7.2, "mm from head to tip", 2.6, svg.FAINT, "middle"))
    over = widths[~np.isnan(widths)] > 1.0
    share = f"{over.mean():.0%} of it over 1 mm" if over.size else "nothing could be said"
    return svg.drawing(left + width + 1, top + height + 8.5, parts, f"Halo map of {screw}: {share}", "halo")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _pixels(pixels: npt.NDArray[np.uint8], left: float, top: float, width: float, height: float) -> Markup:
    """An image in an SVG, its elements as sharp squares."""
    from PIL import Image

    across = max(1, 480 // pixels.shape[1])
    down = max(1, 240 // pixels.shape[0])
    large = np.repeat(np.repeat(pixels, down, axis=0), across, axis=1)
    data = BytesIO()
    Image.fromarray(large).save(data, "PNG", optimize=True)
    return Markup('<image x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none" href="{}"/>').format(
        left, top, width, height, data_uri(data.getvalue())
    )


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
