"""The verbs that measure one study: series, hu, agree, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.cli.shared import (
    ContrastOption,
    IdsOption,
    JsonOption,
    KernelOption,
    KvpOption,
    LevelOption,
    MaskLabelsOption,
    PlaneOption,
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
from spineimg.errors import SpineImgError

if TYPE_CHECKING:
    from spineimg.results import CaseResult
    from spineimg.rois import RoiSet
    from spineimg.vertebra.click import Clicks
    from spineimg.volume import Acquisition, CTVolume


@app.command()
def series(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders or files.")],
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """List every series found, with its verdict and the reasons."""
    from spineimg.io.grid_headers import is_volume_file
    from spineimg.io.index import scan
    from spineimg.io.listing import index_to_dict, volume_to_dict
    from spineimg.io.opening import load

    folders = [path for path in paths if not is_volume_file(path)]
    documents = [index_to_dict(scan(folders))] if folders else []
    documents += [volume_to_dict(load(path)) for path in paths if is_volume_file(path)]
    listing = {
        "schema": documents[0]["schema"],
        "series": [one for document in documents for one in document["series"]],
        "skipped": [one for document in documents for one in document["skipped"]],
        "n_not_dicom": sum(document["n_not_dicom"] for document in documents),
    }
    write_json(json, listing)
    if talks(json, quiet):
        from spineimg.export.listing import series_view

        print_(series_view(listing))


@app.command()
def hu(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder, DICOM file, or NIfTI/NRRD/MHA volume.")],
    rois: Annotated[Path | None, file("ROI file (spineimg.rois/1).")] = None,
    mask: Annotated[Path | None, file("Label map with vertebrae (NIfTI, NRRD).")] = None,
    mask_labels: MaskLabelsOption = None,
    levels: Annotated[str | None, typer.Option(metavar="all", help="Find and measure every vertebra.")] = None,
    series: SeriesOption = None,
    uiv: LevelOption = None,
    liv: LevelOption = None,
    plane: PlaneOption = "endplate",
    rois_out: Annotated[Path | None, file("Write the ROIs that were used.")] = None,
    csv: Annotated[Path | None, file("Write one row a vertebra.")] = None,
    figure: Annotated[Path | None, file("Draw planes and ROIs (PNG, PDF, SVG).")] = None,
    dicom: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write SR, SEG and key image.")] = None,
    cutoffs: Annotated[Path | None, file("Your own cutoffs (TOML).")] = None,
    kvp: KvpOption = None,
    contrast: ContrastOption = None,
    kernel: KernelOption = None,
    keep_ids: IdsOption = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure vertebral HU and hold the LIV against its cutoff."""
    if levels not in (None, "all"):
        raise typer.BadParameter(f"--levels is all, not {levels}")
    if (rois is not None) + (mask is not None or levels is not None) != 1:
        raise typer.BadParameter("give either --rois FILE, --mask FILE or --levels all")
    if plane not in ("endplate", "scanner"):
        raise typer.BadParameter(f"--plane is endplate or scanner, not {plane}")
    from spineimg.io.opening import load, state
    from spineimg.pipeline import assess
    from spineimg.vertebra.click import Clicks

    stated = stated_acquisition(kvp, contrast, kernel)
    with about(path):
        volume = state(load(path, series, keep_ids=keep_ids), stated)
    clicks = Clicks.of(volume, whole=True) if levels is not None else None
    with about(rois or mask or path):
        wanted = named_rois(rois, mask, mask_labels, uiv, liv, volume, clicks)
    if dicom is not None:
        from spineimg.cli.exchange import source_of

        source_of(volume)  # a source that DICOM cannot name is refused before anything is written
    own = _own_cutoffs(cutoffs)
    with about(path):
        result = assess(volume, wanted, plane=plane, clicks=clicks, **own)
    if levels is not None and figure is not None:
        from spineimg.cli.spine import draw_result

        draw_result(volume, result, figure)
        figure = None
    _write_outputs(volume, result, wanted, case=case_name(path), json=json, csv=csv, figure=figure, rois_out=rois_out)
    if dicom is not None:
        from spineimg.cli.exchange import write_result

        write_result(dicom, volume, result, wanted.reader)
    if talks(json, quiet):
        from spineimg.export.text import result_view

        print_(result_view(result))


@app.command()
def agree(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="Result or ROI file of one reader.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Result or ROI file of the other.")],
    source: Annotated[Path | None, typer.Option(metavar="PATH", help="CT on which ROI files are measured.")] = None,
    series: SeriesOption = None,
    figure: Annotated[Path | None, file("Draw the Bland-Altman plot.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Agreement of two readers: differences, limits, ICC."""
    from spineimg.agreement import agree as compare
    from spineimg.export.json import agreement_to_dict

    first, second = (_reading(path, source, series) for path in (a, b))
    document = agreement_to_dict(compare(first, second), now())
    if figure is not None:
        from spineimg.export.agreement_plot import write_agreement_plot

        write_agreement_plot(document, figure)
    write_json(json, document)
    if talks(json, quiet):
        from spineimg.export.text import agreement_view

        print_(agreement_view(document, (a.name, b.name)))


@app.command()
def demo(json: JsonOption = None, quiet: QuietOption = False) -> None:
    """Measure the sample study and show table, flag and figure."""
    from spineimg.io.opening import load
    from spineimg.io.rois import read_rois
    from spineimg.io.sample import sample_study
    from spineimg.pipeline import assess

    study, out = sample_study("preop"), Path("spineimg-demo")
    wanted = read_rois(study / "rois.json")
    volume = load(study / "ct")
    result = assess(volume, wanted)
    _make_folder(out)
    _write_outputs(
        volume,
        result,
        wanted,
        case="preop",
        json=json or str(out / "result.json"),
        csv=out / "result.csv",
        figure=out / "figure.png",
        rois_out=None,
    )
    if talks(json, quiet):
        from spineimg.export.text import result_view

        print_(result_view(result))
        typer.echo(f"figure: {out / 'figure.png'}   numbers: {out / 'result.csv'}, {out / 'result.json'}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SpineImgError(
            f"{folder.resolve()}: cannot be made ({error.strerror}); run this in another folder"
        ) from error


def _reading(path: Path, source: Path | None, series: str | None) -> dict[str, Any]:
    """A reader's result: read from a result file, or measured on the CT from a ROI file."""
    from spineimg.export.json import read_result, result_to_dict

    if source is None:
        return read_result(path)
    from spineimg.io.opening import load
    from spineimg.io.rois import read_rois
    from spineimg.pipeline import assess

    rois = read_rois(path)
    with about(source):
        return result_to_dict(assess(load(source, series), rois), now())


# -- steps of hu ------------------------------------------------------------------------------------------------------


def named_rois(
    rois: Path | None,
    mask: Path | None,
    mask_labels: str | None,
    uiv: str | None,
    liv: str | None,
    volume: CTVolume | None = None,
    clicks: Clicks | None = None,
) -> RoiSet:
    """The ROIs of a file, else of the vertebrae that are found in `volume`, whose spine `clicks` then know; the command
    line names the construct."""
    from dataclasses import replace

    from spineimg.anatomy import Construct, parse_level

    ends = {}
    for name, level in (("uiv", uiv), ("liv", liv)):
        if level is not None:
            try:
                ends[name] = parse_level(level)
            except SpineImgError as error:
                raise typer.BadParameter(f"--{name}: {error}") from error
    if rois is not None:
        from spineimg.io.centroids import is_centroid_file, read_centroids
        from spineimg.io.rois import read_rois

        centroids = volume is not None and is_centroid_file(rois)
        found = read_centroids(rois, volume.geometry) if centroids and volume is not None else read_rois(rois)
    elif mask is None and volume is not None:
        from spineimg.pipeline import found_rois

        found = found_rois(volume, clicks)
    else:
        from spineimg.io.masks import Convention, rois_from_mask

        if mask_labels is not None and mask_labels not in set(Convention):
            raise typer.BadParameter(f"--mask-labels is {' or '.join(Convention)}, not {mask_labels}")
        found = rois_from_mask(mask, mask_labels)  # type: ignore[arg-type]  # one of the two is given
    construct = Construct(ends.get("uiv", found.construct.uiv), ends.get("liv", found.construct.liv))
    return replace(found, construct=construct)


def stated_acquisition(kvp: float | None, contrast: str | None, kernel: str | None) -> Acquisition:
    from spineimg.io.acquisition import sharpness
    from spineimg.volume import Acquisition, Sharpness

    if contrast not in (None, "yes", "no"):
        raise typer.BadParameter(f"--contrast is yes or no, not {contrast}")
    if kvp is not None and not 40 <= kvp <= 200:
        raise typer.BadParameter(f"--kvp {kvp:g} is no tube voltage: 40-200")
    known = {one.value: one for one in Sharpness}
    return Acquisition(
        kvp=kvp,
        contrast=None if contrast is None else contrast == "yes",
        kernel=kernel,
        sharpness=known.get(kernel or "", sharpness(kernel)),
    )


def _own_cutoffs(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from spineimg.cutoffs import load_cutoffs

    return {"cutoffs": load_cutoffs(path)}


def case_name(path: Path) -> str:
    """The case is named by its folder or file."""
    return path.resolve().name


def _write_outputs(
    volume: CTVolume,
    result: CaseResult,
    rois: RoiSet,
    *,
    case: str,
    json: str | None,
    csv: Path | None,
    figure: Path | None,
    rois_out: Path | None,
) -> None:
    from spineimg.export.json import result_to_dict

    document = result_to_dict(result, now())
    if figure is not None:
        from spineimg.export.figure import write_figure

        write_figure(volume, result, figure)
    if csv is not None:
        from spineimg.export.table import rows, write_table

        write_table(csv, rows(document, case))
    if rois_out is not None:
        from spineimg.io.rois import write_rois
        from spineimg.pipeline import used_rois

        write_rois(rois_out, used_rois(rois, result))
    write_json(json, document)
