"""The verbs that talk to a PACS: pacs find, get, send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.cli.shared import JsonOption, QuietOption, app, file, print_, talks, write_json

if TYPE_CHECKING:
    from spineimg.pacs.model import Archive

pacs = typer.Typer(help="CT from a PACS, results to it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(pacs, name="pacs")

NodeOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Node of the configuration, where it has several.")
]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Nodes (TOML); pacs.toml in the user's configuration folder.")
]
IdsOption = Annotated[bool, typer.Option("--keep-ids", help="List the patient's name, id and birth date too.")]


@pacs.command()
def find(
    node: NodeOption = None,
    study: Annotated[str | None, typer.Option(metavar="UID", help="List the series of this study.")] = None,
    patient: Annotated[str | None, typer.Option(metavar="ID", help="Patient id.")] = None,
    accession: Annotated[str | None, typer.Option(metavar="NUMBER", help="Accession number.")] = None,
    date: Annotated[str | None, typer.Option(metavar="YYYYMMDD[-YYYYMMDD]", help="Day, or first and last.")] = None,
    modality: Annotated[str | None, typer.Option(metavar="CT|SR|SEG|...", help="Only with this modality.")] = None,
    config: ConfigOption = None,
    keep_ids: IdsOption = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """List studies, or the series of one study."""
    import re

    from spineimg.pacs.jobs import find as search
    from spineimg.pacs.model import Query

    if date is not None and not re.fullmatch(r"\d{8}|\d{8}-(\d{8})?|-\d{8}", date):
        raise typer.BadParameter(f"--date is YYYYMMDD or YYYYMMDD-YYYYMMDD, not {date}")
    with _archive(config, node) as archive:
        found = search(archive, Query(patient, accession, date, modality, study), keep_ids=keep_ids)
    write_json(json, found)
    if talks(json, quiet):
        print_(_table(found.get("studies") or found["series"]))


@pacs.command()
def get(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Receives a folder for each series.")],
    study: Annotated[str, typer.Option(metavar="UID", help="StudyInstanceUID.")],
    node: NodeOption = None,
    series: Annotated[str | None, typer.Option(metavar="UID", help="Only this series.")] = None,
    rois: Annotated[Path | None, file("Fetch only the slices that measuring these ROIs needs.")] = None,
    config: ConfigOption = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fetch series; the same command again goes on where it stopped."""
    from spineimg.io.rois import read_rois
    from spineimg.pacs.jobs import Wanted
    from spineimg.pacs.jobs import get as fetch

    wanted = Wanted(study, series, read_rois(rois) if rois is not None else None)
    with _archive(config, node) as archive:
        done = fetch(archive, wanted, folder)
    write_json(json, done)
    if talks(json, quiet):
        for one in done["series"]:
            typer.echo(_received(one))


@pacs.command()
def send(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="DICOM files: CT, SR, SEG, secondary capture.")
    ],
    node: NodeOption = None,
    config: ConfigOption = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Store DICOM files on a node."""
    from spineimg.pacs.jobs import send as store
    from spineimg.pacs.model import PacsError

    with _archive(config, node) as archive:
        done = store(archive, paths)
        label = archive.label
    write_json(json, done)
    rows = done["instances"]
    failed = [row for row in rows if row["outcome"] == "failed"]
    if failed:
        first = f"{failed[0]['path']}: {failed[0]['reason']}"
        raise PacsError(f"{label}: {len(failed)} of {len(rows)} instances were not stored; the first: {first}")
    if talks(json, quiet):
        for row in rows:
            if row["outcome"] == "warning":
                typer.echo(f"stored with a remark: {row['path']}: {row['reason']}")
        typer.echo(f"{len(rows)} instances stored on {label}")


@contextmanager
def _archive(config: Path | None, name: str | None) -> Iterator[Archive]:
    from spineimg.pacs.jobs import connect
    from spineimg.pacs.nodes import read_node

    archive = connect(read_node(config or Path(typer.get_app_dir("spineimg")) / "pacs.toml", name))
    try:
        yield archive
    finally:
        archive.close()


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for name in rows[0]:
        uid = name.endswith("_uid")
        table.add_column(name.replace("_", " "), no_wrap=uid, overflow="ignore" if uid else "fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(one) for one in value.values() if one)
    return " ".join(value) if isinstance(value, list) else str("" if value is None else value)


def _received(one: dict[str, Any]) -> str:
    megabytes = one["bytes_received"] / 1e6
    text = f"{one['folder']}: {one['n_received']} instances received, {megabytes:.1f} MB"
    if one["why_all"] is not None:
        return f"{text}; all {one['n_instances']} were fetched, for {one['why_all']}"
    if one["n_needed"] is not None:
        return f"{text}; {one['n_needed']} of {one['n_instances']} are needed and measure as the whole series does"
    return f"{text}; {one['n_kept']} of {one['n_instances']} are there"
