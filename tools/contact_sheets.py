"""Contact sheets of fitted bodies on public scans, for docs/validation: `python tools/contact_sheets.py`.

The environment variable SPINEIMG_DATA names the folder of the scans. Each body that `spineimg levels` lists is drawn
twice: seen from its left and from its front, with its endplate planes (yellow), its walls (cyan), level and quality.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import spineimg
from spineimg.export.panels import View, sample
from spineimg.vertebra.body import Body
from spineimg.vertebra.naming import name_spine
from spineimg.volume import CTVolume

SHEETS = Path(__file__).resolve().parents[1] / "docs" / "validation"
SIZE_MM, STEP_MM = (72.0, 72.0), 0.4
WINDOW_HU = (-150.0, 450.0)
NEAR_MM = 3.0
"""Walls are drawn where they cross the picture: beside the canal they reach farther back."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan and its sheet; seed: LPS mm of a point in L3, None where no level is known."""

    sheet: str
    path: str
    seed: tuple[float, float, float] | None


SCANS = (
    Scan("bodies_totalseg.png", "totalseg_example/example_ct.nii.gz", (5.0, -142.0, 316.0)),
    Scan("bodies_tcga_ov.png", "tcga_ov_abdomen_ce", (-14.0, 36.0, 1290.0)),
    Scan("bodies_chest.png", "cptac_pda_chest", None),
)


def found(volume: CTVolume, scan: Scan) -> list[tuple[str, Body]]:
    """(name, body) from head to foot."""
    named = name_spine(volume, None if scan.seed is None else {"L3": np.array(scan.seed)})
    for note in named.notes:
        sys.stdout.write(f"{scan.sheet}: {note.about} {note.text}\n")
    unnamed = [(f"body {i}", one) for i, one in enumerate(named.unnamed, 1)]
    return [*((one.level, one.body) for one in named.vertebrae), *unnamed]


def draw(volume: CTVolume, bodies: list[tuple[str, Body]], path: Path) -> None:
    """Two rows of panels, one column a body."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.95 * len(bodies), 4.05), dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(bodies), squeeze=False)
    for column, (name, body) in zip(panels.T, bodies, strict=True):
        ways = (body.posterior_lps, body.left_lps)
        views = [View(body.center_lps_mm, way, -body.cranial_lps, SIZE_MM) for way in ways]
        pictures = sample(volume, views, [STEP_MM] * 2, STEP_MM)
        for axes, way, picture in zip(column, ways, pictures, strict=True):
            panel(axes, picture, body, way)
        column[0].set_title(f"{name} q {body.quality:.2f}", fontsize=8, pad=3)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.95, 0.03, 0.03)
    figure.savefig(path)
    sys.stdout.write(f"{path.name}: {', '.join(f'{name} {body.quality:.2f}' for name, body in bodies)}\n")


def panel(axes: Any, picture: Any, body: Body, way: Any) -> None:
    """One picture, `way` to its right and the head up, with the lines where planes and walls cross it."""
    half = SIZE_MM[0] / 2
    axes.imshow(picture, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=(-half, half, -half, half))
    along = int(way is body.posterior_lps)
    near = np.abs(body.outline_mm[:, 1 - along]) < NEAR_MM
    across = body.outline_mm[near, along]
    ends = np.array([across.min(), across.max()])
    for plane in (body.superior, body.inferior):
        point = plane.point_lps_mm - body.center_lps_mm
        rise = -float(plane.normal_lps @ way) / float(plane.normal_lps @ body.cranial_lps)
        longer = ends + np.array([-2.0, 2.0])
        axes.plot(longer, point @ body.cranial_lps + rise * (longer - point @ way), color="yellow", linewidth=0.8)
    for end in ends:
        axes.plot([end, end], np.array([-0.3, 0.3]) * body.height_mm, color="cyan", linewidth=0.8)
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    axes.set_axis_off()


def main() -> None:
    data = os.environ.get("SPINEIMG_DATA")
    if data is None:
        sys.exit("set SPINEIMG_DATA to the folder of the public scans")
    for scan in SCANS:
        volume = spineimg.load(Path(data) / scan.path)
        draw(volume, found(volume, scan), SHEETS / scan.sheet)


if __name__ == "__main__":
    main()
