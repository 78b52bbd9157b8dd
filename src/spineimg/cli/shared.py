"""What the verbs share: the application, options, printing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.errors import SpineImgError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

app = typer.Typer(
    name="spineimg",
    help="Spine CT in numbers: trabecular HU of vertebrae, held against published cutoffs.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def file(help_: str) -> Any:
    return typer.Option(metavar="FILE", help=help_)


JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
SeriesOption = Annotated[str | None, typer.Option(metavar="UID", help="Series to measure, where several are usable.")]
LevelOption = Annotated[str | None, typer.Option(metavar="LEVEL", help="Instrumented vertebra: upper, lowest.")]
MaskLabelsOption = Annotated[
    str | None, typer.Option(metavar="totalsegmentator|verse|...", help="Numbering of the mask, if it cannot be told.")
]
PlaneOption = Annotated[str, typer.Option(metavar="endplate|scanner", help="Oblique ROIs: resample, or refuse.")]
KvpOption = Annotated[float | None, typer.Option(metavar="KV", help="State the tube voltage the file lacks.")]
ContrastOption = Annotated[str | None, typer.Option(metavar="yes|no", help="State the contrast the file lacks.")]
KernelOption = Annotated[str | None, typer.Option(metavar="soft|sharp|NAME", help="State the kernel the file lacks.")]
IdsOption = Annotated[bool, typer.Option("--keep-ids", help="Keep the patient's name, id and birth date.")]


def now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


@contextmanager
def about(path: Path) -> Iterator[None]:
    """What is wrong with a scan is told with its path, where the message does not name it already."""
    try:
        yield
    except SpineImgError as error:
        if str(path) in str(error):
            raise
        raise SpineImgError(f"{path}: {error}") from error


def write_json(target: str | None, document: dict[str, Any]) -> None:
    if target is None:
        return
    from spineimg.export.json import write_json as write

    write(target, document)


def talks(json: str | None, quiet: bool) -> bool:
    return not quiet and json != "-"


def print_(what: RenderableType) -> None:
    from rich.console import Console

    # Into a file or a pipe, tables keep their columns instead of folding them at 80.
    Console(width=None if sys.stdout.isatty() else 140).print(what)
