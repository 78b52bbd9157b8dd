"""The verbs that speak to a surgeon: report, score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.cli.shared import IdsOption, JsonOption, QuietOption, app, file, now, talks, write_json
from spineimg.errors import SpineImgError

if TYPE_CHECKING:
    from spineimg.export.report_model import Page
    from spineimg.scores.instability import MeasuredCollapse
    from spineimg.scores.model import Score
    from spineimg.volume import CTVolume

InputOption = Annotated[Path | None, file("Answers as JSON; options go before them.")]

scores = typer.Typer(
    name="score",
    help="Clinical scores as their sources print them; what is not known leaves a range.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(scores)


def _answer(help_: str, metavar: str) -> Any:
    return typer.Option(metavar=metavar, help=help_)


@scores.command()
def sins(
    input: InputOption = None,
    level: Annotated[str | None, _answer("Vertebra with the lesion: gives the location.", "LEVEL")] = None,
    location: Annotated[str | None, _answer("Where in the spine.", "junctional|mobile|semi-rigid|rigid")] = None,
    pain: Annotated[str | None, _answer("On movement, or better lying.", "yes|occasional|none")] = None,
    lesion: Annotated[str | None, _answer("Bone lesion.", "lytic|mixed|blastic")] = None,
    alignment: Annotated[str | None, _answer("Alignment.", "subluxation|deformity|normal")] = None,
    collapse: Annotated[str | None, _answer("Collapse.", "over-50|under-50|body-involved|none|PERCENT")] = None,
    posterolateral: Annotated[str | None, _answer("Posterior elements.", "bilateral|unilateral|none")] = None,
    levels: Annotated[Path | None, file("Levels with fitted bodies (JSON): measures the collapse of --level.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Spinal instability neoplastic score (0-18)."""
    from spineimg.scores.instability import SinsAnswers
    from spineimg.scores.instability import sins as compute

    given = {
        "level": level,
        "location": location,
        "pain": pain,
        "lesion": lesion,
        "alignment": alignment,
        "collapse": collapse,
        "posterolateral": posterolateral,
    }
    answers = _answers("SINS", SinsAnswers, input, given)
    measured = None
    if levels is not None:
        if answers.level is None:
            raise typer.BadParameter("--levels needs --level, the vertebra with the lesion")
        measured = _measured_collapse(levels, answers.level)
    _finish(input, lambda: compute(answers, measured), json, quiet)


@scores.command()
def nesms(
    input: InputOption = None,
    primary: Annotated[str | None, _answer("Tumour.", "lung|breast|kidney|lymphoma|myeloma|other")] = None,
    solitary: Annotated[str | None, _answer("One skeletal metastasis only.", "yes|no")] = None,
    visceral: Annotated[str | None, _answer("Visceral metastases.", "yes|no")] = None,
    bauer: Annotated[float | None, _answer("Modified Bauer score instead of these three.", "0-4")] = None,
    albumin: Annotated[float | None, _answer("Serum albumin.", "G/DL")] = None,
    ambulation: Annotated[str | None, _answer("Walking.", "intact|impaired|non-ambulatory")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """New England spinal metastasis score (raw sum, 0-4)."""
    from spineimg.scores.survival import NesmsAnswers
    from spineimg.scores.survival import nesms as compute

    given = {
        "primary": primary,
        "solitary": solitary,
        "visceral": visceral,
        "bauer": bauer,
        "albumin": albumin,
        "ambulation": ambulation,
    }
    answers = _answers("NESMS", NesmsAnswers, input, given)
    _finish(input, lambda: compute(answers), json, quiet)


@scores.command()
def noms(
    input: InputOption = None,
    escc: Annotated[str | None, _answer("Cord compression on MRI.", "low|high|0|1a|1b|1c|2|3")] = None,
    myelopathy: Annotated[str | None, _answer("Signs of myelopathy.", "yes|no")] = None,
    radiosensitivity: Annotated[str | None, _answer("Tumour.", "sensitive|resistant")] = None,
    stability: Annotated[str | None, _answer("Spine.", "stable|unstable")] = None,
    systemic: Annotated[str | None, _answer("Tolerates surgery.", "able|unable")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """NOMS: what the published table gives for the answers."""
    from spineimg.scores.decision import NomsAnswers
    from spineimg.scores.decision import noms as compute

    given = {
        "escc": escc,
        "myelopathy": myelopathy,
        "radiosensitivity": radiosensitivity,
        "stability": stability,
        "systemic": systemic,
    }
    answers = _answers("NOMS", NomsAnswers, input, given)
    _finish(input, lambda: compute(answers), json, quiet)


@scores.command()
def pni(
    input: InputOption = None,
    albumin: Annotated[float | None, _answer("Serum albumin.", "G/DL")] = None,
    lymphocytes: Annotated[float | None, _answer("Lymphocytes per mm³.", "COUNT")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Prognostic nutritional index."""
    from spineimg.scores.survival import PniAnswers
    from spineimg.scores.survival import pni as compute

    answers = _answers("PNI", PniAnswers, input, {"albumin": albumin, "lymphocytes": lymphocytes})
    _finish(input, lambda: compute(answers), json, quiet)


@scores.command()
def construct(
    input: InputOption = None,
    uiv: Annotated[str | None, _answer("Upper instrumented vertebra.", "LEVEL")] = None,
    liv: Annotated[str | None, _answer("Lowest instrumented vertebra.", "LEVEL")] = None,
    levels: Annotated[str | None, _answer("All vertebrae of the construct.", "L1,L2,...")] = None,
    metastases: Annotated[str | None, _answer("Vertebrae with metastases.", "L1,...|none")] = None,
    screws: Annotated[float | None, _answer("Pedicle screws.", "N")] = None,
    result: Annotated[Path | None, file("Result of `implants`: its ends and screws, where not stated.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fixation length and screw density (Nam 2025)."""
    from spineimg.scores.fixation import ConstructAnswers
    from spineimg.scores.fixation import construct as compute

    given = {"uiv": uiv, "liv": liv, "levels": levels, "metastases": metastases, "screws": screws}
    answers = _answers("construct", ConstructAnswers, input, given)
    found: dict[str, str] = {}
    if result is not None:
        answers, found = _from_result(answers, result)
    _finish(input, lambda: compute(answers, found), json, quiet)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Result of hu, of implants, or of each.")],
    out: Annotated[Path, file("Page to write: .html, or .pdf.")],
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF beside the HTML too.")] = False,
    source: Annotated[list[Path] | None, typer.Option(metavar="PATH", help="CT measured on, for pictures.")] = None,
    scores: Annotated[list[Path] | None, file("Score to show (of score --json); may be repeated.")] = None,
    keep_ids: IdsOption = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write the page for the surgeon, self-contained."""
    if out.suffix.lower() not in (".html", ".htm", ".pdf"):
        raise typer.BadParameter(f"--out is a .html or a .pdf file, not {out.name}")
    from spineimg.export.report import make_report, read_results, read_scores, write_html, write_pdf

    page = read_results(results)
    shown = read_scores(scores or [])
    volumes = _volumes(page, source or [])
    made = make_report(page, volumes=volumes, scores=shown, keep_ids=keep_ids)
    html_to = None if out.suffix.lower() == ".pdf" else out
    pdf_to = out if html_to is None else out.with_suffix(".pdf") if pdf else None
    if html_to is not None:
        write_html(made, html_to)
    if pdf_to is not None:
        write_pdf(made, pdf_to)
    written = [str(path) for path in (html_to, pdf_to) if path is not None]
    write_json(json, {"schema": "spineimg.report/1", "files": written, "pictures_of": sorted(volumes)})
    if talks(json, quiet):
        without = "" if volumes else "   (no --source, so a schematic stands for the pictures)"
        typer.echo(f"report: {', '.join(written)}{without}")


# -- steps ------------------------------------------------------------------------------------------------------------


def _answers(name: str, kind: Any, path: Path | None, given: dict[str, Any]) -> Any:
    """The answers of a file under those of the command line. A wrong file is bad input, a wrong option wrong usage."""
    from spineimg.scores.model import ScoreError, read_answers

    stated = {key: value for key, value in given.items() if value is not None}
    try:
        read_answers(kind, stated)
    except ScoreError as error:
        raise typer.BadParameter(f"--{error}") from None
    if path is None:
        if not stated:
            raise typer.BadParameter("give --input FILE or at least one answer")
        return read_answers(kind, stated)
    from spineimg.export.report_scores import read_plain

    content = read_plain(path, f"an object with the answers of {name}")
    told = content.pop("score", None)
    if told is not None and str(told).lower() != name.lower():
        raise SpineImgError(f"{path}: `score` is {told!r}, not {name}")
    try:
        return read_answers(kind, content | stated)
    except ScoreError as error:
        raise SpineImgError(f"{path}: {error}") from None


def _finish(path: Path | None, compute: Callable[[], Score], json: str | None, quiet: bool) -> None:
    """Computes and shows a score. Answers that contradict each other are wrong usage when all are options."""
    from spineimg.export.report_scores import score_lines, score_to_dict
    from spineimg.scores.model import ScoreError

    try:
        score = compute()
    except ScoreError as error:
        if path is None:
            raise typer.BadParameter(str(error)) from None
        raise SpineImgError(f"{path}: {error}") from None
    write_json(json, score_to_dict(score, now()))
    if talks(json, quiet):
        typer.echo("\n".join(score_lines(score)))


def _volumes(page: Page, sources: list[Path]) -> dict[str, CTVolume]:
    """The CT of the vertebrae ("hu") and of the screws ("screws"), as far as the sources hold them.

    Raises SpineImgError when none of the sources is what was measured.
    """
    from spineimg.export.report import scans_of
    from spineimg.export.report_pictures import check_source
    from spineimg.io.opening import load

    found: dict[str, CTVolume] = {}
    problem: SpineImgError | None = None
    for kind, scan in scans_of(page) if sources else ():
        for path in sources:
            try:
                volume = load(path, scan.uid)
                check_source(volume, scan)
            except SpineImgError as error:
                problem = problem or error
            else:
                found.setdefault(kind, volume)
    if problem is not None and not found:
        raise problem
    return found


def _measured_collapse(path: Path, level: str) -> MeasuredCollapse:
    """Collapse of a level from the bodies of a levels file. Raises SpineImgError when it cannot be told."""
    from spineimg.export.report_scores import read_heights
    from spineimg.scores.instability import measured_collapse

    found = measured_collapse(read_heights(path), level)
    if found is None:
        raise SpineImgError(f"{path}: the bodies of {level} and of its two neighbours are needed to measure a collapse")
    return found


def _from_result(answers: Any, path: Path) -> tuple[Any, dict[str, str]]:
    """The answers with what a result holds where they say nothing, and what was taken from it."""
    from dataclasses import replace

    from spineimg.export.report_scores import construct_of_result

    held = construct_of_result(path)
    taken = {key: value for key, value in held.items() if getattr(answers, key) is None and value is not None}
    if answers.levels:
        taken = {key: value for key, value in taken.items() if key == "screws"}
    names = {"uiv": "UIV", "liv": "LIV", "screws": "the number of screws"}
    texts = {key: f"{names[key]} was taken from the result file" for key in taken}
    return replace(answers, **taken), texts
