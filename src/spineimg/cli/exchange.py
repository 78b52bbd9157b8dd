"""The verbs that exchange results with the hospital: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spineimg.cli.shared import JsonOption, QuietOption, app, file, now, talks, write_json
from spineimg.errors import SpineImgError

if TYPE_CHECKING:
    from spineimg.export.dicom_source import Source
    from spineimg.io.structured_report import ImportedReport
    from spineimg.results import CaseResult
    from spineimg.volume import CTVolume

_SAME_HU = 0.05
"""Means closer than this are the same to the printed precision."""

SourceOption = Annotated[Path, typer.Option(metavar="PATH", help="The CT that was measured.")]
FolderOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Receives SR, SEG and key image.")]
ObserverOption = Annotated[str | None, typer.Option(metavar="NAME", help="Person who confirmed the result.")]


@app.command()
def export(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="Result file of hu or implants.")],
    source: SourceOption,
    dicom: FolderOption,
    observer: ObserverOption = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a result as DICOM: structured report, segmentation, key image."""
    from spineimg.export.dicom import check_match
    from spineimg.export.json import read_result
    from spineimg.export.restored import restored

    document = read_result(result)
    try:
        check_match(document)
        volume = opened(source, document["series"]["series_instance_uid"])
        figure = restored(document, volume)
        listing = write_objects(dicom, volume, document, figure, observer=observer)
    except SpineImgError as error:
        raise SpineImgError(f"{result}: {error}") from error
    write_json(json, listing)
    if talks(json, quiet):
        for one in listing["files"]:
            typer.echo(f"{one['kind']:<12} {one['path']}")


@app.command("import")
def import_(
    report: Annotated[Path, typer.Argument(metavar="SR", help="Structured report written by export.")],
    rois_out: Annotated[Path | None, file("Write its ROIs as a ROI file.")] = None,
    source: Annotated[Path | None, typer.Option(metavar="PATH", help="Measure its ROIs again on this CT.")] = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Read a structured report back as ROIs; with --source measure them again."""
    from spineimg.io.rois import rois_to_dict, write_rois
    from spineimg.io.structured_report import read_report

    found = read_report(report)
    if not found.rois.vertebrae:
        raise SpineImgError(f"{report}: all its vertebrae were measured from a label map, which a report does not hold")
    if rois_out is not None:
        write_rois(rois_out, found.rois)
    if source is None:
        write_json(json, rois_to_dict(found.rois, Path()))
        if talks(json, quiet):
            levels = ", ".join(roi.level for roi in found.rois.vertebrae)
            typer.echo(f"{report}: ROIs of {levels}" + (f" are in {rois_out}" if rois_out else ""))
            _say_masks(found)
        return
    again = _measured_again(found, source)
    write_json(json, again)
    if talks(json, quiet):
        for one in again["vertebrae"]:
            old, new = found.mean_hu[one["level"]], one["mean_hu"]
            typer.echo(f"{one['level']:<4} report {_hu(old):>7}   measured again {_hu(new):>7}")
        _say_masks(found)


def write_result(folder: Path, volume: CTVolume, result: CaseResult, observer: str | None) -> None:
    """Writes a result that was just measured as DICOM."""
    from spineimg.export.json import result_to_dict

    write_objects(folder, volume, result_to_dict(result, now()), result, observer=observer)


def write_objects(
    folder: Path, volume: CTVolume, document: dict[str, Any], drawn: CaseResult, *, observer: str | None = None
) -> dict[str, Any]:
    """Writes a result's DICOM objects and lists them. drawn: the record that the key image shows."""
    from spineimg.export.dicom import dicom_objects, write_dicom
    from spineimg.export.dicom_picture import pixels
    from spineimg.export.figure import draw
    from spineimg.export.restored import restored_screen

    planes = [one for vertebra in drawn.vertebrae for one in vertebra.hu.slices]
    picture = pixels(draw(volume, drawn)) if planes else None
    screen = restored_screen(document)  # as the file has it, so that the same result gives the same picture
    if picture is None and screen is not None and screen.screws:
        from spineimg.export.implant_figure import draw as draw_screws

        picture = pixels(draw_screws(volume, screen))
    objects = dicom_objects(source_of(volume), document, observer=observer, picture=picture)
    kinds = {"SR": "report", "SEG": "segmentation", "OT": "key image"}
    files = [
        {"path": str(path), "kind": kinds[one.Modality], "sop_instance_uid": str(one.SOPInstanceUID)}
        for path, one in zip(write_dicom(folder, objects), objects, strict=True)
    ]
    return {"schema": "spineimg.export/1", "files": files}


def source_of(volume: CTVolume) -> Source:
    """The volume's own files. Raises SpineImgError for a volume to which no DICOM object can refer."""
    from spineimg.export.dicom_source import Place, Source
    from spineimg.io.pixels import DicomSource

    if not isinstance(volume.source, DicomSource):
        raise SpineImgError(
            f"{volume.series.description or 'the source'}: a NIfTI, NRRD or MHA volume names no patient, study or "
            "image, so no DICOM object can refer to it: measure the DICOM series"
        )
    places = []
    for record in volume.source.records:
        uid = record.sop_instance_uid
        if uid is None:
            raise SpineImgError(f"{record.path}: no SOPInstanceUID (0008,0018), so no DICOM object can refer to it")
        places.append(Place(record.path, uid, record.frame + 1))
    source = Source(volume, tuple(places))
    source.check()
    return source


def opened(source: Path, series: str | None) -> CTVolume:
    """The series of this name in a source; a volume file as it is. Raises SpineImgError when it is not there."""
    from spineimg.io.grid_headers import is_volume_file
    from spineimg.io.index import scan
    from spineimg.io.volumes import open_volume

    if is_volume_file(source):
        return open_volume(source)
    found = scan([source]).series
    for one in found:
        if one.info.name == series:
            return one.volume()
    there = ", ".join(one.info.name for one in found[:5]) or "no DICOM series"
    raise SpineImgError(f"series {series} was measured, but {source} holds {there}: give the CT that was measured")


def _measured_again(found: ImportedReport, source: Path) -> dict[str, Any]:
    """The result of a report's ROIs on a CT, with a note where it differs from the report."""
    from dataclasses import asdict

    from spineimg.export.json import result_to_dict
    from spineimg.notes import Note
    from spineimg.pipeline import assess

    document = result_to_dict(assess(opened(source, found.series), found.rois), now())
    for one in document["vertebrae"]:
        old, new = found.mean_hu.get(one["level"]), one["mean_hu"]
        if (old is None) != (new is None) or (old is not None and abs(old - new) > _SAME_HU):
            text = f"the report says {_hu(old)} HU, measured again it is {_hu(new)} HU"
            document["notes"].append(asdict(Note("differs_from_report", text, one["level"])))
    return document


def _hu(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _say_masks(found: ImportedReport) -> None:
    if found.from_masks:
        typer.echo(f"measured from a label map, so without ROIs here: {', '.join(found.from_masks)}")
