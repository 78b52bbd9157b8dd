"""The verb that finds and names vertebrae: levels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.cli.shared import JsonOption, QuietOption, SeriesOption, about, app, file, now, print_, talks, write_json

if TYPE_CHECKING:
    from spineimg.results import CaseResult
    from spineimg.vertebra.click import Clicks
    from spineimg.vertebra.naming import NamedSpine
    from spineimg.volume import CTVolume

_SEED_HELP = "A named click inside a vertebral body, LPS mm; may be given several times."


@app.command()
def levels(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder, DICOM file, or NIfTI/NRRD/MHA volume.")],
    seed: Annotated[list[str] | None, typer.Option(metavar="L3=x,y,z", help=_SEED_HELP)] = None,
    series: SeriesOption = None,
    figure: Annotated[Path | None, file("Draw the spine with levels, planes and HU (PNG, PDF, SVG).")] = None,
    centroids: Annotated[Path | None, file("Write the centres as VerSe's centroid JSON.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Find and name the vertebrae; the JSON is a ROI file."""
    seeds = dict(_parsed(text) for text in seed or [])
    if len(seeds) != len(seed or []):
        raise typer.BadParameter("--seed names a level twice: keep one")
    from spineimg import __version__
    from spineimg.io.levels import levels_to_dict
    from spineimg.io.opening import load
    from spineimg.vertebra.click import Clicks
    from spineimg.vertebra.naming import name_spine

    with about(path):
        volume = load(path, series)
        clicks = Clicks.of(volume, whole=True)
        named = name_spine(volume, seeds, clicks=clicks)
    if figure is not None:
        _draw(clicks, named, figure)
    if centroids is not None:
        from spineimg.io.centroids import write_centroids

        write_centroids(centroids, named.rois(), volume.geometry)
    write_json(json, levels_to_dict(named, now().strftime("%Y-%m-%dT%H:%M:%SZ"), __version__))
    if talks(json, quiet):
        print_(_view(named))


def draw_result(volume: CTVolume, result: CaseResult, path: Path) -> None:
    """The figure of a whole spine from what was measured."""
    from spineimg.export.spine_figure import marks_of, write_spine_figure

    notes = [f"Not measured: {one.level}" for one in result.vertebrae if one.hu.mean_hu is None]
    write_spine_figure(volume, marks_of(result), notes, path)


def _parsed(text: str) -> tuple[str, list[float]]:
    """("L3", [x, y, z]) of "L3=x,y,z"."""
    from math import isfinite

    from spineimg.anatomy import parse_level
    from spineimg.errors import RoiError

    name, sign, numbers = text.partition("=")
    try:
        level, point = parse_level(name), [float(number) for number in numbers.split(",")]
    except (RoiError, ValueError):
        level, point = "", []
    if not sign or not level or len(point) != 3 or not all(isfinite(number) for number in point):
        raise typer.BadParameter(f"--seed is LEVEL=x,y,z in LPS mm, e.g. L3=1.5,-22,310, not {text}")
    return level, point


def _draw(clicks: Clicks, named: NamedSpine, path: Path) -> None:
    """The figure, with the HU of the bodies that can be measured."""
    from spineimg.export.spine_figure import Mark, write_spine_figure
    from spineimg.pipeline import assess

    measured = {one.level: one.hu.mean_hu for one in assess(clicks.volume, named.rois(), clicks=clicks).vertebrae}
    marks = [
        Mark(
            one.level,
            one.body.center_lps_mm,
            measured.get(one.level),
            one.confirmed,
            (
                (one.body.superior.point_lps_mm, one.body.superior.normal_lps),
                (one.body.inferior.point_lps_mm, one.body.inferior.normal_lps),
            ),
            one.body.depth_mm,
        )
        for one in named.vertebrae
    ]
    write_spine_figure(
        clicks.volume, marks, [note.text for note in named.notes if note.code != "from_neighbours"], path
    )


def _view(named: NamedSpine) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("level", "centre (LPS mm)", "quality", "height", "width", "depth", "wedge", "confirmed"):
        table.add_column(name, justify="left" if name in ("level", "confirmed") else "right")
    for one in named.vertebrae:
        body = one.body
        table.add_row(
            one.level,
            ", ".join(f"{x:.1f}" for x in body.center_lps_mm),
            f"{body.quality:.2f}",
            *(f"{size:.1f}" for size in (body.height_mm, body.width_mm, body.depth_mm)),
            f"{body.wedge_deg:.0f}°",
            "yes" if one.confirmed else "no",
        )
    for body in named.unnamed:
        table.add_row("?", ", ".join(f"{x:.1f}" for x in body.center_lps_mm), f"{body.quality:.2f}")
    return Group(table, *(f"{note.about or 'note'}: {note.text}" for note in named.notes))
