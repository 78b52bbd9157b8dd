"""The run: from a table of cases to a folder in which every case that was reached has its row."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spineimg import __version__
from spineimg.batch.cache import HeaderCache
from spineimg.batch.cases import Case, CaseTable, located, read_cases
from spineimg.batch.ledger import CaseStatus, Ledger, LedgerRow
from spineimg.batch.names import file_stems
from spineimg.batch.outputs import SCHEMA, RunFolder, digest, held, new_manifest, read_manifest, write_manifest
from spineimg.batch.page import write_index
from spineimg.batch.pools import DaskPool, LocalPool, Pool
from spineimg.batch.progress import Progress
from spineimg.batch.worker import Answer, Job
from spineimg.errors import SpineImgError
from spineimg.io.headers import FileHeader
from spineimg.settings import setting

if TYPE_CHECKING:
    from spineimg.io.index import Skipped

_LOOK_SECONDS = 0.5
"""How soon a wish to stop is seen."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How a run is done, and what is done beside vertebral HU."""

    workers: int | None = setting(
        None,
        "",
        (1, 1024),
        "engineering choice: one a core that this process may use, and one for each GB of free memory",
        "Worker processes on this machine; one a core unless told.",
    )
    scheduler: str | None = setting(
        None,
        "",
        (None, None),
        "engineering choice: this machine",
        "Address of a Dask scheduler, to use its workers instead of this machine's; `slurm` starts some.",
    )
    timeout_s: float | None = setting(
        3600.0,
        "s",
        (0.1, 1e6),
        "engineering choice: a case takes seconds; an hour is a dead disk, and the night goes on",
        "Longest time for one case; then it is failed and its worker is ended.",
    )
    retry: bool = setting(
        False,
        "",
        (False, True),
        "contract: refused and failed cases are terminal",
        "Do refused and failed cases again.",
    )
    figures: bool = setting(
        False,
        "",
        (False, True),
        "engineering choice: a figure takes longer than a measurement",
        "Draw figures/CASE.png of every case.",
    )

    columns: tuple[tuple[str, str], ...] = setting(
        (), "", (None, None), "engineering choice: the contract's names", "(our name, the table's name) of columns."
    )
    search: bool = setting(
        False,
        "",
        (False, True),
        "contract: --levels auto",
        "Find and name the vertebrae of cases that do not say where they are; names are unconfirmed.",
    )
    implants: bool = setting(
        False, "", (False, True), "contract: --implants", "Screen implants too; a case may then be without vertebrae."
    )


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What has become of the cases of the table."""

    folder: str
    n_cases: int
    n_done: int
    n_refused: int
    n_failed: int
    n_vertebrae: int
    interrupted: bool

    @property
    def n_not_reached(self) -> int:
        return self.n_cases - self.n_done - self.n_refused - self.n_failed

    def exit_code(self, *, strict: bool) -> int:
        """0 when every case has its row, with `strict` only when all are done; 130 after Ctrl-C."""
        if self.n_not_reached:
            return 130 if self.interrupted else 1
        return 1 if strict and self.n_done < self.n_cases else 0

    def to_dict(self) -> dict[str, Any]:
        names = ("folder", "n_cases", "n_done", "n_refused", "n_failed", "n_vertebrae", "interrupted", "n_not_reached")
        return {"schema": SCHEMA, **{name: getattr(self, name) for name in names}}


def run_batch(
    root: Path, table: Path, out: Path, settings: BatchSettings | None = None, *, quiet: bool = False
) -> BatchSummary:
    """Measures every case of a table that has no row yet in the ledger of `out`.

    root: folder that holds the studies; table: CSV (see `cases.py`); out: folder of the run, made when absent.
    Raises SpineImgError for a table, a folder or a cluster that cannot be used, before any case is begun where that
    can be known; what happens to single cases is in the ledger.
    """
    chosen = settings or BatchSettings()
    if not root.is_dir():
        raise SpineImgError(f"{root}: no such folder, ROOT holds the studies")
    if find_spec("pyarrow") is None:
        raise SpineImgError("measurements.parquet needs pyarrow: pip install pyarrow")
    root, table, out = (Path(os.path.abspath(path)) for path in (root, table, out))  # noqa: PTH100 - keeps links
    may_search = chosen.search or chosen.implants
    cases = read_cases(table, root, dict(chosen.columns), may_search=may_search)
    with held(out), Ledger.open(out / "ledger.csv") as ledger:
        folder = RunFolder(out, file_stems([*(case.name for case in cases.cases), *ledger.rows]))
        folder.prepare(figures=chosen.figures)
        manifest = _manifest(folder, ledger, cases, (root, table), chosen)
        pending, remarks = _pending(folder, ledger, cases, retry=chosen.retry)
        remarks += _outdated(folder, ledger, cases, (root, table))
        write_manifest(folder.manifest, manifest)
        before = Counter(ledger.rows[case.name].status for case in cases.cases if case.name in ledger.rows)
        interrupted = False
        with Progress(len(cases.cases), before, quiet=quiet) as progress:
            for remark in remarks:
                progress.say(remark)
            if pending:
                with closing(HeaderCache(out / "index.sqlite")) as cache:
                    jobs = _jobs(pending, (root, table), chosen, cache, progress.say)
                    interrupted = _work(_Books(folder, ledger, cache, progress), jobs, chosen)
        n_vertebrae = _measurements(folder, ledger, cases, manifest)
        counts = Counter(ledger.rows[case.name].status for case in cases.cases if case.name in ledger.rows)
    return BatchSummary(
        folder=str(out),
        n_cases=len(cases.cases),
        n_done=counts[CaseStatus.DONE],
        n_refused=counts[CaseStatus.REFUSED],
        n_failed=counts[CaseStatus.FAILED],
        n_vertebrae=n_vertebrae,
        interrupted=interrupted,
    )


# -- before -----------------------------------------------------------------------------------------------------------


def _manifest(
    folder: RunFolder, ledger: Ledger, cases: CaseTable, inputs: tuple[Path, Path], settings: BatchSettings
) -> dict[str, Any]:
    """The manifest of this run. Raises SpineImgError when the ledger's rows were made from something else."""
    options = {
        name: getattr(settings, name)
        for name in ("workers", "scheduler", "timeout_s", "figures", "columns", "search", "implants")
    }
    manifest = new_manifest(*inputs, cases.sha256, options)
    done = {row.case for row in ledger.rows.values() if row.status is CaseStatus.DONE}
    earlier = read_manifest(folder.manifest) if ledger.rows else None
    if done and earlier is None:
        raise SpineImgError(f"{folder.path} has a ledger but no manifest.json: choose another --out")
    known = earlier["cases"] if earlier else {}
    if done and earlier is not None:
        _check_same_run(folder, earlier, manifest)
        manifest["measurements_of"] = earlier.get("measurements_of")
    fingerprints = {case.name: case.fingerprint for case in cases.cases}
    for case in cases.cases:
        if case.name in done and known.get(case.name) != fingerprints[case.name]:
            raise SpineImgError(
                f"{folder.path} has {case.name!r} measured from another row than line {case.line} of {inputs[1].name}: "
                "choose another --out, or take its row out of ledger.csv to have it done again"
            )
    manifest["cases"] = {name: known[name] for name in ledger.rows if name in known}
    manifest["cases"] |= fingerprints
    return manifest


def _check_same_run(folder: RunFolder, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """One table must not mix programs, settings or trees. Raises SpineImgError when it would."""
    for name, option in (("search", "--levels auto"), ("implants", "--implants")):
        if earlier["options"].get(name, False) != now["options"][name]:
            raise SpineImgError(f"{folder.path} was begun {'without' if now['options'][name] else 'with'} {option}: "
                                "choose another --out, so that one table does not mix the two")  # fmt: skip
    for name in ("spineimg", "root", "settings"):
        own = json.loads(json.dumps(now[name]))  # tuples have become lists in the file
        if earlier.get(name) != own:
            raise SpineImgError(
                f"{folder.path} was begun with another {name} ({_short(earlier.get(name))}, now {_short(own)}): "
                "choose another --out, so that one table does not mix the two"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _pending(folder: RunFolder, ledger: Ledger, cases: CaseTable, *, retry: bool) -> tuple[list[Case], list[str]]:
    """(cases to do, what to tell of it). Rows that do not hold any more are taken out of the ledger."""
    remarks = []
    done = [row.case for row in ledger.rows.values() if row.status is CaseStatus.DONE]
    lost = folder.without_result(done)
    if lost:
        remarks.append(f"{len(lost)} done cases have lost their result file and count as not reached: {lost[:5]}")
    again = {case.name for case in cases.cases} - set(done) if retry else set()
    ledger.forget({*lost, *again})
    if cases.n_left_out:
        remarks.append(f"{cases.n_left_out} rows with use = no are left out")
    return [case for case in cases.cases if case.name not in ledger.rows], remarks


def _outdated(folder: RunFolder, ledger: Ledger, cases: CaseTable, inputs: tuple[Path, Path]) -> list[str]:
    """What to tell of done cases whose ROI file or label map was changed after they were measured."""
    found = []
    for case in cases.cases:
        name, row = case.rois or case.mask, ledger.rows.get(case.name)
        if name is not None and row is not None and row.status is CaseStatus.DONE:
            with suppress(OSError):
                if Path(located(name, *inputs)).stat().st_mtime_ns > folder.result(case.name).stat().st_mtime_ns:
                    found.append(case.name)
    if not found:
        return []
    return [
        f"{len(found)} done cases were measured before their ROI file or label map was changed: {found[:5]}; "
        "take their rows out of ledger.csv to have them done again"
    ]


def _jobs(
    cases: Sequence[Case],
    inputs: tuple[Path, Path],
    settings: BatchSettings,
    cache: HeaderCache,
    say: Callable[[str], None],
) -> Iterator[Job]:
    """The work of these cases. Series are looked for at once, jobs made when they are asked for."""
    from spineimg.io.index import left_out

    root, table = inputs
    uids = {case.uid.split("#")[0] for case in cases if case.uid is not None}
    by_uid, skipped = find_series(root, uids, cache.read)
    if skipped:
        say(f"below {root} {left_out(skipped)}: in no case, whatever series it belongs to")

    def job(case: Case) -> Job:
        files = (str(root / case.path),) if case.uid is None else tuple(by_uid[case.uid.split("#")[0]])
        rois, mask = (None if name is None else located(name, root, table) for name in (case.rois, case.mask))
        return Job(
            case, files, rois, mask, settings.figures,
            headers=cache.of(files), implants=settings.implants, search=settings.search,
        )  # fmt: skip

    return map(job, cases)


def find_series(
    root: Path, uids: Iterable[str], read: Callable[[str], FileHeader]
) -> tuple[dict[str, list[str]], list[Skipped]]:
    """(SeriesInstanceUID -> files below `root` that have it, what cannot be read). Headers only; reads nothing when no
    UID is asked for."""
    from spineimg.io.index import Skipped, headers

    found: dict[str, list[str]] = {uid: [] for uid in uids}
    skipped: list[Skipped] = []
    for path, header in headers([root], read) if found else ():
        if isinstance(header, Skipped):
            skipped.append(header)
        elif header is not None and (uid := header.values.get("SeriesInstanceUID")) in found:
            found[uid].append(path)
    return found, skipped


# -- the work ---------------------------------------------------------------------------------------------------------


class _Stop:
    """Whether somebody has asked the run to stop, and whether the run has said that it will."""

    asked = False
    told = False


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """The first Ctrl-C (or SIGTERM) lets the cases under way end, a second one does not.

    The handler only takes note: whatever it wrote could fall into the middle of another line.
    """
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, eq=False, slots=True)
class _Books:
    """Where an answer is written down."""

    folder: RunFolder
    ledger: Ledger
    cache: HeaderCache
    progress: Progress


def _work(books: _Books, jobs: Iterator[Job], settings: BatchSettings) -> bool:
    """Every job gets its row. True when somebody stopped it before."""

    def settle(case: Case, answer: Answer) -> None:
        if answer.version != __version__:
            raise SpineImgError(
                f"a worker has spineimg {answer.version}, this is {__version__}: install one everywhere"
            )
        row = LedgerRow(case.name, answer.status, answer.reason, answer.seconds, answer.n_vertebrae)
        try:
            books.folder.store(case.name, answer)
            books.ledger.append(row)
        except (SpineImgError, OSError) as error:
            raise SpineImgError(f"{error}: the run stopped; mend that and run the same command again") from error
        books.cache.learn(answer.headers)
        books.progress.add(row)

    if settings.scheduler is not None:
        pool: Pool = DaskPool(settings.scheduler, settings.timeout_s, settings.workers)
    else:
        pool = LocalPool(settings.workers, settings.timeout_s)
    with closing(pool), _stoppable() as stop:
        _drive(pool, jobs, settle, stop, books.progress.say)
        return stop.asked


def _drive(
    pool: Pool,
    jobs: Iterator[Job],
    settle: Callable[[Case, Answer], None],
    stop: _Stop,
    say: Callable[[str], None],
) -> None:
    """Keeps the pool busy until no job is left, or until a stop and the end of what is under way."""
    under_way: dict[Future[Answer], Job] = {}
    waiting: list[Job] = []
    idle_because = ""
    while True:
        if stop.asked:
            if not stop.told:
                stop.told = True
                say("stopping after the cases under way; once more to stop at once")
            waiting.clear()
            under_way = {future: job for future, job in under_way.items() if not pool.withdraw(future)}
        while not stop.asked and len(under_way) < pool.room():
            job = next(jobs, None)
            if job is None:
                break
            under_way[pool.submit(job)] = job
        if not under_way and waiting:  # nobody else is at work: the whole memory is free
            job = waiting.pop(0)
            under_way[pool.submit(job)] = job
        if not under_way:
            return
        if pool.idle_because() != idle_because:
            idle_because = pool.idle_because()
            say(idle_because or "workers are there")
        finished, _ = wait(under_way, _LOOK_SECONDS, FIRST_COMPLETED)
        for future in finished:
            job, answer = under_way.pop(future), pool.answer(future)
            larger = pool.with_more_memory(job) if answer.too_large and not stop.asked else None
            if larger is None:
                settle(job.case, answer)
            else:
                waiting.append(larger)


# -- after ------------------------------------------------------------------------------------------------------------


def _measurements(folder: RunFolder, ledger: Ledger, cases: CaseTable, manifest: dict[str, Any]) -> int:
    """Brings measurements and page up to date, in the table's order, then cases of earlier tables by name.

    Returns the number of vertebrae of the table's cases.
    """
    in_table = [case.name for case in cases.cases]
    cases_with_row = [name for name in (*in_table, *sorted(ledger.rows.keys() - set(in_table))) if name in ledger.rows]
    done = [name for name in cases_with_row if ledger.rows[name].status is CaseStatus.DONE]
    state = digest(ledger, cases_with_row)
    there = all((folder.path / name).exists() for name in ("measurements.csv", "measurements.parquet", "index.html"))
    if manifest["measurements_of"] != state or not there:
        found = folder.write_measurements(done)
        rows = [ledger.rows[name] for name in cases_with_row]
        write_index(folder.path / "index.html", rows, found, folder.figures(done))
        write_manifest(folder.manifest, manifest | {"measurements_of": state})
    return sum(ledger.rows[case.name].n_vertebrae for case in cases.cases if case.name in ledger.rows)
