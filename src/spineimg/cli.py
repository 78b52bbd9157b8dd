"""The command `spineimg`: arguments and exit codes only.

Exit status: 0 when it did what was asked, 1 when the input could not be used at all, 2 on wrong arguments; then with
one line on standard error. Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg import __version__
from spineimg.errors import SpineImgError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from spineimg.results import CaseResult
    from spineimg.rois import RoiSet
    from spineimg.volume import Acquisition, CTVolume

app = typer.Typer(
    name="spineimg",
    help="Spine CT in numbers: trabecular HU of vertebrae, held against published cutoffs.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# typer brings its own copy of click in newer releases and the real one in older: the class is asked of it.
_WrongArguments: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spineimg {__version__}")
        raise typer.Exit


def _file(help_: str) -> Any:
    return typer.Option(metavar="FILE", help=help_)


JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
SeriesOption = Annotated[str | None, typer.Option(metavar="UID", help="Series to measure, where several are usable.")]
LevelOption = Annotated[str | None, typer.Option(metavar="LEVEL", help="Instrumented vertebra: upper, lowest.")]
MaskLabelsOption = Annotated[
    str | None, typer.Option(metavar="totalsegmentator|verse", help="Numbering of the mask, where it cannot be told.")
]
PlaneOption = Annotated[str, typer.Option(metavar="endplate|scanner", help="Oblique ROIs: resample, or refuse.")]
KvpOption = Annotated[float | None, typer.Option(metavar="KV", help="State the tube voltage the file lacks.")]
ContrastOption = Annotated[str | None, typer.Option(metavar="yes|no", help="State the contrast the file lacks.")]
KernelOption = Annotated[str | None, typer.Option(metavar="soft|sharp|NAME", help="State the kernel the file lacks.")]
IdsOption = Annotated[bool, typer.Option("--keep-ids", help="Keep the patient's name, id and birth date.")]
VersionOption = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)]


@app.callback()
def _root(
    version: VersionOption = False,
) -> None: ...


# -- verbs ------------------------------------------------------------------------------------------------------------


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
    _write_json(json, listing)
    if _talks(json, quiet):
        from spineimg.export.listing import series_view

        _print(series_view(listing))


@app.command()
def hu(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder, DICOM file, or NIfTI/NRRD/MHA volume.")],
    rois: Annotated[Path | None, _file("ROI file (spineimg.rois/1).")] = None,
    mask: Annotated[Path | None, _file("Label map with vertebrae (NIfTI, NRRD).")] = None,
    mask_labels: MaskLabelsOption = None,
    series: SeriesOption = None,
    uiv: LevelOption = None,
    liv: LevelOption = None,
    plane: PlaneOption = "endplate",
    rois_out: Annotated[Path | None, _file("Write the ROIs that were used.")] = None,
    csv: Annotated[Path | None, _file("Write one row a vertebra.")] = None,
    figure: Annotated[Path | None, _file("Draw planes and ROIs (PNG, PDF, SVG).")] = None,
    cutoffs: Annotated[Path | None, _file("Your own cutoffs (TOML).")] = None,
    kvp: KvpOption = None,
    contrast: ContrastOption = None,
    kernel: KernelOption = None,
    keep_ids: IdsOption = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure vertebral HU and hold the LIV against its cutoff."""
    if (rois is None) == (mask is None):
        raise typer.BadParameter("give either --rois FILE or --mask FILE")
    if plane not in ("endplate", "scanner"):
        raise typer.BadParameter(f"--plane is endplate or scanner, not {plane}")
    from spineimg.io.opening import load, state
    from spineimg.pipeline import assess

    stated = _stated(kvp, contrast, kernel)
    wanted = _rois(rois, mask, mask_labels, uiv, liv)
    volume = state(load(path, series, keep_ids=keep_ids), stated)
    result = assess(volume, wanted, plane=plane, **_own_cutoffs(cutoffs))
    _write_outputs(volume, result, wanted, case=_case(path), json=json, csv=csv, figure=figure, rois_out=rois_out)
    if _talks(json, quiet):
        from spineimg.export.text import result_view

        _print(result_view(result))


@app.command()
def agree(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="Result or ROI file of one reader.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Result or ROI file of the other.")],
    source: Annotated[Path | None, typer.Option(metavar="PATH", help="CT on which ROI files are measured.")] = None,
    series: SeriesOption = None,
    figure: Annotated[Path | None, _file("Draw the Bland-Altman plot.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Agreement of two readers: differences, limits, ICC."""
    from spineimg.agreement import agree as compare
    from spineimg.export.json import agreement_to_dict

    first, second = (_reading(path, source, series) for path in (a, b))
    document = agreement_to_dict(compare(first, second), _now())
    if figure is not None:
        from spineimg.export.agreement_plot import write_agreement_plot

        write_agreement_plot(document, figure)
    _write_json(json, document)
    if _talks(json, quiet):
        from spineimg.export.text import agreement_view

        _print(agreement_view(document, (a.name, b.name)))


@app.command()
def cases(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with studies.")],
    csv: Annotated[Path | None, _file("Write the table there instead of printing it.")] = None,
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
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Use a Dask cluster.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="Longest time for one case.")] = 3600.0,
    retry: Annotated[bool, typer.Option("--retry", help="Do refused and failed cases again.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if any case is not done.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Draw every case.")] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> int:
    """Measure vertebral HU over many studies; one row for every case."""
    from spineimg.batch.commands import batch as run
    from spineimg.batch.runner import BatchSettings

    settings = BatchSettings(workers=workers, scheduler=scheduler, timeout_s=timeout, retry=retry, figures=figures)
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
        _write_json(json, {"recipes": listing})
        if _talks(json, quiet):
            for name, description in listing.items():
                typer.echo(f"{name:<16} {description}")
        return
    summary = write_study(folder, recipe, seed)
    _write_json(json, summary)
    if _talks(json, quiet):
        typer.echo(f"{recipe} (seed {seed}) is in {folder}: ct/, rois.json, truth.json")


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
    if _talks(json, quiet):
        from spineimg.export.text import result_view

        _print(result_view(result))
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

    return result_to_dict(assess(load(source, series), read_rois(path)), _now())


# -- steps of hu ------------------------------------------------------------------------------------------------------


def _rois(rois: Path | None, mask: Path | None, mask_labels: str | None, uiv: str | None, liv: str | None) -> RoiSet:
    """The ROIs of a file, with the construct of the command line over that of the file."""
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
        from spineimg.io.rois import read_rois

        found = read_rois(rois)
    else:
        from spineimg.io.masks import Convention, rois_from_mask

        if mask_labels is not None and mask_labels not in set(Convention):
            raise typer.BadParameter(f"--mask-labels is {' or '.join(Convention)}, not {mask_labels}")
        found = rois_from_mask(mask, mask_labels)  # type: ignore[arg-type]  # one of the two is given
    construct = Construct(ends.get("uiv", found.construct.uiv), ends.get("liv", found.construct.liv))
    return replace(found, construct=construct)


def _stated(kvp: float | None, contrast: str | None, kernel: str | None) -> Acquisition:
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


def _case(path: Path) -> str:
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

    document = result_to_dict(result, _now())
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
    _write_json(json, document)


# -- printing and exit codes ------------------------------------------------------------------------------------------


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _write_json(target: str | None, document: dict[str, Any]) -> None:
    if target is None:
        return
    from spineimg.export.json import write_json

    write_json(target, document)


def _talks(json: str | None, quiet: bool) -> bool:
    return not quiet and json != "-"


def _print(what: RenderableType) -> None:
    from rich.console import Console

    # Into a file or a pipe, tables keep their columns instead of folding them at 80.
    Console(width=None if sys.stdout.isatty() else 140).print(what)


def main() -> None:
    """Run the command line. One line on standard error for what a user can mend; a traceback is a bug."""
    try:
        code = typer.main.get_command(app)(standalone_mode=False)
    except _WrongArguments as error:
        _complain(f"{error.format_message()} (see spineimg --help)", 2)
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped", 130)
    except SpineImgError as error:
        _complain(str(error), 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text: str, code: int) -> None:
    print("spineimg: " + " ".join(text.split()), file=sys.stderr)  # noqa: T201
    sys.exit(code)
