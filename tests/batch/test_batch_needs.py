"""Tables with other names, cases that need the whole machine, workers that Slurm starts."""

from __future__ import annotations

import json
import os
import stat
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from spineimg.batch import pools
from spineimg.batch.cases import Case, parse_columns, read_cases
from spineimg.batch.guard import Workers
from spineimg.batch.ledger import CaseStatus
from spineimg.batch.runner import BatchSettings, run_batch
from spineimg.batch.worker import Answer, Job, measure_case
from spineimg.errors import RoiError, SpineImgError
from tests.batch import studies as s

# -- columns ----------------------------------------------------------------------------------------------------------


def test_columns_of_another_table(tmp_path: Path) -> None:
    """Planted: x_mm and y_mm taken in the order of the option instead of by name."""
    path = tmp_path / "study.csv"
    path.write_text("Age,Patient,Folder,Vertebra,X,Y,Z,role\n71,p1,s00,L4,1.5,-2,30,LIV\n")
    columns = parse_columns("y_mm=Y, x_mm=X,z_mm=Z,case=Patient,path=Folder,level=Vertebra")
    (case,) = read_cases(path, tmp_path, columns).cases
    (wanted,) = case.wanted
    assert (case.name, case.path, wanted.level, wanted.role) == ("p1", "s00", "L4", "LIV")
    assert wanted.center_lps_mm == (1.5, -2.0, 30.0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("case", "write OURS=THEIRS"),
        ("case=", "write OURS=THEIRS"),
        ("patient=Patient", "OURS one of case, path"),
        ("case=Patient,case=Folder", "once each"),
    ],
)
def test_columns_that_make_no_sense(option: str, message: str) -> None:
    with pytest.raises(SpineImgError, match=message):
        parse_columns(option)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    path.write_text("Patient,Folder\np1,s00\n")
    with pytest.raises(SpineImgError, match="line 1: --columns says case=Name, but 0 columns are called that"):
        read_cases(path, tmp_path, {"case": "Name"})
    with pytest.raises(SpineImgError, match="line 1: the column 'path' is missing"):
        read_cases(path, tmp_path, {"case": "Patient"})


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_case_that_does_not_fit_waits_for_the_whole_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: handing the waiting case out while others are at work."""
    s.tree(tmp_path / "root", 1)
    rows = [{"case": f"c{n}", "path": "s00", "rois": "rois.json"} for n in range(6)]
    table = s.table(tmp_path / "cases.csv", rows)
    seen: list[tuple[str, int, int]] = []
    busy: set[str] = set()

    def run(self: Workers, job: Job, timeout_s: float | None) -> Answer:
        busy.add(job.case.name)
        seen.append((job.case.name, job.memory_bytes or 0, len(busy)))
        fits = job.case.name != "c1" or (job.memory_bytes or 0) > 5e9
        answer = Answer(CaseStatus.DONE, document=b"{}") if fits else Answer(CaseStatus.FAILED, "", too_large=True)
        busy.discard(job.case.name)
        return answer

    monkeypatch.setattr(Workers, "run", run)
    monkeypatch.setattr(pools, "available_bytes", lambda: 8_000_000_000)
    monkeypatch.setattr("spineimg.batch.runner._measurements", lambda *_: 0)
    summary = run_batch(tmp_path / "root", table, tmp_path / "out", BatchSettings(workers=2), quiet=True)
    assert summary.n_done == 6
    assert [one[0] for one in seen].count("c1") == 2
    assert seen[-1] == ("c1", 7_200_000_000, 1)
    assert {memory for name, memory, _ in seen[:-1]} == {3_600_000_000}


def test_a_case_that_never_fits_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s.tree(tmp_path / "root", 1)
    table = s.table(tmp_path / "cases.csv", [{"case": "big", "path": "s00", "rois": "rois.json"}])
    asked: list[int | None] = []

    def run(self: Workers, job: Job, timeout_s: float | None) -> Answer:
        asked.append(job.memory_bytes)
        return Answer(CaseStatus.FAILED, "needs more memory", too_large=True)

    monkeypatch.setattr(Workers, "run", run)
    summary = run_batch(tmp_path / "root", table, tmp_path / "out", BatchSettings(workers=2), quiet=True)
    assert summary.n_failed == 1
    assert len(asked) == 2


# -- Slurm ------------------------------------------------------------------------------------------------------------


def test_workers_that_slurm_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for sbatch runs the job's script on this machine. Planted: one job whatever --workers says."""
    pids = _slurm(tmp_path / "bin", monkeypatch, 'setsid sh "$job" >/dev/null 2>&1 &')
    s.tree(tmp_path / "root", 2)
    rows = [{"case": f"c{n}", "path": f"s{n % 2:02d}", "rois": "rois.json"} for n in range(4)]
    table = s.table(tmp_path / "cases.csv", rows)
    with _described():
        settings = BatchSettings(workers=2, scheduler="slurm", timeout_s=60)
        summary = run_batch(tmp_path / "root", table, tmp_path / "out", settings, quiet=True)
    assert summary.n_done == 4
    assert len(pids.read_text().split()) == 2


def test_jobs_that_end_before_a_worker_comes_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: ended jobs not asked about; the run then waited for ever."""
    once = tmp_path / "once"
    pids = _slurm(
        tmp_path / "bin",
        monkeypatch,
        f'if [ -e {once} ]; then exec setsid sh "$job"; else touch {once}; fi >/dev/null 2>&1 &',
    )
    monkeypatch.setattr(pools, "_COUNT_SECONDS", 0.2)
    s.tree(tmp_path / "root", 1)
    with _described():
        summary = s.run(
            tmp_path / "root", s.whole_table(tmp_path / "root", 1), tmp_path / "out", scheduler="slurm", workers=1
        )
    assert summary.n_done == 1
    assert len(pids.read_text().split()) == 2


def test_jobs_that_always_end_before_a_worker_comes_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: no end to new jobs."""
    pids = _slurm(tmp_path / "bin", monkeypatch, "true &")
    monkeypatch.setattr(pools, "_COUNT_SECONDS", 0.2)
    s.tree(tmp_path / "root", 1)
    with _described(), pytest.raises(SpineImgError, match=r"Slurm jobs \d+, \d+, \d+ ended before their Dask workers"):
        s.run(tmp_path / "root", s.whole_table(tmp_path / "root", 1), tmp_path / "out", scheduler="slurm", workers=1)
    assert 3 <= len(pids.read_text().split()) <= 4


def test_a_job_that_slurm_does_not_take_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the job not asked about before; Dask then submitted it again and again, and the run never ended."""
    _slurm(tmp_path / "bin", monkeypatch, "")
    _command(tmp_path / "bin" / "sbatch", 'echo "sbatch: error: invalid partition specified: nosuch" >&2; exit 1')
    s.tree(tmp_path / "root", 1)
    words = r"does not take the workers' jobs: sbatch: error: invalid partition .*nosuch"
    with _described(), pytest.raises(SpineImgError, match=words):
        s.run(tmp_path / "root", s.whole_table(tmp_path / "root", 1), tmp_path / "out", scheduler="slurm")


def _slurm(commands: Path, monkeypatch: pytest.MonkeyPatch, begin: str) -> Path:
    """Stand-ins for Slurm's commands, found first; `begin` starts the script $job in the background.

    Returns the file of the process ids, which are the jobs' ids.
    """
    commands.mkdir()
    pids = commands / "pids"
    keep = f'[ "$1" = --test-only ] && exit 0\njob={commands}/job-$$.sh; cp "$1" $job'  # Dask deletes its own at once
    _command(commands / "sbatch", f'{keep}\n{begin}\necho $! >> {pids}\necho "Submitted batch job $!"')
    _command(commands / "squeue", f"for one in $(cat {pids}); do kill -0 $one 2>/dev/null && echo $one; done; exit 0")
    # A job is a process group, so that its worker ends with its script.
    _command(commands / "scancel", 'for one in "$@"; do kill -- -"$one" || kill "$one"; done 2>/dev/null; exit 0')
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return pids


def _described() -> AbstractContextManager[Any]:
    """Dask's configuration for jobs on this machine; a worker has ten minutes to start, whatever else is going on."""
    dask = pytest.importorskip("dask", reason="needs Dask: pip install 'spineimg[slurm]'")
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install 'spineimg[slurm]'")
    own: dict[str, Any] = {"cores": 1, "memory": "1GB", "interface": "lo", "log-directory": None, "death-timeout": 600}
    own_or_usual = {**dask.config.get("jobqueue.slurm", {}), **own}
    described: AbstractContextManager[Any] = dask.config.set({"jobqueue.slurm": own_or_usual})
    return described


def _command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# -- vertebrae that nobody placed, implants ---------------------------------------------------------------------------


def test_vertebrae_are_found_and_implants_screened(tmp_path: Path) -> None:
    """Planted: the level of the row ignored; all vertebrae were then in the table."""
    study = Path(__file__).parents[2] / "sample_data" / "preop"
    table = s.table(tmp_path / "cases.csv", [{"case": "one", "path": "ct", "level": "L4", "role": "LIV"}], COLUMNS)
    settings = BatchSettings(workers=1, search=True, implants=True)
    summary = run_batch(study, table, tmp_path / "out", settings, quiet=True)
    assert summary.n_done == 1
    (result,) = s.results(tmp_path / "out").values()
    (vertebra,) = result["vertebrae"]
    truth = json.loads((study / "truth.json").read_text())["levels"]
    (true,) = [one for one in truth if one["level"] == "L4"]
    assert (vertebra["level"], vertebra["role"], vertebra["confirmed"]) == ("L4", "LIV", False)
    assert np.linalg.norm(np.subtract(vertebra["slices"][1]["center"], true["center"])) < 12  # the next is 30 mm away
    assert result["screws"] == []
    assert result["grade"]["text"] != "implants were not screened"


def test_screws_are_looked_for_where_no_vertebra_is_found(tmp_path: Path) -> None:
    """Planted: the case refused for the names that it lacks."""
    s.tree(tmp_path / "root", 1)
    table = s.table(tmp_path / "cases.csv", [{"case": "one", "path": "s00"}], ("case", "path"))
    s.run(tmp_path / "root", table, tmp_path / "levels", search=True)
    assert s.ledger(tmp_path / "levels")["one"]["status"] == "refused"
    s.run(tmp_path / "root", table, tmp_path / "both", search=True, implants=True)
    row = s.ledger(tmp_path / "both")["one"]
    assert (row["status"], row["reason"][:22]) == ("done", "no vertebra measured: ")
    (result,) = s.results(tmp_path / "both").values()
    assert "levels_not_found" in [note["code"] for note in result["notes"]]
    assert result["grade"]["text"] != "implants were not screened"


def test_the_picture_of_a_case_without_vertebrae_shows_its_screws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: no picture where no vertebra was measured."""

    def nothing(*_: object) -> None:
        raise RoiError("no vertebra was found")

    monkeypatch.setattr("spineimg.pipeline.found_rois", nothing)
    ct = Path(__file__).parents[2] / "sample_data" / "postop" / "ct"
    case = Case("one", 2, str(ct), None, None, None, ())
    answer = measure_case(Job(case, (str(ct),), figure=True, implants=True, search=True))
    assert (answer.status, answer.n_vertebrae) == (CaseStatus.DONE, 0)
    assert answer.reason == "no vertebra measured: no vertebra was found"
    assert answer.figure is not None
    height, width = imread(BytesIO(answer.figure)).shape[:2]
    assert height > 4 * 150  # a row for each of the screws
    assert width > 1000


COLUMNS = ("case", "path", "level", "role")


def test_a_case_without_vertebrae_needs_leave(tmp_path: Path) -> None:
    table = s.table(tmp_path / "cases.csv", [{"case": "one", "path": "ct", "level": "", "role": ""}], COLUMNS)
    with pytest.raises(SpineImgError, match="line 2: level is empty"):
        read_cases(table, tmp_path)
    (case,) = read_cases(table, tmp_path, may_search=True).cases
    assert case.searched
    assert case.wanted == ()
