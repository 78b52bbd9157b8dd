"""The verb on scans after surgery: implants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.cli.shared import (
    ContrastOption,
    JsonOption,
    KernelOption,
    KvpOption,
    MaskLabelsOption,
    QuietOption,
    SeriesOption,
    about,
    app,
    file,
    now,
    print_,
    talks,
    write_json,
)

if TYPE_CHECKING:
    from spineimg.results import CaseResult
    from spineimg.volume import CTVolume


@app.command()
def implants(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder, DICOM file, or NIfTI/NRRD/MHA volume.")],
    series: SeriesOption = None,
    screws: Annotated[Path | None, file("Screws marked by hand (spineimg.screws/1), instead of found ones.")] = None,
    rois: Annotated[Path | None, file("ROI file that names the levels.")] = None,
    mask: Annotated[Path | None, file("Label map with vertebrae that names the levels.")] = None,
    mask_labels: MaskLabelsOption = None,
    csv: Annotated[Path | None, file("Write one row a screw.")] = None,
    figure: Annotated[Path | None, file("Draw every screw with its halo (PNG, PDF, SVG).")] = None,
    dicom: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write SR, SEG and key image.")] = None,
    overlay: Annotated[Path | None, file("Write metal, screws, rods and halos as labels (NIfTI).")] = None,
    kvp: KvpOption = None,
    contrast: ContrastOption = None,
    kernel: KernelOption = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Find screws and rods, measure the halo around each screw, grade the construct."""
    if rois is not None and mask is not None:
        raise typer.BadParameter("give --rois FILE or --mask FILE, not both")
    from spineimg.cli.measuring import case_name, named_rois, stated_acquisition
    from spineimg.io.opening import load, state
    from spineimg.io.screws import read_screws
    from spineimg.pipeline import screen

    told = stated_acquisition(kvp, contrast, kernel)
    levels = named_rois(rois, mask, mask_labels, None, None) if rois is not None or mask is not None else None
    given = () if screws is None else read_screws(screws)
    with about(path):
        volume = state(load(path, series), told)
    if dicom is not None:
        from spineimg.cli.exchange import source_of

        source_of(volume)  # a source that DICOM cannot name is refused before anything is written
    with about(path):
        result = screen(volume, levels, screws=given)
    _write(volume, result, case_name(path), csv=csv, figure=figure, overlay=overlay, json=json)
    if dicom is not None:
        from spineimg.cli.exchange import write_result

        write_result(dicom, volume, result, None)
    if talks(json, quiet) and result.implants is not None:
        from spineimg.export.implant_text import screen_view

        print_(screen_view(result.implants, volume.notes))


def _write(
    volume: CTVolume,
    result: CaseResult,
    case: str,
    *,
    csv: Path | None,
    figure: Path | None,
    overlay: Path | None,
    json: str | None,
) -> None:
    from spineimg.export.implants import SCREW_COLUMNS, screw_rows
    from spineimg.export.json import result_to_dict
    from spineimg.export.table import write_table

    document: dict[str, Any] = result_to_dict(result, now())
    if figure is not None:
        from spineimg.export.implant_figure import write_implant_figure

        write_implant_figure(volume, result, figure)
    if overlay is not None and result.implants is not None:
        from spineimg.export.overlay import write_overlay

        write_overlay(volume, result.implants, overlay)
    if csv is not None:
        write_table(csv, screw_rows(document, case), SCREW_COLUMNS)
    write_json(json, document)
