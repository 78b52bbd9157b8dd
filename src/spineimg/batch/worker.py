"""One case, from the job to the answer, and the process that does one case after the other.

The process is started by `guard.py` and runs `main`. It writes no file of the run: what it has
found goes back through a pipe, so that a worker that is killed leaves nothing half-written. An error that is not
SpineImgError ends the process; the guard reports it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from spineimg import __version__
from spineimg.batch.cache import Entry, KnownHeaders
from spineimg.batch.cases import Case
from spineimg.batch.ledger import CaseStatus
from spineimg.errors import RoiError, SpineImgError
from spineimg.notes import Note

if TYPE_CHECKING:
    from spineimg.geometry import FloatArray
    from spineimg.io.index import Skipped
    from spineimg.results import CaseResult
    from spineimg.rois import RoiSet
    from spineimg.vertebra.click import Clicks
    from spineimg.volume import CTVolume

READY = "ready"


@dataclass(frozen=True, slots=True)
class Job:
    """A case with its paths spelt out.

    files: the folder or file to open, or all files of the case's SeriesInstanceUID. memory_bytes: most that the
    process may allocate, None for no limit. headers: those of its files that were read before.
    implants: screen them too. search: find the vertebrae of a case that does not say where they are.
    """

    case: Case
    files: tuple[str, ...]
    rois: str | None = None
    mask: str | None = None
    figure: bool = False
    memory_bytes: int | None = None
    headers: tuple[Entry, ...] = ()
    implants: bool = False
    search: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a case. `document` is the result file's content, `figure` the picture's.

    headers: those that had to be read. too_large: the case needs more memory than its worker may have.
    """

    status: CaseStatus
    reason: str = ""
    seconds: float = 0.0
    n_vertebrae: int = 0
    document: bytes | None = None
    figure: bytes | None = None
    version: str = __version__
    headers: tuple[Entry, ...] = ()
    too_large: bool = False


def measure_case(job: Job) -> Answer:
    """Opens, measures and describes one case. A SpineImgError refuses it; a lack of memory fails it."""
    start = time.perf_counter()
    known = KnownHeaders(job.headers)
    try:
        answer = _measured(job, known)
    except SpineImgError as error:
        answer = Answer(CaseStatus.REFUSED, str(error))
    except MemoryError:
        most = f" than {job.memory_bytes / 1e9:.1f} GB" if job.memory_bytes else ""
        reason = f"needs more memory{most}: measure it on a larger machine, with --retry"
        answer = Answer(CaseStatus.FAILED, reason, too_large=True)
    return replace(answer, seconds=time.perf_counter() - start, headers=tuple(known.fresh))


def _measured(job: Job, known: KnownHeaders) -> Answer:
    from spineimg.export.json import result_to_dict
    from spineimg.io.index import left_out
    from spineimg.pipeline import assess, assess_and_screen
    from spineimg.vertebra.click import Clicks

    rois = None if job.case.searched else _rois(job, None)
    volume, skipped = _opened(job, known)
    clicks = Clicks.of(volume, whole=True) if job.case.searched and job.search else None
    nameless = ""
    if rois is None:
        try:
            rois = _rois(job, volume, clicks)
        except RoiError as error:
            if not job.implants:
                raise
            nameless = f"no vertebra measured: {error}"  # its screws are worth having all the same
            rois = _rois(replace(job, search=False), volume)
    result = assess_and_screen(volume, rois, clicks) if job.implants else assess(volume, rois, clicks=clicks)
    _refuse_unread(result, skipped)
    if nameless:
        result = replace(result, notes=(*result.notes, Note("levels_not_found", nameless)))
    described = result_to_dict(result, datetime.now(UTC))
    document = {"schema": described.pop("schema"), "case": job.case.name, **described}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    figure, no_figure = _figure(volume, result) if job.figure else (None, "")
    reasons = (nameless, no_figure, f"of its files {left_out(skipped)}" if skipped else "")
    content = text.encode("utf-8", "replace")
    return Answer(CaseStatus.DONE, "; ".join(filter(None, reasons)), 0.0, len(result.vertebrae), content, figure)


def _refuse_unread(result: CaseResult, skipped: Sequence[Skipped]) -> None:
    """A disk that fails for a moment must not leave a case done without its numbers: --retry does it again."""
    for vertebra in result.vertebrae:
        for note in vertebra.hu.notes:
            if note.code == "unreadable":
                raise SpineImgError(f"{note.about}: {note.text}")
    unread = [one for one in skipped if one.unreadable]
    missing = [vertebra.level for vertebra in result.vertebrae if vertebra.hu.mean_hu is None]
    if unread and missing:
        raise SpineImgError(f"{', '.join(missing)}: not measured, and {unread[0].path} is {unread[0].reason}")


def _opened(job: Job, known: KnownHeaders) -> tuple[CTVolume, Sequence[Skipped]]:
    """(the case's volume, those of its files that cannot be used)."""
    from spineimg.io.grid_headers import is_volume_file
    from spineimg.io.index import scan
    from spineimg.io.opening import choose, load

    if not job.files:
        raise SpineImgError(f"no file below ROOT has the SeriesInstanceUID {job.case.uid}")
    if job.case.uid is None and is_volume_file(job.files[0]):
        return load(job.files[0]), ()
    found = scan(job.files, read=known.read)
    entry = choose(found, job.case.uid or job.files[0], job.case.uid, "put one of these UIDs into path")
    return entry.volume(), found.skipped


def _rois(job: Job, volume: CTVolume | None, clicks: Clicks | None = None) -> RoiSet:
    """The ROIs of the case's file or of the vertebrae that are found in the volume, cut down to the levels that the
    table names; or the table's clicks."""
    from spineimg.anatomy import Construct
    from spineimg.io.masks import rois_from_mask
    from spineimg.io.rois import read_rois
    from spineimg.pipeline import found_rois
    from spineimg.rois import RoiSet, VertebraRoi

    wanted, ends = job.case.wanted, job.case.construct()
    if job.rois is not None:
        found = read_rois(job.rois)
    elif job.mask is not None:
        found = rois_from_mask(job.mask)
    elif volume is not None:
        found = found_rois(volume, clicks) if job.search else RoiSet(())
    else:
        found = RoiSet(tuple(VertebraRoi(one.level, _array(one.center_lps_mm)) for one in wanted))
    by_level = {roi.level: roi for roi in found.vertebrae}
    chosen = tuple(by_level.get(one.level, VertebraRoi(one.level)) for one in wanted) or found.vertebrae
    if wanted:  # a role of the file counts only for a vertebra that the table asks for
        levels = {one.level for one in wanted}
        of_file = Construct(*(end if end in levels else None for end in (found.construct.uiv, found.construct.liv)))
    else:
        of_file = found.construct
    return replace(found, vertebrae=chosen, construct=Construct(ends.uiv or of_file.uiv, ends.liv or of_file.liv))


def _array(point: tuple[float, float, float] | None) -> FloatArray | None:
    import numpy as np

    return None if point is None else np.array(point, dtype=np.float64)


def _figure(volume: CTVolume, result: CaseResult) -> tuple[bytes | None, str]:
    """(the picture, why there is none). A measurement stands without its picture."""
    import tempfile

    from spineimg.export.figure import write_figure
    from spineimg.export.implant_figure import write_implant_figure

    write = write_figure if result.vertebrae else write_implant_figure
    if not result.vertebrae and (result.implants is None or not result.implants.screws):
        return None, "no figure: no vertebra was measured and no screw found"
    try:
        with tempfile.TemporaryDirectory(prefix="spineimg-") as folder:
            path = Path(folder) / "figure.png"
            write(volume, result, path)
            return path.read_bytes(), ""
    except (SpineImgError, OSError) as error:
        return None, f"no figure: {error}"


# -- the process ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Answers jobs until the other end closes, be it in the middle of a case: then the process ends at once."""
    connection = Connection(int(sys.argv[1]))
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
    import spineimg.io.opening  # so that a time limit holds for cases, not for imports
    import spineimg.io.rois
    import spineimg.pipeline  # noqa: F401

    connection.send(READY)
    while True:
        job = jobs.get()
        _limit_memory(job.memory_bytes)
        connection.send(measure_case(job))


def _listen(connection: Connection, jobs: queue.SimpleQueue[Job]) -> None:
    while True:
        try:
            jobs.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _limit_memory(most: int | None) -> None:
    """Allocations beyond `most` become a MemoryError instead of the end of some process of the machine."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = resource.RLIM_INFINITY if most is None else most
    if hard != resource.RLIM_INFINITY:
        wanted = hard if wanted == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
