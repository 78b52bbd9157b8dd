"""The verbs on many studies, and on synthetic ones: cases, batch, phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spineimg.cli.shared import JsonOption, QuietOption, app, file, talks, write_json
from spineimg.errors import SpineImgError


@app.command()
def cases(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with studies.")],
    csv: Annotated[Path | None, file("Write the table there instead of printing it.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """A first case table for batch, from what is on disk."""
    from spineimg.batch.commands import cases as list_cases

    list_cases(root, csv=csv, quiet=quiet, json=json)


@app.command()
def batch(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder that the paths of the table start from.")],
    cases: Annotated[Path, typer.Option(metavar="TABLE", help="CSV with case, path and ROIs.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Ledger, measurements and results; run again to go on.")],
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Worker processes; one a core.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS|slurm", help="Use a Dask cluster.")] = None,
    implants: Annotated[bool, typer.Option("--implants", help="Screen implants too.")] = False,
    levels: Annotated[str | None, typer.Option(metavar="auto", help="Find vertebrae where no ROI is given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="OURS=THEIRS,…", help="Columns of a table of yours.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="Longest time for one case.")] = 3600.0,
    retry: Annotated[bool, typer.Option("--retry", help="Do refused and failed cases again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any case is not done.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Draw every case.")] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> int:
    """Measure vertebral HU over many studies; one row for every case."""
    from spineimg.batch.cases import parse_columns
    from spineimg.batch.commands import batch as run
    from spineimg.batch.runner import BatchSettings

    try:
        names = tuple(parse_columns(columns).items())
    except SpineImgError as error:
        raise typer.BadParameter(str(error)) from error
    if levels not in (None, "auto"):
        raise typer.BadParameter(f"--levels is auto, not {levels}")
    settings = BatchSettings(workers, scheduler, timeout, retry, figures, names, levels is not None, implants)
    return run(root, cases, out, settings, strict=strict, quiet=quiet, json=json)


@app.command()
def phantom(
    folder: Annotated[Path | None, typer.Argument(help="New folder; without it the recipes are listed.")] = None,
    recipe: Annotated[str, typer.Option(metavar="NAME", help="What to make.")] = "preop",
    seed: Annotated[int, typer.Option(metavar="N", help="Texture, noise and file names.")] = 0,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a synthetic DICOM study with its truth, or list the recipes."""
    from spineimg.phantom import RECIPES, write_study

    if folder is None:
        listing = {name: one.description for name, one in RECIPES.items()}
        write_json(json, {"recipes": listing})
        if talks(json, quiet):
            for name, description in listing.items():
                typer.echo(f"{name:<16} {description}")
        return
    summary = write_study(folder, recipe, seed)
    write_json(json, summary)
    if talks(json, quiet):
        typer.echo(f"{recipe} (seed {seed}) is in {folder}: ct/, rois.json, truth.json")
