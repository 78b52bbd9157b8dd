"""What `spineimg pacs` does: find, get, send."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spineimg.errors import SeriesError
from spineimg.io.headers import NotDicomError, read_header
from spineimg.io.index import walk
from spineimg.io.records import CT_CLASSES
from spineimg.pacs.inbox import Inbox
from spineimg.pacs.model import ACCEPTED_CLASSES, Archive, Outgoing, PacsError, Query, Sent, check_uid, class_name
from spineimg.pacs.needed import WholeNeededError, fetch_needed
from spineimg.pacs.nodes import DimseNode, Node, credentials
from spineimg.rois import RoiSet

SCHEMA = "spineimg.pacs/1"
MODALITIES = ("CT", "SR", "SEG", "OT", "SC")
"""Modalities of series that can hold what is fetched; secondary captures are CT or OT, old ones SC."""


def connect(node: Node) -> Archive:
    """The node, not asked anything yet. Raises PacsError when credentials are missing."""
    if isinstance(node, DimseNode):
        from spineimg.pacs.dimse import DimseArchive

        return DimseArchive(node)
    from spineimg.pacs.web import WebArchive

    return WebArchive(node, credentials(node))


# -- find -------------------------------------------------------------------------------------------------------------


def find(archive: Archive, query: Query, *, keep_ids: bool = False) -> dict[str, Any]:
    """Studies, or the series of one study, as a JSON object. Raises PacsError when nothing matches."""
    document: dict[str, Any] = {"schema": SCHEMA}
    if query.study_instance_uid is not None:
        study = check_uid(query.study_instance_uid, "--study")
        document["study_instance_uid"] = study
        rows = document["series"] = [_series_row(row) for row in archive.series(study, query.modality)]
    else:
        rows = document["studies"] = [_study_row(row, keep_ids) for row in archive.studies(query)]
        rows.sort(key=lambda row: (row["date"] or "", row["study_instance_uid"]))
    if not rows:
        raise PacsError(f"{archive.label}: nothing matches the search")
    return document


def _study_row(row: Any, keep_ids: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "study_instance_uid": _text(row, "StudyInstanceUID"),
        "date": _text(row, "StudyDate"),
        "description": _text(row, "StudyDescription"),
        "modalities": _texts(row, "ModalitiesInStudy"),
        "n_series": _whole(row, "NumberOfStudyRelatedSeries"),
        "n_instances": _whole(row, "NumberOfStudyRelatedInstances"),
    }
    if keep_ids:
        found["patient"] = {
            "patient_id": _text(row, "PatientID"),
            "patient_name": _text(row, "PatientName"),
            "patient_birth_date": _text(row, "PatientBirthDate"),
            "accession_number": _text(row, "AccessionNumber"),
        }
    return found


def _series_row(row: Any) -> dict[str, Any]:
    return {
        "series_instance_uid": _text(row, "SeriesInstanceUID"),
        "modality": _text(row, "Modality"),
        "description": _text(row, "SeriesDescription"),
        "n_instances": _whole(row, "NumberOfSeriesRelatedInstances"),
    }


def _text(row: Any, keyword: str) -> str | None:
    return "\\".join(_texts(row, keyword)) or None


def _texts(row: Any, keyword: str) -> list[str]:
    value = row.get(keyword)
    if value is None:
        return []
    several = (
        value if isinstance(value, Iterable) and not isinstance(value, str) and keyword != "PatientName" else [value]
    )
    return [str(one) for one in several if str(one)]


def _whole(row: Any, keyword: str) -> int | None:
    text = _text(row, keyword)
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


# -- get --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch. With `rois` only the slices that measuring them needs, from one CT series."""

    study_instance_uid: str
    series_instance_uid: str | None = None
    rois: RoiSet | None = None


def get(archive: Archive, wanted: Wanted, folder: Path) -> dict[str, Any]:
    """Fetches series into FOLDER/UID; what is already there and whole is not fetched again.

    Raises PacsError, or another SpineImgError on ROIs, when a series is not complete; nothing of it is then visible.
    """
    study = check_uid(wanted.study_instance_uid, "--study")
    if wanted.series_instance_uid is not None:
        check_uid(wanted.series_instance_uid, "--series")
    done = [_get_series(archive, study, uid, wanted.rois, folder) for uid in _chosen(archive, study, wanted)]
    return {"schema": SCHEMA, "study_instance_uid": study, "series": done, "bytes_received": archive.n_bytes}


def _chosen(archive: Archive, study: str, wanted: Wanted) -> list[str]:
    """The series to fetch. Raises PacsError when it is not clear which."""
    rows = [_series_row(row) for row in archive.series(study)]
    if not rows:
        raise PacsError(f"{archive.label}: it has no study {study}")
    if wanted.series_instance_uid is not None:
        if wanted.series_instance_uid not in {row["series_instance_uid"] for row in rows}:
            raise PacsError(f"{archive.label}: study {study} has no series {wanted.series_instance_uid}")
        return [wanted.series_instance_uid]
    kinds = ("CT",) if wanted.rois is not None else MODALITIES
    found = [
        check_uid(row["series_instance_uid"] or "", "a series of the node") for row in rows if row["modality"] in kinds
    ]
    if not found:
        there = ", ".join(sorted({row["modality"] or "?" for row in rows}))
        raise PacsError(f"{archive.label}: study {study} holds nothing to fetch, only {there}")
    if wanted.rois is not None and len(found) > 1:
        raise PacsError(
            f"{archive.label}: {len(found)} CT series in the study; name one with --series: {', '.join(found)}"
        )
    return found


def _get_series(archive: Archive, study: str, series: str, rois: RoiSet | None, folder: Path) -> dict[str, Any]:
    """One series, complete or not at all."""
    before = archive.n_bytes
    rows = archive.headers(study, series) if rois is not None else archive.instances(study, series)
    header_bytes = archive.n_bytes - before
    uids = _instances(archive, series, rows, only_ct=rois is not None)
    inbox = Inbox(folder, series)
    inbox.expected = frozenset(uids)

    def fetch(some: Sequence[str]) -> None:
        missing = inbox.missing(some)
        if not missing:
            return
        archive.retrieve(study, series, missing, inbox.receive)
        left = inbox.missing(missing)
        if left:
            raise PacsError(f"{archive.label}: it did not hand over {len(left)} of {len(missing)} instances")

    why_all = None
    needed = uids
    try:
        if rois is not None:
            try:
                needed = fetch_needed(rows, rois, inbox, fetch)
            except WholeNeededError as error:
                why_all = str(error)
        fetch(needed)
    except PacsError as error:
        raise _interrupted(error, inbox, uids) from None
    inbox.finish()
    return {
        "series_instance_uid": series,
        "folder": str(inbox.final),
        "n_instances": len(uids),
        "n_kept": len(uids) - len(inbox.missing(uids)),
        "n_received": inbox.n_new,
        "n_needed": len(needed) if rois is not None and why_all is None else None,
        "why_all": why_all,
        "bytes_headers": header_bytes,
        "bytes_received": archive.n_bytes - before,
    }


def _interrupted(error: PacsError, inbox: Inbox, uids: Sequence[str]) -> PacsError:
    there = len(uids) - len(inbox.missing(uids))
    if there == 0:
        inbox.discard()
        return error
    return PacsError(
        f"{error}; {there} of {len(uids)} instances are there and stay out of sight in {inbox.partial}: "
        "run the same command again to fetch the rest"
    )


def _instances(archive: Archive, series: str, rows: Sequence[Any], *, only_ct: bool) -> list[str]:
    """The SOP instances of a series. Raises PacsError when there are none, and for classes that are not fetched."""
    if not rows:
        raise PacsError(f"{archive.label}: series {series} is empty")
    accepted = CT_CLASSES if only_ct else ACCEPTED_CLASSES
    for row in rows:
        sop_class = _text(row, "SOPClassUID")
        if sop_class is not None and sop_class not in accepted:
            kinds = "CT" if only_ct else "CT, SR, SEG and SC"
            raise PacsError(
                f"{archive.label}: series {series} holds {class_name(sop_class)}; only {kinds} can be fetched"
            )
    return list(dict.fromkeys(check_uid(_text(row, "SOPInstanceUID") or "", "an instance of the node") for row in rows))


# -- send -------------------------------------------------------------------------------------------------------------


def send(archive: Archive, paths: Sequence[Path]) -> dict[str, Any]:
    """Sends files; the outcome of each. Raises PacsError before anything is sent when a file may not be."""
    files = outgoing(paths)
    done = list(archive.send(files))
    return {"schema": SCHEMA, "instances": [_sent_row(one) for one in done]}


def outgoing(paths: Sequence[Path]) -> list[Outgoing]:
    """The files below the paths. Raises PacsError for the first that is no CT, SR, SEG or SC."""
    files = []
    for path in paths:
        if not path.exists():
            raise PacsError(f"{path}: no such file or folder")
    for name, problem in walk(paths):
        if problem is not None:
            raise PacsError(f"{name}: {problem}; nothing was sent")
        files.append(_outgoing(name))
    if not files:
        raise PacsError(f"{', '.join(map(str, paths))}: no file there, so nothing was sent")
    return files


def _outgoing(path: str) -> Outgoing:
    try:
        header = read_header(path)
    except NotDicomError:
        raise PacsError(f"{path}: not DICOM; nothing was sent") from None
    except SeriesError as error:
        raise PacsError(f"{path}: {error}; nothing was sent") from None
    sop_class = str(header.values.get("SOPClassUID", ""))
    if sop_class not in ACCEPTED_CLASSES:
        kind = class_name(sop_class) or "of no class"
        raise PacsError(f"{path}: {kind} (0008,0016), only CT, SR, SEG and SC are sent; nothing was sent")
    uid = check_uid(str(header.values.get("SOPInstanceUID", "")), f"{path}: SOPInstanceUID (0008,0018)")
    return Outgoing(Path(path), uid, sop_class, header.transfer_syntax)


def _sent_row(one: Sent) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "sop_instance_uid": one.sop_instance_uid,
        "outcome": one.outcome,
        "reason": one.reason,
    }
